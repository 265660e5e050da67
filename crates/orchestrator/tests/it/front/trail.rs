//! The audit trail as it appears in the log.

use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use base::SystemClock;
use http::Method;
use orchestrator::config::{LogFormat, LogLevel};
use orchestrator::telemetry::log::Log;
use parking_lot::Mutex;
use serde_json::Value;

use super::support::{Auth, BUCKET, OTHER_KEY, OTHER_SECRET, Request, Server, noise, path};

#[derive(Clone, Default)]
struct Page(Arc<Mutex<Vec<u8>>>);

impl Write for Page {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Page {
    /// The audit lines about requests, in the order of their ids; every line must be an object of its
    /// own. Each thread's lines leave when that thread goes to sleep, and connections are shared out
    /// among threads, so the order in the log is not that of the requests.
    fn requests(&self) -> Vec<Value> {
        let text = String::from_utf8(self.0.lock().clone()).unwrap();
        let lines = text
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap());
        let mut mine: Vec<Value> = lines
            .filter(|line| line["audit"] == true)
            .filter(|line| line["event"].as_str().unwrap().starts_with("s3."))
            .filter(|line| line["request_id"].as_str().unwrap().starts_with(MINE))
            .collect();
        mine.sort_by_key(|line| line["request_id"].as_str().unwrap().to_owned());
        mine
    }
}

/// What request ids of this test begin with; other tests write to the same log.
const MINE: &str = "f00d";

#[tokio::test]
async fn every_request_has_one_line_that_says_what_became_of_it() {
    let page = Page::default();
    let clock = Arc::new(SystemClock);
    let log = Log::to(
        Box::new(page.clone()),
        LogLevel::Info,
        LogFormat::Json,
        clock,
    );
    let (_control, is_first) = log.install();
    assert!(is_first, "another test took the log of the process");
    let server = Server::start().await;
    let with_id = |request: Request, id: &str| request.header("x-request-id", id);
    let put = Request::put(&path("a b")).body(&noise(1000));
    server.send(with_id(put, "f00d1")).await.expect(200);
    server
        .send(with_id(Request::get(&path("a b")), "f00d2"))
        .await
        .expect(200);
    let get = Request::get(&path("k"));
    server
        .send(with_id(get.clone().auth(Auth::None), "f00d3"))
        .await
        .expect(403);
    server
        .send(with_id(get.clone().key(OTHER_KEY, OTHER_SECRET), "f00d4"))
        .await
        .expect(403);
    server
        .send(with_id(Request::get("/photos/%zz"), "f00d5"))
        .await
        .expect(400);
    server
        .send(with_id(Request::new(Method::PATCH, &path("k")), "f00d6"))
        .await
        .expect(405);
    let url = Request::get(&path("a b")).presigned(server.addr, Duration::from_secs(60));
    server
        .send(with_id(Request::get(&url).auth(Auth::None), "f00d7"))
        .await
        .expect(200);
    let (app, _dir) = server.into_app();
    app.stop().await.unwrap();

    let lines = page.requests();
    let events: Vec<_> = lines
        .iter()
        .map(|line| ["request_id", "event"].map(|name| line[name].as_str().unwrap()))
        .collect();
    assert_eq!(
        events,
        [
            ["f00d1", "s3.PutObject"],
            ["f00d2", "s3.GetObject"],
            ["f00d3", "s3.AuthFailure"],
            ["f00d4", "s3.BucketMismatch"],
            ["f00d5", "s3.InvalidPath"],
            ["f00d6", "s3.MethodNotAllowed"],
            ["f00d7", "s3.GetObject"],
        ]
    );
    let put = &lines[0];
    assert_eq!(put["operation"], "PutObject");
    assert_eq!(put["method"], "PUT");
    assert_eq!(put["path"], "/photos/a%20b");
    assert_eq!(put["bucket"], BUCKET);
    assert_eq!(put["key"], "a b");
    assert_eq!(put["status"], 200);
    assert_eq!(put["request_size"], 1000);
    assert!(put["duration"].as_u64().unwrap() > 0);
    assert!(put["remote"].as_str().unwrap().starts_with("127.0.0.1:"));
    assert!(put.get("error").is_none());
    assert_eq!(lines[1]["response_size"], 1000);
    assert!(
        lines[2]["error"]
            .as_str()
            .unwrap()
            .starts_with("AccessDenied")
    );
    let text = String::from_utf8(page.0.lock().clone()).unwrap();
    assert!(
        !text.contains("X-Amz-Signature"),
        "a signature is in the log"
    );
}
