//! The files of a catalogue belong to one user: nobody else may read them, write them, or lock them.
//!
//! A lock is as good as write access: whoever may open `-shm` for reading can hold a byte range of it
//! and so keep every transaction from committing.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use tracing::warn;

use crate::sqlite::lock::beside;

/// What SQLite makes beside a database takes the mode of the database.
const FILE_MODE: u32 = 0o600;
/// What group and others may have.
const OTHERS: u32 = 0o077;

/// What lies beside a catalogue, and the catalogue itself.
pub(crate) const SUFFIXES: [&str; 6] = [
    "",
    "-wal",
    "-shm",
    "-intents",
    "-intents-wal",
    "-intents-shm",
];

/// Opens a file for reading and writing; makes it where there is none, for its owner alone.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(FILE_MODE)
        .open(path)
}

/// Makes an empty file for its owner alone, which SQLite then takes for a new database.
///
/// An existing one is not even opened: closing it would take the locks of a connection of this
/// process along.
pub(crate) fn create(path: &Path) -> io::Result<()> {
    let mut options = OpenOptions::new();
    let made = options
        .write(true)
        .create_new(true)
        .mode(FILE_MODE)
        .open(path);
    match made {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        Ok(_) | Err(_) => Ok(()),
    }
}

/// Takes the files of a catalogue from everybody but their owner: those of an earlier version, or
/// ones that were copied here.
pub(crate) fn tighten(catalogue: &Path) {
    for suffix in SUFFIXES.into_iter().chain([".lock"]) {
        let path = beside(catalogue, suffix);
        // What is missing will be made as it should be.
        let Ok(found) = fs::metadata(&path) else {
            continue;
        };
        let mode = found.permissions().mode();
        if mode & OTHERS == 0 {
            continue;
        }
        let (file, found) = (path.display(), format!("{:04o}", mode & 0o7777));
        match fs::set_permissions(&path, Permissions::from_mode(mode & !OTHERS)) {
            Ok(()) => warn!(
                %file, found,
                "catalogue file was open to other users, its permissions were tightened"
            ),
            Err(error) => warn!(
                %file, found, %error,
                "catalogue file is open to other users: any of them can read it, or block all writes \
                 by a lock; give it to this user and set its mode to 0600"
            ),
        }
    }
}

/// Where the catalogue really lies: its companions lie there too, whatever link led to it.
pub(crate) fn resolve(path: &Path) -> PathBuf {
    // What cannot be resolved is named by the error of opening it.
    fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf())
}
