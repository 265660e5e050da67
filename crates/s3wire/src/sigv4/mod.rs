//! AWS Signature Version 4 for the service `s3`: signing, presigning, verifying.
//!
//! Verification works on the request as it came over the wire, because re-encoding a decoded path
//! breaks keys such as `a%2Fb`. Source: Amazon S3 API reference, "Authenticating requests (AWS
//! Signature Version 4)". Signature version 4A is refused, and so is
//! version 2 but for what [`crate::sigv2`] does.

mod canonical;
mod chain;
mod form;
mod key;
mod payload;
mod presign;
mod sign;
mod verify;

pub use canonical::{CANONICAL_BYTES_MAX, Plus};
pub use chain::Chain;
pub use form::FormClaim;
pub use key::SigningSecret;
pub use payload::{PayloadMode, StreamingVariant, payload_mode};
pub use presign::{EXPIRES_MAX, PresignError, PresignRequest};
pub use sign::{SignRequest, Signer, SignerError};
pub use verify::{CLOCK_SKEW_MAX, Claim, VerifiedRequest};

use http::{HeaderMap, Method};

/// What of a request its signature covers, as it came over the wire.
#[derive(Debug, Clone, Copy)]
pub struct RequestHead<'a> {
    /// The method.
    pub method: &'a Method,
    /// The path of the target, not decoded.
    pub path: &'a str,
    /// The query of the target without its `?`, not decoded; empty where there is none.
    pub query: &'a str,
    /// All headers, none added.
    pub headers: &'a HeaderMap,
}

const ALGORITHM: &str = "AWS4-HMAC-SHA256";
const SERVICE: &str = "s3";
const TERMINATOR: &str = "aws4_request";

/// 32 bytes as 64 lower-case hexadecimal digits.
pub(crate) type Hex = [u8; 64];

pub(crate) fn hex(bytes: &[u8; 32]) -> Hex {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = [0; 64];
    for (byte, pair) in bytes.iter().zip(text.as_chunks_mut::<2>().0) {
        *pair = [
            DIGITS[usize::from(byte >> 4)],
            DIGITS[usize::from(byte & 15)],
        ];
    }
    text
}

pub(crate) fn hex_str(text: &Hex) -> &str {
    std::str::from_utf8(text).expect("hexadecimal digits are ASCII")
}

#[cfg(test)]
mod tests;
