//! `validate`: what the configuration says, in a few lines.

use std::fmt::Write as _;

use crate::config::{BackendKindConfig, Config, Credential, DatabaseConfig, RoutingStrategy};

use super::args::ValidateArgs;
use super::{CommandError, Commands, Console, load, show};

pub(super) fn run(
    args: &ValidateArgs,
    commands: &dyn Commands,
    console: &mut Console<'_>,
) -> Result<(), CommandError> {
    let file = &args.config.config;
    let loaded = load(file, console)?;
    writeln!(console.out, "{} is valid.", file.display())?;
    write!(console.out, "{}", summary(&loaded.config))?;
    match args.connect {
        true => show(commands.connect(&loaded.config), console),
        false => Ok(()),
    }
}

/// Backends, buckets, routing and catalogue; no secret.
fn summary(config: &Config) -> String {
    let mut text = String::new();
    let routing = match config.routing_strategy {
        RoutingStrategy::Pack => "pack",
        RoutingStrategy::Spread => "spread",
    };
    let scheme = if config.server.tls.is_some() {
        "https"
    } else {
        "http"
    };
    let _ = writeln!(text, "listener: {} ({scheme})", config.server.listen_addr);
    let _ = match &config.database {
        DatabaseConfig::Sqlite(path) => writeln!(text, "catalogue: sqlite, {}", path.display()),
        DatabaseConfig::Postgres(postgres) => {
            let hosts: Vec<String> = postgres
                .hosts
                .iter()
                .map(|(host, port)| format!("{host}:{port}"))
                .collect();
            let (database, hosts) = (&postgres.database, hosts.join(", "));
            writeln!(text, "catalogue: postgres, {database} at {hosts}")
        }
    };
    let _ = writeln!(text, "routing: {routing}");
    let _ = writeln!(text, "backends: {}", config.backends.len());
    for backend in &config.backends {
        let place = match &backend.kind {
            BackendKindConfig::S3(s3) => {
                let endpoint = s3.endpoint.to_string();
                format!(
                    "s3, bucket {} at {}",
                    s3.bucket,
                    endpoint.trim_end_matches('/')
                )
            }
            BackendKindConfig::Local { path, .. } => format!("local, {}", path.display()),
            BackendKindConfig::Memory => "memory, gone at exit".to_owned(),
        };
        let quota = match backend.quota {
            Some(quota) => format!("quota {quota}"),
            None => "no quota".to_owned(),
        };
        let _ = writeln!(text, "  {}: {place}, {quota}", backend.name);
    }
    let _ = writeln!(text, "buckets: {}", config.buckets.len());
    for bucket in &config.buckets {
        let tokens = bucket
            .credentials
            .iter()
            .filter(|credential| matches!(credential.proof, Credential::Token(_)))
            .count();
        let pairs = bucket.credentials.len() - tokens;
        let _ = writeln!(
            text,
            "  {}: {pairs} key pair(s), {tokens} token(s)",
            bucket.name
        );
    }
    text
}
