//! A way to a database that can be cut at any byte, or held up.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use testbed::Database;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Which bytes are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    ToServer,
    ToClient,
}

/// Without a limit.
const ENDLESS: i64 = i64::MAX / 2;

struct Limits {
    /// Bytes that may still pass; the connection that would exceed it is cut, and the limit lifted.
    to_server: AtomicI64,
    to_client: AtomicI64,
    held: watch::Sender<bool>,
}

/// A proxy on the loopback.
#[derive(Clone)]
pub(crate) struct Proxy {
    port: u16,
    limits: Arc<Limits>,
}

impl Proxy {
    pub(crate) async fn start(server: &Database) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let limits = Arc::new(Limits {
            to_server: AtomicI64::new(ENDLESS),
            to_client: AtomicI64::new(ENDLESS),
            held: watch::Sender::new(false),
        });
        let (shared, server) = (Arc::clone(&limits), server.port);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(serve(client, server, Arc::clone(&shared)));
            }
        });
        Self { port, limits }
    }

    /// The database as it is reached through here.
    pub(crate) fn to(&self, database: &Database) -> Database {
        Database {
            port: self.port,
            ..database.clone()
        }
    }

    /// The connection on which so many more bytes have passed is cut.
    pub(crate) fn cut_after(&self, direction: Direction, bytes: i64) {
        self.limits.of(direction).store(bytes, Ordering::SeqCst);
    }

    /// Whether a connection was cut since.
    pub(crate) fn has_cut(&self, direction: Direction) -> bool {
        self.limits.of(direction).load(Ordering::SeqCst) > ENDLESS / 2
    }

    /// Lets no byte pass, or all again.
    pub(crate) fn hold(&self, held: bool) {
        self.limits.held.send_replace(held);
    }
}

impl Limits {
    fn of(&self, direction: Direction) -> &AtomicI64 {
        match direction {
            Direction::ToServer => &self.to_server,
            Direction::ToClient => &self.to_client,
        }
    }
}

async fn serve(client: TcpStream, server: u16, limits: Arc<Limits>) {
    let Ok(server) = TcpStream::connect(("127.0.0.1", server)).await else {
        return;
    };
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    // Whichever ends first takes the other with it: a cut is a cut of both.
    tokio::select! {
        () = pump(from_client, to_server, &limits, Direction::ToServer) => {}
        () = pump(from_server, to_client, &limits, Direction::ToClient) => {}
    }
}

async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    limits: &Limits,
    direction: Direction,
) {
    let mut buffer = vec![0; 64 << 10];
    let mut held = limits.held.subscribe();
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        if held.wait_for(|held| !held).await.is_err() {
            return;
        }
        let bytes = i64::try_from(read).unwrap();
        let left = limits.of(direction).fetch_sub(bytes, Ordering::SeqCst);
        if left < bytes {
            // What still may pass does, and then the connection is gone.
            let part = usize::try_from(left.max(0)).unwrap();
            let _peer_gone = to.write_all(&buffer[..part]).await;
            let _peer_gone = to.flush().await;
            limits.of(direction).store(ENDLESS, Ordering::SeqCst);
            return;
        }
        if to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}
