//! Power cuts: at every change that a mixed workload makes to the disk, whatever was acknowledged is
//! intact afterwards, nothing is to be seen half, and nothing is left that no name accounts for.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use base::BackendKey;
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;

use super::LocalBackend;
use super::files::FileSystem as _;
use super::scripted::{Plant, ROOT, Scripted, Survival};
use super::store::Owners;
use crate::{DeleteTarget, Kind, ListRequest, ObjectBackend as _, PartFact, Payload, PutMeta};

/// Longer than a batch, so that a write takes several turns.
const LONG_BYTES: usize = 300_000;

const KEYS: [&str; 7] = [
    "b/one",
    "b/two",
    "m/object",
    "c/copy",
    "p/q/r",
    "p/q/s",
    "again/object",
];

fn on(disk: &Scripted) -> LocalBackend {
    let name = "local".parse().expect("a legal name");
    LocalBackend::over(
        name,
        Arc::new(disk.clone()),
        PathBuf::from(ROOT),
        Owners::One,
    )
}

fn key(key: &str) -> BackendKey {
    BackendKey::new(key).expect("a legal key")
}

fn bytes(seed: u8, length: usize) -> Bytes {
    (0..length)
        .map(|place| (place % 251) as u8 ^ seed)
        .collect::<Vec<u8>>()
        .into()
}

/// What a key may hold after the cut.
type Allowed = BTreeSet<Option<Bytes>>;

/// What was acknowledged so far.
#[derive(Debug, Default)]
struct World {
    /// Every key that was touched, and what it may hold: one thing, or two while a call is under way.
    keys: BTreeMap<&'static str, Allowed>,
    /// Acknowledged parts of the upload that is open, if no call that ends it has begun.
    parts: Vec<(String, PartFact, Bytes)>,
}

impl World {
    fn begin(&mut self, key: &'static str, after: Option<Bytes>) {
        let allowed = self.keys.entry(key).or_insert_with(|| [None].into());
        allowed.insert(after);
    }

    fn end(&mut self, key: &'static str, after: Option<Bytes>) {
        self.keys.insert(key, [after].into());
    }
}

type Step<T> = Result<T, crate::Error>;

async fn put(
    backend: &LocalBackend,
    world: &mut World,
    name: &'static str,
    body: Bytes,
) -> Step<()> {
    world.begin(name, Some(body.clone()));
    backend
        .put(
            &key(name),
            &PutMeta::default(),
            Payload::from_bytes(body.clone()),
        )
        .await?;
    world.end(name, Some(body));
    Ok(())
}

async fn delete(backend: &LocalBackend, world: &mut World, name: &'static str) -> Step<()> {
    world.begin(name, None);
    let target = DeleteTarget {
        key: key(name),
        version: None,
    };
    backend
        .delete(&[target])
        .await
        .pop()
        .expect("one outcome per target")?;
    world.end(name, None);
    Ok(())
}

async fn part(
    backend: &LocalBackend,
    world: &mut World,
    name: &'static str,
    upload: &str,
    number: u32,
    body: Bytes,
) -> Step<()> {
    // Until the answer, the part may be the older or the newer one.
    world.parts.retain(|(_, fact, _)| fact.number != number);
    let payload = Payload::from_bytes(body.clone());
    let meta = PutMeta::default();
    let stored = backend
        .upload_part(&key(name), upload, number, &meta, payload)
        .await?;
    let etag = stored.etag.expect("a part has a tag");
    let fact = PartFact {
        number,
        etag,
        crc64: stored.crc64,
    };
    world.parts.push((upload.to_owned(), fact, body));
    Ok(())
}

/// Everything that changes the disk, once.
async fn work(backend: &LocalBackend, world: &mut World) -> Step<()> {
    put(backend, world, "b/one", bytes(1, 1000)).await?;
    put(backend, world, "b/two", bytes(2, LONG_BYTES)).await?;

    let upload = backend
        .create_upload(&key("m/object"), &PutMeta::default())
        .await?;
    part(backend, world, "m/object", &upload, 1, bytes(3, LONG_BYTES)).await?;
    part(backend, world, "m/object", &upload, 2, bytes(4, 10)).await?;
    part(backend, world, "m/object", &upload, 2, bytes(5, 2000)).await?;
    part(backend, world, "m/object", &upload, 7, bytes(6, 30)).await?;
    let whole: Bytes = [bytes(3, LONG_BYTES), bytes(5, 2000)].concat().into();
    let facts: Vec<PartFact> = world.parts[..2]
        .iter()
        .map(|(_, fact, _)| fact.clone())
        .collect();
    world.begin("m/object", Some(whole.clone()));
    world.parts.clear();
    backend
        .complete_upload(&key("m/object"), &upload, &facts)
        .await?;
    world.end("m/object", Some(whole.clone()));

    world.begin("c/copy", Some(whole.clone()));
    backend
        .copy(&key("m/object"), None, &key("c/copy"), &PutMeta::default())
        .await?;
    world.end("c/copy", Some(whole));

    put(backend, world, "p/q/r", bytes(7, 10)).await?;
    delete(backend, world, "b/one").await?;
    // The directories go with the last object in them, and come back with the next.
    delete(backend, world, "p/q/r").await?;
    put(backend, world, "p/q/s", bytes(8, 10)).await?;
    delete(backend, world, "m/object").await?;

    let upload = backend
        .create_upload(&key("again/object"), &PutMeta::default())
        .await?;
    part(backend, world, "again/object", &upload, 1, bytes(9, 500)).await?;
    world.parts.clear();
    backend.abort_upload(&key("again/object"), &upload).await
}

async fn read(backend: &LocalBackend, name: &str) -> Result<Option<Bytes>, String> {
    let mut fetched = match backend.get(&key(name), None, None).await {
        Ok(fetched) => fetched,
        Err(error) if error.kind == Kind::NotFound => return Ok(None),
        Err(error) => return Err(format!("{name} is to be seen but broken: {error}")),
    };
    let mut body = BytesMut::new();
    while let Some(chunk) = fetched.body.next().await {
        body.extend_from_slice(&chunk.map_err(|error| format!("{name} is torn: {error}"))?);
    }
    Ok(Some(body.freeze()))
}

/// Checks what the cut left, then removes all that has a name and looks for what has none.
async fn inspect(disk: &Scripted, world: &World) -> Result<(), String> {
    let backend = on(disk);
    let text = |error: crate::Error| base::report(&error).to_string();
    let mut there = BTreeSet::new();
    for name in KEYS {
        let found = read(&backend, name).await?;
        let allowed = world
            .keys
            .get(name)
            .cloned()
            .unwrap_or_else(|| [None].into());
        if !allowed.contains(&found) {
            let size = found.map(|bytes| bytes.len());
            return Err(format!("{name} holds {size:?} bytes, which it must not"));
        }
        if found.is_some() {
            there.insert(name.to_owned());
        }
    }
    let request = ListRequest {
        prefix: String::new(),
        after: None,
        max_keys: 1000,
    };
    let page = backend.list(&request).await.map_err(text)?;
    let listed: BTreeSet<String> = page.objects.into_iter().map(|object| object.key).collect();
    if listed != there {
        return Err(format!("listed {listed:?}, there are {there:?}"));
    }
    let open = backend.list_uploads("", None).await.map_err(text)?;
    for (upload, fact, body) in &world.parts {
        let Some(of) = open.uploads.iter().find(|open| open.upload == *upload) else {
            return Err("an upload with acknowledged parts is gone".to_owned());
        };
        let page = backend
            .list_parts(&key(&of.key), upload, 0)
            .await
            .map_err(text)?;
        let held = page.parts.iter().any(|part| {
            part.number == fact.number && part.etag == fact.etag && part.size == body.len() as u64
        });
        if !held {
            return Err(format!("the acknowledged part {} is gone", fact.number));
        }
    }
    complete_what_is_open(&backend, world).await?;
    let page = backend.list_uploads("", None).await.map_err(text)?;
    for open in page.uploads {
        match backend.abort_upload(&key(&open.key), &open.upload).await {
            Ok(()) => {}
            Err(error) if error.kind == Kind::NoSuchUpload => {}
            Err(error) => return Err(text(error)),
        }
    }
    // With no upload open, only parts that an object names may be left; the seventh never was one.
    let stray = disk
        .file_paths()
        .into_iter()
        .find(|path| path.ends_with("/00007"));
    if let (Some(path), false) = (
        stray,
        world.parts.iter().any(|(_, fact, _)| fact.number == 7),
    ) {
        return Err(format!("no object and no upload accounts for {path}"));
    }
    let targets = KEYS.map(|name| DeleteTarget {
        key: key(name),
        version: None,
    });
    for outcome in backend.delete(&targets).await {
        match outcome {
            Ok(()) => {}
            Err(error) if error.kind == Kind::NotFound => {}
            Err(error) => return Err(text(error)),
        }
    }
    let left = disk.file_paths();
    match left.is_empty() {
        true => Ok(()),
        false => Err(format!("nothing accounts for {left:?}")),
    }
}

/// Acknowledged parts must not only be listed, they must make an object with the right bytes.
async fn complete_what_is_open(backend: &LocalBackend, world: &World) -> Result<(), String> {
    let Some((upload, _, _)) = world.parts.first() else {
        return Ok(());
    };
    let name = if world.keys.contains_key("p/q/s") {
        "again/object"
    } else {
        "m/object"
    };
    let mut parts: Vec<&(String, PartFact, Bytes)> = world.parts.iter().collect();
    parts.sort_by_key(|(_, fact, _)| fact.number);
    let facts: Vec<PartFact> = parts.iter().map(|(_, fact, _)| fact.clone()).collect();
    let completed = backend.complete_upload(&key(name), upload, &facts).await;
    completed.map_err(|error| format!("acknowledged parts are refused: {error}"))?;
    let want: Vec<Bytes> = parts.iter().map(|(_, _, body)| body.clone()).collect();
    match read(backend, name).await? == Some(want.concat().into()) {
        true => Ok(()),
        false => Err("an object of acknowledged parts has other bytes".to_owned()),
    }
}

/// Cuts the power at every change, with every kind of survival; the first violation, if any.
async fn cut_everywhere(plant: Plant) -> Result<(), String> {
    let mut cut = 0;
    loop {
        let disk = Scripted::new(plant);
        disk.power_off_after(cut);
        let mut world = World::default();
        let outcome = work(&on(&disk), &mut world).await;
        if let (Err(error), false) = (&outcome, disk.is_off()) {
            return Err(format!(
                "the workload fails by itself: {}",
                base::report(error)
            ));
        }
        let drawn = (0..6).map(|n| Survival::Drawn { seed: cut * 6 + n });
        for survival in [Survival::Nothing, Survival::Everything]
            .into_iter()
            .chain(drawn)
        {
            inspect(&disk.after_power_cut(survival), &world)
                .await
                .map_err(|what| format!("cut at change {cut}, {survival:?}: {what}"))?;
        }
        if outcome.is_ok() {
            assert!(cut > 60, "the workload is larger than {cut} changes");
            return Ok(());
        }
        cut += 1;
    }
}

#[tokio::test]
async fn what_was_acknowledged_survives_a_power_cut_at_any_change() {
    cut_everywhere(Plant::Nothing).await.unwrap();
}

#[tokio::test]
async fn a_layer_that_does_not_sync_files_is_noticed() {
    cut_everywhere(Plant::FileSync).await.unwrap_err();
}

#[tokio::test]
async fn a_layer_that_does_not_sync_directories_is_noticed() {
    cut_everywhere(Plant::DirectorySync).await.unwrap_err();
}

#[tokio::test]
async fn a_layer_that_does_not_sync_the_parents_of_new_directories_is_noticed() {
    cut_everywhere(Plant::RootSync).await.unwrap_err();
}

#[tokio::test]
async fn a_put_is_synced_in_this_order() {
    let disk = Scripted::new(Plant::Nothing);
    let backend = on(&disk);
    let mut world = World::default();
    put(&backend, &mut world, "b/one", bytes(1, 10))
        .await
        .unwrap();
    let verbs = |log: Vec<String>| -> Vec<String> {
        let short = |line: String| {
            let words = line
                .split(' ')
                .map(|word| match word.contains(".s3o-tmp/") {
                    true => "TEMPORARY",
                    false => word,
                });
            words.collect::<Vec<_>>().join(" ")
        };
        log.into_iter().map(short).collect()
    };
    // Before the first success there is no temporary directory and no directory for the object.
    let first = verbs(disk.take_log());
    assert_eq!(
        first,
        [
            "create TEMPORARY",
            "make_dir /disk/.s3o-tmp",
            "create TEMPORARY",
            "append",
            "append",
            "sync",
            "rename TEMPORARY /disk/b/one%f",
            "make_dir /disk/b",
            "rename TEMPORARY /disk/b/one%f",
            "sync_dir /disk/b",
            "sync_dir /disk",
        ]
    );
    put(&backend, &mut world, "b/two", bytes(1, 10))
        .await
        .unwrap();
    assert_eq!(
        verbs(disk.take_log()),
        [
            "create TEMPORARY",
            "append",
            "append",
            "sync",
            "rename TEMPORARY /disk/b/two%f",
            "sync_dir /disk/b",
        ],
        "a directory that is known to be durable is not synced into its parent again"
    );
}

#[tokio::test]
async fn a_directory_that_another_put_has_just_made_is_synced_by_whoever_answers_first() {
    let disk = Scripted::new(Plant::Nothing);
    // Another put got this far and stands before its syncs.
    disk.make_dir(&PathBuf::from(ROOT).join("d")).unwrap();
    disk.make_dir(&PathBuf::from(ROOT).join("d/e")).unwrap();
    let mut world = World::default();
    put(&on(&disk), &mut world, "d/e/mine", bytes(1, 10))
        .await
        .unwrap();
    let found = read(&on(&disk.after_power_cut(Survival::Nothing)), "d/e/mine").await;
    assert_eq!(found, Ok(Some(bytes(1, 10))));
}

#[tokio::test]
async fn a_full_disk_is_full_at_whatever_step_it_shows_and_leaves_nothing() {
    let mut step = 0;
    loop {
        let disk = Scripted::new(Plant::Nothing);
        let backend = on(&disk);
        disk.fail_after(step, std::io::ErrorKind::StorageFull);
        let payload = Payload::from_bytes(bytes(1, LONG_BYTES));
        let outcome = backend.put(&key("a/b"), &PutMeta::default(), payload).await;
        let Err(error) = outcome else {
            assert!(step > 8, "the put is longer than {step} steps");
            return;
        };
        assert_eq!(error.kind, Kind::Full, "step {step}");
        match error.effect {
            crate::Effect::None => assert_eq!(disk.file_paths(), Vec::<String>::new()),
            crate::Effect::Unknown => assert!(read(&backend, "a/b").await.is_ok()),
        }
        step += 1;
    }
}

#[tokio::test]
async fn a_first_marker_is_whole_or_absent_after_a_power_cut_and_stays_once_acknowledged() {
    let mut cut = 0;
    loop {
        let disk = Scripted::new(Plant::Nothing);
        disk.power_off_after(cut);
        let (first, second) = (bytes(1, 100), bytes(2, 100));
        let backend = on(&disk);
        let created = backend.create_marker(first.clone()).await;
        let replaced = backend.create_marker(second).await;
        for survival in [Survival::Nothing, Survival::Everything] {
            let found = on(&disk.after_power_cut(survival)).read_marker().await;
            let found = found.unwrap_or_else(|error| panic!("cut at {cut}: {error}"));
            let fits = found.as_ref().is_none_or(|found| *found == first);
            assert!(fits, "cut at {cut}, {survival:?}: {found:?}");
            assert!(
                created.is_err() || found.is_some(),
                "cut at {cut}, {survival:?}"
            );
        }
        if let Err(error) = replaced
            && error.kind == Kind::Precondition
        {
            assert!(cut > 8, "a first marker is longer than {cut} changes");
            return;
        }
        cut += 1;
    }
}

#[tokio::test]
async fn a_file_system_without_hard_links_takes_a_first_marker_only_without_its_condition() {
    let mut step = 0;
    loop {
        let disk = Scripted::new(Plant::Nothing);
        let backend = on(&disk);
        disk.fail_after(step, std::io::ErrorKind::Unsupported);
        let created = backend.create_marker(bytes(1, 100)).await;
        let error = created.expect_err("one of the steps names the marker");
        if error.kind == Kind::Unsupported {
            assert_eq!(error.effect, crate::Effect::None);
            assert_eq!(disk.file_paths(), Vec::<String>::new());
            backend
                .write_marker(bytes(2, 100))
                .await
                .expect("the condition is all that fails");
            return;
        }
        step += 1;
    }
}
