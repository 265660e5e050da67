//! What operators see: metrics, log lines, and the audit trail among them.
//!
//! Every metric is named once, in [`metrics`]; every audit event once, in [`audit`]. Nothing here
//! decides anything, and nothing here blocks the data path for longer than it takes to write a
//! line.

pub mod audit;
pub mod log;
pub mod metrics;
mod observer;

pub use observer::Recorder;
