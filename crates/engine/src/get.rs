//! GetObject and HeadObject.
//!
//! One look-up gives a plan; conditions, ranges and part numbers are decided from it before any
//! backend is called. A body that fails half way goes on from another copy, or from the same one,
//! at the exact offset: the client notices nothing. A body never ends cleanly before its length.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use backend::{Body, Kind, ObjectBackend as _};
use base::{BlobId, ByteRange, Conditions, ObjectKey, RangeSpec, ReadOutcome, Validators};
use bytes::Bytes;
use futures_util::stream::{self, Stream, StreamExt};
use metastore::model::{BucketId, CopyRow, CopyState, ObjectRecord, PlannedExtent, ReadPlan};
use parking_lot::Mutex;

use crate::{Engine, Error, PART_NUMBER_MAX, Result, Tried};

/// How often a body is picked up again without a byte of progress in between.
const RESUMES_MAX: u32 = 3;

/// Which bytes of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Selection {
    /// All of them.
    All,
    /// A range.
    Range(RangeSpec),
    /// The part with this number, as it was uploaded.
    Part(u32),
}

/// An object to read.
#[derive(Debug, Clone)]
pub struct ReadRequest {
    /// Its bucket.
    pub bucket: BucketId,
    /// Its key.
    pub key: ObjectKey,
    /// Which bytes.
    pub selection: Selection,
    /// Under which conditions.
    pub conditions: Conditions,
}

/// What HEAD says; no backend was called.
#[derive(Debug, Clone)]
pub struct Looked {
    /// The current version.
    pub object: ObjectRecord,
    /// The selected bytes.
    pub range: ByteRange,
    /// Whether the answer is 206.
    pub partial: bool,
    /// The number of parts, where a part was selected.
    pub parts: Option<u32>,
}

/// What GET says.
#[derive(Debug)]
pub struct Reading {
    /// The version that is being read.
    pub object: ObjectRecord,
    /// The selected bytes.
    pub range: ByteRange,
    /// Whether the answer is 206.
    pub partial: bool,
    /// The number of parts, where a part was selected.
    pub parts: Option<u32>,
    /// Exactly `range.length` bytes, or an error: the connection must then be cut.
    pub body: ReadStream,
}

/// Bytes on their way to a client.
pub struct ReadStream(Pin<Box<dyn Stream<Item = Result<Bytes>> + Send>>);

impl Stream for ReadStream {
    type Item = Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.as_mut().poll_next(context)
    }
}

impl fmt::Debug for ReadStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReadStream").finish_non_exhaustive()
    }
}

/// Blobs that this process is reading: the cleaner leaves them alone.
#[derive(Clone, Default)]
pub(crate) struct Reads(Arc<Mutex<HashMap<BlobId, u32>>>);

impl Reads {
    pub(crate) fn is_reading(&self, blob: BlobId) -> bool {
        self.0.lock().contains_key(&blob)
    }

    fn begin(&self, blobs: impl Iterator<Item = BlobId>) -> ReadGuard {
        let blobs: Vec<_> = blobs.collect();
        let mut counts = self.0.lock();
        for blob in &blobs {
            *counts.entry(*blob).or_default() += 1;
        }
        ReadGuard {
            reads: self.clone(),
            blobs,
        }
    }
}

struct ReadGuard {
    reads: Reads,
    blobs: Vec<BlobId>,
}

impl Drop for ReadGuard {
    fn drop(&mut self) {
        let mut counts = self.reads.0.lock();
        for blob in &self.blobs {
            if let Some(count) = counts.get_mut(blob) {
                *count -= 1;
                if *count == 0 {
                    counts.remove(blob);
                }
            }
        }
    }
}

impl Engine {
    /// Says what a read would return, from the catalogue alone.
    pub async fn look(&self, request: &ReadRequest) -> Result<Looked> {
        let object = self
            .inner
            .store
            .object(request.bucket, &request.key)
            .await?;
        let object = object.ok_or(Error::NoSuchKey)?;
        let (range, partial, parts) = self.decide(&object, request).await?;
        Ok(Looked {
            object,
            range,
            partial,
            parts,
        })
    }

    /// Begins to read an object.
    pub async fn read(&self, request: &ReadRequest) -> Result<Reading> {
        self.observed("GetObject", self.read_unobserved(request))
            .await
    }

    async fn read_unobserved(&self, request: &ReadRequest) -> Result<Reading> {
        let plan = self
            .inner
            .store
            .plan(request.bucket, &request.key)
            .await?
            .ok_or(Error::NoSuchKey)?;
        match self.begin(request, plan).await {
            // The object may have been replaced, and its bytes deleted, since the look-up.
            Err((Error::ReadUnavailable { tried }, version)) if any_missing(&tried) => {
                let plan = self.inner.store.plan(request.bucket, &request.key).await?;
                let plan = plan.ok_or(Error::NoSuchKey)?;
                if plan.object.version == version {
                    self.suspect(&tried, &plan).await;
                    return Err(Error::ReadUnavailable { tried });
                }
                self.begin(request, plan).await.map_err(|(error, _)| error)
            }
            other => other.map_err(|(error, _)| error),
        }
    }

    async fn begin(
        &self,
        request: &ReadRequest,
        plan: ReadPlan,
    ) -> std::result::Result<Reading, (Error, base::VersionId)> {
        let version = plan.object.version;
        let decided = self
            .decide(&plan.object, request)
            .await
            .map_err(|error| (error, version))?;
        let (range, partial, parts) = decided;
        let body = self
            .open(&plan, range)
            .await
            .map_err(|error| (error, version))?;
        Ok(Reading {
            object: plan.object,
            range,
            partial,
            parts,
            body,
        })
    }

    /// Begins to read a range of a planned object; the first backend has answered after `Ok`.
    pub(crate) async fn open(&self, plan: &ReadPlan, range: ByteRange) -> Result<ReadStream> {
        let guard = self
            .inner
            .reads
            .begin(plan.extents.iter().map(|part| part.extent.blob));
        let mut reader = Reader {
            engine: self.clone(),
            pieces: pieces(plan, range),
            current: None,
            _guard: guard,
        };
        reader.advance().await?;
        let body = stream::unfold(Some(reader), |reader| async move {
            let mut reader = reader?;
            match reader.next().await {
                Ok(Some(bytes)) => Some((Ok(bytes), Some(reader))),
                Ok(None) => None,
                Err(error) => Some((Err(error), None)),
            }
        });
        Ok(ReadStream(Box::pin(body)))
    }

    async fn decide(
        &self,
        object: &ObjectRecord,
        request: &ReadRequest,
    ) -> Result<(ByteRange, bool, Option<u32>)> {
        let current = Validators {
            etag: &object.etag,
            last_modified: object.last_modified,
        };
        match request.conditions.read(current) {
            ReadOutcome::Proceed => {}
            ReadOutcome::Fail => return Err(Error::PreconditionFailed),
            ReadOutcome::NotModified => {
                let last_modified = object.last_modified;
                return Err(Error::NotModified {
                    etag: object.etag.clone(),
                    last_modified,
                });
            }
        }
        let size = object.size;
        match request.selection {
            Selection::All => Ok((ByteRange::whole(size), false, None)),
            Selection::Range(range) => match range.resolve(size) {
                Ok(range) => Ok((range, true, None)),
                Err(_) => Err(Error::InvalidRange { size }),
            },
            Selection::Part(number) => self.part_range(object, number).await,
        }
    }

    async fn part_range(
        &self,
        object: &ObjectRecord,
        number: u32,
    ) -> Result<(ByteRange, bool, Option<u32>)> {
        if object.parts.is_none() {
            return match number {
                1 => Ok((ByteRange::whole(object.size), object.size > 0, None)),
                _ => Err(Error::NoSuchPart),
            };
        }
        // The parts of an object are numbered anew from 1, as Amazon S3 does for reads.
        let parts = self
            .inner
            .store
            .parts_of(object.version, 0, PART_NUMBER_MAX)
            .await?;
        let place = usize::try_from(number)
            .unwrap_or(usize::MAX)
            .wrapping_sub(1);
        let part = parts.get(place).ok_or(Error::NoSuchPart)?;
        let start = parts[..place].iter().map(|part| part.size).sum();
        Ok((
            ByteRange {
                start,
                length: part.size,
            },
            true,
            object.parts,
        ))
    }

    /// Marks copies that a backend denied having: repair work.
    async fn suspect(&self, tried: &Tried, plan: &ReadPlan) {
        for (name, error) in &tried.0 {
            if error.kind != Kind::NotFound {
                continue;
            }
            for copy in plan.extents.iter().flat_map(|part| &part.copies) {
                let member = self.inner.fleet.member(copy.backend);
                if member.is_none_or(|member| member.name() != name) {
                    continue;
                }
                tracing::error!(copy = %copy.copy, backend = %name, key = %copy.key, "copy is missing");
                if let Err(error) = self
                    .inner
                    .store
                    .mark_copy(copy.copy, CopyState::Suspect)
                    .await
                {
                    tracing::warn!(error = %base::report(&error), "suspect copy not recorded");
                }
            }
        }
    }
}

fn any_missing(tried: &Tried) -> bool {
    tried
        .0
        .iter()
        .any(|(_, error)| error.kind == Kind::NotFound)
}

/// Bytes of one blob that are still to be read.
struct Piece {
    extent: PlannedExtent,
    /// The bytes within the blob.
    range: ByteRange,
}

/// The parts of the extents that lie in the range, in order.
fn pieces(plan: &ReadPlan, range: ByteRange) -> VecDeque<Piece> {
    let mut at = 0;
    let mut pieces = VecDeque::new();
    for extent in &plan.extents {
        let here = ByteRange {
            start: at,
            length: extent.extent.length,
        };
        if let Some(wanted) = here.intersect(range) {
            let start = extent.extent.offset + (wanted.start - at);
            let range = ByteRange {
                start,
                length: wanted.length,
            };
            pieces.push_back(Piece {
                extent: extent.clone(),
                range,
            });
        }
        at += extent.extent.length;
    }
    pieces
}

struct Current {
    piece: Piece,
    body: Body,
    resumes: u32,
}

struct Reader {
    engine: Engine,
    pieces: VecDeque<Piece>,
    current: Option<Current>,
    _guard: ReadGuard,
}

impl Reader {
    /// Opens the next piece, where there is one.
    async fn advance(&mut self) -> Result<()> {
        let Some(piece) = self.pieces.pop_front() else {
            return Ok(());
        };
        let body = open_piece(&self.engine, &piece).await?;
        self.current = Some(Current {
            piece,
            body,
            resumes: 0,
        });
        Ok(())
    }

    async fn next(&mut self) -> Result<Option<Bytes>> {
        loop {
            let Some(current) = &mut self.current else {
                return Ok(None);
            };
            if current.piece.range.length == 0 {
                self.current = None;
                self.advance().await?;
                continue;
            }
            let failure = match current.body.next().await {
                Some(Ok(bytes)) if bytes.is_empty() => continue,
                Some(Ok(bytes)) if bytes.len() as u64 <= current.piece.range.length => {
                    current.piece.range.start += bytes.len() as u64;
                    current.piece.range.length -= bytes.len() as u64;
                    current.resumes = 0;
                    return Ok(Some(bytes));
                }
                Some(Err(error)) => Some(error),
                // Too long or too short: another answer may be right.
                Some(Ok(_)) | None => None,
            };
            current.resumes += 1;
            if current.resumes > RESUMES_MAX {
                let tried = failure.map(|error| (error.backend.clone(), error));
                return Err(Error::ReadUnavailable {
                    tried: Tried(tried.into_iter().collect()),
                });
            }
            if let Some(error) = failure {
                tracing::warn!(error = %base::report(&error), "body goes on from another answer");
            }
            current.body = open_piece(&self.engine, &current.piece).await?;
        }
    }
}

/// Opens a piece at the best copy that answers.
async fn open_piece(engine: &Engine, piece: &Piece) -> Result<Body> {
    let mut copies: Vec<&CopyRow> = piece.extent.copies.iter().collect();
    copies.sort_by_key(|copy| match copy.state {
        CopyState::Good => 0,
        CopyState::Suspect => 1,
    });
    let mut tried = Tried::default();
    for copy in copies {
        let Some(member) = engine.inner.fleet.member(copy.backend) else {
            continue;
        };
        // A backend that lost its mount denies having anything; that must not be believed.
        if !member.in_service() {
            let effect = backend::Effect::None;
            let error = backend::Error::new(Kind::Unavailable, effect, member.name(), "get");
            tried
                .0
                .push((member.name().clone(), error.with_message("out of service")));
            continue;
        }
        let whole = piece.range == ByteRange::whole(piece.extent.blob_size);
        let range = (!whole).then_some(piece.range);
        let fetched = member
            .backend()
            .get(&copy.key, copy.version.as_deref(), range)
            .await;
        match fetched {
            Ok(fetched) if fetched.head.size == piece.extent.blob_size => {
                if copy.state == CopyState::Suspect {
                    engine
                        .inner
                        .store
                        .mark_copy(copy.copy, CopyState::Good)
                        .await?;
                }
                return Ok(fetched.body);
            }
            Ok(fetched) => {
                let error =
                    backend::Error::new(Kind::Corrupt, backend::Effect::None, member.name(), "get");
                let words = format!(
                    "the copy has {} bytes instead of {}",
                    fetched.head.size, piece.extent.blob_size
                );
                tried
                    .0
                    .push((member.name().clone(), error.with_message(words)));
            }
            Err(error) => tried.0.push((member.name().clone(), error)),
        }
    }
    Err(Error::ReadUnavailable { tried })
}
