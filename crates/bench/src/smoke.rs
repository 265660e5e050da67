//! What must hold whatever the time says: bytes, errors, calls, allocations, memory.
//!
//! The program runs with an allocator that counts; the backend is in this process, so that its requests
//! can be counted. Bounds are a tenth above what was measured when they were set: what exceeds one does
//! more for each request than it did.

use std::io::{BufRead as _, BufReader, Lines, Write as _};
use std::path::{Path, PathBuf};
use std::process::{ChildStderr, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use testbed::sink::Sink;
use testbed::{Database, Durability, Postgres};

use crate::contenders::{Catalogue, Program, command, s3_backend};
use crate::load::{Load, Pace, Until, fire};
use crate::processes::Processes;
use crate::s3::drained;
use crate::target::{Cover, Shot, Target};
use crate::workloads::{KIB, MIB, multipart};

const REQUESTS: u64 = 1_500;
const CONNECTIONS: usize = 16;
/// Anonymous memory with 64 large transfers under way.
const ANONYMOUS_BYTES_MAX: u64 = 128 * MIB;
const TRANSFERS: u64 = 64;
const LARGE_BYTES: u64 = 16 * MIB;
/// Of the backend's requests, those that are nobody's: markers, probes, looks at its health.
const NOISE: u64 = 40;
/// How long the statistics of PostgreSQL may lag behind.
const STATISTICS_MAX: Duration = Duration::from_secs(30);

/// A kind of request, and what one of them may take.
struct Bound {
    name: &'static str,
    /// Requests to the backend.
    calls: f64,
    /// Transactions of the database, where several instances may share it.
    transactions: f64,
    /// Allocations of the program.
    allocations: f64,
}

const BOUNDS: [Bound; 5] = [
    Bound {
        name: "PUT",
        calls: 1.0,
        transactions: 2.2,
        allocations: 161.0,
    },
    Bound {
        name: "GET",
        calls: 1.0,
        transactions: 1.1,
        allocations: 101.0,
    },
    Bound {
        name: "HEAD",
        calls: 0.0,
        transactions: 1.1,
        allocations: 41.0,
    },
    Bound {
        name: "LIST",
        calls: 0.0,
        transactions: 1.1,
        allocations: 840.0,
    },
    Bound {
        name: "DELETE",
        calls: 0.1,
        transactions: 1.1,
        allocations: 68.0,
    },
];

/// How often the program allocated.
struct Allocations {
    ask: ChildStdin,
    answers: Lines<BufReader<ChildStderr>>,
}

impl Allocations {
    fn of(program: &mut Program) -> Result<Self> {
        let (ask, answers) = program.running.pipes().context("the program has pipes")?;
        Ok(Self {
            ask,
            answers: BufReader::new(answers).lines(),
        })
    }

    fn count(&mut self) -> Result<u64> {
        self.ask.write_all(b"\n")?;
        let line = self.answers.next().context("the program is gone")??;
        line.trim().parse().with_context(|| line.clone())
    }
}

/// The program with the pipes through which it tells how often it allocated.
fn counted(program: &Path) -> Command {
    let mut command = command(program);
    command.stdin(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Whether anything exceeded its bound is told at the end, with all of it.
#[derive(Default)]
struct Verdicts {
    exceeded: Vec<String>,
}

impl Verdicts {
    fn compare(&mut self, what: &str, measured: f64, most: f64) {
        let holds = measured <= most;
        let mark = if holds { "" } else { "   EXCEEDED" };
        println!("{what:<44} {measured:>9.1} of {most:>9.1}{mark}");
        if !holds {
            self.exceeded.push(what.to_owned());
        }
    }
}

fn once(connections: usize) -> Load {
    Load {
        connections,
        pace: Pace::Closed,
        until: Until::Once,
    }
}

fn shots(target: &Target, name: &str) -> Result<Arc<[Shot]>> {
    let key = |n: u64| format!("smoke-{n}");
    let shot = |n: u64| match name {
        "PUT" => target.put(&key(n), 4 * KIB, Cover::Nothing),
        "GET" => target.get(&key(n), 4 * KIB),
        "HEAD" => target.head_object(&key(n), 4 * KIB),
        "LIST" => target.list(&format!("list-type=2&max-keys=100&start-after=smoke-{n}")),
        _ => target.delete(&key(n)),
    };
    (0..REQUESTS).map(shot).collect()
}

/// Fails where something exceeds its bound, or answers with anything but what was asked for.
pub(crate) async fn run(program: PathBuf) -> Result<()> {
    let folder = tempfile::tempdir_in(".").context("making a folder on this disk")?;
    let mut verdicts = Verdicts::default();
    let sink = Sink::start().await;
    let mut on_file = Program::start(
        counted(&program),
        &folder.path().join("sqlite"),
        &Catalogue::File,
        &s3_backend(sink.addr),
        None,
    )?;
    let mut allocations = Allocations::of(&mut on_file)?;
    let target = on_file.target("the program on SQLite")?;
    // What is allocated once is not counted.
    for bound in &BOUNDS {
        fire(&target, shots(&target, bound.name)?, once(CONNECTIONS)).await?;
    }
    drained(&target).await?;
    for bound in &BOUNDS {
        let (calls, allocated) = (sink.requests(), allocations.count()?);
        fire(&target, shots(&target, bound.name)?, once(CONNECTIONS)).await?;
        if bound.name == "DELETE" {
            drained(&target).await?;
        }
        let calls = (sink.requests() - calls).saturating_sub(NOISE);
        let allocated = allocations.count()? - allocated;
        let per_request = |count: u64| count as f64 / REQUESTS as f64;
        let what = |kind: &str| format!("{} 4 KiB: {kind}", bound.name);
        verdicts.compare(
            &what("calls to the backend"),
            per_request(calls),
            bound.calls,
        );
        verdicts.compare(
            &what("allocations"),
            per_request(allocated),
            bound.allocations,
        );
    }
    large(&mut verdicts, &target, &on_file, &sink).await?;
    on_file.running.stop()?;
    on_postgres(&mut verdicts, &program, folder.path().join("postgres")).await?;
    if !verdicts.exceeded.is_empty() {
        bail!("more than it may take: {}", verdicts.exceeded.join("; "));
    }
    Ok(())
}

/// Memory does not grow with bodies, and an upload in parts is completed with one call.
async fn large(
    verdicts: &mut Verdicts,
    target: &Target,
    program: &Program,
    sink: &Sink,
) -> Result<()> {
    let key = |n: u64| format!("large-{n}");
    let watch = Processes::new(&[program.running.pid()]).watch();
    let puts: Vec<Shot> = (0..TRANSFERS)
        .map(|n| target.put(&key(n), LARGE_BYTES, Cover::Nothing))
        .collect::<Result<_>>()?;
    let gets: Vec<Shot> = (0..TRANSFERS)
        .map(|n| target.get(&key(n), LARGE_BYTES))
        .collect::<Result<_>>()?;
    let connections = usize::try_from(TRANSFERS)?;
    fire(target, puts.into(), once(connections)).await?;
    fire(target, gets.into(), once(connections)).await?;
    let highest = watch.highest() as f64 / MIB as f64;
    let most = ANONYMOUS_BYTES_MAX as f64 / MIB as f64;
    verdicts.compare("64 transfers of 16 MiB: MiB of memory", highest, most);
    let before = sink.requests();
    let parts = 8;
    multipart(target, "parts", parts, LARGE_BYTES).await?;
    let calls = (sink.requests() - before).saturating_sub(parts) as f64;
    verdicts.compare("8 parts: calls to begin and to complete", calls, 3.0);
    Ok(())
}

async fn on_postgres(verdicts: &mut Verdicts, program: &Path, folder: PathBuf) -> Result<()> {
    let sink = Sink::start().await;
    let server = Postgres::start(Durability::Durable);
    let database = server.database();
    let program = Program::start(
        counted(program),
        &folder,
        &Catalogue::Postgres(&database),
        &s3_backend(sink.addr),
        None,
    )?;
    let target = program.target("the program on PostgreSQL")?;
    for bound in &BOUNDS {
        let before = transactions(&database).await?;
        let begun = Instant::now();
        fire(&target, shots(&target, bound.name)?, once(CONNECTIONS)).await?;
        if bound.name == "DELETE" {
            drained(&target).await?;
        }
        let after = transactions(&database).await?;
        // Looks at the other instances, signs of life, and these looks.
        let own = 8 * (begun.elapsed().as_secs() + 2);
        let measured = (after - before).saturating_sub(own) as f64 / REQUESTS as f64;
        let what = format!("{} 4 KiB: transactions", bound.name);
        verdicts.compare(&what, measured, bound.transactions);
    }
    program.running.stop()
}

/// Transactions of a database so far, once its sessions have told of them.
async fn transactions(database: &Database) -> Result<u64> {
    let deadline = Instant::now() + STATISTICS_MAX;
    let (mut before, mut quiet) = (0, 0);
    loop {
        let now = database.transactions();
        // A few come by themselves.
        quiet = if now < before + 20 { quiet + 1 } else { 0 };
        if quiet == 2 {
            return Ok(now);
        }
        if Instant::now() > deadline {
            bail!("the statistics of PostgreSQL do not settle");
        }
        before = now;
        // Idle sessions tell of themselves once a second.
        tokio::time::sleep(Duration::from_millis(1_200)).await;
    }
}
