//! What an operator looks at.

use base::{BackendKey, BackendName, Timestamp};

use super::{BackendId, BackendState, CleanupReason, QueueDepth};

/// What the rows say of a backend, beside how full it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackendTotals {
    /// Which backend.
    pub id: BackendId,
    /// What was decided about it.
    pub state: BackendState,
    /// Copies on it.
    pub locations: u64,
}

/// The cleanup queue at a glance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CleanupPage {
    /// All rows that wait.
    pub depth: QueueDepth,
    /// Those that are due soonest.
    pub items: Vec<QueuedCleanup>,
}

/// A row of the cleanup queue as somebody sees it who does not claim it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueuedCleanup {
    /// The row.
    pub id: i64,
    /// Where its bytes are.
    pub backend: BackendName,
    /// Under which key.
    pub key: BackendKey,
    /// Why they are to go.
    pub reason: CleanupReason,
    /// How many.
    pub bytes: u64,
    /// Failed attempts so far.
    pub attempts: u32,
    /// When it was queued.
    pub created: Timestamp,
    /// When it is due, or its claim runs out.
    pub not_before: Timestamp,
    /// What went wrong last.
    pub last_error: Option<String>,
}

/// A process that writes, or wrote, to the catalogue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InstanceRow {
    /// Its number.
    pub id: i64,
    /// Grows with every start: their number on SQLite, a time in milliseconds on PostgreSQL.
    pub epoch: u64,
    /// When it last gave a sign of life. Where one process owns the catalogue, its lock file is the
    /// sign, and this is when it started.
    pub heartbeat: Timestamp,
    /// Whether it is the one that was asked.
    pub this: bool,
}
