//! Promises: each line of docs/semantics.md, docs/s3-compatibility.md and docs/security.md names the
//! test that proves it.

use std::collections::BTreeSet;

use super::{Finding, sources::Source};

pub(super) const FILES: [&str; 3] = [
    "docs/semantics.md",
    "docs/s3-compatibility.md",
    "docs/security.md",
];

/// Every row of every table there must name at least one test, and only tests that exist. Only a row
/// of three cells whose second begins with no promises nothing.
pub(super) fn check(file: &str, page: &str, sources: &[Source]) -> Vec<Finding> {
    let tests = sources
        .iter()
        .flat_map(|source| &source.facts.test_functions);
    let tests: BTreeSet<&str> = tests.map(String::as_str).collect();
    let mut findings = Vec::new();
    for (number, line) in page.lines().enumerate() {
        let is_row = line.starts_with('|') && !line.starts_with("|---");
        if !is_row || says_no(line) || line.ends_with("| test |") {
            continue;
        }
        let place = (file, number + 1);
        let last = line
            .trim_end_matches(['|', ' '])
            .rsplit('|')
            .next()
            .unwrap_or_default();
        let named: Vec<_> = last.split('`').skip(1).step_by(2).collect();
        if named.is_empty() {
            findings.push(Finding::new(
                place,
                "a promise without a test",
                "name one, or drop it",
            ));
        }
        for name in named.into_iter().filter(|name| !tests.contains(name)) {
            let what = format!("there is no test {name}");
            findings.push(Finding::new(
                place,
                what,
                "name the test that proves this promise",
            ));
        }
    }
    findings
}

/// Whether a row with a cell for what is supported says that its matter is not.
fn says_no(row: &str) -> bool {
    let cells: Vec<_> = row.trim_matches('|').split('|').collect();
    matches!(cells[..], [_, support, _] if support.trim().split(',').next() == Some("no"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_promise_needs_tests_that_exist() {
        let text = "#[cfg(test)]\nmod tests {\n    #[test]\n    fn it_holds() {}\n    \
                    proptest! { #[test] fn it_always_holds(n in 0..9) {} }\n}\nfn other() {}";
        let source = Source::parsed("crates/x/src/a.rs", text);
        let sources = [source];
        let found = |last: &str| {
            let page = format!("| promise | test |\n|---|---|\n| it holds | {last} |\n");
            check("docs/semantics.md", &page, &sources)
                .iter()
                .map(Finding::to_string)
                .collect::<Vec<_>>()
        };
        assert!(found("`it_holds`").is_empty());
        assert!(found("`it_holds`, `it_always_holds`").is_empty());
        assert_eq!(
            found("`it_flies`"),
            ["docs/semantics.md:3: there is no test it_flies, \
              name the test that proves this promise"]
        );
        assert_eq!(found("`other`").len(), 1, "production code proves nothing");
        for last in ["soon", "no", ""] {
            assert_eq!(found(last).len(), 1, "{last}");
        }
    }

    #[test]
    fn only_what_begins_with_no_needs_no_test() {
        let found = |row: &str| {
            let page = format!("| header | supported | test |\n|---|---|---|\n{row}\n");
            check("docs/s3-compatibility.md", &page, &[]).len()
        };
        for row in ["| x | no | |", "| x | no, as in Amazon S3 | |"] {
            assert_eq!(found(row), 0, "{row}");
        }
        for row in [
            "| x | yes | |",
            "| no | yes | |",
            "| x | yes, no more | |",
            "| x | none | no |",
            "| x | not more than 5 | |",
        ] {
            assert_eq!(found(row), 1, "{row}");
        }
    }
}
