//! Bodies in chunks that are nearly right: the probes that servers are known to answer differently, each
//! with its answer and with what the metrics say of it.
//!
//! Bodies are framed and signed by hand here, so that nothing of the program vouches for itself.

mod table;

use std::collections::{BTreeMap, BTreeSet};

use base::{ChecksumAlgorithm, Hasher};
use s3wire::sigv4::StreamingVariant::{self, Signed, SignedTrailer, UnsignedTrailer};

use self::table::{ALL, CHUNKS, LENGTH, SIGNED, SIZES, TRAILED, TRAILERS, Verdict};
use super::probes;
use super::support::{Auth, Request, Server, TOKEN, path};

const DATA: &str = "hello";

/// A body of one chunk in its pieces, and the last chunk.
struct Body {
    size: String,
    extension: String,
    end_of_size: &'static str,
    data: String,
    end_of_data: &'static str,
    last: String,
    end_of_last: &'static str,
    /// The line with the checksum.
    trailer: String,
    end_of_trailer: &'static str,
    /// The line with the signature of the trailer, with its end.
    seal: String,
    end: String,
}

impl Body {
    fn text(&self) -> String {
        [
            self.size.as_str(),
            &self.extension,
            self.end_of_size,
            &self.data,
            self.end_of_data,
            &self.last,
            self.end_of_last,
            &self.trailer,
            self.end_of_trailer,
            &self.seal,
            &self.end,
        ]
        .concat()
    }

    /// Everything in front of the last chunk.
    fn without_last(&self) -> String {
        let text = self.text();
        let first = self.size.len()
            + self.extension.len()
            + self.end_of_size.len()
            + self.data.len()
            + self.end_of_data.len();
        text[..first].to_owned()
    }
}

/// What frames a body, chunk by chunk.
struct Framer {
    variant: StreamingVariant,
    signed: probes::Signed,
}

impl Framer {
    fn new(server: &Server, variant: StreamingVariant, length: usize) -> Self {
        let mut headers = vec![("x-amz-decoded-content-length", length.to_string())];
        if variant != Signed {
            headers.push(("x-amz-trailer", "x-amz-checksum-crc32".to_owned()));
        }
        Self::announcing(server, variant, headers)
    }

    /// With these headers, which the head signs.
    fn announcing(
        server: &Server,
        variant: StreamingVariant,
        headers: Vec<(&'static str, String)>,
    ) -> Self {
        let target = path("k");
        let sentinel = variant.sentinel();
        let signed = probes::Signed::with(server, "PUT", (&target, ""), sentinel, headers);
        Self { variant, signed }
    }

    /// The request without its body. Its signature is what the first chunk's goes on from.
    fn head(&self) -> Request {
        self.signed.on(Request::put(&path("k")))
    }

    fn extension(&mut self, data: &str) -> String {
        match self.variant {
            UnsignedTrailer => String::new(),
            Signed | SignedTrailer => {
                format!(";chunk-signature={}", self.signed.chunk(data.as_bytes()))
            }
        }
    }

    /// The body as it should be.
    fn body(&mut self) -> Body {
        self.framed(DATA, checksum(DATA))
    }

    /// A body of this data with this trailer, signed as they are.
    fn framed(&mut self, data: &str, trailer: String) -> Body {
        let extension = self.extension(data);
        let last = format!("0{}", self.extension(""));
        let (trailer, end_of_trailer) = match self.variant {
            Signed => (String::new(), ""),
            UnsignedTrailer | SignedTrailer => (trailer, "\r\n"),
        };
        let seal = match self.variant {
            SignedTrailer => self.seal(&trailer),
            UnsignedTrailer | Signed => String::new(),
        };
        Body {
            size: format!("{:x}", data.len()),
            extension,
            end_of_size: "\r\n",
            data: data.to_owned(),
            end_of_data: "\r\n",
            last,
            end_of_last: "\r\n",
            trailer,
            end_of_trailer,
            seal,
            end: "\r\n".to_owned(),
        }
    }

    fn seal(&mut self, trailer: &str) -> String {
        let signature = self.signed.trailer(&format!("{trailer}\n"));
        format!("x-amz-trailer-signature:{signature}\r\n")
    }

    /// The body with something about it that is wrong.
    fn with(&mut self, change: impl FnOnce(&mut Body)) -> String {
        let mut body = self.body();
        change(&mut body);
        body.text()
    }
}

fn checksum(data: &str) -> String {
    let mut hasher = Hasher::new(ChecksumAlgorithm::Crc32);
    hasher.update(data.as_bytes());
    format!("x-amz-checksum-crc32:{}", hasher.finish().to_base64())
}

type Counts = BTreeMap<String, u64>;

/// What the metrics say of bodies in chunks.
async fn counts(server: &Server) -> Counts {
    let page = server.send(Request::get("/metrics").auth(Auth::None)).await;
    let text = page.expect(200).text();
    let lines = text
        .lines()
        .filter(|line| line.starts_with("s3o_auth_streaming_"));
    let pair = |line: &str| {
        let (name, count) = line.rsplit_once(' ').unwrap();
        (name.to_owned(), count.parse().unwrap())
    };
    lines.map(pair).collect()
}

/// Counts that are `before` and what one request adds to them.
fn and_one(mut before: Counts, variant: StreamingVariant, reason: Option<&str>) -> Counts {
    let mut add = |name: String| *before.entry(name).or_default() += 1;
    let variant = variant.label();
    add(format!(
        "s3o_auth_streaming_requests_total{{variant=\"{variant}\"}}"
    ));
    if let Some(reason) = reason {
        add(format!(
            "s3o_auth_streaming_rejections_total{{reason=\"{reason}\"}}"
        ));
    }
    before
}

#[tokio::test]
async fn every_probe_of_framing_has_its_answer_and_its_reason() {
    let server = Server::start().await;
    server.put("k", b"old").await.expect(200);
    let mut reasons = BTreeSet::new();
    let mut before = counts(&server).await;
    for (name, variants, make, verdict) in [SIZES, CHUNKS, TRAILERS].concat() {
        for variant in variants.iter().copied() {
            let what = format!("{name}, {}", variant.label());
            let mut framer = Framer::new(&server, variant, DATA.len());
            let head = framer.head();
            let body = make(&mut framer);
            let answer = server.send(head.body(body.as_bytes())).await;
            let Verdict(status, code, reason) = verdict;
            assert_eq!(
                answer.verdict(),
                (status, code.to_owned()),
                "{what}\n{body}"
            );
            let after = counts(&server).await;
            assert_eq!(after, and_one(before, variant, reason), "{what}");
            assert_eq!(server.get("k").await.text(), "old", "{what}");
            before = after;
            reasons.extend(reason);
        }
    }
    let all = [
        "chunk_malformed",
        "chunk_signature_mismatch",
        "chunk_too_large",
        "decoded_length_mismatch",
        "trailer_malformed",
        "trailer_signature_mismatch",
    ];
    assert!(reasons.iter().eq(&all), "{reasons:?}");
}

#[tokio::test]
async fn a_client_that_leaves_in_the_middle_of_its_chunks_has_sent_too_little() {
    let server = Server::start().await;
    server.put("k", b"old").await.expect(200);
    let mut before = counts(&server).await;
    for variant in StreamingVariant::ALL {
        let whole = Framer::new(&server, variant, DATA.len())
            .body()
            .text()
            .len();
        for sent in [0, 1, whole / 2, whole - 1] {
            let mut framer = Framer::new(&server, variant, DATA.len());
            let head = framer.head().header("content-length", &whole.to_string());
            let body = framer.body().text();
            let mut wire = server.connect().await;
            wire.write(&head.head_bytes(server.addr).0).await;
            wire.write(&body.as_bytes()[..sent]).await;
            wire.finish().await;
            let answer = wire.response(false).await;
            let Verdict(status, code, reason) = LENGTH;
            let what = format!("{sent} of {whole}, {}", variant.label());
            assert_eq!(answer.verdict(), (status, code.to_owned()), "{what}");
            let after = counts(&server).await;
            assert_eq!(after, and_one(before, variant, reason), "{what}");
            before = after;
        }
    }
    assert_eq!(server.get("k").await.text(), "old");
}

#[tokio::test]
async fn heads_that_do_not_say_how_their_body_is_framed_are_refused_and_not_counted() {
    let server = Server::start().await;
    server.put("k", b"old").await.expect(200);
    let length = || ("x-amz-decoded-content-length", DATA.len().to_string());
    let trailer = |value: &str| ("x-amz-trailer", value.to_owned());
    let crc32 = || trailer("x-amz-checksum-crc32");
    let (request, missing) = ((400, "InvalidRequest"), (411, "MissingContentLength"));
    let before = counts(&server).await;
    for (name, variants, headers, verdict) in [
        ("x-amz-trailer missing", TRAILED, vec![length()], request),
        (
            "x-amz-trailer that is no checksum",
            TRAILED,
            vec![length(), trailer("x-amz-meta-a")],
            request,
        ),
        (
            "x-amz-trailer of two",
            TRAILED,
            vec![
                length(),
                trailer("x-amz-checksum-crc32,x-amz-checksum-crc32c"),
            ],
            request,
        ),
        (
            "x-amz-trailer where none is announced",
            &[Signed][..],
            vec![length(), crc32()],
            request,
        ),
        ("no decoded length", TRAILED, vec![crc32()], missing),
        ("no decoded length", &[Signed], vec![], missing),
    ] {
        for variant in variants.iter().copied() {
            let mut framer = Framer::announcing(&server, variant, headers.clone());
            let head = framer.head();
            let answer = server
                .send(head.body(framer.body().text().as_bytes()))
                .await;
            assert_eq!(
                answer.verdict(),
                (verdict.0, verdict.1.to_owned()),
                "{name}, {variant:?}"
            );
        }
    }
    for variant in StreamingVariant::ALL {
        // What is not signed may have been put there by anybody.
        let mut framer = Framer::announcing(&server, variant, Vec::new());
        let head = framer.head().header("x-amz-decoded-content-length", "5");
        let answer = server
            .send(head.body(framer.body().text().as_bytes()))
            .await;
        assert_eq!(
            answer.verdict(),
            (403, "AccessDenied".into()),
            "{variant:?}"
        );
    }
    for variant in SIGNED {
        // A chain needs a signature to go on from.
        let mut framer = Framer::new(&server, *variant, DATA.len());
        let mut head = framer.head().auth(Auth::Token(TOKEN.to_owned()));
        head.headers.remove("authorization");
        let answer = server
            .send(head.body(framer.body().text().as_bytes()))
            .await;
        assert_eq!(
            answer.verdict(),
            (403, "AccessDenied".into()),
            "{variant:?}"
        );
    }
    assert_eq!(counts(&server).await, before);
    assert_eq!(server.get("k").await.text(), "old");
}

#[tokio::test]
async fn what_is_unusual_but_right_is_taken() {
    type Good = (
        &'static str,
        &'static [StreamingVariant],
        fn(&mut Framer) -> String,
    );
    let good: &[Good] = &[
        ("one chunk", ALL, |f| f.body().text()),
        ("sixteen digits", ALL, |f| {
            f.with(|b| b.size = "0000000000000005".into())
        }),
        ("zeros for the last chunk", &[UnsignedTrailer], |f| {
            f.with(|b| b.last = "00000".into())
        }),
        ("two chunks", SIGNED, |f| {
            let first = format!("2{}\r\nhe\r\n", f.extension("he"));
            let rest = f.framed("llo", checksum(DATA));
            format!("{first}{}", rest.text())
        }),
        ("a name in capitals", &[UnsignedTrailer], |f| {
            f.with(|b| b.trailer = b.trailer.replace("x-amz-checksum", "X-Amz-Checksum"))
        }),
        ("blanks around the checksum", &[UnsignedTrailer], |f| {
            f.with(|b| b.trailer = b.trailer.replace(':', ": ") + " ")
        }),
        // MinIO's client for Go.
        ("a line feed in front of the CRLF", &[SignedTrailer], |f| {
            f.with(|b| b.trailer.push('\n'))
        }),
    ];
    let server = Server::start().await;
    let mut before = counts(&server).await;
    for (name, variants, make) in good {
        for variant in variants.iter().copied() {
            let what = format!("{name}, {}", variant.label());
            server.send(Request::delete(&path("k"))).await.expect(204);
            let mut framer = Framer::new(&server, variant, DATA.len());
            let head = framer.head();
            let body = make(&mut framer);
            let answer = server.send(head.body(body.as_bytes())).await;
            assert_eq!(answer.status, 200, "{what}: {}\n{body}", answer.text());
            assert_eq!(server.get("k").await.text(), DATA, "{what}");
            let after = counts(&server).await;
            assert_eq!(after, and_one(before, variant, None), "{what}");
            before = after;
        }
    }
}
