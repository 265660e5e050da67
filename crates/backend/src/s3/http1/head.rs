//! The head of an answer: status, headers, and where its body ends (RFC 9112 section 6.3).

use std::ops::Range;

use bytes::{Bytes, BytesMut};
use http::header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

/// The most header fields of an answer: what an object of ours may carry as user metadata (2 KiB of
/// one-letter names and values), and the provider's own.
const FIELDS_MAX: usize = 1200;

/// What nearly every answer gets by with; more fields are parsed a second time.
const FIELDS_USUAL: usize = 32;

/// Why bytes are no head of an answer.
#[derive(Debug, thiserror::Error)]
pub(in crate::s3) enum HeadError {
    #[error("its head is not HTTP")]
    Syntax(#[source] httparse::Error),
    #[error("its head has a header that no message can have")]
    Field,
    #[error("its head is too large")]
    TooLarge,
    #[error("its length is no number, or two")]
    Length,
    #[error("its transfer coding is unknown")]
    Coding,
}

/// Where a body ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BodyFraming {
    /// After so many bytes.
    Length(u64),
    /// With an empty chunk.
    Chunked,
    /// With the connection.
    Close,
}

pub(super) struct ResponseHead {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) keep_alive: bool,
}

/// Where a field lies in the buffer.
#[derive(Clone, Default)]
struct FieldRange {
    name: Range<usize>,
    value: Range<usize>,
}

impl ResponseHead {
    /// Takes a head from the front of the buffer, once it is there whole.
    pub(super) fn parse(buffer: &mut BytesMut) -> Result<Option<Self>, HeadError> {
        let mut usual = [const {
            FieldRange {
                name: 0..0,
                value: 0..0,
            }
        }; FIELDS_USUAL];
        let mut fields = [httparse::EMPTY_HEADER; FIELDS_USUAL];
        match locate(buffer, &mut fields, &mut usual) {
            Err(HeadError::Syntax(httparse::Error::TooManyHeaders)) => {
                let mut many = vec![FieldRange::default(); FIELDS_MAX];
                let mut fields = vec![httparse::EMPTY_HEADER; FIELDS_MAX];
                match locate(buffer, &mut fields, &mut many)? {
                    None => Ok(None),
                    Some(line) => line.take(buffer, &many).map(Some),
                }
            }
            Err(error) => Err(error),
            Ok(None) => Ok(None),
            Ok(Some(line)) => line.take(buffer, &usual).map(Some),
        }
    }

    /// Where the body ends, and whether another answer can follow it.
    pub(super) fn framing(&self, bodiless: bool) -> Result<(BodyFraming, bool), HeadError> {
        let status = self.status;
        if bodiless || status == StatusCode::NO_CONTENT || status == StatusCode::NOT_MODIFIED {
            return Ok((BodyFraming::Length(0), true));
        }
        let mut codings = self.headers.get_all(TRANSFER_ENCODING).iter();
        if let Some(coding) = codings.next() {
            let chunked = coding.as_bytes().eq_ignore_ascii_case(b"chunked");
            return match chunked && codings.next().is_none() {
                // Who sends both may be read differently by somebody in between.
                true => Ok((
                    BodyFraming::Chunked,
                    !self.headers.contains_key(CONTENT_LENGTH),
                )),
                false => Err(HeadError::Coding),
            };
        }
        let mut lengths = self.headers.get_all(CONTENT_LENGTH).iter();
        let Some(length) = lengths.next() else {
            return Ok((BodyFraming::Close, false));
        };
        if lengths.any(|other| other != length) {
            return Err(HeadError::Length);
        }
        let digits = length
            .to_str()
            .ok()
            .filter(|text| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()));
        match digits.and_then(|digits| digits.parse().ok()) {
            Some(length) => Ok((BodyFraming::Length(length), true)),
            None => Err(HeadError::Length),
        }
    }
}

/// The status line, and how much of the buffer the head takes.
struct StatusLine {
    bytes: usize,
    fields: usize,
    status: StatusCode,
    minor: u8,
}

fn locate<'b>(
    buffer: &'b [u8],
    fields: &mut [httparse::Header<'b>],
    places: &mut [FieldRange],
) -> Result<Option<StatusLine>, HeadError> {
    let mut answer = httparse::Response::new(fields);
    let bytes = match answer.parse(buffer).map_err(HeadError::Syntax)? {
        httparse::Status::Complete(bytes) => bytes,
        httparse::Status::Partial => return Ok(None),
    };
    let start = buffer.as_ptr() as usize;
    let place = |part: &[u8]| {
        let from = (part.as_ptr() as usize).saturating_sub(start);
        from..from + part.len()
    };
    for (field, found) in answer.headers.iter().zip(&mut *places) {
        *found = FieldRange {
            name: place(field.name.as_bytes()),
            value: place(field.value),
        };
    }
    let code = answer.code.unwrap_or_default();
    Ok(Some(StatusLine {
        bytes,
        fields: answer.headers.len(),
        status: StatusCode::from_u16(code).map_err(|_| HeadError::Field)?,
        minor: answer.version.unwrap_or_default(),
    }))
}

impl StatusLine {
    /// Takes the head out of the buffer; values stay where they are.
    fn take(self, buffer: &mut BytesMut, places: &[FieldRange]) -> Result<ResponseHead, HeadError> {
        let bytes: Bytes = buffer.split_to(self.bytes).freeze();
        let mut headers = HeaderMap::with_capacity(self.fields);
        for place in &places[..self.fields] {
            let name = HeaderName::from_bytes(&bytes[place.name.clone()]);
            let value = HeaderValue::from_maybe_shared(bytes.slice(place.value.clone()));
            let (Ok(name), Ok(value)) = (name, value) else {
                return Err(HeadError::Field);
            };
            headers.append(name, value);
        }
        let says = |token: &str| {
            headers.get_all(CONNECTION).iter().any(|value| {
                let text = value.to_str().unwrap_or_default();
                text.split(',')
                    .any(|said| said.trim().eq_ignore_ascii_case(token))
            })
        };
        let keep_alive = match self.minor {
            0 => says("keep-alive"),
            _ => !says("close"),
        };
        Ok(ResponseHead {
            status: self.status,
            keep_alive,
            headers,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Option<(ResponseHead, String)>, HeadError> {
        let mut buffer = BytesMut::from(text);
        let head = ResponseHead::parse(&mut buffer)?;
        Ok(head.map(|head| (head, String::from_utf8(buffer.to_vec()).unwrap())))
    }

    fn framing(fields: &str) -> Result<(BodyFraming, bool), HeadError> {
        let (head, _) = parse(&format!("HTTP/1.1 200 OK\r\n{fields}\r\n"))?.unwrap();
        head.framing(false)
    }

    #[test]
    fn a_head_is_taken_once_it_is_whole() {
        let text = "HTTP/1.1 206 Partial Content\r\nETag: \"a\"\r\nx-a: 1\r\nx-a: 2\r\n\r\nbody";
        for cut in 1..text.len() - "body".len() {
            assert!(parse(&text[..cut]).unwrap().is_none(), "{cut}");
        }
        let (head, rest) = parse(text).unwrap().unwrap();
        assert_eq!((head.status.as_u16(), head.keep_alive), (206, true));
        assert_eq!(head.headers["etag"], "\"a\"");
        assert_eq!(head.headers.get_all("x-a").iter().count(), 2);
        assert_eq!(rest, "body");
    }

    #[test]
    fn many_fields_are_taken_and_too_many_refused() {
        let head = |count: usize| {
            let fields: String = (0..count).map(|n| format!("x-{n}: {n}\r\n")).collect();
            parse(&format!("HTTP/1.1 200 OK\r\n{fields}\r\n"))
        };
        let (many, _) = head(FIELDS_MAX).unwrap().unwrap();
        assert_eq!(many.headers.len(), FIELDS_MAX);
        assert_eq!(many.headers["x-1199"], "1199");
        assert!(matches!(head(FIELDS_MAX + 1), Err(HeadError::Syntax(_))));
    }

    #[test]
    fn a_connection_is_kept_unless_somebody_says_otherwise() {
        for (text, kept) in [
            ("HTTP/1.1 200 OK\r\n\r\n", true),
            ("HTTP/1.1 200 OK\r\nConnection: x, Close\r\n\r\n", false),
            ("HTTP/1.0 200 OK\r\n\r\n", false),
            ("HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n\r\n", true),
        ] {
            let (head, _) = parse(text).unwrap().unwrap();
            assert_eq!(head.keep_alive, kept, "{text}");
        }
    }

    #[test]
    fn the_end_of_a_body_is_beyond_doubt() {
        assert_eq!(
            framing("Content-Length: 5\r\n").unwrap(),
            (BodyFraming::Length(5), true)
        );
        assert_eq!(
            framing("Content-Length: 5\r\nContent-Length: 5\r\n").unwrap(),
            (BodyFraming::Length(5), true)
        );
        assert_eq!(
            framing("Transfer-Encoding: Chunked\r\n").unwrap(),
            (BodyFraming::Chunked, true)
        );
        assert_eq!(
            framing("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n").unwrap(),
            (BodyFraming::Chunked, false)
        );
        assert_eq!(framing("").unwrap(), (BodyFraming::Close, false));
        for fields in [
            "Content-Length: 5\r\nContent-Length: 6\r\n",
            "Content-Length: +5\r\n",
            "Content-Length: 5, 5\r\n",
            "Content-Length: 99999999999999999999\r\n",
            "Content-Length:\r\n",
        ] {
            assert!(
                matches!(framing(fields), Err(HeadError::Length)),
                "{fields}"
            );
        }
        for coding in [
            "gzip",
            "gzip, chunked",
            "chunked\r\nTransfer-Encoding: chunked",
        ] {
            let fields = format!("Transfer-Encoding: {coding}\r\n");
            assert!(
                matches!(framing(&fields), Err(HeadError::Coding)),
                "{coding}"
            );
        }
        let (bare, _) = parse("HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n")
            .unwrap()
            .unwrap();
        assert_eq!(bare.framing(false).unwrap(), (BodyFraming::Length(0), true));
        let (head, _) = parse("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n")
            .unwrap()
            .unwrap();
        assert_eq!(head.framing(true).unwrap(), (BodyFraming::Length(0), true));
    }
}
