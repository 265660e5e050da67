//! Cases about multipart uploads.

use base::{ByteRange, Crc64, ETag, ObjectHeaders};
use bytes::{Bytes, BytesMut};

use super::support::{
    PART_BYTES, begin, body, expect_absent, expect_kind, key, part, put, read, same, streamed,
};
use crate::{Kind, ListedUpload, ObjectBackend, PartFact, PartSource, PutMeta};

fn joined(parts: &[&Bytes]) -> Bytes {
    let mut whole = BytesMut::new();
    parts.iter().for_each(|part| whole.extend_from_slice(part));
    whole.freeze()
}

fn meta() -> PutMeta {
    let headers = ObjectHeaders {
        content_type: Some("application/x-parts".to_owned()),
        user: vec![("s3o".to_owned(), "1,upload".to_owned())],
        ..ObjectHeaders::default()
    };
    PutMeta { headers }
}

/// Until Complete nothing is to be seen; then there is one object with all bytes and the headers that
/// the upload began with. It is copied, deleted and read in ranges like any other.
pub async fn a_completed_upload_is_one_object(backend: &dyn ObjectBackend, prefix: &str) {
    let key = key(prefix, "dir/object");
    let bodies = [
        body(PART_BYTES, 20),
        body(PART_BYTES + 1, 21),
        body(12_345, 22),
    ];
    let upload = begin(backend, &key, &meta()).await;
    let mut facts = Vec::new();
    for (number, bytes) in (1..).zip(&bodies) {
        facts.push(part(backend, &key, &upload, number, bytes).await);
    }
    expect_absent(backend, &key).await;
    let page = backend
        .list_parts(&key, &upload, 0)
        .await
        .expect("the upload is open");
    let listed: Vec<(u32, u64)> = page.parts.iter().map(|p| (p.number, p.size)).collect();
    let want: Vec<(u32, u64)> = (1..).zip(bodies.iter().map(|b| b.len() as u64)).collect();
    assert_eq!(listed, want);
    for (held, fact) in page.parts.iter().zip(&facts) {
        assert_eq!(held.etag, fact.etag);
    }
    let page = backend
        .list_parts(&key, &upload, 2)
        .await
        .expect("the upload is open");
    assert_eq!(page.parts.iter().map(|p| p.number).collect::<Vec<_>>(), [3]);

    let stored = backend
        .complete_upload(&key, &upload, &facts)
        .await
        .expect("all parts are there");
    let whole = joined(&bodies.each_ref());
    if let Some(crc64) = stored.crc64 {
        assert_eq!(crc64, Crc64::of(&whole));
    }
    same(&read(backend, &key, None).await, &whole, "the object");
    let head = backend.head(&key, None).await.expect("the object is there");
    assert_eq!(head.size, whole.len() as u64);
    if stored.etag.is_some() {
        assert_eq!(head.etag, stored.etag);
    }
    assert_eq!(head.headers, meta().headers);
    for (start, length) in [
        (0, 10),
        (PART_BYTES - 3, 7),
        (PART_BYTES * 2, 12_346),
        (1, PART_BYTES * 2),
    ] {
        let range = ByteRange {
            start: start as u64,
            length: length as u64,
        };
        let got = read(backend, &key, Some(range)).await;
        same(
            &got,
            &whole.slice(start..start + length),
            &format!("{range:?}"),
        );
    }
    let outcome = backend.list_parts(&key, &upload, 0).await;
    expect_kind(
        outcome,
        Kind::NoSuchUpload,
        "the parts of a completed upload",
    );
    if backend.capabilities().copy {
        let to = super::support::key(prefix, "copy");
        backend
            .copy(&key, None, &to, &PutMeta::default())
            .await
            .expect("it can be copied");
        same(&read(backend, &to, None).await, &whole, "the copy");
    }
    let target = crate::DeleteTarget {
        key: key.clone(),
        version: stored.version,
    };
    for outcome in backend.delete(&[target]).await {
        outcome.expect("the object was there");
    }
    expect_absent(backend, &key).await;
}

/// Parts may arrive in any order, be sent again, and be left out.
pub async fn parts_come_in_any_order_and_can_be_replaced(
    backend: &dyn ObjectBackend,
    prefix: &str,
) {
    let key = key(prefix, "object");
    let upload = begin(backend, &key, &PutMeta::default()).await;
    let (older, newer) = (body(PART_BYTES, 23), body(PART_BYTES + 5, 24));
    let (unused, last) = (body(PART_BYTES, 25), body(100, 26));
    let tail = part(backend, &key, &upload, 9, &last).await;
    part(backend, &key, &upload, 4, &unused).await;
    part(backend, &key, &upload, 2, &older).await;
    let replaced = part(backend, &key, &upload, 2, &newer).await;
    let page = backend
        .list_parts(&key, &upload, 0)
        .await
        .expect("the upload is open");
    let listed: Vec<(u32, u64)> = page.parts.iter().map(|p| (p.number, p.size)).collect();
    let size = |bytes: &Bytes| bytes.len() as u64;
    assert_eq!(
        listed,
        [(2, size(&newer)), (4, size(&unused)), (9, size(&last))]
    );
    let completed = backend
        .complete_upload(&key, &upload, &[replaced, tail])
        .await;
    completed.expect("a subset of the parts makes an object");
    same(
        &read(backend, &key, None).await,
        &joined(&[&newer, &last]),
        "the object",
    );
}

/// Complete refuses a part that is not there or has another entity tag, and the upload stays open.
pub async fn complete_refuses_other_parts(backend: &dyn ObjectBackend, prefix: &str) {
    let key = key(prefix, "object");
    let upload = begin(backend, &key, &PutMeta::default()).await;
    let bytes = body(1000, 27);
    let fact = part(backend, &key, &upload, 1, &bytes).await;
    let missing = PartFact {
        number: 2,
        ..fact.clone()
    };
    let outcome = backend
        .complete_upload(&key, &upload, &[fact.clone(), missing])
        .await;
    expect_kind(outcome, Kind::InvalidPart, "a part that is not there");
    let other = PartFact {
        number: 1,
        etag: ETag::new("00000000000000000000000000000000"),
        crc64: None,
    };
    let outcome = backend.complete_upload(&key, &upload, &[other]).await;
    expect_kind(outcome, Kind::InvalidPart, "another entity tag");
    expect_absent(backend, &key).await;
    let completed = backend.complete_upload(&key, &upload, &[fact]).await;
    completed.expect("the upload is still open");
    same(&read(backend, &key, None).await, &bytes, "the object");
}

/// After Abort no part can be added, listed or completed, and no object appears.
pub async fn an_aborted_upload_is_gone(backend: &dyn ObjectBackend, prefix: &str) {
    let key = key(prefix, "object");
    let upload = begin(backend, &key, &PutMeta::default()).await;
    let fact = part(backend, &key, &upload, 1, &body(1000, 28)).await;
    backend
        .abort_upload(&key, &upload)
        .await
        .expect("the upload is open");
    let outcome = backend.complete_upload(&key, &upload, &[fact]).await;
    expect_kind(outcome, Kind::NoSuchUpload, "complete after abort");
    let payload = streamed(&body(1000, 29));
    let outcome = backend
        .upload_part(&key, &upload, 2, &PutMeta::default(), payload)
        .await;
    expect_kind(outcome, Kind::NoSuchUpload, "a part after abort");
    expect_absent(backend, &key).await;
    if backend.capabilities().list_uploads {
        let page = backend
            .list_uploads(key.as_str(), None)
            .await
            .expect("uploads can be listed");
        assert!(page.uploads.is_empty(), "{page:?}");
    }
}

/// An upload that was never begun, or that belongs to another key, is `NoSuchUpload` for every call.
pub async fn an_upload_that_is_unknown_is_named_so(backend: &dyn ObjectBackend, prefix: &str) {
    let object = key(prefix, "object");
    // A real id that has ended: some providers answer a malformed one with another code.
    let ended = begin(backend, &object, &PutMeta::default()).await;
    backend
        .abort_upload(&object, &ended)
        .await
        .expect("the upload is open");
    let meta = PutMeta::default();
    let fact = PartFact {
        number: 1,
        etag: ETag::new("0123456789abcdef"),
        crc64: None,
    };
    let outcome = backend
        .upload_part(&object, &ended, 1, &meta, streamed(&body(9, 30)))
        .await;
    expect_kind(outcome, Kind::NoSuchUpload, "upload_part");
    let outcome = backend.complete_upload(&object, &ended, &[fact]).await;
    expect_kind(outcome, Kind::NoSuchUpload, "complete_upload");
    let outcome = backend.list_parts(&object, &ended, 0).await;
    expect_kind(outcome, Kind::NoSuchUpload, "list_parts");
    match backend.abort_upload(&object, &ended).await {
        Ok(()) => {} // Some providers forget at once and do not mind.
        Err(error) => assert_eq!(error.kind, Kind::NoSuchUpload),
    }
}

/// A part may consist of a range of an object, or of all of it.
pub async fn a_part_can_be_copied_from_a_range(backend: &dyn ObjectBackend, prefix: &str) {
    if !backend.capabilities().part_copy {
        return;
    }
    let (source, target) = (key(prefix, "source ü"), key(prefix, "target"));
    let bytes = body(PART_BYTES + 1000, 31);
    put(backend, &source, &bytes).await;
    let upload = begin(backend, &target, &PutMeta::default()).await;
    let ranges = [
        Some(ByteRange {
            start: 7,
            length: PART_BYTES as u64,
        }),
        None,
        Some(ByteRange {
            start: 100,
            length: 50,
        }),
    ];
    let mut facts = Vec::new();
    for (number, range) in (1..).zip(ranges) {
        let from = PartSource {
            key: source.clone(),
            version: None,
            range,
        };
        let copied = backend
            .upload_part_copy(&target, &upload, number, &from)
            .await;
        let copied = copied.unwrap_or_else(|e| panic!("{range:?}: {}", base::report(&e)));
        let etag = copied.etag.expect("a part has an entity tag");
        facts.push(PartFact {
            number,
            etag,
            crc64: copied.crc64,
        });
    }
    backend
        .complete_upload(&target, &upload, &facts)
        .await
        .expect("all parts are there");
    let want = joined(&[
        &bytes.slice(7..7 + PART_BYTES),
        &bytes,
        &bytes.slice(100..150),
    ]);
    same(&read(backend, &target, None).await, &want, "the object");
}

/// Open uploads are found by prefix, in order, page by page.
pub async fn open_uploads_are_listed(backend: &dyn ObjectBackend, prefix: &str) {
    if !backend.capabilities().list_uploads {
        return;
    }
    let mut want = Vec::new();
    for rest in ["b", "a", "a", "a/c"] {
        let key = key(prefix, rest);
        let upload = begin(backend, &key, &PutMeta::default()).await;
        want.push(ListedUpload {
            key: key.as_str().to_owned(),
            upload,
        });
    }
    let page = backend
        .list_uploads(prefix, None)
        .await
        .expect("uploads can be listed");
    let order: Vec<&str> = page
        .uploads
        .iter()
        .map(|u| &u.key[prefix.len()..])
        .collect();
    assert_eq!(order, ["a", "a", "a/c", "b"]);
    assert!(
        want.iter().all(|upload| page.uploads.contains(upload)),
        "{page:?}"
    );
    let rest = backend.list_uploads(prefix, Some(&page.uploads[1])).await;
    assert_eq!(
        rest.expect("uploads can be listed").uploads,
        page.uploads[2..]
    );
    let narrow = backend.list_uploads(&format!("{prefix}a/"), None).await;
    assert_eq!(narrow.expect("uploads can be listed").uploads.len(), 1);
    for open in want {
        let key = key("", &open.key);
        backend
            .abort_upload(&key, &open.upload)
            .await
            .expect("the upload is open");
    }
}
