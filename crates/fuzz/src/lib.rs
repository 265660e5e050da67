//! Fuzz targets: everything that reads bytes from strangers, and what must hold of it.
//!
//! A target is a function from bytes to nothing that panics where a promise is broken. libFuzzer
//! calls it through the binaries of this crate (`cargo xtask fuzz`), and `cargo test` replays the
//! committed corpus and every input that once broke something (`tests/replay.rs`).

pub mod canonical;
pub mod chunked;
pub mod config;
pub mod form;
pub mod heads;
pub mod presigned;
pub mod ranges;
pub mod xml;

/// A target with the name of its corpus.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// The folder below `corpus` and `finds`.
    pub name: &'static str,
    /// The check.
    pub check: fn(&[u8]),
}

/// All targets.
pub const TARGETS: &[Target] = &[
    Target {
        name: "canonical",
        check: canonical::check,
    },
    Target {
        name: "chunked",
        check: chunked::check,
    },
    Target {
        name: "config",
        check: config::check,
    },
    Target {
        name: "form",
        check: form::check,
    },
    Target {
        name: "heads",
        check: heads::check,
    },
    Target {
        name: "presigned",
        check: presigned::check,
    },
    Target {
        name: "ranges",
        check: ranges::check,
    },
    Target {
        name: "xml",
        check: xml::check,
    },
];

/// Reads an input as lines: the parts of a request that have no line feed in them.
pub(crate) fn lines(data: &[u8]) -> Option<std::str::Lines<'_>> {
    std::str::from_utf8(data).ok().map(str::lines)
}
