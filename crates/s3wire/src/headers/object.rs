//! The headers that an object keeps, from a request and into a response.
//!
//! Values are bytes for us: whatever is UTF-8 goes in and comes out unchanged, with two exceptions:
//! `aws-chunked` in `Content-Encoding` describes the transfer and is taken out, and user metadata
//! outside ASCII is shown to clients as S3 shows it.

use std::borrow::Cow;

use base::{ObjectHeaders, USER_METADATA_BYTES_MAX};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::{Error, ErrorCode};

const USER_PREFIX: &str = "x-amz-meta-";

/// The headers that a PUT, a copy or a new upload wants kept.
pub fn object_headers(headers: &HeaderMap) -> Result<ObjectHeaders, Error> {
    let found = collect(headers, |name| {
        Err(Error::argument(format!(
            "The value of the header {name} is not UTF-8."
        )))
    })?;
    match found.user_bytes() > USER_METADATA_BYTES_MAX {
        true => Err(ErrorCode::MetadataTooLarge.into()),
        false => Ok(found),
    }
}

/// The headers that a backend returned with an object; what is not UTF-8 is left out.
pub fn stored_headers(headers: &HeaderMap) -> ObjectHeaders {
    let found: Result<_, std::convert::Infallible> = collect(headers, |_| Ok(()));
    match found {
        Ok(found) => found,
        Err(never) => match never {},
    }
}

/// Prints kept headers for a write to a backend.
///
/// A value that no header can carry was never accepted by [`object_headers`]; from elsewhere it is
/// left out.
pub fn put_object_headers(kept: &ObjectHeaders, headers: &mut HeaderMap) {
    print(kept, headers, Cow::Borrowed);
}

/// Prints kept headers for the answer to a read.
///
/// User metadata that is not ASCII becomes an encoded word (RFC 2047, base64). Source: Amazon S3 user
/// guide, "Working with object metadata".
pub fn show_object_headers(kept: &ObjectHeaders, headers: &mut HeaderMap) {
    print(kept, headers, |value| match value.is_ascii() {
        true => Cow::Borrowed(value),
        false => Cow::Owned(format!("=?UTF-8?B?{}?=", STANDARD.encode(value))),
    });
}

fn print<'k>(
    kept: &'k ObjectHeaders,
    headers: &mut HeaderMap,
    shown: impl Fn(&'k str) -> Cow<'k, str>,
) {
    for (name, value) in kept.standard() {
        if let Ok(value) = HeaderValue::from_bytes(value.as_bytes()) {
            headers.insert(name, value);
        }
    }
    for (name, value) in &kept.user {
        let name = HeaderName::try_from(format!("{USER_PREFIX}{name}"));
        let value = shown(value);
        if let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(value.as_bytes())) {
            headers.insert(name, value);
        }
    }
}

fn collect<E>(
    headers: &HeaderMap,
    unreadable: impl Fn(&str) -> Result<(), E>,
) -> Result<ObjectHeaders, E> {
    let text = |name: &str| -> Result<Option<String>, E> {
        let mut joined: Option<String> = None;
        for value in headers.get_all(name) {
            let Ok(value) = std::str::from_utf8(value.as_bytes()) else {
                unreadable(name)?;
                continue;
            };
            match &mut joined {
                None => joined = Some(value.to_owned()),
                Some(before) => {
                    before.push(',');
                    before.push_str(value);
                }
            }
        }
        Ok(joined)
    };
    let mut user = Vec::new();
    for name in headers.keys() {
        let Some(short) = name.as_str().strip_prefix(USER_PREFIX) else {
            continue;
        };
        if let Some(value) = text(name.as_str())? {
            user.push((short.to_owned(), value));
        }
    }
    Ok(ObjectHeaders {
        content_type: text("content-type")?,
        cache_control: text("cache-control")?,
        content_disposition: text("content-disposition")?,
        content_encoding: text("content-encoding")?.and_then(without_aws_chunked),
        content_language: text("content-language")?,
        expires: text("expires")?,
        user,
    })
}

fn without_aws_chunked(encoding: String) -> Option<String> {
    let is_transfer = |token: &str| token.trim().eq_ignore_ascii_case("aws-chunked");
    if !encoding.split(',').any(is_transfer) {
        return Some(encoding);
    }
    let kept: Vec<&str> = encoding
        .split(',')
        .filter(|token| !is_transfer(token) && !token.trim().is_empty())
        .map(str::trim)
        .collect();
    (!kept.is_empty()).then(|| kept.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&'static str, &[u8])]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_bytes(value).unwrap());
        }
        headers
    }

    #[test]
    fn kept_headers_come_back_byte_for_byte() {
        let sent = map(&[
            ("content-type", b"text/plain; charset=utf-8"),
            ("cache-control", b"no-cache"),
            ("content-disposition", "attachment; filename=ä".as_bytes()),
            ("content-encoding", b"gzip"),
            ("content-language", b"de"),
            ("expires", b"someday"),
            ("x-amz-meta-a", b"  not trimmed by us\t"),
            ("x-amz-meta-empty", b""),
            ("x-amz-acl", b"private"),
        ]);
        let kept = object_headers(&sent).unwrap();
        let mut back = HeaderMap::new();
        put_object_headers(&kept, &mut back);
        let mut expected = sent.clone();
        expected.remove("x-amz-acl");
        assert_eq!(back, expected);
        assert_eq!(stored_headers(&back), kept);
    }

    #[test]
    fn metadata_outside_ascii_is_shown_as_an_encoded_word() {
        let sent = map(&[
            ("x-amz-meta-a", "\u{e4}".as_bytes()),
            ("x-amz-meta-b", b"plain"),
        ]);
        let kept = object_headers(&sent).unwrap();
        let mut shown = HeaderMap::new();
        show_object_headers(&kept, &mut shown);
        assert_eq!(shown["x-amz-meta-a"], "=?UTF-8?B?w6Q=?=");
        assert_eq!(shown["x-amz-meta-b"], "plain");
        // What comes encoded is text like any other.
        let again = object_headers(&shown).unwrap();
        let mut back = HeaderMap::new();
        show_object_headers(&again, &mut back);
        assert_eq!(back, shown);
    }

    #[test]
    fn aws_chunked_belongs_to_the_transfer() {
        for (sent, kept) in [
            ("aws-chunked", None),
            ("aws-chunked,gzip", Some("gzip")),
            ("gzip, AWS-chunked", Some("gzip")),
            ("gzip,  br", Some("gzip,  br")),
            ("aws-chunked, gzip, br", Some("gzip,br")),
        ] {
            let headers = map(&[("content-encoding", sent.as_bytes())]);
            assert_eq!(
                object_headers(&headers)
                    .unwrap()
                    .content_encoding
                    .as_deref(),
                kept
            );
        }
    }

    #[test]
    fn user_metadata_is_utf8_and_at_most_two_kibibytes() {
        let value = vec![b'a'; 2047];
        let fits = map(&[("x-amz-meta-k", &value)]);
        assert_eq!(object_headers(&fits).unwrap().user_bytes(), 2048);
        let value = vec![b'a'; 2048];
        let refused = object_headers(&map(&[("x-amz-meta-k", &value)])).unwrap_err();
        assert_eq!(refused.code, ErrorCode::MetadataTooLarge);
        let binary = map(&[("x-amz-meta-k", b"\xff")]);
        assert_eq!(
            object_headers(&binary).unwrap_err().code,
            ErrorCode::InvalidArgument
        );
        assert!(stored_headers(&binary).user.is_empty());
        let twice = map(&[("x-amz-meta-k", b"a"), ("x-amz-meta-k", b"b")]);
        assert_eq!(
            object_headers(&twice).unwrap().user,
            [("k".to_owned(), "a,b".to_owned())]
        );
    }
}
