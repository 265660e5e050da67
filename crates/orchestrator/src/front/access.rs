//! Who may do what: credentials, and the one bucket that each of them opens.
//!
//! Nothing here tells by its time or its answer whether an access key exists. Tokens are found by a
//! keyed hash, so that neither the search nor its order depends on their text.

use std::collections::HashMap;
use std::fmt;

use base::{BucketName, Secret, Timestamp};
use http::HeaderMap;
use ring::hmac;
use ring::rand::SystemRandom;
use s3wire::sigv4::{Claim, PayloadMode, RequestHead, SigningSecret, payload_mode};
use s3wire::{Error, ErrorCode};
use subtle::ConstantTimeEq as _;

use super::intake::Cover;
use crate::config::{BucketConfig, Credential};

/// The header that carries a token.
const TOKEN_HEADER: &str = "x-proxy-token";

/// The system has no randomness to give.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the system's random number generator failed")]
pub struct NoRandomness;

/// All credentials.
pub struct Access {
    keys: HashMap<String, Key>,
    unknown: SigningSecret,
    tokens: HashMap<[u8; 32], Token>,
    hash: hmac::Key,
}

struct Key {
    secret: SigningSecret,
    bucket: BucketName,
}

struct Token {
    token: Secret,
    bucket: BucketName,
}

/// How a caller proved who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Proof {
    /// By a signature.
    Signature,
    /// By a token.
    Token,
}

/// Somebody who has proven who it is.
#[derive(Debug)]
pub(super) struct Caller {
    /// The bucket that it may use.
    pub(super) bucket: BucketName,
    /// How it proved that.
    pub(super) proof: Proof,
    /// How its body is covered.
    pub(super) cover: Cover,
}

impl Access {
    /// The credentials of these buckets.
    pub fn new(buckets: &[BucketConfig]) -> Result<Self, NoRandomness> {
        let hash = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new());
        let mut access = Self {
            keys: HashMap::new(),
            unknown: SigningSecret::unknown(),
            tokens: HashMap::new(),
            hash: hash.map_err(|_| NoRandomness)?,
        };
        for bucket in buckets {
            for credential in &bucket.credentials {
                access.add(credential, &bucket.name);
            }
        }
        Ok(access)
    }

    fn add(&mut self, credential: &Credential, bucket: &BucketName) {
        let bucket = bucket.clone();
        match credential {
            Credential::KeyPair {
                access_key_id,
                secret_access_key,
            } => {
                let secret = SigningSecret::new(secret_access_key.clone());
                self.keys
                    .insert(access_key_id.clone(), Key { secret, bucket });
            }
            Credential::Token(token) => {
                let place = self.place_of(token.reveal().as_bytes());
                self.tokens.insert(
                    place,
                    Token {
                        token: token.clone(),
                        bucket,
                    },
                );
            }
        }
    }

    fn place_of(&self, token: &[u8]) -> [u8; 32] {
        let tag = hmac::sign(&self.hash, token);
        tag.as_ref().try_into().expect("HMAC-SHA256 has 32 bytes")
    }

    /// Finds out who sent a request.
    pub(super) fn authenticate(
        &self,
        head: RequestHead<'_>,
        now: Timestamp,
    ) -> Result<Caller, Error> {
        let Some(claim) = Claim::parse(head)? else {
            return self.by_token(head.headers);
        };
        let key = self.keys.get(claim.access_key_id());
        let secret = key.map_or(&self.unknown, |key| &key.secret);
        let verified = claim.verify(secret, now)?;
        let Some(key) = key else {
            return Err(ErrorCode::SignatureDoesNotMatch.into());
        };
        Ok(Caller {
            bucket: key.bucket.clone(),
            proof: Proof::Signature,
            cover: Cover {
                payload: verified.payload,
                chain: Some(verified.chain),
            },
        })
    }

    fn by_token(&self, headers: &HeaderMap) -> Result<Caller, Error> {
        let mut given = headers.get_all(TOKEN_HEADER).iter();
        let (Some(given), None) = (given.next(), given.next()) else {
            return Err(ErrorCode::AccessDenied.into());
        };
        let found = self.tokens.get(&self.place_of(given.as_bytes()));
        let known = found
            .filter(|known| bool::from(known.token.reveal().as_bytes().ct_eq(given.as_bytes())));
        let Some(known) = known else {
            return Err(ErrorCode::AccessDenied.into());
        };
        let payload = payload_mode(headers)?.unwrap_or(PayloadMode::Unsigned);
        Ok(Caller {
            bucket: known.bucket.clone(),
            proof: Proof::Token,
            cover: Cover {
                payload,
                chain: None,
            },
        })
    }
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Access({} keys, {} tokens)",
            self.keys.len(),
            self.tokens.len()
        )
    }
}
