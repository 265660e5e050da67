//! Request bodies: streamed without copies, of exact length, or cut.
//!
//! The first bytes are waited for before the request begins, so head and first bytes leave in one
//! write, and a body that fails before its first byte never opens a request. A body that fails
//! later, or does not have the length that it was announced with, ends in an error, which makes
//! hyper close the connection: the provider sees an incomplete message and stores nothing.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use base::{Checksum, Crc64, Crc64Hasher};
use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::task::AtomicWaker;
use http_body::{Body, Frame, SizeHint};
use s3wire::chunked::{Encoder, Framing};

use super::cover::Trailer;
use crate::{Chunks, Payload, PayloadCut};

/// Why a request body ended early.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum BodyError {
    /// The payload failed, or did not have its announced length.
    #[error("the payload was cut")]
    Cut,
    /// The provider answered before it had the whole body, so nobody needs the rest.
    #[error("the request was answered before its body was sent")]
    Abandoned,
}

/// A payload whose first bytes are there.
pub(super) struct Staged {
    first: Bytes,
    chunks: Chunks,
    length: u64,
}

impl Staged {
    /// Waits for the first bytes; for an empty payload, for its end.
    pub(super) async fn from(payload: Payload) -> Result<Self, PayloadCut> {
        let Payload {
            length, mut chunks, ..
        } = payload;
        loop {
            match (chunks.next().await.transpose()?, length) {
                (Some(first), _) if first.is_empty() => {}
                (Some(first), _) if first.len() as u64 > length => return Err(PayloadCut),
                (Some(first), _) => {
                    return Ok(Self {
                        first,
                        chunks,
                        length,
                    });
                }
                (None, 0) => {
                    return Ok(Self {
                        first: Bytes::new(),
                        chunks,
                        length,
                    });
                }
                (None, _) => return Err(PayloadCut),
            }
        }
    }

    /// Bytes of the payload.
    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// The body of the request; `framing` where it goes in chunks.
    pub(super) fn into_body(
        self,
        framing: Option<(Framing, Trailer)>,
    ) -> (RequestBody, Arc<Delivery>) {
        let delivery = Arc::new(Delivery::default());
        let wire_left = match &framing {
            None => self.length,
            Some((framing, _)) => Encoder::encoded_length(framing, self.length),
        };
        delivery.complete.store(wire_left == 0, Ordering::Release);
        let wrap = framing.map(|(framing, trailer)| Wrap::new(framing, trailer, self.length));
        let mut upload = Upload {
            chunks: self.chunks,
            missing: self.length,
            wrap,
            ready: VecDeque::new(),
            fresh: Vec::new(),
            wire_left,
            delivery: Arc::clone(&delivery),
        };
        upload
            .take(self.first)
            .expect("the first bytes fit into the announced length");
        (RequestBody(Content::Streamed(Box::new(upload))), delivery)
    }
}

/// How far a body got, shared between the body and whoever waits for the answer.
#[derive(Debug, Default)]
pub(super) struct Delivery {
    complete: AtomicBool,
    abandoned: AtomicBool,
    waker: AtomicWaker,
}

impl Delivery {
    /// Whether the connection took the last byte.
    pub(super) fn is_complete(&self) -> bool {
        self.complete.load(Ordering::Acquire)
    }

    /// Ends a body that nobody needs any more: its payload is dropped, the connection closed.
    pub(super) fn abandon(&self) {
        self.abandoned.store(true, Ordering::Release);
        self.waker.wake();
    }
}

/// The body of any request.
pub(super) struct RequestBody(Content);

enum Content {
    Whole(Option<Bytes>),
    Streamed(Box<Upload>),
}

impl RequestBody {
    pub(super) fn whole(bytes: Bytes) -> Self {
        Self(Content::Whole((!bytes.is_empty()).then_some(bytes)))
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let next = match &mut self.get_mut().0 {
            Content::Whole(bytes) => bytes.take().map(Ok),
            Content::Streamed(upload) => ready!(upload.poll_bytes(cx)),
        };
        Poll::Ready(next.map(|bytes| bytes.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Content::Whole(bytes) => bytes.is_none(),
            Content::Streamed(upload) => upload.wire_left == 0,
        }
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(match &self.0 {
            Content::Whole(bytes) => bytes.as_ref().map_or(0, |bytes| bytes.len() as u64),
            Content::Streamed(upload) => upload.wire_left,
        })
    }
}

struct Upload {
    chunks: Chunks,
    /// Payload bytes that have not come yet.
    missing: u64,
    wrap: Option<Wrap>,
    /// What can go out.
    ready: VecDeque<Bytes>,
    /// Where the encoder puts its output, kept for its capacity.
    fresh: Vec<Bytes>,
    /// Bytes that the connection has not taken yet, framing included.
    wire_left: u64,
    delivery: Arc<Delivery>,
}

struct Wrap {
    encoder: Option<Encoder>,
    sum: Sum,
}

enum Sum {
    None,
    Computed(Box<Crc64Hasher>),
    Given(Crc64),
}

impl Wrap {
    fn new(framing: Framing, trailer: Trailer, length: u64) -> Self {
        let sum = match (&framing, trailer) {
            (Framing::Signed(_), _) => Sum::None,
            (_, Trailer::Computed) => Sum::Computed(Box::new(Crc64Hasher::new())),
            (_, Trailer::Given(crc64)) => Sum::Given(crc64),
        };
        Self {
            encoder: Some(Encoder::new(framing, length)),
            sum,
        }
    }

    fn push(&mut self, chunk: Bytes, out: &mut Vec<Bytes>) -> Result<(), BodyError> {
        if let Sum::Computed(hasher) = &mut self.sum {
            hasher.update(&chunk);
        }
        let encoder = self.encoder.as_mut().ok_or(BodyError::Cut)?;
        encoder.push(chunk, out).map_err(|_| BodyError::Cut)
    }

    fn finish(&mut self, out: &mut Vec<Bytes>) -> Result<(), BodyError> {
        let checksum: Option<Checksum> = match &self.sum {
            Sum::None => None,
            Sum::Computed(hasher) => Some(hasher.sum().to_checksum()),
            Sum::Given(crc64) => Some(crc64.to_checksum()),
        };
        let encoder = self.encoder.take().ok_or(BodyError::Cut)?;
        encoder
            .finish(checksum.as_ref(), out)
            .map_err(|_| BodyError::Cut)
    }
}

impl Upload {
    /// Takes payload; the framing's end goes out with the last of it.
    fn take(&mut self, chunk: Bytes) -> Result<(), BodyError> {
        self.missing = self
            .missing
            .checked_sub(chunk.len() as u64)
            .ok_or(BodyError::Cut)?;
        let Some(wrap) = &mut self.wrap else {
            if !chunk.is_empty() {
                self.ready.push_back(chunk);
            }
            return Ok(());
        };
        if !chunk.is_empty() {
            wrap.push(chunk, &mut self.fresh)?;
        }
        if self.missing == 0 {
            wrap.finish(&mut self.fresh)?;
        }
        self.ready.extend(self.fresh.drain(..));
        Ok(())
    }

    fn poll_bytes(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        self.delivery.waker.register(cx.waker());
        if self.delivery.abandoned.load(Ordering::Acquire) {
            return Poll::Ready(Some(Err(BodyError::Abandoned)));
        }
        loop {
            if let Some(bytes) = self.ready.pop_front() {
                self.wire_left = self.wire_left.saturating_sub(bytes.len() as u64);
                if self.wire_left == 0 {
                    self.delivery.complete.store(true, Ordering::Release);
                }
                return Poll::Ready(Some(Ok(bytes)));
            }
            if self.missing == 0 {
                return Poll::Ready(None);
            }
            let taken = match ready!(self.chunks.poll_next_unpin(cx)) {
                Some(Ok(chunk)) => self.take(chunk),
                Some(Err(PayloadCut)) | None => Err(BodyError::Cut),
            };
            if let Err(error) = taken {
                return Poll::Ready(Some(Err(error)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::stream;

    use super::*;

    fn payload(length: u64, pieces: &[Result<&'static str, PayloadCut>]) -> Payload {
        let pieces: Vec<_> = pieces
            .iter()
            .map(|p| p.map(|text| Bytes::from_static(text.as_bytes())))
            .collect();
        Payload::streamed(length, Box::pin(stream::iter(pieces)))
    }

    async fn sent(staged: Staged) -> Result<(String, bool), BodyError> {
        let (mut body, delivery) = staged.into_body(None);
        let mut text = String::new();
        while let Some(frame) = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await
        {
            let data = frame?.into_data().unwrap();
            text.push_str(std::str::from_utf8(&data).unwrap());
        }
        Ok((text, delivery.is_complete()))
    }

    #[tokio::test]
    async fn a_payload_of_another_length_is_cut() {
        let whole = Staged::from(payload(5, &[Ok(""), Ok("he"), Ok("llo")]))
            .await
            .unwrap();
        assert_eq!(sent(whole).await, Ok(("hello".to_owned(), true)));
        for pieces in [
            &[Ok("he"), Err(PayloadCut)][..],
            &[Ok("he"), Ok("l")],
            &[Ok("he"), Ok("llo!")],
        ] {
            let staged = Staged::from(payload(5, pieces)).await.unwrap();
            assert_eq!(sent(staged).await, Err(BodyError::Cut));
        }
    }

    #[tokio::test]
    async fn a_payload_that_fails_before_its_first_byte_never_begins() {
        assert!(
            Staged::from(payload(5, &[Ok(""), Err(PayloadCut)]))
                .await
                .is_err()
        );
        assert!(Staged::from(payload(5, &[])).await.is_err());
        assert!(Staged::from(payload(0, &[Err(PayloadCut)])).await.is_err());
        assert!(Staged::from(payload(0, &[Ok("x")])).await.is_err());
        assert!(Staged::from(payload(5, &[Ok("hello!")])).await.is_err());
        assert!(Staged::from(payload(0, &[])).await.is_ok());
    }
}
