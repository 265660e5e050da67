//! A PgBouncer in transaction mode, in front of the shared PostgreSQL.

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
    _process: Process,
    _folder: TempDir,
}

impl PgBouncer {
    /// One for all tests of this process.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<PgBouncer> = OnceLock::new();
        SHARED.get_or_init(|| Self::start(Postgres::shared().port()))
    }

    /// One in front of the server at a port of the loopback.
    pub fn start(server: u16) -> Self {
        let folder = crate::process::folder("s3o-pgbouncer-");
        let port = free_port();
        let users = folder.path().join("users");
        let user = Database::USER;
        std::fs::write(&users, format!("\"{user}\" \"\"\n")).expect("a file can be written");
        // Few connections per database, given back soon: the tests have many databases.
        let config = format!(
            "[databases]\n* = host=127.0.0.1 port={server}\n[pgbouncer]\n\
             listen_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n\
             auth_type = trust\nauth_file = {}\npool_mode = transaction\n\
             default_pool_size = 4\nmax_client_conn = 2000\nserver_idle_timeout = 1\n\
             admin_users = {user}\n",
            users.display()
        );
        let file = folder.path().join("pgbouncer.ini");
        std::fs::write(&file, config).expect("a file can be written");
        hand_over(folder.path());
        let log = std::fs::File::create(folder.path().join("log"))
            .expect("a file can be made in the folder");
        let mut pooler = command("/usr/sbin/pgbouncer");
        pooler.arg(&file).stdout(Stdio::null()).stderr(log);
        let mut process = Process::start(pooler);
        let deadline = Instant::now() + PATIENCE;
        while !answers(port) {
            let ended = process.has_ended();
            assert!(
                !ended && Instant::now() < deadline,
                "PgBouncer does not start (install the Debian package pgbouncer):\n{}",
                std::fs::read_to_string(folder.path().join("log")).unwrap_or_default()
            );
            std::thread::sleep(LOOK_EVERY);
        }
        Self {
            port,
            _process: process,
            _folder: folder,
        }
    }

    /// The same database, through the pooler.
    pub fn before(&self, database: &Database) -> Database {
        Database {
            port: self.port,
            ..database.clone()
        }
    }
}
