//! A redis-server of the test's own: empty at every start, gone with the value.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use tempfile::TempDir;

use crate::RedisSettings;

/// How long a start may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two looks whether it answers.
const LOOK_EVERY: Duration = Duration::from_millis(10);

pub(super) struct Server {
    port: u16,
    args: Vec<String>,
    child: Option<Child>,
    dir: TempDir,
}

impl Server {
    pub(super) async fn start() -> Self {
        Self::with(&[]).await
    }

    /// With further arguments.
    pub(super) async fn with(args: &[&str]) -> Self {
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut server = Self {
            port: free.local_addr().unwrap().port(),
            args: args.iter().map(ToString::to_string).collect(),
            child: None,
            dir: TempDir::new().unwrap(),
        };
        drop(free);
        server.again().await;
        server
    }

    /// Starts it once more, at the same place and with nothing in it.
    pub(super) async fn again(&mut self) {
        self.kill();
        // The kernel ends it where the test is killed: no clean-up would run then.
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "--", "redis-server"])
            .args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
            .args(["--port", &self.port.to_string()])
            .args(&self.args)
            .current_dir(self.dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .expect("setpriv and redis-server are there; `cargo xtask tools --install` gets them");
        self.child = Some(child);
        let answers = async {
            while redis::Client::open(("127.0.0.1", self.port))
                .unwrap()
                .get_multiplexed_async_connection()
                .await
                .is_err()
            {
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        let answers = tokio::time::timeout(PATIENCE, answers).await;
        answers.expect("redis-server answers; `cargo xtask tools --install` gets it");
    }

    pub(super) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    pub(super) fn settings(&self) -> RedisSettings {
        RedisSettings {
            host: "127.0.0.1".to_owned(),
            port: self.port,
            password: None,
            db: 0,
            tls: false,
            key_prefix: "s3orch".to_owned(),
            failure_threshold: 3,
            open_timeout: Duration::from_millis(20),
        }
    }

    pub(super) async fn connection(&self) -> MultiplexedConnection {
        let client = redis::Client::open(("127.0.0.1", self.port)).unwrap();
        client.get_multiplexed_async_connection().await.unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}
