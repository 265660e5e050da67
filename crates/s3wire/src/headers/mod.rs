//! Headers of requests and responses, parsed and printed.
//!
//! A header that changes the meaning of a request is either understood, or refused by
//! [`unsupported`]; none is silently dropped. Where HTTP says that a malformed header is to be
//! ignored (ranges, dates in conditions), it is.

mod attributes;
mod condition;
mod copy;
mod integrity;
mod object;
mod range;
mod tagging;
mod unsupported;

pub use attributes::{AttributesRequest, attributes_request};
pub use condition::{condition_on_trial, conditions, copy_conditions, write_precondition};
pub use copy::{
    CopyRange, CopySourceHeader, MetadataDirective, copy_source, copy_source_range,
    metadata_directive, print_copy_source,
};
pub use integrity::{
    BodyClaims, ChecksumMode, ObjectChecksum, UploadChecksum, body_claims, checksum_mode,
    complete_claim, copy_checksum, insert_checksum, object_checksums, upload_checksum,
};
pub(crate) use integrity::{NOT_BUILT, not_built, parse_object_checksum};
pub use object::{object_headers, put_object_headers, show_object_headers, stored_headers};
pub use range::{ContentRange, content_range, print_content_range, print_range, range};
pub(crate) use tagging::tag_error;
pub use tagging::{TaggingDirective, tagging, tagging_directive};
pub use unsupported::unsupported;

use base::{ETag, Timestamp};
use http::HeaderMap;
use http::header::{ETAG, LAST_MODIFIED};

use crate::Error;
use crate::date::parse_http_date;

/// The entity tag of a response.
pub fn etag(headers: &HeaderMap) -> Option<ETag> {
    let tag = ETag::new(headers.get(ETAG)?.to_str().ok()?);
    (!tag.as_str().is_empty()).then_some(tag)
}

/// The `Last-Modified` of a response.
pub fn last_modified(headers: &HeaderMap) -> Option<Timestamp> {
    parse_http_date(headers.get(LAST_MODIFIED)?.to_str().ok()?)
}

/// A header that may be there once and must be text; surrounding blanks are dropped.
pub(crate) fn single<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a str>, Error> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() {
        return Err(Error::argument(format!(
            "The header {name} is given more than once."
        )));
    }
    match value.to_str() {
        Ok(text) => Ok(Some(text.trim())),
        Err(_) => Err(Error::argument(format!(
            "The header {name} is not plain text."
        ))),
    }
}
