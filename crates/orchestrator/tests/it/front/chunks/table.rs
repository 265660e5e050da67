//! The probes, by what is wrong.

use s3wire::sigv4::StreamingVariant::{self, Signed, SignedTrailer, UnsignedTrailer};

use super::{DATA, Framer, checksum};

/// Status and code of the answer, and the reason that the metrics count; none where the framing is right.
#[derive(Debug, Clone, Copy)]
pub(super) struct Verdict(
    pub(super) u16,
    pub(super) &'static str,
    pub(super) Option<&'static str>,
);

const CHUNK: Verdict = Verdict(400, "InvalidRequest", Some("chunk_malformed"));
const LARGE: Verdict = Verdict(400, "InvalidRequest", Some("chunk_too_large"));
const TRAILER: Verdict = Verdict(400, "MalformedTrailerError", Some("trailer_malformed"));
pub(super) const LENGTH: Verdict = Verdict(400, "IncompleteBody", Some("decoded_length_mismatch"));
const FORGED: Verdict = Verdict(
    403,
    "SignatureDoesNotMatch",
    Some("chunk_signature_mismatch"),
);
const FORGED_TRAILER: Verdict = Verdict(
    403,
    "SignatureDoesNotMatch",
    Some("trailer_signature_mismatch"),
);
const DIGEST: Verdict = Verdict(400, "BadDigest", None);

/// Which kinds of bodies a probe is made of.
pub(super) const ALL: &[StreamingVariant] = &StreamingVariant::ALL;
pub(super) const SIGNED: &[StreamingVariant] = &[Signed, SignedTrailer];
pub(super) const TRAILED: &[StreamingVariant] = &[UnsignedTrailer, SignedTrailer];

/// A probe's name, the kinds of bodies that it is made of, how, and its answer.
pub(super) type Probe = (
    &'static str,
    &'static [StreamingVariant],
    fn(&mut Framer) -> String,
    Verdict,
);

pub(super) const SIZES: &[Probe] = &[
    (
        "`zz` size",
        ALL,
        |f| f.with(|b| b.size = "zz".into()),
        CHUNK,
    ),
    ("no size", ALL, |f| f.with(|b| b.size.clear()), CHUNK),
    (
        "size `5qq`",
        ALL,
        |f| f.with(|b| b.size = "5qq".into()),
        CHUNK,
    ),
    (
        "size `5 junk`",
        ALL,
        |f| f.with(|b| b.size = "5 junk".into()),
        CHUNK,
    ),
    (
        "size `+5`",
        ALL,
        |f| f.with(|b| b.size = "+5".into()),
        CHUNK,
    ),
    (
        "size `-5`",
        ALL,
        |f| f.with(|b| b.size = "-5".into()),
        CHUNK,
    ),
    (
        "size ` 5`",
        ALL,
        |f| f.with(|b| b.size = " 5".into()),
        CHUNK,
    ),
    (
        "size `0x5`",
        ALL,
        |f| f.with(|b| b.size = "0x5".into()),
        CHUNK,
    ),
    (
        "size `000000050` and 5 bytes",
        ALL,
        |f| f.with(|b| b.size = "000000050".into()),
        LENGTH,
    ),
    (
        "size `100000005` and 5 bytes",
        &[UnsignedTrailer],
        |f| f.with(|b| b.size = "100000005".into()),
        LENGTH,
    ),
    (
        "size of 17 digits",
        ALL,
        |f| f.with(|b| b.size = "00000000000000005".into()),
        CHUNK,
    ),
    (
        "a signed chunk of more than 16 MiB",
        SIGNED,
        |f| f.with(|b| b.size = "1000001".into()),
        LARGE,
    ),
    (
        "2000-byte chunk header of digits",
        ALL,
        |f| f.with(|b| b.size = format!("{}5", "0".repeat(2000))),
        CHUNK,
    ),
    (
        "2000-byte chunk header",
        ALL,
        |f| f.with(|b| b.extension = format!(";chunk-signature={}", "0".repeat(2000))),
        LARGE,
    ),
];

pub(super) const CHUNKS: &[Probe] = &[
    ("no final 0-chunk", ALL, |f| f.body().without_last(), CHUNK),
    (
        "final chunk cut mid-header",
        ALL,
        |f| {
            let body = f.body();
            let size = body.last.len().min(4);
            format!("{}{}", body.without_last(), &body.last[..size])
        },
        CHUNK,
    ),
    (
        "final chunk cut in front of its line end",
        ALL,
        |f| {
            let body = f.body();
            format!("{}{}\r", body.without_last(), body.last)
        },
        CHUNK,
    ),
    (
        "cut behind the final chunk",
        &[Signed],
        |f| f.with(|b| b.end.clear()),
        CHUNK,
    ),
    (
        "cut in the data",
        ALL,
        |f| {
            let first = f.body().without_last();
            first[..first.len() - 4].to_owned()
        },
        LENGTH,
    ),
    ("no body", ALL, |_| String::new(), LENGTH),
    (
        "bare LF behind the size",
        ALL,
        |f| f.with(|b| b.end_of_size = "\n"),
        CHUNK,
    ),
    (
        "bare CR behind the size",
        ALL,
        |f| f.with(|b| b.end_of_size = "\r"),
        CHUNK,
    ),
    (
        "bare LF behind the data",
        ALL,
        |f| f.with(|b| b.end_of_data = "\n"),
        CHUNK,
    ),
    (
        "no CRLF behind the data",
        ALL,
        |f| f.with(|b| b.end_of_data = ""),
        CHUNK,
    ),
    (
        "bare LF behind the final chunk",
        ALL,
        |f| f.with(|b| b.end_of_last = "\n"),
        CHUNK,
    ),
    (
        "no chunk-signature",
        SIGNED,
        |f| f.with(|b| b.extension.clear()),
        CHUNK,
    ),
    (
        "no chunk-signature of the final chunk",
        SIGNED,
        |f| f.with(|b| b.last = "0".into()),
        CHUNK,
    ),
    (
        "an extension of another name",
        SIGNED,
        |f| f.with(|b| b.extension = b.extension.replace("chunk-s", "chunk-S")),
        CHUNK,
    ),
    (
        "an extension without a signature",
        &[UnsignedTrailer],
        |f| f.with(|b| b.extension = ";a=b".into()),
        CHUNK,
    ),
    (
        "a signature of 63 digits",
        SIGNED,
        |f| f.with(|b| b.extension.truncate(b.extension.len() - 1)),
        CHUNK,
    ),
    (
        "bytes behind the end",
        ALL,
        |f| f.with(|b| b.end.push('x')),
        CHUNK,
    ),
    (
        "a blank line behind the end",
        ALL,
        |f| f.with(|b| b.end.push_str("\r\n")),
        CHUNK,
    ),
    (
        "a trailer that nobody announced",
        &[Signed],
        |f| f.with(|b| b.end = format!("{}\r\n\r\n", checksum(DATA))),
        CHUNK,
    ),
    (
        "too few bytes",
        ALL,
        |f| f.framed("hell", checksum("hell")).text(),
        LENGTH,
    ),
    (
        "too many bytes",
        ALL,
        |f| f.framed("hello!", checksum("hello!")).text(),
        LENGTH,
    ),
    (
        "a changed byte",
        SIGNED,
        |f| f.with(|b| b.data = "hallo".into()),
        FORGED,
    ),
    (
        "a changed byte",
        &[UnsignedTrailer],
        |f| f.with(|b| b.data = "hallo".into()),
        DIGEST,
    ),
    (
        "a wrong chunk-signature",
        SIGNED,
        |f| f.with(|b| b.extension = forge(&b.extension)),
        FORGED,
    ),
    (
        "a wrong signature of the final chunk",
        SIGNED,
        |f| f.with(|b| b.last = forge(&b.last)),
        FORGED,
    ),
    (
        "the signature of a chunk on the final one",
        SIGNED,
        |f| f.with(|b| b.last = format!("0{}", b.extension)),
        FORGED,
    ),
    (
        "chunks in another order",
        SIGNED,
        |f| {
            let (one, two) = (f.extension("he"), f.extension("llo"));
            format!(
                "3{two}\r\nllo\r\n2{one}\r\nhe\r\n0{}\r\n\r\n",
                f.extension("")
            )
        },
        FORGED,
    ),
];

pub(super) const TRAILERS: &[Probe] = &[
    (
        "trailer block absent",
        TRAILED,
        |f| {
            f.with(|b| {
                b.trailer.clear();
                b.end_of_trailer = "";
                b.seal.clear();
            })
        },
        TRAILER,
    ),
    (
        "trailer block absent, and the end too",
        TRAILED,
        |f| {
            let body = f.body();
            format!("{}{}\r\n", body.without_last(), body.last)
        },
        TRAILER,
    ),
    (
        "missing x-amz-trailer-signature",
        &[SignedTrailer],
        |f| f.with(|b| b.seal.clear()),
        TRAILER,
    ),
    (
        "missing x-amz-trailer-signature, and the end too",
        &[SignedTrailer],
        |f| {
            f.with(|b| {
                b.seal.clear();
                b.end.clear();
            })
        },
        TRAILER,
    ),
    (
        "nothing but x-amz-trailer-signature",
        &[SignedTrailer],
        |f| {
            f.with(|b| {
                b.trailer.clear();
                b.end_of_trailer = "";
            })
        },
        TRAILER,
    ),
    (
        "bare LF in trailers",
        TRAILED,
        |f| f.with(|b| b.end_of_trailer = "\n"),
        TRAILER,
    ),
    (
        "bare LF in trailers, all of them",
        TRAILED,
        |f| {
            f.with(|b| {
                b.end_of_trailer = "\n";
                b.seal = b.seal.replace("\r\n", "\n");
                b.end = "\n".into();
            })
        },
        TRAILER,
    ),
    (
        "trailers not ended by blank line",
        TRAILED,
        |f| f.with(|b| b.end.clear()),
        TRAILER,
    ),
    (
        "trailers ended by half a blank line",
        TRAILED,
        |f| f.with(|b| b.end = "\r".into()),
        TRAILER,
    ),
    (
        "trailers ended by bare LF",
        TRAILED,
        |f| f.with(|b| b.end = "\n".into()),
        TRAILER,
    ),
    (
        "undeclared trailer name",
        TRAILED,
        |f| f.with(|b| b.trailer = b.trailer.replace("crc32", "crc32c")),
        TRAILER,
    ),
    (
        "undeclared trailer name that is no checksum",
        TRAILED,
        |f| f.with(|b| b.trailer = "x-amz-meta-a:b".into()),
        TRAILER,
    ),
    (
        "undeclared trailer behind the declared one",
        TRAILED,
        |f| f.with(|b| b.end = "x-amz-meta-a:b\r\n\r\n".into()),
        TRAILER,
    ),
    (
        "the declared trailer twice",
        TRAILED,
        |f| f.with(|b| b.trailer = format!("{0}\r\n{0}", b.trailer)),
        TRAILER,
    ),
    (
        "a checksum that is none",
        TRAILED,
        |f| f.with(|b| b.trailer = "x-amz-checksum-crc32:hello".into()),
        TRAILER,
    ),
    (
        "2000-byte trailer",
        TRAILED,
        |f| f.with(|b| b.trailer.push_str(&" ".repeat(2000))),
        TRAILER,
    ),
    (
        "a wrong x-amz-trailer-signature",
        &[SignedTrailer],
        |f| f.with(|b| b.seal = forge(&b.seal)),
        FORGED_TRAILER,
    ),
    (
        "x-amz-trailer-signature of 63 digits",
        &[SignedTrailer],
        |f| f.with(|b| b.seal = format!("{}\r\n", &b.seal[..b.seal.len() - 3])),
        TRAILER,
    ),
    (
        "another checksum under the same x-amz-trailer-signature",
        &[SignedTrailer],
        |f| f.with(|b| b.trailer = checksum("hallo")),
        FORGED_TRAILER,
    ),
    (
        "a checksum of something else",
        TRAILED,
        |f| f.framed(DATA, checksum("hallo")).text(),
        DIGEST,
    ),
];

/// The same text with one digit of the signature at its end, or of the only one in it, changed.
fn forge(text: &str) -> String {
    let at = text.rfind(|c: char| c.is_ascii_hexdigit()).unwrap();
    let other = if text.as_bytes()[at] == b'0' {
        "1"
    } else {
        "0"
    };
    format!("{}{other}{}", &text[..at], &text[at + 1..])
}
