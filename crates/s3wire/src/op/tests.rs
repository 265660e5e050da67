use super::*;

fn parse(method: Method, target: &str) -> Result<Target, Error> {
    with(method, target, &[])
}

fn with(method: Method, target: &str, headers: &[(&'static str, &str)]) -> Result<Target, Error> {
    let (path, query) = match target.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (target, None),
    };
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.append(*name, value.parse().unwrap());
    }
    Target::parse(&method, path, query, &map)
}

fn code(method: Method, target: &str) -> ErrorCode {
    parse(method, target).unwrap_err().code
}

const UPLOAD: &str = "00000000000000000000000001";

#[test]
fn every_operation_is_recognised_by_its_name() {
    let upload = |query: &str| query.replace("ID", UPLOAD);
    for (method, target, name) in [
        (Method::GET, "/", "ListBuckets"),
        (Method::HEAD, "/b", "HeadBucket"),
        (Method::HEAD, "/b/", "HeadBucket"),
        (Method::GET, "/b?location", "GetBucketLocation"),
        (Method::GET, "/b/?location=", "GetBucketLocation"),
        (Method::GET, "/b?versioning", "GetBucketVersioning"),
        (Method::GET, "/b?acl", "GetBucketAcl"),
        (Method::PUT, "/b?acl=", "PutBucketAcl"),
        (Method::GET, "/b?cors", "GetBucketCors"),
        (Method::PUT, "/b", "CreateBucket"),
        (Method::DELETE, "/b", "DeleteBucket"),
        (Method::GET, "/b", "ListObjectsV1"),
        (
            Method::GET,
            "/b?prefix=x&foo=bar&x-id=ListObjects",
            "ListObjectsV1",
        ),
        (Method::GET, "/b?list-type=2", "ListObjectsV2"),
        (Method::GET, "/b?versions", "ListObjectVersions"),
        (
            Method::GET,
            "/b?versions=&key-marker=a&version-id-marker=null",
            "ListObjectVersions",
        ),
        (Method::GET, "/b?uploads", "ListMultipartUploads"),
        (Method::POST, "/b?delete", "DeleteObjects"),
        (Method::POST, "/b", "PostObject"),
        (Method::POST, "/b/", "PostObject"),
        (Method::GET, "/b/k", "GetObject"),
        (
            Method::GET,
            "/b/k?x-id=GetObject&X-Amz-Signature=00&X-Amz-Expires=",
            "GetObject",
        ),
        (Method::HEAD, "/b/k?partNumber=1", "HeadObject"),
        (Method::PUT, "/b/k", "PutObject"),
        (Method::DELETE, "/b/k", "DeleteObject"),
        (Method::POST, "/b/k?uploads", "CreateMultipartUpload"),
        (Method::PUT, "/b/k?partNumber=1&uploadId=ID", "UploadPart"),
        (Method::POST, "/b/k?uploadId=ID", "CompleteMultipartUpload"),
        (Method::DELETE, "/b/k?uploadId=ID", "AbortMultipartUpload"),
        (Method::GET, "/b/k?uploadId=ID", "ListParts"),
        (Method::GET, "/b/k?attributes", "GetObjectAttributes"),
        (Method::GET, "/b/k?tagging", "GetObjectTagging"),
        (Method::PUT, "/b/k?tagging=", "PutObjectTagging"),
        (
            Method::DELETE,
            "/b/k?tagging&versionId=null",
            "DeleteObjectTagging",
        ),
        (Method::GET, "/b/k?acl", "GetObjectAcl"),
        (Method::PUT, "/b/k?acl", "PutObjectAcl"),
        (Method::GET, "/b/k?versionId=null", "GetObject"),
    ] {
        let parsed = parse(method, &upload(target)).unwrap();
        assert_eq!(parsed.name(), name, "{target}");
    }
    let copy = [("x-amz-copy-source", "/other/a%2Fb")];
    assert_eq!(
        with(Method::PUT, "/b/k", &copy).unwrap().name(),
        "CopyObject"
    );
    let part = upload("/b/k?partNumber=3&uploadId=ID");
    let ranged = [copy[0], ("x-amz-copy-source-range", "bytes=0-9")];
    assert_eq!(
        with(Method::PUT, &part, &ranged).unwrap().name(),
        "UploadPartCopy"
    );
}

#[test]
fn subresources_that_are_not_built_are_never_taken_for_something_else() {
    for query in [
        "policy",
        "lifecycle",
        "versions",
        "torrent",
        "retention",
        "legal-hold",
        "select&select-type=2",
        "accelerate",
        "restore",
        "foo",
        "foo=",
        "website=x",
        "renameObject",
        "renameObject=x",
        "annotation",
        "annotation=x",
        "uploads&acl",
        "object-lock",
    ] {
        for path in ["/b", "/b/k"] {
            for method in [
                Method::GET,
                Method::PUT,
                Method::POST,
                Method::DELETE,
                Method::HEAD,
            ] {
                if method == Method::GET && path == "/b" && query == "versions" {
                    continue;
                }
                let target = format!("{path}?{query}");
                assert_eq!(code(method, &target), ErrorCode::NotImplemented, "{target}");
            }
        }
    }
    assert_eq!(
        code(Method::PUT, "/b?versioning"),
        ErrorCode::NotImplemented
    );
    assert_eq!(
        code(Method::DELETE, "/b/k?delete"),
        ErrorCode::NotImplemented
    );
    for (method, target) in [
        (Method::PUT, "/b?cors"),
        (Method::DELETE, "/b?cors"),
        (Method::GET, "/b/k?cors"),
        (Method::GET, "/b?tagging"),
        (Method::PUT, "/b?tagging"),
        (Method::HEAD, "/b/k?tagging"),
        (Method::DELETE, "/b/k?acl"),
        (Method::HEAD, "/b/k?attributes"),
        (Method::GET, "/b/k?attributes&uploadId=1"),
        (Method::GET, "/b/k?acl&tagging"),
        (Method::PUT, "/b/k?versionId=null"),
        (Method::GET, "/b?versionId=null"),
    ] {
        assert_eq!(code(method, target), ErrorCode::NotImplemented, "{target}");
    }
    let named = |wire| named_version(&Query::parse(wire).unwrap()).unwrap();
    assert_eq!(named("versionId=1"), Some(NamedVersion::Unknown));
    assert_eq!(named("versionId=null"), Some(NamedVersion::Null));
    assert_eq!(named("a=b"), None);
    assert_eq!(
        code(Method::GET, "/b/k?acl&versionId="),
        ErrorCode::InvalidArgument
    );
    let hidden = "/b/k?X-Amz-Copy-Source=%2Fb%2Fother";
    assert_eq!(code(Method::PUT, hidden), ErrorCode::NotImplemented);
}

#[test]
fn other_methods_are_not_allowed() {
    for (method, target) in [
        (Method::POST, "/"),
        (Method::PUT, "/"),
        (Method::HEAD, "/"),
        (Method::PATCH, "/b"),
        (Method::OPTIONS, "/b/k"),
        (Method::PATCH, "/b/k"),
        (Method::POST, "/b/k"),
    ] {
        assert_eq!(
            code(method, target),
            ErrorCode::MethodNotAllowed,
            "{target}"
        );
    }
}

#[test]
fn keys_are_what_the_wire_says() {
    for (path, key) in [
        ("/b/a//b", "a//b"),
        ("/b//a", "/a"),
        ("/b//", "/"),
        ("/b/../x", "../x"),
        ("/b/%252F", "%2F"),
        ("/b/a%2Fb", "a/b"),
        ("/b/a+b%20c", "a+b c"),
        ("/b/%c3%a4", "ä"),
        ("/b/%01%0a", "\u{1}\n"),
        ("/b/k/", "k/"),
    ] {
        assert_eq!(
            parse(Method::GET, path).unwrap().key().unwrap().as_str(),
            key
        );
    }
    let long = |bytes: usize| format!("/b/{}", "%41".repeat(bytes));
    assert!(parse(Method::GET, &long(1024)).is_ok());
    assert_eq!(code(Method::GET, &long(1025)), ErrorCode::KeyTooLong);
    assert_eq!(code(Method::GET, "/b/%ff"), ErrorCode::InvalidUri);
    assert_eq!(code(Method::GET, "/b/%4"), ErrorCode::InvalidUri);
    assert_eq!(code(Method::GET, "/b/a%00"), ErrorCode::InvalidArgument);
    assert_eq!(code(Method::GET, "/.s3o/k"), ErrorCode::InvalidBucketName);
    assert_eq!(code(Method::GET, "/a%2Fb/k"), ErrorCode::InvalidBucketName);
    assert_eq!(code(Method::GET, "//k"), ErrorCode::InvalidBucketName);
    assert_eq!(code(Method::GET, "b/k"), ErrorCode::InvalidUri);
}

#[test]
fn parameters_are_typed_and_bounded() {
    let Target::Bucket(_, BucketOp::ListObjectsV2(list)) = parse(
        Method::GET,
        "/b?list-type=2&prefix=a%2F&delimiter=%2F&max-keys=5000&start-after=x&encoding-type=url\
         &fetch-owner=true&continuation-token=t",
    )
    .unwrap() else {
        panic!("a listing")
    };
    assert_eq!(
        (list.prefix.as_str(), list.delimiter.as_deref()),
        ("a/", Some("/"))
    );
    assert_eq!((list.max_keys, list.encoding), (1000, Encoding::Url));
    assert_eq!(list.fetch_owner, params::FetchOwner::Include);
    assert_eq!(list.continuation_token.as_deref(), Some("t"));

    let Target::Bucket(_, BucketOp::ListObjectsV1(list)) =
        parse(Method::GET, "/b?prefix=&delimiter=&max-keys=0&marker=").unwrap()
    else {
        panic!("a listing")
    };
    assert_eq!(list, ListObjectsV1::default());

    let long = format!("/b?prefix={}", "a".repeat(1025));
    assert_eq!(code(Method::GET, &long), ErrorCode::KeyTooLong);
    for query in [
        "max-keys=-1",
        "max-keys=x",
        "max-keys=2147483648",
        "max-keys=+1",
        "encoding-type=utf8",
        "list-type=1",
        "list-type=2&continuation-token=",
        "prefix=a%00",
        "prefix=a&prefix=b",
        "list-type=2&fetch-owner=1",
        "versions&version-id-marker=null",
        "versions&key-marker=a&version-id-marker=",
        "versions&key-marker=a&version-id-marker=x",
        "versions&max-keys=x",
    ] {
        assert_eq!(
            code(Method::GET, &format!("/b?{query}")),
            ErrorCode::InvalidArgument,
            "{query}"
        );
    }
}

#[test]
fn parts_and_uploads_are_checked() {
    for (query, expected) in [
        (
            format!("partNumber=0&uploadId={UPLOAD}"),
            ErrorCode::InvalidArgument,
        ),
        (
            format!("partNumber=10001&uploadId={UPLOAD}"),
            ErrorCode::InvalidArgument,
        ),
        (format!("uploadId={UPLOAD}"), ErrorCode::InvalidArgument),
        ("partNumber=1".to_owned(), ErrorCode::InvalidArgument),
    ] {
        assert_eq!(
            code(Method::PUT, &format!("/b/k?{query}")),
            expected,
            "{query}"
        );
    }
    assert_eq!(
        code(Method::GET, "/b/k?partNumber=0"),
        ErrorCode::InvalidArgument
    );
    let response = "/b/k?response-content-type=text%2Fplain&response-expires=never";
    let Target::Object(_, _, ObjectOp::GetObject(get)) = parse(Method::GET, response).unwrap()
    else {
        panic!("a GET")
    };
    let overrides: Vec<_> = get.overrides.standard().collect();
    assert_eq!(
        overrides,
        [("content-type", "text/plain"), ("expires", "never")]
    );
    let split = "/b/k?response-content-type=a%0d%0aset-cookie:x";
    assert_eq!(code(Method::GET, split), ErrorCode::InvalidArgument);
}
