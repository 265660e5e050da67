//! The XML documents of S3, one file per document.
//!
//! Documents are written by hand and read through a bounded tree: size, depth and number of
//! elements have limits, document types and entities of one's own are refused. Elements that are
//! not known are passed over, namespaces are not looked at.

mod acl;
mod attributes;
mod bucket;
mod buckets;
mod complete;
mod copy;
mod cors;
mod delete;
mod error;
mod objects;
mod parts;
mod post;
mod read;
mod tagging;
mod uploads;
mod versions;
mod write;

pub use acl::{ACL_BODY_BYTES_MAX, check_private_acl, print_private_acl};
pub use attributes::{AttributedParts, ObjectAttributes, PartsWithChecksums};
pub use bucket::{
    BucketConfiguration, CREATE_BUCKET_BYTES_MAX, VersioningStatus, parse_create_bucket,
    parse_versioning, print_location, print_versioning,
};
pub use buckets::{BucketEntry, BucketList};
pub use complete::{
    COMPLETE_BODY_BYTES_MAX, CompletePart, CompleteResult, parse_complete, print_complete,
};
pub use copy::{CopyResult, CopyRoot};
pub use cors::{CorsRule, print_cors};
pub use delete::{
    DELETE_BODY_BYTES_MAX, DELETE_KEYS_MAX, Delete, DeleteFailure, DeleteItem, DeleteResult,
    Deleted,
};
pub use error::{ErrorDocument, LateResponse};
pub use objects::{ObjectEntry, ObjectsPageV1, ObjectsPageV2};
pub use parts::{PartEntry, PartsPage};
pub use post::PostResponse;
pub use read::{ID_BYTES_MAX, RESPONSE_BYTES_MAX, TOKEN_BYTES_MAX, XmlError};
pub use tagging::{TAGGING_BODY_BYTES_MAX, parse_tagging, print_tagging};
pub use uploads::{UploadEntry, UploadStarted, UploadsPage};
pub use versions::{NullVersionsPage, VersionEntry, VersionKind, VersionsPage};
pub use write::{DECLARATION, OWNER_ID};

#[cfg(test)]
mod tests;
