//! Round trips, golden documents, and documents that are meant to hurt.

use base::{BucketName, Checksum, ChecksumAlgorithm, ChecksumKind, ETag, Timestamp};
use proptest::prelude::{prop_assert_eq, proptest};

use super::*;
use crate::headers::{ObjectChecksum, UploadChecksum};
use crate::op::{Encoding, FetchOwner};
use crate::{Error, ErrorCode};

const TIME: Timestamp = Timestamp::from_millis(1_369_353_600_123);
const KEYS: [&str; 9] = [
    "a",
    "a//b",
    "../x",
    "%2F",
    "a b+c",
    "<&>\"'",
    "\u{1}\r\n\t\u{7f}",
    " ä ",
    "\u{fffe}]]>",
];

fn crc32() -> Checksum {
    Checksum::from_base64(ChecksumAlgorithm::Crc32, "AAAAAA==").unwrap()
}

#[test]
fn listings_of_odd_keys_read_back() {
    for encoding in [Encoding::None, Encoding::Url] {
        let page = ObjectsPageV2 {
            bucket: "b".into(),
            prefix: "<".into(),
            delimiter: Some("/".into()),
            start_after: Some(" ".into()),
            continuation_token: Some("t&".into()),
            next_continuation_token: Some("n".into()),
            max_keys: 1000,
            is_truncated: true,
            encoding,
            fetch_owner: FetchOwner::Include,
            entries: KEYS.map(objects::entry).to_vec(),
            common_prefixes: KEYS.map(str::to_owned).to_vec(),
        };
        assert_eq!(
            ObjectsPageV2::from_xml(page.to_xml().as_bytes()).unwrap(),
            page
        );
    }
    let page = ObjectsPageV2 {
        bucket: "b".into(),
        ..ObjectsPageV2::default()
    };
    assert_eq!(
        ObjectsPageV2::from_xml(page.to_xml().as_bytes()).unwrap(),
        page
    );
}

#[test]
fn the_listing_looks_as_clients_expect_it() {
    let page = ObjectsPageV1 {
        bucket: "b".into(),
        prefix: "p/".into(),
        delimiter: Some("/".into()),
        marker: "p".into(),
        next_marker: Some("p/c d/".into()),
        max_keys: 2,
        is_truncated: true,
        encoding: Encoding::Url,
        entries: vec![ObjectEntry {
            key: "p/a+b".into(),
            size: 3,
            etag: Some(ETag::new("e")),
            last_modified: TIME,
            checksum: None,
        }],
        common_prefixes: vec!["p/c d/".into()],
    };
    let expected = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
        <ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Name>b</Name>\
        <Prefix>p/</Prefix><Marker>p</Marker><NextMarker>p/c%20d/</NextMarker>\
        <Delimiter>/</Delimiter><MaxKeys>2</MaxKeys><IsTruncated>true</IsTruncated>\
        <EncodingType>url</EncodingType><Contents><Key>p/a%2Bb</Key>\
        <LastModified>2013-05-24T00:00:00.123Z</LastModified><ETag>&quot;e&quot;</ETag>\
        <Size>3</Size><Owner><ID>s3-orchestrator</ID><DisplayName>s3-orchestrator</DisplayName>\
        </Owner><StorageClass>STANDARD</StorageClass></Contents>\
        <CommonPrefixes><Prefix>p/c%20d/</Prefix></CommonPrefixes></ListBucketResult>";
    assert_eq!(page.to_xml(), expected);
}

#[test]
fn a_page_that_hides_where_it_goes_on_is_refused() {
    let page = ObjectsPageV2 {
        is_truncated: true,
        ..ObjectsPageV2::default()
    };
    assert!(matches!(
        ObjectsPageV2::from_xml(page.to_xml().as_bytes()),
        Err(XmlError::Missing {
            element: "NextContinuationToken"
        })
    ));
    let page = UploadsPage {
        is_truncated: true,
        ..UploadsPage::default()
    };
    assert!(UploadsPage::from_xml(page.to_xml().as_bytes()).is_err());
    let page = PartsPage {
        is_truncated: true,
        ..PartsPage::default()
    };
    assert!(PartsPage::from_xml(page.to_xml().as_bytes()).is_err());
    let versions = b"<ListVersionsResult><IsTruncated>true</IsTruncated></ListVersionsResult>";
    assert!(VersionsPage::from_xml(versions).is_err());
}

#[test]
fn a_page_that_does_not_say_whether_it_is_the_last_is_refused() {
    assert!(ObjectsPageV2::from_xml(b"<ListBucketResult></ListBucketResult>").is_err());
    assert!(VersionsPage::from_xml(b"<ListVersionsResult></ListVersionsResult>").is_err());
    let uploads = b"<ListMultipartUploadsResult></ListMultipartUploadsResult>";
    assert!(UploadsPage::from_xml(uploads).is_err());
}

#[test]
fn uploads_and_parts_read_back() {
    let checksum = UploadChecksum {
        algorithm: ChecksumAlgorithm::Crc32,
        kind: ChecksumKind::FullObject,
    };
    for encoding in [Encoding::None, Encoding::Url] {
        let uploads = UploadsPage {
            bucket: "b".into(),
            prefix: "p".into(),
            delimiter: Some("/".into()),
            key_marker: "k m".into(),
            upload_id_marker: "u".into(),
            next_key_marker: Some("n m".into()),
            next_upload_id_marker: Some("v".into()),
            max_uploads: 10,
            is_truncated: true,
            encoding,
            entries: KEYS
                .map(|key| UploadEntry {
                    key: key.into(),
                    upload_id: "u&".into(),
                    initiated: TIME,
                    checksum: Some(checksum),
                })
                .to_vec(),
            common_prefixes: vec!["c d".into()],
        };
        assert_eq!(
            UploadsPage::from_xml(uploads.to_xml().as_bytes()).unwrap(),
            uploads
        );
        let parts = PartsPage {
            bucket: "b".into(),
            key: "a b".into(),
            upload_id: "u".into(),
            part_number_marker: 1,
            next_part_number_marker: Some(3),
            max_parts: 2,
            is_truncated: true,
            checksum: Some(checksum),
            encoding,
            parts: [2, 3]
                .map(|number: u64| PartEntry {
                    part: number.try_into().unwrap(),
                    etag: ETag::new("e"),
                    size: number,
                    last_modified: TIME,
                    checksum: Some(crc32()),
                })
                .to_vec(),
        };
        assert_eq!(
            PartsPage::from_xml(parts.to_xml().as_bytes()).unwrap(),
            parts
        );
    }
    let started = UploadStarted {
        bucket: "b".into(),
        key: "<k>".into(),
        upload_id: "u".into(),
    };
    assert_eq!(
        UploadStarted::from_xml(started.to_xml().as_bytes()).unwrap(),
        started
    );
    let nameless = UploadStarted {
        upload_id: String::new(),
        ..started
    };
    assert!(UploadStarted::from_xml(nameless.to_xml().as_bytes()).is_err());
}

#[test]
fn a_part_with_a_checksum_that_is_not_built_is_refused() {
    for element in ["ChecksumMD5", "ChecksumSHA512", "ChecksumXXHASH3"] {
        let body = format!(
            "<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>e</ETag><{element}>AAAA</{element}></Part></CompleteMultipartUpload>"
        );
        let error = parse_complete(body.as_bytes()).unwrap_err();
        assert_eq!(error.code, ErrorCode::NotImplemented, "{element}");
    }
}

fn parts(numbers: &[u64]) -> Vec<CompletePart> {
    numbers
        .iter()
        .map(|number| CompletePart {
            part: (*number).try_into().unwrap(),
            etag: ETag::new("e"),
            checksum: (number % 2 == 0).then(crc32),
        })
        .collect()
}

#[test]
fn part_lists_ascend_and_read_back() {
    let list = parts(&[1, 2, 5, 10_000]);
    assert_eq!(parse_complete(print_complete(&list).as_bytes()), Ok(list));
    let all: Vec<u64> = (1..=10_000).collect();
    assert_eq!(
        parse_complete(print_complete(&parts(&all)).as_bytes())
            .unwrap()
            .len(),
        10_000
    );

    let code = |body: &str| parse_complete(body.as_bytes()).unwrap_err().code;
    assert_eq!(
        code(&print_complete(&parts(&[2, 1]))),
        ErrorCode::InvalidPartOrder
    );
    assert_eq!(
        code(&print_complete(&parts(&[1, 1]))),
        ErrorCode::InvalidPartOrder
    );
    assert_eq!(code(&print_complete(&[])), ErrorCode::MalformedXml);
    let one = |inner: &str| {
        code(&format!(
            "<CompleteMultipartUpload><Part>{inner}</Part></CompleteMultipartUpload>"
        ))
    };
    let tag = "<ETag>e</ETag>";
    assert_eq!(
        one(&format!("{tag}<PartNumber>0</PartNumber>")),
        ErrorCode::InvalidArgument
    );
    assert_eq!(
        one(&format!("{tag}<PartNumber>10001</PartNumber>")),
        ErrorCode::InvalidArgument
    );
    assert_eq!(
        one(&format!("{tag}<PartNumber>x</PartNumber>")),
        ErrorCode::MalformedXml
    );
    assert_eq!(one(tag), ErrorCode::MalformedXml);
    assert_eq!(one("<PartNumber>1</PartNumber>"), ErrorCode::MalformedXml);
    let sums = "<ChecksumCRC32>AAAAAA==</ChecksumCRC32><ChecksumCRC32C>AAAAAA==</ChecksumCRC32C>";
    let both = format!("{tag}<PartNumber>1</PartNumber>{sums}");
    assert_eq!(one(&both), ErrorCode::InvalidRequest);
}

#[test]
fn a_success_may_turn_out_to_be_an_error() {
    let done = CompleteResult {
        location: "http://h/b/k".into(),
        bucket: "b".into(),
        key: "k".into(),
        etag: ETag::new("e-2"),
        checksum: Some(ObjectChecksum {
            checksum: crc32(),
            parts: Some(2),
        }),
        kind: Some(ChecksumKind::Composite),
    };
    let document = done.to_xml();
    // Servers send whitespace while they work, most of them behind the declaration.
    let kept_alive = document.replacen(DECLARATION, &format!("{DECLARATION}  \n  "), 1);
    for text in [document.clone(), kept_alive, format!("   \n{document}")] {
        assert_eq!(
            CompleteResult::from_xml(text.as_bytes()).unwrap(),
            LateResponse::Done(done.clone())
        );
    }
    let error = ErrorDocument {
        code: "InternalError".into(),
        message: "<sorry>".into(),
        details: Vec::new(),
        resource: "/b/k".into(),
        request_id: "r".into(),
        host_id: "h".into(),
    };
    let detailed = ErrorDocument {
        details: vec![("Key", "a<\u{1}&".into())],
        ..error.clone()
    };
    assert!(
        detailed
            .to_xml()
            .contains("</Message><Key>a&lt;&#x1;&amp;</Key><Resource>")
    );
    let text = error.to_xml();
    assert_eq!(ErrorDocument::from_xml(text.as_bytes()).unwrap(), error);
    assert_eq!(
        CompleteResult::from_xml(text.as_bytes()).unwrap(),
        LateResponse::Refused(error.clone())
    );
    for root in [CopyRoot::Object, CopyRoot::Part] {
        let copy = CopyResult {
            etag: ETag::new("e"),
            last_modified: TIME,
            checksum: None,
            kind: (root == CopyRoot::Object).then_some(ChecksumKind::FullObject),
        };
        let read = CopyResult::from_xml(copy.to_xml(root).as_bytes(), root).unwrap();
        assert_eq!(read, LateResponse::Done(copy));
        let refused = CopyResult::from_xml(text.as_bytes(), root).unwrap();
        assert_eq!(refused, LateResponse::Refused(error.clone()));
    }
    assert!(matches!(
        CompleteResult::from_xml(b"<html></html>"),
        Err(XmlError::WrongRoot {
            expected: "CompleteMultipartUploadResult"
        })
    ));
    assert!(ErrorDocument::from_xml(b"").is_err());
}

#[test]
fn deletes_read_back_and_are_bounded() {
    let body = Delete::print(
        KEYS.iter()
            .map(|key| (*key, None))
            .chain([("v", Some("id"))]),
    );
    let delete = Delete::from_xml(body.as_bytes()).unwrap();
    assert!(delete.quiet);
    let keys: Vec<_> = delete.items.iter().map(|item| item.key.as_str()).collect();
    assert_eq!(keys[..KEYS.len()], KEYS);
    assert_eq!(
        delete.items.last().unwrap().version_id.as_deref(),
        Some("id")
    );

    let many = |count: usize| Delete::print(vec![("k", None); count]);
    assert_eq!(
        Delete::from_xml(many(1000).as_bytes()).unwrap().items.len(),
        1000
    );
    let code = |body: &str| Delete::from_xml(body.as_bytes()).unwrap_err().code;
    assert_eq!(code(&many(1001)), ErrorCode::MalformedXml);
    assert_eq!(code(&many(0)), ErrorCode::MalformedXml);
    assert_eq!(
        code(&" ".repeat((2 << 20) + 1)),
        ErrorCode::MaxMessageLengthExceeded
    );
    let object = |inner: &str| code(&format!("<Delete><Object>{inner}</Object></Delete>"));
    assert_eq!(object(""), ErrorCode::MalformedXml);
    assert_eq!(object("<Key></Key>"), ErrorCode::MalformedXml);
    for twice in [
        "<Key>a</Key><Key>b</Key>",
        "<Key>a</Key><VersionId>null</VersionId><VersionId>1</VersionId>",
        "<Key>a</Key><ETag>1</ETag><ETag>2</ETag>",
    ] {
        assert_eq!(object(twice), ErrorCode::MalformedXml, "{twice}");
    }
    let quiet = "<Quiet>true</Quiet><Quiet>false</Quiet>";
    let quiet = format!("<Delete>{quiet}<Object><Key>a</Key></Object></Delete>");
    assert_eq!(code(&quiet), ErrorCode::MalformedXml);
    assert_eq!(
        object(&format!("<Key>{}</Key>", "k".repeat(1025))),
        ErrorCode::KeyTooLong
    );
    assert_eq!(object("<Key>a&#0;</Key>"), ErrorCode::InvalidArgument);
    assert_eq!(
        object("<Key>a</Key><Size>1</Size>"),
        ErrorCode::NotImplemented
    );

    let result = DeleteResult {
        deleted: vec![Deleted {
            key: "a\n".into(),
            version_id: None,
        }],
        failed: vec![DeleteFailure {
            key: "b".into(),
            version_id: Some("v".into()),
            code: "AccessDenied".into(),
            message: "no".into(),
        }],
    };
    assert_eq!(
        DeleteResult::from_xml(result.to_xml().as_bytes()).unwrap(),
        result
    );
}

#[test]
fn what_a_new_bucket_cannot_have_is_named_unless_it_is_empty() {
    let asked = |inner: &str| {
        let body = format!("<CreateBucketConfiguration>{inner}</CreateBucketConfiguration>");
        parse_create_bucket(body.as_bytes()).unwrap().unsupported
    };
    let tags = "<Tags><Tag><Key>k</Key><Value>v</Value></Tag></Tags>";
    assert_eq!(asked(tags), Some("Tags"));
    assert_eq!(asked("<Tags></Tags>"), None);
    assert_eq!(asked("<Tags/>"), None);
    let directory = "<Bucket><Type>Directory</Type></Bucket>";
    assert_eq!(asked(directory), Some("Bucket"));
    let zone = "<Location><Name>use1-az4</Name><Type>AvailabilityZone</Type></Location>";
    assert_eq!(asked(zone), Some("Location"));
    assert_eq!(asked("<LocationConstraint>eu</LocationConstraint>"), None);
}

#[test]
fn objects_without_versions_are_null_versions() {
    let page = NullVersionsPage {
        bucket: "b".into(),
        prefix: "a ".into(),
        delimiter: Some("/".into()),
        key_marker: "a".into(),
        version_id_marker: Some(crate::NamedVersion::Null),
        next_key_marker: Some("a b".into()),
        next_version_id_marker: Some(crate::NamedVersion::Null),
        max_keys: 1,
        is_truncated: true,
        encoding: Encoding::Url,
        entries: vec![objects::entry("a b")],
        common_prefixes: vec!["a /".into()],
    };
    let text = page.to_xml();
    assert!(text.contains("<VersionIdMarker>null</VersionIdMarker>"));
    assert!(text.contains("<Owner>"));
    let read = VersionsPage::from_xml(text.as_bytes()).unwrap();
    let entry = objects::entry("a b");
    assert_eq!(read.entries.len(), 1);
    assert_eq!(read.entries[0].key, entry.key);
    assert_eq!(read.entries[0].version_id, "null");
    assert!(read.entries[0].is_latest);
    let (size, etag) = (entry.size, entry.etag);
    assert_eq!(read.entries[0].kind, VersionKind::Object { size, etag });
    assert_eq!(read.common_prefixes, ["a /"]);
    assert_eq!(read.next_key_marker.as_deref(), Some("a b"));
    assert_eq!(read.next_version_id_marker.as_deref(), Some("null"));
}

#[test]
fn versions_and_delete_markers_keep_their_order() {
    let document = "<?xml version=\"1.0\"?><ListVersionsResult xmlns=\"x\"><Name>b</Name>\
        <EncodingType>url</EncodingType><IsTruncated>true</IsTruncated>\
        <NextKeyMarker>a%20b</NextKeyMarker><NextVersionIdMarker>v9</NextVersionIdMarker>\
        <DeleteMarker><Key>a+b</Key><VersionId>v2</VersionId><IsLatest>true</IsLatest>\
        <LastModified>2013-05-24T00:00:00.123Z</LastModified></DeleteMarker>\
        <Version><Key>a%2Bb</Key><VersionId>null</VersionId><IsLatest>false</IsLatest>\
        <LastModified>2013-05-24T00:00:00Z</LastModified><ETag>\"e\"</ETag><Size>7</Size>\
        <StorageClass>STANDARD</StorageClass></Version></ListVersionsResult>";
    let page = VersionsPage::from_xml(document.as_bytes()).unwrap();
    assert_eq!(page.entries[0].key, "a b");
    assert_eq!(page.entries[0].kind, VersionKind::DeleteMarker);
    assert!(page.entries[0].is_latest && !page.entries[1].is_latest);
    assert_eq!(page.entries[1].key, "a+b");
    let etag = Some(ETag::new("e"));
    assert_eq!(page.entries[1].kind, VersionKind::Object { size: 7, etag });
    assert_eq!(page.next_key_marker.as_deref(), Some("a b"));
    assert_eq!(page.next_version_id_marker.as_deref(), Some("v9"));
}

#[test]
fn small_documents_say_what_they_should() {
    assert!(print_location("us-east-1").ends_with("01/\"></LocationConstraint>"));
    assert!(print_location("eu").contains(">eu<"));
    for status in [
        VersioningStatus::Off,
        VersioningStatus::Enabled,
        VersioningStatus::Suspended,
    ] {
        assert_eq!(
            parse_versioning(print_versioning(status).as_bytes()).unwrap(),
            status
        );
    }
    assert_eq!(
        parse_create_bucket(b"").unwrap(),
        BucketConfiguration::default()
    );
    let body = b"<CreateBucketConfiguration><LocationConstraint>eu</LocationConstraint></CreateBucketConfiguration>";
    let found = parse_create_bucket(body).unwrap();
    assert_eq!(
        (found.region.as_deref(), found.unsupported),
        (Some("eu"), None)
    );
    let name: BucketName = "b".parse().unwrap();
    let buckets = BucketList {
        buckets: vec![BucketEntry {
            name,
            created: TIME,
        }],
        prefix: None,
        continuation_token: None,
    };
    let date = "<Bucket><Name>b</Name><CreationDate>2013-05-24T00:00:00.123Z</CreationDate>";
    assert!(buckets.to_xml().contains(date));
}

#[test]
fn hostile_documents_are_refused_within_bounds() {
    let code = |body: &str| Delete::from_xml(body.as_bytes()).map_err(|error: Error| error.code);
    let malformed = |body: &str| assert_eq!(code(body), Err(ErrorCode::MalformedXml), "{body:.80}");
    malformed("");
    malformed("<Delete>");
    malformed("</Delete>");
    malformed("<Delete></Deleted>");
    malformed("<Delete/><Delete/>");
    malformed("text<Delete/>");
    malformed("<Other><Object><Key>k</Key></Object></Other>");
    malformed("<Delete><Object><Key>&unknown;</Key></Object></Delete>");
    malformed("<Delete><Object><Key>&#xd800;</Key></Object></Delete>");
    malformed("<Delete><Object><Key>&#+41;</Key></Object></Delete>");
    malformed("<Delete><Object><Key>a & b</Key></Object></Delete>");
    malformed(
        "<!DOCTYPE d [<!ENTITY a \"aaaa\"><!ENTITY b \"&a;&a;\">]><Delete><Object><Key>&b;</Key></Object></Delete>",
    );
    malformed(
        "<!DOCTYPE d SYSTEM \"file:///etc/passwd\"><Delete><Object><Key>k</Key></Object></Delete>",
    );
    malformed(&format!("<Delete>{}</Delete>", "<a>".repeat(100_000)));
    malformed(&format!("<Delete>{}</Delete>", "<a/>".repeat(200_000)));
    assert_eq!(
        Delete::from_xml(b"<Delete>\xff</Delete>").unwrap_err().code,
        ErrorCode::MalformedXml
    );

    // What is unusual but fine.
    for body in [
        "\u{feff}<Delete><Object><Key>k</Key></Object></Delete>",
        "<s3:Delete xmlns:s3='x'><s3:Object><s3:Key>k</s3:Key></s3:Object></s3:Delete>",
        "<?xml version='1.0'?>\n<!-- c --><Delete >\n <Object>\n <Key>k</Key><New/>\n</Object></Delete>\n",
        "<Delete><Object><Key><![CDATA[k]]></Key></Object><Quiet/></Delete>",
    ] {
        assert_eq!(code(body).unwrap().items[0].key.as_str(), "k", "{body}");
    }
}

proptest! {
    #[test]
    fn every_key_survives_a_listing(key in "\\PC{0,20}|[\u{1}-\u{80}]{0,20}") {
        for encoding in [Encoding::None, Encoding::Url] {
            let page = ObjectsPageV2 {
                encoding,
                entries: vec![objects::entry(&key)],
                ..ObjectsPageV2::default()
            };
            prop_assert_eq!(ObjectsPageV2::from_xml(page.to_xml().as_bytes()).unwrap(), page);
        }
    }

    #[test]
    fn no_document_makes_a_reader_fail_badly(body in "[<>/&;#x!\\[\\]?A-Za-z\" ]{0,80}") {
        let _ = Delete::from_xml(body.as_bytes());
        let _ = parse_complete(body.as_bytes());
        let _ = ObjectsPageV2::from_xml(body.as_bytes());
    }
}
