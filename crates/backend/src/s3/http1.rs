//! One HTTP/1.1 connection to a provider, and one exchange on it: RFC 9112, as far as a client needs.
//!
//! The caller's own task does all of it: no task per connection, so no hand-over between threads, and
//! a request's head and first bytes leave in one write. A body arrives in buffers that are used
//! again as soon as their bytes have gone on.
//!
//! The answer is listened for while the request is still being sent: a provider that refuses early is
//! heard, and what it did not take stays unsent.

mod body;
mod head;
mod stream;

use std::collections::VecDeque;
use std::future::{Future as _, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use http::{HeaderMap, StatusCode};
use tokio::io::{AsyncReadExt as _, AsyncWrite as _};

use super::upload::{BodyCut, RequestBody};
pub(super) use body::{ProviderBody, ReadError};
pub(super) use head::HeadError;
use head::{BodyFraming, ResponseHead};
pub(super) use stream::Stream;

/// The largest head of an answer.
const HEAD_BYTES_MAX: usize = 128 << 10;

/// What a connection reads into while no large body is under way.
const BUFFER_BYTES: usize = 16 << 10;

/// What the pieces of a large body are read into.
const BODY_BUFFER_BYTES: usize = 256 << 10;

/// With less room than one part in so many of what is wanted, a buffer is not read into any more.
const ROOM_SHARE: usize = 4;

/// Buffers whose bytes are still on their way, kept to be used again.
const BUFFERS_KEPT_MAX: usize = 4;

/// Bytes of a body that are taken ahead of what the connection takes.
const AHEAD_BYTES_MAX: usize = 128 << 10;

/// Slices of one write.
const SLICES_MAX: usize = 64;

/// Why an exchange came to no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum ExchangeError {
    /// The request's own body ended it.
    #[error("the body of the request")]
    Body(#[source] BodyCut),
    /// The connection failed.
    #[error("the connection failed before the answer")]
    Lost(#[source] io::Error),
    /// What came is no answer.
    #[error("the answer cannot be read")]
    Head(#[source] HeadError),
}

/// A request on its way: its head, and a body of the length that the head declares.
pub(super) struct Outgoing {
    body: RequestBody,
    queue: VecDeque<Bytes>,
    queued: usize,
    /// HEAD has no body in its answer, whatever the answer's headers say.
    bodiless: bool,
    begun: bool,
    /// Nothing that was taken waits within the connection.
    flushed: bool,
}

impl Outgoing {
    pub(super) fn new(head: Vec<u8>, body: RequestBody, bodiless: bool) -> Self {
        let queued = head.len();
        Self {
            body,
            queue: VecDeque::from([head.into()]),
            queued,
            bodiless,
            begun: false,
            flushed: false,
        }
    }

    /// Whether a byte of it may have left.
    pub(super) fn has_begun(&self) -> bool {
        self.begun
    }

    fn is_sent(&self) -> bool {
        self.queued == 0 && self.body.is_spent() && self.flushed
    }

    /// Takes bytes of the body ahead, as far as there are any at hand.
    fn fill(&mut self, cx: &mut Context<'_>) -> Result<(), BodyCut> {
        while self.queued < AHEAD_BYTES_MAX && !self.body.is_spent() {
            match self.body.poll_bytes(cx) {
                Poll::Ready(Some(bytes)) => {
                    let bytes = bytes?;
                    self.queued += bytes.len();
                    self.queue.push_back(bytes);
                }
                Poll::Ready(None) | Poll::Pending => break,
            }
        }
        Ok(())
    }

    fn taken(&mut self, mut count: usize) {
        self.begun = true;
        self.flushed = false;
        self.queued -= count;
        while let Some(first) = self.queue.front_mut() {
            if first.len() > count {
                first.advance(count);
                return;
            }
            count -= first.len();
            self.queue.pop_front();
        }
    }
}

/// The head of an answer, with the body to be read.
pub(super) struct Response {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    /// Whether the connection had taken all of the request when the answer came.
    pub(super) sent: bool,
    framing: BodyFraming,
    reusable: bool,
}

/// A connection between two exchanges, or in one.
pub(super) struct Connection {
    stream: Stream,
    /// What was read and not used yet.
    buffer: BytesMut,
    /// Buffers whose bytes may still be on their way.
    spent: VecDeque<BytesMut>,
    /// A large body has been read since it last rested.
    large: bool,
}

impl Connection {
    pub(super) fn new(stream: Stream) -> Self {
        Self {
            stream,
            buffer: BytesMut::with_capacity(BUFFER_BYTES),
            spent: VecDeque::new(),
            large: false,
        }
    }

    /// Whether an idle connection can take a request: nothing was said on it, its end included.
    pub(super) fn is_quiet(&mut self) -> bool {
        let mut byte = [0; 1];
        let read = pin!(self.stream.read(&mut byte));
        read.poll(&mut Context::from_waker(Waker::noop()))
            .is_pending()
    }

    /// Frees what only a large body needs.
    pub(super) fn rest(&mut self) {
        if std::mem::take(&mut self.large) {
            self.spent.clear();
            self.buffer = BytesMut::with_capacity(BUFFER_BYTES);
        }
    }

    /// Sends a request and waits for the head of its answer.
    pub(super) async fn exchange(
        &mut self,
        request: &mut Outgoing,
    ) -> Result<Response, ExchangeError> {
        let mut broken = None;
        poll_fn(|cx| {
            if broken.is_none() {
                match self.poll_send(request, cx) {
                    Ok(()) => {}
                    // The provider may have said why before it stopped listening.
                    Err(ExchangeError::Lost(error)) if request.begun => broken = Some(error),
                    Err(error) => return Poll::Ready(Err(error)),
                }
            }
            let answer = ready!(self.poll_head(request.bodiless, cx));
            Poll::Ready(match (answer, broken.take()) {
                (Ok(answer), None) => Ok(Response {
                    sent: request.is_sent(),
                    ..answer
                }),
                (Ok(answer), Some(_)) => Ok(Response {
                    sent: false,
                    ..answer
                }),
                (Err(ExchangeError::Lost(_)), Some(error)) => Err(ExchangeError::Lost(error)),
                (Err(error), _) => Err(error),
            })
        })
        .await
    }

    /// Writes as much as the connection takes.
    fn poll_send(
        &mut self,
        request: &mut Outgoing,
        cx: &mut Context<'_>,
    ) -> Result<(), ExchangeError> {
        if request.is_sent() {
            return Ok(());
        }
        loop {
            request.fill(cx).map_err(ExchangeError::Body)?;
            if request.queued == 0 {
                break;
            }
            match self.poll_write(&request.queue, cx) {
                Poll::Ready(Ok(0)) => {
                    return Err(ExchangeError::Lost(io::ErrorKind::WriteZero.into()));
                }
                Poll::Ready(Ok(count)) => request.taken(count),
                Poll::Ready(Err(error)) => return Err(ExchangeError::Lost(error)),
                Poll::Pending => break,
            }
        }
        // What TLS has encrypted still has to leave. A plain connection has nothing to flush.
        match Pin::new(&mut self.stream).poll_flush(cx) {
            Poll::Ready(Err(error)) => return Err(ExchangeError::Lost(error)),
            Poll::Ready(Ok(())) => request.flushed = true,
            Poll::Pending => {}
        }
        Ok(())
    }

    fn poll_write(
        &mut self,
        queue: &VecDeque<Bytes>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let stream = Pin::new(&mut self.stream);
        if let ([only], []) = queue.as_slices() {
            return stream.poll_write(cx, only);
        }
        let mut slices = [io::IoSlice::new(&[]); SLICES_MAX];
        let mut count = 0;
        for (slice, bytes) in slices.iter_mut().zip(queue) {
            *slice = io::IoSlice::new(bytes);
            count += 1;
        }
        stream.poll_write_vectored(cx, &slices[..count])
    }

    fn poll_head(
        &mut self,
        bodiless: bool,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Response, ExchangeError>> {
        loop {
            let parsed = match self.buffer.is_empty() {
                true => None,
                false => ResponseHead::parse(&mut self.buffer).map_err(ExchangeError::Head)?,
            };
            match parsed {
                // Something else will follow: RFC 9110 section 15.2.
                Some(head) if head.status.is_informational() => {}
                Some(head) => {
                    let (framing, definite) =
                        head.framing(bodiless).map_err(ExchangeError::Head)?;
                    return Poll::Ready(Ok(Response {
                        status: head.status,
                        reusable: head.keep_alive && definite,
                        headers: head.headers,
                        sent: false,
                        framing,
                    }));
                }
                None if self.buffer.len() >= HEAD_BYTES_MAX => {
                    return Poll::Ready(Err(ExchangeError::Head(HeadError::TooLarge)));
                }
                None => match ready!(self.poll_read(BUFFER_BYTES, u64::MAX, cx)) {
                    Ok(0) => {
                        let gone = io::ErrorKind::UnexpectedEof.into();
                        return Poll::Ready(Err(ExchangeError::Lost(gone)));
                    }
                    Ok(_) => {}
                    Err(error) => return Poll::Ready(Err(ExchangeError::Lost(error))),
                },
            }
        }
    }

    /// Reads at most `limit` bytes behind what is in the buffer; one of `size` is taken where there
    /// is no room.
    fn poll_read(
        &mut self,
        size: usize,
        limit: u64,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        self.make_room(size);
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let mut room = (&mut self.buffer).limit(limit);
        let read = pin!(self.stream.read_buf(&mut room));
        read.poll(cx)
    }

    /// A buffer with room: what is left of this one, one whose bytes have all gone on, or a new one.
    fn make_room(&mut self, size: usize) {
        if self.buffer.capacity() - self.buffer.len() >= size / ROOM_SHARE {
            return;
        }
        self.large |= size > BUFFER_BYTES;
        if !self.buffer.is_empty() {
            return self.buffer.reserve(size);
        }
        self.spent.push_back(std::mem::take(&mut self.buffer));
        let again = self
            .spent
            .iter_mut()
            .position(|spent| spent.try_reclaim(size));
        self.buffer = match again.and_then(|place| self.spent.remove(place)) {
            Some(buffer) => buffer,
            None => BytesMut::with_capacity(size),
        };
        self.spent.truncate(BUFFERS_KEPT_MAX);
    }
}
