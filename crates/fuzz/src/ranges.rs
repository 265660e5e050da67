//! Ranges, conditions, dates and copy sources: read without a panic, resolved inside the object,
//! printed as they are read.
//!
//! Input: eight bytes for the object's size, then the text of a header.

use base::ByteRange;
use http::{HeaderMap, HeaderName, HeaderValue};
use s3wire::headers;

const NAMES: [&str; 12] = [
    "range",
    "content-range",
    "if-match",
    "if-none-match",
    "if-modified-since",
    "if-unmodified-since",
    "x-amz-copy-source",
    "x-amz-copy-source-range",
    "x-amz-checksum-crc32",
    "content-md5",
    "x-amz-trailer",
    "x-amz-decoded-content-length",
];

/// Checks one header's text against all headers that could carry it.
pub fn check(data: &[u8]) {
    let Some((size, text)) = data.split_first_chunk::<8>() else {
        return;
    };
    let size = u64::from_be_bytes(*size);
    let Ok(value) = HeaderValue::from_bytes(text) else {
        return;
    };
    for name in NAMES {
        let mut map = HeaderMap::new();
        map.insert(HeaderName::from_static(name), value.clone());
        with_headers(&map, size);
    }
    if let Ok(text) = value.to_str() {
        if let Some(time) = s3wire::parse_http_date(text) {
            let again = s3wire::parse_http_date(&s3wire::http_date(time));
            assert_eq!(again.map(|time| time.seconds()), Some(time.seconds()));
        }
        if let Some(time) = s3wire::parse_iso8601(text) {
            assert_eq!(s3wire::parse_iso8601(&s3wire::iso8601(time)), Some(time));
        }
    }
}

fn with_headers(map: &HeaderMap, size: u64) {
    if let Some(Ok(range)) = headers::range(map).map(|range| range.resolve(size)) {
        inside(range, size);
        let mut again = HeaderMap::new();
        let printed = HeaderValue::try_from(headers::print_range(range));
        again.insert("range", printed.expect("digits are a header value"));
        let read = headers::range(&again).expect("what we print is read");
        assert_eq!(read.resolve(size), Ok(range));
    }
    if let Some(found) = headers::content_range(map) {
        assert!(found.range.length > 0, "an empty range in an answer");
        found
            .range
            .start
            .checked_add(found.range.length)
            .expect("it ends within 64 bits");
    }
    if let Ok(Some(range)) = headers::copy_source_range(map)
        && let Some(range) = range.within(size)
    {
        inside(range, size);
    }
    if let Ok(Some(source)) = headers::copy_source(map) {
        let printed = headers::print_copy_source(source.bucket.as_str(), source.key.as_str());
        let mut again = HeaderMap::new();
        let value = HeaderValue::try_from(printed).expect("it is percent-encoded");
        again.insert("x-amz-copy-source", value);
        let read = headers::copy_source(&again).expect("what we print is read");
        let read = read.expect("it is there");
        assert_eq!((read.bucket, read.key), (source.bucket, source.key));
    }
    let _either_way = headers::conditions(map);
    let _either_way = headers::copy_conditions(map);
    let _either_way = headers::write_precondition(map);
    let _either_way = headers::body_claims(map);
    let _either_way = headers::object_headers(map);
}

fn inside(range: ByteRange, size: u64) {
    assert!(range.length > 0, "an empty range");
    assert!(
        range.start < size && range.length <= size - range.start,
        "outside the object"
    );
}
