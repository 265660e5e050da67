//! Listings against a naive model.

use std::collections::BTreeSet;

use base::{BackendKey, BlobId, Clock, UploadId};
use metastore::Store;
use metastore::model::{
    BucketId, ListEntry, ListQuery, ListStart, NewLeg, NewUpload, UploadEntry, UploadQuery,
    UploadVerdict,
};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use crate::support::{Db, Open, key};

on_each_database! {
    listings_agree_with_a_naive_model,
    pages_of_every_size_add_up_to_the_whole,
    a_marker_inside_a_common_prefix_shows_the_prefix_again,
    uploads_are_listed_by_key_and_then_by_id,
}

const PIECES: [&str; 10] = [
    "a",
    "b",
    "/",
    "//",
    "ab",
    "\u{10ffff}",
    "\u{d7ff}",
    "\u{e000}",
    "%",
    "\u{1}",
];

fn text(rng: &mut StdRng, pieces: usize) -> String {
    (0..pieces).map(|_| *PIECES.choose(rng).unwrap()).collect()
}

async fn filled(open: &Open<'_>, rng: &mut StdRng, count: usize) -> BTreeSet<String> {
    let mut keys = BTreeSet::new();
    for _ in 0..count {
        let pieces = rng.random_range(1..6);
        let name = text(rng, pieces);
        open.put(open.one(), &name, 1).await;
        keys.insert(name);
    }
    keys
}

/// What S3 says of a listing, done the slow way.
fn naive(keys: &BTreeSet<String>, query: &ListQuery) -> (Vec<String>, bool) {
    let mut entries: Vec<String> = Vec::new();
    for name in keys {
        let behind = match &query.start {
            ListStart::Beginning => true,
            ListStart::AfterKey(after) => name > after,
            ListStart::AfterPrefix(prefix) => name > prefix && !name.starts_with(prefix.as_str()),
        };
        let Some(rest) = name.strip_prefix(query.prefix.as_str()) else {
            continue;
        };
        if !behind {
            continue;
        }
        let entry = match query.delimiter.as_deref().and_then(|text| {
            rest.find(text)
                .map(|at| query.prefix.len() + at + text.len())
        }) {
            Some(end) => format!("prefix {}", &name[..end]),
            None => name.clone(),
        };
        if entries.last() != Some(&entry) {
            entries.push(entry);
        }
    }
    let max = usize::try_from(query.max_entries).unwrap();
    let truncated = max > 0 && entries.len() > max;
    entries.truncate(max);
    (entries, truncated)
}

async fn listed(store: &Store, query: &ListQuery) -> (Vec<String>, bool) {
    let listing = store.list(query).await.unwrap();
    let text = |entry: ListEntry| match entry {
        ListEntry::Object(object) => object.key,
        ListEntry::Prefix(prefix) => format!("prefix {prefix}"),
    };
    (
        listing.entries.into_iter().map(text).collect(),
        listing.truncated,
    )
}

async fn listings_agree_with_a_naive_model(db: Db) {
    let open = db.open().await;
    let mut rng = StdRng::seed_from_u64(3);
    let keys = filled(&open, &mut rng, 150).await;
    let names: Vec<&String> = keys.iter().collect();
    for _ in 0..3_000 {
        let pieces = rng.random_range(0..3);
        let prefix = text(&mut rng, pieces);
        let start = match rng.random_range(0..4) {
            0 => ListStart::AfterKey((*names.choose(&mut rng).unwrap()).clone()),
            1 => ListStart::AfterKey(text(&mut rng, 2)),
            2 => ListStart::AfterPrefix(text(&mut rng, 2)),
            _ => ListStart::Beginning,
        };
        let delimiter = ["/", "//", "a", "\u{10ffff}", "ab", ""]
            .choose(&mut rng)
            .unwrap();
        let query = ListQuery {
            bucket: open.bucket,
            prefix,
            delimiter: rng
                .random_bool(0.7)
                .then(|| (*delimiter).to_owned())
                .filter(|d| !d.is_empty()),
            start,
            max_entries: *[0, 1, 2, 7, 1000].choose(&mut rng).unwrap(),
        };
        assert_eq!(
            listed(&open.store, &query).await,
            naive(&keys, &query),
            "{query:?}"
        );
    }
    let other = ListQuery {
        bucket: BucketId(99),
        prefix: String::new(),
        delimiter: None,
        start: ListStart::Beginning,
        max_entries: 10,
    };
    assert_eq!(listed(&open.store, &other).await, (Vec::new(), false));
}

async fn pages_of_every_size_add_up_to_the_whole(db: Db) {
    let open = db.open().await;
    let mut rng = StdRng::seed_from_u64(4);
    let keys = filled(&open, &mut rng, 80).await;
    for max_entries in [1, 2, 3, 10] {
        let mut query = ListQuery {
            bucket: open.bucket,
            prefix: String::new(),
            delimiter: Some("/".into()),
            start: ListStart::Beginning,
            max_entries,
        };
        let mut all = Vec::new();
        loop {
            let page = open.store.list(&query).await.unwrap();
            query.start = match page.entries.last() {
                None => break,
                Some(ListEntry::Object(object)) => ListStart::AfterKey(object.key.clone()),
                Some(ListEntry::Prefix(prefix)) => ListStart::AfterPrefix(prefix.clone()),
            };
            all.extend(listed_entries(page.entries));
            if !page.truncated {
                break;
            }
        }
        let whole = ListQuery {
            start: ListStart::Beginning,
            max_entries: 1000,
            ..query
        };
        assert_eq!(all, naive(&keys, &whole).0);
    }
}

fn listed_entries(entries: Vec<ListEntry>) -> impl Iterator<Item = String> {
    entries.into_iter().map(|entry| match entry {
        ListEntry::Object(object) => object.key,
        ListEntry::Prefix(prefix) => format!("prefix {prefix}"),
    })
}

async fn a_marker_inside_a_common_prefix_shows_the_prefix_again(db: Db) {
    let open = db.open().await;
    for name in ["a/1", "a/2", "b"] {
        open.put(open.one(), name, 1).await;
    }
    let query = ListQuery {
        bucket: open.bucket,
        prefix: String::new(),
        delimiter: Some("/".into()),
        start: ListStart::AfterKey("a/1".into()),
        max_entries: 10,
    };
    assert_eq!(listed(&open.store, &query).await.0, ["prefix a/", "b"]);
    let query = ListQuery {
        start: ListStart::AfterPrefix("a/".into()),
        ..query
    };
    assert_eq!(listed(&open.store, &query).await.0, ["b"]);
}

async fn create(open: &Open<'_>, name: &str) -> UploadId {
    let upload = UploadId::draw(&open.db.ids);
    let copy = open.copy();
    let new = NewUpload {
        upload,
        bucket: open.bucket,
        key: key(name),
        headers: base::ObjectHeaders::default(),
        tags: base::Tags::default(),
        checksum: None,
        created: open.db.clock.now(),
        leg: NewLeg {
            copy,
            blob: BlobId::draw(&open.db.ids),
            backend: open.one(),
            key: BackendKey::new(&format!("k~{copy}")).unwrap(),
        },
        open_max: None,
    };
    assert_eq!(
        open.store.create_upload(new).await.unwrap(),
        UploadVerdict::Done
    );
    upload
}

async fn uploads_are_listed_by_key_and_then_by_id(db: Db) {
    let open = db.open().await;
    let mut made = Vec::new();
    for name in ["a/1", "a/2", "b", "b", "b", "c", "\u{10ffff}"] {
        db.clock.advance_ms(1);
        made.push((name.to_owned(), create(&open, name).await));
    }
    let all = UploadQuery {
        bucket: open.bucket,
        prefix: String::new(),
        delimiter: None,
        after: None,
        max_entries: 1000,
    };
    let names = async |query: &UploadQuery| {
        let page = open.store.uploads(query).await.unwrap();
        let entry = |entry: UploadEntry| match entry {
            UploadEntry::Upload { key, upload, .. } => (key, Some(upload)),
            UploadEntry::Prefix(prefix) => (prefix, None),
        };
        (
            page.entries.into_iter().map(entry).collect::<Vec<_>>(),
            page.truncated,
        )
    };
    let whole: Vec<_> = made
        .iter()
        .map(|(name, id)| (name.clone(), Some(*id)))
        .collect();
    assert_eq!(names(&all).await, (whole.clone(), false));
    let first = UploadQuery {
        max_entries: 3,
        ..all.clone()
    };
    assert_eq!(names(&first).await, (whole[..3].to_vec(), true));
    let next = UploadQuery {
        after: Some(("b".into(), Some(made[2].1))),
        ..all.clone()
    };
    assert_eq!(names(&next).await.0, whole[3..]);
    let next = UploadQuery {
        after: Some(("b".into(), None)),
        ..all.clone()
    };
    assert_eq!(names(&next).await.0, whole[5..]);
    let grouped = UploadQuery {
        delimiter: Some("/".into()),
        max_entries: 2,
        ..all.clone()
    };
    assert_eq!(
        names(&grouped).await,
        (vec![("a/".into(), None), whole[2].clone()], true)
    );
    let below = UploadQuery {
        prefix: "a/".into(),
        delimiter: Some("/".into()),
        ..all.clone()
    };
    assert_eq!(names(&below).await.0, whole[..2]);
    open.store
        .abort_upload(open.bucket, &key("c"), made[5].1)
        .await
        .unwrap();
    assert_eq!(names(&all).await.0.len(), 6);
}
