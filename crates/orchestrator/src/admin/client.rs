//! The other end of the admin API: one call over one connection.

use std::io;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use base::Secret;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST};
use http::uri::Scheme;
use http::{HeaderValue, Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use serde_json::{Map, Value};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::{AdminEntry, PREFIX, Param, ParamPlace, TOKEN_HEADER, answers};

/// How long a call may take, connecting included.
const CALL_MAX: Duration = Duration::from_secs(30);

/// The largest answer that is taken, in bytes.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// Where a server listens: scheme, host, port, and a path in front of the API where a proxy adds one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerAddress {
    tls: bool,
    host: String,
    port: u16,
    path: String,
}

/// The text is no address of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no address of a server: write HOST:PORT or https://HOST:PORT")]
pub struct AddressError;

/// A server, and what proves who asks.
#[derive(Debug, Clone)]
pub struct AdminServer {
    /// Where it is.
    pub address: ServerAddress,
    /// The value of its `ui.admin_token`.
    pub token: Secret,
    /// PEM files with authorities that are trusted besides those of the system.
    pub authorities: Vec<PathBuf>,
}

/// A call with what it is given.
#[derive(Debug, Clone)]
pub struct AdminCall {
    /// Which call.
    pub entry: &'static AdminEntry,
    /// A value for each of its parameters.
    pub values: Vec<(&'static Param, String)>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The server cannot be reached.
    #[error("reaching {address}; is the server running, and is that its address (-addr)?")]
    Connect {
        /// Where.
        address: ServerAddress,
        /// Why not.
        source: io::Error,
    },
    /// The server did not answer in time.
    #[error("no answer from {address} within {} seconds", CALL_MAX.as_secs())]
    TimedOut {
        /// Where.
        address: ServerAddress,
    },
    /// The server cannot prove who it is.
    #[error(
        "speaking TLS with {address}; -addr must have the name of its certificate, and -ca FILE \
         names an authority that the system does not know"
    )]
    Tls {
        /// Where.
        address: ServerAddress,
        /// Why not.
        source: io::Error,
    },
    /// A file of authorities cannot be used.
    #[error("reading the authorities of {path}")]
    Authorities {
        /// Which file.
        path: PathBuf,
        /// Why not.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The token, or a value, cannot travel in a request.
    #[error("making the request: the token or a value has characters that HTTP does not carry")]
    Request(#[source] http::Error),
    /// The connection broke.
    #[error("asking {address}")]
    Exchange {
        /// Where.
        address: ServerAddress,
        /// How.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The token is not the server's.
    #[error(
        "{address} does not know the token: give its ui.admin_token by -token, S3O_ADMIN_TOKEN or \
         the configuration"
    )]
    Unauthorized {
        /// Where.
        address: ServerAddress,
    },
    /// The server refused or failed.
    #[error("{address} answered {status}: {error}")]
    Refused {
        /// Where.
        address: ServerAddress,
        /// The status.
        status: StatusCode,
        /// What it said.
        error: String,
    },
    /// Something else listens there.
    #[error(
        "{address} answered {status}, but not as an admin API does: -addr must name the S3 \
         listener of s3-orchestrator"
    )]
    Stranger {
        /// Where.
        address: ServerAddress,
        /// The status.
        status: StatusCode,
    },
}

impl FromStr for ServerAddress {
    type Err = AddressError;

    /// Takes `HOST:PORT`, and URLs of http and https; plain HTTP where there is no scheme.
    fn from_str(text: &str) -> Result<Self, AddressError> {
        let text = match text.contains("://") {
            true => text.to_owned(),
            false => format!("http://{text}"),
        };
        let uri: Uri = text.parse().map_err(|_| AddressError)?;
        let tls = match uri.scheme() {
            Some(scheme) if *scheme == Scheme::HTTP => false,
            Some(scheme) if *scheme == Scheme::HTTPS => true,
            Some(_) | None => return Err(AddressError),
        };
        let authority = uri.authority().ok_or(AddressError)?;
        let host = authority.host().trim_matches(['[', ']']).to_owned();
        if host.is_empty() || authority.as_str().contains('@') || uri.query().is_some() {
            return Err(AddressError);
        }
        Ok(Self {
            tls,
            host,
            port: authority.port_u16().unwrap_or(if tls { 443 } else { 80 }),
            path: uri.path().trim_end_matches('/').to_owned(),
        })
    }
}

impl std::fmt::Display for ServerAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        write!(f, "{scheme}://{}{}", self.authority(), self.path)
    }
}

impl ServerAddress {
    fn authority(&self) -> String {
        match self.host.contains(':') {
            true => format!("[{}]:{}", self.host, self.port),
            false => format!("{}:{}", self.host, self.port),
        }
    }
}

impl AdminServer {
    /// Makes a call; the JSON that was answered.
    ///
    /// # Errors
    /// [`CallError`]
    pub async fn call(&self, call: &AdminCall) -> Result<Bytes, CallError> {
        let address = || self.address.clone();
        let request = self.request(call)?;
        let exchange = async {
            let stream = self.connect().await?;
            match self.address.tls {
                false => self.exchange(stream, request).await,
                true => {
                    let stream = self.secure(stream).await?;
                    self.exchange(stream, request).await
                }
            }
        };
        let timed_out = |_| CallError::TimedOut { address: address() };
        let (status, body) = timeout(CALL_MAX, exchange).await.map_err(timed_out)??;
        if status.is_success() && serde_json::from_slice::<Value>(&body).is_ok() {
            return Ok(body);
        }
        let address = address();
        Err(
            match serde_json::from_slice::<answers::ErrorAnswer>(&body) {
                Ok(_) if status == StatusCode::UNAUTHORIZED => CallError::Unauthorized { address },
                Ok(answers::ErrorAnswer { error }) => CallError::Refused {
                    address,
                    status,
                    error,
                },
                Err(_) => CallError::Stranger { address, status },
            },
        )
    }

    fn request(&self, call: &AdminCall) -> Result<Request<Full<Bytes>>, CallError> {
        let mut target = format!("{}{PREFIX}{}", self.address.path, call.entry.path);
        let given = |place| {
            let values = call.values.iter();
            values.filter(move |(param, _)| param.place == place)
        };
        let query =
            given(ParamPlace::Query).map(|(param, value)| (param.name, Some(value.as_str())));
        let query = s3wire::uri::encode_query(query);
        if !query.is_empty() {
            target = format!("{target}?{query}");
        }
        let fields = given(ParamPlace::Body).map(|(param, value)| {
            let value = Value::from(value.as_str());
            (param.name.to_owned(), value)
        });
        let fields: Map<String, Value> = fields.collect();
        let body = match call.entry.method == Method::GET {
            true => Bytes::new(),
            false => Value::Object(fields).to_string().into(),
        };
        let token = HeaderValue::from_str(self.token.reveal());
        let mut token = token.map_err(|error| CallError::Request(error.into()))?;
        token.set_sensitive(true);
        Request::builder()
            .method(&call.entry.method)
            .uri(target)
            .header(HOST, self.address.authority())
            .header(CONTENT_TYPE, "application/json")
            .header(TOKEN_HEADER, token)
            .body(Full::new(body))
            .map_err(CallError::Request)
    }

    async fn connect(&self) -> Result<TcpStream, CallError> {
        let ServerAddress { host, port, .. } = &self.address;
        let stream = TcpStream::connect((host.as_str(), *port)).await;
        stream.map_err(|source| CallError::Connect {
            address: self.address.clone(),
            source,
        })
    }

    async fn secure(
        &self,
        stream: TcpStream,
    ) -> Result<impl AsyncRead + AsyncWrite + Unpin + Send + 'static, CallError> {
        let failed = |source| CallError::Tls {
            address: self.address.clone(),
            source,
        };
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| failed(io::Error::other(error)))?
            .with_root_certificates(self.trusted()?)
            .with_no_client_auth();
        let name = ServerName::try_from(self.address.host.clone());
        let name = name.map_err(|error| failed(io::Error::other(error)))?;
        let connector = TlsConnector::from(Arc::new(config));
        connector.connect(name, stream).await.map_err(failed)
    }

    fn trusted(&self) -> Result<RootCertStore, CallError> {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        for path in &self.authorities {
            let failed = |source| CallError::Authorities {
                path: path.clone(),
                source,
            };
            let found = CertificateDer::pem_file_iter(path);
            let mut some = false;
            for certificate in found.map_err(|error| failed(error.into()))? {
                let certificate = certificate.map_err(|error| failed(error.into()))?;
                roots
                    .add(certificate)
                    .map_err(|error| failed(error.into()))?;
                some = true;
            }
            if !some {
                return Err(failed("it holds no certificate".into()));
            }
        }
        Ok(roots)
    }

    async fn exchange(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        request: Request<Full<Bytes>>,
    ) -> Result<(StatusCode, Bytes), CallError> {
        let failed = |source| CallError::Exchange {
            address: self.address.clone(),
            source,
        };
        let opened = http1::handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = opened.map_err(|error| failed(error.into()))?;
        let talk = async {
            let response = sender.send_request(request).await?;
            let (head, body) = response.into_parts();
            let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await?;
            Ok::<_, Box<dyn std::error::Error + Send + Sync>>((head.status, body.to_bytes()))
        };
        tokio::pin!(talk, connection);
        // The connection has to be driven while the answer comes, and is done with afterwards.
        let mut driven = false;
        loop {
            tokio::select! {
                biased;
                answered = &mut talk => return answered.map_err(failed),
                ended = &mut connection, if !driven => match ended {
                    Ok(()) => driven = true,
                    Err(error) => return Err(failed(error.into())),
                },
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_hosts_with_ports_or_urls() {
        for (text, shown) in [
            ("localhost:9000", "http://localhost:9000"),
            ("http://10.0.0.1:9000/", "http://10.0.0.1:9000"),
            ("https://s3.example.com", "https://s3.example.com:443"),
            ("[::1]:9000", "http://[::1]:9000"),
            ("http://proxy/s3/", "http://proxy:80/s3"),
        ] {
            let address: ServerAddress = text.parse().unwrap();
            assert_eq!(address.to_string(), shown);
        }
        for text in [
            "",
            ":9000",
            "http://",
            "ftp://x",
            "a b",
            "http://u:p@x",
            "http://x/?q",
            "unix:///run/x",
        ] {
            assert_eq!(text.parse::<ServerAddress>(), Err(AddressError), "{text}");
        }
    }
}
