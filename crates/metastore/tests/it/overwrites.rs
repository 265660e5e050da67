//! Files that somebody else writes into while they are open, and the last look at the end.

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use metastore::model::{ListQuery, ListStart, Unwritable};
use metastore::{Error, Store};
use rusqlite::Connection;

use crate::opening::{modes, noticed, remove_files, saved};
use crate::support::{Db, Open, key};

on_files! {
    a_catalogue_that_is_overwritten_takes_no_writes_and_is_not_written_into,
    a_wal_that_is_overwritten_or_cut_stops_writes,
    intents_that_are_overwritten_stop_writes_and_the_catalogue_is_copied,
    a_malformed_page_stops_writes_and_says_the_way_out,
    checkpoints_verifications_and_backups_of_others_raise_no_alarm,
    files_that_are_removed_just_before_the_end_are_copied_by_it,
    a_backup_beside_the_wal_of_another_file_is_refused,
}

/// As an operator does it: in place, the inode stays.
fn cp(from: &Path, to: &Path) {
    let done = Command::new("cp").arg(from).arg(to).status().unwrap();
    assert!(done.success());
}

/// Enough for checkpoints in between.
const MANY_KEYS: u32 = 400;

async fn fill(open: &Open<'_>, name: &str) {
    for n in 0..MANY_KEYS {
        open.put(open.one(), &format!("{name}-{n:04}"), 1).await;
    }
}

async fn is_refused(open: &Open<'_>) {
    let why = open.store.unwritable();
    assert!(matches!(why, Some(Unwritable::Damaged { .. })), "{why:?}");
    let intent = open.intent(open.one(), 1).await;
    assert!(matches!(intent, Err(Error::Broken { .. })), "{intent:?}");
    let query = ListQuery {
        bucket: open.bucket,
        prefix: String::new(),
        delimiter: None,
        start: ListStart::Beginning,
        max_entries: 10,
    };
    let listed = open.store.list(&query).await;
    assert!(matches!(listed, Err(Error::Broken { .. })), "{listed:?}");
    let verified = open.store.verify().await;
    assert!(
        matches!(verified, Err(Error::Broken { .. })),
        "{verified:?}"
    );
}

fn is_copied(db: &Db) -> bool {
    modes(db).iter().any(|(name, _)| name.contains(".saved-"))
}

async fn a_catalogue_that_is_overwritten_takes_no_writes_and_is_not_written_into(_: Db) {
    for case in ["a backup", "the same length", "longer", "shorter", "empty"] {
        let db = Db::sqlite();
        let open = db.open().await;
        fill(&open, "older").await;
        let copy = db.beside("copy");
        match case {
            "a backup" => Store::backup(&db.path(), &copy, &db.ids).await.unwrap(),
            _ => cp(&db.path(), &copy),
        }
        fill(&open, "newer").await;
        let bytes = fs::metadata(db.path()).unwrap().len();
        let file = fs::File::options().write(true).open(&copy).unwrap();
        match case {
            "the same length" => file.set_len(bytes).unwrap(),
            "longer" => file.set_len(bytes + 40 * 4096).unwrap(),
            "shorter" => file.set_len(8 * 4096).unwrap(),
            "empty" => file.set_len(0).unwrap(),
            _ => {}
        }
        cp(&copy, &db.path());
        let (found, _) = noticed(&open).await;
        assert!(
            found.contains("catalogue.db was overwritten"),
            "{case}: {found}"
        );
        is_refused(&open).await;
        let read = open.store.object(open.bucket, &key("older-0001")).await;
        assert!(
            matches!(read, Err(Error::Broken { .. })),
            "{case}: what is read is not what was written: {read:?}"
        );
        let closed = open.store.close().await;
        assert!(matches!(closed, Err(Error::Broken { .. })), "{closed:?}");
        drop(open);
        let (left, put) = (fs::read(db.path()).unwrap(), fs::read(&copy).unwrap());
        assert!(left == put, "{case}: something was written into it");
        let wal = fs::metadata(db.beside("catalogue.db-wal")).unwrap().len();
        assert!(wal > 0, "{case}: the newest commits are kept");
        assert!(!is_copied(&db), "{case}: there was nothing good to copy");
    }
}

async fn a_wal_that_is_overwritten_or_cut_stops_writes(_: Db) {
    for bytes in [0, 100_000] {
        let db = Db::sqlite();
        let open = db.open().await;
        fill(&open, "older").await;
        let copy = db.beside("copy");
        fs::write(&copy, vec![0x55; bytes]).unwrap();
        cp(&copy, &db.beside("catalogue.db-wal"));
        let (found, _) = noticed(&open).await;
        assert!(
            found.contains("catalogue.db-wal was overwritten"),
            "{found}"
        );
        is_refused(&open).await;
        let closed = open.store.close().await;
        assert!(matches!(closed, Err(Error::Broken { .. })), "{closed:?}");
    }
}

async fn intents_that_are_overwritten_stop_writes_and_the_catalogue_is_copied(db: Db) {
    let open = db.open().await;
    open.put(open.one(), "k", 10).await;
    let copy = db.beside("copy");
    fs::write(&copy, vec![0x55; 40_000]).unwrap();
    cp(&copy, &db.beside("catalogue.db-intents"));
    let (found, written) = noticed(&open).await;
    assert!(
        found.contains("catalogue.db-intents was overwritten"),
        "{found}"
    );
    assert!(open.plan("k").await.is_some(), "reads go on");
    let saved = saved(&db).await;
    let closed = open.store.close().await;
    assert!(matches!(closed, Err(Error::Gone { .. })), "{closed:?}");
    drop(open);
    let mut options = db.options();
    options.path = saved;
    let store = Store::open(options).await.unwrap();
    let buckets = store.client_buckets().await.unwrap();
    assert_eq!(buckets.len(), written as usize);
}

async fn a_malformed_page_stops_writes_and_says_the_way_out(db: Db) {
    let open = db.open().await;
    open.store.close().await.unwrap();
    drop(open);
    let root = "SELECT rootpage FROM sqlite_schema WHERE name = 'buckets'";
    let conn = Connection::open(db.path()).unwrap();
    let page: i64 = conn.query_row(root, [], |row| row.get(0)).unwrap();
    drop(conn);
    let store = Store::open(db.options()).await.unwrap();
    let file = fs::File::options().write(true).open(db.path()).unwrap();
    file.write_all_at(&[0x55; 4096], (page.cast_unsigned() - 1) * 4096)
        .unwrap();
    let words = |error: Error| {
        let text = error.to_string();
        assert!(text.contains("reconcile --recover"), "{text}");
        error
    };
    let read = words(store.client_buckets().await.unwrap_err());
    assert!(matches!(read, Error::Corrupt { .. }), "{read:?}");
    let why = store.unwritable();
    assert!(matches!(why, Some(Unwritable::Damaged { .. })), "{why:?}");
    let written = store.create_bucket(&"new".parse().unwrap()).await;
    let written = words(written.unwrap_err());
    assert!(matches!(written, Error::Broken { .. }), "{written:?}");
    let closed = words(store.close().await.unwrap_err());
    assert!(matches!(closed, Error::Broken { .. }), "{closed:?}");
}

async fn checkpoints_verifications_and_backups_of_others_raise_no_alarm(db: Db) {
    let open = db.open().await;
    let reader = Store::open_reader(&db.path()).await.unwrap();
    for round in 0..12 {
        for n in 0..MANY_KEYS / 4 {
            open.put(open.one(), &format!("{round}-{n:04}"), 1).await;
        }
        let mode = ["PASSIVE", "FULL", "RESTART", "TRUNCATE"][round % 4];
        for name in ["catalogue.db", "catalogue.db-intents"] {
            let other = Connection::open(db.beside(name)).unwrap();
            // Who is busy tells so in a row.
            other.busy_timeout(Duration::ZERO).unwrap();
            other
                .query_row(&format!("PRAGMA wal_checkpoint({mode})"), [], |_| Ok(()))
                .unwrap();
            let now = fs::File::options().write(true).open(db.beside(name));
            let now = now.unwrap().set_modified(std::time::SystemTime::UNIX_EPOCH);
            assert!(now.is_ok(), "the same bytes with another time");
        }
        reader.verify().await.unwrap();
        open.store.verify().await.unwrap();
        let copy = db.beside(&format!("copy-{round}"));
        Store::backup(&db.path(), &copy, &db.ids).await.unwrap();
        assert_eq!(open.store.unwritable(), None, "round {round}, {mode}");
    }
    drop(reader);
    open.check().await;
    open.store.close().await.unwrap();
}

async fn files_that_are_removed_just_before_the_end_are_copied_by_it(db: Db) {
    let open = db.open().await;
    open.put(open.one(), "k", 10).await;
    remove_files(&db);
    let closed = open.store.close().await;
    assert!(matches!(closed, Err(Error::Gone { .. })), "{closed:?}");
    drop(open);
    let mut options = db.options();
    options.path = saved(&db).await;
    let open = db
        .set_up(Store::open(options).await.unwrap())
        .await
        .unwrap();
    assert!(open.plan("k").await.is_some());
}

async fn a_backup_beside_the_wal_of_another_file_is_refused(db: Db) {
    let open = db.open().await;
    open.put(open.one(), "k", 10).await;
    let copy = db.beside("copy");
    Store::backup(&db.path(), &copy, &db.ids).await.unwrap();
    open.put(open.one(), "later", 10).await;
    let killed = db.killed();
    drop(open);
    cp(&copy, &killed.path());
    let before = fs::read(killed.path()).unwrap();
    match Store::open(killed.options()).await {
        Err(Error::Foreign { found, .. }) => assert!(found.contains("it is a backup"), "{found}"),
        other => panic!("{other:?}"),
    }
    assert!(fs::read(killed.path()).unwrap() == before);
    for (name, _) in modes(&killed) {
        if name.starts_with("catalogue.db-") {
            fs::remove_file(killed.beside(&name)).unwrap();
        }
    }
    let open = killed.open().await;
    assert!(open.plan("k").await.is_some() && open.plan("later").await.is_none());
}
