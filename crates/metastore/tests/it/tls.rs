//! How the way to PostgreSQL is secured, with a server that lets nobody in without TLS and a password.

use std::sync::OnceLock;

use base::{Secret, report};
use metastore::{Store, TlsMode};
use testbed::{Certificate, Database, Postgres};

use crate::support::Db;

const PASSWORD: &str = "of the tests' own";

struct Managed {
    server: Postgres,
    certificate: String,
}

fn managed() -> &'static Managed {
    static MANAGED: OnceLock<Managed> = OnceLock::new();
    MANAGED.get_or_init(|| {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let shown = Certificate {
            certificate: made.cert.pem(),
            key: made.signing_key.serialize_pem(),
        };
        let server = Postgres::start_managed(&shown);
        let postgres = Database {
            port: server.port(),
            name: "postgres".into(),
        };
        let quoted = PASSWORD.replace('\'', "''");
        postgres.run(&format!("CREATE ROLE tenant LOGIN PASSWORD '{quoted}'"));
        Managed {
            server,
            certificate: shown.certificate,
        }
    })
}

/// Opens a catalogue as a role that owns its database and nothing else.
async fn opened(host: &str, tls: TlsMode, authority: Option<&str>) -> Result<(), String> {
    opened_with(host, tls, authority, PASSWORD).await
}

async fn opened_with(
    host: &str,
    tls: TlsMode,
    authority: Option<&str>,
    password: &str,
) -> Result<(), String> {
    let database = managed().server.database();
    database.run(&format!("ALTER DATABASE {} OWNER TO tenant", database.name));
    let dir = tempfile::tempdir().unwrap();
    let db = Db::sqlite();
    let mut options = db.connect_options(&database);
    options.server.hosts = vec![(host.into(), database.port)];
    options.server.user = "tenant".into();
    options.server.password = Some(Secret::new(password.to_owned()));
    options.server.tls = tls;
    options.server.ca_file = authority.map(|pem| {
        let file = dir.path().join("authority.pem");
        std::fs::write(&file, pem).unwrap();
        file
    });
    let store = Store::connect(options).await;
    let store = store.map_err(|error| report(&error).to_string())?;
    let open = db.set_up(store).await.unwrap();
    open.put(open.one(), "k", 10).await;
    open.store
        .close()
        .await
        .map_err(|error| report(&error).to_string())
}

#[tokio::test]
async fn a_role_without_privileges_writes_over_tls_with_a_password() {
    let known = managed().certificate.as_str();
    for (host, mode, authority) in [
        ("localhost", TlsMode::VerifyFull, Some(known)),
        ("127.0.0.1", TlsMode::VerifyCa, Some(known)),
        ("127.0.0.1", TlsMode::Require, None),
        ("127.0.0.1", TlsMode::Prefer, None),
    ] {
        let outcome = opened(host, mode, authority).await;
        assert_eq!(outcome, Ok(()), "{host} {mode:?}");
    }
}

#[tokio::test]
async fn a_way_that_is_not_as_secure_as_was_asked_for_is_not_taken() {
    let other = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let (known, other) = (managed().certificate.as_str(), other.cert.pem());
    for (host, mode, authority, says) in [
        ("127.0.0.1", TlsMode::Disable, None, "no encryption"),
        (
            "127.0.0.1",
            TlsMode::VerifyFull,
            Some(known),
            "not valid for name",
        ),
        (
            "localhost",
            TlsMode::VerifyFull,
            Some(&other),
            "certificate",
        ),
        ("localhost", TlsMode::VerifyCa, Some(&other), "certificate"),
        ("localhost", TlsMode::VerifyFull, None, "certificate"),
    ] {
        let refused = opened(host, mode, authority).await.unwrap_err();
        assert!(refused.contains(says), "{host} {mode:?}: {refused}");
    }
    let refused = opened_with("localhost", TlsMode::Require, None, "another").await;
    let refused = refused.unwrap_err();
    assert!(
        refused.contains("password authentication failed"),
        "{refused}"
    );
}
