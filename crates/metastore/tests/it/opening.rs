//! Whose file it is, which version, who has it.

use std::fs::{self, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::PathBuf;
use std::time::Duration;

use base::{Ids, ManualClock};
use metastore::model::{ListQuery, ListStart, Unwritable};
use metastore::{Error, Store};
use rusqlite::Connection;
use tokio::time::Instant;

use crate::support::{Db, Open, key};

on_each_database! {
    a_missing_catalogue_is_made_and_found_again,
    names_keep_their_ids,
    marks_advance_and_stay,
}

on_cut_connections! {
    names_keep_their_ids,
    marks_advance_and_stay,
}

on_files! {
    a_second_opener_learns_who_has_it,
    another_process_is_named_at_once,
    the_go_programs_database_is_recognised,
    another_programs_database_is_left_alone,
    a_file_that_is_no_database_is_refused,
    a_newer_schema_is_refused,
    a_directory_that_is_missing_is_named,
    intents_of_another_incarnation_are_moved_aside,
    files_of_the_catalogue_are_their_owners_alone,
    a_second_name_of_the_catalogue_is_in_use_too,
    a_catalogue_whose_files_are_removed_takes_no_writes_and_is_copied,
    a_catalogue_that_is_replaced_takes_no_writes_and_leaves_the_other_alone,
    a_catalogue_whose_files_come_back_goes_on,
}

async fn a_missing_catalogue_is_made_and_found_again(db: Db) {
    let open = db.open().await;
    let made = open.store.catalogue();
    assert_eq!(made.recovery, None);
    assert_ne!(made.uuid, made.incarnation);
    drop(open);
    let open = db.open().await;
    assert_eq!(open.store.catalogue(), made);
    open.check().await;
}

async fn names_keep_their_ids(db: Db) {
    let open = db.open().await;
    let (bucket, backends) = (open.bucket, open.backends.clone());
    let names = ["new".parse().unwrap(), "two".parse().unwrap()];
    let rows = open.store.ensure_backends(&names).await.unwrap();
    assert_eq!((rows[0].name.as_str(), rows[1].id), ("new", open.two()));
    assert_eq!(open.store.backends().await.unwrap().len(), 3);
    open.put(open.two(), "k", 5).await;
    let (_, intent) = open.intent(open.two(), 5).await.unwrap();
    let counted: Vec<u64> = open
        .store
        .backends()
        .await
        .unwrap()
        .iter()
        .map(|row| row.rows)
        .collect();
    assert_eq!(counted, [0, 2, 0]);
    drop((intent, open));
    let open = db.open().await;
    assert_eq!((open.bucket, &open.backends), (bucket, &backends));
    open.store
        .save_capabilities(open.one(), "probed".into())
        .await
        .unwrap();
    let row = &open.store.backends().await.unwrap()[0];
    assert_eq!(row.capabilities.as_deref(), Some("probed"));
}

async fn marks_advance_and_stay(db: Db) {
    let open = db.open().await;
    let before = open.store.backends().await.unwrap()[0].clone();
    assert!(!before.marked && before.mark == 0);
    for mark in 1..=3 {
        assert_eq!(open.store.advance_mark(open.one()).await.unwrap(), mark);
    }
    drop(open);
    let open = db.open().await;
    let after = open.store.backends().await.unwrap()[0].clone();
    assert!(after.marked && after.mark == 3);
}

async fn a_second_opener_learns_who_has_it(db: Db) {
    let open = db.open().await;
    let second = Store::open(db.options()).await;
    match second {
        Err(Error::InUse { path, pid }) => {
            assert_eq!((path, pid), (db.path(), Some(std::process::id())));
        }
        other => panic!("{other:?}"),
    }
    let reader = Store::open_reader(&db.path()).await.unwrap();
    open.put(open.one(), "k", 1).await;
    assert!(
        reader
            .plan(open.bucket, &"k".parse().unwrap())
            .await
            .unwrap()
            .is_some()
    );
    assert!(matches!(
        reader.remove(open.removal("k")).await,
        Err(Error::Closed)
    ));
    open.store.close().await.unwrap();
    Store::open(db.options()).await.unwrap();
}

async fn another_process_is_named_at_once(db: Db) {
    let lock = db.beside("catalogue.db.lock");
    fs::write(&lock, "1\n").unwrap();
    let held = fs::File::open(&lock).unwrap();
    rustix::fs::flock(&held, rustix::fs::FlockOperation::LockExclusive).unwrap();
    let refused = Store::open(db.options()).await;
    assert!(
        matches!(refused, Err(Error::InUse { pid: Some(1), .. })),
        "{refused:?}"
    );
    assert!(!db.path().exists());
    drop(held);
    drop(db.open().await);
}

fn foreign(db: &Db, statements: &str) -> Vec<u8> {
    let conn = Connection::open(db.path()).unwrap();
    conn.execute_batch(statements).unwrap();
    drop(conn);
    fs::read(db.path()).unwrap()
}

async fn refused(db: &Db, words: &str) {
    let before = fs::read(db.path()).unwrap();
    for attempt in [
        Store::open(db.options()).await,
        Store::open_reader(&db.path()).await,
    ] {
        match attempt {
            Err(Error::Foreign { found, .. }) => assert!(found.contains(words), "{found}"),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(fs::read(db.path()).unwrap(), before);
}

async fn the_go_programs_database_is_recognised(db: Db) {
    foreign(
        &db,
        "CREATE TABLE backend_quotas (backend_name TEXT PRIMARY KEY);
         CREATE TABLE object_locations (object_key TEXT, backend_name TEXT);",
    );
    refused(&db, "Go program").await;
    fs::remove_file(db.path()).unwrap();
    foreign(&db, "CREATE TABLE goose_db_version (id INTEGER);");
    refused(&db, "Go program").await;
}

async fn another_programs_database_is_left_alone(db: Db) {
    foreign(&db, "CREATE TABLE notes (text TEXT);");
    refused(&db, "another program").await;
}

async fn a_file_that_is_no_database_is_refused(db: Db) {
    fs::write(db.path(), "buckets:\n- one\n".repeat(100)).unwrap();
    refused(&db, "not an SQLite database").await;
}

async fn a_newer_schema_is_refused(db: Db) {
    drop(db.open().await);
    Store::open(db.options())
        .await
        .unwrap()
        .close()
        .await
        .unwrap();
    foreign(&db, "PRAGMA user_version = 99;");
    let refused = Store::open(db.options()).await;
    assert!(
        matches!(refused, Err(Error::TooNew { found: 99, .. })),
        "{refused:?}"
    );
}

async fn a_directory_that_is_missing_is_named(db: Db) {
    let mut options = db.options();
    options.path = db.beside("nowhere").join("catalogue.db");
    let refused = Store::open(options).await;
    assert!(matches!(refused, Err(Error::File { .. })), "{refused:?}");
    let refused = Store::open_reader(&db.path()).await;
    assert!(matches!(refused, Err(Error::Missing { .. })), "{refused:?}");
    let ids = Ids::seeded(std::sync::Arc::new(ManualClock::at(0)), 1);
    let refused = Store::backup(&db.path(), &db.beside("copy"), &ids).await;
    assert!(matches!(refused, Err(Error::Missing { .. })), "{refused:?}");
}

async fn intents_of_another_incarnation_are_moved_aside(db: Db) {
    let open = db.open().await;
    open.put(open.one(), "k", 10).await;
    let copy = db.beside("copy.db");
    Store::backup(&db.path(), &copy, &db.ids).await.unwrap();
    open.put(open.one(), "later", 10).await;
    let (_, intent) = open.intent(open.one(), 10).await.unwrap();
    drop(intent);
    open.store.close().await.unwrap();
    let incarnation = open.store.catalogue().incarnation;
    drop(open);
    fs::rename(copy, db.path()).unwrap();
    let open = db.open().await;
    assert_ne!(open.store.catalogue().incarnation, incarnation);
    assert_eq!(open.store.depth().await.unwrap().intents, 0);
    assert_eq!(open.room(open.one()).reserved, 0);
    assert!(
        db.beside(&format!("catalogue.db-intents.{incarnation}"))
            .exists()
    );
    open.check().await;
}

/// The files whose names begin with the catalogue's, with their modes.
pub(crate) fn modes(db: &Db) -> Vec<(String, u32)> {
    let entries = fs::read_dir(db.path().parent().unwrap()).unwrap();
    let found = entries.filter_map(|entry| {
        let entry = entry.unwrap();
        // A copy in the making may get its name between the two looks.
        let mode = match entry.metadata() {
            Ok(metadata) => metadata.permissions().mode() & 0o7777,
            Err(error) if error.kind() == ErrorKind::NotFound => return None,
            Err(error) => panic!("{error}"),
        };
        Some((entry.file_name().into_string().unwrap(), mode))
    });
    found.collect()
}

async fn files_of_the_catalogue_are_their_owners_alone(db: Db) {
    let open = db.open().await;
    open.put(open.one(), "k", 10).await;
    Store::backup(&db.path(), &db.beside("copy.db"), &db.ids)
        .await
        .unwrap();
    let found = modes(&db);
    assert_eq!(found.len(), 8, "{found:?}");
    assert!(found.iter().all(|(_, mode)| *mode == 0o600), "{found:?}");
    // What an earlier version made, or somebody copied here, is taken from the others.
    let killed = db.killed();
    drop(open);
    for (name, _) in modes(&killed) {
        fs::set_permissions(killed.beside(&name), Permissions::from_mode(0o644)).unwrap();
    }
    let open = killed.open().await;
    let found = modes(&killed);
    let ours = found.iter().filter(|(name, _)| name != "copy.db");
    assert!(ours.clone().all(|(_, mode)| *mode == 0o600), "{found:?}");
    assert_eq!(ours.count(), 7);
    open.check().await;
}

async fn a_second_name_of_the_catalogue_is_in_use_too(db: Db) {
    let open = db.open().await;
    fs::hard_link(db.path(), db.beside("hard.db")).unwrap();
    symlink(db.path(), db.beside("soft.db")).unwrap();
    fs::remove_file(db.beside("catalogue.db.lock")).unwrap();
    for name in ["catalogue.db", "hard.db", "soft.db"] {
        let mut options = db.options();
        options.path = db.beside(name);
        let second = Store::open(options).await;
        assert!(
            matches!(second, Err(Error::InUse { .. })),
            "{name}: {second:?}"
        );
    }
    open.put(open.one(), "k", 1).await;
    open.store.close().await.unwrap();
    drop(open);
    let mut options = db.options();
    options.path = db.beside("soft.db");
    let open = db
        .set_up(Store::open(options).await.unwrap())
        .await
        .unwrap();
    assert!(open.plan("k").await.is_some());
    open.check().await;
}

/// Nothing takes so long: who waits for longer waits for ever.
pub(crate) const HANGS: Duration = Duration::from_secs(120);

/// Writes until it is noticed; what it says then, and how many writes were acknowledged.
pub(crate) async fn noticed(open: &Open<'_>) -> (String, u32) {
    let mut written = 0;
    let begun = Instant::now();
    loop {
        assert!(
            begun.elapsed() < HANGS,
            "not noticed after {written} writes, {:?}",
            open.store.unwritable()
        );
        let bucket = format!("bucket-{written}");
        match open.store.create_bucket(&bucket.parse().unwrap()).await {
            Ok(_) => written += 1,
            Err(Error::Broken { found, .. }) if found.contains("malformed") => {}
            Err(Error::Gone { found, .. } | Error::Broken { found, .. }) => {
                return (found, written);
            }
            // Pages of another file are met before it is known that they are.
            Err(Error::Corrupt { .. }) => {}
            Err(other) => panic!("{other:?}"),
        }
    }
}

async fn is_refused(open: &Open<'_>) {
    assert!(matches!(
        open.store.unwritable(),
        Some(Unwritable::FilesGone { .. })
    ));
    let intent = open.intent(open.one(), 1).await;
    assert!(matches!(intent, Err(Error::Gone { .. })), "{intent:?}");
    let query = ListQuery {
        bucket: open.bucket,
        prefix: String::new(),
        delimiter: None,
        start: ListStart::Beginning,
        max_entries: 10,
    };
    let listed = open.store.list(&query).await;
    assert!(matches!(listed, Err(Error::Gone { .. })), "{listed:?}");
    let verified = open.store.verify().await;
    assert!(matches!(verified, Err(Error::Gone { .. })), "{verified:?}");
    assert!(open.plan("k").await.is_some(), "reads go on");
}

/// The copy that was made; it is complete once it has its name.
pub(crate) async fn saved(db: &Db) -> PathBuf {
    let begun = Instant::now();
    loop {
        let found = modes(db);
        assert!(begun.elapsed() < HANGS, "no copy among {found:?}");
        let copy = found.iter().find(|(name, _)| {
            name.starts_with("catalogue.db.saved-") && !name.contains(".partial")
        });
        if let Some((name, mode)) = copy {
            assert_eq!(*mode, 0o600);
            return db.beside(name);
        }
        tokio::task::yield_now().await;
    }
}

pub(crate) fn remove_files(db: &Db) {
    for (name, _) in modes(db) {
        if name.starts_with("catalogue.db") {
            fs::remove_file(db.beside(&name)).unwrap();
        }
    }
}

async fn a_catalogue_whose_files_are_removed_takes_no_writes_and_is_copied(db: Db) {
    let open = db.open().await;
    open.put(open.one(), "k", 10).await;
    remove_files(&db);
    let (found, written) = noticed(&open).await;
    assert!(found.contains("catalogue.db is gone"), "{found}");
    assert!(found.contains("catalogue.db-wal is gone"), "{found}");
    is_refused(&open).await;
    let copy = saved(&db).await;
    let closed = open.store.close().await;
    assert!(matches!(closed, Err(Error::Gone { .. })), "{closed:?}");
    drop(open);
    // What was acknowledged before it was noticed is in the copy.
    let mut options = db.options();
    options.path = copy;
    let store = Store::open(options).await.unwrap();
    assert!(store.catalogue().recovery.is_some());
    assert_eq!(
        store.client_buckets().await.unwrap().len(),
        written as usize
    );
    let open = db.set_up(store).await.unwrap();
    assert!(
        open.store
            .object(open.bucket, &key("k"))
            .await
            .unwrap()
            .is_some()
    );
}

async fn a_catalogue_that_is_replaced_takes_no_writes_and_leaves_the_other_alone(db: Db) {
    let open = db.open().await;
    open.put(open.one(), "k", 10).await;
    let copy = db.beside("copy.db");
    Store::backup(&db.path(), &copy, &db.ids).await.unwrap();
    remove_files(&db);
    fs::rename(&copy, db.path()).unwrap();
    let (found, _) = noticed(&open).await;
    assert!(
        found.contains("catalogue.db is another file now"),
        "{found}"
    );
    is_refused(&open).await;
    saved(&db).await;
    // Another process may have begun to use the other one by now: its log is not ours to remove.
    let other = Connection::open(db.path()).unwrap();
    other
        .execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE notes (text TEXT)")
        .unwrap();
    let wal = db.beside("catalogue.db-wal");
    let before = fs::read(&wal).unwrap();
    assert!(!before.is_empty());
    let closed = open.store.close().await;
    assert!(matches!(closed, Err(Error::Gone { .. })), "{closed:?}");
    drop(open);
    assert_eq!(fs::read(&wal).unwrap(), before);
    drop(other);
}

async fn a_catalogue_whose_files_come_back_goes_on(db: Db) {
    let open = db.open().await;
    open.put(open.one(), "k", 10).await;
    fs::rename(db.path(), db.beside("away.db")).unwrap();
    noticed(&open).await;
    is_refused(&open).await;
    fs::rename(db.beside("away.db"), db.path()).unwrap();
    let begun = Instant::now();
    while let Some(why) = open.store.unwritable() {
        assert!(begun.elapsed() < HANGS, "still {why:?}");
        tokio::task::yield_now().await;
    }
    open.put(open.one(), "k", 20).await;
    open.check().await;
}
