//! The program side by side with its backend alone and with nginx in front of the same backend.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::catalogue::Alone;
use crate::contenders::Contender;
use crate::figures::{Figure, rounded, table};
use crate::load::{Connection, Pace};
use crate::machine;
use crate::processes::Processes;
use crate::stand::{On, Stand};
use crate::target::{Cover, Target, Wanted};
use crate::workloads::{Field, GIB, KIB, MIB, Work, Workload, acquaint, measure, prepare};
use crate::{Effort, goals, list};

/// How long deletions may go on after their answers.
const DRAINED_MAX: Duration = Duration::from_secs(300);

/// What is compared beside what is always compared.
#[derive(Debug, Default)]
pub(crate) struct Options {
    /// The program for release.
    pub(crate) program: PathBuf,
    /// Other endpoints.
    pub(crate) against: Vec<String>,
    /// Ten million keys to list, too.
    pub(crate) full: bool,
    /// Only workloads whose name contains this.
    pub(crate) only: Option<String>,
    /// An older build of the program, which it is measured against instead of all others.
    pub(crate) baseline: Option<PathBuf>,
    /// Where the catalogues lie that are compared with those of that one.
    pub(crate) on: On,
}

/// What was measured of one workload at one contender.
#[derive(Debug, Default)]
pub(crate) struct Cell {
    /// Requests a second.
    pub(crate) rate: Figure,
    /// Megabytes a second.
    pub(crate) throughput: Figure,
    /// Microseconds.
    pub(crate) p50: Figure,
    pub(crate) p99: Figure,
    /// Microseconds of CPU per request, or milliseconds per gigabyte, of each process in between.
    pub(crate) cpu: Vec<Figure>,
    /// The same of the backend.
    pub(crate) backend_cpu: Figure,
    /// The highest anonymous memory of the processes in between, in bytes.
    pub(crate) memory: u64,
}

impl Cell {
    /// CPU of everything in between.
    pub(crate) fn cpu_median(&self) -> f64 {
        self.cpu.iter().map(Figure::median).sum()
    }
}

/// By place of the workload and of the contender.
pub(crate) type Cells = BTreeMap<(usize, usize), Cell>;

/// The places of the contenders that goals are about.
pub(crate) const DIRECT: usize = 0;
pub(crate) const NGINX: usize = 1;
pub(crate) const SQLITE: usize = 2;

pub(crate) fn workloads() -> Vec<Workload> {
    let closed = |work, connections| Workload {
        field: Field::Plain,
        work,
        connections,
        pace: Pace::Closed,
    };
    let mut all = vec![closed(Work::Get(4 * KIB), 1)];
    for size in [4 * KIB, 256 * KIB] {
        for connections in [16, 128] {
            all.extend([
                closed(Work::Get(size), connections),
                closed(Work::Head(size), connections),
                closed(Work::Put(size, Cover::Nothing), connections),
                closed(Work::Delete(size), connections),
            ]);
        }
    }
    all.extend([
        closed(Work::Put(4 * KIB, Cover::Trailer), 128),
        closed(Work::Put(256 * KIB, Cover::Trailer), 16),
        closed(Work::Mixed(4 * KIB), 128),
        Workload {
            pace: Pace::Open(2_000),
            ..closed(Work::Get(4 * KIB), 128)
        },
        closed(
            Work::Range {
                size: 64 * MIB,
                bytes: 64 * KIB,
            },
            16,
        ),
        closed(Work::Get(64 * MIB), 8),
        closed(Work::Put(64 * MIB, Cover::Nothing), 8),
        closed(Work::Multipart, 8),
        closed(Work::Get(GIB), 64),
        closed(Work::Put(GIB, Cover::Nothing), 64),
    ]);
    let [get, put] = [Work::Get, |size| Work::Put(size, Cover::Nothing)];
    let elsewhere = [
        (Field::Tls, get(4 * KIB), 128),
        (Field::Tls, put(4 * KIB), 128),
        (Field::Tls, Work::Put(4 * KIB, Cover::Trailer), 128),
        (Field::Tls, get(64 * MIB), 8),
        (Field::Tls, put(64 * MIB), 8),
        (Field::WebDav, get(4 * KIB), 128),
        (Field::WebDav, put(4 * KIB), 128),
        (Field::WebDav, get(64 * MIB), 8),
    ];
    all.extend(elsewhere.map(|(field, work, connections)| Workload {
        field,
        ..closed(work, connections)
    }));
    all
}

/// Measures everything, and prints goals and tables.
pub(crate) async fn run(effort: Effort, options: Options) -> Result<()> {
    let folder = tempfile::tempdir_in(".").context("making a folder on this disk")?;
    // nginx reads paths from where its configuration lies.
    let home = folder.path().canonicalize()?;
    let workloads: Vec<Workload> = workloads()
        .into_iter()
        .filter(|workload| match &options.only {
            Some(part) => workload.name().contains(part.as_str()),
            None => true,
        })
        .collect();
    let lists = options
        .only
        .as_ref()
        .is_none_or(|part| "LIST".contains(part.as_str()));
    if workloads.is_empty() && !lists {
        bail!("no workload has a name like {:?}", options.only);
    }
    let mut stands = Vec::new();
    for field in [Field::Plain, Field::Tls, Field::WebDav] {
        let mut its = workloads.clone();
        its.retain(|workload| workload.field == field);
        if its.is_empty() {
            continue;
        }
        let stand = match field {
            Field::Plain => Stand::plain(&home, &options)?,
            Field::Tls => Stand::tls(&home, &options)?,
            Field::WebDav => Stand::web_dav(&home)?,
        };
        for backend in &stand.hashing {
            acquaint(backend, &its).await?;
        }
        for contender in &stand.contenders {
            eprintln!("writing what {} is asked to read", contender.target.name);
            prepare(&contender.target, &its).await?;
        }
        stands.push((field, stand));
    }
    let stand_of = |workload: &Workload| -> &Stand {
        let found = stands.iter().find(|(field, _)| *field == workload.field);
        &found.expect("each field has its stand").1
    };
    let alone = Alone::new(&home).await?;
    let mut catalogue = Figure::default();
    let mut cells = Cells::new();
    for turn in 0..effort.turns {
        for (row, workload) in workloads.iter().enumerate() {
            eprintln!("turn {} of {}: {}", turn + 1, effort.turns, workload.name());
            if goals::is_against_catalogue(workload) {
                catalogue.add(alone.puts_per_second(128, effort.turn).await?);
            }
            let stand = stand_of(workload);
            for (place, contender) in stand.contenders.iter().enumerate() {
                let cell = cells.entry((row, place)).or_default();
                let turn = format!("{turn}-{row}");
                one_turn(
                    contender,
                    workload,
                    &turn,
                    effort.turn,
                    &stand.backends,
                    cell,
                )
                .await
                .with_context(|| workload.name())?;
            }
        }
    }
    println!(
        "{}; nginx {}; {}. The load, the backend and what is measured share these cores.\n",
        machine::describe(),
        nginx_version(),
        machine::version("psql"),
    );
    let sizes: &[u64] = match options.full {
        true => &[100_000, 1_000_000, 10_000_000],
        false => &[100_000, 1_000_000],
    };
    let listings = match lists {
        false => None,
        true => Some(list::run(&options.program, sizes, effort).await?),
    };
    let ratio = listings.as_ref().map(|(_, ratio)| *ratio);
    let idle = stands.iter().find_map(|(_, stand)| stand.idle);
    let goals = goals::show(&workloads, &cells, &catalogue, (idle, ratio));
    if let Some(goals) = goals {
        println!("{goals}");
    }
    for (row, workload) in workloads.iter().enumerate() {
        let contenders = &stand_of(workload).contenders;
        println!(
            "### {}\n\n{}",
            workload.name(),
            show(workload, row, contenders, &cells)
        );
    }
    if let Some((text, _)) = listings {
        println!("### LIST, 1 connection, SQLite\n\n{text}");
    }
    for program in stands.into_iter().flat_map(|(_, stand)| stand.programs) {
        program.running.stop()?;
    }
    Ok(())
}

fn nginx_version() -> String {
    let output = std::process::Command::new("/usr/sbin/nginx")
        .arg("-v")
        .output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stderr).into_owned());
    let text = text.unwrap_or_default();
    text.trim()
        .rsplit_once('/')
        .map_or("", |(_, version)| version)
        .to_owned()
}

async fn one_turn(
    contender: &Contender,
    workload: &Workload,
    turn: &str,
    time: Duration,
    backend: &Processes,
    cell: &mut Cell,
) -> Result<()> {
    let cpu = || -> Vec<Duration> { contender.processes.iter().map(Processes::cpu).collect() };
    let watches: Vec<_> = contender.processes.iter().map(Processes::watch).collect();
    let (before, backend_before) = (cpu(), backend.cpu());
    let run = measure(&contender.target, workload, turn, time).await?;
    if contender.has_queue && matches!(workload.work, Work::Delete(_)) {
        drained(&contender.target).await?;
    }
    let (after, backend_after) = (cpu(), backend.cpu());
    let share = |used: Duration| workload.share(used, &run);
    cell.cpu.resize_with(before.len(), Figure::default);
    for (figure, (before, after)) in cell.cpu.iter_mut().zip(before.iter().zip(after)) {
        figure.add(share(after.saturating_sub(*before)));
    }
    cell.backend_cpu
        .add(share(backend_after.saturating_sub(backend_before)));
    cell.rate.add(run.per_second());
    cell.throughput.add(run.bytes as f64 / 1e6 / run.seconds);
    cell.p50.add(run.latency_us(0.5));
    cell.p99.add(run.latency_us(0.99));
    let memory: u64 = watches
        .into_iter()
        .map(crate::processes::Watch::highest)
        .sum();
    cell.memory = cell.memory.max(memory);
    Ok(())
}

/// Waits until nothing waits to be deleted on the backend: it is part of what a delete costs.
pub(crate) async fn drained(target: &Target) -> Result<()> {
    let deadline = Instant::now() + DRAINED_MAX;
    while metric(target, "s3o_cleanup_queue_depth").await? > 0 {
        if Instant::now() > deadline {
            bail!("{}: deletions do not end", target.name);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}

/// A metric without labels.
pub(crate) async fn metric(target: &Target, name: &str) -> Result<u64> {
    let shot = crate::target::Shot {
        head: format!("GET /metrics HTTP/1.1\r\nhost: {}\r\n\r\n", target.addr).into(),
        sent: crate::target::Sent::Nothing,
        wanted: Wanted::Status(200),
    };
    let mut connection = Connection::open(target).await?;
    connection.ask(&shot).await?;
    let text = String::from_utf8_lossy(&connection.document).into_owned();
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let value = line.and_then(|rest| rest.trim_start_matches("{}").trim().parse().ok());
    value.with_context(|| format!("no metric {name}"))
}

fn show(workload: &Workload, row: usize, contenders: &[Contender], cells: &Cells) -> String {
    let ceiling = &cells[&(row, NGINX)];
    let rows: Vec<Vec<String>> = contenders
        .iter()
        .enumerate()
        .map(|(place, contender)| {
            let cell = &cells[&(row, place)];
            let (rate, of_nginx) = match workload.is_large() {
                true => (
                    &cell.throughput,
                    cell.throughput.median() / ceiling.throughput.median(),
                ),
                false => (&cell.rate, cell.rate.median() / ceiling.rate.median()),
            };
            let cpu: Vec<String> = cell
                .cpu
                .iter()
                .map(|figure| rounded(figure.median()))
                .collect();
            vec![
                contender.target.name.clone(),
                rate.show(),
                format!("{of_nginx:.2}"),
                if cpu.is_empty() {
                    "–".to_owned()
                } else {
                    cpu.join(" + ")
                },
                rounded(cell.backend_cpu.median()),
                rounded(cell.p50.median()),
                rounded(cell.p99.median()),
                if cell.memory == 0 {
                    "–".to_owned()
                } else {
                    rounded(cell.memory as f64 / MIB as f64)
                },
            ]
        })
        .collect();
    let (rate, cpu, backend) = match workload.is_large() {
        true => ("MB/s", "CPU ms/GB", "backend's"),
        false => ("requests/s", "CPU µs/request", "backend's"),
    };
    table(
        &[
            "", rate, "of nginx", cpu, backend, "p50 µs", "p99 µs", "MiB",
        ],
        &rows,
    )
}
