//! The locks: one writing process per catalogue.
//!
//! The lock file keeps a second process out before it touches anything, and tells whom it met. The
//! lock on the catalogue's own inode holds where the lock file was removed, and where the catalogue
//! has a second name.
//!
//! SQLite's own locks are of POSIX: they go when *any* descriptor of the inode is closed by this
//! process. So the one that is locked here is opened before SQLite opens its first, and closed after
//! SQLite has closed its last. `flock` and POSIX locks do not see each other, but on a network.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use rustix::fs::{FlockOperation, NFS_SUPER_MAGIC, flock, fstatfs};

use crate::sqlite::condition::Target;
use crate::sqlite::overwrite::{self, Opened};
use crate::sqlite::private;
use crate::{Error, Result};

/// Longest pid that is read back, in bytes.
const PID_BYTES_MAX: u64 = 20;

/// Exclusive locks that end with their process, however that ends.
#[derive(Debug)]
pub(crate) struct LockFile(Mutex<Option<Locked>>);

/// The locked files, and those that are looked at.
#[derive(Debug)]
struct Locked {
    kept: Vec<(Target, Opened)>,
    #[expect(dead_code, reason = "a guard: only its life matters")]
    catalogue: File,
    /// Last: whoever finds it free finds the other one free too.
    #[expect(dead_code, reason = "a guard: only its life matters")]
    lock: File,
}

impl LockFile {
    /// Takes the lock beside the catalogue at `path` and the one on it, makes an empty file where
    /// there is none, and writes our pid into the lock file.
    pub(crate) fn take(path: &Path) -> Result<Self> {
        let beside_it = beside(path, ".lock");
        let failed = |operation, path: &Path| {
            let path = path.to_path_buf();
            move |source| Error::File {
                operation,
                path,
                source,
            }
        };
        let mut lock =
            private::open(&beside_it).map_err(failed("opening the lock file", &beside_it))?;
        if !exclusive(&lock).map_err(failed("locking", &beside_it))? {
            return Err(Error::InUse {
                path: path.into(),
                pid: holder(&mut lock),
            });
        }
        let catalogue = private::open(path).map_err(failed("opening the catalogue", path))?;
        if !is_remote(&catalogue) && !exclusive(&catalogue).map_err(failed("locking", path))? {
            let (path, pid) = (path.into(), None);
            return Err(Error::InUse { path, pid });
        }
        overwrite::check_together(path, &catalogue)?;
        lock.set_len(0)
            .and_then(|()| lock.seek(SeekFrom::Start(0)))
            .and_then(|_| writeln!(lock, "{}", std::process::id()))
            .map_err(failed("writing the lock file", &beside_it))?;
        let kept = Vec::new();
        Ok(Self(Mutex::new(Some(Locked {
            kept,
            catalogue,
            lock,
        }))))
    }

    /// Keeps files open for as long as it is held: they are files that SQLite has open too.
    pub(crate) fn keep(&self, target: Target, opened: Opened) {
        if let Some(locked) = &mut *self.0.lock() {
            locked.kept.push((target, opened));
        }
    }

    /// Lends files that are kept.
    pub(crate) fn with_kept<T>(
        &self,
        target: Target,
        look: impl FnOnce(&Opened) -> T,
    ) -> Option<T> {
        let held = self.0.lock();
        let mut kept = held.as_ref()?.kept.iter();
        let (_, opened) = kept.find(|(of, _)| *of == target)?;
        Some(look(opened))
    }

    /// Gives the locks back. No connection to the catalogue may be open any more.
    pub(crate) fn release(&self) {
        drop(self.0.lock().take());
    }
}

/// Whether nobody else has it.
fn exclusive(file: &File) -> std::io::Result<bool> {
    match flock(file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

/// Whether the file lies on NFS, where `flock` is a POSIX lock of the whole file on the server: it
/// would keep our own connections out. There the lock file has to do.
fn is_remote(file: &File) -> bool {
    fstatfs(file).is_ok_and(|found| found.f_type == NFS_SUPER_MAGIC)
}

fn holder(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.take(PID_BYTES_MAX).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

/// The path with something behind its last component.
pub(crate) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
