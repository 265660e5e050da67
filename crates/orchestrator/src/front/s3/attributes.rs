//! What belongs to an object besides its bytes: tags, attributes, its access control list.

use base::{ObjectKey, Tags};
use engine::catalogue::{ObjectPart, ObjectRecord};
use http::header::LAST_MODIFIED;
use http::{HeaderMap, HeaderValue};
use s3wire::headers::{self, AttributesRequest};
use s3wire::xml::{
    ACL_BODY_BYTES_MAX, AttributedParts, ObjectAttributes, PartsWithChecksums,
    TAGGING_BODY_BYTES_MAX, check_private_acl, parse_tagging, print_private_acl, print_tagging,
};
use s3wire::{Error, ErrorCode};

use super::super::render::{Answer, Failure};
use super::{Call, object_checksum};

impl Call<'_> {
    pub(super) async fn get_tags(self, key: &ObjectKey) -> Result<Answer, Failure> {
        let tags = self.front.engine.tags(self.bucket.id, key).await?;
        Ok(Answer::xml(print_tagging(&tags)))
    }

    pub(super) async fn put_tags(self, key: ObjectKey) -> Result<Answer, Failure> {
        let (body, _) = self
            .body
            .read_whole(&self.headers, TAGGING_BODY_BYTES_MAX)
            .await?;
        let tags = parse_tagging(&body)?;
        self.front
            .engine
            .set_tags(self.bucket.id, key, tags)
            .await?;
        Ok(Answer::empty(HeaderMap::new()))
    }

    pub(super) async fn delete_tags(self, key: ObjectKey) -> Result<Answer, Failure> {
        let none = Tags::default();
        self.front
            .engine
            .set_tags(self.bucket.id, key, none)
            .await?;
        Ok(Answer::silent())
    }

    pub(super) async fn attributes(self, key: &ObjectKey) -> Result<Answer, Failure> {
        let wanted = headers::attributes_request(&self.headers)?;
        let conditions = headers::conditions(&self.headers)?;
        // One more tells whether there are more.
        let page = (wanted.marker, wanted.max_parts + 1);
        let engine = &self.front.engine;
        let (object, parts) = engine
            .attributes(self.bucket.id, key, &conditions, page)
            .await?;
        let document = show(&object, parts, wanted).to_xml();
        let mut answer = Answer::xml(document);
        let modified = HeaderValue::try_from(s3wire::http_date(object.last_modified));
        let modified = modified.expect("a date is a header value");
        answer.headers.insert(LAST_MODIFIED, modified);
        Ok(answer)
    }

    pub(super) async fn get_object_acl(self, key: &ObjectKey) -> Result<Answer, Failure> {
        self.front.engine.tags(self.bucket.id, key).await?;
        Ok(Self::get_acl())
    }

    pub(super) async fn put_object_acl(self, key: &ObjectKey) -> Result<Answer, Failure> {
        self.front.engine.tags(self.bucket.id, key).await?;
        self.put_acl().await
    }

    /// The one list that everything has.
    pub(super) fn get_acl() -> Answer {
        Answer::xml(print_private_acl())
    }

    /// Takes what changes nothing: the list that holds anyway, by name or in full. Any other name was
    /// refused with the headers.
    pub(super) async fn put_acl(self) -> Result<Answer, Failure> {
        let named = self.headers.contains_key("x-amz-acl");
        let (body, _) = self
            .body
            .read_whole(&self.headers, ACL_BODY_BYTES_MAX)
            .await?;
        match (named, body.is_empty()) {
            (true, true) => {}
            (false, false) => check_private_acl(&body)?,
            (true, false) => {
                let message = "A list is given by name or in full, not both.";
                return Err(Error::new(ErrorCode::InvalidRequest, message).into());
            }
            (false, true) => return Err(ErrorCode::MissingSecurityHeader.into()),
        }
        Ok(Answer::empty(HeaderMap::new()))
    }
}

fn show(
    object: &ObjectRecord,
    mut parts: Vec<ObjectPart>,
    wanted: AttributesRequest,
) -> ObjectAttributes {
    let max = usize::try_from(wanted.max_parts).unwrap_or(usize::MAX);
    let truncated = parts.len() > max && max > 0;
    parts.truncate(max);
    let with_checksums = parts.iter().any(|part| part.checksum.is_some());
    let next = parts.last().map(|part| part.number);
    let page = PartsWithChecksums {
        marker: wanted.marker,
        next_marker: next.filter(|_| truncated),
        max_parts: wanted.max_parts,
        parts: parts
            .into_iter()
            .map(|part| (part.number, part.size, part.checksum))
            .collect(),
    };
    // Here alone the checksum of checksums comes without the number of parts.
    let checksum = object
        .checksum
        .map(|stored| (object_checksum(&stored, None), stored.kind));
    ObjectAttributes {
        etag: wanted.etag.then(|| object.etag.clone()),
        checksum: checksum.filter(|_| wanted.checksum),
        parts: object
            .parts
            .filter(|_| wanted.parts)
            .map(|total| AttributedParts {
                total,
                page: with_checksums.then_some(page),
            }),
        storage_class: wanted.storage_class,
        size: wanted.size.then_some(object.size),
    }
}
