//! `PostResponse`

use base::ETag;

use super::write::Writer;

/// What a form that asked for 201 is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PostResponse {
    /// The object's address.
    pub location: String,
    /// The bucket.
    pub bucket: String,
    /// The key.
    pub key: String,
    /// The entity tag.
    pub etag: ETag,
}

impl PostResponse {
    /// Writes the document.
    pub fn to_xml(&self) -> String {
        let mut writer = Writer::bare("PostResponse");
        writer.element("Location", &self.location);
        writer.element("Bucket", &self.bucket);
        writer.element("Key", &self.key);
        writer.etag(&self.etag);
        writer.finish()
    }
}
