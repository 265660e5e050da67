//! Instances that share a real Redis and real rows: nothing is lost or doubled, whatever fails.

mod server;

use base::{ManualClock, Month, Secret};
use metastore::{OpenOptions, Store};
use parking_lot::Mutex as Plain;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use tempfile::TempDir;

use super::*;
use crate::UsageLimits;
use crate::usage::{Entry, Usage};
use server::Server;

/// Rounds after which instances that can reach each other agree: one may fail on a connection that is
/// gone, one begins a new beat, one is heard, one is heard again; and one to be sure.
const ROUNDS: usize = 5;
const START_MS: i64 = 1_700_000_000_000;

/// Keeps what is said of Redis.
#[derive(Default)]
struct Facts(Plain<Vec<(&'static str, bool)>>);

impl Observer for Facts {
    fn observe(&self, event: Event<'_>) {
        match event {
            Event::RedisCall { operation, outcome } => {
                self.0.lock().push((operation, outcome == Outcome::Success));
            }
            Event::RedisFallback { active } => self.0.lock().push(("fallback", active)),
            _ => {}
        }
    }
}

/// Instances over one store: as many as there would be processes.
struct World {
    store: Store,
    clock: Arc<ManualClock>,
    books: Vec<Book>,
    facts: Vec<Arc<Facts>>,
    _dir: TempDir,
}

const LIMITS: UsageLimits = UsageLimits {
    requests: None,
    egress: None,
    ingress: Some(1_000_000),
};

impl World {
    async fn new(instances: usize, settings: &RedisSettings) -> Self {
        let dir = TempDir::new().unwrap();
        let clock = Arc::new(ManualClock::at(START_MS));
        let shared: Arc<dyn base::Clock> = Arc::<ManualClock>::clone(&clock);
        let store = Store::open(OpenOptions {
            path: dir.path().join("catalogue.db"),
            clock: Arc::clone(&shared),
            ids: Arc::new(base::Ids::seeded(Arc::clone(&shared), 1)),
            read_grace: Duration::ZERO,
        });
        let store = store.await.unwrap();
        let mut world = Self {
            store,
            clock,
            books: Vec::new(),
            facts: Vec::new(),
            _dir: dir,
        };
        for _ in 0..instances {
            world.join(settings).await;
        }
        world
    }

    /// One instance more.
    async fn join(&mut self, settings: &RedisSettings) {
        let names = ["one".parse().unwrap(), "two".parse().unwrap()];
        let rows = self.store.ensure_backends(&names).await.unwrap();
        let clock = || Arc::<ManualClock>::clone(&self.clock) as Arc<dyn base::Clock>;
        let entries = rows.into_iter().map(|row| Entry {
            id: row.id,
            name: row.name,
            usage: Usage::new(clock(), LIMITS),
        });
        let facts = Arc::<Facts>::default();
        let instance = format!("instance-{}", self.books.len());
        let sharing = Sharing::new(instance, settings, Arc::<Facts>::clone(&facts));
        let book = Book::new(
            self.store.clone(),
            clock(),
            entries.collect(),
            Some(sharing),
        );
        book.load().await.unwrap();
        self.books.push(book);
        self.facts.push(facts);
    }

    async fn share(&self, rounds: usize) {
        for _ in 0..rounds {
            for book in &self.books {
                book.share().await;
            }
        }
    }

    /// What an instance believes was spent on the first backend.
    fn spent(&self, instance: usize) -> Traffic {
        self.usage(instance).status().spent
    }

    fn usage(&self, instance: usize) -> &Arc<Usage> {
        &self.books[instance].entries()[0].usage
    }

    fn is_open(&self, instance: usize) -> bool {
        let sharing = self.books[instance].sharing.as_ref().unwrap();
        sharing.state.try_lock().unwrap().breaker.is_open()
    }

    /// Shares until the breaker of every instance is as wanted.
    async fn until_open(&self, open: bool) {
        let reached = async {
            while (0..self.books.len()).any(|instance| self.is_open(instance) != open) {
                self.share(1).await;
                // The breaker's time is real: a real server stands behind it.
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let reached = tokio::time::timeout(Duration::from_secs(60), reached).await;
        reached.expect("the breakers turn");
    }
}

impl World {
    /// Exchanges that failed so far, of all instances.
    fn failures(&self) -> usize {
        let failed = |facts: &Arc<Facts>| {
            let facts = facts.0.lock();
            let failed = facts
                .iter()
                .filter(|(what, fine)| *what != "fallback" && !fine);
            failed.count()
        };
        self.facts.iter().map(failed).sum()
    }

    /// Shares, flushes one instance, and shares again, with no exchange that fails: one that does may
    /// open a breaker for longer than all rounds take.
    async fn share_undisturbed(&self, flushed: usize) {
        loop {
            self.until_open(false).await;
            let before = self.failures();
            self.share(ROUNDS).await;
            // What nobody waited for has arrived by now, or came back: flushes queue.
            self.books[flushed].flush().await.unwrap();
            self.share(ROUNDS).await;
            if self.failures() == before {
                return;
            }
        }
    }
}

const SOME: Traffic = Traffic {
    requests: 1,
    egress: 20,
    ingress: 300,
};

#[tokio::test]
async fn each_instance_knows_what_the_others_have_not_written_yet() {
    let server = Server::start().await;
    let world = World::new(3, &server.settings()).await;
    world.usage(0).count(SOME);
    world.usage(1).count(SOME);
    world.share(ROUNDS).await;
    let twice = SOME.plus(SOME);
    assert_eq!([0, 1, 2].map(|n| world.spent(n)), [twice; 3]);
    // From memory to rows: nobody sees it twice, and nobody misses it.
    assert_eq!(world.books[0].flush().await.unwrap(), 1);
    for instance in [1, 2] {
        world.books[instance].share().await;
        assert_eq!(world.spent(instance), twice);
    }
    assert_eq!(world.books[1].flush().await.unwrap(), 1);
    world.share(1).await;
    assert_eq!([0, 1, 2].map(|n| world.spent(n)), [twice; 3]);
    let rows = world.store.usage(world.books[0].month()).await.unwrap();
    assert_eq!(rows[0].traffic, twice);
}

#[tokio::test]
async fn what_one_instance_sets_aside_binds_the_others() {
    let server = Server::start().await;
    let world = World::new(2, &server.settings()).await;
    let wanted = Traffic {
        ingress: 700_000,
        ..Traffic::requests(1)
    };
    let charge = world.usage(0).admit(wanted).expect("it fits");
    world.share(ROUNDS).await;
    assert!(!world.usage(1).fits(wanted));
    drop(charge);
    world.share(ROUNDS).await;
    assert!(world.usage(1).fits(wanted));
}

#[tokio::test]
async fn keys_have_their_names_and_expire() {
    let server = Server::start().await;
    let settings = RedisSettings {
        db: 3,
        key_prefix: "mine".to_owned(),
        ..server.settings()
    };
    let world = World::new(1, &settings).await;
    world.usage(0).count(SOME);
    world.share(1).await;
    let mut redis = server.connection().await;
    let () = redis::cmd("SELECT")
        .arg(3)
        .query_async(&mut redis)
        .await
        .unwrap();
    let keys = |mut redis: redis::aio::MultiplexedConnection| async move {
        let mut command = redis::cmd("KEYS");
        let found = command.arg("*").query_async(&mut redis).await;
        let mut keys: Vec<String> = found.unwrap();
        keys.sort();
        keys
    };
    let found = keys(redis.clone()).await;
    assert_eq!(
        found,
        [
            "mine:usage:2023-11:one:api_requests",
            "mine:usage:2023-11:one:egress_bytes",
            "mine:usage:2023-11:one:ingress_bytes",
            "mine:usage:beats",
        ]
    );
    for key in found {
        let ttl: i64 = redis::cmd("TTL")
            .arg(&key)
            .query_async(&mut redis)
            .await
            .unwrap();
        let days = ttl as f64 / 86_400.0;
        assert!((34.9..=35.0).contains(&days), "{key}: {days}");
    }
    // A clean end leaves nothing of the instance but the mark.
    world.books[0].close().await.unwrap();
    assert_eq!(keys(redis.clone()).await, ["mine:usage:beats"]);
    let left: BTreeMap<String, u64> = redis::cmd("HGETALL")
        .arg("mine:usage:beats")
        .query_async(&mut redis)
        .await
        .unwrap();
    assert_eq!(left.into_keys().collect::<Vec<_>>(), ["mark"]);
}

#[tokio::test]
async fn a_redis_that_lost_everything_is_full_again_with_the_next_exchange() {
    let mut server = Server::start().await;
    let world = World::new(2, &server.settings()).await;
    for instance in [0, 1] {
        world.usage(instance).count(SOME);
        world.books[instance].flush().await.unwrap();
        world.usage(instance).count(SOME);
    }
    world.share(ROUNDS).await;
    let all = SOME.plus(SOME).plus(SOME).plus(SOME);
    assert_eq!([world.spent(0), world.spent(1)], [all; 2]);
    server.again().await;
    world.until_open(false).await;
    world.share(ROUNDS).await;
    assert_eq!([world.spent(0), world.spent(1)], [all; 2]);
    // Somebody empties it while it runs.
    let mut redis = server.connection().await;
    let () = redis::cmd("FLUSHALL")
        .query_async(&mut redis)
        .await
        .unwrap();
    world.share(ROUNDS).await;
    assert_eq!([world.spent(0), world.spent(1)], [all; 2]);
}

#[tokio::test]
async fn an_outage_is_survived_on_local_counts_and_neither_loses_nor_doubles() {
    let mut server = Server::start().await;
    let world = World::new(2, &server.settings()).await;
    world.usage(0).count(SOME);
    world.share(ROUNDS).await;
    assert_eq!(world.spent(1), SOME);
    server.kill();
    world.until_open(true).await;
    let said = world.facts[1].0.lock().clone();
    let failures = said.iter().filter(|fact| **fact == ("pipeline_add", false));
    assert!(failures.count() >= 3);
    assert_eq!(said.last(), Some(&("fallback", true)));
    // What the other one published is not believed any more; both go on with what they know.
    assert_eq!([world.spent(0), world.spent(1)], [SOME, Traffic::NONE]);
    world.usage(1).count(SOME);
    world.books[0].flush().await.unwrap();
    world.books[1].flush().await.unwrap();
    assert_eq!(world.spent(1), SOME.plus(SOME));
    world.usage(0).count(SOME);
    server.again().await;
    world.until_open(false).await;
    world.share(ROUNDS).await;
    let all = SOME.plus(SOME).plus(SOME);
    assert_eq!([world.spent(0), world.spent(1)], [all; 2]);
    assert!(world.facts[1].0.lock().contains(&("fallback", false)));
}

#[tokio::test]
async fn what_is_left_of_an_outage_in_redis_is_not_believed() {
    let server = Server::start().await;
    let world = World::new(2, &server.settings()).await;
    world.usage(0).count(SOME);
    world.share(ROUNDS).await;
    // The first instance loses Redis, which keeps its publication, and writes it to the rows.
    let gone = RedisSettings {
        port: 1,
        ..server.settings()
    };
    let sharing = world.books[0].sharing.as_ref().unwrap();
    sharing.state.lock().await.link = Link::new(&gone);
    world.books[0].flush().await.unwrap();
    // The second one begins anew with Redis, as after an outage of its own.
    let other = world.books[1].sharing.as_ref().unwrap();
    {
        let mut state = other.state.lock().await;
        state.forget(&world.books[1]);
        state.mark = None;
    }
    for _ in 0..ROUNDS {
        world.books[1].share().await;
        assert_eq!(
            world.spent(1),
            SOME,
            "once, although Redis and the rows have it"
        );
    }
}

#[tokio::test]
async fn a_full_redis_counts_as_down_until_it_has_room() {
    let server = Server::start().await;
    let world = World::new(2, &server.settings()).await;
    let mut redis = server.connection().await;
    let config = |redis: &mut redis::aio::MultiplexedConnection, name: &str, value: &str| {
        let mut redis = redis.clone();
        let mut command = redis::cmd("CONFIG");
        command.arg("SET").arg(name).arg(value);
        async move {
            let () = command.query_async(&mut redis).await.unwrap();
        }
    };
    config(&mut redis, "maxmemory-policy", "noeviction").await;
    config(&mut redis, "maxmemory", "1").await;
    world.usage(0).count(SOME);
    world.until_open(true).await;
    assert_eq!([world.spent(0), world.spent(1)], [SOME, Traffic::NONE]);
    config(&mut redis, "maxmemory", "0").await;
    world.until_open(false).await;
    world.share(ROUNDS).await;
    assert_eq!([world.spent(0), world.spent(1)], [SOME; 2]);
}

#[tokio::test]
async fn a_password_is_given_and_a_wrong_one_counts_as_down() {
    let server = Server::with(&["--requirepass", "open sesame"]).await;
    let with = |password: &str| RedisSettings {
        password: Some(Secret::new(password.to_owned())),
        ..server.settings()
    };
    let mut world = World::new(2, &with("open sesame")).await;
    world.usage(0).count(SOME);
    world.share(ROUNDS).await;
    assert_eq!(world.spent(1), SOME);
    world.join(&with("guess")).await;
    for _ in 0..ROUNDS {
        world.books[2].share().await;
    }
    assert!(world.is_open(2));
    assert_eq!(world.spent(2), Traffic::NONE);
}

#[tokio::test]
async fn a_new_month_begins_at_zero_for_all() {
    let server = Server::start().await;
    let world = World::new(2, &server.settings()).await;
    world.usage(0).count(SOME);
    world.share(ROUNDS).await;
    world.clock.advance_ms(31 * 24 * 3600 * 1000);
    assert_eq!([world.spent(0), world.spent(1)], [Traffic::NONE; 2]);
    world.usage(1).count(SOME);
    world.share(ROUNDS).await;
    assert_eq!([world.spent(0), world.spent(1)], [SOME; 2]);
    let month = Month::of(base::Timestamp::from_millis(START_MS));
    world.books[0].flush().await.unwrap();
    assert_eq!(world.store.usage(month).await.unwrap()[0].traffic, SOME);
}

#[tokio::test]
async fn whatever_happens_all_instances_agree_with_what_was_counted() {
    let mut server = Server::start().await;
    for seed in 0..12 {
        let mut rng = StdRng::seed_from_u64(seed);
        let settings = RedisSettings {
            key_prefix: format!("seed{seed}"),
            ..server.settings()
        };
        let mut world = World::new(3, &settings).await;
        let mut counted = Traffic::NONE;
        for _ in 0..150 {
            let instance = rng.random_range(0..world.books.len());
            let book = &world.books[instance];
            match rng.random_range(0..40) {
                0..16 => {
                    let traffic = Traffic {
                        requests: 1,
                        egress: rng.random_range(0..100),
                        ingress: rng.random_range(0..100),
                    };
                    world.usage(instance).count(traffic);
                    counted = counted.plus(traffic);
                }
                16..26 => book.share().await,
                26..34 => drop(book.flush().await.unwrap()),
                // A caller that does not wait for the end.
                34..36 => {
                    let brief = Duration::from_micros(rng.random_range(0..800));
                    drop(tokio::time::timeout(brief, book.flush()).await);
                }
                36 => server.again().await,
                37 if world.books.len() < 5 => world.join(&settings).await,
                _ => {
                    world.share_undisturbed(instance).await;
                    let all: Vec<_> = (0..world.books.len()).map(|n| world.spent(n)).collect();
                    assert_eq!(all, vec![counted; all.len()], "seed {seed}");
                }
            }
        }
        for book in &world.books {
            book.close().await.unwrap();
        }
        let rows = world.store.usage(world.books[0].month()).await.unwrap();
        assert_eq!(rows[0].traffic, counted, "seed {seed}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_beat_counts_from_when_it_moves_until_it_stands_still() {
    let mut state = State {
        link: Link::new(&RedisSettings {
            host: String::new(),
            port: 1,
            password: None,
            db: 0,
            tls: false,
            key_prefix: String::new(),
            failure_threshold: 3,
            open_timeout: SILENT_MAX,
        }),
        breaker: Breaker::new(3, SILENT_MAX),
        told: 0,
        mark: None,
        beat: 0,
        beats: BTreeMap::new(),
    };
    let heard = |beats: &[(&str, u64)]| Heard {
        counts: Vec::new(),
        beats: beats
            .iter()
            .map(|(name, beat)| ((*name).to_owned(), *beat))
            .collect(),
        mark: 0,
    };
    let begun = Instant::now();
    let alive = |state: &mut State, beats: &[(&str, u64)], at: u64| {
        state.alive(&heard(beats), "me", begun + Duration::from_secs(at))
    };
    assert_eq!(
        alive(&mut state, &[("me", 1), ("a", 7), ("b", 7)], 0),
        [""; 0]
    );
    assert_eq!(
        alive(&mut state, &[("me", 2), ("a", 8), ("b", 7)], 1),
        ["a"]
    );
    assert_eq!(alive(&mut state, &[("a", 8), ("b", 8)], 6), ["a", "b"]);
    assert_eq!(alive(&mut state, &[("a", 8), ("b", 8)], 7), ["b"]);
    // A Redis that lost everything gives lower numbers.
    assert_eq!(alive(&mut state, &[("a", 1), ("b", 8)], 12), ["a"]);
    assert_eq!(alive(&mut state, &[("a", 2)], 13), ["a"]);
    assert_eq!(alive(&mut state, &[("a", 2), ("b", 8)], 13), ["a"]);
}
