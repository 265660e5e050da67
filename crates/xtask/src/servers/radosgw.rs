//! The smallest Ceph that serves S3: one monitor, one object store daemon that keeps everything in
//! memory, and the gateway, without authentication between the three.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use super::{
    ACCESS_KEY, SECRET_KEY,
    process::{Server, free_ports},
};
use crate::cmd::printed;

/// Bounds what tests may store, not what is taken from the machine at start.
const MEMORY_BYTES_MAX: u64 = 6 << 30;
const COMMAND_WAIT_S: u32 = 60;

/// Three processes. Field order is the order in which they are killed.
pub(super) struct Radosgw {
    _gateway: Server,
    _osd: Server,
    _monitor: Server,
    port: u16,
}

impl Radosgw {
    /// Builds the cluster under `folder` and waits until the gateway serves its one user.
    pub(super) fn start(folder: &Path) -> Result<Self> {
        let cluster = Cluster::create(&folder.join("ceph"))?;
        let monitor = cluster.monitor()?;
        let osd = cluster.osd()?;
        let mut gateway = cluster.spawn("radosgw", &["-n", "client.rgw"])?;
        gateway.wait_for_http(cluster.port)?;
        cluster.create_user()?;
        Ok(Self {
            _gateway: gateway,
            _osd: osd,
            _monitor: monitor,
            port: cluster.port,
        })
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }
}

struct Cluster {
    folder: PathBuf,
    fsid: String,
    monitor_addresses: String,
    port: u16,
}

impl Cluster {
    fn create(folder: &Path) -> Result<Self> {
        for name in ["mon", "osd", "rgw", "run", "log"] {
            fs::create_dir_all(folder.join(name))?;
        }
        let [v1, v2, port] = free_ports()?;
        let cluster = Self {
            folder: folder.to_path_buf(),
            fsid: random_uuid()?,
            monitor_addresses: format!("[v2:127.0.0.1:{v2},v1:127.0.0.1:{v1}]"),
            port,
        };
        fs::write(folder.join("ceph.conf"), cluster.configuration())?;
        Ok(cluster)
    }

    fn configuration(&self) -> String {
        let Self {
            folder,
            fsid,
            monitor_addresses,
            port,
        } = self;
        let folder = folder.display();
        // The gateway would insist on encrypted talk with the monitor, which needs the keys that
        // `none` does without: hence the line on `ms mon client mode`.
        format!(
            "[global]\n\
             fsid = {fsid}\n\
             mon initial members = a\n\
             mon host = {monitor_addresses}\n\
             auth cluster required = none\n\
             auth service required = none\n\
             auth client required = none\n\
             ms mon client mode = crc\n\
             public addr = 127.0.0.1\n\
             cluster addr = 127.0.0.1\n\
             osd pool default size = 1\n\
             osd pool default min size = 1\n\
             osd pool default pg num = 4\n\
             osd pool default pg autoscale mode = off\n\
             mon allow pool size one = true\n\
             osd crush chooseleaf type = 0\n\
             osd objectstore = memstore\n\
             memstore device bytes = {MEMORY_BYTES_MAX}\n\
             mon data = {folder}/mon\n\
             osd data = {folder}/osd\n\
             rgw data = {folder}/rgw\n\
             run dir = {folder}/run\n\
             admin socket = {folder}/run/$name.asok\n\
             log file = {folder}/log/$name.log\n\
             pid file =\n\
             rgw frontends = beast endpoint=127.0.0.1:{port}\n\
             rgw dns name = localhost\n"
        )
    }

    fn monitor(&self) -> Result<Server> {
        let map = self.folder.join("monmap").display().to_string();
        let mut tool = self.command("monmaptool");
        tool.args([
            "--create",
            "--fsid",
            &self.fsid,
            "--addv",
            "a",
            &self.monitor_addresses,
            &map,
        ]);
        printed(&mut tool)?;
        printed(
            self.ceph("ceph-mon")
                .args(["-i", "a", "--mkfs", "--monmap", &map]),
        )?;
        self.spawn("ceph-mon", &["-i", "a"])
    }

    fn osd(&self) -> Result<Server> {
        let uuid = random_uuid()?;
        let wait = COMMAND_WAIT_S.to_string();
        printed(
            self.ceph("ceph")
                .args(["--connect-timeout", &wait, "osd", "new", &uuid]),
        )?;
        printed(
            self.ceph("ceph-osd")
                .args(["-i", "0", "--mkfs", "--osd-uuid", &uuid]),
        )?;
        self.spawn("ceph-osd", &["-i", "0"])
    }

    fn create_user(&self) -> Result<()> {
        let mut admin = self.ceph("radosgw-admin");
        admin.args(["user", "create", "--uid=test", "--display-name=test"]);
        admin
            .arg(format!("--access-key={ACCESS_KEY}"))
            .arg(format!("--secret-key={SECRET_KEY}"));
        printed(&mut admin).context("creating the gateway's user")?;
        Ok(())
    }

    fn spawn(&self, program: &'static str, args: &[&str]) -> Result<Server> {
        Server::spawn(
            program,
            self.ceph(program).arg("-f").args(args),
            &self.folder,
        )
    }

    fn ceph(&self, program: &str) -> Command {
        let mut command = self.command(program);
        command.arg("-c").arg(self.folder.join("ceph.conf"));
        command
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        // A developer's own cluster must not leak in.
        command
            .env_remove("CEPH_ARGS")
            .env_remove("CEPH_CONF")
            .current_dir(&self.folder);
        command
    }
}

fn random_uuid() -> Result<String> {
    let uuid = fs::read_to_string("/proc/sys/kernel/random/uuid").context("drawing a uuid")?;
    Ok(uuid.trim().to_owned())
}
