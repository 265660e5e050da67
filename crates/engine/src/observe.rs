//! Facts about what the engine did, for metrics and the audit log.

use std::time::Duration;

use base::BackendName;
use metastore::model::CleanupReason;
use tokio::time::Instant;

use crate::{Engine, Error, Result};

/// How something ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// It worked.
    Success,
    /// It failed.
    Error,
}

/// Which way bytes were to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Access {
    /// From backends.
    Read,
    /// To backends.
    Write,
}

/// One fact. The list is closed: whoever observes matches exhaustively.
#[derive(Debug, Clone, Copy)]
pub enum Event<'a> {
    /// A call to a backend ended (a body's end is another matter).
    BackendCall {
        /// Which backend.
        backend: &'a BackendName,
        /// For example `put`.
        operation: &'static str,
        /// How it ended.
        outcome: Outcome,
        /// How long it took.
        took: Duration,
    },
    /// A verb ended on a backend.
    Verb {
        /// For example `PutObject`.
        operation: &'static str,
        /// Which backend, where one was involved.
        backend: Option<&'a BackendName>,
        /// How it ended.
        outcome: Outcome,
        /// How long it took.
        took: Duration,
    },
    /// A write went to another backend after one had failed.
    WriteFailover {
        /// For example `PutObject`.
        operation: &'static str,
        /// Where it failed.
        failed: &'a BackendName,
        /// Where it succeeded.
        succeeded: &'a BackendName,
    },
    /// Copies were queued for deletion. Told every few seconds and not one by one: requests pay nothing.
    CleanupEnqueued {
        /// Why.
        reason: CleanupReason,
        /// How many.
        copies: u64,
    },
    /// A queued deletion was tried.
    CleanupProcessed {
        /// `success`, `success_absent`, `retry` or `exhausted`.
        status: &'static str,
        /// Where.
        backend: &'a BackendName,
        /// Under which key.
        key: &'a str,
    },
    /// A step of a worker ended.
    WorkerStep {
        /// Which worker.
        worker: &'static str,
        /// How it ended.
        outcome: Outcome,
        /// Failures in a row, this one included.
        failures: u32,
        /// What it did.
        done: u64,
    },
    /// An upload went stale and was aborted.
    UploadReaped,
    /// A verb was refused because of monthly usage limits.
    UsageRefused {
        /// For example `PutObject`.
        operation: &'static str,
        /// What it wanted of backends.
        access: Access,
    },
    /// An exchange with Redis ended.
    RedisCall {
        /// `pipeline_add` or `pipeline_load`.
        operation: &'static str,
        /// How it ended.
        outcome: Outcome,
    },
    /// Redis was given up for a while, or is back.
    RedisFallback {
        /// Whether each instance knows only the rows and its own counts.
        active: bool,
    },
}

/// Takes facts. Called on the data path: must be quick and must not block.
pub trait Observer: Send + Sync {
    /// Takes one fact.
    fn observe(&self, event: Event<'_>);
}

/// An observer that looks away.
#[derive(Debug, Clone, Copy, Default)]
pub struct Quiet;

impl Observer for Quiet {
    fn observe(&self, _event: Event<'_>) {}
}

/// A verb under way. It does not wrap the verb's future, which would lie in it twice.
pub(crate) struct Verb {
    operation: &'static str,
    began: Instant,
}

impl Verb {
    /// It begins now.
    pub(crate) fn begin(operation: &'static str) -> Self {
        Self {
            operation,
            began: Instant::now(),
        }
    }
}

impl Engine {
    /// Tells the observer where a verb failed because of usage limits.
    pub(crate) fn report_limits<T>(&self, operation: &'static str, result: &Result<T>) {
        let access = match result {
            Err(Error::WriteLimited { .. }) => Access::Write,
            Err(Error::ReadLimited) => Access::Read,
            Ok(_) | Err(_) => return,
        };
        self.observe(Event::UsageRefused { operation, access });
    }

    /// Tells the observer what was queued for deletion since the last call.
    pub fn report_enqueued(&self) {
        for (reason, copies) in self.inner.store.take_enqueued().by_reason() {
            self.observe(Event::CleanupEnqueued { reason, copies });
        }
    }

    /// Tells the observer how a verb ended.
    pub(crate) fn observe_verb<T>(
        &self,
        verb: Verb,
        backend: Option<&BackendName>,
        result: &Result<T>,
    ) {
        let Verb { operation, began } = verb;
        self.report_limits(operation, result);
        let outcome = match result {
            Ok(_) => Outcome::Success,
            Err(_) => Outcome::Error,
        };
        self.observe(Event::Verb {
            operation,
            backend,
            outcome,
            took: began.elapsed(),
        });
    }
}
