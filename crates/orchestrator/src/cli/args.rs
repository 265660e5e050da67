//! The arguments, as clap sees them.

use std::convert::Infallible;
use std::io::{self, Write};
use std::path::PathBuf;

use base::Secret;
use clap::{Args, CommandFactory as _, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

use super::admin::AdminVerb;

/// The name of the program.
pub(super) const NAME: &str = "s3-orchestrator";

const AFTER_HELP: &str = "\
Without a command it serves. Long flags work with one dash as well: -config FILE.
Exit codes: 0 done, 1 failed or could not start, 64 bad usage or configuration.";

const BACKEND_HELP: &str = "\
A backend, repeatable: KEY=VALUE pairs with commas between.
A directory: kind=local,path=/srv/s3
A bucket of an S3 provider: endpoint=https://HOST,bucket=B,access_key_id=ID and
secret_access_key_file=FILE or secret_access_key=SECRET; also region
Either kind: name=NAME,quota=10GiB";

const ADMIN_HELP: &str = "\
The server answers where its configuration has ui.admin_token or ui.admin_token_file; docs/admin.md
describes every call. A token in --token can be seen by everybody who lists the machine's processes.";

/// One S3 endpoint in front of many storage backends.
#[derive(Debug, Parser)]
#[command(
    name = NAME,
    bin_name = NAME,
    version,
    after_help = AFTER_HELP,
    args_conflicts_with_subcommands = true
)]
pub(super) struct Cli {
    #[command(flatten)]
    pub(super) serve: ServeArgs,
    #[command(subcommand)]
    pub(super) command: Option<Command>,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Serve until a signal ends it (also what happens without a command)
    Serve(ServeArgs),
    /// Serve at once from a new directory: three local backends, one bucket, generated keys
    Quickstart(QuickstartArgs),
    /// Write a commented configuration file; asks on a terminal, takes flags elsewhere
    Init(InitArgs),
    /// Check the configuration file and print what it says
    Validate(ValidateArgs),
    /// Print name, version, system and architecture
    Version,
    /// Back up and check the catalogue
    Catalogue(CatalogueArgs),
    /// Settle what a restored catalogue does not know
    Reconcile(ReconcileArgs),
    /// Ask a running server
    Admin(AdminArgs),
    /// Print a completion script for a shell
    Completions {
        /// The shell
        #[arg(value_enum)]
        shell: Shell,
    },
    /// Print the manual page
    Man,
    /// Print generated pages of the documentation
    #[command(hide = true)]
    Docs {
        /// The page
        #[command(subcommand)]
        page: DocsCommand,
    },
}

#[derive(Debug, Args)]
pub(super) struct ConfigArgs {
    /// The configuration file
    #[arg(long, value_name = "FILE", default_value = "config.yaml")]
    pub(super) config: PathBuf,
}

#[derive(Debug, Args)]
pub(super) struct ServeArgs {
    #[command(flatten)]
    pub(super) config: ConfigArgs,
    /// Which parts run; api and worker need PostgreSQL
    #[arg(long, value_enum, default_value = "all")]
    pub(super) mode: Mode,
}

/// Which parts of the program run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Mode {
    /// Requests and background work.
    All,
    /// Requests only.
    Api,
    /// Background work only.
    Worker,
}

#[derive(Debug, Args)]
pub(super) struct QuickstartArgs {
    /// Where everything is kept; reused where it exists
    #[arg(long, value_name = "DIR", default_value = "s3o-data")]
    pub(super) dir: PathBuf,
}

#[derive(Debug, Args)]
pub(super) struct InitArgs {
    /// The file to write; it must not exist
    #[arg(long, value_name = "FILE", default_value = "config.yaml")]
    pub(super) config: PathBuf,
    /// Where S3 requests are accepted [default: 127.0.0.1:9000]
    #[arg(long, value_name = "HOST:PORT")]
    pub(super) listen: Option<String>,
    /// The file of the catalogue [default: s3-orchestrator.db]
    #[arg(long, value_name = "FILE")]
    pub(super) database: Option<PathBuf>,
    /// The virtual bucket; its keys are generated [default: my-bucket]
    #[arg(long, value_name = "NAME")]
    pub(super) bucket: Option<String>,
    /// A backend, repeatable: kind=local,path=DIR or endpoint=URL,bucket=B,…
    #[arg(
        long = "backend",
        value_name = "KEY=VALUE,…",
        long_help = BACKEND_HELP
    )]
    pub(super) backends: Vec<String>,
}

#[derive(Debug, Args)]
pub(super) struct ValidateArgs {
    #[command(flatten)]
    pub(super) config: ConfigArgs,
    /// Call every backend as well
    #[arg(long)]
    pub(super) connect: bool,
}

#[derive(Debug, Args)]
pub(super) struct CatalogueArgs {
    #[command(subcommand)]
    pub(super) command: CatalogueCommand,
}

#[derive(Debug, Subcommand)]
pub(super) enum CatalogueCommand {
    /// Copy the catalogue into a new file, also while the server runs
    Backup {
        #[command(flatten)]
        config: ConfigArgs,
        /// The file to write; it must not exist
        #[arg(long, value_name = "FILE")]
        to: PathBuf,
    },
    /// Move the catalogue from files to PostgreSQL; what was interrupted goes on
    Migrate {
        #[command(flatten)]
        config: ConfigArgs,
        /// An empty database, such as postgres://user:password@host:5432/name?sslmode=require
        #[arg(long, value_name = "ADDRESS")]
        to: String,
    },
    /// Check that all sums are right and every copy exists
    Verify {
        #[command(flatten)]
        config: ConfigArgs,
    },
    /// Say that the catalogue was restored: nothing is deleted on backends until reconcile
    /// --recover has run
    Restored {
        #[command(flatten)]
        config: ConfigArgs,
    },
}

#[derive(Debug, Args)]
pub(super) struct ReconcileArgs {
    #[command(flatten)]
    pub(super) config: ConfigArgs,
    /// Adopt what carries our metadata, report the rest, delete nothing
    #[arg(long, required = true)]
    pub(super) recover: bool,
    /// Adopt finished multipart uploads as whole objects although other backends may have held a
    /// part of them
    #[arg(long)]
    pub(super) adopt_uploads: bool,
}

#[derive(Debug, Args)]
#[command(after_help = ADMIN_HELP)]
pub(super) struct AdminArgs {
    /// The server's configuration; read where the address or the token stands nowhere else
    #[arg(
        long,
        value_name = "FILE",
        default_value = "config.yaml",
        global = true
    )]
    pub(super) config: PathBuf,
    /// The server: HOST:PORT, or a URL [default: S3O_ADMIN_ADDR, then server.listen_addr]
    #[arg(long, value_name = "ADDR", global = true)]
    pub(super) addr: Option<String>,
    /// Its token [default: S3O_ADMIN_TOKEN, then ui.admin_token]
    #[arg(long, value_name = "TOKEN", value_parser = secret, global = true)]
    pub(super) token: Option<Secret>,
    /// A PEM file with authorities to trust besides those of the system, repeatable
    #[arg(long, value_name = "FILE", global = true)]
    pub(super) ca: Vec<PathBuf>,
    /// Print what the server sent, as JSON, instead of tables
    #[arg(long, global = true)]
    pub(super) json: bool,
    #[command(subcommand)]
    pub(super) verb: AdminVerb,
}

fn secret(text: &str) -> Result<Secret, Infallible> {
    Ok(Secret::new(text.to_owned()))
}

#[derive(Debug, Subcommand)]
pub(super) enum DocsCommand {
    /// The reference of the admin API, as Markdown
    Admin,
    /// The reference of all configuration keys, as Markdown
    Config,
    /// The reference of all metrics, as Markdown
    Metrics,
}

/// The manual: the page of the program, followed by one per command.
pub(super) fn man_pages(out: &mut dyn Write) -> io::Result<()> {
    let mut root = Cli::command();
    root.build();
    let mut pages = vec![(NAME.to_owned(), root)];
    while let Some((name, command)) = pages.pop() {
        let mut below: Vec<_> = command
            .get_subcommands()
            .filter(|command| command.get_name() != "help" && !command.is_hide_set())
            .map(|command| (format!("{name}-{}", command.get_name()), command.clone()))
            .collect();
        below.reverse();
        pages.extend(below);
        clap_mangen::Man::new(command.disable_help_subcommand(true).name(name)).render(out)?;
    }
    Ok(())
}
