//! Benchmarks: built for release, run, and kept in the page that shows them.

use std::fs;
use std::process::Stdio;

use anyhow::{Context, Result, bail};

use crate::cmd::{Workspace, printed, succeed};

/// Where the figures stand.
const PAGE: &str = "docs/performance.md";

/// Runs a benchmark of what is built for release. With `--write` what it prints takes the place of
/// what the page has of it.
pub(crate) fn run(workspace: &Workspace, what: &str, options: &[&str]) -> Result<()> {
    let is_kept = options.contains(&"--write");
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
    if !is_kept {
        return succeed(&mut bench);
    }
    let fresh = printed(bench.stderr(Stdio::inherit()))?;
    keep(workspace, PAGE, &format!("bench {what}"), &fresh)
}

/// Runs the program against an older build of it. The figures are of two builds and belong on no page.
pub(crate) fn against_baseline(workspace: &Workspace, args: &[&str]) -> Result<()> {
    let Some((file, options)) = args.split_first() else {
        bail!("--baseline needs the file of an older build");
    };
    if options.contains(&"--write") {
        bail!("--write keeps the figures of one build, not of --baseline");
    }
    // The benchmark runs elsewhere.
    let file = fs::canonicalize(file).with_context(|| format!("looking for {file}"))?;
    let file = file
        .to_str()
        .context("the path of the older build is not UTF-8")?;
    let options: Vec<&str> = ["--baseline", file]
        .iter()
        .chain(options)
        .copied()
        .collect();
    run(workspace, "s3", &options)
}

/// Puts fresh figures into a page, between the marks of what they are of.
pub(crate) fn keep(workspace: &Workspace, file: &str, what: &str, fresh: &str) -> Result<()> {
    let path = workspace.path(file);
    let page = fs::read_to_string(&path).with_context(|| format!("reading {file}"))?;
    let page = replaced(&page, what, fresh).with_context(|| format!("rewriting {file}"))?;
    fs::write(&path, page).with_context(|| format!("writing {file}"))?;
    println!("{file}: the figures of `{what}` are rewritten");
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

/// The page with other text between the marks.
fn replaced(page: &str, what: &str, fresh: &str) -> Result<String> {
    let marks = (
        format!("<!-- {what} -->\n"),
        format!("<!-- end of {what} -->"),
    );
    let place = || format!("there is no place for `{what}`: {}", marks.0.trim());
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
        let new = replaced(page, "bench x", "new\n\n").unwrap();
        assert_eq!(new, page.replace("old", "new"));
        assert_eq!(replaced(&new, "bench x", "old").unwrap(), page);
        let error = replaced(page, "bench y", "new").unwrap_err().to_string();
        assert!(error.contains("<!-- bench y -->"), "{error}");
    }
}
