//! Which fault comes next: told by a script, or drawn.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use super::turns::{Turn, Turns};
use crate::{Capabilities, Kind};

/// The scale of [`Rates`].
const PER_MILLE: u32 = 1000;

/// A way to fail. Where one does not fit a call (a missing object to a list), the call is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fault {
    /// Refused before any effect: `Unavailable`, `Effect::None`.
    Refuse,
    /// Takes some of the payload and never answers; after [`STALL`](super::STALL) it is `TimedOut` without effect.
    Stall,
    /// The connection breaks inside the request: nothing becomes visible, but nobody can know. A batch
    /// delete is carried out for some of its targets.
    Cut,
    /// It happens, and the answer gets lost: `TimedOut` or `Unavailable`, `Effect::Unknown`.
    LoseReply,
    /// The same error, but it happens only when the test calls [`Faults::land`].
    Late,
    /// No room: `Full`, `Effect::None`.
    Full,
    /// `NotFound` for what is there.
    Missing,
    /// The body of a get breaks off with an error.
    CutBody,
    /// The body of a get ends early as if it were whole.
    ShortBody,
    /// The body of a get breaks off behind its first byte.
    FirstByte,
    /// The body of a get has one wrong byte, and its head says nothing of it. Only by script.
    WrongByte,
    /// Refused before any effect, with an error of this kind. Only by script.
    Reply(Kind),
    /// Stored, and the reply does not repeat the checksum. Only by script.
    NoEcho,
    /// Stored, and the reply has another object's entity tag. Only by script.
    OtherTag,
    /// Not stored, and the reply is the one to another request: its entity tag, and no checksum. Only by
    /// script.
    OtherReply,
    /// A page of a listing is empty and says that there are more. Only by script.
    EmptyPage,
    /// A page of versions names one that was never there, and says that there are more. Only by script.
    EndlessPage,
    /// It happens, and the answer takes a while. Only by script.
    Slow,
    /// A first marker replaces the one that is there: the condition is ignored. Only by script.
    IgnoreCondition,
}

/// How probable each fault is, per mille of the calls that it fits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rates {
    /// [`Fault::Refuse`]
    pub refuse: u32,
    /// [`Fault::Stall`]
    pub stall: u32,
    /// [`Fault::Cut`]
    pub cut: u32,
    /// [`Fault::LoseReply`]
    pub lose_reply: u32,
    /// [`Fault::Late`]
    pub late: u32,
    /// [`Fault::Full`]
    pub full: u32,
    /// [`Fault::Missing`]
    pub missing: u32,
    /// [`Fault::CutBody`]
    pub cut_body: u32,
    /// [`Fault::ShortBody`]
    pub short_body: u32,
    /// [`Fault::FirstByte`]
    pub first_byte: u32,
}

impl Rates {
    /// A healthy backend.
    pub const NONE: Self = Self {
        refuse: 0,
        stall: 0,
        cut: 0,
        lose_reply: 0,
        late: 0,
        full: 0,
        missing: 0,
        cut_body: 0,
        short_body: 0,
        first_byte: 0,
    };

    /// A backend that refuses every call.
    pub const DOWN: Self = Self {
        refuse: PER_MILLE,
        ..Self::NONE
    };

    const fn of(&self, fault: Fault) -> u32 {
        match fault {
            Fault::Refuse => self.refuse,
            Fault::Stall => self.stall,
            Fault::Cut => self.cut,
            Fault::LoseReply => self.lose_reply,
            Fault::Late => self.late,
            Fault::Full => self.full,
            Fault::Missing => self.missing,
            Fault::CutBody => self.cut_body,
            Fault::ShortBody => self.short_body,
            Fault::FirstByte => self.first_byte,
            Fault::WrongByte
            | Fault::Reply(_)
            | Fault::NoEcho
            | Fault::OtherTag
            | Fault::OtherReply
            | Fault::EmptyPage
            | Fault::EndlessPage
            | Fault::Slow
            | Fault::IgnoreCondition => 0,
        }
    }
}

/// What a call does, as far as faults care.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// Brings bytes along.
    Send,
    /// Makes the backend use room of its own accord.
    Grow,
    /// Changes something else.
    Change,
    /// Returns bytes.
    Fetch,
    /// Asks for one object.
    Look,
    /// Asks for something else.
    Ask,
}

impl Shape {
    const fn faults(self) -> &'static [Fault] {
        match self {
            Self::Send | Self::Grow => &[
                Fault::Refuse,
                Fault::Stall,
                Fault::Cut,
                Fault::LoseReply,
                Fault::Late,
                Fault::Full,
            ],
            Self::Change => &[
                Fault::Refuse,
                Fault::Stall,
                Fault::Cut,
                Fault::LoseReply,
                Fault::Late,
                Fault::Slow,
            ],
            Self::Fetch => &[
                Fault::Refuse,
                Fault::Stall,
                Fault::Missing,
                Fault::CutBody,
                Fault::ShortBody,
                Fault::FirstByte,
                Fault::WrongByte,
            ],
            Self::Look => &[Fault::Refuse, Fault::Stall, Fault::Missing],
            Self::Ask => &[Fault::Refuse, Fault::Stall],
        }
    }
}

struct State {
    rng: StdRng,
    rates: Rates,
    script: VecDeque<(&'static str, Fault)>,
    injected: BTreeMap<Fault, u64>,
    late: Vec<BoxFuture<'static, ()>>,
    turns: Option<(Turns, u32)>,
    capabilities: Option<Capabilities>,
}

/// The test's hand on a [`FaultyBackend`]. Clones share one state.
#[derive(Clone)]
pub struct Faults(Arc<Mutex<State>>);

impl fmt::Debug for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.0.lock();
        f.debug_struct("Faults")
            .field("rates", &state.rates)
            .field("script", &state.script)
            .field("late", &state.late.len())
            .finish_non_exhaustive()
    }
}

impl Faults {
    /// Faults drawn at these rates; the same seed and the same calls give the same faults.
    pub fn seeded(seed: u64, rates: Rates) -> Self {
        Self(Arc::new(Mutex::new(State {
            rng: StdRng::seed_from_u64(seed),
            rates,
            script: VecDeque::new(),
            injected: BTreeMap::new(),
            late: Vec::new(),
            turns: None,
            capabilities: None,
        })))
    }

    /// No faults until some are scripted.
    pub fn none() -> Self {
        Self::seeded(0, Rates::NONE)
    }

    /// The next call of this operation (the method's name in the trait) fails so. Scripted faults of
    /// one operation come in the order they were added, before any drawn ones.
    pub fn script(&self, operation: &'static str, fault: Fault) {
        self.0.lock().script.push_back((operation, fault));
    }

    /// Draws at other rates from now on.
    pub fn set_rates(&self, rates: Rates) {
        self.0.lock().rates = rates;
    }

    /// The backend is held for one that does this, whatever it really does.
    pub fn pretend(&self, capabilities: Capabilities) {
        self.0.lock().capabilities = Some(capabilities);
    }

    /// What it is held for, where that was told.
    pub(super) fn pretended(&self) -> Option<Capabilities> {
        self.0.lock().capabilities
    }

    /// Calls of the marker wait for this player's turns.
    pub fn take_turns(&self, turns: &Turns, player: u32) {
        self.0.lock().turns = Some((turns.clone(), player));
    }

    /// The turn of a call of the marker, where there are turns.
    pub(super) async fn turn(&self) -> Option<Turn> {
        let (turns, player) = self.0.lock().turns.clone()?;
        Some(turns.wait(player).await)
    }

    /// No further faults. Late effects still wait for [`Self::land`].
    pub fn heal(&self) {
        let mut state = self.0.lock();
        state.rates = Rates::NONE;
        state.script.clear();
    }

    /// How often each fault was injected.
    pub fn injected(&self) -> BTreeMap<Fault, u64> {
        self.0.lock().injected.clone()
    }

    /// How many late effects wait.
    pub fn late(&self) -> usize {
        self.0.lock().late.len()
    }

    /// Lets all late effects happen, in the order of their calls, and tells how many there were.
    pub async fn land(&self) -> usize {
        let late = std::mem::take(&mut self.0.lock().late);
        let count = late.len();
        for effect in late {
            effect.await;
        }
        count
    }

    pub(super) fn next(&self, operation: &'static str, shape: Shape) -> Option<Fault> {
        let mut state = self.0.lock();
        let scripted = state.script.iter().position(|(of, _)| *of == operation);
        let fault = match scripted.and_then(|place| state.script.remove(place)) {
            Some((_, fault)) => Some(fault),
            None => {
                let mut roll = state.rng.random_range(0..PER_MILLE);
                let rates = state.rates;
                shape.faults().iter().copied().find(|fault| {
                    let hit = roll < rates.of(*fault);
                    roll = roll.saturating_sub(rates.of(*fault));
                    hit
                })
            }
        };
        let fitting = fault.map(|f| {
            let of_reply = matches!(f, Fault::NoEcho | Fault::OtherTag | Fault::OtherReply);
            if shape.faults().contains(&f)
                || matches!(f, Fault::Reply(_))
                || (of_reply && shape == Shape::Send)
            {
                f
            } else {
                Fault::Refuse
            }
        });
        if let Some(fault) = fitting {
            *state.injected.entry(fault).or_default() += 1;
        }
        fitting
    }

    /// Whether the next scripted fault of this operation is this one; it is used up then.
    pub(super) fn take(&self, operation: &'static str, fault: Fault) -> bool {
        let mut state = self.0.lock();
        let next = state.script.iter().position(|(of, _)| *of == operation);
        let Some(place) = next.filter(|place| state.script[*place].1 == fault) else {
            return false;
        };
        state.script.remove(place);
        *state.injected.entry(fault).or_default() += 1;
        true
    }

    /// A number below `end`, or zero.
    pub(super) fn below(&self, end: u64) -> u64 {
        match end {
            0 => 0,
            end => self.0.lock().rng.random_range(0..end),
        }
    }

    pub(super) fn defer(&self, effect: BoxFuture<'static, ()>) {
        self.0.lock().late.push(effect);
    }
}
