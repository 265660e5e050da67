//! Every error code of S3 that can occur here, driven over the wire: status, code, shape of the body.

use std::collections::BTreeSet;
use std::fs;

use backend::faulty::Rates;
use http::Method;
use orchestrator::front::listener::HEAD_BYTES_MAX;
use s3wire::ErrorCode;
use s3wire::sigv4::{PayloadMode, StreamingVariant};

use super::broken::{Frail, PATIENT};
use super::support::{
    Auth, BUCKET, OTHER_BUCKET, Options, Request, Response, Server, config_text, noise, path,
};

/// What backends say and we do not: writers of a key wait here for each other's commit.
const OF_BACKENDS: [ErrorCode; 1] = [ErrorCode::ConditionalRequestConflict];

/// What has been answered so far.
#[derive(Default)]
struct Driven(BTreeSet<&'static str>);

impl Driven {
    #[track_caller]
    fn expect(&mut self, answer: &Response, code: ErrorCode) {
        let found = (answer.status, answer.element("Code"));
        assert_eq!(
            found,
            (code.status(), code.as_str().to_owned()),
            "{}",
            answer.text()
        );
        assert_eq!(answer.header("content-type"), "application/xml");
        assert!(
            answer
                .text()
                .starts_with("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error>")
        );
        assert!(!answer.element("Message").is_empty());
        assert!(answer.element("Resource").starts_with('/'));
        assert_eq!(
            answer.element("RequestId"),
            answer.header("x-amz-request-id")
        );
        assert!(!answer.element("HostId").is_empty());
        assert_eq!(answer.element("HostId"), answer.header("x-amz-id-2"));
        if matches!(code.status(), 429 | 503) {
            assert_eq!(answer.header("retry-after"), "1");
        }
        self.0.insert(code.as_str());
    }

    /// The one code whose answer has no document, because its status has no body.
    #[track_caller]
    fn expect_bare(&mut self, answer: &Response, code: ErrorCode) {
        assert_eq!(answer.status, code.status(), "{}", answer.text());
        assert!(answer.body.is_empty());
        for name in ["etag", "last-modified", "x-amz-request-id", "x-amz-id-2"] {
            assert!(!answer.header(name).is_empty(), "{name}");
        }
        self.0.insert(code.as_str());
    }
}

#[tokio::test]
async fn every_code_that_can_occur_is_answered_in_its_shape() {
    let mut driven = Driven::default();
    requests(&mut driven).await;
    uploads(&mut driven).await;
    signatures(&mut driven).await;
    buckets(&mut driven).await;
    forms(&mut driven).await;
    storage(&mut driven).await;
    faults(&mut driven).await;
    let missing = ErrorCode::ALL
        .iter()
        .copied()
        .filter(|code| !driven.0.contains(code.as_str()));
    assert_eq!(missing.collect::<Vec<_>>(), OF_BACKENDS);
}

async fn requests(driven: &mut Driven) {
    let server = Server::with(Options {
        server: "  max_object_size: 1MiB\n  read_timeout: 200ms\n  read_header_timeout: 200ms",
        ..Options::default()
    })
    .await;
    server.put("k", b"hello").await.expect(200);
    let bucket = format!("/{BUCKET}");
    let put = || Request::put(&path("k"));
    let md5 = base::Md5::of(b"other").to_base64();
    let tags = |count: usize| {
        let tag = |n| format!("<Tag><Key>k{n}</Key><Value/></Tag>");
        let set: String = (0..count).map(tag).collect();
        let body = format!("<Tagging><TagSet>{set}</TagSet></Tagging>");
        Request::put(&format!("{}?tagging", path("k"))).body(body.as_bytes())
    };
    let table = [
        (Request::get(&path("none")), ErrorCode::NoSuchKey),
        (Request::get("/nowhere/k"), ErrorCode::NoSuchBucket),
        (Request::get("/.hidden/k"), ErrorCode::InvalidBucketName),
        (
            Request::get(&format!("{bucket}/%zz")),
            ErrorCode::InvalidUri,
        ),
        (
            Request::get(&format!("{bucket}/{}", "k".repeat(1025))),
            ErrorCode::KeyTooLong,
        ),
        (
            Request::new(Method::PATCH, &path("k")),
            ErrorCode::MethodNotAllowed,
        ),
        (
            Request::get(&format!("{bucket}?policy")),
            ErrorCode::NotImplemented,
        ),
        (
            Request::get(&format!("{}?versionId=1", path("k"))),
            ErrorCode::NoSuchVersion,
        ),
        (
            Request::get(&format!("{bucket}?max-keys=x")),
            ErrorCode::InvalidArgument,
        ),
        (
            Request::get(&format!("{bucket}?cors")),
            ErrorCode::NoSuchCorsConfiguration,
        ),
        (
            Request::put(&format!("{bucket}?acl")),
            ErrorCode::MissingSecurityHeader,
        ),
        (
            Request::get(&path("k")).header("range", "bytes=9-"),
            ErrorCode::InvalidRange,
        ),
        (
            Request::get(&format!("{}?partNumber=2", path("k"))),
            ErrorCode::InvalidPartNumber,
        ),
        (
            Request::get(&path("k")).header("if-match", "\"x\""),
            ErrorCode::PreconditionFailed,
        ),
        (
            put().header("content-length", "none"),
            ErrorCode::MissingContentLength,
        ),
        (put().body(&noise((1 << 20) + 1)), ErrorCode::EntityTooLarge),
        (
            put()
                .payload(PayloadMode::Streaming(StreamingVariant::UnsignedTrailer))
                .header("x-amz-trailer", "x-amz-checksum-crc32")
                .header("x-amz-decoded-content-length", "1")
                .body(b"1\r\nx\r\n0\r\nx-amz-checksum-crc32:hello\r\n\r\n"),
            ErrorCode::MalformedTrailer,
        ),
        (put().header("content-md5", "x"), ErrorCode::InvalidDigest),
        (
            put().header("content-md5", &md5).body(b"x"),
            ErrorCode::BadDigest,
        ),
        (
            put().header("x-amz-meta-a", &"b".repeat(2048)),
            ErrorCode::MetadataTooLarge,
        ),
        (
            put().header("x-amz-trailer", "x-amz-checksum-crc32"),
            ErrorCode::InvalidRequest,
        ),
        (
            put().body(b"x").payload(PayloadMode::of(b"y")),
            ErrorCode::XAmzContentSha256Mismatch,
        ),
        (tags(11), ErrorCode::BadRequest),
        (
            put().header("x-amz-tagging", "aws:a=b"),
            ErrorCode::InvalidTag,
        ),
        (
            Request::put(&format!("{}?tagging", path("k"))).body(b"<Tagging>"),
            ErrorCode::MalformedXml,
        ),
        (
            Request::put(&format!("{}?tagging", path("k"))).body(&noise(65 << 10)),
            ErrorCode::MaxMessageLengthExceeded,
        ),
        (
            Request::new(Method::OPTIONS, &path("k"))
                .auth(Auth::None)
                .header("origin", "https://a")
                .header("access-control-request-method", "GET"),
            ErrorCode::AccessForbidden,
        ),
    ];
    for (request, code) in table {
        let answer = server.send(request).await;
        driven.expect(&answer, code);
    }
    let known = Request::get(&path("k")).header("if-none-match", "*");
    driven.expect_bare(&server.send(known).await, ErrorCode::NotModified);
    let head = Request::get(&path("k")).header("x-note", &"a".repeat(2 * HEAD_BYTES_MAX));
    driven.expect(
        &server.send(head).await,
        ErrorCode::RequestHeaderSectionTooLarge,
    );
    let (head, _) = put()
        .header("content-length", "10")
        .payload(PayloadMode::Unsigned)
        .head_bytes(server.addr);
    for (ends, code) in [
        (true, ErrorCode::IncompleteBody),
        (false, ErrorCode::RequestTimeout),
    ] {
        let mut wire = server.connect().await;
        wire.write(&head).await;
        wire.write(b"12345").await;
        if ends {
            wire.finish().await;
        }
        driven.expect(&wire.response(false).await, code);
    }
    assert_eq!(
        server.get("k").await.text(),
        "hello",
        "nothing of all that has touched it"
    );
}

async fn uploads(driven: &mut Driven) {
    let server = Server::with(Options {
        bucket: "    max_multipart_uploads: 1",
        ..Options::default()
    })
    .await;
    let create = Request::post(&format!("{}?uploads", path("m")));
    let upload = server
        .send(create.clone())
        .await
        .expect(200)
        .element("UploadId");
    driven.expect(&server.send(create).await, ErrorCode::SlowDown);
    let target = |query: &str| format!("{}?{query}uploadId={upload}", path("m"));
    let mut tags = Vec::new();
    for number in [1, 2] {
        let part = Request::put(&target(&format!("partNumber={number}&"))).body(b"small");
        tags.push(
            server
                .send(part)
                .await
                .expect(200)
                .header("etag")
                .to_owned(),
        );
    }
    let part = |number: u32, tag: &str| {
        format!("<Part><PartNumber>{number}</PartNumber><ETag>{tag}</ETag></Part>")
    };
    let complete = |parts: &[String]| {
        let body = format!(
            "<CompleteMultipartUpload>{}</CompleteMultipartUpload>",
            parts.concat()
        );
        Request::post(&target("")).body(body.as_bytes())
    };
    let (one, two) = (part(1, &tags[0]), part(2, &tags[1]));
    for (parts, code) in [
        (vec![two.clone(), one.clone()], ErrorCode::InvalidPartOrder),
        (vec![part(1, "\"0\"")], ErrorCode::InvalidPart),
        (vec![one, two], ErrorCode::EntityTooSmall),
    ] {
        driven.expect(&server.send(complete(&parts)).await, code);
    }
    let other = Request::get(&format!("{}?uploadId={upload}", path("other")));
    driven.expect(&server.send(other).await, ErrorCode::NoSuchUpload);
}

async fn signatures(driven: &mut Driven) {
    let server = Server::start().await;
    let get = || Request::get(&path("k")).auth(Auth::None);
    let sum = "UNSIGNED-PAYLOAD";
    for (request, code) in [
        (get(), ErrorCode::AccessDenied),
        (get().key("NOBODY", "x"), ErrorCode::SignatureDoesNotMatch),
        (
            get().header("authorization", "AWS4-HMAC-SHA256 nonsense"),
            ErrorCode::AuthorizationHeaderMalformed,
        ),
        (
            Request::get(&format!("{}?X-Amz-Algorithm=AWS4-HMAC-SHA256", path("k")))
                .auth(Auth::None),
            ErrorCode::AuthorizationQueryParametersError,
        ),
        (
            get()
                .header("x-amz-date", "20130524T000000Z")
                .header("x-amz-content-sha256", sum)
                .header(
                    "authorization",
                    &format!(
                        "AWS4-HMAC-SHA256 Credential=K/20130524/r/s3/aws4_request, \
                         SignedHeaders=host;x-amz-content-sha256;x-amz-date, Signature={}",
                        "0".repeat(64)
                    ),
                ),
            ErrorCode::RequestTimeTooSkewed,
        ),
    ] {
        driven.expect(&server.send(request).await, code);
    }
}

async fn buckets(driven: &mut Driven) {
    const ELSEWHERE: &[u8] = b"<CreateBucketConfiguration><LocationConstraint>eu-west-1</LocationConstraint></CreateBucketConfiguration>";
    let root = "auth:\n  root: {access_key_id: ROOT, secret_access_key: root}\n";
    let options = Options {
        rest: root,
        ..Options::default()
    };
    let server = Server::with(options).await;
    let by_root = |request: Request| request.key("ROOT", "root");
    let own = server
        .send(by_root(Request::put(&format!("/{BUCKET}")).body(ELSEWHERE)))
        .await;
    driven.expect(&own, ErrorCode::BucketAlreadyOwnedByYou);
    server
        .send(by_root(Request::put("/made")))
        .await
        .expect(200);
    server
        .send(by_root(Request::put("/made/k").body(b"x")))
        .await
        .expect(200);
    let full = server.send(by_root(Request::delete("/made"))).await;
    driven.expect(&full, ErrorCode::BucketNotEmpty);
    // A bucket that the configuration no longer names waits for it to do so again.
    let (app, dir) = server.into_app();
    app.stop().await.unwrap();
    let text = config_text(
        dir.path(),
        &Options {
            rest: root,
            ..Options::default()
        },
    );
    let file = dir.path().join("config.yaml");
    fs::write(
        &file,
        text.replace(&format!("name: {OTHER_BUCKET}"), "name: another"),
    )
    .unwrap();
    let server = Server::of_file(dir, file).await;
    let taken = server
        .send(by_root(Request::put(&format!("/{OTHER_BUCKET}"))))
        .await;
    driven.expect(&taken, ErrorCode::BucketAlreadyExists);
}

async fn forms(driven: &mut Driven) {
    let server = Server::start().await;
    let post = |kind: &str, body: &str| {
        Request::post(&format!("/{BUCKET}"))
            .auth(Auth::None)
            .header("content-type", kind)
            .body(body.as_bytes())
    };
    let form = "multipart/form-data; boundary=B";
    let plain = server.send(post("text/plain", "x")).await;
    driven.expect(&plain, ErrorCode::PreconditionFailed);
    let unbound = server.send(post("multipart/form-data", "x")).await;
    driven.expect(&unbound, ErrorCode::MalformedPostRequest);
    let part = "--B\r\nContent-Disposition: form-data; name=\"key\"\r\n\r\n";
    let long = server
        .send(post(form, &format!("{part}{}", "x".repeat(21 << 10))))
        .await;
    driven.expect(&long, ErrorCode::MaxPostPreDataLengthExceeded);
    for (form, code) in [
        (
            super::forms::without_key(),
            ErrorCode::UserKeyMustBeSpecified,
        ),
        (
            super::forms::with_policy("e30="),
            ErrorCode::InvalidPolicyDocument,
        ),
    ] {
        driven.expect(&server.send(form).await, code);
    }
}

async fn storage(driven: &mut Driven) {
    let server = Server::with(Options {
        backend: "    quota_bytes: 1MiB",
        ..Options::default()
    })
    .await;
    let big = server
        .send(Request::put(&path("big")).body(&noise(2 << 20)))
        .await;
    driven.expect(&big, ErrorCode::InsufficientStorage);
    server.put("k", &noise(100)).await.expect(200);
    let objects = server.dir.path().join("disk").join(BUCKET);
    for entry in fs::read_dir(&objects).unwrap() {
        fs::remove_file(entry.unwrap().path()).unwrap();
    }
    driven.expect(&server.get("k").await, ErrorCode::ServiceUnavailable);
}

/// What no client can bring about: a program with a defect, and backends that do not answer.
async fn faults(driven: &mut Driven) {
    let frail = Frail::start(PATIENT).await;
    frail
        .send(Request::put(&path("k")).body(b"x"))
        .await
        .expect(200);
    frail.set_defect(true);
    let broken = frail.send(Request::get(&path("k"))).await;
    driven.expect(&broken, ErrorCode::InternalError);
    frail.set_defect(false);
    let create = Request::post(&format!("{}?uploads", path("m")));
    let upload = frail.send(create).await.expect(200).element("UploadId");
    let part = format!("{}?partNumber=1&uploadId={upload}", path("m"));
    let part = frail.send(Request::put(&part).body(b"x")).await.expect(200);
    let list = format!(
        "<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>{}</ETag></Part>\
         </CompleteMultipartUpload>",
        part.header("etag")
    );
    let complete = Request::post(&format!("{}?uploadId={upload}", path("m"))).body(list.as_bytes());
    frail.both(Rates {
        stall: 1000,
        ..Rates::NONE
    });
    // Its answer has begun, so it waits for the backend.
    let mut waiting = frail.wire(complete).await;
    waiting.head().await.unwrap();
    let abort = Request::delete(&format!("{}?uploadId={upload}", path("m")));
    let refused = frail.send(abort).await;
    driven.expect(&refused, ErrorCode::OperationAborted);
}
