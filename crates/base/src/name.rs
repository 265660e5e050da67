//! Names as clients and operators write them.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// The longest object key in bytes of UTF-8.
///
/// Source: Amazon S3 user guide, "Naming Amazon S3 objects".
pub const KEY_BYTES_MAX: usize = 1024;

const BUCKET_BYTES_MAX: usize = 255;
const BACKEND_BYTES_MAX: usize = 128;

/// Why a name was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// A name needs at least one byte.
    #[error("the name is empty")]
    Empty,
    /// The name is longer than its kind allows.
    #[error("the name has {bytes} bytes, at most {max} are allowed")]
    TooLong {
        /// Length of the refused name.
        bytes: usize,
        /// The limit that it exceeds.
        max: usize,
    },
    /// A character that this kind of name cannot hold.
    #[error("the name contains {found:?}, which is not allowed here")]
    Forbidden {
        /// The first refused character.
        found: char,
    },
    /// The first character is not allowed to begin a name of this kind.
    #[error("the name begins with {found:?}, which is not allowed here")]
    BadStart {
        /// The refused first character.
        found: char,
    },
}

fn check_length(name: &str, max: usize) -> Result<(), NameError> {
    match name.len() {
        0 => Err(NameError::Empty),
        bytes if bytes > max => Err(NameError::TooLong { bytes, max }),
        _ => Ok(()),
    }
}

/// What belongs to one request is shared by its parts; what all requests name is copied, so that
/// threads do not count the references of one and the same text.
macro_rules! text_name {
    ($(#[$doc:meta])* $name:ident($text:ty), $check:path) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name($text);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                $check(text)?;
                Ok(Self(text.into()))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &self.0)
            }
        }
    };
}

text_name!(
    /// A virtual bucket as clients address it.
    ///
    /// More liberal than Amazon's rules, because existing configurations use names such as
    /// `bu_cket`: 1 to 255 bytes, no `/`, no control characters, and no dot at the beginning (keys
    /// below `.s3o` on a backend are ours). Stricter rules for new buckets belong to CreateBucket.
    BucketName(Arc<str>),
    check_bucket
);

text_name!(
    /// One configured storage backend: 1 to 128 printable characters without `/`.
    BackendName(Box<str>),
    check_backend
);

text_name!(
    /// The key of an object exactly as the client sent it, after percent-decoding.
    ///
    /// 1 to 1024 bytes of UTF-8 without NUL. Everything else is legal and kept: empty components,
    /// `..`, `%2F`, control characters. Ordering is that of the UTF-8 bytes, as in S3 listings.
    ObjectKey(Arc<str>),
    check_key
);

/// A key on a backend: 1 to 1024 bytes of UTF-8 without NUL, made by the engine or found there.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BackendKey(Arc<str>);

impl BackendKey {
    /// Takes a key; `None` where it is empty, longer than 1024 bytes or contains NUL.
    pub fn new(key: &str) -> Option<Self> {
        let legal = (1..=KEY_BYTES_MAX).contains(&key.len()) && !key.contains('\0');
        legal.then(|| Self(key.into()))
    }

    /// The key.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for BackendKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for BackendKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &self.0)
    }
}

fn check_bucket(name: &str) -> Result<(), NameError> {
    check_length(name, BUCKET_BYTES_MAX)?;
    if let Some(found) = name.chars().find(|c| c.is_control() || *c == '/') {
        return Err(NameError::Forbidden { found });
    }
    match name.chars().next() {
        Some('.') => Err(NameError::BadStart { found: '.' }),
        _ => Ok(()),
    }
}

fn check_backend(name: &str) -> Result<(), NameError> {
    check_length(name, BACKEND_BYTES_MAX)?;
    match name.chars().find(|c| c.is_control() || *c == '/') {
        Some(found) => Err(NameError::Forbidden { found }),
        None => Ok(()),
    }
}

fn check_key(key: &str) -> Result<(), NameError> {
    check_length(key, KEY_BYTES_MAX)?;
    match key.contains('\0') {
        true => Err(NameError::Forbidden { found: '\0' }),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_keep_every_byte_but_nul() {
        for key in ["a", "a//b", "../x", "%2F", "a\u{1}\n", " ", "ä"] {
            assert_eq!(key.parse::<ObjectKey>().unwrap().as_str(), key);
        }
        assert_eq!(
            "a\0".parse::<ObjectKey>(),
            Err(NameError::Forbidden { found: '\0' })
        );
        assert_eq!("".parse::<ObjectKey>(), Err(NameError::Empty));
        assert!("k".repeat(1024).parse::<ObjectKey>().is_ok());
        assert_eq!(
            "k".repeat(1025).parse::<ObjectKey>(),
            Err(NameError::TooLong {
                bytes: 1025,
                max: 1024
            })
        );
    }

    #[test]
    fn a_bucket_cannot_reach_our_own_prefix() {
        assert_eq!(
            ".s3o".parse::<BucketName>(),
            Err(NameError::BadStart { found: '.' })
        );
        assert_eq!(
            "a/b".parse::<BucketName>(),
            Err(NameError::Forbidden { found: '/' })
        );
        assert!("bu_cket".parse::<BucketName>().is_ok());
    }
}
