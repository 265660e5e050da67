//! Monthly usage limits as clients and dashboards see them.

use super::support::{Options, Request, Server, noise, path};

/// The value of a metric: of the line that begins so.
async fn metric(server: &Server, name: &str) -> Option<u64> {
    let page = server.send(Request::get("/metrics")).await.text();
    let line = page.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().parse().ok()
}

#[tokio::test]
async fn spent_limits_are_507_for_writes_429_for_reads_and_nothing_for_deletes() {
    let server = Server::with(Options {
        backend: "    egress_byte_limit: 250000\n    ingress_byte_limit: 150KiB",
        ..Options::default()
    })
    .await;
    let body = noise(100_000);
    server.put("k", &body).await.expect(200);
    // A write without room for it is told so before it sends its body.
    let request = Request::put(&path("l")).body(&body);
    let (head, _) = request
        .header("expect", "100-continue")
        .head_bytes(server.addr);
    let mut wire = server.connect().await;
    wire.write(&head).await;
    let refused = wire.response(false).await;
    assert_eq!(refused.verdict(), (507, "InsufficientStorage".into()));
    assert!(refused.element("Message").contains("usage limits"));
    for _ in 0..2 {
        assert!(server.get("k").await.expect(200).body == body);
    }
    let refused = server.get("k").await;
    assert_eq!(refused.verdict(), (429, "SlowDown".into()));
    assert_eq!(refused.header("retry-after"), "1");
    assert_eq!(refused.header("content-type"), "application/xml");
    let range = Request::get(&path("k")).header("range", "bytes=0-9");
    assert!(server.send(range).await.expect(206).body == body[..10]);
    // What reads and writes for the client is refused alike; what moves nothing is not.
    let part = Request::put(&path("copy")).header("x-amz-copy-source", "/photos/k");
    let sum = part.header("x-amz-checksum-algorithm", "SHA256");
    assert_eq!(server.send(sum).await.verdict(), (429, "SlowDown".into()));
    server.send(Request::head(&path("k"))).await.expect(200);
    server.send(Request::delete(&path("k"))).await.expect(204);

    let disk = |name: &str| format!("s3o_usage_{name}{{backend=\"disk\"}}");
    // Also the marker of the first start, which is read back.
    let egress = metric(&server, &disk("egress_bytes")).await.unwrap();
    assert!((200_010..201_000).contains(&egress), "{egress}");
    let ingress = metric(&server, &disk("ingress_bytes")).await.unwrap();
    assert!((100_000..102_000).contains(&ingress), "{ingress}");
    assert!(metric(&server, &disk("api_requests")).await.unwrap() >= 7);
    let refusals = |operation: &str, kind: &str| {
        format!(
            "s3o_usage_limit_rejections_total{{operation=\"{operation}\",limit_type=\"{kind}\"}}"
        )
    };
    for (operation, kind) in [
        ("PutObject", "write"),
        ("GetObject", "read"),
        ("CopyObject", "read"),
    ] {
        let counted = metric(&server, &refusals(operation, kind)).await;
        assert_eq!(counted, Some(1), "{operation}");
    }
}
