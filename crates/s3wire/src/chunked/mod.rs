//! The `aws-chunked` framing of bodies: decoding what clients send, encoding for backends.
//!
//! Both sides are synchronous and copy no payload: slices of the input come out as slices. The
//! grammar is strict, because every byte that two implementations read differently is a place to
//! hide something:
//!
//! ```text
//! chunk   = size [";chunk-signature=" 64HEX] CRLF data CRLF      size = 1*16HEX, not zero
//! last    = "0" [";chunk-signature=" 64HEX] CRLF
//! trailer = *(name ":" value CRLF) ["x-amz-trailer-signature:" 64HEX CRLF]
//! body    = *chunk last trailer CRLF
//! ```
//!
//! Source: Amazon S3 API reference, "Transferring payload in multiple chunks" and "Using trailing
//! headers".

mod decoder;
mod encoder;
mod reject;

pub use decoder::{Decoder, Framing, SIGNED_CHUNK_BYTES_MAX};
pub use encoder::{CHUNK_BYTES, Encoder, EncoderError};
pub use reject::Reject;

use base::{Checksum, ChecksumAlgorithm};
use ring::digest::{Context, SHA256};

const CHUNK_SIGNATURE: &str = "chunk-signature=";
const TRAILER_SIGNATURE: &str = "x-amz-trailer-signature";

fn sha256(context: Context) -> [u8; 32] {
    context
        .finish()
        .as_ref()
        .try_into()
        .expect("SHA-256 has 32 bytes")
}

/// The sum that the trailer's signature covers: its lines, each ended by a line feed.
fn trailer_sum(algorithm: ChecksumAlgorithm, value: &str) -> [u8; 32] {
    let mut context = Context::new(&SHA256);
    for part in [algorithm.header(), ":", value, "\n"] {
        context.update(part.as_bytes());
    }
    sha256(context)
}

fn trailer_line(checksum: &Checksum) -> String {
    format!(
        "{}:{}\r\n",
        checksum.algorithm().header(),
        checksum.to_base64()
    )
}

#[cfg(test)]
mod tests;
