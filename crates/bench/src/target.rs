//! Requests to an endpoint: signed once, sent often.

use std::net::SocketAddr;

use anyhow::{Context, Result};
use base::{Clock as _, Crc64, Secret, SystemClock};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use s3wire::sigv4::{PayloadMode, SignRequest, Signer, StreamingVariant};
use testbed::content::Content;
use tokio_rustls::TlsConnector;

/// Bodies up to this many bytes travel with their head.
const TOGETHER_BYTES_MAX: u64 = 64 << 10;

/// An endpoint, a bucket, and who asks.
pub(crate) struct Target {
    pub(crate) name: String,
    pub(crate) addr: SocketAddr,
    pub(crate) bucket: String,
    /// How it is reached where not in plain text.
    pub(crate) tls: Option<TlsConnector>,
    signer: Signer,
}

/// What follows a head.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Sent {
    /// Nothing, or what is sent along with the head.
    Nothing,
    /// A body of known content.
    Content(Content),
}

/// What a good answer is.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Wanted {
    /// A status, and whatever body.
    Status(u16),
    /// The status of a write: 200 of S3, 201 and 204 of WebDAV.
    Stored,
    /// The status, and a length without a body.
    Length(u16, u64),
    /// The status, and a body of known content.
    Content(u16, Content),
}

/// A request, ready to be sent.
#[derive(Debug)]
pub(crate) struct Shot {
    pub(crate) head: Bytes,
    pub(crate) sent: Sent,
    pub(crate) wanted: Wanted,
}

/// How a body is covered by a checksum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cover {
    /// By nothing.
    Nothing,
    /// By a trailer, as SDKs send it by default.
    Trailer,
}

impl Target {
    pub(crate) fn new(
        name: &str,
        addr: SocketAddr,
        bucket: &str,
        key: &str,
        secret: &str,
    ) -> Result<Self> {
        let secret = Secret::new(secret.to_owned());
        let signer = Signer::new(key.to_owned(), secret, "us-east-1".to_owned())?;
        Ok(Self {
            name: name.to_owned(),
            addr,
            bucket: bucket.to_owned(),
            tls: None,
            signer,
        })
    }

    /// The same over TLS.
    pub(crate) fn secured(self, tls: &TlsConnector) -> Self {
        let tls = Some(tls.clone());
        Self { tls, ..self }
    }

    /// A signed head, and its blank line. `query` is as it is sent.
    pub(crate) fn head(
        &self,
        method: &Method,
        key: &str,
        query: &str,
        headers: &[(&'static str, String)],
        payload: PayloadMode,
    ) -> Result<String> {
        let path = format!("/{}/{key}", self.bucket);
        let path = path.strip_suffix('/').unwrap_or(&path);
        let mut signed = HeaderMap::new();
        let host = HeaderValue::try_from(self.addr.to_string());
        signed.insert(http::header::HOST, host.context("the address of a host")?);
        for (name, value) in headers {
            let value = HeaderValue::try_from(value).context("a header")?;
            signed.insert(HeaderName::from_static(name), value);
        }
        let request = SignRequest {
            method,
            path,
            query,
            payload,
            now: SystemClock.now(),
        };
        self.signer.sign(request, &mut signed);
        let mut text = match query {
            "" => format!("{method} {path} HTTP/1.1\r\n"),
            query => format!("{method} {path}?{query} HTTP/1.1\r\n"),
        };
        for (name, value) in &signed {
            text.push_str(&format!("{name}: {}\r\n", value.to_str()?));
        }
        Ok(text + "\r\n")
    }

    pub(crate) fn put(&self, key: &str, length: u64, cover: Cover) -> Result<Shot> {
        let content = Content::one_of_few(key, length);
        self.upload(key, "", content, cover)
    }

    /// The upload of content, as an object or as a part of one.
    pub(crate) fn upload(
        &self,
        key: &str,
        query: &str,
        content: Content,
        cover: Cover,
    ) -> Result<Shot> {
        let mut headers = Vec::new();
        let (body, payload) = match cover {
            Cover::Nothing => {
                headers.push(("content-length", content.length.to_string()));
                let together = content.length <= TOGETHER_BYTES_MAX;
                (together.then(|| content.bytes()), PayloadMode::Unsigned)
            }
            Cover::Trailer => {
                let bytes = content.bytes();
                let framed = Bytes::from(framed(&bytes));
                headers.push(("content-length", framed.len().to_string()));
                headers.push(("content-encoding", "aws-chunked".to_owned()));
                headers.push(("x-amz-decoded-content-length", bytes.len().to_string()));
                headers.push(("x-amz-trailer", "x-amz-checksum-crc64nvme".to_owned()));
                let variant = StreamingVariant::UnsignedTrailer;
                (Some(framed), PayloadMode::Streaming(variant))
            }
        };
        let head = self.head(&Method::PUT, key, query, &headers, payload)?;
        let (head, sent) = match body {
            Some(body) => ([head.as_bytes(), &body].concat(), Sent::Nothing),
            None => (head.into_bytes(), Sent::Content(content)),
        };
        Ok(Shot {
            head: head.into(),
            sent,
            wanted: Wanted::Stored,
        })
    }

    pub(crate) fn get(&self, key: &str, length: u64) -> Result<Shot> {
        let content = Content::one_of_few(key, length);
        self.bodyless(&Method::GET, key, "", &[], Wanted::Content(200, content))
    }

    /// A part of an object.
    pub(crate) fn get_range(&self, key: &str, length: u64, from: u64, bytes: u64) -> Result<Shot> {
        let content = Content::one_of_few(key, length).part(from, bytes);
        let range = format!("bytes={from}-{}", from + bytes - 1);
        let wanted = Wanted::Content(206, content);
        self.bodyless(&Method::GET, key, "", &[("range", range)], wanted)
    }

    pub(crate) fn head_object(&self, key: &str, length: u64) -> Result<Shot> {
        self.bodyless(&Method::HEAD, key, "", &[], Wanted::Length(200, length))
    }

    pub(crate) fn delete(&self, key: &str) -> Result<Shot> {
        self.bodyless(&Method::DELETE, key, "", &[], Wanted::Status(204))
    }

    pub(crate) fn list(&self, query: &str) -> Result<Shot> {
        self.bodyless(&Method::GET, "", query, &[], Wanted::Status(200))
    }

    pub(crate) fn bodyless(
        &self,
        method: &Method,
        key: &str,
        query: &str,
        headers: &[(&'static str, String)],
        wanted: Wanted,
    ) -> Result<Shot> {
        let head = self.head(method, key, query, headers, PayloadMode::of(b""))?;
        Ok(Shot {
            head: head.into(),
            sent: Sent::Nothing,
            wanted,
        })
    }

    /// A document that is sent.
    pub(crate) fn post(&self, key: &str, query: &str, document: &str) -> Result<Shot> {
        let headers = [("content-length", document.len().to_string())];
        let payload = PayloadMode::of(document.as_bytes());
        let head = self.head(&Method::POST, key, query, &headers, payload)?;
        Ok(Shot {
            head: (head + document).into(),
            sent: Sent::Nothing,
            wanted: Wanted::Status(200),
        })
    }
}

/// One chunk, and the checksum behind it.
fn framed(body: &[u8]) -> Vec<u8> {
    let trailer = format!(
        "\r\n0\r\nx-amz-checksum-crc64nvme:{}\r\n\r\n",
        Crc64::of(body).to_checksum().to_base64()
    );
    let size = format!("{:x}\r\n", body.len());
    [size.as_bytes(), body, trailer.as_bytes()].concat()
}
