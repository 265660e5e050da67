//! Writes that come to nothing: where the backend's answer is known, their bytes are gone at once, and
//! not an hour later.

use std::time::Duration;

use base::Precondition;
use engine::{Engine, Error, PutRequest};
use futures_util::future::join_all;

use crate::world::{World, body, bytes, get, hang_up_after, key, photos, put, put_request};

/// Lets what runs on its own come to its end, on a clock that stands still.
async fn settle(engine: &Engine) {
    // On paused time this ends when nothing else can run.
    tokio::time::sleep(Duration::from_millis(1)).await;
    engine.settle(20).await;
}

#[tokio::test(start_paused = true)]
async fn losers_of_a_race_do_not_fill_a_small_quota() {
    let world = World::new(&[Some(500_000)]);
    let engine = world.engine().await;
    for round in 0..5 {
        let content = bytes(round, 80_000);
        let name = format!("k{round}");
        let writes = (0..4).map(|_| {
            let request = PutRequest {
                precondition: Precondition::Absent,
                ..put_request(photos(&engine), &name)
            };
            engine.put(request, body(&content, 10_000))
        });
        let outcomes = join_all(writes).await;
        let lost = |outcome: &&Result<_, _>| matches!(outcome, Err(Error::PreconditionFailed));
        assert_eq!(outcomes.iter().filter(lost).count(), 3, "{outcomes:?}");
        assert_eq!(get(&engine, &name).await.unwrap(), content);
        settle(&engine).await;
        world.check(&engine).await.unwrap();
        let room = &engine.status().await.unwrap().backends[0].room;
        assert_eq!((room.orphan, room.reserved), (0, 0));
        let delete = engine.remove(photos(&engine), key(&name), Precondition::None);
        delete.await.unwrap();
        world.quiesce(&engine).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_hangs_up_leaves_nothing_that_takes_an_hour() {
    let world = World::new(&[Some(4 << 20)]);
    let engine = world.engine().await;
    for (size, polls_max) in [(10_000, 20), (300_000, 60)] {
        let content = bytes(size, usize::try_from(size).unwrap());
        for polls in 0..polls_max {
            let name = format!("{size}-{polls}");
            let hung = hang_up_after(polls, put(&engine, &name, &content)).await;
            settle(&engine).await;
            world.check(&engine).await.unwrap();
            let room = &engine.status().await.unwrap().backends[0].room;
            assert_eq!((room.orphan, room.reserved), (0, 0), "{name}");
            assert!(room.used == 0 || room.used == size, "{name}: {room:?}");
            if hung.is_none() && room.used == 0 {
                continue;
            }
            assert_eq!(get(&engine, &name).await.unwrap(), content);
            let delete = engine.remove(photos(&engine), key(&name), Precondition::None);
            delete.await.unwrap();
            world.quiesce(&engine).await;
        }
    }
}
