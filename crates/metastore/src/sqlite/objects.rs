//! Commits and removals of objects.
//!
//! What is checked is checked before the first statement that changes something: a verdict other
//! than success leaves no trace.

use std::collections::HashMap;

use base::{BackendKey, BlobId, CopyId, ETag, ObjectKey, Precondition, VersionId};
use rusqlite::{Connection, OptionalExtension, params};

use crate::check;
use crate::fault::Fault;
use crate::job::Answer;
use crate::live::IntentRow;
use crate::model::{
    Adopted, BackendId, BucketId, CleanupReason, Content, CopyState, Extent, NewBlob, NewCopy,
    NewVersion, Removal, Removed, Retag, Verdict,
};
use crate::sqlite::apply::Work;
use crate::sqlite::names::count_objects;
use crate::values::{
    algorithm_text, blob_id, checksum_text, crc_int, etag, headers_text, int, stored_checksum_text,
    tags_text, uint, version_id,
};

/// What conditions and displacement need to know of the current version.
pub(super) struct Current {
    pub(super) version: VersionId,
    pub(super) etag: ETag,
    pub(super) size: u64,
    pub(super) blob: Option<BlobId>,
}

/// Where a new copy lies.
pub(super) struct Place {
    pub(super) blob: BlobId,
    pub(super) backend: BackendId,
    pub(super) key: BackendKey,
    /// Bytes that were reserved for it.
    pub(super) reserved: u64,
}

pub(super) type Places = HashMap<CopyId, Place>;

pub(super) fn current(
    conn: &Connection,
    bucket: BucketId,
    key: &ObjectKey,
) -> Result<Option<Current>, Fault> {
    let mut statement = conn.prepare_cached(
        "SELECT version_id, etag, size, blob_id FROM objects
         WHERE bucket_id = ?1 AND key = ?2",
    )?;
    let mut rows = statement.query(params![bucket.0, key.as_str().as_bytes()])?;
    let Some(row) = rows.next()? else {
        return Ok(None);
    };
    let blob = match row.get_ref(3)? {
        rusqlite::types::ValueRef::Null => None,
        _ => Some(blob_id(row, 3)?),
    };
    Ok(Some(Current {
        version: version_id(row, 0)?,
        etag: etag(row, 1)?,
        size: uint(row, 2)?,
        blob,
    }))
}

pub(super) fn commit(
    work: &mut Work<'_>,
    version: &NewVersion,
    intents: &[IntentRow],
) -> Result<Verdict, Fault> {
    let places = intents
        .iter()
        .map(|intent| {
            let place = Place {
                blob: intent.blob,
                backend: intent.backend,
                key: intent.key.clone(),
                reserved: intent.bytes,
            };
            (intent.copy, place)
        })
        .collect();
    let verdict = put(work, version, &places)?;
    if let (Verdict::Committed { .. }, Content::Written { blobs, .. }) =
        (&verdict, &version.content)
    {
        let copies = blobs
            .iter()
            .flat_map(|blob| &blob.copies)
            .map(|copy| copy.copy);
        work.effects.settled.extend(copies);
    }
    Ok(verdict)
}

/// Makes a version exist whose copies lie at these places, if its precondition holds.
pub(super) fn put(
    work: &mut Work<'_>,
    version: &NewVersion,
    places: &Places,
) -> Result<Verdict, Fault> {
    let current = current(work.conn, version.bucket, &version.key)?;
    if !version
        .precondition
        .holds(current.as_ref().map(|current| &current.etag))
    {
        return Ok(match (&version.precondition, &current) {
            (Precondition::Match(_), None) => Verdict::Absent,
            (Precondition::None | Precondition::Absent | Precondition::Match(_), _) => {
                Verdict::PreconditionFailed
            }
        });
    }
    let verdict = write(work, version, current, places)?;
    if matches!(verdict, Verdict::Committed { .. }) {
        overtake(work, version.bucket, &version.key)?;
    }
    Ok(verdict)
}

fn write(
    work: &mut Work<'_>,
    version: &NewVersion,
    current: Option<Current>,
    places: &Places,
) -> Result<Verdict, Fault> {
    match &version.content {
        Content::Written { blobs, extents } => {
            check::shape(version.size, blobs, extents)?;
            let copies = blobs
                .iter()
                .flat_map(|blob| blob.copies.iter().map(move |copy| (blob, copy)));
            for (blob, copy) in copies {
                let Some(place) = places.get(&copy.copy) else {
                    return Ok(Verdict::IntentGone);
                };
                check_place(blob, copy, place)?;
            }
            replace(work, version, current.as_ref(), blobs, extents, places)
        }
        Content::Same { current: expected } => match current {
            Some(current) if current.version == *expected => retitle(work, version, &current),
            Some(_) | None => Ok(Verdict::Changed),
        },
    }
}

fn check_place(blob: &NewBlob, copy: &NewCopy, place: &Place) -> Result<(), Fault> {
    check::blob(copy.copy, place.blob, blob.blob)?;
    if blob.size > place.reserved {
        return Err(Fault::damaged(format!(
            "refused copy {}: it stores {} bytes and has reserved {}",
            copy.copy, blob.size, place.reserved
        )));
    }
    Ok(())
}

fn replace(
    work: &mut Work<'_>,
    version: &NewVersion,
    current: Option<&Current>,
    blobs: &[NewBlob],
    extents: &[Extent],
    places: &Places,
) -> Result<Verdict, Fault> {
    let (objects, less) = match current {
        None => (1, 0),
        Some(current) => (0, current.size),
    };
    // The first change, so that a bucket that is gone leaves no trace.
    if !count_objects(work, version.bucket, objects, (version.size, less))? {
        return Ok(Verdict::NoSuchBucket);
    }
    if let Some(current) = current {
        displace(work, current, CleanupReason::OverwriteDisplaced)?;
    }
    for blob in blobs {
        insert_blob(work, version, blob, places)?;
    }
    let whole = match (blobs, extents) {
        ([blob], [extent]) if extent.offset == 0 && extent.length == blob.size => Some(blob.blob),
        _ => None,
    };
    if whole.is_none() {
        insert_extents(work.conn, version.version, extents)?;
    }
    insert_parts(work.conn, version)?;
    write_object(work, version, whole)
}

/// New metadata over the blobs of the current version.
fn retitle(work: &Work<'_>, version: &NewVersion, current: &Current) -> Result<Verdict, Fault> {
    if version.size != current.size {
        return Err(Fault::damaged(
            "refused to commit new metadata with another size",
        ));
    }
    work.conn
        .prepare_cached("UPDATE object_extents SET version_id = ?2 WHERE version_id = ?1")?
        .execute([current.version.to_bytes(), version.version.to_bytes()])?;
    forget_version(work.conn, current.version)?;
    insert_parts(work.conn, version)?;
    write_object(work, version, current.blob)
}

fn insert_blob(
    work: &mut Work<'_>,
    version: &NewVersion,
    blob: &NewBlob,
    places: &Places,
) -> Result<(), Fault> {
    let size = int(blob.size)?;
    work.conn
        .prepare_cached(
            "INSERT INTO blobs (blob_id, bucket_id, key, state, stored_size, plain_size, crc64)
             VALUES (?1, ?2, ?3, 'live', ?4, ?4, ?5)",
        )?
        .execute(params![
            blob.blob.to_bytes(),
            version.bucket.0,
            version.key.as_str().as_bytes(),
            size,
            crc_int(blob.crc64)
        ])?;
    for copy in &blob.copies {
        let place = places
            .get(&copy.copy)
            .ok_or_else(|| Fault::damaged(format!("copy {} has no place", copy.copy)))?;
        work.conn
            .prepare_cached(
                "INSERT INTO object_locations (copy_id, blob_id, backend_id, backend_key,
                     backend_version, stored_bytes, etag, crc64, state)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, 'good')",
            )?
            .execute(params![
                copy.copy.to_bytes(),
                blob.blob.to_bytes(),
                place.backend.0,
                place.key.as_str(),
                copy.version,
                size,
                copy.etag.as_ref().map(ETag::as_str),
                crc_int(copy.crc64)
            ])?;
        let delta = work.effects.delta(place.backend);
        delta.used += size;
        delta.locations += 1;
    }
    Ok(())
}

fn insert_extents(conn: &Connection, version: VersionId, extents: &[Extent]) -> Result<(), Fault> {
    let mut statement =
        conn.prepare_cached("INSERT INTO object_extents VALUES (?1, ?2, ?3, ?4, ?5)")?;
    for (n, extent) in (0_i64..).zip(extents) {
        statement.execute(params![
            version.to_bytes(),
            n,
            extent.blob.to_bytes(),
            int(extent.offset)?,
            int(extent.length)?
        ])?;
    }
    Ok(())
}

fn insert_parts(conn: &Connection, version: &NewVersion) -> Result<(), Fault> {
    let mut statement = conn.prepare_cached("INSERT INTO object_parts VALUES (?1, ?2, ?3, ?4)")?;
    for part in &version.parts {
        statement.execute(params![
            version.version.to_bytes(),
            part.number,
            int(part.size)?,
            part.checksum.as_ref().map(checksum_text)
        ])?;
    }
    Ok(())
}

fn write_object(
    work: &Work<'_>,
    version: &NewVersion,
    blob: Option<BlobId>,
) -> Result<Verdict, Fault> {
    let seq = work.next_seq();
    let headers = headers_text(&version.headers);
    let checksum = version.checksum.as_ref().map(stored_checksum_text);
    let tags = tags_text(&version.tags);
    if headers.is_some() || checksum.is_some() || tags.is_some() {
        work.conn
            .prepare_cached(
                "INSERT INTO object_meta (version_id, headers, tags, checksum)
                 VALUES (?1, ?2, ?3, ?4)",
            )?
            .execute(params![version.version.to_bytes(), headers, tags, checksum])?;
    }
    let algorithm = version
        .checksum
        .map(|stored| (stored.checksum.algorithm(), stored.kind));
    let parts = i64::try_from(version.parts.len())
        .ok()
        .filter(|parts| *parts > 0);
    work.conn
        .prepare_cached(
            "INSERT INTO objects (bucket_id, key, version_id, seq, blob_id, size, etag,
                 content_type, last_modified, checksum, parts)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)
             ON CONFLICT (bucket_id, key) DO UPDATE SET version_id = excluded.version_id,
                 seq = excluded.seq, blob_id = excluded.blob_id, size = excluded.size,
                 etag = excluded.etag, content_type = excluded.content_type,
                 last_modified = excluded.last_modified, checksum = excluded.checksum,
                 parts = excluded.parts",
        )?
        .execute(params![
            version.bucket.0,
            version.key.as_str().as_bytes(),
            version.version.to_bytes(),
            int(seq)?,
            blob.map(BlobId::to_bytes),
            int(version.size)?,
            version.etag.as_str(),
            version.headers.content_type,
            version.last_modified.millis(),
            algorithm.map(algorithm_text),
            parts
        ])?;
    Ok(Verdict::Committed { seq })
}

/// Queues all copies of a version for deletion, when readers are done with them.
fn displace(work: &mut Work<'_>, old: &Current, reason: CleanupReason) -> Result<(), Fault> {
    let blobs = match old.blob {
        Some(blob) => vec![blob],
        None => extent_blobs(work.conn, old.version)?,
    };
    let due = work.now.after(work.read_grace);
    for blob in blobs {
        work.conn
            .prepare_cached(
                "INSERT INTO cleanup_queue (copy_id, blob_id, kind, backend_id, backend_key,
                     backend_version, size, reason, unsettled, grace, created, not_before)
                 SELECT copy_id, blob_id, 'object', backend_id, backend_key, backend_version,
                     stored_bytes, ?2, 0, 1, ?3, ?4
                 FROM object_locations WHERE blob_id = ?1",
            )?
            .execute(params![
                blob.to_bytes(),
                reason.as_str(),
                work.now.millis(),
                due.millis()
            ])?;
        let mut statement = work.conn.prepare_cached(
            "DELETE FROM object_locations WHERE blob_id = ?1 RETURNING backend_id, stored_bytes",
        )?;
        let mut rows = statement.query([blob.to_bytes()])?;
        while let Some(row) = rows.next()? {
            let bytes: i64 = row.get(1)?;
            let delta = work.effects.delta(BackendId(row.get(0)?));
            delta.used -= bytes;
            delta.orphan += bytes;
            delta.locations -= 1;
            work.effects.enqueued.add(reason, 1);
        }
        work.conn
            .prepare_cached("DELETE FROM blobs WHERE blob_id = ?1")?
            .execute([blob.to_bytes()])?;
    }
    forget_version(work.conn, old.version)
}

fn extent_blobs(conn: &Connection, version: VersionId) -> Result<Vec<BlobId>, Fault> {
    let mut statement =
        conn.prepare_cached("SELECT DISTINCT blob_id FROM object_extents WHERE version_id = ?1")?;
    let mut rows = statement.query([version.to_bytes()])?;
    let mut blobs = Vec::new();
    while let Some(row) = rows.next()? {
        blobs.push(blob_id(row, 0)?);
    }
    Ok(blobs)
}

fn forget_version(conn: &Connection, version: VersionId) -> Result<(), Fault> {
    for statement in [
        "DELETE FROM object_meta WHERE version_id = ?1",
        "DELETE FROM object_parts WHERE version_id = ?1",
        "DELETE FROM object_extents WHERE version_id = ?1",
    ] {
        conn.prepare_cached(statement)?
            .execute([version.to_bytes()])?;
    }
    Ok(())
}

/// Other tags for the current version; `false` where there is none. The version stays: tags are no
/// part of what conditions and listings compare.
pub(super) fn retag(work: &Work<'_>, retag: &Retag) -> Result<bool, Fault> {
    let Some(current) = current(work.conn, retag.bucket, &retag.key)? else {
        return Ok(false);
    };
    work.conn
        .prepare_cached(
            "INSERT INTO object_meta (version_id, tags) VALUES (?1, ?2)
             ON CONFLICT (version_id) DO UPDATE SET tags = excluded.tags",
        )?
        .execute(params![current.version.to_bytes(), tags_text(&retag.tags)])?;
    overtake(work, retag.bucket, &retag.key)?;
    Ok(true)
}

pub(super) fn remove(work: &mut Work<'_>, removal: &Removal) -> Result<Removed, Fault> {
    let Some(current) = current(work.conn, removal.bucket, &removal.key)? else {
        // The client is told that the key is absent, and so it stays.
        overtake(work, removal.bucket, &removal.key)?;
        return Ok(Removed::Absent);
    };
    if !removal.precondition.holds(Some(&current.etag)) {
        return Ok(Removed::PreconditionFailed);
    }
    if !count_objects(work, removal.bucket, -1, (0, current.size))? {
        return Err(Fault::damaged("an object of a bucket that is not there"));
    }
    displace(work, &current, CleanupReason::ObjectDeleted)?;
    work.conn
        .prepare_cached("DELETE FROM objects WHERE bucket_id = ?1 AND key = ?2")?
        .execute(params![removal.bucket.0, removal.key.as_str().as_bytes()])?;
    overtake(work, removal.bucket, &removal.key)?;
    Ok(Removed::Gone {
        version: current.version,
        size: current.size,
    })
}

/// A key was written or deleted: completions of it that are frozen displace nothing any more.
fn overtake(work: &Work<'_>, bucket: BucketId, key: &ObjectKey) -> Result<(), Fault> {
    work.conn
        .prepare_cached(
            "INSERT INTO multipart_overtaken SELECT upload_id FROM multipart_uploads
             WHERE bucket_id = ?1 AND key = ?2 AND state = 'completing'
             ON CONFLICT DO NOTHING",
        )?
        .execute(params![bucket.0, key.as_str().as_bytes()])?;
    Ok(())
}

pub(super) fn mark_copy(work: &Work<'_>, copy: CopyId, state: CopyState) -> Result<Answer, Fault> {
    let verified = (state == CopyState::Good).then(|| work.now.millis());
    work.conn
        .prepare_cached(
            "UPDATE object_locations SET state = ?2, verified = coalesce(?3, verified)
             WHERE copy_id = ?1 AND (state <> 'corrupt' OR ?2 = 'good')",
        )?
        .execute(params![copy.to_bytes(), state.name(), verified])?;
    Ok(Answer::Done)
}

/// Makes a version exist whose bytes were found; their room is taken whatever the quota says,
/// because they are there.
pub(super) fn adopt(
    work: &mut Work<'_>,
    version: &NewVersion,
    places: &[(CopyId, BackendId, BackendKey)],
) -> Result<Adopted, Fault> {
    let Content::Written { blobs, .. } = &version.content else {
        return Ok(Adopted::Refused);
    };
    let current = current(work.conn, version.bucket, &version.key)?;
    // Version ids are drawn in the order of time by our own clock; a backend's dates are coarse.
    if current.is_some_and(|current| current.version >= version.version) {
        return Ok(Adopted::NewerVersion);
    }
    for blob in blobs {
        if is_known(
            work.conn,
            "SELECT 1 FROM blobs WHERE blob_id = ?1",
            blob.blob.to_bytes(),
        )? {
            return Ok(Adopted::KnownBlob);
        }
    }
    // What is kept beside an object goes by its version: another one's must not become this one's.
    let beside = "SELECT 1 FROM object_meta WHERE version_id = ?1
         UNION ALL SELECT 1 FROM object_parts WHERE version_id = ?1
         UNION ALL SELECT 1 FROM object_extents WHERE version_id = ?1";
    if is_known(work.conn, beside, version.version.to_bytes())? {
        return Ok(Adopted::KnownVersion);
    }
    let mut found = Places::new();
    for (copy, backend, key) in places {
        if work.live.knows(*copy) || is_in_rows(work.conn, *copy)? {
            return Ok(Adopted::KnownCopy);
        }
        let owner = blobs
            .iter()
            .find(|blob| blob.copies.iter().any(|new| new.copy == *copy));
        let Some(owner) = owner else { continue };
        let place = Place {
            blob: owner.blob,
            backend: *backend,
            key: key.clone(),
            reserved: owner.size,
        };
        found.insert(*copy, place);
    }
    let unconditional = NewVersion {
        precondition: Precondition::None,
        ..version.clone()
    };
    match put(work, &unconditional, &found)? {
        Verdict::Committed { .. } => Ok(Adopted::Yes),
        Verdict::PreconditionFailed
        | Verdict::Absent
        | Verdict::IntentGone
        | Verdict::Changed
        | Verdict::NoSuchBucket
        | Verdict::Overtaken => Ok(Adopted::Refused),
    }
}

fn is_known(conn: &Connection, query: &str, id: [u8; 16]) -> Result<bool, Fault> {
    let found = conn
        .prepare_cached(query)?
        .query_row([id], |_| Ok(()))
        .optional()?;
    Ok(found.is_some())
}

fn is_in_rows(conn: &Connection, copy: CopyId) -> Result<bool, Fault> {
    let query = "SELECT 1 FROM object_locations WHERE copy_id = ?1
         UNION ALL SELECT 1 FROM cleanup_queue WHERE copy_id = ?1
         UNION ALL SELECT 1 FROM cleanup_dlq WHERE copy_id = ?1
         UNION ALL SELECT 1 FROM multipart_legs WHERE copy_id = ?1";
    is_known(conn, query, copy.to_bytes())
}
