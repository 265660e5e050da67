//! The connections that read, and the snapshots they keep.
//!
//! Taking a snapshot and giving it back are locks on a file: as much work as a lookup itself. So a
//! connection keeps its snapshot for the reads that follow, for as long as nothing was committed
//! since. That nothing was is known without asking the file: only this process writes, and its
//! writer counts its commits here before anybody is told of one.
//!
//! A snapshot that is kept keeps the log from being copied back and begun anew. Whoever does either
//! calls [`ReadPool::release`] first.

use std::cell::Cell;
use std::path::Path;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use parking_lot::{Mutex, MutexGuard};
use rusqlite::Connection;

use crate::fault::{Fault, database};
use crate::sqlite::connection::{Role, connect, leave_files};
use crate::{Error, Result};

/// Connections that read at the same time.
const READERS: usize = 4;

static NEXT_PLACE: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// The connection that this thread tries first, so that one core's reads find its cache warm.
    static PLACE: Cell<usize> = Cell::new(NEXT_PLACE.fetch_add(1, Ordering::Relaxed));
}

#[derive(Debug)]
/// Connections that read inline: a lookup costs less than handing it to another thread.
pub(crate) struct ReadPool {
    slots: Vec<Mutex<Option<Reader>>>,
    /// How many transactions were committed.
    commits: AtomicU64,
    /// Whether this process is the one that commits.
    counts: bool,
}

#[derive(Debug)]
struct Reader {
    conn: Connection,
    /// The number of commits before the snapshot that is open.
    snapshot: Option<u64>,
}

impl ReadPool {
    /// `counts` says that every commit will be followed by [`ReadPool::committed`].
    pub(crate) fn open(path: &Path, counts: bool) -> Result<Self> {
        let reader = |_| {
            let conn = connect(path, Role::Reader)?;
            let snapshot = None;
            Ok(Mutex::new(Some(Reader { conn, snapshot })))
        };
        Ok(Self {
            slots: (0..READERS).map(reader).collect::<Result<_>>()?,
            commits: AtomicU64::new(0),
            counts,
        })
    }

    /// Runs one short read in one snapshot, which holds all that was committed, and answered, before
    /// the call.
    pub(crate) fn read<T>(
        &self,
        operation: &'static str,
        body: impl FnOnce(&Connection) -> std::result::Result<T, Fault>,
    ) -> Result<T> {
        let mut slot = self.slot();
        let reader = slot.as_mut().ok_or(Error::Closed)?;
        self.read_with(reader, body)
            .map_err(|fault| fault.named(operation))
    }

    fn read_with<T>(
        &self,
        reader: &mut Reader,
        body: impl FnOnce(&Connection) -> std::result::Result<T, Fault>,
    ) -> std::result::Result<T, Fault> {
        // Before the snapshot is taken: a commit in between makes it too old in the books only.
        let commits = self.commits.load(Ordering::Acquire);
        if reader.snapshot != Some(commits) {
            reader.end()?;
            reader.begin(commits)?;
        }
        let value = body(&reader.conn);
        if value.is_err() || !self.counts {
            reader.end()?;
        }
        value
    }

    /// Lends a connection for something else than a short read.
    pub(crate) fn borrow<T>(&self, work: impl FnOnce(&Connection) -> Result<T>) -> Result<T> {
        let mut slot = self.slot();
        let reader = slot.as_mut().ok_or(Error::Closed)?;
        reader.end().map_err(database("end a snapshot"))?;
        work(&reader.conn)
    }

    /// Something was committed, and is not answered yet.
    pub(crate) fn committed(&self) {
        self.commits.fetch_add(1, Ordering::Release);
    }

    /// Ends the snapshots that are kept, behind the reads that use them.
    pub(crate) fn release(&self) {
        for slot in &self.slots {
            if let Some(reader) = slot.lock().as_mut() {
                // What cannot be ended makes its next read fail, which then tells.
                let _told_by_the_next_read = reader.end();
            }
        }
    }

    fn slot(&self) -> MutexGuard<'_, Option<Reader>> {
        let start = PLACE.get();
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

    /// As [`leave_files`], for all connections.
    pub(crate) fn leave_files(&self) {
        for slot in &self.slots {
            if let Some(reader) = slot.lock().as_ref() {
                leave_files(&reader.conn);
            }
        }
    }
}

impl Reader {
    /// The first statement takes the snapshot.
    fn begin(&mut self, commits: u64) -> rusqlite::Result<()> {
        self.conn.prepare_cached("BEGIN")?.execute([])?;
        self.snapshot = Some(commits);
        Ok(())
    }

    fn end(&mut self) -> rusqlite::Result<()> {
        self.snapshot = None;
        // An error may have ended it already.
        if self.conn.is_autocommit() {
            return Ok(());
        }
        self.conn.prepare_cached("ROLLBACK")?.execute([]).map(drop)
    }
}
