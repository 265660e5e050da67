//! GetObjectAttributes and access control lists, end to end.

use super::support::{BUCKET, Request, Server, path};

fn attributes(key: &str, wanted: &str) -> Request {
    Request::get(&format!("{}?attributes", path(key))).header("x-amz-object-attributes", wanted)
}

#[tokio::test]
async fn attributes_are_those_that_were_asked_for() {
    let server = Server::start().await;
    let put = Request::put(&path("k"))
        .body(b"hello")
        .header("x-amz-checksum-crc32", "NhCmhg==");
    let etag = server.send(put).await.expect(200).header("etag").to_owned();
    let all = "ETag,Checksum,ObjectParts,StorageClass,ObjectSize";
    let answer = server.send(attributes("k", all)).await.expect(200);
    assert_eq!(answer.element("ETag"), etag.trim_matches('"'));
    assert_eq!(answer.element("ChecksumCRC32"), "NhCmhg==");
    assert_eq!(answer.element("ChecksumType"), "FULL_OBJECT");
    assert_eq!(answer.element("StorageClass"), "STANDARD");
    assert_eq!(answer.element("ObjectSize"), "5");
    assert!(!answer.text().contains("ObjectParts"));
    assert!(!answer.header("last-modified").is_empty());
    let answer = server.send(attributes("k", "ObjectSize")).await.expect(200);
    assert!(!answer.text().contains("ETag") && !answer.text().contains("Checksum"));
    for (request, status, code) in [
        (attributes("absent", "ETag"), 404, "NoSuchKey"),
        (attributes("k", "Owner"), 400, "InvalidArgument"),
        (
            attributes("k", "ETag").header("x-amz-max-parts", "x"),
            400,
            "InvalidArgument",
        ),
        (
            attributes("k", "ETag").header("if-match", "\"other\""),
            412,
            "PreconditionFailed",
        ),
    ] {
        assert_eq!(server.send(request).await.verdict(), (status, code.into()));
    }
}

#[tokio::test]
async fn parts_with_checksums_are_told_in_pages() {
    let server = Server::start().await;
    let created = Request::post(&format!("{}?uploads", path("m")))
        .header("x-amz-checksum-algorithm", "CRC32");
    let upload = server.send(created).await.expect(200).element("UploadId");
    let mut list = String::new();
    let big = vec![b'a'; 5 << 20];
    for (number, body) in [(1, &big[..]), (3, &big[..]), (9, b"end")] {
        let target = format!("{}?partNumber={number}&uploadId={upload}", path("m"));
        let part = server
            .send(Request::put(&target).body(body))
            .await
            .expect(200);
        list.push_str(&format!(
            "<Part><PartNumber>{number}</PartNumber><ETag>{}</ETag><ChecksumCRC32>{}</ChecksumCRC32></Part>",
            part.header("etag"),
            part.header("x-amz-checksum-crc32")
        ));
    }
    let list = format!("<CompleteMultipartUpload>{list}</CompleteMultipartUpload>");
    let complete = format!("{}?uploadId={upload}", path("m"));
    let complete = Request::post(&complete).body(list.as_bytes());
    server.send(complete).await.expect(200);
    let paged = attributes("m", "ObjectParts,Checksum,ObjectSize").header("x-amz-max-parts", "2");
    let first = server.send(paged.clone()).await.expect(200);
    assert_eq!(first.element("PartsCount"), "3");
    assert_eq!(first.elements("PartNumber"), ["1", "3"]);
    assert_eq!(first.element("IsTruncated"), "true");
    assert_eq!(first.element("NextPartNumberMarker"), "3");
    assert_eq!(
        first.element("ObjectSize"),
        (10 * (1 << 20) + 3).to_string()
    );
    let checksums = first.elements("ChecksumCRC32");
    assert_eq!(checksums.len(), 3, "{}", first.text());
    assert!(checksums.iter().all(|text| !text.contains('-')));
    let rest = paged.header("x-amz-part-number-marker", "3");
    let rest = server.send(rest).await.expect(200);
    assert_eq!(rest.elements("PartNumber"), ["9"]);
    assert_eq!(rest.elements("Size"), ["3"]);
    assert_eq!(rest.element("IsTruncated"), "false");
}

#[tokio::test]
async fn everything_is_private_and_nothing_else_is_taken() {
    let server = Server::start().await;
    server.put("k", b"x").await.expect(200);
    for target in [format!("/{BUCKET}?acl"), format!("{}?acl", path("k"))] {
        let list = server.send(Request::get(&target)).await.expect(200);
        assert_eq!(list.elements("Permission"), ["FULL_CONTROL"]);
        let named = Request::put(&target).header("x-amz-acl", "private");
        server.send(named).await.expect(200);
        let whole = Request::put(&target).body(&list.body);
        server.send(whole).await.expect(200);
        let open = list.text().replace("FULL_CONTROL", "READ");
        for (request, status, code) in [
            (
                Request::put(&target).header("x-amz-acl", "public-read"),
                501,
                "NotImplemented",
            ),
            (
                Request::put(&target).header("x-amz-grant-read", "id=1"),
                501,
                "NotImplemented",
            ),
            (
                Request::put(&target).body(open.as_bytes()),
                501,
                "NotImplemented",
            ),
            (Request::put(&target).body(b"<Acl/>"), 400, "MalformedXML"),
            (Request::put(&target), 400, "MissingSecurityHeader"),
            (
                Request::put(&target)
                    .header("x-amz-acl", "private")
                    .body(&list.body),
                400,
                "InvalidRequest",
            ),
        ] {
            let answer = server.send(request).await;
            assert_eq!(answer.verdict(), (status, code.into()), "{target}");
        }
    }
    let absent = server
        .send(Request::get(&format!("{}?acl", path("absent"))))
        .await;
    assert_eq!(absent.verdict(), (404, "NoSuchKey".into()));
}
