//! `GetObjectAttributesResponse`

use base::{Checksum, ChecksumKind, ETag};

use super::write::{Writer, checksum_element};
use crate::headers::ObjectChecksum;

/// What GetObjectAttributes answers: whatever was asked for and is there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ObjectAttributes {
    /// The entity tag; this document alone has it without quotes.
    pub etag: Option<ETag>,
    /// The checksum and what it is over.
    pub checksum: Option<(ObjectChecksum, ChecksumKind)>,
    /// The parts of an object that was uploaded in parts.
    pub parts: Option<AttributedParts>,
    /// Whether the storage class is told; there is one.
    pub storage_class: bool,
    /// Size in bytes.
    pub size: Option<u64>,
}

/// A page of parts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AttributedParts {
    /// All of them.
    pub total: u32,
    /// The page; S3 tells of parts only where they have checksums.
    pub page: Option<PartsWithChecksums>,
}

/// A page of parts that have checksums.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PartsWithChecksums {
    /// As it was asked for.
    pub marker: u32,
    /// Where the next page begins, if there is one.
    pub next_marker: Option<u32>,
    /// As it was asked for.
    pub max_parts: u32,
    /// Number, size in bytes and checksum.
    pub parts: Vec<(u32, u64, Option<Checksum>)>,
}

impl ObjectAttributes {
    /// Writes the document.
    pub fn to_xml(&self) -> String {
        let mut writer = Writer::new("GetObjectAttributesResponse");
        writer.optional("ETag", self.etag.as_ref().map(ETag::as_str));
        if let Some((checksum, kind)) = &self.checksum {
            writer.open("Checksum");
            writer.checksum(checksum);
            writer.element("ChecksumType", kind.as_str());
            writer.close("Checksum");
        }
        if let Some(parts) = &self.parts {
            writer.open("ObjectParts");
            writer.number("PartsCount", parts.total);
            if let Some(page) = &parts.page {
                page.write(&mut writer);
            }
            writer.close("ObjectParts");
        }
        if self.storage_class {
            writer.element("StorageClass", "STANDARD");
        }
        if let Some(size) = self.size {
            writer.number("ObjectSize", size);
        }
        writer.finish()
    }
}

impl PartsWithChecksums {
    fn write(&self, writer: &mut Writer) {
        writer.number("PartNumberMarker", self.marker);
        if let Some(next) = self.next_marker {
            writer.number("NextPartNumberMarker", next);
        }
        writer.number("MaxParts", self.max_parts);
        writer.flag("IsTruncated", self.next_marker.is_some());
        for (number, size, checksum) in &self.parts {
            writer.open("Part");
            writer.number("PartNumber", *number);
            writer.number("Size", *size);
            if let Some(checksum) = checksum {
                let element = checksum_element(checksum.algorithm());
                writer.element(element, &checksum.to_base64());
            }
            writer.close("Part");
        }
    }
}

#[cfg(test)]
mod tests {
    use base::ChecksumAlgorithm;

    use super::*;

    #[test]
    fn only_what_is_there_is_told() {
        let empty = ObjectAttributes::default().to_xml();
        assert!(
            !empty.contains("ETag") && !empty.contains("ObjectParts"),
            "{empty}"
        );
        let checksum = Checksum::from_base64(ChecksumAlgorithm::Crc32, "AAAAAA==").unwrap();
        let parts = Some(2);
        let whole = ObjectAttributes {
            etag: Some(ETag::new("\"a-2\"")),
            checksum: Some((ObjectChecksum { checksum, parts }, ChecksumKind::Composite)),
            parts: Some(AttributedParts {
                total: 2,
                page: Some(PartsWithChecksums {
                    marker: 0,
                    next_marker: Some(1),
                    max_parts: 1,
                    parts: vec![(1, 5, Some(checksum))],
                }),
            }),
            storage_class: true,
            size: Some(10),
        };
        let document = whole.to_xml();
        for part in [
            "<ETag>a-2</ETag>",
            "<Checksum><ChecksumCRC32>AAAAAA==-2</ChecksumCRC32><ChecksumType>COMPOSITE</ChecksumType></Checksum>",
            "<ObjectParts><PartsCount>2</PartsCount><PartNumberMarker>0</PartNumberMarker>",
            "<IsTruncated>true</IsTruncated><Part><PartNumber>1</PartNumber><Size>5</Size><ChecksumCRC32>AAAAAA==</ChecksumCRC32></Part></ObjectParts>",
            "<StorageClass>STANDARD</StorageClass><ObjectSize>10</ObjectSize>",
        ] {
            assert!(document.contains(part), "{part} is not in {document}");
        }
    }
}
