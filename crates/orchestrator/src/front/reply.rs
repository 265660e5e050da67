//! The bodies of answers.
//!
//! A body is whole or the connection is cut: an error here makes the server close without the end
//! that the client was promised. The request's ticket rides along and is handed to the connection
//! when the last byte was taken, so that it ends when that byte has left.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use engine::ReadStream;
use futures_util::stream::Stream as _;
use hyper::body::{Body, Frame, SizeHint};
use s3wire::xml::DECLARATION;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};
use tracing::warn;

use super::io::Connection;
use super::ticket::Ticket;

/// Between two blanks that keep the connection of a slow answer alive.
const BLANK_EVERY: Duration = Duration::from_secs(5);

/// What an answer's body is.
#[derive(Debug)]
pub(super) enum Content {
    /// Nothing.
    Empty,
    /// Bytes that are at hand; not empty.
    Whole(Bytes),
    /// Bytes of an object.
    Object {
        /// The bytes.
        stream: ReadStream,
        /// How many are still to come.
        missing: u64,
    },
    /// An XML document that takes its time.
    Late(Late),
}

/// The end of an answer that was begun before its outcome was known.
#[derive(Debug)]
pub(super) struct LateEnd {
    /// The document, with its declaration.
    pub(super) document: String,
    /// What the audit line says of a failure.
    pub(super) error: Option<String>,
}

type LateFuture = Pin<Box<dyn Future<Output = LateEnd> + Send>>;

/// An XML document whose content is not known yet: its declaration, blanks, the rest.
pub(super) struct Late {
    future: LateFuture,
    blanks: Interval,
    begun: bool,
}

impl Late {
    /// Begins to answer; what comes out of the future ends it.
    pub(super) fn new(future: LateFuture) -> Self {
        let mut blanks = interval_at(Instant::now() + BLANK_EVERY, BLANK_EVERY);
        blanks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            future,
            blanks,
            begun: false,
        }
    }
}

impl fmt::Debug for Late {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Late").finish_non_exhaustive()
    }
}

/// Why a body was cut; the client sees only that it was.
#[derive(Debug, thiserror::Error)]
pub enum Cut {
    /// The object could not be read to its end.
    #[error("reading the object")]
    Read(#[source] engine::Error),
    /// The object yielded fewer or more bytes than it has.
    #[error("the object's bytes are not as many as its range has")]
    Length,
}

/// The body of an answer.
#[derive(Debug)]
pub struct Reply {
    content: Content,
    ticket: Option<Box<Ticket>>,
    connection: Arc<Connection>,
}

impl Reply {
    pub(super) fn new(
        content: Content,
        ticket: Option<Box<Ticket>>,
        connection: Arc<Connection>,
    ) -> Self {
        Self {
            content,
            ticket,
            connection,
        }
    }

    fn sent(&mut self, bytes: Bytes) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        if let Some(ticket) = &mut self.ticket {
            ticket.response_size += bytes.len() as u64;
        }
        Poll::Ready(Some(Ok(Frame::data(bytes))))
    }

    fn cut(&mut self, cut: Cut) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        let text = base::report(&cut).to_string();
        warn!(error = text, "response cut off");
        if let Some(ticket) = &mut self.ticket {
            ticket.error = Some(text.into());
        }
        Poll::Ready(Some(Err(cut)))
    }
}

impl Body for Reply {
    type Data = Bytes;
    type Error = Cut;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        let this = self.get_mut();
        match std::mem::replace(&mut this.content, Content::Empty) {
            Content::Empty => Poll::Ready(None),
            Content::Whole(bytes) => this.sent(bytes),
            Content::Object {
                mut stream,
                missing,
            } => match Pin::new(&mut stream).poll_next(cx) {
                Poll::Pending => {
                    this.content = Content::Object { stream, missing };
                    Poll::Pending
                }
                Poll::Ready(Some(Ok(bytes))) => {
                    let Some(missing) = missing.checked_sub(bytes.len() as u64) else {
                        return this.cut(Cut::Length);
                    };
                    if missing > 0 {
                        this.content = Content::Object { stream, missing };
                    }
                    this.sent(bytes)
                }
                Poll::Ready(Some(Err(error))) => this.cut(Cut::Read(error)),
                Poll::Ready(None) => this.cut(Cut::Length),
            },
            Content::Late(mut late) => {
                if !late.begun {
                    late.begun = true;
                    this.content = Content::Late(late);
                    return this.sent(Bytes::from_static(DECLARATION.as_bytes()));
                }
                match late.future.as_mut().poll(cx) {
                    Poll::Ready(end) => {
                        if let (Some(ticket), Some(error)) = (&mut this.ticket, end.error) {
                            ticket.error = Some(error.into());
                        }
                        let rest = end.document.strip_prefix(DECLARATION);
                        let rest = rest.unwrap_or(&end.document).to_owned();
                        this.sent(rest.into())
                    }
                    Poll::Pending => {
                        let tick = late.blanks.poll_tick(cx);
                        this.content = Content::Late(late);
                        match tick {
                            Poll::Ready(_) => this.sent(Bytes::from_static(b" ")),
                            Poll::Pending => Poll::Pending,
                        }
                    }
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.content, Content::Empty)
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Empty => SizeHint::with_exact(0),
            Content::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Content::Object { missing, .. } => SizeHint::with_exact(*missing),
            Content::Late(_) => SizeHint::default(),
        }
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        let mut ticket = self.ticket.take();
        if matches!(self.content, Content::Empty) {
            return self.connection.leave(ticket);
        }
        if let Some(ticket) = &mut ticket
            && ticket.error.is_none()
        {
            ticket.error = Some("the client went away before the end of the answer".into());
        }
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;
    use tokio::time::sleep;

    use super::super::site::Scheme;
    use super::*;

    fn late(takes: Duration) -> Reply {
        let end = async move {
            sleep(takes).await;
            LateEnd {
                document: format!("{DECLARATION}<Done/>"),
                error: None,
            }
        };
        Reply::new(
            Content::Late(Late::new(Box::pin(end))),
            None,
            Connection::new(Scheme::Http, Arc::default()),
        )
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_document_begins_with_its_declaration_and_is_kept_alive_by_blanks() {
        let mut reply = late(BLANK_EVERY * 3 + BLANK_EVERY / 2);
        let mut pieces = Vec::new();
        while let Some(frame) = reply.frame().await {
            let piece = frame.unwrap().into_data().unwrap();
            pieces.push(String::from_utf8(piece.to_vec()).unwrap());
        }
        assert_eq!(pieces, [DECLARATION, " ", " ", " ", "<Done/>"]);
        assert!(reply.is_end_stream());
    }
}
