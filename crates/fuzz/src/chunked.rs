//! The decoder of `aws-chunked` bodies: the verdict does not depend on how the bytes arrive, and what
//! the encoder writes comes back.
//!
//! Input: a byte that chooses the framing, two for the declared length, then the body.

use base::{ChecksumAlgorithm, Hasher, Secret, Timestamp};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method};
use s3wire::chunked::{Decoder, Encoder, Framing, Reject};
use s3wire::sigv4::{Chain, PayloadMode, SignRequest, Signer, StreamingVariant};

/// Bodies above this many bytes are fed in a few ways only.
const EVERY_SPLIT_BYTES_MAX: usize = 512;

/// Checks one body.
pub fn check(data: &[u8]) {
    let [choice, high, low, body @ ..] = data else {
        return;
    };
    let length = u64::from(u16::from_be_bytes([*high, *low]));
    let framing = framing(*choice);
    let whole = decode(&framing, length, &[body]);
    match body.len() <= EVERY_SPLIT_BYTES_MAX {
        true => {
            for at in 0..=body.len() {
                let (head, tail) = body.split_at(at);
                assert_eq!(
                    whole,
                    decode(&framing, length, &[head, tail]),
                    "split at {at}"
                );
            }
        }
        false => {
            let (head, tail) = body.split_at(body.len() / 2);
            assert_eq!(whole, decode(&framing, length, &[head, tail]));
        }
    }
    let single: Vec<&[u8]> = body.chunks(1).collect();
    assert_eq!(whole, decode(&framing, length, &single), "byte by byte");
    if let Ok(payload) = whole {
        assert_eq!(payload.len() as u64, length, "an accepted body is whole");
    }
    round_trip(&framing, body);
}

fn framing(choice: u8) -> Framing {
    let algorithms = ChecksumAlgorithm::ALL;
    let algorithm = algorithms[usize::from(choice / 3) % algorithms.len()];
    match choice % 3 {
        0 => Framing::UnsignedTrailer(algorithm),
        1 => Framing::Signed(chain(StreamingVariant::Signed)),
        _ => Framing::SignedTrailer(chain(StreamingVariant::SignedTrailer), algorithm),
    }
}

fn chain(variant: StreamingVariant) -> Chain {
    let secret = Secret::new("fuzz-secret".to_owned());
    let signer = Signer::new("FUZZKEY".to_owned(), secret, "us-east-1".to_owned())
        .expect("the fixed credentials are printable");
    let mut headers = HeaderMap::new();
    headers.insert("host", HeaderValue::from_static("localhost"));
    let request = SignRequest {
        method: &Method::PUT,
        path: "/bucket/key",
        query: "",
        payload: PayloadMode::Streaming(variant),
        now: Timestamp::from_millis(1_700_000_000_000),
    };
    signer.sign(request, &mut headers)
}

/// The payload, or why the body was refused.
fn decode(framing: &Framing, length: u64, pieces: &[&[u8]]) -> Result<Vec<u8>, Reject> {
    let mut decoder = Decoder::new(framing.clone(), length);
    let mut out = Vec::new();
    for piece in pieces {
        decoder.feed(Bytes::copy_from_slice(piece), &mut out)?;
    }
    decoder.finish()?;
    Ok(out.concat())
}

/// A payload that we frame ourselves is accepted and comes back.
fn round_trip(framing: &Framing, payload: &[u8]) {
    let length = payload.len() as u64;
    let mut encoder = Encoder::new(framing.clone(), length);
    let mut out = Vec::new();
    encoder
        .push(Bytes::copy_from_slice(payload), &mut out)
        .expect("the payload has the announced length");
    let checksum = match framing {
        Framing::Signed(_) => None,
        Framing::UnsignedTrailer(algorithm) | Framing::SignedTrailer(_, algorithm) => {
            let mut hasher = Hasher::new(*algorithm);
            hasher.update(payload);
            Some(hasher.finish())
        }
    };
    encoder
        .finish(checksum.as_ref(), &mut out)
        .expect("the checksum is the announced one");
    let encoded = out.concat();
    let announced = Encoder::encoded_length(framing, length);
    assert_eq!(encoded.len() as u64, announced, "the announced length");
    let decoded = decode(framing, length, &[&encoded]);
    assert_eq!(
        decoded.as_deref(),
        Ok(payload),
        "what was framed comes back"
    );
}
