//! The backend in a directory: the suite on the machine's file system.

use std::path::Path;
use std::sync::Arc;

use backend::{
    BackendKey, Body, Chunks, DeleteTarget, Effect, Kind, ListRequest, LocalBackend,
    ObjectBackend as _, PartFact, Payload, PayloadCut, PutMeta, conformance,
};
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use tempfile::TempDir;

fn local() -> (LocalBackend, TempDir) {
    let directory = tempfile::tempdir().expect("a directory for the test");
    let name = "local".parse().expect("a legal name");
    let backend = LocalBackend::new(name, directory.path()).expect("a short path");
    (backend, directory)
}

macro_rules! instantiate {
    ($($case:ident),* $(,)?) => {
        $(
            #[tokio::test]
            async fn $case() {
                let (backend, _directory) = local();
                conformance::$case(&backend, concat!("c/", stringify!($case), "/")).await;
            }
        )*
    };
}

backend::conformance_cases!(instantiate);

fn key(key: &str) -> BackendKey {
    BackendKey::new(key).expect("a legal key")
}

fn payload(bytes: &[u8]) -> Payload {
    Payload::from_bytes(Bytes::copy_from_slice(bytes))
}

async fn put(backend: &LocalBackend, name: &str, bytes: &[u8]) {
    let stored = backend
        .put(&key(name), &PutMeta::default(), payload(bytes))
        .await;
    stored.expect("the directory is there");
}

async fn delete(backend: &LocalBackend, name: &str) {
    let target = DeleteTarget {
        key: key(name),
        version: None,
    };
    for outcome in backend.delete(&[target]).await {
        outcome.expect("the object is there");
    }
}

async fn rest(mut body: Body) -> Vec<u8> {
    let mut bytes = Vec::new();
    while let Some(chunk) = body.next().await {
        bytes.extend_from_slice(&chunk.expect("the body is whole"));
    }
    bytes
}

/// All files below a directory, as paths below it.
fn files(root: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut open = vec![root.to_owned()];
    while let Some(directory) = open.pop() {
        // What is removed at this moment is not there.
        let Ok(entries) = std::fs::read_dir(&directory) else {
            continue;
        };
        for entry in entries {
            let path = entry.expect("a readable directory").path();
            match path.is_dir() {
                true => open.push(path),
                false => {
                    let path = path.strip_prefix(root).expect("below the root");
                    found.push(path.to_str().expect("UTF-8").to_owned());
                }
            }
        }
    }
    found.sort();
    found
}

/// Makes an object of two parts and returns its bytes.
async fn assemble(backend: &LocalBackend, name: &str) -> Vec<u8> {
    let meta = PutMeta::default();
    let upload = backend
        .create_upload(&key(name), &meta)
        .await
        .expect("it is there");
    let bodies = [vec![1; 300_000], vec![2; 400_000]];
    let mut facts = Vec::new();
    for (number, body) in (1..).zip(&bodies) {
        let stored = backend
            .upload_part(&key(name), &upload, number, &meta, payload(body))
            .await;
        let stored = stored.expect("the upload is open");
        facts.push(PartFact {
            number,
            etag: stored.etag.expect("a tag"),
            crc64: stored.crc64,
        });
    }
    backend
        .complete_upload(&key(name), &upload, &facts)
        .await
        .expect("the parts are there");
    bodies.concat()
}

#[tokio::test]
async fn a_missing_directory_is_unavailable_and_is_not_made() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("not/mounted");
    let backend = LocalBackend::new("local".parse().unwrap(), &root).unwrap();
    let meta = PutMeta::default();
    let kinds = [
        backend.check().await.unwrap_err().kind,
        backend.probe().await.unwrap_err().kind,
        backend
            .put(&key("a"), &meta, payload(b"x"))
            .await
            .unwrap_err()
            .kind,
        backend.get(&key("a"), None, None).await.unwrap_err().kind,
        backend
            .list(&ListRequest::default())
            .await
            .unwrap_err()
            .kind,
        backend
            .create_upload(&key("a"), &meta)
            .await
            .unwrap_err()
            .kind,
        backend.read_marker().await.unwrap_err().kind,
        backend.write_marker(Bytes::new()).await.unwrap_err().kind,
    ];
    assert_eq!(kinds, [Kind::Unavailable; 8]);
    assert!(!directory.path().join("not").exists());
    LocalBackend::create(&root).unwrap();
    LocalBackend::create(&root).unwrap();
    put(&backend, "a", b"x").await;
}

#[tokio::test]
async fn a_directory_that_took_the_place_of_another_is_not_touched_before_its_marker_is_read() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("disk");
    LocalBackend::create(&root).unwrap();
    let backend = LocalBackend::new("local".parse().unwrap(), &root).unwrap();
    put(&backend, "a", b"x").await;
    // The disk goes away; what is seen is the empty directory that it was mounted on.
    std::fs::rename(&root, directory.path().join("unmounted")).unwrap();
    std::fs::create_dir(&root).unwrap();
    let error = backend.head(&key("a"), None).await.unwrap_err();
    assert_eq!(error.kind, Kind::Unavailable, "not NotFound");
    let refused = backend
        .put(&key("b"), &PutMeta::default(), payload(b"x"))
        .await
        .unwrap_err();
    assert_eq!(refused.kind, Kind::Unavailable);
    assert_eq!(files(&root), Vec::<String>::new());
    assert_eq!(
        backend.read_marker().await.unwrap(),
        None,
        "now the engine knows"
    );
    let still = backend
        .put(&key("b"), &PutMeta::default(), payload(b"x"))
        .await
        .unwrap_err();
    assert_eq!(
        still.kind,
        Kind::Unavailable,
        "a look does not make it ours"
    );
    assert_eq!(files(&root), Vec::<String>::new());
    std::fs::remove_dir(&root).unwrap();
    std::fs::rename(directory.path().join("unmounted"), &root).unwrap();
    backend.head(&key("a"), None).await.unwrap();
    backend
        .write_marker(Bytes::from_static(b"mark"))
        .await
        .unwrap();
    // The same content on another disk, as after a move by its operator.
    let moved = directory.path().join("moved");
    LocalBackend::create(&moved).unwrap();
    let other = LocalBackend::new("local".parse().unwrap(), &moved).unwrap();
    other
        .write_marker(Bytes::from_static(b"mark"))
        .await
        .unwrap();
    put(&other, "a", b"x").await;
    std::fs::rename(&root, directory.path().join("old")).unwrap();
    std::fs::rename(&moved, &root).unwrap();
    assert_eq!(
        backend.head(&key("a"), None).await.unwrap_err().kind,
        Kind::Unavailable
    );
    assert!(backend.read_marker().await.unwrap().is_some());
    backend.head(&key("a"), None).await.unwrap();
}

#[tokio::test]
async fn what_a_crash_left_is_removed_at_the_next_start_and_nothing_else() {
    let (backend, directory) = local();
    put(&backend, "b/kept", b"x").await;
    let whole = assemble(&backend, "b/assembled").await;
    let before = files(directory.path());
    std::fs::write(directory.path().join(".s3o-tmp/0123"), b"half").unwrap();
    std::fs::write(directory.path().join("b/a stranger's file"), b"?").unwrap();
    let again = LocalBackend::new("local".parse().unwrap(), directory.path()).unwrap();
    again.head(&key("b/kept"), None).await.unwrap();
    let mut after = files(directory.path());
    after.retain(|path| !path.contains("stranger"));
    assert_eq!(after, before);
    let fetched = again.get(&key("b/assembled"), None, None).await.unwrap();
    assert_eq!(rest(fetched.body).await, whole);
    let request = ListRequest {
        max_keys: 10,
        ..ListRequest::default()
    };
    assert_eq!(again.list(&request).await.unwrap().objects.len(), 2);
}

#[tokio::test]
async fn an_object_can_be_read_to_its_end_while_it_is_deleted() {
    let (backend, directory) = local();
    let plain = vec![3; 900_000];
    put(&backend, "b/plain", &plain).await;
    let assembled = assemble(&backend, "b/assembled").await;
    for (name, want) in [("b/plain", plain), ("b/assembled", assembled)] {
        let reading = backend.get(&key(name), None, None).await.unwrap();
        delete(&backend, name).await;
        assert_eq!(
            backend.head(&key(name), None).await.unwrap_err().kind,
            Kind::NotFound
        );
        assert!(rest(reading.body).await == want, "the body of {name}");
    }
    // The parts go with their last reader, on another thread.
    while !files(directory.path()).is_empty() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn complete_writes_a_small_record_and_moves_no_part() {
    let (backend, directory) = local();
    assemble(&backend, "b/assembled").await;
    let record = directory.path().join("b/assembled%f");
    assert!(std::fs::metadata(record).unwrap().len() < 1000);
    let found = files(directory.path());
    assert_eq!(found.len(), 3, "a record and two parts: {found:?}");
}

#[tokio::test]
async fn a_damaged_file_is_corrupt_and_still_listed_and_deleted() {
    let (backend, directory) = local();
    put(&backend, "b/object", b"0123456789").await;
    let path = directory.path().join("b/object%f");
    let bytes = std::fs::read(&path).unwrap();
    for damaged in [
        &bytes[..bytes.len() - 1],
        &bytes[..5],
        &bytes[1..],
        b"" as &[u8],
    ] {
        std::fs::write(&path, damaged).unwrap();
        assert_eq!(
            backend.head(&key("b/object"), None).await.unwrap_err().kind,
            Kind::Corrupt
        );
        let outcome = backend.get(&key("b/object"), None, None).await;
        assert_eq!(outcome.unwrap_err().kind, Kind::Corrupt);
    }
    let request = ListRequest {
        max_keys: 10,
        ..ListRequest::default()
    };
    assert_eq!(backend.list(&request).await.unwrap().objects.len(), 1);
    delete(&backend, "b/object").await;
    assert_eq!(files(directory.path()), Vec::<String>::new());
}

#[tokio::test]
async fn a_copy_of_rotten_bytes_fails_and_leaves_nothing() {
    let (backend, directory) = local();
    put(&backend, "b/object", b"0123456789").await;
    let path = directory.path().join("b/object%f");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[3] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let outcome = backend
        .copy(&key("b/object"), None, &key("b/copy"), &PutMeta::default())
        .await;
    assert_eq!(outcome.unwrap_err().kind, Kind::Corrupt);
    assert_eq!(files(directory.path()), ["b/object%f"]);
}

#[tokio::test]
async fn a_put_that_fails_or_is_dropped_leaves_no_temporary_file() {
    let (backend, directory) = local();
    let meta = PutMeta::default();
    let half = || stream::iter([Ok(Bytes::from(vec![1; 600_000]))]);
    let cut = half().chain(stream::iter([Err(PayloadCut)]));
    let outcome = backend
        .put(&key("a"), &meta, Payload::streamed(1 << 20, Box::pin(cut)))
        .await;
    assert_eq!(outcome.unwrap_err().kind, Kind::PayloadCut);
    assert_eq!(files(directory.path()), Vec::<String>::new(), "at once");
    let (reached, withheld) = tokio::sync::oneshot::channel::<()>();
    let root = directory.path().to_owned();
    let tail = stream::once(async move {
        assert_eq!(files(&root).len(), 1, "the bytes so far");
        let _ = reached.send(());
        std::future::pending().await
    });
    let stalled = Payload::streamed(1 << 20, Box::pin(half().chain(tail)));
    let name = key("a");
    tokio::select! {
        outcome = backend.put(&name, &meta, stalled) => panic!("it ended: {outcome:?}"),
        _ = withheld => {}
    }
    // Dropped: a blocking thread removes the file.
    while !files(directory.path()).is_empty() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn puts_and_the_pruning_of_empty_directories_do_not_hurt_each_other() {
    let (backend, directory) = local();
    let backend = Arc::new(backend);
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..6 {
        let backend = Arc::clone(&backend);
        tasks.spawn(async move {
            for round in 0..40 {
                let name = format!("deep/er/{}/k{task}-{round}", round % 2);
                put(&backend, &name, name.as_bytes()).await;
                let fetched = backend
                    .get(&key(&name), None, None)
                    .await
                    .expect("acknowledged");
                assert_eq!(rest(fetched.body).await, name.as_bytes());
                delete(&backend, &name).await;
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.expect("no task fails");
    }
    assert_eq!(files(directory.path()), Vec::<String>::new());
    assert!(
        !directory.path().join("deep").exists(),
        "empty directories are pruned"
    );
}

#[tokio::test]
async fn a_late_part_does_not_change_a_completed_object() {
    let (backend, directory) = local();
    let meta = PutMeta::default();
    let upload = backend.create_upload(&key("a"), &meta).await.unwrap();
    let first = backend
        .upload_part(&key("a"), &upload, 1, &meta, payload(b"first"))
        .await
        .unwrap();
    let (release, released) = tokio::sync::oneshot::channel::<()>();
    let (reached, withheld) = tokio::sync::oneshot::channel::<()>();
    let late: Chunks = Box::pin(stream::once(async move {
        let _ = reached.send(());
        released.await.map_err(|_| PayloadCut)?;
        Ok(Bytes::from_static(b"later"))
    }));
    let (key, fact) = (
        key("a"),
        PartFact {
            number: 1,
            etag: first.etag.unwrap(),
            crc64: None,
        },
    );
    let slow = backend.upload_part(&key, &upload, 1, &meta, Payload::streamed(5, late));
    let complete = async {
        withheld.await.unwrap();
        backend
            .complete_upload(&key, &upload, &[fact])
            .await
            .unwrap();
        release.send(()).unwrap();
    };
    let (late, ()) = tokio::join!(slow, complete);
    assert_eq!(late.unwrap_err().kind, Kind::NoSuchUpload);
    let fetched = backend.get(&key, None, None).await.unwrap();
    assert_eq!(rest(fetched.body).await, b"first");
    assert_eq!(
        files(directory.path()).len(),
        2,
        "record and part, nothing temporary"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn several_instances_may_look_at_one_directory_at_the_same_time() {
    let directory = tempfile::tempdir().unwrap();
    let shared = || LocalBackend::shared("local".parse().unwrap(), directory.path()).unwrap();
    let (one, other) = (shared(), shared());
    for _ in 0..50 {
        let looks = [&one, &other, &one, &other].map(|backend| backend.probe());
        for found in futures_util::future::join_all(looks).await {
            found.expect("the directory is there");
        }
    }
}

#[tokio::test]
async fn a_fifo_in_an_objects_place_is_corrupt_and_holds_no_thread() {
    use std::os::unix::fs::FileTypeExt as _;
    let (backend, directory) = local();
    put(&backend, "b/fifo", b"bytes").await;
    let written = files(directory.path());
    let file = written.iter().find(|path| path.contains("fifo")).unwrap();
    let path = directory.path().join(file);
    std::fs::remove_file(&path).unwrap();
    let made = std::process::Command::new("mkfifo").arg(&path).status();
    assert!(made.unwrap().success());
    assert!(std::fs::metadata(&path).unwrap().file_type().is_fifo());
    // Nobody ever writes to it: what waited would wait for ever.
    let got = backend.get(&key("b/fifo"), None, None).await;
    assert_eq!(got.unwrap_err().kind, Kind::Corrupt);
    let head = backend.head(&key("b/fifo"), None).await;
    assert_eq!(head.unwrap_err().kind, Kind::Corrupt);
    backend.list(&ListRequest::default()).await.unwrap();
    delete(&backend, "b/fifo").await;
    assert!(!path.exists());
}

#[tokio::test]
async fn of_two_first_markers_in_one_directory_the_first_stays() {
    let directory = tempfile::tempdir().unwrap();
    let backend = || LocalBackend::new("local".parse().unwrap(), directory.path()).unwrap();
    let (one, two) = (backend(), backend());
    assert_eq!(one.read_marker().await.unwrap(), None);
    assert_eq!(two.read_marker().await.unwrap(), None);
    let (first, second) = (Bytes::from_static(b"one"), Bytes::from_static(b"two"));
    one.create_marker(first.clone()).await.unwrap();
    let refused = two.create_marker(second.clone()).await.unwrap_err();
    assert_eq!(
        (refused.kind, refused.effect),
        (Kind::Precondition, Effect::None)
    );
    assert_eq!(two.read_marker().await.unwrap(), Some(first));
    assert_eq!(files(directory.path()), [".s3o/backend%f"]);
    // Replacing is another matter.
    two.write_marker(second.clone()).await.unwrap();
    assert_eq!(one.read_marker().await.unwrap(), Some(second));
}
