//! The real program as its users have it: a process that is killed, measured, and met by everything
//! that goes wrong around it.
//!
//! Nothing here looks inside: the tests speak S3, send signals, run the program's own commands, and
//! look at the files that are left.

#![expect(
    clippy::unwrap_used,
    reason = "a helper of a test may panic as the test itself may"
)]

mod deployment;
mod failures;
mod instances;
mod kill;
mod memory;
mod support;
