//! Threads that serve connections, one per core, each on a runtime of its own.
//!
//! A connection stays on its thread for life, and so do the connections to backends that its requests
//! use: nothing that a request wakes is anywhere else, so that no thread is woken for it. New
//! connections go where the fewest are.
//!
//! Log lines of these threads are held until the thread has nothing left to do, and leave in one write
//! before it goes to sleep.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;
use tracing::error;

use crate::telemetry::log;

/// The threads; they end when this is dropped, with everything that still runs on them.
pub struct Cores(Box<[Core]>);

struct Core {
    runtime: Handle,
    connections: Arc<AtomicUsize>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// A connection that counts as one of its core's.
#[derive(Debug)]
pub(super) struct Seat(Arc<AtomicUsize>);

impl Cores {
    /// One per core that this process may use.
    pub fn start() -> io::Result<Self> {
        // Where the system does not tell, one serves.
        let count = thread::available_parallelism().map_or(1, usize::from);
        (0..count)
            .map(Core::start)
            .collect::<io::Result<_>>()
            .map(Self)
    }

    /// The core with the fewest connections, and a seat there.
    pub(super) fn seat(&self) -> (&Handle, Seat) {
        let load = |core: &&Core| core.connections.load(Ordering::Relaxed);
        let core = self.0.iter().min_by_key(load).expect("there is a core");
        core.connections.fetch_add(1, Ordering::Relaxed);
        (&core.runtime, Seat(Arc::clone(&core.connections)))
    }
}

impl Core {
    fn start(number: usize) -> io::Result<Self> {
        let runtime = Builder::new_current_thread()
            .enable_all()
            .on_thread_park(log::let_go)
            .build()?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel();
        let thread = thread::Builder::new()
            .name(format!("core-{number}"))
            .spawn(move || {
                log::hold();
                // A sender that is gone stops us as well.
                let _ = runtime.block_on(stopped);
                // What still blocks was cut off on purpose.
                runtime.shutdown_background();
                log::let_go();
            })?;
        Ok(Self {
            runtime: handle,
            connections: Arc::default(),
            stop: Some(stop),
            thread: Some(thread),
        })
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(Err(_)) = self.thread.take().map(JoinHandle::join) {
            error!("connection thread panicked");
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl fmt::Debug for Cores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cores").finish_non_exhaustive()
    }
}
