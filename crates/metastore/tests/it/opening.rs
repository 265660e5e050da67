//! Whose file it is, which version, who has it.

use std::fs;

use base::{Ids, ManualClock};
use metastore::{Error, Store};
use rusqlite::Connection;

use crate::support::Db;

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
