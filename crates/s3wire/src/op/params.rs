//! The query parameters of the operations.
//!
//! Numbers are decimal digits within the bounds of S3, texts at most as long as a key and without
//! NUL; everything else is InvalidArgument.

use base::{KEY_BYTES_MAX, PartNumber, UploadId};

use crate::query::Query;
use crate::{Error, ErrorCode};

/// The most entries that a page of any listing holds, and the default.
///
/// Source: Amazon S3 API reference, ListObjectsV2 and ListParts.
pub const LIST_ENTRIES_MAX: u32 = 1000;

/// An identifier that is never drawn: those that are begin with the time.
const NEVER_DRAWN: UploadId = UploadId::from_bytes([0; 16]);

/// The longest continuation token; ours are a key in base64 at most.
const TOKEN_BYTES_MAX: usize = 4096;

pub(super) const LIST_BUCKETS: [&str; 4] = [
    "bucket-region",
    "continuation-token",
    "max-buckets",
    "prefix",
];
pub(super) const LIST_V1: [&str; 5] =
    ["delimiter", "encoding-type", "marker", "max-keys", "prefix"];
pub(super) const LIST_V2: [&str; 8] = [
    "continuation-token",
    "delimiter",
    "encoding-type",
    "fetch-owner",
    "list-type",
    "max-keys",
    "prefix",
    "start-after",
];
pub(super) const LIST_UPLOADS: [&str; 7] = [
    "delimiter",
    "encoding-type",
    "key-marker",
    "max-uploads",
    "prefix",
    "upload-id-marker",
    "uploads",
];
pub(super) const LIST_VERSIONS: [&str; 7] = [
    "delimiter",
    "encoding-type",
    "key-marker",
    "max-keys",
    "prefix",
    "version-id-marker",
    "versions",
];
pub(super) const LIST_PARTS: [&str; 4] = [
    "encoding-type",
    "max-parts",
    "part-number-marker",
    "uploadId",
];
pub(super) const GET: [&str; 8] = [
    "partNumber",
    "response-cache-control",
    "response-content-disposition",
    "response-content-encoding",
    "response-content-language",
    "response-content-type",
    "response-expires",
    "versionId",
];

/// How a listing writes keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Encoding {
    /// As text; characters that XML cannot carry become character references.
    #[default]
    None,
    /// Percent-encoded: `encoding-type=url`.
    Url,
}

/// The parameters of ListBuckets.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ListBuckets {
    /// Only buckets that begin so.
    pub prefix: String,
    /// Where to go on.
    pub continuation_token: Option<String>,
    /// The most buckets to return; all where absent.
    pub max_buckets: Option<u32>,
}

/// The parameters of ListObjects.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ListObjectsV1 {
    /// Only keys that begin so; may be empty.
    pub prefix: String,
    /// Keys are rolled up at its first occurrence behind the prefix; never empty.
    pub delimiter: Option<String>,
    /// Only keys behind it; may be empty.
    pub marker: String,
    /// 0 to [`LIST_ENTRIES_MAX`].
    pub max_keys: u32,
    /// How keys are written.
    pub encoding: Encoding,
}

/// The parameters of ListObjectsV2.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ListObjectsV2 {
    /// Only keys that begin so; may be empty.
    pub prefix: String,
    /// Keys are rolled up at its first occurrence behind the prefix; never empty.
    pub delimiter: Option<String>,
    /// Where to go on, from the answer before; never empty.
    pub continuation_token: Option<String>,
    /// Only keys behind it; counts only without a token.
    pub start_after: Option<String>,
    /// 0 to [`LIST_ENTRIES_MAX`].
    pub max_keys: u32,
    /// Whether entries name their owner.
    pub fetch_owner: FetchOwner,
    /// How keys are written.
    pub encoding: Encoding,
}

/// Whether a listing names the owner of each object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FetchOwner {
    /// It does not.
    #[default]
    Omit,
    /// It does.
    Include,
}

/// The parameters of ListObjectVersions. A `version-id-marker` can only be `null`, the version that the
/// key marker itself has, so it says nothing that the key marker does not.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ListVersions {
    /// Only keys that begin so; may be empty.
    pub prefix: String,
    /// Keys are rolled up at its first occurrence behind the prefix; never empty.
    pub delimiter: Option<String>,
    /// Only keys behind it; may be empty.
    pub key_marker: String,
    /// The version that the page before ended with.
    pub version_id_marker: Option<NamedVersion>,
    /// 0 to [`LIST_ENTRIES_MAX`].
    pub max_keys: u32,
    /// How keys are written.
    pub encoding: Encoding,
}

/// A version that a request names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NamedVersion {
    /// The one that every object has where nothing is versioned.
    Null,
    /// One that no object has.
    Unknown,
}

impl NamedVersion {
    /// The identifier of [`Self::Null`].
    pub const NULL: &'static str = "null";

    fn of(id: &str) -> Self {
        match id {
            Self::NULL => Self::Null,
            _ => Self::Unknown,
        }
    }
}

/// The parameters of ListMultipartUploads.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ListUploads {
    /// Only keys that begin so; may be empty.
    pub prefix: String,
    /// Keys are rolled up at its first occurrence behind the prefix; never empty.
    pub delimiter: Option<String>,
    /// Only uploads of keys behind it, or of the same key behind the upload marker.
    pub key_marker: String,
    /// Counts only together with a key marker.
    pub upload_id_marker: Option<String>,
    /// 0 to [`LIST_ENTRIES_MAX`].
    pub max_uploads: u32,
    /// How keys are written.
    pub encoding: Encoding,
}

/// The parameters of ListParts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListParts {
    /// The upload.
    pub upload_id: UploadId,
    /// Only parts with higher numbers.
    pub part_number_marker: u32,
    /// 0 to [`LIST_ENTRIES_MAX`].
    pub max_parts: u32,
    /// How the key is written.
    pub encoding: Encoding,
}

/// The parameters of GetObject and HeadObject.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GetParams {
    /// Only this part of the object.
    pub part: Option<PartNumber>,
    /// Headers that the answer carries instead of the stored ones.
    pub overrides: ResponseOverrides,
}

/// The `response-*` parameters.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ResponseOverrides {
    /// `response-content-type`
    pub content_type: Option<String>,
    /// `response-cache-control`
    pub cache_control: Option<String>,
    /// `response-content-disposition`
    pub content_disposition: Option<String>,
    /// `response-content-encoding`
    pub content_encoding: Option<String>,
    /// `response-content-language`
    pub content_language: Option<String>,
    /// `response-expires`
    pub expires: Option<String>,
}

impl ListBuckets {
    pub(super) fn parse(query: &Query<'_>) -> Result<Self, Error> {
        let max_buckets = match query.value("max-buckets")? {
            None => None,
            Some(text) => match number("max-buckets", text)? {
                limit @ 1..=10_000 => Some(limit),
                _ => return Err(Error::argument("max-buckets must be between 1 and 10000.")),
            },
        };
        Ok(Self {
            prefix: text(query, "prefix")?,
            continuation_token: token(query)?,
            max_buckets,
        })
    }
}

impl ListObjectsV1 {
    pub(super) fn parse(query: &Query<'_>) -> Result<Self, Error> {
        Ok(Self {
            prefix: text(query, "prefix")?,
            delimiter: filled(query, "delimiter")?,
            marker: text(query, "marker")?,
            max_keys: page(query, "max-keys")?,
            encoding: encoding(query)?,
        })
    }
}

impl ListObjectsV2 {
    pub(super) fn parse(query: &Query<'_>) -> Result<Self, Error> {
        let fetch_owner = match query.value("fetch-owner")? {
            Some("true") => FetchOwner::Include,
            None | Some("" | "false") => FetchOwner::Omit,
            Some(_) => return Err(Error::argument("fetch-owner must be true or false.")),
        };
        Ok(Self {
            prefix: text(query, "prefix")?,
            delimiter: filled(query, "delimiter")?,
            continuation_token: token(query)?,
            start_after: filled(query, "start-after")?,
            max_keys: page(query, "max-keys")?,
            fetch_owner,
            encoding: encoding(query)?,
        })
    }
}

impl ListVersions {
    pub(super) fn parse(query: &Query<'_>) -> Result<Self, Error> {
        let key_marker = text(query, "key-marker")?;
        let version_id_marker = match query.value("version-id-marker")? {
            // Libraries send all that they know, also where it is nothing.
            None => None,
            Some("") if key_marker.is_empty() => None,
            Some("") => return Err(Error::argument("A version-id marker cannot be empty.")),
            Some(_) if key_marker.is_empty() => {
                return Err(Error::argument(
                    "A version-id marker cannot be specified without a key marker.",
                ));
            }
            Some(id) => Some(NamedVersion::of(id)),
        };
        if version_id_marker == Some(NamedVersion::Unknown) {
            return Err(Error::argument("Invalid version id specified"));
        }
        Ok(Self {
            prefix: text(query, "prefix")?,
            delimiter: filled(query, "delimiter")?,
            key_marker,
            version_id_marker,
            max_keys: page(query, "max-keys")?,
            encoding: encoding(query)?,
        })
    }
}

impl ListUploads {
    pub(super) fn parse(query: &Query<'_>) -> Result<Self, Error> {
        Ok(Self {
            prefix: text(query, "prefix")?,
            delimiter: filled(query, "delimiter")?,
            key_marker: text(query, "key-marker")?,
            upload_id_marker: filled(query, "upload-id-marker")?,
            max_uploads: page(query, "max-uploads")?,
            encoding: encoding(query)?,
        })
    }
}

impl ListParts {
    pub(super) fn parse(query: &Query<'_>) -> Result<Self, Error> {
        let part_number_marker = match query.value("part-number-marker")? {
            None | Some("") => 0,
            Some(text) => number("part-number-marker", text)?,
        };
        Ok(Self {
            upload_id: upload_id(query)?,
            part_number_marker,
            max_parts: page(query, "max-parts")?,
            encoding: encoding(query)?,
        })
    }
}

impl GetParams {
    pub(super) fn parse(query: &Query<'_>) -> Result<Self, Error> {
        named_version(query)?;
        let part = match query.has("partNumber") {
            true => Some(part_number(query)?),
            false => None,
        };
        let header = |name: &str| -> Result<Option<String>, Error> {
            let Some(value) = query.value(name)? else {
                return Ok(None);
            };
            match value.bytes().any(|b| b.is_ascii_control()) {
                true => Err(Error::argument(format!("{name} is not a header value."))),
                false => Ok(Some(value.to_owned())),
            }
        };
        let overrides = ResponseOverrides {
            content_type: header("response-content-type")?,
            cache_control: header("response-cache-control")?,
            content_disposition: header("response-content-disposition")?,
            content_encoding: header("response-content-encoding")?,
            content_language: header("response-content-language")?,
            expires: header("response-expires")?,
        };
        Ok(Self { part, overrides })
    }
}

impl ResponseOverrides {
    /// The headers that are overridden, under the names that HTTP gives them.
    pub fn standard(&self) -> impl Iterator<Item = (&'static str, &str)> {
        [
            ("content-type", &self.content_type),
            ("cache-control", &self.cache_control),
            ("content-disposition", &self.content_disposition),
            ("content-encoding", &self.content_encoding),
            ("content-language", &self.content_language),
            ("expires", &self.expires),
        ]
        .into_iter()
        .filter_map(|(name, value)| value.as_deref().map(|value| (name, value)))
    }
}

/// `versionId`. Whether the version exists is said after the caller is known, and whether there is such
/// a bucket.
pub fn named_version(query: &Query<'_>) -> Result<Option<NamedVersion>, Error> {
    match query.value("versionId")? {
        None => Ok(None),
        Some("") => Err(Error::argument("Version id cannot be the empty string")),
        Some(id) => Ok(Some(NamedVersion::of(id))),
    }
}

/// The upload of the request. An identifier that we cannot have issued stands for an upload that never
/// was: that it is not there is said after the caller is known, and whether there is such a bucket.
pub(super) fn upload_id(query: &Query<'_>) -> Result<UploadId, Error> {
    let text = query.value("uploadId")?.unwrap_or("");
    Ok(text.parse().unwrap_or(NEVER_DRAWN))
}

pub(super) fn part_number(query: &Query<'_>) -> Result<PartNumber, Error> {
    query
        .value("partNumber")?
        .unwrap_or("")
        .parse()
        .map_err(|_| {
            Error::argument("Part number must be an integer between 1 and 10000, inclusive")
        })
}

fn text(query: &Query<'_>, name: &str) -> Result<String, Error> {
    let value = query.value(name)?.unwrap_or("");
    if value.len() > KEY_BYTES_MAX {
        return Err(ErrorCode::KeyTooLong.into());
    }
    match value.contains('\0') {
        true => Err(Error::argument(format!(
            "{name} must not contain a NUL character."
        ))),
        false => Ok(value.to_owned()),
    }
}

fn filled(query: &Query<'_>, name: &str) -> Result<Option<String>, Error> {
    text(query, name).map(|value| Some(value).filter(|value| !value.is_empty()))
}

fn token(query: &Query<'_>) -> Result<Option<String>, Error> {
    match query.value("continuation-token")? {
        None => Ok(None),
        Some(token) if token.is_empty() || token.len() > TOKEN_BYTES_MAX => Err(Error::argument(
            "The continuation token provided is incorrect",
        )),
        Some(token) => Ok(Some(token.to_owned())),
    }
}

/// The size of a page: at most [`LIST_ENTRIES_MAX`] however much is asked for, as S3 does.
fn page(query: &Query<'_>, name: &str) -> Result<u32, Error> {
    match query.value(name)? {
        None | Some("") => Ok(LIST_ENTRIES_MAX),
        Some(text) => number(name, text).map(|entries| entries.min(LIST_ENTRIES_MAX)),
    }
}

/// A number as S3 takes it in parameters and in headers.
pub(crate) fn number(name: &str, text: &str) -> Result<u32, Error> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let value = digits.then(|| text.parse::<i32>().ok()).flatten();
    value
        .and_then(|value| u32::try_from(value).ok())
        .ok_or_else(|| {
            Error::argument(format!(
                "{name} must be an integer between 0 and 2147483647"
            ))
        })
}

fn encoding(query: &Query<'_>) -> Result<Encoding, Error> {
    match query.value("encoding-type")? {
        None | Some("") => Ok(Encoding::None),
        Some(name) if name.eq_ignore_ascii_case("url") => Ok(Encoding::Url),
        Some(_) => Err(Error::argument(
            "Invalid Encoding Method specified in Request",
        )),
    }
}
