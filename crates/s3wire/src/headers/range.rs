//! `Range` and `Content-Range`.

use base::{ByteRange, RangeSpec};
use http::HeaderMap;
use http::header::{CONTENT_RANGE, RANGE};

/// The range that a request asks for.
///
/// `None` also for a malformed header, for another unit, and for more than one range: RFC 9110
/// section 14.2 lets a server ignore those, and S3 then sends the whole object.
pub fn range(headers: &HeaderMap) -> Option<RangeSpec> {
    let mut values = headers.get_all(RANGE).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return None;
    };
    let (unit, set) = value.to_str().ok()?.trim().split_once('=')?;
    if !unit.eq_ignore_ascii_case("bytes") {
        return None;
    }
    let (first, last) = set.trim().split_once('-')?;
    match (first, last) {
        ("", length) => Some(RangeSpec::Suffix {
            length: offset(length)?,
        }),
        (first, "") => Some(RangeSpec::From {
            first: offset(first)?,
            last: None,
        }),
        (first, last) => {
            let (first, last) = (offset(first)?, offset(last)?);
            (first <= last).then_some(RangeSpec::From {
                first,
                last: Some(last),
            })
        }
    }
}

/// Digits as a number; what is too large for 64 bits lies behind the end of every object.
pub(super) fn offset(digits: &str) -> Option<u64> {
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    Some(digits.parse().unwrap_or(u64::MAX))
}

/// The value of a `Range` header that asks for these bytes.
pub fn print_range(range: ByteRange) -> String {
    debug_assert!(range.length > 0, "no Range header can ask for zero bytes");
    format!("bytes={}-{}", range.start, range.end().saturating_sub(1))
}

/// The value of `Content-Range` for a 206: these bytes of an object of `size` bytes.
pub fn print_content_range(range: ByteRange, size: u64) -> String {
    format!(
        "bytes {}-{}/{size}",
        range.start,
        range.end().saturating_sub(1)
    )
}

/// What a 206 says it carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ContentRange {
    /// The bytes.
    pub range: ByteRange,
    /// The size of the whole object; `None` for `*`.
    pub size: Option<u64>,
}

/// Parses the `Content-Range` of a 206.
pub fn content_range(headers: &HeaderMap) -> Option<ContentRange> {
    let text = headers.get(CONTENT_RANGE)?.to_str().ok()?.trim();
    let (bytes, size) = text.strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = bytes.split_once('-')?;
    let (start, last) = (first.parse::<u64>().ok()?, last.parse::<u64>().ok()?);
    let length = last.checked_sub(start)?.checked_add(1)?;
    let size = match size {
        "*" => None,
        size => Some(size.parse().ok()?),
    };
    Some(ContentRange {
        range: ByteRange { start, length },
        size,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_valid_range_counts_and_everything_else_is_ignored() {
        let parse = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(RANGE, text.parse().unwrap());
            range(&headers)
        };
        let from = |first, last| Some(RangeSpec::From { first, last });
        assert_eq!(parse("bytes=0-0"), from(0, Some(0)));
        assert_eq!(parse("Bytes=5-"), from(5, None));
        assert_eq!(
            parse("bytes=0-99999999999999999999"),
            from(0, Some(u64::MAX))
        );
        assert_eq!(parse("bytes=-3"), Some(RangeSpec::Suffix { length: 3 }));
        assert_eq!(parse("bytes=-0"), Some(RangeSpec::Suffix { length: 0 }));
        for text in [
            "bytes=0-1,3-4",
            "bytes=",
            "bytes=-",
            "bytes=5-4",
            "bytes=a-b",
            "bytes=+1-2",
            "items=0-1",
            "bytes 0-1",
            "bytes=1--2",
            "bytes=0x1-2",
            "0-1",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
        let mut twice = HeaderMap::new();
        twice.append(RANGE, "bytes=0-1".parse().unwrap());
        twice.append(RANGE, "bytes=0-1".parse().unwrap());
        assert_eq!(range(&twice), None);
    }

    #[test]
    fn ranges_print_as_they_parse() {
        let part = ByteRange {
            start: 5,
            length: 10,
        };
        assert_eq!(print_range(part), "bytes=5-14");
        let mut headers = HeaderMap::new();
        headers.insert(
            CONTENT_RANGE,
            print_content_range(part, 100).parse().unwrap(),
        );
        assert_eq!(
            content_range(&headers),
            Some(ContentRange {
                range: part,
                size: Some(100)
            })
        );
        headers.insert(CONTENT_RANGE, "bytes 0-0/*".parse().unwrap());
        assert_eq!(content_range(&headers).unwrap().size, None);
        for text in ["bytes 5-4/10", "bytes */10", "5-6/10", "bytes 0-1"] {
            headers.insert(CONTENT_RANGE, text.parse().unwrap());
            assert_eq!(content_range(&headers), None, "{text}");
        }
    }
}
