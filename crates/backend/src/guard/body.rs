//! A body on its way from a provider, with a deadline of its own and a permit while its bytes move.

use std::future::Future as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use base::{BackendName, Traffic};
use bytes::Bytes;
use futures_util::stream::Stream;
use tokio::time::{Instant, Sleep};

use super::meter::{BodyEnd, CallOutcome, Meter};
use super::permit::{Permit, STARVED};
use crate::{Body, Effect, Error, Kind, Result};

/// What a provider must bring of a body, in bytes per second of the time in which it is waited for, beyond
/// `body_idle_timeout`: one byte now and then is no progress.
const BODY_RATE_MIN: u64 = 1 << 10;

/// The wrapped body. Its permit is held while it waits for the provider; a reader that does not ask
/// holds none.
pub(super) struct GuardedBody {
    body: Option<Body>,
    permit: Permit,
    meter: Arc<dyn Meter>,
    backend: BackendName,
    idle_limit: Duration,
    /// Made when the reader first waits: a small body comes with its head.
    timer: Option<Pin<Box<Sleep>>>,
    /// Since when the reader is waiting for the provider; a reader that does not ask stops no clock.
    waiting_since: Option<Instant>,
    /// How long it has waited in all.
    waited: Duration,
    bytes: u64,
}

impl GuardedBody {
    pub(super) fn new(
        body: Body,
        mut permit: Permit,
        meter: Arc<dyn Meter>,
        backend: BackendName,
        idle_limit: Duration,
    ) -> Self {
        // Who reads it may not ask for a long time.
        permit.release();
        Self {
            body: Some(body),
            permit,
            meter,
            backend,
            idle_limit,
            timer: None,
            waiting_since: None,
            waited: Duration::ZERO,
            bytes: 0,
        }
    }

    /// How long the provider may take to its next byte.
    fn wait_max(&self) -> Duration {
        let earned = Duration::from_millis(self.bytes.saturating_mul(1000) / BODY_RATE_MIN);
        let allowed = self.idle_limit.saturating_add(earned);
        self.idle_limit.min(allowed.saturating_sub(self.waited))
    }

    fn end(&mut self, outcome: CallOutcome) {
        if self.body.take().is_none() {
            return;
        }
        self.permit.release();
        let bytes = self.bytes;
        self.meter.body(&BodyEnd {
            backend: &self.backend,
            outcome,
            bytes,
        });
    }
}

impl Stream for GuardedBody {
    type Item = Result<Bytes>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        let Some(body) = this.body.as_mut() else {
            return Poll::Ready(None);
        };
        match this.permit.poll_held(cx) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(_starved)) => {
                this.end(CallOutcome::Fail(Kind::Throttled));
                let error = Error::new(Kind::Throttled, Effect::None, &this.backend, "get");
                return Poll::Ready(Some(Err(error.with_message(STARVED))));
            }
        }
        match body.as_mut().poll_next(cx) {
            Poll::Ready(Some(Ok(chunk))) => {
                if let Some(since) = this.waiting_since.take() {
                    this.waited += since.elapsed();
                }
                this.permit.release();
                let bytes = chunk.len() as u64;
                this.bytes += bytes;
                this.meter.traffic(Traffic {
                    egress: bytes,
                    ..Traffic::NONE
                });
                Poll::Ready(Some(Ok(chunk)))
            }
            Poll::Ready(Some(Err(error))) => {
                this.end(CallOutcome::Fail(error.kind));
                Poll::Ready(Some(Err(error)))
            }
            Poll::Ready(None) => {
                this.end(CallOutcome::Succeed);
                Poll::Ready(None)
            }
            Poll::Pending => {
                let limit = this.wait_max();
                let timer = this
                    .timer
                    .get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
                if this.waiting_since.is_none() {
                    let now = Instant::now();
                    this.waiting_since = Some(now);
                    timer.as_mut().reset(now + limit);
                }
                if timer.as_mut().poll(cx).is_pending() {
                    return Poll::Pending;
                }
                this.end(CallOutcome::Fail(Kind::TimedOut));
                let error = Error::new(Kind::TimedOut, Effect::None, &this.backend, "get");
                Poll::Ready(Some(Err(
                    error.with_message("the body made no progress, or too little")
                )))
            }
        }
    }
}

impl Drop for GuardedBody {
    fn drop(&mut self) {
        self.end(CallOutcome::Drop);
    }
}
