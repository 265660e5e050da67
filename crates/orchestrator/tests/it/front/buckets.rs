//! Buckets that clients make and remove, end to end.

use super::support::{BUCKET, KEY, OTHER_BUCKET, Options, Request, Server};

const ROOT: &str = "auth:
  root:
    access_key_id: ROOTKEY
    secret_access_key: root-secret
grants:
  - access_key_id: PHOTOSKEY
    bucket: made-later
    allow: [read, list]
";

fn root(request: Request) -> Request {
    request.key("ROOTKEY", "root-secret")
}

async fn server() -> Server {
    Server::with(Options {
        rest: ROOT,
        ..Options::default()
    })
    .await
}

#[tokio::test]
async fn the_root_account_makes_uses_and_removes_buckets() {
    let server = server().await;
    let make = |name: &str| root(Request::put(&format!("/{name}")));
    let made = server.send(make("made-later")).await.expect(200);
    assert_eq!(made.header("location"), "/made-later");
    server.send(make("made-later")).await.expect(200);
    let all = server.send(root(Request::get("/"))).await.expect(200);
    assert_eq!(all.elements("Name"), [OTHER_BUCKET, "made-later", BUCKET]);
    server
        .send(root(Request::put("/made-later/k").body(b"x")))
        .await
        .expect(200);
    // A grant reaches it too, and no further than it says.
    server.send(Request::get("/made-later/k")).await.expect(200);
    let put = server.send(Request::put("/made-later/k").body(b"y")).await;
    assert_eq!(put.verdict(), (403, "AccessDenied".into()));
    let full = server.send(root(Request::delete("/made-later"))).await;
    assert_eq!(full.verdict(), (409, "BucketNotEmpty".into()));
    server
        .send(root(Request::delete("/made-later/k")))
        .await
        .expect(204);
    // An unfinished upload is no object.
    let upload = Request::post("/made-later/m?uploads");
    let upload = server
        .send(root(upload))
        .await
        .expect(200)
        .element("UploadId");
    let denied = server.send(Request::delete("/made-later")).await;
    assert_eq!(denied.verdict(), (403, "AccessDenied".into()));
    server
        .send(root(Request::delete("/made-later")))
        .await
        .expect(204);
    let gone = server
        .send(root(Request::get("/made-later?list-type=2")))
        .await;
    assert_eq!(gone.verdict(), (404, "NoSuchBucket".into()));
    // Another bucket of the same name knows nothing of the first.
    server.send(make("made-later")).await.expect(200);
    let part = format!("/made-later/m?partNumber=1&uploadId={upload}");
    let part = server.send(root(Request::put(&part).body(b"x"))).await;
    assert_eq!(part.verdict(), (404, "NoSuchUpload".into()));
    let empty = server
        .send(root(Request::get("/made-later?list-type=2")))
        .await
        .expect(200);
    assert_eq!(empty.element("KeyCount"), "0");
}

#[tokio::test]
async fn names_follow_the_rules_and_the_configuration_keeps_its_own() {
    let server = server().await;
    for name in [
        "ab",
        "Upper",
        "a..b",
        "192.168.0.1",
        "xn--abc",
        "health",
        "metrics",
        "admin",
    ] {
        let refused = server.send(root(Request::put(&format!("/{name}")))).await;
        let code = refused.element("Code");
        assert!(
            refused.status == 400 || refused.status == 405,
            "{name}: {}",
            refused.text()
        );
        assert!(
            ["InvalidBucketName", ""].contains(&code.as_str()),
            "{name}: {code}"
        );
    }
    let own = server.send(root(Request::put(&format!("/{BUCKET}")))).await;
    assert_eq!(own.expect(200).header("location"), format!("/{BUCKET}"));
    let kept = server
        .send(root(Request::delete(&format!("/{BUCKET}"))))
        .await;
    assert_eq!(kept.verdict(), (403, "AccessDenied".into()));
    let absent = server.send(root(Request::delete("/absent"))).await;
    assert_eq!(absent.verdict(), (404, "NoSuchBucket".into()));
    let somebody = server.send(Request::put("/brandnew")).await;
    assert_eq!(somebody.verdict(), (403, "AccessDenied".into()));
    let xml = root(Request::put("/brandnew").body(b"<Create"));
    assert_eq!(
        server.send(xml).await.verdict(),
        (400, "MalformedXML".into())
    );
}

#[tokio::test]
async fn the_region_that_a_bucket_is_made_for_is_passed_over() {
    let server = server().await;
    let region = "<CreateBucketConfiguration><LocationConstraint>eu-west-1</LocationConstraint></CreateBucketConfiguration>";
    let make = Request::put("/brandnew").body(region.as_bytes());
    server.send(root(make)).await.expect(200);
    let location = root(Request::get("/brandnew?location"));
    let location = server.send(location).await.expect(200).text();
    assert!(location.ends_with("\"></LocationConstraint>"), "{location}");
    let head = server.send(root(Request::head("/brandnew"))).await;
    assert_eq!(head.expect(200).header("x-amz-bucket-region"), "us-east-1");
}

#[tokio::test]
async fn ones_own_bucket_made_again_is_a_success_in_us_east_1_and_a_conflict_elsewhere() {
    let server = server().await;
    let configuration = |inner: &str| {
        format!("<CreateBucketConfiguration>{inner}</CreateBucketConfiguration>").into_bytes()
    };
    let region =
        |name: &str| configuration(&format!("<LocationConstraint>{name}</LocationConstraint>"));
    // The credential of a bucket has it, too.
    for make in [Request::put, |target: &str| root(Request::put(target))] {
        let make = |body: &[u8]| make(&format!("/{BUCKET}")).body(body);
        server.send(make(b"")).await.expect(200);
        server.send(make(&region("us-east-1"))).await.expect(200);
        let elsewhere = server.send(make(&region("eu-west-1"))).await;
        assert_eq!(elsewhere.verdict(), (409, "BucketAlreadyOwnedByYou".into()));
        // Whoever asks for more is not told that it has it.
        let locked = make(b"").header("x-amz-bucket-object-lock-enabled", "true");
        let tagged = "<Tags><Tag><Key>k</Key><Value>v</Value></Tag></Tags>";
        let tagged = make(&configuration(tagged));
        for more in [locked, tagged] {
            let more = server.send(more).await;
            assert_eq!(more.verdict(), (409, "BucketAlreadyOwnedByYou".into()));
        }
        let broken = server.send(make(b"<Create")).await;
        assert_eq!(broken.verdict(), (400, "MalformedXML".into()));
    }
    let foreign = Request::put(&format!("/{OTHER_BUCKET}"));
    assert_eq!(
        server.send(foreign).await.verdict(),
        (403, "AccessDenied".into())
    );
}

#[tokio::test]
async fn a_new_bucket_is_not_made_without_what_it_is_to_have() {
    let server = server().await;
    let tags = "<CreateBucketConfiguration><Tags><Tag><Key>k</Key><Value>v</Value></Tag></Tags></CreateBucketConfiguration>";
    let tagged = root(Request::put("/brandnew").body(tags.as_bytes()));
    let locked = root(Request::put("/brandnew"));
    let locked = locked.header("x-amz-bucket-object-lock-enabled", "true");
    for request in [tagged, locked] {
        let refused = server.send(request).await;
        assert_eq!(refused.verdict(), (501, "NotImplemented".into()));
    }
    let absent = server.send(root(Request::head("/brandnew"))).await;
    assert_eq!(absent.status, 404);
    let plain = root(Request::put("/brandnew"));
    let plain = plain.header("x-amz-bucket-object-lock-enabled", "false");
    server.send(plain).await.expect(200);
}

#[tokio::test]
async fn racing_requests_for_one_bucket_all_learn_that_it_is_theirs() {
    const RACERS: usize = 100;
    let server = server().await;
    for round in 0..4 {
        let target = format!("/raced-{round}");
        let racers = (0..RACERS).map(|_| async {
            let made = server.send(root(Request::put(&target))).await;
            // Whoever was told so can use it.
            let put = root(Request::put(&format!("{target}/k")).body(b"x"));
            (made.verdict(), server.send(put).await.status)
        });
        for (made, put) in futures_util::future::join_all(racers).await {
            assert_eq!(made, (200, String::new()));
            assert_eq!(put, 200);
        }
    }
}

#[tokio::test]
async fn what_is_asked_of_uploads_and_versions_in_an_absent_bucket_is_about_the_bucket() {
    let server = server().await;
    const KNOWN_SHAPE: &str = "00000000000000000000000001";
    for id in ["nonsense", KNOWN_SHAPE] {
        let target = |query: &str| format!("/absent/k?{query}uploadId={id}");
        let copy = Request::put(&target("partNumber=1&")).header("x-amz-copy-source", "photos/k");
        for request in [
            Request::put(&target("partNumber=1&")).body(b"x"),
            copy,
            Request::post(&target("")).body(b"<CompleteMultipartUpload/>"),
            Request::delete(&target("")),
            Request::get(&target("")),
        ] {
            let method = request.method.clone();
            let answer = server.send(root(request)).await;
            assert_eq!(
                answer.verdict(),
                (404, "NoSuchBucket".into()),
                "{method} {id}"
            );
        }
        let there = format!("/{BUCKET}/k?uploadId={id}");
        let answer = server.send(root(Request::get(&there))).await;
        assert_eq!(answer.verdict(), (404, "NoSuchUpload".into()));
        assert_eq!(answer.element("UploadId"), id);
    }
    for request in [Request::get, Request::delete] {
        let absent = server.send(root(request("/absent/k?versionId=x"))).await;
        assert_eq!(absent.verdict(), (404, "NoSuchBucket".into()));
        let there = format!("/{BUCKET}/k?versionId=x");
        let there = server.send(root(request(&there))).await;
        assert_eq!(there.verdict(), (404, "NoSuchVersion".into()));
    }
    // Who is nobody learns none of it.
    let nobody = Request::get("/absent/k?uploadId=nonsense").key("NOBODY", "secret");
    assert_eq!(
        server.send(nobody).await.verdict(),
        (403, "SignatureDoesNotMatch".into())
    );
}

#[tokio::test]
async fn a_list_of_buckets_comes_in_pages() {
    let server = server().await;
    for name in ["bbb", "ccc", "aaa"] {
        server
            .send(root(Request::put(&format!("/{name}"))))
            .await
            .expect(200);
    }
    let page = |query: &str| root(Request::get(&format!("/?{query}")));
    let first = server.send(page("max-buckets=2")).await.expect(200);
    assert_eq!(first.elements("Name"), ["aaa", "bbb"]);
    let token = first.element("ContinuationToken");
    let next = page(&format!("max-buckets=3&continuation-token={token}"));
    let next = server.send(next).await.expect(200);
    assert_eq!(next.elements("Name"), ["ccc", OTHER_BUCKET, BUCKET]);
    assert!(next.element("ContinuationToken").is_empty());
    let some = server.send(page("prefix=b")).await.expect(200);
    assert_eq!(some.elements("Name"), ["bbb"]);
}

#[tokio::test]
async fn buckets_that_clients_made_are_there_after_a_restart() {
    let server = server().await;
    server
        .send(root(Request::put("/made-later")))
        .await
        .expect(200);
    server
        .send(root(Request::put("/made-later/k").body(b"x")))
        .await
        .expect(200);
    let (app, dir) = server.into_app();
    app.stop().await.unwrap();
    let options = Options {
        rest: ROOT,
        ..Options::default()
    };
    let config = super::support::configure(dir.path(), &options);
    let server = Server::of(config, dir).await;
    let read = server.send(Request::get("/made-later/k")).await.expect(200);
    assert_eq!(&read.body[..], b"x");
    assert_eq!(KEY, "PHOTOSKEY");
}
