//! Conditions on the source of a copy: CopyObject and UploadPartCopy, each alone and together.

use super::support::{BUCKET, Request, Server, path};

const BODY: &[u8] = b"the source of it all";
const PAST: &str = "Fri, 24 May 2013 00:00:00 GMT";
const FUTURE: &str = "Sun, 24 May 2093 00:00:00 GMT";

/// Conditions without what their names have in common, and whether the copy happens.
type Row<'a> = (&'a [(&'a str, &'a str)], bool);

fn from_source(target: &str) -> Request {
    Request::put(target).header("x-amz-copy-source", &format!("{BUCKET}/from"))
}

/// A key and an upload that copies go to.
struct Targets<'a> {
    server: &'a Server,
    upload: String,
}

impl<'a> Targets<'a> {
    async fn new(server: &'a Server) -> Self {
        let create = Request::post(&format!("{}?uploads", path("parts")));
        let upload = server.send(create).await.expect(200).element("UploadId");
        Self { server, upload }
    }

    /// A copy of everything, a part of everything and a part of some of it, each with its bytes.
    fn copies(&self) -> [(Request, &'static str, &'static [u8]); 3] {
        let target = format!("{}?partNumber=1&uploadId={}", path("parts"), self.upload);
        let some = from_source(&target).header("x-amz-copy-source-range", "bytes=4-9");
        [
            (from_source(&path("to")), "CopyObject", BODY),
            (from_source(&target), "UploadPartCopy", BODY),
            (some, "UploadPartCopy of a range", b"source"),
        ]
    }

    /// The entity tags of what is there.
    async fn found(&self) -> Vec<String> {
        let head = self.server.send(Request::head(&path("to"))).await;
        let list = format!("{}?uploadId={}", path("parts"), self.upload);
        let list = self.server.send(Request::get(&list)).await.expect(200);
        let mut found = list.elements("ETag");
        found.extend((head.status == 200).then(|| head.header("etag").replace('"', "&quot;")));
        found
    }

    async fn clear(self) {
        let upload = format!("{}?uploadId={}", path("parts"), self.upload);
        for target in [upload, path("to")] {
            self.server.send(Request::delete(&target)).await.expect(204);
        }
    }
}

#[tokio::test]
async fn conditions_on_the_source_decide_copies_of_objects_and_of_parts() {
    let server = Server::start().await;
    server.put("from", BODY).await.expect(200);
    let source = server.get("from").await.expect(200);
    let (same, at) = (source.header("etag"), source.header("last-modified"));
    let other = "\"0123456789abcdef0123456789abcdef\"";
    let list = format!("{other}, {same}");
    let unquoted = same.trim_matches('"');
    let table: &[Row<'_>] = &[
        (&[], true),
        (&[("if-match", same)], true),
        (&[("if-match", unquoted)], true),
        (&[("if-match", &list)], true),
        (&[("if-match", "*")], true),
        (&[("if-match", other)], false),
        (&[("if-none-match", same)], false),
        (&[("if-none-match", unquoted)], false),
        (&[("if-none-match", &list)], false),
        (&[("if-none-match", "*")], false),
        (&[("if-none-match", other)], true),
        (&[("if-modified-since", PAST)], true),
        (&[("if-modified-since", at)], false),
        (&[("if-modified-since", FUTURE)], false),
        (&[("if-modified-since", "yesterday")], true),
        (&[("if-unmodified-since", PAST)], false),
        (&[("if-unmodified-since", at)], true),
        (&[("if-unmodified-since", FUTURE)], true),
        (&[("if-unmodified-since", "yesterday")], true),
        // Amazon S3 API reference, CopyObject: where both are there, the entity tag alone counts.
        (&[("if-match", same), ("if-unmodified-since", PAST)], true),
        (
            &[("if-match", other), ("if-unmodified-since", FUTURE)],
            false,
        ),
        (
            &[("if-none-match", same), ("if-modified-since", PAST)],
            false,
        ),
        (
            &[("if-none-match", other), ("if-modified-since", FUTURE)],
            true,
        ),
        // Conditions that do not go together have to hold all of them.
        (&[("if-match", same), ("if-none-match", other)], true),
        (&[("if-match", same), ("if-none-match", same)], false),
        (&[("if-match", same), ("if-modified-since", FUTURE)], false),
        (
            &[("if-modified-since", PAST), ("if-unmodified-since", FUTURE)],
            true,
        ),
        (
            &[("if-modified-since", PAST), ("if-unmodified-since", PAST)],
            false,
        ),
    ];
    for (conditions, holds) in table {
        let targets = Targets::new(&server).await;
        for (copy, what, bytes) in targets.copies() {
            let request = conditions.iter().fold(copy, |request, (name, value)| {
                request.header(&format!("x-amz-copy-source-{name}"), value)
            });
            let answer = server.send(request).await;
            let what = format!("{what} {conditions:?}: {}", answer.text());
            if *holds {
                assert_eq!(answer.status, 200, "{what}");
                let etag = format!("&quot;{}&quot;", base::Md5::of(bytes).to_hex());
                assert_eq!(answer.element("ETag"), etag, "{what}");
                assert!(targets.found().await.contains(&etag), "{what}");
                continue;
            }
            assert_eq!(
                answer.verdict(),
                (412, "PreconditionFailed".into()),
                "{what}"
            );
            assert!(targets.found().await.is_empty(), "{what}");
            if let [(name, _)] = conditions {
                let named = answer.element("Condition").to_lowercase();
                assert_eq!(named, format!("x-amz-copy-source-{name}"), "{what}");
            }
        }
        targets.clear().await;
    }
}

#[tokio::test]
async fn a_source_that_is_not_there_is_absent_whatever_is_asked_of_it() {
    let server = Server::start().await;
    let targets = Targets::new(&server).await;
    for (name, value) in [
        ("if-match", "*"),
        ("if-none-match", "*"),
        ("if-modified-since", FUTURE),
        ("if-unmodified-since", PAST),
    ] {
        for (copy, what, _) in targets.copies() {
            let copy = copy.header(&format!("x-amz-copy-source-{name}"), value);
            let answer = server.send(copy).await;
            assert_eq!(answer.verdict(), (404, "NoSuchKey".into()), "{what} {name}");
        }
    }
}

#[tokio::test]
async fn the_source_and_the_target_each_have_conditions_of_their_own() {
    let server = Server::start().await;
    let put = server.put("from", BODY).await.expect(200);
    let source = put.header("etag");
    let old = server.put("to", b"old").await.expect(200);
    let target = old.header("etag");
    let of_source = "x-amz-copy-source-if-match";
    for (on_source, name, on_target) in [
        (source, "if-none-match", "*"),
        (source, "if-match", source),
        (target, "if-match", target),
    ] {
        let copy = from_source(&path("to"));
        let copy = copy.header(of_source, on_source).header(name, on_target);
        let refused = server.send(copy).await;
        assert_eq!(
            refused.verdict(),
            (412, "PreconditionFailed".into()),
            "{name}"
        );
        assert_eq!(server.get("to").await.text(), "old", "{name}");
    }
    let copy = from_source(&path("to"));
    let copy = copy.header(of_source, source).header("if-match", target);
    server.send(copy).await.expect(200);
    assert_eq!(server.get("to").await.body, BODY);
}
