//! Request bodies: from HTTP frames to the bytes that the client meant.
//!
//! Nothing is read before somebody polls, because the first poll is what invites a client that
//! waits for `100 Continue` to send its body. A clean end of the stream means that framing,
//! signatures and lengths were right; the digests that were declared go along for whoever takes the
//! bytes to compare.

use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use base::{Checksum, ChecksumAlgorithm, Hasher, Md5};
use bytes::{Bytes, BytesMut};
use engine::{BodyError, Declared, Trailer};
use futures_util::stream::Stream;
use futures_util::{StreamExt as _, TryStreamExt as _};
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, Method};
use hyper::body::{Body as _, Incoming};
use s3wire::chunked::{Decoder, Framing, Reject};
use s3wire::headers::{self, BodyClaims};
use s3wire::sigv4::{Chain, PayloadMode};
use s3wire::{Error, ErrorCode};

use super::pace::{Pace, PaceRule};
use super::render::Failure;
use crate::telemetry::metrics::Metrics;

/// What becomes of a request's body; shared by the request, its ticket and its stream.
#[derive(Debug, Default)]
pub(super) struct BodyState {
    bytes: AtomicU64,
    ended: AtomicBool,
    reject: OnceLock<Reject>,
}

impl BodyState {
    /// Bytes that were read, without framing.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Whether the body was read to its end.
    pub(super) fn ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }

    /// Why the framing was refused, where it was.
    pub(super) fn reject(&self) -> Option<Reject> {
        self.reject.get().copied()
    }
}

/// How a request's body is covered by what proved its sender.
#[derive(Debug)]
pub(super) struct Cover {
    /// As `x-amz-content-sha256` says.
    pub(super) payload: PayloadMode,
    /// Continues a signature over chunks; absent where there is no signature.
    pub(super) chain: Option<Chain>,
}

/// The body of an authenticated request, not yet read.
pub(super) struct Intake {
    body: Incoming,
    cover: Cover,
    state: Arc<BodyState>,
    metrics: Arc<Metrics>,
    pace: PaceRule,
}

impl Intake {
    /// Takes a body; nothing is read.
    pub(super) fn new(
        body: Incoming,
        cover: Cover,
        state: Arc<BodyState>,
        metrics: Arc<Metrics>,
        pace: PaceRule,
    ) -> Self {
        Self {
            body,
            cover,
            state,
            metrics,
            pace,
        }
    }

    /// Refuses the hash of another body where there is none: nobody reads it to compare.
    pub(super) fn check_absent(&self, method: &Method, headers: &HeaderMap) -> Result<(), Error> {
        let bodiless = matches!(*method, Method::GET | Method::HEAD | Method::DELETE);
        let length = headers.get(CONTENT_LENGTH);
        let absent = self.body.is_end_stream()
            && length.map_or(bodiless, |length| length.as_bytes() == b"0");
        match self.cover.payload {
            payload @ PayloadMode::Sha256(_) if absent && payload != PayloadMode::EMPTY => {
                Err(ErrorCode::XAmzContentSha256Mismatch.into())
            }
            PayloadMode::Sha256(_) | PayloadMode::Unsigned | PayloadMode::Streaming(_) => Ok(()),
        }
    }

    /// The body as the engine takes it.
    pub(super) fn into_incoming(self, headers: &HeaderMap) -> Result<engine::Incoming, Error> {
        let (length, reader, declared) = self.open(headers)?;
        Ok(engine::Incoming {
            length,
            stream: Box::pin(reader.map_err(engine::Error::Body)),
            declared,
        })
    }

    /// Reads a body that is parsed as a whole, and compares everything that was declared of it.
    ///
    /// The flag tells whether anything but its length vouches for it.
    pub(super) async fn read_whole(
        self,
        headers: &HeaderMap,
        bytes_max: usize,
    ) -> Result<(Bytes, Vouched), Failure> {
        let (length, mut reader, declared) = self.open(headers)?;
        if usize::try_from(length).map_or(true, |length| length > bytes_max) {
            return Err(Error::from(ErrorCode::MaxMessageLengthExceeded).into());
        }
        let mut whole = BytesMut::new();
        while let Some(piece) = reader.next().await {
            let piece = piece.map_err(engine::Error::Body)?;
            if whole.len() + piece.len() > bytes_max {
                return Err(Error::from(ErrorCode::MaxMessageLengthExceeded).into());
            }
            whole.extend_from_slice(&piece);
        }
        let vouched = compare(&whole, length, &declared)?;
        Ok((whole.freeze(), vouched))
    }

    /// The bytes as they come, with their number, for a body whose format is its own.
    pub(super) fn into_pieces(self) -> Result<(u64, Reader), Error> {
        let length = self.body.size_hint().exact();
        let length = length.ok_or(ErrorCode::MissingContentLength)?;
        Ok((length, self.reader(None, None)))
    }

    /// The bytes as they come, whatever their number.
    pub(super) fn into_reader(self) -> Reader {
        self.reader(None, None)
    }

    fn open(mut self, headers: &HeaderMap) -> Result<(u64, Reader, Declared), Error> {
        let claims = headers::body_claims(headers)?;
        let (length, framing, trailer) = match self.cover.payload {
            PayloadMode::Unsigned | PayloadMode::Sha256(_) => {
                let length = match headers.contains_key(CONTENT_LENGTH) {
                    true => self.body.size_hint().exact(),
                    false => None,
                };
                let length = length.ok_or(ErrorCode::MissingContentLength)?;
                check_plain(&claims, length)?;
                (length, None, None)
            }
            PayloadMode::Streaming(variant) => {
                let framing = Framing::new(variant, self.cover.chain.take(), &claims)?;
                let length = claims
                    .decoded_length
                    .ok_or(ErrorCode::MissingContentLength)?;
                self.metrics
                    .auth_streaming_requests
                    .inc([variant.label().into()]);
                let trailer = claims.trailer.map(|algorithm| Trailer {
                    algorithm,
                    value: Arc::default(),
                });
                (length, Some(Decoder::new(framing, length)), trailer)
            }
        };
        let declared = Declared {
            md5: claims.md5,
            sha256: match self.cover.payload {
                PayloadMode::Sha256(sum) => Some(sum),
                PayloadMode::Unsigned | PayloadMode::Streaming(_) => None,
            },
            checksum: claims.checksum,
            trailer: trailer.clone(),
            ..Declared::default()
        };
        let trailer = trailer.map(|trailer| trailer.value);
        Ok((length, self.reader(framing, trailer), declared))
    }

    fn reader(self, framing: Option<Decoder>, trailer: Option<Arc<OnceLock<String>>>) -> Reader {
        Reader {
            body: self.body,
            framed: framing.is_some(),
            decoder: framing,
            ready: VecDeque::new(),
            trailer,
            state: self.state,
            metrics: self.metrics,
            pace: Pace::new(self.pace),
            failed: false,
        }
    }
}

impl fmt::Debug for Intake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Intake").finish_non_exhaustive()
    }
}

/// A framing that is not announced in `x-amz-content-sha256` would be stored with the object. The word
/// `aws-chunked` alone is none: clients leave it in `Content-Encoding` of bodies that they send plainly.
fn check_plain(claims: &BodyClaims, length: u64) -> Result<(), Error> {
    let framed = claims
        .decoded_length
        .is_some_and(|decoded| decoded != length);
    if framed || claims.trailer.is_some() {
        return Err(Error::new(
            ErrorCode::InvalidRequest,
            "A body in chunks or with a trailer needs an x-amz-content-sha256 that says so.",
        ));
    }
    Ok(())
}

/// Whether something but its length vouches for a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Vouched {
    /// A digest does.
    Yes,
    /// Nothing does.
    No,
}

/// Compares a body that is at hand with what was declared.
fn compare(body: &[u8], length: u64, declared: &Declared) -> Result<Vouched, engine::Error> {
    if body.len() as u64 != length {
        return Err(engine::Error::Body(BodyError::Short));
    }
    let mut vouched = Vouched::No;
    if let Some(md5) = declared.md5 {
        if Md5::of(body) != md5 {
            return Err(engine::Error::BadDigest {
                digest: "Content-MD5",
            });
        }
        vouched = Vouched::Yes;
    }
    if let Some(sum) = declared.sha256 {
        if hash(ChecksumAlgorithm::Sha256, body).bytes() != sum {
            return Err(engine::Error::PayloadMismatch);
        }
        vouched = Vouched::Yes;
    }
    let trailer = match &declared.trailer {
        None => None,
        Some(trailer) => {
            let text = trailer.value.get().ok_or(engine::Error::BadTrailer)?;
            let value = Checksum::from_base64(trailer.algorithm, text);
            Some(value.map_err(|_| engine::Error::BadTrailer)?)
        }
    };
    for checksum in [trailer, declared.checksum].into_iter().flatten() {
        if hash(checksum.algorithm(), body) != checksum {
            return Err(engine::Error::BadDigest {
                digest: checksum.algorithm().header(),
            });
        }
        vouched = Vouched::Yes;
    }
    Ok(vouched)
}

fn hash(algorithm: ChecksumAlgorithm, body: &[u8]) -> Checksum {
    let mut hasher = Hasher::new(algorithm);
    hasher.update(body);
    hasher.finish()
}

/// The bytes of a body, as they come.
pub(super) struct Reader {
    body: Incoming,
    framed: bool,
    /// Gone once it was asked for its verdict.
    decoder: Option<Decoder>,
    ready: VecDeque<Bytes>,
    trailer: Option<Arc<OnceLock<String>>>,
    state: Arc<BodyState>,
    metrics: Arc<Metrics>,
    pace: Pace,
    failed: bool,
}

impl Reader {
    fn fail(&mut self, error: BodyError) -> Poll<Option<Result<Bytes, BodyError>>> {
        self.failed = true;
        self.ready.clear();
        Poll::Ready(Some(Err(error)))
    }

    fn refuse(&mut self, reject: Reject) -> Poll<Option<Result<Bytes, BodyError>>> {
        self.metrics
            .auth_streaming_rejections
            .inc([reject.reason().into()]);
        // The first reason counts; there is only one, because the stream ends with it.
        let _ = self.state.reject.set(reject);
        self.fail(BodyError::Refused)
    }

    fn take(&mut self, data: Bytes) -> Result<(), Reject> {
        match &mut self.decoder {
            None => self.ready.push_back(data),
            Some(decoder) => {
                let mut pieces = Vec::new();
                decoder.feed(data, &mut pieces)?;
                self.ready.extend(pieces);
            }
        }
        Ok(())
    }

    fn end(&mut self) -> Result<(), Reject> {
        if let Some(decoder) = self.decoder.take()
            && let Some(checksum) = decoder.finish()?
            && let Some(trailer) = &self.trailer
        {
            // Set once: the decoder is gone now.
            let _ = trailer.set(checksum.to_base64());
        }
        Ok(())
    }
}

impl Stream for Reader {
    type Item = Result<Bytes, BodyError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        loop {
            while let Some(piece) = this.ready.pop_front() {
                if !piece.is_empty() {
                    this.state
                        .bytes
                        .fetch_add(piece.len() as u64, Ordering::Relaxed);
                    return Poll::Ready(Some(Ok(piece)));
                }
            }
            if this.failed || this.state.ended() {
                return Poll::Ready(None);
            }
            match Pin::new(&mut this.body).poll_frame(cx) {
                Poll::Pending => {
                    return match this.pace.poll_too_slow(cx) {
                        Poll::Ready(()) => this.fail(BodyError::Stalled),
                        Poll::Pending => Poll::Pending,
                    };
                }
                Poll::Ready(Some(Ok(frame))) => {
                    if let Ok(data) = frame.into_data() {
                        this.pace.moved(data.len());
                        if let Err(reject) = this.take(data) {
                            return this.refuse(reject);
                        }
                    }
                }
                // The connection ended within the body, or its transfer coding is broken.
                Poll::Ready(Some(Err(_))) => {
                    if this.framed {
                        let reason = Reject::DecodedLengthMismatch.reason();
                        this.metrics.auth_streaming_rejections.inc([reason.into()]);
                    }
                    return this.fail(BodyError::Short);
                }
                Poll::Ready(None) => match this.end() {
                    Ok(()) => this.state.ended.store(true, Ordering::Relaxed),
                    Err(reject) => return this.refuse(reject),
                },
            }
        }
    }
}
