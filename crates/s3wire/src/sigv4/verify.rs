//! Verifying signatures in the header and in the query.
//!
//! Two steps, so that looking up the secret is the caller's: [`Claim::parse`] reads what the
//! request claims, [`Claim::verify`] proves it against a secret. For an access key that is not
//! known the caller passes [`SigningSecret::unknown`], and the answer is the one to a wrong
//! signature, after the same work.

use std::borrow::Cow;
use std::time::Duration;

use base::Timestamp;
use http::header::{AUTHORIZATION, DATE};
use subtle::{Choice, ConstantTimeEq as _};

use super::canonical::{self, Absent, CANONICAL_BYTES_MAX, CanonicalForm, Plus};
use super::chain::Chain;
use super::key::SigningSecret;
use super::payload::{PayloadMode, UNSIGNED};
use super::presign::EXPIRES_MAX;
use super::{ALGORITHM, Hex, RequestHead, SERVICE, TERMINATOR};
use crate::date::{amz_date, parse_amz_date, parse_http_date};
use crate::headers::single;
use crate::query::Query;
use crate::{Error, ErrorCode};

/// The largest difference between the client's clock and ours.
pub const CLOCK_SKEW_MAX: Duration = Duration::from_secs(15 * 60);

/// The longest region name; names of Amazon have at most 25 bytes.
const REGION_BYTES_MAX: usize = 64;

const OTHER_MECHANISM: &str =
    "The authorization mechanism you have provided is not supported. Please use AWS4-HMAC-SHA256.";

/// What a request claims about who sent it; nothing of it is proven.
#[derive(Debug)]
pub struct Claim<'a> {
    head: RequestHead<'a>,
    place: SignaturePlace,
    access_key_id: Cow<'a, str>,
    scope: Scope<'a>,
    signed_headers: Cow<'a, str>,
    signature: Hex,
    amz_date: [u8; 16],
    time: Timestamp,
    payload: PayloadMode,
    /// As it was signed; hexadecimal digits have two cases.
    payload_text: Cow<'a, str>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SignaturePlace {
    Header,
    Query { lifetime: Duration },
}

#[derive(Debug)]
pub(super) struct Scope<'a> {
    pub(super) date: [u8; 8],
    pub(super) region: Cow<'a, str>,
}

/// A request whose signature is right.
#[derive(Debug, Clone)]
pub struct VerifiedRequest {
    /// How the signature covers the body; a sum is still to be compared.
    pub payload: PayloadMode,
    /// Continues the signature over the chunks of a streaming body.
    pub chain: Chain,
    /// What a `+` in the query was signed as, and so what it means.
    pub plus: Plus,
}

impl<'a> Claim<'a> {
    /// Reads the claim; `None` where the request carries no signature of any version.
    pub fn parse(head: RequestHead<'a>) -> Result<Option<Self>, Error> {
        let mut header = head.headers.get_all(AUTHORIZATION).iter();
        let query = Query::parse(head.query)?;
        let in_query = ["X-Amz-Algorithm", "X-Amz-Credential", "X-Amz-Signature"]
            .iter()
            .any(|name| query.has(name));
        match (header.next(), in_query) {
            (None, false) if query.has("AWSAccessKeyId") => Err(signature_2()),
            (None, false) => Ok(None),
            (Some(_), true) => Err(Error::argument(
                "Only one auth mechanism allowed: header or query.",
            )),
            (Some(value), false) => {
                let text = value
                    .to_str()
                    .map_err(|_| malformed_header("it is not plain text"))?;
                match header.next() {
                    None => Self::from_header(head, text).map(Some),
                    Some(_) => Err(malformed_header("it is there more than once")),
                }
            }
            (None, true) => Self::from_query(head, &query).map(Some),
        }
    }

    /// The access key that the request names.
    pub fn access_key_id(&self) -> &str {
        &self.access_key_id
    }

    /// When the request says that it was signed.
    pub fn time(&self) -> Timestamp {
        self.time
    }

    /// Proves the claim.
    ///
    /// Which of the reasons below applies does not depend on the secret, except for the last:
    /// * RequestTimeTooSkewed: more than [`CLOCK_SKEW_MAX`] away from `now`;
    /// * AccessDenied: a presigned URL has expired;
    /// * SignatureDoesNotMatch, with the name of a header that is signed and is not there;
    /// * SignatureDoesNotMatch: the signature is wrong, or the secret is that of no one.
    pub fn verify(&self, secret: &SigningSecret, now: Timestamp) -> Result<VerifiedRequest, Error> {
        self.check_time(now)?;
        let Scope { date, region } = &self.scope;
        let cached = secret.cached(date, region);
        let was_cached = cached.is_some();
        let key = cached.unwrap_or_else(|| secret.derive(date, region));
        let scope = self.scope.to_text();
        let signed = self.signed_headers.split(';');
        let (mut matches, mut literal) = (Choice::from(0), Choice::from(0));
        for form in CanonicalForm::all(&self.head) {
            let hash = canonical::hash(&self.head, form, signed.clone(), &self.payload_text);
            let hash = hash.map_err(absent)?;
            let expected = canonical::sign_text(&key, &self.amz_date, &scope, &hash);
            let fits = expected.ct_eq(&self.signature);
            matches |= fits;
            if form.plus == Plus::Literal {
                literal |= fits;
            }
        }
        if !bool::from(matches & secret.is_known()) {
            if was_cached {
                // Or a quick refusal would tell that the access key exists and is in use.
                std::hint::black_box(secret.derive(date, region));
            }
            return Err(ErrorCode::SignatureDoesNotMatch.into());
        }
        if !was_cached {
            secret.keep(date, region, &key);
        }
        let chain = Chain::new(key, self.amz_date, scope.into(), self.signature);
        Ok(VerifiedRequest {
            payload: self.payload,
            chain,
            plus: match bool::from(literal) {
                true => Plus::Literal,
                false => Plus::Blank,
            },
        })
    }

    fn check_time(&self, now: Timestamp) -> Result<(), Error> {
        if self.time.since(now) > CLOCK_SKEW_MAX {
            return Err(ErrorCode::RequestTimeTooSkewed.into());
        }
        match self.place {
            SignaturePlace::Header if now.since(self.time) > CLOCK_SKEW_MAX => {
                Err(ErrorCode::RequestTimeTooSkewed.into())
            }
            SignaturePlace::Query { lifetime } if now.since(self.time) > lifetime => {
                Err(Error::new(ErrorCode::AccessDenied, "Request has expired"))
            }
            SignaturePlace::Header | SignaturePlace::Query { .. } => Ok(()),
        }
    }

    fn from_header(head: RequestHead<'a>, text: &'a str) -> Result<Self, Error> {
        let text = text.trim();
        let fields = match text.split_once([' ', '\t']) {
            Some((ALGORITHM, fields)) => fields,
            Some((scheme, _)) if scheme.starts_with("AWS") => return Err(other_mechanism()),
            Some(_) => return Err(Error::argument("Unsupported Authorization Type")),
            None if text == ALGORITHM => "",
            None => return Err(Error::argument("Unsupported Authorization Type")),
        };
        let [mut credential, mut signed_headers, mut signature] = [None; 3];
        for field in fields
            .split(',')
            .map(str::trim)
            .filter(|field| !field.is_empty())
        {
            let (name, value) = field
                .split_once('=')
                .ok_or_else(|| malformed_header("a field has no value"))?;
            let place = match name {
                "Credential" => &mut credential,
                "SignedHeaders" => &mut signed_headers,
                "Signature" => &mut signature,
                _ => return Err(malformed_header("it has a field that is not known")),
            };
            if place.replace(value).is_some() {
                return Err(malformed_header("a field is there more than once"));
            }
        }
        let missing = |what| move || malformed_header(what);
        let credential = credential.ok_or_else(missing("the Credential is missing"))?;
        let signed_headers = signed_headers.ok_or_else(missing("SignedHeaders are missing"))?;
        let signature = signature.ok_or_else(missing("the Signature is missing"))?;
        let (time, amz_date) = header_time(&head)?;
        let (access_key_id, scope) =
            split_credential(credential, &amz_date).map_err(malformed_header)?;
        let payload = single(head.headers, "x-amz-content-sha256")?.ok_or_else(|| {
            Error::request("Missing required header for this request: x-amz-content-sha256")
        })?;
        let claim = Self {
            place: SignaturePlace::Header,
            access_key_id: Cow::Borrowed(access_key_id),
            scope: scope.into(),
            signed_headers: Cow::Borrowed(signed_headers),
            signature: parse_signature(signature).map_err(malformed_header)?,
            amz_date,
            time,
            payload: PayloadMode::parse(payload)?,
            payload_text: Cow::Borrowed(payload),
            head,
        };
        claim.check_signed_headers(malformed_header)?;
        Ok(claim)
    }

    fn from_query(head: RequestHead<'a>, query: &Query<'_>) -> Result<Self, Error> {
        let field = |name: &'static str| {
            query
                .value(name)?
                .ok_or_else(|| malformed_query(&format!("{name} is missing")))
        };
        if field("X-Amz-Algorithm")? != ALGORITHM {
            return Err(malformed_query("X-Amz-Algorithm must be AWS4-HMAC-SHA256"));
        }
        let date = field("X-Amz-Date")?;
        let time = parse_amz_date(date.as_bytes())
            .ok_or_else(|| malformed_query("X-Amz-Date must be of the form yyyyMMddTHHmmssZ"))?;
        let amz_date = amz_date(time);
        let (access_key_id, scope) =
            split_credential(field("X-Amz-Credential")?, &amz_date).map_err(malformed_query)?;
        let payload = match single(head.headers, "x-amz-content-sha256")? {
            Some(text) => Some(text),
            None => query.value_of_header("x-amz-content-sha256")?,
        };
        let payload = payload.unwrap_or(UNSIGNED);
        let claim = Self {
            place: SignaturePlace::Query {
                lifetime: lifetime(field("X-Amz-Expires")?)?,
            },
            access_key_id: Cow::Owned(access_key_id.to_owned()),
            scope: Scope {
                date: scope.date,
                region: Cow::Owned(scope.region.to_owned()),
            },
            signed_headers: Cow::Owned(field("X-Amz-SignedHeaders")?.to_owned()),
            signature: parse_signature(field("X-Amz-Signature")?).map_err(malformed_query)?,
            amz_date,
            time,
            payload: PayloadMode::parse(payload)?,
            payload_text: Cow::Owned(payload.to_owned()),
            head,
        };
        claim.check_signed_headers(malformed_query)?;
        Ok(claim)
    }

    /// `host` binds the signature to this server, and every `x-amz-*` header changes what a request
    /// does: one that is not signed may have been added by somebody else.
    ///
    /// Names are sorted and unique, as signers make them. Each costs its header's bytes in the canonical
    /// request, and that is built for whoever asks, up to the first name that is not there.
    fn check_signed_headers(&self, malformed: impl Fn(&str) -> Error) -> Result<(), Error> {
        let signed = self.signed_headers.split(';');
        let mut before = "";
        for name in signed.clone() {
            if name.is_empty() || !name.bytes().all(is_name) {
                return Err(malformed("SignedHeaders is not a list of lower-case names"));
            }
            if name <= before {
                return Err(malformed(
                    "SignedHeaders is not sorted, or has a name twice",
                ));
            }
            before = name;
        }
        let is_signed = |name: &str| signed.clone().any(|known| known == name);
        if !is_signed("host") {
            return Err(Error::new(
                ErrorCode::AccessDenied,
                "The host header must be signed.",
            ));
        }
        if canonical::bytes_max(&self.head, &self.payload_text) > CANONICAL_BYTES_MAX {
            return Err(ErrorCode::RequestHeaderSectionTooLarge.into());
        }
        let names = self.head.headers.keys().map(|name| name.as_str());
        match names
            .filter(|name| name.starts_with("x-amz-"))
            .find(|name| !is_signed(name))
        {
            None => Ok(()),
            Some(name) => Err(Error::new(
                ErrorCode::AccessDenied,
                format!("There were headers present in the request which were not signed: {name}"),
            )),
        }
    }
}

impl Scope<'_> {
    fn to_text(&self) -> String {
        let date = std::str::from_utf8(&self.date).expect("the date was compared with digits");
        [date, &self.region, SERVICE, TERMINATOR].join("/")
    }
}

pub(super) struct SplitScope<'a> {
    date: [u8; 8],
    region: &'a str,
}

impl<'a> From<SplitScope<'a>> for Scope<'a> {
    fn from(split: SplitScope<'a>) -> Self {
        Self {
            date: split.date,
            region: Cow::Borrowed(split.region),
        }
    }
}

/// Splits `KEY/DATE/REGION/s3/aws4_request`; an access key may itself hold slashes.
pub(super) fn split_credential<'a>(
    credential: &'a str,
    amz_date: &[u8; 16],
) -> Result<(&'a str, SplitScope<'a>), &'static str> {
    let mut fields = credential.rsplitn(5, '/');
    let mut next = || fields.next();
    let (terminator, service, region, date, key) = (next(), next(), next(), next(), next());
    let (Some(terminator), Some(service), Some(region), Some(date), Some(key)) =
        (terminator, service, region, date, key)
    else {
        return Err("the Credential must be key/date/region/s3/aws4_request");
    };
    if terminator != TERMINATOR {
        return Err("the Credential must end in aws4_request");
    }
    if service != SERVICE {
        return Err("the Credential must be for the service s3");
    }
    if date.as_bytes() != &amz_date[..8] {
        return Err("the date of the Credential is not that of the request");
    }
    if region.len() > REGION_BYTES_MAX || !region.bytes().all(|b| b.is_ascii_graphic()) {
        return Err("the region of the Credential is not valid");
    }
    if key.is_empty() {
        return Err("the Credential names no access key");
    }
    let date = *amz_date
        .first_chunk()
        .expect("the date begins with its day");
    Ok((key, SplitScope { date, region }))
}

fn header_time(head: &RequestHead<'_>) -> Result<(Timestamp, [u8; 16]), Error> {
    let time = match single(head.headers, "x-amz-date")? {
        Some(text) => parse_amz_date(text.as_bytes()),
        None => single(head.headers, DATE.as_str())?
            .and_then(|text| parse_amz_date(text.as_bytes()).or_else(|| parse_http_date(text))),
    };
    match time {
        Some(time) => Ok((time, amz_date(time))),
        None => Err(Error::new(
            ErrorCode::AccessDenied,
            "AWS authentication requires a valid Date or x-amz-date header",
        )),
    }
}

fn lifetime(text: &str) -> Result<Duration, Error> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let seconds = digits.then(|| text.parse::<u64>().ok()).flatten();
    match seconds.map(Duration::from_secs) {
        Some(lifetime) if !lifetime.is_zero() && lifetime <= EXPIRES_MAX => Ok(lifetime),
        _ => Err(malformed_query(
            "X-Amz-Expires must be between 1 and 604800 seconds",
        )),
    }
}

pub(super) fn parse_signature(text: &str) -> Result<Hex, &'static str> {
    match text.as_bytes().try_into() {
        Ok(signature) => Ok(signature),
        Err(_) => Err("the Signature must have 64 digits"),
    }
}

/// Whoever sent the request took the header out of it, or did not send what the URL's maker signed.
fn absent(Absent(name): Absent<'_>) -> Error {
    let code = ErrorCode::SignatureDoesNotMatch;
    let message = format!(
        "{} The header {name} is signed and is not in the request.",
        code.message()
    );
    Error::new(code, message)
}

fn is_name(byte: u8) -> bool {
    byte.is_ascii_graphic() && !byte.is_ascii_uppercase()
}

fn malformed_header(why: &str) -> Error {
    Error::new(
        ErrorCode::AuthorizationHeaderMalformed,
        format!("The authorization header is malformed: {why}."),
    )
}

pub(super) fn malformed_query(why: &str) -> Error {
    Error::new(
        ErrorCode::AuthorizationQueryParametersError,
        format!("{why}."),
    )
}

fn other_mechanism() -> Error {
    Error::request(OTHER_MECHANISM)
}

/// boto3 makes URLs and forms of version 2 for a client whose region is us-east-1.
pub(super) fn signature_2() -> Error {
    Error::request(format!(
        "{OTHER_MECHANISM} In boto3: Config(signature_version='s3v4'), or a client region other than us-east-1."
    ))
}
