//! Copies of a catalogue in use, verification beside a writer, adoption.

use std::time::Duration;

use base::{BackendKey, CopyId};
use metastore::model::{Adopted, Known, NewVersion};
use metastore::{Error, Store};

use crate::support::{Db, key};

on_each_database! {
    a_suspicion_never_takes_the_place_of_a_known_restore,
    found_bytes_are_adopted_unless_something_newer_is_there,
    found_bytes_with_the_blob_or_the_version_of_another_object_are_not_adopted,
    locations_are_walked_in_order,
}

on_cut_connections! {
    found_bytes_are_adopted_unless_something_newer_is_there,
}

on_files! {
    a_backup_is_another_incarnation_in_recovery_state,
    a_backup_never_overwrites_a_file,
    a_reader_verifies_beside_a_writer,
    a_wrong_counter_is_found,
}

async fn a_backup_is_another_incarnation_in_recovery_state(db: Db) {
    let open = db.open().await;
    open.put(open.one(), "k", 10).await;
    open.put(open.one(), "k", 20).await;
    let (_, intent) = open.intent(open.one(), 5).await.unwrap();
    let to = db.beside("copy.db");
    Store::backup(&db.path(), &to, &db.ids).await.unwrap();
    open.put(open.one(), "later", 1).await;
    let original = open.store.catalogue();
    drop(intent);

    let mut options = db.options();
    options.path = to;
    let copy = Store::open(options).await.unwrap();
    let identity = copy.catalogue();
    assert_eq!(identity.uuid, original.uuid);
    assert_ne!(identity.incarnation, original.incarnation);
    assert!(identity.recovery.is_some() && original.recovery.is_none());
    assert_eq!(
        copy.object(open.bucket, &key("k"))
            .await
            .unwrap()
            .unwrap()
            .size,
        20
    );
    assert_eq!(copy.object(open.bucket, &key("later")).await.unwrap(), None);
    let room = copy.room(open.one());
    assert_eq!((room.used, room.orphan, room.reserved), (20, 10, 0));
    let verification = copy.verify().await.unwrap();
    assert!(verification.contradictions.is_empty());
    assert!(
        verification
            .backends
            .iter()
            .all(metastore::model::BackendSums::exact)
    );
    open.check().await;
}

async fn a_backup_never_overwrites_a_file(db: Db) {
    let open = db.open().await;
    let to = db.beside("copy.db");
    std::fs::write(&to, "precious").unwrap();
    let refused = Store::backup(&db.path(), &to, &db.ids).await;
    assert!(matches!(refused, Err(Error::File { .. })), "{refused:?}");
    assert_eq!(std::fs::read(&to).unwrap(), b"precious");
    open.check().await;
}

async fn a_reader_verifies_beside_a_writer(db: Db) {
    let open = db.open().await;
    open.put(open.one(), "k", 10).await;
    let (_, intent) = open.intent(open.one(), 5).await.unwrap();
    let reader = Store::open_reader(&db.path()).await.unwrap();
    let verification = reader.verify().await.unwrap();
    assert!(verification.contradictions.is_empty(), "{verification:?}");
    assert_eq!(verification.backends[0].used, (10, 10));
    assert_eq!(verification.backends[0].reserved, (5, 5));
    assert_eq!(reader.catalogue(), open.store.catalogue());
    reader.close().await.unwrap();
    open.put(open.one(), "k", 11).await;
    drop(intent);
}

async fn a_suspicion_never_takes_the_place_of_a_known_restore(db: Db) {
    let open = db.open().await;
    let seen = |open: &crate::support::Open| {
        let catalogue = open.store.catalogue();
        (catalogue.recovery, catalogue.restored)
    };
    open.store.suspect_restored("one".into()).await.unwrap();
    assert_eq!(seen(&open), (Some("one".to_owned()), false));
    drop(open);
    let open = db.open().await;
    assert_eq!(seen(&open), (Some("one".to_owned()), false));
    open.store.suspect_restored("two".into()).await.unwrap();
    assert_eq!(seen(&open), (Some("one".to_owned()), false));
    open.store.enter_recovery("known".into()).await.unwrap();
    assert_eq!(seen(&open), (Some("known".to_owned()), true));
    open.store.suspect_restored("three".into()).await.unwrap();
    assert_eq!(seen(&open), (Some("known".to_owned()), true));
    drop(open);
    let open = db.open().await;
    assert_eq!(seen(&open), (Some("known".to_owned()), true));
    open.store.leave_recovery().await.unwrap();
    drop(open);
    let open = db.open().await;
    assert_eq!(seen(&open), (None, false));
}

async fn found_bytes_with_the_blob_or_the_version_of_another_object_are_not_adopted(db: Db) {
    let open = db.open().await;
    let found = |name: &str, blob: base::BlobId| {
        let copy = open.copy();
        let mut version = open.version(name, 7, blob, &[]);
        version.headers.user = vec![("k".into(), "v".into())];
        let metastore::model::Content::Written { blobs, .. } = &mut version.content else {
            unreachable!()
        };
        blobs[0].copies.push(crate::support::stored(copy));
        let place = BackendKey::new(&format!("found~{copy}")).unwrap();
        (version, vec![(copy, open.two(), place)])
    };
    let blob = base::BlobId::draw(&db.ids);
    let (first, places) = found("first", blob);
    let adopted = open.store.adopt(first.clone(), places);
    assert_eq!(adopted.await.unwrap(), Adopted::Yes);
    let (same_blob, places) = found("same blob", blob);
    let adopted = open.store.adopt(same_blob, places);
    assert_eq!(adopted.await.unwrap(), Adopted::KnownBlob);
    let (other, places) = found("same version", base::BlobId::draw(&db.ids));
    let same_version = NewVersion {
        version: first.version,
        ..other
    };
    let adopted = open.store.adopt(same_version, places);
    assert_eq!(adopted.await.unwrap(), Adopted::KnownVersion);
    open.check().await;
}

async fn found_bytes_are_adopted_unless_something_newer_is_there(db: Db) {
    let open = db.open().await;
    let template = open.put(open.one(), "k", 10).await;
    let found = |name: &str, size: u64| {
        let (copy, blob) = (open.copy(), base::BlobId::draw(&db.ids));
        let mut version = open.version(name, size, blob, &[]);
        let metastore::model::Content::Written { blobs, .. } = &mut version.content else {
            unreachable!()
        };
        blobs[0].copies.push(crate::support::stored(copy));
        let place = BackendKey::new(&format!("found~{copy}")).unwrap();
        (version, vec![(copy, open.two(), place)])
    };
    let (lost, places) = found("lost", 7);
    let adopted = open.store.adopt(lost.clone(), places.clone());
    assert_eq!(adopted.await.unwrap(), Adopted::Yes);
    assert_eq!(
        open.plan("lost").await.unwrap().extents[0].copies[0].key,
        places[0].2
    );
    assert_eq!(
        open.store.known_copy(places[0].0).await.unwrap(),
        Known::Location
    );
    let adopted = open.store.adopt(lost, places);
    assert_eq!(adopted.await.unwrap(), Adopted::NewerVersion);
    // The order is that in which versions were drawn: a backend's dates are coarse, and not ours.
    let (drawn_later, places) = found("k", 8);
    let older = NewVersion {
        version: template.version.at(base::Timestamp::from_millis(1)),
        ..drawn_later.clone()
    };
    let adopted = open.store.adopt(older, places.clone());
    assert_eq!(adopted.await.unwrap(), Adopted::NewerVersion);
    let newer = NewVersion {
        version: template
            .version
            .at(template.last_modified.after(Duration::from_millis(1))),
        ..drawn_later
    };
    let adopted = open.store.adopt(newer, places);
    assert_eq!(adopted.await.unwrap(), Adopted::Yes);
    assert_eq!(open.plan("k").await.unwrap().object.size, 8);
    let (one, two) = (open.room(open.one()), open.room(open.two()));
    assert_eq!((one.used, one.orphan, two.used), (0, 10, 15));
    open.check().await;
}

async fn locations_are_walked_in_order(db: Db) {
    let open = db.open().await;
    for n in 0..5 {
        db.clock.advance_ms(1);
        open.put(open.one(), &format!("k{n}"), 1).await;
    }
    let (mut after, mut seen): (Option<CopyId>, Vec<String>) = (None, Vec::new());
    loop {
        let page = open.store.locations(after, 2).await.unwrap();
        let Some(last) = page.last() else { break };
        after = Some(last.copy.copy);
        seen.extend(page.iter().map(|row| row.object.as_str().to_owned()));
    }
    assert_eq!(seen, ["k0", "k1", "k2", "k3", "k4"]);
}

async fn a_wrong_counter_is_found(db: Db) {
    let open = db.open().await;
    open.put(open.one(), "k", 10).await;
    open.store.close().await.unwrap();
    let (bucket, one) = (open.bucket, open.one());
    drop(open);
    let conn = rusqlite::Connection::open(db.path()).unwrap();
    conn.execute(
        "UPDATE backend_slots SET used = 9 WHERE backend_id = ?1",
        [one.0],
    )
    .unwrap();
    conn.execute(
        "UPDATE bucket_slots SET objects = 2 WHERE bucket_id = ?1",
        [bucket.0],
    )
    .unwrap();
    conn.execute("DELETE FROM blobs", []).unwrap();
    drop(conn);
    let store = Store::open(db.options()).await.unwrap();
    let verification = store.verify().await.unwrap();
    assert_eq!(verification.backends[0].used, (9, 10));
    assert!(!verification.backends[0].exact());
    let all = verification.contradictions.join("\n");
    for words in [
        "bucket: counted 2",
        "blob is missing",
        "location without a blob",
    ] {
        assert!(all.contains(words), "{all}");
    }
}
