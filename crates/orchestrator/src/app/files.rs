//! How many files the process may have open: connections and stored objects share that number.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::{info, warn};

/// Below this, idle clients could keep the program from opening files.
const FILES_WANTED: u64 = 65_536;

/// Raises the soft limit as far as the system lets us, up to what is wanted.
pub(super) fn raise_limit() {
    let found = getrlimit(Resource::Nofile);
    let now = found.current.unwrap_or(u64::MAX);
    let wanted = FILES_WANTED.min(found.maximum.unwrap_or(u64::MAX));
    if now >= wanted {
        return;
    }
    let raised = Rlimit {
        current: Some(wanted),
        maximum: found.maximum,
    };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => info!(from = now, to = wanted, "limit on open files raised"),
        Err(error) => warn!(limit = now, %error, "could not raise the limit on open files"),
    }
}
