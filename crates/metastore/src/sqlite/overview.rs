//! What an operator looks at: reads that change nothing and need no claim.

use rusqlite::{Connection, params};

use crate::fault::Fault;
use crate::live::Live;
use crate::model::{BackendTotals, CleanupPage, InstanceRow};
use crate::rows;
use crate::sqlite::INSTANCE;
use crate::sqlite::read;

/// All backends that the catalogue knows, by id.
pub(crate) fn backend_totals(conn: &Connection) -> Result<Vec<BackendTotals>, Fault> {
    let mut statement = conn.prepare_cached(
        "SELECT b.backend_id, b.state,
             (SELECT coalesce(sum(locations), 0) FROM backend_slots s
              WHERE s.backend_id = b.backend_id)
         FROM backends b ORDER BY b.backend_id",
    )?;
    let mut found = statement.query([])?;
    let mut totals = Vec::new();
    while let Some(row) = found.next()? {
        totals.push(rows::backend_totals(row)?);
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
    let mut found = statement.query(params![max])?;
    let mut items = Vec::new();
    while let Some(row) = found.next()? {
        items.push(rows::queued(row)?);
    }
    Ok(CleanupPage {
        depth: read::depth(conn, live)?,
        items,
    })
}

/// All instances, by number.
pub(crate) fn instances(conn: &Connection) -> Result<Vec<InstanceRow>, Fault> {
    let mut statement =
        conn.prepare_cached("SELECT instance, epoch, heartbeat FROM instances ORDER BY instance")?;
    let mut found = statement.query([])?;
    let mut instances = Vec::new();
    while let Some(row) = found.next()? {
        instances.push(rows::instance(row, Some(INSTANCE))?);
    }
    Ok(instances)
}
