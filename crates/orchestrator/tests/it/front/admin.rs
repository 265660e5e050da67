//! The admin API over real sockets.

use std::collections::BTreeSet;
use std::sync::Arc;

use base::SystemClock;
use http::Method;
use orchestrator::admin::{self, AdminEntry, ENTRIES, Endpoint};
use orchestrator::app::{App, AppParts};
use orchestrator::config::{LogFormat, LogLevel};
use orchestrator::telemetry::log::Log;
use serde_json::{Value, json};
use tokio::net::TcpStream;

use super::support::{
    Auth, BUCKET, Options, Request, Response, Server, Wire, config_text, configure, noise, path,
};

const TOKEN: &str = "0123456789abcdef-token";
const UI: &str = "ui:\n  admin_token: 0123456789abcdef-token";

async fn start() -> Server {
    Server::with(Options {
        backend: "    quota_bytes: 1GiB",
        rest: UI,
        ..Options::default()
    })
    .await
}

async fn with_an_object_and_an_orphan() -> Server {
    let server = start().await;
    server.put("k", &noise(1000)).await.expect(200);
    server.put("gone", &noise(10)).await.expect(200);
    server
        .send(Request::delete(&path("gone")))
        .await
        .expect(204);
    server
}

fn bare(method: Method, target: &str) -> Request {
    Request::new(method, &format!("/admin/api/{target}")).auth(Auth::None)
}

fn call(method: Method, target: &str) -> Request {
    bare(method, target).header("x-admin-token", TOKEN)
}

fn get(target: &str) -> Request {
    call(Method::GET, target)
}

fn body(response: &Response) -> Value {
    assert_eq!(response.header("content-type"), "application/json");
    assert_eq!(response.header("cache-control"), "no-store");
    serde_json::from_str(&response.text()).unwrap()
}

/// The words of a refusal, which is nothing but words.
#[track_caller]
fn refused(response: Response, status: u16) -> String {
    let response = response.expect(status);
    let body = body(&response);
    assert_eq!(body.as_object().unwrap().len(), 1, "{body}");
    body["error"].as_str().unwrap().to_owned()
}

async fn ask(server: &Server, target: &str) -> Value {
    body(&server.send(get(target)).await.expect(200))
}

fn locations_of(key: &str) -> String {
    let key = format!("{BUCKET}/{key}");
    format!(
        "object-locations?key={}",
        s3wire::uri::encode_component(&key)
    )
}

/// The paths of all values, as the table of calls writes them.
fn fields(value: &Value, at: &str, into: &mut BTreeSet<String>) {
    match value {
        Value::Object(map) => {
            for (name, value) in map {
                let below = match at {
                    "" => name.clone(),
                    at => format!("{at}.{name}"),
                };
                fields(value, &below, into);
            }
        }
        Value::Array(items) => {
            assert!(!items.is_empty(), "{at} shows nothing");
            for item in items {
                fields(item, &format!("{at}[]"), into);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            into.insert(at.to_owned());
        }
    }
}

fn documented(entry: &AdminEntry) -> BTreeSet<String> {
    let fields = entry.answer.iter();
    fields.map(|(field, _)| (*field).to_owned()).collect()
}

#[tokio::test]
async fn every_answer_has_the_fields_of_the_reference_and_no_others() {
    let server = with_an_object_and_an_orphan().await;
    for entry in ENTRIES {
        let target = match entry.endpoint {
            Endpoint::ObjectLocations => locations_of("k"),
            Endpoint::Status | Endpoint::Workers | Endpoint::CleanupQueue | Endpoint::Instances => {
                entry.path.to_owned()
            }
            // These have a test of their own.
            Endpoint::LogLevel | Endpoint::SetLogLevel => continue,
        };
        let mut found = BTreeSet::new();
        fields(&ask(&server, &target).await, "", &mut found);
        assert_eq!(found, documented(entry), "{}", entry.path);
    }
}

#[tokio::test]
async fn the_status_counts_what_is_stored() {
    let server = with_an_object_and_an_orphan().await;
    let mut status = ask(&server, "status").await;
    assert_eq!(status["db_healthy"], true);
    let period = status["usage_period"].as_str().unwrap();
    assert!(period.len() == 7 && period.starts_with("20"), "{period}");
    let mut used = |field: &str| {
        let backend = status["backends"][0].as_object_mut().unwrap();
        backend.remove(field).unwrap().as_u64().unwrap()
    };
    // Two writes, and the marker.
    assert!(used("api_requests") >= 3 && used("ingress_bytes") > 1010);
    used("egress_bytes");
    assert_eq!(
        status["backends"],
        json!([{
            "name": "disk", "healthy": true, "out_of_service": null, "draining": false,
            "bytes_used": 1000, "bytes_limit": 1 << 30, "orphan_bytes": 10, "reserved_bytes": 0,
            "object_count": 1,
        }])
    );
}

#[tokio::test]
async fn without_the_catalogue_the_status_tells_what_is_in_memory() {
    let mut server = start().await;
    server.put("k", &noise(1000)).await.expect(200);
    server.app().engine().stop().await.unwrap();
    let status = ask(&server, "status").await;
    assert_eq!(status["db_healthy"], false);
    assert!(
        status["db_error"].as_str().unwrap().contains("closed"),
        "{status}"
    );
    let backend = &status["backends"][0];
    assert_eq!(backend["bytes_used"], 1000);
    for unknown in ["object_count", "draining"] {
        assert_eq!(backend[unknown], Value::Null, "{unknown}");
    }
    // Other calls fail, and say why.
    let words = refused(server.send(get("instances")).await, 503);
    assert!(words.contains("closed"), "{words}");
}

#[tokio::test]
async fn an_object_is_found_whatever_its_key() {
    let server = start().await;
    let long = "x".repeat(1024);
    for key in [
        "k",
        "a//b",
        "../x",
        "%2F",
        "a+b c",
        "ü/\u{1f600}",
        "?&=#",
        &long,
    ] {
        server.put(key, b"hello").await.expect(200);
        let found = ask(&server, &locations_of(key)).await;
        assert_eq!(found["key"], format!("{BUCKET}/{key}"));
        assert_eq!(
            (&found["size_bytes"], &found["etag"]),
            (&json!(5), &json!("5d41402abc4b2a76b9719d911017c592"))
        );
        let [location] = found["locations"].as_array().unwrap().as_slice() else {
            panic!("{found}")
        };
        assert_eq!(location["object_key"], key);
        assert_eq!(location["backend_name"], "disk");
        assert_eq!(location["state"], "good");
        let copy = location["copy_id"].as_str().unwrap();
        let there = location["backend_key"].as_str().unwrap();
        assert!(there.ends_with(&format!("~{copy}")), "{location}");
        assert_eq!(
            (&location["offset"], &location["length"]),
            (&json!(0), &json!(5))
        );
    }
    // A blank may be a plus, and a slash may be encoded or not.
    let found = ask(&server, &format!("object-locations?key={BUCKET}/a%2Bb+c")).await;
    assert_eq!(found["key"], format!("{BUCKET}/a+b c"));
}

#[tokio::test]
async fn an_object_without_bytes_is_found_and_absent_ones_are_not() {
    let server = start().await;
    server.put("empty", b"").await.expect(200);
    let found = ask(&server, &locations_of("empty")).await;
    assert_eq!(found["size_bytes"], 0);
    let words = refused(server.send(get(&locations_of("absent"))).await, 404);
    assert_eq!(words, "the key does not exist");
    let nowhere = get("object-locations?key=nowhere/k");
    let words = refused(server.send(nowhere).await, 404);
    assert_eq!(words, "the bucket does not exist");
    for (query, words) in [
        ("", "the parameter key is missing"),
        ("?key=", "the parameter key is missing"),
        ("?keys=a/b", "the parameter key is missing"),
        (
            "?key=photos",
            "\"photos\" is a bucket or a key, but not both",
        ),
        ("?key=photos/", "\"\" is no key"),
        ("?key=/k", "\"\" is no bucket"),
        ("?key=photos/a%00b", "is no key"),
        ("?key=photos/%ff", "URI"),
        ("?key=photos/%zz", "URI"),
        ("?key=photos/a&key=photos/b", "more than once"),
    ] {
        let request = get(&format!("object-locations{query}"));
        let found = refused(server.send(request).await, 400);
        assert!(found.contains(words), "{query}: {found}");
    }
}

#[tokio::test]
async fn the_workers_are_those_of_the_engine() {
    let mut server = start().await;
    server.app().engine().settle(1).await;
    let answer = ask(&server, "workers").await;
    let workers = answer["workers"].as_array().unwrap();
    let names: Vec<_> = workers
        .iter()
        .map(|worker| worker["name"].as_str().unwrap())
        .collect();
    let all = server.app().engine().status().await.unwrap().workers;
    let expected: Vec<_> = all.iter().map(|worker| worker.name).collect();
    assert!(expected.len() >= 5, "{expected:?}");
    assert_eq!(names, expected);
    for worker in workers {
        assert!(
            worker["last_success"].as_str().unwrap().ends_with('Z'),
            "{worker}"
        );
        assert_eq!(worker["consecutive_failures"], 0);
    }
}

#[tokio::test]
async fn the_cleanup_queue_shows_what_is_due_first_and_counts_the_rest() {
    let server = start().await;
    let empty = ask(&server, "cleanup-queue").await;
    assert_eq!(empty, json!({"depth": 0, "dead_letters": 0, "items": []}));
    for n in 0..52 {
        let key = format!("k{n}");
        server.put(&key, b"hello").await.expect(200);
        server.send(Request::delete(&path(&key))).await.expect(204);
    }
    let queue = ask(&server, "cleanup-queue").await;
    assert_eq!(queue["depth"], 52);
    let items = queue["items"].as_array().unwrap();
    assert_eq!(items.len(), 50);
    let first = &items[0];
    assert!(
        first["object_key"]
            .as_str()
            .unwrap()
            .starts_with("photos/k0~"),
        "{first}"
    );
    assert_eq!(first["reason"], "object_deleted");
    assert_eq!(
        (&first["size_bytes"], &first["attempts"]),
        (&json!(5), &json!(0))
    );
    assert_eq!(first["backend_name"], "disk");
    assert!(first["not_before"].as_str() > first["created_at"].as_str());
}

#[tokio::test]
async fn the_instance_that_answers_is_marked() {
    let server = start().await;
    let answer = ask(&server, "instances").await;
    let [one] = answer["instances"].as_array().unwrap().as_slice() else {
        panic!("{answer}")
    };
    assert_eq!((&one["this"], &one["epoch"]), (&json!(true), &json!(1)));
    let (app, dir) = server.into_app();
    app.stop().await.unwrap();
    let options = Options {
        rest: UI,
        ..Options::default()
    };
    let server = Server::of(configure(dir.path(), &options), dir).await;
    let answer = ask(&server, "instances").await;
    assert_eq!(answer["instances"][0]["epoch"], 2);
}

#[tokio::test]
async fn who_has_no_token_learns_nothing() {
    let server = start().await;
    for (method, target) in [
        (Method::GET, "status"),
        (Method::GET, "no-such-call"),
        (Method::DELETE, "status"),
        (Method::OPTIONS, "status"),
        (Method::GET, ""),
        (Method::GET, "object-locations"),
    ] {
        let request = || bare(method.clone(), target);
        let token = |token: &str| request().header("x-admin-token", token);
        let signed = Request::new(method.clone(), &format!("/admin/api/{target}"));
        for request in [
            request(),
            signed,
            token(""),
            token(&TOKEN[1..]),
            token(&format!("{TOKEN}x")),
            token(&TOKEN.to_uppercase()),
            token(TOKEN).header("x-admin-token", TOKEN),
            request().header("authorization", &format!("Bearer {TOKEN}")),
        ] {
            let words = refused(server.send(request).await, 401);
            assert!(words.starts_with("unauthorized: "), "{words}");
            assert!(words.contains("X-Admin-Token"), "{words}");
        }
    }
    // The token opens nothing but the admin API.
    let request = Request::get(&path("k")).auth(Auth::None);
    let request = request.header("x-admin-token", TOKEN);
    server.send(request).await.expect(403);
}

#[tokio::test]
async fn what_is_no_call_is_named_with_the_way_out() {
    let server = start().await;
    for target in ["", "statuses", "status/", "stat%75s", "backends/disk/drain"] {
        let words = refused(server.send(get(target)).await, 404);
        assert!(words.contains("docs/admin.md"), "{words}");
    }
    let without_slash = Request::get("/admin/api").auth(Auth::None);
    let without_slash = without_slash.header("x-admin-token", TOKEN);
    refused(server.send(without_slash).await, 404);
    for (method, target, allow) in [
        (Method::POST, "status", "GET"),
        (Method::DELETE, "workers", "GET"),
        (Method::PATCH, "log-level", "GET, PUT"),
    ] {
        let response = server.send(call(method, target)).await;
        assert_eq!(response.header("allow"), allow);
        let words = refused(response, 405);
        assert!(words.ends_with(&format!("takes {allow} only")), "{words}");
    }
    let head = server.send(call(Method::HEAD, "status")).await.expect(405);
    assert!(head.body.is_empty());
}

#[tokio::test]
async fn without_a_token_in_the_configuration_it_is_off_and_says_how_to_switch_it_on() {
    let server = Server::start().await;
    for target in ["status", "no-such-call", ""] {
        for request in [bare(Method::GET, target), get(target)] {
            let words = refused(server.send(request).await, 403);
            assert!(words.contains("ui.admin_token"), "{words}");
            assert!(words.contains("SIGHUP"), "{words}");
        }
    }
}

#[tokio::test]
async fn a_token_is_exchanged_without_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options {
        rest: UI,
        ..Options::default()
    };
    let text = config_text(dir.path(), &options);
    let file = dir.path().join("config.yaml");
    std::fs::write(&file, &text).unwrap();
    let mut server = Server::of_file(dir, file.clone()).await;
    ask(&server, "status").await;
    let other = "another-token-of-many";
    std::fs::write(&file, text.replace(TOKEN, other)).unwrap();
    server.app().reload();
    refused(server.send(get("status")).await, 401);
    let with_other = bare(Method::GET, "status").header("x-admin-token", other);
    server.send(with_other).await.expect(200);
    std::fs::write(&file, text.replace(UI, "")).unwrap();
    server.app().reload();
    refused(server.send(get("status")).await, 403);
}

#[tokio::test]
async fn a_body_that_is_too_large_is_refused_unread() {
    let server = start().await;
    let over = (admin::BODY_BYTES_MAX + 1).to_string();
    for (method, target) in [(Method::GET, "status"), (Method::PUT, "log-level")] {
        let mut wire = server.connect().await;
        let request = call(method, target).header("content-length", &over);
        wire.write(&request.bytes(server.addr)).await;
        refused(wire.response(false).await, 413);
        assert!(wire.rest().await.is_empty(), "the connection goes on");
    }
}

/// A server whose log has a level.
async fn with_log(level: LogLevel) -> (App, Wire<TcpStream>, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let options = Options {
        rest: UI,
        ..Options::default()
    };
    let clock = Arc::new(SystemClock);
    let sink = Box::new(std::io::sink());
    let log = Log::to(sink, level, LogFormat::Json, Arc::clone(&clock) as _);
    // Installed for this thread only, and for the moment: the level is what counts here.
    let (control, _) = log.install_here();
    let app = App::start(AppParts {
        config: configure(dir.path(), &options),
        config_file: None,
        clock,
        listener: None,
        log: Some(control),
        role: engine::Role::All,
    });
    let app = app.await.unwrap();
    let wire = Wire::new(TcpStream::connect(app.s3_addr()).await.unwrap());
    (app, wire, dir)
}

#[tokio::test]
async fn the_log_level_is_told_and_changed() {
    let (app, mut wire, _dir) = with_log(LogLevel::Warn).await;
    let addr = app.s3_addr();
    let put = |body: &str| call(Method::PUT, "log-level").body(body.as_bytes());
    for (request, level) in [
        (get("log-level"), "warn"),
        (put(r#"{"level": "debug"}"#), "debug"),
        (get("log-level"), "debug"),
        (put(r#"{"level": "info", "further": 1}"#), "info"),
        // Whatever the framing of the body.
        (
            put("13\r\n{\"level\": \"error\"} \r\n0\r\n\r\n")
                .header("transfer-encoding", "chunked"),
            "error",
        ),
        (get("log-level"), "error"),
    ] {
        wire.write(&request.bytes(addr)).await;
        let answer = body(&wire.response(false).await.expect(200));
        assert_eq!(answer, json!({ "level": level }));
    }
    for wrong in [
        "",
        "{",
        "{}",
        r#"{"level": 5}"#,
        r#"{"level": "verbose"}"#,
        r#"{"level": "INFO"}"#,
    ] {
        wire.write(&put(wrong).bytes(addr)).await;
        let words = refused(wire.response(false).await, 400);
        assert!(words.contains("info, warn or error"), "{wrong}: {words}");
    }
    wire.write(&get("log-level").bytes(addr)).await;
    let answer = body(&wire.response(false).await.expect(200));
    assert_eq!(answer, json!({ "level": "error" }));
    // Many small chunks reach the limit as well as a length that is announced.
    let chunk = format!("10000\r\n{}\r\n", " ".repeat(0x10000));
    let request = put(&chunk.repeat(17)).header("transfer-encoding", "chunked");
    wire.write(&request.bytes(addr)).await;
    refused(wire.response(false).await, 413);
    app.stop().await.unwrap();
}

#[tokio::test]
async fn calls_are_audited_and_not_counted_as_s3_requests() {
    let server = start().await;
    ask(&server, "status").await;
    server.send(bare(Method::GET, "status")).await.expect(401);
    server.send(get("nothing")).await.expect(404);
    server.send(get(&locations_of("absent"))).await.expect(404);
    let metrics = Request::get("/metrics").auth(Auth::None);
    let text = server.send(metrics).await.expect(200).text();
    for event in [
        "GetStatus",
        "AuthFailure",
        "InvalidRequest",
        "GetObjectLocations",
    ] {
        let line = format!("s3o_audit_events_total{{event=\"admin.{event}\"}} 1");
        assert!(text.lines().any(|found| found == line), "{line}\n{text}");
    }
    assert!(!text.contains("s3o_requests_total{"), "{text}");
}

#[tokio::test]
async fn an_overloaded_server_still_answers() {
    let server = Server::with(Options {
        server: "  max_concurrent_requests: 1",
        rest: UI,
        ..Options::default()
    })
    .await;
    let mut first = server.connect().await;
    let upload = Request::put(&path("k"))
        .header("expect", "100-continue")
        .body(b"hello");
    let (head, _) = upload.head_bytes(server.addr);
    first.write(&head).await;
    assert_eq!(first.head().await.unwrap().0, 100);
    server.get("k").await.expect(503);
    let status = ask(&server, "status").await;
    assert_eq!(status["backends"][0]["reserved_bytes"], 5);
}

#[tokio::test]
async fn the_path_is_that_of_a_key_where_the_host_names_a_bucket() {
    let server = Server::with(Options {
        server: "  virtual_host_domains: [s3.example.com]",
        rest: UI,
        ..Options::default()
    })
    .await;
    let in_bucket = |request: Request| request.header("host", "photos.s3.example.com");
    let put = Request::put("/admin/api/status").body(b"mine");
    server.send(in_bucket(put)).await.expect(200);
    let found = server
        .send(in_bucket(Request::get("/admin/api/status")))
        .await;
    assert_eq!(found.expect(200).text(), "mine");
    server.get("admin/api/status").await.expect(200);
}

#[tokio::test]
async fn the_listener_of_the_metrics_has_no_admin_api() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options {
        rest: UI,
        ..Options::default()
    };
    let mut config = configure(dir.path(), &options);
    config.metrics.as_mut().unwrap().listen = Some("127.0.0.1:0".parse().unwrap());
    let mut server = Server::of(config, dir).await;
    let addr = server.app().pages_addr().unwrap();
    let mut wire = Wire::new(TcpStream::connect(addr).await.unwrap());
    wire.write(&get("status").bytes(addr)).await;
    let answer = wire.response(false).await.expect(404);
    assert_eq!(answer.text(), "no such page\n");
    ask(&server, "status").await;
}
