//! The cleanup queue: the one place where bytes are deleted on backends.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use backend::{Capabilities, DeleteTarget, Kind, ObjectBackend as _, VersionPage};
use base::Timestamp;
use futures_util::stream::{self, StreamExt};
use metastore::model::{BackendId, CleanupItem, CleanupKind, CleanupOutcome, CleanupReport};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::{Schedule, Step, Worker};
use crate::fleet::Member;
use crate::observe::Event;
use crate::{Engine, Result};

/// Rows claimed in one step.
const ROWS_PER_STEP_MAX: u32 = 500;
/// How often the queue is looked at when nothing rings: a look is one read.
const LOOK_EVERY: Duration = Duration::from_secs(15);
/// Keys deleted with one call: few enough for a slow provider, or a disk, to end within the time that
/// a call may take.
const KEYS_PER_BATCH_MAX: usize = 50;
/// How long one backend may keep a step busy: another one that works must not wait for it for ever.
const BACKEND_TIME_MAX: Duration = Duration::from_secs(300);
/// Pages of open uploads under one key, of which we open one.
const UPLOAD_PAGES_MAX: u32 = 10;
/// Pages of versions of one key, which we write once: so many in one attempt, the others with the next one.
const VERSION_PAGES_MAX: u32 = 10;
/// A key with so many versions is deleted together with other keys.
const VERSIONS_BATCHED_MAX: usize = 10;
/// Failed attempts before a row becomes a dead letter.
const ATTEMPTS_MAX: u32 = 10;
/// The wait after the first failure; it doubles with every further one.
const BACK_OFF_BASE: Duration = Duration::from_secs(60);
/// The longest wait.
const BACK_OFF_MAX: Duration = Duration::from_secs(24 * 3600);
/// The wait while a reader still uses the bytes, or the backend is out of service.
const POSTPONE: Duration = Duration::from_secs(30);
/// When an unsettled row is looked at again: longer than any provider keeps a half-sent request.
const SETTLE_AFTER: Duration = Duration::from_secs(3600);

/// The cleaner.
#[derive(Default)]
pub(super) struct Cleaner {
    /// A step began and did not end well: rows may be claimed that nobody works at.
    interrupted: AtomicBool,
}

#[async_trait]
impl Worker for Cleaner {
    fn name(&self) -> &'static str {
        "cleanup"
    }

    fn schedule(&self) -> Schedule {
        Schedule {
            every: LOOK_EVERY,
            step_max: Duration::from_secs(600),
        }
    }

    fn bell(&self, engine: &Engine) -> Option<Arc<Notify>> {
        Some(Arc::clone(&engine.inner.bells.cleanup))
    }

    async fn step(&self, engine: &Engine) -> Result<Step> {
        engine.report_enqueued();
        let inner = &engine.inner;
        // Until a restored catalogue has been reconciled, its queue may name live bytes.
        if inner.store.catalogue().recovery.is_some() {
            return Ok(Step::default());
        }
        if inner.bells.take_hurry() {
            for member in inner.fleet.members() {
                inner.store.hasten_cleanup(member.id).await?;
            }
        }
        if self.interrupted.swap(true, Ordering::Relaxed) {
            inner.store.release_cleanup().await?;
        }
        let step = Self::clean_due(engine).await?;
        self.interrupted.store(false, Ordering::Relaxed);
        Ok(step)
    }
}

impl Cleaner {
    async fn clean_due(engine: &Engine) -> Result<Step> {
        let inner = &engine.inner;
        // A look costs a read; a claim costs a commit.
        if inner
            .store
            .next_cleanup()
            .await?
            .is_none_or(|due| due > inner.clock.now())
        {
            return Ok(Step::default());
        }
        let visible = inner.settings.claim_grace;
        let items = inner
            .store
            .claim_cleanup(ROWS_PER_STEP_MAX, visible)
            .await?;
        let more = items.len() == usize::try_from(ROWS_PER_STEP_MAX).unwrap_or(usize::MAX);
        let done = items.len() as u64;
        let mut by_backend: BTreeMap<BackendId, Vec<CleanupItem>> = BTreeMap::new();
        for item in items {
            by_backend.entry(item.backend).or_default().push(item);
        }
        let width = usize::try_from(inner.settings.cleanup_concurrency)
            .unwrap_or(1)
            .max(1);
        let cleaned: Vec<Result<()>> = stream::iter(by_backend)
            .map(|(backend, items)| clean(engine, backend, items))
            .buffer_unordered(width)
            .collect()
            .await;
        cleaned.into_iter().collect::<Result<()>>()?;
        Ok(Step { done, more })
    }
}

/// Deletes what one backend is to forget, and reports as it goes. Rows that it does not get to in
/// time stay claimed for a while and are then claimed anew.
async fn clean(engine: &Engine, backend: BackendId, items: Vec<CleanupItem>) -> Result<()> {
    let store = &engine.inner.store;
    let now = engine.inner.clock.now();
    let member = engine
        .inner
        .fleet
        .member(backend)
        .filter(|member| member.in_service());
    let Some(member) = member else {
        let postponed = items.iter().map(|item| postpone(item.id, now)).collect();
        return Ok(store.report_cleanup(postponed).await?);
    };
    let (busy, free): (Vec<_>, Vec<_>) = items.into_iter().partition(|item| {
        item.blob
            .is_some_and(|blob| engine.inner.reads.is_reading(blob))
    });
    if !busy.is_empty() {
        let postponed = busy.iter().map(|item| postpone(item.id, now)).collect();
        store.report_cleanup(postponed).await?;
    }
    let (objects, uploads): (Vec<_>, Vec<_>) = free
        .into_iter()
        .partition(|item| matches!(item.kind, CleanupKind::Object { .. }));
    let end = Instant::now() + BACKEND_TIME_MAX;
    for batch in objects.chunks(KEYS_PER_BATCH_MAX) {
        if Instant::now() >= end {
            return Ok(());
        }
        let results = delete_objects(member, batch, end).await;
        let pairs = batch.iter().zip(results);
        let reports = pairs.map(|(item, result)| settle(engine, member, item, result, now));
        store.report_cleanup(reports.collect()).await?;
    }
    for item in &uploads {
        if Instant::now() >= end {
            return Ok(());
        }
        let result = delete_upload(member, item, end).await;
        store
            .report_cleanup(vec![settle(engine, member, item, result, now)])
            .await?;
    }
    Ok(())
}

fn postpone(id: i64, now: Timestamp) -> CleanupReport {
    let outcome = CleanupOutcome::Retry {
        again_at: now.after(POSTPONE),
        error: None,
    };
    CleanupReport { id, outcome }
}

/// Whether bytes were there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    Deleted,
    Absent,
}

async fn delete_objects(
    member: &Member,
    items: &[CleanupItem],
    end: Instant,
) -> Vec<backend::Result<Found>> {
    let backend = member.backend();
    // A bucket of which nothing is known may keep versions.
    let able = backend.capabilities();
    let versioned = able.versioned || able == Capabilities::UNKNOWN;
    let mut targets = Vec::new();
    let mut owner = Vec::new();
    let mut results: Vec<backend::Result<Found>> =
        items.iter().map(|_| Ok(Found::Absent)).collect();
    for (place, item) in items.iter().enumerate() {
        let version = match &item.kind {
            CleanupKind::Object { version } => version.clone(),
            CleanupKind::Upload { .. } => None,
        };
        if version.is_some() || !versioned {
            targets.push(DeleteTarget {
                key: item.key.clone(),
                version,
            });
            owner.push(place);
            continue;
        }
        // A delete without a version id would only add a delete marker.
        match backend.versions(&item.key).await {
            Ok(page) if !page.truncated && page.versions.len() <= VERSIONS_BATCHED_MAX => {
                owner.extend(page.versions.iter().map(|_| place));
                targets.extend(version_targets(item, page));
            }
            Ok(page) => results[place] = delete_versions(member, item, page, end).await,
            Err(error) => results[place] = Err(error),
        }
    }
    if targets.is_empty() {
        return results;
    }
    for (place, result) in owner.into_iter().zip(backend.delete(&targets).await) {
        match result {
            Ok(()) if results[place].is_ok() => results[place] = Ok(Found::Deleted),
            Ok(()) => {}
            Err(error) if error.kind == Kind::NotFound => {
                if let Err(error) = is_gone(member, &items[place]).await {
                    results[place] = Err(error);
                }
            }
            Err(error) => results[place] = Err(error),
        }
    }
    results
}

fn version_targets(item: &CleanupItem, page: VersionPage) -> impl Iterator<Item = DeleteTarget> {
    page.versions.into_iter().map(|version| DeleteTarget {
        key: item.key.clone(),
        version: version.version,
    })
}

/// Deletes the versions of one key page by page: what is held is one page, however many a provider names.
async fn delete_versions(
    member: &Member,
    item: &CleanupItem,
    mut page: VersionPage,
    end: Instant,
) -> backend::Result<Found> {
    let backend = member.backend();
    let mut denied = false;
    for pages_left in (0..VERSION_PAGES_MAX).rev() {
        let truncated = page.truncated;
        let targets: Vec<_> = version_targets(item, page).collect();
        for outcome in backend.delete(&targets).await {
            match outcome {
                Ok(()) => {}
                Err(error) if error.kind == Kind::NotFound => denied = true,
                Err(error) => return Err(error),
            }
        }
        if !truncated {
            if denied {
                is_gone(member, item).await?;
            }
            return Ok(Found::Deleted);
        }
        if pages_left == 0 {
            break;
        }
        if Instant::now() >= end {
            let message = "the time for its versions is over";
            return Err(unfinished(member, "versions", message));
        }
        page = backend.versions(&item.key).await?;
    }
    let message = format!("it has more than {VERSION_PAGES_MAX} pages of versions");
    Err(unfinished(member, "versions", message))
}

/// The error of a deletion of which a part is left for the next attempt.
fn unfinished(
    member: &Member,
    operation: &'static str,
    message: impl Into<String>,
) -> backend::Error {
    let (kind, effect) = (Kind::Unavailable, backend::Effect::Unknown);
    backend::Error::new(kind, effect, member.name(), operation).with_message(message)
}

/// Looks for an object that its backend denied having when it was to be deleted: bytes that stay there without
/// a row are counted by nobody.
async fn is_gone(member: &Member, item: &CleanupItem) -> backend::Result<()> {
    let version = match &item.kind {
        CleanupKind::Object { version } => version.as_deref(),
        CleanupKind::Upload { .. } => None,
    };
    match member.backend().head(&item.key, version).await {
        Ok(_) => {
            let error = backend::Error::new(
                Kind::Unavailable,
                backend::Effect::None,
                member.name(),
                "delete",
            );
            Err(error.with_message("a delete denies the object, and a HEAD finds it"))
        }
        Err(error) if error.kind == Kind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Aborts an upload until the provider no longer knows it, and deletes what it may have become.
async fn delete_upload(
    member: &Member,
    item: &CleanupItem,
    end: Instant,
) -> backend::Result<Found> {
    let known = match &item.kind {
        CleanupKind::Upload { upload } => upload.as_deref(),
        CleanupKind::Object { .. } => None,
    };
    match known {
        Some(id) => abort(member, item, id).await?,
        None if member.backend().capabilities().list_uploads => {
            abort_all(member, item, end).await?;
        }
        None => {}
    }
    let mut objects = delete_objects(member, std::slice::from_ref(item), end).await;
    objects.pop().expect("one outcome per item")
}

/// Aborts the open uploads under a key page by page, for as long as there is time: however many a provider
/// names, other keys and other backends do not wait for them.
async fn abort_all(member: &Member, item: &CleanupItem, end: Instant) -> backend::Result<()> {
    const OPERATION: &str = "list_uploads";
    let mut after = None;
    for _ in 0..UPLOAD_PAGES_MAX {
        let page = member
            .backend()
            .list_uploads(item.key.as_str(), after.as_ref())
            .await?;
        let ours = page.uploads.iter();
        for upload in ours.filter(|upload| upload.key == item.key.as_str()) {
            if Instant::now() >= end {
                let message = "the time for its uploads is over";
                return Err(unfinished(member, OPERATION, message));
            }
            abort(member, item, &upload.upload).await?;
        }
        if !page.truncated {
            return Ok(());
        }
        after = page.uploads.into_iter().next_back();
    }
    let message = "the listing of a key's uploads does not end";
    Err(unfinished(member, OPERATION, message))
}

async fn abort(member: &Member, item: &CleanupItem, id: &str) -> backend::Result<()> {
    let backend = member.backend();
    match backend.abort_upload(&item.key, id).await {
        Ok(()) => {}
        Err(error) if matches!(error.kind, Kind::NoSuchUpload | Kind::NotFound) => {}
        Err(error) => return Err(error),
    }
    // A part that was under way during the abort may have come back; abort again then.
    match backend.list_parts(&item.key, id, 0).await {
        Ok(page) if page.parts.is_empty() && !page.truncated => Ok(()),
        Ok(_) => Err(unfinished(
            member,
            "abort_upload",
            "parts are left after the abort",
        )),
        Err(error) if matches!(error.kind, Kind::NoSuchUpload | Kind::NotFound) => Ok(()),
        Err(error) => Err(error),
    }
}

fn settle(
    engine: &Engine,
    member: &Member,
    item: &CleanupItem,
    result: backend::Result<Found>,
    now: Timestamp,
) -> CleanupReport {
    let (outcome, status) = match result {
        Ok(_) if item.unsettled && !item.first_pass_done => (
            CleanupOutcome::FirstPassDone {
                again_at: now.after(SETTLE_AFTER),
            },
            "success",
        ),
        Ok(Found::Deleted) => (CleanupOutcome::Done, "success"),
        Ok(Found::Absent) => (CleanupOutcome::Done, "success_absent"),
        Err(error) => {
            let error = base::report(&error).to_string();
            let attempts = item.attempts + 1;
            tracing::warn!(
                backend = %member.name(), key = %item.key, attempts, %error, "delete failed"
            );
            match attempts >= ATTEMPTS_MAX {
                true => (CleanupOutcome::Dead { error }, "exhausted"),
                false => {
                    let wait = BACK_OFF_BASE
                        .saturating_mul(2u32.saturating_pow(item.attempts))
                        .min(BACK_OFF_MAX);
                    let again_at = now.after(wait);
                    (
                        CleanupOutcome::Retry {
                            again_at,
                            error: Some(error),
                        },
                        "retry",
                    )
                }
            }
        }
    };
    let (backend, key) = (member.name(), item.key.as_str());
    engine.observe(Event::CleanupProcessed {
        status,
        backend,
        key,
    });
    CleanupReport {
        id: item.id,
        outcome,
    }
}
