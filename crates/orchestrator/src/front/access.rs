//! Who may do what: credentials, what each of them opens, and which web pages may ask.
//!
//! Nothing here tells by its time or its answer whether an access key exists. Tokens are found by a
//! keyed hash, so that neither the search nor its order depends on their text.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use base::{BucketName, Secret, Timestamp};
use http::HeaderMap;
use ipnet::IpNet;
use ring::hmac;
use ring::rand::SystemRandom;
use s3wire::sigv2::UrlClaim;
use s3wire::sigv4::{
    Claim, FormClaim, PayloadMode, Plus, RequestHead, SigningSecret, payload_mode,
};
use s3wire::{Error, ErrorCode};
use subtle::ConstantTimeEq as _;

use super::intake::Cover;
use crate::admin;
use crate::config::{
    BucketCredential, Config, CorsRuleConfig, Credential, CredentialGrant, Grant, Verb,
    is_in_networks,
};

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
    cors: HashMap<BucketName, Arc<[CorsRuleConfig]>>,
    admin_token: Option<Secret>,
    allow_sigv2_presigned: bool,
}

/// Whether a caller may use the admin API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AdminGate {
    /// Nobody may: there is no token.
    Off,
    /// The caller has no token, or another one.
    Shut,
    /// The caller may.
    Open,
}

struct Key {
    secret: SigningSecret,
    rights: Arc<Rights>,
}

struct Token {
    token: Secret,
    rights: Arc<Rights>,
}

/// What a credential may do.
#[derive(Debug)]
pub(super) struct Rights {
    reach: Reach,
    networks: Vec<IpNet>,
}

#[derive(Debug)]
enum Reach {
    /// Everything everywhere: the root account.
    All,
    /// What these say.
    Granted(Vec<Grant>),
}

impl Rights {
    /// Whether it is the root account.
    pub(super) fn are_all(&self) -> bool {
        matches!(self.reach, Reach::All)
    }

    /// Whether anything at all may be done in the bucket.
    pub(super) fn reach(&self, bucket: &BucketName) -> bool {
        self.any(bucket, |_| true)
    }

    /// Whether the bucket shows up in a list of buckets.
    pub(super) fn show(&self, bucket: &BucketName) -> bool {
        self.any(bucket, |grant| grant.allow.contains(Verb::ListBuckets))
    }

    /// Whether this may be done with some key of the bucket.
    pub(super) fn allow_some(&self, verb: Verb, bucket: &BucketName) -> bool {
        self.any(bucket, |grant| grant.allow.contains(verb))
    }

    /// Whether this may be done with the key, or, to list, with all keys that begin so.
    pub(super) fn allow(&self, verb: Verb, bucket: &BucketName, key: &str) -> bool {
        self.any(bucket, |grant| {
            grant.allow.contains(verb) && grant.covers(key)
        })
    }

    fn any(&self, bucket: &BucketName, fits: impl Fn(&Grant) -> bool) -> bool {
        match &self.reach {
            Reach::All => true,
            Reach::Granted(grants) => grants
                .iter()
                .any(|grant| grant.bucket == *bucket && fits(grant)),
        }
    }
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
    /// What it may do.
    pub(super) rights: Arc<Rights>,
    /// How it proved that.
    pub(super) proof: Proof,
    /// How its body is covered.
    pub(super) cover: Cover,
    /// What it means by a `+` in its query.
    pub(super) plus: Plus,
}

impl Access {
    /// The credentials of this configuration.
    pub fn new(config: &Config) -> Result<Self, NoRandomness> {
        let hash = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new());
        let rules = config
            .buckets
            .iter()
            .filter(|bucket| !bucket.cors.is_empty());
        let mut access = Self {
            keys: HashMap::new(),
            unknown: SigningSecret::unknown(),
            tokens: HashMap::new(),
            hash: hash.map_err(|_| NoRandomness)?,
            cors: rules
                .map(|bucket| (bucket.name.clone(), bucket.cors.clone().into()))
                .collect(),
            admin_token: config.admin_token.clone(),
            allow_sigv2_presigned: config.allow_sigv2_presigned,
        };
        if let Some(root) = &config.root {
            let rights = Rights {
                reach: Reach::All,
                networks: Vec::new(),
            };
            access.add_key(&root.access_key_id, &root.secret_access_key, rights);
        }
        for bucket in &config.buckets {
            for credential in &bucket.credentials {
                access.add(credential, &bucket.name, &config.grants);
            }
        }
        Ok(access)
    }

    fn add(&mut self, given: &BucketCredential, bucket: &BucketName, more: &[CredentialGrant]) {
        let mut grants = vec![Grant {
            bucket: bucket.clone(),
            allow: given.allow,
            prefixes: given.prefixes.clone(),
        }];
        let rights = |grants| Rights {
            reach: Reach::Granted(grants),
            networks: given.networks.clone(),
        };
        match &given.proof {
            Credential::KeyPair {
                access_key_id,
                secret_access_key,
            } => {
                let more = more
                    .iter()
                    .filter(|grant| grant.access_key_id == *access_key_id);
                grants.extend(more.map(|more| more.grant.clone()));
                self.add_key(access_key_id, secret_access_key, rights(grants));
            }
            Credential::Token(token) => {
                let place = self.place_of(token.reveal().as_bytes());
                let token = Token {
                    token: token.clone(),
                    rights: Arc::new(rights(grants)),
                };
                self.tokens.insert(place, token);
            }
        }
    }

    fn add_key(&mut self, id: &str, secret: &Secret, rights: Rights) {
        let key = Key {
            secret: SigningSecret::new(secret.clone()),
            rights: Arc::new(rights),
        };
        self.keys.insert(id.to_owned(), key);
    }

    /// Which web pages may use a bucket; none where there are no rules.
    pub(super) fn cors(&self, bucket: &BucketName) -> Option<Arc<[CorsRuleConfig]>> {
        self.cors.get(bucket).cloned()
    }

    /// Whether a request may use the admin API. How long that takes tells nothing of the token.
    pub(super) fn admin_gate(&self, headers: &HeaderMap) -> AdminGate {
        let Some(token) = &self.admin_token else {
            return AdminGate::Off;
        };
        let mut given = headers.get_all(admin::TOKEN_HEADER).iter();
        let (Some(given), None) = (given.next(), given.next()) else {
            return AdminGate::Shut;
        };
        let wanted = self.place_of(token.reveal().as_bytes());
        match bool::from(wanted.ct_eq(&self.place_of(given.as_bytes()))) {
            true => AdminGate::Open,
            false => AdminGate::Shut,
        }
    }

    fn place_of(&self, token: &[u8]) -> [u8; 32] {
        let tag = hmac::sign(&self.hash, token);
        tag.as_ref().try_into().expect("HMAC-SHA256 has 32 bytes")
    }

    /// Finds out who sent a request. `named` is the bucket that its host names.
    pub(super) fn authenticate(
        &self,
        head: RequestHead<'_>,
        named: Option<&str>,
        peer: IpAddr,
        now: Timestamp,
    ) -> Result<Caller, Error> {
        let url = if self.allow_sigv2_presigned {
            UrlClaim::parse(head, named)?
        } else {
            None
        };
        let caller = match url {
            Some(url) => self.by_old_url(&url, now)?,
            None => match Claim::parse(head)? {
                Some(claim) => self.by_signature(&claim, now)?,
                None => self.by_token(head.headers)?,
            },
        };
        match is_in_networks(&caller.rights.networks, peer) {
            true => Ok(caller),
            false => Err(ErrorCode::AccessDenied.into()),
        }
    }

    /// Finds out who signed a form.
    pub(super) fn authenticate_form(
        &self,
        claim: &FormClaim<'_>,
        peer: IpAddr,
    ) -> Result<Arc<Rights>, Error> {
        let key = self.keys.get(claim.access_key_id());
        claim.verify(key.map_or(&self.unknown, |key| &key.secret))?;
        let Some(key) = key else {
            return Err(ErrorCode::SignatureDoesNotMatch.into());
        };
        match is_in_networks(&key.rights.networks, peer) {
            true => Ok(Arc::clone(&key.rights)),
            false => Err(ErrorCode::AccessDenied.into()),
        }
    }

    fn by_signature(&self, claim: &Claim<'_>, now: Timestamp) -> Result<Caller, Error> {
        let key = self.keys.get(claim.access_key_id());
        let secret = key.map_or(&self.unknown, |key| &key.secret);
        let verified = claim.verify(secret, now)?;
        let Some(key) = key else {
            return Err(ErrorCode::SignatureDoesNotMatch.into());
        };
        Ok(Caller {
            rights: Arc::clone(&key.rights),
            proof: Proof::Signature,
            cover: Cover {
                payload: verified.payload,
                chain: Some(verified.chain),
            },
            plus: verified.plus,
        })
    }

    /// By a URL of signature version 2, which covers no body.
    fn by_old_url(&self, claim: &UrlClaim<'_>, now: Timestamp) -> Result<Caller, Error> {
        let key = self.keys.get(claim.access_key_id());
        let plus = claim.verify(key.map_or(&self.unknown, |key| &key.secret), now)?;
        let Some(key) = key else {
            return Err(ErrorCode::SignatureDoesNotMatch.into());
        };
        Ok(Caller {
            rights: Arc::clone(&key.rights),
            proof: Proof::Signature,
            cover: Cover {
                payload: claim.payload_mode()?.unwrap_or(PayloadMode::Unsigned),
                chain: None,
            },
            plus,
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
            rights: Arc::clone(&known.rights),
            proof: Proof::Token,
            cover: Cover {
                payload,
                chain: None,
            },
            plus: Plus::default(),
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
