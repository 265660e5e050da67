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
    let again = server.send(make("made-later")).await;
    assert_eq!(again.verdict(), (409, "BucketAlreadyOwnedByYou".into()));
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
    assert_eq!(own.verdict(), (409, "BucketAlreadyOwnedByYou".into()));
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
