//! What the provider answers with.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use base::{Crc64, ETag};
use bytes::Bytes;
use futures_util::stream::{self, Stream, StreamExt as _};
use http::header::ETAG;
use http::{HeaderMap, HeaderValue, StatusCode};
use hyper::body::{Body, Frame, SizeHint};
use s3wire::headers::ObjectChecksum;

pub(super) struct LateResponse {
    pub(super) headers: HeaderMap,
    pub(super) body: Chunks,
    pub(super) length: u64,
    pub(super) status: StatusCode,
}

pub(super) type Chunks = Pin<Box<dyn Stream<Item = Bytes> + Send>>;

impl LateResponse {
    pub(super) fn whole(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        Self {
            headers: HeaderMap::new(),
            length: bytes.len() as u64,
            body: Box::pin(stream::iter((!bytes.is_empty()).then_some(bytes))),
            status: StatusCode::OK,
        }
    }

    pub(super) fn tagged(etag: &ETag) -> Self {
        let mut headers = HeaderMap::new();
        let text = HeaderValue::try_from(etag.quoted()).expect("a tag is printable");
        headers.insert(ETAG, text);
        Self {
            headers,
            ..Self::whole(Bytes::new())
        }
    }

    /// As Amazon S3 answers a body that it has stored: with the checksum that it computed, too.
    pub(super) fn stored(etag: &ETag, crc64: Crc64) -> Self {
        let mut answer = Self::tagged(etag);
        let checksum = ObjectChecksum {
            checksum: crc64.to_checksum(),
            parts: None,
        };
        s3wire::headers::insert_checksum(&mut answer.headers, &checksum);
        answer
    }
}

pub(super) struct AnswerBody {
    pub(super) chunks: Chunks,
    pub(super) left: u64,
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let next = self.chunks.poll_next_unpin(cx);
        if let Poll::Ready(Some(bytes)) = &next {
            self.left -= bytes.len() as u64;
        }
        next.map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}
