//! The lock file: one writing process per catalogue.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use rustix::fs::{FlockOperation, flock};

use crate::{Error, Result};

/// Longest pid that is read back, in bytes.
const PID_BYTES_MAX: u64 = 20;

/// An exclusive lock that ends with its process, however that ends.
#[derive(Debug)]
pub(crate) struct LockFile(Mutex<Option<File>>);

impl LockFile {
    /// Takes the lock beside the catalogue at `path` and writes our pid into it.
    pub(crate) fn take(path: &Path) -> Result<Self> {
        let lock = beside(path, ".lock");
        let failed = |operation| {
            let path = lock.clone();
            move |source| Error::File {
                operation,
                path,
                source,
            }
        };
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&lock)
            .map_err(failed("opening the lock file"))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                return Err(Error::InUse {
                    path: path.into(),
                    pid: holder(&mut file),
                });
            }
            Err(errno) => return Err(failed("locking")(errno.into())),
        }
        file.set_len(0)
            .and_then(|()| file.seek(SeekFrom::Start(0)))
            .and_then(|_| writeln!(file, "{}", std::process::id()))
            .map_err(failed("writing the lock file"))?;
        Ok(Self(Mutex::new(Some(file))))
    }

    /// Gives the lock back.
    pub(crate) fn release(&self) {
        drop(self.0.lock().take());
    }
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
