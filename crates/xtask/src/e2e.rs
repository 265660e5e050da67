//! Real S3 clients against the real program: `e2e/run.py`, in the Python of the tools folder.

use anyhow::Result;

use crate::{
    cmd::{Workspace, succeed},
    servers::Servers,
    tools,
};

/// Builds the program and hands it to the script together with two foreign S3 servers.
///
/// A debug build: the steps before this one have compiled nearly all of it, the hash and database
/// crates are optimised in that profile too, and debug assertions stay on.
pub(crate) fn run(workspace: &Workspace, args: &[&str]) -> Result<()> {
    let build = [
        "build",
        "--locked",
        "--package",
        "orchestrator",
        "--bin",
        "s3-orchestrator",
    ];
    succeed(workspace.cargo().args(build))?;
    let binary = workspace.target().join("debug").join("s3-orchestrator");
    let servers = Servers::start(workspace)?;
    let mut script = workspace.command(tools::venv(workspace, "python"));
    script
        .arg("e2e/run.py")
        .arg("--binary")
        .arg(binary)
        .args(args);
    script.env("PYTHONDONTWRITEBYTECODE", "1");
    servers.export(&mut script);
    succeed(&mut script)
}
