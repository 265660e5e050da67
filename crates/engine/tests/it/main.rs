//! The engine against real backends and a real catalogue.
#![expect(clippy::unwrap_used, reason = "a test fails where it must not go on")]
#![expect(
    clippy::clone_on_ref_ptr,
    reason = "a clone that also becomes a trait object reads best so"
)]

mod beginning;
mod cleaning;
mod content;
mod interleaved;
mod model;
mod multipart;
mod proven;
mod recovery;
mod settled;
mod usage;
mod verbs;
mod world;
