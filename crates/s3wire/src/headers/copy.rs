//! The headers of CopyObject and UploadPartCopy.

use std::borrow::Cow;

use base::{BucketName, ByteRange, ObjectKey};
use http::HeaderMap;

use super::range::offset;
use super::single;
use crate::name::{key_error, parse_bucket, parse_key};
use crate::uri;
use crate::{Error, ErrorCode};

/// The object that is copied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopySourceHeader {
    /// Its bucket.
    pub bucket: BucketName,
    /// Its key.
    pub key: ObjectKey,
}

/// The bytes of the source that become a part; both ends inclusive, as the client gave them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CopyRange {
    first: u64,
    last: u64,
}

/// Whose metadata a copy gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MetadataDirective {
    /// The source's.
    #[default]
    Copy,
    /// The request's.
    Replace,
}

impl CopyRange {
    /// The range as offset and length.
    ///
    /// `None` where it does not lie wholly within the source's `size` bytes: unlike a GET, a copy
    /// must not become shorter than asked.
    pub fn within(self, size: u64) -> Option<ByteRange> {
        (self.last < size).then(|| ByteRange {
            start: self.first,
            length: self.last - self.first + 1,
        })
    }
}

/// The source of a copy: `bucket/key`, with or without a slash in front, encoded once as a form is: a
/// `+` is a blank, as on Amazon S3. Clients that encode as queries do rely on it; who means a plus sends
/// `%2B`.
pub fn copy_source(headers: &HeaderMap) -> Result<Option<CopySourceHeader>, Error> {
    let Some(text) = single(headers, "x-amz-copy-source")? else {
        return Ok(None);
    };
    let (path, query) = match text.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (text, None),
    };
    let path = blanks(path);
    match query.map(|query| query.strip_prefix("versionId=")) {
        // The one version that everything has.
        None | Some(Some("null")) => {}
        Some(Some(_)) => return Err(ErrorCode::NoSuchVersion.into()),
        Some(None) => {
            let message = "The copy source must be encoded: it has a query.";
            return Err(Error::argument(message));
        }
    }
    if path.starts_with("arn:") {
        return Err(Error::not_implemented("A copy source that is an ARN"));
    }
    let path = path.strip_prefix('/').unwrap_or(&path);
    // Some clients encode the slash behind the bucket as well.
    let decoded;
    let (bucket, key) = match path.split_once('/') {
        Some((bucket, key)) => (parse_bucket(bucket)?, parse_key(key)?),
        None => {
            let malformed = || Error::argument("The copy source must be bucket/key.");
            decoded = uri::decode(path).map_err(|_| malformed())?;
            let (bucket, key) = decoded.split_once('/').ok_or_else(malformed)?;
            (
                bucket.parse().map_err(|_| malformed())?,
                key.parse().map_err(key_error)?,
            )
        }
    };
    Ok(Some(CopySourceHeader { bucket, key }))
}

fn blanks(wire: &str) -> Cow<'_, str> {
    match wire.contains('+') {
        true => Cow::Owned(wire.replace('+', " ")),
        false => Cow::Borrowed(wire),
    }
}

/// The value of `x-amz-copy-source` for an object on a backend.
pub fn print_copy_source(bucket: &str, key: &str) -> String {
    format!(
        "/{}/{}",
        uri::encode_component(bucket),
        uri::encode_path(key)
    )
}

/// `x-amz-copy-source-range`: exactly `bytes=FIRST-LAST`.
pub fn copy_source_range(headers: &HeaderMap) -> Result<Option<CopyRange>, Error> {
    let Some(text) = single(headers, "x-amz-copy-source-range")? else {
        return Ok(None);
    };
    let parse = || {
        let (first, last) = text.strip_prefix("bytes=")?.split_once('-')?;
        let (first, last) = (offset(first)?, offset(last)?);
        (first <= last).then_some(CopyRange { first, last })
    };
    match parse() {
        Some(range) => Ok(Some(range)),
        None => Err(Error::argument(
            "The x-amz-copy-source-range value must be of the form bytes=first-last",
        )),
    }
}

/// `x-amz-metadata-directive`
pub fn metadata_directive(headers: &HeaderMap) -> Result<MetadataDirective, Error> {
    match single(headers, "x-amz-metadata-directive")? {
        None | Some("COPY") => Ok(MetadataDirective::Copy),
        Some("REPLACE") => Ok(MetadataDirective::Replace),
        Some(_) => Err(Error::argument("Unknown metadata directive.")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorCode;

    fn source(text: &str) -> Result<(String, String), ErrorCode> {
        let mut headers = HeaderMap::new();
        headers.insert("x-amz-copy-source", text.parse().unwrap());
        match copy_source(&headers) {
            Ok(found) => {
                let found = found.unwrap();
                Ok((found.bucket.to_string(), found.key.to_string()))
            }
            Err(error) => Err(error.code),
        }
    }

    #[test]
    fn sources_are_decoded_exactly_once() {
        for (text, key) in [
            ("b/k", "k"),
            ("/b/k", "k"),
            ("b/a%2Fb%252F%20%2B", "a/b%2F +"),
            ("/b/a//b", "a//b"),
            ("b%2Fk", "k"),
            ("%2Fb%2Fk%3F", "k?"),
        ] {
            let expected = match text {
                // The encoded leading slash makes the bucket's name empty.
                "%2Fb%2Fk%3F" => Err(ErrorCode::InvalidArgument),
                _ => Ok(("b".to_owned(), key.to_owned())),
            };
            assert_eq!(source(text), expected, "{text}");
        }
        assert_eq!(source("b/k?versionId=1"), Err(ErrorCode::NoSuchVersion));
        assert_eq!(source("b/k?versionId=null"), source("b/k"));
        assert_eq!(source("b/k?x"), Err(ErrorCode::InvalidArgument));
        assert_eq!(source("b"), Err(ErrorCode::InvalidArgument));
        assert_eq!(source("b/"), Err(ErrorCode::InvalidArgument));
        assert_eq!(source("b/%zz"), Err(ErrorCode::InvalidUri));
        assert_eq!(
            source("arn:aws:s3:us-east-1:1:b/k"),
            Err(ErrorCode::NotImplemented)
        );
        for key in ["a//b", "%2F", "../x", "ä?", "\u{1}"] {
            assert_eq!(
                source(&print_copy_source("b", key)),
                Ok(("b".into(), key.into()))
            );
        }
    }

    #[test]
    fn a_plus_in_a_copy_source_is_a_blank() {
        for (text, key) in [
            ("b/a+b", "a b"),
            ("/b/a+b%2Bc", "a b+c"),
            ("b%2Fa+b%2Bc", "a b+c"),
            ("b/a%20b+?versionId=null", "a b "),
        ] {
            assert_eq!(source(text), Ok(("b".into(), key.into())), "{text}");
        }
        assert!(print_copy_source("b", "a+b c").ends_with("a%2Bb%20c"));
    }

    #[test]
    fn copy_ranges_have_two_ends_and_lie_within_the_source() {
        let parse = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("x-amz-copy-source-range", text.parse().unwrap());
            copy_source_range(&headers).map(Option::unwrap)
        };
        let range = parse("bytes=5-9").unwrap();
        assert_eq!(
            range.within(10),
            Some(ByteRange {
                start: 5,
                length: 5
            })
        );
        assert_eq!(range.within(9), None);
        assert_eq!(
            parse("bytes=0-99999999999999999999")
                .unwrap()
                .within(u64::MAX),
            None
        );
        for text in [
            "bytes=0-",
            "bytes=-1",
            "bytes=2-1",
            "0-1",
            "bytes=0-1,2-3",
            "",
        ] {
            assert_eq!(
                parse(text).unwrap_err().code,
                ErrorCode::InvalidArgument,
                "{text}"
            );
        }
    }

    #[test]
    fn directives_are_a_closed_list() {
        let parse = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("x-amz-metadata-directive", text.parse().unwrap());
            metadata_directive(&headers)
        };
        assert_eq!(
            metadata_directive(&HeaderMap::new()),
            Ok(MetadataDirective::Copy)
        );
        assert_eq!(parse("COPY"), Ok(MetadataDirective::Copy));
        assert_eq!(parse("REPLACE"), Ok(MetadataDirective::Replace));
        assert!(parse("replace").is_err());
    }
}
