//! Intents, objects, the cleanup queue, recovery.

use std::sync::Arc;
use std::time::Duration;

use base::{BackendKey, CopyId, ObjectKey, Timestamp, VersionId};
use futures_util::future::join_all;
use tokio::sync::{Notify, oneshot};

use super::{Dialect, Store, answer, lookup};
use crate::guard::{Intent, Reservation};
use crate::job::{Answer, Held, Job};
use crate::live::{GivenUp, IntentRow};
use crate::model::{
    BackendId, BucketId, CleanupItem, CleanupReport, Content, CopyState, Enqueued, Known,
    ListQuery, Listing, LocationRow, NewIntent, NewVersion, ObjectPart, ObjectRecord, QueueDepth,
    ReadPlan, Removal, Removed, Retag, Verdict,
};
use crate::postgres::work::Work;
use crate::settle::IntentItem;
use crate::sqlite::store::LOOKUP;
use crate::sqlite::{listing, read};
use crate::writer::Priority;
use crate::{Error, Result};

impl Store {
    // === intents ===

    /// Makes an intent durable. Only after `Ok` may the last byte go to the backend.
    ///
    /// # Errors
    /// [`Error::NoRoom`] where the backend no longer accepts bytes.
    pub async fn open_intent(&self, intent: NewIntent, room: Reservation) -> Result<Intent> {
        let NewIntent { copy, blob, key } = intent;
        let row = IntentRow {
            copy,
            blob,
            backend: room.backend(),
            key,
            bytes: room.bytes(),
        };
        let (reply, answer) = oneshot::channel();
        let item = IntentItem { row, room, reply };
        match &self.inner.dialect {
            Dialect::Sqlite(files) => files.open_intent(item, answer).await,
            Dialect::Postgres(shared) => Box::pin(shared.open_intent(item, answer)).await,
        }
    }

    /// Gives an intent up whose write certainly had no effect: nothing is left to delete.
    pub async fn withdraw_intent(&self, intent: Intent) -> Result<()> {
        let copy = intent.copy();
        let gone = Error::IntentGone { copy };
        match &self.inner.dialect {
            // Its row goes later: one that has no other row and no registered intent says nothing.
            Dialect::Sqlite(_) if self.inner.live.withdraw(copy) => {
                intent.disarm();
                Ok(())
            }
            // Its row holds room, which is given out again only when it is gone.
            Dialect::Postgres(shared) if self.inner.live.begin_settling(&[copy]) => {
                let work = Work::Withdraw(vec![copy]);
                let held = Held::Intents(vec![intent]);
                Box::pin(shared.send(work, held, Priority::Normal))
                    .await
                    .0
                    .map(drop)
            }
            Dialect::Sqlite(_) | Dialect::Postgres(_) => Err(gone),
        }
    }

    /// Gives an intent up whose write may have had an effect: intent out, cleanup row in, which is
    /// unsettled unless the backend [has answered](Intent::answered).
    pub async fn abandon_intent(&self, intent: Intent) -> Result<()> {
        let copy = intent.copy();
        if !self.inner.live.begin_settling(&[copy]) {
            return Err(Error::IntentGone { copy });
        }
        let outcome = self.inner.live.outcome(copy);
        let intent_row = intent.row().clone();
        let job = Job::GiveUp(vec![GivenUp {
            intent: intent_row,
            outcome,
        }]);
        // What fails leaves the guard to its drop: abandoned, for the reaper.
        self.run_with(job, Held::Intents(vec![intent]), Priority::Normal)
            .await
            .0
            .map(drop)
    }

    /// Rings when an intent is abandoned, for whoever reaps.
    pub fn abandoned_bell(&self) -> Arc<Notify> {
        self.inner.live.abandoned_bell()
    }

    /// Turns at most `limit` abandoned intents into cleanup rows; the number of them.
    /// None in recovery state.
    pub async fn reap_intents(&self, limit: u32) -> Result<u64> {
        if self.inner.catalogue.read().recovery.is_some() {
            return Ok(0);
        }
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let rows = self.inner.live.take_abandoned(limit);
        if rows.is_empty() {
            return Ok(0);
        }
        let guard = |row: &GivenUp| Intent::new(Arc::clone(&self.inner.live), row.intent.clone());
        let held = Held::Intents(rows.iter().map(guard).collect());
        answer!(
            self.run_with(Job::GiveUp(rows), held, Priority::Normal)
                .await
                .0,
            Count
        )
    }

    // === objects ===

    /// Makes a version exist: intents become locations, what it displaces is queued for deletion,
    /// counters move, all in one transaction. On any verdict but `Committed` the intents are still
    /// the caller's, in the returned vector; on `Committed` those that the content did not name.
    pub async fn commit(
        &self,
        version: NewVersion,
        intents: Vec<Intent>,
    ) -> (Result<Verdict>, Vec<Intent>) {
        let named: Vec<CopyId> = match &version.content {
            Content::Same { .. } => Vec::new(),
            Content::Written { blobs, .. } => blobs
                .iter()
                .flat_map(|blob| &blob.copies)
                .map(|copy| copy.copy)
                .collect(),
        };
        let (used, spare): (Vec<Intent>, Vec<Intent>) = intents
            .into_iter()
            .partition(|intent| named.contains(&intent.copy()));
        let open = used.len() == named.len() && self.inner.live.begin_settling(&named);
        if !open {
            return (
                Ok(Verdict::IntentGone),
                used.into_iter().chain(spare).collect(),
            );
        }
        let rows = used.iter().map(|intent| intent.row().clone()).collect();
        let job = Job::Commit {
            version,
            intents: rows,
        };
        let (answer, held) = self
            .run_with(job, Held::Intents(used), Priority::Normal)
            .await;
        let verdict = (|| answer!(answer, Verdict))();
        let mut left = match held {
            Held::Intents(intents) => intents,
            Held::Nothing | Held::Claim(_) | Held::NewClaim(..) | Held::Counts(_) => Vec::new(),
        };
        left.extend(spare);
        (verdict, left)
    }

    /// Removes a key.
    pub async fn remove(&self, removal: Removal) -> Result<Removed> {
        answer!(self.run(Job::Remove(removal)).await, Removed)
    }

    /// Gives the current version of a key other tags; `false` where there is none.
    pub async fn retag(&self, retag: Retag) -> Result<bool> {
        answer!(self.run(Job::Retag(retag)).await, Retagged)
    }

    /// Removes keys, each on its own, in the low-priority lane; outcomes in the order of the keys.
    pub async fn remove_many(&self, removals: Vec<Removal>) -> Vec<Result<Removed>> {
        let remove = async |removal| {
            let (answer, _) = self
                .run_with(Job::Remove(removal), Held::Nothing, Priority::Low)
                .await;
            answer!(answer, Removed)
        };
        join_all(removals.into_iter().map(remove)).await
    }

    /// The current version of a key.
    pub async fn object(&self, bucket: BucketId, key: &ObjectKey) -> Result<Option<ObjectRecord>> {
        match &self.inner.dialect {
            Dialect::Sqlite(files) => files.object(bucket, key),
            Dialect::Postgres(shared) => Box::pin(shared.object(bucket, key))
                .await
                .map_err(|fault| fault.named(LOOKUP)),
        }
    }

    /// The current version of a key, and its parts behind a part number, in one snapshot.
    pub async fn object_with_parts(
        &self,
        bucket: BucketId,
        key: &ObjectKey,
        after: u32,
        max: u32,
    ) -> Result<Option<(ObjectRecord, Vec<ObjectPart>)>> {
        lookup!(
            self,
            "look an object up",
            |tx| read::object_with_parts(tx, bucket, key, after, max),
            |shared| shared.object_with_parts(bucket, key, after, max)
        )
    }

    /// The current version of a key and where its bytes are, in one snapshot.
    pub async fn plan(&self, bucket: BucketId, key: &ObjectKey) -> Result<Option<ReadPlan>> {
        match &self.inner.dialect {
            Dialect::Sqlite(files) => files.plan(bucket, key),
            Dialect::Postgres(shared) => Box::pin(shared.plan(bucket, key))
                .await
                .map_err(|fault| fault.named(LOOKUP)),
        }
    }

    /// The parts of a version, behind a part number, by number.
    pub async fn parts_of(
        &self,
        version: VersionId,
        after: u32,
        max: u32,
    ) -> Result<Vec<ObjectPart>> {
        lookup!(
            self,
            "list the parts of an object",
            |tx| read::parts_of(tx, version, after, max),
            |shared| shared.parts_of(version, after, max)
        )
    }

    /// A page of keys.
    pub async fn list(&self, query: &ListQuery) -> Result<Listing> {
        self.check_listable()?;
        lookup!(
            self,
            "list objects",
            |tx| listing::objects(tx, query),
            |shared| shared.list(query)
        )
    }

    /// Marks a copy as what it is held for; as good only after its content proved it. What was proven to be
    /// corrupt becomes nothing else but good: a read that began earlier knows less.
    pub async fn mark_copy(&self, copy: CopyId, state: CopyState) -> Result<()> {
        self.run(Job::MarkCopy { copy, state }).await.map(drop)
    }

    // === background work ===

    /// Takes the work of this name for so long, or goes on with it; whether it is this process's to do.
    /// It is another one's until that stops, dies, or has not renewed it for as long as it asked.
    pub async fn lease_worker(&self, name: &'static str, lasts: Duration) -> Result<bool> {
        match &self.inner.dialect {
            Dialect::Sqlite(_) => Ok(true),
            Dialect::Postgres(_) => {
                answer!(self.run(Job::LeaseWorker { name, lasts }).await, Granted)
            }
        }
    }

    // === cleanup ===

    /// Claims due rows, the longest due first; they are invisible to other claims for `visible`.
    /// None in recovery state.
    pub async fn claim_cleanup(&self, limit: u32, visible: Duration) -> Result<Vec<CleanupItem>> {
        answer!(self.run(Job::ClaimCleanup { limit, visible }).await, Items)
    }

    /// Settles claimed rows.
    pub async fn report_cleanup(&self, reports: Vec<CleanupReport>) -> Result<()> {
        self.run(Job::ReportCleanup(reports)).await.map(drop)
    }

    /// What was queued for deletion on backends since the last call.
    pub fn take_enqueued(&self) -> Enqueued {
        self.inner.live.take_enqueued()
    }

    /// Makes rows of a backend due now whose read grace has not ended, because room is needed; the
    /// number of them.
    pub async fn hasten_cleanup(&self, backend: BackendId) -> Result<u64> {
        answer!(self.run(Job::HastenCleanup(backend)).await, Count)
    }

    /// Lets go of every row that this process has claimed and not settled: they are due at once; the
    /// number of them. For after a step that was cut off, or whose claim was granted and the answer lost.
    pub async fn release_cleanup(&self) -> Result<u64> {
        answer!(self.run(Job::ReleaseCleanup).await, Count)
    }

    /// When the next row of the cleanup queue is due, or its claim runs out.
    pub async fn next_cleanup(&self) -> Result<Option<Timestamp>> {
        lookup!(
            self,
            "look at the cleanup queue",
            |tx| read::next_cleanup(tx),
            |shared| shared.next_cleanup()
        )
    }

    /// Rows that wait.
    pub async fn depth(&self) -> Result<QueueDepth> {
        lookup!(
            self,
            "count what waits",
            |tx| read::depth(tx, &self.inner.live),
            |shared| shared.depth()
        )
    }

    // === recovery ===

    /// What is known of a copy id.
    pub async fn known_copy(&self, copy: CopyId) -> Result<Known> {
        lookup!(
            self,
            "look a copy up",
            |tx| read::known_copy(tx, &self.inner.live, copy),
            |shared| shared.known_copy(copy)
        )
    }

    /// What is known of a key on a backend.
    pub async fn known_key(&self, backend: BackendId, key: &str) -> Result<Known> {
        lookup!(
            self,
            "look a key up",
            |tx| read::known_key(tx, &self.inner.live, backend, key),
            |shared| shared.known_key(backend, key)
        )
    }

    /// Makes a version exist whose bytes were found on a backend, unless the key has a version that
    /// was written later, or a copy, the blob or the version is known already.
    pub async fn adopt(
        &self,
        version: NewVersion,
        places: Vec<(CopyId, BackendId, BackendKey)>,
    ) -> Result<crate::model::Adopted> {
        answer!(self.run(Job::Adopt { version, places }).await, Adopted)
    }

    /// All locations behind a copy id, by copy id.
    pub async fn locations(&self, after: Option<CopyId>, max: u32) -> Result<Vec<LocationRow>> {
        lookup!(
            self,
            "list locations",
            |tx| read::locations(tx, after, max),
            |shared| shared.locations(after, max)
        )
    }
}
