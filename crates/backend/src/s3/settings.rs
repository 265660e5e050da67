//! What an operator says about a provider, and where its requests go.
//!
//! Refuses an endpoint that is not a plain `http` or `https` URL, so that nothing is ever sent to
//! a host that was only meant as a path or as credentials.

use std::net::IpAddr;
use std::time::Duration;

use base::Secret;
use http::Uri;
use http::uri::{Authority, Scheme};

use crate::BackendKey;

/// Time for DNS, TCP and TLS together.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Below the keep-alive time of the usual servers (60 to 75 s), so that we close first: a request
/// that meets the other side's close has an unknown outcome.
const POOL_IDLE_TIMEOUT: Duration = Duration::from_secs(50);
/// Idle connections that are kept.
const POOL_IDLE_MAX: usize = 256;

/// One S3 provider as the configuration describes it.
#[derive(Debug, Clone)]
pub struct S3Settings {
    /// Base URL, for example `https://s3.eu-central-1.amazonaws.com`; it may have a path.
    pub endpoint: String,
    /// Region that requests are signed for.
    pub region: String,
    /// The provider's bucket.
    pub bucket: String,
    /// Access key id.
    pub access_key_id: String,
    /// Secret access key.
    pub secret_access_key: Secret,
    /// Session token of temporary credentials.
    pub session_token: Option<Secret>,
    /// Whether the bucket goes into the path instead of the host name. Where absent, that is so for
    /// IP addresses, for hosts without a dot, and for buckets that cannot be part of a host name.
    pub force_path_style: Option<bool>,
    /// `Some(true)` never hashes bodies for the signature, `Some(false)` always signs them, chunk
    /// by chunk; where absent, a body is signed only where that is free.
    pub unsigned_payload: Option<bool>,
    /// Never sends checksum headers or trailers (Google refuses them).
    pub disable_checksum: bool,
    /// Certificates in PEM that are trusted besides those of the system.
    pub ca_file: Option<Vec<u8>>,
    /// The longest time for DNS, TCP and TLS together.
    pub connect_timeout: Duration,
    /// Idle connections that are kept at most.
    pub pool_idle_max: usize,
    /// Time after which an idle connection is closed.
    pub pool_idle_timeout: Duration,
}

impl S3Settings {
    /// Settings with the defaults for everything that is not named.
    pub fn new(endpoint: &str, bucket: &str, access_key_id: &str, secret: Secret) -> Self {
        Self {
            endpoint: endpoint.to_owned(),
            region: "us-east-1".to_owned(),
            bucket: bucket.to_owned(),
            access_key_id: access_key_id.to_owned(),
            secret_access_key: secret,
            session_token: None,
            force_path_style: None,
            unsigned_payload: None,
            disable_checksum: false,
            ca_file: None,
            connect_timeout: CONNECT_TIMEOUT,
            pool_idle_max: POOL_IDLE_MAX,
            pool_idle_timeout: POOL_IDLE_TIMEOUT,
        }
    }
}

/// Why settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum S3SettingsError {
    /// The endpoint is not a URL that requests can go to.
    #[error(
        "the endpoint {endpoint:?} is not an http or https URL without user, query or fragment"
    )]
    Endpoint {
        /// The refused text.
        endpoint: String,
    },
    /// The bucket name cannot be part of a request.
    #[error("the bucket name {bucket:?} is empty or contains a slash or a control character")]
    Bucket {
        /// The refused name.
        bucket: String,
    },
    /// Access key id or region cannot be part of a signature.
    #[error("the credentials cannot be used for signatures")]
    Signer(#[source] s3wire::sigv4::SignerError),
    /// The session token cannot be part of a header.
    #[error("the session token contains characters that no header can carry")]
    SessionToken,
    /// The CA file holds no usable certificate.
    #[error("the CA file holds no usable certificate in PEM form")]
    CaFile {
        /// What is wrong with it, where it could be read at all.
        #[source]
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
    /// The endpoint is https, but there is no certificate to trust.
    #[error("this system has no trusted root certificates: install them or set ca_file")]
    NoRoots,
    /// The TLS library refused its configuration.
    #[error("TLS cannot be configured")]
    Tls(#[source] rustls::Error),
}

/// Where the requests of one bucket go.
#[derive(Debug, Clone)]
pub(super) struct BucketAddress {
    pub(super) scheme: Scheme,
    pub(super) authority: Authority,
    /// Percent-encoded path of the bucket: empty for virtual-host style at the root of the host.
    bucket_path: String,
    bucket: String,
}

impl BucketAddress {
    pub(super) fn of(settings: &S3Settings) -> Result<Self, S3SettingsError> {
        let bucket = &settings.bucket;
        if bucket.is_empty() || bucket.contains('/') || bucket.chars().any(char::is_control) {
            return Err(S3SettingsError::Bucket {
                bucket: bucket.clone(),
            });
        }
        let (scheme, host, base) =
            split_endpoint(&settings.endpoint).ok_or_else(|| S3SettingsError::Endpoint {
                endpoint: settings.endpoint.clone(),
            })?;
        let path_style = settings
            .force_path_style
            .unwrap_or_else(|| needs_path_style(&host, &scheme, bucket));
        let encoded = s3wire::uri::encode_component(bucket);
        let (authority, bucket_path) = match path_style {
            true => (host, format!("{base}/{encoded}")),
            false => (
                format!("{bucket}.{host}")
                    .parse()
                    .map_err(|_| S3SettingsError::Bucket {
                        bucket: bucket.clone(),
                    })?,
                base,
            ),
        };
        Ok(Self {
            scheme,
            authority,
            bucket_path,
            bucket: bucket.clone(),
        })
    }

    /// Where connections lead.
    pub(super) fn origin(&self) -> Uri {
        let parts = Uri::builder()
            .scheme(self.scheme.clone())
            .authority(self.authority.clone())
            .path_and_query("/");
        parts
            .build()
            .expect("scheme, authority and path make a URI")
    }

    pub(super) fn is_https(&self) -> bool {
        self.scheme == Scheme::HTTPS
    }

    /// The percent-encoded path of the bucket itself.
    pub(super) fn bucket_path(&self) -> String {
        match self.bucket_path.is_empty() {
            true => "/".to_owned(),
            false => self.bucket_path.clone(),
        }
    }

    /// The percent-encoded path of a key. Dot segments and empty components stay as they are.
    pub(super) fn key_path(&self, key: &BackendKey) -> String {
        format!(
            "{}/{}",
            self.bucket_path,
            s3wire::uri::encode_path(key.as_str())
        )
    }

    /// The value of `x-amz-copy-source`.
    pub(super) fn copy_source(&self, key: &BackendKey, version: Option<&str>) -> String {
        let path = s3wire::headers::print_copy_source(&self.bucket, key.as_str());
        match version {
            None => path,
            Some(id) => format!("{path}?versionId={}", s3wire::uri::encode_component(id)),
        }
    }
}

fn split_endpoint(endpoint: &str) -> Option<(Scheme, Authority, String)> {
    let uri: Uri = endpoint.trim().parse().ok()?;
    let parts = uri.into_parts();
    let scheme = parts
        .scheme
        .filter(|s| *s == Scheme::HTTP || *s == Scheme::HTTPS)?;
    let authority = parts
        .authority
        .filter(|a| !a.as_str().contains('@') && !a.host().is_empty())?;
    let path = parts.path_and_query?;
    if path.query().is_some() || endpoint.contains('#') {
        return None;
    }
    Some((
        scheme,
        authority,
        path.path().trim_end_matches('/').to_owned(),
    ))
}

fn needs_path_style(host: &Authority, scheme: &Scheme, bucket: &str) -> bool {
    let name = host.host();
    let is_ip = name.starts_with('[') || name.parse::<IpAddr>().is_ok();
    let label = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let in_host_name = match *scheme == Scheme::HTTPS {
        // A dot in the bucket name leaves the wildcard of the provider's certificate.
        true => bucket.bytes().all(label),
        false => bucket.bytes().all(|b| label(b) || b == b'.'),
    };
    is_ip || !name.contains('.') || !in_host_name
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(endpoint: &str, bucket: &str) -> Result<BucketAddress, S3SettingsError> {
        BucketAddress::of(&S3Settings::new(
            endpoint,
            bucket,
            "id",
            Secret::new("secret".to_owned()),
        ))
    }

    #[test]
    fn the_bucket_goes_into_the_host_only_where_it_can() {
        for (endpoint, bucket, host, path) in [
            ("https://s3.example.com", "b1", "b1.s3.example.com", "/k"),
            ("https://s3.example.com/", "b.1", "s3.example.com", "/b.1/k"),
            ("http://s3.example.com", "b.1", "b.1.s3.example.com", "/k"),
            (
                "https://s3.example.com:9000",
                "b_1",
                "s3.example.com:9000",
                "/b_1/k",
            ),
            ("http://localhost:9000", "b", "localhost:9000", "/b/k"),
            ("http://[::1]:9000", "b", "[::1]:9000", "/b/k"),
            ("http://127.0.0.1", "b c", "127.0.0.1", "/b%20c/k"),
            (
                "https://x.example.com/storage/v1/s3/",
                "B",
                "x.example.com",
                "/storage/v1/s3/B/k",
            ),
        ] {
            let address = address(endpoint, bucket).unwrap();
            assert_eq!(address.authority.as_str(), host, "{endpoint} {bucket}");
            assert_eq!(address.key_path(&BackendKey::new("k").unwrap()), path);
        }
    }

    #[test]
    fn endpoints_that_are_not_plain_urls_are_refused() {
        for endpoint in [
            "",
            "s3.example.com",
            "ftp://a.b",
            "http://u:p@a.b",
            "http://a.b/?x=1",
            "http://a/#f",
        ] {
            assert!(
                matches!(
                    address(endpoint, "b"),
                    Err(S3SettingsError::Endpoint { .. })
                ),
                "{endpoint}"
            );
        }
        for bucket in ["", "a/b", "a\n"] {
            assert!(matches!(
                address("http://a.b", bucket),
                Err(S3SettingsError::Bucket { .. })
            ));
        }
    }

    #[test]
    fn odd_keys_keep_their_bytes_in_the_path() {
        let address = address("http://localhost", "b").unwrap();
        for (key, path) in [
            ("a//b", "/b/a//b"),
            ("../x", "/b/../x"),
            ("%2F", "/b/%252F"),
            ("\u{1}\n ?#+", "/b/%01%0A%20%3F%23%2B"),
        ] {
            let wire = address.key_path(&BackendKey::new(key).unwrap());
            assert_eq!(wire, path);
            let uri = Uri::builder()
                .scheme(address.scheme.clone())
                .authority(address.authority.clone())
                .path_and_query(wire.as_str())
                .build()
                .unwrap();
            assert_eq!(uri.path(), path);
        }
        let source = address.copy_source(&BackendKey::new("ä+/x").unwrap(), Some("a/b=="));
        assert_eq!(source, "/b/%C3%A4%2B/x?versionId=a%2Fb%3D%3D");
    }
}
