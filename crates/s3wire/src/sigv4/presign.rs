//! Presigned URLs: the signature in the query.

use std::time::Duration;

use base::Timestamp;
use http::{HeaderMap, HeaderName, HeaderValue, Method};

use super::canonical::{self, CanonicalForm};
use super::payload::UNSIGNED;
use super::sign::Signer;
use super::{ALGORITHM, RequestHead, hex_str};
use crate::date::amz_date;
use crate::uri::encode_component;

/// The longest life of a presigned URL. Source: Amazon S3 user guide, "Download and upload objects
/// with presigned URLs".
pub const EXPIRES_MAX: Duration = Duration::from_secs(604_800);

/// Why no URL could be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PresignError {
    /// The endpoint is not `http://` or `https://` with host and port only.
    #[error("{endpoint:?} is not an http or https address without a path")]
    Endpoint {
        /// The refused endpoint.
        endpoint: String,
    },
    /// Not between one second and [`EXPIRES_MAX`].
    #[error("a presigned URL lives between one second and seven days")]
    Expires,
}

/// What a presigned URL permits.
#[derive(Debug, Clone, Copy)]
pub struct PresignRequest<'a> {
    /// The method.
    pub method: &'a Method,
    /// Scheme, host and port, for example `http://127.0.0.1:9000`.
    pub endpoint: &'a str,
    /// The path in wire form; [`crate::uri`] builds it.
    pub path: &'a str,
    /// Parameters of the operation in wire form, without `?`.
    pub query: &'a str,
    /// Headers besides `host` that the user of the URL has to send.
    pub headers: &'a HeaderMap,
    /// How long the URL is valid, in whole seconds.
    pub expires: Duration,
    /// The current time.
    pub now: Timestamp,
}

impl Signer {
    /// The URL that permits one request, without covering its body.
    pub fn presign(&self, request: PresignRequest<'_>) -> Result<String, PresignError> {
        let endpoint = request.endpoint.trim_end_matches('/');
        // Clients leave the port of the scheme out of the Host header.
        let host = match endpoint.split_once("://") {
            Some(("http", host)) => Some(host.strip_suffix(":80").unwrap_or(host)),
            Some(("https", host)) => Some(host.strip_suffix(":443").unwrap_or(host)),
            Some(_) | None => None,
        };
        let host = host
            .filter(|host| !host.is_empty() && !host.contains(['/', '?', '#', '@']))
            .and_then(|host| HeaderValue::try_from(host).ok())
            .ok_or_else(|| PresignError::Endpoint {
                endpoint: request.endpoint.to_owned(),
            })?;
        let seconds = request.expires.as_secs();
        if seconds == 0 || request.expires > EXPIRES_MAX {
            return Err(PresignError::Expires);
        }
        let mut headers = request.headers.clone();
        headers.insert(http::header::HOST, host);
        let mut names: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();

        let amz_date = amz_date(request.now);
        let credential = format!("{}/{}", self.access_key_id(), self.scope(&amz_date));
        let mut query = request.query.to_owned();
        if !query.is_empty() {
            query.push('&');
        }
        query.push_str(&format!(
            "X-Amz-Algorithm={ALGORITHM}&X-Amz-Credential={}&X-Amz-Date={}&X-Amz-Expires={seconds}&X-Amz-SignedHeaders={}",
            encode_component(&credential),
            std::str::from_utf8(&amz_date).expect("a date is ASCII"),
            encode_component(&names.join(";")),
        ));
        let payload = headers
            .get("x-amz-content-sha256")
            .and_then(|value| value.to_str().ok())
            .unwrap_or(UNSIGNED);
        let head = RequestHead {
            method: request.method,
            path: request.path,
            query: &query,
            headers: &headers,
        };
        let hash = canonical::hash(
            &head,
            CanonicalForm::STANDARD,
            names.iter().copied(),
            payload,
        );
        let hash = hash.expect("the names are those of its headers");
        let (signature, _) = self.signature(amz_date, &hash);
        let path = request.path;
        Ok(format!(
            "{endpoint}{path}?{query}&X-Amz-Signature={}",
            hex_str(&signature)
        ))
    }
}
