//! Bodies from the provider: streamed to the caller, or read whole within a limit.
//!
//! A streamed body yields exactly the bytes that were asked for, or an error. Deadlines are the
//! guard's.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use base::BackendName;
use bytes::{Bytes, BytesMut};
use futures_util::stream::Stream;

use super::http1::{ProviderBody, ReadError};
use crate::{Effect, Error, Kind};

/// Reads a body that is wanted whole, but not more than `max` bytes.
pub(super) async fn read_all(mut incoming: ProviderBody, max: usize) -> Result<Bytes, ReadError> {
    let mut whole = BytesMut::new();
    while let Some(piece) = poll_fn(|cx| incoming.poll_piece(cx)).await {
        let piece = piece?;
        if whole.len() + piece.len() > max {
            return Err(ReadError::TooLarge { max });
        }
        whole.extend_from_slice(&piece);
    }
    Ok(whole.freeze())
}

/// The body of an object, of known length.
pub(super) struct Download {
    incoming: ProviderBody,
    missing: u64,
    ended: bool,
    backend: BackendName,
}

impl Download {
    pub(super) fn new(incoming: ProviderBody, length: u64, backend: BackendName) -> Self {
        Self {
            incoming,
            missing: length,
            ended: false,
            backend,
        }
    }

    fn fail(&mut self, cause: ReadError) -> Poll<Option<Result<Bytes, Error>>> {
        self.ended = true;
        let error = Error::new(Kind::Unavailable, Effect::None, &self.backend, "get");
        Poll::Ready(Some(Err(error.with_source(cause))))
    }
}

impl Stream for Download {
    type Item = Result<Bytes, Error>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        if this.ended {
            return Poll::Ready(None);
        }
        match ready!(this.incoming.poll_piece(cx)) {
            Some(Ok(bytes)) => match this.missing.checked_sub(bytes.len() as u64) {
                Some(missing) => {
                    this.missing = missing;
                    Poll::Ready(Some(Ok(bytes)))
                }
                None => this.fail(ReadError::Long),
            },
            Some(Err(error)) => this.fail(error),
            None if this.missing > 0 => this.fail(ReadError::Short {
                missing: this.missing,
            }),
            None => {
                this.ended = true;
                Poll::Ready(None)
            }
        }
    }
}
