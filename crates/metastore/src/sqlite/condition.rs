//! Whether the catalogue can be written: its files are still where they belong, and the last write
//! succeeded.
//!
//! A file that is removed or replaced lives on in this process, and writes to it succeed: nothing
//! fails before the next start, which finds an empty catalogue, or another one. So its names are
//! looked at every second, and once they lead elsewhere nothing is committed any more. What was
//! committed within that second is in the open files with all the rest, and so in the copy that is
//! made of them.
//!
//! A file that is overwritten, or that SQLite finds malformed, is another matter: there is no good copy of
//! it in this process. Nothing is committed to it any more, and nothing is copied back into it.

use std::fmt::Write as _;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use base::{Ids, report};
use parking_lot::{Mutex, RwLock, RwLockReadGuard};
use tracing::{error, info, warn};

use crate::model::Unwritable;
use crate::sqlite::backup;
use crate::sqlite::batch;
use crate::sqlite::lock::beside;
use crate::sqlite::overwrite::Tracker;
use crate::sqlite::private::SUFFIXES;
use crate::sqlite::readers::ReadPool;
use crate::{Error, Result};

/// How often the names are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Which file is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Target {
    /// The catalogue.
    Catalogue = 1,
    /// The intents beside it.
    Intents = 2,
}

/// What is known of the files.
#[derive(Debug)]
pub(crate) struct Condition {
    path: PathBuf,
    /// What the last look found amiss.
    gone: RwLock<Option<String>>,
    /// What the catalogue's own file or WAL became. It does not heal.
    broken: RwLock<Option<String>>,
    /// The same of the intents' file, which makes the catalogue no worse.
    intents_lost: OnceLock<String>,
    /// The targets whose last write failed, as bits.
    failing: AtomicU8,
}

impl Condition {
    /// Nothing is amiss yet.
    pub(crate) fn new(path: &Path) -> Arc<Self> {
        Arc::new(Self {
            path: path.into(),
            gone: RwLock::default(),
            broken: RwLock::default(),
            intents_lost: OnceLock::new(),
            failing: AtomicU8::default(),
        })
    }

    /// Permits one batch. Held until the batch is answered, so that whoever finds the files gone knows
    /// that no commit is under way.
    pub(crate) fn admit(&self) -> std::result::Result<Admission<'_>, Amiss> {
        if let Some(found) = &*self.broken.read() {
            return Err(Amiss::Broken(found.clone()));
        }
        let gone = self.gone.read();
        match &*gone {
            None => Ok(Admission(gone)),
            Some(found) => Err(Amiss::Gone(found.clone())),
        }
    }

    /// The files are where they belong, and what they were.
    pub(crate) fn check(&self) -> Result<()> {
        self.admit().map(drop).map_err(|amiss| self.refusal(amiss))
    }

    /// The error of whoever is refused.
    pub(crate) fn refusal(&self, amiss: Amiss) -> Error {
        let path = self.path.clone();
        match amiss {
            Amiss::Gone(found) => Error::Gone { path, found },
            Amiss::Broken(found) => Error::Broken { path, found },
        }
    }

    /// SQLite finds the catalogue malformed.
    fn malformed(&self, found: String) {
        let mut broken = self.broken.write();
        // Said once, however many reads meet it.
        if broken.is_none() {
            self.say_broken(&found);
            *broken = Some(found);
        }
    }

    /// The catalogue's file or its WAL was overwritten: the reason for whatever was met before.
    pub(crate) fn overwritten(&self, found: String) {
        self.say_broken(&found);
        *self.broken.write() = Some(found);
    }

    fn say_broken(&self, found: &str) {
        error!(
            catalogue = %self.path.display(), %found,
            "catalogue damaged or overwritten: writes and lists are refused; stop this process, keep \
             catalogue.db-wal, which has the commits since the last checkpoint, put a backup in the \
             catalogue's place without the other files of its name, and run `s3-orchestrator \
             reconcile --recover`"
        );
    }

    /// The intents' file is not what was written.
    pub(crate) fn intents_lost(&self, found: String) {
        let _known_already = self.intents_lost.set(found);
    }

    /// Takes note of a statement that found a malformed file.
    pub(crate) fn note_corrupt(&self, target: Target, error: &rusqlite::Error) {
        if !batch::is_corrupt(error) {
            return;
        }
        let found = format!("{}: {}", self.path_of(target).display(), report(error));
        match target {
            Target::Catalogue => self.malformed(found),
            Target::Intents => self.intents_lost(found),
        }
    }

    /// What a read that failed tells of the files; `error`, or the reason for it.
    pub(crate) fn explain(&self, error: Error) -> Error {
        match error {
            Error::Corrupt { .. } => {
                let found = format!("{}: {}", self.path.display(), report(&error));
                self.malformed(found);
                error
            }
            // The connections were closed because what they read is another file.
            Error::Closed => match &*self.broken.read() {
                Some(found) => self.refusal(Amiss::Broken(found.clone())),
                None => error,
            },
            other => other,
        }
    }

    /// Why nothing can be written, where that is so.
    pub(crate) fn unwritable(&self) -> Option<Unwritable> {
        if let Some(found) = &*self.broken.read() {
            let found = found.clone();
            return Some(Unwritable::Damaged { found });
        }
        if let Some(found) = &*self.gone.read() {
            let found = found.clone();
            return Some(Unwritable::FilesGone { found });
        }
        (self.failing.load(Ordering::Relaxed) != 0).then_some(Unwritable::WriteFailed)
    }

    /// Something was committed that changed rows.
    pub(crate) fn written(&self, target: Target) {
        // Most often there is nothing to change.
        if self.failing.load(Ordering::Relaxed) & target as u8 == 0 {
            return;
        }
        self.failing.fetch_and(!(target as u8), Ordering::Relaxed);
        info!(file = %self.path_of(target).display(), "catalogue writes succeed again");
    }

    /// A whole batch failed, for a reason that is not in its jobs.
    pub(crate) fn failed(&self, target: Target, error: &rusqlite::Error) {
        self.note_corrupt(target, error);
        let before = self.failing.fetch_or(target as u8, Ordering::Relaxed);
        if before & target as u8 == 0 {
            error!(
                file = %self.path_of(target).display(), error = %report(error),
                "catalogue write failed, health is degraded until one succeeds"
            );
        }
    }

    fn path_of(&self, target: Target) -> PathBuf {
        match target {
            Target::Catalogue => self.path.clone(),
            Target::Intents => super::intents::path_of(&self.path),
        }
    }
}

/// Why nothing is committed.
#[derive(Debug, Clone)]
pub(crate) enum Amiss {
    /// The names lead elsewhere.
    Gone(String),
    /// The file is not what was written.
    Broken(String),
}

/// The right to commit one batch.
#[derive(Debug)]
#[expect(dead_code, reason = "a guard: only its life matters")]
pub(crate) struct Admission<'a>(RwLockReadGuard<'a, Option<String>>);

/// Which file a name led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct FileId {
    device: u64,
    inode: u64,
}

impl FileId {
    fn of(path: &Path) -> std::io::Result<Self> {
        let found = fs::metadata(path)?;
        Ok(Self {
            device: found.dev(),
            inode: found.ino(),
        })
    }
}

/// Looks at the names of the files for as long as it lives.
#[derive(Debug)]
pub(crate) struct Watch {
    looker: Arc<Mutex<Looker>>,
    #[expect(dead_code, reason = "its end is what the thread waits for")]
    stop: mpsc::Sender<()>,
}

impl Watch {
    /// Begins. All files are open, by every connection that will ever use them; `given` is the name
    /// by which the operator knows the catalogue.
    pub(crate) fn start(
        given: &Path,
        condition: &Arc<Condition>,
        readers: &Arc<ReadPool>,
        (trackers, ids): ([Arc<Tracker>; 2], Arc<Ids>),
    ) -> Result<Self> {
        let path = &condition.path;
        let names = SUFFIXES.map(|suffix| beside(path, suffix));
        let names = names.into_iter().chain([given.to_path_buf()]);
        let identify = |name: PathBuf| match FileId::of(&name) {
            Ok(id) => Ok((name, id)),
            Err(source) => Err(Error::File {
                operation: "looking at",
                path: name,
                source,
            }),
        };
        let names = names.map(identify).collect::<Result<Vec<_>>>()?;
        let (stop, stopped) = mpsc::channel();
        let looker = Arc::new(Mutex::new(Looker {
            names,
            trackers,
            condition: Arc::clone(condition),
            // Not a strong one: connections have to end before the locks do.
            readers: Arc::downgrade(readers),
            ids,
            copied: None,
            ended: false,
        }));
        let shared = Arc::clone(&looker);
        // A thread, not a task: where tests pause time, a timer of every second would make an idle
        // hour thousands of steps; and a directory that hangs must hang nobody else.
        let thread = std::thread::Builder::new().name("catalogue-files".to_owned());
        let started = thread.spawn(move || {
            while stopped.recv_timeout(LOOK_EVERY) == Err(RecvTimeoutError::Timeout) {
                shared.lock().look();
            }
        });
        match started {
            Ok(_ends_with_its_channel) => Ok(Self { looker, stop }),
            Err(source) => Err(Error::File {
                operation: "starting the thread that watches",
                path: path.clone(),
                source,
            }),
        }
    }
}

impl Watch {
    /// Who looks: for a look at once, which takes as long as a copy where one has to be made.
    pub(crate) fn looker(&self) -> Arc<Mutex<Looker>> {
        Arc::clone(&self.looker)
    }
}

/// What the thread has.
#[derive(Debug)]
pub(crate) struct Looker {
    names: Vec<(PathBuf, FileId)>,
    trackers: [Arc<Tracker>; 2],
    condition: Arc<Condition>,
    readers: Weak<ReadPool>,
    ids: Arc<Ids>,
    /// The copy that was made of the open files: one in the life of a process.
    copied: Option<PathBuf>,
    /// Files go with the last connections now, and are not missed.
    ended: bool,
}

impl Looker {
    /// Looks a last time.
    pub(crate) fn end(&mut self) {
        self.look();
        self.ended = true;
    }

    pub(crate) fn look(&mut self) {
        if self.ended {
            return;
        }
        for tracker in &self.trackers {
            tracker.look();
        }
        let found = self.amiss();
        let known = self.condition.gone.read().clone();
        if found == known {
            return;
        }
        let (was, is) = (known.is_some(), found.is_some());
        // Waits for the batch that is under way.
        self.condition.gone.write().clone_from(&found);
        match found {
            Some(found) if !was => {
                error!(
                    catalogue = %self.condition.path.display(), %found,
                    "catalogue files removed or replaced: writes and lists are refused"
                );
                self.save();
            }
            Some(_) | None => {}
        }
        if !is {
            warn!(
                catalogue = %self.condition.path.display(),
                "catalogue files are back, writes go on"
            );
        }
    }

    /// Names that lead elsewhere.
    fn amiss(&self) -> Option<String> {
        let mut text = String::new();
        for (name, id) in &self.names {
            let what = match FileId::of(name) {
                Ok(found) if found == *id => continue,
                Ok(_) => "is another file now".to_owned(),
                Err(error) if error.kind() == ErrorKind::NotFound => "is gone".to_owned(),
                Err(error) => format!("cannot be looked at ({error})"),
            };
            let comma = if text.is_empty() { "" } else { ", " };
            // A text takes everything.
            let _ = write!(text, "{comma}{} {what}", name.display());
        }
        if let Some(lost) = self.condition.intents_lost.get() {
            let comma = if text.is_empty() { "" } else { ", " };
            let _ = write!(text, "{comma}{lost}");
        }
        (!text.is_empty()).then_some(text)
    }

    /// Copies the catalogue from the open files, while there still is a process that has them open.
    fn save(&mut self) {
        let Some(readers) = self.readers.upgrade() else {
            return;
        };
        // What is open is not the catalogue: a copy of it would be called one.
        if self.condition.broken.read().is_some() {
            return;
        }
        let pid = std::process::id();
        if let Some(copy) = &self.copied {
            error!(copy = %copy.display(), "an earlier copy of the catalogue is kept");
            return;
        }
        let incarnation = self.ids.uuid();
        let to = beside(&self.condition.path, &format!(".saved-{incarnation}"));
        match backup::save(&readers, &to, incarnation) {
            Ok(()) => {
                error!(
                    copy = %to.display(),
                    "catalogue copied from its open files, nothing committed is missing: stop this \
                     process, put the copy in the catalogue's place without the other files of its \
                     name, and run `s3-orchestrator reconcile --recover`"
                );
                self.copied = Some(to);
            }
            Err(error) => error!(
                copy = %to.display(), error = %report(&error), pid,
                "catalogue not copied from its open files: do not stop this process before you have \
                 copied catalogue.db and catalogue.db-wal from /proc/PID/fd"
            ),
        }
    }
}
