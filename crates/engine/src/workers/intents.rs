//! Turns abandoned intents into cleanup rows.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Notify;

use super::{Schedule, Step, Worker};
use crate::{Engine, Result};

/// Intents settled in one step.
const INTENTS_PER_STEP_MAX: u32 = 256;

/// The intent reaper: what a dropped or failed write announced is settled here.
pub(super) struct Reaper;

#[async_trait]
impl Worker for Reaper {
    fn name(&self) -> &'static str {
        "intent_reaper"
    }

    fn schedule(&self) -> Schedule {
        Schedule {
            every: Duration::from_secs(60),
            step_max: Duration::from_secs(60),
        }
    }

    fn bell(&self, engine: &Engine) -> Option<Arc<Notify>> {
        Some(Arc::clone(&engine.inner.bells.intents))
    }

    async fn step(&self, engine: &Engine) -> Result<Step> {
        // A restored catalogue must not give away what it has merely forgotten.
        if engine.inner.store.catalogue().recovery.is_some() {
            return Ok(Step::default());
        }
        let done = engine
            .inner
            .store
            .reap_intents(INTENTS_PER_STEP_MAX)
            .await?;
        engine.inner.bells.due();
        Ok(Step {
            done,
            more: done == u64::from(INTENTS_PER_STEP_MAX),
        })
    }
}
