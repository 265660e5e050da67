//! Repository chores. `cargo xtask ci` is the whole truth about whether a commit is good: what it
//! runs are the steps below, and each of them can be run alone.
//!
//! Refuses to guess: a missing tool is named together with the way to get it, and nothing is
//! installed unless `--install` says so.

mod bench;
mod ci;
mod cmd;
mod docs;
mod e2e;
mod fuzz;
mod limit;
mod long;
mod servers;
mod tidy;
mod tools;

use std::{env, process::ExitCode};

use anyhow::{Result, bail};

use crate::{cmd::Workspace, docs::Mode, long::Figures, tools::Missing};

const USAGE: &str = "\
usage: cargo xtask <command>

  ci [--install]         tools, fmt, tidy, clippy, test, smoke, fuzz, e2e, docs, each with a time
                         limit; stops at the first failure
  fmt                    check the formatting
  tidy                   check the structure: crate edges, SQL, status codes, imports, bans
  clippy                 lints, as errors
  test [-- ARGS]         cargo test --workspace beside radosgw and s3s-fs
  e2e [-- ARGS]          real S3 clients against the program
  fuzz [--keep] [--seconds N] [TARGET...]
                         fuzz each target (30 s); with --keep, minimise the committed corpus
  bench [--turns N] [--seconds N] [--full] [--only TEXT] [--against NAME=URL,KEY,SECRET] [--write]
                         measure the program beside nginx and its backend alone; with --write, keep
                         the figures
  bench catalogue [--turns N] [--seconds N] [--write]
                         measure the catalogue on both databases
  bench --smoke          bytes, errors, calls, allocations and memory, never time
  bench --baseline FILE [--turns N] [--seconds N] [--only TEXT] [--catalogue sqlite|postgres]
                         the program against an older build of it, CPU by CPU; fails where a request
                         became too dear
  long [NAME [--write]]  list what takes longer than ci may, or run it, going on where it was killed;
                         with --write, keep the figures
  docs [--write]         compare the generated pages with what the program prints, or rewrite them
  tools [--install]      list the missing tools, or install them
  servers --run -- CMD   start radosgw and s3s-fs, run CMD with their addresses, stop them
";

fn main() -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    match run(&args) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &[String]) -> Result<ExitCode> {
    let workspace = Workspace::locate()?;
    let Some((command, rest)) = args.split_first() else {
        eprint!("{USAGE}");
        return Ok(ExitCode::from(64));
    };
    let rest: Vec<&str> = rest.iter().map(String::as_str).collect();
    match (command.as_str(), rest.as_slice()) {
        ("ci", []) => return Ok(ci::run(Missing::Report)),
        ("ci", ["--install"]) => return Ok(ci::run(Missing::Install)),
        // What `ci` and `long` run: a command in a group of processes that ends with them.
        ("step", [_, ..]) => {
            limit::under_watch()?;
            return run(&args[1..]);
        }
        ("fmt", []) => ci::fmt(&workspace)?,
        ("tidy", []) => tidy::run(&workspace)?,
        ("clippy", []) => ci::clippy(&workspace)?,
        ("test", args) => ci::test(&workspace, after_dashes(args)?)?,
        ("e2e", args) => e2e::run(&workspace, after_dashes(args)?)?,
        ("fuzz", args) => fuzz::run(&workspace, args)?,
        ("bench", ["catalogue", options @ ..]) => bench::run(&workspace, "catalogue", options)?,
        ("bench", ["--smoke"]) => bench::smoke(&workspace)?,
        ("bench", ["--baseline", ..]) => bench::against_baseline(&workspace, &rest[1..])?,
        ("bench", options) => bench::run(&workspace, "s3", options)?,
        ("long", []) => long::list(&workspace)?,
        ("long", [name]) => long::run(&workspace, name, Figures::Show)?,
        ("long", [name, "--write"]) => long::run(&workspace, name, Figures::Keep)?,
        ("docs", []) => docs::run(&workspace, Mode::Compare)?,
        ("docs", ["--write"]) => docs::run(&workspace, Mode::Write)?,
        ("tools", []) => return tools::run(&workspace, Missing::Report),
        ("tools", ["--install"]) => return tools::run(&workspace, Missing::Install),
        ("servers", ["--run", "--", command @ ..]) if !command.is_empty() => {
            return servers::run(&workspace, command);
        }
        ("help" | "--help" | "-h", []) => print!("{USAGE}"),
        _ => {
            eprint!("{USAGE}");
            return Ok(ExitCode::from(64));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// What is passed on to the program a step runs: nothing, or all that follows `--`.
fn after_dashes<'a, 'b>(args: &'a [&'b str]) -> Result<&'a [&'b str]> {
    match args {
        [] => Ok(&[]),
        ["--", rest @ ..] => Ok(rest),
        [first, ..] => bail!("unexpected argument {first}: put what is passed on behind --"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_follows_two_dashes_is_passed_on() {
        assert!(after_dashes(&[]).unwrap().is_empty());
        assert_eq!(after_dashes(&["--", "-p", "base"]).unwrap(), ["-p", "base"]);
        assert!(after_dashes(&["-p", "base"]).is_err());
    }
}
