//! The guard: what must be true of every call to a provider, in one place.
//!
//! The engine calls providers only through [`Guarded`]. It bounds the calls under way, gives each a
//! deadline that fits it, repeats the calls that are safe to repeat, and tells the [`Meter`] of every
//! attempt, finished or dropped, and of what each moves. It never repeats a write: whether one
//! happened is for the engine to find out. A body that is being read has a deadline of its own, so a
//! stalled download is noticed and counted.
//!
//! Permits belong to bytes that move: a transfer that waits for its client holds none, so clients that
//! stall cannot keep others from a provider. Each class of calls has a pool of its own, so that looks,
//! probes and deletes never wait behind clients, and a provider is not held unhealthy because we are busy.

mod body;
mod meter;
mod permit;
mod watch;

use std::collections::BTreeSet;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use base::{BackendKey, BackendName, ByteRange, Traffic};
use bytes::Bytes;
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use tokio::sync::Semaphore;

use crate::{
    Capabilities, Copied, DeleteTarget, Effect, Error, Fetched, Head, Kind, ListPage, ListRequest,
    ListedUpload, ObjectBackend, PartFact, PartListPage, PartSource, Payload, PutMeta, Result,
    Stored, UploadListPage, VersionPage,
};
use body::GuardedBody;
pub use meter::{BodyEnd, Call, CallOutcome, Meter, NoMeter};
use meter::{Span, noting};
pub(crate) use meter::{note_bytes, note_request};
use permit::Permit;
use watch::{WriteProgress, watched};

/// How often a safe call is tried in all.
const ATTEMPTS_MAX: u32 = 3;

/// The wait before the second attempt; it doubles with each further one.
const BACK_OFF_BASE: Duration = Duration::from_secs(1);

/// The limits that a [`Guarded`] keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GuardOptions {
    /// To the response head; total for calls without a body; for writes the longest time without
    /// progress while the provider has bytes to take or owes its answer.
    pub backend_timeout: Duration,
    /// Total for calls that make the provider itself move or assemble bytes: copies and Complete.
    pub assembly_timeout: Duration,
    /// The longest time without a byte while a body is being read.
    pub body_idle_timeout: Duration,
    /// Reads whose bytes move at once, and as many writes besides, so that a stream from a provider to
    /// itself cannot wait for its own permit; a quarter of it for copies and Complete, and a quarter
    /// for deletes and listings, each at least one.
    pub concurrency: usize,
    /// Seed of the jitter in back-offs.
    pub seed: u64,
}

impl GuardOptions {
    /// The documented defaults.
    pub const DEFAULT: Self = Self {
        backend_timeout: Duration::from_secs(30),
        assembly_timeout: Duration::from_secs(600),
        body_idle_timeout: Duration::from_secs(30),
        concurrency: 256,
        seed: 0,
    };
}

impl Default for GuardOptions {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// Looks, probes and checks at once: few, because each worker and each start makes one at a time.
const LOOKS_MAX: usize = 4;

/// Which deadline holds for a call, and which pool its permit comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    /// Begins to read a body.
    Read,
    /// Sends bytes, or begins to.
    Write,
    /// The provider moves bytes by itself.
    Assembly,
    /// Deletes and lists, the work of workers; and looks at what became of a write, which must not wait behind
    /// writes.
    Upkeep,
    /// Asks whether the provider is there and the right one.
    Look,
    /// Finds out what the provider can do, in some calls.
    Probe,
}

/// The permits of each class.
struct PermitPools {
    reads: Arc<Semaphore>,
    writes: Arc<Semaphore>,
    assemblies: Arc<Semaphore>,
    upkeep: Arc<Semaphore>,
    looks: Arc<Semaphore>,
}

impl PermitPools {
    fn new(concurrency: usize) -> Self {
        let pool =
            |permits: usize| Arc::new(Semaphore::new(permits.clamp(1, Semaphore::MAX_PERMITS)));
        Self {
            reads: pool(concurrency),
            writes: pool(concurrency),
            assemblies: pool(concurrency / 4),
            upkeep: pool(concurrency / 4),
            looks: pool(LOOKS_MAX),
        }
    }

    fn of(&self, class: Class) -> &Arc<Semaphore> {
        match class {
            Class::Read => &self.reads,
            Class::Write => &self.writes,
            Class::Assembly => &self.assemblies,
            Class::Upkeep => &self.upkeep,
            Class::Look | Class::Probe => &self.looks,
        }
    }
}

/// The one wrapper around a backend; cheap to clone.
#[derive(Clone)]
pub struct Guarded {
    shared: Arc<GuardState>,
    meter: Arc<dyn Meter>,
}

/// What all clones have in common.
struct GuardState {
    inner: Arc<dyn ObjectBackend>,
    options: GuardOptions,
    pools: PermitPools,
    jitter: Mutex<StdRng>,
}

impl fmt::Debug for Guarded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guarded")
            .field("backend", self.shared.inner.name())
            .finish_non_exhaustive()
    }
}

impl Guarded {
    /// Guards a backend.
    pub fn new(
        inner: Arc<dyn ObjectBackend>,
        options: GuardOptions,
        meter: Arc<dyn Meter>,
    ) -> Self {
        let shared = GuardState {
            inner,
            options,
            pools: PermitPools::new(options.concurrency),
            jitter: Mutex::new(StdRng::seed_from_u64(options.seed)),
        };
        Self {
            shared: Arc::new(shared),
            meter,
        }
    }

    /// The same backend, with the same permits and limits, whose calls another meter hears of.
    #[must_use]
    pub fn metered(&self, meter: Arc<dyn Meter>) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
            meter,
        }
    }

    fn error(&self, kind: Kind, effect: Effect, operation: &'static str) -> Error {
        Error::new(kind, effect, self.shared.inner.name(), operation)
    }

    fn span(&self, operation: &'static str) -> Span {
        Span::begin(
            Arc::clone(&self.meter),
            self.shared.inner.name().clone(),
            operation,
        )
    }

    /// Permission to be one of the calls under way; it is given back when the permit is dropped.
    async fn permit(&self, class: Class, operation: &'static str) -> Result<Permit> {
        let pool = Arc::clone(self.shared.pools.of(class));
        Permit::acquire(pool, self.shared.options.backend_timeout)
            .await
            .map_err(|_starved| self.starved(operation))
    }

    fn starved(&self, operation: &'static str) -> Error {
        self.error(Kind::Throttled, Effect::None, operation)
            .with_message(permit::STARVED)
    }

    /// One attempt of a call without a payload, for which there is a permit: deadline, metering.
    async fn attempt<T: Send>(
        &self,
        operation: &'static str,
        class: Class,
        late: Effect,
        call: impl Future<Output = Result<T>> + Send,
    ) -> Result<T> {
        let span = self.span(operation);
        let limit = match class {
            Class::Read | Class::Write | Class::Upkeep | Class::Look => {
                self.shared.options.backend_timeout
            }
            Class::Assembly | Class::Probe => self.shared.options.assembly_timeout,
        };
        let call = noting(Arc::clone(&self.meter), call);
        let outcome = match tokio::time::timeout(limit, call).await {
            Ok(outcome) => outcome,
            Err(_elapsed) => Err(self.error(Kind::TimedOut, late, operation)),
        };
        span.end(outcome.as_ref().map(|_| ()));
        outcome
    }

    /// A call that changes something: tried once.
    async fn once<T: Send>(
        &self,
        operation: &'static str,
        class: Class,
        call: impl Future<Output = Result<T>> + Send,
    ) -> Result<T> {
        let _permit = self.permit(class, operation).await?;
        self.attempt(operation, class, Effect::Unknown, call).await
    }

    /// A call that may be repeated: tried up to three times where trying again can help.
    async fn repeat<T, F>(
        &self,
        operation: &'static str,
        class: Class,
        call: impl Fn() -> F + Send + Sync,
    ) -> Result<(T, Permit)>
    where
        T: Send,
        F: Future<Output = Result<T>> + Send,
    {
        let mut attempt = 1;
        loop {
            // Who got no permit has waited long enough, and would only wait behind those who wait now.
            let permit = self.permit(class, operation).await?;
            match self.attempt(operation, class, Effect::None, call()).await {
                Err(error) if error.kind.retryable() && attempt < ATTEMPTS_MAX => {
                    drop(permit);
                    self.back_off(attempt).await;
                    attempt += 1;
                }
                resolved => return resolved.map(|value| (value, permit)),
            }
        }
    }

    /// [`Self::repeat`] for answers that have no body.
    async fn ask<T, F>(
        &self,
        operation: &'static str,
        class: Class,
        call: impl Fn() -> F + Send + Sync,
    ) -> Result<T>
    where
        T: Send,
        F: Future<Output = Result<T>> + Send,
    {
        self.repeat(operation, class, call)
            .await
            .map(|(value, _permit)| value)
    }

    /// Waits before attempt `attempt + 1`: 1 s, 2 s, …, of which half is drawn.
    async fn back_off(&self, attempt: u32) {
        let whole = BACK_OFF_BASE * 2u32.saturating_pow(attempt - 1);
        let share = self.shared.jitter.lock().random_range(0.5..=1.0);
        tokio::time::sleep(whole.mul_f64(share)).await;
    }

    /// A write with a payload: its deadline begins anew with every chunk that the provider takes,
    /// and does not run while the provider waits for us.
    async fn send<F>(
        &self,
        operation: &'static str,
        mut payload: Payload,
        call: impl FnOnce(Payload) -> F + Send,
    ) -> Result<Stored>
    where
        F: Future<Output = Result<Stored>> + Send,
    {
        let permit = self.permit(Class::Write, operation).await?;
        let mut span = self.span(operation);
        let progress = WriteProgress::new(permit, span.count_bytes(), Arc::clone(span.meter()));
        let progress = Arc::new(progress);
        let expects_bytes = payload.length > 0;
        payload.chunks = watched(payload.chunks, Arc::clone(&progress));
        let stalled = progress.stalled(self.shared.options.backend_timeout);
        let outcome = tokio::select! {
            biased;
            outcome = noting(Arc::clone(&self.meter), call(payload)) => outcome,
            () = stalled => {
                // A provider that took no byte of a body that has some cannot have stored it.
                let untouched = expects_bytes && span.taken() == 0;
                let effect = if untouched { Effect::None } else { Effect::Unknown };
                Err(self.error(Kind::TimedOut, effect, operation))
            }
        };
        let outcome = match outcome {
            // We cut the body ourselves, before its last bytes.
            Err(error) if progress.is_starved() => Err(self
                .error(Kind::Throttled, error.effect, operation)
                .with_message(permit::STARVED)),
            outcome => outcome,
        };
        span.end_now(outcome.as_ref().map(|_| ()));
        outcome
    }
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl ObjectBackend for Guarded {
    fn name(&self) -> &BackendName {
        self.shared.inner.name()
    }

    fn capabilities(&self) -> Capabilities {
        self.shared.inner.capabilities()
    }

    fn adopt(&self, capabilities: Capabilities) {
        self.shared.inner.adopt(capabilities);
    }

    async fn probe(&self) -> Result<Capabilities> {
        // Up to ten calls, some of which write: as patient as an assembly, and tried once.
        self.once("probe", Class::Probe, self.shared.inner.probe())
            .await
    }

    async fn check(&self) -> Result<()> {
        // A question about health is answered with what is, not with what might be after a retry.
        self.once("check", Class::Look, self.shared.inner.check())
            .await
    }

    async fn put(&self, key: &BackendKey, meta: &PutMeta, payload: Payload) -> Result<Stored> {
        self.send("put", payload, |payload| {
            self.shared.inner.put(key, meta, payload)
        })
        .await
    }

    async fn get(
        &self,
        key: &BackendKey,
        version: Option<&str>,
        range: Option<ByteRange>,
    ) -> Result<Fetched> {
        let call = || self.shared.inner.get(key, version, range);
        let (fetched, permit) = self.repeat("get", Class::Read, call).await?;
        let body = GuardedBody::new(
            fetched.body,
            permit,
            Arc::clone(&self.meter),
            self.shared.inner.name().clone(),
            self.shared.options.body_idle_timeout,
        );
        Ok(Fetched {
            head: fetched.head,
            body: Box::pin(body),
        })
    }

    async fn head(&self, key: &BackendKey, version: Option<&str>) -> Result<Head> {
        self.ask("head", Class::Upkeep, || {
            self.shared.inner.head(key, version)
        })
        .await
    }

    async fn delete(&self, targets: &[DeleteTarget]) -> Vec<Result<()>> {
        let mut outcomes: Vec<Option<Result<()>>> = targets.iter().map(|_| None).collect();
        let mut open: BTreeSet<usize> = (0..targets.len()).collect();
        let mut attempt = 1;
        while !open.is_empty() {
            let places: Vec<usize> = open.iter().copied().collect();
            let batch: Vec<DeleteTarget> =
                places.iter().map(|place| targets[*place].clone()).collect();
            let results = self.delete_once(&batch).await;
            for (place, result) in places.into_iter().zip(results) {
                let again = matches!(&result, Err(error) if error.kind.retryable());
                if !again {
                    open.remove(&place);
                }
                outcomes[place] = Some(result);
            }
            if open.is_empty() || attempt == ATTEMPTS_MAX {
                break;
            }
            self.back_off(attempt).await;
            attempt += 1;
        }
        let settle = |outcome: Option<Result<()>>| {
            outcome.unwrap_or_else(|| {
                let unanswered = self.error(Kind::Unavailable, Effect::Unknown, "delete");
                Err(unanswered.with_message("the backend did not answer for this target"))
            })
        };
        outcomes.into_iter().map(settle).collect()
    }

    async fn copy(
        &self,
        source: &BackendKey,
        source_version: Option<&str>,
        key: &BackendKey,
        meta: &PutMeta,
    ) -> Result<Copied> {
        let call = self.shared.inner.copy(source, source_version, key, meta);
        self.once("copy", Class::Assembly, call).await
    }

    async fn list(&self, request: &ListRequest) -> Result<ListPage> {
        self.ask("list", Class::Upkeep, || self.shared.inner.list(request))
            .await
    }

    async fn versions(&self, key: &BackendKey) -> Result<VersionPage> {
        self.ask("versions", Class::Upkeep, || {
            self.shared.inner.versions(key)
        })
        .await
    }

    async fn create_upload(&self, key: &BackendKey, meta: &PutMeta) -> Result<String> {
        let call = self.shared.inner.create_upload(key, meta);
        self.once("create_upload", Class::Write, call).await
    }

    async fn upload_part(
        &self,
        key: &BackendKey,
        upload: &str,
        number: u32,
        meta: &PutMeta,
        payload: Payload,
    ) -> Result<Stored> {
        let call = |payload| {
            self.shared
                .inner
                .upload_part(key, upload, number, meta, payload)
        };
        self.send("upload_part", payload, call).await
    }

    async fn upload_part_copy(
        &self,
        key: &BackendKey,
        upload: &str,
        number: u32,
        source: &PartSource,
    ) -> Result<Copied> {
        let call = self
            .shared
            .inner
            .upload_part_copy(key, upload, number, source);
        self.once("upload_part_copy", Class::Assembly, call).await
    }

    async fn complete_upload(
        &self,
        key: &BackendKey,
        upload: &str,
        parts: &[PartFact],
    ) -> Result<Stored> {
        let call = self.shared.inner.complete_upload(key, upload, parts);
        self.once("complete_upload", Class::Assembly, call).await
    }

    async fn abort_upload(&self, key: &BackendKey, upload: &str) -> Result<()> {
        self.ask("abort_upload", Class::Upkeep, || {
            self.shared.inner.abort_upload(key, upload)
        })
        .await
    }

    async fn list_parts(&self, key: &BackendKey, upload: &str, after: u32) -> Result<PartListPage> {
        self.ask("list_parts", Class::Upkeep, || {
            self.shared.inner.list_parts(key, upload, after)
        })
        .await
    }

    async fn list_uploads(
        &self,
        prefix: &str,
        after: Option<&ListedUpload>,
    ) -> Result<UploadListPage> {
        self.ask("list_uploads", Class::Upkeep, || {
            self.shared.inner.list_uploads(prefix, after)
        })
        .await
    }

    async fn read_marker(&self) -> Result<Option<Bytes>> {
        let found = self
            .ask("read_marker", Class::Look, || {
                self.shared.inner.read_marker()
            })
            .await;
        if let Ok(Some(content)) = &found {
            self.meter.traffic(Traffic {
                egress: content.len() as u64,
                ..Traffic::NONE
            });
        }
        found
    }

    async fn write_marker(&self, content: Bytes) -> Result<()> {
        let call = async {
            note_bytes(Traffic {
                ingress: content.len() as u64,
                ..Traffic::NONE
            });
            self.shared.inner.write_marker(content).await
        };
        self.once("write_marker", Class::Look, call).await
    }

    async fn create_marker(&self, content: Bytes) -> Result<()> {
        let call = async {
            note_bytes(Traffic {
                ingress: content.len() as u64,
                ..Traffic::NONE
            });
            self.shared.inner.create_marker(content).await
        };
        self.once("create_marker", Class::Look, call).await
    }
}

impl Guarded {
    /// One attempt to delete a batch; a batch that fails whole fails for each target.
    async fn delete_once(&self, batch: &[DeleteTarget]) -> Vec<Result<()>> {
        let failed = Mutex::new(None);
        let call = async {
            let outcomes = self.shared.inner.delete(batch).await;
            // The meter hears of the worst outcome that says something about the provider.
            let worst = outcomes
                .iter()
                .filter_map(|outcome| outcome.as_ref().err())
                .find(|error| error.kind.trips_breaker() || error.kind.retryable());
            match worst {
                None => Ok(outcomes),
                Some(error) => {
                    let told = self.error(error.kind, error.effect, "delete");
                    *failed.lock() = Some(outcomes);
                    Err(told)
                }
            }
        };
        match self.once("delete", Class::Upkeep, call).await {
            Ok(outcomes) => outcomes,
            Err(error) => failed.into_inner().unwrap_or_else(|| {
                batch
                    .iter()
                    .map(|_| Err(self.error(error.kind, error.effect, "delete")))
                    .collect()
            }),
        }
    }
}

#[cfg(test)]
mod tests;
