//! The program while it serves.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use backend::{Capabilities, S3Backend, S3Settings};
use base::{Secret, SystemClock};
use parking_lot::Mutex;
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::{oneshot, watch};
use tokio::time::{sleep, timeout};

use super::home::{ACCESS_KEY, BUCKET, Done, Home, SECRET};
use super::raw;

/// How long a start or an end may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long the queue may take: bytes that were still being read when they were displaced wait 30 s,
/// and the worker looks every 60 s.
const SETTLED_MAX: Duration = Duration::from_secs(180);
/// Log lines that are kept.
const LOG_LINES_MAX: usize = 4000;
/// Between two looks at something that has no bell.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// A running server. It is killed when this is dropped.
pub(crate) struct Server {
    child: Child,
    pid: Pid,
    pub(crate) addr: SocketAddr,
    log: Arc<Mutex<VecDeque<String>>>,
    lines: watch::Receiver<u64>,
    err: tokio::task::JoinHandle<String>,
}

impl Server {
    /// Starts it and waits for its first log line that says where it serves.
    ///
    /// # Errors
    /// How it ended instead.
    pub(crate) async fn start(mut command: Command) -> Result<Self, Done> {
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        let pid = Pid::from_raw(i32::try_from(child.id().unwrap()).unwrap()).unwrap();
        let mut stderr = child.stderr.take().unwrap();
        let err = tokio::spawn(async move {
            let mut text = Vec::new();
            stderr.read_to_end(&mut text).await.ok();
            String::from_utf8_lossy(&text).into_owned()
        });
        let log = Arc::new(Mutex::new(VecDeque::new()));
        let (bell, lines) = watch::channel(0);
        let (tell, told) = oneshot::channel();
        let stdout = child.stdout.take().unwrap();
        tokio::spawn(follow(stdout, Arc::clone(&log), bell, tell));
        match timeout(PATIENCE, told)
            .await
            .expect("the server starts, or ends")
        {
            Ok(addr) => Ok(Self {
                child,
                pid,
                addr,
                log,
                lines,
                err,
            }),
            Err(_) => {
                let status = child.wait().await.unwrap();
                let out: Vec<_> = log.lock().iter().cloned().collect();
                Err(Done {
                    code: status.code(),
                    out: out.join("\n"),
                    err: err.await.unwrap(),
                })
            }
        }
    }

    /// A client with connections of its own that sends checksums wherever it can.
    pub(crate) fn client(&self) -> S3Backend {
        self.client_with(ACCESS_KEY, SECRET)
    }

    /// The same with other credentials.
    pub(crate) fn client_with(&self, key: &str, secret: &str) -> S3Backend {
        let endpoint = format!("http://{}", self.addr);
        let settings = S3Settings::new(&endpoint, BUCKET, key, Secret::new(secret.to_owned()));
        let name = "client".parse().unwrap();
        let client = S3Backend::new(name, settings, Arc::new(SystemClock)).unwrap();
        backend::ObjectBackend::adopt(
            &client,
            Capabilities {
                md5_etag: true,
                checksum_header: true,
                checksum_trailer: true,
                echoes_checksum: true,
                batch_delete: true,
                copy: true,
                part_copy: true,
                list_uploads: true,
                odd_keys: true,
                versioned: false,
            },
        );
        client
    }

    /// The process.
    pub(crate) fn pid(&self) -> Pid {
        self.pid
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.pid, signal).unwrap();
    }

    /// Waits for its end.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        let ended = timeout(PATIENCE, self.child.wait()).await;
        ended.expect("the server ends").unwrap()
    }

    /// Stops it as an operator does, and expects a clean end.
    pub(crate) async fn stop(mut self) {
        self.signal(Signal::TERM);
        let status = self.ended().await;
        assert_eq!(
            status.code(),
            Some(0),
            "a clean end; log:\n{}",
            self.log_tail()
        );
    }

    /// Stops it as an operator does, and expects that its exit code tells of a failure; what it wrote to
    /// standard error.
    pub(crate) async fn stop_failing(self) -> String {
        self.signal(Signal::TERM);
        let (code, err) = self.last_words().await;
        assert_eq!(code, Some(1), "{err}");
        err
    }

    /// Waits for its end and returns what it wrote to standard error.
    pub(crate) async fn last_words(mut self) -> (Option<i32>, String) {
        let status = self.ended().await;
        (status.code(), self.err.await.unwrap())
    }

    /// The end of the log, for messages.
    pub(crate) fn log_tail(&self) -> String {
        let log = self.log.lock();
        let lines: Vec<&str> = log
            .iter()
            .map(String::as_str)
            .filter(|line| !line.contains("\"audit\":true"))
            .collect();
        lines[lines.len().saturating_sub(60)..].join("\n")
    }

    /// Waits for a log line that contains all of these.
    pub(crate) async fn logged(&mut self, parts: &[&str]) {
        let log = Arc::clone(&self.log);
        let seen = || {
            let log = log.lock();
            log.iter()
                .any(|line| parts.iter().all(|part| line.contains(part)))
        };
        let wait = async { while !seen() && self.lines.changed().await.is_ok() {} };
        timeout(PATIENCE, wait).await.ok();
        assert!(seen(), "no log line with {parts:?}:\n{}", self.log_tail());
    }

    /// The value of a metric: of the line that begins with this name and these labels.
    pub(crate) async fn metric(&self, name: &str) -> Option<u64> {
        let reply = raw::plain_get(self.addr, "/metrics").await;
        let text = String::from_utf8(reply.body).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim_start_matches("{}").trim().parse().ok()
    }

    /// Waits until no write is unsettled and the local backends hold so many files.
    pub(crate) async fn settled(&self, home: &Home, files: usize) {
        let wait = async {
            while home.stored_files().len() != files
                || self.metric("s3o_pending_intents_depth").await != Some(0)
            {
                sleep(LOOK_EVERY).await;
            }
        };
        if timeout(SETTLED_MAX, wait).await.is_err() {
            panic!(
                "{files} files are expected, these are left: {:#?}\n{}\n{}\n{}",
                home.stored_files(),
                home.queue(),
                home.run(&["catalogue", "verify"]).await.out,
                self.log_tail()
            );
        }
    }

    /// Waits until a look succeeds.
    pub(crate) async fn until<F>(&self, what: &str, look: impl Fn() -> F + Send + Sync)
    where
        F: Future<Output = bool> + Send,
    {
        let wait = async {
            while !look().await {
                sleep(LOOK_EVERY).await;
            }
        };
        let waited = timeout(PATIENCE, wait).await;
        assert!(
            waited.is_ok(),
            "{what} does not come; log:\n{}",
            self.log_tail()
        );
    }
}

/// Keeps the log and tells the address as soon as the log does.
async fn follow(
    stdout: tokio::process::ChildStdout,
    log: Arc<Mutex<VecDeque<String>>>,
    bell: watch::Sender<u64>,
    tell: oneshot::Sender<SocketAddr>,
) {
    let mut tell = Some(tell);
    let mut lines = BufReader::new(stdout).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        if let Some(addr) = address_in(&line)
            && let Some(tell) = tell.take()
        {
            // A test that no longer waits has failed already.
            tell.send(addr).ok();
        }
        let mut log = log.lock();
        log.push_back(line);
        if log.len() > LOG_LINES_MAX {
            log.pop_front();
        }
        drop(log);
        bell.send_modify(|count| *count += 1);
    }
}

fn address_in(line: &str) -> Option<SocketAddr> {
    let line: serde_json::Value = serde_json::from_str(line).ok()?;
    if line["msg"] != "serving" {
        return None;
    }
    line["addr"].as_str()?.parse().ok()
}
