//! The key by which a catalogue knows its own labels again.

use std::fmt;

use ring::hmac;
use ring::rand::{SecureRandom as _, SystemRandom};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

/// Bytes of a key.
pub const LABEL_KEY_BYTES: usize = 32;
/// Bytes of a code: half of SHA-256, as RFC 2104 section 5 allows.
pub const LABEL_MAC_BYTES: usize = 16;

/// The key of a catalogue's labels. It lies in the catalogue and in its backups, never on a backend.
#[derive(Clone)]
pub struct LabelKey {
    bytes: Zeroizing<[u8; LABEL_KEY_BYTES]>,
    /// Prepared once: a write pays for its own bytes only.
    hmac: hmac::Key,
}

impl LabelKey {
    /// Draws a key from the kernel: a generator in user space goes on alike in a machine that is
    /// resumed twice.
    pub fn draw() -> Self {
        let mut bytes = [0; LABEL_KEY_BYTES];
        SystemRandom::new()
            .fill(&mut bytes)
            .expect("the kernel has random bytes");
        Self::from_bytes(bytes)
    }

    /// The key that [`Self::to_bytes`] was taken from.
    pub fn from_bytes(bytes: [u8; LABEL_KEY_BYTES]) -> Self {
        Self {
            hmac: hmac::Key::new(hmac::HMAC_SHA256, &bytes),
            bytes: Zeroizing::new(bytes),
        }
    }

    /// The bytes, for the catalogue's row.
    pub fn to_bytes(&self) -> [u8; LABEL_KEY_BYTES] {
        *self.bytes
    }

    /// The code over these fields, one behind the other with a zero byte after each: all but the last
    /// must hold none.
    pub fn mac(&self, fields: &[&[u8]]) -> [u8; LABEL_MAC_BYTES] {
        let mut context = hmac::Context::with_key(&self.hmac);
        for field in fields {
            context.update(field);
            context.update(&[0]);
        }
        let tag = context.sign();
        let (kept, _) = tag
            .as_ref()
            .split_first_chunk()
            .expect("SHA-256 has 32 bytes");
        *kept
    }

    /// Whether this is the code over these fields, in constant time.
    pub fn verifies(&self, fields: &[&[u8]], mac: &[u8; LABEL_MAC_BYTES]) -> bool {
        self.mac(fields).ct_eq(mac).into()
    }
}

impl PartialEq for LabelKey {
    fn eq(&self, other: &Self) -> bool {
        self.bytes.ct_eq(&*other.bytes).into()
    }
}

impl Eq for LabelKey {}

impl fmt::Debug for LabelKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_holds_for_its_key_and_its_fields_alone() {
        let key = LabelKey::from_bytes([7; 32]);
        let fields: [&[u8]; 2] = [b"label", b"place"];
        let mac = key.mac(&fields);
        assert!(LabelKey::from_bytes(key.to_bytes()).verifies(&fields, &mac));
        assert!(!LabelKey::from_bytes([8; 32]).verifies(&fields, &mac));
        assert!(!key.verifies(&[b"labelp", b"lace"], &mac));
        let mut other = mac;
        other[15] ^= 1;
        assert!(!key.verifies(&fields, &other));
        assert_ne!(LabelKey::draw(), LabelKey::draw());
        assert_eq!(format!("{key:?}"), "***");
    }
}
