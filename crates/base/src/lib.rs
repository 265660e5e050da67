//! The vocabulary that every other crate speaks: names, identifiers, sizes, ranges, conditions,
//! checksums, time.
//!
//! Values of these types are proof that their rules hold: parsing is the only way to make one. The
//! crate does no I/O and knows no async, so everything here can be tested by hand.

mod checksum;
mod civil;
mod clock;
mod condition;
mod etag;
mod headers;
mod id;
mod label;
mod month;
mod name;
mod part;
mod range;
mod report;
mod secret;
mod size;
mod tags;
mod traffic;

pub use checksum::{
    Checksum, ChecksumAlgorithm, ChecksumError, ChecksumKind, Crc64, Crc64Hasher, Hasher, Md5,
    Md5Hasher, composite, full_object,
};
pub use civil::Civil;
pub use clock::{Clock, ManualClock, SystemClock, Timestamp};
pub use condition::{Conditions, ETagCondition, Precondition, ReadOutcome, Validators};
pub use etag::ETag;
pub use headers::{ObjectHeaders, USER_METADATA_BYTES_MAX};
pub use id::{BlobId, CopyId, IdError, Ids, UploadId, VersionId};
pub use label::{LABEL_KEY_BYTES, LABEL_MAC_BYTES, LabelKey};
pub use month::{Month, MonthError};
pub use name::{BackendKey, BackendName, BucketName, KEY_BYTES_MAX, NameError, ObjectKey};
pub use part::{PART_NUMBER_MAX, PartNumber, PartNumberError};
pub use range::{ByteRange, RangeError, RangeSpec};
pub use report::report;
pub use secret::Secret;
pub use size::{ByteSize, SizeError};
pub use tags::{TAG_KEY_UNITS_MAX, TAG_VALUE_UNITS_MAX, TAGS_MAX, TagError, Tags};
pub use traffic::Traffic;
