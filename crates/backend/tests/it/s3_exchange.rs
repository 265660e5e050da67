//! What the S3 client makes of answers, of silence, and of answers to something else.

use std::time::Duration;

use backend::{
    Capabilities, DeleteTarget, Effect, Error, Kind, ListRequest, ObjectBackend as _, PartFact,
    Payload, PutMeta, S3Settings,
};
use base::{ByteRange, ETag, Md5, Secret};
use bytes::Bytes;
use futures_util::StreamExt as _;
use tokio::net::TcpListener;

use crate::s3_script::{Action, SECRET, Script, answer, backend, key, ok, refusal};

fn payload() -> Payload {
    Payload::from_bytes(Bytes::from_static(b"hello"))
}

async fn failed_put(action: Action) -> Error {
    let script = Script::play(vec![action]).await;
    let outcome = script
        .backend()
        .put(&key("k"), &PutMeta::default(), payload())
        .await;
    outcome.expect_err("the script lets it fail")
}

async fn failed_get(action: Action) -> Error {
    let script = Script::play(vec![action]).await;
    script
        .backend()
        .get(&key("k"), None, None)
        .await
        .expect_err("the script lets it fail")
}

#[tokio::test]
async fn a_refused_connection_promises_that_nothing_happened() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let secret = Secret::new(SECRET.to_owned());
    let backend = backend(S3Settings::new(&endpoint, "bucket", "AKID", secret));
    let put = backend
        .put(&key("k"), &PutMeta::default(), payload())
        .await
        .unwrap_err();
    assert_eq!((put.kind, put.effect), (Kind::Unavailable, Effect::None));
    let probe = backend.probe().await.unwrap_err();
    assert_eq!(
        (probe.kind, probe.effect),
        (Kind::Unavailable, Effect::None)
    );
    assert_eq!(backend.capabilities(), Capabilities::UNKNOWN);
}

#[tokio::test]
async fn a_handshake_that_never_ends_is_given_up_and_nothing_happened() {
    // The kernel completes the connection; nobody ever says a word of TLS.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("https://{}", listener.local_addr().unwrap());
    let mut settings = S3Settings::new(&endpoint, "bucket", "AKID", Secret::new(SECRET.to_owned()));
    settings.connect_timeout = Duration::from_millis(20);
    let put = backend(settings)
        .put(&key("k"), &PutMeta::default(), payload())
        .await;
    let error = put.unwrap_err();
    assert_eq!((error.kind, error.effect), (Kind::TimedOut, Effect::None));
}

#[tokio::test]
async fn a_lost_answer_leaves_a_write_unknown_and_a_read_harmless() {
    for action in [
        Action::AnswerAndClose(String::new()),
        Action::AnswerAndClose("HTTP/1.1 200 OK\r\nETag: \"a".to_owned()),
        Action::AnswerAndClose("nonsense\r\n\r\n".to_owned()),
    ] {
        let put = failed_put(action.clone()).await;
        assert_eq!(
            (put.kind, put.effect),
            (Kind::Unavailable, Effect::Unknown),
            "{action:?}"
        );
        let get = failed_get(action).await;
        assert_eq!((get.kind, get.effect), (Kind::Unavailable, Effect::None));
    }
    let script = Script::play(vec![Action::AnswerAndClose(String::new())]).await;
    let targets = [DeleteTarget {
        key: key("k"),
        version: None,
    }];
    let outcomes = script.backend().delete(&targets).await;
    assert_eq!(outcomes[0].as_ref().unwrap_err().effect, Effect::Unknown);
}

#[tokio::test]
async fn refusals_are_told_apart() {
    for (status, code, kind, effect) in [
        (
            "500 Internal Server Error",
            "InternalError",
            Kind::Unavailable,
            Effect::Unknown,
        ),
        (
            "503 Slow Down",
            "SlowDown",
            Kind::Throttled,
            Effect::Unknown,
        ),
        (
            "403 Forbidden",
            "SignatureDoesNotMatch",
            Kind::Denied,
            Effect::None,
        ),
        ("403 Forbidden", "QuotaExceeded", Kind::Full, Effect::None),
        (
            "507 Insufficient Storage",
            "XMinioStorageFull",
            Kind::Full,
            Effect::Unknown,
        ),
        (
            "400 Bad Request",
            "BadDigest",
            Kind::Corrupt,
            Effect::Unknown,
        ),
        (
            "404 Not Found",
            "NoSuchBucket",
            Kind::Unavailable,
            Effect::None,
        ),
        (
            "501 Not Implemented",
            "NotImplemented",
            Kind::Unsupported,
            Effect::None,
        ),
        (
            "301 Moved Permanently",
            "PermanentRedirect",
            Kind::Rejected,
            Effect::None,
        ),
    ] {
        let error = failed_put(Action::Answer(refusal(status, code))).await;
        assert_eq!((error.kind, error.effect), (kind, effect), "{code}");
        assert_eq!(error.message, Some(format!("{code}: said so")));
    }
    let page = answer("502 Bad Gateway", &[], "<html>not ours</html>");
    let error = failed_put(Action::Answer(page)).await;
    assert_eq!(
        (error.kind, error.effect),
        (Kind::Unavailable, Effect::Unknown)
    );
    assert_eq!(error.message.as_deref(), Some("HTTP status 502"));
}

#[tokio::test]
async fn an_error_inside_a_success_is_an_error() {
    let late = |code: &str| {
        let head = "<?xml version=\"1.0\"?>\n   \n  ";
        let body = format!("{head}<Error><Code>{code}</Code></Error>");
        Action::Answer(answer("200 OK", &[], &body))
    };
    let script = Script::play(vec![
        late("InternalError"),
        late("NoSuchKey"),
        late("InvalidPart"),
        late("InternalError"),
        Action::Answer(answer("200 OK", &[], "")),
    ])
    .await;
    let backend = script.backend();
    let meta = PutMeta::default();
    let copy = backend
        .copy(&key("a"), None, &key("b"), &meta)
        .await
        .unwrap_err();
    assert_eq!(
        (copy.kind, copy.effect),
        (Kind::Unavailable, Effect::Unknown)
    );
    let copy = backend
        .copy(&key("a"), None, &key("b"), &meta)
        .await
        .unwrap_err();
    assert_eq!((copy.kind, copy.effect), (Kind::NotFound, Effect::None));
    let parts = [PartFact {
        number: 1,
        etag: ETag::new("e"),
        crc64: None,
    }];
    for (kind, effect) in [
        (Kind::InvalidPart, Effect::None),
        (Kind::Unavailable, Effect::Unknown),
        (Kind::Unavailable, Effect::Unknown),
    ] {
        let error = backend
            .complete_upload(&key("a"), "u", &parts)
            .await
            .unwrap_err();
        assert_eq!((error.kind, error.effect), (kind, effect));
    }
}

#[tokio::test]
async fn a_success_before_the_body_was_sent_is_not_believed() {
    let early = Action::AnswerEarly(answer("200 OK", &[("ETag", "\"e\"")], ""));
    let script = Script::play(vec![early]).await;
    let endless = futures_util::stream::iter([Ok(Bytes::from_static(b"first"))])
        .chain(futures_util::stream::pending());
    let payload = Payload::streamed(1 << 20, Box::pin(endless));
    let put = script
        .backend()
        .put(&key("k"), &PutMeta::default(), payload)
        .await;
    let error = put.unwrap_err();
    assert_eq!(
        (error.kind, error.effect),
        (Kind::Unavailable, Effect::Unknown)
    );
}

#[tokio::test]
async fn a_range_is_what_was_asked_for_or_an_error() {
    let range = ByteRange {
        start: 2,
        length: 3,
    };
    let partial = |range: &str, body: &str| {
        Action::Answer(answer(
            "206 Partial Content",
            &[("Content-Range", range)],
            body,
        ))
    };
    for (action, fits) in [
        (partial("bytes 2-4/10", "cde"), true),
        (partial("bytes 1-3/10", "bcd"), false),
        (partial("bytes 2-5/10", "cdef"), false),
        (partial("bytes 2-4/*", "cde"), false),
        (partial("bytes 2-4/10", "cd"), false),
        (
            Action::Answer(answer("206 Partial Content", &[], "cde")),
            false,
        ),
        (Action::Answer(answer("200 OK", &[], "abcdefghij")), false),
    ] {
        let script = Script::play(vec![action.clone()]).await;
        let outcome = script.backend().get(&key("k"), None, Some(range)).await;
        assert_eq!(script.seen()[0].header("range"), Some("bytes=2-4"));
        match outcome {
            Ok(fetched) if fits => assert_eq!(fetched.head.size, 10),
            Ok(_) => panic!("{action:?} was believed"),
            Err(error) => {
                assert!(!fits, "{action:?}: {error}");
                assert_eq!(error.kind, Kind::Unavailable);
            }
        }
    }
    // The whole object, asked for as a range, may come without one.
    let script = Script::play(vec![Action::Answer(answer("200 OK", &[], "ab"))]).await;
    let whole = ByteRange {
        start: 0,
        length: 2,
    };
    assert!(
        script
            .backend()
            .get(&key("k"), None, Some(whole))
            .await
            .is_ok()
    );
    let partial = partial("bytes 0-0/10", "a");
    assert_eq!(failed_get(partial).await.kind, Kind::Unavailable);
}

#[tokio::test]
async fn a_body_that_ends_early_ends_in_an_error() {
    let short = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabcd".to_owned();
    let script = Script::play(vec![Action::AnswerAndClose(short)]).await;
    let mut body = script
        .backend()
        .get(&key("k"), None, None)
        .await
        .unwrap()
        .body;
    assert_eq!(body.next().await.unwrap().unwrap(), "abcd");
    let error = body.next().await.unwrap().unwrap_err();
    assert_eq!(
        (error.kind, error.effect),
        (Kind::Unavailable, Effect::None)
    );
    assert!(body.next().await.is_none());
    // Without a length nobody could tell a cut from an end.
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n";
    let error = failed_get(Action::Answer(chunked.to_owned())).await;
    assert_eq!(error.kind, Kind::Unavailable);
}

#[tokio::test]
async fn documents_and_error_pages_are_read_within_limits() {
    let huge = "x".repeat(9 << 20);
    let script = Script::play(vec![
        Action::AnswerAndClose(answer("200 OK", &[], &huge)),
        Action::AnswerAndClose(answer("500 Internal Server Error", &[], &huge)),
    ])
    .await;
    let backend = script.backend();
    for _ in 0..2 {
        let error = backend.list(&ListRequest::default()).await.unwrap_err();
        assert_eq!(error.kind, Kind::Unavailable);
    }
}

#[tokio::test]
async fn an_absent_object_differs_from_an_absent_bucket() {
    let script = Script::play(vec![
        Action::Answer(refusal("404 Not Found", "NoSuchKey")),
        Action::Answer(refusal("404 Not Found", "NoSuchBucket")),
        Action::Answer("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".to_owned()),
    ])
    .await;
    let backend = script.backend();
    assert_eq!(backend.read_marker().await.unwrap(), None);
    assert_eq!(
        backend.read_marker().await.unwrap_err().kind,
        Kind::Unavailable
    );
    assert_eq!(backend.check().await.unwrap_err().kind, Kind::Unavailable);
}

#[tokio::test]
async fn a_batch_delete_answers_for_each_target() {
    let result = "<DeleteResult><Error><Key>b</Key><Code>AccessDenied</Code></Error>\
                  <Error><Key>c</Key><VersionId>v1</VersionId><Code>InternalError</Code></Error>\
                  </DeleteResult>";
    let stray = "<DeleteResult><Error><Code>InternalError</Code></Error></DeleteResult>";
    let script = Script::play(vec![
        Action::Answer(answer("200 OK", &[], result)),
        Action::Answer(answer("200 OK", &[], stray)),
        Action::Answer("HTTP/1.1 204 No Content\r\n\r\n".to_owned()),
        Action::Answer(refusal("404 Not Found", "NoSuchKey")),
    ])
    .await;
    let backend = script.backend();
    backend.adopt(Capabilities {
        batch_delete: true,
        ..Capabilities::UNKNOWN
    });
    let target = |name: &str, version: Option<&str>| DeleteTarget {
        key: key(name),
        version: version.map(str::to_owned),
    };
    let targets = [
        target("a", None),
        target("b", None),
        target("c", Some("v1")),
        target("c", Some("v2")),
    ];
    let outcomes = backend.delete(&targets).await;
    let kinds: Vec<_> = outcomes
        .iter()
        .map(|o| o.as_ref().err().map(|e| (e.kind, e.effect)))
        .collect();
    let (denied, broken) = (
        (Kind::Denied, Effect::None),
        (Kind::Unavailable, Effect::Unknown),
    );
    assert_eq!(kinds, [None, Some(denied), Some(broken), None]);
    // A failure that names nobody could be anybody's.
    let outcomes = backend.delete(&targets[..2]).await;
    assert!(
        outcomes
            .iter()
            .all(|o| o.as_ref().is_err_and(|e| e.effect == Effect::Unknown))
    );
    // XML cannot carry this key.
    let single = backend
        .delete(&[target("\u{1}", None), target("d", None)])
        .await;
    assert_eq!(single.len(), 2);

    let seen = script.seen();
    seen.iter().for_each(|seen| drop(seen.verified()));
    assert_eq!(seen[0].query, "delete");
    let md5 = Md5::of(&seen[0].body).to_base64();
    assert_eq!(seen[0].header("content-md5"), Some(md5.as_str()));
    assert_eq!(seen[0].payload(), seen[0].body);
    let mut paths: Vec<_> = seen[2..].iter().map(|seen| seen.path.as_str()).collect();
    paths.sort_unstable();
    assert_eq!(paths, ["/bucket/%01", "/bucket/d"]);
}

#[tokio::test]
async fn an_upload_list_that_a_provider_lacks_is_unsupported() {
    let lacking = Action::Answer(refusal("501 Not Implemented", "NotImplemented"));
    let script = Script::play(vec![lacking]).await;
    let error = script.backend().list_uploads("p", None).await.unwrap_err();
    assert_eq!(error.kind, Kind::Unsupported);
}

#[tokio::test]
async fn a_replaced_marker_takes_its_older_versions_along() {
    let versions = "<ListVersionsResult><IsTruncated>false</IsTruncated>\
        <Version><Key>.s3o/backend</Key><VersionId>new</VersionId><IsLatest>true</IsLatest>\
        <LastModified>2026-01-01T00:00:00.000Z</LastModified><Size>1</Size></Version>\
        <Version><Key>.s3o/backend</Key><VersionId>old</VersionId><IsLatest>false</IsLatest>\
        <LastModified>2026-01-01T00:00:00.000Z</LastModified><Size>1</Size></Version>\
        <Version><Key>.s3o/backend2</Key><VersionId>x</VersionId><IsLatest>true</IsLatest>\
        <LastModified>2026-01-01T00:00:00.000Z</LastModified><Size>1</Size></Version>\
        </ListVersionsResult>";
    let script = Script::play(vec![
        Action::Answer(answer("200 OK", &[("x-amz-version-id", "new")], "")),
        Action::Answer(answer("200 OK", &[], versions)),
        ok(),
    ])
    .await;
    let backend = script.backend();
    backend.adopt(Capabilities {
        versioned: true,
        ..Capabilities::UNKNOWN
    });
    backend
        .write_marker(Bytes::from_static(b"m"))
        .await
        .unwrap();
    let seen = script.seen();
    assert_eq!(seen.len(), 3);
    assert_eq!(
        (seen[2].method.as_str(), seen[2].query.as_str()),
        ("DELETE", "versionId=old")
    );
    assert_eq!(seen[2].path, "/bucket/.s3o/backend");
}

/// Bodies in chunks, as servers send documents whose length they do not know yet.
#[tokio::test]
async fn a_document_in_chunks_is_read_to_its_end_and_the_connection_used_again() {
    let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    let page = "<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>";
    let (one, two) = page.split_at(20);
    let chunked = |trailers: &str| {
        let (first, second) = (one.len(), two.len());
        let body = format!("{first:x};a=b\r\n{one}\r\n{second:X}\r\n{two}\r\n0\r\n{trailers}\r\n");
        Action::Answer(format!("{head}{body}"))
    };
    let script = Script::play(vec![
        chunked(""),
        chunked("x-checked: yes\r\n"),
        // Only a connection that was left behind clean tells this answer from the last one.
        Action::Answer(format!(
            "HTTP/1.1 100 Continue\r\n\r\n{}",
            answer("200 OK", &[], page)
        )),
        Action::Answer(format!("{head}zz\r\n{page}\r\n0\r\n\r\n")),
        Action::Answer(format!("{head}{:x}\r\n{page}0\r\n\r\n", page.len())),
        Action::AnswerAndClose(format!("{head}{:x}\r\n{page}\r\n", page.len())),
    ])
    .await;
    let backend = script.backend();
    for _ in 0..3 {
        backend.list(&ListRequest::default()).await.unwrap();
    }
    assert_eq!(script.connections(), 1);
    for _ in 0..3 {
        let error = backend.list(&ListRequest::default()).await.unwrap_err();
        assert_eq!(error.kind, Kind::Unavailable);
    }
    // What a broken answer left behind is nobody's.
    assert_eq!(script.connections(), 3);
}

#[tokio::test]
async fn a_connection_that_was_closed_meanwhile_is_noticed_before_anything_is_sent() {
    let script = Script::play(vec![
        Action::AnswerAndClose(answer("200 OK", &[], "")),
        Action::Answer(format!("{}unasked", answer("200 OK", &[], ""))),
        ok(),
    ])
    .await;
    let backend = script.backend();
    for connections in 1..=3 {
        let meta = PutMeta::default();
        backend.put(&key("k"), &meta, payload()).await.unwrap();
        assert_eq!(script.connections(), connections);
        script.ended(1).await;
    }
}

#[tokio::test]
async fn a_refusal_is_heard_while_the_body_is_still_being_sent() {
    let early = Action::AnswerEarly(refusal("403 Forbidden", "AccessDenied"));
    let script = Script::play(vec![early, ok()]).await;
    let backend = script.backend();
    let endless = futures_util::stream::repeat_with(|| Ok(Bytes::from_static(&[7; 4096])));
    let payload = Payload::streamed(1 << 40, Box::pin(endless));
    let put = backend.put(&key("k"), &PutMeta::default(), payload).await;
    let error = put.unwrap_err();
    assert_eq!((error.kind, error.effect), (Kind::Denied, Effect::None));
    // The rest of that body is not taken for a request.
    backend.check().await.unwrap();
    assert_eq!(script.connections(), 2);
}

fn objects_page(keys: &[&str], token: Option<&str>) -> Action {
    let entries: String = keys
        .iter()
        .map(|key| {
            format!(
                "<Contents><Key>{key}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified>\
                 <Size>1</Size></Contents>"
            )
        })
        .collect();
    let next = token.map_or_else(String::new, |token| {
        format!("<NextContinuationToken>{token}</NextContinuationToken>")
    });
    let page = format!(
        "<ListBucketResult><IsTruncated>{}</IsTruncated>{next}{entries}</ListBucketResult>",
        token.is_some()
    );
    Action::Answer(answer("200 OK", &[], &page))
}

#[tokio::test]
async fn an_empty_page_is_followed_by_its_token() {
    let script = Script::play(vec![
        objects_page(&[], Some("t1")),
        objects_page(&[], Some("t2")),
        objects_page(&["b", "c"], Some("t3")),
    ])
    .await;
    let request = ListRequest {
        after: Some("a".into()),
        ..ListRequest::default()
    };
    let page = script.backend().list(&request).await.unwrap();
    assert_eq!((page.objects.len(), page.truncated), (2, true));
    let queries: Vec<_> = script.seen().into_iter().map(|seen| seen.query).collect();
    assert!(queries[0].contains("start-after=a"), "{queries:?}");
    assert!(queries[1].contains("continuation-token=t1"), "{queries:?}");
    assert!(queries[2].contains("continuation-token=t2"), "{queries:?}");
}

#[tokio::test]
async fn a_page_that_does_not_go_on_is_an_error() {
    let stuck = [
        // It ignores `start-after`.
        objects_page(&["a", "b"], Some("t")),
        objects_page(&["c", "b"], None),
    ];
    let request = ListRequest {
        after: Some("a".into()),
        ..ListRequest::default()
    };
    for page in stuck {
        let script = Script::play(vec![page]).await;
        let error = script.backend().list(&request).await.unwrap_err();
        assert_eq!(error.kind, Kind::Unavailable);
    }
    let same = vec![objects_page(&[], Some("t")), objects_page(&[], Some("t"))];
    let script = Script::play(same).await;
    let error = script.backend().list(&request).await.unwrap_err();
    assert_eq!(error.kind, Kind::Unavailable);
}

#[tokio::test]
async fn versions_and_parts_and_uploads_are_listed_behind_empty_pages() {
    let page = |document: &str| Action::Answer(answer("200 OK", &[], document));
    let script = Script::play(vec![
        page(
            "<ListVersionsResult><IsTruncated>true</IsTruncated><NextKeyMarker>k</NextKeyMarker>\
             <NextVersionIdMarker>v0</NextVersionIdMarker></ListVersionsResult>",
        ),
        page(
            "<ListVersionsResult><IsTruncated>false</IsTruncated><Version><Key>k</Key>\
             <VersionId>v1</VersionId><IsLatest>true</IsLatest>\
             <LastModified>2026-01-01T00:00:00.000Z</LastModified><Size>1</Size></Version>\
             </ListVersionsResult>",
        ),
        page(
            "<ListPartsResult><IsTruncated>true</IsTruncated>\
             <NextPartNumberMarker>7</NextPartNumberMarker></ListPartsResult>",
        ),
        page(
            "<ListPartsResult><IsTruncated>false</IsTruncated><Part><PartNumber>8</PartNumber>\
             <LastModified>2026-01-01T00:00:00.000Z</LastModified><ETag>e</ETag><Size>1</Size>\
             </Part></ListPartsResult>",
        ),
        page(
            "<ListMultipartUploadsResult><IsTruncated>true</IsTruncated>\
             <NextKeyMarker>k</NextKeyMarker></ListMultipartUploadsResult>",
        ),
        page(
            "<ListMultipartUploadsResult><IsTruncated>false</IsTruncated><Upload><Key>k</Key>\
             <UploadId>u</UploadId><Initiated>2026-01-01T00:00:00.000Z</Initiated></Upload>\
             </ListMultipartUploadsResult>",
        ),
    ])
    .await;
    let backend = script.backend();
    backend.adopt(Capabilities {
        versioned: true,
        ..Capabilities::UNKNOWN
    });
    assert_eq!(backend.versions(&key("k")).await.unwrap().versions.len(), 1);
    let parts = backend.list_parts(&key("k"), "u", 0).await.unwrap();
    assert_eq!(parts.parts.len(), 1);
    let uploads = backend.list_uploads("", None).await.unwrap();
    assert_eq!(uploads.uploads.len(), 1);
}

#[tokio::test]
async fn of_versions_without_end_one_page_is_held() {
    let version = |id: &str| {
        format!(
            "<Version><Key>k</Key><VersionId>{id}</VersionId><IsLatest>true</IsLatest>\
             <LastModified>2026-01-01T00:00:00.000Z</LastModified><Size>1</Size></Version>"
        )
    };
    let page = |id: &str| {
        let document = format!(
            "<ListVersionsResult><IsTruncated>true</IsTruncated><NextKeyMarker>k</NextKeyMarker>\
             <NextVersionIdMarker>{id}</NextVersionIdMarker>{}</ListVersionsResult>",
            version(id)
        );
        Action::Answer(answer("200 OK", &[], &document))
    };
    let script = Script::play((0..9).map(|n| page(&format!("v{n}"))).collect()).await;
    let backend = script.backend();
    backend.adopt(Capabilities {
        versioned: true,
        ..Capabilities::UNKNOWN
    });
    let found = backend.versions(&key("k")).await.unwrap();
    assert_eq!((found.versions.len(), found.truncated), (1, true));
    assert_eq!(
        script.seen().len(),
        1,
        "the next page is asked for when this one is deleted"
    );
}

#[tokio::test]
async fn ids_and_tokens_longer_than_any_are_refused_by_name() {
    let id = |bytes: usize| "i".repeat(bytes);
    let play = async |document: String| {
        let script = Script::play(vec![Action::Answer(answer("200 OK", &[], &document))]).await;
        let backend = script.backend();
        backend.adopt(Capabilities {
            versioned: true,
            ..Capabilities::UNKNOWN
        });
        (script, backend)
    };
    let refused = |error: backend::Error, element: &str| {
        assert_eq!(error.kind, Kind::Unavailable, "{error:?}");
        let told = base::report(&error).to_string();
        assert!(
            told.contains(&format!("the element {element} has")),
            "{told}"
        );
    };
    let versions = |bytes: usize| {
        format!(
            "<ListVersionsResult><IsTruncated>false</IsTruncated><Version><Key>k</Key>\
             <VersionId>{}</VersionId><IsLatest>true</IsLatest>\
             <LastModified>2026-01-01T00:00:00.000Z</LastModified><Size>1</Size></Version>\
             </ListVersionsResult>",
            id(bytes)
        )
    };
    let (_script, backend) = play(versions(1024)).await;
    assert_eq!(backend.versions(&key("k")).await.unwrap().versions.len(), 1);
    let (_script, backend) = play(versions(1025)).await;
    refused(backend.versions(&key("k")).await.unwrap_err(), "VersionId");
    let document = format!(
        "<ListMultipartUploadsResult><IsTruncated>false</IsTruncated><Upload><Key>k</Key>\
         <UploadId>{}</UploadId><Initiated>2026-01-01T00:00:00.000Z</Initiated></Upload>\
         </ListMultipartUploadsResult>",
        id(4097)
    );
    let (_script, backend) = play(document).await;
    refused(
        backend.list_uploads("", None).await.unwrap_err(),
        "UploadId",
    );
    let document = format!(
        "<InitiateMultipartUploadResult><UploadId>{}</UploadId></InitiateMultipartUploadResult>",
        id(4097)
    );
    let (_script, backend) = play(document).await;
    let begun = backend.create_upload(&key("k"), &PutMeta::default()).await;
    refused(begun.unwrap_err(), "UploadId");
    let document = format!(
        "<ListBucketResult><IsTruncated>true</IsTruncated>\
         <NextContinuationToken>{}</NextContinuationToken></ListBucketResult>",
        id(4097)
    );
    let (_script, backend) = play(document).await;
    let listed = backend.list(&ListRequest::default()).await;
    refused(listed.unwrap_err(), "NextContinuationToken");
    let document = format!(
        "<ListPartsResult><IsTruncated>false</IsTruncated><Part><PartNumber>8</PartNumber>\
         <LastModified>2026-01-01T00:00:00.000Z</LastModified><ETag>{}</ETag><Size>1</Size>\
         </Part></ListPartsResult>",
        id(1025)
    );
    let (_script, backend) = play(document).await;
    assert!(backend.list_parts(&key("k"), "u", 0).await.is_err());
}

#[tokio::test]
async fn only_a_named_404_says_that_an_upload_is_unknown() {
    let script = Script::play(vec![
        Action::Answer(refusal("404 Not Found", "NoSuchUpload")),
        // Ceph.
        Action::Answer(refusal("404 Not Found", "NoSuchKey")),
        Action::Answer(answer("404 Not Found", &[], "<html>a proxy</html>")),
        Action::Answer(refusal("404 Not Found", "NoSuchBucket")),
    ])
    .await;
    let backend = script.backend();
    for kind in [
        Kind::NoSuchUpload,
        Kind::NoSuchUpload,
        Kind::NotFound,
        Kind::Unavailable,
    ] {
        let error = backend.list_parts(&key("k"), "u", 0).await.unwrap_err();
        assert_eq!(error.kind, kind);
    }
}

#[tokio::test]
async fn a_first_marker_is_put_on_the_condition_that_there_is_none() {
    let named = "<Error><Code>InvalidArgument</Code><Message>Unsupported header 'If-None-Match' \
        received for this API call.</Message></Error>";
    let answers = [
        (ok(), None),
        (
            Action::Answer(refusal("412 Precondition Failed", "PreconditionFailed")),
            Some((Kind::Precondition, Effect::None)),
        ),
        // Another one is being written: what there is afterwards is seen by reading.
        (
            Action::Answer(refusal("409 Conflict", "ConditionalRequestConflict")),
            Some((Kind::Throttled, Effect::None)),
        ),
        (
            Action::Answer(refusal("501 Not Implemented", "NotImplemented")),
            Some((Kind::Unsupported, Effect::None)),
        ),
        (
            Action::Answer(answer("400 Bad Request", &[], named)),
            Some((Kind::Rejected, Effect::None)),
        ),
    ];
    let (actions, expected): (Vec<_>, Vec<_>) = answers.into_iter().unzip();
    let script = Script::play(actions).await;
    let backend = script.backend();
    for expected in expected {
        let created = backend.create_marker(Bytes::from_static(b"m")).await;
        let found = created.err().map(|error| (error.kind, error.effect));
        assert_eq!(found, expected);
    }
    for seen in script.seen() {
        assert_eq!(seen.path, "/bucket/.s3o/backend");
        assert_eq!(seen.headers["if-none-match"], "*");
    }
}
