//! Multipart uploads: Create, UploadPart, Complete, Abort, ListParts.

use base::{ChecksumAlgorithm, ObjectKey, PartNumber, UploadId};
use engine::{CompleteRequest, CompletedPart, CreateUpload, Engine, PartRequest};
use http::{HeaderMap, HeaderValue};
use s3wire::headers::{self, ObjectChecksum, UploadChecksum, insert_checksum};
use s3wire::xml::{
    COMPLETE_BODY_BYTES_MAX, CompletePart, CompleteResult, PartEntry, PartsPage, UploadStarted,
    parse_complete,
};
use s3wire::{Error, ErrorCode, ListParts};

use super::super::render::{Answer, Failure};
use super::super::ticket::Ticket;
use super::late::in_time;
use super::write::{refused_early, stored};
use super::{Call, object_checksum, put_checksum_kind};

impl Call<'_> {
    pub(super) async fn create_upload(self, key: ObjectKey) -> Result<Answer, Failure> {
        let checksum = headers::upload_checksum(&self.headers)?;
        let request = CreateUpload {
            bucket: self.bucket.id,
            key: key.clone(),
            headers: headers::object_headers(&self.headers)?,
            tags: self.given_tags(&key)?,
            checksum: checksum.map(|checksum| (checksum.algorithm, checksum.kind)),
        };
        let upload = self.front.engine.create_upload(request).await?;
        let document = UploadStarted {
            bucket: self.bucket.name.as_str().to_owned(),
            key: key.as_str().to_owned(),
            upload_id: upload.to_string(),
        };
        let mut answer = Answer::xml(document.to_xml());
        if let Some(UploadChecksum { algorithm, kind }) = checksum {
            let headers = &mut answer.headers;
            let name = HeaderValue::from_static(algorithm.as_str());
            headers.insert("x-amz-checksum-algorithm", name);
            put_checksum_kind(headers, kind);
        }
        Ok(answer)
    }

    pub(super) async fn upload_part(
        self,
        key: ObjectKey,
        upload: UploadId,
        part: PartNumber,
    ) -> Result<Answer, Failure> {
        let request = PartRequest {
            bucket: self.bucket.id,
            key,
            upload,
            number: u32::from(part.get()),
        };
        let body = self.body.into_incoming(&self.headers)?;
        let part = self.front.engine.upload_part(request, body).await;
        let part = part.map_err(|error| refused_early(&self.front.telemetry.metrics, error))?;
        let mut headers = stored(&part.etag, None);
        if let Some(checksum) = part.checksum {
            insert_checksum(
                &mut headers,
                &ObjectChecksum {
                    checksum,
                    parts: None,
                },
            );
        }
        Ok(Answer::empty(headers))
    }

    pub(super) async fn complete_upload(
        self,
        key: ObjectKey,
        upload: UploadId,
        ticket: &Ticket,
    ) -> Result<Answer, Failure> {
        let (checksum, kind) = headers::complete_claim(&self.headers)?;
        let precondition = self.precondition(&key)?;
        let size = object_size(&self.headers)?;
        let of_body = without_checksums(&self.headers);
        let (body, _) = self
            .body
            .read_whole(&of_body, COMPLETE_BODY_BYTES_MAX)
            .await?;
        let parts = parse_complete(&body)?;
        let engine = self.front.engine.clone();
        if let (Some(kind), Ok((record, _, _))) = (
            kind,
            engine.list_parts(self.bucket.id, &key, upload, 0, 0).await,
        ) && record
            .checksum
            .is_some_and(|(_, announced)| announced != kind)
        {
            return Err(engine::Error::ChecksumMismatch.into());
        }
        if checksum.is_some_and(|claimed| {
            claimed
                .parts
                .is_some_and(|count| usize::try_from(count) != Ok(parts.len()))
        }) {
            return Err(engine::Error::BadDigest {
                digest: "checksum of parts",
            }
            .into());
        }
        let request = CompleteRequest {
            bucket: self.bucket.id,
            key: key.clone(),
            upload,
            parts: parts.into_iter().map(listed).collect(),
            checksum: checksum.map(|claimed| claimed.checksum),
            size,
            precondition,
        };
        let named = Named {
            location: ticket.site.locate(&self.bucket.name, &key),
            bucket: self.bucket.name.as_str().to_owned(),
            key: key.as_str().to_owned(),
        };
        in_time(complete(engine, request, named), ticket).await
    }

    pub(super) async fn abort_upload(
        self,
        key: &ObjectKey,
        upload: UploadId,
    ) -> Result<Answer, Failure> {
        self.front
            .engine
            .abort_upload(self.bucket.id, key, upload)
            .await?;
        Ok(Answer::silent())
    }

    pub(super) async fn list_parts(
        self,
        key: &ObjectKey,
        params: ListParts,
    ) -> Result<Answer, Failure> {
        let (upload, marker, max) = (
            params.upload_id,
            params.part_number_marker,
            params.max_parts,
        );
        let (record, rows, truncated) = self
            .front
            .engine
            .list_parts(self.bucket.id, key, upload, marker, max)
            .await?;
        // A checksum that only the part's sender thought of is not the upload's.
        let announced = record.checksum.is_some();
        let parts: Result<Vec<_>, _> = rows
            .into_iter()
            .map(|row| {
                Ok::<_, base::PartNumberError>(PartEntry {
                    part: PartNumber::try_from(u64::from(row.number))?,
                    etag: row.etag,
                    size: row.size,
                    last_modified: row.last_modified,
                    checksum: row.checksum.filter(|_| announced),
                })
            })
            .collect();
        let parts = parts.map_err(|_| Failure::Defect)?;
        let last = parts.last().map(|part| u32::from(part.part.get()));
        // A page that may hold nothing is the last one, as with objects.
        let is_truncated = truncated && max > 0;
        let page = PartsPage {
            bucket: self.bucket.name.as_str().to_owned(),
            key: key.as_str().to_owned(),
            upload_id: upload.to_string(),
            part_number_marker: marker,
            next_part_number_marker: last.filter(|_| is_truncated),
            max_parts: max,
            is_truncated,
            checksum: record
                .checksum
                .map(|(algorithm, kind)| UploadChecksum { algorithm, kind }),
            encoding: params.encoding,
            parts,
        };
        Ok(Answer::xml(page.to_xml()))
    }
}

/// What the answer to Complete repeats.
#[derive(Debug)]
struct Named {
    location: String,
    bucket: String,
    key: String,
}

async fn complete(
    engine: Engine,
    request: CompleteRequest,
    named: Named,
) -> Result<String, Failure> {
    let count = u32::try_from(request.parts.len()).ok();
    let written = engine.complete_upload(request).await?;
    let document = CompleteResult {
        location: named.location,
        bucket: named.bucket,
        key: named.key,
        etag: written.etag,
        checksum: written
            .checksum
            .map(|stored| object_checksum(&stored, count)),
        kind: written.checksum.map(|stored| stored.kind),
    };
    Ok(document.to_xml())
}

fn listed(part: CompletePart) -> CompletedPart {
    CompletedPart {
        number: u32::from(part.part.get()),
        etag: part.etag,
        checksum: part.checksum,
    }
}

/// `x-amz-mp-object-size`
fn object_size(headers: &HeaderMap) -> Result<Option<u64>, Error> {
    let Some(value) = headers.get("x-amz-mp-object-size") else {
        return Ok(None);
    };
    let text = value.to_str().unwrap_or("");
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    match digits.then(|| text.parse()).and_then(Result::ok) {
        Some(size) => Ok(Some(size)),
        None => Err(Error::new(
            ErrorCode::InvalidRequest,
            "Value for x-amz-mp-object-size header is invalid.",
        )),
    }
}

/// The checksums in the head of a Complete are those of the object, not of the list of parts.
fn without_checksums(headers: &HeaderMap) -> HeaderMap {
    let mut headers = headers.clone();
    for algorithm in ChecksumAlgorithm::ALL {
        headers.remove(algorithm.header());
    }
    headers
}
