//! How full one backend is, in memory: admission asks here and nowhere else.
//!
//! `used`, `orphan` and `parts` mirror the counters in rows and change after their commit; intents
//! and reservations live here. Nothing is ever clamped: a sum that would go below zero is a bug.

use crate::model::Room;

/// What a transaction does to the counters of one backend, in bytes and (locations) rows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Delta {
    pub(crate) used: i64,
    pub(crate) orphan: i64,
    pub(crate) parts: i64,
    pub(crate) locations: i64,
}

/// Counters as rows hold them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counters {
    pub(crate) used: u64,
    pub(crate) orphan: u64,
    pub(crate) parts: u64,
}

/// The room of one backend.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ledger {
    limit: Option<u64>,
    accepting: bool,
    counters: Counters,
    intents: u64,
    loose: u64,
}

impl Ledger {
    pub(crate) fn new(counters: Counters, accepting: bool) -> Self {
        Self {
            limit: None,
            accepting,
            counters,
            intents: 0,
            loose: 0,
        }
    }

    pub(crate) fn set_limit(&mut self, limit: Option<u64>) {
        self.limit = limit;
    }

    pub(crate) fn set_accepting(&mut self, accepting: bool) {
        self.accepting = accepting;
    }

    pub(crate) fn accepting(&self) -> bool {
        self.accepting
    }

    pub(crate) fn counters(&self) -> Counters {
        self.counters
    }

    /// Bytes of open intents.
    pub(crate) fn intents(&self) -> u64 {
        self.intents
    }

    pub(crate) fn room(&self) -> Room {
        Room {
            used: self.counters.used,
            orphan: self.counters.orphan,
            reserved: self.counters.parts + self.intents + self.loose,
            limit: self.limit,
        }
    }

    /// Takes room for a request; `false`, and nothing taken, where there is not enough.
    pub(crate) fn take(&mut self, bytes: u64) -> bool {
        if !self.accepting || self.room().free() < bytes {
            return false;
        }
        self.loose += bytes;
        true
    }

    /// Gives room of a request back, or hands it on to what is counted elsewhere from now on.
    pub(crate) fn give_back(&mut self, bytes: u64) {
        self.loose = less(self.loose, bytes);
    }

    pub(crate) fn open_intent(&mut self, bytes: u64) {
        self.intents += bytes;
    }

    pub(crate) fn end_intent(&mut self, bytes: u64) {
        self.intents = less(self.intents, bytes);
    }

    pub(crate) fn apply(&mut self, delta: Delta) {
        self.counters.used = moved(self.counters.used, delta.used);
        self.counters.orphan = moved(self.counters.orphan, delta.orphan);
        self.counters.parts = moved(self.counters.parts, delta.parts);
    }
}

fn moved(count: u64, by: i64) -> u64 {
    count
        .checked_add_signed(by)
        .expect("a counter mirrors a row that is checked to be >= 0")
}

fn less(count: u64, by: u64) -> u64 {
    count
        .checked_sub(by)
        .expect("every byte is given back once")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn not_a_byte_over_the_limit_is_taken() {
        let counters = Counters {
            used: 50,
            orphan: 20,
            parts: 10,
        };
        let mut ledger = Ledger::new(counters, true);
        ledger.set_limit(Some(100));
        assert!(!ledger.take(21));
        assert!(ledger.take(20));
        assert!(!ledger.take(1));
        assert!(ledger.take(0));
        ledger.give_back(5);
        assert!(ledger.take(5));
        assert_eq!(ledger.room().reserved, 30);
    }

    #[test]
    fn a_drained_backend_gives_no_room_and_a_lowered_limit_is_no_underflow() {
        let mut ledger = Ledger::new(
            Counters {
                used: 50,
                orphan: 0,
                parts: 0,
            },
            true,
        );
        ledger.set_limit(Some(10));
        assert_eq!(ledger.room().free(), 0);
        assert!(!ledger.take(1));
        ledger.set_limit(None);
        ledger.set_accepting(false);
        assert!(!ledger.take(1));
    }
}
