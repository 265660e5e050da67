//! Objects whose blobs lie between each other's parts: each blob that is read whole is compared.

use base::{ChecksumAlgorithm, Conditions, ObjectHeaders, Precondition, RangeSpec};
use bytes::Bytes;
use engine::catalogue::{CopyState, PlannedExtent};
use engine::{
    CopyRequest, CopySource, Engine, Error, PartCopyRequest, ReadRequest, Selection, Taken,
};

use crate::content::taken;
use crate::multipart::{PART, complete, create, part, tag, world};
use crate::world::{World, bytes, get, key, photos, read, read_request};

/// Two parts fit on a backend.
const QUOTA: Option<u64> = Some(250_000);

/// An object of four parts, which lie on two backends in turn.
async fn interleaved(world: &World, engine: &Engine) -> Bytes {
    let upload = create(engine, "a").await;
    let contents: Vec<Bytes> = (1..=4).map(|n| bytes(n, PART)).collect();
    for number in [1, 3, 2, 4] {
        let content = &contents[number - 1];
        let stored = part(engine, "a", upload, number as u32, content).await;
        stored.unwrap();
    }
    let parts: Vec<_> = (1..).zip(contents.iter().map(tag)).collect();
    complete(engine, "a", upload, &parts).await.unwrap();
    let extents = extents(engine).await;
    let blobs: Vec<_> = extents.iter().map(|part| part.extent.blob).collect();
    assert!(
        blobs.len() == 4 && blobs[0] != blobs[1] && blobs[..2] == blobs[2..],
        "{blobs:?}"
    );
    world.check(engine).await.unwrap();
    contents.concat().into()
}

async fn extents(engine: &Engine) -> Vec<PlannedExtent> {
    let plan = engine.store().plan(photos(engine), &key("a")).await;
    plan.unwrap().unwrap().extents
}

/// What the copies of the two blobs are held for.
async fn states(engine: &Engine) -> [CopyState; 2] {
    let extents = extents(engine).await;
    [0, 1].map(|blob: usize| extents[blob].copies[0].state)
}

/// Changes a byte of the blob on one backend.
fn rot(world: &World, place: usize, at: usize) {
    let memory = &world.places[place].memory;
    let keys = memory.keys();
    let stored = keys.iter().find(|key| key.starts_with("photos/")).unwrap();
    let mut wrong = memory.object(stored).unwrap().bytes.to_vec();
    wrong[at] ^= 1;
    memory.plant(stored, wrong.into(), ObjectHeaders::default());
}

#[tokio::test(start_paused = true)]
async fn wrong_bytes_of_one_of_several_backends_cut_the_answer_before_its_end() {
    for (wrong, at) in [(0, 0), (0, 2 * PART - 1), (1, 0), (1, PART)] {
        let world = world(&[QUOTA, QUOTA]);
        let engine = world.engine().await;
        let content = interleaved(&world, &engine).await;
        assert_eq!(get(&engine, "a").await.unwrap(), content);
        rot(&world, wrong, at);
        for state in [CopyState::Suspect, CopyState::Corrupt] {
            let request = read_request(photos(&engine), "a");
            let (count, ended) = taken(&engine, &request).await;
            assert!(
                count < content.len() && matches!(ended, Err(Error::Corrupt)),
                "backend {wrong}: {count} bytes, {ended:?}"
            );
            let mut expected = [CopyState::Good; 2];
            expected[wrong] = state;
            assert_eq!(states(&engine).await, expected);
        }
        // A whole read of the right bytes heals it, here as well.
        rot(&world, wrong, at);
        assert_eq!(get(&engine, "a").await.unwrap(), content);
        assert_eq!(states(&engine).await, [CopyState::Good; 2]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_range_with_all_of_a_blob_is_compared_and_with_some_of_it_is_not() {
    let world = world(&[QUOTA, QUOTA]);
    let engine = world.engine().await;
    let content = interleaved(&world, &engine).await;
    let from = |first: usize| ReadRequest {
        selection: Selection::Range(RangeSpec::From {
            first: first as u64,
            last: None,
        }),
        ..read_request(photos(&engine), "a")
    };
    // The second blob is whole in it, the first one is not.
    let request = from(PART);
    assert_eq!(
        read(&engine, &request).await.unwrap(),
        content.slice(PART..)
    );
    rot(&world, 0, 0);
    let (count, ended) = taken(&engine, &request).await;
    assert!(ended.is_ok() && count == 3 * PART, "{count} {ended:?}");
    rot(&world, 1, 2 * PART - 1);
    let (count, ended) = taken(&engine, &request).await;
    assert!(
        count < 3 * PART && matches!(ended, Err(Error::Corrupt)),
        "{count} {ended:?}"
    );
    assert_eq!(states(&engine).await, [CopyState::Good, CopyState::Suspect]);
    let (count, ended) = taken(&engine, &from(PART + 1)).await;
    assert!(ended.is_ok() && count == 3 * PART - 1, "{count} {ended:?}");
}

#[tokio::test(start_paused = true)]
async fn no_copy_is_made_of_wrong_bytes_of_one_of_several_backends() {
    for wrong in [0, 1] {
        let world = world(&[QUOTA, QUOTA, None]);
        let engine = world.engine().await;
        interleaved(&world, &engine).await;
        rot(&world, wrong, PART);
        let bucket = photos(&engine);
        let source = || CopySource {
            bucket,
            key: key("a"),
            conditions: Conditions::default(),
        };
        // A checksum that only the bytes can tell: they pass through us.
        let copied = engine.copy(CopyRequest {
            source: source(),
            bucket,
            key: key("b"),
            headers: Taken::Keep,
            tags: Taken::Keep,
            checksum: Some(ChecksumAlgorithm::Sha256),
            precondition: Precondition::None,
        });
        let copied = copied.await;
        assert!(copied.is_err(), "{copied:?}");
        let absent = get(&engine, "b").await;
        assert!(matches!(absent, Err(Error::NoSuchKey)), "{absent:?}");
        let upload = create(&engine, "c").await;
        let copied = engine.upload_part_copy(PartCopyRequest {
            bucket,
            key: key("c"),
            upload,
            number: 1,
            source: source(),
            range: None,
        });
        let copied = copied.await;
        assert!(copied.is_err(), "{copied:?}");
    }
}
