//! CompleteMultipartUpload: freeze the list, one call per leg, one commit.
//!
//! Every step is durable before the next, and each can be repeated: a Complete that was interrupted
//! is taken up again by the client's retry or by the multipart worker. A call whose outcome is
//! unknown is settled by a look at the leg's key.
//!
//! A Complete that finds the same one under way waits for it, and answers what it answered: the SDKs send
//! it again when an answer is late, and do not repeat a 409. In one process it is woken; where another
//! instance is at work it looks at the upload's row from time to time, one look for all who wait here.

use std::sync::Arc;
use std::time::Duration;

use backend::{Effect, Kind, ObjectBackend as _, PartFact};
use base::{Checksum, CopyId, Crc64, ETag, ObjectKey, Precondition, UploadId, VersionId};
use futures_util::stream::StreamExt;
use metastore::model::{
    BucketId, Completion, Content, Freeze, Leg, LegState, NewBlob, NewCopy, NewVersion, PartRow,
    StoredChecksum, UploadRecord, UploadState, Verdict,
};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use super::accept;
use super::assembly::{
    Assembly, assemble_parts, check_list, extents, fact, made_of, object_parts, sum_of, tag_of_tags,
};
use super::refused::RefusedLeg;
use crate::fleet::Member;
use crate::observe::Verb;
use crate::put::Written;
use crate::{Engine, Error, PART_NUMBER_MAX, Result, Tried};

/// A part as the client names it.
#[derive(Debug, Clone)]
pub struct CompletedPart {
    /// Its number.
    pub number: u32,
    /// Its entity tag.
    pub etag: ETag,
    /// Its checksum, where the client gives it.
    pub checksum: Option<Checksum>,
}

/// An upload to complete.
#[derive(Debug, Clone)]
pub struct CompleteRequest {
    /// Bucket of the upload.
    pub bucket: BucketId,
    /// Key of the upload.
    pub key: ObjectKey,
    /// The upload.
    pub upload: UploadId,
    /// Its parts; at least one.
    pub parts: Vec<CompletedPart>,
    /// The checksum that the client expects of the object.
    pub checksum: Option<Checksum>,
    /// The size in bytes that the client expects of the object.
    pub size: Option<u64>,
    /// What must hold of the version that it replaces.
    pub precondition: Precondition,
}

/// How long a Complete waits for the same one: as long as a backend may take to assemble an object.
const WAIT_MAX: Duration = backend::GuardOptions::DEFAULT.assembly_timeout;
/// How many Completes of one upload wait for it at a time. A client that gave up has gone, so those that
/// are left are sent side by side, and each keeps a request's place for as long as it waits.
const WAITING_MAX: usize = 16;
/// Pauses between looks at an upload that another instance completes.
const LOOK_FIRST: Duration = Duration::from_millis(100);
const LOOK_LONGEST: Duration = Duration::from_secs(2);

/// Uploads whose Complete runs in this process.
#[derive(Clone, Default)]
pub(crate) struct Completing(Arc<Mutex<Vec<Running>>>);

/// An upload whose Complete runs, with what tells its end once nobody has it any more.
type Running = (UploadId, Arc<watch::Sender<()>>);

/// A Complete that runs. When it is dropped, those that wait for its end are woken.
struct CompletingGuard {
    completing: Completing,
    upload: UploadId,
    /// Dropped behind the removal from the list: who is woken finds the place free.
    _end: Arc<watch::Sender<()>>,
}

/// The place of an upload's only Complete in this process.
enum Place {
    /// Free until now.
    Ours(CompletingGuard),
    /// Another Complete has it until this changes.
    Taken(watch::Receiver<()>),
    /// As many wait for it as may.
    Crowded,
}

impl Completing {
    fn begin(&self, upload: UploadId) -> Place {
        let mut running = self.0.lock();
        if let Some((_, end)) = running.iter().find(|(found, _)| *found == upload) {
            if end.receiver_count() >= WAITING_MAX {
                return Place::Crowded;
            }
            return Place::Taken(end.subscribe());
        }
        let end = Arc::new(watch::Sender::new(()));
        running.push((upload, Arc::clone(&end)));
        Place::Ours(CompletingGuard {
            completing: self.clone(),
            upload,
            _end: end,
        })
    }
}

impl Drop for CompletingGuard {
    fn drop(&mut self) {
        let mut running = self.completing.0.lock();
        running.retain(|(upload, _)| *upload != self.upload);
    }
}

/// Who froze the list of parts.
enum Frozen {
    /// This request.
    Ours,
    /// Another instance, since this one looked.
    Elsewhere,
}

/// What came of one try.
enum Attempt {
    /// The object is there.
    Written(Written),
    /// Another instance completes the same list.
    Elsewhere,
}

impl Engine {
    /// Makes an object of the parts of an upload.
    ///
    /// Idempotent: the answer to a completed upload is repeated for a day.
    pub async fn complete_upload(&self, request: CompleteRequest) -> Result<Written> {
        let verb = Verb::begin("CompleteMultipartUpload");
        let result = self.complete_unobserved(request).await;
        self.observe_verb(verb, None, &result);
        result
    }

    async fn complete_unobserved(&self, request: CompleteRequest) -> Result<Written> {
        let deadline = Instant::now() + WAIT_MAX;
        let late = || Error::TimedOut {
            what: "the same Complete, which is under way",
        };
        let _running = loop {
            match self.inner.completing.begin(request.upload) {
                Place::Ours(running) => break running,
                Place::Crowded => return Err(late()),
                Place::Taken(mut end) => {
                    // It can only end: nothing is ever sent.
                    let ended = timeout_at(deadline, end.changed()).await;
                    drop(ended.map_err(|_| late())?);
                }
            }
        };
        let mut pause = LOOK_FIRST;
        loop {
            match self.complete_once(&request).await? {
                Attempt::Written(written) => return Ok(written),
                Attempt::Elsewhere if Instant::now() + pause > deadline => return Err(late()),
                Attempt::Elsewhere => tokio::time::sleep(pause).await,
            }
            pause = (pause * 2).min(LOOK_LONGEST);
        }
    }

    async fn complete_once(&self, request: &CompleteRequest) -> Result<Attempt> {
        let inner = &self.inner;
        let record = inner
            .store
            .upload(request.bucket, &request.key, request.upload)
            .await?;
        let record = record.ok_or_else(|| self.absent(Error::NoSuchUpload))?;
        let stored = inner
            .store
            .parts(request.upload, 0, PART_NUMBER_MAX)
            .await?;
        match &record.state {
            UploadState::Completed {
                version,
                etag,
                checksum,
            } => {
                // The part rows are gone; the tag still tells one list from another.
                if tag_of_tags(request.parts.iter().map(|part| &part.etag)) != *etag {
                    return Err(Error::InvalidPart {
                        number: request.parts.first().map_or(1, |part| part.number),
                    });
                }
                let written = self.completed_before(&record, *version, etag, *checksum);
                return written.await.map(Attempt::Written);
            }
            UploadState::Completing { parts: frozen, .. } => {
                let same = |listed: &CompletedPart, (number, attempt): &(u32, CopyId)| {
                    let part = stored.iter().find(|part| part.attempt == *attempt);
                    listed.number == *number && part.is_none_or(|part| part.etag == listed.etag)
                };
                let all = request.parts.len() == frozen.len();
                if !all
                    || !request
                        .parts
                        .iter()
                        .zip(frozen)
                        .all(|(one, other)| same(one, other))
                {
                    return Err(Error::Conflict);
                }
                // Another instance is at it: two would take each other's success for a failure.
                if !inner.store.drive_upload(request.upload).await? {
                    return Ok(Attempt::Elsewhere);
                }
                return self.assemble(&record).await.map(Attempt::Written);
            }
            UploadState::Open => {}
        }
        let part_size_min = inner.settings.part_size_min;
        let assembly = match check_list(&record, stored, request, part_size_min) {
            // Its parts may have gone with the upload, between the two looks.
            Err(error @ Error::InvalidPart { .. }) => match self.state_of(request).await? {
                None => return Err(Error::NoSuchUpload),
                Some(UploadState::Open) => return Err(error),
                Some(_) => return Ok(Attempt::Elsewhere),
            },
            checked => checked?,
        };
        self.check_early(request.bucket, &request.key, &request.precondition)
            .await?;
        match self.freeze(request, &assembly).await? {
            Frozen::Ours => {}
            Frozen::Elsewhere => return Ok(Attempt::Elsewhere),
        }
        let record = inner
            .store
            .upload(request.bucket, &request.key, request.upload)
            .await?;
        let record = record.ok_or(Error::NoSuchUpload)?;
        self.assemble(&record).await.map(Attempt::Written)
    }

    async fn state_of(&self, request: &CompleteRequest) -> Result<Option<UploadState>> {
        let store = &self.inner.store;
        let found = store.upload(request.bucket, &request.key, request.upload);
        Ok(found.await?.map(|record| record.state))
    }

    async fn completed_before(
        &self,
        record: &UploadRecord,
        version: VersionId,
        etag: &ETag,
        checksum: Option<StoredChecksum>,
    ) -> Result<Written> {
        let current = self.inner.store.object(record.bucket, &record.key).await?;
        let same = current.filter(|object| object.version == version);
        let (size, last_modified) = same.map_or((0, self.inner.clock.now()), |object| {
            (object.size, object.last_modified)
        });
        Ok(Written {
            version,
            etag: etag.clone(),
            checksum,
            size,
            last_modified,
        })
    }

    async fn freeze(&self, request: &CompleteRequest, assembly: &Assembly) -> Result<Frozen> {
        let store = &self.inner.store;
        let list: Vec<(u32, CopyId)> = assembly
            .parts
            .iter()
            .map(|part| (part.number, part.attempt))
            .collect();
        loop {
            let frozen = store.freeze(request.upload, list.clone(), request.precondition.clone());
            match frozen.await? {
                Freeze::Frozen => return Ok(Frozen::Ours),
                Freeze::PartChanged { number } => return Err(Error::InvalidPart { number }),
                Freeze::NoSuchUpload => return Err(Error::NoSuchUpload),
                Freeze::NotOpen => return Ok(Frozen::Elsewhere),
                Freeze::Busy => {
                    let ended = store.claims_ended(request.upload);
                    let limit = self.inner.settings.backend_timeout;
                    if tokio::time::timeout(limit, ended).await.is_err() {
                        return Err(Error::TimedOut {
                            what: "parts that are still being written",
                        });
                    }
                }
            }
        }
    }

    /// Takes up the Completes that were interrupted; called by the multipart worker.
    pub(crate) async fn resume_completes(&self, max: u32) -> Result<u64> {
        let mut done = 0;
        for record in self.inner.store.completing_uploads(max).await? {
            let Place::Ours(_running) = self.inner.completing.begin(record.upload) else {
                continue;
            };
            if !self.inner.store.drive_upload(record.upload).await? {
                continue;
            }
            match self.assemble(&record).await {
                Ok(_) => done += 1,
                Err(error) => {
                    let error = base::report(&error);
                    tracing::warn!(upload = %record.upload, %error, "could not resume CompleteMultipartUpload");
                }
            }
        }
        Ok(done)
    }

    /// From the frozen list to the object.
    async fn assemble(&self, record: &UploadRecord) -> Result<Written> {
        let UploadState::Completing {
            parts: frozen,
            precondition,
        } = &record.state
        else {
            return Err(Error::Conflict);
        };
        let stored = self
            .inner
            .store
            .parts(record.upload, 0, PART_NUMBER_MAX)
            .await?;
        let parts = frozen
            .iter()
            .map(|(number, attempt)| {
                let found = stored.iter().find(|part| part.attempt == *attempt);
                found.cloned().ok_or(Error::InvalidPart { number: *number })
            })
            .collect::<Result<Vec<_>>>()?;
        let assembly = assemble_parts(record, parts)?;
        let mut blobs = Vec::new();
        for leg in &record.legs {
            let parts: Vec<&PartRow> = assembly
                .parts
                .iter()
                .filter(|part| part.leg == leg.copy)
                .collect();
            if parts.is_empty() {
                continue;
            }
            let size = parts.iter().map(|part| part.size).sum();
            let copy = self.complete_leg(record, leg, &parts).await?;
            blobs.push(NewBlob {
                blob: leg.blob,
                size,
                crc64: sum_of(parts.iter().copied()),
                copies: vec![copy],
            });
        }
        let version = NewVersion {
            bucket: record.bucket,
            key: record.key.clone(),
            version: super::draw_version(self),
            size: assembly.size,
            etag: assembly.etag.clone(),
            last_modified: self.inner.clock.now(),
            headers: record.headers.clone(),
            tags: record.tags.clone(),
            checksum: assembly.checksum,
            parts: object_parts(record, &assembly.parts),
            content: Content::Written {
                blobs,
                extents: extents(record, &assembly.parts),
            },
            precondition: precondition.clone(),
        };
        let written = Written {
            version: version.version,
            etag: assembly.etag,
            checksum: assembly.checksum,
            size: assembly.size,
            last_modified: version.last_modified,
        };
        let completion = Completion {
            upload: record.upload,
            version,
        };
        let verdict = self.inner.store.complete_upload(completion).await?;
        self.inner.bells.settle();
        let refusal = match verdict {
            Verdict::Committed { .. } => return Ok(written),
            Verdict::Overtaken => {
                tracing::info!(upload = %record.upload, key = %record.key, "completed upload was overwritten before");
                return Ok(written);
            }
            Verdict::PreconditionFailed => Error::PreconditionFailed,
            Verdict::Absent => self.absent(Error::NoSuchKey),
            Verdict::IntentGone | Verdict::Changed => Error::Conflict,
            Verdict::NoSuchBucket => Error::NoSuchBucket,
        };
        // The upload can still be completed under another condition, or aborted.
        accept(self.inner.store.thaw(record.upload, None).await?)?;
        Err(refusal)
    }

    /// Has the backend of one leg assemble its object, once.
    async fn complete_leg(
        &self,
        record: &UploadRecord,
        leg: &Leg,
        parts: &[&PartRow],
    ) -> Result<NewCopy> {
        let size: u64 = parts.iter().map(|part| part.size).sum();
        // What a backend out of service denies having says nothing: its mount may be missing.
        let member = self.inner.fleet.member(leg.backend);
        let Some(member) = member.filter(|member| member.in_service()) else {
            let tried = member.map(|member| member.refusal());
            return Err(Error::WriteUnavailable {
                tried: Tried(tried.into_iter().collect()),
            });
        };
        let id = match &leg.state {
            // Only if it was assembled of these very parts: another list may have the same size.
            LegState::Completed { copy, size: done } if *done == size => {
                let same = made_of(copy, parts)
                    || match sum_of(parts.iter().copied()) {
                        Some(expected) => self.reads_as(member, leg, copy, expected).await?,
                        None => false,
                    };
                if !same {
                    return self.doubt(record, member, leg, parts).await;
                }
                self.inner.doubts.end(leg.copy);
                return Ok(copy.clone());
            }
            LegState::Open { upload } => upload,
            LegState::Completed { .. } | LegState::Creating => {
                return self.leg_missing(record, leg, parts).await;
            }
        };
        let facts: Vec<PartFact> = parts.iter().map(|part| fact(part)).collect();
        let completed = member.backend().complete_upload(&leg.key, id, &facts).await;
        let copy = match completed {
            Ok(stored) => {
                let copy = NewCopy {
                    copy: leg.copy,
                    etag: stored.etag,
                    version: stored.version,
                    crc64: stored.crc64,
                };
                let found = match made_of(&copy, parts) {
                    true => Some(copy),
                    false => self.look_at_leg(member, leg, size).await?,
                };
                match found {
                    Some(found) => Some(found),
                    None => return self.doubt(record, member, leg, parts).await,
                }
            }
            Err(error) => {
                let refused = RefusedLeg {
                    member,
                    leg,
                    upload: id,
                    parts,
                };
                self.after_refusal(record, refused, error).await?
            }
        };
        let copy = match copy {
            Some(copy) => copy,
            // Of what it has assembled, the backend has no upload any more.
            None if self.inner.doubts.has(leg.copy) => {
                return self.doubt(record, member, leg, parts).await;
            }
            None => return self.leg_missing(record, leg, parts).await,
        };
        if !self.holds_its_parts(member, leg, &copy, parts).await? {
            return self.doubt(record, member, leg, parts).await;
        }
        self.inner.doubts.end(leg.copy);
        let verdict = self
            .inner
            .store
            .complete_leg(record.upload, leg.copy, copy.clone(), size)
            .await?;
        accept(verdict)?;
        Ok(copy)
    }

    /// The leg's object, if it is there with the right size.
    pub(super) async fn look_at_leg(
        &self,
        member: &Member,
        leg: &Leg,
        size: u64,
    ) -> Result<Option<NewCopy>> {
        match member.backend().head(&leg.key, None).await {
            Ok(head) if head.size == size => Ok(Some(NewCopy {
                copy: leg.copy,
                etag: head.etag,
                version: head.version,
                crc64: head.crc64,
            })),
            Ok(_) => Ok(None),
            Err(error) if error.kind == Kind::NotFound => Ok(None),
            Err(error) => Err(Error::WriteUnavailable {
                tried: Tried(vec![(member.name().clone(), error)]),
            }),
        }
    }

    /// Whether the assembled bytes are those that were sent. Parts that no backend vouched for are
    /// proven by reading the object back.
    async fn holds_its_parts(
        &self,
        member: &Member,
        leg: &Leg,
        copy: &NewCopy,
        parts: &[&PartRow],
    ) -> Result<bool> {
        let vouched = |part: &&PartRow| {
            part.crc64.is_none()
                || part.backend_etag == part.etag
                || part.backend_crc64 == part.crc64
        };
        let Some(expected) = sum_of(parts.iter().copied()) else {
            return Ok(true);
        };
        // Where entity tags are known to be MD5s, another one says that the object is made of other parts, whatever
        // was said of each of them.
        let contradicted = member.backend().capabilities().md5_etag
            && copy.etag.is_some()
            && !made_of(copy, parts);
        let proven = parts.iter().all(vouched) && !contradicted;
        if proven || copy.crc64 == Some(expected) {
            return Ok(true);
        }
        self.reads_as(member, leg, copy, expected).await
    }

    /// Whether the leg's object reads back with this sum.
    async fn reads_as(
        &self,
        member: &Member,
        leg: &Leg,
        copy: &NewCopy,
        expected: Crc64,
    ) -> Result<bool> {
        let failed = |error: backend::Error| Error::WriteUnavailable {
            tried: Tried(vec![(member.name().clone(), error)]),
        };
        let fetched = member
            .backend()
            .get(&leg.key, copy.version.as_deref(), None)
            .await;
        let mut body = fetched.map_err(failed)?.body;
        let mut sum = base::Crc64Hasher::new();
        while let Some(piece) = body.next().await {
            sum.update(&piece.map_err(failed)?);
        }
        let sound = sum.sum() == expected;
        if !sound {
            tracing::error!(backend = %member.name(), key = %leg.key, "assembled object has other bytes than its parts");
        }
        Ok(sound)
    }

    /// A leg whose object is assembled, and which a look did not find as it should be. The next attempt looks
    /// again; once enough of them agree, its parts are missing.
    async fn doubt<T>(
        &self,
        record: &UploadRecord,
        member: &Member,
        leg: &Leg,
        parts: &[&PartRow],
    ) -> Result<T> {
        if self.inner.doubts.add(leg.copy, Instant::now()) {
            return self.leg_missing(record, leg, parts).await;
        }
        // A leg that was proven before is that of another list, perhaps, which may still be completed.
        if matches!(leg.state, LegState::Completed { .. }) {
            accept(self.inner.store.thaw(record.upload, None).await?)?;
        }
        let name = member.name();
        let error =
            backend::Error::new(Kind::Unavailable, Effect::Unknown, name, "complete_upload");
        let error = error.with_message("it was assembled, but is not there as it should be");
        Err(Error::WriteUnavailable {
            tried: Tried(vec![(name.clone(), error)]),
        })
    }

    /// A leg that cannot be assembled: the upload takes parts again, this leg's are missing.
    async fn leg_missing<T>(
        &self,
        record: &UploadRecord,
        leg: &Leg,
        parts: &[&PartRow],
    ) -> Result<T> {
        accept(self.inner.store.thaw(record.upload, Some(leg.copy)).await?)?;
        Err(Error::InvalidPart {
            number: parts.first().map_or(1, |part| part.number),
        })
    }
}
