//! Values as rows hold them, whichever database the row comes from.

use base::{
    BackendKey, BlobId, Checksum, ChecksumAlgorithm, ChecksumKind, CopyId, Crc64, ETag,
    ETagCondition, ObjectHeaders, ObjectKey, Precondition, Tags, Timestamp, UploadId, VersionId,
};
use serde_json::{Value, json};

use crate::fault::Fault;
use crate::model::StoredChecksum;

/// A row, by column: of SQLite, of PostgreSQL, or a list in JSON. A column of another type than asked
/// for is a damaged row.
pub(crate) trait Cells {
    fn maybe_int(&self, column: usize) -> Result<Option<i64>, Fault>;

    fn maybe_text(&self, column: usize) -> Result<Option<String>, Fault>;

    /// The 16 bytes of an identifier.
    fn maybe_id(&self, column: usize) -> Result<Option<[u8; 16]>, Fault>;

    fn maybe_bytes(&self, column: usize) -> Result<Option<Vec<u8>>, Fault>;

    /// The text of a client's key.
    fn key_text(&self, column: usize) -> Result<String, Fault>;

    fn flag(&self, column: usize) -> Result<bool, Fault>;

    fn int(&self, column: usize) -> Result<i64, Fault> {
        present(self.maybe_int(column)?)
    }

    fn text(&self, column: usize) -> Result<String, Fault> {
        present(self.maybe_text(column)?)
    }

    fn id(&self, column: usize) -> Result<[u8; 16], Fault> {
        present(self.maybe_id(column)?)
    }
}

fn present<T>(value: Option<T>) -> Result<T, Fault> {
    value.ok_or_else(|| Fault::damaged("a value that is always there is missing"))
}

/// A size or count for a row.
pub(crate) fn int(value: u64) -> Result<i64, Fault> {
    i64::try_from(value).map_err(|_| Fault::damaged(format!("{value} does not fit into 63 bits")))
}

/// A size or count of a row.
pub(crate) fn uint(row: &(impl Cells + ?Sized), column: usize) -> Result<u64, Fault> {
    let value = row.int(column)?;
    u64::try_from(value).map_err(|_| Fault::damaged(format!("a size or count of {value}")))
}

pub(crate) fn time(row: &(impl Cells + ?Sized), column: usize) -> Result<Timestamp, Fault> {
    Ok(Timestamp::from_millis(row.int(column)?))
}

pub(crate) fn blob_id(row: &(impl Cells + ?Sized), column: usize) -> Result<BlobId, Fault> {
    Ok(BlobId::from_bytes(row.id(column)?))
}

pub(crate) fn copy_id(row: &(impl Cells + ?Sized), column: usize) -> Result<CopyId, Fault> {
    Ok(CopyId::from_bytes(row.id(column)?))
}

pub(crate) fn version_id(row: &(impl Cells + ?Sized), column: usize) -> Result<VersionId, Fault> {
    Ok(VersionId::from_bytes(row.id(column)?))
}

pub(crate) fn upload_id(row: &(impl Cells + ?Sized), column: usize) -> Result<UploadId, Fault> {
    Ok(UploadId::from_bytes(row.id(column)?))
}

pub(crate) fn etag(row: &(impl Cells + ?Sized), column: usize) -> Result<ETag, Fault> {
    Ok(ETag::new(&row.text(column)?))
}

pub(crate) fn maybe_etag(
    row: &(impl Cells + ?Sized),
    column: usize,
) -> Result<Option<ETag>, Fault> {
    Ok(row.maybe_text(column)?.map(|text| ETag::new(&text)))
}

pub(crate) fn crc_int(crc: Option<Crc64>) -> Option<i64> {
    crc.map(|crc| crc.0.cast_signed())
}

pub(crate) fn crc(row: &(impl Cells + ?Sized), column: usize) -> Result<Option<Crc64>, Fault> {
    Ok(row
        .maybe_int(column)?
        .map(|bits| Crc64(bits.cast_unsigned())))
}

pub(crate) fn backend_key(row: &(impl Cells + ?Sized), column: usize) -> Result<BackendKey, Fault> {
    let text = row.text(column)?;
    BackendKey::new(&text).ok_or_else(|| Fault::damaged(format!("the backend key {text:?}")))
}

/// A number of 32 bits.
pub(crate) fn small(row: &(impl Cells + ?Sized), column: usize) -> Result<u32, Fault> {
    let value = row.int(column)?;
    u32::try_from(value).map_err(|_| Fault::damaged(format!("a number of {value}")))
}

pub(crate) fn object_key(row: &(impl Cells + ?Sized), column: usize) -> Result<ObjectKey, Fault> {
    let text = row.key_text(column)?;
    text.parse()
        .map_err(|_| Fault::damaged(format!("the key {text:?}")))
}

impl Cells for [Value] {
    fn maybe_int(&self, column: usize) -> Result<Option<i64>, Fault> {
        cell(self, column, Value::as_i64)
    }

    fn maybe_text(&self, column: usize) -> Result<Option<String>, Fault> {
        cell(self, column, |value| value.as_str().map(str::to_owned))
    }

    fn maybe_id(&self, column: usize) -> Result<Option<[u8; 16]>, Fault> {
        cell(self, column, |value| {
            let id = uuid::Uuid::parse_str(value.as_str()?).ok()?;
            Some(id.into_bytes())
        })
    }

    fn maybe_bytes(&self, column: usize) -> Result<Option<Vec<u8>>, Fault> {
        cell(self, column, |_| None)
    }

    fn key_text(&self, column: usize) -> Result<String, Fault> {
        self.text(column)
    }

    fn flag(&self, column: usize) -> Result<bool, Fault> {
        present(cell(self, column, Value::as_bool)?)
    }
}

fn cell<T>(
    row: &[Value],
    column: usize,
    read: impl FnOnce(&Value) -> Option<T>,
) -> Result<Option<T>, Fault> {
    match row.get(column) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => match read(value) {
            Some(value) => Ok(Some(value)),
            None => Err(Fault::damaged(format!("the value {value}"))),
        },
    }
}

// === checksums: 'ALGORITHM:base64', 'ALGORITHM/KIND', 'ALGORITHM:base64/KIND' (base64 may hold '/',
// kinds do not: the last one divides) ===

pub(crate) fn checksum_text(checksum: &Checksum) -> String {
    format!("{}:{}", checksum.algorithm().as_str(), checksum.to_base64())
}

fn parse_checksum(text: &str) -> Option<Checksum> {
    let (algorithm, value) = text.split_once(':')?;
    Checksum::from_base64(ChecksumAlgorithm::from_name(algorithm)?, value).ok()
}

pub(crate) fn checksum(
    row: &(impl Cells + ?Sized),
    column: usize,
) -> Result<Option<Checksum>, Fault> {
    parsed(row, column, parse_checksum)
}

pub(crate) fn algorithm_text((algorithm, kind): (ChecksumAlgorithm, ChecksumKind)) -> String {
    format!("{}/{}", algorithm.as_str(), kind.as_str())
}

pub(crate) fn algorithm(
    row: &(impl Cells + ?Sized),
    column: usize,
) -> Result<Option<(ChecksumAlgorithm, ChecksumKind)>, Fault> {
    parsed(row, column, |text| {
        let (algorithm, kind) = text.split_once('/')?;
        Some((
            ChecksumAlgorithm::from_name(algorithm)?,
            ChecksumKind::from_name(kind)?,
        ))
    })
}

pub(crate) fn stored_checksum_text(stored: &StoredChecksum) -> String {
    format!(
        "{}/{}",
        checksum_text(&stored.checksum),
        stored.kind.as_str()
    )
}

pub(crate) fn stored_checksum(
    row: &(impl Cells + ?Sized),
    column: usize,
) -> Result<Option<StoredChecksum>, Fault> {
    parsed(row, column, |text| {
        let (checksum, kind) = text.rsplit_once('/')?;
        let kind = ChecksumKind::from_name(kind)?;
        Some(StoredChecksum {
            checksum: parse_checksum(checksum)?,
            kind,
        })
    })
}

fn parsed<T>(
    row: &(impl Cells + ?Sized),
    column: usize,
    parse: impl FnOnce(&str) -> Option<T>,
) -> Result<Option<T>, Fault> {
    let Some(text) = row.maybe_text(column)? else {
        return Ok(None);
    };
    match parse(&text) {
        Some(value) => Ok(Some(value)),
        None => Err(Fault::damaged(format!("the value {text:?}"))),
    }
}

// === headers: JSON without what is absent; the content type has a column of its own ===

pub(crate) fn headers_text(headers: &ObjectHeaders) -> Option<String> {
    let mut map = serde_json::Map::new();
    for (name, value) in headers
        .standard()
        .filter(|(name, _)| *name != "content-type")
    {
        map.insert(name.to_owned(), json!(value));
    }
    if !headers.user.is_empty() {
        map.insert("user".to_owned(), json!(headers.user));
    }
    (!map.is_empty()).then(|| Value::Object(map).to_string())
}

pub(crate) fn headers(
    row: &(impl Cells + ?Sized),
    content_type: usize,
    rest: usize,
) -> Result<ObjectHeaders, Fault> {
    let content_type = row.maybe_text(content_type)?;
    let read = parsed(row, rest, |text| {
        let map: Value = serde_json::from_str(text).ok()?;
        let text = |name: &str| map.get(name).and_then(Value::as_str).map(str::to_owned);
        let user = match map.get("user") {
            None => Vec::new(),
            Some(pairs) => serde_json::from_value(pairs.clone()).ok()?,
        };
        Some(ObjectHeaders {
            content_type: None,
            cache_control: text("cache-control"),
            content_disposition: text("content-disposition"),
            content_encoding: text("content-encoding"),
            content_language: text("content-language"),
            expires: text("expires"),
            user,
        })
    })?;
    Ok(ObjectHeaders {
        content_type,
        ..read.unwrap_or_default()
    })
}

// === tags: NULL or a JSON list of pairs ===

pub(crate) fn tags_text(tags: &Tags) -> Option<String> {
    (!tags.is_empty()).then(|| json!(tags.pairs()).to_string())
}

pub(crate) fn tags(row: &(impl Cells + ?Sized), column: usize) -> Result<Tags, Fault> {
    let read = parsed(row, column, |text| {
        Tags::new(serde_json::from_str(text).ok()?).ok()
    })?;
    Ok(read.unwrap_or_default())
}

// === preconditions: NULL, '"absent"', '"any"' or a JSON list of tags ===

pub(crate) fn precondition_text(precondition: &Precondition) -> Option<String> {
    match precondition {
        Precondition::None => None,
        Precondition::Absent => Some(json!("absent").to_string()),
        Precondition::Match(ETagCondition::Any) => Some(json!("any").to_string()),
        Precondition::Match(ETagCondition::Tags(tags)) => {
            let tags: Vec<&str> = tags.iter().map(ETag::as_str).collect();
            Some(json!(tags).to_string())
        }
    }
}

pub(crate) fn precondition(
    row: &(impl Cells + ?Sized),
    column: usize,
) -> Result<Precondition, Fault> {
    let read = parsed(row, column, |text| {
        match serde_json::from_str(text).ok()? {
            Value::String(word) if word == "absent" => Some(Precondition::Absent),
            Value::String(word) if word == "any" => Some(Precondition::Match(ETagCondition::Any)),
            Value::Array(tags) => {
                let tags = tags.iter().map(|tag| tag.as_str().map(ETag::new));
                Some(Precondition::Match(ETagCondition::Tags(
                    tags.collect::<Option<_>>()?,
                )))
            }
            _ => None,
        }
    })?;
    Ok(read.unwrap_or_default())
}

// === frozen part lists: number (4 bytes, big endian) and attempt (16 bytes) ===

const FROZEN_BYTES: usize = 20;

pub(crate) fn frozen_bytes(parts: &[(u32, CopyId)]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(parts.len() * FROZEN_BYTES);
    for (number, attempt) in parts {
        bytes.extend_from_slice(&number.to_be_bytes());
        bytes.extend_from_slice(&attempt.to_bytes());
    }
    bytes
}

pub(crate) fn frozen(
    row: &(impl Cells + ?Sized),
    column: usize,
) -> Result<Vec<(u32, CopyId)>, Fault> {
    let bytes = row.maybe_bytes(column)?.unwrap_or_default();
    let (entries, rest) = bytes.as_chunks::<FROZEN_BYTES>();
    if !rest.is_empty() {
        return Err(Fault::damaged("a frozen part list of broken length"));
    }
    let entry = |entry: &[u8; FROZEN_BYTES]| {
        let (number, attempt) = entry.split_at(4);
        let number = u32::from_be_bytes(number.try_into().expect("four bytes"));
        (
            number,
            CopyId::from_bytes(attempt.try_into().expect("sixteen bytes")),
        )
    };
    Ok(entries.iter().map(entry).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn through_a_row<T>(
        value: Option<String>,
        read: impl FnOnce(&[Value]) -> Result<T, Fault>,
    ) -> T {
        read(&[json!(value)]).unwrap()
    }

    #[test]
    fn headers_and_metadata_come_back_as_they_were() {
        let headers = ObjectHeaders {
            cache_control: Some("no-cache, \"x\"".into()),
            expires: Some("never".into()),
            user: vec![("b".into(), "ä\n".into()), ("a".into(), String::new())],
            ..ObjectHeaders::default()
        };
        let row = [Value::Null, json!(headers_text(&headers))];
        assert_eq!(super::headers(row.as_slice(), 0, 1).unwrap(), headers);
        assert_eq!(headers_text(&ObjectHeaders::default()), None);
    }

    #[test]
    fn tags_come_back_as_they_were() {
        let pairs = vec![("a".into(), "\u{fc}".into()), ("b/c".into(), String::new())];
        for tags in [Tags::default(), Tags::new(pairs).unwrap()] {
            let text = tags_text(&tags);
            assert_eq!(through_a_row(text, |row| super::tags(row, 0)), tags);
        }
    }

    #[test]
    fn checksums_and_conditions_come_back_as_they_were() {
        for algorithm in ChecksumAlgorithm::ALL {
            let bytes = vec![0xff; algorithm.value_bytes()];
            let checksum = Checksum::from_bytes(algorithm, &bytes).unwrap();
            let stored = StoredChecksum {
                checksum,
                kind: algorithm.default_kind(),
            };
            let text = Some(stored_checksum_text(&stored));
            assert_eq!(
                through_a_row(text, |row| stored_checksum(row, 0)),
                Some(stored)
            );
        }
        let tags = vec![ETag::new("a"), ETag::new("b-2")];
        for condition in [
            Precondition::None,
            Precondition::Absent,
            Precondition::Match(ETagCondition::Any),
            Precondition::Match(ETagCondition::Tags(tags)),
        ] {
            let text = precondition_text(&condition);
            assert_eq!(through_a_row(text, |row| precondition(row, 0)), condition);
        }
    }
}
