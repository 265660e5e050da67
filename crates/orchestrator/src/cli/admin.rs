//! `admin`: asks a running server by its admin API.
//!
//! The verbs, their help and what they are given come from the table of calls.

use base::Secret;
use clap::error::ErrorKind;
use clap::{Arg, ArgMatches, Command, FromArgMatches, Subcommand};

use super::args::AdminArgs;
use super::{Commands, Console, Failure, load, tables};
use crate::admin::client::{Address, Call, Server};
use crate::admin::{Entry, Param, verbs};
use crate::config::{Config, ConfigError, Environment, ServerConfig};

/// The variable that names the server.
const ADDR_VARIABLE: &str = "S3O_ADMIN_ADDR";

/// The variable that holds the token.
const TOKEN_VARIABLE: &str = "S3O_ADMIN_TOKEN";

/// The call that the arguments ask for.
#[derive(Debug, Clone)]
pub(super) struct Verb(Call);

impl Subcommand for Verb {
    fn augment_subcommands(command: Command) -> Command {
        command.subcommands(verbs().into_iter().map(|(verb, entries)| {
            // What the first call of a verb does is what the verb is about.
            let about = entries.first().map_or("", |entry| entry.about);
            let params = entries.iter().flat_map(|entry| entry.params);
            params.fold(Command::new(verb).about(about), |command, param| {
                let required = entries.iter().all(|entry| takes(entry, param));
                let arg = Arg::new(param.flag).long(param.flag);
                let arg = arg.value_name(param.value).help(param.about);
                command.arg(arg.required(required))
            })
        }))
    }

    fn augment_subcommands_for_update(command: Command) -> Command {
        Self::augment_subcommands(command)
    }

    fn has_subcommand(name: &str) -> bool {
        verbs().iter().any(|(verb, _)| *verb == name)
    }
}

fn takes(entry: &Entry, param: &Param) -> bool {
    entry.params.iter().any(|taken| taken.flag == param.flag)
}

impl FromArgMatches for Verb {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let unknown = || clap::Error::new(ErrorKind::InvalidSubcommand);
        let (name, given) = matches.subcommand().ok_or_else(unknown)?;
        let found = verbs().into_iter().find(|(verb, _)| *verb == name);
        let (_, entries) = found.ok_or_else(unknown)?;
        let value = |param: &'static Param| {
            let value = given.get_one::<String>(param.flag)?;
            Some((param, value.clone()))
        };
        // Of several calls, the one that takes all that was given.
        let calls = entries.into_iter().filter_map(|entry| {
            let values: Option<Vec<_>> = entry.params.iter().map(value).collect();
            Some(Call {
                entry,
                values: values?,
            })
        });
        let call = calls.max_by_key(|call| call.values.len());
        Ok(Self(call.ok_or_else(unknown)?))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

pub(super) fn run(
    args: &AdminArgs,
    commands: &dyn Commands,
    console: &mut Console<'_>,
) -> Result<(), Failure> {
    let server = server(args, console)?;
    let Verb(call) = &args.verb;
    let answer = commands.admin(&server, call).map_err(Failure::Failed)?;
    let strange = |error: serde_json::Error| {
        let what = format!("{} has another version: try --json", server.address);
        Failure::Failed(anyhow::Error::new(error).context(what))
    };
    if args.json {
        let answer: serde_json::Value = serde_json::from_slice(&answer).map_err(strange)?;
        return Ok(writeln!(console.out, "{answer:#}")?);
    }
    let text = tables::render(call.entry.endpoint, &answer).map_err(strange)?;
    Ok(write!(console.out, "{text}")?)
}

/// Flag before environment before configuration; the latter is read only where it is needed.
fn server(args: &AdminArgs, console: &mut Console<'_>) -> Result<Server, Failure> {
    let addr = args.addr.clone();
    let addr = addr.or_else(|| variable(console.env, ADDR_VARIABLE));
    let token = args.token.clone();
    let token = token.or_else(|| variable(console.env, TOKEN_VARIABLE).map(Secret::new));
    let mut authorities = args.ca.clone();
    let (addr, token) = match (addr, token) {
        (Some(addr), Some(token)) => (addr, token),
        (addr, token) => {
            let config = configuration(args, console)?;
            let addr = match addr {
                Some(addr) => addr,
                None => {
                    let tls = config.server.tls.iter();
                    authorities.extend(tls.map(|tls| tls.cert_file.clone()));
                    listener(&config.server)?
                }
            };
            (addr, token.map_or_else(|| token_of(args, &config), Ok)?)
        }
    };
    let address: Address = addr
        .parse()
        .map_err(|error| usage(format!("'{addr}': {error}")))?;
    Ok(Server {
        address,
        token,
        authorities,
    })
}

fn usage(what: String) -> Failure {
    Failure::Usage(anyhow::anyhow!(what))
}

fn variable(env: &dyn Environment, name: &str) -> Option<String> {
    env.get(name).filter(|value| !value.is_empty())
}

fn configuration(args: &AdminArgs, console: &mut Console<'_>) -> Result<Config, Failure> {
    match load(&args.config, console) {
        Ok(loaded) => Ok(loaded.config),
        Err(Failure::Usage(error))
            if matches!(error.downcast_ref(), Some(ConfigError::Missing { .. })) =>
        {
            Err(usage(format!(
                "{error}; name the server's configuration with -config, or give both its address \
                 (-addr or {ADDR_VARIABLE}) and its token (-token or {TOKEN_VARIABLE})"
            )))
        }
        Err(other) => Err(other),
    }
}

fn token_of(args: &AdminArgs, config: &Config) -> Result<Secret, Failure> {
    config.admin_token.clone().ok_or_else(|| {
        usage(format!(
            "{} has no ui.admin_token, so the admin API of its server is off; add one (ui.admin_token \
             or ui.admin_token_file) and send the server SIGHUP, or give the token of another server \
             by -token or {TOKEN_VARIABLE}",
            args.config.display()
        ))
    })
}

/// The listener as this machine reaches it.
fn listener(server: &ServerConfig) -> Result<String, Failure> {
    let listen = &server.listen_addr;
    if listen.port() == 0 {
        return Err(usage(format!(
            "server.listen_addr ({listen}) leaves the port to the system; name the one that the server \
             logged with -addr HOST:PORT"
        )));
    }
    let scheme = if server.tls.is_some() {
        "https"
    } else {
        "http"
    };
    let host = match listen.host() {
        "" | "0.0.0.0" | "::" => "localhost".to_owned(),
        host if host.contains(':') => format!("[{host}]"),
        host => host.to_owned(),
    };
    Ok(format!("{scheme}://{host}:{}", listen.port()))
}
