//! Probes that servers are known to answer differently: paths and queries as they were signed, framing
//! that is nearly right, `Expect`. Signatures are made by hand here, from the wire form.

use base::{ChecksumAlgorithm, Clock as _, Hasher, SystemClock};
use ring::digest::{SHA256, digest};
use ring::hmac::{HMAC_SHA256, Key, sign};

use super::support::{Auth, BUCKET, KEY, Request, Response, SECRET, Server, TOKEN, noise, path};

const UNSIGNED: &str = "STREAMING-UNSIGNED-PAYLOAD-TRAILER";
const SIGNED: &str = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD";
const SIGNED_TRAILER: &str = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER";

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn sum(bytes: &[u8]) -> String {
    hex(digest(&SHA256, bytes).as_ref())
}

fn mac(key: &[u8], text: &str) -> Vec<u8> {
    sign(&Key::new(HMAC_SHA256, key), text.as_bytes())
        .as_ref()
        .to_vec()
}

/// A signature over exactly this canonical path and query, and what continues it over chunks.
struct Signed {
    date: String,
    scope: String,
    key: Vec<u8>,
    signature: String,
}

impl Signed {
    fn new(server: &Server, method: &str, path: &str, query: &str, payload: &str) -> Self {
        let date = s3wire::iso8601(SystemClock.now());
        let date: String = date.chars().filter(|c| !matches!(c, '-' | ':')).collect();
        let date = format!("{}Z", date.split('.').next().unwrap());
        let scope = format!("{}/us-east-1/s3/aws4_request", &date[..8]);
        let mut key = format!("AWS4{SECRET}").into_bytes();
        for part in scope.split('/') {
            key = mac(&key, part);
        }
        let names = "host;x-amz-content-sha256;x-amz-date";
        let canonical = format!(
            "{method}\n{path}\n{query}\nhost:{}\nx-amz-content-sha256:{payload}\nx-amz-date:{date}\n\n{names}\n{payload}",
            server.addr
        );
        let text = format!(
            "AWS4-HMAC-SHA256\n{date}\n{scope}\n{}",
            sum(canonical.as_bytes())
        );
        let signature = hex(&mac(&key, &text));
        Self {
            date,
            scope,
            key,
            signature,
        }
    }

    fn on(&self, request: Request, payload: &str) -> Request {
        let authorization = format!(
            "AWS4-HMAC-SHA256 Credential={KEY}/{}, SignedHeaders=host;x-amz-content-sha256;x-amz-date, Signature={}",
            self.scope, self.signature
        );
        request
            .auth(Auth::None)
            .header("x-amz-date", &self.date)
            .header("x-amz-content-sha256", payload)
            .header("authorization", &authorization)
    }

    /// The next signature of the chain.
    fn next(&mut self, kind: &str, sums: &str) -> String {
        let text = format!(
            "AWS4-HMAC-SHA256-{kind}\n{}\n{}\n{}\n{sums}",
            self.date, self.scope, self.signature
        );
        self.signature = hex(&mac(&self.key, &text));
        self.signature.clone()
    }

    fn chunk(&mut self, data: &[u8]) -> String {
        let sums = format!("{}\n{}", sum(b""), sum(data));
        self.next("PAYLOAD", &sums)
    }
}

#[tokio::test]
async fn paths_count_as_they_were_signed() {
    let server = Server::start().await;
    server.put("a/b", b"slash").await.expect(200);
    server.put("a+b", b"plus").await.expect(200);
    server.put("Abc", b"letter").await.expect(200);
    server.put("x!*'()+y", b"raw").await.expect(200);
    let payload = sum(b"");
    // The canonical path is the wire's, encoded or raw, whatever the client sent.
    for (wire, canonical, body) in [
        ("a%2Fb", "a%2Fb", "slash"),
        ("a%2fb", "a%2fb", "slash"),
        ("a%2bb", "a%2bb", "plus"),
        ("%41bc", "%41bc", "letter"),
        ("x!*'()+y", "x!*'()+y", "raw"),
        ("x!*'()+y", "x%21%2A%27%28%29%2By", "raw"),
    ] {
        let (wire, canonical) = (
            format!("/{BUCKET}/{wire}"),
            format!("/{BUCKET}/{canonical}"),
        );
        let signed = Signed::new(&server, "GET", &canonical, "", &payload);
        let answer = server.send(signed.on(Request::get(&wire), &payload)).await;
        assert_eq!(
            (answer.status, answer.text().as_str()),
            (200, body),
            "{wire} as {canonical}"
        );
        let forged = Signed::new(&server, "GET", &format!("{canonical}x"), "", &payload);
        let answer = server.send(forged.on(Request::get(&wire), &payload)).await;
        assert_eq!(answer.verdict(), (403, "SignatureDoesNotMatch".into()));
    }
}

#[tokio::test]
async fn queries_count_decoded_and_sorted() {
    let server = Server::start().await;
    let payload = sum(b"");
    let bucket = format!("/{BUCKET}");
    for (wire, canonical) in [
        ("prefix=%7Ea", "prefix=~a"),
        ("prefix=~a", "prefix=~a"),
        ("a=2&a=1", "a=1&a=2"),
        ("b=1&a=x%20y", "a=x%20y&b=1"),
        ("prefix=a/b", "prefix=a%2Fb"),
    ] {
        let signed = Signed::new(&server, "GET", &bucket, canonical, &payload);
        let request = Request::get(&format!("{bucket}?{wire}"));
        let answer = server.send(signed.on(request, &payload)).await;
        assert_eq!(
            answer.status,
            200,
            "{wire} as {canonical}: {}",
            answer.text()
        );
    }
}

/// Sends a framed body that the server ends by the connection's own length, whatever is in it.
async fn unsigned(server: &Server, decoded: usize, body: &str) -> Response {
    let put = Request::put(&path("k"))
        .auth(Auth::Token(TOKEN.to_owned()))
        .header("x-amz-content-sha256", UNSIGNED)
        .header("x-amz-trailer", "x-amz-checksum-crc32")
        .header("x-amz-decoded-content-length", &decoded.to_string())
        .body(body.as_bytes());
    server.send(put).await
}

fn crc32(data: &[u8]) -> String {
    let mut hasher = Hasher::new(ChecksumAlgorithm::Crc32);
    hasher.update(data);
    hasher.finish().to_base64()
}

#[tokio::test]
async fn framing_without_signatures_is_right_or_refused() {
    let server = Server::start().await;
    server.put("k", b"old").await.expect(200);
    let trailer = format!("x-amz-checksum-crc32:{}", crc32(b"hello"));
    let good = format!("5\r\nhello\r\n0\r\n{trailer}\r\n\r\n");
    let (framing, length) = ((400, "InvalidRequest"), (400, "IncompleteBody"));
    for (what, body, verdict) in [
        ("no last chunk", "5\r\nhello\r\n".to_owned(), framing),
        (
            "a last chunk that is cut",
            "5\r\nhello\r\n0\r".to_owned(),
            framing,
        ),
        ("no trailer", "5\r\nhello\r\n0\r\n\r\n".to_owned(), framing),
        ("no end at all", "5\r\nhello\r\n0\r\n".to_owned(), framing),
        (
            "no blank line",
            format!("5\r\nhello\r\n0\r\n{trailer}\r\n"),
            framing,
        ),
        ("another trailer", good.replace("crc32", "crc32c"), framing),
        (
            "a trailer of our own",
            good.replace("x-amz-checksum-crc32", "x-amz-meta-a"),
            framing,
        ),
        (
            "two trailers",
            good.replace("\r\n\r\n", &format!("\r\n{trailer}\r\n\r\n")),
            framing,
        ),
        (
            "a bare line feed",
            good.replacen("5\r\n", "5\n", 1),
            framing,
        ),
        (
            "no line end behind the data",
            good.replacen("hello\r\n", "hello", 1),
            framing,
        ),
        (
            "a bare line feed in the trailer",
            good.replacen("\r\n\r\n", "\n\n", 1),
            framing,
        ),
        (
            "letters for a size",
            good.replacen("5\r\n", "zz\r\n", 1),
            framing,
        ),
        ("no size", good.replacen("5\r\n", "\r\n", 1), framing),
        (
            "junk behind the size",
            good.replacen("5\r\n", "5qq\r\n", 1),
            framing,
        ),
        (
            "words behind the size",
            good.replacen("5\r\n", "5 junk\r\n", 1),
            framing,
        ),
        (
            "an extension",
            good.replacen("5\r\n", "5;a=b\r\n", 1),
            framing,
        ),
        ("a sign", good.replacen("5\r\n", "+5\r\n", 1), framing),
        (
            "a size of 80",
            good.replacen("5\r\n", "000000050\r\n", 1),
            length,
        ),
        (
            "seventeen digits",
            good.replacen("5\r\n", "00000000000000005\r\n", 1),
            framing,
        ),
        (
            "a line of 2000 bytes",
            good.replacen("5\r\n", &format!("{}5\r\n", "0".repeat(2000)), 1),
            framing,
        ),
        ("bytes behind the end", format!("{good}x"), framing),
        (
            "too few bytes",
            good.replacen("5\r\nhello", "4\r\nhell", 1),
            length,
        ),
        (
            "a checksum of something else",
            good.replacen("hello", "hullo", 1),
            (400, "BadDigest"),
        ),
    ] {
        let answer = unsigned(&server, 5, &body).await;
        assert_eq!(
            answer.verdict(),
            (verdict.0, verdict.1.to_owned()),
            "{what}"
        );
        assert_eq!(server.get("k").await.text(), "old", "{what}");
    }
    let more = unsigned(&server, 4, &good).await;
    assert_eq!(more.verdict(), (400, "IncompleteBody".into()));
    // Sizes may have leading zeros, and hold more than eight digits.
    let zeros = good.replacen("5\r\n", "0000000000000005\r\n", 1);
    unsigned(&server, 5, &zeros).await.expect(200);
    assert_eq!(server.get("k").await.text(), "hello");
    let unannounced = Request::put(&path("k"))
        .auth(Auth::Token(TOKEN.to_owned()))
        .header("x-amz-content-sha256", UNSIGNED)
        .header("x-amz-decoded-content-length", "5")
        .body(good.as_bytes());
    assert_eq!(
        server.send(unannounced).await.verdict(),
        (400, "InvalidRequest".into())
    );
}

/// A signed body in the making: the head's signature, then chunk by chunk.
fn begin(server: &Server, payload: &str) -> (Signed, Request) {
    let target = path("k");
    let signed = Signed::new(server, "PUT", &target, "", payload);
    let mut request = signed.on(Request::put(&target), payload);
    // Unsigned headers of this kind are refused, so the length travels as a signed one would.
    request
        .headers
        .insert("content-encoding", "aws-chunked".parse().unwrap());
    (signed, request)
}

/// Sends chunks over a request whose head signs the length and the trailer as well.
async fn signed(
    server: &Server,
    payload: &str,
    decoded: usize,
    body: impl Fn(&mut Signed) -> String,
) -> Response {
    let target = path("k");
    let trailer = payload == SIGNED_TRAILER;
    let mut signed = Signed::new(server, "PUT", &target, "", payload);
    let mut names = vec![
        "host",
        "x-amz-content-sha256",
        "x-amz-date",
        "x-amz-decoded-content-length",
    ];
    let length = decoded.to_string();
    let mut lines = format!(
        "host:{}\nx-amz-content-sha256:{payload}\nx-amz-date:{}\nx-amz-decoded-content-length:{length}\n",
        server.addr, signed.date
    );
    if trailer {
        names.push("x-amz-trailer");
        lines.push_str("x-amz-trailer:x-amz-checksum-crc32\n");
    }
    let names = names.join(";");
    let canonical = format!("PUT\n{target}\n\n{lines}\n{names}\n{payload}");
    let text = format!(
        "AWS4-HMAC-SHA256\n{}\n{}\n{}",
        signed.date,
        signed.scope,
        sum(canonical.as_bytes())
    );
    signed.signature = hex(&mac(&signed.key, &text));
    let authorization = format!(
        "AWS4-HMAC-SHA256 Credential={KEY}/{}, SignedHeaders={names}, Signature={}",
        signed.scope, signed.signature
    );
    let mut request = Request::put(&target)
        .auth(Auth::None)
        .header("x-amz-date", &signed.date)
        .header("x-amz-content-sha256", payload)
        .header("x-amz-decoded-content-length", &length)
        .header("authorization", &authorization);
    if trailer {
        request = request.header("x-amz-trailer", "x-amz-checksum-crc32");
    }
    let body = body(&mut signed);
    server.send(request.body(body.as_bytes())).await
}

#[tokio::test]
async fn signed_framing_is_right_or_refused() {
    let server = Server::start().await;
    server.put("k", b"old").await.expect(200);
    let data =
        |signed: &mut Signed| format!("5;chunk-signature={}\r\nhello\r\n", signed.chunk(b"hello"));
    let last = |signed: &mut Signed| format!("0;chunk-signature={}\r\n", signed.chunk(b""));
    let sums = sum(format!("x-amz-checksum-crc32:{}\n", crc32(b"hello")).as_bytes());
    let trailer = |signed: &mut Signed| {
        let signature = signed.next("TRAILER", &sums);
        format!(
            "x-amz-checksum-crc32:{}\r\nx-amz-trailer-signature:{signature}\r\n\r\n",
            crc32(b"hello")
        )
    };
    let framing = (400, "InvalidRequest");
    let forged = (403, "SignatureDoesNotMatch");
    type Body<'a> = Box<dyn Fn(&mut Signed) -> String + 'a>;
    let whole = |signed: &mut Signed| [data(signed), last(signed), trailer(signed)].concat();
    let table: Vec<(&str, &str, Body<'_>, (u16, &str))> = vec![
        ("no last chunk", SIGNED, Box::new(data), framing),
        (
            "a last chunk without its end",
            SIGNED,
            Box::new(|s| [data(s), last(s)].concat()),
            framing,
        ),
        (
            "no trailer",
            SIGNED_TRAILER,
            Box::new(|s| [data(s), last(s), "\r\n".into()].concat()),
            framing,
        ),
        (
            "no signature of the trailer",
            SIGNED_TRAILER,
            Box::new(|s| {
                let line = format!("x-amz-checksum-crc32:{}\r\n\r\n", crc32(b"hello"));
                [data(s), last(s), line].concat()
            }),
            framing,
        ),
        (
            "a wrong signature of the trailer",
            SIGNED_TRAILER,
            Box::new(|s| {
                let body = whole(s);
                let at = body.len() - 5;
                let other = if body.as_bytes()[at] == b'0' {
                    "1"
                } else {
                    "0"
                };
                format!("{}{other}{}", &body[..at], &body[at + 1..])
            }),
            forged,
        ),
        (
            "a changed byte",
            SIGNED_TRAILER,
            Box::new(|s| whole(s).replace("hello", "hallo")),
            forged,
        ),
        (
            "no signature of a chunk",
            SIGNED,
            Box::new(|s| format!("5\r\nhello\r\n{}\r\n", last(s))),
            framing,
        ),
        (
            "a chunk that is too large",
            SIGNED,
            Box::new(|s| format!("{:x};chunk-signature={}\r\n", 17 << 20, s.chunk(b""))),
            framing,
        ),
        (
            "chunks in another order",
            SIGNED,
            Box::new(|s| {
                let (one, two) = (s.chunk(b"he"), s.chunk(b"llo"));
                format!(
                    "3;chunk-signature={two}\r\nllo\r\n2;chunk-signature={one}\r\nhe\r\n{}\r\n",
                    last(s)
                )
            }),
            forged,
        ),
    ];
    for (what, payload, body, verdict) in table {
        let answer = signed(&server, payload, 5, body).await;
        assert_eq!(
            answer.verdict(),
            (verdict.0, verdict.1.to_owned()),
            "{what}"
        );
        assert_eq!(server.get("k").await.text(), "old", "{what}");
    }
    signed(&server, SIGNED_TRAILER, 5, whole).await.expect(200);
    signed(&server, SIGNED, 5, |s| {
        [data(s), last(s), "\r\n".into()].concat()
    })
    .await
    .expect(200);
    assert_eq!(server.get("k").await.text(), "hello");
    let page = server
        .send(Request::get("/metrics").auth(Auth::None))
        .await
        .text();
    for reason in [
        "chunk_signature_mismatch",
        "trailer_signature_mismatch",
        "chunk_malformed",
        "chunk_too_large",
        "trailer_malformed",
    ] {
        let line = format!("s3o_auth_streaming_rejections_total{{reason=\"{reason}\"}}");
        assert!(page.contains(&line), "{line}\n{page}");
    }
    // The head of such a body signs what says how it is framed.
    let (_, unsigned_length) = begin(&server, SIGNED);
    let request = unsigned_length.header("x-amz-decoded-content-length", "5");
    assert_eq!(
        server.send(request).await.verdict(),
        (403, "AccessDenied".into())
    );
}

#[tokio::test]
async fn a_body_with_another_sum_and_a_client_that_leaves_are_their_own_fault() {
    let server = Server::start().await;
    server.put("k", b"old").await.expect(200);
    let payload = sum(b"other");
    let signed = Signed::new(&server, "PUT", &path("k"), "", &payload);
    let answer = server
        .send(signed.on(Request::put(&path("k")).body(b"hello"), &payload))
        .await;
    assert_eq!(answer.verdict(), (400, "XAmzContentSHA256Mismatch".into()));
    let mut wire = server.connect().await;
    let put = Request::put(&path("k"))
        .header("content-length", "100")
        .body(&noise(50));
    wire.write(&put.bytes(server.addr)).await;
    wire.finish().await;
    let answer = wire.response(false).await;
    assert_eq!(answer.verdict(), (400, "IncompleteBody".into()));
    assert_eq!(server.get("k").await.text(), "old");
}
