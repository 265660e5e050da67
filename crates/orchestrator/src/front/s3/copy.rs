//! CopyObject and UploadPartCopy.

use base::{ChecksumAlgorithm, ObjectKey, RangeSpec};
use engine::{CopyMeta, CopyRequest, CopySource, PartCopyRequest, ReadRequest, Selection};
use s3wire::headers::{self, MetadataDirective, ObjectChecksum};
use s3wire::xml::{CopyResult, CopyRoot};
use s3wire::{Error, ErrorCode, UploadPartCopy};

use super::super::render::{Answer, Failure};
use super::{Call, object_checksum};

impl Call<'_> {
    pub(super) async fn copy(
        self,
        key: ObjectKey,
        from: headers::CopySource,
    ) -> Result<Answer, Failure> {
        let directive = headers::metadata_directive(&self.headers)?;
        let source = self.source(from)?;
        let itself = source.bucket == self.bucket.id && source.key == key;
        let meta = match directive {
            MetadataDirective::Replace => {
                CopyMeta::Replace(headers::object_headers(&self.headers)?)
            }
            MetadataDirective::Copy if itself => {
                return Err(Error::new(
                    ErrorCode::InvalidRequest,
                    "This copy request is illegal because it is trying to copy an object to itself without changing the object's metadata.",
                )
                .into());
            }
            MetadataDirective::Copy => CopyMeta::Keep,
        };
        let looked = self.front.engine.look(&ReadRequest {
            bucket: source.bucket,
            key: source.key.clone(),
            selection: Selection::All,
            conditions: base::Conditions::default(),
        })?;
        self.refuse_new_checksum(looked.object.checksum.map(|sum| sum.checksum.algorithm()))?;
        let request = CopyRequest {
            source,
            bucket: self.bucket.id,
            key,
            meta,
            precondition: headers::write_precondition(&self.headers)?,
        };
        let copied = self.front.engine.copy(request).await;
        let copied = copied.map_err(|error| self.front.refused_early(error))?;
        let document = CopyResult {
            etag: copied.etag,
            last_modified: copied.last_modified,
            checksum: copied
                .checksum
                .map(|sum| object_checksum(&sum, looked.object.parts)),
        };
        Ok(Answer::xml(document.to_xml(CopyRoot::Object)))
    }

    pub(super) async fn upload_part_copy(
        self,
        key: ObjectKey,
        params: UploadPartCopy,
    ) -> Result<Answer, Failure> {
        let source = self.source(params.source)?;
        let range = match params.range {
            None => None,
            Some(range) => {
                let looked = self.front.engine.look(&ReadRequest {
                    bucket: source.bucket,
                    key: source.key.clone(),
                    selection: Selection::All,
                    conditions: base::Conditions::default(),
                })?;
                let size = looked.object.size;
                // A part must not become shorter than asked.
                let bytes = range
                    .within(size)
                    .ok_or(engine::Error::InvalidRange { size })?;
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
        let part = self.front.engine.upload_part_copy(request).await;
        let part = part.map_err(|error| self.front.refused_early(error))?;
        let document = CopyResult {
            etag: part.etag,
            last_modified: part.last_modified,
            checksum: part.checksum.map(|checksum| ObjectChecksum {
                checksum,
                parts: None,
            }),
        };
        Ok(Answer::xml(document.to_xml(CopyRoot::Part)))
    }

    /// The source, if the caller may read it: it lies in the caller's bucket.
    fn source(&self, from: headers::CopySource) -> Result<CopySource, Failure> {
        let Some(bucket) = self.front.engine.bucket(&from.bucket) else {
            return Err(ErrorCode::NoSuchBucket.into());
        };
        if bucket.id != self.bucket.id {
            return Err(ErrorCode::AccessDenied.into());
        }
        let conditions = headers::copy_conditions(&self.headers)?;
        Ok(CopySource {
            bucket: bucket.id,
            key: from.key,
            conditions,
        })
    }

    /// A copy keeps the checksum that its source has; computing another one is not built.
    fn refuse_new_checksum(&self, kept: Option<ChecksumAlgorithm>) -> Result<(), Failure> {
        let Some(wanted) = self.headers.get("x-amz-checksum-algorithm") else {
            return Ok(());
        };
        let wanted = wanted.to_str().ok().and_then(ChecksumAlgorithm::from_name);
        match wanted.is_some() && wanted == kept {
            true => Ok(()),
            false => Err(Error::new(
                ErrorCode::NotImplemented,
                "Computing another checksum while copying is not implemented.",
            )
            .into()),
        }
    }
}
