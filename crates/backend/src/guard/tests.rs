//! Claims about the guard, on paused time.

use std::sync::Arc;
use std::time::Duration;

use base::{BackendKey, BackendName, Traffic};
use bytes::Bytes;
use futures_util::{FutureExt as _, StreamExt as _, stream};
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::*;
use crate::faulty::{Fault, Faults, FaultyBackend, Rates};
use crate::memory::MemoryBackend;
use crate::{Body, Chunks, PayloadCut};

#[derive(Debug, Default)]
struct Ledger {
    calls: Mutex<Vec<(&'static str, Outcome, u64)>>,
    bodies: Mutex<Vec<(Outcome, u64)>>,
    traffic: Mutex<Traffic>,
}

impl Meter for Ledger {
    fn call(&self, call: &Call<'_>) {
        self.calls
            .lock()
            .push((call.operation, call.outcome, call.bytes));
    }

    fn body(&self, end: &BodyEnd<'_>) {
        self.bodies.lock().push((end.outcome, end.bytes));
    }

    fn traffic(&self, traffic: Traffic) {
        let mut sum = self.traffic.lock();
        *sum = sum.plus(traffic);
    }
}

impl Ledger {
    /// Requests, egress and ingress since the last look.
    fn moved(&self) -> (u64, u64, u64) {
        let moved = std::mem::take(&mut *self.traffic.lock());
        (moved.requests, moved.egress, moved.ingress)
    }
}

struct Bench {
    guarded: Guarded,
    memory: Arc<MemoryBackend>,
    faults: Faults,
    ledger: Arc<Ledger>,
}

fn bench(options: GuardOptions) -> Bench {
    let name: BackendName = "memory".parse().expect("a legal name");
    let memory = Arc::new(MemoryBackend::new(name));
    let inner: Arc<dyn ObjectBackend> = Arc::<MemoryBackend>::clone(&memory);
    let faults = Faults::none();
    let faulty = Arc::new(FaultyBackend::new(inner, faults.clone()));
    let ledger = Arc::new(Ledger::default());
    let meter: Arc<dyn Meter> = Arc::<Ledger>::clone(&ledger);
    Bench {
        guarded: Guarded::new(faulty, options, meter),
        memory,
        faults,
        ledger,
    }
}

fn key(key: &str) -> BackendKey {
    BackendKey::new(key).expect("a legal key")
}

fn payload() -> Payload {
    Payload::from_bytes(Bytes::from_static(b"0123456789"))
}

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn a_safe_call_is_tried_three_times_and_a_put_once() {
    let bench = bench(GuardOptions::DEFAULT);
    for _ in 0..2 {
        bench.faults.script("head", Fault::Refuse);
    }
    bench.memory.plant(
        "a",
        Bytes::from_static(b"x"),
        base::ObjectHeaders::default(),
    );
    let begun = Instant::now();
    bench
        .guarded
        .head(&key("a"), None)
        .await
        .expect("the third attempt succeeds");
    let waited = begun.elapsed();
    assert!(
        waited >= SECOND * 3 / 2 && waited <= SECOND * 3,
        "waited {waited:?}"
    );
    assert_eq!(
        bench.ledger.calls.lock().len(),
        3,
        "every attempt is metered"
    );

    bench.faults.set_rates(Rates::DOWN);
    let error = bench
        .guarded
        .list(&ListRequest::default())
        .await
        .unwrap_err();
    assert_eq!(error.kind, Kind::Unavailable);
    assert_eq!(bench.faults.injected()[&Fault::Refuse], 5);
    bench.faults.heal();
    bench.faults.script("put", Fault::LoseReply);
    let error = bench
        .guarded
        .put(&key("b"), &PutMeta::default(), payload())
        .await
        .unwrap_err();
    assert_eq!(error.effect, Effect::Unknown);
    assert_eq!(bench.memory.calls().of("put"), 1);
}

#[tokio::test(start_paused = true)]
async fn what_is_not_there_is_not_asked_for_twice() {
    let bench = bench(GuardOptions::DEFAULT);
    let error = bench.guarded.head(&key("absent"), None).await.unwrap_err();
    assert_eq!(error.kind, Kind::NotFound);
    assert_eq!(bench.memory.calls().of("head"), 1);
}

#[tokio::test(start_paused = true)]
async fn only_the_targets_that_failed_are_deleted_again() {
    let bench = bench(GuardOptions::DEFAULT);
    for name in ["a", "b", "c"] {
        bench.memory.plant(
            name,
            Bytes::from_static(b"x"),
            base::ObjectHeaders::default(),
        );
    }
    bench.faults.script("delete", Fault::LoseReply);
    let targets = ["a", "b", "c"].map(|name| DeleteTarget {
        key: key(name),
        version: None,
    });
    let outcomes = bench.guarded.delete(&targets).await;
    // The first attempt deleted them and lost the answer; the second found nothing.
    assert!(
        outcomes
            .iter()
            .all(|o| o.as_ref().unwrap_err().kind == Kind::NotFound)
    );
    assert_eq!(bench.memory.calls().of("delete"), 2);
    assert_eq!(bench.memory.keys(), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn a_stalled_put_is_cut_after_the_timeout_without_progress() {
    let bench = bench(GuardOptions::DEFAULT);
    bench.faults.script("put", Fault::Stall);
    let begun = Instant::now();
    let error = bench
        .guarded
        .put(&key("a"), &PutMeta::default(), payload())
        .await
        .unwrap_err();
    assert_eq!(error.kind, Kind::TimedOut);
    assert_eq!(begun.elapsed(), GuardOptions::DEFAULT.backend_timeout);
}

#[tokio::test(start_paused = true)]
async fn a_slow_client_does_not_time_the_provider_out() {
    let bench = bench(GuardOptions::DEFAULT);
    let slow = stream::iter(0..10).then(|_| async {
        // Ten times longer than the provider may take, and the last bytes longest.
        tokio::time::sleep(SECOND * 300).await;
        Ok::<Bytes, PayloadCut>(Bytes::from_static(b"x"))
    });
    let chunks: Chunks = Box::pin(slow);
    let payload = Payload::streamed(10, chunks);
    let begun = Instant::now();
    bench
        .guarded
        .put(&key("a"), &PutMeta::default(), payload)
        .await
        .expect("it is only slow");
    assert_eq!(begun.elapsed(), SECOND * 3000);
    assert_eq!(*bench.ledger.calls.lock(), [("put", Outcome::Succeed, 10)]);
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_takes_a_chunk_and_no_more_is_cut() {
    // A backend that takes one chunk of each payload and then nothing for ever.
    let bench = bench(GuardOptions::DEFAULT);
    let (taken, one_taken) = oneshot::channel::<()>();
    let mut taken = Some(taken);
    let endless = stream::repeat_with(move || {
        if let Some(taken) = taken.take() {
            let _ = taken.send(());
        }
        Ok::<Bytes, PayloadCut>(Bytes::from_static(b"0123456789"))
    });
    bench.faults.script("put", Fault::Stall);
    let chunks: Chunks = Box::pin(endless);
    let payload = Payload::streamed(1 << 20, chunks);
    let begun = Instant::now();
    let error = bench
        .guarded
        .put(&key("a"), &PutMeta::default(), payload)
        .await
        .unwrap_err();
    assert_eq!(
        (error.kind, error.effect),
        (Kind::TimedOut, Effect::Unknown)
    );
    assert!(one_taken.now_or_never().is_some());
    assert_eq!(begun.elapsed(), GuardOptions::DEFAULT.backend_timeout);
    assert_eq!(bench.memory.keys(), Vec::<String>::new());
}

/// A body that yields some bytes and then nothing for ever.
fn stalling() -> Body {
    let first = stream::iter([Ok(Bytes::from_static(b"12345"))]);
    Box::pin(first.chain(stream::pending()))
}

fn guarded_body(bench: &Bench, body: Body, place: OwnedSemaphorePermit) -> GuardedBody {
    let meter: Arc<dyn Meter> = Arc::<Ledger>::clone(&bench.ledger);
    let name = bench.guarded.name().clone();
    GuardedBody::new(
        body,
        place,
        meter,
        name,
        bench.guarded.shared.options.body_idle_timeout,
    )
}

#[tokio::test(start_paused = true)]
async fn a_body_that_stalls_ends_in_an_error_and_frees_its_place() {
    let bench = bench(GuardOptions {
        concurrency: 1,
        ..GuardOptions::DEFAULT
    });
    let place = bench
        .guarded
        .place(Class::Read, "get")
        .await
        .expect("the place is free");
    let mut body = guarded_body(&bench, stalling(), place);
    assert_eq!(body.next().await.expect("bytes").expect("bytes").len(), 5);
    // A reader that takes its time stops no clock.
    tokio::time::sleep(SECOND * 600).await;
    let begun = Instant::now();
    let error = body.next().await.expect("an error").unwrap_err();
    assert_eq!(error.kind, Kind::TimedOut);
    assert_eq!(begun.elapsed(), GuardOptions::DEFAULT.body_idle_timeout);
    assert!(body.next().await.is_none());
    assert_eq!(bench.guarded.shared.reads.available_permits(), 1);
    assert_eq!(
        *bench.ledger.bodies.lock(),
        [(Outcome::Fail(Kind::TimedOut), 5)]
    );
}

#[tokio::test(start_paused = true)]
async fn a_place_is_held_until_the_last_byte_or_the_drop_of_the_body() {
    let bench = bench(GuardOptions {
        concurrency: 1,
        ..GuardOptions::DEFAULT
    });
    bench.memory.plant(
        "a",
        Bytes::from(vec![7; 600_000]),
        base::ObjectHeaders::default(),
    );
    let mut held = bench
        .guarded
        .get(&key("a"), None, None)
        .await
        .expect("it is there");
    held.body.next().await.expect("bytes").expect("bytes");
    let refused = bench.guarded.get(&key("a"), None, None).await.unwrap_err();
    assert_eq!(
        (refused.kind, refused.effect),
        (Kind::Throttled, Effect::None)
    );
    // Writes have places of their own: a stream from this backend to itself goes on.
    bench
        .guarded
        .put(&key("b"), &PutMeta::default(), payload())
        .await
        .expect("a free place");
    drop(held);
    let fetched = bench
        .guarded
        .get(&key("a"), None, None)
        .await
        .expect("the place is free");
    let sizes: Vec<usize> = fetched
        .body
        .map(|chunk| chunk.expect("bytes").len())
        .collect()
        .await;
    assert_eq!(sizes.iter().sum::<usize>(), 600_000);
    assert_eq!(bench.guarded.shared.reads.available_permits(), 1);
    let bodies = bench.ledger.bodies.lock();
    assert_eq!(bodies[0].0, Outcome::Drop);
    assert_eq!(bodies[1], (Outcome::Succeed, 600_000));
}

#[tokio::test(start_paused = true)]
async fn a_dropped_call_gives_its_place_back_and_is_metered() {
    let bench = bench(GuardOptions {
        concurrency: 1,
        ..GuardOptions::DEFAULT
    });
    bench.faults.script("put", Fault::Stall);
    bench.faults.script("list", Fault::Stall);
    let (name, meta, request) = (key("a"), PutMeta::default(), ListRequest::default());
    let put = bench.guarded.put(&name, &meta, payload());
    assert!(tokio::time::timeout(SECOND, put).await.is_err());
    assert!(
        tokio::time::timeout(SECOND, bench.guarded.list(&request))
            .await
            .is_err()
    );
    assert_eq!(bench.guarded.shared.others.available_permits(), 1);
    let calls = bench.ledger.calls.lock();
    let outcomes: Vec<_> = calls
        .iter()
        .map(|(operation, outcome, _)| (*operation, *outcome))
        .collect();
    assert_eq!(outcomes, [("put", Outcome::Drop), ("list", Outcome::Drop)]);
}

#[tokio::test(start_paused = true)]
async fn traffic_is_told_as_it_happens_and_by_cut_transfers_too() {
    let bench = bench(GuardOptions::DEFAULT);
    let (a, meta) = (key("a"), PutMeta::default());
    bench.guarded.put(&a, &meta, payload()).await.expect("room");
    assert_eq!(bench.ledger.moved(), (1, 0, 10));
    // Every attempt is a request, also the failed ones.
    bench.faults.script("head", Fault::Refuse);
    bench.guarded.head(&a, None).await.expect("it is there");
    assert_eq!(bench.ledger.moved(), (2, 0, 0));
    // A body that is dropped half way has told what came.
    let big = Bytes::from(vec![7; 600_000]);
    bench.memory.plant("b", big, base::ObjectHeaders::default());
    let fetched = bench.guarded.get(&key("b"), None, None).await;
    let mut body = fetched.expect("it is there").body;
    let first = body.next().await.expect("bytes").expect("bytes").len() as u64;
    assert!(first < 600_000);
    assert_eq!(bench.ledger.moved(), (1, first, 0));
    drop(body);
    assert_eq!(bench.ledger.moved(), (0, 0, 0));
    // So has a payload that breaks off.
    let chunks: Chunks = Box::pin(stream::iter([
        Ok(Bytes::from_static(b"12345")),
        Err(PayloadCut),
    ]));
    let cut = Payload::streamed(10, chunks);
    let failed = bench.guarded.put(&key("c"), &meta, cut).await;
    assert_eq!(failed.unwrap_err().kind, Kind::PayloadCut);
    assert_eq!(bench.ledger.moved(), (1, 0, 5));
    // What the provider moves by itself is a request and no bytes.
    let copied = bench.guarded.copy(&a, None, &key("d"), &meta).await;
    copied.expect("it can copy");
    assert_eq!(bench.ledger.moved(), (1, 0, 0));
    let mark = Bytes::from_static(b"mark");
    bench.guarded.write_marker(mark).await.expect("room");
    bench.guarded.read_marker().await.expect("it is there");
    assert_eq!(bench.ledger.moved(), (2, 4, 4));
}

#[tokio::test(start_paused = true)]
async fn another_meter_hears_of_the_calls_that_are_made_for_it() {
    let bench = bench(GuardOptions {
        concurrency: 1,
        ..GuardOptions::DEFAULT
    });
    let ledger = Arc::new(Ledger::default());
    let metered = bench.guarded.metered(Arc::<Ledger>::clone(&ledger));
    let (a, meta) = (key("a"), PutMeta::default());
    metered.put(&a, &meta, payload()).await.expect("room");
    let held = metered.get(&a, None, None).await.expect("it is there");
    assert_eq!(
        (ledger.moved(), bench.ledger.moved()),
        ((2, 0, 10), (0, 0, 0))
    );
    // The places are the same ones.
    assert_eq!(bench.guarded.shared.reads.available_permits(), 0);
    drop(held);
    assert_eq!(bench.guarded.shared.reads.available_permits(), 1);
}
