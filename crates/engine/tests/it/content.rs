//! Bytes of the right size and other content: they are never served as a whole, and only content heals.

use backend::faulty::Fault;
use base::{
    BackendKey, BlobId, Clock as _, Conditions, CopyId, Crc64Hasher, ETag, Md5, ObjectHeaders,
    Precondition, RangeSpec, Tags, VersionId,
};
use bytes::Bytes;
use engine::catalogue::{
    Content, CopyRow, CopyState, Extent, NewBlob, NewCopy, NewIntent, NewVersion, Verdict,
};
use engine::{
    CopyRequest, CopySource, CreateUpload, Engine, Error, PartCopyRequest, ReadRequest, Selection,
    Taken,
};
use futures_util::StreamExt as _;

use crate::world::{Place, World, bytes, get, key, photos, put, read, read_request};

const SMALL: usize = 1000;
const LARGE: usize = 3 << 20;

/// A copy as the test sees it.
struct Replica<'a> {
    place: &'a Place,
    key: String,
}

/// An object with a copy on each backend of the world; its copies in the order in which they are read.
async fn replicated<'a>(
    world: &'a World,
    engine: &Engine,
    name: &str,
    content: &Bytes,
) -> Vec<Replica<'a>> {
    let store = engine.store();
    let size = content.len() as u64;
    let blob = BlobId::draw(&world.ids);
    let etag = ETag::of_body(Md5::of(content));
    let mut crc64 = Crc64Hasher::new();
    crc64.update(content);
    let (mut copies, mut intents) = (Vec::new(), Vec::new());
    let rows = store.backends().await.unwrap();
    for (row, place) in rows.iter().zip(&world.places) {
        let copy = CopyId::draw(&world.ids);
        let backend_key = format!("photos/{name}~{copy}");
        place
            .memory
            .plant(&backend_key, content.clone(), ObjectHeaders::default());
        let new = NewIntent {
            copy,
            blob,
            key: BackendKey::new(&backend_key).unwrap(),
        };
        let room = store.reserve(row.id, size).await.unwrap();
        intents.push(store.open_intent(new, room).await.unwrap());
        copies.push(NewCopy {
            copy,
            etag: Some(etag.clone()),
            version: None,
            crc64: None,
        });
    }
    let version = NewVersion {
        bucket: photos(engine),
        key: key(name),
        version: VersionId::draw(&world.ids),
        size,
        etag,
        last_modified: world.clock.now(),
        headers: ObjectHeaders::default(),
        tags: Tags::default(),
        checksum: None,
        parts: Vec::new(),
        content: Content::Written {
            blobs: vec![NewBlob {
                blob,
                size,
                crc64: Some(crc64.sum()),
                copies,
            }],
            extents: vec![Extent {
                blob,
                offset: 0,
                length: size,
            }],
        },
        precondition: Precondition::None,
    };
    let (verdict, _) = store.commit(version, intents).await;
    assert!(
        matches!(verdict, Ok(Verdict::Committed { .. })),
        "{verdict:?}"
    );
    let plan = store.plan(photos(engine), &key(name)).await;
    let copies = plan.unwrap().unwrap().extents.remove(0).copies;
    let replica = |copy: &CopyRow| Replica {
        place: &world.places[rows.iter().position(|row| row.id == copy.backend).unwrap()],
        key: copy.key.to_string(),
    };
    copies.iter().map(replica).collect()
}

/// What the copies of an object are held for, by their backend keys where some are given.
async fn states(engine: &Engine, name: &str, copies: &[Replica<'_>]) -> Vec<CopyState> {
    let plan = engine.store().plan(photos(engine), &key(name)).await;
    let rows = plan.unwrap().unwrap().extents.remove(0).copies;
    if copies.is_empty() {
        return rows.iter().map(|row| row.state).collect();
    }
    let of = |copy: &Replica<'_>| rows.iter().find(|row| row.key.to_string() == copy.key);
    copies.iter().map(|copy| of(copy).unwrap().state).collect()
}

fn range(engine: &Engine, name: &str) -> ReadRequest {
    ReadRequest {
        selection: Selection::Range(RangeSpec::From {
            first: 0,
            last: Some(99),
        }),
        ..read_request(photos(engine), name)
    }
}

/// Reads until the end or an error: how many bytes came, and whether all did.
pub(crate) async fn taken(engine: &Engine, request: &ReadRequest) -> (usize, engine::Result<()>) {
    let mut body = match engine.read(request).await {
        Ok(reading) => reading.body,
        Err(error) => return (0, Err(error)),
    };
    let mut count = 0;
    while let Some(chunk) = body.next().await {
        match chunk {
            Ok(chunk) => count += chunk.len(),
            Err(error) => return (count, Err(error)),
        }
    }
    (count, Ok(()))
}

#[tokio::test(start_paused = true)]
async fn another_copy_takes_the_place_of_one_with_wrong_bytes_before_the_head_leaves() {
    let world = World::new(&[None, None]);
    let engine = world.engine().await;
    let content = bytes(1, SMALL);
    let copies = replicated(&world, &engine, "a", &content).await;
    assert!(copies[0].place.memory.rot(&copies[0].key));
    assert_eq!(get(&engine, "a").await.unwrap(), content);
    assert_eq!(
        states(&engine, "a", &copies).await,
        [CopyState::Suspect, CopyState::Good]
    );
    // A suspect copy is asked last.
    copies[0].place.memory.reset_calls();
    assert_eq!(get(&engine, "a").await.unwrap(), content);
    assert_eq!(copies[0].place.memory.calls().of("get"), 0);
    // Where every copy is wrong, there is no answer.
    assert!(copies[1].place.memory.rot(&copies[1].key));
    let error = get(&engine, "a").await.unwrap_err();
    assert!(matches!(error, Error::Corrupt), "{error}");
}

#[tokio::test(start_paused = true)]
async fn wrong_bytes_of_a_large_object_cut_the_answer_before_its_end() {
    let world = World::new(&[None]);
    let engine = world.engine().await;
    let content = bytes(1, LARGE);
    put(&engine, "a", &content).await.unwrap();
    let stored = world.places[0].memory.keys();
    let stored = stored
        .iter()
        .find(|key| key.starts_with("photos/"))
        .unwrap();
    assert!(world.places[0].memory.rot(stored));
    // One read may have been spoilt on its way; the second is proof.
    for state in [CopyState::Suspect, CopyState::Corrupt] {
        let (count, ended) = taken(&engine, &read_request(photos(&engine), "a")).await;
        assert!(
            count < LARGE && matches!(ended, Err(Error::Corrupt)),
            "{ended:?}"
        );
        assert_eq!(states(&engine, "a", &[]).await, [state]);
    }
    // Of a copy whose bytes are known to be wrong no range is served, and a whole read heals it.
    let error = read(&engine, &range(&engine, "a")).await.unwrap_err();
    assert!(matches!(error, Error::Corrupt), "{error}");
    world.places[0]
        .memory
        .plant(stored, content.clone(), ObjectHeaders::default());
    assert_eq!(get(&engine, "a").await.unwrap(), content);
    assert_eq!(states(&engine, "a", &[]).await, [CopyState::Good]);
    let part = read(&engine, &range(&engine, "a")).await.unwrap();
    assert_eq!(part, content.slice(..100));
}

#[tokio::test(start_paused = true)]
async fn after_a_resume_every_copy_that_was_used_is_suspect() {
    let world = World::new(&[None, None]);
    let engine = world.engine().await;
    let copies = replicated(&world, &engine, "a", &bytes(1, LARGE)).await;
    copies[1].place.faults.script("get", Fault::WrongByte);
    // The first copy breaks off, and its backend refuses to go on.
    for fault in [
        Fault::FirstByte,
        Fault::Refuse,
        Fault::Refuse,
        Fault::Refuse,
    ] {
        copies[0].place.faults.script("get", fault);
    }
    let (count, ended) = taken(&engine, &read_request(photos(&engine), "a")).await;
    assert!(
        count < LARGE && matches!(ended, Err(Error::Corrupt)),
        "{ended:?}"
    );
    assert_eq!(
        states(&engine, "a", &copies).await,
        [CopyState::Suspect, CopyState::Suspect]
    );
}

#[tokio::test(start_paused = true)]
async fn only_content_heals_a_copy_and_its_size_does_not() {
    let world = World::new(&[None]);
    let engine = world.engine().await;
    let content = bytes(1, SMALL);
    put(&engine, "a", &content).await.unwrap();
    world.places[0].faults.script("get", Fault::WrongByte);
    let error = get(&engine, "a").await.unwrap_err();
    assert!(matches!(error, Error::Corrupt), "{error}");
    assert_eq!(states(&engine, "a", &[]).await, [CopyState::Suspect]);
    let part = read(&engine, &range(&engine, "a")).await.unwrap();
    assert_eq!(part, content.slice(..100));
    assert_eq!(states(&engine, "a", &[]).await, [CopyState::Suspect]);
    assert_eq!(get(&engine, "a").await.unwrap(), content);
    assert_eq!(states(&engine, "a", &[]).await, [CopyState::Good]);
}

#[tokio::test(start_paused = true)]
async fn another_entity_tag_is_another_object_whatever_its_size() {
    let world = World::new(&[None, None]);
    let engine = world.engine().await;
    let content = bytes(1, SMALL);
    let copies = replicated(&world, &engine, "a", &content).await;
    let plant = |copy: &Replica<'_>| {
        let other = bytes(2, SMALL);
        let headers = ObjectHeaders::default();
        copy.place.memory.plant(&copy.key, other, headers);
    };
    plant(&copies[0]);
    // Ranges are not compared byte by byte, but the provider's own word counts.
    let part = read(&engine, &range(&engine, "a")).await.unwrap();
    assert_eq!(part, content.slice(..100));
    assert_eq!(
        states(&engine, "a", &copies).await,
        [CopyState::Suspect, CopyState::Good]
    );
    plant(&copies[1]);
    let error = read(&engine, &range(&engine, "a")).await.unwrap_err();
    assert!(matches!(error, Error::Corrupt), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_copy_that_is_denied_twice_is_missing() {
    let world = World::new(&[None]);
    let engine = world.engine().await;
    put(&engine, "a", &bytes(1, SMALL)).await.unwrap();
    for state in [CopyState::Suspect, CopyState::Missing] {
        world.places[0].faults.script("get", Fault::Missing);
        let error = get(&engine, "a").await.unwrap_err();
        assert!(matches!(error, Error::ReadUnavailable { .. }), "{error}");
        assert_eq!(states(&engine, "a", &[]).await, [state]);
    }
    get(&engine, "a").await.unwrap();
    assert_eq!(states(&engine, "a", &[]).await, [CopyState::Good]);
}

#[tokio::test(start_paused = true)]
async fn no_backend_copies_by_itself_what_it_brought_wrong_bytes_of() {
    let world = World::new(&[None]);
    let engine = world.engine().await;
    put(&engine, "a", &bytes(1, SMALL)).await.unwrap();
    let memory = &world.places[0].memory;
    let stored = memory.keys();
    let stored = stored.iter().find(|key| key.starts_with("photos/"));
    assert!(memory.rot(stored.unwrap()));
    let bucket = photos(&engine);
    let source = || CopySource {
        bucket,
        key: key("a"),
        conditions: Conditions::default(),
    };
    for state in [CopyState::Suspect, CopyState::Corrupt] {
        get(&engine, "a").await.unwrap_err();
        assert_eq!(states(&engine, "a", &[]).await, [state]);
        let copied = engine.copy(CopyRequest {
            source: source(),
            bucket,
            key: key("b"),
            headers: Taken::Keep,
            tags: Taken::Keep,
            checksum: None,
            precondition: Precondition::None,
        });
        let copied = copied.await;
        assert!(matches!(copied, Err(Error::Corrupt)), "{copied:?}");
        let upload = CreateUpload {
            bucket,
            key: key("c"),
            headers: ObjectHeaders::default(),
            tags: Tags::default(),
            checksum: None,
        };
        let upload = engine.create_upload(upload).await.unwrap();
        let copied = engine.upload_part_copy(PartCopyRequest {
            bucket,
            key: key("c"),
            upload,
            number: 1,
            source: source(),
            range: None,
        });
        let copied = copied.await;
        assert!(matches!(copied, Err(Error::Corrupt)), "{copied:?}");
    }
}
