//! Compares every counter with the rows that it counts, and rows with each other, in one snapshot.

use base::CopyId;
use tokio_postgres::types::Type;
use tokio_postgres::{IsolationLevel, Transaction};

use crate::fault::Fault;
use crate::live::{IntentSums, Live};
use crate::model::{BackendId, BackendSums, Verification};
use crate::postgres::connect::Pool;
use crate::rows::backend_name;
use crate::values::{Cells, copy_id, uint};

/// Contradictions that are spelt out per kind; more are only counted.
const EXAMPLES_MAX: usize = 20;

/// A kind of contradiction: what it is, and the statement that finds the rows. The first column of
/// each row says which one, as text.
const CHECKS: [(&str, &str); 18] = [
    (
        "a backend whose locations are miscounted",
        "SELECT b.name || ': counted ' || s.locations FROM backends b
         JOIN (SELECT backend_id, sum(locations) AS locations FROM backend_slots
             GROUP BY backend_id) s ON s.backend_id = b.backend_id
         WHERE s.locations <> (SELECT count(*) FROM object_locations l
             WHERE l.backend_id = b.backend_id)",
    ),
    (
        "a blob without an object",
        "SELECT b.blob_id::text FROM blobs b WHERE NOT EXISTS (
             SELECT 1 FROM objects o WHERE o.bucket_id = b.bucket_id AND o.key = b.key
                 AND (o.blob_id = b.blob_id OR EXISTS (SELECT 1 FROM object_extents e
                     WHERE e.version_id = o.version_id AND e.blob_id = b.blob_id)))",
    ),
    (
        "an object whose blob is missing or belongs to another key",
        "SELECT o.key FROM objects o LEFT JOIN blobs b ON b.blob_id = o.blob_id
         WHERE o.blob_id IS NOT NULL
             AND (b.blob_id IS NULL OR b.bucket_id <> o.bucket_id OR b.key <> o.key)",
    ),
    (
        "an object without a good copy",
        "SELECT o.key FROM objects o WHERE o.blob_id IS NOT NULL AND NOT EXISTS (
             SELECT 1 FROM object_locations l WHERE l.blob_id = o.blob_id AND l.state = 'good')",
    ),
    (
        "an extent whose blob is missing or belongs to another key",
        "SELECT o.key || ' extent ' || e.n
         FROM objects o JOIN object_extents e ON e.version_id = o.version_id
             LEFT JOIN blobs b ON b.blob_id = e.blob_id
         WHERE b.blob_id IS NULL OR b.bucket_id <> o.bucket_id OR b.key <> o.key",
    ),
    (
        "an extent without a good copy",
        "SELECT o.key || ' extent ' || e.n
         FROM objects o JOIN object_extents e ON e.version_id = o.version_id
         WHERE NOT EXISTS (
             SELECT 1 FROM object_locations l WHERE l.blob_id = e.blob_id AND l.state = 'good')",
    ),
    (
        "an object whose blob has another size",
        "SELECT o.key FROM objects o JOIN blobs b ON b.blob_id = o.blob_id
         WHERE b.plain_size <> o.size",
    ),
    (
        "extents that do not add up to the size of their object",
        "SELECT o.key FROM objects o WHERE o.blob_id IS NULL AND o.size <> (
             SELECT coalesce(sum(e.length), 0) FROM object_extents e
             WHERE e.version_id = o.version_id)",
    ),
    (
        "an extent that ends behind its blob",
        "SELECT e.version_id || ' extent ' || e.n
         FROM object_extents e JOIN blobs b ON b.blob_id = e.blob_id
         WHERE e.blob_offset + e.length > b.plain_size",
    ),
    (
        "an extent, a part or metadata without a version",
        "SELECT v.version_id::text FROM (SELECT version_id FROM object_extents
             UNION SELECT version_id FROM object_parts UNION SELECT version_id FROM object_meta) v
         WHERE NOT EXISTS (SELECT 1 FROM objects o WHERE o.version_id = v.version_id)",
    ),
    (
        "a location without a blob, or of another size than it",
        "SELECT l.copy_id::text FROM object_locations l LEFT JOIN blobs b ON b.blob_id = l.blob_id
         WHERE b.blob_id IS NULL OR b.stored_size <> l.stored_bytes",
    ),
    (
        "a bucket whose counters differ from its objects",
        "SELECT b.name || ': counted ' || coalesce(s.objects, 0) || ' objects with '
             || coalesce(s.bytes, 0) || ' bytes'
         FROM buckets b LEFT JOIN (SELECT bucket_id, sum(objects) AS objects, sum(bytes) AS bytes
             FROM bucket_slots GROUP BY bucket_id) s ON s.bucket_id = b.bucket_id
         LEFT JOIN (SELECT bucket_id, count(*) AS objects, sum(size) AS bytes
             FROM objects GROUP BY bucket_id) o ON o.bucket_id = b.bucket_id
         WHERE coalesce(s.objects, 0) <> coalesce(o.objects, 0)
             OR coalesce(s.bytes, 0) <> coalesce(o.bytes, 0)",
    ),
    (
        "a copy id in two tables",
        "SELECT copy_id::text FROM (SELECT copy_id FROM object_locations
             UNION ALL SELECT copy_id FROM cleanup_queue UNION ALL SELECT copy_id FROM cleanup_dlq
             UNION ALL SELECT copy_id FROM multipart_legs
             UNION ALL SELECT copy_id FROM write_intents) c
         GROUP BY copy_id HAVING count(*) > 1",
    ),
    (
        "an object behind the high-water mark, or two with one place in the order",
        "SELECT key FROM objects WHERE seq > (SELECT last_value FROM objects_seq)
         UNION ALL SELECT 'seq ' || seq FROM objects GROUP BY seq HAVING count(*) > 1",
    ),
    (
        "a leg without an upload, or of one that has ended",
        "SELECT l.copy_id::text FROM multipart_legs l
         LEFT JOIN multipart_uploads u ON u.upload_id = l.upload_id
         WHERE u.upload_id IS NULL OR u.ended IS NOT NULL",
    ),
    (
        "a part whose bytes nobody holds",
        "SELECT p.upload_id || ' part ' || p.number FROM multipart_parts p
         LEFT JOIN multipart_uploads u ON u.upload_id = p.upload_id
         WHERE u.upload_id IS NULL OR (u.ended IS NULL AND NOT EXISTS (
             SELECT 1 FROM multipart_part_copies c WHERE c.upload_id = p.upload_id
                 AND c.number = p.number AND c.attempt = p.attempt AND c.reserved >= p.size))",
    ),
    (
        "a part copy or claim without its leg",
        "SELECT c.copy_id::text FROM (
             SELECT upload_id, copy_id, backend_id FROM multipart_part_copies
             UNION SELECT upload_id, copy_id, backend_id FROM multipart_claims) c
         LEFT JOIN multipart_uploads u ON u.upload_id = c.upload_id
         LEFT JOIN multipart_legs l ON l.copy_id = c.copy_id
         WHERE u.upload_id IS NULL
             OR (u.ended IS NULL AND (l.copy_id IS NULL OR l.backend_id <> c.backend_id))",
    ),
    (
        "intents that the room of their instance does not cover",
        "SELECT 'instance ' || i.instance || ', backend ' || i.backend_id || ': ' || i.bytes
             || ' bytes, leased ' || coalesce(s.room_left, 0)
         FROM (SELECT instance, backend_id, sum(reserved) AS bytes FROM write_intents
             GROUP BY instance, backend_id) i
         LEFT JOIN backend_slots s ON s.instance = i.instance AND s.backend_id = i.backend_id
         WHERE i.bytes > coalesce(s.room_left, 0)",
    ),
];

/// Verifies one snapshot, and the registry of this instance's intents against its rows.
pub(super) async fn verify(pool: &Pool, live: &Live, this: i32) -> Result<Verification, Fault> {
    let resting = live.unsettled_intents();
    let mut session = pool.session().await?;
    let tx = session
        .client()
        .build_transaction()
        .isolation_level(IsolationLevel::RepeatableRead)
        .read_only(true)
        .start()
        .await?;
    // The first statement takes the snapshot; what is in memory is looked at afterwards, so an
    // intent that both know must be one that a job is settling right now.
    let mut backends = sums(&tx).await?;
    let intents = live.intent_sums();
    for backend in &mut backends {
        let IntentSums {
            counted,
            summed,
            admitted,
        } = intents.get(&backend.backend).copied().unwrap_or_default();
        backend.reserved.0 += counted;
        backend.reserved.1 += summed;
        backend.admitted = admitted;
    }
    let mut contradictions = Vec::new();
    for (what, sql) in CHECKS {
        contradictions.extend(found(&tx, what, sql).await?);
    }
    contradictions.extend(intents_without_rows(&tx, live, this, &resting).await?);
    tx.commit().await?;
    Ok(Verification {
        backends,
        contradictions,
    })
}

async fn sums(tx: &Transaction<'_>) -> Result<Vec<BackendSums>, Fault> {
    let rows = tx
        .query_typed(
            "SELECT b.backend_id, b.name, coalesce(s.used, 0)::bigint, coalesce(l.bytes, 0)::bigint,
                 coalesce(s.orphan, 0)::bigint, coalesce(q.bytes, 0)::bigint,
                 coalesce(s.parts, 0)::bigint, coalesce(p.bytes, 0)::bigint,
                 coalesce(l.locations, 0)
             FROM backends b
             LEFT JOIN (SELECT backend_id, sum(used) AS used, sum(orphan) AS orphan,
                     sum(reserved_parts) AS parts
                 FROM backend_slots GROUP BY backend_id) s ON s.backend_id = b.backend_id
             LEFT JOIN (SELECT backend_id, sum(stored_bytes) AS bytes, count(*) AS locations
                 FROM object_locations GROUP BY backend_id) l ON l.backend_id = b.backend_id
             LEFT JOIN (SELECT backend_id, sum(size) AS bytes FROM (
                     SELECT backend_id, size FROM cleanup_queue
                     UNION ALL SELECT backend_id, size FROM cleanup_dlq) c
                 GROUP BY backend_id) q ON q.backend_id = b.backend_id
             LEFT JOIN (SELECT backend_id, sum(reserved) AS bytes FROM (
                     SELECT c.backend_id, c.reserved FROM multipart_part_copies c
                         JOIN multipart_uploads u ON u.upload_id = c.upload_id WHERE u.ended IS NULL
                     UNION ALL SELECT c.backend_id, c.reserved FROM multipart_claims c
                         JOIN multipart_uploads u ON u.upload_id = c.upload_id
                         WHERE u.ended IS NULL) r
                 GROUP BY backend_id) p ON p.backend_id = b.backend_id
             ORDER BY b.backend_id",
            &[],
        )
        .await?;
    rows.iter()
        .map(|row| {
            Ok(BackendSums {
                backend: BackendId(row.int(0)?),
                name: backend_name(&row.text(1)?)?,
                used: (uint(row, 2)?, uint(row, 3)?),
                orphan: (uint(row, 4)?, uint(row, 5)?),
                reserved: (uint(row, 6)?, uint(row, 7)?),
                admitted: 0,
                locations: uint(row, 8)?,
            })
        })
        .collect()
}

async fn found(tx: &Transaction<'_>, what: &str, sql: &str) -> Result<Vec<String>, Fault> {
    let rows = tx.query_typed(sql, &[]).await?;
    let mut examples = rows
        .iter()
        .take(EXAMPLES_MAX)
        .map(|row| Ok(format!("{what}: {}", row.text(0)?)))
        .collect::<Result<Vec<_>, Fault>>()?;
    if rows.len() > examples.len() {
        examples.push(format!("{what}: {} more", rows.len() - examples.len()));
    }
    Ok(examples)
}

/// Open intents of this instance that are not in rows, so that a restart would forget their bytes.
async fn intents_without_rows(
    tx: &Transaction<'_>,
    live: &Live,
    this: i32,
    resting: &[CopyId],
) -> Result<Vec<String>, Fault> {
    let rows = tx
        .query_typed(
            "SELECT copy_id FROM write_intents WHERE instance = $1",
            &[(&this, Type::INT4)],
        )
        .await?;
    let durable = rows
        .iter()
        .map(|row| copy_id(row, 0))
        .collect::<Result<std::collections::HashSet<_>, Fault>>()?;
    // They were open before the snapshot; one that is still open now was so at the snapshot too.
    let still: std::collections::HashSet<CopyId> = live.unsettled_intents().into_iter().collect();
    Ok(resting
        .iter()
        .filter(|copy| !durable.contains(copy) && still.contains(copy))
        .map(|copy| format!("an intent that is not durable: {copy}"))
        .collect())
}
