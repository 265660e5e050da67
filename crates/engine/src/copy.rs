//! CopyObject: native where the backend that holds the source can do it, streamed otherwise.

use std::sync::Arc;

use backend::{Capabilities, Effect, Kind, ObjectBackend as _};
use base::{
    BlobId, ByteRange, ByteSize, ChecksumAlgorithm, ChecksumKind, Conditions, CopyId, Crc64, ETag,
    ObjectHeaders, ObjectKey, Precondition, Tags, Timestamp, Traffic, Validators, VersionId,
    full_object,
};
use futures_util::stream::StreamExt;
use metastore::Intent;
use metastore::model::{
    BucketId, Content, CopyRow, CopyState, Extent, NewBlob, NewCopy, NewIntent, NewVersion,
    ObjectRecord, PlannedExtent, ReadPlan, StoredChecksum,
};

use crate::body::{Declared, Incoming};
use crate::fleet::Member;
use crate::keys::Role;
use crate::observe::Verb;
use crate::put::{PutAttempts, PutRequest, WritePlan, give_up};
use crate::send::send;
use crate::{Engine, Error, PART_NUMBER_MAX, Result};

/// The most bytes that CopyObject or UploadPartCopy takes at once.
///
/// Source: Amazon S3 API reference, CopyObject and UploadPartCopy.
pub const COPY_BYTES_MAX: u64 = 5 << 30;

/// What is copied.
#[derive(Debug, Clone)]
pub struct CopySource {
    /// Its bucket.
    pub bucket: BucketId,
    /// Its key.
    pub key: ObjectKey,
    /// What must hold of it.
    pub conditions: Conditions,
}

/// Where something that the copy has comes from.
#[derive(Debug, Clone)]
pub enum Taken<T> {
    /// From the source.
    Keep,
    /// From the request.
    Replace(T),
}

impl<T> Taken<T> {
    fn or(self, source: T) -> T {
        match self {
            Self::Keep => source,
            Self::Replace(given) => given,
        }
    }
}

/// A copy to make.
#[derive(Debug, Clone)]
pub struct CopyRequest {
    /// What is copied.
    pub source: CopySource,
    /// Bucket of the copy.
    pub bucket: BucketId,
    /// Key of the copy.
    pub key: ObjectKey,
    /// Where its headers come from.
    pub headers: Taken<ObjectHeaders>,
    /// Where its tags come from.
    pub tags: Taken<Tags>,
    /// The checksum that the copy is to have; the source's where absent.
    pub checksum: Option<ChecksumAlgorithm>,
    /// What must hold of the version that it replaces.
    pub precondition: Precondition,
}

/// A copy that was made.
#[derive(Debug, Clone)]
pub struct Copied {
    /// Its version.
    pub version: VersionId,
    /// Its entity tag.
    pub etag: ETag,
    /// The time of the copy.
    pub last_modified: Timestamp,
    /// Its checksum.
    pub checksum: Option<StoredChecksum>,
    /// The number of parts it was uploaded in, where it still has them.
    pub parts: Option<u32>,
}

/// The checksum that a copy is to have.
#[derive(Debug, Clone, Copy)]
enum CopySum {
    /// This one, or ours where the source has none.
    Known(Option<StoredChecksum>),
    /// One that only the bytes can tell.
    Computed(ChecksumAlgorithm),
}

impl Engine {
    /// Copies an object within or across virtual buckets.
    pub async fn copy(&self, request: CopyRequest) -> Result<Copied> {
        let verb = Verb::begin("CopyObject");
        let result = self.copy_unobserved(request).await;
        self.observe_verb(verb, None, &result);
        result
    }

    async fn copy_unobserved(&self, request: CopyRequest) -> Result<Copied> {
        let plan = self.source_plan(&request.source).await?;
        check_size(plan.object.size)?;
        self.check_early(request.bucket, &request.key, &request.precondition)
            .await?;
        let itself = request.source.bucket == request.bucket && request.source.key == request.key;
        let put = PutRequest {
            bucket: request.bucket,
            key: request.key,
            headers: request.headers.or(plan.object.headers.clone()),
            tags: request.tags.or(plan.object.tags.clone()),
            precondition: request.precondition,
        };
        // A copy onto itself keeps its parts, and with them a checksum over theirs.
        let has = |wanted| {
            let stored = plan.object.checksum;
            stored.is_some_and(|stored| stored.checksum.algorithm() == wanted)
        };
        if itself && request.checksum.is_none_or(has) {
            return self.rewrite_metadata(put, plan).await;
        }
        let sum = match (request.checksum, self.sum_to_keep(&plan.object).await?) {
            (None, sum) => sum,
            (Some(wanted), CopySum::Known(Some(stored)))
                if stored.checksum.algorithm() == wanted =>
            {
                CopySum::Known(Some(stored))
            }
            (Some(wanted), CopySum::Known(_) | CopySum::Computed(_)) => CopySum::Computed(wanted),
        };
        if let CopySum::Known(known) = sum
            && let Some(copied) = self.copy_natively(&put, &plan, known).await?
        {
            return Ok(copied);
        }
        self.copy_streamed(put, plan, sum).await
    }

    /// The checksum that a copy has because its source has one. A copy has no parts, so one over the
    /// parts' checksums becomes one over all bytes, by the same algorithm.
    ///
    /// Source: Amazon S3 user guide, "Checking object integrity", on copies of multipart objects.
    async fn sum_to_keep(&self, source: &ObjectRecord) -> Result<CopySum> {
        let stored = match source.checksum {
            Some(stored) if stored.kind == ChecksumKind::Composite => stored,
            other => return Ok(CopySum::Known(other)),
        };
        let algorithm = stored.checksum.algorithm();
        let store = &self.inner.store;
        let parts = store.parts_of(source.version, 0, PART_NUMBER_MAX).await?;
        let sums: Option<Vec<_>> = parts
            .iter()
            .map(|part| Some((part.checksum.as_ref()?, part.size)))
            .collect();
        let combined = sums.and_then(|sums| full_object(algorithm, sums));
        Ok(match combined {
            Some(sum) => CopySum::Known(Some(StoredChecksum::full_object(sum))),
            None => CopySum::Computed(algorithm),
        })
    }

    /// The plan of a copy source whose conditions hold.
    pub(crate) async fn source_plan(&self, source: &CopySource) -> Result<ReadPlan> {
        let plan = self
            .inner
            .store
            .plan(source.bucket, &source.key)
            .await?
            .ok_or_else(|| self.absent(Error::NoSuchKey))?;
        let object = &plan.object;
        let current = Validators {
            etag: &object.etag,
            last_modified: object.last_modified,
        };
        match source.conditions.copy_source(current) {
            true => Ok(plan),
            false => Err(Error::PreconditionFailed),
        }
    }

    /// A copy onto itself: a new version over the same blobs; no byte moves.
    async fn rewrite_metadata(&self, put: PutRequest, plan: ReadPlan) -> Result<Copied> {
        let object = plan.object;
        let parts = match object.parts {
            None => Vec::new(),
            Some(_) => {
                self.inner
                    .store
                    .parts_of(object.version, 0, PART_NUMBER_MAX)
                    .await?
            }
        };
        let version = NewVersion {
            bucket: put.bucket,
            key: put.key,
            version: VersionId::draw(&self.inner.ids),
            size: object.size,
            etag: object.etag,
            last_modified: self.inner.clock.now(),
            headers: put.headers,
            tags: put.tags,
            checksum: object.checksum,
            parts,
            content: Content::Same {
                current: object.version,
            },
            precondition: put.precondition,
        };
        let copied = copied(&version);
        self.commit_version(version, Vec::new()).await?;
        Ok(copied)
    }

    /// Has every backend copy its own blobs; `None` where one cannot, or has no room.
    async fn copy_natively(
        &self,
        put: &PutRequest,
        plan: &ReadPlan,
        checksum: Option<StoredChecksum>,
    ) -> Result<Option<Copied>> {
        let Some(sources) = self.native_sources(plan) else {
            return Ok(None);
        };
        let role = match sources.len() {
            1 => Role::Whole,
            _ => Role::PartOnly,
        };
        let template = WritePlan::draw(self, put.clone(), role)?;
        let mut intents = Vec::with_capacity(sources.len());
        let mut blobs: Vec<(BlobId, NewBlob)> = Vec::with_capacity(sources.len());
        for source in sources {
            let blob = BlobId::draw(&self.inner.ids);
            let made = self.copy_blob(&template, blob, &source).await;
            match made {
                Ok((copy, intent)) => {
                    let old = source.extent.extent.blob;
                    let (size, crc64) = (source.extent.blob_size, source.extent.crc64);
                    blobs.push((
                        old,
                        NewBlob {
                            blob,
                            size,
                            crc64,
                            copies: vec![copy],
                        },
                    ));
                    intents.push(intent);
                }
                Err(error) => {
                    for intent in intents {
                        give_up(&self.inner.store, intent, Effect::Unknown).await;
                    }
                    self.inner.bells.settle();
                    // Whatever the provider refused can still be streamed.
                    return match error {
                        Error::WriteUnavailable { .. }
                        | Error::WriteLimited { .. }
                        | Error::NoRoom { .. } => Ok(None),
                        other => Err(other),
                    };
                }
            }
        }
        let renamed = |old: BlobId| {
            let found = blobs.iter().find(|(blob, _)| *blob == old);
            found.expect("every blob of the source was copied").1.blob
        };
        let extents = plan
            .extents
            .iter()
            .map(|part| Extent {
                blob: renamed(part.extent.blob),
                ..part.extent
            })
            .collect();
        let content = Content::Written {
            blobs: blobs.into_iter().map(|(_, blob)| blob).collect(),
            extents,
        };
        let ours = || {
            let sum = sum_of(plan, ByteRange::whole(plan.object.size))?;
            Some(StoredChecksum::full_object(sum.to_checksum()))
        };
        let version = NewVersion {
            bucket: put.bucket,
            key: put.key.clone(),
            version: template.version,
            size: plan.object.size,
            etag: plan.object.etag.clone(),
            last_modified: self.inner.clock.now(),
            headers: put.headers.clone(),
            tags: put.tags.clone(),
            checksum: checksum.or_else(ours),
            parts: Vec::new(),
            content,
            precondition: put.precondition.clone(),
        };
        let copied = copied(&version);
        self.commit_version(version, intents).await?;
        Ok(Some(copied))
    }

    /// For every blob of the plan a copy whose backend can copy it; `None` where one has none.
    fn native_sources(&self, plan: &ReadPlan) -> Option<Vec<NativeSource>> {
        let mut sources: Vec<NativeSource> = Vec::new();
        for extent in &plan.extents {
            if sources
                .iter()
                .any(|known| known.extent.extent.blob == extent.extent.blob)
            {
                continue;
            }
            if extent.blob_size > COPY_BYTES_MAX {
                return None;
            }
            let able = |member: &Arc<Member>| {
                let Capabilities { copy, .. } = member.backend().capabilities();
                let within_usage = member.usage().fits(Traffic::requests(1));
                copy && member.takes_bytes() && within_usage
            };
            // What is not held for good is streamed, and compared on its way: a provider's own copy of wrong
            // bytes may well have the right entity tag.
            let able = |copy: &&CopyRow| {
                let member = self.inner.fleet.member(copy.backend);
                copy.state == CopyState::Good && member.is_some_and(able)
            };
            let copy = extent.copies.iter().find(able)?;
            let member = self.inner.fleet.member(copy.backend)?;
            sources.push(NativeSource {
                member: Arc::clone(member),
                copy: copy.clone(),
                extent: extent.clone(),
            });
        }
        (!sources.is_empty()).then_some(sources)
    }

    /// Copies one blob on its backend. The whole call is withheld until the intent is durable.
    async fn copy_blob(
        &self,
        template: &WritePlan,
        blob: BlobId,
        source: &NativeSource,
    ) -> Result<(NewCopy, Intent)> {
        let store = &self.inner.store;
        let copy = CopyId::draw(&self.inner.ids);
        let (key, meta) = template.place(source.member.name(), copy, blob, source.extent.crc64);
        // The provider moves the bytes by itself.
        let traffic = Traffic::requests(1);
        let Some(backend) = source.member.admit(traffic) else {
            let wanted = ByteSize(source.extent.blob_size);
            return Err(Error::WriteLimited { wanted });
        };
        let room = store
            .reserve(source.member.id, source.extent.blob_size)
            .await?;
        let intent = store
            .open_intent(
                NewIntent {
                    copy,
                    blob,
                    key: key.clone(),
                },
                room,
            )
            .await?;
        let version = source.copy.version.as_deref();
        let result = match backend.copy(&source.copy.key, version, &key, &meta).await {
            Ok(made) => {
                intent.answered();
                self.prove_copy(source, &key, &made).await.map(|()| made)
            }
            Err(error) => Err(error),
        };
        match result {
            Ok(made) => {
                let new = NewCopy {
                    copy,
                    etag: made.etag,
                    version: made.version,
                    crc64: made.crc64,
                };
                Ok((new, intent))
            }
            Err(error) => {
                give_up(store, intent, error.effect).await;
                let tried = crate::Tried(vec![(source.member.name().clone(), error)]);
                Err(Error::WriteUnavailable { tried })
            }
        }
    }

    /// A native copy counts if the backend reports our sum or the source's tag for it; otherwise it
    /// is read back.
    async fn prove_copy(
        &self,
        source: &NativeSource,
        key: &base::BackendKey,
        made: &backend::Copied,
    ) -> backend::Result<()> {
        if made.crc64.is_some() && made.crc64 == source.extent.crc64 {
            return Ok(());
        }
        let tag = made.etag.as_ref().filter(|tag| tag.as_md5().is_some());
        if tag.is_some() && tag == source.copy.etag.as_ref() {
            return Ok(());
        }
        let member = &source.member;
        let wrong = || backend::Error::new(Kind::Corrupt, Effect::Unknown, member.name(), "copy");
        let Some(expected) = source.extent.crc64 else {
            let head = member.backend().head(key, made.version.as_deref()).await?;
            return match head.size == source.extent.blob_size {
                true => Ok(()),
                false => Err(wrong()),
            };
        };
        let fetched = member
            .backend()
            .get(key, made.version.as_deref(), None)
            .await?;
        let mut body = fetched.body;
        let mut sum = base::Crc64Hasher::new();
        while let Some(piece) = body.next().await {
            sum.update(&piece?);
        }
        match sum.sum() == expected {
            true => Ok(()),
            false => Err(wrong()),
        }
    }

    /// Copies by reading and writing; computes a checksum on the way where that is the only way.
    async fn copy_streamed(&self, put: PutRequest, plan: ReadPlan, sum: CopySum) -> Result<Copied> {
        let size = plan.object.size;
        let mut body = self.stream_of(&plan, ByteRange::whole(size)).await?;
        if let CopySum::Computed(algorithm) = sum {
            body.declared.compute = Some(algorithm);
        }
        let write = WritePlan::draw(self, put, Role::Whole)?;
        let mut attempts = PutAttempts::new(self, Arc::clone(&write), size);
        let mut delivery = send(body, self.send_options(), &mut attempts).await?;
        self.report_failover("CopyObject", &delivery);
        if let CopySum::Known(known) = sum {
            delivery.digests.checksum = known;
        }
        // What was uploaded in parts keeps its tag: clients compare it with the source's.
        if plan.object.etag.as_md5().is_none() {
            delivery.etag = plan.object.etag;
        }
        let written = self.commit(&write, size, delivery).await?;
        Ok(Copied {
            version: written.version,
            etag: written.etag,
            last_modified: written.last_modified,
            checksum: written.checksum,
            parts: None,
        })
    }

    /// The bytes of a planned object as a body to be written elsewhere.
    pub(crate) async fn stream_of(&self, plan: &ReadPlan, range: ByteRange) -> Result<Incoming> {
        let stream = Box::pin(self.open(plan.extents.clone(), range).await?);
        let declared = Declared {
            crc64: sum_of(plan, range),
            ..Declared::default()
        };
        Ok(Incoming {
            length: range.length,
            stream,
            declared,
        })
    }
}

/// Whether so many bytes may be copied at once.
pub(crate) fn check_size(bytes: u64) -> Result<()> {
    match bytes <= COPY_BYTES_MAX {
        true => Ok(()),
        false => Err(Error::SourceTooLarge),
    }
}

/// Our sum over an object that is made of whole blobs, where each blob's is known.
fn sum_of(plan: &ReadPlan, range: ByteRange) -> Option<Crc64> {
    if range != ByteRange::whole(plan.object.size) {
        return None;
    }
    plan.extents.iter().try_fold(Crc64::EMPTY, |sum, part| {
        let whole = part.extent.offset == 0 && part.extent.length == part.blob_size;
        if !whole {
            return None;
        }
        Some(sum.then(part.crc64?, part.blob_size))
    })
}

struct NativeSource {
    member: Arc<Member>,
    copy: CopyRow,
    extent: PlannedExtent,
}

fn copied(version: &NewVersion) -> Copied {
    Copied {
        version: version.version,
        etag: version.etag.clone(),
        last_modified: version.last_modified,
        checksum: version.checksum,
        parts: (!version.parts.is_empty())
            .then(|| u32::try_from(version.parts.len()).expect("10,000 parts fit")),
    }
}
