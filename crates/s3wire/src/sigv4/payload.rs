//! `x-amz-content-sha256`: how the body takes part in the signature.

use http::HeaderMap;

use super::{hex, hex_str};
use crate::Error;
use crate::headers::single;

/// How the body is covered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PayloadMode {
    /// Not at all.
    Unsigned,
    /// By its SHA-256, which the receiver has to compare.
    Sha256([u8; 32]),
    /// The body comes in chunks.
    Streaming(StreamingVariant),
}

/// The three kinds of chunked bodies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamingVariant {
    /// Chunks without signatures, and a trailer with a checksum.
    UnsignedTrailer,
    /// Every chunk is signed.
    Signed,
    /// Every chunk is signed, and so is the trailer with a checksum.
    SignedTrailer,
}

impl StreamingVariant {
    /// All variants.
    pub const ALL: [Self; 3] = [Self::UnsignedTrailer, Self::Signed, Self::SignedTrailer];

    /// The value of `x-amz-content-sha256`.
    pub const fn sentinel(self) -> &'static str {
        match self {
            Self::UnsignedTrailer => "STREAMING-UNSIGNED-PAYLOAD-TRAILER",
            Self::Signed => "STREAMING-AWS4-HMAC-SHA256-PAYLOAD",
            Self::SignedTrailer => "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER",
        }
    }

    /// The value of the `variant` label in metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Self::UnsignedTrailer => "unsigned_trailer",
            Self::Signed => "signed",
            Self::SignedTrailer => "signed_trailer",
        }
    }
}

/// The value of `x-amz-content-sha256` for [`PayloadMode::Unsigned`].
pub(super) const UNSIGNED: &str = "UNSIGNED-PAYLOAD";

impl PayloadMode {
    /// The SHA-256 of no bytes: for requests without a body.
    pub const EMPTY: Self = Self::Sha256([
        0xe3, 0xb0, 0xc4, 0x42, 0x98, 0xfc, 0x1c, 0x14, 0x9a, 0xfb, 0xf4, 0xc8, 0x99, 0x6f, 0xb9,
        0x24, 0x27, 0xae, 0x41, 0xe4, 0x64, 0x9b, 0x93, 0x4c, 0xa4, 0x95, 0x99, 0x1b, 0x78, 0x52,
        0xb8, 0x55,
    ]);

    /// The mode of a body that is at hand: its SHA-256.
    pub fn of(body: &[u8]) -> Self {
        let digest = ring::digest::digest(&ring::digest::SHA256, body);
        Self::Sha256(digest.as_ref().try_into().expect("SHA-256 has 32 bytes"))
    }

    /// The value of `x-amz-content-sha256`.
    pub fn to_text(self) -> String {
        match self {
            Self::Unsigned => UNSIGNED.to_owned(),
            Self::Sha256(sum) => hex_str(&hex(&sum)).to_owned(),
            Self::Streaming(variant) => variant.sentinel().to_owned(),
        }
    }

    /// Parses the value of `x-amz-content-sha256`.
    pub fn parse(text: &str) -> Result<Self, Error> {
        if text == UNSIGNED {
            return Ok(Self::Unsigned);
        }
        let variant = StreamingVariant::ALL
            .into_iter()
            .find(|known| known.sentinel() == text);
        if let Some(variant) = variant {
            return Ok(Self::Streaming(variant));
        }
        if text.starts_with("STREAMING-") {
            return Err(Error::not_implemented("This kind of x-amz-content-sha256"));
        }
        let sum = sha256(text).ok_or_else(|| {
            Error::argument(
                "x-amz-content-sha256 must be UNSIGNED-PAYLOAD, a STREAMING- value, or a valid sha256 value.",
            )
        })?;
        Ok(Self::Sha256(sum))
    }
}

/// The mode that a request's headers name, for requests that are authenticated in another way.
pub fn payload_mode(headers: &HeaderMap) -> Result<Option<PayloadMode>, Error> {
    single(headers, "x-amz-content-sha256")?
        .map(PayloadMode::parse)
        .transpose()
}

fn sha256(text: &str) -> Option<[u8; 32]> {
    let (pairs, []) = text.as_bytes().as_chunks::<2>() else {
        return None;
    };
    let mut sum = [0; 32];
    if pairs.len() != sum.len() {
        return None;
    }
    let digit = |b: u8| {
        char::from(b)
            .to_digit(16)
            .and_then(|digit| u8::try_from(digit).ok())
    };
    for (byte, [high, low]) in sum.iter_mut().zip(pairs) {
        *byte = digit(*high)? << 4 | digit(*low)?;
    }
    Some(sum)
}
