//! New catalogues: what they say before they have seen all their backends, and who is first where
//! several begin to use one place.

use std::sync::Arc;

use backend::faulty::{Fault, Faults, FaultyBackend, Rates, Turns};
use backend::{Kind, MARKER_KEY, ObjectBackend};
use base::{Conditions, ETagCondition, ObjectHeaders, Precondition, UploadId};
use engine::catalogue::{ListQuery, ListStart, UploadQuery};
use engine::{
    BackendKind, CopyRequest, CopySource, CustomBackend, Engine, Error, OutOfService, StartError,
    Taken,
};

use crate::world::{World, body, bytes, get, key, photos, put, put_request, read_request};

/// Makes a backend of the world lead to the first place of another one.
fn share(world: &mut World, backend: usize, owner: &World) {
    let memory = Arc::clone(&owner.places[0].memory) as Arc<dyn ObjectBackend>;
    let faults = world.places[backend].faults.clone();
    let shared = FaultyBackend::new(memory, faults);
    world.settings.backends[backend].kind = BackendKind::Custom(CustomBackend(Arc::new(shared)));
}

/// A place that belongs to another catalogue, with an object in it.
async fn stranger() -> World {
    let stranger = World::seeded(&[None], 7);
    let engine = stranger.engine().await;
    put(&engine, "theirs", &bytes(3, 10)).await.unwrap();
    engine.stop().await.unwrap();
    stranger
}

fn is_unknown<T>(outcome: engine::Result<T>) -> bool {
    match outcome {
        Err(Error::AbsenceUnknown { unseen }) => {
            assert!(unseen.contains("backend b1"), "{unseen}");
            true
        }
        Ok(_) | Err(_) => false,
    }
}

/// Nothing that the catalogue lacks is said to be absent.
async fn claims_no_absence(engine: &Engine) {
    let bucket = photos(engine);
    let absent = key("theirs");
    assert!(is_unknown(get(engine, "theirs").await), "GetObject");
    let request = read_request(bucket, "theirs");
    assert!(is_unknown(engine.look(&request).await), "HeadObject");
    assert!(is_unknown(engine.tags(bucket, &absent).await), "tags");
    let listing = ListQuery {
        bucket,
        prefix: String::new(),
        delimiter: None,
        start: ListStart::Beginning,
        max_entries: 10,
    };
    assert!(is_unknown(engine.list(&listing).await), "ListObjects");
    let uploads = UploadQuery {
        bucket,
        prefix: String::new(),
        delimiter: None,
        after: None,
        max_entries: 10,
    };
    assert!(is_unknown(engine.list_uploads(&uploads).await), "uploads");
    let upload = UploadId::draw(engine.ids());
    let aborted = engine.abort_upload(bucket, &absent, upload).await;
    assert!(is_unknown(aborted), "AbortMultipartUpload");
    let removed = engine.remove(bucket, absent.clone(), Precondition::None);
    assert!(is_unknown(removed.await), "DeleteObject");
    let removed = engine.remove_many(bucket, vec![absent.clone()]).await;
    assert!(removed.into_iter().all(is_unknown), "DeleteObjects");
    let copied = engine.copy(CopyRequest {
        source: CopySource {
            bucket,
            key: absent,
            conditions: Conditions::default(),
        },
        bucket,
        key: key("copy"),
        headers: Taken::Keep,
        tags: Taken::Keep,
        checksum: None,
        precondition: Precondition::None,
    });
    assert!(is_unknown(copied.await), "CopyObject");
    for precondition in [
        Precondition::Absent,
        Precondition::Match(ETagCondition::Any),
    ] {
        let mut request = put_request(bucket, "theirs");
        request.precondition = precondition.clone();
        let written = engine.put(request, body(&bytes(1, 10), 10)).await;
        assert!(is_unknown(written), "PutObject on {precondition:?}");
    }
}

async fn says_what_is_absent(engine: &Engine) {
    let absent = get(engine, "theirs").await;
    assert!(matches!(absent, Err(Error::NoSuchKey)), "{absent:?}");
}

async fn restarted(world: &World, engine: Engine) -> Engine {
    engine.stop().await.unwrap();
    drop(engine);
    world.engine().await
}

async fn a_backend_of_another_catalogue_keeps_absence_unknown(mut world: World) {
    let stranger = stranger().await;
    share(&mut world, 1, &stranger);
    world.places[1].faults.set_rates(Rates::DOWN);
    let engine = world.engine().await;
    // What is known is served.
    put(&engine, "ours", &bytes(1, 10)).await.unwrap();
    assert_eq!(get(&engine, "ours").await.unwrap(), bytes(1, 10));
    claims_no_absence(&engine).await;
    let engine = restarted(&world, engine).await;
    claims_no_absence(&engine).await;
    // The backend is back, and tells whose it is.
    world.places[1].faults.heal();
    engine.settle(1).await;
    let status = engine.status().await.unwrap();
    let out = status.backends[1].out_of_service.as_ref();
    assert!(matches!(out, Some(OutOfService::MarkerForeign { .. })));
    claims_no_absence(&engine).await;
    let engine = restarted(&world, engine).await;
    assert_eq!(get(&engine, "ours").await.unwrap(), bytes(1, 10));
    claims_no_absence(&engine).await;
    // It is taken over on purpose.
    stranger.places[0].memory.lose(MARKER_KEY);
    engine.settle(1).await;
    says_what_is_absent(&engine).await;
    // For good: a backend that is down later is no reason any more.
    engine.stop().await.unwrap();
    drop(engine);
    world.places[1].faults.set_rates(Rates::DOWN);
    let engine = world.engine().await;
    says_what_is_absent(&engine).await;
}

#[tokio::test(start_paused = true)]
async fn a_new_catalogue_claims_no_absence_before_it_has_seen_all_its_backends() {
    a_backend_of_another_catalogue_keeps_absence_unknown(World::new(&[None, None])).await;
}

#[tokio::test]
async fn a_new_database_claims_no_absence_before_it_has_seen_all_its_backends() {
    let world = World::on_postgres(&[None, None], 0);
    a_backend_of_another_catalogue_keeps_absence_unknown(world).await;
}

#[tokio::test(start_paused = true)]
async fn a_catalogue_that_loses_an_unseen_backend_from_its_configuration_knows_absence() {
    let mut world = World::new(&[None, None]);
    world.places[1].faults.set_rates(Rates::DOWN);
    let engine = world.engine().await;
    claims_no_absence(&engine).await;
    engine.stop().await.unwrap();
    drop(engine);
    world.settings.backends.pop();
    says_what_is_absent(&world.engine().await).await;
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_is_added_while_it_is_down_leaves_absence_known() {
    let mut world = World::new(&[None, None]);
    let added = world.settings.backends.pop().unwrap();
    let engine = world.engine().await;
    put(&engine, "ours", &bytes(1, 10)).await.unwrap();
    // Not even a clean stop is needed.
    drop(engine);
    world.places[1].faults.set_rates(Rates::DOWN);
    world.settings.backends.push(added);
    says_what_is_absent(&world.engine().await).await;
}

#[tokio::test(start_paused = true)]
async fn a_new_catalogue_whose_backends_are_all_down_knows_absence_when_all_are_back() {
    let world = World::new(&[None, None]);
    for place in &world.places {
        place.faults.set_rates(Rates::DOWN);
    }
    let engine = world.engine().await;
    claims_no_absence(&engine).await;
    world.places[0].faults.heal();
    engine.settle(1).await;
    claims_no_absence(&engine).await;
    world.places[1].faults.heal();
    engine.settle(1).await;
    says_what_is_absent(&engine).await;
    world.check(&engine).await.unwrap();
}

/// All orders of so many calls of either player.
fn orders(calls: u32) -> Vec<Vec<u32>> {
    (0..1_u32 << (2 * calls))
        .filter(|order| order.count_ones() == calls)
        .map(|order| (0..2 * calls).map(|place| order >> place & 1).collect())
        .collect()
}

/// The same without the calls that nobody makes: who looks after the other one's write, which is its
/// call of that number, sees that the place is taken.
fn without_calls_of_the_late(order: &[u32], write: usize) -> Vec<u32> {
    let nth = |player, n| {
        let mut calls = order.iter().enumerate().filter(|(_, of)| **of == player);
        calls.nth(n).unwrap().0
    };
    let late = (0..2).find(|player| nth(*player, 0) > nth(1 - player, write));
    let calls = order.iter().enumerate();
    calls
        .filter(|(place, of)| late != Some(**of) || *place == nth(**of, 0))
        .map(|(_, of)| *of)
        .collect()
}

/// How the place answers a first marker.
#[derive(Debug, Clone, Copy)]
enum Place {
    Knows,
    SaysThatItDoesNotKnow,
    Ignores,
}

impl Place {
    fn script(self, faults: &Faults) {
        match self {
            Self::Knows => {}
            Self::SaysThatItDoesNotKnow => {
                faults.script("create_marker", Fault::Reply(Kind::Rejected));
            }
            Self::Ignores => faults.script("create_marker", Fault::IgnoreCondition),
        }
    }
}

#[tokio::test]
async fn of_two_names_of_one_place_one_is_used_in_whatever_order_they_begin() {
    // A look, the first marker, and once more where its condition is refused. What follows (a look at
    // what is there, or the one behind all first markers) comes when it wants.
    let places = [
        (Place::Knows, 2),
        (Place::SaysThatItDoesNotKnow, 3),
        (Place::Ignores, 2),
    ];
    for (place, calls) in places {
        let write = calls as usize - 1;
        for order in orders(calls) {
            let order = without_calls_of_the_late(&order, write);
            let owner = World::new(&[None]);
            let mut world = World::new(&[None, None]);
            share(&mut world, 0, &owner);
            share(&mut world, 1, &owner);
            // Both are looked at before the catalogue is made.
            let turns = Turns::new([0, 1].into_iter().chain(order.iter().copied()));
            for (player, one) in (0..).zip(&world.places) {
                one.faults.take_turns(&turns, player);
                place.script(&one.faults);
            }
            let engine = world.engine().await;
            let backends = engine.status().await.unwrap().backends;
            let used = backends.iter().filter(|one| one.out_of_service.is_none());
            let used: Vec<_> = used.map(|one| one.name.to_string()).collect();
            assert_eq!(used.len(), 1, "{place:?} {order:?}: {backends:?}");
            let marker = owner.places[0].memory.object(MARKER_KEY).unwrap();
            let text = String::from_utf8(marker.bytes.to_vec()).unwrap();
            let line = format!("backend {}\n", used[0]);
            assert!(text.contains(&line), "{place:?} {order:?}: {text}");
        }
    }
}

#[tokio::test]
async fn of_two_catalogues_that_begin_on_one_place_one_uses_it_in_whatever_order() {
    // A look before the catalogue is made, a look, the first marker, a look.
    for order in orders(4) {
        let owner = World::new(&[None]);
        let mut worlds = [World::new(&[None]), World::seeded(&[None], 1)];
        let turns = Turns::new(order.iter().copied());
        for (player, world) in (0..).zip(&mut worlds) {
            share(world, 0, &owner);
            world.places[0].faults.take_turns(&turns, player);
        }
        let start = async |player: u32, world: &World| {
            let started = world.start().await;
            turns.leave(player);
            started
        };
        let (one, two) = tokio::join!(start(0, &worlds[0]), start(1, &worlds[1]));
        let mut used = 0;
        for started in [one, two] {
            match started {
                Ok(engine) => {
                    let status = engine.status().await.unwrap();
                    used += u32::from(status.backends[0].out_of_service.is_none());
                }
                Err(StartError::BackendsTaken { .. }) => {}
                Err(error) => panic!("{order:?}: {error:?}"),
            }
        }
        assert_eq!(used, 1, "{order:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_first_marker_whose_answer_is_lost_is_believed_when_it_reads_back() {
    let world = World::new(&[None]);
    world.places[0]
        .faults
        .script("create_marker", Fault::LoseReply);
    let engine = world.engine().await;
    put(&engine, "a", &bytes(1, 10)).await.unwrap();
    let headers = ObjectHeaders::default();
    // Another one's marker that was there first is left as it is.
    let world = World::new(&[None]);
    let theirs = bytes(5, 100);
    world.places[0]
        .memory
        .plant(MARKER_KEY, theirs.clone(), headers);
    let engine = world.engine().await;
    assert!(put(&engine, "a", &bytes(1, 10)).await.is_err());
    let left = world.places[0].memory.object(MARKER_KEY).unwrap();
    assert_eq!(left.bytes, theirs);
}
