//! `ListVersionsResult`: what a backend with versioning holds, and what a bucket without versions shows.

use base::{ETag, Timestamp};

use super::objects::ObjectEntry;
use super::read::{Element, ID_BYTES_MAX, RESPONSE_BYTES_MAX, XmlError, read_as};
use super::write::Writer;
use crate::op::{Encoding, NamedVersion};

/// A page of ListObjectVersions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VersionsPage {
    /// Versions and delete markers in the backend's order.
    pub entries: Vec<VersionEntry>,
    /// What was rolled up.
    pub common_prefixes: Vec<String>,
    /// Whether there is more.
    pub is_truncated: bool,
    /// Where the next page begins; there where the page is not the last.
    pub next_key_marker: Option<String>,
    /// Belongs to the key marker.
    pub next_version_id_marker: Option<String>,
}

/// A page of ListObjectVersions of a bucket that keeps no versions: each object is its own `null`
/// version.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NullVersionsPage {
    /// The bucket.
    pub bucket: String,
    /// As it was asked for.
    pub prefix: String,
    /// As it was asked for.
    pub delimiter: Option<String>,
    /// As it was asked for.
    pub key_marker: String,
    /// As it was asked for.
    pub version_id_marker: Option<NamedVersion>,
    /// Where the next page begins; there where the page is not the last.
    pub next_key_marker: Option<String>,
    /// Whether the next page begins behind a version, and not behind a common prefix.
    pub next_version_id_marker: Option<NamedVersion>,
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

impl NullVersionsPage {
    /// Writes the document.
    pub fn to_xml(&self) -> String {
        let mut writer = Writer::new("ListVersionsResult");
        let id = |version: Option<NamedVersion>| version.map_or("", |_| NamedVersion::NULL);
        writer.element("Name", &self.bucket);
        writer.key("Prefix", &self.prefix, self.encoding);
        writer.key("KeyMarker", &self.key_marker, self.encoding);
        writer.element("VersionIdMarker", id(self.version_id_marker));
        if let Some(next) = &self.next_key_marker {
            writer.key("NextKeyMarker", next, self.encoding);
        }
        if self.next_version_id_marker.is_some() {
            writer.element("NextVersionIdMarker", id(self.next_version_id_marker));
        }
        writer.number("MaxKeys", self.max_keys);
        if let Some(delimiter) = &self.delimiter {
            writer.key("Delimiter", delimiter, self.encoding);
        }
        writer.encoding(self.encoding);
        writer.flag("IsTruncated", self.is_truncated);
        for entry in &self.entries {
            entry.write_version(&mut writer, self.encoding);
        }
        writer.prefixes(&self.common_prefixes, self.encoding);
        writer.finish()
    }
}

/// One version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionEntry {
    /// The key.
    pub key: String,
    /// The version's identifier; `null` for what is older than versioning.
    pub version_id: String,
    /// Whether a read without version sees this one.
    pub is_latest: bool,
    /// When it was written.
    pub last_modified: Timestamp,
    /// What it is.
    pub kind: VersionKind,
}

/// What a version is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VersionKind {
    /// Bytes.
    Object {
        /// How many.
        size: u64,
        /// Their entity tag.
        etag: Option<ETag>,
    },
    /// The trace of a delete.
    DeleteMarker,
}

impl VersionsPage {
    /// Reads a backend's answer. As with objects, a truncated page has to say where it goes on.
    pub fn from_xml(document: &[u8]) -> Result<Self, XmlError> {
        let node = read_as(document, "ListVersionsResult", RESPONSE_BYTES_MAX)?;
        let encoding = node.encoding();
        let entry = |node: &Element, kind: VersionKind| -> Result<VersionEntry, XmlError> {
            node.required("Key")?;
            Ok(VersionEntry {
                key: node.key("Key", encoding)?,
                version_id: node.required_bounded("VersionId", ID_BYTES_MAX)?.to_owned(),
                is_latest: node.flag("IsLatest")?,
                last_modified: node.time("LastModified")?,
                kind,
            })
        };
        let mut entries = Vec::new();
        for child in node.all() {
            let kind = if child.is("Version") {
                VersionKind::Object {
                    size: child.required_value("Size")?,
                    etag: child.etag(),
                }
            } else if child.is("DeleteMarker") {
                VersionKind::DeleteMarker
            } else {
                continue;
            };
            entries.push(entry(child, kind)?);
        }
        let next_key_marker = node.key("NextKeyMarker", encoding)?;
        let page = Self {
            entries,
            common_prefixes: node.prefixes(encoding)?,
            is_truncated: node.required_value("IsTruncated")?,
            next_key_marker: Some(next_key_marker).filter(|marker| !marker.is_empty()),
            next_version_id_marker: node.next("NextVersionIdMarker", ID_BYTES_MAX)?,
        };
        match page.is_truncated && page.next_key_marker.is_none() {
            true => Err(XmlError::Missing {
                element: "NextKeyMarker",
            }),
            false => Ok(page),
        }
    }
}
