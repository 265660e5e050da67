//! Headers that ask for something which is not built.
//!
//! They are answered with NotImplemented. Ignoring them would be worse than refusing: a client that
//! asks for encryption or for a lock believes afterwards that it has it.
//!
//! A value that asks for nothing is not refused, whatever its header is about: libraries send `false`,
//! `OFF` and the defaults without being asked. `x-amz-bypass-governance-retention` asks for nothing with
//! any value, because nothing is ever locked.

use base::ChecksumAlgorithm;
use http::HeaderMap;

/// Refused whatever they say.
const PREFIXES: [&str; 4] = [
    "x-amz-server-side-encryption",
    "x-amz-copy-source-server-side-encryption",
    "x-amz-object-lock-",
    "x-amz-grant-",
];
const NAMES: [&str; 7] = [
    "x-amz-if-match-initiated-time",
    "x-amz-if-match-last-modified-time",
    "x-amz-if-match-size",
    "x-amz-mfa",
    "x-amz-rename-source",
    "x-amz-website-redirect-location",
    "x-amz-write-offset-bytes",
];
/// Accepted with values that ask for nothing, or for what happens anyway.
const ONLY: [(&str, &[&str]); 8] = [
    // There is one owner, who has full control.
    (
        "x-amz-acl",
        &["private", "bucket-owner-full-control", "bucket-owner-read"],
    ),
    ("x-amz-bucket-namespace", &["global"]),
    // rclone since 1.74 sends it with every CreateBucket.
    ("x-amz-bucket-object-lock-enabled", NO),
    ("x-amz-object-lock-event-hold", &["OFF"]),
    ("x-amz-object-lock-legal-hold", &["OFF"]),
    ("x-amz-object-ownership", &["BucketOwnerEnforced"]),
    ("x-amz-server-side-encryption-bucket-key-enabled", NO),
    ("x-amz-storage-class", &["STANDARD"]),
];
/// How libraries write it.
const NO: &[&str] = &["false", "False", "FALSE"];

/// The first header of a request that asks for something which is not built.
///
/// `x-amz-request-payer` and `x-amz-expected-bucket-owner` are ignored: there is one payer and one
/// owner.
pub fn unsupported(headers: &HeaderMap) -> Option<&str> {
    headers
        .iter()
        .map(|(name, value)| (name.as_str(), value))
        .filter(|(name, _)| name.starts_with("x-amz-"))
        .find_map(|(name, value)| {
            let refused = match ONLY.iter().find(|(only, _)| name == *only) {
                Some((_, accepted)) => !accepted.iter().any(|one| value == one),
                None => {
                    PREFIXES.iter().any(|prefix| name.starts_with(prefix))
                        || NAMES.contains(&name)
                        || is_unknown_checksum(name)
                }
            };
            refused.then_some(name)
        })
}

/// Whether a checksum is declared whose algorithm is not known here: its client believes that the body
/// is compared with it.
fn is_unknown_checksum(name: &str) -> bool {
    name.strip_prefix("x-amz-checksum-").is_some_and(|rest| {
        !["mode", "algorithm", "type"].contains(&rest)
            && !ChecksumAlgorithm::ALL
                .iter()
                .any(|known| known.header() == name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(name: &'static str, value: &str) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert("x-amz-meta-a", "b".parse().unwrap());
        headers.insert(name, value.parse().unwrap());
        unsupported(&headers) == Some(name)
    }

    #[test]
    fn a_value_that_asks_for_nothing_is_not_refused() {
        for (name, value) in [
            // rclone 1.75.2, CreateBucket before its first upload, seen 2026-12-01.
            ("x-amz-bucket-object-lock-enabled", "false"),
            ("x-amz-bucket-object-lock-enabled", "False"),
            // s5cmd and minio-go, deletes.
            ("x-amz-bypass-governance-retention", "true"),
            ("x-amz-bypass-governance-retention", "false"),
            ("x-amz-object-lock-legal-hold", "OFF"),
            ("x-amz-object-lock-event-hold", "OFF"),
            ("x-amz-server-side-encryption-bucket-key-enabled", "false"),
            ("x-amz-acl", "bucket-owner-read"),
            ("x-amz-bucket-namespace", "global"),
        ] {
            assert!(!refused(name, value), "{name}: {value}");
        }
        for (name, value) in [
            ("x-amz-bucket-object-lock-enabled", "true"),
            ("x-amz-bucket-object-lock-enabled", ""),
            ("x-amz-object-lock-legal-hold", "ON"),
            ("x-amz-object-lock-event-hold", "ON"),
            ("x-amz-object-lock-event-hold-duration-days", "1"),
            ("x-amz-server-side-encryption-bucket-key-enabled", "true"),
            ("x-amz-bucket-namespace", "account-regional"),
        ] {
            assert!(refused(name, value), "{name}: {value}");
        }
    }

    #[test]
    fn what_is_not_built_is_named() {
        for (name, value) in [
            ("x-amz-server-side-encryption", "AES256"),
            ("x-amz-server-side-encryption-customer-algorithm", "AES256"),
            ("x-amz-copy-source-server-side-encryption-customer-key", "k"),
            ("x-amz-object-lock-mode", "GOVERNANCE"),
            ("x-amz-website-redirect-location", "/"),
            ("x-amz-acl", "public-read"),
            ("x-amz-grant-read", "id=1"),
            ("x-amz-storage-class", "GLACIER"),
            ("x-amz-object-ownership", "ObjectWriter"),
            ("x-amz-mfa", "1 2"),
            ("x-amz-checksum-xxhash128", "AAAA"),
            ("x-amz-write-offset-bytes", "0"),
        ] {
            assert!(refused(name, value), "{name}");
        }
        for (name, value) in [
            ("x-amz-acl", "private"),
            ("x-amz-acl", "bucket-owner-full-control"),
            ("x-amz-checksum-crc32", "AAAAAA=="),
            ("x-amz-checksum-mode", "ENABLED"),
            ("x-amz-checksum-type", "COMPOSITE"),
            ("x-amz-storage-class", "STANDARD"),
            ("x-amz-object-ownership", "BucketOwnerEnforced"),
            ("x-amz-request-payer", "requester"),
            ("x-amz-expected-bucket-owner", "1"),
            ("x-amz-checksum-mode", "ENABLED"),
            ("if-none-match", "*"),
        ] {
            assert!(!refused(name, value), "{name}");
        }
    }
}
