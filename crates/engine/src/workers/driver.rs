//! The driver: timers, wake-ups, back-off, time limits, status and shutdown for every worker.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use base::Timestamp;
use futures_util::FutureExt;
use futures_util::future::{self, join_all};
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::{Schedule, Step, Worker};
use crate::Engine;
use crate::observe::{Event, Outcome};

/// The wait after the first failure; it doubles up to the worker's own interval.
const BACK_OFF_BASE: Duration = Duration::from_secs(1);
/// How long a stop waits for the steps that are running.
const STOP_WAIT_MAX: Duration = Duration::from_secs(10);

/// What is known of a worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerStatus {
    /// Its name.
    pub name: &'static str,
    /// When a step last succeeded.
    pub last_success: Option<Timestamp>,
    /// When a step last failed.
    pub last_failure: Option<Timestamp>,
    /// Why.
    pub last_error: Option<String>,
    /// Failures in a row.
    pub consecutive_failures: u32,
    /// Things settled since the start.
    pub done: u64,
    /// Whether another process does the work at present.
    pub standby: bool,
}

/// All workers with their state.
pub struct Workers {
    slots: Vec<Slot>,
}

struct Slot {
    worker: Box<dyn Worker>,
    status: Mutex<WorkerStatus>,
}

impl Workers {
    pub(crate) fn new(workers: Vec<Box<dyn Worker>>) -> Self {
        let slot = |worker: Box<dyn Worker>| Slot {
            status: Mutex::new(WorkerStatus {
                name: worker.name(),
                last_success: None,
                last_failure: None,
                last_error: None,
                consecutive_failures: 0,
                done: 0,
                standby: false,
            }),
            worker,
        };
        Self {
            slots: workers.into_iter().map(slot).collect(),
        }
    }

    /// What is known of each.
    pub fn status(&self) -> Vec<WorkerStatus> {
        self.slots
            .iter()
            .map(|slot| slot.status.lock().clone())
            .collect()
    }

    /// Runs every worker until `stop` says so; running steps are then given a moment to end.
    pub(crate) async fn run(&self, engine: &Engine, stop: watch::Receiver<bool>) {
        join_all(self.slots.iter().map(|slot| slot.run(engine, stop.clone()))).await;
    }

    /// Runs one step of every worker, in order, and again while any did something: for tests and
    /// for commands that settle everything at once.
    pub(crate) async fn settle(&self, engine: &Engine, rounds_max: u32) {
        for _ in 0..rounds_max {
            let mut done = 0;
            for slot in &self.slots {
                done += slot.step(engine).await.map_or(0, |step| step.done);
            }
            if done == 0 {
                return;
            }
        }
    }
}

impl Slot {
    async fn run(&self, engine: &Engine, mut stop: watch::Receiver<bool>) {
        let bell = self.worker.bell(engine);
        let mut next = Instant::now();
        loop {
            tokio::select! {
                () = stopped(&mut stop) => return,
                () = tokio::time::sleep_until(next) => {}
                () = ring(bell.as_ref()) => {}
            }
            let step = self.step(engine);
            tokio::pin!(step);
            let outcome = tokio::select! {
                outcome = &mut step => outcome,
                () = stopped(&mut stop) => {
                    // A step may be cut off at any point; it is only kinder to let it end.
                    tokio::time::timeout(STOP_WAIT_MAX, step).await.ok();
                    return;
                }
            };
            next = Instant::now() + self.wait(outcome);
        }
    }

    fn wait(&self, outcome: Option<Step>) -> Duration {
        let every = self.worker.schedule().every;
        match outcome {
            Some(Step { more: true, .. }) => Duration::ZERO,
            Some(Step { more: false, .. }) => every,
            None => {
                let failures = self.status.lock().consecutive_failures;
                let doubled = 2u32.saturating_pow(failures.saturating_sub(1));
                BACK_OFF_BASE.saturating_mul(doubled).min(every)
            }
        }
    }

    /// One step, if it is this process's to take.
    async fn leased_step(&self, engine: &Engine) -> crate::Result<Step> {
        if self.worker.alone() {
            let Schedule { every, step_max } = self.worker.schedule();
            let store = &engine.inner.store;
            // Until a step that has just begun must have ended, and the next one is due.
            let granted = store.lease_worker(self.worker.name(), step_max + 2 * every);
            let standby = !granted.await?;
            self.status.lock().standby = standby;
            if standby {
                return Ok(Step::default());
            }
        }
        self.worker.step(engine).await
    }

    /// One step, bounded, with its outcome recorded; `None` where it failed.
    async fn step(&self, engine: &Engine) -> Option<Step> {
        let limit = self.worker.schedule().step_max;
        let step = AssertUnwindSafe(self.leased_step(engine)).catch_unwind();
        let result = match tokio::time::timeout(limit, step).await {
            Ok(Ok(Ok(step))) => Ok(step),
            Ok(Ok(Err(error))) => Err(base::report(&error).to_string()),
            Ok(Err(_panic)) => Err("the step panicked".to_owned()),
            Err(_elapsed) => Err("the step took too long".to_owned()),
        };
        let now = engine.inner.clock.now();
        let (outcome, failures, done) = {
            let mut status = self.status.lock();
            match &result {
                Ok(step) => {
                    status.last_success = Some(now);
                    status.consecutive_failures = 0;
                    status.done += step.done;
                    (Outcome::Success, 0, step.done)
                }
                Err(error) => {
                    status.last_failure = Some(now);
                    status.last_error = Some(error.clone());
                    status.consecutive_failures += 1;
                    (Outcome::Error, status.consecutive_failures, 0)
                }
            }
        };
        let worker = self.worker.name();
        engine.observe(Event::WorkerStep {
            worker,
            outcome,
            failures,
            done,
        });
        match result {
            Ok(step) => Some(step),
            Err(error) => {
                tracing::warn!(worker, %error, failures, "worker step failed");
                None
            }
        }
    }
}

/// Resolves when the stop was said, or can no longer be said.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    stop.wait_for(|stop| *stop).await.ok();
}

async fn ring(bell: Option<&Arc<Notify>>) {
    match bell {
        Some(bell) => bell.notified().await,
        None => future::pending().await,
    }
}
