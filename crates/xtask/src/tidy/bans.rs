//! Crates that must not come into the program, each with what to use instead, and crates that one
//! of ours owns. Dev-dependencies are free: a test may compare us with anything.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use anyhow::{Context, Result};
use cargo_metadata::{DependencyKind, Metadata};

use super::Finding;

const LOCK: &str = "Cargo.lock";

/// A name, or a prefix that ends in a star, and the replacement.
const BANNED: &[(&str, &str)] = &[
    ("openssl-sys", "use rustls with ring"),
    ("native-tls", "use rustls with ring"),
    ("boring-sys", "use rustls with ring"),
    ("s2n-tls", "use rustls with ring"),
    ("mbedtls", "use rustls with ring"),
    (
        "aws-lc-rs",
        "turn on rustls's feature `ring` and turn its defaults off",
    ),
    (
        "aws-lc-sys",
        "turn on rustls's feature `ring` and turn its defaults off",
    ),
    ("aws-sdk-*", "use the client in crates/backend/src/s3"),
    ("reqwest", "use hyper-util's client, as crates/backend does"),
    ("sqlx", "use rusqlite, in crates/metastore"),
    ("sqlx-*", "use rusqlite, in crates/metastore"),
    ("chrono", "use base::Timestamp and httpdate"),
    ("serde_yaml", "use serde-saphyr"),
];

/// A second version of one of these would be a second stack of its kind in one program.
const ONCE: &[&str] = &["rustls", "ring", "hyper", "tokio", "http", "rusqlite"];

/// Heavy crates have one owner; the others go through it.
const OWNED: &[(&str, &str)] = &[
    ("rusqlite", "metastore"),
    ("hyper-rustls", "backend"),
    ("quick-xml", "s3wire"),
    ("clap", "orchestrator"),
];

/// Who brings whom into the program: normal and build dependencies from our crates on.
pub(super) struct Graph {
    /// From a package to the one that first brought it; ours have none.
    brought_by: BTreeMap<Package, Option<Package>>,
    /// Direct dependencies of our crates.
    direct: BTreeSet<(String, String)>,
}

type Package = (String, String);

impl Graph {
    pub(super) fn new(metadata: &Metadata) -> Result<Self> {
        let resolve = metadata
            .resolve
            .as_ref()
            .context("cargo metadata resolved nothing")?;
        let package_of: BTreeMap<_, _> = metadata
            .packages
            .iter()
            .map(|package| {
                (
                    &package.id,
                    (package.name.to_string(), package.version.to_string()),
                )
            })
            .collect();
        let node_of: BTreeMap<_, _> = resolve.nodes.iter().map(|node| (&node.id, node)).collect();
        let mut graph = Self {
            brought_by: BTreeMap::new(),
            direct: BTreeSet::new(),
        };
        let mut queue: VecDeque<_> = metadata.workspace_members.iter().collect();
        for member in &metadata.workspace_members {
            graph.brought_by.insert(package_of[member].clone(), None);
        }
        while let Some(id) = queue.pop_front() {
            let Some(node) = node_of.get(id) else {
                continue;
            };
            for dependency in &node.deps {
                let only_tests = dependency
                    .dep_kinds
                    .iter()
                    .all(|d| d.kind == DependencyKind::Development);
                if only_tests {
                    continue;
                }
                let (from, to) = (&package_of[id], &package_of[&dependency.pkg]);
                if metadata.workspace_members.contains(id) {
                    graph.direct.insert((from.0.clone(), to.0.clone()));
                }
                if !graph.brought_by.contains_key(to) {
                    graph.brought_by.insert(to.clone(), Some(from.clone()));
                    queue.push_back(&dependency.pkg);
                }
            }
        }
        Ok(graph)
    }

    /// How a package comes in, from one of ours to it.
    fn chain(&self, package: &Package) -> String {
        let mut names = vec![package.0.as_str()];
        let mut at = package;
        while let Some(Some(from)) = self.brought_by.get(at) {
            names.push(&from.0);
            at = from;
        }
        names.reverse();
        names.join(" -> ")
    }
}

/// All bans.
pub(super) fn check(graph: &Graph, lock: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    for package in graph.brought_by.keys() {
        let Some((_, instead)) = BANNED.iter().find(|(name, _)| matches(name, &package.0)) else {
            continue;
        };
        findings.push(Finding::new(
            (LOCK, lock_line(lock, &package.0)),
            format!(
                "{} is banned and comes in by {}",
                package.0,
                graph.chain(package)
            ),
            *instead,
        ));
    }
    for name in ONCE {
        let versions: Vec<_> = graph
            .brought_by
            .keys()
            .filter(|package| package.0 == *name)
            .collect();
        if let [_, .., second] = versions.as_slice() {
            findings.push(Finding::new(
                (LOCK, lock_line(lock, name)),
                format!(
                    "{} versions of {name}, one by {}",
                    versions.len(),
                    graph.chain(second)
                ),
                "bring the users of both to one version",
            ));
        }
    }
    for (name, owner) in OWNED {
        for (from, _) in graph.direct.iter().filter(|(_, to)| to == name) {
            if from != owner {
                findings.push(Finding::new(
                    (&format!("crates/{from}/Cargo.toml"), 1),
                    format!("{from} depends on {name}, which {owner} owns"),
                    format!("go through {owner}"),
                ));
            }
        }
    }
    findings
}

fn matches(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => name.starts_with(prefix),
        None => name == pattern,
    }
}

fn lock_line(lock: &str, name: &str) -> usize {
    let wanted = format!("name = \"{name}\"");
    lock.lines()
        .position(|line| line == wanted)
        .map_or(1, |line| line + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(name: &str, version: &str) -> Package {
        (name.into(), version.into())
    }

    fn graph(edges: &[(Package, Package)]) -> Graph {
        let ours = package("backend", "0.1.0");
        let mut graph = Graph {
            brought_by: BTreeMap::from([(ours.clone(), None)]),
            direct: BTreeSet::new(),
        };
        for (from, to) in edges {
            if *from == ours {
                graph.direct.insert((from.0.clone(), to.0.clone()));
            }
            graph.brought_by.insert(to.clone(), Some(from.clone()));
        }
        graph
    }

    fn shown(graph: &Graph) -> Vec<String> {
        let lock = "[[package]]\nname = \"native-tls\"\n";
        check(graph, lock).iter().map(Finding::to_string).collect()
    }

    #[test]
    fn a_banned_crate_is_named_with_its_way_in_and_its_replacement() {
        let ours = package("backend", "0.1.0");
        let (http, tls) = (
            package("some-http", "1.0.0"),
            package("native-tls", "0.2.0"),
        );
        assert_eq!(
            shown(&graph(&[(ours, http.clone()), (http, tls)])),
            ["Cargo.lock:2: native-tls is banned and comes in by \
              backend -> some-http -> native-tls, use rustls with ring"]
        );
    }

    #[test]
    fn a_ban_on_a_family_meets_every_member() {
        let ours = package("backend", "0.1.0");
        assert_eq!(
            shown(&graph(&[(ours, package("aws-sdk-s3", "1.0.0"))])).len(),
            1
        );
    }

    #[test]
    fn two_versions_of_one_stack_fail() {
        let ours = package("backend", "0.1.0");
        let edges = [
            (ours.clone(), package("rustls", "0.23.0")),
            (ours, package("rustls", "0.24.0")),
        ];
        assert_eq!(shown(&graph(&edges)).len(), 1);
        assert!(shown(&graph(&edges[..1])).is_empty());
    }

    #[test]
    fn a_crate_that_another_of_ours_owns_fails() {
        let ours = package("backend", "0.1.0");
        assert_eq!(
            shown(&graph(&[(ours, package("rusqlite", "0.41.0"))])),
            [
                "crates/backend/Cargo.toml:1: backend depends on rusqlite, which metastore owns, \
              go through metastore"
            ]
        );
    }

    #[test]
    fn this_workspace_is_what_the_graph_is_read_from() {
        let metadata = cargo_metadata::MetadataCommand::new().exec().unwrap();
        let graph = Graph::new(&metadata).unwrap();
        assert!(graph.direct.contains(&("xtask".into(), "syn".into())));
        assert!(
            graph
                .brought_by
                .keys()
                .any(|package| package.0 == "proc-macro2")
        );
    }
}
