//! Connections: how they are set up, and the pool that reads.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags};

use crate::fault::{Fault, database};
use crate::{Error, Result};

/// Connections that read at the same time.
const READERS: usize = 4;
/// Statements that each connection keeps prepared.
const STATEMENTS_CACHED: usize = 160;
/// How long the writing connection waits for a checkpoint that resets the log.
const BUSY_MS: u64 = 10_000;
/// Cache of the writing connection, in KiB.
const WRITER_CACHE_KIB: i64 = 16 * 1024;
/// Cache of each reading connection, in KiB: it mostly reads mapped pages.
const READER_CACHE_KIB: i64 = 2 * 1024;
/// Address space for mapped pages, in bytes; they are the system's cache, not our memory.
const MAPPED_BYTES: i64 = 1 << 30;

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

fn configure(conn: &Connection, role: Role) -> rusqlite::Result<()> {
    conn.busy_timeout(Duration::from_millis(BUSY_MS))?;
    conn.set_prepared_statement_cache_capacity(STATEMENTS_CACHED);
    // Plans are those of the statement, not of what is bound to it: it is prepared once.
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    conn.pragma_update(None, "trusted_schema", false)?;
    conn.pragma_update(None, "temp_store", "MEMORY")?;
    match role {
        Role::Writer => conn.pragma_update(None, "cache_size", -WRITER_CACHE_KIB),
        Role::Reader => {
            conn.pragma_update(None, "query_only", true)?;
            conn.pragma_update(None, "cache_size", -READER_CACHE_KIB)?;
            conn.pragma_update(None, "mmap_size", MAPPED_BYTES)
        }
    }
}

/// Switches a writing connection to the log, with an fsync at each commit and no checkpoint in it.
pub(crate) fn make_durable(conn: &Connection) -> rusqlite::Result<()> {
    conn.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get::<_, String>(0))?;
    conn.pragma_update(None, "synchronous", "FULL")?;
    conn.pragma_update_and_check(None, "wal_autocheckpoint", 0, |row| row.get::<_, i64>(0))?;
    Ok(())
}

/// A read transaction whose statements are prepared once, not for each lookup.
struct Snapshot<'c>(&'c Connection);

impl<'c> Snapshot<'c> {
    fn begin(conn: &'c Connection) -> rusqlite::Result<Self> {
        conn.prepare_cached("BEGIN")?.execute([])?;
        Ok(Self(conn))
    }

    fn end(self) -> rusqlite::Result<()> {
        self.0.prepare_cached("COMMIT")?.execute([]).map(drop)
    }
}

impl Drop for Snapshot<'_> {
    fn drop(&mut self) {
        // The body failed, or the commit did: nothing was written, so there is nothing to lose.
        if !self.0.is_autocommit() {
            let _ended_anyway = self.0.execute_batch("ROLLBACK");
        }
    }
}

/// Connections that read inline: a lookup costs less than handing it to another thread.
pub(crate) struct ReadPool {
    slots: Vec<Mutex<Option<Connection>>>,
    next: AtomicUsize,
}

impl ReadPool {
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let slots = (0..READERS)
            .map(|_| connect(path, Role::Reader).map(|conn| Mutex::new(Some(conn))))
            .collect::<Result<_>>()?;
        Ok(Self {
            slots,
            next: AtomicUsize::new(0),
        })
    }

    /// Runs one short read transaction. Its snapshot is taken by its first statement, so after the
    /// request arrived.
    pub(crate) fn read<T>(
        &self,
        operation: &'static str,
        body: impl FnOnce(&Connection) -> std::result::Result<T, Fault>,
    ) -> Result<T> {
        self.read_one(operation, |conn| {
            let snapshot = Snapshot::begin(conn)?;
            let value = body(conn)?;
            snapshot.end()?;
            Ok(value)
        })
    }

    /// The same for a lookup that is one statement, which is a snapshot by itself.
    pub(crate) fn read_one<T>(
        &self,
        operation: &'static str,
        body: impl FnOnce(&Connection) -> std::result::Result<T, Fault>,
    ) -> Result<T> {
        let slot = self.slot();
        let conn = slot.as_ref().ok_or(Error::Closed)?;
        body(conn).map_err(|fault| fault.named(operation))
    }

    fn slot(&self) -> MutexGuard<'_, Option<Connection>> {
        let start = self.next.fetch_add(1, Ordering::Relaxed);
        for step in 0..READERS {
            if let Some(slot) = self.slots[(start.wrapping_add(step)) % READERS].try_lock() {
                return slot;
            }
        }
        self.slots[start % READERS].lock()
    }

    /// Closes all connections; later reads fail with [`Error::Closed`].
    pub(crate) fn close(&self) {
        for slot in &self.slots {
            drop(slot.lock().take());
        }
    }
}
