//! The chain of signatures over the chunks of a body.

use super::key::SigningKey;
#[cfg(test)]
use super::key::SigningSecret;
use super::payload::PayloadMode;
use super::{Hex, hex};

/// Signs or verifies chunk after chunk: each signature covers the one before, the first that of the
/// request's head.
#[derive(Debug, Clone)]
pub struct Chain {
    key: SigningKey,
    amz_date: [u8; 16],
    scope: Box<str>,
    previous: Hex,
}

impl Chain {
    pub(super) fn new(key: SigningKey, amz_date: [u8; 16], scope: Box<str>, seed: Hex) -> Self {
        Self {
            key,
            amz_date,
            scope,
            previous: seed,
        }
    }

    /// A chain from the values that the documentation shows.
    #[cfg(test)]
    pub(crate) fn for_tests(
        secret: &SigningSecret,
        amz_date: &str,
        scope: &str,
        seed: &str,
    ) -> Self {
        let amz_date: [u8; 16] = amz_date.as_bytes().try_into().expect("a date");
        let region = scope.split('/').nth(1).expect("a region");
        let key = secret.key(amz_date.first_chunk().expect("a day"), region);
        Self::new(
            key,
            amz_date,
            scope.into(),
            seed.as_bytes().try_into().expect("a signature"),
        )
    }

    /// The signature of the next chunk, whose bytes have this SHA-256.
    pub(crate) fn chunk(&mut self, sum: &[u8; 32]) -> Hex {
        let PayloadMode::Sha256(empty) = PayloadMode::EMPTY else {
            unreachable!("the mode of an empty body is its sum")
        };
        self.advance(
            b"AWS4-HMAC-SHA256-PAYLOAD\n",
            &[&hex(&empty), b"\n", &hex(sum)],
        )
    }

    /// The signature of the trailer, whose lines have this SHA-256.
    pub(crate) fn trailer(&mut self, sum: &[u8; 32]) -> Hex {
        self.advance(b"AWS4-HMAC-SHA256-TRAILER\n", &[&hex(sum)])
    }

    fn advance(&mut self, kind: &[u8], last: &[&[u8]]) -> Hex {
        let head: [&[u8]; 7] = [
            kind,
            &self.amz_date,
            b"\n",
            self.scope.as_bytes(),
            b"\n",
            &self.previous,
            b"\n",
        ];
        let signature = hex(&self.key.sign(&[&head, last].concat()));
        self.previous = signature;
        signature
    }
}
