//! What is to be removed from backends, and what became of it.

use base::{BackendKey, BlobId, CopyId, Timestamp};

use super::BackendId;

/// Why bytes are queued for deletion; the names are those of the metric label `reason`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CleanupReason {
    /// `overwrite_displaced`: another version replaced theirs.
    OverwriteDisplaced,
    /// `object_deleted`: their object was deleted.
    ObjectDeleted,
    /// `intent_abandoned`: the write that made them did not commit.
    IntentAbandoned,
    /// `abort_part_cleanup`: their upload was aborted or went stale.
    UploadAborted,
    /// `complete_part_cleanup`: their upload was completed without them.
    UploadLeftover,
}

impl CleanupReason {
    /// All reasons.
    pub const ALL: [Self; 5] = [
        Self::OverwriteDisplaced,
        Self::ObjectDeleted,
        Self::IntentAbandoned,
        Self::UploadAborted,
        Self::UploadLeftover,
    ];

    /// The name in metrics, audit events and rows.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::OverwriteDisplaced => "overwrite_displaced",
            Self::ObjectDeleted => "object_deleted",
            Self::IntentAbandoned => "intent_abandoned",
            Self::UploadAborted => "abort_part_cleanup",
            Self::UploadLeftover => "complete_part_cleanup",
        }
    }
}

/// Rows that were queued for deletion on backends, by reason.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Enqueued([u64; CleanupReason::ALL.len()]);

impl Enqueued {
    /// How many, for each reason that had any.
    pub fn by_reason(self) -> impl Iterator<Item = (CleanupReason, u64)> {
        let counted = CleanupReason::ALL.into_iter().zip(self.0);
        counted.filter(|(_, rows)| *rows > 0)
    }

    pub(crate) fn add(&mut self, reason: CleanupReason, rows: u64) {
        let counted = CleanupReason::ALL.iter().zip(&mut self.0);
        for (_, count) in counted.filter(|(one, _)| **one == reason) {
            *count += rows;
        }
    }

    pub(crate) fn merge(&mut self, other: Self) {
        for (count, more) in self.0.iter_mut().zip(other.0) {
            *count += more;
        }
    }
}

/// What is to be removed from a backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CleanupKind {
    /// An object.
    Object {
        /// Its version id on the backend.
        version: Option<String>,
    },
    /// A multipart upload, and whatever object it may have become.
    Upload {
        /// The backend's id of it; `None` where the attempt to create it was never answered.
        upload: Option<String>,
    },
}

/// A claimed row of the cleanup queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CleanupItem {
    /// The row.
    pub id: i64,
    /// The copy (or leg) it was.
    pub copy: CopyId,
    /// The blob it was a copy of, so that reads under way can be respected.
    pub blob: Option<BlobId>,
    /// Where.
    pub backend: BackendId,
    /// Under which key.
    pub key: BackendKey,
    /// Object or upload.
    pub kind: CleanupKind,
    /// Bytes that count as orphan until it is done.
    pub bytes: u64,
    /// Why.
    pub reason: CleanupReason,
    /// Its outcome was unknown when it was queued: the bytes may still appear. It is done only after
    /// a second deletion, an hour after the first.
    pub unsettled: bool,
    /// Whether the first of the two deletions of an unsettled row has happened.
    pub first_pass_done: bool,
    /// Failed attempts so far.
    pub attempts: u32,
}

/// What a cleaner reports of a claimed row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CleanupReport {
    /// The row.
    pub id: i64,
    /// What became of it.
    pub outcome: CleanupOutcome,
}

/// What became of a cleanup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CleanupOutcome {
    /// The bytes are gone, and cannot come back: the row goes, orphan bytes go down.
    Done,
    /// The first deletion of an unsettled row happened; look again at this time.
    FirstPassDone {
        /// When.
        again_at: Timestamp,
    },
    /// It failed, or must wait.
    Retry {
        /// When to try again.
        again_at: Timestamp,
        /// What went wrong; counts as an attempt. `None` for a mere delay.
        error: Option<String>,
    },
    /// It failed too often: it becomes a dead letter and keeps its orphan bytes.
    Dead {
        /// The last error.
        error: String,
    },
}

/// Rows that wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct QueueDepth {
    /// Rows in the cleanup queue.
    pub queued: u64,
    /// Dead letters.
    pub dead: u64,
    /// Open intents.
    pub intents: u64,
}
