//! Intents, room, restarts.

use futures_util::future::join_all;
use metastore::Error;
use metastore::model::{CleanupOutcome, CleanupReport, Known, Verdict};

use crate::support::Db;

on_each_database! {
    a_dropped_intent_is_reaped_into_an_unsettled_row,
    a_withdrawn_intent_leaves_nothing,
    an_answered_intent_is_given_up_settled,
    an_abandoned_intent_cannot_be_committed,
    a_reaped_intent_cannot_be_committed,
    an_intent_survives_a_restart_as_an_abandoned_one,
    a_committed_intent_is_not_given_up_after_a_restart,
    a_commit_fails_where_an_intent_is_missing,
    the_quota_is_never_exceeded_by_concurrent_reservations,
    a_dropped_future_leaves_an_intent_for_the_reaper,
    nothing_is_reaped_in_recovery_state,
    a_clean_stop_and_a_crash_end_alike,
}

on_cut_connections! {
    a_withdrawn_intent_leaves_nothing,
    an_abandoned_intent_cannot_be_committed,
}

on_files! {
    after_a_kill_every_copy_is_in_one_state_only,
    an_intent_that_is_not_durable_is_found,
}

async fn a_dropped_intent_is_reaped_into_an_unsettled_row(db: Db) {
    let open = db.open().await;
    let (_, intent) = open.intent(open.one(), 10).await.unwrap();
    let copy = intent.copy();
    assert_eq!(open.store.reap_intents(10).await.unwrap(), 0);
    drop(intent);
    assert_eq!(open.room(open.one()).reserved, 10);
    open.check().await;
    assert_eq!(open.store.reap_intents(10).await.unwrap(), 1);
    let room = open.room(open.one());
    assert_eq!((room.reserved, room.orphan), (0, 10));
    assert_eq!(open.store.known_copy(copy).await.unwrap(), Known::Cleanup);
    let items = open
        .store
        .claim_cleanup(10, super::support::READ_GRACE)
        .await
        .unwrap();
    assert!(
        items.len() == 1 && items[0].unsettled && items[0].copy == copy,
        "{items:?}"
    );
    open.check().await;
}

async fn a_withdrawn_intent_leaves_nothing(db: Db) {
    let open = db.open().await;
    let (_, intent) = open.intent(open.one(), 10).await.unwrap();
    let copy = intent.copy();
    open.store.withdraw_intent(intent).await.unwrap();
    assert_eq!(open.room(open.one()).reserved, 0);
    assert_eq!(open.store.known_copy(copy).await.unwrap(), Known::No);
    let depth = open.store.depth().await.unwrap();
    assert_eq!((depth.queued, depth.intents), (0, 0));
    open.check().await;
    open.store.close().await.unwrap();
    let open = db.open().await;
    assert_eq!(open.store.depth().await.unwrap().intents, 0);
}

async fn an_abandoned_intent_cannot_be_committed(db: Db) {
    let open = db.open().await;
    let (blob, intent) = open.intent(open.one(), 10).await.unwrap();
    let version = open.version("k", 10, blob, std::slice::from_ref(&intent));
    open.store.abandon_intent(intent).await.unwrap();
    let (verdict, _) = open.store.commit(version, Vec::new()).await;
    assert_eq!(verdict.unwrap(), Verdict::IntentGone);
    assert_eq!(open.plan("k").await, None);
    open.check().await;
}

/// A guard of the store before, as of a process that was merely asleep.
async fn a_reaped_intent_cannot_be_committed(db: Db) {
    let open = db.open().await;
    let (blob, intent) = open.intent(open.one(), 10).await.unwrap();
    let version = open.version("k", 10, blob, std::slice::from_ref(&intent));
    drop(open);
    let open = db.open().await;
    let race = async {
        let (verdict, left) = open.store.commit(version.clone(), vec![intent]).await;
        assert_eq!(verdict.unwrap(), Verdict::IntentGone);
        assert_eq!(left.len(), 1);
        drop(left);
    };
    let (_, reaped) = tokio::join!(race, open.store.reap_intents(10));
    assert_eq!(reaped.unwrap(), 1);
    assert_eq!(open.plan("k").await, None);
    open.check().await;
}

async fn an_intent_survives_a_restart_as_an_abandoned_one(db: Db) {
    let open = db.open().await;
    let (_, first) = open.intent(open.one(), 10).await.unwrap();
    let (_, second) = open.intent(open.two(), 20).await.unwrap();
    let copies = [first.copy(), second.copy()];
    drop(open);
    let open = db.open().await;
    assert_eq!(
        (
            open.room(open.one()).reserved,
            open.room(open.two()).reserved
        ),
        (10, 20)
    );
    open.check().await;
    for copy in copies {
        assert_eq!(open.store.known_copy(copy).await.unwrap(), Known::Pending);
    }
    assert_eq!(open.store.reap_intents(1).await.unwrap(), 1);
    open.check().await;
    drop(open);
    let open = db.open().await;
    assert_eq!(open.store.reap_intents(10).await.unwrap(), 1);
    assert_eq!(
        (open.room(open.one()).orphan, open.room(open.two()).orphan),
        (10, 20)
    );
    assert_eq!(
        (
            open.room(open.one()).reserved,
            open.room(open.two()).reserved
        ),
        (0, 0)
    );
    open.check().await;
    drop((first, second));
}

async fn a_committed_intent_is_not_given_up_after_a_restart(db: Db) {
    let open = db.open().await;
    open.put(open.one(), "k", 10).await;
    drop(open);
    let open = db.open().await;
    assert_eq!(open.store.depth().await.unwrap().intents, 0);
    assert_eq!(open.store.reap_intents(10).await.unwrap(), 0);
    let room = open.room(open.one());
    assert_eq!((room.used, room.orphan, room.reserved), (10, 0, 0));
    open.check().await;
}

async fn a_commit_fails_where_an_intent_is_missing(db: Db) {
    let open = db.open().await;
    let (blob, first) = open.intent(open.one(), 10).await.unwrap();
    let (_, second) = open.intent(open.two(), 10).await.unwrap();
    let both = vec![first, second];
    let version = open.version("k", 10, blob, &both);
    let mut both = both.into_iter();
    let first = both.next().into_iter().collect();
    open.store
        .abandon_intent(both.next().unwrap())
        .await
        .unwrap();
    let (verdict, left) = open.store.commit(version, first).await;
    assert_eq!(verdict.unwrap(), Verdict::IntentGone);
    assert_eq!(left.len(), 1);
    open.check().await;
    for intent in left {
        open.store.withdraw_intent(intent).await.unwrap();
    }
    let room = open.room(open.one());
    assert_eq!((room.used, room.orphan, room.reserved), (0, 0, 0));
    open.check().await;
}

async fn the_quota_is_never_exceeded_by_concurrent_reservations(db: Db) {
    let open = db.open().await;
    open.store.set_limit(open.one(), Some(1000));
    let writers = (0..100).map(|n| {
        let open = &open;
        async move {
            let size = 7 + n % 13;
            let Ok((blob, intent)) = open.intent(open.one(), size).await else {
                return 0;
            };
            let room = open.room(open.one());
            assert!(room.used + room.orphan + room.reserved <= 1000, "{room:?}");
            let intents = vec![intent];
            let version = open.version(&format!("k{}", n % 10), size, blob, &intents);
            let (verdict, _) = open.store.commit(version, intents).await;
            assert!(matches!(verdict, Ok(Verdict::Committed { .. })));
            size
        }
    });
    let written: u64 = join_all(writers).await.into_iter().sum();
    let room = open.room(open.one());
    assert_eq!(room.used + room.orphan, written);
    assert!(room.free() < 20 && room.reserved == 0, "{room:?}");
    let refused = open.store.reserve(open.one(), room.free() + 1).await;
    assert!(matches!(refused, Err(Error::NoRoom { .. })));
    open.check().await;
}

async fn a_dropped_future_leaves_an_intent_for_the_reaper(db: Db) {
    let open = db.open().await;
    for polls in 0..4 {
        let write = async {
            let (blob, intent) = open.intent(open.one(), 10).await.unwrap();
            let intents = vec![intent];
            let version = open.version("k", 10, blob, &intents);
            open.store.commit(version, intents).await.0.unwrap();
        };
        let mut write = Box::pin(write);
        for _ in 0..polls {
            let polled = futures_util::poll!(write.as_mut());
            tokio::task::yield_now().await;
            if polled.is_ready() {
                break;
            }
        }
        drop(write);
    }
    // Everything that was queued is done when this is.
    open.put(open.two(), "other", 1).await;
    open.check().await;
    open.store.reap_intents(100).await.unwrap();
    let room = open.room(open.one());
    assert_eq!(room.reserved, 0, "{room:?}");
    open.check().await;
}

async fn nothing_is_reaped_in_recovery_state(db: Db) {
    let open = db.open().await;
    drop(open.intent(open.one(), 10).await.unwrap());
    open.store.enter_recovery("restored".into()).await.unwrap();
    assert_eq!(open.store.catalogue().recovery.as_deref(), Some("restored"));
    assert_eq!(open.store.reap_intents(10).await.unwrap(), 0);
    drop(open);
    let open = db.open().await;
    assert_eq!(open.store.catalogue().recovery.as_deref(), Some("restored"));
    assert_eq!(open.store.reap_intents(10).await.unwrap(), 0);
    open.store.leave_recovery().await.unwrap();
    assert_eq!(open.store.catalogue().recovery, None);
    // Where others share the catalogue, all intents went when the state began: nobody may reap one
    // whose bytes became an object after the backup.
    let reaped = if db.is_shared() { 0 } else { 1 };
    assert_eq!(open.store.reap_intents(10).await.unwrap(), reaped);
    open.check().await;
}

async fn a_clean_stop_and_a_crash_end_alike(db: Db) {
    for clean in [true, false, true, false] {
        let open = db.open().await;
        open.put(open.one(), "k", 10).await;
        let (_, held) = open.intent(open.one(), 3).await.unwrap();
        if clean {
            open.store.close().await.unwrap();
            assert!(matches!(
                open.store.object(open.bucket, &"k".parse().unwrap()).await,
                Err(Error::Closed)
            ));
            let late = open.store.remove(open.removal("k")).await;
            assert!(matches!(late, Err(Error::Closed)));
            open.store.close().await.unwrap();
        }
        drop(held);
    }
    let open = db.open().await;
    let room = open.room(open.one());
    assert_eq!((room.used, room.orphan, room.reserved), (10, 30, 12));
    open.check().await;
}

async fn after_a_kill_every_copy_is_in_one_state_only(db: Db) {
    let open = db.open().await;
    // Opened in one go: no later batch of intents removes the rows of the settled ones.
    let intents = join_all((0..6).map(|_| open.intent(open.one(), 10))).await;
    let intents: Vec<_> = intents.into_iter().map(Result::unwrap).collect();
    let copies: Vec<_> = intents.iter().map(|(_, intent)| intent.copy()).collect();
    let mut intents = intents.into_iter();
    let (blob, committed) = intents.next().unwrap();
    let committed = vec![committed];
    let version = open.version("k", 10, blob, &committed);
    let (verdict, _) = open.store.commit(version, committed).await;
    assert!(matches!(verdict, Ok(Verdict::Committed { .. })));
    open.store
        .abandon_intent(intents.next().unwrap().1)
        .await
        .unwrap();
    open.store
        .abandon_intent(intents.next().unwrap().1)
        .await
        .unwrap();
    let dead = open
        .store
        .claim_cleanup(10, super::support::READ_GRACE)
        .await
        .unwrap();
    let outcome = CleanupOutcome::Dead { error: "no".into() };
    let report = CleanupReport {
        id: dead[1].id,
        outcome,
    };
    open.store.report_cleanup(vec![report]).await.unwrap();
    open.store
        .withdraw_intent(intents.next().unwrap().1)
        .await
        .unwrap();
    drop(intents.next());
    let held = intents.next();

    let killed = db.killed();
    let after = killed.open().await;
    let mut known = Vec::new();
    for copy in &copies {
        known.push(after.store.known_copy(*copy).await.unwrap());
    }
    // The withdrawn one comes back: it is cleaned for nothing, which harms nobody.
    let pending = [Known::Pending; 3];
    assert_eq!(
        known[..3],
        [Known::Location, Known::Cleanup, Known::Cleanup]
    );
    assert_eq!(known[3..], pending);
    let room = after.room(after.one());
    assert_eq!((room.used, room.orphan, room.reserved), (10, 20, 30));
    after.check().await;
    assert_eq!(after.store.reap_intents(10).await.unwrap(), 3);
    after.check().await;
    drop((held, open));

    // What was found stale at start has left the file with the next batch.
    after.put(after.two(), "other", 1).await;
    after.store.close().await.unwrap();
    let file = rusqlite::Connection::open(killed.beside("catalogue.db-intents")).unwrap();
    let left: i64 = file
        .query_row("SELECT count(*) FROM write_intents", [], |row| row.get(0))
        .unwrap();
    assert_eq!(left, 0);
}

async fn an_intent_that_is_not_durable_is_found(db: Db) {
    let open = db.open().await;
    let (_, intent) = open.intent(open.one(), 10).await.unwrap();
    open.check().await;
    let file = rusqlite::Connection::open(db.beside("catalogue.db-intents")).unwrap();
    file.execute("DELETE FROM write_intents", []).unwrap();
    let verification = open.store.verify().await.unwrap();
    let found = format!("an intent that is not durable: {}", intent.copy());
    assert_eq!(verification.contradictions, [found]);
    open.store.withdraw_intent(intent).await.unwrap();
    open.check().await;
}

async fn an_answered_intent_is_given_up_settled(db: Db) {
    let open = db.open().await;
    let (_, dropped) = open.intent(open.one(), 10).await.unwrap();
    let (_, given_up) = open.intent(open.one(), 20).await.unwrap();
    let (_, unknown) = open.intent(open.one(), 30).await.unwrap();
    dropped.answered();
    given_up.answered();
    drop((dropped, unknown));
    open.store.abandon_intent(given_up).await.unwrap();
    assert_eq!(open.store.reap_intents(10).await.unwrap(), 2);
    let visible = super::support::READ_GRACE;
    let mut items = open.store.claim_cleanup(10, visible).await.unwrap();
    items.sort_unstable_by_key(|item| item.bytes);
    let found: Vec<_> = items
        .iter()
        .map(|item| (item.bytes, item.unsettled))
        .collect();
    assert_eq!(found, [(10, false), (20, false), (30, true)]);
    open.check().await;
}
