//! Multipart uploads: legs, parts, and what became of each step.

use base::{
    BackendKey, BlobId, Checksum, ChecksumAlgorithm, ChecksumKind, CopyId, Crc64, ETag,
    ObjectHeaders, ObjectKey, Precondition, Tags, Timestamp, UploadId, VersionId,
};

use super::{BackendId, BucketId, NewCopy, NewVersion, StoredChecksum};

/// Which uploads that have ended are no longer remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ForgetUploads {
    /// Those that ended before.
    pub before: Timestamp,
    /// Of aborted ones, all but so many of the newest.
    pub aborts_kept_max: u32,
    /// At most so many in one transaction.
    pub max: u32,
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
