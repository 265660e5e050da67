//! Legs: the backend uploads of a multipart upload.

use base::{CopyId, ETag, UploadId};
use rusqlite::{Connection, params};

use crate::Error;
use crate::fault::Fault;
use crate::model::{CleanupReason, NewCopy, NewLeg, UploadVerdict};
use crate::rows;
use crate::rows::{LegRow, Stage};
use crate::sqlite::apply::Work;
use crate::sqlite::cleanup::{DoomedLeg, enqueue_leg};
use crate::sqlite::uploads::{not_open, stage};
use crate::values::{crc_int, int};

/// All legs of an upload, in the order of their making.
pub(super) fn all(conn: &Connection, upload: UploadId) -> Result<Vec<LegRow>, Fault> {
    let mut statement = conn.prepare_cached(
        "SELECT copy_id, blob_id, backend_id, backend_key, state, backend_upload, size, etag,
             backend_version, crc64
         FROM multipart_legs WHERE upload_id = ?1 ORDER BY n",
    )?;
    let mut found = statement.query([upload.to_bytes()])?;
    let mut legs = Vec::new();
    while let Some(row) = found.next()? {
        legs.push(rows::leg(row)?);
    }
    Ok(legs)
}

fn find(conn: &Connection, upload: UploadId, leg: CopyId) -> Result<Option<LegRow>, Fault> {
    Ok(all(conn, upload)?
        .into_iter()
        .find(|row| row.leg.copy == leg))
}

/// A draining backend takes no new legs.
pub(super) fn insert(work: &Work<'_>, upload: UploadId, leg: &NewLeg) -> Result<(), Fault> {
    if !work.live.accepts(leg.backend) {
        return Err(Error::NoRoom {
            wanted: base::ByteSize(0),
        }
        .into());
    }
    work.conn
        .prepare_cached(
            "INSERT INTO multipart_legs (copy_id, upload_id, n, blob_id, backend_id, backend_key,
                 state)
             SELECT ?1, ?2, 1 + coalesce(max(n), 0), ?3, ?4, ?5, 'creating'
             FROM multipart_legs WHERE upload_id = ?2",
        )?
        .execute(params![
            leg.copy.to_bytes(),
            upload.to_bytes(),
            leg.blob.to_bytes(),
            leg.backend.0,
            leg.key.as_str()
        ])?;
    Ok(())
}

pub(super) fn add(work: &Work<'_>, upload: UploadId, leg: &NewLeg) -> Result<UploadVerdict, Fault> {
    if let Some(verdict) = not_open(work.conn, upload)? {
        return Ok(verdict);
    }
    insert(work, upload, leg)?;
    Ok(UploadVerdict::Done)
}

/// Records the backend's id. It is kept even if the upload is completing by now; after an abort the
/// queue row takes it over, so that the cleaner need not search for it.
pub(super) fn open(
    work: &Work<'_>,
    upload: UploadId,
    leg: CopyId,
    id: &str,
) -> Result<UploadVerdict, Fault> {
    let changed = work
        .conn
        .prepare_cached(
            "UPDATE multipart_legs SET state = 'open', backend_upload = ?3
             WHERE copy_id = ?1 AND upload_id = ?2 AND state = 'creating'",
        )?
        .execute(params![leg.to_bytes(), upload.to_bytes(), id])?;
    if changed == 1 {
        return Ok(UploadVerdict::Done);
    }
    work.conn
        .prepare_cached(
            "UPDATE cleanup_queue SET backend_upload = ?2
             WHERE copy_id = ?1 AND kind = 'upload' AND backend_upload IS NULL",
        )?
        .execute(params![leg.to_bytes(), id])?;
    Ok(match not_open(work.conn, upload)? {
        Some(verdict) => verdict,
        None => UploadVerdict::Superseded,
    })
}

/// A leg that holds nothing goes into the queue.
pub(super) fn drop_unused(
    work: &mut Work<'_>,
    upload: UploadId,
    leg: CopyId,
) -> Result<UploadVerdict, Fault> {
    if let Some(verdict) = not_open(work.conn, upload)? {
        return Ok(verdict);
    }
    let Some(row) = find(work.conn, upload, leg)? else {
        return Ok(UploadVerdict::Superseded);
    };
    let used = work
        .conn
        .prepare_cached(
            "SELECT 1 FROM multipart_part_copies WHERE upload_id = ?1 AND copy_id = ?2
             UNION ALL SELECT 1 FROM multipart_claims WHERE upload_id = ?1 AND copy_id = ?2",
        )?
        .exists(params![upload.to_bytes(), leg.to_bytes()])?;
    if used {
        return Ok(UploadVerdict::Superseded);
    }
    let doomed = DoomedLeg {
        copy: leg,
        backend: row.leg.backend,
        key: row.leg.key.as_str(),
        upload: row.backend_upload.as_deref(),
        bytes: 0,
        unsettled: row.backend_upload.is_none(),
        reason: CleanupReason::UploadAborted,
    };
    enqueue_leg(work, &doomed)?;
    work.conn
        .prepare_cached("DELETE FROM multipart_legs WHERE copy_id = ?1")?
        .execute([leg.to_bytes()])?;
    Ok(UploadVerdict::Done)
}

pub(super) fn complete(
    work: &Work<'_>,
    upload: UploadId,
    leg: CopyId,
    copy: &NewCopy,
    size: u64,
) -> Result<UploadVerdict, Fault> {
    match stage(work.conn, upload)? {
        Some(Stage::Completing) => {}
        Some(Stage::Open) => return Ok(UploadVerdict::Superseded),
        Some(Stage::Completed | Stage::Aborting) | None => return Ok(UploadVerdict::NoSuchUpload),
    }
    let changed = work
        .conn
        .prepare_cached(
            "UPDATE multipart_legs SET state = 'completed', size = ?3, etag = ?4,
                 backend_version = ?5, crc64 = ?6
             WHERE copy_id = ?1 AND upload_id = ?2 AND state <> 'creating'",
        )?
        .execute(params![
            leg.to_bytes(),
            upload.to_bytes(),
            int(size)?,
            copy.etag.as_ref().map(ETag::as_str),
            copy.version,
            crc_int(copy.crc64)
        ])?;
    Ok(match changed {
        1 => UploadVerdict::Done,
        _ => UploadVerdict::Superseded,
    })
}
