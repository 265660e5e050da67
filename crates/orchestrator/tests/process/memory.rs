//! Memory does not depend on the size of objects: 64 transfers at a time, uploads, downloads and
//! both, stay below 128 MiB of anonymous memory.
//!
//! The backends are `s3` backends on a sink that discards and generates. All 64 transfers are held in
//! the sink at the same moment, beyond the replay window, while the memory is read; besides, it is
//! read all the time by polling. A plain run sends 64 x 12 MiB three times; `S3O_MEMORY_FULL=1`
//! sends 64 x 256 MiB.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use backend::{BackendKey, ObjectBackend as _, PutMeta, S3Backend};
use futures_util::future::join_all;
use rustix::process::Pid;
use testbed::gate::Gate;
use testbed::sink::Sink;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::support::content::{Content, ContentExt as _};
use crate::support::home::{Home, s3_backend};

const TRANSFERS: usize = 64;
/// Of one object in a plain run, in bytes.
const OBJECT_BYTES: u64 = 12 << 20;
/// Of one object with `S3O_MEMORY_FULL`, in bytes.
const OBJECT_BYTES_FULL: u64 = 256 << 20;
/// Where the sink holds a body: far behind the replay window of 1 MiB.
const HELD_AT_BYTES: u64 = 6 << 20;
/// The promise, in bytes.
const ANONYMOUS_BYTES_MAX: u64 = 128 << 20;
/// Between two looks at the memory.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// How long one phase may take.
const PHASE_MAX: Duration = Duration::from_secs(600);

#[expect(
    clippy::disallowed_methods,
    reason = "how long a test runs is no setting of the program"
)]
fn object_bytes() -> u64 {
    match std::env::var("S3O_MEMORY_FULL") {
        Ok(_) => OBJECT_BYTES_FULL,
        Err(_) => OBJECT_BYTES,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sixty_four_large_transfers_at_a_time_stay_below_128_mib() {
    let sinks = [Sink::start().await, Sink::start().await];
    let mut home = Home::new();
    home.backends = (1..)
        .zip(&sinks)
        .map(|(number, sink)| {
            s3_backend(&format!("sink-{number}"), &sink.endpoint())
                .with("quota_bytes: 1TiB")
                .with("http:\n    body_idle_timeout: 10m")
        })
        .collect();
    home.extra = "routing_strategy: spread\n".to_owned();
    let server = home.serve().await;
    let bytes = object_bytes();
    let test = Transfers {
        sinks: &sinks,
        client: Arc::new(server.client()),
        pid: server.pid(),
        bytes,
    };
    let first: Vec<_> = (0..TRANSFERS)
        .map(|n| Transfer::Up(format!("first/{n}")))
        .collect();
    test.run("uploads", &first).await;
    let down: Vec<_> = (0..TRANSFERS)
        .map(|n| Transfer::Down(format!("first/{n}")))
        .collect();
    test.run("downloads", &down).await;
    let mixed: Vec<_> = (0..TRANSFERS)
        .map(|n| match n % 2 {
            0 => Transfer::Up(format!("second/{n}")),
            _ => Transfer::Down(format!("first/{n}")),
        })
        .collect();
    test.run("mixed", &mixed).await;
    for sink in &sinks {
        assert!(sink.large_objects() > 0, "both backends have their share");
    }
    server.stop().await;
}

enum Transfer {
    Up(String),
    Down(String),
}

struct Transfers<'a> {
    sinks: &'a [Sink],
    client: Arc<S3Backend>,
    pid: Pid,
    bytes: u64,
}

impl Transfers<'_> {
    /// Runs all transfers at once and looks at the memory meanwhile.
    async fn run(&self, phase: &str, transfers: &[Transfer]) {
        let gate = Gate::new(transfers.len(), HELD_AT_BYTES);
        self.sinks.iter().for_each(|sink| sink.set_gate(&gate));
        let watch = Watch::begin(self.pid);
        let all: Vec<JoinHandle<()>> = transfers
            .iter()
            .map(|transfer| self.begin(transfer))
            .collect();
        let work = async {
            gate.all_here().await;
            let held = anonymous_bytes(self.pid);
            gate.release().await;
            for ended in join_all(all).await {
                ended.unwrap();
            }
            held
        };
        let held = timeout(PHASE_MAX, work).await;
        let held = held.unwrap_or_else(|_| panic!("{phase}: not all transfers are under way"));
        let peak = watch.end().await.max(held);
        println!(
            "{phase}: {} transfers of {} MiB, {} MiB while all are held, {} MiB at most",
            transfers.len(),
            self.bytes >> 20,
            held >> 20,
            peak >> 20
        );
        assert!(
            peak < ANONYMOUS_BYTES_MAX,
            "{phase}: {peak} bytes of anonymous memory"
        );
    }

    fn begin(&self, transfer: &Transfer) -> JoinHandle<()> {
        let client = Arc::clone(&self.client);
        let place = |name: &str| {
            let content = Content::one_of_few(name, self.bytes);
            (BackendKey::new(name).unwrap(), content)
        };
        match transfer {
            Transfer::Up(name) => {
                let (key, content) = place(name);
                tokio::spawn(async move {
                    let meta = PutMeta::default();
                    let put = client.put(&key, &meta, content.streamed());
                    put.await
                        .unwrap_or_else(|error| panic!("{key}: {}", base::report(&error)));
                })
            }
            Transfer::Down(name) => {
                let (key, content) = place(name);
                tokio::spawn(async move {
                    let fetched = client.get(&key, None, None).await.unwrap();
                    content.check(fetched.body).await.unwrap();
                })
            }
        }
    }
}

/// Looks at the memory of a process again and again.
struct Watch {
    done: Arc<AtomicBool>,
    peak: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

impl Watch {
    fn begin(pid: Pid) -> Self {
        let (done, peak) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicU64::new(0)),
        );
        let (stop, most) = (Arc::clone(&done), Arc::clone(&peak));
        let task = tokio::spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                most.fetch_max(anonymous_bytes(pid), Ordering::Relaxed);
                sleep(LOOK_EVERY).await;
            }
        });
        Self { done, peak, task }
    }

    async fn end(self) -> u64 {
        self.done.store(true, Ordering::Relaxed);
        self.task.await.unwrap();
        self.peak.load(Ordering::Relaxed)
    }
}

/// `RssAnon` of a process.
fn anonymous_bytes(pid: Pid) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", pid.as_raw_nonzero())).unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"))
        .unwrap();
    let kib: u64 = line.trim().trim_end_matches(" kB").parse().unwrap();
    kib << 10
}
