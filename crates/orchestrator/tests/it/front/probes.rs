//! Probes that servers are known to answer differently: paths and queries as they were signed, bodies
//! that are others than announced. Signatures are made by hand here, from the wire form; framing that
//! is nearly right is in `chunks`, `Expect` in `framing.rs`.

use base::{Clock as _, SystemClock};
use ring::digest::{SHA256, digest};
use ring::hmac::{HMAC_SHA256, Key, sign};

use super::support::{Auth, BUCKET, KEY, Request, SECRET, Server, noise, path};

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
pub(super) struct Signed {
    date: String,
    scope: String,
    key: Vec<u8>,
    signature: String,
    /// Behind the headers that every signature covers.
    headers: Vec<(&'static str, String)>,
    payload: String,
}

impl Signed {
    fn new(server: &Server, method: &str, path: &str, query: &str, payload: &str) -> Self {
        Self::with(server, method, (path, query), payload, Vec::new())
    }

    /// With further headers, in their canonical order.
    pub(super) fn with(
        server: &Server,
        method: &str,
        (path, query): (&str, &str),
        payload: &str,
        headers: Vec<(&'static str, String)>,
    ) -> Self {
        let date = s3wire::iso8601(SystemClock.now());
        let date: String = date.chars().filter(|c| !matches!(c, '-' | ':')).collect();
        let date = format!("{}Z", date.split('.').next().unwrap());
        let scope = format!("{}/us-east-1/s3/aws4_request", &date[..8]);
        let mut key = format!("AWS4{SECRET}").into_bytes();
        for part in scope.split('/') {
            key = mac(&key, part);
        }
        let mut signed = Self {
            date,
            scope,
            key,
            signature: String::new(),
            headers,
            payload: payload.to_owned(),
        };
        let lines: String = signed
            .all()
            .map(|(name, value)| format!("{name}:{value}\n"))
            .collect();
        let canonical = format!(
            "{method}\n{path}\n{query}\nhost:{}\n{lines}\n{}\n{payload}",
            server.addr,
            signed.names()
        );
        let text = format!(
            "AWS4-HMAC-SHA256\n{}\n{}\n{}",
            signed.date,
            signed.scope,
            sum(canonical.as_bytes())
        );
        signed.signature = hex(&mac(&signed.key, &text));
        signed
    }

    fn all(&self) -> impl Iterator<Item = (&str, &str)> {
        let own = [
            ("x-amz-content-sha256", self.payload.as_str()),
            ("x-amz-date", self.date.as_str()),
        ];
        let further = self.headers.iter();
        own.into_iter()
            .chain(further.map(|(name, value)| (*name, value.as_str())))
    }

    fn names(&self) -> String {
        let names: Vec<_> = self.all().map(|(name, _)| name).collect();
        format!("host;{}", names.join(";"))
    }

    pub(super) fn on(&self, request: Request) -> Request {
        let authorization = format!(
            "AWS4-HMAC-SHA256 Credential={KEY}/{}, SignedHeaders={}, Signature={}",
            self.scope,
            self.names(),
            self.signature
        );
        self.all()
            .fold(request.auth(Auth::None), |request, (name, value)| {
                request.header(name, value)
            })
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

    /// The signature of the next chunk.
    pub(super) fn chunk(&mut self, data: &[u8]) -> String {
        let sums = format!("{}\n{}", sum(b""), sum(data));
        self.next("PAYLOAD", &sums)
    }

    /// The signature of a trailer with these lines.
    pub(super) fn trailer(&mut self, lines: &str) -> String {
        self.next("TRAILER", &sum(lines.as_bytes()))
    }
}

#[tokio::test]
async fn paths_count_as_they_were_signed() {
    let server = Server::start().await;
    server.put("a/b", b"slash").await.expect(200);
    server.put("a+b", b"plus").await.expect(200);
    server.put("Abc", b"letter").await.expect(200);
    server.put("x!*'()+y", b"raw").await.expect(200);
    server.put("a/b+c", b"both").await.expect(200);
    let payload = sum(b"");
    // The canonical path is the wire's, encoded or raw, whatever the client sent.
    for (wire, canonical, body) in [
        ("a%2Fb", "a%2Fb", "slash"),
        ("a%2fb", "a%2fb", "slash"),
        ("a%2bb", "a%2bb", "plus"),
        ("%41bc", "%41bc", "letter"),
        ("x!*'()+y", "x!*'()+y", "raw"),
        ("x!*'()+y", "x%21%2A%27%28%29%2By", "raw"),
        ("a%2Fb+c", "a%2Fb+c", "both"),
        ("a%2Fb+c", "a%2Fb%2Bc", "both"),
    ] {
        let (wire, canonical) = (
            format!("/{BUCKET}/{wire}"),
            format!("/{BUCKET}/{canonical}"),
        );
        let signed = Signed::new(&server, "GET", &canonical, "", &payload);
        let answer = server.send(signed.on(Request::get(&wire))).await;
        assert_eq!(
            (answer.status, answer.text().as_str()),
            (200, body),
            "{wire} as {canonical}"
        );
        let forged = Signed::new(&server, "GET", &format!("{canonical}x"), "", &payload);
        let answer = server.send(forged.on(Request::get(&wire))).await;
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
        let answer = server.send(signed.on(request)).await;
        assert_eq!(
            answer.status,
            200,
            "{wire} as {canonical}: {}",
            answer.text()
        );
    }
}

#[tokio::test]
async fn a_body_with_another_sum_and_a_client_that_leaves_are_their_own_fault() {
    let server = Server::start().await;
    server.put("k", b"old").await.expect(200);
    let payload = sum(b"other");
    let signed = Signed::new(&server, "PUT", &path("k"), "", &payload);
    let answer = server
        .send(signed.on(Request::put(&path("k")).body(b"hello")))
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
