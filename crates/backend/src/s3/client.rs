//! One call: built, signed, sent, and judged by its answer.
//!
//! Whatever comes back from here as `Ok` is a success that the provider declared after it had the
//! whole request. Nothing is retried.

use std::sync::Arc;

use base::{BackendName, ChecksumAlgorithm, Clock};
use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, HOST, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use s3wire::chunked::Framing;
use s3wire::sigv4::{Chain, PayloadMode, SignRequest, Signer, StreamingVariant};
use s3wire::xml::{ErrorDocument, LateResponse, XmlError};

use super::classify::{self, Access};
use super::cover::{BodyPolicy, BodySigning};
use super::download::read_all;
use super::http1::{Outgoing, ProviderBody};
use super::settings::{BucketAddress, S3Settings, S3SettingsError};
use super::transport::Transport;
use super::upload::{RequestBody, Staged};
use crate::guard::note_request;
use crate::{BackendKey, Effect, Error, Kind, Result};

/// The largest XML answer: a page of 1,000 versions with keys of 1,024 bytes, all encoded.
pub(super) const XML_BYTES_MAX: usize = 8 << 20;
/// The largest error document that is read.
const ERROR_BYTES_MAX: usize = 64 << 10;
/// So much of a provider's message goes into an error.
const MESSAGE_CHARS_MAX: usize = 300;

const AWS_CHUNKED: &str = "aws-chunked";
pub(super) const CONTENT_MD5: HeaderName = HeaderName::from_static("content-md5");
const CRC64_HEADER: &str = ChecksumAlgorithm::Crc64Nvme.header();
const X_AMZ_CRC64: HeaderName = HeaderName::from_static(CRC64_HEADER);
const X_AMZ_DECODED_LENGTH: HeaderName = HeaderName::from_static("x-amz-decoded-content-length");
const X_AMZ_SECURITY_TOKEN: HeaderName = HeaderName::from_static("x-amz-security-token");
const X_AMZ_TRAILER: HeaderName = HeaderName::from_static("x-amz-trailer");
const AGENT: HeaderValue =
    HeaderValue::from_static(concat!("s3-orchestrator/", env!("CARGO_PKG_VERSION")));

/// A request without its body.
pub(super) struct ProviderRequest {
    operation: &'static str,
    access: Access,
    method: Method,
    path: String,
    query: Vec<(&'static str, Option<String>)>,
    headers: HeaderMap,
}

impl ProviderRequest {
    pub(super) fn new(
        operation: &'static str,
        access: Access,
        method: Method,
        path: String,
    ) -> Self {
        Self {
            operation,
            access,
            method,
            path,
            query: Vec::new(),
            headers: HeaderMap::new(),
        }
    }

    /// Adds a bare name to the query.
    #[must_use]
    pub(super) fn flag(mut self, name: &'static str) -> Self {
        self.query.push((name, None));
        self
    }

    #[must_use]
    pub(super) fn query(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.query.push((name, Some(value.into())));
        self
    }

    #[must_use]
    pub(super) fn version(self, version: Option<&str>) -> Self {
        match version {
            None => self,
            Some(id) => self.query("versionId", id),
        }
    }

    #[must_use]
    pub(super) fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }

    /// Adds what is stored with an object.
    #[must_use]
    pub(super) fn object_headers(mut self, kept: &base::ObjectHeaders) -> Self {
        s3wire::headers::put_object_headers(kept, &mut self.headers);
        self
    }
}

/// The body of a request.
pub(super) enum RequestContent {
    /// None, or XML that is at hand: always hashed, because it is small.
    Whole(Bytes),
    /// The bytes of an object.
    Object(Staged, BodySigning),
}

impl RequestContent {
    pub(super) const EMPTY: Self = Self::Whole(Bytes::new());
}

/// A success.
pub(super) struct ProviderReply {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: ProviderBody,
}

/// Sends calls to one bucket of one provider.
pub(super) struct Client {
    pub(super) name: BackendName,
    pub(super) address: BucketAddress,
    pub(super) policy: BodyPolicy,
    transport: Transport,
    signer: Signer,
    session_token: Option<HeaderValue>,
    host: HeaderValue,
    clock: Arc<dyn Clock>,
}

impl Client {
    pub(super) fn new(
        name: BackendName,
        settings: S3Settings,
        clock: Arc<dyn Clock>,
    ) -> std::result::Result<Self, S3SettingsError> {
        let address = BucketAddress::of(&settings)?;
        let transport = Transport::new(&settings, &address)?;
        let policy = BodyPolicy::of(&settings, &address);
        let session_token = match &settings.session_token {
            None => None,
            Some(token) => {
                let mut value = HeaderValue::try_from(token.reveal())
                    .map_err(|_| S3SettingsError::SessionToken)?;
                value.set_sensitive(true);
                Some(value)
            }
        };
        let signer = Signer::new(
            settings.access_key_id,
            settings.secret_access_key,
            settings.region,
        )
        .map_err(S3SettingsError::Signer)?;
        let host = HeaderValue::try_from(address.authority.as_str())
            .expect("an authority is a header value");
        Ok(Self {
            name,
            address,
            policy,
            transport,
            signer,
            session_token,
            host,
            clock,
        })
    }

    /// A call on the bucket.
    pub(super) fn bucket(
        &self,
        operation: &'static str,
        access: Access,
        method: Method,
    ) -> ProviderRequest {
        ProviderRequest::new(operation, access, method, self.address.bucket_path())
    }

    /// A call on an object.
    pub(super) fn object(
        &self,
        operation: &'static str,
        access: Access,
        method: Method,
        key: &BackendKey,
    ) -> ProviderRequest {
        ProviderRequest::new(operation, access, method, self.address.key_path(key))
    }

    pub(super) fn error(&self, kind: Kind, effect: Effect, operation: &'static str) -> Error {
        Error::new(kind, effect, &self.name, operation)
    }

    /// An answer that makes no sense, after which a write may have happened.
    pub(super) fn nonsense(&self, access: Access, operation: &'static str) -> Error {
        self.error(Kind::Unavailable, access.unsettled(), operation)
    }

    /// Sends a call; `Ok` is a 2xx whose body has not been read.
    pub(super) async fn send(
        &self,
        call: ProviderRequest,
        content: RequestContent,
    ) -> Result<ProviderReply> {
        let ProviderRequest {
            operation, access, ..
        } = call;
        let request = self.request(call, content);
        note_request();
        match self.transport.send(request).await {
            Err(error) => {
                let (kind, effect) = classify::silence(access, &error);
                Err(self.error(kind, effect, operation).with_source(error))
            }
            Ok((answer, body)) if !answer.status.is_success() => {
                Err(self.refusal(access, operation, answer.status, body).await)
            }
            Ok((answer, _)) if !answer.sent => Err(self
                .nonsense(access, operation)
                .with_message("success was declared before the body had been sent")),
            Ok((answer, body)) => Ok(ProviderReply {
                status: answer.status,
                headers: answer.headers,
                body,
            }),
        }
    }

    /// Sends a call whose answer is an XML document.
    pub(super) async fn ask(
        &self,
        call: ProviderRequest,
        body: Bytes,
    ) -> Result<(HeaderMap, Bytes)> {
        let ProviderRequest {
            operation, access, ..
        } = call;
        let reply = self.send(call, RequestContent::Whole(body)).await?;
        let document = read_all(reply.body, XML_BYTES_MAX)
            .await
            .map_err(|error| self.nonsense(access, operation).with_source(error))?;
        Ok((reply.headers, document))
    }

    /// Sends a call whose success is all that matters.
    pub(super) async fn order(&self, call: ProviderRequest) -> Result<HeaderMap> {
        Ok(self.send(call, RequestContent::EMPTY).await?.headers)
    }

    fn request(&self, call: ProviderRequest, content: RequestContent) -> Outgoing {
        let ProviderRequest {
            method,
            path,
            query,
            mut headers,
            ..
        } = call;
        let query =
            s3wire::uri::encode_query(query.iter().map(|(name, value)| (*name, value.as_deref())));
        headers.insert(HOST, self.host.clone());
        headers.insert(USER_AGENT, AGENT);
        if let Some(token) = &self.session_token {
            headers.insert(X_AMZ_SECURITY_TOKEN, token.clone());
        }
        let payload = match &content {
            RequestContent::Whole(bytes) if bytes.is_empty() => PayloadMode::EMPTY,
            RequestContent::Whole(bytes) => PayloadMode::of(bytes),
            RequestContent::Object(staged, cover) => {
                announce(&mut headers, cover, staged.length());
                cover.mode
            }
        };
        let now = self.clock.now();
        let sign = SignRequest {
            method: &method,
            path: &path,
            query: &query,
            payload,
            now,
        };
        let chain = self.signer.sign(sign, &mut headers);
        let body = match content {
            RequestContent::Whole(bytes) => RequestBody::whole(bytes),
            RequestContent::Object(staged, cover) => {
                let framing = framing(&cover, chain).map(|framing| (framing, cover.trailer));
                staged.into_body(framing)
            }
        };
        let length = body.length();
        // A GET without a body says nothing of its length; some signers and caches mind.
        if length > 0 || method == Method::PUT || method == Method::POST {
            headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
        }
        let head = print_head(&method, &path, &query, &headers);
        Outgoing::new(head, body, method == Method::HEAD)
    }

    async fn refusal(
        &self,
        access: Access,
        operation: &'static str,
        status: StatusCode,
        body: ProviderBody,
    ) -> Error {
        // An error document that cannot be read says as much as none.
        let document = read_all(body, ERROR_BYTES_MAX).await.unwrap_or_default();
        let document = ErrorDocument::from_xml(&document).ok();
        let code = document.as_ref().map(|document| document.code.as_str());
        let (kind, effect) = classify::refusal(access, status, code);
        let message = match &document {
            Some(document) => words(&document.code, &document.message),
            None => format!("HTTP status {}", status.as_u16()),
        };
        self.error(kind, effect, operation).with_message(message)
    }

    /// The outcome of a call that may still fail after its status 200.
    pub(super) fn settle<T>(
        &self,
        operation: &'static str,
        answer: std::result::Result<LateResponse<T>, XmlError>,
    ) -> Result<T> {
        match answer {
            Ok(LateResponse::Done(done)) => Ok(done),
            Ok(LateResponse::Refused(document)) => {
                let (kind, effect) = classify::late_refusal(Access::Write, &document.code);
                let message = words(&document.code, &document.message);
                Err(self.error(kind, effect, operation).with_message(message))
            }
            Err(error) => Err(self.nonsense(Access::Write, operation).with_source(error)),
        }
    }
}

/// A provider's own words, short enough for a log.
pub(super) fn words(code: &str, message: &str) -> String {
    let text = match message.is_empty() {
        true => code.to_owned(),
        false => format!("{code}: {message}"),
    };
    text.chars().take(MESSAGE_CHARS_MAX).collect()
}

/// The head of a request as it goes over the wire. Path and query are encoded, so nothing in them
/// can end the line.
fn print_head(method: &Method, path: &str, query: &str, headers: &HeaderMap) -> Vec<u8> {
    debug_assert!(
        [path, query]
            .iter()
            .all(|part| part.bytes().all(|byte| byte.is_ascii_graphic()))
    );
    let fields = headers
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len() + 4);
    let line = method.as_str().len() + path.len() + query.len() + 16;
    let mut head = Vec::with_capacity(line + fields.sum::<usize>());
    head.extend_from_slice(method.as_str().as_bytes());
    head.push(b' ');
    head.extend_from_slice(path.as_bytes());
    if !query.is_empty() {
        head.push(b'?');
        head.extend_from_slice(query.as_bytes());
    }
    head.extend_from_slice(b" HTTP/1.1\r\n");
    for (name, value) in headers {
        head.extend_from_slice(name.as_str().as_bytes());
        head.extend_from_slice(b": ");
        head.extend_from_slice(value.as_bytes());
        head.extend_from_slice(b"\r\n");
    }
    head.extend_from_slice(b"\r\n");
    head
}

/// Adds the headers that say how a body is covered and framed.
fn announce(headers: &mut HeaderMap, cover: &BodySigning, length: u64) {
    let text = |text: String| HeaderValue::try_from(text).expect("base64 is a header value");
    if let Some(crc64) = cover.header {
        headers.insert(X_AMZ_CRC64, text(crc64.to_checksum().to_base64()));
    }
    if let Some(md5) = cover.md5 {
        headers.insert(CONTENT_MD5, text(md5.to_base64()));
    }
    let PayloadMode::Streaming(variant) = cover.mode else {
        return;
    };
    let encoding = match headers.get(CONTENT_ENCODING) {
        None => HeaderValue::from_static(AWS_CHUNKED),
        Some(kept) => {
            let both = [AWS_CHUNKED.as_bytes(), b",", kept.as_bytes()].concat();
            HeaderValue::from_bytes(&both).expect("header values joined by a comma are one")
        }
    };
    headers.insert(CONTENT_ENCODING, encoding);
    headers.insert(X_AMZ_DECODED_LENGTH, HeaderValue::from(length));
    if variant != StreamingVariant::Signed {
        headers.insert(X_AMZ_TRAILER, HeaderValue::from_static(CRC64_HEADER));
    }
}

fn framing(cover: &BodySigning, chain: Chain) -> Option<Framing> {
    let algorithm = ChecksumAlgorithm::Crc64Nvme;
    match cover.mode {
        PayloadMode::Unsigned | PayloadMode::Sha256(_) => None,
        PayloadMode::Streaming(StreamingVariant::UnsignedTrailer) => {
            Some(Framing::UnsignedTrailer(algorithm))
        }
        PayloadMode::Streaming(StreamingVariant::Signed) => Some(Framing::Signed(chain)),
        PayloadMode::Streaming(StreamingVariant::SignedTrailer) => {
            Some(Framing::SignedTrailer(chain, algorithm))
        }
    }
}
