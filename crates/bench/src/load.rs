//! The load: connections that send requests and look at every byte of the answers.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use hdrhistogram::Histogram;
use testbed::content::Content;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinSet;
use tokio::time::timeout_at;

use crate::secured;
use crate::target::{Sent, Shot, Target, Wanted};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// Bytes that are read at a time.
const READ_BYTES: usize = 256 << 10;
const HEADERS_MAX: usize = 64;
/// The longest latency that is told apart.
const LATENCY_NS_MAX: u64 = 60_000_000_000;

/// When requests are sent.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Pace {
    /// Each connection sends its next request when it has the answer.
    Closed,
    /// So many a second, whatever the answers do; a latency counts from when its request was due.
    Open(u32),
}

/// What a load is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    pub(crate) connections: usize,
    pub(crate) pace: Pace,
    /// Ends then, or when every shot was fired once.
    pub(crate) until: Until,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Until {
    /// Shots are fired again and again. Bodies under way are cut.
    Elapsed(Duration),
    /// Every shot is fired once.
    Once,
}

/// What a load measured.
#[derive(Debug, Clone)]
pub(crate) struct Run {
    /// Requests that were answered, all of them well.
    pub(crate) requests: u64,
    /// Bytes of bodies in both directions, those of requests that were cut included.
    pub(crate) bytes: u64,
    pub(crate) seconds: f64,
    /// In nanoseconds.
    pub(crate) latencies: Histogram<u64>,
}

impl Run {
    pub(crate) fn per_second(&self) -> f64 {
        self.requests as f64 / self.seconds
    }

    /// A quantile of the latencies, in microseconds.
    pub(crate) fn latency_us(&self, quantile: f64) -> f64 {
        self.latencies.value_at_quantile(quantile) as f64 / 1e3
    }
}

struct Shared {
    shots: Arc<[Shot]>,
    next: AtomicUsize,
    bytes: AtomicU64,
    until: Until,
    deadline: Option<Instant>,
    /// When requests are due, where they are paced.
    due: Option<Mutex<mpsc::Receiver<Instant>>>,
}

impl Shared {
    fn is_over(&self) -> bool {
        self.deadline
            .is_some_and(|deadline| Instant::now() >= deadline)
    }

    fn shot(&self) -> Option<&Shot> {
        let n = self.next.fetch_add(1, Ordering::Relaxed);
        match self.until {
            Until::Once => self.shots.get(n),
            Until::Elapsed(_) => self.shots.get(n % self.shots.len()),
        }
    }
}

/// Fires shots at a target. An answer that is not what was wanted is an error of the whole run.
pub(crate) async fn fire(target: &Target, shots: Arc<[Shot]>, load: Load) -> Result<Run> {
    let mut connections = Vec::with_capacity(load.connections);
    for _ in 0..load.connections {
        connections.push(Connection::open(target).await?);
    }
    let begun = Instant::now();
    let deadline = match load.until {
        Until::Elapsed(time) => Some(begun + time),
        Until::Once => None,
    };
    let due = match load.pace {
        Pace::Closed => None,
        Pace::Open(per_second) => Some(Mutex::new(paced(per_second, begun, deadline))),
    };
    let shared = Arc::new(Shared {
        shots,
        next: AtomicUsize::new(0),
        bytes: AtomicU64::new(0),
        until: load.until,
        deadline,
        due,
    });
    let mut running = JoinSet::new();
    for connection in connections {
        running.spawn(drive(connection, Arc::clone(&shared)));
    }
    let mut latencies = fresh_histogram()?;
    while let Some(ended) = running.join_next().await {
        let of_one = ended.context("a connection panicked")?;
        let of_one = of_one.with_context(|| format!("asking {}", target.name))?;
        latencies.add(of_one).context("adding latencies up")?;
    }
    Ok(Run {
        requests: latencies.len(),
        bytes: shared.bytes.load(Ordering::Relaxed),
        seconds: begun.elapsed().as_secs_f64(),
        latencies,
    })
}

fn fresh_histogram() -> Result<Histogram<u64>> {
    Histogram::new_with_max(LATENCY_NS_MAX, 3).context("making a histogram")
}

/// Tells when requests are due. A thread of its own sleeps more exactly than the runtime's timer.
fn paced(per_second: u32, begun: Instant, deadline: Option<Instant>) -> mpsc::Receiver<Instant> {
    let (tell, due) = mpsc::channel(1 << 16);
    let between = Duration::from_secs(1) / per_second;
    std::thread::spawn(move || {
        for n in 0.. {
            let moment = begun + between * n;
            if deadline.is_some_and(|deadline| moment >= deadline) {
                return;
            }
            std::thread::sleep(moment.saturating_duration_since(Instant::now()));
            if tell.blocking_send(moment).is_err() {
                return;
            }
        }
    });
    due
}

async fn drive(mut connection: Connection, shared: Arc<Shared>) -> Result<Histogram<u64>> {
    let mut latencies = fresh_histogram()?;
    while !shared.is_over() {
        let due = match &shared.due {
            None => Instant::now(),
            Some(due) => match due.lock().await.recv().await {
                Some(moment) => moment,
                None => break,
            },
        };
        let Some(shot) = shared.shot() else {
            break;
        };
        let answered = connection.exchange(shot, Some(&shared)).await?;
        if answered == Ended::Cut {
            break;
        }
        let took = due.elapsed().as_nanos();
        latencies.saturating_record(u64::try_from(took).unwrap_or(u64::MAX));
    }
    Ok(latencies)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    Answered,
    /// The time was over in the middle of a body.
    Cut,
}

/// What bytes are sent over.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// One connection that is kept.
pub(crate) struct Connection {
    stream: Box<dyn Stream>,
    buffer: Vec<u8>,
    filled: usize,
    /// The body of the last answer, where nothing else was wanted of it.
    pub(crate) document: Vec<u8>,
    /// The entity tag of the last answer.
    pub(crate) etag: Option<String>,
}

impl Connection {
    pub(crate) async fn open(target: &Target) -> Result<Self> {
        let stream = TcpStream::connect(target.addr).await;
        let stream = stream.with_context(|| format!("connecting to {}", target.addr))?;
        stream.set_nodelay(true).context("setting TCP_NODELAY")?;
        let stream: Box<dyn Stream> = match &target.tls {
            None => Box::new(stream),
            Some(tls) => Box::new(tls.connect(secured::name(), stream).await?),
        };
        Ok(Self {
            stream,
            buffer: vec![0; READ_BYTES],
            filled: 0,
            document: Vec::new(),
            etag: None,
        })
    }

    /// Sends a request, and looks at the answer.
    pub(crate) async fn ask(&mut self, shot: &Shot) -> Result<()> {
        self.exchange(shot, None).await.map(drop)
    }

    async fn exchange(&mut self, shot: &Shot, shared: Option<&Shared>) -> Result<Ended> {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        let exchange = async {
            self.stream.write_all(&shot.head).await?;
            // TLS may hold on to what it was given.
            self.stream.flush().await?;
            if let Sent::Content(content) = shot.sent
                && self.send(content, shared).await? == Ended::Cut
            {
                return Ok(Ended::Cut);
            }
            self.receive(shot, shared).await
        };
        match shared.and_then(|shared| shared.deadline) {
            // Large bodies may take longer, up to the end of the run.
            Some(_) => exchange.await,
            None => timeout_at(deadline, exchange)
                .await
                .context("no answer within a minute")?,
        }
    }

    async fn send(&mut self, content: Content, shared: Option<&Shared>) -> Result<Ended> {
        for piece in content.pieces(0) {
            if shared.is_some_and(Shared::is_over) {
                return Ok(Ended::Cut);
            }
            self.stream.write_all(&piece).await?;
            if let Some(shared) = shared {
                let bytes = piece.len() as u64;
                shared.bytes.fetch_add(bytes, Ordering::Relaxed);
            }
        }
        self.stream.flush().await?;
        Ok(Ended::Answered)
    }

    async fn receive(&mut self, shot: &Shot, shared: Option<&Shared>) -> Result<Ended> {
        let (status, head_bytes, length) = loop {
            if let Some(found) = self.parse_head()? {
                break found;
            }
            if self.filled == self.buffer.len() {
                bail!("a head of more than {READ_BYTES} bytes");
            }
            self.fill().await?;
        };
        let (wanted_status, content, has_body) = match shot.wanted {
            Wanted::Status(status) => (status, None, true),
            Wanted::Stored if matches!(status, 201 | 204) => (status, None, true),
            Wanted::Stored => (200, None, true),
            Wanted::Content(status, content) => (status, Some(content), true),
            Wanted::Length(wanted_status, wanted) => {
                if status == wanted_status && length != wanted {
                    bail!("a length of {length} instead of {wanted}");
                }
                (wanted_status, None, false)
            }
        };
        let mut left = if has_body { length } else { 0 };
        self.buffer.copy_within(head_bytes..self.filled, 0);
        self.filled -= head_bytes;
        self.document.clear();
        let mut offset = 0;
        loop {
            let here = usize::try_from(left.min(self.filled as u64))?;
            let bytes = &self.buffer[..here];
            match content {
                Some(content) if status == wanted_status => {
                    if !content.has(offset, bytes) {
                        bail!("other bytes than were stored, at {offset}");
                    }
                }
                Some(_) | None => self.document.extend_from_slice(bytes),
            }
            offset += here as u64;
            left -= here as u64;
            if let Some(shared) = shared {
                shared.bytes.fetch_add(here as u64, Ordering::Relaxed);
            }
            self.buffer.copy_within(here..self.filled, 0);
            self.filled -= here;
            if left == 0 {
                break;
            }
            if shared.is_some_and(Shared::is_over) {
                return Ok(Ended::Cut);
            }
            self.fill().await?;
        }
        if status != wanted_status {
            let said = String::from_utf8_lossy(&self.document);
            let asked = String::from_utf8_lossy(&shot.head[..shot.head.len().min(200)]);
            bail!("{status} instead of {wanted_status}: {said}\nto {asked}");
        }
        if let Some(content) = content
            && offset != content.length
        {
            bail!("{offset} bytes instead of {}", content.length);
        }
        Ok(Ended::Answered)
    }

    async fn fill(&mut self) -> Result<()> {
        let read = self.stream.read(&mut self.buffer[self.filled..]).await?;
        if read == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        self.filled += read;
        Ok(())
    }

    /// Status, bytes of the head, and the length that it announces.
    fn parse_head(&mut self) -> Result<Option<(u16, usize, u64)>> {
        let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut response = httparse::Response::new(&mut headers);
        let parsed = response.parse(&self.buffer[..self.filled]);
        let httparse::Status::Complete(bytes) = parsed.context("parsing an answer")? else {
            return Ok(None);
        };
        let status = response.code.context("an answer without a status")?;
        let mut length = 0;
        self.etag = None;
        for header in response.headers {
            if header.name.eq_ignore_ascii_case("content-length") {
                length = std::str::from_utf8(header.value)?.parse()?;
            } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
                bail!("an answer in chunks");
            } else if header.name.eq_ignore_ascii_case("etag") {
                self.etag = Some(String::from_utf8_lossy(header.value).into_owned());
            }
        }
        Ok(Some((status, bytes, length)))
    }
}
