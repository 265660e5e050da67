//! What docs/deployment.md tells people to type, typed: its commands and its files as they stand
//! there, with the names of hosts and files that exist here.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use backend::{BackendKey, ObjectBackend as _, Payload, PutMeta, S3Backend};
use bytes::Bytes;
use futures_util::TryStreamExt as _;
use testbed::{Certificate, Database, PgBouncer, Postgres};

use crate::support::home::{Home, PROGRAM};

const DOCUMENT: &str = include_str!("../../../../docs/deployment.md");
const PASSWORD: &str = "correct-horse";

/// The text between the fences of each block of code: its language, and its lines.
fn blocks() -> impl Iterator<Item = (&'static str, &'static str)> {
    DOCUMENT
        .split("```")
        .skip(1)
        .step_by(2)
        .map(|block| block.split_once('\n').expect("a block has lines"))
}

/// The one block in a language that contains a text.
fn block(language: &str, containing: &str) -> String {
    let mut found = blocks().filter(|(name, text)| *name == language && text.contains(containing));
    let (_, text) = found.next().expect("the document has such a block");
    text.to_owned()
}

/// The documented command that begins so.
fn documented(beginning: &str) -> &'static str {
    let lines = blocks().filter(|(language, _)| language.is_empty());
    let mut lines = lines.flat_map(|(_, text)| text.lines());
    lines
        .find(|line| line.starts_with(beginning))
        .unwrap_or_else(|| panic!("the document says how to {beginning}"))
}

/// An operator's shell, in the folder of a home, as the administrator of a server.
struct Shell<'a> {
    folder: &'a Path,
    port: u16,
}

impl Shell<'_> {
    /// Runs what is documented; what it printed.
    fn run(&self, beginning: &str) -> String {
        self.run_with(documented(beginning), "", Some(0))
    }

    fn run_with(&self, line: &str, input: &str, code: Option<i32>) -> String {
        let program = Path::new(PROGRAM).parent().unwrap().display();
        // Without a terminal passwords are read from standard input.
        let mut child = Command::new("setsid")
            .args(["--wait", "sh", "-c"])
            .arg(format!("PATH='{program}':$PATH; {line}"))
            .current_dir(self.folder)
            .env("PGHOST", "localhost")
            .env("PGPORT", self.port.to_string())
            .env("PGUSER", Database::USER)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        std::io::Write::write_all(&mut stdin, input.as_bytes()).unwrap();
        drop(stdin);
        let output = child.wait_with_output().unwrap();
        let err = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), code, "{line}: {output:?} {err}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

async fn store(client: &S3Backend, name: &'static str) {
    let (key, meta) = (BackendKey::new(name).unwrap(), PutMeta::default());
    let put = client.put(&key, &meta, Payload::from_bytes(Bytes::from(name)));
    put.await.unwrap();
}

async fn reads(client: &S3Backend, name: &str) {
    let key = BackendKey::new(name).unwrap();
    let fetched = client.get(&key, None, None).await.unwrap();
    let body: Vec<Bytes> = fetched.body.try_collect().await.unwrap();
    assert_eq!(body.concat(), name.as_bytes());
}

/// A provider's server with the database that the document makes, and a home whose configuration is
/// the document's.
struct Managed {
    server: Postgres,
    certificate: Certificate,
    home: Home,
}

impl Managed {
    fn new() -> Self {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let certificate = Certificate {
            certificate: made.cert.pem(),
            key: made.signing_key.serialize_pem(),
        };
        let server = Postgres::start_managed(&certificate);
        let mut home = Home::with_local(&["one"]);
        home.backends[0].lines.push("shared: true".to_owned());
        home.extra.push_str("cleanup_queue:\n  read_grace: 1s\n");
        fs::write(home.path("authority.pem"), &certificate.certificate).unwrap();
        fs::write(home.path("db.secret"), PASSWORD).unwrap();
        let section = block("yaml", "ca_file")
            .replace(
                "/etc/s3-orchestrator/db.secret",
                &in_home(&home, "db.secret"),
            )
            .replace(
                "/etc/s3-orchestrator/db-authority.pem",
                &in_home(&home, "authority.pem"),
            )
            .replace(
                "host: db.example.com",
                &format!("host: localhost\n  port: {}", server.port()),
            );
        home.section = Some(section);
        let managed = Self {
            server,
            certificate,
            home,
        };
        let shell = managed.shell();
        let typed = format!("{PASSWORD}\n{PASSWORD}\n");
        shell.run_with(documented("createuser"), &typed, Some(0));
        shell.run("createdb");
        managed
    }

    fn shell(&self) -> Shell<'_> {
        Shell {
            folder: self.home.dir(),
            port: self.server.port(),
        }
    }

    /// The pooler of the document.
    fn pooler(&self) -> PgBouncer {
        let files = [
            ("userlist.txt", format!("\"s3o\" \"{PASSWORD}\"\n")),
            ("server.crt", self.certificate.certificate.clone()),
            ("server.key", self.certificate.key.clone()),
        ];
        PgBouncer::configured(&files, |folder, port| {
            block("ini", "pool_mode")
                .replace(
                    "db.example.com port=5432",
                    &format!("localhost port={}", self.server.port()),
                )
                .replace("listen_addr = *", "listen_addr = 127.0.0.1")
                .replace("6432", &port.to_string())
                .replace("/etc/pgbouncer", &folder.display().to_string())
        })
    }
}

fn in_home(home: &Home, name: &str) -> String {
    home.path(name).display().to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_managed_server_and_a_pooler_are_used_as_documented() {
    let mut managed = Managed::new();
    let server = managed.home.serve().await;
    store(&server.client(), "by itself").await;
    server.stop().await;

    // Both are named, and connections are renewed soon.
    let mut pooler = managed.pooler();
    let hosts = block("yaml", "hosts:");
    let hosts = hosts.lines().find(|line| line.contains("hosts:")).unwrap();
    let hosts = hosts
        .replace(
            "pooler.example.com:6432",
            &format!("localhost:{}", pooler.port()),
        )
        .replace(
            "db.example.com:5432",
            &format!("localhost:{}", managed.server.port()),
        );
    let section = managed.home.section.take().unwrap();
    let kept = section
        .lines()
        .filter(|line| !line.contains(" host:") && !line.contains(" port:"));
    let mut section: Vec<&str> = kept.collect();
    section.extend([hosts.as_str(), "  max_conn_lifetime: 2s", "  lease: 2s"]);
    managed.home.section = Some(section.join("\n"));
    let mut server = managed.home.serve().await;
    let client = server.client();
    reads(&client, "by itself").await;
    store(&client, "through the pooler").await;
    let (pooled, direct) = (pooler.port().to_string(), managed.server.port().to_string());
    pooler.kill();
    store(&client, "past the pooler").await;
    reads(&client, "through the pooler").await;
    let moved = "catalogue connected through another host";
    server
        .logged(&[moved, &format!("\"to\":\"localhost:{direct}\"")])
        .await;
    pooler.again();
    server
        .logged(&[moved, &format!("\"to\":\"localhost:{pooled}\"")])
        .await;
    store(&client, "through it again").await;
    server.stop().await;
    managed.home.verify().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_catalogue_is_backed_up_restored_and_recovered_as_documented() {
    let managed = Managed::new();
    let shell = managed.shell();
    let server = managed.home.serve().await;
    let client = server.client();
    store(&client, "before").await;
    shell.run("pg_dump");
    store(&client, "after").await;
    // Under the running server.
    for command in ["dropdb", "createdb", "pg_restore"] {
        shell.run(command);
    }
    server
        .until("the state of recovery", async || {
            server.metric("s3o_recovery_active").await == Some(1)
        })
        .await;
    reads(&client, "before").await;
    let printed = shell.run("s3-orchestrator reconcile --recover");
    assert!(printed.contains(" 1 objects adopted"), "{printed}");
    reads(&client, "after").await;
    server.stop().await;

    let printed = shell.run("s3-orchestrator catalogue restored");
    assert!(printed.contains("marked as restored"), "{printed}");
    managed.home.nothing_unknown().await;
    managed.home.verify().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_catalogue_in_files_is_backed_up_and_moved_as_documented() {
    let managed = Managed::new();
    let mut files = Home::with_local(&["one"]);
    let server = files.serve().await;
    store(&server.client(), "in files").await;
    let shell = Shell {
        folder: files.dir(),
        port: managed.server.port(),
    };
    let backup = documented("s3-orchestrator catalogue backup");
    let copy = in_home(&files, "backup.db");
    shell.run_with(&backup.replace("/backup/catalogue.db", &copy), "", Some(0));
    server.stop().await;

    let migrate = documented("s3-orchestrator catalogue migrate")
        .replace("PASSWORD", PASSWORD)
        .replace("db.example.com:5432", &format!("localhost:{}", shell.port));
    let printed = shell.run_with(&migrate, "", Some(0));
    // What it prints is what goes into the file, but for the password, which it does not print.
    let section = printed
        .split_once("database:\n")
        .unwrap_or_else(|| panic!("the section is printed: {printed}"));
    let section = section.1.lines().take_while(|line| line.starts_with("  "));
    let section: Vec<&str> = section.collect();
    let refused = files.run(&["serve"]).await;
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.err.contains("moved"), "{refused:?}");
    let section = format!("database:\n{}", section.join("\n"));
    files.section = Some(section.replace("FILE", &in_home(&files, "password")));
    fs::write(files.path("password"), PASSWORD).unwrap();
    files.backends[0].lines.push("shared: true".to_owned());
    let server = files.serve().await;
    reads(&server.client(), "in files").await;
    server.stop().await;
    files.verify().await;
}
