//! What can go wrong with the catalogue.

use std::path::PathBuf;
use std::sync::Arc;

use base::{ByteSize, CopyId};
use tokio_postgres::error::SqlState;

/// `Result` with [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// A failed operation on the catalogue. The list is closed: every match is exhaustive.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another process has the catalogue open for writing.
    #[error("the catalogue {path} is in use by another process{}", holder(.pid))]
    InUse {
        /// The database file.
        path: PathBuf,
        /// Who holds it, where the lock file tells.
        pid: Option<u32>,
    },
    /// The catalogue was written by a newer program.
    #[error(
        "the catalogue {path} has schema version {found}, this program knows {known}: install the newer program"
    )]
    TooNew {
        /// The database file.
        path: PathBuf,
        /// The version found.
        found: u32,
        /// The newest version that this program knows.
        known: u32,
    },
    /// The database is not one of ours; the Go program's schema is recognised by name.
    #[error("{path} is not a catalogue of this program: {found}")]
    Foreign {
        /// The database file.
        path: PathBuf,
        /// What it is instead, and what to do.
        found: String,
    },
    /// The catalogue must not be used any more, or not yet.
    #[error("the catalogue {path} is not in use: {why}")]
    Retired {
        /// The database file, or the address.
        path: PathBuf,
        /// Why, and what to do.
        why: String,
    },
    /// The place holds a catalogue already.
    #[error("{path} holds a catalogue already: name an empty database")]
    Occupied {
        /// Where.
        path: PathBuf,
    },
    /// The names of the catalogue's files lead elsewhere: what is written would be lost with this
    /// process.
    #[error("the files of the catalogue {path} were removed or replaced: {found}")]
    Gone {
        /// The database file.
        path: PathBuf,
        /// Which file, and what is there instead.
        found: String,
    },
    /// The catalogue's file is not what was written to it.
    #[error(
        "the catalogue {path} is not used any more: {found}: stop this process, put a backup in the catalogue's place without the other files of its name, and run `s3-orchestrator reconcile --recover`"
    )]
    Broken {
        /// The database file.
        path: PathBuf,
        /// Which file, and what is amiss.
        found: String,
    },
    /// The database found its file malformed.
    #[error(
        "the catalogue's file is damaged ({operation}): stop this process, put a backup in the catalogue's place without the other files of its name, and run `s3-orchestrator reconcile --recover`"
    )]
    Corrupt {
        /// What was attempted.
        operation: &'static str,
        /// The database's words.
        #[source]
        source: DatabaseError,
    },
    /// The catalogue is missing where one is required.
    #[error("there is no catalogue at {path}")]
    Missing {
        /// The database file.
        path: PathBuf,
    },
    /// The backend has not so many bytes left.
    #[error("no room for {wanted} on this backend")]
    NoRoom {
        /// What was asked for.
        wanted: ByteSize,
    },
    /// An intent was given up in the meantime.
    #[error("the intent {copy} is no longer open")]
    IntentGone {
        /// Which.
        copy: CopyId,
    },
    /// The disk that holds the catalogue is full.
    #[error("the disk that holds the catalogue is full ({operation})")]
    Full {
        /// What was attempted.
        operation: &'static str,
        /// The database's words.
        #[source]
        source: DatabaseError,
    },
    /// The database cannot be reached, or did not answer. What was to be written may have happened.
    #[error("the catalogue cannot be reached ({operation})")]
    Unavailable {
        /// What was attempted.
        operation: &'static str,
        /// What went wrong.
        #[source]
        source: DatabaseError,
    },
    /// The database failed.
    #[error("the catalogue failed to {operation}")]
    Database {
        /// What was attempted.
        operation: &'static str,
        /// The database's words.
        #[source]
        source: DatabaseError,
    },
    /// A file beside the database failed.
    #[error("{operation} {path}")]
    File {
        /// What was attempted.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's words.
        #[source]
        source: std::io::Error,
    },
    /// A row holds what no version of this program writes.
    #[error("the catalogue is damaged: {what}")]
    Damaged {
        /// What was found, and where.
        what: String,
    },
    /// The store is shutting down.
    #[error("the catalogue is closed")]
    Closed,
}

impl Error {
    /// Whether the catalogue's file is not what was written to it.
    pub fn is_broken(&self) -> bool {
        matches!(self, Self::Broken { .. } | Self::Corrupt { .. })
    }
}

/// A database's words.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    /// SQLite's.
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    /// PostgreSQL's. Every caller of a failed batch gets the same.
    #[error(transparent)]
    Postgres(#[from] Arc<tokio_postgres::Error>),
    /// What we say of a connection.
    #[error("{0}")]
    Connection(String),
}

impl From<tokio_postgres::Error> for DatabaseError {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Postgres(Arc::new(error))
    }
}

impl DatabaseError {
    /// Whether it is about the way to the database, not about what was asked.
    pub(crate) fn is_connection(&self) -> bool {
        match self {
            Self::Sqlite(_) => false,
            Self::Postgres(error) => crate::postgres::is_connection(error),
            Self::Connection(_) => true,
        }
    }
}

/// Whether a disk is full.
pub(crate) fn is_full(error: &DatabaseError) -> bool {
    match error {
        DatabaseError::Sqlite(error) => crate::sqlite::batch::is_full(error),
        DatabaseError::Postgres(error) => error.code() == Some(&SqlState::DISK_FULL),
        DatabaseError::Connection(_) => false,
    }
}

/// Whether SQLite finds its file malformed.
pub(crate) fn is_corrupt(error: &DatabaseError) -> bool {
    match error {
        DatabaseError::Sqlite(error) => crate::sqlite::batch::is_corrupt(error),
        DatabaseError::Postgres(_) | DatabaseError::Connection(_) => false,
    }
}

fn holder(pid: &Option<u32>) -> String {
    pid.map_or_else(String::new, |pid| format!(" (pid {pid})"))
}
