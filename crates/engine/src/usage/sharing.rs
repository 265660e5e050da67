//! Counts between instances: what each has counted and not yet written, in Redis.
//!
//! The rows are the truth, and every instance reads them. What is not in rows yet, each instance
//! publishes as it stands, under a field of its own, whole every time. So a publication of unknown
//! outcome is simply repeated, a Redis that lost everything is full again with the next one, and an
//! outage can neither lose nor double a count: none was ever entrusted to it.
//!
//! What leaves a publication because it arrived in rows must be seen there. Whoever publishes less
//! raises the mark in the same transaction; whoever reads another mark reads the rows again. So does
//! whoever finds its own beat elsewhere than it left it: marks that were lost may come again.
//!
//! An instance whose beat stands still is not believed: what it had not written may be in rows since,
//! if it lost Redis, or is lost with it, if it died.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use base::{BackendName, Traffic};
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::Book;
use super::breaker::{Breaker, Change};
use super::redis::{Failure, Heard, Link, Told};
use crate::RedisSettings;
use crate::observe::{Event, Observer, Outcome};

/// The time between two exchanges.
pub(crate) const SHARE_EVERY: Duration = Duration::from_secs(1);
/// How long a beat may stand still.
const SILENT_MAX: Duration = Duration::from_secs(5);

/// This process among those that share a Redis.
pub(crate) struct Sharing {
    instance: String,
    observer: Arc<dyn Observer>,
    state: Mutex<State>,
}

impl fmt::Debug for Sharing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sharing")
            .field("instance", &self.instance)
            .finish_non_exhaustive()
    }
}

struct State {
    link: Link,
    breaker: Breaker,
    /// Landings that were told by raising the mark.
    told: u64,
    /// The mark whose rows were read; none where they have to be read again.
    mark: Option<u64>,
    /// The own beat when it was last heard.
    beat: u64,
    beats: BTreeMap<String, Beat>,
}

/// The last sign of life of another instance.
struct Beat {
    count: u64,
    /// When it was seen to change; never, where only one was seen.
    changed: Option<Instant>,
}

impl Sharing {
    /// The instance's name must be its own among all that ever shared this Redis.
    pub(crate) fn new(
        instance: String,
        settings: &RedisSettings,
        observer: Arc<dyn Observer>,
    ) -> Self {
        let state = State {
            link: Link::new(settings),
            breaker: Breaker::new(settings.failure_threshold, settings.open_timeout),
            told: 0,
            mark: None,
            beat: 0,
            beats: BTreeMap::new(),
        };
        Self {
            instance,
            observer,
            state: Mutex::new(state),
        }
    }

    /// One exchange, where the breaker permits it. Failures are consumed here: without Redis, an
    /// instance knows the rows and its own counts.
    pub(super) async fn step(&self, book: &Book) {
        let mut state = self.state.lock().await;
        if !state.breaker.permits(Instant::now()) {
            return;
        }
        let exchanged = self.exchange(&mut state, book).await;
        self.settle(&mut state, book, exchanged);
    }

    fn settle(&self, state: &mut State, book: &Book, exchanged: Result<(), Failure>) {
        let change = match &exchanged {
            Ok(()) => state.breaker.succeed(),
            Err(_) => {
                state.mark = None;
                state.breaker.fail(Instant::now())
            }
        };
        match (change, exchanged) {
            (Change::Open, Err(error)) => {
                let error = base::report(&error);
                tracing::warn!(%error, "Redis unreachable, usage of other instances is known from the catalogue only");
                state.forget(book);
                self.observer.observe(Event::RedisFallback { active: true });
            }
            (Change::Close, _) => {
                tracing::info!("Redis reachable again, usage sync resumed");
                self.observer
                    .observe(Event::RedisFallback { active: false });
            }
            (Change::Stay, Err(error)) => {
                let error = base::report(&error);
                tracing::debug!(%error, "usage sync failed");
            }
            (Change::Stay | Change::Open, Ok(())) => {}
        }
    }

    async fn exchange(&self, state: &mut State, book: &Book) -> Result<(), Failure> {
        let month = book.month();
        // What is left first, then how often something arrived: see `Departed::landed`.
        let counts: Vec<(&BackendName, Traffic)> = book
            .entries()
            .iter()
            .map(|entry| (&entry.name, entry.usage.unwritten(month)))
            .collect();
        let landings = book.landings();
        let told = Told {
            instance: &self.instance,
            month,
            counts: &counts,
            raise: landings > state.told,
        };
        let published = state.link.publish(&told).await;
        self.observed("pipeline_add", &published);
        published?;
        state.told = landings;
        let names: Vec<&BackendName> = counts.iter().map(|(name, _)| *name).collect();
        let loaded = state.link.load(month, &names).await;
        self.observed("pipeline_load", &loaded);
        let heard = loaded?;
        let alive = state.alive(&heard, &self.instance, Instant::now());
        let beat = heard.beats.get(&self.instance).copied().unwrap_or(0);
        if beat != state.beat + 1 {
            state.mark = None;
        }
        state.beat = beat;
        if state.mark != Some(heard.mark) {
            match book.load().await {
                Ok(true) => state.mark = Some(heard.mark),
                // Tried again with the next exchange; what is known stays as it was meanwhile.
                Ok(false) => return Ok(()),
                Err(error) => {
                    let error = base::report(&error);
                    tracing::warn!(%error, "could not reload usage from the catalogue");
                    return Ok(());
                }
            }
        }
        for (entry, by_instance) in book.entries().iter().zip(&heard.counts) {
            let others = by_instance
                .iter()
                .filter(|(instance, _)| alive.contains(*instance))
                .fold(Traffic::NONE, |sum, (_, traffic)| sum.plus(*traffic));
            entry.usage.hear(month, others);
        }
        Ok(())
    }

    fn observed<T>(&self, operation: &'static str, result: &Result<T, Failure>) {
        let outcome = match result {
            Ok(_) => Outcome::Success,
            Err(_) => Outcome::Error,
        };
        self.observer
            .observe(Event::RedisCall { operation, outcome });
    }

    /// Takes back what was published, at the end of the process.
    pub(super) async fn leave(&self, book: &Book) {
        let mut state = self.state.lock().await;
        if state.breaker.is_open() {
            return;
        }
        let names: Vec<&BackendName> = book.entries().iter().map(|entry| &entry.name).collect();
        if let Err(error) = state.link.leave(&self.instance, book.month(), &names).await {
            let error = base::report(&error);
            tracing::warn!(%error, "could not withdraw published usage, its keys will expire");
        }
    }
}

impl State {
    /// Notes the beats that were heard; the others whose beat is moving.
    fn alive(&mut self, heard: &Heard, instance: &str, now: Instant) -> Vec<String> {
        self.beats.retain(|name, _| heard.beats.contains_key(name));
        let mut alive = Vec::new();
        for (name, count) in &heard.beats {
            if name == instance {
                continue;
            }
            let beat = self.beats.entry(name.clone()).or_insert(Beat {
                count: *count,
                changed: None,
            });
            if beat.count != *count {
                beat.count = *count;
                beat.changed = Some(now);
            }
            if beat
                .changed
                .is_some_and(|at| now.duration_since(at) <= SILENT_MAX)
            {
                alive.push(name.clone());
            }
        }
        alive
    }

    /// What others published counts no more: they write it to rows now.
    fn forget(&mut self, book: &Book) {
        self.beats.clear();
        for entry in book.entries() {
            entry.usage.hear(book.month(), Traffic::NONE);
        }
    }
}

#[cfg(test)]
mod tests;
