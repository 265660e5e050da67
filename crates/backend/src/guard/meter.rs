//! What the guard tells of every attempt.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use base::{BackendName, Traffic};
use tokio::time::Instant;

use crate::{Error, Kind};

/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallOutcome {
    /// It succeeded.
    Succeed,
    /// It failed so.
    Fail(Kind),
    /// Its future was dropped before the end: the caller lost interest.
    Drop,
}

/// One attempt of a call, for a body up to the response head.
#[derive(Debug, Clone, Copy)]
pub struct Call<'a> {
    /// Where.
    pub backend: &'a BackendName,
    /// The method's name in the trait.
    pub operation: &'static str,
    /// How it ended.
    pub outcome: CallOutcome,
    /// How long it took, without the wait for a place.
    pub duration: Duration,
    /// Payload bytes that the provider took.
    pub bytes: u64,
}

/// The end of a body that was read.
#[derive(Debug, Clone, Copy)]
pub struct BodyEnd<'a> {
    /// Where from.
    pub backend: &'a BackendName,
    /// How it ended.
    pub outcome: CallOutcome,
    /// Bytes that came.
    pub bytes: u64,
}

/// Hears of every attempt: metrics, usage counters, latencies. Must not block.
pub trait Meter: Send + Sync + 'static {
    /// An attempt ended.
    fn call(&self, call: &Call<'_>);

    /// A body ended or was dropped.
    fn body(&self, end: &BodyEnd<'_>);

    /// Something that the provider may bill happened just now: a request begins, or bytes of an
    /// object passed. Told as it happens, so that a transfer that is cut has told what it moved.
    ///
    /// Exact are the requests of an S3 provider, however many a call needs, and the bytes of bodies.
    /// A request counts from when it is begun, so also where no connection comes about; bytes to the
    /// provider count from when the connection takes them. Documents (listings, part lists) and
    /// headers do not count, nor do bytes that the provider moves by itself.
    fn traffic(&self, traffic: Traffic);
}

/// Nobody listens.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoMeter;

impl Meter for NoMeter {
    fn call(&self, _call: &Call<'_>) {}

    fn body(&self, _end: &BodyEnd<'_>) {}

    fn traffic(&self, _traffic: Traffic) {}
}

tokio::task_local! {
    /// The attempt that this task is making: providers that need several requests for one call note
    /// them here, beneath a trait that knows nothing of requests.
    static ATTEMPT: Noted;
}

/// What is noted of one attempt.
struct Noted {
    meter: Arc<dyn Meter>,
    requests: AtomicU64,
}

/// Runs an attempt so that what it notes reaches the meter.
pub(super) async fn noting<T>(meter: Arc<dyn Meter>, attempt: impl Future<Output = T>) -> T {
    let requests = AtomicU64::new(0);
    ATTEMPT.scope(Noted { meter, requests }, attempt).await
}

/// A request goes out. The first of an attempt was counted when the attempt began.
pub(crate) fn note_request() {
    let note = |noted: &Noted| {
        if noted.requests.fetch_add(1, Ordering::Relaxed) > 0 {
            noted.meter.traffic(Traffic::requests(1));
        }
    };
    // Nobody listens to a provider that is called without a guard.
    ATTEMPT.try_with(note).unwrap_or_default();
}

/// Bytes go out or came in that no guarded body carries.
pub(crate) fn note_bytes(traffic: Traffic) {
    ATTEMPT
        .try_with(|noted| noted.meter.traffic(traffic))
        .unwrap_or_default();
}

/// An attempt under way: reports itself once, also when it is dropped.
pub(super) struct Span {
    meter: Arc<dyn Meter>,
    backend: BackendName,
    operation: &'static str,
    begun: Instant,
    /// Absent where no payload goes out.
    bytes: Option<Arc<AtomicU64>>,
    outcome: Option<CallOutcome>,
}

impl fmt::Debug for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Span")
            .field("operation", &self.operation)
            .finish_non_exhaustive()
    }
}

impl Span {
    pub(super) fn begin(
        meter: Arc<dyn Meter>,
        backend: BackendName,
        operation: &'static str,
    ) -> Self {
        meter.traffic(Traffic::requests(1));
        Self {
            meter,
            backend,
            operation,
            begun: Instant::now(),
            bytes: None,
            outcome: Some(CallOutcome::Drop),
        }
    }

    /// What counts the payload bytes of this attempt from now on.
    pub(super) fn count_bytes(&mut self) -> Arc<AtomicU64> {
        Arc::clone(self.bytes.insert(Arc::default()))
    }

    pub(super) fn meter(&self) -> &Arc<dyn Meter> {
        &self.meter
    }

    pub(super) fn taken(&self) -> u64 {
        let bytes = self.bytes.as_ref();
        bytes.map_or(0, |bytes| bytes.load(Ordering::Relaxed))
    }

    pub(super) fn end(mut self, outcome: Result<(), &Error>) {
        self.end_now(outcome);
    }

    pub(super) fn end_now(&mut self, outcome: Result<(), &Error>) {
        self.outcome = Some(match outcome {
            Ok(()) => CallOutcome::Succeed,
            Err(error) => CallOutcome::Fail(error.kind),
        });
        self.report();
    }

    fn report(&mut self) {
        let Some(outcome) = self.outcome.take() else {
            return;
        };
        self.meter.call(&Call {
            backend: &self.backend,
            operation: self.operation,
            outcome,
            duration: self.begun.elapsed(),
            bytes: self.taken(),
        });
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        self.report();
    }
}
