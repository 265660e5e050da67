//! What an operator looks at.

use super::{Dialect, Store, lookup};
use crate::Result;
use crate::model::{BackendTotals, CleanupPage, InstanceRow};
use crate::sqlite::overview;

impl Store {
    /// What the rows say of each backend; by id.
    pub async fn backend_totals(&self) -> Result<Vec<BackendTotals>> {
        lookup!(
            self,
            "add the backends up",
            |tx| overview::backend_totals(tx),
            |shared| shared.backend_totals()
        )
    }

    /// The depth of the cleanup queue and the rows that are due soonest, in one snapshot. Nothing
    /// is claimed.
    pub async fn cleanup_page(&self, max: u32) -> Result<CleanupPage> {
        lookup!(
            self,
            "look at the cleanup queue",
            |tx| overview::cleanup_page(tx, &self.inner.live, max),
            |shared| shared.cleanup_page(max)
        )
    }

    /// The processes that write, or wrote, to this catalogue; by number.
    pub async fn instances(&self) -> Result<Vec<InstanceRow>> {
        let mut instances = lookup!(
            self,
            "list the instances",
            |tx| overview::instances(tx),
            |shared| shared.instances()
        )?;
        if let Dialect::Sqlite(files) = &self.inner.dialect {
            // Who only reads is none of them.
            for instance in &mut instances {
                instance.this &= files.is_writing();
            }
        }
        Ok(instances)
    }
}
