//! Uploads by HTML forms, end to end.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::hmac::{HMAC_SHA256, Key, sign};

use super::support::{Auth, BUCKET, KEY, Options, Request, Response, SECRET, Server, noise};

const BOUNDARY: &str = "----a-boundary";
const DATE: &str = "20130524";

/// A form in the making.
struct Form {
    fields: Vec<(String, String)>,
    id: String,
    secret: String,
    file: Vec<u8>,
    behind: &'static str,
}

impl Form {
    /// A form that permits uploads below `up/`, with further fields and what permits them.
    fn new(key: &str, fields: &[(&str, &str)]) -> Self {
        Self::below("up/", key, fields)
    }

    fn below(prefix: &str, key: &str, fields: &[(&str, &str)]) -> Self {
        let mut conditions = vec![
            format!("{{\"bucket\":\"{BUCKET}\"}}"),
            format!("[\"starts-with\",\"$key\",\"{prefix}\"]"),
            "[\"content-length-range\",1,3000000]".to_owned(),
            "[\"starts-with\",\"$x-amz-algorithm\",\"\"]".to_owned(),
            "[\"starts-with\",\"$x-amz-credential\",\"\"]".to_owned(),
            "[\"starts-with\",\"$x-amz-date\",\"\"]".to_owned(),
        ];
        conditions.extend(
            fields
                .iter()
                .map(|(name, _)| format!("[\"starts-with\",\"${name}\",\"\"]")),
        );
        let policy = format!(
            "{{\"expiration\":\"2099-01-01T00:00:00Z\",\"conditions\":[{}]}}",
            conditions.join(",")
        );
        let mut all = vec![
            ("key".to_owned(), key.to_owned()),
            ("policy".to_owned(), STANDARD.encode(policy)),
        ];
        let pair = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        all.extend(fields.iter().map(pair));
        Self {
            fields: all,
            id: KEY.to_owned(),
            secret: SECRET.to_owned(),
            file: b"hello".to_vec(),
            behind: "",
        }
    }

    fn request(self) -> Request {
        let policy = &self
            .fields
            .iter()
            .find(|(name, _)| name == "policy")
            .unwrap()
            .1;
        let mac = |key: &[u8], text: &str| {
            let tag = sign(&Key::new(HMAC_SHA256, key), text.as_bytes());
            tag.as_ref().to_vec()
        };
        let mut key = format!("AWS4{}", self.secret).into_bytes();
        for part in [DATE, "us-east-1", "s3", "aws4_request", policy] {
            key = mac(&key, part);
        }
        let signature: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
        let mut fields = self.fields.clone();
        for (name, value) in [
            ("x-amz-algorithm", "AWS4-HMAC-SHA256".to_owned()),
            (
                "x-amz-credential",
                format!("{}/{DATE}/us-east-1/s3/aws4_request", self.id),
            ),
            ("x-amz-date", format!("{DATE}T000000Z")),
            ("x-amz-signature", signature),
        ] {
            fields.push((name.to_owned(), value));
        }
        let mut body = Vec::new();
        let mut put = |text: &str| body.extend_from_slice(text.as_bytes());
        for (name, value) in fields {
            put(&format!(
                "--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n"
            ));
        }
        put(&format!(
            "--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"file\"; filename=\"cat.txt\"\r\nContent-Type: text/plain\r\n\r\n"
        ));
        body.extend_from_slice(&self.file);
        body.extend_from_slice(format!("\r\n{}--{BOUNDARY}--\r\n", self.behind).as_bytes());
        Request::post(&format!("/{BUCKET}"))
            .auth(Auth::None)
            .header(
                "content-type",
                &format!("multipart/form-data; boundary={BOUNDARY}"),
            )
            .body(&body)
    }
}

/// A signed form that lacks its key.
pub(super) fn without_key() -> Request {
    let mut form = Form::new("up/k", &[]);
    form.fields.remove(0);
    form.request()
}

/// A signed form with this policy.
pub(super) fn with_policy(policy: &str) -> Request {
    let mut form = Form::new("up/k", &[]);
    form.fields[1].1 = policy.to_owned();
    form.request()
}

/// A form that this key pair signed, for any key, with further fields.
pub(super) fn signed_by(id: &str, secret: &str, key: &str, fields: &[(&str, &str)]) -> Request {
    let mut form = Form::below("", key, fields);
    (form.id, form.secret) = (id.to_owned(), secret.to_owned());
    form.request()
}

async fn post(server: &Server, form: Form) -> Response {
    server.send(form.request()).await
}

#[tokio::test]
async fn a_form_stores_its_file_with_everything_it_says() {
    let server = Server::start().await;
    let tags = "<Tagging><TagSet><Tag><Key>a</Key><Value>b</Value></Tag></TagSet></Tagging>";
    let form = Form::new(
        "up/${filename}",
        &[
            ("Content-Type", "text/css"),
            ("x-amz-meta-note", "n"),
            ("acl", "private"),
            ("tagging", tags),
            ("success_action_status", "201"),
        ],
    );
    let answer = post(&server, form).await.expect(201);
    assert_eq!(answer.element("Key"), "up/cat.txt");
    assert_eq!(answer.element("Bucket"), BUCKET);
    let place = format!("http://{}/{BUCKET}/up/cat.txt", server.addr);
    assert_eq!(answer.header("location"), place);
    assert_eq!(answer.element("Location"), place);
    let stored = server.get("up/cat.txt").await.expect(200);
    assert_eq!(&stored.body[..], b"hello");
    assert_eq!(stored.header("content-type"), "text/css");
    assert_eq!(stored.header("x-amz-meta-note"), "n");
    assert_eq!(stored.header("x-amz-tagging-count"), "1");
    assert_eq!(stored.header("etag"), answer.header("etag"));
}

#[tokio::test]
async fn the_client_is_told_what_it_asked_to_be_told() {
    let server = Server::start().await;
    post(&server, Form::new("up/a", &[])).await.expect(204);
    post(
        &server,
        Form::new("up/a", &[("success_action_status", "200")]),
    )
    .await
    .expect(200);
    let done = [("success_action_redirect", "https://example.com/done?x=1")];
    let answer = post(&server, Form::new("up/a b", &done)).await.expect(303);
    let place = answer.header("location");
    let expected = format!("https://example.com/done?x=1&bucket={BUCKET}&key=up%2Fa%20b&etag=%22");
    assert!(place.starts_with(&expected), "{place}");
}

#[tokio::test]
async fn a_post_on_a_bucket_that_is_no_form_fails_a_precondition() {
    let server = Server::start().await;
    let plain = || {
        Request::post(&format!("/{BUCKET}"))
            .auth(Auth::None)
            .body(b"x")
    };
    for request in [plain(), plain().header("content-type", "text/plain")] {
        let refused = server.send(request).await;
        assert_eq!(refused.verdict(), (412, "PreconditionFailed".into()));
        let condition = "Bucket POST must be of the enclosure-type multipart/form-data";
        assert_eq!(refused.element("Condition"), condition);
    }
    let unbound = plain().header("content-type", "multipart/form-data");
    let refused = server.send(unbound).await;
    assert_eq!(refused.verdict(), (400, "MalformedPOSTRequest".into()));
}

#[tokio::test]
async fn the_answer_to_a_form_carries_the_checksum_that_it_was_sent() {
    let server = Server::start().await;
    let sum = (
        "x-amz-checksum-sha256",
        "LPJNul+wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ=",
    );
    for action in ["200", "201", "204"] {
        let fields = [sum, ("success_action_status", action)];
        let answer = post(&server, Form::new("up/k", &fields)).await;
        assert_eq!(answer.header(sum.0), sum.1, "{action}");
        assert_eq!(answer.header("x-amz-checksum-type"), "FULL_OBJECT");
    }
    let wrong = [(sum.0, "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=")];
    let refused = post(&server, Form::new("up/k", &wrong)).await;
    assert_eq!(refused.verdict(), (400, "BadDigest".into()));
    let unknown = [("x-amz-checksum-xxhash64", "AAAA")];
    let refused = post(&server, Form::new("up/k", &unknown)).await;
    assert_eq!(refused.verdict(), (501, "NotImplemented".into()));
}

#[tokio::test]
async fn a_form_whose_signature_is_none_is_told_that_it_does_not_match() {
    let server = Server::start().await;
    for signature in ["z".repeat(64), "short".to_owned(), String::new()] {
        let mut request = Form::new("up/k", &[]).request();
        let text = String::from_utf8(request.body.to_vec()).unwrap();
        let (head, tail) = text.split_once("name=\"x-amz-signature\"\r\n\r\n").unwrap();
        let rest = &tail[64..];
        request.body = format!("{head}name=\"x-amz-signature\"\r\n\r\n{signature}{rest}").into();
        let refused = server.send(request).await;
        assert_eq!(refused.verdict(), (403, "SignatureDoesNotMatch".into()));
    }
}

#[tokio::test]
async fn a_large_file_streams_and_must_come_last() {
    let server = Server::start().await;
    let file = noise(2 << 20);
    let large = |behind| Form {
        file: file.clone(),
        behind,
        ..Form::new("up/large", &[])
    };
    post(&server, large("")).await.expect(204);
    assert_eq!(server.get("up/large").await.expect(200).body, file);
    let more = "------a-boundary\r\nContent-Disposition: form-data; name=\"submit\"\r\n\r\nGo\r\n";
    let refused = post(&server, large(more)).await;
    assert_eq!(refused.verdict(), (400, "IncompleteBody".into()));
    assert_eq!(server.get("up/large").await.expect(200).body, file);
    let small = Form {
        behind: more,
        ..Form::new("up/small", &[])
    };
    post(&server, small).await.expect(204);
    assert_eq!(&server.get("up/small").await.expect(200).body[..], b"hello");
}

#[tokio::test]
async fn a_form_is_read_as_it_is_framed() {
    let server = Server::start().await;
    let before = |mut request: Request| {
        request.body = [b"\r\n", &request.body[..]].concat().into();
        request
    };
    for length in [5, 1_200_000] {
        let form = |file| Form {
            file,
            ..Form::new("up/k", &[])
        };
        let file = noise(length);
        let request = before(form(file.clone()).request());
        server.send(request).await.expect(204);
        assert_eq!(server.get("up/k").await.body, file);
        // As if a part of the file looked like its end.
        let junk = format!("\r\n--{BOUNDARY}X").into_bytes();
        let inside = [&file[..], &junk, &file].concat();
        let refused = post(&server, form(inside)).await;
        assert_eq!(refused.verdict(), (400, "MalformedPOSTRequest".into()));
        assert_eq!(server.get("up/k").await.body, file);
    }
}

#[tokio::test]
async fn what_a_field_asks_for_is_done_or_refused() {
    let server = Server::start().await;
    let hash = |byte: char| byte.to_string().repeat(64);
    // Of the file that forms here have.
    let right = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
    for value in [right, "UNSIGNED-PAYLOAD"] {
        let form = Form::new("up/k", &[("x-amz-content-sha256", value)]);
        post(&server, form).await.expect(204);
    }
    for (name, value, status, code) in [
        (
            "x-amz-content-sha256",
            hash('0').as_str(),
            400,
            "XAmzContentSHA256Mismatch",
        ),
        (
            "x-amz-content-sha256",
            "STREAMING-AWS4-HMAC-SHA256-PAYLOAD",
            400,
            "InvalidArgument",
        ),
        ("x-amz-content-sha256", "x", 400, "InvalidArgument"),
        ("x-amz-copy-source", "photos/up/k", 501, "NotImplemented"),
        ("x-amz-copy-source-if-match", "\"e\"", 501, "NotImplemented"),
        ("x-amz-metadata-directive", "COPY", 501, "NotImplemented"),
        (
            "x-amz-trailer",
            "x-amz-checksum-crc32",
            501,
            "NotImplemented",
        ),
        ("x-amz-decoded-content-length", "5", 501, "NotImplemented"),
        ("x-amz-tagging", "a=b", 501, "NotImplemented"),
    ] {
        let answer = post(&server, Form::new("up/other", &[(name, value)])).await;
        assert_eq!(answer.verdict(), (status, code.to_owned()), "{name}");
    }
    assert_eq!(server.get("up/other").await.status, 404);
}

#[tokio::test]
async fn a_form_that_drips_has_no_more_time_than_a_head() {
    let server = Server::with(Options {
        server: "  read_header_timeout: 200ms\n  read_timeout: 1h",
        ..Options::default()
    })
    .await;
    let request = Form::new("up/k", &[]).request().bytes(server.addr);
    let head = request
        .windows(4)
        .position(|four| four == b"\r\n\r\n")
        .unwrap()
        + 4;
    let mut wire = server.connect().await;
    wire.write(&request[..head + 50]).await;
    let answer = wire.response(false).await;
    assert_eq!(answer.verdict(), (400, "RequestTimeout".into()));
}

#[tokio::test]
async fn a_form_does_what_its_policy_permits_and_nothing_else() {
    let server = Server::with(Options {
        server: "  max_object_size: 4MiB",
        ..Options::default()
    })
    .await;
    let with = |change: fn(&mut Form)| {
        let mut form = Form::new("up/k", &[]);
        change(&mut form);
        form
    };
    let extra = |form: &mut Form| form.fields.push(("x-amz-meta-a".into(), "b".into()));
    let table = [
        (
            with(|form| form.secret = "wrong".into()),
            403,
            "SignatureDoesNotMatch",
        ),
        (
            with(|form| form.fields[0].1 = "down/k".into()),
            403,
            "AccessDenied",
        ),
        (with(extra), 403, "AccessDenied"),
        (with(|form| form.file.clear()), 400, "EntityTooSmall"),
        (
            with(|form| form.file = noise(3_500_000)),
            400,
            "EntityTooLarge",
        ),
        (
            with(|form| form.fields[1].1 = "bm9uZQ==".into()),
            400,
            "InvalidPolicyDocument",
        ),
        (
            with(|form| form.fields[0].0 = "note".into()),
            400,
            "UserKeyMustBeSpecified",
        ),
        (
            with(|form| form.fields.push(("key".into(), "up/other".into()))),
            400,
            "InvalidArgument",
        ),
        (
            Form::new("up/k", &[("acl", "public-read")]),
            501,
            "NotImplemented",
        ),
        (
            Form::new("up/k", &[("tagging", "<Tagging>")]),
            400,
            "MalformedXML",
        ),
        (
            Form::new("up/k", &[("Content-MD5", "1B2M2Y8AsgTpgAmY7PhCfg==")]),
            400,
            "BadDigest",
        ),
        (
            Form::new("up/k", &[("note", &"x".repeat(21 << 10))]),
            400,
            "MaxPostPreDataLengthExceededError",
        ),
    ];
    for (form, status, code) in table {
        let answer = post(&server, form).await;
        assert_eq!(
            answer.verdict(),
            (status, code.to_owned()),
            "{}",
            answer.text()
        );
    }
    let expired = with(|form| {
        let policy = format!(
            "{{\"expiration\":\"2013-05-25T00:00:00Z\",\"conditions\":[{{\"bucket\":\"{BUCKET}\"}}]}}"
        );
        form.fields[1].1 = STANDARD.encode(policy);
    });
    let answer = post(&server, expired).await;
    assert_eq!(answer.verdict(), (403, "AccessDenied".into()));
    assert!(answer.element("Message").contains("Policy expired"));
    let mut elsewhere = Form::new("up/k", &[]).request();
    elsewhere.path = "/docs".to_owned();
    assert_eq!(
        server.send(elsewhere).await.verdict(),
        (403, "AccessDenied".into())
    );
    for key in ["up/k", "down/k"] {
        assert_eq!(server.get(key).await.status, 404, "{key}");
    }
}
