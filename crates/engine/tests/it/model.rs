//! Random operations on a failing world against a plain map.
//!
//! After every step the promises are checked, above all the sums; now and then the world heals, time
//! passes, everything settles, and not a byte may be left over. Failures print their seed; `S3O_SEED` and
//! `S3O_SEEDS` run others.

use std::collections::BTreeMap;
use std::ops::Range;
use std::panic::catch_unwind;

use backend::faulty::Rates;
use backend::{MARKER_KEY, ObjectBackend};
use base::{
    ByteSize, Conditions, ETag, ETagCondition, Md5, ObjectHeaders, ObjectKey, Precondition,
    RangeSpec, Tags, UploadId,
};
use bytes::Bytes;
use engine::catalogue::{ListEntry, ListQuery, ListStart};
use engine::{
    CompleteRequest, CompletedPart, CopyRequest, CopySource, CreateUpload, Declared, DeleteOutcome,
    Engine, Error, PartRequest, PutRequest, ReadRequest, Selection, Taken,
};
use metastore::PlantedBug;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use crate::world::{
    World, body, bytes, hang_up_after, key, photos, put_request, read, read_request,
};

const SEEDS: u64 = 20;
const STEPS: usize = 2000;
/// In real time, and with a server to ask.
const SEEDS_ON_A_SERVER: u64 = 3;
const STEPS_ON_A_SERVER: usize = 200;
const KEYS: [&str; 12] = [
    "a",
    "a/b",
    "a/c",
    "a//b",
    "b",
    "../x",
    "dir/one",
    "dir/two",
    "dir/three",
    "%2F",
    "z\n",
    "ä",
];

/// What a key may hold: one content, or one of several after a client hung up.
type Possible = Vec<Option<Bytes>>;

struct Upload {
    name: &'static str,
    id: UploadId,
    /// Contents that a part number may have, by what its entity tag would be.
    parts: BTreeMap<u32, Vec<Bytes>>,
    /// A Complete whose outcome this client never heard.
    completing: Option<Bytes>,
    /// Its key was written or deleted since: it displaces nothing any more.
    overtaken: bool,
}

struct Run {
    seed: u64,
    rng: StdRng,
    world: World,
    engine: Engine,
    map: BTreeMap<&'static str, Possible>,
    uploads: Vec<Upload>,
    drawn: u64,
    /// A client hung up in the step that runs.
    hung_up: bool,
}

/// Runs one seed to its end, or panics where a promise is broken.
fn run(seed: u64, steps: usize, bug: Option<PlantedBug>) {
    play(World::seeded(&quotas(), seed), seed, steps, bug);
}

fn play(world: World, seed: u64, steps: usize, bug: Option<PlantedBug>) {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime
        .enable_all()
        .start_paused(world.time_is_paused())
        .build()
        .unwrap()
        .block_on(async {
            let mut run = Run::new(world, seed, bug).await;
            for step in 0..steps {
                run.step(step).await;
            }
            run.settle().await;
        });
}

// The seeds are shared out, so that they run at the same time.

#[test]
fn random_operations_agree_with_a_map_first_seeds() {
    let (first, _) = halves();
    first.for_each(|seed| run(seed, STEPS, None));
}

#[test]
fn random_operations_agree_with_a_map_last_seeds() {
    let (_, last) = halves();
    last.for_each(|seed| run(seed, STEPS, None));
}

fn halves() -> (Range<u64>, Range<u64>) {
    let Range { start, end } = testbed::seeds(SEEDS);
    let middle = start.midpoint(end);
    (start..middle, middle..end)
}

#[test]
fn random_operations_agree_with_a_map_on_postgresql() {
    for seed in testbed::seeds(SEEDS_ON_A_SERVER) {
        let world = World::on_postgres(&quotas(), seed);
        play(world, seed, STEPS_ON_A_SERVER, None);
    }
}

#[test]
fn every_planted_bug_is_caught() {
    for bug in PlantedBug::ALL {
        let caught = |seed| catch_unwind(|| run(seed, 500, Some(bug))).is_err();
        assert!((0..5).any(caught), "nobody noticed {bug:?}");
    }
}

fn quotas() -> [Option<u64>; 3] {
    [Some(2 << 20), Some(1 << 20), None]
}

impl Run {
    async fn new(mut world: World, seed: u64, bug: Option<PlantedBug>) -> Self {
        world.settings.part_size_min = ByteSize(1000);
        world.settings.replay_window = ByteSize(128 << 10);
        if seed % 2 == 1 {
            world.settings.routing = engine::Routing::Spread;
        }
        if let Some(bug) = bug {
            world.engine().await.stop().await.unwrap();
            bug.plant(world.file());
        }
        let engine = world.engine().await;
        Self {
            seed,
            rng: StdRng::seed_from_u64(seed),
            world,
            engine,
            map: BTreeMap::new(),
            uploads: Vec::new(),
            drawn: 0,
            hung_up: false,
        }
    }

    async fn step(&mut self, step: usize) {
        let what = self.rng.random_range(0..100);
        match what {
            0..28 => self.put().await,
            28..50 => self.get().await,
            50..58 => self.delete().await,
            58..62 => self.delete_many().await,
            62..68 => self.copy().await,
            68..72 => self.list().await,
            72..75 => self.create_upload().await,
            75..84 => self.upload_part().await,
            84..87 => self.complete().await,
            87..88 => self.abort().await,
            88..94 => self.weather(),
            94..97 => self.pass_time().await,
            97..99 => self.restart().await,
            _ => self.settle().await,
        }
        // What was under way when a client hung up must survive the process, too.
        if std::mem::take(&mut self.hung_up) && self.rng.random_range(0..3) == 0 {
            self.restart().await;
        }
        if let Err(broken) = self.world.check(&self.engine).await {
            panic!("seed {} step {step} (draw {what}): {broken}", self.seed);
        }
    }

    fn key(&mut self) -> &'static str {
        KEYS[self.rng.random_range(0..KEYS.len())]
    }

    fn content(&mut self) -> Bytes {
        self.drawn += 1;
        let length = match self.rng.random_range(0..10) {
            0 => 0,
            1..6 => self.rng.random_range(1..5_000),
            6..9 => self.rng.random_range(60_000..140_000),
            _ => self.rng.random_range(140_000..500_000),
        };
        bytes(self.seed << 32 | self.drawn, length)
    }

    fn possible(&self, name: &str) -> Possible {
        self.map.get(name).cloned().unwrap_or_else(|| vec![None])
    }

    fn polls(&mut self) -> u32 {
        match self.rng.random_range(0..4) {
            0 => self.rng.random_range(0..80),
            _ => u32::MAX,
        }
    }

    /// What a key may hold after a write that may have happened.
    fn learn<T>(
        &mut self,
        name: &'static str,
        outcome: &Option<engine::Result<T>>,
        new: Option<Bytes>,
    ) {
        match outcome {
            Some(Ok(_)) => {
                self.map.insert(name, vec![new]);
                let same_key = self.uploads.iter_mut().filter(|upload| upload.name == name);
                same_key.for_each(|upload| upload.overtaken |= upload.completing.is_some());
            }
            // An error is a promise that nothing happened, but for the catalogue's own.
            Some(Err(Error::Catalogue(error))) => panic!("seed {}: {error}", self.seed),
            Some(Err(_)) => {}
            None => {
                self.hung_up = true;
                let mut possible = self.possible(name);
                if !possible.contains(&new) {
                    possible.push(new);
                }
                self.map.insert(name, possible);
            }
        }
    }

    async fn put(&mut self) {
        let (name, content, polls) = (self.key(), self.content(), self.polls());
        let piece = self.rng.random_range(1_000..40_000);
        let mut incoming = body(&content, piece);
        let lie = self.rng.random_range(0..12);
        match lie {
            0 => incoming.length += 1,
            1 => {
                incoming.declared = Declared {
                    md5: Some(Md5([1; 16])),
                    ..Declared::default()
                };
            }
            _ => {}
        }
        let possible = self.possible(name);
        let known = match possible.as_slice() {
            [one] => Some(one.clone()),
            _ => None,
        };
        let (precondition, holds) = match (self.rng.random_range(0..6), &known) {
            (0, Some(held)) => (Precondition::Absent, held.is_none()),
            (1, Some(Some(held))) => (matching(held), true),
            (2, Some(Some(_))) => (matching(&Bytes::from_static(b"other")), false),
            _ => (Precondition::None, true),
        };
        let request = PutRequest {
            precondition,
            ..put_request(photos(&self.engine), name)
        };
        let outcome = hang_up_after(polls, self.engine.put(request, incoming)).await;
        if let Some(result) = &outcome {
            assert!(
                result.is_err() || (lie > 1 && holds),
                "seed {}: {result:?}",
                self.seed
            );
        }
        if lie > 1 && holds {
            self.learn(name, &outcome, Some(content));
        }
    }

    async fn get(&mut self) {
        let name = self.key();
        let mut request = read_request(photos(&self.engine), name);
        let possible = self.possible(name);
        let first = self.rng.random_range(0..200_000);
        let ranged = self.rng.random_range(0..3) == 0;
        if ranged {
            let last = first + self.rng.random_range(0..100_000);
            request.selection = Selection::Range(RangeSpec::From {
                first,
                last: Some(last),
            });
        }
        match read(&self.engine, &request).await {
            Ok(found) => {
                let fits = |held: &Option<Bytes>| match held {
                    None => false,
                    Some(held) => match request.selection {
                        Selection::Range(range) => {
                            range.resolve(held.len() as u64).is_ok_and(|range| {
                                held[range.start as usize..range.end() as usize] == found[..]
                            })
                        }
                        Selection::All | Selection::Part(_) => *held == found,
                    },
                };
                assert!(
                    possible.iter().any(fits),
                    "seed {}: {name:?} has other bytes",
                    self.seed
                );
                if !ranged {
                    self.map.insert(name, vec![Some(found)]);
                }
            }
            Err(Error::NoSuchKey) => {
                assert!(
                    possible.contains(&None),
                    "seed {}: {name:?} is lost",
                    self.seed
                );
                self.map.insert(name, vec![None]);
            }
            Err(Error::InvalidRange { size }) => {
                let fits = possible
                    .iter()
                    .flatten()
                    .any(|held| held.len() as u64 == size);
                assert!(fits && size <= first, "seed {}", self.seed);
            }
            Err(Error::ReadUnavailable { .. }) => {}
            Err(error) => panic!("seed {}: {error:?}", self.seed),
        }
    }

    async fn delete(&mut self) {
        let (name, polls) = (self.key(), self.polls());
        let removal = self
            .engine
            .remove(photos(&self.engine), key(name), Precondition::None);
        let outcome = hang_up_after(polls, removal).await;
        if let Some(Ok(found)) = &outcome {
            let held = match found {
                DeleteOutcome::Deleted => self.possible(name).iter().any(Option::is_some),
                DeleteOutcome::Absent => self.possible(name).contains(&None),
            };
            assert!(
                held,
                "seed {}: delete of {name:?} found {found:?}",
                self.seed
            );
        }
        self.learn(name, &outcome, None);
    }

    async fn delete_many(&mut self) {
        let mut names: Vec<_> = (0..3).map(|_| self.key()).collect();
        names.sort_unstable();
        names.dedup();
        let keys: Vec<ObjectKey> = names.iter().map(|name| key(name)).collect();
        let polls = self.polls();
        let removal = self.engine.remove_many(photos(&self.engine), keys);
        match hang_up_after(polls, removal).await {
            Some(results) => {
                for (name, result) in names.into_iter().zip(results) {
                    self.learn(name, &Some(result), None);
                }
            }
            None => {
                for name in names {
                    self.learn::<()>(name, &None, None);
                }
            }
        }
    }

    async fn copy(&mut self) {
        let (from, to, polls) = (self.key(), self.key(), self.polls());
        let source = self.possible(from);
        // A second read of an uncertain source would be needed to know what was copied.
        let [held] = source.as_slice() else { return };
        let bucket = photos(&self.engine);
        let request = CopyRequest {
            source: CopySource {
                bucket,
                key: key(from),
                conditions: Conditions::default(),
            },
            bucket,
            key: key(to),
            headers: match self.rng.random_range(0..2) {
                0 => Taken::Keep,
                _ => Taken::Replace(ObjectHeaders::default()),
            },
            tags: Taken::Keep,
            checksum: None,
            precondition: Precondition::None,
        };
        let outcome = hang_up_after(polls, self.engine.copy(request)).await;
        if held.is_none() {
            let absent = matches!(outcome, None | Some(Err(Error::NoSuchKey)));
            assert!(absent, "seed {}: {outcome:?}", self.seed);
            return;
        }
        self.learn(to, &outcome, held.clone());
    }

    async fn list(&mut self) {
        let delimiter = self.rng.random_range(0..2) == 0;
        let query = ListQuery {
            bucket: photos(&self.engine),
            prefix: String::new(),
            delimiter: delimiter.then(|| "/".to_owned()),
            start: ListStart::Beginning,
            max_entries: 1000,
        };
        let listing = self.engine.list(&query).await.unwrap();
        let mut sure: Vec<String> = Vec::new();
        let mut maybe: Vec<String> = Vec::new();
        for (name, possible) in &self.map {
            let entry = match (delimiter, name.split_once('/')) {
                (true, Some((head, _))) => format!("{head}/"),
                _ => (*name).to_owned(),
            };
            match possible.iter().any(Option::is_none) {
                true if possible.len() > 1 => maybe.push(entry),
                true => {}
                false => sure.push(entry),
            }
        }
        let found: Vec<String> = listing
            .entries
            .into_iter()
            .map(|entry| match entry {
                ListEntry::Object(object) => object.key,
                ListEntry::Prefix(prefix) => prefix,
            })
            .collect();
        assert!(found.is_sorted(), "seed {}", self.seed);
        assert!(
            sure.iter().all(|entry| found.contains(entry)),
            "seed {}",
            self.seed
        );
        let known = |entry: &String| sure.contains(entry) || maybe.contains(entry);
        assert!(
            found.iter().all(known),
            "seed {}: {found:?} {sure:?} {maybe:?}",
            self.seed
        );
    }

    async fn create_upload(&mut self) {
        let name = self.key();
        let request = CreateUpload {
            bucket: photos(&self.engine),
            key: key(name),
            headers: ObjectHeaders::default(),
            tags: Tags::default(),
            checksum: None,
        };
        let polls = self.polls();
        let outcome = hang_up_after(polls, self.engine.create_upload(request)).await;
        if let Some(Ok(id)) = outcome {
            self.uploads.push(Upload {
                name,
                id,
                parts: BTreeMap::new(),
                completing: None,
                overtaken: false,
            });
        }
    }

    fn upload(&mut self) -> Option<usize> {
        match self.uploads.len() {
            0 => None,
            many => Some(self.rng.random_range(0..many)),
        }
    }

    async fn upload_part(&mut self) {
        let Some(place) = self.upload() else { return };
        let number = self.rng.random_range(1..5);
        self.drawn += 1;
        let length = self.rng.random_range(1_000..150_000);
        let content = bytes(self.seed << 32 | self.drawn, length);
        let (polls, piece) = (self.polls(), self.rng.random_range(1_000..40_000));
        let upload = &self.uploads[place];
        let request = PartRequest {
            bucket: photos(&self.engine),
            key: key(upload.name),
            upload: upload.id,
            number,
        };
        let stored = self.engine.upload_part(request, body(&content, piece));
        let outcome = hang_up_after(polls, stored).await;
        let upload = &mut self.uploads[place];
        match outcome {
            Some(Ok(_)) => {
                upload.parts.insert(number, vec![content]);
            }
            // The older part may be gone, or stay.
            Some(Err(_)) => {}
            None => upload.parts.entry(number).or_default().push(content),
        }
    }

    async fn complete(&mut self) {
        let Some(place) = self.upload() else { return };
        let polls = self.polls();
        let upload = &mut self.uploads[place];
        if upload.parts.is_empty() || upload.completing.is_some() {
            return;
        }
        let chosen: Vec<(u32, Bytes)> = upload
            .parts
            .iter()
            .filter_map(|(number, contents)| Some((*number, contents.last()?.clone())))
            .collect();
        let whole: Bytes = chosen
            .iter()
            .map(|(_, content)| content.clone())
            .collect::<Vec<_>>()
            .concat()
            .into();
        let name = upload.name;
        let parts = chosen
            .iter()
            .map(|(number, content)| CompletedPart {
                number: *number,
                etag: ETag::of_body(Md5::of(content)),
                checksum: None,
            })
            .collect();
        let request = CompleteRequest {
            bucket: photos(&self.engine),
            key: key(name),
            upload: upload.id,
            parts,
            checksum: None,
            size: None,
            precondition: Precondition::None,
        };
        let outcome = hang_up_after(polls, self.engine.complete_upload(request)).await;
        match &outcome {
            Some(Ok(_)) => {
                self.uploads.remove(place);
                self.learn(name, &outcome, Some(whole));
            }
            // It may be completed later, by the worker: until the world has settled, both are right.
            Some(Err(
                Error::WriteUnavailable { .. } | Error::Conflict | Error::TimedOut { .. },
            ))
            | None => {
                self.uploads[place].completing = Some(whole.clone());
                let none: Option<engine::Result<()>> = None;
                self.learn(name, &none, Some(whole));
            }
            Some(Err(
                Error::InvalidPart { .. } | Error::NoSuchUpload | Error::PartTooSmall { .. },
            )) => {}
            Some(Err(error)) => panic!("seed {}: {error:?}", self.seed),
        }
    }

    async fn abort(&mut self) {
        let Some(place) = self.upload() else { return };
        let upload = &self.uploads[place];
        let aborted = self
            .engine
            .abort_upload(photos(&self.engine), &key(upload.name), upload.id)
            .await;
        match aborted {
            Ok(()) | Err(Error::NoSuchUpload) => {
                self.uploads.remove(place);
            }
            Err(Error::Conflict) => {}
            Err(error) => panic!("seed {}: {error:?}", self.seed),
        }
    }

    fn weather(&mut self) {
        let place = self.rng.random_range(0..self.world.places.len());
        let rates = match self.rng.random_range(0..5) {
            0 => Rates::DOWN,
            1 => Rates::NONE,
            _ => Rates {
                refuse: 30,
                // Who waits for the end of a stall waits for as long as the engine does.
                stall: if self.world.time_is_paused() { 10 } else { 0 },
                cut: 30,
                lose_reply: 30,
                late: 20,
                full: 10,
                missing: 0,
                cut_body: 30,
                short_body: 30,
                first_byte: 10,
            },
        };
        self.world.places[place].faults.set_rates(rates);
    }

    async fn pass_time(&mut self) {
        for place in &self.world.places {
            if self.rng.random_range(0..2) == 0 {
                place.faults.land().await;
            }
        }
        self.world
            .clock
            .advance_ms(self.rng.random_range(1_000..600_000));
        self.engine.settle(3).await;
        self.completes_may_happen();
    }

    /// A worker may take up a Complete that its client gave up, unless its key was acknowledged to be
    /// something else since.
    fn completes_may_happen(&mut self) {
        let pending: Vec<_> = self
            .uploads
            .iter()
            .filter(|upload| !upload.overtaken)
            .filter_map(|upload| Some((upload.name, upload.completing.clone()?)))
            .collect();
        for (name, whole) in pending {
            self.learn::<()>(name, &None, Some(whole));
        }
    }

    async fn restart(&mut self) {
        let fresh = match self.rng.random_range(0..2) {
            0 => {
                self.engine.stop().await.unwrap();
                self.world.engine().await
            }
            _ => {
                let doomed = std::mem::replace(&mut self.engine, nobody(&self.world).await);
                drop(doomed);
                self.world.outlive_leases();
                self.world.engine().await
            }
        };
        self.engine = fresh;
        self.completes_may_happen();
    }

    /// Heals the world, lets everything settle, and counts the bytes.
    async fn settle(&mut self) {
        self.world
            .places
            .iter()
            .for_each(|place| place.faults.heal());
        self.engine.settle(5).await;
        let rounds = if self.world.time_is_paused() { 30 } else { 4 };
        for _ in 0..rounds {
            self.world.quiesce(&self.engine).await;
        }
        self.completes_may_happen();
        self.uploads.clear();
        let status = self.engine.status().await.unwrap();
        assert_eq!(status.depth.intents, 0, "seed {}: open intents", self.seed);
        for (place, status) in self.world.places.iter().zip(status.backends) {
            let room = status.room;
            assert_eq!(
                (room.orphan, room.reserved),
                (0, 0),
                "seed {}: {room:?}",
                self.seed
            );
            let marker = place
                .memory
                .object(MARKER_KEY)
                .map_or(0, |marker| marker.bytes.len());
            let held = place.memory.used_bytes() - marker as u64;
            assert_eq!(
                held,
                room.used,
                "seed {}: bytes on {}",
                self.seed,
                place.memory.name()
            );
            assert!(place.memory.uploads().is_empty(), "seed {}", self.seed);
        }
        for name in KEYS {
            let possible = self.possible(name);
            match read(&self.engine, &whole(&self.engine, name)).await {
                Ok(found) => {
                    let known = possible.contains(&Some(found.clone()));
                    assert!(known, "seed {}: {name:?} has other bytes", self.seed);
                    self.map.insert(name, vec![Some(found)]);
                }
                Err(Error::NoSuchKey) => {
                    assert!(
                        possible.contains(&None),
                        "seed {}: {name:?} is lost",
                        self.seed
                    );
                    self.map.insert(name, vec![None]);
                }
                Err(error) => panic!("seed {}: {name:?} {error}", self.seed),
            }
        }
    }
}

/// An engine to stand in while the real one is dropped.
async fn nobody(_world: &World) -> Engine {
    World::new(&[None]).engine().await
}

fn whole(engine: &Engine, name: &str) -> ReadRequest {
    read_request(photos(engine), name)
}

fn matching(held: &Bytes) -> Precondition {
    Precondition::Match(ETagCondition::Tags(vec![ETag::of_body(Md5::of(held))]))
}
