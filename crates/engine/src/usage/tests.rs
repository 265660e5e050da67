//! The counter against a model: whatever happens in whatever order, no count is lost or doubled.

use std::collections::BTreeMap;

use base::ManualClock;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use super::*;

/// 2023-11-30 23:59:59 UTC, one second before another month.
const EVE_MS: i64 = 1_701_388_799_000;
const DAY_MS: i64 = 24 * 3600 * 1000;

fn clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::at(EVE_MS))
}

fn usage(clock: &Arc<ManualClock>, limits: UsageLimits) -> Arc<Usage> {
    Usage::new(Arc::<ManualClock>::clone(clock), limits)
}

fn ingress(bytes: u64) -> Traffic {
    Traffic {
        ingress: bytes,
        ..Traffic::requests(1)
    }
}

const LIMITS: UsageLimits = UsageLimits {
    requests: Some(10),
    egress: Some(1000),
    ingress: Some(1000),
};

#[test]
fn what_is_admitted_binds_others_until_it_is_counted_or_given_up() {
    let usage = usage(&clock(), LIMITS);
    let first = usage.admit(ingress(600)).expect("it fits");
    assert!(usage.admit(ingress(600)).is_none());
    assert!(usage.admit(ingress(401)).is_none());
    let second = usage.admit(ingress(400)).expect("the rest");
    // Moving what was admitted frees nothing and binds nothing further.
    first.count(ingress(100));
    first.count(Traffic {
        ingress: 200,
        ..Traffic::NONE
    });
    assert!(!usage.fits(ingress(1)));
    // What was not moved is free again.
    drop(first);
    assert!(usage.fits(ingress(300)) && !usage.fits(ingress(301)));
    drop(second);
    assert!(usage.fits(ingress(700)) && !usage.fits(ingress(701)));
    assert_eq!(usage.status().spent, ingress(300));
    assert_eq!(usage.state.lock().admitted, Traffic::NONE);
}

#[test]
fn a_limit_binds_only_what_is_asked_for() {
    let usage = usage(&clock(), LIMITS);
    usage.count(Traffic {
        requests: 0,
        egress: 5000,
        ingress: 0,
    });
    assert!(usage.fits(ingress(1000)));
    let read = |egress| Traffic {
        egress,
        ..Traffic::requests(1)
    };
    assert!(!usage.fits(read(1)) && usage.fits(read(0)));
    usage.count(Traffic::requests(10));
    assert!(!usage.fits(ingress(1)) && !usage.fits(read(0)));
}

#[test]
fn more_than_was_admitted_counts_all_the_same() {
    let usage = usage(&clock(), LIMITS);
    let charge = usage.admit(ingress(10)).expect("it fits");
    // A call that is repeated, a body that is read back.
    charge.count(ingress(10));
    charge.count(Traffic {
        requests: 2,
        egress: 10,
        ingress: 10,
    });
    drop(charge);
    let spent = Traffic {
        requests: 3,
        egress: 10,
        ingress: 20,
    };
    assert_eq!(usage.status().spent, spent);
    assert_eq!(usage.state.lock().admitted, Traffic::NONE);
}

#[test]
fn a_new_month_begins_at_zero_and_late_counts_stay_in_the_old_one() {
    let clock = clock();
    let usage = usage(&clock, LIMITS);
    let month = usage.month();
    usage.load(month, ingress(900));
    let charge = usage.admit(ingress(100)).expect("the rest");
    charge.count(ingress(50));
    assert!(!usage.fits(ingress(1)));
    clock.advance_ms(1000);
    // What is under way will be counted in the month in which it happens.
    assert_eq!(usage.status().spent, Traffic::NONE);
    assert!(usage.fits(ingress(950)) && !usage.fits(ingress(951)));
    charge.count(ingress(50));
    let next = usage.month();
    assert!(next > month);
    assert_eq!(
        usage.depart(),
        [(month, ingress(50)), (next, ingress(50))],
        "each to the row of its own month"
    );
}

#[test]
fn nearness_is_a_share_of_any_limit() {
    let limits = UsageLimits {
        egress: Some(1000),
        ..UsageLimits::default()
    };
    let usage = usage(&clock(), limits);
    usage.count(Traffic {
        egress: 799,
        ..Traffic::requests(1_000_000)
    });
    assert!(!usage.is_near_limit(0.8));
    usage.count(Traffic {
        egress: 1,
        ..Traffic::NONE
    });
    assert!(usage.is_near_limit(0.8));
}

/// Everything that can happen to a counter, drawn at random, with rows that are a map.
struct Model {
    rng: StdRng,
    clock: Arc<ManualClock>,
    usage: Arc<Usage>,
    charges: Vec<Charge>,
    rows: BTreeMap<Month, Traffic>,
    counted: BTreeMap<Month, Traffic>,
    /// Flushes under way: those whose rows are written already, and those whose are not.
    flights: Vec<(bool, Vec<(Month, Traffic)>)>,
    /// Looks at rows that were read and not yet taken over.
    looks: Vec<(Month, Option<u64>, Traffic)>,
}

impl Model {
    fn seeded(seed: u64) -> Self {
        let clock = clock();
        let usage = usage(&clock, LIMITS);
        Self {
            rng: StdRng::seed_from_u64(seed),
            clock,
            usage,
            charges: Vec::new(),
            rows: BTreeMap::new(),
            counted: BTreeMap::new(),
            flights: Vec::new(),
            looks: Vec::new(),
        }
    }

    fn traffic(&mut self) -> Traffic {
        Traffic {
            requests: self.rng.random_range(0..3),
            egress: self.rng.random_range(0..200),
            ingress: self.rng.random_range(0..200),
        }
    }

    fn step(&mut self) {
        let traffic = self.traffic();
        let month = self.usage.month();
        match self.rng.random_range(0..11) {
            0 => {
                self.usage.count(traffic);
                add(&mut self.counted, month, traffic);
            }
            1 => self.charges.extend(self.usage.admit(traffic)),
            2 | 3 => {
                let places = self.charges.len().max(1);
                let place = self.rng.random_range(0..places);
                if let Some(charge) = self.charges.get(place) {
                    charge.count(traffic);
                    add(&mut self.counted, month, traffic);
                }
            }
            4 if !self.charges.is_empty() => {
                let place = self.rng.random_range(0..self.charges.len());
                self.charges.swap_remove(place);
            }
            5 => self.flights.push((false, self.usage.depart())),
            // The rows are written; whoever counts does not know it yet.
            6 => {
                if let Some((written, flight)) = self.flights.iter_mut().find(|(done, _)| !done) {
                    *written = true;
                    for (month, traffic) in flight {
                        add(&mut self.rows, *month, *traffic);
                    }
                }
            }
            7 if !self.flights.is_empty() => {
                let place = self.rng.random_range(0..self.flights.len());
                let (written, flight) = self.flights.swap_remove(place);
                for (month, traffic) in flight {
                    match written {
                        true => self.usage.arrive(month, traffic),
                        false => self.usage.come_back(month, traffic),
                    }
                }
            }
            8 => self.looks.push((
                month,
                self.usage.settled(),
                self.rows.get(&month).copied().unwrap_or_default(),
            )),
            9 if !self.looks.is_empty() => {
                let place = self.rng.random_range(0..self.looks.len());
                let (of, settled, row) = self.looks.swap_remove(place);
                if let Some(departures) = settled {
                    self.usage.load_unless_left(of, row, departures);
                }
            }
            10 if self.rng.random_ratio(1, 8) => self.clock.advance_ms(10 * DAY_MS),
            _ => {}
        }
    }

    fn check(&self) {
        let month = self.usage.month();
        let state = self.usage.state.lock();
        let counted = |month: Month| self.counted.get(&month).copied().unwrap_or_default();
        // What this process knows of this month is what was counted, wherever it is.
        assert_eq!(state.spent(month), counted(month));
        // Rows and memory together hold every count of every month once.
        for month in self.counted.keys().copied() {
            let flying = self.flights.iter().filter(|(written, _)| !written);
            let flying = flying.flat_map(|(_, flight)| flight).copied();
            let sum = flying
                .chain(self.rows.get_key_value(&month).map(|(m, t)| (*m, *t)))
                .chain(state.counted.get_key_value(&month).map(|(m, t)| (*m, *t)))
                .filter(|(of, _)| *of == month)
                .fold(Traffic::NONE, |sum, (_, traffic)| sum.plus(traffic));
            assert_eq!(sum, counted(month));
        }
        let set_aside = self.charges.iter().map(|charge| *charge.left.lock());
        assert_eq!(state.admitted, set_aside.fold(Traffic::NONE, Traffic::plus));
    }
}

#[test]
fn no_count_is_lost_or_doubled_whatever_happens_in_whatever_order() {
    let mut months = 0;
    for seed in 0..200 {
        let mut model = Model::seeded(seed);
        for _ in 0..400 {
            model.step();
            model.check();
        }
        months += model.counted.len();
    }
    assert!(months > 400, "months pass: {months}");
}
