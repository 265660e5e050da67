//! Cases about single objects.

use std::collections::BTreeMap;

use base::{BackendKey, ByteRange, Crc64, Md5, ObjectHeaders, USER_METADATA_BYTES_MAX};
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use tokio::sync::oneshot;

use super::support::{
    body, expect_absent, expect_kind, key, keys, pieces, put, read, same, streamed,
};
use crate::{
    Capabilities, Chunks, DeleteTarget, Effect, Kind, ObjectBackend, Payload, PayloadCut, Proof,
    PutMeta,
};

const SIZES: [usize; 5] = [0, 1, 64 * 1024, 64 * 1024 + 1, 8 * 1024 * 1024];

/// Objects of many sizes, whether they come whole or in pieces, read back byte for byte.
pub async fn bytes_come_back_as_they_went(backend: &dyn ObjectBackend, prefix: &str) {
    for (seed, size) in SIZES.into_iter().enumerate() {
        let bytes = body(size, seed as u64);
        let whole = key(prefix, &format!("whole-{size}"));
        put(backend, &whole, &bytes).await;
        same(&read(backend, &whole, None).await, &bytes, whole.as_str());

        let in_pieces = key(prefix, &format!("pieces-{size}"));
        let stored = backend
            .put(&in_pieces, &PutMeta::default(), streamed(&bytes))
            .await;
        stored.unwrap_or_else(|error| panic!("{size} bytes: {}", base::report(&error)));
        same(
            &read(backend, &in_pieces, None).await,
            &bytes,
            in_pieces.as_str(),
        );
        let head = backend
            .head(&in_pieces, None)
            .await
            .expect("the object is there");
        assert_eq!(head.size, size as u64);
    }
}

/// Entity tag, checksum and version of a stored object are what the capabilities say they are.
pub async fn a_stored_object_says_what_the_capabilities_promise(
    backend: &dyn ObjectBackend,
    prefix: &str,
) {
    let (key, bytes) = (key(prefix, "object"), body(70_000, 1));
    let stored = put(backend, &key, &bytes).await;
    let head = backend.head(&key, None).await.expect("the object is there");
    let Capabilities {
        md5_etag,
        checksum_header,
        echoes_checksum,
        versioned,
        ..
    } = backend.capabilities();
    if md5_etag {
        let etag = stored.etag.as_ref().expect("an entity tag was promised");
        assert_eq!(etag.as_md5(), Some(Md5::of(&bytes)));
    }
    if checksum_header {
        assert_eq!(stored.proof, Proof::Checksum);
    }
    if echoes_checksum {
        assert_eq!(stored.crc64, Some(Crc64::of(&bytes)));
    }
    assert_eq!(stored.version.is_some(), versioned);
    for crc64 in [stored.crc64, head.crc64].into_iter().flatten() {
        assert_eq!(crc64, Crc64::of(&bytes));
    }
    if stored.etag.is_some() {
        assert_eq!(head.etag, stored.etag);
    }
    if versioned {
        assert_eq!(head.version, stored.version);
    }
}

/// A range yields its bytes and no others; one that leaves the object is refused.
pub async fn ranges_yield_exactly_their_bytes(backend: &dyn ObjectBackend, prefix: &str) {
    let (key, bytes) = (key(prefix, "object"), body(700_001, 2));
    put(backend, &key, &bytes).await;
    let size = bytes.len();
    let ranges = [
        (0, 1),
        (0, size),
        (size - 1, 1),
        (65_535, 2),
        (65_536, 262_144),
        (1, size - 1),
        (9, 0),
    ];
    for (start, length) in ranges.into_iter().filter(|(_, length)| *length > 0) {
        let range = ByteRange {
            start: start as u64,
            length: length as u64,
        };
        let got = read(backend, &key, Some(range)).await;
        same(
            &got,
            &bytes.slice(start..start + length),
            &format!("{range:?}"),
        );
    }
    let fetched = backend
        .get(
            &key,
            None,
            Some(ByteRange {
                start: 3,
                length: 4,
            }),
        )
        .await;
    let fetched = fetched.expect("the range lies within");
    assert_eq!(
        fetched.head.size, size as u64,
        "the head is that of the whole object"
    );
    let outside = ByteRange {
        start: size as u64,
        length: 1,
    };
    let outcome = backend.get(&key, None, Some(outside)).await;
    expect_kind(outcome, Kind::Range, "a range behind the end");
}

fn headers() -> ObjectHeaders {
    let long = "v".repeat(USER_METADATA_BYTES_MAX - 200);
    ObjectHeaders {
        content_type: Some("text/x-odd; charset=\"utf-8\"; a=b".to_owned()),
        cache_control: Some("max-age=60, must-revalidate".to_owned()),
        content_disposition: Some("attachment; filename=\"a b;c.txt\"".to_owned()),
        content_encoding: Some("gzip".to_owned()),
        content_language: Some("de-CH, en".to_owned()),
        expires: Some("Thu, 01 Dec 2033 16:00:00 GMT".to_owned()),
        user: vec![
            ("s3o".to_owned(), "1,catalogue=0a%2Fb,blob=c".to_owned()),
            ("plain".to_owned(), "value".to_owned()),
            (
                "with-dash_and.dot".to_owned(),
                "two  spaces, a comma; \"quotes\" & =%41".to_owned(),
            ),
            ("long".to_owned(), long),
        ],
    }
}

fn expect_headers(mut got: ObjectHeaders, want: &ObjectHeaders) {
    let mut want = want.clone();
    got.user.sort();
    want.user.sort();
    assert_eq!(got, want);
}

/// Standard headers and user metadata are returned by head and get as they were given.
pub async fn headers_and_metadata_come_back(backend: &dyn ObjectBackend, prefix: &str) {
    let key = key(prefix, "object");
    let meta = PutMeta { headers: headers() };
    let payload = Payload::from_bytes(Bytes::from_static(b"with headers"));
    backend
        .put(&key, &meta, payload)
        .await
        .expect("the object is stored");
    let head = backend.head(&key, None).await.expect("the object is there");
    expect_headers(head.headers, &meta.headers);
    let fetched = backend
        .get(&key, None, None)
        .await
        .expect("the object is there");
    expect_headers(fetched.head.headers, &meta.headers);
}

async fn expect_apart(backend: &dyn ObjectBackend, prefix: &str, rest: &[&str]) {
    let mut want = BTreeMap::new();
    for (seed, rest) in rest.iter().enumerate() {
        let key = key(prefix, rest);
        let bytes = body(10 + seed, seed as u64);
        put(backend, &key, &bytes).await;
        want.insert(key.as_str().to_owned(), bytes);
    }
    for (key, bytes) in &want {
        let key = BackendKey::new(key).expect("it was one before");
        same(&read(backend, &key, None).await, bytes, key.as_str());
    }
    let listed = keys(backend, prefix).await;
    assert_eq!(
        listed,
        want.keys().cloned().collect::<Vec<_>>(),
        "the listing"
    );
    // Each goes without taking another along.
    let mut left: Vec<String> = want.into_keys().collect();
    while let Some(key) = left.pop() {
        let key = BackendKey::new(&key).expect("it was one before");
        let target = DeleteTarget { key, version: None };
        for outcome in backend.delete(&[target]).await {
            outcome.expect("the object was there");
        }
        assert_eq!(
            keys(backend, prefix).await,
            left,
            "the listing after a delete"
        );
    }
}

/// Keys with characters that mean something in a URL or a shell are kept as they are.
pub async fn unusual_keys_are_kept_apart(backend: &dyn ObjectBackend, prefix: &str) {
    let keys = [
        "a b",
        "a+b",
        "a%20b",
        "a%2Bb",
        "%2F",
        "a%2Fb",
        "a=b&c=d",
        "q?x#y",
        "ü",
        "u\u{308}",
        "日本",
        "😀",
        "'\"`$(x)",
        "A",
        "a",
        "{[~*|^<>@!,;:]}",
        "back\\slash",
        "trailing ",
        "-",
        "_.",
    ];
    expect_apart(backend, prefix, &keys).await;
}

/// Empty and dot components, control characters and the longest keys are kept as they are.
pub async fn odd_keys_are_kept_apart(backend: &dyn ObjectBackend, prefix: &str) {
    if !backend.capabilities().odd_keys {
        return;
    }
    let longest = "l".repeat(base::KEY_BYTES_MAX - prefix.len());
    let long_last = format!("{}é", "m".repeat(base::KEY_BYTES_MAX - prefix.len() - 2));
    let long_name = "n".repeat(300);
    let inside_long = format!("{long_name}/x");
    let keys = [
        "a",
        "a/",
        "a//",
        "a//b",
        "/a",
        "//",
        "../x",
        "../../x",
        "./x",
        "x/.",
        "x/..",
        ".",
        "..",
        "\u{1}",
        "a\nb",
        "a\r\n",
        "\t",
        "\u{7f}",
        "x/\u{1b}[0m",
        &longest,
        &long_last,
        &long_name,
        &inside_long,
        ".s3o-tmp/x",
        "lost+found",
        "lost+found/x",
    ];
    expect_apart(backend, prefix, &keys).await;
}

/// A key may be the beginning of others, as file and folder are not.
pub async fn a_key_may_be_the_beginning_of_another(backend: &dyn ObjectBackend, prefix: &str) {
    let keys = [
        "a", "a/b", "a/b/c", "a/b/c/d", "a/bb", "a-b", "a0", "a.b/c", "b/c", "b",
    ];
    expect_apart(backend, prefix, &keys).await;
}

/// A payload that breaks off, or ends before its length, is the caller's doing and leaves nothing.
pub async fn a_cut_payload_leaves_nothing(backend: &dyn ObjectBackend, prefix: &str) {
    for size in [1, 300_000, 6 * 1024 * 1024] {
        let bytes = body(size, 3);
        let mut kept = pieces(&bytes);
        kept.pop();
        let ends: [(&str, Option<PayloadCut>); 2] = [("cut", Some(PayloadCut)), ("short", None)];
        for (what, end) in ends {
            let key = key(prefix, &format!("{what}-{size}"));
            let chunks: Chunks =
                Box::pin(stream::iter(kept.clone()).chain(stream::iter(end.map(Err))));
            let payload = Payload::streamed(size as u64, chunks);
            let outcome = backend.put(&key, &PutMeta::default(), payload).await;
            expect_kind(outcome, Kind::PayloadCut, what);
            expect_absent(backend, &key).await;
        }
    }
}

/// A put whose future is dropped before its last bytes leaves nothing under its key.
pub async fn a_dropped_put_leaves_nothing(backend: &dyn ObjectBackend, prefix: &str) {
    let (key, bytes) = (key(prefix, "object"), body(900_000, 4));
    let mut kept = pieces(&bytes);
    kept.pop();
    let (reached, withheld) = oneshot::channel::<()>();
    let tail = async move {
        // The last bytes never come; whoever waits for this knows that all others were taken.
        let _ = reached.send(());
        std::future::pending().await
    };
    let chunks: Chunks = Box::pin(stream::iter(kept).chain(stream::once(tail)));
    let payload = Payload::streamed(bytes.len() as u64, chunks);
    let meta = PutMeta::default();
    tokio::select! {
        outcome = backend.put(&key, &meta, payload) => {
            panic!("the put ended without its last bytes: {outcome:?}");
        }
        _ = withheld => {}
    }
    expect_absent(backend, &key).await;
}

/// Bytes that do not match the checksum that goes with them are refused and leave nothing, where the
/// provider verifies checksums.
pub async fn a_checksum_that_differs_is_corrupt(backend: &dyn ObjectBackend, prefix: &str) {
    if !backend.capabilities().checksum_header {
        return;
    }
    let (key, bytes) = (key(prefix, "object"), body(10_000, 5));
    let mut payload = Payload::from_bytes(bytes.clone());
    payload.crc64 = Some(Crc64(Crc64::of(&bytes).0 ^ 1));
    let outcome = backend.put(&key, &PutMeta::default(), payload).await;
    let error = expect_kind(outcome, Kind::Corrupt, "a wrong checksum");
    assert_eq!(error.effect, Effect::None);
    expect_absent(backend, &key).await;
}

/// What is not there is `NotFound`, for every question about it.
pub async fn an_absent_object_is_not_found(backend: &dyn ObjectBackend, prefix: &str) {
    let absent = key(prefix, "absent");
    expect_kind(backend.head(&absent, None).await, Kind::NotFound, "head");
    expect_kind(
        backend.get(&absent, None, None).await,
        Kind::NotFound,
        "get",
    );
    if backend.capabilities().copy {
        let to = key(prefix, "copy");
        let outcome = backend.copy(&absent, None, &to, &PutMeta::default()).await;
        expect_kind(outcome, Kind::NotFound, "copy");
        expect_absent(backend, &to).await;
    }
    let page = backend
        .versions(&absent)
        .await
        .expect("asking for versions is legal");
    assert!(page.versions.is_empty());
}

/// A batch of deletes has one outcome per target, in order; an absent one is done or `NotFound`.
pub async fn deletes_answer_for_each_target(backend: &dyn ObjectBackend, prefix: &str) {
    let mut targets = Vec::new();
    for number in 0..7 {
        let key = key(prefix, &format!("dir-{}/object-{number}", number % 2));
        let version = put(backend, &key, &body(100, number)).await.version;
        targets.push(DeleteTarget { key, version });
    }
    let kept = targets.pop().expect("seven were made");
    targets.insert(
        3,
        DeleteTarget {
            key: key(prefix, "never/was"),
            version: None,
        },
    );
    let outcomes = backend.delete(&targets).await;
    assert_eq!(outcomes.len(), targets.len());
    for (place, outcome) in outcomes.into_iter().enumerate() {
        match outcome {
            Ok(()) => {}
            Err(error) => assert_eq!((place, error.kind), (3, Kind::NotFound)),
        }
        expect_absent(backend, &targets[place].key).await;
    }
    backend
        .head(&kept.key, None)
        .await
        .expect("an object that was not named stays");
    assert!(backend.delete(&[]).await.is_empty());
}

/// A copy has the bytes of its source and the headers that it was given; the source stays.
pub async fn a_copy_takes_new_metadata(backend: &dyn ObjectBackend, prefix: &str) {
    if !backend.capabilities().copy {
        return;
    }
    let (from, to) = (key(prefix, "from ü+%2F"), key(prefix, "deep/er/to"));
    let bytes = body(600_000, 6);
    put(backend, &from, &bytes).await;
    let meta = PutMeta { headers: headers() };
    let copied = backend
        .copy(&from, None, &to, &meta)
        .await
        .expect("the copy works");
    if let Some(crc64) = copied.crc64 {
        assert_eq!(crc64, Crc64::of(&bytes));
    }
    same(&read(backend, &to, None).await, &bytes, "the copy");
    let head = backend.head(&to, None).await.expect("the copy is there");
    expect_headers(head.headers, &meta.headers);
    same(&read(backend, &from, None).await, &bytes, "the source");
}
