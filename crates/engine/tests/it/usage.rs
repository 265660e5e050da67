//! Monthly usage limits: what is counted, what is refused, what passes, what survives.

use std::time::Duration;

use backend::faulty::Fault;
use base::{
    BackendKey, BlobId, CopyId, Crc64, Crc64Hasher, ETag, Month, ObjectHeaders, Precondition,
    RangeSpec, Tags, Timestamp, Traffic, VersionId,
};
use bytes::Bytes;
use engine::catalogue::{Content, Extent, NewBlob, NewCopy, NewIntent, NewVersion, Verdict};
use engine::{
    AdaptiveFlush, CompleteRequest, CompletedPart, CopyRequest, CopySource, CreateUpload, Engine,
    Error, PartRequest, ReadRequest, Selection, Taken, UsageFlush, UsageLimits,
};
use futures_util::StreamExt as _;
use tokio::sync::watch;

use crate::world::{
    World, body, bytes, get, hang_up_after, key, photos, put, put_request, read, read_request,
};

const MIB: usize = 1 << 20;
/// What each of several new backends has sent before anybody asks: its first marker is read back.
const FIRST_MARKER_BYTES: usize = 147;

async fn spent(engine: &Engine, backend: usize) -> Traffic {
    // It answers from memory, also where the catalogue is closed.
    engine.overview().await.backends[backend].status.usage.spent
}

/// What the rows say of a backend in the month of the world's clock.
async fn written(world: &World, engine: &Engine, backend: usize) -> Traffic {
    let row = &engine.store().backends().await.unwrap()[backend];
    assert_eq!(row.name, world.places[backend].name);
    let rows = engine.store().usage(month(world)).await.unwrap();
    let row = rows.iter().find(|found| found.backend == row.id);
    row.map_or(Traffic::NONE, |row| row.traffic)
}

fn month(world: &World) -> Month {
    Month::of(base::Clock::now(&*world.clock))
}

fn limited(world: &mut World, backend: usize, limits: UsageLimits) {
    world.settings.backends[backend].usage_limits = limits;
}

fn egress(bytes: usize) -> UsageLimits {
    UsageLimits {
        egress: Some(bytes as u64),
        ..UsageLimits::default()
    }
}

fn ingress(bytes: usize) -> UsageLimits {
    UsageLimits {
        ingress: Some(bytes as u64),
        ..UsageLimits::default()
    }
}

fn sum(content: &[u8]) -> Crc64 {
    let mut sum = Crc64Hasher::new();
    sum.update(content);
    sum.sum()
}

/// Writes an object whose extents have these copies, as replication would have made them.
async fn place(world: &World, engine: &Engine, name: &str, extents: &[(Bytes, &[usize])]) {
    let store = engine.store();
    let rows = store.backends().await.unwrap();
    let (mut blobs, mut parts, mut intents) = (Vec::new(), Vec::new(), Vec::new());
    for (content, backends) in extents {
        let (blob, size) = (BlobId::draw(&world.ids), content.len() as u64);
        let mut copies = Vec::new();
        for backend in *backends {
            let copy = CopyId::draw(&world.ids);
            let at = BackendKey::new(&format!("photos/{name}~{copy}")).unwrap();
            let room = store.reserve(rows[*backend].id, size).await.unwrap();
            let intent = NewIntent {
                copy,
                blob,
                key: at.clone(),
            };
            intents.push(store.open_intent(intent, room).await.unwrap());
            let memory = &world.places[*backend].memory;
            memory.plant(at.as_str(), content.clone(), ObjectHeaders::default());
            copies.push(NewCopy {
                copy,
                etag: None,
                version: None,
                crc64: None,
            });
        }
        blobs.push(NewBlob {
            blob,
            size,
            crc64: Some(sum(content)),
            copies,
        });
        parts.push(Extent {
            blob,
            offset: 0,
            length: size,
        });
    }
    let version = NewVersion {
        bucket: photos(engine),
        key: key(name),
        version: VersionId::draw(&world.ids),
        size: parts.iter().map(|extent| extent.length).sum(),
        etag: ETag::new("0123456789abcdef0123456789abcdef"),
        last_modified: Timestamp::from_millis(0),
        headers: ObjectHeaders::default(),
        tags: Tags::default(),
        checksum: None,
        parts: Vec::new(),
        content: Content::Written {
            blobs,
            extents: parts,
        },
        precondition: Precondition::None,
    };
    let (verdict, left) = store.commit(version, intents).await;
    assert!(matches!(verdict.unwrap(), Verdict::Committed { .. }) && left.is_empty());
}

#[tokio::test(start_paused = true)]
async fn every_way_to_a_backend_is_counted_as_it_moves() {
    let world = World::new(&[None]);
    let engine = world.engine().await;
    let begun = spent(&engine, 0).await;
    // The look at the marker, the first mark, the probe.
    assert!(begun.requests >= 3 && begun.ingress > 0);
    let mut before = begun;
    let mut moved = async |what: &str, expected: Traffic| {
        let now = spent(&engine, 0).await;
        assert_eq!(now.minus(before), expected, "{what}");
        before = now;
    };
    let traffic = |requests, egress: usize, ingress: usize| Traffic {
        requests,
        egress: egress as u64,
        ingress: ingress as u64,
    };
    let content = bytes(1, 3 * MIB);
    put(&engine, "a", &content).await.unwrap();
    moved("a put", traffic(1, 0, 3 * MIB)).await;
    get(&engine, "a").await.unwrap();
    moved("a get", traffic(1, 3 * MIB, 0)).await;
    let range = range_of(&engine, "a", 5, 14);
    read(&engine, &range).await.unwrap();
    moved("a range", traffic(1, 10, 0)).await;
    engine
        .look(&read_request(photos(&engine), "a"))
        .await
        .unwrap();
    moved("a look is the catalogue's alone", Traffic::NONE).await;
    copy(&engine, "a", "b").await.unwrap();
    moved("a native copy moves nothing through here", traffic(1, 0, 0)).await;
    // A read that is cut counts what came.
    let mut reading = engine
        .read(&read_request(photos(&engine), "a"))
        .await
        .unwrap()
        .body;
    let first = reading.next().await.unwrap().unwrap().len();
    drop(reading);
    moved("a cut read", traffic(1, first, 0)).await;
    // So does a write, and what is deleted after it is a request more.
    let cut = engine.put(put_request(photos(&engine), "c"), body(&content, 16 << 10));
    assert!(hang_up_after(4, cut).await.is_none());
    let sent = spent(&engine, 0).await.minus(begun).ingress - 3 * MIB as u64;
    assert!(sent < 3 * MIB as u64, "{sent}");
    before = spent(&engine, 0).await;
    world.quiesce(&engine).await;
    assert!(
        spent(&engine, 0).await.minus(before).requests > 0,
        "the cleanup"
    );
    world.check(&engine).await.unwrap();
}

/// The bytes from the first to the last, both included.
fn range_of(engine: &Engine, name: &str, first: u64, last: u64) -> ReadRequest {
    let last = Some(last);
    ReadRequest {
        selection: Selection::Range(RangeSpec::From { first, last }),
        ..read_request(photos(engine), name)
    }
}

async fn copy(engine: &Engine, from: &str, to: &str) -> engine::Result<engine::Copied> {
    let request = CopyRequest {
        source: CopySource {
            bucket: photos(engine),
            key: key(from),
            conditions: base::Conditions::default(),
        },
        bucket: photos(engine),
        key: key(to),
        headers: Taken::Keep,
        tags: Taken::Keep,
        checksum: None,
        precondition: Precondition::None,
    };
    engine.copy(request).await
}

#[tokio::test(start_paused = true)]
async fn writes_overflow_to_other_backends_and_are_refused_where_none_is_left() {
    let mut world = World::new(&[None, None]);
    limited(&mut world, 0, ingress(3 * MIB));
    limited(&mut world, 1, ingress(2 * MIB));
    let engine = world.engine().await;
    let content = bytes(1, MIB);
    let holders = |name: &'static str| {
        let held = |place: &crate::world::Place| {
            let keys = place.memory.keys().into_iter();
            keys.filter(|key| key.starts_with(&format!("photos/{name}~")))
                .count()
        };
        world.places.iter().map(held).collect::<Vec<_>>()
    };
    for (name, expected) in [("a", [1, 0]), ("b", [1, 0]), ("c", [0, 1])] {
        put(&engine, name, &content).await.unwrap();
        assert_eq!(holders(name), expected, "{name}");
    }
    // The markers took a few bytes, so neither has a whole MiB left.
    let polled = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let mut incoming = body(&content, MIB);
    let flag = polled.clone();
    incoming.stream = Box::pin(incoming.stream.inspect(move |_| {
        flag.store(true, std::sync::atomic::Ordering::SeqCst);
    }));
    let refused = engine
        .put(put_request(photos(&engine), "d"), incoming)
        .await;
    assert!(
        matches!(refused, Err(Error::WriteLimited { .. })),
        "{refused:?}"
    );
    assert!(!polled.load(std::sync::atomic::Ordering::SeqCst));
    // Smaller ones still fit, and what is there is read, overwritten and deleted.
    put(&engine, "e", &bytes(2, 1000)).await.unwrap();
    assert_eq!(get(&engine, "a").await.unwrap(), content);
    engine
        .remove(photos(&engine), key("a"), Precondition::None)
        .await
        .unwrap();
    world.quiesce(&engine).await;
    assert_eq!(holders("a"), [0, 0]);
    // What was deleted was sent all the same.
    let refused = put(&engine, "d", &content).await;
    assert!(
        matches!(refused, Err(Error::WriteLimited { .. })),
        "{refused:?}"
    );
    world.check(&engine).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn writes_at_the_same_time_cannot_together_pass_a_limit() {
    let mut world = World::new(&[None]);
    limited(&mut world, 0, ingress(5 * MIB));
    let engine = world.engine().await;
    let content = bytes(1, MIB);
    let names: Vec<String> = (0..20).map(|n| format!("k{n}")).collect();
    let writes = names.iter().map(|name| put(&engine, name, &content));
    let outcomes = futures_util::future::join_all(writes).await;
    let written = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
    assert_eq!(written, 4);
    let limit = |outcome: &engine::Result<_>| matches!(outcome, Err(Error::WriteLimited { .. }));
    assert_eq!(outcomes.iter().filter(|outcome| limit(outcome)).count(), 16);
    assert!(spent(&engine, 0).await.ingress <= 5 * MIB as u64);
    // A write that fails gives back what it did not send.
    world.places[0].faults.script("put", Fault::Refuse);
    world.places[0].faults.script("put", Fault::Refuse);
    let small = bytes(2, 1000);
    assert!(put(&engine, "x", &small).await.is_err());
    let left = 5 * MIB as u64 - spent(&engine, 0).await.ingress;
    put(&engine, "y", &bytes(3, usize::try_from(left).unwrap()))
        .await
        .unwrap();
    assert_eq!(spent(&engine, 0).await.ingress, 5 * MIB as u64);
    world.quiesce(&engine).await;
    world.check(&engine).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn reads_use_the_copies_that_are_within_their_limits() {
    let mut world = World::new(&[None, None]);
    limited(&mut world, 0, egress(2 * MIB + FIRST_MARKER_BYTES));
    limited(&mut world, 1, egress(MIB + MIB / 2 + FIRST_MARKER_BYTES));
    let engine = world.engine().await;
    let content = bytes(1, MIB);
    place(&world, &engine, "a", &[(content.clone(), &[0, 1])]).await;
    let sent = async |backend| spent(&engine, backend).await.egress - FIRST_MARKER_BYTES as u64;
    for _ in 0..3 {
        assert_eq!(get(&engine, "a").await.unwrap(), content);
    }
    assert_eq!((sent(0).await, sent(1).await), (2 * MIB as u64, MIB as u64));
    let refused = get(&engine, "a").await;
    assert!(matches!(refused, Err(Error::ReadLimited)), "{refused:?}");
    // A part of it still fits on one of them.
    let range = range_of(&engine, "a", 0, 999);
    assert_eq!(read(&engine, &range).await.unwrap(), content.slice(..1000));
    assert_eq!(
        (sent(0).await, sent(1).await),
        (2 * MIB as u64, MIB as u64 + 1000)
    );
    // Nothing that asks the catalogue alone is refused, nor a native copy, nor a delete.
    engine
        .look(&read_request(photos(&engine), "a"))
        .await
        .unwrap();
    copy(&engine, "a", "b").await.unwrap();
    for name in ["a", "b"] {
        engine
            .remove(photos(&engine), key(name), Precondition::None)
            .await
            .unwrap();
    }
    world.quiesce(&engine).await;
    assert!(world.places.iter().all(|place| {
        let keys = place.memory.keys().into_iter();
        keys.filter(|key| key.starts_with("photos/")).count() == 0
    }));
}

#[tokio::test(start_paused = true)]
async fn a_copy_over_its_limit_is_not_used_even_where_the_other_one_fails() {
    let mut world = World::new(&[None, None]);
    limited(&mut world, 0, egress(10 + FIRST_MARKER_BYTES));
    let engine = world.engine().await;
    let content = bytes(1, 1000);
    place(&world, &engine, "a", &[(content.clone(), &[0, 1])]).await;
    for _ in 0..3 {
        world.places[1].faults.script("get", Fault::Refuse);
    }
    let failed = get(&engine, "a").await;
    let Err(Error::ReadUnavailable { tried }) = failed else {
        panic!("{failed:?}")
    };
    let names: Vec<_> = tried.0.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["b1"]);
    assert_eq!(spent(&engine, 0).await.egress, FIRST_MARKER_BYTES as u64);
    assert_eq!(get(&engine, "a").await.unwrap(), content);
}

#[tokio::test(start_paused = true)]
async fn a_read_is_admitted_whole_before_its_first_byte() {
    let mut world = World::new(&[None, None]);
    limited(&mut world, 1, egress(1500 + FIRST_MARKER_BYTES));
    let engine = world.engine().await;
    let parts = [bytes(1, 1000), bytes(2, 1000), bytes(3, 1000)];
    let extents: [(Bytes, &[usize]); 3] = [
        (parts[0].clone(), &[0]),
        (parts[1].clone(), &[1]),
        (parts[2].clone(), &[1]),
    ];
    place(&world, &engine, "a", &extents).await;
    // The second and the third extent fit one by one and not together.
    let refused = engine.read(&read_request(photos(&engine), "a")).await;
    assert!(matches!(refused, Err(Error::ReadLimited)), "{refused:?}");
    assert_eq!(spent(&engine, 0).await.egress, FIRST_MARKER_BYTES as u64);
    // What the refused one had set aside is free: two extents fit.
    let range = range_of(&engine, "a", 500, 1999);
    let reading = engine.read(&range).await.unwrap();
    // While it runs, its second extent is promised, although nothing of it has moved.
    let others = range_of(&engine, "a", 2000, 2999);
    let refused = engine.read(&others).await;
    assert!(matches!(refused, Err(Error::ReadLimited)), "{refused:?}");
    let length = reading.chosen.range.length;
    let marker = FIRST_MARKER_BYTES as u64;
    let pieces: Vec<Bytes> = reading.body.map(Result::unwrap).collect().await;
    assert_eq!(pieces.concat().len() as u64, length);
    assert_eq!(
        (
            spent(&engine, 0).await.egress,
            spent(&engine, 1).await.egress
        ),
        (500 + marker, 1000 + marker)
    );
    assert_eq!(length, 1500);
}

#[tokio::test(start_paused = true)]
async fn a_read_that_is_cut_frees_what_it_did_not_move() {
    let mut world = World::new(&[None]);
    limited(&mut world, 0, egress(4 * MIB));
    let engine = world.engine().await;
    let content = bytes(1, 3 * MIB);
    put(&engine, "a", &content).await.unwrap();
    let before = spent(&engine, 0).await.egress;
    let mut reading = engine
        .read(&read_request(photos(&engine), "a"))
        .await
        .unwrap();
    let first = reading.body.next().await.unwrap().unwrap().len() as u64;
    let refused = get(&engine, "a").await;
    assert!(matches!(refused, Err(Error::ReadLimited)), "{refused:?}");
    drop(reading);
    assert_eq!(spent(&engine, 0).await.egress - before, first);
    assert_eq!(get(&engine, "a").await.unwrap(), content);
}

#[tokio::test(start_paused = true)]
async fn parts_go_on_elsewhere_and_completing_and_aborting_always_pass() {
    let mut world = World::new(&[None, None]);
    world.settings.part_size_min = base::ByteSize(1);
    limited(&mut world, 0, ingress(2 * MIB));
    let engine = world.engine().await;
    let begin = || async {
        let request = CreateUpload {
            bucket: photos(&engine),
            key: key("a"),
            headers: ObjectHeaders::default(),
            tags: Tags::default(),
            checksum: None,
        };
        engine.create_upload(request).await
    };
    let upload = begin().await.unwrap();
    let mut parts = Vec::new();
    let mut whole = Vec::new();
    for number in 1..=3 {
        let content = bytes(u64::from(number), MIB);
        let request = PartRequest {
            bucket: photos(&engine),
            key: key("a"),
            upload,
            number,
        };
        let part = engine.upload_part(request, body(&content, 64 << 10)).await;
        parts.push(CompletedPart {
            number,
            etag: part.unwrap().etag,
            checksum: None,
        });
        whole.extend_from_slice(&content);
    }
    let (first, second) = (
        spent(&engine, 0).await.ingress,
        spent(&engine, 1).await.ingress,
    );
    assert!(
        first < 2 * MIB as u64 && second >= 2 * MIB as u64,
        "{first} {second}"
    );
    let aborted = begin().await.unwrap();
    // From here on nothing is left anywhere, as after a restart with other limits.
    engine.stop().await.unwrap();
    drop(engine);
    for backend in 0..2 {
        let none = UsageLimits {
            requests: Some(1),
            egress: None,
            ingress: Some(1),
        };
        limited(&mut world, backend, none);
    }
    let engine = world.engine().await;
    let complete = CompleteRequest {
        bucket: photos(&engine),
        key: key("a"),
        upload,
        parts,
        checksum: None,
        size: None,
        precondition: Precondition::None,
    };
    engine.complete_upload(complete).await.unwrap();
    engine
        .abort_upload(photos(&engine), &key("a"), aborted)
        .await
        .unwrap();
    let request = CreateUpload {
        bucket: photos(&engine),
        key: key("b"),
        headers: ObjectHeaders::default(),
        tags: Tags::default(),
        checksum: None,
    };
    let refused = engine.create_upload(request).await;
    assert!(
        matches!(refused, Err(Error::WriteLimited { .. })),
        "{refused:?}"
    );
    world.quiesce(&engine).await;
    assert!(
        world
            .places
            .iter()
            .all(|place| place.memory.uploads().is_empty())
    );
    let read_now = get(&engine, "a").await;
    assert!(matches!(read_now, Err(Error::ReadLimited)), "{read_now:?}");
    engine.stop().await.unwrap();
    drop(engine);
    for backend in 0..2 {
        limited(&mut world, backend, UsageLimits::default());
    }
    let engine = world.engine().await;
    assert_eq!(get(&engine, "a").await.unwrap(), whole);
    world.check(&engine).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn copies_move_elsewhere_or_are_refused_for_what_is_spent() {
    let mut world = World::new(&[None, None]);
    limited(
        &mut world,
        0,
        UsageLimits {
            requests: Some(6),
            ..UsageLimits::default()
        },
    );
    let engine = world.engine().await;
    let content = bytes(1, 1000);
    put(&engine, "a", &content).await.unwrap();
    // One request is left there: it pays for the native copy, and then none is.
    assert_eq!(spent(&engine, 0).await.requests, 5);
    copy(&engine, "a", "b").await.unwrap();
    let refused = copy(&engine, "a", "c").await;
    assert!(matches!(refused, Err(Error::ReadLimited)), "{refused:?}");
    // Nothing was sent for the refused one.
    assert_eq!(spent(&engine, 0).await.requests, 6);
    put(&engine, "d", &content).await.unwrap();
    assert_eq!(get(&engine, "d").await.unwrap(), content);
}

#[tokio::test(start_paused = true)]
async fn counts_survive_a_stop_and_only_the_unwritten_ones_are_lost_in_a_crash() {
    let world = World::new(&[None]);
    let engine = world.engine().await;
    put(&engine, "a", &bytes(1, 1000)).await.unwrap();
    assert_eq!(written(&world, &engine, 0).await, Traffic::NONE);
    assert_eq!(engine.flush_usage().await.unwrap(), 1);
    let flushed = spent(&engine, 0).await;
    assert_eq!(written(&world, &engine, 0).await, flushed);
    assert_eq!(engine.flush_usage().await.unwrap(), 0, "nothing is new");
    put(&engine, "b", &bytes(2, 1000)).await.unwrap();
    engine.stop().await.unwrap();
    let stopped = spent(&engine, 0).await;
    // The last mark is in it.
    assert!(stopped.minus(flushed).requests >= 2);
    drop(engine);
    let engine = world.engine().await;
    assert_eq!(written(&world, &engine, 0).await, stopped);
    assert!(
        spent(&engine, 0).await.requests > stopped.requests,
        "the start counts"
    );
    engine.flush_usage().await.unwrap();
    let kept = spent(&engine, 0).await;
    get(&engine, "a").await.unwrap();
    // A crash: nothing says goodbye.
    drop(engine);
    let engine = world.engine().await;
    assert_eq!(written(&world, &engine, 0).await, kept);
    world.check(&engine).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_flush_that_fails_loses_nothing() {
    let world = World::new(&[None]);
    let engine = world.engine().await;
    engine.flush_usage().await.unwrap();
    put(&engine, "a", &bytes(1, 1000)).await.unwrap();
    let before = spent(&engine, 0).await;
    engine.store().close().await.unwrap();
    for _ in 0..2 {
        engine.flush_usage().await.unwrap_err();
        assert_eq!(spent(&engine, 0).await, before);
    }
}

#[tokio::test(start_paused = true)]
async fn a_new_month_begins_at_zero() {
    let mut world = World::new(&[None]);
    limited(&mut world, 0, ingress(MIB));
    let engine = world.engine().await;
    let content = bytes(1, MIB / 2 + 1);
    put(&engine, "a", &content).await.unwrap();
    assert!(put(&engine, "b", &content).await.is_err());
    let (old, counted) = (month(&world), spent(&engine, 0).await);
    // The clock of the world stands in November 2023.
    world.clock.advance_ms(31 * 24 * 3600 * 1000);
    assert!(month(&world) > old);
    assert_eq!(spent(&engine, 0).await, Traffic::NONE);
    put(&engine, "b", &content).await.unwrap();
    engine.flush_usage().await.unwrap();
    // The late counts of the old month went to its row.
    let rows = engine.store().usage(old).await.unwrap();
    assert_eq!(rows[0].traffic, counted);
    assert_eq!(written(&world, &engine, 0).await, spent(&engine, 0).await);
    assert_eq!(spent(&engine, 0).await.ingress, content.len() as u64);
    drop(engine);
    let engine = world.engine().await;
    assert!(
        put(&engine, "c", &content).await.is_err(),
        "it is still this month"
    );
}

#[tokio::test(start_paused = true)]
async fn usage_is_written_by_itself_and_sooner_near_a_limit() {
    let mut world = World::new(&[None, None]);
    limited(&mut world, 0, ingress(MIB));
    world.settings.usage_flush = UsageFlush {
        interval: Duration::from_secs(30),
        adaptive: Some(AdaptiveFlush {
            threshold: 0.8,
            fast_interval: Duration::from_secs(5),
        }),
    };
    let engine = world.engine().await;
    let (stop, stopped) = watch::channel(false);
    let (workers, at_work) = (engine.clone(), stopped.clone());
    let running = tokio::spawn(async move { workers.run_workers(at_work).await });
    let after = |seconds| tokio::time::sleep(Duration::from_secs(seconds));
    after(1).await;
    put(&engine, "a", &bytes(1, MIB / 2)).await.unwrap();
    let is_written = || async { written(&world, &engine, 0).await == spent(&engine, 0).await };
    after(20).await;
    assert!(!is_written().await);
    after(10).await;
    assert!(is_written().await);
    put(&engine, "b", &bytes(2, MIB / 3)).await.unwrap();
    after(25).await;
    assert!(
        !is_written().await,
        "the shorter interval begins with a look"
    );
    after(5).await;
    assert!(is_written().await);
    get(&engine, "a").await.unwrap();
    assert!(!is_written().await);
    after(5).await;
    assert!(is_written().await);
    stop.send(true).unwrap();
    running.await.unwrap();
}
