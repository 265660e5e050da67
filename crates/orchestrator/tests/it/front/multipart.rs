//! Multipart uploads through the front.

use base::{ChecksumAlgorithm, Hasher, Md5};

use super::support::{BUCKET, Options, Request, Server, noise, path};

const PART: usize = 5 << 20;

async fn create(server: &Server, key: &str) -> String {
    let target = format!("{}?uploads", path(key));
    let created = server.send(Request::post(&target)).await.expect(200);
    assert_eq!(created.element("Key"), key);
    created.element("UploadId")
}

async fn part(server: &Server, key: &str, upload: &str, number: u32, body: &[u8]) -> String {
    let target = format!("{}?partNumber={number}&uploadId={upload}", path(key));
    let part = server
        .send(Request::put(&target).body(body))
        .await
        .expect(200);
    assert_eq!(
        part.header("etag"),
        format!("\"{}\"", Md5::of(body).to_hex())
    );
    part.header("etag").to_owned()
}

fn complete(key: &str, upload: &str, parts: &[(u32, &str)]) -> Request {
    let mut body = String::from("<CompleteMultipartUpload>");
    for (number, etag) in parts {
        body.push_str(&format!(
            "<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag></Part>"
        ));
    }
    body.push_str("</CompleteMultipartUpload>");
    Request::post(&format!("{}?uploadId={upload}", path(key))).body(body.as_bytes())
}

#[tokio::test]
async fn parts_become_an_object_that_can_be_read_as_a_whole_and_by_part() {
    let server = Server::start().await;
    let upload = create(&server, "big").await;
    let (one, two) = (noise(PART), noise(1000));
    let second = part(&server, "big", &upload, 7, &two).await;
    let first = part(&server, "big", &upload, 3, &one).await;
    let listed = format!("{}?uploadId={upload}", path("big"));
    let parts = server.send(Request::get(&listed)).await.expect(200);
    assert_eq!(parts.elements("PartNumber"), ["3", "7"]);
    assert_eq!(parts.elements("Size"), [PART.to_string(), "1000".into()]);
    let page = server
        .send(Request::get(&format!("{listed}&max-parts=1")))
        .await
        .expect(200);
    assert_eq!(page.element("IsTruncated"), "true");
    assert_eq!(page.element("NextPartNumberMarker"), "3");
    let uploads = server
        .send(Request::get(&format!("/{BUCKET}?uploads")))
        .await
        .expect(200);
    assert_eq!(uploads.elements("UploadId"), std::slice::from_ref(&upload));
    let done = complete("big", &upload, &[(3, &first), (7, &second)]);
    let done = server.send(done).await.expect(200);
    let etag = done.element("ETag").replace("&quot;", "\"");
    assert!(etag.ends_with("-2\""), "{etag}");
    let place = format!("http://{}/{BUCKET}/big", server.addr);
    assert_eq!(done.element("Location"), place);
    let got = server.get("big").await.expect(200);
    assert!(got.body == [one.as_slice(), &two].concat());
    assert_eq!(got.header("etag"), etag);
    let second = format!("{}?partNumber=2", path("big"));
    let got = server.send(Request::get(&second)).await.expect(206);
    assert!(got.body == two);
    assert_eq!(got.header("x-amz-mp-parts-count"), "2");
    let head = server
        .send(Request::head(&format!("{}?partNumber=1", path("big"))))
        .await;
    assert_eq!(head.expect(206).header("content-length"), PART.to_string());
    let third = server
        .send(Request::get(&format!("{}?partNumber=3", path("big"))))
        .await;
    assert_eq!(third.verdict(), (416, "InvalidPartNumber".into()));
}

#[tokio::test]
async fn a_list_that_does_not_fit_the_parts_is_refused_and_the_upload_stays_open() {
    let server = Server::start().await;
    let upload = create(&server, "k").await;
    let small = part(&server, "k", &upload, 1, b"small").await;
    let last = part(&server, "k", &upload, 2, b"last").await;
    for (parts, code) in [
        (
            &[(2, last.as_str()), (1, small.as_str())][..],
            "InvalidPartOrder",
        ),
        (
            &[(1, "\"00000000000000000000000000000000\"")],
            "InvalidPart",
        ),
        (&[(9, small.as_str())], "InvalidPart"),
        (&[(1, small.as_str()), (2, last.as_str())], "EntityTooSmall"),
        (&[], "MalformedXML"),
    ] {
        let answer = server.send(complete("k", &upload, parts)).await;
        assert_eq!(answer.verdict(), (400, code.to_owned()), "{parts:?}");
    }
    let announced =
        |size: &str| complete("k", &upload, &[(1, &small)]).header("x-amz-mp-object-size", size);
    let wrong = server.send(announced("6")).await;
    assert_eq!(wrong.verdict(), (400, "InvalidRequest".into()));
    server.send(announced("5")).await.expect(200);
    assert_eq!(server.get("k").await.text(), "small");
}

#[tokio::test]
async fn parts_have_numbers_up_to_ten_thousand_and_only_the_last_is_small() {
    let server = Server::start().await;
    let upload = create(&server, "k").await;
    for number in ["0", "10001", "65536", "-1", "x"] {
        let target = format!("{}?partNumber={number}&uploadId={upload}", path("k"));
        let refused = server.send(Request::put(&target).body(b"x")).await;
        assert_eq!(
            refused.verdict(),
            (400, "InvalidArgument".into()),
            "{number}"
        );
    }
    let short = part(&server, "k", &upload, 1, &noise(PART - 1)).await;
    let last = part(&server, "k", &upload, 10_000, b"x").await;
    let list = |first: &str| complete("k", &upload, &[(1, first), (10_000, &last)]);
    let refused = server.send(list(&short)).await;
    assert_eq!(refused.verdict(), (400, "EntityTooSmall".into()));
    let enough = part(&server, "k", &upload, 1, &noise(PART)).await;
    server.send(list(&enough)).await.expect(200);
    let whole = [noise(PART), b"x".to_vec()].concat();
    assert!(server.get("k").await.expect(200).body == whole);
}

/// A client that lost the answer asks again, and must not learn that its upload never was.
#[tokio::test]
async fn a_complete_that_is_sent_again_has_the_same_answer_and_changes_nothing() {
    let server = Server::start().await;
    let create = Request::post(&format!("{}?uploads", path("k")));
    let create = create.header("x-amz-checksum-algorithm", "CRC32");
    let upload = server.send(create).await.expect(200).element("UploadId");
    let (one, two) = (noise(PART), b"two");
    let first = part(&server, "k", &upload, 1, &one).await;
    let second = part(&server, "k", &upload, 2, two).await;
    let element = |body: &[u8]| format!("<ChecksumCRC32>{}</ChecksumCRC32>", crc32(body));
    let list = [
        (1, first.as_str(), element(&one)),
        (2, second.as_str(), element(two)),
    ];
    let finish = complete_with("k", &upload, &list).header("if-none-match", "*");
    let done = server.send(finish.clone()).await.expect(200);
    assert!(
        done.element("ChecksumCRC32").ends_with("-2"),
        "{}",
        done.text()
    );
    let before = server.get("k").await.expect(200);
    assert!(before.body == [&one[..], two].concat());
    // The condition was decided when the object came to be: now it would fail.
    for _ in 0..2 {
        let again = server.send(finish.clone()).await.expect(200);
        assert_eq!(again.text(), done.text());
    }
    let after = server.get("k").await.expect(200);
    for name in ["etag", "last-modified"] {
        assert_eq!(after.header(name), before.header(name));
    }
    // Another list is another request, and the upload is open no more.
    let target = format!("{}?uploadId={upload}", path("k"));
    let late = format!("{}?uploadId={upload}&partNumber=1", path("k"));
    for (request, status, code) in [
        (complete_with("k", &upload, &list[..1]), 400, "InvalidPart"),
        (Request::put(&late).body(b"x"), 404, "NoSuchUpload"),
        (Request::get(&target), 404, "NoSuchUpload"),
        (complete_with("other", &upload, &list), 404, "NoSuchUpload"),
    ] {
        assert_eq!(server.send(request).await.verdict(), (status, code.into()));
    }
    let uploads = Request::get(&format!("/{BUCKET}?uploads"));
    assert!(
        server
            .send(uploads)
            .await
            .expect(200)
            .elements("Upload")
            .is_empty()
    );
    // What has become of the key meanwhile stays.
    server.put("k", b"newer").await.expect(200);
    assert_eq!(
        server.send(finish.clone()).await.expect(200).text(),
        done.text()
    );
    assert_eq!(server.get("k").await.text(), "newer");
    server.send(Request::delete(&path("k"))).await.expect(204);
    assert_eq!(
        server.send(finish.clone()).await.expect(200).text(),
        done.text()
    );
    assert_eq!(server.get("k").await.status, 404);
    let (app, dir) = server.into_app();
    app.stop().await.unwrap();
    let config = super::support::configure(dir.path(), &Options::default());
    let server = Server::of(config, dir).await;
    let again = server.send(finish).await.expect(200);
    assert_eq!(again.element("ETag"), done.element("ETag"));
    assert_eq!(server.get("k").await.status, 404);
}

#[tokio::test]
async fn the_last_upload_of_a_part_number_counts_and_the_tags_before_it_are_refused() {
    let server = Server::start().await;
    server.put("from", b"copied").await.expect(200);
    let upload = create(&server, "k").await;
    let big = noise(PART);
    let kept = part(&server, "k", &upload, 1, &big).await;
    let old = part(&server, "k", &upload, 2, b"old").await;
    let target = format!("{}?partNumber=2&uploadId={upload}", path("k"));
    let copy = Request::put(&target).header("x-amz-copy-source", &format!("{BUCKET}/from"));
    let copy = server.send(copy).await.expect(200).element("ETag");
    let copied = copy.replace("&quot;", "\"");
    let new = part(&server, "k", &upload, 2, b"newest").await;
    let listed = Request::get(&format!("{}?uploadId={upload}", path("k")));
    let listed = server.send(listed).await.expect(200);
    assert_eq!(listed.elements("PartNumber"), ["1", "2"]);
    let tags = [&kept, &new].map(|tag| tag.replace('"', "&quot;"));
    assert_eq!(listed.elements("ETag"), tags);
    for stale in [&old, &copied] {
        assert_ne!(*stale, new);
        let refused = complete("k", &upload, &[(1, &kept), (2, stale)]);
        let refused = server.send(refused).await;
        assert_eq!(refused.verdict(), (400, "InvalidPart".into()), "{stale}");
        assert_eq!(server.get("k").await.status, 404, "{stale}");
    }
    let done = complete("k", &upload, &[(1, &kept), (2, &new)]);
    server.send(done).await.expect(200);
    assert!(server.get("k").await.body == [&big[..], b"newest"].concat());
}

#[tokio::test]
async fn an_aborted_upload_is_gone() {
    let server = Server::start().await;
    let upload = create(&server, "k").await;
    let target = format!("{}?uploadId={upload}", path("k"));
    part(&server, "k", &upload, 1, b"x").await;
    server.send(Request::delete(&target)).await.expect(204);
    let gone = (404, "NoSuchUpload".to_owned());
    assert_eq!(server.send(Request::get(&target)).await.verdict(), gone);
    let late = format!("{}?partNumber=1&uploadId={upload}", path("k"));
    assert_eq!(
        server.send(Request::put(&late).body(b"x")).await.verdict(),
        gone
    );
    let elsewhere = format!("{}?uploadId={upload}", path("other"));
    assert_eq!(server.send(Request::get(&elsewhere)).await.verdict(), gone);
}

#[tokio::test]
async fn an_upload_is_aborted_as_often_as_its_client_likes() {
    let server = Server::start().await;
    let upload = create(&server, "k").await;
    part(&server, "k", upload.as_str(), 1, b"x").await;
    let target = format!("{}?uploadId={upload}", path("k"));
    for _ in 0..3 {
        server.send(Request::delete(&target)).await.expect(204);
        let parts = server.send(Request::get(&target)).await;
        assert_eq!(parts.verdict(), (404, "NoSuchUpload".into()));
    }
    // Under another key, and with another's name, there never was one.
    let never = upload.replace(|digit: char| digit.is_ascii_digit(), "1");
    for target in [
        format!("{}?uploadId={upload}", path("other")),
        format!("{}?uploadId={never}", path("k")),
    ] {
        let absent = server.send(Request::delete(&target)).await;
        assert_eq!(absent.verdict(), (404, "NoSuchUpload".into()));
    }
}

#[tokio::test]
async fn parts_are_copied_from_ranges_that_lie_within_their_source() {
    let server = Server::start().await;
    let body = noise(10_000);
    server.put("from", &body).await.expect(200);
    let upload = create(&server, "to").await;
    let target = format!("{}?partNumber=1&uploadId={upload}", path("to"));
    let copy = |range: &str| {
        Request::put(&target)
            .header("x-amz-copy-source", &format!("/{BUCKET}/from"))
            .header("x-amz-copy-source-range", range)
    };
    let beyond = server.send(copy("bytes=9000-10000")).await;
    assert_eq!(beyond.verdict(), (400, "InvalidArgument".into()));
    let copied = server.send(copy("bytes=1000-1999")).await.expect(200);
    let etag = copied.element("ETag").replace("&quot;", "\"");
    server
        .send(complete("to", &upload, &[(1, &etag)]))
        .await
        .expect(200);
    assert!(server.get("to").await.body == body[1000..2000]);
}

#[tokio::test]
async fn a_plus_in_a_copy_source_names_a_key_with_a_blank() {
    let server = Server::start().await;
    server.put("a b", b"blank").await.expect(200);
    server.put("a+b", b"plus").await.expect(200);
    let upload = create(&server, "m").await;
    for (wire, bytes) in [("a+b", "blank"), ("a%20b", "blank"), ("a%2Bb", "plus")] {
        let source = format!("/{BUCKET}/{wire}");
        let copy = Request::put(&path("copy")).header("x-amz-copy-source", &source);
        server.send(copy).await.expect(200);
        assert_eq!(server.get("copy").await.text(), bytes, "{wire}");
        let part = format!("{}?partNumber=1&uploadId={upload}", path("m"));
        let part = Request::put(&part).header("x-amz-copy-source", &source);
        let etag = server.send(part).await.expect(200).element("ETag");
        let whole = server.get("copy").await.header("etag").to_owned();
        assert_eq!(etag.replace("&quot;", "\""), whole, "{wire}");
    }
}

#[tokio::test]
async fn conditions_on_a_source_come_before_its_range() {
    let server = Server::start().await;
    let put = server.put("from", b"hello").await.expect(200);
    let upload = create(&server, "to").await;
    let target = format!("{}?partNumber=1&uploadId={upload}", path("to"));
    let copy = |condition: &str, value: &str| {
        Request::put(&target)
            .header("x-amz-copy-source", &format!("/{BUCKET}/from"))
            .header("x-amz-copy-source-range", "bytes=0-9")
            .header(condition, value)
    };
    for failing in [
        copy("x-amz-copy-source-if-match", "\"other\""),
        copy("x-amz-copy-source-if-none-match", put.header("etag")),
    ] {
        let refused = server.send(failing).await;
        assert_eq!(refused.verdict(), (412, "PreconditionFailed".into()));
    }
    let holding = copy("x-amz-copy-source-if-match", put.header("etag"));
    let refused = server.send(holding).await;
    assert_eq!(refused.verdict(), (400, "InvalidArgument".into()));
}

fn crc32(body: &[u8]) -> String {
    let mut hasher = Hasher::new(ChecksumAlgorithm::Crc32);
    hasher.update(body);
    hasher.finish().to_base64()
}

/// A list of parts of which some have a checksum: number, entity tag, checksum element.
fn complete_with(key: &str, upload: &str, parts: &[(u32, &str, String)]) -> Request {
    let parts: String = parts
        .iter()
        .map(|(number, etag, sum)| {
            format!("<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag>{sum}</Part>")
        })
        .collect();
    let body = format!("<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>");
    Request::post(&format!("{}?uploadId={upload}", path(key))).body(body.as_bytes())
}

#[tokio::test]
async fn an_announced_checksum_is_kept_for_the_object_and_its_parts() {
    let server = Server::start().await;
    let target = format!("{}?uploads", path("k"));
    let create = Request::post(&target).header("x-amz-checksum-algorithm", "CRC32");
    let created = server.send(create).await.expect(200);
    assert_eq!(created.header("x-amz-checksum-algorithm"), "CRC32");
    assert_eq!(created.header("x-amz-checksum-type"), "COMPOSITE");
    let upload = created.element("UploadId");
    let bodies = [noise(PART), noise(9)];
    let mut etags = Vec::new();
    for (number, body) in (1..).zip(&bodies) {
        let target = format!("{}?partNumber={number}&uploadId={upload}", path("k"));
        let put = Request::put(&target)
            .body(body)
            .header("x-amz-checksum-crc32", &crc32(body));
        let put = server.send(put).await.expect(200);
        assert_eq!(put.header("x-amz-checksum-crc32"), crc32(body));
        etags.push(put.header("etag").to_owned());
    }
    let element = |sum: &str| format!("<ChecksumCRC32>{sum}</ChecksumCRC32>");
    let list = |second: String| {
        let first = element(&crc32(&bodies[0]));
        complete_with(
            "k",
            &upload,
            &[(1, &etags[0], first), (2, &etags[1], second)],
        )
    };
    let wrong = crc32(b"other");
    let right = crc32(&bodies[1]);
    for (second, code) in [
        (String::new(), "InvalidRequest"),
        (element("nonsense"), "InvalidRequest"),
        (element(&right).repeat(2), "MalformedXML"),
        (
            format!(
                "{}<ChecksumSHA1>{}</ChecksumSHA1>",
                element(&right),
                "A".repeat(27) + "="
            ),
            "InvalidRequest",
        ),
        (element(&wrong), "InvalidPart"),
    ] {
        let refused = server.send(list(second.clone())).await;
        assert_eq!(refused.verdict(), (400, code.into()), "{second}");
        if second.is_empty() {
            assert!(refused.element("Message").contains("crc32 checksum"));
            assert!(refused.element("Message").contains("part 2 "));
        }
    }
    let done = server.send(list(element(&right))).await.expect(200);
    let whole = done.element("ChecksumCRC32");
    assert!(whole.ends_with("-2"), "{}", done.text());
    let ask = |request: Request| request.header("x-amz-checksum-mode", "ENABLED");
    let head = server
        .send(ask(Request::head(&path("k"))))
        .await
        .expect(200);
    assert_eq!(head.header("x-amz-checksum-crc32"), whole);
    assert_eq!(head.header("x-amz-checksum-type"), "COMPOSITE");
    for (number, body) in (1..).zip(&bodies) {
        let target = format!("{}?partNumber={number}", path("k"));
        for request in [Request::head(&target), Request::get(&target)] {
            let part = server.send(ask(request)).await.expect(206);
            assert_eq!(part.header("x-amz-checksum-crc32"), crc32(body));
            assert_eq!(part.header("x-amz-checksum-type"), "COMPOSITE");
        }
    }
}

#[tokio::test]
async fn copies_tell_their_checksum() {
    let server = Server::start().await;
    let body = noise(1000);
    let put = Request::put(&path("from"))
        .body(&body)
        .header("x-amz-checksum-crc32", &crc32(&body));
    server.send(put).await.expect(200);
    let source = format!("/{BUCKET}/from");
    let copy = Request::put(&path("to")).header("x-amz-copy-source", &source);
    let copied = server.send(copy).await.expect(200);
    assert_eq!(copied.element("ChecksumCRC32"), crc32(&body));
    assert_eq!(copied.element("ChecksumType"), "FULL_OBJECT");
    let target = format!("{}?uploads", path("k"));
    let create = Request::post(&target).header("x-amz-checksum-algorithm", "CRC32");
    let upload = server.send(create).await.expect(200).element("UploadId");
    let target = format!("{}?partNumber=1&uploadId={upload}", path("k"));
    let copy = Request::put(&target)
        .header("x-amz-copy-source", &source)
        .header("x-amz-copy-source-range", "bytes=10-99");
    let copied = server.send(copy).await.expect(200);
    assert_eq!(copied.element("ChecksumCRC32"), crc32(&body[10..100]));
    assert!(copied.elements("ChecksumType").is_empty());
}

#[tokio::test]
async fn a_bucket_has_only_so_many_open_uploads() {
    let server = Server::with(Options {
        bucket: "    max_multipart_uploads: 1",
        ..Options::default()
    })
    .await;
    create(&server, "one").await;
    let refused = server
        .send(Request::post(&format!("{}?uploads", path("two"))))
        .await;
    assert_eq!(refused.verdict(), (503, "SlowDown".into()));
    assert_eq!(refused.header("retry-after"), "1");
}

#[tokio::test]
async fn parts_are_listed_in_pages() {
    let server = Server::start().await;
    let upload = create(&server, "k").await;
    for number in [9, 1, 4, 2] {
        part(&server, "k", &upload, number, b"part").await;
    }
    let mut marker = "0".to_owned();
    let mut found = Vec::new();
    loop {
        let query = format!("uploadId={upload}&max-parts=3&part-number-marker={marker}");
        let page = server
            .send(Request::get(&format!("{}?{query}", path("k"))))
            .await
            .expect(200);
        assert_eq!(page.element("MaxParts"), "3");
        assert_eq!(page.element("PartNumberMarker"), marker);
        assert!(page.elements("Size").iter().all(|size| size == "4"));
        found.extend(page.elements("PartNumber"));
        if page.element("IsTruncated") == "false" {
            break;
        }
        marker = page.element("NextPartNumberMarker");
    }
    assert_eq!(found, ["1", "2", "4", "9"]);
    let none = format!("{}?uploadId={upload}&max-parts=0", path("k"));
    let none = server.send(Request::get(&none)).await.expect(200);
    assert!(none.elements("PartNumber").is_empty());
    assert_eq!(none.element("IsTruncated"), "false");
}

#[tokio::test]
async fn uploads_are_listed_and_walked_in_pages() {
    let server = Server::start().await;
    let mut expected = Vec::new();
    for key in ["a", "a", "b/x", "b/y", "c"] {
        expected.push((key.to_owned(), create(&server, key).await));
    }
    expected.sort();
    let (mut key, mut id) = (String::new(), String::new());
    let mut found = Vec::new();
    loop {
        let query = format!("uploads&max-uploads=2&key-marker={key}&upload-id-marker={id}");
        let page = server
            .send(Request::get(&format!("/{BUCKET}?{query}")))
            .await
            .expect(200);
        let (keys, ids) = (page.elements("Key"), page.elements("UploadId"));
        found.extend(keys.into_iter().zip(ids));
        if page.element("IsTruncated") == "false" {
            break;
        }
        key = page.element("NextKeyMarker").replace('/', "%2F");
        id = page.element("NextUploadIdMarker");
    }
    assert_eq!(found, expected);
    let rolled = format!("/{BUCKET}?uploads&delimiter=/&prefix=");
    let rolled = server.send(Request::get(&rolled)).await.expect(200);
    assert_eq!(rolled.elements("Key"), ["a", "a", "c"]);
    assert!(
        rolled
            .text()
            .contains("<CommonPrefixes><Prefix>b/</Prefix></CommonPrefixes>")
    );
}

#[tokio::test]
async fn parts_without_an_algorithm_make_an_object_with_our_checksum() {
    let server = Server::start().await;
    let upload = create(&server, "k").await;
    let (one, two) = (noise(PART), noise(1000));
    let sum = |algorithm, bytes: &[u8]| {
        let mut hasher = Hasher::new(algorithm);
        hasher.update(bytes);
        hasher.finish().to_base64()
    };
    let target = |number| format!("{}?partNumber={number}&uploadId={upload}", path("k"));
    // A checksum that only the part has is compared, and is no checksum of the upload.
    let crc32 = sum(ChecksumAlgorithm::Crc32, &one);
    let put = Request::put(&target(1))
        .body(&one)
        .header("x-amz-checksum-crc32", &crc32);
    let first = server.send(put).await.expect(200).header("etag").to_owned();
    let second = part(&server, "k", &upload, 2, &two).await;
    let listed = Request::get(&format!("{}?uploadId={upload}", path("k")));
    let listed = server.send(listed).await.expect(200);
    assert!(!listed.text().contains("Checksum"), "{}", listed.text());
    let done = complete("k", &upload, &[(1, &first), (2, &second)]);
    let done = server.send(done).await.expect(200);
    let whole = sum(ChecksumAlgorithm::Crc64Nvme, &[one, two].concat());
    assert_eq!(done.element("ChecksumCRC64NVME"), whole);
    assert_eq!(done.element("ChecksumType"), "FULL_OBJECT");
    let asked = Request::head(&path("k")).header("x-amz-checksum-mode", "ENABLED");
    let head = server.send(asked).await.expect(200);
    assert_eq!(head.header("x-amz-checksum-crc64nvme"), whole);
    let told = Request::get(&format!("{}?attributes", path("k")))
        .header("x-amz-object-attributes", "ObjectParts");
    let told = server.send(told).await.expect(200);
    assert!(!told.text().contains("ChecksumCRC32"), "{}", told.text());
}
