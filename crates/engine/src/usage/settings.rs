//! What the operator decides about usage counters.

use std::time::Duration;

use base::Secret;

/// What a backend may be asked for in a month, UTC; `None` is any amount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct UsageLimits {
    /// Requests.
    pub requests: Option<u64>,
    /// Bytes of objects read from it.
    pub egress: Option<u64>,
    /// Bytes of objects written to it.
    pub ingress: Option<u64>,
}

/// A Redis that instances share.
#[derive(Debug, Clone)]
pub struct RedisSettings {
    /// Its host.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// The password, where it wants one.
    pub password: Option<Secret>,
    /// Which of its databases.
    pub db: u32,
    /// Whether it is spoken to by TLS.
    pub tls: bool,
    /// What every key begins with.
    pub key_prefix: String,
    /// Failures in a row after which it is not asked for a while.
    pub failure_threshold: u32,
    /// How long.
    pub open_timeout: Duration,
}

/// How often usage is written to the catalogue.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct UsageFlush {
    /// The time between two flushes.
    pub interval: Duration,
    /// A shorter one near limits.
    pub adaptive: Option<AdaptiveFlush>,
}

/// How often usage is written while a backend is near a limit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdaptiveFlush {
    /// The share of a limit from which a backend is near it, between 0 and 1.
    pub threshold: f64,
    /// The time between two flushes then.
    pub fast_interval: Duration,
}
