//! The configuration as the program uses it: parsed, checked, with all defaults filled in.

use std::num::NonZeroU64;
use std::path::PathBuf;
use std::time::Duration;

use base::{BackendName, BucketName, ByteSize, Secret};
use http::{HeaderName, Method, Uri};
use ipnet::IpNet;

use super::scalar::ListenAddr;
use super::scope::{Grant, Verbs};

/// Everything that the configuration file says.
#[derive(Debug, Clone)]
pub struct Config {
    /// The S3 listener and its limits.
    pub server: ServerConfig,
    /// The virtual buckets, at least one unless there is a root account; names unique.
    pub buckets: Vec<BucketConfig>,
    /// The account that may do everything, absent by default.
    pub root: Option<RootCredential>,
    /// Whether presigned URLs of signature version 2 are accepted; default not.
    pub allow_sigv2_presigned: bool,
    /// Further buckets for key pairs of `buckets`.
    pub grants: Vec<CredentialGrant>,
    /// What opens the admin API, which is off without it: `ui.admin_token`, or else `ui.admin_key`.
    pub admin_token: Option<Secret>,
    /// What holds the catalogue; default the file `s3-orchestrator.db` in the working directory.
    pub database: DatabaseConfig,
    /// The storage backends, at least one, names unique, in the order of the file.
    pub backends: Vec<BackendConfig>,
    /// How backends are chosen for new objects; default pack.
    pub routing_strategy: RoutingStrategy,
    /// The worker that deletes on backends.
    pub cleanup_queue: CleanupQueueConfig,
    /// How often the counters behind monthly limits are written.
    pub usage_flush: UsageFlushConfig,
    /// Where instances tell each other of usage; absent (the default) without `redis.address`.
    pub redis: Option<RedisConfig>,
    /// The path of a write.
    pub write_path: WritePathConfig,
    /// The Prometheus endpoint; absent where `telemetry.metrics.enabled` is false (the default).
    pub metrics: Option<MetricsConfig>,
    /// The breaker around the database. The embedded catalogue has no use for it.
    pub circuit_breaker: CircuitBreakerConfig,
}

/// `database`.
#[derive(Debug, Clone, PartialEq)]
pub enum DatabaseConfig {
    /// Files of this process; the path of the first of them.
    Sqlite(PathBuf),
    /// A server that several instances share.
    Postgres(Box<PostgresConfig>),
}

/// `database` where the driver is `postgres`.
#[derive(Debug, Clone, PartialEq)]
pub struct PostgresConfig {
    /// Hosts and ports, the preferred one first.
    pub hosts: Vec<(String, u16)>,
    /// Name of the database.
    pub database: String,
    /// Name of the role.
    pub user: String,
    /// Its password.
    pub password: Option<Secret>,
    /// How the connection is secured; default require.
    pub ssl_mode: SslMode,
    /// Certificates of authorities, beside those of the system.
    pub ca_file: Option<PathBuf>,
    /// Largest number of connections; default 50.
    pub conns_max: u32,
    /// Connections opened at the start; default 10.
    pub conns_min: u32,
    /// Age at which a connection is replaced; default 5 min.
    pub conn_lifetime: Duration,
    /// How long an instance may be silent; default 30 s.
    pub lease: Duration,
}

/// `database.ssl_mode`, with the names of PostgreSQL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SslMode {
    /// In plain text.
    Disable,
    /// Encrypted where the server can.
    Prefer,
    /// Encrypted.
    Require,
    /// With a certificate of a known authority.
    VerifyCa,
    /// With one for this very host.
    VerifyFull,
}

/// `server`.
#[derive(Debug, Clone, PartialEq)]
pub struct ServerConfig {
    /// Where S3 requests are accepted; required.
    pub listen_addr: ListenAddr,
    /// Least severe level that is logged; default info.
    pub log_level: LogLevel,
    /// Form of log lines; default JSON.
    pub log_format: LogFormat,
    /// Largest object in bytes; default 5 GiB.
    pub max_object_size: ByteSize,
    /// Requests in flight; default 1,000 of either kind together.
    pub admission: Admission,
    /// Longest wait for the head of a backend's answer; total only for calls without a body.
    /// Default 30 s.
    pub backend_timeout: Duration,
    /// Longest wait for the head of a client's request; default 10 s.
    pub read_header_timeout: Duration,
    /// Longest time without progress on a request body; default 5 min.
    pub read_timeout: Duration,
    /// Longest time without progress on a response body; default 5 min.
    pub write_timeout: Duration,
    /// How slow clients may be with bodies; default 1 KiB/s after 30 s.
    pub min_rate: Option<MinRate>,
    /// How long a connection may idle between requests; default 120 s.
    pub idle_timeout: Duration,
    /// Between "not ready" and the end of accepting, at shutdown; default 0.
    pub shutdown_delay: Duration,
    /// How long requests may finish at shutdown; default 30 s.
    pub shutdown_timeout: Duration,
    /// Domains below which the first label names a bucket, in lower case; none by default.
    pub virtual_host_domains: Vec<String>,
    /// Certificate and key; absent means plain HTTP, the default.
    pub tls: Option<TlsConfig>,
}

/// How slow a client may be with the bytes of a body, in either direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MinRate {
    /// What it must move, in bytes per second of the time in which it is waited for.
    pub bytes_per_second: NonZeroU64,
    /// How long it may be slower at first.
    pub grace: Duration,
}

/// How many requests are worked on at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// One pool for all requests.
    Shared {
        /// Requests in flight.
        requests: usize,
    },
    /// A pool for reads and one for writes.
    Split {
        /// Reads in flight.
        reads: usize,
        /// Writes in flight.
        writes: usize,
    },
}

/// `server.tls`.
#[derive(Debug, Clone, PartialEq)]
pub struct TlsConfig {
    /// PEM file of the certificate chain.
    pub cert_file: PathBuf,
    /// PEM file of the private key.
    pub key_file: PathBuf,
    /// Oldest protocol version; default 1.2.
    pub min_version: TlsVersion,
    /// PEM file of the authorities that client certificates must come from; absent (the default)
    /// means that no client certificate is asked for.
    pub client_ca_file: Option<PathBuf>,
}

/// A version of TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsVersion {
    /// TLS 1.2.
    V1_2,
    /// TLS 1.3.
    V1_3,
}

/// `server.log_level`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogLevel {
    /// Everything.
    Debug,
    /// What happened.
    Info,
    /// What an operator should look at.
    Warn,
    /// What should wake a person.
    Error,
}

impl LogLevel {
    /// All names, from the most talkative on.
    pub const NAMES: [&'static str; 4] = ["debug", "info", "warn", "error"];

    /// The name.
    pub const fn as_str(self) -> &'static str {
        let [debug, info, warn, error] = Self::NAMES;
        match self {
            Self::Debug => debug,
            Self::Info => info,
            Self::Warn => warn,
            Self::Error => error,
        }
    }

    /// The level of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Debug, Self::Info, Self::Warn, Self::Error]
            .into_iter()
            .find(|level| level.as_str() == name)
    }
}

/// `server.log_format`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object per line.
    Json,
    /// Lines for people.
    Text,
}

/// One of `buckets`.
#[derive(Debug, Clone)]
pub struct BucketConfig {
    /// The name that clients use.
    pub name: BucketName,
    /// At least one; access key ids and tokens are unique across all buckets.
    pub credentials: Vec<BucketCredential>,
    /// Open multipart uploads at a time; absent (the default) means any number.
    pub max_multipart_uploads: Option<u32>,
    /// Which web pages may use the bucket; none by default.
    pub cors: Vec<CorsRuleConfig>,
}

/// One of `buckets[].credentials`.
#[derive(Debug, Clone)]
pub struct BucketCredential {
    /// What proves it.
    pub proof: Credential,
    /// What it may do in its bucket; everything by default.
    pub allow: Verbs,
    /// Only with keys that begin with one of these; empty (the default) means every key.
    pub prefixes: Vec<String>,
    /// Only from these networks; empty (the default) means from anywhere.
    pub networks: Vec<IpNet>,
}

/// `auth.root`.
#[derive(Debug, Clone)]
pub struct RootCredential {
    /// The public half.
    pub access_key_id: String,
    /// The secret half.
    pub secret_access_key: Secret,
}

/// One of `grants`.
#[derive(Debug, Clone)]
pub struct CredentialGrant {
    /// Whose; the access key of a credential in `buckets`.
    pub access_key_id: String,
    /// What it may do besides.
    pub grant: Grant,
}

/// One of `buckets[].cors`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CorsRuleConfig {
    /// Origins, each with one `*` at most.
    pub allowed_origins: Vec<String>,
    /// Methods.
    pub allowed_methods: Vec<Method>,
    /// Request headers, each with one `*` at most.
    pub allowed_headers: Vec<String>,
    /// Response headers that a page may read.
    pub expose_headers: Vec<HeaderName>,
    /// How long a browser may keep the answer, in seconds; absent (the default) leaves it to the
    /// browser.
    pub max_age: Option<u64>,
}

/// What opens a bucket.
#[derive(Debug, Clone)]
pub enum Credential {
    /// A key pair of Signature Version 4.
    KeyPair {
        /// The public half.
        access_key_id: String,
        /// The secret half.
        secret_access_key: Secret,
    },
    /// The value of `X-Proxy-Token`.
    Token(Secret),
}

/// One of `backends`.
#[derive(Debug, Clone, PartialEq)]
pub struct BackendConfig {
    /// Its name; default `backend-N`, counted from 1.
    pub name: BackendName,
    /// Where its bytes are.
    pub kind: BackendKindConfig,
    /// Bytes that may be stored there; absent (the default) means any number.
    pub quota: Option<ByteSize>,
    /// Largest object that is placed there; absent (the default) means any.
    pub max_object_size: Option<ByteSize>,
    /// Connections; the defaults where the kind is not `s3`.
    pub http: HttpConfig,
    /// What it may be asked for in a month; absent (the default) means any amount.
    pub usage_limits: UsageLimitsConfig,
}

/// The monthly limits of one of `backends`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct UsageLimitsConfig {
    /// `api_request_limit`.
    pub requests: Option<u64>,
    /// `egress_byte_limit`.
    pub egress: Option<ByteSize>,
    /// `ingress_byte_limit`.
    pub ingress: Option<ByteSize>,
}

/// What a backend is.
#[derive(Debug, Clone, PartialEq)]
pub enum BackendKindConfig {
    /// A bucket of an S3 provider.
    S3(Box<S3BackendConfig>),
    /// A directory.
    Local {
        /// The directory.
        path: PathBuf,
        /// Whether every instance sees it; default no.
        shared: bool,
    },
    /// The memory of this process: gone when it ends.
    Memory,
}

/// A backend of the kind `s3`.
#[derive(Debug, Clone, PartialEq)]
pub struct S3BackendConfig {
    /// Scheme (http or https), host, port and path; no query, no credentials.
    pub endpoint: Uri,
    /// The region to sign for; default `us-east-1`.
    pub region: String,
    /// The provider's bucket.
    pub bucket: String,
    /// The public half of the key pair.
    pub access_key_id: String,
    /// The secret half of the key pair.
    pub secret_access_key: Secret,
    /// Whether the bucket is named in the path instead of the host: as the file says, absent where
    /// it says nothing.
    pub force_path_style: Option<bool>,
    /// Whether bodies travel unsigned: as the file says, absent where it says nothing.
    pub unsigned_payload: Option<bool>,
    /// Whether no checksum of ours is sent along; default false.
    pub disable_checksum: bool,
    /// PEM file with further authorities to trust; default none.
    pub ca_file: Option<PathBuf>,
}

/// `backends[].http`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HttpConfig {
    /// Longest time to a connection, TLS included; default 10 s.
    pub connect_timeout: Duration,
    /// Longest time without progress on a body; default 30 s.
    pub body_idle_timeout: Duration,
    /// Idle connections that are kept; default 100.
    pub max_idle_conns_per_host: usize,
    /// Calls, and so connections, at a time; default 200.
    pub max_conns_per_host: u32,
}

/// `routing_strategy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RoutingStrategy {
    /// Fill the first backend, then the next.
    Pack,
    /// Keep all backends equally full.
    Spread,
}

/// `cleanup_queue`.
#[derive(Debug, Clone, PartialEq)]
pub struct CleanupQueueConfig {
    /// Backend calls at a time; default 10.
    pub concurrency: u32,
    /// Age at which an open multipart upload is given up; default 24 h.
    pub multipart_stale_timeout: Duration,
    /// How long a claimed row may stay claimed; default 5 min.
    pub claim_grace_period: Duration,
    /// How long displaced bytes stay readable; default 60 s.
    pub read_grace: Duration,
}

/// `usage_flush`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct UsageFlushConfig {
    /// The time between two writes; default 30 s.
    pub interval: Duration,
    /// `adaptive_enabled`; absent (the default) means that the interval never changes.
    pub adaptive: Option<AdaptiveFlushConfig>,
}

/// `usage_flush` while a backend is near a limit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdaptiveFlushConfig {
    /// The share of a limit from which a backend is near it; default 0.8.
    pub threshold: f64,
    /// The time between two writes then; default 5 s.
    pub fast_interval: Duration,
}

/// `redis`, switched on.
#[derive(Debug, Clone, PartialEq)]
pub struct RedisConfig {
    /// Its host; required, with a port.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// The password, where it wants one; default none.
    pub password: Option<Secret>,
    /// Which of its databases; default 0.
    pub db: u32,
    /// Whether it is spoken to by TLS; default false.
    pub tls: bool,
    /// What every key begins with; default `s3orch`.
    pub key_prefix: String,
    /// Failures in a row after which it is not asked for a while; default 3.
    pub failure_threshold: u32,
    /// How long; default 15 s.
    pub open_timeout: Duration,
}

/// `write_path`.
#[derive(Debug, Clone, PartialEq)]
pub struct WritePathConfig {
    /// How much of a body is kept in memory for another backend; default 1 MiB.
    pub replay_window: ByteSize,
}

/// `telemetry.metrics`, switched on.
#[derive(Debug, Clone, PartialEq)]
pub struct MetricsConfig {
    /// The path; default `/metrics`.
    pub path: String,
    /// A listener of its own; absent (the default) means the S3 listener.
    pub listen: Option<ListenAddr>,
    /// Whether the start fails where that listener cannot be had; default true.
    pub require_listener: bool,
}

/// `circuit_breaker`.
#[derive(Debug, Clone, PartialEq)]
pub struct CircuitBreakerConfig {
    /// Failures in a row that open it; default 3.
    pub failure_threshold: u64,
    /// How long it stays open; default 15 s.
    pub open_timeout: Duration,
    /// Age at which a cached location is too old; default 60 s.
    pub cache_ttl: Duration,
    /// Whether reads go on while it is open; default true.
    pub degraded_reads_enabled: bool,
}
