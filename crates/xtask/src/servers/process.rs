//! Child processes that cannot outlive us, and waiting for them.

#![expect(
    clippy::disallowed_methods,
    reason = "real processes are waited for in real time; no test of ours pauses this clock"
)]

use std::{
    fs::{self, File},
    io::{Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process_group};

/// How long a server may take until its first answer.
const START_WAIT: Duration = Duration::from_secs(120);
const POLL_INTERVAL: Duration = Duration::from_millis(50);
/// One answer to the poll; a server that accepts and stays silent must not stop the polling.
const ANSWER_WAIT: Duration = Duration::from_secs(2);
/// Ports are looked for below the range that the kernel gives to outgoing connections.
const PORT_MIN: u32 = 20_000;
const PORT_MAX: u32 = 32_000;
const LOG_TAIL_LINES: usize = 15;

/// Time since a moment, for people to read.
pub(crate) struct Timer(Instant);

impl Timer {
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }

    pub(crate) fn shown(&self) -> String {
        format!("{:.1} s", self.0.elapsed().as_secs_f64())
    }
}

/// A running server in a process group of its own; the whole group is killed on drop. None of
/// them holds anything worth a clean shutdown.
pub(super) struct Server {
    name: &'static str,
    child: Child,
    log: PathBuf,
}

impl Server {
    /// Starts the program with its output going to a file in `folder`.
    pub(super) fn spawn(name: &'static str, command: &Command, folder: &Path) -> Result<Self> {
        let log = folder.join(format!("{name}.out"));
        let output = File::create(&log).with_context(|| format!("creating {}", log.display()))?;
        // The kernel ends the server when we are killed: no clean-up of ours would run then.
        let mut wrapped = Command::new("setpriv");
        wrapped.args(["--pdeathsig", "KILL", "--"]);
        wrapped
            .arg(command.get_program())
            .args(command.get_args())
            .current_dir(folder);
        for (key, value) in command.get_envs() {
            match value {
                Some(value) => wrapped.env(key, value),
                None => wrapped.env_remove(key),
            };
        }
        let child = wrapped
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .with_context(|| format!("starting {name}"))?;
        Ok(Self { name, child, log })
    }

    /// Fails with the end of its output if the server has ended.
    pub(super) fn check_alive(&mut self) -> Result<()> {
        let Some(status) = self.child.try_wait()? else {
            return Ok(());
        };
        bail!("{} ended: {status}\n{}", self.name, self.log_tail());
    }

    /// Waits until the server answers HTTP at all.
    pub(super) fn wait_for_http(&mut self, port: u16) -> Result<()> {
        let begun = Instant::now();
        while !answers_http(port) {
            self.check_alive()?;
            if begun.elapsed() > START_WAIT {
                bail!(
                    "{} does not answer on port {port}\n{}",
                    self.name,
                    self.log_tail()
                );
            }
            thread::sleep(POLL_INTERVAL);
        }
        Ok(())
    }

    fn log_tail(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(LOG_TAIL_LINES)..].join("\n")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        if let Some(pid) = pid {
            // An error means that the group has ended already.
            kill_process_group(pid, Signal::KILL).ok();
        }
        self.child.wait().ok();
    }
}

/// Ports that nobody listens on now, each a different one.
pub(super) fn free_ports<const N: usize>() -> Result<[u16; N]> {
    let span = PORT_MAX - PORT_MIN;
    // Runs that start at the same time begin to look at different places.
    let first = std::process::id().wrapping_mul(37) % span;
    let mut found = (0..span)
        .filter_map(|step| u16::try_from(PORT_MIN + (first + step) % span).ok())
        .filter(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok());
    let mut ports = [0; N];
    for port in &mut ports {
        *port = found.next().context("no free port")?;
    }
    Ok(ports)
}

fn answers_http(port: u16) -> bool {
    let Ok(mut stream) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)) else {
        return false;
    };
    stream.set_read_timeout(Some(ANSWER_WAIT)).ok();
    let request = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let mut head = [0; 5];
    stream.write_all(request).is_ok() && stream.read_exact(&mut head).is_ok() && head == *b"HTTP/"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_server_is_gone_with_all_its_children() {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "sleep 600 & echo $! > child; wait"]);
        let server = Server::spawn("sleeper", &command, folder.path()).unwrap();
        let file = folder.path().join("child");
        let child = loop {
            let text = fs::read_to_string(&file).unwrap_or_default();
            if let Ok(pid) = text.trim().parse::<u32>() {
                break pid;
            }
            thread::yield_now();
        };
        drop(server);
        // The orphan is reaped by init or stays a zombie; in no case does it run on.
        while let Ok(stat) = fs::read_to_string(format!("/proc/{child}/stat")) {
            if stat.contains(") Z ") {
                break;
            }
            thread::yield_now();
        }
    }

    #[test]
    fn a_server_that_ends_at_once_is_reported_with_its_last_words() {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "echo no disk today; exit 3"]);
        let mut server = Server::spawn("brief", &command, folder.path()).unwrap();
        let [port] = free_ports().unwrap();
        let error = server.wait_for_http(port).unwrap_err().to_string();
        assert!(error.contains("brief ended"), "{error}");
        assert!(error.contains("no disk today"), "{error}");
    }

    #[test]
    fn free_ports_are_distinct_and_free() {
        let ports: [u16; 4] = free_ports().unwrap();
        for (n, port) in ports.iter().enumerate() {
            assert!(!ports[..n].contains(port));
        }
    }
}
