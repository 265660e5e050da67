//! `Delete` and `DeleteResult`

use base::{ETag, ObjectKey};

use super::read::{Element, RESPONSE_BYTES_MAX, XmlError, read_as};
use super::write::Writer;
use crate::name::key_error;
use crate::{Error, ErrorCode};

/// The largest body of DeleteObjects.
pub const DELETE_BODY_BYTES_MAX: usize = 2 << 20;
/// The most keys in one DeleteObjects. Source: Amazon S3 API reference, DeleteObjects.
pub const DELETE_KEYS_MAX: usize = 1000;

/// The body of a client's DeleteObjects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delete {
    /// What to delete; at least one and at most [`DELETE_KEYS_MAX`].
    pub items: Vec<DeleteItem>,
    /// Whether the answer leaves out what was deleted.
    pub quiet: bool,
}

/// One object to delete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeleteItem {
    /// The key.
    pub key: ObjectKey,
    /// Only this version.
    pub version_id: Option<String>,
    /// Only if the object has this tag.
    pub etag: Option<ETag>,
}

/// The answer to DeleteObjects.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeleteResult {
    /// What is gone; empty where the request was quiet.
    pub deleted: Vec<Deleted>,
    /// What is not.
    pub failed: Vec<DeleteFailure>,
}

/// One object that is gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deleted {
    /// The key.
    pub key: String,
    /// The version that was named.
    pub version_id: Option<String>,
}

/// One object that could not be deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeleteFailure {
    /// The key.
    pub key: String,
    /// The version that was named.
    pub version_id: Option<String>,
    /// The error's code.
    pub code: String,
    /// The error's message.
    pub message: String,
}

impl Delete {
    /// Reads a client's request.
    ///
    /// A key that no object can have refuses the request as a whole, before anything is deleted.
    pub fn from_xml(body: &[u8]) -> Result<Self, Error> {
        let node = read_as(body, "Delete", DELETE_BODY_BYTES_MAX)?;
        node.once(&["Quiet"])?;
        let items = node
            .children("Object")
            .map(DeleteItem::read)
            .collect::<Result<Vec<_>, Error>>()?;
        match (1..=DELETE_KEYS_MAX).contains(&items.len()) {
            true => Ok(Self {
                items,
                quiet: node.flag("Quiet")?,
            }),
            false => Err(ErrorCode::MalformedXml.into()),
        }
    }

    /// Writes a request to a backend: key and, on versioned buckets, version. Always quiet; the
    /// answer then names what failed and nothing else.
    pub fn print<'a>(items: impl IntoIterator<Item = (&'a str, Option<&'a str>)>) -> String {
        let mut writer = Writer::new("Delete");
        writer.flag("Quiet", true);
        for (key, version_id) in items {
            writer.open("Object");
            writer.element("Key", key);
            writer.optional("VersionId", version_id);
            writer.close("Object");
        }
        writer.finish()
    }
}

impl DeleteItem {
    fn read(node: &Element) -> Result<Self, Error> {
        for element in ["LastModifiedTime", "Size"] {
            if node.child(element).is_some() {
                return Err(Error::not_implemented(
                    "A delete that depends on time or size",
                ));
            }
        }
        node.once(&["Key", "VersionId", "ETag"])?;
        let key = node
            .filled("Key")
            .ok_or(XmlError::Missing { element: "Key" })?;
        Ok(Self {
            key: key.parse().map_err(key_error)?,
            version_id: node.filled("VersionId").map(str::to_owned),
            etag: node.etag(),
        })
    }
}

impl DeleteResult {
    /// Writes the document.
    pub fn to_xml(&self) -> String {
        let mut writer = Writer::new("DeleteResult");
        for deleted in &self.deleted {
            writer.open("Deleted");
            writer.element("Key", &deleted.key);
            writer.optional("VersionId", deleted.version_id.as_deref());
            writer.close("Deleted");
        }
        for failure in &self.failed {
            writer.open("Error");
            writer.element("Key", &failure.key);
            writer.optional("VersionId", failure.version_id.as_deref());
            writer.element("Code", &failure.code);
            writer.element("Message", &failure.message);
            writer.close("Error");
        }
        writer.finish()
    }

    /// Reads a backend's answer.
    pub fn from_xml(document: &[u8]) -> Result<Self, XmlError> {
        let node = read_as(document, "DeleteResult", RESPONSE_BYTES_MAX)?;
        let version_id = |node: &Element| node.filled("VersionId").map(str::to_owned);
        let deleted = node.children("Deleted").map(|entry| {
            Ok(Deleted {
                key: entry.required("Key")?.to_owned(),
                version_id: version_id(entry),
            })
        });
        let failed = node.children("Error").map(|entry| {
            Ok(DeleteFailure {
                key: entry.filled("Key").unwrap_or("").to_owned(),
                version_id: version_id(entry),
                code: entry.required("Code")?.to_owned(),
                message: entry.filled("Message").unwrap_or("").to_owned(),
            })
        });
        Ok(Self {
            deleted: deleted.collect::<Result<_, XmlError>>()?,
            failed: failed.collect::<Result<_, XmlError>>()?,
        })
    }
}
