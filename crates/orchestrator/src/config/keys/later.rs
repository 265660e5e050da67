//! Keys of features that this release does not have.
//!
//! Existing files name them; they are accepted while they leave the feature switched off.

use super::{Group, Key, Off, ValueKind};

const COUNT_MAX: u64 = 1_000_000_000;

pub(super) static GROUPS: &[Group] = &[
    Group {
        path: "rebalance",
        doc: "Moving objects between backends.",
        keys: &[
            switch("rebalancing"),
            choice("strategy", &["pack", "spread"], "pack"),
            duration("interval", "6h"),
            count("batch_size", "100"),
            fraction("threshold", "0.1"),
            count("concurrency", "5"),
        ],
    },
    Group {
        path: "replication",
        doc: "Several copies of each object.",
        keys: &[
            Key::new(
                "factor",
                ValueKind::Count { max: COUNT_MAX },
                "Copies of each object.",
            )
            .or("1")
            .off(Off::One, "replication"),
            duration("worker_interval", "5m"),
            count("batch_size", "50"),
            count("concurrency", "5"),
            duration("unhealthy_threshold", "10m"),
        ],
    },
    Group {
        path: "rate_limit",
        doc: "Limits per client address.",
        keys: &[
            switch("rate limiting"),
            Key::new("requests_per_sec", ValueKind::Text, PARAMETER)
                .or("100")
                .inert(),
            count("burst", "200"),
            Key::new("trusted_proxies", ValueKind::Words, PARAMETER).inert(),
            duration("cleanup_interval", "1m"),
            duration("cleanup_max_age", "5m"),
        ],
    },
    Group {
        path: "backend_circuit_breaker",
        doc: "A breaker around each backend.",
        keys: &[
            switch("the breaker around backends"),
            count("failure_threshold", "5"),
            duration("open_timeout", "5m"),
        ],
    },
    Group {
        path: "encryption",
        doc: "Encryption of object bytes.",
        keys: &[
            switch("encryption"),
            count("chunk_size", "65536"),
            secret("master_key"),
            Key::new("previous_keys", ValueKind::Words, PARAMETER).inert(),
        ],
    },
    Group {
        path: "encryption.vault",
        doc: "Keys held by Vault.",
        keys: &[
            text("address"),
            secret("token"),
            text("key_name"),
            text("mount_path"),
            path("ca_cert"),
            duration("renew_interval", "5m"),
        ],
    },
    Group {
        path: "compression",
        doc: "Compression of object bytes.",
        keys: &[
            switch("compression"),
            choice(
                "level",
                &["fastest", "default", "better", "best"],
                "default",
            ),
            size("chunk_size", "1MiB"),
            size("min_size", "4096"),
            fraction("min_ratio", "0.95"),
        ],
    },
    Group {
        path: "ui",
        doc: "The web pages, which this release does not have, and the admin API, which needs a token only.",
        keys: &[
            switch("the web UI"),
            Key::new("path", ValueKind::Text, PARAMETER).or("/ui").inert(),
            Key::new(
                "admin_key",
                ValueKind::Secret,
                "Stands in for `admin_token` where that is absent.",
            )
            .on_reload(),
            secret("admin_secret"),
            secret("session_secret"),
            Key::new(
                "admin_token",
                ValueKind::Secret,
                "The value of the header `X-Admin-Token`: it opens the admin API below `/admin/api/`, \
                 which is off without it.",
            )
            .derived("`admin_key`")
            .on_reload(),
            flag("force_secure_cookies"),
        ],
    },
    Group {
        path: "lifecycle",
        doc: "Expiry of objects. Any rule switches it on.",
        keys: &[count("batch_size", "100")],
    },
    Group {
        path: "lifecycle.rules[]",
        doc: "One rule.",
        keys: &[text("prefix"), count("expiration_days", "0")],
    },
    Group {
        path: "reconcile",
        doc: "The background comparison of catalogue and backends.",
        keys: &[
            switch("reconciling in the background"),
            duration("interval", "24h"),
        ],
    },
    Group {
        path: "integrity",
        doc: "The background check of stored bytes.",
        keys: &[
            switch("scrubbing"),
            flag("verify_on_read"),
            flag("verify_on_replicate"),
            duration("scrubber_interval", "0s"),
            count("scrubber_batch_size", "100"),
        ],
    },
    Group {
        path: "cache",
        doc: "A cache of object bytes.",
        keys: &[
            switch("the object cache"),
            size("max_size", "256MB"),
            size("max_object_size", "10MB"),
            duration("ttl", "5m"),
        ],
    },
    Group {
        path: "notifications",
        doc: "Events sent to web hooks.",
        keys: &[],
    },
    Group {
        path: "notifications.endpoints[]",
        doc: "One receiver.",
        keys: &[
            text("url"),
            Key::new("events", ValueKind::Words, PARAMETER).inert(),
            text("prefix"),
            secret("secret"),
            duration("timeout", "5s"),
            count("max_retries", "3"),
        ],
    },
    Group {
        path: "debug",
        doc: "Aids for developers.",
        keys: &[],
    },
    Group {
        path: "debug.flight_recorder",
        doc: "A recording of the last moments.",
        keys: &[switch("the flight recorder"), duration("min_age", "30s")],
    },
];

/// Lists that switch a feature on by having an item.
pub(super) static REFUSED_LISTS: &[(&str, &str)] = &[
    ("lifecycle.rules", "lifecycle rules"),
    ("notifications.endpoints", "notifications"),
];

const PARAMETER: &str = "A parameter of the feature.";

const fn switch(feature: &'static str) -> Key {
    Key::new("enabled", ValueKind::Bool, "Whether it is on.")
        .or("false")
        .off(Off::False, feature)
}

const fn count(name: &'static str, default: &'static str) -> Key {
    Key::new(name, ValueKind::Count { max: COUNT_MAX }, PARAMETER)
        .or(default)
        .inert()
}

const fn size(name: &'static str, default: &'static str) -> Key {
    Key::new(name, ValueKind::Size, PARAMETER)
        .or(default)
        .inert()
}

const fn duration(name: &'static str, default: &'static str) -> Key {
    Key::new(name, ValueKind::Duration, PARAMETER)
        .or(default)
        .inert()
}

const fn fraction(name: &'static str, default: &'static str) -> Key {
    Key::new(name, ValueKind::Fraction, PARAMETER)
        .or(default)
        .inert()
}

const fn choice(name: &'static str, of: &'static [&'static str], default: &'static str) -> Key {
    Key::new(name, ValueKind::Choice(of), PARAMETER)
        .or(default)
        .inert()
}

const fn flag(name: &'static str) -> Key {
    Key::new(name, ValueKind::Bool, PARAMETER)
        .or("false")
        .inert()
}

const fn text(name: &'static str) -> Key {
    Key::new(name, ValueKind::Text, PARAMETER).inert()
}

const fn path(name: &'static str) -> Key {
    Key::new(name, ValueKind::Path, PARAMETER).inert()
}

const fn secret(name: &'static str) -> Key {
    Key::new(name, ValueKind::Secret, PARAMETER).inert()
}
