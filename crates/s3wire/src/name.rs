//! Names of buckets and keys in wire form.

use base::{BucketName, NameError, ObjectKey};

use crate::{Error, ErrorCode, uri};

/// Decodes a bucket name in wire form.
pub(crate) fn parse_bucket(wire: &str) -> Result<BucketName, Error> {
    let name = uri::decode(wire).map_err(|_| ErrorCode::InvalidUri)?;
    name.parse()
        .map_err(|_| ErrorCode::InvalidBucketName.into())
}

/// Decodes a key in wire form.
pub(crate) fn parse_key(wire: &str) -> Result<ObjectKey, Error> {
    let key = uri::decode(wire).map_err(|_| ErrorCode::InvalidUri)?;
    key.parse().map_err(key_error)
}

pub(crate) fn key_error(refused: NameError) -> Error {
    match refused {
        NameError::TooLong { .. } => ErrorCode::KeyTooLong.into(),
        NameError::Empty => Error::argument("A key must not be empty."),
        NameError::Forbidden { .. } | NameError::BadStart { .. } => {
            Error::argument("A key must not contain a NUL character.")
        }
    }
}
