//! A restored catalogue must not destroy what it has forgotten.

use std::fs;
use std::sync::Arc;

use backend::faulty::{Fault, FaultyBackend};
use backend::{MARKER_KEY, ObjectBackend as _};
use base::{ObjectHeaders, Precondition, Tags};
use bytes::Bytes;
use engine::{BackendKind, CustomBackend, Engine, Error, OutOfService, StartError};

use crate::world::{World, bytes, get, key, photos, put, put_request};

/// Puts the backup in the place of the catalogue, as an operator would.
fn restore(world: &World, backup: &std::path::Path) {
    let catalogue = world.file();
    let directory = catalogue.parent().unwrap();
    let name = catalogue.file_name().unwrap().to_str().unwrap().to_owned();
    for entry in fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        if entry.file_name().to_str().unwrap().starts_with(&name) {
            fs::remove_file(entry.path()).unwrap();
        }
    }
    fs::copy(backup, catalogue).unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_older_catalogue_deletes_nothing_until_it_has_adopted_what_it_forgot() {
    let world = World::new(&[None, None]);
    let engine = world.engine().await;
    let (old, newer, kept) = (bytes(1, 1000), bytes(2, 100_000), bytes(3, 10));
    put(&engine, "a", &old).await.unwrap();
    put(&engine, "kept", &kept).await.unwrap();
    let backup = world.file().with_extension("backup");
    Engine::backup_catalogue(&world.settings.catalogue, &backup, &world.ids)
        .await
        .unwrap();
    world.clock.advance_ms(60_000);
    put(&engine, "a", &newer).await.unwrap();
    put(&engine, "odd//key", &newer).await.unwrap();
    let mut request = put_request(photos(&engine), "meta");
    request.headers = ObjectHeaders {
        user: vec![("k".into(), "v".into())],
        ..ObjectHeaders::default()
    };
    engine
        .put(request, crate::world::body(&newer, 9_999))
        .await
        .unwrap();
    engine.stop().await.unwrap();
    drop(engine);
    let before = world.places[0].memory.keys();
    restore(&world, &backup);

    let engine = world.engine().await;
    assert!(engine.status().await.unwrap().catalogue.recovery.is_some());
    assert_eq!(get(&engine, "a").await.unwrap(), old, "reads go on");
    put(&engine, "written in recovery", &kept).await.unwrap();
    engine
        .remove(photos(&engine), key("kept"), Precondition::None)
        .await
        .unwrap();
    world.clock.advance_ms(48 * 3600 * 1000);
    engine.settle(20).await;
    let held = world.places[0].memory.keys();
    assert!(
        before.iter().all(|key| held.contains(key)),
        "nothing is deleted"
    );

    let recovered = engine.recover().await.unwrap();
    assert_eq!(recovered.adopted, 3, "{recovered:?}");
    assert!(
        recovered.left.is_empty() && recovered.foreign.is_empty(),
        "{recovered:?}"
    );
    assert!(
        recovered.missing.is_empty() && recovered.unseen.is_empty(),
        "{recovered:?}"
    );
    assert_eq!(get(&engine, "a").await.unwrap(), newer);
    assert_eq!(get(&engine, "odd//key").await.unwrap(), newer);
    let found = engine
        .look(&crate::world::read_request(photos(&engine), "meta"))
        .await
        .unwrap();
    assert_eq!(
        found.object.headers.user,
        [("k".to_owned(), "v".to_owned())]
    );
    assert!(engine.status().await.unwrap().catalogue.recovery.is_none());
    world.quiesce(&engine).await;
    world.check(&engine).await.unwrap();
    engine.stop().await.unwrap();
    drop(engine);
    let engine = world.engine().await;
    assert!(
        engine.status().await.unwrap().catalogue.recovery.is_none(),
        "the recovery is over for good"
    );
    world.check(&engine).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn unknown_bytes_are_reported_and_never_touched() {
    let world = World::new(&[None]);
    let engine = world.engine().await;
    let stranger = Bytes::from_static(b"somebody else's");
    for name in [
        "photos/holiday.jpg",
        "x",
        "photos/a~01k7u7n7a8ept95bm0n17997s6",
    ] {
        world.places[0]
            .memory
            .plant(name, stranger.clone(), ObjectHeaders::default());
    }
    let recovered = engine.recover().await.unwrap();
    assert_eq!(
        (
            recovered.adopted,
            recovered.foreign.len(),
            recovered.left.len()
        ),
        (0, 2, 1)
    );
    assert_eq!(world.places[0].memory.keys().len(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_recovery_without_all_backends_is_not_complete() {
    let world = World::new(&[None, None]);
    let engine = world.engine().await;
    engine.stop().await.unwrap();
    drop(engine);
    let clock: Arc<dyn base::Clock> = world.clock.clone();
    Engine::declare_restored(&world.settings.catalogue, clock, world.ids.clone())
        .await
        .unwrap();
    world.places[1]
        .faults
        .set_rates(backend::faulty::Rates::DOWN);
    let engine = world.engine().await;
    let recovered = engine.recover().await.unwrap();
    assert_eq!(recovered.unseen.len(), 1);
    assert!(engine.status().await.unwrap().catalogue.recovery.is_some());
    world.places[1].faults.heal();
    engine.settle(1).await;
    assert!(engine.recover().await.unwrap().unseen.is_empty());
    assert!(engine.status().await.unwrap().catalogue.recovery.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_re_pointed_name_and_a_foreign_marker_take_the_backend_out_of_service() {
    let world = World::new(&[None, None]);
    let engine = world.engine().await;
    engine.stop().await.unwrap();
    drop(engine);
    let other = world.places[1].memory.object(MARKER_KEY).unwrap();
    world.places[0]
        .memory
        .plant(MARKER_KEY, other.bytes, ObjectHeaders::default());
    world.places[1].memory.plant(
        MARKER_KEY,
        Bytes::from_static(b"?"),
        ObjectHeaders::default(),
    );
    let engine = world.engine().await;
    for status in engine.status().await.unwrap().backends {
        let foreign = matches!(
            status.out_of_service,
            Some(OutOfService::MarkerForeign { .. })
        );
        assert!(foreign, "{status:?}");
    }
    let refused = put(&engine, "a", &bytes(1, 10)).await;
    assert!(
        matches!(refused, Err(Error::WriteUnavailable { .. })),
        "{refused:?}"
    );
    // The reason names each backend, and why.
    let reason = refused.unwrap_err().to_string();
    for words in [
        "b0: ",
        "b1: ",
        "belongs to backend b1",
        "something that is not ours",
    ] {
        assert!(reason.contains(words), "{reason}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_backend_with_rows_cannot_leave_the_configuration() {
    let mut world = World::new(&[None, None]);
    let engine = world.engine().await;
    put(&engine, "a", &bytes(1, 10)).await.unwrap();
    engine.stop().await.unwrap();
    drop(engine);
    let first = world.settings.backends.remove(0);
    match world.start().await {
        Err(StartError::BackendsMissing { missing }) => assert_eq!(missing[0].0, first.name),
        other => panic!("{other:?}"),
    }
    world.settings.backends.insert(0, first);
    let engine = world.engine().await;
    assert_eq!(get(&engine, "a").await.unwrap(), bytes(1, 10));
}

#[tokio::test(start_paused = true)]
async fn verify_sees_what_a_backend_lost() {
    let world = World::new(&[None]);
    let engine = world.engine().await;
    put(&engine, "a", &bytes(1, 10)).await.unwrap();
    put(&engine, "b", &bytes(1, 10)).await.unwrap();
    let clock: Arc<dyn base::Clock> = world.clock.clone();
    let verify = || {
        let clock = Arc::clone(&clock);
        Engine::verify_catalogue(&world.settings, clock, Arc::new(engine::Quiet))
    };
    let sound = verify().await.unwrap();
    assert!(sound.is_sound() && sound.locations == 2, "{sound:?}");
    let lost = world.places[0]
        .memory
        .keys()
        .into_iter()
        .find(|key| key.starts_with("photos/a~"));
    world.places[0].memory.lose(&lost.unwrap());
    let faulty = verify().await.unwrap();
    assert!(!faulty.is_sound());
    assert_eq!(faulty.faults.len(), 1);
    assert_eq!(faulty.faults[0].object, key("a"));
}

#[tokio::test(start_paused = true)]
async fn an_upload_that_was_open_at_the_backup_and_completed_since_is_adopted() {
    let mut world = World::new(&[None]);
    world.settings.part_size_min = base::ByteSize(1);
    let engine = world.engine().await;
    let bucket = photos(&engine);
    let request = |name: &str| engine::CreateUpload {
        bucket,
        key: key(name),
        headers: ObjectHeaders::default(),
        tags: Tags::default(),
        checksum: None,
    };
    let upload = engine.create_upload(request("film")).await.unwrap();
    let unfinished = engine.create_upload(request("unfinished")).await.unwrap();
    let content = bytes(1, 100_000);
    let part = |name: &str, upload| engine::PartRequest {
        bucket,
        key: key(name),
        upload,
        number: 1,
    };
    let body = || crate::world::body(&content, 10_000);
    let stored = engine
        .upload_part(part("film", upload), body())
        .await
        .unwrap();
    engine
        .upload_part(part("unfinished", unfinished), body())
        .await
        .unwrap();
    let backup = world.file().with_extension("backup");
    Engine::backup_catalogue(&world.settings.catalogue, &backup, &world.ids)
        .await
        .unwrap();
    let complete = engine::CompleteRequest {
        bucket,
        key: key("film"),
        upload,
        parts: vec![engine::CompletedPart {
            number: 1,
            etag: stored.etag,
            checksum: None,
        }],
        checksum: None,
        size: None,
        precondition: Precondition::None,
    };
    engine.complete_upload(complete).await.unwrap();
    engine.stop().await.unwrap();
    drop(engine);
    restore(&world, &backup);

    let engine = world.engine().await;
    let recovered = engine.recover().await.unwrap();
    assert_eq!(recovered.adopted, 1, "{recovered:?}");
    assert_eq!(
        recovered.left.len(),
        1,
        "the unfinished upload is reported: {recovered:?}"
    );
    world.quiesce(&engine).await;
    assert_eq!(get(&engine, "film").await.unwrap(), content);
    assert_eq!(world.places[0].memory.uploads().len(), 1, "and left alone");
    let sound = engine.store().verify().await.unwrap();
    assert!(
        sound.contradictions.is_empty() && sound.backends[0].exact(),
        "{sound:?}"
    );
    assert_eq!(engine.status().await.unwrap().backends[0].room.reserved, 0);
}

#[tokio::test(start_paused = true)]
async fn an_empty_page_that_is_not_the_last_does_not_end_a_recovery() {
    let world = World::new(&[None]);
    let engine = world.engine().await;
    let backup = world.file().with_extension("backup");
    Engine::backup_catalogue(&world.settings.catalogue, &backup, &world.ids)
        .await
        .unwrap();
    put(&engine, "a", &bytes(1, 10)).await.unwrap();
    engine.stop().await.unwrap();
    drop(engine);
    restore(&world, &backup);
    let engine = world.engine().await;
    world.places[0].faults.script("list", Fault::EmptyPage);
    let found = engine.recover().await.unwrap();
    assert_eq!(found.unseen.len(), 1, "{found:?}");
    assert!(engine.status().await.unwrap().catalogue.recovery.is_some());
    // Asked again, it has a page to show.
    let found = engine.recover().await.unwrap();
    assert_eq!((found.unseen.len(), found.adopted), (0, 1), "{found:?}");
    assert_eq!(get(&engine, "a").await.unwrap(), bytes(1, 10));
}

/// A world whose catalogue was restored from a backup that has not heard of the object `a`.
async fn forgotten(world: &World, content: &Bytes) -> Engine {
    let engine = world.engine().await;
    let backup = world.file().with_extension("backup");
    Engine::backup_catalogue(&world.settings.catalogue, &backup, &world.ids)
        .await
        .unwrap();
    put(&engine, "a", content).await.unwrap();
    engine.stop().await.unwrap();
    drop(engine);
    restore(world, &backup);
    world.engine().await
}

#[tokio::test(start_paused = true)]
async fn a_recovery_believes_no_read_that_contradicts_what_the_backend_says() {
    // Large, so that its label was written before its checksum was known.
    let content = bytes(1, 300_000);
    for wrong_reads in [1, 2] {
        let world = World::new(&[None]);
        let engine = forgotten(&world, &content).await;
        for _ in 0..wrong_reads {
            world.places[0].faults.script("get", Fault::WrongByte);
        }
        let found = engine.recover().await.unwrap();
        // Once may be an accident on the way; who lies twice is not adopted, and told of.
        assert_eq!(found.adopted, 2 - wrong_reads, "{found:?}");
        if wrong_reads == 2 {
            assert_eq!(found.left.len(), 1, "{found:?}");
            continue;
        }
        assert_eq!(get(&engine, "a").await.unwrap(), content);
        world.check(&engine).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_key_that_cannot_be_read_keeps_no_other_from_being_adopted() {
    let world = World::new(&[None]);
    let engine = world.engine().await;
    let backup = world.file().with_extension("backup");
    Engine::backup_catalogue(&world.settings.catalogue, &backup, &world.ids)
        .await
        .unwrap();
    for name in ["a", "b", "c"] {
        put(&engine, name, &bytes(1, 10)).await.unwrap();
    }
    engine.stop().await.unwrap();
    drop(engine);
    restore(&world, &backup);
    let engine = world.engine().await;
    let refused = Fault::Reply(backend::Kind::Denied);
    world.places[0].faults.script("head", refused);
    let found = engine.recover().await.unwrap();
    assert_eq!((found.unseen.len(), found.adopted), (1, 2), "{found:?}");
    assert!(engine.status().await.unwrap().catalogue.recovery.is_some());
    let found = engine.recover().await.unwrap();
    assert_eq!((found.unseen.len(), found.adopted), (0, 1), "{found:?}");
}

#[tokio::test(start_paused = true)]
async fn what_was_deleted_is_not_adopted_where_nothing_was_restored() {
    let world = World::new(&[None]);
    let engine = world.engine().await;
    put(&engine, "a", &bytes(1, 10)).await.unwrap();
    let stored = world.places[0].memory.keys();
    let stored = stored.iter().find(|key| key.starts_with("photos/a~"));
    let stored = stored.unwrap().clone();
    let lies = world.places[0].memory.object(&stored).unwrap();
    engine
        .remove(photos(&engine), key("a"), Precondition::None)
        .await
        .unwrap();
    world.quiesce(&engine).await;
    // The backend said that it had deleted it, and has it all the same.
    world.places[0]
        .memory
        .plant(&stored, lies.bytes, lies.headers);
    let found = engine.recover().await.unwrap();
    assert_eq!((found.adopted, found.left.len()), (0, 1), "{found:?}");
    assert!(matches!(get(&engine, "a").await, Err(Error::NoSuchKey)));
}

#[tokio::test(start_paused = true)]
async fn what_is_listed_and_denied_has_not_been_looked_at() {
    let world = World::new(&[None]);
    let engine = forgotten(&world, &bytes(1, 10)).await;
    for _ in 0..2 {
        world.places[0].faults.script("head", Fault::Missing);
    }
    let found = engine.recover().await.unwrap();
    assert_eq!((found.unseen.len(), found.adopted), (1, 0), "{found:?}");
    assert!(engine.status().await.unwrap().catalogue.recovery.is_some());
    world.places[0].faults.script("head", Fault::Missing);
    let found = engine.recover().await.unwrap();
    assert_eq!((found.unseen.len(), found.adopted), (0, 1), "{found:?}");
    assert_eq!(get(&engine, "a").await.unwrap(), bytes(1, 10));
}

/// Gives the marker of a backend another generation.
fn forge(world: &World, place: usize, generation: &str) {
    let memory = &world.places[place].memory;
    let marker = memory.object(MARKER_KEY).unwrap();
    let text = std::str::from_utf8(&marker.bytes).unwrap();
    let kept = text.lines().filter(|line| !line.starts_with("mark "));
    let kept: String = kept.map(|line| format!("{line}\n")).collect();
    let forged = format!("{kept}mark {generation}\n");
    memory.plant(MARKER_KEY, forged.into(), ObjectHeaders::default());
}

#[tokio::test(start_paused = true)]
async fn a_forged_generation_stops_neither_the_backends_nor_a_recovery() {
    let world = World::new(&[None, None]);
    let engine = world.engine().await;
    put(&engine, "a", &bytes(1, 10)).await.unwrap();
    engine.stop().await.unwrap();
    drop(engine);
    forge(&world, 0, "9223372036854775807");
    let engine = world.engine().await;
    let status = engine.status().await.unwrap();
    assert_eq!(status.catalogue.recovery, None);
    assert!(
        status
            .backends
            .iter()
            .all(|one| one.out_of_service.is_none())
    );
    engine
        .remove(photos(&engine), key("a"), Precondition::None)
        .await
        .unwrap();
    world.quiesce(&engine).await;
    assert_eq!(world.places[0].memory.keys(), [MARKER_KEY], "deletes go on");
    // The same while a recovery runs, and with what no number type holds.
    for generation in ["9223372036854775807", "18446744073709551615", "1e99"] {
        forge(&world, 0, generation);
        let found = engine.recover().await.unwrap();
        assert_eq!(found.unseen, [], "{generation}");
    }
    engine.stop().await.unwrap();
    drop(engine);
    // What cannot be read is a reason against that backend alone.
    forge(&world, 0, "1e99");
    let engine = world.engine().await;
    let status = engine.status().await.unwrap();
    assert_eq!(status.catalogue.recovery, None);
    assert!(status.backends[0].out_of_service.is_some());
    assert_eq!(status.backends[1].out_of_service, None);
    put(&engine, "b", &bytes(1, 10)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn of_two_names_of_one_place_one_comes_into_service() {
    let mut world = World::new(&[None, None]);
    let place = &world.places[0];
    let same = FaultyBackend::new(Arc::clone(&place.memory) as _, place.faults.clone());
    world.settings.backends[1].kind = BackendKind::Custom(CustomBackend(Arc::new(same)));
    let engine = world.engine().await;
    let backends = engine.status().await.unwrap().backends;
    let (used, out): (Vec<_>, Vec<_>) = backends
        .into_iter()
        .partition(|one| one.out_of_service.is_none());
    assert_eq!((used.len(), out.len()), (1, 1), "{used:?} {out:?}");
    let reason = out[0].out_of_service.as_ref().unwrap().to_string();
    let names = format!("belongs to backend {} of this catalogue", used[0].name);
    assert!(reason.contains(&names), "{reason}");
    // Nor later, when it is looked at again.
    world.quiesce(&engine).await;
    let backends = engine.status().await.unwrap().backends;
    let used = backends.iter().filter(|one| one.out_of_service.is_none());
    assert_eq!(used.count(), 1);
}

/// Stops an engine and copies its catalogue as a file, which no backup has marked as a copy.
async fn stopped_copy(world: &World, engine: Engine) -> std::path::PathBuf {
    engine.stop().await.unwrap();
    drop(engine);
    let copy = world.file().with_extension("copied");
    fs::copy(world.file(), &copy).unwrap();
    copy
}

/// Puts a deleted object back on its backend, as one does that said that it had deleted it.
async fn undelete(world: &World, engine: &Engine, name: &str) {
    let prefix = format!("photos/{name}~");
    let held = world.places[0].memory.keys();
    let stored = held.iter().find(|key| key.starts_with(&prefix)).unwrap();
    let lies = world.places[0].memory.object(stored).unwrap();
    engine
        .remove(photos(engine), key(name), Precondition::None)
        .await
        .unwrap();
    world.quiesce(engine).await;
    assert!(world.places[0].memory.object(stored).is_none());
    world.places[0]
        .memory
        .plant(stored, lies.bytes, lies.headers);
}

#[tokio::test(start_paused = true)]
async fn one_newer_marker_of_several_stops_deletions_and_neither_adopts_nor_forgets() {
    let world = World::new(&[None, None]);
    let engine = world.engine().await;
    put(&engine, "secret", &bytes(1, 10)).await.unwrap();
    undelete(&world, &engine, "secret").await;
    let bucket = photos(&engine);
    let upload = engine
        .create_upload(engine::CreateUpload {
            bucket,
            key: key("film"),
            headers: ObjectHeaders::default(),
            tags: Tags::default(),
            checksum: None,
        })
        .await
        .unwrap();
    let part = || engine::PartRequest {
        bucket,
        key: key("film"),
        upload,
        number: 1,
    };
    let content = bytes(3, 1000);
    let stored = engine
        .upload_part(part(), crate::world::body(&content, 1000))
        .await
        .unwrap();
    engine.stop().await.unwrap();
    drop(engine);
    // A little ahead, as after a restore.
    forge(&world, 0, "30");
    // Once more, so that what was seen is not known to the process that recovers.
    world.engine().await.stop().await.unwrap();
    let engine = world.engine().await;
    assert!(engine.status().await.unwrap().catalogue.recovery.is_some());
    let found = engine.recover().await.unwrap();
    assert_eq!((found.adopted, found.left.len()), (0, 1), "{found:?}");
    let doubt = found.doubt.expect("it is said");
    assert_eq!((doubt.newer.len(), doubt.expected.len()), (1, 1));
    assert!(matches!(
        get(&engine, "secret").await,
        Err(Error::NoSuchKey)
    ));
    // The upload is what it was, and the end is for good.
    engine
        .complete_upload(engine::CompleteRequest {
            bucket,
            key: key("film"),
            upload,
            parts: vec![engine::CompletedPart {
                number: 1,
                etag: stored.etag,
                checksum: None,
            }],
            checksum: None,
            size: None,
            precondition: Precondition::None,
        })
        .await
        .unwrap();
    assert_eq!(get(&engine, "film").await.unwrap(), content);
    engine.stop().await.unwrap();
    drop(engine);
    let engine = world.engine().await;
    assert_eq!(engine.status().await.unwrap().catalogue.recovery, None);
    engine.stop().await.unwrap();
    drop(engine);
    // Where somebody says that it was restored, one marker more or less does not matter.
    let clock: Arc<dyn base::Clock> = world.clock.clone();
    Engine::declare_restored(&world.settings.catalogue, clock, world.ids.clone())
        .await
        .unwrap();
    let engine = world.engine().await;
    let found = engine.recover().await.unwrap();
    assert_eq!((found.adopted, found.doubt), (1, None));
}

#[tokio::test(start_paused = true)]
async fn a_catalogue_that_all_its_backends_outran_was_restored() {
    let world = World::new(&[None, None]);
    let copy = stopped_copy(&world, world.engine().await).await;
    let engine = world.engine().await;
    put(&engine, "a", &bytes(1, 10)).await.unwrap();
    engine.stop().await.unwrap();
    drop(engine);
    restore(&world, &copy);
    // A backend that cannot be asked proves nothing, and nothing is adopted before it is.
    world.places[1]
        .faults
        .set_rates(backend::faulty::Rates::DOWN);
    let engine = world.engine().await;
    let found = engine.recover().await.unwrap();
    assert_eq!((found.adopted, found.unseen.len()), (0, 1), "{found:?}");
    let doubt = found.doubt.expect("it is said");
    assert_eq!((doubt.newer.len(), doubt.unseen.len()), (1, 1));
    assert!(engine.status().await.unwrap().catalogue.recovery.is_some());
    world.places[1].faults.heal();
    engine.settle(1).await;
    let found = engine.recover().await.unwrap();
    assert_eq!((found.adopted, found.doubt), (1, None));
    assert_eq!(get(&engine, "a").await.unwrap(), bytes(1, 10));
    assert_eq!(engine.status().await.unwrap().catalogue.recovery, None);
}

/// The one object on a backend whose key begins so: its key there, and the object.
fn stored(world: &World, place: usize, prefix: &str) -> (String, backend::memory::MemoryObject) {
    let memory = &world.places[place].memory;
    let held = memory.keys();
    let found = held.iter().find(|key| key.starts_with(prefix)).unwrap();
    (found.clone(), memory.object(found).unwrap())
}

/// The same headers with another text in the label.
fn relabelled(headers: &ObjectHeaders, edit: impl Fn(&str) -> String) -> ObjectHeaders {
    let mut headers = headers.clone();
    for (name, value) in &mut headers.user {
        if name == "s3o" {
            *value = edit(value);
        }
    }
    headers
}

#[tokio::test(start_paused = true)]
async fn a_label_counts_where_this_catalogue_wrote_it_and_nowhere_else() {
    let world = World::new(&[None, None]);
    let engine = world.engine().await;
    put(&engine, "victim", &bytes(1, 10)).await.unwrap();
    let engine = {
        engine.stop().await.unwrap();
        drop(engine);
        forgotten(&world, &bytes(2, 10)).await
    };
    let (key_of_a, a) = stored(&world, 0, "photos/a~");
    let copy_id = key_of_a.rsplit_once('~').unwrap().1;
    let evil = Bytes::from_static(b"EVIL");
    let other_copy = format!("{}0", &copy_id[..25]);
    // Moved to another key and to another backend, and with another version, blob or role.
    let moved = format!("photos/victim~{copy_id}");
    let memory = &world.places[0].memory;
    memory.plant(&moved, evil.clone(), a.headers.clone());
    world.places[1]
        .memory
        .plant(&key_of_a, evil.clone(), a.headers.clone());
    let edited = relabelled(&a.headers, |text| {
        let mut fields: Vec<_> = text.split(' ').map(str::to_owned).collect();
        fields[3].replace_range(..3, "7vv");
        fields.join(" ")
    });
    let forged = format!("photos/victim~{other_copy}");
    memory.plant(&forged, evil, edited);
    let found = engine.recover().await.unwrap();
    assert_eq!((found.adopted, found.left.len()), (1, 3), "{found:?}");
    for (_, _, why) in &found.left {
        assert!(
            why.contains("its label is not from this catalogue"),
            "{why}"
        );
    }
    assert_eq!(get(&engine, "victim").await.unwrap(), bytes(1, 10));
    assert_eq!(get(&engine, "a").await.unwrap(), bytes(2, 10));
}

#[tokio::test(start_paused = true)]
async fn a_native_copy_carries_a_label_of_its_own() {
    let world = World::new(&[None]);
    let engine = world.engine().await;
    let backup = world.file().with_extension("backup");
    Engine::backup_catalogue(&world.settings.catalogue, &backup, &world.ids)
        .await
        .unwrap();
    let content = bytes(1, 1000);
    put(&engine, "a", &content).await.unwrap();
    let source = engine::CopySource {
        bucket: photos(&engine),
        key: key("a"),
        conditions: base::Conditions::default(),
    };
    let request = engine::CopyRequest {
        source,
        bucket: photos(&engine),
        key: key("b"),
        headers: engine::Taken::Keep,
        tags: engine::Taken::Keep,
        checksum: None,
        precondition: Precondition::None,
    };
    engine.copy(request).await.unwrap();
    let copies = world.places[0].memory.calls().of("copy");
    assert_eq!(copies, 1);
    engine.stop().await.unwrap();
    drop(engine);
    restore(&world, &backup);
    let engine = world.engine().await;
    let found = engine.recover().await.unwrap();
    assert_eq!((found.adopted, found.left.len()), (2, 0), "{found:?}");
    assert_eq!(get(&engine, "b").await.unwrap(), content);
}

#[tokio::test(start_paused = true)]
async fn a_version_of_the_future_is_not_adopted() {
    let world = World::new(&[None]);
    let engine = world.engine().await;
    let backup = world.file().with_extension("backup");
    Engine::backup_catalogue(&world.settings.catalogue, &backup, &world.ids)
        .await
        .unwrap();
    // A clock that was wrong, and is right again.
    world.clock.advance_ms(3_600_000);
    put(&engine, "ahead", &bytes(1, 10)).await.unwrap();
    world.clock.advance_ms(-3_600_000);
    put(&engine, "now", &bytes(1, 10)).await.unwrap();
    engine.stop().await.unwrap();
    drop(engine);
    restore(&world, &backup);
    let engine = world.engine().await;
    let found = engine.recover().await.unwrap();
    assert_eq!((found.adopted, found.left.len()), (1, 1), "{found:?}");
    assert_eq!(found.left[0].2, "its version lies in the future");
}

#[tokio::test(start_paused = true)]
async fn uploads_of_one_key_without_end_end_the_look_at_their_backend_alone() {
    let world = World::new(&[None, None]);
    let engine = forgotten(&world, &bytes(1, 10)).await;
    let place = base::BackendKey::new("photos/film~x").unwrap();
    let meta = backend::PutMeta {
        headers: ObjectHeaders::default(),
    };
    for _ in 0..=10_000 {
        let memory = &world.places[1].memory;
        memory.create_upload(&place, &meta).await.unwrap();
    }
    let found = engine.recover().await.unwrap();
    assert_eq!((found.adopted, found.unseen.len()), (1, 1));
    assert!(found.unseen[0].1.contains("more unfinished uploads"));
    // They are counted, and some are named.
    assert_eq!((found.left.len(), found.unnamed), (1000, 9000));
}

/// A catalogue of two backends that has forgotten an upload of so many parts; the first backend has room
/// for two of them.
async fn forgotten_upload(parts: u8) -> (World, Engine, Bytes) {
    const PART: usize = 100_000;
    let mut world = World::new(&[Some(250_000), None]);
    world.settings.part_size_min = base::ByteSize(1);
    let engine = world.engine().await;
    let backup = world.file().with_extension("backup");
    Engine::backup_catalogue(&world.settings.catalogue, &backup, &world.ids)
        .await
        .unwrap();
    let (bucket, key) = (photos(&engine), key("film"));
    let upload = engine
        .create_upload(engine::CreateUpload {
            bucket,
            key: key.clone(),
            headers: ObjectHeaders::default(),
            tags: Tags::default(),
            checksum: None,
        })
        .await
        .unwrap();
    let contents: Vec<Bytes> = (1..=parts).map(|n| bytes(n.into(), PART)).collect();
    let mut stored = Vec::new();
    for (number, content) in (1..).zip(&contents) {
        let request = engine::PartRequest {
            bucket,
            key: key.clone(),
            upload,
            number,
        };
        let part = engine.upload_part(request, crate::world::body(content, PART));
        stored.push(engine::CompletedPart {
            number,
            etag: part.await.unwrap().etag,
            checksum: None,
        });
    }
    let complete = engine::CompleteRequest {
        bucket,
        key,
        upload,
        parts: stored,
        checksum: None,
        size: None,
        precondition: Precondition::None,
    };
    engine.complete_upload(complete).await.unwrap();
    engine.stop().await.unwrap();
    drop(engine);
    restore(&world, &backup);
    let engine = world.engine().await;
    (world, engine, contents.concat().into())
}

#[tokio::test(start_paused = true)]
async fn of_an_upload_on_two_backends_neither_part_alone_becomes_the_object() {
    for hiding in [0, 1] {
        for lone in [engine::LoneUploads::Doubt, engine::LoneUploads::Adopt] {
            let (world, engine, _) = forgotten_upload(3).await;
            let (hidden, _) = stored(&world, hiding, "photos/film~");
            world.places[hiding].memory.lose(&hidden);
            let found = engine.recover_with(lone).await.unwrap();
            // What is known to be a part is never the whole; of the other one an operator may say so.
            let adopted = u64::from(hiding == 1 && lone == engine::LoneUploads::Adopt);
            assert_eq!(found.adopted, adopted, "{found:?}");
            assert_eq!(found.left.len() as u64, 1 - adopted, "{found:?}");
            assert_eq!(get(&engine, "film").await.is_ok(), adopted == 1);
            if hiding == 1 && adopted == 0 {
                assert!(found.left[0].2.contains("--adopt-uploads"), "{found:?}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_upload_on_one_of_several_backends_is_adopted_where_the_operator_says_so() {
    let (world, engine, content) = forgotten_upload(2).await;
    let found = engine.recover().await.unwrap();
    assert_eq!((found.adopted, found.left.len()), (0, 1), "{found:?}");
    engine.stop().await.unwrap();
    drop(engine);
    let clock: Arc<dyn base::Clock> = world.clock.clone();
    Engine::declare_restored(&world.settings.catalogue, clock, world.ids.clone())
        .await
        .unwrap();
    let engine = world.engine().await;
    let adopt = engine::LoneUploads::Adopt;
    let found = engine.recover_with(adopt).await.unwrap();
    assert_eq!((found.adopted, found.left.len()), (1, 0), "{found:?}");
    assert_eq!(get(&engine, "film").await.unwrap(), content);
}
