//! Random operations against a plain model, with the sums checked after each.

use std::collections::BTreeMap;
use std::time::Duration;

use base::{Precondition, VersionId};
use metastore::Intent;
use metastore::model::{
    BackendId, CleanupOutcome, CleanupReport, Content, NewVersion, Removed, Verdict,
};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::support::{Db, Open};

const SEEDS: u64 = 6;
const OPERATIONS: usize = 250;
const KEYS: usize = 6;
const LIMIT: u64 = 400;

/// What must be true, in the simplest form.
#[derive(Default)]
struct Model {
    /// Key -> version, size, backend.
    objects: BTreeMap<String, (NewVersion, BackendId)>,
    used: BTreeMap<BackendId, u64>,
    orphan: BTreeMap<BackendId, u64>,
    /// Intents that somebody holds, and those that nobody does.
    held: Vec<(base::BlobId, u64, Intent)>,
    abandoned: Vec<(BackendId, u64)>,
}

impl Model {
    fn displace(&mut self, name: &str) {
        if let Some((version, backend)) = self.objects.remove(name) {
            *self.used.entry(backend).or_default() -= version.size;
            *self.orphan.entry(backend).or_default() += version.size;
        }
    }

    fn put(&mut self, version: NewVersion, backend: BackendId) {
        let name = version.key.as_str().to_owned();
        self.displace(&name);
        *self.used.entry(backend).or_default() += version.size;
        self.objects.insert(name, (version, backend));
    }

    fn reserved(&self, backend: BackendId) -> u64 {
        let held = self
            .held
            .iter()
            .filter(|(_, _, intent)| intent.backend() == backend);
        let abandoned = self.abandoned.iter().filter(|(on, _)| *on == backend);
        held.map(|(_, size, _)| size).sum::<u64>() + abandoned.map(|(_, size)| size).sum::<u64>()
    }

    async fn compare(&self, open: &Open<'_>) {
        for backend in &open.backends {
            let room = open.room(*backend);
            let of = |map: &BTreeMap<BackendId, u64>| map.get(backend).copied().unwrap_or(0);
            assert_eq!(room.used, of(&self.used));
            assert_eq!(room.orphan, of(&self.orphan));
            assert_eq!(room.reserved, self.reserved(*backend));
            assert!(room.used + room.orphan + room.reserved <= LIMIT);
        }
        for n in 0..KEYS {
            let name = format!("k{n}");
            let plan = open.plan(&name).await;
            match self.objects.get(&name) {
                None => assert_eq!(plan, None),
                Some((version, backend)) => {
                    let plan = plan.unwrap();
                    assert_eq!(plan.object.version, version.version);
                    assert_eq!(plan.extents[0].copies[0].backend, *backend);
                    assert_eq!(plan.extents[0].copies[0].stored_bytes, version.size);
                }
            }
        }
    }
}

#[tokio::test]
async fn sqlite_agrees_with_a_plain_model() {
    for seed in testbed::seeds(SEEDS) {
        agrees(Db::sqlite_seeded(seed), seed).await;
    }
}

#[tokio::test]
async fn postgres_agrees_with_a_plain_model() {
    for seed in testbed::seeds(SEEDS) {
        agrees(Db::postgres_seeded(seed), seed).await;
    }
}

async fn agrees(db: Db, seed: u64) {
    {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut model = Model::default();
        let mut open = limited(&db).await;
        for _ in 0..OPERATIONS {
            if rng.random_ratio(1, 40) {
                // A crash: whoever held an intent is gone with it.
                if rng.random_bool(0.3) {
                    open.store.close().await.unwrap();
                }
                drop(open);
                let gone = model.held.drain(..);
                model
                    .abandoned
                    .extend(gone.map(|(_, size, intent)| (intent.backend(), size)));
                open = limited(&db).await;
            } else {
                operate(&open, &mut model, &mut rng).await;
            }
            model.compare(&open).await;
            open.check().await;
        }
    }
}

async fn limited(db: &Db) -> Open<'_> {
    let open = db.open().await;
    for backend in &open.backends {
        open.store.set_limit(*backend, Some(LIMIT));
    }
    open
}

async fn operate(open: &Open<'_>, model: &mut Model, rng: &mut StdRng) {
    let name = format!("k{}", rng.random_range(0..KEYS));
    match rng.random_range(0..12) {
        0..3 => begin(open, model, rng).await,
        3..6 => commit(open, model, rng, &name).await,
        6 => remove(open, model, &name).await,
        7 => give_up(open, model, rng).await,
        8 => reap(open, model).await,
        9 | 10 => clean(open, model, rng).await,
        _ => retitle(open, model, &name).await,
    }
}

async fn begin(open: &Open<'_>, model: &mut Model, rng: &mut StdRng) {
    let backend = open.backends[rng.random_range(0..open.backends.len())];
    let size = rng.random_range(0..60);
    let free = open.room(backend).free();
    match open.intent(backend, size).await {
        Ok((blob, intent)) => model.held.push((blob, size, intent)),
        Err(metastore::Error::NoRoom { .. }) => assert!(free < size),
        Err(other) => panic!("{other:?}"),
    }
}

fn take(model: &mut Model, rng: &mut StdRng) -> Option<(base::BlobId, u64, Intent)> {
    match model.held.len() {
        0 => None,
        held => Some(model.held.swap_remove(rng.random_range(0..held))),
    }
}

async fn commit(open: &Open<'_>, model: &mut Model, rng: &mut StdRng, name: &str) {
    let Some((blob, size, intent)) = take(model, rng) else {
        return;
    };
    let backend = intent.backend();
    let intents = vec![intent];
    let mut version = open.version(name, size, blob, &intents);
    if rng.random_ratio(1, 3) {
        version.precondition = Precondition::Absent;
    }
    let absent = !model.objects.contains_key(name);
    let may = version.precondition == Precondition::None || absent;
    let (verdict, left) = open.store.commit(version.clone(), intents).await;
    match verdict.unwrap() {
        Verdict::Committed { .. } => {
            assert!(may && left.is_empty());
            model.put(version, backend);
        }
        Verdict::PreconditionFailed => {
            assert!(!may);
            model
                .held
                .extend(left.into_iter().map(|intent| (blob, size, intent)));
        }
        other => panic!("{other:?}"),
    }
}

async fn remove(open: &Open<'_>, model: &mut Model, name: &str) {
    let outcome = open
        .store
        .remove_many(vec![open.removal(name)])
        .await
        .remove(0)
        .unwrap();
    match model.objects.get(name) {
        None => assert_eq!(outcome, Removed::Absent),
        Some((version, _)) => {
            assert_eq!(
                outcome,
                Removed::Gone {
                    version: version.version,
                    size: version.size
                }
            );
        }
    }
    model.displace(name);
}

async fn give_up(open: &Open<'_>, model: &mut Model, rng: &mut StdRng) {
    let Some((_, size, intent)) = take(model, rng) else {
        return;
    };
    let backend = intent.backend();
    match rng.random_range(0..3) {
        0 => open.store.withdraw_intent(intent).await.unwrap(),
        1 => {
            open.store.abandon_intent(intent).await.unwrap();
            *model.orphan.entry(backend).or_default() += size;
        }
        _ => model.abandoned.push((backend, size)),
    }
}

async fn reap(open: &Open<'_>, model: &mut Model) {
    let reaped = open.store.reap_intents(1000).await.unwrap();
    assert_eq!(usize::try_from(reaped).unwrap(), model.abandoned.len());
    for (backend, size) in model.abandoned.drain(..) {
        *model.orphan.entry(backend).or_default() += size;
    }
}

async fn clean(open: &Open<'_>, model: &mut Model, rng: &mut StdRng) {
    open.db.clock.advance_ms(30_000);
    let items = open
        .store
        .claim_cleanup(3, Duration::from_secs(1))
        .await
        .unwrap();
    let mut reports = Vec::new();
    for item in items {
        let again_at = base::Clock::now(open.db.clock.as_ref()).after(Duration::from_secs(10));
        let outcome = match rng.random_range(0..8) {
            0 => CleanupOutcome::FirstPassDone { again_at },
            1 => CleanupOutcome::Retry {
                again_at,
                error: Some("refused".into()),
            },
            _ => {
                *model.orphan.entry(item.backend).or_default() -= item.bytes;
                CleanupOutcome::Done
            }
        };
        reports.push(CleanupReport {
            id: item.id,
            outcome,
        });
    }
    open.store.report_cleanup(reports).await.unwrap();
}

async fn retitle(open: &Open<'_>, model: &mut Model, name: &str) {
    let Some((old, _)) = model.objects.get_mut(name) else {
        return;
    };
    let version = NewVersion {
        version: VersionId::draw(&open.db.ids),
        content: Content::Same {
            current: old.version,
        },
        precondition: Precondition::None,
        ..old.clone()
    };
    let (verdict, _) = open.store.commit(version.clone(), Vec::new()).await;
    assert!(
        matches!(verdict, Ok(Verdict::Committed { .. })),
        "{verdict:?}"
    );
    old.version = version.version;
}
