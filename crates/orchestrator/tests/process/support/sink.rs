//! An S3 provider that keeps nothing large: it checks what it is sent and generates what it is asked
//! for.
//!
//! The bytes of every large object belong to its key (`Content::of_key`), so that size and checksum
//! are all that has to be kept. Small objects, the marker among them, are kept for real. A gate holds
//! large bodies at a given offset until a given number of them is there: so a test knows that they
//! are in flight at the same time.
//!
//! Uploads in parts are refused: nobody needs them here.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use base::{
    ByteRange, Checksum, Clock as _, Crc64, Crc64Hasher, ETag, ObjectHeaders, SystemClock,
    Timestamp,
};
use bytes::Bytes;
use futures_util::stream::{self, Stream, StreamExt as _};
use http::header::{CONTENT_LENGTH, CONTENT_RANGE, ETAG, LAST_MODIFIED};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use s3wire::chunked::Decoder;
use s3wire::headers::ObjectChecksum;
use s3wire::sigv4::{PayloadMode, payload_mode};
use s3wire::xml::{
    CopyResult, CopyRoot, Delete, DeleteResult, ErrorDocument, ObjectEntry, ObjectsPageV2,
    UploadsPage, VersioningStatus, print_versioning,
};
use s3wire::{BucketOp, Error, ErrorCode, ListObjectsV2, ObjectOp, Target};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::content::Content;
use super::gate::Gate;

/// Objects up to this many bytes are kept.
const KEPT_BYTES_MAX: u64 = 64 << 10;

#[derive(Clone)]
enum Bytewise {
    Kept(Bytes),
    Generated(Content),
}

#[derive(Clone)]
struct Object {
    bytes: Bytewise,
    crc64: Crc64,
    headers: ObjectHeaders,
    written: Timestamp,
}

impl Object {
    fn size(&self) -> u64 {
        match &self.bytes {
            Bytewise::Kept(bytes) => bytes.len() as u64,
            Bytewise::Generated(content) => content.length,
        }
    }

    /// Not the MD5, so that nobody relies on it.
    fn etag(&self) -> ETag {
        ETag::new(&format!("sink-{:016x}", self.crc64.0))
    }

    fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        s3wire::headers::put_object_headers(&self.headers, &mut headers);
        let text = |text: String| HeaderValue::try_from(text).unwrap();
        headers.insert(ETAG, text(self.etag().quoted()));
        headers.insert(LAST_MODIFIED, text(s3wire::http_date(self.written)));
        let checksum = self.crc64.to_checksum();
        let checksum = ObjectChecksum {
            checksum,
            parts: None,
        };
        s3wire::headers::insert_checksum(&mut headers, &checksum);
        headers
    }
}

#[derive(Default)]
struct State {
    objects: Mutex<BTreeMap<String, Object>>,
    gate: Mutex<Option<Arc<Gate>>>,
}

/// The provider.
pub(crate) struct Sink {
    pub(crate) addr: SocketAddr,
    state: Arc<State>,
    task: JoinHandle<()>,
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Sink {
    /// Serves on a port of its own.
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let state = Arc::new(State::default());
        let shared = Arc::clone(&state);
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(serve(stream, Arc::clone(&shared)));
            }
        });
        Self { addr, state, task }
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Large bodies go through this gate from now on.
    pub(crate) fn set_gate(&self, gate: &Arc<Gate>) {
        *self.state.gate.lock() = Some(Arc::clone(gate));
    }

    /// The large objects that it knows.
    pub(crate) fn large_objects(&self) -> usize {
        let objects = self.state.objects.lock();
        objects
            .values()
            .filter(|object| object.size() > KEPT_BYTES_MAX)
            .count()
    }
}

async fn serve(stream: TcpStream, state: Arc<State>) {
    stream.set_nodelay(true).ok();
    let service = service_fn(move |request| {
        let state = Arc::clone(&state);
        async move { Ok::<_, Infallible>(answer(&state, request).await) }
    });
    // A connection may end in any way; what matters is what its requests did.
    hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .await
        .ok();
}

struct Answer {
    headers: HeaderMap,
    body: Chunks,
    length: u64,
    status: StatusCode,
}

type Chunks = Pin<Box<dyn Stream<Item = Bytes> + Send>>;

impl Answer {
    fn whole(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        Self {
            headers: HeaderMap::new(),
            length: bytes.len() as u64,
            body: Box::pin(stream::iter((!bytes.is_empty()).then_some(bytes))),
            status: StatusCode::OK,
        }
    }

    fn with(headers: HeaderMap) -> Self {
        Self {
            headers,
            ..Self::whole(Bytes::new())
        }
    }
}

struct AnswerBody {
    chunks: Chunks,
    left: u64,
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let next = self.chunks.poll_next_unpin(cx);
        if let Poll::Ready(Some(bytes)) = &next {
            self.left -= bytes.len() as u64;
        }
        next.map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

async fn answer(state: &State, request: Request<Incoming>) -> Response<AnswerBody> {
    let is_head = request.method() == Method::HEAD;
    let answer = carry_out(state, request).await.unwrap_or_else(|error| {
        let document = ErrorDocument {
            code: error.code.as_str().to_owned(),
            message: error.message.clone().into_owned(),
            ..ErrorDocument::default()
        };
        Answer {
            status: StatusCode::from_u16(error.code.status()).unwrap(),
            ..Answer::whole(document.to_xml())
        }
    });
    let (chunks, left): (Chunks, u64) = match is_head {
        true => (Box::pin(stream::empty()), 0),
        false => (answer.body, answer.length),
    };
    let mut response = Response::new(AnswerBody { chunks, left });
    *response.status_mut() = answer.status;
    *response.headers_mut() = answer.headers;
    if is_head {
        response
            .headers_mut()
            .insert(CONTENT_LENGTH, HeaderValue::from(answer.length));
    }
    response
}

async fn carry_out(state: &State, request: Request<Incoming>) -> Result<Answer, Error> {
    let (head, body) = request.into_parts();
    let target = Target::parse(
        &head.method,
        head.uri.path(),
        head.uri.query(),
        &head.headers,
    )?;
    match target {
        Target::Service(_) => Err(ErrorCode::NotImplemented.into()),
        Target::Bucket(_, op) => on_bucket(state, op, body).await,
        Target::Object(_, key, op) => {
            let key = key.as_str();
            match op {
                ObjectOp::PutObject => put(state, key, &head.headers, body).await,
                ObjectOp::GetObject(_) | ObjectOp::HeadObject(_) => {
                    let object = state.objects.lock().get(key).cloned();
                    get(state, object.ok_or(ErrorCode::NoSuchKey)?, &head.headers)
                }
                ObjectOp::DeleteObject => {
                    state.objects.lock().remove(key);
                    Ok(Answer {
                        status: StatusCode::NO_CONTENT,
                        ..Answer::whole(Bytes::new())
                    })
                }
                ObjectOp::CopyObject(source) => {
                    let mut objects = state.objects.lock();
                    let found = objects.get(source.key.as_str()).cloned();
                    let found = found.ok_or(ErrorCode::NoSuchKey)?;
                    let copied = CopyResult {
                        etag: found.etag(),
                        last_modified: found.written,
                        checksum: None,
                        kind: None,
                    };
                    objects.insert(key.to_owned(), found);
                    Ok(Answer::whole(copied.to_xml(CopyRoot::Object)))
                }
                ObjectOp::CreateMultipartUpload
                | ObjectOp::UploadPart { .. }
                | ObjectOp::UploadPartCopy(_)
                | ObjectOp::CompleteMultipartUpload { .. }
                | ObjectOp::AbortMultipartUpload { .. }
                | ObjectOp::ListParts(_)
                | ObjectOp::GetObjectAttributes
                | ObjectOp::GetObjectTagging
                | ObjectOp::PutObjectTagging
                | ObjectOp::DeleteObjectTagging
                | ObjectOp::GetObjectAcl
                | ObjectOp::PutObjectAcl => Err(ErrorCode::NotImplemented.into()),
            }
        }
    }
}

async fn on_bucket(state: &State, op: BucketOp, body: Incoming) -> Result<Answer, Error> {
    match op {
        BucketOp::HeadBucket => Ok(Answer::whole(Bytes::new())),
        BucketOp::GetBucketVersioning => Ok(Answer::whole(print_versioning(VersioningStatus::Off))),
        BucketOp::ListObjectsV2(wanted) => Ok(Answer::whole(list(state, &wanted).to_xml())),
        BucketOp::ListMultipartUploads(_) => Ok(Answer::whole(UploadsPage::default().to_xml())),
        BucketOp::DeleteObjects => {
            let mut bytes = Vec::new();
            let mut pieces = pieces(body);
            while let Some(piece) = pieces.next().await {
                bytes.extend_from_slice(&piece?);
            }
            let mut objects = state.objects.lock();
            for item in Delete::from_xml(&bytes)?.items {
                objects.remove(item.key.as_str());
            }
            Ok(Answer::whole(DeleteResult::default().to_xml()))
        }
        BucketOp::GetBucketLocation
        | BucketOp::CreateBucket
        | BucketOp::DeleteBucket
        | BucketOp::ListObjectsV1(_)
        | BucketOp::GetBucketAcl
        | BucketOp::PutBucketAcl
        | BucketOp::GetBucketCors
        | BucketOp::PostObject => Err(ErrorCode::NotImplemented.into()),
    }
}

fn list(state: &State, wanted: &ListObjectsV2) -> ObjectsPageV2 {
    let objects = state.objects.lock();
    let after = wanted.start_after.as_deref().unwrap_or("");
    let mut found = objects
        .iter()
        .filter(|(key, _)| key.starts_with(&*wanted.prefix) && key.as_str() > after);
    let most = usize::try_from(wanted.max_keys).unwrap();
    let entries: Vec<_> = found
        .by_ref()
        .take(most)
        .map(|(key, object)| ObjectEntry {
            key: key.clone(),
            size: object.size(),
            etag: Some(object.etag()),
            last_modified: object.written,
            checksum: None,
        })
        .collect();
    let is_truncated = found.next().is_some();
    ObjectsPageV2 {
        is_truncated,
        next_continuation_token: is_truncated.then(|| "more".to_owned()),
        encoding: wanted.encoding,
        max_keys: wanted.max_keys,
        entries,
        ..ObjectsPageV2::default()
    }
}

fn pieces(mut body: Incoming) -> impl Stream<Item = Result<Bytes, Error>> + Unpin {
    stream::poll_fn(move |cx| {
        Pin::new(&mut body).poll_frame(cx).map(|frame| {
            let frame = frame?.map_err(|_| Error::from(ErrorCode::IncompleteBody));
            Some(frame.map(|frame| frame.into_data().unwrap_or_default()))
        })
    })
}

/// What arrives of one body, checked as it comes.
struct Arrival {
    content: Content,
    gate: Option<Arc<Gate>>,
    kept: Vec<u8>,
    crc64: Crc64Hasher,
    offset: u64,
}

impl Arrival {
    async fn take(&mut self, piece: &Bytes) -> Result<(), Error> {
        let before = self.offset;
        self.offset += piece.len() as u64;
        self.crc64.update(piece);
        if self.content.length <= KEPT_BYTES_MAX {
            self.kept.extend_from_slice(piece);
        } else if !self.content.has(before, piece) {
            return Err(ErrorCode::BadDigest.into());
        }
        if self
            .gate
            .as_ref()
            .is_some_and(|gate| self.offset >= gate.offset)
            && let Some(gate) = self.gate.take()
        {
            gate.pass().await;
        }
        Ok(())
    }
}

async fn put(
    state: &State,
    key: &str,
    headers: &HeaderMap,
    body: Incoming,
) -> Result<Answer, Error> {
    let mode = payload_mode(headers)?.unwrap_or(PayloadMode::Unsigned);
    let claims = s3wire::headers::body_claims(headers)?;
    let mut decoder = Decoder::for_request(mode, None, &claims)?;
    let length = match claims.decoded_length {
        Some(length) => length,
        None => body
            .size_hint()
            .exact()
            .ok_or(ErrorCode::MissingContentLength)?,
    };
    let gate = state
        .gate
        .lock()
        .clone()
        .filter(|gate| length > gate.offset);
    let mut arrival = Arrival {
        content: Content::of_key(user_key(key), length),
        gate,
        kept: Vec::new(),
        crc64: Crc64Hasher::new(),
        offset: 0,
    };
    let mut pieces = pieces(body);
    let mut decoded = Vec::new();
    while let Some(piece) = pieces.next().await {
        match &mut decoder {
            None => decoded.push(piece?),
            Some(decoder) => decoder.feed(piece?, &mut decoded)?,
        }
        for piece in decoded.drain(..) {
            arrival.take(&piece).await?;
        }
    }
    let trailer: Option<Checksum> = decoder.map(Decoder::finish).transpose()?.flatten();
    let crc64 = arrival.crc64.sum();
    let declared = trailer.or(claims.checksum);
    if declared.is_some_and(|declared| Crc64::from_checksum(&declared) != Some(crc64)) {
        return Err(ErrorCode::BadDigest.into());
    }
    if arrival.offset != length {
        return Err(ErrorCode::IncompleteBody.into());
    }
    let object = Object {
        bytes: match length <= KEPT_BYTES_MAX {
            true => Bytewise::Kept(arrival.kept.into()),
            false => Bytewise::Generated(arrival.content),
        },
        crc64,
        headers: s3wire::headers::stored_headers(headers),
        written: SystemClock.now(),
    };
    let mut answer = HeaderMap::new();
    answer.insert(ETAG, HeaderValue::try_from(object.etag().quoted()).unwrap());
    state.objects.lock().insert(key.to_owned(), object);
    Ok(Answer::with(answer))
}

fn get(state: &State, object: Object, headers: &HeaderMap) -> Result<Answer, Error> {
    let size = object.size();
    let mut answer = object.headers();
    let (range, status) = match s3wire::headers::range(headers) {
        None => (ByteRange::whole(size), StatusCode::OK),
        Some(wanted) => {
            let range = wanted
                .resolve(size)
                .map_err(|_| Error::from(ErrorCode::InvalidRange))?;
            let text = s3wire::headers::print_content_range(range, size);
            answer.insert(CONTENT_RANGE, HeaderValue::try_from(text).unwrap());
            (range, StatusCode::PARTIAL_CONTENT)
        }
    };
    let at = |bytes: u64| usize::try_from(bytes).unwrap();
    let body: Chunks = match object.bytes {
        Bytewise::Kept(bytes) => {
            let bytes = bytes.slice(at(range.start)..at(range.end()));
            Box::pin(stream::iter((!bytes.is_empty()).then_some(bytes)))
        }
        Bytewise::Generated(content) => {
            let gate = state
                .gate
                .lock()
                .clone()
                .filter(|gate| range.length > gate.offset);
            generated(content.part(range.start, range.length), gate)
        }
    };
    Ok(Answer {
        headers: answer,
        body,
        length: range.length,
        status,
    })
}

fn generated(content: Content, gate: Option<Arc<Gate>>) -> Chunks {
    Box::pin(stream::unfold(
        (0, gate),
        move |(offset, mut gate)| async move {
            if gate.as_ref().is_some_and(|gate| offset >= gate.offset)
                && let Some(gate) = gate.take()
            {
                gate.pass().await;
            }
            let piece = content.piece(offset);
            let behind = offset + piece.len() as u64;
            (!piece.is_empty()).then_some((piece, (behind, gate)))
        },
    ))
}

/// The client's key in `bucket/key~copy`.
fn user_key(key: &str) -> &str {
    let key = key.rsplit_once('~').map_or(key, |(key, _)| key);
    key.split_once('/').map_or(key, |(_, key)| key)
}
