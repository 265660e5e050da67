//! Assembled objects that were not found as they should be.
//!
//! A backend says that it has assembled an object, and a look at it says otherwise: one of the two is wrong, and
//! nobody knows which. A cache may be stale, or an answer spoilt on its way. The parts were acknowledged, so they
//! are given up only where several looks agree over some time. Until then each Complete, the client's or
//! the worker's, looks again.
//!
//! Looks are counted in memory: after a restart, or on another instance, counting begins anew.

use std::collections::HashMap;
use std::time::Duration;

use base::CopyId;
use parking_lot::Mutex;
use tokio::time::Instant;

/// So many looks have to agree before parts are given up, and as much time lies between the first and the last.
const LOOKS_MIN: u32 = 3;
const LOOKING_MIN: Duration = Duration::from_secs(600);
/// Legs whose looks are counted at a time; the one that has been looked at for longest makes room, and begins anew.
const LEGS_MAX: usize = 1_000;

/// What looks at assembled objects have found so far.
#[derive(Default)]
pub(crate) struct Doubts(Mutex<HashMap<CopyId, Looks>>);

/// Looks at the object of one leg that all found it otherwise.
struct Looks {
    first: Instant,
    count: u32,
}

impl Doubts {
    /// Counts a look that found the object of a leg otherwise than it should be. Whether that is proof by now.
    pub(super) fn add(&self, leg: CopyId, now: Instant) -> bool {
        let mut legs = self.0.lock();
        if legs.len() == LEGS_MAX && !legs.contains_key(&leg) {
            let oldest = legs.iter().min_by_key(|(_, looks)| looks.first);
            let oldest = oldest.map(|(leg, _)| *leg);
            oldest.and_then(|leg| legs.remove(&leg));
        }
        let first = Looks {
            first: now,
            count: 0,
        };
        let looks = legs.entry(leg).or_insert(first);
        looks.count = looks.count.saturating_add(1);
        let proven = looks.count >= LOOKS_MIN && now - looks.first >= LOOKING_MIN;
        if proven {
            legs.remove(&leg);
        }
        proven
    }

    /// Whether the object of a leg was there, and was not as it should be.
    pub(super) fn has(&self, leg: CopyId) -> bool {
        self.0.lock().contains_key(&leg)
    }

    /// The object of a leg is as it should be.
    pub(super) fn end(&self, leg: CopyId) {
        self.0.lock().remove(&leg);
    }
}

#[cfg(test)]
mod tests {
    use base::{Ids, SystemClock};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn looks_are_counted_for_so_many_legs_only() {
        let doubts = Doubts::default();
        let ids = Ids::new(std::sync::Arc::new(SystemClock));
        let first = CopyId::draw(&ids);
        doubts.add(first, Instant::now());
        for _ in 0..LEGS_MAX {
            tokio::time::advance(Duration::from_millis(1)).await;
            doubts.add(CopyId::draw(&ids), Instant::now());
        }
        assert_eq!(doubts.0.lock().len(), LEGS_MAX);
        assert!(!doubts.has(first));
    }
}
