//! The calls on uploads in parts.

use base::{ChecksumAlgorithm, PartNumber};
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method};
use s3wire::xml::{
    CompletePart, CompleteResult, CopyResult, CopyRoot, PartEntry, PartsPage, UploadStarted,
    UploadsPage, XmlError, print_complete,
};

use super::S3Backend;
use super::classify::Access;
use super::client::RequestContent;
use super::objects::{X_AMZ_COPY_SOURCE, crc64_of, stored, version_id};
use super::pages::EMPTY_PAGES_MAX;
use crate::{
    BackendKey, Copied, Effect, Error, Kind, ListedUpload, PartFact, PartListPage, PartSource,
    Payload, Proof, PutMeta, Result, Stored, StoredPart, UploadListPage,
};

/// Parts or uploads that are asked for at once.
const ENTRIES_PER_PAGE: u32 = 1000;

const X_AMZ_CHECKSUM_ALGORITHM: HeaderName = HeaderName::from_static("x-amz-checksum-algorithm");
const X_AMZ_COPY_SOURCE_RANGE: HeaderName = HeaderName::from_static("x-amz-copy-source-range");

impl S3Backend {
    pub(super) async fn begin_upload(&self, key: &BackendKey, meta: &PutMeta) -> Result<String> {
        let mut call = self
            .client
            .object("create_upload", Access::Write, Method::POST, key)
            .flag("uploads")
            .object_headers(&meta.headers);
        // Parts with checksums are refused unless the upload announced them.
        if self.client.policy.trailers(self.known()) {
            let name = ChecksumAlgorithm::Crc64Nvme.as_str();
            call = call.header(X_AMZ_CHECKSUM_ALGORITHM, HeaderValue::from_static(name));
        }
        let (_, document) = self.client.ask(call, Bytes::new()).await?;
        let started = UploadStarted::from_xml(&document).map_err(|error| {
            self.client
                .nonsense(Access::Write, "create_upload")
                .with_source(error)
        })?;
        Ok(started.upload_id)
    }

    pub(super) async fn put_part(
        &self,
        key: &BackendKey,
        upload: &str,
        number: u32,
        payload: Payload,
    ) -> Result<Stored> {
        let cover = self.client.policy.part(self.known(), &payload);
        let staged = self.staged("upload_part", payload).await?;
        let call = self
            .client
            .object("upload_part", Access::Write, Method::PUT, key)
            .query("partNumber", number.to_string())
            .query("uploadId", upload);
        let reply = self
            .client
            .send(call, RequestContent::Object(staged, cover))
            .await?;
        Ok(stored(&reply.headers, cover.proof()))
    }

    pub(super) async fn copy_part(
        &self,
        key: &BackendKey,
        upload: &str,
        number: u32,
        source: &PartSource,
    ) -> Result<Copied> {
        let operation = "upload_part_copy";
        let mut call = self
            .client
            .object(operation, Access::Write, Method::PUT, key)
            .query("partNumber", number.to_string())
            .query("uploadId", upload)
            .header(
                X_AMZ_COPY_SOURCE,
                self.copy_source(&source.key, source.version.as_deref()),
            );
        if let Some(range) = source.range {
            let text = s3wire::headers::print_range(range);
            let value = HeaderValue::try_from(text).expect("a range is a header value");
            call = call.header(X_AMZ_COPY_SOURCE_RANGE, value);
        }
        let (_, document) = self.client.ask(call, Bytes::new()).await?;
        let result = CopyResult::from_xml(&document, CopyRoot::Part);
        let result = self.client.settle(operation, result)?;
        Ok(Copied {
            etag: Some(result.etag),
            version: None,
            crc64: result.checksum.as_ref().and_then(crc64_of),
        })
    }

    pub(super) async fn finish_upload(
        &self,
        key: &BackendKey,
        upload: &str,
        parts: &[PartFact],
    ) -> Result<Stored> {
        let operation = "complete_upload";
        let checksums = self.client.policy.trailers(self.known());
        let named: Option<Vec<CompletePart>> = parts
            .iter()
            .map(|part| {
                let number = PartNumber::try_from(u64::from(part.number)).ok()?;
                let checksum = part
                    .crc64
                    .filter(|_| checksums)
                    .map(|crc64| crc64.to_checksum());
                Some(CompletePart {
                    part: number,
                    etag: part.etag.clone(),
                    checksum,
                })
            })
            .collect();
        let named = named.ok_or_else(|| {
            self.client
                .error(Kind::InvalidPart, Effect::None, operation)
        })?;
        let call = self
            .client
            .object(operation, Access::Write, Method::POST, key)
            .query("uploadId", upload)
            .header(
                http::header::CONTENT_TYPE,
                HeaderValue::from_static("application/xml"),
            );
        let (headers, document) = self.client.ask(call, print_complete(&named).into()).await?;
        let (etag, crc64) = match CompleteResult::from_xml(&document) {
            // Ceph before 17 answers with an empty entity tag: a success all the same.
            Err(XmlError::Missing { element: "ETag" }) => (None, None),
            answer => {
                let result = self.client.settle(operation, answer)?;
                (
                    Some(result.etag),
                    result.checksum.as_ref().and_then(crc64_of),
                )
            }
        };
        Ok(Stored {
            etag,
            version: version_id(&headers),
            crc64,
            proof: Proof::None,
        })
    }

    pub(super) async fn end_upload(&self, key: &BackendKey, upload: &str) -> Result<()> {
        let call = self
            .client
            .object("abort_upload", Access::Write, Method::DELETE, key)
            .query("uploadId", upload);
        self.client
            .order(call)
            .await
            .map(|_| ())
            .map_err(missing_upload)
    }

    pub(super) async fn held_parts(
        &self,
        key: &BackendKey,
        upload: &str,
        after: u32,
    ) -> Result<PartListPage> {
        let mut from = after;
        loop {
            let mut page = self.parts_page(key, upload, from).await?;
            let next = page.next_part_number_marker.filter(|next| *next > from);
            let number = |part: &PartEntry| u32::from(part.part.get());
            // Some servers keep no order within a page.
            page.parts.sort_by_key(number);
            if page.parts.first().is_some_and(|part| number(part) <= after) {
                return Err(self.stuck("list_parts"));
            }
            if page.parts.is_empty() && page.is_truncated {
                // Part numbers end, and so does this.
                from = next.ok_or_else(|| self.stuck("list_parts"))?;
                continue;
            }
            let parts = page.parts.into_iter().map(|part| StoredPart {
                number: u32::from(part.part.get()),
                etag: part.etag,
                size: part.size,
            });
            return Ok(PartListPage {
                parts: parts.collect(),
                truncated: page.is_truncated,
            });
        }
    }

    async fn parts_page(&self, key: &BackendKey, upload: &str, after: u32) -> Result<PartsPage> {
        let operation = "list_parts";
        let call = self
            .client
            .object(operation, Access::Read, Method::GET, key)
            .query("max-parts", ENTRIES_PER_PAGE.to_string())
            .query("part-number-marker", after.to_string())
            .query("uploadId", upload);
        let answer = self.client.ask(call, Bytes::new()).await;
        let (_, document) = answer.map_err(unknown_upload)?;
        PartsPage::from_xml(&document).map_err(|error| {
            self.client
                .nonsense(Access::Read, operation)
                .with_source(error)
        })
    }

    pub(super) async fn open_uploads(
        &self,
        prefix: &str,
        after: Option<&ListedUpload>,
    ) -> Result<UploadListPage> {
        let mut from = after.cloned();
        for _ in 0..EMPTY_PAGES_MAX {
            let page = self.uploads_page(prefix, from.as_ref()).await?;
            if page.entries.is_empty() && page.is_truncated {
                let next = page.next_key_marker.map(|key| ListedUpload {
                    key,
                    upload: page.next_upload_id_marker.unwrap_or_default(),
                });
                if next == from {
                    return Err(self.stuck("list_uploads"));
                }
                from = next;
                continue;
            }
            let uploads = page.entries.into_iter();
            return Ok(UploadListPage {
                uploads: uploads
                    .map(|entry| ListedUpload {
                        key: entry.key,
                        upload: entry.upload_id,
                    })
                    .collect(),
                truncated: page.is_truncated,
            });
        }
        Err(self.endless("list_uploads"))
    }

    async fn uploads_page(
        &self,
        prefix: &str,
        after: Option<&ListedUpload>,
    ) -> Result<UploadsPage> {
        let operation = "list_uploads";
        let mut call = self
            .client
            .bucket(operation, Access::Read, Method::GET)
            .flag("uploads")
            .query("encoding-type", "url")
            .query("max-uploads", ENTRIES_PER_PAGE.to_string())
            .query("prefix", prefix);
        if let Some(after) = after {
            call = call.query("key-marker", after.key.as_str());
            if !after.upload.is_empty() {
                call = call.query("upload-id-marker", after.upload.as_str());
            }
        }
        let (_, document) = self.client.ask(call, Bytes::new()).await?;
        UploadsPage::from_xml(&document).map_err(|error| {
            self.client
                .nonsense(Access::Read, operation)
                .with_source(error)
        })
    }
}

/// Ceph says NoSuchKey of the parts of an upload that it does not know. A 404 without a document may
/// come from anybody in between and stays `NotFound`: parts are given up for what their list proves.
fn unknown_upload(error: Error) -> Error {
    let words = error.message.as_deref();
    if error.kind == Kind::NotFound && words.is_some_and(|words| words.starts_with("NoSuchKey")) {
        missing_upload(error)
    } else {
        error
    }
}

/// A plain 404 without a document is about the upload, which is all that the call names.
fn missing_upload(error: Error) -> Error {
    match error.kind {
        Kind::NotFound => Error {
            kind: Kind::NoSuchUpload,
            ..error
        },
        Kind::NoSuchUpload
        | Kind::InvalidPart
        | Kind::Precondition
        | Kind::Range
        | Kind::Full
        | Kind::Corrupt
        | Kind::PayloadCut
        | Kind::Denied
        | Kind::Rejected
        | Kind::Unsupported
        | Kind::Throttled
        | Kind::TimedOut
        | Kind::Unavailable => error,
    }
}
