//! An S3 provider that keeps nothing large: it checks what it is sent and generates what it is asked
//! for.
//!
//! The bytes of every large object belong to its key (`Content::of_key`), so that size and checksum
//! are all that has to be kept. Small objects, the marker among them, are kept for real. A gate holds
//! large bodies at a given offset until a given number of them is there: so a test knows that they
//! are in flight at the same time.
//!
//! Of uploads in parts it keeps sizes and checksums: the parts of an object are believed to be its
//! content, in the order of their numbers.

mod answer;
mod arrival;

use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use base::{
    ByteRange, Clock as _, Crc64, ETag, Ids, Md5, ObjectHeaders, PartNumber, SystemClock,
    Timestamp, UploadId,
};
use bytes::Bytes;
use futures_util::stream;
use http::header::{CONTENT_LENGTH, CONTENT_RANGE, ETAG, LAST_MODIFIED};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use s3wire::headers::ObjectChecksum;
use s3wire::xml::{
    CompletePart, CompleteResult, CopyResult, CopyRoot, Delete, DeleteResult, ErrorDocument,
    ObjectEntry, ObjectsPageV2, UploadStarted, UploadsPage, VersioningStatus, parse_complete,
    print_versioning,
};
use s3wire::{BucketOp, Error, ErrorCode, ListObjectsV2, ObjectOp, Target};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use self::answer::{AnswerBody, Chunks, LateResponse};
use self::arrival::{Checked, Known, arrive, collected};
use crate::content::Content;
use crate::gate::Gate;

/// Objects up to this many bytes are kept.
const KEPT_BYTES_MAX: u64 = 64 << 10;
/// What it calls the bucket, whatever the request calls it.
const BUCKET: &str = "provider";

#[derive(Clone)]
enum Bytewise {
    Kept(Bytes),
    Generated(Content),
}

#[derive(Clone)]
struct Object {
    bytes: Bytewise,
    crc64: Crc64,
    etag: ETag,
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

    fn checksum(&self) -> ObjectChecksum {
        ObjectChecksum {
            checksum: self.crc64.to_checksum(),
            parts: None,
        }
    }

    fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        s3wire::headers::put_object_headers(&self.headers, &mut headers);
        let text = |text: String| HeaderValue::try_from(text).expect("it is printable");
        headers.insert(ETAG, text(self.etag.quoted()));
        headers.insert(LAST_MODIFIED, text(s3wire::http_date(self.written)));
        s3wire::headers::insert_checksum(&mut headers, &self.checksum());
        headers
    }
}

struct Upload {
    headers: ObjectHeaders,
    parts: BTreeMap<PartNumber, Part>,
}

#[derive(Clone)]
struct Part {
    crc64: Crc64,
    length: u64,
    etag: ETag,
}

struct State {
    objects: Mutex<BTreeMap<String, Object>>,
    uploads: Mutex<HashMap<UploadId, Upload>>,
    known: Known,
    gate: Mutex<Option<Arc<Gate>>>,
    requests: AtomicU64,
    ids: Ids,
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State").finish_non_exhaustive()
    }
}

impl State {
    fn new() -> Self {
        Self {
            objects: Mutex::default(),
            uploads: Mutex::default(),
            known: Known::default(),
            gate: Mutex::default(),
            requests: AtomicU64::new(0),
            ids: Ids::new(Arc::new(SystemClock)),
        }
    }

    fn begin(&self, key: &str, headers: &HeaderMap) -> LateResponse {
        let id = UploadId::draw(&self.ids);
        let upload = Upload {
            headers: s3wire::headers::stored_headers(headers),
            parts: BTreeMap::new(),
        };
        self.uploads.lock().insert(id, upload);
        let started = UploadStarted {
            bucket: BUCKET.to_owned(),
            key: key.to_owned(),
            upload_id: id.to_string(),
        };
        LateResponse::whole(started.to_xml())
    }

    fn complete(
        &self,
        key: &str,
        id: &UploadId,
        list: &[CompletePart],
    ) -> Result<LateResponse, Error> {
        let upload = self.uploads.lock().remove(id);
        let upload = upload.ok_or(ErrorCode::NoSuchUpload)?;
        let mut whole: Option<(Crc64, u64)> = None;
        let mut sums = Vec::new();
        for named in list {
            let part = upload.parts.get(&named.part);
            let part = part.ok_or(ErrorCode::InvalidPart)?;
            let (crc64, length) = (part.crc64, part.length);
            sums.extend(part.etag.as_md5().into_iter().flat_map(|md5| md5.0));
            if part.etag != named.etag {
                return Err(ErrorCode::InvalidPart.into());
            }
            whole = Some(match whole {
                None => (crc64, length),
                Some((before, size)) => (before.then(crc64, length), size + length),
            });
        }
        let (crc64, length) = whole.ok_or(ErrorCode::InvalidPart)?;
        let object = Object {
            bytes: Bytewise::Generated(Content::one_of_few(user_key(key), length)),
            crc64,
            etag: ETag::of_parts(Md5::of(&sums), list.len()),
            headers: upload.headers,
            written: SystemClock.now(),
        };
        let completed = CompleteResult {
            location: key.to_owned(),
            bucket: BUCKET.to_owned(),
            key: key.to_owned(),
            etag: object.etag.clone(),
            checksum: Some(object.checksum()),
            kind: None,
        };
        self.objects.lock().insert(key.to_owned(), object);
        Ok(LateResponse::whole(completed.to_xml()))
    }
}

/// The provider.
#[derive(Debug)]
pub struct Sink {
    /// Where it listens.
    pub addr: SocketAddr,
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
    pub async fn start() -> Self {
        Self::serve(None).await
    }

    /// The same over TLS.
    pub async fn start_secured(tls: TlsAcceptor) -> Self {
        Self::serve(Some(tls)).await
    }

    async fn serve(tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0")
            .await
            .expect("the loopback has a free port");
        let addr = listener.local_addr().expect("a listener has an address");
        let state = Arc::new(State::new());
        let shared = Arc::clone(&state);
        let task = tokio::spawn(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else {
                    continue;
                };
                stream.set_nodelay(true).ok();
                let (shared, tls) = (Arc::clone(&shared), tls.clone());
                drop(tokio::spawn(async move {
                    match tls {
                        None => serve(stream, shared).await,
                        // Who cannot agree on TLS learns it from the end of the connection.
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                serve(stream, shared).await;
                            }
                        }
                    }
                }));
            }
        });
        Self { addr, state, task }
    }

    /// What a configuration calls it.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Large bodies go through this gate from now on.
    pub fn set_gate(&self, gate: &Arc<Gate>) {
        *self.state.gate.lock() = Some(Arc::clone(gate));
    }

    /// Requests that it was asked, whatever became of them.
    pub fn requests(&self) -> u64 {
        self.state.requests.load(Ordering::Relaxed)
    }

    /// The large objects that it knows.
    pub fn large_objects(&self) -> usize {
        let objects = self.state.objects.lock();
        objects
            .values()
            .filter(|object| object.size() > KEPT_BYTES_MAX)
            .count()
    }
}

async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, state: Arc<State>) {
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

async fn answer(state: &State, request: Request<Incoming>) -> Response<AnswerBody> {
    let is_head = request.method() == Method::HEAD;
    let answer = carry_out(state, request).await.unwrap_or_else(|error| {
        let document = ErrorDocument {
            code: error.code.as_str().to_owned(),
            message: error.message.clone().into_owned(),
            ..ErrorDocument::default()
        };
        LateResponse {
            status: StatusCode::from_u16(error.code.status()).expect("codes have a status"),
            ..LateResponse::whole(document.to_xml())
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

async fn carry_out(state: &State, request: Request<Incoming>) -> Result<LateResponse, Error> {
    state.requests.fetch_add(1, Ordering::Relaxed);
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
                    Ok(LateResponse {
                        status: StatusCode::NO_CONTENT,
                        ..LateResponse::whole(Bytes::new())
                    })
                }
                ObjectOp::CopyObject(source) => {
                    let mut objects = state.objects.lock();
                    let found = objects.get(source.key.as_str()).cloned();
                    let found = found.ok_or(ErrorCode::NoSuchKey)?;
                    let copied = CopyResult {
                        etag: found.etag.clone(),
                        last_modified: found.written,
                        checksum: None,
                        kind: None,
                    };
                    objects.insert(key.to_owned(), found);
                    Ok(LateResponse::whole(copied.to_xml(CopyRoot::Object)))
                }
                ObjectOp::CreateMultipartUpload => Ok(state.begin(key, &head.headers)),
                ObjectOp::UploadPart {
                    upload_id,
                    part: number,
                } => {
                    let arrived = arrive(&head.headers, body, Checked::Sums, &state.known).await?;
                    let part = Part {
                        crc64: arrived.crc64,
                        length: arrived.length,
                        etag: arrived.etag,
                    };
                    let answer = LateResponse::stored(&part.etag, part.crc64);
                    let mut uploads = state.uploads.lock();
                    let upload = uploads.get_mut(&upload_id);
                    let upload = upload.ok_or(ErrorCode::NoSuchUpload)?;
                    upload.parts.insert(number, part);
                    Ok(answer)
                }
                ObjectOp::CompleteMultipartUpload { upload_id } => {
                    let list = parse_complete(&collected(body).await?)?;
                    state.complete(key, &upload_id, &list)
                }
                ObjectOp::AbortMultipartUpload { upload_id } => {
                    state.uploads.lock().remove(&upload_id);
                    Ok(LateResponse {
                        status: StatusCode::NO_CONTENT,
                        ..LateResponse::whole(Bytes::new())
                    })
                }
                ObjectOp::UploadPartCopy(_)
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

async fn on_bucket(state: &State, op: BucketOp, body: Incoming) -> Result<LateResponse, Error> {
    match op {
        BucketOp::HeadBucket => Ok(LateResponse::whole(Bytes::new())),
        BucketOp::GetBucketVersioning => {
            Ok(LateResponse::whole(print_versioning(VersioningStatus::Off)))
        }
        BucketOp::ListObjectsV2(wanted) => Ok(LateResponse::whole(list(state, &wanted).to_xml())),
        BucketOp::ListMultipartUploads(_) => {
            Ok(LateResponse::whole(UploadsPage::default().to_xml()))
        }
        BucketOp::DeleteObjects => {
            let bytes = collected(body).await?;
            let mut objects = state.objects.lock();
            for item in Delete::from_xml(&bytes)?.items {
                objects.remove(item.key.as_str());
            }
            Ok(LateResponse::whole(DeleteResult::default().to_xml()))
        }
        BucketOp::GetBucketLocation
        | BucketOp::CreateBucket
        | BucketOp::DeleteBucket
        | BucketOp::ListObjectsV1(_)
        | BucketOp::ListObjectVersions(_)
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
    let most = usize::try_from(wanted.max_keys).expect("pages are small");
    let entries: Vec<_> = found
        .by_ref()
        .take(most)
        .map(|(key, object)| ObjectEntry {
            key: key.clone(),
            size: object.size(),
            etag: Some(object.etag.clone()),
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

async fn put(
    state: &State,
    key: &str,
    headers: &HeaderMap,
    body: Incoming,
) -> Result<LateResponse, Error> {
    let user_key = user_key(key).to_owned();
    let checked = Checked::Key(user_key.clone(), state.gate.lock().clone());
    let arrived = arrive(headers, body, checked, &state.known).await?;
    let object = Object {
        bytes: match arrived.length <= KEPT_BYTES_MAX {
            true => Bytewise::Kept(arrived.kept.into()),
            false => Bytewise::Generated(Content::one_of_few(&user_key, arrived.length)),
        },
        crc64: arrived.crc64,
        etag: arrived.etag,
        headers: s3wire::headers::stored_headers(headers),
        written: SystemClock.now(),
    };
    let answer = LateResponse::stored(&object.etag, object.crc64);
    state.objects.lock().insert(key.to_owned(), object);
    Ok(answer)
}

fn get(state: &State, object: Object, headers: &HeaderMap) -> Result<LateResponse, Error> {
    let size = object.size();
    let mut answer = object.headers();
    let (range, status) = match s3wire::headers::range(headers) {
        None => (ByteRange::whole(size), StatusCode::OK),
        Some(wanted) => {
            let range = wanted
                .resolve(size)
                .map_err(|_| Error::from(ErrorCode::InvalidRange))?;
            let text = s3wire::headers::print_content_range(range, size);
            answer.insert(
                CONTENT_RANGE,
                HeaderValue::try_from(text).expect("it is printable"),
            );
            (range, StatusCode::PARTIAL_CONTENT)
        }
    };
    let at = |bytes: u64| usize::try_from(bytes).expect("it fits into memory");
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
    Ok(LateResponse {
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
