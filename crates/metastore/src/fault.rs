//! What stopped a statement or a job, before it is known what was attempted.

use crate::Error;
use crate::error::{DatabaseError, is_corrupt, is_full};

/// A statement or a job that did not happen.
#[derive(Debug)]
pub(crate) enum Fault {
    /// SQLite's words.
    Sqlite(rusqlite::Error),
    /// PostgreSQL's words.
    Postgres(DatabaseError),
    /// Ours.
    Known(Error),
}

impl Fault {
    /// A row, or a caller, that breaks a rule of the catalogue.
    pub(crate) fn damaged(what: impl Into<String>) -> Self {
        Self::Known(Error::Damaged { what: what.into() })
    }

    /// The error of an operation.
    pub(crate) fn named(self, operation: &'static str) -> Error {
        match self {
            Self::Sqlite(source) => database(operation)(source),
            Self::Postgres(source) => database(operation)(source),
            Self::Known(error) => error,
        }
    }
}

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

impl From<tokio_postgres::Error> for Fault {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Postgres(error.into())
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::Known(error)
    }
}

/// Turns a database's words into the error of an operation.
pub(crate) fn database<E: Into<DatabaseError>>(operation: &'static str) -> impl Fn(E) -> Error {
    move |source| {
        let source = source.into();
        match () {
            () if is_full(&source) => Error::Full { operation, source },
            () if is_corrupt(&source) => Error::Corrupt { operation, source },
            () if source.is_connection() => Error::Unavailable { operation, source },
            () => Error::Database { operation, source },
        }
    }
}
