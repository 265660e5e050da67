//! Usage by backend and month.

use base::{Month, Traffic};
use rusqlite::{Connection, params};

use crate::fault::Fault;
use crate::job::Answer;
use crate::model::{BackendId, UsageRow};
use crate::sqlite::apply::Work;
use crate::values::{int, uint};

pub(super) fn add(work: &mut Work<'_>, rows: &[UsageRow]) -> Result<Answer, Fault> {
    let mut upsert = work.conn.prepare_cached(
        "INSERT INTO backend_usage (backend_id, month, api_requests, egress_bytes, ingress_bytes)
         VALUES (?1, ?2, ?3, ?4, ?5)
         ON CONFLICT (backend_id, month) DO UPDATE SET
             api_requests = api_requests + excluded.api_requests,
             egress_bytes = egress_bytes + excluded.egress_bytes,
             ingress_bytes = ingress_bytes + excluded.ingress_bytes",
    )?;
    for row in rows {
        upsert.execute(params![
            row.backend.0,
            row.month.to_string(),
            int(row.traffic.requests)?,
            int(row.traffic.egress)?,
            int(row.traffic.ingress)?,
        ])?;
    }
    work.effects.counted = true;
    Ok(Answer::Done)
}

pub(crate) fn of_month(conn: &Connection, month: Month) -> Result<Vec<UsageRow>, Fault> {
    let mut statement = conn.prepare_cached(
        "SELECT backend_id, api_requests, egress_bytes, ingress_bytes FROM backend_usage
         WHERE month = ?1 ORDER BY backend_id",
    )?;
    let mut rows = statement.query([month.to_string()])?;
    let mut usage = Vec::new();
    while let Some(row) = rows.next()? {
        usage.push(UsageRow {
            backend: BackendId(row.get(0)?),
            month,
            traffic: Traffic {
                requests: uint(row, 1)?,
                egress: uint(row, 2)?,
                ingress: uint(row, 3)?,
            },
        });
    }
    Ok(usage)
}
