//! What an operator looks at.

use std::time::Duration;

use base::{Clock, Timestamp};
use metastore::Store;
use metastore::model::{
    BackendState, CleanupOutcome, CleanupReason, CleanupReport, QueueDepth, QueuedCleanup,
};

use crate::support::{Db, READ_GRACE, START_MS};

on_each_database! {
    totals_are_those_of_the_rows,
    the_head_of_the_cleanup_queue_is_seen_without_claiming_it,
}

on_files! {
    an_instance_counts_its_starts,
}

async fn totals_are_those_of_the_rows(db: Db) {
    let open = db.open().await;
    open.put(open.one(), "a", 10).await;
    open.put(open.one(), "b", 20).await;
    open.put(open.two(), "c", 30).await;
    open.store.remove(open.removal("c")).await.unwrap();
    open.store
        .set_backend_state(open.two(), BackendState::Draining)
        .await
        .unwrap();
    let totals = open.store.backend_totals().await.unwrap();
    let [one, two] = totals.as_slice() else {
        panic!("{totals:?}")
    };
    assert_eq!((one.id, two.id), (open.one(), open.two()));
    assert_eq!((one.state, one.locations), (BackendState::Active, 2));
    assert_eq!((two.state, two.locations), (BackendState::Draining, 0));
}

async fn the_head_of_the_cleanup_queue_is_seen_without_claiming_it(db: Db) {
    let open = db.open().await;
    let empty = open.store.cleanup_page(50).await.unwrap();
    assert_eq!((empty.depth, empty.items), (QueueDepth::default(), vec![]));
    open.put(open.two(), "later", 10).await;
    let later = open.plan("later").await.unwrap().extents[0].copies[0].clone();
    open.store.remove(open.removal("later")).await.unwrap();
    drop(open.intent(open.one(), 3).await.unwrap());
    open.store.reap_intents(1).await.unwrap();
    let page = open.store.cleanup_page(50).await.unwrap();
    assert_eq!((page.depth.queued, page.items.len()), (2, 2));
    // What is due comes first; what waits for readers comes after it.
    assert_eq!(page.items[0].backend.as_str(), "one");
    assert_eq!(page.items[0].reason, CleanupReason::IntentAbandoned);
    assert_eq!(
        page.items[1],
        QueuedCleanup {
            id: page.items[1].id,
            backend: "two".parse().unwrap(),
            key: later.key,
            reason: CleanupReason::ObjectDeleted,
            bytes: 10,
            attempts: 0,
            created: Timestamp::from_millis(START_MS),
            not_before: db.clock.now().after(READ_GRACE),
            last_error: None,
        }
    );
    let first = open.store.cleanup_page(1).await.unwrap();
    assert_eq!((first.depth.queued, first.items.len()), (2, 1));
    // Looking claimed nothing.
    let visible = Duration::from_secs(300);
    let claimed = open.store.claim_cleanup(10, visible).await.unwrap();
    assert_eq!(claimed.len(), 1);
    let outcome = CleanupOutcome::Retry {
        again_at: db.clock.now().after(visible),
        error: Some("refused".into()),
    };
    let id = claimed[0].id;
    let report = vec![CleanupReport { id, outcome }];
    open.store.report_cleanup(report).await.unwrap();
    let page = open.store.cleanup_page(50).await.unwrap();
    let failed = page.items.iter().find(|item| item.id == id).unwrap();
    assert_eq!(failed.attempts, 1);
    assert_eq!(failed.last_error.as_deref(), Some("refused"));
}

async fn an_instance_counts_its_starts(db: Db) {
    let mut before = 0;
    for _ in 0..3 {
        let open = db.open().await;
        let instances = open.store.instances().await.unwrap();
        let [one] = instances.as_slice() else {
            panic!("{instances:?}")
        };
        assert!(one.this && one.epoch > before, "{one:?}");
        before = one.epoch;
        assert_eq!(one.heartbeat, db.clock.now());
        let reader = Store::open_reader(&db.path()).await.unwrap();
        assert!(!reader.instances().await.unwrap()[0].this);
        open.store.close().await.unwrap();
        db.clock.advance_ms(1000);
    }
}
