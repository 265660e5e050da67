//! What the engine is told by its operator.

use std::path::PathBuf;
use std::time::Duration;

use base::{BackendName, BucketName, ByteSize};
use metastore::Server;

use crate::{RedisSettings, UsageFlush, UsageLimits};

/// How a backend is chosen for new bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Routing {
    /// The first backend in the order of the configuration that has room.
    Pack,
    /// The backend that is least full in proportion to its quota.
    Spread,
}

/// Which parts of the engine run, where several processes share a catalogue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Role {
    /// Requests and background work.
    #[default]
    All,
    /// Requests, and only the background work that belongs to this process.
    Api,
    /// Background work only.
    Worker,
}

/// Limits and choices; the defaults are those of the configuration reference.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where the catalogue is.
    pub catalogue: CataloguePlace,
    /// Which background work runs here.
    pub role: Role,
    /// The virtual buckets that exist, with their limit on open multipart uploads.
    pub buckets: Vec<(BucketName, Option<u32>)>,
    /// The backends in order.
    pub backends: Vec<BackendSettings>,
    /// How backends are chosen.
    pub routing: Routing,
    /// The largest object of a plain PUT, and the largest part.
    pub max_object_size: ByteSize,
    /// Longest time to a backend's response head.
    pub backend_timeout: Duration,
    /// Bytes of a body that are kept so that another backend can be tried.
    pub replay_window: ByteSize,
    /// The smallest part of a multipart upload but the last.
    pub part_size_min: ByteSize,
    /// How long displaced bytes stay on their backends.
    pub read_grace: Duration,
    /// Deletions on backends at a time.
    pub cleanup_concurrency: u32,
    /// How long a claimed cleanup row is invisible to others.
    pub claim_grace: Duration,
    /// Open uploads older than this are aborted.
    pub multipart_stale: Duration,
    /// How often usage is written.
    pub usage_flush: UsageFlush,
    /// Where instances tell each other of usage that is not written yet.
    pub redis: Option<RedisSettings>,
}

/// Where the catalogue is.
#[derive(Debug, Clone)]
pub enum CataloguePlace {
    /// In files of this process; the path of the first of them.
    File(PathBuf),
    /// On a PostgreSQL that instances share.
    Server(Box<Server>),
}

impl From<PathBuf> for CataloguePlace {
    fn from(path: PathBuf) -> Self {
        Self::File(path)
    }
}

impl Settings {
    /// Settings for a catalogue at this place, without buckets and backends.
    pub fn new(catalogue: impl Into<CataloguePlace>) -> Self {
        Self {
            catalogue: catalogue.into(),
            role: Role::All,
            buckets: Vec::new(),
            backends: Vec::new(),
            routing: Routing::Pack,
            max_object_size: ByteSize(5 << 30),
            backend_timeout: Duration::from_secs(30),
            replay_window: ByteSize(1 << 20),
            part_size_min: ByteSize(crate::PART_BYTES_MIN),
            read_grace: Duration::from_secs(60),
            cleanup_concurrency: 10,
            claim_grace: Duration::from_secs(300),
            multipart_stale: Duration::from_secs(24 * 3600),
            usage_flush: UsageFlush {
                interval: Duration::from_secs(30),
                adaptive: None,
            },
            redis: None,
        }
    }
}

/// One backend.
#[derive(Debug, Clone)]
pub struct BackendSettings {
    /// Its name.
    pub name: BackendName,
    /// What it is.
    pub kind: BackendKind,
    /// Its quota; `None` is unlimited.
    pub quota: Option<ByteSize>,
    /// The largest blob that it takes; `None` is unlimited.
    pub max_object_size: Option<ByteSize>,
    /// Longest time without a byte of a body.
    pub body_idle_timeout: Duration,
    /// Calls at a time.
    pub calls_max: u32,
    /// What it may be asked for in a month.
    pub usage_limits: UsageLimits,
}

/// The kinds of backends.
#[derive(Debug, Clone)]
pub enum BackendKind {
    /// A directory on this machine.
    Local {
        /// Where.
        path: PathBuf,
        /// Whether other instances write to it as well.
        shared: bool,
    },
    /// An S3 bucket at a provider.
    S3(Box<backend::S3Settings>),
    /// This process's memory: for trying things out; nothing survives a restart.
    Memory,
    /// A backend that a test made.
    #[cfg(feature = "testing")]
    Custom(CustomBackend),
}

/// A backend that a test made.
#[cfg(feature = "testing")]
#[derive(Clone)]
pub struct CustomBackend(pub std::sync::Arc<dyn backend::ObjectBackend>);

#[cfg(feature = "testing")]
impl std::fmt::Debug for CustomBackend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "CustomBackend({})", self.0.name())
    }
}
