//! The documented bodies, every malformed one that is known to have fooled somebody, and round
//! trips with splits at every byte.

use base::{ChecksumAlgorithm, Crc64, Hasher, Secret, Timestamp};
use bytes::Bytes;
use http::{HeaderMap, Method};
use proptest::prelude::{Strategy, any, prop_assert_eq, proptest};
use proptest::{collection, sample};

use super::*;
use crate::ErrorCode;
use crate::headers::BodyClaims;
use crate::sigv4::{
    Chain, Claim, PayloadMode, RequestHead, SignRequest, Signer, SigningSecret, StreamingVariant,
};

const SECRET: &str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";
const NOW: Timestamp = Timestamp::from_millis(1_369_353_600_000);

fn chain() -> Chain {
    let signer = Signer::new("AKIA".into(), Secret::new(SECRET.into()), "r".into()).unwrap();
    let mut headers = HeaderMap::new();
    headers.insert("host", "h".parse().unwrap());
    let payload = PayloadMode::Streaming(StreamingVariant::Signed);
    let request = SignRequest {
        method: &Method::PUT,
        path: "/b/k",
        query: "",
        payload,
        now: NOW,
    };
    signer.sign(request, &mut headers)
}

fn framing(variant: StreamingVariant) -> Framing {
    match variant {
        StreamingVariant::UnsignedTrailer => Framing::UnsignedTrailer(ChecksumAlgorithm::Crc64Nvme),
        StreamingVariant::Signed => Framing::Signed(chain()),
        StreamingVariant::SignedTrailer => {
            Framing::SignedTrailer(chain(), ChecksumAlgorithm::Crc64Nvme)
        }
    }
}

fn trailer(variant: StreamingVariant, payload: &[u8]) -> Option<Checksum> {
    match variant {
        StreamingVariant::Signed => None,
        StreamingVariant::UnsignedTrailer | StreamingVariant::SignedTrailer => {
            Some(Crc64::of(payload).to_checksum())
        }
    }
}

fn encode(variant: StreamingVariant, payload: &[u8], step: usize) -> Vec<u8> {
    let mut encoder = Encoder::new(framing(variant), payload.len() as u64);
    let mut out = Vec::new();
    for slice in payload.chunks(step.max(1)) {
        encoder
            .push(Bytes::copy_from_slice(slice), &mut out)
            .unwrap();
    }
    encoder
        .finish(trailer(variant, payload).as_ref(), &mut out)
        .unwrap();
    out.concat()
}

type Decoded = Result<(Vec<u8>, Option<Checksum>), Reject>;

/// Decodes a body that arrives in these slices.
fn decode<'a>(
    framing: Framing,
    length: u64,
    slices: impl IntoIterator<Item = &'a [u8]>,
) -> Decoded {
    let mut decoder = Decoder::new(framing, length);
    let mut out = Vec::new();
    for slice in slices {
        decoder.feed(Bytes::copy_from_slice(slice), &mut out)?;
    }
    let trailer = decoder.finish()?;
    Ok((out.concat(), trailer))
}

/// Decodes a body whole and byte by byte, which has to make no difference.
fn decode_both(variant: StreamingVariant, length: u64, body: &[u8]) -> Decoded {
    let whole = decode(framing(variant), length, [body]);
    let single = decode(framing(variant), length, body.chunks(1));
    assert_eq!(whole, single, "{}", String::from_utf8_lossy(body));
    whole
}

// Amazon S3 API reference, "Signature Calculations for the Authorization Header: Transferring
// Payload in Multiple Chunks".
#[test]
fn the_documented_signed_body_verifies_from_its_head_on() {
    let mut headers = HeaderMap::new();
    for (name, value) in [
        ("host", "s3.amazonaws.com"),
        ("x-amz-date", "20130524T000000Z"),
        ("x-amz-storage-class", "REDUCED_REDUNDANCY"),
        (
            "authorization",
            "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request,SignedHeaders=content-encoding;content-length;host;x-amz-content-sha256;x-amz-date;x-amz-decoded-content-length;x-amz-storage-class,Signature=4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9",
        ),
        ("x-amz-content-sha256", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"),
        ("content-encoding", "aws-chunked"),
        ("x-amz-decoded-content-length", "66560"),
        ("content-length", "66824"),
    ] {
        headers.insert(name, value.parse().unwrap());
    }
    let head = RequestHead {
        method: &Method::PUT,
        path: "/examplebucket/chunkObject.txt",
        query: "",
        headers: &headers,
    };
    let claim = Claim::parse(head).unwrap().unwrap();
    let secret = SigningSecret::new(Secret::new(SECRET.into()));
    let verified = claim.verify(&secret, NOW).unwrap();
    let claims = crate::headers::body_claims(&headers).unwrap();

    let mut body = Vec::new();
    for (size, signature) in [
        (
            65_536,
            "ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648",
        ),
        (
            1024,
            "0055627c9e194cb4542bae2aa5492e3c1575bbb81b612b7d234b86a503ef5497",
        ),
        (
            0,
            "b6c6ea8a5354eaf15b3cb7646744f4275b71ea724fed81ceb9323e279d449df9",
        ),
    ] {
        body.extend(format!("{size:x};chunk-signature={signature}\r\n").into_bytes());
        body.extend(vec![b'a'; size]);
        body.extend(b"\r\n");
    }
    assert_eq!(body.len(), 66_824);
    let payload = vec![b'a'; 66_560];
    for step in [1, 7, 4096, body.len()] {
        let chain = Some(verified.chain.clone());
        let mut decoder = Decoder::for_request(verified.payload, chain, &claims)
            .unwrap()
            .unwrap();
        let mut out = Vec::new();
        for slice in body.chunks(step) {
            decoder
                .feed(Bytes::copy_from_slice(slice), &mut out)
                .unwrap();
        }
        assert_eq!(decoder.finish(), Ok(None));
        assert_eq!(out.concat(), payload);
    }
    // Our encoder makes the same chunks.
    let mut encoder = Encoder::new(Framing::Signed(verified.chain.clone()), 66_560);
    let mut out = Vec::new();
    encoder.push(payload.into(), &mut out).unwrap();
    encoder.finish(None, &mut out).unwrap();
    assert_eq!(out.concat(), body);
}

// The same, "… including trailing headers".
#[test]
fn the_documented_trailer_signature_is_ours() {
    let mut hasher = Hasher::new(ChecksumAlgorithm::Crc32c);
    let payload = vec![b'a'; 66_560];
    hasher.update(&payload);
    let checksum = hasher.finish();
    assert_eq!(checksum.to_base64(), "sOO8/Q==");
    let chain = Chain::for_tests(
        &SigningSecret::new(Secret::new(SECRET.into())),
        "20130524T000000Z",
        "20130524/us-east-1/s3/aws4_request",
        "106e2a8a18243abcf37539882f36619c00e2dfc72633413f02d3b74544bfeb8e",
    );
    let framing = Framing::SignedTrailer(chain, ChecksumAlgorithm::Crc32c);
    let mut encoder = Encoder::new(framing, 66_560);
    let mut out = Vec::new();
    encoder.push(payload.into(), &mut out).unwrap();
    encoder.finish(Some(&checksum), &mut out).unwrap();
    let body = String::from_utf8(out.concat()).unwrap();
    for signature in [
        "10000;chunk-signature=b474d8862b1487a5145d686f57f013e54db672cee1c953b3010fb58501ef5aa2\r\n",
        "\r\n400;chunk-signature=1c1344b170168f8e65b41376b44b20fe354e373826ccbbe2c1d40a8cae51e5c7\r\n",
        "\r\n0;chunk-signature=2ca2aba2005185cf7159c6277faf83795951dd77a3a99e6e65d5c9f85863f992\r\n",
        "x-amz-checksum-crc32c:sOO8/Q==\r\n",
        "x-amz-trailer-signature:d81f82fc3505edab99d459891051a732e8730629a2e4a59689829ca17fe2e435\r\n\r\n",
    ] {
        assert!(body.contains(signature), "{signature}");
    }
}

const UNSIGNED: StreamingVariant = StreamingVariant::UnsignedTrailer;
const SUM: &str = "x-amz-checksum-crc64nvme:AAAAAAAAAAA=";

fn unsigned(length: u64, body: &str) -> Decoded {
    decode_both(UNSIGNED, length, body.as_bytes())
}

#[test]
fn well_formed_bodies_decode() {
    for body in [
        format!("5\r\nhello\r\n0\r\n{SUM}\r\n\r\n"),
        format!("2\r\nhe\r\n3\r\nllo\r\n0\r\n{SUM}\r\n\r\n"),
        format!("0000000000000005\r\nhello\r\n00\r\n{SUM}\r\n\r\n"),
        "5\r\nhello\r\n0\r\nX-Amz-Checksum-Crc64nvme: AAAAAAAAAAA= \r\n\r\n".to_owned(),
        // MinIO's Go client.
        format!("5\r\nhello\r\n0\r\n{SUM}\n\r\n\r\n"),
    ] {
        let (payload, trailer) = unsigned(5, &body).unwrap_or_else(|why| panic!("{body}: {why}"));
        assert_eq!(payload, b"hello");
        assert_eq!(trailer.unwrap().to_base64(), "AAAAAAAAAAA=");
    }
    let empty = format!("0\r\n{SUM}\r\n\r\n");
    assert!(unsigned(0, &empty).unwrap().0.is_empty());
}

#[test]
fn malformed_framing_is_refused() {
    let end = format!("0\r\n{SUM}\r\n\r\n");
    let long = format!("5{}", ";".repeat(2000));
    let zeros = format!("{}5\r\nhello\r\n{end}", "0".repeat(16));
    for (body, expected) in [
        // Line ends that are not CRLF.
        (format!("5\nhello\r\n{end}"), Reject::ChunkMalformed),
        (format!("5\rhello\r\n{end}"), Reject::ChunkMalformed),
        (format!("5\r\nhello\n{end}"), Reject::ChunkMalformed),
        (format!("5\r\nhello{end}"), Reject::ChunkMalformed),
        ("5hello0".to_owned(), Reject::ChunkMalformed),
        // Sizes that are not sizes.
        (format!("zz\r\nhello\r\n{end}"), Reject::ChunkMalformed),
        (format!("\r\nhello\r\n{end}"), Reject::ChunkMalformed),
        (format!("5qq\r\nhello\r\n{end}"), Reject::ChunkMalformed),
        (format!("5 junk\r\nhello\r\n{end}"), Reject::ChunkMalformed),
        (format!(" 5\r\nhello\r\n{end}"), Reject::ChunkMalformed),
        (format!("+5\r\nhello\r\n{end}"), Reject::ChunkMalformed),
        (format!("0x5\r\nhello\r\n{end}"), Reject::ChunkMalformed),
        (format!("-5\r\nhello\r\n{end}"), Reject::ChunkMalformed),
        (zeros, Reject::ChunkMalformed),
        (format!("5;ext=1\r\nhello\r\n{end}"), Reject::ChunkMalformed),
        (long, Reject::ChunkTooLarge),
        // More than eight digits are not cut off: this is 80 bytes, not 5.
        (
            format!("000000050\r\nhello\r\n{end}"),
            Reject::DecodedLengthMismatch,
        ),
        (
            format!("100000005\r\nhello\r\n{end}"),
            Reject::DecodedLengthMismatch,
        ),
        (
            format!("ffffffffffffffff\r\nhello\r\n{end}"),
            Reject::DecodedLengthMismatch,
        ),
        // Wrong lengths.
        (
            format!("6\r\nhello!\r\n{end}"),
            Reject::DecodedLengthMismatch,
        ),
        (format!("4\r\nhell\r\n{end}"), Reject::DecodedLengthMismatch),
        (
            format!("5\r\nhello\r\n1\r\n!\r\n{end}"),
            Reject::DecodedLengthMismatch,
        ),
        // Cut.
        (String::new(), Reject::DecodedLengthMismatch),
        ("5\r\nhel".to_owned(), Reject::DecodedLengthMismatch),
        ("5\r\nhello".to_owned(), Reject::ChunkCut),
        ("5\r\nhello\r\n".to_owned(), Reject::ChunkCut),
        ("5\r\nhello\r\n0".to_owned(), Reject::ChunkCut),
        ("5\r\nhello\r\n0\r\n".to_owned(), Reject::TrailerCut),
        (format!("5\r\nhello\r\n0\r\n{SUM}"), Reject::TrailerCut),
        (format!("5\r\nhello\r\n0\r\n{SUM}\r\n"), Reject::TrailerCut),
        (
            format!("5\r\nhello\r\n0\r\n{SUM}\r\n\r"),
            Reject::TrailerCut,
        ),
        // Trailers.
        (
            "5\r\nhello\r\n0\r\n\r\n".to_owned(),
            Reject::TrailerMalformed,
        ),
        (
            format!("5\r\nhello\r\n0\r\n{SUM}\n\n"),
            Reject::TrailerMalformed,
        ),
        (
            format!("5\r\nhello\r\n0\r\n{SUM}\nx:y\r\n\r\n"),
            Reject::TrailerMalformed,
        ),
        (
            format!("5\r\nhello\r\n0\r\n{SUM}\r\n{SUM}\r\n\r\n"),
            Reject::TrailerMalformed,
        ),
        (
            format!("5\r\nhello\r\n0\r\n{SUM}\r\nx-other:y\r\n\r\n"),
            Reject::TrailerMalformed,
        ),
        (
            "5\r\nhello\r\n0\r\nx-other:y\r\n\r\n".to_owned(),
            Reject::TrailerMalformed,
        ),
        (
            "5\r\nhello\r\n0\r\nx-amz-checksum-crc32:AAAAAA==\r\n\r\n".to_owned(),
            Reject::TrailerMalformed,
        ),
        (
            "5\r\nhello\r\n0\r\nx-amz-checksum-crc64nvme:AAAA\r\n\r\n".to_owned(),
            Reject::TrailerMalformed,
        ),
        (
            format!("5\r\nhello\r\n0\r\n{SUM}\r\nx-amz-trailer-signature:00\r\n\r\n"),
            Reject::TrailerMalformed,
        ),
        (
            format!("5\r\nhello\r\n0\r\n{SUM}{}\r\n\r\n", " ".repeat(2000)),
            Reject::TrailerMalformed,
        ),
        // Behind the end.
        (format!("5\r\nhello\r\n{end}x"), Reject::ChunkMalformed),
        (format!("5\r\nhello\r\n{end}\r\n"), Reject::ChunkMalformed),
    ] {
        assert_eq!(unsigned(5, &body), Err(expected), "{body:?}");
    }
}

#[test]
fn signed_bodies_are_checked_chunk_by_chunk() {
    let payload = b"hello world".as_slice();
    let signed = encode(StreamingVariant::Signed, payload, 5);
    let text = String::from_utf8(signed.clone()).unwrap();
    let decode = |body: &str| decode_both(StreamingVariant::Signed, 11, body.as_bytes());
    assert_eq!(decode(&text).unwrap(), (payload.to_vec(), None));
    for (from, to, expected) in [
        ("hello", "jello", Reject::ChunkSignatureMismatch),
        (
            "chunk-signature=",
            "chunk-signature=\u{7f}",
            Reject::ChunkMalformed,
        ),
        (
            "chunk-signature=",
            "chunk-signaturE=",
            Reject::ChunkMalformed,
        ),
        (
            ";chunk-signature=",
            "; chunk-signature=",
            Reject::ChunkMalformed,
        ),
        ("b;", "1000001;", Reject::ChunkTooLarge),
        ("b;", "c;", Reject::DecodedLengthMismatch),
    ] {
        assert_eq!(
            decode(&text.replacen(from, to, 1)),
            Err(expected),
            "{from} -> {to}"
        );
    }
    let (first, last) = text.split_at(text.find("\r\n0;").unwrap() + 2);
    for end in [
        "",
        last.trim_end(),
        &last[..last.len() - 2],
        &last[..last.len() - 1],
    ] {
        assert_eq!(decode(&format!("{first}{end}")), Err(Reject::ChunkCut));
    }
    // A last chunk with the signature of another position.
    let stolen = &first[first.find('=').unwrap() + 1..][..64];
    let forged = format!("{first}0;chunk-signature={stolen}\r\n\r\n");
    assert_eq!(decode(&forged), Err(Reject::ChunkSignatureMismatch));
    // No signature at all, and framing that a trailer would have.
    assert_eq!(
        decode("b\r\nhello world\r\n0\r\n\r\n"),
        Err(Reject::ChunkMalformed)
    );
    let trailed = format!(
        "{first}{}x-amz-checksum-crc32:AAAAAA==\r\n\r\n",
        last.trim_end()
    );
    assert_eq!(decode(&trailed), Err(Reject::ChunkMalformed));
    // Chunks cannot change places.
    let two = encode_chunks(&[b"aaaa", b"bbbb"]);
    let swapped = two
        .replace("aaaa", "cccc")
        .replace("bbbb", "aaaa")
        .replace("cccc", "bbbb");
    assert_eq!(
        decode_both(StreamingVariant::Signed, 8, two.as_bytes())
            .unwrap()
            .0,
        b"aaaabbbb"
    );
    assert_eq!(
        decode_both(StreamingVariant::Signed, 8, swapped.as_bytes()),
        Err(Reject::ChunkSignatureMismatch)
    );
}

fn encode_chunks(chunks: &[&[u8]]) -> String {
    let mut chain = chain();
    let mut body = String::new();
    for chunk in chunks.iter().chain([&b"".as_slice()]) {
        let mut context = Context::new(&SHA256);
        context.update(chunk);
        let signature = chain.chunk(&sha256(context));
        let signature = crate::sigv4::hex_str(&signature);
        let text = std::str::from_utf8(chunk).unwrap();
        body.push_str(&format!(
            "{:x};chunk-signature={signature}\r\n{text}\r\n",
            chunk.len()
        ));
    }
    body
}

#[test]
fn the_largest_signed_chunk_is_taken() {
    assert_eq!(SIGNED_CHUNK_BYTES_MAX, 16 << 20);
    for (more, expected) in [(0, Ok(())), (1, Err(Reject::ChunkTooLarge))] {
        let chunk = vec![b'x'; (16 << 20) + more];
        let body = encode_chunks(&[&chunk]);
        let mut decoder = Decoder::new(framing(StreamingVariant::Signed), chunk.len() as u64);
        let fed = decoder.feed(body.into(), &mut Vec::new());
        assert_eq!(fed.and_then(|()| decoder.finish().map(drop)), expected);
    }
}

#[test]
fn signed_trailers_are_checked() {
    let variant = StreamingVariant::SignedTrailer;
    let payload = b"hello".as_slice();
    let text = String::from_utf8(encode(variant, payload, 5)).unwrap();
    let decode = |body: &str| decode_both(variant, 5, body.as_bytes());
    let sum = Crc64::of(payload).to_checksum();
    assert_eq!(decode(&text), Ok((payload.to_vec(), Some(sum))));

    let other = text.replace(&sum.to_base64(), "AAAAAAAAAAA=");
    assert_eq!(decode(&other), Err(Reject::TrailerSignatureMismatch));
    let (before, signature) = text.split_at(text.find("x-amz-trailer-signature").unwrap());
    assert_eq!(
        decode(&format!("{before}\r\n")),
        Err(Reject::TrailerMalformed)
    );
    assert_eq!(decode(before), Err(Reject::TrailerCut));
    let head = &before[..before.find("x-amz-checksum").unwrap()];
    assert_eq!(
        decode(&format!("{head}{signature}")),
        Err(Reject::TrailerMalformed)
    );
    assert_eq!(
        decode(&format!("{head}\r\n")),
        Err(Reject::TrailerMalformed)
    );
    assert_eq!(decode(head), Err(Reject::TrailerCut));
    let digit = text.replacen("trailer-signature:", "trailer-signature:x", 1);
    assert_eq!(decode(&digit), Err(Reject::TrailerMalformed));
    // MinIO's Go client ends the checksum's line like this.
    let value = sum.to_base64();
    let minio = text.replace(&format!("{value}\r\n"), &format!("{value}\n\r\n"));
    assert_eq!(decode(&minio), Ok((payload.to_vec(), Some(sum))));
}

#[test]
fn a_rejected_decoder_stays_rejected_and_gives_nothing_more() {
    let mut decoder = Decoder::new(framing(UNSIGNED), 5);
    let mut out = Vec::new();
    let malformed = Err(Reject::ChunkMalformed);
    assert_eq!(decoder.feed("x\r\n".into(), &mut out), malformed);
    assert_eq!(decoder.feed("5\r\nhello\r\n".into(), &mut out), malformed);
    assert_eq!(decoder.feed(Bytes::new(), &mut out), malformed);
    assert!(out.is_empty());
    assert_eq!(decoder.finish(), Err(Reject::ChunkMalformed));
}

#[test]
fn rejections_carry_the_six_reasons_and_their_codes() {
    for (reject, reason, code) in [
        (
            Reject::ChunkSignatureMismatch,
            "chunk_signature_mismatch",
            ErrorCode::SignatureDoesNotMatch,
        ),
        (
            Reject::TrailerSignatureMismatch,
            "trailer_signature_mismatch",
            ErrorCode::SignatureDoesNotMatch,
        ),
        (
            Reject::ChunkMalformed,
            "chunk_malformed",
            ErrorCode::InvalidRequest,
        ),
        (
            Reject::ChunkCut,
            "chunk_malformed",
            ErrorCode::InvalidRequest,
        ),
        (
            Reject::ChunkTooLarge,
            "chunk_too_large",
            ErrorCode::InvalidRequest,
        ),
        (
            Reject::DecodedLengthMismatch,
            "decoded_length_mismatch",
            ErrorCode::IncompleteBody,
        ),
        (
            Reject::TrailerMalformed,
            "trailer_malformed",
            ErrorCode::MalformedTrailer,
        ),
        (
            Reject::TrailerCut,
            "trailer_malformed",
            ErrorCode::MalformedTrailer,
        ),
    ] {
        assert_eq!((reject.reason(), reject.code()), (reason, code));
        assert_eq!(crate::Error::from(reject).code, code);
    }
}

#[test]
fn headers_decide_whether_and_how_a_body_is_framed() {
    let trailer = Some(ChecksumAlgorithm::Crc32);
    let claims = |trailer, decoded_length| BodyClaims {
        trailer,
        decoded_length,
        ..BodyClaims::default()
    };
    let plan = |mode: PayloadMode, with_chain: Option<Chain>, claims: BodyClaims| {
        Decoder::for_request(mode, with_chain, &claims)
            .map(|decoder| decoder.is_some())
            .map_err(|error| error.code)
    };
    let streaming = PayloadMode::Streaming;
    let [unsigned, signed, signed_trailer] = StreamingVariant::ALL.map(streaming);
    let some = || Some(chain());
    assert_eq!(
        plan(PayloadMode::Unsigned, None, claims(None, None)),
        Ok(false)
    );
    assert_eq!(plan(unsigned, None, claims(trailer, Some(1))), Ok(true));
    assert_eq!(plan(signed, some(), claims(None, Some(1))), Ok(true));
    assert_eq!(
        plan(signed_trailer, some(), claims(trailer, Some(1))),
        Ok(true)
    );

    let invalid = Err(ErrorCode::InvalidRequest);
    assert_eq!(
        plan(PayloadMode::Unsigned, None, claims(trailer, None)),
        invalid
    );
    assert_eq!(plan(unsigned, None, claims(None, Some(1))), invalid);
    assert_eq!(plan(signed, some(), claims(trailer, Some(1))), invalid);
    assert_eq!(plan(signed_trailer, some(), claims(None, Some(1))), invalid);
    let length = Err(ErrorCode::MissingContentLength);
    assert_eq!(plan(signed, some(), claims(None, None)), length);
    assert_eq!(
        plan(signed, None, claims(None, Some(1))),
        Err(ErrorCode::AccessDenied)
    );
}

#[test]
fn an_encoder_refuses_other_payload_than_announced() {
    let mut out = Vec::new();
    let mut short = Encoder::new(framing(UNSIGNED), 5);
    short.push("he".into(), &mut out).unwrap();
    let sum = Crc64::of(b"he").to_checksum();
    assert_eq!(
        short.finish(Some(&sum), &mut out),
        Err(EncoderError::Length { difference: 3 })
    );
    let mut long = Encoder::new(framing(UNSIGNED), 1);
    assert_eq!(
        long.push("he".into(), &mut out),
        Err(EncoderError::Length { difference: -1 })
    );
    let empty = Encoder::new(framing(UNSIGNED), 0);
    assert_eq!(empty.finish(None, &mut out), Err(EncoderError::Checksum));
}

fn lengths() -> impl Strategy<Value = usize> {
    let chunk = usize::try_from(CHUNK_BYTES).unwrap();
    let edges = vec![
        0,
        1,
        15,
        16,
        chunk - 1,
        chunk,
        chunk + 1,
        2 * chunk,
        2 * chunk + 4096,
    ];
    proptest::strategy::Union::new([sample::select(edges).boxed(), (0..200_usize).boxed()])
}

#[test]
fn a_chunk_of_more_than_four_gibibytes_is_read_right() {
    const LENGTH: u64 = (4 << 30) + 5;
    let piece = Bytes::from(vec![b'x'; 1 << 20]);
    let framing = Framing::UnsignedTrailer(ChecksumAlgorithm::Crc32);
    let mut decoder = Decoder::new(framing, LENGTH);
    let mut out = Vec::new();
    let mut feed = |bytes: Bytes| {
        decoder.feed(bytes, &mut out).unwrap();
        out.drain(..).map(|piece| piece.len() as u64).sum::<u64>()
    };
    let mut payload = feed(Bytes::from(format!("{LENGTH:x}\r\n")));
    for _ in 0..4096 {
        payload += feed(piece.clone());
    }
    payload += feed(piece.slice(..5));
    assert_eq!(payload, LENGTH);
    payload += feed(Bytes::from(
        "\r\n0\r\nx-amz-checksum-crc32:AAAAAA==\r\n\r\n",
    ));
    assert_eq!(payload, LENGTH);
    assert!(decoder.finish().unwrap().is_some());
}

proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]

    #[test]
    fn what_is_encoded_decodes_and_has_the_announced_length(
        variant in sample::select(StreamingVariant::ALL.to_vec()),
        length in lengths(),
        seed in any::<u8>(),
        push in sample::select(vec![1_usize, 1000, 70_000]),
        cuts in collection::vec(any::<sample::Index>(), 0..6),
    ) {
        let payload: Vec<u8> = (0..length).map(|at| (at % 251) as u8 ^ seed).collect();
        let body = encode(variant, &payload, push);
        let announced = Encoder::encoded_length(&framing(variant), length as u64);
        prop_assert_eq!(body.len() as u64, announced);

        let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(body.len())).collect();
        at.extend([0, body.len()]);
        at.sort_unstable();
        let slices = at.windows(2).map(|pair| &body[pair[0]..pair[1]]);
        let decoded = decode(framing(variant), length as u64, slices);
        prop_assert_eq!(decoded, Ok((payload.clone(), trailer(variant, &payload))));
    }

    #[test]
    fn a_split_anywhere_changes_nothing(
        variant in sample::select(StreamingVariant::ALL.to_vec()),
        payload in collection::vec(any::<u8>(), 0..40),
    ) {
        let body = encode(variant, &payload, 7);
        for at in 0..=body.len() {
            let (head, tail) = body.split_at(at);
            let decoded = decode(framing(variant), payload.len() as u64, [head, tail]);
            prop_assert_eq!(decoded, Ok((payload.clone(), trailer(variant, &payload))));
        }
    }

    #[test]
    fn no_cut_body_is_ever_accepted(
        variant in sample::select(StreamingVariant::ALL.to_vec()),
        payload in collection::vec(any::<u8>(), 0..40),
    ) {
        let body = encode(variant, &payload, 7);
        for at in 0..body.len() {
            let decoded = decode(framing(variant), payload.len() as u64, [&body[..at]]);
            // With all payload there, it is the framing that is at fault.
            let reject = decoded.unwrap_err();
            let expected = match reject {
                Reject::ChunkCut => ErrorCode::InvalidRequest,
                Reject::TrailerCut => ErrorCode::MalformedTrailer,
                _ => ErrorCode::IncompleteBody,
            };
            prop_assert_eq!(reject.code(), expected);
        }
    }

    #[test]
    fn a_changed_byte_of_a_signed_body_never_passes(
        variant in sample::select(vec![StreamingVariant::Signed, StreamingVariant::SignedTrailer]),
        payload in collection::vec(any::<u8>(), 1..40),
        at in any::<sample::Index>(),
        bit in 0_u8..8,
    ) {
        let mut body = encode(variant, &payload, 7);
        let at = at.index(body.len());
        body[at] ^= 1 << bit;
        let decoded = decode(framing(variant), payload.len() as u64, [body.as_slice()]);
        // Letter case is free in sizes and in the names of trailers.
        if let Ok((decoded, sum)) = decoded {
            prop_assert_eq!(bit, 5);
            prop_assert_eq!((decoded, sum), (payload.clone(), trailer(variant, &payload)));
        }
    }
}
