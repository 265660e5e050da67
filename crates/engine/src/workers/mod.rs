//! Background work. Adding a worker is one file and one line in [`all`].
//!
//! A worker is one bounded, idempotent step that takes no input: it looks at the world, does one
//! batch, and reports. Being killed between any two steps is harmless. The driver owns timers,
//! wake-ups, back-off, the step's time limit, the lease where one process at a time is to do the work,
//! status and shutdown; so a worker never sleeps, spawns, retries or counts its own errors.

mod cleanup;
mod driver;
mod intents;
mod markers;
mod uploads;
mod usage;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use metastore::Store;
use tokio::sync::Notify;

pub use driver::{WorkerStatus, Workers};

use crate::{Engine, Result, Role, Settings};

/// When a worker's step runs.
#[derive(Debug, Clone, Copy)]
pub struct Schedule {
    /// The time between steps when nothing rings.
    pub every: Duration,
    /// A step that takes longer is cut off.
    pub step_max: Duration,
}

/// What a step did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Step {
    /// Things that were settled.
    pub done: u64,
    /// Whether more is waiting: the next step runs at once.
    pub more: bool,
}

/// Idempotent background work.
#[async_trait]
pub trait Worker: Send + Sync + 'static {
    /// Log field, metric label, and name in the status.
    fn name(&self) -> &'static str;

    /// When it runs.
    fn schedule(&self) -> Schedule;

    /// The bell that makes it run early, where it has one.
    fn bell(&self, engine: &Engine) -> Option<Arc<Notify>>;

    /// Whether one process at a time is to do it, where there are several.
    fn alone(&self) -> bool {
        false
    }

    /// One bounded batch.
    async fn step(&self, engine: &Engine) -> Result<Step>;
}

/// Every worker that runs in this role.
pub fn all(settings: &Settings) -> Vec<Box<dyn Worker>> {
    // What only this process can do for itself, whatever else it does.
    let mut all: Vec<Box<dyn Worker>> = vec![
        Box::new(intents::Reaper),
        Box::<markers::Marker>::default(),
        Box::new(uploads::Completes),
        Box::new(usage::Flusher::new(settings.usage_flush)),
    ];
    if settings.redis.is_some() {
        all.push(Box::new(usage::Sharer));
    }
    if settings.role != Role::Api {
        all.push(Box::new(cleanup::Cleaner::default()));
        all.push(Box::new(uploads::StaleUploads));
    }
    all
}

/// What wakes workers before their time.
#[derive(Clone, Default)]
pub(crate) struct Bells {
    cleanup: Arc<Notify>,
    intents: Arc<Notify>,
    hurry: Arc<std::sync::atomic::AtomicBool>,
    /// Displaced bytes are due at once.
    no_grace: bool,
}

impl Bells {
    /// The store rings when it is left with an intent.
    pub(crate) fn new(store: &Store, read_grace: Duration) -> Self {
        Self {
            intents: store.abandoned_bell(),
            no_grace: read_grace.is_zero(),
            ..Self::default()
        }
    }

    /// There may be something to delete on a backend, or an intent to settle.
    pub(crate) fn settle(&self) {
        self.intents.notify_one();
    }

    /// Rows of the cleanup queue are due.
    pub(crate) fn due(&self) {
        self.cleanup.notify_one();
    }

    /// Bytes were displaced. While their read grace lasts, nobody has to be woken for them: every
    /// write would cost a look at the queue.
    pub(crate) fn displaced(&self) {
        if self.no_grace {
            self.due();
        }
    }

    /// Room is needed: displaced bytes must not wait for the end of their read grace.
    pub(crate) fn room(&self) {
        self.hurry.store(true, std::sync::atomic::Ordering::SeqCst);
        self.cleanup.notify_one();
    }

    fn take_hurry(&self) -> bool {
        self.hurry.swap(false, std::sync::atomic::Ordering::SeqCst)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[test]
    fn displaced_bytes_wake_the_cleaner_where_they_are_due_at_once() {
        for no_grace in [true, false] {
            let bells = Bells {
                no_grace,
                ..Bells::default()
            };
            bells.displaced();
            assert_eq!(bells.cleanup.notified().now_or_never().is_some(), no_grace);
            bells.due();
            assert!(bells.cleanup.notified().now_or_never().is_some());
        }
    }
}
