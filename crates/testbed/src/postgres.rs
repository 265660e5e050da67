//! A PostgreSQL of the tests' own.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::process::{Process, command, folder, free_port, hand_over, run};

/// Where Debian's packages put the programs of each version.
const DEBIAN: &str = "/usr/lib/postgresql";
const FOLDER_PREFIX: &str = "s3o-postgres-";
/// How long a start may take.
const PATIENCE: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Whether what is committed must survive the end of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// It must: the server may be killed.
    Durable,
    /// The server ends with the tests.
    Fleeting,
}

/// What a server shows to those who connect by TLS.
#[derive(Debug)]
pub struct Certificate {
    /// The certificate, in PEM.
    pub certificate: String,
    /// Its private key, in PEM.
    pub key: String,
}

/// A copy of a whole server's files; gone with the value.
#[derive(Debug)]
pub struct BaseBackup(TempDir);

/// A running server; killed with the value.
#[derive(Debug)]
pub struct Postgres {
    port: u16,
    durability: Durability,
    tls: bool,
    process: Option<Process>,
    databases: AtomicU32,
    folder: TempDir,
}

/// A database in it, empty at first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Database {
    /// Where its server listens, on the loopback.
    pub port: u16,
    /// Its name.
    pub name: String,
}

impl Database {
    /// The role that may do everything; it needs no password.
    pub const USER: &'static str = "postgres";

    /// Runs statements, outside of whatever is tested.
    pub fn run(&self, sql: &str) -> String {
        let output = psql(self.port, &self.name)
            .args(["--tuples-only", "--no-align", "--command", sql])
            .output()
            .expect("psql can be run: install the Debian package postgresql-client");
        assert!(
            output.status.success(),
            "{sql}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// Runs a client program of PostgreSQL on it, to its end.
    pub fn client(&self, program: &str, args: &[&str]) {
        run(Command::new(self::program(program))
            .args(["--host", "127.0.0.1", "--port", &self.port.to_string()])
            .args(["--username", Self::USER, "--dbname", &self.name])
            .args(args)
            .stdin(Stdio::null()));
    }

    /// Transactions that were committed, as far as its sessions have told yet.
    pub fn transactions(&self) -> u64 {
        let sql = "SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()";
        self.run(sql).parse().expect("it is a number")
    }
}

fn psql(port: u16, database: &str) -> Command {
    let mut command = Command::new("psql");
    command
        .args(["--no-psqlrc", "--quiet", "--host", "127.0.0.1"])
        .args(["--set", "ON_ERROR_STOP=1", "--username", Database::USER])
        .args(["--port", &port.to_string(), "--dbname", database]);
    command
}

/// Whether a server, or a pooler in front of one, answers.
pub(crate) fn answers(port: u16) -> bool {
    let asked = psql(port, "postgres")
        .args(["--command", "SELECT 1"])
        .output()
        .expect("psql can be run: install the Debian package postgresql-client");
    asked.status.success()
}

impl Postgres {
    /// One for all tests of this process, which must leave it running.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Postgres> = OnceLock::new();
        SHARED.get_or_init(|| Self::start(Durability::Fleeting))
    }

    /// One of a test's own.
    pub fn start(durability: Durability) -> Self {
        let mut server = Self::made(durability);
        server.again();
        server
    }

    /// One as providers run it: whoever is not the role of the tests comes by TLS and has a password.
    pub fn start_managed(shown: &Certificate) -> Self {
        let mut server = Self::made(Durability::Fleeting);
        let data = server.data();
        let write = |name: &str, text: &str| {
            std::fs::write(data.join(name), text).expect("a file can be written");
        };
        write("server.crt", &shown.certificate);
        write("server.key", &shown.key);
        write(
            "pg_hba.conf",
            &format!(
                "host all {} 127.0.0.1/32 trust\nhostssl all all 127.0.0.1/32 scram-sha-256\n",
                Database::USER
            ),
        );
        // The server refuses a key that others may read.
        run(Command::new("chmod")
            .arg("600")
            .arg(data.join("server.key")));
        hand_over(&data);
        server.tls = true;
        server.again();
        server
    }

    fn made(durability: Durability) -> Self {
        let folder = folder(FOLDER_PREFIX);
        hand_over(folder.path());
        run(command(program("initdb"))
            .args(["--auth", "trust", "--username", Database::USER])
            .args(["--encoding", "UTF8", "--locale", "C.UTF-8", "--no-sync"])
            .arg("--pgdata")
            .arg(folder.path().join("data")));
        Self {
            port: free_port(),
            durability,
            tls: false,
            process: None,
            databases: AtomicU32::new(0),
            folder,
        }
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Copies the whole server while it runs.
    pub fn base_backup(&self) -> BaseBackup {
        let copy = folder("s3o-base-backup-");
        hand_over(copy.path());
        run(command(program("pg_basebackup"))
            .args(["--host", "127.0.0.1", "--username", Database::USER])
            .args(["--port", &self.port.to_string(), "--checkpoint", "fast"])
            .arg("--pgdata")
            .arg(copy.path().join("data")));
        BaseBackup(copy)
    }

    /// Kills it and starts what a backup holds in its place.
    pub fn restore(&mut self, backup: BaseBackup) {
        self.kill();
        std::fs::remove_dir_all(self.data()).expect("the folder can be removed");
        // Both are temporary, so they lie in one file system.
        std::fs::rename(backup.0.path().join("data"), self.data())
            .expect("the folder can be moved");
        self.again();
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its process, from which those of its sessions descend.
    pub fn pid(&self) -> u32 {
        self.process.as_ref().map_or(0, Process::id)
    }

    /// Kills it, as a power cut would.
    pub fn kill(&mut self) {
        drop(self.process.take());
        // Its own processes notice their end of the pipe; until then the folder is locked.
        let lock = self.data().join("postmaster.pid");
        let _gone_already = std::fs::remove_file(lock);
    }

    /// Starts it once more, with what it had.
    pub fn again(&mut self) {
        self.kill();
        let fsync = match self.durability {
            Durability::Durable => "fsync=on",
            Durability::Fleeting => "fsync=off",
        };
        let log = std::fs::File::create(self.folder.path().join("log"))
            .expect("a file can be made in the folder");
        let deadline = Instant::now() + PATIENCE;
        loop {
            let mut server = command(program("postgres"));
            server
                .arg("-D")
                .arg(self.data())
                .args(["-p", &self.port.to_string(), "-k", ""])
                .args(["-c", "listen_addresses=127.0.0.1", "-c", fsync])
                .args(["-c", "max_connections=300", "-c", "shared_buffers=64MB"])
                .args(["-c", "max_locks_per_transaction=256"])
                .args(["-c", if self.tls { "ssl=on" } else { "ssl=off" }])
                .stdout(Stdio::null())
                .stderr(log.try_clone().expect("a file can be shared"));
            let mut process = Process::start(server);
            // After a kill its shared memory may still be held for a moment; then it ends at once.
            if self.answers(&mut process, deadline) {
                self.process = Some(process);
                return;
            }
            assert!(
                Instant::now() < deadline,
                "PostgreSQL does not start:\n{}",
                std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
            );
            std::thread::sleep(LOOK_EVERY);
        }
    }

    fn answers(&self, process: &mut Process, deadline: Instant) -> bool {
        while Instant::now() < deadline {
            if process.has_ended() {
                return false;
            }
            if answers(self.port) {
                return true;
            }
            std::thread::sleep(LOOK_EVERY);
        }
        false
    }

    /// Makes an empty database.
    pub fn database(&self) -> Database {
        let n = self.databases.fetch_add(1, Ordering::Relaxed);
        let database = Database {
            port: self.port,
            name: format!("test_{n}"),
        };
        let postgres = Database {
            port: self.port,
            name: "postgres".into(),
        };
        postgres.run(&format!("CREATE DATABASE {}", database.name));
        database
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A program of the server: of the newest version that Debian's packages installed, else by its name.
fn program(name: &str) -> PathBuf {
    let newest = std::fs::read_dir(DEBIAN)
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            let version: u32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
            let path = Path::new(DEBIAN)
                .join(version.to_string())
                .join("bin")
                .join(name);
            path.exists().then_some((version, path))
        })
        .max();
    newest.map_or_else(|| PathBuf::from(name), |(_, path)| path)
}
