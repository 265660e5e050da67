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

use super::meter::{BodyEnd, Meter, Outcome};
use super::permit::{Permit, STARVED};
use crate::{Body, Effect, Error, Kind, Result};

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
    /// Whether the reader is waiting for the provider; a reader that does not ask stops no clock.
    waiting: bool,
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
            waiting: false,
            bytes: 0,
        }
    }

    fn end(&mut self, outcome: Outcome) {
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
                this.end(Outcome::Fail(Kind::Throttled));
                let error = Error::new(Kind::Throttled, Effect::None, &this.backend, "get");
                return Poll::Ready(Some(Err(error.with_message(STARVED))));
            }
        }
        match body.as_mut().poll_next(cx) {
            Poll::Ready(Some(Ok(chunk))) => {
                this.waiting = false;
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
                this.end(Outcome::Fail(error.kind));
                Poll::Ready(Some(Err(error)))
            }
            Poll::Ready(None) => {
                this.end(Outcome::Succeed);
                Poll::Ready(None)
            }
            Poll::Pending => {
                let limit = this.idle_limit;
                let timer = this
                    .timer
                    .get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
                if !this.waiting {
                    this.waiting = true;
                    timer.as_mut().reset(Instant::now() + limit);
                }
                if timer.as_mut().poll(cx).is_pending() {
                    return Poll::Pending;
                }
                this.end(Outcome::Fail(Kind::TimedOut));
                let error = Error::new(Kind::TimedOut, Effect::None, &this.backend, "get");
                Poll::Ready(Some(Err(error.with_message("the body made no progress"))))
            }
        }
    }
}

impl Drop for GuardedBody {
    fn drop(&mut self) {
        self.end(Outcome::Drop);
    }
}
