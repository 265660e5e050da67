//! Replays what fuzzing has found: the minimised corpus, and every input that once broke a promise.

use std::fs;
use std::path::{Path, PathBuf};

use fuzz::{TARGETS, Target};

/// The inputs of one target below a folder of this crate, by name.
fn inputs(folder: &str, target: &Target) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join(folder)
        .join(target.name);
    let Ok(entries) = fs::read_dir(&folder) else {
        return Vec::new();
    };
    let mut paths: Vec<_> = entries
        .map(|entry| entry.expect("the folder is read").path())
        .collect();
    paths.sort();
    let read = |path: PathBuf| {
        let bytes = fs::read(&path).expect("the input is read");
        (path, bytes)
    };
    paths.into_iter().map(read).collect()
}

#[test]
fn the_corpus_of_every_target_holds() {
    for target in TARGETS {
        let corpus = inputs("corpus", target);
        assert!(!corpus.is_empty(), "{} has no corpus", target.name);
        for (path, bytes) in corpus {
            println!("{}", path.display());
            (target.check)(&bytes);
        }
    }
}

#[test]
fn what_was_found_once_stays_mended() {
    let mut names = Vec::new();
    for target in TARGETS {
        for (path, bytes) in inputs("finds", target) {
            println!("{}", path.display());
            (target.check)(&bytes);
            names.extend(
                path.file_name()
                    .map(|name| name.to_string_lossy().into_owned()),
            );
        }
    }
    assert_eq!(
        names,
        [
            "a-long-line-that-is-no-size",
            "a-deep-nesting",
            "one-signed-name-again-and-again"
        ]
    );
}
