//! A full disk, a commit of unknown outcome, batches with a bad job, dropped stores.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use futures_util::future::join_all;
use metastore::model::{Removed, Unwritable, Verdict};
use metastore::{Error, Tuning};

use crate::support::{Db, READ_GRACE};

on_each_database! {
    a_bad_job_fails_alone,
    a_job_that_fails_half_way_leaves_nothing,
    what_waits_is_written_before_the_store_closes,
    writes_of_one_key_happen_in_queue_order,
}

on_files! {
    a_full_disk_fails_writes_and_loses_nothing,
    an_unknown_commit_ends_the_process,
    the_log_does_not_grow_without_end,
}

/// Extended result codes of SQLite: an fsync failed; the disk is full.
const IOERR_FSYNC: i32 = 1034;
const FULL: i32 = 13;

async fn a_bad_job_fails_alone(db: Db) {
    let open = db.open().await;
    let mut writes = Vec::new();
    for n in 0..20 {
        let (blob, intent) = open.intent(open.one(), 10).await.unwrap();
        let intents = vec![intent];
        // Every fifth says that its only blob is of another size than its object.
        let mut version = open.version(&format!("k{n}"), 10, blob, &intents);
        version.size = if n % 5 == 0 { 9 } else { 10 };
        writes.push(open.store.commit(version, intents));
    }
    for (n, (verdict, left)) in join_all(writes).await.into_iter().enumerate() {
        match n % 5 {
            0 => assert!(matches!(verdict, Err(Error::Damaged { .. })) && left.len() == 1),
            _ => assert!(matches!(verdict, Ok(Verdict::Committed { .. })) && left.is_empty()),
        }
    }
    assert_eq!(open.room(open.one()).used, 160);
    assert_eq!(open.store.reap_intents(100).await.unwrap(), 4);
    open.check().await;
}

/// It fails behind its first changes: they are taken back, and what is beside it happens.
async fn a_job_that_fails_half_way_leaves_nothing(db: Db) {
    let open = db.open().await;
    open.put(open.one(), "first", 10).await;
    let there = open.plan("first").await.unwrap().extents[0].extent.blob;
    let mut writes = Vec::new();
    for n in 0..20 {
        // Every fifth says that its blob is the one that is there already.
        let (blob, intent) = match n % 5 {
            0 => (there, open.intent_for(there, open.one(), 10).await.unwrap()),
            _ => open.intent(open.one(), 10).await.unwrap(),
        };
        let intents = vec![intent];
        let version = open.version(&format!("k{n}"), 10, blob, &intents);
        writes.push(open.store.commit(version, intents));
    }
    for (n, (verdict, left)) in join_all(writes).await.into_iter().enumerate() {
        match n % 5 {
            0 => assert!(verdict.is_err() && left.len() == 1, "{n}: {verdict:?}"),
            _ => assert!(matches!(verdict, Ok(Verdict::Committed { .. })) && left.is_empty()),
        }
    }
    assert_eq!(open.room(open.one()).used, 170);
    for n in 0..20 {
        assert_eq!(open.plan(&format!("k{n}")).await.is_some(), n % 5 != 0);
    }
    assert_eq!(open.store.reap_intents(100).await.unwrap(), 4);
    open.check().await;
}

async fn a_full_disk_fails_writes_and_loses_nothing(db: Db) {
    let tuning = Tuning {
        pages_max: Some(120),
        ..Tuning::default()
    };
    let open = db.open_tuned(tuning).await.unwrap();
    let mut written = 0;
    let refused = loop {
        let (blob, intent) = open.intent(open.one(), 10).await.unwrap();
        let intents = vec![intent];
        let version = open.version(&format!("{written:0900}"), 10, blob, &intents);
        match open.store.commit(version, intents).await {
            (Ok(Verdict::Committed { .. }), _) => written += 1,
            (refused, left) => {
                assert_eq!(left.len(), 1);
                break refused;
            }
        }
        assert!(written < 10_000);
    };
    assert!(matches!(refused, Err(Error::Full { .. })), "{refused:?}");
    assert_eq!(open.store.unwritable(), Some(Unwritable::WriteFailed));
    // A transaction that writes nothing proves nothing.
    open.store.claim_cleanup(1, READ_GRACE).await.unwrap();
    assert_eq!(open.store.unwritable(), Some(Unwritable::WriteFailed));
    open.store
        .remove(open.removal(&"0".repeat(900)))
        .await
        .unwrap();
    assert_eq!(open.store.unwritable(), None);
    written -= 1;
    open.check().await;
    assert_eq!(open.room(open.one()).used, written * 10);
    // Room comes back with what is removed, as far as the disk allows it.
    drop(open);
    let open = db.open().await;
    assert!(open.plan(&format!("{written:0900}")).await.is_some());
    assert_eq!(open.store.reap_intents(10).await.unwrap(), 1);
    open.check().await;
}

async fn an_unknown_commit_ends_the_process(db: Db) {
    let broken = Arc::new(AtomicBool::new(false));
    let ends = Arc::new(AtomicUsize::new(0));
    let tuning = Tuning {
        on_fatal: {
            let ends = Arc::clone(&ends);
            Arc::new(move |_| {
                ends.fetch_add(1, Ordering::SeqCst);
            })
        },
        commit_fault: {
            let broken = Arc::clone(&broken);
            Some(Arc::new(move || {
                broken.load(Ordering::SeqCst).then_some(IOERR_FSYNC)
            }))
        },
        ..Tuning::default()
    };
    let open = db.open_tuned(tuning).await.unwrap();
    let version = open.put(open.one(), "k", 10).await;
    broken.store(true, Ordering::SeqCst);
    let failed = open.store.remove(open.removal("k")).await;
    assert!(matches!(failed, Err(Error::Database { .. })), "{failed:?}");
    assert_eq!(ends.load(Ordering::SeqCst), 1);
    broken.store(false, Ordering::SeqCst);
    let late = open.store.remove(open.removal("k")).await;
    assert!(matches!(late, Err(Error::Closed)), "{late:?}");
    drop(open);
    let open = db.open().await;
    assert_eq!(
        open.plan("k").await.unwrap().object.version,
        version.version
    );
    open.check().await;

    // A full disk at the commit is no such end: it is known that nothing happened.
    drop(open);
    let full = Arc::new(AtomicBool::new(false));
    let commit_fault: Option<Arc<dyn Fn() -> Option<i32> + Send + Sync>> = {
        let full = Arc::clone(&full);
        Some(Arc::new(move || {
            full.load(Ordering::SeqCst).then_some(FULL)
        }))
    };
    let open = db
        .open_tuned(Tuning {
            commit_fault,
            ..Tuning::default()
        })
        .await
        .unwrap();
    let held = open.intent(open.one(), 1).await.unwrap();
    full.store(true, Ordering::SeqCst);
    assert!(matches!(
        open.store.remove(open.removal("k")).await,
        Err(Error::Full { .. })
    ));
    assert!(matches!(
        open.intent(open.one(), 1).await,
        Err(Error::Full { .. })
    ));
    let abandoned = open.store.abandon_intent(held.1).await;
    assert!(
        matches!(abandoned, Err(Error::Full { .. })),
        "{abandoned:?}"
    );
    assert_eq!(open.room(open.one()).reserved, 1);
    full.store(false, Ordering::SeqCst);
    assert!(matches!(
        open.store.remove(open.removal("k")).await,
        Ok(Removed::Gone { .. })
    ));
    assert_eq!(open.store.reap_intents(10).await.unwrap(), 1);
    open.check().await;
}

async fn what_waits_is_written_before_the_store_closes(db: Db) {
    let open = db.open().await;
    for n in 0..40 {
        open.put(open.one(), &format!("k{n}"), 1).await;
    }
    let store = open.store.clone();
    let removals: Vec<_> = (0..40).map(|n| open.removal(&format!("k{n}"))).collect();
    let (outcomes, closed) = tokio::join!(store.remove_many(removals), open.store.close());
    closed.unwrap();
    assert!(
        outcomes
            .iter()
            .all(|outcome| matches!(outcome, Ok(Removed::Gone { .. })))
    );
    drop((open, store));
    let open = db.open().await;
    assert_eq!(open.room(open.one()).orphan, 40);
    open.check().await;
}

async fn writes_of_one_key_happen_in_queue_order(db: Db) {
    let open = db.open().await;
    let mut writes = Vec::new();
    let mut last = None;
    // Few enough that tokio's budget does not reorder those who queue.
    for n in 0..50 {
        let (blob, intent) = open.intent(open.one(), n).await.unwrap();
        let intents = vec![intent];
        let version = open.version("k", n, blob, &intents);
        last = Some(version.version);
        writes.push(open.store.commit(version, intents));
    }
    let mut seq = 0;
    for (verdict, _) in join_all(writes).await {
        let Ok(Verdict::Committed { seq: next }) = verdict else {
            panic!("{verdict:?}")
        };
        assert!(next > seq);
        seq = next;
    }
    assert_eq!(Some(open.plan("k").await.unwrap().object.version), last);
    assert_eq!(open.room(open.one()).used, 49);
    open.check().await;
}

/// Rounds of writes after which the log must have begun anew, however slowly it is copied back.
const ROUNDS_MAX: usize = 200;

async fn the_log_does_not_grow_without_end(db: Db) {
    let open = db.open().await;
    let length = |path: PathBuf| std::fs::metadata(path).unwrap().len();
    for round in 0.. {
        let writes = (0..200).map(|n| {
            let open = &open;
            async move {
                let (blob, intent) = open.intent(open.one(), 1).await.unwrap();
                let intents = vec![intent];
                let mut version = open.version(&format!("{round}-{n}"), 1, blob, &intents);
                version.headers.user = vec![("x".into(), "y".repeat(3500))];
                let (verdict, _) = open.store.commit(version, intents).await;
                assert!(matches!(verdict, Ok(Verdict::Committed { .. })));
                // Reads keep their snapshots, which are in the way of copying the log back.
                assert!(open.plan(&format!("{round}-{n}")).await.is_some());
            }
        });
        join_all(writes).await;
        // A log that never begins anew has been written more than what it was copied to.
        let (log, copied) = (length(db.beside("catalogue.db-wal")), length(db.path()));
        if copied > log * 3 / 2 {
            break;
        }
        assert!(round < ROUNDS_MAX, "{log} bytes of log, {copied} copied");
    }
    open.store.close().await.unwrap();
    assert!(!db.beside("catalogue.db-wal").exists());
}
