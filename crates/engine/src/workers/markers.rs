//! Looks at backends that are out of service, and advances the marks of the others every hour.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use backend::ObjectBackend as _;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::{Schedule, Step, Worker};
use crate::fleet::ReadBack;
use crate::{Engine, Result};

/// How often a mark advances.
const MARK_EVERY: Duration = Duration::from_secs(3600);

/// The marker worker.
#[derive(Default)]
pub(super) struct Marker {
    marked: Mutex<Option<Instant>>,
}

#[async_trait]
impl Worker for Marker {
    fn name(&self) -> &'static str {
        "backend_marker"
    }

    fn schedule(&self) -> Schedule {
        Schedule {
            every: Duration::from_secs(30),
            step_max: Duration::from_secs(300),
        }
    }

    fn bell(&self, _engine: &Engine) -> Option<Arc<Notify>> {
        None
    }

    async fn step(&self, engine: &Engine) -> Result<Step> {
        let inner = &engine.inner;
        let due = {
            let mut marked = self.marked.lock();
            let now = Instant::now();
            // The start has just marked them.
            let last = *marked.get_or_insert(now);
            let due = now.duration_since(last) >= MARK_EVERY;
            if due {
                *marked = Some(now);
            }
            due
        };
        let mut done = 0;
        for member in inner.fleet.members() {
            let lost =
                member.in_service() && member.is_local() && member.backend().check().await.is_err();
            if member.in_service() && !due && !lost {
                continue;
            }
            let look = inner.fleet.enlist(&inner.store, member, ReadBack::Now);
            if let Some(reason) = look.await? {
                inner.store.suspect_restored(reason).await?;
            }
            done += 1;
        }
        inner.fleet.conclude_beginning(&inner.store).await?;
        Ok(Step { done, more: false })
    }
}
