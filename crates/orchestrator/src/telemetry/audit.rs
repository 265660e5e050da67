//! The audit trail: one line per request, and one per thing that happened to stored bytes.
//!
//! Lines are log events with `audit=true`. A line never holds a query, a header or a body: the
//! signature of a presigned URL would be in there.

use std::borrow::Cow;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use base::BackendName;
use engine::Outcome;
use tracing::info;

use super::metrics::Metrics;

/// Writes audit lines and counts them; cheap to clone.
#[derive(Clone)]
pub struct Audit {
    metrics: Arc<Metrics>,
}

/// How a request ended, for its one line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestEvent {
    /// An operation was recognised and its caller known: `s3.` and its name.
    Operation(&'static str),
    /// The caller could not prove who it is.
    AuthFailure,
    /// The caller may not use the bucket.
    BucketMismatch,
    /// The target names no bucket or key.
    InvalidPath,
    /// The target has no such method.
    MethodNotAllowed,
    /// Too many requests were in flight.
    AdmissionRejected,
    /// The request asks for something that is not built.
    NotImplemented,
    /// The request is malformed in another way.
    InvalidRequest,
    /// An operator called the admin API, and may: `admin.` and the operation's name.
    Admin(&'static str),
    /// Somebody called the admin API without its token.
    AdminAuthFailure,
    /// Somebody called the admin API while it is off.
    AdminDisabled,
    /// An operator called the admin API with something that is no call.
    AdminInvalidRequest,
}

/// What is told of a request.
#[derive(Debug)]
pub struct RequestLine<'a> {
    /// How it ended.
    pub event: RequestEvent,
    /// Its id.
    pub request_id: &'a str,
    /// The operation, where it was recognised.
    pub operation: Option<&'static str>,
    /// The method.
    pub method: &'a str,
    /// The path as it came over the wire.
    pub path: &'a str,
    /// Who sent it.
    pub remote: SocketAddr,
    /// The bucket, where there is one.
    pub bucket: Option<&'a str>,
    /// The key, where there is one.
    pub key: Option<&'a str>,
    /// The status of the answer; [`CLIENT_GONE`] where there was nobody to answer.
    pub status: u16,
    /// From the head of the request to the last byte of the answer.
    pub duration: Duration,
    /// Bytes of the request's body that were read, without framing.
    pub request_size: u64,
    /// Bytes of the response's body.
    pub response_size: u64,
    /// Why it failed: the code, and for our own faults the chain of causes.
    pub error: Option<&'a str>,
}

/// The status of requests whose client went away before the answer. No such status exists on the
/// wire; web servers commonly log it so.
pub const CLIENT_GONE: u16 = 499;

/// Something that happened to stored bytes.
#[derive(Debug, Clone, Copy)]
pub enum StorageEvent<'a> {
    /// An operation of the engine ended.
    Verb {
        /// Its name.
        operation: &'static str,
        /// On which backend.
        backend: Option<&'a BackendName>,
        /// How it ended.
        outcome: Outcome,
        /// How long it took.
        took: Duration,
    },
    /// Versions were replaced; their bytes are queued for deletion.
    OverwriteDisplaced {
        /// How many copies, since the line before.
        copies: u64,
    },
    /// A queued deletion was tried.
    CleanupProcessed {
        /// How it ended.
        status: &'static str,
        /// Where.
        backend: &'a BackendName,
        /// Under which key.
        key: &'a str,
    },
    /// An upload went stale and was aborted.
    MultipartCleanup,
}

impl RequestEvent {
    /// The name of the event.
    pub fn name(self) -> Cow<'static, str> {
        match self {
            Self::Operation(operation) => Cow::Owned(format!("s3.{operation}")),
            Self::AuthFailure => Cow::Borrowed("s3.AuthFailure"),
            Self::BucketMismatch => Cow::Borrowed("s3.BucketMismatch"),
            Self::InvalidPath => Cow::Borrowed("s3.InvalidPath"),
            Self::MethodNotAllowed => Cow::Borrowed("s3.MethodNotAllowed"),
            Self::AdmissionRejected => Cow::Borrowed("s3.AdmissionRejected"),
            Self::NotImplemented => Cow::Borrowed("s3.NotImplemented"),
            Self::InvalidRequest => Cow::Borrowed("s3.InvalidRequest"),
            Self::Admin(operation) => Cow::Owned(format!("admin.{operation}")),
            Self::AdminAuthFailure => Cow::Borrowed("admin.AuthFailure"),
            Self::AdminDisabled => Cow::Borrowed("admin.Disabled"),
            Self::AdminInvalidRequest => Cow::Borrowed("admin.InvalidRequest"),
        }
    }
}

impl Audit {
    /// An audit trail that counts here.
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self { metrics }
    }

    /// Writes the line of a request.
    pub fn request(&self, line: &RequestLine<'_>) {
        let event = line.event.name();
        info!(
            target: "audit",
            audit = true,
            event = event.as_ref(),
            request_id = line.request_id,
            operation = line.operation,
            method = line.method,
            path = line.path,
            remote = %line.remote,
            bucket = line.bucket,
            key = line.key,
            status = line.status,
            duration = nanos(line.duration),
            request_size = line.request_size,
            response_size = line.response_size,
            error = line.error,
            "request"
        );
        self.metrics.audit_events.inc([event]);
    }

    /// Writes the line of something that happened to stored bytes.
    pub fn storage(&self, event: StorageEvent<'_>) {
        let name = match event {
            StorageEvent::Verb {
                operation,
                backend,
                outcome,
                took,
            } => {
                let name = format!("storage.{operation}");
                let status = match outcome {
                    Outcome::Success => "success",
                    Outcome::Error => "error",
                };
                info!(
                    target: "audit",
                    audit = true,
                    event = name,
                    operation,
                    backend = backend.map(BackendName::as_str),
                    status,
                    duration = nanos(took),
                    "storage"
                );
                Cow::Owned(name)
            }
            StorageEvent::OverwriteDisplaced { copies } => {
                let name = "storage.overwrite_displaced";
                info!(target: "audit", audit = true, event = name, copies, "storage");
                Cow::Borrowed(name)
            }
            StorageEvent::CleanupProcessed {
                status,
                backend,
                key,
            } => {
                let name = "cleanup_queue.processed";
                info!(
                    target: "audit",
                    audit = true,
                    event = name,
                    status,
                    backend = backend.as_str(),
                    key,
                    "storage"
                );
                Cow::Borrowed(name)
            }
            StorageEvent::MultipartCleanup => self.plain("storage.MultipartCleanup"),
        };
        self.metrics.audit_events.inc([name]);
    }

    fn plain(&self, name: &'static str) -> Cow<'static, str> {
        info!(target: "audit", audit = true, event = name, "storage");
        Cow::Borrowed(name)
    }
}

impl fmt::Debug for Audit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Audit").finish_non_exhaustive()
    }
}

/// Durations are whole nanoseconds, as existing log pipelines expect them.
fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
