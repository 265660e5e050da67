//! What current releases of clients send, request by request as it was seen on their wire; only the
//! signature is made anew.

use s3wire::sigv4::PayloadMode;

use super::support::{BUCKET, Request, Server, path};

/// The first upload of rclone 1.75.2 (`copyto f t:bucket/f`), seen 2026-12-01: it makes the bucket, which
/// is there.
#[tokio::test]
async fn the_first_upload_of_rclone_1_75_2_succeeds() {
    let server = Server::start().await;
    let sent = |request: Request| {
        request
            .header("user-agent", "rclone/v1.75.2")
            .header("accept-encoding", "identity")
            .header(
                "amz-sdk-invocation-id",
                "3170226b-3776-4971-8356-778102351975",
            )
            .header("amz-sdk-request", "attempt=1; max=10")
    };
    let look = || sent(Request::head(&path("f")));
    assert_eq!(server.send(look()).await.status, 404);
    let make = sent(Request::put(&format!("/{BUCKET}")));
    let make = make.header("x-amz-bucket-object-lock-enabled", "false");
    server.send(make).await.expect(200);
    let target = format!("{}?x-id=PutObject", path("f"));
    let put = sent(Request::put(&target))
        .payload(PayloadMode::Unsigned)
        .header("content-md5", "ndTkYSaMgDT1yFZOFVxnpg==")
        .header("content-type", "application/octet-stream")
        .header("x-amz-meta-mtime", "1796085912.309825784")
        .body(b"x");
    server.send(put).await.expect(200);
    let head = server.send(look()).await.expect(200);
    assert_eq!(head.header("x-amz-meta-mtime"), "1796085912.309825784");
    assert_eq!(head.header("etag"), "\"9dd4e461268c8034f5c8564e155c67a6\"");
}

/// `cp 's3://bucket/a b' s3://bucket/c` of s5cmd 2.3.0 (aws-sdk-go 1.44.298), seen 2026-12-01.
#[tokio::test]
async fn s5cmd_2_3_0_copies_a_key_with_a_blank() {
    let server = Server::start().await;
    server.put("a b", b"x").await.expect(200);
    let copy = Request::put(&path("c"))
        .header(
            "user-agent",
            "aws-sdk-go/1.44.298 (go1.22.10; linux; amd64)",
        )
        .header("x-amz-copy-source", &format!("{BUCKET}/a+b"))
        .header("x-amz-metadata-directive", "REPLACE")
        .header("accept-encoding", "gzip");
    server.send(copy).await.expect(200);
    assert_eq!(server.get("c").await.text(), "x");
}
