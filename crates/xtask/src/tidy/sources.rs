//! Rules on source files: where SQL may be, where an S3 error gets its status, no glob imports.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use super::{
    Finding,
    facts::{self, Facts, Role},
};
use crate::cmd::Workspace;

/// The metastore has all SQL of the program; the testbed asks the servers that it starts about themselves.
const SQL_OWNERS: [&str; 2] = ["crates/metastore/", "crates/testbed/"];
/// Codes know their status; the front renders them and its pages in one file, and the admin API,
/// which is no S3, in one below it.
const STATUS_OWNERS: &[&str] = &[
    "crates/s3wire/src/code.rs",
    "crates/orchestrator/src/front/render.rs",
    "crates/orchestrator/src/front/render/admin.rs",
];
/// Clients, of backends and of the admin API, read the status codes that others send; they send none.
const STATUS_READERS: &[&str] = &[
    "crates/backend/",
    "crates/orchestrator/src/admin/client.rs",
    "crates/xtask/",
];
const GENERATED_LINES_MAX: usize = 100_000;

/// A parsed file.
pub(super) struct Source {
    /// Relative to the root of the workspace, with forward slashes.
    pub(super) path: String,
    pub(super) role: Role,
    pub(super) lines: usize,
    pub(super) facts: Facts,
}

impl Source {
    fn parse(path: String, text: &str, role: Role) -> Result<Self> {
        let facts = facts::gather(text, role).with_context(|| format!("parsing {path}"))?;
        Ok(Self {
            path,
            role,
            lines: text.lines().count().min(GENERATED_LINES_MAX),
            facts,
        })
    }

    #[cfg(test)]
    pub(super) fn parsed(path: &str, text: &str) -> Self {
        Self::parse(path.to_owned(), text, role_by_path(path)).expect("the test's text is Rust")
    }

    /// Lines that are compiled into the program.
    pub(super) fn production_lines(&self) -> usize {
        match self.role {
            Role::Production => self.lines.saturating_sub(self.facts.test_lines),
            Role::Test => 0,
        }
    }
}

/// Reads every Rust file of every crate.
pub(super) fn read(workspace: &Workspace) -> Result<Vec<Source>> {
    let mut paths = Vec::new();
    collect(&workspace.path("crates"), &mut paths)?;
    paths.sort();
    let mut sources = Vec::new();
    for path in paths {
        let relative = path
            .strip_prefix(workspace.root())
            .unwrap_or(&path)
            .display()
            .to_string();
        let text = fs::read_to_string(&path).with_context(|| format!("reading {relative}"))?;
        let role = role_by_path(&relative);
        sources.push(Source::parse(relative, &text, role)?);
    }
    let tests: BTreeSet<String> = sources.iter().flat_map(test_files).collect();
    for source in &mut sources {
        let inside = tests.iter().any(|file| {
            source.path == format!("{file}.rs") || source.path.starts_with(&format!("{file}/"))
        });
        if inside && source.role == Role::Production {
            let text = workspace.read(&source.path)?;
            *source = Source::parse(source.path.clone(), &text, Role::Test)?;
        }
    }
    Ok(sources)
}

fn collect(folder: &Path, paths: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("listing {}", folder.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, paths)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            paths.push(path);
        }
    }
    Ok(())
}

fn role_by_path(path: &str) -> Role {
    let test = path
        .split('/')
        .any(|part| matches!(part, "tests" | "benches" | "tests.rs"));
    if test { Role::Test } else { Role::Production }
}

/// Where the modules lie that this file compiles for tests only, without their extension.
fn test_files(source: &Source) -> Vec<String> {
    let stem = source.path.strip_suffix(".rs").unwrap_or(&source.path);
    let folder = match stem.rsplit_once('/') {
        Some((folder, "lib" | "main" | "mod")) => folder,
        _ => stem,
    };
    source
        .facts
        .test_modules
        .iter()
        .map(|name| format!("{folder}/{name}"))
        .collect()
}

/// All rules on one file.
pub(super) fn check(source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    if !SQL_OWNERS
        .iter()
        .any(|owner| source.path.starts_with(owner))
    {
        for (line, text) in &source.facts.strings {
            if let Some(verb) = sql(text) {
                findings.push(Finding::new(
                    (&source.path, *line),
                    format!("SQL ({verb}) outside metastore"),
                    "add a method to crates/metastore and call that",
                ));
            }
        }
    }
    let sends = !STATUS_READERS
        .iter()
        .any(|prefix| source.path.starts_with(prefix));
    if sends && !STATUS_OWNERS.contains(&source.path.as_str()) {
        for (line, status) in &source.facts.statuses {
            if is_error_status(status) {
                findings.push(Finding::new(
                    (&source.path, *line),
                    format!("error status {status} outside the one renderer"),
                    format!(
                        "return an S3 error code; {} knows its status",
                        STATUS_OWNERS[0]
                    ),
                ));
            }
        }
    }
    for glob in &source.facts.globs {
        let allowed = glob.role == Role::Test && glob.from == "super";
        if !allowed {
            findings.push(Finding::new(
                (&source.path, glob.line),
                format!("glob import `{}::*`", glob.from),
                "name what is used (`use super::*` is for `mod tests` only)",
            ));
        }
    }
    findings
}

/// The verb, if a string reads like a statement.
fn sql(text: &str) -> Option<&'static str> {
    let words: Vec<String> = text
        .split_whitespace()
        .take(4_096)
        .map(str::to_ascii_uppercase)
        .collect();
    let word = |n: usize| words.get(n).map_or("", String::as_str);
    match (word(0), word(1)) {
        ("SELECT", _) if words.iter().any(|word| word == "FROM") => Some("SELECT"),
        ("INSERT", "INTO" | "OR") => Some("INSERT"),
        ("UPDATE", _) if word(2) == "SET" => Some("UPDATE"),
        ("DELETE", "FROM") => Some("DELETE"),
        ("CREATE" | "DROP" | "ALTER", "TABLE" | "INDEX" | "VIEW" | "TRIGGER") => Some("DDL"),
        ("PRAGMA", name) if !name.is_empty() => Some("PRAGMA"),
        ("BEGIN", "IMMEDIATE" | "EXCLUSIVE" | "DEFERRED") => Some("BEGIN"),
        _ => None,
    }
}

/// The names that `http::StatusCode` gives to 4xx and 5xx, or such a number.
fn is_error_status(status: &str) -> bool {
    if let Ok(number) = status.parse::<u16>() {
        return (400..600).contains(&number);
    }
    const NAMES: &[&str] = &[
        "BAD_REQUEST",
        "UNAUTHORIZED",
        "PAYMENT_REQUIRED",
        "FORBIDDEN",
        "NOT_FOUND",
        "METHOD_NOT_ALLOWED",
        "NOT_ACCEPTABLE",
        "REQUEST_TIMEOUT",
        "CONFLICT",
        "GONE",
        "LENGTH_REQUIRED",
        "PRECONDITION_FAILED",
        "PAYLOAD_TOO_LARGE",
        "URI_TOO_LONG",
        "UNSUPPORTED_MEDIA_TYPE",
        "RANGE_NOT_SATISFIABLE",
        "EXPECTATION_FAILED",
        "UNPROCESSABLE_ENTITY",
        "LOCKED",
        "PRECONDITION_REQUIRED",
        "TOO_MANY_REQUESTS",
        "REQUEST_HEADER_FIELDS_TOO_LARGE",
        "INTERNAL_SERVER_ERROR",
        "NOT_IMPLEMENTED",
        "BAD_GATEWAY",
        "SERVICE_UNAVAILABLE",
        "GATEWAY_TIMEOUT",
        "HTTP_VERSION_NOT_SUPPORTED",
        "INSUFFICIENT_STORAGE",
    ];
    NAMES.contains(&status)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(path: &str, text: &str) -> Vec<String> {
        check(&Source::parsed(path, text))
            .iter()
            .map(Finding::to_string)
            .collect()
    }

    #[test]
    fn sql_outside_the_metastore_is_found_also_inside_macros() {
        let plain = "fn f() {\n    run(\"select a\n from b\");\n}";
        assert_eq!(
            findings("crates/engine/src/get.rs", plain),
            [
                "crates/engine/src/get.rs:2: SQL (SELECT) outside metastore, \
              add a method to crates/metastore and call that"
            ]
        );
        let hidden = "fn f() { let s = format!(\"DELETE FROM {t}\"); }";
        assert_eq!(findings("crates/engine/src/get.rs", hidden).len(), 1);
        assert!(findings("crates/metastore/src/objects.rs", plain).is_empty());
    }

    #[test]
    fn prose_documentation_and_tests_may_say_select() {
        let prose = "/// SELECT a FROM b\nfn f() { log(\"select a bucket\"); }";
        assert!(findings("crates/engine/src/get.rs", prose).is_empty());
        let test = "#[cfg(test)]\nmod tests { fn f() { run(\"DELETE FROM blobs\"); } }";
        assert!(findings("crates/engine/src/get.rs", test).is_empty());
    }

    #[test]
    fn an_error_status_outside_the_renderer_is_found_in_all_its_forms() {
        for text in [
            "fn f() -> StatusCode { StatusCode::NOT_FOUND }",
            "fn f() -> StatusCode { http::StatusCode::BAD_GATEWAY }",
            "fn f() { let r = Response::builder().status(503); }",
            "fn f() { let s = StatusCode::from_u16(404); }",
            "fn f() { let s = vec![StatusCode::FORBIDDEN]; }",
        ] {
            assert_eq!(
                findings("crates/orchestrator/src/front/put.rs", text).len(),
                1,
                "{text}"
            );
            assert!(findings("crates/s3wire/src/code.rs", text).is_empty());
            assert!(findings("crates/orchestrator/src/front/render.rs", text).is_empty());
            assert!(findings("crates/backend/src/s3/classify.rs", text).is_empty());
        }
        let fine = "fn f() -> StatusCode { StatusCode::PARTIAL_CONTENT }";
        assert!(findings("crates/orchestrator/src/front/get.rs", fine).is_empty());
    }

    #[test]
    fn a_glob_import_is_found_unless_it_is_super_in_tests() {
        let glob = "use std::{fs, io::*};";
        assert_eq!(
            findings("crates/base/src/size.rs", glob),
            ["crates/base/src/size.rs:1: glob import `std::io::*`, \
              name what is used (`use super::*` is for `mod tests` only)"]
        );
        assert_eq!(
            findings("crates/base/src/size.rs", "pub use crate::id::*;").len(),
            1
        );
        assert_eq!(
            findings("crates/base/src/size.rs", "use super::*;").len(),
            1
        );
        let tests = "#[cfg(test)]\nmod tests { use super::*; }";
        assert!(findings("crates/base/src/size.rs", tests).is_empty());
        let other = "#[cfg(test)]\nmod tests { use proptest::prelude::*; }";
        assert_eq!(findings("crates/base/src/size.rs", other).len(), 1);
    }

    #[test]
    fn only_what_the_program_compiles_counts_as_production() {
        let text = "fn a() {}\n\n#[cfg(test)]\nmod tests {\n    fn b() {}\n}\n";
        let source = Source::parse("crates/x/src/a.rs".into(), text, Role::Production).unwrap();
        assert_eq!(source.production_lines(), 2);
        assert_eq!(source.facts.functions.len(), 1);
        let test = Source::parse("crates/x/tests/a.rs".into(), text, Role::Test).unwrap();
        assert_eq!(test.production_lines(), 0);
    }

    #[test]
    fn a_module_compiled_for_tests_only_is_found_where_it_lies() {
        let text = "#[cfg(any(test, feature = \"testing\"))]\nmod faulty;\n\
                    #[cfg(not(test))]\nmod real;";
        let parse = |path: &str| Source::parse(path.into(), text, Role::Production).unwrap();
        assert_eq!(
            test_files(&parse("crates/x/src/lib.rs")),
            ["crates/x/src/faulty"]
        );
        assert_eq!(
            test_files(&parse("crates/x/src/local.rs")),
            ["crates/x/src/local/faulty"]
        );
    }
}
