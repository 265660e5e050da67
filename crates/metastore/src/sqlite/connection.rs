//! Connections: how they are set up.

use std::path::Path;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags};
use tracing::warn;

use crate::fault::database;
use crate::{Error, Result};

/// Statements that each connection keeps prepared.
const STATEMENTS_CACHED: usize = 160;
/// How long the writing connection waits for a checkpoint that resets the log.
const BUSY_MS: u64 = 10_000;
/// Cache of the writing connection, in KiB.
const WRITER_CACHE_KIB: i64 = 16 * 1024;
/// Cache of each reading connection, in KiB: it mostly reads mapped pages.
const READER_CACHE_KIB: i64 = 2 * 1024;
/// Address space for mapped pages, in bytes: more than a catalogue has. They are the system's cache, not
/// our memory. Longer than 2 GiB where SQLite was built for it, as `.cargo/config.toml` says.
const MAPPED_BYTES: i64 = 1 << 38;

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// The one connection that writes.
    Writer,
    /// Reads only.
    Reader,
}

/// Opens a file of ours; makes it where a writer finds none.
pub(crate) fn connect(path: &Path, role: Role) -> Result<Connection> {
    // A reader needs write access to the shared memory of the log, so it is kept from writing by
    // `query_only`, not by its flags.
    let mut flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    if role == Role::Writer {
        flags |= OpenFlags::SQLITE_OPEN_CREATE;
    }
    let conn = Connection::open_with_flags(path, flags).map_err(database("open the database"))?;
    match configure(&conn, role) {
        Ok(()) => Ok(conn),
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::NotADatabase) => {
            Err(Error::Foreign {
                path: path.into(),
                found: "it is not an SQLite database".into(),
            })
        }
        Err(error) => Err(database("set the connection up")(error)),
    }
}

/// Leaves the log and its index where they are when this connection ends. The last one removes them
/// by their names, which may be those of somebody else's files where ours were replaced.
pub(crate) fn leave_files(conn: &Connection) {
    let set = conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true);
    if let Err(error) = set {
        warn!(error = %base::report(&error), "could not keep the WAL of a closing connection");
    }
}

fn configure(conn: &Connection, role: Role) -> rusqlite::Result<()> {
    conn.busy_timeout(Duration::from_millis(BUSY_MS))?;
    conn.set_prepared_statement_cache_capacity(STATEMENTS_CACHED);
    // Plans are those of the statement, not of what is bound to it: it is prepared once.
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    conn.pragma_update(None, "trusted_schema", false)?;
    conn.pragma_update(None, "temp_store", "MEMORY")?;
    match role {
        Role::Writer => conn.pragma_update(None, "cache_size", -WRITER_CACHE_KIB)?,
        Role::Reader => {
            conn.pragma_update(None, "query_only", true)?;
            conn.pragma_update(None, "cache_size", -READER_CACHE_KIB)?;
            conn.pragma_update(None, "mmap_size", MAPPED_BYTES)?;
        }
    }
    // The first read opens the log, by its name: now, while the name is known to be right.
    conn.pragma_query_value(None, "schema_version", |row| row.get::<_, i64>(0))
        .map(drop)
}

/// Switches a writing connection to the log, with an fsync at each commit and no checkpoint in it.
pub(crate) fn make_durable(conn: &Connection) -> rusqlite::Result<()> {
    conn.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get::<_, String>(0))?;
    conn.pragma_update(None, "synchronous", "FULL")?;
    conn.pragma_update_and_check(None, "wal_autocheckpoint", 0, |row| row.get::<_, i64>(0))?;
    Ok(())
}
