//! Which names a client may give to a new bucket.

use std::net::Ipv4Addr;

use base::BucketName;

/// Shortest and longest name, in bytes.
const BYTES_MIN: usize = 3;
const BYTES_MAX: usize = 63;

const PREFIXES: [&str; 3] = ["xn--", "sthree-", "amzn-s3-demo-"];
const SUFFIXES: [&str; 5] = ["-s3alias", "--ola-s3", ".mrap", "--x-s3", "--table-s3"];

/// Whether S3 would take the name for a new bucket. Buckets of the configuration may be named more
/// freely: they have come from elsewhere.
///
/// Source: Amazon S3 user guide, "General purpose bucket naming rules".
pub fn is_bucket_name_of_s3(name: &BucketName) -> bool {
    let name = name.as_str();
    let end =
        |byte: Option<&u8>| byte.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let bytes = name.as_bytes();
    (BYTES_MIN..=BYTES_MAX).contains(&bytes.len())
        && bytes
            .iter()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-'))
        && end(bytes.first())
        && end(bytes.last())
        && !name.contains("..")
        && name.parse::<Ipv4Addr>().is_err()
        && !PREFIXES.iter().any(|prefix| name.starts_with(prefix))
        && !SUFFIXES.iter().any(|suffix| name.ends_with(suffix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rules_of_s3_hold() {
        let fits = |name: &str| is_bucket_name_of_s3(&name.parse().unwrap());
        let long = "a".repeat(63);
        for name in ["abc", "a-b.c1", "1x2", "3.4.5", long.as_str()] {
            assert!(fits(name), "{name}");
        }
        let longer = "a".repeat(64);
        for name in [
            "ab",
            "Abc",
            "a_b",
            "-ab",
            "ab-",
            "a.b.",
            "a..b",
            "192.168.0.1",
            "xn--abc",
            "a\u{fc}b",
            "abc-s3alias",
            "abc--x-s3",
            longer.as_str(),
        ] {
            assert!(!fits(name), "{name}");
        }
    }
}
