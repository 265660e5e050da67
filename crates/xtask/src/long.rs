//! What takes longer than `ci` may: runs of many units, each of which is done once.
//!
//! A unit is a command of `xtask` with a time limit; its output lies under `target/long/NAME`, beside a
//! file of what has been done. A run that is killed goes on with the first unit that is not in it. What was
//! done counts for the very same code only: another commit, or another change, begins anew. A failure
//! does not hide those behind it: the other units are run, and then the run fails.

mod busy;
mod plans;
mod progress;

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context, Result, bail};

use self::{
    busy::Busy,
    plans::{Around, PLANS, Plan, Unit},
    progress::{Outcome, Progress, Record},
};
use crate::{
    bench,
    cmd::{Workspace, myself, printed, succeed},
    limit::{Ended, within},
    servers::Timer,
};

/// Where the figures of the last runs stand.
const PAGE: &str = "docs/testing.md";
/// The longest unit; one that takes longer hangs.
const UNIT_MAX: Duration = Duration::from_secs(40 * 60);

/// What becomes of the figures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Figures {
    Show,
    /// They take the place of those of the last run.
    Keep,
}

/// `cargo xtask long`.
pub(crate) fn list(workspace: &Workspace) -> Result<()> {
    let code = code(workspace)?;
    for plan in PLANS {
        let units = (plan.units)();
        let progress = Progress::read(&folder(workspace, plan), &code);
        let done = units.iter().filter(|unit| progress.has(&unit.id)).count();
        println!("{:<8} {:<10} {}", plan.name, plan.takes, plan.what);
        if done > 0 {
            println!("{:<19} {done} of {} units are done", "", units.len());
        }
    }
    Ok(())
}

/// `cargo xtask long NAME`.
pub(crate) fn run(workspace: &Workspace, name: &str, figures: Figures) -> Result<()> {
    let Some(plan) = PLANS.iter().find(|plan| plan.name == name) else {
        let names: Vec<_> = PLANS.iter().map(|plan| plan.name).collect();
        bail!("no long run {name}; there are {}", names.join(", "));
    };
    let code = code(workspace)?;
    let folder = folder(workspace, plan);
    fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
    let mut progress = Progress::read(&folder, &code);
    let units = (plan.units)();
    let left: Vec<&Unit> = units
        .iter()
        .filter(|unit| !progress.has(&unit.id))
        .collect();
    println!(
        "{name}: {} of {} units are to be done",
        left.len(),
        units.len()
    );
    for (place, unit) in left.iter().enumerate() {
        println!("==> {} ({} of {})", unit.id, place + 1, left.len());
        let record = done(workspace, plan, unit, &folder)?;
        println!("{}: {record}", unit.id);
        progress.add(record)?;
    }
    let table = plan.table(&units, &progress);
    println!("\n{table}");
    let failed: Vec<_> = units
        .iter()
        .filter(|unit| !progress.has(&unit.id))
        .map(|unit| unit.id.as_str())
        .collect();
    if !failed.is_empty() {
        bail!(
            "{name}: failed: {}; what they printed is in {}",
            failed.join(", "),
            folder.display()
        );
    }
    if figures == Figures::Keep {
        let table = format!("Of {}.\n\n{table}", &code[..code.len().min(SHOWN_OF_CODE)]);
        bench::keep(workspace, PAGE, &format!("long {name}"), &table)?;
    }
    Ok(())
}

/// So much of a commit's name tells it from the others.
const SHOWN_OF_CODE: usize = 12;

fn folder(workspace: &Workspace, plan: &Plan) -> PathBuf {
    workspace.target().join("long").join(plan.name)
}

/// One unit, from its beginning to its end.
fn done(workspace: &Workspace, plan: &Plan, unit: &Unit, folder: &Path) -> Result<Record> {
    if let Some(build) = unit.build() {
        // Neither beside busy cores nor within the time of the unit.
        succeed(workspace.cargo().args(build))?;
    }
    let log = folder.join(format!("{}.log", unit.id));
    let output = File::create(&log).with_context(|| format!("creating {}", log.display()))?;
    let mut command = myself("step");
    command.args(&unit.args);
    command.envs(unit.env.iter().map(|(name, value)| (name, value)));
    command.current_dir(workspace.root());
    command
        .stdout(output.try_clone()?)
        .stderr(Stdio::from(output));
    let timer = Timer::start();
    let busy = match unit.around {
        Around::BusyCores => Some(Busy::cores()),
        Around::Nothing => None,
    };
    let ended = within(&mut command, UNIT_MAX)?;
    drop(busy);
    let text = fs::read(&log).with_context(|| format!("reading {}", log.display()))?;
    let text = String::from_utf8_lossy(&text);
    let outcome = match ended {
        Ended::With(status) if status.success() => Outcome::Ok,
        Ended::With(_) | Ended::TooLate => Outcome::Failed,
    };
    Ok(Record {
        id: unit.id.clone(),
        outcome,
        seconds: timer.elapsed().as_secs(),
        figures: plan.figures(&text),
    })
}

/// The code that is tested: the commit, and what is changed since.
fn code(workspace: &Workspace) -> Result<String> {
    let git = |words: &[&str]| printed(workspace.command("git").args(words));
    let commit = git(&["rev-parse", "HEAD"]).context("git tells which code is tested")?;
    let changes = git(&["diff", "HEAD"])?;
    if changes.is_empty() {
        return Ok(commit.trim().to_owned());
    }
    Ok(format!(
        "{} with {:08x}",
        commit.trim(),
        progress::digest(&changes)
    ))
}
