//! What is measured: the backend itself, nginx in front of it, and the program in front of it.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, ChildStderr, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use testbed::Database;

use crate::processes::Processes;
use crate::secured::Certificate;
use crate::target::Target;

/// How long a start or an end may take.
const PATIENCE: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(20);
const ACCESS_KEY: &str = "bench";
const SECRET: &str = "secret-of-the-benchmark";
/// The virtual bucket.
pub(crate) const BUCKET: &str = "bucket";

/// A process that ends with the value.
#[derive(Debug)]
pub(crate) struct Running {
    child: Child,
    pub(crate) addr: SocketAddr,
}

impl Running {
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its standard input and standard error, where they are pipes.
    pub(crate) fn pipes(&mut self) -> Option<(ChildStdin, ChildStderr)> {
        Some((self.child.stdin.take()?, self.child.stderr.take()?))
    }

    /// Ends it as an operator does.
    pub(crate) fn stop(mut self) -> Result<()> {
        self.signal(Signal::TERM);
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait()? {
                if status.success() {
                    return Ok(());
                }
                bail!("a process ended with {status}");
            }
            std::thread::sleep(LOOK_EVERY);
        }
        bail!("a process does not end");
    }

    fn signal(&self, signal: Signal) {
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            let _gone_already = kill_process(pid, signal);
        }
    }

    /// Waits until somebody listens.
    fn listens(mut self) -> Result<Self> {
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect(self.addr).is_err() {
            if let Some(status) = self.child.try_wait()? {
                bail!("it ended with {status}");
            }
            if Instant::now() > deadline {
                bail!("it does not listen");
            }
            std::thread::sleep(LOOK_EVERY);
        }
        Ok(self)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // The master of nginx takes its workers along.
        self.signal(Signal::TERM);
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(LOOK_EVERY);
        }
        let _gone_already = self.child.kill();
        let _gone_already = self.child.wait();
    }
}

fn free_addr() -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").context("looking for a free port")?;
    Ok(listener.local_addr()?)
}

/// A program that the kernel ends together with us.
pub(crate) fn command(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    command.stdin(Stdio::null());
    command
}

/// The backend, in a process of its own.
pub(crate) fn sink(tls: Option<&Certificate>) -> Result<Running> {
    let this = std::env::current_exe().context("looking for this program")?;
    let mut child = command(&this)
        .arg("sink")
        .args(tls.into_iter().flat_map(|tls| [&tls.cert, &tls.key]))
        .stdout(Stdio::piped())
        .spawn()
        .context("starting the backend")?;
    let out = child.stdout.take().context("the backend has an output")?;
    let mut line = String::new();
    BufReader::new(out).read_line(&mut line)?;
    let addr = line
        .trim()
        .parse()
        .context("reading where the backend is")?;
    Ok(Running { child, addr })
}

/// What nginx does.
pub(crate) enum Nginx<'a> {
    /// It hands everything on to a backend, and changes nothing.
    Proxy(SocketAddr),
    /// The same, over TLS to the client.
    Tls(SocketAddr, &'a Certificate),
    /// It stores what it is sent in files.
    WebDav,
}

impl Nginx<'_> {
    /// Starts it in a folder of its own.
    pub(crate) fn start(&self, folder: &Path) -> Result<Running> {
        fs::create_dir_all(folder.join("logs"))?;
        let addr = free_addr()?;
        // Only root may say who the workers are, and elsewhere they are who we are.
        let user = match rustix::process::geteuid().is_root() {
            true => "user root;\n",
            false => "",
        };
        let proxy = |backend: &SocketAddr| {
            format!(
                "upstream backend {{ server {backend}; keepalive 256; keepalive_requests \
                 1000000000; }}\n"
            )
        };
        const HAND_ON: &str = "proxy_pass http://backend;\n proxy_http_version 1.1;\n \
            proxy_set_header Connection \"\";\n proxy_set_header Host $http_host;\n \
            proxy_request_buffering off;\n proxy_max_temp_file_size 0;\n";
        let (upstream, listen, location) = match self {
            Self::Proxy(backend) => (proxy(backend), String::new(), HAND_ON),
            Self::Tls(backend, tls) => {
                let (cert, key) = (tls.cert.display(), tls.key.display());
                let listen = format!(";\n ssl_certificate {cert};\n ssl_certificate_key {key}");
                (proxy(backend), format!("ssl{listen}"), HAND_ON)
            }
            Self::WebDav => {
                let store = "root files;\n sendfile on;\n dav_methods PUT DELETE;\n \
                    create_full_put_path on;\n";
                fs::create_dir_all(folder.join("files"))?;
                (String::new(), String::new(), store)
            }
        };
        let config = format!(
            "{user}daemon off;\nworker_processes auto;\npid nginx.pid;\nerror_log logs/error.log;\n\
             events {{ worker_connections 4096; }}\n\
             http {{\n access_log off;\n client_body_temp_path body;\n proxy_temp_path proxy;\n \
             fastcgi_temp_path fastcgi;\n uwsgi_temp_path uwsgi;\n scgi_temp_path scgi;\n \
             proxy_buffer_size 64k;\n proxy_buffers 32 64k;\n proxy_busy_buffers_size 256k;\n \
             client_body_buffer_size 256k;\n \
             keepalive_requests 1000000000;\n client_max_body_size 0;\n tcp_nodelay on;\n \
             {upstream}server {{\n listen {addr} backlog=1024 {listen};\n \
             location / {{\n {location}}}\n}}\n}}\n"
        );
        let file = folder.join("nginx.conf");
        fs::write(&file, config)?;
        let child = command(Path::new("/usr/sbin/nginx"))
            .args(["-e", "logs/error.log", "-p"])
            .arg(folder)
            .arg("-c")
            .arg("nginx.conf")
            .current_dir(folder)
            .spawn()
            .context("starting nginx")?;
        let listens = Running { child, addr }.listens();
        listens.context("nginx (`cargo xtask tools --install` gets it)")
    }
}

/// Where the catalogue of a program lies.
#[derive(Debug)]
pub(crate) enum Catalogue<'a> {
    File,
    Postgres(&'a Database),
}

/// The program over one backend in a folder of its own.
pub(crate) struct Program {
    pub(crate) running: Running,
}

/// What a program's configuration says of its backend.
pub(crate) fn s3_backend(backend: SocketAddr) -> String {
    format!(
        "- name: sink\n  endpoint: http://{backend}\n  bucket: provider\n  \
         access_key_id: provider\n  secret_access_key: secret-of-the-provider\n"
    )
}

impl Program {
    /// Starts what a command of [`command`] runs.
    pub(crate) fn start(
        mut command: Command,
        folder: &Path,
        catalogue: &Catalogue<'_>,
        backends: &str,
        tls: Option<&Certificate>,
    ) -> Result<Self> {
        fs::create_dir_all(folder)?;
        let addr = free_addr()?;
        let database = match catalogue {
            Catalogue::File => format!("  path: {}\n", folder.join("catalogue.db").display()),
            Catalogue::Postgres(database) => format!(
                "  host: 127.0.0.1\n  port: {}\n  database: {}\n  user: {}\n  ssl_mode: disable\n",
                database.port,
                database.name,
                Database::USER
            ),
        };
        let tls = tls.map(|tls| {
            let (cert, key) = (tls.cert.display(), tls.key.display());
            format!("  tls:\n    cert_file: {cert}\n    key_file: {key}\n")
        });
        let tls = tls.unwrap_or_default();
        let config = format!(
            "server:\n  listen_addr: {addr}\n{tls}database:\n{database}buckets:\n- name: {BUCKET}\n  \
             credentials:\n  - access_key_id: {ACCESS_KEY}\n    secret_access_key: {SECRET}\n\
             backends:\n{backends}cleanup_queue:\n  read_grace: 1s\n\
             telemetry:\n  metrics:\n    enabled: true\n"
        );
        let file = folder.join("config.yaml");
        File::create(&file)?.write_all(config.as_bytes())?;
        let log = File::create(folder.join("log"))?;
        let child = command
            .arg("serve")
            .arg("--config")
            .arg(&file)
            .stdout(log)
            .spawn()
            .with_context(|| format!("starting {command:?}"))?;
        let running = Running { child, addr }.listens();
        let running = running.with_context(|| {
            let log = fs::read_to_string(folder.join("log"));
            format!("{command:?}: {}", log.unwrap_or_default())
        })?;
        Ok(Self { running })
    }

    pub(crate) fn target(&self, name: &str) -> Result<Target> {
        Target::new(name, self.running.addr, BUCKET, ACCESS_KEY, SECRET)
    }
}

/// One of those that are compared.
pub(crate) struct Contender {
    pub(crate) target: Target,
    /// What stands between the load and the backend, each by itself.
    pub(crate) processes: Vec<Processes>,
    /// Where deletions go on after the answer.
    pub(crate) has_queue: bool,
}

impl Contender {
    /// One that has answered when it answers; `process` is what stands in between.
    pub(crate) fn without_queue(target: Target, process: Option<&Running>) -> Self {
        let processes = process.map(|running| Processes::new(&[running.pid()]));
        Self {
            target,
            processes: processes.into_iter().collect(),
            has_queue: false,
        }
    }
}

/// A backend that looks at no signature.
pub(crate) fn open_target(name: &str, addr: SocketAddr) -> Result<Target> {
    Target::new(name, addr, "provider", ACCESS_KEY, SECRET)
}

/// `NAME=URL,KEY,SECRET`: another S3 endpoint, with a bucket of our name.
pub(crate) fn foreign(text: &str) -> Result<Target> {
    let usage = || format!("--against {text}: it takes NAME=URL,KEY,SECRET");
    let (name, rest) = text.split_once('=').with_context(usage)?;
    let mut rest = rest.splitn(3, ',');
    let mut next = || {
        rest.next()
            .filter(|text| !text.is_empty())
            .with_context(usage)
    };
    let (url, key, secret) = (next()?, next()?, next()?);
    let host = url.strip_prefix("http://").with_context(usage)?;
    let (host, bucket) = host
        .trim_end_matches('/')
        .split_once('/')
        .unwrap_or((host, BUCKET));
    let mut addrs = std::net::ToSocketAddrs::to_socket_addrs(host).with_context(usage)?;
    let addr = addrs.next().with_context(usage)?;
    Target::new(name, addr, bucket.trim_end_matches('/'), key, secret)
}
