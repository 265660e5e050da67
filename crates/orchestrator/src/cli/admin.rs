//! `admin`: asks a running server by its admin API.
//!
//! The verbs, their help and what they are given come from the table of calls.

mod verb;

use base::Secret;

pub(super) use self::verb::AdminVerb;
use super::args::AdminArgs;
use super::{CommandError, Commands, Console, load, tables};
use crate::admin::client::{AdminServer, ServerAddress};
use crate::config::{Config, ConfigError, Environment, ServerConfig};

/// The variable that names the server.
const ADDR_VARIABLE: &str = "S3O_ADMIN_ADDR";

/// The variable that holds the token.
const TOKEN_VARIABLE: &str = "S3O_ADMIN_TOKEN";

pub(super) fn run(
    args: &AdminArgs,
    commands: &dyn Commands,
    console: &mut Console<'_>,
) -> Result<(), CommandError> {
    let server = server(args, console)?;
    let AdminVerb(call) = &args.verb;
    let answer = commands
        .admin(&server, call)
        .map_err(CommandError::Failed)?;
    let strange = |error: serde_json::Error| {
        let what = format!("{} has another version: try --json", server.address);
        CommandError::Failed(anyhow::Error::new(error).context(what))
    };
    if args.json {
        let answer: serde_json::Value = serde_json::from_slice(&answer).map_err(strange)?;
        return Ok(writeln!(console.out, "{answer:#}")?);
    }
    let text = tables::render(call.entry.endpoint, &answer).map_err(strange)?;
    Ok(write!(console.out, "{text}")?)
}

/// Flag before environment before configuration; the latter is read only where it is needed.
fn server(args: &AdminArgs, console: &mut Console<'_>) -> Result<AdminServer, CommandError> {
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
    let address: ServerAddress = addr
        .parse()
        .map_err(|error| usage(format!("'{addr}': {error}")))?;
    Ok(AdminServer {
        address,
        token,
        authorities,
    })
}

fn usage(what: String) -> CommandError {
    CommandError::Usage(anyhow::anyhow!(what))
}

fn variable(env: &dyn Environment, name: &str) -> Option<String> {
    env.get(name).filter(|value| !value.is_empty())
}

fn configuration(args: &AdminArgs, console: &mut Console<'_>) -> Result<Config, CommandError> {
    match load(&args.config, console) {
        Ok(loaded) => Ok(loaded.config),
        Err(CommandError::Usage(error))
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

fn token_of(args: &AdminArgs, config: &Config) -> Result<Secret, CommandError> {
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
fn listener(server: &ServerConfig) -> Result<String, CommandError> {
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
