//! Group commit: one task takes what waits, without artificial delay, and has it applied as one
//! transaction. The previous transaction's commit is the time in which the next batch gathers.
//!
//! The same loop serves the catalogue and its intents, on each database.

use tokio::sync::{mpsc, watch};
use tokio::task::{spawn, spawn_blocking};

/// Jobs in one transaction.
pub(crate) const BATCH_JOBS_MAX: usize = 256;
/// Rows after which no further job joins a transaction.
pub(crate) const BATCH_ROWS_MAX: usize = 1_000;
/// Jobs that wait in each lane; a caller waits for a place.
pub(crate) const QUEUE_JOBS_MAX: usize = 4_096;
/// Jobs, and rows, of each batch that the normal lane leaves to the low-priority one.
const LOW_SHARE_JOBS: usize = 32;
const LOW_SHARE_ROWS: usize = 200;

/// Applies batches; owns the connection that writes.
pub(crate) trait Applier: Sized + Send + 'static {
    /// A job with whatever answers it.
    type Item: Send + 'static;

    /// Applies what waits, `first` at its head, each batch as one transaction, and answers all of it;
    /// itself and the queues, unless they are lost.
    fn work(
        self,
        queues: Queues<Self::Item>,
        first: Self::Item,
    ) -> impl Future<Output = Option<(Self, Queues<Self::Item>, Health)>> + Send;

    /// No batch follows.
    fn finish(self) -> impl Future<Output = ()> + Send;
}

/// An applier whose database blocks.
///
/// Batches run through `spawn_blocking`, not on a thread of its own: so a test that pauses time
/// sees a transaction under way as work, not as idleness.
pub(crate) trait BlockingApplier: Send + 'static {
    /// A job with whatever answers it.
    type Item: Send + 'static;

    /// About how many rows a job touches.
    fn rows(item: &Self::Item) -> usize;

    /// Applies the items as one transaction and answers them all.
    fn apply(&mut self, items: Vec<Self::Item>) -> Health;

    /// No batch follows.
    fn finish(&mut self);
}

/// Lets an applier block where that is allowed.
pub(crate) struct Blocking<A>(pub(crate) A);

impl<A: BlockingApplier> Applier for Blocking<A> {
    type Item = A::Item;

    /// Batch after batch, for as long as something waits: whoever comes meanwhile wakes nobody.
    async fn work(
        mut self,
        mut queues: Queues<Self::Item>,
        first: Self::Item,
    ) -> Option<(Self, Queues<Self::Item>, Health)> {
        let worked = spawn_blocking(move || {
            let mut next = Some(first);
            while let Some(first) = next {
                // No delay: only who is about to ask may do so first, where cores are short.
                std::thread::yield_now();
                let batch = queues.gather(first, A::rows);
                if self.0.apply(batch) == Health::Dead {
                    return (self, queues, Health::Dead);
                }
                next = queues.waiting();
            }
            (self, queues, Health::Sound)
        });
        match worked.await {
            Ok(worked) => Some(worked),
            // It took the connection with it: the queues go, and every caller learns `Closed`.
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            // The runtime is going down.
            Err(_) => None,
        }
    }

    async fn finish(mut self) {
        let _finished = spawn_blocking(move || self.0.finish()).await;
    }
}

/// Whether an applier can go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Health {
    /// The next batch may come.
    Sound,
    /// What is durable is unknown: nothing may be answered any more.
    Dead,
}

/// Which queue a job waits in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Priority {
    /// Somebody waits for it.
    Normal,
    /// One of many: behind the normal ones.
    Low,
}

/// The way to a writer.
pub(crate) struct Lane<I> {
    normal: mpsc::Sender<I>,
    low: mpsc::Sender<I>,
    stop: watch::Sender<bool>,
    done: watch::Receiver<bool>,
}

impl<I: Send + 'static> Lane<I> {
    /// Starts a writer. It ends when the lane is closed or dropped, after what waits. `panicked` is
    /// called where a batch panicked: what is in memory may no longer be what is in rows.
    pub(crate) fn start<A: Applier<Item = I>>(
        applier: A,
        panicked: impl FnOnce() + Send + 'static,
    ) -> Self {
        let (normal, normal_queue) = mpsc::channel(QUEUE_JOBS_MAX);
        let (low, low_queue) = mpsc::channel(QUEUE_JOBS_MAX);
        let (stop, stopped) = watch::channel(false);
        let (finished, done) = watch::channel(false);
        let queues = Queues {
            normal: normal_queue,
            low: low_queue,
            stopped,
        };
        let serving = spawn(serve(applier, queues));
        drop(spawn(async move {
            if serving.await.is_err_and(|error| error.is_panic()) {
                panicked();
            }
            finished.send_replace(true);
        }));
        Self {
            normal,
            low,
            stop,
            done,
        }
    }

    /// Queues an item, waiting for a place; gives it back where the writer has ended.
    pub(crate) async fn send(&self, item: I, priority: Priority) -> Result<(), I> {
        let queue = match priority {
            Priority::Normal => &self.normal,
            Priority::Low => &self.low,
        };
        queue.send(item).await.map_err(|refused| refused.0)
    }

    /// Queues an item that may as well be forgotten.
    pub(crate) fn offer(&self, item: I) {
        let _forgotten_where_full = self.low.try_send(item);
    }

    /// Refuses new items and resolves when those that wait are answered.
    pub(crate) async fn close(&self) {
        self.stop.send_replace(true);
        let mut done = self.done.clone();
        let _ended_either_way = done.wait_for(|done| *done).await;
    }
}

/// What waits for a writer.
pub(crate) struct Queues<I> {
    normal: mpsc::Receiver<I>,
    low: mpsc::Receiver<I>,
    stopped: watch::Receiver<bool>,
}

impl<I> Queues<I> {
    /// The first item of a batch; `None` when there will be none.
    async fn first(&mut self) -> Option<I> {
        loop {
            // A lane that was dropped took its end of `stopped` with it.
            if *self.stopped.borrow() || self.stopped.has_changed().is_err() {
                self.normal.close();
                self.low.close();
                return match self.normal.recv().await {
                    Some(item) => Some(item),
                    None => self.low.recv().await,
                };
            }
            tokio::select! {
                biased;
                Some(item) = self.normal.recv() => return Some(item),
                Some(item) = self.low.recv() => return Some(item),
                _changed = self.stopped.changed() => {}
            }
        }
    }

    /// An item that waits; `None` also where the end is to be looked at first.
    fn waiting(&mut self) -> Option<I> {
        if *self.stopped.borrow() || self.stopped.has_changed().is_err() {
            return None;
        }
        let item = self.normal.try_recv().or_else(|_| self.low.try_recv());
        item.ok()
    }

    /// What waits besides the first item, up to the bounds of a batch.
    pub(crate) fn gather(&mut self, first: I, rows_of: fn(&I) -> usize) -> Vec<I> {
        let mut rows = rows_of(&first);
        let mut batch = vec![first];
        for (queue, jobs_max, rows_max) in [
            (
                &mut self.normal,
                BATCH_JOBS_MAX - LOW_SHARE_JOBS,
                BATCH_ROWS_MAX - LOW_SHARE_ROWS,
            ),
            (&mut self.low, BATCH_JOBS_MAX, BATCH_ROWS_MAX),
        ] {
            while batch.len() < jobs_max
                && rows < rows_max
                && let Ok(item) = queue.try_recv()
            {
                rows = rows.saturating_add(rows_of(&item));
                batch.push(item);
            }
        }
        batch
    }
}

async fn serve<A: Applier>(mut applier: A, mut queues: Queues<A::Item>) {
    while let Some(first) = queues.first().await {
        match applier.work(queues, first).await {
            Some((back, rest, Health::Sound)) => (applier, queues) = (back, rest),
            Some((_, _, Health::Dead)) | None => return,
        }
    }
    applier.finish().await;
}
