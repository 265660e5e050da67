//! The configuration file: any text is a configuration, or a list of problems with a place each.

use std::path::Path;

use orchestrator::config::{ConfigError, NoEnvironment, parse};

/// Checks one file.
pub fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    // Files that the text names would be opened, and what is in them is not ours to try.
    if text.contains("_file") {
        return;
    }
    match parse(text, Path::new("config.yaml"), &NoEnvironment) {
        Ok(loaded) => {
            assert!(!loaded.config.buckets.is_empty(), "no bucket, no problem");
            assert!(!loaded.config.backends.is_empty(), "no backend, no problem");
        }
        Err(ConfigError::Invalid { problems, .. }) => {
            assert!(!problems.is_empty(), "refused without a reason");
        }
        Err(other) => panic!("a text cannot be {other}"),
    }
}
