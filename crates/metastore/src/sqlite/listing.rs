//! Listings: keyset and skip-scan in one read transaction.
//!
//! A range query runs until it meets the first key of a common prefix; from there it starts again at
//! the prefix's successor. So a page costs a seek per prefix and a step per key, however many keys a
//! prefix holds. Keys are compared as bytes, and a prefix is a range of bytes: nothing here knows of
//! characters.

use base::UploadId;
use rusqlite::{CachedStatement, Connection, Row, params};

use crate::fault::Fault;
use crate::model::{
    BucketId, ListEntry, ListQuery, ListStart, ListedObject, Listing, UploadEntry, UploadListing,
    UploadQuery,
};
use crate::values::{Cells, algorithm, etag, time, uint, upload_id};

/// No UTF-8 text holds this byte: as a key it is behind all keys. (An end that may be absent would
/// be a filter for SQLite, not the end of a range.)
const END_OF_KEYS: u8 = u8::MAX;

/// The smallest byte string that is greater than everything that begins with these bytes; `None`
/// where there is none.
fn successor(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|byte| *byte != u8::MAX)?;
    let mut next = prefix[..=last].to_vec();
    next[last] += 1;
    Some(next)
}

/// The smallest byte string that is greater than these bytes.
fn behind(key: &[u8]) -> Vec<u8> {
    [key, &[0]].concat()
}

/// A place in an order of keys, and of uploads of the same key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Position {
    key: Vec<u8>,
    upload: Vec<u8>,
}

impl Position {
    fn at(key: Vec<u8>) -> Self {
        Self {
            key,
            upload: Vec::new(),
        }
    }
}

/// A page that is being made: rows in, entries out.
struct Page<'a> {
    prefix: &'a [u8],
    delimiter: Option<&'a [u8]>,
    /// Behind the last key with the prefix.
    end: Vec<u8>,
    left: u32,
}

/// What a row means for the page.
enum Step {
    /// It is an entry.
    Entry,
    /// It and all that follow with this prefix are one entry.
    Prefix(Vec<u8>),
    /// The page is full.
    Full,
}

impl<'a> Page<'a> {
    fn new(prefix: &'a str, delimiter: Option<&'a str>, max_entries: u32) -> Self {
        Self {
            prefix: prefix.as_bytes(),
            delimiter: delimiter.filter(|text| !text.is_empty()).map(str::as_bytes),
            end: successor(prefix.as_bytes()).unwrap_or_else(|| vec![END_OF_KEYS]),
            left: max_entries,
        }
    }

    fn next(&mut self, key: &[u8]) -> Step {
        if self.left == 0 {
            return Step::Full;
        }
        self.left -= 1;
        match self.common_prefix(key) {
            Some(length) => Step::Prefix(key[..length].to_vec()),
            None => Step::Entry,
        }
    }

    /// The length of the key's common prefix, where it has one.
    fn common_prefix(&self, key: &[u8]) -> Option<usize> {
        let delimiter = self.delimiter?;
        let rest = key.get(self.prefix.len()..)?;
        let at = rest
            .windows(delimiter.len())
            .position(|window| window == delimiter)?;
        Some(self.prefix.len() + at + delimiter.len())
    }
}

/// Walks rows from a position on; `take` makes entries, `skip` makes entries of common prefixes.
/// Returns whether more follow.
fn walk(
    statement: &mut CachedStatement<'_>,
    bucket: BucketId,
    start: Option<Position>,
    page: &mut Page<'_>,
    mut take: impl FnMut(&Row<'_>) -> Result<(), Fault>,
    mut group: impl FnMut(String),
) -> Result<bool, Fault> {
    let mut position = start;
    'seek: while let Some(from) = position {
        let mut rows = statement.query(params![bucket.0, from.key, from.upload, page.end])?;
        while let Some(row) = rows.next()? {
            let key = row.get_ref(0)?.as_blob().map_err(rusqlite::Error::from)?;
            match page.next(key) {
                Step::Full => return Ok(true),
                Step::Entry => take(row)?,
                Step::Prefix(prefix) => {
                    position = successor(&prefix).map(Position::at);
                    let text = String::from_utf8(prefix).map_err(|_| {
                        Fault::damaged("a key that is not UTF-8, or a delimiter within a character")
                    })?;
                    group(text);
                    continue 'seek;
                }
            }
        }
        return Ok(false);
    }
    Ok(false)
}

/// ?3 is the upload of a position, which objects do not have.
const OBJECTS: &str = "SELECT key, size, etag, last_modified, checksum FROM objects
    WHERE bucket_id = ?1 AND key >= ?2 AND ?3 = x'' AND key < ?4 ORDER BY key";

/// A page of keys.
pub(crate) fn objects(conn: &Connection, query: &ListQuery) -> Result<Listing, Fault> {
    let mut statement = conn.prepare_cached(OBJECTS)?;
    page_of_objects(&mut statement, query)
}

fn page_of_objects(
    statement: &mut CachedStatement<'_>,
    query: &ListQuery,
) -> Result<Listing, Fault> {
    let mut page = Page::new(&query.prefix, query.delimiter.as_deref(), query.max_entries);
    let first = query.prefix.as_bytes().to_vec();
    let start = match &query.start {
        ListStart::Beginning => Some(first),
        ListStart::AfterKey(key) => Some(behind(key.as_bytes()).max(first)),
        ListStart::AfterPrefix(prefix) => successor(prefix.as_bytes()).map(|at| at.max(first)),
    };
    if query.max_entries == 0 {
        return Ok(Listing::default());
    }
    let entries = std::cell::RefCell::new(Vec::new());
    let truncated = walk(
        statement,
        query.bucket,
        start.map(Position::at),
        &mut page,
        |row| {
            entries.borrow_mut().push(ListEntry::Object(ListedObject {
                key: row.key_text(0)?,
                size: uint(row, 1)?,
                etag: etag(row, 2)?,
                last_modified: time(row, 3)?,
                checksum: algorithm(row, 4)?,
            }));
            Ok(())
        },
        |prefix| entries.borrow_mut().push(ListEntry::Prefix(prefix)),
    )?;
    Ok(Listing {
        entries: entries.into_inner(),
        truncated,
    })
}

const UPLOADS: &str = "SELECT key, upload_id, created, checksum FROM multipart_uploads
    WHERE ended IS NULL AND bucket_id = ?1 AND (key, upload_id) >= (?2, ?3)
        AND key < ?4
    ORDER BY key, upload_id";

/// A page of uploads that have not ended.
pub(crate) fn uploads(conn: &Connection, query: &UploadQuery) -> Result<UploadListing, Fault> {
    let mut page = Page::new(&query.prefix, query.delimiter.as_deref(), query.max_entries);
    let first = Position::at(query.prefix.as_bytes().to_vec());
    let after = query.after.as_ref().map(|(key, upload)| match upload {
        None => Position::at(behind(key.as_bytes())),
        Some(upload) => {
            let upload = behind(&UploadId::to_bytes(*upload));
            Position {
                key: key.as_bytes().to_vec(),
                upload,
            }
        }
    });
    if query.max_entries == 0 {
        return Ok(UploadListing::default());
    }
    let start = after.map_or(first.clone(), |after| after.max(first));
    let entries = std::cell::RefCell::new(Vec::new());
    let truncated = walk(
        &mut conn.prepare_cached(UPLOADS)?,
        query.bucket,
        Some(start),
        &mut page,
        |row| {
            entries.borrow_mut().push(UploadEntry::Upload {
                key: row.key_text(0)?,
                upload: upload_id(row, 1)?,
                created: time(row, 2)?,
                checksum: algorithm(row, 3)?,
            });
            Ok(())
        },
        |prefix| entries.borrow_mut().push(UploadEntry::Prefix(prefix)),
    )?;
    Ok(UploadListing {
        entries: entries.into_inner(),
        truncated,
    })
}

#[cfg(test)]
mod tests {
    use base::ETag;
    use rusqlite::StatementStatus;

    use super::*;
    use crate::model::ListEntry;

    const BUCKET: BucketId = BucketId(1);

    fn empty() -> Connection {
        let conn = Connection::open_in_memory().unwrap();
        conn.execute_batch(include_str!("../../migrations/sqlite/0001_init.sql"))
            .unwrap();
        conn
    }

    /// `keys` keys, 90 % of them below `m/`, the others at the root and in many small prefixes.
    fn filled(keys: u64) -> Connection {
        let conn = empty();
        conn.execute(
            "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < ?1)
             INSERT INTO objects (bucket_id, key, version_id, seq, size, etag, last_modified)
             SELECT 1, CAST(CASE WHEN i % 10 > 0 THEN printf('m/%09d', i)
                 WHEN i % 20 = 0 THEN printf('a%09d/x', i) ELSE printf('b%09d', i) END AS BLOB),
                 x'00', i, 1, 'e', 0 FROM n",
            [keys.cast_signed()],
        )
        .unwrap();
        conn
    }

    fn first_page(max_entries: u32) -> ListQuery {
        ListQuery {
            bucket: BUCKET,
            prefix: String::new(),
            delimiter: Some("/".into()),
            start: ListStart::Beginning,
            max_entries,
        }
    }

    /// VM steps per entry of the first page.
    fn steps_per_entry(conn: &Connection, query: &ListQuery) -> f64 {
        let mut statement = conn.prepare_cached(OBJECTS).unwrap();
        statement.reset_status(StatementStatus::VmStep);
        let page = page_of_objects(&mut statement, query).unwrap();
        let steps = statement.get_status(StatementStatus::VmStep);
        f64::from(steps) / page.entries.len() as f64
    }

    #[test]
    fn a_page_costs_the_same_however_many_keys_a_prefix_holds() {
        let (small, large) = (filled(1_000), filled(1_000_000));
        for max_entries in [10, 100, 1000] {
            let query = first_page(max_entries);
            let few = steps_per_entry(&small, &query);
            let many = steps_per_entry(&large, &query);
            assert!(
                many <= 2.0 * few && few <= 2.0 * many,
                "{max_entries}: {few} and {many}"
            );
        }
        let below = ListQuery {
            start: ListStart::AfterKey("b999999990".into()),
            ..first_page(1000)
        };
        let page = objects(&large, &below).unwrap();
        assert_eq!(page.entries, [ListEntry::Prefix("m/".into())]);
        assert!(steps_per_entry(&large, &below) < 100.0);
        let nothing = ListQuery {
            prefix: "a0000".into(),
            delimiter: None,
            ..first_page(1000)
        };
        assert!(steps_per_entry(&large, &nothing) < 100.0);
    }

    #[test]
    fn every_seek_uses_the_index() {
        let conn = empty();
        for (sql, index) in [
            (OBJECTS, "PRIMARY KEY"),
            (UPLOADS, "multipart_uploads_by_key"),
        ] {
            let mut statement = conn.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
            let plan: Vec<String> = statement
                .query_map(params![1, vec![1u8], Vec::<u8>::new(), vec![2u8]], |row| {
                    row.get(3)
                })
                .unwrap()
                .map(Result::unwrap)
                .collect();
            let all = plan.join("; ");
            assert!(all.contains("SEARCH") && all.contains(index), "{all}");
            assert!(!all.contains("TEMP B-TREE"), "{all}");
        }
    }

    #[test]
    fn successors_are_the_smallest_greater_strings() {
        assert_eq!(successor(b"a/"), Some(b"a0".to_vec()));
        assert_eq!(successor(b""), None);
        assert_eq!(successor(&[b'a', 0xff, 0xff]), Some(b"b".to_vec()));
        assert_eq!(successor(&[0xff]), None);
        let last = successor("\u{10ffff}".as_bytes()).unwrap();
        assert!(last.as_slice() > "\u{10ffff}\u{10ffff}".as_bytes());
        assert!(last < vec![END_OF_KEYS]);
        let before_surrogates = successor("\u{d7ff}".as_bytes()).unwrap();
        assert!(before_surrogates.as_slice() <= "\u{e000}".as_bytes());
    }

    #[test]
    fn an_entry_carries_what_the_row_holds() {
        let conn = filled(20);
        let query = ListQuery {
            delimiter: None,
            prefix: "b".into(),
            ..first_page(1)
        };
        let page = objects(&conn, &query).unwrap();
        assert!(!page.truncated);
        let [ListEntry::Object(object)] = page.entries.as_slice() else {
            panic!("{page:?}")
        };
        assert_eq!(
            (object.key.as_str(), &object.etag),
            ("b000000010", &ETag::new("e"))
        );
    }
}
