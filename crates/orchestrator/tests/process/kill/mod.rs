//! `kill -9` at seeded points of a mixed load, again and again on the same catalogue.
//!
//! The point is a count of things that were seen from outside (requests begun, bytes handed over,
//! answers received), never a time. After each kill: what was acknowledged reads back whole, what was
//! not is the old version or the new one, the sums are exact, every copy exists, and the backends hold
//! nothing that the catalogue does not know. At the end of a world everything is deleted, and then
//! nothing is left on any backend.

mod client;
mod fuse;

use std::sync::Arc;
use std::time::Duration;

use backend::{ObjectBackend as _, S3Backend};
use futures_util::future::join_all;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use tokio::time::timeout;

use client::Client;
use fuse::{Fuse, Plan};
use testbed::number_from;

use crate::support::home::Home;
use crate::support::server::Server;

/// Kills in a plain run; `S3O_KILLS` is for longer ones.
const KILLS: u64 = 20;
/// Kills on one catalogue.
const KILLS_PER_WORLD: u64 = 5;
/// The seed of the first world; `S3O_SEED` names another.
const SEED: u64 = 1;
/// Clients at a time.
const CLIENTS: u64 = 4;
/// How long the load between two kills may take.
const LOAD_MAX: Duration = Duration::from_secs(120);

#[tokio::test(flavor = "multi_thread")]
async fn kill_9_at_any_point_loses_nothing_and_leaves_nothing_behind() {
    let mut kills = number_from("S3O_KILLS", KILLS);
    let mut seed = number_from("S3O_SEED", SEED);
    while kills > 0 {
        let here = kills.min(KILLS_PER_WORLD);
        println!("world with S3O_SEED={seed}, {here} kills");
        World::new(seed).run(here).await;
        kills -= here;
        seed += 1;
    }
}

/// A catalogue, its backends and its clients over several lives of the process.
struct World {
    home: Home,
    rng: StdRng,
    clients: Vec<Client>,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let names = ["one", "two", "three"];
        let mut home = Home::with_local(&names[..rng.random_range(2..=3)]);
        let routing = ["pack", "spread"][rng.random_range(0..2)];
        home.extra = format!(
            "routing_strategy: {routing}\ncleanup_queue:\n  read_grace: 0s\nwrite_path:\n  \
             replay_window: 128KiB\n"
        );
        if routing == "pack" {
            // The first backend is soon full, so that uploads go on at the next one.
            home.backends[0] = home.backends[0].clone().with("quota_bytes: 12MiB");
        }
        let clients = (0..CLIENTS)
            .map(|number| Client::new(number, seed.wrapping_mul(1009) + number))
            .collect();
        Self { home, rng, clients }
    }

    async fn run(mut self, kills: u64) {
        for kill in 0..kills {
            let plan = Plan::draw(&mut self.rng);
            println!("  kill {kill}: {plan:?}");
            self.live_until(plan).await;
            if self.rng.random() {
                // What a crash leaves is known to the catalogue even before anybody settles it.
                self.home.nothing_unknown().await;
            }
            let server = self.home.serve().await;
            let backend = server.client();
            for client in &mut self.clients {
                client.check(&backend).await;
            }
            self.home.verify().await;
            server.stop().await;
            self.home.nothing_unknown().await;
        }
        self.clear().await;
    }

    /// One life of the process, from its start to the kill.
    async fn live_until(&mut self, plan: Plan) {
        let mut server = self.home.serve().await;
        let fuse = Arc::new(Fuse::new(plan, server.pid()));
        let load = self.clients.iter_mut().map(|client| {
            let (fuse, backend) = (Arc::clone(&fuse), server.client());
            async move { client.work(&backend, &fuse).await }
        });
        let failures = timeout(LOAD_MAX, join_all(load)).await;
        let failures: Vec<String> = failures
            .unwrap_or_else(|_| panic!("the load stalls:\n{}", server.log_tail()))
            .into_iter()
            .flatten()
            .collect();
        assert!(failures.is_empty(), "{failures:#?}\n{}", server.log_tail());
        server.ended().await;
    }

    /// Deletes everything; nothing may be left on the backends.
    async fn clear(mut self) {
        let server = self.home.serve().await;
        let backend = server.client();
        for client in &mut self.clients {
            client.check(&backend).await;
            client.delete_all(&backend).await;
        }
        abort_all(&backend).await;
        self.nothing_left(&server).await;
        let out = self.home.verify().await;
        assert!(out.contains("0 copies looked at"), "{out}");
        server.stop().await;
    }

    async fn nothing_left(&self, server: &Server) {
        server.settled(&self.home, 0).await;
        assert_eq!(server.metric("s3o_cleanup_dlq_depth").await, Some(0));
    }
}

async fn abort_all(backend: &S3Backend) {
    loop {
        let page = backend.list_uploads("", None).await.unwrap();
        for open in &page.uploads {
            let key = backend::BackendKey::new(&open.key).unwrap();
            backend.abort_upload(&key, &open.upload).await.unwrap();
        }
        if !page.truncated {
            return;
        }
    }
}
