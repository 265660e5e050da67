//! CopyObject and UploadPartCopy.

use std::sync::Arc;

use base::{BucketName, ObjectKey, RangeSpec, Tags, Validators};
use engine::{CopyRequest, CopySource, PartCopyRequest, ReadRequest, Selection, Taken};
use s3wire::headers::{self, MetadataDirective, ObjectChecksum, TaggingDirective};
use s3wire::xml::{CopyResult, CopyRoot};
use s3wire::{Error, ErrorCode, UploadPartCopy};

use super::super::render::{Answer, Failure};
use super::super::ticket::Ticket;
use super::late::in_time;
use super::write::refused_early;
use super::{Call, demand, object_checksum};
use crate::config::Verb;

impl Call<'_> {
    pub(super) async fn copy(
        self,
        key: ObjectKey,
        from: headers::CopySourceHeader,
        ticket: &Ticket,
    ) -> Result<Answer, Failure> {
        let directive = headers::metadata_directive(&self.headers)?;
        let from_bucket = from.bucket.clone();
        let source = self.source(from).await?;
        let tags = match headers::tagging_directive(&self.headers)? {
            TaggingDirective::Copy => self.source_tags(&from_bucket, &source, &key).await?,
            TaggingDirective::Replace => Taken::Replace(self.given_tags(&key)?),
        };
        let itself = source.bucket == self.bucket.id && source.key == key;
        // As in S3, naming the class that everything has is change enough.
        let changes = self.headers.contains_key("x-amz-storage-class");
        let kept = match directive {
            MetadataDirective::Replace => Taken::Replace(headers::object_headers(&self.headers)?),
            MetadataDirective::Copy if itself && !changes => {
                return Err(Error::new(
                    ErrorCode::InvalidRequest,
                    "This copy request is illegal because it is trying to copy an object to itself without changing the object's metadata.",
                )
                .into());
            }
            MetadataDirective::Copy => Taken::Keep,
        };
        let precondition = self.precondition(&key)?;
        let request = CopyRequest {
            source,
            bucket: self.bucket.id,
            key,
            headers: kept,
            tags,
            checksum: headers::copy_checksum(&self.headers)?,
            precondition,
        };
        let engine = self.front.engine.clone();
        let metrics = Arc::clone(&self.front.telemetry.metrics);
        let absence = self.absence;
        let work = async move {
            let copied = engine.copy(request).await;
            let copied =
                copied.map_err(|error| absence.told(refused_early(&metrics, error).into()))?;
            let document = CopyResult {
                etag: copied.etag,
                last_modified: copied.last_modified,
                checksum: copied
                    .checksum
                    .map(|sum| object_checksum(&sum, copied.parts)),
                kind: copied.checksum.map(|sum| sum.kind),
            };
            Ok(document.to_xml(CopyRoot::Object))
        };
        in_time(work, ticket).await
    }

    pub(super) async fn upload_part_copy(
        self,
        key: ObjectKey,
        params: UploadPartCopy,
        ticket: &Ticket,
    ) -> Result<Answer, Failure> {
        let source = self.source(params.source).await?;
        let range = match params.range {
            None => None,
            Some(range) => {
                let looked = self
                    .front
                    .engine
                    .look(&ReadRequest {
                        bucket: source.bucket,
                        key: source.key.clone(),
                        selection: Selection::All,
                        conditions: base::Conditions::default(),
                    })
                    .await?;
                let object = looked.object;
                let current = Validators {
                    etag: &object.etag,
                    last_modified: object.last_modified,
                };
                // Another object than the client means is not measured.
                if !source.conditions.copy_source(current) {
                    return Err(engine::Error::PreconditionFailed.into());
                }
                let size = object.size;
                // A part must not become shorter than asked.
                let bytes = range.within(size).ok_or_else(|| {
                    let message =
                        format!("Range specified is not valid for source object of size: {size}");
                    Error::new(ErrorCode::InvalidArgument, message)
                })?;
                Some(RangeSpec::From {
                    first: bytes.start,
                    last: Some(bytes.end() - 1),
                })
            }
        };
        let request = PartCopyRequest {
            bucket: self.bucket.id,
            key,
            upload: params.upload_id,
            number: u32::from(params.part.get()),
            source,
            range,
        };
        let engine = self.front.engine.clone();
        let metrics = Arc::clone(&self.front.telemetry.metrics);
        let absence = self.absence;
        let work = async move {
            let part = engine.upload_part_copy(request).await;
            let part = part.map_err(|error| absence.told(refused_early(&metrics, error).into()))?;
            let document = CopyResult {
                etag: part.etag,
                last_modified: part.last_modified,
                checksum: part.checksum.map(|checksum| ObjectChecksum {
                    checksum,
                    parts: None,
                }),
                kind: None,
            };
            Ok(document.to_xml(CopyRoot::Part))
        };
        in_time(work, ticket).await
    }

    /// A tagged source needs the right to read its tags, and to write them at the target. Who does not
    /// have both gets none, also of a source that is tagged only after the look.
    async fn source_tags(
        &self,
        bucket: &BucketName,
        source: &CopySource,
        key: &ObjectKey,
    ) -> Result<Taken<Tags>, Failure> {
        let read = self.rights.allow(Verb::Tags, bucket, source.key.as_str());
        let write = self
            .rights
            .allow(Verb::Tags, &self.bucket.name, key.as_str());
        let Err(refused) = demand::granted(read).and_then(|()| demand::granted(write)) else {
            return Ok(Taken::Keep);
        };
        let tags = self.front.engine.tags(source.bucket, &source.key).await?;
        match tags.is_empty() {
            true => Ok(Taken::Replace(Tags::default())),
            false => Err(refused.into()),
        }
    }

    /// The source, if the caller may read it.
    async fn source(&self, from: headers::CopySourceHeader) -> Result<CopySource, Failure> {
        let Some(bucket) = self.front.engine.find_bucket(&from.bucket).await? else {
            self.front.engine.knows_absence()?;
            return Err(ErrorCode::NoSuchBucket.into());
        };
        let key = from.key.as_str();
        demand::granted(self.rights.allow(Verb::Read, &bucket.name, key))?;
        let conditions = headers::copy_conditions(&self.headers)?;
        Ok(CopySource {
            bucket: bucket.id,
            key: from.key,
            conditions,
        })
    }
}
