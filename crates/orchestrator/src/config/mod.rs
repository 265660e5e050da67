//! The configuration file: what it may say, and what it says.
//!
//! [`load`] reads one YAML file and answers with a typed [`Config`] or with every problem that the
//! file has, each with its line, its key and the way out. What keys exist, of which type, with
//! which default, is said once, in [`keys`]; the reader, the checks and `docs/configuration.md`
//! all follow that table. Nothing here touches the network or a database.

mod build;
mod check;
mod document;
mod duration;
mod environment;
mod expand;
pub mod keys;
mod load;
mod problem;
mod reader;
mod reference;
mod scalar;
mod scope;
mod types;

pub use build::is_route;
pub use duration::{DurationError, format_duration, parse_duration};
pub use environment::{Environment, NoEnvironment, ProcessEnvironment};
pub use load::{Loaded, load, parse};
pub use problem::{ConfigError, Problem};
pub use reference::render as render_reference;
pub use scalar::{ListenAddr, ListenAddrError};
pub use scope::{Grant, Verb, Verbs, is_in_networks};
pub use types::{
    AdaptiveFlushConfig, Admission, BackendConfig, BackendKindConfig, BucketConfig,
    BucketCredential, CircuitBreakerConfig, CleanupQueueConfig, Config, CorsRuleConfig, Credential,
    CredentialGrant, DatabaseConfig, HttpConfig, LogFormat, LogLevel, MetricsConfig, MinRate,
    PostgresConfig, RedisConfig, RootCredential, RoutingStrategy, S3BackendConfig, ServerConfig,
    SslMode, TlsConfig, TlsVersion, UsageFlushConfig, UsageLimitsConfig, WritePathConfig,
};
