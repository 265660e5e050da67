//! Keys of the listener, the buckets and the telemetry.

use super::{Effect, Group, Key, Kind, Off, Preset, Zero};

const COUNT_MAX: u64 = 1_000_000;

pub(super) static GROUPS: &[Group] = &[
    Group {
        path: "",
        doc: "The file itself.",
        keys: &[Key::new(
            "routing_strategy",
            Kind::Choice(&["pack", "spread"]),
            "How a backend is chosen for a new object: `pack` fills the first one, then the next; \
             `spread` keeps all equally full.",
        )
        .or("pack")],
    },
    Group {
        path: "server",
        doc: "The S3 listener and its limits.",
        keys: &[
            Key::new(
                "listen_addr",
                Kind::Listen,
                "Where S3 requests are accepted; `:9000` means every address of the machine.",
            )
            .required(),
            Key::new(
                "log_level",
                Kind::Choice(&["debug", "info", "warn", "error"]),
                "The least severe level that is logged.",
            )
            .or("info"),
            Key::new(
                "log_format",
                Kind::Choice(&["json", "text"]),
                "Log lines as JSON objects or as text for people.",
            )
            .or("json"),
            Key::new(
                "max_object_size",
                Kind::Size,
                "The largest object that a single request may bring.",
            )
            .or("5GiB")
            .zero(Zero::Default),
            Key::new(
                "max_concurrent_requests",
                Kind::Count { max: COUNT_MAX },
                "Requests in flight, reads and writes together.",
            )
            .or("1000")
            .zero(Zero::Default),
            Key::new(
                "max_concurrent_reads",
                Kind::Count { max: COUNT_MAX },
                "Reads in flight; together with max_concurrent_writes it replaces the common pool.",
            )
            .or("0"),
            Key::new(
                "max_concurrent_writes",
                Kind::Count { max: COUNT_MAX },
                "Writes in flight; together with max_concurrent_reads it replaces the common pool.",
            )
            .or("0"),
            Key::new(
                "load_shed_threshold",
                Kind::Fraction,
                "Share of a pool from which on requests are turned away early.",
            )
            .or("0")
            .off(Off::Zero, "load shedding"),
            Key::new(
                "admission_wait",
                Kind::Duration,
                "How long a request may wait for its turn.",
            )
            .or("0s")
            .off(Off::Zero, "waiting for admission"),
            timeout(
                "backend_timeout",
                "30s",
                "The longest wait for the head of a backend's answer; the total for calls without \
                 a body. At most write_timeout.",
            ),
            timeout(
                "read_header_timeout",
                "10s",
                "The longest wait for the head of a client's request. At most read_timeout.",
            ),
            timeout(
                "read_timeout",
                "5m",
                "The longest time without progress on a request body.",
            ),
            timeout(
                "write_timeout",
                "5m",
                "The longest time without progress on a response body.",
            ),
            timeout(
                "idle_timeout",
                "120s",
                "How long a connection may idle between requests.",
            ),
            Key::new(
                "shutdown_delay",
                Kind::Duration,
                "Between reporting not ready and the end of accepting, at shutdown.",
            )
            .or("0s"),
            timeout(
                "shutdown_timeout",
                "30s",
                "How long requests may finish at shutdown.",
            ),
        ],
    },
    Group {
        path: "server.tls",
        doc: "HTTPS. Both files or neither.",
        keys: &[
            Key::new(
                "cert_file",
                Kind::Path,
                "PEM file of the certificate chain.",
            )
            .file_on_reload(),
            Key::new("key_file", Kind::Path, "PEM file of the private key.").file_on_reload(),
            Key::new(
                "min_version",
                Kind::Choice(&["1.2", "1.3"]),
                "The oldest protocol version.",
            )
            .or("1.2"),
            Key::new(
                "client_ca_file",
                Kind::Path,
                "PEM file of authorities; where given, clients must present a certificate of one.",
            ),
        ],
    },
    Group {
        path: "buckets[]",
        doc: "The virtual buckets that clients see; at least one.",
        keys: &[
            Key::new(
                "name",
                Kind::Text,
                "The bucket's name: unique, without `/`, not `health`, `metrics`, `admin` or `ui`, \
                 not beginning with a dot.",
            )
            .required(),
            Key::new(
                "max_multipart_uploads",
                Kind::Count { max: COUNT_MAX },
                "Open multipart uploads at a time.",
            )
            .or("0")
            .zero(Zero::Unlimited),
        ],
    },
    Group {
        path: "buckets[].credentials[]",
        doc: "What opens the bucket; at least one: a key pair or a token. Two at a time allow a \
              rotation without downtime.",
        keys: &[
            Key::new(
                "access_key_id",
                Kind::Text,
                "The public half of a key pair; unique across all buckets.",
            ),
            Key::new(
                "secret_access_key",
                Kind::Secret,
                "The secret half of the key pair.",
            ),
            Key::new(
                "token",
                Kind::Secret,
                "The value of the header `X-Proxy-Token`; unique across all buckets.",
            ),
        ],
    },
    Group {
        path: "telemetry",
        doc: "What the program tells about itself.",
        keys: &[],
    },
    Group {
        path: "telemetry.metrics",
        doc: "The Prometheus endpoint.",
        keys: &[
            Key::new("enabled", Kind::Bool, "Whether there is one.").or("false"),
            Key::new("path", Kind::Text, "Its path.").or("/metrics"),
            Key::new(
                "listen",
                Kind::Listen,
                "A listener of its own; without it, metrics are served by the S3 listener.",
            ),
            Key::new(
                "require_listener",
                Kind::Bool,
                "Whether the start fails where that listener cannot be had.",
            )
            .or("true"),
        ],
    },
    Group {
        path: "telemetry.tracing",
        doc: "Traces over OTLP.",
        keys: &[
            Key::new("enabled", Kind::Bool, "Whether traces are sent.")
                .or("false")
                .off(Off::False, "tracing"),
            Key::new("endpoint", Kind::Text, "Where they are sent.").inert(),
            Key::new(
                "sample_rate",
                Kind::Fraction,
                "Share of requests that are traced.",
            )
            .or("1.0")
            .inert(),
            Key::new("insecure", Kind::Bool, "Whether they travel without TLS.")
                .or("false")
                .inert(),
        ],
    },
];

const fn timeout(name: &'static str, default: &'static str, doc: &'static str) -> Key {
    Key {
        name,
        kind: Kind::Duration,
        default: Preset::Value(default),
        zero: Zero::Default,
        effect: Effect::Restart,
        doc,
    }
}
