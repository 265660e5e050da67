//! The configuration file: what is accepted, and what is said about what is not.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use base::ByteSize;
use orchestrator::config::{
    AdaptiveFlushConfig, Admission, BackendKindConfig, Config, ConfigError, Credential,
    DatabaseConfig, LogFormat, NoEnvironment, SslMode, UsageFlushConfig, UsageLimitsConfig, Verb,
    parse, render_reference,
};
use proptest::prelude::{any, proptest};

const SERVER: &str = "server:\n  listen_addr: :9000\n";
const BUCKETS: &str = "buckets:\n  - name: b\n    credentials:\n      - token: t\n";
const BACKENDS: &str = "backends:\n  - kind: memory\n";

/// A valid file of nine lines, without a newline in front of what is appended.
fn minimal() -> String {
    [SERVER, BUCKETS, BACKENDS].concat()
}

fn accept(text: &str) -> Config {
    match parse(text, Path::new("f"), &NoEnvironment) {
        Ok(loaded) => loaded.config,
        Err(error) => panic!("{error}\n{text}"),
    }
}

/// The problems, one per line.
fn refuse(text: &str) -> Vec<String> {
    let error = parse(text, Path::new("f"), &NoEnvironment).expect_err(text);
    assert!(matches!(error, ConfigError::Invalid { .. }), "{error}");
    error.to_string().lines().map(str::to_owned).collect()
}

/// The one problem of the minimal file with these lines behind it, or in place of a part.
fn refused(appended: &str) -> String {
    let problems = refuse(&format!("{}{appended}", minimal()));
    assert_eq!(problems.len(), 1, "{problems:?}");
    problems[0].clone()
}

fn warnings(text: &str, env: &HashMap<String, String>) -> Vec<String> {
    let loaded = parse(text, Path::new("f"), env).unwrap();
    loaded.warnings.iter().map(ToString::to_string).collect()
}

#[test]
fn defaults_are_those_of_the_reference() {
    let config = accept(&minimal());
    let server = &config.server;
    assert_eq!(server.listen_addr.port(), 9000);
    assert_eq!(server.log_format, LogFormat::Json);
    assert_eq!(server.max_object_size, ByteSize(5 << 30));
    assert_eq!(server.admission, Admission::Shared { requests: 1000 });
    assert_eq!(server.backend_timeout, Duration::from_secs(30));
    assert_eq!(server.read_header_timeout, Duration::from_secs(10));
    assert_eq!(server.write_timeout, Duration::from_secs(300));
    assert_eq!(server.idle_timeout, Duration::from_secs(120));
    assert_eq!(server.shutdown_delay, Duration::ZERO);
    assert_eq!(server.shutdown_timeout, Duration::from_secs(30));
    assert!(server.tls.is_none() && config.metrics.is_none());
    assert!(
        matches!(&config.database, DatabaseConfig::Sqlite(path) if path == Path::new("s3-orchestrator.db"))
    );
    assert_eq!(config.backends[0].name.as_str(), "backend-1");
    assert_eq!(config.backends[0].quota, None);
    assert_eq!(config.write_path.replay_window, ByteSize(1 << 20));
    assert_eq!(config.cleanup_queue.read_grace, Duration::from_secs(60));
    assert_eq!(config.cleanup_queue.concurrency, 10);
}

#[test]
fn every_example_parses_without_a_warning() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/examples");
    let mut seen = 0;
    for entry in fs::read_dir(examples).unwrap() {
        let file = entry.unwrap().path();
        let text = fs::read_to_string(&file).unwrap();
        let loaded = parse(&text, &file, &NoEnvironment).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(loaded.warnings, [], "{}", file.display());
        seen += 1;
    }
    assert!(seen >= 2);
}

#[test]
fn zero_means_the_default_as_it_does_in_the_reference() {
    let text = minimal().replace(
        ":9000\n",
        ":9000\n  backend_timeout: 0\n  max_object_size: 0\n  max_concurrent_requests: 0\n",
    );
    let server = accept(&text).server;
    assert_eq!(server.backend_timeout, Duration::from_secs(30));
    assert_eq!(server.max_object_size, ByteSize(5 << 30));
    assert_eq!(server.admission, Admission::Shared { requests: 1000 });
    // Where zero is a wish of its own, it stays.
    let text = format!("{}cleanup_queue:\n  read_grace: 0s\n", minimal());
    assert_eq!(accept(&text).cleanup_queue.read_grace, Duration::ZERO);
}

#[test]
fn wrong_values_are_named_with_line_key_and_way_out() {
    for (lines, expected) in [
        (
            "server2:\n  x: 1\n",
            "f:9: server2: unknown key; did you mean server?",
        ),
        (
            "xyzzy: 1\n",
            "f:9: xyzzy: unknown key; remove it; docs/configuration.md lists all keys",
        ),
        (
            "listen_addr: :1\n",
            "f:9: listen_addr: unknown key; it belongs there: server.listen_addr",
        ),
        (
            "cleanup_queue:\n  concurency: 3\n",
            "f:10: cleanup_queue.concurency: unknown key; did you mean concurrency?",
        ),
        (
            "cleanup_queue:\n  concurrency: many\n",
            "f:10: cleanup_queue.concurrency: 'many' is not a whole number; write digits only",
        ),
        (
            "cleanup_queue:\n  concurrency: -1\n",
            "f:10: cleanup_queue.concurrency: -1 is negative; write 0 or more",
        ),
        (
            "cleanup_queue:\n  read_grace: 30\n",
            "f:10: cleanup_queue.read_grace: the duration 30 has no unit; write 30s",
        ),
        (
            "cleanup_queue: 3\n",
            "f:9: cleanup_queue: a single value where a map of keys is expected; indent its keys \
             below it, such as 'concurrency:'",
        ),
        (
            "write_path:\n  replay_window: 1GiB\n",
            "f:10: write_path.replay_window: 1 GiB of memory per request are too much; 64 MiB are \
             the most",
        ),
        (
            "write_path:\n  replay_window: lots\n",
            "f:10: write_path.replay_window: 'lots' is not a size; write a number of bytes, or one \
             with KiB, MiB, GiB, TiB or PiB: 20GiB",
        ),
        (
            "routing_strategy: packed\n",
            "f:9: routing_strategy: 'packed' is unknown; write pack or spread",
        ),
        (
            "routing_strategy: [pack]\n",
            "f:9: routing_strategy: a list where a single value is expected; write \
             'routing_strategy: value'",
        ),
        (
            "telemetry:\n  metrics:\n    enabled: maybe\n",
            "f:11: telemetry.metrics.enabled: 'maybe' is neither true nor false; write one of them",
        ),
        (
            "telemetry:\n  metrics:\n    path: metrics\n",
            "f:11: telemetry.metrics.path: 'metrics' is not a path of letters, digits, '-', '_', \
             '.', '~' and '/'; write one such as /metrics",
        ),
        (
            "rate_limit:\n  trusted_proxies: 10.0.0.0/8\n",
            "f:10: rate_limit.trusted_proxies: a single value where a list is expected; begin each \
             item with '- '",
        ),
        (
            "routing_strategy: ${NOPE}\n",
            "f:9: routing_strategy: the environment variable NOPE is not set; set it, or write \
             ${NOPE:-default}",
        ),
    ] {
        assert_eq!(refused(lines), expected);
    }
}

#[test]
fn what_this_release_lacks_is_refused_by_name_when_it_is_on() {
    for (lines, feature) in [
        ("rebalance:\n  enabled: true\n", "rebalancing"),
        ("replication:\n  factor: 2\n", "replication"),
        ("rate_limit:\n  enabled: on\n", "rate limiting"),
        ("encryption:\n  enabled: true\n", "encryption"),
        ("compression:\n  enabled: yes\n", "compression"),
        ("ui:\n  enabled: true\n", "the web UI"),
        (
            "lifecycle:\n  rules:\n    - prefix: tmp/\n",
            "lifecycle rules",
        ),
        (
            "reconcile:\n  enabled: true\n",
            "reconciling in the background",
        ),
        ("integrity:\n  enabled: true\n", "scrubbing"),
        ("cache:\n  enabled: true\n", "the object cache"),
        (
            "notifications:\n  endpoints:\n    - url: http://x\n",
            "notifications",
        ),
        (
            "backend_circuit_breaker:\n  enabled: true\n",
            "the breaker around backends",
        ),
        (
            "debug:\n  flight_recorder:\n    enabled: true\n",
            "the flight recorder",
        ),
        ("telemetry:\n  tracing:\n    enabled: true\n", "tracing"),
        ("write_path:\n  spill: true\n", "spilling bodies to disk"),
    ] {
        let problem = refused(lines);
        let expected = format!(": {feature} is not available in this release; ");
        assert!(problem.contains(&expected), "{problem}");
    }
    for (key, feature) in [
        ("load_shed_threshold: 0.5", "load shedding"),
        ("admission_wait: 1s", "waiting for admission"),
    ] {
        let problems = refuse(&minimal().replace(":9000\n", &format!(":9000\n  {key}\n")));
        assert!(
            problems[0].contains(feature) && problems.len() == 1,
            "{problems:?}"
        );
    }
}

#[test]
fn monthly_limits_and_their_flush_are_read_and_checked() {
    let plain = accept(&minimal());
    assert_eq!(plain.backends[0].usage_limits, UsageLimitsConfig::default());
    let default = UsageFlushConfig {
        interval: Duration::from_secs(30),
        adaptive: None,
    };
    assert_eq!(plain.usage_flush, default);
    let keys = "memory
    api_request_limit: 20000
    egress_byte_limit: 1GiB
    ingress_byte_limit: 5
";
    let text = minimal().replace("memory\n", keys)
        + "usage_flush: {interval: 1m, adaptive_enabled: true, adaptive_threshold: 0.5}\n";
    let config = accept(&text);
    let limits = UsageLimitsConfig {
        requests: Some(20_000),
        egress: Some(ByteSize(1 << 30)),
        ingress: Some(ByteSize(5)),
    };
    assert_eq!(config.backends[0].usage_limits, limits);
    let adaptive = AdaptiveFlushConfig {
        threshold: 0.5,
        fast_interval: Duration::from_secs(5),
    };
    assert_eq!(config.usage_flush.interval, Duration::from_secs(60));
    assert_eq!(config.usage_flush.adaptive, Some(adaptive));
    // While it is off, a short interval needs no shorter one.
    let short = accept(&(minimal() + "usage_flush: {interval: 5s}\n"));
    assert_eq!(short.usage_flush.interval, Duration::from_secs(5));

    let flush = |keys: &str| refuse(&(minimal() + "usage_flush: {" + keys + "}\n"));
    for share in ["0", "1"] {
        let problems = flush(&format!("adaptive_threshold: {share}"));
        let expected = format!(
            "usage_flush.adaptive_threshold: {share} is no share between 0 and 1; write a number \
             above 0 and below 1, such as 0.8"
        );
        assert!(
            problems.len() == 1 && problems[0].ends_with(&expected),
            "{problems:?}"
        );
    }
    let problems = flush("adaptive_enabled: true, interval: 5s");
    assert_eq!(problems.len(), 1);
    assert!(
        problems[0].ends_with(
            "usage_flush.fast_interval: 5s is not below interval (5s); lower it, raise interval, or \
             set adaptive_enabled to false"
        ),
        "{problems:?}"
    );
    let problems = refuse(&minimal().replace("memory\n", "memory\n    api_request_limit: -1\n"));
    assert!(problems[0].contains("api_request_limit"), "{problems:?}");
}

#[test]
fn redis_is_on_with_an_address_and_checked() {
    assert!(accept(&minimal()).redis.is_none());
    assert!(accept(&(minimal() + "redis:\n")).redis.is_none());
    let plain = accept(&(minimal() + "redis: {address: 'cache:6379'}\n"));
    let plain = plain.redis.unwrap();
    assert_eq!(
        (plain.host.as_str(), plain.port, plain.db),
        ("cache", 6379, 0)
    );
    assert_eq!(plain.key_prefix, "s3orch");
    assert_eq!((plain.failure_threshold, plain.tls), (3, false));
    assert_eq!(plain.open_timeout, Duration::from_secs(15));
    assert!(plain.password.is_none());
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("password");
    fs::write(&file, "hush\n").unwrap();
    let full = format!(
        "redis:\n  address: '[::1]:6380'\n  password_file: {}\n  db: 2\n  tls: true\n  \
         key_prefix: mine\n  failure_threshold: 0\n  open_timeout: 1s\n",
        file.display()
    );
    let full = accept(&(minimal() + &full)).redis.unwrap();
    assert_eq!((full.host.as_str(), full.port, full.db), ("::1", 6380, 2));
    assert_eq!(full.password.as_ref().unwrap().reveal(), "hush");
    assert!(!format!("{full:?}").contains("hush"));
    assert!(full.tls && full.key_prefix == "mine");
    assert_eq!(full.failure_threshold, 3, "zero means the default");
    for (keys, words) in [
        ("db: 1", "redis.address: the key is missing"),
        ("password: x", "redis.address: the key is missing"),
        ("address: cache", "'cache' is no host with a port"),
        ("address: ':6379'", "':6379' is no host with a port"),
        ("address: 'redis://c:1'", "is no host with a port"),
        (
            "address: 'c:1', key_prefix: ''",
            "redis.key_prefix: it is empty",
        ),
    ] {
        let problem = refused(&format!("redis: {{{keys}}}\n"));
        assert!(problem.contains(words), "{problem}");
    }
}

#[test]
fn all_problems_are_told_at_once_in_the_order_of_the_file() {
    let text = "server:
  listen_adr: :9000
  read_timeout: 1s
  read_header_timeout: 2s
buckets:
  - name: health
    credentials:
      - access_key_id: a
  - name: ok
    credentials: []
backends:
  - endpoint: ftp://x
    bucket: x
    quota_bytes: -1
rebalance: {enabled: true}
";
    assert_eq!(
        refuse(text),
        [
            "f:1: server.listen_addr: the key is missing; say where to listen, such as \
             listen_addr: 127.0.0.1:9000",
            "f:2: server.listen_adr: unknown key; did you mean listen_addr?",
            "f:4: server.read_header_timeout: 2s is above read_timeout (1s); lower it, or raise \
             read_timeout",
            "f:6: buckets[0].name: 'health' is a path of the server itself; choose another name",
            "f:8: buckets[0].credentials[0].access_key_id: secret_access_key is missing; give \
             both, or neither",
            "f:10: buckets[1].credentials: the bucket has no credential; add one: access_key_id \
             with secret_access_key, or token",
            "f:12: backends[0].access_key_id: the key is missing; give the public half of the key \
             pair",
            "f:12: backends[0].secret_access_key: the key is missing; give it, or \
             secret_access_key_file with the name of a file that holds it",
            "f:12: backends[0].endpoint: the scheme http:// or https:// is missing; write \
             https://host or https://host:port; the bucket has a key of its own",
            "f:14: backends[0].quota_bytes: -1 is negative; write 0 or more",
            "f:15: rebalance.enabled: rebalancing is not available in this release; set it to \
             false, or remove it",
        ]
    );
}

#[test]
fn an_empty_file_says_what_is_needed() {
    for text in ["", "# nothing\n", "server:\nbuckets:\nbackends:\n"] {
        let problems = refuse(text);
        assert_eq!(problems.len(), 3, "{problems:?}");
        for needed in [
            "server.listen_addr",
            "buckets: there is no",
            "backends: there is no",
        ] {
            assert!(
                problems.iter().any(|problem| problem.contains(needed)),
                "{problems:?}"
            );
        }
    }
    assert_eq!(
        refuse("just words\n")
            .iter()
            .filter(|line| line.contains("f:1: a single"))
            .count(),
        1
    );
}

#[test]
fn maps_and_lists_end_before_the_stack_does() {
    let deep = format!("server: {}{}\n", "[".repeat(40), "]".repeat(40));
    let problems = refuse(&deep);
    assert_eq!(problems.len(), 1);
    assert!(problems[0].starts_with("f:1: "), "{problems:?}");
    assert!(
        problems[0].contains("more than 16 maps and lists"),
        "{problems:?}"
    );
}

#[test]
fn a_syntax_error_stands_alone_with_its_line() {
    let problems = refuse("server:\n  listen_addr: ]\nxyzzy: 1\n");
    assert_eq!(problems.len(), 1);
    assert!(
        problems[0].starts_with("f:2: not valid YAML: "),
        "{problems:?}"
    );
    let problems = refuse("server: 1\nserver: 2\n");
    assert!(
        problems[0].starts_with("f:2: not valid YAML: "),
        "{problems:?}"
    );
}

#[test]
fn timeouts_pairs_and_bounds_are_checked_against_each_other() {
    let server = |lines: &str| refuse(&minimal().replace(":9000\n", &format!(":9000\n{lines}")));
    for (lines, expected) in [
        (
            "  backend_timeout: 6m\n",
            "f:3: server.backend_timeout: 6m is above write_timeout (5m)",
        ),
        (
            "  tls:\n    cert_file: c.pem\n",
            "f:4: server.tls.cert_file: key_file is missing",
        ),
        (
            "  tls:\n    key_file: k.pem\n",
            "f:4: server.tls.key_file: cert_file is missing",
        ),
        (
            "  tls:\n    client_ca_file: k.pem\n",
            "f:4: server.tls.client_ca_file: client cert",
        ),
        (
            "  tls:\n    min_version: \"1.1\"\n",
            "f:4: server.tls.min_version: '1.1' is unknown",
        ),
    ] {
        let problems = server(lines);
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(problems[0].starts_with(expected), "{problems:?}");
    }
    assert!(refused("database:\n  min_conns: 60\n").contains("it is above max_conns (50)"));
}

#[test]
fn bucket_names_cannot_hide_routes_or_our_own_keys() {
    let named = |name: &str, more: &str| {
        refuse(&format!(
            "{}{more}",
            minimal().replace("name: b", &format!("name: {name}"))
        ))
    };
    for name in [
        "health",
        "metrics",
        "admin",
        "ui",
        ".s3o",
        ".x",
        "a/b",
        "\"a\\u0001\"",
    ] {
        assert_eq!(named(name, "").len(), 1, "{name}");
    }
    let metrics = "telemetry:\n  metrics:\n    enabled: true\n    path: /internal/metrics\n";
    assert!(named("internal", metrics)[0].contains("is a path of the server itself"));
    // With a listener of its own, the path is no route of this one.
    let apart = format!("{metrics}    listen: :9100\n");
    accept(&format!(
        "{}{apart}",
        minimal().replace("name: b", "name: internal")
    ));
    accept(&minimal().replace("name: b", "name: bu_cket"));
}

#[test]
fn names_and_credentials_are_unique() {
    let text = format!(
        "{SERVER}buckets:
  - name: a
    credentials:
      - {{access_key_id: ID, secret_access_key: one}}
      - {{token: t}}
  - name: a
    credentials:
      - {{access_key_id: ID, secret_access_key: two}}
      - {{token: t}}
backends:
  - {{name: x, kind: local, path: /a}}
  - {{name: x, kind: local, path: /a}}
  - {{endpoint: \"http://H:1\", bucket: b, access_key_id: i, secret_access_key: s}}
  - {{endpoint: \"http://h:1\", bucket: b, access_key_id: i, secret_access_key: s}}
"
    );
    assert_eq!(
        refuse(&text),
        [
            "f:8: buckets[1].name: 'a' stands already at buckets[0].name (line 4); choose another \
             one",
            "f:10: buckets[1].credentials[0].access_key_id: 'ID' stands already at \
             buckets[0].credentials[0].access_key_id (line 6); choose another one",
            "f:11: buckets[1].credentials[1].token: the token is used twice; draw another one",
            "f:14: backends[1].name: the name 'x' stands already at backends[0].name (line 13); \
             choose another one",
            "f:14: backends[1].path: this is the place of backends[0].path (line 13) too; give \
             each backend a place of its own",
            "f:16: backends[3].bucket: this is the place of backends[2].bucket (line 15) too; give \
             each backend a place of its own",
        ]
    );
}

#[test]
fn a_credential_may_be_a_pair_a_token_or_both() {
    let pair = "access_key_id: a\n        secret_access_key: s\n        token: t";
    let config = accept(&minimal().replace("token: t", pair));
    let credentials = &config.buckets[0].credentials;
    assert_eq!(credentials.len(), 2);
    assert!(
        matches!(&credentials[0].proof, Credential::KeyPair { access_key_id, .. } if access_key_id == "a")
    );
    assert!(matches!(&credentials[1].proof, Credential::Token(token) if token.reveal() == "t"));
}

#[test]
fn a_credential_may_do_what_the_file_says_and_everything_by_default() {
    let all = accept(&minimal());
    let all = &all.buckets[0].credentials[0];
    assert!(Verb::ALL.iter().all(|verb| all.allow.contains(*verb)));
    assert!(all.prefixes.is_empty() && all.networks.is_empty());
    let scoped = "token: t\n        allow: [read, list]\n        prefixes: [a/, b]\n        \
                  networks: [10.0.0.0/8, '::1']";
    let config = accept(&minimal().replace("token: t", scoped));
    let scoped = &config.buckets[0].credentials[0];
    assert!(scoped.allow.contains(Verb::Read) && !scoped.allow.contains(Verb::Write));
    assert_eq!(scoped.prefixes, ["a/", "b"]);
    assert_eq!(scoped.networks.len(), 2);
    let problems = refuse(&minimal().replace(
        "token: t",
        "token: t\n        allow: [reed]\n        networks: [10.0.0.0/99]",
    ));
    assert!(problems[0].contains(
        "buckets[0].credentials[0].allow: 'reed' is unknown; write list-buckets, list, read, write, \
         delete or tags"
    ));
    assert!(
        problems[1].contains("'10.0.0.0/99' is not a network"),
        "{problems:?}"
    );
}

#[test]
fn a_root_account_may_stand_alone_and_grants_name_what_exists() {
    let root = "auth:\n  root: {access_key_id: R, secret_access_key: s}\n";
    let config = accept(&format!("{SERVER}{BACKENDS}{root}"));
    assert_eq!(config.root.unwrap().access_key_id, "R");
    assert!(config.buckets.is_empty());
    assert_eq!(
        refused("auth:\n  root: {access_key_id: R}\n"),
        "f:10: auth.root.access_key_id: secret_access_key is missing; give both, or neither"
    );
    let pair = minimal().replace("token: t", "{access_key_id: A, secret_access_key: s}");
    let grant = |lines: &str| format!("{pair}{root}grants:\n  - {{{lines}}}\n");
    let config = accept(&grant(
        "access_key_id: A, bucket: made-later, allow: [read]",
    ));
    assert_eq!(config.grants[0].grant.bucket.as_str(), "made-later");
    for (lines, problem) in [
        (
            "bucket: b",
            "the grant has no access_key_id; add access_key_id: NAME",
        ),
        (
            "access_key_id: A",
            "the grant has no bucket; add bucket: NAME",
        ),
        (
            "access_key_id: X, bucket: b",
            "no bucket has a credential with the access key 'X'; name one of \
             buckets[].credentials[].access_key_id",
        ),
        (
            "access_key_id: R, bucket: b",
            "the root account reaches all buckets; remove the grant",
        ),
        ("access_key_id: A, bucket: .b", "'.b'"),
    ] {
        let problems = refuse(&grant(lines));
        assert!(
            problems.iter().any(|found| found.contains(problem)),
            "{problems:?}"
        );
    }
    let typo = warnings(&grant("access_key_id: A, bucket: photoss"), &HashMap::new());
    assert!(
        typo[0].contains("the file has no bucket 'photoss'"),
        "{typo:?}"
    );
}

#[test]
fn rules_for_web_pages_and_domains_are_checked() {
    let rule = |lines: &str| {
        minimal().replace(
            "    credentials:",
            &format!("    cors:\n      - {{{lines}}}\n    credentials:"),
        )
    };
    let whole = "allowed_origins: ['https://*.a'], allowed_methods: [GET], allowed_headers: ['*'], \
                 expose_headers: [ETag], max_age: 5";
    let config = accept(&rule(whole));
    assert_eq!(config.buckets[0].cors[0].max_age, Some(5));
    for (lines, problem) in [
        (
            "allowed_methods: [GET]",
            "the rule has no allowed_origins; name at least one",
        ),
        (
            "allowed_origins: ['*']",
            "the rule has no allowed_methods; name at least one",
        ),
        (
            "allowed_origins: ['*.*'], allowed_methods: [GET]",
            "'*.*' has more than one *; write one at most",
        ),
        (
            "allowed_origins: ['*'], allowed_methods: [PATCH]",
            "'PATCH' is no method that a rule can allow; write GET, PUT, POST, DELETE or HEAD",
        ),
        (
            "allowed_origins: ['*'], allowed_methods: [GET], expose_headers: ['a b']",
            "'a b' is not the name of a header; correct it",
        ),
        (
            "allowed_origins: ['*'], allowed_methods: [GET], expose_headers: ['x-amz-*']",
            "'x-amz-*' is a pattern, which browsers do not understand; name each header; \
             uploads in a page need ETag, x-amz-checksum-crc32,",
        ),
        (
            "allowed_origins: ['*'], allowed_methods: [GET], expose_headers: ['*']",
            "'*' is a pattern",
        ),
    ] {
        let problems = refuse(&rule(lines));
        assert!(
            problems.iter().any(|found| found.contains(problem)),
            "{problems:?}"
        );
    }
    let domain = |text: &str| {
        minimal().replace(
            ":9000\n",
            &format!(":9000\n  virtual_host_domains: ['{text}']\n"),
        )
    };
    let config = accept(&domain("S3.Example.com."));
    assert_eq!(config.server.virtual_host_domains, ["s3.example.com"]);
    let problems = refuse(&domain("https://s3.example.com"));
    assert!(
        problems[0].contains("is not a domain; write a host name"),
        "{problems:?}"
    );
}

#[test]
fn keys_of_another_kind_of_backend_are_refused() {
    let backend = |lines: &str| refuse(&minimal().replace("kind: memory\n", lines));
    assert!(backend("kind: local\n")[0].contains("backends[0].path: the key is missing"));
    assert!(
        backend("kind: local\n    path: /a\n    bucket: b\n")[0]
            .contains("a backend of the kind local has no bucket")
    );
    assert!(
        backend("kind: memory\n    path: /a\n")[0]
            .contains("a backend of the kind memory has no path")
    );
    assert_eq!(backend("kind: tape\n").len(), 1);
}

#[test]
fn three_valued_keys_keep_what_the_file_says() {
    let s3 = |more: &str| {
        let s3 = format!(
            "endpoint: http://h/storage/v1/s3\n    bucket: b\n    access_key_id: i\n    \
             secret_access_key: s\n{more}"
        );
        let config = accept(&minimal().replace("kind: memory\n", &s3));
        let BackendKindConfig::S3(s3) = &config.backends[0].kind else {
            panic!("{config:?}")
        };
        (s3.force_path_style, s3.unsigned_payload)
    };
    assert_eq!(s3(""), (None, None));
    assert_eq!(s3("    force_path_style: false\n"), (Some(false), None));
    assert_eq!(s3("    unsigned_payload: true\n"), (None, Some(true)));
}

#[test]
fn endpoints_have_a_scheme_a_host_and_no_secret() {
    for endpoint in [
        "s3.example.com",
        "ftp://h",
        "http://h/#x",
        "http://h?x=1",
        "http://u:hunter2@h",
        "http://",
    ] {
        let s3 = format!(
            "endpoint: {endpoint}\n    bucket: b\n    access_key_id: i\n    secret_access_key: s\n"
        );
        let problems = refuse(&minimal().replace("kind: memory\n", &s3));
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(problems[0].contains("backends[0].endpoint") && !problems[0].contains("hunter2"));
    }
}

#[test]
fn a_secret_may_come_from_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("token");
    let with = |key: &str| minimal().replace("token: t", key);
    let from_file = with(&format!("token_file: {}", file.display()));
    assert!(refuse(&from_file)[0].contains("cannot be read"));
    fs::write(&file, "").unwrap();
    assert!(refuse(&from_file)[0].contains("is empty"));
    fs::write(&file, "s3 $cret ${X}\n").unwrap();
    let config = accept(&from_file);
    assert!(
        matches!(&config.buckets[0].credentials[0].proof, Credential::Token(token)
            if token.reveal() == "s3 $cret ${X}")
    );
    let both = with(&format!("token: t\n        token_file: {}", file.display()));
    assert!(refuse(&both)[0].contains("token_file: token is given as well; keep"));
}

#[test]
fn the_environment_enters_values_and_nothing_else() {
    let env: HashMap<String, String> = [
        ("PORT", "9999"),
        ("EVIL", "x\nbackends: [] # ${PORT}"),
        ("KEY", "server"),
        ("QUOTA", "20GiB"),
        ("EMPTY", ""),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into();
    let text = format!(
        "# ${{UNSET}} in a comment\n{}",
        minimal()
            .replace(":9000", "\"127.0.0.1:${PORT}\"")
            .replace("token: t", "token: ${EVIL}")
            .replace(
                "kind: memory\n",
                "kind: memory\n    quota_bytes: ${QUOTA}\n    max_object_size: ${EMPTY}\n"
            )
    );
    let config = parse(&text, Path::new("f"), &env).unwrap().config;
    assert_eq!(config.server.listen_addr.port(), 9999);
    assert_eq!(config.backends[0].quota, Some(ByteSize(20 << 30)));
    assert_eq!(config.backends[0].max_object_size, None);
    assert!(
        matches!(&config.buckets[0].credentials[0].proof, Credential::Token(token)
        if token.reveal() == "x\nbackends: [] # ${PORT}")
    );
    // Keys stay what they are.
    assert!(parse("${KEY}:\n  listen_addr: :1\n", Path::new("f"), &env).is_err());
    // A bare name is kept, and mentioned where the variable exists.
    let bare = minimal().replace("token: t", "token: a$PORT$NOPE");
    assert_eq!(
        warnings(&bare, &env),
        [
            "6: buckets[0].credentials[0].token: $PORT is taken literally although such a variable \
             exists; write ${PORT} for its value, or $$PORT to be clear"
        ]
    );
}

#[test]
fn what_has_no_effect_is_mentioned() {
    let env = HashMap::new();
    let text = minimal().replace(":9000\n", ":9000\n  max_concurrent_reads: 5\n");
    assert!(
        warnings(&text, &env)[0].starts_with("3: server.max_concurrent_reads: it has no effect")
    );
    let text = minimal().replace(
        ":9000\n",
        ":9000\n  max_concurrent_reads: 5\n  max_concurrent_writes: 6\n",
    );
    assert_eq!(
        accept(&text).server.admission,
        Admission::Split {
            reads: 5,
            writes: 6
        }
    );
}

#[test]
fn the_admin_token_may_stand_in_a_file_and_the_admin_key_stands_in_for_it() {
    let token = |lines: &str| {
        let text = format!("{}ui:\n  enabled: false\n{lines}", minimal());
        accept(&text)
            .admin_token
            .map(|token| token.reveal().to_owned())
    };
    assert_eq!(token(""), None);
    assert_eq!(token("  admin_token: ''\n"), None);
    let long = "0123456789abcdef";
    assert_eq!(token(&format!("  admin_token: {long}\n")).unwrap(), long);
    let both = format!("  admin_token: {long}\n  admin_key: another-of-sixteen\n");
    assert_eq!(token(&both).unwrap(), long);
    assert_eq!(
        token("  admin_key: another-of-sixteen\n").unwrap(),
        "another-of-sixteen"
    );
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("token");
    fs::write(&file, "from-a-file-of-its-own\n").unwrap();
    let line = format!("  admin_token_file: {}\n", file.display());
    assert_eq!(token(&line).unwrap(), "from-a-file-of-its-own");

    let short = format!("{}ui:\n  admin_key: short\n", minimal());
    assert_eq!(
        warnings(&short, &HashMap::new()),
        [
            "10: ui.admin_key: a token of 5 characters can be guessed; draw another one: openssl rand -hex 32"
        ]
    );
    let odd = format!(
        "{}ui:\n  admin_token: \"two words of a token\"\n",
        minimal()
    );
    assert_eq!(refuse(&odd).len(), 1);
    assert!(refuse(&odd)[0].contains("10: ui.admin_token: it has blanks"));
}

#[test]
fn secrets_are_not_shown() {
    let text = minimal().replace("token: t", "token: hunter2");
    assert!(!format!("{:?}", accept(&text)).contains("hunter2"));
    let broken = minimal().replace("token: t", "token: [hunter2]");
    assert!(!refuse(&broken).join("\n").contains("hunter2"));
}

#[test]
fn the_reference_names_every_kind_of_key() {
    let page = render_reference();
    for row in [
        "## `backends[].http`",
        "| `quota_bytes` | size | `0` (no limit) | restart |",
        "| `listen_addr` | host:port | required | restart |",
        "| `factor` | number | `1` | off only |",
        "| `cert_file` | path | none | restart; contents: SIGHUP |",
    ] {
        assert!(page.contains(row), "{row}\n{page}");
    }
}

proptest! {
    #[test]
    fn no_text_makes_the_loader_panic(text in "([a-z_]{1,12}: ?[\\[\\]{}a-z0-9$:\"'-]{0,12}\n?[ ]{0,4}){0,12}") {
        let _ = parse(&text, Path::new("f"), &NoEnvironment);
    }

    #[test]
    fn any_bytes_are_refused_or_read_without_panic(text in any::<String>()) {
        let _ = parse(&text, Path::new("f"), &NoEnvironment);
    }

    #[test]
    fn a_size_means_the_same_as_number_and_as_text(gib in 1u32..8_000_000) {
        let quota = |value: String| {
            let text = minimal().replace("memory\n", &format!("memory\n    quota_bytes: {value}\n"));
            accept(&text).backends[0].quota
        };
        let bytes = u64::from(gib) << 30;
        assert_eq!(quota(format!("{gib}GiB")), Some(ByteSize(bytes)));
        assert_eq!(quota(format!("\"{gib} GB\"")), Some(ByteSize(bytes)));
        assert_eq!(quota(bytes.to_string()), Some(ByteSize(bytes)));
    }
}

const POSTGRES: &str = "database:\n  host: db.example.com\n  database: s3o\n  user: s3o\n";
const SHARED: &str = "backends:\n  - kind: local\n    path: /srv/shared\n    shared: true\n";

fn postgres(lines: &str) -> String {
    [SERVER, BUCKETS, SHARED, POSTGRES, lines].concat()
}

#[test]
fn a_host_means_postgres_with_the_defaults_of_the_reference() {
    let DatabaseConfig::Postgres(config) = accept(&postgres("  password: p\n")).database else {
        panic!("not PostgreSQL")
    };
    assert_eq!(config.hosts, [("db.example.com".to_owned(), 5432)]);
    assert_eq!((config.conns_max, config.conns_min), (50, 10));
    assert_eq!(config.conn_lifetime, Duration::from_secs(300));
    assert_eq!(config.lease, Duration::from_secs(30));
    assert_eq!(config.ssl_mode, SslMode::Require);
    assert_eq!(config.password.unwrap().reveal(), "p");
    let several = postgres("").replace(
        "host: db.example.com",
        "hosts: [pooler:6432, db, '[::1]:5433']",
    ) + "  port: 5434\n  ssl_mode: verify-full\n  statements: unnamed\n";
    let DatabaseConfig::Postgres(config) = accept(&several).database else {
        panic!("not PostgreSQL")
    };
    let hosts = [("pooler", 6432), ("db", 5434), ("::1", 5433)];
    assert_eq!(
        config.hosts,
        hosts.map(|(host, port)| (host.to_owned(), port))
    );
    assert_eq!(config.ssl_mode, SslMode::VerifyFull);
}

#[test]
fn what_postgres_needs_and_what_it_does_not_take_is_named() {
    let refused = |text: &str| match parse(text, Path::new("f"), &NoEnvironment) {
        Err(error) => error.to_string(),
        Ok(_) => panic!("accepted: {text}"),
    };
    let bare = [SERVER, BUCKETS, SHARED, "database:\n  driver: postgres\n"].concat();
    let words = refused(&bare);
    for key in ["host", "database", "user"] {
        assert!(
            words.contains(&format!("database.{key}: the key is missing")),
            "{words}"
        );
    }
    for (text, words) in [
        (
            postgres("  path: x.db\n"),
            "database.path: PostgreSQL has no path",
        ),
        (
            postgres("  max_conns: 2\n  min_conns: 1\n"),
            "2 connections are not enough",
        ),
        (postgres("  hosts: [a]\n"), "host is there already"),
        (
            postgres("").replace("host: db.example.com", "hosts: ['a/b']"),
            "'a/b' is no host",
        ),
        (
            postgres("").replace("    shared: true\n", ""),
            "must see the same directory",
        ),
        (
            postgres("").replace(SHARED, BACKENDS),
            "cannot reach the memory",
        ),
        (
            [
                SERVER,
                BUCKETS,
                BACKENDS,
                "database:\n  driver: sqlite\n  host: db\n",
            ]
            .concat(),
            "the driver sqlite has no host",
        ),
    ] {
        let found = refused(&text);
        assert!(found.contains(words), "{found}");
    }
}
