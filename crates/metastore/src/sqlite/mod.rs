//! The SQLite dialect: every statement of it, and the two appliers (catalogue and intent file).
//!
//! WAL, `synchronous=FULL`, one writing connection per file, a small pool of reading ones.

pub(crate) mod apply;
pub(crate) mod backup;
pub(crate) mod batch;
pub(crate) mod checkpoint;
mod cleanup;
pub(crate) mod connection;
pub(crate) mod intents;
mod legs;
pub(crate) mod listing;
pub(crate) mod lock;
pub(crate) mod migrate;
mod names;
mod objects;
pub(crate) mod overview;
pub(crate) mod parts;
pub(crate) mod read;
pub(crate) mod uploads;
pub(crate) mod usage;
mod values;
pub(crate) mod verify;

use crate::Error;

/// What stopped a statement or a job, before it is known what was attempted.
#[derive(Debug)]
pub(crate) enum Fault {
    /// The database's words.
    Sql(rusqlite::Error),
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
            Self::Sql(source) => database(operation)(source),
            Self::Known(error) => error,
        }
    }
}

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sql(error)
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::Known(error)
    }
}

/// Turns the database's words into the error of an operation.
pub(crate) fn database(operation: &'static str) -> impl Fn(rusqlite::Error) -> Error {
    move |source| match batch::is_full(&source) {
        true => Error::Full { operation, source },
        false => Error::Database { operation, source },
    }
}
