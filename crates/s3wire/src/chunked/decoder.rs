//! Takes the framing off a body and verifies it.
//!
//! Payload flows on as it arrives, before the signature of its chunk is known to be right; whoever
//! consumes it withholds what would make the bytes durable until [`Decoder::finish`] has returned
//! `Ok`.

use base::{Checksum, ChecksumAlgorithm};
use bytes::{Buf as _, Bytes};
use ring::digest::{Context, SHA256};
use subtle::ConstantTimeEq as _;

use super::{CHUNK_SIGNATURE, Reject, TRAILER_SIGNATURE, sha256, trailer_sum};
use crate::headers::BodyClaims;
use crate::sigv4::{Chain, Hex, PayloadMode, StreamingVariant};
use crate::{Error, ErrorCode};

/// The largest signed chunk: so many bytes flow on before a wrong signature is noticed.
pub const SIGNED_CHUNK_BYTES_MAX: u64 = 16 << 20;
/// The longest line before a chunk or in the trailer, without its end.
const LINE_BYTES_MAX: usize = 1024;
/// Sizes are hexadecimal numbers of 64 bits.
const SIZE_DIGITS_MAX: usize = 16;

/// How a body is framed, with what its verification needs.
#[derive(Debug, Clone)]
pub enum Framing {
    /// Chunks without signatures, a trailer with this checksum.
    UnsignedTrailer(ChecksumAlgorithm),
    /// Signed chunks, no trailer.
    Signed(Chain),
    /// Signed chunks, a signed trailer with this checksum.
    SignedTrailer(Chain, ChecksumAlgorithm),
}

impl Framing {
    /// Puts together what the headers say.
    ///
    /// `chain` comes from a verified signature; a request that was authenticated in another way has
    /// none and cannot send signed chunks.
    pub fn new(
        variant: StreamingVariant,
        chain: Option<Chain>,
        claims: &BodyClaims,
    ) -> Result<Self, Error> {
        let chain = || {
            chain.ok_or_else(|| {
                Error::new(
                    ErrorCode::AccessDenied,
                    "Signed chunks need a signed request.",
                )
            })
        };
        let trailer = || {
            claims.trailer.ok_or_else(|| {
                Error::request("The x-amz-trailer header is missing or names no checksum.")
            })
        };
        match (variant, claims.trailer) {
            (StreamingVariant::UnsignedTrailer, _) => Ok(Self::UnsignedTrailer(trailer()?)),
            (StreamingVariant::SignedTrailer, _) => Ok(Self::SignedTrailer(chain()?, trailer()?)),
            (StreamingVariant::Signed, None) => Ok(Self::Signed(chain()?)),
            (StreamingVariant::Signed, Some(_)) => Err(Error::request(
                "An x-amz-trailer header needs an x-amz-content-sha256 that announces a trailer.",
            )),
        }
    }

    fn chain(&mut self) -> Option<&mut Chain> {
        match self {
            Self::UnsignedTrailer(_) => None,
            Self::Signed(chain) | Self::SignedTrailer(chain, _) => Some(chain),
        }
    }

    fn trailer(&self) -> Option<ChecksumAlgorithm> {
        match self {
            Self::Signed(_) => None,
            Self::UnsignedTrailer(algorithm) | Self::SignedTrailer(_, algorithm) => {
                Some(*algorithm)
            }
        }
    }
}

/// Decodes one body.
pub struct Decoder {
    framing: Framing,
    /// Payload bytes that are still to come, of those that were declared.
    missing: u64,
    state: DecoderState,
    /// The beginning of a line whose end has not come yet.
    line: Vec<u8>,
    checksum: Option<Checksum>,
}

enum DecoderState {
    /// In the line before a chunk.
    Header,
    /// In the payload of a chunk.
    Data {
        left: u64,
        signed: Option<SignedChunk>,
    },
    /// In the line end behind a payload: so many bytes of it were there.
    DataEnd {
        seen: usize,
        signed: Option<SignedChunk>,
    },
    /// In the trailer, or in the blank line that ends the body.
    Trailer(TrailerState),
    /// Behind the end.
    Done,
    Failed(Reject),
}

struct SignedChunk {
    sum: Context,
    signature: Hex,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum TrailerState {
    Checksum(ChecksumAlgorithm),
    Signature,
    Blank,
}

impl Decoder {
    /// The decoder that a request's body needs; `None` where it is not framed.
    ///
    /// `chain` is as for [`Framing::new`].
    pub fn for_request(
        payload: PayloadMode,
        chain: Option<Chain>,
        claims: &BodyClaims,
    ) -> Result<Option<Self>, Error> {
        let PayloadMode::Streaming(variant) = payload else {
            return match claims.trailer {
                None => Ok(None),
                Some(_) => Err(Error::request(
                    "An x-amz-trailer header needs an x-amz-content-sha256 that announces a trailer.",
                )),
            };
        };
        let length = claims.decoded_length.ok_or_else(|| {
            Error::new(
                ErrorCode::MissingContentLength,
                "You must provide the x-amz-decoded-content-length HTTP header.",
            )
        })?;
        Ok(Some(Self::new(
            Framing::new(variant, chain, claims)?,
            length,
        )))
    }

    /// A decoder for a body of so many payload bytes (`x-amz-decoded-content-length`).
    pub fn new(framing: Framing, decoded_length: u64) -> Self {
        Self {
            framing,
            missing: decoded_length,
            state: DecoderState::Header,
            line: Vec::new(),
            checksum: None,
        }
    }

    /// Takes the next bytes of the body; payload is pushed to `out` as slices of them.
    ///
    /// After an error every further call returns the same one.
    pub fn feed(&mut self, mut input: Bytes, out: &mut Vec<Bytes>) -> Result<(), Reject> {
        while !input.is_empty() {
            if let Err(reject) = self.step(&mut input, out) {
                self.state = DecoderState::Failed(reject);
                return Err(reject);
            }
        }
        match self.state {
            DecoderState::Failed(reject) => Err(reject),
            _ => Ok(()),
        }
    }

    /// The body has ended. Returns the checksum of the trailer, which is still to be compared with
    /// that of the payload; `None` where the framing has no trailer.
    pub fn finish(self) -> Result<Option<Checksum>, Reject> {
        match self.state {
            DecoderState::Done => Ok(self.checksum),
            DecoderState::Failed(reject) => Err(reject),
            _ if self.missing > 0 => Err(Reject::DecodedLengthMismatch),
            DecoderState::Trailer(_) if self.framing.trailer().is_some() => Err(Reject::TrailerCut),
            // Without a trailer, the blank line belongs to the last chunk.
            DecoderState::Trailer(_) => Err(Reject::ChunkCut),
            DecoderState::Header | DecoderState::Data { .. } | DecoderState::DataEnd { .. } => {
                Err(Reject::ChunkCut)
            }
        }
    }

    /// Consumes at least one byte, or fails.
    fn step(&mut self, input: &mut Bytes, out: &mut Vec<Bytes>) -> Result<(), Reject> {
        match &mut self.state {
            DecoderState::Header => match self.take_line(input, Reject::ChunkTooLarge) {
                Ok(Some(line)) => self.state = self.begin_chunk(&line)?,
                Ok(None) | Err(_) if !begins_a_size(&self.line) => {
                    return Err(Reject::ChunkMalformed);
                }
                Ok(None) => {}
                Err(reject) => return Err(reject),
            },
            DecoderState::Data { left, signed } => {
                let take = usize::try_from(*left)
                    .unwrap_or(usize::MAX)
                    .min(input.len());
                let payload = input.split_to(take);
                if let Some(chunk) = signed {
                    chunk.sum.update(&payload);
                }
                *left -= payload.len() as u64;
                self.missing -= payload.len() as u64;
                if *left == 0 {
                    self.state = DecoderState::DataEnd {
                        seen: 0,
                        signed: signed.take(),
                    };
                }
                out.push(payload);
            }
            DecoderState::DataEnd { seen, signed } => {
                if input.get_u8() != b"\r\n"[*seen] {
                    return Err(Reject::ChunkMalformed);
                }
                *seen += 1;
                if *seen == 2 {
                    let signed = signed.take();
                    self.check_chunk(signed)?;
                    self.state = DecoderState::Header;
                }
            }
            DecoderState::Trailer(expected) => {
                let expected = *expected;
                match self.take_line(input, Reject::TrailerMalformed)? {
                    Some(line) => self.state = self.trailer_line(expected, &line)?,
                    None if has_bare_line_feed(&self.line) => return Err(Reject::TrailerMalformed),
                    None => {}
                }
            }
            DecoderState::Done => return Err(Reject::ChunkMalformed),
            DecoderState::Failed(reject) => return Err(*reject),
        }
        Ok(())
    }

    /// A line without its CRLF, once it is complete.
    fn take_line(
        &mut self,
        input: &mut Bytes,
        too_long: Reject,
    ) -> Result<Option<Vec<u8>>, Reject> {
        // The carriage return may have come with the bytes before.
        let end = match (self.line.last(), input.first()) {
            (Some(b'\r'), Some(b'\n')) => Some(0),
            _ => memchr::memmem::find(input, b"\r\n").map(|at| at + 1),
        };
        let taken = input.split_to(end.map_or(input.len(), |end| end + 1));
        let room = (LINE_BYTES_MAX + 2).saturating_sub(self.line.len());
        if taken.len() > room {
            // The verdict must not depend on how much came at once: its beginning counts.
            self.line.extend_from_slice(&taken[..room]);
            return Err(too_long);
        }
        self.line.extend_from_slice(&taken);
        if end.is_none() {
            return Ok(None);
        }
        self.line.truncate(self.line.len() - 2);
        Ok(Some(std::mem::take(&mut self.line)))
    }

    fn begin_chunk(&mut self, line: &[u8]) -> Result<DecoderState, Reject> {
        let line = std::str::from_utf8(line).map_err(|_| Reject::ChunkMalformed)?;
        let is_signed = self.framing.chain().is_some();
        let (digits, signature) = match line.split_once(';') {
            None if !is_signed => (line, None),
            Some((digits, extension)) if is_signed => {
                let signature = extension
                    .strip_prefix(CHUNK_SIGNATURE)
                    .ok_or(Reject::ChunkMalformed)?;
                (
                    digits,
                    Some(parse_signature(signature).ok_or(Reject::ChunkMalformed)?),
                )
            }
            None | Some(_) => return Err(Reject::ChunkMalformed),
        };
        let size = parse_size(digits).ok_or(Reject::ChunkMalformed)?;
        if is_signed && size > SIGNED_CHUNK_BYTES_MAX {
            return Err(Reject::ChunkTooLarge);
        }
        if size > self.missing {
            return Err(Reject::DecodedLengthMismatch);
        }
        let signed = signature.map(|signature| SignedChunk {
            sum: Context::new(&SHA256),
            signature,
        });
        if size > 0 {
            return Ok(DecoderState::Data { left: size, signed });
        }
        if self.missing > 0 {
            return Err(Reject::DecodedLengthMismatch);
        }
        self.check_chunk(signed)?;
        Ok(DecoderState::Trailer(match self.framing.trailer() {
            Some(algorithm) => TrailerState::Checksum(algorithm),
            None => TrailerState::Blank,
        }))
    }

    fn check_chunk(&mut self, signed: Option<SignedChunk>) -> Result<(), Reject> {
        let (Some(chunk), Some(chain)) = (signed, self.framing.chain()) else {
            return Ok(());
        };
        let expected = chain.chunk(&sha256(chunk.sum));
        match bool::from(expected.ct_eq(&chunk.signature)) {
            true => Ok(()),
            false => Err(Reject::ChunkSignatureMismatch),
        }
    }

    fn trailer_line(
        &mut self,
        expected: TrailerState,
        line: &[u8],
    ) -> Result<DecoderState, Reject> {
        let line = std::str::from_utf8(line).map_err(|_| Reject::TrailerMalformed)?;
        if expected == TrailerState::Blank {
            // Without a trailer, a line here is framing of the last chunk.
            return match (line.is_empty(), self.framing.trailer()) {
                (true, _) => Ok(DecoderState::Done),
                (false, Some(_)) => Err(Reject::TrailerMalformed),
                (false, None) => Err(Reject::ChunkMalformed),
            };
        }
        // MinIO's Go client ends the value with a line feed before the CRLF.
        let line = line.strip_suffix('\n').unwrap_or(line);
        let (name, value) = line.split_once(':').ok_or(Reject::TrailerMalformed)?;
        let value = value.trim_matches([' ', '\t']);
        match expected {
            TrailerState::Checksum(algorithm) if name.eq_ignore_ascii_case(algorithm.header()) => {
                let checksum = Checksum::from_base64(algorithm, value)
                    .map_err(|_| Reject::TrailerMalformed)?;
                self.checksum = Some(checksum);
                Ok(DecoderState::Trailer(match self.framing.chain() {
                    Some(_) => TrailerState::Signature,
                    None => TrailerState::Blank,
                }))
            }
            TrailerState::Signature if name.eq_ignore_ascii_case(TRAILER_SIGNATURE) => {
                self.check_trailer(value)?;
                Ok(DecoderState::Trailer(TrailerState::Blank))
            }
            TrailerState::Checksum(_) | TrailerState::Signature | TrailerState::Blank => {
                Err(Reject::TrailerMalformed)
            }
        }
    }

    fn check_trailer(&mut self, signature: &str) -> Result<(), Reject> {
        let signature = parse_signature(signature).ok_or(Reject::TrailerMalformed)?;
        let checksum = self
            .checksum
            .as_ref()
            .expect("the checksum's line comes first");
        // Base64 has one spelling that decodes, so the value can be printed anew.
        let sum = trailer_sum(checksum.algorithm(), &checksum.to_base64());
        let chain = self
            .framing
            .chain()
            .expect("only signed framing expects a signature");
        match bool::from(chain.trailer(&sum).ct_eq(&signature)) {
            true => Ok(()),
            false => Err(Reject::TrailerSignatureMismatch),
        }
    }
}

impl std::fmt::Debug for Decoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Decoder")
            .field("missing", &self.missing)
            .finish_non_exhaustive()
    }
}

/// Whether this can be the beginning of a line before a chunk. Noticed at once, so that a body
/// without CRLF is malformed and not merely cut short.
fn begins_a_size(line: &[u8]) -> bool {
    match line.iter().position(|b| !b.is_ascii_hexdigit()) {
        None => line.len() <= SIZE_DIGITS_MAX,
        Some(digits) => digits <= SIZE_DIGITS_MAX && matches!(line[digits], b';' | b'\r'),
    }
}

/// Whether a line feed stands there that cannot belong to the end of the line.
fn has_bare_line_feed(line: &[u8]) -> bool {
    memchr::memchr(b'\n', line)
        .and_then(|at| line.get(at + 1))
        .is_some_and(|behind| *behind != b'\r')
}

fn parse_size(digits: &str) -> Option<u64> {
    let valid = (1..=SIZE_DIGITS_MAX).contains(&digits.len())
        && digits.bytes().all(|b| b.is_ascii_hexdigit());
    valid
        .then(|| u64::from_str_radix(digits, 16).ok())
        .flatten()
}

fn parse_signature(text: &str) -> Option<Hex> {
    text.as_bytes()
        .try_into()
        .ok()
        .filter(|signature: &Hex| signature.iter().all(u8::is_ascii_hexdigit))
}
