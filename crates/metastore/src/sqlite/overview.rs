//! What an operator looks at: reads that change nothing and need no claim.

use rusqlite::{Connection, Row, params};

use crate::live::Live;
use crate::model::{BackendId, BackendTotals, CleanupPage, InstanceRow, QueuedCleanup};
use crate::sqlite::Fault;
use crate::sqlite::values::{INSTANCE, backend_key, time, uint};
use crate::sqlite::{cleanup, names, read};

/// All backends that the catalogue knows, by id.
pub(crate) fn backend_totals(conn: &Connection) -> Result<Vec<BackendTotals>, Fault> {
    let mut statement = conn.prepare_cached(
        "SELECT b.backend_id, b.state,
             (SELECT coalesce(sum(locations), 0) FROM backend_slots s
              WHERE s.backend_id = b.backend_id)
         FROM backends b ORDER BY b.backend_id",
    )?;
    let mut rows = statement.query([])?;
    let mut totals = Vec::new();
    while let Some(row) = rows.next()? {
        let state: String = row.get(1)?;
        totals.push(BackendTotals {
            id: BackendId(row.get(0)?),
            state: names::parse_state(&state)?,
            locations: uint(row, 2)?,
        });
    }
    Ok(totals)
}

/// The head of the cleanup queue.
pub(crate) fn cleanup_page(conn: &Connection, live: &Live, max: u32) -> Result<CleanupPage, Fault> {
    let mut statement = conn.prepare_cached(
        "SELECT q.id, (SELECT name FROM backends b WHERE b.backend_id = q.backend_id),
             q.backend_key, q.reason, q.size, q.attempts, q.created, q.not_before, q.last_error
         FROM cleanup_queue q ORDER BY q.not_before, q.id LIMIT ?1",
    )?;
    let mut rows = statement.query(params![max])?;
    let mut items = Vec::new();
    while let Some(row) = rows.next()? {
        items.push(queued(row)?);
    }
    Ok(CleanupPage {
        depth: read::depth(conn, live)?,
        items,
    })
}

fn queued(row: &Row<'_>) -> Result<QueuedCleanup, Fault> {
    let (backend, reason): (String, String) = (row.get(1)?, row.get(3)?);
    Ok(QueuedCleanup {
        id: row.get(0)?,
        backend: names::backend_name(&backend)?,
        key: backend_key(row, 2)?,
        reason: cleanup::parse_reason(&reason)?,
        bytes: uint(row, 4)?,
        attempts: row.get(5)?,
        created: time(row, 6)?,
        not_before: time(row, 7)?,
        last_error: row.get(8)?,
    })
}

/// All instances, by number.
pub(crate) fn instances(conn: &Connection) -> Result<Vec<InstanceRow>, Fault> {
    let mut statement =
        conn.prepare_cached("SELECT instance, epoch, heartbeat FROM instances ORDER BY instance")?;
    let mut rows = statement.query([])?;
    let mut instances = Vec::new();
    while let Some(row) = rows.next()? {
        let id = row.get(0)?;
        instances.push(InstanceRow {
            id,
            epoch: uint(row, 1)?,
            heartbeat: time(row, 2)?,
            this: id == INSTANCE,
        });
    }
    Ok(instances)
}
