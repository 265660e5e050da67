//! A PgBouncer in transaction mode, in front of the shared PostgreSQL.

use std::net::TcpStream;
use std::path::Path;
use std::process::Stdio;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::postgres::{Database, Postgres, answers};
use crate::process::{Process, command, free_port, hand_over};

/// How long a start may take.
const PATIENCE: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// A running pooler; killed with the value.
#[derive(Debug)]
pub struct PgBouncer {
    port: u16,
    process: Option<Process>,
    folder: TempDir,
}

impl PgBouncer {
    /// One for all tests of this process.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<PgBouncer> = OnceLock::new();
        SHARED.get_or_init(|| Self::start(Postgres::shared().port()))
    }

    /// One in front of the server at a port of the loopback.
    fn start(server: u16) -> Self {
        let user = Database::USER;
        // Few connections per database, given back soon: the tests have many databases.
        let pooler = Self::configured(
            &[("users", format!("\"{user}\" \"\"\n"))],
            |folder, port| {
                format!(
                    "[databases]\n* = host=127.0.0.1 port={server}\n[pgbouncer]\n\
                 listen_addr = 127.0.0.1\nlisten_port = {port}\n\
                 auth_type = trust\nauth_file = {}/users\npool_mode = transaction\n\
                 default_pool_size = 4\nmax_client_conn = 2000\nserver_idle_timeout = 1\n\
                 admin_users = {user}\n",
                    folder.display()
                )
            },
        );
        assert!(answers(pooler.port), "{}", pooler.log());
        pooler
    }

    /// One with a configuration of the test's own, which may name these files in its folder.
    pub fn configured(files: &[(&str, String)], config: impl FnOnce(&Path, u16) -> String) -> Self {
        let folder = crate::process::folder("s3o-pgbouncer-");
        let port = free_port();
        let write = |name: &str, text: &str| {
            std::fs::write(folder.path().join(name), text).expect("a file can be written");
        };
        for (name, text) in files {
            write(name, text);
        }
        // Where it puts a socket belongs to another user.
        let config = config(folder.path(), port) + "unix_socket_dir =\n";
        write("pgbouncer.ini", &config);
        hand_over(folder.path());
        let mut pooler = Self {
            port,
            process: None,
            folder,
        };
        pooler.again();
        pooler
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Kills it.
    pub fn kill(&mut self) {
        drop(self.process.take());
    }

    /// Starts it once more, at the same place.
    pub fn again(&mut self) {
        self.kill();
        let log = std::fs::File::create(self.folder.path().join("log"))
            .expect("a file can be made in the folder");
        let mut pooler = command("/usr/sbin/pgbouncer");
        pooler
            .arg(self.folder.path().join("pgbouncer.ini"))
            .stdout(Stdio::null())
            .stderr(log);
        let mut process = Process::start(pooler);
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            let ended = process.has_ended();
            assert!(
                !ended && Instant::now() < deadline,
                "PgBouncer does not start (install the Debian package pgbouncer):\n{}",
                self.log()
            );
            std::thread::sleep(LOOK_EVERY);
        }
        self.process = Some(process);
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// The same database, through the pooler.
    pub fn before(&self, database: &Database) -> Database {
        Database {
            port: self.port,
            ..database.clone()
        }
    }
}
