//! The PostgreSQL dialect: several instances over one catalogue.
//!
//! A batch is one call of a function (`migrations/postgres/0001_batches.sql`), so one flight: no lock is
//! held while a client thinks, and a batch whose answer was lost is sent again, because the database
//! remembers what became of the last one of each instance. No statement has a name and no session keeps
//! state, so a pooler that hands out connections by transaction may lie in between.

mod apply;
mod beat;
mod coalesce;
pub(crate) mod connect;
mod decode;
mod encode;
pub(crate) mod intents;
mod listing;
mod lookups;
pub(crate) mod migrate;
mod read;
pub(crate) mod store;
mod tls;
mod verify;
pub(crate) mod work;

use std::fmt;
use std::time::Duration;

use base::Secret;
use tokio_postgres::Row;
use tokio_postgres::error::SqlState;
use uuid::Uuid;

use crate::fault::Fault;
use crate::values::Cells;

/// How the way to the database is secured; the names are those of PostgreSQL's `sslmode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsMode {
    /// In plain text.
    Disable,
    /// Encrypted where the server can, by whomever it may be.
    Prefer,
    /// Encrypted, by whomever it may be.
    Require,
    /// With a certificate that a known authority signed, for whatever name.
    VerifyCa,
    /// With a certificate that a known authority signed for this host.
    VerifyFull,
}

impl fmt::Display for TlsMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Disable => "disable",
            Self::Prefer => "prefer",
            Self::Require => "require",
            Self::VerifyCa => "verify-ca",
            Self::VerifyFull => "verify-full",
        })
    }
}

/// Where the database is and how to talk to it.
#[derive(Debug, Clone)]
pub struct Server {
    /// Hosts and ports in the order of preference. Only one that takes writes is used, and only of the
    /// cluster that the first one belonged to.
    pub hosts: Vec<(String, u16)>,
    /// Name of the database.
    pub database: String,
    /// Name of the role.
    pub user: String,
    /// Its password.
    pub password: Option<Secret>,
    /// How the connection is secured.
    pub tls: TlsMode,
    /// A file with the certificates of authorities, beside those of the system.
    pub ca_file: Option<std::path::PathBuf>,
    /// Largest number of connections of this process; at least three.
    pub conns_max: u32,
    /// Connections that are opened at start.
    pub conns_min: u32,
    /// Age at which a connection is replaced; so a host that was preferred is found again.
    pub conn_lifetime: Duration,
    /// How long an instance may be silent before another one buries it.
    pub lease: Duration,
}

impl Server {
    /// Reads an address such as `postgres://user:password@host:5432/name?sslmode=require`.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn parse(address: &str) -> Result<Self, String> {
        let config: tokio_postgres::Config = address
            .parse()
            .map_err(|error: tokio_postgres::Error| base::report(&error).to_string())?;
        let ports = config.get_ports();
        let mut hosts = Vec::new();
        for (n, host) in config.get_hosts().iter().enumerate() {
            let tokio_postgres::config::Host::Tcp(host) = host else {
                return Err("sockets in the file system are not supported".into());
            };
            let port = ports.get(n).or(ports.first()).copied().unwrap_or(5432);
            hosts.push((host.clone(), port));
        }
        if hosts.is_empty() {
            return Err("it names no host".into());
        }
        let password = config.get_password().map(String::from_utf8_lossy);
        Ok(Self {
            hosts,
            database: config
                .get_dbname()
                .ok_or("it names no database")?
                .to_owned(),
            user: config.get_user().ok_or("it names no user")?.to_owned(),
            password: password.map(|text| Secret::new(text.into_owned())),
            tls: match config.get_ssl_mode() {
                tokio_postgres::config::SslMode::Disable => TlsMode::Disable,
                tokio_postgres::config::SslMode::Prefer => TlsMode::Prefer,
                _ => TlsMode::Require,
            },
            ca_file: None,
            conns_max: 4,
            conns_min: 1,
            conn_lifetime: Duration::from_secs(300),
            lease: Duration::from_secs(30),
        })
    }

    /// The address for people: no password.
    pub fn address(&self) -> String {
        let hosts: Vec<String> = self
            .hosts
            .iter()
            .map(|(host, port)| format!("{host}:{port}"))
            .collect();
        format!("postgres://{}/{}", hosts.join(","), self.database)
    }
}

/// Whether an error is about the way to the database, not about what was asked: what was sent may have
/// happened.
///
/// Source: PostgreSQL documentation, appendix A, classes 08 and 57P; 25006 is what a server says that
/// became a standby.
pub(crate) fn is_connection(error: &tokio_postgres::Error) -> bool {
    let Some(code) = error.code() else {
        return true;
    };
    code.code().starts_with("08")
        || matches!(
            *code,
            SqlState::ADMIN_SHUTDOWN
                | SqlState::CRASH_SHUTDOWN
                | SqlState::CANNOT_CONNECT_NOW
                | SqlState::READ_ONLY_SQL_TRANSACTION
                | SqlState::IDLE_SESSION_TIMEOUT
                | SqlState::TOO_MANY_CONNECTIONS
        )
}

impl Cells for Row {
    fn maybe_int(&self, column: usize) -> Result<Option<i64>, Fault> {
        match *self.columns()[column].type_() {
            tokio_postgres::types::Type::INT4 => {
                Ok(self.try_get::<_, Option<i32>>(column)?.map(i64::from))
            }
            _ => Ok(self.try_get(column)?),
        }
    }

    fn maybe_text(&self, column: usize) -> Result<Option<String>, Fault> {
        Ok(self.try_get(column)?)
    }

    fn maybe_id(&self, column: usize) -> Result<Option<[u8; 16]>, Fault> {
        Ok(self
            .try_get::<_, Option<Uuid>>(column)?
            .map(Uuid::into_bytes))
    }

    fn maybe_bytes(&self, column: usize) -> Result<Option<Vec<u8>>, Fault> {
        Ok(self.try_get(column)?)
    }

    fn key_text(&self, column: usize) -> Result<String, Fault> {
        Ok(self.try_get(column)?)
    }

    fn flag(&self, column: usize) -> Result<bool, Fault> {
        Ok(self.try_get(column)?)
    }
}
