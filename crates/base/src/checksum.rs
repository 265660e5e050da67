//! Checksums of object bytes: the values, and the hashers that compute them.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use crc_fast::{CrcAlgorithm, Digest as Crc};
use md5::Digest as _;

/// The algorithms of `x-amz-checksum-*`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ChecksumAlgorithm {
    /// CRC-32 (ISO-HDLC), 4 bytes.
    Crc32,
    /// CRC-32C (Castagnoli), 4 bytes.
    Crc32c,
    /// CRC-64/NVME, 8 bytes.
    Crc64Nvme,
    /// SHA-1, 20 bytes.
    Sha1,
    /// SHA-256, 32 bytes.
    Sha256,
}

/// How the checksum of a multipart object relates to its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ChecksumKind {
    /// The checksum of all bytes.
    FullObject,
    /// The checksum of the parts' checksums.
    Composite,
}

/// The text is not the value of a checksum of this algorithm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a base64 value of the {} algorithm", .0.as_str())]
pub struct ChecksumError(pub ChecksumAlgorithm);

impl ChecksumAlgorithm {
    /// All algorithms.
    pub const ALL: [Self; 5] = [
        Self::Crc32,
        Self::Crc32c,
        Self::Crc64Nvme,
        Self::Sha1,
        Self::Sha256,
    ];

    /// The name in headers such as `x-amz-checksum-algorithm` and in XML.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Crc32 => "CRC32",
            Self::Crc32c => "CRC32C",
            Self::Crc64Nvme => "CRC64NVME",
            Self::Sha1 => "SHA1",
            Self::Sha256 => "SHA256",
        }
    }

    /// The lower-case header that carries a value, for example `x-amz-checksum-crc32`.
    pub const fn header(self) -> &'static str {
        match self {
            Self::Crc32 => "x-amz-checksum-crc32",
            Self::Crc32c => "x-amz-checksum-crc32c",
            Self::Crc64Nvme => "x-amz-checksum-crc64nvme",
            Self::Sha1 => "x-amz-checksum-sha1",
            Self::Sha256 => "x-amz-checksum-sha256",
        }
    }

    /// The algorithm with this name, in any case.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|algorithm| algorithm.as_str().eq_ignore_ascii_case(name))
    }

    /// Length of a value in bytes.
    pub const fn value_bytes(self) -> usize {
        match self {
            Self::Crc32 | Self::Crc32c => 4,
            Self::Crc64Nvme => 8,
            Self::Sha1 => 20,
            Self::Sha256 => 32,
        }
    }

    /// The kind that S3 gives a multipart upload which names only the algorithm.
    ///
    /// Source: Amazon S3 user guide, "Checking object integrity".
    pub const fn default_kind(self) -> ChecksumKind {
        match self {
            Self::Crc64Nvme => ChecksumKind::FullObject,
            Self::Crc32 | Self::Crc32c | Self::Sha1 | Self::Sha256 => ChecksumKind::Composite,
        }
    }

    /// Whether a multipart upload may ask for this kind: hashes cannot be combined, and CRC-64/NVME
    /// is always over the full object.
    pub const fn allows(self, kind: ChecksumKind) -> bool {
        match (self, kind) {
            (Self::Crc32 | Self::Crc32c, _)
            | (Self::Crc64Nvme, ChecksumKind::FullObject)
            | (Self::Sha1 | Self::Sha256, ChecksumKind::Composite) => true,
            (Self::Crc64Nvme, ChecksumKind::Composite)
            | (Self::Sha1 | Self::Sha256, ChecksumKind::FullObject) => false,
        }
    }
}

impl ChecksumKind {
    /// The name in `x-amz-checksum-type`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::FullObject => "FULL_OBJECT",
            Self::Composite => "COMPOSITE",
        }
    }

    /// The kind with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::FullObject, Self::Composite]
            .into_iter()
            .find(|kind| kind.as_str() == name)
    }
}

/// A checksum: an algorithm and as many bytes as it has.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Checksum {
    algorithm: ChecksumAlgorithm,
    bytes: [u8; 32],
}

impl Checksum {
    /// Takes the raw bytes of a value; `None` where their number is not the algorithm's.
    pub fn from_bytes(algorithm: ChecksumAlgorithm, value: &[u8]) -> Option<Self> {
        if value.len() != algorithm.value_bytes() {
            return None;
        }
        let mut bytes = [0; 32];
        bytes[..value.len()].copy_from_slice(value);
        Some(Self { algorithm, bytes })
    }

    /// Parses the base64 that headers and XML carry.
    pub fn from_base64(algorithm: ChecksumAlgorithm, text: &str) -> Result<Self, ChecksumError> {
        let bytes = STANDARD
            .decode(text)
            .map_err(|_| ChecksumError(algorithm))?;
        Self::from_bytes(algorithm, &bytes).ok_or(ChecksumError(algorithm))
    }

    /// The algorithm.
    pub const fn algorithm(&self) -> ChecksumAlgorithm {
        self.algorithm
    }

    /// The raw bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.algorithm.value_bytes()]
    }

    /// The base64 that headers and XML carry.
    pub fn to_base64(&self) -> String {
        STANDARD.encode(self.bytes())
    }
}

impl fmt::Debug for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.algorithm.as_str(), self.to_base64())
    }
}

/// An MD5 sum: the entity tag of a plain PUT and the value of `Content-MD5`.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Md5(pub [u8; 16]);

impl Md5 {
    /// Hashes bytes that are at hand.
    pub fn of(bytes: &[u8]) -> Self {
        let mut hasher = Md5Hasher::new();
        hasher.update(bytes);
        hasher.finish()
    }

    /// Parses the base64 of `Content-MD5`.
    pub fn from_base64(text: &str) -> Option<Self> {
        STANDARD.decode(text).ok()?.try_into().ok().map(Self)
    }

    /// Parses 32 hexadecimal digits.
    pub fn from_hex(text: &str) -> Option<Self> {
        if text.len() != 32 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        u128::from_str_radix(text, 16)
            .ok()
            .map(|value| Self(value.to_be_bytes()))
    }

    /// 32 lower-case hexadecimal digits.
    pub fn to_hex(self) -> String {
        format!("{:032x}", u128::from_be_bytes(self.0))
    }

    /// The base64 of `Content-MD5`.
    pub fn to_base64(self) -> String {
        STANDARD.encode(self.0)
    }
}

impl fmt::Debug for Md5 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_hex())
    }
}

/// The CRC-64/NVME over the stored bytes of a blob: our own checksum, always present.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Crc64(pub u64);

impl Crc64 {
    /// The sum of no bytes.
    pub const EMPTY: Self = Self(0);

    /// Sums bytes that are at hand.
    pub fn of(bytes: &[u8]) -> Self {
        Self(crc_fast::checksum(CrcAlgorithm::Crc64Nvme, bytes))
    }

    /// The sum of these bytes followed by `length` bytes whose sum is `tail`.
    pub fn then(self, tail: Self, length: u64) -> Self {
        Self(crc_fast::checksum_combine(
            CrcAlgorithm::Crc64Nvme,
            self.0,
            tail.0,
            length,
        ))
    }

    /// The same sum as `x-amz-checksum-crc64nvme` carries it.
    pub fn to_checksum(self) -> Checksum {
        Checksum::from_bytes(ChecksumAlgorithm::Crc64Nvme, &self.0.to_be_bytes())
            .expect("a CRC-64 has eight bytes")
    }

    /// The sum that an `x-amz-checksum-crc64nvme` value holds.
    pub fn from_checksum(checksum: &Checksum) -> Option<Self> {
        if checksum.algorithm() != ChecksumAlgorithm::Crc64Nvme {
            return None;
        }
        checksum
            .bytes()
            .try_into()
            .ok()
            .map(|bytes| Self(u64::from_be_bytes(bytes)))
    }
}

impl fmt::Debug for Crc64 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// Computes a [`Crc64`] while bytes pass.
#[derive(Debug, Clone)]
pub struct Crc64Hasher(Crc);

impl Crc64Hasher {
    /// A sum of nothing yet.
    pub fn new() -> Self {
        Self(Crc::new(CrcAlgorithm::Crc64Nvme))
    }

    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The sum of all bytes taken so far.
    pub fn sum(&self) -> Crc64 {
        Crc64(self.0.finalize())
    }
}

impl Default for Crc64Hasher {
    fn default() -> Self {
        Self::new()
    }
}

/// Computes an [`Md5`] while bytes pass.
#[derive(Clone, Default)]
pub struct Md5Hasher(md5::Md5);

impl Md5Hasher {
    /// A hash of nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The hash of all bytes taken.
    pub fn finish(self) -> Md5 {
        Md5(self.0.finalize().into())
    }
}

impl fmt::Debug for Md5Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Md5Hasher").finish_non_exhaustive()
    }
}

/// Computes a [`Checksum`] of any algorithm while bytes pass.
#[derive(Clone)]
pub struct Hasher {
    algorithm: ChecksumAlgorithm,
    state: HashState,
}

#[derive(Clone)]
enum HashState {
    Crc(Crc),
    Sha1(sha1::Sha1),
    Sha256(ring::digest::Context),
}

impl Hasher {
    /// A checksum of nothing yet.
    pub fn new(algorithm: ChecksumAlgorithm) -> Self {
        let state = match algorithm {
            ChecksumAlgorithm::Crc32 => HashState::Crc(Crc::new(CrcAlgorithm::Crc32IsoHdlc)),
            ChecksumAlgorithm::Crc32c => HashState::Crc(Crc::new(CrcAlgorithm::Crc32Iscsi)),
            ChecksumAlgorithm::Crc64Nvme => HashState::Crc(Crc::new(CrcAlgorithm::Crc64Nvme)),
            ChecksumAlgorithm::Sha1 => HashState::Sha1(sha1::Sha1::new()),
            ChecksumAlgorithm::Sha256 => {
                HashState::Sha256(ring::digest::Context::new(&ring::digest::SHA256))
            }
        };
        Self { algorithm, state }
    }

    /// The algorithm.
    pub const fn algorithm(&self) -> ChecksumAlgorithm {
        self.algorithm
    }

    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        match &mut self.state {
            HashState::Crc(crc) => crc.update(bytes),
            HashState::Sha1(sha1) => sha1.update(bytes),
            HashState::Sha256(context) => context.update(bytes),
        }
    }

    /// The checksum of all bytes taken.
    pub fn finish(self) -> Checksum {
        let checksum = match self.state {
            HashState::Crc(crc) => {
                let bytes = crc.finalize().to_be_bytes();
                Checksum::from_bytes(
                    self.algorithm,
                    &bytes[bytes.len() - self.algorithm.value_bytes()..],
                )
            }
            HashState::Sha1(sha1) => Checksum::from_bytes(self.algorithm, &sha1.finalize()),
            HashState::Sha256(context) => {
                Checksum::from_bytes(self.algorithm, context.finish().as_ref())
            }
        };
        checksum.expect("a hasher yields as many bytes as its algorithm has")
    }
}

impl fmt::Debug for Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hasher({})", self.algorithm.as_str())
    }
}

/// The checksum of the parts' checksums, which `x-amz-checksum-*` shows with `-N` behind it.
pub fn composite<'a>(
    algorithm: ChecksumAlgorithm,
    parts: impl IntoIterator<Item = &'a Checksum>,
) -> Checksum {
    let mut hasher = Hasher::new(algorithm);
    for part in parts {
        hasher.update(part.bytes());
    }
    hasher.finish()
}

/// The checksum of all bytes from those of consecutive parts and their lengths in bytes.
///
/// `None` for SHA-1 and SHA-256, which cannot be combined, for a part of another algorithm, and for
/// no parts at all.
pub fn full_object<'a>(
    algorithm: ChecksumAlgorithm,
    parts: impl IntoIterator<Item = (&'a Checksum, u64)>,
) -> Option<Checksum> {
    let crc = match algorithm {
        ChecksumAlgorithm::Crc32 => CrcAlgorithm::Crc32IsoHdlc,
        ChecksumAlgorithm::Crc32c => CrcAlgorithm::Crc32Iscsi,
        ChecksumAlgorithm::Crc64Nvme => CrcAlgorithm::Crc64Nvme,
        ChecksumAlgorithm::Sha1 | ChecksumAlgorithm::Sha256 => return None,
    };
    let mut whole: Option<u64> = None;
    for (part, length) in parts {
        if part.algorithm() != algorithm {
            return None;
        }
        let value = part
            .bytes()
            .iter()
            .fold(0u64, |value, byte| value << 8 | u64::from(*byte));
        whole = Some(match whole {
            None => value,
            Some(before) => crc_fast::checksum_combine(crc, before, value, length),
        });
    }
    let bytes = whole?.to_be_bytes();
    Checksum::from_bytes(algorithm, &bytes[bytes.len() - algorithm.value_bytes()..])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(algorithm: ChecksumAlgorithm, bytes: &[u8]) -> Checksum {
        let mut hasher = Hasher::new(algorithm);
        hasher.update(bytes);
        hasher.finish()
    }

    #[test]
    fn check_values_of_the_catalogues_hold() {
        // CRC check values over "123456789": reveng CRC catalogue; SHA: RFC 3174 and FIPS 180-4.
        let crc = |algorithm, value: &[u8]| {
            assert_eq!(sum(algorithm, b"123456789").bytes(), value);
        };
        crc(ChecksumAlgorithm::Crc32, &0xcbf4_3926_u32.to_be_bytes());
        crc(ChecksumAlgorithm::Crc32c, &0xe306_9283_u32.to_be_bytes());
        crc(
            ChecksumAlgorithm::Crc64Nvme,
            &0xae8b_1486_0a79_9888_u64.to_be_bytes(),
        );
        assert_eq!(
            sum(ChecksumAlgorithm::Sha1, b"abc").to_base64(),
            "qZk+NkcGgWq6PiVxeFDCbJzQ2J0="
        );
        assert_eq!(
            sum(ChecksumAlgorithm::Sha256, b"abc").to_base64(),
            "ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0="
        );
        assert_eq!(Md5::of(b"").to_hex(), "d41d8cd98f00b204e9800998ecf8427e");
        assert_eq!(Crc64::of(b"123456789"), Crc64(0xae8b_1486_0a79_9888));
        assert_eq!(Crc64::of(b""), Crc64::EMPTY);
    }

    #[test]
    fn parts_combine_to_the_checksum_of_the_whole() {
        let (head, tail) = (b"the first part".as_slice(), b"and the second".as_slice());
        let whole = [head, tail].concat();
        for algorithm in [
            ChecksumAlgorithm::Crc32,
            ChecksumAlgorithm::Crc32c,
            ChecksumAlgorithm::Crc64Nvme,
        ] {
            let parts = [
                (sum(algorithm, head), head.len() as u64),
                (sum(algorithm, tail), tail.len() as u64),
            ];
            let combined = full_object(algorithm, parts.iter().map(|(sum, len)| (sum, *len)));
            assert_eq!(combined, Some(sum(algorithm, &whole)));
        }
        assert_eq!(
            Crc64::of(head).then(Crc64::of(tail), tail.len() as u64),
            Crc64::of(&whole)
        );
        assert_eq!(full_object(ChecksumAlgorithm::Crc32, []), None);
    }

    #[test]
    fn values_of_the_wrong_length_are_refused() {
        let algorithm = ChecksumAlgorithm::Crc32;
        assert_eq!(
            Checksum::from_base64(algorithm, "AAAAAA=="),
            Ok(sum(algorithm, b""))
        );
        for text in ["", "AAAA", "AAAAAAA=", "not base64"] {
            assert_eq!(
                Checksum::from_base64(algorithm, text),
                Err(ChecksumError(algorithm))
            );
        }
        assert_eq!(Md5::from_hex("+41d8cd98f00b204e9800998ecf8427e"), None);
    }
}
