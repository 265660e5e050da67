//! How the bytes of a body are covered on their way: by the signature, by a checksum, by neither.
//!
//! A pure decision from what the operator set, what the probe saw, and what is known of the body
//! before its first byte. Hashing costs more than everything else on this path, so nothing is
//! hashed for a signature unless the operator asked for it.

use base::{Crc64, Md5};
use s3wire::sigv4::{PayloadMode, StreamingVariant};

use super::settings::{BucketAddress, S3Settings};
use crate::{Capabilities, Payload, Proof};

/// What the operator decided for all bodies.
#[derive(Debug, Clone, Copy)]
pub(super) struct BodyPolicy {
    https: bool,
    unsigned_payload: Option<bool>,
    disable_checksum: bool,
}

/// The checksum that goes into the trailer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TrailerChecksum {
    /// The one of the bytes, computed while they pass.
    Computed,
    /// This one, right or wrong: for the probe.
    Given(Crc64),
}

/// How one body is covered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BodySigning {
    /// What the request's signature says of the body.
    pub(super) mode: PayloadMode,
    /// `x-amz-checksum-crc64nvme`
    pub(super) header: Option<Crc64>,
    /// `Content-MD5`
    pub(super) md5: Option<Md5>,
    /// The trailer's value, where the mode has a trailer.
    pub(super) trailer: TrailerChecksum,
}

impl BodyPolicy {
    pub(super) fn of(settings: &S3Settings, address: &BucketAddress) -> Self {
        Self {
            https: address.is_https(),
            unsigned_payload: settings.unsigned_payload,
            disable_checksum: settings.disable_checksum,
        }
    }

    /// Whether checksums may be sent and are asked for.
    pub(super) fn checksums(self) -> bool {
        !self.disable_checksum
    }

    /// Whether every body can carry a checksum that the provider verifies.
    pub(super) fn trailers(self, capabilities: Capabilities) -> bool {
        self.checksums() && capabilities.checksum_trailer && self.unsigned_payload != Some(false)
    }

    /// The cover of an object's body.
    pub(super) fn object(self, capabilities: Capabilities, payload: &Payload) -> BodySigning {
        let header = payload
            .crc64
            .filter(|_| self.checksums() && capabilities.checksum_header);
        self.cover(header, self.trailers(capabilities), payload)
    }

    /// The cover of a part. The checksums of an upload's parts must all be there or none: providers
    /// compare them with what CreateMultipartUpload announced.
    pub(super) fn part(self, capabilities: Capabilities, payload: &Payload) -> BodySigning {
        let all = self.trailers(capabilities);
        let header = payload
            .crc64
            .filter(|_| all && capabilities.checksum_header);
        self.cover(header, all, payload)
    }

    fn cover(self, header: Option<Crc64>, trailers: bool, payload: &Payload) -> BodySigning {
        let known = payload.sha256.map(PayloadMode::Sha256);
        let mode = match self.unsigned_payload {
            Some(false) => known.unwrap_or(PayloadMode::Streaming(StreamingVariant::Signed)),
            _ if trailers && header.is_none() => {
                PayloadMode::Streaming(StreamingVariant::UnsignedTrailer)
            }
            None if !self.https => known.unwrap_or(PayloadMode::Unsigned),
            None | Some(true) => PayloadMode::Unsigned,
        };
        let framed = matches!(mode, PayloadMode::Streaming(_));
        let md5 = payload.md5.filter(|_| self.checksums() && !framed);
        BodySigning {
            mode,
            header,
            md5,
            trailer: TrailerChecksum::Computed,
        }
    }
}

impl BodySigning {
    /// What a success of this request proves.
    pub(super) fn proof(&self) -> Proof {
        let trailer = PayloadMode::Streaming(StreamingVariant::UnsignedTrailer);
        match self.header.is_some() || self.mode == trailer {
            true => Proof::Checksum,
            false => Proof::None,
        }
    }
}

#[cfg(test)]
mod tests {
    use base::Secret;
    use bytes::Bytes;

    use super::*;

    const TRAILER: PayloadMode = PayloadMode::Streaming(StreamingVariant::UnsignedTrailer);
    const SIGNED: PayloadMode = PayloadMode::Streaming(StreamingVariant::Signed);
    const ALL: Capabilities = Capabilities {
        checksum_header: true,
        checksum_trailer: true,
        ..Capabilities::UNKNOWN
    };

    fn policy(endpoint: &str, set: impl FnOnce(&mut S3Settings)) -> BodyPolicy {
        let mut settings = S3Settings::new(endpoint, "b", "id", Secret::new("s".to_owned()));
        set(&mut settings);
        let address = BucketAddress::of(&settings).unwrap();
        BodyPolicy::of(&settings, &address)
    }

    fn streamed(sha256: Option<[u8; 32]>) -> Payload {
        let empty = Box::pin(futures_util::stream::empty());
        Payload {
            sha256,
            ..Payload::streamed(5, empty)
        }
    }

    #[test]
    fn a_streamed_body_gets_the_best_cover_that_costs_nothing() {
        let [http, https] = ["http://localhost", "https://localhost"].map(|e| policy(e, |_| {}));
        let mode = |policy: BodyPolicy, capabilities, sha256| {
            policy.object(capabilities, &streamed(sha256)).mode
        };
        let sum = [7; 32];
        assert_eq!(mode(https, ALL, None), TRAILER);
        assert_eq!(mode(http, ALL, Some(sum)), TRAILER);
        assert_eq!(
            mode(https, Capabilities::UNKNOWN, Some(sum)),
            PayloadMode::Unsigned
        );
        assert_eq!(
            mode(http, Capabilities::UNKNOWN, None),
            PayloadMode::Unsigned
        );
        assert_eq!(
            mode(http, Capabilities::UNKNOWN, Some(sum)),
            PayloadMode::Sha256(sum)
        );
        let never = policy("http://localhost", |s| s.unsigned_payload = Some(true));
        assert_eq!(
            mode(never, Capabilities::UNKNOWN, Some(sum)),
            PayloadMode::Unsigned
        );
        let always = policy("https://localhost", |s| s.unsigned_payload = Some(false));
        assert_eq!(mode(always, ALL, None), SIGNED);
        assert_eq!(mode(always, ALL, Some(sum)), PayloadMode::Sha256(sum));
    }

    #[test]
    fn a_known_checksum_goes_into_the_header_only_where_it_is_verified() {
        let policy = policy("https://localhost", |_| {});
        let payload = Payload::from_bytes(Bytes::from_static(b"hello"));
        let header = policy.object(ALL, &payload);
        assert_eq!(
            (header.header, header.mode),
            (payload.crc64, PayloadMode::Unsigned)
        );
        assert_eq!(header.proof(), Proof::Checksum);
        let trailers = Capabilities {
            checksum_trailer: true,
            ..Capabilities::UNKNOWN
        };
        let trailer = policy.object(trailers, &payload);
        assert_eq!((trailer.header, trailer.mode), (None, TRAILER));
        assert_eq!(trailer.proof(), Proof::Checksum);
        assert_eq!(
            policy.object(Capabilities::UNKNOWN, &payload).proof(),
            Proof::None
        );
    }

    #[test]
    fn a_part_has_a_checksum_only_if_every_part_can_have_one() {
        let policy = policy("https://localhost", |_| {});
        let payload = Payload::from_bytes(Bytes::from_static(b"hello"));
        let headers = Capabilities {
            checksum_header: true,
            ..Capabilities::UNKNOWN
        };
        assert_eq!(policy.part(headers, &payload).header, None);
        assert_eq!(policy.part(ALL, &payload).header, payload.crc64);
    }

    #[test]
    fn checksums_that_are_switched_off_are_never_sent() {
        let policy = policy("https://localhost", |s| s.disable_checksum = true);
        let bytes = Bytes::from_static(b"hello");
        let payload = Payload {
            md5: Some(Md5::of(&bytes)),
            ..Payload::from_bytes(bytes)
        };
        let cover = policy.object(ALL, &payload);
        assert_eq!(
            (cover.header, cover.md5, cover.mode),
            (None, None, PayloadMode::Unsigned)
        );
        assert_eq!(cover.proof(), Proof::None);
    }
}
