//! Buckets that clients make, and tags.

use base::{BucketName, Precondition, Tags};
use metastore::model::{
    BucketCreation, BucketOwner, BucketRemoval, NewVersion, Removal, Retag, UploadVerdict, Verdict,
};

use crate::support::{Db, Open, key};

on_each_database! {
    a_bucket_is_made_once_and_removed_when_it_is_empty,
    a_removed_bucket_takes_no_commit_and_no_upload,
    the_configuration_takes_a_bucket_over_and_keeps_it,
    tags_change_and_the_version_stays,
}

on_cut_connections! {
    a_bucket_is_made_once_and_removed_when_it_is_empty,
    tags_change_and_the_version_stays,
}

fn name(text: &str) -> BucketName {
    text.parse().unwrap()
}

/// A bucket that a client made, as what `open` works in.
pub(crate) async fn client_bucket(open: &mut Open<'_>, text: &str) {
    let made = open.store.create_bucket(&name(text)).await.unwrap();
    let BucketCreation::Created(bucket) = made else {
        panic!("{made:?}");
    };
    assert_eq!(bucket.owner, BucketOwner::Catalogue);
    open.bucket = bucket.id;
}

async fn a_bucket_is_made_once_and_removed_when_it_is_empty(db: Db) {
    let mut open = db.open().await;
    client_bucket(&mut open, "made").await;
    let again = open.store.create_bucket(&name("made")).await.unwrap();
    assert!(matches!(again, BucketCreation::Exists(found) if found.id == open.bucket));
    open.put(open.one(), "k", 10).await;
    let full = open.store.remove_bucket(open.bucket).await.unwrap();
    assert_eq!(full, BucketRemoval::NotEmpty);
    let removal = Removal {
        bucket: open.bucket,
        key: key("k"),
        precondition: Precondition::None,
    };
    open.store.remove(removal).await.unwrap();
    assert_eq!(open.store.client_buckets().await.unwrap().len(), 1);
    let first = open.bucket;
    let gone = open.store.remove_bucket(first).await.unwrap();
    assert_eq!(gone, BucketRemoval::Gone);
    let absent = open.store.remove_bucket(first).await.unwrap();
    assert_eq!(absent, BucketRemoval::Absent);
    assert!(open.store.client_buckets().await.unwrap().is_empty());
    client_bucket(&mut open, "made").await;
    assert_ne!(open.bucket, first, "ids are never used again");
    open.check().await;
}

async fn a_removed_bucket_takes_no_commit_and_no_upload(db: Db) {
    let mut open = db.open().await;
    client_bucket(&mut open, "made").await;
    let (blob, intent) = open.intent(open.one(), 10).await.unwrap();
    let intents = vec![intent];
    let version = open.version("late", 10, blob, &intents);
    let removed = open.store.remove_bucket(open.bucket).await.unwrap();
    assert_eq!(removed, BucketRemoval::Gone);
    let (verdict, left) = open.store.commit(version, intents).await;
    assert!(matches!(verdict, Ok(Verdict::NoSuchBucket)), "{verdict:?}");
    assert_eq!(left.len(), 1, "the intent is still the caller's");
    for intent in left {
        open.store.abandon_intent(intent).await.unwrap();
    }
    let upload = crate::multipart::new_upload(&open, None);
    let refused = open.store.create_upload(upload).await.unwrap();
    assert_eq!(refused, UploadVerdict::NoSuchBucket);
    open.check().await;
}

async fn the_configuration_takes_a_bucket_over_and_keeps_it(db: Db) {
    let mut open = db.open().await;
    client_bucket(&mut open, "made").await;
    let taken = open.store.ensure_buckets(&[name("made")]).await.unwrap();
    assert_eq!(taken[0].id, open.bucket);
    assert_eq!(taken[0].owner, BucketOwner::Config);
    let kept = open.store.remove_bucket(open.bucket).await.unwrap();
    assert_eq!(kept, BucketRemoval::NotOurs);
    assert!(open.store.client_buckets().await.unwrap().is_empty());
}

async fn tags_change_and_the_version_stays(db: Db) {
    let open = db.open().await;
    let tags = |text: &str| Tags::new(vec![("k".into(), text.into())]).unwrap();
    let (blob, intent) = open.intent(open.one(), 10).await.unwrap();
    let intents = vec![intent];
    let version = NewVersion {
        tags: tags("first"),
        ..open.version("k", 10, blob, &intents)
    };
    let (verdict, _) = open.store.commit(version.clone(), intents).await;
    assert!(matches!(verdict, Ok(Verdict::Committed { .. })));
    let before = open
        .store
        .object(open.bucket, &key("k"))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(before.tags, tags("first"));
    let retag = |name: &str, tags: Tags| Retag {
        bucket: open.bucket,
        key: key(name),
        tags,
    };
    for wanted in [tags("second"), Tags::default(), tags("third")] {
        let done = open.store.retag(retag("k", wanted.clone())).await.unwrap();
        assert!(done);
        let after = open
            .store
            .object(open.bucket, &key("k"))
            .await
            .unwrap()
            .unwrap();
        assert_eq!(after.tags, wanted);
        assert_eq!((after.version, after.seq), (before.version, before.seq));
        assert_eq!(after.headers, before.headers);
    }
    assert!(!open.store.retag(retag("absent", tags("x"))).await.unwrap());
    // A key that had nothing beside its bytes can be tagged too.
    open.put(open.one(), "plain", 1).await;
    assert!(open.store.retag(retag("plain", tags("x"))).await.unwrap());
    let plain = open.store.object(open.bucket, &key("plain")).await.unwrap();
    assert_eq!(plain.unwrap().tags, tags("x"));
    open.put(open.one(), "plain", 1).await;
    let plain = open.store.object(open.bucket, &key("plain")).await.unwrap();
    assert!(plain.unwrap().tags.is_empty(), "an overwrite drops them");
    open.check().await;
}
