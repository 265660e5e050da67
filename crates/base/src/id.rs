//! Identifiers that are never used twice.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngCore, SeedableRng};
use uuid::Uuid;

use crate::Clock;

/// 128 bits in base32hex (RFC 4648 section 7) take 26 characters.
const TEXT_LEN: usize = 26;
const ALPHABET: &[u8; 32] = b"0123456789abcdefghijklmnopqrstuv";

/// The text is not 26 lower-case base32hex characters that encode 128 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an identifier: 26 characters of 0-9 and a-v are expected")]
pub struct IdError;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(u128);

        impl $name {
            /// The 16 bytes in network order, as rows hold them; their order is the order of drawing.
            pub const fn to_bytes(self) -> [u8; 16] {
                self.0.to_be_bytes()
            }

            /// The identifier that [`Self::to_bytes`] was taken from.
            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(u128::from_be_bytes(bytes))
            }

            /// Draws an identifier that was never drawn before.
            pub fn draw(ids: &Ids) -> Self {
                Self(ids.draw())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(std::str::from_utf8(&encode(self.0)).expect("the alphabet is ASCII"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                decode(text).map(Self)
            }
        }
    };
}

id!(
    /// One immutable sequence of stored bytes; its copies on backends are byte for byte equal.
    BlobId
);
id!(
    /// One attempt to place a blob on a backend. The backend key ends in it, so no key is used twice.
    CopyId
);
id!(
    /// One version of an object; a write of the same key draws a new one.
    VersionId
);
id!(
    /// One multipart upload, as clients see it in `uploadId`.
    UploadId
);

impl VersionId {
    /// The moment at which it was drawn.
    pub fn moment(self) -> crate::Timestamp {
        let mut millis = [0; 8];
        millis[2..].copy_from_slice(&self.to_bytes()[..6]);
        crate::Timestamp::from_millis(i64::from_be_bytes(millis))
    }

    /// The identifier with the same randomness, as if it had been drawn at another moment.
    pub fn at(self, moment: crate::Timestamp) -> Self {
        let millis = u64::try_from(moment.millis()).unwrap_or(0).to_be_bytes();
        let mut bytes = self.to_bytes();
        // RFC 9562 section 5.7: the first 48 bits are the milliseconds since the Unix epoch.
        bytes[..6].copy_from_slice(&millis[2..]);
        Self::from_bytes(bytes)
    }
}

/// Draws identifiers: UUIDv7 (RFC 9562 section 5.7), so that they sort by the time of drawing.
///
/// Time and randomness come from outside, so a test with a fixed clock and seed draws the same
/// identifiers again.
pub struct Ids {
    clock: Arc<dyn Clock>,
    rng: Mutex<StdRng>,
}

impl Ids {
    /// Identifiers seeded by the operating system.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            clock,
            rng: Mutex::new(StdRng::from_os_rng()),
        }
    }

    /// Identifiers for a test that must be repeatable.
    pub fn seeded(clock: Arc<dyn Clock>, seed: u64) -> Self {
        Self {
            clock,
            rng: Mutex::new(StdRng::seed_from_u64(seed)),
        }
    }

    fn draw(&self) -> u128 {
        let mut random = [0; 10];
        self.rng.lock().fill_bytes(&mut random);
        let millis = u64::try_from(self.clock.now().millis()).unwrap_or(0);
        uuid::Builder::from_unix_timestamp_millis(millis, &random)
            .into_uuid()
            .as_u128()
    }

    /// A random identifier without a place in time, for a catalogue or an incarnation.
    pub fn uuid(&self) -> Uuid {
        Uuid::from_u128(self.draw())
    }
}

impl fmt::Debug for Ids {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ids").finish_non_exhaustive()
    }
}

fn encode(value: u128) -> [u8; TEXT_LEN] {
    let mut text = [0; TEXT_LEN];
    for (place, character) in text.iter_mut().rev().enumerate() {
        let digit = (value >> (5 * place)) & 31;
        *character = ALPHABET[usize::try_from(digit).expect("five bits fit")];
    }
    text
}

fn decode(text: &str) -> Result<u128, IdError> {
    if text.len() != TEXT_LEN {
        return Err(IdError);
    }
    let mut value: u128 = 0;
    for character in text.bytes() {
        let digit = match character {
            b'0'..=b'9' => character - b'0',
            b'a'..=b'v' => character - b'a' + 10,
            _ => return Err(IdError),
        };
        if value >> 123 != 0 {
            return Err(IdError);
        }
        value = value << 5 | u128::from(digit);
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ManualClock;

    #[test]
    fn text_and_bytes_round_trip_and_sort_alike() {
        let clock = Arc::new(ManualClock::at(1_700_000_000_000));
        let ids = Ids::seeded(Arc::<ManualClock>::clone(&clock), 7);
        let mut drawn = Vec::new();
        for _ in 0..100 {
            clock.advance_ms(1);
            drawn.push(CopyId::draw(&ids));
        }
        let mut by_text = drawn.clone();
        by_text.sort_by_key(ToString::to_string);
        assert_eq!(drawn, by_text);
        for id in drawn {
            assert_eq!(id.to_string().parse::<CopyId>(), Ok(id));
            assert_eq!(CopyId::from_bytes(id.to_bytes()), id);
        }
    }

    #[test]
    fn only_the_canonical_text_parses() {
        for text in [
            "",
            "0",
            &"w".repeat(26),
            &"A".repeat(26),
            &"v".repeat(26),
            &"0".repeat(27),
        ] {
            assert_eq!(text.parse::<BlobId>(), Err(IdError), "{text}");
        }
        assert_eq!(
            format!("7{}", "v".repeat(25))
                .parse::<BlobId>()
                .unwrap()
                .to_bytes(),
            [255; 16]
        );
    }
}
