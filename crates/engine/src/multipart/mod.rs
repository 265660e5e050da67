//! Multipart uploads, native on the backends.
//!
//! An upload has legs: one backend upload each, that becomes one blob. It begins with one leg; when
//! that leg's backend can take no more, later parts go to another leg elsewhere, and the object
//! becomes an ordered list of extents. Complete moves no byte: one call per leg, one commit.

mod assembly;
mod complete;
mod copy_part;
mod doubts;
mod part;
mod refused;

use std::sync::Arc;

use backend::{Guarded, Kind, ObjectBackend as _};
use base::{
    BlobId, ByteSize, ChecksumAlgorithm, ChecksumKind, CopyId, ObjectHeaders, ObjectKey,
    Precondition, Tags, Traffic, UploadId, VersionId,
};
use metastore::model::{
    BucketId, LegState, NewLeg, NewUpload, PartRow, UploadListing, UploadQuery, UploadRecord,
    UploadVerdict,
};

pub(crate) use complete::Completing;
pub use complete::{CompleteRequest, CompletedPart};
pub use copy_part::PartCopyRequest;
pub(crate) use doubts::Doubts;
pub use part::{PartRequest, UploadedPart};

use crate::fleet::Member;
use crate::keys::Role;
use crate::put::{PutRequest, WritePlan};
use crate::{Engine, Error, Result, Tried};

/// What a backend must still be able to take for an upload to begin there: a part has to follow.
const WORTH_BEGINNING: Traffic = Traffic {
    ingress: 1,
    ..Traffic::requests(2)
};

/// A page of open uploads.
pub type Uploads = UploadListing;

/// An upload to begin.
#[derive(Debug, Clone)]
pub struct CreateUpload {
    /// Its bucket.
    pub bucket: BucketId,
    /// Its key.
    pub key: ObjectKey,
    /// Headers of the future object.
    pub headers: ObjectHeaders,
    /// Tags of the future object.
    pub tags: Tags,
    /// The checksum that the parts and the object will have.
    pub checksum: Option<(ChecksumAlgorithm, ChecksumKind)>,
}

impl Engine {
    /// Begins an upload.
    pub async fn create_upload(&self, request: CreateUpload) -> Result<UploadId> {
        let created = self.create_unobserved(request).await;
        self.report_limits("CreateMultipartUpload", &created);
        created
    }

    async fn create_unobserved(&self, request: CreateUpload) -> Result<UploadId> {
        let inner = &self.inner;
        let upload = UploadId::draw(&inner.ids);
        // Whichever backend takes it: those that fail hold no part.
        let role = Role::FirstUpload;
        let plan = self.leg_plan(upload, request.bucket, &request.key, &request.headers, role)?;
        let limits = inner.settings.buckets.iter();
        let open_max = limits
            .filter(|(name, _)| *name == plan.bucket)
            .find_map(|(_, max)| *max);
        let mut tried = Tried::default();
        let mut begun = false;
        let mut limited = false;
        for member in inner.fleet.choose(&inner.store, 0, WORTH_BEGINNING)? {
            let Some(backend) = member.admit(Traffic::requests(1)) else {
                limited = true;
                continue;
            };
            let leg = draw_leg(self, &plan, &member);
            let verdict = match begun {
                false => {
                    let row = NewUpload {
                        upload,
                        bucket: request.bucket,
                        key: request.key.clone(),
                        headers: request.headers.clone(),
                        tags: request.tags.clone(),
                        checksum: request.checksum,
                        created: inner.clock.now(),
                        leg: leg.clone(),
                        open_max,
                    };
                    inner.store.create_upload(row).await?
                }
                true => inner.store.add_leg(upload, leg.clone()).await?,
            };
            accept(verdict)?;
            begun = true;
            match self.begin_leg(upload, &plan, &backend, &leg).await? {
                Ok(_) => return Ok(upload),
                Err(error) => tried.0.push((member.name().clone(), error)),
            }
        }
        if !begun && limited {
            let wanted = ByteSize(0);
            return Err(Error::WriteLimited { wanted });
        }
        // Nothing was handed out, so nobody else will end it.
        inner
            .store
            .abort_upload(request.bucket, &request.key, upload)
            .await?;
        inner.bells.settle();
        let full = !tried.0.is_empty() && tried.0.iter().all(|(_, error)| error.kind == Kind::Full);
        Err(match full {
            true => Error::NoRoom {
                wanted: ByteSize(0),
            },
            false => Error::WriteUnavailable { tried },
        })
    }

    /// Ends an open upload and frees its parts.
    pub async fn abort_upload(
        &self,
        bucket: BucketId,
        key: &ObjectKey,
        upload: UploadId,
    ) -> Result<()> {
        let verdict = self.inner.store.abort_upload(bucket, key, upload).await?;
        self.inner.bells.settle();
        match verdict {
            UploadVerdict::NoSuchUpload => Err(self.absent(Error::NoSuchUpload)),
            other => accept(other),
        }
    }

    /// A page of the parts of an open upload, and whether more follow.
    pub async fn list_parts(
        &self,
        bucket: BucketId,
        key: &ObjectKey,
        upload: UploadId,
        after: u32,
        max: u32,
    ) -> Result<(UploadRecord, Vec<PartRow>, bool)> {
        let record = self.open_upload(bucket, key, upload).await?;
        let mut parts = self
            .inner
            .store
            .parts(upload, after, max.saturating_add(1))
            .await?;
        let truncated = parts.len() > usize::try_from(max).unwrap_or(usize::MAX);
        if truncated {
            parts.pop();
        }
        Ok((record, parts, truncated))
    }

    /// A page of the open uploads of a bucket.
    pub async fn list_uploads(&self, query: &UploadQuery) -> Result<Uploads> {
        self.knows_absence()?;
        Ok(self.inner.store.uploads(query).await?)
    }

    /// An upload that still takes parts, or is just being completed.
    pub(crate) async fn open_upload(
        &self,
        bucket: BucketId,
        key: &ObjectKey,
        upload: UploadId,
    ) -> Result<UploadRecord> {
        use metastore::model::UploadState;
        let record = self
            .inner
            .store
            .upload(bucket, key, upload)
            .await?
            .ok_or_else(|| self.absent(Error::NoSuchUpload))?;
        match record.state {
            UploadState::Open | UploadState::Completing { .. } => Ok(record),
            UploadState::Completed { .. } => Err(Error::NoSuchUpload),
        }
    }

    /// What all legs of an upload have in common. Their labels carry the upload's id as version, so
    /// that a recovery sees which legs belong together.
    pub(crate) fn leg_plan(
        &self,
        upload: UploadId,
        bucket: BucketId,
        key: &ObjectKey,
        headers: &ObjectHeaders,
        role: Role,
    ) -> Result<Arc<WritePlan>> {
        let put = PutRequest {
            bucket,
            key: key.clone(),
            headers: headers.clone(),
            // A leg carries no tags: the catalogue has them with the upload.
            tags: Tags::default(),
            precondition: Precondition::None,
        };
        WritePlan::for_version(self, put, role, VersionId::from_bytes(upload.to_bytes()))
    }

    /// Begins the backend's upload of a leg whose row is durable. The inner error is the backend's;
    /// the leg is then gone.
    pub(crate) async fn begin_leg(
        &self,
        upload: UploadId,
        plan: &WritePlan,
        backend: &Guarded,
        leg: &NewLeg,
    ) -> Result<backend::Result<String>> {
        let (_, meta) = plan.place(backend.name(), leg.copy, leg.blob, None);
        match backend.create_upload(&leg.key, &meta).await {
            Ok(id) => {
                let verdict = self
                    .inner
                    .store
                    .open_leg(upload, leg.copy, id.clone())
                    .await?;
                accept(verdict)?;
                Ok(Ok(id))
            }
            Err(error) => {
                accept(self.inner.store.drop_leg(upload, leg.copy).await?)?;
                self.inner.bells.settle();
                Ok(Err(error))
            }
        }
    }
}

pub(crate) fn draw_leg(engine: &Engine, plan: &WritePlan, member: &Member) -> NewLeg {
    let copy = CopyId::draw(&engine.inner.ids);
    let blob = BlobId::draw(&engine.inner.ids);
    let key = plan.key(copy);
    NewLeg {
        copy,
        blob,
        backend: member.id,
        key,
    }
}

/// The backend's id of a leg that takes parts.
pub(crate) fn open_id(state: &LegState) -> Option<&str> {
    match state {
        LegState::Open { upload } => Some(upload),
        LegState::Creating | LegState::Completed { .. } => None,
    }
}

pub(crate) fn accept(verdict: UploadVerdict) -> Result<()> {
    match verdict {
        UploadVerdict::Done => Ok(()),
        UploadVerdict::NoSuchUpload => Err(Error::NoSuchUpload),
        UploadVerdict::Superseded => Err(Error::Conflict),
        UploadVerdict::TooMany => Err(Error::TooManyUploads),
        UploadVerdict::NoSuchBucket => Err(Error::NoSuchBucket),
    }
}

/// A version id for an object that an upload becomes.
pub(crate) fn draw_version(engine: &Engine) -> VersionId {
    VersionId::draw(&engine.inner.ids)
}
