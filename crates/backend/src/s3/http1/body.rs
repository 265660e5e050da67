//! The body of an answer, out of the connection's buffers without a copy.

use std::io;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};

use super::head::BodyFraming;
use super::{BODY_BUFFER_BYTES, BUFFER_BYTES, Connection, Response};
use crate::s3::transport::Home;

/// The longest line of a chunked body: a size with its extensions, or a trailer.
const LINE_BYTES_MAX: usize = 8 << 10;

/// The most trailer lines.
const TRAILERS_MAX: u32 = 100;

/// Why a body could not be read to its end.
#[derive(Debug, thiserror::Error)]
pub(in crate::s3) enum ReadError {
    #[error("the connection failed within the body")]
    Cut(#[source] io::Error),
    #[error("the connection ended within the body")]
    Ended,
    #[error("the chunks of the body are malformed")]
    Chunks,
    #[error("the body ended {missing} bytes early")]
    Short { missing: u64 },
    #[error("the body is longer than it should be")]
    Long,
    #[error("the body has more than {max} bytes")]
    TooLarge { max: usize },
}

/// Where a body stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Left {
    /// Bytes of a known length.
    Length(u64),
    /// The line before a chunk.
    ChunkSize,
    /// Bytes of a chunk.
    Chunk(u64),
    /// The line end behind a chunk.
    ChunkEnd,
    /// Lines behind the last chunk.
    Trailers(u32),
    /// Whatever comes until the connection ends.
    Close,
    /// Nothing.
    Done,
}

/// A body that is being read. The connection goes home when the last byte was read, and is closed
/// where that does not happen.
pub(in crate::s3) struct ProviderBody {
    connection: Option<Connection>,
    home: Option<Arc<Home>>,
    left: Left,
}

impl ProviderBody {
    /// The body that follows on the connection.
    pub(in crate::s3) fn new(connection: Connection, answer: &Response, home: Arc<Home>) -> Self {
        let left = match answer.framing {
            BodyFraming::Length(length) => Left::Length(length),
            BodyFraming::Chunked => Left::ChunkSize,
            BodyFraming::Close => Left::Close,
        };
        let mut incoming = Self {
            connection: Some(connection),
            // What was not sent stands between this answer and the next.
            home: (answer.reusable && answer.sent).then_some(home),
            left,
        };
        if incoming.left == Left::Length(0) {
            incoming.finish();
        }
        incoming
    }

    fn finish(&mut self) {
        self.left = Left::Done;
        let connection = self.connection.take();
        if let (Some(connection), Some(home)) = (connection, self.home.take())
            // Bytes that nobody asked for are no beginning of the next answer.
            && connection.buffer.is_empty()
        {
            home.take_back(connection);
        }
    }

    fn fail(&mut self, error: ReadError) -> Poll<Option<Result<Bytes, ReadError>>> {
        self.left = Left::Done;
        self.connection = None;
        Poll::Ready(Some(Err(error)))
    }

    /// The next bytes, as they come; never empty.
    pub(in crate::s3) fn poll_piece(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, ReadError>>> {
        loop {
            let Some(connection) = &mut self.connection else {
                return Poll::Ready(None);
            };
            match self.left {
                Left::Done => return Poll::Ready(None),
                Left::Length(left) | Left::Chunk(left) => {
                    if connection.buffer.is_empty() {
                        // A chunk has something behind it that is wanted too.
                        let limit = match self.left {
                            Left::Length(left) => left,
                            _ => u64::MAX,
                        };
                        match ready!(connection.poll_body(left, limit, cx)) {
                            Ok(0) => return self.fail(ReadError::Ended),
                            Ok(_) => {}
                            Err(error) => return self.fail(ReadError::Cut(error)),
                        }
                    }
                    let piece = connection.take(left);
                    let rest = left - piece.len() as u64;
                    match (self.left, rest) {
                        (Left::Length(_), 0) => self.finish(),
                        (Left::Length(_), rest) => self.left = Left::Length(rest),
                        (_, 0) => self.left = Left::ChunkEnd,
                        (_, rest) => self.left = Left::Chunk(rest),
                    }
                    return Poll::Ready(Some(Ok(piece)));
                }
                Left::Close => {
                    if connection.buffer.is_empty() {
                        match ready!(connection.poll_body(u64::MAX, u64::MAX, cx)) {
                            Ok(0) => {
                                self.finish();
                                return Poll::Ready(None);
                            }
                            Ok(_) => {}
                            Err(error) => return self.fail(ReadError::Cut(error)),
                        }
                    }
                    return Poll::Ready(Some(Ok(connection.take(u64::MAX))));
                }
                Left::ChunkSize | Left::ChunkEnd | Left::Trailers(_) => {
                    let line = match ready!(connection.poll_line(cx)) {
                        Ok(line) => line,
                        Err(error) => return self.fail(error),
                    };
                    match self.left.after(&line) {
                        Some(Left::Done) => {
                            self.finish();
                            return Poll::Ready(None);
                        }
                        Some(left) => self.left = left,
                        None => return self.fail(ReadError::Chunks),
                    }
                }
            }
        }
    }
}

impl Left {
    /// What follows a line of the chunked coding (RFC 9112 section 7.1); nothing where the line does
    /// not belong there.
    fn after(self, line: &[u8]) -> Option<Self> {
        match self {
            Self::ChunkSize => {
                // What stands behind a semicolon is an extension, which nobody knows.
                let size = line.split(|byte| *byte == b';').next()?.trim_ascii_end();
                let plain = !size.is_empty() && size.iter().all(u8::is_ascii_hexdigit);
                let text = std::str::from_utf8(size).ok().filter(|_| plain)?;
                match u64::from_str_radix(text, 16).ok()? {
                    0 => Some(Self::Trailers(0)),
                    size => Some(Self::Chunk(size)),
                }
            }
            Self::ChunkEnd => line.is_empty().then_some(Self::ChunkSize),
            Self::Trailers(_) if line.is_empty() => Some(Self::Done),
            Self::Trailers(count) => (count < TRAILERS_MAX).then_some(Self::Trailers(count + 1)),
            Self::Length(_) | Self::Chunk(_) | Self::Close | Self::Done => None,
        }
    }
}

impl Connection {
    fn poll_body(
        &mut self,
        left: u64,
        limit: u64,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let size = match left >= BODY_BUFFER_BYTES as u64 {
            true => BODY_BUFFER_BYTES,
            false => BUFFER_BYTES,
        };
        self.poll_read(size, limit, cx)
    }

    fn take(&mut self, limit: u64) -> Bytes {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let count = self.buffer.len().min(limit);
        self.buffer.split_to(count).freeze()
    }

    /// The next line, without its end.
    fn poll_line(&mut self, cx: &mut Context<'_>) -> Poll<Result<Bytes, ReadError>> {
        let mut looked = 0;
        loop {
            let found = self.buffer[looked..].iter().position(|byte| *byte == b'\n');
            if let Some(end) = found.map(|at| looked + at) {
                let mut line = self.buffer.split_to(end).freeze();
                self.buffer.advance(1);
                if line.last() == Some(&b'\r') {
                    line.truncate(line.len() - 1);
                }
                return Poll::Ready(Ok(line));
            }
            looked = self.buffer.len();
            if looked > LINE_BYTES_MAX {
                return Poll::Ready(Err(ReadError::Chunks));
            }
            match ready!(self.poll_read(BUFFER_BYTES, u64::MAX, cx)) {
                Ok(0) => return Poll::Ready(Err(ReadError::Ended)),
                Ok(_) => {}
                Err(error) => return Poll::Ready(Err(ReadError::Cut(error))),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_chunked_coding_stands_where_it_belongs() {
        for (left, line, after) in [
            (Left::ChunkSize, "1f", Some(Left::Chunk(31))),
            (Left::ChunkSize, "000a;name=value", Some(Left::Chunk(10))),
            (Left::ChunkSize, "5 ", Some(Left::Chunk(5))),
            (Left::ChunkSize, "0", Some(Left::Trailers(0))),
            (Left::ChunkSize, "", None),
            (Left::ChunkSize, "+5", None),
            (Left::ChunkSize, "0x5", None),
            (Left::ChunkSize, "fffffffffffffffff", None),
            (Left::ChunkEnd, "", Some(Left::ChunkSize)),
            (Left::ChunkEnd, "5", None),
            (Left::Trailers(0), "", Some(Left::Done)),
            (Left::Trailers(0), "x-a: 1", Some(Left::Trailers(1))),
            (Left::Trailers(TRAILERS_MAX), "x-a: 1", None),
        ] {
            assert_eq!(left.after(line.as_bytes()), after, "{left:?} {line:?}");
        }
    }
}
