//! What an operator asks of a running engine: rows, beside what is in memory.

use base::{BackendName, BucketName, ObjectKey};
use metastore::model::{
    BackendTotals, Catalogue, CleanupPage, CopyRow, Extent, InstanceRow, ObjectRecord,
};

use crate::status::BackendStatus;
use crate::workers::WorkerStatus;
use crate::{Engine, Error, Result};

/// The backends, as far as can be told.
#[derive(Debug)]
pub struct Overview {
    /// Who the catalogue is, and whether it is in recovery.
    pub catalogue: Catalogue,
    /// The backends in the order of the configuration.
    pub backends: Vec<BackendOverview>,
    /// Why the rows could not be read, where that is so: the totals are missing then.
    pub unread: Option<Error>,
}

/// One backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackendOverview {
    /// What is in memory.
    pub status: BackendStatus,
    /// What its rows say.
    pub totals: Option<BackendTotals>,
}

/// An object with the places of its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Located {
    /// Its current version.
    pub object: ObjectRecord,
    /// Every copy of every extent, in the order of the extents.
    pub copies: Vec<LocatedCopy>,
}

/// A copy of some of an object's bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocatedCopy {
    /// Where it is.
    pub backend: BackendName,
    /// Where its bytes begin in the object.
    pub at: u64,
    /// Which bytes of which blob they are.
    pub extent: Extent,
    /// What is known of it.
    pub copy: CopyRow,
}

impl Engine {
    /// The backends. None is called, and a catalogue that does not answer leaves what is in memory.
    pub async fn overview(&self) -> Overview {
        let inner = &self.inner;
        let read = inner.store.backend_totals().await;
        let (rows, unread) = match read {
            Ok(rows) => (rows, None),
            Err(error) => (Vec::new(), Some(error.into())),
        };
        let backends = inner.fleet.members().iter().map(|member| BackendOverview {
            status: self.backend_status(member),
            totals: rows.iter().find(|row| row.id == member.id).copied(),
        });
        Overview {
            catalogue: inner.store.catalogue(),
            backends: backends.collect(),
            unread,
        }
    }

    /// Where the bytes of an object are, from the catalogue alone.
    ///
    /// # Errors
    /// [`Error::NoSuchBucket`], [`Error::NoSuchKey`]
    pub async fn locate(&self, bucket: &BucketName, key: &ObjectKey) -> Result<Located> {
        let bucket = self.bucket(bucket).ok_or(Error::NoSuchBucket)?;
        let plan = self.inner.store.plan(bucket.id, key).await?;
        let plan = plan.ok_or(Error::NoSuchKey)?;
        let mut copies = Vec::new();
        let mut at = 0;
        for planned in plan.extents {
            for copy in planned.copies {
                copies.push(LocatedCopy {
                    backend: self.name_of(&copy)?,
                    at,
                    extent: planned.extent,
                    copy,
                });
            }
            at += planned.extent.length;
        }
        Ok(Located {
            object: plan.object,
            copies,
        })
    }

    fn name_of(&self, copy: &CopyRow) -> Result<BackendName> {
        match self.inner.fleet.member(copy.backend) {
            Some(member) => Ok(member.name().clone()),
            // The start is refused where a backend with rows is not configured.
            None => Err(Error::Catalogue(metastore::Error::Damaged {
                what: format!("copy {} names the backend {}", copy.copy, copy.backend.0),
            })),
        }
    }

    /// What is known of each worker.
    pub fn workers(&self) -> Vec<WorkerStatus> {
        self.inner.workers.status()
    }

    /// The depth of the cleanup queue, and at most so many of the rows that are due soonest.
    pub async fn cleanup_page(&self, max: u32) -> Result<CleanupPage> {
        Ok(self.inner.store.cleanup_page(max).await?)
    }

    /// The processes that write, or wrote, to the catalogue.
    pub async fn instances(&self) -> Result<Vec<InstanceRow>> {
        Ok(self.inner.store.instances().await?)
    }
}
