//! A body on its way from a provider, with the place that it holds and a deadline of its own.

use std::future::Future as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use base::{BackendName, Traffic};
use bytes::Bytes;
use futures_util::stream::Stream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, Sleep};

use super::meter::{BodyEnd, Meter, Outcome};
use crate::{Body, Effect, Error, Kind, Result};

/// The wrapped body. Its place is free again as soon as it has ended or is dropped.
pub(super) struct GuardedBody {
    body: Option<Body>,
    place: Option<OwnedSemaphorePermit>,
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
        place: OwnedSemaphorePermit,
        meter: Arc<dyn Meter>,
        backend: BackendName,
        idle_limit: Duration,
    ) -> Self {
        Self {
            body: Some(body),
            place: Some(place),
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
        self.place = None;
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
        match body.as_mut().poll_next(cx) {
            Poll::Ready(Some(Ok(chunk))) => {
                this.waiting = false;
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
