//! Keys of the catalogue, the backends and the paths to them.

use super::{Group, Key, Off, ValueKind, Zero};

const COUNT_MAX: u64 = 1_000_000;

pub(super) static GROUPS: &[Group] = &[
    Group {
        path: "database",
        doc: "The catalogue: where every object's bytes are.",
        keys: &[
            Key::new(
                "driver",
                ValueKind::Choice(&["sqlite", "postgres"]),
                "What holds it: files of one process, or a PostgreSQL that several instances share.",
            )
            .derived("postgres where host or hosts is set, else sqlite"),
            Key::new("path", ValueKind::Path, "The file of the SQLite catalogue.")
                .or("s3-orchestrator.db"),
            Key::new("host", ValueKind::Text, "Host of the PostgreSQL server."),
            Key::new("port", ValueKind::Count { max: 65_535 }, "Its port.")
                .or("5432")
                .zero(Zero::Default),
            Key::new(
                "hosts",
                ValueKind::Words,
                "Instead of `host`: several, as host or host:port, the preferred one first; a pooler \
                 and the server behind it, for instance. Only one that takes writes and belongs to \
                 the same cluster is used.",
            ),
            Key::new("database", ValueKind::Text, "Name of the database."),
            Key::new("user", ValueKind::Text, "Name of the role."),
            Key::new("password", ValueKind::Secret, "Password of the role."),
            Key::new(
                "ssl_mode",
                ValueKind::Choice(&["disable", "prefer", "require", "verify-ca", "verify-full"]),
                "How the connection is secured; only the last two look at the certificate.",
            )
            .or("require"),
            Key::new(
                "ca_file",
                ValueKind::Path,
                "Certificates of authorities, beside those of the system.",
            ),
            Key::new(
                "max_conns",
                ValueKind::Count { max: 10_000 },
                "Largest number of connections of one instance; at least 3.",
            )
            .or("50")
            .zero(Zero::Default),
            Key::new(
                "min_conns",
                ValueKind::Count { max: 10_000 },
                "Connections that are opened at the start.",
            )
            .or("10")
            .zero(Zero::Default),
            Key::new(
                "max_conn_lifetime",
                ValueKind::Duration,
                "Age at which one is replaced.",
            )
            .or("5m")
            .zero(Zero::Default),
            Key::new(
                "statements",
                ValueKind::Choice(&["unnamed"]),
                "Statements never have names, so a pooler that hands out connections by transaction \
                 may lie in between; the key is for files that say so.",
            )
            .or("unnamed")
            .inert(),
            Key::new(
                "lease",
                ValueKind::Duration,
                "How long an instance may be silent before another one takes it for dead.",
            )
            .or("30s")
            .zero(Zero::Default),
        ],
    },
    Group {
        path: "backends[]",
        doc: "Where bytes are stored; at least one. `endpoint` to `ca_file` and `http` belong to \
              the kind `s3`, `path` to the kind `local`.",
        keys: &[
            Key::new("name", ValueKind::Text, "The backend's name; unique.").derived("backend-N"),
            Key::new(
                "kind",
                ValueKind::Choice(&["s3", "local", "memory"]),
                "A bucket of an S3 provider, a directory, or the memory of this process (which is \
                 gone when it ends).",
            )
            .or("s3"),
            Key::new(
                "path",
                ValueKind::Path,
                "The directory; required for the kind `local`.",
            ),
            Key::new(
                "shared",
                ValueKind::Bool,
                "Whether every instance sees the same directory under that path. PostgreSQL takes no \
                 directory that is not shared.",
            )
            .or("false"),
            Key::new(
                "endpoint",
                ValueKind::Text,
                "`https://host[:port][/path]` or the same with `http`; required for the kind `s3`.",
            ),
            Key::new("region", ValueKind::Text, "The region to sign for.").or("us-east-1"),
            Key::new(
                "bucket",
                ValueKind::Text,
                "The provider's bucket; required for the kind `s3`.",
            ),
            Key::new(
                "access_key_id",
                ValueKind::Text,
                "The public half of the key pair; required for the kind `s3`.",
            ),
            Key::new(
                "secret_access_key",
                ValueKind::Secret,
                "The secret half of the key pair; required for the kind `s3`.",
            ),
            Key::new(
                "force_path_style",
                ValueKind::Bool,
                "Whether the bucket is named in the path instead of the host name.",
            )
            .derived(
                "true for an IP address, `localhost`, a host without a dot, or a bucket that no \
                 host name can hold",
            ),
            Key::new(
                "unsigned_payload",
                ValueKind::Bool,
                "Whether bodies travel unsigned; `false` signs them chunk by chunk.",
            )
            .derived("what the provider was seen to support"),
            Key::new(
                "disable_checksum",
                ValueKind::Bool,
                "Whether no checksum is sent along with bodies.",
            )
            .or("false"),
            Key::new(
                "strip_sdk_headers",
                ValueKind::Bool,
                "Kept for existing files; no such headers are sent.",
            )
            .or("false")
            .inert(),
            Key::new(
                "ca_file",
                ValueKind::Path,
                "PEM file with further authorities to trust.",
            ),
            Key::new("quota_bytes", ValueKind::Size, "Bytes that may be stored there.")
                .or("0")
                .zero(Zero::Unlimited),
            Key::new(
                "max_object_size",
                ValueKind::Size,
                "The largest object that is placed there.",
            )
            .or("0")
            .zero(Zero::Unlimited),
            Key::new(
                "api_request_limit",
                ValueKind::Count {
                    max: i64::MAX as u64,
                },
                "Requests to it in a calendar month, UTC.",
            )
            .or("0")
            .zero(Zero::Unlimited),
            Key::new(
                "egress_byte_limit",
                ValueKind::Size,
                "Bytes of objects read from it in a calendar month, UTC.",
            )
            .or("0")
            .zero(Zero::Unlimited),
            Key::new(
                "ingress_byte_limit",
                ValueKind::Size,
                "Bytes of objects written to it in a calendar month, UTC.",
            )
            .or("0")
            .zero(Zero::Unlimited),
        ],
    },
    Group {
        path: "backends[].http",
        doc: "Connections to the provider.",
        keys: &[
            Key::new(
                "connect_timeout",
                ValueKind::Duration,
                "The longest time to a connection, TLS included.",
            )
            .or("10s")
            .zero(Zero::Default),
            Key::new(
                "body_idle_timeout",
                ValueKind::Duration,
                "The longest time without progress on a body.",
            )
            .or("30s")
            .zero(Zero::Default),
            Key::new(
                "response_header_timeout",
                ValueKind::Duration,
                "Kept for existing files; server.backend_timeout holds for every backend.",
            )
            .or("30s")
            .inert(),
            Key::new(
                "max_idle_conns_per_host",
                ValueKind::Count { max: COUNT_MAX },
                "Idle connections that are kept.",
            )
            .or("256")
            .zero(Zero::Default),
            Key::new(
                "max_conns_per_host",
                ValueKind::Count { max: COUNT_MAX },
                "Reads whose bytes move at a time, and as many writes; a quarter of it for copies and Complete, \
                 and a quarter for deletes and listings. A transfer that waits for its client does \
                 not count.",
            )
            .or("200")
            .zero(Zero::Default),
            Key::new(
                "max_idle_conns",
                ValueKind::Count { max: COUNT_MAX },
                "Kept for existing files; a backend is one host.",
            )
            .or("100")
            .inert(),
            Key::new(
                "force_http2",
                ValueKind::Bool,
                "Kept for existing files; HTTP/1.1 is spoken.",
            )
            .or("false")
            .inert(),
        ],
    },
    Group {
        path: "cleanup_queue",
        doc: "The worker that deletes on backends.",
        keys: &[
            Key::new(
                "concurrency",
                ValueKind::Count { max: 1_000 },
                "Backend calls at a time.",
            )
            .or("10")
            .zero(Zero::Default),
            Key::new(
                "multipart_stale_timeout",
                ValueKind::Duration,
                "Age at which an open multipart upload is given up.",
            )
            .or("24h")
            .zero(Zero::Default),
            Key::new(
                "claim_grace_period",
                ValueKind::Duration,
                "How long a claimed row may stay claimed.",
            )
            .or("5m")
            .zero(Zero::Default),
            Key::new(
                "read_grace",
                ValueKind::Duration,
                "How long displaced bytes stay readable for requests that have begun.",
            )
            .or("60s"),
        ],
    },
    Group {
        path: "usage_flush",
        doc: "How often the counters behind the monthly limits are written to the catalogue.",
        keys: &[
            Key::new("interval", ValueKind::Duration, "The time between two writes.")
                .or("30s")
                .zero(Zero::Default),
            Key::new(
                "adaptive_enabled",
                ValueKind::Bool,
                "Whether they are written more often while a backend is near a limit.",
            )
            .or("false"),
            Key::new(
                "adaptive_threshold",
                ValueKind::Fraction,
                "The share of a limit from which a backend is near it; neither 0 nor 1.",
            )
            .or("0.8"),
            Key::new(
                "fast_interval",
                ValueKind::Duration,
                "The time between two writes then; below interval.",
            )
            .or("5s")
            .zero(Zero::Default),
        ],
    },
    Group {
        path: "redis",
        doc: "Where instances tell each other of usage that is not in the catalogue yet. An `address` \
              switches it on.",
        keys: &[
            Key::new("address", ValueKind::Text, "`host:port`."),
            Key::new(
                "password",
                ValueKind::Secret,
                "The password, where it wants one.",
            ),
            Key::new(
                "db",
                ValueKind::Count { max: COUNT_MAX },
                "Which of its databases.",
            )
            .or("0"),
            Key::new("tls", ValueKind::Bool, "Whether it is spoken to by TLS.").or("false"),
            Key::new("key_prefix", ValueKind::Text, "What every key begins with.").or("s3orch"),
            Key::new(
                "failure_threshold",
                ValueKind::Count { max: COUNT_MAX },
                "Failures in a row after which it is not asked for a while.",
            )
            .or("3")
            .zero(Zero::Default),
            Key::new("open_timeout", ValueKind::Duration, "How long.")
                .or("15s")
                .zero(Zero::Default),
        ],
    },
    Group {
        path: "write_path",
        doc: "The path of a write.",
        keys: &[
            Key::new(
                "replay_window",
                ValueKind::Size,
                "How much of a body is kept in memory, so that it can be sent to another backend; \
                 at most 64 MiB.",
            )
            .or("1MiB"),
            Key::new(
                "spill",
                ValueKind::Bool,
                "Whether bodies are kept on disk for the same purpose.",
            )
            .or("false")
            .off(Off::False, "spilling bodies to disk"),
        ],
    },
    Group {
        path: "circuit_breaker",
        doc: "The breaker around the database. The embedded catalogue has no use for it.",
        keys: &[
            Key::new(
                "failure_threshold",
                ValueKind::Count { max: COUNT_MAX },
                "Failures in a row that open it.",
            )
            .or("3")
            .zero(Zero::Default)
            .inert(),
            Key::new("open_timeout", ValueKind::Duration, "How long it stays open.")
                .or("15s")
                .zero(Zero::Default)
                .inert(),
            Key::new(
                "cache_ttl",
                ValueKind::Duration,
                "Age at which a cached location is too old.",
            )
            .or("60s")
            .zero(Zero::Default)
            .inert(),
            Key::new(
                "parallel_broadcast",
                ValueKind::Bool,
                "Whether all backends are asked at once while it is open.",
            )
            .or("false")
            .inert(),
            Key::new(
                "degraded_reads_enabled",
                ValueKind::Bool,
                "Whether reads go on while it is open.",
            )
            .or("true")
            .inert(),
        ],
    },
];
