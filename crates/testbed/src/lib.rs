//! What tests of several crates and the benchmarks share: servers, a provider made of memory, and a
//! checker of histories.
//!
//! The servers are started on free ports in temporary folders, as an unprivileged user
//! where they refuse root, ended by the kernel with whoever started them.
//!
//! A server that is missing is a failure with the way to get it, never a skipped test.

#![expect(
    clippy::disallowed_methods,
    reason = "other processes are waited for, in real time; how long a test runs is no setting of the \
              program"
)]

#[cfg(feature = "sink")]
pub mod content;
#[cfg(feature = "sink")]
pub mod gate;
pub mod linear;
mod pgbouncer;
mod postgres;
mod process;
#[cfg(feature = "sink")]
pub mod sink;

use std::ops::Range;

pub use pgbouncer::PgBouncer;
pub use postgres::{BaseBackup, Certificate, Database, Durability, Postgres};

/// A number that a longer run puts into the environment, for a test that says how much there is of it.
pub fn number_from(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |text| {
        text.parse()
            .unwrap_or_else(|_| panic!("{variable} is a number, not {text:?}"))
    })
}

/// The seeds of a test: the first so many, or `S3O_SEEDS` from `S3O_SEED` on.
pub fn seeds(count: u64) -> Range<u64> {
    let first = number_from("S3O_SEED", 0);
    first..first + number_from("S3O_SEEDS", count)
}
