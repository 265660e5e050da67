//! Integration tests of the program, one binary for all of them.

#![expect(
    clippy::unwrap_used,
    reason = "a helper of a test may panic as the test itself may"
)]

mod cli;
mod config;
mod front;
