//! Reading XML into a bounded tree.

use std::borrow::Cow;
use std::str::FromStr;

use base::{ChecksumAlgorithm, ChecksumKind, ETag, Timestamp};
use quick_xml::Reader;
use quick_xml::events::Event;

use super::write::checksum_element;
use crate::date::parse_iso8601;
use crate::headers::{ObjectChecksum, UploadChecksum, parse_object_checksum};
use crate::op::Encoding;
use crate::uri::decode_form;
use crate::{Error, ErrorCode};

/// The largest answer of a backend that is read: a page of 1,000 keys of 1,024 bytes, each byte
/// written as a character reference.
pub const RESPONSE_BYTES_MAX: usize = 16 << 20;

/// The longest version id, which Amazon S3 promises to stay below, and the longest entity tag. Both are
/// kept for as long as the object is.
pub const ID_BYTES_MAX: usize = 1024;
/// The longest id of a backend upload, and the longest continuation token: providers write keys of 1,024
/// bytes into them, encrypted and encoded.
pub const TOKEN_BYTES_MAX: usize = 4096;

const DEPTH_MAX: usize = 8;
/// Elements of the largest legal document: 10,000 parts with number, tag, size, date and checksum,
/// and room for as many again that we do not know.
const ELEMENTS_MAX: usize = 120_000;

/// Why a document could not be read.
#[derive(Debug, thiserror::Error)]
pub enum XmlError {
    /// The document is larger than its kind may be.
    #[error("the document has {bytes} bytes, at most {max} are read")]
    TooLarge {
        /// Size of the document.
        bytes: usize,
        /// The limit that it exceeds.
        max: usize,
    },
    /// The document is not UTF-8.
    #[error("the document is not UTF-8")]
    NotUtf8,
    /// The document is not well-formed.
    #[error("the document is not well-formed")]
    Syntax(#[source] quick_xml::Error),
    /// The document ends early, goes on behind its end, or is empty.
    #[error("the document is not one element")]
    NotOneElement,
    /// Elements are nested too deeply, or there are too many.
    #[error("the document has too many elements")]
    TooManyElements,
    /// The document declares a type, or refers to an entity that is not one of the five of XML.
    #[error("the document has a document type or an entity of its own")]
    Entity,
    /// The outermost element is another one.
    #[error("the outermost element is not {expected}")]
    WrongRoot {
        /// What it should be.
        expected: &'static str,
    },
    /// An element is missing.
    #[error("the element {element} is missing")]
    Missing {
        /// Its name.
        element: &'static str,
    },
    /// An element's text is longer than a text of its kind may be.
    #[error("the element {element} has {bytes} bytes, at most {max} are read")]
    TooLong {
        /// Its name.
        element: &'static str,
        /// Length of its text.
        bytes: usize,
        /// The limit that it exceeds.
        max: usize,
    },
    /// An element's text is not what it should be.
    #[error("the element {element} has a value that it cannot have")]
    Invalid {
        /// Its name.
        element: &'static str,
    },
}

/// For documents that clients send.
impl From<XmlError> for Error {
    fn from(error: XmlError) -> Self {
        match error {
            XmlError::TooLarge { .. } => ErrorCode::MaxMessageLengthExceeded.into(),
            XmlError::NotUtf8
            | XmlError::Syntax(_)
            | XmlError::NotOneElement
            | XmlError::TooManyElements
            | XmlError::Entity
            | XmlError::WrongRoot { .. }
            | XmlError::Missing { .. }
            | XmlError::TooLong { .. }
            | XmlError::Invalid { .. } => ErrorCode::MalformedXml.into(),
        }
    }
}

/// An element.
#[derive(Debug)]
pub(super) struct Element {
    name: Box<str>,
    text: String,
    children: Vec<Element>,
}

/// Reads a document, whatever its outermost element is.
pub(super) fn read(document: &[u8], bytes_max: usize) -> Result<Element, XmlError> {
    if document.len() > bytes_max {
        return Err(XmlError::TooLarge {
            bytes: document.len(),
            max: bytes_max,
        });
    }
    let text = std::str::from_utf8(document).map_err(|_| XmlError::NotUtf8)?;
    // Whitespace before the declaration keeps slow answers alive.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text).trim_start();
    let mut reader = Reader::from_str(text);
    reader.config_mut().expand_empty_elements = true;
    let mut open: Vec<Element> = Vec::new();
    let mut root = None;
    let mut elements = 0;
    loop {
        match reader.read_event().map_err(XmlError::Syntax)? {
            Event::Start(start) => {
                elements += 1;
                if open.len() == DEPTH_MAX || elements > ELEMENTS_MAX {
                    return Err(XmlError::TooManyElements);
                }
                if root.is_some() {
                    return Err(XmlError::NotOneElement);
                }
                let name = start.local_name().into_inner().into();
                open.push(Element {
                    name,
                    text: String::new(),
                    children: Vec::new(),
                });
            }
            Event::End(_) => {
                let node = open.pop().ok_or(XmlError::NotOneElement)?;
                match open.last_mut() {
                    Some(parent) => parent.children.push(node),
                    None => root = Some(node),
                }
            }
            Event::Text(text) => put(&mut open, &text.xml10_content())?,
            Event::CData(text) => put(&mut open, &text.xml10_content())?,
            Event::GeneralRef(reference) => {
                let character = resolve(&reference).ok_or(XmlError::Entity)?;
                put(&mut open, character.encode_utf8(&mut [0; 4]))?;
            }
            Event::DocType(_) => return Err(XmlError::Entity),
            Event::Empty(_) | Event::Comment(_) | Event::Decl(_) | Event::PI(_) => {}
            Event::Eof => break,
        }
    }
    match (root, open.is_empty()) {
        (Some(root), true) => Ok(root),
        _ => Err(XmlError::NotOneElement),
    }
}

/// Reads a document with this outermost element.
pub(super) fn read_as(
    document: &[u8],
    root: &'static str,
    bytes_max: usize,
) -> Result<Element, XmlError> {
    let node = read(document, bytes_max)?;
    match node.is(root) {
        true => Ok(node),
        false => Err(XmlError::WrongRoot { expected: root }),
    }
}

fn put(open: &mut [Element], text: &str) -> Result<(), XmlError> {
    match open.last_mut() {
        Some(node) => node.text.push_str(text),
        None if text.trim().is_empty() => {}
        None => return Err(XmlError::NotOneElement),
    }
    Ok(())
}

/// The five entities of XML, and characters by number: S3 writes even those that XML forbids.
fn resolve(reference: &str) -> Option<char> {
    match reference {
        "amp" => Some('&'),
        "lt" => Some('<'),
        "gt" => Some('>'),
        "quot" => Some('"'),
        "apos" => Some('\''),
        _ => {
            let number = reference.strip_prefix('#')?;
            let (digits, radix) = match number.strip_prefix(['x', 'X']) {
                Some(digits) => (digits, 16),
                None => (number, 10),
            };
            if !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
                return None;
            }
            char::from_u32(u32::from_str_radix(digits, radix).ok()?)
        }
    }
}

impl Element {
    pub(super) fn is(&self, name: &str) -> bool {
        self.name.as_ref() == name
    }

    pub(super) fn text(&self) -> &str {
        &self.text
    }

    pub(super) fn child(&self, name: &str) -> Option<&Self> {
        self.children.iter().find(|child| child.is(name))
    }

    /// A child that has to be there.
    pub(super) fn must(&self, name: &'static str) -> Result<&Self, XmlError> {
        self.child(name).ok_or(XmlError::Missing { element: name })
    }

    pub(super) fn children<'n>(&'n self, name: &'static str) -> impl Iterator<Item = &'n Self> {
        self.children.iter().filter(move |child| child.is(name))
    }

    /// Refuses children of these names that are there twice: which of them counts would be a guess.
    pub(super) fn once(&self, names: &[&'static str]) -> Result<(), XmlError> {
        let twice = |name: &&&'static str| self.children(name).nth(1).is_some();
        match names.iter().find(twice) {
            None => Ok(()),
            Some(element) => Err(XmlError::Invalid { element }),
        }
    }

    pub(super) fn all(&self) -> &[Self] {
        &self.children
    }

    /// The text of a child; `None` where it is missing or empty.
    pub(super) fn filled(&self, name: &str) -> Option<&str> {
        self.child(name)
            .map(Self::text)
            .filter(|text| !text.is_empty())
    }

    /// The text of a child that has to be there.
    pub(super) fn required(&self, name: &'static str) -> Result<&str, XmlError> {
        self.must(name).map(Self::text)
    }

    /// The text of a child; an error where it is longer than `bytes_max`.
    pub(super) fn bounded(
        &self,
        name: &'static str,
        bytes_max: usize,
    ) -> Result<Option<&str>, XmlError> {
        match self.child(name).map(Self::text) {
            Some(text) if text.len() > bytes_max => Err(XmlError::TooLong {
                element: name,
                bytes: text.len(),
                max: bytes_max,
            }),
            found => Ok(found),
        }
    }

    /// The same, and an error where it is missing.
    pub(super) fn required_bounded(
        &self,
        name: &'static str,
        bytes_max: usize,
    ) -> Result<&str, XmlError> {
        self.bounded(name, bytes_max)?
            .ok_or(XmlError::Missing { element: name })
    }

    /// An id or token that tells where a listing goes on; `None` where it is missing or empty.
    pub(super) fn next(
        &self,
        name: &'static str,
        bytes_max: usize,
    ) -> Result<Option<String>, XmlError> {
        let found = self.bounded(name, bytes_max)?;
        Ok(found.filter(|text| !text.is_empty()).map(str::to_owned))
    }

    /// The value of a child, where it is there and not empty.
    pub(super) fn value<T: FromStr>(&self, name: &'static str) -> Result<Option<T>, XmlError> {
        let Some(text) = self.filled(name) else {
            return Ok(None);
        };
        text.trim()
            .parse()
            .map(Some)
            .map_err(|_| XmlError::Invalid { element: name })
    }

    pub(super) fn required_value<T: FromStr>(&self, name: &'static str) -> Result<T, XmlError> {
        self.value(name)?.ok_or(XmlError::Missing { element: name })
    }

    pub(super) fn flag(&self, name: &'static str) -> Result<bool, XmlError> {
        Ok(self.value(name)?.unwrap_or(false))
    }

    pub(super) fn time(&self, name: &'static str) -> Result<Timestamp, XmlError> {
        parse_iso8601(self.required(name)?).ok_or(XmlError::Invalid { element: name })
    }

    /// Nobody gives entity tags longer than [`ID_BYTES_MAX`]: what is longer is none.
    pub(super) fn etag(&self) -> Option<ETag> {
        self.filled("ETag")
            .filter(|text| text.len() <= ID_BYTES_MAX)
            .map(ETag::new)
    }

    pub(super) fn encoding(&self) -> Encoding {
        match self.filled("EncodingType") {
            Some(name) if name.eq_ignore_ascii_case("url") => Encoding::Url,
            _ => Encoding::None,
        }
    }

    /// A key, prefix, marker or delimiter; empty where it is missing.
    pub(super) fn key(&self, name: &'static str, encoding: Encoding) -> Result<String, XmlError> {
        let text = self.child(name).map_or("", Self::text);
        match encoding {
            Encoding::None => Ok(text.to_owned()),
            Encoding::Url => decode_form(text)
                .map(Cow::into_owned)
                .map_err(|_| XmlError::Invalid { element: name }),
        }
    }

    pub(super) fn prefixes(&self, encoding: Encoding) -> Result<Vec<String>, XmlError> {
        self.children("CommonPrefixes")
            .map(|prefix| prefix.key("Prefix", encoding))
            .collect()
    }

    /// The checksums that are there; unreadable ones are left out.
    pub(super) fn checksums(&self) -> impl Iterator<Item = ObjectChecksum> {
        ChecksumAlgorithm::ALL.into_iter().filter_map(|algorithm| {
            parse_object_checksum(algorithm, self.filled(checksum_element(algorithm))?)
        })
    }

    /// Algorithm and kind of an upload's checksums.
    pub(super) fn upload_checksum(&self) -> Option<UploadChecksum> {
        let algorithm = ChecksumAlgorithm::from_name(self.filled("ChecksumAlgorithm")?)?;
        let kind = self
            .filled("ChecksumType")
            .and_then(ChecksumKind::from_name);
        Some(UploadChecksum {
            algorithm,
            kind: kind.unwrap_or(algorithm.default_kind()),
        })
    }
}
