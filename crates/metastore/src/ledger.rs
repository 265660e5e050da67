//! How full one backend is, in memory: admission asks here and nowhere else.
//!
//! `used`, `orphan` and `parts` mirror the counters in rows and change after their commit; intents
//! and reservations live here. Nothing is ever clamped: a sum that would go below zero is a bug.
//!
//! Where one process owns the catalogue, its counters are all there are, and room is what they leave of
//! the limit. Where several instances share it, each has counters of its own (which may be below zero,
//! because one removes what another wrote) and gives out only room that it has leased in rows.

use crate::model::Room;

/// What a transaction does to the counters of one backend, in bytes and (locations) rows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Delta {
    pub(crate) used: i64,
    pub(crate) orphan: i64,
    pub(crate) parts: i64,
    pub(crate) locations: i64,
    /// Leased room that is counted elsewhere from now on, or is given back; only where room is leased.
    pub(crate) room: i64,
}

/// Counters as rows hold them, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counters {
    pub(crate) used: i64,
    pub(crate) orphan: i64,
    pub(crate) parts: i64,
}

/// The room of one backend.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ledger {
    limit: Option<u64>,
    accepting: bool,
    counters: Counters,
    /// Of the other instances, as last looked at.
    others: Counters,
    /// Room of this instance in rows, that under its intents included; `None` where it is alone.
    leased: Option<u64>,
    intents: u64,
    loose: u64,
}

impl Ledger {
    pub(crate) fn new(counters: Counters, accepting: bool) -> Self {
        Self {
            limit: None,
            accepting,
            counters,
            others: Counters::default(),
            leased: None,
            intents: 0,
            loose: 0,
        }
    }

    /// As [`Ledger::new`], of one instance among several.
    pub(crate) fn leasing(counters: Counters, accepting: bool, leased: u64) -> Self {
        Self {
            leased: Some(leased),
            ..Self::new(counters, accepting)
        }
    }

    pub(crate) fn limit(&self) -> Option<u64> {
        self.limit
    }

    pub(crate) fn set_others(&mut self, others: Counters) {
        self.others = others;
    }

    pub(crate) fn leased(&self) -> u64 {
        self.leased.unwrap_or_default()
    }

    /// More room, or less.
    pub(crate) fn move_lease(&mut self, bytes: i64) {
        if let Some(leased) = &mut self.leased {
            *leased = leased
                .checked_add_signed(bytes)
                .expect("leased room mirrors a row that is checked to be >= 0");
        }
    }

    /// Takes the leased room that nothing uses, to give it back; its size.
    pub(crate) fn take_unused(&mut self) -> u64 {
        let unused = self.unused();
        if let Some(leased) = &mut self.leased {
            *leased -= unused;
        }
        unused
    }

    /// Leased room that nothing uses.
    pub(crate) fn unused(&self) -> u64 {
        self.leased().saturating_sub(self.intents + self.loose)
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
        let (own, others) = (self.counters, self.others);
        // What was seen of the others is a moment old: a sum may be below zero until the next look.
        let sum = |own: i64, others: i64| u64::try_from(own + others).unwrap_or_default();
        Room {
            used: sum(own.used, others.used),
            orphan: sum(own.orphan, others.orphan),
            reserved: sum(own.parts, others.parts) + self.intents + self.loose,
            limit: self.limit,
        }
    }

    /// Takes room for a request; `false`, and nothing taken, where there is not enough.
    pub(crate) fn take(&mut self, bytes: u64) -> bool {
        let free = match self.leased {
            None => self.room().free(),
            Some(_) => self.unused(),
        };
        if !self.accepting || free < bytes {
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
        self.counters.used += delta.used;
        self.counters.orphan += delta.orphan;
        self.counters.parts += delta.parts;
        self.move_lease(delta.room);
        let Counters {
            used,
            orphan,
            parts,
        } = self.counters;
        assert!(
            self.leased.is_some() || used.min(orphan).min(parts) >= 0,
            "a counter mirrors a row that is checked to be >= 0"
        );
    }
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
    fn only_leased_room_is_given_out_and_what_is_unused_can_be_returned() {
        let counters = Counters {
            used: -50,
            orphan: 20,
            parts: 0,
        };
        let mut ledger = Ledger::leasing(counters, true, 30);
        ledger.set_limit(Some(1000));
        assert!(!ledger.take(31));
        assert!(ledger.take(20));
        assert!(!ledger.take(11));
        ledger.give_back(20);
        ledger.open_intent(20);
        assert_eq!(ledger.take_unused(), 10);
        assert_eq!((ledger.leased(), ledger.take(1)), (20, false));
        ledger.move_lease(5);
        assert!(ledger.take(5));
        // The intent becomes a location: its room is counted there.
        ledger.end_intent(20);
        ledger.apply(Delta {
            used: 18,
            room: -20,
            ..Delta::default()
        });
        assert_eq!(ledger.leased(), 5);
        ledger.set_others(Counters {
            used: 100,
            orphan: 0,
            parts: 7,
        });
        let room = ledger.room();
        assert_eq!((room.used, room.orphan, room.reserved), (68, 20, 12));
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
