//! Bytes that are known by a number, so that nobody has to keep them.
//!
//! All content is cut out of one pattern whose length is a prime: two contents with different seeds,
//! and the same content at another offset, differ in nearly every byte. Cutting copies nothing.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::LazyLock;

use bytes::Bytes;

/// The length of the pattern, in bytes; a prime near 1 MiB.
const PATTERN_BYTES: u64 = 1_048_573;
/// The longest piece that comes at once, in bytes.
pub const PIECE_BYTES_MAX: u64 = 64 << 10;

/// Different contents among the long ones of a length.
const LONG_CONTENTS: u64 = 4;

static PATTERN: LazyLock<Bytes> = LazyLock::new(|| {
    // SplitMix64 of Steele, Lea and Flood, one output per eight bytes.
    let mut state: u64 = 0x5333_6f72;
    let mut bytes =
        Vec::with_capacity(usize::try_from(PATTERN_BYTES).expect("it fits into memory") + 8);
    while (bytes.len() as u64) < PATTERN_BYTES {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bytes.extend_from_slice(&(mixed ^ (mixed >> 31)).to_le_bytes());
    }
    bytes.truncate(usize::try_from(PATTERN_BYTES).expect("it fits into memory"));
    bytes.into()
});

/// So many bytes of known content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Content {
    start: u64,
    /// How many bytes.
    pub length: u64,
}

impl Content {
    /// The content with this seed.
    pub fn new(seed: u64, length: u64) -> Self {
        let mut hasher = DefaultHasher::new();
        seed.hash(&mut hasher);
        Self {
            start: hasher.finish() % PATTERN_BYTES,
            length,
        }
    }

    /// The content that belongs to a key.
    pub fn of_key(key: &str, length: u64) -> Self {
        Self::new(seed(key), length)
    }

    /// The content that belongs to a key at a [sink](crate::sink): long ones are one of a few, so that it
    /// has to hash each only once.
    pub fn one_of_few(key: &str, length: u64) -> Self {
        match length > PIECE_BYTES_MAX {
            true => Self::new(seed(key) % LONG_CONTENTS, length),
            false => Self::of_key(key, length),
        }
    }

    /// The piece at an offset; empty behind the end.
    pub fn piece(self, offset: u64) -> Bytes {
        let place = (self.start + offset) % PATTERN_BYTES;
        let left = self.length.saturating_sub(offset);
        let length = left.min(PIECE_BYTES_MAX).min(PATTERN_BYTES - place);
        let at = |bytes: u64| usize::try_from(bytes).expect("it fits into memory");
        PATTERN.slice(at(place)..at(place + length))
    }

    /// The pieces from an offset on.
    pub fn pieces(self, from: u64) -> impl Iterator<Item = Bytes> + Send {
        let mut offset = from;
        std::iter::from_fn(move || {
            let piece = self.piece(offset);
            offset += piece.len() as u64;
            (!piece.is_empty()).then_some(piece)
        })
    }

    /// A part of it, as content of its own.
    pub fn part(self, offset: u64, length: u64) -> Self {
        assert!(offset + length <= self.length, "a part lies within");
        Self {
            start: (self.start + offset) % PATTERN_BYTES,
            length,
        }
    }

    /// All of it at once.
    pub fn bytes(self) -> Bytes {
        let pieces: Vec<_> = self.pieces(0).collect();
        pieces.concat().into()
    }

    /// Whether these bytes stand at this offset.
    pub fn has(self, offset: u64, bytes: &[u8]) -> bool {
        if offset + bytes.len() as u64 > self.length {
            return false;
        }
        let mut rest = bytes;
        for piece in self.pieces(offset) {
            let (seen, behind) = rest.split_at(piece.len().min(rest.len()));
            if seen != &piece[..seen.len()] {
                return false;
            }
            rest = behind;
            if rest.is_empty() {
                break;
            }
        }
        true
    }
}

#[test]
fn content_differs_by_seed_and_by_place() {
    let one = Content::new(1, 3 << 20);
    assert!(one.has(0, &one.bytes()));
    assert!(one.has(7, &one.bytes()[7..]));
    assert!(!one.has(8, &one.bytes()[7..100]));
    assert!(!Content::new(2, 3 << 20).has(0, &one.bytes()));
    assert!(one.part(5, 100).has(0, &one.bytes()[5..105]));
    assert!(!one.part(5, 100).has(0, &one.bytes()[5..106]));
}

fn seed(key: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    hasher.finish()
}
