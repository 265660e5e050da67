//! Opening the catalogue: whose the database is, which version, what has to be migrated, and which
//! instance we are.
//!
//! Several instances may start together: everything that writes here happens under one lock.

use std::path::PathBuf;
use std::sync::Arc;

use base::{Clock, Ids, LabelKey};
use tokio_postgres::Row;
use tokio_postgres::types::Type;
use uuid::Uuid;

use crate::fault::Fault;
use crate::ledger::{Counters, Ledger};
use crate::live::IntentRow;
use crate::model::{BackendId, Catalogue};
use crate::postgres::Server;
use crate::postgres::connect::{Connector, Params, Session};
use crate::values::{Cells, backend_key, blob_id, copy_id, uint};
use crate::{Error, Result};

/// Each version as the scripts that make it of the one before.
const MIGRATIONS: [&[&str]; 1] = [&[
    include_str!("../../migrations/postgres/0001_init.sql"),
    include_str!("../../migrations/postgres/0001_batches.sql"),
    include_str!("../../migrations/postgres/0001_lookups.sql"),
]];
/// The schema version of this program.
pub(crate) const SCHEMA_VERSION: i32 = 1;
const _: () = assert!(MIGRATIONS.len() == SCHEMA_VERSION as usize);

const COPIED: &str = "this catalogue was copied or restored into another database: objects written \
    since are not in it, and bytes on the backends may be theirs";

/// Which instance this process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Registered {
    pub(crate) instance: i32,
    pub(crate) epoch: i64,
}

/// What an instance begins with.
pub(crate) struct Loaded {
    pub(crate) ledgers: Vec<(BackendId, Ledger)>,
    /// Intents of whoever had the number before.
    pub(crate) intents: Vec<IntentRow>,
}

/// Makes or migrates the catalogue; its identity.
pub(crate) async fn open(
    server: &Server,
    connector: &Connector,
    session: &mut Session,
    ids: &Ids,
) -> Result<Catalogue> {
    let opened = migrate(server, connector, session, ids).await;
    opened.map_err(|fault| fault.named("open the catalogue"))
}

async fn migrate(
    server: &Server,
    connector: &Connector,
    session: &mut Session,
    ids: &Ids,
) -> std::result::Result<Catalogue, Fault> {
    let place = || PathBuf::from(server.address());
    let tx = session.client().transaction().await?;
    tx.batch_execute(
        "SET LOCAL lock_timeout = '60s';
         SELECT pg_advisory_xact_lock(hashtextextended('s3-orchestrator migrates', 0))",
    )
    .await?;
    let found = tx
        .query_typed(
            "SELECT to_regclass('catalogue') IS NOT NULL,
                 to_regclass('goose_db_version') IS NOT NULL
                     OR (to_regclass('backend_quotas') IS NOT NULL
                         AND to_regclass('object_locations') IS NOT NULL)",
            &[],
        )
        .await?;
    let found = found
        .first()
        .ok_or_else(|| Fault::damaged("the database tells nothing"))?;
    let (ours, the_go_programs) = (found.flag(0)?, found.flag(1)?);
    if !ours && the_go_programs {
        return Err(Fault::Known(Error::Foreign {
            path: place(),
            found: "it is the database of the Go program s3-orchestrator, whose objects this \
                    program does not know: name another database in database.database and keep \
                    this one"
                .into(),
        }));
    }
    let version = match ours {
        false => 0,
        true => {
            let rows = tx
                .query_typed("SELECT schema_version FROM catalogue", &[])
                .await
                .map_err(|_| {
                    Fault::Known(Error::Foreign {
                        path: place(),
                        found: "its table `catalogue` is another program's: name another database"
                            .into(),
                    })
                })?;
            rows.first().map_or(Ok(0), |row| row.int(0))?
        }
    };
    if version > i64::from(SCHEMA_VERSION) {
        return Err(Fault::Known(Error::TooNew {
            path: place(),
            found: u32::try_from(version).unwrap_or(u32::MAX),
            known: SCHEMA_VERSION.unsigned_abs(),
        }));
    }
    let pending = (1_i64..).zip(MIGRATIONS).filter(|(n, _)| *n > version);
    for (_, scripts) in pending {
        for script in scripts {
            tx.batch_execute(script).await?;
        }
    }
    if version == 0 {
        tx.execute_typed(
            "INSERT INTO catalogue (id, uuid, incarnation, schema_version, cluster, label_key)
             VALUES (1, $1, $2, $3, $4 || '/' || 'catalogue'::regclass::oid, $5)",
            &[
                (&ids.uuid(), Type::UUID),
                (&ids.uuid(), Type::UUID),
                (&SCHEMA_VERSION, Type::INT4),
                (&connector.cluster(), Type::TEXT),
                (&LabelKey::draw().to_bytes().as_slice(), Type::BYTEA),
            ],
        )
        .await?;
    } else {
        tx.execute_typed(
            "UPDATE catalogue SET schema_version = $1 WHERE schema_version < $1",
            &[(&SCHEMA_VERSION, Type::INT4)],
        )
        .await?;
    }
    // Another cluster, or another table of the same name: somebody copied or restored it.
    let copied = tx
        .execute_typed(
            "UPDATE catalogue SET cluster = $1 || '/' || 'catalogue'::regclass::oid, incarnation = $2
             WHERE cluster <> $1 || '/' || 'catalogue'::regclass::oid",
            &[
                (&connector.cluster(), Type::TEXT),
                (&ids.uuid(), Type::UUID),
            ],
        )
        .await?;
    if copied > 0 {
        let reason: &Params<'_> = &[(&COPIED, Type::TEXT)];
        tx.query_typed("SELECT s3o_enter_recovery($1, true)", reason)
            .await?;
    }
    let rows = tx
        .query_typed(
            "SELECT uuid, incarnation, recovery, retired, restored, label_key FROM catalogue",
            &[],
        )
        .await?;
    let row = rows
        .first()
        .ok_or_else(|| Fault::damaged("the catalogue has no identity"))?;
    if let Some(why) = row.maybe_text(3)? {
        // The schema is kept: whoever fills it goes on with it.
        tx.commit().await?;
        return Err(Fault::Known(Error::Retired { path: place(), why }));
    }
    let catalogue = Catalogue {
        uuid: Uuid::from_bytes(row.id(0)?),
        incarnation: Uuid::from_bytes(row.id(1)?),
        recovery: row.maybe_text(2)?,
        restored: row.flag(4)?,
        label_key: Arc::new(label_key(row)?),
    };
    tx.commit().await?;
    Ok(catalogue)
}

fn label_key(row: &Row) -> std::result::Result<LabelKey, Fault> {
    let bytes = row.maybe_bytes(5)?.unwrap_or_default();
    let bytes = bytes
        .try_into()
        .map_err(|_| Fault::damaged("the key of the labels has another length"))?;
    Ok(LabelKey::from_bytes(bytes))
}

/// Takes a number. Who found the database in an earlier state says so, and enters the recovery state
/// with it.
pub(crate) async fn register(
    session: &Session,
    server: &Server,
    clock: &dyn Clock,
    restored: Option<&str>,
) -> std::result::Result<Registered, Fault> {
    let name = name();
    let lease = i64::try_from(server.lease.as_millis()).unwrap_or(i64::MAX / 2);
    let now = clock.now().millis();
    let rows = session
        .query(
            "SELECT number, term FROM s3o_register($1, $2, $3, $4)",
            &[
                (&name, Type::TEXT),
                (&lease, Type::INT8),
                (&now, Type::INT8),
                (&restored, Type::TEXT),
            ],
        )
        .await
        .map_err(Fault::Postgres)?;
    let row = rows
        .first()
        .ok_or_else(|| Fault::damaged("the catalogue gave this instance no number"))?;
    let instance = i32::try_from(row.int(0)?)
        .map_err(|_| Fault::damaged("the number of this instance does not fit"))?;
    Ok(Registered {
        instance,
        epoch: row.int(1)?,
    })
}

/// Host and process, for people.
fn name() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    format!("{}:{}", host.trim(), std::process::id())
}

/// Loads what belongs to the number of an instance.
pub(crate) async fn load(session: &Session, instance: i32) -> std::result::Result<Loaded, Fault> {
    let rows = session
        .query(
            "SELECT b.backend_id, b.state = 'active', coalesce(s.used, 0), coalesce(s.orphan, 0),
                 coalesce(s.reserved_parts, 0), coalesce(s.room_left, 0),
                 coalesce(o.used, 0)::bigint, coalesce(o.orphan, 0)::bigint,
                 coalesce(o.parts, 0)::bigint
             FROM backends b
             LEFT JOIN backend_slots s ON s.backend_id = b.backend_id AND s.instance = $1
             LEFT JOIN (SELECT backend_id, sum(used) AS used, sum(orphan) AS orphan,
                     sum(reserved_parts) AS parts
                 FROM backend_slots WHERE instance <> $1 GROUP BY backend_id) o
                 ON o.backend_id = b.backend_id",
            &[(&instance, Type::INT4)],
        )
        .await
        .map_err(Fault::Postgres)?;
    let mut ledgers = Vec::with_capacity(rows.len());
    for row in &rows {
        let counters = |from: usize| -> std::result::Result<Counters, Fault> {
            Ok(Counters {
                used: row.int(from)?,
                orphan: row.int(from + 1)?,
                parts: row.int(from + 2)?,
            })
        };
        let mut ledger = Ledger::leasing(counters(2)?, row.flag(1)?, uint(row, 5)?);
        ledger.set_others(counters(6)?);
        ledgers.push((BackendId(row.int(0)?), ledger));
    }
    let rows = session
        .query(
            "SELECT copy_id, blob_id, backend_id, backend_key, reserved FROM write_intents
             WHERE instance = $1",
            &[(&instance, Type::INT4)],
        )
        .await
        .map_err(Fault::Postgres)?;
    let intents = rows
        .iter()
        .map(|row| {
            Ok(IntentRow {
                copy: copy_id(row, 0)?,
                blob: blob_id(row, 1)?,
                backend: BackendId(row.int(2)?),
                key: backend_key(row, 3)?,
                bytes: uint(row, 4)?,
            })
        })
        .collect::<std::result::Result<_, Fault>>()?;
    Ok(Loaded { ledgers, intents })
}
