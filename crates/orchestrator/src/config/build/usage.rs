//! How usage is written, and shared between instances.

use super::super::check::CheckReport;
use super::super::duration::format_duration;
use super::super::reader::Section;
use super::super::scalar::ListenAddr;
use super::super::types::{AdaptiveFlushConfig, RedisConfig, UsageFlushConfig};
use super::{PRESET, count_u32};

/// The keys that mean nothing without an address.
const WITH_ADDRESS: [&str; 6] = [
    "password_file",
    "db",
    "tls",
    "key_prefix",
    "failure_threshold",
    "open_timeout",
];

pub(super) fn usage_flush(flush: &Section<'_>, report: &mut CheckReport) -> UsageFlushConfig {
    let duration = |name| flush.duration(name).expect(PRESET);
    let interval = duration("interval");
    let threshold = flush.fraction("adaptive_threshold").expect(PRESET);
    if threshold <= 0.0 || threshold >= 1.0 {
        report.problem(
            flush.place_of("adaptive_threshold"),
            format!("{threshold} is no share between 0 and 1"),
            "write a number above 0 and below 1, such as 0.8",
        );
    }
    let adaptive = AdaptiveFlushConfig {
        threshold,
        fast_interval: duration("fast_interval"),
    };
    let enabled = flush.flag("adaptive_enabled").expect(PRESET);
    // While it is off, an interval as short as the fast one needs no second key.
    if enabled && adaptive.fast_interval >= interval {
        report.problem(
            flush.place_of("fast_interval"),
            format!(
                "{} is not below interval ({})",
                format_duration(adaptive.fast_interval),
                format_duration(interval)
            ),
            "lower it, raise interval, or set adaptive_enabled to false",
        );
    }
    UsageFlushConfig {
        interval,
        adaptive: enabled.then_some(adaptive),
    }
}

/// Redis, where it is switched on.
pub(super) fn redis(redis: &Section<'_>, report: &mut CheckReport) -> Option<RedisConfig> {
    let password = redis.secret("password", report);
    let Some(address) = redis.text("address") else {
        let given = WITH_ADDRESS.iter().any(|key| redis.has(key));
        if given || password.is_some() {
            report.problem(
                redis.place_of("address"),
                "the key is missing",
                "say where Redis is, such as localhost:6379, or remove the section",
            );
        }
        return None;
    };
    let parsed = address.parse::<ListenAddr>();
    let parsed = parsed
        .ok()
        .filter(|at| !at.host().is_empty() && at.port() > 0);
    let Some(at) = parsed else {
        report.problem(
            redis.place_of("address"),
            format!("'{address}' is no host with a port"),
            "write host:port or [IPv6]:port; tls and db have keys of their own",
        );
        return None;
    };
    let Some(key_prefix) = redis.text("key_prefix") else {
        report.problem(
            redis.place_of("key_prefix"),
            "it is empty",
            "write a word, or remove it",
        );
        return None;
    };
    Some(RedisConfig {
        host: at.host().to_owned(),
        port: at.port(),
        password,
        db: count_u32(redis, "db"),
        tls: redis.flag("tls").expect(PRESET),
        key_prefix,
        failure_threshold: count_u32(redis, "failure_threshold"),
        open_timeout: redis.duration("open_timeout").expect(PRESET),
    })
}
