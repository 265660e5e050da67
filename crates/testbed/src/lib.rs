//! What tests of several crates and the benchmarks share: servers, a provider made of memory, and a
//! checker of histories.
//!
//! The servers are started on free ports in temporary folders, as an unprivileged user
//! where they refuse root, ended by the kernel with whoever started them.
//!
//! A server that is missing is a failure with the way to get it, never a skipped test.

#![expect(
    clippy::disallowed_methods,
    reason = "other processes are waited for, in real time"
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

pub use pgbouncer::PgBouncer;
pub use postgres::{BaseBackup, Certificate, Database, Durability, Postgres};
