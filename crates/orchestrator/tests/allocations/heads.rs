//! Requests of strangers, in every shape that makes somebody copy something.

use base::{Clock as _, SystemClock};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};

/// The corpora whose inputs are requests, or stand in one.
pub(super) const CORPORA: [&str; 7] = [
    "canonical",
    "chunked",
    "form",
    "heads",
    "presigned",
    "ranges",
    "xml",
];

/// The access key that nobody has.
const SCOPE: &str = "us-east-1/s3/aws4_request";

/// A name is signed at most once, and a head holds this many others beside those that a signature needs.
const FIELDS: usize = 240;

/// `yyyyMMddTHHmmssZ`: a signature of another day is refused before it is computed.
fn now() -> String {
    let text = s3wire::iso8601(SystemClock.now());
    let digits: String = text[..19].chars().filter(|c| !"-:".contains(*c)).collect();
    format!("{digits}Z")
}

/// A head whose header claims a signature over these names.
fn signed(target: &str, names: &str, more: &str) -> Vec<u8> {
    let (now, signature) = (now(), "a".repeat(64));
    let day = &now[..8];
    format!(
        "GET {target} HTTP/1.1\r\nhost: h\r\nx-amz-date: {now}\r\nx-amz-content-sha256: UNSIGNED-PAYLOAD\r\n\
         authorization: AWS4-HMAC-SHA256 Credential=NOBODY/{day}/{SCOPE}, SignedHeaders={names}, Signature={signature}\r\n\
         {more}connection: close\r\n\r\n"
    )
    .into_bytes()
}

/// A head whose query claims a signature over these names, in wire form.
fn presigned(path: &str, query: &str, names: &str, more: &str) -> Vec<u8> {
    let (now, signature) = (now(), "a".repeat(64));
    let day = &now[..8];
    let scope = SCOPE.replace('/', "%2F");
    format!(
        "GET {path}?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=NOBODY%2F{day}%2F{scope}\
         &X-Amz-Date={now}&X-Amz-Expires=60&X-Amz-SignedHeaders={names}&X-Amz-Signature={signature}{query} HTTP/1.1\r\n\
         host: h\r\n{more}connection: close\r\n\r\n"
    )
    .into_bytes()
}

/// A head without a signature.
fn plain(method: &str, target: &str, more: &str) -> Vec<u8> {
    format!("{method} {target} HTTP/1.1\r\nhost: h\r\n{more}connection: close\r\n\r\n").into_bytes()
}

/// A form whose fields are these bytes.
fn form(body: &str) -> Vec<u8> {
    let head = "POST /photos HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\
                content-type: multipart/form-data; boundary=B\r\n";
    format!("{head}content-length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

fn field(name: &str, value: &str) -> String {
    format!("--B\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
}

/// What is known to be copied, decoded, escaped or counted, filled up to about so many bytes.
pub(super) fn shapes(bytes: usize) -> Vec<(&'static str, Vec<u8>)> {
    let fill = |text: &str| text.repeat(bytes / text.len());
    let own = "host;x-amz-content-sha256;x-amz-date";
    let value = "v".repeat(bytes / 2);
    let again = ";x-amz-meta-a".repeat(bytes / 2 / ";x-amz-meta-a".len());
    let each = bytes / FIELDS;
    let fields: String = (0..FIELDS)
        .map(|place| {
            format!(
                "x-amz-meta-{place:03}: {}\r\n",
                "v".repeat(each.saturating_sub(20))
            )
        })
        .collect();
    let all: String = (0..FIELDS)
        .map(|place| format!(";x-amz-meta-{place:03}"))
        .collect();
    let again_absent = |name: &str| {
        format!(
            "{own}{}",
            format!(";{name}").repeat(bytes / 2 / (name.len() + 1))
        )
    };
    let wide = bytes / 2;
    let half = |text: &str| text.repeat(wide / text.len());
    vec![
        (
            "one signed name again and again",
            signed(
                "/photos/k",
                &format!("{own}{again}"),
                &format!("x-amz-meta-a: {value}\r\n"),
            ),
        ),
        (
            "names of headers that are not there",
            signed("/photos/k", &again_absent("x"), ""),
        ),
        (
            "as many fields as a head may have",
            signed("/photos/k", &format!("{own}{all}"), &fields),
        ),
        (
            "as many fields, none signed",
            signed("/photos/k", own, &fields),
        ),
        (
            "a path of bytes to escape",
            signed(&format!("/photos/{}", fill("*")), own, ""),
        ),
        (
            "four canonical forms",
            signed(&format!("/photos/{}?{}", half("*"), half("+")), own, ""),
        ),
        (
            "a query with many parameters",
            signed(
                &format!(
                    "/photos/k?{}",
                    format!("{}&", "+".repeat(bytes / 121)).repeat(120)
                ),
                own,
                "",
            ),
        ),
        (
            "a query with too many parameters",
            plain("GET", &format!("/photos?{}", fill("a&")), ""),
        ),
        (
            "a long access key",
            signed("/photos/k", own, "").splice_in("NOBODY", &fill("K")),
        ),
        (
            "a long region",
            signed("/photos/k", own, "").splice_in("us-east-1", &fill("r")),
        ),
        (
            "a presigned URL with a name again and again",
            presigned(
                "/photos/k",
                "",
                &format!("host{}", half("%3Bx-amz-meta-a")),
                &format!("x-amz-meta-a: {}\r\n", half("v")),
            ),
        ),
        (
            "a presigned URL with four canonical forms",
            presigned(
                &format!("/photos/{}", half("*")),
                &format!("&p={}", half("+")),
                "host",
                "",
            ),
        ),
        (
            "a presigned URL with parameters for headers",
            presigned(
                "/photos/k",
                &format!(
                    "&x-amz-meta-{}",
                    "a=b%20&x-amz-meta-"
                        .repeat(bytes / 32)
                        .chars()
                        .take(bytes / 2)
                        .collect::<String>()
                ),
                "host",
                "",
            ),
        ),
        (
            "a URL of signature version 2",
            plain(
                "GET",
                &format!(
                    "/photos/k?AWSAccessKeyId=NOBODY&Expires=9999999999&Signature=AAAAAAAAAAAAAAAAAAAAAAAAAAA%3D&response-content-type={}",
                    fill("%2B")
                ),
                "",
            ),
        ),
        (
            "a long token",
            plain(
                "GET",
                "/photos/k",
                &format!("x-proxy-token: {}\r\n", fill("t")),
            ),
        ),
        (
            "a long host",
            plain("GET", "/k", "")
                .splice_in("host: h", &format!("host: {}.s3.example.com", fill("h"))),
        ),
        (
            "a path that is no bucket and is escaped in XML",
            plain("GET", &format!("/{}", fill("&")), ""),
        ),
        (
            "a path of components",
            plain("PUT", &format!("/photos/{}", fill("a/")), ""),
        ),
        (
            "a source to copy",
            plain(
                "PUT",
                "/photos/k",
                &format!("x-amz-copy-source: /photos/{}\r\n", fill("%2F")),
            ),
        ),
        (
            "a preflight that asks for many headers",
            plain(
                "OPTIONS",
                "/photos/k",
                &format!(
                    "origin: https://a.example.com\r\naccess-control-request-method: GET\r\naccess-control-request-headers: {}\r\n",
                    fill("x-amz-meta-something-else-a,")
                ),
            ),
        ),
        (
            "an admin call",
            plain(
                "GET",
                "/admin/api/status",
                &format!("x-admin-token: {}\r\n", fill("t")),
            ),
        ),
        (
            "an absolute target",
            plain("GET", &format!("http://h/{}", fill("a")), ""),
        ),
        ("no request", fill("\r\n\u{0}").into_bytes()),
        ("a request line without an end", fill("G").into_bytes()),
        (
            "a form of one long field",
            form(&format!("{}--B--\r\n", field("policy", &fill("p")))),
        ),
        (
            "a form of many fields",
            form(&format!("{}--B--\r\n", field("a", "b").repeat(bytes / 58))),
        ),
        (
            "a form with a file",
            form(&format!(
                "{}--B\r\nContent-Disposition: form-data; name=\"file\"; filename=\"f\"\r\n\r\n{}\r\n--B--\r\n",
                field("policy", "p"),
                fill("f")
            )),
        ),
    ]
}

trait SpliceIn {
    fn splice_in(self, from: &str, to: &str) -> Self;
}

impl SpliceIn for Vec<u8> {
    fn splice_in(self, from: &str, to: &str) -> Self {
        let text = String::from_utf8(self).unwrap();
        text.replacen(from, to, 1).into_bytes()
    }
}

/// A head made of parts that a signature, a query or a path gives a meaning.
pub(super) fn random(seed: u64) -> Vec<u8> {
    let mut rng = StdRng::seed_from_u64(seed);
    let text = |rng: &mut StdRng| {
        let part = [
            "a",
            "+",
            "*",
            "%2B",
            "%00",
            "=",
            "&",
            "a=b&",
            ";",
            "/",
            ",",
            "x-amz-meta-a",
            "host;",
            "%3B",
            "\"",
        ];
        let part = part.choose(rng).unwrap();
        let most = *[1, 3, 100, 10_000].choose(rng).unwrap();
        part.repeat(rng.random_range(0..=most) / part.len())
    };
    let method = *["GET", "PUT", "POST", "DELETE", "HEAD", "OPTIONS", "PATCH"]
        .choose(&mut rng)
        .unwrap();
    let target = format!("/{}/{}?{}", text(&mut rng), text(&mut rng), text(&mut rng));
    let target = target.replace('"', "");
    let names = [
        "x-amz-meta-a",
        "x-amz-copy-source",
        "x-amz-trailer",
        "x-amz-tagging",
        "x-amz-checksum-crc32",
        "content-type",
        "range",
        "if-match",
        "cookie",
        "origin",
        "access-control-request-headers",
        "access-control-request-method",
        "content-encoding",
        "x-proxy-token",
    ];
    let mut more = String::new();
    for _ in 0..rng.random_range(0..12) {
        let name = names.choose(&mut rng).unwrap();
        more.push_str(&format!("{name}: {}\r\n", text(&mut rng)));
    }
    let signed_names = format!("host;{}{}", text(&mut rng), text(&mut rng));
    match rng.random_range(0..3) {
        0 => plain(method, &target, &more),
        1 => signed(&target, &signed_names, &more).splice_in("GET", method),
        _ => {
            let path = target.split('?').next().unwrap();
            let query = format!("&{}", text(&mut rng).replace('"', ""));
            presigned(path, &query, &signed_names.replace('"', ""), &more).splice_in("GET", method)
        }
    }
}

/// An input of a fuzz target as a request of a stranger, after that target's own description.
pub(super) fn from_corpus(target: &str, input: &[u8]) -> Vec<u8> {
    let line = |bytes: &[u8]| {
        let clean = bytes.iter().copied().filter(|byte| !b"\r\n".contains(byte));
        clean.collect::<Vec<u8>>()
    };
    let ended = |mut head: Vec<u8>| {
        head.extend_from_slice(b"\r\nhost: h\r\nconnection: close\r\n\r\n");
        head
    };
    match target {
        "canonical" => {
            let mut lines = input.split(|byte| *byte == b'\n').map(line);
            let [method, path, query] = [(); 3].map(|()| lines.next().unwrap_or_default());
            let mut head = [&method[..], b" ", &path, b"?", &query, b" HTTP/1.1"].concat();
            for line in lines {
                head.extend_from_slice(b"\r\n");
                head.extend_from_slice(&line);
            }
            ended(head)
        }
        "presigned" => {
            let query = input
                .split(|byte| *byte == b'\n')
                .next()
                .unwrap_or_default();
            ended([b"GET /photos/k?", &line(query)[..], b" HTTP/1.1"].concat())
        }
        "ranges" => {
            let value = line(input.get(8..).unwrap_or_default());
            ended(
                [
                    b"GET /photos/k HTTP/1.1\r\nrange: ",
                    &value[..],
                    b"\r\nx-amz-copy-source: ",
                    &value,
                ]
                .concat(),
            )
        }
        "heads" => {
            let mut head = input.to_vec();
            head.extend_from_slice(b"\r\nconnection: close\r\n\r\n");
            head
        }
        "form" => {
            let mut request = form("").splice_in(
                "content-length: 0",
                &format!("content-length: {}", input.len()),
            );
            request.extend_from_slice(input);
            request
        }
        _ => {
            let length = format!(
                "content-length: {}\r\nx-amz-content-sha256: STREAMING-UNSIGNED-PAYLOAD-TRAILER\r\n",
                input.len()
            );
            let mut request = plain("POST", "/photos?delete", &length);
            request.extend_from_slice(input);
            request
        }
    }
}
