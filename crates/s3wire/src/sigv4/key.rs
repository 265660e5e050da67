//! Signing keys, and the cache that keeps them ready.
//!
//! Deriving a key takes four HMACs, more than the rest of a verification, so each secret keeps the
//! last few. The cache belongs to the secret: a changed secret is a new value with an empty cache,
//! and nothing can outlive it.
//!
//! A cache must not tell strangers which access keys exist. So only signatures that were right put
//! keys into it, and a verification that fails always takes the time of one derivation: see
//! [`super::Claim::verify`].

use std::fmt;
use std::sync::Arc;

use base::Secret;
use parking_lot::Mutex;
use ring::hmac;
use subtle::Choice;
use zeroize::Zeroizing;

use super::{SERVICE, TERMINATOR};

/// Keys that a secret keeps: two days around midnight, in four regions.
const KEYS_MAX: usize = 8;

/// The key of one day, region and secret, as HMAC state.
#[derive(Clone)]
pub(crate) struct SigningKey(Arc<hmac::Key>);

impl SigningKey {
    fn derive(secret: &Secret, date: &[u8; 8], region: &str) -> Self {
        let first = Zeroizing::new(format!("AWS4{}", secret.reveal()));
        let mut key = hmac::Key::new(hmac::HMAC_SHA256, first.as_bytes());
        for step in [
            &date[..],
            region.as_bytes(),
            SERVICE.as_bytes(),
            TERMINATOR.as_bytes(),
        ] {
            key = hmac::Key::new(hmac::HMAC_SHA256, hmac::sign(&key, step).as_ref());
        }
        Self(Arc::new(key))
    }

    /// The HMAC over these parts, one after the other.
    pub(crate) fn sign(&self, parts: &[&[u8]]) -> [u8; 32] {
        let mut context = hmac::Context::with_key(&self.0);
        for part in parts {
            context.update(part);
        }
        context
            .sign()
            .as_ref()
            .try_into()
            .expect("HMAC-SHA256 has 32 bytes")
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningKey(***)")
    }
}

/// A secret access key with its signing keys of the last days.
pub struct SigningSecret {
    secret: Secret,
    known: Choice,
    keys: Mutex<Vec<Cached>>,
}

struct Cached {
    date: [u8; 8],
    region: Box<str>,
    key: SigningKey,
}

impl SigningSecret {
    /// A secret that can verify and sign.
    pub fn new(secret: Secret) -> Self {
        Self {
            secret,
            known: Choice::from(1),
            keys: Mutex::default(),
        }
    }

    /// The stand-in for access keys that are not known: verification takes as long as with a real
    /// one and always fails, even for a request that was signed with the stand-in's own text.
    pub fn unknown() -> Self {
        let text = "this secret verifies nothing and is public".to_owned();
        Self {
            secret: Secret::new(text),
            known: Choice::from(0),
            keys: Mutex::default(),
        }
    }

    pub(crate) fn is_known(&self) -> Choice {
        self.known
    }

    /// The HMAC-SHA1 of signature version 2, which knows no derived keys.
    pub(crate) fn legacy_tag(&self, text: &[u8]) -> [u8; 20] {
        let key = hmac::Key::new(
            hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
            self.secret.reveal().as_bytes(),
        );
        hmac::sign(&key, text)
            .as_ref()
            .try_into()
            .expect("HMAC-SHA1 has 20 bytes")
    }

    /// The signing key for our own signatures.
    pub(super) fn key(&self, date: &[u8; 8], region: &str) -> SigningKey {
        self.cached(date, region).unwrap_or_else(|| {
            let key = self.derive(date, region);
            self.keep(date, region, &key);
            key
        })
    }

    /// A key that is at hand; the most recently used one is found first.
    pub(super) fn cached(&self, date: &[u8; 8], region: &str) -> Option<SigningKey> {
        let mut keys = self.keys.lock();
        let found = keys
            .iter()
            .position(|cached| cached.date == *date && cached.region.as_ref() == region)?;
        keys[..=found].rotate_right(1);
        Some(keys[0].key.clone())
    }

    pub(super) fn derive(&self, date: &[u8; 8], region: &str) -> SigningKey {
        SigningKey::derive(&self.secret, date, region)
    }

    /// Keeps a key in the place of the one that was not used for longest.
    pub(super) fn keep(&self, date: &[u8; 8], region: &str, key: &SigningKey) {
        let mut keys = self.keys.lock();
        keys.truncate(KEYS_MAX - 1);
        keys.insert(
            0,
            Cached {
                date: *date,
                region: region.into(),
                key: key.clone(),
            },
        );
    }

    #[cfg(test)]
    pub(super) fn kept(&self) -> usize {
        self.keys.lock().len()
    }
}

impl fmt::Debug for SigningSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningSecret(***)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cache_is_bounded_and_answers_as_derivation_does() {
        let secret = Secret::new("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY".to_owned());
        let cached = SigningSecret::new(secret.clone());
        for round in 0..3 {
            for region in 0..KEYS_MAX + 3 {
                let region = format!("region-{region}");
                let expected = SigningKey::derive(&secret, b"20130524", &region).sign(&[b"x"]);
                assert_eq!(
                    cached.key(b"20130524", &region).sign(&[b"x"]),
                    expected,
                    "{round}"
                );
            }
            assert_eq!(cached.kept(), KEYS_MAX);
        }
        let [one, other] = [b"20130524", b"20130525"].map(|date| cached.key(date, "r"));
        assert_ne!(one.sign(&[b"x"]), other.sign(&[b"x"]));
    }
}
