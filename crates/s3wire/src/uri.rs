//! Percent-encoding as S3 wants it on the wire.
//!
//! Everything but the unreserved characters of RFC 3986 is encoded, with upper-case digits; that is
//! also the canonical form for signatures, so what the client part builds is canonical already.

use std::borrow::Cow;

use base::{BucketName, ObjectKey};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

const COMPONENT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~');
const PATH: &AsciiSet = &COMPONENT.remove(b'/');

/// Encodes a query name or value.
pub fn encode_component(text: &str) -> Cow<'_, str> {
    utf8_percent_encode(text, COMPONENT).into()
}

/// Encodes a path: as a component, but slashes stay.
pub fn encode_path(path: &str) -> Cow<'_, str> {
    utf8_percent_encode(path, PATH).into()
}

/// The path of an object in path style: `/bucket/key`.
pub fn object_path(bucket: &BucketName, key: &ObjectKey) -> String {
    format!(
        "/{}/{}",
        encode_component(bucket.as_str()),
        encode_path(key.as_str())
    )
}

/// Joins names and values to a query; a value of `None` leaves the bare name.
///
/// The order is kept; signing sorts by itself.
pub fn encode_query<'a>(pairs: impl IntoIterator<Item = (&'a str, Option<&'a str>)>) -> String {
    let mut query = String::new();
    for (name, value) in pairs {
        if !query.is_empty() {
            query.push('&');
        }
        query.extend(utf8_percent_encode(name, COMPONENT));
        if let Some(value) = value {
            query.push('=');
            query.extend(utf8_percent_encode(value, COMPONENT));
        }
    }
    query
}

/// Why wire text could not be decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// A `%` without two hexadecimal digits behind it.
    #[error("a percent sign is not followed by two hexadecimal digits")]
    Escape,
    /// The decoded bytes are not UTF-8.
    #[error("the decoded text is not UTF-8")]
    Utf8,
}

/// Decodes percent escapes once; `+` stays.
pub fn decode(wire: &str) -> Result<Cow<'_, str>, DecodeError> {
    check_escapes(wire)?;
    percent_decode_str(wire)
        .decode_utf8()
        .map_err(|_| DecodeError::Utf8)
}

/// Decodes a query name or value, where `+` means a blank.
pub fn decode_form(wire: &str) -> Result<Cow<'_, str>, DecodeError> {
    if !wire.contains('+') {
        return decode(wire);
    }
    decode(&wire.replace('+', " ")).map(|text| Cow::Owned(text.into_owned()))
}

fn check_escapes(wire: &str) -> Result<(), DecodeError> {
    let bytes = wire.as_bytes();
    let hex = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_hexdigit);
    match memchr::memchr_iter(b'%', bytes).all(|at| hex(at + 1) && hex(at + 2)) {
        true => Ok(()),
        false => Err(DecodeError::Escape),
    }
}

/// The bucket that a `Host` names below one of the domains, which are in lower case; `None` where the
/// path names it.
pub fn host_bucket<'h>(host: &'h str, domains: &[String]) -> Option<&'h str> {
    let name = match host.rsplit_once(':') {
        // An IPv6 address has colons of its own.
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    };
    let name = name.strip_suffix('.').unwrap_or(name);
    domains.iter().find_map(|domain| {
        let at = name.len().checked_sub(domain.len() + 1)?;
        let (bucket, rest) = name.split_at_checked(at)?;
        let below = rest.strip_prefix('.')?.eq_ignore_ascii_case(domain);
        (below && !bucket.is_empty()).then_some(bucket)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_survive_the_wire() {
        for key in ["a//b", "../x", "%2F", "a+b c", "ä/~-_.", "\u{1}\n", "?&=#"] {
            let wire = encode_path(key);
            assert_eq!(decode(&wire).unwrap(), key);
            assert!(wire.bytes().all(|b| b.is_ascii_graphic()), "{wire}");
        }
        let path = object_path(&"bu cket".parse().unwrap(), &"a/%2F".parse().unwrap());
        assert_eq!(path, "/bu%20cket/a/%252F");
    }

    #[test]
    fn broken_escapes_are_refused_and_a_plus_is_a_blank_in_queries_only() {
        for wire in ["%", "%4", "%zz", "a%2", "%%41"] {
            assert_eq!(decode(wire), Err(DecodeError::Escape), "{wire}");
        }
        assert_eq!(decode("%ff"), Err(DecodeError::Utf8));
        assert_eq!(decode("a+b").unwrap(), "a+b");
        assert_eq!(decode_form("a+b%2B").unwrap(), "a b+");
        assert_eq!(
            encode_query([("uploads", None), ("a b", Some("c&d"))]),
            "uploads&a%20b=c%26d"
        );
    }

    #[test]
    fn a_host_below_a_domain_names_a_bucket() {
        let domains = ["s3.example.com".to_owned(), "localhost".to_owned()];
        let bucket = |host| host_bucket(host, &domains);
        assert_eq!(bucket("photos.s3.example.com"), Some("photos"));
        assert_eq!(bucket("a.b.S3.Example.com:9000"), Some("a.b"));
        assert_eq!(bucket("photos.localhost."), Some("photos"));
        for host in [
            "s3.example.com",
            ".s3.example.com",
            "xs3.example.com",
            "example.com",
            "[::1]:9000",
            "\u{fc}.example.com",
            "",
        ] {
            assert_eq!(bucket(host), None, "{host}");
        }
    }
}
