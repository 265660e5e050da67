//! The handle to a catalogue that several instances share.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use base::{ByteSize, Clock, Ids, UploadId};
use parking_lot::{Mutex, RwLock};
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, sleep};
use tracing::{error, info};

use crate::error::DatabaseError;
use crate::fault::Fault;
use crate::guard::{Reservation, Unclaimed};
use crate::job::{Answer, Held};
use crate::live::Live;
use crate::model::{BackendId, Catalogue};
use crate::postgres::apply::{Identity, Item, Line, MainApplier, Reach};
use crate::postgres::coalesce::Coalescer;
use crate::postgres::connect::{Connector, Pool};
use crate::postgres::intents::IntentApplier;
use crate::postgres::work::Work;
use crate::postgres::{Server, beat, migrate, read};
use crate::settle::{IntentItem, Settler};
use crate::writer::{Lane, Priority};
use crate::{Error, Result};

/// Connections that write: one for batches, one for intents.
const WRITERS: u32 = 2;
/// How long a write waits for other instances to give back room that they do not use.
const ROOM_WAIT: Duration = Duration::from_secs(2);
const ROOM_PAUSE: Duration = Duration::from_millis(100);
/// How often it is looked whether parts are still being written by other instances.
const CLAIMS_PAUSE: Duration = Duration::from_millis(200);

/// How to open a catalogue on PostgreSQL.
#[derive(Debug, Clone)]
pub struct ConnectOptions {
    /// Where the database is.
    pub server: Server,
    /// The time of day; leases go by the database's clock.
    pub clock: Arc<dyn Clock>,
    /// Where identifiers are drawn.
    pub ids: Arc<Ids>,
    /// How long displaced and deleted bytes stay on their backends for readers that still use them.
    pub read_grace: Duration,
}

/// An instance's view of the catalogue.
pub(crate) struct Shared {
    pub(super) pool: Pool,
    pub(super) live: Arc<Live>,
    pub(super) identity: Arc<Identity>,
    pub(super) lease: Duration,
    catalogue: Arc<RwLock<Catalogue>>,
    pub(super) objects: Coalescer,
    pub(super) plans: Coalescer,
    main: Lane<Item>,
    intents: Lane<IntentItem>,
    reach: watch::Receiver<Reach>,
    closing: watch::Sender<bool>,
    closed: AtomicBool,
    /// One lease of a backend's room is asked for at a time.
    leasing: Mutex<HashMap<BackendId, Arc<tokio::sync::Mutex<()>>>>,
}

/// An opened catalogue.
pub(crate) struct Opened {
    pub(crate) shared: Arc<Shared>,
    pub(crate) live: Arc<Live>,
    pub(crate) catalogue: Arc<RwLock<Catalogue>>,
}

/// Opens the catalogue as one of its instances; makes or migrates it where needed.
pub(crate) async fn open(
    options: ConnectOptions,
    panicked: impl Fn() + Clone + Send + 'static,
) -> Result<Opened> {
    let server = Arc::new(options.server);
    let connector = Arc::new(Connector::new(&server)?);
    let unreached = |source: DatabaseError| crate::fault::database("reach the database")(source);
    let mut session = connector.connect().await.map_err(unreached)?;
    let catalogue = migrate::open(&server, &connector, &mut session, &options.ids).await?;
    let named = |fault: Fault| fault.named("register this instance");
    let registered = migrate::register(&session, &server, options.clock.as_ref(), None)
        .await
        .map_err(named)?;
    let loaded = migrate::load(&session, registered.instance)
        .await
        .map_err(named)?;
    let live = Arc::new(Live::shared());
    live.begin_again(loaded.ledgers, loaded.intents);
    let lookups = server.conns_max.saturating_sub(WRITERS).max(1);
    let pool = Pool::new(Arc::clone(&connector), lookups as usize);
    pool.warm(server.conns_min.min(lookups) as usize).await;

    let catalogue = Arc::new(RwLock::new(catalogue));
    let identity = Arc::new(Identity::new(registered));
    let (reach, reached) = watch::channel(Reach::Answers);
    let (closing, closes) = watch::channel(false);
    let line = || Line::new(Arc::clone(&connector), reach.clone(), closes.clone());
    let main = MainApplier {
        line: line(),
        server: Arc::clone(&server),
        identity: Arc::clone(&identity),
        settler: Settler {
            live: Arc::clone(&live),
            catalogue: Arc::clone(&catalogue),
        },
        clock: options.clock,
        read_grace: options.read_grace,
        seq: 0,
    };
    let intents = IntentApplier {
        line: line(),
        identity: Arc::clone(&identity),
        live: Arc::clone(&live),
    };
    let shared = Arc::new(Shared {
        objects: Coalescer::start(&pool, "SELECT * FROM s3o_objects($1, $2)"),
        plans: Coalescer::start(&pool, "SELECT * FROM s3o_plans($1, $2)"),
        pool,
        live: Arc::clone(&live),
        identity,
        lease: server.lease,
        catalogue: Arc::clone(&catalogue),
        main: Lane::start(main, panicked.clone()),
        intents: Lane::start(intents, panicked),
        reach: reached,
        closing,
        closed: AtomicBool::new(false),
        leasing: Mutex::default(),
    });
    drop(tokio::spawn(beat::run(
        Arc::downgrade(&shared),
        server.lease,
    )));
    Ok(Opened {
        shared,
        live,
        catalogue,
    })
}

/// Says on every instance what has to be done on one.
pub(crate) fn entered_recovery(reason: &str) {
    error!(
        %reason,
        "nothing is deleted on backends until `s3-orchestrator reconcile --recover` has run"
    );
}

impl Shared {
    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Another instance may have entered or left the recovery state.
    pub(super) fn see_recovery(&self, recovery: Option<String>, restored: bool) {
        self.catalogue.write().restored = restored;
        if self.catalogue.read().recovery == recovery {
            return;
        }
        match &recovery {
            Some(reason) => entered_recovery(reason),
            None => info!("recovery complete"),
        }
        self.catalogue.write().recovery = recovery;
    }

    /// The number of this instance.
    pub(crate) fn instance(&self) -> i32 {
        self.identity.get().instance
    }

    pub(crate) async fn close(&self) {
        // Intents first: what they are for is in the other lane. Each writes what waits; what cannot
        // be reached now is given up.
        self.closing.send_replace(true);
        self.intents.close().await;
        self.main.close().await;
        self.closed.store(true, Ordering::Release);
        self.pool.close();
    }

    // === the way to the writers ===

    pub(crate) async fn run(&self, work: Work) -> Result<Answer> {
        self.send(work, Held::Nothing, Priority::Normal).await.0
    }

    /// Queues work with the guards that it settles; those that it did not come back. Where the
    /// database is silent nobody waits: the guards settle themselves when it speaks again.
    pub(crate) async fn send(
        &self,
        work: Work,
        held: Held,
        priority: Priority,
    ) -> (Result<Answer>, Held) {
        let operation = work.operation();
        if let Err(fault) = work.check() {
            return (Err(fault.named(operation)), self.reopened(held));
        }
        let (reply, answer) = oneshot::channel();
        let item = Item {
            job: work,
            held,
            reply,
        };
        if *self.reach.borrow() == Reach::Silent && !matches!(item.job, Work::Beat) {
            return (Err(silent(operation)), self.reopened(item.held));
        }
        if let Err(item) = self.main.send(item, priority).await {
            return (Err(Error::Closed), self.reopened(item.held));
        }
        let mut reach = self.reach.clone();
        tokio::select! {
            biased;
            // A writer that died took the guards with it; they settled themselves.
            answer = answer => answer.unwrap_or_else(|_| (Err(Error::Closed), Held::Nothing)),
            _silent = reach.wait_for(|reach| *reach == Reach::Silent) => {
                (Err(silent(operation)), Held::Nothing)
            }
        }
    }

    /// Work that may as well be forgotten.
    pub(crate) fn offer(&self, work: Work) {
        let (reply, _nobody_waits) = oneshot::channel();
        self.main.offer(Item {
            job: work,
            held: Held::Nothing,
            reply,
        });
    }

    fn reopened(&self, held: Held) -> Held {
        if let Held::Intents(intents) = &held {
            self.live.reopen(intents);
        }
        held
    }

    pub(crate) async fn open_intent(
        &self,
        item: IntentItem,
        answer: oneshot::Receiver<Result<Unclaimed>>,
    ) -> Result<crate::Intent> {
        const OPERATION: &str = "record an intent";
        if *self.reach.borrow() == Reach::Silent {
            return Err(silent(OPERATION));
        }
        self.intents
            .send(item, Priority::Normal)
            .await
            .map_err(|_| Error::Closed)?;
        let mut reach = self.reach.clone();
        tokio::select! {
            biased;
            answer = answer => answer.unwrap_or(Err(Error::Closed)).map(Unclaimed::claim),
            _silent = reach.wait_for(|reach| *reach == Reach::Silent) => Err(silent(OPERATION)),
        }
    }

    // === room ===

    /// Takes room; leases more where what is leased does not suffice. Never a byte over the limit, and
    /// no refusal while another instance holds what would suffice and gives it back in time.
    pub(crate) async fn reserve(&self, backend: BackendId, bytes: u64) -> Result<Reservation> {
        if let Some(room) = Reservation::take(&self.live, backend, bytes) {
            return Ok(room);
        }
        let no_room = Error::NoRoom {
            wanted: ByteSize(bytes),
        };
        if !self.live.accepts(backend) {
            return Err(no_room);
        }
        let turn = Arc::clone(self.leasing.lock().entry(backend).or_default());
        let _turn = turn.lock().await;
        let begun = Instant::now();
        let mut wish = Wish {
            shared: self,
            backend,
            noted: false,
        };
        loop {
            // Whoever had the turn before may have leased enough.
            if let Some(room) = Reservation::take(&self.live, backend, bytes) {
                return Ok(room);
            }
            let work = Work::LeaseRoom {
                backend,
                wanted: bytes.saturating_sub(self.live.unused(backend)),
                limit: self.live.limit(backend),
            };
            match self.run(work).await? {
                Answer::Leased => wish.noted = false,
                Answer::Short { others } => {
                    wish.noted = true;
                    if others == 0 || begun.elapsed() >= ROOM_WAIT {
                        return Err(no_room);
                    }
                    sleep(ROOM_PAUSE).await;
                }
                other => unreachable!("a lease was answered by {other:?}"),
            }
        }
    }

    // === part claims ===

    /// Resolves when no part of the upload is being written, by whichever instance.
    pub(crate) async fn claims_ended(&self, upload: UploadId) {
        loop {
            self.live.claims_ended(upload).await;
            match read::has_foreign_claims(&self.pool, upload, self.instance()).await {
                Ok(true) => sleep(CLAIMS_PAUSE).await,
                // What cannot be seen now is seen by the freeze that follows.
                Ok(false) | Err(_) => return,
            }
        }
    }
}

/// A wish for room that others see; taken back when nobody wants it any more.
struct Wish<'a> {
    shared: &'a Shared,
    backend: BackendId,
    noted: bool,
}

impl Drop for Wish<'_> {
    fn drop(&mut self) {
        if self.noted {
            self.shared.offer(Work::ReturnRoom {
                backend: self.backend,
                bytes: 0,
                satisfied: true,
            });
        }
    }
}

fn silent(operation: &'static str) -> Error {
    Error::Unavailable {
        operation,
        source: DatabaseError::Connection("the database does not answer".into()),
    }
}
