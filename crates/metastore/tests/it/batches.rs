//! Commits and removals that come together, against a model that lets them happen one after the other.

use std::collections::BTreeMap;

use base::{
    Checksum, ChecksumAlgorithm, ChecksumKind, ETag, ETagCondition, ObjectHeaders, Precondition,
};
use futures_util::future::join_all;
use metastore::Intent;
use metastore::model::{
    BucketId, Content, Extent, NewBlob, NewVersion, ObjectPart, Removal, Removed, StoredChecksum,
    Verdict,
};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::support::{Db, Open, stored};

const ROUNDS: usize = 40;
/// Commits that come together, at most; and removals.
const TOGETHER: usize = 24;
/// Few enough for keys that are written twice in a round, and enough for rounds in which none is.
const KEYS: usize = 60;

on_each_database! {
    what_comes_together_happens_one_after_the_other,
}

/// A commit that is about to be asked for.
struct Write {
    version: NewVersion,
    intents: Vec<Intent>,
    /// An intent of it was given up, so that nothing may become of it.
    is_gone: bool,
}

/// The current versions, with the place of each in the order of commits.
#[derive(Default)]
struct Model(BTreeMap<String, (NewVersion, u64)>);

impl Model {
    fn expected(&self, write: &Write, bucket: BucketId) -> Option<Verdict> {
        let name = write.version.key.as_str();
        let current = self.0.get(name).map(|(version, _)| &version.etag);
        if write.is_gone {
            return Some(Verdict::IntentGone);
        }
        if write.version.bucket != bucket {
            return Some(Verdict::NoSuchBucket);
        }
        if write.version.precondition.holds(current) {
            return None;
        }
        Some(match (&write.version.precondition, current) {
            (Precondition::Match(_), None) => Verdict::Absent,
            _ => Verdict::PreconditionFailed,
        })
    }

    fn remove(&mut self, removal: &Removal) -> Removed {
        let name = removal.key.as_str();
        let Some((version, _)) = self.0.get(name) else {
            return Removed::Absent;
        };
        if !removal.precondition.holds(Some(&version.etag)) {
            return Removed::PreconditionFailed;
        }
        let gone = Removed::Gone {
            version: version.version,
            size: version.size,
        };
        self.0.remove(name);
        gone
    }

    async fn compare(&self, open: &Open<'_>) {
        let mut used = BTreeMap::new();
        for (name, (version, seq)) in &self.0 {
            let plan = open.plan(name).await.unwrap();
            assert_eq!(plan.object.version, version.version);
            assert_eq!(plan.object.seq, *seq);
            assert_eq!(plan.object.etag, version.etag);
            assert_eq!(plan.object.size, version.size);
            assert_eq!(plan.object.headers, version.headers);
            assert_eq!(plan.object.checksum, version.checksum);
            let Content::Written { blobs, extents } = &version.content else {
                panic!("{version:?}")
            };
            let found: Vec<Extent> = plan.extents.iter().map(|found| found.extent).collect();
            assert_eq!(&found, extents);
            for (found, blob) in plan.extents.iter().zip(blobs) {
                assert_eq!(found.copies.len(), blob.copies.len());
                for copy in &found.copies {
                    assert!(blob.copies.iter().any(|new| new.copy == copy.copy));
                    *used.entry(copy.backend).or_insert(0) += blob.size;
                }
            }
        }
        for backend in &open.backends {
            let expected = used.get(backend).copied().unwrap_or(0);
            assert_eq!(open.room(*backend).used, expected);
        }
    }
}

async fn what_comes_together_happens_one_after_the_other(db: Db) {
    let mut open = db.open().await;
    let bucket = open.bucket;
    crate::buckets::client_bucket(&mut open, "made").await;
    let removed = std::mem::replace(&mut open.bucket, bucket);
    open.store.remove_bucket(removed).await.unwrap();
    let mut rng = StdRng::seed_from_u64(11);
    let mut model = Model::default();
    for _ in 0..ROUNDS {
        let mut writes = Vec::new();
        for _ in 0..rng.random_range(1..TOGETHER) {
            writes.push(draw(&open, &model, removed, &mut rng).await);
        }
        let commits = writes.iter_mut().map(|write| {
            open.store
                .commit(write.version.clone(), std::mem::take(&mut write.intents))
        });
        let removals: Vec<Removal> = (0..rng.random_range(0..TOGETHER / 2))
            .map(|_| {
                let name = format!("k{}", rng.random_range(0..KEYS));
                let precondition = precondition(&model, &name, &mut rng);
                Removal {
                    precondition,
                    ..open.removal(&name)
                }
            })
            .collect();
        let removed_now = removals
            .iter()
            .map(|removal| open.store.remove(removal.clone()));
        let (outcomes, removed_now) = tokio::join!(join_all(commits), join_all(removed_now));
        for (write, (verdict, left)) in writes.into_iter().zip(outcomes) {
            let (verdict, expected) = (verdict.unwrap(), model.expected(&write, bucket));
            if let Some(expected) = expected {
                assert_eq!(verdict, expected);
                for intent in left {
                    open.store.abandon_intent(intent).await.unwrap();
                }
                continue;
            }
            let Verdict::Committed { seq } = verdict else {
                panic!("{verdict:?} of {write:?}", write = write.version)
            };
            assert!(left.is_empty());
            let name = write.version.key.as_str().to_owned();
            let before = model.0.insert(name, (write.version, seq));
            assert!(before.is_none_or(|(_, before)| before < seq));
        }
        for (removal, outcome) in removals.iter().zip(removed_now) {
            assert_eq!(outcome.unwrap(), model.remove(removal));
        }
        for name in (0..KEYS).map(|n| format!("k{n}")) {
            assert_eq!(
                open.plan(&name).await.is_some(),
                model.0.contains_key(&name)
            );
        }
        model.compare(&open).await;
        open.check().await;
    }
}

async fn draw(open: &Open<'_>, model: &Model, removed: BucketId, rng: &mut StdRng) -> Write {
    let name = format!("k{}", rng.random_range(0..KEYS));
    let size = rng.random_range(1..60);
    let (blob, intent) = open.intent(open.one(), size).await.unwrap();
    let mut intents = vec![intent];
    if rng.random_ratio(1, 4) {
        intents.push(open.intent_for(blob, open.two(), size).await.unwrap());
    }
    let mut version = open.version(&name, size, blob, &intents);
    if rng.random_ratio(1, 3) {
        version.headers = ObjectHeaders {
            content_type: Some("text/plain".into()),
            user: vec![("name".into(), name.clone())],
            ..ObjectHeaders::default()
        };
        let checksum = Checksum::from_bytes(ChecksumAlgorithm::Crc32, &[1, 2, 3, 4]).unwrap();
        version.checksum = Some(StoredChecksum {
            checksum,
            kind: ChecksumKind::FullObject,
        });
    }
    version.precondition = precondition(model, &name, rng);
    let mut is_gone = false;
    match rng.random_range(0..24) {
        0 => version.bucket = removed,
        1 => {
            let given_up = intents.pop().unwrap();
            open.store.abandon_intent(given_up).await.unwrap();
            is_gone = true;
        }
        2..5 => add_tail(open, &mut version, &mut intents, rng).await,
        _ => {}
    }
    if is_gone || version.bucket == removed {
        version.precondition = Precondition::None;
    }
    Write {
        version,
        intents,
        is_gone,
    }
}

fn precondition(model: &Model, name: &str, rng: &mut StdRng) -> Precondition {
    match rng.random_range(0..12) {
        0 => Precondition::Absent,
        1 => Precondition::Match(ETagCondition::Any),
        2 => Precondition::Match(ETagCondition::Tags(vec![ETag::new("another")])),
        3 => {
            let current = model.0.get(name).map(|(version, _)| version.etag.clone());
            Precondition::Match(ETagCondition::Tags(current.into_iter().collect()))
        }
        _ => Precondition::None,
    }
}

/// Makes it an object of two blobs, uploaded in two parts.
async fn add_tail(
    open: &Open<'_>,
    version: &mut NewVersion,
    intents: &mut Vec<Intent>,
    rng: &mut StdRng,
) {
    let size = rng.random_range(1..40);
    let (blob, intent) = open.intent(open.two(), size).await.unwrap();
    let sizes = [version.size, size];
    version.parts = (1..)
        .zip(sizes)
        .map(|(number, size)| ObjectPart {
            number,
            size,
            checksum: None,
        })
        .collect();
    version.size += size;
    let Content::Written { blobs, extents } = &mut version.content else {
        unreachable!("it was written")
    };
    blobs.push(NewBlob {
        blob,
        size,
        crc64: None,
        copies: vec![stored(intent.copy())],
    });
    extents.push(Extent {
        blob,
        offset: 0,
        length: size,
    });
    intents.push(intent);
}
