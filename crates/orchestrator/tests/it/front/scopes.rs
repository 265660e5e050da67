//! What a credential may do: verbs, prefixes, networks, grants.

use super::support::{BUCKET, OTHER_BUCKET, Options, Request, Response, Server, path};

const SCOPED: &str = "      - access_key_id: READER
        secret_access_key: reader-secret
        allow: [list, read]
      - access_key_id: TEAM
        secret_access_key: team-secret
        prefixes: [team/]
      - access_key_id: DROPBOX
        secret_access_key: dropbox-secret
        allow: [write]
      - access_key_id: ERASER
        secret_access_key: eraser-secret
        allow: [list, write, delete]
      - access_key_id: GETTER
        secret_access_key: getter-secret
        allow: [read, write]
      - access_key_id: ELSEWHERE
        secret_access_key: elsewhere-secret
        networks: [192.0.2.0/24]
      - access_key_id: HERE
        secret_access_key: here-secret
        networks: [10.0.0.0/8, 127.0.0.1]";

const GRANTS: &str = "grants:
  - access_key_id: TEAM
    bucket: docs
    allow: [read]
    prefixes: [shared/]
";

async fn server() -> Server {
    let dir = tempfile::tempdir().unwrap();
    let options = Options {
        rest: GRANTS,
        ..Options::default()
    };
    let text = super::support::config_text(dir.path(), &options);
    let text = text.replace("      - token: ", &format!("{SCOPED}\n      - token: "));
    let file = dir.path().join("config.yaml");
    std::fs::write(&file, text).unwrap();
    Server::of_file(dir, file).await
}

fn by(name: &str, request: Request) -> Request {
    request.key(&name.to_uppercase(), &format!("{name}-secret"))
}

#[track_caller]
fn denied(answer: &Response) {
    assert_eq!(
        answer.verdict(),
        (403, "AccessDenied".into()),
        "{}",
        answer.text()
    );
}

#[tokio::test]
async fn verbs_open_their_operations_and_no_others() {
    let server = server().await;
    server.put("k", b"x").await.expect(200);
    let bucket = format!("/{BUCKET}");
    let key = path("k");
    let copy = || Request::put(&path("copy")).header("x-amz-copy-source", &format!("{BUCKET}/k"));
    let md5 = |request: Request| {
        let md5 = base::Md5::of(&request.body).to_base64();
        request.header("content-md5", &md5)
    };
    let batch = || {
        let body = b"<Delete><Object><Key>none</Key></Object></Delete>";
        md5(Request::post(&format!("{bucket}?delete")).body(body))
    };
    let tagged = || {
        Request::put(&path("t"))
            .body(b"x")
            .header("x-amz-tagging", "a=1")
    };
    // For reader (list, read) and for dropbox (write): whether it may.
    let table: [(&str, Request, bool, bool); 18] = [
        ("head bucket", Request::head(&bucket), true, true),
        (
            "location",
            Request::get(&format!("{bucket}?location")),
            true,
            true,
        ),
        ("list", Request::get(&bucket), true, false),
        (
            "list 2",
            Request::get(&format!("{bucket}?list-type=2&prefix=a")),
            true,
            false,
        ),
        (
            "uploads",
            Request::get(&format!("{bucket}?uploads")),
            true,
            false,
        ),
        ("get", Request::get(&key), true, false),
        ("head", Request::head(&key), true, false),
        ("acl", Request::get(&format!("{key}?acl")), true, false),
        (
            "attributes",
            Request::get(&format!("{key}?attributes")).header("x-amz-object-attributes", "ETag"),
            true,
            false,
        ),
        ("put", Request::put(&path("new")).body(b"x"), false, true),
        (
            "create upload",
            Request::post(&format!("{key}?uploads")),
            false,
            true,
        ),
        ("copy", copy(), false, false),
        ("tagged put", tagged(), false, false),
        (
            "get tags",
            Request::get(&format!("{key}?tagging")),
            false,
            false,
        ),
        (
            "delete tags",
            Request::delete(&format!("{key}?tagging")),
            false,
            false,
        ),
        ("delete", Request::delete(&path("none")), false, false),
        ("batch delete", batch(), false, false),
        ("delete bucket", Request::delete(&bucket), false, false),
    ];
    for (what, request, reader, dropbox) in table {
        for (name, may) in [("reader", reader), ("dropbox", dropbox)] {
            let answer = server.send(by(name, request.clone())).await;
            assert_eq!(
                answer.status != 403,
                may,
                "{name}: {what}: {}",
                answer.text()
            );
        }
    }
    // Without list-buckets the bucket does not show up.
    for name in ["reader", "dropbox"] {
        let shown = server.send(by(name, Request::get("/"))).await.expect(200);
        assert!(shown.elements("Name").is_empty());
    }
}

#[tokio::test]
async fn a_condition_on_a_tag_needs_the_right_to_read() {
    let server = server().await;
    let put = server.put("k", b"x").await.expect(200);
    let etag = put.header("etag");
    server.put("from", b"y").await.expect(200);
    let target = format!("{}?uploads", path("k"));
    let created = server.send(by("dropbox", Request::post(&target))).await;
    let upload = created.expect(200).element("UploadId");
    let part = format!("{}?partNumber=1&uploadId={upload}", path("k"));
    let part = by("dropbox", Request::put(&part).body(b"x"));
    let part = server.send(part).await.expect(200);
    let list = format!(
        "<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>{}</ETag></Part>\
         </CompleteMultipartUpload>",
        part.header("etag")
    );
    let complete = format!("{}?uploadId={upload}", path("k"));
    let complete = Request::post(&complete).body(list.as_bytes());
    for tag in [etag, "\"other\"", "*"] {
        let put = Request::put(&path("k")).body(b"z");
        denied(
            &server
                .send(by("dropbox", put.header("if-match", tag)))
                .await,
        );
        let complete = by("dropbox", complete.clone().header("if-match", tag));
        denied(&server.send(complete).await);
        let delete = Request::delete(&path("k")).header("if-match", tag);
        denied(&server.send(by("eraser", delete)).await);
    }
    let batch = |name: &str| {
        let body = format!("<Delete><Object><Key>k</Key><ETag>{etag}</ETag></Object></Delete>");
        let batch = Request::post(&format!("/{BUCKET}?delete")).body(body.as_bytes());
        let md5 = base::Md5::of(body.as_bytes()).to_base64();
        by(name, batch.header("content-md5", &md5))
    };
    let refused = server.send(batch("eraser")).await.expect(200);
    assert_eq!(refused.element("Code"), "AccessDenied");
    assert_eq!(server.get("k").await.text(), "x");
    // That there is something, a writer may know.
    let absent = |key: &str| Request::put(&path(key)).header("if-none-match", "*");
    let refused = server.send(by("dropbox", absent("k"))).await;
    assert_eq!(refused.verdict(), (412, "PreconditionFailed".into()));
    server
        .send(by("dropbox", absent("fresh")))
        .await
        .expect(200);
    // Who may do everything may do this.
    let put = Request::put(&path("k")).body(b"z").header("if-match", etag);
    server.send(put).await.expect(200);
}

#[tokio::test]
async fn who_may_not_list_does_not_learn_which_keys_are_absent() {
    let server = server().await;
    server.put("k", b"x").await.expect(200);
    let get = |key: &str| by("getter", Request::get(&path(key)));
    server.send(get("k")).await.expect(200);
    let copy = |to: &str| {
        let from = format!("{BUCKET}/absent");
        by(
            "getter",
            Request::put(to).header("x-amz-copy-source", &from),
        )
    };
    let target = format!("{}?uploads", path("m"));
    let created = server.send(by("getter", Request::post(&target))).await;
    let upload = created.expect(200).element("UploadId");
    let part = format!("{}?partNumber=1&uploadId={upload}", path("m"));
    for request in [
        get("absent"),
        by("getter", Request::get(&format!("{}?acl", path("absent")))),
        by(
            "getter",
            Request::get(&format!("{}?attributes", path("absent")))
                .header("x-amz-object-attributes", "ETag"),
        ),
        by(
            "getter",
            Request::put(&path("absent")).header("if-match", "\"e\""),
        ),
        copy(&path("to")),
        copy(&part),
        copy(&part).header("x-amz-copy-source-range", "bytes=0-1"),
    ] {
        denied(&server.send(request).await);
    }
    let head = by("getter", Request::head(&path("absent")));
    assert_eq!(server.send(head).await.status, 403);
    // Who may list these keys is told.
    let reader = server
        .send(by("reader", Request::get(&path("absent"))))
        .await;
    assert_eq!(reader.verdict(), (404, "NoSuchKey".into()));
    let team = by("team", Request::get(&path("team/absent")));
    assert_eq!(server.send(team).await.verdict().0, 404);
}

#[tokio::test]
async fn prefixes_hold_for_keys_listings_copies_and_batches() {
    let server = server().await;
    server.put("secret", b"x").await.expect(200);
    let team = |request: Request| by("team", request);
    server
        .send(team(Request::put(&path("team/k")).body(b"y")))
        .await
        .expect(200);
    denied(&server.send(team(Request::get(&path("secret")))).await);
    denied(
        &server
            .send(team(Request::put(&path("other")).body(b"x")))
            .await,
    );
    let copy = Request::put(&path("team/stolen"));
    denied(
        &server
            .send(team(
                copy.header("x-amz-copy-source", &format!("{BUCKET}/secret")),
            ))
            .await,
    );
    let list = |query: &str| team(Request::get(&format!("/{BUCKET}?list-type=2{query}")));
    denied(&server.send(list("")).await);
    denied(&server.send(list("&prefix=tea")).await);
    let own = server.send(list("&prefix=team/")).await.expect(200);
    assert_eq!(own.elements("Key"), ["team/k"]);
    let body =
        b"<Delete><Object><Key>secret</Key></Object><Object><Key>team/k</Key></Object></Delete>";
    let batch = Request::post(&format!("/{BUCKET}?delete")).body(body);
    let batch = batch.header("content-md5", &base::Md5::of(body).to_base64());
    let answer = server.send(team(batch)).await.expect(200);
    assert_eq!(answer.element("Code"), "AccessDenied");
    assert_eq!(answer.elements("Key"), ["team/k", "secret"]);
    server.get("secret").await.expect(200);
    assert_eq!(server.get("team/k").await.status, 404);
}

#[tokio::test]
async fn a_grant_opens_another_bucket_as_far_as_it_says() {
    let server = server().await;
    let docs = |key: &str| format!("/{OTHER_BUCKET}/{key}");
    for (key, tags) in [("shared/k", ""), ("shared/tagged", "a=1"), ("own", "")] {
        let put = Request::put(&docs(key)).body(b"x");
        let put = put.header("x-amz-tagging", tags);
        let put = put.key(super::support::OTHER_KEY, super::support::OTHER_SECRET);
        server.send(put).await.expect(200);
    }
    server
        .send(by("team", Request::get(&docs("shared/k"))))
        .await
        .expect(200);
    denied(&server.send(by("team", Request::get(&docs("own")))).await);
    denied(
        &server
            .send(by("team", Request::delete(&docs("shared/k"))))
            .await,
    );
    // Copies go across buckets where both ends are open.
    let copy = |from: &str| {
        let source = format!("{OTHER_BUCKET}/{from}");
        by(
            "team",
            Request::put(&path("team/copy")).header("x-amz-copy-source", &source),
        )
    };
    server.send(copy("shared/k")).await.expect(200);
    denied(&server.send(copy("own")).await);
    // Tags are what the grant does not open.
    denied(&server.send(copy("shared/tagged")).await);
    let untagged = copy("shared/tagged").header("x-amz-tagging-directive", "REPLACE");
    server.send(untagged).await.expect(200);
}

#[tokio::test]
async fn a_credential_counts_only_from_its_networks() {
    let server = server().await;
    server.put("k", b"x").await.expect(200);
    server
        .send(by("here", Request::get(&path("k"))))
        .await
        .expect(200);
    denied(&server.send(by("elsewhere", Request::get(&path("k")))).await);
}
