//! Connections: a pool of HTTP/1.1 connections per provider, with TLS where the URL says so.
//!
//! A request that meets a closed pooled connection before a byte of it was written is sent again on
//! another one; hyper hands such a request back whole, with its body untouched. Everything later is
//! the caller's decision.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Request, Response, Uri};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder, MaybeHttpsStream};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{Client, Error as ClientError};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tokio::net::TcpStream;
use tower_service::Service;

use super::settings::{Address, S3Settings, SettingsError};
use super::upload::RequestBody;

/// The most header fields of an answer: what an object of ours may carry as user metadata (2 KiB of
/// one-letter names and values), and the provider's own.
const ANSWER_FIELDS_MAX: usize = 1200;

/// Bytes that one connection buffers at most in each direction; a response head must fit too.
const CONNECTION_BUFFER_BYTES_MAX: usize = 128 * 1024;

/// Silence after which the kernel asks whether the other side is still there.
const TCP_KEEPALIVE: Duration = Duration::from_secs(30);

/// Sends requests to one provider.
pub(super) struct Transport {
    client: Client<Connector, RequestBody>,
}

impl Transport {
    pub(super) fn new(settings: &S3Settings, address: &Address) -> Result<Self, SettingsError> {
        let mut tcp = HttpConnector::new();
        tcp.set_nodelay(true);
        tcp.enforce_http(false);
        tcp.set_keepalive(Some(TCP_KEEPALIVE));
        let roots = match address.is_https() {
            true => trusted_roots(settings.ca_file.as_deref())?,
            false => RootCertStore::empty(),
        };
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(SettingsError::Tls)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let inner = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .wrap_connector(tcp);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(settings.pool_idle_timeout)
            .pool_max_idle_per_host(settings.pool_idle_max)
            .http1_max_buf_size(CONNECTION_BUFFER_BYTES_MAX)
            .http1_max_headers(ANSWER_FIELDS_MAX)
            .set_host(false)
            .build(Connector {
                inner,
                limit: settings.connect_timeout,
            });
        Ok(Self { client })
    }

    pub(super) async fn send(
        &self,
        request: Request<RequestBody>,
    ) -> Result<Response<Incoming>, ClientError> {
        self.client.request(request).await
    }
}

fn trusted_roots(ca_file: Option<&[u8]>) -> Result<RootCertStore, SettingsError> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if let Some(pem) = ca_file {
        let refuse = |source| SettingsError::CaFile { source };
        let mut found = false;
        for certificate in CertificateDer::pem_slice_iter(pem) {
            let certificate = certificate.map_err(|error| refuse(Some(error.into())))?;
            roots
                .add(certificate)
                .map_err(|error| refuse(Some(error.into())))?;
            found = true;
        }
        if !found {
            return Err(refuse(None));
        }
    }
    match roots.is_empty() {
        true => Err(SettingsError::NoRoots),
        false => Ok(roots),
    }
}

/// Connects within a limit that covers DNS, TCP and TLS together.
#[derive(Clone)]
struct Connector {
    inner: HttpsConnector<HttpConnector>,
    limit: Duration,
}

type Stream = MaybeHttpsStream<TokioIo<TcpStream>>;
type ConnectError = Box<dyn std::error::Error + Send + Sync>;

impl Service<Uri> for Connector {
    type Response = Stream;
    type Error = ConnectError;
    type Future = Pin<Box<dyn Future<Output = Result<Stream, ConnectError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ConnectError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connect = self.inner.call(uri);
        let limit = self.limit;
        Box::pin(async move {
            match tokio::time::timeout(limit, connect).await {
                Ok(connected) => connected,
                Err(_) => Err(io::Error::from(io::ErrorKind::TimedOut).into()),
            }
        })
    }
}
