//! Bodies on their way to a provider.

use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use futures_util::stream::{self, Stream};

/// The body was not finished on purpose: the client went away, lied about it, or lost the race.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the body was cut off before its end")]
pub struct PayloadCut;

/// The pieces of a body.
pub type Chunks = Pin<Box<dyn Stream<Item = Result<Bytes, PayloadCut>> + Send>>;

/// A body of known length for one attempt.
///
/// The stream yields exactly `length` bytes, or ends with [`PayloadCut`]; an implementation that
/// sees it end early treats that as cut too. The last bytes may be long in coming: they are withheld
/// until the intent is durable and the body verified.
pub struct Payload {
    /// Bytes that the stream yields.
    pub length: u64,
    /// The bytes.
    pub chunks: Chunks,
    /// The CRC-64/NVME of the bytes, where it is known before the first one is sent. It then goes
    /// into a header (where the provider verifies such) instead of a trailer.
    pub crc64: Option<base::Crc64>,
    /// Where the same sum will be before the last byte is released, so that nobody computes it twice.
    pub crc64_later: Option<Arc<OnceLock<base::Crc64>>>,
    /// The SHA-256 of the bytes, where the client declared it and it will be verified: signs the
    /// payload on plain HTTP at no cost.
    pub sha256: Option<[u8; 32]>,
    /// The MD5 of the bytes, where it is known before the first one is sent.
    pub md5: Option<base::Md5>,
}

impl Payload {
    /// A body that is in memory already.
    pub fn from_bytes(bytes: Bytes) -> Self {
        Self {
            length: bytes.len() as u64,
            crc64: Some(base::Crc64::of(&bytes)),
            crc64_later: None,
            sha256: None,
            md5: None,
            chunks: Box::pin(stream::iter((!bytes.is_empty()).then_some(Ok(bytes)))),
        }
    }

    /// A body that comes in pieces.
    pub fn streamed(length: u64, chunks: Chunks) -> Self {
        Self {
            length,
            chunks,
            crc64: None,
            crc64_later: None,
            sha256: None,
            md5: None,
        }
    }
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Payload")
            .field("length", &self.length)
            .finish_non_exhaustive()
    }
}
