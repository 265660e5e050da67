//! The cleanup queue and its dead letters: all deletions on backends.

use std::time::Duration;

use base::{CopyId, Timestamp};
use rusqlite::params;

use crate::fault::Fault;
use crate::job::Answer;
use crate::live::{GivenUp, Outcome};
use crate::model::{BackendId, CleanupItem, CleanupOutcome, CleanupReason, CleanupReport};
use crate::rows;
use crate::sqlite::apply::Work;
use crate::values::int;

/// Intents out, rows in; due at once.
pub(super) fn give_up(work: &mut Work<'_>, intents: &[GivenUp]) -> Result<Answer, Fault> {
    for GivenUp { intent, outcome } in intents {
        let size = int(intent.bytes)?;
        work.conn
            .prepare_cached(
                "INSERT INTO cleanup_queue (copy_id, blob_id, kind, backend_id, backend_key, size,
                     reason, unsettled, created, not_before)
                 VALUES (?1, ?2, 'object', ?3, ?4, ?5, ?6, ?7, ?8, ?8)",
            )?
            .execute(params![
                intent.copy.to_bytes(),
                intent.blob.to_bytes(),
                intent.backend.0,
                intent.key.as_str(),
                size,
                CleanupReason::IntentAbandoned.as_str(),
                *outcome == Outcome::Unknown,
                work.now.millis()
            ])?;
        work.effects.delta(intent.backend).orphan += size;
        work.effects.settled.push(intent.copy);
        work.effects.enqueued.add(CleanupReason::IntentAbandoned, 1);
    }
    Ok(Answer::Count(
        u64::try_from(intents.len()).expect("a count fits into 64 bits"),
    ))
}

/// A leg that is to be removed from its backend.
pub(super) struct DoomedLeg<'a> {
    pub(super) copy: CopyId,
    pub(super) backend: BackendId,
    pub(super) key: &'a str,
    pub(super) upload: Option<&'a str>,
    pub(super) bytes: u64,
    pub(super) unsettled: bool,
    pub(super) reason: CleanupReason,
}

/// Queues a leg; its bytes become orphans. What was reserved for it is the caller's to give back.
pub(super) fn enqueue_leg(work: &mut Work<'_>, leg: &DoomedLeg<'_>) -> Result<(), Fault> {
    let size = int(leg.bytes)?;
    work.conn
        .prepare_cached(
            "INSERT INTO cleanup_queue (copy_id, kind, backend_id, backend_key, backend_upload,
                 size, reason, unsettled, created, not_before)
             VALUES (?1, 'upload', ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?8)",
        )?
        .execute(params![
            leg.copy.to_bytes(),
            leg.backend.0,
            leg.key,
            leg.upload,
            size,
            leg.reason.as_str(),
            leg.unsettled,
            work.now.millis()
        ])?;
    work.effects.delta(leg.backend).orphan += size;
    work.effects.enqueued.add(leg.reason, 1);
    Ok(())
}

/// Claims due rows. Nothing is due in recovery state.
pub(super) fn claim(
    work: &Work<'_>,
    limit: u32,
    visible: Duration,
) -> Result<Vec<CleanupItem>, Fault> {
    if work.catalogue.read().recovery.is_some() {
        return Ok(Vec::new());
    }
    let mut items = Vec::new();
    {
        let mut statement = work.conn.prepare_cached(
            "SELECT id, copy_id, blob_id, kind, backend_id, backend_key, backend_version,
                 backend_upload, size, reason, unsettled, first_pass, attempts
             FROM cleanup_queue WHERE not_before <= ?1 ORDER BY not_before, id LIMIT ?2",
        )?;
        let mut due = statement.query(params![work.now.millis(), limit])?;
        while let Some(row) = due.next()? {
            items.push(rows::cleanup_item(row)?);
        }
    }
    let until = work.now.after(visible);
    let mut statement = work
        .conn
        .prepare_cached("UPDATE cleanup_queue SET claim = ?2, not_before = ?3 WHERE id = ?1")?;
    for item in &items {
        statement.execute(params![item.id, work.epoch, until.millis()])?;
    }
    Ok(items)
}

/// Settles rows. A row that is gone was settled before: the report is late and changes nothing.
pub(super) fn report(work: &mut Work<'_>, reports: &[CleanupReport]) -> Result<Answer, Fault> {
    for report in reports {
        match &report.outcome {
            CleanupOutcome::Done => done(work, report.id)?,
            CleanupOutcome::FirstPassDone { again_at } => {
                work.conn
                    .prepare_cached(
                        "UPDATE cleanup_queue SET first_pass = 1, grace = 0, claim = NULL,
                             attempts = 0, not_before = ?2 WHERE id = ?1",
                    )?
                    .execute(params![report.id, again_at.millis()])?;
            }
            CleanupOutcome::Retry { again_at, error } => {
                retry(work, report.id, *again_at, error.as_deref())?;
            }
            CleanupOutcome::Dead { error } => dead(work, report.id, error)?,
        }
    }
    Ok(Answer::Done)
}

fn done(work: &mut Work<'_>, id: i64) -> Result<(), Fault> {
    let mut statement = work
        .conn
        .prepare_cached("DELETE FROM cleanup_queue WHERE id = ?1 RETURNING backend_id, size")?;
    let mut rows = statement.query([id])?;
    while let Some(row) = rows.next()? {
        let bytes: i64 = row.get(1)?;
        work.effects.delta(BackendId(row.get(0)?)).orphan -= bytes;
    }
    Ok(())
}

/// A mere delay is no attempt.
fn retry(work: &Work<'_>, id: i64, again_at: Timestamp, error: Option<&str>) -> Result<(), Fault> {
    work.conn
        .prepare_cached(
            "UPDATE cleanup_queue SET claim = NULL, not_before = ?2, grace = 0,
                 attempts = attempts + (?3 IS NOT NULL), last_error = coalesce(?3, last_error)
             WHERE id = ?1",
        )?
        .execute(params![id, again_at.millis(), error])?;
    Ok(())
}

fn dead(work: &Work<'_>, id: i64, error: &str) -> Result<(), Fault> {
    work.conn
        .prepare_cached(
            "INSERT INTO cleanup_dlq SELECT id, copy_id, blob_id, kind, backend_id, backend_key,
                 backend_version, backend_upload, size, reason, unsettled, first_pass,
                 attempts + 1, created, ?2, ?3
             FROM cleanup_queue WHERE id = ?1",
        )?
        .execute(params![id, work.now.millis(), error])?;
    work.conn
        .prepare_cached("DELETE FROM cleanup_queue WHERE id = ?1")?
        .execute([id])?;
    Ok(())
}

/// Ends the read grace of a backend's rows: room is needed.
pub(super) fn hasten(work: &Work<'_>, backend: BackendId) -> Result<u64, Fault> {
    let changed = work
        .conn
        .prepare_cached(
            "UPDATE cleanup_queue SET not_before = ?2, grace = 0
             WHERE backend_id = ?1 AND grace = 1 AND claim IS NULL AND not_before > ?2",
        )?
        .execute(params![backend.0, work.now.millis()])?;
    Ok(u64::try_from(changed).expect("a count fits into 64 bits"))
}

/// Makes the rows due that this process claimed and did not settle.
pub(super) fn release(work: &Work<'_>) -> Result<u64, Fault> {
    let changed = work
        .conn
        .prepare_cached(
            "UPDATE cleanup_queue SET claim = NULL, not_before = min(not_before, ?2)
             WHERE claim = ?1",
        )?
        .execute(params![work.epoch, work.now.millis()])?;
    Ok(u64::try_from(changed).expect("a count fits into 64 bits"))
}
