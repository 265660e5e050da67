//! One storage provider: the contract, its implementations, and the one guard around them.
//!
//! Read [`ObjectBackend`] first: it is everything the rest of the program knows of a provider. The
//! same suite (`conformance`) runs on every implementation. This crate refuses to know what an
//! object of ours is: it moves bytes under keys that somebody else chose.

#[cfg(feature = "testing")]
pub mod conformance;
mod error;
#[cfg(feature = "testing")]
pub mod faulty;
mod guard;
mod local;
mod marker;
pub mod memory;
mod payload;
mod s3;
mod turn;
mod types;

pub use base::BackendKey;
pub use error::{Effect, Error, Kind, Result};
pub use guard::{BodyEnd, Call, CallOutcome, GuardOptions, Guarded, Meter, NoMeter};
pub use local::LocalBackend;
pub use marker::{MARKER_KEY, read_marker_of, write_marker_to};
pub use memory::MemoryBackend;
pub use payload::{Chunks, Payload, PayloadCut};
pub use s3::{S3Backend, S3Settings, S3SettingsError};
pub use turn::line_up;
pub use types::{
    Body, Capabilities, Copied, DeleteTarget, Fetched, Head, ListPage, ListRequest, Listed,
    ListedUpload, MARKER_BYTES_MAX, PartFact, PartListPage, PartSource, Proof, PutMeta,
    SourceRange, Stored, StoredPart, UploadListPage, VersionPage, VersionRef,
};

use async_trait::async_trait;
use base::{BackendName, ByteRange};

/// A storage provider.
///
/// A contract between implementations and the engine, kept as small as the engine allows. Promises
/// that hold for every method:
///
/// * A future may be dropped at any await; what it began on the provider is then unknown.
/// * [`Error::effect`] says whether a failed write may have happened. `Effect::None` is a promise.
/// * Nothing is retried here unless it was certain not to have reached the provider.
/// * No reader ever observes a partly written object.
#[async_trait]
pub trait ObjectBackend: Send + Sync + 'static {
    /// The configured name.
    fn name(&self) -> &BackendName;

    /// What this provider was seen to do. Conservative until [`Self::probe`] has run.
    fn capabilities(&self) -> Capabilities;

    /// Takes capabilities that an earlier probe found, as the catalogue kept them.
    fn adopt(&self, capabilities: Capabilities);

    /// Finds out with at most ten small calls what this provider does, and adopts it.
    ///
    /// Works under keys below `.s3o/probe/` that it removes again.
    async fn probe(&self) -> Result<Capabilities>;

    /// Whether the provider's bucket (directory) is there and answers, as HeadBucket.
    async fn check(&self) -> Result<()>;

    /// Stores an object under a key that was never used before.
    ///
    /// After `Ok` the bytes are on stable storage as far as the provider promises that. If the
    /// payload ends early or with an error, nothing becomes visible under the key.
    async fn put(&self, key: &BackendKey, meta: &PutMeta, payload: Payload) -> Result<Stored>;

    /// Begins to read an object: all of it, or a range that lies within it.
    ///
    /// The body yields exactly the bytes asked for or ends in an error, never in a clean early end.
    async fn get(
        &self,
        key: &BackendKey,
        version: Option<&str>,
        range: Option<ByteRange>,
    ) -> Result<Fetched>;

    /// What the provider says of an object.
    async fn head(&self, key: &BackendKey, version: Option<&str>) -> Result<Head>;

    /// Deletes objects; one outcome per target, in order. An absent object is `Kind::NotFound` where
    /// the provider tells (many do not): callers treat both as done.
    async fn delete(&self, targets: &[DeleteTarget]) -> Vec<Result<()>>;

    /// Copies an object within this backend to a key that was never used before.
    async fn copy(
        &self,
        source: &BackendKey,
        source_version: Option<&str>,
        key: &BackendKey,
        meta: &PutMeta,
    ) -> Result<Copied>;

    /// One page of keys in byte order.
    async fn list(&self, request: &ListRequest) -> Result<ListPage>;

    /// One page, the first, of the versions (delete markers included) of exactly this key, on a versioned
    /// bucket; on others the one object, if it is there.
    async fn versions(&self, key: &BackendKey) -> Result<VersionPage>;

    /// Begins a multipart upload and returns the provider's id for it.
    async fn create_upload(&self, key: &BackendKey, meta: &PutMeta) -> Result<String>;

    /// Stores a part; the number is 1 to 10,000. A part sent again replaces the older one.
    async fn upload_part(
        &self,
        key: &BackendKey,
        upload: &str,
        number: u32,
        meta: &PutMeta,
        payload: Payload,
    ) -> Result<Stored>;

    /// Stores a part whose bytes come from an object on this backend.
    async fn upload_part_copy(
        &self,
        key: &BackendKey,
        upload: &str,
        number: u32,
        source: &PartSource,
    ) -> Result<Copied>;

    /// Assembles the parts, which are in ascending order of their numbers. Moves no bytes.
    async fn complete_upload(
        &self,
        key: &BackendKey,
        upload: &str,
        parts: &[PartFact],
    ) -> Result<Stored>;

    /// Ends an upload and frees its parts. `Kind::NoSuchUpload` where it is already gone.
    async fn abort_upload(&self, key: &BackendKey, upload: &str) -> Result<()>;

    /// One page of the parts that the provider holds of an upload, `after` a part number.
    async fn list_parts(&self, key: &BackendKey, upload: &str, after: u32) -> Result<PartListPage>;

    /// One page of open uploads whose key begins with `prefix`.
    async fn list_uploads(
        &self,
        prefix: &str,
        after: Option<&ListedUpload>,
    ) -> Result<UploadListPage>;

    /// Reads the marker object, whole; `None` where there is none. At most
    /// [`MARKER_BYTES_MAX`] bytes.
    async fn read_marker(&self) -> Result<Option<bytes::Bytes>>;

    /// Writes the marker object `.s3o/backend`, the one key that is rewritten. On a versioned bucket
    /// the replaced version is deleted by its id. A `local` backend that was never marked must have
    /// an existing directory: a missing mount is `Kind::Unavailable`, never a fresh directory.
    async fn write_marker(&self, content: bytes::Bytes) -> Result<()>;

    /// Writes the marker object where there is none: of several that begin to use a place at the same
    /// moment, one succeeds. `Kind::Precondition` where there is one already. A provider that knows no
    /// such condition writes nothing and says so, by `Kind::Unsupported` or as it refuses anything else
    /// that it does not understand; or it ignores it and replaces the marker, and only reading it back
    /// tells.
    async fn create_marker(&self, content: bytes::Bytes) -> Result<()>;
}
