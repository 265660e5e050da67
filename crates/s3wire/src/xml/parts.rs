//! `ListPartsResult`

use base::{Checksum, ETag, PartNumber, Timestamp};

use super::read::{Element, RESPONSE_BYTES_MAX, XmlError, read_as};
use super::write::Writer;
use crate::headers::{ObjectChecksum, UploadChecksum};
use crate::op::Encoding;

/// A page of ListParts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PartsPage {
    /// The bucket.
    pub bucket: String,
    /// The key.
    pub key: String,
    /// The upload.
    pub upload_id: String,
    /// As it was asked for.
    pub part_number_marker: u32,
    /// The last part of the page; there where the page is not the last.
    pub next_part_number_marker: Option<u32>,
    /// As it was asked for.
    pub max_parts: u32,
    /// Whether there is more.
    pub is_truncated: bool,
    /// The checksum that the upload is to have.
    pub checksum: Option<UploadChecksum>,
    /// How the key is written.
    pub encoding: Encoding,
    /// The parts in the order of their numbers.
    pub parts: Vec<PartEntry>,
}

/// One part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartEntry {
    /// Its place.
    pub part: PartNumber,
    /// Its entity tag.
    pub etag: ETag,
    /// Its size in bytes.
    pub size: u64,
    /// When it was uploaded.
    pub last_modified: Timestamp,
    /// Its checksum, where it was sent with one.
    pub checksum: Option<Checksum>,
}

impl PartEntry {
    fn write(&self, writer: &mut Writer) {
        writer.open("Part");
        writer.number("PartNumber", self.part.get());
        writer.time("LastModified", self.last_modified);
        writer.etag(&self.etag);
        writer.number("Size", self.size);
        if let Some(checksum) = self.checksum {
            writer.checksum(&ObjectChecksum {
                checksum,
                parts: None,
            });
        }
        writer.close("Part");
    }

    fn read(node: &Element) -> Result<Self, XmlError> {
        Ok(Self {
            part: node.required_value("PartNumber")?,
            etag: node.etag().ok_or(XmlError::Missing { element: "ETag" })?,
            size: node.required_value("Size")?,
            last_modified: node.time("LastModified")?,
            checksum: node.checksums().next().map(|value| value.checksum),
        })
    }
}

impl PartsPage {
    /// Writes the document.
    pub fn to_xml(&self) -> String {
        let mut writer = Writer::new("ListPartsResult");
        writer.element("Bucket", &self.bucket);
        writer.key("Key", &self.key, self.encoding);
        writer.element("UploadId", &self.upload_id);
        writer.owner("Initiator");
        writer.owner("Owner");
        writer.element("StorageClass", "STANDARD");
        writer.number("PartNumberMarker", self.part_number_marker);
        if let Some(next) = self.next_part_number_marker {
            writer.number("NextPartNumberMarker", next);
        }
        writer.number("MaxParts", self.max_parts);
        writer.flag("IsTruncated", self.is_truncated);
        if let Some(checksum) = &self.checksum {
            writer.element("ChecksumAlgorithm", checksum.algorithm.as_str());
            writer.element("ChecksumType", checksum.kind.as_str());
        }
        writer.encoding(self.encoding);
        self.parts.iter().for_each(|part| part.write(&mut writer));
        writer.finish()
    }

    /// Reads a backend's answer. As with objects, a truncated page has to say where it goes on.
    pub fn from_xml(document: &[u8]) -> Result<Self, XmlError> {
        let node = read_as(document, "ListPartsResult", RESPONSE_BYTES_MAX)?;
        let encoding = node.encoding();
        let page = Self {
            bucket: node.filled("Bucket").unwrap_or("").to_owned(),
            key: node.key("Key", encoding)?,
            upload_id: node.filled("UploadId").unwrap_or("").to_owned(),
            part_number_marker: node.value("PartNumberMarker")?.unwrap_or(0),
            next_part_number_marker: node.value("NextPartNumberMarker")?,
            max_parts: node.value("MaxParts")?.unwrap_or(0),
            // Some servers leave it out here (s3s-fs). Nothing is given up for what this list alone lacks.
            is_truncated: node.flag("IsTruncated")?,
            checksum: node.upload_checksum(),
            encoding,
            parts: node
                .children("Part")
                .map(PartEntry::read)
                .collect::<Result<_, _>>()?,
        };
        match page.is_truncated && page.next_part_number_marker.is_none() {
            true => Err(XmlError::Missing {
                element: "NextPartNumberMarker",
            }),
            false => Ok(page),
        }
    }
}
