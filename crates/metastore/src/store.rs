//! The handle to an open catalogue.

mod objects;
mod overview;
mod uploads;
mod usage;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use base::{BackendName, BucketName, ByteSize, Clock, Ids};
use parking_lot::RwLock;

use crate::guard::Reservation;
use crate::job::{Answer, Held, Job};
use crate::live::Live;
use crate::model::{
    BackendId, BackendRow, BackendState, Bucket, BucketCreation, BucketId, BucketRemoval,
    Catalogue, Ground, RecoveryChange, Room, Unwritable, Verification,
};
use crate::postgres;
use crate::postgres::store::{ConnectOptions, Shared};
use crate::postgres::work::Work;
use crate::sqlite::store::Files;
use crate::sqlite::{backup, open, read};
use crate::writer::Priority;
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
    tracing::error!(error = %base::report(error), "catalogue failed, stopping");
    std::process::abort();
}

/// An open catalogue; cheap to clone.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    live: Arc<Live>,
    catalogue: Arc<RwLock<Catalogue>>,
    dialect: Dialect,
}

/// Which database holds the catalogue.
enum Dialect {
    Sqlite(Arc<Files>),
    Postgres(Arc<Shared>),
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Store");
        match &self.inner.dialect {
            Dialect::Sqlite(files) => shown.field("path", &files.path()),
            Dialect::Postgres(shared) => shown.field("instance", &shared.instance()),
        };
        shown.finish_non_exhaustive()
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

/// Asks the one database or the other, without naming the operation twice. Futures of PostgreSQL are
/// boxed: they are deep, and those of SQLite, which are ready at once, should not pay for that.
macro_rules! lookup {
    ($store:expr, $operation:literal, |$tx:ident| $sqlite:expr, |$shared:ident| $postgres:expr) => {
        match &$store.inner.dialect {
            Dialect::Sqlite(files) => files.read($operation, |$tx| $sqlite),
            Dialect::Postgres($shared) => Box::pin($postgres)
                .await
                .map_err(|fault| fault.named($operation)),
        }
    };
}
use lookup;

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
        Ok(Self::of_files(open::writer(options, tuning).await?))
    }

    /// Opens the catalogue read-only beside a writing process, for `verify`.
    pub async fn open_reader(path: &Path) -> Result<Self> {
        Ok(Self::of_files(open::reader(path).await?))
    }

    fn of_files(files: Files) -> Self {
        Self {
            inner: Arc::new(Inner {
                live: Arc::clone(files.live()),
                catalogue: Arc::clone(files.catalogue()),
                dialect: Dialect::Sqlite(Arc::new(files)),
            }),
        }
    }

    /// Opens the catalogue on PostgreSQL as one of its instances, and makes it where there is none.
    ///
    /// Several may start together. A number that nobody has any more is taken over, with its counters
    /// and with its intents as abandoned ones.
    pub async fn connect(options: ConnectOptions) -> Result<Self> {
        let panicked = || {
            abort(&Error::Damaged {
                what: "a transaction panicked".into(),
            });
        };
        let opened = Box::pin(postgres::store::open(options, panicked)).await?;
        Ok(Self {
            inner: Arc::new(Inner {
                live: opened.live,
                catalogue: opened.catalogue,
                dialect: Dialect::Postgres(opened.shared),
            }),
        })
    }

    /// Writes what waits, checkpoints, gives the lock back. Later calls fail with `Error::Closed`.
    ///
    /// Fails, closed all the same, where the files are gone, replaced or overwritten.
    pub async fn close(&self) -> Result<()> {
        match &self.inner.dialect {
            Dialect::Sqlite(files) => files.close().await?,
            Dialect::Postgres(shared) => Box::pin(shared.close()).await,
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
        let change = RecoveryChange::Enter(reason, Ground::Restored);
        self.run(Job::Recovery(change)).await.map(drop)
    }

    /// Enters the recovery state as [`Self::enter_recovery`] does, but on a suspicion:
    /// [`Catalogue::restored`] stays as it is.
    pub async fn suspect_restored(&self, reason: String) -> Result<()> {
        let change = RecoveryChange::Enter(reason, Ground::Suspected);
        self.run(Job::Recovery(change)).await.map(drop)
    }

    /// Leaves the recovery state, durably.
    pub async fn leave_recovery(&self) -> Result<()> {
        self.run(Job::Recovery(RecoveryChange::Leave))
            .await
            .map(drop)
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
        lookup!(
            self,
            "list the buckets",
            |tx| read::client_buckets(tx),
            |shared| shared.client_buckets()
        )
    }

    /// The bucket with this name, where several instances share the catalogue: another one may have made
    /// or removed it. `None` where it does not exist, and where nobody else could have made it.
    pub async fn bucket_of_others(&self, name: &BucketName) -> Result<Option<Bucket>> {
        match &self.inner.dialect {
            Dialect::Sqlite(_) => Ok(None),
            Dialect::Postgres(shared) => Box::pin(shared.bucket(name))
                .await
                .map_err(|fault| fault.named("look a bucket up")),
        }
    }

    /// Whether other instances may share the catalogue.
    pub fn is_shared(&self) -> bool {
        matches!(self.inner.dialect, Dialect::Postgres(_))
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
        lookup!(
            self,
            "list the backends",
            |tx| read::backends(tx, &self.inner.live),
            |shared| shared.backends()
        )
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

    /// Why nothing can be written, as the last attempt told; `None` also where only a server would know.
    pub fn unwritable(&self) -> Option<Unwritable> {
        match &self.inner.dialect {
            Dialect::Sqlite(files) => files.condition().unwritable(),
            Dialect::Postgres(_) => None,
        }
    }

    /// Fails where what is listed would be lost with this process: who mirrors a list deletes what it
    /// lacks, and a list may be the last thing that should be believed now.
    fn check_listable(&self) -> Result<()> {
        match &self.inner.dialect {
            Dialect::Sqlite(files) => files.condition().check(),
            Dialect::Postgres(_) => Ok(()),
        }
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
        match &self.inner.dialect {
            Dialect::Sqlite(_) => {
                Reservation::take(&self.inner.live, backend, bytes).ok_or(Error::NoRoom {
                    wanted: ByteSize(bytes),
                })
            }
            Dialect::Postgres(shared) => Box::pin(shared.reserve(backend, bytes)).await,
        }
    }

    // === verification ===

    /// Compares every counter with the rows it counts, in one snapshot.
    pub async fn verify(&self) -> Result<Verification> {
        let (mut verification, writing) = match &self.inner.dialect {
            Dialect::Sqlite(files) => {
                let files = Arc::clone(files);
                let writing = files.is_writing();
                (blocking(move || files.verify()).await?, writing)
            }
            Dialect::Postgres(shared) => (Box::pin(shared.verify()).await?, true),
        };
        if writing {
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

    fn run(&self, job: Job) -> impl Future<Output = Result<Answer>> + Send {
        let answered = self.run_with(job, Held::Nothing, Priority::Normal);
        async move { answered.await.0 }
    }

    /// Queues a job with the guards that it settles; those that it did not come back.
    fn run_with(
        &self,
        job: Job,
        held: Held,
        priority: Priority,
    ) -> impl Future<Output = (Result<Answer>, Held)> + Send {
        // Not within the future: a job is large, and futures are moved.
        let job = Box::new(job);
        async move {
            match &self.inner.dialect {
                Dialect::Sqlite(files) => files.send(job, held, priority).await,
                Dialect::Postgres(shared) => {
                    Box::pin(shared.send(Work::Job(job), held, priority)).await
                }
            }
        }
    }

    /// A job that may as well be forgotten.
    fn offer(&self, job: Job) {
        match &self.inner.dialect {
            Dialect::Sqlite(files) => files.offer(Box::new(job)),
            Dialect::Postgres(shared) => shared.offer(Work::Job(Box::new(job))),
        }
    }
}

pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    // It fails only where the work panicked or the runtime is going down.
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or(Err(Error::Closed))
}
