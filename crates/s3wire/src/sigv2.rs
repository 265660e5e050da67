//! Presigned URLs of signature version 2, which some clients make unless told otherwise.
//!
//! It covers method, path, sub-resources, `response-*`, `x-amz-*`, Content-Type and Content-MD5, and
//! until when; neither the host nor other parameters and headers. So whoever accepts it decides that
//! (`auth.allow_sigv2_presigned`). Only verified, and only in queries. Source: Amazon S3 user guide, "Signing and
//! authenticating REST requests (AWS signature version 2)".

use std::borrow::Cow;
use std::collections::BTreeMap;

use base::Timestamp;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use subtle::ConstantTimeEq as _;

use crate::headers::single;
use crate::query::Query;
use crate::sigv4::{PayloadMode, Plus, RequestHead, SigningSecret, payload_mode};
use crate::{Error, ErrorCode};

/// The parameter by which a URL of this version is known.
const ACCESS_KEY: &str = "AWSAccessKeyId";

/// Parameters that are part of the resource; those of `response-*` are too. What botocore and the user
/// guide list.
const SUBRESOURCES: [&str; 35] = [
    "accelerate",
    "acl",
    "analytics",
    "cors",
    "defaultObjectAcl",
    "delete",
    "inventory",
    "lifecycle",
    "location",
    "logging",
    "metrics",
    "notification",
    "object-lock",
    "partNumber",
    "policy",
    "replication",
    "requestPayment",
    "response-cache-control",
    "response-content-disposition",
    "response-content-encoding",
    "response-content-language",
    "response-content-type",
    "response-expires",
    "restore",
    "select",
    "select-type",
    "storageClass",
    "tagging",
    "torrent",
    "uploadId",
    "uploads",
    "versionId",
    "versioning",
    "versions",
    "website",
];

/// What a URL claims about who signed it; nothing of it is proven.
#[derive(Debug)]
pub struct UrlClaim<'a> {
    head: RequestHead<'a>,
    bucket: Option<&'a str>,
    access_key_id: String,
    expires: String,
    end: Timestamp,
    signature: [u8; 20],
}

impl<'a> UrlClaim<'a> {
    /// Reads the claim; `None` where the query is not of this version. `bucket` is the one that the
    /// host names, where it does.
    pub fn parse(head: RequestHead<'a>, bucket: Option<&'a str>) -> Result<Option<Self>, Error> {
        if !head.query.contains(ACCESS_KEY) {
            return Ok(None);
        }
        let query = Query::parse(head.query)?;
        if !query.has(ACCESS_KEY) {
            return Ok(None);
        }
        let other = ["X-Amz-Algorithm", "X-Amz-Credential", "X-Amz-Signature"];
        if head.headers.contains_key(AUTHORIZATION) || other.iter().any(|name| query.has(name)) {
            return Err(Error::argument(
                "Only one auth mechanism allowed: header or query.",
            ));
        }
        let field = |name: &'static str| {
            let value = query.value(name)?.filter(|value| !value.is_empty());
            value.map(str::to_owned).ok_or_else(|| {
                denied(
                    "Query-string authentication requires the Signature, Expires and AWSAccessKeyId parameters",
                )
            })
        };
        let (access_key_id, expires) = (field(ACCESS_KEY)?, field("Expires")?);
        let signature = field("Signature")?;
        // A plus is one here: as a blank it would be no base64.
        let signature = STANDARD.decode(signature.replace(' ', "+")).ok();
        let signature = signature.and_then(|bytes| bytes.try_into().ok());
        Ok(Some(Self {
            head,
            bucket,
            access_key_id,
            end: end(&expires)
                .ok_or_else(|| denied("Invalid date (should be seconds since epoch)"))?,
            expires,
            signature: signature.ok_or(ErrorCode::SignatureDoesNotMatch)?,
        }))
    }

    /// The access key that the URL names.
    pub fn access_key_id(&self) -> &str {
        &self.access_key_id
    }

    /// What is said of the payload, in a header or in the parameter that stands for it.
    pub fn payload_mode(&self) -> Result<Option<PayloadMode>, Error> {
        if let Some(mode) = payload_mode(self.head.headers)? {
            return Ok(Some(mode));
        }
        let query = Query::parse(self.head.query)?;
        let value = query.value_of_header("x-amz-content-sha256")?;
        value.map(PayloadMode::parse).transpose()
    }

    /// Proves the claim, and says what a `+` in the query was signed as.
    ///
    /// # Errors
    /// AccessDenied where the URL has expired, whoever signed it, or a signed parameter has `&` in it; SignatureDoesNotMatch where the
    /// signature is wrong, or the secret is that of no one.
    pub fn verify(&self, secret: &SigningSecret, now: Timestamp) -> Result<Plus, Error> {
        if now > self.end {
            return Err(denied("Request has expired"));
        }
        let forms: &[Plus] = match self.head.query.contains('+') {
            true => &[Plus::Literal, Plus::Blank],
            false => &[Plus::Blank],
        };
        // botocore signs a bucket with a slash behind its name, and sends it without.
        let bucket = self.bucket.is_none() && self.head.path.rfind('/') == Some(0);
        let ends: &[&str] = if bucket { &["", "/"] } else { &[""] };
        let mut found = None;
        for plus in forms {
            for end in ends {
                let tag = secret.legacy_tag(&self.sign_text(*plus, end)?);
                if bool::from(tag.ct_eq(&self.signature) & secret.is_known()) {
                    found = Some(*plus);
                }
            }
        }
        found.ok_or_else(|| ErrorCode::SignatureDoesNotMatch.into())
    }

    /// The text under the signature, with this behind the path.
    fn sign_text(&self, plus: Plus, end: &str) -> Result<Vec<u8>, Error> {
        let RequestHead {
            method,
            path,
            query,
            headers,
        } = self.head;
        let query = plus.apply(query);
        let query = Query::parse(&query)?;
        let mut text = Vec::with_capacity(512);
        let mut line = |part: &str| {
            text.extend_from_slice(part.as_bytes());
            text.push(b'\n');
        };
        line(method.as_str());
        line(single(headers, "content-md5")?.unwrap_or(""));
        line(single(headers, "content-type")?.unwrap_or(""));
        line(&self.expires);
        for (name, value) in amz_headers(headers, &query)? {
            line(&format!("{name}:{value}"));
        }
        if let Some(bucket) = self.bucket {
            text.push(b'/');
            text.extend_from_slice(bucket.as_bytes());
        }
        text.extend_from_slice(path.as_bytes());
        text.extend_from_slice(end.as_bytes());
        put_subresources(&mut text, &query)?;
        Ok(text)
    }
}

/// `x-amz-*` by their names in lower case: headers, and parameters that stand for headers. One that is in
/// both places with one value is one header.
fn amz_headers<'q>(
    headers: &'q HeaderMap,
    query: &'q Query<'_>,
) -> Result<BTreeMap<Cow<'q, str>, String>, Error> {
    let mut found = BTreeMap::new();
    for name in headers.keys().map(|name| name.as_str()) {
        if !name.starts_with("x-amz-") {
            continue;
        }
        let values = headers.get_all(name).iter().map(|value| value.to_str());
        let values: Result<Vec<&str>, _> = values.map(|value| value.map(str::trim)).collect();
        let values = values.map_err(|_| Error::argument(format!("{name} is not plain text.")))?;
        found.insert(Cow::Borrowed(name), values.join(","));
    }
    for parameter in query.parameters() {
        let name = parameter.name.to_ascii_lowercase();
        if !name.starts_with("x-amz-") {
            continue;
        }
        let value = parameter.value.as_deref().unwrap_or("").trim();
        // A line of its own in the text under the signature would read as another parameter.
        if name.chars().chain(value.chars()).any(char::is_control) {
            return Err(ErrorCode::SignatureDoesNotMatch.into());
        }
        let known = found
            .entry(Cow::Owned(name))
            .or_insert_with(|| value.to_owned());
        if known != value {
            return Err(ErrorCode::SignatureDoesNotMatch.into());
        }
    }
    Ok(found)
}

/// The parameters of the resource, sorted, decoded. An `&` in a value would read as the next parameter: a
/// signature for a file's name could be used for another operation.
fn put_subresources(text: &mut Vec<u8>, query: &Query<'_>) -> Result<(), Error> {
    let mut signed: Vec<(&str, Option<&str>)> = query
        .parameters()
        .iter()
        .map(|parameter| (parameter.name.as_ref(), parameter.value.as_deref()))
        .filter(|(name, _)| SUBRESOURCES.contains(name))
        .collect();
    signed.sort_unstable();
    for (place, (name, value)) in signed.into_iter().enumerate() {
        text.push(if place == 0 { b'?' } else { b'&' });
        text.extend_from_slice(name.as_bytes());
        if let Some(value) = value {
            if value.contains('&') {
                return Err(denied(
                    "A URL of signature version 2 cannot have & in a parameter that it signs",
                ));
            }
            text.push(b'=');
            text.extend_from_slice(value.as_bytes());
        }
    }
    Ok(())
}

/// `Expires`: seconds since 1970.
fn end(text: &str) -> Option<Timestamp> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let seconds = digits.then(|| text.parse::<i64>().ok()).flatten()?;
    seconds.checked_mul(1000).map(Timestamp::from_millis)
}

fn denied(why: &'static str) -> Error {
    Error::new(ErrorCode::AccessDenied, why)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use base::Secret;
    use http::Method;

    use super::*;

    const SECRET: &str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";
    const NOW: Timestamp = Timestamp::from_millis(1_369_353_600_000);

    /// Method, target, and the headers that have to be sent along.
    type Made = (
        &'static str,
        &'static str,
        &'static [(&'static str, &'static str)],
    );

    /// URLs that botocore 1.43.11 made for one hour.
    const URLS: [Made; 7] = [
        (
            "GET",
            "/b/a/b%20c%2B%C3%A4?AWSAccessKeyId=AKIAIOSFODNN7EXAMPLE&Signature=MhnH2Uvb4lJC0%2FCa46p%2Bg157erQ%3D&Expires=1369357200",
            &[],
        ),
        (
            "GET",
            "/b/k?response-content-type=text%2Fa%20b%2Bc&response-content-disposition=attachment%3B%20filename%3D%22x%20y%22&AWSAccessKeyId=AKIAIOSFODNN7EXAMPLE&Signature=cFPf98jWwZBu3oOHULy0uoiclD8%3D&Expires=1369357200",
            &[],
        ),
        (
            "PUT",
            "/b/k?AWSAccessKeyId=AKIAIOSFODNN7EXAMPLE&Signature=reK%2B2799dbCuAtIs%2BjRm%2Br8ApSw%3D&content-type=text%2Fcss&x-amz-acl=private&x-amz-meta-note=n%20o&Expires=1369357200",
            &[("content-type", "text/css")],
        ),
        (
            "POST",
            "/b/k?uploads&AWSAccessKeyId=AKIAIOSFODNN7EXAMPLE&Signature=2OENrY8NNVj1xDLaR5i5SujCAnQ%3D&Expires=1369357200",
            &[],
        ),
        (
            "PUT",
            "/b/k?uploadId=u&partNumber=3&AWSAccessKeyId=AKIAIOSFODNN7EXAMPLE&Signature=Qr9Hv0qpIBczvZcnYdAjERb3Ui0%3D&Expires=1369357200",
            &[],
        ),
        (
            "GET",
            "/b?list-type=2&prefix=x%20y&encoding-type=url&AWSAccessKeyId=AKIAIOSFODNN7EXAMPLE&Signature=uFVu53See%2FtiVRo4RGjrVZJPbIc%3D&Expires=1369357200",
            &[],
        ),
        (
            "GET",
            "/b/k?tagging&AWSAccessKeyId=AKIAIOSFODNN7EXAMPLE&Signature=HALa35Tw5kNKPApIXmg01qBb96Y%3D&Expires=1369357200",
            &[],
        ),
    ];

    const OF_A_HOST: &str = "/a%20b?response-content-type=a%2Fb&AWSAccessKeyId=AKIAIOSFODNN7EXAMPLE&Signature=sxfU6LhbLtie%2BaMiCCwHZz6e7YI%3D&Expires=1369357200";

    struct Url<'a> {
        method: &'a str,
        target: &'a str,
        headers: &'a [(&'static str, &'a str)],
        bucket: Option<&'a str>,
    }

    impl Url<'_> {
        fn verify(&self, secret: &SigningSecret, now: Timestamp) -> Result<Plus, ErrorCode> {
            let mut headers = HeaderMap::new();
            for (name, value) in self.headers {
                headers.append(*name, value.parse().unwrap());
            }
            let method = self.method.parse::<Method>().unwrap();
            let (path, query) = self.target.split_once('?').unwrap();
            let head = RequestHead {
                method: &method,
                path,
                query,
                headers: &headers,
            };
            let claim = UrlClaim::parse(head, self.bucket).map_err(|error| error.code)?;
            let claim = claim.expect("a claim");
            claim.verify(secret, now).map_err(|error| error.code)
        }
    }

    fn ours() -> SigningSecret {
        SigningSecret::new(Secret::new(SECRET.to_owned()))
    }

    #[test]
    fn urls_of_version_2_verify_until_they_expire_and_under_no_other_secret() {
        let end = NOW.after(Duration::from_secs(3600));
        let of_a_host = ("GET", OF_A_HOST, &[][..]);
        for (method, target, headers) in URLS.into_iter().chain([of_a_host]) {
            let bucket = (target == OF_A_HOST).then_some("photos");
            let url = Url {
                method,
                target,
                headers,
                bucket,
            };
            assert!(url.verify(&ours(), end).is_ok(), "{target}");
            let late = end.after(Duration::from_millis(1));
            let expired = Err(ErrorCode::AccessDenied);
            assert_eq!(url.verify(&ours(), late), expired, "{target}");
            let wrong = Err(ErrorCode::SignatureDoesNotMatch);
            assert_eq!(url.verify(&SigningSecret::unknown(), NOW), wrong);
            let other = SigningSecret::new(Secret::new("other".to_owned()));
            assert_eq!(url.verify(&other, NOW), wrong);
        }
    }

    #[test]
    fn urls_of_version_2_cover_method_path_subresources_and_headers() {
        let wrong = Err(ErrorCode::SignatureDoesNotMatch);
        for (method, target, headers) in URLS {
            let verify = |method, target: &str, headers: &[_], bucket| {
                let url = Url {
                    method,
                    target,
                    headers,
                    bucket,
                };
                url.verify(&ours(), NOW)
            };
            assert_eq!(verify("DELETE", target, headers, None), wrong);
            assert_eq!(verify(method, target, headers, Some("b")), wrong);
            for (from, to) in [
                ("/b", "/c"),
                ("?", "?acl&"),
                ("?", "?versionId=null&"),
                ("?", "?response-expires=x&"),
                ("?", "?x-amz-meta-a=b&"),
                ("Expires=1", "Expires=2"),
                ("Signature=", "Signature=A"),
                ("partNumber=3", "partNumber=4"),
                ("note=n", "note=m"),
            ] {
                let other = target.replacen(from, to, 1);
                if other != target {
                    assert_eq!(verify(method, &other, headers, None), wrong, "{other}");
                }
            }
            for header in [("x-amz-copy-source", "/b/x"), ("content-md5", "a")] {
                let more = [headers, &[header]].concat();
                assert_eq!(verify(method, target, &more, None), wrong);
            }
        }
        let (method, target, headers) = URLS[2];
        // Two parameters in one: the text under the signature would be the same.
        let merged = "x-amz-acl=private%0Ax-amz-meta-note:n%20o";
        let merged = target.replacen("x-amz-acl=private&x-amz-meta-note=n%20o", merged, 1);
        assert_ne!(merged, target);
        let merged = Url {
            method,
            target: &merged,
            headers,
            bucket: None,
        };
        assert_eq!(merged.verify(&ours(), NOW), wrong);
        let both = [headers, &[("x-amz-acl", "private")]].concat();
        for (headers, expected) in [(&both[..], Ok(Plus::Blank)), (&[], wrong)] {
            let url = Url {
                method,
                target,
                headers,
                bucket: None,
            };
            assert_eq!(url.verify(&ours(), NOW).map(|_| Plus::Blank), expected);
        }
    }

    #[test]
    fn broken_urls_of_version_2_are_refused() {
        let verdict = |query: &str, headers: &[(&'static str, &str)]| {
            let target = format!("/b/k?{query}");
            let url = Url {
                method: "GET",
                target: &target,
                headers,
                bucket: None,
            };
            url.verify(&ours(), NOW).unwrap_err()
        };
        let good = "AWSAccessKeyId=a&Expires=1369357200&Signature=AAAAAAAAAAAAAAAAAAAAAAAAAAA%3D";
        assert_eq!(verdict(good, &[]), ErrorCode::SignatureDoesNotMatch);
        for (from, to, code) in [
            ("AAA%3D", "", ErrorCode::SignatureDoesNotMatch),
            ("Signature", "Sig", ErrorCode::AccessDenied),
            ("Expires=1369357200", "E=1", ErrorCode::AccessDenied),
            ("=1369357200", "=soon", ErrorCode::AccessDenied),
            (
                "=1369357200",
                "=9223372036854775807",
                ErrorCode::AccessDenied,
            ),
            ("=1369357200", "=-1", ErrorCode::AccessDenied),
            (
                "Signature",
                "Signature=a&Signature",
                ErrorCode::InvalidArgument,
            ),
            ("=a&", "=a&X-Amz-Algorithm=b&", ErrorCode::InvalidArgument),
        ] {
            let query = good.replacen(from, to, 1);
            assert_eq!(verdict(&query, &[]), code, "{query}");
        }
        let both = [("authorization", "AWS4-HMAC-SHA256 a")];
        assert_eq!(verdict(good, &both), ErrorCode::InvalidArgument);
    }
}
