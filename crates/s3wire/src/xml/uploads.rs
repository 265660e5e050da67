//! `InitiateMultipartUploadResult` and `ListMultipartUploadsResult`

use base::Timestamp;

use super::read::{Element, RESPONSE_BYTES_MAX, TOKEN_BYTES_MAX, XmlError, read_as};
use super::write::Writer;
use crate::headers::UploadChecksum;
use crate::op::Encoding;

/// The answer to CreateMultipartUpload.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UploadStarted {
    /// The bucket.
    pub bucket: String,
    /// The key.
    pub key: String,
    /// The upload's identifier.
    pub upload_id: String,
}

/// A page of ListMultipartUploads.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UploadsPage {
    /// The bucket.
    pub bucket: String,
    /// As it was asked for.
    pub prefix: String,
    /// As it was asked for.
    pub delimiter: Option<String>,
    /// As it was asked for.
    pub key_marker: String,
    /// As it was asked for.
    pub upload_id_marker: String,
    /// Where the next page begins; there where the page is not the last.
    pub next_key_marker: Option<String>,
    /// Belongs to the key marker.
    pub next_upload_id_marker: Option<String>,
    /// As it was asked for.
    pub max_uploads: u32,
    /// Whether there is more.
    pub is_truncated: bool,
    /// How keys are written.
    pub encoding: Encoding,
    /// The uploads, by key and then by time.
    pub entries: Vec<UploadEntry>,
    /// What was rolled up.
    pub common_prefixes: Vec<String>,
}

/// One upload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UploadEntry {
    /// The key.
    pub key: String,
    /// The upload's identifier.
    pub upload_id: String,
    /// When it was started.
    pub initiated: Timestamp,
    /// The checksum that it is to have.
    pub checksum: Option<UploadChecksum>,
}

impl UploadStarted {
    /// Writes the document.
    pub fn to_xml(&self) -> String {
        let mut writer = Writer::new("InitiateMultipartUploadResult");
        writer.element("Bucket", &self.bucket);
        writer.element("Key", &self.key);
        writer.element("UploadId", &self.upload_id);
        writer.finish()
    }

    /// Reads a backend's answer.
    pub fn from_xml(document: &[u8]) -> Result<Self, XmlError> {
        let node = read_as(
            document,
            "InitiateMultipartUploadResult",
            RESPONSE_BYTES_MAX,
        )?;
        let upload_id = node.next("UploadId", TOKEN_BYTES_MAX)?;
        let upload_id = upload_id.ok_or(XmlError::Missing {
            element: "UploadId",
        })?;
        Ok(Self {
            bucket: node.filled("Bucket").unwrap_or("").to_owned(),
            key: node.filled("Key").unwrap_or("").to_owned(),
            upload_id,
        })
    }
}

impl UploadEntry {
    fn write(&self, writer: &mut Writer, encoding: Encoding) {
        writer.open("Upload");
        writer.key("Key", &self.key, encoding);
        writer.element("UploadId", &self.upload_id);
        writer.owner("Initiator");
        writer.owner("Owner");
        writer.element("StorageClass", "STANDARD");
        writer.time("Initiated", self.initiated);
        if let Some(checksum) = &self.checksum {
            writer.element("ChecksumAlgorithm", checksum.algorithm.as_str());
            writer.element("ChecksumType", checksum.kind.as_str());
        }
        writer.close("Upload");
    }

    fn read(node: &Element, encoding: Encoding) -> Result<Self, XmlError> {
        node.required("Key")?;
        Ok(Self {
            key: node.key("Key", encoding)?,
            upload_id: node
                .required_bounded("UploadId", TOKEN_BYTES_MAX)?
                .to_owned(),
            initiated: node.time("Initiated")?,
            checksum: node.upload_checksum(),
        })
    }
}

impl UploadsPage {
    /// Writes the document.
    pub fn to_xml(&self) -> String {
        let mut writer = Writer::new("ListMultipartUploadsResult");
        writer.element("Bucket", &self.bucket);
        writer.key("KeyMarker", &self.key_marker, self.encoding);
        writer.element("UploadIdMarker", &self.upload_id_marker);
        if let Some(next) = &self.next_key_marker {
            writer.key("NextKeyMarker", next, self.encoding);
        }
        writer.optional("NextUploadIdMarker", self.next_upload_id_marker.as_deref());
        writer.key("Prefix", &self.prefix, self.encoding);
        if let Some(delimiter) = &self.delimiter {
            writer.key("Delimiter", delimiter, self.encoding);
        }
        writer.number("MaxUploads", self.max_uploads);
        writer.flag("IsTruncated", self.is_truncated);
        writer.encoding(self.encoding);
        for entry in &self.entries {
            entry.write(&mut writer, self.encoding);
        }
        writer.prefixes(&self.common_prefixes, self.encoding);
        writer.finish()
    }

    /// Reads a backend's answer. As with objects, a truncated page has to say where it goes on.
    pub fn from_xml(document: &[u8]) -> Result<Self, XmlError> {
        let node = read_as(document, "ListMultipartUploadsResult", RESPONSE_BYTES_MAX)?;
        let encoding = node.encoding();
        let filled = |name: &'static str| {
            node.key(name, encoding)
                .map(|text| Some(text).filter(|text| !text.is_empty()))
        };
        let page = Self {
            bucket: node.filled("Bucket").unwrap_or("").to_owned(),
            prefix: node.key("Prefix", encoding)?,
            delimiter: filled("Delimiter")?,
            key_marker: node.key("KeyMarker", encoding)?,
            upload_id_marker: node.filled("UploadIdMarker").unwrap_or("").to_owned(),
            next_key_marker: filled("NextKeyMarker")?,
            next_upload_id_marker: node.next("NextUploadIdMarker", TOKEN_BYTES_MAX)?,
            max_uploads: node.value("MaxUploads")?.unwrap_or(0),
            // Absent, a listing that goes on would be taken for its end.
            is_truncated: node.required_value("IsTruncated")?,
            encoding,
            entries: node
                .children("Upload")
                .map(|entry| UploadEntry::read(entry, encoding))
                .collect::<Result<_, _>>()?,
            common_prefixes: node.prefixes(encoding)?,
        };
        match page.is_truncated && page.next_key_marker.is_none() {
            true => Err(XmlError::Missing {
                element: "NextKeyMarker",
            }),
            false => Ok(page),
        }
    }
}
