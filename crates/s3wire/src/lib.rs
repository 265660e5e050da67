//! The S3 protocol as pure functions: bytes and headers in, values of `base` out, and back.
//!
//! The front end uses it to verify signatures, to parse requests and to render responses; the
//! client for S3 backends uses it to sign, to build request bodies and to parse responses. Nothing
//! here does I/O, waits, or reads a clock: time comes in as an argument.

mod bucket_name;
pub mod chunked;
mod code;
mod date;
pub mod form;
pub mod headers;
mod name;
mod op;
mod query;
pub mod sigv2;
pub mod sigv4;
mod subresource;
pub mod uri;
pub mod xml;

pub use bucket_name::is_bucket_name_of_s3;
pub use code::{Error, ErrorCode};
pub use date::{http_date, iso8601, parse_http_date, parse_iso8601};
pub use op::{
    BucketOp, Encoding, FetchOwner, GetParams, LIST_ENTRIES_MAX, ListBuckets, ListObjectsV1,
    ListObjectsV2, ListParts, ListUploads, ListVersions, NamedVersion, ObjectOp, ResponseOverrides,
    Target, UploadPartCopy, named_version,
};
pub use query::Query;
