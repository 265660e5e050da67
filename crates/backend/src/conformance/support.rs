//! What the cases have in common.

use base::{BackendKey, ByteRange, Crc64};
use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt as _, stream};

use crate::{
    Chunks, Error, Kind, ListRequest, ObjectBackend, PartFact, Payload, PutMeta, Result, Stored,
};

/// The smallest part that real providers take, in bytes.
pub(super) const PART_BYTES: usize = 5 * 1024 * 1024;

/// The pieces of a streamed payload: odd on purpose, so that nothing lines up.
const PIECE_BYTES: usize = 40_961;

pub(super) fn key(prefix: &str, rest: &str) -> BackendKey {
    BackendKey::new(&format!("{prefix}{rest}")).expect("a case makes legal keys")
}

/// Bytes that repeat nowhere soon and differ from seed to seed.
pub(super) fn body(length: usize, seed: u64) -> Bytes {
    let mut bytes = BytesMut::with_capacity(length + 8);
    let mut word = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    while bytes.len() < length {
        word ^= word << 13;
        word ^= word >> 7;
        word ^= word << 17;
        bytes.extend_from_slice(&word.to_le_bytes());
    }
    bytes.truncate(length);
    bytes.freeze()
}

/// The bytes as pieces, of which the last may be withheld.
pub(super) fn pieces(bytes: &Bytes) -> Vec<std::result::Result<Bytes, crate::PayloadCut>> {
    let mut rest = bytes.clone();
    let mut pieces = Vec::new();
    while !rest.is_empty() {
        pieces.push(Ok(rest.split_to(rest.len().min(PIECE_BYTES))));
    }
    pieces
}

/// A payload that comes in pieces and says nothing of itself but its length.
pub(super) fn streamed(bytes: &Bytes) -> Payload {
    let chunks: Chunks = Box::pin(stream::iter(pieces(bytes)));
    Payload::streamed(bytes.len() as u64, chunks)
}

pub(super) async fn put(backend: &dyn ObjectBackend, key: &BackendKey, bytes: &Bytes) -> Stored {
    let payload = Payload::from_bytes(bytes.clone());
    let stored = backend.put(key, &PutMeta::default(), payload).await;
    stored.unwrap_or_else(|error| panic!("putting {key:?}: {}", base::report(&error)))
}

pub(super) async fn read(
    backend: &dyn ObjectBackend,
    key: &BackendKey,
    range: Option<ByteRange>,
) -> Bytes {
    let fetched = backend.get(key, None, range).await;
    let mut fetched =
        fetched.unwrap_or_else(|error| panic!("getting {key:?}: {}", base::report(&error)));
    let mut bytes = BytesMut::new();
    while let Some(chunk) = fetched.body.next().await {
        let chunk = chunk.unwrap_or_else(|e| panic!("reading {key:?}: {}", base::report(&e)));
        bytes.extend_from_slice(&chunk);
    }
    bytes.freeze()
}

/// Compares without printing megabytes.
pub(super) fn same(got: &Bytes, want: &Bytes, what: &str) {
    assert_eq!(got.len(), want.len(), "length of {what}");
    let first = got.iter().zip(want.iter()).position(|(a, b)| a != b);
    assert_eq!(first, None, "first byte of {what} that differs");
}

pub(super) fn expect_kind<T: std::fmt::Debug>(outcome: Result<T>, kind: Kind, what: &str) -> Error {
    match outcome {
        Ok(value) => panic!("{what}: expected {kind:?}, got {value:?}"),
        Err(error) => {
            assert_eq!(error.kind, kind, "{what}: {}", base::report(&error));
            error
        }
    }
}

/// That nothing is to be seen of a key: not by head, not in a listing.
pub(super) async fn expect_absent(backend: &dyn ObjectBackend, key: &BackendKey) {
    let head = backend.head(key, None).await;
    expect_kind(head, Kind::NotFound, &format!("head of {key:?}"));
    let keys = keys(backend, key.as_str()).await;
    assert!(
        !keys.contains(&key.as_str().to_owned()),
        "{key:?} is listed"
    );
}

/// All keys with this prefix, by as many pages as it takes.
pub(super) async fn keys(backend: &dyn ObjectBackend, prefix: &str) -> Vec<String> {
    let mut request = ListRequest {
        prefix: prefix.to_owned(),
        after: None,
        max_keys: 1000,
    };
    let mut keys: Vec<String> = Vec::new();
    loop {
        let page = backend.list(&request).await;
        let page = page.unwrap_or_else(|e| panic!("listing {prefix:?}: {}", base::report(&e)));
        keys.extend(page.objects.into_iter().map(|object| object.key));
        if !page.truncated {
            return keys;
        }
        request.after = keys.last().cloned();
    }
}

pub(super) async fn begin(backend: &dyn ObjectBackend, key: &BackendKey, meta: &PutMeta) -> String {
    let upload = backend.create_upload(key, meta).await;
    upload.unwrap_or_else(|error| panic!("beginning {key:?}: {}", base::report(&error)))
}

pub(super) async fn part(
    backend: &dyn ObjectBackend,
    key: &BackendKey,
    upload: &str,
    number: u32,
    bytes: &Bytes,
) -> PartFact {
    let meta = PutMeta::default();
    let stored = backend
        .upload_part(key, upload, number, &meta, streamed(bytes))
        .await;
    let stored = stored.unwrap_or_else(|e| panic!("part {number}: {}", base::report(&e)));
    if let Some(crc64) = stored.crc64 {
        assert_eq!(crc64, Crc64::of(bytes), "checksum of part {number}");
    }
    let etag = stored
        .etag
        .expect("a part has an entity tag, or Complete could not name it");
    PartFact {
        number,
        etag,
        crc64: stored.crc64,
    }
}
