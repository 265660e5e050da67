//! A crate is a promise about who may call whom: the edges between our crates must be those that
//! the table in ARCHITECTURE.md draws.

use std::collections::{BTreeMap, BTreeSet};

use cargo_metadata::{DependencyKind, Metadata};

use super::Finding;

const FILE: &str = "ARCHITECTURE.md";
/// The first cell of the table's head; `uses` and `also, in tests` follow it.
const HEAD: &str = "| crate | uses | also, in tests |";

/// One crate of ours uses another one of ours.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Edge {
    from: String,
    to: String,
    kind: Kind,
    manifest_line: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Always,
    Tests,
}

/// The edges that the manifests really have.
pub(super) fn real(metadata: &Metadata) -> Vec<Edge> {
    let members: BTreeSet<_> = metadata
        .workspace_packages()
        .iter()
        .map(|package| package.name.to_string())
        .collect();
    let mut edges = Vec::new();
    for package in metadata.workspace_packages() {
        let manifest = std::fs::read_to_string(&package.manifest_path).unwrap_or_default();
        for dependency in &package.dependencies {
            if !members.contains(&dependency.name) || dependency.name == *package.name {
                continue;
            }
            let line = manifest.lines().position(|line| {
                line.strip_prefix(&dependency.name)
                    .is_some_and(|rest| rest.starts_with([' ', '.']))
            });
            edges.push(Edge {
                from: package.name.to_string(),
                to: dependency.name.clone(),
                kind: match dependency.kind {
                    DependencyKind::Development => Kind::Tests,
                    _ => Kind::Always,
                },
                manifest_line: line.map_or(1, |line| line + 1),
            });
        }
        // A crate with no edges of its own must still have its row.
        edges.push(Edge {
            from: package.name.to_string(),
            to: package.name.to_string(),
            kind: Kind::Tests,
            manifest_line: 1,
        });
    }
    edges
}

struct Row {
    always: BTreeSet<String>,
    tests: BTreeSet<String>,
}

/// Compares what is drawn with what is.
pub(super) fn check(architecture: &str, edges: &[Edge]) -> Vec<Finding> {
    let Some(rows) = drawn(architecture) else {
        let what = format!("no table that begins with `{HEAD}`");
        return vec![Finding::new(
            (FILE, 1),
            what,
            "draw the edges between our crates there",
        )];
    };
    let mut findings = Vec::new();
    for edge in edges {
        let manifest = format!("crates/{}/Cargo.toml", edge.from);
        let Some((_, row)) = rows.get(&edge.from) else {
            if edge.from == edge.to {
                let what = format!("crate {} has no row in {FILE}", edge.from);
                findings.push(Finding::new((&manifest, 1), what, "give it one"));
            }
            continue;
        };
        let allowed = edge.from == edge.to
            || row.always.contains(&edge.to)
            || (edge.kind == Kind::Tests && row.tests.contains(&edge.to));
        if !allowed {
            findings.push(Finding::new(
                (&manifest, edge.manifest_line),
                format!(
                    "{} uses {}, an edge that {FILE} does not draw",
                    edge.from, edge.to
                ),
                "go through a crate it may use, or argue for the edge there",
            ));
        }
    }
    for (name, (line, _)) in &rows {
        if !edges.iter().any(|edge| edge.from == *name) {
            let what = format!("a row for {name}, which is no crate of ours");
            findings.push(Finding::new((FILE, *line), what, "remove the row"));
        }
    }
    findings
}

/// The rows of the table by crate, with their line numbers.
fn drawn(architecture: &str) -> Option<BTreeMap<String, (usize, Row)>> {
    let mut lines = architecture
        .lines()
        .enumerate()
        .skip_while(|(_, line)| !line.starts_with(HEAD));
    lines.next()?;
    let mut rows = BTreeMap::new();
    for (number, line) in lines.skip(1).take_while(|(_, line)| line.starts_with('|')) {
        let mut cells = line.split('|').skip(1).map(quoted);
        let mut cell = || cells.next().unwrap_or_default();
        let names = cell();
        let row = Row {
            always: cell(),
            tests: cell(),
        };
        if let Some(name) = names.into_iter().next() {
            rows.insert(name, (number + 1, row));
        }
    }
    Some(rows)
}

/// The words in backticks.
fn quoted(cell: &str) -> BTreeSet<String> {
    cell.split('`')
        .skip(1)
        .step_by(2)
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "# A\n\n| crate | uses | also, in tests | owns |\n|---|---|---|---|\n\
        | `base` | nothing of ours | | time |\n\
        | `engine` | `base`, `backend` | `s3wire` | verbs |\n";

    fn edge(from: &str, to: &str, kind: Kind) -> Edge {
        Edge {
            from: from.into(),
            to: to.into(),
            kind,
            manifest_line: 7,
        }
    }

    fn check_with(edges: Vec<Edge>) -> Vec<String> {
        let mut all = vec![
            edge("base", "base", Kind::Tests),
            edge("engine", "engine", Kind::Tests),
        ];
        all.extend(edges);
        check(TABLE, &all).iter().map(Finding::to_string).collect()
    }

    #[test]
    fn a_drawn_edge_passes() {
        assert!(check_with(vec![edge("engine", "backend", Kind::Always)]).is_empty());
        assert!(check_with(vec![edge("engine", "s3wire", Kind::Tests)]).is_empty());
    }

    #[test]
    fn an_edge_that_is_not_drawn_fails_with_its_place() {
        assert_eq!(
            check_with(vec![edge("base", "engine", Kind::Always)]),
            [
                "crates/base/Cargo.toml:7: base uses engine, an edge that ARCHITECTURE.md does not \
              draw, go through a crate it may use, or argue for the edge there"
            ]
        );
    }

    #[test]
    fn an_edge_drawn_for_tests_only_fails_in_production() {
        assert_eq!(
            check_with(vec![edge("engine", "s3wire", Kind::Always)]).len(),
            1
        );
    }

    #[test]
    fn a_crate_without_a_row_and_a_row_without_a_crate_fail() {
        assert_eq!(
            check_with(vec![edge("bench", "bench", Kind::Tests)]).len(),
            1
        );
        let findings = check(TABLE, &[edge("base", "base", Kind::Tests)]);
        assert_eq!(findings.len(), 1);
        assert_eq!(
            (findings[0].file.as_str(), findings[0].line),
            ("ARCHITECTURE.md", 6)
        );
    }

    #[test]
    fn a_page_without_the_table_fails() {
        assert_eq!(check("# A\n", &[]).len(), 1);
    }
}
