//! Request bodies: streamed without copies, of exact length, or cut.
//!
//! The first bytes are waited for before the request begins, so head and first bytes leave in one
//! write, and a body that fails before its first byte never opens a request. A body that fails
//! later, or does not have the length that it was announced with, ends in an error, which closes
//! the connection: the provider sees an incomplete message and stores nothing.

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};

use base::{Checksum, Crc64, Crc64Hasher};
use bytes::Bytes;
use futures_util::StreamExt as _;
use s3wire::chunked::{Encoder, Framing};

use super::cover::TrailerChecksum;
use crate::{Chunks, Payload, PayloadCut};

/// The payload failed, or did not have its announced length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the payload was cut")]
pub(super) struct BodyCut;

/// A payload whose first bytes are there.
pub(super) struct Staged {
    first: Bytes,
    chunks: Chunks,
    length: u64,
    crc64: Option<Arc<OnceLock<Crc64>>>,
}

impl Staged {
    /// Waits for the first bytes; for an empty payload, for its end.
    pub(super) async fn from(payload: Payload) -> Result<Self, PayloadCut> {
        let Payload {
            length,
            mut chunks,
            crc64_later,
            ..
        } = payload;
        let first = loop {
            match (chunks.next().await.transpose()?, length) {
                (Some(first), _) if first.is_empty() => {}
                (Some(first), _) if first.len() as u64 > length => return Err(PayloadCut),
                (Some(first), _) => break first,
                (None, 0) => break Bytes::new(),
                (None, _) => return Err(PayloadCut),
            }
        };
        Ok(Self {
            first,
            chunks,
            length,
            crc64: crc64_later,
        })
    }

    /// Bytes of the payload.
    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// The body of the request; `framing` where it goes in chunks.
    pub(super) fn into_body(self, framing: Option<(Framing, TrailerChecksum)>) -> RequestBody {
        let wire_left = match &framing {
            None => self.length,
            Some((framing, _)) => Encoder::encoded_length(framing, self.length),
        };
        let wrap =
            framing.map(|(framing, trailer)| Wrap::new(framing, trailer, self.crc64, self.length));
        let mut upload = UploadState {
            chunks: self.chunks,
            missing: self.length,
            wrap,
            ready: VecDeque::new(),
            fresh: Vec::new(),
            wire_left,
        };
        upload
            .take(self.first)
            .expect("the first bytes fit into the announced length");
        RequestBody(UploadContent::Streamed(Box::new(upload)))
    }
}

/// The body of any request.
pub(super) struct RequestBody(UploadContent);

enum UploadContent {
    Whole(Option<Bytes>),
    Streamed(Box<UploadState>),
}

impl RequestBody {
    pub(super) fn whole(bytes: Bytes) -> Self {
        Self(UploadContent::Whole((!bytes.is_empty()).then_some(bytes)))
    }

    /// Bytes that are still to come, framing included.
    pub(super) fn length(&self) -> u64 {
        match &self.0 {
            UploadContent::Whole(bytes) => bytes.as_ref().map_or(0, |bytes| bytes.len() as u64),
            UploadContent::Streamed(upload) => upload.wire_left,
        }
    }

    /// Whether all of it has been handed out.
    pub(super) fn is_spent(&self) -> bool {
        self.length() == 0
    }

    /// The next bytes.
    pub(super) fn poll_bytes(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, BodyCut>>> {
        match &mut self.0 {
            UploadContent::Whole(bytes) => Poll::Ready(bytes.take().map(Ok)),
            UploadContent::Streamed(upload) => upload.poll_bytes(cx),
        }
    }
}

struct UploadState {
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
}

struct Wrap {
    encoder: Option<Encoder>,
    sum: Sum,
}

enum Sum {
    None,
    Computed(Box<Crc64Hasher>),
    /// Somebody else computes it, and has it before the last byte comes.
    Awaited(Arc<OnceLock<Crc64>>),
    Given(Crc64),
}

impl Wrap {
    fn new(
        framing: Framing,
        trailer: TrailerChecksum,
        later: Option<Arc<OnceLock<Crc64>>>,
        length: u64,
    ) -> Self {
        let sum = match (&framing, trailer, later) {
            (Framing::Signed(_), _, _) => Sum::None,
            (_, TrailerChecksum::Computed, Some(later)) => Sum::Awaited(later),
            (_, TrailerChecksum::Computed, None) => Sum::Computed(Box::new(Crc64Hasher::new())),
            (_, TrailerChecksum::Given(crc64), _) => Sum::Given(crc64),
        };
        Self {
            encoder: Some(Encoder::new(framing, length)),
            sum,
        }
    }

    fn push(&mut self, chunk: Bytes, out: &mut Vec<Bytes>) -> Result<(), BodyCut> {
        if let Sum::Computed(hasher) = &mut self.sum {
            hasher.update(&chunk);
        }
        let encoder = self.encoder.as_mut().ok_or(BodyCut)?;
        encoder.push(chunk, out).map_err(|_| BodyCut)
    }

    fn finish(&mut self, out: &mut Vec<Bytes>) -> Result<(), BodyCut> {
        let checksum: Option<Checksum> = match &self.sum {
            Sum::None => None,
            Sum::Computed(hasher) => Some(hasher.sum().to_checksum()),
            Sum::Awaited(later) => Some(later.get().ok_or(BodyCut)?.to_checksum()),
            Sum::Given(crc64) => Some(crc64.to_checksum()),
        };
        let encoder = self.encoder.take().ok_or(BodyCut)?;
        encoder.finish(checksum.as_ref(), out).map_err(|_| BodyCut)
    }
}

impl UploadState {
    /// Takes payload; the framing's end goes out with the last of it.
    fn take(&mut self, chunk: Bytes) -> Result<(), BodyCut> {
        self.missing = self
            .missing
            .checked_sub(chunk.len() as u64)
            .ok_or(BodyCut)?;
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

    fn poll_bytes(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyCut>>> {
        loop {
            if let Some(bytes) = self.ready.pop_front() {
                self.wire_left = self.wire_left.saturating_sub(bytes.len() as u64);
                return Poll::Ready(Some(Ok(bytes)));
            }
            if self.missing == 0 {
                return Poll::Ready(None);
            }
            let taken = match ready!(self.chunks.poll_next_unpin(cx)) {
                Some(Ok(chunk)) => self.take(chunk),
                Some(Err(PayloadCut)) | None => Err(BodyCut),
            };
            if let Err(error) = taken {
                return Poll::Ready(Some(Err(error)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use base::ChecksumAlgorithm;
    use futures_util::stream;

    use super::*;

    fn payload(length: u64, pieces: &[Result<&'static str, PayloadCut>]) -> Payload {
        let pieces: Vec<_> = pieces
            .iter()
            .map(|p| p.map(|text| Bytes::from_static(text.as_bytes())))
            .collect();
        Payload::streamed(length, Box::pin(stream::iter(pieces)))
    }

    async fn sent(staged: Staged) -> Result<(String, bool), BodyCut> {
        let mut body = staged.into_body(None);
        let mut text = String::new();
        while let Some(bytes) = std::future::poll_fn(|cx| body.poll_bytes(cx)).await {
            text.push_str(std::str::from_utf8(&bytes?).unwrap());
        }
        Ok((text, body.is_spent()))
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
            assert_eq!(sent(staged).await, Err(BodyCut));
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

    #[tokio::test]
    async fn a_sum_that_somebody_else_computes_is_awaited_and_never_invented() {
        for known in [true, false] {
            let later = Arc::<OnceLock<Crc64>>::default();
            let promised = Payload {
                crc64_later: Some(Arc::clone(&later)),
                ..payload(5, &[Ok("he"), Ok("llo")])
            };
            let staged = Staged::from(promised).await.unwrap();
            let framing = Framing::UnsignedTrailer(ChecksumAlgorithm::Crc64Nvme);
            let mut body = staged.into_body(Some((framing, TrailerChecksum::Computed)));
            if known {
                later.set(Crc64(1)).unwrap();
            }
            let mut sent = Vec::new();
            let ended = loop {
                match std::future::poll_fn(|cx| body.poll_bytes(cx)).await {
                    Some(Ok(bytes)) => sent.extend_from_slice(&bytes),
                    Some(Err(cut)) => break Err(cut),
                    None => break Ok(()),
                }
            };
            assert_eq!(ended.is_ok(), known);
            let sum = Crc64(1).to_checksum().to_base64();
            assert_eq!(String::from_utf8(sent).unwrap().contains(&sum), known);
        }
    }
}
