//! The life of a multipart upload.

use std::time::Duration;

use base::{
    BackendKey, BlobId, Clock, CopyId, Crc64, ETag, Precondition, Timestamp, UploadId, VersionId,
};
use futures_util::poll;
use metastore::model::{
    BackendId, CleanupKind, CleanupReason, Completion, Content, Extent, ForgetUploads, Freeze,
    Known, LegState, NewBlob, NewLeg, NewPartClaim, NewUpload, NewVersion, ObjectPart, PartRow,
    Retag, UploadState, UploadVerdict, Verdict,
};
use metastore::{Error, PartClaim};

use crate::support::{Db, Open, key, stored};

on_each_database! {
    an_upload_becomes_an_object,
    an_upload_over_two_backends_becomes_extents,
    a_replaced_part_gives_its_room_back,
    a_newer_claim_takes_over,
    a_part_on_another_leg_keeps_both_reserved,
    a_dropped_claim_keeps_its_bytes_until_the_number_is_written_again,
    a_withdrawn_claim_leaves_nothing,
    a_freeze_waits_for_claims,
    a_frozen_upload_accepts_neither_parts_nor_an_abort,
    a_changed_part_is_named,
    an_abort_queues_every_leg_with_its_bytes,
    claims_of_an_earlier_process_are_unsettled,
    a_leg_that_was_never_answered_is_cleaned_as_unsettled,
    a_refused_leg_makes_its_parts_missing,
    a_failed_precondition_leaves_the_upload_completing,
    what_was_written_or_deleted_since_the_freeze_stays,
    an_overtaken_completion_with_a_condition_fails_and_may_begin_anew,
    a_completed_upload_answers_until_it_is_forgotten,
    an_abort_is_remembered_for_a_time_and_up_to_a_number,
    an_unused_leg_can_be_dropped,
    rows_of_large_uploads_go_in_batches,
    a_bucket_has_only_so_many_uploads,
    another_key_does_not_find_the_upload,
    stale_and_interrupted_uploads_are_found,
    a_recovery_lets_go_of_uploads_without_deleting_anything,
}

on_cut_connections! {
    an_upload_over_two_backends_becomes_extents,
    an_abort_queues_every_leg_with_its_bytes,
    a_withdrawn_claim_leaves_nothing,
    a_refused_leg_makes_its_parts_missing,
    an_unused_leg_can_be_dropped,
    a_completed_upload_answers_until_it_is_forgotten,
    a_recovery_lets_go_of_uploads_without_deleting_anything,
}

/// An upload under way.
struct Upload<'a> {
    open: &'a Open<'a>,
    id: UploadId,
    leg: NewLeg,
}

fn leg(open: &Open<'_>, backend: BackendId) -> NewLeg {
    let copy = open.copy();
    let key = BackendKey::new(&format!("bucket/k~{copy}")).unwrap();
    NewLeg {
        copy,
        blob: BlobId::draw(&open.db.ids),
        backend,
        key,
    }
}

pub(crate) fn new_upload(open: &Open<'_>, open_max: Option<u32>) -> NewUpload {
    NewUpload {
        upload: UploadId::draw(&open.db.ids),
        bucket: open.bucket,
        key: key("k"),
        headers: base::ObjectHeaders {
            content_type: Some("a/b".into()),
            user: vec![("x".into(), "y".into())],
            ..base::ObjectHeaders::default()
        },
        tags: base::Tags::new(vec![("t".into(), "u".into())]).unwrap(),
        checksum: Some((
            base::ChecksumAlgorithm::Crc32c,
            base::ChecksumKind::FullObject,
        )),
        created: open.db.clock.now(),
        leg: leg(open, open.one()),
        open_max,
    }
}

async fn begin<'a>(open: &'a Open<'a>) -> Upload<'a> {
    let new = new_upload(open, None);
    let (id, leg) = (new.upload, new.leg.clone());
    assert_eq!(
        open.store.create_upload(new).await.unwrap(),
        UploadVerdict::Done
    );
    let opened = open
        .store
        .open_leg(id, leg.copy, "u1".into())
        .await
        .unwrap();
    assert_eq!(opened, UploadVerdict::Done);
    Upload { open, id, leg }
}

impl Upload<'_> {
    async fn second_leg(&self) -> NewLeg {
        let leg = leg(self.open, self.open.two());
        assert_eq!(
            self.open.store.add_leg(self.id, leg.clone()).await.unwrap(),
            UploadVerdict::Done
        );
        let opened = self
            .open
            .store
            .open_leg(self.id, leg.copy, "u2".into())
            .await
            .unwrap();
        assert_eq!(opened, UploadVerdict::Done);
        leg
    }

    async fn claim(
        &self,
        leg: &NewLeg,
        number: u32,
        bytes: u64,
    ) -> Result<PartClaim, UploadVerdict> {
        let room = self.open.store.reserve(leg.backend, bytes).await.unwrap();
        let attempt = self.open.copy();
        let new = NewPartClaim {
            upload: self.id,
            number,
            attempt,
            leg: leg.copy,
        };
        self.open.store.claim_part(new, room).await.unwrap()
    }

    fn row(&self, leg: &NewLeg, number: u32, size: u64, attempt: CopyId) -> PartRow {
        PartRow {
            number,
            attempt,
            leg: leg.copy,
            size,
            etag: ETag::new(&attempt.to_string()),
            checksum: None,
            crc64: Some(Crc64(u64::MAX)),
            backend_etag: ETag::new("backend"),
            backend_crc64: None,
            last_modified: self.open.db.clock.now(),
        }
    }

    async fn commit(
        &self,
        claim: PartClaim,
        leg: &NewLeg,
        number: u32,
        size: u64,
    ) -> UploadVerdict {
        let row = self.row(leg, number, size, claim.attempt());
        let verdict = self.open.store.commit_part(claim, row).await.unwrap();
        self.open.check().await;
        verdict
    }

    async fn part(&self, leg: &NewLeg, number: u32, size: u64) -> CopyId {
        let claim = self.claim(leg, number, size).await.unwrap();
        let attempt = claim.attempt();
        assert_eq!(
            self.commit(claim, leg, number, size).await,
            UploadVerdict::Done
        );
        attempt
    }

    async fn freeze(&self, parts: &[(u32, CopyId)]) -> Freeze {
        let store = &self.open.store;
        store
            .freeze(self.id, parts.to_vec(), Precondition::None)
            .await
            .unwrap()
    }

    async fn complete_leg(&self, leg: &NewLeg, size: u64) {
        let done = self
            .open
            .store
            .complete_leg(self.id, leg.copy, stored(leg.copy), size)
            .await;
        assert_eq!(done.unwrap(), UploadVerdict::Done);
    }

    /// The object that these legs become.
    fn completion(&self, legs: &[(&NewLeg, u64)], parts: &[(u32, u64)]) -> Completion {
        let blob = |(leg, size): &(&NewLeg, u64)| NewBlob {
            blob: leg.blob,
            size: *size,
            crc64: None,
            copies: vec![stored(leg.copy)],
        };
        let extent = |(leg, size): &(&NewLeg, u64)| Extent {
            blob: leg.blob,
            offset: 0,
            length: *size,
        };
        let size = legs.iter().map(|(_, size)| size).sum();
        let parts = parts.iter().map(|(number, size)| ObjectPart {
            number: *number,
            size: *size,
            checksum: None,
        });
        Completion {
            upload: self.id,
            version: NewVersion {
                bucket: self.open.bucket,
                key: key("k"),
                version: VersionId::draw(&self.open.db.ids),
                size,
                etag: ETag::new("whole-2"),
                last_modified: self.open.db.clock.now(),
                headers: base::ObjectHeaders::default(),
                tags: base::Tags::default(),
                checksum: None,
                parts: parts.collect(),
                content: Content::Written {
                    blobs: legs.iter().map(blob).collect(),
                    extents: legs.iter().map(extent).collect(),
                },
                precondition: Precondition::None,
            },
        }
    }

    async fn abort(&self) -> UploadVerdict {
        let store = &self.open.store;
        let verdict = store
            .abort_upload(self.open.bucket, &key("k"), self.id)
            .await
            .unwrap();
        self.open.check().await;
        verdict
    }

    async fn state(&self) -> Option<UploadState> {
        let store = &self.open.store;
        store
            .upload(self.open.bucket, &key("k"), self.id)
            .await
            .unwrap()
            .map(|upload| upload.state)
    }

    fn reserved(&self) -> (u64, u64) {
        (
            self.open.room(self.open.one()).reserved,
            self.open.room(self.open.two()).reserved,
        )
    }
}

async fn an_upload_becomes_an_object(db: Db) {
    let open = db.open().await;
    open.put(open.one(), "k", 77).await;
    let upload = begin(&open).await;
    let record = open
        .store
        .upload(open.bucket, &key("k"), upload.id)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(record.headers.user, [("x".to_owned(), "y".to_owned())]);
    assert_eq!(record.headers.content_type.as_deref(), Some("a/b"));
    assert!(record.checksum.is_some());
    assert_eq!(
        record.legs[0].state,
        LegState::Open {
            upload: "u1".into()
        }
    );
    let first = upload.part(&upload.leg, 1, 60).await;
    let second = upload.part(&upload.leg, 2, 40).await;
    let parts = open.store.parts(upload.id, 0, 10).await.unwrap();
    assert_eq!(
        parts,
        [
            upload.row(&upload.leg, 1, 60, first),
            upload.row(&upload.leg, 2, 40, second)
        ]
    );
    assert_eq!(
        open.store.parts(upload.id, 1, 10).await.unwrap(),
        parts[1..]
    );
    assert_eq!(upload.reserved(), (100, 0));
    let list = [(1, first), (2, second)];
    assert_eq!(upload.freeze(&list).await, Freeze::Frozen);
    let frozen = UploadState::Completing {
        parts: list.to_vec(),
        precondition: Precondition::None,
    };
    assert_eq!(upload.state().await, Some(frozen));
    let early = upload.completion(&[(&upload.leg, 100)], &[(1, 60), (2, 40)]);
    assert_eq!(
        open.store.complete_upload(early).await.unwrap(),
        Verdict::IntentGone
    );
    upload.complete_leg(&upload.leg, 100).await;
    upload.complete_leg(&upload.leg, 100).await;
    let completion = upload.completion(&[(&upload.leg, 100)], &[(1, 60), (2, 40)]);
    let verdict = open
        .store
        .complete_upload(completion.clone())
        .await
        .unwrap();
    assert!(matches!(verdict, Verdict::Committed { .. }), "{verdict:?}");
    let room = open.room(open.one());
    assert_eq!((room.used, room.orphan, room.reserved), (100, 77, 0));
    let plan = open.plan("k").await.unwrap();
    assert_eq!((plan.object.size, plan.object.parts), (100, Some(2)));
    assert_eq!(plan.extents[0].copies[0].copy, upload.leg.copy);
    assert_eq!(plan.extents[0].copies[0].key, upload.leg.key);
    let state = UploadState::Completed {
        version: completion.version.version,
        etag: ETag::new("whole-2"),
        checksum: None,
    };
    assert_eq!(upload.state().await, Some(state));
    assert_eq!(open.store.parts(upload.id, 0, 10).await.unwrap(), []);
    assert_eq!(
        open.store.complete_upload(completion).await.unwrap(),
        Verdict::IntentGone
    );
    open.check().await;
}

async fn an_upload_over_two_backends_becomes_extents(db: Db) {
    let open = db.open().await;
    let upload = begin(&open).await;
    let other = upload.second_leg().await;
    let first = upload.part(&upload.leg, 1, 60).await;
    let second = upload.part(&other, 2, 40).await;
    let unlisted = upload.part(&other, 3, 5).await;
    assert_ne!(unlisted, second);
    assert_eq!(upload.reserved(), (60, 45));
    assert_eq!(
        upload.freeze(&[(1, first), (2, second)]).await,
        Freeze::Frozen
    );
    upload.complete_leg(&upload.leg, 60).await;
    upload.complete_leg(&other, 40).await;
    let completion = upload.completion(&[(&upload.leg, 60), (&other, 40)], &[(1, 60), (2, 40)]);
    let verdict = open.store.complete_upload(completion).await.unwrap();
    assert!(matches!(verdict, Verdict::Committed { .. }), "{verdict:?}");
    let plan = open.plan("k").await.unwrap();
    assert_eq!(plan.extents.len(), 2);
    assert_eq!(
        (open.room(open.one()).used, open.room(open.two()).used),
        (60, 40)
    );
    assert_eq!(upload.reserved(), (0, 0));
    open.check().await;
}

async fn a_replaced_part_gives_its_room_back(db: Db) {
    let open = db.open().await;
    let upload = begin(&open).await;
    upload.part(&upload.leg, 1, 60).await;
    let claim = upload.claim(&upload.leg, 1, 50).await.unwrap();
    assert_eq!(upload.reserved(), (110, 0));
    let attempt = claim.attempt();
    assert_eq!(
        upload.commit(claim, &upload.leg, 1, 45).await,
        UploadVerdict::Done
    );
    assert_eq!(upload.reserved(), (45, 0));
    let parts = open.store.parts(upload.id, 0, 10).await.unwrap();
    assert_eq!(
        (parts.len(), parts[0].attempt, parts[0].size),
        (1, attempt, 45)
    );
}

async fn a_newer_claim_takes_over(db: Db) {
    let open = db.open().await;
    let upload = begin(&open).await;
    let older = upload.claim(&upload.leg, 1, 10).await.unwrap();
    let newer = upload.claim(&upload.leg, 1, 20).await.unwrap();
    assert_eq!(
        upload.commit(older, &upload.leg, 1, 10).await,
        UploadVerdict::Superseded
    );
    assert_eq!(upload.reserved(), (30, 0));
    assert_eq!(
        upload.commit(newer, &upload.leg, 1, 20).await,
        UploadVerdict::Done
    );
    assert_eq!(upload.reserved(), (20, 0));
    let newest = upload.claim(&upload.leg, 1, 5).await.unwrap();
    let last = upload.claim(&upload.leg, 1, 6).await.unwrap();
    assert_eq!(
        upload.commit(last, &upload.leg, 1, 6).await,
        UploadVerdict::Done
    );
    assert_eq!(
        upload.commit(newest, &upload.leg, 1, 5).await,
        UploadVerdict::Superseded
    );
    assert_eq!(upload.reserved(), (6, 0));
}

async fn a_part_on_another_leg_keeps_both_reserved(db: Db) {
    let open = db.open().await;
    let upload = begin(&open).await;
    let other = upload.second_leg().await;
    upload.part(&upload.leg, 1, 10).await;
    let attempt = upload.part(&other, 1, 10).await;
    assert_eq!(upload.reserved(), (10, 10));
    let parts = open.store.parts(upload.id, 0, 10).await.unwrap();
    assert_eq!(
        (parts.len(), parts[0].attempt, parts[0].leg),
        (1, attempt, other.copy)
    );
    assert_eq!(upload.freeze(&[(1, attempt)]).await, Freeze::Frozen);
    upload.complete_leg(&other, 10).await;
    let completion = upload.completion(&[(&other, 10)], &[(1, 10)]);
    let verdict = open.store.complete_upload(completion).await.unwrap();
    assert!(matches!(verdict, Verdict::Committed { .. }));
    assert_eq!(upload.reserved(), (0, 0));
    assert_eq!(
        (open.room(open.one()).orphan, open.room(open.two()).used),
        (10, 10)
    );
    let items = open.store.claim_cleanup(10, Duration::ZERO).await.unwrap();
    assert_eq!(items[0].reason, CleanupReason::UploadLeftover);
    assert_eq!(
        items[0].kind,
        CleanupKind::Upload {
            upload: Some("u1".into())
        }
    );
    assert!(!items[0].unsettled);
    open.check().await;
}

async fn a_dropped_claim_keeps_its_bytes_until_the_number_is_written_again(db: Db) {
    let open = db.open().await;
    let upload = begin(&open).await;
    drop(upload.claim(&upload.leg, 1, 10).await.unwrap());
    assert_eq!(upload.reserved(), (10, 0));
    open.check().await;
    upload.part(&upload.leg, 1, 7).await;
    assert_eq!(upload.reserved(), (7, 0));
}

async fn a_withdrawn_claim_leaves_nothing(db: Db) {
    let open = db.open().await;
    let upload = begin(&open).await;
    let kept = upload.part(&upload.leg, 1, 7).await;
    let claim = upload.claim(&upload.leg, 1, 10).await.unwrap();
    assert_eq!(
        open.store.known_copy(claim.attempt()).await.unwrap(),
        Known::Pending
    );
    open.store.withdraw_part(claim).await.unwrap();
    assert_eq!(upload.reserved(), (7, 0));
    assert_eq!(
        open.store.parts(upload.id, 0, 10).await.unwrap()[0].attempt,
        kept
    );
    let late = upload.claim(&upload.leg, 2, 10).await.unwrap();
    assert_eq!(upload.abort().await, UploadVerdict::Done);
    open.store.withdraw_part(late).await.unwrap();
    assert_eq!(upload.reserved(), (0, 0));
    open.check().await;
}

async fn a_freeze_waits_for_claims(db: Db) {
    let open = db.open().await;
    let upload = begin(&open).await;
    let first = upload.part(&upload.leg, 1, 10).await;
    let claim = upload.claim(&upload.leg, 2, 10).await.unwrap();
    assert_eq!(upload.freeze(&[(1, first)]).await, Freeze::Busy);
    {
        let mut ended = Box::pin(open.store.claims_ended(upload.id));
        assert!(poll!(ended.as_mut()).is_pending());
        let attempt = claim.attempt();
        assert_eq!(
            upload.commit(claim, &upload.leg, 2, 10).await,
            UploadVerdict::Done
        );
        ended.await;
        assert_eq!(
            upload.freeze(&[(1, first), (2, attempt)]).await,
            Freeze::Frozen
        );
    }
    open.store.claims_ended(upload.id).await;
    open.check().await;
}

async fn a_frozen_upload_accepts_neither_parts_nor_an_abort(db: Db) {
    let open = db.open().await;
    let upload = begin(&open).await;
    let first = upload.part(&upload.leg, 1, 10).await;
    assert_eq!(upload.freeze(&[(1, first)]).await, Freeze::Frozen);
    assert_eq!(upload.freeze(&[(1, first)]).await, Freeze::NotOpen);
    assert_eq!(
        upload.claim(&upload.leg, 2, 10).await.unwrap_err(),
        UploadVerdict::Superseded
    );
    assert_eq!(upload.abort().await, UploadVerdict::Superseded);
    assert_eq!(upload.reserved(), (10, 0));
    assert_eq!(
        open.store.thaw(upload.id, None).await.unwrap(),
        UploadVerdict::Done
    );
    assert_eq!(upload.state().await, Some(UploadState::Open));
    assert_eq!(open.store.parts(upload.id, 0, 10).await.unwrap().len(), 1);
    assert_eq!(upload.abort().await, UploadVerdict::Done);
    assert_eq!(upload.abort().await, UploadVerdict::Done);
    assert_eq!(upload.freeze(&[]).await, Freeze::NoSuchUpload);
    assert_eq!(
        upload.claim(&upload.leg, 2, 10).await.unwrap_err(),
        UploadVerdict::NoSuchUpload
    );
    assert_eq!(upload.reserved(), (0, 0));
}

async fn a_changed_part_is_named(db: Db) {
    let open = db.open().await;
    let upload = begin(&open).await;
    let first = upload.part(&upload.leg, 1, 10).await;
    let old = upload.part(&upload.leg, 2, 10).await;
    upload.part(&upload.leg, 2, 10).await;
    assert_eq!(
        upload.freeze(&[(1, first), (2, old)]).await,
        Freeze::PartChanged { number: 2 }
    );
    assert_eq!(
        upload.freeze(&[(1, first), (9, old)]).await,
        Freeze::PartChanged { number: 9 }
    );
    assert_eq!(upload.state().await, Some(UploadState::Open));
}

async fn an_abort_queues_every_leg_with_its_bytes(db: Db) {
    let open = db.open().await;
    let upload = begin(&open).await;
    let other = upload.second_leg().await;
    upload.part(&upload.leg, 1, 10).await;
    upload.part(&other, 2, 20).await;
    let under_way = upload.claim(&other, 3, 7).await.unwrap();
    assert_eq!(upload.abort().await, UploadVerdict::Done);
    assert_eq!(upload.state().await, None);
    let late = upload.commit(under_way, &other, 3, 7).await;
    assert_eq!(late, UploadVerdict::NoSuchUpload);
    assert_eq!(upload.reserved(), (0, 0));
    assert_eq!(
        (open.room(open.one()).orphan, open.room(open.two()).orphan),
        (10, 27)
    );
    let items = open.store.claim_cleanup(10, Duration::ZERO).await.unwrap();
    let seen: Vec<_> = items
        .iter()
        .map(|item| (item.copy, item.bytes, item.unsettled, item.reason))
        .collect();
    let aborted = CleanupReason::UploadAborted;
    assert_eq!(
        seen,
        [
            (upload.leg.copy, 10, false, aborted),
            (other.copy, 27, true, aborted)
        ]
    );
    let counted: Vec<_> = open.store.take_enqueued().by_reason().collect();
    assert_eq!(counted, [(aborted, 2)]);
    assert_eq!(
        open.store
            .known_key(open.two(), other.key.as_str())
            .await
            .unwrap(),
        Known::Cleanup
    );
}

async fn claims_of_an_earlier_process_are_unsettled(db: Db) {
    let open = db.open().await;
    let (id, leg) = {
        let upload = begin(&open).await;
        upload.part(&upload.leg, 1, 10).await;
        let claim = upload.claim(&upload.leg, 2, 20).await.unwrap();
        std::mem::forget(claim);
        (upload.id, upload.leg.clone())
    };
    drop(open);
    let open = db.open().await;
    let upload = Upload {
        open: &open,
        id,
        leg,
    };
    assert_eq!(upload.reserved(), (30, 0));
    open.check().await;
    let parts = open.store.parts(id, 0, 10).await.unwrap();
    // Not in flight here, so nothing to wait for.
    assert_eq!(
        upload.freeze(&[(1, parts[0].attempt)]).await,
        Freeze::Frozen
    );
    assert_eq!(
        open.store.thaw(id, None).await.unwrap(),
        UploadVerdict::Done
    );
    assert_eq!(upload.abort().await, UploadVerdict::Done);
    let items = open.store.claim_cleanup(10, Duration::ZERO).await.unwrap();
    assert!(items[0].unsettled && items[0].bytes == 30);
}

async fn a_leg_that_was_never_answered_is_cleaned_as_unsettled(db: Db) {
    let open = db.open().await;
    let new = new_upload(&open, None);
    let (id, leg) = (new.upload, new.leg.clone());
    open.store.create_upload(new).await.unwrap();
    let upload = Upload {
        open: &open,
        id,
        leg,
    };
    assert_eq!(
        open.store.known_copy(upload.leg.copy).await.unwrap(),
        Known::Pending
    );
    assert_eq!(
        open.store
            .known_key(open.one(), upload.leg.key.as_str())
            .await
            .unwrap(),
        Known::Pending
    );
    assert_eq!(
        upload.claim(&upload.leg, 1, 1).await.unwrap_err(),
        UploadVerdict::Superseded
    );
    assert_eq!(upload.reserved(), (0, 0));
    assert_eq!(upload.abort().await, UploadVerdict::Done);
    let items = open.store.claim_cleanup(10, Duration::ZERO).await.unwrap();
    assert_eq!(items[0].kind, CleanupKind::Upload { upload: None });
    assert!(items[0].unsettled && items[0].bytes == 0);
    // The answer comes after all: the cleaner learns the id.
    let late = open
        .store
        .open_leg(id, upload.leg.copy, "late".into())
        .await
        .unwrap();
    assert_eq!(late, UploadVerdict::NoSuchUpload);
    let items = open.store.claim_cleanup(10, Duration::ZERO).await.unwrap();
    assert_eq!(
        items[0].kind,
        CleanupKind::Upload {
            upload: Some("late".into())
        }
    );
    open.check().await;
}

async fn a_refused_leg_makes_its_parts_missing(db: Db) {
    let open = db.open().await;
    let upload = begin(&open).await;
    let other = upload.second_leg().await;
    let first = upload.part(&upload.leg, 1, 60).await;
    let second = upload.part(&other, 2, 40).await;
    assert_eq!(
        upload.freeze(&[(1, first), (2, second)]).await,
        Freeze::Frozen
    );
    upload.complete_leg(&upload.leg, 60).await;
    let thawed = open.store.thaw(upload.id, Some(other.copy)).await.unwrap();
    assert_eq!(thawed, UploadVerdict::Done);
    let record = open
        .store
        .upload(open.bucket, &key("k"), upload.id)
        .await
        .unwrap()
        .unwrap();
    assert!(matches!(
        record.legs[0].state,
        LegState::Completed { size: 60, .. }
    ));
    let parts = open.store.parts(upload.id, 0, 10).await.unwrap();
    assert!(parts.len() == 1 && parts[0].number == 1);
    assert_eq!(upload.reserved(), (60, 40));
    let gone = upload.freeze(&[(1, first), (2, second)]).await;
    assert_eq!(gone, Freeze::PartChanged { number: 2 });
    open.check().await;
    let again = upload.part(&other, 2, 41).await;
    assert_eq!(upload.reserved(), (60, 41));
    assert_eq!(
        upload.freeze(&[(1, first), (2, again)]).await,
        Freeze::Frozen
    );
    upload.complete_leg(&other, 41).await;
    let completion = upload.completion(&[(&upload.leg, 60), (&other, 41)], &[(1, 60), (2, 41)]);
    let verdict = open.store.complete_upload(completion).await.unwrap();
    assert!(matches!(verdict, Verdict::Committed { .. }));
    open.check().await;
}

async fn a_failed_precondition_leaves_the_upload_completing(db: Db) {
    let open = db.open().await;
    let upload = begin(&open).await;
    let first = upload.part(&upload.leg, 1, 10).await;
    let store = &open.store;
    let frozen = store
        .freeze(upload.id, vec![(1, first)], Precondition::Absent)
        .await
        .unwrap();
    assert_eq!(frozen, Freeze::Frozen);
    open.put(open.two(), "k", 1).await;
    upload.complete_leg(&upload.leg, 10).await;
    let Some(UploadState::Completing { precondition, .. }) = upload.state().await else {
        panic!()
    };
    let mut completion = upload.completion(&[(&upload.leg, 10)], &[(1, 10)]);
    completion.version.precondition = precondition;
    let verdict = store.complete_upload(completion).await.unwrap();
    assert_eq!(verdict, Verdict::PreconditionFailed);
    assert_eq!(upload.reserved(), (10, 0));
    store.thaw(upload.id, None).await.unwrap();
    assert_eq!(upload.abort().await, UploadVerdict::Done);
    assert_eq!(open.room(open.one()).orphan, 10);
}

async fn what_was_written_or_deleted_since_the_freeze_stays(db: Db) {
    #[derive(Debug, Clone, Copy, PartialEq)]
    enum Since {
        Put,
        PutAndDelete,
        DeleteOfNothing,
        DeleteBeside,
        Tags,
        OtherKey,
    }
    let open = db.open().await;
    for since in [
        Since::Put,
        Since::PutAndDelete,
        Since::DeleteOfNothing,
        Since::DeleteBeside,
        Since::Tags,
        Since::OtherKey,
    ] {
        let store = &open.store;
        let old = match since {
            Since::DeleteBeside | Since::Tags => Some(open.put(open.two(), "k", 3).await),
            _ => None,
        };
        let upload = begin(&open).await;
        let first = upload.part(&upload.leg, 1, 10).await;
        upload.freeze(&[(1, first)]).await;
        upload.complete_leg(&upload.leg, 10).await;
        let expected = match since {
            Since::Put => Some(open.put(open.two(), "k", 5).await.version),
            Since::PutAndDelete => {
                open.put(open.two(), "k", 5).await;
                store.remove(open.removal("k")).await.unwrap();
                None
            }
            Since::DeleteOfNothing => {
                store.remove(open.removal("k")).await.unwrap();
                None
            }
            // Many at a time take another way through a shared catalogue.
            Since::DeleteBeside => {
                open.put(open.two(), "other", 5).await;
                let removals = vec![open.removal("other"), open.removal("k")];
                for removed in store.remove_many(removals).await {
                    removed.unwrap();
                }
                None
            }
            Since::Tags => {
                let tags = base::Tags::new(vec![("a".into(), "b".into())]).unwrap();
                let retag = Retag {
                    bucket: open.bucket,
                    key: key("k"),
                    tags,
                };
                assert!(store.retag(retag).await.unwrap());
                old.map(|old| old.version)
            }
            Since::OtherKey => {
                open.put(open.two(), "other", 5).await;
                store.remove(open.removal("other")).await.unwrap();
                None
            }
        };
        let completion = upload.completion(&[(&upload.leg, 10)], &[(1, 10)]);
        let completed = completion.version.version;
        let orphan = open.room(open.one()).orphan;
        let verdict = store.complete_upload(completion).await.unwrap();
        let found = open.plan("k").await.map(|plan| plan.object.version);
        if since == Since::OtherKey {
            assert!(matches!(verdict, Verdict::Committed { .. }), "{verdict:?}");
            assert_eq!(found, Some(completed));
        } else {
            assert_eq!(verdict, Verdict::Overtaken, "{since:?}");
            assert_eq!(found, expected, "{since:?}");
            assert_eq!(open.room(open.one()).orphan, orphan + 10, "{since:?}");
        }
        // The client's retry has its answer, whatever became of the object.
        let Some(UploadState::Completed { version, .. }) = upload.state().await else {
            panic!("{since:?}")
        };
        assert_eq!(version, completed);
        assert_eq!(upload.reserved(), (0, 0));
        open.check().await;
        store.remove(open.removal("k")).await.unwrap();
    }
}

async fn an_overtaken_completion_with_a_condition_fails_and_may_begin_anew(db: Db) {
    let open = db.open().await;
    let upload = begin(&open).await;
    let first = upload.part(&upload.leg, 1, 10).await;
    let list = vec![(1, first)];
    let frozen = open.store.freeze(upload.id, list, Precondition::Absent);
    assert_eq!(frozen.await.unwrap(), Freeze::Frozen);
    upload.complete_leg(&upload.leg, 10).await;
    open.put(open.two(), "k", 5).await;
    open.store.remove(open.removal("k")).await.unwrap();
    let mut completion = upload.completion(&[(&upload.leg, 10)], &[(1, 10)]);
    completion.version.precondition = Precondition::Absent;
    let verdict = open
        .store
        .complete_upload(completion.clone())
        .await
        .unwrap();
    assert_eq!(verdict, Verdict::PreconditionFailed);
    // What comes behind the client's next Complete is another matter.
    open.store.thaw(upload.id, None).await.unwrap();
    assert_eq!(upload.freeze(&[(1, first)]).await, Freeze::Frozen);
    let verdict = open.store.complete_upload(completion).await.unwrap();
    assert!(matches!(verdict, Verdict::Committed { .. }), "{verdict:?}");
    open.check().await;
}

async fn a_completed_upload_answers_until_it_is_forgotten(db: Db) {
    let open = db.open().await;
    let upload = begin(&open).await;
    let first = upload.part(&upload.leg, 1, 10).await;
    upload.freeze(&[(1, first)]).await;
    upload.complete_leg(&upload.leg, 10).await;
    let completion = upload.completion(&[(&upload.leg, 10)], &[(1, 10)]);
    open.store.complete_upload(completion).await.unwrap();
    let now = db.clock.now();
    assert_eq!(forget(&open, now, 10).await, 0);
    assert!(matches!(
        upload.state().await,
        Some(UploadState::Completed { .. })
    ));
    let later = now.after(Duration::from_millis(1));
    assert_eq!(forget(&open, later, 10).await, 1);
    assert_eq!(upload.state().await, None);
    assert_eq!(open.plan("k").await.unwrap().object.size, 10);
    open.check().await;
}

/// Forgets what ended before, and keeps so many aborts.
async fn forget(open: &Open<'_>, before: Timestamp, aborts_kept_max: u32) -> u64 {
    let forget = ForgetUploads {
        before,
        aborts_kept_max,
        max: 10,
    };
    open.store.forget_uploads(forget).await.unwrap()
}

async fn an_abort_is_remembered_for_a_time_and_up_to_a_number(db: Db) {
    let open = db.open().await;
    let mut aborted = Vec::new();
    for size in 1..=4 {
        let upload = begin(&open).await;
        upload.part(&upload.leg, 1, size).await;
        assert_eq!(upload.abort().await, UploadVerdict::Done);
        aborted.push(upload);
        db.clock.advance_ms(1);
    }
    let orphans = open.room(open.one()).orphan;
    // Also when its parts are gone, and nothing is queued twice.
    assert_eq!(forget(&open, Timestamp::from_millis(0), 10).await, 0);
    for upload in &aborted {
        assert_eq!(upload.abort().await, UploadVerdict::Done);
        assert_eq!(upload.state().await, None);
        assert_eq!(upload.freeze(&[]).await, Freeze::NoSuchUpload);
    }
    assert_eq!(open.room(open.one()).orphan, orphans);
    // The newest are kept.
    assert_eq!(forget(&open, Timestamp::from_millis(0), 3).await, 1);
    assert_eq!(aborted[0].abort().await, UploadVerdict::NoSuchUpload);
    assert_eq!(aborted[1].abort().await, UploadVerdict::Done);
    assert_eq!(forget(&open, db.clock.now(), 10).await, 3);
    assert_eq!(aborted[3].abort().await, UploadVerdict::NoSuchUpload);
    let never = Upload {
        id: UploadId::from_bytes([7; 16]),
        leg: aborted[0].leg.clone(),
        open: &open,
    };
    assert_eq!(never.abort().await, UploadVerdict::NoSuchUpload);
    open.check().await;
}

async fn an_unused_leg_can_be_dropped(db: Db) {
    let open = db.open().await;
    let upload = begin(&open).await;
    let other = upload.second_leg().await;
    upload.part(&upload.leg, 1, 10).await;
    let drop_leg = async |leg: CopyId| open.store.drop_leg(upload.id, leg).await.unwrap();
    assert_eq!(drop_leg(upload.leg.copy).await, UploadVerdict::Superseded);
    assert_eq!(drop_leg(other.copy).await, UploadVerdict::Done);
    assert_eq!(drop_leg(other.copy).await, UploadVerdict::Superseded);
    assert_eq!(open.store.depth().await.unwrap().queued, 1);
    open.check().await;
}

async fn a_bucket_has_only_so_many_uploads(db: Db) {
    let open = db.open().await;
    for expected in [
        UploadVerdict::Done,
        UploadVerdict::Done,
        UploadVerdict::TooMany,
    ] {
        let verdict = open
            .store
            .create_upload(new_upload(&open, Some(2)))
            .await
            .unwrap();
        assert_eq!(verdict, expected);
    }
    let drained = metastore::model::BackendState::Draining;
    open.store
        .set_backend_state(open.one(), drained)
        .await
        .unwrap();
    let refused = open.store.create_upload(new_upload(&open, None)).await;
    assert!(matches!(refused, Err(Error::NoRoom { .. })));
    open.check().await;
}

async fn another_key_does_not_find_the_upload(db: Db) {
    let open = db.open().await;
    let upload = begin(&open).await;
    assert_eq!(
        open.store
            .upload(open.bucket, &key("other"), upload.id)
            .await
            .unwrap(),
        None
    );
    let other = open
        .store
        .ensure_buckets(&["other".parse().unwrap()])
        .await
        .unwrap()[0]
        .id;
    assert_eq!(
        open.store
            .upload(other, &key("k"), upload.id)
            .await
            .unwrap(),
        None
    );
    let aborted = open
        .store
        .abort_upload(other, &key("k"), upload.id)
        .await
        .unwrap();
    assert_eq!(aborted, UploadVerdict::NoSuchUpload);
    assert_eq!(upload.state().await, Some(UploadState::Open));
}

async fn stale_and_interrupted_uploads_are_found(db: Db) {
    let open = db.open().await;
    let first = begin(&open).await;
    db.clock.advance_ms(1000);
    let second = begin(&open).await;
    let part = second.part(&second.leg, 1, 10).await;
    let ids = |uploads: Vec<metastore::model::UploadRecord>| {
        uploads
            .iter()
            .map(|upload| upload.upload)
            .collect::<Vec<_>>()
    };
    let later = db.clock.now().after(Duration::from_millis(1));
    assert_eq!(
        ids(open.store.stale_uploads(later, 10).await.unwrap()),
        [first.id, second.id]
    );
    assert_eq!(
        ids(open.store.stale_uploads(later, 1).await.unwrap()),
        [first.id]
    );
    assert_eq!(
        ids(open.store.stale_uploads(db.clock.now(), 10).await.unwrap()),
        [first.id]
    );
    second.freeze(&[(1, part)]).await;
    assert_eq!(
        ids(open.store.stale_uploads(later, 10).await.unwrap()),
        [first.id]
    );
    assert_eq!(
        ids(open.store.completing_uploads(10).await.unwrap()),
        [second.id]
    );
    let second = second.id;
    drop(open);
    let open = db.open().await;
    assert_eq!(
        ids(open.store.completing_uploads(10).await.unwrap()),
        [second]
    );
    // Nobody takes them up while they may be of another time.
    open.store.enter_recovery("restored".into()).await.unwrap();
    let far = db.clock.now().after(Duration::from_secs(1 << 30));
    assert_eq!(ids(open.store.stale_uploads(far, 10).await.unwrap()), []);
    assert_eq!(ids(open.store.completing_uploads(10).await.unwrap()), []);
    open.store.leave_recovery().await.unwrap();
    assert_eq!(
        ids(open.store.completing_uploads(10).await.unwrap()),
        [second]
    );
    open.check().await;
}

async fn a_recovery_lets_go_of_uploads_without_deleting_anything(db: Db) {
    let open = db.open().await;
    let (first, second) = (begin(&open).await, begin(&open).await);
    first.part(&first.leg, 1, 10).await;
    let part = second.part(&second.leg, 1, 20).await;
    second.freeze(&[(1, part)]).await;
    assert_eq!(open.store.forget_pending().await.unwrap(), 2);
    for upload in [&first, &second] {
        let state = upload.state().await;
        assert!(
            !matches!(
                state,
                Some(UploadState::Open | UploadState::Completing { .. })
            ),
            "{state:?}"
        );
    }
    assert_eq!(db.count("cleanup_queue"), 0);
    assert_eq!(open.store.forget_pending().await.unwrap(), 0);
    open.check().await;
}

async fn rows_of_large_uploads_go_in_batches(db: Db) {
    let open = db.open().await;
    let upload = begin(&open).await;
    let mut attempts = Vec::new();
    for number in 1..=1100 {
        let claim = upload.claim(&upload.leg, number, 1).await.unwrap();
        let row = upload.row(&upload.leg, number, 1, claim.attempt());
        attempts.push((number, claim.attempt()));
        let verdict = open.store.commit_part(claim, row).await.unwrap();
        assert_eq!(verdict, UploadVerdict::Done);
    }
    let aborted = begin(&open).await;
    aborted.part(&aborted.leg, 1, 1).await;
    assert_eq!(aborted.abort().await, UploadVerdict::Done);
    assert_eq!(upload.freeze(&attempts).await, Freeze::Frozen);
    upload.complete_leg(&upload.leg, 1100).await;
    let sizes: Vec<(u32, u64)> = attempts.iter().map(|(number, _)| (*number, 1)).collect();
    let completion = upload.completion(&[(&upload.leg, 1100)], &sizes);
    let verdict = open.store.complete_upload(completion).await.unwrap();
    assert!(matches!(verdict, Verdict::Committed { .. }));
    open.check().await;
    let later = db.clock.now().after(Duration::from_millis(1));
    assert_eq!(forget(&open, later, 10).await, 2);
    open.check().await;
    open.store.close().await.unwrap();
    for table in ["uploads", "parts", "part_copies", "claims", "legs"] {
        assert_eq!(db.count(&format!("multipart_{table}")), 0, "{table}");
    }
}
