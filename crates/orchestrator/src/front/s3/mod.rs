//! The S3 pipeline: what a request wants, who sent it, whether it may, and the call.
//!
//! Everything up to the call is decided from the head of the request, without reading a byte of its
//! body; what is waited for is a lookup of a bucket that clients made, at most. Whether one more request
//! may run is asked last, so that nobody who cannot prove who it is takes a place.

mod attributes;
mod buckets;
mod copy;
mod delete;
mod demand;
mod form;
mod late;
mod list;
mod multipart;
mod read;
mod write;

use std::borrow::Cow;
use std::sync::Arc;

use base::{BucketName, ChecksumKind, ObjectKey, Precondition, Tags};
use engine::catalogue::{Bucket, StoredChecksum};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method};
use hyper::body::Incoming;
use s3wire::headers::{self, ObjectChecksum, insert_checksum, unsupported};
use s3wire::sigv4::RequestHead;
use s3wire::{BucketOp, Error, ErrorCode, NamedVersion, ObjectOp, Query, Target, named_version};

use super::access::{Caller, Proof, Rights};
use super::intake::Intake;
use super::listener::HeadSize;
use super::render::{Answer, Failure};
use super::subject::source;
use super::ticket::Ticket;
use super::{Front, check_host, cors};
use crate::config::Verb;
use crate::telemetry::audit::RequestEvent;

/// The region of every bucket. Any region is accepted in signatures, and new buckets are made here
/// whatever region they ask for.
const REGION: &str = "us-east-1";

/// A request that was recognised and let in.
struct Call<'a> {
    front: &'a Front,
    /// The bucket of the target; the caller may use it.
    bucket: Arc<Bucket>,
    /// What the caller may do.
    rights: Arc<Rights>,
    headers: HeaderMap,
    proof: Proof,
    absence: Absence,
    /// The version that the target names; it exists.
    version: Option<NamedVersion>,
    body: Intake,
}

impl Front {
    /// Serves one S3 request. `named` is the bucket that its host names.
    pub(super) async fn serve(
        &self,
        ticket: &mut Ticket,
        parts: Parts,
        head: HeadSize,
        named: Option<&str>,
        body: Incoming,
    ) -> Result<Answer, Failure> {
        if head == HeadSize::TooLarge {
            return Err(Error::from(ErrorCode::RequestHeaderSectionTooLarge).into());
        }
        check_host(&parts)?;
        if parts.method == Method::OPTIONS {
            return self.preflight(ticket, &parts, named);
        }
        let wire = parts.uri.query().unwrap_or("");
        let target = recognise(ticket, &parts, wire, named)?;
        if let Target::Bucket(bucket, BucketOp::PostObject) = &target {
            let post = self.post_object(ticket, bucket, &parts.headers, body);
            return Box::pin(post).await;
        }
        let caller = self.authenticate(ticket, &parts, named)?;
        // What was signed is what is done.
        let query = caller.plus.apply(wire);
        let target = match &query {
            Cow::Borrowed(_) => target,
            Cow::Owned(query) => recognise(ticket, &parts, query, named)?,
        };
        ticket.event = RequestEvent::Operation(target.name());
        let mut headers = parts.headers;
        let version = {
            let query = Query::parse(&query)?;
            hoist(&mut headers, &query)?;
            named_version(&query)?
        };
        // CreateBucket first says whether the bucket is there: see its answer.
        if !matches!(target, Target::Bucket(_, BucketOp::CreateBucket)) {
            refuse_unsupported(&headers)?;
        }
        let place = self.authorise(ticket, &target, &caller.rights).await?;
        if version == Some(NamedVersion::Unknown) {
            return Err(ErrorCode::NoSuchVersion.into());
        }
        ticket.said.reads(&target);
        self.admit(ticket)?;
        let body = Intake::new(
            body,
            caller.cover,
            Arc::clone(&ticket.body),
            Arc::clone(&self.telemetry.metrics),
            self.upload_pace,
        );
        body.check_absent(&parts.method, &headers)?;
        let bucket = match place {
            Place::Service => return self.list_buckets(&target, &caller.rights).await,
            Place::New(name) => {
                return Box::pin(self.create_bucket(&name, &headers, body)).await;
            }
            Place::Bucket(bucket) => bucket,
        };
        let absence = Absence::of(&target, &caller.rights);
        let call = Call {
            front: self,
            bucket,
            rights: caller.rights,
            headers,
            proof: caller.proof,
            absence,
            version,
            body,
        };
        let outcome = call.carry_out(target, ticket).await;
        outcome.map_err(|failure| absence.told(failure))
    }

    /// Takes a place among the requests that are worked on.
    fn admit(&self, ticket: &mut Ticket) -> Result<(), Failure> {
        let Some(permit) = self.pools.admit(ticket.method()) else {
            ticket.event = RequestEvent::AdmissionRejected;
            self.telemetry.metrics.admission_rejections.inc([]);
            return Err(Failure::Busy);
        };
        ticket.permit = Some(permit);
        Ok(())
    }

    fn authenticate(
        &self,
        ticket: &mut Ticket,
        parts: &Parts,
        named: Option<&str>,
    ) -> Result<Caller, Failure> {
        let head = RequestHead {
            method: &parts.method,
            path: parts.uri.path(),
            query: parts.uri.query().unwrap_or(""),
            headers: &parts.headers,
        };
        let now = self.engine.clock().now();
        let access = self.access.load();
        access
            .authenticate(head, named, ticket.peer(), now)
            .map_err(|error| {
                ticket.event = RequestEvent::AuthFailure;
                error.into()
            })
    }

    /// Where the request may do what its target says.
    async fn authorise(
        &self,
        ticket: &mut Ticket,
        target: &Target,
        rights: &Rights,
    ) -> Result<Place, Failure> {
        let Some(name) = target.bucket() else {
            return Ok(Place::Service);
        };
        let creates = matches!(target, Target::Bucket(_, BucketOp::CreateBucket));
        let allowed = match target {
            Target::Service(_) => Ok(()),
            Target::Bucket(_, op) => demand::on_bucket(rights, name, op),
            Target::Object(_, key, op) => demand::on_object(rights, name, key.as_str(), op),
        };
        match (self.engine.find_bucket(name).await?, allowed) {
            (Some(bucket), Ok(())) => Ok(Place::Bucket(bucket)),
            (None, _) if creates && rights.are_all() => Ok(Place::New(name.clone())),
            // Whether a name is free is nobody's business.
            (None, _) if !creates => {
                self.engine.knows_absence()?;
                Err(ErrorCode::NoSuchBucket.into())
            }
            (Some(_) | None, _) => {
                ticket.event = RequestEvent::BucketMismatch;
                Err(ErrorCode::AccessDenied.into())
            }
        }
    }

    /// A browser asks what a page may do. Nobody proves anything here, and nothing is done.
    fn preflight(
        &self,
        ticket: &mut Ticket,
        parts: &Parts,
        named: Option<&str>,
    ) -> Result<Answer, Failure> {
        ticket.event = RequestEvent::Operation("Preflight");
        ticket.operation = Some("Preflight");
        let path = parts.uri.path();
        let found = match named {
            None => Target::parse(&Method::GET, path, None, &HeaderMap::new()),
            Some(name) => Target::parse_in(name, &Method::GET, path, None, &HeaderMap::new()),
        };
        let name = found?.bucket().cloned();
        ticket.bucket.clone_from(&name);
        let rules = name.and_then(|name| self.access.load().cors(&name));
        let headers = cors::preflight(rules.as_deref(), &parts.headers)?;
        Ok(Answer::empty(headers))
    }
}

/// What a caller is told of a key that is not there: who may not list keys learns none of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Absence {
    /// That it is not there.
    Shown,
    /// That it may not have it.
    Hidden,
}

impl Absence {
    /// Of the key that an operation on an object reads.
    fn of(target: &Target, rights: &Rights) -> Self {
        let own = || target.bucket().zip(target.key());
        match source(target).or_else(own) {
            Some((bucket, key)) => Self::of_key(rights, bucket, key),
            None => Self::Shown,
        }
    }

    fn of_key(rights: &Rights, bucket: &BucketName, key: &ObjectKey) -> Self {
        match rights.allow(Verb::List, bucket, key.as_str()) {
            true => Self::Shown,
            false => Self::Hidden,
        }
    }

    fn told(self, failure: Failure) -> Failure {
        match (self, &failure) {
            (Self::Hidden, Failure::Engine(engine::Error::NoSuchKey)) => {
                ErrorCode::AccessDenied.into()
            }
            (Self::Hidden | Self::Shown, _) => failure,
        }
    }
}

/// Where a request is at work.
enum Place {
    /// Over all buckets.
    Service,
    /// In a bucket that is still to be made.
    New(BucketName),
    /// In a bucket.
    Bucket(Arc<Bucket>),
}

/// Finds out what a request wants.
fn recognise(
    ticket: &mut Ticket,
    parts: &Parts,
    query: &str,
    named: Option<&str>,
) -> Result<Target, Failure> {
    let (method, path) = (&parts.method, parts.uri.path());
    let parsed = match named {
        None => Target::parse(method, path, Some(query), &parts.headers),
        Some(name) => Target::parse_in(name, method, path, Some(query), &parts.headers),
    };
    let target = parsed.map_err(|error| {
        ticket.event = match error.code {
            ErrorCode::InvalidUri | ErrorCode::InvalidBucketName | ErrorCode::KeyTooLong => {
                RequestEvent::InvalidPath
            }
            ErrorCode::MethodNotAllowed => RequestEvent::MethodNotAllowed,
            ErrorCode::NotImplemented => RequestEvent::NotImplemented,
            _ => RequestEvent::InvalidRequest,
        };
        Failure::from(error)
    })?;
    ticket.operation = Some(target.name());
    ticket.bucket = target.bucket().cloned();
    ticket.key = target.key().cloned();
    Ok(target)
}

fn refuse_unsupported(headers: &HeaderMap) -> Result<(), Error> {
    let Some(name) = unsupported(headers) else {
        return Ok(());
    };
    let message = format!("The header {name} is not implemented with this value.");
    Err(Error::new(ErrorCode::NotImplemented, message))
}

/// Headers that came as parameters of a presigned URL take their place among the others.
fn hoist(headers: &mut HeaderMap, query: &Query<'_>) -> Result<(), Error> {
    for (name, value) in query.hoisted()? {
        match headers.get(&name) {
            None => {
                headers.insert(name, value);
            }
            Some(given) if *given == value => {}
            Some(_) => {
                let message = format!("{name} differs between the header and the query.");
                return Err(Error::new(ErrorCode::InvalidRequest, message));
            }
        }
    }
    Ok(())
}

impl Call<'_> {
    async fn carry_out(self, target: Target, ticket: &Ticket) -> Result<Answer, Failure> {
        match target {
            Target::Service(_) => Err(ErrorCode::InvalidRequest.into()),
            Target::Bucket(_, op) => self.on_bucket(op, ticket).await,
            Target::Object(_, key, op) => self.on_object(key, op, ticket).await,
        }
    }

    async fn on_bucket(self, op: BucketOp, ticket: &Ticket) -> Result<Answer, Failure> {
        match op {
            BucketOp::HeadBucket => Ok(Self::head_bucket()),
            BucketOp::GetBucketLocation => Ok(Self::location()),
            BucketOp::GetBucketVersioning => Ok(Self::versioning()),
            BucketOp::GetBucketAcl => Ok(Self::get_acl()),
            BucketOp::PutBucketAcl => Box::pin(self.put_acl()).await,
            BucketOp::GetBucketCors => self.get_cors(),
            BucketOp::CreateBucket => Box::pin(self.create_again()).await,
            BucketOp::DeleteBucket => Box::pin(self.delete_bucket()).await,
            BucketOp::ListObjectsV1(params) => Box::pin(self.list_v1(params)).await,
            BucketOp::ListObjectsV2(params) => Box::pin(self.list_v2(params)).await,
            BucketOp::ListObjectVersions(params) => Box::pin(self.list_versions(params)).await,
            BucketOp::ListMultipartUploads(params) => Box::pin(self.list_uploads(params)).await,
            BucketOp::DeleteObjects => Box::pin(self.delete_objects(ticket)).await,
            // A form carries its own signature and goes its own way.
            BucketOp::PostObject => Err(ErrorCode::InvalidRequest.into()),
        }
    }

    /// Each operation is a future of its own on the heap: none of them makes those of the others, nor
    /// what they are moved through, as large as the largest.
    async fn on_object(
        self,
        key: ObjectKey,
        op: ObjectOp,
        ticket: &Ticket,
    ) -> Result<Answer, Failure> {
        match op {
            ObjectOp::GetObject(params) => Box::pin(self.get(key, &params)).await,
            ObjectOp::HeadObject(params) => Box::pin(self.head(key, &params)).await,
            ObjectOp::PutObject => Box::pin(self.put(key)).await,
            ObjectOp::CopyObject(source) => Box::pin(self.copy(key, source, ticket)).await,
            ObjectOp::DeleteObject => Box::pin(self.delete(key)).await,
            ObjectOp::CreateMultipartUpload => Box::pin(self.create_upload(key)).await,
            ObjectOp::UploadPart { upload_id, part } => {
                Box::pin(self.upload_part(key, upload_id, part)).await
            }
            ObjectOp::UploadPartCopy(params) => {
                Box::pin(self.upload_part_copy(key, params, ticket)).await
            }
            ObjectOp::CompleteMultipartUpload { upload_id } => {
                Box::pin(self.complete_upload(key, upload_id, ticket)).await
            }
            ObjectOp::AbortMultipartUpload { upload_id } => {
                Box::pin(self.abort_upload(&key, upload_id)).await
            }
            ObjectOp::ListParts(params) => Box::pin(self.list_parts(&key, params)).await,
            ObjectOp::GetObjectAttributes => Box::pin(self.attributes(&key)).await,
            ObjectOp::GetObjectTagging => Box::pin(self.get_tags(&key)).await,
            ObjectOp::PutObjectTagging => Box::pin(self.put_tags(key)).await,
            ObjectOp::DeleteObjectTagging => Box::pin(self.delete_tags(key)).await,
            ObjectOp::GetObjectAcl => Box::pin(self.get_object_acl(&key)).await,
            ObjectOp::PutObjectAcl => Box::pin(self.put_object_acl(&key)).await,
        }
    }

    /// What must hold of the key for a write to happen, if the caller may know. Whether an object has a
    /// certain tag is part of its content; whether there is one, its writer learns anyway.
    fn precondition(&self, key: &ObjectKey) -> Result<Precondition, Failure> {
        let precondition = headers::write_precondition(&self.headers)?;
        if let Precondition::Match(_) = precondition {
            let name = &self.bucket.name;
            demand::granted(self.rights.allow(Verb::Read, name, key.as_str()))?;
        }
        Ok(precondition)
    }

    /// The tags that a write brings along, if the caller may give any.
    fn given_tags(&self, key: &ObjectKey) -> Result<Tags, Failure> {
        let tags = headers::tagging(&self.headers)?;
        if !tags.is_empty() {
            let name = &self.bucket.name;
            demand::granted(self.rights.allow(Verb::Tags, name, key.as_str()))?;
        }
        Ok(tags)
    }
}

/// The checksum of an object as answers show it.
fn object_checksum(stored: &StoredChecksum, parts: Option<u32>) -> ObjectChecksum {
    let parts = match stored.kind {
        ChecksumKind::Composite => parts,
        ChecksumKind::FullObject => None,
    };
    ObjectChecksum {
        checksum: stored.checksum,
        parts,
    }
}

/// `x-amz-checksum-*` and `x-amz-checksum-type`.
fn put_checksum(headers: &mut HeaderMap, stored: &StoredChecksum, parts: Option<u32>) {
    insert_checksum(headers, &object_checksum(stored, parts));
    put_checksum_kind(headers, stored.kind);
}

/// `x-amz-checksum-type`
fn put_checksum_kind(headers: &mut HeaderMap, kind: ChecksumKind) {
    let kind = HeaderValue::from_static(kind.as_str());
    headers.insert("x-amz-checksum-type", kind);
}

/// Numbers as a header's value.
fn decimal(number: impl Into<u64>) -> HeaderValue {
    HeaderValue::from(number.into())
}
