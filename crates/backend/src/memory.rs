//! A backend in memory: the reference implementation of the contract, and the double of every test.
//!
//! Everything is one map behind one lock, so each call is atomic and its meaning is easy to check by
//! eye. Tests look inside: calls and bytes are counted, objects and open uploads can be read without
//! a call, and storage accidents (a lost object, a flipped bit) can be staged. With a byte limit it
//! answers `Kind::Full` as a provider's quota does. It keeps nothing beyond the process.

mod state;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use base::{BackendName, ByteRange, Clock, Crc64, Md5, ObjectHeaders, SystemClock};
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use parking_lot::Mutex;

use crate::marker::{marker_payload, read_marker_of, write_marker_to};
use crate::{
    BackendKey, Capabilities, Copied, DeleteTarget, Effect, Error, Fetched, Head, Kind, ListPage,
    ListRequest, ListedUpload, MARKER_KEY, ObjectBackend, PartFact, PartListPage, PartSource,
    Payload, Proof, PutMeta, Result, Stored, UploadListPage, VersionPage,
};
use state::{MemoryState, StoredContent};

/// The longest piece that a body of this backend yields, in bytes.
const BODY_CHUNK_BYTES_MAX: usize = 256 * 1024;

/// The most entries of one listing page, as S3 has it.
const PAGE_ENTRIES_MAX: usize = 1000;

/// How a [`MemoryBackend`] behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MemoryOptions {
    /// Whether the bucket keeps versions.
    pub versions: Versions,
    /// The most bytes that it holds, objects and parts together; beyond them it is full.
    pub bytes_max: Option<u64>,
}

/// Whether a bucket keeps versions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Versions {
    /// A write replaces, a delete removes.
    #[default]
    Off,
    /// A write adds a version; a delete without a version id adds a delete marker.
    On,
}

/// The calls that a backend saw, and the bytes that passed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Calls {
    /// Calls by operation: the method's name in the trait.
    pub by_operation: BTreeMap<&'static str, u64>,
    /// Payload bytes taken.
    pub bytes_in: u64,
    /// Body bytes handed out.
    pub bytes_out: u64,
}

impl Calls {
    /// Calls of one operation.
    pub fn of(&self, operation: &str) -> u64 {
        self.by_operation.get(operation).copied().unwrap_or(0)
    }
}

/// An object as a test sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemoryObject {
    /// Its bytes.
    pub bytes: Bytes,
    /// Its stored headers.
    pub headers: ObjectHeaders,
}

/// An open upload as a test sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemoryUpload {
    /// Its key.
    pub key: String,
    /// Its id.
    pub upload: String,
    /// Sizes of its parts, by number.
    pub parts: BTreeMap<u32, u64>,
}

/// A storage provider in memory.
pub struct MemoryBackend {
    name: BackendName,
    options: MemoryOptions,
    clock: Arc<dyn Clock>,
    state: Arc<Mutex<MemoryState>>,
}

impl fmt::Debug for MemoryBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryBackend")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl MemoryBackend {
    /// An empty backend without versions and without limit, on the machine's clock.
    pub fn new(name: BackendName) -> Self {
        Self::with_options(name, MemoryOptions::default(), Arc::new(SystemClock))
    }

    /// An empty backend that behaves as told.
    pub fn with_options(name: BackendName, options: MemoryOptions, clock: Arc<dyn Clock>) -> Self {
        Self {
            name,
            options,
            clock,
            state: Arc::new(Mutex::new(MemoryState::new(options))),
        }
    }

    /// What was called since the start or the last [`Self::reset_calls`].
    pub fn calls(&self) -> Calls {
        self.state.lock().calls.clone()
    }

    /// Begins to count anew.
    pub fn reset_calls(&self) {
        self.state.lock().calls = Calls::default();
    }

    /// Bytes that are held: all versions and all parts of open uploads.
    pub fn used_bytes(&self) -> u64 {
        self.state.lock().used_bytes()
    }

    /// Every key that holds a version of an object (delete markers alone do not count), in order.
    pub fn keys(&self) -> Vec<String> {
        self.state.lock().keys()
    }

    /// The current object under a key.
    pub fn object(&self, key: &str) -> Option<MemoryObject> {
        let state = self.state.lock();
        let version = state.find(key, None)?;
        Some(MemoryObject {
            bytes: version.content.joined(),
            headers: version.headers.clone(),
        })
    }

    /// The open uploads, by key and id.
    pub fn uploads(&self) -> Vec<MemoryUpload> {
        self.state.lock().open_uploads()
    }

    /// Puts an object there without a call, as somebody else would.
    pub fn plant(&self, key: &str, bytes: Bytes, headers: ObjectHeaders) {
        let now = self.clock.now();
        self.state
            .lock()
            .store(key, StoredContent::of_body(bytes), headers, now);
    }

    /// Loses all versions of an object without a call, as a broken provider would; false where there
    /// was none.
    pub fn lose(&self, key: &str) -> bool {
        self.state.lock().lose(key)
    }

    /// Flips one bit of the current object's bytes; false where there is no byte to flip.
    pub fn rot(&self, key: &str) -> bool {
        self.state.lock().rot(key)
    }

    /// Makes the next object that is assembled of another first part than was listed, and says so in its
    /// entity tag.
    pub fn misassemble(&self) {
        self.state.lock().misassembles = true;
    }

    fn count(&self, operation: &'static str) {
        *self
            .state
            .lock()
            .calls
            .by_operation
            .entry(operation)
            .or_default() += 1;
    }

    fn refuse(&self, kind: Kind, operation: &'static str) -> Error {
        Error::new(kind, Effect::None, &self.name, operation)
    }

    /// Takes a payload whole and checks it against all that it says of itself.
    async fn take(&self, operation: &'static str, mut payload: Payload) -> Result<StoredContent> {
        let mut pieces = Vec::new();
        let mut taken: u64 = 0;
        while let Some(chunk) = payload.chunks.next().await {
            let chunk =
                chunk.map_err(|cut| self.refuse(Kind::PayloadCut, operation).with_source(cut))?;
            taken += chunk.len() as u64;
            self.state.lock().calls.bytes_in += chunk.len() as u64;
            if taken > payload.length {
                return Err(self.refuse(Kind::PayloadCut, operation));
            }
            if !chunk.is_empty() {
                pieces.push(chunk);
            }
        }
        if taken != payload.length {
            return Err(self.refuse(Kind::PayloadCut, operation));
        }
        let content = StoredContent::of_body(state::join(&pieces));
        let corrupt = payload
            .crc64
            .is_some_and(|declared| declared != content.crc64)
            || payload
                .md5
                .is_some_and(|declared| Some(declared) != content.etag.as_md5())
            || payload
                .sha256
                .is_some_and(|declared| declared != content.sha256());
        match corrupt {
            true => Err(self.refuse(Kind::Corrupt, operation)),
            false => Ok(content),
        }
    }

    fn stored(content: &StoredContent, version: Option<String>) -> Stored {
        Stored {
            etag: Some(content.etag.clone()),
            version,
            crc64: Some(content.crc64),
            proof: Proof::Checksum,
        }
    }

    /// The bytes of `range` in pieces; counts each as it leaves.
    fn body(&self, content: &StoredContent, range: ByteRange) -> crate::Body {
        let state = Arc::clone(&self.state);
        let pieces = content.pieces(range, BODY_CHUNK_BYTES_MAX);
        Box::pin(stream::iter(pieces).map(move |piece| {
            state.lock().calls.bytes_out += piece.len() as u64;
            Ok(piece)
        }))
    }

    fn source(
        &self,
        operation: &'static str,
        key: &BackendKey,
        version: Option<&str>,
    ) -> Result<StoredContent> {
        let state = self.state.lock();
        let found = state.find(key.as_str(), version);
        found
            .map(|found| found.content.clone())
            .ok_or_else(|| self.refuse(Kind::NotFound, operation))
    }
}

fn within(range: ByteRange, size: u64) -> bool {
    range
        .start
        .checked_add(range.length)
        .is_some_and(|end| end <= size)
}

#[async_trait]
impl ObjectBackend for MemoryBackend {
    fn name(&self) -> &BackendName {
        &self.name
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            md5_etag: true,
            checksum_header: true,
            checksum_trailer: true,
            echoes_checksum: true,
            batch_delete: true,
            versioned: self.options.versions == Versions::On,
            copy: true,
            part_copy: true,
            list_uploads: true,
            odd_keys: true,
        }
    }

    fn adopt(&self, _capabilities: Capabilities) {
        // What this backend can do is known and does not change.
    }

    async fn probe(&self) -> Result<Capabilities> {
        self.count("probe");
        Ok(self.capabilities())
    }

    async fn check(&self) -> Result<()> {
        self.count("check");
        Ok(())
    }

    async fn put(&self, key: &BackendKey, meta: &PutMeta, payload: Payload) -> Result<Stored> {
        self.count("put");
        if !self.state.lock().has_room(payload.length) {
            return Err(self.refuse(Kind::Full, "put"));
        }
        let content = self.take("put", payload).await?;
        let mut state = self.state.lock();
        if !state.has_room(content.size) {
            return Err(self.refuse(Kind::Full, "put"));
        }
        let now = self.clock.now();
        let version = state.store(key.as_str(), content.clone(), meta.headers.clone(), now);
        Ok(Self::stored(&content, version))
    }

    async fn get(
        &self,
        key: &BackendKey,
        version: Option<&str>,
        range: Option<ByteRange>,
    ) -> Result<Fetched> {
        self.count("get");
        let (head, content) = {
            let state = self.state.lock();
            let found = state
                .find(key.as_str(), version)
                .ok_or_else(|| self.refuse(Kind::NotFound, "get"))?;
            (found.head(), found.content.clone())
        };
        let range = range.unwrap_or(ByteRange::whole(head.size));
        if !within(range, head.size) {
            return Err(self.refuse(Kind::Range, "get"));
        }
        Ok(Fetched {
            head,
            body: self.body(&content, range),
        })
    }

    async fn head(&self, key: &BackendKey, version: Option<&str>) -> Result<Head> {
        self.count("head");
        let state = self.state.lock();
        let found = state.find(key.as_str(), version);
        found
            .map(state::Version::head)
            .ok_or_else(|| self.refuse(Kind::NotFound, "head"))
    }

    async fn delete(&self, targets: &[DeleteTarget]) -> Vec<Result<()>> {
        self.count("delete");
        let mut state = self.state.lock();
        targets
            .iter()
            .map(
                |target| match state.delete(target.key.as_str(), target.version.as_deref()) {
                    true => Ok(()),
                    false => Err(self.refuse(Kind::NotFound, "delete")),
                },
            )
            .collect()
    }

    async fn copy(
        &self,
        source: &BackendKey,
        source_version: Option<&str>,
        key: &BackendKey,
        meta: &PutMeta,
    ) -> Result<Copied> {
        self.count("copy");
        let content = StoredContent::of_body(self.source("copy", source, source_version)?.joined());
        let mut state = self.state.lock();
        if !state.has_room(content.size) {
            return Err(self.refuse(Kind::Full, "copy"));
        }
        let (etag, crc64) = (Some(content.etag.clone()), Some(content.crc64));
        let now = self.clock.now();
        let version = state.store(key.as_str(), content, meta.headers.clone(), now);
        Ok(Copied {
            etag,
            version,
            crc64,
        })
    }

    async fn list(&self, request: &ListRequest) -> Result<ListPage> {
        self.count("list");
        Ok(self.state.lock().list(request))
    }

    async fn versions(&self, key: &BackendKey) -> Result<VersionPage> {
        self.count("versions");
        let mut versions = self.state.lock().versions(key.as_str());
        let truncated = versions.len() > PAGE_ENTRIES_MAX;
        versions.truncate(PAGE_ENTRIES_MAX);
        Ok(VersionPage {
            versions,
            truncated,
        })
    }

    async fn create_upload(&self, key: &BackendKey, meta: &PutMeta) -> Result<String> {
        self.count("create_upload");
        Ok(self
            .state
            .lock()
            .create_upload(key.as_str(), meta.headers.clone()))
    }

    async fn upload_part(
        &self,
        key: &BackendKey,
        upload: &str,
        number: u32,
        _meta: &PutMeta,
        payload: Payload,
    ) -> Result<Stored> {
        let operation = "upload_part";
        self.count(operation);
        {
            let state = self.state.lock();
            if !state.upload_is_open(key.as_str(), upload) {
                return Err(self.refuse(Kind::NoSuchUpload, operation));
            }
            if !state.has_room(payload.length) {
                return Err(self.refuse(Kind::Full, operation));
            }
        }
        let content = self.take(operation, payload).await?;
        self.state
            .lock()
            .add_part(key.as_str(), upload, number, content.clone())
            .map_err(|kind| self.refuse(kind, operation))?;
        Ok(Self::stored(&content, None))
    }

    async fn upload_part_copy(
        &self,
        key: &BackendKey,
        upload: &str,
        number: u32,
        source: &PartSource,
    ) -> Result<Copied> {
        let operation = "upload_part_copy";
        self.count(operation);
        let content = self.source(operation, &source.key, source.version.as_deref())?;
        let range = source.range.unwrap_or(ByteRange::whole(content.size));
        if !within(range, content.size) {
            return Err(self.refuse(Kind::Range, operation));
        }
        let bytes = state::join(&content.pieces(range, usize::MAX));
        let content = StoredContent::of_body(bytes);
        let (etag, crc64) = (Some(content.etag.clone()), Some(content.crc64));
        self.state
            .lock()
            .add_part(key.as_str(), upload, number, content)
            .map_err(|kind| self.refuse(kind, operation))?;
        Ok(Copied {
            etag,
            version: None,
            crc64,
        })
    }

    async fn complete_upload(
        &self,
        key: &BackendKey,
        upload: &str,
        parts: &[PartFact],
    ) -> Result<Stored> {
        self.count("complete_upload");
        let now = self.clock.now();
        let mut state = self.state.lock();
        let (content, version) = state
            .complete(key.as_str(), upload, parts, now)
            .map_err(|kind| self.refuse(kind, "complete_upload"))?;
        Ok(Self::stored(&content, version))
    }

    async fn abort_upload(&self, key: &BackendKey, upload: &str) -> Result<()> {
        self.count("abort_upload");
        match self.state.lock().abort(key.as_str(), upload) {
            true => Ok(()),
            false => Err(self.refuse(Kind::NoSuchUpload, "abort_upload")),
        }
    }

    async fn list_parts(&self, key: &BackendKey, upload: &str, after: u32) -> Result<PartListPage> {
        self.count("list_parts");
        let page = self.state.lock().list_parts(key.as_str(), upload, after);
        page.ok_or_else(|| self.refuse(Kind::NoSuchUpload, "list_parts"))
    }

    async fn list_uploads(
        &self,
        prefix: &str,
        after: Option<&ListedUpload>,
    ) -> Result<UploadListPage> {
        self.count("list_uploads");
        Ok(self.state.lock().list_uploads(prefix, after))
    }

    async fn read_marker(&self) -> Result<Option<Bytes>> {
        self.count("read_marker");
        read_marker_of(self).await
    }

    async fn write_marker(&self, content: Bytes) -> Result<()> {
        self.count("write_marker");
        write_marker_to(self, content).await
    }

    async fn create_marker(&self, content: Bytes) -> Result<()> {
        const OPERATION: &str = "create_marker";
        self.count(OPERATION);
        let payload = marker_payload(&self.name, OPERATION, content)?;
        let content = self.take(OPERATION, payload).await?;
        let mut state = self.state.lock();
        if state.find(MARKER_KEY, None).is_some() {
            return Err(self.refuse(Kind::Precondition, OPERATION));
        }
        if !state.has_room(content.size) {
            return Err(self.refuse(Kind::Full, OPERATION));
        }
        state.store(
            MARKER_KEY,
            content,
            ObjectHeaders::default(),
            self.clock.now(),
        );
        Ok(())
    }
}

/// The checksums that this backend keeps of bytes.
fn sums(bytes: &[u8]) -> (Md5, Crc64) {
    (Md5::of(bytes), Crc64::of(bytes))
}
