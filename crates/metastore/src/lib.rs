//! The catalogue: every SQL statement of the project, group commit, and the quota ledger.
//!
//! Read `migrations/` for what is remembered, [`model`] for the values that go
//! in and come out, and [`Store`] for what can be done. The crate knows nothing of S3, of providers
//! or of policy: which backend, when, how often is decided by the engine.
//!
//! A write goes through three rooms: [`Store`] makes a job of it, plain data, with the guards that
//! it settles; `writer` gathers jobs into batches; a dialect (`sqlite`, `postgres`) applies a batch as
//! one transaction. What changes in memory (`live`) changes after the commit and before the answer.

mod check;
mod error;
mod fault;
mod guard;
mod job;
mod ledger;
mod live;
mod migration;
pub mod model;
#[cfg(feature = "testing")]
mod planted;
mod postgres;
mod rows;
mod settle;
mod sqlite;
mod store;
mod values;
mod writer;

pub use error::{DatabaseError, Error, Result};
pub use guard::{Intent, PartClaim, Reservation};
pub use job::Landing;
pub use migration::{MoveOptions, Moved, Progress, move_to_postgres};
#[cfg(feature = "testing")]
pub use planted::PlantedBug;
pub use postgres::store::ConnectOptions;
pub use postgres::{Server, TlsMode};
pub use store::{OpenOptions, Store, Tuning};

/// The version of the SQLite that is linked in.
pub fn sqlite_version() -> &'static str {
    rusqlite::version()
}
