//! `database`: what holds the catalogue.

use super::super::check::CheckReport;
use super::super::reader::Section;
use super::super::scalar::ListenAddr;
use super::super::types::{
    BackendConfig, BackendKindConfig, DatabaseConfig, PostgresConfig, SslMode,
};
use super::{PRESET, count_u32};

/// Connections that write, and one that looks things up.
const CONNS_MIN: u32 = 3;
/// Keys that only PostgreSQL has.
const POSTGRES_KEYS: [&str; 6] = ["host", "hosts", "database", "user", "ca_file", "lease"];

/// What holds the catalogue.
pub(super) fn database(section: &Section<'_>, report: &mut CheckReport) -> Option<DatabaseConfig> {
    let password = section.secret("password", report);
    let conns_max = count_u32(section, "max_conns");
    let conns_min = count_u32(section, "min_conns");
    if conns_min > conns_max {
        report.problem(
            section.place_of("min_conns"),
            format!("it is above max_conns ({conns_max})"),
            "lower it, or raise max_conns",
        );
    }
    let hosted = section.has("host") || section.has("hosts");
    let driver = section.text("driver");
    match driver.as_deref() {
        Some("postgres") => {}
        None if hosted => {}
        Some(_) | None => {
            if driver.is_some() {
                for key in POSTGRES_KEYS {
                    if section.has(key) {
                        let what = format!("the driver sqlite has no {key}");
                        let way_out = "remove it, or write driver: postgres";
                        report.problem(section.place_of(key), what, way_out);
                    }
                }
            }
            return Some(DatabaseConfig::Sqlite(section.path("path").expect(PRESET)));
        }
    }
    if section.has("path") {
        report.problem(
            section.place_of("path"),
            "PostgreSQL has no path",
            "remove it; `s3-orchestrator catalogue` commands say how to bring a catalogue along",
        );
    }
    let hosts = hosts(section, report);
    let named = |key: &str, what: &str, report: &mut CheckReport| {
        let value = section.text(key);
        if value.is_none() {
            report.problem(section.place_of(key), "the key is missing", what);
        }
        value
    };
    let name = named("database", "name the database", report);
    let user = named("user", "name the role", report);
    if conns_max < CONNS_MIN {
        report.problem(
            section.place_of("max_conns"),
            format!("{conns_max} connections are not enough"),
            "allow at least 3: two that write and one that looks things up",
        );
    }
    Some(DatabaseConfig::Postgres(Box::new(PostgresConfig {
        hosts: hosts?,
        database: name?,
        user: user?,
        password,
        ssl_mode: match section.text("ssl_mode").as_deref() {
            Some("disable") => SslMode::Disable,
            Some("prefer") => SslMode::Prefer,
            Some("verify-ca") => SslMode::VerifyCa,
            Some("verify-full") => SslMode::VerifyFull,
            _ => SslMode::Require,
        },
        ca_file: section.path("ca_file"),
        conns_max,
        conns_min,
        conn_lifetime: section.duration("max_conn_lifetime").expect(PRESET),
        lease: section.duration("lease").expect(PRESET),
    })))
}

/// `host` with `port`, or the list of `hosts`.
fn hosts(section: &Section<'_>, report: &mut CheckReport) -> Option<Vec<(String, u16)>> {
    let port = u16::try_from(section.count("port").expect(PRESET)).unwrap_or(u16::MAX);
    let listed = section.words("hosts");
    match (section.text("host"), listed.as_slice()) {
        (Some(host), []) => Some(vec![(host, port)]),
        (None, []) => {
            report.problem(
                section.place_of("host"),
                "the key is missing",
                "say where PostgreSQL is, such as host: db.example.com",
            );
            None
        }
        (Some(_), _) => {
            report.problem(
                section.place_of("hosts"),
                "host is there already",
                "keep one of the two",
            );
            None
        }
        (None, listed) => listed
            .iter()
            .map(|text| host_and_port(text, port, section, report))
            .collect(),
    }
}

fn host_and_port(
    text: &str,
    port: u16,
    section: &Section<'_>,
    report: &mut CheckReport,
) -> Option<(String, u16)> {
    let bare = !text.is_empty() && !text.contains([':', '/', '[']);
    if bare {
        return Some((text.to_owned(), port));
    }
    let parsed = text
        .parse::<ListenAddr>()
        .ok()
        .filter(|at| !at.host().is_empty() && at.port() > 0);
    if parsed.is_none() {
        report.problem(
            section.place_of("hosts"),
            format!("'{text}' is no host"),
            "write host, host:port or [IPv6]:port",
        );
    }
    parsed.map(|at| (at.host().to_owned(), at.port()))
}

/// Instances on several machines write to the same backends: a directory must be one that all see.
pub(super) fn check_backends(
    database: &DatabaseConfig,
    backends: &[BackendConfig],
    root: &Section<'_>,
    report: &mut CheckReport,
) {
    if matches!(database, DatabaseConfig::Sqlite(_)) {
        return;
    }
    let sections = root.list("backends");
    if sections.len() != backends.len() {
        // One of them has a problem of its own, which is told first.
        return;
    }
    for (backend, section) in backends.iter().zip(&sections) {
        let (key, what, way_out) = match &backend.kind {
            BackendKindConfig::Local { shared: false, .. } => (
                "shared",
                "with PostgreSQL, every instance must see the same directory",
                "write shared: true where it is one, or use another kind",
            ),
            BackendKindConfig::Memory => (
                "kind",
                "with PostgreSQL, other instances cannot reach the memory of this process",
                "use another kind",
            ),
            BackendKindConfig::Local { shared: true, .. } | BackendKindConfig::S3(_) => continue,
        };
        let mut place = section.place_of(key);
        place.line = section.place().line;
        report.problem(place, what, way_out);
    }
}
