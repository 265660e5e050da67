//! DeleteObject and DeleteObjects: one transaction each; no backend is waited for.

use base::{ObjectKey, Precondition};
use metastore::model::{BucketId, Removal, Removed};

use crate::observe::{Event, Outcome};
use crate::{Engine, Error, Result};

/// What a delete found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeleteOutcome {
    /// The key had a version, which is gone.
    Deleted,
    /// There was nothing; S3 answers 204 all the same.
    Absent,
}

impl Engine {
    /// Removes a key. After `Ok` no reader sees the object; its bytes go later, by the cleanup queue.
    pub async fn remove(
        &self,
        bucket: BucketId,
        key: ObjectKey,
        precondition: Precondition,
    ) -> Result<DeleteOutcome> {
        let began = tokio::time::Instant::now();
        let removed = self
            .inner
            .store
            .remove(Removal {
                bucket,
                key,
                precondition,
            })
            .await;
        let result = self.removal(removed);
        self.report_removal("DeleteObject", &result, began);
        result
    }

    /// Removes keys, each on its own; outcomes in the order of the keys.
    pub async fn remove_many(
        &self,
        bucket: BucketId,
        keys: Vec<ObjectKey>,
    ) -> Vec<Result<DeleteOutcome>> {
        let began = tokio::time::Instant::now();
        let removal = |key| Removal {
            bucket,
            key,
            precondition: Precondition::None,
        };
        let removals = keys.into_iter().map(removal).collect();
        let removed = self.inner.store.remove_many(removals).await;
        let results: Vec<_> = removed
            .into_iter()
            .map(|removed| self.removal(removed))
            .collect();
        for result in &results {
            self.report_removal("DeleteObjects", result, began);
        }
        results
    }

    fn removal(&self, removed: metastore::Result<Removed>) -> Result<DeleteOutcome> {
        match removed? {
            Removed::Gone { .. } => Ok(DeleteOutcome::Deleted),
            Removed::Absent => self.knows_absence().map(|()| DeleteOutcome::Absent),
            Removed::PreconditionFailed => Err(Error::PreconditionFailed),
        }
    }

    fn report_removal(
        &self,
        operation: &'static str,
        result: &Result<DeleteOutcome>,
        began: tokio::time::Instant,
    ) {
        let outcome = match result {
            Ok(_) => Outcome::Success,
            Err(_) => Outcome::Error,
        };
        self.inner.bells.displaced();
        self.observe(Event::Verb {
            operation,
            backend: None,
            outcome,
            took: began.elapsed(),
        });
    }
}
