//! Pages of listings over catalogues of different sizes: a page must not cost more because there are
//! more keys beside it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::Effort;
use crate::catalogue::Alone;
use crate::contenders::{Catalogue, Program, command};
use crate::figures::{Figure, rounded, table};
use crate::load::{Load, Pace, Until, fire};
use crate::target::{Shot, Target};

/// Where catalogues are kept from one run to the next, below the build results.
const KEPT: &str = "bench";
/// Keys under one prefix: a page of prefixes skips a thousand times as many keys.
const KEYS_PER_PREFIX: u64 = 100;
/// Different pages that are asked for.
const PAGES: u64 = 200;

/// One catalogue with the program on it.
struct Listed {
    keys: u64,
    program: Program,
    target: Target,
    flat: Figure,
    by_prefix: Figure,
}

fn name(n: u64) -> String {
    format!("d{:07}/f{n:09}", n / KEYS_PER_PREFIX)
}

/// The folder of a catalogue with so many keys, which is made where it is not there yet.
async fn folder(keys: u64) -> Result<PathBuf> {
    let folder = Path::new(KEPT).join(format!("list-{keys}"));
    let complete = folder.join("complete");
    if !complete.exists() {
        eprintln!("writing a catalogue of {keys} keys");
        let _not_there = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).context("making a folder for a catalogue")?;
        let alone = Alone::new(&folder).await?;
        alone.fill(keys, name).await?;
        alone.close().await?;
        fs::write(complete, "")?;
    }
    Ok(fs::canonicalize(folder)?)
}

/// Measures pages, and makes the table; the ratio of the largest catalogue's pages to the smallest's.
pub(crate) async fn run(program: &Path, sizes: &[u64], effort: Effort) -> Result<(String, f64)> {
    let mut all = Vec::new();
    for keys in sizes {
        let folder = folder(*keys).await?;
        let backends = format!(
            "- name: backend\n  kind: local\n  path: {}\n",
            folder.join("objects").display()
        );
        let program = Program::start(command(program), &folder, &Catalogue::File, &backends, None)?;
        let target = program.target(&format!("{keys} keys"))?;
        all.push(Listed {
            keys: *keys,
            program,
            target,
            flat: Figure::default(),
            by_prefix: Figure::default(),
        });
    }
    for turn in 0..effort.turns {
        eprintln!("turn {} of {}: listings", turn + 1, effort.turns);
        for listed in &mut all {
            let flat = p50(listed, "list-type=2&max-keys=1000&start-after=", effort).await?;
            listed.flat.add(flat);
            let by_prefix = "delimiter=%2F&list-type=2&max-keys=1000&start-after=";
            let by_prefix = p50(listed, by_prefix, effort).await?;
            listed.by_prefix.add(by_prefix);
        }
    }
    let rows: Vec<Vec<String>> = all
        .iter()
        .map(|listed| {
            let of_first = |figure: &Figure, first: &Figure| {
                format!("{:.2}", figure.median() / first.median())
            };
            vec![
                rounded(listed.keys as f64),
                listed.flat.show(),
                of_first(&listed.flat, &all[0].flat),
                listed.by_prefix.show(),
                of_first(&listed.by_prefix, &all[0].by_prefix),
            ]
        })
        .collect();
    let text = table(
        &[
            "keys",
            "1,000 keys: p50 µs",
            "of the first",
            "1,000 prefixes: p50 µs",
            "of the first",
        ],
        &rows,
    );
    let (first, last) = (all.first(), all.last());
    let ratio = match (first, last) {
        (Some(first), Some(last)) => f64::max(
            last.flat.median() / first.flat.median(),
            last.by_prefix.median() / first.by_prefix.median(),
        ),
        _ => f64::NAN,
    };
    for listed in all {
        listed.program.running.stop()?;
    }
    Ok((text, ratio))
}

/// The median latency of pages that begin all over the catalogue, one at a time.
async fn p50(listed: &Listed, query: &str, effort: Effort) -> Result<f64> {
    // The last page that is asked for is full.
    let last = listed.keys - 1000 * KEYS_PER_PREFIX;
    let shots: Vec<Shot> = (0..PAGES)
        .map(|page| {
            let from = name(last * page / PAGES).replace('/', "%2F");
            listed.target.list(&format!("{query}{from}"))
        })
        .collect::<Result<_>>()?;
    let load = Load {
        connections: 1,
        pace: Pace::Closed,
        until: Until::Elapsed(effort.turn),
    };
    let run = fire(&listed.target, shots.into(), load).await?;
    Ok(run.latency_us(0.5))
}
