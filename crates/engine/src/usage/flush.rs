//! From memory to rows.

use std::sync::Arc;

use base::{Month, Traffic};
use metastore::Landing;
use metastore::model::UsageRow;
use tokio::sync::Mutex;

use super::Usage;
use crate::{Engine, Result};

/// One flush at a time: each ends by reading what the rows say then.
#[derive(Debug, Default)]
pub(crate) struct Flushing(Mutex<()>);

/// Counts on their way to rows. They arrive, or come back when this is dropped.
#[derive(Default)]
struct Departed(Vec<(Arc<Usage>, Month, Traffic)>);

impl Landing for Departed {
    fn landed(mut self: Box<Self>) {
        for (usage, month, traffic) in std::mem::take(&mut self.0) {
            usage.arrive(month, traffic);
        }
    }
}

impl Drop for Departed {
    fn drop(&mut self) {
        for (usage, month, traffic) in std::mem::take(&mut self.0) {
            usage.come_back(month, traffic);
        }
    }
}

impl Engine {
    /// Adds what was counted since the last time to the rows of its months, and takes over what the
    /// rows say then; how many rows were written.
    ///
    /// After an error everything is still counted, and is written the next time.
    pub async fn flush_usage(&self) -> Result<u64> {
        let inner = &self.inner;
        let _alone = inner.flushing.0.lock().await;
        let mut departed = Departed::default();
        let mut rows = Vec::new();
        for member in inner.fleet.members() {
            for (month, traffic) in member.usage().depart() {
                let usage = Arc::clone(member.usage());
                departed.0.push((usage, month, traffic));
                rows.push(UsageRow {
                    backend: member.id,
                    month,
                    traffic,
                });
            }
        }
        let done = rows.len() as u64;
        if done > 0 {
            inner.store.add_usage(rows, Box::new(departed)).await?;
        }
        self.load_usage().await?;
        Ok(done)
    }

    /// Takes over what the rows say of the current month.
    async fn load_usage(&self) -> Result<()> {
        let inner = &self.inner;
        let month = Month::of(inner.clock.now());
        let members = inner.fleet.members();
        // A flush whose caller is gone may still be on its way: its rows would count twice.
        let settled: Vec<_> = members.iter().map(|m| m.usage().is_settled()).collect();
        let rows = inner.store.usage(month).await?;
        for (member, settled) in members.iter().zip(settled) {
            if settled && member.usage().is_settled() {
                member.usage().load(month, written(&rows, member.id));
            }
        }
        Ok(())
    }
}

/// What the rows say of a backend.
pub(crate) fn written(rows: &[UsageRow], backend: metastore::model::BackendId) -> Traffic {
    rows.iter()
        .find(|row| row.backend == backend)
        .map_or(Traffic::NONE, |row| row.traffic)
}
