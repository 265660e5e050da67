//! The command line: parses it, does what needs no running parts, hands the rest to [`Commands`].
//!
//! Every long flag also works with a single dash (`-config FILE`), as existing unit files and
//! scripts write it. Exit codes: 0 done, 1 failed, 64 bad usage or configuration.

mod admin;
mod args;
mod dashes;
mod draft;
mod init;
mod keypair;
pub mod quickstart;
mod tables;
mod validate;

use std::ffi::OsString;
use std::io::{self, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::error::ErrorKind;
use clap::{CommandFactory as _, Parser as _};

use crate::admin as admin_api;
use crate::admin::client::{AdminCall, AdminServer};
use engine::{LoneUploads, Role, Server as DatabaseServer};

use crate::config::{self, Config, ConfigError, DatabaseConfig, Environment, Loaded};
use crate::telemetry::metrics;
use args::{CatalogueCommand, Cli, Command, DocsCommand, Mode, ServeArgs};

/// It worked.
pub const EXIT_OK: u8 = 0;
/// It could not start, or it failed.
pub const EXIT_FAILED: u8 = 1;
/// The arguments or the configuration are wrong; the value of EX_USAGE in sysexits.
pub const EXIT_USAGE: u8 = 64;

/// What needs a catalogue, backends or a listener. The program has one implementation, tests of
/// the command line another.
pub trait Commands {
    /// Serves until a signal ends it.
    ///
    /// # Errors
    /// What kept it from starting, or ended it.
    fn serve(&self, request: ServeRequest) -> anyhow::Result<()>;

    /// `validate --connect`: calls every backend.
    ///
    /// # Errors
    /// What kept it from looking at all; what it saw is in the report.
    fn connect(&self, config: &Config) -> anyhow::Result<Report>;

    /// `catalogue backup`: copies the catalogue while it may be in use.
    ///
    /// # Errors
    /// Why there is no backup.
    fn backup(&self, config: &Config, to: &Path) -> anyhow::Result<Report>;

    /// `catalogue migrate`: moves the catalogue from files to PostgreSQL.
    ///
    /// # Errors
    /// Why it was not moved.
    fn migrate(&self, config: &Config, to: &DatabaseServer) -> anyhow::Result<Report>;

    /// `catalogue verify`: checks the sums, and that every location exists.
    ///
    /// # Errors
    /// What kept it from looking; what it saw is in the report.
    fn verify(&self, config: &Config) -> anyhow::Result<Report>;

    /// `catalogue restored`: marks the catalogue as restored from a backup.
    ///
    /// # Errors
    /// Why it is not marked.
    fn restored(&self, config: &Config) -> anyhow::Result<Report>;

    /// `reconcile --recover`: settles what a restored catalogue does not know.
    ///
    /// # Errors
    /// Why it did not finish.
    fn recover(&self, config: &Config, lone: LoneUploads) -> anyhow::Result<Report>;

    /// `admin`: asks a running server; what it answered, as JSON.
    ///
    /// # Errors
    /// Why there is no answer.
    fn admin(&self, server: &AdminServer, call: &AdminCall) -> anyhow::Result<Vec<u8>>;
}

/// What to serve.
#[derive(Debug)]
pub struct ServeRequest {
    /// The configuration.
    pub config: Config,
    /// The file that it came from.
    pub config_file: PathBuf,
    /// Where log lines go.
    pub log: LogTarget,
    /// A listener that is bound already; without it, `server.listen_addr` is bound.
    pub listener: Option<TcpListener>,
    /// Text for standard output as soon as requests are answered.
    pub announce: Option<String>,
    /// Which parts run.
    pub role: Role,
}

/// Where log lines go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogTarget {
    /// Standard output.
    Stdout,
    /// The end of this file, which is created where it is missing.
    File(PathBuf),
}

/// What a command found out, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Lines for standard output.
    pub text: String,
    /// Whether all is well; otherwise the exit code is 1.
    pub verdict: CommandOutcome,
}

/// Whether all is well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommandOutcome {
    /// It is.
    Sound,
    /// The report says what is not.
    Faulty,
}

/// What the command line talks to.
pub struct Console<'a> {
    /// Standard output.
    pub out: &'a mut dyn Write,
    /// Standard error.
    pub err: &'a mut dyn Write,
    /// The variables that the configuration may name.
    pub env: &'a dyn Environment,
}

/// Why a command ends without success.
enum CommandError {
    /// The message; the exit code is 64.
    Usage(anyhow::Error),
    /// The message; the exit code is 1.
    Failed(anyhow::Error),
    /// The report was printed; the exit code is 1.
    Faulty,
}

impl From<ConfigError> for CommandError {
    fn from(error: ConfigError) -> Self {
        Self::Usage(error.into())
    }
}

impl From<io::Error> for CommandError {
    fn from(error: io::Error) -> Self {
        Self::Failed(error.into())
    }
}

/// Runs the program with these arguments, the first being its name; returns the exit code.
pub fn run(
    args: impl IntoIterator<Item = OsString>,
    commands: &dyn Commands,
    mut console: Console<'_>,
) -> u8 {
    let args = dashes::double(args, &Cli::command());
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => return show_clap(&error, &mut console),
    };
    match dispatch(cli, commands, &mut console) {
        Ok(()) => EXIT_OK,
        Err(CommandError::Faulty) => EXIT_FAILED,
        Err(CommandError::Usage(error)) => complain(&error, EXIT_USAGE, &mut console),
        Err(CommandError::Failed(error)) => complain(&error, EXIT_FAILED, &mut console),
    }
}

fn show_clap(error: &clap::Error, console: &mut Console<'_>) -> u8 {
    let text = error.render();
    let shown = match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => write!(console.out, "{text}"),
        _ => {
            let _ = write!(console.err, "{text}");
            return EXIT_USAGE;
        }
    };
    exit_after_output(shown)
}

/// A reader that went away early (`help | head`) is no failure of ours.
fn exit_after_output(shown: io::Result<()>) -> u8 {
    match shown {
        Ok(()) => EXIT_OK,
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => EXIT_OK,
        Err(_) => EXIT_FAILED,
    }
}

fn complain(error: &anyhow::Error, code: u8, console: &mut Console<'_>) -> u8 {
    if let Some(error) = error.downcast_ref::<io::Error>()
        && error.kind() == io::ErrorKind::BrokenPipe
    {
        return EXIT_OK;
    }
    // Nothing is left to do where even standard error is closed.
    let _ = writeln!(console.err, "{}", base::report(error.as_ref()));
    code
}

fn dispatch(
    cli: Cli,
    commands: &dyn Commands,
    console: &mut Console<'_>,
) -> Result<(), CommandError> {
    let Some(command) = cli.command else {
        return serve(cli.serve, commands, console);
    };
    match command {
        Command::Serve(args) => serve(args, commands, console),
        Command::Quickstart(args) => run_quickstart(&args.dir, commands, console),
        Command::Init(args) => init::run(&args, console),
        Command::Validate(args) => validate::run(&args, commands, console),
        Command::Version => Ok(writeln!(console.out, "{}", version())?),
        Command::Catalogue(args) => match args.command {
            CatalogueCommand::Backup { config, to } => {
                let loaded = load(&config.config, console)?;
                show(commands.backup(&loaded.config, &to), console)
            }
            CatalogueCommand::Migrate { config, to } => {
                let loaded = load(&config.config, console)?;
                let server = DatabaseServer::parse(&to).map_err(|why| {
                    let form = "postgres://user:password@host:5432/name?sslmode=require";
                    CommandError::Usage(anyhow::anyhow!("--to: {why}; write it as {form}"))
                })?;
                show(commands.migrate(&loaded.config, &server), console)
            }
            CatalogueCommand::Verify { config } => {
                let loaded = load(&config.config, console)?;
                show(commands.verify(&loaded.config), console)
            }
            CatalogueCommand::Restored { config } => {
                let loaded = load(&config.config, console)?;
                show(commands.restored(&loaded.config), console)
            }
        },
        Command::Reconcile(args) => {
            let loaded = load(&args.config.config, console)?;
            let lone = if args.adopt_uploads {
                LoneUploads::Adopt
            } else {
                LoneUploads::Doubt
            };
            show(commands.recover(&loaded.config, lone), console)
        }
        Command::Admin(args) => admin::run(&args, commands, console),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), args::NAME, &mut script);
            Ok(console.out.write_all(&script)?)
        }
        Command::Man => Ok(args::man_pages(console.out)?),
        Command::Docs {
            page: DocsCommand::Admin,
        } => Ok(write!(console.out, "{}", admin_api::render_reference())?),
        Command::Docs {
            page: DocsCommand::Config,
        } => Ok(write!(console.out, "{}", config::render_reference())?),
        Command::Docs {
            page: DocsCommand::Metrics,
        } => Ok(write!(console.out, "{}", metrics::reference())?),
    }
}

/// One line: name, version, system and architecture.
fn version() -> String {
    let (system, machine) = (std::env::consts::OS, std::env::consts::ARCH);
    format!(
        "{} {} {system}/{machine}",
        args::NAME,
        env!("CARGO_PKG_VERSION")
    )
}

/// Loads a configuration and prints its warnings.
fn load(file: &Path, console: &mut Console<'_>) -> Result<Loaded, CommandError> {
    let loaded = config::load(file, console.env)?;
    print_warnings(file, &loaded, console)?;
    Ok(loaded)
}

fn print_warnings(file: &Path, loaded: &Loaded, console: &mut Console<'_>) -> io::Result<()> {
    for warning in &loaded.warnings {
        writeln!(console.err, "warning: {}:{warning}", file.display())?;
    }
    Ok(())
}

fn show(report: anyhow::Result<Report>, console: &mut Console<'_>) -> Result<(), CommandError> {
    let report = report.map_err(CommandError::Failed)?;
    write!(console.out, "{}", report.text)?;
    if !report.text.is_empty() && !report.text.ends_with('\n') {
        writeln!(console.out)?;
    }
    match report.verdict {
        CommandOutcome::Sound => Ok(()),
        CommandOutcome::Faulty => Err(CommandError::Faulty),
    }
}

fn serve(
    args: ServeArgs,
    commands: &dyn Commands,
    console: &mut Console<'_>,
) -> Result<(), CommandError> {
    let config_file = args.config.config;
    let loaded = match load(&config_file, console) {
        Err(CommandError::Usage(error))
            if matches!(error.downcast_ref(), Some(ConfigError::Missing { .. })) =>
        {
            let ways_out = "try 's3-orchestrator quickstart' for a server that works at once, or \
                            write one with 's3-orchestrator init'";
            return Err(CommandError::Usage(anyhow::anyhow!("{error}; {ways_out}")));
        }
        other => other?,
    };
    let role = match args.mode {
        Mode::All => Role::All,
        Mode::Api => Role::Api,
        Mode::Worker => Role::Worker,
    };
    if role != Role::All && matches!(loaded.config.database, DatabaseConfig::Sqlite(_)) {
        return Err(CommandError::Usage(anyhow::anyhow!(
            "--mode api and --mode worker need a catalogue that several processes share: set \
             database.driver: postgres, or use --mode all"
        )));
    }
    let request = ServeRequest {
        config: loaded.config,
        config_file,
        log: LogTarget::Stdout,
        listener: None,
        announce: None,
        role,
    };
    commands.serve(request).map_err(CommandError::Failed)
}

fn run_quickstart(
    dir: &Path,
    commands: &dyn Commands,
    console: &mut Console<'_>,
) -> Result<(), CommandError> {
    let prepared = quickstart::prepare(dir, console.env).map_err(|error| match error {
        quickstart::QuickstartError::Config(error) => CommandError::from(error),
        other @ (quickstart::QuickstartError::Create { .. }
        | quickstart::QuickstartError::Listen { .. }) => CommandError::Failed(other.into()),
    })?;
    print_warnings(&prepared.config_file, &prepared.loaded, console)?;
    let request = ServeRequest {
        config: prepared.loaded.config,
        config_file: prepared.config_file,
        log: LogTarget::File(prepared.log_file),
        listener: Some(prepared.listener),
        announce: Some(prepared.banner),
        role: Role::All,
    };
    commands
        .serve(request)
        .context("quickstart")
        .map_err(CommandError::Failed)
}
