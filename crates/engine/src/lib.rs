//! The product: what happens to objects.
//!
//! [`Engine`] is the handle; its public methods are the verbs, one per file. Decisions are pure
//! functions (`placement`, `keys`), acts are here. The crate refuses to know HTTP, XML and SQL: a
//! front end turns requests into these calls and these errors into answers.

mod absence;
mod body;
mod buckets;
mod copy;
mod delete;
mod error;
mod fleet;
mod get;
mod keys;
mod list;
mod marker;
mod multipart;
mod observe;
mod overview;
pub mod placement;
mod put;
mod recover;
mod send;
mod settings;
mod start;
mod status;
mod tags;
mod usage;
mod verify;
mod window;
pub mod workers;

use std::fmt;
use std::sync::Arc;

use base::{Clock, Ids};
use metastore::Store;

pub use backend::{Capabilities, S3Settings, line_up};
pub use body::{BodyStream, Declared, Incoming, Trailer};
pub use copy::{COPY_BYTES_MAX, Copied, CopyRequest, CopySource, Taken};
pub use delete::DeleteOutcome;
pub use error::{BodyError, Error, Result, Tried};
pub use fleet::{BackendCheck, Markers, OutOfService};
pub use get::{Chosen, ChosenPart, Looked, ReadRequest, ReadStream, Reading, Selection};
pub use metastore::model as catalogue;
pub use metastore::{Error as CatalogueError, Store as CatalogueStore};
pub use metastore::{MoveOptions, Moved, Progress, Server, TlsMode, move_to_postgres};
pub use multipart::{
    CompleteRequest, CompletedPart, CreateUpload, PartCopyRequest, PartRequest, UploadedPart,
    Uploads,
};
pub use observe::{Access, Event, Observer, Outcome, Quiet};
pub use overview::{BackendOverview, Located, LocatedCopy, Overview};
pub use put::{PutRequest, Written};
pub use recover::{LoneUploads, Recovered};
#[cfg(feature = "testing")]
pub use settings::CustomBackend;
pub use settings::{BackendKind, BackendSettings, Routing, Settings};
pub use settings::{CataloguePlace, Role};
pub use start::StartError;
pub use status::{BackendStatus, Status};
pub use usage::{AdaptiveFlush, RedisSettings, UsageFlush, UsageLimits, UsageStatus};
pub use verify::{LocationFault, Verified};

use buckets::Buckets;
use fleet::Fleet;
use get::Reads;

/// The smallest part of a multipart upload but the last, in bytes.
///
/// Source: Amazon S3 user guide, "Amazon S3 multipart upload limits".
pub const PART_BYTES_MIN: u64 = 5 << 20;

/// The highest part number.
pub const PART_NUMBER_MAX: u32 = 10_000;

/// The most keys that one DeleteObjects may name.
pub const DELETE_KEYS_MAX: usize = 1000;

/// Everything that can be done with objects; cheap to clone.
#[derive(Clone)]
pub struct Engine {
    inner: Arc<Inner>,
}

struct Inner {
    store: Store,
    fleet: Fleet,
    buckets: Buckets,
    settings: Settings,
    clock: Arc<dyn Clock>,
    ids: Arc<Ids>,
    observer: Arc<dyn Observer>,
    reads: Reads,
    bells: workers::Bells,
    completing: multipart::Completing,
    doubts: multipart::Doubts,
    usage: usage::Book,
    workers: workers::Workers,
}

impl Engine {
    /// The limits and choices that it runs with.
    pub fn settings(&self) -> &Settings {
        &self.inner.settings
    }

    /// The time of day as the engine sees it.
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.inner.clock
    }

    /// The catalogue, for tests that look behind the verbs.
    #[cfg(feature = "testing")]
    pub fn store(&self) -> &Store {
        &self.inner.store
    }

    /// Where identifiers are drawn.
    pub fn ids(&self) -> &Arc<Ids> {
        &self.inner.ids
    }

    fn observe(&self, event: Event<'_>) {
        self.inner.observer.observe(event);
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").finish_non_exhaustive()
    }
}
