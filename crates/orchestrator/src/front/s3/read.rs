//! GetObject and HeadObject.

use base::{ByteRange, ETag, ETagCondition, ObjectKey};
use engine::catalogue::ObjectRecord;
use engine::{Chosen, Looked, ReadRequest, Selection};
use http::header::{ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, IF_RANGE, RANGE};
use http::{HeaderMap, HeaderName, HeaderValue};
use s3wire::headers::{self, ChecksumMode, ObjectChecksum};
use s3wire::{Error, ErrorCode, GetParams};

use super::super::access::Proof;
use super::super::render::{Answer, Failure, Success, put_validators};
use super::super::reply::Content;
use super::{Call, decimal, put_checksum, put_checksum_kind};

/// The type of objects that were stored without one.
const DEFAULT_TYPE: HeaderValue = HeaderValue::from_static("binary/octet-stream");

/// What most answers get by with: seven that are always there, a checksum, a few of the client's.
const HEADERS_USUAL: usize = 12;

impl Call<'_> {
    pub(super) async fn get(self, key: ObjectKey, params: &GetParams) -> Result<Answer, Failure> {
        let request = self.read_request(key, params).await?;
        let mode = headers::checksum_mode(&self.headers)?;
        let reading = self.front.engine.read(&request).await?;
        let mut answer = describe(&reading.object, reading.chosen, params, mode)?;
        let missing = reading.chosen.range.length;
        if missing > 0 {
            answer.content = Content::Object {
                stream: reading.body,
                missing,
            };
        }
        Ok(answer)
    }

    pub(super) async fn head(self, key: ObjectKey, params: &GetParams) -> Result<Answer, Failure> {
        let request = self.read_request(key, params).await?;
        let mode = headers::checksum_mode(&self.headers)?;
        let looked = self.front.engine.look(&request).await?;
        Ok(describe(&looked.object, looked.chosen, params, mode)?)
    }

    async fn read_request(
        &self,
        key: ObjectKey,
        params: &GetParams,
    ) -> Result<ReadRequest, Failure> {
        if params.overrides.standard().next().is_some() && self.proof != Proof::Signature {
            return Err(Error::new(
                ErrorCode::InvalidRequest,
                "Response headers can be overridden by signed requests only.",
            )
            .into());
        }
        let selection = match (params.part, headers::range(&self.headers)) {
            (Some(_), _) if self.headers.contains_key(RANGE) => {
                return Err(Error::new(
                    ErrorCode::InvalidRequest,
                    "Cannot specify both Range header and partNumber query parameter",
                )
                .into());
            }
            (Some(part), _) => Selection::Part(u32::from(part.get())),
            (None, Some(range)) => Selection::Range(range),
            (None, None) => Selection::All,
        };
        let conditions = headers::conditions(&self.headers)?;
        let request = ReadRequest {
            bucket: self.bucket.id,
            key,
            selection,
            conditions,
        };
        self.apply_if_range(request).await
    }

    /// `If-Range`: the range counts only for the version that the client has begun to download.
    async fn apply_if_range(&self, mut request: ReadRequest) -> Result<ReadRequest, Failure> {
        let Some(value) = self.headers.get(IF_RANGE) else {
            return Ok(request);
        };
        if !matches!(request.selection, Selection::Range(_)) {
            return Ok(request);
        }
        let whole = ReadRequest {
            selection: Selection::All,
            ..request.clone()
        };
        let Looked { object, .. } = self.front.engine.look(&whole).await?;
        match value.to_str() {
            Ok(tag) if tag.starts_with('"') && ETag::new(tag) == object.etag => {
                // Should the object be replaced in between, the answer is 412: never a mixture.
                if request.conditions.if_match.is_none() {
                    request.conditions.if_match = Some(ETagCondition::Tags(vec![object.etag]));
                }
                Ok(request)
            }
            // A weak tag or a date proves nothing about bytes: RFC 9110 section 13.1.5.
            Ok(_) | Err(_) => Ok(whole),
        }
    }
}

/// The head of an answer; its content is left to the caller.
fn describe(
    object: &ObjectRecord,
    chosen: Chosen,
    params: &GetParams,
    mode: ChecksumMode,
) -> Result<Answer, Error> {
    let mut headers = HeaderMap::with_capacity(HEADERS_USUAL);
    headers::show_object_headers(&object.headers, &mut headers);
    headers.entry(CONTENT_TYPE).or_insert(DEFAULT_TYPE);
    for (name, value) in params.overrides.standard() {
        let value = HeaderValue::from_bytes(value.as_bytes()).map_err(|_| {
            Error::new(
                ErrorCode::InvalidArgument,
                format!("response-{name} is not a header value."),
            )
        })?;
        headers.insert(HeaderName::from_static(name), value);
    }
    put_validators(&mut headers, &object.etag, object.last_modified);
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(CONTENT_LENGTH, decimal(chosen.range.length));
    if let Some(part) = chosen.part {
        headers.insert("x-amz-mp-parts-count", decimal(part.count));
    }
    if !object.tags.is_empty() {
        headers.insert("x-amz-tagging-count", HeaderValue::from(object.tags.len()));
    }
    if mode == ChecksumMode::Include {
        show_checksum(&mut headers, object, chosen);
    }
    let mut success = Success::Whole;
    if chosen.partial && chosen.range.length > 0 {
        success = Success::Partial;
        let value = headers::print_content_range(chosen.range, object.size);
        let value = HeaderValue::try_from(value).expect("digits are a header value");
        headers.insert(CONTENT_RANGE, value);
    }
    Ok(Answer {
        success,
        headers,
        content: Content::Empty,
    })
}

/// A part has the checksum that it was uploaded with. That of the whole object goes with the whole
/// object only: a range has none.
fn show_checksum(headers: &mut HeaderMap, object: &ObjectRecord, chosen: Chosen) {
    let Some(stored) = &object.checksum else {
        return;
    };
    match chosen.part {
        Some(part) => {
            let Some(checksum) = part.checksum else {
                return;
            };
            let parts = None;
            headers::insert_checksum(headers, &ObjectChecksum { checksum, parts });
            put_checksum_kind(headers, stored.kind);
        }
        None if chosen.range == ByteRange::whole(object.size) => {
            put_checksum(headers, stored, object.parts);
        }
        None => {}
    }
}
