//! Objects: written, read, described, copied, removed.

use base::{Checksum, ChecksumAlgorithm, Hasher, Md5};

use super::support::{BUCKET, OTHER_BUCKET, Options, Request, Server, noise, path};

fn checksum(algorithm: ChecksumAlgorithm, body: &[u8]) -> Checksum {
    let mut hasher = Hasher::new(algorithm);
    hasher.update(body);
    hasher.finish()
}

#[tokio::test]
async fn what_was_put_comes_back_byte_for_byte_with_its_headers() {
    let server = Server::start().await;
    for length in [0, 1, 65_536, 300_000] {
        let body = noise(length);
        let put = Request::put(&path("a b/ü"))
            .body(&body)
            .header("content-type", "text/x-test")
            .header("cache-control", "no-cache")
            .header("content-disposition", "attachment")
            .header("content-encoding", "gzip")
            .header("content-language", "de")
            .header("expires", "someday")
            .header("x-amz-meta-colour", "blue")
            .header("x-amz-meta-empty", "");
        let put = server.send(put).await.expect(200);
        let etag = format!("\"{}\"", Md5::of(&body).to_hex());
        assert_eq!(put.header("etag"), etag);
        let got = server.get("a b/ü").await.expect(200);
        assert!(got.body == body, "{length}");
        let head = server.send(Request::head(&path("a b/ü"))).await.expect(200);
        for answer in [&got, &head] {
            assert_eq!(answer.header("etag"), etag);
            assert_eq!(answer.header("content-length"), length.to_string());
            assert_eq!(answer.header("content-type"), "text/x-test");
            assert_eq!(answer.header("cache-control"), "no-cache");
            assert_eq!(answer.header("content-disposition"), "attachment");
            assert_eq!(answer.header("content-encoding"), "gzip");
            assert_eq!(answer.header("content-language"), "de");
            assert_eq!(answer.header("expires"), "someday");
            assert_eq!(answer.header("x-amz-meta-colour"), "blue");
            assert!(answer.headers.contains_key("x-amz-meta-empty"));
            assert_eq!(answer.header("accept-ranges"), "bytes");
            assert!(answer.header("last-modified").ends_with("GMT"));
        }
        assert!(head.body.is_empty());
    }
}

#[tokio::test]
async fn odd_keys_stay_as_they_are() {
    let server = Server::start().await;
    let long = "k".repeat(1024);
    let keys = [
        "a",
        "a/b",
        "a//b",
        "../x",
        "%2F",
        "a/",
        "+ ?&=#",
        "\u{1}\n",
        long.as_str(),
    ];
    for key in keys {
        server.put(key, key.as_bytes()).await.expect(200);
    }
    for key in keys {
        assert_eq!(server.get(key).await.expect(200).text(), key);
    }
}

#[tokio::test]
async fn the_type_of_an_object_without_one_is_binary() {
    let server = Server::start().await;
    server.put("k", b"x").await.expect(200);
    assert_eq!(
        server.get("k").await.header("content-type"),
        "binary/octet-stream"
    );
}

#[tokio::test]
async fn ranges_are_answered_with_206_and_say_what_they_are() {
    let server = Server::start().await;
    let body = noise(100_000);
    server.put("k", &body).await.expect(200);
    for (range, from, to) in [
        ("bytes=0-0", 0, 1),
        ("bytes=10-", 10, 100_000),
        ("bytes=-5", 99_995, 100_000),
        ("bytes=50000-200000", 50_000, 100_000),
    ] {
        let request = || Request::get(&path("k")).header("range", range);
        let got = server.send(request()).await.expect(206);
        assert!(got.body == body[from..to], "{range}");
        let shown = format!("bytes {from}-{}/100000", to - 1);
        assert_eq!(got.header("content-range"), shown);
        let head = server
            .send(Request {
                method: http::Method::HEAD,
                ..request()
            })
            .await;
        assert_eq!(head.expect(206).header("content-range"), shown);
    }
    // More than one range, and anything that is none, is passed over.
    for range in ["bytes=0-1,3-4", "bytes=5-4", "rows=0-1"] {
        let got = server
            .send(Request::get(&path("k")).header("range", range))
            .await;
        assert_eq!(got.expect(200).body.len(), body.len(), "{range}");
    }
    let beyond = server
        .send(Request::get(&path("k")).header("range", "bytes=100000-"))
        .await;
    assert_eq!(beyond.verdict(), (416, "InvalidRange".into()));
    assert_eq!(beyond.header("content-range"), "bytes */100000");
}

#[tokio::test]
async fn a_suffix_range_of_an_empty_object_is_all_of_it() {
    let server = Server::start().await;
    server.put("empty", b"").await.expect(200);
    for method in [http::Method::GET, http::Method::HEAD] {
        let ask = |range: &str| Request {
            method: method.clone(),
            ..Request::get(&path("empty")).header("range", range)
        };
        for range in ["bytes=-1", "bytes=-65536"] {
            let got = server.send(ask(range)).await.expect(200);
            assert_eq!(got.header("content-length"), "0", "{method} {range}");
            assert!(
                !got.headers.contains_key("content-range"),
                "{method} {range}"
            );
        }
        for range in ["bytes=0-", "bytes=0-0", "bytes=-0"] {
            let got = server.send(ask(range)).await;
            assert_eq!(got.status, 416, "{method} {range}");
        }
    }
}

#[tokio::test]
async fn conditions_decide_reads() {
    let server = Server::start().await;
    let etag = server
        .put("k", b"x")
        .await
        .expect(200)
        .header("etag")
        .to_owned();
    let past = "Fri, 24 May 2013 00:00:00 GMT";
    let future = "Sun, 24 May 2093 00:00:00 GMT";
    let list = format!("\"other\", {etag}");
    for (name, value, status) in [
        ("if-match", etag.as_str(), 200),
        ("if-match", &list, 200),
        ("if-match", "*", 200),
        ("if-match", "\"other\"", 412),
        ("if-match", "\"other\", \"third\"", 412),
        ("if-none-match", etag.as_str(), 304),
        ("if-none-match", &list, 304),
        ("if-none-match", "*", 304),
        ("if-none-match", "\"other\"", 200),
        ("if-none-match", "\"other\", \"third\"", 200),
        ("if-modified-since", past, 200),
        ("if-modified-since", future, 304),
        ("if-unmodified-since", past, 412),
        ("if-unmodified-since", future, 200),
    ] {
        for request in [Request::get(&path("k")), Request::head(&path("k"))] {
            let answer = server
                .send(request.header(name, value))
                .await
                .expect(status);
            if status == 304 {
                assert_eq!(answer.header("etag"), etag);
                assert!(!answer.header("last-modified").is_empty());
            }
        }
    }
    // Only a strong entity tag proves that the rest belongs to what the client has.
    let weak = format!("W/{etag}");
    for (value, status) in [
        (etag.as_str(), 206),
        ("\"other\"", 200),
        (&weak, 200),
        (future, 200),
    ] {
        let ranged = Request::get(&path("k")).header("range", "bytes=0-0");
        let answer = server.send(ranged.header("if-range", value)).await;
        assert_eq!(answer.status, status, "{value}");
    }
}

#[tokio::test]
async fn conditions_decide_writes() {
    let server = Server::start().await;
    let absent = || Request::put(&path("k")).header("if-none-match", "*");
    let etag = server
        .send(absent().body(b"1"))
        .await
        .expect(200)
        .header("etag")
        .to_owned();
    let lost = server.send(absent().body(b"2")).await;
    assert_eq!(lost.verdict(), (412, "PreconditionFailed".into()));
    let wrong = Request::put(&path("k"))
        .header("if-match", "\"other\"")
        .body(b"3");
    assert_eq!(
        server.send(wrong).await.verdict(),
        (412, "PreconditionFailed".into())
    );
    assert_eq!(server.get("k").await.text(), "1");
    let right = Request::put(&path("k"))
        .header("if-match", &etag)
        .body(b"4");
    server.send(right).await.expect(200);
    assert_eq!(server.get("k").await.text(), "4");
    let delete = Request::delete(&path("k")).header("if-match", &etag);
    assert_eq!(
        server.send(delete).await.verdict(),
        (412, "PreconditionFailed".into())
    );
    let missing = Request::put(&path("new"))
        .header("if-match", "*")
        .body(b"5");
    assert_eq!(
        server.send(missing).await.verdict(),
        (404, "NoSuchKey".into())
    );
}

#[tokio::test]
async fn declared_digests_are_compared_and_a_wrong_one_leaves_the_old_version() {
    let server = Server::start().await;
    server.put("k", b"old").await.expect(200);
    let body = noise(200_000);
    let wrong = Md5::of(b"something else").to_base64();
    let put = Request::put(&path("k"))
        .body(&body)
        .header("content-md5", &wrong);
    assert_eq!(server.send(put).await.verdict(), (400, "BadDigest".into()));
    for algorithm in ChecksumAlgorithm::ALL {
        let wrong = checksum(algorithm, b"something else").to_base64();
        let put = Request::put(&path("k"))
            .body(&body)
            .header(algorithm.header(), &wrong);
        assert_eq!(server.send(put).await.verdict(), (400, "BadDigest".into()));
    }
    let other = s3wire::sigv4::PayloadMode::of(b"something else");
    let put = Request::put(&path("k")).body(&body).payload(other);
    let refused = server.send(put).await;
    assert_eq!(refused.verdict(), (400, "XAmzContentSHA256Mismatch".into()));
    assert_eq!(server.get("k").await.text(), "old");
}

#[tokio::test]
async fn checksums_are_returned_to_whoever_asks() {
    let server = Server::start().await;
    let body = noise(1000);
    for algorithm in ChecksumAlgorithm::ALL {
        let sum = checksum(algorithm, &body).to_base64();
        let put = Request::put(&path("k"))
            .body(&body)
            .header(algorithm.header(), &sum);
        let put = server.send(put).await.expect(200);
        assert_eq!(put.header(algorithm.header()), sum);
        let asked = Request::get(&path("k")).header("x-amz-checksum-mode", "ENABLED");
        let got = server.send(asked.clone()).await.expect(200);
        assert_eq!(got.header(algorithm.header()), sum);
        assert_eq!(got.header("x-amz-checksum-type"), "FULL_OBJECT");
        let ranged = server
            .send(asked.header("range", "bytes=0-9"))
            .await
            .expect(206);
        assert_eq!(ranged.header(algorithm.header()), "");
        assert_eq!(server.get("k").await.header(algorithm.header()), "");
    }
}

#[tokio::test]
async fn an_object_without_a_checksum_has_ours() {
    let server = Server::start().await;
    for length in [0, 1000] {
        let body = noise(length);
        let sum = checksum(ChecksumAlgorithm::Crc64Nvme, &body).to_base64();
        let put = server.put("k", &body).await.expect(200);
        let asked = Request::head(&path("k")).header("x-amz-checksum-mode", "ENABLED");
        let head = server.send(asked).await.expect(200);
        for answer in [&put, &head] {
            assert_eq!(answer.header("x-amz-checksum-crc64nvme"), sum);
            assert_eq!(answer.header("x-amz-checksum-type"), "FULL_OBJECT");
        }
    }
}

#[tokio::test]
async fn signed_requests_override_headers_of_the_answer() {
    let server = Server::start().await;
    server.put("k", b"x").await.expect(200);
    let overrides = [
        ("cache-control", "no-store"),
        ("content-disposition", "attachment"),
        ("content-encoding", "br"),
        ("content-language", "fr"),
        ("content-type", "text%2Fa"),
        ("expires", "never"),
    ];
    let query = overrides.map(|(name, value)| format!("response-{name}={value}"));
    let target = format!("{}?{}", path("k"), query.join("&"));
    for request in [Request::get(&target), Request::head(&target)] {
        let got = server.send(request).await.expect(200);
        for (name, value) in overrides {
            assert_eq!(got.header(name), value.replace("%2F", "/"), "{name}");
        }
    }
    let token = super::support::Auth::Token(super::support::TOKEN.to_owned());
    let refused = server.send(Request::get(&target).auth(token)).await;
    assert_eq!(refused.verdict(), (400, "InvalidRequest".into()));
}

#[tokio::test]
async fn a_delete_answers_204_whether_or_not_there_was_something() {
    let server = Server::start().await;
    server.put("k", b"x").await.expect(200);
    for _ in 0..2 {
        server.send(Request::delete(&path("k"))).await.expect(204);
        assert_eq!(server.get("k").await.verdict(), (404, "NoSuchKey".into()));
    }
}

#[tokio::test]
async fn many_keys_are_deleted_at_once_each_with_its_own_outcome() {
    let server = Server::start().await;
    for key in ["a", "b & c", "d"] {
        server.put(key, b"x").await.expect(200);
    }
    let body = "<Delete><Object><Key>a</Key></Object><Object><Key>b &amp; c</Key></Object>\
                <Object><Key>d</Key><ETag>\"other\"</ETag></Object>\
                <Object><Key>absent</Key></Object>\
                <Object><Key>d</Key><VersionId>v1</VersionId></Object></Delete>";
    let delete = |body: &str| {
        let md5 = Md5::of(body.as_bytes()).to_base64();
        Request::post(&format!("/{BUCKET}?delete"))
            .body(body.as_bytes())
            .header("content-md5", &md5)
    };
    let answer = server.send(delete(body)).await.expect(200);
    let text = answer.text();
    for key in ["a", "b &amp; c", "absent"] {
        assert!(
            text.contains(&format!("<Deleted><Key>{key}</Key></Deleted>")),
            "{text}"
        );
    }
    assert_eq!(
        answer.elements("Code"),
        ["PreconditionFailed", "NoSuchVersion"]
    );
    server.get("d").await.expect(200);
    let quiet = "<Delete><Quiet>true</Quiet><Object><Key>d</Key></Object></Delete>";
    let answer = server.send(delete(quiet)).await.expect(200);
    assert!(answer.elements("Deleted").is_empty());
    server.get("d").await.expect(404);
    let wrong = delete(quiet).body(b"<Delete><Object><Key>x</Key></Object></Delete>");
    assert_eq!(
        server.send(wrong).await.verdict(),
        (400, "BadDigest".into())
    );
}

#[tokio::test]
async fn as_many_keys_as_one_request_may_name_are_deleted() {
    let server = Server::start().await;
    server.put("k999", b"x").await.expect(200);
    let delete = |count: usize| {
        let keys = (0..count).map(|n| format!("<Object><Key>k{n}</Key></Object>"));
        let body = format!("<Delete>{}</Delete>", keys.collect::<String>());
        let md5 = Md5::of(body.as_bytes()).to_base64();
        Request::post(&format!("/{BUCKET}?delete"))
            .body(body.as_bytes())
            .header("content-md5", &md5)
    };
    let refused = server.send(delete(1001)).await;
    assert_eq!(refused.verdict(), (400, "MalformedXML".into()));
    server.get("k999").await.expect(200);
    let deleted = server.send(delete(1000)).await.expect(200);
    assert_eq!(deleted.elements("Deleted").len(), 1000);
    server.get("k999").await.expect(404);
}

#[tokio::test]
async fn copies_keep_or_replace_what_is_said_of_the_object() {
    let server = Server::start().await;
    let body = noise(100_000);
    let put = Request::put(&path("from"))
        .body(&body)
        .header("x-amz-meta-a", "1");
    let etag = server.send(put).await.expect(200).header("etag").to_owned();
    let source = format!("/{BUCKET}/from");
    let copy = |to: &str| Request::put(&path(to)).header("x-amz-copy-source", &source);
    let kept = server.send(copy("kept")).await.expect(200);
    assert_eq!(kept.element("ETag").replace("&quot;", "\""), etag);
    let got = server.get("kept").await.expect(200);
    assert!(got.body == body);
    assert_eq!(got.header("x-amz-meta-a"), "1");
    let replace = |to| {
        copy(to)
            .header("x-amz-metadata-directive", "REPLACE")
            .header("x-amz-meta-b", "2")
    };
    server.send(replace("replaced")).await.expect(200);
    let got = server.get("replaced").await.expect(200);
    assert_eq!(
        (got.header("x-amz-meta-a"), got.header("x-amz-meta-b")),
        ("", "2")
    );
    assert_eq!(
        server.send(copy("from")).await.verdict(),
        (400, "InvalidRequest".into())
    );
    let classed = copy("from").header("x-amz-storage-class", "STANDARD");
    server.send(classed).await.expect(200);
    server.send(replace("from")).await.expect(200);
    let got = server.get("from").await.expect(200);
    assert!(got.body == body && got.header("x-amz-meta-b") == "2");
    let stale = copy("stale").header("x-amz-copy-source-if-none-match", &etag);
    assert_eq!(
        server.send(stale).await.verdict(),
        (412, "PreconditionFailed".into())
    );
    let missing = Request::put(&path("to")).header("x-amz-copy-source", "/photos/absent");
    assert_eq!(
        server.send(missing).await.verdict(),
        (404, "NoSuchKey".into())
    );
    let foreign = format!("/{OTHER_BUCKET}/from");
    let foreign = Request::put(&path("to")).header("x-amz-copy-source", &foreign);
    assert_eq!(
        server.send(foreign).await.verdict(),
        (403, "AccessDenied".into())
    );
}

#[tokio::test]
async fn a_write_without_room_is_refused_before_its_body() {
    let server = Server::with(Options {
        backend: "    quota_bytes: 1000",
        ..Options::default()
    })
    .await;
    let refused = server.put("k", &noise(2000)).await;
    assert_eq!(refused.verdict(), (507, "InsufficientStorage".into()));
    server.put("k", &noise(500)).await.expect(200);
}

#[tokio::test]
async fn the_word_aws_chunked_alone_is_no_framing() {
    let server = Server::start().await;
    for (sent, kept) in [
        ("gzip, aws-chunked", "gzip"),
        ("aws-chunked,gzip", "gzip"),
        ("aws-chunked", ""),
    ] {
        let put = Request::put(&path("k")).header("content-encoding", sent);
        let put = put
            .header("x-amz-decoded-content-length", "5")
            .body(b"hello");
        server.send(put).await.expect(200);
        let got = server.get("k").await.expect(200);
        assert_eq!(
            (got.text().as_str(), got.header("content-encoding")),
            ("hello", kept)
        );
    }
    // One that is framed and does not say so is not stored with its framing.
    let framed = Request::put(&path("k"))
        .header("content-encoding", "aws-chunked")
        .header("x-amz-decoded-content-length", "1")
        .body(b"1\r\nx\r\n0\r\n\r\n");
    let refused = server.send(framed).await;
    assert_eq!(refused.verdict(), (400, "InvalidRequest".into()));
}
