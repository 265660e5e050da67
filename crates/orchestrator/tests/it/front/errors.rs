//! A table of what is refused, and how.

use http::Method;
use orchestrator::front::listener::{HEAD_BYTES_MAX, HEAD_FIELDS_MAX};
use s3wire::sigv4::PayloadMode;

use super::support::{BUCKET, Options, Request, Server, noise, path};

#[tokio::test]
async fn every_refusal_has_its_status_and_code() {
    let server = Server::with(Options {
        server: "  max_object_size: 1MiB",
        ..Options::default()
    })
    .await;
    server.put("k", b"x").await.expect(200);
    let bucket = format!("/{BUCKET}");
    let many = format!(
        "<Delete>{}</Delete>",
        "<Object><Key>k</Key></Object>".repeat(1001)
    );
    let delete = |body: &str| {
        let md5 = base::Md5::of(body.as_bytes()).to_base64();
        Request::post(&format!("{bucket}?delete"))
            .body(body.as_bytes())
            .header("content-md5", &md5)
    };
    let long = format!("{bucket}/{}", "k".repeat(1025));
    let table = [
        (Request::get(&path("absent")), 404, "NoSuchKey"),
        (Request::get(&format!("{bucket}/a%zz")), 400, "InvalidURI"),
        (
            Request::get(&format!("{bucket}/a%00b")),
            400,
            "InvalidArgument",
        ),
        (Request::get(&format!("{bucket}/%ff")), 400, "InvalidURI"),
        (Request::get(&long), 400, "KeyTooLongError"),
        (Request::get("/.hidden/k"), 400, "InvalidBucketName"),
        (
            Request::new(Method::PATCH, &path("k")),
            405,
            "MethodNotAllowed",
        ),
        (Request::post("/"), 405, "MethodNotAllowed"),
        (
            Request::get(&format!("{bucket}?policy")),
            501,
            "NotImplemented",
        ),
        (
            Request::put(&format!("{bucket}?tagging")),
            501,
            "NotImplemented",
        ),
        (
            Request::get(&format!("{}?versionId=1", path("k"))),
            404,
            "NoSuchVersion",
        ),
        (
            Request::get(&format!("{bucket}?max-keys=-1")),
            400,
            "InvalidArgument",
        ),
        (
            Request::get(&format!("{bucket}?max-keys=1&max-keys=2")),
            400,
            "InvalidArgument",
        ),
        (
            Request::put(&path("k")).header("x-amz-server-side-encryption", "AES256"),
            501,
            "NotImplemented",
        ),
        (
            Request::put(&path("k")).header("x-amz-acl", "public-read"),
            501,
            "NotImplemented",
        ),
        (
            Request::put(&path("k")).header("x-amz-storage-class", "GLACIER"),
            501,
            "NotImplemented",
        ),
        (
            Request::put(&path("k")).header("content-length", "none"),
            411,
            "MissingContentLength",
        ),
        (
            Request::put(&path("k"))
                .header("transfer-encoding", "chunked")
                .body(b"0\r\n\r\n")
                .payload(PayloadMode::Unsigned),
            411,
            "MissingContentLength",
        ),
        (
            Request::put(&path("k")).body(&noise((1 << 20) + 1)),
            400,
            "EntityTooLarge",
        ),
        (
            Request::put(&path("k")).header("content-md5", "x"),
            400,
            "InvalidDigest",
        ),
        (
            Request::put(&path("k")).header("x-amz-meta-a", &"b".repeat(2048)),
            400,
            "MetadataTooLarge",
        ),
        (
            Request::put(&path("k"))
                .header("content-encoding", "aws-chunked")
                .header("x-amz-decoded-content-length", "2")
                .body(b"x"),
            400,
            "InvalidRequest",
        ),
        (
            Request::get(&format!("{}?partNumber=1", path("k"))).header("range", "bytes=0-0"),
            400,
            "InvalidRequest",
        ),
        (
            Request::put(&format!("{}?partNumber=0&uploadId=x", path("k"))),
            400,
            "InvalidArgument",
        ),
        (
            Request::put(&format!("{}?partNumber=1", path("k"))),
            400,
            "InvalidArgument",
        ),
        (
            Request::put(&path("k")).header("x-amz-copy-source", "nonsense"),
            400,
            "InvalidArgument",
        ),
        (
            Request::delete(&path("k")).header("if-none-match", "*"),
            501,
            "NotImplemented",
        ),
        (delete("<Delete>"), 400, "MalformedXML"),
        (delete("<Delete></Delete>"), 400, "MalformedXML"),
        (delete(&many), 400, "MalformedXML"),
        (
            Request::post(&format!("{bucket}?delete"))
                .body(b"<Delete><Object><Key>k</Key></Object></Delete>")
                .payload(PayloadMode::Unsigned),
            400,
            "InvalidRequest",
        ),
        (
            delete("").header("content-length", &(3 << 20).to_string()),
            400,
            "MaxMessageLengthExceeded",
        ),
        (
            Request::get(&path("k")).header("x-amz-checksum-mode", "maybe"),
            400,
            "InvalidArgument",
        ),
    ];
    for (request, status, code) in table {
        let shown = format!("{} {}?{}", request.method, request.path, request.query);
        let answer = server.send(request).await;
        assert_eq!(
            answer.verdict(),
            (status, code.to_owned()),
            "{shown}\n{}",
            answer.text()
        );
        assert_eq!(
            answer.header("x-amz-request-id"),
            answer.element("RequestId"),
            "{shown}"
        );
        assert!(answer.element("Resource").starts_with('/'), "{shown}");
        assert!(!answer.element("Message").is_empty(), "{shown}");
        assert_eq!(answer.header("content-type"), "application/xml", "{shown}");
    }
    // Nothing of all that has touched the object.
    assert_eq!(server.get("k").await.text(), "x");
}

#[tokio::test]
async fn an_error_names_what_it_is_about() {
    let server = Server::start().await;
    let put = server.put("k", b"hello").await.expect(200);
    assert!(!put.header("x-amz-id-2").is_empty());
    let read = || Request::get(&path("k"));
    let copy = |from: &str| Request::put(&path("to")).header("x-amz-copy-source", from);
    let own = format!("{BUCKET}/k");
    let upload = format!("{}?uploadId", path("k"));
    let table: [(Request, &[(&str, &str)]); 10] = [
        (
            Request::get(&path("a<&\u{1}")),
            &[("Key", "a&lt;&amp;&#x1;")],
        ),
        (Request::get("/nowhere/k"), &[("BucketName", "nowhere")]),
        (
            Request::get(&format!("/{BUCKET}?cors")),
            &[("BucketName", BUCKET)],
        ),
        (
            Request::get(&format!("{upload}=no%20such")),
            &[("UploadId", "no such")],
        ),
        (
            read().header("if-match", "\"x\""),
            &[("Condition", "If-Match")],
        ),
        (
            Request::put(&path("k")).header("if-none-match", "*"),
            &[("Condition", "If-None-Match")],
        ),
        (
            copy(&own).header("x-amz-copy-source-if-match", "\"x\""),
            &[("Condition", "x-amz-copy-source-If-Match")],
        ),
        // What a copy misses is its source.
        (copy(&format!("{BUCKET}/absent")), &[("Key", "absent")]),
        (copy("nowhere/k"), &[("BucketName", "nowhere")]),
        (
            read().header("range", "bytes=5-"),
            &[("RangeRequested", "bytes=5-"), ("ActualObjectSize", "5")],
        ),
    ];
    for (request, elements) in table {
        let answer = server.send(request).await;
        for (name, text) in elements {
            assert_eq!(answer.element(name), *text, "{}", answer.text());
        }
        assert_eq!(answer.element("HostId"), put.header("x-amz-id-2"));
    }
    // Another start of the program is another host.
    let other = Server::start().await.get("k").await;
    assert!(!other.header("x-amz-id-2").is_empty());
    assert_ne!(other.header("x-amz-id-2"), put.header("x-amz-id-2"));
    let plain = server.send(Request::get(&format!("/{BUCKET}/%zz"))).await;
    for name in ["Key", "BucketName", "UploadId", "Condition"] {
        assert!(!plain.text().contains(&format!("<{name}>")));
    }
}

#[tokio::test]
async fn the_hash_of_a_body_that_is_not_there_is_compared() {
    let server = Server::start().await;
    server.put("k", b"x").await.expect(200);
    let uploads = format!("{}?uploads", path("k"));
    for request in [
        Request::get(&path("k")),
        Request::get(&format!("/{BUCKET}")),
        Request::delete(&path("k")),
        Request::put(&path("k")),
        Request::put(&path("c")).header("x-amz-copy-source", &format!("{BUCKET}/k")),
        Request::post(&uploads),
    ] {
        let other = request.clone().payload(PayloadMode::of(b"other"));
        let refused = server.send(other).await;
        assert_eq!(refused.verdict(), (400, "XAmzContentSHA256Mismatch".into()));
    }
    let head = || Request::head(&path("k"));
    let refused = server.send(head().payload(PayloadMode::of(b"other"))).await;
    assert_eq!(refused.status, 400);
    for payload in [PayloadMode::Unsigned, PayloadMode::of(b"")] {
        server.send(head().payload(payload)).await.expect(200);
    }
    assert_eq!(server.get("k").await.text(), "x");
}

#[tokio::test]
async fn a_head_that_fails_has_a_status_and_no_body() {
    let server = Server::start().await;
    let mut wire = server.connect().await;
    wire.write(&Request::head(&path("absent")).bytes(server.addr))
        .await;
    wire.write(&Request::head(&format!("/{BUCKET}")).bytes(server.addr))
        .await;
    assert_eq!(wire.response(true).await.status, 404);
    // Had the first answer had a body, this one could not be read.
    assert_eq!(wire.response(true).await.status, 200);
}

#[tokio::test]
async fn the_request_id_of_the_client_is_kept_where_it_is_one() {
    let server = Server::start().await;
    let ask = |id: &str| Request::get(&path("absent")).header("x-request-id", id);
    let kept = server.send(ask("AbC123")).await;
    assert_eq!(kept.header("x-amz-request-id"), "AbC123");
    let drawn = server.send(ask("not hexadecimal")).await;
    assert_eq!(drawn.header("x-amz-request-id").len(), 32);
}

#[tokio::test]
async fn a_head_has_its_limits() {
    let server = Server::start().await;
    assert_eq!((HEAD_BYTES_MAX, HEAD_FIELDS_MAX), (128 << 10, 256));
    let ask = || Request::get(&format!("/{BUCKET}?location"));
    let long = |bytes: usize| ask().header("x-note", &"a".repeat(bytes));
    let many = |fields: usize| {
        (0..fields).fold(ask(), |request, n| {
            request.header(&format!("x-note-{n}"), "a")
        })
    };
    // With what signs it, a head has four fields of its own.
    for request in [long(HEAD_BYTES_MAX - 1024), many(HEAD_FIELDS_MAX - 4)] {
        let mut wire = server.connect().await;
        wire.write(&request.bytes(server.addr)).await;
        wire.response(false).await.expect(200);
    }
    // What has come by the time it is looked at counts, so the limit of bytes is not exact.
    let (long, many) = (long(2 * HEAD_BYTES_MAX), many(HEAD_FIELDS_MAX - 3));
    for request in [long, many] {
        let mut wire = server.connect().await;
        wire.write(&request.bytes(server.addr)).await;
        let refused = wire.response(false).await;
        let code = "RequestHeaderSectionTooLarge";
        assert_eq!(refused.verdict(), (400, code.into()));
        wire.rest().await;
    }
    server.put("k", b"still there").await.expect(200);
}

#[tokio::test]
async fn a_head_that_is_too_large_is_refused_before_its_end() {
    let server = Server::start().await;
    let mut wire = server.connect().await;
    let endless = format!("GET / HTTP/1.1\r\nx-note: {}", "a".repeat(HEAD_BYTES_MAX));
    wire.write(endless.as_bytes()).await;
    let refused = wire.response(false).await;
    let code = "RequestHeaderSectionTooLarge";
    assert_eq!(refused.verdict(), (400, code.into()));
    wire.rest().await;
}

#[tokio::test]
async fn many_heads_on_one_connection_are_no_large_head() {
    let server = Server::start().await;
    let mut wire = server.connect().await;
    let note = "a".repeat(HEAD_BYTES_MAX - 4096);
    for _ in 0..5 {
        let ask = Request::get(&format!("/{BUCKET}?location")).header("x-note", &note);
        let bytes = ask.bytes(server.addr);
        // In pieces, so that more is awaited while the count stands.
        for piece in bytes.chunks(16 << 10) {
            wire.write(piece).await;
        }
        wire.response(false).await.expect(200);
    }
}

#[tokio::test]
async fn a_body_that_comes_with_its_head_is_no_head() {
    let server = Server::start().await;
    let mut wire = server.connect().await;
    let body = vec![b'a'; 3 * HEAD_BYTES_MAX];
    // The second one is read in larger pieces.
    for _ in 0..2 {
        let store = Request::put(&format!("/{BUCKET}/k")).body(&body);
        wire.write(&store.bytes(server.addr)).await;
        wire.response(false).await.expect(200);
    }
}

#[tokio::test]
async fn bytes_that_are_no_request_are_refused_with_a_document() {
    let server = Server::start().await;
    let garbage = [
        &b"nonsense\r\n\r\n"[..],
        b"GET / HTTP/1.1\r\nno header\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ];
    for first in [false, true] {
        for bytes in garbage {
            let mut wire = server.connect().await;
            if first {
                // After a request that was one.
                let request = Request::head(&format!("/{BUCKET}"));
                wire.write(&request.bytes(server.addr)).await;
                wire.response(true).await.expect(200);
            }
            wire.write(bytes).await;
            let refused = wire.response(false).await;
            assert_eq!(refused.verdict(), (400, "BadRequest".into()));
            assert_eq!(refused.header("connection"), "close");
            assert_eq!(refused.header("content-type"), "application/xml");
            let id = refused.header("x-amz-request-id");
            assert_eq!(refused.element("RequestId"), id);
            assert!(wire.rest().await.is_empty());
        }
    }
}

// The refusal has no document where the HTTP library writes it while the answer is still on its way.
#[tokio::test]
async fn garbage_behind_a_request_does_not_hurt_its_answer() {
    let server = Server::start().await;
    for length in [10, 8 << 20] {
        let body = noise(length);
        server.put("k", &body).await.expect(200);
        let mut bytes = Request::get(&path("k")).bytes(server.addr);
        bytes.extend_from_slice(b"nonsense\r\n\r\n");
        let mut wire = server.connect().await;
        wire.write(&bytes).await;
        let answer = wire.response(false).await.expect(200);
        assert!(answer.body == body, "{length}");
        let refused = wire.response(false).await;
        assert_eq!(refused.status, 400);
        assert!(wire.rest().await.is_empty());
    }
}
