//! Opening the catalogue file: whose it is, which version, what has to be migrated.
//!
//! Nothing is written before the file is known to be ours or empty. Migrations only go forward, each
//! in a transaction of its own.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use base::{Clock, Ids, LabelKey};
use rusqlite::{Connection, OptionalExtension, params};
use uuid::Uuid;

use crate::fault::{Fault, database};
use crate::ledger::Counters;
use crate::live::Live;
use crate::model::{BackendId, Catalogue};
use crate::sqlite::INSTANCE;
use crate::sqlite::connection::{Role, connect, make_durable};
use crate::values::Cells;
use crate::{Error, Result};

/// Marks our files: 's3or'.
const APPLICATION_ID: i64 = 0x7333_6f72;
const MIGRATIONS: [&str; 1] = [include_str!("../../migrations/sqlite/0001_init.sql")];
/// The schema version of this program.
pub(crate) const SCHEMA_VERSION: u32 = 1;
const _: () = assert!(MIGRATIONS.len() == SCHEMA_VERSION as usize);

/// An opened catalogue file.
pub(crate) struct Opened {
    pub(crate) conn: Connection,
    pub(crate) catalogue: Catalogue,
    /// Of this process among those that wrote here.
    pub(crate) epoch: i64,
}

/// Whose a file is.
enum Found {
    Empty,
    Ours { version: u32 },
}

/// Opens the catalogue for writing, making or migrating it as needed.
pub(crate) fn open(path: &Path, ids: &Ids, clock: &dyn Clock) -> Result<Opened> {
    let mut conn = connect(path, Role::Writer)?;
    let version = match identify(&conn, path)? {
        Found::Empty => 0,
        Found::Ours { version } => version,
    };
    make_durable(&conn).map_err(database("switch the catalogue to its log"))?;
    migrate(&mut conn, version, ids)?;
    if version == 0 {
        sync_directory(path)?;
    }
    let catalogue = identity(&conn, path)?;
    let epoch = take_over(&mut conn, clock).map_err(database("begin an epoch"))?;
    Ok(Opened {
        conn,
        catalogue,
        epoch,
    })
}

/// Checks that a file which is only read is a catalogue of this very version.
pub(crate) fn check_reader(conn: &Connection, path: &Path) -> Result<Catalogue> {
    match identify(conn, path)? {
        Found::Ours {
            version: SCHEMA_VERSION,
        } => identity(conn, path),
        Found::Ours { version } => Err(Error::Foreign {
            path: path.into(),
            found: format!(
                "it has the older schema version {version}: start the program once to migrate it"
            ),
        }),
        Found::Empty => Err(Error::Missing { path: path.into() }),
    }
}

fn identify(conn: &Connection, path: &Path) -> Result<Found> {
    let foreign = |found: &str| Error::Foreign {
        path: path.into(),
        found: found.into(),
    };
    let tables = tables(conn).map_err(database("look at the database"))?;
    let pragma = |name| conn.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let application = pragma("application_id").map_err(database("look at the database"))?;
    if application == APPLICATION_ID {
        let version = pragma("user_version").map_err(database("look at the database"))?;
        let found = u32::try_from(version).unwrap_or(u32::MAX);
        return match found <= SCHEMA_VERSION {
            true => Ok(Found::Ours { version: found }),
            false => Err(Error::TooNew {
                path: path.into(),
                found,
                known: SCHEMA_VERSION,
            }),
        };
    }
    let has = |name: &str| tables.iter().any(|table| table == name);
    if has("goose_db_version") || (has("backend_quotas") && has("object_locations")) {
        return Err(foreign(
            "it is the database of the Go program s3-orchestrator, whose objects this program does \
             not know: name another file in database.path and keep this one",
        ));
    }
    match tables.is_empty() && application == 0 {
        true => Ok(Found::Empty),
        false => Err(foreign("it is the SQLite database of another program")),
    }
}

fn tables(conn: &Connection) -> rusqlite::Result<Vec<String>> {
    let mut statement = conn.prepare("SELECT name FROM sqlite_schema WHERE type = 'table'")?;
    statement.query_map([], |row| row.get(0))?.collect()
}

fn migrate(conn: &mut Connection, from: u32, ids: &Ids) -> Result<()> {
    let failed = database("migrate the catalogue");
    let pending = (1..).zip(MIGRATIONS).filter(|(version, _)| *version > from);
    for (version, statements) in pending {
        let step = |conn: &mut Connection| -> rusqlite::Result<()> {
            let tx = conn.transaction()?;
            tx.execute_batch(statements)?;
            tx.pragma_update(None, "application_id", APPLICATION_ID)?;
            tx.pragma_update(None, "user_version", version)?;
            if version == 1 {
                tx.execute(
                    "INSERT INTO catalogue (id, uuid, incarnation, label_key) VALUES (1, ?1, ?2, ?3)",
                    params![
                        ids.uuid().into_bytes(),
                        ids.uuid().into_bytes(),
                        LabelKey::draw().to_bytes(),
                    ],
                )?;
            }
            tx.commit()
        };
        step(conn).map_err(&failed)?;
    }
    Ok(())
}

fn identity(conn: &Connection, path: &Path) -> Result<Catalogue> {
    let row = conn
        .query_row(
            "SELECT uuid, incarnation, recovery, restored, retired, label_key FROM catalogue",
            [],
            |row| {
                let catalogue = Catalogue {
                    uuid: Uuid::from_bytes(row.get(0)?),
                    incarnation: Uuid::from_bytes(row.get(1)?),
                    recovery: row.get(2)?,
                    restored: row.get(3)?,
                    label_key: Arc::new(LabelKey::from_bytes(row.get(5)?)),
                };
                Ok((catalogue, row.get::<_, Option<String>>(4)?))
            },
        )
        .optional()
        .map_err(database("read the catalogue's identity"))?;
    match row {
        Some((catalogue, None)) => Ok(catalogue),
        Some((_, Some(why))) => Err(Error::Retired {
            path: path.into(),
            why,
        }),
        None => Err(Error::Damaged {
            what: "the catalogue has no identity".into(),
        }),
    }
}

/// Begins the epoch of this process. The one before is dead, the lock file says so: what it had
/// claimed for cleaning is free again.
fn take_over(conn: &mut Connection, clock: &dyn Clock) -> rusqlite::Result<i64> {
    let now = clock.now().millis();
    let tx = conn.transaction()?;
    let epoch = tx.query_row(
        "INSERT INTO instances (instance, epoch, heartbeat) VALUES (?1, 1, ?2)
         ON CONFLICT (instance) DO UPDATE SET epoch = epoch + 1, heartbeat = excluded.heartbeat
         RETURNING epoch",
        params![INSTANCE, now],
        |row| row.get(0),
    )?;
    tx.execute(
        "UPDATE cleanup_queue SET claim = NULL, not_before = min(not_before, ?1)
         WHERE claim IS NOT NULL",
        [now],
    )?;
    tx.commit()?;
    Ok(epoch)
}

/// Loads the counters of all backends.
pub(crate) fn load_counters(conn: &Connection, live: &Live) -> std::result::Result<(), Fault> {
    let mut statement = conn.prepare(
        "SELECT b.backend_id, b.state = 'active', sum(s.used), sum(s.orphan), sum(s.reserved_parts)
         FROM backends b JOIN backend_slots s USING (backend_id) GROUP BY b.backend_id",
    )?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let counters = Counters {
            used: row.int(2)?,
            orphan: row.int(3)?,
            parts: row.int(4)?,
        };
        live.load_backend(BackendId(row.get(0)?), counters, row.get(1)?);
    }
    Ok(())
}

/// Makes a file's name as durable as its contents.
pub(crate) fn sync_directory(path: &Path) -> Result<()> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(|source| Error::File {
            operation: "syncing the directory",
            path: directory.into(),
            source,
        })
}
