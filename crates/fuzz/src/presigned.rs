//! Presigned URLs and queries: read without a panic, and what we presign verifies.
//!
//! Input: a line for the query, then one for the key.

use std::time::Duration;

use base::{ObjectKey, Secret, Timestamp};
use http::{HeaderMap, HeaderValue, Method, Uri};
use s3wire::sigv4::{Claim, PresignRequest, RequestHead, Signer, SigningSecret};
use s3wire::{Query, Target, uri};

use crate::lines;

const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);

/// Checks one query and one key.
pub fn check(data: &[u8]) {
    let Some(mut lines) = lines(data) else { return };
    let query = lines.next().unwrap_or("");
    let key = lines.next().unwrap_or("key");
    any_query(query);
    if let Ok(key) = key.parse::<ObjectKey>() {
        of_ours(&key, query);
    }
}

fn any_query(query: &str) {
    let Ok(uri) = format!("/bucket/key?{query}").parse::<Uri>() else {
        return;
    };
    let query = uri.query().unwrap_or("");
    let mut headers = HeaderMap::new();
    headers.insert("host", HeaderValue::from_static("localhost"));
    let head = RequestHead {
        method: &Method::GET,
        path: uri.path(),
        query,
        headers: &headers,
    };
    if let Ok(Some(claim)) = Claim::parse(head) {
        let unknown = claim.verify(&SigningSecret::unknown(), NOW);
        assert!(unknown.is_err(), "nobody was let in");
    }
    if let Ok(parsed) = Query::parse(query) {
        let _either_way = parsed.hoisted();
    }
    for method in [Method::GET, Method::PUT, Method::POST, Method::DELETE] {
        let _either_way = Target::parse(&method, uri.path(), Some(query), &headers);
    }
}

/// A URL for any key verifies, names that key, and does so only until it expires.
fn of_ours(key: &ObjectKey, text: &str) {
    // A name without a value would ask for a sub-resource.
    let note = format!("note:{text}");
    let secret = || Secret::new("fuzz-secret".to_owned());
    let signer = Signer::new("FUZZKEY".to_owned(), secret(), "us-east-1".to_owned())
        .expect("the fixed credentials are printable");
    let path = format!("/bucket/{}", uri::encode_path(key.as_str()));
    let query = uri::encode_query([("note", Some(note.as_str()))]);
    let expires = Duration::from_secs(60);
    let url = signer
        .presign(PresignRequest {
            method: &Method::GET,
            endpoint: "http://localhost:9000",
            path: &path,
            query: &query,
            headers: &HeaderMap::new(),
            expires,
            now: NOW,
        })
        .expect("the endpoint and the lifetime are valid");
    let url: Uri = url.parse().expect("what we presign is a URL");
    let mut headers = HeaderMap::new();
    headers.insert("host", HeaderValue::from_static("localhost:9000"));
    let head = RequestHead {
        method: &Method::GET,
        path: url.path(),
        query: url.query().unwrap_or(""),
        headers: &headers,
    };
    let claim = Claim::parse(head)
        .expect("what we presign is read")
        .expect("it is signed");
    let known = SigningSecret::new(secret());
    claim.verify(&known, NOW).expect("what we presign verifies");
    let late = NOW.after(expires + Duration::from_secs(1));
    assert!(claim.verify(&known, late).is_err(), "it never expires");
    let target = Target::parse(&Method::GET, url.path(), url.query(), &headers)
        .expect("an unknown parameter with a value is passed over");
    assert_eq!(target.key(), Some(key), "another key");
    let query = Query::parse(url.query().unwrap_or("")).expect("our own query");
    assert_eq!(
        query.value("note").expect("given once"),
        Some(note.as_str())
    );
}
