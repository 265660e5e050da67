//! Multipart uploads.

use std::sync::Arc;

use base::{CopyId, ObjectKey, Precondition, Timestamp, UploadId};

use super::{Dialect, Store, answer, lookup};
use crate::Result;
use crate::guard::{PartClaim, Reservation};
use crate::job::{Answer, Held, Job};
use crate::model::{
    BucketId, Completion, ForgetUploads, Freeze, NewCopy, NewLeg, NewPartClaim, NewUpload, PartRow,
    UploadListing, UploadQuery, UploadRecord, UploadVerdict, Verdict,
};
use crate::postgres::work::Work;
use crate::sqlite::{listing, parts, uploads};
use crate::writer::Priority;

impl Store {
    /// Makes an upload with its first leg.
    ///
    /// # Errors
    /// [`Error::NoRoom`] where the leg's backend is not active.
    pub async fn create_upload(&self, upload: NewUpload) -> Result<UploadVerdict> {
        answer!(self.run(Job::CreateUpload(upload)).await, Upload)
    }

    /// Adds a leg on another backend.
    ///
    /// # Errors
    /// [`Error::NoRoom`] where the leg's backend is not active.
    pub async fn add_leg(&self, upload: UploadId, leg: NewLeg) -> Result<UploadVerdict> {
        answer!(self.run(Job::AddLeg { upload, leg }).await, Upload)
    }

    /// Records the backend's id of a leg: from now on it takes parts.
    pub async fn open_leg(
        &self,
        upload: UploadId,
        leg: CopyId,
        id: String,
    ) -> Result<UploadVerdict> {
        answer!(self.run(Job::OpenLeg { upload, leg, id }).await, Upload)
    }

    /// Gives a leg up that has no parts: into the cleanup queue with it.
    pub async fn drop_leg(&self, upload: UploadId, leg: CopyId) -> Result<UploadVerdict> {
        answer!(self.run(Job::DropLeg { upload, leg }).await, Upload)
    }

    /// An upload of a bucket and key; another bucket's or key's upload id finds nothing.
    pub async fn upload(
        &self,
        bucket: BucketId,
        key: &ObjectKey,
        upload: UploadId,
    ) -> Result<Option<UploadRecord>> {
        lookup!(
            self,
            "look an upload up",
            |tx| uploads::upload(tx, bucket, key, upload),
            |shared| shared.upload(bucket, key, upload)
        )
    }

    /// Claims a part number; an older claim on it is superseded. The room is the part's from now on.
    pub async fn claim_part(
        &self,
        claim: NewPartClaim,
        room: Reservation,
    ) -> Result<std::result::Result<PartClaim, UploadVerdict>> {
        let live = Arc::clone(&self.inner.live);
        // From before the job is queued: a freeze behind it must see it.
        let guard = PartClaim::new(live, claim.upload, claim.attempt);
        let (backend, bytes) = (room.backend(), room.bytes());
        let job = Job::ClaimPart {
            claim,
            backend,
            bytes,
        };
        let held = Held::NewClaim(guard, room);
        let (answer, held) = self.run_with(job, held, Priority::Normal).await;
        let verdict: Result<UploadVerdict> = (|| answer!(answer, Upload))();
        match (verdict?, held) {
            (UploadVerdict::Done, Held::Claim(claim)) => Ok(Ok(claim)),
            (verdict, _) => Ok(Err(verdict)),
        }
    }

    /// Records a part that its leg holds; the part it replaces there gives its room back.
    pub async fn commit_part(&self, claim: PartClaim, part: PartRow) -> Result<UploadVerdict> {
        let job = Job::CommitPart {
            upload: claim.upload(),
            attempt: claim.attempt(),
            part,
        };
        answer!(
            self.run_with(job, Held::Claim(claim), Priority::Normal)
                .await
                .0,
            Upload
        )
    }

    /// Gives a claim up whose write certainly had no effect.
    pub async fn withdraw_part(&self, claim: PartClaim) -> Result<()> {
        let job = Job::WithdrawPart {
            upload: claim.upload(),
            attempt: claim.attempt(),
        };
        self.run_with(job, Held::Claim(claim), Priority::Normal)
            .await
            .0
            .map(drop)
    }

    /// The parts of an upload that has not ended, behind a number, by number.
    pub async fn parts(&self, upload: UploadId, after: u32, max: u32) -> Result<Vec<PartRow>> {
        lookup!(
            self,
            "list parts",
            |tx| parts::list(tx, upload, after, max),
            |shared| shared.parts(upload, after, max)
        )
    }

    /// Uploads of a bucket that have not ended.
    pub async fn uploads(&self, query: &UploadQuery) -> Result<UploadListing> {
        self.check_listable()?;
        lookup!(
            self,
            "list uploads",
            |tx| listing::uploads(tx, query),
            |shared| shared.uploads(query)
        )
    }

    /// Freezes the part list: from now on neither parts nor an abort are accepted.
    pub async fn freeze(
        &self,
        upload: UploadId,
        parts: Vec<(u32, CopyId)>,
        precondition: Precondition,
    ) -> Result<Freeze> {
        answer!(
            self.run(Job::Freeze {
                upload,
                parts,
                precondition
            })
            .await,
            Freeze
        )
    }

    /// Resolves when no part of the upload is being written.
    pub async fn claims_ended(&self, upload: UploadId) {
        match &self.inner.dialect {
            Dialect::Sqlite(_) => self.inner.live.claims_ended(upload).await,
            Dialect::Postgres(shared) => Box::pin(shared.claims_ended(upload)).await,
        }
    }

    /// Takes up the completion of an upload that is completing; `false` where another instance that is
    /// alive drives it. Whoever froze the part list drives it from then on.
    pub async fn drive_upload(&self, upload: UploadId) -> Result<bool> {
        match &self.inner.dialect {
            Dialect::Sqlite(_) => Ok(true),
            Dialect::Postgres(shared) => {
                let driven: UploadVerdict =
                    answer!(Box::pin(shared.run(Work::Drive(upload))).await, Upload)?;
                Ok(driven == UploadVerdict::Done)
            }
        }
    }

    /// Records that a leg's object was assembled on its backend.
    pub async fn complete_leg(
        &self,
        upload: UploadId,
        leg: CopyId,
        copy: NewCopy,
        size: u64,
    ) -> Result<UploadVerdict> {
        answer!(
            self.run(Job::CompleteLeg {
                upload,
                leg,
                copy,
                size
            })
            .await,
            Upload
        )
    }

    /// Returns a completing upload to open; the parts of the `missing` leg are no longer there.
    pub async fn thaw(&self, upload: UploadId, missing: Option<CopyId>) -> Result<UploadVerdict> {
        answer!(self.run(Job::Thaw { upload, missing }).await, Upload)
    }

    /// Makes the object exist and the upload completed, in one transaction.
    ///
    /// [`Verdict::IntentGone`] where the upload is not completing, or a named leg not completed;
    /// [`Verdict::Overtaken`] where the key was written or deleted since the part list was frozen, unless
    /// there is a precondition, which then does not hold.
    pub async fn complete_upload(&self, completion: Completion) -> Result<Verdict> {
        let verdict = answer!(self.run(Job::CompleteUpload(completion)).await, Verdict);
        self.offer_purge();
        verdict
    }

    /// Ends an open upload; its legs are queued for cleanup. Once more for one that was aborted, as long
    /// as that is remembered, changes nothing and is [`UploadVerdict::Done`], too.
    pub async fn abort_upload(
        &self,
        bucket: BucketId,
        key: &ObjectKey,
        upload: UploadId,
    ) -> Result<UploadVerdict> {
        let job = Job::AbortUpload {
            bucket,
            key: key.clone(),
            upload,
        };
        let verdict = answer!(self.run(job).await, Upload);
        self.offer_purge();
        verdict
    }

    /// Open uploads created before a moment, oldest first. None in recovery state, when they may have
    /// become objects.
    pub async fn stale_uploads(&self, before: Timestamp, max: u32) -> Result<Vec<UploadRecord>> {
        if self.inner.catalogue.read().recovery.is_some() {
            return Ok(Vec::new());
        }
        lookup!(
            self,
            "look for stale uploads",
            |tx| uploads::stale(tx, before, max),
            |shared| shared.stale_uploads(before, max)
        )
    }

    /// Uploads whose part list is frozen: a Complete that may have been interrupted. None in recovery
    /// state, when it may have been finished long ago.
    pub async fn completing_uploads(&self, max: u32) -> Result<Vec<UploadRecord>> {
        if self.inner.catalogue.read().recovery.is_some() {
            return Ok(Vec::new());
        }
        lookup!(
            self,
            "look for interrupted completions",
            |tx| uploads::completing(tx, max),
            |shared| shared.completing_uploads(max)
        )
    }

    /// Forgets uploads that ended before a moment, and of aborted ones all but the newest that may be
    /// remembered; the number of them. Before that it removes the part rows of all ended uploads, in
    /// batches behind everything that somebody waits for.
    pub async fn forget_uploads(&self, forget: ForgetUploads) -> Result<u64> {
        loop {
            let job = self.run_with(Job::PurgeParts, Held::Nothing, Priority::Low);
            let purged: u64 = answer!(job.await.0, Count)?;
            if purged == 0 {
                break;
            }
        }
        answer!(self.run(Job::ForgetUploads(forget)).await, Count)
    }

    /// Lets go of every unfinished upload and every abandoned intent without queueing anything for
    /// deletion; the number of them. For a recovery: what a restored catalogue announced may have
    /// become an object since.
    pub async fn forget_pending(&self) -> Result<u64> {
        let uploads: u64 = answer!(self.run(Job::ForgetPending).await, Count)?;
        self.offer_purge();
        let intents = match &self.inner.dialect {
            Dialect::Sqlite(_) => self.inner.live.forget_abandoned(),
            Dialect::Postgres(shared) => Box::pin(shared.forget_abandoned()).await?,
        };
        Ok(uploads + intents)
    }

    /// Part rows of an ended upload may go, behind everything that somebody waits for. Where this is
    /// forgotten, `forget_uploads` does it.
    fn offer_purge(&self) {
        self.offer(Job::PurgeParts);
    }
}
