//! `ListAllMyBucketsResult`

use base::{BucketName, Timestamp};

use super::write::Writer;

/// The answer to ListBuckets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BucketList {
    /// The buckets, in the order of their names.
    pub buckets: Vec<BucketEntry>,
    /// The prefix that was asked for.
    pub prefix: Option<String>,
    /// Where to go on, where there are more.
    pub continuation_token: Option<String>,
}

/// One bucket of the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BucketEntry {
    /// Its name.
    pub name: BucketName,
    /// When it was created.
    pub created: Timestamp,
}

impl BucketList {
    /// Writes the document.
    pub fn to_xml(&self) -> String {
        let mut writer = Writer::new("ListAllMyBucketsResult");
        writer.owner("Owner");
        writer.open("Buckets");
        for bucket in &self.buckets {
            writer.open("Bucket");
            writer.element("Name", bucket.name.as_str());
            writer.time("CreationDate", bucket.created);
            writer.close("Bucket");
        }
        writer.close("Buckets");
        writer.optional("Prefix", self.prefix.as_deref());
        writer.optional("ContinuationToken", self.continuation_token.as_deref());
        writer.finish()
    }
}
