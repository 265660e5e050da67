//! PutObject.

use std::sync::Arc;

use async_trait::async_trait;
use backend::{Effect, Fetched, Guarded, ObjectBackend as _, Payload, Proof, PutMeta, Stored};
use base::{
    BackendKey, BackendName, BlobId, BucketName, ByteSize, CopyId, Crc64, ETag, LabelKey,
    ObjectHeaders, ObjectKey, Precondition, Tags, Timestamp, Traffic, VersionId,
};
use futures_util::FutureExt;
use metastore::model::{
    BucketId, Content, Extent, NewBlob, NewCopy, NewIntent, NewVersion, StoredChecksum, Verdict,
};
use metastore::{Intent, Store};

use crate::body::{Incoming, WantMd5};
use crate::fleet::Member;
use crate::keys::{Label, LabelPlace, OWN_PREFIX, Role, backend_key, put_meta};
use crate::observe::{Event, Verb};
use crate::send::{Attempt, Attempts, Delivery, SendOptions, Sent, Target, send};
use crate::{Engine, Error, Result, Tried};

/// How many backends must hold the bytes of a write.
pub(crate) const COPIES: usize = 1;

/// An object to write.
#[derive(Debug, Clone)]
pub struct PutRequest {
    /// Its bucket.
    pub bucket: BucketId,
    /// Its key.
    pub key: ObjectKey,
    /// Its headers and user metadata.
    pub headers: ObjectHeaders,
    /// Its tags.
    pub tags: Tags,
    /// What must hold of the version that it replaces.
    pub precondition: Precondition,
}

/// An object that was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// Its version.
    pub version: VersionId,
    /// Its entity tag.
    pub etag: ETag,
    /// Its checksum: the one that the client gave, or else ours.
    pub checksum: Option<StoredChecksum>,
    /// Its size in bytes.
    pub size: u64,
    /// The time of the write.
    pub last_modified: Timestamp,
}

impl Engine {
    /// Stores an object.
    ///
    /// After `Ok` a backend holds every byte, checked against what the client declared, and the
    /// catalogue has committed. After an error the previous version is readable as before.
    pub async fn put(&self, request: PutRequest, body: Incoming) -> Result<Written> {
        let verb = Verb::begin("PutObject");
        let result = self.put_unobserved(request, body).await;
        let backend = result.as_ref().ok().map(|(_, backend)| backend.name());
        self.observe_verb(verb, backend, &result);
        result.map(|(written, _)| written)
    }

    async fn put_unobserved(
        &self,
        request: PutRequest,
        body: Incoming,
    ) -> Result<(Written, Arc<Member>)> {
        let limit = self.inner.settings.max_object_size;
        if body.length > limit.0 {
            return Err(Error::TooLarge { limit });
        }
        self.check_early(request.bucket, &request.key, &request.precondition)
            .await?;
        let size = body.length;
        let plan = WritePlan::draw(self, request, Role::Whole)?;
        let mut attempts = PutAttempts::new(self, Arc::clone(&plan), size);
        let delivery = send(body, self.send_options(), &mut attempts).await?;
        self.report_failover("PutObject", &delivery);
        let backend = Arc::clone(&delivery.copies[0].member);
        let written = self.commit(&plan, size, delivery).await?;
        Ok((written, backend))
    }

    /// Refuses a write whose condition fails already; the commit decides for good.
    pub(crate) async fn check_early(
        &self,
        bucket: BucketId,
        key: &ObjectKey,
        precondition: &Precondition,
    ) -> Result<()> {
        if *precondition == Precondition::None {
            return Ok(());
        }
        let current = self.inner.store.object(bucket, key).await?;
        let etag = current.as_ref().map(|object| &object.etag);
        match (precondition.holds(etag), precondition, etag) {
            // That there is no such key is what the caller relies on.
            (true, Precondition::Absent, _) => self.knows_absence(),
            (true, _, _) => Ok(()),
            (false, Precondition::Match(_), None) => Err(self.absent(Error::NoSuchKey)),
            (false, _, _) => Err(Error::PreconditionFailed),
        }
    }

    pub(crate) fn send_options(&self) -> SendOptions {
        let want_md5 = match self.inner.fleet.all_tell_md5() {
            true => WantMd5::No,
            false => WantMd5::Yes,
        };
        let replay_window = self.inner.settings.replay_window;
        SendOptions {
            copies: COPIES,
            replay_window,
            want_md5,
        }
    }

    pub(crate) fn report_failover<T>(&self, operation: &'static str, delivery: &Delivery<T>) {
        let Some(succeeded) = delivery.copies.last().map(|copy| copy.member.name()) else {
            return;
        };
        for (failed, error) in &delivery.tried.0 {
            let error = base::report(error);
            tracing::warn!(%failed, %succeeded, %error, "write went to another backend");
            self.observe(Event::WriteFailover {
                operation,
                failed,
                succeeded,
            });
        }
    }

    /// Turns a delivery into the key's current version.
    pub(crate) async fn commit(
        &self,
        plan: &WritePlan,
        size: u64,
        delivery: Delivery<Intent>,
    ) -> Result<Written> {
        let Delivery {
            copies,
            digests,
            etag,
            ..
        } = delivery;
        let (copies, intents): (Vec<_>, Vec<_>) = copies.into_iter().map(split).unzip();
        let blob = NewBlob {
            blob: plan.blob,
            size,
            crc64: Some(digests.crc64),
            copies,
        };
        let extent = Extent {
            blob: plan.blob,
            offset: 0,
            length: size,
        };
        let content = Content::Written {
            blobs: vec![blob],
            extents: vec![extent],
        };
        // As on Amazon S3, an object without a checksum of the client's has ours.
        let ours = || StoredChecksum::full_object(digests.crc64.to_checksum());
        let checksum = Some(digests.checksum.unwrap_or_else(ours));
        let last_modified = self.inner.clock.now();
        let version = NewVersion {
            bucket: plan.request.bucket,
            key: plan.request.key.clone(),
            version: plan.version,
            size,
            etag: etag.clone(),
            last_modified,
            headers: plan.request.headers.clone(),
            tags: plan.request.tags.clone(),
            checksum,
            parts: Vec::new(),
            content,
            precondition: plan.request.precondition.clone(),
        };
        self.commit_version(version, intents).await?;
        Ok(Written {
            version: plan.version,
            etag,
            checksum,
            size,
            last_modified,
        })
    }

    /// Commits a version; on anything but success its intents are given up.
    pub(crate) async fn commit_version(
        &self,
        version: NewVersion,
        intents: Vec<Intent>,
    ) -> Result<()> {
        let (verdict, left) = self.inner.store.commit(version, intents).await;
        if !left.is_empty() {
            for intent in left {
                give_up(&self.inner.store, intent, Effect::Unknown).await;
            }
            self.inner.bells.settle();
        }
        match verdict? {
            Verdict::Committed { .. } => {
                self.inner.bells.displaced();
                Ok(())
            }
            Verdict::PreconditionFailed => Err(Error::PreconditionFailed),
            Verdict::Absent => Err(self.absent(Error::NoSuchKey)),
            Verdict::IntentGone | Verdict::Changed | Verdict::Overtaken => Err(Error::Conflict),
            Verdict::NoSuchBucket => Err(Error::NoSuchBucket),
        }
    }
}

fn split(sent: Sent<Intent>) -> (NewCopy, Intent) {
    let copy = NewCopy {
        copy: sent.token.copy(),
        etag: sent.stored.etag,
        version: sent.stored.version,
        crc64: sent.stored.crc64,
    };
    (copy, sent.token)
}

/// Settles an intent whose attempt failed. A failing catalogue leaves it to the reaper.
pub(crate) async fn give_up(store: &Store, intent: Intent, effect: Effect) {
    let settled = match effect {
        Effect::None => store.withdraw_intent(intent).await,
        Effect::Unknown => store.abandon_intent(intent).await,
    };
    if let Err(error) = settled {
        tracing::warn!(error = %base::report(&error), "could not resolve an intent, it will expire");
    }
}

/// What stays the same over all attempts of one write.
pub(crate) struct WritePlan {
    pub(crate) request: PutRequest,
    pub(crate) bucket: BucketName,
    pub(crate) version: VersionId,
    pub(crate) blob: BlobId,
    pub(crate) role: Role,
    catalogue: uuid::Uuid,
    label_key: Arc<LabelKey>,
}

impl WritePlan {
    pub(crate) fn draw(engine: &Engine, request: PutRequest, role: Role) -> Result<Arc<Self>> {
        Self::for_version(engine, request, role, VersionId::draw(&engine.inner.ids))
    }

    pub(crate) fn for_version(
        engine: &Engine,
        request: PutRequest,
        role: Role,
        version: VersionId,
    ) -> Result<Arc<Self>> {
        let ids = &engine.inner.ids;
        let catalogue = engine.inner.store.catalogue();
        Ok(Arc::new(Self {
            bucket: engine.bucket_name(request.bucket)?,
            version,
            blob: BlobId::draw(ids),
            role,
            catalogue: catalogue.uuid,
            label_key: catalogue.label_key,
            request,
        }))
    }

    /// The key of an attempt to place a blob.
    pub(crate) fn key(&self, copy: CopyId) -> BackendKey {
        backend_key(&self.bucket, &self.request.key, copy)
    }

    /// The key and the metadata of an attempt to place a blob; its sum where it is known already.
    pub(crate) fn place(
        &self,
        backend: &BackendName,
        copy: CopyId,
        blob: BlobId,
        crc64: Option<Crc64>,
    ) -> (BackendKey, PutMeta) {
        let key = self.key(copy);
        let hashed = key.as_str().starts_with(OWN_PREFIX);
        let label = Label {
            catalogue: self.catalogue,
            blob,
            version: self.version,
            role: self.role,
            crc64,
            key: hashed.then(|| self.request.key.clone()),
        };
        let place = LabelPlace {
            label_key: &self.label_key,
            backend,
            key: &key,
        };
        let meta = put_meta(&self.request.headers, &label, place);
        (key, meta)
    }
}

/// Tries the backends that placement names, each with a copy id of its own, then, where a failure
/// was a passing one, once more.
pub(crate) struct PutAttempts {
    engine: Engine,
    plan: Arc<WritePlan>,
    size: u64,
    used: Vec<metastore::model::BackendId>,
    again: bool,
}

impl PutAttempts {
    pub(crate) fn new(engine: &Engine, plan: Arc<WritePlan>, size: u64) -> Self {
        Self {
            engine: engine.clone(),
            plan,
            size,
            used: Vec::new(),
            again: false,
        }
    }

    async fn reserve(
        &mut self,
        tried: &Tried,
    ) -> Result<Option<(Arc<Member>, Guarded, metastore::Reservation)>> {
        let inner = &self.engine.inner;
        let traffic = Traffic {
            ingress: self.size,
            ..Traffic::requests(1)
        };
        let mut refusal = None;
        let chosen = match inner.fleet.choose(&inner.store, self.size, traffic) {
            Ok(chosen) => chosen,
            // A backend has failed already: what the others lack is not the client's answer.
            Err(_) if !tried.0.is_empty() => return Ok(None),
            Err(error) => {
                self.engine.make_room(&error);
                return Err(error);
            }
        };
        for member in chosen {
            if self.used.contains(&member.id) {
                continue;
            }
            // Another request may have been faster, here and there.
            let Some(backend) = member.admit(traffic) else {
                let wanted = ByteSize(self.size);
                refusal = Some(Error::WriteLimited { wanted });
                continue;
            };
            match inner.store.reserve(member.id, self.size).await {
                Ok(room) => {
                    self.used.push(member.id);
                    return Ok(Some((member, backend, room)));
                }
                Err(metastore::Error::NoRoom { wanted }) => {
                    refusal = Some(Error::NoRoom { wanted });
                }
                Err(error) => return Err(error.into()),
            }
        }
        match refusal {
            Some(error) if self.used.is_empty() => {
                self.engine.make_room(&error);
                Err(error)
            }
            _ => Ok(None),
        }
    }
}

impl Engine {
    /// Lets displaced bytes go before their read grace ends, because room is needed.
    pub(crate) fn make_room(&self, error: &Error) {
        if matches!(error, Error::NoRoom { .. }) {
            self.inner.bells.room();
        }
    }
}

#[async_trait]
impl Attempts for PutAttempts {
    type Token = Intent;

    async fn next(&mut self, tried: &Tried) -> Result<Option<Attempt<Intent>>> {
        let mut reserved = self.reserve(tried).await?;
        let passing = tried.0.iter().any(|(_, error)| error.kind.retryable());
        if reserved.is_none() && passing && !self.again {
            self.again = true;
            self.used.clear();
            reserved = self.reserve(tried).await?;
        }
        let Some((member, backend, room)) = reserved else {
            return Ok(None);
        };
        let copy = CopyId::draw(&self.engine.inner.ids);
        let (key, meta) = self.plan.place(member.name(), copy, self.plan.blob, None);
        let intent = NewIntent {
            copy,
            blob: self.plan.blob,
            key: key.clone(),
        };
        let store = self.engine.inner.store.clone();
        let announce = async move { Ok(store.open_intent(intent, room).await?) }.boxed();
        let target = Arc::new(PutTarget { backend, key, meta });
        Ok(Some(Attempt {
            member,
            announce,
            target,
        }))
    }

    async fn give_up(&mut self, token: Intent, effect: Effect) {
        give_up(&self.engine.inner.store, token, effect).await;
        self.engine.inner.bells.settle();
    }
}

/// A whole object on a backend.
struct PutTarget {
    backend: Guarded,
    key: BackendKey,
    meta: PutMeta,
}

#[async_trait]
impl Target for PutTarget {
    async fn put(&self, payload: Payload) -> backend::Result<Stored> {
        self.backend.put(&self.key, &self.meta, payload).await
    }

    async fn look(&self) -> backend::Result<(u64, Stored)> {
        let head = self.backend.head(&self.key, None).await?;
        let stored = Stored {
            etag: head.etag,
            version: head.version,
            crc64: head.crc64,
            proof: Proof::None,
        };
        Ok((head.size, stored))
    }

    async fn read_back(&self) -> Option<backend::Result<Fetched>> {
        Some(self.backend.get(&self.key, None, None).await)
    }
}
