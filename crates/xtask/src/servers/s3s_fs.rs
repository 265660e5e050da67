//! s3s-fs: an S3 server over a directory; a bucket is a folder in it.

use std::{fs, path::Path, process::Command};

use anyhow::{Result, bail};

use super::{
    ACCESS_KEY, BUCKETS, SECRET_KEY,
    process::{Server, free_ports},
};

/// Starts it with its data under `folder` and returns it with its port.
pub(super) fn start(program: &Path, folder: &Path) -> Result<(Server, u16)> {
    if !program.is_file() {
        bail!("no s3s-fs; `cargo xtask tools --install` gets it");
    }
    let data = folder.join("s3s-fs");
    for bucket in BUCKETS {
        fs::create_dir_all(data.join(bucket))?;
    }
    let [port] = free_ports()?;
    let mut command = Command::new(program);
    command.args(["--host", "127.0.0.1", "--port", &port.to_string()]);
    command
        .args(["--access-key", ACCESS_KEY, "--secret-key", SECRET_KEY])
        .arg(&data);
    let mut server = Server::spawn("s3s-fs", &command, folder)?;
    server.wait_for_http(port)?;
    Ok((server, port))
}
