//! What a file of a local backend says of itself.
//!
//! Bytes first, from offset 0; then a record with size, checksum, headers and, for an object that was
//! assembled, the parts that hold its bytes; then a tail of fixed length that finds and proves the
//! record. One file means that one rename makes an object appear whole. Why not otherwise: a sidecar
//! needs two renames; extended attributes are too small for some file systems and lost by many copying
//! tools; a header would have to know size and checksum before the first byte, and would move the
//! bytes off their natural alignment.

use base::{BackendKey, Crc64, ObjectHeaders};

/// Length of the tail in bytes: checksum and length of the record, and the magic.
pub(super) const TAIL_BYTES: usize = 20;

/// The longest record in bytes: 10,000 parts, headers and metadata fit several times.
pub(super) const RECORD_BYTES_MAX: usize = 1024 * 1024;

const MAGIC: &[u8; 8] = b"s3o-obj1";
const FORMAT: u8 = 1;
const HAS_BYTES: u8 = 0;
const HAS_PARTS: u8 = 1;
const IS_UPLOAD: u8 = 2;

/// One part of an assembled object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PartRef {
    pub(super) number: u32,
    pub(super) size: u64,
    pub(super) crc64: Crc64,
}

/// Where the bytes are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum BytesAt {
    /// In this file, before the record.
    Here,
    /// In the part files of a completed upload.
    Parts {
        /// The upload whose folder holds them.
        upload: String,
        /// In the order of the object's bytes.
        parts: Vec<PartRef>,
    },
    /// Nowhere yet: this is an open upload for that key.
    Upload {
        /// The key that it will complete.
        key: BackendKey,
    },
}

/// The record of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) size: u64,
    pub(super) crc64: Crc64,
    pub(super) headers: ObjectHeaders,
    pub(super) place: BytesAt,
}

impl Record {
    /// Bytes that stand before the record in its file.
    pub(super) fn bytes_here(&self) -> u64 {
        match self.place {
            BytesAt::Here => self.size,
            BytesAt::Parts { .. } | BytesAt::Upload { .. } => 0,
        }
    }

    /// Record and tail, as they follow the bytes.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = vec![FORMAT];
        put_number(&mut out, self.size);
        put_number(&mut out, self.crc64.0);
        match &self.place {
            BytesAt::Here => out.push(HAS_BYTES),
            BytesAt::Parts { upload, parts } => {
                out.push(HAS_PARTS);
                put_text(&mut out, upload);
                put_number(&mut out, parts.len() as u64);
                for part in parts {
                    put_number(&mut out, u64::from(part.number));
                    put_number(&mut out, part.size);
                    put_number(&mut out, part.crc64.0);
                }
            }
            BytesAt::Upload { key } => {
                out.push(IS_UPLOAD);
                put_text(&mut out, key.as_str());
            }
        }
        put_headers(&mut out, &self.headers);
        let length = u32::try_from(out.len()).expect("a record is shorter than its limit");
        let sum = Crc64::of(&out);
        out.extend_from_slice(&sum.0.to_be_bytes());
        out.extend_from_slice(&length.to_be_bytes());
        out.extend_from_slice(MAGIC);
        out
    }

    /// The record that [`Self::encode`] wrote, without its tail; `None` where it is not one.
    pub(super) fn decode(record: &[u8]) -> Option<Self> {
        let mut rest = RecordReader(record);
        if rest.byte()? != FORMAT {
            return None;
        }
        let size = rest.number()?;
        let crc64 = Crc64(rest.number()?);
        let place = match rest.byte()? {
            HAS_BYTES => BytesAt::Here,
            HAS_PARTS => {
                let upload = rest.text()?;
                let count = rest.number()?;
                let mut parts = Vec::new();
                for _ in 0..count {
                    let number = u32::try_from(rest.number()?).ok()?;
                    parts.push(PartRef {
                        number,
                        size: rest.number()?,
                        crc64: Crc64(rest.number()?),
                    });
                }
                BytesAt::Parts { upload, parts }
            }
            IS_UPLOAD => BytesAt::Upload {
                key: BackendKey::new(&rest.text()?)?,
            },
            _ => return None,
        };
        let headers = rest.headers()?;
        rest.0.is_empty().then_some(Self {
            size,
            crc64,
            headers,
            place,
        })
    }
}

/// The tail of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tail {
    /// Length of the record before it, in bytes.
    pub(super) record_bytes: usize,
    sum: Crc64,
}

impl Tail {
    pub(super) fn decode(tail: &[u8; TAIL_BYTES]) -> Option<Self> {
        let mut rest = RecordReader(tail);
        let sum = Crc64(rest.number()?);
        let length = u32::from_be_bytes(rest.take(4)?.try_into().ok()?);
        let record_bytes = usize::try_from(length).ok()?;
        let ours = rest.0 == MAGIC && record_bytes <= RECORD_BYTES_MAX;
        ours.then_some(Self { record_bytes, sum })
    }

    /// Whether these are the bytes of the record that was written.
    pub(super) fn proves(self, record: &[u8]) -> bool {
        Crc64::of(record) == self.sum
    }
}

fn put_number(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(&number.to_be_bytes());
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    put_number(out, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

fn put_headers(out: &mut Vec<u8>, headers: &ObjectHeaders) {
    let standard = [
        &headers.content_type,
        &headers.cache_control,
        &headers.content_disposition,
        &headers.content_encoding,
        &headers.content_language,
        &headers.expires,
    ];
    for header in standard {
        match header {
            None => out.push(0),
            Some(text) => {
                out.push(1);
                put_text(out, text);
            }
        }
    }
    put_number(out, headers.user.len() as u64);
    for (name, value) in &headers.user {
        put_text(out, name);
        put_text(out, value);
    }
}

struct RecordReader<'a>(&'a [u8]);

impl<'a> RecordReader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1).map(|byte| byte[0])
    }

    fn number(&mut self) -> Option<u64> {
        Some(u64::from_be_bytes(self.take(8)?.try_into().ok()?))
    }

    fn text(&mut self) -> Option<String> {
        let length = usize::try_from(self.number()?).ok()?;
        String::from_utf8(self.take(length)?.to_vec()).ok()
    }

    fn optional(&mut self) -> Option<Option<String>> {
        match self.byte()? {
            0 => Some(None),
            1 => self.text().map(Some),
            _ => None,
        }
    }

    fn headers(&mut self) -> Option<ObjectHeaders> {
        let mut headers = ObjectHeaders {
            content_type: self.optional()?,
            cache_control: self.optional()?,
            content_disposition: self.optional()?,
            content_encoding: self.optional()?,
            content_language: self.optional()?,
            expires: self.optional()?,
            user: Vec::new(),
        };
        for _ in 0..self.number()? {
            headers.user.push((self.text()?, self.text()?));
        }
        Some(headers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(place: BytesAt) -> Record {
        let headers = ObjectHeaders {
            content_type: Some("text/plain; charset=utf-8".to_owned()),
            expires: Some(String::new()),
            user: vec![
                ("s3o".to_owned(), "1".to_owned()),
                (String::new(), "ü".to_owned()),
            ],
            ..ObjectHeaders::default()
        };
        Record {
            size: 7,
            crc64: Crc64(u64::MAX),
            headers,
            place,
        }
    }

    fn samples() -> [Record; 3] {
        let part = |number| PartRef {
            number,
            size: 5 << 20,
            crc64: Crc64(u64::from(number)),
        };
        [
            sample(BytesAt::Here),
            sample(BytesAt::Parts {
                upload: "u1".to_owned(),
                parts: (1..=10_000).map(part).collect(),
            }),
            sample(BytesAt::Upload {
                key: BackendKey::new("a//b").expect("a legal key"),
            }),
        ]
    }

    #[test]
    fn a_record_reads_back_as_it_was_written() {
        for record in samples() {
            let bytes = record.encode();
            let (body, tail) = bytes.split_at(bytes.len() - TAIL_BYTES);
            let tail = Tail::decode(tail.try_into().unwrap()).unwrap();
            assert_eq!(tail.record_bytes, body.len());
            assert!(tail.proves(body));
            assert_eq!(Record::decode(body), Some(record));
        }
    }

    #[test]
    fn a_torn_or_changed_record_is_noticed() {
        let bytes = sample(BytesAt::Here).encode();
        let (body, tail) = bytes.split_at(bytes.len() - TAIL_BYTES);
        let sum = Tail::decode(tail.try_into().unwrap()).unwrap();
        for place in 0..body.len() {
            let mut changed = body.to_vec();
            changed[place] ^= 1;
            assert!(!sum.proves(&changed), "byte {place}");
            assert_eq!(Record::decode(&body[..place]), None);
        }
        let mut tail: [u8; TAIL_BYTES] = tail.try_into().unwrap();
        tail[TAIL_BYTES - 1] ^= 1;
        assert_eq!(Tail::decode(&tail), None);
    }
}
