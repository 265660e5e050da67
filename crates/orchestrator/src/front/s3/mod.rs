//! The S3 pipeline: what a request wants, who sent it, whether it may, and the call.
//!
//! Everything up to the call is decided from the head of the request, without waiting and without
//! reading a byte of its body. Whether there is room for one more request is asked last, so that
//! nobody who cannot prove who it is takes a place.

mod buckets;
mod copy;
mod delete;
mod list;
mod multipart;
mod read;
mod write;

use std::sync::Arc;

use base::BucketName;
use engine::catalogue::{Bucket, StoredChecksum};
use http::request::Parts;
use http::{HeaderMap, HeaderValue};
use hyper::body::Incoming;
use s3wire::headers::{ObjectChecksum, insert_checksum, unsupported};
use s3wire::sigv4::RequestHead;
use s3wire::{BucketOp, Error, ErrorCode, ObjectOp, Query, Target};

use super::Front;
use super::access::{Caller, Proof};
use super::intake::Intake;
use super::render::{Answer, Failure};
use super::ticket::Ticket;
use crate::telemetry::audit::RequestEvent;

/// The region that is told where one is asked for. Any region is accepted in signatures.
const REGION: &str = "us-east-1";

/// A request that was recognised and let in.
struct Call<'a> {
    front: &'a Front,
    /// The bucket of the target; the caller may use it.
    bucket: Bucket,
    headers: HeaderMap,
    proof: Proof,
    body: Intake,
}

impl Front {
    /// Serves one S3 request.
    pub(super) async fn serve(
        &self,
        ticket: &mut Ticket,
        parts: Parts,
        body: Incoming,
    ) -> Result<Answer, Failure> {
        let target = recognise(ticket, &parts)?;
        let caller = self.authenticate(ticket, &parts)?;
        ticket.event = RequestEvent::Operation(target.name());
        let mut headers = parts.headers;
        hoist(&mut headers, parts.uri.query())?;
        if let Some(name) = unsupported(&headers) {
            let message = format!("The header {name} is not implemented with this value.");
            return Err(Error::new(ErrorCode::NotImplemented, message).into());
        }
        let bucket = match target.bucket() {
            None => None,
            Some(name) => Some(self.authorise(ticket, &target, &caller, name)?),
        };
        let Some(permit) = self.pools.admit(ticket.method()) else {
            ticket.event = RequestEvent::AdmissionRejected;
            self.telemetry.metrics.admission_rejections.inc([]);
            return Err(Failure::Busy);
        };
        ticket.permit = Some(permit);
        let body = Intake::new(
            body,
            caller.cover,
            Arc::clone(&ticket.body),
            Arc::clone(&self.telemetry.metrics),
            self.read_timeout,
        );
        let Some(bucket) = bucket else {
            return self.list_buckets(&target, &caller.bucket);
        };
        let call = Call {
            front: self,
            bucket,
            headers,
            proof: caller.proof,
            body,
        };
        call.carry_out(target, ticket).await
    }

    fn authenticate(&self, ticket: &mut Ticket, parts: &Parts) -> Result<Caller, Failure> {
        let head = RequestHead {
            method: &parts.method,
            path: parts.uri.path(),
            query: parts.uri.query().unwrap_or(""),
            headers: &parts.headers,
        };
        let now = self.engine.clock().now();
        self.access.load().authenticate(head, now).map_err(|error| {
            ticket.event = RequestEvent::AuthFailure;
            error.into()
        })
    }

    /// The bucket, if the caller may do with it what the target says.
    fn authorise(
        &self,
        ticket: &mut Ticket,
        target: &Target,
        caller: &Caller,
        name: &BucketName,
    ) -> Result<Bucket, Failure> {
        let found = self.engine.bucket(name);
        let creates = matches!(target, Target::Bucket(_, BucketOp::CreateBucket));
        match found {
            Some(bucket) if bucket.name == caller.bucket => Ok(bucket.clone()),
            // Whether a name is free is nobody's business.
            None if !creates => Err(ErrorCode::NoSuchBucket.into()),
            Some(_) | None => {
                ticket.event = RequestEvent::BucketMismatch;
                Err(ErrorCode::AccessDenied.into())
            }
        }
    }
}

/// Finds out what a request wants.
fn recognise(ticket: &mut Ticket, parts: &Parts) -> Result<Target, Failure> {
    let parsed = Target::parse(
        &parts.method,
        parts.uri.path(),
        parts.uri.query(),
        &parts.headers,
    );
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

/// Headers that came as parameters of a presigned URL take their place among the others.
fn hoist(headers: &mut HeaderMap, query: Option<&str>) -> Result<(), Error> {
    for (name, value) in Query::parse(query.unwrap_or(""))?.hoisted()? {
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
            Target::Bucket(_, op) => match op {
                BucketOp::HeadBucket => Ok(Self::head_bucket()),
                BucketOp::GetBucketLocation => Ok(Self::location()),
                BucketOp::GetBucketVersioning => Ok(Self::versioning()),
                BucketOp::CreateBucket => Err(ErrorCode::BucketAlreadyOwnedByYou.into()),
                BucketOp::DeleteBucket => Err(Self::delete_bucket()),
                BucketOp::ListObjectsV1(params) => self.list_v1(params),
                BucketOp::ListObjectsV2(params) => self.list_v2(params),
                BucketOp::ListMultipartUploads(params) => self.list_uploads(params),
                BucketOp::DeleteObjects => self.delete_objects(ticket).await,
            },
            Target::Object(_, key, op) => match op {
                ObjectOp::GetObject(params) => self.get(key, &params).await,
                ObjectOp::HeadObject(params) => self.head(key, &params),
                ObjectOp::PutObject => self.put(key).await,
                ObjectOp::CopyObject(source) => self.copy(key, source).await,
                ObjectOp::DeleteObject => self.delete(key).await,
                ObjectOp::CreateMultipartUpload => self.create_upload(key).await,
                ObjectOp::UploadPart { upload_id, part } => {
                    self.upload_part(key, upload_id, part).await
                }
                ObjectOp::UploadPartCopy(params) => self.upload_part_copy(key, params).await,
                ObjectOp::CompleteMultipartUpload { upload_id } => {
                    self.complete_upload(key, upload_id, ticket).await
                }
                ObjectOp::AbortMultipartUpload { upload_id } => {
                    self.abort_upload(&key, upload_id).await
                }
                ObjectOp::ListParts(params) => self.list_parts(&key, params),
            },
        }
    }
}

/// The checksum of an object as answers show it.
fn object_checksum(stored: &StoredChecksum, parts: Option<u32>) -> ObjectChecksum {
    let parts = match stored.kind {
        base::ChecksumKind::Composite => parts,
        base::ChecksumKind::FullObject => None,
    };
    ObjectChecksum {
        checksum: stored.checksum,
        parts,
    }
}

/// `x-amz-checksum-*` and `x-amz-checksum-type`.
fn put_checksum(headers: &mut HeaderMap, stored: &StoredChecksum, parts: Option<u32>) {
    insert_checksum(headers, &object_checksum(stored, parts));
    headers.insert(
        "x-amz-checksum-type",
        HeaderValue::from_static(stored.kind.as_str()),
    );
}

/// Numbers as a header's value.
fn decimal(number: impl Into<u64>) -> HeaderValue {
    HeaderValue::from(number.into())
}
