//! The canonical request, and its hash.
//!
//! The path is taken from the wire; only bytes that a client should have encoded are encoded here.
//! The query is decoded and encoded again, because the wire form of a character is the client's
//! choice there. Where clients differ in what they sign, each form is tried:
//!
//! * a path with raw reserved bytes may have been signed with them as they are;
//! * a `+` in the query may have been signed as a plus or as a blank. What it was signed as is what it
//!   means: whoever changes `%2B` to `+` on the way changes nothing.

use std::borrow::Cow;

use http::{HeaderMap, HeaderName, HeaderValue};
use ring::digest::{SHA256, digest};

use super::{ALGORITHM, Hex, RequestHead, hex};

/// Which of the forms that clients sign is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CanonicalForm {
    path: PathForm,
    pub(super) plus: Plus,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PathForm {
    /// Raw reserved bytes are encoded.
    Encoded,
    /// The wire's bytes, whatever they are.
    Raw,
}

/// What a `+` in a query stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Plus {
    /// Itself: it was signed as `%2B`.
    Literal,
    /// A blank, as in a form: it was signed as `%20`. This is how [`crate::Query`] reads it.
    #[default]
    Blank,
}

impl Plus {
    /// How a canonical query writes it.
    const fn canonical(self) -> &'static [u8; 3] {
        match self {
            Self::Literal => b"%2B",
            Self::Blank => b"%20",
        }
    }

    /// A query that [`crate::Query`] reads as it was signed.
    pub fn apply<'q>(self, query: &'q str) -> Cow<'q, str> {
        match self {
            Self::Literal if query.contains('+') => Cow::Owned(query.replace('+', "%2B")),
            Self::Literal | Self::Blank => Cow::Borrowed(query),
        }
    }
}

impl CanonicalForm {
    /// What a client should sign, and what ours does.
    pub(super) const STANDARD: Self = Self {
        path: PathForm::Encoded,
        plus: Plus::Literal,
    };

    /// The forms that differ for this request.
    pub(super) fn all(head: &RequestHead<'_>) -> impl Iterator<Item = Self> {
        let raw_path = !head.path.bytes().all(stays_in_path);
        let plus = head.query.contains('+');
        [
            (PathForm::Encoded, Plus::Literal),
            (PathForm::Encoded, Plus::Blank),
            (PathForm::Raw, Plus::Literal),
            (PathForm::Raw, Plus::Blank),
        ]
        .into_iter()
        .filter(move |(path, _)| raw_path || *path == PathForm::Encoded)
        .filter(move |(_, form)| plus || *form == Plus::Literal)
        .map(|(path, plus)| Self { path, plus })
    }
}

/// The longest canonical request that a verification builds: three times the largest head of the front,
/// because an escape has three bytes. It is built before anybody has proven anything.
pub const CANONICAL_BYTES_MAX: usize = 384 << 10;

/// The most bytes that the canonical request of this head can have, in any of its forms, whichever of its
/// headers are signed, each once.
pub(super) fn bytes_max(head: &RequestHead<'_>, payload: &str) -> usize {
    const ESCAPE: usize = 3;
    // The name stands in its line and in the list of names. Which headers are signed is not asked:
    // a lookup of each name would cost more than all the rest of the checks.
    let line = |(name, value): (&HeaderName, &HeaderValue)| {
        2 * (name.as_str().len() + 1) + value.len() + 1
    };
    let headers: usize = head.headers.iter().map(line).sum();
    // A parameter without a value gets its equals sign.
    let bare = head.query.len() + 1;
    let target = ESCAPE * (head.path.len() + head.query.len()) + bare;
    head.method.as_str().len() + target + headers + payload.len() + 8
}

/// A header that is signed and is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Absent<'n>(pub(super) &'n str);

/// Hashes the canonical request. `signed` are the names of the signed headers in their order.
///
/// # Errors
/// The first of these names that the head does not have.
pub(super) fn hash<'n>(
    head: &RequestHead<'_>,
    form: CanonicalForm,
    signed: impl Iterator<Item = &'n str> + Clone,
    payload: &str,
) -> Result<[u8; 32], Absent<'n>> {
    // Hashed in one piece: a hash takes many small ones slowly.
    let mut sink = Sink(Vec::with_capacity(CANONICAL_BYTES));
    sink.put(head.method.as_str().as_bytes());
    sink.put(b"\n");
    put_path(&mut sink, head.path, form.path);
    sink.put(b"\n");
    put_query(&mut sink, head.query, form.plus);
    sink.put(b"\n");
    for name in signed.clone() {
        put_header(&mut sink, head.headers, name)?;
    }
    for (place, name) in signed.enumerate() {
        sink.put(if place == 0 { b"\n" } else { b";" });
        sink.put(name.as_bytes());
    }
    sink.put(b"\n");
    sink.put(payload.as_bytes());
    let hash = digest(&SHA256, &sink.0);
    Ok(hash.as_ref().try_into().expect("SHA-256 has 32 bytes"))
}

/// The text under the signature, in the parts that [`super::key::SigningKey::sign`] takes.
pub(super) fn sign_text(
    key: &super::key::SigningKey,
    amz_date: &[u8; 16],
    scope: &str,
    request: &[u8; 32],
) -> Hex {
    hex(&key.sign(&[
        ALGORITHM.as_bytes(),
        b"\n",
        amz_date,
        b"\n",
        scope.as_bytes(),
        b"\n",
        &hex(request),
    ]))
}

/// Most canonical requests are shorter.
const CANONICAL_BYTES: usize = 1024;

struct Sink(Vec<u8>);

impl Sink {
    fn put(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }
}

fn unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

fn stays_in_path(byte: u8) -> bool {
    unreserved(byte) || matches!(byte, b'/' | b'%')
}

fn escape(byte: u8) -> [u8; 3] {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    [
        b'%',
        DIGITS[usize::from(byte >> 4)],
        DIGITS[usize::from(byte & 15)],
    ]
}

fn put_path(sink: &mut Sink, path: &str, form: PathForm) {
    let mut rest = match path {
        "" => b"/",
        path => path.as_bytes(),
    };
    if form == PathForm::Raw {
        return sink.put(rest);
    }
    while let Some(at) = rest.iter().position(|byte| !stays_in_path(*byte)) {
        sink.put(&rest[..at]);
        sink.put(&escape(rest[at]));
        rest = &rest[at + 1..];
    }
    sink.put(rest);
}

fn put_query(sink: &mut Sink, query: &str, plus: Plus) {
    let mut pairs: Vec<(Vec<u8>, Vec<u8>)> = query
        .split('&')
        .filter(|part| !part.is_empty())
        .map(|part| part.split_once('=').unwrap_or((part, "")))
        .map(|(name, value)| (recode(name, plus), recode(value, plus)))
        .filter(|(name, _)| name != b"X-Amz-Signature")
        .collect();
    pairs.sort_unstable();
    for (place, (name, value)) in pairs.iter().enumerate() {
        if place > 0 {
            sink.put(b"&");
        }
        sink.put(name);
        sink.put(b"=");
        sink.put(value);
    }
}

/// Decodes percent escapes and encodes again; a `%` that is no escape stands for itself.
fn recode(wire: &str, plus: Plus) -> Vec<u8> {
    let mut text = Vec::with_capacity(wire.len());
    for (place, part) in wire.split('+').enumerate() {
        if place > 0 {
            text.extend_from_slice(plus.canonical());
        }
        for byte in percent_encoding::percent_decode_str(part) {
            match unreserved(byte) {
                true => text.push(byte),
                false => text.extend_from_slice(&escape(byte)),
            }
        }
    }
    text
}

/// A header line: values joined by commas, trimmed, runs of blanks folded into one. Tabs are no
/// blanks for S3.
fn put_header<'n>(sink: &mut Sink, headers: &HeaderMap, name: &'n str) -> Result<(), Absent<'n>> {
    let mut values = headers.get_all(name).iter().peekable();
    if values.peek().is_none() {
        return Err(Absent(name));
    }
    sink.put(name.as_bytes());
    sink.put(b":");
    for (place, value) in values.enumerate() {
        if place > 0 {
            sink.put(b",");
        }
        let words = value
            .as_bytes()
            .split(|byte| *byte == b' ')
            .filter(|word| !word.is_empty());
        for (place, word) in words.enumerate() {
            if place > 0 {
                sink.put(b" ");
            }
            sink.put(word);
        }
    }
    sink.put(b"\n");
    Ok(())
}
