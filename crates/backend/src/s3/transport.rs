//! Connections to a provider: made as they are needed, with TLS where the URL says so, and kept for the
//! next request.
//!
//! Each thread keeps its own: a connection whose events one thread waits for is best used there, and
//! nobody else's lock is in the way.
//!
//! A request that meets a closed connection before a byte of it was taken is sent again on another
//! one, with its body untouched. Everything later is the caller's decision.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder, MaybeHttpsStream};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::time::Instant;
use tower_service::Service;

use super::http1::{Connection, ExchangeError, Outgoing, ProviderBody, Response};
use super::settings::{BucketAddress, S3Settings, S3SettingsError};
use crate::turn::line_up;

/// Silence after which the kernel asks whether the other side is still there.
const TCP_KEEPALIVE: Duration = Duration::from_secs(30);

/// Threads beyond so many share what they keep.
const HOMES: usize = 32;

static THREADS: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static THREAD: usize = THREADS.fetch_add(1, Ordering::Relaxed);
}

/// Why a request got no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum SendError {
    /// There is no connection; nothing has left.
    #[error("no connection")]
    Connect(#[source] ConnectError),
    /// A new connection took no byte.
    #[error("the connection took nothing")]
    Untaken(#[source] ExchangeError),
    /// The exchange was begun, and not finished.
    #[error(transparent)]
    Exchange(ExchangeError),
}

/// Sends requests to one provider.
pub(super) struct Transport {
    connector: Dialer,
    origin: Uri,
    homes: [Arc<Home>; HOMES],
}

impl Transport {
    pub(super) fn new(
        settings: &S3Settings,
        address: &BucketAddress,
    ) -> Result<Self, S3SettingsError> {
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
            .map_err(S3SettingsError::Tls)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let inner = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .wrap_connector(tcp);
        let keeping = Arc::new(Keeping {
            most: settings.pool_idle_max,
            longest: settings.pool_idle_timeout,
            kept: AtomicUsize::new(0),
        });
        Ok(Self {
            connector: Dialer {
                inner,
                limit: settings.connect_timeout,
            },
            origin: address.origin(),
            homes: std::array::from_fn(|_| Arc::new(Home::new(&keeping))),
        })
    }

    /// Sends a request; what is returned has not read the answer's body.
    pub(super) async fn send(
        &self,
        mut request: Outgoing,
    ) -> Result<(Response, ProviderBody), SendError> {
        line_up().await;
        let home = &self.homes[THREAD.with(|thread| *thread) % HOMES];
        loop {
            let kept = home.take();
            let fresh = kept.is_none();
            let mut connection = match kept {
                Some(connection) => connection,
                None => self.connect().await.map_err(SendError::Connect)?,
            };
            match connection.exchange(&mut request).await {
                Ok(answer) => {
                    let body = ProviderBody::new(connection, &answer, Arc::clone(home));
                    return Ok((answer, body));
                }
                Err(error @ ExchangeError::Body(_)) => return Err(SendError::Exchange(error)),
                Err(_) if !request.has_begun() && !fresh => {}
                Err(error) if !request.has_begun() => return Err(SendError::Untaken(error)),
                Err(error) => return Err(SendError::Exchange(error)),
            }
        }
    }

    async fn connect(&self) -> Result<Connection, ConnectError> {
        // Clones share their parts; each is ready for one call.
        let mut connector = self.connector.clone();
        std::future::poll_fn(|cx| connector.poll_ready(cx)).await?;
        let stream = connector.call(self.origin.clone()).await?;
        Ok(Connection::new(stream.into()))
    }
}

/// How many connections are kept, and how long.
struct Keeping {
    most: usize,
    longest: Duration,
    kept: AtomicUsize,
}

/// The connections that a thread keeps.
pub(super) struct Home {
    idle: Mutex<Vec<Idle>>,
    keeping: Arc<Keeping>,
    /// Somebody closes what is kept for too long.
    swept: AtomicBool,
}

struct Idle {
    connection: Connection,
    since: Instant,
    _place: KeptConnection,
}

/// One of the connections that are kept.
struct KeptConnection(Arc<Keeping>);

impl Drop for KeptConnection {
    fn drop(&mut self) {
        self.0.kept.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Keeping {
    fn place(self: &Arc<Self>) -> Option<KeptConnection> {
        let place = KeptConnection(Arc::clone(self));
        (self.kept.fetch_add(1, Ordering::Relaxed) < self.most).then_some(place)
    }
}

impl Home {
    fn new(keeping: &Arc<Keeping>) -> Self {
        Self {
            idle: Mutex::new(Vec::new()),
            keeping: Arc::clone(keeping),
            swept: AtomicBool::new(false),
        }
    }

    /// The connection that was used last, if it is still good.
    fn take(&self) -> Option<Connection> {
        loop {
            let Idle {
                mut connection,
                since,
                ..
            } = self.idle.lock().pop()?;
            if since.elapsed() < self.keeping.longest && connection.is_quiet() {
                return Some(connection);
            }
        }
    }

    /// Keeps a connection whose answer was read to its end.
    pub(super) fn take_back(self: Arc<Self>, mut connection: Connection) {
        let Some(place) = self.keeping.place() else {
            return;
        };
        connection.rest();
        self.idle.lock().push(Idle {
            connection,
            since: Instant::now(),
            _place: place,
        });
        if !self.swept.swap(true, Ordering::AcqRel)
            && let Ok(runtime) = Handle::try_current()
        {
            runtime.spawn(sweep(Arc::downgrade(&self), self.keeping.longest));
        }
    }

    /// Closes what was kept for too long, and says when to come again.
    fn close_old(&self) -> Option<Instant> {
        let mut idle = self.idle.lock();
        // The oldest come first: what is used is the newest.
        let old = idle
            .iter()
            .take_while(|idle| idle.since.elapsed() >= self.keeping.longest);
        let old = old.count();
        idle.drain(..old);
        let next = idle.first().map(|idle| idle.since + self.keeping.longest);
        if next.is_none() {
            self.swept.store(false, Ordering::Release);
        }
        next
    }
}

/// Closes connections in time. A backend that is gone has closed its own.
async fn sweep(home: Weak<Home>, longest: Duration) {
    let mut next = Instant::now() + longest;
    loop {
        tokio::time::sleep_until(next).await;
        match home.upgrade().and_then(|home| home.close_old()) {
            Some(later) => next = later,
            None => return,
        }
    }
}

fn trusted_roots(ca_file: Option<&[u8]>) -> Result<RootCertStore, S3SettingsError> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if let Some(pem) = ca_file {
        let refuse = |source| S3SettingsError::CaFile { source };
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
        true => Err(S3SettingsError::NoRoots),
        false => Ok(roots),
    }
}

/// Connects within a limit that covers DNS, TCP and TLS together.
#[derive(Clone)]
struct Dialer {
    inner: HttpsConnector<HttpConnector>,
    limit: Duration,
}

type DialedStream = MaybeHttpsStream<TokioIo<TcpStream>>;
type ConnectError = Box<dyn std::error::Error + Send + Sync>;

impl Service<Uri> for Dialer {
    type Response = DialedStream;
    type Error = ConnectError;
    type Future = Pin<Box<dyn Future<Output = Result<DialedStream, ConnectError>> + Send>>;

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
