//! Buckets, backends, operators' decisions, the recovery state.

use base::{BackendName, BucketName};
use rusqlite::{Connection, OptionalExtension, params};

use crate::fault::Fault;
use crate::job::Answer;
use crate::live::Live;
use crate::model::{
    BackendId, BackendRow, BackendState, Bucket, BucketCreation, BucketId, BucketOwner,
    BucketRemoval, Ground, RecoveryChange,
};
use crate::rows;
use crate::sqlite::INSTANCE;
use crate::sqlite::apply::Work;
use crate::values::int;

pub(super) fn change_recovery(
    work: &mut Work<'_>,
    change: &RecoveryChange,
) -> Result<Answer, Fault> {
    match change {
        RecoveryChange::Enter(reason, ground) => work
            .conn
            .prepare_cached(
                "UPDATE catalogue SET
                     recovery = CASE WHEN ?2 > restored THEN ?1 ELSE coalesce(recovery, ?1) END,
                     restored = max(restored, ?2)",
            )?
            .execute(params![reason, *ground == Ground::Restored])?,
        RecoveryChange::Leave => work
            .conn
            .prepare_cached("UPDATE catalogue SET recovery = NULL, restored = 0")?
            .execute([])?,
    };
    work.effects.recovery = Some(change.clone());
    Ok(Answer::Done)
}

/// The configuration's buckets: made where they are missing, taken over where a client made them.
pub(super) fn ensure_buckets(work: &Work<'_>, names: &[BucketName]) -> Result<Vec<Bucket>, Fault> {
    let mut buckets = Vec::with_capacity(names.len());
    for name in names {
        work.conn
            .prepare_cached(
                "INSERT INTO buckets (name, state, owner, created)
                 VALUES (?1, 'active', 'config', ?2)
                 ON CONFLICT (name) DO UPDATE SET owner = 'config'",
            )?
            .execute(params![name.as_str(), work.now.millis()])?;
        let bucket = bucket_named(work.conn, name)?;
        count_from_zero(work, bucket.id)?;
        buckets.push(bucket);
    }
    Ok(buckets)
}

/// A client's bucket.
pub(super) fn create_bucket(work: &Work<'_>, name: &BucketName) -> Result<BucketCreation, Fault> {
    let inserted = work
        .conn
        .prepare_cached(
            "INSERT INTO buckets (name, state, owner, created)
             VALUES (?1, 'active', 'catalogue', ?2) ON CONFLICT (name) DO NOTHING",
        )?
        .execute(params![name.as_str(), work.now.millis()])?;
    let bucket = bucket_named(work.conn, name)?;
    if inserted == 0 {
        return Ok(BucketCreation::Exists(bucket));
    }
    count_from_zero(work, bucket.id)?;
    Ok(BucketCreation::Created(bucket))
}

/// Removes a client's bucket that holds nothing. Writes that are under way find it gone.
pub(super) fn remove_bucket(work: &Work<'_>, bucket: BucketId) -> Result<BucketRemoval, Fault> {
    let owner: Option<String> = work
        .conn
        .prepare_cached("SELECT owner FROM buckets WHERE bucket_id = ?1")?
        .query_row([bucket.0], |row| row.get(0))
        .optional()?;
    match owner.as_deref().map(rows::bucket_owner).transpose()? {
        None => return Ok(BucketRemoval::Absent),
        Some(BucketOwner::Config) => return Ok(BucketRemoval::NotOurs),
        Some(BucketOwner::Catalogue) => {}
    }
    let occupied: bool = work
        .conn
        .prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM objects WHERE bucket_id = ?1)
                 OR EXISTS (SELECT 1 FROM multipart_uploads
                            WHERE bucket_id = ?1 AND ended IS NULL)",
        )?
        .query_row([bucket.0], |row| row.get(0))?;
    if occupied {
        return Ok(BucketRemoval::NotEmpty);
    }
    for statement in [
        "DELETE FROM bucket_slots WHERE bucket_id = ?1",
        "DELETE FROM buckets WHERE bucket_id = ?1",
    ] {
        work.conn.prepare_cached(statement)?.execute([bucket.0])?;
    }
    Ok(BucketRemoval::Gone)
}

const BUCKET: &str = "SELECT bucket_id, name, created, owner FROM buckets";

/// The buckets that clients made, by name.
pub(super) fn client_buckets(conn: &Connection) -> Result<Vec<Bucket>, Fault> {
    let sql = format!("{BUCKET} WHERE owner = 'catalogue' ORDER BY name");
    let mut statement = conn.prepare_cached(&sql)?;
    let mut found = statement.query([])?;
    let mut buckets = Vec::new();
    while let Some(row) = found.next()? {
        buckets.push(rows::bucket(row)?);
    }
    Ok(buckets)
}

fn bucket_named(conn: &Connection, name: &BucketName) -> Result<Bucket, Fault> {
    let mut statement = conn.prepare_cached(&format!("{BUCKET} WHERE name = ?1"))?;
    let mut found = statement.query([name.as_str()])?;
    rows::bucket(found.next()?.ok_or(rusqlite::Error::QueryReturnedNoRows)?)
}

pub(super) fn bucket_exists(conn: &Connection, bucket: BucketId) -> Result<bool, Fault> {
    let mut statement = conn.prepare_cached("SELECT 1 FROM buckets WHERE bucket_id = ?1")?;
    Ok(statement.exists([bucket.0])?)
}

/// The counters of a bucket, if it has none yet.
fn count_from_zero(work: &Work<'_>, bucket: BucketId) -> Result<(), Fault> {
    work.conn
        .prepare_cached("INSERT OR IGNORE INTO bucket_slots (bucket_id, instance) VALUES (?1, ?2)")?
        .execute([bucket.0, INSTANCE])?;
    Ok(())
}

pub(super) fn ensure_backends(
    work: &mut Work<'_>,
    names: &[BackendName],
) -> Result<Vec<BackendRow>, Fault> {
    for name in names {
        let inserted = work
            .conn
            .prepare_cached(
                "INSERT INTO backends (name, state) VALUES (?1, 'active')
                 ON CONFLICT (name) DO NOTHING",
            )?
            .execute([name.as_str()])?;
        if inserted == 1 {
            let backend = work.conn.last_insert_rowid();
            work.conn
                .prepare_cached("INSERT INTO backend_slots (backend_id, instance) VALUES (?1, ?2)")?
                .execute([backend, INSTANCE])?;
            work.effects.accepting.push((BackendId(backend), true));
        }
    }
    let all = backends(work.conn, work.live)?;
    let row = |name: &BackendName| all.iter().find(|row| row.name == *name).cloned();
    let found: Option<Vec<BackendRow>> = names.iter().map(row).collect();
    found.ok_or_else(|| Fault::damaged("a backend that was just recorded is not there"))
}

/// All backends with the number of rows that name them.
pub(super) fn backends(conn: &Connection, live: &Live) -> Result<Vec<BackendRow>, Fault> {
    let mut statement = conn.prepare_cached(
        "SELECT b.backend_id, b.name, b.state, b.mark, b.capabilities,
             (SELECT sum(locations) FROM backend_slots s WHERE s.backend_id = b.backend_id)
             + (SELECT count(*) FROM cleanup_queue q WHERE q.backend_id = b.backend_id)
             + (SELECT count(*) FROM cleanup_dlq d WHERE d.backend_id = b.backend_id)
             + (SELECT count(*) FROM multipart_legs l WHERE l.backend_id = b.backend_id)
             + (SELECT count(*) FROM multipart_part_copies p JOIN multipart_uploads u USING (upload_id)
                WHERE p.backend_id = b.backend_id AND u.ended IS NULL)
             + (SELECT count(*) FROM multipart_claims c JOIN multipart_uploads u USING (upload_id)
                WHERE c.backend_id = b.backend_id AND u.ended IS NULL)
             + (SELECT count(*) FROM write_intents i WHERE i.backend_id = b.backend_id)
         FROM backends b ORDER BY b.backend_id",
    )?;
    let mut found = statement.query([])?;
    let mut backends = Vec::new();
    while let Some(row) = found.next()? {
        let mut backend = rows::backend(row)?;
        backend.rows += live.intents_on(backend.id);
        backends.push(backend);
    }
    Ok(backends)
}

pub(super) fn save_capabilities(
    work: &Work<'_>,
    backend: BackendId,
    found: &str,
) -> Result<Answer, Fault> {
    let changed = work
        .conn
        .prepare_cached("UPDATE backends SET capabilities = ?2 WHERE backend_id = ?1")?
        .execute(params![backend.0, found])?;
    known(changed, backend)
}

pub(super) fn set_state(
    work: &mut Work<'_>,
    backend: BackendId,
    state: BackendState,
) -> Result<Answer, Fault> {
    let accepting = state == BackendState::Active;
    let changed = work
        .conn
        .prepare_cached("UPDATE backends SET state = ?2, epoch = epoch + 1 WHERE backend_id = ?1")?
        .execute(params![backend.0, rows::backend_state_text(state)])?;
    work.conn
        .prepare_cached("UPDATE backend_slots SET accepting = ?2 WHERE backend_id = ?1")?
        .execute(params![backend.0, accepting])?;
    work.effects.accepting.push((backend, accepting));
    known(changed, backend)
}

pub(super) fn advance_mark(work: &Work<'_>, backend: BackendId, past: u64) -> Result<u64, Fault> {
    let mark: Option<i64> = work
        .conn
        .prepare_cached(
            "UPDATE backends SET mark = max(mark, ?2) + 1 WHERE backend_id = ?1 RETURNING mark",
        )?
        .query_row(params![backend.0, past.cast_signed()], |row| row.get(0))
        .optional()?;
    mark.map(i64::cast_unsigned).ok_or_else(|| unknown(backend))
}

/// Moves the counters of a bucket; `false`, and nothing changed, where it was removed.
pub(super) fn count_objects(
    work: &Work<'_>,
    bucket: BucketId,
    objects: i64,
    (more, less): (u64, u64),
) -> Result<bool, Fault> {
    let changed = work
        .conn
        .prepare_cached(
            "UPDATE bucket_slots SET objects = objects + ?3, bytes = bytes + ?4 - ?5
             WHERE bucket_id = ?1 AND instance = ?2",
        )?
        .execute(params![bucket.0, INSTANCE, objects, int(more)?, int(less)?])?;
    match changed {
        1 => Ok(true),
        _ if !bucket_exists(work.conn, bucket)? => Ok(false),
        _ => Err(Fault::damaged(format!(
            "bucket {} has no counters",
            bucket.0
        ))),
    }
}

fn known(changed: usize, backend: BackendId) -> Result<Answer, Fault> {
    match changed {
        1 => Ok(Answer::Done),
        _ => Err(unknown(backend)),
    }
}

fn unknown(backend: BackendId) -> Fault {
    Fault::damaged(format!("there is no backend {}", backend.0))
}
