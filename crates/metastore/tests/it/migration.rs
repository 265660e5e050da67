//! From files to PostgreSQL.

use std::sync::Arc;
use std::time::Duration;

use base::{Clock, Precondition};
use metastore::model::{Removed, Verdict};
use metastore::{Error, MoveOptions, Store, move_to_postgres};

use crate::support::{Db, key};

fn options(db: &Db) -> MoveOptions {
    MoveOptions {
        clock: Arc::clone(&db.clock) as Arc<dyn Clock>,
        ids: Arc::clone(&db.ids),
    }
}

#[tokio::test]
async fn a_moved_catalogue_is_the_same_and_its_source_refuses_to_start() {
    let (files, server) = (Db::sqlite(), Db::postgres());
    let open = files.open().await;
    let mut versions = Vec::new();
    for n in 0..700 {
        versions.push(open.put(open.one(), &format!("k{n:03}/\u{e4}%\\"), n).await);
    }
    for n in 0..50 {
        open.put(open.two(), &format!("k{n:03}/\u{e4}%\\"), 1).await;
    }
    drop(open.intent(open.one(), 10).await.unwrap());
    let before = open.store.verify().await.unwrap();
    let uuid = open.store.catalogue().uuid;
    let (bucket, backends) = (open.bucket, open.backends.clone());
    let target = || server.connect_options(server.database()).server;
    let busy = move_to_postgres(&files.path(), target(), options(&files), |_| {}).await;
    assert!(matches!(busy, Err(Error::InUse { .. })), "{busy:?}");
    open.store.close().await.unwrap();
    drop(open);

    let mut seen = Vec::new();
    let path = files.path();
    let moved = move_to_postgres(&path, target(), options(&files), |progress| {
        seen.push(progress);
    });
    let moved = moved.await.unwrap();
    assert!(seen.is_sorted_by_key(|progress| progress.copied));
    assert_eq!(seen.last().unwrap().copied, moved.rows);
    let refused = Store::open(files.options()).await;
    match refused {
        Err(Error::Retired { why, .. }) => assert!(why.contains("database.host"), "{why}"),
        other => panic!("{other:?}"),
    }
    let again = move_to_postgres(&files.path(), target(), options(&files), |_| {}).await;
    assert!(matches!(again, Err(Error::Retired { .. })), "{again:?}");

    let open = server.open().await;
    assert_eq!(open.store.catalogue().uuid, uuid);
    assert_eq!(open.store.catalogue().recovery, None);
    assert_eq!((open.bucket, &open.backends), (bucket, &backends));
    open.check().await;
    let after = open.store.verify().await.unwrap();
    for (was, is) in before.backends.iter().zip(&after.backends) {
        // The intent that nobody held was given up before the move.
        assert_eq!((was.used, was.locations), (is.used, is.locations));
        assert_eq!(was.orphan.0 + was.reserved.0, is.orphan.0 + is.reserved.0);
    }
    for version in versions.iter().skip(50) {
        let found = open
            .store
            .object(bucket, &version.key)
            .await
            .unwrap()
            .unwrap();
        assert_eq!((found.version, found.size), (version.version, version.size));
    }
    // It goes on where it was: no number is used twice.
    let last = open
        .store
        .object(bucket, &key("k699/\u{e4}%\\"))
        .await
        .unwrap()
        .unwrap();
    let (verdict, _) = open
        .put_if(open.one(), "new", 1, Precondition::Absent)
        .await;
    assert!(
        matches!(verdict, Verdict::Committed { seq } if seq > last.seq),
        "{verdict:?}"
    );
    let new = open
        .store
        .ensure_backends(&["three".parse().unwrap()])
        .await
        .unwrap();
    assert!(!backends.contains(&new[0].id));
    let removed = open.store.remove(open.removal("new")).await.unwrap();
    assert!(matches!(removed, Removed::Gone { .. }));
    let visible = Duration::from_secs(1);
    server.clock.advance_ms(3_600_000);
    assert!(
        !open
            .store
            .claim_cleanup(10, visible)
            .await
            .unwrap()
            .is_empty()
    );
    open.check().await;
}

#[tokio::test]
async fn a_move_that_was_interrupted_goes_on_and_nothing_starts_on_a_half_filled_database() {
    let (files, server) = (Db::sqlite(), Db::postgres());
    let open = files.open().await;
    for n in 0..1500 {
        open.put(open.one(), &format!("k{n}"), 1).await;
    }
    open.store.close().await.unwrap();
    drop(open);
    let target = || server.connect_options(server.database()).server;
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    let path = files.path();
    let moving = move_to_postgres(&path, target(), options(&files), move |progress| {
        tell.send(progress).ok();
    });
    // Somewhere in the middle its process ends.
    tokio::select! {
        moved = moving => panic!("{moved:?}"),
        _ = async { while told.recv().await.unwrap().copied < 1000 {} } => {}
    }
    let refused = Store::connect(server.connect_options(server.database())).await;
    assert!(matches!(refused, Err(Error::Retired { .. })), "{refused:?}");
    let moved = loop {
        match move_to_postgres(&files.path(), target(), options(&files), |_| {}).await {
            // What was cut off lets go of the files a moment later.
            Err(Error::InUse { .. }) => tokio::task::yield_now().await,
            other => break other.unwrap(),
        }
    };
    let open = server.open().await;
    open.check().await;
    assert_eq!(open.room(open.one()).used, 1500);
    assert!(moved.rows > 1500 * 3);
}

#[tokio::test]
async fn a_database_that_is_in_use_takes_no_other_catalogue() {
    let (files, server) = (Db::sqlite(), Db::postgres());
    drop(files.open().await);
    let open = server.open().await;
    let target = server.connect_options(server.database()).server;
    let refused = loop {
        let target = target.clone();
        match move_to_postgres(&files.path(), target, options(&files), |_| {}).await {
            Err(Error::InUse { .. }) => tokio::task::yield_now().await,
            other => break other,
        }
    };
    assert!(
        matches!(refused, Err(Error::Occupied { .. })),
        "{refused:?}"
    );
    open.put(open.one(), "k", 1).await;
    // The source goes on.
    drop(files.open().await);
}
