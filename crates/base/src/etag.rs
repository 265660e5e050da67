//! Entity tags.

use std::fmt;

use crate::Md5;

/// An entity tag without its quotes, for example `9e107d9d372bb6826bd81d3542a419d6-2`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ETag(Box<str>);

impl ETag {
    /// Takes an entity tag as a peer wrote it: the surrounding quotes and a weak prefix are removed.
    pub fn new(text: &str) -> Self {
        let text = text.trim();
        let text = text.strip_prefix("W/").unwrap_or(text);
        let bare = text
            .strip_prefix('"')
            .and_then(|rest| rest.strip_suffix('"'))
            .unwrap_or(text);
        Self(bare.into())
    }

    /// The entity tag of a plain PUT: the MD5 of the body.
    pub fn of_body(md5: Md5) -> Self {
        Self(md5.to_hex().into())
    }

    /// The entity tag of a multipart object: the MD5 of its parts' MD5s, a dash, their number.
    pub fn of_parts(md5: Md5, parts: usize) -> Self {
        Self(format!("{}-{parts}", md5.to_hex()).into())
    }

    /// The tag without quotes.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The MD5 that this tag is, where it has that shape.
    pub fn as_md5(&self) -> Option<Md5> {
        Md5::from_hex(&self.0)
    }

    /// The tag as headers and XML carry it.
    pub fn quoted(&self) -> String {
        ["\"", &self.0, "\""].concat()
    }
}

impl fmt::Display for ETag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ETag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &self.0)
    }
}
