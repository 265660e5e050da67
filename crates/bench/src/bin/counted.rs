//! The program, with an allocator that counts. For each line on standard input it writes to standard
//! error how often memory was allocated so far.

use std::alloc::System;
use std::io::{self, BufRead as _};
use std::process::ExitCode;

use orchestrator::cli::{self, Console};
use orchestrator::commands::Program;
use orchestrator::config::ProcessEnvironment;
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

#[global_allocator]
static COUNTING: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

fn main() -> ExitCode {
    std::thread::spawn(|| {
        for _asked in io::stdin().lock().lines().map_while(Result::ok) {
            let stats = COUNTING.stats();
            eprintln!("{}", stats.allocations + stats.reallocations);
        }
    });
    let console = Console {
        out: &mut io::stdout(),
        err: &mut io::stderr(),
        env: &ProcessEnvironment,
    };
    ExitCode::from(cli::run(std::env::args_os(), &Program, console))
}
