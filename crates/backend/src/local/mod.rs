//! A backend in a directory of the machine.
//!
//! What is acknowledged survives a power cut: bytes and names are synced before `Ok`, and one rename
//! makes an object appear whole. Any key of 1024 bytes has a file of its own that a human finds again
//! (`names`). An assembled multipart object is a record that names its part files, so Complete moves
//! nothing. The directory must exist: nothing here but [`LocalBackend::create`] makes it, because a
//! missing directory is most likely a disk that is not mounted. The file system must tell upper from
//! lower case, which `probe` checks. Overwriting is for the marker only: an assembled object that is
//! overwritten in place would leave its parts behind (the engine uses each key once).

mod failure;
mod files;
mod names;
mod parts;
#[cfg(test)]
mod power;
mod read;
mod record;
#[cfg(test)]
mod scripted;
mod store;
#[cfg(test)]
mod tests;
mod uploads;
mod walk;
mod write;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use base::{BackendKey, BackendName, ByteRange, ObjectHeaders};
use bytes::Bytes;
use futures_util::StreamExt as _;
use parking_lot::Mutex;

use crate::marker::{marker_key, marker_payload, read_marker_of, write_marker_to};
use crate::{
    Capabilities, Chunks, Copied, DeleteTarget, Error, Fetched, Head, Kind, ListPage, ListRequest,
    ListedUpload, ObjectBackend, PartFact, PartListPage, PartSource, Payload, PayloadCut, PutMeta,
    Result, Stored, UploadListPage, VersionPage, VersionRef,
};
use failure::LocalError;
use files::{Disk, FileSystem};
use store::{LocalStore, Owners, Root, RootState};
use write::{blocking, receive};

/// The longest path of the root in bytes: with the longest path below it, it stays within the 4096 of
/// the operating system.
const ROOT_BYTES_MAX: usize = 800;

/// A storage provider in a directory.
pub struct LocalBackend {
    name: BackendName,
    store: Arc<LocalStore>,
}

impl fmt::Debug for LocalBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalBackend")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl LocalBackend {
    /// A backend over a directory, which is first looked at when it is first used: one that is not
    /// there is `Kind::Unavailable` then, and never made.
    ///
    /// Fails where the path is longer than 800 bytes.
    pub fn new(name: BackendName, root: &Path) -> io::Result<Self> {
        let root = std::path::absolute(root)?;
        if root.as_os_str().len() > ROOT_BYTES_MAX {
            return Err(io::Error::from(io::ErrorKind::InvalidFilename));
        }
        Ok(Self::over(name, Arc::new(Disk), root, Owners::One))
    }

    /// The same, over a directory that other processes write to as well.
    pub fn shared(name: BackendName, root: &Path) -> io::Result<Self> {
        let Self { name, store } = Self::new(name, root)?;
        let root = store.root.clone();
        Ok(Self::over(name, Arc::new(Disk), root, Owners::Several))
    }

    /// Makes the directory and those above it, durably. Only for a backend that was never used.
    pub fn create(root: &Path) -> io::Result<()> {
        let root = std::path::absolute(root)?;
        let mut fresh = Vec::new();
        let mut path = root.as_path();
        while Disk.stat(path).is_err() {
            fresh.push(path);
            let Some(parent) = path.parent() else { break };
            path = parent;
        }
        for path in fresh.into_iter().rev() {
            match Disk.make_dir(path) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
            if let Some(parent) = path.parent() {
                Disk.sync_dir(parent)?;
            }
        }
        Ok(())
    }

    fn over(name: BackendName, files: Arc<dyn FileSystem>, root: PathBuf, owners: Owners) -> Self {
        Self {
            name,
            store: Arc::new(LocalStore::new(files, root, owners)),
        }
    }

    /// Runs blocking work on the store and names a failure.
    async fn run<T: Send + 'static>(
        &self,
        operation: &'static str,
        work: impl FnOnce(&Arc<LocalStore>) -> std::result::Result<T, LocalError> + Send + 'static,
    ) -> Result<T> {
        let store = Arc::clone(&self.store);
        let outcome = blocking(move || work(&store)).await;
        outcome.map_err(|failure| failure.into_error(&self.name, operation))
    }

    /// The bytes of an object of ours as a payload for another one. The checksum goes along where
    /// the object is taken whole, so a copy of rotten bytes fails instead of being believed.
    async fn source(
        &self,
        operation: &'static str,
        source: &BackendKey,
        range: Option<ByteRange>,
    ) -> Result<Source> {
        let renamed = |error: Error| Error { operation, ..error };
        let fetched = self.get(source, None, range).await.map_err(renamed)?;
        let whole = ByteRange::whole(fetched.head.size);
        let length = range.unwrap_or(whole).length;
        let failed = Arc::new(Mutex::new(None));
        let slot = Arc::clone(&failed);
        let chunks: Chunks = Box::pin(fetched.body.map(move |chunk| {
            chunk.map_err(|error| {
                *slot.lock() = Some(renamed(error));
                PayloadCut
            })
        }));
        let mut payload = Payload::streamed(length, chunks);
        payload.crc64 = fetched
            .head
            .crc64
            .filter(|_| range.is_none_or(|range| range == whole));
        Ok(Source { payload, failed })
    }

    async fn put_as(
        &self,
        operation: &'static str,
        key: &BackendKey,
        headers: ObjectHeaders,
        payload: Payload,
    ) -> Result<Stored> {
        let (store, path) = (
            Arc::clone(&self.store),
            PathBuf::from(names::path_of(key.as_str())),
        );
        let placed = receive(&self.store, payload, headers, move |sealed| {
            store.place(sealed.file, &path)?;
            Ok(uploads::stored(sealed.crc64))
        });
        placed
            .await
            .map_err(|failure| failure.into_error(&self.name, operation))
    }

    async fn part_as(
        &self,
        operation: &'static str,
        key: &BackendKey,
        upload: &str,
        number: u32,
        payload: Payload,
    ) -> Result<Stored> {
        let (of, id) = (key.clone(), upload.to_owned());
        self.run(operation, move |store| {
            uploads::expect_open(store, &of, &id)
        })
        .await?;
        let (store, key, upload) = (Arc::clone(&self.store), key.clone(), upload.to_owned());
        let placed = receive(
            &self.store,
            payload,
            ObjectHeaders::default(),
            move |sealed| uploads::place_part(&store, &key, &upload, number, sealed),
        );
        placed
            .await
            .map_err(|failure| failure.into_error(&self.name, operation))
    }
}

/// A payload that is read from this backend, and why it was cut, if it was.
struct Source {
    payload: Payload,
    failed: Arc<Mutex<Option<Error>>>,
}

/// The result of a copy; a source that failed is the reason why the payload was cut.
fn copied(outcome: Result<Stored>, failed: &Mutex<Option<Error>>) -> Result<Copied> {
    match outcome {
        Ok(Stored {
            etag,
            version,
            crc64,
            proof: _,
        }) => Ok(Copied {
            etag,
            version,
            crc64,
        }),
        Err(error) if error.kind == Kind::PayloadCut => Err(failed.lock().take().unwrap_or(error)),
        Err(error) => Err(error),
    }
}

/// What this backend can do. It needs no checksum from the caller, since it sums what it writes; what
/// the caller declares is compared before the object appears.
const CAPABILITIES: Capabilities = Capabilities {
    md5_etag: false,
    checksum_header: true,
    checksum_trailer: true,
    echoes_checksum: true,
    batch_delete: true,
    versioned: false,
    copy: true,
    part_copy: true,
    list_uploads: true,
    odd_keys: true,
};

/// A file system that folds case would show the second under the first.
const CASE_PROBE_ENDS: [char; 2] = ['K', 'k'];

#[async_trait]
impl ObjectBackend for LocalBackend {
    fn name(&self) -> &BackendName {
        &self.name
    }

    fn capabilities(&self) -> Capabilities {
        CAPABILITIES
    }

    fn adopt(&self, _capabilities: Capabilities) {
        // What this backend can do is known and does not change.
    }

    async fn probe(&self) -> Result<Capabilities> {
        // Other instances may probe the same directory at the same time.
        let id = self.store.draw();
        let [upper, lower] = CASE_PROBE_ENDS
            .map(|end| BackendKey::new(&format!(".s3o/probe/{id}~{end}")).expect("a legal key"));
        let payload = Payload::from_bytes(Bytes::from_static(b"s3o"));
        self.put_as("probe", &upper, ObjectHeaders::default(), payload)
            .await?;
        let folded = self.head(&lower, None).await.is_ok();
        let target = DeleteTarget {
            key: upper,
            version: None,
        };
        for outcome in self.delete(&[target]).await {
            outcome?;
        }
        match folded {
            false => Ok(CAPABILITIES),
            true => {
                let message = "the file system does not tell upper from lower case";
                Err(LocalError::saying(Kind::Rejected, message).into_error(&self.name, "probe"))
            }
        }
    }

    async fn check(&self) -> Result<()> {
        self.run("check", |store| read::check(store, Root::Keep))
            .await
    }

    async fn put(&self, key: &BackendKey, meta: &PutMeta, payload: Payload) -> Result<Stored> {
        self.put_as("put", key, meta.headers.clone(), payload).await
    }

    async fn get(
        &self,
        key: &BackendKey,
        _version: Option<&str>,
        range: Option<ByteRange>,
    ) -> Result<Fetched> {
        let key = key.clone();
        let (head, reading) = self
            .run("get", move |store| read::begin(store, &key, range))
            .await?;
        Ok(Fetched {
            head,
            body: reading.into_body(self.name.clone()),
        })
    }

    async fn head(&self, key: &BackendKey, _version: Option<&str>) -> Result<Head> {
        let key = key.clone();
        self.run("head", move |store| read::head(store, &key)).await
    }

    async fn delete(&self, targets: &[DeleteTarget]) -> Vec<Result<()>> {
        let keys: Vec<BackendKey> = targets.iter().map(|target| target.key.clone()).collect();
        let deleted = self
            .run("delete", move |store| Ok(store.delete(&keys)))
            .await;
        match deleted {
            Ok(outcomes) => {
                let name = |failure: LocalError| failure.into_error(&self.name, "delete");
                outcomes
                    .into_iter()
                    .map(|outcome| outcome.map_err(name))
                    .collect()
            }
            Err(error) => {
                let same = || Error::new(error.kind, error.effect, &self.name, "delete");
                targets.iter().map(|_| Err(same())).collect()
            }
        }
    }

    async fn copy(
        &self,
        source: &BackendKey,
        _source_version: Option<&str>,
        key: &BackendKey,
        meta: &PutMeta,
    ) -> Result<Copied> {
        let source = self.source("copy", source, None).await?;
        let outcome = self
            .put_as("copy", key, meta.headers.clone(), source.payload)
            .await;
        copied(outcome, &source.failed)
    }

    async fn list(&self, request: &ListRequest) -> Result<ListPage> {
        let request = request.clone();
        self.run("list", move |store| walk::list(store, &request))
            .await
    }

    async fn versions(&self, key: &BackendKey) -> Result<VersionPage> {
        match self.head(key, None).await {
            Ok(_) => Ok(VersionPage {
                versions: vec![VersionRef {
                    version: None,
                    delete_marker: false,
                }],
                truncated: false,
            }),
            Err(error) if error.kind == Kind::NotFound => Ok(VersionPage::default()),
            Err(error) => Err(Error {
                operation: "versions",
                ..error
            }),
        }
    }

    async fn create_upload(&self, key: &BackendKey, meta: &PutMeta) -> Result<String> {
        let (key, headers) = (key.clone(), meta.headers.clone());
        self.run("create_upload", move |store| {
            uploads::create(store, &key, headers)
        })
        .await
    }

    async fn upload_part(
        &self,
        key: &BackendKey,
        upload: &str,
        number: u32,
        _meta: &PutMeta,
        payload: Payload,
    ) -> Result<Stored> {
        self.part_as("upload_part", key, upload, number, payload)
            .await
    }

    async fn upload_part_copy(
        &self,
        key: &BackendKey,
        upload: &str,
        number: u32,
        source: &PartSource,
    ) -> Result<Copied> {
        let operation = "upload_part_copy";
        let source = self.source(operation, &source.key, source.range).await?;
        let outcome = self
            .part_as(operation, key, upload, number, source.payload)
            .await;
        copied(outcome, &source.failed)
    }

    async fn complete_upload(
        &self,
        key: &BackendKey,
        upload: &str,
        parts: &[PartFact],
    ) -> Result<Stored> {
        let (key, upload, parts) = (key.clone(), upload.to_owned(), parts.to_vec());
        self.run("complete_upload", move |store| {
            uploads::complete(store, &key, &upload, &parts)
        })
        .await
    }

    async fn abort_upload(&self, key: &BackendKey, upload: &str) -> Result<()> {
        let (key, upload) = (key.clone(), upload.to_owned());
        self.run("abort_upload", move |store| {
            uploads::abort(store, &key, &upload)
        })
        .await
    }

    async fn list_parts(&self, key: &BackendKey, upload: &str, after: u32) -> Result<PartListPage> {
        let (key, upload) = (key.clone(), upload.to_owned());
        self.run("list_parts", move |store| {
            uploads::list_parts(store, &key, &upload, after)
        })
        .await
    }

    async fn list_uploads(
        &self,
        prefix: &str,
        after: Option<&ListedUpload>,
    ) -> Result<UploadListPage> {
        let (prefix, after) = (prefix.to_owned(), after.cloned());
        self.run("list_uploads", move |store| {
            uploads::list(store, &prefix, after.as_ref())
        })
        .await
    }

    async fn read_marker(&self) -> Result<Option<Bytes>> {
        match self.run("read_marker", |store| store.learn()).await? {
            RootState::Root => read_marker_of(self).await,
            RootState::Stranger => Ok(None),
        }
    }

    async fn write_marker(&self, content: Bytes) -> Result<()> {
        write_marker_to(self, content).await
    }

    async fn create_marker(&self, content: Bytes) -> Result<()> {
        const OPERATION: &str = "create_marker";
        let payload = marker_payload(&self.name, OPERATION, content)?;
        let (store, path) = (
            Arc::clone(&self.store),
            PathBuf::from(names::path_of(marker_key().as_str())),
        );
        let headers = ObjectHeaders::default();
        let created = receive(&self.store, payload, headers, move |sealed| {
            store.place_new(sealed.file, &path)
        });
        created
            .await
            .map_err(|failure| failure.into_error(&self.name, OPERATION))
    }
}
