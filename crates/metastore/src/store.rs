//! The handle to an open catalogue.

mod objects;
mod open;
mod overview;
mod uploads;
mod usage;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use base::{BackendName, BucketName, ByteSize, Clock, Ids};
use parking_lot::{Mutex, RwLock};
use rusqlite::{Connection, Transaction};
use tokio::sync::oneshot;

use crate::guard::{Intent, Reservation};
use crate::job::{Answer, Held, Job};
use crate::live::Live;
use crate::model::{
    BackendId, BackendRow, BackendState, Bucket, BucketCreation, BucketId, BucketRemoval,
    Catalogue, Room, Verification,
};
use crate::sqlite::apply::Item;
use crate::sqlite::checkpoint::Checkpointer;
use crate::sqlite::connection::ReadPool;
use crate::sqlite::intents::IntentItem;
use crate::sqlite::lock::LockFile;
use crate::sqlite::{Fault, backup, database, read, verify};
use crate::writer::{Lane, Priority};
use crate::{Error, Result};

/// How to open a catalogue.
#[derive(Debug, Clone)]
pub struct OpenOptions {
    /// The database file; the intent database and the lock file lie beside it.
    pub path: PathBuf,
    /// The time of day.
    pub clock: Arc<dyn Clock>,
    /// Where identifiers are drawn.
    pub ids: Arc<Ids>,
    /// How long displaced and deleted bytes stay on their backends for readers that still use them.
    pub read_grace: Duration,
}

/// What only tests and the program's own start change about an open catalogue.
#[derive(Clone)]
pub struct Tuning {
    /// Called when it is unknown what is durable (an I/O error at a commit or a checkpoint). No
    /// answer would be true any more: the default reports the error and ends the process.
    pub on_fatal: Arc<dyn Fn(&Error) + Send + Sync>,
    /// The catalogue may not grow beyond so many pages of 4 KiB: a full disk, for tests.
    pub pages_max: Option<u32>,
    /// Asked before each commit; a result code of SQLite makes it fail, for tests.
    pub commit_fault: Option<Arc<dyn Fn() -> Option<i32> + Send + Sync>>,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            on_fatal: Arc::new(abort),
            pages_max: None,
            commit_fault: None,
        }
    }
}

impl fmt::Debug for Tuning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tuning")
            .field("pages_max", &self.pages_max)
            .finish_non_exhaustive()
    }
}

fn abort(error: &Error) {
    tracing::error!(error = %base::report(error), "the catalogue cannot be trusted any more");
    std::process::abort();
}

/// An open catalogue; cheap to clone.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    path: PathBuf,
    live: Arc<Live>,
    catalogue: Arc<RwLock<Catalogue>>,
    readers: ReadPool,
    /// Kept between two verifications.
    verifier: Mutex<Option<Verifier>>,
    /// Absent where the catalogue was opened for reading only.
    writing: Option<Writing>,
}

/// Connections of a verification.
struct Verifier {
    catalogue: Connection,
    /// Absent where the registry was read from the file in the first place.
    intents: Option<Connection>,
}

/// What only the writing process has.
struct Writing {
    main: Lane<Item>,
    intents: Lane<IntentItem>,
    checkpointers: [Checkpointer; 2],
    lock: Arc<LockFile>,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store")
            .field("path", &self.inner.path)
            .finish_non_exhaustive()
    }
}

/// The one answer that a job of this kind has.
macro_rules! answer {
    ($answer:expr, $variant:ident) => {
        match $answer? {
            Answer::$variant(value) => Ok(value),
            other => unreachable!("a job was answered by {other:?}"),
        }
    };
}
use answer;

impl Store {
    /// Opens the catalogue as its one writing process, and makes it where there is none.
    ///
    /// Migrates, takes the lock file, loads counters, and loads the intents of earlier processes as
    /// abandoned ones, with their reservations.
    pub async fn open(options: OpenOptions) -> Result<Self> {
        Self::open_tuned(options, Tuning::default()).await
    }

    /// As [`Store::open`], with other limits and another end.
    pub async fn open_tuned(options: OpenOptions, tuning: Tuning) -> Result<Self> {
        open::writer(options, tuning).await
    }

    /// Opens the catalogue read-only beside a writing process, for `verify`.
    pub async fn open_reader(path: &Path) -> Result<Self> {
        open::reader(path).await
    }

    /// Writes what waits, checkpoints, gives the lock back. Later calls fail with `Error::Closed`.
    pub async fn close(&self) -> Result<()> {
        if let Some(writing) = &self.inner.writing {
            // The catalogue first: what its last jobs settle leaves the intent file with the second.
            writing.main.close().await;
            writing.intents.close().await;
            for checkpointer in &writing.checkpointers {
                checkpointer.ended().await;
            }
        }
        self.inner.readers.close();
        drop(self.inner.verifier.lock().take());
        if let Some(writing) = &self.inner.writing {
            writing.lock.release();
        }
        Ok(())
    }

    // === identity, names, operators' decisions ===

    /// Who this catalogue is.
    pub fn catalogue(&self) -> Catalogue {
        self.inner.catalogue.read().clone()
    }

    /// Enters the recovery state, durably: [`Catalogue::recovery`] holds the reason from then on.
    /// Until it is left no cleanup row is given out and no intent is reaped.
    pub async fn enter_recovery(&self, reason: String) -> Result<()> {
        self.run(Job::EnterRecovery(reason)).await.map(drop)
    }

    /// Leaves the recovery state, durably.
    pub async fn leave_recovery(&self) -> Result<()> {
        self.run(Job::LeaveRecovery).await.map(drop)
    }

    /// The buckets with these names, made where they are missing; in the order of the names.
    pub async fn ensure_buckets(&self, names: &[BucketName]) -> Result<Vec<Bucket>> {
        answer!(self.run(Job::EnsureBuckets(names.to_vec())).await, Buckets)
    }

    /// Makes a client's bucket, unless the name is taken.
    pub async fn create_bucket(&self, name: &BucketName) -> Result<BucketCreation> {
        answer!(
            self.run(Job::CreateBucket(name.clone())).await,
            BucketCreation
        )
    }

    /// Removes a client's bucket that holds nothing.
    pub async fn remove_bucket(&self, bucket: BucketId) -> Result<BucketRemoval> {
        answer!(self.run(Job::RemoveBucket(bucket)).await, BucketRemoval)
    }

    /// The buckets that clients made, by name.
    pub async fn client_buckets(&self) -> Result<Vec<Bucket>> {
        self.read("list the buckets", |tx| read::client_buckets(tx))
    }

    /// The backends with these names, made where they are missing; in the order of the names.
    pub async fn ensure_backends(&self, names: &[BackendName]) -> Result<Vec<BackendRow>> {
        answer!(
            self.run(Job::EnsureBackends(names.to_vec())).await,
            Backends
        )
    }

    /// All backends that the catalogue knows.
    pub async fn backends(&self) -> Result<Vec<BackendRow>> {
        self.read("list the backends", |tx| {
            read::backends(tx, &self.inner.live)
        })
    }

    /// Keeps what a probe found.
    pub async fn save_capabilities(&self, backend: BackendId, found: String) -> Result<()> {
        self.run(Job::SaveCapabilities { backend, found })
            .await
            .map(drop)
    }

    /// Records an operator's decision.
    pub async fn set_backend_state(&self, backend: BackendId, state: BackendState) -> Result<()> {
        self.run(Job::SetBackendState { backend, state })
            .await
            .map(drop)
    }

    /// Advances the backend's mark by one, durably, and returns it: row first, marker second.
    pub async fn advance_mark(&self, backend: BackendId) -> Result<u64> {
        self.advance_mark_past(backend, 0).await
    }

    /// Advances the backend's mark past a value that was found on the backend, durably.
    pub async fn advance_mark_past(&self, backend: BackendId, past: u64) -> Result<u64> {
        answer!(self.run(Job::AdvanceMark { backend, past }).await, Mark)
    }

    // === room ===

    /// Sets the quota of a backend; `None` is unlimited.
    pub fn set_limit(&self, backend: BackendId, limit: Option<u64>) {
        self.inner.live.set_limit(backend, limit);
    }

    /// How full a backend is.
    pub fn room(&self, backend: BackendId) -> Room {
        self.inner.live.room(backend)
    }

    /// Takes room in memory; never a byte over the limit.
    ///
    /// # Errors
    /// [`Error::NoRoom`], also where the backend is not active
    pub async fn reserve(&self, backend: BackendId, bytes: u64) -> Result<Reservation> {
        match self.inner.live.take(backend, bytes) {
            true => Ok(Reservation::new(
                Arc::clone(&self.inner.live),
                backend,
                bytes,
            )),
            false => Err(Error::NoRoom {
                wanted: ByteSize(bytes),
            }),
        }
    }

    // === verification ===

    /// Compares every counter with the rows it counts, in one snapshot.
    pub async fn verify(&self) -> Result<Verification> {
        const OPERATION: &str = "verify the catalogue";
        let inner = Arc::clone(&self.inner);
        let walk = move || -> Result<Verification> {
            // A connection of its own: the walk may take long, and the pool is for short reads.
            let kept = inner.verifier.lock().take();
            let mut files = kept.map_or_else(|| open::verifier(&inner), Ok)?;
            let tx = files.catalogue.transaction().map_err(database(OPERATION))?;
            let live = match &inner.writing {
                Some(_) => Arc::clone(&inner.live),
                // The server beside us has gone on since we were opened.
                None => open::live_beside(&inner.path, &inner.catalogue.read(), &tx)?,
            };
            let verified = verify::verify(&tx, &live, files.intents.as_ref());
            drop(tx);
            *inner.verifier.lock() = Some(files);
            verified.map_err(|fault| fault.named(OPERATION))
        };
        let mut verification = blocking(walk).await?;
        if self.inner.writing.is_some() {
            let drift: Vec<String> = answer!(self.run(Job::Audit).await, Drift)?;
            verification.contradictions.extend(drift);
        }
        Ok(verification)
    }

    /// Copies the catalogue at `source` to a new file while it may be in use. The copy is another
    /// incarnation, starts in recovery state, and holds no intents.
    pub async fn backup(source: &Path, to: &Path, ids: &Ids) -> Result<()> {
        // Identifiers are drawn here, so that the copy may be made on another thread.
        let incarnation = ids.uuid();
        let (source, to) = (source.to_path_buf(), to.to_path_buf());
        blocking(move || backup::backup(&source, &to, incarnation)).await
    }

    // === the way to the writer and to the readers ===

    async fn run(&self, job: Job) -> Result<Answer> {
        self.run_with(job, Held::Nothing, Priority::Normal).await.0
    }

    /// Queues a job with the guards that it settles; those that it did not come back.
    async fn run_with(&self, job: Job, held: Held, priority: Priority) -> (Result<Answer>, Held) {
        let Some(writing) = &self.inner.writing else {
            return (Err(Error::Closed), held);
        };
        let (reply, answer) = oneshot::channel();
        if let Err(Item { held, .. }) = writing.main.send(Item { job, held, reply }, priority).await
        {
            if let Held::Intents(intents) = &held {
                self.inner.live.reopen(intents.iter().map(Intent::copy));
            }
            return (Err(Error::Closed), held);
        }
        // A writer that died took the guards with it; they settled themselves.
        answer
            .await
            .unwrap_or_else(|_| (Err(Error::Closed), Held::Nothing))
    }

    fn read<T>(
        &self,
        operation: &'static str,
        body: impl FnOnce(&Transaction<'_>) -> std::result::Result<T, Fault>,
    ) -> Result<T> {
        self.inner.readers.read(operation, body)
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    // It fails only where the work panicked or the runtime is going down.
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or(Err(Error::Closed))
}
