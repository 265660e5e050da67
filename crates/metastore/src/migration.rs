//! Moves a catalogue from files to PostgreSQL, row by row, as often as it takes.
//!
//! The target refuses to start while it is being filled, and the source refuses to once it has been
//! moved, so that at no time two of them serve. A move that was interrupted goes on where it was: rows
//! that are there already are left as they are.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use base::{Clock, Ids};
use rusqlite::types::ValueRef;
use serde_json::{Map, Value, json};
use tokio::sync::mpsc;
use tokio_postgres::types::Type;

use crate::fault::{Fault, database};
use crate::model::Catalogue;
use crate::postgres::connect::{Connector, Session};
use crate::postgres::{Server, migrate};
use crate::sqlite::connection::{Role, connect};
use crate::sqlite::lock::LockFile;
use crate::sqlite::migrate::check_reader;
use crate::sqlite::private::resolve;
use crate::store::{OpenOptions, Store};
use crate::values::Cells;
use crate::{ConnectOptions, Error, Result};

const OPERATION: &str = "move the catalogue";
/// Rows in one flight.
const ROWS_PER_FLIGHT: usize = 500;
/// Flights that are read ahead.
const BATCHES_AHEAD: usize = 4;
/// Intents settled at a time before the move.
const INTENTS_PER_STEP: u32 = 1_000;

/// Tables in the order of the move. Intents are settled before it, and instances begin anew.
const TABLES: [&str; 21] = [
    "buckets",
    "bucket_slots",
    "backends",
    "backend_slots",
    "backend_usage",
    "objects",
    "object_meta",
    "object_parts",
    "object_extents",
    "blobs",
    "object_locations",
    "multipart_uploads",
    "multipart_legs",
    "multipart_parts",
    "multipart_part_copies",
    "multipart_claims",
    "multipart_overtaken",
    "cleanup_queue",
    "cleanup_dlq",
    "notification_outbox",
    "mirror_queue",
];

/// How far a move is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// The table that is being copied.
    pub table: &'static str,
    /// Rows copied, of all tables.
    pub copied: u64,
    /// Rows to copy, of all tables.
    pub rows: u64,
}

/// What was moved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moved {
    /// Rows, of all tables.
    pub rows: u64,
    /// Where they are now.
    pub address: String,
}

/// What a move needs beside its two ends.
#[derive(Debug, Clone)]
pub struct MoveOptions {
    /// The time of day.
    pub clock: Arc<dyn Clock>,
    /// Where identifiers are drawn.
    pub ids: Arc<Ids>,
}

/// Moves the catalogue at `source` to `target`, checks it there, and retires the source.
///
/// # Errors
/// [`Error::InUse`] while a server has the source open; [`Error::Retired`] where it has been moved
/// already; [`Error::Occupied`] where the target holds another catalogue; [`Error::Damaged`] where what
/// arrived is not what was sent, and then both stay as they are.
pub async fn move_to_postgres(
    source: &Path,
    target: Server,
    options: MoveOptions,
    mut progress: impl FnMut(Progress) + Send,
) -> Result<Moved> {
    let source = &resolve(source);
    settle(source, &options).await?;
    let lock = LockFile::take(source)?;
    let mut conn = connect(source, Role::Writer)?;
    let identity = check_reader(&conn, source)?;
    if identity.recovery.is_some() {
        return Err(Error::Damaged {
            what: "it is in recovery state: run `s3-orchestrator reconcile --recover` first".into(),
        });
    }
    let connector = Connector::new(&target)?;
    let unreached = |error| database("reach the database")(error);
    let mut session = connector.connect().await.map_err(unreached)?;
    prepare(&target, &connector, &mut session, &options, &identity).await?;

    let rows = count_all(&conn)?;
    let mut copied = 0;
    for table in TABLES {
        let columns = columns(&session, table).await.map_err(named)?;
        let total = count(&conn, table)?;
        let (batches, mut read_ahead) = mpsc::channel(BATCHES_AHEAD);
        let reading = tokio::task::spawn_blocking(move || {
            let read = read(&conn, table, &columns, &batches);
            (conn, read)
        });
        while let Some(batch) = read_ahead.recv().await {
            copied += batch.len() as u64;
            write(&session, table, batch).await.map_err(named)?;
            progress(Progress {
                table,
                copied,
                rows,
            });
        }
        let (back, read) = reading.await.map_err(|_| Error::Closed)?;
        conn = back;
        read.map_err(named)?;
        let arrived = count_there(&session, table).await.map_err(named)?;
        if arrived != total {
            return Err(Error::Damaged {
                what: format!("{total} rows of {table} were sent and {arrived} arrived"),
            });
        }
    }
    let drawn = drawn(&conn).map_err(named)?;
    finish(&session, drawn).await.map_err(named)?;
    let address = target.address();
    retire(&conn, &address)?;
    // Only now may it start: its source no longer does.
    release(&session).await.map_err(named)?;
    drop(lock);
    verify(target, &options).await?;
    Ok(Moved { rows, address })
}

fn named(fault: Fault) -> Error {
    fault.named(OPERATION)
}

/// Opens the source as its server would, which migrates it, and gives up what nobody finished.
async fn settle(source: &Path, options: &MoveOptions) -> Result<()> {
    if !source.exists() {
        return Err(Error::Missing {
            path: source.into(),
        });
    }
    let store = Store::open(OpenOptions {
        path: source.to_path_buf(),
        clock: Arc::clone(&options.clock),
        ids: Arc::clone(&options.ids),
        read_grace: Duration::ZERO,
    })
    .await?;
    let settled = async {
        while store.reap_intents(INTENTS_PER_STEP).await? > 0 {}
        Ok(())
    };
    let settled = settled.await;
    store.close().await?;
    settled
}

/// Makes the schema, and keeps everybody from starting on it until it is filled.
async fn prepare(
    target: &Server,
    connector: &Connector,
    session: &mut Session,
    options: &MoveOptions,
    identity: &Catalogue,
) -> Result<()> {
    let (uuid, label_key) = (identity.uuid, identity.label_key.to_bytes());
    let mark =
        format!("it is being filled from the catalogue {uuid}: let `catalogue migrate` finish");
    match migrate::open(target, connector, session, &options.ids).await {
        // One that was begun before.
        Err(Error::Retired { why, .. }) if why == mark => return Ok(()),
        Err(error) => return Err(error),
        Ok(_) => {}
    }
    let occupied = session
        .query(
            "SELECT EXISTS (SELECT 1 FROM objects) OR EXISTS (SELECT 1 FROM backends)
                 OR EXISTS (SELECT 1 FROM buckets) OR EXISTS (SELECT 1 FROM instances WHERE live)",
            &[],
        )
        .await
        .map_err(Fault::Postgres)
        .map_err(named)?;
    let occupied = occupied
        .first()
        .map_or(Ok(true), |row| row.flag(0))
        .map_err(named)?;
    if occupied {
        return Err(Error::Occupied {
            path: PathBuf::from(target.address()),
        });
    }
    let incarnation = options.ids.uuid();
    session
        .query(
            "UPDATE catalogue SET uuid = $1, incarnation = $2, retired = $3, label_key = $4",
            &[
                (&uuid, Type::UUID),
                (&incarnation, Type::UUID),
                (&mark, Type::TEXT),
                (&label_key.as_slice(), Type::BYTEA),
            ],
        )
        .await
        .map_err(Fault::Postgres)
        .map_err(named)?;
    Ok(())
}

/// A column of the target with what its values are.
struct Column {
    name: String,
    kind: String,
}

/// The columns that both have: what only the target knows has a default.
async fn columns(session: &Session, table: &str) -> std::result::Result<Vec<Column>, Fault> {
    let found = session
        .query(
            "SELECT column_name::text, data_type::text FROM information_schema.columns
             WHERE table_schema = current_schema() AND table_name = $1 ORDER BY ordinal_position",
            &[(&table, Type::TEXT)],
        )
        .await
        .map_err(Fault::Postgres)?;
    found
        .iter()
        .map(|row| {
            Ok(Column {
                name: row.text(0)?,
                kind: row.text(1)?,
            })
        })
        .collect()
}

fn count(conn: &rusqlite::Connection, table: &str) -> Result<u64> {
    let sql = format!("SELECT count(*) FROM {table}");
    let rows: i64 = conn
        .query_row(&sql, [], |row| row.get(0))
        .map_err(database(OPERATION))?;
    Ok(rows.cast_unsigned())
}

fn count_all(conn: &rusqlite::Connection) -> Result<u64> {
    TABLES.iter().map(|table| count(conn, table)).sum()
}

async fn count_there(session: &Session, table: &str) -> std::result::Result<u64, Fault> {
    let found = session
        .query(&format!("SELECT count(*) FROM {table}"), &[])
        .await
        .map_err(Fault::Postgres)?;
    found
        .first()
        .map_or(Ok(0), |row| row.int(0))
        .map(i64::cast_unsigned)
}

/// All rows as JSON objects, in batches. Nobody writes to the source meanwhile.
fn read(
    conn: &rusqlite::Connection,
    table: &str,
    columns: &[Column],
    batches: &mpsc::Sender<Vec<Value>>,
) -> std::result::Result<(), Fault> {
    let mut statement = conn.prepare(&format!("SELECT * FROM {table}"))?;
    let names: Vec<String> = statement.column_names().map(str::to_owned).collect();
    let mut found = statement.query([])?;
    let mut batch = Vec::with_capacity(ROWS_PER_FLIGHT);
    while let Some(row) = found.next()? {
        let mut object = Map::new();
        for (at, name) in names.iter().enumerate() {
            let Some(column) = columns.iter().find(|column| column.name == *name) else {
                continue;
            };
            object.insert(name.clone(), value(row.get_ref(at)?, &column.kind)?);
        }
        if table == "multipart_claims" {
            object.insert("under_way".into(), json!(false));
        }
        batch.push(Value::Object(object));
        if batch.len() == ROWS_PER_FLIGHT {
            let full = std::mem::replace(&mut batch, Vec::with_capacity(ROWS_PER_FLIGHT));
            if batches.blocking_send(full).is_err() {
                // The other end failed, and says why.
                return Ok(());
            }
        }
    }
    if !batch.is_empty() {
        let _other_end_failed = batches.blocking_send(batch);
    }
    Ok(())
}

fn value(found: ValueRef<'_>, kind: &str) -> std::result::Result<Value, Fault> {
    let wrong = || Fault::damaged(format!("a value of the kind {kind} is {found:?}"));
    Ok(match (found, kind) {
        (ValueRef::Null, _) => Value::Null,
        (ValueRef::Integer(flag), "boolean") => json!(flag != 0),
        (ValueRef::Integer(number), _) => json!(number),
        (ValueRef::Blob(bytes), "uuid") => {
            let id = uuid::Uuid::from_slice(bytes).map_err(|_| wrong())?;
            json!(id.hyphenated().to_string())
        }
        (ValueRef::Blob(bytes), "bytea") => {
            let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            json!(format!("\\x{hex}"))
        }
        // Keys are bytes in files and text there.
        (ValueRef::Blob(bytes) | ValueRef::Text(bytes), _) => {
            json!(std::str::from_utf8(bytes).map_err(|_| wrong())?)
        }
        (ValueRef::Real(_), _) => return Err(wrong()),
    })
}

async fn write(session: &Session, table: &str, rows: Vec<Value>) -> std::result::Result<(), Fault> {
    // Of the first row: all of them have the same columns, and the others have defaults.
    let columns: Vec<String> = rows
        .first()
        .and_then(Value::as_object)
        .map(|row| row.keys().map(|name| format!("\"{name}\"")).collect())
        .unwrap_or_default();
    let columns = columns.join(", ");
    let rows = Value::Array(rows).to_string();
    session
        .query(
            &format!(
                "INSERT INTO {table} ({columns}) OVERRIDING SYSTEM VALUE
                 SELECT {columns} FROM jsonb_populate_recordset(NULL::{table}, $1::text::jsonb)
                 ON CONFLICT DO NOTHING"
            ),
            &[(&rows, Type::TEXT)],
        )
        .await
        .map_err(Fault::Postgres)?;
    Ok(())
}

/// Tables whose numbers are never used again, those of rows that are gone included.
const NUMBERED: [(&str, &str); 5] = [
    ("buckets", "bucket_id"),
    ("backends", "backend_id"),
    ("cleanup_queue", "id"),
    ("notification_outbox", "id"),
    ("mirror_queue", "id"),
];

/// The last numbers that were drawn.
struct Drawn {
    seq: i64,
    /// Of each of [`NUMBERED`].
    rows: Vec<i64>,
}

fn drawn(conn: &rusqlite::Connection) -> std::result::Result<Drawn, Fault> {
    let last = |(table, _): &(&str, &str)| {
        conn.query_row(
            "SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = ?1",
            [table],
            |row| row.get(0),
        )
    };
    Ok(Drawn {
        seq: conn.query_row("SELECT seq FROM catalogue", [], |row| row.get(0))?,
        rows: NUMBERED.iter().map(last).collect::<rusqlite::Result<_>>()?,
    })
}

/// Numbers that are drawn next, and the instance whose counters the slots are.
async fn finish(session: &Session, drawn: Drawn) -> std::result::Result<(), Fault> {
    for ((table, column), last) in NUMBERED.iter().zip(drawn.rows) {
        session
            .query(
                &format!(
                    "SELECT setval(pg_get_serial_sequence('{table}', '{column}'), $1, true)
                     WHERE $1 > 0"
                ),
                &[(&last, Type::INT8)],
            )
            .await
            .map_err(Fault::Postgres)?;
    }
    session
        .query(
            "SELECT setval('objects_seq', $1, true) WHERE $1 > 0",
            &[(&drawn.seq, Type::INT8)],
        )
        .await
        .map_err(Fault::Postgres)?;
    session
        .query(
            "INSERT INTO instances (instance, epoch, name, live, heartbeat)
             VALUES ($1, 0, 'files', false, 0) ON CONFLICT DO NOTHING",
            &[(&1_i32, Type::INT4)],
        )
        .await
        .map_err(Fault::Postgres)?;
    session
        .query(
            "UPDATE backend_slots SET room_left = 0, room_wanted = 0",
            &[],
        )
        .await
        .map_err(Fault::Postgres)?;
    Ok(())
}

fn retire(conn: &rusqlite::Connection, address: &str) -> Result<()> {
    let why = format!(
        "it was moved to {address}: set database.host and the keys beside it, and remove \
         database.path"
    );
    conn.execute("UPDATE catalogue SET retired = ?1", [why])
        .map(drop)
        .map_err(database(OPERATION))
}

async fn release(session: &Session) -> std::result::Result<(), Fault> {
    session
        .query("UPDATE catalogue SET retired = NULL", &[])
        .await
        .map(drop)
        .map_err(Fault::Postgres)
}

/// Looks at what arrived as its first instance.
async fn verify(target: Server, options: &MoveOptions) -> Result<()> {
    let store = Store::connect(ConnectOptions {
        server: target,
        clock: Arc::clone(&options.clock),
        ids: Arc::clone(&options.ids),
        read_grace: Duration::ZERO,
    })
    .await?;
    let verified = store.verify().await;
    store.close().await?;
    let verified = verified?;
    let wrong = verified.backends.iter().find(|sums| !sums.exact());
    match (wrong, verified.contradictions.first()) {
        (None, None) => Ok(()),
        (Some(sums), _) => Err(Error::Damaged {
            what: format!("what arrived does not add up: {sums:?}"),
        }),
        (None, Some(found)) => Err(Error::Damaged {
            what: format!("what arrived contradicts itself: {found}"),
        }),
    }
}
