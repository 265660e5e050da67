//! Compares every counter with the rows that it counts, and rows with each other, in one snapshot.

use base::CopyId;
use rusqlite::{Connection, Row, Transaction};

use crate::fault::Fault;
use crate::live::{IntentSums, Live};
use crate::model::{BackendId, BackendSums, Verification};
use crate::rows::backend_name;
use crate::values::{copy_id, uint};

/// Contradictions that are spelt out per kind; more are only counted.
const EXAMPLES_MAX: usize = 20;

/// A kind of contradiction: what it is, and the statement that finds the rows. The first column of
/// each row says which one, as text.
const CHECKS: [(&str, &str); 17] = [
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
        "SELECT hex(b.blob_id) FROM blobs b WHERE NOT EXISTS (
             SELECT 1 FROM objects o WHERE o.bucket_id = b.bucket_id AND o.key = b.key
                 AND (o.blob_id = b.blob_id OR EXISTS (SELECT 1 FROM object_extents e
                     WHERE e.version_id = o.version_id AND e.blob_id = b.blob_id)))",
    ),
    (
        "an object whose blob is missing or belongs to another key",
        "SELECT hex(o.key) FROM objects o LEFT JOIN blobs b ON b.blob_id = o.blob_id
         WHERE o.blob_id IS NOT NULL
             AND (b.blob_id IS NULL OR b.bucket_id <> o.bucket_id OR b.key <> o.key)",
    ),
    (
        "an object without a good copy",
        "SELECT hex(o.key) FROM objects o WHERE o.blob_id IS NOT NULL AND NOT EXISTS (
             SELECT 1 FROM object_locations l WHERE l.blob_id = o.blob_id AND l.state = 'good')",
    ),
    (
        "an extent whose blob is missing or belongs to another key",
        "SELECT hex(o.key) || ' extent ' || e.n
         FROM objects o JOIN object_extents e ON e.version_id = o.version_id
             LEFT JOIN blobs b ON b.blob_id = e.blob_id
         WHERE b.blob_id IS NULL OR b.bucket_id <> o.bucket_id OR b.key <> o.key",
    ),
    (
        "an extent without a good copy",
        "SELECT hex(o.key) || ' extent ' || e.n
         FROM objects o JOIN object_extents e ON e.version_id = o.version_id
         WHERE NOT EXISTS (
             SELECT 1 FROM object_locations l WHERE l.blob_id = e.blob_id AND l.state = 'good')",
    ),
    (
        "an object whose blob has another size",
        "SELECT hex(o.key) FROM objects o JOIN blobs b ON b.blob_id = o.blob_id
         WHERE b.plain_size <> o.size",
    ),
    (
        "extents that do not add up to the size of their object",
        "SELECT hex(o.key) FROM objects o WHERE o.blob_id IS NULL AND o.size <> (
             SELECT coalesce(sum(e.length), 0) FROM object_extents e
             WHERE e.version_id = o.version_id)",
    ),
    (
        "an extent that ends behind its blob",
        "SELECT hex(e.version_id) || ' extent ' || e.n
         FROM object_extents e JOIN blobs b ON b.blob_id = e.blob_id
         WHERE e.blob_offset + e.length > b.plain_size",
    ),
    (
        "an extent, a part or metadata without a version",
        "SELECT hex(version_id) FROM (SELECT version_id FROM object_extents
             UNION SELECT version_id FROM object_parts UNION SELECT version_id FROM object_meta)
         EXCEPT SELECT hex(version_id) FROM objects",
    ),
    (
        "a location without a blob, or of another size than it",
        "SELECT hex(l.copy_id) FROM object_locations l LEFT JOIN blobs b ON b.blob_id = l.blob_id
         WHERE b.blob_id IS NULL OR b.stored_size <> l.stored_bytes",
    ),
    (
        "a bucket whose counters differ from its objects",
        "SELECT b.name || ': counted ' || s.objects || ' objects with ' || s.bytes || ' bytes'
         FROM buckets b JOIN (SELECT bucket_id, sum(objects) AS objects, sum(bytes) AS bytes
             FROM bucket_slots GROUP BY bucket_id) s ON s.bucket_id = b.bucket_id
         LEFT JOIN (SELECT bucket_id, count(*) AS objects, sum(size) AS bytes
             FROM objects GROUP BY bucket_id) o ON o.bucket_id = b.bucket_id
         WHERE s.objects <> coalesce(o.objects, 0) OR s.bytes <> coalesce(o.bytes, 0)",
    ),
    (
        "a copy id in two tables",
        "SELECT hex(copy_id) FROM (SELECT copy_id FROM object_locations
             UNION ALL SELECT copy_id FROM cleanup_queue UNION ALL SELECT copy_id FROM cleanup_dlq
             UNION ALL SELECT copy_id FROM multipart_legs
             UNION ALL SELECT copy_id FROM write_intents)
         GROUP BY copy_id HAVING count(*) > 1",
    ),
    (
        "an object behind the high-water mark, or two with one place in the order",
        "SELECT hex(key) FROM objects WHERE seq > (SELECT seq FROM catalogue)
         UNION ALL SELECT 'seq ' || seq FROM objects GROUP BY seq HAVING count(*) > 1",
    ),
    (
        "a leg without an upload, or of one that has ended",
        "SELECT hex(l.copy_id) FROM multipart_legs l
         LEFT JOIN multipart_uploads u ON u.upload_id = l.upload_id
         WHERE u.upload_id IS NULL OR u.ended IS NOT NULL",
    ),
    (
        "a part whose bytes nobody holds",
        "SELECT hex(p.upload_id) || ' part ' || p.number FROM multipart_parts p
         LEFT JOIN multipart_uploads u ON u.upload_id = p.upload_id
         WHERE u.upload_id IS NULL OR (u.ended IS NULL AND NOT EXISTS (
             SELECT 1 FROM multipart_part_copies c WHERE c.upload_id = p.upload_id
                 AND c.number = p.number AND c.attempt = p.attempt AND c.reserved >= p.size))",
    ),
    (
        "a part copy or claim without its leg",
        "SELECT hex(c.copy_id) FROM (
             SELECT upload_id, copy_id, backend_id FROM multipart_part_copies
             UNION SELECT upload_id, copy_id, backend_id FROM multipart_claims) c
         LEFT JOIN multipart_uploads u ON u.upload_id = c.upload_id
         LEFT JOIN multipart_legs l ON l.copy_id = c.copy_id
         WHERE u.upload_id IS NULL
             OR (u.ended IS NULL AND (l.copy_id IS NULL OR l.backend_id <> c.backend_id))",
    ),
];

/// Verifies the snapshot of this transaction, and the registry of intents against their file.
pub(crate) fn verify(
    tx: &Transaction<'_>,
    live: &Live,
    intent_file: Option<&Connection>,
) -> Result<Verification, Fault> {
    // The first statement takes the snapshot; what is in memory is looked at afterwards, so an
    // intent that both know must be one that a job is settling right now.
    let mut backends = sums(tx)?;
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
    let resting = live.unsettled_intents();
    let mut contradictions = Vec::new();
    for (what, sql) in CHECKS {
        contradictions.extend(found(tx, what, sql)?);
    }
    contradictions.extend(intents_with_rows(tx, &resting)?);
    if let Some(file) = intent_file {
        contradictions.extend(intents_without_rows(file, live, &resting)?);
    }
    Ok(Verification {
        backends,
        contradictions,
    })
}

fn sums(conn: &Connection) -> Result<Vec<BackendSums>, Fault> {
    let mut statement = conn.prepare_cached(
        "SELECT b.backend_id, b.name, coalesce(s.used, 0), coalesce(l.bytes, 0),
             coalesce(s.orphan, 0), coalesce(q.bytes, 0), coalesce(s.parts, 0), coalesce(p.bytes, 0),
             coalesce(l.locations, 0)
         FROM backends b
         LEFT JOIN (SELECT backend_id, sum(used) AS used, sum(orphan) AS orphan,
                 sum(reserved_parts) AS parts
             FROM backend_slots GROUP BY backend_id) s ON s.backend_id = b.backend_id
         LEFT JOIN (SELECT backend_id, sum(stored_bytes) AS bytes, count(*) AS locations
             FROM object_locations GROUP BY backend_id) l ON l.backend_id = b.backend_id
         LEFT JOIN (SELECT backend_id, sum(size) AS bytes FROM (
                 SELECT backend_id, size FROM cleanup_queue
                 UNION ALL SELECT backend_id, size FROM cleanup_dlq)
             GROUP BY backend_id) q ON q.backend_id = b.backend_id
         LEFT JOIN (SELECT backend_id, sum(reserved) AS bytes FROM (
                 SELECT c.backend_id, c.reserved FROM multipart_part_copies c
                     JOIN multipart_uploads u ON u.upload_id = c.upload_id WHERE u.ended IS NULL
                 UNION ALL SELECT c.backend_id, c.reserved FROM multipart_claims c
                     JOIN multipart_uploads u ON u.upload_id = c.upload_id WHERE u.ended IS NULL
                 UNION ALL SELECT backend_id, reserved FROM write_intents)
             GROUP BY backend_id) p ON p.backend_id = b.backend_id
         ORDER BY b.backend_id",
    )?;
    let mut rows = statement.query([])?;
    let mut sums = Vec::new();
    while let Some(row) = rows.next()? {
        sums.push(sum(row)?);
    }
    Ok(sums)
}

fn sum(row: &Row<'_>) -> Result<BackendSums, Fault> {
    let name: String = row.get(1)?;
    Ok(BackendSums {
        backend: BackendId(row.get(0)?),
        name: backend_name(&name)?,
        used: (uint(row, 2)?, uint(row, 3)?),
        orphan: (uint(row, 4)?, uint(row, 5)?),
        reserved: (uint(row, 6)?, uint(row, 7)?),
        admitted: 0,
        locations: uint(row, 8)?,
    })
}

fn found(conn: &Connection, what: &str, sql: &str) -> Result<Vec<String>, Fault> {
    let mut statement = conn.prepare_cached(sql)?;
    let mut rows = statement.query([])?;
    let (mut examples, mut count) = (Vec::new(), 0_u64);
    while let Some(row) = rows.next()? {
        count += 1;
        if examples.len() < EXAMPLES_MAX {
            examples.push(format!("{what}: {}", row.get::<_, String>(0)?));
        }
    }
    let shown = u64::try_from(examples.len()).expect("a count fits into 64 bits");
    if count > shown {
        examples.push(format!("{what}: {} more", count - shown));
    }
    Ok(examples)
}

/// Open intents whose copy has a row already.
fn intents_with_rows(conn: &Connection, intents: &[CopyId]) -> Result<Vec<String>, Fault> {
    let mut statement = conn.prepare_cached(
        "SELECT copy_id FROM object_locations WHERE copy_id = ?1
         UNION ALL SELECT copy_id FROM cleanup_queue WHERE copy_id = ?1
         UNION ALL SELECT copy_id FROM cleanup_dlq WHERE copy_id = ?1",
    )?;
    let mut contradictions = Vec::new();
    for copy in intents {
        let mut rows = statement.query([copy.to_bytes()])?;
        if let Some(row) = rows.next()? {
            contradictions.push(format!(
                "a copy id in two tables: intent {}",
                copy_id(row, 0)?
            ));
        }
    }
    Ok(contradictions)
}

/// Open intents that are not in their file, so that a restart would forget their bytes.
fn intents_without_rows(
    file: &Connection,
    live: &Live,
    intents: &[CopyId],
) -> Result<Vec<String>, Fault> {
    let mut statement = file.prepare_cached("SELECT 1 FROM write_intents WHERE copy_id = ?1")?;
    let mut contradictions = Vec::new();
    for copy in intents {
        // A row goes only after its intent was settled: one that is still open must have it.
        if !statement.exists([copy.to_bytes()])? && live.knows(*copy) {
            contradictions.push(format!("an intent that is not durable: {copy}"));
        }
    }
    Ok(contradictions)
}
