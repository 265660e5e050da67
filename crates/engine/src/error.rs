//! What can go wrong with a verb, as the client or the operator can act on it.

use std::fmt;

use base::{BackendName, ByteSize, ChecksumAlgorithm, ETag, Timestamp};

/// `Result` with [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// Backends that were tried, with what each said.
#[derive(Debug, Default)]
pub struct Tried(pub Vec<(BackendName, backend::Error)>);

impl fmt::Display for Tried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str(
                "none was left to try: each was full, too small or at its usage limit when its \
                 turn came",
            );
        }
        for (place, (name, error)) in self.0.iter().enumerate() {
            let comma = if place == 0 { "" } else { ", " };
            write!(f, "{comma}{name}: {}", base::report(error))?;
        }
        Ok(())
    }
}

/// A verb that failed. The list is closed: the front renders it in one exhaustive match.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The bucket does not exist, or was removed while the request ran.
    #[error("the bucket does not exist")]
    NoSuchBucket,
    /// The name of a bucket is taken.
    #[error("the bucket exists")]
    BucketExists {
        /// Whether requests may use it; otherwise it waits for the configuration to name it again.
        in_use: bool,
    },
    /// The bucket holds objects.
    #[error("the bucket is not empty")]
    BucketNotEmpty,
    /// The bucket belongs to the configuration.
    #[error("the bucket belongs to the configuration")]
    BucketOfConfig,
    /// The key has no current version.
    #[error("the key does not exist")]
    NoSuchKey,
    /// The catalogue knows nothing of it, and is too new to know that it does not exist: a backend has
    /// not told yet that it belongs to no other catalogue.
    #[error(
        "what this new catalogue lacks may exist, for not every backend has told whose it is: {unseen}"
    )]
    AbsenceUnknown {
        /// Which backends, with why.
        unseen: String,
    },
    /// The upload does not exist, or is not this bucket's and key's.
    #[error("the upload does not exist")]
    NoSuchUpload,
    /// A condition of the request does not hold.
    #[error("a precondition does not hold")]
    PreconditionFailed,
    /// The client's copy is current.
    #[error("not modified")]
    NotModified {
        /// The current entity tag.
        etag: ETag,
        /// When the current version was written.
        last_modified: Timestamp,
    },
    /// The range, or the part number of a read, lies outside the object.
    #[error("the range lies outside the object's {size} bytes")]
    InvalidRange {
        /// Size of the object in bytes.
        size: u64,
    },
    /// A part number of a read that the object does not have.
    #[error("the object has no such part")]
    NoSuchPart,
    /// The parts of an upload have another size in all than its client announced.
    #[error("the parts add up to {size} bytes")]
    WrongObjectSize {
        /// What they add up to.
        size: u64,
    },
    /// A listed part was never uploaded, or its entity tag or checksum differs.
    #[error("part {number} is missing, or is not the one that was uploaded")]
    InvalidPart {
        /// Which.
        number: u32,
    },
    /// The listed parts are not in ascending order.
    #[error("the parts are not in ascending order")]
    InvalidPartOrder,
    /// A part other than the last is below the minimum.
    #[error(
        "part {number} has {size} bytes, the minimum is {}",
        crate::PART_BYTES_MIN
    )]
    PartTooSmall {
        /// Which.
        number: u32,
        /// Its size in bytes.
        size: u64,
    },
    /// The body, or the assembled object, is larger than allowed.
    #[error("larger than the limit of {limit}")]
    TooLarge {
        /// The limit.
        limit: ByteSize,
    },
    /// What is to be copied is larger than one copy may be.
    #[error("the copy source is larger than {}", crate::COPY_BYTES_MAX)]
    SourceTooLarge,
    /// The client's body ended badly.
    #[error("the body was refused")]
    Body(#[source] BodyError),
    /// The bytes do not match a digest that the client declared.
    #[error("the body does not match the declared {digest}")]
    BadDigest {
        /// Which, for example `Content-MD5`.
        digest: &'static str,
    },
    /// The declared SHA-256 of the payload differs from the body's.
    #[error("the body does not match x-amz-content-sha256")]
    PayloadMismatch,
    /// A trailer that was announced is missing or no valid value.
    #[error("the announced trailer is missing or malformed")]
    BadTrailer,
    /// A checksum algorithm that the upload did not announce.
    #[error("the checksum does not fit what the upload announced")]
    ChecksumMismatch,
    /// A list of parts without the checksums that those of the upload are made of.
    #[error("part {number} is listed without its {} checksum", algorithm.as_str())]
    PartWithoutChecksum {
        /// What the upload announced.
        algorithm: ChecksumAlgorithm,
        /// The first such part.
        number: u32,
    },
    /// No backend has room for so many bytes.
    #[error("no backend has room for {wanted}")]
    NoRoom {
        /// How many bytes.
        wanted: ByteSize,
    },
    /// Every backend that could take the bytes has spent what it may be asked for this month.
    #[error("the monthly usage limits leave no backend for {wanted}")]
    WriteLimited {
        /// How many bytes.
        wanted: ByteSize,
    },
    /// Every copy is on a backend that has spent what it may be asked for this month.
    #[error("the monthly usage limits leave no copy to read")]
    ReadLimited,
    /// The bucket has as many open uploads as it may have.
    #[error("too many open multipart uploads")]
    TooManyUploads,
    /// Another request is completing, aborting or rewriting the same thing.
    #[error("a conflicting operation is in progress")]
    Conflict,
    /// No backend could take the bytes; a later attempt may succeed.
    #[error("no backend could take the bytes: {tried}")]
    WriteUnavailable {
        /// What was tried.
        tried: Tried,
    },
    /// No copy could be read; a later attempt may succeed.
    #[error("no copy could be read: {tried}")]
    ReadUnavailable {
        /// What was tried.
        tried: Tried,
    },
    /// The stored bytes are not those that were written.
    #[error("the stored bytes are corrupt")]
    Corrupt,
    /// A write waited for longer than allowed for what it needs.
    #[error("timed out waiting for {what}")]
    TimedOut {
        /// For what.
        what: &'static str,
    },
    /// The catalogue failed.
    #[error("the catalogue failed")]
    Catalogue(#[source] metastore::Error),
}

impl From<metastore::Error> for Error {
    fn from(error: metastore::Error) -> Self {
        match error {
            metastore::Error::NoRoom { wanted } => Self::NoRoom { wanted },
            other => Self::Catalogue(other),
        }
    }
}

/// How a client's body ended badly. The details of framing and signatures stay with the front,
/// which saw them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// The connection ended, or the body was shorter than declared.
    #[error("the body ended before its declared length")]
    Short,
    /// The body went on behind its declared length.
    #[error("the body is longer than declared")]
    Long,
    /// No byte came for longer than allowed.
    #[error("the body made no progress")]
    Stalled,
    /// The front refused its framing or a signature in it.
    #[error("the body's framing or signature is wrong")]
    Refused,
}
