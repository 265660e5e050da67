//! Multipart uploads that nobody ends: interrupted Completes, stale uploads, old answers.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use metastore::model::{ForgetUploads, UploadVerdict};
use tokio::sync::Notify;

use super::{Schedule, Step, Worker};
use crate::observe::Event;
use crate::{Engine, Result};

/// Uploads settled in one step.
const UPLOADS_PER_STEP_MAX: u32 = 50;
/// How long the answer to a Complete or an Abort is kept for retries.
const ANSWERS_KEPT: Duration = Duration::from_secs(24 * 3600);
/// So many aborted uploads are remembered for as long: a second abort of one is answered as the first.
const ABORTS_KEPT_MAX: u32 = 10_000;

/// Goes on with Completes that were interrupted: this process's own, and those of processes that are
/// gone.
pub(super) struct Completes;

#[async_trait]
impl Worker for Completes {
    fn name(&self) -> &'static str {
        "multipart_resume"
    }

    fn schedule(&self) -> Schedule {
        Schedule {
            every: Duration::from_secs(300),
            step_max: Duration::from_secs(600),
        }
    }

    fn bell(&self, _engine: &Engine) -> Option<Arc<Notify>> {
        None
    }

    async fn step(&self, engine: &Engine) -> Result<Step> {
        if engine.inner.store.catalogue().recovery.is_some() {
            return Ok(Step::default());
        }
        let done = engine.resume_completes(UPLOADS_PER_STEP_MAX).await?;
        Ok(Step { done, more: false })
    }
}

/// The stale-multipart cleaner.
pub(super) struct StaleUploads;

#[async_trait]
impl Worker for StaleUploads {
    fn name(&self) -> &'static str {
        "multipart_cleanup"
    }

    fn schedule(&self) -> Schedule {
        Schedule {
            every: Duration::from_secs(300),
            step_max: Duration::from_secs(600),
        }
    }

    fn bell(&self, _engine: &Engine) -> Option<Arc<Notify>> {
        None
    }

    fn alone(&self) -> bool {
        true
    }

    async fn step(&self, engine: &Engine) -> Result<Step> {
        let inner = &engine.inner;
        if inner.store.catalogue().recovery.is_some() {
            return Ok(Step::default());
        }
        let mut done = 0;
        let now = inner.clock.now();
        let before = now.before(inner.settings.multipart_stale);
        let stale = inner
            .store
            .stale_uploads(before, UPLOADS_PER_STEP_MAX)
            .await?;
        let mut more = stale.len() == usize::try_from(UPLOADS_PER_STEP_MAX).unwrap_or(usize::MAX);
        for record in stale {
            let aborted = inner
                .store
                .abort_upload(record.bucket, &record.key, record.upload);
            match aborted.await? {
                UploadVerdict::Done => {
                    tracing::info!(upload = %record.upload, key = %record.key, "stale upload aborted");
                    engine.observe(Event::UploadReaped);
                    done += 1;
                }
                UploadVerdict::NoSuchUpload
                | UploadVerdict::NoSuchBucket
                | UploadVerdict::Superseded
                | UploadVerdict::TooMany => {}
            }
        }
        let forgotten = inner
            .store
            .forget_uploads(ForgetUploads {
                before: now.before(ANSWERS_KEPT),
                aborts_kept_max: ABORTS_KEPT_MAX,
                max: UPLOADS_PER_STEP_MAX,
            })
            .await?;
        more |= forgotten == u64::from(UPLOADS_PER_STEP_MAX);
        inner.bells.due();
        Ok(Step {
            done: done + forgotten,
            more,
        })
    }
}
