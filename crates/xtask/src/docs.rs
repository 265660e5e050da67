//! Pages that the program writes about itself: `docs` compares them with what it prints today, so
//! that no setting, metric or command goes undocumented.

use std::fs;

use anyhow::{Context, Result, bail};

use crate::cmd::{Workspace, printed};

/// The topic that `s3-orchestrator docs` takes, and the file that holds what it prints.
const PAGES: &[(&str, &str)] = &[
    ("admin", "docs/admin.md"),
    ("config", "docs/configuration.md"),
    ("metrics", "docs/metrics.md"),
];

/// What to do where a page and the program disagree.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Fail, naming the first line that differs.
    Compare,
    /// Rewrite the page.
    Write,
}

/// Compares or rewrites every generated page.
pub(crate) fn run(workspace: &Workspace, mode: Mode) -> Result<()> {
    let mut stale = Vec::new();
    for (topic, file) in PAGES {
        let mut cargo = workspace.cargo();
        cargo.args([
            "run",
            "--quiet",
            "--locked",
            "--package",
            "orchestrator",
            "--",
        ]);
        let fresh = printed(cargo.args(["docs", topic]))?;
        let kept = fs::read_to_string(workspace.path(file)).unwrap_or_default();
        let Some(line) = first_difference(&kept, &fresh) else {
            continue;
        };
        match mode {
            Mode::Write => {
                fs::write(workspace.path(file), fresh)
                    .with_context(|| format!("writing {file}"))?;
                println!("{file}: rewritten");
            }
            Mode::Compare => {
                stale.push(format!(
                    "{file}:{line}: differs from `s3-orchestrator docs {topic}`, \
                     run `cargo xtask docs --write`"
                ));
            }
        }
    }
    if stale.is_empty() {
        return Ok(());
    }
    for line in &stale {
        eprintln!("{line}");
    }
    bail!("{} generated pages are stale", stale.len());
}

/// The first line, counted from one, at which two texts differ.
fn first_difference(kept: &str, fresh: &str) -> Option<usize> {
    if kept == fresh {
        return None;
    }
    let same = kept
        .lines()
        .zip(fresh.lines())
        .take_while(|(a, b)| a == b)
        .count();
    Some(same + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_texts_do_not_differ_and_a_longer_one_differs_behind_the_shorter() {
        assert_eq!(first_difference("a\nb\n", "a\nb\n"), None);
        assert_eq!(first_difference("a\nb\n", "a\nc\n"), Some(2));
        assert_eq!(first_difference("a\n", "a\nb\n"), Some(2));
        assert_eq!(first_difference("", "a\n"), Some(1));
        assert_eq!(first_difference("a", "a\n"), Some(2));
    }
}
