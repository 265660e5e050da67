//! What the catalogue remembers, as values.

use std::sync::Arc;

use base::{
    BackendKey, BackendName, BlobId, BucketName, Checksum, ChecksumAlgorithm, ChecksumKind, CopyId,
    Crc64, ETag, LabelKey, Month, ObjectHeaders, ObjectKey, Precondition, Tags, Timestamp, Traffic,
    VersionId,
};
use uuid::Uuid;

mod cleanup;
mod overview;
mod uploads;
mod verification;

pub use cleanup::{
    CleanupItem, CleanupKind, CleanupOutcome, CleanupReason, CleanupReport, Enqueued, QueueDepth,
};
pub use overview::{BackendTotals, CleanupPage, InstanceRow, QueuedCleanup};
pub use uploads::{
    Completion, ForgetUploads, Freeze, Leg, LegState, NewLeg, NewPartClaim, NewUpload, PartRow,
    UploadEntry, UploadListing, UploadQuery, UploadRecord, UploadState, UploadVerdict,
};
pub use verification::{Adopted, BackendSums, Known, LocationRow, Verification};

/// Row id of a bucket; never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BucketId(pub i64);

/// Row id of a backend; never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BackendId(pub i64);

/// Why the catalogue takes no writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unwritable {
    /// Its files were removed or replaced while it was open.
    FilesGone {
        /// Which, and what is there instead.
        found: String,
    },
    /// Its file was overwritten, or is malformed.
    Damaged {
        /// Which, and what is amiss.
        found: String,
    },
    /// The last write failed, for instance because the disk is full.
    WriteFailed,
}

/// Who this catalogue is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Catalogue {
    /// Drawn once, when the catalogue was made; every marker carries it.
    pub uuid: Uuid,
    /// Drawn anew by every backup: a restored catalogue is another incarnation.
    pub incarnation: Uuid,
    /// Why nothing may be deleted on backends, where that is so.
    pub recovery: Option<String>,
    /// In recovery state: whether it is known to be restored. It is only suspected of it otherwise.
    pub restored: bool,
    /// Drawn once, when the catalogue was made; with it labels on backends are known for its own.
    pub label_key: Arc<LabelKey>,
}

impl Catalogue {
    pub(crate) fn change(&mut self, change: &RecoveryChange) {
        match change {
            RecoveryChange::Enter(reason, Ground::Restored) if !self.restored => {
                self.recovery = Some(reason.clone());
                self.restored = true;
            }
            RecoveryChange::Enter(reason, _) => {
                self.recovery.get_or_insert_with(|| reason.clone());
            }
            RecoveryChange::Leave => {
                self.recovery = None;
                self.restored = false;
            }
        }
    }
}

/// What a recovery state rests on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ground {
    /// The catalogue is known to be restored: somebody said so, or the database itself.
    Restored,
    /// A backend's marker speaks for it.
    Suspected,
}

/// A change of the recovery state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RecoveryChange {
    Enter(String, Ground),
    Leave,
}

/// A virtual bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bucket {
    /// Its id.
    pub id: BucketId,
    /// Its name.
    pub name: BucketName,
    /// When it was first seen.
    pub created: Timestamp,
    /// Who decides whether it exists.
    pub owner: BucketOwner,
}

/// Who decides whether a bucket exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BucketOwner {
    /// The configuration.
    Config,
    /// The catalogue: a client made it and may remove it.
    Catalogue,
}

/// What became of the wish for a bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BucketCreation {
    /// It is new.
    Created(Bucket),
    /// The name is taken, by this one.
    Exists(Bucket),
}

/// What became of the removal of a bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BucketRemoval {
    /// It is gone; another one of its name will be another bucket.
    Gone,
    /// It holds objects or unfinished uploads.
    NotEmpty,
    /// It belongs to the configuration.
    NotOurs,
    /// It does not exist.
    Absent,
}

/// What an operator decided about a backend, or a worker reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BackendState {
    /// Accepts bytes.
    Active,
    /// Accepts no new intents; is being emptied.
    Draining,
    /// Holds nothing any more.
    Drained,
    /// Was taken out by an operator.
    Removed,
}

/// A backend as the catalogue knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackendRow {
    /// Its id.
    pub id: BackendId,
    /// Its configured name.
    pub name: BackendName,
    /// Its state.
    pub state: BackendState,
    /// Whether a marker was ever written to it by this catalogue.
    pub marked: bool,
    /// The last mark that was reserved for its marker.
    pub mark: u64,
    /// What its probe found, as the engine wrote it, with the identity (endpoint, bucket, probe
    /// version) that it holds for.
    pub capabilities: Option<String>,
    /// Locations, intents, parts and queue rows that name it.
    pub rows: u64,
}

/// How full a backend is, in bytes. `used + orphan + reserved` never exceeds `limit`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Room {
    /// Sum of the stored bytes of all locations.
    pub used: u64,
    /// Sum over cleanup queue and dead letters.
    pub orphan: u64,
    /// Sum over open intents, parts, and reservations of requests that are under way.
    pub reserved: u64,
    /// The quota; `None` is unlimited.
    pub limit: Option<u64>,
}

impl Room {
    /// Bytes that may still be reserved.
    pub fn free(&self) -> u64 {
        match self.limit {
            None => u64::MAX,
            Some(limit) => limit.saturating_sub(self.used + self.orphan + self.reserved),
        }
    }
}

/// An attempt to place a blob on a backend, before its last byte is released.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewIntent {
    /// The attempt.
    pub copy: CopyId,
    /// What is being placed.
    pub blob: BlobId,
    /// Under which key.
    pub key: BackendKey,
}

/// The checksum of an object, as reads return it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoredChecksum {
    /// The value.
    pub checksum: Checksum,
    /// What it is over.
    pub kind: ChecksumKind,
}

impl StoredChecksum {
    /// The checksum of all bytes.
    pub fn full_object(checksum: Checksum) -> Self {
        Self {
            checksum,
            kind: ChecksumKind::FullObject,
        }
    }
}

/// A part of a finished multipart object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ObjectPart {
    /// Its number as the client chose it.
    pub number: u32,
    /// Its size in bytes.
    pub size: u64,
    /// Its checksum, where the upload announced an algorithm.
    pub checksum: Option<Checksum>,
}

/// Bytes of an object that lie in one blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// The blob.
    pub blob: BlobId,
    /// Offset in the blob.
    pub offset: u64,
    /// Bytes from there on.
    pub length: u64,
}

/// What a backend said of a copy that it stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewCopy {
    /// The attempt that succeeded.
    pub copy: CopyId,
    /// Entity tag as the backend gave it.
    pub etag: Option<ETag>,
    /// Version id on the backend.
    pub version: Option<String>,
    /// Checksum as the backend reported it.
    pub crc64: Option<Crc64>,
}

/// A blob with the copies that make it durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewBlob {
    /// The blob.
    pub blob: BlobId,
    /// Bytes that each copy stores.
    pub size: u64,
    /// Our sum over those bytes; unknown only for blobs that a backend assembled itself.
    pub crc64: Option<Crc64>,
    /// The copies; at least one.
    pub copies: Vec<NewCopy>,
}

/// Where the bytes of a new version are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// In new blobs, whose copies were announced by intents of this process.
    Written {
        /// The blobs.
        blobs: Vec<NewBlob>,
        /// The object in order.
        extents: Vec<Extent>,
    },
    /// In the blobs of the version that is current now: only metadata changes. The commit fails
    /// with [`Verdict::Changed`] if another version is current by then.
    Same {
        /// The version whose blobs are taken over.
        current: VersionId,
    },
}

/// A version of an object that is about to exist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewVersion {
    /// Its bucket.
    pub bucket: BucketId,
    /// Its key.
    pub key: ObjectKey,
    /// Its id, drawn for it.
    pub version: VersionId,
    /// Size in bytes as the client sees it.
    pub size: u64,
    /// Entity tag as the client sees it.
    pub etag: ETag,
    /// Time of the write.
    pub last_modified: Timestamp,
    /// Headers and user metadata.
    pub headers: ObjectHeaders,
    /// Tags.
    pub tags: Tags,
    /// Checksum of the object: what the client named, or else ours.
    pub checksum: Option<StoredChecksum>,
    /// Parts of a multipart object; empty otherwise.
    pub parts: Vec<ObjectPart>,
    /// Its bytes.
    pub content: Content,
    /// What must hold of the version that it replaces.
    pub precondition: Precondition,
}

/// What became of a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The version exists.
    Committed {
        /// Its place in the order of commits.
        seq: u64,
    },
    /// The precondition does not hold. Nothing changed; the intents are still open.
    PreconditionFailed,
    /// A precondition that needs a current version found none (`If-Match` on an absent key).
    Absent,
    /// An intent was given up in the meantime. Nothing changed.
    IntentGone,
    /// [`Content::Same`] found another version. Nothing changed.
    Changed,
    /// The bucket was removed in the meantime. Nothing changed.
    NoSuchBucket,
    /// The key was written or deleted since the part list was frozen. The upload is completed as if it
    /// had been overwritten at once: its bytes are queued for deletion, and nothing else changed.
    Overtaken,
}

/// What is known of a copy. Only its content heals a mark: a whole read that brought the right bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CopyState {
    /// Nothing speaks against it.
    Good,
    /// The backend denied having it once, or answered once with something else.
    Suspect,
    /// The backend denied having it again.
    Missing,
    /// Its bytes were proven wrong by more than one read. No range of it is read.
    Corrupt,
}

impl CopyState {
    const ALL: [Self; 4] = [Self::Good, Self::Suspect, Self::Missing, Self::Corrupt];

    /// Its name, in the catalogue and for people.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Suspect => "suspect",
            Self::Missing => "missing",
            Self::Corrupt => "corrupt",
        }
    }

    /// The state with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.name() == name)
    }
}

/// A copy of a blob on a backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopyRow {
    /// Its id.
    pub copy: CopyId,
    /// Where it is.
    pub backend: BackendId,
    /// Under which key.
    pub key: BackendKey,
    /// Version id on the backend.
    pub version: Option<String>,
    /// Entity tag as the backend gave it.
    pub etag: Option<ETag>,
    /// Checksum as the backend reported it.
    pub crc64: Option<Crc64>,
    /// Bytes that it stores.
    pub stored_bytes: u64,
    /// Whether it may be read.
    pub state: CopyState,
}

/// An extent with the copies it can be read from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedExtent {
    /// Which bytes.
    pub extent: Extent,
    /// Size of the whole blob in bytes.
    pub blob_size: u64,
    /// Our sum over the whole blob.
    pub crc64: Option<Crc64>,
    /// Its copies.
    pub copies: Vec<CopyRow>,
}

/// The current version of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectRecord {
    /// Its id.
    pub version: VersionId,
    /// Its place in the order of commits.
    pub seq: u64,
    /// Size in bytes.
    pub size: u64,
    /// Entity tag.
    pub etag: ETag,
    /// Time of the write.
    pub last_modified: Timestamp,
    /// Headers and user metadata.
    pub headers: ObjectHeaders,
    /// Tags; unlike all else they may change while the version stays.
    pub tags: Tags,
    /// Checksum of the object.
    pub checksum: Option<StoredChecksum>,
    /// Number of its parts; `None` unless it was uploaded in parts.
    pub parts: Option<u32>,
}

/// The current version with the places of its bytes, taken in one snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadPlan {
    /// The version.
    pub object: ObjectRecord,
    /// Its bytes in order; empty for an object without bytes that needed no blob.
    pub extents: Vec<PlannedExtent>,
}

/// Other tags for the current version of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retag {
    /// The bucket.
    pub bucket: BucketId,
    /// The key.
    pub key: ObjectKey,
    /// All tags that it has from now on.
    pub tags: Tags,
}

/// A removal of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Removal {
    /// The bucket.
    pub bucket: BucketId,
    /// The key.
    pub key: ObjectKey,
    /// What must hold of the current version.
    pub precondition: Precondition,
}

/// What became of a removal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Removed {
    /// The version is gone; its copies are queued for deletion.
    Gone {
        /// Which one it was.
        version: VersionId,
        /// Its size.
        size: u64,
    },
    /// There was nothing.
    Absent,
    /// The precondition does not hold.
    PreconditionFailed,
}

/// Where a listing begins.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum ListStart {
    /// At the first key.
    #[default]
    Beginning,
    /// Behind this key.
    AfterKey(String),
    /// Behind every key that begins so.
    AfterPrefix(String),
}

/// A page of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListQuery {
    /// The bucket.
    pub bucket: BucketId,
    /// Only keys that begin so; may be empty.
    pub prefix: String,
    /// Keys that share everything up to this string (behind the prefix) become one entry.
    pub delimiter: Option<String>,
    /// Where to begin.
    pub start: ListStart,
    /// At most so many entries, 0 to 1000.
    pub max_entries: u32,
}

/// An object in a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedObject {
    /// Its key.
    pub key: String,
    /// Its size in bytes.
    pub size: u64,
    /// Its entity tag.
    pub etag: ETag,
    /// Time of the write.
    pub last_modified: Timestamp,
    /// The algorithm and kind of its checksum.
    pub checksum: Option<(ChecksumAlgorithm, ChecksumKind)>,
}

/// An entry of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListEntry {
    /// A key.
    Object(ListedObject),
    /// All keys that begin so.
    Prefix(String),
}

/// Entries in byte order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Listing {
    /// The entries.
    pub entries: Vec<ListEntry>,
    /// Whether more follow.
    pub truncated: bool,
}

/// What one backend was asked for in one month.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UsageRow {
    /// Which backend.
    pub backend: BackendId,
    /// When, UTC.
    pub month: Month,
    /// How much.
    pub traffic: Traffic,
}
