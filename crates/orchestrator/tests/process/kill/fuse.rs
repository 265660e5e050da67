//! When the process is killed: after a seeded number of events that the clients saw.

use parking_lot::Mutex;
use rand::Rng as _;
use rand::rngs::StdRng;
use rustix::process::{Pid, Signal, kill_process};

/// Something that a client sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Event {
    /// A request begins.
    Begin(Verb),
    /// A piece of a body is handed over.
    Bytes,
    /// A request was answered with success.
    Acknowledge(Verb),
}

/// What a request is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verb {
    Put,
    Get,
    Delete,
    DeleteMany,
    Create,
    Part,
    Complete,
}

/// First so many events of one kind, then so many of any.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plan {
    first: Option<(Event, u32)>,
    then: u32,
}

impl Plan {
    /// Half of all plans aim at Complete, deletes and their answers, which are rare in the load.
    pub(super) fn draw(rng: &mut StdRng) -> Self {
        let event = match rng.random_range(0..12) {
            0..4 => {
                return Self {
                    first: None,
                    then: rng.random_range(20..600),
                };
            }
            4..6 => Event::Begin(Verb::Complete),
            6 => Event::Acknowledge(Verb::Complete),
            7 => Event::Begin(Verb::DeleteMany),
            8 => Event::Acknowledge(Verb::Delete),
            9 => Event::Begin(Verb::Part),
            10 => Event::Acknowledge(Verb::Create),
            _ => Event::Acknowledge(Verb::Put),
        };
        Self {
            first: Some((event, rng.random_range(1..6))),
            then: rng.random_range(0..12),
        }
    }
}

/// Kills the process when the plan says so.
pub(super) struct Fuse {
    plan: Mutex<Option<Plan>>,
    pid: Pid,
}

impl Fuse {
    pub(super) fn new(plan: Plan, pid: Pid) -> Self {
        Self {
            plan: Mutex::new(Some(plan)),
            pid,
        }
    }

    /// Counts an event; where it is the last of the plan, the process is dead on return.
    pub(super) fn event(&self, event: Event) {
        let mut left = self.plan.lock();
        let Some(plan) = left.as_mut() else { return };
        if let Some((wanted, count)) = &mut plan.first {
            if *wanted == event {
                *count -= 1;
            }
            if *count > 0 {
                return;
            }
            plan.first = None;
        }
        if plan.then > 0 {
            plan.then -= 1;
            return;
        }
        *left = None;
        kill_process(self.pid, Signal::KILL).unwrap();
    }

    /// Whether the process was killed.
    pub(super) fn blown(&self) -> bool {
        self.plan.lock().is_none()
    }
}
