//! `CompleteMultipartUpload` and `CompleteMultipartUploadResult`

use base::{Checksum, ChecksumAlgorithm, ChecksumKind, ETag, PartNumber};

use super::error::{LateResponse, read_answer};
use super::read::{Element, XmlError, read_as};
use super::write::{Writer, checksum_element};
use crate::headers::{NOT_BUILT, ObjectChecksum, not_built};
use crate::{Error, ErrorCode};

/// The largest body of CompleteMultipartUpload: 10,000 parts with a SHA-256 each, and whitespace.
pub const COMPLETE_BODY_BYTES_MAX: usize = 4 << 20;

/// One part of the list that makes the object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompletePart {
    /// Its place.
    pub part: PartNumber,
    /// The entity tag that its upload returned.
    pub etag: ETag,
    /// Its checksum, where the client names it.
    pub checksum: Option<Checksum>,
}

/// The answer to CompleteMultipartUpload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompleteResult {
    /// Where the object is.
    pub location: String,
    /// The bucket.
    pub bucket: String,
    /// The key.
    pub key: String,
    /// The object's entity tag.
    pub etag: ETag,
    /// The object's checksum.
    pub checksum: Option<ObjectChecksum>,
    /// What the checksum is over.
    pub kind: Option<ChecksumKind>,
}

/// Reads the body of CompleteMultipartUpload.
///
/// The list has at least one part, and the numbers ascend; as they are at most 10,000, so is their
/// count.
pub fn parse_complete(body: &[u8]) -> Result<Vec<CompletePart>, Error> {
    let node = read_as(body, "CompleteMultipartUpload", COMPLETE_BODY_BYTES_MAX)?;
    let mut parts: Vec<CompletePart> = Vec::new();
    for child in node.children("Part") {
        let part = CompletePart::read(child)?;
        if parts.last().is_some_and(|before| before.part >= part.part) {
            return Err(ErrorCode::InvalidPartOrder.into());
        }
        parts.push(part);
    }
    match parts.is_empty() {
        true => Err(ErrorCode::MalformedXml.into()),
        false => Ok(parts),
    }
}

/// Writes the body of CompleteMultipartUpload.
pub fn print_complete(parts: &[CompletePart]) -> String {
    let mut writer = Writer::new("CompleteMultipartUpload");
    for part in parts {
        writer.open("Part");
        writer.number("PartNumber", part.part.get());
        writer.etag(&part.etag);
        if let Some(checksum) = part.checksum {
            writer.checksum(&ObjectChecksum {
                checksum,
                parts: None,
            });
        }
        writer.close("Part");
    }
    writer.finish()
}

impl CompletePart {
    fn read(node: &Element) -> Result<Self, Error> {
        node.once(&["PartNumber", "ETag"])?;
        node.once(&ChecksumAlgorithm::ALL.map(checksum_element))?;
        let number: u64 = node.required_value("PartNumber")?;
        let part = number.try_into().map_err(|_| {
            Error::argument("Part number must be an integer between 1 and 10000, inclusive")
        })?;
        let etag = node.etag().ok_or(XmlError::Missing { element: "ETag" })?;
        let checksum = part_checksum(node)?;
        Ok(Self {
            part,
            etag,
            checksum,
        })
    }
}

/// The checksum that a client names for a part. One that cannot be read is not passed over: the client
/// relies on the comparison.
fn part_checksum(node: &Element) -> Result<Option<Checksum>, Error> {
    for algorithm in NOT_BUILT {
        if node.filled(&format!("Checksum{algorithm}")).is_some() {
            return Err(not_built(algorithm));
        }
    }
    let mut found = None;
    for algorithm in ChecksumAlgorithm::ALL {
        let element = checksum_element(algorithm);
        let Some(text) = node.filled(element) else {
            continue;
        };
        let checksum = Checksum::from_base64(algorithm, text)
            .map_err(|_| Error::request(format!("Value for {element} is invalid.")))?;
        if found.replace(checksum).is_some() {
            return Err(Error::request(
                "Only one checksum can be specified for each part.",
            ));
        }
    }
    Ok(found)
}

impl CompleteResult {
    /// Writes the document.
    pub fn to_xml(&self) -> String {
        let mut writer = Writer::new("CompleteMultipartUploadResult");
        writer.element("Location", &self.location);
        writer.element("Bucket", &self.bucket);
        writer.element("Key", &self.key);
        writer.etag(&self.etag);
        if let Some(checksum) = &self.checksum {
            writer.checksum(checksum);
        }
        writer.optional("ChecksumType", self.kind.map(ChecksumKind::as_str));
        writer.finish()
    }

    /// Reads a backend's answer with status 200.
    pub fn from_xml(document: &[u8]) -> Result<LateResponse<Self>, XmlError> {
        read_answer(document, "CompleteMultipartUploadResult", |node| {
            Ok(Self {
                location: node.filled("Location").unwrap_or("").to_owned(),
                bucket: node.filled("Bucket").unwrap_or("").to_owned(),
                key: node.filled("Key").unwrap_or("").to_owned(),
                etag: node.etag().ok_or(XmlError::Missing { element: "ETag" })?,
                checksum: node.checksums().next(),
                kind: node
                    .filled("ChecksumType")
                    .and_then(ChecksumKind::from_name),
            })
        })
    }
}
