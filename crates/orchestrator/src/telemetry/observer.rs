//! Turns what the engine reports into metrics and audit lines.

use std::borrow::Cow;
use std::sync::Arc;

use base::{BackendName, Clock};
use engine::catalogue::CleanupReason;
use engine::{Event, Observer, Outcome};

use super::audit::{Audit, StorageEvent};
use super::metrics::{Label, Metrics};

/// The observer of the program.
#[derive(Debug)]
pub struct Recorder {
    metrics: Arc<Metrics>,
    audit: Audit,
    clock: Arc<dyn Clock>,
}

impl Recorder {
    /// An observer that records here.
    pub fn new(metrics: Arc<Metrics>, audit: Audit, clock: Arc<dyn Clock>) -> Self {
        Self {
            metrics,
            audit,
            clock,
        }
    }
}

impl Observer for Recorder {
    fn observe(&self, event: Event<'_>) {
        match event {
            Event::BackendCall {
                backend,
                operation,
                outcome,
                took,
            } => {
                let (operation, backend) = (Cow::Borrowed(operation), name(backend));
                self.metrics.backend_requests.inc([
                    operation.clone(),
                    backend.clone(),
                    status(outcome),
                ]);
                self.metrics
                    .backend_duration
                    .observe([operation, backend], took.as_secs_f64());
            }
            Event::Verb {
                operation,
                backend,
                outcome,
                took,
            } => {
                let label = backend.map_or(Cow::Borrowed(""), name);
                self.metrics.manager_requests.inc([
                    Cow::Borrowed(operation),
                    label.clone(),
                    status(outcome),
                ]);
                self.metrics
                    .manager_duration
                    .observe([Cow::Borrowed(operation), label], took.as_secs_f64());
                self.audit.storage(StorageEvent::Verb {
                    operation,
                    backend,
                    outcome,
                    took,
                });
            }
            Event::WriteFailover {
                operation,
                failed,
                succeeded,
            } => {
                self.metrics.write_failover.inc([
                    Cow::Borrowed(operation),
                    name(failed),
                    name(succeeded),
                ]);
            }
            Event::CleanupEnqueued { reason } => {
                self.metrics
                    .cleanup_queue_enqueued
                    .inc([Cow::Borrowed(reason.as_str())]);
                if reason == CleanupReason::OverwriteDisplaced {
                    self.audit.storage(StorageEvent::OverwriteDisplaced);
                }
            }
            Event::CleanupProcessed {
                status,
                backend,
                key,
            } => {
                self.metrics
                    .cleanup_queue_processed
                    .inc([Cow::Borrowed(status)]);
                self.audit.storage(StorageEvent::CleanupProcessed {
                    status,
                    backend,
                    key,
                });
            }
            Event::WorkerStep {
                worker,
                outcome,
                failures,
                done: _,
            } => {
                self.metrics
                    .worker_ticks
                    .inc([Cow::Borrowed(worker), status(outcome)]);
                self.metrics
                    .worker_consecutive_failures
                    .set([Cow::Borrowed(worker)], u64::from(failures));
                if outcome == Outcome::Success {
                    let now = u64::try_from(self.clock.now().seconds()).unwrap_or(0);
                    self.metrics
                        .worker_last_success
                        .set([Cow::Borrowed(worker)], now);
                }
            }
            Event::UploadReaped => self.audit.storage(StorageEvent::MultipartCleanup),
        }
    }
}

fn name(backend: &BackendName) -> Label {
    Cow::Owned(backend.as_str().to_owned())
}

const fn status(outcome: Outcome) -> Label {
    match outcome {
        Outcome::Success => Cow::Borrowed("success"),
        Outcome::Error => Cow::Borrowed("error"),
    }
}
