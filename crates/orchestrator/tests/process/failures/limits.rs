//! Monthly limits of backends: what a restart remembers.

use std::path::Path;

use backend::{Kind, ObjectBackend as _, Payload, PutMeta};
use testbed::Postgres;
use tokio::process::Command;

use super::{STREAMED_BYTES, key, reads, store};
use crate::support::content::{Content, ContentExt as _};
use crate::support::home::{Home, PROGRAM};
use crate::support::redis::Redis;
use crate::support::server::Server;

async fn ingress(server: &Server, backend: &str) -> u64 {
    let name = format!("s3o_usage_ingress_bytes{{backend=\"{backend}\"}}");
    server.metric(&name).await.unwrap()
}

/// Waits until the server does without Redis (1), or with it (0).
async fn falls_back(server: &Server, wanted: u64) {
    server
        .until("Redis as it is", async || {
            server.metric("s3o_redis_fallback_active").await == Some(wanted)
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_redis_everything_goes_on_and_it_is_taken_up_again() {
    let mut redis = Redis::start().await;
    let mut home = Home::with_local(&["one"]);
    home.extra = format!(
        "redis: {{address: '127.0.0.1:{}', key_prefix: mine, open_timeout: 100ms}}\n",
        redis.port
    );
    let server = home.serve().await;
    store(&server.client(), "a", STREAMED_BYTES).await;
    let published = || async {
        let month = base::Month::of(base::Clock::now(&base::SystemClock));
        let key = format!("HVALS mine:usage:{month}:one:ingress_bytes");
        redis.say(&key).await.as_deref() == Some("*1")
    };
    server.until("a publication", published).await;
    redis.kill().await;
    falls_back(&server, 1).await;
    store(&server.client(), "b", STREAMED_BYTES).await;
    reads(&server.client(), "a", STREAMED_BYTES).await;
    assert!(ingress(&server, "one").await >= 2 * STREAMED_BYTES);
    redis.again().await;
    falls_back(&server, 0).await;
    let counted = |status: &str| {
        format!("s3o_redis_operations_total{{operation=\"pipeline_add\",status=\"{status}\"}}")
    };
    for status in ["success", "error"] {
        assert!(
            server.metric(&counted(status)).await.unwrap() > 0,
            "{status}"
        );
    }
    assert!(ingress(&server, "one").await < 2 * STREAMED_BYTES + 10_000);
    server.stop().await;
    // A Redis that is down does not prevent a start, nor a stop.
    redis.kill().await;
    let server = home.serve().await;
    assert!(ingress(&server, "one").await >= 2 * STREAMED_BYTES);
    reads(&server.client(), "b", STREAMED_BYTES).await;
    server.stop().await;
    home.verify().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_is_full_counts_as_one_that_is_down() {
    let redis = Redis::start().await;
    let mut home = Home::with_local(&["one"]);
    home.extra = format!(
        "redis: {{address: '127.0.0.1:{}', open_timeout: 100ms}}\n",
        redis.port
    );
    let server = home.serve().await;
    falls_back(&server, 0).await;
    for setting in ["maxmemory-policy noeviction", "maxmemory 1"] {
        let said = redis.say(&format!("CONFIG SET {setting}")).await;
        assert_eq!(said.as_deref(), Some("+OK"));
    }
    store(&server.client(), "a", STREAMED_BYTES).await;
    let refused = redis.say("SET k v").await.unwrap();
    assert!(refused.starts_with("-OOM"), "{refused}");
    falls_back(&server, 1).await;
    store(&server.client(), "b", STREAMED_BYTES).await;
    redis.say("CONFIG SET maxmemory 0").await;
    falls_back(&server, 0).await;
    let counted = ingress(&server, "one").await;
    let stored = 2 * STREAMED_BYTES;
    assert!((stored..stored + 10_000).contains(&counted), "{counted}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn instances_spend_one_limit_together_and_count_exactly() {
    let mut redis = Redis::start().await;
    let mut home = Home::shared(&["one", "two"], Postgres::shared().database());
    // Six objects fit, beside the markers of a few starts.
    let limit = 6 * STREAMED_BYTES + 20_000;
    home.backends[0]
        .lines
        .push(format!("ingress_byte_limit: {limit}"));
    // Only Redis tells them of each other in time.
    home.extra = format!(
        "usage_flush: {{interval: 300s}}\nredis: {{address: '127.0.0.1:{}', open_timeout: 100ms}}\n",
        redis.port
    );
    let servers = [home.serve().await, home.serve().await, home.serve().await];
    let all_know = async |bytes: u64| {
        for server in &servers {
            server
                .until("what the others counted", async || {
                    ingress(server, "one").await >= bytes
                })
                .await;
        }
    };
    for (n, server) in servers.iter().enumerate() {
        store(&server.client(), &format!("a{n}"), STREAMED_BYTES).await;
    }
    all_know(3 * STREAMED_BYTES).await;
    // One that lost everything is told everything again.
    redis.again().await;
    for (n, server) in servers.iter().enumerate() {
        store(&server.client(), &format!("b{n}"), STREAMED_BYTES).await;
    }
    all_know(6 * STREAMED_BYTES).await;
    // The limit is spent, whoever spent it.
    for (n, server) in servers.iter().enumerate() {
        store(&server.client(), &format!("c{n}"), STREAMED_BYTES).await;
        let spent = ingress(server, "one").await;
        assert!(spent < limit, "{spent}");
    }
    for (n, server) in servers.iter().enumerate() {
        for key in ["a", "b", "c"] {
            reads(&server.client(), &format!("{key}{n}"), STREAMED_BYTES).await;
        }
    }
    for server in servers {
        server.stop().await;
    }
    // The catalogue has all of it once, and the markers.
    let database = home.postgres.as_ref().unwrap();
    let summed = |backend: &str, column: &str| -> u64 {
        let sql = format!(
            "SELECT coalesce(sum({column}), 0) FROM backend_usage
             JOIN backends USING (backend_id) WHERE name = '{backend}'"
        );
        database.run(&sql).parse().unwrap()
    };
    for (backend, objects) in [("one", 6), ("two", 3)] {
        let (written, read) = (
            summed(backend, "ingress_bytes"),
            summed(backend, "egress_bytes"),
        );
        let expected = objects * STREAMED_BYTES;
        assert!(
            (expected..expected + 20_000).contains(&written),
            "{backend}: {written}"
        );
        assert!(
            (expected..expected + 20_000).contains(&read),
            "{backend}: {read}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_is_spoken_to_by_tls_if_the_system_trusts_it() {
    let redis = Redis::start_tls().await;
    let mut home = Home::with_local(&["one"]);
    home.extra = format!(
        "redis: {{address: 'localhost:{}', tls: true, open_timeout: 100ms}}\n",
        redis.port
    );
    home.write_config();
    let start = |trusted: &Path| {
        let mut command = Command::new(PROGRAM);
        command.env("SSL_CERT_FILE", trusted);
        command.arg("serve").arg("-config").arg(home.config());
        Server::start(command)
    };
    let exchanged = "s3o_redis_operations_total{operation=\"pipeline_load\",status=\"success\"}";
    let server = start(&redis.certificate()).await.unwrap();
    server
        .until("an exchange", || async {
            server.metric(exchanged).await.is_some()
        })
        .await;
    server.stop().await;
    // Somebody else's certificate is no reason to go on with it.
    let other = Redis::start_tls().await;
    let server = start(&other.certificate()).await.unwrap();
    server
        .until("the fallback", || async {
            server.metric("s3o_redis_fallback_active").await == Some(1)
        })
        .await;
    assert_eq!(server.metric(exchanged).await, None);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_keeps_what_was_spent_this_month() {
    let mut home = Home::new();
    // Three objects fit, beside the markers of a few starts.
    let limit = format!("ingress_byte_limit: {}", 3 * STREAMED_BYTES + 10_000);
    let limited = home.local("one").with(limit);
    home.backends = vec![limited, home.local("two")];
    let server = home.serve().await;
    store(&server.client(), "a", STREAMED_BYTES).await;
    store(&server.client(), "b", STREAMED_BYTES).await;
    let before = ingress(&server, "one").await;
    assert!(before >= 2 * STREAMED_BYTES);
    server.stop().await;

    let server = home.serve().await;
    let after = ingress(&server, "one").await;
    assert!(
        after >= before && after < before + 10_000,
        "{before} {after}"
    );
    // One more fits, and the next one goes elsewhere.
    store(&server.client(), "c", STREAMED_BYTES).await;
    assert!(ingress(&server, "two").await < STREAMED_BYTES);
    store(&server.client(), "d", STREAMED_BYTES).await;
    assert!(ingress(&server, "two").await >= STREAMED_BYTES);
    for name in ["a", "b", "c", "d"] {
        reads(&server.client(), name, STREAMED_BYTES).await;
    }
    server.stop().await;

    // Without another place to go to, the same write is refused, and deletes pass.
    home.backends[1] = home.local("two").with("api_request_limit: 1");
    let server = home.serve().await;
    let content = Content::of_key("e", STREAMED_BYTES);
    let client = server.client();
    let refused = client
        .put(&key("e"), &PutMeta::default(), content.streamed())
        .await
        .unwrap_err();
    assert_eq!(refused.kind, Kind::Full, "{}", base::report(&refused));
    let small = Payload::from_bytes(bytes::Bytes::from_static(b"x"));
    client
        .put(&key("f"), &PutMeta::default(), small)
        .await
        .unwrap();
    let target = backend::DeleteTarget {
        key: key("d"),
        version: None,
    };
    client.delete(&[target]).await.pop().unwrap().unwrap();
    // Gone at once, although its bytes go later.
    let refused = server.client().get(&key("d"), None, None).await;
    assert_eq!(refused.map(|_| ()).unwrap_err().kind, Kind::NotFound);
    server.stop().await;
    home.verify().await;
    home.nothing_unknown().await;
}
