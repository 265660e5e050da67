//! The virtual buckets: those of the configuration, and those that clients make and remove.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use base::BucketName;
use metastore::model::{
    Bucket, BucketCreation, BucketId, BucketOwner, BucketRemoval, UploadEntry, UploadQuery,
};

use crate::{Engine, Error, Result};

/// Uploads that are ended at a time before their bucket is removed.
const UPLOADS_PER_ROUND: u32 = 1000;
/// How often the removal of a bucket is tried while clients begin new uploads in it.
const REMOVAL_ROUNDS_MAX: u32 = 8;

/// All buckets that requests may name, found without a lock.
#[derive(Default)]
pub(crate) struct Buckets(ArcSwap<Known>);

#[derive(Default, Clone)]
struct Known {
    by_name: HashMap<BucketName, Arc<Bucket>>,
    by_id: HashMap<BucketId, Arc<Bucket>>,
}

impl Buckets {
    pub(crate) fn new(all: impl IntoIterator<Item = Bucket>) -> Self {
        let mut known = Known::default();
        for bucket in all {
            known.add(bucket);
        }
        Self(ArcSwap::from_pointee(known))
    }

    fn add(&self, bucket: &Bucket) {
        self.0.rcu(|known| {
            let mut known = Known::clone(known);
            known.add(bucket.clone());
            known
        });
    }

    fn forget(&self, bucket: &Bucket) {
        self.0.rcu(|known| {
            let mut known = Known::clone(known);
            known.by_id.remove(&bucket.id);
            // Another one may have been made under the name.
            if known
                .by_name
                .get(&bucket.name)
                .is_some_and(|found| found.id == bucket.id)
            {
                known.by_name.remove(&bucket.name);
            }
            known
        });
    }
}

impl Known {
    fn add(&mut self, bucket: Bucket) {
        let bucket = Arc::new(bucket);
        self.by_id.insert(bucket.id, Arc::clone(&bucket));
        self.by_name.insert(bucket.name.clone(), bucket);
    }
}

impl Engine {
    /// The virtual bucket with this name.
    pub fn bucket(&self, name: &BucketName) -> Option<Arc<Bucket>> {
        self.inner.buckets.0.load().by_name.get(name).cloned()
    }

    /// The virtual bucket with this name; where several instances share the catalogue, also one that
    /// another of them has made, and no longer one that another has removed.
    pub async fn find_bucket(&self, name: &BucketName) -> Result<Option<Arc<Bucket>>> {
        let known = self.bucket(name);
        let store = &self.inner.store;
        let settled = known
            .as_ref()
            .is_some_and(|bucket| bucket.owner == BucketOwner::Config);
        if settled || !store.is_shared() {
            return Ok(known);
        }
        match (store.bucket_of_others(name).await?, known) {
            (Some(found), Some(known)) if *known == found => Ok(Some(known)),
            (Some(found), known) => {
                if let Some(known) = known {
                    self.inner.buckets.forget(&known);
                }
                self.inner.buckets.add(&found);
                Ok(self.bucket(name))
            }
            (None, Some(known)) => {
                self.inner.buckets.forget(&known);
                Ok(None)
            }
            (None, None) => Ok(None),
        }
    }

    /// All virtual buckets, by name. Where several instances share the catalogue, those of clients are
    /// looked up.
    pub async fn all_buckets(&self) -> Result<Vec<Arc<Bucket>>> {
        if self.inner.store.is_shared() {
            let found = self.inner.store.client_buckets().await?;
            for known in self.buckets() {
                let gone = known.owner == BucketOwner::Catalogue && !found.contains(&known);
                if gone {
                    self.inner.buckets.forget(&known);
                }
            }
            for bucket in &found {
                self.inner.buckets.add(bucket);
            }
        }
        Ok(self.buckets())
    }

    /// All virtual buckets that this process knows of, by name.
    pub fn buckets(&self) -> Vec<Arc<Bucket>> {
        let known = self.inner.buckets.0.load();
        let mut all: Vec<_> = known.by_name.values().cloned().collect();
        all.sort_unstable_by(|one, other| one.name.cmp(&other.name));
        all
    }

    /// The name of a bucket that a request has found.
    ///
    /// # Errors
    /// [`Error::NoSuchBucket`] where it was removed since.
    pub(crate) fn bucket_name(&self, id: BucketId) -> Result<BucketName> {
        let known = self.inner.buckets.0.load();
        let bucket = known.by_id.get(&id).ok_or(Error::NoSuchBucket)?;
        Ok(bucket.name.clone())
    }

    /// Makes a bucket that belongs to the catalogue. After `Ok` every request may use it.
    ///
    /// # Errors
    /// [`Error::BucketExists`] where the name is taken.
    pub async fn create_bucket(&self, name: &BucketName) -> Result<()> {
        match self.inner.store.create_bucket(name).await? {
            BucketCreation::Created(bucket) => {
                self.inner.buckets.add(&bucket);
                Ok(())
            }
            BucketCreation::Exists(bucket) => Err(Error::BucketExists {
                in_use: match bucket.owner {
                    // One that the configuration named once, and maybe no longer does.
                    BucketOwner::Config => self.find_bucket(&bucket.name).await?.is_some(),
                    BucketOwner::Catalogue => self.learn(&bucket).await?,
                },
            }),
        }
    }

    /// Makes a bucket known that a racing request has made, and may not have made known yet. Whether it
    /// is still there.
    async fn learn(&self, bucket: &Bucket) -> Result<bool> {
        self.inner.buckets.add(bucket);
        // Known first, looked up second: whoever removes it after the look forgets it after we knew.
        let found = self.inner.store.client_buckets().await?;
        let still = found.contains(bucket);
        if !still {
            self.inner.buckets.forget(bucket);
        }
        Ok(still)
    }

    /// Removes a bucket without objects; unfinished uploads in it end.
    ///
    /// # Errors
    /// [`Error::BucketNotEmpty`]; [`Error::BucketOfConfig`] where it belongs to the configuration.
    pub async fn delete_bucket(&self, bucket: &Bucket) -> Result<()> {
        self.knows_absence()?;
        for _ in 0..REMOVAL_ROUNDS_MAX {
            match self.inner.store.remove_bucket(bucket.id).await? {
                BucketRemoval::Gone => {
                    self.inner.buckets.forget(bucket);
                    return Ok(());
                }
                BucketRemoval::Absent => return Err(Error::NoSuchBucket),
                BucketRemoval::NotOurs => return Err(Error::BucketOfConfig),
                BucketRemoval::NotEmpty => {
                    if self.end_uploads(bucket).await? == 0 {
                        return Err(Error::BucketNotEmpty);
                    }
                }
            }
        }
        Err(Error::BucketNotEmpty)
    }

    /// Ends unfinished uploads of a bucket that holds no object; how many.
    async fn end_uploads(&self, bucket: &Bucket) -> Result<usize> {
        let any_object = self
            .list(&metastore::model::ListQuery {
                bucket: bucket.id,
                prefix: String::new(),
                delimiter: None,
                start: metastore::model::ListStart::Beginning,
                max_entries: 1,
            })
            .await?;
        if !any_object.entries.is_empty() {
            return Ok(0);
        }
        let open = self
            .list_uploads(&UploadQuery {
                bucket: bucket.id,
                prefix: String::new(),
                delimiter: None,
                after: None,
                max_entries: UPLOADS_PER_ROUND,
            })
            .await?;
        let mut ended = 0;
        for entry in open.entries {
            let UploadEntry::Upload { key, upload, .. } = entry else {
                continue;
            };
            let Ok(key) = key.parse() else { continue };
            match self.abort_upload(bucket.id, &key, upload).await {
                // Another request ended it.
                Ok(()) | Err(Error::NoSuchUpload) => ended += 1,
                Err(error) => return Err(error),
            }
        }
        Ok(ended)
    }
}
