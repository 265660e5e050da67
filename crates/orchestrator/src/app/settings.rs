//! From the configuration to what the engine is told.

use std::io;
use std::path::{Path, PathBuf};

use crate::config::{
    BackendConfig, BackendKindConfig, Config, DatabaseConfig, HttpConfig, RedisConfig,
    RoutingStrategy, S3BackendConfig, SslMode, UsageFlushConfig,
};
use engine::{
    AdaptiveFlush, BackendKind as EngineKind, BackendSettings, CataloguePlace, RedisSettings,
    Routing, S3Settings, Server, Settings, TlsMode, UsageFlush, UsageLimits,
};

/// Why a backend cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// A file of certificates cannot be read.
    #[error("reading the certificates of {path}")]
    CaFile {
        /// Which file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// What the engine is told.
pub fn engine_settings(config: &Config) -> Result<Settings, SettingsError> {
    let mut settings = Settings::new(catalogue(&config.database));
    settings.buckets = config
        .buckets
        .iter()
        .map(|bucket| (bucket.name.clone(), bucket.max_multipart_uploads))
        .collect();
    settings.backends = config
        .backends
        .iter()
        .map(backend)
        .collect::<Result<Vec<_>, SettingsError>>()?;
    settings.routing = match config.routing_strategy {
        RoutingStrategy::Pack => Routing::Pack,
        RoutingStrategy::Spread => Routing::Spread,
    };
    settings.max_object_size = config.server.max_object_size;
    settings.backend_timeout = config.server.backend_timeout;
    settings.replay_window = config.write_path.replay_window;
    settings.read_grace = config.cleanup_queue.read_grace;
    settings.cleanup_concurrency = config.cleanup_queue.concurrency;
    settings.claim_grace = config.cleanup_queue.claim_grace_period;
    settings.multipart_stale = config.cleanup_queue.multipart_stale_timeout;
    settings.usage_flush = usage_flush(&config.usage_flush);
    settings.redis = config.redis.as_ref().map(redis);
    Ok(settings)
}

fn catalogue(config: &DatabaseConfig) -> CataloguePlace {
    let postgres = match config {
        DatabaseConfig::Sqlite(path) => return CataloguePlace::File(path.clone()),
        DatabaseConfig::Postgres(postgres) => postgres,
    };
    CataloguePlace::Server(Box::new(Server {
        hosts: postgres.hosts.clone(),
        database: postgres.database.clone(),
        user: postgres.user.clone(),
        password: postgres.password.clone(),
        tls: match postgres.ssl_mode {
            SslMode::Disable => TlsMode::Disable,
            SslMode::Prefer => TlsMode::Prefer,
            SslMode::Require => TlsMode::Require,
            SslMode::VerifyCa => TlsMode::VerifyCa,
            SslMode::VerifyFull => TlsMode::VerifyFull,
        },
        ca_file: postgres.ca_file.clone(),
        conns_max: postgres.conns_max,
        conns_min: postgres.conns_min,
        conn_lifetime: postgres.conn_lifetime,
        lease: postgres.lease,
    }))
}

fn usage_flush(config: &UsageFlushConfig) -> UsageFlush {
    UsageFlush {
        interval: config.interval,
        adaptive: config.adaptive.map(|adaptive| AdaptiveFlush {
            threshold: adaptive.threshold,
            fast_interval: adaptive.fast_interval,
        }),
    }
}

fn redis(config: &RedisConfig) -> RedisSettings {
    RedisSettings {
        host: config.host.clone(),
        port: config.port,
        password: config.password.clone(),
        db: config.db,
        tls: config.tls,
        key_prefix: config.key_prefix.clone(),
        failure_threshold: config.failure_threshold,
        open_timeout: config.open_timeout,
    }
}

fn backend(config: &BackendConfig) -> Result<BackendSettings, SettingsError> {
    Ok(BackendSettings {
        name: config.name.clone(),
        kind: match &config.kind {
            BackendKindConfig::Local { path, shared } => EngineKind::Local {
                path: path.clone(),
                shared: *shared,
            },
            BackendKindConfig::Memory => EngineKind::Memory,
            BackendKindConfig::S3(s3) => EngineKind::S3(Box::new(provider(s3, &config.http)?)),
        },
        quota: config.quota,
        max_object_size: config.max_object_size,
        body_idle_timeout: config.http.body_idle_timeout,
        calls_max: config.http.max_conns_per_host,
        usage_limits: UsageLimits {
            requests: config.usage_limits.requests,
            egress: config.usage_limits.egress.map(|size| size.0),
            ingress: config.usage_limits.ingress.map(|size| size.0),
        },
    })
}

fn provider(config: &S3BackendConfig, http: &HttpConfig) -> Result<S3Settings, SettingsError> {
    let mut settings = S3Settings::new(
        &config.endpoint.to_string(),
        &config.bucket,
        &config.access_key_id,
        config.secret_access_key.clone(),
    );
    settings.region = config.region.clone();
    settings.force_path_style = config.force_path_style;
    settings.unsigned_payload = config.unsigned_payload;
    settings.disable_checksum = config.disable_checksum;
    settings.ca_file = config.ca_file.as_deref().map(read).transpose()?;
    settings.connect_timeout = http.connect_timeout;
    settings.pool_idle_max = http.max_idle_conns_per_host;
    Ok(settings)
}

fn read(path: &Path) -> Result<Vec<u8>, SettingsError> {
    std::fs::read(path).map_err(|source| SettingsError::CaFile {
        path: path.to_owned(),
        source,
    })
}
