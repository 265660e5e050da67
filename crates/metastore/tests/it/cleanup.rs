//! The life of a cleanup row.

use std::time::Duration;

use base::{Clock, Timestamp};
use metastore::model::{CleanupKind, CleanupOutcome, CleanupReason, CleanupReport, Known};

use crate::support::{Db, Open, READ_GRACE};

const VISIBLE: Duration = Duration::from_secs(300);

on_each_database! {
    displaced_bytes_wait_for_readers_and_then_go,
    what_is_queued_is_counted_once_and_by_reason,
    a_claim_hides_a_row_until_it_runs_out,
    retries_count_and_delays_do_not,
    a_dead_letter_keeps_its_bytes,
    an_unsettled_row_is_looked_at_twice,
    the_read_grace_ends_early_where_room_is_needed,
    nothing_is_given_out_in_recovery_state,
    a_late_report_changes_nothing,
    claims_of_an_earlier_process_are_free,
    a_process_may_let_go_of_its_claims,
    background_work_is_leased_again_and_again_by_who_has_it,
}

on_cut_connections! {
    what_is_queued_is_counted_once_and_by_reason,
    displaced_bytes_wait_for_readers_and_then_go,
    the_read_grace_ends_early_where_room_is_needed,
    a_process_may_let_go_of_its_claims,
    nothing_is_given_out_in_recovery_state,
    background_work_is_leased_again_and_again_by_who_has_it,
}

async fn report(open: &Open<'_>, id: i64, outcome: CleanupOutcome) {
    open.store
        .report_cleanup(vec![CleanupReport { id, outcome }])
        .await
        .unwrap();
    open.check().await;
}

async fn displaced_bytes_wait_for_readers_and_then_go(db: Db) {
    let open = db.open().await;
    let old = open.put(open.one(), "k", 10).await;
    let blob = open.plan("k").await.unwrap().extents[0].extent.blob;
    open.put(open.one(), "k", 3).await;
    assert_eq!(open.store.claim_cleanup(10, VISIBLE).await.unwrap(), []);
    assert_eq!(
        open.store.next_cleanup().await.unwrap(),
        Some(db.clock.now().after(READ_GRACE))
    );
    db.clock.advance_ms(60_000);
    let items = open.store.claim_cleanup(10, VISIBLE).await.unwrap();
    let [item] = items.as_slice() else {
        panic!("{items:?}")
    };
    assert_eq!(item.blob, Some(blob));
    assert_eq!(
        item.kind,
        CleanupKind::Object {
            version: Some("v1".into())
        }
    );
    assert_eq!(
        (item.bytes, item.reason),
        (10, CleanupReason::OverwriteDisplaced)
    );
    assert!(!item.unsettled && item.attempts == 0);
    assert_eq!(
        open.store
            .known_key(open.one(), item.key.as_str())
            .await
            .unwrap(),
        Known::Cleanup
    );
    report(&open, item.id, CleanupOutcome::Done).await;
    assert_eq!(open.room(open.one()).orphan, 0);
    assert_eq!(open.store.known_copy(item.copy).await.unwrap(), Known::No);
    assert_eq!(open.store.next_cleanup().await.unwrap(), None);
    drop(old);
}

async fn what_is_queued_is_counted_once_and_by_reason(db: Db) {
    let open = db.open().await;
    let counted = || open.store.take_enqueued().by_reason().collect::<Vec<_>>();
    open.put(open.one(), "k", 10).await;
    assert_eq!(counted(), []);
    open.put(open.one(), "k", 0).await;
    open.put(open.one(), "k", 3).await;
    assert_eq!(counted(), [(CleanupReason::OverwriteDisplaced, 2)]);
    open.put(open.one(), "empty", 0).await;
    for name in ["k", "empty", "absent"] {
        open.store.remove(open.removal(name)).await.unwrap();
    }
    assert_eq!(counted(), [(CleanupReason::ObjectDeleted, 2)]);
    drop(open.intent(open.one(), 1).await.unwrap());
    open.store.reap_intents(1).await.unwrap();
    assert_eq!(counted(), [(CleanupReason::IntentAbandoned, 1)]);
    // What was told is not told again.
    assert_eq!(counted(), []);
}

async fn a_claim_hides_a_row_until_it_runs_out(db: Db) {
    let open = db.open().await;
    drop(open.intent(open.one(), 1).await.unwrap());
    open.store.reap_intents(1).await.unwrap();
    let first = open.store.claim_cleanup(10, VISIBLE).await.unwrap();
    assert_eq!(first.len(), 1);
    assert_eq!(open.store.claim_cleanup(10, VISIBLE).await.unwrap(), []);
    db.clock.advance_ms(300_000);
    assert_eq!(open.store.claim_cleanup(10, VISIBLE).await.unwrap(), first);
}

async fn retries_count_and_delays_do_not(db: Db) {
    let open = db.open().await;
    drop(open.intent(open.one(), 1).await.unwrap());
    open.store.reap_intents(1).await.unwrap();
    let again_at = db.clock.now();
    for (error, attempts) in [(None, 0), (Some("refused".to_owned()), 0), (None, 1)] {
        let items = open.store.claim_cleanup(10, VISIBLE).await.unwrap();
        assert_eq!(items[0].attempts, attempts);
        report(
            &open,
            items[0].id,
            CleanupOutcome::Retry { again_at, error },
        )
        .await;
    }
}

async fn a_dead_letter_keeps_its_bytes(db: Db) {
    let open = db.open().await;
    open.put(open.one(), "k", 10).await;
    open.store.remove(open.removal("k")).await.unwrap();
    db.clock.advance_ms(60_000);
    let items = open.store.claim_cleanup(10, VISIBLE).await.unwrap();
    assert_eq!(items[0].reason, CleanupReason::ObjectDeleted);
    report(
        &open,
        items[0].id,
        CleanupOutcome::Dead { error: "no".into() },
    )
    .await;
    let depth = open.store.depth().await.unwrap();
    assert_eq!((depth.queued, depth.dead), (0, 1));
    assert_eq!(open.room(open.one()).orphan, 10);
    assert_eq!(
        open.store.known_copy(items[0].copy).await.unwrap(),
        Known::Cleanup
    );
    drop(open);
    let open = db.open().await;
    assert_eq!(open.room(open.one()).orphan, 10);
    open.check().await;
}

async fn an_unsettled_row_is_looked_at_twice(db: Db) {
    let open = db.open().await;
    drop(open.intent(open.one(), 10).await.unwrap());
    open.store.reap_intents(1).await.unwrap();
    let first = open.store.claim_cleanup(10, VISIBLE).await.unwrap();
    assert!(first[0].unsettled && !first[0].first_pass_done);
    let again_at = db.clock.now().after(Duration::from_secs(3600));
    report(
        &open,
        first[0].id,
        CleanupOutcome::FirstPassDone { again_at },
    )
    .await;
    assert_eq!(open.room(open.one()).orphan, 10);
    assert_eq!(open.store.claim_cleanup(10, VISIBLE).await.unwrap(), []);
    db.clock.advance_ms(3_600_000);
    let second = open.store.claim_cleanup(10, VISIBLE).await.unwrap();
    assert!(second[0].unsettled && second[0].first_pass_done);
    report(&open, second[0].id, CleanupOutcome::Done).await;
    assert_eq!(open.room(open.one()).orphan, 0);
}

async fn the_read_grace_ends_early_where_room_is_needed(db: Db) {
    let open = db.open().await;
    for backend in [open.one(), open.two()] {
        open.put(backend, "k", 10).await;
        open.store.remove(open.removal("k")).await.unwrap();
    }
    assert_eq!(open.store.hasten_cleanup(open.one()).await.unwrap(), 1);
    assert_eq!(open.store.hasten_cleanup(open.one()).await.unwrap(), 0);
    let items = open.store.claim_cleanup(10, VISIBLE).await.unwrap();
    assert!(items.len() == 1 && items[0].backend == open.one());
    // Waiting for a reader is no grace: it is not cut short.
    let again_at = db.clock.now().after(Duration::from_secs(5));
    report(
        &open,
        items[0].id,
        CleanupOutcome::Retry {
            again_at,
            error: None,
        },
    )
    .await;
    assert_eq!(open.store.hasten_cleanup(open.one()).await.unwrap(), 0);
}

async fn nothing_is_given_out_in_recovery_state(db: Db) {
    let open = db.open().await;
    drop(open.intent(open.one(), 10).await.unwrap());
    open.store.reap_intents(1).await.unwrap();
    open.store.enter_recovery("restored".into()).await.unwrap();
    assert_eq!(open.store.claim_cleanup(10, VISIBLE).await.unwrap(), []);
    open.store.leave_recovery().await.unwrap();
    assert_eq!(
        open.store.claim_cleanup(10, VISIBLE).await.unwrap().len(),
        1
    );
}

async fn a_late_report_changes_nothing(db: Db) {
    let open = db.open().await;
    drop(open.intent(open.one(), 10).await.unwrap());
    open.store.reap_intents(1).await.unwrap();
    let items = open.store.claim_cleanup(10, VISIBLE).await.unwrap();
    for _ in 0..2 {
        report(&open, items[0].id, CleanupOutcome::Done).await;
    }
    let again_at = Timestamp::from_millis(0);
    for outcome in [
        CleanupOutcome::FirstPassDone { again_at },
        CleanupOutcome::Retry {
            again_at,
            error: None,
        },
        CleanupOutcome::Dead {
            error: "late".into(),
        },
    ] {
        report(&open, items[0].id, outcome).await;
    }
    let depth = open.store.depth().await.unwrap();
    assert_eq!((depth.queued, depth.dead), (0, 0));
    assert_eq!(open.room(open.one()).orphan, 0);
}

async fn claims_of_an_earlier_process_are_free(db: Db) {
    let open = db.open().await;
    drop(open.intent(open.one(), 10).await.unwrap());
    open.store.reap_intents(1).await.unwrap();
    assert_eq!(
        open.store.claim_cleanup(10, VISIBLE).await.unwrap().len(),
        1
    );
    drop(open);
    let open = db.open().await;
    assert_eq!(
        open.store.claim_cleanup(10, VISIBLE).await.unwrap().len(),
        1
    );
}

async fn a_process_may_let_go_of_its_claims(db: Db) {
    let open = db.open().await;
    drop(open.intent(open.one(), 10).await.unwrap());
    open.put(open.one(), "k", 10).await;
    open.store.remove(open.removal("k")).await.unwrap();
    open.store.reap_intents(1).await.unwrap();
    let items = open.store.claim_cleanup(10, VISIBLE).await.unwrap();
    assert_eq!(items.len(), 1);
    assert_eq!(open.store.release_cleanup().await.unwrap(), 1);
    // It is due at once; what nobody claimed waits as before.
    assert_eq!(open.store.claim_cleanup(10, VISIBLE).await.unwrap(), items);
    report(&open, items[0].id, CleanupOutcome::Done).await;
    assert_eq!(open.store.release_cleanup().await.unwrap(), 0);
    assert_eq!(open.store.claim_cleanup(10, VISIBLE).await.unwrap(), []);
}

async fn background_work_is_leased_again_and_again_by_who_has_it(db: Db) {
    let open = db.open().await;
    for _ in 0..2 {
        assert!(open.store.lease_worker("one", VISIBLE).await.unwrap());
        assert!(open.store.lease_worker("two", VISIBLE).await.unwrap());
    }
    drop(open);
    let open = db.open().await;
    assert!(open.store.lease_worker("one", VISIBLE).await.unwrap());
}
