//! Monthly usage: what each backend was asked for, and whether it may be asked for more.
//!
//! What is exact: every request and every byte that the guard tells of is counted once, in the month
//! in which it happened (UTC), whether its call succeeded, failed or was cut. What is counted and not
//! yet in rows is in memory, on its way there or not; a process that is killed loses what it counted
//! since the last flush, and nothing else. What is admitted is set aside until it has been counted or
//! given up, so requests at the same time cannot together pass a limit that each of them fits.
//!
//! What is not: a limit is compared with what a request asks to move. A call that the guard repeats,
//! a look at what became of a write, and bytes that are read back to prove one count as they happen
//! and were not admitted: by these, and by what passes without being asked (deletes, aborts,
//! completions, markers, probes, workers), a backend may pass its limit. `docs/usage-limits.md` tells
//! operators the same.

mod book;
mod breaker;
mod redis;
mod settings;
mod sharing;

use std::collections::BTreeMap;
use std::sync::Arc;

use base::{Clock, Month, Traffic};
use parking_lot::Mutex;

pub(crate) use book::{Book, Entry, written};
pub use settings::{AdaptiveFlush, RedisSettings, UsageFlush, UsageLimits};
pub(crate) use sharing::{SHARE_EVERY, Sharing};

use crate::{Engine, Result};

/// Months of which the rows' sums are remembered: a clock that is set back finds them again.
const MONTHS_KEPT_MAX: usize = 3;

/// The usage of one backend in the current month.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UsageStatus {
    /// Which month.
    pub month: Month,
    /// What was counted in it, in rows or not.
    pub spent: Traffic,
    /// What it may be asked for.
    pub limits: UsageLimits,
}

/// The counts of one backend.
#[derive(Debug)]
pub(crate) struct Usage {
    clock: Arc<dyn Clock>,
    limits: UsageLimits,
    state: Mutex<State>,
}

/// Every count of this process is in exactly one of the first three.
#[derive(Debug, Default)]
struct State {
    /// In rows.
    written: BTreeMap<Month, Traffic>,
    /// On the way to rows; either arrives or comes back.
    leaving: BTreeMap<Month, Traffic>,
    /// Counted since.
    counted: BTreeMap<Month, Traffic>,
    /// Set aside for requests under way, and not counted yet.
    admitted: Traffic,
    /// What other instances have counted or set aside in a month and not written.
    others: Option<(Month, Traffic)>,
    /// How often counts have left.
    departures: u64,
}

impl State {
    fn load(&mut self, month: Month, written: Traffic) {
        self.written.insert(month, written);
        while self.written.len() > MONTHS_KEPT_MAX {
            self.written.pop_first();
        }
    }

    fn spent(&self, month: Month) -> Traffic {
        let others = self.others.filter(|(of, _)| *of == month);
        let others = others.map_or(Traffic::NONE, |(_, traffic)| traffic);
        [&self.written, &self.leaving, &self.counted]
            .into_iter()
            .filter_map(|counts| counts.get(&month))
            .fold(others, |sum, count| sum.plus(*count))
    }
}

fn add(counts: &mut BTreeMap<Month, Traffic>, month: Month, traffic: Traffic) {
    let count = counts.entry(month).or_default();
    *count = count.plus(traffic);
}

fn take_off(counts: &mut BTreeMap<Month, Traffic>, month: Month, traffic: Traffic) {
    if let Some(count) = counts.get_mut(&month) {
        *count = count.minus(traffic);
        if *count == Traffic::NONE {
            counts.remove(&month);
        }
    }
}

impl Usage {
    pub(crate) fn new(clock: Arc<dyn Clock>, limits: UsageLimits) -> Arc<Self> {
        Arc::new(Self {
            clock,
            limits,
            state: Mutex::default(),
        })
    }

    fn month(&self) -> Month {
        Month::of(self.clock.now())
    }

    /// What happened just now, without having been asked for.
    pub(crate) fn count(&self, traffic: Traffic) {
        let month = self.month();
        add(&mut self.state.lock().counted, month, traffic);
    }

    pub(crate) fn status(&self) -> UsageStatus {
        let month = self.month();
        UsageStatus {
            month,
            spent: self.state.lock().spent(month),
            limits: self.limits,
        }
    }

    /// Whether so much more could be admitted now.
    pub(crate) fn fits(&self, wanted: Traffic) -> bool {
        let month = self.month();
        self.fits_in(&self.state.lock(), month, wanted)
    }

    /// A limit binds only what is asked for: a spent egress refuses no write.
    fn fits_in(&self, state: &State, month: Month, wanted: Traffic) -> bool {
        let after = state.spent(month).plus(state.admitted).plus(wanted);
        let within = |limit: Option<u64>, wanted: u64, after: u64| {
            wanted == 0 || limit.is_none_or(|limit| after <= limit)
        };
        within(self.limits.requests, wanted.requests, after.requests)
            && within(self.limits.egress, wanted.egress, after.egress)
            && within(self.limits.ingress, wanted.ingress, after.ingress)
    }

    /// Sets so much aside; `None` where it does not fit.
    pub(crate) fn admit(self: &Arc<Self>, wanted: Traffic) -> Option<Charge> {
        let month = self.month();
        let mut state = self.state.lock();
        if !self.fits_in(&state, month, wanted) {
            return None;
        }
        state.admitted = state.admitted.plus(wanted);
        Some(Charge {
            usage: Arc::clone(self),
            left: Mutex::new(wanted),
        })
    }

    /// Whether any limit is spent to this share.
    pub(crate) fn is_near_limit(&self, share: f64) -> bool {
        let UsageStatus { spent, limits, .. } = self.status();
        [
            (spent.requests, limits.requests),
            (spent.egress, limits.egress),
            (spent.ingress, limits.ingress),
        ]
        .into_iter()
        .any(|(spent, limit)| limit.is_some_and(|limit| spent as f64 >= limit as f64 * share))
    }

    /// What the rows say of a month.
    pub(crate) fn load(&self, month: Month, written: Traffic) {
        self.state.lock().load(month, written);
    }

    /// As [`Self::load`], unless counts have left since [`Self::settled`] said this, or are on their
    /// way; whether it did.
    fn load_unless_left(&self, month: Month, written: Traffic, departures: u64) -> bool {
        let mut state = self.state.lock();
        let settled = state.leaving.is_empty() && state.departures == departures;
        if settled {
            state.load(month, written);
        }
        settled
    }

    /// How often counts have left, where none is on its way: only then do rows say what they will go
    /// on saying.
    fn settled(&self) -> Option<u64> {
        let state = self.state.lock();
        state.leaving.is_empty().then_some(state.departures)
    }

    /// What other instances are to know of this one beyond the rows.
    fn unwritten(&self, month: Month) -> Traffic {
        let state = self.state.lock();
        [&state.leaving, &state.counted]
            .into_iter()
            .filter_map(|counts| counts.get(&month))
            .fold(state.admitted, |sum, count| sum.plus(*count))
    }

    /// What this instance is to know of the others beyond the rows.
    fn hear(&self, month: Month, others: Traffic) {
        self.state.lock().others = Some((month, others));
    }

    /// Sends all counts on their way to rows.
    fn depart(&self) -> Vec<(Month, Traffic)> {
        let mut state = self.state.lock();
        state.departures += 1;
        let departing: Vec<_> = std::mem::take(&mut state.counted).into_iter().collect();
        for (month, traffic) in &departing {
            add(&mut state.leaving, *month, *traffic);
        }
        departing
    }

    fn arrive(&self, month: Month, traffic: Traffic) {
        let mut state = self.state.lock();
        take_off(&mut state.leaving, month, traffic);
        add(&mut state.written, month, traffic);
    }

    fn come_back(&self, month: Month, traffic: Traffic) {
        let mut state = self.state.lock();
        take_off(&mut state.leaving, month, traffic);
        add(&mut state.counted, month, traffic);
    }
}

/// What was set aside for one request; what is not counted by its end is free again.
#[derive(Debug)]
pub(crate) struct Charge {
    usage: Arc<Usage>,
    left: Mutex<Traffic>,
}

impl Charge {
    /// What happened just now. Beyond what was set aside it counts all the same.
    pub(crate) fn count(&self, traffic: Traffic) {
        let month = self.usage.month();
        let mut left = self.left.lock();
        let covered = left.least(traffic);
        *left = left.minus(covered);
        let mut state = self.usage.state.lock();
        state.admitted = state.admitted.minus(covered);
        add(&mut state.counted, month, traffic);
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        let left = *self.left.get_mut();
        let mut state = self.usage.state.lock();
        state.admitted = state.admitted.minus(left);
    }
}

impl Engine {
    /// Adds what was counted since the last time to the rows of its months, and takes over what the
    /// rows say then; how many rows were written.
    ///
    /// After an error everything is still counted, and is written the next time.
    pub async fn flush_usage(&self) -> Result<u64> {
        self.inner.usage.flush().await
    }
}

#[cfg(test)]
mod tests;
