//! Keys on backends, and the entry that every stored object carries so that a lost catalogue can be
//! rebuilt from the backends.

use std::fmt::Write as _;

use base::{
    BackendKey, BackendName, BlobId, BucketName, CopyId, Crc64, LABEL_MAC_BYTES, LabelKey,
    ObjectHeaders, ObjectKey, VersionId,
};
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
    /// The first backend upload of a client's: all of the object, or a part of it where others follow.
    FirstUpload,
    /// A further backend upload of a client's, or one of several blobs that are copied: never all.
    PartOnly,
}

/// Where a label lies, and the key that proves it: one that is moved to another key or another backend
/// is not valid there.
#[derive(Clone, Copy)]
pub(crate) struct LabelPlace<'a> {
    pub(crate) label_key: &'a LabelKey,
    pub(crate) backend: &'a BackendName,
    pub(crate) key: &'a BackendKey,
}

impl<'a> LabelPlace<'a> {
    /// Everything that the code covers; no field but the last can hold a zero byte.
    fn covered(&self, said: &'a str) -> [&'a [u8]; 3] {
        [
            said.as_bytes(),
            self.backend.as_str().as_bytes(),
            self.key.as_str().as_bytes(),
        ]
    }
}

/// Why a stored object's label says nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LabelFault {
    /// There is none, or it is not one of this program.
    Absent,
    /// It was not written by this catalogue, or not for this place.
    Foreign {
        /// Which catalogue it names.
        catalogue: Uuid,
    },
}

/// Characters of a code in base64.
const MAC_TEXT_BYTES: usize = (LABEL_MAC_BYTES * 4).div_ceil(3);

/// Bytes of a label without the object's key.
const LABEL_BYTES: usize = 160;

impl Label {
    /// `FORMAT CATALOGUE BLOB VERSION ROLE CRC64 KEY MAC`, `-` where a field is absent.
    pub(crate) fn to_text(&self, place: LabelPlace<'_>) -> String {
        let role = match self.role {
            Role::Whole => "whole",
            Role::FirstUpload => "first",
            Role::PartOnly => "part",
        };
        let key_bytes = self.key.as_ref().map_or(0, |key| key.as_str().len());
        let mut text = String::with_capacity(LABEL_BYTES + (key_bytes * 4).div_ceil(3));
        let (catalogue, blob, version) = (self.catalogue.simple(), self.blob, self.version);
        let mut written = write!(text, "2 {catalogue} {blob} {version} {role} ");
        written = written.and_then(|()| match self.crc64 {
            Some(crc64) => write!(text, "{crc64:?} "),
            None => text.write_str("- "),
        });
        written.expect("a String takes all that is written to it");
        // base64 keeps a key of 1024 odd bytes within the providers' 2 KiB; percent-encoding does not.
        match &self.key {
            Some(key) => URL_SAFE_NO_PAD.encode_string(key.as_str(), &mut text),
            None => text.push('-'),
        }
        let mac = place.label_key.mac(&place.covered(&text));
        text.push(' ');
        URL_SAFE_NO_PAD.encode_string(mac, &mut text);
        text
    }

    pub(crate) fn parse(text: &str, place: LabelPlace<'_>) -> Result<Self, LabelFault> {
        let (label, proved) = Self::read(text, place).ok_or(LabelFault::Absent)?;
        match proved {
            true => Ok(label),
            false => Err(LabelFault::Foreign {
                catalogue: label.catalogue,
            }),
        }
    }

    /// What a text says, and whether its code is right.
    fn read(text: &str, place: LabelPlace<'_>) -> Option<(Self, bool)> {
        let (said, mac) = text.rsplit_once(' ')?;
        let mut fields = said.split(' ');
        if fields.next()? != "2" || mac.len() != MAC_TEXT_BYTES {
            return None;
        }
        let mac = URL_SAFE_NO_PAD.decode(mac).ok()?.try_into().ok()?;
        let catalogue = Uuid::parse_str(fields.next()?).ok()?;
        let blob = fields.next()?.parse().ok()?;
        let version = fields.next()?.parse().ok()?;
        let role = match fields.next()? {
            "whole" => Role::Whole,
            "first" => Role::FirstUpload,
            "part" => Role::PartOnly,
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
        let label = Self {
            catalogue,
            blob,
            version,
            role,
            crc64,
            key,
        };
        Some((label, place.label_key.verifies(&place.covered(said), &mac)))
    }
}

/// The headers and metadata that go to a backend with the bytes.
///
/// The row is authoritative: what a provider might refuse is left out here, namely values that are
/// not printable ASCII, and user metadata where the provider's limit would be exceeded.
pub(crate) fn put_meta(headers: &ObjectHeaders, label: &Label, place: LabelPlace<'_>) -> PutMeta {
    let printable = |value: &String| value.bytes().all(|byte| (0x20..0x7f).contains(&byte));
    let text = label.to_text(place);
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
pub(crate) fn label_of(
    headers: &ObjectHeaders,
    place: LabelPlace<'_>,
) -> Result<Label, LabelFault> {
    headers
        .user
        .iter()
        .find(|(name, _)| name == OWN_META)
        .map_or(Err(LabelFault::Absent), |(_, text)| {
            Label::parse(text, place)
        })
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
            role: Role::FirstUpload,
            crc64,
            key,
        };
        let odd: ObjectKey = "\u{1}".repeat(1024).parse().unwrap();
        let (label_key, backend, key) = place();
        let place = LabelPlace {
            label_key: &label_key,
            backend: &backend,
            key: &key,
        };
        for label in [label(None, None), label(Some(odd), Some(Crc64(9)))] {
            let text = label.to_text(place);
            let room = LABEL_BYTES + label.key.as_ref().map_or(0, |_| 1366);
            assert!(text.len() <= room, "one allocation is enough");
            assert!(text.len() + OWN_META.len() <= BACKEND_META_BYTES_MAX);
            assert_eq!(Label::parse(&text, place), Ok(label));
        }
        assert_eq!(Label::parse("2 whatever", place), Err(LabelFault::Absent));
    }

    fn place() -> (LabelKey, BackendName, BackendKey) {
        let key = BackendKey::new("photos/a~x").unwrap();
        (LabelKey::from_bytes([3; 32]), "disk".parse().unwrap(), key)
    }

    #[test]
    fn a_label_is_valid_as_it_was_written_and_where_it_was_written() {
        let (label_key, backend, key) = place();
        let place = LabelPlace {
            label_key: &label_key,
            backend: &backend,
            key: &key,
        };
        let label = Label {
            catalogue: Uuid::from_u128(5),
            blob: BlobId::from_bytes([1; 16]),
            version: VersionId::from_bytes([2; 16]),
            role: Role::FirstUpload,
            crc64: None,
            key: None,
        };
        let text = label.to_text(place);
        let foreign = Err(LabelFault::Foreign {
            catalogue: label.catalogue,
        });
        let moved = BackendKey::new("photos/b~x").unwrap();
        assert_eq!(
            Label::parse(
                &text,
                LabelPlace {
                    key: &moved,
                    ..place
                }
            ),
            foreign
        );
        let elsewhere = "cloud".parse().unwrap();
        let elsewhere = LabelPlace {
            backend: &elsewhere,
            ..place
        };
        assert_eq!(Label::parse(&text, elsewhere), foreign);
        let other = LabelKey::from_bytes([4; 32]);
        let other = LabelPlace {
            label_key: &other,
            ..place
        };
        assert_eq!(Label::parse(&text, other), foreign);
        assert_eq!(
            Label::parse(&text.replace("first", "whole"), place),
            foreign
        );
        let (said, _) = text.rsplit_once(' ').unwrap();
        assert_eq!(Label::parse(said, place), Err(LabelFault::Absent));
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
        let (label_key, backend, key) = place();
        let place = LabelPlace {
            label_key: &label_key,
            backend: &backend,
            key: &key,
        };
        let meta = put_meta(&headers, &label, place);
        assert_eq!(meta.headers.user.len(), 1);
        assert_eq!(meta.headers.content_type, None);
        assert_eq!(label_of(&meta.headers, place), Ok(label));
    }
}
