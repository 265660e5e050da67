//! Pages of listings over catalogues of different sizes: a page must not cost more because there are
//! more keys beside it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::Effort;
use crate::catalogue::Alone;
use crate::contenders::{Catalogue, Program, command};
use crate::figures::{Figure, rounded, table};
use crate::load::{Load, Pace, Run, Until, fire};
use crate::target::{Shot, Target};

/// Where catalogues are kept from one run to the next, below the build results.
const KEPT: &str = "bench";
/// Keys under one prefix: a page of prefixes skips ten thousand keys, a tenth of the smallest catalogue,
/// so that pages begin all over that one, too.
const KEYS_PER_PREFIX: u64 = 10;
/// Different pages that are asked for.
const PAGES: u64 = 200;

/// Pages of keys, and of prefixes, behind a key.
const FLAT: &str = "list-type=2&max-keys=1000&start-after=";
const BY_PREFIX: &str = "delimiter=%2F&list-type=2&max-keys=1000&start-after=";

/// One catalogue with the program on it.
struct Listed {
    keys: u64,
    program: Program,
    target: Target,
    figures: [Figure; ASKED.len()],
}

/// Which pages are asked for.
struct Asked {
    what: &'static str,
    query: &'static str,
    /// Pages begin everywhere in the catalogue; else where they begin in the smallest, too.
    everywhere: bool,
}

const fn asked(what: &'static str, query: &'static str, everywhere: bool) -> Asked {
    Asked {
        what,
        query,
        everywhere,
    }
}

const ASKED: [Asked; 4] = [
    asked("1,000 keys: p50 µs", FLAT, false),
    asked("1,000 prefixes: p50 µs", BY_PREFIX, false),
    asked("keys everywhere", FLAT, true),
    asked("prefixes everywhere", BY_PREFIX, true),
];

fn name(n: u64) -> String {
    format!("d{:07}/f{n:09}", n / KEYS_PER_PREFIX)
}

/// The folder of a catalogue with so many keys, which is made where it is not there yet.
async fn folder(keys: u64) -> Result<PathBuf> {
    let folder = Path::new(KEPT).join(format!("list-{keys}-by-{KEYS_PER_PREFIX}"));
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
            figures: Default::default(),
        });
    }
    let smallest = sizes.iter().min().copied().unwrap_or_default();
    // What is measured is the walk, not the disk: every page was read once.
    for listed in &all {
        for asked in &ASKED {
            ask(listed, asked, smallest, Until::Once).await?;
        }
    }
    for turn in 0..effort.turns {
        eprintln!("turn {} of {}: listings", turn + 1, effort.turns);
        for listed in &mut all {
            for (n, asked) in ASKED.iter().enumerate() {
                let run = ask(listed, asked, smallest, Until::Elapsed(effort.turn)).await?;
                listed.figures[n].add(run.latency_us(0.5));
            }
        }
    }
    let of_first = |listed: &Listed, n: usize| {
        let first = all
            .first()
            .map_or(f64::NAN, |first| first.figures[n].median());
        listed.figures[n].median() / first
    };
    let rows: Vec<Vec<String>> = all
        .iter()
        .map(|listed| {
            let measured = listed.figures.iter().enumerate();
            let cells = measured
                .flat_map(|(n, figure)| [figure.show(), format!("{:.2}", of_first(listed, n))]);
            std::iter::once(rounded(listed.keys as f64))
                .chain(cells)
                .collect()
        })
        .collect();
    let mut head = vec!["keys"];
    head.extend(ASKED.iter().flat_map(|asked| [asked.what, "of the first"]));
    let text = table(&head, &rows);
    // The same pages, whatever else there is.
    let same = (0..ASKED.len()).filter(|n| !ASKED[*n].everywhere);
    let ratio = all.last().map_or(f64::NAN, |last| {
        same.map(|n| of_first(last, n)).fold(0.0, f64::max)
    });
    for listed in all {
        listed.program.running.stop()?;
    }
    Ok((text, ratio))
}

/// Asks for pages one at a time.
async fn ask(listed: &Listed, asked: &Asked, smallest: u64, until: Until) -> Result<Run> {
    let keys = match asked.everywhere {
        true => listed.keys,
        false => smallest,
    };
    // The last page that is asked for is full.
    let last = keys - 1000 * KEYS_PER_PREFIX;
    let shots: Vec<Shot> = (0..PAGES)
        .map(|page| {
            let from = name(last * page / PAGES).replace('/', "%2F");
            listed.target.list(&format!("{}{from}", asked.query))
        })
        .collect::<Result<_>>()?;
    let load = Load {
        connections: 1,
        pace: Pace::Closed,
        until,
    };
    fire(&listed.target, shots.into(), load).await
}
