//! Turns what the engine reports into metrics and audit lines.

use std::borrow::Cow;
use std::sync::Arc;

use base::{BackendName, Clock};
use engine::catalogue::CleanupReason;
use engine::{Access, Event, Observer, Outcome};

use super::audit::{Audit, StorageEvent};
use super::metrics::{LabelValue, Metrics};

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
        let metrics = &self.metrics;
        match event {
            Event::BackendCall {
                backend,
                operation,
                outcome,
                took,
            } => {
                let labels = [Cow::Borrowed(operation), name(backend)];
                metrics
                    .backend_duration
                    .observe(labels.clone(), took.as_secs_f64());
                let [operation, backend] = labels;
                metrics
                    .backend_requests
                    .inc([operation, backend, status(outcome)]);
            }
            Event::Verb {
                operation,
                backend,
                outcome,
                took,
            } => {
                let labels = [
                    Cow::Borrowed(operation),
                    backend.map_or(Cow::Borrowed(""), name),
                ];
                metrics
                    .manager_duration
                    .observe(labels.clone(), took.as_secs_f64());
                let [verb, on] = labels;
                metrics.manager_requests.inc([verb, on, status(outcome)]);
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
                let labels = [Cow::Borrowed(operation), name(failed), name(succeeded)];
                metrics.write_failover.inc(labels);
            }
            Event::CleanupEnqueued { reason, copies } => {
                metrics
                    .cleanup_queue_enqueued
                    .add([Cow::Borrowed(reason.as_str())], copies);
                if reason == CleanupReason::OverwriteDisplaced {
                    self.audit
                        .storage(StorageEvent::OverwriteDisplaced { copies });
                }
            }
            Event::CleanupProcessed {
                status,
                backend,
                key,
            } => {
                metrics.cleanup_queue_processed.inc([Cow::Borrowed(status)]);
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
                self.worker_step(worker, outcome, failures);
            }
            Event::UsageRefused { operation, access } => {
                let limit_type = match access {
                    Access::Read => "read",
                    Access::Write => "write",
                };
                let labels = [Cow::Borrowed(operation), Cow::Borrowed(limit_type)];
                metrics.usage_limit_rejections.inc(labels);
            }
            Event::RedisCall { operation, outcome } => {
                let labels = [Cow::Borrowed(operation), status(outcome)];
                metrics.redis_operations.inc(labels);
            }
            Event::RedisFallback { active } => {
                metrics.redis_fallback_active.set([], u64::from(active));
            }
            Event::UploadReaped => self.audit.storage(StorageEvent::MultipartCleanup),
        }
    }
}

impl Recorder {
    fn worker_step(&self, worker: &'static str, outcome: Outcome, failures: u32) {
        let worker = Cow::Borrowed(worker);
        let metrics = &self.metrics;
        metrics.worker_ticks.inc([worker.clone(), status(outcome)]);
        metrics
            .worker_consecutive_failures
            .set([worker.clone()], u64::from(failures));
        if outcome == Outcome::Success {
            let now = u64::try_from(self.clock.now().seconds()).unwrap_or(0);
            metrics.worker_last_success.set([worker], now);
        }
    }
}

fn name(backend: &BackendName) -> LabelValue {
    Cow::Owned(backend.as_str().to_owned())
}

const fn status(outcome: Outcome) -> LabelValue {
    match outcome {
        Outcome::Success => Cow::Borrowed("success"),
        Outcome::Error => Cow::Borrowed("error"),
    }
}
