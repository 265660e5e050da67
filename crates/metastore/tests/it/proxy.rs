//! A way to a database that can be cut at any byte, or held up.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};

use parking_lot::Mutex;
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

/// What the connection of a call goes through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Passes,
    /// It ends within the call, which never happens.
    EndsWithin,
    /// It ends behind the call, which happens, and nobody is told.
    EndsUnanswered,
    /// It ends within the answer.
    EndsWithinTheAnswer,
}

/// The calls that write, in any order: each meets all of this, one after the other, until it gets
/// through.
const FATES: [Fate; 6] = [
    Fate::EndsWithin,
    Fate::EndsUnanswered,
    Fate::Passes,
    Fate::EndsWithin,
    Fate::EndsWithinTheAnswer,
    Fate::Passes,
];
const CALLS: [&[u8]; 2] = [b"s3o_batch($1", b"s3o_open_intents($1"];

/// How often each of the calls was made.
type Counts = [AtomicUsize; CALLS.len()];

struct Limits {
    /// Where calls are cut by what they are.
    calls: Option<Counts>,
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
        Self::with(server, None).await
    }

    /// A proxy that cuts the connections of calls that write.
    pub(crate) async fn cutting(server: &Database) -> Self {
        Self::with(server, Some(Counts::default())).await
    }

    async fn with(server: &Database, calls: Option<Counts>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let limits = Arc::new(Limits {
            calls,
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
    /// What becomes of these bytes on their way to the server, where a call begins in them.
    fn fate(&self, bytes: &[u8]) -> Option<Fate> {
        let counts = self.calls.as_ref()?;
        let has = |call: &&[u8]| bytes.windows(call.len()).any(|window| window == *call);
        let call = CALLS.iter().position(has)?;
        Some(FATES[counts[call].fetch_add(1, Ordering::SeqCst) % FATES.len()])
    }

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
    let fate = Mutex::new(Fate::Passes);
    // Whichever ends first takes the other with it: a cut is a cut of both.
    tokio::select! {
        () = pump(from_client, to_server, &limits, &fate, Direction::ToServer) => {}
        () = pump(from_server, to_client, &limits, &fate, Direction::ToClient) => {}
    }
}

async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    limits: &Limits,
    fate: &Mutex<Fate>,
    direction: Direction,
) {
    let mut buffer = vec![0; 64 << 10];
    let mut held = limits.held.subscribe();
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        if held.wait_for(|held| !held).await.is_err() {
            return;
        }
        if direction == Direction::ToServer
            && let Some(new) = limits.fate(&buffer[..read])
        {
            *fate.lock() = new;
        }
        let ends_behind = match (*fate.lock(), direction) {
            (Fate::Passes, _)
            | (Fate::EndsUnanswered | Fate::EndsWithinTheAnswer, Direction::ToServer) => None,
            (Fate::EndsWithin, _) | (Fate::EndsWithinTheAnswer, Direction::ToClient) => {
                Some(read / 2)
            }
            (Fate::EndsUnanswered, Direction::ToClient) => Some(0),
        };
        if let Some(part) = ends_behind {
            let _peer_gone = to.write_all(&buffer[..part]).await;
            let _peer_gone = to.flush().await;
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
