//! Several processes over one PostgreSQL: what one was told the others know, whatever dies.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use backend::{BackendKey, Kind, ObjectBackend as _, Payload, PutMeta, S3Backend};
use bytes::Bytes;
use futures_util::StreamExt as _;
use rustix::process::Signal;
use testbed::{Durability, Postgres};
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::support::home::Home;
use crate::support::raw;

const KEYS: usize = 12;
/// Writes of each key before, while, and after things go wrong.
const WRITES_PER_KEY: u64 = 40;
/// A try of a client; a paused process answers nothing.
const PATIENCE: Duration = Duration::from_secs(3);
/// Of a client whose every try fails, before the test does.
const TRIES_MAX: u32 = 60;
/// Between two tries.
const PAUSE: Duration = Duration::from_millis(200);

fn key(name: &str) -> BackendKey {
    BackendKey::new(name).unwrap()
}

async fn put(client: &S3Backend, name: &str, body: &Bytes) -> bool {
    let payload = Payload::from_bytes(body.clone());
    let (key, meta) = (key(name), PutMeta::default());
    let put = client.put(&key, &meta, payload);
    matches!(tokio::time::timeout(PATIENCE, put).await, Ok(Ok(_)))
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
    tokio::time::timeout(PATIENCE, read)
        .await
        .unwrap_or(Err(()))
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

/// One key's client: writes ever higher numbers by one instance, and reads them by another. What was
/// acknowledged is never unread again; what failed may have happened, and then it did whole.
async fn drive(name: String, clients: Vec<Arc<S3Backend>>, progress: Arc<AtomicU64>) {
    let mut tried = 0;
    for round in 0..WRITES_PER_KEY {
        let turn = usize::try_from(round).unwrap();
        let mut tries = 0;
        let acknowledged = loop {
            tried += 1;
            let client = &clients[(turn + tries as usize) % clients.len()];
            if put(client, &name, &content(&name, tried)).await {
                break tried;
            }
            tries += 1;
            assert!(tries < TRIES_MAX, "{name}: nobody takes a write");
            sleep(PAUSE).await;
        };
        let mut tries = 0;
        loop {
            let client = &clients[(turn + 1 + tries as usize) % clients.len()];
            match get(client, &name).await {
                Ok(found) => {
                    let found = found.expect("it was acknowledged");
                    let n = number(&name, &found);
                    assert!(
                        (acknowledged..=tried).contains(&n),
                        "{name}: {n} is read after {acknowledged}"
                    );
                    break;
                }
                Err(()) => {
                    tries += 1;
                    assert!(tries < TRIES_MAX, "{name}: nobody answers a read");
                    sleep(PAUSE).await;
                }
            }
        }
        progress.fetch_add(1, Ordering::SeqCst);
    }
}

async fn reached(progress: &AtomicU64, share: f64) {
    let all = (KEYS as u64 * WRITES_PER_KEY) as f64;
    while (progress.load(Ordering::SeqCst) as f64) < all * share {
        sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn instances_die_sleep_and_lose_their_database_and_nothing_acknowledged_is_lost() {
    let mut postgres = Postgres::start(Durability::Durable);
    let mut home = Home::shared(&["one", "two"], postgres.database());
    home.extra.push_str("cleanup_queue:\n  read_grace: 1s\n");
    let mut servers = Vec::new();
    for _ in 0..3 {
        servers.push(home.serve().await);
    }
    let clients: Vec<_> = servers
        .iter()
        .map(|server| Arc::new(server.client()))
        .collect();
    let progress = Arc::new(AtomicU64::new(0));
    let mut keys = JoinSet::new();
    for n in 0..KEYS {
        keys.spawn(drive(
            format!("k{n}"),
            clients.clone(),
            Arc::clone(&progress),
        ));
    }

    reached(&progress, 0.2).await;
    let killed = servers.remove(0);
    killed.signal(Signal::KILL);
    reached(&progress, 0.4).await;
    // For longer than its lease.
    servers[0].signal(Signal::STOP);
    sleep(Duration::from_secs(5)).await;
    servers[0].signal(Signal::CONT);
    reached(&progress, 0.6).await;
    let restarted = Arc::new(AtomicBool::new(false));
    let done = Arc::clone(&restarted);
    let postgres = tokio::task::spawn_blocking(move || {
        postgres.kill();
        postgres.again();
        done.store(true, Ordering::SeqCst);
        postgres
    });
    let postgres = postgres.await.unwrap();
    assert!(restarted.load(Ordering::SeqCst));
    while let Some(ended) = keys.join_next().await {
        ended.unwrap();
    }

    // The dead are buried, everything is settled, and the sums are exact. What a process that slept may
    // still have written under a key that was given up is looked for once more an hour later.
    let database = home.postgres.as_ref().unwrap();
    let waiting = "SELECT (SELECT count(*) FROM write_intents)
        + (SELECT count(*) FROM cleanup_queue WHERE NOT first_pass)";
    let looked = async || database.run(waiting) == "0";
    servers[1]
        .until("the first look at what was given up", looked)
        .await;
    database.run("UPDATE cleanup_queue SET not_before = not_before - 3600000");
    servers[1].settled(&home, KEYS).await;
    for server in servers {
        server.stop().await;
    }
    home.verify().await;
    home.nothing_unknown().await;
    drop(postgres);
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
