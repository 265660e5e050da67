//! A gate that shows how many bodies are in flight at the same moment.

use std::sync::Arc;

use tokio::sync::Barrier;

/// Holds bodies until enough of them are under way.
#[derive(Debug)]
pub struct Gate {
    pub(crate) offset: u64,
    here: Barrier,
    go: Barrier,
}

impl Gate {
    /// A gate for exactly so many bodies, each of which it holds at this offset.
    pub fn new(bodies: usize, offset: u64) -> Arc<Self> {
        Arc::new(Self {
            offset,
            here: Barrier::new(bodies + 1),
            go: Barrier::new(bodies + 1),
        })
    }

    /// Waits until all of them are here.
    pub async fn all_here(&self) {
        self.here.wait().await;
    }

    /// Lets them go on.
    pub async fn release(&self) {
        self.go.wait().await;
    }

    /// Arrives with one body and goes on with all of them.
    pub(crate) async fn pass(&self) {
        self.here.wait().await;
        self.go.wait().await;
    }
}
