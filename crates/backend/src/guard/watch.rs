//! Whether a provider that is being sent a payload makes progress.

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
use crate::{Chunks, PayloadCut};

/// Whose turn it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// The provider's, since then: it has a chunk to take, or owes its answer.
    Provider(Instant),
    /// Ours: it asked for bytes that are not there yet.
    Us,
}

/// The turns of one write.
pub(super) struct Progress {
    turn: Mutex<Turn>,
    changed: Notify,
    bytes: Arc<AtomicU64>,
    meter: Arc<dyn Meter>,
}

impl Progress {
    pub(super) fn new(bytes: Arc<AtomicU64>, meter: Arc<dyn Meter>) -> Self {
        let turn = Mutex::new(Turn::Provider(Instant::now()));
        Self {
            turn,
            changed: Notify::new(),
            bytes,
            meter,
        }
    }

    fn set(&self, turn: Turn) {
        let before = std::mem::replace(&mut *self.turn.lock(), turn);
        // A deadline that merely moved is read again when the old one passes; only the beginning of
        // the provider's turn must wake the watcher.
        if before == Turn::Us && turn != Turn::Us {
            self.changed.notify_one();
        }
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
            let turn = *self.turn.lock();
            match turn {
                Turn::Us => self.changed.notified().await,
                Turn::Provider(since) if since.elapsed() >= limit => return,
                Turn::Provider(since) => tokio::time::sleep_until(since + limit).await,
            }
        }
    }
}

struct Watched {
    chunks: Chunks,
    progress: Arc<Progress>,
}

/// The same chunks; every one that is taken is progress.
pub(super) fn watched(chunks: Chunks, progress: Arc<Progress>) -> Chunks {
    Box::pin(Watched { chunks, progress })
}

impl Stream for Watched {
    type Item = Result<Bytes, PayloadCut>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let polled = self.chunks.as_mut().poll_next(cx);
        match &polled {
            Poll::Pending => self.progress.set(Turn::Us),
            Poll::Ready(item) => {
                if let Some(Ok(chunk)) = item {
                    self.progress.took(chunk.len() as u64);
                }
                self.progress.set(Turn::Provider(Instant::now()));
            }
        }
        polled
    }
}
