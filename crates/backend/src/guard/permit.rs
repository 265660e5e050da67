//! Permission to be one of a provider's calls under way, for as long as bytes move.

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

/// What an error says where no permit came in time.
pub(super) const STARVED: &str = "too many calls to this backend are under way";

/// How long a transfer that never waits for its client keeps its permit before others may have a turn.
const TURN_MAX: Duration = Duration::from_secs(1);

/// No permit came in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Starved;

/// A permit of a pool that may be given back for a while, and is asked for again. Waiters are served in
/// the order in which they came, so no transfer is kept from its bytes by others for ever.
pub(super) struct Permit {
    pool: Arc<Semaphore>,
    held: Option<OwnedSemaphorePermit>,
    since: Instant,
    waiting: Option<BoxFuture<'static, Result<OwnedSemaphorePermit, Starved>>>,
    wait_max: Duration,
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit")
            .field("held", &self.held.is_some())
            .finish_non_exhaustive()
    }
}

impl Permit {
    /// Waits for a permit, now and whenever it was given back, for `wait_max` at most.
    pub(super) async fn acquire(pool: Arc<Semaphore>, wait_max: Duration) -> Result<Self, Starved> {
        // Mostly there is one, and then nobody waits in front of us.
        let held = match Arc::clone(&pool).try_acquire_owned() {
            Ok(held) => held,
            Err(_) => acquire(Arc::clone(&pool), wait_max).await?,
        };
        Ok(Self {
            pool,
            held: Some(held),
            since: Instant::now(),
            waiting: None,
            wait_max,
        })
    }

    /// Gives it back where it was held for long, so that who waits for one comes first.
    pub(super) fn take_turns(&mut self, now: Instant) {
        if self.held.is_some() && now.duration_since(self.since) >= TURN_MAX {
            self.release();
            self.since = now;
        }
    }

    /// Resolves when the permit is held.
    pub(super) fn poll_held(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Starved>> {
        if self.held.is_some() {
            return Poll::Ready(Ok(()));
        }
        if self.waiting.is_none()
            && let Ok(held) = Arc::clone(&self.pool).try_acquire_owned()
        {
            self.held = Some(held);
            self.since = Instant::now();
            return Poll::Ready(Ok(()));
        }
        let waiting = self
            .waiting
            .get_or_insert_with(|| Box::pin(acquire(Arc::clone(&self.pool), self.wait_max)));
        let outcome = ready!(waiting.as_mut().poll(cx));
        self.waiting = None;
        self.held = Some(outcome?);
        self.since = Instant::now();
        Poll::Ready(Ok(()))
    }

    /// Gives it back until somebody asks for it again.
    pub(super) fn release(&mut self) {
        self.held = None;
    }
}

async fn acquire(
    pool: Arc<Semaphore>,
    wait_max: Duration,
) -> Result<OwnedSemaphorePermit, Starved> {
    match tokio::time::timeout(wait_max, pool.acquire_owned()).await {
        Ok(permit) => Ok(permit.expect("the semaphore is never closed")),
        Err(_elapsed) => Err(Starved),
    }
}
