//! Applies batches: one call each, sent again until it is known what became of it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use base::{Clock, CopyId, Timestamp, report};
use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;
use tracing::{error, info, warn};
use uuid::Uuid;

use crate::error::DatabaseError;
use crate::fault::{Fault, database};
use crate::guard::Intent;
use crate::job::{Answer, Held};
use crate::live::Effects;
use crate::model::{Ground, RecoveryChange};
use crate::postgres::connect::{Connector, Params, Session};
use crate::postgres::migrate::{self, Registered};
use crate::postgres::store::entered_recovery;
use crate::postgres::work::Work;
use crate::postgres::{Server, decode, encode, is_connection};
use crate::settle::{self, Settler};
use crate::writer::{Applier, Health, Queues};
use crate::{Error, Result};

pub(crate) type Item = settle::Item<Work>;

/// How often a batch that fails through no fault of its own (a deadlock, a lock that others hold) is
/// tried.
const TRIES_MAX: u32 = 5;
/// The pause before the next try, and its bound.
const PAUSE_MS: u64 = 20;
const PAUSE_MS_MAX: u64 = 1_000;
/// Tries without an answer after which whoever waits is told.
const SILENT_TRIES: u32 = 3;

const RESTORED: &str = "the database was restored to an earlier state under running instances: objects \
    written since are not in the catalogue, and bytes on the backends may be theirs";

/// Which instance we are; it changes where our lease expired.
pub(crate) struct Identity(Mutex<Registered>);

impl Identity {
    pub(crate) fn new(registered: Registered) -> Self {
        Self(Mutex::new(registered))
    }

    pub(crate) fn get(&self) -> Registered {
        *self.0.lock()
    }

    fn set(&self, registered: Registered) {
        *self.0.lock() = registered;
    }
}

/// The way to the database as its writers see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    /// The last try was answered.
    Answers,
    /// Several tries in a row were not.
    Silent,
}

/// What both writers need to reach the database.
pub(crate) struct Line {
    pub(crate) connector: Arc<Connector>,
    pub(crate) reach: watch::Sender<Reach>,
    /// The store is closing: what cannot be reached now is given up.
    pub(crate) closing: watch::Receiver<bool>,
    session: Option<Session>,
    unanswered: u32,
}

impl Line {
    pub(crate) fn new(
        connector: Arc<Connector>,
        reach: watch::Sender<Reach>,
        closing: watch::Receiver<bool>,
    ) -> Self {
        Self {
            connector,
            reach,
            closing,
            session: None,
            unanswered: 0,
        }
    }

    /// Sees to it that there is a session; an error where the database cannot be reached right now.
    pub(crate) async fn open(&mut self) -> std::result::Result<(), DatabaseError> {
        let lifetime = self.connector.lifetime();
        if !self
            .session
            .as_ref()
            .is_some_and(|session| session.is_usable(lifetime))
        {
            self.session = None;
            self.session = Some(self.connector.connect().await?);
        }
        Ok(())
    }

    /// The session that was opened.
    pub(crate) fn session(&self) -> &Session {
        self.session.as_ref().expect("it was opened")
    }

    pub(crate) fn answered(&mut self) {
        self.unanswered = 0;
        if *self.reach.borrow() == Reach::Silent {
            info!("catalogue reachable again");
            self.reach.send_replace(Reach::Answers);
        }
    }

    /// The session is of no use any more. Waits before the next try; `false` where there is none.
    pub(crate) async fn unanswered(&mut self, error: &DatabaseError) -> bool {
        self.session = None;
        self.unanswered += 1;
        if self.unanswered == SILENT_TRIES {
            warn!(error = %report(error), "catalogue unreachable, retrying");
            self.reach.send_replace(Reach::Silent);
        }
        if *self.closing.borrow() {
            return false;
        }
        // A connection that was closed while it was idle is no outage: the first try follows at once.
        if self.unanswered > 1 {
            pause(self.unanswered).await;
        }
        true
    }
}

async fn pause(tries: u32) {
    let factor = 1_u64 << tries.min(10);
    sleep(Duration::from_millis((PAUSE_MS * factor).min(PAUSE_MS_MAX))).await;
}

/// Applies batches of work.
pub(crate) struct MainApplier {
    pub(crate) line: Line,
    pub(crate) server: Arc<Server>,
    pub(crate) identity: Arc<Identity>,
    pub(crate) settler: Settler,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) read_grace: Duration,
    /// Of the last batch that the database knows.
    pub(crate) seq: i64,
}

/// A batch as it is sent, however often.
struct Batch {
    now: Timestamp,
    jobs: String,
    locks: Vec<i64>,
    shared: Vec<bool>,
    /// Part claims whose requests are gone.
    ended: Vec<CopyId>,
}

/// How a batch ended.
enum Ended {
    /// It is durable.
    Verdicts(Vec<Value>),
    /// Nothing of it happened, and one of its jobs may be why.
    Data(DatabaseError),
    /// Nothing of it happened.
    Failed(DatabaseError),
    /// It is not known what happened, and will not be.
    Unknown(DatabaseError),
    /// This instance was buried.
    Fenced,
    /// The catalogue has another past than ours.
    Lost,
}

impl Applier for MainApplier {
    type Item = Item;

    async fn work(
        mut self,
        mut queues: Queues<Item>,
        first: Item,
    ) -> Option<(Self, Queues<Item>, Health)> {
        let items = queues.gather(first, |item| item.job.rows());
        let mut waiting = VecDeque::from([items]);
        while let Some(items) = waiting.pop_front() {
            let items = self.refuse_stale(items);
            if items.is_empty() {
                continue;
            }
            let batch = self.encode(&items);
            match self.run(batch).await {
                Ended::Verdicts(verdicts) => self.answer(items, &verdicts),
                Ended::Data(_) if items.len() > 1 => {
                    let mut items = items;
                    let rest = items.split_off(items.len() / 2);
                    waiting.push_front(rest);
                    waiting.push_front(items);
                }
                Ended::Data(error) | Ended::Failed(error) | Ended::Unknown(error) => {
                    self.refuse(items, error);
                }
                Ended::Fenced => {
                    warn!("instance lease expired, re-registering");
                    self.begin_again(items, None).await;
                }
                Ended::Lost => {
                    entered_recovery(RESTORED);
                    self.begin_again(items, Some(RESTORED)).await;
                }
            }
        }
        Some((self, queues, Health::Sound))
    }

    async fn finish(mut self) {
        let Registered { instance, epoch } = self.identity.get();
        let leave = async {
            self.line.open().await?;
            let now = self.clock.now().millis();
            let params: &Params<'_> = &[
                (&instance, Type::INT4),
                (&epoch, Type::INT8),
                (&now, Type::INT8),
            ];
            let left = self
                .line
                .session()
                .query("SELECT s3o_leave($1, $2, $3)::text", params);
            left.await.map(drop)
        };
        if let Err(error) = leave.await {
            warn!(error = %report(&error), "could not deregister instance");
        }
    }
}

impl MainApplier {
    /// Refuses what was held before this instance began again.
    fn refuse_stale(&self, items: Vec<Item>) -> Vec<Item> {
        let generation = self.settler.live.generation();
        let is_stale = |item: &Item| match &item.held {
            Held::Intents(intents) => intents
                .iter()
                .any(|intent| intent.generation() != generation),
            Held::NewClaim(_, room) => !room.is_held(),
            Held::Nothing | Held::Claim(_) | Held::Counts(_) => false,
        };
        let (stale, fresh): (Vec<_>, Vec<_>) = items.into_iter().partition(is_stale);
        for item in stale {
            let error = match &item.held {
                Held::Intents(intents) if !intents.is_empty() => Error::IntentGone {
                    copy: intents.first().map(Intent::copy).expect("one is there"),
                },
                _ => Error::NoRoom {
                    wanted: base::ByteSize(0),
                },
            };
            let _caller_gone = item.reply.send((Err(error), item.held));
        }
        fresh
    }

    fn encode(&self, items: &[Item]) -> Batch {
        let now = self.clock.now();
        let live = &self.settler.live;
        let jobs = encode::batch(items.iter().map(|item| &item.job), now, live);
        let locks = items.iter().flat_map(|item| item.job.locks()).collect();
        let (locks, shared) = encode::sorted(locks);
        Batch {
            now,
            jobs: jobs.to_string(),
            locks,
            shared,
            ended: live.take_ended_claims(),
        }
    }

    async fn run(&mut self, batch: Batch) -> Ended {
        let Batch {
            now,
            jobs,
            locks,
            shared,
            ended,
        } = batch;
        let attempts: Vec<Uuid> = ended.iter().copied().map(encode::copy_uuid).collect();
        let Registered { instance, epoch } = self.identity.get();
        let grace = i64::try_from(self.read_grace.as_millis()).unwrap_or(i64::MAX / 2);
        let seq = self.seq + 1;
        let (mut failures, mut sent) = (0, false);
        let outcome = loop {
            if let Err(error) = self.line.open().await {
                match self.line.unanswered(&error).await {
                    true => continue,
                    false if sent => break Ended::Unknown(error),
                    false => break Ended::Failed(error),
                }
            }
            let answer = self
                .line
                .session()
                .query(
                    "SELECT s3o_batch($1, $2, $3, $4, $5, $6, $7, $8, $9::text::jsonb)",
                    &[
                        (&instance, Type::INT4),
                        (&epoch, Type::INT8),
                        (&seq, Type::INT8),
                        (&now.millis(), Type::INT8),
                        (&grace, Type::INT8),
                        (&locks, Type::INT8_ARRAY),
                        (&shared, Type::BOOL_ARRAY),
                        (&attempts, Type::UUID_ARRAY),
                        (&jobs, Type::TEXT),
                    ],
                )
                .await;
            sent = true;
            let error = match answer {
                Ok(rows) => {
                    self.line.answered();
                    break read_answer(&rows);
                }
                Err(error) => error,
            };
            match kind(&error) {
                Failure::Way => {
                    if !self.line.unanswered(&error).await {
                        break Ended::Unknown(error);
                    }
                }
                Failure::Passing if failures < TRIES_MAX => {
                    self.line.answered();
                    failures += 1;
                    pause(failures).await;
                }
                Failure::Passing | Failure::Room => break Ended::Failed(error),
                Failure::Data => break Ended::Data(error),
            }
        };
        match &outcome {
            Ended::Verdicts(_) => self.seq = seq,
            _ => self.settler.live.put_back_ended_claims(ended),
        }
        outcome
    }

    fn answer(&self, items: Vec<Item>, verdicts: &[Value]) {
        let results = items
            .iter()
            .enumerate()
            .map(|(n, item)| self.read(&item.job, verdicts.get(n).unwrap_or(&Value::Null)))
            .collect();
        self.settler.answer(items, results);
    }

    /// The answer of one job; an audit compares rows with memory, which is where the batch found it.
    fn read(&self, work: &Work, verdict: &Value) -> Result<(Answer, Effects)> {
        let read = decode::answer(work, verdict).map_err(|fault| fault.named(work.operation()))?;
        let (Answer::Slots(slots), effects) = read else {
            return Ok(read);
        };
        let drift = decode::drift(
            &slots,
            &self.settler.live.counters(),
            &self.settler.live.leased(),
        );
        Ok((Answer::Drift(drift), effects))
    }

    fn refuse(&self, items: Vec<Item>, error: DatabaseError) {
        let shared = Shared::new(error);
        self.settler
            .refuse(items, |work| shared.of(work.operation()));
    }

    /// Takes another number; everything that was held is lost, and what was queued is refused.
    /// `restored` is why the recovery state begins.
    async fn begin_again(&mut self, items: Vec<Item>, restored: Option<&str>) {
        loop {
            match self.register(restored).await {
                Ok(()) => break,
                Err(Fault::Postgres(error)) => {
                    if !self.line.unanswered(&error).await {
                        break;
                    }
                }
                Err(fault) => {
                    let error = fault.named("register");
                    error!(error = %report(&error), "could not re-register instance");
                    pause(u32::MAX).await;
                }
            }
        }
        self.settler.refuse(items, |work| Error::Unavailable {
            operation: work.operation(),
            source: DatabaseError::Connection("the lease of this instance expired".into()),
        });
    }

    async fn register(&mut self, restored: Option<&str>) -> std::result::Result<(), Fault> {
        let (server, clock) = (Arc::clone(&self.server), Arc::clone(&self.clock));
        self.line.open().await.map_err(Fault::Postgres)?;
        let session = self.line.session();
        let registered = migrate::register(session, &server, clock.as_ref(), restored).await?;
        let loaded = migrate::load(session, registered.instance).await?;
        self.line.answered();
        if let Some(reason) = restored {
            let mut catalogue = self.settler.catalogue.write();
            catalogue.change(&RecoveryChange::Enter(reason.to_owned(), Ground::Restored));
        }
        self.identity.set(registered);
        self.seq = 0;
        self.settler
            .live
            .begin_again(loaded.ledgers, loaded.intents);
        Ok(())
    }
}

fn read_answer(rows: &[tokio_postgres::Row]) -> Ended {
    let read = || -> Option<Value> {
        let text: String = rows.first()?.try_get(0).ok()?;
        serde_json::from_str(&text).ok()
    };
    match read() {
        Some(Value::Object(mut answer)) if answer.contains_key("verdicts") => {
            match answer.remove("verdicts") {
                Some(Value::Array(verdicts)) => Ended::Verdicts(verdicts),
                _ => Ended::Lost,
            }
        }
        Some(Value::Object(answer)) if answer.contains_key("fenced") => Ended::Fenced,
        _ => Ended::Lost,
    }
}

/// What an error says about a batch.
pub(crate) enum Failure {
    /// The way to the database: the batch may have happened.
    Way,
    /// Others were in the way: it did not happen, and may the next time.
    Passing,
    /// There is no room on a disk, or in memory.
    Room,
    /// One of its jobs.
    Data,
}

pub(crate) fn kind(error: &DatabaseError) -> Failure {
    let DatabaseError::Postgres(error) = error else {
        return Failure::Way;
    };
    if is_connection(error) {
        return Failure::Way;
    }
    match error.code() {
        Some(
            &SqlState::T_R_DEADLOCK_DETECTED
            | &SqlState::T_R_SERIALIZATION_FAILURE
            | &SqlState::LOCK_NOT_AVAILABLE
            | &SqlState::QUERY_CANCELED,
        ) => Failure::Passing,
        Some(code) if code.code().starts_with("53") => Failure::Room,
        _ => Failure::Data,
    }
}

/// One error for all callers of a batch.
pub(crate) struct Shared(DatabaseError);

impl Shared {
    pub(crate) fn new(error: DatabaseError) -> Self {
        Self(error)
    }

    pub(crate) fn of(&self, operation: &'static str) -> Error {
        let again = match &self.0 {
            DatabaseError::Postgres(error) => DatabaseError::Postgres(Arc::clone(error)),
            DatabaseError::Connection(words) => DatabaseError::Connection(words.clone()),
            DatabaseError::Sqlite(error) => DatabaseError::Connection(error.to_string()),
        };
        database(operation)(again)
    }
}
