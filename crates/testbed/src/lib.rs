//! Servers that tests run against: started on free ports in temporary folders, as an unprivileged user
//! where they refuse root, ended by the kernel with whoever started them.
//!
//! A server that is missing is a failure with the way to get it, never a skipped test.

#![expect(
    clippy::missing_panics_doc,
    reason = "a testbed that cannot be set up fails its test"
)]

mod postgres;
mod process;

pub use postgres::{Database, Durability, Postgres};
