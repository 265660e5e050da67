//! What the catalogue remembers, as values.

use base::{
    BackendKey, BackendName, BlobId, BucketName, Checksum, ChecksumAlgorithm, ChecksumKind, CopyId,
    Crc64, ETag, Month, ObjectHeaders, ObjectKey, Precondition, Tags, Timestamp, Traffic, UploadId,
    VersionId,
};
use uuid::Uuid;

mod overview;

pub use overview::{BackendTotals, CleanupPage, InstanceRow, QueuedCleanup};

/// Row id of a bucket; never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BucketId(pub i64);

/// Row id of a backend; never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BackendId(pub i64);

/// Who this catalogue is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Catalogue {
    /// Drawn once, when the catalogue was made; every marker carries it.
    pub uuid: Uuid,
    /// Drawn anew by every backup: a restored catalogue is another incarnation.
    pub incarnation: Uuid,
    /// Why nothing may be deleted on backends, where that is so.
    pub recovery: Option<String>,
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

/// A checksum that the client gave, as reads return it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoredChecksum {
    /// The value.
    pub checksum: Checksum,
    /// What it is over.
    pub kind: ChecksumKind,
}

/// A part of a finished multipart object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ObjectPart {
    /// Its number as the client chose it.
    pub number: u32,
    /// Its size in bytes.
    pub size: u64,
    /// Its checksum, where the client gave one.
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
    /// Checksum of the object, where the client gave one.
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
}

/// Whether a copy may be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CopyState {
    /// It was there when last looked at.
    Good,
    /// The backend denied having it, or had other bytes.
    Suspect,
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

/// Why bytes are queued for deletion; the names are those of the metric label `reason`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CleanupReason {
    /// `overwrite_displaced`: another version replaced theirs.
    OverwriteDisplaced,
    /// `object_deleted`: their object was deleted.
    ObjectDeleted,
    /// `intent_abandoned`: the write that made them did not commit.
    IntentAbandoned,
    /// `abort_part_cleanup`: their upload was aborted or went stale.
    UploadAborted,
    /// `complete_part_cleanup`: their upload was completed without them.
    UploadLeftover,
}

impl CleanupReason {
    /// All reasons.
    pub const ALL: [Self; 5] = [
        Self::OverwriteDisplaced,
        Self::ObjectDeleted,
        Self::IntentAbandoned,
        Self::UploadAborted,
        Self::UploadLeftover,
    ];

    /// The name in metrics, audit events and rows.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::OverwriteDisplaced => "overwrite_displaced",
            Self::ObjectDeleted => "object_deleted",
            Self::IntentAbandoned => "intent_abandoned",
            Self::UploadAborted => "abort_part_cleanup",
            Self::UploadLeftover => "complete_part_cleanup",
        }
    }
}

/// What is to be removed from a backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CleanupKind {
    /// An object.
    Object {
        /// Its version id on the backend.
        version: Option<String>,
    },
    /// A multipart upload, and whatever object it may have become.
    Upload {
        /// The backend's id of it; `None` where the attempt to create it was never answered.
        upload: Option<String>,
    },
}

/// A claimed row of the cleanup queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CleanupItem {
    /// The row.
    pub id: i64,
    /// The copy (or leg) it was.
    pub copy: CopyId,
    /// The blob it was a copy of, so that reads under way can be respected.
    pub blob: Option<BlobId>,
    /// Where.
    pub backend: BackendId,
    /// Under which key.
    pub key: BackendKey,
    /// Object or upload.
    pub kind: CleanupKind,
    /// Bytes that count as orphan until it is done.
    pub bytes: u64,
    /// Why.
    pub reason: CleanupReason,
    /// Its outcome was unknown when it was queued: the bytes may still appear. It is done only after
    /// a second deletion, an hour after the first.
    pub unsettled: bool,
    /// Whether the first of the two deletions of an unsettled row has happened.
    pub first_pass_done: bool,
    /// Failed attempts so far.
    pub attempts: u32,
}

/// What a cleaner reports of a claimed row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CleanupReport {
    /// The row.
    pub id: i64,
    /// What became of it.
    pub outcome: CleanupOutcome,
}

/// What became of a cleanup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CleanupOutcome {
    /// The bytes are gone, and cannot come back: the row goes, orphan bytes go down.
    Done,
    /// The first deletion of an unsettled row happened; look again at this time.
    FirstPassDone {
        /// When.
        again_at: Timestamp,
    },
    /// It failed, or must wait.
    Retry {
        /// When to try again.
        again_at: Timestamp,
        /// What went wrong; counts as an attempt. `None` for a mere delay.
        error: Option<String>,
    },
    /// It failed too often: it becomes a dead letter and keeps its orphan bytes.
    Dead {
        /// The last error.
        error: String,
    },
}

/// Rows that wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct QueueDepth {
    /// Rows in the cleanup queue.
    pub queued: u64,
    /// Dead letters.
    pub dead: u64,
    /// Open intents.
    pub intents: u64,
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

/// A multipart upload that is about to exist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewUpload {
    /// Its id.
    pub upload: UploadId,
    /// Its bucket.
    pub bucket: BucketId,
    /// Its key.
    pub key: ObjectKey,
    /// Headers of the future object.
    pub headers: ObjectHeaders,
    /// Tags of the future object.
    pub tags: Tags,
    /// The checksum that the client announced.
    pub checksum: Option<(ChecksumAlgorithm, ChecksumKind)>,
    /// When it was created.
    pub created: Timestamp,
    /// Its first leg.
    pub leg: NewLeg,
    /// Refuse with [`UploadVerdict::TooMany`] if the bucket already has so many open uploads.
    pub open_max: Option<u32>,
}

/// One backend upload of a multipart upload: a copy of one blob in the making.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewLeg {
    /// Its id.
    pub copy: CopyId,
    /// The blob that it becomes.
    pub blob: BlobId,
    /// Where.
    pub backend: BackendId,
    /// Under which key.
    pub key: BackendKey,
}

/// What became of a step of an upload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UploadVerdict {
    /// It happened.
    Done,
    /// The upload does not exist (any more).
    NoSuchUpload,
    /// The upload is being completed or aborted, or a newer attempt took over.
    Superseded,
    /// The bucket has as many open uploads as it may have.
    TooMany,
    /// The bucket was removed in the meantime.
    NoSuchBucket,
}

/// The state of a leg.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LegState {
    /// The backend has not answered yet.
    Creating,
    /// Takes parts.
    Open {
        /// The backend's id of the upload.
        upload: String,
    },
    /// The backend has assembled the object.
    Completed {
        /// What it said.
        copy: NewCopy,
        /// Size of the assembled object in bytes.
        size: u64,
    },
}

/// A leg of an upload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leg {
    /// Its id.
    pub copy: CopyId,
    /// The blob that it becomes.
    pub blob: BlobId,
    /// Where.
    pub backend: BackendId,
    /// Under which key.
    pub key: BackendKey,
    /// Its state.
    pub state: LegState,
}

/// The state of an upload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UploadState {
    /// Takes parts.
    Open,
    /// Its part list is frozen.
    Completing {
        /// Part numbers in order, with the attempt that wrote each.
        parts: Vec<(u32, CopyId)>,
        /// The client's preconditions for the commit.
        precondition: Precondition,
    },
    /// The object exists.
    Completed {
        /// Which version it became.
        version: VersionId,
        /// Its entity tag.
        etag: ETag,
        /// Its checksum.
        checksum: Option<StoredChecksum>,
    },
}

/// A multipart upload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UploadRecord {
    /// Its id.
    pub upload: UploadId,
    /// Its bucket.
    pub bucket: BucketId,
    /// Its key.
    pub key: ObjectKey,
    /// Headers of the future object.
    pub headers: ObjectHeaders,
    /// Tags of the future object.
    pub tags: Tags,
    /// The checksum that the client announced.
    pub checksum: Option<(ChecksumAlgorithm, ChecksumKind)>,
    /// When it was created.
    pub created: Timestamp,
    /// Its state.
    pub state: UploadState,
    /// Its legs in the order of their making.
    pub legs: Vec<Leg>,
}

/// A part that is complete on its leg.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartRow {
    /// Its number.
    pub number: u32,
    /// The attempt that wrote it.
    pub attempt: CopyId,
    /// The leg that holds it.
    pub leg: CopyId,
    /// Its size in bytes.
    pub size: u64,
    /// MD5 of its bytes as the client sees it in the entity tag.
    pub etag: ETag,
    /// Its checksum as the client gave it.
    pub checksum: Option<Checksum>,
    /// Our sum over its bytes, where they passed through here.
    pub crc64: Option<Crc64>,
    /// Entity tag as the backend gave it.
    pub backend_etag: ETag,
    /// Checksum as the backend reported it.
    pub backend_crc64: Option<Crc64>,
    /// When it was written.
    pub last_modified: Timestamp,
}

/// An attempt to write a part, before its last byte is released.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewPartClaim {
    /// The upload.
    pub upload: UploadId,
    /// The part's number.
    pub number: u32,
    /// The attempt, drawn for it.
    pub attempt: CopyId,
    /// The leg that takes it.
    pub leg: CopyId,
}

/// What became of a freeze.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Freeze {
    /// The list is frozen; the upload is completing.
    Frozen,
    /// Parts are still being written; wait for [`crate::Store::claims_ended`] and try again.
    Busy,
    /// A listed part was replaced or is gone.
    PartChanged {
        /// Which.
        number: u32,
    },
    /// The upload does not exist (any more).
    NoSuchUpload,
    /// It is already completing or completed.
    NotOpen,
}

/// A multipart upload that becomes an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Completion {
    /// The upload; it must be completing.
    pub upload: UploadId,
    /// The object. Its [`Content::Written`] names the blobs of the completed legs.
    pub version: NewVersion,
}

/// Which uploads to list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UploadQuery {
    /// The bucket.
    pub bucket: BucketId,
    /// Only keys that begin so.
    pub prefix: String,
    /// Grouping, as in [`ListQuery`].
    pub delimiter: Option<String>,
    /// Only behind this key, or, with an upload id, at this key behind that upload.
    pub after: Option<(String, Option<UploadId>)>,
    /// At most so many entries, 0 to 1000.
    pub max_entries: u32,
}

/// An entry of a listing of uploads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UploadEntry {
    /// An open upload.
    Upload {
        /// Its key.
        key: String,
        /// Its id.
        upload: UploadId,
        /// When it was created.
        created: Timestamp,
        /// The checksum that the client announced.
        checksum: Option<(ChecksumAlgorithm, ChecksumKind)>,
    },
    /// All keys that begin so.
    Prefix(String),
}

/// Open uploads by key, then by id.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct UploadListing {
    /// The entries.
    pub entries: Vec<UploadEntry>,
    /// Whether more follow.
    pub truncated: bool,
}

/// What the catalogue knows of a copy id or a backend key that was found on a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    /// A copy of a live object.
    Location,
    /// Queued for deletion, or a dead letter.
    Cleanup,
    /// An open intent, or the leg of an open upload.
    Pending,
    /// Nothing.
    No,
}

/// A location for `catalogue verify`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocationRow {
    /// The copy.
    pub copy: CopyRow,
    /// The blob.
    pub blob: BlobId,
    /// Bucket of the owner.
    pub bucket: BucketId,
    /// Key of the owner.
    pub object: ObjectKey,
}

/// Counters beside what they should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackendSums {
    /// The backend.
    pub backend: BackendId,
    /// Its name.
    pub name: BackendName,
    /// `used` as counted while committing, and as summed over the locations.
    pub used: (u64, u64),
    /// `orphan` as counted, and as summed over queue and dead letters.
    pub orphan: (u64, u64),
    /// `reserved` as counted, and as summed over intents, parts and part claims.
    pub reserved: (u64, u64),
    /// The same `reserved` with the reservations of requests under way, as admission sees it.
    pub admitted: u64,
    /// Objects on it.
    pub locations: u64,
}

impl BackendSums {
    /// Whether every counter is what it should be.
    pub fn exact(&self) -> bool {
        self.used.0 == self.used.1
            && self.orphan.0 == self.orphan.1
            && self.reserved.0 == self.reserved.1
    }
}

/// What a walk over the whole catalogue found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Verification {
    /// One entry per backend.
    pub backends: Vec<BackendSums>,
    /// Rows that contradict each other, in words; empty in a sound catalogue: a blob without an
    /// object, an object without a good copy, extents that do not add up to the size, bucket
    /// counters that differ, a copy id in two tables.
    pub contradictions: Vec<String>,
}
