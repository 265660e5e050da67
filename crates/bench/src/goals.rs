//! What was promised, and what was measured.

use crate::figures::{Figure, rounded, table};
use crate::s3::{Cell, Cells, DIRECT, NGINX, SQLITE};
use crate::target::Cover;
use crate::workloads::{Field, GIB, KIB, MIB, Work, Workload};

/// A goal: what is compared, what was promised, what was measured.
struct Goal {
    what: String,
    wanted: String,
    measured: String,
    met: bool,
}

impl Goal {
    fn at_least(what: impl Into<String>, least: f64, measured: f64) -> Self {
        Self {
            what: what.into(),
            wanted: format!("at least {least}"),
            measured: format!("{measured:.2}"),
            met: measured >= least,
        }
    }

    fn at_most(what: impl Into<String>, most: f64, measured: f64) -> Self {
        Self {
            what: what.into(),
            wanted: format!("at most {}", rounded(most)),
            measured: if measured < 10.0 {
                format!("{measured:.2}")
            } else {
                rounded(measured)
            },
            met: measured <= most,
        }
    }
}

/// Whether the catalogue alone is measured beside this one.
pub(crate) fn is_against_catalogue(workload: &Workload) -> bool {
    workload.work == Work::Put(4 * KIB, Cover::Nothing)
        && workload.connections == 128
        && workload.field == Field::Plain
}

/// The table of goals; those whose workloads were not measured are left out.
pub(crate) fn show(
    workloads: &[Workload],
    cells: &Cells,
    catalogue: &Figure,
    (idle, listings): (Option<u64>, Option<f64>),
) -> Option<String> {
    let row = |work: Work, connections: usize| {
        workloads.iter().position(|workload| {
            workload.work == work
                && workload.field == Field::Plain
                && workload.connections == connections
                && matches!(workload.pace, crate::load::Pace::Closed)
        })
    };
    let cell = |row: usize, place: usize| -> &Cell { &cells[&(row, place)] };
    let ratio = |row: usize, of: fn(&Cell) -> f64| of(cell(row, SQLITE)) / of(cell(row, NGINX));
    let rate = |cell: &Cell| cell.rate.median();
    let throughput = |cell: &Cell| cell.throughput.median();
    let mut goals = Vec::new();
    if let Some(row) = row(Work::Get(4 * KIB), 128) {
        goals.push(Goal::at_least(
            "GET 4 KiB, 128 connections: requests/s, of nginx",
            0.8,
            ratio(row, rate),
        ));
        goals.push(Goal::at_most(
            "GET 4 KiB, 128 connections: CPU per request, of nginx",
            1.5,
            ratio(row, Cell::cpu_median),
        ));
    }
    if let Some(row) = row(Work::Put(4 * KIB, Cover::Nothing), 128) {
        let least = rate(cell(row, NGINX)).min(catalogue.median());
        goals.push(Goal::at_least(
            format!(
                "PUT 4 KiB, 128 connections, SQLite: requests/s, of the smaller of nginx and the \
                 catalogue alone ({} intents and commits/s)",
                rounded(catalogue.median())
            ),
            0.6,
            rate(cell(row, SQLITE)) / least,
        ));
        let wanted = 4_000.0 * (rate(cell(row, NGINX)) / 10_000.0).min(1.0);
        goals.push(Goal {
            what: "the same: requests/s, where nginx does 10,000".into(),
            wanted: format!("at least {}", rounded(wanted)),
            measured: rounded(rate(cell(row, SQLITE))),
            met: rate(cell(row, SQLITE)) >= wanted,
        });
    }
    for (name, work) in [
        ("GET", Work::Get(64 * MIB)),
        ("PUT", Work::Put(64 * MIB, Cover::Nothing)),
    ] {
        if let Some(row) = row(work, 8) {
            goals.push(Goal::at_least(
                format!("{name} 64 MiB, 8 connections: MB/s, of nginx"),
                0.9,
                ratio(row, throughput),
            ));
            goals.push(Goal::at_most(
                format!("{name} 64 MiB, 8 connections: CPU per GB, of nginx"),
                1.3,
                ratio(row, Cell::cpu_median),
            ));
        }
    }
    for size in [4 * KIB, 256 * KIB] {
        for connections in [16, 128] {
            if let Some(row) = row(Work::Head(size), connections) {
                let what = format!(
                    "HEAD {} KiB, {connections} connections: requests/s, of nginx",
                    size / KIB
                );
                goals.push(Goal::at_least(what, 0.9, ratio(row, rate)));
            }
        }
    }
    if let Some(row) = row(Work::Multipart, 8) {
        let of_direct = throughput(cell(row, SQLITE)) / throughput(cell(row, DIRECT));
        goals.push(Goal::at_least(
            "multipart of 1 GiB: MB/s, of the backend alone",
            0.9,
            of_direct,
        ));
    }
    if let Some(row) = row(Work::Get(4 * KIB), 1) {
        let added = cell(row, SQLITE).p50.median() - cell(row, DIRECT).p50.median();
        goals.push(Goal::at_most(
            "GET 4 KiB, 1 connection: µs added at p50",
            200.0,
            added,
        ));
    }
    if let Some(idle) = idle {
        goals.push(Goal::at_most(
            "anonymous memory, idle: MiB",
            48.0,
            idle as f64 / MIB as f64,
        ));
    }
    for (name, work) in [
        ("reads", Work::Get(GIB)),
        ("writes", Work::Put(GIB, Cover::Nothing)),
    ] {
        if let Some(row) = row(work, 64) {
            let memory = cell(row, SQLITE).memory as f64 / MIB as f64;
            let what = format!("anonymous memory, 64 {name} of 1 GiB at a time: MiB");
            goals.push(Goal::at_most(what, 128.0, memory));
        }
    }
    if let Some(ratio) = listings {
        let what = "LIST: a page over the most keys, of the same over 100,000";
        goals.push(Goal::at_most(what, 1.5, ratio));
    }
    let rows: Vec<Vec<String>> = goals
        .into_iter()
        .map(|goal| {
            let verdict = if goal.met { "met" } else { "**not met**" };
            vec![goal.what, goal.wanted, goal.measured, verdict.to_owned()]
        })
        .collect();
    (!rows.is_empty()).then(|| table(&["goal", "wanted", "measured", ""], &rows))
}
