//! From the name of a file to a [`Config`].

use std::fs;
use std::io;
use std::path::Path;

use super::build::build;
use super::check::{CheckReport, KeyPosition, check_map, expand_all};
use super::document::{self, FILE_BYTES_MAX};
use super::environment::Environment;
use super::keys::group;
use super::problem::{ConfigError, Problem};
use super::types::Config;

/// A configuration, and what is worth telling about it.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// Things that work but probably are not meant, by line.
    pub warnings: Vec<Problem>,
}

/// Reads and checks a file.
///
/// # Errors
/// All problems of the file at once; a file that is not YAML has one only.
pub fn load(file: &Path, env: &dyn Environment) -> Result<Loaded, ConfigError> {
    let unreadable = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => ConfigError::Missing {
            file: file.to_owned(),
        },
        _ => ConfigError::Unreadable {
            file: file.to_owned(),
            source,
        },
    };
    let size = fs::metadata(file).map_err(unreadable)?.len();
    if size > FILE_BYTES_MAX {
        let what = format!("the file is larger than {FILE_BYTES_MAX} bytes");
        return Err(unreadable(io::Error::other(what)));
    }
    let text = fs::read_to_string(file).map_err(unreadable)?;
    parse(&text, file, env)
}

/// Checks the text of a file, which is named in the problems.
///
/// # Errors
/// As [`load`].
pub fn parse(text: &str, file: &Path, env: &dyn Environment) -> Result<Loaded, ConfigError> {
    let invalid = |problems| ConfigError::Invalid {
        file: file.to_owned(),
        problems,
    };
    let mut root = document::read(text).map_err(|problem| invalid(vec![problem]))?;
    let mut report = CheckReport::default();
    expand_all(&mut root, "", env, &mut report);
    let table = group("").expect("the table has the file itself");
    check_map(
        &mut root,
        table,
        KeyPosition {
            line: 1,
            path: String::new(),
        },
        &mut report,
    );
    let config = build(&root, &mut report);
    report.problems.sort_by_key(|problem| problem.line);
    report.warnings.sort_by_key(|problem| problem.line);
    match config {
        Some(config) if report.problems.is_empty() => Ok(Loaded {
            config,
            warnings: report.warnings,
        }),
        _ => Err(invalid(report.problems)),
    }
}
