//! Writes usage to the catalogue, more often where a backend is near a limit; and tells the other
//! instances of it meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Notify;

use super::{Schedule, Step, Worker};
use crate::usage::SHARE_EVERY;
use crate::{Engine, Result, UsageFlush};

/// The flush of usage.
pub(super) struct Flusher {
    settings: UsageFlush,
    hurry: AtomicBool,
}

impl Flusher {
    pub(super) fn new(settings: UsageFlush) -> Self {
        Self {
            settings,
            hurry: AtomicBool::new(false),
        }
    }
}

#[async_trait]
impl Worker for Flusher {
    fn name(&self) -> &'static str {
        "usage_flush"
    }

    fn schedule(&self) -> Schedule {
        let every = match &self.settings.adaptive {
            Some(adaptive) if self.hurry.load(Ordering::Relaxed) => adaptive.fast_interval,
            Some(_) | None => self.settings.interval,
        };
        Schedule {
            every,
            step_max: Duration::from_secs(30),
        }
    }

    fn bell(&self, _engine: &Engine) -> Option<Arc<Notify>> {
        None
    }

    async fn step(&self, engine: &Engine) -> Result<Step> {
        if let Some(adaptive) = &self.settings.adaptive {
            let mut members = engine.inner.fleet.members().iter();
            let near = members.any(|member| member.usage().is_near_limit(adaptive.threshold));
            self.hurry.store(near, Ordering::Relaxed);
        }
        let done = engine.flush_usage().await?;
        Ok(Step { done, more: false })
    }
}

/// The exchange of usage with other instances.
pub(super) struct Sharer;

#[async_trait]
impl Worker for Sharer {
    fn name(&self) -> &'static str {
        "usage_share"
    }

    fn schedule(&self) -> Schedule {
        Schedule {
            every: SHARE_EVERY,
            step_max: Duration::from_secs(10),
        }
    }

    fn bell(&self, _engine: &Engine) -> Option<Arc<Notify>> {
        None
    }

    async fn step(&self, engine: &Engine) -> Result<Step> {
        engine.inner.usage.share().await;
        Ok(Step::default())
    }
}
