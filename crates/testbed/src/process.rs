//! Processes and ports.

use std::ffi::OsStr;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;

use tempfile::TempDir;

/// Who runs what refuses to be run by root, in the order of preference.
const UNPRIVILEGED: [&str; 2] = ["postgres", "nobody"];

/// A temporary folder that is known to be ours; those of processes that are gone are swept away.
pub(crate) fn folder(prefix: &str) -> TempDir {
    sweep(prefix);
    tempfile::Builder::new()
        .prefix(&format!("{prefix}{}-", std::process::id()))
        .tempdir()
        .expect("there is room for a temporary folder")
}

/// Shared servers' folders outlive their tests, because the kernel ends the process.
fn sweep(prefix: &str) {
    let entries = std::fs::read_dir(std::env::temp_dir())
        .into_iter()
        .flatten();
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(rest) = name.to_str().and_then(|name| name.strip_prefix(prefix)) else {
            continue;
        };
        let owner = rest.split('-').next().unwrap_or_default();
        if owner.parse::<u32>().is_ok() && !Path::new("/proc").join(owner).exists() {
            let _another_sweeps_too = std::fs::remove_dir_all(entry.path());
        }
    }
}

/// A port that nobody listens on.
pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("the loopback has a free port");
    listener
        .local_addr()
        .expect("a listener has an address")
        .port()
}

/// The user and group to run as, where this process is root.
fn unprivileged() -> Option<&'static str> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let exists = |name: &&&str| {
        users
            .lines()
            .any(|line| line.split(':').next() == Some(**name))
    };
    UNPRIVILEGED.iter().find(exists).copied()
}

/// A command as somebody who is not root. The kernel ends what it starts together with the thread that
/// starts it.
pub(crate) fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL"]);
    if let Some(user) = unprivileged() {
        command.args([
            "--reuid",
            user,
            "--regid",
            &group_of(user),
            "--clear-groups",
        ]);
    }
    command.arg("--").arg(program).stdin(Stdio::null());
    command
}

fn group_of(user: &str) -> String {
    let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let line = users
        .lines()
        .find(|line| line.split(':').next() == Some(user));
    line.and_then(|line| line.split(':').nth(3))
        .unwrap_or("65534")
        .to_owned()
}

/// Gives a folder to whoever runs the servers.
pub(crate) fn hand_over(folder: &Path) {
    if let Some(user) = unprivileged() {
        run(Command::new("chown").arg("-R").arg(user).arg(folder));
    }
}

/// Runs a command to its end; its output is shown where it fails.
pub(crate) fn run(command: &mut Command) {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?} cannot be run: {error}"));
    assert!(
        output.status.success(),
        "{command:?} failed:\n{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

/// A running process; killed with the value.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    /// Ends the thread that started the process.
    _keeper: mpsc::Sender<()>,
}

impl Process {
    /// The kernel ends the process together with the thread that starts it, so that one is kept.
    pub(crate) fn start(mut command: Command) -> Self {
        let (started, child) = mpsc::channel();
        let (keeper, kept) = mpsc::channel::<()>();
        std::thread::spawn(move || {
            let child = command
                .spawn()
                .expect("setpriv can be run: install the Debian package util-linux");
            let _nobody_waits = started.send(child);
            let _ended = kept.recv();
        });
        Self {
            child: child.recv().expect("the process starts"),
            _keeper: keeper,
        }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().is_ok_and(|ended| ended.is_some())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _gone_already = self.child.kill();
        let _gone_already = self.child.wait();
    }
}
