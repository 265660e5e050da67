//! Keys of the listener, the buckets and the telemetry.

use super::{Group, Key, KeyEffect, Off, Preset, ValueKind, Zero};
use crate::config::LogLevel;

const COUNT_MAX: u64 = 1_000_000;

const ALLOW: Key = Key::new(
    "allow",
    ValueKind::Words,
    "What it may do, of `list-buckets`, `list`, `read`, `write`, `delete` and `tags`; everything where \
     absent.",
);
const PREFIXES: Key = Key::new(
    "prefixes",
    ValueKind::Words,
    "Only keys that begin with one of these; listings must stay within one of them. Every key where \
     absent.",
);

pub(super) static GROUPS: &[Group] = &[
    Group {
        path: "",
        doc: "The file itself.",
        keys: &[Key::new(
            "routing_strategy",
            ValueKind::Choice(&["pack", "spread"]),
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
                ValueKind::Listen,
                "Where S3 requests are accepted; `:9000` means every address of the machine.",
            )
            .required(),
            Key::new(
                "log_level",
                ValueKind::Choice(&LogLevel::NAMES),
                "The least severe level that is logged.",
            )
            .or("info"),
            Key::new(
                "log_format",
                ValueKind::Choice(&["json", "text"]),
                "Log lines as JSON objects or as text for people.",
            )
            .or("json"),
            Key::new(
                "max_object_size",
                ValueKind::Size,
                "The largest object that a single request may bring.",
            )
            .or("5GiB")
            .zero(Zero::Default),
            Key::new(
                "max_concurrent_requests",
                ValueKind::Count { max: COUNT_MAX },
                "Requests in flight, reads and writes together.",
            )
            .or("1000")
            .zero(Zero::Default),
            Key::new(
                "max_concurrent_reads",
                ValueKind::Count { max: COUNT_MAX },
                "Reads in flight; together with max_concurrent_writes it replaces the common pool.",
            )
            .or("0"),
            Key::new(
                "max_concurrent_writes",
                ValueKind::Count { max: COUNT_MAX },
                "Writes in flight; together with max_concurrent_reads it replaces the common pool.",
            )
            .or("0"),
            Key::new(
                "load_shed_threshold",
                ValueKind::Fraction,
                "Share of a pool from which on requests are turned away early.",
            )
            .or("0")
            .off(Off::Zero, "load shedding"),
            Key::new(
                "admission_wait",
                ValueKind::Duration,
                "How long a request may wait for its turn.",
            )
            .or("0s")
            .off(Off::Zero, "waiting for admission"),
            timeout(
                "backend_timeout",
                "30s",
                "The longest wait for the head of a backend's answer; the total for calls without \
                 a body. At most write_timeout. Copies and Complete, in which the backend moves \
                 bytes itself, have ten minutes.",
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
            Key::new(
                "min_transfer_rate",
                ValueKind::Size,
                "Bytes per second that a client must move of a body while it is waited for; `0` is no such \
                 limit. What it moves beyond that buys it pauses, up to read_timeout and \
                 write_timeout.",
            )
            .or("1KiB"),
            timeout(
                "min_transfer_grace",
                "30s",
                "How long a client may be slower than min_transfer_rate at the beginning of a body.",
            ),
            timeout(
                "idle_timeout",
                "120s",
                "How long a connection may idle between requests.",
            ),
            Key::new(
                "shutdown_delay",
                ValueKind::Duration,
                "Between reporting not ready and the end of accepting, at shutdown.",
            )
            .or("0s"),
            Key::new(
                "virtual_host_domains",
                ValueKind::Words,
                "Domains below which the first label names the bucket: with `s3.example.com`, \
                 `photos.s3.example.com/key` means `s3.example.com/photos/key`. DNS and certificate \
                 must have `*.s3.example.com`.",
            ),
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
                ValueKind::Path,
                "PEM file of the certificate chain.",
            )
            .file_on_reload(),
            Key::new("key_file", ValueKind::Path, "PEM file of the private key.").file_on_reload(),
            Key::new(
                "min_version",
                ValueKind::Choice(&["1.2", "1.3"]),
                "The oldest protocol version.",
            )
            .or("1.2"),
            Key::new(
                "client_ca_file",
                ValueKind::Path,
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
                ValueKind::Text,
                "The bucket's name: unique, without `/`, not `health`, `metrics`, `admin` or `ui`, \
                 not beginning with a dot.",
            )
            .required(),
            Key::new(
                "max_multipart_uploads",
                ValueKind::Count { max: COUNT_MAX },
                "Open multipart uploads at a time.",
            )
            .or("0")
            .zero(Zero::Unlimited),
        ],
    },
    Group {
        path: "buckets[].cors[]",
        doc: "Which web pages may use the bucket; the first rule that fits a request counts.",
        keys: &[
            Key::new(
                "allowed_origins",
                ValueKind::Words,
                "Origins such as `https://app.example.com`, each with one `*` at most.",
            ),
            Key::new(
                "allowed_methods",
                ValueKind::Words,
                "Of GET, PUT, POST, DELETE and HEAD.",
            ),
            Key::new(
                "allowed_headers",
                ValueKind::Words,
                "Request headers that a preflight may ask for, each with one `*` at most.",
            ),
            Key::new(
                "expose_headers",
                ValueKind::Words,
                "Response headers that the page may read.",
            ),
            Key::new(
                "max_age",
                ValueKind::Count { max: COUNT_MAX },
                "Seconds for which the browser may keep the answer to a preflight; 0 leaves it to \
                 the browser.",
            )
            .or("0"),
        ],
    },
    Group {
        path: "buckets[].credentials[]",
        doc: "What opens the bucket; at least one unless `auth.root` is set: a key pair or a \
              token. Two at a time allow a rotation without downtime.",
        keys: &[
            Key::new(
                "access_key_id",
                ValueKind::Text,
                "The public half of a key pair; unique across all buckets.",
            ),
            Key::new(
                "secret_access_key",
                ValueKind::Secret,
                "The secret half of the key pair.",
            ),
            Key::new(
                "token",
                ValueKind::Secret,
                "The value of the header `X-Proxy-Token`; unique across all buckets.",
            ),
            ALLOW,
            PREFIXES,
            Key::new(
                "networks",
                ValueKind::Words,
                "Networks, such as `10.0.0.0/8`, that requests may come from, by the address of \
                 the connection's other end; anywhere where absent.",
            ),
        ],
    },
    Group {
        path: "grants[]",
        doc: "Further buckets for a key pair that stands in `buckets[].credentials`.",
        keys: &[
            Key::new("access_key_id", ValueKind::Text, "Whose.").required(),
            Key::new(
                "bucket",
                ValueKind::Text,
                "Which bucket; also one that was made by CreateBucket.",
            )
            .required(),
            ALLOW,
            PREFIXES,
        ],
    },
    Group {
        path: "auth",
        doc: "Credentials beyond those of a bucket.",
        keys: &[Key::new(
            "allow_sigv2_presigned",
            ValueKind::Bool,
            "Whether presigned URLs of signature version 2 are accepted, which boto3 makes for the region \
             us-east-1 unless told otherwise. They cover neither the host nor every parameter, and live \
             for as long as they say.",
        )
        .or("false")],
    },
    Group {
        path: "auth.root",
        doc: "The account that may do everything in every bucket, and may make and remove buckets. \
              Both keys or neither.",
        keys: &[
            Key::new(
                "access_key_id",
                ValueKind::Text,
                "The public half of its key pair.",
            ),
            Key::new(
                "secret_access_key",
                ValueKind::Secret,
                "The secret half of its key pair.",
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
            Key::new("enabled", ValueKind::Bool, "Whether there is one.").or("false"),
            Key::new("path", ValueKind::Text, "Its path.").or("/metrics"),
            Key::new(
                "listen",
                ValueKind::Listen,
                "A listener of its own; without it, metrics are served by the S3 listener.",
            ),
            Key::new(
                "require_listener",
                ValueKind::Bool,
                "Whether the start fails where that listener cannot be had.",
            )
            .or("true"),
        ],
    },
    Group {
        path: "telemetry.tracing",
        doc: "Traces over OTLP.",
        keys: &[
            Key::new("enabled", ValueKind::Bool, "Whether traces are sent.")
                .or("false")
                .off(Off::False, "tracing"),
            Key::new("endpoint", ValueKind::Text, "Where they are sent.").inert(),
            Key::new(
                "sample_rate",
                ValueKind::Fraction,
                "Share of requests that are traced.",
            )
            .or("1.0")
            .inert(),
            Key::new("insecure", ValueKind::Bool, "Whether they travel without TLS.")
                .or("false")
                .inert(),
        ],
    },
];

const fn timeout(name: &'static str, default: &'static str, doc: &'static str) -> Key {
    Key {
        name,
        kind: ValueKind::Duration,
        default: Preset::Value(default),
        zero: Zero::Default,
        effect: KeyEffect::Restart,
        doc,
    }
}
