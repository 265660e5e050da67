//! Requests as a provider sees them: framing, coverage, signatures, and bodies that are cut.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::sync::Arc;

use backend::{
    Capabilities, Chunks, Effect, Kind, ObjectBackend as _, Payload, PayloadCut, Proof, PutMeta,
    S3Settings,
};
use base::{Crc64, ObjectHeaders, Secret};
use bytes::Bytes;
use futures_util::stream;
use tokio::sync::{Notify, oneshot};

use crate::s3_script::{Action, Script, Seen, answer, backend, key, ok, refusal};

const CHECKSUMS: Capabilities = Capabilities {
    checksum_header: true,
    checksum_trailer: true,
    ..Capabilities::UNKNOWN
};

/// Larger than two chunks of the framing, and not a multiple of anything.
fn bytes() -> Bytes {
    (0..150_001u32)
        .map(|i| u8::try_from(i % 251).unwrap())
        .collect()
}

fn in_pieces(bytes: &Bytes, size: usize) -> Payload {
    let pieces: Vec<_> = bytes
        .chunks(size)
        .map(|piece| Ok(Bytes::copy_from_slice(piece)))
        .collect();
    let chunks: Chunks = Box::pin(stream::iter(pieces));
    Payload::streamed(bytes.len() as u64, chunks)
}

async fn seen_put(
    capabilities: Capabilities,
    set: impl FnOnce(&mut S3Settings),
    payload: Payload,
) -> (Seen, Proof) {
    let script = Script::play(vec![ok()]).await;
    let mut settings = script.settings();
    set(&mut settings);
    let backend = backend(settings);
    backend.adopt(capabilities);
    let headers = ObjectHeaders {
        content_encoding: Some("gzip".to_owned()),
        content_type: Some("text/plain".to_owned()),
        user: vec![("s3o".to_owned(), "1, a  b".to_owned())],
        ..ObjectHeaders::default()
    };
    let stored = backend
        .put(&key("a/k"), &PutMeta { headers }, payload)
        .await
        .unwrap();
    assert_eq!(stored.etag.unwrap().as_str(), "e");
    (script.seen().remove(0), stored.proof)
}

#[tokio::test]
async fn a_plain_body_arrives_with_its_exact_length_and_an_unsigned_payload() {
    for size in [1 << 20, 7, 4096] {
        let body = if size == 7 {
            bytes().slice(..700)
        } else {
            bytes()
        };
        let (seen, proof) = seen_put(Capabilities::UNKNOWN, |_| {}, in_pieces(&body, size)).await;
        assert_eq!(seen.payload(), body);
        assert_eq!(
            seen.header("x-amz-content-sha256"),
            Some("UNSIGNED-PAYLOAD")
        );
        assert_eq!(seen.header("content-encoding"), Some("gzip"));
        assert_eq!(seen.header("x-amz-meta-s3o"), Some("1, a  b"));
        assert!(seen.header("transfer-encoding").is_none());
        assert!(seen.header("accept-encoding").is_none());
        assert_eq!(proof, Proof::None);
    }
}

#[tokio::test]
async fn a_trailer_carries_the_checksum_where_trailers_are_verified() {
    for (length, size) in [(150_001, 1 << 20), (131_072, 10_000), (1, 1), (0, 1)] {
        let body = bytes().slice(..length);
        let (seen, proof) = seen_put(CHECKSUMS, |_| {}, in_pieces(&body, size)).await;
        assert_eq!(seen.payload(), body);
        let mode = seen.header("x-amz-content-sha256");
        assert_eq!(mode, Some("STREAMING-UNSIGNED-PAYLOAD-TRAILER"));
        assert_eq!(
            seen.header("x-amz-trailer"),
            Some("x-amz-checksum-crc64nvme")
        );
        assert_eq!(seen.header("content-encoding"), Some("aws-chunked,gzip"));
        assert_eq!(
            seen.header("x-amz-decoded-content-length"),
            Some(&*length.to_string())
        );
        assert_eq!(proof, Proof::Checksum);
    }
}

#[tokio::test]
async fn a_checksum_that_is_known_before_the_body_goes_into_a_header() {
    let payload = Payload::from_bytes(bytes());
    let (seen, proof) = seen_put(CHECKSUMS, |_| {}, payload).await;
    let sum = Crc64::of(&bytes()).to_checksum().to_base64();
    assert_eq!(seen.header("x-amz-checksum-crc64nvme"), Some(sum.as_str()));
    assert_eq!((seen.payload(), proof), (bytes().to_vec(), Proof::Checksum));
}

#[tokio::test]
async fn signed_payloads_are_signed_chunk_by_chunk_or_by_the_sum_that_is_known() {
    let signed = |settings: &mut S3Settings| settings.unsigned_payload = Some(false);
    let (seen, proof) = seen_put(CHECKSUMS, signed, in_pieces(&bytes(), 50_000)).await;
    assert_eq!(
        seen.header("x-amz-content-sha256"),
        Some("STREAMING-AWS4-HMAC-SHA256-PAYLOAD")
    );
    assert_eq!((seen.payload(), proof), (bytes().to_vec(), Proof::None));
    let s3wire::sigv4::PayloadMode::Sha256(sum) = s3wire::sigv4::PayloadMode::of(&bytes()) else {
        panic!("the mode of bytes is their sum")
    };
    let known = Payload {
        sha256: Some(sum),
        ..in_pieces(&bytes(), 50_000)
    };
    let (seen, _) = seen_put(Capabilities::UNKNOWN, |_| {}, known).await;
    assert_eq!(seen.payload(), bytes());
    assert_eq!(seen.header("x-amz-content-sha256").unwrap().len(), 64);
}

#[tokio::test]
async fn checksums_that_are_switched_off_never_leave() {
    let off = |settings: &mut S3Settings| settings.disable_checksum = true;
    for payload in [Payload::from_bytes(bytes()), in_pieces(&bytes(), 9999)] {
        let (seen, proof) = seen_put(CHECKSUMS, off, payload).await;
        assert!(
            !seen
                .headers
                .keys()
                .any(|name| name.as_str().contains("checksum"))
        );
        assert!(seen.header("x-amz-trailer").is_none());
        assert_eq!((seen.payload(), proof), (bytes().to_vec(), Proof::None));
    }
}

#[tokio::test]
async fn head_and_first_bytes_leave_in_one_write() {
    for capabilities in [Capabilities::UNKNOWN, CHECKSUMS] {
        let (seen, _) = seen_put(
            capabilities,
            |_| {},
            in_pieces(&bytes().slice(..4096), 4096),
        )
        .await;
        assert_eq!(seen.body_with_head, seen.body.len());
    }
}

#[tokio::test]
async fn odd_keys_and_tokens_arrive_as_they_are_and_are_signed() {
    let keys = [
        "a//b",
        "../x",
        "./y",
        "a/../b/.",
        "%2F",
        "\u{1}\n\u{7f}",
        "ä ?#&=+",
        "/",
        "//x",
    ];
    let script = Script::play(keys.map(|_| ok()).to_vec()).await;
    let mut settings = script.settings();
    settings.session_token = Some(Secret::new("token+/=".to_owned()));
    let backend = backend(settings);
    for odd in keys {
        backend
            .put(&key(odd), &PutMeta::default(), in_pieces(&bytes(), 1000))
            .await
            .unwrap();
    }
    for (seen, odd) in script.seen().iter().zip(keys) {
        seen.verified();
        let path = seen.path.strip_prefix("/bucket/").unwrap();
        assert_eq!(s3wire::uri::decode(path).unwrap(), odd);
        let (mut wire, kept) = (path.to_owned(), ["/", "."]);
        kept.iter().for_each(|plain| wire = wire.replace(plain, ""));
        assert!(
            wire.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'%'),
            "{wire}"
        );
        assert_eq!(seen.header("x-amz-security-token"), Some("token+/="));
        assert!(
            seen.header("authorization")
                .unwrap()
                .contains("x-amz-security-token")
        );
    }
}

#[tokio::test]
async fn a_payload_that_fails_cuts_the_request_before_its_end() {
    for capabilities in [Capabilities::UNKNOWN, CHECKSUMS] {
        for end in [Some(Err(PayloadCut)), None] {
            let script = Script::play(vec![Action::Listen]).await;
            let backend = script.backend();
            backend.adopt(capabilities);
            let pieces: Vec<_> = [
                Ok(bytes().slice(..70_000)),
                Ok(bytes().slice(70_000..150_000)),
            ]
            .into_iter()
            .chain(end)
            .collect();
            let payload = Payload::streamed(150_001, Box::pin(stream::iter(pieces)));
            let error = backend
                .put(&key("k"), &PutMeta::default(), payload)
                .await
                .unwrap_err();
            assert_eq!((error.kind, error.effect), (Kind::PayloadCut, Effect::None));
            for seen in script.seen() {
                let announced: usize = seen.header("content-length").unwrap().parse().unwrap();
                assert!(seen.body.len() < announced);
            }
        }
    }
}

#[tokio::test]
async fn a_payload_that_fails_before_its_first_byte_opens_no_request() {
    let script = Script::play(vec![Action::Listen]).await;
    let payload = Payload::streamed(5, Box::pin(stream::iter([Err(PayloadCut)])));
    let put = script
        .backend()
        .put(&key("k"), &PutMeta::default(), payload)
        .await;
    assert_eq!(put.unwrap_err().kind, Kind::PayloadCut);
    assert!(script.seen().is_empty());
}

/// Says when it is dropped.
struct Tell(Option<oneshot::Sender<()>>);

impl Drop for Tell {
    fn drop(&mut self) {
        self.0.take().map(|tell| tell.send(()));
    }
}

/// A first piece, and then nothing for ever.
fn stalling(begun: &Arc<Notify>) -> (Payload, oneshot::Receiver<()>) {
    let (tell, dropped) = oneshot::channel();
    let (tell, begun) = (Tell(Some(tell)), Arc::clone(begun));
    let chunks = stream::unfold((0, tell), move |(turn, tell)| {
        let begun = Arc::clone(&begun);
        async move {
            if turn > 0 {
                begun.notify_one();
                std::future::pending::<()>().await;
            }
            Some((Ok(Bytes::from_static(b"first")), (turn + 1, tell)))
        }
    });
    (Payload::streamed(1 << 30, Box::pin(chunks)), dropped)
}

#[tokio::test]
async fn an_early_refusal_lets_go_of_the_payload() {
    let early = Action::AnswerEarly(refusal("403 Forbidden", "AccessDenied"));
    let script = Script::play(vec![early]).await;
    let (payload, dropped) = stalling(&Arc::default());
    let put = script
        .backend()
        .put(&key("k"), &PutMeta::default(), payload)
        .await;
    let error = put.unwrap_err();
    assert_eq!((error.kind, error.effect), (Kind::Denied, Effect::None));
    dropped.await.unwrap();
}

#[tokio::test]
async fn a_dropped_put_lets_go_of_its_payload_and_its_connection() {
    let script = Script::play(vec![Action::Listen]).await;
    let backend = script.backend();
    let begun = Arc::new(Notify::new());
    let (payload, dropped) = stalling(&begun);
    let (key, meta) = (key("k"), PutMeta::default());
    let put = backend.put(&key, &meta, payload);
    tokio::select! {
        biased;
        _ = put => panic!("nobody answers"),
        () = begun.notified() => {}
    }
    dropped.await.unwrap();
}

#[tokio::test]
async fn parts_and_uploads_announce_the_same_checksums() {
    let started = "<InitiateMultipartUploadResult><UploadId>u/1</UploadId>\
                   </InitiateMultipartUploadResult>";
    for (capabilities, announced) in [
        (CHECKSUMS, Some("CRC64NVME")),
        (Capabilities::UNKNOWN, None),
    ] {
        let begin = Action::Answer(answer("200 OK", &[], started));
        let script = Script::play(vec![begin, ok(), ok()]).await;
        let backend = script.backend();
        backend.adopt(capabilities);
        let (key, meta) = (key("k"), PutMeta::default());
        let upload = backend.create_upload(&key, &meta).await.unwrap();
        assert_eq!(upload, "u/1");
        let whole = Payload::from_bytes(bytes());
        for payload in [whole, in_pieces(&bytes(), 1 << 16)] {
            let part = backend
                .upload_part(&key, &upload, 2, &meta, payload)
                .await
                .unwrap();
            assert_eq!(part.proof == Proof::Checksum, announced.is_some());
        }
        let seen = script.seen();
        assert_eq!(seen[0].query, "uploads");
        assert_eq!(seen[0].header("x-amz-checksum-algorithm"), announced);
        for part in &seen[1..] {
            assert_eq!(part.query, "partNumber=2&uploadId=u%2F1");
            assert_eq!(part.payload(), bytes());
        }
        let header = seen[1].header("x-amz-checksum-crc64nvme");
        assert_eq!(header.is_some(), announced.is_some());
        assert_eq!(
            seen[2].header("x-amz-trailer").is_some(),
            announced.is_some()
        );
    }
}
