//! Lookups: one flight each.

use base::{BucketName, CopyId, Month, ObjectKey, Timestamp, Traffic, UploadId, VersionId};
use serde_json::Value;
use tokio_postgres::Row;
use tokio_postgres::types::Type;

use crate::fault::Fault;
use crate::live::Live;
use crate::model::{
    BackendId, BackendRow, BackendTotals, Bucket, BucketId, CleanupPage, Extent, InstanceRow,
    Known, LocationRow, ObjectPart, PartRow, PlannedExtent, QueueDepth, ReadPlan, UploadRecord,
    UsageRow,
};
use crate::postgres::connect::Pool;
use crate::postgres::encode::{copy_uuid, upload_uuid, version_uuid};
use crate::rows;
use crate::values::{Cells, blob_id, crc, uint};

type Found<T> = Result<T, Fault>;

fn all<T>(found: &[Row], read: impl Fn(&Row) -> Found<T>) -> Found<Vec<T>> {
    found.iter().map(read).collect()
}

fn one(found: &[Row]) -> Found<&Row> {
    found
        .first()
        .ok_or_else(|| Fault::damaged("a question that always has an answer had none"))
}

fn limit(max: u32) -> i64 {
    i64::from(max)
}

pub(super) async fn client_buckets(pool: &Pool) -> Found<Vec<Bucket>> {
    let found = pool
        .query(
            "SELECT bucket_id, name, created, owner FROM buckets
             WHERE owner = 'catalogue' ORDER BY name",
            &[],
        )
        .await?;
    all(&found, rows::bucket)
}

pub(super) async fn bucket(pool: &Pool, name: &BucketName) -> Found<Option<Bucket>> {
    let found = pool
        .query(
            "SELECT bucket_id, name, created, owner FROM buckets WHERE name = $1",
            &[(&name.as_str(), Type::TEXT)],
        )
        .await?;
    found.first().map(rows::bucket).transpose()
}

pub(super) async fn backends(pool: &Pool) -> Found<Vec<BackendRow>> {
    let found = pool
        .query("SELECT b::text FROM s3o_backends() b", &[])
        .await?;
    found
        .iter()
        .map(|row| {
            let text = row.text(0)?;
            match serde_json::from_str(&text) {
                Ok(Value::Array(row)) => rows::backend(row.as_slice()),
                _ => Err(Fault::damaged(format!("the backend {text}"))),
            }
        })
        .collect()
}

/// A plan as `s3o_plans` tells it: the columns of an object from the second on, then the extents.
pub(super) fn plan(row: &Row) -> Found<ReadPlan> {
    let object = object(row)?;
    let text = row.text(11)?;
    let value: Value =
        serde_json::from_str(&text).map_err(|_| Fault::damaged(format!("the extents {text}")))?;
    let extents = rows::lists(&value)?.map(planned).collect::<Found<_>>()?;
    Ok(ReadPlan { object, extents })
}

/// `n, version_id, seq, size, etag, last_modified, content_type, headers, checksum, parts, tags`.
pub(super) fn object(row: &Row) -> Found<crate::model::ObjectRecord> {
    rows::object(row, 1)
}

/// `blob, offset, length, size of the blob, crc, copies`.
fn planned(row: &[Value]) -> Found<PlannedExtent> {
    let blob = blob_id(row, 0)?;
    if row.maybe_int(3)?.is_none() {
        return Err(Fault::damaged(format!(
            "blob {blob} of a live object is missing"
        )));
    }
    let copies = row.get(5).unwrap_or(&Value::Null);
    Ok(PlannedExtent {
        extent: Extent {
            blob,
            offset: uint(row, 1)?,
            length: uint(row, 2)?,
        },
        blob_size: uint(row, 3)?,
        crc64: crc(row, 4)?,
        copies: rows::lists(copies)?.map(rows::copy).collect::<Found<_>>()?,
    })
}

pub(super) async fn object_with_parts(
    pool: &Pool,
    bucket: BucketId,
    key: &ObjectKey,
    after: u32,
    max: u32,
) -> Found<Option<(crate::model::ObjectRecord, Vec<ObjectPart>)>> {
    let found = pool
        .query(
            "SELECT o.*, (
                 SELECT coalesce(jsonb_agg(jsonb_build_array(p.n, p.size, p.checksum) ORDER BY p.n),
                     '[]')
                 FROM (SELECT * FROM object_parts p
                     WHERE p.version_id = o.version_id AND p.n > $3 ORDER BY p.n LIMIT $4) p)::text
             FROM s3o_objects(ARRAY[$1], ARRAY[$2]) o",
            &[
                (&bucket.0, Type::INT8),
                (&key.as_str(), Type::TEXT),
                (&i64::from(after), Type::INT8),
                (&limit(max), Type::INT8),
            ],
        )
        .await?;
    let Some(row) = found.first() else {
        return Ok(None);
    };
    let text = row.text(11)?;
    let value: Value =
        serde_json::from_str(&text).map_err(|_| Fault::damaged(format!("the parts {text}")))?;
    let parts = rows::lists(&value)?
        .map(rows::object_part)
        .collect::<Found<_>>()?;
    Ok(Some((object(row)?, parts)))
}

pub(super) async fn parts_of(
    pool: &Pool,
    version: VersionId,
    after: u32,
    max: u32,
) -> Found<Vec<ObjectPart>> {
    let found = pool
        .query(
            "SELECT n, size, checksum FROM object_parts WHERE version_id = $1 AND n > $2
             ORDER BY n LIMIT $3",
            &[
                (&version_uuid(version), Type::UUID),
                (&i64::from(after), Type::INT8),
                (&limit(max), Type::INT8),
            ],
        )
        .await?;
    all(&found, rows::object_part)
}

pub(super) async fn locations(
    pool: &Pool,
    after: Option<CopyId>,
    max: u32,
) -> Found<Vec<LocationRow>> {
    let found = pool
        .query(
            "SELECT l.copy_id, l.backend_id, l.backend_key, l.backend_version, l.etag, l.crc64,
                 l.stored_bytes, l.state, b.blob_id, b.bucket_id, b.key
             FROM object_locations l JOIN blobs b ON b.blob_id = l.blob_id
             WHERE $1::uuid IS NULL OR l.copy_id > $1 ORDER BY l.copy_id LIMIT $2",
            &[
                (&after.map(copy_uuid), Type::UUID),
                (&limit(max), Type::INT8),
            ],
        )
        .await?;
    all(&found, rows::location)
}

pub(super) async fn next_cleanup(pool: &Pool) -> Found<Option<Timestamp>> {
    let found = pool
        .query("SELECT min(not_before) FROM cleanup_queue", &[])
        .await?;
    Ok(one(&found)?.maybe_int(0)?.map(Timestamp::from_millis))
}

pub(super) async fn depth(pool: &Pool) -> Found<QueueDepth> {
    let found = pool
        .query(
            "SELECT (SELECT count(*) FROM cleanup_queue), (SELECT count(*) FROM cleanup_dlq),
                 (SELECT count(*) FROM write_intents)",
            &[],
        )
        .await?;
    depth_of(one(&found)?, 0)
}

fn depth_of(row: &Row, from: usize) -> Found<QueueDepth> {
    Ok(QueueDepth {
        queued: uint(row, from)?,
        dead: uint(row, from + 1)?,
        intents: uint(row, from + 2)?,
    })
}

/// Rows first: an intent that is being settled right now may be in both.
fn known(found: &[Row], in_memory: impl FnOnce() -> bool) -> Found<Known> {
    Ok(match one(found)?.maybe_text(0)?.as_deref() {
        Some("location") => Known::Location,
        Some("cleanup") => Known::Cleanup,
        Some(_) => Known::Pending,
        None if in_memory() => Known::Pending,
        None => Known::No,
    })
}

pub(super) async fn known_copy(pool: &Pool, live: &Live, copy: CopyId) -> Found<Known> {
    let found = pool
        .query(
            "SELECT s3o_known($1, NULL, NULL)",
            &[(&copy_uuid(copy), Type::UUID)],
        )
        .await?;
    known(&found, || live.knows(copy))
}

pub(super) async fn known_key(
    pool: &Pool,
    live: &Live,
    backend: BackendId,
    key: &str,
) -> Found<Known> {
    let found = pool
        .query(
            "SELECT s3o_known(NULL, $1, $2)",
            &[(&backend.0, Type::INT8), (&key, Type::TEXT)],
        )
        .await?;
    known(&found, || live.knows_key(backend, key))
}

// === uploads ===

const UPLOADS: &str = "SELECT upload_id, bucket_id, key, content_type, headers, checksum, created,
    state, frozen, precondition, version_id, etag, final_checksum, tags, legs
    FROM s3o_uploads($1, $2, $3, $4)";

async fn uploads(
    pool: &Pool,
    upload: Option<UploadId>,
    state: Option<&str>,
    before: i64,
    max: u32,
) -> Found<Vec<UploadRecord>> {
    let max = i32::try_from(max).unwrap_or(i32::MAX);
    let found = pool
        .query(
            UPLOADS,
            &[
                (&upload.map(upload_uuid), Type::UUID),
                (&state, Type::TEXT),
                (&before, Type::INT8),
                (&max, Type::INT4),
            ],
        )
        .await?;
    all(&found, |row| {
        rows::upload(row, |_| {
            let text = row.text(14)?;
            let value: Value = serde_json::from_str(&text)
                .map_err(|_| Fault::damaged(format!("the legs {text}")))?;
            rows::lists(&value)?.map(rows::leg).collect()
        })
    })
}

pub(super) async fn upload(
    pool: &Pool,
    bucket: BucketId,
    key: &ObjectKey,
    upload: UploadId,
) -> Found<Option<UploadRecord>> {
    let found = uploads(pool, Some(upload), None, 0, 1).await?;
    Ok(found
        .into_iter()
        .find(|record| record.bucket == bucket && record.key == *key))
}

pub(super) async fn stale_uploads(
    pool: &Pool,
    before: Timestamp,
    max: u32,
) -> Found<Vec<UploadRecord>> {
    uploads(pool, None, Some("open"), before.millis(), max).await
}

pub(super) async fn completing_uploads(pool: &Pool, max: u32) -> Found<Vec<UploadRecord>> {
    uploads(pool, None, Some("completing"), i64::MAX, max).await
}

pub(super) async fn parts(
    pool: &Pool,
    upload: UploadId,
    after: u32,
    max: u32,
) -> Found<Vec<PartRow>> {
    let found = pool
        .query(
            "SELECT p.number, p.attempt, c.copy_id, p.size, p.etag, p.checksum, p.crc64, c.etag,
                 c.crc64, p.last_modified
             FROM multipart_parts p
             JOIN multipart_part_copies c ON c.upload_id = p.upload_id AND c.number = p.number
                 AND c.attempt = p.attempt
             JOIN multipart_uploads u ON u.upload_id = p.upload_id
             WHERE p.upload_id = $1 AND p.number > $2 AND NOT p.missing AND u.ended IS NULL
             ORDER BY p.number LIMIT $3",
            &[
                (&upload_uuid(upload), Type::UUID),
                (&i64::from(after), Type::INT8),
                (&limit(max), Type::INT8),
            ],
        )
        .await?;
    all(&found, rows::part)
}

/// Whether parts of an upload are being written by other instances.
pub(super) async fn has_foreign_claims(
    pool: &Pool,
    upload: UploadId,
    instance: i32,
) -> Found<bool> {
    let found = pool
        .query(
            "SELECT EXISTS (SELECT 1 FROM multipart_claims c JOIN instances i USING (instance)
                 WHERE c.upload_id = $1 AND c.under_way AND c.instance <> $2 AND i.live
                     AND i.epoch = c.epoch)",
            &[(&upload_uuid(upload), Type::UUID), (&instance, Type::INT4)],
        )
        .await?;
    one(&found)?.flag(0)
}

// === what an operator looks at ===

pub(super) async fn usage(pool: &Pool, month: Month) -> Found<Vec<UsageRow>> {
    let found = pool
        .query(
            "SELECT backend_id, api_requests, egress_bytes, ingress_bytes FROM backend_usage
             WHERE month = $1 ORDER BY backend_id",
            &[(&month.to_string(), Type::TEXT)],
        )
        .await?;
    all(&found, |row| {
        Ok(UsageRow {
            backend: BackendId(row.int(0)?),
            month,
            traffic: Traffic {
                requests: uint(row, 1)?,
                egress: uint(row, 2)?,
                ingress: uint(row, 3)?,
            },
        })
    })
}

pub(super) async fn backend_totals(pool: &Pool) -> Found<Vec<BackendTotals>> {
    let found = pool
        .query(
            "SELECT b.backend_id, b.state, (SELECT coalesce(sum(locations), 0)::bigint
                 FROM backend_slots s WHERE s.backend_id = b.backend_id)
             FROM backends b ORDER BY b.backend_id",
            &[],
        )
        .await?;
    all(&found, rows::backend_totals)
}

pub(super) async fn cleanup_page(pool: &Pool, max: u32) -> Found<CleanupPage> {
    let found = pool
        .query(
            "SELECT q.id, b.name, q.backend_key, q.reason, q.size, q.attempts, q.created,
                 q.not_before, q.last_error, (SELECT count(*) FROM cleanup_queue),
                 (SELECT count(*) FROM cleanup_dlq), (SELECT count(*) FROM write_intents)
             FROM (SELECT 1) always
             LEFT JOIN (SELECT * FROM cleanup_queue ORDER BY not_before, id LIMIT $1) q ON true
             LEFT JOIN backends b ON b.backend_id = q.backend_id
             ORDER BY q.not_before, q.id",
            &[(&limit(max), Type::INT8)],
        )
        .await?;
    let depth = depth_of(one(&found)?, 9)?;
    let mut items = Vec::with_capacity(found.len());
    for row in &found {
        if row.maybe_int(0)?.is_some() {
            items.push(rows::queued(row)?);
        }
    }
    Ok(CleanupPage { depth, items })
}

pub(super) async fn instances(pool: &Pool, this: i32) -> Found<Vec<InstanceRow>> {
    let found = pool
        .query(
            "SELECT instance, epoch, heartbeat FROM instances ORDER BY instance",
            &[],
        )
        .await?;
    all(&found, |row| rows::instance(row, Some(i64::from(this))))
}
