//! Bytes on the wire: what is asked for before it is sent, what is cut, what is framed.

use std::time::Duration;

use base::{ChecksumAlgorithm, Hasher};
use bytes::Bytes;
use orchestrator::front::heads::UNFINISHED_HEADS_BYTES_MAX;
use orchestrator::front::listener::HEAD_BYTES_MAX;
use s3wire::chunked::{Encoder, Framing};
use s3wire::headers::BodyClaims;
use s3wire::sigv4::{PayloadMode, StreamingVariant};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::support::{Auth, KEY, Options, Request, Response, Server, noise, path};

#[tokio::test]
async fn a_refused_request_is_not_asked_for_its_body() {
    let server = Server::with(Options {
        server: "  max_object_size: 1MiB",
        backend: "    quota_bytes: 100000",
        ..Options::default()
    })
    .await;
    let put = |length: usize| {
        Request::put(&path("k"))
            .header("expect", "100-continue")
            .header("content-length", &length.to_string())
            .payload(PayloadMode::Unsigned)
    };
    for (request, status) in [
        (put(10).key(KEY, "wrong"), 403),
        (put(10).auth(Auth::None), 403),
        (put(200_000), 507),
        (put(2 << 20), 400),
        (put(10).header("x-amz-acl", "public-read"), 501),
    ] {
        let mut wire = server.connect().await;
        wire.write(&request.head_bytes(server.addr).0).await;
        let (first, headers) = wire.head().await.unwrap();
        assert_eq!(first, status);
        assert_eq!(headers["connection"], "close");
    }
    let mut wire = server.connect().await;
    wire.write(&put(5).head_bytes(server.addr).0).await;
    assert_eq!(wire.head().await.unwrap().0, 100);
    wire.write(b"hello").await;
    assert_eq!(wire.response(false).await.expect(200).status, 200);
    assert_eq!(server.get("k").await.text(), "hello");
}

// hyper asks for a body when it is first polled, and an empty one never is. botocore then takes the
// next answer on the connection for the `100 Continue` that it still waits for.
#[tokio::test]
async fn after_an_empty_body_that_was_not_asked_for_the_connection_ends() {
    let server = Server::start().await;
    let put = Request::put(&path("k"))
        .header("expect", "100-continue")
        .header("content-length", "0")
        .payload(PayloadMode::Unsigned);
    let mut wire = server.connect().await;
    wire.write(&put.head_bytes(server.addr).0).await;
    let (status, headers) = wire.head().await.unwrap();
    assert_eq!(status, 200);
    assert_eq!(headers["connection"], "close");
}

#[tokio::test]
async fn a_client_that_sends_on_still_reads_why_it_was_refused() {
    let server = Server::start().await;
    let body = noise(8 << 20);
    let mut wire = server.connect().await;
    wire.write(
        &Request::put(&path("k"))
            .key(KEY, "wrong")
            .body(&body)
            .bytes(server.addr),
    )
    .await;
    let answer = wire.response(false).await;
    assert_eq!(answer.verdict(), (403, "SignatureDoesNotMatch".into()));
    assert_eq!(answer.header("connection"), "close");
    assert!(wire.rest().await.is_empty());
}

#[tokio::test]
async fn a_body_that_ends_early_changes_nothing() {
    let server = Server::start().await;
    server.put("k", b"old").await.expect(200);
    for length in [100, 300_000] {
        let body = noise(length);
        let (head, _) = Request::put(&path("k"))
            .body(&body)
            .payload(PayloadMode::Unsigned)
            .head_bytes(server.addr);
        let mut wire = server.connect().await;
        wire.write(&head).await;
        wire.write(&body[..length / 2]).await;
        wire.finish().await;
        // Half-closed or gone is the same to us: there may be an answer, but no success.
        let rest = String::from_utf8(wire.rest().await).unwrap();
        assert!(!rest.contains("200 OK"), "{rest}");
        assert_eq!(server.get("k").await.text(), "old");
    }
}

#[tokio::test]
async fn a_client_that_stalls_is_told_so_and_cut() {
    let server = Server::with(Options {
        server: "  read_timeout: 200ms\n  read_header_timeout: 200ms",
        ..Options::default()
    })
    .await;
    let (head, _) = Request::put(&path("k"))
        .header("content-length", "10")
        .payload(PayloadMode::Unsigned)
        .head_bytes(server.addr);
    let mut wire = server.connect().await;
    wire.write(&head).await;
    wire.write(b"12345").await;
    let answer = wire.response(false).await;
    assert_eq!(answer.verdict(), (400, "RequestTimeout".into()));
    assert_eq!(answer.header("connection"), "close");
    // A head that never ends is no request at all.
    let mut wire = server.connect().await;
    wire.write(b"GET / HTTP/1.1\r\nhost: a\r\n").await;
    assert!(wire.rest().await.is_empty());
}

#[tokio::test]
async fn a_head_that_drips_is_cut_when_its_time_is_up() {
    let server = Server::with(Options {
        server: "  read_header_timeout: 300ms",
        ..Options::default()
    })
    .await;
    let mut stream = TcpStream::connect(server.addr).await.unwrap();
    stream
        .write_all(b"GET /b/k HTTP/1.1\r\nhost: x\r\na: ")
        .await
        .unwrap();
    let mut answer = [0; 1024];
    for _ in 0..200 {
        match timeout(Duration::from_millis(50), stream.read(&mut answer)).await {
            Ok(_) => return,
            Err(_still_open) if stream.write_all(b"a").await.is_err() => return,
            Err(_still_open) => {}
        }
    }
    panic!("the connection is still open after thirty times what a head may take");
}

#[tokio::test]
async fn an_idle_connection_is_closed_and_a_busy_one_is_kept() {
    let server = Server::with(Options {
        server: "  idle_timeout: 300ms",
        ..Options::default()
    })
    .await;
    server.put("k", b"x").await.expect(200);
    let mut wire = server.connect().await;
    for _ in 0..3 {
        wire.write(&Request::get(&path("k")).bytes(server.addr))
            .await;
        assert_eq!(wire.response(false).await.expect(200).text(), "x");
    }
    assert!(wire.rest().await.is_empty());
}

/// A body in chunks, as a client would send it.
fn stream(variant: StreamingVariant, body: &[u8], server: &Server) -> (Vec<u8>, Vec<u8>) {
    let algorithm = ChecksumAlgorithm::Crc32;
    let has_trailer = variant != StreamingVariant::Signed;
    let claims = BodyClaims {
        trailer: has_trailer.then_some(algorithm),
        decoded_length: Some(body.len() as u64),
        ..BodyClaims::default()
    };
    let mut request = Request::put(&path("k"))
        .payload(PayloadMode::Streaming(variant))
        .header("content-encoding", "aws-chunked")
        .header("x-amz-decoded-content-length", &body.len().to_string());
    if has_trailer {
        request = request.header("x-amz-trailer", algorithm.header());
    }
    // The length of the framing does not depend on the signature, so any chain will do for it.
    let (_, chain) = request
        .clone()
        .header("content-length", "0")
        .head_bytes(server.addr);
    let framing = Framing::new(variant, chain, &claims).unwrap();
    let length = Encoder::encoded_length(&framing, body.len() as u64);
    let request = request.header("content-length", &length.to_string());
    let (head, chain) = request.head_bytes(server.addr);
    let framing = Framing::new(variant, chain, &claims).unwrap();
    let mut encoder = Encoder::new(framing, body.len() as u64);
    let mut pieces = Vec::new();
    encoder
        .push(Bytes::copy_from_slice(body), &mut pieces)
        .unwrap();
    let mut hasher = Hasher::new(algorithm);
    hasher.update(body);
    let sum = hasher.finish();
    encoder
        .finish(has_trailer.then_some(&sum), &mut pieces)
        .unwrap();
    let encoded = pieces.concat();
    assert_eq!(encoded.len() as u64, length);
    (head, encoded)
}

async fn send(server: &Server, head: &[u8], body: &[u8]) -> Response {
    let mut wire = server.connect().await;
    wire.write(head).await;
    wire.write(body).await;
    wire.response(false).await
}

#[tokio::test]
async fn all_three_kinds_of_chunks_are_taken_apart() {
    let server = Server::start().await;
    for variant in StreamingVariant::ALL {
        for length in [0, 1, 65_536, 200_000] {
            let body = noise(length);
            let (head, encoded) = stream(variant, &body, &server);
            send(&server, &head, &encoded).await.expect(200);
            let got = server.get("k").await.expect(200);
            assert!(got.body == body, "{variant:?} {length}");
            assert_eq!(got.header("content-encoding"), "");
            if variant != StreamingVariant::Signed {
                let asked = Request::head(&path("k")).header("x-amz-checksum-mode", "ENABLED");
                let head = server.send(asked).await.expect(200);
                assert!(!head.header("x-amz-checksum-crc32").is_empty());
            }
        }
    }
}

#[tokio::test]
async fn chunks_that_are_not_what_they_claim_are_refused_and_counted() {
    let server = Server::start().await;
    server.put("k", b"old").await.expect(200);
    let body = noise(100_000);
    for variant in StreamingVariant::ALL {
        let (head, encoded) = stream(variant, &body, &server);
        let flipped = {
            let mut changed = encoded.clone();
            changed[50_000] ^= 1;
            changed
        };
        let expected = match variant {
            StreamingVariant::UnsignedTrailer => (400, "BadDigest"),
            StreamingVariant::Signed | StreamingVariant::SignedTrailer => {
                (403, "SignatureDoesNotMatch")
            }
        };
        let answer = send(&server, &head, &flipped).await;
        assert_eq!(
            answer.verdict(),
            (expected.0, expected.1.to_owned()),
            "{variant:?}"
        );
        let mut broken = encoded;
        broken[0] = b'z';
        let answer = send(&server, &head, &broken).await;
        assert_eq!(
            answer.verdict(),
            (400, "InvalidRequest".into()),
            "{variant:?}"
        );
        assert_eq!(answer.header("connection"), "close");
    }
    assert_eq!(server.get("k").await.text(), "old");
    let page = server
        .send(Request::get("/metrics").auth(Auth::None))
        .await
        .text();
    for line in [
        "s3o_auth_streaming_requests_total{variant=\"signed\"} 2",
        "s3o_auth_streaming_rejections_total{reason=\"chunk_malformed\"} 3",
        "s3o_auth_streaming_rejections_total{reason=\"chunk_signature_mismatch\"} 2",
    ] {
        assert!(page.contains(line), "{line}\n{page}");
    }
}

#[tokio::test]
async fn a_length_that_the_chunks_do_not_have_is_refused() {
    let server = Server::start().await;
    let (head, encoded) = stream(StreamingVariant::UnsignedTrailer, b"12345", &server);
    let head = String::from_utf8(head).unwrap();
    // The header is signed, so a token takes the signature's place.
    let put = Request::put(&path("k"))
        .auth(Auth::Token(super::support::TOKEN.to_owned()))
        .header(
            "x-amz-content-sha256",
            StreamingVariant::UnsignedTrailer.sentinel(),
        )
        .header("x-amz-trailer", "x-amz-checksum-crc32")
        .header("x-amz-decoded-content-length", "6")
        .body(&encoded);
    assert!(head.contains("x-amz-decoded-content-length: 5"));
    let answer = server.send(put).await;
    assert_eq!(answer.verdict(), (400, "IncompleteBody".into()));
    let none = Request::put(&path("k"))
        .auth(Auth::Token(super::support::TOKEN.to_owned()))
        .header(
            "x-amz-content-sha256",
            StreamingVariant::UnsignedTrailer.sentinel(),
        )
        .header("x-amz-trailer", "x-amz-checksum-crc32")
        .body(&encoded);
    assert_eq!(
        server.send(none).await.verdict(),
        (411, "MissingContentLength".into())
    );
}

#[tokio::test]
async fn requests_in_a_row_share_a_connection() {
    let server = Server::start().await;
    let mut wire = server.connect().await;
    for round in 0..5 {
        let key = format!("k{round}");
        wire.write(
            &Request::put(&path(&key))
                .body(key.as_bytes())
                .bytes(server.addr),
        )
        .await;
        assert_eq!(wire.response(false).await.status, 200);
        wire.write(&Request::get(&path(&key)).bytes(server.addr))
            .await;
        assert_eq!(wire.response(false).await.text(), key);
    }
}

#[tokio::test]
async fn an_object_that_turns_out_short_is_cut_off_and_never_ended_cleanly() {
    let server = Server::start().await;
    let body = noise(3 << 20);
    server.put("k", &body).await.expect(200);
    truncate_all(&server.dir.path().join("disk"), 1 << 20);
    let mut wire = server.connect().await;
    wire.write(&Request::get(&path("k")).bytes(server.addr))
        .await;
    let (status, _) = wire.head().await.unwrap();
    if status == 200 {
        assert!(wire.rest().await.len() < body.len());
    } else {
        assert_eq!(status, 500);
    }
}

// What the HTTP library has read behind a request is part of the next head, although nothing was asked for.
#[tokio::test]
async fn a_head_that_begins_behind_a_request_has_no_more_time_and_room_than_another() {
    let server = Server::with(Options {
        server: "  read_header_timeout: 1500ms\n  idle_timeout: 1h",
        ..Options::default()
    })
    .await;
    let whole = "GET /health HTTP/1.1\r\nhost: h\r\n\r\n";
    let begun = format!(
        "GET /health HTTP/1.1\r\nhost: h\r\na: {}",
        "a".repeat(20_000)
    );
    let mut wire = server.connect().await;
    wire.write(format!("{whole}{begun}").as_bytes()).await;
    assert_eq!(wire.response(false).await.status, 200);
    assert!(wire.rest().await.is_empty(), "it was answered");
    // Blanks that mean nothing do not add up: each of these heads is longer than its parts.
    let blanks = " ".repeat(1000);
    let odd = format!("GET http://h/health HTTP/1.1\r\nhost:{blanks}h\r\n\r\n");
    let mut wire = server.connect().await;
    for _ in 0..2 * HEAD_BYTES_MAX / odd.len() {
        wire.write(odd.as_bytes()).await;
        assert_eq!(wire.response(false).await.status, 200);
    }
    // A body that was sent with its head is none of the next one: this connection idles.
    let mut wire = server.connect().await;
    let put = Request::put(&path("k")).body(&noise(10_000));
    wire.write(&put.bytes(server.addr)).await;
    assert_eq!(wire.response(false).await.status, 200);
    let (idle, get) = (Duration::from_secs(3), Request::get(&path("k")));
    assert!(timeout(idle, wire.head()).await.is_err(), "it was closed");
    wire.write(&get.bytes(server.addr)).await;
    assert_eq!(wire.response(false).await.status, 200);
}

#[tokio::test]
async fn a_head_that_ends_in_the_read_beyond_its_limit_is_too_large() {
    let server = Server::start().await;
    for padding in [HEAD_BYTES_MAX, HEAD_BYTES_MAX + (50 << 10)] {
        let large = Request::get(&path("k")).header("x-amz-meta-a", &"a".repeat(padding));
        let small = Request::get(&path("k")).bytes(server.addr);
        let large = large.bytes(server.addr);
        for bytes in [large.clone(), [small.clone(), large].concat()] {
            let mut wire = server.connect().await;
            wire.write(&bytes).await;
            let mut last = wire.response(false).await;
            if last.verdict() == (404, "NoSuchKey".into()) {
                last = wire.response(false).await;
            }
            assert_eq!(last.verdict(), (400, "RequestHeaderSectionTooLarge".into()));
        }
    }
}

/// Shortens every large file below a directory.
fn truncate_all(dir: &std::path::Path, length: u64) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            truncate_all(&entry.path(), length);
        } else if entry.metadata().unwrap().len() > length {
            let file = std::fs::OpenOptions::new()
                .write(true)
                .open(entry.path())
                .unwrap();
            file.set_len(length).unwrap();
        }
    }
}

#[tokio::test]
async fn a_client_that_takes_nothing_of_an_answer_is_cut() {
    let server = Server::with(Options {
        server: "  write_timeout: 300ms\n  backend_timeout: 200ms",
        ..Options::default()
    })
    .await;
    let body = noise(32 << 20);
    server.put("k", &body).await.expect(200);
    let mut slow = server.connect().await;
    slow.write(&Request::get(&path("k")).bytes(server.addr))
        .await;
    assert_eq!(slow.head().await.unwrap().0, 200);
    let ended = "s3o_requests_total{method=\"GET\",status_code=\"200\"} 1";
    let mut probe = server.connect().await;
    loop {
        probe
            .write(&Request::get("/metrics").auth(Auth::None).bytes(server.addr))
            .await;
        if probe.response(false).await.text().contains(ended) {
            break;
        }
        tokio::task::yield_now().await;
    }
    assert!(slow.rest().await.len() < body.len());
}

#[tokio::test]
async fn unfinished_heads_share_a_budget_and_the_oldest_goes_first() {
    const HEAD_BYTES: usize = 120 << 10;
    let server = Server::with(Options {
        server: "  read_timeout: 1h\n  read_header_timeout: 1h",
        ..Options::default()
    })
    .await;
    let begun = format!(
        "GET /health HTTP/1.1\r\nhost: h\r\na: {}",
        "a".repeat(HEAD_BYTES)
    );
    let fit = UNFINISHED_HEADS_BYTES_MAX / begun.len();
    let too_many = 20;
    let mut wires = Vec::new();
    for _ in 0..fit + too_many {
        let mut wire = server.connect().await;
        wire.write(begun.as_bytes()).await;
        wires.push(wire);
    }
    // Half of them: the order in which the server sees them is nearly that in which they were sent.
    for wire in &mut wires[..too_many / 2] {
        assert!(wire.rest().await.is_empty(), "it was answered");
    }
    server.put("k", b"x").await.expect(200);
    let mut last = wires.pop().unwrap();
    last.write(b"\r\n\r\n").await;
    assert_eq!(last.response(false).await.status, 200);
    // Heads that ended make room.
    drop(wires);
    let mut again = server.connect().await;
    again.write(begun.as_bytes()).await;
    again.write(b"\r\n\r\n").await;
    assert_eq!(again.response(false).await.status, 200);
}
