//! The steps of `ci`, in the order that finds the cheapest failure first.

use std::process::ExitCode;

use anyhow::{Context, Result};

use crate::{
    bench,
    cmd::{Workspace, succeed},
    docs::{self, Mode},
    e2e, fuzz,
    servers::{Servers, Timer},
    tidy,
    tools::{self, Missing},
};

type Step = (&'static str, fn(&Workspace) -> Result<()>);

const STEPS: &[Step] = &[
    ("fmt", fmt),
    ("tidy", tidy::run),
    ("clippy", clippy),
    ("test", |workspace| test(workspace, &[])),
    ("smoke", bench::smoke),
    ("fuzz", |workspace| fuzz::run(workspace, &[])),
    ("e2e", |workspace| e2e::run(workspace, &[])),
    ("docs", |workspace| docs::run(workspace, Mode::Compare)),
];

/// Runs every step until one fails. Missing tools are settled before the first, so that nobody
/// waits for the tests to learn that a client was never there.
pub(crate) fn run(workspace: &Workspace, missing: Missing) -> Result<ExitCode> {
    let whole = Timer::start();
    heading("tools");
    if !tools::settle(workspace, missing)? {
        return Ok(ExitCode::FAILURE);
    }
    let mut done = Vec::new();
    let mut failed = None;
    for (name, step) in STEPS {
        heading(name);
        let timer = Timer::start();
        let outcome = step(workspace);
        println!("==> {name}: {}", timer.shown());
        done.push((*name, timer.shown()));
        if let Err(error) = outcome {
            failed = Some((*name, error));
            break;
        }
    }
    heading("summary");
    for (name, took) in &done {
        let verdict = match &failed {
            Some((step, _)) if step == name => "FAILED",
            _ => "ok",
        };
        println!("{name:<8} {verdict:<8} {took:>8}");
    }
    for (name, _) in STEPS.iter().skip(done.len()) {
        println!("{name:<8} not run");
    }
    println!("{:<8} {:<8} {:>8}", "all", "", whole.shown());
    let Some((step, error)) = failed else {
        return Ok(ExitCode::SUCCESS);
    };
    eprintln!("xtask: {step}: {error:#}");
    Ok(ExitCode::FAILURE)
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

fn heading(name: &str) {
    println!("\n==> {name}");
}
