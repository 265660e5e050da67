//! What the writer of this dialect applies: the jobs of every catalogue, and those that only several
//! instances need.

use base::{CopyId, UploadId};
use serde_json::{Value, json};

use crate::check;
use crate::fault::Fault;
use crate::job::Job;
use crate::live::Live;
use crate::model::BackendId;
use crate::postgres::encode::{self, Hold, Lock};

/// Something to be done in a batch.
#[derive(Debug)]
pub(crate) enum Work {
    /// A job of every catalogue.
    Job(Box<Job>),
    /// Intents whose writes certainly had no effect.
    Withdraw(Vec<CopyId>),
    /// More room for this instance.
    LeaseRoom {
        backend: BackendId,
        wanted: u64,
        limit: Option<u64>,
    },
    /// Room that this instance does not need; its ledger has given it up already.
    ReturnRoom {
        backend: BackendId,
        bytes: u64,
        /// Nobody here waits for room of this backend any more.
        satisfied: bool,
    },
    /// Buries an instance that has not shown itself for a lease.
    Bury { instance: i32, lease_ms: i64 },
    /// Takes over the completion of an upload whose driver is gone.
    Drive(UploadId),
    /// A sign of life.
    Beat,
}

/// Room is leased in chunks of at most this, in bytes; small against what is left, however little that
/// is: the function takes a sixteenth of it.
const LEASE_CHUNK_BYTES: u64 = 64 << 20;

impl Work {
    /// What it attempts, for errors.
    pub(crate) fn operation(&self) -> &'static str {
        match self {
            Self::Job(job) => job.operation(),
            Self::Withdraw(_) => "withdraw intents",
            Self::LeaseRoom { .. } => "lease room",
            Self::ReturnRoom { .. } => "return room",
            Self::Bury { .. } => "bury an instance",
            Self::Drive(_) => "take up a completion",
            Self::Beat => "give a sign of life",
        }
    }

    /// About how many rows it touches.
    pub(crate) fn rows(&self) -> usize {
        match self {
            Self::Job(job) => job.rows(),
            Self::Withdraw(copies) => copies.len(),
            Self::LeaseRoom { .. } | Self::ReturnRoom { .. } | Self::Drive(_) | Self::Beat => 1,
            Self::Bury { .. } => crate::writer::BATCH_ROWS_MAX,
        }
    }

    /// Refuses what no database should see.
    pub(crate) fn check(&self) -> Result<(), Fault> {
        match self {
            Self::Job(job) => check::job(job),
            Self::Withdraw(_)
            | Self::LeaseRoom { .. }
            | Self::ReturnRoom { .. }
            | Self::Bury { .. }
            | Self::Drive(_)
            | Self::Beat => Ok(()),
        }
    }

    pub(crate) fn locks(&self) -> Vec<Lock> {
        match self {
            Self::Job(job) => encode::locks(job),
            Self::LeaseRoom { backend, .. } => vec![
                (encode::of_room(*backend), Hold::Exclusive),
                (encode::of_accepting(*backend), Hold::Shared),
            ],
            Self::Bury { instance, .. } => {
                vec![(encode::of_instance(*instance), Hold::Exclusive)]
            }
            Self::Drive(upload) => encode::upload_locks(*upload),
            Self::Withdraw(_) | Self::ReturnRoom { .. } | Self::Beat => Vec::new(),
        }
    }

    /// As the database takes it.
    pub(crate) fn encode(&self, now: base::Timestamp, live: &Live) -> Value {
        match self {
            Self::Job(job) => encode::job(job, now, live),
            Self::Withdraw(copies) => {
                let copies: Vec<Value> = copies
                    .iter()
                    .map(|copy| json!(encode::copy_uuid(*copy).hyphenated().to_string()))
                    .collect();
                json!({"k": "withdraw", "copies": copies})
            }
            Self::LeaseRoom {
                backend,
                wanted,
                limit,
            } => json!({
                "k": "lease_room", "backend": backend.0, "wanted": wanted, "limit": limit,
                "chunk": LEASE_CHUNK_BYTES,
            }),
            Self::ReturnRoom {
                backend,
                bytes,
                satisfied,
            } => json!({
                "k": "return_room", "backend": backend.0, "bytes": bytes, "satisfied": satisfied,
            }),
            Self::Bury { instance, lease_ms } => {
                json!({"k": "bury", "instance": instance, "lease": lease_ms})
            }
            Self::Drive(upload) => {
                let upload = encode::upload_uuid(*upload).hyphenated().to_string();
                json!({"k": "drive", "upload": upload})
            }
            Self::Beat => json!({"k": "beat"}),
        }
    }
}
