//! Listings: the walk itself is in `migrations/postgres/0001_lookups.sql`.

use tokio_postgres::Row;
use tokio_postgres::types::Type;
use uuid::Uuid;

use crate::fault::Fault;
use crate::model::{
    ListEntry, ListQuery, ListStart, ListedObject, Listing, UploadEntry, UploadListing, UploadQuery,
};
use crate::postgres::connect::Pool;
use crate::postgres::encode::upload_uuid;
use crate::values::{Cells, algorithm, etag, time, uint, upload_id};

/// The smallest text behind all texts that begin so; `None` where there is none. As `s3o_successor`.
fn successor(prefix: &str) -> Option<String> {
    let mut head = prefix.to_owned();
    while let Some(last) = head.pop() {
        let next = match last {
            char::MAX => continue,
            // Behind it come the surrogates, which no text holds.
            '\u{d7ff}' => '\u{e000}',
            other => char::from_u32(u32::from(other) + 1)?,
        };
        head.push(next);
        return Some(head);
    }
    None
}

/// No key holds a NUL, and no text of PostgreSQL does.
const NUL: char = '\0';

/// One that holds a NUL groups nothing.
fn delimiter(text: Option<&String>) -> Option<&str> {
    text.map(String::as_str)
        .filter(|text| !text.is_empty() && !text.contains(NUL))
}

/// The place behind which the same keys follow as behind this one.
fn behind(key: &str) -> &str {
    key.split(NUL).next().unwrap_or_default()
}

/// Where a walk over keys begins, and whether behind that place; `None` where there are none.
fn begin(query: &ListQuery) -> Option<(String, bool)> {
    let first = || (query.prefix.clone(), false);
    if query.prefix.contains(NUL) {
        return None;
    }
    let from = match &query.start {
        ListStart::Beginning => first(),
        ListStart::AfterKey(key) => (behind(key).to_owned(), true),
        ListStart::AfterPrefix(prefix) if prefix.contains(NUL) => (behind(prefix).to_owned(), true),
        ListStart::AfterPrefix(prefix) => (successor(prefix)?, false),
    };
    Some(match from.0.as_bytes() < query.prefix.as_bytes() {
        true => first(),
        false => from,
    })
}

/// Cuts the row that only says that more follow.
fn cut(mut found: Vec<Row>, max: u32) -> (Vec<Row>, bool) {
    let max = usize::try_from(max).unwrap_or(usize::MAX);
    let truncated = found.len() > max;
    found.truncate(max);
    (found, truncated)
}

/// A page of keys.
pub(super) async fn objects(pool: &Pool, query: &ListQuery) -> Result<Listing, Fault> {
    let Some((from, excluded)) = begin(query).filter(|_| query.max_entries > 0) else {
        return Ok(Listing::default());
    };
    let max = i32::try_from(query.max_entries).unwrap_or(i32::MAX - 1);
    let found = pool
        .query(
            "SELECT key, is_prefix, size, etag, last_modified, checksum
             FROM s3o_list($1, $2, $3, $4, $5, $6)",
            &[
                (&query.bucket.0, Type::INT8),
                (&query.prefix, Type::TEXT),
                (&delimiter(query.delimiter.as_ref()), Type::TEXT),
                (&from, Type::TEXT),
                (&excluded, Type::BOOL),
                (&max, Type::INT4),
            ],
        )
        .await?;
    let (found, truncated) = cut(found, query.max_entries);
    let entry = |row: &Row| -> Result<ListEntry, Fault> {
        let key = row.text(0)?;
        if row.flag(1)? {
            return Ok(ListEntry::Prefix(key));
        }
        Ok(ListEntry::Object(ListedObject {
            key,
            size: uint(row, 2)?,
            etag: etag(row, 3)?,
            last_modified: time(row, 4)?,
            checksum: algorithm(row, 5)?,
        }))
    };
    Ok(Listing {
        entries: found.iter().map(entry).collect::<Result<_, _>>()?,
        truncated,
    })
}

/// A page of uploads that have not ended.
pub(super) async fn uploads(pool: &Pool, query: &UploadQuery) -> Result<UploadListing, Fault> {
    if query.max_entries == 0 || query.prefix.contains(NUL) {
        return Ok(UploadListing::default());
    }
    // No upload has the first id: behind it is at the key.
    let first = (query.prefix.clone(), Uuid::nil());
    let from = match &query.after {
        None => first,
        Some((key, _)) if key.as_bytes() < query.prefix.as_bytes() => first,
        Some((key, None)) => (behind(key).to_owned(), Uuid::max()),
        Some((key, Some(_))) if key.contains(NUL) => (behind(key).to_owned(), Uuid::max()),
        Some((key, Some(upload))) => (key.clone(), upload_uuid(*upload)),
    };
    let max = i32::try_from(query.max_entries).unwrap_or(i32::MAX - 1);
    let found = pool
        .query(
            "SELECT key, is_prefix, upload_id, created, checksum
             FROM s3o_list_uploads($1, $2, $3, $4, $5, $6)",
            &[
                (&query.bucket.0, Type::INT8),
                (&query.prefix, Type::TEXT),
                (&delimiter(query.delimiter.as_ref()), Type::TEXT),
                (&from.0, Type::TEXT),
                (&from.1, Type::UUID),
                (&max, Type::INT4),
            ],
        )
        .await?;
    let (found, truncated) = cut(found, query.max_entries);
    let entry = |row: &Row| -> Result<UploadEntry, Fault> {
        let key = row.text(0)?;
        if row.flag(1)? {
            return Ok(UploadEntry::Prefix(key));
        }
        Ok(UploadEntry::Upload {
            key,
            upload: upload_id(row, 2)?,
            created: time(row, 3)?,
            checksum: algorithm(row, 4)?,
        })
    };
    Ok(UploadListing {
        entries: found.iter().map(entry).collect::<Result<_, _>>()?,
        truncated,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_with_a_nul_is_a_place_between_keys() {
        let query = |start| ListQuery {
            bucket: crate::model::BucketId(1),
            prefix: String::new(),
            delimiter: None,
            start,
            max_entries: 1,
        };
        let between = Some(("a".to_owned(), true));
        assert_eq!(begin(&query(ListStart::AfterKey("a\0b".into()))), between);
        assert_eq!(
            begin(&query(ListStart::AfterPrefix("a\0b".into()))),
            between
        );
        let mut nothing = query(ListStart::Beginning);
        nothing.prefix = "a\0".into();
        assert_eq!(begin(&nothing), None);
        assert_eq!(delimiter(Some(&"\0".to_owned())), None);
    }

    #[test]
    fn successors_are_texts() {
        assert_eq!(successor("a/").as_deref(), Some("a0"));
        assert_eq!(successor(""), None);
        assert_eq!(successor("a\u{10ffff}").as_deref(), Some("b"));
        assert_eq!(successor("\u{10ffff}\u{10ffff}"), None);
        assert_eq!(successor("\u{d7ff}").as_deref(), Some("\u{e000}"));
    }
}
