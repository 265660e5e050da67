//! The lookups of a catalogue that several instances share, as its handle offers them.

use base::{BucketName, CopyId, Month, ObjectKey, Timestamp, UploadId, VersionId};

use crate::fault::Fault;
use crate::job::Held;
use crate::model::{
    BackendId, BackendRow, BackendTotals, Bucket, BucketId, CleanupPage, InstanceRow, Known,
    ListQuery, Listing, LocationRow, ObjectPart, ObjectRecord, PartRow, QueueDepth, ReadPlan,
    UploadListing, UploadQuery, UploadRecord, UsageRow, Verification,
};
use crate::postgres::store::Shared;
use crate::postgres::work::Work;
use crate::postgres::{listing, read, verify};
use crate::writer::Priority;
use crate::{Intent, Result};

type Found<T> = std::result::Result<T, Fault>;

/// Abandoned intents that are forgotten in one batch.
const FORGOTTEN_MAX: usize = 1_000;

impl Shared {
    pub(crate) async fn object(
        &self,
        bucket: BucketId,
        key: &ObjectKey,
    ) -> Found<Option<ObjectRecord>> {
        let row = self.objects.ask(bucket, key).await?;
        row.as_ref().map(read::object).transpose()
    }

    pub(crate) async fn plan(&self, bucket: BucketId, key: &ObjectKey) -> Found<Option<ReadPlan>> {
        let row = self.plans.ask(bucket, key).await?;
        row.as_ref().map(read::plan).transpose()
    }

    pub(crate) async fn object_with_parts(
        &self,
        bucket: BucketId,
        key: &ObjectKey,
        after: u32,
        max: u32,
    ) -> Found<Option<(ObjectRecord, Vec<ObjectPart>)>> {
        read::object_with_parts(&self.pool, bucket, key, after, max).await
    }

    pub(crate) async fn parts_of(
        &self,
        version: VersionId,
        after: u32,
        max: u32,
    ) -> Found<Vec<ObjectPart>> {
        read::parts_of(&self.pool, version, after, max).await
    }

    pub(crate) async fn list(&self, query: &ListQuery) -> Found<Listing> {
        listing::objects(&self.pool, query).await
    }

    pub(crate) async fn uploads(&self, query: &UploadQuery) -> Found<UploadListing> {
        listing::uploads(&self.pool, query).await
    }

    pub(crate) async fn upload(
        &self,
        bucket: BucketId,
        key: &ObjectKey,
        upload: UploadId,
    ) -> Found<Option<UploadRecord>> {
        read::upload(&self.pool, bucket, key, upload).await
    }

    pub(crate) async fn parts(
        &self,
        upload: UploadId,
        after: u32,
        max: u32,
    ) -> Found<Vec<PartRow>> {
        read::parts(&self.pool, upload, after, max).await
    }

    pub(crate) async fn stale_uploads(
        &self,
        before: Timestamp,
        max: u32,
    ) -> Found<Vec<UploadRecord>> {
        read::stale_uploads(&self.pool, before, max).await
    }

    pub(crate) async fn completing_uploads(&self, max: u32) -> Found<Vec<UploadRecord>> {
        read::completing_uploads(&self.pool, max).await
    }

    pub(crate) async fn client_buckets(&self) -> Found<Vec<Bucket>> {
        read::client_buckets(&self.pool).await
    }

    pub(crate) async fn bucket(&self, name: &BucketName) -> Found<Option<Bucket>> {
        read::bucket(&self.pool, name).await
    }

    pub(crate) async fn backends(&self) -> Found<Vec<BackendRow>> {
        read::backends(&self.pool).await
    }

    pub(crate) async fn next_cleanup(&self) -> Found<Option<Timestamp>> {
        read::next_cleanup(&self.pool).await
    }

    pub(crate) async fn depth(&self) -> Found<QueueDepth> {
        read::depth(&self.pool).await
    }

    pub(crate) async fn known_copy(&self, copy: CopyId) -> Found<Known> {
        read::known_copy(&self.pool, &self.live, copy).await
    }

    pub(crate) async fn known_key(&self, backend: BackendId, key: &str) -> Found<Known> {
        read::known_key(&self.pool, &self.live, backend, key).await
    }

    pub(crate) async fn locations(
        &self,
        after: Option<CopyId>,
        max: u32,
    ) -> Found<Vec<LocationRow>> {
        read::locations(&self.pool, after, max).await
    }

    pub(crate) async fn usage(&self, month: Month) -> Found<Vec<UsageRow>> {
        read::usage(&self.pool, month).await
    }

    pub(crate) async fn backend_totals(&self) -> Found<Vec<BackendTotals>> {
        read::backend_totals(&self.pool).await
    }

    pub(crate) async fn cleanup_page(&self, max: u32) -> Found<CleanupPage> {
        read::cleanup_page(&self.pool, max).await
    }

    pub(crate) async fn instances(&self) -> Found<Vec<InstanceRow>> {
        read::instances(&self.pool, self.instance()).await
    }

    /// Compares every counter with the rows it counts, in one snapshot.
    pub(crate) async fn verify(&self) -> Result<Verification> {
        verify::verify(&self.pool, &self.live, self.instance())
            .await
            .map_err(|fault| fault.named("verify the catalogue"))
    }

    /// Forgets every abandoned intent without queueing anything for deletion; the number of them.
    pub(crate) async fn forget_abandoned(&self) -> Result<u64> {
        let mut forgotten = 0;
        loop {
            let rows = self.live.take_abandoned(FORGOTTEN_MAX);
            if rows.is_empty() {
                return Ok(forgotten);
            }
            forgotten += rows.len() as u64;
            let copies = rows.iter().map(|row| row.intent.copy).collect();
            let guards = rows
                .into_iter()
                .map(|row| Intent::new(std::sync::Arc::clone(&self.live), row.intent))
                .collect();
            self.send(
                Work::Withdraw(copies),
                Held::Intents(guards),
                Priority::Normal,
            )
            .await
            .0?;
        }
    }
}
