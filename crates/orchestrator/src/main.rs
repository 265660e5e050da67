//! The program `s3-orchestrator`: one S3 endpoint in front of many storage backends.

use std::io;
use std::process::ExitCode;

use orchestrator::cli::{self, Console};
use orchestrator::commands::Program;
use orchestrator::config::ProcessEnvironment;

fn main() -> ExitCode {
    let console = Console {
        out: &mut io::stdout(),
        err: &mut io::stderr(),
        env: &ProcessEnvironment,
    };
    ExitCode::from(cli::run(std::env::args_os(), &Program, console))
}
