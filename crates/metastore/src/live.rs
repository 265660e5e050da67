//! What one process knows in memory: the room of each backend, the open intents, the part claims
//! that are under way.
//!
//! One lock over all of it. So an intent is settled exactly once (commit, abandon and withdraw race
//! here and nowhere else), and bytes move from `reserved` to `used` in one step for admission. The
//! guards that requests hold are in `guard`; their drop settles here.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use base::{BackendKey, BlobId, CopyId, UploadId};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::guard::Intent;
use crate::ledger::{Counters, Delta, Ledger};
use crate::model::{BackendId, Enqueued, RecoveryChange, Room};

/// An intent as its row holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct IntentRow {
    pub(crate) copy: CopyId,
    pub(crate) blob: BlobId,
    pub(crate) backend: BackendId,
    pub(crate) key: BackendKey,
    pub(crate) bytes: u64,
}

/// Whether more of an attempt may still appear on its backend.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It may: the backend has not answered, as far as this process knows.
    #[default]
    Unknown,
    /// It may not: the backend has answered.
    Answered,
}

/// An intent that is given up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct GivenUp {
    pub(crate) intent: IntentRow,
    pub(crate) outcome: Outcome,
}

/// Who may settle an intent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// The request that holds its guard.
    Open,
    /// A job that is queued; nobody else.
    Settling,
    /// The reaper.
    Abandoned,
}

#[derive(Debug)]
struct Entry {
    row: IntentRow,
    stage: Stage,
    outcome: Outcome,
    generation: Generation,
}

/// What a committed job changes in memory.
#[derive(Debug, Default)]
pub(crate) struct Effects {
    /// Counters, as they changed in rows.
    pub(crate) deltas: BTreeMap<BackendId, Delta>,
    /// Intents that are locations or cleanup rows now.
    pub(crate) settled: Vec<CopyId>,
    /// A reservation whose bytes are counted in rows from now on.
    pub(crate) room: Option<(BackendId, u64)>,
    /// Room that was leased.
    pub(crate) leased: Option<(BackendId, i64)>,
    /// Backends that are new or whose state changed.
    pub(crate) accepting: Vec<(BackendId, bool)>,
    /// The recovery state, where it changed.
    pub(crate) recovery: Option<RecoveryChange>,
    /// Whether the counts that came with the job are in rows.
    pub(crate) counted: bool,
    /// Rows of the cleanup queue that are new.
    pub(crate) enqueued: Enqueued,
}

impl Effects {
    /// The delta of a backend, to add to.
    pub(crate) fn delta(&mut self, backend: BackendId) -> &mut Delta {
        self.deltas.entry(backend).or_default()
    }
}

/// Sums over the intents of one backend, taken under the lock.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct IntentSums {
    /// As counted while intents came and went.
    pub(crate) counted: u64,
    /// As summed over the registry.
    pub(crate) summed: u64,
    /// `reserved` as admission sees it.
    pub(crate) admitted: u64,
}

/// The state of this process.
#[derive(Debug, Default)]
pub(crate) struct Live {
    state: Mutex<State>,
    claims_ended: Notify,
    abandoned: Arc<Notify>,
}

#[derive(Debug, Default)]
struct State {
    ledgers: HashMap<BackendId, Ledger>,
    intents: HashMap<CopyId, Entry>,
    abandoned: BTreeSet<CopyId>,
    /// Settled intents whose rows are still in the intent file. Where the rows of intents lie beside
    /// those that they become (PostgreSQL), they go with them.
    stale: Vec<CopyId>,
    /// Part claims whose requests are gone; other instances wait for them.
    ended_claims: Vec<CopyId>,
    /// What was reserved under another generation is no longer held.
    generation: Generation,
    shared: bool,
    claims: HashMap<UploadId, HashSet<CopyId>>,
    /// Rows of the cleanup queue that nobody was told of yet.
    enqueued: Enqueued,
}

impl State {
    fn ledger(&mut self, backend: BackendId) -> &mut Ledger {
        self.ledgers
            .get_mut(&backend)
            .expect("a backend with bytes has a ledger")
    }

    /// A backend that is new has no counters of ours yet.
    fn ledger_or_new(&mut self, backend: BackendId) -> &mut Ledger {
        let shared = self.shared;
        self.ledgers.entry(backend).or_insert_with(|| match shared {
            true => Ledger::leasing(Counters::default(), false, 0),
            false => Ledger::default(),
        })
    }

    /// The intent that a guard of this generation stands for.
    fn held(&mut self, copy: CopyId, generation: Generation) -> Option<&mut Entry> {
        self.intents
            .get_mut(&copy)
            .filter(|entry| entry.generation == generation)
    }

    fn end_intent(&mut self, copy: CopyId) {
        let entry = self
            .intents
            .remove(&copy)
            .expect("an intent is settled once");
        self.abandoned.remove(&copy);
        self.ledger(entry.row.backend).end_intent(entry.row.bytes);
        if !self.shared {
            self.stale.push(copy);
        }
    }
}

/// Counts how often this process lost all that it held, because its lease expired.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Generation(u64);

impl Live {
    /// The state of an instance among others.
    pub(crate) fn shared() -> Self {
        let live = Self::default();
        live.state.lock().shared = true;
        live
    }

    /// Makes a backend known, with its counters.
    pub(crate) fn load_backend(&self, backend: BackendId, counters: Counters, accepting: bool) {
        self.state
            .lock()
            .ledgers
            .insert(backend, Ledger::new(counters, accepting));
    }

    /// Begins again as another instance: what was held is lost. The quotas stay.
    pub(crate) fn begin_again(&self, ledgers: Vec<(BackendId, Ledger)>, intents: Vec<IntentRow>) {
        let mut state = self.state.lock();
        state.generation.0 += 1;
        state.intents.clear();
        state.abandoned.clear();
        state.ended_claims.clear();
        let mut before = std::mem::take(&mut state.ledgers);
        for (backend, mut ledger) in ledgers {
            ledger.set_limit(before.remove(&backend).and_then(|ledger| ledger.limit()));
            state.ledgers.insert(backend, ledger);
        }
        drop(state);
        for intent in intents {
            self.load_intent(intent);
        }
    }

    pub(crate) fn generation(&self) -> Generation {
        self.state.lock().generation
    }

    /// What the others count, and which backends accept bytes.
    pub(crate) fn see_others(&self, seen: &[(BackendId, Counters, bool)]) {
        let mut state = self.state.lock();
        for (backend, others, accepting) in seen {
            // One that another instance made has no counters of ours yet.
            let unknown = || Ledger::leasing(Counters::default(), *accepting, 0);
            let ledger = state.ledgers.entry(*backend).or_insert_with(unknown);
            ledger.set_others(*others);
            ledger.set_accepting(*accepting);
        }
    }

    pub(crate) fn limit(&self, backend: BackendId) -> Option<u64> {
        let state = self.state.lock();
        state.ledgers.get(&backend).and_then(Ledger::limit)
    }

    /// Leased room that nothing uses.
    pub(crate) fn unused(&self, backend: BackendId) -> u64 {
        let state = self.state.lock();
        state.ledgers.get(&backend).map_or(0, Ledger::unused)
    }

    /// Takes leased room that nothing uses, to give it back.
    pub(crate) fn take_unused(&self, backend: BackendId) -> u64 {
        let mut state = self.state.lock();
        state
            .ledgers
            .get_mut(&backend)
            .map_or(0, Ledger::take_unused)
    }

    /// Leased room that could not be given back.
    pub(crate) fn keep_unused(&self, backend: BackendId, bytes: u64, generation: Generation) {
        let mut state = self.state.lock();
        if state.generation == generation {
            state.ledger(backend).move_lease(bytes.cast_signed());
        }
    }

    /// Leased room as this process believes it to be in rows.
    pub(crate) fn leased(&self) -> BTreeMap<BackendId, u64> {
        let state = self.state.lock();
        state
            .ledgers
            .iter()
            .map(|(id, ledger)| (*id, ledger.leased()))
            .collect()
    }

    /// Part claims that ended since the last call.
    pub(crate) fn take_ended_claims(&self) -> Vec<CopyId> {
        std::mem::take(&mut self.state.lock().ended_claims)
    }

    /// Part claims of which nobody could be told.
    pub(crate) fn put_back_ended_claims(&self, attempts: Vec<CopyId>) {
        self.state.lock().ended_claims.extend(attempts);
    }

    /// Makes the intent of an earlier process known, as an abandoned one.
    pub(crate) fn load_intent(&self, row: IntentRow) {
        let mut state = self.state.lock();
        state.ledger(row.backend).open_intent(row.bytes);
        state.abandoned.insert(row.copy);
        let entry = Entry {
            stage: Stage::Abandoned,
            outcome: Outcome::Unknown,
            generation: state.generation,
            row,
        };
        state.intents.insert(entry.row.copy, entry);
    }

    // === room ===

    pub(crate) fn set_limit(&self, backend: BackendId, limit: Option<u64>) {
        if let Some(ledger) = self.state.lock().ledgers.get_mut(&backend) {
            ledger.set_limit(limit);
        }
    }

    pub(crate) fn room(&self, backend: BackendId) -> Room {
        let state = self.state.lock();
        state
            .ledgers
            .get(&backend)
            .map_or_else(Room::default, Ledger::room)
    }

    pub(crate) fn accepts(&self, backend: BackendId) -> bool {
        self.state
            .lock()
            .ledgers
            .get(&backend)
            .is_some_and(Ledger::accepting)
    }

    /// Takes room; the generation that it belongs to.
    pub(crate) fn take(&self, backend: BackendId, bytes: u64) -> Option<Generation> {
        let mut state = self.state.lock();
        let taken = state
            .ledgers
            .get_mut(&backend)
            .is_some_and(|ledger| ledger.take(bytes));
        taken.then_some(state.generation)
    }

    pub(crate) fn give_back(&self, backend: BackendId, bytes: u64, generation: Generation) {
        let mut state = self.state.lock();
        if state.generation == generation {
            state.ledger(backend).give_back(bytes);
        }
    }

    /// The counters as this process believes them to be in rows.
    pub(crate) fn counters(&self) -> BTreeMap<BackendId, Counters> {
        let state = self.state.lock();
        state
            .ledgers
            .iter()
            .map(|(id, ledger)| (*id, ledger.counters()))
            .collect()
    }

    // === intents ===

    /// Rows of the intent file that may go.
    pub(crate) fn take_stale(&self) -> Vec<CopyId> {
        std::mem::take(&mut self.state.lock().stale)
    }

    /// Puts rows back that could not be deleted.
    pub(crate) fn put_back_stale(&self, copies: Vec<CopyId>) {
        self.state.lock().stale.extend(copies);
    }

    /// Intents that have just become durable: their reservations are theirs now.
    /// False for each that was reserved before this process began again.
    pub(crate) fn intents_opened(
        &self,
        rows: impl Iterator<Item = (IntentRow, Generation)>,
    ) -> Vec<bool> {
        let mut state = self.state.lock();
        let mut opened = Vec::new();
        for (row, generation) in rows {
            opened.push(generation == state.generation);
            if generation != state.generation {
                continue;
            }
            let ledger = state.ledger(row.backend);
            ledger.give_back(row.bytes);
            ledger.open_intent(row.bytes);
            let entry = Entry {
                stage: Stage::Open,
                outcome: Outcome::Unknown,
                generation: state.generation,
                row,
            };
            state.intents.insert(entry.row.copy, entry);
        }
        opened
    }

    /// Whether all these intents were open; then they are the queued job's from now on.
    pub(crate) fn begin_settling(&self, copies: &[CopyId]) -> bool {
        let mut state = self.state.lock();
        let open = |copy| {
            state
                .intents
                .get(copy)
                .is_some_and(|entry| entry.stage == Stage::Open)
        };
        if !copies.iter().all(open) {
            return false;
        }
        for copy in copies {
            if let Some(entry) = state.intents.get_mut(copy) {
                entry.stage = Stage::Settling;
            }
        }
        true
    }

    /// Gives intents back to the request whose job did not settle them.
    pub(crate) fn reopen(&self, intents: &[Intent]) {
        let mut state = self.state.lock();
        for intent in intents {
            if let Some(entry) = state.held(intent.copy(), intent.generation()) {
                entry.stage = Stage::Open;
            }
        }
    }

    /// The backend has answered: nothing more of this attempt can appear.
    pub(crate) fn answered(&self, copy: CopyId, generation: Generation) {
        if let Some(entry) = self.state.lock().held(copy, generation) {
            entry.outcome = Outcome::Answered;
        }
    }

    /// What is known of an open intent's attempt.
    pub(crate) fn outcome(&self, copy: CopyId) -> Outcome {
        let state = self.state.lock();
        state
            .intents
            .get(&copy)
            .map_or(Outcome::Unknown, |entry| entry.outcome)
    }

    /// The request is gone: the reaper may have it.
    pub(crate) fn abandon(&self, copy: CopyId, generation: Generation) {
        let mut state = self.state.lock();
        if let Some(entry) = state.held(copy, generation) {
            entry.stage = Stage::Abandoned;
            state.abandoned.insert(copy);
            drop(state);
            self.abandoned.notify_one();
        }
    }

    /// Rings when an intent is abandoned.
    pub(crate) fn abandoned_bell(&self) -> Arc<Notify> {
        Arc::clone(&self.abandoned)
    }

    /// Forgets an open intent whose write had no effect; `false` where it is not open.
    pub(crate) fn withdraw(&self, copy: CopyId) -> bool {
        let mut state = self.state.lock();
        match state.intents.get(&copy).map(|entry| entry.stage) {
            Some(Stage::Open) => {
                state.end_intent(copy);
                true
            }
            Some(Stage::Settling | Stage::Abandoned) | None => false,
        }
    }

    /// Forgets every abandoned intent; the number of them.
    pub(crate) fn forget_abandoned(&self) -> u64 {
        let mut state = self.state.lock();
        let copies: Vec<CopyId> = state.abandoned.iter().copied().collect();
        for copy in &copies {
            state.end_intent(*copy);
        }
        copies.len() as u64
    }

    /// Takes abandoned intents for a queued job.
    pub(crate) fn take_abandoned(&self, limit: usize) -> Vec<GivenUp> {
        let mut state = self.state.lock();
        let copies: Vec<CopyId> = state.abandoned.iter().take(limit).copied().collect();
        let mut rows = Vec::with_capacity(copies.len());
        for copy in copies {
            state.abandoned.remove(&copy);
            let entry = state
                .intents
                .get_mut(&copy)
                .expect("abandoned intents are registered");
            entry.stage = Stage::Settling;
            rows.push(GivenUp {
                intent: entry.row.clone(),
                outcome: entry.outcome,
            });
        }
        rows
    }

    /// Open intents.
    pub(crate) fn intent_count(&self) -> u64 {
        u64::try_from(self.state.lock().intents.len()).expect("a count fits into 64 bits")
    }

    /// Open intents of a backend.
    pub(crate) fn intents_on(&self, backend: BackendId) -> u64 {
        let state = self.state.lock();
        let on = state
            .intents
            .values()
            .filter(|entry| entry.row.backend == backend)
            .count();
        u64::try_from(on).expect("a count fits into 64 bits")
    }

    /// Whether an intent with this id is registered.
    pub(crate) fn knows(&self, copy: CopyId) -> bool {
        self.state.lock().intents.contains_key(&copy)
    }

    /// Whether an intent for this key is registered.
    pub(crate) fn knows_key(&self, backend: BackendId, key: &str) -> bool {
        let state = self.state.lock();
        let at = |entry: &Entry| entry.row.backend == backend && entry.row.key.as_str() == key;
        state.intents.values().any(at)
    }

    /// Intents that no queued job is settling right now.
    pub(crate) fn unsettled_intents(&self) -> Vec<CopyId> {
        let state = self.state.lock();
        let resting = |entry: &&Entry| entry.stage != Stage::Settling;
        state
            .intents
            .values()
            .filter(resting)
            .map(|entry| entry.row.copy)
            .collect()
    }

    /// Sums over intents, for verification.
    pub(crate) fn intent_sums(&self) -> HashMap<BackendId, IntentSums> {
        let state = self.state.lock();
        let mut sums: HashMap<BackendId, IntentSums> = HashMap::new();
        for (backend, ledger) in &state.ledgers {
            let sum = sums.entry(*backend).or_default();
            sum.counted = ledger.intents();
            sum.admitted = ledger.room().reserved;
        }
        for entry in state.intents.values() {
            sums.entry(entry.row.backend).or_default().summed += entry.row.bytes;
        }
        sums
    }

    // === part claims ===

    pub(crate) fn claim_begins(&self, upload: UploadId, attempt: CopyId) {
        self.state
            .lock()
            .claims
            .entry(upload)
            .or_default()
            .insert(attempt);
    }

    pub(crate) fn claim_ends(&self, upload: UploadId, attempt: CopyId) {
        let mut state = self.state.lock();
        if let Some(claims) = state.claims.get_mut(&upload) {
            claims.remove(&attempt);
            if claims.is_empty() {
                state.claims.remove(&upload);
            }
        }
        if state.shared {
            state.ended_claims.push(attempt);
        }
        drop(state);
        self.claims_ended.notify_waiters();
    }

    pub(crate) fn has_claims(&self, upload: UploadId) -> bool {
        self.state.lock().claims.contains_key(&upload)
    }

    /// Resolves when no claim of the upload is under way.
    pub(crate) async fn claims_ended(&self, upload: UploadId) {
        loop {
            let ended = self.claims_ended.notified();
            if !self.has_claims(upload) {
                return;
            }
            ended.await;
        }
    }

    // === after a commit ===

    /// Applies what a committed batch did, in one step.
    pub(crate) fn settle<'a>(&self, effects: impl Iterator<Item = &'a Effects>) {
        let mut state = self.state.lock();
        for effects in effects {
            for (backend, accepting) in &effects.accepting {
                state.ledger_or_new(*backend).set_accepting(*accepting);
            }
            for copy in &effects.settled {
                state.end_intent(*copy);
            }
            if let Some((backend, bytes)) = effects.room {
                state.ledger(backend).give_back(bytes);
            }
            if let Some((backend, bytes)) = effects.leased {
                state.ledger(backend).move_lease(bytes);
            }
            for (backend, delta) in &effects.deltas {
                state.ledger(*backend).apply(*delta);
            }
            state.enqueued.merge(effects.enqueued);
        }
    }

    /// What was queued for deletion since the last call.
    pub(crate) fn take_enqueued(&self) -> Enqueued {
        std::mem::take(&mut self.state.lock().enqueued)
    }
}
