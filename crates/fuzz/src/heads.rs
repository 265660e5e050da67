//! Heads of requests as they come over the wire: whatever they are, finding out what they want and who
//! sent them costs a stranger's request no more memory than a multiple of its size.
//!
//! Input: the bytes of a head. Where the process counts its allocations (the fuzzer and
//! `tests/allocations.rs` do), the bound is checked; elsewhere the walk itself is.

use base::Timestamp;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use orchestrator::front::listener::HEAD_FIELDS_MAX;
use s3wire::form::boundary;
use s3wire::sigv2::UrlClaim;
use s3wire::sigv4::{Claim, RequestHead, SigningSecret};
use s3wire::{Query, Target};
use stats_alloc::INSTRUMENTED_SYSTEM;

/// All that is allocated for a head, freed again or not, per byte of it: four canonical forms of a query
/// that is escaped throughout.
const ALLOCATED_PER_BYTE_MAX: usize = 48;

/// What is allocated for any head, however short: room for its fields and its canonical request.
const ALLOCATED_PER_HEAD_BYTES_MAX: usize = 32 << 10;

/// Checks one head.
pub fn check(data: &[u8]) {
    let before = INSTRUMENTED_SYSTEM.stats().bytes_allocated;
    walk(data);
    let allocated = INSTRUMENTED_SYSTEM.stats().bytes_allocated - before;
    let bound = ALLOCATED_PER_HEAD_BYTES_MAX + ALLOCATED_PER_BYTE_MAX * data.len();
    assert!(
        allocated <= bound,
        "{allocated} bytes allocated for {}, {bound} are the bound",
        data.len()
    );
}

/// What the front does with a head before it knows who sent it.
fn walk(data: &[u8]) {
    let mut fields = [httparse::EMPTY_HEADER; HEAD_FIELDS_MAX];
    let mut request = httparse::Request::new(&mut fields);
    if !request.parse(data).is_ok_and(|parsed| parsed.is_complete()) {
        return;
    }
    let method = request.method.and_then(|text| Method::try_from(text).ok());
    let target = request.path.and_then(|text| text.parse::<Uri>().ok());
    let (Some(method), Some(uri)) = (method, target) else {
        return;
    };
    let mut headers = HeaderMap::new();
    for field in request.headers.iter() {
        let pair = HeaderName::try_from(field.name)
            .ok()
            .zip(HeaderValue::from_bytes(field.value).ok());
        let Some((name, value)) = pair else { return };
        headers.append(name, value);
    }
    let (path, query) = (uri.path(), uri.query());
    let _either_way = Target::parse(&method, path, query, &headers);
    let _either_way = Target::parse_in("bucket", &method, path, query, &headers);
    let _either_way = boundary(&headers);
    let head = RequestHead {
        method: &method,
        path,
        query: query.unwrap_or(""),
        headers: &headers,
    };
    if let Ok(Some(claim)) = UrlClaim::parse(head, Some("bucket")) {
        let unknown = claim.verify(&SigningSecret::unknown(), Timestamp::from_millis(0));
        assert!(unknown.is_err(), "nobody was let in");
    }
    if let Ok(Some(claim)) = Claim::parse(head) {
        // When it says that it was signed, so that no clock saves us the work.
        let unknown = claim.verify(&SigningSecret::unknown(), claim.time());
        assert!(unknown.is_err(), "nobody was let in");
    }
    let _either_way = Query::parse(head.query).map(|query| query.hoisted());
}
