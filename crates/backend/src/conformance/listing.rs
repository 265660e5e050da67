//! Cases about listings, versions, the marker and the probe.

use base::{Crc64, Md5};
use bytes::Bytes;

use super::multipart::a_part_can_be_copied_from_a_range;
use super::support::{begin, body, expect_absent, expect_kind, key, keys, put, streamed};
use crate::{DeleteTarget, Kind, ListRequest, ObjectBackend, Payload, Proof, PutMeta, VersionRef};

/// A listing names each key once, in the order of their bytes, whatever the size of its pages.
pub async fn keys_come_in_byte_order_page_by_page(backend: &dyn ObjectBackend, prefix: &str) {
    let rest = [
        "B", "a", "a-", "a-b/c", "a.txt", "a/1", "a/2/x", "a/b", "a0", "b/1", "b/2", "b/3", "b1",
        "ä", "\u{ffff}", "😀", "c/d/e/f", "c/d/e0", "z",
    ];
    let mut want: Vec<String> = rest.iter().map(|rest| format!("{prefix}{rest}")).collect();
    for (size, rest) in rest.iter().enumerate() {
        put(backend, &key(prefix, rest), &body(size, 7)).await;
    }
    want.sort();
    for max_keys in [1, 2, 7, 1000] {
        let mut request = ListRequest {
            prefix: prefix.to_owned(),
            after: None,
            max_keys,
        };
        let mut got = Vec::new();
        loop {
            let page = backend.list(&request).await.expect("listing works");
            assert!(page.objects.len() <= max_keys as usize);
            got.extend(page.objects.into_iter().map(|object| object.key));
            if !page.truncated {
                break;
            }
            request.after = got.last().cloned();
        }
        assert_eq!(got, want, "in pages of {max_keys}");
    }
    for (narrow, count) in [
        ("a/", 3),
        ("a", 8),
        ("b/", 3),
        ("c/d", 2),
        ("c/d/e/", 1),
        ("x", 0),
    ] {
        let got = keys(backend, &format!("{prefix}{narrow}")).await;
        assert_eq!(got.len(), count, "below {narrow:?}: {got:?}");
    }
    let after = Some(format!("{prefix}a/2"));
    let request = ListRequest {
        prefix: format!("{prefix}a/"),
        after,
        max_keys: 10,
    };
    let page = backend.list(&request).await.expect("listing works");
    let sizes: Vec<_> = page.objects.iter().map(|object| object.size).collect();
    assert_eq!(sizes, [6, 7], "sizes of {:?}", page.objects);
    assert!(!page.truncated);
}

/// Versions are those of one key and not of keys that begin with it; deleted by id they are gone.
pub async fn versions_are_those_of_exactly_one_key(backend: &dyn ObjectBackend, prefix: &str) {
    let (short, longer) = (key(prefix, "object"), key(prefix, "object-2"));
    let stored = put(backend, &short, &body(10, 8)).await;
    put(backend, &longer, &body(20, 9)).await;
    let page = backend
        .versions(&short)
        .await
        .expect("versions can be asked for");
    let version = VersionRef {
        version: stored.version.clone(),
        delete_marker: false,
    };
    assert_eq!(page.versions, [version]);
    if !backend.capabilities().versioned {
        return;
    }
    let unnamed = DeleteTarget {
        key: short.clone(),
        version: None,
    };
    for outcome in backend.delete(&[unnamed]).await {
        outcome.expect("a delete marker is added");
    }
    expect_absent(backend, &short).await;
    let head = backend.head(&short, stored.version.as_deref()).await;
    assert_eq!(head.expect("the version is still there").size, 10);
    let page = backend
        .versions(&short)
        .await
        .expect("versions can be asked for");
    assert_eq!(
        page.versions
            .iter()
            .filter(|version| version.delete_marker)
            .count(),
        1
    );
    assert_eq!(page.versions.len(), 2);
    let all: Vec<DeleteTarget> = page
        .versions
        .into_iter()
        .map(|version| DeleteTarget {
            key: short.clone(),
            version: version.version,
        })
        .collect();
    for outcome in backend.delete(&all).await {
        outcome.expect("a version is deleted by its id");
    }
    let page = backend
        .versions(&short)
        .await
        .expect("versions can be asked for");
    assert!(page.versions.is_empty(), "left: {page:?}");
}

/// The marker reads back whole, is replaced whole, and a too long one is refused. A first one is
/// written where there is none, and replaces none unless the provider ignores the condition.
pub async fn the_marker_is_read_as_it_was_written(backend: &dyn ObjectBackend, _prefix: &str) {
    a_first_marker_is_written_where_there_is_none(backend).await;
    for content in ["first", "", "second, longer than the first"] {
        let content = Bytes::from_static(content.as_bytes());
        backend
            .write_marker(content.clone())
            .await
            .expect("the marker is written");
        let read = backend.read_marker().await.expect("the marker is read");
        assert_eq!(read, Some(content));
    }
    let long = Bytes::from(vec![b'm'; crate::MARKER_BYTES_MAX + 1]);
    expect_kind(
        backend.write_marker(long).await,
        Kind::Rejected,
        "a long marker",
    );
    let read = backend.read_marker().await.expect("the marker is read");
    assert_eq!(read.as_deref(), Some(&b"second, longer than the first"[..]));
    let marker = base::BackendKey::new(crate::MARKER_KEY).expect("a legal key");
    let page = backend
        .versions(&marker)
        .await
        .expect("versions can be asked for");
    assert_eq!(page.versions.len(), 1, "older versions are deleted");
}

async fn a_first_marker_is_written_where_there_is_none(backend: &dyn ObjectBackend) {
    let long = Bytes::from(vec![b'm'; crate::MARKER_BYTES_MAX + 1]);
    expect_kind(
        backend.create_marker(long).await,
        Kind::Rejected,
        "a long first marker",
    );
    let marker = base::BackendKey::new(crate::MARKER_KEY).expect("a legal key");
    let page = backend.versions(&marker).await;
    let left_by_an_earlier_run = page.expect("versions can be asked for").versions;
    let targets: Vec<DeleteTarget> = left_by_an_earlier_run
        .into_iter()
        .map(|version| DeleteTarget {
            key: marker.clone(),
            version: version.version,
        })
        .collect();
    for outcome in backend.delete(&targets).await {
        outcome.expect("a marker is deleted like any object");
    }
    let (first, second) = (Bytes::from_static(b"one"), Bytes::from_static(b"two"));
    match backend.create_marker(first.clone()).await {
        Ok(()) => {
            let read = backend.read_marker().await.expect("the marker is read");
            assert_eq!(read, Some(first.clone()));
        }
        Err(error) if matches!(error.kind, Kind::Unsupported | Kind::Rejected) => {
            let read = backend.read_marker().await.expect("the marker is read");
            assert_eq!(read, None, "nothing is written");
            return;
        }
        Err(error) => panic!("the first marker: {}", base::report(&error)),
    }
    // A provider that ignores the condition replaces it; whoever refuses has left it.
    let stays = match backend.create_marker(second.clone()).await {
        Ok(()) => second,
        Err(error) if error.kind == Kind::Precondition => first,
        Err(error) => panic!("the second marker: {}", base::report(&error)),
    };
    let read = backend.read_marker().await.expect("the marker is read");
    assert_eq!(read, Some(stays));
}

/// What the probe claims is so, and it leaves nothing behind.
pub async fn the_probe_tells_the_truth(backend: &dyn ObjectBackend, prefix: &str) {
    let found = backend.probe().await.expect("the probe works");
    assert_eq!(
        found,
        backend.capabilities(),
        "the probe adopts what it finds"
    );
    backend.check().await.expect("the bucket is there");
    assert_eq!(keys(backend, ".s3o/probe/").await, Vec::<String>::new());
    let (object, bytes) = (key(prefix, "object"), body(5000, 10));
    let stored = put(backend, &object, &bytes).await;
    if found.md5_etag {
        let etag = stored.etag.clone().expect("an entity tag was promised");
        assert_eq!(etag.as_md5(), Some(Md5::of(&bytes)));
    }
    if found.checksum_header {
        assert_eq!(stored.proof, Proof::Checksum);
        let mut payload = Payload::from_bytes(bytes.clone());
        payload.crc64 = Some(Crc64(0));
        let outcome = backend
            .put(&key(prefix, "wrong"), &PutMeta::default(), payload)
            .await;
        expect_kind(outcome, Kind::Corrupt, "a wrong checksum");
    }
    if found.checksum_trailer {
        let trailed = key(prefix, "trailed");
        let stored = backend
            .put(&trailed, &PutMeta::default(), streamed(&bytes))
            .await;
        let stored = stored.expect("a stream is stored");
        assert_eq!(stored.proof, Proof::Checksum);
        if found.echoes_checksum {
            assert_eq!(stored.crc64, Some(Crc64::of(&bytes)));
        }
    }
    assert_eq!(stored.version.is_some(), found.versioned);
    if found.copy {
        let to = key(prefix, "copy");
        let copied = backend.copy(&object, None, &to, &PutMeta::default()).await;
        copied.expect("copies were promised");
    }
    if found.part_copy {
        a_part_can_be_copied_from_a_range(backend, &format!("{prefix}part-copy/")).await;
    }
    if found.list_uploads {
        let open = key(prefix, "open");
        let upload = begin(backend, &open, &PutMeta::default()).await;
        let page = backend.list_uploads(open.as_str(), None).await;
        assert_eq!(page.expect("uploads can be listed").uploads.len(), 1);
        backend
            .abort_upload(&open, &upload)
            .await
            .expect("it is open");
    }
    if found.odd_keys {
        put(backend, &key(prefix, "../x//y/."), &bytes).await;
    }
    if found.batch_delete {
        let targets: Vec<DeleteTarget> = keys(backend, prefix)
            .await
            .iter()
            .map(|rest| DeleteTarget {
                key: key("", rest),
                version: None,
            })
            .collect();
        for outcome in backend.delete(&targets).await {
            outcome.expect("batches were promised");
        }
        assert_eq!(keys(backend, prefix).await, Vec::<String>::new());
    }
}
