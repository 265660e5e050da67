//! Jobs for the writer and their answers, as plain data: a dialect only has to apply them.

use std::time::Duration;

use base::{BackendKey, BackendName, BucketName, CopyId, ObjectKey, Precondition, UploadId};

use crate::guard::{Intent, PartClaim, Reservation};
use crate::ledger::Counters;
use crate::live::{GivenUp, IntentRow};
use crate::model::{
    Adopted, BackendId, BackendRow, BackendState, Bucket, BucketCreation, BucketId, BucketRemoval,
    CleanupItem, CleanupReport, Completion, Content, CopyState, ForgetUploads, Freeze, NewCopy,
    NewLeg, NewPartClaim, NewUpload, NewVersion, PartRow, RecoveryChange, Removal, Removed, Retag,
    UploadVerdict, UsageRow, Verdict,
};

/// Something to be done in a transaction.
#[derive(Debug)]
pub(crate) enum Job {
    Recovery(RecoveryChange),
    EnsureBuckets(Vec<BucketName>),
    CreateBucket(BucketName),
    RemoveBucket(BucketId),
    EnsureBackends(Vec<BackendName>),
    SaveCapabilities {
        backend: BackendId,
        found: String,
    },
    SetBackendState {
        backend: BackendId,
        state: BackendState,
    },
    AdvanceMark {
        backend: BackendId,
        past: u64,
    },
    /// Adds to what the rows of the months say.
    AddUsage(Vec<UsageRow>),
    GiveUp(Vec<GivenUp>),
    LeaseWorker {
        name: &'static str,
        lasts: Duration,
    },
    Commit {
        version: NewVersion,
        intents: Vec<IntentRow>,
    },
    Remove(Removal),
    Retag(Retag),
    MarkCopy {
        copy: CopyId,
        state: CopyState,
    },
    Adopt {
        version: NewVersion,
        places: Vec<(CopyId, BackendId, BackendKey)>,
    },
    ClaimCleanup {
        limit: u32,
        visible: Duration,
    },
    ReportCleanup(Vec<CleanupReport>),
    HastenCleanup(BackendId),
    ReleaseCleanup,
    CreateUpload(NewUpload),
    AddLeg {
        upload: UploadId,
        leg: NewLeg,
    },
    OpenLeg {
        upload: UploadId,
        leg: CopyId,
        id: String,
    },
    DropLeg {
        upload: UploadId,
        leg: CopyId,
    },
    ClaimPart {
        claim: NewPartClaim,
        backend: BackendId,
        bytes: u64,
    },
    CommitPart {
        upload: UploadId,
        attempt: CopyId,
        part: PartRow,
    },
    WithdrawPart {
        upload: UploadId,
        attempt: CopyId,
    },
    Freeze {
        upload: UploadId,
        parts: Vec<(u32, CopyId)>,
        precondition: Precondition,
    },
    CompleteLeg {
        upload: UploadId,
        leg: CopyId,
        copy: NewCopy,
        size: u64,
    },
    Thaw {
        upload: UploadId,
        missing: Option<CopyId>,
    },
    CompleteUpload(Completion),
    AbortUpload {
        bucket: BucketId,
        key: ObjectKey,
        upload: UploadId,
    },
    /// Lets go of every unfinished upload without queueing anything for deletion.
    ForgetPending,
    /// Part rows of ended uploads, so many at a time.
    PurgeParts,
    ForgetUploads(ForgetUploads),
    /// Compares the counters in memory with those in rows.
    Audit,
}

/// What became of a job.
#[derive(Debug)]
pub(crate) enum Answer {
    Done,
    Buckets(Vec<Bucket>),
    BucketCreation(BucketCreation),
    BucketRemoval(BucketRemoval),
    Backends(Vec<BackendRow>),
    Mark(u64),
    Verdict(Verdict),
    Removed(Removed),
    /// Whether there was a version to tag.
    Retagged(bool),
    Adopted(Adopted),
    /// Whether background work is this process's to do.
    Granted(bool),
    Items(Vec<CleanupItem>),
    Count(u64),
    Upload(UploadVerdict),
    Freeze(Freeze),
    Drift(Vec<String>),
    /// The counters of this instance in rows.
    Slots(Vec<Slot>),
    /// There is more room.
    Leased,
    /// There is no more room; other instances hold so many bytes that they do not use.
    Short {
        others: u64,
    },
}

/// The counters of one backend in the rows of one instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Slot {
    pub(crate) backend: BackendId,
    pub(crate) counters: Counters,
    pub(crate) leased: u64,
}

/// Memory that follows rows: whoever holds counts that a job writes.
///
/// It travels with the job, so that the outcome reaches it whether or not anybody still waits for
/// the answer. Dropped without [`Landing::landed`], the job had no effect and never will.
pub trait Landing: Send {
    /// The rows are durable; called before anybody is answered.
    fn landed(self: Box<Self>);
}

/// Guards that travel with a job, so that they are settled however it ends.
#[derive(Default)]
pub(crate) enum Held {
    #[default]
    Nothing,
    /// Intents that the job settles.
    Intents(Vec<Intent>),
    /// A claim under way.
    Claim(PartClaim),
    /// A claim that the job makes, with its room.
    NewClaim(PartClaim, Reservation),
    /// Counts that the job writes.
    Counts(Box<dyn Landing>),
}

/// The bytes of which a key's commit consists count as one row each.
const COMMIT_ROWS: usize = 4;

impl Job {
    /// What it attempts, for errors.
    pub(crate) fn operation(&self) -> &'static str {
        match self {
            Self::Recovery(RecoveryChange::Enter(..)) => "enter the recovery state",
            Self::Recovery(RecoveryChange::Leave) => "leave the recovery state",
            Self::EnsureBuckets(_) => "record buckets",
            Self::CreateBucket(_) => "create a bucket",
            Self::RemoveBucket(_) => "remove a bucket",
            Self::EnsureBackends(_) => "record backends",
            Self::SaveCapabilities { .. } => "record capabilities",
            Self::SetBackendState { .. } => "record the state of a backend",
            Self::AdvanceMark { .. } => "advance the mark of a backend",
            Self::AddUsage(_) => "record usage",
            Self::GiveUp(_) => "give intents up",
            Self::LeaseWorker { .. } => "lease background work",
            Self::Commit { .. } => "commit an object",
            Self::Remove(_) => "remove an object",
            Self::Retag(_) => "tag an object",
            Self::MarkCopy { .. } => "mark a copy",
            Self::Adopt { .. } => "adopt an object",
            Self::ClaimCleanup { .. } => "claim cleanup rows",
            Self::ReportCleanup(_) => "settle cleanup rows",
            Self::HastenCleanup(_) => "hasten the cleanup",
            Self::ReleaseCleanup => "release cleanup rows",
            Self::CreateUpload(_) => "create an upload",
            Self::AddLeg { .. } => "add a leg",
            Self::OpenLeg { .. } => "open a leg",
            Self::DropLeg { .. } => "drop a leg",
            Self::ClaimPart { .. } => "claim a part",
            Self::CommitPart { .. } => "commit a part",
            Self::WithdrawPart { .. } => "withdraw a part",
            Self::Freeze { .. } => "freeze an upload",
            Self::CompleteLeg { .. } => "complete a leg",
            Self::Thaw { .. } => "return an upload to open",
            Self::CompleteUpload(_) => "complete an upload",
            Self::AbortUpload { .. } => "abort an upload",
            Self::ForgetPending => "let go of unfinished uploads",
            Self::PurgeParts => "purge part rows",
            Self::ForgetUploads(_) => "forget uploads",
            Self::Audit => "compare counters",
        }
    }

    /// About how many rows it touches; batches are bounded by it.
    pub(crate) fn rows(&self) -> usize {
        let version = |version: &NewVersion| {
            let copies = match &version.content {
                Content::Written { blobs, extents } => {
                    extents.len()
                        + blobs
                            .iter()
                            .map(|blob| 1 + blob.copies.len())
                            .sum::<usize>()
                }
                Content::Same { .. } => 0,
            };
            COMMIT_ROWS + version.parts.len() + copies
        };
        match self {
            Self::Commit { version: new, .. } | Self::Adopt { version: new, .. } => version(new),
            Self::CompleteUpload(completion) => 2 * version(&completion.version),
            Self::EnsureBuckets(names) => names.len(),
            Self::EnsureBackends(names) => names.len(),
            Self::GiveUp(intents) => intents.len(),
            Self::AddUsage(rows) => rows.len(),
            Self::ReportCleanup(reports) => reports.len(),
            Self::ClaimCleanup { limit, .. } => usize::try_from(*limit).unwrap_or(usize::MAX),
            Self::Freeze { parts, .. } => parts.len(),
            Self::PurgeParts
            | Self::ForgetPending
            | Self::ForgetUploads(_)
            | Self::HastenCleanup(_)
            | Self::ReleaseCleanup => crate::writer::BATCH_ROWS_MAX,
            Self::Recovery(_)
            | Self::LeaseWorker { .. }
            | Self::SaveCapabilities { .. }
            | Self::SetBackendState { .. }
            | Self::AdvanceMark { .. }
            | Self::CreateBucket(_)
            | Self::RemoveBucket(_)
            | Self::Remove(_)
            | Self::Retag(_)
            | Self::MarkCopy { .. }
            | Self::CreateUpload(_)
            | Self::AddLeg { .. }
            | Self::OpenLeg { .. }
            | Self::DropLeg { .. }
            | Self::ClaimPart { .. }
            | Self::CommitPart { .. }
            | Self::WithdrawPart { .. }
            | Self::CompleteLeg { .. }
            | Self::Thaw { .. }
            | Self::AbortUpload { .. }
            | Self::Audit => COMMIT_ROWS,
        }
    }
}
