//! The SQLite dialect: every statement of it, and the two appliers (catalogue and intent file).
//!
//! WAL, `synchronous=FULL`, one writing connection per file, a small pool of reading ones.

pub(crate) mod apply;
pub(crate) mod backup;
pub(crate) mod batch;
pub(crate) mod checkpoint;
mod cleanup;
pub(crate) mod condition;
pub(crate) mod connection;
pub(crate) mod intents;
mod legs;
pub(crate) mod listing;
pub(crate) mod lock;
pub(crate) mod migrate;
mod names;
mod objects;
pub(crate) mod open;
pub(crate) mod overview;
pub(crate) mod overwrite;
pub(crate) mod parts;
pub(crate) mod private;
pub(crate) mod read;
pub(crate) mod readers;
pub(crate) mod store;
pub(crate) mod uploads;
pub(crate) mod usage;
pub(crate) mod verify;

use rusqlite::Row;

use crate::fault::Fault;
use crate::values::Cells;

/// This process: SQLite admits one instance.
pub(crate) const INSTANCE: i64 = 1;

impl Cells for Row<'_> {
    fn maybe_int(&self, column: usize) -> Result<Option<i64>, Fault> {
        Ok(self.get(column)?)
    }

    fn maybe_text(&self, column: usize) -> Result<Option<String>, Fault> {
        Ok(self.get(column)?)
    }

    fn maybe_id(&self, column: usize) -> Result<Option<[u8; 16]>, Fault> {
        Ok(self.get(column)?)
    }

    fn maybe_bytes(&self, column: usize) -> Result<Option<Vec<u8>>, Fault> {
        Ok(self.get(column)?)
    }

    /// Keys are BLOBs here.
    fn key_text(&self, column: usize) -> Result<String, Fault> {
        let bytes: Vec<u8> = self.get(column)?;
        String::from_utf8(bytes)
            .map_err(|error| Fault::damaged(format!("the key {:?}", error.as_bytes())))
    }

    fn flag(&self, column: usize) -> Result<bool, Fault> {
        Ok(self.get(column)?)
    }
}
