//! S3 servers that nobody here wrote, for the tests to talk to.
//!
//! [`Servers`] holds a running radosgw and a running s3s-fs. Their addresses and keys reach the
//! tests by environment variables (`S3O_TEST_RADOSGW`, `S3O_TEST_S3SFS`, each with `_ACCESS_KEY`
//! and `_SECRET_KEY`), and each has the buckets `test-0`, `test-1` and `test-2`. Everything lies in one
//! temporary folder and every process is killed when the value is dropped; should this process be
//! killed first, the kernel kills them, and the next start sweeps the folder away.

mod process;
mod radosgw;
mod s3s_fs;

use std::{
    fs::{self, File},
    path::Path,
    process::{Command, ExitCode},
};

use anyhow::{Context, Result};
use rustix::fs::{FlockOperation, flock};
use tempfile::TempDir;

pub(crate) use self::process::Timer;
use self::{process::Server, radosgw::Radosgw};
use crate::{
    cmd::{Workspace, succeed},
    tools,
};

const FOLDER_PREFIX: &str = "s3o-servers-";
const LOCK_FILE: &str = "lock";
const ACCESS_KEY: &str = "s3otestaccess";
const SECRET_KEY: &str = "s3o-test-secret-0123456789";
const BUCKETS: &[&str] = &["test-0", "test-1", "test-2"];

/// Two running servers. Field order is the order of destruction: processes, lock, folder.
pub(crate) struct Servers {
    radosgw: Radosgw,
    s3s_fs: (Server, u16),
    _lock: File,
    _folder: TempDir,
}

impl Servers {
    /// Starts both and returns once both have answered.
    pub(crate) fn start(workspace: &Workspace) -> Result<Self> {
        let timer = Timer::start();
        sweep();
        let folder = tempfile::Builder::new().prefix(FOLDER_PREFIX).tempdir()?;
        let lock = File::create(folder.path().join(LOCK_FILE))?;
        flock(&lock, FlockOperation::LockExclusive).context("locking the servers' folder")?;
        let s3s_fs = s3s_fs::start(&tools::s3s_fs(workspace), folder.path())?;
        let radosgw = Radosgw::start(folder.path())?;
        create_buckets(workspace, radosgw.port())?;
        let servers = Self {
            radosgw,
            s3s_fs,
            _lock: lock,
            _folder: folder,
        };
        println!(
            "servers: radosgw at {}, s3s-fs at {}, after {}",
            endpoint(servers.radosgw.port()),
            endpoint(servers.s3s_fs.1),
            timer.shown()
        );
        Ok(servers)
    }

    /// Tells a command where the servers are.
    pub(crate) fn export(&self, command: &mut Command) {
        let servers = [("RADOSGW", self.radosgw.port()), ("S3SFS", self.s3s_fs.1)];
        for (name, port) in servers {
            command.env(format!("S3O_TEST_{name}"), endpoint(port));
            command.env(format!("S3O_TEST_{name}_ACCESS_KEY"), ACCESS_KEY);
            command.env(format!("S3O_TEST_{name}_SECRET_KEY"), SECRET_KEY);
        }
    }
}

/// `cargo xtask servers --run -- CMD`: exits as CMD did.
pub(crate) fn run(workspace: &Workspace, command: &[&str]) -> Result<ExitCode> {
    let Some((program, args)) = command.split_first() else {
        return Ok(ExitCode::from(64));
    };
    let servers = Servers::start(workspace)?;
    let mut command = Command::new(program);
    servers.export(command.args(args));
    let status = command
        .status()
        .with_context(|| format!("starting {program}"))?;
    let code = status
        .code()
        .and_then(|code| u8::try_from(code).ok())
        .unwrap_or(1);
    Ok(ExitCode::from(code))
}

fn endpoint(port: u16) -> String {
    format!("http://127.0.0.1:{port}")
}

fn create_buckets(workspace: &Workspace, port: u16) -> Result<()> {
    let mut s3cmd = Command::new(tools::venv(workspace, "s3cmd"));
    s3cmd.args(["--config", "/dev/null", "--no-ssl", "--quiet"]);
    s3cmd.arg(format!("--host=127.0.0.1:{port}"));
    s3cmd.arg(format!("--host-bucket=127.0.0.1:{port}"));
    s3cmd.arg(format!("--access_key={ACCESS_KEY}"));
    s3cmd.arg(format!("--secret_key={SECRET_KEY}"));
    s3cmd
        .arg("mb")
        .args(BUCKETS.iter().map(|bucket| format!("s3://{bucket}")));
    succeed(&mut s3cmd).context("creating the test buckets")
}

/// Removes the folders of earlier runs that were killed. One whose lock is held is in use.
fn sweep() {
    let Ok(entries) = fs::read_dir(std::env::temp_dir()) else {
        return;
    };
    for entry in entries.flatten() {
        let ours = entry
            .file_name()
            .to_string_lossy()
            .starts_with(FOLDER_PREFIX);
        if ours && abandoned(&entry.path()) {
            // What cannot be removed belongs to another user, who sweeps it.
            fs::remove_dir_all(entry.path()).ok();
        }
    }
}

/// A folder without a lock file is one that another process is only just making.
fn abandoned(folder: &Path) -> bool {
    let Ok(lock) = File::open(folder.join(LOCK_FILE)) else {
        return false;
    };
    flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_abandoned_only_once_nobody_holds_its_lock() {
        let folder = tempfile::tempdir().unwrap();
        assert!(!abandoned(folder.path()), "no lock file yet: being made");
        let lock = File::create(folder.path().join(LOCK_FILE)).unwrap();
        flock(&lock, FlockOperation::LockExclusive).unwrap();
        assert!(!abandoned(folder.path()));
        drop(lock);
        assert!(abandoned(folder.path()));
    }
}
