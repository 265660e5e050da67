//! Whether somebody else wrote into the files of a database that is open.
//!
//! `cp` over a file keeps its inode, so its name tells nothing. But in WAL mode the file changes by
//! checkpoints alone, and whoever makes one says so in the index of the WAL before the first byte. So
//! what the file was after our last checkpoint is remembered, and where its time or length is another
//! one although nobody has tried a checkpoint, its first page and the page of a row that every commit
//! changes are compared. Those cannot differ but by a foreign hand: no other process that uses SQLite
//! as it should (a backup, a verification, a shell) ever raises an alarm.
//!
//! What is not seen: an overwrite that begins and ends within one checkpoint of ours and puts a file
//! there whose header could be ours, and one with bytes that differ in neither page.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock, Weak};

use parking_lot::Mutex;
use rusqlite::Connection;

use crate::fault::database;
use crate::sqlite::checkpoint::Progress;
use crate::sqlite::condition::{Condition, Target};
use crate::sqlite::lock::{LockFile, beside};
use crate::sqlite::readers::ReadPool;
use crate::{Error, Result};

/// Length of the header of a WAL, and of the header of a frame in it.
///
/// Source for all of these: "Database File Format" and "WAL-mode File Format" on sqlite.org.
const WAL_HEADER_BYTES: u64 = 32;
const FRAME_HEADER_BYTES: u64 = 24;
const SALTS_IN_WAL: u64 = 16;
/// The index begins with two copies of its header, and goes on with the state of checkpoints.
const INDEX_COPY_BYTES: usize = 48;
const INDEX_BYTES: usize = 136;
/// Header of the database: 1 is a rollback journal, 2 a WAL.
const VERSIONS: std::ops::Range<usize> = 18..20;
const WAL_VERSIONS: [u8; 2] = [2, 2];
const CHANGE_COUNTER: std::ops::Range<usize> = 24..28;
const APPLICATION: std::ops::Range<usize> = 68..72;
const HEADER_BYTES: usize = 100;

/// The open files of one database.
///
/// They belong to the lock: closing any of them takes SQLite's own locks along, so it comes last.
#[derive(Debug)]
pub(crate) struct Opened {
    main: File,
    wal: File,
    index: File,
}

/// Looks at the files of one database.
#[derive(Debug)]
pub(crate) struct Tracker {
    target: Target,
    path: PathBuf,
    lock: Arc<LockFile>,
    condition: Arc<Condition>,
    /// Not strong ones: connections have to end before the locks do.
    readers: Weak<ReadPool>,
    pages: Pages,
    state: Mutex<State>,
    /// What was proven. It does not heal.
    found: OnceLock<String>,
}

/// Which pages are compared.
#[derive(Debug, Clone, Copy)]
struct Pages {
    /// Length of one: the index knows it only once something was written.
    bytes: u64,
    /// The page of a row that commits change.
    row: u64,
}

#[derive(Debug, Default)]
struct State {
    /// What there was after the last checkpoint.
    base: Option<Seen>,
    /// The header's counter only grows, and the mark of the program stays.
    counter: u32,
    application: u32,
}

#[derive(Debug)]
struct Seen {
    written: Written,
    index: Index,
    sample: Sample,
}

/// When, and how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Written {
    bytes: u64,
    modified: (i64, i64),
}

/// What the index says of the WAL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Index {
    salts: [u8; 8],
    frames: u32,
    copied: u32,
    attempted: u32,
}

/// Two pages, as far as the file has them.
#[derive(Debug, PartialEq, Eq)]
struct Sample {
    first: Vec<u8>,
    row: Vec<u8>,
}

/// Who must wait for whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    /// Behind the other one.
    Waits,
    /// Not now, where another one is under way.
    Yields,
}

impl Tracker {
    /// Begins. `conn` has the file open, and `table` has a row that commits change.
    pub(crate) fn start(
        (target, path): (Target, &Path),
        (conn, table): (&Connection, &str),
        (lock, condition, readers): (&Arc<LockFile>, &Arc<Condition>, &Arc<ReadPool>),
    ) -> Result<Arc<Self>> {
        let root: i64 = conn
            .query_row(
                "SELECT rootpage FROM sqlite_schema WHERE type = 'table' AND name = ?1",
                [table],
                |row| row.get(0),
            )
            .map_err(database("look at the database"))?;
        let page_bytes: i64 = conn
            .pragma_query_value(None, "page_size", |row| row.get(0))
            .map_err(database("look at the database"))?;
        let open = |suffix| {
            let path = beside(path, suffix);
            File::open(&path).map_err(|source| Error::File {
                operation: "opening",
                path,
                source,
            })
        };
        let opened = Opened {
            main: open("")?,
            wal: open("-wal")?,
            index: open("-shm")?,
        };
        lock.keep(target, opened);
        let tracker = Arc::new(Self {
            target,
            path: path.into(),
            lock: Arc::clone(lock),
            condition: Arc::clone(condition),
            readers: Arc::downgrade(readers),
            pages: Pages {
                bytes: page_bytes.cast_unsigned(),
                row: root.cast_unsigned(),
            },
            state: Mutex::default(),
            found: OnceLock::new(),
        });
        tracker.look();
        Ok(tracker)
    }

    /// Whose files they are.
    pub(crate) fn target(&self) -> Target {
        self.target
    }

    /// Compares, unless a checkpoint is under way; what was ever found.
    pub(crate) fn look(&self) -> Option<&String> {
        if self.found.get().is_none()
            && let Some(mut state) = self.state.try_lock()
        {
            self.compare(&mut state);
        }
        self.found.get()
    }

    /// Runs a checkpoint: not into a file that is not ours, and not beside a look. `None` where it did
    /// not run.
    pub(crate) fn checkpoint(
        &self,
        turn: Turn,
        run: impl FnOnce() -> rusqlite::Result<Progress>,
    ) -> rusqlite::Result<Option<Progress>> {
        let held = match turn {
            Turn::Waits => Some(self.state.lock()),
            Turn::Yields => self.state.try_lock(),
        };
        let Some(mut state) = held else {
            return Ok(None);
        };
        if self.found.get().is_none() {
            self.compare(&mut state);
        }
        if self.found.get().is_some() {
            return Ok(None);
        }
        state.base = None;
        let progress = run()?;
        self.compare(&mut state);
        Ok(Some(progress))
    }

    fn compare(&self, state: &mut State) {
        let looked = self
            .lock
            .with_kept(self.target, |opened| state.judge(opened, self.pages));
        // What cannot be read proves nothing; and where the locks are gone, so is everything.
        if let Some(Ok(Some(found))) = looked {
            self.proven(&found);
        }
    }

    fn proven(&self, found: &Found) {
        let name = match found {
            Found::Main(_) => self.path.clone(),
            Found::Wal(_) => beside(&self.path, "-wal"),
        };
        let (Found::Main(what) | Found::Wal(what)) = found;
        let text = format!("{} was overwritten: {what}", name.display());
        let _known_already = self.found.set(text.clone());
        match self.target {
            // The catalogue is whole: its copy is made by who looks at the names.
            Target::Intents => self.condition.intents_lost(text),
            Target::Catalogue => {
                self.condition.overwritten(text);
                // What is read now is not what was written, and pages that are mapped may be gone.
                if let Some(readers) = self.readers.upgrade() {
                    readers.leave_files();
                    readers.close();
                }
            }
        }
    }
}

/// Which file, and what gave it away.
#[derive(Debug)]
enum Found {
    Main(&'static str),
    Wal(&'static str),
}

impl State {
    fn judge(&mut self, opened: &Opened, pages: Pages) -> io::Result<Option<Found>> {
        let Some(before) = Index::of(&opened.index)? else {
            return Ok(None);
        };
        let wal = wal_amiss(&opened.wal, &before, pages)?;
        // In this order: who wrote the file before we looked had told the index before.
        let written = Written::of(&opened.main)?;
        if wal.is_none()
            && let Some(base) = &mut self.base
            && base.written == written
        {
            base.index = before;
            return Ok(None);
        }
        let sample = Sample::of(&opened.main, pages)?;
        let Some(after) = Index::of(&opened.index)? else {
            return Ok(None);
        };
        if let Some(what) = wal
            && after.salts == before.salts
        {
            return Ok(Some(Found::Wal(what)));
        }
        if let Some(what) = self.header_amiss(&sample) {
            return Ok(Some(Found::Main(what)));
        }
        if let Some(base) = &self.base
            && base.index.is_still()
            && base.index.knows_what(&after)
            && (base.written.bytes != written.bytes || base.sample != sample)
        {
            return Ok(Some(Found::Main(
                "it has other bytes although nobody made a checkpoint",
            )));
        }
        // A checkpoint of another process, or nothing but a new time.
        self.base = before.knows_what(&after).then_some(Seen {
            written,
            index: before,
            sample,
        });
        Ok(None)
    }

    /// What no checkpoint does to the header; remembers it otherwise.
    fn header_amiss(&mut self, sample: &Sample) -> Option<&'static str> {
        let Some(header) = sample.first.get(..HEADER_BYTES) else {
            return Some("it is shorter than its header");
        };
        let application = big_endian(&header[APPLICATION]);
        let counter = big_endian(&header[CHANGE_COUNTER]);
        if header[VERSIONS] != WAL_VERSIONS {
            return Some("its header says that it has no WAL");
        }
        if counter < self.counter {
            return Some("it is older than it was");
        }
        // A new file gets its mark with the first checkpoint.
        if self.application != 0 && self.application != application {
            return Some("it belongs to another program");
        }
        self.counter = counter;
        self.application = application;
        None
    }
}

/// What no process that uses SQLite does to a WAL. True only if the WAL did not begin anew meanwhile.
fn wal_amiss(wal: &File, index: &Index, pages: Pages) -> io::Result<Option<&'static str>> {
    if index.frames == 0 {
        return Ok(None);
    }
    let needed = WAL_HEADER_BYTES + u64::from(index.frames) * (FRAME_HEADER_BYTES + pages.bytes);
    if wal.metadata()?.len() < needed {
        return Ok(Some("it became shorter"));
    }
    let mut salts = [0; 8];
    wal.read_exact_at(&mut salts, SALTS_IN_WAL)?;
    Ok((salts != index.salts).then_some("its header is another one"))
}

impl Written {
    fn of(file: &File) -> io::Result<Self> {
        let found = file.metadata()?;
        Ok(Self {
            bytes: found.len(),
            modified: (found.mtime(), found.mtime_nsec()),
        })
    }
}

impl Index {
    /// `None` where it is being written right now.
    fn of(file: &File) -> io::Result<Option<Self>> {
        let mut bytes = [0; INDEX_BYTES];
        match file.read_exact_at(&mut bytes, 0) {
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(None),
            other => other?,
        }
        let (one, rest) = bytes.split_at(INDEX_COPY_BYTES);
        if one != &rest[..INDEX_COPY_BYTES] || one[12] == 0 {
            return Ok(None);
        }
        let mut salts = [0; 8];
        salts.copy_from_slice(&one[32..40]);
        Ok(Some(Self {
            salts,
            frames: native(&one[16..20]),
            copied: native(&bytes[96..100]),
            attempted: native(&bytes[128..132]),
        }))
    }

    /// No checkpoint was under way, nor left unfinished.
    fn is_still(&self) -> bool {
        self.copied == self.attempted
    }

    /// Whether no checkpoint was tried between the two.
    fn knows_what(&self, later: &Self) -> bool {
        (self.salts, self.copied, self.attempted) == (later.salts, later.copied, later.attempted)
    }
}

impl Sample {
    fn of(file: &File, pages: Pages) -> io::Result<Self> {
        Ok(Self {
            first: page(file, pages.bytes, 1)?,
            row: page(file, pages.bytes, pages.row)?,
        })
    }
}

/// A page, or what there is of it.
fn page(file: &File, page_bytes: u64, number: u64) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(page_bytes).unwrap_or(0)];
    let start = number.saturating_sub(1) * page_bytes;
    let mut filled = 0;
    while filled < bytes.len() {
        match file.read_at(&mut bytes[filled..], start + filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(filled);
    Ok(bytes)
}

fn native(bytes: &[u8]) -> u32 {
    bytes.try_into().map_or(0, u32::from_ne_bytes)
}

fn big_endian(bytes: &[u8]) -> u32 {
    bytes.try_into().map_or(0, u32::from_be_bytes)
}

/// A backup that was put in the place of a catalogue whose WAL is still there: SQLite would write the
/// frames of the one into the other.
pub(crate) fn check_together(path: &Path, catalogue: &File) -> Result<()> {
    let failed = |source| Error::File {
        operation: "reading",
        path: path.into(),
        source,
    };
    let mut header = [0; HEADER_BYTES];
    match catalogue.read_exact_at(&mut header, 0) {
        // New, or none: SQLite says which.
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(()),
        other => other.map_err(failed)?,
    }
    let wal = beside(path, "-wal");
    let left = std::fs::metadata(&wal).is_ok_and(|wal| wal.len() > 0);
    if !left || header[VERSIONS] != [1, 1] {
        return Ok(());
    }
    Err(Error::Foreign {
        path: path.into(),
        found: format!(
            "it is a backup, and {} belongs to the catalogue that was here before: move that file away, \
             remove the others whose names begin with the catalogue's, and run `s3-orchestrator \
             reconcile --recover`",
            wal.display()
        ),
    })
}
