//! The bounded ring between one incoming body and the backends that it goes to.
//!
//! The pump pushes pieces; every leg reads them at its own pace. Pieces stay while a leg still needs
//! them, and from the beginning as long as the whole body so far fits the replay window, so that
//! another backend can be given all of it. Memory is bounded by the larger of the two limits plus
//! one piece, whatever the body's size.

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};

use backend::{Chunks, PayloadCut};
use base::Crc64;
use bytes::Bytes;
use futures_util::stream;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

/// How far the fastest may be ahead of the slowest leg, in bytes.
const RING_BYTES_MAX: u64 = 256 << 10;

/// Opens when the last piece may go out: the leg's intent is durable.
pub(crate) type Gate = watch::Receiver<bool>;

pub(crate) struct Window {
    shared: Arc<Shared>,
    sum: Arc<OnceLock<Crc64>>,
}

struct Shared {
    length: u64,
    replay_bytes: u64,
    state: Mutex<State>,
    /// There are more pieces, or the end came.
    more: Notify,
    /// A leg has taken pieces, came or went.
    taken: Notify,
}

#[derive(Default)]
struct State {
    pieces: VecDeque<Bytes>,
    /// Offset of the first piece that is still here.
    start: u64,
    /// Offset behind the last piece.
    end: u64,
    cut: bool,
    /// Offsets up to which each leg has read; `None` for legs that are gone.
    legs: Vec<Option<u64>>,
}

impl State {
    fn slowest(&self) -> Option<u64> {
        self.legs.iter().flatten().min().copied()
    }

    fn evict(&mut self, replay_bytes: u64) {
        if self.end <= replay_bytes {
            return;
        }
        let keep_from = self.slowest().unwrap_or(self.end);
        while let Some(first) = self.pieces.front() {
            let next = self.start + first.len() as u64;
            if next > keep_from {
                break;
            }
            self.start = next;
            self.pieces.pop_front();
        }
    }
}

impl Window {
    pub(crate) fn new(length: u64, replay_bytes: u64) -> Self {
        Self {
            shared: Arc::new(Shared {
                length,
                replay_bytes,
                state: Mutex::new(State::default()),
                more: Notify::new(),
                taken: Notify::new(),
            }),
            sum: Arc::default(),
        }
    }

    /// The sum of the body, which is there before its last piece is.
    pub(crate) fn sum(&self) -> &Arc<OnceLock<Crc64>> {
        &self.sum
    }

    /// Whether a new leg could still be given the body from its first byte.
    pub(crate) fn can_replay(&self) -> bool {
        self.shared.state.lock().start == 0
    }

    /// Adds a piece, once the slowest leg is near enough. Waits for ever while there is no leg and
    /// the replay window is full: the caller races this against its legs.
    pub(crate) async fn push(&self, piece: Bytes) {
        loop {
            let taken = self.shared.taken.notified();
            tokio::pin!(taken);
            taken.as_mut().enable();
            {
                let mut state = self.shared.state.lock();
                let within_replay = state.end + piece.len() as u64 <= self.shared.replay_bytes;
                let lag = state.slowest().map(|slowest| state.end - slowest);
                if within_replay || lag.is_some_and(|lag| lag < RING_BYTES_MAX) {
                    state.end += piece.len() as u64;
                    state.pieces.push_back(piece);
                    state.evict(self.shared.replay_bytes);
                    break;
                }
            }
            taken.await;
        }
        self.shared.more.notify_waiters();
    }

    /// Ends the body early: every leg sees it as cut.
    pub(crate) fn cut(&self) {
        self.shared.state.lock().cut = true;
        self.shared.more.notify_waiters();
    }

    /// The body from its first byte for one leg; the last piece waits for the gate.
    ///
    /// # Panics
    /// If the window can no longer replay.
    pub(crate) fn leg(&self, gate: Gate) -> Chunks {
        let slot = {
            let mut state = self.shared.state.lock();
            assert_eq!(state.start, 0, "a leg begins while the window can replay");
            state.legs.push(Some(0));
            state.legs.len() - 1
        };
        self.shared.taken.notify_waiters();
        let reader = Reader {
            shared: Arc::clone(&self.shared),
            slot,
            offset: 0,
            gate,
        };
        Box::pin(stream::unfold(Some(reader), |reader| async move {
            let mut reader = reader?;
            match reader.next().await {
                Ok(Some(piece)) => Some((Ok(piece), Some(reader))),
                Ok(None) => None,
                Err(cut) => Some((Err(cut), None)),
            }
        }))
    }
}

/// A body that nobody completes any more is cut; one that is whole goes on to its legs.
impl Drop for Window {
    fn drop(&mut self) {
        let whole = self.shared.state.lock().end == self.shared.length;
        if !whole {
            self.cut();
        }
    }
}

struct Reader {
    shared: Arc<Shared>,
    slot: usize,
    offset: u64,
    gate: Gate,
}

impl Reader {
    async fn next(&mut self) -> Result<Option<Bytes>, PayloadCut> {
        if self.offset == self.shared.length {
            return Ok(None);
        }
        let piece = self.wait().await?;
        let end = self.offset + piece.len() as u64;
        if end == self.shared.length {
            self.gate
                .wait_for(|open| *open)
                .await
                .map_err(|_| PayloadCut)?;
        }
        self.offset = end;
        {
            let mut state = self.shared.state.lock();
            state.legs[self.slot] = Some(end);
            state.evict(self.shared.replay_bytes);
        }
        self.shared.taken.notify_waiters();
        Ok(Some(piece))
    }

    async fn wait(&self) -> Result<Bytes, PayloadCut> {
        loop {
            let more = self.shared.more.notified();
            tokio::pin!(more);
            more.as_mut().enable();
            {
                let state = self.shared.state.lock();
                if state.cut {
                    return Err(PayloadCut);
                }
                let mut offset = state.start;
                for piece in &state.pieces {
                    if offset == self.offset {
                        return Ok(piece.clone());
                    }
                    offset += piece.len() as u64;
                }
            }
            more.await;
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        {
            let mut state = self.shared.state.lock();
            state.legs[self.slot] = None;
            state.evict(self.shared.replay_bytes);
        }
        self.shared.taken.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{FutureExt, StreamExt};

    use super::*;

    fn open() -> Gate {
        watch::channel(true).1
    }

    fn piece(bytes: usize) -> Bytes {
        Bytes::from(vec![7; bytes])
    }

    // A receiver whose sender is gone still sees the last value, so an open gate stays open.
    #[tokio::test]
    async fn a_late_leg_gets_everything_while_the_body_fits_the_replay_window() {
        let window = Window::new(300, 300);
        let first = window.leg(open());
        window.push(piece(100)).await;
        drop(first);
        window.push(piece(200)).await;
        assert!(window.can_replay());
        let all: Vec<_> = window.leg(open()).collect().await;
        assert_eq!(
            all.iter()
                .map(|piece| piece.as_ref().unwrap().len())
                .sum::<usize>(),
            300
        );
    }

    #[tokio::test]
    async fn beyond_the_replay_window_pieces_go_when_the_slowest_leg_has_them() {
        let window = Window::new(1 << 20, 100);
        let mut fast = window.leg(open());
        let mut slow = window.leg(open());
        for _ in 0..4 {
            window.push(piece(64 << 10)).await;
            fast.next().await.unwrap().unwrap();
        }
        assert!(
            window.push(piece(1)).now_or_never().is_none(),
            "the slow leg holds it back"
        );
        slow.next().await.unwrap().unwrap();
        assert!(!window.can_replay());
        assert!(window.push(piece(1)).now_or_never().is_some());
        drop(slow);
        let held: usize = window
            .shared
            .state
            .lock()
            .pieces
            .iter()
            .map(Bytes::len)
            .sum();
        assert_eq!(held, 1, "only what the fast leg has not read");
    }

    #[tokio::test]
    async fn the_last_piece_waits_for_the_gate_and_a_closed_gate_is_a_cut() {
        let window = Window::new(2, 100);
        let (opener, gate) = watch::channel(false);
        let mut leg = window.leg(gate);
        window.push(piece(1)).await;
        window.push(piece(1)).await;
        assert!(leg.next().await.unwrap().is_ok());
        assert!(leg.next().now_or_never().is_none());
        opener.send(true).unwrap();
        assert!(leg.next().await.unwrap().is_ok());
        assert!(leg.next().await.is_none());

        let mut refused = window.leg(watch::channel(false).1);
        assert!(refused.next().await.unwrap().is_ok());
        assert_eq!(refused.next().await.unwrap(), Err(PayloadCut));
    }

    #[tokio::test]
    async fn a_cut_reaches_every_leg() {
        let window = Window::new(10, 100);
        let mut leg = window.leg(open());
        window.push(piece(1)).await;
        assert!(leg.next().await.unwrap().is_ok());
        drop(window);
        assert_eq!(leg.next().await.unwrap(), Err(PayloadCut));
        assert!(leg.next().await.is_none());
    }
}
