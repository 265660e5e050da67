//! Claims about the guard, on paused time.

use std::sync::Arc;
use std::time::Duration;

use base::{BackendKey, BackendName, Traffic};
use bytes::Bytes;
use futures_util::{FutureExt as _, StreamExt as _, stream};
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::*;
use crate::faulty::{Fault, Faults, FaultyBackend, Rates};
use crate::memory::MemoryBackend;
use crate::{Body, Chunks, PayloadCut};

#[derive(Debug, Default)]
struct Ledger {
    calls: Mutex<Vec<(&'static str, CallOutcome, u64)>>,
    bodies: Mutex<Vec<(CallOutcome, u64)>>,
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
    assert_eq!(
        *bench.ledger.calls.lock(),
        [("put", CallOutcome::Succeed, 10)]
    );
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

fn guarded_body(bench: &Bench, body: Body, permit: Permit) -> GuardedBody {
    let meter: Arc<dyn Meter> = Arc::<Ledger>::clone(&bench.ledger);
    let name = bench.guarded.name().clone();
    GuardedBody::new(
        body,
        permit,
        meter,
        name,
        bench.guarded.shared.options.body_idle_timeout,
    )
}

#[tokio::test(start_paused = true)]
async fn a_body_that_drips_ends_in_an_error() {
    let bench = bench(GuardOptions::DEFAULT);
    let drips = stream::iter(0..1_000_000).then(|_| async {
        tokio::time::sleep(SECOND).await;
        Ok(Bytes::from_static(b"x"))
    });
    let permit = bench.guarded.permit(Class::Read, "get").await;
    let mut body = guarded_body(&bench, Box::pin(drips), permit.expect("a free permit"));
    let begun = Instant::now();
    let error = loop {
        if let Err(error) = body.next().await.expect("bytes") {
            break error;
        }
    };
    assert_eq!(error.kind, Kind::TimedOut);
    // What it brought is worth hardly anything; who is slow and steady goes on.
    let limit = GuardOptions::DEFAULT.body_idle_timeout;
    assert!((limit..limit + SECOND * 2).contains(&begun.elapsed()));
    let steady = stream::iter(0..1000).then(|_| async {
        tokio::time::sleep(SECOND * 20).await;
        Ok(Bytes::from(vec![7; 20 << 10]))
    });
    let permit = bench.guarded.permit(Class::Read, "get").await;
    let body = guarded_body(&bench, Box::pin(steady), permit.expect("a free permit"));
    assert!(body.all(|chunk| async move { chunk.is_ok() }).await);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_stalls_ends_in_an_error_and_frees_its_permit() {
    let bench = bench(GuardOptions {
        concurrency: 1,
        ..GuardOptions::DEFAULT
    });
    let permit = bench.guarded.permit(Class::Read, "get").await;
    let mut body = guarded_body(&bench, stalling(), permit.expect("a free permit"));
    assert_eq!(body.next().await.expect("bytes").expect("bytes").len(), 5);
    // A reader that takes its time stops no clock.
    tokio::time::sleep(SECOND * 600).await;
    let begun = Instant::now();
    let error = body.next().await.expect("an error").unwrap_err();
    assert_eq!(error.kind, Kind::TimedOut);
    assert_eq!(begun.elapsed(), GuardOptions::DEFAULT.body_idle_timeout);
    assert!(body.next().await.is_none());
    assert_eq!(free(&bench, Class::Read), 1);
    assert_eq!(
        *bench.ledger.bodies.lock(),
        [(CallOutcome::Fail(Kind::TimedOut), 5)]
    );
}

fn free(bench: &Bench, class: Class) -> usize {
    bench.guarded.shared.pools.of(class).available_permits()
}

/// One call at a time of each class.
const NARROW: GuardOptions = GuardOptions {
    concurrency: 1,
    ..GuardOptions::DEFAULT
};

/// A payload of `length` bytes whose chunks come through the sender.
fn fed(length: u64) -> (mpsc::UnboundedSender<Bytes>, Payload) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let chunks = stream::unfold(receiver, |mut receiver| async move {
        let chunk: Bytes = receiver.recv().await?;
        Some((Ok::<Bytes, PayloadCut>(chunk), receiver))
    });
    (sender, Payload::streamed(length, Box::pin(chunks)))
}

#[tokio::test(start_paused = true)]
async fn a_read_whose_reader_stalls_holds_no_permit() {
    let bench = bench(NARROW);
    bench.memory.plant(
        "a",
        Bytes::from(vec![7; 600_000]),
        base::ObjectHeaders::default(),
    );
    let mut first = bench
        .guarded
        .get(&key("a"), None, None)
        .await
        .expect("it is there");
    // Neither before its first byte nor in the middle.
    let mut second = bench
        .guarded
        .get(&key("a"), None, None)
        .await
        .expect("a free permit");
    first.body.next().await.expect("bytes").expect("bytes");
    let third = bench
        .guarded
        .get(&key("a"), None, None)
        .await
        .expect("a free permit");
    second.body.next().await.expect("bytes").expect("bytes");
    for body in [first.body, second.body, third.body] {
        body.for_each(|chunk| async move {
            chunk.expect("bytes");
        })
        .await;
    }
    assert_eq!(free(&bench, Class::Read), 1);
    let bodies = bench.ledger.bodies.lock();
    assert_eq!(*bodies, [(CallOutcome::Succeed, 600_000); 3]);
}

#[tokio::test(start_paused = true)]
async fn a_read_that_waits_for_the_provider_holds_its_permit_until_its_end_or_drop() {
    let bench = bench(NARROW);
    let permit = bench.guarded.permit(Class::Read, "get").await;
    let mut body = guarded_body(&bench, stalling(), permit.expect("a free permit"));
    body.next().await.expect("bytes").expect("bytes");
    assert!(body.next().now_or_never().is_none());
    let refused = bench.guarded.get(&key("a"), None, None).await.unwrap_err();
    assert_eq!(
        (refused.kind, refused.effect),
        (Kind::Throttled, Effect::None)
    );
    drop(body);
    assert_eq!(free(&bench, Class::Read), 1);
    assert_eq!(*bench.ledger.bodies.lock(), [(CallOutcome::Drop, 5)]);
}

#[tokio::test(start_paused = true)]
async fn a_write_whose_client_stalls_holds_no_permit_and_takes_one_again_when_bytes_come() {
    let bench = bench(NARROW);
    let (name, meta) = (key("stalled"), PutMeta::default());
    let (sender, payload) = fed(10);
    let mut stalled = Box::pin(bench.guarded.put(&name, &meta, payload));
    sender
        .send(Bytes::from_static(b"01234"))
        .expect("it listens");
    assert!(
        tokio::time::timeout(SECOND * 600, &mut stalled)
            .await
            .is_err()
    );
    assert_eq!(free(&bench, Class::Write), 1);
    let (quick, other) = (key("quick"), self::payload());
    let put = bench.guarded.put(&quick, &meta, other);
    assert!(put.now_or_never().is_some_and(|put| put.is_ok()));
    sender
        .send(Bytes::from_static(b"56789"))
        .expect("it listens");
    drop(sender);
    stalled.await.expect("it goes on");
    assert_eq!(free(&bench, Class::Write), 1);
}

#[tokio::test(start_paused = true)]
async fn a_write_that_gets_no_permit_in_its_middle_is_cut_and_may_be_tried_again() {
    let bench = bench(NARROW);
    let (name, meta) = (key("a"), PutMeta::default());
    let (sender, payload) = fed(10);
    let mut slow = Box::pin(bench.guarded.put(&name, &meta, payload));
    sender
        .send(Bytes::from_static(b"01234"))
        .expect("it listens");
    assert!((&mut slow).now_or_never().is_none());
    let held = bench
        .guarded
        .permit(Class::Write, "put")
        .await
        .expect("a free permit");
    sender
        .send(Bytes::from_static(b"56789"))
        .expect("it listens");
    let begun = Instant::now();
    let error = slow.await.unwrap_err();
    assert_eq!(error.kind, Kind::Throttled);
    assert_eq!(begun.elapsed(), GuardOptions::DEFAULT.backend_timeout);
    assert_eq!(bench.memory.keys(), Vec::<String>::new());
    drop(held);
    assert_eq!(free(&bench, Class::Write), 1);
}

/// A provider that takes a second for each of so many chunks, all of which are there.
async fn slow_write(bench: &Bench, chunks: u64) -> bool {
    let permit = bench
        .guarded
        .permit(Class::Write, "put")
        .await
        .expect("in time");
    let progress = WriteProgress::new(permit, Arc::default(), Arc::new(NoMeter));
    let content = stream::iter(0..chunks).map(|_| Ok(Bytes::from_static(b"x")));
    let mut body = watched(Box::pin(content), Arc::new(progress));
    while let Some(chunk) = body.next().await {
        if chunk.is_err() {
            return false;
        }
        tokio::time::sleep(SECOND).await;
    }
    true
}

#[tokio::test(start_paused = true)]
async fn writes_that_never_stall_take_turns() {
    let bench = bench(NARROW);
    // The long one takes ten minutes; who waits for its permit waits for half a minute at most.
    let ended = tokio::join!(slow_write(&bench, 600), slow_write(&bench, 3));
    assert_eq!(ended, (true, true));
}

#[tokio::test(start_paused = true)]
async fn looks_probes_and_deletes_never_wait_behind_clients() {
    let bench = bench(NARROW);
    let mut held = Vec::new();
    for class in [Class::Read, Class::Write, Class::Assembly] {
        held.push(
            bench
                .guarded
                .permit(class, "held")
                .await
                .expect("a free permit"),
        );
    }
    let begun = Instant::now();
    bench.guarded.check().await.expect("it is there");
    bench
        .guarded
        .write_marker(Bytes::from_static(b"mark"))
        .await
        .expect("room");
    bench.guarded.read_marker().await.expect("it is there");
    bench.guarded.probe().await.expect("it answers");
    bench
        .guarded
        .list(&ListRequest::default())
        .await
        .expect("it lists");
    let target = DeleteTarget {
        key: key("a"),
        version: None,
    };
    bench.guarded.delete(&[target]).await;
    assert_eq!(begun.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_call_gives_its_permit_back_and_is_metered() {
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
    assert_eq!(free(&bench, Class::Write), 1);
    let calls = bench.ledger.calls.lock();
    let outcomes: Vec<_> = calls
        .iter()
        .map(|(operation, outcome, _)| (*operation, *outcome))
        .collect();
    assert_eq!(
        outcomes,
        [("put", CallOutcome::Drop), ("list", CallOutcome::Drop)]
    );
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
    drop(held);
    // The permits are the same ones.
    let held = bench
        .guarded
        .permit(Class::Read, "get")
        .await
        .expect("a free permit");
    let waits = metered.get(&a, None, None);
    assert!(waits.now_or_never().is_none());
    drop(held);
}
