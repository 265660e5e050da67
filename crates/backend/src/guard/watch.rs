//! Whether a provider that is being sent a payload makes progress; and a permit only while it does.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use base::Traffic;
use bytes::Bytes;
use futures_util::stream::Stream;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::meter::Meter;
use super::permit::Permit;
use crate::{Chunks, PayloadCut};

/// Whose turn it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    /// The provider's, since then: it has a chunk to take, or owes its answer.
    Provider(Instant),
    /// Ours: it asked for bytes that are not there yet.
    Us,
}

struct WatchState {
    turn: Side,
    permit: Permit,
    /// The body was cut because no permit came.
    starved: bool,
}

/// The turns of one write.
pub(super) struct WriteProgress {
    state: Mutex<WatchState>,
    changed: Notify,
    bytes: Arc<AtomicU64>,
    meter: Arc<dyn Meter>,
}

impl WriteProgress {
    pub(super) fn new(permit: Permit, bytes: Arc<AtomicU64>, meter: Arc<dyn Meter>) -> Self {
        let state = WatchState {
            turn: Side::Provider(Instant::now()),
            permit,
            starved: false,
        };
        Self {
            state: Mutex::new(state),
            changed: Notify::new(),
            bytes,
            meter,
        }
    }

    /// The provider waits for bytes that are not there, and others may have the permit.
    fn wait_for_us(&self) {
        let mut state = self.state.lock();
        state.turn = Side::Us;
        state.permit.release();
    }

    /// Bytes are there, or the end of them is: resolves when they may go, and then it is the provider's turn.
    fn poll_provider(&self, cx: &mut Context<'_>) -> Poll<Result<(), PayloadCut>> {
        let now = Instant::now();
        let mut state = self.state.lock();
        state.permit.take_turns(now);
        match state.permit.poll_held(cx) {
            Poll::Pending => {
                state.turn = Side::Us;
                return Poll::Pending;
            }
            Poll::Ready(Err(_starved)) => {
                state.starved = true;
                return Poll::Ready(Err(PayloadCut));
            }
            Poll::Ready(Ok(())) => {}
        }
        let before = std::mem::replace(&mut state.turn, Side::Provider(now));
        drop(state);
        // A deadline that merely moved is read again when the old one passes; only the beginning of
        // the provider's turn must wake the watcher.
        if before == Side::Us {
            self.changed.notify_one();
        }
        Poll::Ready(Ok(()))
    }

    /// Whether the body was cut because no permit came in time.
    pub(super) fn is_starved(&self) -> bool {
        self.state.lock().starved
    }

    fn took(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.meter.traffic(Traffic {
            ingress: bytes,
            ..Traffic::NONE
        });
    }

    /// Resolves when the provider has had its turn for `limit` without progress.
    pub(super) async fn stalled(&self, limit: Duration) {
        loop {
            let turn = self.state.lock().turn;
            match turn {
                Side::Us => self.changed.notified().await,
                Side::Provider(since) if since.elapsed() >= limit => return,
                Side::Provider(since) => tokio::time::sleep_until(since + limit).await,
            }
        }
    }
}

struct Watched {
    chunks: Chunks,
    /// What waits for a permit: a chunk, or the end.
    ready: Option<Option<Result<Bytes, PayloadCut>>>,
    progress: Arc<WriteProgress>,
}

/// The same chunks; every one that is taken is progress.
pub(super) fn watched(chunks: Chunks, progress: Arc<WriteProgress>) -> Chunks {
    Box::pin(Watched {
        chunks,
        ready: None,
        progress,
    })
}

impl Stream for Watched {
    type Item = Result<Bytes, PayloadCut>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        let item = match this.ready.take() {
            Some(item) => item,
            None => match this.chunks.as_mut().poll_next(cx) {
                Poll::Ready(item) => item,
                Poll::Pending => {
                    this.progress.wait_for_us();
                    return Poll::Pending;
                }
            },
        };
        match this.progress.poll_provider(cx) {
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(cut)) => return Poll::Ready(Some(Err(cut))),
            Poll::Pending => {
                this.ready = Some(item);
                return Poll::Pending;
            }
        }
        if let Some(Ok(chunk)) = &item {
            this.progress.took(chunk.len() as u64);
        }
        Poll::Ready(item)
    }
}
