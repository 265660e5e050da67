//! UploadPart.

use std::sync::Arc;

use async_trait::async_trait;
use backend::{
    Effect, Fetched, Guarded, Kind, ObjectBackend as _, Payload, Proof, PutMeta, Stored,
};
use base::{
    BackendKey, BackendName, ByteSize, Checksum, CopyId, ETag, ObjectKey, Timestamp, Traffic,
    UploadId,
};
use futures_util::FutureExt;
use metastore::PartClaim;
use metastore::model::{BucketId, Leg, NewPartClaim, PartRow, UploadRecord, UploadState};

use super::{accept, draw_leg, open_id};
use crate::body::Incoming;
use crate::fleet::Member;
use crate::keys::Role;
use crate::observe::Verb;
use crate::send::{Attempt, Attempts, Delivery, Target, Token, send};
use crate::{Engine, Error, PART_NUMBER_MAX, Result, Tried};

/// A part to store.
#[derive(Debug, Clone)]
pub struct PartRequest {
    /// Bucket of the upload.
    pub bucket: BucketId,
    /// Key of the upload.
    pub key: ObjectKey,
    /// The upload.
    pub upload: UploadId,
    /// The part's number, 1 to 10,000.
    pub number: u32,
}

/// A part that is stored.
#[derive(Debug, Clone)]
pub struct UploadedPart {
    /// Its entity tag: the MD5 of its bytes.
    pub etag: ETag,
    /// Its checksum, where the client gave one or the upload announced one.
    pub checksum: Option<Checksum>,
    /// The time of the write.
    pub last_modified: Timestamp,
}

impl Engine {
    /// Stores a part. After `Ok` its leg's backend holds it.
    pub async fn upload_part(&self, request: PartRequest, body: Incoming) -> Result<UploadedPart> {
        let verb = Verb::begin("UploadPart");
        let result = self.upload_part_unobserved(request, body).await;
        self.observe_verb(verb, None, &result);
        result
    }

    async fn upload_part_unobserved(
        &self,
        request: PartRequest,
        mut body: Incoming,
    ) -> Result<UploadedPart> {
        let limit = self.inner.settings.max_object_size;
        if body.length > limit.0 {
            return Err(Error::TooLarge { limit });
        }
        let record = self.part_upload(&request).await?;
        let declared = body
            .declared
            .trailer
            .as_ref()
            .map(|trailer| trailer.algorithm);
        let declared = declared.or(body.declared.checksum.as_ref().map(Checksum::algorithm));
        match (record.checksum, declared) {
            (Some((wanted, _)), Some(found)) if wanted != found => {
                return Err(Error::ChecksumMismatch);
            }
            (Some((wanted, _)), None) => body.declared.compute = Some(wanted),
            (Some(_) | None, _) => {}
        }
        let size = body.length;
        let mut attempts = PartAttempts {
            engine: self.clone(),
            request: request.clone(),
            record,
            size,
            used: Vec::new(),
        };
        let delivery = send(body, self.send_options(), &mut attempts).await?;
        self.report_failover("UploadPart", &delivery);
        self.commit_part(&request, size, delivery).await
    }

    /// The upload of a part request that still takes parts.
    pub(crate) async fn part_upload(&self, request: &PartRequest) -> Result<UploadRecord> {
        debug_assert!(
            (1..=PART_NUMBER_MAX).contains(&request.number),
            "checked by the front"
        );
        let record = self
            .open_upload(request.bucket, &request.key, request.upload)
            .await?;
        match record.state {
            UploadState::Open => Ok(record),
            UploadState::Completing { .. } | UploadState::Completed { .. } => Err(Error::Conflict),
        }
    }

    async fn commit_part(
        &self,
        request: &PartRequest,
        size: u64,
        delivery: Delivery<(PartClaim, CopyId)>,
    ) -> Result<UploadedPart> {
        let Delivery {
            mut copies,
            digests,
            etag,
            ..
        } = delivery;
        let sent = copies.pop().expect("a delivery has a copy");
        let (claim, leg) = sent.token;
        let checksum = digests.checksum.map(|stored| stored.checksum);
        let last_modified = self.inner.clock.now();
        let row = PartRow {
            number: request.number,
            attempt: claim.attempt(),
            leg,
            size,
            etag: etag.clone(),
            checksum,
            crc64: Some(digests.crc64),
            // A backend that gives no tag vouches for nothing: never equal to ours.
            backend_etag: sent.stored.etag.unwrap_or_else(|| ETag::new("")),
            backend_crc64: sent.stored.crc64,
            last_modified,
        };
        accept(self.inner.store.commit_part(claim, row).await?)?;
        Ok(UploadedPart {
            etag,
            checksum,
            last_modified,
        })
    }
}

/// Tries the legs of the upload from the newest to the oldest, then new legs elsewhere.
pub(super) struct PartAttempts {
    engine: Engine,
    request: PartRequest,
    record: UploadRecord,
    size: u64,
    used: Vec<CopyId>,
}

/// A leg that may take the part.
struct OpenLeg {
    member: Arc<Member>,
    backend: Guarded,
    leg: Leg,
    id: String,
    room: metastore::Reservation,
}

impl PartAttempts {
    /// What a part moves.
    fn traffic(&self) -> Traffic {
        Traffic {
            ingress: self.size,
            ..Traffic::requests(1)
        }
    }

    /// A leg with room for the part.
    async fn leg(&mut self, tried: &Tried) -> Result<Option<OpenLeg>> {
        let inner = &self.engine.inner;
        let mut full = false;
        for leg in self.record.legs.iter().rev() {
            let Some(id) = open_id(&leg.state) else {
                continue;
            };
            let Some(member) = inner.fleet.member(leg.backend) else {
                continue;
            };
            if self.used.contains(&leg.copy) || !member.takes_bytes() {
                continue;
            }
            if !self.fits(member, leg).await? {
                continue;
            }
            let Some(backend) = member.admit(self.traffic()) else {
                continue;
            };
            match inner.store.reserve(leg.backend, self.size).await {
                Ok(room) => {
                    self.used.push(leg.copy);
                    return Ok(Some(OpenLeg {
                        member: Arc::clone(member),
                        backend,
                        leg: leg.clone(),
                        id: id.to_owned(),
                        room,
                    }));
                }
                Err(metastore::Error::NoRoom { .. }) => full = true,
                Err(error) => return Err(error.into()),
            }
        }
        match self.new_leg(tried).await {
            Err(error @ Error::NoRoom { .. }) if full || tried.0.is_empty() => {
                self.engine.make_room(&error);
                Err(error)
            }
            // A backend has failed already: what the others lack is not the client's answer.
            Err(Error::WriteLimited { .. }) if !tried.0.is_empty() => Ok(None),
            other => other,
        }
    }

    /// Whether the leg stays within the largest object that its backend takes.
    async fn fits(&self, member: &Member, leg: &Leg) -> Result<bool> {
        let Some(max) = member.object_bytes_max() else {
            return Ok(true);
        };
        let parts = self
            .engine
            .inner
            .store
            .parts(self.record.upload, 0, PART_NUMBER_MAX)
            .await?;
        let held = parts
            .iter()
            .filter(|part| part.leg == leg.copy)
            .map(|part| part.size);
        Ok(held.sum::<u64>() + self.size <= max)
    }

    /// Begins a leg on a backend that has none of this upload's that works.
    async fn new_leg(&mut self, tried: &Tried) -> Result<Option<OpenLeg>> {
        let inner = Arc::clone(&self.engine.inner);
        let plan = self.engine.leg_plan(
            self.record.upload,
            self.record.bucket,
            &self.record.key,
            &self.record.headers,
            Role::PartOnly,
        )?;
        // The leg is begun, and then takes the part.
        let traffic = self.traffic().plus(Traffic::requests(1));
        let mut limited = false;
        for member in inner.fleet.choose(&inner.store, self.size, traffic)? {
            // A backend that has merely forgotten an older leg can take a new one.
            let failed = |(name, error): &(BackendName, backend::Error)| {
                name == member.name() && error.kind != Kind::NoSuchUpload
            };
            if tried.0.iter().any(failed) {
                continue;
            }
            let Some(backend) = member.admit(traffic) else {
                limited = true;
                continue;
            };
            let room = match inner.store.reserve(member.id, self.size).await {
                Ok(room) => room,
                Err(metastore::Error::NoRoom { .. }) => continue,
                Err(error) => return Err(error.into()),
            };
            let leg = draw_leg(&self.engine, &plan, &member);
            accept(inner.store.add_leg(self.record.upload, leg.clone()).await?)?;
            let begun = self
                .engine
                .begin_leg(self.record.upload, &plan, &backend, &leg)
                .await?;
            let Ok(id) = begun else { continue };
            let leg = Leg {
                copy: leg.copy,
                blob: leg.blob,
                backend: leg.backend,
                key: leg.key,
                state: metastore::model::LegState::Open { upload: id.clone() },
            };
            self.used.push(leg.copy);
            return Ok(Some(OpenLeg {
                member,
                backend,
                leg,
                id,
                room,
            }));
        }
        match limited && self.used.is_empty() {
            true => Err(Error::WriteLimited {
                wanted: ByteSize(self.size),
            }),
            false => Ok(None),
        }
    }
}

impl Token for (PartClaim, CopyId) {
    /// What a claim holds stays reserved until its number is written again, whatever was answered.
    fn answered(&self) {}
}

#[async_trait]
impl Attempts for PartAttempts {
    type Token = (PartClaim, CopyId);

    async fn next(&mut self, tried: &Tried) -> Result<Option<Attempt<Self::Token>>> {
        let Some(open) = self.leg(tried).await? else {
            return Ok(None);
        };
        let OpenLeg {
            member,
            backend,
            leg,
            id,
            room,
        } = open;
        let claim = NewPartClaim {
            upload: self.record.upload,
            number: self.request.number,
            attempt: CopyId::draw(&self.engine.inner.ids),
            leg: leg.copy,
        };
        let store = self.engine.inner.store.clone();
        let leg_id = leg.copy;
        let announce = async move {
            match store.claim_part(claim, room).await? {
                Ok(claim) => Ok((claim, leg_id)),
                Err(verdict) => Err(accept(verdict).err().unwrap_or(Error::Conflict)),
            }
        }
        .boxed();
        let target = Arc::new(PartTarget {
            backend,
            key: leg.key,
            upload: id,
            number: self.request.number,
        });
        Ok(Some(Attempt {
            member,
            announce,
            target,
        }))
    }

    async fn give_up(&mut self, (claim, _): Self::Token, effect: Effect) {
        match effect {
            Effect::None => {
                if let Err(error) = self.engine.inner.store.withdraw_part(claim).await {
                    tracing::warn!(error = %base::report(&error), "could not withdraw a part claim");
                }
            }
            // What the backend holds under this number is unknown until it is written again or the
            // upload ends; Complete names the tags it expects.
            Effect::Unknown => drop(claim),
        }
    }
}

/// A part of a backend's upload.
struct PartTarget {
    backend: Guarded,
    key: BackendKey,
    upload: String,
    number: u32,
}

#[async_trait]
impl Target for PartTarget {
    async fn put(&self, payload: Payload) -> backend::Result<Stored> {
        let meta = PutMeta::default();
        self.backend
            .upload_part(&self.key, &self.upload, self.number, &meta, payload)
            .await
    }

    async fn look(&self) -> backend::Result<(u64, Stored)> {
        let page = self
            .backend
            .list_parts(&self.key, &self.upload, self.number - 1)
            .await?;
        let part = page
            .parts
            .into_iter()
            .find(|part| part.number == self.number);
        let part = part.ok_or_else(|| {
            let kind = Kind::NotFound;
            backend::Error::new(kind, Effect::Unknown, self.backend.name(), "list_parts")
        })?;
        let stored = Stored {
            etag: Some(part.etag),
            version: None,
            crc64: None,
            proof: Proof::None,
        };
        Ok((part.size, stored))
    }

    async fn read_back(&self) -> Option<backend::Result<Fetched>> {
        None
    }
}
