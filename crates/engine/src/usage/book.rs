//! The counts of all backends: from memory to rows, and between instances.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use base::{BackendName, Clock, Month, Traffic};
use metastore::model::{BackendId, UsageRow};
use metastore::{Landing, Store};
use tokio::sync::Mutex;

use super::Usage;
use super::sharing::Sharing;
use crate::Result;

/// A backend that is counted.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) id: BackendId,
    pub(crate) name: BackendName,
    pub(crate) usage: Arc<Usage>,
}

/// The counts of all backends of one process.
#[derive(Debug)]
pub(crate) struct Book {
    store: Store,
    clock: Arc<dyn Clock>,
    entries: Vec<Entry>,
    /// One flush at a time: each ends by reading what the rows say then.
    flushing: Mutex<()>,
    /// One look at the rows at a time, so that a later one never shows less.
    loading: Mutex<()>,
    /// How often counts have arrived in rows.
    landings: Arc<AtomicU64>,
    /// Where instances tell each other what is not in rows yet.
    pub(super) sharing: Option<Sharing>,
}

/// Counts on their way to rows. They arrive, or come back when this is dropped.
struct Departed {
    counts: Vec<(Arc<Usage>, Month, Traffic)>,
    landings: Arc<AtomicU64>,
}

impl Landing for Departed {
    fn landed(mut self: Box<Self>) {
        // First, so that whoever sees what is left sees also that something arrived.
        self.landings.fetch_add(1, Ordering::SeqCst);
        for (usage, month, traffic) in std::mem::take(&mut self.counts) {
            usage.arrive(month, traffic);
        }
    }
}

impl Drop for Departed {
    fn drop(&mut self) {
        for (usage, month, traffic) in std::mem::take(&mut self.counts) {
            usage.come_back(month, traffic);
        }
    }
}

impl Book {
    pub(crate) fn new(
        store: Store,
        clock: Arc<dyn Clock>,
        entries: Vec<Entry>,
        sharing: Option<Sharing>,
    ) -> Self {
        Self {
            store,
            clock,
            entries,
            flushing: Mutex::default(),
            loading: Mutex::default(),
            landings: Arc::default(),
            sharing,
        }
    }

    pub(super) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    pub(super) fn month(&self) -> Month {
        Month::of(self.clock.now())
    }

    pub(super) fn landings(&self) -> u64 {
        self.landings.load(Ordering::SeqCst)
    }

    /// Adds what was counted since the last time to the rows of its months, and takes over what the
    /// rows say then; how many rows were written.
    ///
    /// After an error everything is still counted, and is written the next time.
    pub(crate) async fn flush(&self) -> Result<u64> {
        let _alone = self.flushing.lock().await;
        let mut departed = Departed {
            counts: Vec::new(),
            landings: Arc::clone(&self.landings),
        };
        let mut rows = Vec::new();
        for entry in &self.entries {
            for (month, traffic) in entry.usage.depart() {
                let usage = Arc::clone(&entry.usage);
                departed.counts.push((usage, month, traffic));
                rows.push(UsageRow {
                    backend: entry.id,
                    month,
                    traffic,
                });
            }
        }
        let done = rows.len() as u64;
        if done > 0 {
            self.store.add_usage(rows, Box::new(departed)).await?;
        }
        self.load().await?;
        // The others are not to wait for what has just moved from here to the rows.
        self.share().await;
        Ok(done)
    }

    /// Takes over what the rows say of the current month; whether that was possible for all.
    pub(super) async fn load(&self) -> Result<bool> {
        let _alone = self.loading.lock().await;
        let month = self.month();
        let usages = || self.entries.iter().map(|entry| &entry.usage);
        // What leaves meanwhile, or is still on its way, may be in these rows or not.
        let before: Vec<_> = usages().map(|usage| usage.settled()).collect();
        let rows = self.store.usage(month).await?;
        let mut all = true;
        for (entry, before) in self.entries.iter().zip(before) {
            let loaded = before.is_some_and(|before| {
                let written = written(&rows, entry.id);
                entry.usage.load_unless_left(month, written, before)
            });
            all &= loaded;
        }
        Ok(all)
    }

    /// Tells the other instances what is not in rows yet, and hears it from them.
    pub(crate) async fn share(&self) {
        if let Some(sharing) = &self.sharing {
            sharing.step(self).await;
        }
    }

    /// The last flush of a process: nothing is left that others would have to know.
    pub(crate) async fn close(&self) -> Result<()> {
        let flushed = self.flush().await;
        if let Some(sharing) = &self.sharing {
            sharing.leave(self).await;
        }
        flushed.map(drop)
    }
}

/// What the rows say of a backend.
pub(crate) fn written(rows: &[UsageRow], backend: BackendId) -> Traffic {
    rows.iter()
        .find(|row| row.backend == backend)
        .map_or(Traffic::NONE, |row| row.traffic)
}
