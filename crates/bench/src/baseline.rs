//! The program against an older build of itself: CPU per request, in pairs.
//!
//! Three processes take turns over the same load: the program, the older one, and the older one once
//! more. The ratio of the first two is what is judged; that of the last two is the same program twice,
//! and shows what the machine makes of nothing. Throughput is not judged: it says as much about the load
//! and the backend, which share the cores.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::figures::{Figure, rounded, table};
use crate::processes::Processes;
use crate::s3::{Options, drained, workloads};
use crate::stand::{BUILDS, On, Stand};
use crate::workloads::{Field, KIB, Work, Workload, acquaint, prepare, ready};
use crate::{Effort, machine};

/// What a small request may cost, of what it cost.
const SMALL_RATIO_MAX: f64 = 1.03;
/// What a byte of a larger body may cost, of what it cost.
const LARGE_RATIO_MAX: f64 = 1.05;
/// The places of those that take turns.
const NEW: usize = 0;
const OLD: usize = 1;
const OLD_AGAIN: usize = 2;
/// Each of the orders is taken as often as the others, so that who comes after whom does not count.
const ORDERS: [[usize; BUILDS.len()]; 6] = [
    [NEW, OLD, OLD_AGAIN],
    [OLD_AGAIN, OLD, NEW],
    [OLD, NEW, OLD_AGAIN],
    [OLD_AGAIN, NEW, OLD],
    [OLD, OLD_AGAIN, NEW],
    [NEW, OLD_AGAIN, OLD],
];

/// What the turns of one workload measured.
#[derive(Debug, Default)]
struct Pairs {
    /// CPU of each, in microseconds per request or milliseconds per gigabyte.
    cpu: [Figure; BUILDS.len()],
    new_of_old: Figure,
    old_of_old: Figure,
}

/// What comes of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Pass,
    /// Above what is allowed, and not above what the same program shows against itself.
    Noise,
    Fail,
}

impl Pairs {
    fn add(&mut self, cpu: [f64; BUILDS.len()]) {
        for (figure, cpu) in self.cpu.iter_mut().zip(cpu) {
            figure.add(cpu);
        }
        self.new_of_old.add(cpu[NEW] / cpu[OLD]);
        self.old_of_old.add(cpu[OLD_AGAIN] / cpu[OLD]);
    }

    /// What the same program takes against itself in one turn of four, in whichever direction.
    fn noise(&self) -> f64 {
        let (low, high) = self.old_of_old.quartiles();
        high.max(1.0 / low)
    }

    fn verdict(&self, workload: &Workload) -> Verdict {
        let ratio = self.new_of_old.median();
        if ratio <= ratio_max(workload) {
            return Verdict::Pass;
        }
        // Bytes are many in every turn: what they cost does not drown in noise.
        if is_small(workload) && ratio <= self.noise() {
            return Verdict::Noise;
        }
        // What could not be measured fails, too.
        Verdict::Fail
    }

    fn row(&self, workload: &Workload) -> Vec<String> {
        let verdict = match self.verdict(workload) {
            Verdict::Pass => "pass".to_owned(),
            Verdict::Noise => format!("pass: noise is {:.3}", self.noise()),
            Verdict::Fail => "**fail**".to_owned(),
        };
        let unit = if workload.is_large() {
            "ms/GB"
        } else {
            "µs/request"
        };
        let cpu = |place: usize| rounded(self.cpu[place].median());
        vec![
            workload.name(),
            format!("{} {unit}", cpu(NEW)),
            cpu(OLD),
            shown(&self.new_of_old),
            shown(&self.old_of_old),
            format!("{:.2}", ratio_max(workload)),
            verdict,
        ]
    }
}

/// The median, the quartiles in parentheses.
fn shown(ratios: &Figure) -> String {
    let (low, high) = ratios.quartiles();
    format!("{:.3} ({low:.3}–{high:.3})", ratios.median())
}

/// Whether what counts is the request, and not the bytes of its body.
fn is_small(workload: &Workload) -> bool {
    match workload.work {
        Work::Head(_) | Work::Delete(_) => true,
        Work::Get(size) | Work::Put(size, _) | Work::Mixed(size) => size <= 4 * KIB,
        Work::Range { .. } | Work::Multipart => false,
    }
}

fn ratio_max(workload: &Workload) -> f64 {
    match is_small(workload) {
        true => SMALL_RATIO_MAX,
        false => LARGE_RATIO_MAX,
    }
}

/// Measures, prints the table, and tells whether nothing has become too dear.
pub(crate) async fn run(effort: Effort, options: &Options, old: &Path) -> Result<bool> {
    let folder = tempfile::tempdir_in(".").context("making a folder on this disk")?;
    let home = folder.path().canonicalize()?;
    let mut workloads = workloads();
    workloads.retain(|workload| is_measured(workload, options));
    if workloads.is_empty() {
        bail!("no workload has a name like {:?}", options.only);
    }
    let mut rows = Vec::new();
    let mut passed = true;
    for field in [Field::Plain, Field::Tls] {
        let mut its = workloads.clone();
        its.retain(|workload| workload.field == field);
        if its.is_empty() {
            continue;
        }
        let programs = [&options.program, old, old].map(AsRef::as_ref);
        let stand = Stand::builds(&home, programs, field, options.on)?;
        for backend in &stand.hashing {
            acquaint(backend, &its).await?;
        }
        for contender in &stand.contenders {
            prepare(&contender.target, &its).await?;
        }
        for workload in &its {
            let pairs = measured(&stand, workload, effort).await;
            let pairs = pairs.with_context(|| workload.name())?;
            passed &= pairs.verdict(workload) != Verdict::Fail;
            let row = pairs.row(workload);
            eprintln!("{}", row.join(" | "));
            rows.push(row);
        }
        for program in stand.programs {
            program.running.stop()?;
        }
    }
    println!(
        "{}. CPU of the program's process; medians of {} turns of {} s, quartiles in parentheses; {}.\n",
        machine::describe(),
        effort.turns,
        effort.turn.as_secs(),
        options.on.name(),
    );
    let head = [
        "",
        "CPU now",
        "before",
        "now / before",
        "before / before",
        "at most",
        "",
    ];
    println!("{}", table(&head, &rows));
    Ok(passed)
}

/// Those that say something of CPU: not what is there for memory, and not what the program has no part
/// in.
fn is_measured(workload: &Workload, options: &Options) -> bool {
    let is_asked_for = match &options.only {
        Some(part) => workload.name().contains(part.as_str()),
        None => true,
    };
    let is_ours = match workload.field {
        Field::Plain => true,
        Field::Tls => options.on == On::Sqlite,
        Field::WebDav => false,
    };
    is_asked_for && is_ours && !workload.is_about_memory()
}

async fn measured(stand: &Stand, workload: &Workload, effort: Effort) -> Result<Pairs> {
    let mut pairs = Pairs::default();
    // One turn more, which does not count: caches fill, connections are made, pages are faulted in.
    for turn in 0..=effort.turns {
        eprintln!("turn {turn} of {}: {}", effort.turns, workload.name());
        let mut cpu = [0.0; BUILDS.len()];
        for place in ORDERS[turn as usize % ORDERS.len()] {
            let name = format!("{turn}-{}", workload.name().replace([' ', ',', '%'], ""));
            cpu[place] = one(stand, place, workload, &name, effort.turn).await?;
        }
        if turn > 0 {
            pairs.add(cpu);
        }
    }
    Ok(pairs)
}

/// CPU of one contender in one turn. What has to be written before is not part of it.
async fn one(
    stand: &Stand,
    place: usize,
    workload: &Workload,
    turn: &str,
    time: Duration,
) -> Result<f64> {
    let contender = &stand.contenders[place];
    let process: &Processes = &contender.processes[0];
    let ready = ready(&contender.target, workload, turn, time).await?;
    let before = process.threads();
    let run = ready.go().await?;
    if matches!(workload.work, Work::Delete(_)) {
        drained(&contender.target).await?;
    }
    let used = process.used_since(&before);
    Ok(workload.share(used, &run))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::Pace;
    use crate::workloads::MIB;

    fn workload(work: Work) -> Workload {
        Workload {
            field: Field::Plain,
            work,
            connections: 16,
            pace: Pace::Closed,
        }
    }

    fn pairs(turns: &[(f64, f64)]) -> Pairs {
        let mut pairs = Pairs::default();
        for (new, again) in turns {
            pairs.add([*new, 100.0, *again]);
        }
        pairs
    }

    #[test]
    fn a_small_request_may_cost_three_hundredths_more_and_a_large_body_five() {
        let (small, large) = (Work::Get(4 * KIB), Work::Get(64 * MIB));
        for (cost, of_small, of_large) in [
            (80.0, Verdict::Pass, Verdict::Pass),
            (102.9, Verdict::Pass, Verdict::Pass),
            (104.0, Verdict::Fail, Verdict::Pass),
            (106.0, Verdict::Fail, Verdict::Fail),
            (f64::NAN, Verdict::Fail, Verdict::Fail),
        ] {
            let pairs = pairs(&[(cost, 100.0); 3]);
            assert_eq!(pairs.verdict(&workload(small)), of_small, "{cost}");
            assert_eq!(pairs.verdict(&workload(large)), of_large, "{cost}");
        }
    }

    #[test]
    fn what_old_against_old_shows_in_either_direction_is_no_verdict_on_a_small_request() {
        for noisy in [[94.0, 94.0, 100.0, 100.0], [106.0, 106.0, 100.0, 100.0]] {
            let turns = noisy.map(|again| (104.0, again));
            let small = workload(Work::Head(4 * KIB));
            assert_eq!(pairs(&turns).verdict(&small), Verdict::Noise);
            let large = workload(Work::Put(64 * MIB, crate::target::Cover::Nothing));
            let turns = noisy.map(|again| (105.9, again));
            assert_eq!(pairs(&turns).verdict(&large), Verdict::Fail);
        }
    }

    #[test]
    fn each_comes_first_second_and_last_equally_often() {
        for place in 0..BUILDS.len() {
            for build in [NEW, OLD, OLD_AGAIN] {
                let times = ORDERS.iter().filter(|order| order[place] == build).count();
                assert_eq!(times, ORDERS.len() / BUILDS.len());
            }
        }
    }
}
