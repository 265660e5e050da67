//! Tags and attributes: from the catalogue alone.

use base::{Conditions, ObjectKey, ReadOutcome, Tags, Validators};
use metastore::model::{BucketId, ObjectPart, ObjectRecord, Retag};

use crate::observe::Verb;
use crate::{Engine, Error, Result};

impl Engine {
    /// The tags of the current version.
    pub async fn tags(&self, bucket: BucketId, key: &ObjectKey) -> Result<Tags> {
        let object = self.inner.store.object(bucket, key).await?;
        let object = object.ok_or_else(|| self.absent(Error::NoSuchKey))?;
        Ok(object.tags)
    }

    /// Gives the current version other tags.
    pub async fn set_tags(&self, bucket: BucketId, key: ObjectKey, tags: Tags) -> Result<()> {
        let verb = Verb::begin("PutObjectTagging");
        let retag = Retag { bucket, key, tags };
        let result = match self.inner.store.retag(retag).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(self.absent(Error::NoSuchKey)),
            Err(error) => Err(error.into()),
        };
        self.observe_verb(verb, None, &result);
        result
    }

    /// The current version with its parts behind a part number, at most so many.
    ///
    /// # Errors
    /// [`Error::PreconditionFailed`] where a condition does not hold.
    pub async fn attributes(
        &self,
        bucket: BucketId,
        key: &ObjectKey,
        conditions: &Conditions,
        (after, max): (u32, u32),
    ) -> Result<(ObjectRecord, Vec<ObjectPart>)> {
        let found = self
            .inner
            .store
            .object_with_parts(bucket, key, after, max)
            .await?;
        let (object, parts) = found.ok_or_else(|| self.absent(Error::NoSuchKey))?;
        let current = Validators {
            etag: &object.etag,
            last_modified: object.last_modified,
        };
        match conditions.read(current) {
            ReadOutcome::Proceed => Ok((object, parts)),
            ReadOutcome::Fail => Err(Error::PreconditionFailed),
            ReadOutcome::NotModified => Err(Error::NotModified {
                etag: object.etag,
                last_modified: object.last_modified,
            }),
        }
    }
}
