//! Buckets that are named by the host, end to end.

use std::time::Duration;

use http::Method;

use super::forms::signed_by;
use super::support::{Auth, BUCKET, KEY, OTHER_BUCKET, Options, Request, SECRET, Server, path};

const HOUR: Duration = Duration::from_secs(3600);

async fn server() -> Server {
    Server::with(Options {
        server: "  virtual_host_domains: [S3.Example.com]",
        ..Options::default()
    })
    .await
}

#[tokio::test]
async fn a_host_below_the_domain_names_the_bucket() {
    let server = server().await;
    let host = format!("{BUCKET}.s3.example.com");
    let at = |request: Request| request.header("host", &host);
    server
        .send(at(Request::put("/a%2Fb/health").body(b"x")))
        .await
        .expect(200);
    // The same object by its path, under the domain itself and under any other name.
    let by_path = Request::get(&path("a/b/health"));
    server
        .send(by_path.clone().header("host", "s3.example.com:9000"))
        .await
        .expect(200);
    server.send(by_path).await.expect(200);
    let listed = server
        .send(at(Request::get("/?list-type=2")))
        .await
        .expect(200);
    assert_eq!(listed.element("Name"), BUCKET);
    assert_eq!(listed.elements("Key"), ["a/b/health"]);
    server.send(at(Request::head("/"))).await.expect(200);
    // What is a page elsewhere is a key here.
    server
        .send(at(Request::put("/health").body(b"key")))
        .await
        .expect(200);
    let key = server.send(at(Request::get("/health"))).await.expect(200);
    assert_eq!(&key.body[..], b"key");
}

#[tokio::test]
async fn an_upload_is_where_the_client_sent_it() {
    let server = server().await;
    let host = format!("{BUCKET}.s3.example.com:8443");
    let at = |request: Request| {
        let request = request.header("host", &host);
        request.header("x-forwarded-proto", "https")
    };
    let created = server.send(at(Request::post("/a%2Fb%20c?uploads"))).await;
    let upload = created.expect(200).element("UploadId");
    let part = Request::put(&format!("/a%2Fb%20c?partNumber=1&uploadId={upload}"));
    let part = server.send(at(part.body(b"x"))).await.expect(200);
    let list = format!(
        "<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>{}</ETag></Part>\
         </CompleteMultipartUpload>",
        part.header("etag")
    );
    let done = Request::post(&format!("/a%2Fb%20c?uploadId={upload}")).body(list.as_bytes());
    let done = server.send(at(done)).await.expect(200);
    assert_eq!(done.element("Location"), format!("https://{host}/a/b%20c"));
}

#[tokio::test]
async fn another_bucket_in_the_host_is_another_bucket() {
    let server = server().await;
    let absent = Request::get("/k").header("host", "absent.s3.example.com");
    assert_eq!(
        server.send(absent).await.verdict(),
        (404, "NoSuchBucket".into())
    );
    let docs = Request::get("/k").header("host", "docs.s3.example.com");
    assert_eq!(
        server.send(docs).await.verdict(),
        (403, "AccessDenied".into())
    );
    // The path is a key, whatever bucket it seems to name.
    let inner = Request::get(&path("k")).header("host", &format!("{BUCKET}.s3.example.com"));
    assert_eq!(
        server.send(inner).await.verdict(),
        (404, "NoSuchKey".into())
    );
}

// A signature covers the Host header and not the authority of an absolute target: what was signed for
// one bucket would otherwise do for another.
#[tokio::test]
async fn the_authority_of_an_absolute_target_names_no_bucket() {
    let server = server().await;
    let request = Request::get("/k").header("host", "absent.s3.example.com");
    let (head, _) = request.head_bytes(server.addr);
    let head = String::from_utf8(head).unwrap();
    let absolute = format!("GET http://{BUCKET}.s3.example.com/k ");
    let mut wire = server.connect().await;
    wire.write(head.replacen("GET /k ", &absolute, 1).as_bytes())
        .await;
    assert_eq!(
        wire.response(false).await.verdict(),
        (404, "NoSuchBucket".into())
    );
}

// Who stands in front may have believed the other one.
#[tokio::test]
async fn a_second_host_is_refused() {
    let server = server().await;
    let request = Request::get("/k").header("host", &format!("{BUCKET}.s3.example.com"));
    let (head, _) = request.head_bytes(server.addr);
    let head = String::from_utf8(head).unwrap();
    let mut wire = server.connect().await;
    let doubled = head.replacen("\r\n", "\r\nHost: docs.s3.example.com\r\n", 1);
    wire.write(doubled.as_bytes()).await;
    assert_eq!(
        wire.response(false).await.verdict(),
        (400, "InvalidRequest".into())
    );
}

/// A request that proves its sender by its URL alone.
fn plain(method: Method, url: &str, host: &str) -> Request {
    Request::new(method, url)
        .auth(Auth::None)
        .header("host", host)
}

#[tokio::test]
async fn a_presigned_url_of_a_host_permits_its_key_in_its_bucket_and_nothing_else() {
    let server = server().await;
    for host in [
        format!("{BUCKET}.s3.example.com"),
        format!("{BUCKET}.s3.example.com:8443"),
        format!("{}.S3.example.COM", BUCKET.to_uppercase()),
    ] {
        let endpoint = format!("https://{host}");
        // Pages and buckets of other addresses are keys here, presigned or not.
        for key in [
            "a/b",
            "a%2Fb%20c+d",
            "health",
            "metrics",
            "admin/status",
            "docs/k",
        ] {
            let target = format!("/{key}");
            let put = Request::put(&target).header("x-amz-meta-of", "a-url");
            let put = put.presigned_at(&endpoint, HOUR);
            let send = plain(Method::PUT, &put, &host).body(key.as_bytes());
            let unsigned = server.send(send.clone()).await;
            assert_eq!(unsigned.verdict(), (403, "SignatureDoesNotMatch".into()));
            server
                .send(send.header("x-amz-meta-of", "a-url"))
                .await
                .expect(200);
            let get = format!("{target}?response-content-type=text%2Fa");
            let get = Request::get(&get).presigned_at(&endpoint, HOUR);
            let got = server
                .send(plain(Method::GET, &get, &host))
                .await
                .expect(200);
            assert_eq!(got.text(), key);
            assert_eq!(got.header("content-type"), "text/a");
            assert_eq!(got.header("x-amz-meta-of"), "a-url");
            // The same by its path.
            let by_path = Request::get(&format!("/{BUCKET}/{key}"));
            assert_eq!(server.send(by_path).await.expect(200).text(), key);
        }
        let list = Request::get("/?list-type=2&prefix=a%2F").presigned_at(&endpoint, HOUR);
        let list = server
            .send(plain(Method::GET, &list, &host))
            .await
            .expect(200);
        assert_eq!(list.elements("Key"), ["a/b", "a/b c+d"]);

        let get = Request::get("/a/b").presigned_at(&endpoint, HOUR);
        let in_path = get.replacen("/a/b?", &format!("/{BUCKET}/a/b?"), 1);
        let other_key = get.replacen("/a/b?", "/a/c?", 1);
        let other_bucket = host.to_lowercase().replacen(BUCKET, OTHER_BUCKET, 1);
        for (method, url, host) in [
            (Method::HEAD, &get, host.as_str()),
            (Method::DELETE, &get, &host),
            (Method::GET, &other_key, &host),
            (Method::GET, &in_path, &host),
            // The host names the bucket, so it is what the signature is for.
            (Method::GET, &get, &other_bucket),
            (Method::GET, &in_path, "s3.example.com"),
            (Method::GET, &in_path, &server.addr.to_string()),
        ] {
            let mut wire = server.connect().await;
            let is_head = method == Method::HEAD;
            let request = plain(method, url, host);
            wire.write(&request.bytes(server.addr)).await;
            let refused = wire.response(is_head).await;
            assert_eq!(refused.status, 403, "{url} at {host}");
            let code = refused.element("Code");
            assert!(
                is_head || code == "SignatureDoesNotMatch",
                "{code}: {url} at {host}"
            );
        }
    }
    // A URL for the path does not do for the host either.
    let by_path = Request::get(&path("a/b")).presigned_at("https://s3.example.com", HOUR);
    let found = plain(Method::GET, &by_path, "s3.example.com");
    server.send(found).await.expect(200);
    let at_host = by_path.replacen(&path("a/b"), "/a/b", 1);
    let host = format!("{BUCKET}.s3.example.com");
    for url in [by_path, at_host] {
        let refused = server.send(plain(Method::GET, &url, &host)).await;
        assert_eq!(
            refused.verdict(),
            (403, "SignatureDoesNotMatch".into()),
            "{url}"
        );
    }
}

#[tokio::test]
async fn parts_are_uploaded_by_presigned_urls_of_a_host() {
    let server = server().await;
    let host = format!("{BUCKET}.s3.example.com");
    let endpoint = format!("https://{host}");
    let by_url = async |request: Request| {
        let (method, body) = (request.method.clone(), request.body.clone());
        let url = request.presigned_at(&endpoint, HOUR);
        server
            .send(plain(method, &url, &host).body(&body))
            .await
            .expect(200)
    };
    let upload = by_url(Request::post("/m?uploads"))
        .await
        .element("UploadId");
    let part = Request::put(&format!("/m?partNumber=1&uploadId={upload}")).body(b"part");
    let part = by_url(part).await;
    let list = format!(
        "<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>{}</ETag></Part>\
         </CompleteMultipartUpload>",
        part.header("etag")
    );
    let done = Request::post(&format!("/m?uploadId={upload}")).body(list.as_bytes());
    let done = by_url(done).await;
    assert_eq!(done.element("Location"), format!("http://{host}/m"));
    assert_eq!(server.get("m").await.expect(200).text(), "part");
}

#[tokio::test]
async fn a_form_is_posted_to_the_root_of_its_host() {
    let server = server().await;
    let host = format!("{BUCKET}.s3.example.com:8443");
    let form = |target: &str, host: &str, fields: &[(&str, &str)]| {
        let mut form = signed_by(KEY, SECRET, "up/${filename}", fields);
        form.path = target.to_owned();
        form.header("host", host)
    };
    let told = [("success_action_status", "201")];
    let https = form("/", &host, &told).header("x-forwarded-proto", "https");
    let answer = server.send(https).await.expect(201);
    let place = format!("https://{host}/up/cat.txt");
    assert_eq!(answer.header("location"), place);
    assert_eq!(answer.element("Location"), place);
    assert_eq!(answer.element("Bucket"), BUCKET);
    assert_eq!(answer.element("Key"), "up/cat.txt");
    let got = server.send(plain(Method::GET, "/up/cat.txt", &host)).await;
    assert_eq!(got.verdict(), (403, "AccessDenied".into()));
    assert_eq!(server.get("up/cat.txt").await.expect(200).text(), "hello");
    server
        .send(Request::delete(&path("up/cat.txt")))
        .await
        .expect(204);
    // The same form in the path, as everybody may still send it.
    let by_path = form(&format!("/{BUCKET}"), "s3.example.com", &[]);
    server.send(by_path).await.expect(204);
    server
        .send(Request::delete(&path("up/cat.txt")))
        .await
        .expect(204);

    let docs = format!("{OTHER_BUCKET}.s3.example.com");
    for (target, host, status, code) in [
        // Its policy is for another bucket.
        ("/", docs.as_str(), 403, "AccessDenied"),
        ("/", "absent.s3.example.com", 404, "NoSuchBucket"),
        // The path is a key here, and no form is posted to a key.
        ("/photos", &host, 405, "MethodNotAllowed"),
        ("/up/cat.txt", &host, 405, "MethodNotAllowed"),
        // No host names a bucket here, and no path does.
        ("/", "s3.example.com", 405, "MethodNotAllowed"),
    ] {
        let refused = server.send(form(target, host, &[])).await;
        let verdict = (status, code.to_owned());
        assert_eq!(refused.verdict(), verdict, "{target} at {host}");
    }
    let list = server
        .send(Request::get(&format!("/{BUCKET}")))
        .await
        .expect(200);
    assert!(list.elements("Key").is_empty(), "{}", list.text());
    let back = [("success_action_redirect", "https://example.com/done")];
    let answer = server.send(form("/", &host, &back)).await.expect(303);
    let place = answer.header("location");
    let expected = format!("https://example.com/done?bucket={BUCKET}&key=up%2Fcat.txt&etag=%22");
    assert!(place.starts_with(&expected), "{place}");
}
