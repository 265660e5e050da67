//! The memory of heads that have begun and not ended, over all connections.
//!
//! A client may take its time with a head, and a head may be large; both together on many connections
//! would hold any amount of memory. So all unfinished heads share one budget. What exceeds it ends the
//! connection whose head has been waited for longest: an honest head takes milliseconds, and those
//! who fill the budget would otherwise keep everybody else out. A head that came whole is never counted,
//! and one that has ended is never cut.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Waker;

use parking_lot::Mutex;

/// What all unfinished heads of the process hold at most. The buffers that they lie in are up to twice
/// as large.
pub const UNFINISHED_HEADS_BYTES_MAX: usize = 16 << 20;

/// The unfinished heads.
#[derive(Debug, Default)]
pub(super) struct Heads {
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    bytes: usize,
    next: u64,
    /// By when they began to be waited for.
    heads: BTreeMap<u64, Entry>,
}

#[derive(Debug)]
struct Entry {
    bytes: usize,
    evicted: Arc<AtomicBool>,
    waker: Waker,
}

/// One unfinished head; dropped, it counts no more.
#[derive(Debug)]
pub(super) struct Unfinished {
    heads: Arc<Heads>,
    place: u64,
    evicted: Arc<AtomicBool>,
}

impl Heads {
    /// A head begins to be waited for, with so many bytes of it here.
    pub(super) fn wait(self: &Arc<Self>, bytes: usize, waker: &Waker) -> Unfinished {
        let evicted = Arc::<AtomicBool>::default();
        let mut waiting = self.waiting.lock();
        let place = waiting.next;
        waiting.next += 1;
        waiting.bytes += bytes;
        let entry = Entry {
            bytes,
            evicted: Arc::clone(&evicted),
            waker: waker.clone(),
        };
        waiting.heads.insert(place, entry);
        waiting.evict();
        Unfinished {
            heads: Arc::clone(self),
            place,
            evicted,
        }
    }
}

impl Waiting {
    fn evict(&mut self) {
        while self.bytes > UNFINISHED_HEADS_BYTES_MAX
            && let Some((_, oldest)) = self.heads.pop_first()
        {
            self.bytes -= oldest.bytes;
            oldest.evicted.store(true, Ordering::Relaxed);
            oldest.waker.wake();
        }
    }
}

impl Unfinished {
    /// More of it has come, and still not all.
    pub(super) fn goes_on(&self, bytes: usize, waker: &Waker) {
        let mut waiting = self.heads.waiting.lock();
        let Some(entry) = waiting.heads.get_mut(&self.place) else {
            return;
        };
        let more = bytes.saturating_sub(entry.bytes);
        entry.bytes += more;
        entry.waker.clone_from(waker);
        waiting.bytes += more;
        waiting.evict();
    }

    /// Whether its connection has to end.
    pub(super) fn is_evicted(&self) -> bool {
        self.evicted.load(Ordering::Relaxed)
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        let mut waiting = self.heads.waiting.lock();
        if let Some(entry) = waiting.heads.remove(&self.place) {
            waiting.bytes -= entry.bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_head_that_is_waited_for_longest_goes_first() {
        let heads = Arc::<Heads>::default();
        let waker = Waker::noop();
        let quarter = UNFINISHED_HEADS_BYTES_MAX / 4;
        let all: Vec<_> = (0..4).map(|_| heads.wait(quarter, waker)).collect();
        let evicted =
            |all: &[Unfinished]| -> Vec<_> { all.iter().map(Unfinished::is_evicted).collect() };
        assert_eq!(evicted(&all), [false; 4]);
        all[3].goes_on(quarter + 1, waker);
        assert_eq!(evicted(&all), [true, false, false, false]);
        // One that has ended makes room.
        drop(all);
        assert_eq!(heads.waiting.lock().bytes, 0);
        let again = heads.wait(UNFINISHED_HEADS_BYTES_MAX, waker);
        assert!(!again.is_evicted());
    }
}
