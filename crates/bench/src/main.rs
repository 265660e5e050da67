//! Measures, and prints tables in Markdown. `cargo xtask bench` builds it and runs it.
//!
//! Whatever is compared is measured in turns within one run, so that what else happens on the machine
//! happens to all of it; a figure is the median of its turns, with the lowest and the highest.

#![expect(
    clippy::disallowed_methods,
    reason = "a benchmark measures real time, by the clock of the machine"
)]

mod catalogue;
mod figures;
mod machine;

use std::env;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};

const USAGE: &str = "\
usage: bench catalogue [--turns N] [--seconds N]

  --turns N     how often each thing is measured (5)
  --seconds N   how long a turn is (2)
";

/// How much is measured.
#[derive(Debug, Clone, Copy)]
struct Effort {
    turns: u32,
    turn: Duration,
}

fn main() -> ExitCode {
    match run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<ExitCode> {
    let args: Vec<String> = env::args().skip(1).collect();
    let Some((what, options)) = args.split_first() else {
        eprint!("{USAGE}");
        return Ok(ExitCode::from(64));
    };
    let effort = effort(options)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("starting the runtime")?;
    match what.as_str() {
        "catalogue" => runtime.block_on(catalogue::run(effort))?,
        _ => {
            eprint!("{USAGE}");
            return Ok(ExitCode::from(64));
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn effort(options: &[String]) -> Result<Effort> {
    let mut effort = Effort {
        turns: 5,
        turn: Duration::from_secs(2),
    };
    for pair in options.chunks(2) {
        let [name, value] = pair else {
            bail!("{} needs a number", pair[0]);
        };
        let number: u32 = value
            .parse()
            .ok()
            .filter(|number| *number > 0)
            .with_context(|| format!("{name} needs a number above 0, not {value:?}"))?;
        match name.as_str() {
            "--turns" => effort.turns = number,
            "--seconds" => effort.turn = Duration::from_secs(number.into()),
            _ => bail!("unknown option {name}; there are --turns and --seconds"),
        }
    }
    Ok(effort)
}
