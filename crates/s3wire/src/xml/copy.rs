//! `CopyObjectResult` and `CopyPartResult`

use base::{ChecksumKind, ETag, Timestamp};

use super::error::{LateResponse, read_answer};
use super::read::XmlError;
use super::write::Writer;
use crate::headers::ObjectChecksum;

/// Which of the two documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CopyRoot {
    /// Of CopyObject.
    Object,
    /// Of UploadPartCopy.
    Part,
}

/// The answer to CopyObject and to UploadPartCopy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopyResult {
    /// The copy's entity tag.
    pub etag: ETag,
    /// When it was written.
    pub last_modified: Timestamp,
    /// The copy's checksum.
    pub checksum: Option<ObjectChecksum>,
    /// What the checksum of an object is over; a part has no kind.
    pub kind: Option<ChecksumKind>,
}

impl CopyRoot {
    const fn element(self) -> &'static str {
        match self {
            Self::Object => "CopyObjectResult",
            Self::Part => "CopyPartResult",
        }
    }
}

impl CopyResult {
    /// Writes the document.
    pub fn to_xml(&self, root: CopyRoot) -> String {
        let mut writer = Writer::new(root.element());
        writer.etag(&self.etag);
        writer.time("LastModified", self.last_modified);
        if let Some(checksum) = &self.checksum {
            writer.checksum(checksum);
        }
        writer.optional("ChecksumType", self.kind.map(ChecksumKind::as_str));
        writer.finish()
    }

    /// Reads a backend's answer with status 200.
    pub fn from_xml(document: &[u8], root: CopyRoot) -> Result<LateResponse<Self>, XmlError> {
        read_answer(document, root.element(), |node| {
            Ok(Self {
                etag: node.etag().ok_or(XmlError::Missing { element: "ETag" })?,
                last_modified: node.time("LastModified")?,
                checksum: node.checksums().next(),
                kind: node
                    .filled("ChecksumType")
                    .and_then(ChecksumKind::from_name),
            })
        })
    }
}
