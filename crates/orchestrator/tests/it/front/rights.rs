//! Every operation under every set of verbs, inside and outside of prefixes, from a foreign network.

use super::forms;
use super::support::{BUCKET, Options, Request, Response, Server, config_text, path};

/// The verbs, each a bit.
const VERBS: [&str; 6] = ["list-buckets", "list", "read", "write", "delete", "tags"];
const LIST_BUCKETS: u8 = 1;
const LIST: u8 = 2;
const READ: u8 = 4;
const WRITE: u8 = 8;
const DELETE: u8 = 16;
const TAGS: u8 = 32;
/// What no credential of a bucket has.
const ROOT: u8 = 64;
/// Any right in the bucket will do.
const ANY: u8 = 0;

const TAG_SET: &str = "<Tagging><TagSet><Tag><Key>a</Key><Value>1</Value></Tag></TagSet></Tagging>";

/// Who asks.
#[derive(Clone, Copy)]
struct Caller<'a> {
    id: &'a str,
    secret: &'a str,
}

/// One operation.
struct Case {
    name: &'static str,
    request: Request,
    /// The verbs without which it is refused.
    needs: u8,
    /// How it is answered where it is allowed.
    answer: (u16, &'static str),
    /// Where what is allowed is aimed at nothing, so that it can be repeated: what is refused aims
    /// at this.
    target: Option<Request>,
    scope: Scope,
}

/// What prefixes do to an operation.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Scope {
    /// Nothing.
    Bucket,
    /// It is refused outside.
    Keys,
    /// It has an outcome for each key.
    EachKey,
}

impl Case {
    fn new(name: &'static str, needs: u8, request: Request, answer: (u16, &'static str)) -> Self {
        Self {
            name,
            request,
            needs,
            answer,
            target: None,
            scope: Scope::Keys,
        }
    }

    fn of_bucket(name: &'static str, request: Request, answer: (u16, &'static str)) -> Self {
        Self {
            scope: Scope::Bucket,
            ..Self::new(name, ANY, request, answer)
        }
    }

    fn aimed_at(self, target: Request) -> Self {
        Self {
            target: Some(target),
            ..self
        }
    }
}

/// A folder with an object, a tagged one, one to tag, one to delete, and an open upload.
async fn furnish(server: &Server, folder: &str) -> String {
    for name in ["k", "doomed", "other"] {
        let put = Request::put(&path(&format!("{folder}{name}"))).body(b"x");
        server.send(put).await.expect(200);
    }
    let put = Request::put(&path(&format!("{folder}tagged"))).body(b"x");
    let tagged = put.header("x-amz-tagging", "a=1");
    server.send(tagged).await.expect(200);
    let create = Request::post(&format!("{}?uploads", path(&format!("{folder}m"))));
    server.send(create).await.expect(200).element("UploadId")
}

/// What no refused request may have taken away.
async fn is_still_furnished(server: &Server, folder: &str, upload: &str) {
    server.get(&format!("{folder}doomed")).await.expect(200);
    let parts = format!("{}?uploadId={upload}", path(&format!("{folder}m")));
    server.send(Request::get(&parts)).await.expect(200);
    let tagged = server.get(&format!("{folder}tagged")).await.expect(200);
    assert_eq!(tagged.header("x-amz-tagging-count"), "1");
}

fn cases(folder: &str, upload: &str, caller: Caller<'_>) -> Vec<Case> {
    let mut all = on_buckets(folder, caller);
    all.extend(on_objects(folder));
    all.extend(on_uploads(folder, upload));
    for case in &mut all {
        case.request = signed(case.request.clone(), caller);
        case.target = case.target.take().map(|target| signed(target, caller));
    }
    all
}

/// A form is signed already.
fn signed(request: Request, caller: Caller<'_>) -> Request {
    let form = request.headers.get("content-type");
    match form.is_some_and(|kind| kind.as_bytes().starts_with(b"multipart/")) {
        true => request,
        false => request.key(caller.id, caller.secret),
    }
}

fn on_buckets(folder: &str, caller: Caller<'_>) -> Vec<Case> {
    let bucket = |query: &str| format!("/{BUCKET}{query}");
    let acl = Request::put(&bucket("?acl")).header("x-amz-acl", "private");
    let batch = |name: &str| {
        let body = format!("<Delete><Object><Key>{folder}{name}</Key></Object></Delete>");
        let md5 = base::Md5::of(body.as_bytes()).to_base64();
        let batch = Request::post(&bucket("?delete")).body(body.as_bytes());
        batch.header("content-md5", &md5)
    };
    let form = |fields: &[(&str, &str)]| {
        forms::signed_by(caller.id, caller.secret, &format!("{folder}form"), fields)
    };
    let list = |query: &str| Request::get(&bucket(&format!("?{query}prefix={folder}")));
    let get = |query: &str| Request::get(&bucket(query));
    let never = Case {
        needs: ROOT,
        ..Case::of_bucket("DeleteBucket", Request::delete(&bucket("")), (204, ""))
    };
    let batch = Case {
        scope: Scope::EachKey,
        ..Case::new("DeleteObjects", DELETE, batch("none"), (200, "")).aimed_at(batch("doomed"))
    };
    vec![
        Case::of_bucket("HeadBucket", Request::head(&bucket("")), (200, "")),
        Case::of_bucket("GetBucketLocation", get("?location"), (200, "")),
        Case::of_bucket("GetBucketVersioning", get("?versioning"), (200, "")),
        Case::of_bucket("GetBucketAcl", get("?acl"), (200, "")),
        Case::of_bucket("PutBucketAcl", acl, (200, "")),
        Case::of_bucket(
            "GetBucketCors",
            get("?cors"),
            (404, "NoSuchCORSConfiguration"),
        ),
        Case::of_bucket("CreateBucket", Request::put(&bucket("")), (200, "")),
        never,
        batch,
        Case::new("ListObjects", LIST, list(""), (200, "")),
        Case::new("ListObjectsV2", LIST, list("list-type=2&"), (200, "")),
        Case::new("ListObjectVersions", LIST, list("versions&"), (200, "")),
        Case::new("ListMultipartUploads", LIST, list("uploads&"), (200, "")),
        Case::new("PostObject", WRITE, form(&[]), (204, "")),
        Case::new(
            "PostObject with tags",
            WRITE | TAGS,
            form(&[("tagging", TAG_SET)]),
            (204, ""),
        ),
    ]
}

fn on_objects(folder: &str) -> Vec<Case> {
    let key = |name: &str| path(&format!("{folder}{name}"));
    let put = || Request::put(&key("put")).body(b"x");
    let copy = |from: &str| {
        Request::put(&key("copy")).header("x-amz-copy-source", &format!("{BUCKET}/{folder}{from}"))
    };
    let replace = |from: &str, tags: &str| {
        let copy = copy(from).header("x-amz-tagging-directive", "REPLACE");
        copy.header("x-amz-tagging", tags)
    };
    let attributes = Request::get(&format!("{}?attributes", key("k")));
    let acl = |request: Request| request.header("x-amz-acl", "private");
    let tagging = |name: &str| format!("{}?tagging", key(name));
    let put_tags = |name: &str| Request::put(&tagging(name)).body(TAG_SET.as_bytes());
    let ok = (200, "");
    vec![
        Case::new("GetObject", READ, Request::get(&key("k")), ok),
        Case::new("HeadObject", READ, Request::head(&key("k")), ok),
        Case::new(
            "GetObjectAttributes",
            READ,
            attributes.header("x-amz-object-attributes", "ETag"),
            ok,
        ),
        Case::new(
            "GetObjectAcl",
            READ,
            Request::get(&format!("{}?acl", key("k"))),
            ok,
        ),
        Case::new(
            "PutObjectAcl",
            WRITE,
            acl(Request::put(&format!("{}?acl", key("k")))),
            ok,
        ),
        Case::new("PutObject", WRITE, put(), ok).aimed_at(Request::put(&key("tagged")).body(b"")),
        Case::new(
            "PutObject with tags",
            WRITE | TAGS,
            put().header("x-amz-tagging", "a=1"),
            ok,
        ),
        Case::new("CopyObject", READ | WRITE, copy("k"), ok),
        Case::new(
            "CopyObject of a tagged one",
            READ | WRITE | TAGS,
            copy("tagged"),
            ok,
        ),
        Case::new(
            "CopyObject without the tags",
            READ | WRITE,
            replace("tagged", ""),
            ok,
        ),
        Case::new(
            "CopyObject with new tags",
            READ | WRITE | TAGS,
            replace("k", "b=2"),
            ok,
        ),
        Case::new(
            "DeleteObject",
            DELETE,
            Request::delete(&key("none")),
            (204, ""),
        )
        .aimed_at(Request::delete(&key("doomed"))),
        Case::new(
            "GetObjectTagging",
            TAGS,
            Request::get(&tagging("tagged")),
            ok,
        ),
        Case::new("PutObjectTagging", TAGS, put_tags("other"), ok),
        Case::new(
            "DeleteObjectTagging",
            TAGS,
            Request::delete(&tagging("other")),
            (204, ""),
        )
        .aimed_at(Request::delete(&tagging("tagged"))),
    ]
}

fn on_uploads(folder: &str, upload: &str) -> Vec<Case> {
    let key = path(&format!("{folder}m"));
    let at = |query: &str| format!("{key}?{query}uploadId={upload}");
    let create = || Request::post(&format!("{}?uploads", path(&format!("{folder}n"))));
    let part = |number: u32| Request::put(&at(&format!("partNumber={number}&")));
    let list = "<CompleteMultipartUpload><Part><PartNumber>9</PartNumber><ETag>\"0\"</ETag></Part></CompleteMultipartUpload>";
    let complete = Request::post(&at("")).body(list.as_bytes());
    // Another upload that is no more.
    let gone = at("").replace(upload, &upload.chars().rev().collect::<String>());
    let copy = part(2).header("x-amz-copy-source", &format!("{BUCKET}/{folder}k"));
    let ok = (200, "");
    vec![
        Case::new("CreateMultipartUpload", WRITE, create(), ok),
        Case::new(
            "CreateMultipartUpload with tags",
            WRITE | TAGS,
            create().header("x-amz-tagging", "a=1"),
            ok,
        ),
        Case::new("UploadPart", WRITE, part(1).body(b"x"), ok),
        Case::new("UploadPartCopy", READ | WRITE, copy, ok),
        Case::new(
            "CompleteMultipartUpload",
            WRITE,
            complete,
            (400, "InvalidPart"),
        ),
        Case::new(
            "AbortMultipartUpload",
            WRITE,
            Request::delete(&gone),
            (404, "NoSuchUpload"),
        )
        .aimed_at(Request::delete(&at(""))),
        Case::new("ListParts", WRITE, Request::get(&at("")), ok),
    ]
}

async fn server(credentials: &str) -> Server {
    let dir = tempfile::tempdir().unwrap();
    let text = config_text(dir.path(), &Options::default());
    let text = text.replace("      - token: ", &format!("{credentials}      - token: "));
    let file = dir.path().join("config.yaml");
    std::fs::write(&file, text).unwrap();
    Server::of_file(dir, file).await
}

fn credential(id: &str, allow: &[&str], more: &str) -> String {
    format!(
        "      - access_key_id: {id}\n        secret_access_key: {id}-secret\n        allow: [{}]\n{more}",
        allow.join(", ")
    )
}

#[track_caller]
fn denied(answer: &Response, what: &str) {
    assert_eq!(answer.status, 403, "{what}: {}", answer.text());
    if !answer.body.is_empty() {
        assert_eq!(answer.element("Code"), "AccessDenied", "{what}");
    }
}

#[track_caller]
fn allowed(answer: &Response, case: &Case, what: &str) {
    let expected = (case.answer.0, case.answer.1.to_owned());
    assert_eq!(answer.verdict(), expected, "{what}: {}", answer.text());
}

/// Sends what is to be refused.
async fn refused(server: &Server, case: Case, what: &str) {
    let request = case.target.unwrap_or(case.request);
    denied(&server.send(request).await, what);
}

#[tokio::test]
async fn every_operation_needs_its_verbs_and_no_others() {
    let sets = 1..1_u8 << VERBS.len();
    let id = |set: u8| format!("SET{set}");
    let verbs = |set: u8| {
        let chosen = VERBS.iter().enumerate();
        let chosen = chosen.filter(move |(bit, _)| set & (1 << bit) != 0);
        chosen.map(|(_, verb)| *verb).collect::<Vec<_>>()
    };
    let text: String = sets
        .clone()
        .map(|set| credential(&id(set), &verbs(set), ""))
        .collect();
    let server = server(&text).await;
    let upload = furnish(&server, "up/").await;
    for set in sets {
        let (id, secret) = (id(set), format!("{}-secret", id(set)));
        let caller = Caller {
            id: &id,
            secret: &secret,
        };
        for case in cases("up/", &upload, caller) {
            let what = format!("{} with {:?}", case.name, verbs(set));
            match case.needs & !set {
                0 => allowed(&server.send(case.request.clone()).await, &case, &what),
                _ => refused(&server, case, &what).await,
            }
        }
        let shown = Request::get("/").key(&id, &secret);
        let shown = server.send(shown).await.expect(200).elements("Name");
        let expected: &[&str] = match set & LIST_BUCKETS {
            0 => &[],
            _ => &[BUCKET],
        };
        assert_eq!(shown, expected, "{:?}", verbs(set));
    }
    is_still_furnished(&server, "up/", &upload).await;
}

#[tokio::test]
async fn every_operation_stays_within_its_prefixes() {
    let text = credential("TEAM", &VERBS, "        prefixes: [up/]\n");
    let server = server(&text).await;
    let caller = Caller {
        id: "TEAM",
        secret: "TEAM-secret",
    };
    let inside = furnish(&server, "up/").await;
    let outside = furnish(&server, "down/").await;
    for case in cases("up/", &inside, caller) {
        let what = format!("{} inside", case.name);
        match case.needs & ROOT {
            0 => allowed(&server.send(case.request.clone()).await, &case, &what),
            _ => refused(&server, case, &what).await,
        }
    }
    for case in cases("down/", &outside, caller) {
        let what = format!("{} outside", case.name);
        match case.scope {
            Scope::Bucket if case.needs & ROOT == 0 => {
                allowed(&server.send(case.request.clone()).await, &case, &what);
            }
            Scope::Bucket | Scope::Keys => refused(&server, case, &what).await,
            Scope::EachKey => {
                let answer = server.send(case.target.unwrap()).await.expect(200);
                assert_eq!(answer.element("Code"), "AccessDenied", "{what}");
            }
        }
    }
    // Copies need both of their ends within.
    let part = |folder: &str, upload: &str| {
        format!(
            "{}?partNumber=1&uploadId={upload}",
            path(&format!("{folder}m"))
        )
    };
    for (what, target, source) in [
        ("CopyObject from outside", path("up/copy"), "down/k"),
        ("CopyObject to outside", path("down/copy"), "up/k"),
        (
            "UploadPartCopy from outside",
            part("up/", &inside),
            "down/k",
        ),
        ("UploadPartCopy to outside", part("down/", &outside), "up/k"),
    ] {
        let copy = Request::put(&target).header("x-amz-copy-source", &format!("{BUCKET}/{source}"));
        denied(&server.send(signed(copy, caller)).await, what);
    }
    is_still_furnished(&server, "down/", &outside).await;
}

#[tokio::test]
async fn every_operation_counts_only_from_the_networks_of_its_credential() {
    let text = credential("AFAR", &VERBS, "        networks: [192.0.2.0/24]\n")
        + &credential(
            "NEAR",
            &VERBS,
            "        networks: [192.0.2.0/24, 127.0.0.0/8]\n",
        );
    let server = server(&text).await;
    let upload = furnish(&server, "up/").await;
    let (afar, near) = (
        Caller {
            id: "AFAR",
            secret: "AFAR-secret",
        },
        Caller {
            id: "NEAR",
            secret: "NEAR-secret",
        },
    );
    for case in cases("up/", &upload, afar) {
        let what = case.name;
        refused(&server, case, what).await;
    }
    denied(
        &server.send(signed(Request::get("/"), afar)).await,
        "ListBuckets",
    );
    for case in cases("up/", &upload, near) {
        if case.needs & ROOT == 0 {
            allowed(&server.send(case.request.clone()).await, &case, case.name);
        }
    }
    is_still_furnished(&server, "up/", &upload).await;
}
