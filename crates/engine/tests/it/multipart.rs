//! Multipart uploads: native, over several backends, interrupted.

use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use backend::faulty::Fault;
use backend::{Kind, MARKER_KEY, ObjectBackend as _};
use base::{
    ByteSize, Checksum, ChecksumAlgorithm, ChecksumKind, Conditions, ETag, Hasher, Md5, Md5Hasher,
    ObjectHeaders, Precondition, Tags, UploadId, composite,
};
use bytes::Bytes;
use engine::catalogue::{StoredChecksum, UploadQuery};
use engine::{
    CompleteRequest, CompletedPart, CopyRequest, CopySource, CreateUpload, Declared, Engine, Error,
    Incoming, PartCopyRequest, PartRequest, ReadRequest, Selection, Taken, UploadedPart, Written,
};

use crate::world::{World, body, bytes, get, hang_up_after, key, photos, put, read, read_request};

/// Small parts, so that the tests are quick; the real limit has a test of its own.
pub(crate) const PART: usize = 100_000;

pub(crate) fn world(quotas: &[Option<u64>]) -> World {
    let mut world = World::new(quotas);
    world.settings.part_size_min = ByteSize(1000);
    world
}

pub(crate) async fn create(engine: &Engine, name: &str) -> UploadId {
    let headers = ObjectHeaders {
        content_type: Some("video/mp4".into()),
        ..ObjectHeaders::default()
    };
    let request = CreateUpload {
        bucket: photos(engine),
        key: key(name),
        headers,
        tags: Tags::default(),
        checksum: None,
    };
    engine.create_upload(request).await.unwrap()
}

fn part_request(engine: &Engine, name: &str, upload: UploadId, number: u32) -> PartRequest {
    PartRequest {
        bucket: photos(engine),
        key: key(name),
        upload,
        number,
    }
}

pub(crate) async fn part(
    engine: &Engine,
    name: &str,
    upload: UploadId,
    number: u32,
    content: &Bytes,
) -> engine::Result<UploadedPart> {
    let request = part_request(engine, name, upload, number);
    engine.upload_part(request, body(content, 16 << 10)).await
}

fn listed(parts: &[(u32, ETag)]) -> Vec<CompletedPart> {
    parts
        .iter()
        .map(|(number, etag)| CompletedPart {
            number: *number,
            etag: etag.clone(),
            checksum: None,
        })
        .collect()
}

/// Completes as a client does that names the checksum of each part where the upload has an algorithm.
pub(crate) async fn complete(
    engine: &Engine,
    name: &str,
    upload: UploadId,
    parts: &[(u32, ETag)],
) -> engine::Result<Written> {
    let mut parts = listed(parts);
    let (bucket, name) = (photos(engine), key(name));
    let told = engine.list_parts(bucket, &name, upload, 0, 1000).await;
    if let Ok((record, stored, _)) = told
        && record.checksum.is_some()
    {
        for part in &mut parts {
            let stored = stored.iter().find(|row| row.number == part.number);
            part.checksum = stored.and_then(|row| row.checksum);
        }
    }
    let request = CompleteRequest {
        bucket,
        key: name,
        upload,
        parts,
        checksum: None,
        size: None,
        precondition: Precondition::None,
    };
    engine.complete_upload(request).await
}

pub(crate) fn tag(content: &Bytes) -> ETag {
    ETag::of_body(Md5::of(content))
}

#[tokio::test(start_paused = true)]
async fn parts_out_of_order_become_one_object_without_moving_a_byte() {
    let world = world(&[None]);
    let engine = world.engine().await;
    let upload = create(&engine, "a").await;
    let contents: Vec<Bytes> = (1..=4).map(|n| bytes(n, PART + n as usize)).collect();
    for number in [3, 1, 4, 2, 3] {
        let content = &contents[number - 1];
        let stored = part(&engine, "a", upload, number as u32, content)
            .await
            .unwrap();
        assert_eq!(stored.etag, tag(content));
        world.check(&engine).await.unwrap();
    }
    world.places[0].memory.reset_calls();
    let parts: Vec<_> = contents
        .iter()
        .enumerate()
        .map(|(n, content)| (n as u32 + 1, tag(content)))
        .collect();
    let written = complete(&engine, "a", upload, &parts).await.unwrap();
    let calls = world.places[0].memory.calls();
    assert_eq!(
        (calls.bytes_in, calls.bytes_out),
        (0, 0),
        "Complete moves no bytes"
    );
    assert_eq!(calls.of("complete_upload"), 1);
    let mut md5 = Md5Hasher::new();
    contents
        .iter()
        .for_each(|content| md5.update(&Md5::of(content).0));
    assert_eq!(written.etag, ETag::of_parts(md5.finish(), 4));
    assert_eq!(get(&engine, "a").await.unwrap(), contents.concat());
    let looked = engine
        .look(&read_request(photos(&engine), "a"))
        .await
        .unwrap();
    assert_eq!(
        looked.object.headers.content_type.as_deref(),
        Some("video/mp4")
    );
    for (number, content) in contents.iter().enumerate() {
        let selection = Selection::Part(number as u32 + 1);
        let request = ReadRequest {
            selection,
            ..read_request(photos(&engine), "a")
        };
        assert_eq!(read(&engine, &request).await.unwrap(), content);
    }
    let again = complete(&engine, "a", upload, &parts).await.unwrap();
    assert_eq!(
        again.version, written.version,
        "a retry gets the same answer"
    );
    let other = complete(&engine, "a", upload, &parts[..3]).await;
    assert!(
        matches!(other, Err(Error::InvalidPart { .. })),
        "another list: {other:?}"
    );
    world.check(&engine).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_object_larger_than_any_backend_is_stored_as_extents() {
    let quota = Some(250_000);
    let world = world(&[quota, quota, quota]);
    let engine = world.engine().await;
    let upload = create(&engine, "a").await;
    let contents: Vec<Bytes> = (1..=6).map(|n| bytes(n, PART)).collect();
    for (number, content) in contents.iter().enumerate() {
        part(&engine, "a", upload, number as u32 + 1, content)
            .await
            .unwrap();
        world.check(&engine).await.unwrap();
    }
    let full = part(&engine, "a", upload, 7, &bytes(7, PART)).await;
    assert!(matches!(full, Err(Error::NoRoom { .. })), "{full:?}");
    world
        .places
        .iter()
        .for_each(|place| place.memory.reset_calls());
    let parts: Vec<_> = contents
        .iter()
        .enumerate()
        .map(|(n, content)| (n as u32 + 1, tag(content)))
        .collect();
    complete(&engine, "a", upload, &parts).await.unwrap();
    for place in &world.places {
        let calls = place.memory.calls();
        assert_eq!(
            (calls.bytes_in, calls.bytes_out),
            (0, 0),
            "Complete moves no bytes"
        );
        assert_eq!(calls.of("complete_upload"), 1);
    }
    assert_eq!(get(&engine, "a").await.unwrap(), contents.concat());
    world.check(&engine).await.unwrap();
    engine
        .remove(photos(&engine), key("a"), Precondition::None)
        .await
        .unwrap();
    world.quiesce(&engine).await;
    world.check(&engine).await.unwrap();
    assert!(
        engine
            .status()
            .await
            .unwrap()
            .backends
            .iter()
            .all(|b| b.room.used + b.room.orphan == 0)
    );
}

/// A list of parts, and how its refusal looks.
type Refused<'a> = (&'a [(u32, ETag)], fn(&Error) -> bool);

#[tokio::test(start_paused = true)]
async fn wrong_lists_are_refused_and_leave_the_upload_open() {
    let world = world(&[None]);
    let engine = world.engine().await;
    let upload = create(&engine, "a").await;
    let (one, two, tiny) = (bytes(1, PART), bytes(2, PART), bytes(3, 10));
    part(&engine, "a", upload, 1, &one).await.unwrap();
    part(&engine, "a", upload, 2, &two).await.unwrap();
    part(&engine, "a", upload, 3, &tiny).await.unwrap();
    part(&engine, "a", upload, 4, &tiny).await.unwrap();
    let lists: [Refused; 5] = [
        (&[(2, tag(&two)), (1, tag(&one))], |e| {
            matches!(e, Error::InvalidPartOrder)
        }),
        (&[(1, tag(&one)), (1, tag(&one))], |e| {
            matches!(e, Error::InvalidPartOrder)
        }),
        (&[(1, tag(&two))], |e| {
            matches!(e, Error::InvalidPart { number: 1 })
        }),
        (&[(9, tag(&two))], |e| {
            matches!(e, Error::InvalidPart { number: 9 })
        }),
        (&[(3, tag(&tiny)), (4, tag(&tiny))], |e| {
            matches!(e, Error::PartTooSmall { number: 3, .. })
        }),
    ];
    for (list, expected) in lists {
        let refused = complete(&engine, "a", upload, list).await.unwrap_err();
        assert!(expected(&refused), "{refused:?}");
        world.check(&engine).await.unwrap();
    }
    let other = complete(&engine, "b", upload, &[(1, tag(&one))]).await;
    assert!(
        matches!(other, Err(Error::NoSuchUpload)),
        "another key's upload: {other:?}"
    );
    complete(&engine, "a", upload, &[(1, tag(&one)), (4, tag(&tiny))])
        .await
        .unwrap();
    assert_eq!(get(&engine, "a").await.unwrap(), [one, tiny].concat());
    world.quiesce(&engine).await;
    world.check(&engine).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_aborted_or_stale_upload_gives_everything_back() {
    for stale in [false, true] {
        let world = world(&[Some(1 << 20), Some(1 << 20)]);
        let engine = world.engine().await;
        let upload = create(&engine, "a").await;
        for number in 1..=8 {
            part(&engine, "a", upload, number, &bytes(1, PART + 50_000))
                .await
                .unwrap();
        }
        match stale {
            false => engine
                .abort_upload(photos(&engine), &key("a"), upload)
                .await
                .unwrap(),
            true => world.clock.advance_ms(25 * 3600 * 1000),
        }
        world.quiesce(&engine).await;
        world.check(&engine).await.unwrap();
        let gone = part(&engine, "a", upload, 1, &bytes(1, 10)).await;
        assert!(matches!(gone, Err(Error::NoSuchUpload)), "{gone:?}");
        for (place, status) in world
            .places
            .iter()
            .zip(engine.status().await.unwrap().backends)
        {
            assert!(place.memory.uploads().is_empty());
            let room = status.room;
            assert_eq!((room.used, room.orphan, room.reserved), (0, 0, 0));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_complete_of_unknown_outcome_is_settled_by_a_look() {
    let world = world(&[None]);
    let engine = world.engine().await;
    let content = bytes(1, PART);
    for (name, fault) in [("a", Fault::LoseReply), ("b", Fault::Refuse)] {
        let upload = create(&engine, name).await;
        part(&engine, name, upload, 1, &content).await.unwrap();
        world.places[0].faults.script("complete_upload", fault);
        let first = complete(&engine, name, upload, &[(1, tag(&content))]).await;
        match fault {
            Fault::LoseReply => assert!(first.is_ok(), "{first:?}"),
            _ => {
                assert!(
                    matches!(first, Err(Error::WriteUnavailable { .. })),
                    "{first:?}"
                );
                complete(&engine, name, upload, &[(1, tag(&content))])
                    .await
                    .unwrap();
            }
        }
        assert_eq!(get(&engine, name).await.unwrap(), content);
        world.check(&engine).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn an_odd_reply_to_a_complete_keeps_the_parts() {
    let world = world(&[None]);
    let engine = world.engine().await;
    let content = bytes(1, PART);
    let odd = [
        Kind::Rejected,
        Kind::Unsupported,
        Kind::Denied,
        Kind::NotFound,
        Kind::Precondition,
        // Even by name: the provider's own list of parts has to agree.
        Kind::InvalidPart,
        Kind::NoSuchUpload,
    ];
    for kind in odd {
        let upload = create(&engine, "a").await;
        part(&engine, "a", upload, 1, &content).await.unwrap();
        let faults = &world.places[0].faults;
        faults.script("complete_upload", Fault::Reply(kind));
        let parts = [(1, tag(&content))];
        let refused = complete(&engine, "a", upload, &parts).await;
        assert!(
            matches!(refused, Err(Error::WriteUnavailable { .. })),
            "{kind:?}: {refused:?}"
        );
        complete(&engine, "a", upload, &parts).await.unwrap();
        assert_eq!(get(&engine, "a").await.unwrap(), content, "{kind:?}");
    }
    // What was refused for good is open again: it may be aborted.
    let upload = create(&engine, "b").await;
    part(&engine, "b", upload, 1, &content).await.unwrap();
    let faults = &world.places[0].faults;
    faults.script("complete_upload", Fault::Reply(Kind::Rejected));
    let refused = complete(&engine, "b", upload, &[(1, tag(&content))]).await;
    assert!(refused.is_err());
    engine
        .abort_upload(photos(&engine), &key("b"), upload)
        .await
        .unwrap();
    world.quiesce(&engine).await;
    world.check(&engine).await.unwrap();
}

/// A client that writes one key and deletes another after the Complete of both had failed: the worker and a
/// restart change neither. Then it sends each Complete again, which succeeds; what "put" holds by then.
async fn newer_state_stays(fault: Fault) -> Bytes {
    let world = world(&[None]);
    let mut engine = world.engine().await;
    let faults = &world.places[0].faults;
    let (old, new) = (bytes(1, PART), bytes(2, 1000));
    let parts = [(1, tag(&old))];
    let mut uploads = Vec::new();
    for name in ["put", "deleted", "put and deleted"] {
        let upload = create(&engine, name).await;
        part(&engine, name, upload, 1, &old).await.unwrap();
        faults.script("complete_upload", fault);
        let failed = complete(&engine, name, upload, &parts).await;
        assert!(failed.is_err(), "{failed:?}");
        if name != "deleted" {
            put(&engine, name, &new).await.unwrap();
        }
        if name != "put" {
            let removed = engine.remove(photos(&engine), key(name), Precondition::None);
            removed.await.unwrap();
        }
        uploads.push((name, upload));
    }
    for _ in 0..2 {
        faults.land().await;
        engine.settle(3).await;
        assert_eq!(get(&engine, "put").await.unwrap(), new, "{fault:?}");
        for name in ["deleted", "put and deleted"] {
            let found = get(&engine, name).await;
            assert!(matches!(found, Err(Error::NoSuchKey)), "{fault:?} {name}");
        }
        drop(engine);
        engine = world.engine().await;
    }
    for (name, upload) in uploads {
        complete(&engine, name, upload, &parts).await.unwrap();
    }
    world.quiesce(&engine).await;
    world.check(&engine).await.unwrap();
    get(&engine, "put").await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_complete_that_was_refused_is_not_carried_out_over_newer_state() {
    // Nothing happened: the client's next Complete is a new one, with the same parts.
    let held = newer_state_stays(Fault::Reply(Kind::Throttled)).await;
    assert_eq!(held, bytes(1, PART));
    // An upload whose Complete was refused may be aborted.
    let world = world(&[None]);
    let engine = world.engine().await;
    let content = bytes(1, PART);
    let upload = create(&engine, "a").await;
    part(&engine, "a", upload, 1, &content).await.unwrap();
    let refused = Fault::Reply(Kind::Throttled);
    world.places[0].faults.script("complete_upload", refused);
    let parts = [(1, tag(&content))];
    complete(&engine, "a", upload, &parts).await.unwrap_err();
    engine.settle(3).await;
    assert!(matches!(get(&engine, "a").await, Err(Error::NoSuchKey)));
    engine
        .abort_upload(photos(&engine), &key("a"), upload)
        .await
        .unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_complete_of_unknown_outcome_does_not_displace_newer_state() {
    for fault in [Fault::Late, Fault::Cut] {
        // It is as if it had happened and been overwritten at once.
        let held = newer_state_stays(fault).await;
        assert_eq!(held, bytes(2, 1000), "{fault:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_interrupted_complete_is_taken_up_after_a_restart() {
    for polls in 1..40 {
        let world = world(&[Some(250_000), Some(250_000)]);
        let engine = world.engine().await;
        let upload = create(&engine, "a").await;
        let contents: Vec<Bytes> = (1..=4).map(|n| bytes(n, PART)).collect();
        for (number, content) in contents.iter().enumerate() {
            part(&engine, "a", upload, number as u32 + 1, content)
                .await
                .unwrap();
        }
        let parts: Vec<_> = contents
            .iter()
            .enumerate()
            .map(|(n, c)| (n as u32 + 1, tag(c)))
            .collect();
        let done = hang_up_after(polls, complete(&engine, "a", upload, &parts)).await;
        drop(engine);
        let engine = world.engine().await;
        world.check(&engine).await.unwrap();
        if done.is_none() {
            complete(&engine, "a", upload, &parts).await.unwrap();
        }
        assert_eq!(
            get(&engine, "a").await.unwrap(),
            contents.concat(),
            "{polls} polls"
        );
        world.quiesce(&engine).await;
        world.check(&engine).await.unwrap();
        assert!(
            world
                .places
                .iter()
                .all(|place| place.memory.uploads().is_empty())
        );
        if done.is_some() {
            break;
        }
    }
}

/// An upload of two parts, its list, and the two parts in one.
async fn two_parts(engine: &Engine, name: &str) -> (UploadId, Vec<(u32, ETag)>, Bytes) {
    let upload = create(engine, name).await;
    let contents: Vec<Bytes> = (1..=2).map(|n| bytes(n, PART)).collect();
    for (number, content) in (1..).zip(&contents) {
        part(engine, name, upload, number, content).await.unwrap();
    }
    let parts = (1..).zip(contents.iter().map(tag)).collect();
    (upload, parts, contents.concat().into())
}

/// Puts these bytes where an assembled object lies.
fn plant_assembled(world: &World, content: &Bytes) {
    let memory = &world.places[0].memory;
    let keys = memory.keys();
    let assembled = keys.iter().find(|key| key.starts_with("photos/")).unwrap();
    memory.plant(assembled, content.clone(), ObjectHeaders::default());
}

#[tokio::test(start_paused = true)]
async fn an_assembly_that_its_own_entity_tag_contradicts_is_not_acknowledged() {
    let world = world(&[None]);
    let engine = world.engine().await;
    let (upload, parts, whole) = two_parts(&engine, "a").await;
    world.places[0].memory.misassemble();
    // However often a client asks at once: a cache may be stale for a while.
    for _ in 0..5 {
        let error = complete(&engine, "a", upload, &parts).await.unwrap_err();
        assert!(matches!(error, Error::WriteUnavailable { .. }), "{error}");
        assert!(matches!(get(&engine, "a").await, Err(Error::NoSuchKey)));
    }
    tokio::time::sleep(Duration::from_secs(600)).await;
    let error = complete(&engine, "a", upload, &parts).await.unwrap_err();
    assert!(matches!(error, Error::InvalidPart { .. }), "{error}");
    assert!(matches!(get(&engine, "a").await, Err(Error::NoSuchKey)));
    // Its parts went with the assembly; a client that sends them again has its object.
    for (number, content) in [(1, whole.slice(..PART)), (2, whole.slice(PART..))] {
        part(&engine, "a", upload, number, &content).await.unwrap();
    }
    complete(&engine, "a", upload, &parts).await.unwrap();
    assert_eq!(get(&engine, "a").await.unwrap(), whole);
    world.quiesce(&engine).await;
    world.check(&engine).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_assembly_that_reads_as_other_bytes_once_costs_no_part() {
    for by_worker in [false, true] {
        let world = world(&[None]);
        let engine = world.engine().await;
        let (upload, parts, whole) = two_parts(&engine, "a").await;
        world.places[0].memory.misassemble();
        let error = complete(&engine, "a", upload, &parts).await.unwrap_err();
        assert!(matches!(error, Error::WriteUnavailable { .. }), "{error}");
        // It is even denied for a moment, and the provider has no upload any more, as it has been assembled.
        world.places[0].faults.script("head", Fault::Missing);
        let error = complete(&engine, "a", upload, &parts).await.unwrap_err();
        assert!(matches!(error, Error::WriteUnavailable { .. }), "{error}");
        plant_assembled(&world, &whole);
        match by_worker {
            false => drop(complete(&engine, "a", upload, &parts).await.unwrap()),
            true => engine.settle(1).await,
        }
        assert_eq!(get(&engine, "a").await.unwrap(), whole);
        world.quiesce(&engine).await;
        world.check(&engine).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_part_copy_is_native_or_streamed_and_the_same_bytes() {
    for checksum in [
        None,
        Some((ChecksumAlgorithm::Crc32, ChecksumKind::Composite)),
    ] {
        let world = world(&[None]);
        let engine = world.engine().await;
        let source = bytes(1, 300_000);
        put(&engine, "source", &source).await.unwrap();
        let headers = ObjectHeaders::default();
        let request = CreateUpload {
            bucket: photos(&engine),
            key: key("a"),
            headers,
            tags: Tags::default(),
            checksum,
        };
        let upload = engine.create_upload(request).await.unwrap();
        let copy = |number, range| PartCopyRequest {
            bucket: photos(&engine),
            key: key("a"),
            upload,
            number,
            source: CopySource {
                bucket: photos(&engine),
                key: key("source"),
                conditions: Conditions::default(),
            },
            range,
        };
        let range = base::RangeSpec::From {
            first: 100,
            last: Some(99_999),
        };
        let first = engine.upload_part_copy(copy(1, None)).await.unwrap();
        let second = engine.upload_part_copy(copy(2, Some(range))).await.unwrap();
        assert_eq!(first.etag, tag(&source));
        assert_eq!(second.etag, tag(&source.slice(100..100_000)));
        let native = world.places[0].memory.calls().of("upload_part_copy");
        assert_eq!(native, if checksum.is_none() { 2 } else { 0 });
        complete(&engine, "a", upload, &[(1, first.etag), (2, second.etag)])
            .await
            .unwrap();
        let expected = [source.clone(), source.slice(100..100_000)].concat();
        assert_eq!(get(&engine, "a").await.unwrap(), expected);
        world.check(&engine).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_native_part_copy_that_fails_is_streamed() {
    let faults = [
        Fault::Refuse,
        Fault::Cut,
        Fault::LoseReply,
        Fault::Late,
        Fault::Full,
    ];
    for fault in faults {
        let world = world(&[None]);
        let engine = world.engine().await;
        let source = bytes(1, 300_000);
        put(&engine, "source", &source).await.unwrap();
        let upload = create(&engine, "a").await;
        world.places[0].faults.script("upload_part_copy", fault);
        let request = PartCopyRequest {
            bucket: photos(&engine),
            key: key("a"),
            upload,
            number: 1,
            source: CopySource {
                bucket: photos(&engine),
                key: key("source"),
                conditions: Conditions::default(),
            },
            range: None,
        };
        let made = engine.upload_part_copy(request).await.unwrap();
        assert_eq!(made.etag, tag(&source), "{fault:?}");
        // The native copy may land after the streamed one.
        world.places[0].faults.land().await;
        complete(&engine, "a", upload, &[(1, made.etag)])
            .await
            .unwrap();
        assert_eq!(get(&engine, "a").await.unwrap(), source, "{fault:?}");
        world.quiesce(&engine).await;
        world.check(&engine).await.unwrap();
    }
}

fn sum(algorithm: ChecksumAlgorithm, content: &[u8]) -> Checksum {
    let mut hasher = Hasher::new(algorithm);
    hasher.update(content);
    hasher.finish()
}

#[tokio::test(start_paused = true)]
async fn checksums_of_parts_become_the_checksum_of_the_object() {
    let world = world(&[None]);
    let engine = world.engine().await;
    let contents = [bytes(1, PART), bytes(2, PART)];
    for (algorithm, kind) in [
        (ChecksumAlgorithm::Crc32, ChecksumKind::Composite),
        (ChecksumAlgorithm::Sha256, ChecksumKind::Composite),
        (ChecksumAlgorithm::Crc64Nvme, ChecksumKind::FullObject),
        (ChecksumAlgorithm::Crc32c, ChecksumKind::FullObject),
    ] {
        let headers = ObjectHeaders::default();
        let checksum = Some((algorithm, kind));
        let request = CreateUpload {
            bucket: photos(&engine),
            key: key("a"),
            headers,
            tags: Tags::default(),
            checksum,
        };
        let upload = engine.create_upload(request).await.unwrap();
        let mut parts = Vec::new();
        for (number, content) in (1..).zip(&contents) {
            let declared = Declared {
                checksum: Some(sum(algorithm, content)),
                ..Declared::default()
            };
            let incoming = Incoming {
                declared,
                ..body(content, 10_000)
            };
            let request = part_request(&engine, "a", upload, number);
            let stored = engine.upload_part(request, incoming).await.unwrap();
            assert_eq!(stored.checksum, Some(sum(algorithm, content)));
            parts.push((number, stored.etag));
        }
        let written = complete(&engine, "a", upload, &parts).await.unwrap();
        let expected = match kind {
            ChecksumKind::FullObject => sum(algorithm, &contents.concat()),
            ChecksumKind::Composite => {
                let sums = contents
                    .iter()
                    .map(|content| sum(algorithm, content))
                    .collect::<Vec<_>>();
                composite(algorithm, &sums)
            }
        };
        let found = written.checksum.unwrap();
        assert_eq!((found.checksum, found.kind), (expected, kind));
    }
}

#[tokio::test(start_paused = true)]
async fn a_bucket_has_no_more_open_uploads_than_it_may() {
    let mut world = world(&[None]);
    world.settings.buckets[0].1 = Some(2);
    let engine = world.engine().await;
    let first = create(&engine, "a").await;
    create(&engine, "b").await;
    let request = CreateUpload {
        bucket: photos(&engine),
        key: key("c"),
        headers: ObjectHeaders::default(),
        tags: Tags::default(),
        checksum: None,
    };
    let third = engine.create_upload(request.clone()).await;
    assert!(matches!(third, Err(Error::TooManyUploads)), "{third:?}");
    engine
        .abort_upload(photos(&engine), &key("a"), first)
        .await
        .unwrap();
    engine.create_upload(request).await.unwrap();
    let query = UploadQuery {
        bucket: photos(&engine),
        prefix: String::new(),
        delimiter: None,
        after: None,
        max_entries: 10,
    };
    assert_eq!(engine.list_uploads(&query).await.unwrap().entries.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_leg_that_was_assembled_of_other_parts_is_not_taken_for_these() {
    let world = world(&[None]);
    let engine = world.engine().await;
    let upload = create(&engine, "a").await;
    let contents: Vec<Bytes> = (1..=3).map(|n| bytes(n, PART)).collect();
    for (number, content) in (1..).zip(&contents) {
        part(&engine, "a", upload, number, content).await.unwrap();
    }
    let list = |numbers: [u32; 2]| numbers.map(|n| (n, tag(&contents[n as usize - 1])));
    let refused = CompleteRequest {
        bucket: photos(&engine),
        key: key("a"),
        upload,
        parts: listed(&list([1, 2])),
        checksum: None,
        size: None,
        precondition: Precondition::Absent,
    };
    // The other writer commits between the early look at the condition and the commit: the
    // backend is silent meanwhile, so that this is certain.
    world.places[0]
        .faults
        .script("complete_upload", Fault::LoseReply);
    let winner = bytes(9, 10);
    let (lost, won) = tokio::join!(engine.complete_upload(refused), put(&engine, "a", &winner));
    assert!(matches!(lost, Err(Error::PreconditionFailed)), "{lost:?}");
    won.unwrap();
    let other = complete(&engine, "a", upload, &list([1, 3])).await;
    assert!(
        matches!(other, Err(Error::WriteUnavailable { .. })),
        "{other:?}"
    );
    assert_eq!(get(&engine, "a").await.unwrap(), winner);
    // The list that it was assembled of can still be completed.
    complete(&engine, "a", upload, &list([1, 2])).await.unwrap();
    assert_eq!(get(&engine, "a").await.unwrap(), contents[..2].concat());
    world.quiesce(&engine).await;
    world.check(&engine).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_backend_without_its_mount_is_not_asked_for_its_parts() {
    let world = world(&[None]);
    let engine = world.engine().await;
    let upload = create(&engine, "a").await;
    let content = bytes(1, PART);
    part(&engine, "a", upload, 1, &content).await.unwrap();
    engine.stop().await.unwrap();
    drop(engine);
    let marker = world.places[0].memory.object(MARKER_KEY).unwrap();
    world.places[0].memory.lose(MARKER_KEY);
    let engine = world.engine().await;
    let away = complete(&engine, "a", upload, &[(1, tag(&content))]).await;
    assert!(
        matches!(away, Err(Error::WriteUnavailable { .. })),
        "{away:?}"
    );
    world.places[0]
        .memory
        .plant(MARKER_KEY, marker.bytes, ObjectHeaders::default());
    engine.settle(1).await;
    complete(&engine, "a", upload, &[(1, tag(&content))])
        .await
        .unwrap();
    assert_eq!(get(&engine, "a").await.unwrap(), content);
}

#[tokio::test(start_paused = true)]
async fn a_copy_of_parts_has_the_checksum_of_all_its_bytes() {
    let world = world(&[None]);
    let engine = world.engine().await;
    let bucket = photos(&engine);
    let copy = |to: &str, checksum| CopyRequest {
        source: CopySource {
            bucket,
            key: key("a"),
            conditions: Conditions::default(),
        },
        bucket,
        key: key(to),
        headers: Taken::Keep,
        tags: Taken::Keep,
        checksum,
        precondition: Precondition::None,
    };
    for algorithm in [ChecksumAlgorithm::Crc32, ChecksumAlgorithm::Sha256] {
        let request = CreateUpload {
            bucket,
            key: key("a"),
            headers: ObjectHeaders::default(),
            tags: Tags::default(),
            checksum: Some((algorithm, ChecksumKind::Composite)),
        };
        let upload = engine.create_upload(request).await.unwrap();
        let contents = [bytes(1, PART), bytes(2, 1000)];
        let mut parts = Vec::new();
        for (number, content) in (1..).zip(&contents) {
            part(&engine, "a", upload, number, content).await.unwrap();
            parts.push((number, tag(content)));
        }
        let written = complete(&engine, "a", upload, &parts).await.unwrap();
        let whole = contents.concat();
        let native = world.places[0].memory.calls().of("copy");
        let copied = engine.copy(copy("b", None)).await.unwrap();
        // Sums can be combined; a hash has to be computed from the bytes.
        let combined = u64::from(algorithm == ChecksumAlgorithm::Crc32);
        assert_eq!(world.places[0].memory.calls().of("copy"), native + combined);
        let expected = StoredChecksum::full_object(sum(algorithm, &whole));
        assert_eq!((copied.checksum, copied.parts), (Some(expected), None));
        let other = ChecksumAlgorithm::Crc32c;
        let copied = engine.copy(copy("b", Some(other))).await.unwrap();
        let expected = StoredChecksum::full_object(sum(other, &whole));
        assert_eq!(copied.checksum, Some(expected));
        // Onto itself no byte moves, and the parts stay.
        let itself = engine.copy(copy("a", Some(algorithm))).await.unwrap();
        assert_eq!((itself.checksum, itself.parts), (written.checksum, Some(2)));
        let itself = engine.copy(copy("a", None)).await.unwrap();
        assert_eq!((itself.checksum, itself.parts), (written.checksum, Some(2)));
        let itself = engine.copy(copy("a", Some(other))).await.unwrap();
        assert_eq!((itself.checksum, itself.parts), (Some(expected), None));
    }
}

#[tokio::test(start_paused = true)]
async fn no_leg_outgrows_the_largest_object_of_its_backend() {
    let mut world = world(&[None, None]);
    world.settings.backends[0].max_object_size = Some(ByteSize(250_000));
    let engine = world.engine().await;
    let upload = create(&engine, "a").await;
    let contents: Vec<Bytes> = (1..=4).map(|n| bytes(n, PART)).collect();
    let mut parts = Vec::new();
    for (number, content) in (1..).zip(&contents) {
        part(&engine, "a", upload, number, content).await.unwrap();
        parts.push((number, tag(content)));
    }
    complete(&engine, "a", upload, &parts).await.unwrap();
    assert_eq!(get(&engine, "a").await.unwrap(), contents.concat());
    let memory = &world.places[0].memory;
    let largest = memory
        .keys()
        .iter()
        .map(|key| memory.object(key).unwrap().bytes.len())
        .max();
    assert_eq!(largest, Some(200_000));
}

#[tokio::test(start_paused = true)]
async fn an_upload_that_its_backend_forgot_goes_on_with_a_new_leg() {
    let world = world(&[None]);
    let engine = world.engine().await;
    let upload = create(&engine, "a").await;
    let content = bytes(1, PART);
    part(&engine, "a", upload, 1, &content).await.unwrap();
    let forgotten = world.places[0].memory.uploads().remove(0);
    let place = base::BackendKey::new(&forgotten.key).unwrap();
    world.places[0]
        .memory
        .abort_upload(&place, &forgotten.upload)
        .await
        .unwrap();
    let missing = complete(&engine, "a", upload, &[(1, tag(&content))]).await;
    assert!(
        matches!(missing, Err(Error::InvalidPart { number: 1 })),
        "{missing:?}"
    );
    part(&engine, "a", upload, 1, &content).await.unwrap();
    complete(&engine, "a", upload, &[(1, tag(&content))])
        .await
        .unwrap();
    assert_eq!(get(&engine, "a").await.unwrap(), content);
    world.quiesce(&engine).await;
    world.check(&engine).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_upload_that_no_full_backend_takes_finds_no_room() {
    let world = world(&[None, None]);
    let engine = world.engine().await;
    let request = || CreateUpload {
        bucket: photos(&engine),
        key: key("a"),
        headers: ObjectHeaders::default(),
        tags: Tags::default(),
        checksum: None,
    };
    world.places[0].faults.script("create_upload", Fault::Full);
    // Another one has room.
    engine.create_upload(request()).await.unwrap();
    for place in &world.places {
        place.faults.script("create_upload", Fault::Full);
    }
    let refused = engine.create_upload(request()).await;
    assert!(matches!(refused, Err(Error::NoRoom { .. })), "{refused:?}");
    for place in &world.places {
        place.faults.heal();
    }
    world.quiesce(&engine).await;
    world.check(&engine).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_complete_that_meets_an_abort_finds_no_upload() {
    let world = world(&[None]);
    let engine = world.engine().await;
    let content = bytes(1, PART);
    let mut aborted = 0;
    for polls in 0..40 {
        let upload = create(&engine, "a").await;
        part(&engine, "a", upload, 1, &content).await.unwrap();
        let parts = [(1, tag(&content))];
        let complete = complete(&engine, "a", upload, &parts);
        let mut complete = std::pin::pin!(complete);
        // So far, and then the other one is done before it goes on.
        let ended = hang_up_after(polls, complete.as_mut()).await;
        let abort = engine
            .abort_upload(photos(&engine), &key("a"), upload)
            .await;
        let ended = match ended {
            Some(ended) => ended,
            None => complete.await,
        };
        match (ended, abort) {
            (Ok(_), Err(Error::Conflict | Error::NoSuchUpload)) => {}
            (Err(Error::NoSuchUpload), Ok(())) => aborted += 1,
            other => panic!("after {polls} polls: {other:?}"),
        }
        world.check(&engine).await.unwrap();
    }
    assert!(aborted > 0, "{aborted}");
}

#[tokio::test(start_paused = true)]
async fn a_complete_waits_for_the_same_one_and_has_its_answer() {
    let world = world(&[None]);
    let engine = world.engine().await;
    let content = bytes(1, PART);
    for polls in 0..40 {
        let upload = create(&engine, "a").await;
        part(&engine, "a", upload, 1, &content).await.unwrap();
        let parts = [(1, tag(&content))];
        let again = || complete(&engine, "a", upload, &parts);
        let mut first = Box::pin(again());
        let ended = hang_up_after(polls, first.as_mut()).await;
        let rest = async {
            match ended {
                Some(ended) => ended,
                None => first.await,
            }
        };
        let (first, second, third) = tokio::join!(rest, again(), again());
        let first = first.unwrap();
        assert_eq!(second.unwrap(), first, "after {polls} polls");
        assert_eq!(third.unwrap(), first, "after {polls} polls");
        world.check(&engine).await.unwrap();
    }
}

/// Whether a future, polled once, is not ready.
async fn waits<F: Future>(mut future: Pin<&mut F>) -> bool {
    std::future::poll_fn(|context| Poll::Ready(future.as_mut().poll(context).is_pending())).await
}

#[tokio::test(start_paused = true)]
async fn of_two_equal_completes_either_may_hang_up() {
    let world = world(&[None]);
    let engine = world.engine().await;
    let content = bytes(1, PART);
    for polls in 1..40 {
        let upload = create(&engine, "a").await;
        part(&engine, "a", upload, 1, &content).await.unwrap();
        let parts = [(1, tag(&content))];
        let again = || complete(&engine, "a", upload, &parts);
        let mut first = Box::pin(again());
        if hang_up_after(polls, first.as_mut()).await.is_some() {
            break;
        }
        // One that waits goes, and leaves nothing.
        assert!(waits(Box::pin(again()).as_mut()).await, "{polls}");
        let mut second = Box::pin(again());
        assert!(waits(second.as_mut()).await, "{polls}");
        // The one that is at work goes, and who waits takes over.
        drop(first);
        let written = second.await.unwrap();
        assert_eq!(again().await.unwrap(), written, "after {polls} polls");
        world.check(&engine).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_complete_does_not_wait_for_the_same_one_for_ever() {
    let world = world(&[None]);
    let engine = world.engine().await;
    let content = bytes(1, PART);
    let upload = create(&engine, "a").await;
    part(&engine, "a", upload, 1, &content).await.unwrap();
    let parts = [(1, tag(&content))];
    let again = || complete(&engine, "a", upload, &parts);
    // It has begun and gets no further.
    let mut first = Box::pin(again());
    assert!(hang_up_after(2, first.as_mut()).await.is_none());
    let second = again().await;
    assert!(matches!(second, Err(Error::TimedOut { .. })), "{second:?}");
    let first = first.await.unwrap();
    assert_eq!(again().await.unwrap(), first);
}

#[tokio::test(start_paused = true)]
async fn only_so_many_completes_wait_for_the_same_one() {
    const MANY: usize = 100;
    let world = world(&[None]);
    let engine = world.engine().await;
    let content = bytes(1, PART);
    let upload = create(&engine, "a").await;
    part(&engine, "a", upload, 1, &content).await.unwrap();
    let parts = [(1, tag(&content))];
    let again = || complete(&engine, "a", upload, &parts);
    let mut first = Box::pin(again());
    assert!(hang_up_after(2, first.as_mut()).await.is_none());
    let mut waiting = Vec::new();
    let mut refused = 0;
    for _ in 0..MANY {
        let mut one = Box::pin(again());
        match hang_up_after(1, one.as_mut()).await {
            None => waiting.push(one),
            Some(Err(Error::TimedOut { .. })) => refused += 1,
            Some(other) => panic!("{other:?}"),
        }
    }
    assert!(refused >= MANY / 2, "{refused}");
    // Who hangs up makes room.
    drop(waiting.pop());
    let mut one = Box::pin(again());
    assert!(waits(one.as_mut()).await);
    waiting.push(one);
    let first = first.await.unwrap();
    for one in waiting {
        assert_eq!(one.await.unwrap(), first);
    }
}

#[tokio::test]
async fn a_complete_waits_for_the_same_one_on_another_instance() {
    let mut world = World::on_postgres(&[None], 7);
    world.settings.part_size_min = ByteSize(1000);
    let (one, two) = (world.engine().await, world.engine().await);
    let content = bytes(1, PART);
    let mut waited = 0;
    for polls in 0..12 {
        let upload = create(&one, "a").await;
        part(&one, "a", upload, 1, &content).await.unwrap();
        let parts = [(1, tag(&content))];
        let mut first = Box::pin(complete(&one, "a", upload, &parts));
        let ended = hang_up_after(polls, first.as_mut()).await;
        let mut second = Box::pin(complete(&two, "a", upload, &parts));
        // The first is held back until the second has looked.
        let early = tokio::time::timeout(Duration::from_millis(50), &mut second).await;
        waited += u32::from(early.is_err());
        let rest = async {
            match ended {
                Some(ended) => ended,
                None => first.await,
            }
        };
        let late = async {
            match early {
                Ok(early) => early,
                Err(_) => second.await,
            }
        };
        let (first, second) = tokio::join!(rest, late);
        assert_eq!(second.unwrap(), first.unwrap(), "after {polls} polls");
    }
    assert!(waited > 0, "the second never had to wait");
    world.check(&one).await.unwrap();
}
