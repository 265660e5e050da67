//! Start, stop, and certificates that change in between.

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::support::{Auth, Options, Request, Server, Wire, configure, noise, path};

#[tokio::test]
async fn a_stop_lets_the_transfer_under_way_finish_and_takes_nothing_new() {
    let server = Server::with(Options {
        server: "  shutdown_delay: 300ms",
        ..Options::default()
    })
    .await;
    let addr = server.addr;
    let body = noise(4 << 20);
    let mut transfer = server.connect().await;
    let (head, _) = Request::put(&path("k"))
        .header("expect", "100-continue")
        .body(&body)
        .head_bytes(addr);
    transfer.write(&head).await;
    assert_eq!(transfer.head().await.unwrap().0, 100);
    let mut idle = server.connect().await;
    idle.write(&Request::get("/health/ready").auth(Auth::None).bytes(addr))
        .await;
    idle.response(false).await.expect(200);
    let (app, dir) = server.into_app();
    let stopping = tokio::spawn(app.stop());
    // While the pause lasts, requests are answered, and probes are told to go elsewhere.
    let mut probe = Wire::new(TcpStream::connect(addr).await.unwrap());
    loop {
        probe
            .write(&Request::get("/health/ready").auth(Auth::None).bytes(addr))
            .await;
        match probe.response(false).await.status {
            200 => tokio::task::yield_now().await,
            status => break assert_eq!(status, 503),
        }
    }
    // Idle connections end; the transfer goes on.
    assert!(idle.rest().await.is_empty());
    assert!(TcpStream::connect(addr).await.is_err());
    transfer.write(&body).await;
    transfer.response(false).await.expect(200);
    assert!(transfer.rest().await.is_empty());
    stopping.await.unwrap().unwrap();
    let config = configure(dir.path(), &Options::default());
    let server = Server::of(config, dir).await;
    assert!(server.get("k").await.expect(200).body == body);
}

#[tokio::test]
async fn a_transfer_that_does_not_end_is_cut_and_leaves_nothing() {
    let server = Server::with(Options {
        server: "  shutdown_timeout: 200ms",
        ..Options::default()
    })
    .await;
    let addr = server.addr;
    let mut transfer = server.connect().await;
    let (head, _) = Request::put(&path("k"))
        .header("expect", "100-continue")
        .body(&noise(100_000))
        .head_bytes(addr);
    transfer.write(&head).await;
    assert_eq!(transfer.head().await.unwrap().0, 100);
    let (app, dir) = server.into_app();
    app.stop().await.unwrap();
    assert!(transfer.rest().await.is_empty());
    let server = Server::of(configure(dir.path(), &Options::default()), dir).await;
    server.get("k").await.expect(404);
}

struct Identity {
    authority: rustls::pki_types::CertificateDer<'static>,
}

/// Writes a certificate and its key where the server looks for them.
fn issue(dir: &Path) -> Identity {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(dir.join("cert.pem"), made.cert.pem()).unwrap();
    std::fs::write(dir.join("key.pem"), made.signing_key.serialize_pem()).unwrap();
    Identity {
        authority: made.cert.der().clone(),
    }
}

async fn connect(
    server: &Server,
    identity: &Identity,
) -> std::io::Result<Wire<TlsStream<TcpStream>>> {
    let mut roots = RootCertStore::empty();
    roots.add(identity.authority.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from("localhost").unwrap();
    let stream = TcpStream::connect(server.addr).await?;
    let stream = TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await?;
    Ok(Wire::new(stream))
}

#[tokio::test]
async fn certificates_are_exchanged_without_a_restart_and_bad_ones_are_not_taken() {
    let dir = tempfile::tempdir().unwrap();
    let first = issue(dir.path());
    let mut config = configure(dir.path(), &Options::default());
    config.server.tls = Some(orchestrator::config::TlsConfig {
        cert_file: dir.path().join("cert.pem"),
        key_file: dir.path().join("key.pem"),
        min_version: orchestrator::config::TlsVersion::V1_3,
        client_ca_file: None,
    });
    let mut server = Server::of(config, dir).await;
    let mut old = connect(&server, &first).await.unwrap();
    let put = Request::put(&path("k"))
        .body(&noise(200_000))
        .bytes(server.addr);
    old.write(&put).await;
    old.response(false).await.expect(200);

    let second = issue(server.dir.path());
    server.app().reload();
    assert!(connect(&server, &first).await.is_err());
    let mut new = connect(&server, &second).await.unwrap();
    new.write(&Request::get(&path("k")).bytes(server.addr))
        .await;
    assert_eq!(new.response(false).await.expect(200).body.len(), 200_000);
    // Connections from before go on.
    old.write(&Request::head(&path("k")).bytes(server.addr))
        .await;
    old.response(true).await.expect(200);

    std::fs::write(server.dir.path().join("cert.pem"), "nonsense").unwrap();
    server.app().reload();
    connect(&server, &second).await.unwrap();
}

#[tokio::test]
async fn a_client_without_a_certificate_is_turned_away_where_one_is_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let identity = issue(dir.path());
    let mut config = configure(dir.path(), &Options::default());
    config.server.tls = Some(orchestrator::config::TlsConfig {
        cert_file: dir.path().join("cert.pem"),
        key_file: dir.path().join("key.pem"),
        min_version: orchestrator::config::TlsVersion::V1_2,
        client_ca_file: Some(dir.path().join("cert.pem")),
    });
    let server = Server::of(config, dir).await;
    // With TLS 1.3 the refusal arrives with the first read.
    if let Ok(mut wire) = connect(&server, &identity).await {
        wire.write(&Request::get("/health").auth(Auth::None).bytes(server.addr))
            .await;
        assert!(wire.head().await.is_none());
    }
}

#[tokio::test]
async fn credentials_change_without_a_restart_and_a_bad_file_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let text = super::support::config_text(dir.path(), &Options::default());
    let file = dir.path().join("config.yaml");
    std::fs::write(&file, &text).unwrap();
    let mut server = Server::of_file(dir, file.clone()).await;
    server.put("k", b"x").await.expect(200);

    std::fs::write(
        &file,
        text.replace(super::support::SECRET, "another-secret"),
    )
    .unwrap();
    server.app().reload();
    server.get("k").await.expect(403);
    let new = || Request::get(&path("k")).key(super::support::KEY, "another-secret");
    server.send(new()).await.expect(200);

    std::fs::write(&file, "server: nonsense").unwrap();
    server.app().reload();
    server.send(new()).await.expect(200);
}
