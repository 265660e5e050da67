//! The command line: help, exit codes, and what reaches the running parts.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use anyhow::bail;
use orchestrator::admin::client::{AdminCall, AdminServer};
use orchestrator::cli::{CommandOutcome, Commands, Console, LogTarget, Report, ServeRequest, run};
use orchestrator::config::{BackendKindConfig, Config, Environment, NoEnvironment, load};

const VALID: &str = "server:\n  listen_addr: 127.0.0.1:0\nbuckets:\n  - name: b\n    \
                     credentials:\n      - token: hunter2\nbackends:\n  - kind: memory\n";

/// Notes what it is asked for; verify finds faults, and a restore fails.
#[derive(Default)]
struct Recorder {
    calls: RefCell<Vec<String>>,
    served: RefCell<Option<ServeRequest>>,
}

impl Recorder {
    fn note(&self, call: impl Into<String>) -> anyhow::Result<Report> {
        let call = call.into();
        self.calls.borrow_mut().push(call.clone());
        Ok(Report {
            text: format!("did {call}"),
            verdict: CommandOutcome::Sound,
        })
    }
}

impl Commands for Recorder {
    fn serve(&self, request: ServeRequest) -> anyhow::Result<()> {
        self.note("serve")?;
        *self.served.borrow_mut() = Some(request);
        Ok(())
    }
    fn connect(&self, _: &Config) -> anyhow::Result<Report> {
        self.note("connect")
    }
    fn backup(&self, _: &Config, to: &Path) -> anyhow::Result<Report> {
        self.note(format!("backup {}", to.display()))
    }
    fn verify(&self, _: &Config) -> anyhow::Result<Report> {
        Ok(Report {
            verdict: CommandOutcome::Faulty,
            ..self.note("verify")?
        })
    }
    fn migrate(&self, _: &Config, to: &engine::Server) -> anyhow::Result<Report> {
        self.note(format!("migrate {}", to.address()))
    }

    fn restored(&self, _: &Config) -> anyhow::Result<Report> {
        bail!("the catalogue is in use")
    }
    fn recover(&self, _: &Config, lone: engine::LoneUploads) -> anyhow::Result<Report> {
        self.note(match lone {
            engine::LoneUploads::Doubt => "recover",
            engine::LoneUploads::Adopt => "recover, adopt uploads",
        })
    }
    fn admin(&self, _: &AdminServer, _: &AdminCall) -> anyhow::Result<Vec<u8>> {
        bail!("not in these tests")
    }
}

pub(crate) struct Outcome {
    pub(crate) code: u8,
    pub(crate) out: String,
    pub(crate) err: String,
}

fn call(commands: &dyn Commands, args: &[&str]) -> Outcome {
    call_in(&NoEnvironment, commands, args)
}

pub(crate) fn call_in(env: &dyn Environment, commands: &dyn Commands, args: &[&str]) -> Outcome {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let console = Console {
        out: &mut out,
        err: &mut err,
        env,
    };
    let args = ["s3-orchestrator"].iter().chain(args).map(OsString::from);
    let code = run(args, commands, console);
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Outcome {
        code,
        out: text(out),
        err: text(err),
    }
}

/// A directory with a valid `config.yaml`, and the name of that file.
fn valid() -> (tempfile::TempDir, String) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("config.yaml");
    fs::write(&file, VALID).unwrap();
    let name = file.to_str().unwrap().to_owned();
    (dir, name)
}

/// Compares with a committed file; `UPDATE_GOLDEN=1` writes it instead.
pub(crate) fn golden(name: &str, text: &str) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/it/golden")
        .join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, text).unwrap();
    }
    let committed = fs::read_to_string(&file).unwrap_or_default();
    assert!(
        committed == text,
        "{} differs; look at it and run the test with UPDATE_GOLDEN=1\n{text}",
        file.display()
    );
}

#[test]
fn help_is_what_was_committed() {
    let mut text = String::new();
    for command in [
        &[][..],
        &["serve"],
        &["quickstart"],
        &["init"],
        &["validate"],
        &["version"],
        &["catalogue"],
        &["catalogue", "backup"],
        &["catalogue", "migrate"],
        &["catalogue", "verify"],
        &["catalogue", "restored"],
        &["reconcile"],
        &["admin"],
        &["admin", "status"],
        &["admin", "object-locations"],
        &["admin", "log-level"],
        &["completions"],
        &["man"],
    ] {
        let args = [command, &["--help"]].concat();
        let outcome = call(&Recorder::default(), &args);
        assert_eq!((outcome.code, outcome.err.as_str()), (0, ""));
        text.push_str(&format!(
            "$ s3-orchestrator {}\n{}\n",
            args.join(" "),
            outcome.out
        ));
    }
    golden("help.txt", &text);
}

#[test]
fn help_and_version_need_nothing() {
    for args in [
        &["help"][..],
        &["-h"],
        &["-help"],
        &["--version"],
        &["-version"],
        &["version"],
    ] {
        let outcome = call(&Recorder::default(), args);
        assert_eq!((outcome.code, outcome.err.as_str()), (0, ""), "{args:?}");
        assert!(outcome.out.contains("s3-orchestrator"), "{}", outcome.out);
    }
    let version = call(&Recorder::default(), &["version"]).out;
    assert_eq!(version.lines().count(), 1);
    assert!(
        version.contains(env!("CARGO_PKG_VERSION")) && version.contains('/'),
        "{version}"
    );
}

#[test]
fn wrong_arguments_exit_with_64() {
    for args in [
        &["frobnicate"][..],
        &["--frobnicate"],
        &["-confg", "x"],
        &["catalogue"],
        &["catalogue", "backup"],
        &["reconcile"],
        &["admin"],
        &["admin", "frobnicate"],
        &["admin", "object-locations"],
        &["admin", "status", "-key", "b/k"],
        &["completions", "csh"],
        &["-mode", "sideways"],
        &["-config", "x", "validate"],
        &["init", "--config", "/nowhere/at/all.yaml"],
        &[
            "init",
            "--config",
            "/nowhere/at/all.yaml",
            "--backend",
            "kind=ftp",
        ],
    ] {
        let recorder = Recorder::default();
        let outcome = call(&recorder, args);
        assert_eq!((outcome.code, outcome.out.as_str()), (64, ""), "{args:?}");
        assert!(!outcome.err.is_empty(), "{args:?}");
        assert!(recorder.calls.borrow().is_empty());
    }
}

#[test]
fn serve_is_what_happens_without_a_command() {
    let (_dir, file) = valid();
    for args in [
        &["-config", file.as_str()][..],
        &["--config", &file, "-mode", "all"],
        &["serve", "-config", &file],
        &["serve", &format!("-config={file}"), "-mode=all"],
    ] {
        let recorder = Recorder::default();
        let outcome = call(&recorder, args);
        assert_eq!((outcome.code, outcome.err.as_str()), (0, ""), "{args:?}");
        let request = recorder.served.take().unwrap();
        assert_eq!(request.config_file, Path::new(&file));
        assert_eq!(request.log, LogTarget::Stdout);
        assert!(request.listener.is_none() && request.announce.is_none());
    }
}

#[test]
fn without_a_configuration_the_ways_to_one_are_named() {
    let dir = tempfile::tempdir().unwrap();
    // The program itself, in an empty directory.
    for args in [&[][..], &["serve"], &["-config", "other.yaml"]] {
        let done = Command::new(env!("CARGO_BIN_EXE_s3-orchestrator"))
            .args(args)
            .current_dir(dir.path())
            .output()
            .unwrap();
        let err = String::from_utf8(done.stderr).unwrap();
        assert_eq!(done.status.code(), Some(64), "{err}");
        assert!(err.contains("quickstart") && err.contains("init"), "{err}");
        assert_eq!(err.lines().count(), 1);
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn modes_that_need_a_shared_database_are_refused_by_name() {
    let (_dir, file) = valid();
    for mode in ["api", "worker"] {
        let outcome = call(&Recorder::default(), &["-config", &file, "-mode", mode]);
        assert_eq!(outcome.code, 64);
        assert!(
            outcome.err.contains("database.driver: postgres"),
            "{}",
            outcome.err
        );
    }
}

#[test]
fn a_wrong_configuration_exits_with_64_whatever_the_command() {
    let (dir, file) = valid();
    fs::write(&file, format!("{VALID}xyzzy: 1\nplugh: 2\n")).unwrap();
    let to = dir.path().join("backup");
    for args in [
        &["serve"][..],
        &["validate"],
        &["validate", "-connect"],
        &["catalogue", "backup", "--to", to.to_str().unwrap()],
        &["catalogue", "verify"],
        &["catalogue", "restored"],
        &["reconcile", "-recover"],
    ] {
        let recorder = Recorder::default();
        let outcome = call(&recorder, &[args, &["--config", &file]].concat());
        assert_eq!((outcome.code, outcome.out.as_str()), (64, ""));
        let expected = format!("{file}:9: xyzzy: unknown key; remove it");
        assert!(outcome.err.starts_with(&expected), "{}", outcome.err);
        assert_eq!(outcome.err.lines().count(), 2);
        assert!(recorder.calls.borrow().is_empty());
    }
}

#[test]
fn validate_prints_what_the_file_says_and_no_secret() {
    let (_dir, file) = valid();
    fs::write(&file, format!("{VALID}ui:\n  admin_token: hunter2\n")).unwrap();
    let recorder = Recorder::default();
    let outcome = call(&recorder, &["validate", "-config", &file]);
    assert_eq!(outcome.code, 0);
    assert_eq!(
        outcome.out,
        format!(
            "{file} is valid.\nlistener: 127.0.0.1:0 (http)\ncatalogue: sqlite, \
             s3-orchestrator.db\nrouting: pack\nbackends: 1\n  backend-1: memory, gone at exit, no \
             quota\nbuckets: 1\n  b: 0 key pair(s), 1 token(s)\n"
        )
    );
    assert!(
        outcome
            .err
            .starts_with(&format!("warning: {file}:10: ui.admin_token: "))
    );
    assert!(recorder.calls.borrow().is_empty());
    assert!(!outcome.out.contains("hunter2") && !outcome.err.contains("hunter2"));
}

#[test]
fn commands_reach_the_running_parts_and_their_verdict_the_exit_code() {
    let (_dir, file) = valid();
    for (args, code, expected) in [
        (&["validate", "-connect"][..], 0, "connect"),
        (&["catalogue", "backup", "-to", "/x/y"], 0, "backup /x/y"),
        (
            &["catalogue", "migrate", "-to", "postgres://u:p@h:1/d"],
            0,
            "migrate postgres://h:1/d",
        ),
        (&["catalogue", "verify"], 1, "verify"),
        (&["reconcile", "-recover"], 0, "recover"),
        (
            &["reconcile", "--recover", "--adopt-uploads"],
            0,
            "recover, adopt uploads",
        ),
    ] {
        let recorder = Recorder::default();
        let outcome = call(&recorder, &[args, &["-config", &file]].concat());
        assert_eq!((outcome.code, outcome.err.as_str()), (code, ""), "{args:?}");
        assert_eq!(*recorder.calls.borrow(), [expected]);
        assert!(
            outcome.out.ends_with(&format!("did {expected}\n")),
            "{}",
            outcome.out
        );
    }
    let outcome = call(
        &Recorder::default(),
        &["catalogue", "restored", "-config", &file],
    );
    assert_eq!(
        (outcome.code, outcome.err.as_str()),
        (1, "the catalogue is in use\n")
    );
}

#[test]
fn init_writes_what_serve_accepts_and_only_its_owner_reads() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("new.yaml");
    let backends = [
        "kind=local,path=/srv/s3,quota=10GiB",
        "name=m,kind=local,path=/srv/m",
    ];
    let args = [
        "init",
        "-config",
        file.to_str().unwrap(),
        "-bucket",
        "photos",
        "-listen",
        ":9001",
        "-backend",
        backends[0],
        "-backend",
        backends[1],
    ];
    let outcome = call(&Recorder::default(), &args);
    assert_eq!((outcome.code, outcome.err.as_str()), (0, ""));
    assert_eq!(
        fs::metadata(&file).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let loaded = load(&file, &NoEnvironment).unwrap();
    assert_eq!(loaded.warnings, []);
    assert_eq!(loaded.config.server.listen_addr.port(), 9001);
    assert_eq!(loaded.config.buckets[0].name.as_str(), "photos");
    assert_eq!(loaded.config.backends[1].name.as_str(), "m");
    let text = fs::read_to_string(&file).unwrap();
    assert!(
        text.lines()
            .filter(|line| line.trim_start().starts_with('#'))
            .count()
            > 10
    );
}

#[test]
fn init_never_overwrites() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("config.yaml");
    let args = [
        "init",
        "-config",
        file.to_str().unwrap(),
        "--backend",
        "kind=local,path=/srv/s3",
    ];
    fs::write(&file, "mine").unwrap();
    let outcome = call(&Recorder::default(), &args);
    assert_eq!(outcome.code, 64);
    assert!(
        outcome.err.contains("is not overwritten"),
        "{}",
        outcome.err
    );
    assert_eq!(fs::read(&file).unwrap(), b"mine");
    // A link that leads nowhere is somebody's as well.
    fs::remove_file(&file).unwrap();
    std::os::unix::fs::symlink(dir.path().join("gone"), &file).unwrap();
    assert_eq!(call(&Recorder::default(), &args).code, 64);
    assert!(!dir.path().join("gone").exists());
}

#[test]
fn init_writes_nothing_that_serve_would_refuse() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("config.yaml");
    let backend = "kind=local,path=/srv/s3,quota=plenty";
    let args = [
        "init",
        "-config",
        file.to_str().unwrap(),
        "-bucket",
        "ui",
        "-backend",
        backend,
    ];
    let outcome = call(&Recorder::default(), &args);
    assert_eq!(outcome.code, 64);
    assert_eq!(outcome.err.lines().count(), 2, "{}", outcome.err);
    assert!(!file.exists());
}

#[test]
fn quickstart_prepares_serves_and_announces() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("s3o-data");
    let recorder = Recorder::default();
    let args = ["quickstart", "-dir", dir.to_str().unwrap()];
    let outcome = call(&recorder, &args);
    assert_eq!((outcome.code, outcome.err.as_str()), (0, ""));
    let request = recorder.served.take().unwrap();
    assert_eq!(request.config_file, dir.join("config.yaml"));
    assert_eq!(
        request.log,
        LogTarget::File(dir.join("s3-orchestrator.log"))
    );
    let port = request.listener.unwrap().local_addr().unwrap().port();
    assert_eq!(request.config.server.listen_addr.port(), port);
    let banner = request.announce.unwrap();
    for block in ["# aws-cli\n", "# rclone\n", "# boto3\n"] {
        assert_eq!(banner.matches(block).count(), 1);
    }
    assert!(banner.contains(&format!("http://127.0.0.1:{port}")));
    // The same keys on the next start, and a file that serve takes.
    call(&recorder, &args);
    let again = recorder.served.take().unwrap().announce.unwrap();
    let keys = |text: &str| -> HashMap<String, String> {
        text.lines()
            .filter_map(|line| line.trim().split_once(" key "))
            .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
            .collect()
    };
    assert_eq!(keys(&again), keys(&banner));
    assert_eq!(keys(&banner).len(), 2);
    let file = dir.join("config.yaml");
    let outcome = call(&recorder, &["serve", "-config", file.to_str().unwrap()]);
    assert_eq!((outcome.code, outcome.err.as_str()), (0, ""));
    let served = recorder.served.take().unwrap().config;
    assert!(served.backends.iter().all(|backend| matches!(&backend.kind,
        BackendKindConfig::Local { path, .. } if path.is_dir())));
}

#[test]
fn completions_and_manual_know_every_command() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let outcome = call(&Recorder::default(), &["completions", shell]);
        assert_eq!(outcome.code, 0);
        assert!(outcome.out.contains("quickstart") && outcome.out.contains("catalogue"));
    }
    let manual = call(&Recorder::default(), &["man"]).out;
    for page in [
        "s3-orchestrator ",
        "s3-orchestrator-serve ",
        "s3-orchestrator-catalogue-backup ",
    ] {
        assert_eq!(
            manual.matches(&format!(".TH {page}")).count(),
            1,
            "{page}\n{manual}"
        );
    }
    assert!(!manual.contains("s3-orchestrator-docs"));
}

#[test]
fn the_reference_of_keys_is_printed() {
    let outcome = call(&Recorder::default(), &["docs", "config"]);
    assert_eq!((outcome.code, outcome.err.as_str()), (0, ""));
    assert!(outcome.out.starts_with("# Configuration\n"));
}
