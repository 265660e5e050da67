//! The canonicaliser: what a signer signs, the verifier accepts, and nothing else.
//!
//! Input: a line each for method, path and query, then header lines `name: value`.

use base::{Secret, Timestamp};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use s3wire::sigv4::{Claim, PayloadMode, RequestHead, SignRequest, Signer, SigningSecret};
use s3wire::{Query, Target};

use crate::lines;

const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);
const KEY: &str = "FUZZKEY";
const SECRET: &str = "fuzz-secret";

/// Checks one request.
pub fn check(data: &[u8]) {
    let Some(mut lines) = lines(data) else { return };
    let method = lines.next().and_then(|text| Method::try_from(text).ok());
    let (Some(method), Some(path)) = (method, lines.next()) else {
        return;
    };
    let query = lines.next().unwrap_or("");
    let target = match query.is_empty() {
        true => path.to_owned(),
        false => format!("{path}?{query}"),
    };
    // Only what an HTTP server would let through gets this far.
    let Ok(uri) = target.parse::<Uri>() else {
        return;
    };
    let (path, query) = (uri.path(), uri.query().unwrap_or(""));
    let mut headers = HeaderMap::new();
    for line in lines {
        let pair = line.split_once(':').and_then(|(name, value)| {
            let name = HeaderName::try_from(name).ok()?;
            Some((name, HeaderValue::try_from(value.trim()).ok()?))
        });
        if let Some((name, value)) = pair {
            headers.append(name, value);
        }
    }
    as_claimed(&method, path, query, &headers);
    as_signed(&method, path, query, headers);
    // Whatever it is, it is recognised or refused.
    let _either_way = Target::parse(&method, path, Some(query), &HeaderMap::new());
}

/// A request as it stands: parsed and verified without a panic, and never let in by a wrong secret.
fn as_claimed(method: &Method, path: &str, query: &str, headers: &HeaderMap) {
    let head = RequestHead {
        method,
        path,
        query,
        headers,
    };
    if let Ok(Some(claim)) = Claim::parse(head) {
        let unknown = claim.verify(&SigningSecret::unknown(), NOW);
        assert!(unknown.is_err(), "nobody was let in");
    }
}

/// The same request signed by us is accepted, and refused under another secret or method.
fn as_signed(method: &Method, path: &str, query: &str, mut headers: HeaderMap) {
    for name in [
        "authorization",
        "x-amz-date",
        "x-amz-content-sha256",
        "host",
    ] {
        headers.remove(name);
    }
    let in_query = ["X-Amz-", "AWSAccessKeyId", "%", "+"];
    let claims = in_query.iter().any(|part| query.contains(part));
    if claims || Query::parse(query).is_err() || query.contains('=') && !plain(query) {
        // A query may claim a signature of its own; escapes are the business of `presigned`.
        return;
    }
    headers.insert("host", HeaderValue::from_static("localhost"));
    let secret = || Secret::new(SECRET.to_owned());
    let signer = Signer::new(KEY.to_owned(), secret(), "us-east-1".to_owned())
        .expect("the fixed credentials are printable");
    let request = SignRequest {
        method,
        path,
        query,
        payload: PayloadMode::Unsigned,
        now: NOW,
    };
    signer.sign(request, &mut headers);
    let verify = |method: &Method, secret: &SigningSecret| {
        let head = RequestHead {
            method,
            path,
            query,
            headers: &headers,
        };
        let claim = Claim::parse(head).map(|claim| claim.expect("the request is signed"));
        claim.and_then(|claim| claim.verify(secret, NOW))
    };
    let ours = SigningSecret::new(secret());
    verify(method, &ours).expect("what was signed verifies");
    let other = SigningSecret::new(Secret::new("another".to_owned()));
    assert!(verify(method, &other).is_err(), "another secret verifies");
    let changed = match *method == Method::GET {
        true => Method::PUT,
        false => Method::GET,
    };
    assert!(verify(&changed, &ours).is_err(), "another method verifies");
}

/// Whether every byte of a query is one that needs no escape.
fn plain(query: &str) -> bool {
    let fine = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~=&".contains(&byte);
    query.bytes().all(fine)
}
