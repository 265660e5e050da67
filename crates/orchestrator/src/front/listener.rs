//! Accepts connections and serves HTTP/1.1 on them until told to stop.

use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::Request;
use hyper::body::{Body as _, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use s3wire::sigv4::CANONICAL_BYTES_MAX;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout, timeout_at};
use tracing::{debug, error, warn};

use super::cores::Cores;
use super::io::{ClientIo, Connection, Patience, Transport};
use super::site::Scheme;
use super::tls::Tls;
use super::{Door, Front};
use crate::config::ListenAddr;

/// The largest request head. Amazon S3 takes 8 KiB of headers.
pub const HEAD_BYTES_MAX: usize = 128 << 10;

/// The bound on what a connection buffers in either direction, and the largest piece of a body: half of
/// it costs a tenth more CPU per byte, and more would be held for every slow client.
const BUFFER_BYTES_MAX: usize = 256 << 10;

/// The canonical request of a head that fits is within its own limit: nobody meets a second one.
const _: () = assert!(3 * HEAD_BYTES_MAX <= CANONICAL_BYTES_MAX);

/// The most header fields of a request: two kibibytes of user metadata can be many.
pub const HEAD_FIELDS_MAX: usize = 256;

/// The most connections at a time; further ones wait in the system's queue.
pub const CONNECTIONS_MAX: usize = 10_000;

/// After accepting failed, because of too many open files for example.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How long a client may go on sending a body that was refused before it finds the connection
/// reset: a reset could destroy the answer on its way.
const LINGER: Duration = Duration::from_secs(5);

/// How long the last bytes of a connection may take.
const FAREWELL: Duration = Duration::from_secs(5);

/// Where connections stand with stopping.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Serving,
    /// No new connections; those that are there end with their request.
    Finishing,
    /// Connections are dropped where they stand.
    Cutting,
}

/// A bound socket.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    tls: Option<Arc<Tls>>,
}

/// Tells a running listener to stop.
#[derive(Debug)]
pub struct Stopper(watch::Sender<Stage>);

impl Listener {
    /// Binds an address; every address of the machine where the host is empty.
    pub async fn bind(addr: &ListenAddr, tls: Option<Arc<Tls>>) -> io::Result<Self> {
        let socket = match addr.host() {
            // One socket takes both families where the system has IPv6.
            "" => match TcpListener::bind(("::", addr.port())).await {
                Ok(socket) => socket,
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => return Err(error),
                Err(_) => TcpListener::bind(("0.0.0.0", addr.port())).await?,
            },
            host => TcpListener::bind((host, addr.port())).await?,
        };
        Ok(Self { socket, tls })
    }

    /// Takes a socket that is bound already.
    pub fn from_std(socket: std::net::TcpListener, tls: Option<Arc<Tls>>) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        Ok(Self {
            socket: TcpListener::from_std(socket)?,
            tls,
        })
    }

    /// The address that it listens on.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Serves until the stopper says otherwise and the last connection has ended, each connection on one
    /// of these cores.
    pub fn serve(
        self,
        front: Arc<Front>,
        door: Door,
        cores: Arc<Cores>,
    ) -> (Stopper, impl Future<Output = ()> + Send) {
        let (sender, stage) = watch::channel(Stage::Serving);
        (Stopper(sender), self.run(front, door, cores, stage))
    }

    async fn run(
        self,
        front: Arc<Front>,
        door: Door,
        cores: Arc<Cores>,
        mut stage: watch::Receiver<Stage>,
    ) {
        let socket = self.socket;
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let mut connections = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                biased;
                () = ends(&mut stage, Stage::Finishing) => break,
                Some(ended) = connections.join_next() => {
                    report(ended);
                    continue;
                }
                accepted = accept(&socket, &places) => accepted,
            };
            match accepted {
                Ok((stream, remote, place)) => {
                    let peer = Peer {
                        front: Arc::clone(&front),
                        door,
                        remote,
                        stage: stage.clone(),
                    };
                    let tls = self.tls.clone();
                    let (core, seat) = cores.seat();
                    let served = async move {
                        match TcpStream::from_std(stream) {
                            Ok(stream) => peer.serve(stream, tls).await,
                            Err(error) => {
                                warn!(remote = %remote, error = %error, "connection lost");
                            }
                        }
                        drop((place, seat));
                    };
                    connections.spawn_on(served, core);
                }
                Err(error) => {
                    warn!(error = %error, "could not accept a connection");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        drop(socket);
        loop {
            tokio::select! {
                ended = connections.join_next() => match ended {
                    Some(ended) => report(ended),
                    None => return,
                },
                () = ends(&mut stage, Stage::Cutting) => return connections.shutdown().await,
            }
        }
    }
}

/// Waits until the listener is at this stage or beyond; a stopper that is gone stops nothing.
async fn ends(stage: &mut watch::Receiver<Stage>, wanted: Stage) {
    if stage.wait_for(|stage| *stage >= wanted).await.is_err() {
        std::future::pending().await
    }
}

impl Stopper {
    /// No new connections from now on; those that are there end with the request they work on.
    pub fn finish(&self) {
        self.0.send_replace(Stage::Finishing);
    }

    /// Connections end now, whatever they are at.
    pub fn cut(&self) {
        self.0.send_replace(Stage::Cutting);
    }
}

async fn accept(
    socket: &TcpListener,
    places: &Arc<Semaphore>,
) -> io::Result<(std::net::TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let place = Arc::clone(places)
        .acquire_owned()
        .await
        .expect("the semaphore is never closed");
    let (stream, remote) = socket.accept().await?;
    // Whoever serves it registers it anew.
    Ok((stream.into_std()?, remote, place))
}

fn report(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        error!(error = %error, "connection handler panicked");
    }
}

/// One connection.
struct Peer {
    front: Arc<Front>,
    door: Door,
    remote: SocketAddr,
    stage: watch::Receiver<Stage>,
}

impl Peer {
    async fn serve(mut self, stream: TcpStream, tls: Option<Arc<Tls>>) {
        // Answers are written whole; waiting for more would only delay them.
        if let Err(error) = stream.set_nodelay(true) {
            debug!(remote = %self.remote, error = %error, "connection lost");
            return;
        }
        let patience = self.front.patience();
        let (scheme, transport) = match tls {
            None => (Scheme::Http, Transport::Plain(stream)),
            Some(tls) => match timeout(patience.head, tls.acceptor().accept(stream)).await {
                Ok(Ok(stream)) => (Scheme::Https, Transport::Tls(Box::new(stream))),
                Ok(Err(error)) => {
                    debug!(remote = %self.remote, error = %error, "TLS handshake failed");
                    return;
                }
                Err(_) => return,
            },
        };
        let connection = Connection::new(scheme, self.front.heads());
        let (mut io, ended) = self
            .talk(transport, Arc::clone(&connection), patience)
            .await;
        if let Err(error) = ended {
            self.explain(&mut io, &connection, &error).await;
        }
        farewell(io, &connection).await;
    }

    /// Tells a client that what it sent was no request, where nobody has told it.
    async fn explain(&self, io: &mut Transport, connection: &Connection, error: &hyper::Error) {
        let text = base::report(error).to_string();
        debug!(remote = %self.remote, error = text, "connection ended early");
        let endless = connection.is_head_too_large();
        if !endless && !connection.has_held_back() {
            return;
        }
        // There may be more of it, which nobody reads.
        connection.leave_unread();
        let answer = self.front.unreadable(endless || error.is_parse_too_large());
        if timeout(FAREWELL, io.write_all(answer.as_bytes()))
            .await
            .is_err()
        {
            debug!(remote = %self.remote, "client closed before an error response was sent");
        }
    }

    /// Serves requests until the connection ends, and gives the byte stream back.
    async fn talk(
        &mut self,
        transport: Transport,
        connection: Arc<Connection>,
        patience: Patience,
    ) -> (Transport, hyper::Result<()>) {
        let io = TokioIo::new(ClientIo::new(transport, Arc::clone(&connection), patience));
        let (front, door, remote) = (Arc::clone(&self.front), self.door, self.remote);
        let service = service_fn(move |request: Request<Incoming>| {
            let (front, connection) = (Arc::clone(&front), Arc::clone(&connection));
            // Before more is read: that is the body's.
            let head = head_bytes(&request);
            connection.begin(head, request.body().size_hint().exact());
            Box::pin(async move {
                let size = HeadSize::of(head);
                let response = front.answer(door, request, size, remote, connection).await;
                engine::line_up().await;
                Ok::<_, Infallible>(response)
            })
        });
        let mut served = http1::Builder::new()
            .max_buf_size(BUFFER_BYTES_MAX)
            .max_headers(HEAD_FIELDS_MAX)
            // Our own clocks tell an idle connection from a slow head.
            .header_read_timeout(None)
            .serve_connection(io, service);
        let mut finishing = false;
        let ended = loop {
            tokio::select! {
                ended = poll_fn(|cx| served.poll_without_shutdown(cx)) => break ended,
                () = ends(&mut self.stage, Stage::Finishing), if !finishing => {
                    finishing = true;
                    std::pin::Pin::new(&mut served).graceful_shutdown();
                }
            }
        };
        let io = served.into_parts().io.into_inner();
        (io.into_transport(), ended)
    }
}

/// The bytes of a head as clients write them, without blanks that mean nothing.
fn head_bytes(request: &Request<Incoming>) -> usize {
    // A blank behind the method, the version with a blank in front, and the ends of two lines.
    const LINE: usize = " ".len() + " HTTP/1.1\r\n".len() + "\r\n".len();
    let target = request.uri().path_and_query();
    let fields = request.headers().iter();
    let fields: usize = fields
        .map(|(name, value)| name.as_str().len() + ": \r\n".len() + value.len())
        .sum();
    let target = target.map_or(1, |target| target.as_str().len());
    request.method().as_str().len() + target + LINE + fields
}

/// Whether a head that has ended keeps its limit: one may end within the read that goes beyond it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HeadSize {
    /// It does.
    Fits,
    /// It does not.
    TooLarge,
}

impl HeadSize {
    fn of(bytes: usize) -> Self {
        if bytes > HEAD_BYTES_MAX {
            Self::TooLarge
        } else {
            Self::Fits
        }
    }
}

/// Ends a connection so that the client gets what was written.
async fn farewell(mut io: Transport, connection: &Connection) {
    if timeout(FAREWELL, io.shutdown()).await.is_err() || !connection.is_unread() {
        return;
    }
    let deadline = tokio::time::Instant::now() + LINGER;
    let mut waste = [0; 8 << 10];
    while let Ok(Ok(1..)) = timeout_at(deadline, io.read(&mut waste)).await {}
}
