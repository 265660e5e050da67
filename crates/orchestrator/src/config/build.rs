//! From the checked file to the typed configuration, with every rule that spans several keys.

mod access;
mod backends;
mod buckets;
mod cors;
mod database;
mod usage;

use std::num::NonZeroU64;
use std::time::Duration;

use base::ByteSize;

use super::check::CheckReport;
use super::document::Node;
use super::duration::format_duration;
use super::reader::Section;
use super::types::{
    Admission, CircuitBreakerConfig, CleanupQueueConfig, Config, LogFormat, LogLevel,
    MetricsConfig, MinRate, RoutingStrategy, ServerConfig, TlsConfig, TlsVersion, WritePathConfig,
};
use backends::backends;
use buckets::buckets;
pub use buckets::is_route;
use usage::{redis, usage_flush};

/// The largest `write_path.replay_window`: memory per request has a bound.
const REPLAY_WINDOW_MAX: ByteSize = ByteSize(64 << 20);

/// What the keys with a default in the table always have.
const PRESET: &str = "the table has a default for the key";

/// `None` only where a problem was reported.
pub(super) fn build(root: &Node, report: &mut CheckReport) -> Option<Config> {
    let root = Section::root(root);
    let server = server(&root.map("server"), report);
    let metrics = metrics(&root.map("telemetry").map("metrics"), report);
    let mut seen = access::SeenCredentials::default();
    let auth = root.map("auth");
    let root_account = access::root(&auth.map("root"), &mut seen, report);
    let has_root = root_account.is_some();
    let buckets = buckets(&root, metrics.as_ref(), has_root, &mut seen, report);
    let root_id = root_account
        .as_ref()
        .map(|root| root.access_key_id.as_str());
    let grants = access::grants(&root, &seen, (root_id, &buckets), report);
    let admin_token = access::admin_token(&root.map("ui"), report);
    let backends = backends(&root, report);
    let routing_strategy = match root.text("routing_strategy").as_deref() {
        Some("spread") => RoutingStrategy::Spread,
        _ => RoutingStrategy::Pack,
    };
    let redis = redis(&root.map("redis"), report);
    let database = database::database(&root.map("database"), report);
    if let Some(database) = &database {
        database::check_backends(database, &backends, &root, report);
    }
    warn_of_inert(&root, report);
    Some(Config {
        server: server?,
        buckets,
        root: root_account,
        allow_sigv2_presigned: auth.flag("allow_sigv2_presigned").expect(PRESET),
        grants,
        admin_token,
        database: database?,
        backends,
        routing_strategy,
        cleanup_queue: cleanup_queue(&root.map("cleanup_queue")),
        usage_flush: usage_flush(&root.map("usage_flush"), report),
        redis,
        write_path: write_path(&root.map("write_path"), report),
        metrics,
        circuit_breaker: circuit_breaker(&root.map("circuit_breaker")),
    })
}

fn server(server: &Section<'_>, report: &mut CheckReport) -> Option<ServerConfig> {
    if !server.has("listen_addr") {
        report.problem(
            server.place_of("listen_addr"),
            "the key is missing",
            "say where to listen, such as listen_addr: 127.0.0.1:9000",
        );
    }
    let duration = |name| server.duration(name).expect(PRESET);
    not_above(server, "backend_timeout", "write_timeout", report);
    not_above(server, "read_header_timeout", "read_timeout", report);
    let tls = tls(&server.map("tls"), report);
    let admission = admission(server, report);
    Some(ServerConfig {
        listen_addr: server.listen("listen_addr")?,
        log_level: server
            .text("log_level")
            .and_then(|name| LogLevel::from_name(&name))
            .unwrap_or(LogLevel::Info),
        log_format: match server.text("log_format").as_deref() {
            Some("text") => LogFormat::Text,
            _ => LogFormat::Json,
        },
        max_object_size: server.size("max_object_size").expect(PRESET),
        admission,
        backend_timeout: duration("backend_timeout"),
        read_header_timeout: duration("read_header_timeout"),
        read_timeout: duration("read_timeout"),
        write_timeout: duration("write_timeout"),
        min_rate: NonZeroU64::new(server.size("min_transfer_rate").expect(PRESET).0).map(
            |bytes_per_second| MinRate {
                bytes_per_second,
                grace: duration("min_transfer_grace"),
            },
        ),
        idle_timeout: duration("idle_timeout"),
        shutdown_delay: duration("shutdown_delay"),
        shutdown_timeout: duration("shutdown_timeout"),
        virtual_host_domains: virtual_host_domains(server, report),
        tls,
    })
}

/// Domains as host names are compared: in lower case, without a dot at either end.
fn virtual_host_domains(server: &Section<'_>, report: &mut CheckReport) -> Vec<String> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-');
    let domain = |word: String| {
        let domain = word.trim_matches('.').to_ascii_lowercase();
        if domain.is_empty() || !domain.bytes().all(fits) {
            report.problem(
                server.place_of("virtual_host_domains"),
                format!("'{word}' is not a domain"),
                "write a host name without scheme and port: s3.example.com",
            );
            return None;
        }
        Some(domain)
    };
    let words = server.words("virtual_host_domains");
    words.into_iter().filter_map(domain).collect()
}

fn not_above(section: &Section<'_>, smaller: &str, larger: &str, report: &mut CheckReport) {
    let value = |name: &str| -> Duration { section.duration(name).expect(PRESET) };
    let (low, high) = (value(smaller), value(larger));
    if low > high {
        report.problem(
            section.place_of(smaller),
            format!(
                "{} is above {larger} ({})",
                format_duration(low),
                format_duration(high)
            ),
            format!("lower it, or raise {larger}"),
        );
    }
}

fn admission(server: &Section<'_>, report: &mut CheckReport) -> Admission {
    let count = |name| usize::try_from(server.count(name).expect(PRESET)).unwrap_or(usize::MAX);
    let (reads, writes) = (
        count("max_concurrent_reads"),
        count("max_concurrent_writes"),
    );
    if reads > 0 && writes > 0 {
        return Admission::Split { reads, writes };
    }
    let requests = count("max_concurrent_requests");
    for (given, other, value) in [
        ("max_concurrent_reads", "max_concurrent_writes", reads),
        ("max_concurrent_writes", "max_concurrent_reads", writes),
    ] {
        if value > 0 {
            report.warning(
                server.place_of(given),
                format!("it has no effect without {other}: {requests} requests share one pool"),
                format!("set {other} as well, or remove it"),
            );
        }
    }
    Admission::Shared { requests }
}

fn tls(tls: &Section<'_>, report: &mut CheckReport) -> Option<TlsConfig> {
    let pair = [("cert_file", "key_file"), ("key_file", "cert_file")];
    for (given, missing) in pair {
        if tls.has(given) && !tls.has(missing) {
            report.problem(
                tls.place_of(given),
                format!("{missing} is missing"),
                format!("give both {given} and {missing}, or neither"),
            );
        }
    }
    if tls.has("client_ca_file") && !tls.has("cert_file") && !tls.has("key_file") {
        report.problem(
            tls.place_of("client_ca_file"),
            "client certificates need TLS, which is off",
            "give cert_file and key_file as well",
        );
    }
    Some(TlsConfig {
        cert_file: tls.path("cert_file")?,
        key_file: tls.path("key_file")?,
        min_version: match tls.text("min_version").as_deref() {
            Some("1.3") => TlsVersion::V1_3,
            _ => TlsVersion::V1_2,
        },
        client_ca_file: tls.path("client_ca_file"),
    })
}

fn metrics(metrics: &Section<'_>, report: &mut CheckReport) -> Option<MetricsConfig> {
    let path = metrics.text("path").expect(PRESET);
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '-' | '_' | '.' | '~');
    if !path.starts_with('/') || path.len() < 2 || !path.chars().all(plain) {
        report.problem(
            metrics.place_of("path"),
            format!("'{path}' is not a path of letters, digits, '-', '_', '.', '~' and '/'"),
            "write one such as /metrics",
        );
    }
    metrics
        .flag("enabled")
        .expect(PRESET)
        .then(|| MetricsConfig {
            path,
            listen: metrics.listen("listen"),
            require_listener: metrics.flag("require_listener").expect(PRESET),
        })
}

fn cleanup_queue(queue: &Section<'_>) -> CleanupQueueConfig {
    let duration = |name| queue.duration(name).expect(PRESET);
    CleanupQueueConfig {
        concurrency: count_u32(queue, "concurrency"),
        multipart_stale_timeout: duration("multipart_stale_timeout"),
        claim_grace_period: duration("claim_grace_period"),
        read_grace: duration("read_grace"),
    }
}

/// A count with a default and a maximum that fits.
fn count_u32(section: &Section<'_>, name: &str) -> u32 {
    u32::try_from(section.count(name).expect(PRESET)).unwrap_or(u32::MAX)
}

fn write_path(path: &Section<'_>, report: &mut CheckReport) -> WritePathConfig {
    let replay_window = path.size("replay_window").expect(PRESET);
    if replay_window > REPLAY_WINDOW_MAX {
        report.problem(
            path.place_of("replay_window"),
            format!("{replay_window} of memory per request are too much"),
            format!("{REPLAY_WINDOW_MAX} are the most"),
        );
    }
    WritePathConfig { replay_window }
}

fn circuit_breaker(breaker: &Section<'_>) -> CircuitBreakerConfig {
    CircuitBreakerConfig {
        failure_threshold: breaker.count("failure_threshold").expect(PRESET),
        open_timeout: breaker.duration("open_timeout").expect(PRESET),
        cache_ttl: breaker.duration("cache_ttl").expect(PRESET),
        degraded_reads_enabled: breaker.flag("degraded_reads_enabled").expect(PRESET),
    }
}

/// Values that an operator relies on and that do nothing here must not be passed over in silence.
fn warn_of_inert(root: &Section<'_>, report: &mut CheckReport) {
    let breaker = root.map("circuit_breaker");
    if breaker.flag("parallel_broadcast") == Some(true) {
        report.warning(
            breaker.place_of("parallel_broadcast"),
            "the embedded catalogue has no degraded mode, so this has no effect",
            "it can stay for later",
        );
    }
}
