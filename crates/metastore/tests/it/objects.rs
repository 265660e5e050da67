//! Commits, conditions, removals.

use base::{
    Checksum, ChecksumAlgorithm, ChecksumKind, ETagCondition, ObjectHeaders, Precondition,
    VersionId,
};
use metastore::Error;
use metastore::model::{
    BackendState, Content, CopyState, Extent, NewBlob, NewVersion, ObjectPart, Removal, Removed,
    StoredChecksum, Verdict,
};

use crate::support::{Db, key, stored};

on_each_database! {
    an_object_comes_back_as_it_was_written,
    an_overwrite_moves_the_old_bytes_to_the_queue_in_one_step,
    of_two_conditional_writers_exactly_one_wins,
    preconditions_decide_over_the_current_version,
    new_metadata_keeps_the_bytes_where_they_are,
    an_object_of_several_blobs_is_replaced_whole,
    a_removal_says_what_it_removed,
    many_removals_answer_in_order_and_alone,
    later_commits_have_later_places,
    a_commit_that_stores_more_than_it_reserved_is_refused,
    a_draining_backend_gives_no_room,
    a_marked_copy_is_read_last,
    what_is_unknown_is_absent,
}

on_cut_connections! {
    a_marked_copy_is_read_last,
    a_draining_backend_gives_no_room,
    of_two_conditional_writers_exactly_one_wins,
    many_removals_answer_in_order_and_alone,
}

async fn an_object_comes_back_as_it_was_written(db: Db) {
    let open = db.open().await;
    let (blob, first) = open.intent(open.one(), 10).await.unwrap();
    let room = open.store.reserve(open.two(), 10).await.unwrap();
    let copy = open.copy();
    let backend_key = base::BackendKey::new("bucket/key~second").unwrap();
    let new = metastore::model::NewIntent {
        copy,
        blob,
        key: backend_key.clone(),
    };
    let second = open.store.open_intent(new, room).await.unwrap();
    let intents = vec![first, second];
    let checksum = Checksum::from_bytes(ChecksumAlgorithm::Crc32, &[1, 2, 3, 4]).unwrap();
    let version = NewVersion {
        headers: ObjectHeaders {
            content_type: Some("text/plain".into()),
            content_language: Some("de".into()),
            user: vec![("name".into(), "value".into())],
            ..ObjectHeaders::default()
        },
        checksum: Some(StoredChecksum {
            checksum,
            kind: ChecksumKind::FullObject,
        }),
        ..open.version("k", 10, blob, &intents)
    };
    let (verdict, left) = open.store.commit(version.clone(), intents).await;
    assert!(matches!(verdict, Ok(Verdict::Committed { .. })) && left.is_empty());

    let plan = open.plan("k").await.unwrap();
    assert_eq!(
        Some(plan.object.clone()),
        open.store.object(open.bucket, &key("k")).await.unwrap()
    );
    assert_eq!(plan.object.version, version.version);
    assert_eq!(plan.object.etag, version.etag);
    assert_eq!(plan.object.headers, version.headers);
    assert_eq!(plan.object.checksum, version.checksum);
    assert_eq!(plan.object.last_modified, version.last_modified);
    assert_eq!(plan.object.parts, None);
    let [extent] = plan.extents.as_slice() else {
        panic!("{plan:?}")
    };
    assert_eq!(
        extent.extent,
        Extent {
            blob,
            offset: 0,
            length: 10
        }
    );
    assert_eq!(extent.blob_size, 10);
    assert_eq!(extent.copies.len(), 2);
    let on_two = extent
        .copies
        .iter()
        .find(|found| found.copy == copy)
        .unwrap();
    assert_eq!((on_two.backend, &on_two.key), (open.two(), &backend_key));
    assert_eq!(on_two.version.as_deref(), Some("v1"));
    open.check().await;
}

async fn an_overwrite_moves_the_old_bytes_to_the_queue_in_one_step(db: Db) {
    let open = db.open().await;
    open.put(open.one(), "k", 100).await;
    open.put(open.two(), "k", 30).await;
    open.put(open.one(), "k", 5).await;
    let (one, two) = (open.room(open.one()), open.room(open.two()));
    assert_eq!((one.used, one.orphan, one.reserved), (5, 100, 0));
    assert_eq!((two.used, two.orphan, two.reserved), (0, 30, 0));
    assert_eq!(open.store.depth().await.unwrap().queued, 2);
    open.check().await;
}

async fn of_two_conditional_writers_exactly_one_wins(db: Db) {
    let open = db.open().await;
    for round in 0..20 {
        let name = format!("k{round}");
        let writers = (0..4).map(|_| open.put_if(open.one(), &name, 1, Precondition::Absent));
        let verdicts = futures_util::future::join_all(writers).await;
        let winners: Vec<_> = verdicts
            .iter()
            .filter(|(verdict, _)| matches!(verdict, Verdict::Committed { .. }))
            .collect();
        assert_eq!(winners.len(), 1);
        assert_eq!(
            open.plan(&name).await.unwrap().object.version,
            winners[0].1.version
        );
        let tags = ETagCondition::Tags(vec![winners[0].1.etag.clone()]);
        let writers =
            (0..4).map(|_| open.put_if(open.one(), &name, 2, Precondition::Match(tags.clone())));
        let verdicts = futures_util::future::join_all(writers).await;
        let won = verdicts
            .iter()
            .filter(|(verdict, _)| *verdict != Verdict::PreconditionFailed);
        assert_eq!(won.count(), 1);
    }
    open.check().await;
}

async fn preconditions_decide_over_the_current_version(db: Db) {
    let open = db.open().await;
    let any = Precondition::Match(ETagCondition::Any);
    assert_eq!(
        open.put_if(open.one(), "k", 1, any.clone()).await.0,
        Verdict::Absent
    );
    let first = open.put(open.one(), "k", 1).await;
    let absent = open
        .put_if(open.one(), "k", 1, Precondition::Absent)
        .await
        .0;
    assert_eq!(absent, Verdict::PreconditionFailed);
    let other = Precondition::Match(ETagCondition::Tags(vec![base::ETag::new("other")]));
    let refused = open.put_if(open.one(), "k", 1, other.clone()).await.0;
    assert_eq!(refused, Verdict::PreconditionFailed);
    assert_eq!(open.plan("k").await.unwrap().object.version, first.version);
    let removal = Removal {
        precondition: other,
        ..open.removal("k")
    };
    assert_eq!(
        open.store.remove(removal).await.unwrap(),
        Removed::PreconditionFailed
    );
    assert!(matches!(
        open.put_if(open.one(), "k", 1, any).await.0,
        Verdict::Committed { .. }
    ));
    open.check().await;
}

async fn new_metadata_keeps_the_bytes_where_they_are(db: Db) {
    let open = db.open().await;
    let first = open.put(open.one(), "k", 100).await;
    let before = open.plan("k").await.unwrap();
    let retitled = NewVersion {
        version: VersionId::draw(&db.ids),
        headers: ObjectHeaders {
            content_type: Some("a/b".into()),
            ..ObjectHeaders::default()
        },
        content: Content::Same {
            current: first.version,
        },
        ..first.clone()
    };
    let (verdict, _) = open.store.commit(retitled.clone(), Vec::new()).await;
    assert!(matches!(verdict, Ok(Verdict::Committed { .. })));
    let after = open.plan("k").await.unwrap();
    assert_eq!(after.extents, before.extents);
    assert_eq!(after.object.headers, retitled.headers);
    assert_eq!(open.store.depth().await.unwrap().queued, 0);
    let late = NewVersion {
        version: VersionId::draw(&db.ids),
        ..retitled
    };
    assert_eq!(
        open.store.commit(late, Vec::new()).await.0.unwrap(),
        Verdict::Changed
    );
    open.check().await;
    open.store.remove(open.removal("k")).await.unwrap();
    assert_eq!(open.room(open.one()).orphan, 100);
    open.check().await;
}

async fn an_object_of_several_blobs_is_replaced_whole(db: Db) {
    let open = db.open().await;
    let (head, first) = open.intent(open.one(), 60).await.unwrap();
    let (tail, second) = open.intent(open.two(), 50).await.unwrap();
    let blob = |blob, size, intent: &metastore::Intent| NewBlob {
        blob,
        size,
        crc64: None,
        copies: vec![stored(intent.copy())],
    };
    let parts: Vec<ObjectPart> = (1..=2)
        .map(|number| ObjectPart {
            number: number * 3,
            size: 50,
            checksum: None,
        })
        .collect();
    let version = NewVersion {
        size: 100,
        parts: parts.clone(),
        content: Content::Written {
            blobs: vec![blob(head, 60, &first), blob(tail, 50, &second)],
            extents: vec![
                Extent {
                    blob: head,
                    offset: 0,
                    length: 60,
                },
                Extent {
                    blob: tail,
                    offset: 10,
                    length: 40,
                },
            ],
        },
        ..open.version("k", 0, head, &[])
    };
    let (verdict, _) = open
        .store
        .commit(version.clone(), vec![first, second])
        .await;
    assert!(matches!(verdict, Ok(Verdict::Committed { .. })));
    let plan = open.plan("k").await.unwrap();
    assert_eq!(plan.object.parts, Some(2));
    assert_eq!(
        plan.extents
            .iter()
            .map(|extent| extent.extent.length)
            .sum::<u64>(),
        100
    );
    assert_eq!(
        open.store.parts_of(version.version, 0, 10).await.unwrap(),
        parts
    );
    assert_eq!(
        open.store.parts_of(version.version, 3, 10).await.unwrap(),
        parts[1..]
    );
    open.check().await;

    let retitled = NewVersion {
        version: VersionId::draw(&db.ids),
        content: Content::Same {
            current: version.version,
        },
        ..version
    };
    assert!(open.store.commit(retitled, Vec::new()).await.0.is_ok());
    assert_eq!(open.plan("k").await.unwrap().extents, plan.extents);
    open.check().await;
    open.put(open.one(), "k", 1).await;
    assert_eq!(
        (open.room(open.one()).orphan, open.room(open.two()).orphan),
        (60, 50)
    );
    open.check().await;
}

async fn a_removal_says_what_it_removed(db: Db) {
    let open = db.open().await;
    let version = open.put(open.one(), "k", 9).await;
    let gone = Removed::Gone {
        version: version.version,
        size: 9,
    };
    assert_eq!(open.store.remove(open.removal("k")).await.unwrap(), gone);
    assert_eq!(
        open.store.remove(open.removal("k")).await.unwrap(),
        Removed::Absent
    );
    assert_eq!(open.plan("k").await, None);
    open.check().await;
}

async fn many_removals_answer_in_order_and_alone(db: Db) {
    let open = db.open().await;
    for n in 0..50 {
        open.put(open.one(), &format!("k{n}"), 1).await;
    }
    let removals = (0..100).map(|n| open.removal(&format!("k{n}"))).collect();
    let outcomes = open.store.remove_many(removals).await;
    for (n, outcome) in outcomes.iter().enumerate() {
        let gone = matches!(outcome, Ok(Removed::Gone { .. }));
        assert_eq!(gone, n < 50, "{n}: {outcome:?}");
    }
    assert_eq!(open.room(open.one()).orphan, 50);
    open.check().await;
}

async fn later_commits_have_later_places(db: Db) {
    let open = db.open().await;
    let mut last = 0;
    for n in 0..5 {
        let (verdict, _) = open
            .put_if(open.one(), &format!("k{n}"), 1, Precondition::None)
            .await;
        let Verdict::Committed { seq } = verdict else {
            panic!("{verdict:?}")
        };
        assert!(seq > last);
        last = seq;
    }
    drop(open);
    let open = db.open().await;
    let (verdict, _) = open.put_if(open.one(), "k", 1, Precondition::None).await;
    assert!(matches!(verdict, Verdict::Committed { seq } if seq > last));
}

async fn a_commit_that_stores_more_than_it_reserved_is_refused(db: Db) {
    let open = db.open().await;
    let (blob, intent) = open.intent(open.one(), 10).await.unwrap();
    let intents = vec![intent];
    let version = open.version("k", 11, blob, &intents);
    let (verdict, intents) = open.store.commit(version, intents).await;
    assert!(matches!(verdict, Err(Error::Damaged { .. })), "{verdict:?}");
    let (ten, stray) = (
        open.version("k", 10, blob, &intents),
        open.intent(open.one(), 1).await.unwrap().1,
    );
    let mut holed = ten.clone();
    holed.content = Content::Written {
        blobs: Vec::new(),
        extents: Vec::new(),
    };
    let (verdict, spare) = open.store.commit(holed, vec![stray]).await;
    assert!(matches!(verdict, Err(Error::Damaged { .. })), "{verdict:?}");
    assert_eq!(spare.len(), 1);
    let (verdict, _) = open.store.commit(ten, intents).await;
    assert!(matches!(verdict, Ok(Verdict::Committed { .. })));
    open.check().await;
}

async fn a_draining_backend_gives_no_room(db: Db) {
    let open = db.open().await;
    let held = open.store.reserve(open.one(), 5).await.unwrap();
    open.store
        .set_backend_state(open.one(), BackendState::Draining)
        .await
        .unwrap();
    assert!(matches!(
        open.store.reserve(open.one(), 1).await,
        Err(Error::NoRoom { .. })
    ));
    let new = metastore::model::NewIntent {
        copy: open.copy(),
        blob: base::BlobId::draw(&db.ids),
        key: base::BackendKey::new("k").unwrap(),
    };
    let refused = open.store.open_intent(new, held).await;
    assert!(matches!(refused, Err(Error::NoRoom { .. })), "{refused:?}");
    assert_eq!(open.room(open.one()).reserved, 0);
    drop(open);
    let open = db.open().await;
    assert!(open.store.reserve(open.one(), 1).await.is_err());
    assert_eq!(
        open.store.backends().await.unwrap()[0].state,
        BackendState::Draining
    );
    open.store
        .set_backend_state(open.one(), BackendState::Active)
        .await
        .unwrap();
    assert!(open.store.reserve(open.one(), 1).await.is_ok());
}

async fn a_marked_copy_is_read_last(db: Db) {
    let open = db.open().await;
    open.put(open.one(), "k", 9).await;
    let copy = open.plan("k").await.unwrap().extents[0].copies[0].copy;
    open.store
        .mark_copy(copy, CopyState::Suspect)
        .await
        .unwrap();
    assert_eq!(
        open.plan("k").await.unwrap().extents[0].copies[0].state,
        CopyState::Suspect
    );
    let verification = open.store.verify().await.unwrap();
    assert_eq!(verification.contradictions.len(), 1, "{verification:?}");
    for (marked, state) in [
        (CopyState::Corrupt, CopyState::Corrupt),
        (CopyState::Suspect, CopyState::Corrupt),
        (CopyState::Good, CopyState::Good),
        (CopyState::Missing, CopyState::Missing),
        (CopyState::Suspect, CopyState::Suspect),
    ] {
        open.store.mark_copy(copy, marked).await.unwrap();
        let plan = open.plan("k").await.unwrap();
        assert_eq!(plan.extents[0].copies[0].state, state, "after {marked:?}");
    }
    open.store.mark_copy(copy, CopyState::Good).await.unwrap();
    open.check().await;
}

async fn what_is_unknown_is_absent(db: Db) {
    let open = db.open().await;
    assert_eq!(open.plan("nothing").await, None);
    let gone = open
        .store
        .set_backend_state(metastore::model::BackendId(99), BackendState::Active);
    assert!(matches!(gone.await, Err(Error::Damaged { .. })));
    assert!(
        open.store
            .reserve(metastore::model::BackendId(99), 1)
            .await
            .is_err()
    );
    open.check().await;
}
