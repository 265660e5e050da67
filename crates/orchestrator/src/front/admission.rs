//! How many requests are worked on at once.
//!
//! There is no waiting room: a client that is told to slow down at once can do something about it,
//! one that hangs cannot. The permit goes with the ticket, until the answer's last byte has left.

use std::sync::Arc;

use http::Method;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::config::Admission;

/// The pools of permits.
#[derive(Debug)]
pub(super) struct Pools {
    reads: Arc<Semaphore>,
    writes: Arc<Semaphore>,
}

impl Pools {
    /// Pools of these sizes.
    pub(super) fn new(admission: Admission) -> Self {
        let pool =
            |requests: usize| Arc::new(Semaphore::new(requests.clamp(1, Semaphore::MAX_PERMITS)));
        match admission {
            Admission::Shared { requests } => {
                let shared = pool(requests);
                Self {
                    reads: Arc::clone(&shared),
                    writes: shared,
                }
            }
            Admission::Split { reads, writes } => Self {
                reads: pool(reads),
                writes: pool(writes),
            },
        }
    }

    /// A place for a request with this method; `None` where all are taken.
    pub(super) fn admit(&self, method: &Method) -> Option<OwnedSemaphorePermit> {
        let pool = match *method {
            Method::GET | Method::HEAD => &self.reads,
            _ => &self.writes,
        };
        Arc::clone(pool).try_acquire_owned().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn split_pools_do_not_take_from_each_other() {
        let pools = Pools::new(Admission::Split {
            reads: 1,
            writes: 1,
        });
        let read = pools.admit(&Method::HEAD).unwrap();
        assert!(pools.admit(&Method::GET).is_none());
        let _write = pools.admit(&Method::PUT).unwrap();
        assert!(pools.admit(&Method::DELETE).is_none());
        drop(read);
        assert!(pools.admit(&Method::GET).is_some());
    }

    #[test]
    fn a_shared_pool_counts_every_method() {
        let pools = Pools::new(Admission::Shared { requests: 1 });
        let _read = pools.admit(&Method::GET).unwrap();
        assert!(pools.admit(&Method::PUT).is_none());
    }
}
