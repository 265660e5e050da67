//! The structure of the project, checked: what a compiler does not see and a reviewer forgets.
//!
//! Every rule is a pure function from what was read to findings, so that the tests can show each
//! of them failing. A finding says where, what, and what to do instead. Length is only reported.

mod bans;
mod edges;
mod facts;
mod length;
mod manifests;
mod promises;
mod sources;

use std::fmt;

use anyhow::{Result, bail};
use cargo_metadata::MetadataCommand;

use crate::cmd::Workspace;

/// One broken rule at one place.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Finding {
    file: String,
    line: usize,
    what: String,
    instead: String,
}

impl Finding {
    fn new(place: (&str, usize), what: impl Into<String>, instead: impl Into<String>) -> Self {
        let (file, line) = place;
        Self {
            file: file.to_owned(),
            line,
            what: what.into(),
            instead: instead.into(),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}:{}: {}, {}",
            self.file, self.line, self.what, self.instead
        )
    }
}

/// Checks everything, prints what is wrong, and fails if anything is.
pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    let metadata = MetadataCommand::new()
        .manifest_path(workspace.path("Cargo.toml"))
        .other_options(["--locked".to_owned()])
        .exec()?;
    let sources = sources::read(workspace)?;
    let lock = workspace.read("Cargo.lock")?;

    let mut findings = edges::check(&workspace.read("ARCHITECTURE.md")?, &edges::real(&metadata));
    findings.extend(bans::check(&bans::Graph::new(&metadata)?, &lock));
    findings.extend(manifests::check_lock(&lock));
    for (path, text) in manifests::read(workspace)? {
        findings.extend(manifests::check(&path, &text));
    }
    for source in &sources {
        findings.extend(sources::check(source));
    }
    for file in promises::FILES {
        findings.extend(promises::check(file, &workspace.read(file)?, &sources));
    }
    findings.sort();

    length::report(&sources);
    for finding in &findings {
        eprintln!("{finding}");
    }
    if !findings.is_empty() {
        bail!("{} findings", findings.len());
    }
    println!("tidy: {} files, nothing to mend", sources.len());
    Ok(())
}
