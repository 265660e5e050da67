//! A running program in a temporary directory, and a small HTTP client that hides nothing.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use base::{Clock as _, Secret, SystemClock};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use orchestrator::app::{App, AppParts};
use orchestrator::config::{self, Config, NoEnvironment};
use s3wire::sigv4::{Chain, PayloadMode, PresignRequest, SignRequest, Signer};
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// The bucket that most tests use, and its key pair.
pub(super) const BUCKET: &str = "photos";
pub(super) const KEY: &str = "PHOTOSKEY";
pub(super) const SECRET: &str = "photos-secret";
/// The token of the same bucket.
pub(super) const TOKEN: &str = "photos-token";
/// Another bucket with another key pair.
pub(super) const OTHER_BUCKET: &str = "docs";
pub(super) const OTHER_KEY: &str = "DOCSKEY";
pub(super) const OTHER_SECRET: &str = "docs-secret";

/// The program, running.
pub(super) struct Server {
    app: App,
    pub(super) addr: SocketAddr,
    pub(super) dir: TempDir,
}

/// What differs from the plain configuration.
#[derive(Default)]
pub(super) struct Options<'a> {
    /// Further lines below `server:`.
    pub(super) server: &'a str,
    /// Further lines below the first backend.
    pub(super) backend: &'a str,
    /// Further lines below the first bucket.
    pub(super) bucket: &'a str,
    /// Further sections.
    pub(super) rest: &'a str,
}

impl Server {
    pub(super) async fn start() -> Self {
        Self::with(Options::default()).await
    }

    pub(super) async fn with(options: Options<'_>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = configure(dir.path(), &options);
        Self::of(config, dir).await
    }

    pub(super) async fn of(config: Config, dir: TempDir) -> Self {
        Self::launch(config, None, dir).await
    }

    /// With a configuration that can be read again.
    pub(super) async fn of_file(dir: TempDir, file: PathBuf) -> Self {
        let config = config::load(&file, &NoEnvironment).unwrap().config;
        Self::launch(config, Some(file), dir).await
    }

    async fn launch(config: Config, config_file: Option<PathBuf>, dir: TempDir) -> Self {
        let app = App::start(AppParts {
            config,
            config_file,
            clock: Arc::new(SystemClock),
            listener: None,
            log: None,
            role: engine::Role::All,
        });
        let app = app.await.unwrap();
        let addr = app.s3_addr();
        Self { app, addr, dir }
    }

    pub(super) fn app(&mut self) -> &mut App {
        &mut self.app
    }

    pub(super) fn into_app(self) -> (App, TempDir) {
        (self.app, self.dir)
    }

    pub(super) async fn connect(&self) -> Wire<TcpStream> {
        Wire::new(TcpStream::connect(self.addr).await.unwrap())
    }

    /// Sends a request on a connection of its own.
    pub(super) async fn send(&self, request: Request) -> Response {
        let mut wire = self.connect().await;
        let is_head = request.method == Method::HEAD;
        wire.write(&request.bytes(self.addr)).await;
        wire.response(is_head).await
    }

    pub(super) async fn put(&self, key: &str, body: &[u8]) -> Response {
        self.send(Request::put(&path(key)).body(body)).await
    }

    pub(super) async fn get(&self, key: &str) -> Response {
        self.send(Request::get(&path(key))).await
    }
}

pub(super) fn configure(dir: &Path, options: &Options<'_>) -> Config {
    let text = config_text(dir, options);
    let loaded = config::parse(&text, Path::new("test.yaml"), &NoEnvironment);
    loaded
        .unwrap_or_else(|error| panic!("{error}\n{text}"))
        .config
}

pub(super) fn config_text(dir: &Path, options: &Options<'_>) -> String {
    format!(
        "server:
  listen_addr: 127.0.0.1:0
{}
buckets:
  - name: {BUCKET}
{}
    credentials:
      - access_key_id: {KEY}
        secret_access_key: {SECRET}
      - access_key_id: SECONDKEY
        secret_access_key: second-secret
      - token: {TOKEN}
  - name: {OTHER_BUCKET}
    credentials:
      - access_key_id: {OTHER_KEY}
        secret_access_key: {OTHER_SECRET}
database:
  path: {}
backends:
  - name: disk
    kind: local
    path: {}
{}
telemetry:
  metrics:
    enabled: true
{}
",
        options.server,
        options.bucket,
        dir.join("catalogue.db").display(),
        dir.join("disk").display(),
        options.backend,
        options.rest,
    )
}

/// The path of a key in the first bucket.
pub(super) fn path(key: &str) -> String {
    format!("/{BUCKET}/{}", s3wire::uri::encode_path(key))
}

/// How a request proves who sends it.
#[derive(Clone)]
pub(super) enum Auth {
    Key { id: String, secret: String },
    Token(String),
    None,
}

/// A request in the making.
#[derive(Clone)]
pub(super) struct Request {
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) query: String,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    pub(super) auth: Auth,
    pub(super) payload: Option<PayloadMode>,
}

impl Request {
    pub(super) fn new(method: Method, target: &str) -> Self {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        Self {
            method,
            path: path.to_owned(),
            query: query.to_owned(),
            headers: HeaderMap::new(),
            body: Bytes::new(),
            auth: Auth::Key {
                id: KEY.to_owned(),
                secret: SECRET.to_owned(),
            },
            payload: None,
        }
    }

    pub(super) fn get(target: &str) -> Self {
        Self::new(Method::GET, target)
    }

    pub(super) fn head(target: &str) -> Self {
        Self::new(Method::HEAD, target)
    }

    pub(super) fn put(target: &str) -> Self {
        Self::new(Method::PUT, target)
    }

    pub(super) fn post(target: &str) -> Self {
        Self::new(Method::POST, target)
    }

    pub(super) fn delete(target: &str) -> Self {
        Self::new(Method::DELETE, target)
    }

    pub(super) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.append(
            HeaderName::try_from(name).unwrap(),
            HeaderValue::from_bytes(value.as_bytes()).unwrap(),
        );
        self
    }

    pub(super) fn body(mut self, body: &[u8]) -> Self {
        self.body = Bytes::copy_from_slice(body);
        self
    }

    pub(super) fn auth(mut self, auth: Auth) -> Self {
        self.auth = auth;
        self
    }

    pub(super) fn key(self, id: &str, secret: &str) -> Self {
        self.auth(Auth::Key {
            id: id.to_owned(),
            secret: secret.to_owned(),
        })
    }

    pub(super) fn payload(mut self, payload: PayloadMode) -> Self {
        self.payload = Some(payload);
        self
    }

    /// The head as it goes over the wire, and what continues its signature.
    pub(super) fn head_bytes(mut self, addr: SocketAddr) -> (Vec<u8>, Option<Chain>) {
        let has_body = matches!(self.method, Method::PUT | Method::POST);
        if has_body
            && !self.headers.contains_key("content-length")
            && !self.headers.contains_key("transfer-encoding")
        {
            self.headers
                .insert("content-length", HeaderValue::from(self.body.len()));
        }
        // A test that wants no length at all says so.
        if self
            .headers
            .get("content-length")
            .is_some_and(|value| value == "none")
        {
            self.headers.remove("content-length");
        }
        self.headers
            .entry("host")
            .or_insert_with(|| HeaderValue::try_from(addr.to_string()).unwrap());
        let payload = self.payload.unwrap_or_else(|| PayloadMode::of(&self.body));
        let chain = match &self.auth {
            Auth::None => None,
            Auth::Token(token) => {
                self.headers
                    .insert("x-proxy-token", HeaderValue::from_str(token).unwrap());
                None
            }
            Auth::Key { id, secret } => {
                let request = SignRequest {
                    method: &self.method,
                    path: &self.path,
                    query: &self.query,
                    payload,
                    now: SystemClock.now(),
                };
                Some(signer(id, secret).sign(request, &mut self.headers))
            }
        };
        let target = match self.query.as_str() {
            "" => self.path.clone(),
            query => format!("{}?{query}", self.path),
        };
        let mut head = format!("{} {target} HTTP/1.1\r\n", self.method).into_bytes();
        for (name, value) in &self.headers {
            head.extend_from_slice(name.as_str().as_bytes());
            head.extend_from_slice(b": ");
            head.extend_from_slice(value.as_bytes());
            head.extend_from_slice(b"\r\n");
        }
        head.extend_from_slice(b"\r\n");
        (head, chain)
    }

    pub(super) fn bytes(self, addr: SocketAddr) -> Vec<u8> {
        let body = self.body.clone();
        let (mut bytes, _) = self.head_bytes(addr);
        bytes.extend_from_slice(&body);
        bytes
    }

    /// The same request as a presigned URL: path and query.
    pub(super) fn presigned(self, addr: SocketAddr, lifetime: Duration) -> String {
        self.presigned_at(&format!("http://{addr}"), lifetime)
    }

    /// The same request as a presigned URL for another host than the one that it is sent to.
    pub(super) fn presigned_at(self, endpoint: &str, lifetime: Duration) -> String {
        let url = signer(KEY, SECRET).presign(PresignRequest {
            method: &self.method,
            endpoint,
            path: &self.path,
            query: &self.query,
            headers: &self.headers,
            expires: lifetime,
            now: SystemClock.now(),
        });
        url.unwrap().strip_prefix(endpoint).unwrap().to_owned()
    }
}

pub(super) fn signer(id: &str, secret: &str) -> Signer {
    Signer::new(
        id.to_owned(),
        Secret::new(secret.to_owned()),
        "eu-test-1".to_owned(),
    )
    .unwrap()
}

/// An answer.
#[derive(Debug, Clone)]
pub(super) struct Response {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Response {
    pub(super) fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }

    pub(super) fn text(&self) -> String {
        String::from_utf8(self.body.to_vec()).unwrap()
    }

    /// The text of the first element with this name.
    pub(super) fn element(&self, name: &str) -> String {
        let text = self.text();
        let inner = text
            .split_once(&format!("<{name}>"))
            .map(|(_, rest)| rest.to_owned());
        let inner = inner.and_then(|rest| {
            rest.split_once(&format!("</{name}>"))
                .map(|(inner, _)| inner.to_owned())
        });
        inner.unwrap_or_default()
    }

    /// Every text of elements with this name.
    pub(super) fn elements(&self, name: &str) -> Vec<String> {
        let text = self.text();
        text.split(&format!("<{name}>"))
            .skip(1)
            .map(|rest| rest.split_once(&format!("</{name}>")).unwrap().0.to_owned())
            .collect()
    }

    /// Status and code, as tables of errors have them.
    pub(super) fn verdict(&self) -> (u16, String) {
        (self.status, self.element("Code"))
    }

    #[track_caller]
    pub(super) fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{:?}\n{}", self.headers, self.text());
        assert!(
            !self.header("x-amz-request-id").is_empty(),
            "{:?}",
            self.headers
        );
        self
    }
}

/// One connection.
pub(super) struct Wire<S> {
    stream: S,
    read: Vec<u8>,
}

/// How long a test waits for an answer before it gives up.
const ANSWER_MAX: Duration = Duration::from_secs(30);

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    pub(super) fn new(stream: S) -> Self {
        Self {
            stream,
            read: Vec::new(),
        }
    }

    pub(super) async fn write(&mut self, bytes: &[u8]) {
        // Whoever refuses a body may close before all of it was sent.
        let _ = self.stream.write_all(bytes).await;
    }

    /// Ends our half of the connection.
    pub(super) async fn finish(&mut self) {
        let _ = self.stream.shutdown().await;
    }

    async fn more(&mut self) -> usize {
        let mut piece = vec![0; 64 << 10];
        let read = tokio::time::timeout(ANSWER_MAX, self.stream.read(&mut piece)).await;
        let count = read.expect("an answer in time").unwrap_or(0);
        self.read.extend_from_slice(&piece[..count]);
        count
    }

    /// Everything until the other side closes.
    pub(super) async fn rest(&mut self) -> Vec<u8> {
        while self.more().await > 0 {}
        std::mem::take(&mut self.read)
    }

    /// The next head, with its status; interim answers included.
    pub(super) async fn head(&mut self) -> Option<(u16, HeaderMap)> {
        let end = loop {
            if let Some(at) = self.read.windows(4).position(|four| four == b"\r\n\r\n") {
                break at;
            }
            if self.more().await == 0 {
                return None;
            }
        };
        let text = String::from_utf8(self.read[..end].to_vec()).unwrap();
        self.read.drain(..end + 4);
        let mut lines = text.split("\r\n");
        let status = lines
            .next()
            .unwrap()
            .split(' ')
            .nth(1)
            .unwrap()
            .parse()
            .unwrap();
        let mut headers = HeaderMap::new();
        for line in lines {
            let (name, value) = line.split_once(':').unwrap();
            headers.append(
                HeaderName::try_from(name).unwrap(),
                HeaderValue::from_bytes(value.trim().as_bytes()).unwrap(),
            );
        }
        Some((status, headers))
    }

    /// A whole answer; its body may be shorter than promised where the connection is cut.
    pub(super) async fn response(&mut self, is_head: bool) -> Response {
        let (status, headers) = self.head().await.expect("an answer");
        let bare = is_head || matches!(status, 100 | 204 | 304);
        let chunked = headers
            .get("transfer-encoding")
            .is_some_and(|value| value == "chunked");
        let body = if bare {
            Bytes::new()
        } else if chunked {
            self.chunked().await
        } else {
            let length = headers.get("content-length").unwrap().to_str().unwrap();
            self.exactly(length.parse().unwrap()).await
        };
        Response {
            status,
            headers,
            body,
        }
    }

    pub(super) async fn exactly(&mut self, length: usize) -> Bytes {
        while self.read.len() < length && self.more().await > 0 {}
        let length = length.min(self.read.len());
        self.read.drain(..length).collect()
    }

    async fn chunked(&mut self) -> Bytes {
        let mut body = Vec::new();
        loop {
            let end = loop {
                if let Some(at) = self.read.windows(2).position(|two| two == b"\r\n") {
                    break at;
                }
                assert!(self.more().await > 0, "the chunks end early");
            };
            let size = std::str::from_utf8(&self.read[..end]).unwrap();
            let size = usize::from_str_radix(size, 16).unwrap();
            self.read.drain(..end + 2);
            body.extend_from_slice(&self.exactly(size).await);
            self.exactly(2).await;
            if size == 0 {
                return body.into();
            }
        }
    }
}

/// Bytes that no compression makes smaller and no mistake makes equal.
pub(super) fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}
