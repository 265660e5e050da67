//! Clients that stall, or drip: they hold nothing that others need, and not for long.

use std::time::Duration;

use s3wire::sigv4::PayloadMode;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::broken::Frail;
use super::support::{Options, Request, Server, Wire, noise, path};

/// As many transfers as there may be calls to the backend, and some more.
const STALLED: usize = 6;

/// More than the system buffers between a server and a client that reads nothing.
const LARGE: usize = 48 << 20;

fn declared(key: &str, length: usize) -> Request {
    Request::put(&path(key))
        .header("content-length", &length.to_string())
        .payload(PayloadMode::Unsigned)
}

#[tokio::test]
async fn stalled_clients_keep_no_backend_from_others() {
    let server = Frail::with_calls(Duration::from_secs(30), 2).await;
    let large = Request::put(&path("large")).body(&noise(LARGE));
    server.send(large).await.expect(200);
    let mut stalled = Vec::new();
    for number in 0..STALLED {
        // An upload that has begun and goes no further, and a download that nobody reads.
        let (head, _) = declared(&format!("stalled-{number}"), 8 << 20).head_bytes(server.addr);
        let mut writer = Wire::new(TcpStream::connect(server.addr).await.unwrap());
        writer.write(&head).await;
        writer.write(&noise(200 << 10)).await;
        let mut reader = server.wire(Request::get(&path("large"))).await;
        assert_eq!(reader.head().await.unwrap().0, 200);
        stalled.extend([writer, reader]);
    }
    let body = noise(300 << 10);
    let quick = Request::put(&path("quick")).body(&body);
    server.send(quick).await.expect(200);
    let read = server.send(Request::get(&path("quick"))).await;
    assert_eq!(read.expect(200).body, body);
    let health = server.send(Request::get("/health")).await;
    assert_eq!(health.expect(200).text(), "{\"status\":\"ok\"}");
}

#[tokio::test]
async fn an_upload_that_drips_ends_and_gives_its_reservation_back() {
    let server = Server::with(Options {
        server: "  min_transfer_rate: 1MiB\n  min_transfer_grace: 8s",
        backend: "    quota_bytes: 3MiB",
        ..Options::default()
    })
    .await;
    let waiting = |key| declared(key, 2 << 20).header("expect", "100-continue");
    let mut wire = server.connect().await;
    wire.write(&waiting("drips").head_bytes(server.addr).0)
        .await;
    assert_eq!(wire.head().await.unwrap().0, 100);
    let mut other = server.connect().await;
    other
        .write(&waiting("waits").head_bytes(server.addr).0)
        .await;
    assert_eq!(other.head().await.unwrap().0, 507);
    let (status, headers) = loop {
        wire.write(b"x").await;
        if let Ok(head) = timeout(Duration::from_millis(20), wire.head()).await {
            break head.expect("an answer");
        }
    };
    let length = headers["content-length"].to_str().unwrap().parse().unwrap();
    let document = wire.exactly(length).await;
    assert_eq!(status, 400);
    assert!(String::from_utf8_lossy(&document).contains("<Code>RequestTimeout</Code>"));
    let mut other = server.connect().await;
    other
        .write(&waiting("waits").head_bytes(server.addr).0)
        .await;
    assert_eq!(other.head().await.unwrap().0, 100);
}

#[tokio::test]
async fn a_client_that_reads_too_little_is_cut() {
    let server = Server::with(Options {
        server: "  min_transfer_rate: 1GiB\n  min_transfer_grace: 400ms",
        ..Options::default()
    })
    .await;
    server.put("large", &noise(LARGE)).await.expect(200);
    let mut wire = server.connect().await;
    wire.write(&Request::get(&path("large")).bytes(server.addr))
        .await;
    assert_eq!(wire.head().await.unwrap().0, 200);
    // Nothing is read until the server has given up, which its metrics say.
    let reads = "s3o_inflight_requests{method=\"GET\"}";
    let is_cut = async {
        let cut = format!("{reads} 0");
        while !server
            .send(Request::get("/metrics"))
            .await
            .text()
            .contains(&cut)
        {
            tokio::task::yield_now().await;
        }
    };
    timeout(Duration::from_secs(60), is_cut)
        .await
        .expect("the answer is cut");
    let rest = wire.rest().await;
    assert!(rest.len() < LARGE, "{} bytes came", rest.len());
}
