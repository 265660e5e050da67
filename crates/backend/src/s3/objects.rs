//! The calls on whole objects: put, get, head, delete, copy, list, versions.

use base::{ByteRange, Crc64};
use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream;
use http::header::{CONTENT_LENGTH, IF_NONE_MATCH, RANGE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use s3wire::headers::ObjectChecksum;
use s3wire::xml::{
    CopyResult, CopyRoot, DELETE_KEYS_MAX, Delete, DeleteFailure, DeleteResult, ID_BYTES_MAX,
    ObjectsPageV2, VersionKind, VersionsPage,
};

use super::S3Backend;
use super::classify::{self, Access};
use super::client::{CONTENT_MD5, ProviderRequest, RequestContent, words};
use super::download::Download;
use super::pages::EMPTY_PAGES_MAX;
use super::upload::Staged;
use crate::marker::{marker_key, marker_payload};
use crate::{
    BackendKey, Capabilities, Copied, DeleteTarget, Effect, Error, Fetched, Head, Kind, ListPage,
    ListRequest, Listed, Payload, Proof, PutMeta, Result, Stored, VersionPage, VersionRef,
};

/// Deletes under way at once where there is no batch delete.
const DELETES_AT_ONCE: usize = 8;
/// Versions that are asked for at once.
const VERSIONS_PER_PAGE: u32 = 1000;

pub(super) const X_AMZ_COPY_SOURCE: HeaderName = HeaderName::from_static("x-amz-copy-source");
const X_AMZ_CHECKSUM_MODE: HeaderName = HeaderName::from_static("x-amz-checksum-mode");
const X_AMZ_METADATA_DIRECTIVE: HeaderName = HeaderName::from_static("x-amz-metadata-directive");
const X_AMZ_VERSION_ID: &str = "x-amz-version-id";

impl S3Backend {
    pub(super) async fn check_bucket(&self) -> Result<()> {
        let call = self.client.bucket("check", Access::Read, Method::HEAD);
        match self.client.order(call).await {
            Ok(_) => Ok(()),
            // It is the bucket that is missing: no object, but the place for all of them.
            Err(error) if error.kind == Kind::NotFound => Err(Error {
                kind: Kind::Unavailable,
                ..error
            }),
            Err(error) => Err(error),
        }
    }

    pub(super) async fn put_object(
        &self,
        key: &BackendKey,
        meta: &PutMeta,
        payload: Payload,
    ) -> Result<Stored> {
        let cover = self.client.policy.object(self.known(), &payload);
        let staged = self.staged("put", payload).await?;
        let call = self
            .client
            .object("put", Access::Write, Method::PUT, key)
            .object_headers(&meta.headers);
        let reply = self
            .client
            .send(call, RequestContent::Object(staged, cover))
            .await?;
        Ok(stored(&reply.headers, cover.proof()))
    }

    /// Puts the marker on the condition that there is none.
    pub(super) async fn put_first_marker(&self, content: Bytes) -> Result<()> {
        const OPERATION: &str = "create_marker";
        let payload = marker_payload(&self.client.name, OPERATION, content)?;
        let cover = self.client.policy.object(self.known(), &payload);
        let staged = self.staged(OPERATION, payload).await?;
        let call = self
            .client
            .object(OPERATION, Access::Write, Method::PUT, &marker_key())
            .header(IF_NONE_MATCH, HeaderValue::from_static("*"));
        let sent = self
            .client
            .send(call, RequestContent::Object(staged, cover))
            .await;
        sent.map(|_| ())
    }

    pub(super) async fn staged(&self, operation: &'static str, payload: Payload) -> Result<Staged> {
        Staged::from(payload).await.map_err(|cut| {
            self.client
                .error(Kind::PayloadCut, Effect::None, operation)
                .with_source(cut)
        })
    }

    pub(super) async fn get_object(
        &self,
        key: &BackendKey,
        version: Option<&str>,
        range: Option<ByteRange>,
    ) -> Result<Fetched> {
        let mut call = self.reading("get", Method::GET, key, version);
        if let Some(range) = range {
            if range.length == 0 {
                return Err(self
                    .client
                    .error(Kind::Range, Effect::None, "get")
                    .with_message("no bytes were asked for"));
            }
            let text = s3wire::headers::print_range(range);
            let value = HeaderValue::try_from(text).expect("a range is a header value");
            call = call.header(RANGE, value);
        }
        let reply = self.client.send(call, RequestContent::EMPTY).await?;
        let (length, size) = extent(reply.status, &reply.headers, range)
            .ok_or_else(|| self.misread(&reply.headers))?;
        let head = head_of(&reply.headers, size);
        let body = Download::new(reply.body, length, self.client.name.clone());
        Ok(Fetched {
            head,
            body: Box::pin(body),
        })
    }

    fn misread(&self, headers: &HeaderMap) -> Error {
        let range = headers.get(http::header::CONTENT_RANGE);
        self.client
            .nonsense(Access::Read, "get")
            .with_message(format!(
                "the answer is not what was asked for (Content-Range {:?}, Content-Length {:?})",
                range,
                headers.get(CONTENT_LENGTH),
            ))
    }

    pub(super) async fn head_object(
        &self,
        key: &BackendKey,
        version: Option<&str>,
    ) -> Result<Head> {
        let call = self.reading("head", Method::HEAD, key, version);
        let headers = self.client.order(call).await?;
        let size = content_length(&headers).ok_or_else(|| {
            self.client
                .nonsense(Access::Read, "head")
                .with_message("the answer tells no size")
        })?;
        Ok(head_of(&headers, size))
    }

    fn reading(
        &self,
        operation: &'static str,
        method: Method,
        key: &BackendKey,
        version: Option<&str>,
    ) -> ProviderRequest {
        let call = self
            .client
            .object(operation, Access::Read, method, key)
            .version(version);
        let Capabilities {
            checksum_header,
            checksum_trailer,
            ..
        } = self.known();
        match self.client.policy.checksums() && (checksum_header || checksum_trailer) {
            true => call.header(X_AMZ_CHECKSUM_MODE, HeaderValue::from_static("ENABLED")),
            false => call,
        }
    }

    pub(super) async fn delete_objects(&self, targets: &[DeleteTarget]) -> Vec<Result<()>> {
        let fits_xml = |target: &DeleteTarget| !target.key.as_str().chars().any(char::is_control);
        if targets.len() < 2 || !self.known().batch_delete || !targets.iter().all(fits_xml) {
            let deletes: Vec<_> = targets
                .iter()
                .map(|target| self.delete_object(target))
                .collect();
            return stream::iter(deletes)
                .buffered(DELETES_AT_ONCE)
                .collect()
                .await;
        }
        let mut outcomes = Vec::with_capacity(targets.len());
        for batch in targets.chunks(DELETE_KEYS_MAX) {
            match self.delete_batch(batch).await {
                Ok(failed) => outcomes.extend(
                    batch
                        .iter()
                        .map(|target| self.outcome_in_batch(target, &failed)),
                ),
                Err(error) => outcomes.extend(batch.iter().map(|_| Err(again(&error)))),
            }
        }
        outcomes
    }

    pub(super) async fn delete_object(&self, target: &DeleteTarget) -> Result<()> {
        let call = self
            .client
            .object("delete", Access::Write, Method::DELETE, &target.key)
            .version(target.version.as_deref());
        self.client.order(call).await.map(|_| ())
    }

    /// One DeleteObjects; what failed of it. Google and older servers want the `Content-MD5`.
    pub(super) async fn delete_batch(&self, batch: &[DeleteTarget]) -> Result<Vec<DeleteFailure>> {
        let document = Delete::print(
            batch
                .iter()
                .map(|target| (target.key.as_str(), target.version.as_deref())),
        );
        let document = Bytes::from(document);
        let md5 = HeaderValue::try_from(base::Md5::of(&document).to_base64())
            .expect("base64 is a header value");
        let call = self
            .client
            .bucket("delete", Access::Write, Method::POST)
            .flag("delete")
            .header(CONTENT_MD5, md5)
            .header(
                http::header::CONTENT_TYPE,
                HeaderValue::from_static("application/xml"),
            );
        let (_, answer) = self.client.ask(call, document).await?;
        let result = DeleteResult::from_xml(&answer).map_err(|error| {
            self.client
                .nonsense(Access::Write, "delete")
                .with_source(error)
        })?;
        let named = |failure: &DeleteFailure| {
            batch
                .iter()
                .any(|target| target.key.as_str() == failure.key)
        };
        match result.failed.iter().find(|failure| !named(failure)) {
            None => Ok(result.failed),
            // Whatever it was that failed, nobody can say that it was deleted.
            Some(stray) => Err(self
                .client
                .nonsense(Access::Write, "delete")
                .with_message(words(&stray.code, &stray.message))),
        }
    }

    fn outcome_in_batch(&self, target: &DeleteTarget, failed: &[DeleteFailure]) -> Result<()> {
        let failure = failed.iter().find(|failure| {
            failure.key == target.key.as_str()
                && (failure.version_id.is_none() || failure.version_id == target.version)
        });
        let Some(failure) = failure else {
            return Ok(());
        };
        let (kind, effect) = classify::late_refusal(Access::Write, &failure.code);
        let message = words(&failure.code, &failure.message);
        Err(self
            .client
            .error(kind, effect, "delete")
            .with_message(message))
    }

    pub(super) async fn copy_object(
        &self,
        source: &BackendKey,
        source_version: Option<&str>,
        key: &BackendKey,
        meta: &PutMeta,
    ) -> Result<Copied> {
        let call = self
            .client
            .object("copy", Access::Write, Method::PUT, key)
            .object_headers(&meta.headers)
            .header(X_AMZ_COPY_SOURCE, self.copy_source(source, source_version))
            .header(
                X_AMZ_METADATA_DIRECTIVE,
                HeaderValue::from_static("REPLACE"),
            );
        let (headers, document) = self.client.ask(call, Bytes::new()).await?;
        let result = self
            .client
            .settle("copy", CopyResult::from_xml(&document, CopyRoot::Object))?;
        Ok(Copied {
            etag: Some(result.etag),
            version: version_id(&headers),
            crc64: result.checksum.as_ref().and_then(crc64_of),
        })
    }

    pub(super) fn copy_source(&self, key: &BackendKey, version: Option<&str>) -> HeaderValue {
        HeaderValue::try_from(self.client.address.copy_source(key, version))
            .expect("percent-encoded text is a header value")
    }

    pub(super) async fn list_objects(&self, request: &ListRequest) -> Result<ListPage> {
        let mut token: Option<String> = None;
        for _ in 0..EMPTY_PAGES_MAX {
            let page = self.objects_page(request, token.as_deref()).await?;
            let keys = page.entries.iter().map(|entry| entry.key.as_str());
            self.expect_growth("list", request.after.as_deref(), keys)?;
            if page.entries.is_empty() && page.is_truncated {
                if token == page.next_continuation_token {
                    return Err(self.stuck("list"));
                }
                token = page.next_continuation_token;
                continue;
            }
            let objects = page.entries.into_iter();
            return Ok(ListPage {
                objects: objects
                    .map(|entry| Listed {
                        key: entry.key,
                        size: entry.size,
                    })
                    .collect(),
                truncated: page.is_truncated,
            });
        }
        Err(self.endless("list"))
    }

    async fn objects_page(
        &self,
        request: &ListRequest,
        token: Option<&str>,
    ) -> Result<ObjectsPageV2> {
        let mut call = self
            .client
            .bucket("list", Access::Read, Method::GET)
            .query("list-type", "2")
            .query("encoding-type", "url")
            .query("max-keys", request.max_keys.to_string())
            .query("prefix", request.prefix.as_str());
        if let Some(token) = token {
            call = call.query("continuation-token", token);
        } else if let Some(after) = &request.after {
            call = call.query("start-after", after.as_str());
        }
        let (_, document) = self.client.ask(call, Bytes::new()).await?;
        ObjectsPageV2::from_xml(&document).map_err(|error| {
            self.client
                .nonsense(Access::Read, "list")
                .with_source(error)
        })
    }

    pub(super) async fn list_versions(&self, key: &BackendKey) -> Result<VersionPage> {
        if !self.known().versioned {
            return match self.head_object(key, None).await {
                Ok(head) => Ok(VersionPage {
                    versions: vec![VersionRef {
                        version: head.version,
                        delete_marker: false,
                    }],
                    truncated: false,
                }),
                Err(error) if error.kind == Kind::NotFound => Ok(VersionPage::default()),
                Err(error) => Err(error),
            };
        }
        let mut from: Option<(String, Option<String>)> = None;
        for _ in 0..EMPTY_PAGES_MAX {
            let page = self.versions_page(key, from.as_ref()).await?;
            let exact = page
                .entries
                .into_iter()
                .filter(|entry| entry.key == key.as_str());
            let versions: Vec<_> = exact
                .map(|entry| VersionRef {
                    version: Some(entry.version_id),
                    delete_marker: entry.kind == VersionKind::DeleteMarker,
                })
                .collect();
            // Behind the key come others that begin with it.
            let next = page.next_key_marker.filter(|_| page.is_truncated);
            let next = next.filter(|next| next.as_str() <= key.as_str());
            let truncated = next.is_some();
            if !versions.is_empty() || !truncated {
                return Ok(VersionPage {
                    versions,
                    truncated,
                });
            }
            let next = next.map(|next| (next, page.next_version_id_marker));
            if from == next {
                return Err(self.stuck("versions"));
            }
            from = next;
        }
        Err(self.endless("versions"))
    }

    async fn versions_page(
        &self,
        key: &BackendKey,
        from: Option<&(String, Option<String>)>,
    ) -> Result<VersionsPage> {
        let mut call = self
            .client
            .bucket("versions", Access::Read, Method::GET)
            .flag("versions")
            .query("encoding-type", "url")
            .query("max-keys", VERSIONS_PER_PAGE.to_string())
            .query("prefix", key.as_str());
        if let Some((from, version)) = from {
            call = call.query("key-marker", from.as_str());
            if let Some(version) = version {
                call = call.query("version-id-marker", version.as_str());
            }
        }
        let (_, document) = self.client.ask(call, Bytes::new()).await?;
        VersionsPage::from_xml(&document).map_err(|error| {
            self.client
                .nonsense(Access::Read, "versions")
                .with_source(error)
        })
    }
}

/// The same failure once more, for the next object of a batch.
fn again(error: &Error) -> Error {
    let message = error.message.clone().or_else(|| {
        error
            .source
            .as_ref()
            .map(|source| base::report(source.as_ref()).to_string())
    });
    Error {
        message,
        ..Error::new(error.kind, error.effect, &error.backend, error.operation)
    }
}

pub(super) fn version_id(headers: &HeaderMap) -> Option<String> {
    let id = headers.get(X_AMZ_VERSION_ID)?.to_str().ok()?;
    // A longer one is no version id, and would be kept for as long as the object is.
    (id.len() <= ID_BYTES_MAX).then(|| id.to_owned())
}

pub(super) fn crc64_of(checksum: &ObjectChecksum) -> Option<Crc64> {
    match checksum.parts {
        None => Crc64::from_checksum(&checksum.checksum),
        Some(_) => None,
    }
}

pub(super) fn stored(headers: &HeaderMap, proof: Proof) -> Stored {
    Stored {
        etag: s3wire::headers::etag(headers),
        version: version_id(headers),
        crc64: s3wire::headers::object_checksums(headers)
            .iter()
            .find_map(crc64_of),
        proof,
    }
}

fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Length of the body and size of the object, if the answer is the one to this question.
fn extent(status: StatusCode, headers: &HeaderMap, range: Option<ByteRange>) -> Option<(u64, u64)> {
    let announced = content_length(headers);
    match (range, status) {
        (None, StatusCode::OK) => announced.map(|length| (length, length)),
        // All of the object, asked for as a range: servers may leave the range out.
        (Some(range), StatusCode::OK) => {
            (announced.map(ByteRange::whole) == Some(range)).then_some((range.length, range.length))
        }
        (Some(range), StatusCode::PARTIAL_CONTENT) => {
            let carried = s3wire::headers::content_range(headers)?;
            let as_announced = announced.is_none_or(|length| length == range.length);
            (carried.range == range && as_announced)
                .then_some(range.length)
                .zip(carried.size)
        }
        _ => None,
    }
}

fn head_of(headers: &HeaderMap, size: u64) -> Head {
    Head {
        size,
        etag: s3wire::headers::etag(headers),
        version: version_id(headers),
        crc64: s3wire::headers::object_checksums(headers)
            .iter()
            .find_map(crc64_of),
        last_modified: s3wire::headers::last_modified(headers),
        headers: s3wire::headers::stored_headers(headers),
    }
}
