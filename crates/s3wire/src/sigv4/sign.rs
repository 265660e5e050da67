//! Signing requests to backends.

use std::fmt;

use base::{Secret, Timestamp};
use http::{HeaderMap, HeaderName, HeaderValue, Method};

use super::canonical::{self, CanonicalForm};
use super::chain::Chain;
use super::key::SigningSecret;
use super::payload::PayloadMode;
use super::{ALGORITHM, Hex, RequestHead, SERVICE, TERMINATOR, hex_str};
use crate::date::amz_date;

const X_AMZ_DATE: HeaderName = HeaderName::from_static("x-amz-date");
const X_AMZ_CONTENT_SHA256: HeaderName = HeaderName::from_static("x-amz-content-sha256");

/// The credentials cannot be written into a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SignerError {
    /// The access key is empty, or holds blanks, commas or characters outside ASCII.
    #[error("the access key id is not printable ASCII without blanks and commas")]
    AccessKey,
    /// The region is empty, or holds slashes, blanks, commas or characters outside ASCII.
    #[error("the region is not printable ASCII without blanks, commas and slashes")]
    Region,
}

/// Signs with one pair of keys for one region.
pub struct Signer {
    access_key_id: String,
    secret: SigningSecret,
    region: String,
}

/// The part of a request that is not in its headers.
#[derive(Debug, Clone, Copy)]
pub struct SignRequest<'a> {
    /// The method.
    pub method: &'a Method,
    /// The path as it will be sent; [`crate::uri`] builds it.
    pub path: &'a str,
    /// The query as it will be sent, without `?`.
    pub query: &'a str,
    /// How the body is covered.
    pub payload: PayloadMode,
    /// The current time.
    pub now: Timestamp,
}

impl Signer {
    /// A signer with these credentials.
    pub fn new(access_key_id: String, secret: Secret, region: String) -> Result<Self, SignerError> {
        let plain = |text: &str| {
            !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic() && b != b',')
        };
        if !plain(&access_key_id) {
            return Err(SignerError::AccessKey);
        }
        if !plain(&region) || region.contains('/') {
            return Err(SignerError::Region);
        }
        Ok(Self {
            access_key_id,
            secret: SigningSecret::new(secret),
            region,
        })
    }

    /// Adds `x-amz-date`, `x-amz-content-sha256` and `authorization` to the headers.
    ///
    /// Signed are `host`, which has to be there, `content-type`, `content-md5` and every `x-amz-*`.
    /// Headers that proxies change (`accept-encoding`, `user-agent`, `expect`) are not.
    /// The answer continues the signature over the chunks of a streaming body.
    pub fn sign(&self, request: SignRequest<'_>, headers: &mut HeaderMap) -> Chain {
        debug_assert!(
            headers.contains_key("host"),
            "a signature without host is refused"
        );
        let amz_date = amz_date(request.now);
        let payload = request.payload.to_text();
        headers.insert(
            X_AMZ_DATE,
            HeaderValue::from_bytes(&amz_date).expect("a date is a header value"),
        );
        headers.insert(
            X_AMZ_CONTENT_SHA256,
            HeaderValue::try_from(&payload).expect("a payload mode is a header value"),
        );
        let mut names: Vec<&str> = headers
            .keys()
            .map(HeaderName::as_str)
            .filter(|name| is_signed(name))
            .collect();
        names.sort_unstable();
        let head = RequestHead {
            method: request.method,
            path: request.path,
            query: request.query,
            headers,
        };
        let hash = canonical::hash(
            &head,
            CanonicalForm::STANDARD,
            names.iter().copied(),
            &payload,
        );
        let hash = hash.expect("the names are those of its headers");
        let (signature, chain) = self.signature(amz_date, &hash);
        let authorization = format!(
            "{ALGORITHM} Credential={}/{}, SignedHeaders={}, Signature={}",
            self.access_key_id,
            self.scope(&amz_date),
            names.join(";"),
            hex_str(&signature)
        );
        let mut value = HeaderValue::try_from(authorization)
            .expect("access key and region were checked to be plain");
        value.set_sensitive(true);
        headers.insert(http::header::AUTHORIZATION, value);
        chain
    }

    pub(super) fn signature(&self, amz_date: [u8; 16], request: &[u8; 32]) -> (Hex, Chain) {
        let date = amz_date
            .first_chunk()
            .expect("the date begins with its day");
        let key = self.secret.key(date, &self.region);
        let scope = self.scope(&amz_date);
        let signature = canonical::sign_text(&key, &amz_date, &scope, request);
        (
            signature,
            Chain::new(key, amz_date, scope.into(), signature),
        )
    }

    pub(super) fn scope(&self, amz_date: &[u8; 16]) -> String {
        let day = std::str::from_utf8(&amz_date[..8]).expect("a date is ASCII");
        [day, &self.region, SERVICE, TERMINATOR].join("/")
    }

    pub(super) fn access_key_id(&self) -> &str {
        &self.access_key_id
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signer")
            .field("access_key_id", &self.access_key_id)
            .field("region", &self.region)
            .finish_non_exhaustive()
    }
}

fn is_signed(name: &str) -> bool {
    matches!(name, "host" | "content-type" | "content-md5") || name.starts_with("x-amz-")
}
