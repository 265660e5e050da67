//! What proves that a backend holds the bytes of a write: its reply, where it says something of them.

use backend::faulty::Fault;
use backend::{Capabilities, ObjectBackend as _};
use base::{ByteSize, ETag, Md5, ObjectHeaders, RangeSpec, Tags, UploadId};
use bytes::Bytes;
use engine::{
    CreateUpload, Declared, Engine, Error, Incoming, PartRequest, ReadRequest, Selection,
    UploadedPart, Written,
};

use crate::world::{World, body, bytes, get, key, photos, put, put_request, read, read_request};

const PART: usize = 100_000;

/// One backend, which repeats the checksums of what it stores or does not.
fn world(echoes_checksum: bool) -> World {
    let mut world = World::new(&[None]);
    world.settings.part_size_min = ByteSize(1000);
    let place = &world.places[0];
    place.faults.pretend(Capabilities {
        echoes_checksum,
        ..place.memory.capabilities()
    });
    world
}

fn tag(content: &Bytes) -> ETag {
    ETag::of_body(Md5::of(content))
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

async fn put_with_md5(engine: &Engine, name: &str, content: &Bytes) -> engine::Result<Written> {
    let body = Incoming {
        declared: Declared {
            md5: Some(Md5::of(content)),
            ..Declared::default()
        },
        ..body(content, 16 << 10)
    };
    engine.put(put_request(photos(engine), name), body).await
}

async fn create(engine: &Engine) -> UploadId {
    let request = CreateUpload {
        bucket: photos(engine),
        key: key("a"),
        headers: ObjectHeaders::default(),
        tags: Tags::default(),
        checksum: None,
    };
    engine.create_upload(request).await.unwrap()
}

async fn part(engine: &Engine, upload: UploadId, content: &Bytes) -> engine::Result<UploadedPart> {
    let request = PartRequest {
        bucket: photos(engine),
        key: key("a"),
        upload,
        number: 1,
    };
    engine.upload_part(request, body(content, 16 << 10)).await
}

#[tokio::test(start_paused = true)]
async fn the_reply_to_another_request_acknowledges_no_object() {
    for echoes in [true, false] {
        for length in [1000, 300_000] {
            let world = world(echoes);
            let engine = world.engine().await;
            let content = bytes(1, length);
            for declared in [false, true] {
                // What may pass is tried twice.
                for _ in 0..2 {
                    world.places[0].faults.script("put", Fault::OtherReply);
                }
                let written = match declared {
                    true => put_with_md5(&engine, "a", &content).await,
                    false => put(&engine, "a", &content).await,
                };
                let refused = matches!(written, Err(Error::WriteUnavailable { .. }));
                assert!(refused, "{echoes} {length} {declared} {written:?}");
                world.places[0].faults.heal();
                assert!(matches!(get(&engine, "a").await, Err(Error::NoSuchKey)));
            }
            put(&engine, "a", &content).await.unwrap();
            assert_eq!(get(&engine, "a").await.unwrap(), content);
            world.quiesce(&engine).await;
            world.check(&engine).await.unwrap();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_entity_tag_that_is_not_our_md5_is_told_to_nobody_and_the_bytes_are_read_back() {
    let world = world(false);
    let engine = world.engine().await;
    for length in [1000, 300_000] {
        let content = bytes(1, length);
        world.places[0].memory.reset_calls();
        world.places[0].faults.script("put", Fault::OtherTag);
        let written = put(&engine, "a", &content).await.unwrap();
        assert_eq!(written.etag, tag(&content));
        assert_eq!(world.places[0].memory.calls().of("get"), 1);
        // The tag of that reply was not kept either.
        assert_eq!(get(&engine, "a").await.unwrap(), content);
        let part = read(&engine, &range(&engine, "a")).await.unwrap();
        assert_eq!(part, content.slice(..100));
    }
}

#[tokio::test(start_paused = true)]
async fn a_reply_that_proves_the_bytes_costs_no_second_look() {
    for echoes in [true, false] {
        let world = world(echoes);
        let engine = world.engine().await;
        for length in [1000, 300_000] {
            world.places[0].memory.reset_calls();
            put(&engine, "a", &bytes(1, length)).await.unwrap();
            let calls = world.places[0].memory.calls();
            assert_eq!((calls.of("get"), calls.of("head")), (0, 0));
        }
    }
    // One that lacks the checksum that its backend was seen to repeat costs one.
    let world = world(true);
    let engine = world.engine().await;
    world.places[0].memory.reset_calls();
    world.places[0].faults.script("put", Fault::NoEcho);
    let content = bytes(1, 1000);
    let written = put(&engine, "a", &content).await.unwrap();
    assert_eq!(written.etag, tag(&content));
    assert_eq!(world.places[0].memory.calls().of("get"), 1);
}

#[tokio::test(start_paused = true)]
async fn the_reply_to_another_request_acknowledges_no_part() {
    for echoes in [true, false] {
        let world = world(echoes);
        let engine = world.engine().await;
        let upload = create(&engine).await;
        let content = bytes(1, PART);
        // Where nothing is echoed, the entity tag is compared from the first part on.
        for fault in [Fault::OtherReply, Fault::OtherReply] {
            world.places[0].faults.script("upload_part", fault);
            let stored = part(&engine, upload, &content).await;
            let refused = matches!(stored, Err(Error::WriteUnavailable { .. }));
            assert!(refused, "{echoes} {stored:?}");
        }
        assert_eq!(
            part(&engine, upload, &content).await.unwrap().etag,
            tag(&content)
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_repeats_no_checksums_of_parts_is_asked_for_their_md5() {
    let world = world(true);
    let engine = world.engine().await;
    let upload = create(&engine).await;
    let content = bytes(1, PART);
    for _ in 0..2 {
        world.places[0].faults.script("upload_part", Fault::NoEcho);
    }
    let stored = part(&engine, upload, &content).await;
    assert!(
        matches!(stored, Err(Error::WriteUnavailable { .. })),
        "{stored:?}"
    );
    assert_eq!(
        part(&engine, upload, &content).await.unwrap().etag,
        tag(&content)
    );
}

#[tokio::test(start_paused = true)]
async fn right_bytes_are_served_whatever_the_entity_tag() {
    for length in [1000, 3 << 20] {
        let world = world(true);
        let engine = world.engine().await;
        let content = bytes(1, length);
        // The checksum proves the bytes; the tag beside it is another one than that of the stored object.
        world.places[0].faults.script("put", Fault::OtherTag);
        put(&engine, "a", &content).await.unwrap();
        for _ in 0..2 {
            assert_eq!(get(&engine, "a").await.unwrap(), content);
            // A range is not compared, and so its tag counts.
            let part = read(&engine, &range(&engine, "a")).await;
            assert!(matches!(part, Err(Error::Corrupt)), "{part:?}");
        }
    }
}
