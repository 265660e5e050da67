//! A provider that does as it is told: one action per request, everything that arrived on record.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use backend::{BackendKey, S3Backend, S3Settings};
use base::{Clock, Crc64, ManualClock, Secret};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use parking_lot::Mutex;
use s3wire::chunked::{Decoder, Framing};
use s3wire::sigv4::{Claim, PayloadMode, RequestHead, SigningSecret, VerifiedRequest};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

pub(crate) const SECRET: &str = "wJalrXUtnFEMI/K7MDENG";
pub(crate) const NOW_MS: i64 = 1_790_000_000_000;

/// What the provider does with one request.
#[derive(Debug, Clone)]
pub(crate) enum Action {
    /// Reads the request whole, sends these bytes, and keeps the connection.
    Answer(String),
    /// Reads the request whole, sends these bytes, and closes the connection.
    AnswerAndClose(String),
    /// Sends these bytes as soon as the head is there, then reads until the connection ends.
    AnswerEarly(String),
    /// Reads until the connection ends, and never answers.
    Listen,
}

/// A request as it arrived.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) query: String,
    pub(crate) headers: HeaderMap,
    /// As many bytes as arrived, which may be fewer than were announced.
    pub(crate) body: Vec<u8>,
    /// Bytes of the body that arrived in the same read as the end of the head.
    pub(crate) body_with_head: usize,
}

pub(crate) struct Script {
    pub(crate) endpoint: String,
    seen: Arc<Mutex<Vec<Seen>>>,
    connections: Arc<AtomicUsize>,
    ended: Arc<AtomicUsize>,
    server: JoinHandle<()>,
}

impl Drop for Script {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// A complete answer without a document.
pub(crate) fn answer(status: &str, headers: &[(&str, &str)], body: &str) -> String {
    let mut text = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n", body.len());
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text + "\r\n" + body
}

pub(crate) fn refusal(status: &str, code: &str) -> String {
    let document = format!("<Error><Code>{code}</Code><Message>said so</Message></Error>");
    answer(status, &[("Content-Type", "application/xml")], &document)
}

pub(crate) fn ok() -> Action {
    Action::Answer(answer("200 OK", &[("ETag", "\"e\"")], ""))
}

impl Script {
    /// Serves one action after the other, over any number of connections; what comes after the last
    /// one is listened to.
    pub(crate) async fn play(actions: Vec<Action>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let actions = Arc::new(Mutex::new(actions.into_iter()));
        let record = Arc::clone(&seen);
        let connections = Arc::<AtomicUsize>::default();
        let ended = Arc::<AtomicUsize>::default();
        let (accepted, left) = (Arc::clone(&connections), Arc::clone(&ended));
        let server = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                accepted.fetch_add(1, Ordering::Relaxed);
                let left = Arc::clone(&left);
                let (actions, record) = (Arc::clone(&actions), Arc::clone(&record));
                tokio::spawn(async move {
                    let next = || actions.lock().next().unwrap_or(Action::Listen);
                    serve(stream, next, &record).await;
                    left.fetch_add(1, Ordering::Relaxed);
                });
            }
        });
        Self {
            endpoint,
            seen,
            connections,
            ended,
            server,
        }
    }

    /// Connections that were accepted.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// Waits until so many connections have ended, and everybody can have heard of it.
    pub(crate) async fn ended(&self, count: usize) {
        while self.ended.load(Ordering::Relaxed) < count {
            tokio::task::yield_now().await;
        }
        tokio::task::yield_now().await;
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().clone()
    }

    pub(crate) fn settings(&self) -> S3Settings {
        S3Settings::new(
            &self.endpoint,
            "bucket",
            "AKID",
            Secret::new(SECRET.to_owned()),
        )
    }

    pub(crate) fn backend(&self) -> S3Backend {
        backend(self.settings())
    }
}

pub(crate) fn backend(settings: S3Settings) -> S3Backend {
    let clock = Arc::new(ManualClock::at(NOW_MS));
    S3Backend::new("scripted".parse().unwrap(), settings, clock).unwrap()
}

pub(crate) fn key(key: &str) -> BackendKey {
    BackendKey::new(key).unwrap()
}

/// Serves one connection until it ends.
pub(crate) async fn serve(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    mut next: impl FnMut() -> Action,
    record: &Mutex<Vec<Seen>>,
) {
    let mut buffer = Vec::new();
    loop {
        let Some((head_end, mut seen)) = read_head(&mut stream, &mut buffer).await else {
            return;
        };
        let announced = seen.headers.get("content-length");
        let announced: usize =
            announced.map_or(0, |length| length.to_str().unwrap().parse().unwrap());
        let rest = buffer.split_off(head_end);
        buffer.clear();
        seen.body_with_head = rest.len();
        seen.body = rest;
        let action = next();
        let (text, whole) = match &action {
            Action::Answer(text) | Action::AnswerAndClose(text) => (Some(text.clone()), announced),
            Action::AnswerEarly(text) => {
                stream.write_all(text.as_bytes()).await.unwrap();
                (None, usize::MAX)
            }
            Action::Listen => (None, usize::MAX),
        };
        let place = {
            let mut record = record.lock();
            record.push(seen);
            record.len() - 1
        };
        loop {
            let arrived = record.lock()[place].body.len();
            if arrived >= whole {
                break;
            }
            let mut piece = vec![0; 64 << 10];
            match stream.read(&mut piece).await {
                Ok(0) | Err(_) => return,
                Ok(count) => record.lock()[place].body.extend_from_slice(&piece[..count]),
            }
        }
        if let Some(text) = text
            && stream.write_all(text.as_bytes()).await.is_err()
        {
            return;
        }
        if let Action::AnswerAndClose(_) = action {
            stream.shutdown().await.ok();
            return;
        }
    }
}

async fn read_head(
    stream: &mut (impl AsyncRead + Unpin),
    buffer: &mut Vec<u8>,
) -> Option<(usize, Seen)> {
    let end = loop {
        if let Some(at) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
            break at + 4;
        }
        let mut piece = vec![0; 256 << 10];
        let count = stream
            .read(&mut piece)
            .await
            .ok()
            .filter(|count| *count > 0)?;
        buffer.extend_from_slice(&piece[..count]);
    };
    let head = std::str::from_utf8(&buffer[..end]).unwrap();
    let mut lines = head.split("\r\n");
    let mut request = lines.next().unwrap().split(' ');
    let method = request.next().unwrap().parse().unwrap();
    let target = request.next().unwrap();
    assert_eq!(request.next(), Some("HTTP/1.1"));
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut headers = HeaderMap::new();
    for line in lines.take_while(|line| !line.is_empty()) {
        let (name, value) = line.split_once(": ").unwrap();
        headers.append(
            HeaderName::try_from(name).unwrap(),
            HeaderValue::from_bytes(value.as_bytes()).unwrap(),
        );
    }
    let seen = Seen {
        method,
        path: path.to_owned(),
        query: query.to_owned(),
        headers,
        body: Vec::new(),
        body_with_head: 0,
    };
    Some((end, seen))
}

impl Seen {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    /// Verifies the signature as our own front end would.
    pub(crate) fn verified(&self) -> VerifiedRequest {
        let head = RequestHead {
            method: &self.method,
            path: &self.path,
            query: &self.query,
            headers: &self.headers,
        };
        let claim = Claim::parse(head)
            .unwrap()
            .expect("every request is signed");
        assert_eq!(claim.access_key_id(), "AKID");
        let secret = SigningSecret::new(Secret::new(SECRET.to_owned()));
        claim
            .verify(&secret, ManualClock::at(NOW_MS).now())
            .unwrap()
    }

    /// The bytes of the object, after everything that covers them has been checked: length,
    /// framing, chunk signatures, checksum.
    pub(crate) fn payload(&self) -> Vec<u8> {
        let VerifiedRequest { payload, chain, .. } = self.verified();
        assert_eq!(
            self.header("content-length"),
            Some(self.body.len().to_string().as_str())
        );
        let claims = s3wire::headers::body_claims(&self.headers).unwrap();
        let (bytes, checksum) = match payload {
            PayloadMode::Unsigned => (self.body.clone(), claims.checksum),
            PayloadMode::Sha256(_) => {
                assert_eq!(payload, PayloadMode::of(&self.body));
                (self.body.clone(), claims.checksum)
            }
            PayloadMode::Streaming(variant) => {
                let framing = Framing::new(variant, Some(chain), &claims).unwrap();
                let mut decoder = Decoder::new(framing, claims.decoded_length.unwrap());
                let mut pieces = Vec::new();
                decoder.feed(self.body.clone().into(), &mut pieces).unwrap();
                (
                    pieces.concat(),
                    decoder.finish().unwrap().or(claims.checksum),
                )
            }
        };
        if let Some(checksum) = checksum {
            assert_eq!(Crc64::from_checksum(&checksum), Some(Crc64::of(&bytes)));
        }
        bytes
    }
}
