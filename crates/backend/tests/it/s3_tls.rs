//! TLS: a certificate is trusted if its issuer is, and only then.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::sync::Arc;
use std::time::Duration;

use backend::{Effect, Kind, ObjectBackend as _, Payload, PutMeta, S3Settings, S3SettingsError};
use base::{Secret, SystemClock};
use bytes::Bytes;
use parking_lot::Mutex;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tokio::net::TcpSocket;
use tokio_rustls::TlsAcceptor;

use crate::s3_script::{SECRET, Seen, backend, key, ok, serve};

/// A server whose certificate was issued by a CA of its own; the CA's certificate in PEM.
async fn server() -> (String, Vec<u8>, Arc<Mutex<Vec<Seen>>>) {
    let ca_key = KeyPair::generate().unwrap();
    let mut ca = CertificateParams::new(Vec::new()).unwrap();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca_pem = ca.self_signed(&ca_key).unwrap().pem();
    let issuer = Issuer::new(ca, ca_key);
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let leaf = leaf.signed_by(&key, &issuer).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![leaf.der().clone()],
            PrivateKeyDer::Pkcs8(key.serialize_der().into()),
        )
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let socket = TcpSocket::new_v4().unwrap();
    // So that whoever sends much waits for us.
    socket.set_recv_buffer_size(16 << 10).unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(8).unwrap();
    let endpoint = format!(
        "https://localhost:{}",
        listener.local_addr().unwrap().port()
    );
    let seen = Arc::new(Mutex::new(Vec::new()));
    let record = Arc::clone(&seen);
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            if let Ok(stream) = acceptor.accept(stream).await {
                serve(stream, ok, &record).await;
            }
        }
    });
    (endpoint, ca_pem.into_bytes(), seen)
}

fn settings(endpoint: &str, ca_file: Option<Vec<u8>>) -> S3Settings {
    let secret = Secret::new(SECRET.to_owned());
    S3Settings {
        ca_file,
        ..S3Settings::new(endpoint, "bucket", "AKID", secret)
    }
}

#[tokio::test]
async fn a_ca_of_ones_own_is_trusted_once_it_is_named() {
    let (endpoint, ca, seen) = server().await;
    backend(settings(&endpoint, Some(ca)))
        .check()
        .await
        .unwrap();
    seen.lock()[0].verified();
}

#[tokio::test]
async fn an_unknown_issuer_is_refused_before_anything_is_sent() {
    let (endpoint, _, seen) = server().await;
    let error = backend(settings(&endpoint, None))
        .check()
        .await
        .unwrap_err();
    assert_eq!(
        (error.kind, error.effect),
        (Kind::Unavailable, Effect::None)
    );
    assert!(
        base::report(&error).to_string().contains("UnknownIssuer"),
        "{}",
        base::report(&error)
    );
    assert!(seen.lock().is_empty());
}

#[tokio::test]
async fn a_certificate_for_another_name_is_refused() {
    let (endpoint, ca, seen) = server().await;
    let endpoint = endpoint.replace("localhost", "127.0.0.1");
    let error = backend(settings(&endpoint, Some(ca)))
        .check()
        .await
        .unwrap_err();
    assert_eq!(
        (error.kind, error.effect),
        (Kind::Unavailable, Effect::None)
    );
    assert!(seen.lock().is_empty());
}

#[test]
fn a_ca_file_without_certificates_is_refused() {
    for text in [
        "",
        "not PEM",
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    ] {
        let settings = settings("https://localhost", Some(text.as_bytes().to_vec()));
        let name = "tls".parse().unwrap();
        let refused = backend::S3Backend::new(name, settings, Arc::new(SystemClock));
        assert!(
            matches!(refused, Err(S3SettingsError::CaFile { .. })),
            "{text}"
        );
    }
}

/// The last of a body may be encrypted and not have left when the connection has taken all of it.
#[tokio::test]
async fn a_large_body_arrives_whole_however_slowly_it_is_taken() {
    let (endpoint, ca, seen) = server().await;
    let backend = backend(settings(&endpoint, Some(ca)));
    // The system makes room in large steps: some of these lengths end where it has none.
    for step in 0..64 {
        let body = Bytes::from(vec![7; (6 << 20) + step * (48 << 10)]);
        let put = async {
            let payload = Payload::from_bytes(body.clone());
            let meta = PutMeta::default();
            backend.put(&key("k"), &meta, payload).await
        };
        let put = tokio::time::timeout(Duration::from_secs(20), put).await;
        put.expect("the body gets stuck on its way").unwrap();
        assert_eq!(seen.lock().pop().unwrap().body.len(), body.len());
    }
}
