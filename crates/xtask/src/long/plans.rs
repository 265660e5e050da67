//! The long runs that there are.

use std::collections::BTreeMap;

use super::progress::Progress;
use crate::fuzz;

/// Rounds of the suites whose tests depend most on who runs when.
const ROUNDS: u64 = 10;
/// Rounds of the others.
const ROUNDS_OF_OTHERS: u64 = 2;
/// Seeds of a unit; the tests of `ci` run the first 20 and the first 6.
const ENGINE_SEEDS: u64 = 100;
const METASTORE_SEEDS: u64 = 30;
const MODEL_UNITS: u64 = 10;
const KILLS: u64 = 50;
const KILL_UNITS: u64 = 10;
/// Kills on one catalogue, which has one seed.
const KILLS_PER_SEED: u64 = 5;
/// No seed of `ci`.
const FIRST_KILL_SEED: u64 = 1000;
/// What a target is fuzzed for in a unit, on one core.
const FUZZ_SECONDS: u64 = 600;
const FUZZ_ROUNDS: u64 = 6;
/// Targets of a unit: on a machine of two cores they run at the same time.
const FUZZ_TARGETS: usize = 2;

/// A long run.
pub(super) struct Plan {
    pub(super) name: &'static str,
    pub(super) what: &'static str,
    /// On a machine of two cores.
    pub(super) takes: &'static str,
    pub(super) units: fn() -> Vec<Unit>,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Tests,
    Fuzzing,
}

/// What runs at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Around {
    Nothing,
    /// Something else that uses every core.
    BusyCores,
}

/// What is run as a whole, and counts once it has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unit {
    /// Tells it from the others, and is the name of its log.
    pub(super) id: String,
    /// The line of the figures that it is part of.
    line: String,
    /// What `cargo xtask` is asked for.
    pub(super) args: Vec<String>,
    pub(super) env: Vec<(&'static str, String)>,
    pub(super) around: Around,
}

pub(super) const PLANS: &[Plan] = &[
    Plan {
        name: "repeat",
        what: "the suites again and again, with every core used by something else",
        takes: "2 hours",
        units: repeat,
        kind: Kind::Tests,
    },
    Plan {
        name: "model",
        what: "random operations against plain models, over many seeds",
        takes: "2 hours",
        units: model,
        kind: Kind::Tests,
    },
    Plan {
        name: "kills",
        what: "kill -9 at seeded points of mixed load",
        takes: "10 min",
        units: kills,
        kind: Kind::Tests,
    },
    Plan {
        name: "memory",
        what: "64 transfers of 256 MiB at a time in bounded memory",
        takes: "5 min",
        units: memory,
        kind: Kind::Tests,
    },
    Plan {
        name: "fuzz",
        what: "an hour of one core for each fuzz target; what it finds goes on from its corpus",
        takes: "4 hours",
        units: fuzzing,
        kind: Kind::Fuzzing,
    },
];

/// A unit of tests; `words` are what `cargo test` is told.
fn tests(line: &str, number: u64, words: &[&str]) -> Unit {
    let words = words.iter().map(|word| (*word).to_owned());
    Unit {
        id: format!("{line}-{number}").replace(' ', "-"),
        line: line.to_owned(),
        args: ["test", "--"]
            .map(str::to_owned)
            .into_iter()
            .chain(words)
            .collect(),
        env: Vec::new(),
        around: Around::Nothing,
    }
}

fn repeat() -> Vec<Unit> {
    let often: [(&str, &[&str]); 2] = [
        ("front", &["-p", "orchestrator", "--lib", "--test", "it"]),
        ("process", &["-p", "orchestrator", "--test", "process"]),
    ];
    let others = ["base", "s3wire", "backend", "metastore", "engine"];
    let mut units = Vec::new();
    for round in 1..=ROUNDS {
        units.extend(often.map(|(line, words)| tests(line, round, words)));
        if round <= ROUNDS_OF_OTHERS {
            units.extend(others.map(|krate| tests(krate, round, &["-p", krate])));
        }
    }
    for unit in &mut units {
        unit.around = Around::BusyCores;
    }
    units
}

fn model() -> Vec<Unit> {
    let models = [
        ("engine", "random_operations_agree", ENGINE_SEEDS),
        ("metastore", "agrees_with_a_plain_model", METASTORE_SEEDS),
    ];
    let numbered = (0..MODEL_UNITS).flat_map(|n| models.map(|model| (n, model)));
    numbered
        .map(|(n, (krate, name, seeds))| {
            let words = ["-p", krate, "--test", "it", name];
            let mut unit = tests(&format!("{krate}, {seeds} seeds"), n, &words);
            unit.id = format!("{krate}-{n}");
            unit.env = vec![
                ("S3O_SEED", (n * seeds).to_string()),
                ("S3O_SEEDS", seeds.to_string()),
            ];
            unit
        })
        .collect()
}

fn kills() -> Vec<Unit> {
    let words = ["-p", "orchestrator", "--test", "process", "kill_9"];
    (0..KILL_UNITS)
        .map(|n| {
            let seed = FIRST_KILL_SEED + n * (KILLS / KILLS_PER_SEED);
            let mut unit = tests(&format!("{KILLS} kills"), n, &words);
            unit.env = vec![
                ("S3O_SEED", seed.to_string()),
                ("S3O_KILLS", KILLS.to_string()),
            ];
            unit
        })
        .collect()
}

fn memory() -> Vec<Unit> {
    let words = [
        "-p",
        "orchestrator",
        "--test",
        "process",
        "sixty_four",
        "--",
        "--nocapture",
    ];
    let mut unit = tests("64 transfers", 1, &words);
    unit.env = vec![("S3O_MEMORY_FULL", "1".to_owned())];
    vec![unit]
}

fn fuzzing() -> Vec<Unit> {
    let groups = fuzz::TARGETS.chunks(FUZZ_TARGETS);
    let numbered = (1..=FUZZ_ROUNDS).flat_map(|round| groups.clone().map(move |at| (round, at)));
    numbered
        .map(|(round, targets)| {
            let seconds = FUZZ_SECONDS.to_string();
            let words = ["fuzz", "--seconds", &seconds];
            let line = targets.join("-");
            Unit {
                id: format!("{line}-{round}"),
                line,
                args: words
                    .iter()
                    .chain(targets)
                    .map(|word| (*word).to_owned())
                    .collect(),
                env: Vec::new(),
                around: Around::Nothing,
            }
        })
        .collect()
}

impl Unit {
    /// What `cargo` is asked for before, where it is of tests. Each by itself: with another choice of
    /// packages, their dependencies have other features.
    pub(super) fn build(&self) -> Option<Vec<&str>> {
        let words = self.args.iter().map(String::as_str);
        match self.args.first().map(String::as_str) {
            Some("test") => {
                let chosen = words.skip(2).take_while(|word| *word != "--");
                Some(
                    ["test", "--quiet", "--locked", "--no-run"]
                        .into_iter()
                        .chain(chosen)
                        .collect(),
                )
            }
            Some(_) | None => None,
        }
    }
}

impl Plan {
    /// What counts of the output of a unit, in one line.
    pub(super) fn figures(&self, output: &str) -> String {
        match self.kind {
            Kind::Tests => passed_and_failed(output),
            Kind::Fuzzing => fuzzed(output),
        }
    }

    /// The figures of all that was done.
    pub(super) fn table(&self, units: &[Unit], progress: &Progress) -> String {
        match self.kind {
            Kind::Tests => of_tests(units, progress),
            Kind::Fuzzing => of_fuzzing(units, progress),
        }
    }
}

/// `12 passed`, and the names of those that failed.
fn passed_and_failed(output: &str) -> String {
    let results = output
        .lines()
        .filter_map(|line| line.strip_prefix("test result: "));
    let passed: u64 = results
        .filter_map(|rest| {
            rest.split(". ")
                .nth(1)?
                .split(' ')
                .next()?
                .parse::<u64>()
                .ok()
        })
        .sum();
    let failed: Vec<_> = output
        .lines()
        .filter_map(|line| line.strip_prefix("test ")?.strip_suffix(" ... FAILED"))
        .collect();
    match failed.as_slice() {
        [] => format!("{passed} passed"),
        names => format!("{passed} passed, not {}", names.join(", ")),
    }
}

/// `xml 17 executions, 2 edges, 7 features; …`
fn fuzzed(output: &str) -> String {
    let line_of = |target: &&str| {
        let start = format!("{target}: ");
        let found = output.lines().find_map(|line| line.strip_prefix(&start))?;
        Some(format!("{target} {found}"))
    };
    let lines: Vec<_> = fuzz::TARGETS.iter().filter_map(line_of).collect();
    lines.join("; ")
}

/// A row for each line of the figures, in the order of the units.
fn lines(units: &[Unit]) -> Vec<&str> {
    let mut lines: Vec<&str> = Vec::new();
    for unit in units {
        if !lines.contains(&unit.line.as_str()) {
            lines.push(&unit.line);
        }
    }
    lines
}

fn of_tests(units: &[Unit], progress: &Progress) -> String {
    let mut text =
        "| what | times | tests each | failed | time |\n|---|---|---|---|---|\n".to_owned();
    for line in lines(units) {
        let its = units.iter().filter(|unit| unit.line == line);
        let records: Vec<_> = its.flat_map(|unit| progress.of(&unit.id)).collect();
        let failed = records.iter().filter(|record| !record.is_ok()).count();
        let seconds: u64 = records.iter().map(|record| record.seconds).sum();
        let tests = records.iter().rfind(|record| record.is_ok());
        let tests = tests
            .and_then(|record| record.figures.split(' ').next())
            .unwrap_or("–");
        let times = records.len();
        text.push_str(&format!(
            "| {line} | {times} | {tests} | {failed} | {} |\n",
            time(seconds)
        ));
    }
    text
}

fn of_fuzzing(units: &[Unit], progress: &Progress) -> String {
    #[derive(Default)]
    struct Target {
        executions: u64,
        seconds: u64,
        reached: String,
    }
    let mut targets: BTreeMap<&str, Target> = BTreeMap::new();
    for record in units.iter().flat_map(|unit| progress.of(&unit.id)) {
        for figures in record.figures.split("; ") {
            let Some((name, rest)) = figures.split_once(' ') else {
                continue;
            };
            let Some((executions, reached)) = rest.split_once(" executions, ") else {
                continue;
            };
            let target = targets.entry(name).or_default();
            target.executions += executions.parse::<u64>().unwrap_or(0);
            target.seconds += record.seconds;
            // Each round begins with what those before have found.
            target.reached = reached.to_owned();
        }
    }
    let mut text = "| target | executions | reached | time |\n|---|---|---|---|\n".to_owned();
    for (name, target) in targets {
        let Target {
            executions,
            seconds,
            reached,
        } = target;
        text.push_str(&format!(
            "| `{name}` | {executions} | {reached} | {} |\n",
            time(seconds)
        ));
    }
    text
}

fn time(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        _ => format!("{} min", seconds / 60),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::progress::{Outcome, Record};
    use super::*;

    #[test]
    fn every_unit_of_a_run_has_an_id_of_its_own_that_is_a_name_of_a_file() {
        for plan in PLANS {
            let units = (plan.units)();
            let ids: BTreeSet<_> = units.iter().map(|unit| &unit.id).collect();
            assert_eq!(ids.len(), units.len(), "{}", plan.name);
            let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '-';
            assert!(ids.iter().all(|id| id.chars().all(is_plain)), "{ids:?}");
        }
    }

    #[test]
    fn tests_are_built_before_they_are_run() {
        let unit = &memory()[0];
        let words = ["-p", "orchestrator", "--test", "process", "sixty_four"];
        assert!(
            unit.build().unwrap().ends_with(&words),
            "{:?}",
            unit.build()
        );
        assert_eq!(fuzzing()[0].build(), None);
    }

    #[test]
    fn no_seed_is_run_twice() {
        let of = |units: Vec<Unit>, name: &str| -> Vec<u64> {
            let its = units.iter().filter(|unit| unit.id.starts_with(name));
            its.map(|unit| unit.env[0].1.parse().unwrap()).collect()
        };
        let engine = of(model(), "engine");
        assert_eq!(engine[..2], [0, ENGINE_SEEDS]);
        assert_eq!(of(model(), "metastore")[..2], [0, METASTORE_SEEDS]);
        assert_eq!(of(kills(), "50")[..2], [1000, 1010]);
    }

    #[test]
    fn figures_are_read_out_of_what_a_unit_printed() {
        let output = "test a ... ok\ntest b::c ... FAILED\n\
            test result: FAILED. 11 passed; 1 failed; 0 ignored\n\
            test result: ok. 2 passed; 0 failed; 0 ignored\n";
        assert_eq!(passed_and_failed(output), "13 passed, not b::c");
        let output = "building\nxml: 5 executions, 2 edges, 3 features\nform: stopped early\n";
        assert_eq!(
            fuzzed(output),
            "form stopped early; xml 5 executions, 2 edges, 3 features"
        );
    }

    #[test]
    fn tables_add_up_what_was_done_and_do_not_hide_failures() {
        let folder = tempfile::tempdir().unwrap();
        let mut progress = Progress::read(folder.path(), "code");
        let units = repeat();
        for (outcome, figures) in [
            (Outcome::Failed, "9 passed, not a"),
            (Outcome::Ok, "10 passed"),
        ] {
            let record = Record {
                id: units[0].id.clone(),
                outcome,
                seconds: 100,
                figures: figures.to_owned(),
            };
            progress.add(record).unwrap();
        }
        let table = of_tests(&units, &progress);
        assert!(table.contains("| front | 2 | 10 | 1 | 3 min |"), "{table}");
        let units = fuzzing();
        for unit in [&units[0], units.last().unwrap(), &units[4]] {
            let record = Record {
                id: unit.id.clone(),
                outcome: Outcome::Ok,
                seconds: 7,
                figures: "canonical 5 executions, 2 edges, 3 features".to_owned(),
            };
            progress.add(record).unwrap();
        }
        let table = of_fuzzing(&units, &progress);
        assert!(
            table.contains("| `canonical` | 15 | 2 edges, 3 features | 21 s |"),
            "{table}"
        );
    }
}
