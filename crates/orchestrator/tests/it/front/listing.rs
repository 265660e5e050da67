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
}

#[tokio::test]
async fn version_two_names_owners_where_it_is_asked_to_and_version_one_always() {
    let server = filled().await;
    for (query, count) in [
        ("list-type=2", 0),
        ("list-type=2&fetch-owner=false", 0),
        ("list-type=2&fetch-owner=", 0),
        ("list-type=2&fetch-owner=true", 7),
        ("list-type=2&fetch-owner=true&delimiter=%2F", 3),
        ("", 7),
        // Another version's parameter means nothing.
        ("fetch-owner=false", 7),
    ] {
        let page = list(&server, query).await;
        assert_eq!(page.elements("Owner").len(), count, "{query}");
        let ids = page.elements("ID");
        assert!(
            ids.len() == count && ids.iter().all(|id| !id.is_empty()),
            "{query}"
        );
    }
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
async fn objects_are_listed_as_null_versions_in_pages_of_every_size() {
    let server = filled().await;
    let page = list(&server, "versions").await;
    assert_eq!(page.elements("Key").len(), 7);
    assert_eq!(page.elements("VersionId"), ["null"; 7]);
    assert_eq!(page.elements("IsLatest"), ["true"; 7]);
    assert_eq!(page.elements("Owner").len(), 7);
    assert_eq!(page.element("Name"), BUCKET);
    assert_eq!(page.element("IsTruncated"), "false");
    assert!(page.elements("DeleteMarker").is_empty());
    for rest in ["", "&delimiter=%2F", "&prefix=d%2F&delimiter=%2F"] {
        let whole = list(&server, &format!("versions{rest}")).await;
        for size in 1..=8 {
            let (mut keys, mut prefixes, mut marker) = (Vec::new(), Vec::new(), String::new());
            loop {
                let query = format!("versions&encoding-type=url&max-keys={size}{rest}{marker}");
                let page = list(&server, &query).await;
                keys.extend(page.elements("Key"));
                prefixes.extend(page.elements("CommonPrefixes"));
                if page.element("IsTruncated") == "false" {
                    break;
                }
                marker = format!("&key-marker={}", page.element("NextKeyMarker"));
                // Behind a common prefix there is no version to go on from.
                let version = page.element("NextVersionIdMarker");
                if !version.is_empty() {
                    marker = format!("{marker}&version-id-marker={version}");
                }
            }
            let encoded = format!("versions&encoding-type=url{rest}");
            let encoded = list(&server, &encoded).await;
            assert_eq!(keys, encoded.elements("Key"), "{size}{rest}");
            assert_eq!(prefixes, encoded.elements("CommonPrefixes"), "{size}{rest}");
        }
        assert_eq!(whole.element("IsTruncated"), "false");
    }
}

#[tokio::test]
async fn the_null_version_is_the_object() {
    let server = filled().await;
    let target = |key: &str| format!("{}?versionId=null", super::support::path(key));
    let read = server.send(Request::get(&target("a"))).await.expect(200);
    assert_eq!(&read.body[..], b"a");
    server.send(Request::head(&target("a"))).await.expect(200);
    let gone = server.send(Request::delete(&target("a"))).await.expect(204);
    assert_eq!(gone.header("x-amz-version-id"), "null");
    assert_eq!(server.get("a").await.status, 404);
    // A delete that names no version does not speak of one.
    let plain = Request::delete(&super::support::path("b/1"));
    let plain = server.send(plain).await.expect(204);
    assert!(!plain.headers.contains_key("x-amz-version-id"));
    // What tools do that empty a bucket.
    let keys = list(&server, "versions").await.elements("Key");
    let items: String = keys
        .iter()
        .map(|key| format!("<Object><Key>{key}</Key><VersionId>null</VersionId></Object>"))
        .collect();
    let body = format!("<Delete>{items}</Delete>");
    let sum = base::Md5::of(body.as_bytes()).to_base64();
    let all = Request::post(&format!("/{BUCKET}?delete"))
        .header("content-md5", &sum)
        .header("x-amz-bypass-governance-retention", "true")
        .body(body.as_bytes());
    let deleted = server.send(all).await.expect(200);
    assert_eq!(deleted.elements("VersionId"), vec!["null"; keys.len()]);
    assert!(list(&server, "versions").await.elements("Key").is_empty());
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
        assert!(!page.text().contains("<Next"), "{query}");
    }
    let page = list(&server, "list-type=2&max-keys=0&delimiter=%2F").await;
    assert_eq!(
        (page.element("MaxKeys"), page.element("KeyCount")),
        ("0".into(), "0".into())
    );
    assert!(page.elements("CommonPrefixes").is_empty());
}

#[tokio::test]
async fn parameters_that_mean_nothing_are_refused() {
    let server = filled().await;
    for query in [
        "max-keys=-1",
        "max-keys=x",
        "max-keys=1.5",
        "max-keys=%2B1",
        "max-keys=1%20",
        "max-keys=0x10",
        "max-keys=2147483648",
        "max-keys=99999999999999999999",
        "max-keys=1&max-keys=1",
        "encoding-type=utf8",
        "encoding-type=url&encoding-type=url",
        "prefix=a%00",
        "delimiter=%00",
        "list-type=2&fetch-owner=maybe",
        "list-type=2&start-after=%00",
        "list-type=2&continuation-token=",
        "list-type=2&continuation-token=zzz",
        "list-type=1",
        "list-type=",
    ] {
        let request = Request::get(&format!("/{BUCKET}?{query}"));
        let refused = server.send(request).await;
        assert_eq!(
            refused.verdict(),
            (400, "InvalidArgument".into()),
            "{query}"
        );
    }
}

/// Every text of a listing that can hold a part of a key, from a bucket of odd keys.
#[tokio::test]
async fn keys_are_percent_encoded_where_the_client_asks_for_it() {
    let server = Server::start().await;
    let odd = "ü +%2F\n<&\u{1f600}";
    for key in [format!("{odd}1"), format!("{odd}/2"), format!("{odd}|3")] {
        server.put(&key, b"x").await.expect(200);
    }
    let encoded = "%C3%BC%20%2B%252F%0A%3C%26%F0%9F%98%80";
    let plain = "ü +%2F&#xa;&lt;&amp;\u{1f600}";
    let asked = format!("prefix={encoded}&delimiter=%7C&max-keys=2");
    for (version, behind) in [("list-type=2&", "start-after"), ("", "marker")] {
        let page = format!("{version}{asked}&{behind}={encoded}");
        let shown = list(&server, &format!("{page}&encoding-type=url")).await;
        assert_eq!(shown.element("EncodingType"), "url");
        assert_eq!(shown.element("Prefix"), encoded);
        assert_eq!(shown.element("Delimiter"), "%7C");
        let name = if behind == "marker" {
            "Marker"
        } else {
            "StartAfter"
        };
        assert_eq!(shown.element(name), encoded);
        let keys = [format!("{encoded}/2"), format!("{encoded}1")];
        assert_eq!(shown.elements("Key"), keys);
        let shown = list(&server, &page).await;
        assert!(!shown.text().contains("EncodingType"));
        assert_eq!(shown.element("Prefix"), plain);
        assert_eq!(shown.element(name), plain);
        assert_eq!(
            shown.elements("Key"),
            [format!("{plain}/2"), format!("{plain}1")]
        );
    }
    let rolled = format!("prefix={encoded}&delimiter=%7C&encoding-type=url&marker={encoded}1");
    let rolled = list(&server, &rolled).await;
    let prefix = format!("<Prefix>{encoded}%7C</Prefix>");
    assert_eq!(rolled.elements("CommonPrefixes"), [prefix]);
    let next = format!("{asked}&encoding-type=url");
    let next = list(&server, &next).await.element("NextMarker");
    assert_eq!(next, format!("{encoded}1"));
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
