//! The conformance suite on every implementation, and what only one of them promises.

mod faulty;
mod guard;
mod local;
mod memory;
mod s3_bodies;
mod s3_exchange;
mod s3_probe;
mod s3_script;
mod s3_servers;
mod s3_tls;
