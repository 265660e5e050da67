//! What a recovery and a verification find.

use base::{BackendName, BlobId, ObjectKey};

use super::{BackendId, BucketId, CopyRow};

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

/// What became of a version that was to be adopted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Adopted {
    /// It exists now.
    Yes,
    /// The key has a version that was written later.
    NewerVersion,
    /// A copy is known already.
    KnownCopy,
    /// Its blob is that of another object.
    KnownBlob,
    /// Its version is that of another object.
    KnownVersion,
    /// It does not fit the catalogue, for instance because its bucket was removed.
    Refused,
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
