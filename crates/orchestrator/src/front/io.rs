//! The byte stream of one client connection, with its clocks.
//!
//! Three clocks run, one at a time per direction: between requests (idle), from the first byte of a
//! head to its last, and while the client takes nothing of an answer. The clock of a request body
//! is elsewhere, with the body: whether the client or a backend is slow is known only there.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_rustls::server::TlsStream;

use super::heads::{Heads, Unfinished};
use super::listener::HEAD_BYTES_MAX;
use super::pace::{Pace, PaceRule};
use super::site::Scheme;
use super::ticket::Ticket;

/// The clocks of a connection.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// From the first byte of a request's head to its last.
    pub head: Duration,
    /// Between two requests.
    pub idle: Duration,
    /// With the bytes of answers.
    pub write: PaceRule,
}

/// Where a connection stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Nothing of a next request has come.
    Idle,
    /// A head is coming.
    Head,
    /// A request is being worked on.
    Busy,
}

/// How much longer a head may be than its parts: blanks that mean nothing, the authority of an absolute target.
/// So much of a next head goes uncounted at most.
const HEAD_SLACK_BYTES: i64 = 512;

/// What the byte stream and the requests on it know of each other.
#[derive(Debug)]
pub struct Connection {
    state: Mutex<State>,
    heads: Arc<Heads>,
    scheme: Scheme,
    /// What the HTTP library says of bytes that are no request was held back.
    held_back: AtomicBool,
    /// The client may still be sending a body that nobody reads.
    unread: AtomicBool,
}

#[derive(Debug)]
struct State {
    phase: Phase,
    /// Bytes that came and belong to no head or body that is known: those of a head that has not ended. Less
    /// than nothing while a body is still coming.
    unclaimed: i64,
    /// Of those, what was there already when the last answer had left.
    carried: i64,
    /// The request's body has a length that only the HTTP library knows.
    unmeasured: bool,
    /// The length of the last read.
    last_read: usize,
    /// What of the last read may lie behind such a body, and so belong to the next head: all of it.
    perhaps_behind: usize,
    /// While more of a head is waited for.
    unfinished: Option<Unfinished>,
    /// Requests whose answer has not left. More than one where a client does not wait for answers.
    open: usize,
    /// Of those, the ones whose answer is written. Pages have no ticket.
    leaving: Vec<Option<Box<Ticket>>>,
}

impl State {
    fn is_head_too_large(&self) -> bool {
        self.phase == Phase::Head && self.head_bytes() >= HEAD_BYTES_MAX
    }

    /// What has come of a head that has not ended.
    fn head_bytes(&self) -> usize {
        usize::try_from(self.unclaimed).unwrap_or(0)
    }

    /// Where the connection stands once every answer has left. What came behind the request, in the
    /// same read as its last bytes for example, has begun the next head.
    fn rest(&mut self) {
        self.phase = if std::mem::take(&mut self.unmeasured) {
            self.unclaimed = 0;
            // The HTTP library reads on only where it needs more of the body: what came with an
            // earlier read was the body's.
            self.perhaps_behind = self.last_read;
            Phase::Head
        } else if self.unclaimed > HEAD_SLACK_BYTES {
            Phase::Head
        } else {
            self.unclaimed = 0;
            Phase::Idle
        };
        self.carried = self.unclaimed;
    }

    /// A head and its body have so many bytes. Where all of them came since the connection was at rest,
    /// what had been carried over was blanks that belonged to the request before.
    fn claim(&mut self, bytes: u64) {
        let carried = std::mem::take(&mut self.carried);
        let fresh = self.unclaimed - carried;
        let head = i64::try_from(bytes).unwrap_or(i64::MAX);
        let there = if fresh >= head { fresh } else { self.unclaimed };
        self.unclaimed = there.saturating_sub(head);
    }
}

impl Connection {
    /// A connection on which nothing happened yet; its first head is awaited like a begun one.
    pub(super) fn new(scheme: Scheme, heads: Arc<Heads>) -> Arc<Self> {
        let state = State {
            phase: Phase::Head,
            unclaimed: 0,
            carried: 0,
            unmeasured: false,
            last_read: 0,
            perhaps_behind: 0,
            unfinished: None,
            open: 0,
            leaving: Vec::new(),
        };
        Arc::new(Self {
            state: Mutex::new(state),
            heads,
            scheme,
            held_back: AtomicBool::new(false),
            unread: AtomicBool::new(false),
        })
    }

    /// What it speaks.
    pub(super) fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// So many bytes came; between requests they begin a head.
    fn came(&self, bytes: usize) {
        let mut state = self.state.lock();
        state.last_read = bytes;
        state.unclaimed = state.unclaimed.saturating_add_unsigned(bytes as u64);
        if state.phase == Phase::Idle {
            state.phase = Phase::Head;
        }
    }

    /// More of a head is waited for: what has come of it counts against the budget of all such heads.
    /// Whether the connection has to end for that.
    fn awaits_head(&self, cx: &Context<'_>) -> bool {
        let mut state = self.state.lock();
        let bytes = state.head_bytes() + state.perhaps_behind;
        match &state.unfinished {
            Some(unfinished) => unfinished.goes_on(bytes, cx.waker()),
            None if bytes == 0 => return false,
            None => state.unfinished = Some(self.heads.wait(bytes, cx.waker())),
        }
        state
            .unfinished
            .as_ref()
            .is_some_and(Unfinished::is_evicted)
    }

    /// A head of so many bytes is complete; its body has so many more, where that is known.
    pub(super) fn begin(&self, head: usize, body: Option<u64>) {
        let mut state = self.state.lock();
        state.phase = Phase::Busy;
        state.open += 1;
        state.unmeasured |= body.is_none();
        state.perhaps_behind = 0;
        state.claim(head as u64);
        state.unclaimed = state.unclaimed.saturating_sub_unsigned(body.unwrap_or(0));
        let ended = state.unfinished.take();
        drop(state);
        drop(ended);
    }

    /// The answer is written; the request ends when the last byte has left.
    pub(super) fn leave(&self, ticket: Option<Box<Ticket>>) {
        self.state.lock().leaving.push(ticket);
    }

    /// The answer goes out although the request's body was not read.
    pub(super) fn leave_unread(&self) {
        self.unread.store(true, Ordering::Relaxed);
    }

    /// Whether the end of the connection must wait for the client.
    pub(super) fn is_unread(&self) -> bool {
        self.unread.load(Ordering::Relaxed)
    }

    /// Whether nothing that is written can be the answer to a request.
    fn has_no_request(&self) -> bool {
        self.state.lock().open == 0
    }

    /// Whether a head is as large as one may be, and has not ended.
    pub(super) fn is_head_too_large(&self) -> bool {
        self.state.lock().is_head_too_large()
    }

    /// Whether something was written without a request, which did not reach the client.
    pub(super) fn has_held_back(&self) -> bool {
        self.held_back.load(Ordering::Relaxed)
    }

    /// Everything that was written has left. Whether the connection became idle with that.
    fn flushed(&self) -> bool {
        let mut state = self.state.lock();
        if state.leaving.is_empty() {
            return false;
        }
        let left = std::mem::take(&mut state.leaving);
        state.open = state.open.saturating_sub(left.len());
        let idle = state.open == 0 && state.phase == Phase::Busy;
        if idle {
            state.rest();
        }
        drop(state);
        // Tickets write their audit line now: not under the lock.
        drop(left);
        idle
    }
}

/// Plain or encrypted.
#[derive(Debug)]
pub enum Transport {
    /// Plain TCP.
    Plain(TcpStream),
    /// TLS on top.
    Tls(Box<TlsStream<TcpStream>>),
}

/// A deadline that costs nothing while it is not armed.
#[derive(Debug, Default)]
struct Alarm {
    sleep: Option<Pin<Box<Sleep>>>,
    armed: bool,
}

impl Alarm {
    fn disarm(&mut self) {
        self.armed = false;
    }

    /// Arms it unless it is, and tells whether the time is over.
    fn poll(&mut self, after: Duration, cx: &mut Context<'_>) -> Poll<()> {
        let sleep = match (&mut self.sleep, self.armed) {
            (Some(sleep), true) => sleep,
            (Some(sleep), false) => {
                sleep.as_mut().reset(Instant::now() + after);
                sleep
            }
            (empty, _) => empty.insert(Box::pin(sleep_until(Instant::now() + after))),
        };
        self.armed = true;
        sleep.as_mut().poll(cx)
    }
}

/// A client connection.
#[derive(Debug)]
pub struct ClientIo {
    transport: Transport,
    connection: Arc<Connection>,
    patience: Patience,
    read_alarm: Alarm,
    write_pace: Pace,
}

impl ClientIo {
    /// Puts clocks to a byte stream.
    pub(super) fn new(
        transport: Transport,
        connection: Arc<Connection>,
        patience: Patience,
    ) -> Self {
        Self {
            transport,
            connection,
            patience,
            read_alarm: Alarm::default(),
            write_pace: Pace::new(patience.write),
        }
    }

    /// Without clocks: what is left when the connection ends.
    pub(super) fn into_transport(self) -> Transport {
        self.transport
    }

    /// Without a request, the HTTP library has only one thing to write: that it could not read one.
    /// We say that ourselves.
    fn holds_back(&self) -> bool {
        let holds_back = self.connection.has_no_request();
        if holds_back {
            self.connection.held_back.store(true, Ordering::Relaxed);
        }
        holds_back
    }

    /// Bytes that were taken are progress of the client, and waiting for it is none.
    fn paced<T>(
        &mut self,
        polled: Poll<io::Result<T>>,
        bytes: impl FnOnce(&T) -> usize,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<T>> {
        if let Poll::Ready(outcome) = polled {
            self.write_pace.moved(outcome.as_ref().map_or(0, bytes));
            return Poll::Ready(outcome);
        }
        ready!(self.write_pace.poll_too_slow(cx));
        Poll::Ready(Err(timed_out("the client takes too little of the answer")))
    }
}

fn timed_out(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, what)
}

impl AsyncRead for ClientIo {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        let (phase, too_large) = {
            let state = this.connection.state.lock();
            (state.phase, state.is_head_too_large())
        };
        if too_large {
            let error = io::Error::new(io::ErrorKind::InvalidData, "a head is too large");
            return Poll::Ready(Err(error));
        }
        match Pin::new(&mut this.transport).poll_read(cx, buf) {
            Poll::Ready(Ok(())) => {
                let came = buf.filled().len() - before;
                if came > 0 {
                    this.connection.came(came);
                }
                // Bytes that drip must not put off the end of a head for ever.
                if phase != Phase::Head {
                    this.read_alarm.disarm();
                }
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => {
                match phase {
                    Phase::Busy => {
                        this.read_alarm.disarm();
                        Poll::Pending
                    }
                    // As if the client had closed: nothing is lost.
                    Phase::Idle => this.read_alarm.poll(this.patience.idle, cx).map(Ok),
                    Phase::Head if this.connection.awaits_head(cx) => {
                        let error = io::Error::other("unfinished heads hold too many bytes");
                        Poll::Ready(Err(error))
                    }
                    Phase::Head => {
                        ready!(this.read_alarm.poll(this.patience.head, cx));
                        Poll::Ready(Err(timed_out("the head of a request took too long")))
                    }
                }
            }
        }
    }
}

impl AsyncWrite for ClientIo {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.holds_back() {
            return Poll::Ready(Ok(bytes.len()));
        }
        let polled = Pin::new(&mut this.transport).poll_write(cx, bytes);
        this.paced(polled, |bytes| *bytes, cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.holds_back() {
            let count = slices.iter().map(|slice| slice.len()).sum();
            return Poll::Ready(Ok(count));
        }
        let polled = Pin::new(&mut this.transport).poll_write_vectored(cx, slices);
        this.paced(polled, |bytes| *bytes, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.transport.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.transport).poll_flush(cx);
        ready!(this.paced(polled, |()| 0, cx))?;
        if this.connection.flushed() {
            this.write_pace.reset();
            this.read_alarm.disarm();
            // So that the idle clock starts: the next read is what arms it.
            cx.waker().wake_by_ref();
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.transport).poll_shutdown(cx);
        this.paced(polled, |()| 0, cx)
    }
}

impl AsyncRead for Transport {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Transport {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::super::heads::UNFINISHED_HEADS_BYTES_MAX;
    use super::*;

    #[test]
    fn what_may_have_come_behind_a_body_without_a_length_counts_as_a_begun_head() {
        let cx = Context::from_waker(Waker::noop());
        let heads = Arc::<Heads>::default();
        let connection = Connection::new(Scheme::Http, Arc::clone(&heads));
        let answer = |body, last_read| {
            connection.came(100);
            connection.begin(100, body);
            connection.came(last_read);
            connection.leave(None);
            assert!(connection.flushed());
        };
        answer(None, UNFINISHED_HEADS_BYTES_MAX);
        assert!(!connection.awaits_head(&cx));
        let other = heads.wait(1, Waker::noop());
        assert!(connection.awaits_head(&cx), "it was not counted");
        assert!(!other.is_evicted());
        // The next head is its own, and a body of a known length leaves nothing behind.
        let known = UNFINISHED_HEADS_BYTES_MAX;
        answer(Some(known as u64), known);
        assert!(!connection.awaits_head(&cx));
    }
}
