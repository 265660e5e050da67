//! `ListBucketResult` in its two versions.

#[cfg(test)]
use base::ChecksumAlgorithm;
use base::{ETag, Timestamp};

use super::read::{Element, RESPONSE_BYTES_MAX, TOKEN_BYTES_MAX, XmlError, read_as};
use super::write::Writer;
use crate::headers::UploadChecksum;
use crate::op::{Encoding, FetchOwner, NamedVersion};

/// One object of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectEntry {
    /// The key.
    pub key: String,
    /// Size in bytes.
    pub size: u64,
    /// The entity tag; some servers leave it out.
    pub etag: Option<ETag>,
    /// When it was written.
    pub last_modified: Timestamp,
    /// The checksum that a read can return, where there is one.
    pub checksum: Option<UploadChecksum>,
}

/// A page of ListObjectsV2.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ObjectsPageV2 {
    /// The bucket.
    pub bucket: String,
    /// As it was asked for.
    pub prefix: String,
    /// As it was asked for.
    pub delimiter: Option<String>,
    /// As it was asked for.
    pub start_after: Option<String>,
    /// As it was asked for.
    pub continuation_token: Option<String>,
    /// Where the next page begins; there where the page is not the last.
    pub next_continuation_token: Option<String>,
    /// As it was asked for.
    pub max_keys: u32,
    /// Whether there is more.
    pub is_truncated: bool,
    /// How keys are written.
    pub encoding: Encoding,
    /// Whether entries name their owner.
    pub fetch_owner: FetchOwner,
    /// The objects.
    pub entries: Vec<ObjectEntry>,
    /// What was rolled up.
    pub common_prefixes: Vec<String>,
}

/// A page of ListObjects.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ObjectsPageV1 {
    /// The bucket.
    pub bucket: String,
    /// As it was asked for.
    pub prefix: String,
    /// As it was asked for.
    pub delimiter: Option<String>,
    /// As it was asked for.
    pub marker: String,
    /// The marker of the next page. S3 sends it with a delimiter only; without one, clients take
    /// the last key.
    pub next_marker: Option<String>,
    /// As it was asked for.
    pub max_keys: u32,
    /// Whether there is more.
    pub is_truncated: bool,
    /// How keys are written.
    pub encoding: Encoding,
    /// The objects.
    pub entries: Vec<ObjectEntry>,
    /// What was rolled up.
    pub common_prefixes: Vec<String>,
}

impl ObjectEntry {
    fn write(&self, writer: &mut Writer, encoding: Encoding, owner: FetchOwner) {
        writer.open("Contents");
        writer.key("Key", &self.key, encoding);
        self.write_facts(writer);
        match owner {
            FetchOwner::Omit => {}
            FetchOwner::Include => writer.owner("Owner"),
        }
        writer.element("StorageClass", "STANDARD");
        writer.close("Contents");
    }

    /// The entry as the one version that there is of its object.
    pub(super) fn write_version(&self, writer: &mut Writer, encoding: Encoding) {
        writer.open("Version");
        writer.key("Key", &self.key, encoding);
        writer.element("VersionId", NamedVersion::NULL);
        writer.flag("IsLatest", true);
        self.write_facts(writer);
        writer.element("StorageClass", "STANDARD");
        writer.owner("Owner");
        writer.close("Version");
    }

    fn write_facts(&self, writer: &mut Writer) {
        writer.time("LastModified", self.last_modified);
        if let Some(etag) = &self.etag {
            writer.etag(etag);
        }
        if let Some(checksum) = &self.checksum {
            writer.element("ChecksumAlgorithm", checksum.algorithm.as_str());
            writer.element("ChecksumType", checksum.kind.as_str());
        }
        writer.number("Size", self.size);
    }

    fn read(node: &Element, encoding: Encoding) -> Result<Self, XmlError> {
        node.required("Key")?;
        Ok(Self {
            key: node.key("Key", encoding)?,
            size: node.required_value("Size")?,
            etag: node.etag(),
            last_modified: node.time("LastModified")?,
            checksum: node.upload_checksum(),
        })
    }
}

impl ObjectsPageV2 {
    /// Writes the document.
    pub fn to_xml(&self) -> String {
        let mut writer = Writer::new("ListBucketResult");
        writer.element("Name", &self.bucket);
        writer.key("Prefix", &self.prefix, self.encoding);
        if let Some(delimiter) = &self.delimiter {
            writer.key("Delimiter", delimiter, self.encoding);
        }
        if let Some(start_after) = &self.start_after {
            writer.key("StartAfter", start_after, self.encoding);
        }
        writer.optional("ContinuationToken", self.continuation_token.as_deref());
        writer.optional(
            "NextContinuationToken",
            self.next_continuation_token.as_deref(),
        );
        writer.number(
            "KeyCount",
            (self.entries.len() + self.common_prefixes.len()) as u64,
        );
        writer.number("MaxKeys", self.max_keys);
        writer.flag("IsTruncated", self.is_truncated);
        writer.encoding(self.encoding);
        for entry in &self.entries {
            entry.write(&mut writer, self.encoding, self.fetch_owner);
        }
        writer.prefixes(&self.common_prefixes, self.encoding);
        writer.finish()
    }

    /// Reads a backend's answer.
    ///
    /// A page that claims to be truncated without saying where it goes on is refused: it would be
    /// read for ever or taken for the last.
    pub fn from_xml(document: &[u8]) -> Result<Self, XmlError> {
        let node = read_as(document, "ListBucketResult", RESPONSE_BYTES_MAX)?;
        let encoding = node.encoding();
        let filled = |name: &'static str| {
            node.key(name, encoding)
                .map(|text| Some(text).filter(|text| !text.is_empty()))
        };
        let page = Self {
            bucket: node.filled("Name").unwrap_or("").to_owned(),
            prefix: node.key("Prefix", encoding)?,
            delimiter: filled("Delimiter")?,
            start_after: filled("StartAfter")?,
            continuation_token: node.filled("ContinuationToken").map(str::to_owned),
            next_continuation_token: node.next("NextContinuationToken", TOKEN_BYTES_MAX)?,
            max_keys: node.value("MaxKeys")?.unwrap_or(0),
            // Absent, a listing that goes on would be taken for its end.
            is_truncated: node.required_value("IsTruncated")?,
            encoding,
            fetch_owner: match node
                .children("Contents")
                .any(|entry| entry.child("Owner").is_some())
            {
                true => FetchOwner::Include,
                false => FetchOwner::Omit,
            },
            entries: node
                .children("Contents")
                .map(|entry| ObjectEntry::read(entry, encoding))
                .collect::<Result<_, _>>()?,
            common_prefixes: node.prefixes(encoding)?,
        };
        match page.is_truncated && page.next_continuation_token.is_none() {
            true => Err(XmlError::Missing {
                element: "NextContinuationToken",
            }),
            false => Ok(page),
        }
    }
}

impl ObjectsPageV1 {
    /// Writes the document.
    pub fn to_xml(&self) -> String {
        let mut writer = Writer::new("ListBucketResult");
        writer.element("Name", &self.bucket);
        writer.key("Prefix", &self.prefix, self.encoding);
        writer.key("Marker", &self.marker, self.encoding);
        if let Some(next) = &self.next_marker {
            writer.key("NextMarker", next, self.encoding);
        }
        if let Some(delimiter) = &self.delimiter {
            writer.key("Delimiter", delimiter, self.encoding);
        }
        writer.number("MaxKeys", self.max_keys);
        writer.flag("IsTruncated", self.is_truncated);
        writer.encoding(self.encoding);
        for entry in &self.entries {
            entry.write(&mut writer, self.encoding, FetchOwner::Include);
        }
        writer.prefixes(&self.common_prefixes, self.encoding);
        writer.finish()
    }
}

#[cfg(test)]
pub(super) fn entry(key: &str) -> ObjectEntry {
    ObjectEntry {
        key: key.to_owned(),
        size: 5 << 40,
        etag: Some(ETag::new("9e107d9d372bb6826bd81d3542a419d6-2")),
        last_modified: Timestamp::from_millis(1_369_353_600_123),
        checksum: Some(UploadChecksum {
            algorithm: ChecksumAlgorithm::Crc64Nvme,
            kind: ChecksumAlgorithm::Crc64Nvme.default_kind(),
        }),
    }
}
