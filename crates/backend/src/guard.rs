//! The guard: what must be true of every call to a provider, in one place.
//!
//! The engine calls providers only through [`Guarded`]. It bounds the calls under way, gives each a
//! deadline that fits it, repeats the calls that are safe to repeat, and tells the [`Meter`] of every
//! attempt, finished or dropped, and of what each moves. It never repeats a write: whether one
//! happened is for the engine to find out. A body that is being read keeps its place and has a
//! deadline of its own, so a stalled download is noticed and counted.

mod body;
mod meter;
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
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{
    Capabilities, Copied, DeleteTarget, Effect, Error, Fetched, Head, Kind, ListPage, ListRequest,
    ListedUpload, ObjectBackend, PartFact, PartListPage, PartSource, Payload, PutMeta, Result,
    Stored, UploadListPage, VersionPage,
};
use body::GuardedBody;
pub use meter::{BodyEnd, Call, Meter, NoMeter, Outcome};
use meter::{Span, noting};
pub(crate) use meter::{note_bytes, note_request};
use watch::{Progress, watched};

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
    /// Reads under way at once, their bodies included; and as many other calls besides, so that a
    /// stream from a provider to itself cannot wait for its own place.
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

/// Which deadline holds for a call, and which pool its place comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    /// Begins to read a body.
    Read,
    /// A small question or order.
    Short,
    /// The provider moves bytes by itself.
    Assembly,
}

/// The one wrapper around a backend; cheap to clone.
#[derive(Clone)]
pub struct Guarded {
    shared: Arc<Shared>,
    meter: Arc<dyn Meter>,
}

/// What all clones have in common.
struct Shared {
    inner: Arc<dyn ObjectBackend>,
    options: GuardOptions,
    reads: Arc<Semaphore>,
    others: Arc<Semaphore>,
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
        let places = options.concurrency.clamp(1, Semaphore::MAX_PERMITS);
        let shared = Shared {
            inner,
            options,
            reads: Arc::new(Semaphore::new(places)),
            others: Arc::new(Semaphore::new(places)),
            jitter: Mutex::new(StdRng::seed_from_u64(options.seed)),
        };
        Self {
            shared: Arc::new(shared),
            meter,
        }
    }

    /// The same backend, with the same places and limits, whose calls another meter hears of.
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

    /// A place among the calls under way; it is given back when the permit is dropped.
    async fn place(&self, class: Class, operation: &'static str) -> Result<OwnedSemaphorePermit> {
        let pool = match class {
            Class::Read => &self.shared.reads,
            Class::Short | Class::Assembly => &self.shared.others,
        };
        // Mostly there is room, and then nobody waits in front of us.
        if let Ok(permit) = Arc::clone(pool).try_acquire_owned() {
            return Ok(permit);
        }
        let waiting = Arc::clone(pool).acquire_owned();
        match tokio::time::timeout(self.shared.options.backend_timeout, waiting).await {
            Ok(permit) => Ok(permit.expect("the semaphore is never closed")),
            Err(_elapsed) => Err(self
                .error(Kind::Throttled, Effect::None, operation)
                .with_message("too many calls to this backend are under way")),
        }
    }

    /// One attempt of a call without a payload: place, deadline, metering.
    async fn guard<T: Send>(
        &self,
        operation: &'static str,
        class: Class,
        late: Effect,
        call: impl Future<Output = Result<T>> + Send,
    ) -> Result<(T, OwnedSemaphorePermit)> {
        let permit = self.place(class, operation).await?;
        let span = self.span(operation);
        let limit = match class {
            Class::Read | Class::Short => self.shared.options.backend_timeout,
            Class::Assembly => self.shared.options.assembly_timeout,
        };
        let call = noting(Arc::clone(&self.meter), call);
        let outcome = match tokio::time::timeout(limit, call).await {
            Ok(outcome) => outcome,
            Err(_elapsed) => Err(self.error(Kind::TimedOut, late, operation)),
        };
        span.end(outcome.as_ref().map(|_| ()));
        outcome.map(|value| (value, permit))
    }

    /// A call that changes something: tried once.
    async fn once<T: Send>(
        &self,
        operation: &'static str,
        class: Class,
        call: impl Future<Output = Result<T>> + Send,
    ) -> Result<T> {
        self.guard(operation, class, Effect::Unknown, call)
            .await
            .map(|(value, _place)| value)
    }

    /// A call that may be repeated: tried up to three times where trying again can help.
    async fn repeat<T, F>(
        &self,
        operation: &'static str,
        class: Class,
        call: impl Fn() -> F + Send + Sync,
    ) -> Result<(T, OwnedSemaphorePermit)>
    where
        T: Send,
        F: Future<Output = Result<T>> + Send,
    {
        let mut attempt = 1;
        loop {
            match self.guard(operation, class, Effect::None, call()).await {
                Err(error) if error.kind.retryable() && attempt < ATTEMPTS_MAX => {
                    self.back_off(attempt).await;
                    attempt += 1;
                }
                settled => return settled,
            }
        }
    }

    /// [`Self::repeat`] for answers that have no body.
    async fn ask<T, F>(
        &self,
        operation: &'static str,
        call: impl Fn() -> F + Send + Sync,
    ) -> Result<T>
    where
        T: Send,
        F: Future<Output = Result<T>> + Send,
    {
        self.repeat(operation, Class::Short, call)
            .await
            .map(|(value, _place)| value)
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
        let _place = self.place(Class::Short, operation).await?;
        let mut span = self.span(operation);
        let progress = Progress::new(span.count_bytes(), Arc::clone(span.meter()));
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
        self.once("probe", Class::Assembly, self.shared.inner.probe())
            .await
    }

    async fn check(&self) -> Result<()> {
        // A question about health is answered with what is, not with what might be after a retry.
        self.once("check", Class::Short, self.shared.inner.check())
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
        let (fetched, place) = self.repeat("get", Class::Read, call).await?;
        let body = GuardedBody::new(
            fetched.body,
            place,
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
        self.ask("head", || self.shared.inner.head(key, version))
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
        self.ask("list", || self.shared.inner.list(request)).await
    }

    async fn versions(&self, key: &BackendKey) -> Result<VersionPage> {
        self.ask("versions", || self.shared.inner.versions(key))
            .await
    }

    async fn create_upload(&self, key: &BackendKey, meta: &PutMeta) -> Result<String> {
        let call = self.shared.inner.create_upload(key, meta);
        self.once("create_upload", Class::Short, call).await
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
        self.ask("abort_upload", || {
            self.shared.inner.abort_upload(key, upload)
        })
        .await
    }

    async fn list_parts(&self, key: &BackendKey, upload: &str, after: u32) -> Result<PartListPage> {
        self.ask("list_parts", || {
            self.shared.inner.list_parts(key, upload, after)
        })
        .await
    }

    async fn list_uploads(
        &self,
        prefix: &str,
        after: Option<&ListedUpload>,
    ) -> Result<UploadListPage> {
        self.ask("list_uploads", || {
            self.shared.inner.list_uploads(prefix, after)
        })
        .await
    }

    async fn read_marker(&self) -> Result<Option<Bytes>> {
        let found = self
            .ask("read_marker", || self.shared.inner.read_marker())
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
        self.once("write_marker", Class::Short, call).await
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
        let guarded = self
            .guard("delete", Class::Short, Effect::Unknown, call)
            .await;
        match guarded {
            Ok((outcomes, _place)) => outcomes,
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
