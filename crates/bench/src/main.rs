//! Measures, and prints tables in Markdown. `cargo xtask bench` builds it and runs it.
//!
//! Whatever is compared is measured in turns within one run, so that what else happens on the machine
//! happens to all of it; a figure is the median of its turns, with the lowest and the highest.

#![expect(
    clippy::disallowed_methods,
    reason = "a benchmark measures real time, by the clock of the machine"
)]

mod baseline;
mod catalogue;
mod contenders;
mod figures;
mod goals;
mod list;
mod load;
mod machine;
mod processes;
mod s3;
mod secured;
mod smoke;
mod stand;
mod target;
mod workloads;

use std::convert::Infallible;
use std::env;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use testbed::sink::Sink;

use crate::stand::On;

const USAGE: &str = "\
usage: bench catalogue [--turns N] [--seconds N]
       bench s3 [--turns N] [--seconds N] [--full] [--only TEXT] [--program FILE] [--against NAME=URL,KEY,SECRET]
       bench s3 --baseline FILE [--turns N] [--seconds N] [--only TEXT] [--catalogue sqlite|postgres] [--program FILE]
       bench smoke --program FILE

  --turns N     how often each thing is measured (5; 15 with --baseline)
  --seconds N   how long a turn is (2)
  --full        ten million keys to list, too; catalogues are kept below the build results
  --only TEXT   only workloads whose name contains it
  --program F   what is measured (release/s3-orchestrator)
  --baseline F  an older build of the program, against which CPU is judged; nothing else is measured
  --catalogue C where the catalogues of both builds lie (sqlite)
  --against A   another S3 endpoint, http://HOST:PORT[/BUCKET]; may be repeated
";

const TURNS: u32 = 5;
const TURNS_OF_BASELINE: u32 = 15;

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
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("starting the runtime")?;
    if what == "sink" {
        runtime.block_on(sink(options))?;
    }
    let (effort, options) = parse(options)?;
    match what.as_str() {
        "catalogue" => runtime.block_on(catalogue::run(effort))?,
        "smoke" => runtime.block_on(smoke::run(options.program))?,
        "s3" => match options.baseline.clone() {
            None => runtime.block_on(s3::run(effort, options))?,
            Some(old) => {
                if !runtime.block_on(baseline::run(effort, &options, &old))? {
                    eprintln!("bench: it has become dearer");
                    return Ok(ExitCode::FAILURE);
                }
            }
        },
        _ => {
            eprint!("{USAGE}");
            return Ok(ExitCode::from(64));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// What `contenders::sink` starts; with a certificate and its key, it serves over TLS.
async fn sink(files: &[String]) -> Result<Infallible> {
    let sink = match files {
        [cert, key] => Sink::start_secured(secured::acceptor(cert.as_ref(), key.as_ref())?).await,
        _ => Sink::start().await,
    };
    println!("{}", sink.addr);
    std::future::pending().await
}

fn parse(words: &[String]) -> Result<(Effort, s3::Options)> {
    let is_against_baseline = words.iter().any(|word| word == "--baseline");
    let mut effort = Effort {
        turns: match is_against_baseline {
            true => TURNS_OF_BASELINE,
            false => TURNS,
        },
        turn: Duration::from_secs(2),
    };
    let mut options = s3::Options {
        program: "release/s3-orchestrator".into(),
        ..s3::Options::default()
    };
    options.full = words.iter().any(|word| word == "--full");
    let words: Vec<&String> = words.iter().filter(|word| *word != "--full").collect();
    for pair in words.chunks(2) {
        let [name, value] = pair else {
            bail!("{} needs a value", pair[0]);
        };
        let number = || {
            let number: Option<u32> = value.parse().ok().filter(|number| *number > 0);
            number.with_context(|| format!("{name} needs a number above 0, not {value:?}"))
        };
        match name.as_str() {
            "--turns" => effort.turns = number()?,
            "--seconds" => effort.turn = Duration::from_secs(number()?.into()),
            "--only" => options.only = Some((*value).clone()),
            "--program" => options.program = value.into(),
            "--baseline" => options.baseline = Some(value.into()),
            "--catalogue" => {
                options.on = match value.as_str() {
                    "sqlite" => On::Sqlite,
                    "postgres" => On::Postgres,
                    _ => bail!("--catalogue is sqlite or postgres, not {value}"),
                }
            }
            "--against" => options.against.push((*value).clone()),
            _ => bail!("unknown option {name}\n{USAGE}"),
        }
    }
    Ok((effort, options))
}
