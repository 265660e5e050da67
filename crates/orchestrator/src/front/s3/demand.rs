//! What a credential must be allowed for each operation.

use base::BucketName;
use s3wire::{BucketOp, Error, ErrorCode, ObjectOp};

use super::super::access::Rights;
use crate::config::Verb;

/// What an operation on a bucket demands.
pub(super) fn on_bucket(rights: &Rights, bucket: &BucketName, op: &BucketOp) -> Result<(), Error> {
    let allowed = match op {
        // They tell nothing that a caller with any right in the bucket does not know.
        BucketOp::HeadBucket
        | BucketOp::GetBucketLocation
        | BucketOp::GetBucketVersioning
        | BucketOp::GetBucketAcl
        | BucketOp::PutBucketAcl
        | BucketOp::GetBucketCors
        | BucketOp::CreateBucket => rights.reach(bucket),
        BucketOp::DeleteBucket => rights.are_all(),
        BucketOp::ListObjectsV1(params) => rights.allow(Verb::List, bucket, &params.prefix),
        BucketOp::ListObjectsV2(params) => rights.allow(Verb::List, bucket, &params.prefix),
        BucketOp::ListObjectVersions(params) => rights.allow(Verb::List, bucket, &params.prefix),
        BucketOp::ListMultipartUploads(params) => rights.allow(Verb::List, bucket, &params.prefix),
        // Each key is looked at by itself.
        BucketOp::DeleteObjects => rights.allow_some(Verb::Delete, bucket),
        BucketOp::PostObject => rights.allow_some(Verb::Write, bucket),
    };
    granted(allowed)
}

/// What an operation on an object demands.
pub(super) fn on_object(
    rights: &Rights,
    bucket: &BucketName,
    key: &str,
    op: &ObjectOp,
) -> Result<(), Error> {
    let verb = match op {
        ObjectOp::GetObject(_)
        | ObjectOp::HeadObject(_)
        | ObjectOp::GetObjectAttributes
        | ObjectOp::GetObjectAcl => Verb::Read,
        ObjectOp::PutObject
        | ObjectOp::CopyObject(_)
        | ObjectOp::CreateMultipartUpload
        | ObjectOp::UploadPart { .. }
        | ObjectOp::UploadPartCopy(_)
        | ObjectOp::CompleteMultipartUpload { .. }
        | ObjectOp::AbortMultipartUpload { .. }
        | ObjectOp::ListParts(_)
        | ObjectOp::PutObjectAcl => Verb::Write,
        ObjectOp::DeleteObject => Verb::Delete,
        ObjectOp::GetObjectTagging | ObjectOp::PutObjectTagging | ObjectOp::DeleteObjectTagging => {
            Verb::Tags
        }
    };
    granted(rights.allow(verb, bucket, key))
}

pub(super) fn granted(allowed: bool) -> Result<(), Error> {
    match allowed {
        true => Ok(()),
        false => Err(ErrorCode::AccessDenied.into()),
    }
}
