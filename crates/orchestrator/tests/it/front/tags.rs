//! Tags of objects, end to end.

use super::support::{BUCKET, Request, Server, path};

fn tagging(pairs: &[(&str, &str)]) -> String {
    let tag =
        |(key, value): &(&str, &str)| format!("<Tag><Key>{key}</Key><Value>{value}</Value></Tag>");
    let tags: String = pairs.iter().map(tag).collect();
    format!("<Tagging><TagSet>{tags}</TagSet></Tagging>")
}

async fn tags(server: &Server, key: &str) -> Vec<(String, String)> {
    let answer = server
        .send(Request::get(&format!("{}?tagging", path(key))))
        .await
        .expect(200);
    let (keys, values) = (answer.elements("Key"), answer.elements("Value"));
    keys.into_iter().zip(values).collect()
}

fn pairs(of: &[(&str, &str)]) -> Vec<(String, String)> {
    of.iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect()
}

#[tokio::test]
async fn tags_are_set_read_replaced_and_removed_without_a_new_version() {
    let server = Server::start().await;
    let put = server.put("k", b"x").await.expect(200);
    let before = server.get("k").await.expect(200);
    assert!(before.header("x-amz-tagging-count").is_empty());
    let target = format!("{}?tagging", path("k"));
    let set = |body: String| Request::put(&target).body(body.as_bytes());
    server
        .send(set(tagging(&[("a b", "1"), ("c", "")])))
        .await
        .expect(200);
    assert_eq!(tags(&server, "k").await, pairs(&[("a b", "1"), ("c", "")]));
    let after = server.get("k").await.expect(200);
    assert_eq!(after.header("x-amz-tagging-count"), "2");
    assert_eq!(after.header("etag"), put.header("etag"));
    assert_eq!(
        after.header("last-modified"),
        before.header("last-modified")
    );
    server.send(set(tagging(&[("d", "2")]))).await.expect(200);
    assert_eq!(tags(&server, "k").await, pairs(&[("d", "2")]));
    server.send(Request::delete(&target)).await.expect(204);
    assert_eq!(tags(&server, "k").await, []);
    for request in [
        Request::get(&target),
        Request::delete(&target),
        set(tagging(&[])),
    ] {
        let absent = Request {
            path: path("absent"),
            ..request
        };
        assert_eq!(
            server.send(absent).await.verdict(),
            (404, "NoSuchKey".into())
        );
    }
}

#[tokio::test]
async fn a_write_brings_its_tags_and_an_overwrite_drops_them() {
    let server = Server::start().await;
    let put = |key: &str| Request::put(&path(key)).body(b"x");
    server
        .send(put("k").header("x-amz-tagging", "a=1&b=%C3%BC"))
        .await
        .expect(200);
    assert_eq!(
        tags(&server, "k").await,
        pairs(&[("a", "1"), ("b", "\u{fc}")])
    );
    server.send(put("k")).await.expect(200);
    assert_eq!(tags(&server, "k").await, []);
    let upload = server
        .send(Request::post(&format!("{}?uploads", path("m"))).header("x-amz-tagging", "u=v"))
        .await
        .expect(200)
        .element("UploadId");
    let part = format!("{}?partNumber=1&uploadId={upload}", path("m"));
    let part = server
        .send(Request::put(&part).body(b"part"))
        .await
        .expect(200);
    let list = format!(
        "<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>{}</ETag></Part></CompleteMultipartUpload>",
        part.header("etag")
    );
    let complete = format!("{}?uploadId={upload}", path("m"));
    server
        .send(Request::post(&complete).body(list.as_bytes()))
        .await
        .expect(200);
    assert_eq!(tags(&server, "m").await, pairs(&[("u", "v")]));
}

#[tokio::test]
async fn a_copy_keeps_the_tags_or_takes_those_of_the_request() {
    let server = Server::start().await;
    let source = Request::put(&path("source")).body(b"x");
    server
        .send(source.header("x-amz-tagging", "a=1"))
        .await
        .expect(200);
    let copy = |key: &str| {
        Request::put(&path(key)).header("x-amz-copy-source", &format!("{BUCKET}/source"))
    };
    server.send(copy("kept")).await.expect(200);
    assert_eq!(tags(&server, "kept").await, pairs(&[("a", "1")]));
    let replaced = copy("replaced")
        .header("x-amz-tagging-directive", "REPLACE")
        .header("x-amz-tagging", "b=2");
    server.send(replaced).await.expect(200);
    assert_eq!(tags(&server, "replaced").await, pairs(&[("b", "2")]));
    // Without REPLACE, the request's tags do not count.
    server
        .send(copy("ignored").header("x-amz-tagging", "b=2"))
        .await
        .expect(200);
    assert_eq!(tags(&server, "ignored").await, pairs(&[("a", "1")]));
    let itself = copy("source").header("x-amz-metadata-directive", "REPLACE");
    server.send(itself).await.expect(200);
    assert_eq!(tags(&server, "source").await, pairs(&[("a", "1")]));
    let unknown = copy("unknown").header("x-amz-tagging-directive", "SOME");
    let refused = server.send(unknown).await;
    assert_eq!(refused.verdict(), (400, "InvalidArgument".into()));
}

#[tokio::test]
async fn tags_that_break_a_rule_are_refused_with_the_code_of_s3() {
    let server = Server::start().await;
    server.put("k", b"x").await.expect(200);
    let many: Vec<_> = (0..11).map(|n| format!("k{n}")).collect();
    let many: Vec<_> = many.iter().map(|key| (key.as_str(), "v")).collect();
    let long = "v".repeat(257);
    for (body, code) in [
        (tagging(&many), "BadRequest"),
        (tagging(&[("a", "1"), ("a", "2")]), "InvalidTag"),
        (tagging(&[("", "1")]), "InvalidTag"),
        (tagging(&[("a", &long)]), "InvalidTag"),
        (tagging(&[("aws:a", "1")]), "InvalidTag"),
        (tagging(&[("a?", "1")]), "InvalidTag"),
        ("<Tagging>".to_owned(), "MalformedXML"),
        ("<Tagging/>".to_owned(), "MalformedXML"),
        (String::new(), "MalformedXML"),
    ] {
        let set = Request::put(&format!("{}?tagging", path("k"))).body(body.as_bytes());
        assert_eq!(
            server.send(set).await.verdict(),
            (400, code.into()),
            "{body}"
        );
    }
    for (header, code) in [
        ("a=1&a=2", "InvalidArgument"),
        ("a=%zz", "InvalidArgument"),
        ("aws:a=1", "InvalidTag"),
    ] {
        let put = Request::put(&path("n")).header("x-amz-tagging", header);
        assert_eq!(
            server.send(put).await.verdict(),
            (400, code.into()),
            "{header}"
        );
    }
    assert_eq!(server.get("n").await.status, 404);
    assert_eq!(tags(&server, "k").await, []);
}
