//! Buckets that are named by the host, end to end.

use super::support::{BUCKET, Options, Request, Server, path};

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
    let presigned = Request::get("/health").header("host", &host);
    assert_eq!(server.send(presigned).await.status, 200);
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
