//! The steps of `ci`, in the order that finds the cheapest failure first, each with a time limit.

use std::{process::ExitCode, time::Duration};

use anyhow::{Context, Result, bail};

use crate::{
    cmd::{Workspace, myself, succeed},
    limit::{Ended, within},
    servers::{Servers, Timer},
    tools::Missing,
};

/// All of `ci`, from a fresh clone on a machine of two cores. A step gets what is left of it.
const ALL_MAX: Duration = minutes(45);

const TOOLS_MAX: Duration = minutes(15);
const FMT_MAX: Duration = minutes(2);
const TIDY_MAX: Duration = minutes(2);
const CLIPPY_MAX: Duration = minutes(12);
const TEST_MAX: Duration = minutes(25);
const SMOKE_MAX: Duration = minutes(6);
const FUZZ_MAX: Duration = minutes(12);
const E2E_MAX: Duration = minutes(10);
const DOCS_MAX: Duration = minutes(3);

/// What is run, as `cargo xtask` would run it alone.
struct Step {
    name: &'static str,
    args: &'static [&'static str],
    limit: Duration,
    /// Where the reason is to be looked for when the time is over.
    look: &'static str,
}

const STEPS: &[Step] = &[
    Step {
        name: "fmt",
        args: &["fmt"],
        limit: FMT_MAX,
        look: "the disk, which this step only reads",
    },
    Step {
        name: "tidy",
        args: &["tidy"],
        limit: TIDY_MAX,
        look: "`cargo metadata`, which waits for others that hold cargo's locks",
    },
    Step {
        name: "clippy",
        args: &["clippy"],
        limit: CLIPPY_MAX,
        look: "`cargo build --timings`: which crate takes so long to compile",
    },
    Step {
        name: "test",
        args: &["test"],
        limit: TEST_MAX,
        look: "the tests above that have `been running for over 60 seconds`",
    },
    Step {
        name: "smoke",
        args: &["bench", "--smoke"],
        limit: SMOKE_MAX,
        look: "the last line above: what comes after it hangs",
    },
    Step {
        name: "fuzz",
        args: &["fuzz"],
        limit: FUZZ_MAX,
        look: "target/fuzz/logs: each target has 30 s, and what is left is the build",
    },
    Step {
        name: "e2e",
        args: &["e2e"],
        limit: E2E_MAX,
        look: "the last client named above: it hangs, or the program does",
    },
    Step {
        name: "docs",
        args: &["docs"],
        limit: DOCS_MAX,
        look: "the build of the program, which the steps before have done",
    },
];

const INSTALL: Step = Step {
    name: "tools",
    args: &["tools", "--install"],
    limit: TOOLS_MAX,
    look: "the registry or the package that the last line above names",
};

const REPORT: Step = Step {
    args: &["tools"],
    ..INSTALL
};

const fn minutes(minutes: u64) -> Duration {
    Duration::from_secs(minutes * 60)
}

/// Runs every step until one fails. Missing tools are settled before the others, so that nobody
/// waits for the tests to learn that a client was never there.
pub(crate) fn run(missing: Missing) -> ExitCode {
    let tools = match missing {
        Missing::Report => &REPORT,
        Missing::Install => &INSTALL,
    };
    let steps: Vec<&Step> = std::iter::once(tools).chain(STEPS).collect();
    let whole = Timer::start();
    let mut done = Vec::new();
    let mut failed = None;
    for step in &steps {
        println!("\n==> {}", step.name);
        let timer = Timer::start();
        let outcome = step.run(ALL_MAX.saturating_sub(whole.elapsed()));
        println!("==> {}: {}", step.name, timer.shown());
        done.push(timer.shown());
        if let Err(error) = outcome {
            failed = Some(error);
            break;
        }
    }
    println!("\n==> summary");
    for (place, step) in steps.iter().enumerate() {
        let (verdict, took) = match done.get(place) {
            Some(took) if failed.is_some() && place + 1 == done.len() => ("FAILED", took.as_str()),
            Some(took) => ("ok", took.as_str()),
            None => ("not run", ""),
        };
        println!("{}", line(step.name, verdict, took, step.limit));
    }
    println!("{}", line("all", "", &whole.shown(), ALL_MAX));
    let Some(error) = failed else {
        return ExitCode::SUCCESS;
    };
    eprintln!("xtask: {error:#}");
    ExitCode::FAILURE
}

fn line(name: &str, verdict: &str, took: &str, limit: Duration) -> String {
    let limit = limit.as_secs() / 60;
    format!("{name:<8} {verdict:<8} {took:>10}  of {limit} min")
}

impl Step {
    /// Runs it in a process of its own, which is ended with all that it started when its time, or that
    /// of `ci`, is over.
    fn run(&self, left: Duration) -> Result<()> {
        let ended = within(myself("step").args(self.args), self.limit.min(left))?;
        self.outcome(&ended, left)
    }

    fn outcome(&self, ended: &Ended, left: Duration) -> Result<()> {
        match ended {
            Ended::With(status) if status.success() => Ok(()),
            Ended::With(status) => bail!("{}: {status}", self.name),
            Ended::TooLate => bail!("{}", self.too_late(left)),
        }
    }

    fn too_late(&self, left: Duration) -> String {
        let (whose, limit) = if left < self.limit {
            ("ci", ALL_MAX)
        } else {
            (self.name, self.limit)
        };
        format!(
            "{name}: ended, because the {limit} min that {whose} may take are over. Look at {look}; \
             `cargo xtask {alone}` runs this step alone and without a limit",
            name = self.name,
            limit = limit.as_secs() / 60,
            look = self.look,
            alone = self.args.join(" "),
        )
    }
}

pub(crate) fn fmt(workspace: &Workspace) -> Result<()> {
    succeed(workspace.cargo().args(["fmt", "--all", "--check"]))
        .context("formatting differs; `cargo fmt --all` mends it")
}

pub(crate) fn clippy(workspace: &Workspace) -> Result<()> {
    let args = [
        "clippy",
        "--workspace",
        "--all-targets",
        "--locked",
        "--",
        "-D",
        "warnings",
    ];
    succeed(workspace.cargo().args(args))
}

/// Tests that talk to a foreign S3 server find its address in the environment. They run inside
/// this, so that a server that did not come up is a failure and never a skip.
pub(crate) fn test(workspace: &Workspace, args: &[&str]) -> Result<()> {
    let mut cargo = workspace.cargo();
    cargo.args(["test", "--locked"]);
    if args.is_empty() {
        cargo.arg("--workspace");
    }
    let servers = Servers::start(workspace)?;
    servers.export(&mut cargo);
    succeed(cargo.args(args))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_that_takes_too_long_names_itself_its_limit_and_what_to_look_at() {
        for step in STEPS {
            let text = step
                .outcome(&Ended::TooLate, ALL_MAX)
                .unwrap_err()
                .to_string();
            let limit = format!("{} min that {}", step.limit.as_secs() / 60, step.name);
            for part in [step.name, &limit, step.look, &step.args.join(" ")] {
                assert!(text.contains(part), "{text}");
            }
        }
    }

    #[test]
    fn a_step_gets_no_more_than_what_is_left_of_the_whole() {
        let late = STEPS[0].outcome(&Ended::TooLate, Duration::ZERO);
        let text = late.unwrap_err().to_string();
        assert!(text.contains("45 min that ci may take"), "{text}");
        for step in STEPS {
            assert!(step.limit < ALL_MAX, "{}", step.name);
        }
    }
}
