//! Every crate takes its lints, versions and edition from the workspace, and the lock file grows
//! only on purpose.

use std::fs;

use anyhow::{Context, Result};

use super::Finding;
use crate::cmd::Workspace;

/// Raised by a commit that says what the new packages are worth.
const LOCKED_PACKAGES_MAX: usize = 320;
const INHERITED: &[&str] = &["version", "edition", "rust-version", "license", "publish"];

/// The manifest of every crate, by its path.
pub(super) fn read(workspace: &Workspace) -> Result<Vec<(String, String)>> {
    let mut manifests = Vec::new();
    for entry in fs::read_dir(workspace.path("crates")).context("listing crates")? {
        let name = entry?.file_name();
        let path = format!("crates/{}/Cargo.toml", name.to_string_lossy());
        if workspace.path(&path).is_file() {
            let text = workspace.read(&path)?;
            manifests.push((path, text));
        }
    }
    Ok(manifests)
}

/// Rules on one manifest. Lines are enough here: cargo has parsed the file before us.
pub(super) fn check(path: &str, text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut inherits_lints = false;
    let mut inherited = Vec::new();
    let mut section = "";
    for (number, line) in text.lines().enumerate() {
        let line = line.split_once('#').map_or(line, |(code, _)| code).trim();
        if line.starts_with('[') {
            section = line.trim_matches(['[', ']']);
            continue;
        }
        let Some((key, value)) = line.split_once('=') else {
            continue;
        };
        let (key, value) = (key.trim(), value.trim());
        if section == "package" && value == "true" {
            inherited.extend(key.strip_suffix(".workspace"));
        }
        inherits_lints |= section == "lints" && key == "workspace" && value == "true";
        if section.ends_with("dependencies") && !names_no_version(key, value) {
            findings.push(Finding::new(
                (path, number + 1),
                format!("{key} does not come from the workspace"),
                "name it in [workspace.dependencies] and write `workspace = true` here",
            ));
        }
    }
    if !inherits_lints {
        let instead = "add `[lints]` with `workspace = true`";
        findings.push(Finding::new(
            (path, 1),
            "the workspace's lints are not inherited",
            instead,
        ));
    }
    for key in INHERITED.iter().filter(|key| !inherited.contains(key)) {
        findings.push(Finding::new(
            (path, 1),
            format!("{key} is not inherited"),
            format!("write `{key}.workspace = true`"),
        ));
    }
    findings
}

/// Taken from the workspace, or the crate itself (which tests name to turn its features on).
fn names_no_version(key: &str, value: &str) -> bool {
    key.ends_with(".workspace")
        || value.contains("workspace = true")
        || value.contains("path = \".\"")
}

/// The lock file's size.
pub(super) fn check_lock(lock: &str) -> Vec<Finding> {
    let packages = lock.lines().filter(|line| *line == "[[package]]").count();
    if packages <= LOCKED_PACKAGES_MAX {
        return Vec::new();
    }
    vec![Finding::new(
        ("Cargo.lock", 1),
        format!("{packages} packages, more than {LOCKED_PACKAGES_MAX}"),
        "do with less, or raise LOCKED_PACKAGES_MAX in a commit that says why",
    )]
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "[package]\nname = \"x\"\nversion.workspace = true\n\
        edition.workspace = true\nrust-version.workspace = true\nlicense.workspace = true\n\
        publish.workspace = true\n\n[lints]\nworkspace = true\n\n[dependencies]\n\
        base.workspace = true # vocabulary\n\n[dev-dependencies]\n\
        tokio = { workspace = true, features = [\"test-util\"] }\n\
        x = { path = \".\", features = [\"testing\"] }\n";

    fn shown(text: &str) -> Vec<String> {
        check("crates/x/Cargo.toml", text)
            .iter()
            .map(Finding::to_string)
            .collect()
    }

    #[test]
    fn a_crate_that_takes_everything_from_the_workspace_passes() {
        assert_eq!(shown(GOOD), [""; 0]);
    }

    #[test]
    fn a_dependency_with_a_version_of_its_own_fails_at_its_line() {
        let found = shown(&GOOD.replace("base.workspace = true", "base = \"1\""));
        assert_eq!(found.len(), 1);
        assert!(
            found[0].starts_with("crates/x/Cargo.toml:13: base does not"),
            "{}",
            found[0]
        );
    }

    #[test]
    fn a_crate_without_the_lints_or_an_inherited_key_fails() {
        assert_eq!(
            shown(&GOOD.replace("[lints]\nworkspace = true", "")).len(),
            1
        );
        for key in INHERITED {
            let text = GOOD.replace(&format!("{key}.workspace = true\n"), "");
            assert!(
                shown(&text).iter().any(|found| found.contains(key)),
                "{key}"
            );
        }
    }

    #[test]
    fn a_lock_file_past_its_limit_fails() {
        let lock = "[[package]]\n".repeat(LOCKED_PACKAGES_MAX);
        assert!(check_lock(&lock).is_empty());
        assert_eq!(check_lock(&(lock + "[[package]]\n")).len(), 1);
    }
}
