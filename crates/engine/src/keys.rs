//! Keys on backends, and the entry that every stored object carries so that a lost catalogue can be
//! rebuilt from the backends.

use base::{BackendKey, BlobId, BucketName, CopyId, Crc64, ObjectHeaders, ObjectKey, VersionId};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use uuid::Uuid;

use backend::PutMeta;

/// Everything of ours lies below this, where no bucket name can reach.
pub(crate) const OWN_PREFIX: &str = ".s3o/";

/// The user metadata entry of ours, without `x-amz-meta-`.
pub(crate) const OWN_META: &str = "s3o";

/// The longest component of a key that is kept readable on a backend, in bytes.
const COMPONENT_BYTES_MAX: usize = 200;

/// The most components of a key that are kept readable: on a local backend each is a directory, to
/// be made, synced and walked.
const COMPONENTS_MAX: usize = 64;

/// The most that providers accept as user metadata of one object, in bytes.
const BACKEND_META_BYTES_MAX: usize = base::USER_METADATA_BYTES_MAX;

const COPY_ID_LEN: usize = 26;

/// The key under which an attempt stores an object's bytes.
///
/// `{bucket}/{key}~{copy}` where the key is plain: at most 64 components of 1 to 200 bytes, none of
/// them `.` or `..`, no control characters. Every other key is hashed: `.s3o/{bucket}/{sha256}~{copy}`.
pub(crate) fn backend_key(bucket: &BucketName, key: &ObjectKey, copy: CopyId) -> BackendKey {
    let plain = format!("{bucket}/{key}~{copy}");
    if is_plain(bucket.as_str(), key.as_str())
        && let Some(plain) = BackendKey::new(&plain)
    {
        return plain;
    }
    let hash = ring::digest::digest(&ring::digest::SHA256, key.as_str().as_bytes());
    let hash: String = hash
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    BackendKey::new(&format!("{OWN_PREFIX}{bucket}/{hash}~{copy}"))
        .expect("a bucket name of 255 bytes, a hash and a copy id fit into 1024 bytes")
}

fn is_plain(bucket: &str, key: &str) -> bool {
    let component = |part: &str| {
        (1..=COMPONENT_BYTES_MAX).contains(&part.len())
            && part != "."
            && part != ".."
            && !part.chars().any(char::is_control)
    };
    // The copy id and its tilde belong to the last component.
    component(bucket)
        && key.split('/').count() <= COMPONENTS_MAX
        && key.split('/').all(component)
        && key
            .rsplit('/')
            .next()
            .is_some_and(|last| last.len() <= COMPONENT_BYTES_MAX - 27)
}

/// What a backend key says of the object whose bytes lie under it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ParsedKey {
    pub(crate) bucket: BucketName,
    /// `None` where the key is hashed: the object's metadata names it.
    pub(crate) key: Option<ObjectKey>,
    pub(crate) copy: CopyId,
}

/// Reads a key that was found on a backend; `None` where it is not one of ours.
pub(crate) fn parse_backend_key(key: &str) -> Option<ParsedKey> {
    let (rest, copy) = key.split_at_checked(key.len().checked_sub(COPY_ID_LEN)?)?;
    let copy = copy.parse().ok()?;
    let rest = rest.strip_suffix('~')?;
    match rest.strip_prefix(OWN_PREFIX) {
        Some(hashed) => {
            let (bucket, hash) = hashed.split_once('/')?;
            let hex = hash.len() == 64 && hash.bytes().all(|byte| byte.is_ascii_hexdigit());
            hex.then_some(())?;
            Some(ParsedKey {
                bucket: bucket.parse().ok()?,
                key: None,
                copy,
            })
        }
        None => {
            let (bucket, key) = rest.split_once('/')?;
            Some(ParsedKey {
                bucket: bucket.parse().ok()?,
                key: Some(key.parse().ok()?),
                copy,
            })
        }
    }
}

/// What a stored object says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Label {
    /// Whose object it is.
    pub(crate) catalogue: Uuid,
    /// Which blob its bytes are.
    pub(crate) blob: BlobId,
    /// Which version it was written for.
    pub(crate) version: VersionId,
    /// Which extent of that version it is.
    pub(crate) role: Role,
    /// The sum over its bytes, where it was known before them.
    pub(crate) crc64: Option<Crc64>,
    /// The object's key, where the backend key does not show it.
    pub(crate) key: Option<ObjectKey>,
}

/// What part of an object a stored object is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// All of it.
    Whole,
    /// A leg of a multipart upload: an extent, or several.
    Leg,
}

impl Label {
    /// `FORMAT CATALOGUE BLOB VERSION ROLE CRC64 KEY`, `-` where a field is absent.
    pub(crate) fn to_text(&self) -> String {
        let role = match self.role {
            Role::Whole => "whole",
            Role::Leg => "leg",
        };
        let crc64 = self
            .crc64
            .map_or_else(|| "-".to_owned(), |crc64| format!("{crc64:?}"));
        // base64 keeps a key of 1024 odd bytes within the providers' 2 KiB; percent-encoding does not.
        let key = self.key.as_ref().map_or_else(
            || "-".to_owned(),
            |key| URL_SAFE_NO_PAD.encode(key.as_str()),
        );
        format!(
            "1 {} {} {} {role} {crc64} {key}",
            self.catalogue.simple(),
            self.blob,
            self.version
        )
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut fields = text.split(' ');
        if fields.next()? != "1" {
            return None;
        }
        let catalogue = Uuid::parse_str(fields.next()?).ok()?;
        let blob = fields.next()?.parse().ok()?;
        let version = fields.next()?.parse().ok()?;
        let role = match fields.next()? {
            "whole" => Role::Whole,
            "leg" => Role::Leg,
            _ => return None,
        };
        let crc64 = match fields.next()? {
            "-" => None,
            hex => Some(Crc64(u64::from_str_radix(hex, 16).ok()?)),
        };
        let key = match fields.next()? {
            "-" => None,
            text => {
                let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
                Some(String::from_utf8(bytes).ok()?.parse().ok()?)
            }
        };
        Some(Self {
            catalogue,
            blob,
            version,
            role,
            crc64,
            key,
        })
    }
}

/// The headers and metadata that go to a backend with the bytes.
///
/// The row is authoritative: what a provider might refuse is left out here, namely values that are
/// not printable ASCII, and user metadata where the provider's limit would be exceeded.
pub(crate) fn put_meta(headers: &ObjectHeaders, label: &Label) -> PutMeta {
    let printable = |value: &String| value.bytes().all(|byte| (0x20..0x7f).contains(&byte));
    let text = label.to_text();
    let own = OWN_META.len() + text.len();
    let keep_user = headers.user_bytes() + own <= BACKEND_META_BYTES_MAX;
    let mut user: Vec<_> = headers
        .user
        .iter()
        .filter(|(name, value)| keep_user && name != OWN_META && printable(value))
        .cloned()
        .collect();
    user.push((OWN_META.to_owned(), text));
    PutMeta {
        headers: ObjectHeaders {
            content_type: headers.content_type.clone().filter(printable),
            cache_control: headers.cache_control.clone().filter(printable),
            content_disposition: headers.content_disposition.clone().filter(printable),
            content_encoding: headers.content_encoding.clone().filter(printable),
            content_language: headers.content_language.clone().filter(printable),
            expires: headers.expires.clone().filter(printable),
            user,
        },
    }
}

/// The label that a stored object carries, if it is one of ours.
pub(crate) fn label_of(headers: &ObjectHeaders) -> Option<Label> {
    headers
        .user
        .iter()
        .find(|(name, _)| name == OWN_META)
        .and_then(|(_, text)| Label::parse(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn copy() -> CopyId {
        CopyId::from_bytes([7; 16])
    }

    #[test]
    fn plain_keys_stay_readable_and_odd_keys_are_hashed() {
        let bucket: BucketName = "photos".parse().unwrap();
        for (key, plain) in [
            ("a", true),
            ("a/b.txt", true),
            ("%2F", true),
            ("ä", true),
            ("a//b", false),
            ("../x", false),
            ("./x", false),
            ("a/", false),
            ("/a", false),
            ("a\nb", false),
            (&"k".repeat(174), false),
            (&"k".repeat(173), true),
            (&format!("{}/a", "k".repeat(201)), false),
            (&vec!["k".repeat(100); 10].join("/"), false),
            (&["k"; 64].join("/"), true),
            (&["k"; 65].join("/"), false),
        ] {
            let key: ObjectKey = key.parse().unwrap();
            let made = backend_key(&bucket, &key, copy());
            assert_eq!(made.as_str().starts_with("photos/"), plain, "{key}");
            assert_eq!(made.as_str().starts_with(OWN_PREFIX), !plain, "{key}");
            let parsed = parse_backend_key(made.as_str()).unwrap();
            assert_eq!(parsed.bucket, bucket);
            assert_eq!(parsed.copy, copy());
            assert_eq!(parsed.key, plain.then_some(key));
        }
    }

    #[test]
    fn foreign_keys_are_not_mistaken_for_ours() {
        for key in [
            "",
            "a",
            "photos/a",
            ".s3o/backend",
            "photos/a~short",
            ".s3o/probe/x",
        ] {
            assert_eq!(parse_backend_key(key), None, "{key}");
        }
    }

    #[test]
    fn labels_round_trip_and_fit_the_smallest_limit() {
        let label = |key: Option<ObjectKey>, crc64| Label {
            catalogue: Uuid::from_u128(5),
            blob: BlobId::from_bytes([1; 16]),
            version: VersionId::from_bytes([2; 16]),
            role: Role::Leg,
            crc64,
            key,
        };
        let odd: ObjectKey = "\u{1}".repeat(1024).parse().unwrap();
        for label in [label(None, None), label(Some(odd), Some(Crc64(9)))] {
            let text = label.to_text();
            assert!(text.len() + OWN_META.len() <= BACKEND_META_BYTES_MAX);
            assert_eq!(Label::parse(&text), Some(label));
        }
        assert_eq!(Label::parse("2 whatever"), None);
    }

    #[test]
    fn metadata_that_would_not_fit_is_left_out_but_the_label_never() {
        let headers = ObjectHeaders {
            user: vec![
                ("big".into(), "x".repeat(2000)),
                ("s3o".into(), "forged".into()),
            ],
            content_type: Some("text/plain\u{e4}".into()),
            ..ObjectHeaders::default()
        };
        let label = Label {
            catalogue: Uuid::from_u128(5),
            blob: BlobId::from_bytes([1; 16]),
            version: VersionId::from_bytes([2; 16]),
            role: Role::Whole,
            crc64: None,
            key: None,
        };
        let meta = put_meta(&headers, &label);
        assert_eq!(meta.headers.user.len(), 1);
        assert_eq!(meta.headers.content_type, None);
        assert_eq!(label_of(&meta.headers), Some(label));
    }
}
