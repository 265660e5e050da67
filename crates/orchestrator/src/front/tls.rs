//! TLS of the listeners: reading certificates, and exchanging them while connections live.

use std::fmt;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use base::Timestamp;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio_rustls::TlsAcceptor;
use tracing::warn;

use super::certificate::{self, Validity};
use crate::config::{TlsConfig, TlsVersion};

/// What users have that are neither the owner nor in the group.
const OTHERS: u32 = 0o007;
/// A certificate that ends sooner is worth a warning.
const EXPIRY_WARNING: Duration = Duration::from_secs(24 * 3600);

/// Why certificates were refused.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read, or holds no PEM of the right kind.
    #[error("reading {what} from {path}")]
    Read {
        /// What was looked for.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// Why not.
        source: rustls::pki_types::pem::Error,
    },
    /// The file holds no certificate.
    #[error("{path} holds no certificate")]
    Empty {
        /// Which file.
        path: PathBuf,
    },
    /// Certificate and key do not fit each other, or are of a kind that is not supported.
    #[error("using the certificate {cert} with the key {key}")]
    Pair {
        /// The certificate's file.
        cert: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// Why not.
        source: rustls::Error,
    },
    /// The authorities for client certificates cannot be used.
    #[error("using the client authorities of {path}")]
    ClientAuthorities {
        /// Their file.
        path: PathBuf,
        /// Why not.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// The TLS side of a listener; certificates can be exchanged at any time.
pub struct Tls {
    settings: TlsConfig,
    current: ArcSwap<ServerConfig>,
}

impl Tls {
    /// Reads the files.
    pub fn load(settings: &TlsConfig, now: Timestamp) -> Result<Self, TlsError> {
        let current = ArcSwap::from_pointee(build(settings, now)?);
        Ok(Self {
            settings: settings.clone(),
            current,
        })
    }

    /// Reads the files again. New connections use what they hold; after an error, what was there.
    pub fn reload(&self, now: Timestamp) -> Result<(), TlsError> {
        self.current.store(Arc::new(build(&self.settings, now)?));
        Ok(())
    }

    /// What a connection that begins now uses.
    pub(super) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.current.load_full())
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls")
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

/// Whoever can read the key can be this server. A group may be meant, as for `ssl-cert`.
fn warn_of_readers(key: &Path) {
    if let Some(mode) = mode_open_to_others(key) {
        warn!(
            file = %key.display(), mode,
            "TLS key is open to every user of this machine: set its mode to 0640 or 0600"
        );
    }
}

/// The mode of a file that is open to users who are neither its owner nor in its group.
fn mode_open_to_others(file: &Path) -> Option<String> {
    let mode = std::fs::metadata(file).ok()?.permissions().mode() & 0o7777;
    (mode & OTHERS != 0).then(|| format!("{mode:04o}"))
}

fn build(settings: &TlsConfig, now: Timestamp) -> Result<ServerConfig, TlsError> {
    let chain = certificates(&settings.cert_file)?;
    warn_of_expiry(&chain[0], &settings.cert_file, now);
    let key =
        PrivateKeyDer::from_pem_file(&settings.key_file).map_err(|source| TlsError::Read {
            what: "a private key",
            path: settings.key_file.clone(),
            source,
        })?;
    warn_of_readers(&settings.key_file);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let versions: &[&rustls::SupportedProtocolVersion] = match settings.min_version {
        TlsVersion::V1_2 => &[&rustls::version::TLS13, &rustls::version::TLS12],
        TlsVersion::V1_3 => &[&rustls::version::TLS13],
    };
    let pair = |source| TlsError::Pair {
        cert: settings.cert_file.clone(),
        key: settings.key_file.clone(),
        source,
    };
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(versions)
        .map_err(pair)?;
    let builder = match &settings.client_ca_file {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let refuse =
                |source: Box<dyn std::error::Error + Send + Sync>| TlsError::ClientAuthorities {
                    path: path.clone(),
                    source,
                };
            let mut roots = RootCertStore::empty();
            for authority in certificates(path)? {
                roots
                    .add(authority)
                    .map_err(|error| refuse(Box::new(error)))?;
            }
            let verifier =
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
            builder.with_client_cert_verifier(verifier.map_err(|error| refuse(Box::new(error)))?)
        }
    };
    let mut config = builder.with_single_cert(chain, key).map_err(pair)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// At least one.
fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let read = |source| TlsError::Read {
        what: "a certificate",
        path: path.to_owned(),
        source,
    };
    let found: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path).map_err(read)?.collect();
    let found = found.map_err(read)?;
    match found.is_empty() {
        true => Err(TlsError::Empty {
            path: path.to_owned(),
        }),
        false => Ok(found),
    }
}

fn warn_of_expiry(certificate: &CertificateDer<'_>, path: &Path, now: Timestamp) {
    let Some(Validity { not_after }) = certificate::validity(certificate) else {
        return;
    };
    if not_after <= now {
        warn!(path = %path.display(), not_after = s3wire::iso8601(not_after), "certificate expired");
    } else if not_after.since(now) < EXPIRY_WARNING {
        warn!(
            path = %path.display(),
            not_after = s3wire::iso8601(not_after),
            "certificate expires within a day"
        );
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};

    use super::*;

    #[test]
    fn a_key_that_every_user_may_read_is_noticed() {
        let home = tempfile::tempdir().unwrap();
        let key = home.path().join("key.pem");
        fs::write(&key, "").unwrap();
        for (mode, found) in [
            (0o600, None),
            (0o640, None),
            (0o644, Some("0644")),
            (0o606, Some("0606")),
        ] {
            fs::set_permissions(&key, Permissions::from_mode(mode)).unwrap();
            assert_eq!(mode_open_to_others(&key).as_deref(), found);
        }
    }
}
