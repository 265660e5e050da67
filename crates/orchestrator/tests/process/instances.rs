//! Several processes over one PostgreSQL: what one was told the others know, whatever dies.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use backend::{BackendKey, DeleteTarget, Kind, ObjectBackend as _, Payload, PutMeta, S3Backend};
use bytes::Bytes;
use futures_util::StreamExt as _;
use parking_lot::Mutex;
use rustix::process::Signal;
use testbed::linear::{Event, Op, linearizable};
use testbed::{Durability, Postgres};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::support::home::Home;
use crate::support::raw;
use crate::support::redis::Redis;

const KEYS: usize = 12;
/// Clients of each key, each at another instance at a time.
const CLIENTS_PER_KEY: u64 = 3;
/// What each of them is to succeed with.
const SUCCESSES: u64 = 50;
/// A try of a client; a paused process answers nothing.
const PATIENCE: Duration = Duration::from_secs(3);
/// Failures in a row before a client, and the test, give up.
const FAILURES_MAX: u32 = 100;
/// After a failure.
const PAUSE: Duration = Duration::from_millis(200);

fn key(name: &str) -> BackendKey {
    BackendKey::new(name).unwrap()
}

async fn put(client: &S3Backend, name: &str, body: &Bytes) -> bool {
    let payload = Payload::from_bytes(body.clone());
    let (key, meta) = (key(name), PutMeta::default());
    let put = client.put(&key, &meta, payload);
    matches!(timeout(PATIENCE, put).await, Ok(Ok(_)))
}

async fn delete(client: &S3Backend, name: &str) -> bool {
    let targets = [DeleteTarget {
        key: key(name),
        version: None,
    }];
    let delete = client.delete(&targets);
    matches!(timeout(PATIENCE, delete).await, Ok(results) if results.iter().all(Result::is_ok))
}

/// The body; `Ok(None)` where there is none; an error where nobody answered.
async fn get(client: &S3Backend, name: &str) -> Result<Option<Bytes>, ()> {
    let read = async {
        let fetched = match client.get(&key(name), None, None).await {
            Ok(fetched) => fetched,
            Err(error) if error.kind == Kind::NotFound => return Ok(None),
            Err(_) => return Err(()),
        };
        let mut body = fetched.body;
        let mut whole = Vec::new();
        while let Some(piece) = body.next().await {
            whole.extend_from_slice(&piece.map_err(drop)?);
        }
        Ok(Some(Bytes::from(whole)))
    };
    timeout(PATIENCE, read).await.unwrap_or(Err(()))
}

fn content(name: &str, n: u64) -> Bytes {
    let line = format!("{name} {n}\n");
    let repeats = 1 + usize::try_from(n % 7).unwrap() * 300;
    Bytes::from(line.repeat(repeats))
}

fn number(name: &str, body: &Bytes) -> u64 {
    let text = std::str::from_utf8(body).unwrap();
    let line = text.lines().next().unwrap();
    let n = line
        .strip_prefix(&format!("{name} "))
        .unwrap()
        .parse()
        .unwrap();
    assert_eq!(*body, content(name, n), "a body is whole");
    n
}

/// One key, and what all of its clients saw.
struct Subject {
    name: String,
    /// One clock for all: real time, as far as its order goes.
    clock: Arc<AtomicU64>,
    history: Mutex<Vec<Event>>,
}

impl Subject {
    fn tick(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::SeqCst)
    }

    /// Does something by a client, and remembers it; whether it succeeded.
    async fn act(&self, client: &S3Backend, op: Op) -> bool {
        let begun = self.tick();
        let done = match op {
            Op::Write(n) => put(client, &self.name, &content(&self.name, n))
                .await
                .then_some(op),
            Op::Delete => delete(client, &self.name).await.then_some(op),
            Op::Read(_) => {
                let found = get(client, &self.name).await.ok();
                found.map(|found| Op::Read(found.map(|body| number(&self.name, &body))))
            }
        };
        let ended = self.tick();
        self.history.lock().push(Event {
            op: done.unwrap_or(op),
            begun,
            ended: done.map(|_| ended),
        });
        done.is_some()
    }

    /// One client of the key: half reads, and a delete now and then.
    async fn drive(&self, mine: u64, clients: Vec<Arc<S3Backend>>, progress: Arc<AtomicU64>) {
        let (mut successes, mut failures) = (0, 0);
        for turn in 0.. {
            if successes == SUCCESSES {
                return;
            }
            // Another instance each time, and another mixture for each client.
            let instance = usize::try_from(turn + mine).unwrap() % clients.len();
            let op = match (turn * 7 + mine * 3) % 10 {
                0 => Op::Delete,
                1..=4 => Op::Write(turn * CLIENTS_PER_KEY + mine),
                _ => Op::Read(None),
            };
            if self.act(&clients[instance], op).await {
                (successes, failures) = (successes + 1, 0);
                progress.fetch_add(1, Ordering::SeqCst);
            } else {
                failures += 1;
                assert!(failures < FAILURES_MAX, "{}: nobody answers", self.name);
                sleep(PAUSE).await;
            }
        }
    }
}

async fn reached(progress: &AtomicU64, share: f64) {
    let all = (KEYS as u64 * CLIENTS_PER_KEY * SUCCESSES) as f64;
    while (progress.load(Ordering::SeqCst) as f64) < all * share {
        sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn instances_die_sleep_and_lose_their_database_and_nothing_acknowledged_is_lost() {
    let mut postgres = Postgres::start(Durability::Durable);
    let mut redis = Redis::start().await;
    let mut home = Home::shared(&["one", "two"], postgres.database());
    home.extra = format!(
        "cleanup_queue: {{read_grace: 1s}}\nredis: {{address: '127.0.0.1:{}', open_timeout: 100ms}}\n",
        redis.port
    );
    let mut servers = Vec::new();
    for _ in 0..3 {
        servers.push(home.serve().await);
    }
    let clients: Vec<_> = servers
        .iter()
        .map(|server| Arc::new(server.client()))
        .collect();
    let progress = Arc::new(AtomicU64::new(0));
    let clock = Arc::new(AtomicU64::new(0));
    let subjects: Vec<_> = (0..KEYS)
        .map(|n| {
            Arc::new(Subject {
                name: format!("k{n}"),
                clock: Arc::clone(&clock),
                history: Mutex::default(),
            })
        })
        .collect();
    let mut running = JoinSet::new();
    for subject in &subjects {
        for mine in 0..CLIENTS_PER_KEY {
            let (subject, clients) = (Arc::clone(subject), clients.clone());
            let progress = Arc::clone(&progress);
            running.spawn(async move { subject.drive(mine, clients, progress).await });
        }
    }

    reached(&progress, 0.2).await;
    servers.remove(0).signal(Signal::KILL);
    reached(&progress, 0.35).await;
    // For longer than its lease.
    servers[0].signal(Signal::STOP);
    sleep(Duration::from_secs(5)).await;
    servers[0].signal(Signal::CONT);
    reached(&progress, 0.5).await;
    let again = move || {
        postgres.kill();
        postgres.again();
        postgres
    };
    let _postgres = tokio::task::spawn_blocking(again).await.unwrap();
    reached(&progress, 0.65).await;
    redis.kill().await;
    reached(&progress, 0.8).await;
    redis.again().await;
    while let Some(ended) = running.join_next().await {
        ended.unwrap();
    }

    // The dead are buried, and what they may have left was looked for once.
    let database = home.postgres.as_ref().unwrap();
    let waiting = "SELECT (SELECT count(*) FROM write_intents)
        + (SELECT count(*) FROM cleanup_queue WHERE NOT first_pass)";
    let looked = async || database.run(waiting) == "0";
    servers[1].until("the first look", looked).await;
    // Nothing acknowledged is lost, and whoever reads last agrees.
    let mut there = 0;
    for subject in &subjects {
        for client in &clients[1..] {
            assert!(subject.act(client, Op::Read(None)).await);
        }
        let history = subject.history.lock();
        assert!(linearizable(&history), "{}: {history:#?}", subject.name);
        let last = history.last().unwrap();
        there += usize::from(last.op != Op::Read(None));
    }
    // What a process that slept may still have written under a key that was given up is looked for
    // once more an hour later. Then everything is settled, and the sums are exact.
    database.run("UPDATE cleanup_queue SET not_before = not_before - 3600000");
    servers[1].settled(&home, there).await;
    for server in servers {
        server.stop().await;
    }
    home.verify().await;
    home.nothing_unknown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_and_background_work_may_run_in_processes_of_their_own() {
    let mut home = Home::shared(&["one"], Postgres::shared().database());
    home.extra.push_str("cleanup_queue:\n  read_grace: 1s\n");
    let api = home.serve_mode("api").await;
    let worker = home.serve_mode("worker").await;
    let client = api.client();
    for n in 0..4 {
        assert!(put(&client, "k", &content("k", n)).await);
    }
    // What was displaced is deleted by the worker; nobody else would.
    worker.settled(&home, 1).await;
    let found = get(&client, "k").await.unwrap().unwrap();
    assert_eq!(number("k", &found), 3);
    let health = raw::plain_get(worker.addr, "/health").await;
    assert_eq!(health.status, 200);
    let object = raw::plain_get(worker.addr, "/bucket/k").await;
    assert_eq!(object.status, 404);
    api.stop().await;
    worker.stop().await;
    home.verify().await;
}
