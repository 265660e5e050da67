//! Takes `multipart/form-data` apart (RFC 7578, RFC 2046 section 5.1).
//!
//! The fields before the file are collected, within limits. The file flows on as it arrives; only
//! bytes that may be the beginning of a delimiter are held back. Fields behind the file are passed
//! over, as S3 does.

use std::borrow::Cow;

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use memchr::memmem;

use crate::headers::single;
use crate::{Error, ErrorCode};

/// All that stands before the file. Source: Amazon S3 API reference, "Creating an HTML form".
const BEFORE_FILE_BYTES_MAX: usize = 20 << 10;
/// All that stands behind it.
const BEHIND_FILE_BYTES_MAX: usize = 20 << 10;
const FIELDS_MAX: usize = 100;
/// RFC 2046 section 5.1.1.
const BOUNDARY_BYTES_MAX: usize = 70;
/// Why the closing delimiter is looked for with a line end in front of it: it belongs to it.
const LINE_END: &[u8] = b"\r\n";

/// The condition that a POST on a bucket fails by which is no form.
pub const ENCLOSURE: &str = "Bucket POST must be of the enclosure-type multipart/form-data";

/// The boundary that `Content-Type` names.
///
/// # Errors
/// PreconditionFailed where the body is no form; MalformedPOSTRequest where it is one without a boundary.
pub fn boundary(headers: &HeaderMap) -> Result<String, Error> {
    let malformed = || {
        Error::new(
            ErrorCode::MalformedPostRequest,
            "The body of a POST must be multipart/form-data with a boundary.",
        )
    };
    let text = single(headers, "content-type")?.unwrap_or("");
    let (kind, parameters) = text.split_once(';').unwrap_or((text, ""));
    if !kind.trim().eq_ignore_ascii_case("multipart/form-data") {
        return Err(ErrorCode::PreconditionFailed.into());
    }
    let found = parameters.split(';').find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        let value = value.trim();
        let plain = value
            .strip_prefix('"')
            .and_then(|value| value.strip_suffix('"'));
        let named = name.trim().eq_ignore_ascii_case("boundary");
        named.then(|| plain.unwrap_or(value).to_owned())
    });
    found
        .filter(|text| (1..=BOUNDARY_BYTES_MAX).contains(&text.len()) && text.is_ascii())
        .ok_or_else(malformed)
}

/// Decodes one form.
#[derive(Debug)]
pub struct FormDecoder {
    /// A line end, two dashes and the boundary.
    delimiter: Vec<u8>,
    state: FormState,
    /// What has come and is not understood yet.
    buffer: BytesMut,
    /// Bytes before the file.
    before: usize,
    fields: Vec<(String, String)>,
    file_name: String,
}

#[derive(Debug)]
enum FormState {
    /// Before the first delimiter, which has no line end in front of it.
    Start,
    /// Behind a delimiter: another part follows, or nothing.
    Delimiter,
    /// In the head of a part.
    Head,
    /// In the value of the field with this name.
    Value(String),
    /// In the file.
    File,
    /// Behind the file.
    Behind,
    /// The closing delimiter was seen.
    Done,
}

/// What the head of a part says.
struct PartHead {
    name: String,
    file_name: Option<String>,
}

impl FormDecoder {
    /// A decoder for a body with this boundary.
    pub fn new(boundary: &str) -> Self {
        Self {
            delimiter: [LINE_END, b"--", boundary.as_bytes()].concat(),
            state: FormState::Start,
            buffer: BytesMut::new(),
            before: 0,
            fields: Vec::new(),
            file_name: String::new(),
        }
    }

    /// The fields before the file, in their order, with names in lower case.
    pub fn fields(&self) -> &[(String, String)] {
        &self.fields
    }

    /// The name that the file has at its client, without folders; empty where it has none.
    pub fn file_name(&self) -> &str {
        &self.file_name
    }

    /// Whether the file's first byte is reached: all fields that count are known.
    pub fn is_in_file(&self) -> bool {
        matches!(
            self.state,
            FormState::File | FormState::Behind | FormState::Done
        )
    }

    /// Bytes of the body before the file's first byte, once [`Self::is_in_file`].
    pub fn bytes_before_file(&self) -> u64 {
        self.before as u64
    }

    /// How long the file is if nothing but the closing delimiter and a line end follow it, in a body of
    /// so many bytes. Where something else follows, the file turns out to have another length.
    pub fn file_length_if_last(&self, content_length: u64) -> Option<u64> {
        let closing = self.delimiter.len() + b"--\r\n".len();
        content_length
            .checked_sub(self.bytes_before_file())?
            .checked_sub(closing as u64)
    }

    /// Takes the next bytes of the body; those of the file are pushed to `out`.
    pub fn feed(&mut self, input: &Bytes, out: &mut Vec<Bytes>) -> Result<(), Error> {
        self.buffer.extend_from_slice(input);
        while self.step(out)? {}
        let held = self.buffer.len();
        match self.state {
            FormState::Start | FormState::Delimiter | FormState::Head | FormState::Value(_)
                if self.before + held > BEFORE_FILE_BYTES_MAX =>
            {
                Err(ErrorCode::MaxPostPreDataLengthExceeded.into())
            }
            FormState::Behind if held > BEHIND_FILE_BYTES_MAX => {
                Err(malformed("it goes on too long"))
            }
            _ => Ok(()),
        }
    }

    /// The body has ended.
    pub fn finish(&self) -> Result<(), Error> {
        match self.state {
            FormState::Done => Ok(()),
            FormState::File | FormState::Behind => {
                Err(malformed("it ends before its closing delimiter"))
            }
            FormState::Start | FormState::Delimiter | FormState::Head | FormState::Value(_) => {
                Err(no_file())
            }
        }
    }

    /// Understands the next piece of the buffer; `false` where more has to come.
    fn step(&mut self, out: &mut Vec<Bytes>) -> Result<bool, Error> {
        match &self.state {
            FormState::Start => {
                // What stands before the first delimiter means nothing; of that, line ends are sent.
                if self.buffer.starts_with(LINE_END) {
                    self.pass(LINE_END.len());
                    return Ok(true);
                }
                let first = &self.delimiter[LINE_END.len()..];
                if self.buffer.len() < first.len() {
                    return Ok(false);
                }
                if !self.buffer.starts_with(first) {
                    return Err(malformed("it does not begin with its boundary"));
                }
                self.pass(self.delimiter.len() - LINE_END.len());
                self.state = FormState::Delimiter;
            }
            FormState::Delimiter => {
                let Some(two) = self.buffer.get(..2) else {
                    return Ok(false);
                };
                match two {
                    LINE_END => self.state = FormState::Head,
                    b"--" => return Err(no_file()),
                    _ => return Err(malformed("a delimiter is not a line of its own")),
                }
                self.pass(2);
            }
            FormState::Head => {
                let Some(end) = memmem::find(&self.buffer, b"\r\n\r\n") else {
                    return Ok(false);
                };
                let PartHead { name, file_name } = parse_head(&self.buffer[..end])?;
                self.pass(end + 4);
                self.state = match name == "file" {
                    true => {
                        self.file_name = file_name.unwrap_or_default();
                        FormState::File
                    }
                    false => FormState::Value(name),
                };
                if self.is_in_file() && self.before > BEFORE_FILE_BYTES_MAX {
                    return Err(ErrorCode::MaxPostPreDataLengthExceeded.into());
                }
            }
            FormState::Value(name) => {
                let Some(end) = memmem::find(&self.buffer, &self.delimiter) else {
                    return Ok(false);
                };
                let value = std::str::from_utf8(&self.buffer[..end]);
                let value = value
                    .map_err(|_| malformed("a field is not UTF-8"))?
                    .to_owned();
                if self.fields.len() == FIELDS_MAX {
                    return Err(malformed("it has too many fields"));
                }
                self.fields.push((name.clone(), value));
                self.pass(end + self.delimiter.len());
                self.state = FormState::Delimiter;
            }
            FormState::File => return Ok(self.step_in_file(out)),
            FormState::Behind => return self.step_behind(),
            FormState::Done => {
                // An epilogue means nothing (RFC 2046).
                self.buffer.clear();
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Gives the file's bytes away, but for those that may begin a delimiter.
    fn step_in_file(&mut self, out: &mut Vec<Bytes>) -> bool {
        if let Some(end) = memmem::find(&self.buffer, &self.delimiter) {
            if end > 0 {
                out.push(self.buffer.split_to(end).freeze());
            }
            self.state = FormState::Behind;
            return true;
        }
        let held = held_back(&self.buffer, &self.delimiter);
        let free = self.buffer.len() - held;
        if free > 0 {
            out.push(self.buffer.split_to(free).freeze());
        }
        false
    }

    /// The buffer begins with a delimiter: is one of those that came the closing one?
    fn step_behind(&mut self) -> Result<bool, Error> {
        for at in memmem::find_iter(&self.buffer, &self.delimiter) {
            let behind = at + self.delimiter.len();
            match self.buffer.get(behind..behind + 2) {
                Some(b"--") => {
                    self.state = FormState::Done;
                    return Ok(true);
                }
                Some(LINE_END) => {}
                // Bytes of the file, or a delimiter: both readings have something against them.
                Some(_) => return Err(malformed("a delimiter is not a line of its own")),
                None => return Ok(false),
            }
        }
        Ok(false)
    }

    /// Lets go of bytes before the file.
    fn pass(&mut self, count: usize) {
        let _passed = self.buffer.split_to(count);
        self.before += count;
    }
}

/// How many bytes at the end may be the beginning of the delimiter.
fn held_back(bytes: &[u8], delimiter: &[u8]) -> usize {
    let longest = bytes.len().min(delimiter.len() - 1);
    let fits = |length: &usize| delimiter.starts_with(&bytes[bytes.len() - length..]);
    (1..=longest).rev().find(fits).unwrap_or(0)
}

fn parse_head(head: &[u8]) -> Result<PartHead, Error> {
    let head = text(head);
    let disposition = head.split("\r\n").find_map(|line| {
        let (name, value) = line.split_once(':')?;
        let fits = name.trim().eq_ignore_ascii_case("content-disposition");
        fits.then_some(value.trim())
    });
    let disposition = disposition.ok_or_else(|| malformed("a part has no Content-Disposition"))?;
    let mut rest = disposition
        .get(..b"form-data".len())
        .filter(|kind| kind.eq_ignore_ascii_case("form-data"))
        .map(|kind| &disposition[kind.len()..])
        .ok_or_else(|| malformed("a part is no form-data"))?;
    let (mut name, mut file_name) = (None, None);
    while let Some((parameter, value, behind)) = parameter(rest) {
        rest = behind;
        match parameter.to_ascii_lowercase().as_str() {
            "name" => name = Some(value.to_ascii_lowercase()),
            "filename" => file_name = Some(value),
            _ => {}
        }
    }
    Ok(PartHead {
        name: name.ok_or_else(|| malformed("a part has no name"))?,
        // Old browsers send the whole path, with the separators of their system.
        file_name: file_name.map(|path| {
            let last = path.rsplit(['/', '\\']).next();
            last.unwrap_or_default().to_owned()
        }),
    })
}

/// The text of a part's head: UTF-8, or what browsers send from pages that name no character set, so that
/// the name of a file survives. The HTML standard calls that windows-1252 and means it by Latin-1, too.
fn text(bytes: &[u8]) -> Cow<'_, str> {
    /// 0x80 to 0x9F; five of them have no character and stand for themselves.
    const WINDOWS: [char; 32] = [
        '€', '\u{81}', '‚', 'ƒ', '„', '…', '†', '‡', 'ˆ', '‰', 'Š', '‹', 'Œ', '\u{8d}', 'Ž',
        '\u{8f}', '\u{90}', '‘', '’', '“', '”', '•', '–', '—', '˜', '™', 'š', '›', 'œ', '\u{9d}',
        'ž', 'Ÿ',
    ];
    let character = |byte: &u8| match byte {
        0x80..=0x9f => WINDOWS[usize::from(byte - 0x80)],
        other => char::from(*other),
    };
    match std::str::from_utf8(bytes) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => Cow::Owned(bytes.iter().map(character).collect()),
    }
}

/// The next `; name=value` or `; name="value"`, and what is behind it. In quotes, a backslash hides a
/// quote; browsers write `%22` instead, which stays as it is.
fn parameter(text: &str) -> Option<(&str, String, &str)> {
    let (name, rest) = text.trim_start().strip_prefix(';')?.split_once('=')?;
    let rest = rest.trim_start();
    let Some(quoted) = rest.strip_prefix('"') else {
        let end = rest.find(';').unwrap_or(rest.len());
        return Some((name.trim(), rest[..end].trim().to_owned(), &rest[end..]));
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((name.trim(), value, &quoted[at + 1..])),
            '\\' if quoted[at + 1..].starts_with('"') => {
                characters.next();
                value.push('"');
            }
            other => value.push(other),
        }
    }
    None
}

fn malformed(why: &str) -> Error {
    let message = format!("The body of your POST is not well-formed multipart/form-data: {why}.");
    Error::new(ErrorCode::MalformedPostRequest, message)
}

fn no_file() -> Error {
    Error::argument("POST requires exactly one file upload per request.")
}

#[cfg(test)]
mod tests {
    use proptest::collection;
    use proptest::prelude::{any, prop_assert_eq, proptest};

    use super::*;

    fn body(fields: &[(&str, &str)], file: &[u8], behind: &str) -> Vec<u8> {
        let mut body = Vec::new();
        for (name, value) in fields {
            let part = format!(
                "--B\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n"
            );
            body.extend_from_slice(part.as_bytes());
        }
        body.extend_from_slice(
            b"--B\r\nContent-Disposition: form-data; name=\"file\"; filename=\"C:\\fake\\a \\\"b.txt\"\r\nContent-Type: text/plain\r\n\r\n",
        );
        body.extend_from_slice(file);
        body.extend_from_slice(b"\r\n--B");
        body.extend_from_slice(behind.as_bytes());
        body
    }

    type Decoded = (Vec<(String, String)>, String, Vec<u8>, Option<u64>);

    fn decode<'a>(
        pieces: impl IntoIterator<Item = &'a [u8]>,
        length: usize,
    ) -> Result<Decoded, ErrorCode> {
        let mut decoder = FormDecoder::new("B");
        let mut out = Vec::new();
        for piece in pieces {
            decoder
                .feed(&Bytes::copy_from_slice(piece), &mut out)
                .map_err(|error| error.code)?;
        }
        decoder.finish().map_err(|error| error.code)?;
        Ok((
            decoder.fields().to_vec(),
            decoder.file_name().to_owned(),
            out.concat(),
            decoder.file_length_if_last(length as u64),
        ))
    }

    fn whole(body: &[u8]) -> Result<Decoded, ErrorCode> {
        decode([body], body.len())
    }

    #[test]
    fn fields_and_file_come_apart_however_the_bytes_arrive() {
        let file = b"one\r\n--two\r\n\r\n--\r\n-B\r\n--";
        let body = body(&[("Key", "a/${filename}"), ("acl", "")], file, "--\r\n");
        let expected = (
            vec![
                ("key".to_owned(), "a/${filename}".to_owned()),
                ("acl".to_owned(), String::new()),
            ],
            "a \"b.txt".to_owned(),
            file.to_vec(),
            Some(file.len() as u64),
        );
        for at in 0..=body.len() {
            let (head, tail) = body.split_at(at);
            assert_eq!(
                decode([head, tail], body.len()),
                Ok(expected.clone()),
                "{at}"
            );
        }
        assert_eq!(decode(body.chunks(1), body.len()), Ok(expected));
    }

    #[test]
    fn line_ends_may_stand_before_the_form() {
        let form = body(&[("key", "k")], b"bytes", "--\r\n");
        let expected = whole(&form).unwrap();
        for before in ["\r\n", "\r\n\r\n"] {
            let body = [before.as_bytes(), &form].concat();
            for pieces in [1, body.len()] {
                assert_eq!(
                    decode(body.chunks(pieces), body.len()),
                    Ok(expected.clone())
                );
            }
        }
    }

    #[test]
    fn a_boundary_with_more_behind_it_does_not_end_the_file() {
        for behind in [
            "X\r\n--B--\r\n",
            "-\r\n--B--\r\n",
            " --\r\n--B--\r\n",
            "\r\n\r\nx\r\n--BX\r\n--B--\r\n",
        ] {
            let body = body(&[("key", "k")], b"bytes", behind);
            for pieces in [1, 7, body.len()] {
                assert_eq!(
                    decode(body.chunks(pieces), body.len()),
                    Err(ErrorCode::MalformedPostRequest),
                    "{behind:?}"
                );
            }
        }
    }

    #[test]
    fn fields_behind_the_file_are_passed_over() {
        let behind = "\r\nContent-Disposition: form-data; name=\"submit\"\r\n\r\nGo\r\n--B--\r\n";
        let (fields, _, file, _) = whole(&body(&[("key", "k")], b"bytes", behind)).unwrap();
        assert_eq!((fields.len(), file), (1, b"bytes".to_vec()));
        for end in ["--", "--\r\n", "--\r\nepilogue"] {
            assert!(whole(&body(&[], b"x", end)).is_ok(), "{end:?}");
        }
    }

    #[test]
    fn what_is_cut_endless_or_without_a_file_is_refused() {
        let good = body(&[("key", "k")], b"bytes", "--\r\n");
        for at in 0..good.len() - 2 {
            assert!(whole(&good[..at]).is_err(), "{at}");
        }
        let value = "v".repeat(BEFORE_FILE_BYTES_MAX);
        let long = body(&[("key", &value)], b"x", "--\r\n");
        let too_long = ErrorCode::MaxPostPreDataLengthExceeded;
        assert_eq!(whole(&long), Err(too_long));
        assert_eq!(decode(long.chunks(100), long.len()), Err(too_long));
        let many = vec![("a", "b"); FIELDS_MAX + 1];
        assert!(whole(&body(&many, b"x", "--\r\n")).is_err());
        let behind = format!("\r\n{}", "x".repeat(BEHIND_FILE_BYTES_MAX));
        assert_eq!(
            whole(&body(&[], b"x", &behind)),
            Err(ErrorCode::MalformedPostRequest)
        );
        let no_file = b"--B\r\nContent-Disposition: form-data; name=\"key\"\r\n\r\nk\r\n--B--\r\n";
        assert_eq!(whole(no_file), Err(ErrorCode::InvalidArgument));
        for wrong in [
            &b"--C\r\n"[..],
            b"--BX\r\n",
            b"--B\r\nContent-Type: a\r\n\r\n",
            b"--B\r\nContent-Disposition: attachment; name=\"a\"\r\n\r\n",
            b"--B\r\nContent-Disposition: form-data; filename=\"a\"\r\n\r\n",
            b"--B\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n\xff\r\n--B",
        ] {
            assert_eq!(whole(wrong), Err(ErrorCode::MalformedPostRequest));
        }
    }

    #[test]
    fn the_name_of_a_file_is_utf8_or_what_old_pages_send() {
        for (sent, expected) in [
            ("caf\u{e9}.txt".as_bytes(), "café.txt"),
            (b"caf\xe9.txt", "café.txt"),
            (b"\x80 \x96 \xff\x81", "€ – ÿ\u{81}"),
        ] {
            let head = [
                &b"--B\r\nContent-Disposition: form-data; name=\"file\"; filename=\""[..],
                sent,
                b"\"\r\n\r\nx\r\n--B--\r\n",
            ];
            let (_, name, file, _) = whole(&head.concat()).unwrap();
            assert_eq!((name.as_str(), &file[..]), (expected, &b"x"[..]));
        }
    }

    #[test]
    fn boundaries_are_found_with_and_without_quotes() {
        let find = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("content-type", text.parse().unwrap());
            boundary(&headers).map_err(|error| error.code)
        };
        assert_eq!(find("multipart/form-data; boundary=abc"), Ok("abc".into()));
        let quoted = "Multipart/Form-Data; charset=utf-8; Boundary=\"a b\"";
        assert_eq!(find(quoted), Ok("a b".into()));
        let long = format!("multipart/form-data; boundary={}", "x".repeat(71));
        for text in [
            "text/plain; boundary=a",
            "text/plain",
            "multipart/mixed; boundary=a",
        ] {
            assert_eq!(find(text), Err(ErrorCode::PreconditionFailed), "{text}");
        }
        for text in [
            "multipart/form-data",
            "multipart/form-data; boundary=",
            &long,
        ] {
            assert_eq!(find(text), Err(ErrorCode::MalformedPostRequest), "{text}");
        }
        assert!(boundary(&HeaderMap::new()).is_err());
    }

    proptest! {
        #[test]
        fn any_file_comes_back_whole(
            file in collection::vec(proptest::sample::select(b"\r\n-Bx".to_vec()), 0..60),
            cut in any::<proptest::sample::Index>(),
        ) {
            // A file that holds its own delimiter was framed wrongly by its client.
            let inside = [&file[..], b"\r\n--"].concat();
            if memmem::find(&inside, b"\r\n--B").is_none() {
                let body = body(&[("key", "k")], &file, "--\r\n");
                let (head, tail) = body.split_at(cut.index(body.len()));
                let decoded = decode([head, tail], body.len()).unwrap();
                prop_assert_eq!(decoded.2, file);
            }
        }
    }
}
