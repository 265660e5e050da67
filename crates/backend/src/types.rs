//! What goes to a provider and comes back from it.

use std::fmt;
use std::pin::Pin;

use base::{BackendKey, Crc64, ETag, ObjectHeaders, Timestamp};
use bytes::Bytes;
use futures_util::stream::Stream;

use crate::Error;

/// The most bytes that a marker object may have.
pub const MARKER_BYTES_MAX: usize = 4096;

/// What is stored beside the bytes: the object's headers and user metadata, our own entry included.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PutMeta {
    /// The headers; `user` already holds our `s3o` entry and fits the provider's limit.
    pub headers: ObjectHeaders,
}

/// How sure it is that the provider holds exactly the bytes that were sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proof {
    /// The request carried a checksum that the provider verifies. That a reply says so by being a success
    /// is no proof by itself: it may be another request's.
    Checksum,
    /// Nothing was verified there; the entity tag may yet prove it where it is the MD5.
    None,
}

/// A stored object or part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Entity tag as the provider gave it.
    pub etag: Option<ETag>,
    /// Version id, where the provider's bucket has versions.
    pub version: Option<String>,
    /// CRC-64/NVME of the stored bytes as the provider reported it.
    pub crc64: Option<Crc64>,
    /// Whether the provider checked the bytes.
    pub proof: Proof,
}

/// The result of a copy within one backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copied {
    /// Entity tag of the new object or part.
    pub etag: Option<ETag>,
    /// Version id of the new object.
    pub version: Option<String>,
    /// CRC-64/NVME as the provider reported it.
    pub crc64: Option<Crc64>,
}

/// What a provider says of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// Size in bytes.
    pub size: u64,
    /// Entity tag.
    pub etag: Option<ETag>,
    /// Version id, where the bucket has versions.
    pub version: Option<String>,
    /// CRC-64/NVME, where the provider keeps and tells it.
    pub crc64: Option<Crc64>,
    /// When it was written, where the provider tells.
    pub last_modified: Option<Timestamp>,
    /// Stored headers and user metadata.
    pub headers: ObjectHeaders,
}

/// The bytes of an object on their way here.
pub type Body = Pin<Box<dyn Stream<Item = Result<Bytes, Error>> + Send>>;

/// An object that is being read.
pub struct Fetched {
    /// What the provider says of the whole object.
    pub head: Head,
    /// Exactly the bytes that were asked for, or an error at the end.
    pub body: Body,
}

impl fmt::Debug for Fetched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fetched")
            .field("head", &self.head)
            .finish_non_exhaustive()
    }
}

/// An object to delete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeleteTarget {
    /// Its key.
    pub key: BackendKey,
    /// Its version id, on versioned buckets.
    pub version: Option<String>,
}

/// Which keys to list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListRequest {
    /// Only keys that begin so.
    pub prefix: String,
    /// Only keys behind this one.
    pub after: Option<String>,
    /// At most so many, 1 to 1000.
    pub max_keys: u32,
}

/// A key that exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// The key.
    pub key: String,
    /// Size in bytes.
    pub size: u64,
}

/// One page of keys.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListPage {
    /// The keys in byte order, all behind the one that was asked for.
    pub objects: Vec<Listed>,
    /// Whether there are more behind the last one, of which there is one then.
    pub truncated: bool,
}

/// One version of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionRef {
    /// Its id; `None` where the bucket has no versions.
    pub version: Option<String>,
    /// Whether it is a delete marker.
    pub delete_marker: bool,
}

/// The first page of the versions of one key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VersionPage {
    /// The versions.
    pub versions: Vec<VersionRef>,
    /// Whether there are more: the next page is the first one once these are deleted.
    pub truncated: bool,
}

/// The bytes that a copied part is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartSource {
    /// The object on this backend.
    pub key: BackendKey,
    /// Its version id.
    pub version: Option<String>,
    /// Which of its bytes.
    pub range: SourceRange,
}

/// All of a source object, or a range of it.
pub type SourceRange = Option<base::ByteRange>;

/// A part as Complete names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartFact {
    /// Its number.
    pub number: u32,
    /// The entity tag that the provider gave it.
    pub etag: ETag,
    /// The CRC-64/NVME that the provider reported for it.
    pub crc64: Option<Crc64>,
}

/// A part that a provider holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredPart {
    /// Its number.
    pub number: u32,
    /// Its entity tag.
    pub etag: ETag,
    /// Its size in bytes.
    pub size: u64,
}

/// One page of parts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PartListPage {
    /// The parts by ascending number.
    pub parts: Vec<StoredPart>,
    /// Whether there are more behind the last one.
    pub truncated: bool,
}

/// An open upload on a provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedUpload {
    /// Its key.
    pub key: String,
    /// The provider's id for it.
    pub upload: String,
}

/// One page of open uploads.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UploadListPage {
    /// The uploads by key.
    pub uploads: Vec<ListedUpload>,
    /// Whether there are more behind the last one.
    pub truncated: bool,
}

/// What a provider was seen to do. The default is the conservative answer to every question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capabilities {
    /// The entity tag of a plain PUT is the MD5 of its bytes.
    pub md5_etag: bool,
    /// A checksum in a header is verified, not ignored.
    pub checksum_header: bool,
    /// `STREAMING-UNSIGNED-PAYLOAD-TRAILER` with a checksum trailer is accepted and verified.
    pub checksum_trailer: bool,
    /// The reply to a body with a checksum, in a header or a trailer, repeats it.
    pub echoes_checksum: bool,
    /// DeleteObjects works.
    pub batch_delete: bool,
    /// The bucket keeps versions, so deletes must name them.
    pub versioned: bool,
    /// CopyObject works.
    pub copy: bool,
    /// UploadPartCopy works.
    pub part_copy: bool,
    /// ListMultipartUploads works.
    pub list_uploads: bool,
    /// Keys with empty components, `.` and `..` are stored as they are.
    pub odd_keys: bool,
}

impl Capabilities {
    /// What is assumed of a provider that could not be asked.
    pub const UNKNOWN: Self = Self {
        md5_etag: false,
        checksum_header: false,
        checksum_trailer: false,
        echoes_checksum: false,
        batch_delete: false,
        versioned: false,
        copy: false,
        part_copy: false,
        list_uploads: false,
        odd_keys: false,
    };
}

impl Default for Capabilities {
    fn default() -> Self {
        Self::UNKNOWN
    }
}
