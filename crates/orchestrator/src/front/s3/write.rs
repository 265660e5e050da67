//! PutObject.

use base::{ETag, ObjectKey};
use engine::PutRequest;
use engine::catalogue::StoredChecksum;
use http::header::ETAG;
use http::{HeaderMap, HeaderValue};
use s3wire::headers;

use super::super::render::{Answer, Failure};
use super::{Call, put_checksum};
use crate::telemetry::metrics::Metrics;

impl Call<'_> {
    pub(super) async fn put(self, key: ObjectKey) -> Result<Answer, Failure> {
        let precondition = self.precondition(&key)?;
        let request = PutRequest {
            bucket: self.bucket.id,
            tags: self.given_tags(&key)?,
            key,
            headers: headers::object_headers(&self.headers)?,
            precondition,
        };
        let body = self.body.into_incoming(&self.headers)?;
        let written = self.front.engine.put(request, body).await;
        let written =
            written.map_err(|error| refused_early(&self.front.telemetry.metrics, error))?;
        Ok(Answer::empty(stored(
            &written.etag,
            written.checksum.as_ref(),
        )))
    }
}

/// Counts a write that found no room.
pub(super) fn refused_early(metrics: &Metrics, error: engine::Error) -> engine::Error {
    if matches!(error, engine::Error::NoRoom { .. }) {
        metrics.early_rejections.inc([]);
    }
    error
}

/// The head of an answer to bytes that were stored.
pub(super) fn stored(etag: &ETag, checksum: Option<&StoredChecksum>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(
        ETAG,
        HeaderValue::try_from(etag.quoted()).expect("an MD5 is a header value"),
    );
    if let Some(checksum) = checksum {
        put_checksum(&mut headers, checksum, None);
    }
    headers
}
