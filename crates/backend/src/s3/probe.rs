//! What this provider does, found out with ten small calls.
//!
//! Every question is asked so that silence, a refusal or nonsense means the conservative answer. A
//! checksum counts as verified only if the right one was taken and a wrong one refused, and as echoed only if
//! every reply that could repeat it did. A provider
//! that does not answer at all, or asks for fewer requests, leaves everything as it was.
//!
//! Calls, at most: put with a right and with a wrong checksum in the header, the same two with a
//! trailer, put under an odd key, list, copy, list uploads, versioning, batch delete. Where the
//! batch delete fails, what was written is removed one by one.

use base::{Crc64, ETag, Md5, Traffic};
use bytes::Bytes;
use http::Method;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use s3wire::sigv4::{PayloadMode, StreamingVariant};
use s3wire::xml::{VersioningStatus, parse_versioning};

use super::S3Backend;
use super::classify::Access;
use super::client::RequestContent;
use super::cover::{BodySigning, TrailerChecksum};
use super::objects::stored;
use super::transport::SendError;
use crate::guard::note_bytes;
use crate::{
    BackendKey, Capabilities, DeleteTarget, Effect, Error, Kind, ListRequest, Payload, Proof,
    PutMeta, Result, Stored,
};

const BODY: &[u8] = b"s3-orchestrator asks what this provider does\n";
/// More than a probe ever leaves behind.
const LISTED_MAX: u32 = 100;

impl S3Backend {
    pub(super) async fn probe_provider(&self) -> Result<Capabilities> {
        let mut probe = Probe::new(self);
        let asked = probe.ask().await;
        let capabilities = match asked {
            Ok(capabilities) => capabilities,
            Err(error) => {
                probe.remove_singly().await;
                return Err(error);
            }
        };
        let batch_delete = probe.remove().await?;
        let capabilities = Capabilities {
            batch_delete,
            ..capabilities
        };
        self.take(capabilities);
        Ok(capabilities)
    }
}

struct Probe<'a> {
    backend: &'a S3Backend,
    root: String,
    /// What is there, or may be.
    left: Vec<DeleteTarget>,
}

impl<'a> Probe<'a> {
    fn new(backend: &'a S3Backend) -> Self {
        let id: u64 = StdRng::from_os_rng().random();
        Self {
            backend,
            root: format!(".s3o/probe/{id:016x}/"),
            left: Vec::new(),
        }
    }

    fn key(&self, name: &str) -> BackendKey {
        BackendKey::new(&format!("{}{name}", self.root)).expect("the probe's keys are legal")
    }

    async fn ask(&mut self) -> Result<Capabilities> {
        let (first, header_taken) = self.put_first().await?;
        let checksum_header = header_taken && {
            let wrong = BodySigning {
                header: Some(wrong()),
                ..self.plain()
            };
            self.refuses(wrong).await?
        };
        let trailed = if checksum_header {
            self.verifies_trailers().await?
        } else {
            None
        };
        let echoes = |reply: &Stored| reply.crc64 == Some(Crc64::of(BODY));
        let odd_keys = self.keeps_odd_keys().await?;
        let copy = self.copies().await?;
        Ok(Capabilities {
            md5_etag: first.etag.as_ref().and_then(ETag::as_md5) == Some(Md5::of(BODY)),
            checksum_header,
            checksum_trailer: trailed.is_some(),
            echoes_checksum: checksum_header
                && echoes(&first)
                && trailed.as_ref().is_none_or(echoes),
            batch_delete: false,
            versioned: self.keeps_versions(first.version.as_deref()).await?,
            copy,
            // Whoever copies objects copies parts; where one does not, its refusal says so.
            part_copy: copy,
            list_uploads: answered(self.backend.open_uploads(&self.root, None).await)?.is_some(),
            odd_keys,
        })
    }

    /// A body without checksum, in the mode of the others.
    fn plain(&self) -> BodySigning {
        let payload = Payload {
            crc64: None,
            ..Payload::from_bytes(Bytes::from_static(BODY))
        };
        self.backend
            .client
            .policy
            .object(Capabilities::UNKNOWN, &payload)
    }

    async fn put(&mut self, key: BackendKey, cover: BodySigning) -> Result<Stored> {
        let backend = self.backend;
        let payload = Payload::from_bytes(Bytes::from_static(BODY));
        let staged = backend.staged("probe", payload).await?;
        let call = backend
            .client
            .object("probe", Access::Write, Method::PUT, &key);
        note_bytes(Traffic {
            ingress: BODY.len() as u64,
            ..Traffic::NONE
        });
        let sent = backend
            .client
            .send(call, RequestContent::Object(staged, cover))
            .await;
        match sent {
            Ok(reply) => {
                let stored = stored(&reply.headers, Proof::None);
                self.leave(key, stored.version.clone());
                Ok(stored)
            }
            Err(error) => {
                if error.effect == Effect::Unknown {
                    self.leave(key, None);
                }
                Err(error)
            }
        }
    }

    /// Notes what is to be removed.
    fn leave(&mut self, key: BackendKey, version: Option<String>) {
        let target = DeleteTarget { key, version };
        if !self.left.contains(&target) {
            self.left.push(target);
        }
    }

    /// The first object; whether it was taken with a checksum in its header.
    async fn put_first(&mut self) -> Result<(Stored, bool)> {
        let key = self.key("first");
        if self.backend.client.policy.checksums() {
            let right = BodySigning {
                header: Some(Crc64::of(BODY)),
                ..self.plain()
            };
            match self.put(key.clone(), right).await {
                Ok(stored) => return Ok((stored, true)),
                Err(error) => match error.kind {
                    Kind::Rejected | Kind::Unsupported | Kind::Corrupt => {}
                    Kind::NotFound
                    | Kind::NoSuchUpload
                    | Kind::InvalidPart
                    | Kind::Precondition
                    | Kind::Range
                    | Kind::Full
                    | Kind::PayloadCut
                    | Kind::Denied
                    | Kind::Throttled
                    | Kind::TimedOut
                    | Kind::Unavailable => return Err(error),
                },
            }
        }
        let plain = self.plain();
        Ok((self.put(key, plain).await?, false))
    }

    /// Whether a body with a wrong checksum is refused for good.
    async fn refuses(&mut self, cover: BodySigning) -> Result<bool> {
        match self.put(self.key("first"), cover).await {
            Ok(_) => Ok(false),
            Err(error) if is_no_answer(&error) => Err(error),
            Err(error) => Ok(matches!(error.kind, Kind::Corrupt | Kind::Rejected)),
        }
    }

    /// The reply to a body with a checksum in its trailer, where a wrong one is refused.
    async fn verifies_trailers(&mut self) -> Result<Option<Stored>> {
        let everything = Capabilities {
            checksum_trailer: true,
            ..Capabilities::UNKNOWN
        };
        if !self.backend.client.policy.trailers(everything) {
            return Ok(None);
        }
        let right = BodySigning {
            mode: PayloadMode::Streaming(StreamingVariant::UnsignedTrailer),
            header: None,
            md5: None,
            trailer: TrailerChecksum::Computed,
        };
        let taken = self.put(self.key("first"), right).await;
        let Some(taken) = answered(taken)? else {
            return Ok(None);
        };
        let wrong = BodySigning {
            trailer: TrailerChecksum::Given(wrong()),
            ..right
        };
        Ok(self.refuses(wrong).await?.then_some(taken))
    }

    /// Whether a key that looks like a path to be tidied up is listed as it was given. What a
    /// provider makes of it instead still lies below our root, and is removed as well.
    async fn keeps_odd_keys(&mut self) -> Result<bool> {
        let odd = self.key("odd//./../100%25");
        let plain = self.plain();
        let taken = answered(self.put(odd.clone(), plain).await)?.is_some();
        let request = ListRequest {
            prefix: self.root.clone(),
            after: None,
            max_keys: LISTED_MAX,
        };
        let Some(page) = answered(self.backend.list_objects(&request).await)? else {
            return Ok(false);
        };
        let mut kept = false;
        for listed in page.objects {
            kept |= listed.key == odd.as_str();
            let known = self
                .left
                .iter()
                .any(|target| target.key.as_str() == listed.key);
            if let (false, Some(key)) = (known, BackendKey::new(&listed.key)) {
                self.leave(key, None);
            }
        }
        Ok(taken && kept)
    }

    async fn copies(&mut self) -> Result<bool> {
        let (source, target) = (self.key("first"), self.key("copy"));
        let meta = PutMeta::default();
        let copied = self
            .backend
            .copy_object(&source, None, &target, &meta)
            .await;
        let version = copied
            .as_ref()
            .ok()
            .and_then(|copied| copied.version.clone());
        if copied.is_ok() || copied.as_ref().is_err_and(|e| e.effect == Effect::Unknown) {
            self.leave(target, version);
        }
        Ok(answered(copied)?.is_some())
    }

    async fn keeps_versions(&self, version: Option<&str>) -> Result<bool> {
        if version.is_some() {
            return Ok(true);
        }
        let call = self
            .backend
            .client
            .bucket("probe", Access::Read, Method::GET)
            .flag("versioning");
        let answer = answered(self.backend.client.ask(call, Bytes::new()).await)?;
        let status = answer.and_then(|(_, document)| parse_versioning(&document).ok());
        Ok(match status {
            // Suspended: what was written before still has its versions.
            Some(VersioningStatus::Enabled | VersioningStatus::Suspended) => true,
            Some(VersioningStatus::Off) | None => false,
        })
    }

    /// Removes everything with one batch delete; whether that worked.
    async fn remove(&mut self) -> Result<bool> {
        let failed = answered(self.backend.delete_batch(&self.left).await);
        match failed {
            Ok(Some(failed)) if failed.is_empty() => Ok(true),
            Ok(_) => {
                self.remove_singly().await;
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    async fn remove_singly(&mut self) {
        for target in self.left.drain(..) {
            if let Err(error) = self.backend.delete_object(&target).await
                && error.kind != Kind::NotFound
            {
                let error = base::report(&error);
                tracing::warn!(backend = %self.backend.client.name, key = %target.key, %error,
                    "could not delete an object of the probe");
            }
        }
    }
}

/// A checksum that the body does not have.
fn wrong() -> Crc64 {
    Crc64(!Crc64::of(BODY).0)
}

/// Whether the question is still open: asked again later, it may be answered.
fn is_no_answer(error: &Error) -> bool {
    let silent = |error: &Error| {
        error
            .source
            .as_ref()
            .is_some_and(|source| source.downcast_ref::<SendError>().is_some())
    };
    error.kind == Kind::Throttled || silent(error)
}

/// The answer, if it is one; nothing where the provider refused or failed.
fn answered<T>(result: Result<T>) -> Result<Option<T>> {
    match result {
        Ok(answer) => Ok(Some(answer)),
        Err(error) if is_no_answer(&error) => Err(error),
        Err(_) => Ok(None),
    }
}
