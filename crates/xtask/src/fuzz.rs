//! Fuzzing on the stable toolchain: libFuzzer with the coverage that LLVM itself can instrument.
//!
//! The corpus under `crates/fuzz/corpus` is what earlier runs found worth keeping, minimised; a run
//! begins with it and leaves what it finds under `target/fuzz`. A finding fails the step and says
//! where its input lies.

use std::{
    fs,
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread,
};

use anyhow::{Context, Result, bail, ensure};

use crate::cmd::{Workspace, printed, succeed};

pub(crate) const TARGETS: &[&str] = &[
    "canonical",
    "chunked",
    "config",
    "form",
    "heads",
    "presigned",
    "ranges",
    "xml",
];

/// What each target gets in the test command.
const SECONDS: u32 = 30;
/// An input that takes longer is a finding.
const INPUT_SECONDS_MAX: u32 = 10;
/// A target that needs more memory is a finding.
const MEMORY_MIB_MAX: u32 = 2048;
/// The longest input; longer ones find little and slow everything down.
const INPUT_BYTES_MAX: u32 = 4096;

/// LLVM's own instrumentation, which needs no nightly compiler: edges and comparisons.
const COVERAGE: &str = "-Cpasses=sancov-module \
    -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares \
    --cfg=fuzzing";

/// What to fuzz, for how long.
struct Plan {
    targets: Vec<&'static str>,
    seconds: u32,
    /// Whether the committed corpus is replaced by the smallest one with the same coverage.
    keep: bool,
}

impl Plan {
    fn parse(args: &[&str]) -> Result<Self> {
        let mut plan = Self {
            targets: Vec::new(),
            seconds: SECONDS,
            keep: false,
        };
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            match *arg {
                "--keep" => plan.keep = true,
                "--seconds" => {
                    let value = args.next().context("--seconds needs a number")?;
                    plan.seconds = value.parse().context("--seconds needs a number")?;
                }
                name => match TARGETS.iter().find(|target| **target == name) {
                    Some(target) => plan.targets.push(target),
                    None => bail!("no fuzz target {name}; there are {}", TARGETS.join(", ")),
                },
            }
        }
        if plan.targets.is_empty() {
            plan.targets = TARGETS.to_vec();
        }
        Ok(plan)
    }
}

/// `cargo xtask fuzz`.
pub(crate) fn run(workspace: &Workspace, args: &[&str]) -> Result<()> {
    let plan = Plan::parse(args)?;
    let fuzzers = Fuzzers::build(workspace)?;
    let at_once = thread::available_parallelism().map_or(1, usize::from);
    let mut failed = Vec::new();
    for group in plan.targets.chunks(at_once) {
        let started: Result<Vec<_>> = group
            .iter()
            .map(|target| Ok((*target, fuzzers.start(target, plan.seconds)?)))
            .collect();
        for (target, mut child) in started? {
            let status = child
                .wait()
                .with_context(|| format!("waiting for {target}"))?;
            println!("{target}: {}", fuzzers.summary(target)?);
            if !status.success() {
                failed.push(target);
            }
        }
    }
    if !failed.is_empty() {
        bail!(
            "findings in {}: the inputs are in {}; mend it, then keep each input in \
             crates/fuzz/finds/TARGET under a name that says what was wrong",
            failed.join(", "),
            fuzzers.home.join("finds").display()
        );
    }
    if plan.keep {
        for target in &plan.targets {
            fuzzers.keep(target)?;
        }
    }
    Ok(())
}

/// The instrumented binaries, and where they work.
struct Fuzzers<'a> {
    workspace: &'a Workspace,
    home: PathBuf,
    binaries: PathBuf,
}

impl<'a> Fuzzers<'a> {
    fn build(workspace: &'a Workspace) -> Result<Self> {
        let host = host(workspace)?;
        let home = workspace.target().join("fuzz");
        let mut cargo = workspace.cargo();
        cargo
            .args(["build", "--locked", "--package", "fuzz", "--bins"])
            .args(["--features", "fuzz/libfuzzer", "--profile", "fuzz"])
            // With a target named, the flags are not those of build scripts and macros.
            .args(["--target", &host, "--target-dir"])
            .arg(&home)
            .env("RUSTFLAGS", COVERAGE);
        succeed(&mut cargo)?;
        let binaries = home.join(host).join("fuzz");
        Ok(Self {
            workspace,
            home,
            binaries,
        })
    }

    fn committed(&self, target: &str) -> PathBuf {
        self.workspace.path("crates/fuzz/corpus").join(target)
    }

    fn log(&self, target: &str) -> PathBuf {
        self.home.join("logs").join(target)
    }

    fn command(&self, target: &str) -> Command {
        let binary = self.binaries.join(format!("fuzz-{target}"));
        self.workspace.command(binary)
    }

    fn start(&self, target: &str, seconds: u32) -> Result<Child> {
        let (corpus, finds) = (
            self.home.join("corpus").join(target),
            self.home.join("finds"),
        );
        for folder in [&corpus, &finds, &self.home.join("logs")] {
            fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
        }
        let log = fs::File::create(self.log(target)).context("making the log")?;
        let prefix = finds.join(format!("{target}-"));
        self.command(target)
            .arg(format!("-max_total_time={seconds}"))
            .arg(format!("-timeout={INPUT_SECONDS_MAX}"))
            .arg(format!("-rss_limit_mb={MEMORY_MIB_MAX}"))
            .arg(format!("-max_len={INPUT_BYTES_MAX}"))
            .arg(format!("-artifact_prefix={}", prefix.display()))
            .args(["-print_final_stats=1", "-verbosity=1"])
            .arg(&corpus)
            .arg(self.committed(target))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .with_context(|| format!("starting the fuzzer of {target}"))
    }

    /// Executions and coverage, as libFuzzer told them last.
    fn summary(&self, target: &str) -> Result<String> {
        let path = self.log(target);
        let log = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
        let log = String::from_utf8_lossy(&log);
        let executions = log
            .lines()
            .find_map(|line| line.strip_prefix("stat::number_of_executed_units:"));
        let coverage = log.lines().rev().find(|line| line.contains(" cov: "));
        match (executions, coverage) {
            (Some(executions), Some(line)) => {
                let words: Vec<_> = line.split_whitespace().collect();
                let after = |name| {
                    let place = words.iter().position(|word| *word == name);
                    place.and_then(|place| words.get(place + 1)).unwrap_or(&"?")
                };
                let executions = executions.trim();
                let (edges, features) = (after("cov:"), after("ft:"));
                Ok(format!(
                    "{executions} executions, {edges} edges, {features} features"
                ))
            }
            // The end of the log says what was found.
            _ => {
                let tail: Vec<_> = log.lines().rev().take(25).collect();
                let tail: Vec<_> = tail.into_iter().rev().collect();
                Ok(format!("stopped early\n{}", tail.join("\n")))
            }
        }
    }

    /// Replaces the committed corpus by few inputs that together reach every edge that any known one reaches.
    fn keep(&self, target: &str) -> Result<()> {
        let committed = self.committed(target);
        let merged = self.home.join("merged").join(target);
        if merged.exists() {
            fs::remove_dir_all(&merged).context("emptying the merged corpus")?;
        }
        fs::create_dir_all(&merged).context("making the merged corpus")?;
        fs::create_dir_all(&committed).context("making the corpus")?;
        let mut command = self.command(target);
        command
            .args(["-merge=1", "-set_cover_merge=1", "-verbosity=0"])
            // Every edge once: how often it is passed would keep ten times as many inputs.
            .arg("-use_counters=0")
            .arg(&merged)
            .arg(self.home.join("corpus").join(target))
            .arg(&committed);
        succeed(&mut command)?;
        let count = fs::read_dir(&merged)?.count();
        ensure!(count > 0, "the merged corpus of {target} is empty");
        fs::remove_dir_all(&committed).context("replacing the corpus")?;
        fs::create_dir_all(&committed).context("replacing the corpus")?;
        for entry in fs::read_dir(&merged)? {
            let entry = entry?;
            fs::copy(entry.path(), committed.join(entry.file_name()))?;
        }
        println!("{target}: {count} inputs kept");
        Ok(())
    }
}

/// The target that this compiler builds for by default.
fn host(workspace: &Workspace) -> Result<String> {
    let version = printed(workspace.command("rustc").arg("-vV"))?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).context("rustc names no host")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_seconds_and_nothing_else_are_understood() {
        let plan = Plan::parse(&[]).unwrap();
        assert_eq!((plan.targets.len(), plan.seconds), (TARGETS.len(), SECONDS));
        let plan = Plan::parse(&["xml", "--seconds", "5"]).unwrap();
        assert_eq!((plan.targets, plan.seconds), (vec!["xml"], 5));
        assert!(Plan::parse(&["yaml"]).is_err());
        assert!(Plan::parse(&["--seconds", "soon"]).is_err());
    }
}
