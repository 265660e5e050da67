//! `Error`, and answers that may turn out to be one.

use super::read::{Element, RESPONSE_BYTES_MAX, XmlError, read, read_as};
use super::write::Writer;

/// An error as a server tells it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ErrorDocument {
    /// The code; a backend's may be one that [`crate::ErrorCode`] does not know.
    pub code: String,
    /// What people read.
    pub message: String,
    /// Further elements, which differ from code to code; not read back.
    pub details: Vec<(&'static str, String)>,
    /// The bucket or object that was asked for.
    pub resource: String,
    /// The request's identifier.
    pub request_id: String,
    /// The identifier of the server that answered.
    pub host_id: String,
}

impl ErrorDocument {
    /// Writes the document.
    pub fn to_xml(&self) -> String {
        let mut writer = Writer::bare("Error");
        writer.element("Code", &self.code);
        writer.element("Message", &self.message);
        for (name, text) in &self.details {
            writer.element(name, text);
        }
        writer.element("Resource", &self.resource);
        writer.element("RequestId", &self.request_id);
        writer.element("HostId", &self.host_id);
        writer.finish()
    }

    /// Reads the document; only the code has to be there.
    pub fn from_xml(document: &[u8]) -> Result<Self, XmlError> {
        Self::from_node(&read_as(document, "Error", RESPONSE_BYTES_MAX)?)
    }

    fn from_node(node: &Element) -> Result<Self, XmlError> {
        let text = |name: &str| node.filled(name).unwrap_or("").to_owned();
        Ok(Self {
            code: node.required("Code")?.to_owned(),
            message: text("Message"),
            details: Vec::new(),
            resource: text("Resource"),
            request_id: text("RequestId"),
            host_id: text("HostId"),
        })
    }
}

/// What a server answers with status 200 after it has begun to answer: copies and Complete may
/// still fail then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LateResponse<T> {
    /// It worked.
    Done(T),
    /// It did not.
    Refused(ErrorDocument),
}

/// Reads an answer that is either a document with this outermost element or an error.
pub(super) fn read_answer<T>(
    document: &[u8],
    root: &'static str,
    parse: impl FnOnce(&Element) -> Result<T, XmlError>,
) -> Result<LateResponse<T>, XmlError> {
    let node = read(document, RESPONSE_BYTES_MAX)?;
    if node.is(root) {
        return parse(&node).map(LateResponse::Done);
    }
    match node.is("Error") {
        true => ErrorDocument::from_node(&node).map(LateResponse::Refused),
        false => Err(XmlError::WrongRoot { expected: root }),
    }
}
