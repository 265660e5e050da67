//! An S3 provider behind the trait.
//!
//! A client of our own: it streams bodies of known length without copies, chooses per body how it
//! is signed and checked (`cover`), sends exactly the headers that it says it sends, and keeps
//! apart what certainly did not happen from what may have (`classify`). Deadlines, retries and
//! limits on concurrency are the guard's; the only thing that is sent twice here is a request of
//! which no byte had left.
//!
//! Refuses redirects (the region or endpoint is wrong), HTTP/2, and answers that are not what was
//! asked for.

mod classify;
mod client;
mod cover;
mod download;
mod http1;
mod multipart;
mod objects;
mod pages;
mod probe;
mod settings;
mod transport;
mod upload;

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use base::{BackendName, ByteRange, Clock};
use bytes::Bytes;
use parking_lot::RwLock;

use crate::marker::{read_marker_of, write_marker_to};
use crate::{
    BackendKey, Capabilities, Copied, DeleteTarget, Fetched, Head, ListPage, ListRequest,
    ListedUpload, ObjectBackend, PartFact, PartListPage, PartSource, Payload, PutMeta, Result,
    Stored, UploadListPage, VersionPage,
};
use client::Client;
pub use settings::{S3Settings, S3SettingsError};

/// One bucket of an S3 provider.
pub struct S3Backend {
    client: Client,
    capabilities: RwLock<Capabilities>,
}

impl S3Backend {
    /// A backend that has not been asked anything yet; nothing is sent here.
    pub fn new(
        name: BackendName,
        settings: S3Settings,
        clock: Arc<dyn Clock>,
    ) -> std::result::Result<Self, S3SettingsError> {
        let client = Client::new(name, settings, clock)?;
        Ok(Self {
            client,
            capabilities: RwLock::new(Capabilities::UNKNOWN),
        })
    }

    fn known(&self) -> Capabilities {
        *self.capabilities.read()
    }

    fn take(&self, capabilities: Capabilities) {
        *self.capabilities.write() = capabilities;
    }
}

impl fmt::Debug for S3Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("S3Backend")
            .field("name", &self.client.name)
            .field("address", &self.client.address)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl ObjectBackend for S3Backend {
    fn name(&self) -> &BackendName {
        &self.client.name
    }

    fn capabilities(&self) -> Capabilities {
        self.known()
    }

    fn adopt(&self, capabilities: Capabilities) {
        self.take(capabilities);
    }

    async fn probe(&self) -> Result<Capabilities> {
        self.probe_provider().await
    }

    async fn check(&self) -> Result<()> {
        self.check_bucket().await
    }

    async fn put(&self, key: &BackendKey, meta: &PutMeta, payload: Payload) -> Result<Stored> {
        self.put_object(key, meta, payload).await
    }

    async fn get(
        &self,
        key: &BackendKey,
        version: Option<&str>,
        range: Option<ByteRange>,
    ) -> Result<Fetched> {
        self.get_object(key, version, range).await
    }

    async fn head(&self, key: &BackendKey, version: Option<&str>) -> Result<Head> {
        self.head_object(key, version).await
    }

    async fn delete(&self, targets: &[DeleteTarget]) -> Vec<Result<()>> {
        self.delete_objects(targets).await
    }

    async fn copy(
        &self,
        source: &BackendKey,
        source_version: Option<&str>,
        key: &BackendKey,
        meta: &PutMeta,
    ) -> Result<Copied> {
        self.copy_object(source, source_version, key, meta).await
    }

    async fn list(&self, request: &ListRequest) -> Result<ListPage> {
        self.list_objects(request).await
    }

    async fn versions(&self, key: &BackendKey) -> Result<VersionPage> {
        self.list_versions(key).await
    }

    async fn create_upload(&self, key: &BackendKey, meta: &PutMeta) -> Result<String> {
        self.begin_upload(key, meta).await
    }

    async fn upload_part(
        &self,
        key: &BackendKey,
        upload: &str,
        number: u32,
        _meta: &PutMeta,
        payload: Payload,
    ) -> Result<Stored> {
        self.put_part(key, upload, number, payload).await
    }

    async fn upload_part_copy(
        &self,
        key: &BackendKey,
        upload: &str,
        number: u32,
        source: &PartSource,
    ) -> Result<Copied> {
        self.copy_part(key, upload, number, source).await
    }

    async fn complete_upload(
        &self,
        key: &BackendKey,
        upload: &str,
        parts: &[PartFact],
    ) -> Result<Stored> {
        self.finish_upload(key, upload, parts).await
    }

    async fn abort_upload(&self, key: &BackendKey, upload: &str) -> Result<()> {
        self.end_upload(key, upload).await
    }

    async fn list_parts(&self, key: &BackendKey, upload: &str, after: u32) -> Result<PartListPage> {
        self.held_parts(key, upload, after).await
    }

    async fn list_uploads(
        &self,
        prefix: &str,
        after: Option<&ListedUpload>,
    ) -> Result<UploadListPage> {
        self.open_uploads(prefix, after).await
    }

    async fn read_marker(&self) -> Result<Option<Bytes>> {
        read_marker_of(self).await
    }

    async fn write_marker(&self, content: Bytes) -> Result<()> {
        write_marker_to(self, content).await
    }

    async fn create_marker(&self, content: Bytes) -> Result<()> {
        self.put_first_marker(content).await
    }
}
