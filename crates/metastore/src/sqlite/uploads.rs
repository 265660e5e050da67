//! Multipart uploads: from creation to the object, or to the cleanup queue.

use base::{CopyId, ObjectKey, Precondition, Timestamp, UploadId};
use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::model::{
    BucketId, CleanupReason, Completion, Content, ForgetUploads, Freeze, LegState, NewUpload,
    UploadRecord, UploadVerdict, Verdict,
};
use crate::rows::{self, LegRow, Stage};
use crate::sqlite::apply::Work;
use crate::sqlite::cleanup::{DoomedLeg, enqueue_leg};
use crate::sqlite::legs;
use crate::sqlite::names::bucket_exists;
use crate::sqlite::objects::{Place, Places, put};
use crate::sqlite::{Fault, parts};
use crate::values::{
    algorithm_text, frozen_bytes, headers_text, precondition_text, stored_checksum_text, tags_text,
    upload_id,
};
use crate::writer::BATCH_ROWS_MAX;

/// Ended uploads whose part rows are removed in one transaction.
const UPLOADS_PER_PURGE: i64 = 100;

/// Whether no bytes are reserved for it any more.
pub(super) fn has_ended(stage: Stage) -> bool {
    match stage {
        Stage::Open | Stage::Completing => false,
        Stage::Completed | Stage::Aborting => true,
    }
}

pub(super) fn stage(conn: &Connection, upload: UploadId) -> Result<Option<Stage>, Fault> {
    let state: Option<String> = conn
        .prepare_cached("SELECT state FROM multipart_uploads WHERE upload_id = ?1")?
        .query_row([upload.to_bytes()], |row| row.get(0))
        .optional()?;
    state.as_deref().map(rows::stage).transpose()
}

/// Why a step that needs an open upload does not happen; `None` where it may.
pub(super) fn not_open(
    conn: &Connection,
    upload: UploadId,
) -> Result<Option<UploadVerdict>, Fault> {
    Ok(match stage(conn, upload)? {
        Some(Stage::Open) => None,
        Some(Stage::Completing) => Some(UploadVerdict::Superseded),
        Some(Stage::Completed | Stage::Aborting) | None => Some(UploadVerdict::NoSuchUpload),
    })
}

pub(super) fn create(work: &Work<'_>, new: &NewUpload) -> Result<UploadVerdict, Fault> {
    if !bucket_exists(work.conn, new.bucket)? {
        return Ok(UploadVerdict::NoSuchBucket);
    }
    if let Some(max) = new.open_max {
        let open: u32 = work
            .conn
            .prepare_cached(
                "SELECT count(*) FROM (SELECT 1 FROM multipart_uploads
                 WHERE bucket_id = ?1 AND ended IS NULL LIMIT ?2)",
            )?
            .query_row(params![new.bucket.0, max], |row| row.get(0))?;
        if open >= max {
            return Ok(UploadVerdict::TooMany);
        }
    }
    work.conn
        .prepare_cached(
            "INSERT INTO multipart_uploads (upload_id, bucket_id, key, state, content_type,
                 headers, tags, checksum, created)
             VALUES (?1, ?2, ?3, 'open', ?4, ?5, ?6, ?7, ?8)",
        )?
        .execute(params![
            new.upload.to_bytes(),
            new.bucket.0,
            new.key.as_str().as_bytes(),
            new.headers.content_type,
            headers_text(&new.headers),
            tags_text(&new.tags),
            new.checksum.map(algorithm_text),
            new.created.millis()
        ])?;
    legs::insert(work, new.upload, &new.leg)?;
    Ok(UploadVerdict::Done)
}

pub(super) fn freeze(
    work: &Work<'_>,
    upload: UploadId,
    list: &[(u32, CopyId)],
    precondition: &Precondition,
) -> Result<Freeze, Fault> {
    match stage(work.conn, upload)? {
        Some(Stage::Open) => {}
        Some(Stage::Completing | Stage::Completed) => return Ok(Freeze::NotOpen),
        Some(Stage::Aborting) | None => return Ok(Freeze::NoSuchUpload),
    }
    if work.live.has_claims(upload) {
        return Ok(Freeze::Busy);
    }
    let present = parts::attempts(work.conn, upload)?;
    for (number, attempt) in list {
        if present.get(number) != Some(attempt) {
            return Ok(Freeze::PartChanged { number: *number });
        }
    }
    work.conn
        .prepare_cached(
            "UPDATE multipart_uploads SET state = 'completing', frozen = ?2, precondition = ?3
             WHERE upload_id = ?1",
        )?
        .execute(params![
            upload.to_bytes(),
            frozen_bytes(list),
            precondition_text(precondition)
        ])?;
    Ok(Freeze::Frozen)
}

/// Whether its key was written or deleted since its part list was frozen.
fn is_overtaken(conn: &Connection, upload: UploadId) -> Result<bool, Fault> {
    Ok(conn
        .prepare_cached("SELECT 1 FROM multipart_overtaken WHERE upload_id = ?1")?
        .exists([upload.to_bytes()])?)
}

/// Nothing can overtake it any more.
fn forget_overtaken(conn: &Connection, upload: UploadId) -> Result<(), Fault> {
    conn.prepare_cached("DELETE FROM multipart_overtaken WHERE upload_id = ?1")?
        .execute([upload.to_bytes()])?;
    Ok(())
}

pub(super) fn thaw(
    work: &Work<'_>,
    upload: UploadId,
    missing: Option<CopyId>,
) -> Result<UploadVerdict, Fault> {
    match stage(work.conn, upload)? {
        Some(Stage::Completing) => {}
        Some(Stage::Open) => return Ok(UploadVerdict::Superseded),
        Some(Stage::Completed | Stage::Aborting) | None => return Ok(UploadVerdict::NoSuchUpload),
    }
    work.conn
        .prepare_cached(
            "UPDATE multipart_uploads SET state = 'open', frozen = NULL, precondition = NULL
             WHERE upload_id = ?1",
        )?
        .execute([upload.to_bytes()])?;
    forget_overtaken(work.conn, upload)?;
    if let Some(leg) = missing {
        parts::mark_missing(work.conn, upload, leg)?;
    }
    Ok(UploadVerdict::Done)
}

pub(super) fn complete(work: &mut Work<'_>, completion: &Completion) -> Result<Verdict, Fault> {
    let upload = completion.upload;
    let version = &completion.version;
    if stage(work.conn, upload)? != Some(Stage::Completing) {
        return Ok(Verdict::IntentGone);
    }
    let Content::Written { blobs, .. } = &version.content else {
        return Err(Fault::damaged(
            "refused to complete an upload without its bytes",
        ));
    };
    let held = parts::held_by_legs(work.conn, upload)?;
    let legs = legs::all(work.conn, upload)?;
    if is_overtaken(work.conn, upload)? {
        if version.precondition != Precondition::None {
            return Ok(Verdict::PreconditionFailed);
        }
        // As if it had been completed and overwritten at once: nothing but its own bytes is touched.
        let legs: Vec<&LegRow> = legs.iter().collect();
        doom(work, &legs, &held, CleanupReason::UploadLeftover)?;
        conclude(work, completion, &held)?;
        return Ok(Verdict::Overtaken);
    }
    let mut places = Places::new();
    let completed = |row: &&LegRow| matches!(row.leg.state, LegState::Completed { .. });
    for leg in legs.iter().filter(completed) {
        let reserved = held.get(&leg.leg.copy).map_or(0, |held| held.bytes);
        let place = Place {
            blob: leg.leg.blob,
            backend: leg.leg.backend,
            key: leg.leg.key.clone(),
            reserved,
        };
        places.insert(leg.leg.copy, place);
    }
    let verdict = put(work, version, &places)?;
    if !matches!(verdict, Verdict::Committed { .. }) {
        return Ok(verdict);
    }
    let named = |leg: &LegRow| {
        let mut copies = blobs.iter().flat_map(|blob| &blob.copies);
        copies.any(|copy| copy.copy == leg.leg.copy)
    };
    let unused: Vec<&LegRow> = legs.iter().filter(|leg| !named(leg)).collect();
    doom(work, &unused, &held, CleanupReason::UploadLeftover)?;
    conclude(work, completion, &held)?;
    Ok(verdict)
}

/// The upload has become a version.
fn conclude(
    work: &mut Work<'_>,
    completion: &Completion,
    held: &parts::HeldByLegs,
) -> Result<(), Fault> {
    let Completion { upload, version } = completion;
    end(work, *upload, held)?;
    forget_overtaken(work.conn, *upload)?;
    work.conn
        .prepare_cached(
            "UPDATE multipart_uploads SET state = 'completed', ended = ?2, version_id = ?3,
                 etag = ?4, final_checksum = ?5, frozen = NULL WHERE upload_id = ?1",
        )?
        .execute(params![
            upload.to_bytes(),
            work.now.millis(),
            version.version.to_bytes(),
            version.etag.as_str(),
            version.checksum.as_ref().map(stored_checksum_text)
        ])?;
    Ok(())
}

pub(super) fn abort(
    work: &mut Work<'_>,
    bucket: BucketId,
    key: &ObjectKey,
    upload: UploadId,
) -> Result<UploadVerdict, Fault> {
    if !belongs(work.conn, bucket, key, upload)? {
        return Ok(UploadVerdict::NoSuchUpload);
    }
    // Again: it has what it asks for.
    if stage(work.conn, upload)? == Some(Stage::Aborting) {
        return Ok(UploadVerdict::Done);
    }
    if let Some(verdict) = not_open(work.conn, upload)? {
        return Ok(verdict);
    }
    let held = parts::held_by_legs(work.conn, upload)?;
    let legs = legs::all(work.conn, upload)?;
    let legs: Vec<&LegRow> = legs.iter().collect();
    doom(work, &legs, &held, CleanupReason::UploadAborted)?;
    end(work, upload, &held)?;
    work.conn
        .prepare_cached(
            "UPDATE multipart_uploads SET state = 'aborting', ended = ?2 WHERE upload_id = ?1",
        )?
        .execute(params![upload.to_bytes(), work.now.millis()])?;
    Ok(UploadVerdict::Done)
}

/// Ends every unfinished upload and leaves its bytes alone: a restored catalogue does not know
/// whether they became an object.
pub(super) fn forget_pending(work: &mut Work<'_>) -> Result<u64, Fault> {
    let uploads: Vec<[u8; 16]> = work
        .conn
        .prepare_cached(
            "SELECT upload_id FROM multipart_uploads WHERE state IN ('open', 'completing')",
        )?
        .query_map([], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    for upload in &uploads {
        let upload = UploadId::from_bytes(*upload);
        let held = parts::held_by_legs(work.conn, upload)?;
        end(work, upload, &held)?;
        work.conn
            .prepare_cached(
                "UPDATE multipart_uploads SET state = 'aborting', ended = ?2 WHERE upload_id = ?1",
            )?
            .execute(params![upload.to_bytes(), work.now.millis()])?;
        forget_overtaken(work.conn, upload)?;
    }
    Ok(uploads.len() as u64)
}

/// Queues legs with the bytes that they hold.
fn doom(
    work: &mut Work<'_>,
    legs: &[&LegRow],
    held: &parts::HeldByLegs,
    reason: CleanupReason,
) -> Result<(), Fault> {
    for row in legs {
        let held = held.get(&row.leg.copy).copied().unwrap_or_default();
        let doomed = DoomedLeg {
            copy: row.leg.copy,
            backend: row.leg.backend,
            key: row.leg.key.as_str(),
            upload: row.backend_upload.as_deref(),
            bytes: held.bytes,
            unsettled: held.unsettled || row.backend_upload.is_none(),
            reason,
        };
        enqueue_leg(work, &doomed)?;
    }
    Ok(())
}

/// Nothing is reserved for the upload any more. Its part rows go later, with [`purge_parts`].
fn end(work: &mut Work<'_>, upload: UploadId, held: &parts::HeldByLegs) -> Result<(), Fault> {
    for held in held.values() {
        work.effects.delta(held.backend).parts -= held.bytes.cast_signed();
    }
    work.conn
        .prepare_cached("DELETE FROM multipart_legs WHERE upload_id = ?1")?
        .execute([upload.to_bytes()])?;
    Ok(())
}

fn belongs(
    conn: &Connection,
    bucket: BucketId,
    key: &ObjectKey,
    upload: UploadId,
) -> Result<bool, Fault> {
    Ok(conn
        .prepare_cached(
            "SELECT 1 FROM multipart_uploads WHERE upload_id = ?1 AND bucket_id = ?2 AND key = ?3",
        )?
        .exists(params![
            upload.to_bytes(),
            bucket.0,
            key.as_str().as_bytes()
        ])?)
}

/// Removes rows of parts whose upload has ended, a batch of them; zero when nothing is left to do.
pub(super) fn purge_parts(work: &Work<'_>) -> Result<u64, Fault> {
    let mut left = BATCH_ROWS_MAX;
    for (upload, stage) in to_purge(work.conn)? {
        for statement in [
            "DELETE FROM multipart_claims WHERE attempt IN (
                 SELECT attempt FROM multipart_claims WHERE upload_id = ?1 LIMIT ?2)",
            "DELETE FROM multipart_part_copies WHERE upload_id = ?1 AND (number, copy_id) IN (
                 SELECT number, copy_id FROM multipart_part_copies WHERE upload_id = ?1 LIMIT ?2)",
            "DELETE FROM multipart_parts WHERE upload_id = ?1 AND number IN (
                 SELECT number FROM multipart_parts WHERE upload_id = ?1 LIMIT ?2)",
        ] {
            let limit = i64::try_from(left).expect("a batch is small");
            let mut statement = work.conn.prepare_cached(statement)?;
            left -= statement.execute(params![upload.to_bytes(), limit])?;
        }
        if left == 0 {
            break;
        }
        // A completed upload answers retries for a while, an aborted one a second abort; of the latter
        // nothing but its name is needed.
        let last = match stage {
            Stage::Aborting => {
                "UPDATE multipart_uploads SET purged = 1, content_type = NULL, headers = NULL,
                     tags = NULL, frozen = NULL, precondition = NULL WHERE upload_id = ?1"
            }
            Stage::Open | Stage::Completing | Stage::Completed => {
                "UPDATE multipart_uploads SET purged = 1 WHERE upload_id = ?1"
            }
        };
        left -= work
            .conn
            .prepare_cached(last)?
            .execute([upload.to_bytes()])?;
    }
    Ok(u64::try_from(BATCH_ROWS_MAX - left).expect("a count fits into 64 bits"))
}

fn to_purge(conn: &Connection) -> Result<Vec<(UploadId, Stage)>, Fault> {
    let mut statement = conn.prepare_cached(
        "SELECT upload_id, state FROM multipart_uploads WHERE ended IS NOT NULL AND purged = 0
         LIMIT ?1",
    )?;
    let mut found = statement.query([UPLOADS_PER_PURGE])?;
    let mut uploads = Vec::new();
    while let Some(row) = found.next()? {
        let state: String = row.get(1)?;
        uploads.push((upload_id(row, 0)?, rows::stage(&state)?));
    }
    Ok(uploads)
}

/// Forgets uploads that ended before a moment and whose part rows are gone, the oldest first. What is
/// left of `max` goes to aborted ones that are more than may be remembered: the newest of them are kept,
/// and of the rest those nearest to the kept ones go first, so that their end is found by skipping
/// nothing but what is kept.
pub(super) fn forget(work: &Work<'_>, forget: ForgetUploads) -> Result<u64, Fault> {
    let ForgetUploads {
        before,
        aborts_kept_max,
        max,
    } = forget;
    let old = work
        .conn
        .prepare_cached(
            "DELETE FROM multipart_uploads WHERE upload_id IN (
                 SELECT upload_id FROM multipart_uploads
                 WHERE ended IS NOT NULL AND ended < ?1 AND purged = 1
                 ORDER BY ended LIMIT ?2)",
        )?
        .execute(params![before.millis(), max])?;
    let left = max.saturating_sub(u32::try_from(old).unwrap_or(max));
    let surplus = work
        .conn
        .prepare_cached(
            "DELETE FROM multipart_uploads WHERE upload_id IN (
                 SELECT upload_id FROM multipart_uploads
                 WHERE state = 'aborting' AND purged = 1
                 ORDER BY ended DESC LIMIT ?1 OFFSET ?2)",
        )?
        .execute(params![left, aborts_kept_max])?;
    Ok(u64::try_from(old + surplus).expect("a count fits into 64 bits"))
}

// === lookups ===

const COLUMNS: &str = "upload_id, bucket_id, key, content_type, headers, checksum, created, state,
    frozen, precondition, version_id, etag, final_checksum, tags";

pub(crate) fn upload(
    conn: &Connection,
    bucket: BucketId,
    key: &ObjectKey,
    upload: UploadId,
) -> Result<Option<UploadRecord>, Fault> {
    let mut statement = conn.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM multipart_uploads
         WHERE upload_id = ?1 AND bucket_id = ?2 AND key = ?3 AND state <> 'aborting'"
    ))?;
    let mut found = statement.query(params![
        upload.to_bytes(),
        bucket.0,
        key.as_str().as_bytes()
    ])?;
    found.next()?.map(|row| record(conn, row)).transpose()
}

pub(crate) fn stale(
    conn: &Connection,
    before: Timestamp,
    max: u32,
) -> Result<Vec<UploadRecord>, Fault> {
    let sql = format!(
        "SELECT {COLUMNS} FROM multipart_uploads
         WHERE ended IS NULL AND state = 'open' AND created < ?1 ORDER BY created LIMIT ?2"
    );
    records(conn, &sql, params![before.millis(), max])
}

pub(crate) fn completing(conn: &Connection, max: u32) -> Result<Vec<UploadRecord>, Fault> {
    let sql = format!(
        "SELECT {COLUMNS} FROM multipart_uploads
         WHERE ended IS NULL AND state = 'completing' ORDER BY created LIMIT ?1"
    );
    records(conn, &sql, params![max])
}

fn records(
    conn: &Connection,
    sql: &str,
    params: &[&dyn rusqlite::ToSql],
) -> Result<Vec<UploadRecord>, Fault> {
    let mut statement = conn.prepare_cached(sql)?;
    let mut found = statement.query(params)?;
    let mut records = Vec::new();
    while let Some(row) = found.next()? {
        records.push(record(conn, row)?);
    }
    Ok(records)
}

fn record(conn: &Connection, row: &Row<'_>) -> Result<UploadRecord, Fault> {
    rows::upload(row, |upload| legs::all(conn, upload))
}
