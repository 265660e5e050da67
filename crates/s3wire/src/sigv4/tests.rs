//! Documented vectors, an independent signer, and every way to get it wrong.

mod presigned;

use std::time::Duration;

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{
    PayloadChecksumKind, PercentEncodingMode, SignableBody, SignableRequest, SigningSettings,
    UriPathNormalizationMode, sign,
};
use aws_sigv4::sign::v4;
use base::{Secret, Timestamp};
use proptest::prelude::{Strategy, any, prop_assert, prop_assert_eq, proptest};
use proptest::{collection, option, sample};

use super::*;
use crate::{ErrorCode, uri};

const KEY: &str = "AKIAIOSFODNN7EXAMPLE";
const SECRET: &str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";
const NOW: Timestamp = Timestamp::from_millis(1_369_353_600_000);

fn secret() -> SigningSecret {
    SigningSecret::new(Secret::new(SECRET.to_owned()))
}

fn signer() -> Signer {
    Signer::new(KEY.into(), Secret::new(SECRET.into()), "us-east-1".into()).unwrap()
}

fn map(pairs: &[(&'static str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        headers.append(*name, value.parse().unwrap());
    }
    headers
}

/// A request as a server sees it.
#[derive(Debug, Clone)]
struct Request {
    method: Method,
    path: String,
    query: String,
    headers: HeaderMap,
}

impl Request {
    fn signed(method: Method, path: &str, query: &str, pairs: &[(&'static str, &str)]) -> Self {
        let mut headers = map(&[("host", "localhost:9000")]);
        headers.extend(map(pairs));
        let payload = PayloadMode::Unsigned;
        let request = SignRequest {
            method: &method,
            path,
            query,
            payload,
            now: NOW,
        };
        signer().sign(request, &mut headers);
        Self {
            method,
            path: path.into(),
            query: query.into(),
            headers,
        }
    }

    fn from_url(method: Method, url: &str) -> Self {
        let target = url.strip_prefix("http://localhost:9000").unwrap();
        let (path, query) = target.split_once('?').unwrap();
        let headers = map(&[("host", "localhost:9000")]);
        Self {
            method,
            path: path.into(),
            query: query.into(),
            headers,
        }
    }

    fn head(&self) -> RequestHead<'_> {
        RequestHead {
            method: &self.method,
            path: &self.path,
            query: &self.query,
            headers: &self.headers,
        }
    }

    fn verify_at(&self, now: Timestamp) -> Result<VerifiedRequest, ErrorCode> {
        let claim = Claim::parse(self.head())
            .map_err(|error| error.code)?
            .expect("a claim");
        assert_eq!(claim.access_key_id(), KEY);
        claim.verify(&secret(), now).map_err(|error| error.code)
    }

    fn verify(&self) -> Result<VerifiedRequest, ErrorCode> {
        self.verify_at(NOW)
    }

    fn authorization(&self) -> &str {
        self.headers["authorization"].to_str().unwrap()
    }

    fn set(mut self, name: &'static str, value: &str) -> Self {
        self.headers.insert(name, value.parse().unwrap());
        self
    }

    /// Changes the authorization header.
    fn change(self, from: &str, to: &str) -> Self {
        let changed = self.authorization().replacen(from, to, 1);
        assert_ne!(changed, self.authorization(), "{from}");
        self.set("authorization", &changed)
    }
}

const EMPTY_SUM: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
const DATE: (&str, &str) = ("x-amz-date", "20130524T000000Z");
const HOST: (&str, &str) = ("host", "examplebucket.s3.amazonaws.com");

fn documented(
    method: Method,
    target: (&str, &str),
    pairs: &[(&'static str, &str)],
    signed: &str,
    signature: &str,
) -> Request {
    let authorization = format!(
        "AWS4-HMAC-SHA256 Credential={KEY}/20130524/us-east-1/s3/aws4_request,SignedHeaders={signed},Signature={signature}"
    );
    let headers = map(&[&[HOST, DATE, ("authorization", &authorization)], pairs].concat());
    Request {
        method,
        path: target.0.into(),
        query: target.1.into(),
        headers,
    }
}

// Amazon S3 API reference, "Signature Calculations for the Authorization Header".
#[test]
fn the_documented_requests_verify() {
    let empty = ("x-amz-content-sha256", EMPTY_SUM);
    let body = "44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072";
    let short = "host;x-amz-content-sha256;x-amz-date";
    for request in [
        documented(
            Method::GET,
            ("/test.txt", ""),
            &[empty, ("range", "bytes=0-9")],
            "host;range;x-amz-content-sha256;x-amz-date",
            "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41",
        ),
        documented(
            Method::PUT,
            ("/test$file.text", ""),
            &[
                ("date", "Fri, 24 May 2013 00:00:00 GMT"),
                ("x-amz-storage-class", "REDUCED_REDUNDANCY"),
                ("x-amz-content-sha256", body),
            ],
            "date;host;x-amz-content-sha256;x-amz-date;x-amz-storage-class",
            "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd",
        ),
        documented(
            Method::GET,
            ("/", "lifecycle"),
            &[empty],
            short,
            "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543",
        ),
        documented(
            Method::GET,
            ("/", "max-keys=2&prefix=J"),
            &[empty],
            short,
            "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7",
        ),
    ] {
        request.verify().unwrap();
        let mut other = request.clone();
        other.method = Method::DELETE;
        assert_eq!(
            other.verify().unwrap_err(),
            ErrorCode::SignatureDoesNotMatch
        );
    }
}

// Amazon S3 API reference, "Authenticating Requests: Using Query Parameters".
#[test]
fn the_documented_presigned_url_is_made_and_verifies() {
    let url = signer()
        .presign(PresignRequest {
            method: &Method::GET,
            endpoint: "https://examplebucket.s3.amazonaws.com",
            path: "/test.txt",
            query: "",
            headers: &HeaderMap::new(),
            expires: Duration::from_secs(86_400),
            now: NOW,
        })
        .unwrap();
    let query = "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20130524%2Fus-east-1%2Fs3%2Faws4_request&X-Amz-Date=20130524T000000Z&X-Amz-Expires=86400&X-Amz-SignedHeaders=host&X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404";
    assert_eq!(
        url,
        format!("https://examplebucket.s3.amazonaws.com/test.txt?{query}")
    );
    let headers = map(&[HOST]);
    let request = Request {
        method: Method::GET,
        path: "/test.txt".into(),
        query: query.into(),
        headers,
    };
    assert_eq!(request.verify().unwrap().payload, PayloadMode::Unsigned);
}

#[test]
fn a_request_without_a_signature_makes_no_claim() {
    let headers = map(&[("host", "h"), ("x-proxy-token", "t")]);
    let head = RequestHead {
        method: &Method::GET,
        path: "/b/k",
        query: "x-id=1",
        headers: &headers,
    };
    assert!(Claim::parse(head).unwrap().is_none());
}

#[test]
fn paths_are_verified_in_wire_form() {
    for path in [
        "/b/a%2Fb", "/b/a%2fb", "/b/%41bc", "/b/a%2bb", "/b/a//b", "/b/../x", "/b/%25",
    ] {
        Request::signed(Method::GET, path, "", &[])
            .verify()
            .unwrap();
    }
    // The same key in another spelling is another request.
    let mut other = Request::signed(Method::GET, "/b/a%2Fb", "", &[]);
    other.path = "/b/a/b".into();
    assert_eq!(
        other.verify().unwrap_err(),
        ErrorCode::SignatureDoesNotMatch
    );
}

#[test]
fn raw_reserved_bytes_may_be_signed_encoded_or_raw() {
    for (wire, signed) in [
        ("/b/a+b!*'()", "/b/a%2Bb%21%2A%27%28%29"),
        ("/b/a%2Fb+c", "/b/a%2Fb%2Bc"),
        ("/b/ä", "/b/%C3%A4"),
    ] {
        let mut encoded = Request::signed(Method::GET, signed, "", &[]);
        encoded.path = wire.into();
        encoded.verify().unwrap();
        // Our signer signs what it sends with the bytes encoded; a raw signature is made by hand.
        let request = Request::signed(Method::GET, wire, "", &[]);
        request.verify().unwrap();
    }
    let raw = documented(
        Method::GET,
        ("/b/a+b", ""),
        &[("x-amz-content-sha256", "UNSIGNED-PAYLOAD")],
        "host;x-amz-content-sha256;x-amz-date",
        &raw_signature("/b/a+b", ""),
    );
    raw.verify().unwrap();
}

/// Signs path and query exactly as they are given.
fn raw_signature(path: &str, query: &str) -> String {
    let request = format!(
        "GET\n{path}\n{query}\nhost:{}\nx-amz-content-sha256:UNSIGNED-PAYLOAD\nx-amz-date:{}\n\nhost;x-amz-content-sha256;x-amz-date\nUNSIGNED-PAYLOAD",
        HOST.1, DATE.1
    );
    let digest = ring::digest::digest(&ring::digest::SHA256, request.as_bytes());
    let amz_date = *b"20130524T000000Z";
    let key = secret().key(b"20130524", "us-east-1");
    let scope = "20130524/us-east-1/s3/aws4_request";
    let sum = digest.as_ref().try_into().unwrap();
    hex_str(&canonical::sign_text(&key, &amz_date, scope, &sum)).to_owned()
}

#[test]
fn queries_are_decoded_encoded_again_and_sorted() {
    for (wire, signed) in [
        ("prefix=%7Ea", "prefix=~a"),
        ("prefix=%2f", "prefix=%2F"),
        ("a=2&a=1", "a=1&a=2"),
        ("b=1&a=1&A=1", "A=1&a=1&b=1"),
        ("uploads", "uploads="),
        ("prefix=a+b", "prefix=a%2Bb"),
        ("prefix=a+b", "prefix=a%20b"),
        ("&a=b&&", "a=b"),
        ("prefix=!(ä)", "prefix=%21%28%C3%A4%29"),
    ] {
        let request = documented(
            Method::GET,
            ("/b", wire),
            &[("x-amz-content-sha256", "UNSIGNED-PAYLOAD")],
            "host;x-amz-content-sha256;x-amz-date",
            &raw_signature("/b", signed),
        );
        request
            .verify()
            .unwrap_or_else(|code| panic!("{wire} as {signed}: {code:?}"));
    }
}

#[test]
fn every_part_of_a_request_is_covered() {
    let pairs = [("x-amz-meta-a", "1"), ("content-type", "text/plain")];
    let request = Request::signed(Method::PUT, "/b/k", "a=1", &pairs);
    request.verify().unwrap();
    let mut path = request.clone();
    path.path = "/b/l".into();
    let mut query = request.clone();
    query.query = "a=2".into();
    for changed in [
        path,
        query,
        request.clone().set("x-amz-meta-a", "2"),
        request.clone().set("content-type", "text/html"),
        request.clone().set("host", "elsewhere"),
        request.clone().set("x-amz-content-sha256", EMPTY_SUM),
        request.clone().set("x-amz-date", "20130524T000001Z"),
        request.clone().change("us-east-1", "us-east-2"),
    ] {
        assert_eq!(
            changed.verify().unwrap_err(),
            ErrorCode::SignatureDoesNotMatch
        );
    }
    // Values are compared after folding, as S3 does.
    let folded = Request::signed(Method::PUT, "/b/k", "", &[("x-amz-meta-a", "1  2")]);
    folded.set("x-amz-meta-a", " 1 2").verify().unwrap();
}

#[test]
fn an_unknown_key_and_a_wrong_signature_look_alike() {
    let request = Request::signed(Method::GET, "/b/k", "", &[]);
    let claim = Claim::parse(request.head()).unwrap().unwrap();
    let unknown = claim.verify(&SigningSecret::unknown(), NOW).unwrap_err();
    let other = SigningSecret::new(Secret::new("other".into()));
    assert_eq!(unknown, claim.verify(&other, NOW).unwrap_err());
    assert_eq!(unknown.code, ErrorCode::SignatureDoesNotMatch);
}

#[test]
fn only_right_signatures_fill_the_cache() {
    let request = Request::signed(Method::GET, "/b/k", "", &[]);
    let wrong = request.clone().set("host", "elsewhere");
    let (known, unknown) = (secret(), SigningSecret::unknown());
    let verify = |request: &Request, secret: &SigningSecret| {
        Claim::parse(request.head())
            .unwrap()
            .unwrap()
            .verify(secret, NOW)
            .is_ok()
    };
    assert!(!verify(&wrong, &known) && !verify(&request, &unknown));
    assert_eq!((known.kept(), unknown.kept()), (0, 0));
    assert!(verify(&request, &known) && verify(&request, &known));
    assert!(!verify(&wrong, &known));
    assert_eq!(known.kept(), 1);
}

#[test]
fn the_public_stand_in_secret_opens_nothing() {
    let text = "this secret verifies nothing and is public";
    let signer = Signer::new(KEY.into(), Secret::new(text.into()), "us-east-1".into()).unwrap();
    let mut headers = map(&[("host", "h")]);
    let request = SignRequest {
        method: &Method::GET,
        path: "/b/k",
        query: "",
        payload: PayloadMode::EMPTY,
        now: NOW,
    };
    signer.sign(request, &mut headers);
    let head = RequestHead {
        method: &Method::GET,
        path: "/b/k",
        query: "",
        headers: &headers,
    };
    let claim = Claim::parse(head).unwrap().unwrap();
    assert!(
        claim
            .verify(&SigningSecret::new(Secret::new(text.into())), NOW)
            .is_ok()
    );
    let refused = claim.verify(&SigningSecret::unknown(), NOW).unwrap_err();
    assert_eq!(refused.code, ErrorCode::SignatureDoesNotMatch);
}

#[test]
fn headers_that_are_not_signed_are_refused() {
    let request = Request::signed(Method::PUT, "/b/k", "", &[]);
    let added = request.clone().set("x-amz-copy-source", "/b/secret");
    assert_eq!(added.verify().unwrap_err(), ErrorCode::AccessDenied);
    let hostless = request
        .clone()
        .change("SignedHeaders=host;", "SignedHeaders=");
    assert_eq!(hostless.verify().unwrap_err(), ErrorCode::AccessDenied);
    // Headers that proxies add are free.
    request
        .set("x-forwarded-for", "::1")
        .set("user-agent", "x")
        .verify()
        .unwrap();
}

#[test]
fn names_of_signed_headers_are_sorted_unique_and_present() {
    let request = Request::signed(Method::PUT, "/b/k", "", &[("x-amz-meta-a", "b")]);
    let names = "host;x-amz-content-sha256;x-amz-date;x-amz-meta-a";
    request.verify().unwrap();
    let endless = format!("{names}{}", ";x-amz-meta-a".repeat(30_000));
    for other in [
        "host;x-amz-content-sha256;x-amz-meta-a;x-amz-date",
        "host;host;x-amz-content-sha256;x-amz-date;x-amz-meta-a",
        &endless,
    ] {
        let changed = request.clone().change(names, other);
        let code = changed.verify().unwrap_err();
        assert_eq!(code, ErrorCode::AuthorizationHeaderMalformed, "{other:.80}");
    }
    let absent = request.clone().change(names, &format!("{names};x-b"));
    assert_eq!(
        absent.verify().unwrap_err(),
        ErrorCode::SignatureDoesNotMatch
    );

    let url = presigned(60);
    let query = url.query.replace(
        "X-Amz-SignedHeaders=host",
        "X-Amz-SignedHeaders=host%3Bhost",
    );
    assert_ne!(query, url.query);
    let code = Request {
        query,
        ..url.clone()
    }
    .verify()
    .unwrap_err();
    assert_eq!(code, ErrorCode::AuthorizationQueryParametersError);
    let query = url.query.replace(
        "X-Amz-SignedHeaders=host",
        "X-Amz-SignedHeaders=content-type%3Bhost",
    );
    let code = Request { query, ..url }.verify().unwrap_err();
    assert_eq!(code, ErrorCode::SignatureDoesNotMatch);
}

#[test]
fn a_canonical_request_has_a_longest() {
    let fill = |bytes: usize| Request::signed(Method::GET, &"*".repeat(bytes), "", &[]);
    fill(CANONICAL_BYTES_MAX / 3 - 1024).verify().unwrap();
    let code = fill(CANONICAL_BYTES_MAX / 3).verify().unwrap_err();
    assert_eq!(code, ErrorCode::RequestHeaderSectionTooLarge);
}

#[test]
fn clocks_may_differ_by_a_quarter_of_an_hour() {
    let request = Request::signed(Method::GET, "/b/k", "", &[]);
    let skew = CLOCK_SKEW_MAX;
    let more = skew + Duration::from_secs(1);
    request.verify_at(NOW.after(skew)).unwrap();
    request.verify_at(NOW.before(skew)).unwrap();
    for now in [NOW.after(more), NOW.before(more)] {
        assert_eq!(
            request.verify_at(now).unwrap_err(),
            ErrorCode::RequestTimeTooSkewed
        );
    }
}

fn presigned(expires: u64) -> Request {
    let url = signer().presign(PresignRequest {
        method: &Method::GET,
        endpoint: "http://localhost:9000/",
        path: "/b/a%2Fb%20c",
        query: "response-content-type=text%2Fplain&uploads",
        headers: &HeaderMap::new(),
        expires: Duration::from_secs(expires),
        now: NOW,
    });
    Request::from_url(Method::GET, &url.unwrap())
}

#[test]
fn the_hash_of_a_body_in_a_presigned_url_counts_in_any_case() {
    let sum = PayloadMode::of(b"body");
    for name in ["X-Amz-Content-Sha256", "x-amz-content-sha256"] {
        let query = format!(
            "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential={KEY}%2F20130524%2Fus-east-1%2Fs3%2Faws4_request&X-Amz-Date=20130524T000000Z&X-Amz-Expires=60&X-Amz-SignedHeaders=host&{name}={}",
            sum.to_text()
        );
        let mut request = Request {
            method: Method::PUT,
            path: "/b/k".to_owned(),
            query,
            headers: map(&[("host", "h")]),
        };
        let names = ["host"].into_iter();
        let hash = canonical::hash(
            &request.head(),
            canonical::CanonicalForm::STANDARD,
            names,
            &sum.to_text(),
        )
        .unwrap();
        let (signature, _) = signer().signature(*b"20130524T000000Z", &hash);
        request.query = format!("{}&X-Amz-Signature={}", request.query, hex_str(&signature));
        assert_eq!(request.verify().unwrap().payload, sum, "{name}");
        request
            .query
            .push_str("&X-AMZ-content-sha256=UNSIGNED-PAYLOAD");
        assert_eq!(request.verify().unwrap_err(), ErrorCode::InvalidArgument);
    }
}

#[test]
fn presigned_urls_live_as_long_as_they_say() {
    let request = presigned(3600);
    let hour = Duration::from_secs(3600);
    request.verify_at(NOW.after(hour)).unwrap();
    let late = NOW.after(hour + Duration::from_secs(1));
    assert_eq!(
        request.verify_at(late).unwrap_err(),
        ErrorCode::AccessDenied
    );
    let early = NOW.before(CLOCK_SKEW_MAX + Duration::from_secs(1));
    assert_eq!(
        request.verify_at(early).unwrap_err(),
        ErrorCode::RequestTimeTooSkewed
    );
    presigned(604_800)
        .verify_at(NOW.after(EXPIRES_MAX))
        .unwrap();

    for expires in ["0", "604801", "-1", "", "1.5", "99999999999999999999"] {
        let mut changed = presigned(3600);
        changed.query = changed
            .query
            .replace("Expires=3600", &format!("Expires={expires}"));
        let code = changed.verify().unwrap_err();
        assert_eq!(
            code,
            ErrorCode::AuthorizationQueryParametersError,
            "{expires}"
        );
    }
    let mut longer = presigned(3600);
    longer.query = longer.query.replace("Expires=3600", "Expires=3601");
    assert_eq!(
        longer.verify().unwrap_err(),
        ErrorCode::SignatureDoesNotMatch
    );
}

#[test]
fn presigned_urls_cover_everything_and_allow_no_further_header() {
    let request = presigned(60);
    request.verify().unwrap();
    let added = request.clone().set("x-amz-acl", "public-read");
    assert_eq!(added.verify().unwrap_err(), ErrorCode::AccessDenied);
    let mut parameter = request.clone();
    parameter.query.push_str("&partNumber=1");
    assert_eq!(
        parameter.verify().unwrap_err(),
        ErrorCode::SignatureDoesNotMatch
    );
    for field in [
        "X-Amz-Date",
        "X-Amz-Expires",
        "X-Amz-SignedHeaders",
        "X-Amz-Credential",
    ] {
        let mut missing = request.clone();
        missing.query = missing.query.replace(field, "y");
        let code = missing.verify().unwrap_err();
        assert_eq!(
            code,
            ErrorCode::AuthorizationQueryParametersError,
            "{field}"
        );
    }
    let mut both = request.clone();
    both.headers
        .insert("authorization", "AWS4-HMAC-SHA256 x=y".parse().unwrap());
    assert_eq!(both.verify().unwrap_err(), ErrorCode::InvalidArgument);
}

#[test]
fn broken_authorization_headers_are_malformed() {
    let request = Request::signed(Method::GET, "/b/k", "", &[]);
    for (from, to) in [
        ("Credential=", "Credentials="),
        ("20130524/", "20130525/"),
        ("/s3/", "/sts/"),
        ("aws4_request", "aws5_request"),
        ("AKIAIOSFODNN7EXAMPLE/", "/"),
        ("/us-east-1", ""),
        ("SignedHeaders=host", "SignedHeaders=Host"),
        ("SignedHeaders=host", "SignedHeaders=host;"),
        ("Signature=", "Signature=0"),
        (", Signature=", ", Signature=0, Signature="),
        ("us-east-1", &"r".repeat(65)),
    ] {
        let code = request.clone().change(from, to).verify().unwrap_err();
        assert_eq!(
            code,
            ErrorCode::AuthorizationHeaderMalformed,
            "{from} -> {to}"
        );
    }
    for (value, expected) in [
        ("AWS4-HMAC-SHA256", ErrorCode::AuthorizationHeaderMalformed),
        ("AWS AKIA:c2ln", ErrorCode::InvalidRequest),
        (
            "AWS4-ECDSA-P256-SHA256 Credential=a",
            ErrorCode::InvalidRequest,
        ),
        ("Bearer t", ErrorCode::InvalidArgument),
        ("", ErrorCode::InvalidArgument),
    ] {
        assert_eq!(
            request
                .clone()
                .set("authorization", value)
                .verify()
                .unwrap_err(),
            expected
        );
    }
    let mut undated = request.clone();
    undated.headers.remove("x-amz-date");
    assert_eq!(undated.verify().unwrap_err(), ErrorCode::AccessDenied);
    let bad_sum = request.clone().set("x-amz-content-sha256", "abc");
    assert_eq!(bad_sum.verify().unwrap_err(), ErrorCode::InvalidArgument);
    let signature_2 = Query2::head();
    assert_eq!(
        Claim::parse(signature_2).unwrap_err().code,
        ErrorCode::InvalidRequest
    );
}

struct Query2;

impl Query2 {
    fn head() -> RequestHead<'static> {
        static EMPTY: std::sync::LazyLock<HeaderMap> = std::sync::LazyLock::new(HeaderMap::new);
        let query = "AWSAccessKeyId=a&Signature=b&Expires=1";
        RequestHead {
            method: &Method::GET,
            path: "/b/k",
            query,
            headers: &EMPTY,
        }
    }
}

#[test]
fn payload_modes_print_as_they_parse() {
    let modes = StreamingVariant::ALL.map(PayloadMode::Streaming);
    for mode in modes
        .into_iter()
        .chain([PayloadMode::Unsigned, PayloadMode::of(b"body")])
    {
        assert_eq!(PayloadMode::parse(&mode.to_text()), Ok(mode));
    }
    assert_eq!(PayloadMode::parse(EMPTY_SUM), Ok(PayloadMode::EMPTY));
    assert_eq!(
        PayloadMode::parse(&EMPTY_SUM.to_uppercase()),
        Ok(PayloadMode::EMPTY)
    );
    assert_eq!(PayloadMode::of(b""), PayloadMode::EMPTY);
    let ecdsa = PayloadMode::parse("STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD").unwrap_err();
    assert_eq!(ecdsa.code, ErrorCode::NotImplemented);
}

#[test]
fn signers_take_only_what_fits_into_a_header() {
    let new = |key: &str, region: &str| {
        Signer::new(key.into(), Secret::new("s".into()), region.into()).map(|_| ())
    };
    assert_eq!(new("", "r"), Err(SignerError::AccessKey));
    assert_eq!(new("a b", "r"), Err(SignerError::AccessKey));
    assert_eq!(new("a,b", "r"), Err(SignerError::AccessKey));
    assert_eq!(new("a", "r/s"), Err(SignerError::Region));
    assert_eq!(new("a\n", "r"), Err(SignerError::AccessKey));
    assert_eq!(new("a/b", "auto"), Ok(()));
    assert!(!format!("{:?}", signer()).contains("wJalr"));
}

#[test]
fn presigning_refuses_what_cannot_become_a_url() {
    let presign = |endpoint: &str, seconds: u64| {
        signer().presign(PresignRequest {
            method: &Method::GET,
            endpoint,
            path: "/b/k",
            query: "",
            headers: &HeaderMap::new(),
            expires: Duration::from_secs(seconds),
            now: NOW,
        })
    };
    assert_eq!(presign("http://h", 0), Err(PresignError::Expires));
    assert_eq!(presign("http://h", 604_801), Err(PresignError::Expires));
    for endpoint in ["h", "ftp://h", "http://", "http://h/path", "http://a@h"] {
        assert!(
            matches!(presign(endpoint, 1), Err(PresignError::Endpoint { .. })),
            "{endpoint}"
        );
    }
}

fn text() -> impl Strategy<Value = String> {
    "[ -~äß€/+%&=?#'()*!\u{1}]{1,24}"
}

fn query() -> impl Strategy<Value = Vec<(String, Option<String>)>> {
    collection::vec((text(), option::of(text())), 0..5)
}

fn user_headers() -> impl Strategy<Value = Vec<(String, String)>> {
    collection::vec(
        ("x-amz-meta-[a-z0-9]{1,6}", "[!-~]( {0,3}[!-~]){0,8}"),
        0..5,
    )
}

fn method() -> impl Strategy<Value = Method> {
    sample::select(vec![
        Method::GET,
        Method::PUT,
        Method::HEAD,
        Method::POST,
        Method::DELETE,
    ])
}

fn oracle(request: &Request, now: Timestamp, payload: PayloadMode) -> String {
    let identity = Credentials::new(KEY, SECRET, None, None, "test").into();
    let mut settings = SigningSettings::default();
    settings.percent_encoding_mode = PercentEncodingMode::Single;
    settings.payload_checksum_kind = PayloadChecksumKind::XAmzSha256;
    settings.uri_path_normalization_mode = UriPathNormalizationMode::Disabled;
    let params = v4::SigningParams::builder()
        .identity(&identity)
        .region("eu-central-1")
        .name("s3")
        .time(now.to_system())
        .settings(settings)
        .build()
        .unwrap()
        .into();
    let mut url = format!("http://localhost:9000{}", request.path);
    if !request.query.is_empty() {
        url.extend(["?", &request.query]);
    }
    let headers = request
        .headers
        .iter()
        .map(|(name, value)| (name.as_str(), value.to_str().unwrap()));
    let payload = payload.to_text();
    let body = SignableBody::Precomputed(payload);
    let signable = SignableRequest::new(request.method.as_str(), url, headers, body).unwrap();
    let (instructions, _) = sign(signable, &params).unwrap().into_parts();
    let (headers, _) = instructions.into_parts();
    let found = headers
        .iter()
        .find(|header| header.name() == "authorization");
    found.unwrap().value().to_owned()
}

proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(4096))]

    #[test]
    fn our_signer_our_verifier_and_an_independent_signer_agree(
        method in method(),
        key in text(),
        query in query(),
        user in user_headers(),
        content_type in option::of("[a-z]{1,5}/[a-z]{1,5}"),
        millis in 1_000_000_000_000_i64..2_000_000_000_000,
        body in any::<[u8; 3]>(),
        mode in 0_usize..5,
    ) {
        let path = format!("/bucket/{}", uri::encode_path(&key));
        let query =
            uri::encode_query(query.iter().map(|(name, value)| (name.as_str(), value.as_deref())));
        let mut headers = map(&[("host", "localhost:9000")]);
        for (name, value) in &user {
            headers.insert(http::HeaderName::try_from(name).unwrap(), value.parse().unwrap());
        }
        if let Some(content_type) = content_type {
            headers.insert("content-type", content_type.parse().unwrap());
        }
        let unsigned = Request { method, path, query, headers };
        let now = Timestamp::from_millis(millis);
        let payload = match mode {
            0 => PayloadMode::Unsigned,
            1 => PayloadMode::of(&body),
            variant => PayloadMode::Streaming(StreamingVariant::ALL[variant - 2]),
        };
        let expected = oracle(&unsigned, now, payload);

        let signer =
            Signer::new(KEY.into(), Secret::new(SECRET.into()), "eu-central-1".into()).unwrap();
        let mut signed = unsigned.clone();
        signer.sign(
            SignRequest {
                method: &unsigned.method,
                path: &unsigned.path,
                query: &unsigned.query,
                payload,
                now,
            },
            &mut signed.headers,
        );
        prop_assert_eq!(signed.authorization(), expected);
        let verified = signed.verify_at(now);
        prop_assert!(verified.is_ok(), "{verified:?}");
        prop_assert_eq!(verified.unwrap().payload, payload);
    }
}

/// The parameters of a query in the order of a canonical request; a bare name is an empty value there.
fn meaning(query: &str) -> Vec<(String, String)> {
    let query = crate::Query::parse(query).unwrap();
    let pair = |parameter: &crate::query::Parameter<'_>| {
        let value = parameter.value.clone().unwrap_or_default();
        (parameter.name.clone().into_owned(), value.into_owned())
    };
    let mut pairs: Vec<_> = query.parameters().iter().map(pair).collect();
    pairs.sort();
    pairs
}

proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(4096))]

    // On the way, a plus and a blank can both be written as `+`.
    #[test]
    fn a_plus_means_what_it_was_signed_as(
        pairs in collection::vec(("[a+ ]{1,3}", "[a+ %]{0,4}"), 1..4),
        changes in collection::vec(any::<bool>(), 24),
    ) {
        let query =
            uri::encode_query(pairs.iter().map(|(name, value)| (name.as_str(), Some(value.as_str()))));
        let mut request = Request::signed(Method::GET, "/bucket", &query, &[]);
        let mut changes = changes.into_iter();
        let mut wire = String::new();
        let mut rest = query.as_str();
        while let Some(next) = rest.chars().next() {
            let is_either = ["%2B", "%20"].iter().any(|escape| rest.starts_with(escape));
            match is_either && changes.next().unwrap_or(false) {
                true => {
                    wire.push('+');
                    rest = &rest[3..];
                }
                false => {
                    wire.push(next);
                    rest = &rest[1..];
                }
            }
        }
        request.query = wire;
        if let Ok(verified) = request.verify() {
            prop_assert_eq!(meaning(&verified.plus.apply(&request.query)), meaning(&query));
        }
    }

    #[test]
    fn either_reading_of_a_plus_verifies(text in "[a-z]{0,3}[+ ][a-z]{0,3}") {
        let query = uri::encode_query([("prefix", Some(text.as_str()))]);
        let mut request = Request::signed(Method::GET, "/bucket", &query, &[]);
        request.query = query.replace("%2B", "+").replace("%20", "+");
        let verified = request.verify().unwrap();
        let read = verified.plus.apply(&request.query);
        prop_assert_eq!(meaning(&read), [("prefix".to_owned(), text)]);
    }
}

proptest! {
    #[test]
    fn presigned_urls_verify_for_every_key_and_query(
        method in method(),
        key in text(),
        query in query(),
        expires in 1_u64..=604_800,
    ) {
        let query =
            uri::encode_query(query.iter().map(|(name, value)| (name.as_str(), value.as_deref())));
        let url = signer().presign(PresignRequest {
            method: &method,
            endpoint: "http://localhost:9000",
            path: &format!("/bucket/{}", uri::encode_path(&key)),
            query: &query,
            headers: &HeaderMap::new(),
            expires: Duration::from_secs(expires),
            now: NOW,
        });
        let verified = Request::from_url(method, &url.unwrap()).verify();
        prop_assert!(verified.is_ok(), "{verified:?}");
    }

    #[test]
    fn no_authorization_header_makes_the_parser_fail_badly(
        value in "AWS4-HMAC-SHA256 [ -~]{0,120}",
        query in "[ -~]{0,80}",
    ) {
        let headers = map(&[
            ("host", "h"),
            ("x-amz-date", "20130524T000000Z"),
            ("x-amz-content-sha256", "UNSIGNED-PAYLOAD"),
            ("authorization", &value),
        ]);
        let head = RequestHead { method: &Method::GET, path: "/b", query: &query, headers: &headers };
        if let Ok(Some(claim)) = Claim::parse(head) {
            prop_assert!(claim.verify(&secret(), NOW).is_err());
        }
    }
}
