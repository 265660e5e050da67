//! Presigned URLs against the signer of the AWS SDK for Rust, which shares no line with ours.

use std::time::Duration;

use aws_sigv4::http_request::SignatureLocation;
use proptest::prelude::ProptestConfig;

use super::*;

/// What a URL is made for.
#[derive(Debug, Clone)]
struct Wanted {
    request: Request,
    endpoint: &'static str,
    payload: PayloadMode,
    expires: Duration,
    now: Timestamp,
}

impl Wanted {
    /// The URL that the SDK makes.
    fn theirs(&self) -> String {
        let identity = Credentials::new(KEY, SECRET, None, None, "test").into();
        let mut settings = SigningSettings::default();
        settings.percent_encoding_mode = PercentEncodingMode::Single;
        settings.uri_path_normalization_mode = UriPathNormalizationMode::Disabled;
        settings.signature_location = SignatureLocation::QueryParams;
        settings.expires_in = Some(self.expires);
        let params = v4::SigningParams::builder()
            .identity(&identity)
            .region("us-east-1")
            .name("s3")
            .time(self.now.to_system())
            .settings(settings)
            .build()
            .unwrap()
            .into();
        let Request {
            method,
            path,
            query,
            headers,
        } = &self.request;
        let mut url = format!("{}{path}", self.endpoint);
        if !query.is_empty() {
            url.extend(["?", query]);
        }
        let pair = |(name, value): (&'_ http::HeaderName, &'_ http::HeaderValue)| {
            (name.as_str().to_owned(), value.to_str().unwrap().to_owned())
        };
        let pairs: Vec<_> = headers.iter().map(pair).collect();
        let pairs = pairs
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()));
        let body = SignableBody::Precomputed(self.payload.to_text());
        let signable = SignableRequest::new(method.as_str(), &url, pairs, body).unwrap();
        let (instructions, _) = sign(signable, &params).unwrap().into_parts();
        let mut made = http::Request::builder()
            .method(method)
            .uri(&url)
            .body(())
            .unwrap();
        instructions.apply_to_request_http1x(&mut made);
        made.uri().to_string()
    }

    fn ours(&self) -> String {
        let url = signer().presign(PresignRequest {
            method: &self.request.method,
            endpoint: self.endpoint,
            path: &self.request.path,
            query: &self.request.query,
            headers: &self.request.headers,
            expires: self.expires,
            now: self.now,
        });
        url.unwrap()
    }

    /// What a client sends that has the URL and the headers that it asks for.
    fn used(&self, url: &str) -> Request {
        let target = url.strip_prefix(self.endpoint).unwrap();
        let (path, query) = target.split_once('?').unwrap();
        let host = self.endpoint.split_once("://").unwrap().1;
        let host = host.trim_end_matches(":443");
        let (path, query) = (path.to_owned(), query.to_owned());
        Request {
            path,
            query,
            ..self.request.clone()
        }
        .set("host", host)
    }
}

fn wanted(
    path: impl Strategy<Value = String>,
    query: impl Strategy<Value = String>,
) -> impl Strategy<Value = Wanted> {
    let endpoints = vec![
        "http://localhost:9000",
        "https://bucket.s3.example.com",
        "https://[::1]:8443",
        "https://s3.example.com:443",
    ];
    (
        (method(), path, query, user_headers()),
        option::of("[a-z]{1,5}/[a-z]{1,5}"),
        sample::select(endpoints),
        option::of(any::<bool>()),
        1_u64..=604_800,
        1_000_000_000_i64..2_000_000_000,
    )
        .prop_map(
            |((method, path, query, user), content_type, endpoint, sum, expires, seconds)| {
                let mut headers = HeaderMap::new();
                for (name, value) in &user {
                    headers.insert(
                        http::HeaderName::try_from(name).unwrap(),
                        value.parse().unwrap(),
                    );
                }
                if let Some(content_type) = content_type {
                    headers.insert("content-type", content_type.parse().unwrap());
                }
                let payload = match sum {
                    Some(true) => PayloadMode::of(b"body"),
                    Some(false) | None => PayloadMode::Unsigned,
                };
                if sum.is_some() {
                    headers.insert("x-amz-content-sha256", payload.to_text().parse().unwrap());
                }
                let path = format!("/bucket/{path}");
                Wanted {
                    request: Request {
                        method,
                        path,
                        query,
                        headers,
                    },
                    endpoint,
                    payload,
                    expires: Duration::from_secs(expires),
                    now: Timestamp::from_millis(seconds * 1000),
                }
            },
        )
}

/// Paths and queries as a careful client writes them.
fn careful() -> impl Strategy<Value = Wanted> {
    let query = query().prop_map(|pairs| {
        uri::encode_query(
            pairs
                .iter()
                .map(|(name, value)| (name.as_str(), value.as_deref())),
        )
    });
    wanted(
        text().prop_map(|key| uri::encode_path(&key).into_owned()),
        query,
    )
}

/// Paths and queries as they are also seen: reserved bytes raw, digits small, and what needs no escape escaped.
fn careless() -> impl Strategy<Value = Wanted> {
    let piece = sample::select(vec![
        "a", "Z", "/", "~", "%7E", "%7e", "%2F", "%2f", "+", "%2B", "%20", "%c3%a4", "%C3%A4", "!",
        "$", "'", "(", ")", "*", ",", ":", "@", "%41", "%00", "%25",
    ]);
    let word = || collection::vec(piece.clone(), 1..8).prop_map(|pieces| pieces.concat());
    let pair = (word(), option::of(word())).prop_map(|(name, value)| match value {
        Some(value) => format!("{name}={value}"),
        None => name,
    });
    let query = collection::vec(pair, 0..4).prop_map(|pairs| pairs.join("&"));
    wanted(word(), query)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn our_urls_are_those_of_an_independent_signer(wanted in careful()) {
        prop_assert_eq!(wanted.ours(), wanted.theirs());
    }

    #[test]
    fn urls_of_an_independent_signer_permit_what_they_say_and_nothing_else(
        wanted in proptest::prop_oneof![careful(), careless()],
        at in any::<sample::Index>(),
    ) {
        let url = wanted.theirs();
        let used = wanted.used(&url);
        let last = wanted.now.after(wanted.expires);
        for now in [wanted.now, last] {
            let verified = used.verify_at(now);
            prop_assert!(verified.is_ok(), "{verified:?} of {url}");
            prop_assert_eq!(verified.unwrap().payload, wanted.payload);
        }
        let late = last.after(Duration::from_secs(1));
        prop_assert_eq!(used.verify_at(late).unwrap_err(), ErrorCode::AccessDenied);

        // Another character of the signature, another method, another header, one header less.
        let mut forged = used.clone();
        let digits = forged.query.find("X-Amz-Signature=").unwrap() + "X-Amz-Signature=".len();
        let digit = digits + at.index(64);
        let other = if &forged.query[digit..=digit] == "0" { "1" } else { "0" };
        forged.query.replace_range(digit..=digit, other);
        let mut posted = used.clone();
        posted.method = Method::PATCH;
        let elsewhere = used.clone().set("host", "elsewhere");
        let mut deeper = used.clone();
        deeper.path.push('a');
        for changed in [forged, posted, elsewhere, deeper] {
            let refused = changed.verify_at(wanted.now).unwrap_err();
            prop_assert_eq!(refused, ErrorCode::SignatureDoesNotMatch);
        }
        let more = used.clone().set("x-amz-tagging", "a=b");
        prop_assert_eq!(more.verify_at(wanted.now).unwrap_err(), ErrorCode::AccessDenied);
        if let Some(name) = wanted.request.headers.keys().next() {
            let mut less = used;
            less.headers.remove(name);
            prop_assert!(less.verify_at(wanted.now).is_err(), "without {name}");
        }
    }
}
