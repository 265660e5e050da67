//! Deletions on backends that name more than there is to delete.

use std::time::Duration;

use backend::faulty::Fault;
use backend::{BackendKey, ObjectBackend as _, Payload, PutMeta};
use base::{ObjectHeaders, Tags};
use bytes::Bytes;
use engine::{CreateUpload, Engine};

use crate::world::{World, bytes, key, photos, put};

/// More pages than one attempt asks for.
const PAGES_SCRIPTED: u64 = 200;

/// The key of an object that came after its PUT had failed: it is to be deleted, and nobody knows its version.
async fn abandoned(world: &World, engine: &Engine) -> BackendKey {
    let place = &world.places[0];
    let faults = &place.faults;
    faults.script("put", Fault::Late);
    faults.script("put", Fault::Refuse);
    put(engine, "a", &bytes(1, 1000)).await.unwrap_err();
    faults.land().await;
    let keys = place.memory.keys();
    let found = keys.iter().find(|key| key.starts_with("photos/"));
    BackendKey::new(found.unwrap()).unwrap()
}

async fn come_due(world: &World) {
    tokio::time::sleep(Duration::from_millis(1)).await;
    world.clock.advance_ms(2 * 3600 * 1000);
}

#[tokio::test(start_paused = true)]
async fn versions_of_a_key_are_deleted_page_by_page() {
    let world = World::versioned(&[None]);
    let engine = world.engine().await;
    let doomed = abandoned(&world, &engine).await;
    let memory = &world.places[0].memory;
    for _ in 0..2500 {
        let payload = Payload::from_bytes(Bytes::from_static(b"x"));
        let written = memory.put(&doomed, &PutMeta::default(), payload).await;
        written.unwrap();
    }
    world.quiesce(&engine).await;
    assert!(memory.versions(&doomed).await.unwrap().versions.is_empty());
    world.check(&engine).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn versions_that_never_end_are_asked_for_a_few_pages_at_a_time() {
    let world = World::versioned(&[None]);
    let engine = world.engine().await;
    let doomed = abandoned(&world, &engine).await;
    let place = &world.places[0];
    for _ in 0..PAGES_SCRIPTED {
        place.faults.script("versions", Fault::EndlessPage);
    }
    come_due(&world).await;
    engine.settle(1).await;
    let asked = || place.faults.injected().get(&Fault::EndlessPage).copied();
    assert_eq!(asked(), Some(10), "so many pages, and the rest next time");
    // It is no success either: what is left is deleted once the provider tells the truth.
    place.faults.heal();
    world.quiesce(&engine).await;
    assert!(!place.memory.keys().contains(&doomed.as_str().to_owned()));
    world.check(&engine).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn one_key_with_many_uploads_keeps_the_cleaner_for_its_time_only() {
    let world = World::new(&[None]);
    let engine = world.engine().await;
    let place = &world.places[0];
    place.faults.script("create_upload", Fault::LoseReply);
    let request = CreateUpload {
        bucket: photos(&engine),
        key: key("a"),
        headers: ObjectHeaders::default(),
        tags: Tags::default(),
        checksum: None,
    };
    engine.create_upload(request).await.unwrap_err();
    let uploads = place.memory.uploads();
    let found = uploads
        .iter()
        .find(|upload| upload.key.starts_with("photos/"));
    let doomed = BackendKey::new(&found.unwrap().key).unwrap();
    for _ in 0..PAGES_SCRIPTED {
        let meta = PutMeta::default();
        place.memory.create_upload(&doomed, &meta).await.unwrap();
        place.faults.script("abort_upload", Fault::Slow);
    }
    come_due(&world).await;
    place.memory.reset_calls();
    engine.settle(1).await;
    // Each takes five seconds of the five minutes that a backend may keep the others waiting.
    let aborted = place.memory.calls().of("abort_upload");
    assert!((50..=61).contains(&aborted), "{aborted} aborts");
    place.faults.heal();
    world.quiesce(&engine).await;
    assert!(place.memory.uploads().is_empty());
    world.check(&engine).await.unwrap();
}
