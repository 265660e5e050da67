//! Benchmarks: built for release, run, and kept in the page that shows them.

use std::fs;
use std::process::Stdio;

use anyhow::{Context, Result};

use crate::cmd::{Workspace, printed, succeed};

/// Where the figures stand.
const PAGE: &str = "docs/performance.md";

/// Runs a benchmark of what is built for release. With `--write` what it prints takes the place of
/// what the page has of it.
pub(crate) fn run(workspace: &Workspace, what: &str, options: &[&str]) -> Result<()> {
    let keep = options.contains(&"--write");
    let options = options.iter().filter(|option| **option != "--write");
    build(
        workspace,
        &["--release", "--bin", "bench", "--bin", "s3-orchestrator"],
    )?;
    let release = workspace.target().join("release");
    let mut bench = workspace.command(release.join("bench"));
    bench.arg(what).args(options);
    if what == "s3" {
        bench.arg("--program").arg(release.join("s3-orchestrator"));
    }
    bench.current_dir(workspace.target());
    if !keep {
        return succeed(&mut bench);
    }
    let fresh = printed(bench.stderr(Stdio::inherit()))?;
    let page =
        fs::read_to_string(workspace.path(PAGE)).with_context(|| format!("reading {PAGE}"))?;
    let page = replaced(&page, what, &fresh)?;
    fs::write(workspace.path(PAGE), page).with_context(|| format!("writing {PAGE}"))?;
    println!("{PAGE}: the figures of `{what}` are rewritten");
    Ok(())
}

/// What must hold whatever the time says. A debug build: the tests have compiled nearly all of it.
pub(crate) fn smoke(workspace: &Workspace) -> Result<()> {
    build(workspace, &[])?;
    let debug = workspace.target().join("debug");
    let mut bench = workspace.command(debug.join("bench"));
    bench
        .arg("smoke")
        .arg("--program")
        .arg(debug.join("counted"));
    succeed(bench.current_dir(workspace.target()))
}

fn build(workspace: &Workspace, profile: &[&str]) -> Result<()> {
    let mut cargo = workspace.cargo();
    cargo.args([
        "build",
        "--locked",
        "--package",
        "bench",
        "--package",
        "orchestrator",
    ]);
    succeed(cargo.args(profile))
}

/// The page with other text between the marks of a benchmark.
fn replaced(page: &str, what: &str, fresh: &str) -> Result<String> {
    let marks = (
        format!("<!-- bench {what} -->\n"),
        format!("<!-- end of bench {what} -->"),
    );
    let place = || format!("{PAGE} has no place for `{what}`: {}", marks.0.trim());
    let (before, rest) = page.split_once(&marks.0).with_context(place)?;
    let (_, after) = rest.split_once(&marks.1).with_context(place)?;
    Ok([before, &marks.0, fresh.trim_end(), "\n", &marks.1, after].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_between_the_marks_changes() {
        let page = "a\n<!-- bench x -->\nold\n<!-- end of bench x -->\nb\n";
        let new = replaced(page, "x", "new\n\n").unwrap();
        assert_eq!(new, page.replace("old", "new"));
        assert_eq!(replaced(&new, "x", "old").unwrap(), page);
        let error = replaced(page, "y", "new").unwrap_err().to_string();
        assert!(error.contains("<!-- bench y -->"), "{error}");
    }
}
