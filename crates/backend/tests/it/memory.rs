//! The backend in memory: the suite with and without versions, its limit and its counters.

use std::sync::Arc;

use backend::memory::{MemoryOptions, Versions};
use backend::{
    BackendKey, Kind, MemoryBackend, ObjectBackend, PartFact, Payload, PutMeta, conformance,
};
use base::{ObjectHeaders, SystemClock};
use bytes::Bytes;

fn memory(options: MemoryOptions) -> MemoryBackend {
    let name = "memory".parse().expect("a legal name");
    MemoryBackend::with_options(name, options, Arc::new(SystemClock))
}

macro_rules! plain {
    ($($case:ident),* $(,)?) => {
        mod conforms {
            use super::*;
            $(
                #[tokio::test]
                async fn $case() {
                    let backend = memory(MemoryOptions::default());
                    conformance::$case(&backend, concat!("c/", stringify!($case), "/")).await;
                }
            )*
        }
    };
}

macro_rules! versioned {
    ($($case:ident),* $(,)?) => {
        mod conforms_with_versions {
            use super::*;
            $(
                #[tokio::test]
                async fn $case() {
                    let options =
                        MemoryOptions { versions: Versions::On, ..MemoryOptions::default() };
                    let backend = memory(options);
                    conformance::$case(&backend, concat!("c/", stringify!($case), "/")).await;
                }
            )*
        }
    };
}

backend::conformance_cases!(plain);
backend::conformance_cases!(versioned);

fn key(key: &str) -> BackendKey {
    BackendKey::new(key).expect("a legal key")
}

fn payload(bytes: &'static [u8]) -> Payload {
    Payload::from_bytes(Bytes::from_static(bytes))
}

#[tokio::test]
async fn a_backend_at_its_limit_is_full_and_takes_no_byte_more() {
    let backend = memory(MemoryOptions {
        bytes_max: Some(10),
        ..MemoryOptions::default()
    });
    let meta = PutMeta::default();
    backend
        .put(&key("a"), &meta, payload(b"123456"))
        .await
        .unwrap();
    let refused = backend
        .put(&key("b"), &meta, payload(b"12345"))
        .await
        .unwrap_err();
    assert_eq!(refused.kind, Kind::Full);
    let upload = backend.create_upload(&key("c"), &meta).await.unwrap();
    backend
        .upload_part(&key("c"), &upload, 1, &meta, payload(b"1234"))
        .await
        .unwrap();
    let refused = backend
        .upload_part(&key("c"), &upload, 2, &meta, payload(b"1"))
        .await;
    assert_eq!(refused.unwrap_err().kind, Kind::Full);
    assert_eq!(backend.used_bytes(), 10);
    backend.abort_upload(&key("c"), &upload).await.unwrap();
    assert_eq!(backend.used_bytes(), 6);
}

#[tokio::test]
async fn complete_moves_no_bytes() {
    let backend = memory(MemoryOptions::default());
    let meta = PutMeta::default();
    let upload = backend.create_upload(&key("a"), &meta).await.unwrap();
    let stored = backend
        .upload_part(&key("a"), &upload, 1, &meta, payload(b"part"))
        .await
        .unwrap();
    assert_eq!(backend.uploads()[0].parts, [(1, 4)].into());
    let before = backend.calls();
    let fact = PartFact {
        number: 1,
        etag: stored.etag.unwrap(),
        crc64: stored.crc64,
    };
    backend
        .complete_upload(&key("a"), &upload, &[fact])
        .await
        .unwrap();
    let after = backend.calls();
    assert_eq!(
        (before.bytes_in, before.bytes_out),
        (after.bytes_in, after.bytes_out)
    );
    assert_eq!(after.of("complete_upload"), 1);
    assert_eq!(&backend.object("a").unwrap().bytes[..], b"part");
    assert!(backend.uploads().is_empty());
}

#[tokio::test]
async fn accidents_can_be_staged_without_a_call() {
    let backend = memory(MemoryOptions::default());
    backend.plant("x", Bytes::from_static(b"theirs"), ObjectHeaders::default());
    assert_eq!(backend.keys(), ["x"]);
    let intact = backend.head(&key("x"), None).await.unwrap();
    assert!(backend.rot("x"));
    let rotten = backend.object("x").unwrap().bytes;
    assert_ne!(Some(base::Crc64::of(&rotten)), intact.crc64);
    assert!(backend.lose("x") && !backend.lose("x") && !backend.rot("x"));
    assert_eq!(backend.calls().by_operation, [("head", 1)].into());
}
