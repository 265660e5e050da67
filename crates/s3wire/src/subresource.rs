//! Which query parameters an operation may carry.
//!
//! Denied by default: a parameter that names an S3 sub-resource, or stands there without a value,
//! asks for an operation. Where that operation is not modelled the answer is 501; ignoring it would
//! turn `PUT /bucket/key?acl` into an overwrite of the object.

use crate::query::Query;
use crate::{Error, ErrorCode};

/// Parameters that select an S3 operation or a version. Source: Amazon S3 API reference, the request
/// syntax of all operations of the API version 2006-03-01.
const SUBRESOURCES: [&str; 44] = [
    "abac",
    "accelerate",
    "acl",
    "analytics",
    "annotation",
    "attributes",
    "cors",
    "delete",
    "encryption",
    "intelligent-tiering",
    "inventory",
    "legal-hold",
    "lifecycle",
    "location",
    "logging",
    "metadataConfiguration",
    "metadataInventoryTable",
    "metadataJournalTable",
    "metadataTable",
    "metrics",
    "notification",
    "object-lock",
    "ownershipControls",
    "partNumber",
    "policy",
    "policyStatus",
    "publicAccessBlock",
    "renameObject",
    "replication",
    "requestPayment",
    "restore",
    "retention",
    "select",
    "select-type",
    "session",
    "tagging",
    "torrent",
    "uploadId",
    "uploads",
    "version-id-marker",
    "versionId",
    "versioning",
    "versions",
    "website",
];

/// Refuses a query that asks for more than the operation which was recognised.
///
/// `modelled` names the parameters that the operation understands. The ones of signatures and
/// headers, `x-id`, and unknown names with a value are passed over, as S3 does.
pub(crate) fn check(query: &Query<'_>, modelled: &[&str]) -> Result<(), Error> {
    for parameter in query.parameters() {
        let name = parameter.name.as_ref();
        if modelled.contains(&name) || name == "x-id" {
            continue;
        }
        if starts_with(name, "x-amz-copy-source") {
            // As a header in disguise it would come too late to make a copy of the request.
            return Err(Error::not_implemented("A copy source in the query"));
        }
        let bare = parameter.value.as_deref().unwrap_or("").is_empty();
        let header = name
            .get(..6)
            .is_some_and(|start| start.eq_ignore_ascii_case("x-amz-"));
        if SUBRESOURCES.contains(&name) || (bare && !header) {
            return Err(Error::new(
                ErrorCode::NotImplemented,
                format!("The query parameter {name:?} is not implemented here."),
            ));
        }
    }
    Ok(())
}

fn starts_with(name: &str, start: &str) -> bool {
    name.get(..start.len())
        .is_some_and(|found| found.eq_ignore_ascii_case(start))
}
