//! Puts the framing around a body, for backends.
//!
//! Chunks have a fixed size, so the length of the encoded body is known before the first byte: the
//! request carries an exact `Content-Length`. Without signatures payload passes straight through;
//! with them, at most one chunk is held until it can be hashed.

use base::{Checksum, ChecksumAlgorithm};
use bytes::Bytes;
use ring::digest::{Context, SHA256};

use super::{CHUNK_SIGNATURE, Framing, TRAILER_SIGNATURE, sha256, trailer_line, trailer_sum};
use crate::sigv4::{Chain, hex_str};

/// Payload bytes per chunk, the last one excepted. Amazon S3 wants at least 8 KiB.
pub const CHUNK_BYTES: u64 = 64 << 10;

/// The payload is not what was announced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EncoderError {
    /// More or fewer payload bytes than the length that the encoder was made for.
    #[error("the payload differs from its announced length by {difference} bytes")]
    Length {
        /// Payload that is missing (positive) or too much (negative).
        difference: i128,
    },
    /// The checksum for the trailer is of another algorithm, or missing, or too much.
    #[error("the checksum is not the one that the trailer announces")]
    Checksum,
}

/// Encodes one body.
#[derive(Debug)]
pub struct Encoder {
    framing: Framing,
    length: u64,
    /// Payload that has not come yet.
    missing: u64,
    /// Payload of the current chunk that has not come yet.
    chunk_missing: u64,
    /// Payload of the current chunk that waits for its signature.
    held: Vec<Bytes>,
    held_bytes: u64,
}

impl Encoder {
    /// An encoder for so many payload bytes. The chain of a signed framing is what
    /// [`crate::sigv4::Signer::sign`] returned for the request.
    pub fn new(framing: Framing, length: u64) -> Self {
        Self {
            framing,
            length,
            missing: length,
            chunk_missing: 0,
            held: Vec::new(),
            held_bytes: 0,
        }
    }

    /// The number of bytes that come out, for `Content-Length`.
    pub fn encoded_length(framing: &Framing, length: u64) -> u64 {
        let signature = match framing {
            Framing::UnsignedTrailer(_) => 0,
            Framing::Signed(_) | Framing::SignedTrailer(_, _) => {
                ";".len() + CHUNK_SIGNATURE.len() + SIGNATURE_BYTES
            }
        };
        let chunk = |payload: u64| {
            let digits = u64::from(payload.max(1).ilog2() / 4 + 1);
            digits + signature as u64 + 2 * CRLF_BYTES + payload
        };
        let rest = match length % CHUNK_BYTES {
            0 => 0,
            rest => chunk(rest),
        };
        // The last chunk has no payload, and the blank line that ends the body for its line end.
        length / CHUNK_BYTES * chunk(CHUNK_BYTES) + rest + chunk(0) + trailer_length(framing)
    }

    /// Takes the next payload bytes and pushes encoded ones to `out`.
    pub fn push(&mut self, mut payload: Bytes, out: &mut Vec<Bytes>) -> Result<(), EncoderError> {
        let available = payload.len() as u64;
        if available > self.missing {
            let difference = i128::from(self.missing) - i128::from(available);
            return Err(EncoderError::Length { difference });
        }
        self.missing -= available;
        while !payload.is_empty() {
            if self.chunk_missing == 0 {
                let behind = self.missing + payload.len() as u64;
                self.chunk_missing = behind.min(CHUNK_BYTES);
                self.begin_chunk(out);
            }
            let take = usize::try_from(self.chunk_missing).unwrap_or(usize::MAX);
            let slice = payload.split_to(take.min(payload.len()));
            self.chunk_missing -= slice.len() as u64;
            self.put_payload(slice, out);
            if self.chunk_missing == 0 {
                self.end_chunk(out);
            }
        }
        Ok(())
    }

    /// The payload is complete: pushes the last chunk and the trailer.
    ///
    /// `checksum` is that of the whole payload, where the framing has a trailer.
    pub fn finish(
        mut self,
        checksum: Option<&Checksum>,
        out: &mut Vec<Bytes>,
    ) -> Result<(), EncoderError> {
        if self.missing > 0 {
            return Err(EncoderError::Length {
                difference: i128::from(self.missing),
            });
        }
        let announced = match &self.framing {
            Framing::Signed(_) => None,
            Framing::UnsignedTrailer(algorithm) | Framing::SignedTrailer(_, algorithm) => {
                Some(*algorithm)
            }
        };
        if announced != checksum.map(Checksum::algorithm) {
            return Err(EncoderError::Checksum);
        }
        let mut end = String::from("0");
        if let Framing::Signed(chain) | Framing::SignedTrailer(chain, _) = &mut self.framing {
            push_signature(&mut end, chain, Context::new(&SHA256));
        }
        end.push_str("\r\n");
        if let Some(checksum) = checksum {
            end.push_str(&trailer_line(checksum));
            if let Framing::SignedTrailer(chain, algorithm) = &mut self.framing {
                let signature = chain.trailer(&trailer_sum(*algorithm, &checksum.to_base64()));
                end.extend([TRAILER_SIGNATURE, ":", hex_str(&signature), "\r\n"]);
            }
        }
        end.push_str("\r\n");
        out.push(end.into());
        Ok(())
    }

    /// Payload bytes that the encoder was made for.
    pub fn length(&self) -> u64 {
        self.length
    }

    fn begin_chunk(&self, out: &mut Vec<Bytes>) {
        if let Framing::UnsignedTrailer(_) = self.framing {
            out.push(format!("{:x}\r\n", self.chunk_missing).into());
        }
    }

    fn put_payload(&mut self, payload: Bytes, out: &mut Vec<Bytes>) {
        match self.framing {
            Framing::UnsignedTrailer(_) => out.push(payload),
            Framing::Signed(_) | Framing::SignedTrailer(_, _) => {
                self.held_bytes += payload.len() as u64;
                self.held.push(payload);
            }
        }
    }

    fn end_chunk(&mut self, out: &mut Vec<Bytes>) {
        if let Framing::Signed(chain) | Framing::SignedTrailer(chain, _) = &mut self.framing {
            let mut sum = Context::new(&SHA256);
            self.held.iter().for_each(|payload| sum.update(payload));
            let mut header = format!("{:x}", self.held_bytes);
            push_signature(&mut header, chain, sum);
            header.push_str("\r\n");
            out.push(header.into());
            out.append(&mut self.held);
            self.held_bytes = 0;
        }
        out.push(Bytes::from_static(b"\r\n"));
    }
}

const CRLF_BYTES: u64 = 2;
const SIGNATURE_BYTES: usize = 64;

fn push_signature(header: &mut String, chain: &mut Chain, sum: Context) {
    let signature = chain.chunk(&sha256(sum));
    header.extend([";", CHUNK_SIGNATURE, hex_str(&signature)]);
}

fn trailer_length(framing: &Framing) -> u64 {
    let line = |algorithm: &ChecksumAlgorithm| {
        let base64 = algorithm.value_bytes().div_ceil(3) * 4;
        (algorithm.header().len() + ":".len() + base64) as u64 + CRLF_BYTES
    };
    match framing {
        Framing::Signed(_) => 0,
        Framing::UnsignedTrailer(algorithm) => line(algorithm),
        Framing::SignedTrailer(_, algorithm) => {
            let signature = (TRAILER_SIGNATURE.len() + ":".len() + SIGNATURE_BYTES) as u64;
            line(algorithm) + signature + CRLF_BYTES
        }
    }
}
