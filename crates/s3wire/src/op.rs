//! Which operation a request is, with its typed parameters.
//!
//! A target names the service, a bucket or an object, and each has its own closed list of
//! operations. Whatever is not in the lists is refused: an unknown sub-resource with
//! NotImplemented, an unknown method with MethodNotAllowed. Keys are what the wire says, decoded
//! once: `a//b`, `../x` and `%2F` stay as they are.

use base::{BucketName, ObjectKey, PartNumber, UploadId};
use http::{HeaderMap, Method};

use crate::headers::{self, CopyRange, CopySourceHeader};
use crate::name::{parse_bucket, parse_key};
use crate::query::Query;
use crate::{Error, ErrorCode, subresource};

mod params;

pub(crate) use params::number;
pub use params::{
    Encoding, FetchOwner, GetParams, LIST_ENTRIES_MAX, ListBuckets, ListObjectsV1, ListObjectsV2,
    ListParts, ListUploads, ListVersions, NamedVersion, ResponseOverrides, named_version,
};

/// What a request is about and what it wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// `GET /`
    Service(ListBuckets),
    /// `/bucket`
    Bucket(BucketName, BucketOp),
    /// `/bucket/key`
    Object(BucketName, ObjectKey, ObjectOp),
}

/// Operations on a bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BucketOp {
    /// `HEAD /bucket`
    HeadBucket,
    /// `GET /bucket?location`
    GetBucketLocation,
    /// `GET /bucket?versioning`
    GetBucketVersioning,
    /// `GET /bucket?acl`
    GetBucketAcl,
    /// `PUT /bucket?acl`
    PutBucketAcl,
    /// `GET /bucket?cors`
    GetBucketCors,
    /// `PUT /bucket`
    CreateBucket,
    /// `DELETE /bucket`
    DeleteBucket,
    /// `GET /bucket`
    ListObjectsV1(ListObjectsV1),
    /// `GET /bucket?list-type=2`
    ListObjectsV2(ListObjectsV2),
    /// `GET /bucket?versions`
    ListObjectVersions(ListVersions),
    /// `GET /bucket?uploads`
    ListMultipartUploads(ListUploads),
    /// `POST /bucket?delete`
    DeleteObjects,
    /// `POST /bucket` with a form
    PostObject,
}

/// Operations on an object or on an upload of its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ObjectOp {
    /// `GET /bucket/key`
    GetObject(GetParams),
    /// `HEAD /bucket/key`
    HeadObject(GetParams),
    /// `PUT /bucket/key`
    PutObject,
    /// `PUT /bucket/key` with `x-amz-copy-source`
    CopyObject(CopySourceHeader),
    /// `DELETE /bucket/key`
    DeleteObject,
    /// `POST /bucket/key?uploads`
    CreateMultipartUpload,
    /// `PUT /bucket/key?partNumber=N&uploadId=ID`
    UploadPart {
        /// The upload.
        upload_id: UploadId,
        /// The part's place.
        part: PartNumber,
    },
    /// `PUT /bucket/key?partNumber=N&uploadId=ID` with `x-amz-copy-source`
    UploadPartCopy(UploadPartCopy),
    /// `POST /bucket/key?uploadId=ID`
    CompleteMultipartUpload {
        /// The upload.
        upload_id: UploadId,
    },
    /// `DELETE /bucket/key?uploadId=ID`
    AbortMultipartUpload {
        /// The upload.
        upload_id: UploadId,
    },
    /// `GET /bucket/key?uploadId=ID`
    ListParts(ListParts),
    /// `GET /bucket/key?attributes`
    GetObjectAttributes,
    /// `GET /bucket/key?tagging`
    GetObjectTagging,
    /// `PUT /bucket/key?tagging`
    PutObjectTagging,
    /// `DELETE /bucket/key?tagging`
    DeleteObjectTagging,
    /// `GET /bucket/key?acl`
    GetObjectAcl,
    /// `PUT /bucket/key?acl`
    PutObjectAcl,
}

/// The parameters of UploadPartCopy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UploadPartCopy {
    /// The upload.
    pub upload_id: UploadId,
    /// The part's place.
    pub part: PartNumber,
    /// The object whose bytes become the part.
    pub source: CopySourceHeader,
    /// The bytes of it; all where absent.
    pub range: Option<CopyRange>,
}

impl Target {
    /// Recognises a request from its method, the path and query of its target in wire form, and
    /// the header that turns a PUT into a copy.
    pub fn parse(
        method: &Method,
        path: &str,
        query: Option<&str>,
        headers: &HeaderMap,
    ) -> Result<Self, Error> {
        let rest = path.strip_prefix('/').ok_or(ErrorCode::InvalidUri)?;
        if rest.is_empty() {
            return service(method, &Query::parse(query.unwrap_or(""))?);
        }
        let (bucket, key) = rest.split_once('/').unwrap_or((rest, ""));
        Self::within(parse_bucket(bucket)?, key, method, query, headers)
    }

    /// The same where the host has named the bucket already: the whole path is the key.
    pub fn parse_in(
        bucket: &str,
        method: &Method,
        path: &str,
        query: Option<&str>,
        headers: &HeaderMap,
    ) -> Result<Self, Error> {
        let bucket = bucket
            .parse()
            .map_err(|_| Error::from(ErrorCode::InvalidBucketName))?;
        let key = path.strip_prefix('/').ok_or(ErrorCode::InvalidUri)?;
        Self::within(bucket, key, method, query, headers)
    }

    fn within(
        bucket: BucketName,
        key: &str,
        method: &Method,
        query: Option<&str>,
        headers: &HeaderMap,
    ) -> Result<Self, Error> {
        let query = Query::parse(query.unwrap_or(""))?;
        if key.is_empty() {
            return Ok(Self::Bucket(bucket, bucket_op(method, &query)?));
        }
        let key = parse_key(key)?;
        Ok(Self::Object(
            bucket,
            key,
            object_op(method, &query, headers)?,
        ))
    }

    /// The bucket, where there is one.
    pub fn bucket(&self) -> Option<&BucketName> {
        match self {
            Self::Service(_) => None,
            Self::Bucket(bucket, _) | Self::Object(bucket, _, _) => Some(bucket),
        }
    }

    /// The key, where there is one.
    pub fn key(&self) -> Option<&ObjectKey> {
        match self {
            Self::Service(_) | Self::Bucket(_, _) => None,
            Self::Object(_, key, _) => Some(key),
        }
    }

    /// The operation's name, as the S3 API and (behind `s3.`) the audit events have it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Service(_) => "ListBuckets",
            Self::Bucket(_, op) => op.name(),
            Self::Object(_, _, op) => op.name(),
        }
    }
}

impl BucketOp {
    /// The operation's name.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::HeadBucket => "HeadBucket",
            Self::GetBucketLocation => "GetBucketLocation",
            Self::GetBucketVersioning => "GetBucketVersioning",
            Self::GetBucketAcl => "GetBucketAcl",
            Self::PutBucketAcl => "PutBucketAcl",
            Self::GetBucketCors => "GetBucketCors",
            Self::CreateBucket => "CreateBucket",
            Self::DeleteBucket => "DeleteBucket",
            Self::ListObjectsV1(_) => "ListObjectsV1",
            Self::ListObjectsV2(_) => "ListObjectsV2",
            Self::ListObjectVersions(_) => "ListObjectVersions",
            Self::ListMultipartUploads(_) => "ListMultipartUploads",
            Self::DeleteObjects => "DeleteObjects",
            Self::PostObject => "PostObject",
        }
    }
}

impl ObjectOp {
    /// The operation's name.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::GetObject(_) => "GetObject",
            Self::HeadObject(_) => "HeadObject",
            Self::PutObject => "PutObject",
            Self::CopyObject(_) => "CopyObject",
            Self::DeleteObject => "DeleteObject",
            Self::CreateMultipartUpload => "CreateMultipartUpload",
            Self::UploadPart { .. } => "UploadPart",
            Self::UploadPartCopy(_) => "UploadPartCopy",
            Self::CompleteMultipartUpload { .. } => "CompleteMultipartUpload",
            Self::AbortMultipartUpload { .. } => "AbortMultipartUpload",
            Self::ListParts(_) => "ListParts",
            Self::GetObjectAttributes => "GetObjectAttributes",
            Self::GetObjectTagging => "GetObjectTagging",
            Self::PutObjectTagging => "PutObjectTagging",
            Self::DeleteObjectTagging => "DeleteObjectTagging",
            Self::GetObjectAcl => "GetObjectAcl",
            Self::PutObjectAcl => "PutObjectAcl",
        }
    }
}

fn service(method: &Method, query: &Query<'_>) -> Result<Target, Error> {
    if method != Method::GET {
        return Err(ErrorCode::MethodNotAllowed.into());
    }
    subresource::check(query, &params::LIST_BUCKETS)?;
    Ok(Target::Service(ListBuckets::parse(query)?))
}

fn bucket_op(method: &Method, query: &Query<'_>) -> Result<BucketOp, Error> {
    let only = |op: BucketOp, modelled: &[&str]| subresource::check(query, modelled).map(|()| op);
    match *method {
        Method::HEAD => only(BucketOp::HeadBucket, &[]),
        Method::PUT if query.has("acl") => only(BucketOp::PutBucketAcl, &["acl"]),
        Method::PUT => only(BucketOp::CreateBucket, &[]),
        Method::DELETE => only(BucketOp::DeleteBucket, &[]),
        Method::POST if query.has("delete") => only(BucketOp::DeleteObjects, &["delete"]),
        Method::POST => only(BucketOp::PostObject, &[]),
        Method::GET if query.has("acl") => only(BucketOp::GetBucketAcl, &["acl"]),
        Method::GET if query.has("cors") => only(BucketOp::GetBucketCors, &["cors"]),
        Method::GET if query.has("location") => only(BucketOp::GetBucketLocation, &["location"]),
        Method::GET if query.has("versioning") => {
            only(BucketOp::GetBucketVersioning, &["versioning"])
        }
        Method::GET if query.has("versions") => {
            subresource::check(query, &params::LIST_VERSIONS)?;
            Ok(BucketOp::ListObjectVersions(ListVersions::parse(query)?))
        }
        Method::GET if query.has("uploads") => {
            subresource::check(query, &params::LIST_UPLOADS)?;
            Ok(BucketOp::ListMultipartUploads(ListUploads::parse(query)?))
        }
        Method::GET => list_objects(query),
        _ => Err(ErrorCode::MethodNotAllowed.into()),
    }
}

fn list_objects(query: &Query<'_>) -> Result<BucketOp, Error> {
    match query.value("list-type")? {
        None => {
            subresource::check(query, &params::LIST_V1)?;
            Ok(BucketOp::ListObjectsV1(ListObjectsV1::parse(query)?))
        }
        Some("2") => {
            subresource::check(query, &params::LIST_V2)?;
            Ok(BucketOp::ListObjectsV2(ListObjectsV2::parse(query)?))
        }
        Some(_) => Err(Error::argument("The list-type is not valid.")),
    }
}

/// Operations on something that belongs to an object, named by a parameter without a value.
fn subject_op(method: &Method, query: &Query<'_>) -> Option<(ObjectOp, &'static str)> {
    let op = |name: &'static str, op: ObjectOp| query.has(name).then_some((op, name));
    match *method {
        Method::GET => op("attributes", ObjectOp::GetObjectAttributes)
            .or_else(|| op("tagging", ObjectOp::GetObjectTagging))
            .or_else(|| op("acl", ObjectOp::GetObjectAcl)),
        Method::PUT => {
            op("tagging", ObjectOp::PutObjectTagging).or_else(|| op("acl", ObjectOp::PutObjectAcl))
        }
        Method::DELETE => op("tagging", ObjectOp::DeleteObjectTagging),
        _ => None,
    }
}

fn object_op(method: &Method, query: &Query<'_>, headers: &HeaderMap) -> Result<ObjectOp, Error> {
    if let Some((op, name)) = subject_op(method, query) {
        named_version(query)?;
        subresource::check(query, &[name, "versionId"])?;
        return Ok(op);
    }
    let in_upload = query.has("uploadId");
    match *method {
        Method::GET if in_upload => {
            subresource::check(query, &params::LIST_PARTS)?;
            Ok(ObjectOp::ListParts(ListParts::parse(query)?))
        }
        Method::GET => {
            subresource::check(query, &params::GET)?;
            Ok(ObjectOp::GetObject(GetParams::parse(query)?))
        }
        Method::HEAD => {
            subresource::check(query, &params::GET)?;
            Ok(ObjectOp::HeadObject(GetParams::parse(query)?))
        }
        Method::PUT => put_op(query, headers),
        Method::POST if query.has("uploads") => {
            subresource::check(query, &["uploads"])?;
            Ok(ObjectOp::CreateMultipartUpload)
        }
        Method::POST if in_upload => {
            subresource::check(query, &["uploadId"])?;
            Ok(ObjectOp::CompleteMultipartUpload {
                upload_id: params::upload_id(query)?,
            })
        }
        Method::POST => {
            subresource::check(query, &[])?;
            Err(ErrorCode::MethodNotAllowed.into())
        }
        Method::DELETE if in_upload => {
            subresource::check(query, &["uploadId"])?;
            Ok(ObjectOp::AbortMultipartUpload {
                upload_id: params::upload_id(query)?,
            })
        }
        Method::DELETE => {
            named_version(query)?;
            subresource::check(query, &["versionId"])?;
            Ok(ObjectOp::DeleteObject)
        }
        _ => Err(ErrorCode::MethodNotAllowed.into()),
    }
}

fn put_op(query: &Query<'_>, headers: &HeaderMap) -> Result<ObjectOp, Error> {
    subresource::check(query, &["partNumber", "uploadId"])?;
    let source = headers::copy_source(headers)?;
    let part = match (query.has("partNumber"), query.has("uploadId")) {
        (false, false) => None,
        (true, true) => Some((params::upload_id(query)?, params::part_number(query)?)),
        (true, false) | (false, true) => {
            return Err(Error::argument(
                "A PUT needs both partNumber and uploadId, or neither.",
            ));
        }
    };
    Ok(match (part, source) {
        (None, None) => ObjectOp::PutObject,
        (None, Some(source)) => ObjectOp::CopyObject(source),
        (Some((upload_id, part)), None) => ObjectOp::UploadPart { upload_id, part },
        (Some((upload_id, part)), Some(source)) => ObjectOp::UploadPartCopy(UploadPartCopy {
            upload_id,
            part,
            source,
            range: headers::copy_source_range(headers)?,
        }),
    })
}

#[cfg(test)]
mod tests;
