//! When a partner that failed is asked again: one state machine, over moments that are passed in.

use std::time::Duration;

use tokio::time::Instant;

/// Closed, open for a while, then closed by one success or opened again by one failure.
#[derive(Debug)]
pub(crate) struct Breaker {
    threshold: u32,
    open_for: Duration,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Asked; so many failures in a row.
    Closed { failures: u32 },
    /// Not asked until then; afterwards each success or failure decides.
    Open { until: Instant },
}

/// What an outcome changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    /// Nothing.
    Stay,
    /// It is not believed in any more.
    Open,
    /// It works again.
    Close,
}

impl Breaker {
    pub(crate) const fn new(threshold: u32, open_for: Duration) -> Self {
        Self {
            threshold,
            open_for,
            state: State::Closed { failures: 0 },
        }
    }

    /// Whether it may be asked now.
    pub(crate) fn permits(&self, now: Instant) -> bool {
        match self.state {
            State::Closed { .. } => true,
            State::Open { until } => now >= until,
        }
    }

    pub(crate) fn is_open(&self) -> bool {
        match self.state {
            State::Closed { .. } => false,
            State::Open { .. } => true,
        }
    }

    pub(crate) fn succeed(&mut self) -> Change {
        let before = std::mem::replace(&mut self.state, State::Closed { failures: 0 });
        match before {
            State::Closed { .. } => Change::Stay,
            State::Open { .. } => Change::Close,
        }
    }

    pub(crate) fn fail(&mut self, now: Instant) -> Change {
        let open = State::Open {
            until: now + self.open_for,
        };
        let (state, change) = match self.state {
            State::Closed { failures } if failures + 1 >= self.threshold => (open, Change::Open),
            State::Closed { failures } => {
                let failures = failures + 1;
                (State::Closed { failures }, Change::Stay)
            }
            State::Open { .. } => (open, Change::Stay),
        };
        self.state = state;
        change
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop, proptest};

    use super::*;

    const OPEN_FOR: Duration = Duration::from_secs(15);

    #[tokio::test(start_paused = true)]
    async fn it_opens_after_so_many_failures_in_a_row_and_one_success_closes_it() {
        let mut breaker = Breaker::new(3, OPEN_FOR);
        let begun = Instant::now();
        assert_eq!(breaker.fail(begun), Change::Stay);
        assert_eq!(breaker.fail(begun), Change::Stay);
        assert_eq!(breaker.succeed(), Change::Stay);
        for change in [Change::Stay, Change::Stay, Change::Open] {
            assert!(breaker.permits(begun));
            assert_eq!(breaker.fail(begun), change);
        }
        assert!(breaker.is_open() && !breaker.permits(begun + OPEN_FOR / 2));
        // A failed try opens it for as long again; it never needs a restart.
        let later = begun + OPEN_FOR;
        assert!(breaker.permits(later));
        assert_eq!(breaker.fail(later), Change::Stay);
        assert!(!breaker.permits(later + OPEN_FOR / 2));
        assert!(breaker.permits(later + OPEN_FOR));
        assert_eq!(breaker.succeed(), Change::Close);
        assert!(!breaker.is_open());
        // Closed again, it is as patient as at the beginning.
        assert_eq!(breaker.fail(later), Change::Stay);
        assert!(breaker.permits(later));
    }

    proptest! {
        #[test]
        fn whatever_happened_it_is_asked_again_in_time(
            threshold in 0u32..5,
            outcomes in prop::collection::vec(any::<bool>(), 0..60),
        ) {
            let mut breaker = Breaker::new(threshold, OPEN_FOR);
            let now = Instant::now();
            let mut in_a_row = 0;
            for succeeds in outcomes {
                let was_open = breaker.is_open();
                let change = match succeeds {
                    true => breaker.succeed(),
                    false => breaker.fail(now),
                };
                in_a_row = if succeeds { 0 } else { in_a_row + 1 };
                assert_eq!(breaker.is_open(), in_a_row >= threshold.max(1));
                assert_eq!(change == Change::Open, !was_open && breaker.is_open());
                assert_eq!(change == Change::Close, was_open && !breaker.is_open());
                assert!(breaker.permits(now + OPEN_FOR));
                assert_eq!(breaker.permits(now), !breaker.is_open());
            }
        }
    }
}
