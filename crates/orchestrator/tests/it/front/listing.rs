//! Listings: pages, prefixes, tokens, encodings.

use super::support::{BUCKET, Request, Response, Server};

async fn list(server: &Server, query: &str) -> Response {
    server
        .send(Request::get(&format!("/{BUCKET}?{query}")))
        .await
        .expect(200)
}

async fn filled() -> Server {
    let server = Server::start().await;
    for key in ["a", "b/1", "b/2", "c d", "d/x/1", "d/y", "ü&"] {
        server.put(key, key.as_bytes()).await.expect(200);
    }
    server
}

#[tokio::test]
async fn a_listing_has_every_key_in_order_with_what_is_known_of_it() {
    let server = filled().await;
    let page = list(&server, "list-type=2").await;
    assert_eq!(
        page.elements("Key"),
        ["a", "b/1", "b/2", "c d", "d/x/1", "d/y", "ü&amp;"]
    );
    assert_eq!(page.element("KeyCount"), "7");
    assert_eq!(page.element("IsTruncated"), "false");
    assert_eq!(page.element("Name"), BUCKET);
    assert_eq!(page.elements("Size")[1], "3");
    assert_eq!(page.elements("StorageClass").len(), 7);
    assert!(page.elements("Owner").is_empty());
    let owned = list(&server, "list-type=2&fetch-owner=true").await;
    assert_eq!(owned.elements("Owner").len(), 7);
}

#[tokio::test]
async fn pages_of_every_size_add_up_to_the_whole() {
    let server = filled().await;
    for delimiter in ["", "&delimiter=%2F"] {
        let whole = list(&server, &format!("list-type=2{delimiter}")).await;
        for size in 1..=8 {
            let (mut keys, mut prefixes, mut token) = (Vec::new(), Vec::new(), String::new());
            loop {
                let query = format!("list-type=2{delimiter}&max-keys={size}{token}");
                let page = list(&server, &query).await;
                keys.extend(page.elements("Key"));
                prefixes.extend(page.elements("CommonPrefixes"));
                if page.element("IsTruncated") == "false" {
                    break;
                }
                let next = page.element("NextContinuationToken");
                assert!(!next.is_empty());
                token = format!("&continuation-token={next}");
            }
            assert_eq!(keys, whole.elements("Key"), "{size}{delimiter}");
            assert_eq!(
                prefixes,
                whole.elements("CommonPrefixes"),
                "{size}{delimiter}"
            );
        }
    }
}

#[tokio::test]
async fn version_one_goes_on_behind_its_marker_and_never_repeats_a_prefix() {
    let server = filled().await;
    for size in 1..=6 {
        let (mut seen, mut marker) = (Vec::new(), String::new());
        loop {
            let query = format!("delimiter=%2F&max-keys={size}&marker={marker}");
            let page = list(&server, &query).await;
            seen.extend(page.elements("Key"));
            seen.extend(page.elements("CommonPrefixes"));
            if page.element("IsTruncated") == "false" {
                break;
            }
            let next = page.element("NextMarker").replace("&amp;", "&");
            marker = s3wire::uri::encode_component(&next).into_owned();
        }
        seen.sort();
        assert_eq!(
            seen,
            [
                "<Prefix>b/</Prefix>",
                "<Prefix>d/</Prefix>",
                "a",
                "c d",
                "ü&amp;"
            ],
            "{size}"
        );
    }
}

#[tokio::test]
async fn no_keys_are_no_keys() {
    let server = filled().await;
    for query in [
        "list-type=2&max-keys=0",
        "max-keys=0",
        "uploads&max-uploads=0",
    ] {
        let page = list(&server, query).await;
        assert_eq!(page.element("IsTruncated"), "false", "{query}");
        assert!(page.elements("Key").is_empty(), "{query}");
    }
}

#[tokio::test]
async fn keys_are_percent_encoded_where_the_client_asks_for_it() {
    let server = filled().await;
    let page = list(&server, "list-type=2&encoding-type=url&prefix=c").await;
    assert_eq!(page.elements("Key"), ["c%20d"]);
    assert_eq!(page.element("EncodingType"), "url");
}

#[tokio::test]
async fn start_after_and_prefix_narrow_a_listing() {
    let server = filled().await;
    let page = list(&server, "list-type=2&start-after=b%2F1").await;
    assert_eq!(page.elements("Key")[0], "b/2");
    let page = list(&server, "list-type=2&prefix=d%2F&delimiter=%2F").await;
    assert_eq!(page.elements("Key"), ["d/y"]);
    assert_eq!(page.elements("CommonPrefixes"), ["<Prefix>d/x/</Prefix>"]);
}

#[tokio::test]
async fn a_made_up_token_is_refused() {
    let server = Server::start().await;
    let query = format!("/{BUCKET}?list-type=2&continuation-token=zzz");
    let refused = server.send(Request::get(&query)).await;
    assert_eq!(refused.verdict(), (400, "InvalidArgument".into()));
}
