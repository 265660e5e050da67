//! Who may do what.

use std::time::Duration;

use base::{Clock as _, Secret, SystemClock};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::Method;
use ring::hmac;
use s3wire::sigv4::{PayloadMode, SignRequest, Signer};

use super::support::{
    Auth, BUCKET, KEY, OTHER_BUCKET, OTHER_KEY, OTHER_SECRET, Options, Request, Response, SECRET,
    Server, TOKEN, path,
};

fn denied(answer: &Response, code: &str) {
    assert_eq!(
        answer.verdict(),
        (403, code.to_owned()),
        "{}",
        answer.text()
    );
}

#[tokio::test]
async fn every_credential_of_a_bucket_opens_it() {
    let server = Server::start().await;
    server.put("k", b"x").await.expect(200);
    let token = Auth::Token(TOKEN.to_owned());
    server
        .send(Request::get(&path("k")).key("SECONDKEY", "second-secret"))
        .await
        .expect(200);
    server
        .send(Request::get(&path("k")).auth(token.clone()))
        .await
        .expect(200);
    server
        .send(Request::put(&path("t")).auth(token).body(b"by token"))
        .await
        .expect(200);
    assert_eq!(server.get("t").await.text(), "by token");
}

#[tokio::test]
async fn who_cannot_prove_it_is_refused_and_learns_nothing() {
    let server = Server::start().await;
    server.put("k", b"x").await.expect(200);
    for target in [
        path("k"),
        path("absent"),
        "/nowhere/k".to_owned(),
        "/".to_owned(),
    ] {
        let get = || Request::get(&target);
        denied(&server.send(get().auth(Auth::None)).await, "AccessDenied");
        denied(
            &server.send(get().auth(Auth::Token("x".into()))).await,
            "AccessDenied",
        );
        denied(
            &server.send(get().key(KEY, "wrong")).await,
            "SignatureDoesNotMatch",
        );
        denied(
            &server.send(get().key("NOBODY", "wrong")).await,
            "SignatureDoesNotMatch",
        );
    }
}

#[tokio::test]
async fn a_credential_reaches_its_own_bucket_only() {
    let server = Server::start().await;
    let other = |request: Request| request.key(OTHER_KEY, OTHER_SECRET);
    denied(
        &server.send(other(Request::get(&path("k")))).await,
        "AccessDenied",
    );
    denied(
        &server
            .send(other(Request::put(&format!("/{BUCKET}"))))
            .await,
        "AccessDenied",
    );
    denied(
        &server
            .send(other(Request::delete(&format!("/{BUCKET}"))))
            .await,
        "AccessDenied",
    );
    denied(
        &server.send(Request::put("/brandnew")).await,
        "AccessDenied",
    );
    let absent = server.send(Request::get("/nowhere/k")).await;
    assert_eq!(absent.verdict(), (404, "NoSuchBucket".into()));
    let own = server.send(Request::put(&format!("/{BUCKET}"))).await;
    own.expect(200);
    let gone = server.send(Request::delete(&format!("/{BUCKET}"))).await;
    assert_eq!(gone.verdict(), (403, "AccessDenied".into()));
    let mine = server.send(Request::get("/")).await.expect(200);
    assert_eq!(mine.elements("Name"), [BUCKET]);
    let theirs = server.send(other(Request::get("/"))).await.expect(200);
    assert_eq!(theirs.elements("Name"), [OTHER_BUCKET]);
}

#[tokio::test]
async fn buckets_tell_where_they_are_and_that_they_keep_no_versions() {
    let server = Server::start().await;
    let head = server
        .send(Request::head(&format!("/{BUCKET}")))
        .await
        .expect(200);
    assert_eq!(head.header("x-amz-bucket-region"), "us-east-1");
    let location = server
        .send(Request::get(&format!("/{BUCKET}?location")))
        .await
        .expect(200);
    // The region of the first days has no name in this document.
    let text = location.text();
    assert!(text.contains("<LocationConstraint "), "{text}");
    assert!(text.ends_with("\"></LocationConstraint>"), "{text}");
    let versioning = server
        .send(Request::get(&format!("/{BUCKET}?versioning")))
        .await
        .expect(200);
    assert!(versioning.text().contains("<VersioningConfiguration"));
    assert!(!versioning.text().contains("Status"));
}

#[tokio::test]
async fn a_presigned_url_permits_what_it_says_and_nothing_else() {
    let server = Server::start().await;
    let hour = Duration::from_secs(3600);
    let put = Request::put(&path("k")).presigned(server.addr, hour);
    let plain = |method, target: &str| Request::new(method, target).auth(Auth::None);
    server
        .send(plain(Method::PUT, &put).body(b"presigned"))
        .await
        .expect(200);
    let get = Request::get(&path("k")).presigned(server.addr, hour);
    assert_eq!(
        server
            .send(plain(Method::GET, &get))
            .await
            .expect(200)
            .text(),
        "presigned"
    );
    denied(
        &server.send(plain(Method::DELETE, &get)).await,
        "SignatureDoesNotMatch",
    );
    let elsewhere = get.replacen("/k?", "/other?", 1);
    denied(
        &server.send(plain(Method::GET, &elsewhere)).await,
        "SignatureDoesNotMatch",
    );
    let longer = get.replacen("X-Amz-Expires=3600", "X-Amz-Expires=7200", 1);
    denied(
        &server.send(plain(Method::GET, &longer)).await,
        "SignatureDoesNotMatch",
    );
    let typed = format!("{}?response-content-type=text%2Fa", path("k"));
    let typed = Request::get(&typed).presigned(server.addr, hour);
    let got = server.send(plain(Method::GET, &typed)).await.expect(200);
    assert_eq!(got.header("content-type"), "text/a");
}

#[tokio::test]
async fn a_header_that_was_not_signed_is_refused() {
    let server = Server::start().await;
    let (head, _) = Request::put(&path("k")).body(b"x").head_bytes(server.addr);
    let head = String::from_utf8(head).unwrap();
    let smuggled = head.replacen("\r\n", "\r\nx-amz-meta-a: b\r\n", 1);
    let mut wire = server.connect().await;
    wire.write(format!("{smuggled}x").as_bytes()).await;
    denied(&wire.response(false).await, "AccessDenied");
}

#[tokio::test]
async fn signed_chunks_need_a_signed_request() {
    let server = Server::start().await;
    let put = Request::put(&path("k"))
        .auth(Auth::Token(TOKEN.to_owned()))
        .header("x-amz-content-sha256", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD")
        .header("x-amz-decoded-content-length", "1")
        .body(b"x");
    denied(
        &server.send(put.payload(PayloadMode::Unsigned)).await,
        "AccessDenied",
    );
}

#[tokio::test]
async fn any_region_is_accepted_in_a_signature_and_no_other_service() {
    let server = Server::start().await;
    server.put("k", b"x").await.expect(200);
    for region in ["us-east-1", "eu-central-1", "auto", "garage", "nowhere"] {
        let secret = Secret::new(SECRET.to_owned());
        let signer = Signer::new(KEY.to_owned(), secret, region.to_owned()).unwrap();
        let mut get = Request::get(&path("k")).auth(Auth::None);
        get.headers
            .insert("host", server.addr.to_string().parse().unwrap());
        let request = SignRequest {
            method: &Method::GET,
            path: &path("k"),
            query: "",
            payload: PayloadMode::EMPTY,
            now: SystemClock.now(),
        };
        signer.sign(request, &mut get.headers);
        server.send(get.clone()).await.expect(200);
        let text = get.headers["authorization"].to_str().unwrap();
        let other = text.replace("/s3/", "/sts/");
        get.headers.insert("authorization", other.parse().unwrap());
        let refused = server.send(get).await;
        assert_eq!(
            refused.verdict(),
            (400, "AuthorizationHeaderMalformed".into())
        );
    }
}

#[tokio::test]
async fn a_plus_in_a_query_is_what_was_signed() {
    let server = Server::start().await;
    for key in ["a+b", "a b"] {
        server.put(key, b"x").await.expect(200);
    }
    for (signed, key) in [("%2B", "a+b"), ("%20", "a b")] {
        let list = format!("/{BUCKET}?prefix=a{signed}");
        let (head, _) = Request::get(&list).head_bytes(server.addr);
        let head = String::from_utf8(head).unwrap();
        let changed = head.replacen(signed, "+", 1);
        let mut wire = server.connect().await;
        wire.write(changed.as_bytes()).await;
        let listed = wire.response(false).await.expect(200);
        assert_eq!(listed.elements("Key"), [key]);
    }
}

/// A URL of signature version 2 that is valid for an hour: with the resource that is signed, and what else
/// the query says.
fn url_of_version_2(method: &str, secret: &str, signed: &str, more: &str) -> String {
    let end = SystemClock.now().seconds() + 3600;
    let text = format!("{method}\n\n\n{end}\n{signed}");
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, secret.as_bytes());
    let signature = STANDARD.encode(hmac::sign(&key, text.as_bytes()));
    let signature = s3wire::uri::encode_component(&signature).into_owned();
    let joint = if signed.contains('?') { '&' } else { '?' };
    format!("{signed}{joint}AWSAccessKeyId={KEY}&Expires={end}&Signature={signature}{more}")
}

#[tokio::test]
async fn urls_of_version_2_are_accepted_where_the_configuration_says_so() {
    let server = Server::with(Options {
        rest: "auth:\n  allow_sigv2_presigned: true",
        ..Options::default()
    })
    .await;
    let plain = |method, target: &str| Request::new(method, target).auth(Auth::None);
    let put = url_of_version_2("PUT", SECRET, &path("k"), "");
    let stored = plain(Method::PUT, &put).body(b"version 2");
    server.send(stored).await.expect(200);
    let typed = format!("{}?response-content-type=text/a", path("k"));
    let get = url_of_version_2("GET", SECRET, &typed, "");
    let got = server.send(plain(Method::GET, &get)).await.expect(200);
    assert_eq!(got.text(), "version 2");
    assert_eq!(got.header("content-type"), "text/a");
    let elsewhere = get.replacen("/k?", "/other?", 1);
    let forged = url_of_version_2("GET", "wrong", &path("k"), "");
    let other_bucket = url_of_version_2("GET", SECRET, &format!("/{OTHER_BUCKET}/k"), "");
    for (method, target, code) in [
        (Method::DELETE, &get, "SignatureDoesNotMatch"),
        (Method::GET, &elsewhere, "SignatureDoesNotMatch"),
        (Method::GET, &forged, "SignatureDoesNotMatch"),
        (Method::GET, &other_bucket, "AccessDenied"),
    ] {
        denied(&server.send(plain(method, target)).await, code);
    }
    // Otherwise a signature for a name with & would be one for another operation.
    let named = format!(
        "{}?response-content-disposition=a%26versionId%3Dnull",
        path("k")
    );
    let ambiguous = url_of_version_2("GET", SECRET, &named, "");
    denied(
        &server.send(plain(Method::GET, &ambiguous)).await,
        "AccessDenied",
    );
    // A hash of the payload counts, in the query too.
    let hash = "0".repeat(64);
    let signed = format!("x-amz-content-sha256:{hash}\n{}", path("k"));
    let hashed = format!("&x-amz-content-sha256={hash}");
    let hashed = url_of_version_2("PUT", SECRET, &signed, &hashed);
    let (_, hashed) = hashed.split_once('\n').unwrap();
    let refused = server.send(plain(Method::PUT, hashed).body(b"abc")).await;
    assert_eq!(refused.verdict(), (400, "XAmzContentSHA256Mismatch".into()));
    // A head or a form of that version is never taken.
    let old = Request::get(&path("k")).header("authorization", &format!("AWS {KEY}:c2ln"));
    let refused = server.send(old.auth(Auth::None)).await;
    assert_eq!(refused.verdict(), (400, "InvalidRequest".into()));
}

#[tokio::test]
async fn a_url_of_version_2_is_told_the_way_out_of_boto3() {
    let server = Server::start().await;
    let url = url_of_version_2("GET", SECRET, &path("k"), "");
    let refused = server.send(Request::get(&url).auth(Auth::None)).await;
    assert_eq!(refused.verdict(), (400, "InvalidRequest".into()));
    let message = refused.element("Message");
    for way_out in [
        "signature_version='s3v4'",
        "a client region other than us-east-1",
    ] {
        let shown = way_out.replace('\'', "&apos;");
        assert!(
            message.contains(way_out) || message.contains(&shown),
            "{message}"
        );
    }
    assert!(!message.contains('\n'), "{message}");
}
