//! A redis-server of the test's own: empty at every start, gone with the value.

use std::fs;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

/// How long a start may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two looks whether it answers.
const LOOK_EVERY: Duration = Duration::from_millis(10);

pub(crate) struct Redis {
    pub(crate) port: u16,
    tls: bool,
    child: Option<Child>,
    dir: TempDir,
}

impl Redis {
    pub(crate) async fn start() -> Self {
        Self::with(false).await
    }

    /// One that speaks TLS only, with a certificate of its own for `localhost`.
    pub(crate) async fn start_tls() -> Self {
        Self::with(true).await
    }

    async fn with(tls: bool) -> Self {
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut redis = Self {
            port: free.local_addr().unwrap().port(),
            tls,
            child: None,
            dir: tempfile::tempdir().unwrap(),
        };
        drop(free);
        if tls {
            let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
            fs::write(redis.certificate(), made.cert.pem()).unwrap();
            fs::write(
                redis.dir.path().join("key.pem"),
                made.signing_key.serialize_pem(),
            )
            .unwrap();
        }
        redis.again().await;
        redis
    }

    /// The file of the certificate.
    pub(crate) fn certificate(&self) -> PathBuf {
        self.dir.path().join("certificate.pem")
    }

    /// Starts it once more, at the same place and with nothing in it.
    pub(crate) async fn again(&mut self) {
        self.kill().await;
        // The kernel ends it where the test is killed: no clean-up would run then.
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "KILL", "--", "redis-server"])
            .args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]);
        let port = self.port.to_string();
        match self.tls {
            false => command.args(["--port", &port]),
            true => command
                .args([
                    "--port",
                    "0",
                    "--tls-port",
                    &port,
                    "--tls-auth-clients",
                    "no",
                ])
                .args(["--tls-cert-file", "certificate.pem"])
                .args(["--tls-ca-cert-file", "certificate.pem"])
                .args(["--tls-key-file", "key.pem"]),
        };
        let child = command
            .current_dir(self.dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("setpriv and redis-server are there; `cargo xtask tools --install` gets them");
        self.child = Some(child);
        let answers = async {
            while !self.answers().await {
                sleep(LOOK_EVERY).await;
            }
        };
        let answers = timeout(PATIENCE, answers).await;
        answers.expect("redis-server answers; `cargo xtask tools --install` gets it");
    }

    async fn answers(&self) -> bool {
        match self.tls {
            true => TcpStream::connect(("127.0.0.1", self.port)).await.is_ok(),
            false => self.say("PING").await.as_deref() == Some("+PONG"),
        }
    }

    pub(crate) async fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().await.unwrap();
        }
    }

    /// The first line of the answer to a command.
    pub(crate) async fn say(&self, command: &str) -> Option<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).await.ok()?;
        stream
            .write_all(format!("{command}\r\n").as_bytes())
            .await
            .ok()?;
        let mut answer = vec![0; 1024];
        let length = stream.read(&mut answer).await.ok()?;
        let answer = String::from_utf8(answer[..length].to_vec()).ok()?;
        Some(answer.lines().next()?.to_owned())
    }
}
