//! Writing XML.

use base::{ChecksumAlgorithm, ETag, Timestamp};

use crate::date::iso8601;
use crate::headers::ObjectChecksum;
use crate::op::Encoding;
use crate::uri::encode_path;

/// What every document begins with.
///
/// An answer that keeps its connection alive by whitespace sends this first, then the whitespace,
/// then the rest of the document: nothing may stand before it.
pub const DECLARATION: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n";

/// The owner of everything: there is one.
pub const OWNER_ID: &str = "s3-orchestrator";

const NAMESPACE: &str = "http://s3.amazonaws.com/doc/2006-03-01/";

/// A document that is being written. Names of elements are ours and need no escaping.
pub(super) struct Writer {
    text: String,
    root: &'static str,
}

impl Writer {
    /// A document in the namespace of S3.
    pub(super) fn new(root: &'static str) -> Self {
        Self {
            text: format!("{DECLARATION}<{root} xmlns=\"{NAMESPACE}\">"),
            root,
        }
    }

    /// A document without a namespace.
    pub(super) fn bare(root: &'static str) -> Self {
        Self {
            text: format!("{DECLARATION}<{root}>"),
            root,
        }
    }

    pub(super) fn finish(mut self) -> String {
        self.close(self.root);
        self.text
    }

    pub(super) fn open(&mut self, name: &str) {
        self.text.extend(["<", name, ">"]);
    }

    pub(super) fn close(&mut self, name: &str) {
        self.text.extend(["</", name, ">"]);
    }

    /// An element with text in it.
    pub(super) fn element(&mut self, name: &str, text: &str) {
        self.open(name);
        self.text(text);
        self.close(name);
    }

    /// An element that is left out where there is nothing to say.
    pub(super) fn optional(&mut self, name: &str, text: Option<&str>) {
        if let Some(text) = text {
            self.element(name, text);
        }
    }

    pub(super) fn number(&mut self, name: &str, number: impl Into<u64>) {
        self.element(name, &number.into().to_string());
    }

    pub(super) fn flag(&mut self, name: &str, flag: bool) {
        self.element(name, if flag { "true" } else { "false" });
    }

    pub(super) fn time(&mut self, name: &str, time: Timestamp) {
        self.element(name, &iso8601(time));
    }

    pub(super) fn etag(&mut self, etag: &ETag) {
        self.element("ETag", &etag.quoted());
    }

    /// A key, prefix, marker or delimiter, percent-encoded where the client asked for it.
    pub(super) fn key(&mut self, name: &str, key: &str, encoding: Encoding) {
        match encoding {
            Encoding::None => self.element(name, key),
            Encoding::Url => self.element(name, &encode_path(key)),
        }
    }

    pub(super) fn encoding(&mut self, encoding: Encoding) {
        match encoding {
            Encoding::None => {}
            Encoding::Url => self.element("EncodingType", "url"),
        }
    }

    pub(super) fn prefixes(&mut self, prefixes: &[String], encoding: Encoding) {
        for prefix in prefixes {
            self.open("CommonPrefixes");
            self.key("Prefix", prefix, encoding);
            self.close("CommonPrefixes");
        }
    }

    pub(super) fn checksum(&mut self, value: &ObjectChecksum) {
        self.element(
            checksum_element(value.checksum.algorithm()),
            &value.to_text(),
        );
    }

    pub(super) fn owner(&mut self, name: &str) {
        self.open(name);
        self.element("ID", OWNER_ID);
        self.element("DisplayName", OWNER_ID);
        self.close(name);
    }

    /// The owner as the one to whom something is granted.
    pub(super) fn grantee(&mut self) {
        self.text.push_str(
            "<Grantee xmlns:xsi=\"http://www.w3.org/2001/XMLSchema-instance\" \
             xsi:type=\"CanonicalUser\">",
        );
        self.element("ID", OWNER_ID);
        self.element("DisplayName", OWNER_ID);
        self.close("Grantee");
    }

    /// Text with everything escaped that a reader would take for markup, or would not give back:
    /// line ends are normalised by XML, control characters are not allowed in it at all. Like S3, we
    /// write the latter as character references, which most readers understand.
    pub(super) fn text(&mut self, text: &str) {
        let mut rest = text;
        while let Some(at) = rest.find(needs_escape) {
            self.text.push_str(&rest[..at]);
            let special = rest[at..]
                .chars()
                .next()
                .expect("a character was found here");
            match special {
                '&' => self.text.push_str("&amp;"),
                '<' => self.text.push_str("&lt;"),
                '>' => self.text.push_str("&gt;"),
                '"' => self.text.push_str("&quot;"),
                other => self.text.push_str(&format!("&#x{:x};", u32::from(other))),
            }
            rest = &rest[at + special.len_utf8()..];
        }
        self.text.push_str(rest);
    }
}

fn needs_escape(c: char) -> bool {
    matches!(c, '&' | '<' | '>' | '"' | '\u{fffe}' | '\u{ffff}') || c.is_control()
}

/// The element that carries a checksum.
pub(super) const fn checksum_element(algorithm: ChecksumAlgorithm) -> &'static str {
    match algorithm {
        ChecksumAlgorithm::Crc32 => "ChecksumCRC32",
        ChecksumAlgorithm::Crc32c => "ChecksumCRC32C",
        ChecksumAlgorithm::Crc64Nvme => "ChecksumCRC64NVME",
        ChecksumAlgorithm::Sha1 => "ChecksumSHA1",
        ChecksumAlgorithm::Sha256 => "ChecksumSHA256",
    }
}
