//! Parts and the claims on their numbers.
//!
//! Bytes are reserved for everything that a leg may hold: what a part says, what a claim is about to
//! write or may have written, and what another leg took over. They are given back when the same leg
//! has the number again, or when the upload ends.

use std::collections::HashMap;

use base::{CopyId, UploadId};
use rusqlite::{Connection, OptionalExtension, params};

use crate::fault::Fault;
use crate::job::Answer;
use crate::model::{BackendId, NewPartClaim, PartRow, UploadVerdict};
use crate::rows;
use crate::sqlite::INSTANCE;
use crate::sqlite::apply::Work;
use crate::sqlite::uploads::not_open;
use crate::values::{checksum_text, copy_id, crc_int, int, uint};

/// What the parts and claims of an upload hold on one leg.
#[derive(Debug, Clone, Copy)]
pub(super) struct HeldByLeg {
    pub(super) backend: BackendId,
    pub(super) bytes: u64,
    /// A claim is under way, or was never answered: more may appear.
    pub(super) unsettled: bool,
}

impl Default for HeldByLeg {
    fn default() -> Self {
        Self {
            backend: BackendId(0),
            bytes: 0,
            unsettled: false,
        }
    }
}

pub(super) type HeldByLegs = HashMap<CopyId, HeldByLeg>;

pub(super) fn held_by_legs(conn: &Connection, upload: UploadId) -> Result<HeldByLegs, Fault> {
    let mut statement = conn.prepare_cached(
        "SELECT copy_id, backend_id, sum(reserved), max(unsettled) FROM (
             SELECT copy_id, backend_id, reserved, 0 AS unsettled FROM multipart_part_copies
                 WHERE upload_id = ?1
             UNION ALL SELECT copy_id, backend_id, reserved, 1 FROM multipart_claims
                 WHERE upload_id = ?1)
         GROUP BY copy_id, backend_id",
    )?;
    let mut rows = statement.query([upload.to_bytes()])?;
    let mut held = HeldByLegs::new();
    while let Some(row) = rows.next()? {
        let leg = HeldByLeg {
            backend: BackendId(row.get(1)?),
            bytes: uint(row, 2)?,
            unsettled: row.get(3)?,
        };
        held.insert(copy_id(row, 0)?, leg);
    }
    Ok(held)
}

/// The attempts of all parts that are there, by number.
pub(super) fn attempts(conn: &Connection, upload: UploadId) -> Result<HashMap<u32, CopyId>, Fault> {
    let mut statement = conn.prepare_cached(
        "SELECT number, attempt FROM multipart_parts WHERE upload_id = ?1 AND missing = 0",
    )?;
    let mut rows = statement.query([upload.to_bytes()])?;
    let mut attempts = HashMap::new();
    while let Some(row) = rows.next()? {
        attempts.insert(row.get(0)?, copy_id(row, 1)?);
    }
    Ok(attempts)
}

pub(super) fn claim(
    work: &mut Work<'_>,
    new: &NewPartClaim,
    backend: BackendId,
    bytes: u64,
) -> Result<UploadVerdict, Fault> {
    if let Some(verdict) = not_open(work.conn, new.upload)? {
        return Ok(verdict);
    }
    let on: Option<i64> = work
        .conn
        .prepare_cached(
            "SELECT backend_id FROM multipart_legs
             WHERE copy_id = ?1 AND upload_id = ?2 AND state = 'open'",
        )?
        .query_row(params![new.leg.to_bytes(), new.upload.to_bytes()], |row| {
            row.get(0)
        })
        .optional()?;
    match on {
        None => return Ok(UploadVerdict::Superseded),
        Some(on) if on != backend.0 => {
            return Err(Fault::damaged(
                "refused a part whose room is on another backend",
            ));
        }
        Some(_) => {}
    }
    work.conn
        .prepare_cached(
            "UPDATE multipart_claims SET superseded = 1 WHERE upload_id = ?1 AND number = ?2",
        )?
        .execute(params![new.upload.to_bytes(), new.number])?;
    let size = int(bytes)?;
    work.conn
        .prepare_cached(
            "INSERT INTO multipart_claims (attempt, upload_id, number, copy_id, backend_id,
                 reserved, instance, epoch)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        )?
        .execute(params![
            new.attempt.to_bytes(),
            new.upload.to_bytes(),
            new.number,
            new.leg.to_bytes(),
            backend.0,
            size,
            INSTANCE,
            work.epoch
        ])?;
    work.effects.delta(backend).parts += size;
    work.effects.room = Some((backend, bytes));
    Ok(UploadVerdict::Done)
}

/// A claim as its row holds it.
struct ClaimRow {
    number: u32,
    leg: CopyId,
    backend: BackendId,
    reserved: i64,
    superseded: bool,
}

fn find(conn: &Connection, upload: UploadId, attempt: CopyId) -> Result<Option<ClaimRow>, Fault> {
    let mut statement = conn.prepare_cached(
        "SELECT number, copy_id, backend_id, reserved, superseded FROM multipart_claims
         WHERE attempt = ?1 AND upload_id = ?2",
    )?;
    let mut rows = statement.query([attempt.to_bytes(), upload.to_bytes()])?;
    let Some(row) = rows.next()? else {
        return Ok(None);
    };
    Ok(Some(ClaimRow {
        number: row.get(0)?,
        leg: copy_id(row, 1)?,
        backend: BackendId(row.get(2)?),
        reserved: row.get(3)?,
        superseded: row.get(4)?,
    }))
}

pub(super) fn commit(
    work: &mut Work<'_>,
    upload: UploadId,
    attempt: CopyId,
    part: &PartRow,
) -> Result<UploadVerdict, Fault> {
    if let Some(verdict) = not_open(work.conn, upload)? {
        return Ok(verdict);
    }
    let Some(claim) = find(work.conn, upload, attempt)? else {
        return Ok(UploadVerdict::Superseded);
    };
    if claim.superseded {
        return Ok(UploadVerdict::Superseded);
    }
    let size = int(part.size)?;
    if (part.number, part.leg, part.attempt) != (claim.number, claim.leg, attempt)
        || size > claim.reserved
    {
        return Err(Fault::damaged(format!(
            "refused part {}: it is not as claimed",
            part.number
        )));
    }
    let freed = free(work.conn, upload, &claim)?;
    work.conn
        .prepare_cached(
            "INSERT OR REPLACE INTO multipart_parts (upload_id, number, attempt, size, etag,
                 checksum, crc64, last_modified)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        )?
        .execute(params![
            upload.to_bytes(),
            part.number,
            attempt.to_bytes(),
            size,
            part.etag.as_str(),
            part.checksum.as_ref().map(checksum_text),
            crc_int(part.crc64),
            part.last_modified.millis()
        ])?;
    work.conn
        .prepare_cached(
            "INSERT INTO multipart_part_copies (upload_id, number, copy_id, attempt, backend_id,
                 reserved, etag, crc64)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        )?
        .execute(params![
            upload.to_bytes(),
            part.number,
            claim.leg.to_bytes(),
            attempt.to_bytes(),
            claim.backend.0,
            size,
            part.backend_etag.as_str(),
            crc_int(part.backend_crc64)
        ])?;
    work.effects.delta(claim.backend).parts += size - freed;
    Ok(UploadVerdict::Done)
}

/// Removes what else the leg held under the number; its reserved bytes.
fn free(conn: &Connection, upload: UploadId, claim: &ClaimRow) -> Result<i64, Fault> {
    let mut freed = 0;
    for statement in [
        "DELETE FROM multipart_claims WHERE upload_id = ?1 AND number = ?2 AND copy_id = ?3
         RETURNING reserved",
        "DELETE FROM multipart_part_copies WHERE upload_id = ?1 AND number = ?2 AND copy_id = ?3
         RETURNING reserved",
    ] {
        let mut statement = conn.prepare_cached(statement)?;
        let mut rows = statement.query(params![
            upload.to_bytes(),
            claim.number,
            claim.leg.to_bytes()
        ])?;
        while let Some(row) = rows.next()? {
            freed += row.get::<_, i64>(0)?;
        }
    }
    Ok(freed)
}

/// The claim had no effect. Older ones that it superseded stay as they are: their outcome is unknown.
pub(super) fn withdraw(
    work: &mut Work<'_>,
    upload: UploadId,
    attempt: CopyId,
) -> Result<Answer, Fault> {
    let Some(claim) = find(work.conn, upload, attempt)? else {
        return Ok(Answer::Done);
    };
    // The bytes of an upload that has ended are counted elsewhere already.
    if super::uploads::stage(work.conn, upload)?.is_none_or(super::uploads::has_ended) {
        return Ok(Answer::Done);
    }
    work.conn
        .prepare_cached("DELETE FROM multipart_claims WHERE attempt = ?1")?
        .execute([attempt.to_bytes()])?;
    work.effects.delta(claim.backend).parts -= claim.reserved;
    Ok(Answer::Done)
}

/// The leg lost its parts: they are no longer shown, but whatever it holds stays reserved.
pub(super) fn mark_missing(conn: &Connection, upload: UploadId, leg: CopyId) -> Result<(), Fault> {
    conn.prepare_cached(
        "UPDATE multipart_parts SET missing = 1
         WHERE upload_id = ?1 AND attempt IN (
             SELECT attempt FROM multipart_part_copies WHERE upload_id = ?1 AND copy_id = ?2)",
    )?
    .execute(params![upload.to_bytes(), leg.to_bytes()])?;
    Ok(())
}

/// The parts that are there, behind a number, by number.
pub(crate) fn list(
    conn: &Connection,
    upload: UploadId,
    after: u32,
    max: u32,
) -> Result<Vec<PartRow>, Fault> {
    let mut statement = conn.prepare_cached(
        "SELECT p.number, p.attempt, c.copy_id, p.size, p.etag, p.checksum, p.crc64, c.etag,
             c.crc64, p.last_modified
         FROM multipart_parts p
         JOIN multipart_part_copies c ON c.upload_id = p.upload_id AND c.number = p.number
             AND c.attempt = p.attempt
         JOIN multipart_uploads u ON u.upload_id = p.upload_id
         WHERE p.upload_id = ?1 AND p.number > ?2 AND p.missing = 0 AND u.ended IS NULL
         ORDER BY p.number LIMIT ?3",
    )?;
    let mut found = statement.query(params![upload.to_bytes(), after, max])?;
    let mut parts = Vec::new();
    while let Some(row) = found.next()? {
        parts.push(rows::part(row)?);
    }
    Ok(parts)
}
