//! What the calls answer, as JSON; the table of calls says what each field means.
//!
//! The front writes these and the command line reads them. Who reads passes over fields that it does
//! not know, so that an older command line understands a newer server. Moments are ISO 8601, UTC.

#![expect(missing_docs, reason = "the table of calls says what each field means")]

use serde::{Deserialize, Serialize};

/// `GET status`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusAnswer {
    pub db_healthy: bool,
    pub db_error: Option<String>,
    pub usage_period: String,
    pub recovery: Option<String>,
    pub backends: Vec<Backend>,
}

/// One backend in a [`StatusAnswer`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backend {
    pub name: String,
    pub healthy: bool,
    pub out_of_service: Option<String>,
    pub draining: Option<bool>,
    pub bytes_used: u64,
    pub bytes_limit: u64,
    pub orphan_bytes: u64,
    pub reserved_bytes: u64,
    pub object_count: Option<u64>,
    pub api_requests: u64,
    pub egress_bytes: u64,
    pub ingress_bytes: u64,
}

/// `GET object-locations`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectLocations {
    pub key: String,
    pub version_id: String,
    pub size_bytes: u64,
    pub etag: String,
    pub last_modified: String,
    pub locations: Vec<Location>,
}

/// One copy in [`ObjectLocations`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Location {
    pub object_key: String,
    pub backend_name: String,
    pub backend_key: String,
    pub backend_version: Option<String>,
    pub copy_id: String,
    pub blob_id: String,
    pub size_bytes: u64,
    pub offset: u64,
    pub length: u64,
    pub blob_offset: u64,
    pub state: String,
}

/// `GET workers`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkersAnswer {
    pub workers: Vec<WorkerAnswer>,
}

/// One of the [`WorkersAnswer`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerAnswer {
    pub name: String,
    pub last_success: Option<String>,
    pub last_failure: Option<String>,
    pub last_error: Option<String>,
    pub consecutive_failures: u32,
    pub done: u64,
    pub standby: bool,
}

/// `GET cleanup-queue`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CleanupQueue {
    pub depth: u64,
    pub dead_letters: u64,
    pub items: Vec<CleanupAnswerItem>,
}

/// One row in [`CleanupQueue`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CleanupAnswerItem {
    pub id: i64,
    pub backend_name: String,
    pub object_key: String,
    pub reason: String,
    pub attempts: u32,
    pub size_bytes: u64,
    pub created_at: String,
    pub not_before: String,
    pub last_error: Option<String>,
}

/// `GET instances`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instances {
    pub instances: Vec<Instance>,
}

/// One of the [`Instances`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instance {
    pub id: i64,
    pub epoch: u64,
    pub heartbeat: String,
    pub this: bool,
}

/// `GET log-level` and `PUT log-level`, and the body of the latter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLevelAnswer {
    pub level: String,
}

/// Every answer that is no success.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorAnswer {
    /// What is wrong, and the way out.
    pub error: String,
}
