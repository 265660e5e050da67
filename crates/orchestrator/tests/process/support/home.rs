//! A directory with a configuration, a catalogue and local backends, and the program's commands on
//! it.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use tempfile::TempDir;
use tokio::process::Command;
use tokio::time::timeout;

use super::server::Server;

/// The one virtual bucket.
pub(crate) const BUCKET: &str = "b";
/// Its credentials.
pub(crate) const ACCESS_KEY: &str = "key-of-the-tests";
pub(crate) const SECRET: &str = "secret-of-the-tests";

/// The program.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_s3-orchestrator");

/// How long a command may take.
const COMMAND_MAX: Duration = Duration::from_secs(120);

/// One backend of the configuration.
#[derive(Debug, Clone)]
pub(crate) struct BackendLines {
    pub(crate) name: String,
    pub(crate) lines: Vec<String>,
}

impl BackendLines {
    /// Adds a key.
    pub(crate) fn with(mut self, line: impl Into<String>) -> Self {
        self.lines.push(line.into());
        self
    }
}

/// The backend in an S3 bucket.
pub(crate) fn s3_backend(name: &str, endpoint: &str) -> BackendLines {
    BackendLines {
        name: name.to_owned(),
        lines: vec![
            format!("endpoint: {endpoint}"),
            "bucket: provider".to_owned(),
            "access_key_id: provider-key".to_owned(),
            "secret_access_key: provider-secret".to_owned(),
        ],
    }
}

/// Where one catalogue and its backends live.
pub(crate) struct Home {
    dir: TempDir,
    pub(crate) backends: Vec<BackendLines>,
    /// Further lines at the top level of the configuration.
    pub(crate) extra: String,
    /// Further lines of `server`, without indentation.
    pub(crate) server: Vec<String>,
    /// The file of the catalogue.
    pub(crate) database: PathBuf,
    /// The server that holds it instead.
    pub(crate) postgres: Option<testbed::Database>,
    /// The section `database` in other words.
    pub(crate) section: Option<String>,
}

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl From<Output> for Done {
    fn from(output: Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self {
            code: output.status.code(),
            out: text(&output.stdout),
            err: text(&output.stderr),
        }
    }
}

impl Home {
    /// A home without backends.
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let database = dir.path().join("catalogue.db");
        Self {
            dir,
            backends: Vec::new(),
            extra: String::new(),
            server: Vec::new(),
            database,
            postgres: None,
            section: None,
        }
    }

    /// A home that several processes share, with local backends of these names.
    pub(crate) fn shared(names: &[&str], postgres: testbed::Database) -> Self {
        let mut home = Self::with_local(names);
        for backend in &mut home.backends {
            backend.lines.push("shared: true".to_owned());
        }
        home.postgres = Some(postgres);
        home
    }

    /// A home with local backends of these names.
    pub(crate) fn with_local(names: &[&str]) -> Self {
        let mut home = Self::new();
        for name in names {
            let backend = home.local(name);
            home.backends.push(backend);
        }
        home
    }

    /// The backend in a directory of the home that has its name.
    pub(crate) fn local(&self, name: &str) -> BackendLines {
        BackendLines {
            name: name.to_owned(),
            lines: vec![
                "kind: local".to_owned(),
                format!("path: {}", self.path(name).display()),
            ],
        }
    }

    /// The home itself.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Something in the home.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The configuration file.
    pub(crate) fn config(&self) -> PathBuf {
        self.path("config.yaml")
    }

    /// Writes the configuration file.
    pub(crate) fn write_config(&self) -> PathBuf {
        let mut text = String::from("server:\n  listen_addr: 127.0.0.1:0\n");
        for line in &self.server {
            writeln!(text, "  {line}").unwrap();
        }
        match (&self.section, &self.postgres) {
            (Some(section), _) => writeln!(text, "{section}"),
            (None, None) => writeln!(text, "database:\n  path: {}", self.database.display()),
            (None, Some(server)) => writeln!(
                text,
                "database:\n  host: 127.0.0.1\n  port: {}\n  database: {}\n  user: {}\n  \
                 ssl_mode: disable\n  max_conns: 8\n  min_conns: 2\n  lease: 2s",
                server.port,
                server.name,
                testbed::Database::USER
            ),
        }
        .unwrap();
        writeln!(
            text,
            "buckets:\n- name: {BUCKET}\n  credentials:\n  - access_key_id: {ACCESS_KEY}\n    \
             secret_access_key: {SECRET}\nbackends:"
        )
        .unwrap();
        for backend in &self.backends {
            writeln!(text, "- name: {}", backend.name).unwrap();
            for line in &backend.lines {
                writeln!(text, "  {line}").unwrap();
            }
        }
        text.push_str("telemetry:\n  metrics:\n    enabled: true\n");
        text.push_str(&self.extra);
        fs::write(self.config(), text).unwrap();
        self.config()
    }

    /// Starts the program and waits until it answers requests.
    pub(crate) async fn serve(&self) -> Server {
        self.write_config();
        let mut command = Command::new(PROGRAM);
        command.arg("serve").arg("-config").arg(self.config());
        Server::start(command).await.unwrap_or_else(|done| {
            panic!("the server did not start: {done:?}");
        })
    }

    /// Starts one of several processes, with only some of its parts.
    pub(crate) async fn serve_mode(&self, mode: &str) -> Server {
        self.write_config();
        let mut command = Command::new(PROGRAM);
        command.args(["serve", "--mode", mode]);
        command.arg("-config").arg(self.config());
        Server::start(command).await.unwrap_or_else(|done| {
            panic!("the server did not start: {done:?}");
        })
    }

    /// Runs a command with the configuration, to its end.
    pub(crate) async fn run(&self, args: &[&str]) -> Done {
        self.write_config();
        self.run_as_written(args).await
    }

    /// The same with the configuration file as it is.
    pub(crate) async fn run_as_written(&self, args: &[&str]) -> Done {
        let mut command = Command::new(PROGRAM);
        command.args(args).arg("-config").arg(self.config());
        let output = command.stdin(Stdio::null()).kill_on_drop(true).output();
        let output = timeout(COMMAND_MAX, output).await;
        output.expect("the command ends").unwrap().into()
    }

    /// `catalogue verify` finds nothing wrong; what it printed.
    pub(crate) async fn verify(&self) -> String {
        let done = self.run(&["catalogue", "verify"]).await;
        assert_eq!(done.code, Some(0), "catalogue verify: {done:?}");
        assert!(done.out.contains(" 0 faults, 0 contradictions"), "{done:?}");
        for backend in &self.backends {
            let exact = done.out.lines().any(|line| {
                line.starts_with(&format!("backend {}:", backend.name)) && line.ends_with(": exact")
            });
            assert!(
                exact,
                "the sums of {} are not exact: {done:?}",
                backend.name
            );
        }
        done.out
    }

    /// `reconcile --recover` on the stopped catalogue finds nothing that the catalogue does not know,
    /// and nothing that it misses.
    pub(crate) async fn nothing_unknown(&self) {
        let done = self.run(&["reconcile", "--recover"]).await;
        assert_eq!(done.code, Some(0), "reconcile --recover: {done:?}");
        let mut lines = done.out.lines();
        let first = lines.next().unwrap_or_default();
        assert!(
            first.ends_with(" keys listed, 0 objects adopted"),
            "{done:?}"
        );
        assert_eq!(
            lines.collect::<Vec<_>>(),
            ["The recovery is complete. Nothing was deleted."],
            "{done:?}"
        );
    }

    /// The cleanup queue of a catalogue on PostgreSQL, and its clock, for messages.
    pub(crate) fn queue(&self) -> String {
        let sql = "SELECT to_timestamp(s3o_clock() / 1000.0);
            SELECT id, backend_key, reason, unsettled, first_pass, attempts, claim,
                to_timestamp(not_before / 1000.0), last_error FROM cleanup_queue;
            SELECT instance, epoch, live, to_timestamp(heartbeat / 1000.0) FROM instances";
        let database = self.postgres.as_ref();
        database
            .map(|database| database.run(sql))
            .unwrap_or_default()
    }

    /// The files on the local backends but their markers.
    pub(crate) fn stored_files(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        for backend in &self.backends {
            let root = self.path(&backend.name);
            if root.is_dir() {
                files_below(&root, &mut found);
            }
        }
        // What a killed process was writing stays for a day where others write to the directory too.
        let swept = self.postgres.is_none();
        found.retain(|path| {
            let path = path.to_string_lossy();
            !path.contains("/.s3o/backend") && (swept || !path.contains("/.s3o-tmp/"))
        });
        found
    }
}

/// All files below a directory.
pub(crate) fn files_below(root: &Path, found: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(root) else {
        // Empty directories go while the server runs.
        return;
    };
    for entry in entries.flatten() {
        let path = entry.path();
        match path.is_dir() {
            true => files_below(&path, found),
            false => found.push(path),
        }
    }
}
