//! The running program: built from its configuration in order, taken down in reverse.
//!
//! Up: telemetry, certificates, sockets (bound, so that a wrong address is noticed before anything
//! else is touched), engine, workers, front, and only then the first request. Down: not ready, a
//! pause for load balancers to notice, no new connections, the requests under way, workers, engine,
//! log.

mod files;
mod reload;
mod settings;
mod signals;

use std::io::{self, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use base::{Clock, Ids, SystemClock};
use engine::{Engine, Role, Settings};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tracing::{error, info, warn};

use crate::config::{Config, ListenAddr};
use crate::front::{
    Access, Cores, Door, Front, FrontParts, Listener, NoRandomness, Stopper, Telemetry, Tls,
    TlsError,
};
use crate::telemetry::Recorder;
use crate::telemetry::audit::Audit;
use crate::telemetry::log::{Destination, Log, LogControl, LogError, LogOptions};
use crate::telemetry::metrics::Metrics;

pub use settings::{SettingsError, engine_settings};
use signals::{OperatorSignal, Signals};

/// How long workers may take to end their step at shutdown.
const WORKERS_STOP_MAX: Duration = Duration::from_secs(10);

/// Why the program could not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// The log cannot be written.
    #[error("setting up the log")]
    Log(#[from] LogError),
    /// Signals cannot be received.
    #[error("waiting for signals")]
    Signals(#[source] io::Error),
    /// The threads that serve connections cannot be had.
    #[error("starting the threads that serve connections")]
    Threads(#[source] io::Error),
    /// An address cannot be had.
    #[error("listening on {addr}")]
    Listen {
        /// Which.
        addr: String,
        /// Why not.
        source: io::Error,
    },
    /// The certificates cannot be used.
    #[error("setting up TLS")]
    Tls(#[from] TlsError),
    /// The configuration of a backend cannot be used.
    #[error("setting up the backends")]
    Settings(#[from] SettingsError),
    /// The engine did not start, or not stop.
    #[error("running the engine")]
    Engine(#[from] engine::StartError),
    /// The system has no randomness.
    #[error("setting up the credentials")]
    Access(#[from] NoRandomness),
    /// A second signal came before everything had ended.
    #[error("interrupted while stopping")]
    Interrupted,
}

/// What to serve.
#[derive(Debug)]
pub struct ServeOptions {
    /// The configuration.
    pub config: Config,
    /// Where it came from; read again at a reload.
    pub config_file: Option<PathBuf>,
    /// Where log lines go.
    pub log: Destination,
    /// A socket that is bound already, instead of `server.listen_addr`.
    pub listener: Option<TcpListener>,
    /// Printed to standard output as soon as requests are answered.
    pub announce: Option<String>,
    /// Which parts run.
    pub role: Role,
}

/// Serves until a signal says otherwise.
///
/// The log becomes that of the process.
pub async fn serve(options: ServeOptions) -> Result<(), AppError> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let log = LogOptions {
        level: options.config.server.log_level,
        format: options.config.server.log_format,
        destination: options.log,
    };
    let (control, _) = Log::open(&log, Arc::clone(&clock))?.install();
    files::raise_limit();
    let mut signals = Signals::new().map_err(AppError::Signals)?;
    let parts = AppParts {
        config: options.config,
        config_file: options.config_file,
        clock,
        listener: options.listener,
        log: Some(control.clone()),
        role: options.role,
    };
    let ended = run(parts, options.announce, &mut signals).await;
    if let Err(error) = &ended {
        error!(error = %base::report(error), "stopped by an error");
    }
    control.flush();
    ended
}

async fn run(
    parts: AppParts,
    announce: Option<String>,
    signals: &mut Signals,
) -> Result<(), AppError> {
    let mut app = tokio::select! {
        started = App::start(parts) => started?,
        () = signals.stop() => return Err(AppError::Interrupted),
    };
    if let Some(text) = announce {
        // Whoever closed standard output does not want to read it.
        let _ = io::stdout()
            .write_all(text.as_bytes())
            .and_then(|()| io::stdout().flush());
    }
    while signals.next().await == OperatorSignal::Reload {
        app.reload();
    }
    info!("stopping");
    tokio::select! {
        stopped = app.stop() => stopped,
        () = signals.stop() => Err(AppError::Interrupted),
    }
}

/// What an app is made of.
#[derive(Debug)]
pub struct AppParts {
    /// The configuration.
    pub config: Config,
    /// Where it came from; without it, a reload reads certificates only.
    pub config_file: Option<PathBuf>,
    /// The time of day.
    pub clock: Arc<dyn Clock>,
    /// A socket that is bound already.
    pub listener: Option<TcpListener>,
    /// The log, for its level.
    pub log: Option<LogControl>,
    /// Which parts run.
    pub role: Role,
}

/// The running program.
#[derive(Debug)]
pub struct App {
    config: Config,
    config_file: Option<PathBuf>,
    clock: Arc<dyn Clock>,
    log: Option<LogControl>,
    engine: Engine,
    front: Arc<Front>,
    tls: Option<Arc<Tls>>,
    s3: Served,
    pages: Option<Served>,
    /// Ends last: connections to the database may live there.
    cores: Arc<Cores>,
    stop_workers: watch::Sender<bool>,
    workers: Task,
}

/// A listener at work.
#[derive(Debug)]
struct Served {
    addr: SocketAddr,
    stopper: Stopper,
    task: Task,
}

/// A task with a name, so that one that does not end can be told from the others.
#[derive(Debug)]
struct Task {
    name: &'static str,
    handle: JoinHandle<()>,
}

impl Task {
    fn spawn(name: &'static str, work: impl Future<Output = ()> + Send + 'static) -> Self {
        Self {
            name,
            handle: tokio::spawn(work),
        }
    }

    /// Waits for its end; whether it came in time.
    async fn join(&mut self, patience: Duration) -> bool {
        match timeout(patience, &mut self.handle).await {
            Ok(Ok(())) => true,
            Ok(Err(error)) => {
                error!(task = self.name, error = %error, "task panicked");
                true
            }
            Err(_) => false,
        }
    }
}

impl App {
    /// Starts everything; requests are answered when this returns.
    pub async fn start(parts: AppParts) -> Result<Self, AppError> {
        let AppParts {
            config,
            config_file,
            clock,
            listener,
            log,
            role,
        } = parts;
        let metrics = Arc::new(Metrics::new());
        let audit = Audit::new(Arc::clone(&metrics));
        let recorder = Recorder::new(Arc::clone(&metrics), audit.clone(), Arc::clone(&clock));
        let telemetry = Telemetry { metrics, audit };
        let tls = match &config.server.tls {
            None => None,
            Some(settings) => Some(Arc::new(Tls::load(settings, clock.now())?)),
        };
        let socket = bind_s3(&config, listener, tls.clone()).await?;
        let pages = bind_pages(&config).await?;
        let cores = Arc::new(Cores::start().map_err(AppError::Threads)?);
        let ids = Arc::new(Ids::new(Arc::clone(&clock)));
        let settings = Settings {
            role,
            ..engine_settings(&config)?
        };
        let access = Access::new(&config)?;
        let engine = Engine::start(settings, Arc::clone(&clock), ids, Arc::new(recorder)).await?;
        let (stop_workers, stopping) = watch::channel(false);
        let work = engine.clone();
        let workers = Task::spawn("workers", async move { work.run_workers(stopping).await });
        let main = match role {
            Role::All | Role::Api => Door::S3,
            Role::Worker => Door::Worker,
        };
        let door = if pages.is_some() { Door::Pages } else { main };
        let front = Front::new(FrontParts {
            engine: engine.clone(),
            access,
            telemetry,
            server: &config.server,
            metrics: config
                .metrics
                .as_ref()
                .map(|metrics| (door, metrics.path.as_str())),
            log: log.clone(),
        });
        let s3 = Served::begin("s3", socket, &front, main, &cores)?;
        let pages = match pages {
            None => None,
            Some(socket) => Some(Served::begin(
                "metrics",
                socket,
                &front,
                Door::Pages,
                &cores,
            )?),
        };
        front.set_ready(true);
        info!(addr = %s3.addr, tls = tls.is_some(), "serving");
        Ok(Self {
            config,
            config_file,
            clock,
            log,
            engine,
            front,
            tls,
            s3,
            pages,
            cores,
            stop_workers,
            workers,
        })
    }

    /// Where S3 requests are answered.
    pub fn s3_addr(&self) -> SocketAddr {
        self.s3.addr
    }

    /// Where the metrics are, if they have a listener of their own.
    pub fn pages_addr(&self) -> Option<SocketAddr> {
        self.pages.as_ref().map(|pages| pages.addr)
    }

    /// The engine that does the work.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Stops everything in order. Dropping the future leaves what still runs to the runtime's end.
    pub async fn stop(mut self) -> Result<(), AppError> {
        let server = &self.config.server;
        self.front.set_ready(false);
        sleep(server.shutdown_delay).await;
        self.s3.end(server.shutdown_timeout).await;
        // Nobody may wait for the workers any more, however long a step takes.
        self.stop_workers.send_replace(true);
        if !self.workers.join(WORKERS_STOP_MAX).await {
            warn!(task = self.workers.name, "task aborted at stop");
            self.workers.handle.abort();
            self.workers.join(WORKERS_STOP_MAX).await;
        }
        let stopped = self.engine.stop().await;
        if let Some(pages) = &mut self.pages {
            pages.end(Duration::ZERO).await;
        }
        // Log lines that they hold leave with them.
        drop(self.cores);
        stopped?;
        info!("stopped");
        Ok(())
    }
}

impl Served {
    fn begin(
        name: &'static str,
        socket: Listener,
        front: &Arc<Front>,
        door: Door,
        cores: &Arc<Cores>,
    ) -> Result<Self, AppError> {
        let addr = socket.local_addr().map_err(|source| AppError::Listen {
            addr: name.to_owned(),
            source,
        })?;
        let (stopper, serving) = socket.serve(Arc::clone(front), door, Arc::clone(cores));
        Ok(Self {
            addr,
            stopper,
            task: Task::spawn(name, serving),
        })
    }

    /// Lets requests under way finish for as long, and cuts off what is left.
    async fn end(&mut self, patience: Duration) {
        self.stopper.finish();
        if self.task.join(patience).await {
            return;
        }
        if !patience.is_zero() {
            warn!(listener = self.task.name, "requests aborted at stop");
        }
        self.stopper.cut();
        // Every connection is dropped at its next await.
        let _ = (&mut self.task.handle).await;
    }
}

async fn bind_s3(
    config: &Config,
    given: Option<TcpListener>,
    tls: Option<Arc<Tls>>,
) -> Result<Listener, AppError> {
    let addr = &config.server.listen_addr;
    let bound = match given {
        Some(socket) => Listener::from_std(socket, tls),
        None => Listener::bind(addr, tls).await,
    };
    bound.map_err(|source| listen_error(addr, source))
}

async fn bind_pages(config: &Config) -> Result<Option<Listener>, AppError> {
    let Some(metrics) = &config.metrics else {
        return Ok(None);
    };
    let Some(addr) = &metrics.listen else {
        return Ok(None);
    };
    match Listener::bind(addr, None).await {
        Ok(socket) => Ok(Some(socket)),
        Err(source) if metrics.require_listener => Err(listen_error(addr, source)),
        Err(error) => {
            warn!(addr = %addr, error = %error, "could not open the metrics listener, metrics are off");
            Ok(None)
        }
    }
}

fn listen_error(addr: &ListenAddr, source: io::Error) -> AppError {
    AppError::Listen {
        addr: addr.to_string(),
        source,
    }
}
