//! Web pages of other origins: preflights, and the headers that let a browser hand an answer on.
//!
//! The rules are the configuration's. They open nothing by themselves: a request still needs its
//! signature. Source: Amazon S3 user guide, "How does Amazon S3 evaluate the CORS configuration on a
//! bucket?", and the Fetch standard.

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, VARY,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use s3wire::{Error, ErrorCode};

use crate::config::CorsRuleConfig;

/// An answer depends on these, so a cache must keep one for each combination.
const VARIES: HeaderValue = HeaderValue::from_static(
    "Origin, Access-Control-Request-Headers, Access-Control-Request-Method",
);

/// The headers that a preflight of these rules is answered with.
pub(super) fn preflight(
    rules: Option<&[CorsRuleConfig]>,
    request: &HeaderMap,
) -> Result<HeaderMap, Error> {
    let insufficient = |what: &str| {
        let message = format!("Insufficient information. {what} request header needed.");
        Error::new(ErrorCode::BadRequest, message)
    };
    let text = |name: HeaderName| request.get(name).and_then(|value| value.to_str().ok());
    let origin = text(ORIGIN).ok_or_else(|| insufficient("Origin"))?;
    let method = text(ACCESS_CONTROL_REQUEST_METHOD)
        .ok_or_else(|| insufficient("Access-Control-Request-Method"))?;
    let method = Method::try_from(method).map_err(|_| {
        let message = "Invalid Access-Control-Request-Method";
        Error::new(ErrorCode::BadRequest, message)
    })?;
    let asked = text(ACCESS_CONTROL_REQUEST_HEADERS)
        .unwrap_or("")
        .split(',')
        .map(str::trim)
        .filter(|name| !name.is_empty());
    let Some(rules) = rules else {
        let message = "CORSResponse: CORS is not enabled for this bucket.";
        return Err(Error::new(ErrorCode::AccessForbidden, message));
    };
    let fits = |rule: &&CorsRuleConfig| {
        let headers = &rule.allowed_headers;
        allows(rule, origin, &method)
            && asked
                .clone()
                .all(|name| headers.iter().any(|pattern| is_like(name, pattern)))
    };
    let rule = rules.iter().find(fits).ok_or(ErrorCode::AccessForbidden)?;
    let mut headers = HeaderMap::new();
    grant(rule, origin, &mut headers);
    if let Some(names) = request.get(ACCESS_CONTROL_REQUEST_HEADERS) {
        headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, names.clone());
    }
    Ok(headers)
}

/// Adds to an answer what a browser needs to hand it to the page that asked.
pub(super) fn annotate(
    rules: &[CorsRuleConfig],
    origin: &HeaderValue,
    method: &Method,
    answer: &mut HeaderMap,
) {
    answer.append(VARY, VARIES);
    let Ok(origin) = origin.to_str() else { return };
    if let Some(rule) = rules.iter().find(|rule| allows(rule, origin, method)) {
        grant(rule, origin, answer);
    }
}

fn grant(rule: &CorsRuleConfig, origin: &str, headers: &mut HeaderMap) {
    let any = rule.allowed_origins.iter().any(|pattern| pattern == "*");
    let list = |names: &[&str]| {
        HeaderValue::try_from(names.join(", ")).expect("names of methods and headers")
    };
    let (shown, credentials) = match any {
        true => ("*", None),
        false => (origin, Some(HeaderValue::from_static("true"))),
    };
    let shown = HeaderValue::try_from(shown).expect("it came in a header");
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, shown);
    if let Some(credentials) = credentials {
        headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, credentials);
    }
    let methods: Vec<_> = rule.allowed_methods.iter().map(Method::as_str).collect();
    headers.insert(ACCESS_CONTROL_ALLOW_METHODS, list(&methods));
    if !rule.expose_headers.is_empty() {
        let exposed: Vec<_> = rule.expose_headers.iter().map(HeaderName::as_str).collect();
        headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, list(&exposed));
    }
    if let Some(seconds) = rule.max_age {
        headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from(seconds));
    }
    headers.entry(VARY).or_insert(VARIES);
}

fn allows(rule: &CorsRuleConfig, origin: &str, method: &Method) -> bool {
    rule.allowed_methods.contains(method)
        && rule
            .allowed_origins
            .iter()
            .any(|pattern| is_like(origin, pattern) && (pattern == "*" || is_origin(origin)))
}

/// Whether a text can be an origin: a scheme and an authority, and nothing that a `*` for a part of a host
/// name must not stand for.
fn is_origin(text: &str) -> bool {
    let authority = text.split_once("://").map(|(_, authority)| authority);
    authority.is_some_and(|authority| {
        !authority.starts_with('.') && !authority.contains(['/', '#', '?', '@', '\\'])
    })
}

/// Whether a text fits a pattern with one `*` at most. Hosts and header names have no case.
///
/// Nothing is copied: a stranger's preflight may ask for tens of thousands of names.
fn is_like(text: &str, pattern: &str) -> bool {
    let (text, pattern) = (text.as_bytes(), pattern.as_bytes());
    let Some(star) = pattern.iter().position(|byte| *byte == b'*') else {
        return text.eq_ignore_ascii_case(pattern);
    };
    let (head, tail) = (&pattern[..star], &pattern[star + 1..]);
    text.len() >= head.len() + tail.len()
        && text[..head.len()].eq_ignore_ascii_case(head)
        && text[text.len() - tail.len()..].eq_ignore_ascii_case(tail)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(origins: &[&str], methods: &[Method], headers: &[&str]) -> CorsRuleConfig {
        let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        CorsRuleConfig {
            allowed_origins: owned(origins),
            allowed_methods: methods.to_vec(),
            allowed_headers: owned(headers),
            expose_headers: vec![http::header::ETAG],
            max_age: Some(600),
        }
    }

    fn ask(
        rules: &[CorsRuleConfig],
        origin: &str,
        method: &str,
        headers: &str,
    ) -> Result<HeaderMap, ErrorCode> {
        let mut request = HeaderMap::new();
        request.insert(ORIGIN, origin.parse().unwrap());
        request.insert(ACCESS_CONTROL_REQUEST_METHOD, method.parse().unwrap());
        if !headers.is_empty() {
            request.insert(ACCESS_CONTROL_REQUEST_HEADERS, headers.parse().unwrap());
        }
        preflight(Some(rules), &request).map_err(|error| error.code)
    }

    #[test]
    fn the_first_rule_that_fits_answers() {
        let rules = [
            rule(
                &["https://*.example.com"],
                &[Method::PUT],
                &["x-amz-*", "content-type"],
            ),
            rule(&["*"], &[Method::GET], &[]),
        ];
        let page = "https://app.Example.com";
        let answer = ask(&rules, page, "PUT", "X-Amz-Date, content-type").unwrap();
        assert_eq!(answer[ACCESS_CONTROL_ALLOW_ORIGIN], page);
        assert_eq!(answer[ACCESS_CONTROL_ALLOW_METHODS], "PUT");
        assert_eq!(
            answer[ACCESS_CONTROL_ALLOW_HEADERS],
            "X-Amz-Date, content-type"
        );
        assert_eq!(answer[ACCESS_CONTROL_ALLOW_CREDENTIALS], "true");
        assert_eq!(answer[ACCESS_CONTROL_EXPOSE_HEADERS], "etag");
        assert_eq!(answer[ACCESS_CONTROL_MAX_AGE], "600");
        let answer = ask(&rules, page, "GET", "").unwrap();
        assert_eq!(answer[ACCESS_CONTROL_ALLOW_ORIGIN], "*");
        assert!(!answer.contains_key(ACCESS_CONTROL_ALLOW_CREDENTIALS));
        for (origin, method, headers) in [
            (page, "DELETE", ""),
            (page, "PUT", "authorization"),
            ("https://example.com", "PUT", ""),
            ("https://evil-example.com", "PUT", ""),
            ("https://evil.com/.example.com", "PUT", ""),
            ("https://evil.com#.example.com", "PUT", ""),
            ("https://evil.com?.example.com", "PUT", ""),
            ("https://a@.example.com", "PUT", ""),
            ("https://.example.com", "PUT", ""),
            (page, "GET", "x-amz-date"),
        ] {
            let refused = ask(&rules, origin, method, headers);
            assert_eq!(
                refused,
                Err(ErrorCode::AccessForbidden),
                "{origin} {method}"
            );
        }
    }

    #[test]
    fn a_preflight_says_where_it_comes_from_and_what_it_wants() {
        let mut request = HeaderMap::new();
        let code = |request: &HeaderMap| preflight(None, request).unwrap_err().code;
        assert_eq!(code(&request), ErrorCode::BadRequest);
        request.insert(ORIGIN, "https://a".parse().unwrap());
        assert_eq!(code(&request), ErrorCode::BadRequest);
        request.insert(ACCESS_CONTROL_REQUEST_METHOD, "GET".parse().unwrap());
        assert_eq!(code(&request), ErrorCode::AccessForbidden);
    }
}
