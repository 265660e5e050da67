//! GetObject and HeadObject.
//!
//! One look-up gives a plan; conditions, ranges and part numbers are decided from it before any
//! backend is called. A body that fails half way goes on from another copy, or from the same one,
//! at the exact offset: the client notices nothing. A body never ends cleanly before its length.

mod reader;
mod resume;
mod whole;

use std::collections::HashMap;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use backend::Kind;
use base::{
    BlobId, ByteRange, Checksum, Conditions, ObjectKey, RangeSpec, ReadOutcome, Validators,
};
use bytes::Bytes;
use futures_util::stream::{self, Stream};
use metastore::model::{BucketId, ObjectRecord, PlannedExtent, ReadPlan};
use parking_lot::Mutex;

use crate::observe::Verb;
use crate::{Engine, Error, PART_NUMBER_MAX, Result, Tried};
use reader::Reader;
use whole::denied;

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

/// The bytes that a selection stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chosen {
    /// The bytes.
    pub range: ByteRange,
    /// Whether the answer is 206.
    pub partial: bool,
    /// The part, where one of several was selected.
    pub part: Option<ChosenPart>,
}

/// One of the parts that an object was uploaded in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChosenPart {
    /// How many there are.
    pub count: u32,
    /// The checksum of this one.
    pub checksum: Option<Checksum>,
}

/// What HEAD says; no backend was called.
#[derive(Debug, Clone)]
pub struct Looked {
    /// The current version.
    pub object: ObjectRecord,
    /// The selected bytes.
    pub chosen: Chosen,
}

/// What GET says.
#[derive(Debug)]
pub struct Reading {
    /// The version that is being read.
    pub object: ObjectRecord,
    /// The selected bytes.
    pub chosen: Chosen,
    /// Exactly `chosen.range.length` bytes, or an error: the connection must then be cut.
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

pub(crate) struct ReadGuard {
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
        let object = object.ok_or_else(|| self.absent(Error::NoSuchKey))?;
        let chosen = self.decide(&object, request).await?;
        Ok(Looked { object, chosen })
    }

    /// Begins to read an object.
    pub async fn read(&self, request: &ReadRequest) -> Result<Reading> {
        let verb = Verb::begin("GetObject");
        let result = self.read_unobserved(request).await;
        self.observe_verb(verb, None, &result);
        result
    }

    async fn read_unobserved(&self, request: &ReadRequest) -> Result<Reading> {
        let plan = self
            .inner
            .store
            .plan(request.bucket, &request.key)
            .await?
            .ok_or_else(|| self.absent(Error::NoSuchKey))?;
        match self.begin(request, plan).await {
            // The object may have been replaced, and its bytes deleted, since the look-up.
            Err((Error::ReadUnavailable { tried }, version)) if any_missing(&tried) => {
                let plan = self.inner.store.plan(request.bucket, &request.key).await?;
                let plan = plan.ok_or_else(|| self.absent(Error::NoSuchKey))?;
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
        let chosen = self
            .decide(&plan.object, request)
            .await
            .map_err(|error| (error, version))?;
        let ReadPlan { object, extents } = plan;
        let body = self
            .open(extents, chosen.range)
            .await
            .map_err(|error| (error, version))?;
        Ok(Reading {
            object,
            chosen,
            body,
        })
    }

    /// Begins to read a range of an object that lies there; the first backend has answered after `Ok`.
    pub(crate) async fn open(
        &self,
        extents: Vec<PlannedExtent>,
        range: ByteRange,
    ) -> Result<ReadStream> {
        let blobs = extents.iter().map(|part| part.extent.blob);
        let guard = self.inner.reads.begin(blobs);
        // Boxed, since each chunk moves it into a future and back.
        let mut reader = Box::new(Reader::new(self, extents, range, guard)?);
        reader.advance().await?;
        reader.compare_ahead().await?;
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

    async fn decide(&self, object: &ObjectRecord, request: &ReadRequest) -> Result<Chosen> {
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
            Selection::All => Ok(Chosen {
                range: ByteRange::whole(size),
                partial: false,
                part: None,
            }),
            Selection::Range(range) => match range.resolve(size) {
                Ok(range) => Ok(Chosen {
                    range,
                    partial: true,
                    part: None,
                }),
                // As Amazon S3: readers of footers ask for the last bytes of whatever there is.
                Err(_) if size == 0 && matches!(range, RangeSpec::Suffix { length: 1.. }) => {
                    Ok(Chosen {
                        range: ByteRange::whole(0),
                        partial: false,
                        part: None,
                    })
                }
                Err(_) => Err(Error::InvalidRange { size }),
            },
            Selection::Part(number) => self.choose_part(object, number).await,
        }
    }

    async fn choose_part(&self, object: &ObjectRecord, number: u32) -> Result<Chosen> {
        let Some(count) = object.parts else {
            return match number {
                1 => Ok(Chosen {
                    range: ByteRange::whole(object.size),
                    partial: object.size > 0,
                    part: None,
                }),
                _ => Err(Error::NoSuchPart),
            };
        };
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
        Ok(Chosen {
            range: ByteRange {
                start,
                length: part.size,
            },
            partial: true,
            part: Some(ChosenPart {
                count,
                checksum: part.checksum,
            }),
        })
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
                    .mark_copy(copy.copy, denied(copy.state))
                    .await
                {
                    tracing::warn!(error = %base::report(&error), "could not record a suspect copy");
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
