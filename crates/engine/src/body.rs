//! Bodies from clients, and the one place that compares them with what the client declared.

use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};

use base::{Checksum, ChecksumAlgorithm, Crc64, Crc64Hasher, Hasher, Md5, Md5Hasher};
use bytes::Bytes;
use futures_util::stream::{self, Stream};
use metastore::model::StoredChecksum;

use crate::{BodyError, Error, Result};

/// The chunks of a body, decoded, without framing. What a client did wrong is [`Error::Body`]; where the
/// bytes are copied from an object of ours, the error is that of reading it.
pub type BodyStream = Pin<Box<dyn Stream<Item = Result<Bytes>> + Send>>;

/// A trailer that the client announced: its value is there when the stream has ended.
#[derive(Debug, Clone)]
pub struct Trailer {
    /// The algorithm.
    pub algorithm: ChecksumAlgorithm,
    /// The base64 value, set by the front before the stream's end.
    pub value: Arc<OnceLock<String>>,
}

/// What the client said of a body beforehand. Everything is checked before a commit.
#[derive(Debug, Clone, Default)]
pub struct Declared {
    /// `Content-MD5`
    pub md5: Option<Md5>,
    /// `x-amz-content-sha256`, where it is a hash.
    pub sha256: Option<[u8; 32]>,
    /// An `x-amz-checksum-*` header.
    pub checksum: Option<Checksum>,
    /// An announced trailer.
    pub trailer: Option<Trailer>,
    /// Our own sum, where the bytes come from copies of ours.
    pub crc64: Option<Crc64>,
    /// An algorithm to compute although the client gave no value (an upload that announced one).
    pub compute: Option<ChecksumAlgorithm>,
}

/// A body that a client is sending. Not polled before a backend was chosen, so that a refusal costs
/// the client nothing.
pub struct Incoming {
    /// Its length in bytes after decoding.
    pub length: u64,
    /// The bytes. A clean end means that framing and signatures were right.
    pub stream: BodyStream,
    /// What was declared.
    pub declared: Declared,
}

impl Incoming {
    /// A body that is in memory, with nothing declared.
    pub fn from_bytes(bytes: Bytes) -> Self {
        Self {
            length: bytes.len() as u64,
            stream: Box::pin(stream::iter((!bytes.is_empty()).then_some(Ok(bytes)))),
            declared: Declared::default(),
        }
    }
}

impl fmt::Debug for Incoming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Incoming")
            .field("length", &self.length)
            .finish_non_exhaustive()
    }
}

/// Whether the body's MD5 is needed although the client did not declare one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WantMd5 {
    /// It becomes the entity tag, or proves a copy.
    Yes,
    /// The backend's reply will carry it.
    No,
}

/// What is known of a body that passed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Digests {
    /// Our own sum.
    pub(crate) crc64: Crc64,
    /// The MD5, where it was wanted or declared.
    pub(crate) md5: Option<Md5>,
    /// The checksum that the client gave or asked for.
    pub(crate) checksum: Option<StoredChecksum>,
}

/// Hashes what passes, each hash only when something needs it, and compares at the end.
pub(crate) struct Verifier {
    declared: Declared,
    length: u64,
    seen: u64,
    crc64: Crc64Hasher,
    md5: Option<Md5Hasher>,
    sha256: Option<Hasher>,
    checksum: Option<Hasher>,
}

impl Verifier {
    pub(crate) fn new(length: u64, declared: Declared, want_md5: WantMd5) -> Self {
        let md5 = declared.md5.is_some() || want_md5 == WantMd5::Yes;
        let header = declared.checksum.as_ref().map(Checksum::algorithm);
        let trailer = declared.trailer.as_ref().map(|trailer| trailer.algorithm);
        let algorithm = trailer.or(header).or(declared.compute);
        Self {
            length,
            seen: 0,
            crc64: Crc64Hasher::new(),
            md5: md5.then(Md5Hasher::new),
            sha256: declared
                .sha256
                .is_some()
                .then(|| Hasher::new(ChecksumAlgorithm::Sha256)),
            // Our own sum serves where the client's is the same algorithm.
            checksum: algorithm
                .filter(|algorithm| *algorithm != ChecksumAlgorithm::Crc64Nvme)
                .map(Hasher::new),
            declared,
        }
    }

    /// Takes the next bytes.
    pub(crate) fn update(&mut self, bytes: &[u8]) -> Result<()> {
        self.seen += bytes.len() as u64;
        if self.seen > self.length {
            return Err(Error::Body(BodyError::Long));
        }
        self.crc64.update(bytes);
        if let Some(md5) = &mut self.md5 {
            md5.update(bytes);
        }
        if let Some(sha256) = &mut self.sha256 {
            sha256.update(bytes);
        }
        if let Some(checksum) = &mut self.checksum {
            checksum.update(bytes);
        }
        Ok(())
    }

    /// Compares everything that was declared. Called after the stream ended cleanly, before the last
    /// bytes go on.
    pub(crate) fn finish(self) -> Result<Digests> {
        if self.seen < self.length {
            return Err(Error::Body(BodyError::Short));
        }
        let crc64 = self.crc64.sum();
        if self
            .declared
            .crc64
            .is_some_and(|expected| expected != crc64)
        {
            return Err(Error::Corrupt);
        }
        let md5 = self.md5.map(Md5Hasher::finish);
        if self.declared.md5.is_some() && self.declared.md5 != md5 {
            return Err(Error::BadDigest {
                digest: "Content-MD5",
            });
        }
        let sha256 = self.sha256.map(Hasher::finish);
        if let (Some(declared), Some(computed)) = (self.declared.sha256, sha256)
            && declared != computed.bytes()
        {
            return Err(Error::PayloadMismatch);
        }
        let trailer = match &self.declared.trailer {
            None => None,
            Some(trailer) => {
                let text = trailer.value.get().ok_or(Error::BadTrailer)?;
                let value = Checksum::from_base64(trailer.algorithm, text)
                    .map_err(|_| Error::BadTrailer)?;
                Some(value)
            }
        };
        let computed = match self.checksum.map(Hasher::finish) {
            Some(computed) => computed,
            None => crc64.to_checksum(),
        };
        for declared in [trailer, self.declared.checksum].into_iter().flatten() {
            if declared.algorithm() != computed.algorithm() || declared != computed {
                return Err(Error::BadDigest {
                    digest: declared.algorithm().header(),
                });
            }
        }
        let keep = trailer.is_some()
            || self.declared.checksum.is_some()
            || self.declared.compute.is_some();
        let checksum = keep.then(|| StoredChecksum::full_object(computed));
        Ok(Digests {
            crc64,
            md5,
            checksum,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(body: &[u8], declared: Declared) -> Result<Digests> {
        let mut verifier = Verifier::new(5, declared, WantMd5::No);
        verifier.update(body)?;
        verifier.finish()
    }

    fn sum(algorithm: ChecksumAlgorithm, body: &[u8]) -> Checksum {
        let mut hasher = Hasher::new(algorithm);
        hasher.update(body);
        hasher.finish()
    }

    #[test]
    fn every_declared_digest_is_compared() {
        let good = b"hello";
        assert!(check(good, Declared::default()).is_ok());
        let md5 = |body| Declared {
            md5: Some(Md5::of(body)),
            ..Declared::default()
        };
        assert!(check(good, md5(good)).is_ok());
        assert!(matches!(
            check(good, md5(b"hullo")),
            Err(Error::BadDigest { .. })
        ));
        for algorithm in ChecksumAlgorithm::ALL {
            let header = |body| Declared {
                checksum: Some(sum(algorithm, body)),
                ..Declared::default()
            };
            assert!(check(good, header(good)).is_ok(), "{algorithm:?}");
            assert!(matches!(
                check(good, header(b"hullo")),
                Err(Error::BadDigest { .. })
            ));
            let trailer = |text: Option<String>| {
                let value = Arc::new(OnceLock::new());
                if let Some(text) = text {
                    value.set(text).unwrap();
                }
                Declared {
                    trailer: Some(Trailer { algorithm, value }),
                    ..Declared::default()
                }
            };
            let right = sum(algorithm, good);
            let kept = check(good, trailer(Some(right.to_base64())))
                .unwrap()
                .checksum
                .unwrap();
            assert_eq!(kept.checksum, right);
            let wrong = sum(algorithm, b"hullo").to_base64();
            assert!(matches!(
                check(good, trailer(Some(wrong))),
                Err(Error::BadDigest { .. })
            ));
            let bad = trailer(Some("?".into()));
            assert!(matches!(check(good, bad), Err(Error::BadTrailer)));
            assert!(matches!(check(good, trailer(None)), Err(Error::BadTrailer)));
        }
    }

    #[test]
    fn the_length_is_exact() {
        let short = check(b"hell", Declared::default());
        assert!(matches!(short, Err(Error::Body(BodyError::Short))));
        let long = check(b"hello!", Declared::default());
        assert!(matches!(long, Err(Error::Body(BodyError::Long))));
    }
}
