//! Lookups: each a function over one read transaction.

use std::ops::ControlFlow;

use base::{BlobId, CopyId, ObjectKey, Timestamp, VersionId};
use rusqlite::{Connection, OptionalExtension, params};

use crate::fault::Fault;
use crate::live::Live;
use crate::model::{
    BackendId, BackendRow, Bucket, BucketId, Extent, Known, LocationRow, ObjectPart, ObjectRecord,
    PlannedExtent, QueueDepth, ReadPlan,
};
use crate::rows;
use crate::values::{Cells, blob_id, crc, uint};

const OBJECT: &str = "SELECT o.version_id, o.seq, o.size, o.etag, o.last_modified, o.content_type,
        m.headers, m.checksum, o.parts, m.tags, o.blob_id
    FROM objects o LEFT JOIN object_meta m ON m.version_id = o.version_id
    WHERE o.bucket_id = ?1 AND o.key = ?2";

/// The columns of a location, as `rows::copy` reads them.
const COPY: &str = "l.copy_id, l.backend_id, l.backend_key, l.backend_version, l.etag, l.crc64,
    l.stored_bytes, l.state";

pub(crate) fn backends(conn: &Connection, live: &Live) -> Result<Vec<BackendRow>, Fault> {
    super::names::backends(conn, live)
}

/// The buckets that clients made, by name.
pub(crate) fn client_buckets(conn: &Connection) -> Result<Vec<Bucket>, Fault> {
    super::names::client_buckets(conn)
}

/// The current version of a key with a page of its parts, in one snapshot.
pub(crate) fn object_with_parts(
    conn: &Connection,
    bucket: BucketId,
    key: &ObjectKey,
    after: u32,
    max: u32,
) -> Result<Option<(ObjectRecord, Vec<ObjectPart>)>, Fault> {
    let Some((record, _)) = record(conn, bucket, key)? else {
        return Ok(None);
    };
    let parts = match record.parts {
        None => Vec::new(),
        Some(_) => parts_of(conn, record.version, after, max)?,
    };
    Ok(Some((record, parts)))
}

pub(crate) fn object(
    conn: &Connection,
    bucket: BucketId,
    key: &ObjectKey,
) -> Result<Option<ObjectRecord>, Fault> {
    Ok(record(conn, bucket, key)?.map(|(record, _)| record))
}

fn record(
    conn: &Connection,
    bucket: BucketId,
    key: &ObjectKey,
) -> Result<Option<(ObjectRecord, Option<BlobId>)>, Fault> {
    let mut statement = conn.prepare_cached(OBJECT)?;
    let mut found = statement.query(params![bucket.0, key.as_str().as_bytes()])?;
    let Some(row) = found.next()? else {
        return Ok(None);
    };
    let record = rows::object(row, 0)?;
    let blob = row.maybe_id(10)?.map(BlobId::from_bytes);
    Ok(Some((record, blob)))
}

/// A key with the one blob that it is, and where its copies are: what nearly every object is.
const PLAN: &str = "SELECT l.copy_id, l.backend_id, l.backend_key, l.backend_version, l.etag,
        l.crc64, l.stored_bytes, l.state, b.stored_size, b.crc64,
        o.version_id, o.seq, o.size, o.etag, o.last_modified, o.content_type,
        m.headers, m.checksum, o.parts, m.tags, o.blob_id
    FROM objects o LEFT JOIN object_meta m ON m.version_id = o.version_id
    LEFT JOIN blobs b ON b.blob_id = o.blob_id
    LEFT JOIN object_locations l ON l.blob_id = b.blob_id
    WHERE o.bucket_id = ?1 AND o.key = ?2 ORDER BY l.state, l.copy_id";
/// Where the columns of the object begin in [`PLAN`].
const PLAN_OBJECT: usize = 10;

/// How to read a key, in one statement; goes on with [`plan_of_extents`] where the object is made of
/// several blobs.
pub(crate) fn plan(
    conn: &Connection,
    bucket: BucketId,
    key: &ObjectKey,
) -> Result<ControlFlow<Option<ReadPlan>>, Fault> {
    let mut statement = conn.prepare_cached(PLAN)?;
    let mut found = statement.query(params![bucket.0, key.as_str().as_bytes()])?;
    let mut plan: Option<(ObjectRecord, PlannedExtent)> = None;
    while let Some(row) = found.next()? {
        if plan.is_none() {
            let Some(blob) = row.maybe_id(PLAN_OBJECT + 10)?.map(BlobId::from_bytes) else {
                return Ok(ControlFlow::Continue(()));
            };
            let object = rows::object(row, PLAN_OBJECT)?;
            if row.maybe_int(8)?.is_none() {
                return Err(missing(blob));
            }
            let planned = PlannedExtent {
                extent: Extent {
                    blob,
                    offset: 0,
                    length: object.size,
                },
                blob_size: uint(row, 8)?,
                crc64: crc(row, 9)?,
                copies: Vec::new(),
            };
            plan = Some((object, planned));
        }
        if row.maybe_id(0)?.is_some()
            && let Some((_, planned)) = &mut plan
        {
            planned.copies.push(rows::copy(row)?);
        }
    }
    Ok(ControlFlow::Break(plan.map(|(object, planned)| ReadPlan {
        object,
        extents: vec![planned],
    })))
}

fn missing(blob: BlobId) -> Fault {
    Fault::damaged(format!("blob {blob} of a live object is missing"))
}

/// How to read a key that may be made of several blobs.
pub(crate) fn plan_of_extents(
    conn: &Connection,
    bucket: BucketId,
    key: &ObjectKey,
) -> Result<Option<ReadPlan>, Fault> {
    let Some((object, blob)) = record(conn, bucket, key)? else {
        return Ok(None);
    };
    let wanted = match blob {
        Some(blob) => vec![Extent {
            blob,
            offset: 0,
            length: object.size,
        }],
        None => extents(conn, object.version)?,
    };
    let extents = wanted
        .into_iter()
        .map(|extent| planned(conn, extent))
        .collect::<Result<_, _>>()?;
    Ok(Some(ReadPlan { object, extents }))
}

fn extents(conn: &Connection, version: VersionId) -> Result<Vec<Extent>, Fault> {
    let mut statement = conn.prepare_cached(
        "SELECT blob_id, blob_offset, length FROM object_extents WHERE version_id = ?1 ORDER BY n",
    )?;
    let mut found = statement.query([version.to_bytes()])?;
    let mut extents = Vec::new();
    while let Some(row) = found.next()? {
        extents.push(Extent {
            blob: blob_id(row, 0)?,
            offset: uint(row, 1)?,
            length: uint(row, 2)?,
        });
    }
    Ok(extents)
}

/// An extent with its copies, good ones first.
fn planned(conn: &Connection, extent: Extent) -> Result<PlannedExtent, Fault> {
    let mut statement = conn.prepare_cached(&format!(
        "SELECT {COPY}, b.stored_size, b.crc64
         FROM blobs b LEFT JOIN object_locations l ON l.blob_id = b.blob_id
         WHERE b.blob_id = ?1 ORDER BY l.state, l.copy_id"
    ))?;
    let mut found = statement.query([extent.blob.to_bytes()])?;
    let mut blob = None;
    let mut copies = Vec::new();
    while let Some(row) = found.next()? {
        blob = Some((uint(row, 8)?, crc(row, 9)?));
        if row.maybe_id(0)?.is_some() {
            copies.push(rows::copy(row)?);
        }
    }
    let Some((blob_size, crc64)) = blob else {
        return Err(missing(extent.blob));
    };
    Ok(PlannedExtent {
        extent,
        blob_size,
        crc64,
        copies,
    })
}

pub(crate) fn parts_of(
    conn: &Connection,
    version: VersionId,
    after: u32,
    max: u32,
) -> Result<Vec<ObjectPart>, Fault> {
    let mut statement = conn.prepare_cached(
        "SELECT n, size, checksum FROM object_parts WHERE version_id = ?1 AND n > ?2
         ORDER BY n LIMIT ?3",
    )?;
    let mut found = statement.query(params![version.to_bytes(), after, max])?;
    let mut parts = Vec::new();
    while let Some(row) = found.next()? {
        parts.push(rows::object_part(row)?);
    }
    Ok(parts)
}

pub(crate) fn locations(
    conn: &Connection,
    after: Option<CopyId>,
    max: u32,
) -> Result<Vec<LocationRow>, Fault> {
    let mut statement = conn.prepare_cached(&format!(
        "SELECT {COPY}, b.blob_id, b.bucket_id, b.key
         FROM object_locations l JOIN blobs b ON b.blob_id = l.blob_id
         WHERE l.copy_id > ?1 ORDER BY l.copy_id LIMIT ?2"
    ))?;
    // No identifier is empty: the empty one sorts before all.
    let after: Vec<u8> = after.map_or_else(Vec::new, |copy| copy.to_bytes().to_vec());
    let mut found = statement.query(params![after, max])?;
    let mut locations = Vec::new();
    while let Some(row) = found.next()? {
        locations.push(rows::location(row)?);
    }
    Ok(locations)
}

pub(crate) fn next_cleanup(conn: &Connection) -> Result<Option<Timestamp>, Fault> {
    let next: Option<i64> = conn
        .prepare_cached("SELECT min(not_before) FROM cleanup_queue")?
        .query_row([], |row| row.get(0))?;
    Ok(next.map(Timestamp::from_millis))
}

pub(crate) fn depth(conn: &Connection, live: &Live) -> Result<QueueDepth, Fault> {
    let mut statement = conn.prepare_cached(
        "SELECT (SELECT count(*) FROM cleanup_queue), (SELECT count(*) FROM cleanup_dlq)",
    )?;
    let mut found = statement.query([])?;
    let row = found.next()?.ok_or(rusqlite::Error::QueryReturnedNoRows)?;
    Ok(QueueDepth {
        queued: uint(row, 0)?,
        dead: uint(row, 1)?,
        intents: live.intent_count(),
    })
}

pub(crate) fn known_copy(conn: &Connection, live: &Live, copy: CopyId) -> Result<Known, Fault> {
    let found = conn
        .prepare_cached(
            "SELECT 'location' FROM object_locations WHERE copy_id = ?1
             UNION ALL SELECT 'cleanup' FROM cleanup_queue WHERE copy_id = ?1
             UNION ALL SELECT 'cleanup' FROM cleanup_dlq WHERE copy_id = ?1
             UNION ALL SELECT 'pending' FROM multipart_legs WHERE copy_id = ?1
             UNION ALL SELECT 'pending' FROM multipart_claims WHERE attempt = ?1
             UNION ALL SELECT 'pending' FROM write_intents WHERE copy_id = ?1
             LIMIT 1",
        )?
        .query_row([copy.to_bytes()], |row| row.get::<_, String>(0))
        .optional()?;
    Ok(known(found.as_deref(), || live.knows(copy)))
}

pub(crate) fn known_key(
    conn: &Connection,
    live: &Live,
    backend: BackendId,
    key: &str,
) -> Result<Known, Fault> {
    let found = conn
        .prepare_cached(
            "SELECT 'location' FROM object_locations WHERE backend_id = ?1 AND backend_key = ?2
             UNION ALL SELECT 'cleanup' FROM cleanup_queue
                 WHERE backend_id = ?1 AND backend_key = ?2
             UNION ALL SELECT 'cleanup' FROM cleanup_dlq
                 WHERE backend_id = ?1 AND backend_key = ?2
             UNION ALL SELECT 'pending' FROM multipart_legs
                 WHERE backend_id = ?1 AND backend_key = ?2
             UNION ALL SELECT 'pending' FROM write_intents
                 WHERE backend_id = ?1 AND backend_key = ?2
             LIMIT 1",
        )?
        .query_row(params![backend.0, key], |row| row.get::<_, String>(0))
        .optional()?;
    Ok(known(found.as_deref(), || live.knows_key(backend, key)))
}

/// Rows first: an intent that is being settled right now may be in both.
fn known(found: Option<&str>, in_memory: impl FnOnce() -> bool) -> Known {
    match found {
        Some("location") => Known::Location,
        Some("cleanup") => Known::Cleanup,
        Some(_) => Known::Pending,
        None if in_memory() => Known::Pending,
        None => Known::No,
    }
}
