//! Requests as bytes on a socket, for everything that no proper client would send.

use std::net::SocketAddr;
use std::sync::LazyLock;
use std::time::Duration;

use base::{Clock as _, Secret, SystemClock};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use s3wire::sigv4::{PayloadMode, SignRequest, Signer};
use s3wire::xml::ErrorDocument;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::home::{ACCESS_KEY, SECRET};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(60);

static SIGNER: LazyLock<Signer> = LazyLock::new(|| signer(ACCESS_KEY, SECRET));

fn signer(key: &str, secret: &str) -> Signer {
    Signer::new(
        key.to_owned(),
        Secret::new(secret.to_owned()),
        "us-east-1".to_owned(),
    )
    .unwrap()
}

/// The head of a request that is properly signed, whatever follows it.
pub(crate) struct Head<'a> {
    pub(crate) method: Method,
    pub(crate) path: &'a str,
    pub(crate) query: &'a str,
    pub(crate) headers: &'a [(&'a str, &'a str)],
    pub(crate) payload: PayloadMode,
}

impl Head<'_> {
    fn text(&self, addr: SocketAddr) -> String {
        let mut headers = HeaderMap::new();
        headers.insert("host", HeaderValue::try_from(addr.to_string()).unwrap());
        for (name, value) in self.headers {
            let name = HeaderName::try_from(*name).unwrap();
            headers.insert(name, HeaderValue::try_from(*value).unwrap());
        }
        let request = SignRequest {
            method: &self.method,
            path: self.path,
            query: self.query,
            payload: self.payload,
            now: SystemClock.now(),
        };
        SIGNER.sign(request, &mut headers);
        let target = match self.query {
            "" => self.path.to_owned(),
            query => format!("{}?{query}", self.path),
        };
        let mut text = format!("{} {target} HTTP/1.1\r\n", self.method);
        for (name, value) in &headers {
            text.push_str(&format!("{name}: {}\r\n", value.to_str().unwrap()));
        }
        text + "\r\n"
    }
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
    /// Whether `100 Continue` came before it.
    pub(crate) invited: bool,
}

impl Reply {
    /// The code of the error document.
    pub(crate) fn code(&self) -> String {
        ErrorDocument::from_xml(&self.body).map_or_else(
            |error| format!("{error}: {:?}", String::from_utf8_lossy(&self.body)),
            |document| document.code,
        )
    }
}

/// A connection.
pub(crate) struct Connection {
    stream: TcpStream,
    addr: SocketAddr,
    buffer: Vec<u8>,
}

impl Connection {
    pub(crate) async fn open(addr: SocketAddr) -> Self {
        Self {
            stream: TcpStream::connect(addr).await.unwrap(),
            addr,
            buffer: Vec::new(),
        }
    }

    /// Sends the head of a request.
    pub(crate) async fn head(&mut self, head: &Head<'_>) {
        self.send(head.text(self.addr).as_bytes()).await;
    }

    /// Sends bytes.
    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    /// Says that no more bytes will come.
    pub(crate) async fn finish(&mut self) {
        self.stream.shutdown().await.unwrap();
    }

    /// The next answer; `None` where the connection ends without one.
    pub(crate) async fn reply(&mut self) -> Option<Reply> {
        timeout(PATIENCE, self.read_reply())
            .await
            .expect("an answer, or an end")
    }

    async fn read_reply(&mut self) -> Option<Reply> {
        let mut invited = false;
        loop {
            let (status, headers) = self.read_head().await?;
            if status == 100 {
                invited = true;
                continue;
            }
            let length = headers.get("content-length");
            let length: usize = length.map_or(0, |text| text.to_str().unwrap().parse().unwrap());
            while self.buffer.len() < length {
                if self.more().await.is_none() {
                    break;
                }
            }
            let body = self.buffer.drain(..length.min(self.buffer.len())).collect();
            return Some(Reply {
                status,
                headers,
                body,
                invited,
            });
        }
    }

    /// Waits for `100 Continue`.
    pub(crate) async fn invited(&mut self) {
        let head = timeout(PATIENCE, self.read_head())
            .await
            .expect("an answer");
        assert_eq!(head.map(|(status, _)| status), Some(100));
    }

    async fn read_head(&mut self) -> Option<(u16, HeaderMap)> {
        let end = loop {
            let found = self
                .buffer
                .windows(4)
                .position(|window| window == b"\r\n\r\n");
            match found {
                Some(at) => break at + 4,
                None => self.more().await?,
            }
        };
        let head: Vec<u8> = self.buffer.drain(..end).collect();
        let head = std::str::from_utf8(&head).unwrap();
        let mut lines = head.split("\r\n");
        let status = lines
            .next()
            .unwrap()
            .split(' ')
            .nth(1)
            .unwrap()
            .parse()
            .unwrap();
        let mut headers = HeaderMap::new();
        for line in lines.take_while(|line| !line.is_empty()) {
            let (name, value) = line.split_once(':').unwrap();
            headers.append(
                HeaderName::try_from(name).unwrap(),
                HeaderValue::try_from(value.trim()).unwrap(),
            );
        }
        Some((status, headers))
    }

    async fn more(&mut self) -> Option<()> {
        let mut piece = vec![0; 64 << 10];
        let count = self
            .stream
            .read(&mut piece)
            .await
            .ok()
            .filter(|count| *count > 0)?;
        self.buffer.extend_from_slice(&piece[..count]);
        Some(())
    }
}

/// A request with a body that is at hand, on a connection of its own.
pub(crate) async fn request(addr: SocketAddr, head: &Head<'_>, body: &[u8]) -> Option<Reply> {
    let mut connection = Connection::open(addr).await;
    let text = [head.text(addr).as_bytes(), body].concat();
    connection.send(&text).await;
    connection.reply().await
}

/// A GET without a signature.
pub(crate) async fn plain_get(addr: SocketAddr, path: &str) -> Reply {
    let mut connection = Connection::open(addr).await;
    let text = format!("GET {path} HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n\r\n");
    connection.send(text.as_bytes()).await;
    connection.reply().await.unwrap()
}
