//! Walks through listings, page by page, against a plain sorted list.

use std::collections::BTreeSet;

use futures_util::future::join_all;

use super::support::{BUCKET, Request, Response, Server, path};

/// Keys whose order is another by code units of UTF-16, by letters without case, or as percent-encoded.
const KEYS: [&str; 22] = [
    "\n",
    " ",
    "%2F",
    "+",
    "A",
    "Z/1",
    "a",
    "a b",
    "a-b",
    "a--",
    "a--b",
    "a---b",
    "a--b--c",
    "a/1",
    "a/2/x",
    "a/2/y--z",
    "a0",
    "z",
    "ä/1",
    "ä/2",
    "\u{ffee}",
    "\u{1f600}/1",
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

/// What is listed, in which portions.
#[derive(Debug, Clone, Copy)]
struct Walk<'a> {
    version: Version,
    prefix: &'a str,
    delimiter: &'a str,
    size: usize,
}

/// An entry as it was stored; a common prefix in angle brackets.
type Entry = String;

fn encode(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

fn decode(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find('%') {
        bytes.extend_from_slice(&rest.as_bytes()[..at]);
        bytes.push(u8::from_str_radix(&rest[at + 1..at + 3], 16).unwrap());
        rest = &rest[at + 3..];
    }
    bytes.extend_from_slice(rest.as_bytes());
    String::from_utf8(bytes).unwrap()
}

async fn list(server: &Server, query: &str) -> Response {
    let request = Request::get(&format!("/{BUCKET}?{query}"));
    server.send(request).await.expect(200)
}

/// The entries of a page, in the order of their bytes.
fn entries(page: &Response) -> Vec<Entry> {
    let keys: Vec<_> = page.elements("Key").iter().map(|key| decode(key)).collect();
    let prefixes = page.elements("CommonPrefixes");
    let prefixes: Vec<_> = prefixes
        .iter()
        .map(|inner| inner.strip_prefix("<Prefix>").unwrap())
        .map(|inner| decode(inner.strip_suffix("</Prefix>").unwrap()))
        .collect();
    assert!(keys.is_sorted() && prefixes.is_sorted(), "{}", page.text());
    let mut both: Vec<_> = keys.into_iter().map(|key| (key, false)).collect();
    both.extend(prefixes.into_iter().map(|prefix| (prefix, true)));
    both.sort();
    both.into_iter().map(shown).collect()
}

fn shown((text, is_prefix): (String, bool)) -> Entry {
    match is_prefix {
        true => format!("<{text}>"),
        false => text,
    }
}

/// What S3 documents of prefix and delimiter, over a sorted list.
fn expected(walk: Walk<'_>) -> Vec<Entry> {
    let found: BTreeSet<_> = KEYS
        .iter()
        .filter_map(|key| key.strip_prefix(walk.prefix))
        .map(|rest| match rest.find(walk.delimiter) {
            Some(at) if !walk.delimiter.is_empty() => {
                let end = at + walk.delimiter.len();
                (format!("{}{}", walk.prefix, &rest[..end]), true)
            }
            _ => (format!("{}{rest}", walk.prefix), false),
        })
        .collect();
    found.into_iter().map(shown).collect()
}

/// One page behind where the last one ended, and where it ends itself.
async fn step(server: &Server, walk: Walk<'_>, next: &str) -> (Vec<Entry>, Option<String>) {
    let query = format!(
        "prefix={}&delimiter={}&max-keys={}&encoding-type=url",
        encode(walk.prefix),
        encode(walk.delimiter),
        walk.size
    );
    let page = match walk.version {
        Version::One => list(server, &format!("{query}&marker={next}")).await,
        Version::Two if next.is_empty() => list(server, &format!("list-type=2&{query}")).await,
        Version::Two => {
            let query = format!("list-type=2&{query}&continuation-token={next}");
            let page = list(server, &query).await;
            assert_eq!(page.element("ContinuationToken"), next);
            page
        }
    };
    let found = entries(&page);
    if walk.version == Version::Two {
        assert_eq!(page.element("KeyCount"), found.len().to_string());
    }
    let next = match walk.version {
        Version::One if walk.delimiter.is_empty() => page.elements("Key").last().cloned(),
        Version::One => Some(page.element("NextMarker")),
        Version::Two => Some(page.element("NextContinuationToken")),
    };
    match page.element("IsTruncated").as_str() {
        "true" => (found, Some(next.filter(|next| !next.is_empty()).unwrap())),
        "false" => {
            let markers = ["NextMarker", "NextContinuationToken"];
            assert!(markers.iter().all(|name| page.element(name).is_empty()));
            (found, None)
        }
        other => panic!("IsTruncated is {other:?}"),
    }
}

/// The bucket with all keys in it.
async fn filled() -> Server {
    let server = Server::start().await;
    let puts = KEYS.map(|key| server.send(Request::put(&path(key)).body(b"x")));
    for put in join_all(puts).await {
        put.expect(200);
    }
    server
}

#[tokio::test]
async fn pages_are_full_and_in_the_order_of_bytes_for_every_prefix_and_delimiter() {
    let server = filled().await;
    let mut rolled_up = BTreeSet::new();
    for version in [Version::One, Version::Two] {
        for prefix in ["", "a", "a-", "a--", "a/2/", "ä", "none"] {
            for delimiter in ["", "/", "-", "--", "---", "/2/", "2", "ä/", "\n"] {
                let walk = Walk {
                    version,
                    prefix,
                    delimiter,
                    size: 1000,
                };
                let expected = expected(walk);
                rolled_up.extend(
                    expected
                        .iter()
                        .filter(|entry| entry.starts_with('<'))
                        .cloned(),
                );
                for size in [1, 3, 1000] {
                    let walk = Walk { size, ..walk };
                    // A common prefix takes as much of a page as a key does.
                    let mut left = expected.as_slice();
                    let mut next = Some(String::new());
                    while let Some(from) = next {
                        let (found, behind) = step(&server, walk, &from).await;
                        let (page, rest) = left.split_at(size.min(left.len()));
                        assert_eq!(found, page, "{walk:?}");
                        assert_eq!(behind.is_none(), rest.is_empty(), "{walk:?}");
                        (left, next) = (rest, behind);
                    }
                    assert!(left.is_empty(), "{walk:?}");
                }
            }
        }
    }
    assert!(rolled_up.len() > 10, "{rolled_up:?}");
}

#[tokio::test]
async fn a_marker_need_not_be_a_key() {
    let server = filled().await;
    for (marker, delimiter, first) in [
        ("a--a", "", "a--b"),
        ("a--b", "", "a--b--c"),
        ("a/", "", "a/1"),
        // In front of a key that is rolled up, and behind everything that is.
        ("a/1", "/", "<a/>"),
        ("a/", "/", "a0"),
        ("a/~", "/", "a0"),
        ("b", "/", "z"),
    ] {
        for name in ["marker", "list-type=2&start-after"] {
            // Only the marker of version one can name a common prefix: it is what NextMarker does.
            if name != "marker" && (marker, delimiter) == ("a/", "/") {
                continue;
            }
            let (marker, delimiter) = (encode(marker), encode(delimiter));
            let query = format!("{name}={marker}&delimiter={delimiter}&encoding-type=url");
            let page = list(&server, &query).await;
            assert_eq!(entries(&page)[0], first, "{query}");
        }
    }
    for behind in ["\u{1f600}/1", "\u{1f601}", "\u{10ffff}"] {
        for name in ["marker", "list-type=2&start-after"] {
            let page = list(&server, &format!("{name}={}", encode(behind))).await;
            assert!(entries(&page).is_empty(), "{name} {behind:?}");
            assert_eq!(page.element("IsTruncated"), "false");
        }
    }
}

#[tokio::test]
async fn a_token_goes_on_behind_what_was_seen_whatever_has_come_and_gone() {
    let server = filled().await;
    let put = async |key: &str| drop(server.put(key, b"x").await.expect(200));
    let delete = async |key: &str| {
        let gone = server.send(Request::delete(&path(key))).await;
        drop(gone.expect(204));
    };
    let walk = Walk {
        version: Version::Two,
        prefix: "a",
        delimiter: "/",
        size: 4,
    };
    let (first, token) = step(&server, walk, "").await;
    assert_eq!(first, ["a", "a b", "a--", "a---b"]);
    let token = token.unwrap();
    // The key that the token names, the one behind it, and keys on either side of it.
    delete("a---b").await;
    delete("a--b").await;
    put("a!").await;
    put("a--a").await;
    let (second, behind) = step(&server, walk, &token).await;
    assert_eq!(second, ["a--a", "a--b--c", "a-b", "<a/>"]);
    // The common prefix goes as a whole, and comes again with other keys.
    let behind = behind.unwrap();
    for key in ["a/1", "a/2/x", "a/2/y--z"] {
        delete(key).await;
    }
    let (third, end) = step(&server, walk, &behind).await;
    assert_eq!((third.as_slice(), &end), (&["a0".to_owned()][..], &None));
    put("a/9").await;
    put("a00").await;
    let (third, end) = step(&server, walk, &behind).await;
    assert_eq!(
        (third, end),
        (vec!["a0".to_owned(), "a00".to_owned()], None)
    );
    // The same token with other parameters: it names a place, not a page.
    let more = Walk { size: 1000, ..walk };
    let (all, end) = step(&server, more, &token).await;
    assert_eq!(all, ["a--a", "a--b--c", "a-b", "<a/>", "a0", "a00"]);
    assert!(end.is_none());
    // Where there is a token, start-after does not count.
    let query =
        format!("list-type=2&prefix=a&start-after=zzz&max-keys=1&continuation-token={token}");
    assert_eq!(entries(&list(&server, &query).await), ["a--a"]);
}

#[tokio::test]
async fn a_page_has_a_thousand_entries_and_no_more() {
    let server = Server::start().await;
    let keys: Vec<_> = (0..1002).map(|n| format!("k{n:04}")).collect();
    for some in keys.chunks(100) {
        let puts = some.iter().map(|key| server.put(key, b""));
        for put in join_all(puts).await {
            put.expect(200);
        }
    }
    for (asked, told, count) in [
        ("", "1000", 1000),
        ("&max-keys=", "1000", 1000),
        ("&max-keys=999", "999", 999),
        ("&max-keys=1000", "1000", 1000),
        ("&max-keys=1001", "1000", 1000),
        ("&max-keys=2147483647", "1000", 1000),
        ("&max-keys=0", "0", 0),
        ("&max-keys=00001", "1", 1),
    ] {
        for version in ["list-type=2", "prefix="] {
            let page = list(&server, &format!("{version}{asked}")).await;
            assert_eq!(page.element("MaxKeys"), told, "{version}{asked}");
            assert_eq!(entries(&page), keys[..count], "{version}{asked}");
            let truncated = if count == 0 { "false" } else { "true" };
            assert_eq!(page.element("IsTruncated"), truncated, "{version}{asked}");
        }
    }
    let page = list(&server, "list-type=2&max-keys=1001").await;
    let token = page.element("NextContinuationToken");
    let rest = list(&server, &format!("list-type=2&continuation-token={token}")).await;
    assert_eq!(entries(&rest), keys[1000..]);
}
