//! `/health`, `/health/ready`, the metrics, admission.

use std::net::SocketAddr;

use http::Method;
use orchestrator::telemetry::metrics::{MetricKind, Spec, TABLE};
use s3wire::sigv4::{PayloadMode, StreamingVariant};
use tokio::net::TcpStream;

use super::support::{Auth, Options, Request, Server, Wire, noise, path};

/// Metrics that the everyday does not move, and the test that moves each, or why there is none.
const NOT_EVERYDAY: [(&str, &str); 10] = [
    (
        "usage_limit_rejections_total",
        "spent_limits_are_507_for_writes_429_for_reads_and_nothing_for_deletes",
    ),
    (
        "redis_operations_total",
        "without_redis_everything_goes_on_and_it_is_taken_up_again",
    ),
    (
        "redis_fallback_active",
        "without_redis_everything_goes_on_and_it_is_taken_up_again",
    ),
    (
        "recovery_active",
        "a_dump_in_the_place_of_a_running_database_loses_no_byte",
    ),
    (
        "admission_rejections_total",
        "a_request_too_many_is_told_to_slow_down",
    ),
    (
        "write_failover_total",
        "a_write_goes_to_another_backend_and_is_refused_when_there_is_none",
    ),
    ("cleanup_dlq_depth", "a_dead_letter_keeps_its_bytes"),
    (
        "pending_intents_depth",
        "shown while a write waits for its last byte: a moment",
    ),
    (
        "worker_consecutive_failures",
        "a worker of a program that is well does not fail",
    ),
    (
        "http_panic_recovered_total",
        "a_defect_is_answered_with_500_and_the_next_request_is_served",
    ),
];

fn page(target: &str) -> Request {
    Request::get(target).auth(Auth::None)
}

#[tokio::test]
async fn pages_need_no_credentials_and_know_two_methods() {
    let server = Server::start().await;
    let alive = server.send(page("/health")).await.expect(200);
    assert_eq!(alive.text(), "{\"status\":\"ok\"}");
    assert_eq!(alive.header("content-type"), "application/json");
    let ready = server.send(page("/health/ready")).await.expect(200);
    assert_eq!(ready.text(), "{\"status\":\"ready\"}");
    let head = Request::head("/health").auth(Auth::None);
    assert!(server.send(head).await.expect(200).body.is_empty());
    let post = Request::new(Method::DELETE, "/health").auth(Auth::None);
    server.send(post).await.expect(405);
}

#[tokio::test]
async fn requests_appear_in_the_metrics() {
    let server = Server::start().await;
    server.put("k", &noise(5000)).await.expect(200);
    server.get("k").await.expect(200);
    server.get("absent").await.expect(404);
    // A request counts after its last byte; the client may be a moment ahead of that.
    let last = "s3o_inflight_requests{method=\"GET\"} 0";
    let mut text = server.send(page("/metrics")).await.expect(200).text();
    while !text.lines().any(|found| found == last)
        || !text.contains("s3o_inflight_requests{method=\"PUT\"} 0\n")
    {
        tokio::task::yield_now().await;
        text = server.send(page("/metrics")).await.expect(200).text();
    }
    for line in [
        "s3o_requests_total{method=\"PUT\",status_code=\"200\"} 1",
        "s3o_requests_total{method=\"GET\",status_code=\"200\"} 1",
        "s3o_requests_total{method=\"GET\",status_code=\"404\"} 1",
        "s3o_audit_events_total{event=\"s3.PutObject\"} 1",
        "s3o_audit_events_total{event=\"s3.GetObject\"} 2",
        "s3o_request_size_bytes_sum{method=\"PUT\"} 5000.0",
        "s3o_quota_bytes_used{backend=\"disk\"} 5000",
        "s3o_backend_in_service{backend=\"disk\"} 1",
        "s3o_inflight_requests{method=\"PUT\"} 0",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}\n{text}");
    }
    assert!(text.ends_with("# EOF\n"));
}

/// Whether a metric shows anything but zero.
fn moved(page: &str, name: &str, kind: MetricKind) -> bool {
    let sample = match kind {
        MetricKind::Counter | MetricKind::Gauge => format!("s3o_{name}{{"),
        MetricKind::Histogram => format!("s3o_{name}_count{{"),
    };
    let value = |line: &str| line.rsplit_once(' ').map(|(_, value)| value.to_owned());
    page.lines()
        .filter(|line| line.starts_with(&sample))
        .filter_map(value)
        .any(|value| value.parse::<f64>().unwrap() != 0.0)
}

/// Looks at the page, and takes from the list what has moved by now.
async fn watch(server: &Server, still: &mut Vec<&'static Spec>) -> String {
    let page = server.send(page("/metrics")).await.expect(200).text();
    still.retain(|spec| !moved(&page, spec.name, spec.kind));
    page
}

#[tokio::test]
async fn every_metric_is_moved_by_what_it_counts() {
    let everyday = |spec: &&Spec| !NOT_EVERYDAY.iter().any(|(name, _)| *name == spec.name);
    let mut still: Vec<_> = TABLE.iter().filter(everyday).collect();
    let server = Server::with(Options {
        backend: "    quota_bytes: 1MiB",
        ..Options::default()
    })
    .await;
    server.put("k", &noise(5000)).await.expect(200);
    server.put("k", &noise(5001)).await.expect(200);
    server.get("k").await.expect(200);
    let deleted = Request::delete(&path("k"));
    server.send(deleted).await.expect(204);
    server.put("stays", b"x").await.expect(200);
    // For want of room, bytes that wait for readers go at once: who looks later finds none.
    watch(&server, &mut still).await;
    let mut large = server.connect().await;
    let (head, _) = Request::put(&path("large"))
        .header("expect", "100-continue")
        .body(&noise(2 << 20))
        .head_bytes(server.addr);
    large.write(&head).await;
    large.response(false).await.expect(507);
    let chunked = |body: &[u8]| {
        let payload = PayloadMode::Streaming(StreamingVariant::UnsignedTrailer);
        Request::put(&path("chunks"))
            .payload(payload)
            .header("content-encoding", "aws-chunked")
            .header("x-amz-decoded-content-length", "1")
            .header("x-amz-trailer", "x-amz-checksum-crc32")
            .body(body)
    };
    let whole = b"1\r\nx\r\n0\r\nx-amz-checksum-crc32:jNwWgw==\r\n\r\n";
    server.send(chunked(whole)).await.expect(200);
    server.send(chunked(b"nonsense")).await.expect(400);
    // One upload ends, and is cleaned up at once; one keeps what its part has reserved.
    for (key, stays) in [("gone", false), ("open", true)] {
        let create = Request::post(&format!("{}?uploads", path(key)));
        let upload = server.send(create).await.expect(200).element("UploadId");
        let part = format!("{}?partNumber=1&uploadId={upload}", path(key));
        server
            .send(Request::put(&part).body(b"x"))
            .await
            .expect(200);
        if !stays {
            let abort = format!("{}?uploadId={upload}", path(key));
            server.send(Request::delete(&abort)).await.expect(204);
        }
    }
    // One request is under way while the page is asked for.
    let mut waiting = server.connect().await;
    let (head, _) = Request::put(&path("k"))
        .header("expect", "100-continue")
        .body(b"hello")
        .head_bytes(server.addr);
    waiting.write(&head).await;
    assert_eq!(waiting.head().await.unwrap().0, 100);
    let lines = [
        "s3o_cleanup_queue_enqueued_total{reason=\"overwrite_displaced\"} 1",
        "s3o_cleanup_queue_enqueued_total{reason=\"object_deleted\"} 1",
        "s3o_cleanup_queue_enqueued_total{reason=\"abort_part_cleanup\"} 1",
        "s3o_audit_events_total{event=\"storage.overwrite_displaced\"} 1",
    ];
    // Workers begin, and clean up, in their own time.
    let mut passes = 0;
    loop {
        let page = watch(&server, &mut still).await;
        let told = |line: &&str| page.lines().any(|found| found == *line);
        if still.is_empty() && lines.iter().all(told) {
            break;
        }
        passes += 1;
        assert!(passes < 20_000, "nothing moves {still:?}\n{page}");
        tokio::task::yield_now().await;
    }
    for (name, _) in NOT_EVERYDAY {
        assert!(TABLE.iter().any(|spec| spec.name == name), "{name}");
    }
}

#[tokio::test]
async fn the_metrics_may_have_a_listener_of_their_own() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = super::support::configure(dir.path(), &Options::default());
    config.metrics.as_mut().unwrap().listen = Some("127.0.0.1:0".parse().unwrap());
    let mut server = Server::of(config, dir).await;
    let addr: SocketAddr = server.app().pages_addr().unwrap();
    let mut wire = Wire::new(TcpStream::connect(addr).await.unwrap());
    wire.write(&page("/metrics").bytes(addr)).await;
    assert!(
        wire.response(false)
            .await
            .expect(200)
            .text()
            .contains("s3o_build_info")
    );
    wire.write(&page("/photos/k").bytes(addr)).await;
    wire.response(false).await.expect(404);
    // On the S3 listener the path is a bucket's now.
    server.send(page("/metrics")).await.expect(403);
}

#[tokio::test]
async fn a_request_too_many_is_told_to_slow_down() {
    let server = Server::with(Options {
        server: "  max_concurrent_requests: 1",
        ..Options::default()
    })
    .await;
    // The first request is let in and waits for its body.
    let mut first = server.connect().await;
    let (head, _) = Request::put(&path("k"))
        .header("expect", "100-continue")
        .body(b"hello")
        .head_bytes(server.addr);
    first.write(&head).await;
    assert_eq!(first.head().await.unwrap().0, 100);
    let refused = server.get("k").await;
    assert_eq!(refused.verdict(), (503, "SlowDown".into()));
    assert_eq!(refused.header("retry-after"), "1");
    // Who proves nothing takes no place and learns nothing of the load.
    server.send(page(&path("k"))).await.expect(403);
    first.write(b"hello").await;
    first.response(false).await.expect(200);
    let text = server.send(page("/metrics")).await.text();
    assert!(
        text.contains("s3o_admission_rejections_total{} 1"),
        "{text}"
    );
    assert!(text.contains("event=\"s3.AdmissionRejected\"} 1"), "{text}");
}

#[tokio::test]
async fn a_place_is_free_again_when_the_answer_has_left() {
    let server = Server::with(Options {
        server: "  max_concurrent_requests: 1",
        ..Options::default()
    })
    .await;
    let body = noise(32 << 20);
    server.put("k", &body).await.expect(200);
    // The answer is larger than all buffers on the way, and nobody reads it.
    // The place of the request before is given back after its last byte, too.
    let mut slow = loop {
        let mut slow = server.connect().await;
        slow.write(&Request::get(&path("k")).bytes(server.addr))
            .await;
        match slow.head().await.unwrap().0 {
            503 => tokio::task::yield_now().await,
            status => {
                assert_eq!(status, 200);
                break slow;
            }
        }
    };
    assert_eq!(server.get("k").await.verdict(), (503, "SlowDown".into()));
    let read = slow.exactly(body.len()).await;
    assert!(read == body);
    // The place is given back after the last byte; the client may be a moment ahead of that.
    while server.get("absent").await.status == 503 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_page_is_asked_for_with_one_host_but_by_checkers_of_http_1_0() {
    let server = Server::start().await;
    for target in [
        "/health",
        "/health/ready",
        "/metrics",
        "/admin/api/status",
        "/photos/k",
    ] {
        for (version, hosts, refused) in [
            ("1.1", "", true),
            ("1.1", "host: a\r\nhost: b\r\n", true),
            ("1.0", "host: a\r\nhost: b\r\n", true),
            ("1.1", "host: a\r\n", false),
            ("1.0", "", false),
        ] {
            let mut wire = server.connect().await;
            let head = format!("GET {target} HTTP/{version}\r\n{hosts}\r\n");
            wire.write(head.as_bytes()).await;
            let answer = wire.response(false).await;
            let told = answer.status == 400 && answer.text().contains("one Host header");
            assert_eq!(told, refused, "{head}\n{}", answer.text());
            if target == "/health" && !refused {
                assert_eq!(answer.status, 200);
            }
        }
    }
}
