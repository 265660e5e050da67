//! ListObjects: from the catalogue alone.

use metastore::model::{ListQuery, Listing};

use crate::{Engine, Result};

impl Engine {
    /// One page of keys and common prefixes.
    pub async fn list(&self, query: &ListQuery) -> Result<Listing> {
        self.knows_absence()?;
        Ok(self.inner.store.list(query).await?)
    }
}
