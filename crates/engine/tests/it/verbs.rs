//! Each verb: what it promises, and what must not happen.

use backend::MARKER_KEY;
use backend::faulty::{Fault, Rates};
use base::{
    BackendKey, BlobId, ByteRange, ByteSize, Clock as _, Conditions, CopyId, ETag, ETagCondition,
    Md5, ObjectHeaders, Precondition, RangeSpec, Tags, VersionId,
};
use engine::catalogue::{
    Content, Extent, ListEntry, ListQuery, ListStart, NewBlob, NewCopy, NewIntent, NewVersion,
    Verdict,
};
use engine::{
    COPY_BYTES_MAX, CopyRequest, CopySource, CreateUpload, Declared, DeleteOutcome, Engine, Error,
    Incoming, OutOfService, PartCopyRequest, ReadRequest, Selection, Taken,
};

use tokio::time::{Duration, Instant};

use crate::world::{
    World, body, bucket, bytes, get, hang_up_after, key, photos, put, put_request, read,
    read_request,
};

#[tokio::test(start_paused = true)]
async fn what_was_put_is_read_back_byte_for_byte() {
    let world = World::new(&[None]);
    let engine = world.engine().await;
    for (number, length) in [0, 1, 1000, 65_536, 65_537, 300_000, 3 << 20]
        .into_iter()
        .enumerate()
    {
        let content = bytes(number as u64, length);
        let written = put(&engine, "a", &content).await.unwrap();
        assert_eq!(written.etag, ETag::of_body(Md5::of(&content)));
        assert_eq!(get(&engine, "a").await.unwrap(), content, "{length} bytes");
        world.check(&engine).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn odd_keys_are_keys_like_any_other() {
    let world = World::new(&[None]);
    let engine = world.engine().await;
    let long = "k".repeat(1024);
    let keys = [
        "a",
        "a/b",
        "a//b",
        "../x",
        "./x",
        "/",
        "//",
        "a/",
        "%2F",
        "a%2Fb",
        "a b+c",
        "\u{1}\n\u{7f}",
        "ä/ö/\u{10ffff}",
        "~",
        ".s3o/backend",
        &long,
    ];
    for (number, name) in keys.iter().enumerate() {
        put(&engine, name, &bytes(number as u64, 100 + number))
            .await
            .unwrap();
    }
    for (number, name) in keys.iter().enumerate() {
        assert_eq!(
            get(&engine, name).await.unwrap(),
            bytes(number as u64, 100 + number),
            "{name}"
        );
    }
    let query = ListQuery {
        bucket: photos(&engine),
        prefix: String::new(),
        delimiter: None,
        start: ListStart::Beginning,
        max_entries: 1000,
    };
    let listed: Vec<_> = engine
        .list(&query)
        .await
        .unwrap()
        .entries
        .into_iter()
        .map(|entry| match entry {
            ListEntry::Object(object) => object.key,
            ListEntry::Prefix(prefix) => panic!("{prefix}"),
        })
        .collect();
    let mut sorted: Vec<_> = keys.iter().map(ToString::to_string).collect();
    sorted.sort();
    assert_eq!(listed, sorted);
    world.check(&engine).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_body_that_lies_leaves_the_old_version_and_nothing_behind() {
    let world = World::new(&[None]);
    let engine = world.engine().await;
    let old = bytes(1, 200_000);
    put(&engine, "a", &old).await.unwrap();
    let new = bytes(2, 200_000);
    let lies: [fn(&mut Incoming); 4] = [
        |body| body.length += 1,
        |body| body.length -= 1,
        |body| {
            body.declared = Declared {
                md5: Some(Md5([0; 16])),
                ..Declared::default()
            }
        },
        |body| {
            body.declared = Declared {
                sha256: Some([0; 32]),
                ..Declared::default()
            }
        },
    ];
    for lie in lies {
        for length in [100, 200_000] {
            let mut lying = body(&new.slice(..length), 10_000);
            lie(&mut lying);
            let refused = engine.put(put_request(photos(&engine), "a"), lying).await;
            let honest = matches!(
                refused,
                Err(Error::Body(_) | Error::BadDigest { .. } | Error::PayloadMismatch)
            );
            assert!(honest, "{refused:?}");
            assert_eq!(get(&engine, "a").await.unwrap(), old);
            world.check(&engine).await.unwrap();
        }
    }
    world.quiesce(&engine).await;
    assert_eq!(
        world.places[0].memory.used_bytes() - marker_bytes(&world),
        200_000
    );
}

fn marker_bytes(world: &World) -> u64 {
    let places = world.places.iter();
    places
        .map(|p| {
            p.memory
                .object(MARKER_KEY)
                .map_or(0, |o| o.bytes.len() as u64)
        })
        .sum()
}

#[tokio::test(start_paused = true)]
async fn a_failed_backend_is_replaced_while_the_body_fits_the_replay_window() {
    for length in [1000, 500_000] {
        for fault in [Fault::Refuse, Fault::Cut, Fault::Full, Fault::Stall] {
            let world = World::new(&[None, None]);
            let engine = world.engine().await;
            world.places[0].faults.script("put", fault);
            let content = bytes(1, length);
            put(&engine, "a", &content).await.unwrap();
            assert_eq!(get(&engine, "a").await.unwrap(), content);
            assert_eq!(
                world.places[1].memory.keys().len(),
                2,
                "{fault:?}: marker and object"
            );
            world.check(&engine).await.unwrap();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn beyond_the_replay_window_a_failed_backend_is_a_retryable_error() {
    let world = World::new(&[None, None]);
    let engine = world.engine().await;
    let old = bytes(1, 10);
    put(&engine, "a", &old).await.unwrap();
    world.places[0].faults.script("put", Fault::LoseReply);
    for _ in 0..3 {
        world.places[0].faults.script("head", Fault::Refuse);
    }
    let failed = put(&engine, "a", &bytes(2, 4 << 20)).await;
    assert!(
        matches!(failed, Err(Error::WriteUnavailable { .. })),
        "{failed:?}"
    );
    assert_eq!(get(&engine, "a").await.unwrap(), old);
    world.check(&engine).await.unwrap();
    world.quiesce(&engine).await;
    world.check(&engine).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_lost_reply_is_looked_at_and_adopted_not_sent_again() {
    for length in [1000, 500_000] {
        let world = World::new(&[None]);
        let engine = world.engine().await;
        world.places[0].memory.reset_calls();
        world.places[0].faults.script("put", Fault::LoseReply);
        put(&engine, "a", &bytes(1, length)).await.unwrap();
        assert_eq!(world.places[0].memory.calls().of("put"), 1);
        assert_eq!(get(&engine, "a").await.unwrap(), bytes(1, length));
        world.check(&engine).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn no_room_is_said_before_the_body_is_polled() {
    let world = World::new(&[Some(1000), Some(1000)]);
    let engine = world.engine().await;
    put(&engine, "a", &bytes(1, 900)).await.unwrap();
    put(&engine, "b", &bytes(1, 900)).await.unwrap();
    let never = Incoming {
        stream: Box::pin(futures_util::stream::poll_fn(|_| panic!("polled"))),
        ..Incoming::from_bytes(bytes(1, 200))
    };
    let refused = engine.put(put_request(photos(&engine), "c"), never).await;
    assert!(
        matches!(
            refused,
            Err(Error::NoRoom {
                wanted: ByteSize(200)
            })
        ),
        "{refused:?}"
    );
    put(&engine, "c", &bytes(1, 100)).await.unwrap();
    world.check(&engine).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_client_that_hangs_up_leaves_nothing_behind() {
    let world = World::new(&[Some(1 << 20)]);
    let engine = world.engine().await;
    let content = bytes(1, 300_000);
    for polls in 0..60 {
        let hung = hang_up_after(polls, put(&engine, "a", &content)).await;
        if let Some(done) = hung {
            done.unwrap();
        }
        world.check(&engine).await.unwrap();
        world.quiesce(&engine).await;
        world.check(&engine).await.unwrap();
        let room = &engine.status().await.unwrap().backends[0].room;
        assert_eq!((room.orphan, room.reserved), (0, 0), "after {polls} polls");
        assert!(room.used == 0 || room.used == 300_000);
    }
}

#[tokio::test(start_paused = true)]
async fn ranges_and_conditions_are_decided_before_any_backend_is_asked() {
    let world = World::new(&[None]);
    let engine = world.engine().await;
    let content = bytes(1, 1000);
    let written = put(&engine, "a", &content).await.unwrap();
    world.places[0].memory.reset_calls();
    let all = read_request(photos(&engine), "a");
    let with = |selection| ReadRequest {
        selection,
        ..all.clone()
    };
    let outside = with(Selection::Range(RangeSpec::From {
        first: 1000,
        last: None,
    }));
    assert!(matches!(
        engine.read(&outside).await,
        Err(Error::InvalidRange { size: 1000 })
    ));
    let known = Some(ETagCondition::Tags(vec![written.etag.clone()]));
    let fresh = ReadRequest {
        conditions: Conditions {
            if_none_match: known,
            ..Conditions::default()
        },
        ..all.clone()
    };
    assert!(matches!(
        engine.read(&fresh).await,
        Err(Error::NotModified { .. })
    ));
    let looked = engine
        .look(&with(Selection::Range(RangeSpec::Suffix { length: 10 })))
        .await
        .unwrap();
    assert_eq!(
        looked.chosen.range,
        ByteRange {
            start: 990,
            length: 10
        }
    );
    assert!(looked.chosen.partial);
    let calls = world.places[0].memory.calls();
    assert_eq!((calls.of("get"), calls.of("head")), (0, 0));
    let middle = with(Selection::Range(RangeSpec::From {
        first: 10,
        last: Some(19),
    }));
    assert_eq!(read(&engine, &middle).await.unwrap(), content.slice(10..20));
}

#[tokio::test(start_paused = true)]
async fn a_body_that_breaks_goes_on_at_the_exact_offset() {
    let world = World::new(&[None]);
    let engine = world.engine().await;
    let content = bytes(1, 2 << 20);
    put(&engine, "a", &content).await.unwrap();
    for fault in [Fault::CutBody, Fault::ShortBody] {
        world.places[0].faults.script("get", fault);
        assert_eq!(get(&engine, "a").await.unwrap(), content, "{fault:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_cuts_each_body_after_one_byte_is_asked_a_few_times_with_pauses() {
    let world = World::new(&[None]);
    let engine = world.engine().await;
    put(&engine, "a", &bytes(1, 2000)).await.unwrap();
    let broken = Rates {
        first_byte: 1000,
        ..Rates::NONE
    };
    world.places[0].faults.set_rates(broken);
    let begun = Instant::now();
    let error = get(&engine, "a").await.unwrap_err();
    assert!(
        matches!(error, engine::Error::ReadUnavailable { .. }),
        "{error}"
    );
    assert_eq!(world.places[0].faults.injected()[&Fault::FirstByte], 4);
    assert!(
        begun.elapsed() >= Duration::from_millis(1300),
        "{:?}",
        begun.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn a_read_under_way_keeps_its_bytes_when_the_object_is_replaced() {
    use futures_util::StreamExt;
    let world = World::new(&[None]);
    let engine = world.engine().await;
    let old = bytes(1, 2 << 20);
    put(&engine, "a", &old).await.unwrap();
    let reading = engine
        .read(&read_request(photos(&engine), "a"))
        .await
        .unwrap();
    put(&engine, "a", &bytes(2, 10)).await.unwrap();
    world.quiesce(&engine).await;
    let mut body = reading.body;
    let mut all = Vec::new();
    while let Some(piece) = body.next().await {
        all.extend_from_slice(&piece.unwrap());
    }
    assert_eq!(all, old);
    drop(body);
    world.quiesce(&engine).await;
    assert_eq!(
        world.places[0].memory.keys().len(),
        2,
        "marker and the new version"
    );
}

#[tokio::test(start_paused = true)]
async fn of_two_conditional_writers_one_wins() {
    let world = World::new(&[None]);
    let engine = world.engine().await;
    let absent = || engine::PutRequest {
        precondition: Precondition::Absent,
        ..put_request(photos(&engine), "lock")
    };
    let (one, two) = (bytes(1, 100), bytes(2, 100));
    let (first, second) = tokio::join!(
        engine.put(absent(), body(&one, 10)),
        engine.put(absent(), body(&two, 10)),
    );
    assert!(first.is_ok() != second.is_ok(), "{first:?} {second:?}");
    let stays = if first.is_ok() { one } else { two };
    assert_eq!(get(&engine, "lock").await.unwrap(), stays);
    world.check(&engine).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn deletes_are_seen_at_once_and_the_bytes_go_later() {
    let world = World::new(&[None]);
    let engine = world.engine().await;
    let photos = photos(&engine);
    for name in ["a", "b", "c"] {
        put(&engine, name, &bytes(1, 100)).await.unwrap();
    }
    let gone = engine
        .remove(photos, key("a"), Precondition::None)
        .await
        .unwrap();
    assert_eq!(gone, DeleteOutcome::Deleted);
    let again = engine
        .remove(photos, key("a"), Precondition::None)
        .await
        .unwrap();
    assert_eq!(again, DeleteOutcome::Absent);
    assert!(matches!(get(&engine, "a").await, Err(Error::NoSuchKey)));
    let many = engine
        .remove_many(photos, vec![key("b"), key("x"), key("c")])
        .await;
    let many: Vec<_> = many.into_iter().map(Result::unwrap).collect();
    use DeleteOutcome::{Absent, Deleted};
    assert_eq!(many, [Deleted, Absent, Deleted]);
    world.check(&engine).await.unwrap();
    assert_eq!(engine.status().await.unwrap().backends[0].room.orphan, 300);
    world.quiesce(&engine).await;
    assert_eq!(world.places[0].memory.keys(), [MARKER_KEY]);
    assert_eq!(engine.status().await.unwrap().backends[0].room.orphan, 0);
}

#[tokio::test(start_paused = true)]
async fn copies_are_native_on_one_backend_and_streamed_between_two() {
    for native in [true, false] {
        let world = World::new(&[Some(400_000), Some(400_000)]);
        let engine = world.engine().await;
        let content = bytes(1, 150_000);
        put(&engine, "a", &content).await.unwrap();
        if !native {
            put(&engine, "filler", &bytes(2, 200_000)).await.unwrap();
        }
        let logs = bucket(&engine, "logs");
        let source = CopySource {
            bucket: photos(&engine),
            key: key("a"),
            conditions: Conditions::default(),
        };
        let headers = ObjectHeaders {
            content_type: Some("text/plain".into()),
            ..ObjectHeaders::default()
        };
        let request = CopyRequest {
            source,
            bucket: logs,
            key: key("b"),
            headers: Taken::Replace(headers.clone()),
            tags: Taken::Keep,
            checksum: None,
            precondition: Precondition::None,
        };
        let copied = engine.copy(request).await.unwrap();
        assert_eq!(copied.etag, ETag::of_body(Md5::of(&content)));
        assert_eq!(
            read(&engine, &read_request(logs, "b")).await.unwrap(),
            content
        );
        assert_eq!(
            engine
                .look(&read_request(logs, "b"))
                .await
                .unwrap()
                .object
                .headers,
            headers
        );
        assert_eq!(world.places[0].memory.calls().of("copy"), u64::from(native));
        world.check(&engine).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_copy_onto_itself_moves_no_byte() {
    let world = World::new(&[None]);
    let engine = world.engine().await;
    let content = bytes(1, 1000);
    put(&engine, "a", &content).await.unwrap();
    world.places[0].memory.reset_calls();
    let photos = photos(&engine);
    let source = CopySource {
        bucket: photos,
        key: key("a"),
        conditions: Conditions::default(),
    };
    let headers = ObjectHeaders {
        user: vec![("k".into(), "v".into())],
        ..ObjectHeaders::default()
    };
    let meta = Taken::Replace(headers.clone());
    let precondition = Precondition::None;
    let request = CopyRequest {
        source,
        bucket: photos,
        key: key("a"),
        headers: meta,
        tags: Taken::Keep,
        checksum: None,
        precondition,
    };
    engine.copy(request).await.unwrap();
    assert_eq!(
        world.places[0]
            .memory
            .calls()
            .by_operation
            .values()
            .sum::<u64>(),
        0
    );
    assert_eq!(
        engine
            .look(&read_request(photos, "a"))
            .await
            .unwrap()
            .object
            .headers,
        headers
    );
    world.quiesce(&engine).await;
    assert_eq!(get(&engine, "a").await.unwrap(), content);
    world.check(&engine).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn everything_survives_a_restart_and_a_crash() {
    let world = World::new(&[None, Some(1 << 20)]);
    let engine = world.engine().await;
    let content = bytes(1, 100_000);
    put(&engine, "a", &content).await.unwrap();
    hang_up_after(6, put(&engine, "b", &content)).await;
    drop(engine);
    let engine = world.engine().await;
    assert_eq!(get(&engine, "a").await.unwrap(), content);
    world.check(&engine).await.unwrap();
    engine.stop().await.unwrap();
    let engine = world.engine().await;
    assert_eq!(get(&engine, "a").await.unwrap(), content);
    world.quiesce(&engine).await;
    world.check(&engine).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_lost_its_marker_is_left_alone() {
    let world = World::new(&[None, None]);
    let engine = world.engine().await;
    put(&engine, "a", &bytes(1, 10)).await.unwrap();
    engine.stop().await.unwrap();
    drop(engine);
    world.places[0].memory.lose(MARKER_KEY);
    let engine = world.engine().await;
    let status = engine.status().await.unwrap();
    assert_eq!(
        status.backends[0].out_of_service,
        Some(OutOfService::MarkerMissing)
    );
    put(&engine, "b", &bytes(2, 10)).await.unwrap();
    assert_eq!(
        world.places[0].memory.keys().len(),
        1,
        "nothing was written to it"
    );
    assert_eq!(world.places[1].memory.keys().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_is_down_does_not_prevent_a_start_and_comes_back() {
    let world = World::new(&[None]);
    world.places[0].faults.set_rates(Rates::DOWN);
    let engine = world.engine().await;
    let down = put(&engine, "a", &bytes(1, 10)).await;
    assert!(
        matches!(down, Err(Error::WriteUnavailable { .. })),
        "{down:?}"
    );
    world.places[0].faults.heal();
    engine.settle(1).await;
    put(&engine, "a", &bytes(1, 10)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_probe_is_kept_and_not_repeated() {
    let world = World::new(&[None]);
    let engine = world.engine().await;
    engine.stop().await.unwrap();
    drop(engine);
    world.places[0].memory.reset_calls();
    let engine = world.engine().await;
    assert_eq!(world.places[0].memory.calls().of("probe"), 0);
    put(&engine, "a", &bytes(1, 10)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_corrupt_source_is_not_copied_as_if_it_were_sound() {
    // One that is compared before its first byte goes out, and one that is found out at its end.
    for length in [200_000, 3 << 20] {
        a_corrupt_source_is_refused(length).await;
    }
}

async fn a_corrupt_source_is_refused(length: usize) {
    let world = World::new(&[None]);
    let engine = world.engine().await;
    put(&engine, "a", &bytes(1, length)).await.unwrap();
    let stored = world.places[0].memory.keys();
    let stored = stored
        .iter()
        .find(|key| key.starts_with("photos/a~"))
        .unwrap();
    assert!(world.places[0].memory.rot(stored));
    let bucket = photos(&engine);
    let source = CopySource {
        bucket,
        key: key("a"),
        conditions: Conditions::default(),
    };
    let (meta, precondition) = (Taken::Keep, Precondition::None);
    let request = CopyRequest {
        source,
        bucket,
        key: key("b"),
        headers: meta,
        tags: Taken::Keep,
        checksum: None,
        precondition,
    };
    let refused = engine.copy(request).await;
    assert!(matches!(refused, Err(Error::Corrupt)), "{refused:?}");
    assert!(matches!(get(&engine, "b").await, Err(Error::NoSuchKey)));
    // The source is known to have no good copy any more; everything else is as it was.
    let found = world.check(&engine).await.unwrap_err();
    assert!(
        found.starts_with("contradictions: [\"an object without a good copy")
            && !found.contains(','),
        "{found}"
    );
}

#[tokio::test(start_paused = true)]
async fn what_an_unmounted_backend_denies_is_not_believed() {
    let world = World::new(&[None]);
    let engine = world.engine().await;
    let content = bytes(1, 10);
    put(&engine, "a", &content).await.unwrap();
    engine.stop().await.unwrap();
    drop(engine);
    let marker = world.places[0].memory.object(MARKER_KEY).unwrap();
    world.places[0].memory.lose(MARKER_KEY);
    let engine = world.engine().await;
    world.places[0].faults.script("get", Fault::Missing);
    let away = get(&engine, "a").await;
    assert!(
        matches!(away, Err(Error::ReadUnavailable { .. })),
        "{away:?}"
    );
    world.places[0].faults.heal();
    world.places[0]
        .memory
        .plant(MARKER_KEY, marker.bytes, ObjectHeaders::default());
    engine.settle(1).await;
    assert_eq!(get(&engine, "a").await.unwrap(), content);
    world.check(&engine).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_copy_that_was_missed_once_is_good_again_when_it_reads() {
    let world = World::new(&[None]);
    let engine = world.engine().await;
    put(&engine, "a", &bytes(1, 10)).await.unwrap();
    world.places[0].faults.script("get", Fault::Missing);
    assert!(get(&engine, "a").await.is_err());
    assert!(
        world.check(&engine).await.is_err(),
        "an object without a good copy"
    );
    assert_eq!(get(&engine, "a").await.unwrap(), bytes(1, 10));
    world.check(&engine).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn displaced_bytes_go_early_when_room_is_needed() {
    let world = World::new(&[Some(1000)]);
    let engine = world.engine().await;
    for seed in 0..5 {
        let content = bytes(seed, 400);
        if let Err(error) = put(&engine, "a", &content).await {
            assert!(matches!(error, Error::NoRoom { .. }), "{error:?}");
            engine.settle(1).await;
            put(&engine, "a", &content).await.unwrap();
        }
        assert_eq!(get(&engine, "a").await.unwrap(), content);
        world.check(&engine).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_first_marker_that_never_arrived_is_written_again() {
    let world = World::new(&[None]);
    for _ in 0..3 {
        world.places[0]
            .faults
            .script("create_marker", Fault::Refuse);
    }
    let engine = world.engine().await;
    assert!(put(&engine, "a", &bytes(1, 10)).await.is_err());
    for _ in 0..3 {
        engine.settle(1).await;
    }
    put(&engine, "a", &bytes(1, 10)).await.unwrap();
}

/// An object of so many bytes of which only the catalogue knows.
async fn claim(world: &World, engine: &Engine, name: &str, size: u64) {
    let store = engine.store();
    let backend = store.backends().await.unwrap()[0].id;
    let (copy, blob) = (CopyId::draw(&world.ids), BlobId::draw(&world.ids));
    let new = NewIntent {
        copy,
        blob,
        key: BackendKey::new(&format!("photos/{name}~{copy}")).unwrap(),
    };
    let room = store.reserve(backend, size).await.unwrap();
    let intent = store.open_intent(new, room).await.unwrap();
    let version = NewVersion {
        bucket: photos(engine),
        key: key(name),
        version: VersionId::draw(&world.ids),
        size,
        etag: ETag::new("e"),
        last_modified: world.clock.now(),
        headers: ObjectHeaders::default(),
        tags: Tags::default(),
        checksum: None,
        parts: Vec::new(),
        content: Content::Written {
            blobs: vec![NewBlob {
                blob,
                size,
                crc64: None,
                copies: vec![NewCopy {
                    copy,
                    etag: None,
                    version: None,
                    crc64: None,
                }],
            }],
            extents: vec![Extent {
                blob,
                offset: 0,
                length: size,
            }],
        },
        precondition: Precondition::None,
    };
    let (verdict, _) = store.commit(version, vec![intent]).await;
    assert!(
        matches!(verdict, Ok(Verdict::Committed { .. })),
        "{verdict:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn what_is_larger_than_a_copy_may_be_is_not_copied_at_once() {
    let world = World::new(&[None]);
    let engine = world.engine().await;
    claim(&world, &engine, "most", COPY_BYTES_MAX).await;
    claim(&world, &engine, "more", COPY_BYTES_MAX + 1).await;
    let photos = photos(&engine);
    let source = |name, etag: Option<&str>| CopySource {
        bucket: photos,
        key: key(name),
        conditions: Conditions {
            if_match: etag.map(|etag| ETagCondition::Tags(vec![ETag::new(etag)])),
            ..Conditions::default()
        },
    };
    let onto = async |to: &str, source: CopySource| {
        let request = CopyRequest {
            source,
            bucket: photos,
            key: key(to),
            headers: Taken::Replace(ObjectHeaders::default()),
            tags: Taken::Keep,
            checksum: None,
            precondition: Precondition::None,
        };
        engine.copy(request).await
    };
    // Onto itself, where no byte moves, as well.
    for to in ["more", "other"] {
        let refused = onto(to, source("more", None)).await;
        assert!(matches!(refused, Err(Error::SourceTooLarge)), "{refused:?}");
        let refused = onto(to, source("more", Some("other"))).await;
        assert!(matches!(refused, Err(Error::PreconditionFailed)));
    }
    onto("most", source("most", None)).await.unwrap();
    let upload = engine
        .create_upload(CreateUpload {
            bucket: photos,
            key: key("a"),
            headers: ObjectHeaders::default(),
            tags: Tags::default(),
            checksum: None,
        })
        .await
        .unwrap();
    let part = PartCopyRequest {
        bucket: photos,
        key: key("a"),
        upload,
        number: 1,
        source: source("more", None),
        range: None,
    };
    let refused = engine.upload_part_copy(part).await;
    assert!(matches!(refused, Err(Error::SourceTooLarge)), "{refused:?}");
}
