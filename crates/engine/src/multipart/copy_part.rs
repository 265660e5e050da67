//! UploadPartCopy: native where source and leg lie on one backend that can do it, streamed otherwise.

use std::sync::Arc;

use backend::{Effect, ObjectBackend as _, PartSource};
use base::{ByteRange, CopyId, ETag, ObjectKey, RangeSpec, Traffic, UploadId};
use metastore::model::{
    BucketId, CopyRow, CopyState, NewPartClaim, PartRow, ReadPlan, UploadRecord,
};

use super::part::{PartRequest, UploadedPart};
use super::{accept, open_id};
use crate::copy::{CopySource, check_size};
use crate::{Engine, Error, Result};

/// A part whose bytes come from another object.
#[derive(Debug, Clone)]
pub struct PartCopyRequest {
    /// Bucket of the upload.
    pub bucket: BucketId,
    /// Key of the upload.
    pub key: ObjectKey,
    /// The upload.
    pub upload: UploadId,
    /// The part's number, 1 to 10,000.
    pub number: u32,
    /// The other object.
    pub source: CopySource,
    /// Which of its bytes; all where absent.
    pub range: Option<RangeSpec>,
}

/// What a native part copy needs.
struct Native {
    leg: CopyId,
    key: base::BackendKey,
    upload: String,
    source: CopyRow,
    range: ByteRange,
    /// Whether it is all of the blob.
    whole: bool,
    crc64: Option<base::Crc64>,
}

impl Engine {
    /// Stores a part whose bytes come from another object.
    pub async fn upload_part_copy(&self, request: PartCopyRequest) -> Result<UploadedPart> {
        let part = PartRequest {
            bucket: request.bucket,
            key: request.key.clone(),
            upload: request.upload,
            number: request.number,
        };
        let record = self.part_upload(&part).await?;
        let plan = self.source_plan(&request.source).await?;
        let size = plan.object.size;
        let range = match request.range {
            None => ByteRange::whole(size),
            Some(range) => range
                .resolve(size)
                .map_err(|_| Error::InvalidRange { size })?,
        };
        check_size(range.length)?;
        if let Some(native) = self.native_part(&record, &plan, range)
            && let Some(copied) = self.copy_part_natively(&part, native).await?
        {
            return Ok(copied);
        }
        let body = self.stream_of(&plan, range).await;
        self.report_limits("UploadPartCopy", &body);
        self.upload_part(part, body?).await
    }

    /// A leg on the backend that holds all of the range in one blob. A checksum that the upload
    /// announced can only be computed from the bytes, so such parts are streamed.
    fn native_part(
        &self,
        record: &UploadRecord,
        plan: &ReadPlan,
        range: ByteRange,
    ) -> Option<Native> {
        if record.checksum.is_some() || range.length == 0 {
            return None;
        }
        let mut at = 0;
        for part in &plan.extents {
            let here = ByteRange {
                start: at,
                length: part.extent.length,
            };
            at += part.extent.length;
            let Some(inside) = here.intersect(range) else {
                continue;
            };
            if inside != range {
                return None;
            }
            let start = part.extent.offset + (range.start - here.start);
            let range = ByteRange {
                start,
                length: range.length,
            };
            return part.copies.iter().find_map(|source| {
                let member = self.inner.fleet.member(source.backend)?;
                let able = member.backend().capabilities();
                // What is not held for good is streamed, and compared on its way.
                let good = source.state == CopyState::Good;
                if !good || !able.part_copy || !able.md5_etag || !member.takes_bytes() {
                    return None;
                }
                let leg = record
                    .legs
                    .iter()
                    .rev()
                    .find(|leg| leg.backend == source.backend)?;
                let whole = range == ByteRange::whole(part.blob_size);
                Some(Native {
                    leg: leg.copy,
                    key: leg.key.clone(),
                    upload: open_id(&leg.state)?.to_owned(),
                    source: source.clone(),
                    range,
                    whole,
                    crc64: part.crc64.filter(|_| whole),
                })
            });
        }
        None
    }

    /// `None` where the backend will not, so that the bytes must be streamed.
    async fn copy_part_natively(
        &self,
        part: &PartRequest,
        native: Native,
    ) -> Result<Option<UploadedPart>> {
        let store = &self.inner.store;
        let backend = native.source.backend;
        let Some(member) = self.inner.fleet.member(backend).map(Arc::clone) else {
            return Ok(None);
        };
        // The provider moves the bytes by itself.
        let Some(guarded) = member.admit(Traffic::requests(1)) else {
            return Ok(None);
        };
        let room = match store.reserve(backend, native.range.length).await {
            Ok(room) => room,
            Err(metastore::Error::NoRoom { .. }) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let attempt = CopyId::draw(&self.inner.ids);
        let claim = NewPartClaim {
            upload: part.upload,
            number: part.number,
            attempt,
            leg: native.leg,
        };
        let claim = match store.claim_part(claim, room).await? {
            Ok(claim) => claim,
            Err(verdict) => {
                accept(verdict)?;
                return Ok(None);
            }
        };
        let source = PartSource {
            key: native.source.key,
            version: native.source.version,
            range: (!native.whole).then_some(native.range),
        };
        let made = guarded
            .upload_part_copy(&native.key, &native.upload, part.number, &source)
            .await;
        let made = match made {
            Ok(made) => made,
            Err(error) => {
                // Whatever the provider could not do can still be streamed. A call of unknown outcome
                // may yet land under this number, with the same bytes and so with the same tag.
                if error.effect == Effect::None {
                    store.withdraw_part(claim).await?;
                }
                let error = base::report(&error);
                tracing::warn!(backend = %member.name(), %error, "UploadPartCopy by the backend failed, streaming the part");
                return Ok(None);
            }
        };
        let Some(etag) = made.etag.filter(|etag| etag.as_md5().is_some()) else {
            return Ok(None);
        };
        let last_modified = self.inner.clock.now();
        let row = PartRow {
            number: part.number,
            attempt,
            leg: native.leg,
            size: native.range.length,
            etag: ETag::clone(&etag),
            checksum: None,
            crc64: native.crc64.or(made.crc64),
            backend_etag: etag.clone(),
            backend_crc64: made.crc64,
            last_modified,
        };
        accept(store.commit_part(claim, row).await?)?;
        Ok(Some(UploadedPart {
            etag,
            checksum: None,
            last_modified,
        }))
    }
}
