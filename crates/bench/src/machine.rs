//! What was measured on.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::process::Command;
use std::thread::available_parallelism;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::figures::{Figure, rounded};

/// The machine in one sentence.
pub(crate) fn describe() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .map_or("an unknown processor", |rest| {
            rest.trim_start_matches([' ', '\t', ':'])
        });
    let cores = available_parallelism().map_or(0, usize::from);
    let kernel = rustix::system::uname();
    format!(
        "{cores} cores of {model}, Linux {}",
        kernel.release().to_string_lossy()
    )
}

/// The first line that a program says of its version.
pub(crate) fn version(program: &str) -> String {
    let output = Command::new(program).arg("--version").output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    let line = text.unwrap_or_default();
    line.lines().next().unwrap_or(program).to_owned()
}

/// How long it takes to make 4 KiB at the end of a file durable: what no commit can undercut.
pub(crate) fn durable_append(directory: &Path, time: Duration) -> Result<String> {
    let mut file = File::create(directory.join("durable")).context("making a file to sync")?;
    let (block, mut took) = ([7; 4096], Figure::default());
    let end = Instant::now() + time;
    while Instant::now() < end {
        let begun = Instant::now();
        file.write_all(&block).context("writing a block")?;
        file.sync_data().context("syncing a block")?;
        took.add(begun.elapsed().as_secs_f64() * 1e6);
    }
    Ok(format!("{} µs", rounded(took.median())))
}
