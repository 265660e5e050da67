//! Failures of a provider, on purpose: drawn from a seed or told by a script.
//!
//! [`FaultyBackend`] wraps any backend; the test keeps the [`Faults`] handle and heals the backend
//! when it wants. Every failure is one that real providers show, the lies included: an effect without
//! an answer, an effect long after the error, a body that ends cleanly before its time. All waiting
//! is tokio's, so paused time works.

mod faults;
mod turns;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use base::{BackendKey, BackendName, ByteRange, ETag, Md5};
use bytes::{Bytes, BytesMut};
use futures_util::future::BoxFuture;
use futures_util::{StreamExt as _, stream};

use crate::{
    Body, Capabilities, Chunks, Copied, DeleteTarget, Effect, Error, Fetched, Head, Kind, ListPage,
    ListRequest, ListedUpload, ObjectBackend, PartFact, PartListPage, PartSource, Payload,
    PayloadCut, Proof, PutMeta, Result, Stored, UploadListPage, VersionPage, VersionRef,
};
use faults::Shape;
pub use faults::{Fault, Faults, Rates};
pub use turns::Turns;

/// How long a stalled call waits before it gives up by itself: longer than any caller's patience.
pub const STALL: Duration = Duration::from_secs(3600);

/// How long it takes until a lost answer is missed, or a slow one comes: callers may go away in between.
const SILENCE: Duration = Duration::from_secs(5);

/// A backend that fails when told to.
pub struct FaultyBackend {
    inner: Arc<dyn ObjectBackend>,
    faults: Faults,
}

impl fmt::Debug for FaultyBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FaultyBackend")
            .field("faults", &self.faults)
            .finish_non_exhaustive()
    }
}

impl FaultyBackend {
    /// Wraps a backend; it fails as the handle says.
    pub fn new(inner: Arc<dyn ObjectBackend>, faults: Faults) -> Self {
        Self { inner, faults }
    }

    fn error(&self, kind: Kind, effect: Effect, operation: &'static str) -> Error {
        Error::new(kind, effect, self.inner.name(), operation).with_message("injected")
    }

    /// The error of a call whose answer did not come.
    fn lost(&self, operation: &'static str) -> Error {
        let kind = match self.faults.below(2) {
            0 => Kind::TimedOut,
            _ => Kind::Unavailable,
        };
        self.error(kind, Effect::Unknown, operation)
    }

    async fn act<T: Send + 'static>(
        &self,
        operation: &'static str,
        shape: Shape,
        call: BoxFuture<'static, Result<T>>,
    ) -> Result<T> {
        let Some(fault) = self.faults.next(operation, shape) else {
            return call.await;
        };
        match fault {
            Fault::Refuse => Err(self.error(Kind::Unavailable, Effect::None, operation)),
            Fault::Full => Err(self.error(Kind::Full, Effect::None, operation)),
            Fault::Missing => Err(self.error(Kind::NotFound, Effect::None, operation)),
            Fault::Stall => {
                tokio::time::sleep(STALL).await;
                Err(self.error(Kind::TimedOut, Effect::Unknown, operation))
            }
            Fault::Cut => Err(self.lost(operation)),
            Fault::LoseReply => {
                call.await?;
                tokio::time::sleep(SILENCE).await;
                Err(self.lost(operation))
            }
            Fault::Late => {
                self.faults.defer(Box::pin(async move {
                    // Nobody waits for this outcome any more.
                    let _ = call.await;
                }));
                tokio::time::sleep(SILENCE).await;
                Err(self.lost(operation))
            }
            Fault::Slow => {
                let done = call.await;
                tokio::time::sleep(SILENCE).await;
                done
            }
            Fault::Reply(kind) => Err(self.error(kind, Effect::None, operation)),
            Fault::CutBody
            | Fault::ShortBody
            | Fault::FirstByte
            | Fault::WrongByte
            | Fault::NoEcho
            | Fault::OtherTag
            | Fault::OtherReply
            | Fault::EmptyPage
            | Fault::EndlessPage
            | Fault::IgnoreCondition => {
                unreachable!("these fit only a call that handles them itself")
            }
        }
    }

    /// A call with a payload, whose reply repeats a checksum only where that is pretended.
    async fn send(
        &self,
        operation: &'static str,
        payload: Payload,
        call: impl FnOnce(Payload) -> BoxFuture<'static, Result<Stored>> + Send,
    ) -> Result<Stored> {
        let stored = self.send_or_fail(operation, payload, call).await?;
        let pretended = self.faults.pretended();
        Ok(if pretended.is_some_and(|able| !able.echoes_checksum) {
            without_echo(stored)
        } else {
            stored
        })
    }

    async fn send_or_fail(
        &self,
        operation: &'static str,
        mut payload: Payload,
        call: impl FnOnce(Payload) -> BoxFuture<'static, Result<Stored>> + Send,
    ) -> Result<Stored> {
        let Some(fault) = self.faults.next(operation, Shape::Send) else {
            return call(payload).await;
        };
        match fault {
            Fault::Stall => {
                let taken = self.faults.below(payload.length);
                payload.chunks = cut_behind(payload.chunks, taken);
                while let Some(Ok(_)) = payload.chunks.next().await {}
                tokio::time::sleep(STALL).await;
                Err(self.error(Kind::TimedOut, Effect::Unknown, operation))
            }
            Fault::Cut => {
                if payload.length > 0 {
                    let taken = self.faults.below(payload.length);
                    payload.chunks = cut_behind(payload.chunks, taken);
                    // The backend sees a body that breaks off, and must leave nothing visible.
                    let _ = call(payload).await;
                }
                Err(self.lost(operation))
            }
            Fault::LoseReply => {
                call(payload).await?;
                tokio::time::sleep(SILENCE).await;
                Err(self.lost(operation))
            }
            Fault::Late => {
                let whole = collect(payload).await.map_err(|cut| {
                    self.error(Kind::PayloadCut, Effect::None, operation)
                        .with_source(cut)
                })?;
                let call = call(whole);
                self.faults.defer(Box::pin(async move {
                    let _ = call.await;
                }));
                Err(self.lost(operation))
            }
            Fault::NoEcho => Ok(without_echo(call(payload).await?)),
            Fault::OtherTag => Ok(Stored {
                etag: Some(ETag::of_body(Md5::of(b"another object"))),
                ..call(payload).await?
            }),
            Fault::OtherReply => {
                collect(payload).await.map_err(|cut| {
                    self.error(Kind::PayloadCut, Effect::None, operation)
                        .with_source(cut)
                })?;
                Ok(Stored {
                    etag: Some(ETag::of_body(Md5::of(b"another object"))),
                    version: None,
                    crc64: None,
                    proof: Proof::Checksum,
                })
            }
            Fault::Full => Err(self.error(Kind::Full, Effect::None, operation)),
            Fault::Reply(kind) => Err(self.error(kind, Effect::None, operation)),
            Fault::Refuse
            | Fault::Missing
            | Fault::CutBody
            | Fault::ShortBody
            | Fault::FirstByte
            | Fault::WrongByte
            | Fault::EmptyPage
            | Fault::EndlessPage
            | Fault::Slow
            | Fault::IgnoreCondition => Err(self.error(Kind::Unavailable, Effect::None, operation)),
        }
    }
}

/// A reply that does not repeat the checksum that it verified.
fn without_echo(stored: Stored) -> Stored {
    Stored {
        crc64: None,
        ..stored
    }
}

/// A body in which the byte at this offset is another one.
fn with_wrong_byte(body: Body, offset: u64) -> Body {
    Box::pin(body.scan(offset, |left, chunk| {
        let chunk = chunk.map(|chunk| {
            let place = usize::try_from(*left).ok().filter(|at| *at < chunk.len());
            let Some(place) = place else {
                *left = left.saturating_sub(chunk.len() as u64);
                return chunk;
            };
            *left = u64::MAX;
            let mut bytes = chunk.to_vec();
            bytes[place] ^= 1;
            bytes.into()
        });
        std::future::ready(Some(chunk))
    }))
}

/// The first `bytes` of a body, then the cut.
fn cut_behind(chunks: Chunks, bytes: u64) -> Chunks {
    let kept = chunks.scan(bytes, |left, chunk| {
        let next = match chunk {
            Ok(_) if *left == 0 => None,
            Ok(mut chunk) => {
                let fits = usize::try_from(*left).unwrap_or(usize::MAX);
                chunk.truncate(fits);
                *left -= chunk.len() as u64;
                Some(Ok(chunk))
            }
            Err(cut) => Some(Err(cut)),
        };
        std::future::ready(next)
    });
    Box::pin(kept.chain(stream::iter([Err(PayloadCut)])))
}

/// A body that ends behind `bytes`, with `end` as its last item if there is one.
fn end_behind(body: Body, bytes: u64, end: Option<Error>) -> Body {
    let kept = body.scan(bytes, |left, chunk| {
        let next = match chunk {
            Ok(_) if *left == 0 => None,
            Ok(mut chunk) => {
                let fits = usize::try_from(*left).unwrap_or(usize::MAX);
                chunk.truncate(fits);
                *left -= chunk.len() as u64;
                Some(Ok(chunk))
            }
            Err(error) => Some(Err(error)),
        };
        std::future::ready(next)
    });
    Box::pin(kept.chain(stream::iter(end.map(Err))))
}

async fn collect(mut payload: Payload) -> std::result::Result<Payload, PayloadCut> {
    let mut bytes = BytesMut::new();
    while let Some(chunk) = payload.chunks.next().await {
        bytes.extend_from_slice(&chunk?);
    }
    if bytes.len() as u64 != payload.length {
        return Err(PayloadCut);
    }
    payload.chunks = Box::pin(stream::iter([Ok(bytes.freeze())]));
    Ok(payload)
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl ObjectBackend for FaultyBackend {
    fn name(&self) -> &BackendName {
        self.inner.name()
    }

    fn capabilities(&self) -> Capabilities {
        let pretended = self.faults.pretended();
        pretended.unwrap_or_else(|| self.inner.capabilities())
    }

    fn adopt(&self, capabilities: Capabilities) {
        self.inner.adopt(capabilities);
    }

    async fn probe(&self) -> Result<Capabilities> {
        let inner = Arc::clone(&self.inner);
        self.act(
            "probe",
            Shape::Ask,
            Box::pin(async move { inner.probe().await }),
        )
        .await
    }

    async fn check(&self) -> Result<()> {
        let inner = Arc::clone(&self.inner);
        self.act(
            "check",
            Shape::Ask,
            Box::pin(async move { inner.check().await }),
        )
        .await
    }

    async fn put(&self, key: &BackendKey, meta: &PutMeta, payload: Payload) -> Result<Stored> {
        let (inner, key, meta) = (Arc::clone(&self.inner), key.clone(), meta.clone());
        let call = move |payload| -> BoxFuture<'static, Result<Stored>> {
            Box::pin(async move { inner.put(&key, &meta, payload).await })
        };
        self.send("put", payload, call).await
    }

    async fn get(
        &self,
        key: &BackendKey,
        version: Option<&str>,
        range: Option<ByteRange>,
    ) -> Result<Fetched> {
        let fault = self.faults.next("get", Shape::Fetch);
        match fault {
            None
            | Some(Fault::CutBody | Fault::ShortBody | Fault::FirstByte | Fault::WrongByte) => {}
            Some(Fault::Stall) => {
                tokio::time::sleep(STALL).await;
                return Err(self.error(Kind::TimedOut, Effect::None, "get"));
            }
            Some(Fault::Missing) => {
                return Err(self.error(Kind::NotFound, Effect::None, "get"));
            }
            Some(Fault::Reply(kind)) => return Err(self.error(kind, Effect::None, "get")),
            Some(
                Fault::Refuse
                | Fault::Cut
                | Fault::LoseReply
                | Fault::Late
                | Fault::Full
                | Fault::NoEcho
                | Fault::OtherTag
                | Fault::OtherReply
                | Fault::EmptyPage
                | Fault::EndlessPage
                | Fault::Slow
                | Fault::IgnoreCondition,
            ) => {
                return Err(self.error(Kind::Unavailable, Effect::None, "get"));
            }
        }
        let mut fetched = self.inner.get(key, version, range).await?;
        let length = range.map_or(fetched.head.size, |range| range.length);
        if fault == Some(Fault::WrongByte) {
            fetched.body = with_wrong_byte(fetched.body, self.faults.below(length));
            return Ok(fetched);
        }
        let end = match fault {
            Some(Fault::CutBody | Fault::FirstByte) => {
                Some(self.error(Kind::Unavailable, Effect::None, "get"))
            }
            Some(Fault::ShortBody) => None,
            _ => return Ok(fetched),
        };
        let kept = match fault {
            Some(Fault::FirstByte) => 1,
            _ => self.faults.below(length),
        };
        fetched.body = end_behind(fetched.body, kept, end);
        Ok(fetched)
    }

    async fn head(&self, key: &BackendKey, version: Option<&str>) -> Result<Head> {
        let (inner, key) = (Arc::clone(&self.inner), key.clone());
        let version = version.map(str::to_owned);
        let call = async move { inner.head(&key, version.as_deref()).await };
        self.act("head", Shape::Look, Box::pin(call)).await
    }

    async fn delete(&self, targets: &[DeleteTarget]) -> Vec<Result<()>> {
        let fault = self.faults.next("delete", Shape::Change);
        let all = |make: &dyn Fn() -> Error| targets.iter().map(|_| Err(make())).collect();
        match fault {
            None => self.inner.delete(targets).await,
            Some(Fault::Stall) => {
                tokio::time::sleep(STALL).await;
                all(&|| self.error(Kind::TimedOut, Effect::Unknown, "delete"))
            }
            Some(Fault::Cut) => {
                let some = usize::try_from(self.faults.below(targets.len() as u64)).unwrap_or(0);
                let _ = self.inner.delete(&targets[..some]).await;
                all(&|| self.lost("delete"))
            }
            Some(Fault::LoseReply) => {
                let _ = self.inner.delete(targets).await;
                all(&|| self.lost("delete"))
            }
            Some(Fault::Late) => {
                let (inner, targets) = (Arc::clone(&self.inner), targets.to_vec());
                self.faults.defer(Box::pin(async move {
                    let _ = inner.delete(&targets).await;
                }));
                all(&|| self.lost("delete"))
            }
            Some(Fault::Reply(kind)) => all(&|| self.error(kind, Effect::None, "delete")),
            Some(
                Fault::Refuse
                | Fault::Full
                | Fault::Missing
                | Fault::CutBody
                | Fault::ShortBody
                | Fault::FirstByte
                | Fault::WrongByte
                | Fault::NoEcho
                | Fault::OtherTag
                | Fault::OtherReply
                | Fault::EmptyPage
                | Fault::EndlessPage
                | Fault::Slow
                | Fault::IgnoreCondition,
            ) => all(&|| self.error(Kind::Unavailable, Effect::None, "delete")),
        }
    }

    async fn copy(
        &self,
        source: &BackendKey,
        source_version: Option<&str>,
        key: &BackendKey,
        meta: &PutMeta,
    ) -> Result<Copied> {
        let (inner, source, key) = (Arc::clone(&self.inner), source.clone(), key.clone());
        let (version, meta) = (source_version.map(str::to_owned), meta.clone());
        let call = async move { inner.copy(&source, version.as_deref(), &key, &meta).await };
        self.act("copy", Shape::Grow, Box::pin(call)).await
    }

    async fn list(&self, request: &ListRequest) -> Result<ListPage> {
        if self.faults.take("list", Fault::EmptyPage) {
            return Ok(ListPage {
                objects: Vec::new(),
                truncated: true,
            });
        }
        let (inner, request) = (Arc::clone(&self.inner), request.clone());
        self.act(
            "list",
            Shape::Ask,
            Box::pin(async move { inner.list(&request).await }),
        )
        .await
    }

    async fn versions(&self, key: &BackendKey) -> Result<VersionPage> {
        if self.faults.take("versions", Fault::EndlessPage) {
            return Ok(VersionPage {
                versions: vec![VersionRef {
                    version: Some("never-was".to_owned()),
                    delete_marker: false,
                }],
                truncated: true,
            });
        }
        let (inner, key) = (Arc::clone(&self.inner), key.clone());
        self.act(
            "versions",
            Shape::Ask,
            Box::pin(async move { inner.versions(&key).await }),
        )
        .await
    }

    async fn create_upload(&self, key: &BackendKey, meta: &PutMeta) -> Result<String> {
        let (inner, key, meta) = (Arc::clone(&self.inner), key.clone(), meta.clone());
        let call = async move { inner.create_upload(&key, &meta).await };
        self.act("create_upload", Shape::Grow, Box::pin(call)).await
    }

    async fn upload_part(
        &self,
        key: &BackendKey,
        upload: &str,
        number: u32,
        meta: &PutMeta,
        payload: Payload,
    ) -> Result<Stored> {
        let (inner, key, meta) = (Arc::clone(&self.inner), key.clone(), meta.clone());
        let upload = upload.to_owned();
        let call = move |payload| -> BoxFuture<'static, Result<Stored>> {
            Box::pin(async move {
                inner
                    .upload_part(&key, &upload, number, &meta, payload)
                    .await
            })
        };
        self.send("upload_part", payload, call).await
    }

    async fn upload_part_copy(
        &self,
        key: &BackendKey,
        upload: &str,
        number: u32,
        source: &PartSource,
    ) -> Result<Copied> {
        let (inner, key, source) = (Arc::clone(&self.inner), key.clone(), source.clone());
        let upload = upload.to_owned();
        let call = async move { inner.upload_part_copy(&key, &upload, number, &source).await };
        self.act("upload_part_copy", Shape::Grow, Box::pin(call))
            .await
    }

    async fn complete_upload(
        &self,
        key: &BackendKey,
        upload: &str,
        parts: &[PartFact],
    ) -> Result<Stored> {
        let (inner, key, parts) = (Arc::clone(&self.inner), key.clone(), parts.to_vec());
        let upload = upload.to_owned();
        let call = async move { inner.complete_upload(&key, &upload, &parts).await };
        self.act("complete_upload", Shape::Change, Box::pin(call))
            .await
    }

    async fn abort_upload(&self, key: &BackendKey, upload: &str) -> Result<()> {
        let (inner, key, upload) = (Arc::clone(&self.inner), key.clone(), upload.to_owned());
        let call = async move { inner.abort_upload(&key, &upload).await };
        self.act("abort_upload", Shape::Change, Box::pin(call))
            .await
    }

    async fn list_parts(&self, key: &BackendKey, upload: &str, after: u32) -> Result<PartListPage> {
        let (inner, key, upload) = (Arc::clone(&self.inner), key.clone(), upload.to_owned());
        let call = async move { inner.list_parts(&key, &upload, after).await };
        self.act("list_parts", Shape::Ask, Box::pin(call)).await
    }

    async fn list_uploads(
        &self,
        prefix: &str,
        after: Option<&ListedUpload>,
    ) -> Result<UploadListPage> {
        let (inner, prefix) = (Arc::clone(&self.inner), prefix.to_owned());
        let after = after.cloned();
        let call = async move { inner.list_uploads(&prefix, after.as_ref()).await };
        self.act("list_uploads", Shape::Ask, Box::pin(call)).await
    }

    async fn read_marker(&self) -> Result<Option<Bytes>> {
        let _turn = self.faults.turn().await;
        let inner = Arc::clone(&self.inner);
        self.act(
            "read_marker",
            Shape::Ask,
            Box::pin(async move { inner.read_marker().await }),
        )
        .await
    }

    async fn write_marker(&self, content: Bytes) -> Result<()> {
        let _turn = self.faults.turn().await;
        let inner = Arc::clone(&self.inner);
        let call = async move { inner.write_marker(content).await };
        self.act("write_marker", Shape::Change, Box::pin(call))
            .await
    }

    async fn create_marker(&self, content: Bytes) -> Result<()> {
        let _turn = self.faults.turn().await;
        if self.faults.take("create_marker", Fault::IgnoreCondition) {
            return self.inner.write_marker(content).await;
        }
        let inner = Arc::clone(&self.inner);
        let call = async move { inner.create_marker(content).await };
        self.act("create_marker", Shape::Change, Box::pin(call))
            .await
    }
}
