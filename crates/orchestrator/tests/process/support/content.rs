//! Bytes that are known by a number, so that nobody has to keep them.
//!
//! All content is cut out of one pattern whose length is a prime: two contents with different seeds,
//! and the same content at another offset, differ in nearly every byte. Cutting copies nothing.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::LazyLock;

use backend::{Body, Payload};
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};

/// The length of the pattern, in bytes; a prime near 1 MiB.
const PATTERN_BYTES: u64 = 1_048_573;
/// The longest piece that comes at once, in bytes.
pub(crate) const PIECE_BYTES_MAX: u64 = 64 << 10;

static PATTERN: LazyLock<Bytes> = LazyLock::new(|| {
    // SplitMix64 of Steele, Lea and Flood, one output per eight bytes.
    let mut state: u64 = 0x5333_6f72;
    let mut bytes = Vec::with_capacity(usize::try_from(PATTERN_BYTES).unwrap() + 8);
    while (bytes.len() as u64) < PATTERN_BYTES {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bytes.extend_from_slice(&(mixed ^ (mixed >> 31)).to_le_bytes());
    }
    bytes.truncate(usize::try_from(PATTERN_BYTES).unwrap());
    bytes.into()
});

/// So many bytes of known content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Content {
    start: u64,
    pub(crate) length: u64,
}

impl Content {
    /// The content with this seed.
    pub(crate) fn new(seed: u64, length: u64) -> Self {
        let mut hasher = DefaultHasher::new();
        seed.hash(&mut hasher);
        Self {
            start: hasher.finish() % PATTERN_BYTES,
            length,
        }
    }

    /// The content that belongs to a key.
    pub(crate) fn of_key(key: &str, length: u64) -> Self {
        let mut hasher = DefaultHasher::new();
        key.hash(&mut hasher);
        Self::new(hasher.finish(), length)
    }

    /// The piece at an offset; empty behind the end.
    pub(crate) fn piece(self, offset: u64) -> Bytes {
        let place = (self.start + offset) % PATTERN_BYTES;
        let left = self.length.saturating_sub(offset);
        let length = left.min(PIECE_BYTES_MAX).min(PATTERN_BYTES - place);
        let at = |bytes: u64| usize::try_from(bytes).unwrap();
        PATTERN.slice(at(place)..at(place + length))
    }

    /// The pieces from an offset on.
    pub(crate) fn pieces(self, from: u64) -> impl Iterator<Item = Bytes> + Send {
        let mut offset = from;
        std::iter::from_fn(move || {
            let piece = self.piece(offset);
            offset += piece.len() as u64;
            (!piece.is_empty()).then_some(piece)
        })
    }

    /// A part of it, as content of its own.
    pub(crate) fn part(self, offset: u64, length: u64) -> Self {
        assert!(offset + length <= self.length, "a part lies within");
        Self {
            start: (self.start + offset) % PATTERN_BYTES,
            length,
        }
    }

    /// All of it at once.
    pub(crate) fn bytes(self) -> Bytes {
        let pieces: Vec<_> = self.pieces(0).collect();
        pieces.concat().into()
    }

    /// As a body that comes in pieces.
    pub(crate) fn streamed(self) -> Payload {
        Payload::streamed(self.length, Box::pin(stream::iter(self.pieces(0).map(Ok))))
    }

    /// Whether these bytes stand at this offset.
    pub(crate) fn has(self, offset: u64, bytes: &[u8]) -> bool {
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

    /// Whether a body is this content, whole.
    ///
    /// # Errors
    /// What differs, or how the body ended.
    pub(crate) async fn check(self, mut body: Body) -> Result<(), String> {
        let mut offset = 0;
        while let Some(piece) = body.next().await {
            let piece = piece.map_err(|error| base::report(&error).to_string())?;
            if !self.has(offset, &piece) {
                return Err(format!("other bytes than expected at {offset}"));
            }
            offset += piece.len() as u64;
        }
        match offset == self.length {
            true => Ok(()),
            false => Err(format!("{offset} bytes instead of {}", self.length)),
        }
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
