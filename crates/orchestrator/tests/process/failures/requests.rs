//! Requests that are wrong: keys, bodies, documents.

use backend::{Effect, Kind, ObjectBackend as _, PartFact, Payload, PutMeta};
use base::{ChecksumAlgorithm, Crc64};
use bytes::Bytes;
use http::Method;
use s3wire::chunked::{Encoder, Framing};
use s3wire::sigv4::{PayloadMode, StreamingVariant};

use super::{SMALL_BYTES, STREAMED_BYTES, is_absent, key, reads, store};
use crate::support::content::{Content, ContentExt as _};
use crate::support::home::{ACCESS_KEY, Home, SECRET};
use crate::support::raw::{self, Connection, Head};
use crate::support::server::Server;

const TRAILER: PayloadMode = PayloadMode::Streaming(StreamingVariant::UnsignedTrailer);

/// Nothing of a refused write is left: no reservation, no intent, no file.
async fn left_as_it_was(home: &Home, server: Server, files: usize) {
    server.settled(home, files).await;
    home.verify().await;
    server.stop().await;
    // Settled intents leave their file with its next batch, or with the process.
    let out = home.verify().await;
    assert!(out.contains("reserved 0 B: exact"), "{out}");
    home.nothing_unknown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_keys_are_refused_alike() {
    let home = Home::with_local(&["one"]);
    let server = home.serve().await;
    store(&server.client(), "kept", SMALL_BYTES).await;
    for (access_key, secret) in [(ACCESS_KEY, "another-secret"), ("another-key", SECRET)] {
        let stranger = server.client_with(access_key, secret);
        let read = stranger
            .get(&key("kept"), None, None)
            .await
            .map(|_| ())
            .unwrap_err();
        let payload = Payload::from_bytes(Bytes::from_static(b"mine now"));
        let put = stranger
            .put(&key("kept"), &PutMeta::default(), payload)
            .await
            .unwrap_err();
        for refused in [read, put] {
            assert_eq!((refused.kind, refused.effect), (Kind::Denied, Effect::None));
            let said = refused.message.unwrap();
            assert!(said.starts_with("SignatureDoesNotMatch: "), "{said}");
        }
    }
    let reply = raw::plain_get(server.addr, "/b/kept").await;
    assert_eq!((reply.status, reply.code().as_str()), (403, "AccessDenied"));
    reads(&server.client(), "kept", SMALL_BYTES).await;
    left_as_it_was(&home, server, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_ends_early_changes_nothing() {
    let home = Home::with_local(&["one"]);
    let server = home.serve().await;
    let client = server.client();
    for (name, bytes) in [("small", SMALL_BYTES), ("streamed", STREAMED_BYTES)] {
        store(&client, name, bytes).await;
        let path = format!("/b/{name}");
        let length = bytes.to_string();
        let head = Head {
            method: Method::PUT,
            path: &path,
            query: "",
            headers: &[("content-length", &length)],
            payload: PayloadMode::Unsigned,
        };
        let sent = Content::new(9, bytes).bytes();
        for cut in [0, 1, sent.len() / 2, sent.len() - 1] {
            let mut connection = Connection::open(server.addr).await;
            connection.head(&head).await;
            connection.send(&sent[..cut]).await;
            connection.finish().await;
            // Whoever says that no more will come may be answered or cut off.
            if let Some(reply) = connection.reply().await {
                assert_eq!(
                    (reply.status, reply.code().as_str()),
                    (400, "IncompleteBody")
                );
            }
            // And whoever just goes away is not answered at all.
            let mut connection = Connection::open(server.addr).await;
            connection.head(&head).await;
            connection.send(&sent[..cut]).await;
            drop(connection);
            reads(&client, name, bytes).await;
        }
    }
    left_as_it_was(&home, server, 2).await;
}

/// A body in chunks with a trailer, as clients send it.
fn chunked(content: &[u8], checksum: Crc64) -> Vec<u8> {
    let framing = Framing::UnsignedTrailer(ChecksumAlgorithm::Crc64Nvme);
    let mut encoder = Encoder::new(framing, content.len() as u64);
    let mut pieces = Vec::new();
    encoder
        .push(Bytes::copy_from_slice(content), &mut pieces)
        .unwrap();
    encoder
        .finish(Some(&checksum.to_checksum()), &mut pieces)
        .unwrap();
    pieces.concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chunked_body_that_is_not_what_it_claims_changes_nothing() {
    let home = Home::with_local(&["one"]);
    let server = home.serve().await;
    let client = server.client();
    for (name, bytes) in [("small", SMALL_BYTES), ("streamed", STREAMED_BYTES)] {
        store(&client, name, bytes).await;
        let sent = Content::new(9, bytes).bytes();
        let right = chunked(&sent, Crc64::of(&sent));
        let shorter = chunked(&sent[1..], Crc64::of(&sent[1..]));
        let without_trailer = right[..right.len() - 40].to_vec();
        let mut broken = right.clone();
        broken[0] = b'x';
        for (body, code) in [
            (shorter, "IncompleteBody"),
            // Every byte of the object came: it is the framing that is cut off.
            (without_trailer, "MalformedTrailerError"),
            (chunked(&sent, Crc64(1)), "BadDigest"),
            (broken, "InvalidRequest"),
        ] {
            let path = format!("/b/{name}");
            let (length, decoded) = (body.len().to_string(), bytes.to_string());
            let head = Head {
                method: Method::PUT,
                path: &path,
                query: "",
                headers: &[
                    ("content-length", &length),
                    ("content-encoding", "aws-chunked"),
                    ("x-amz-decoded-content-length", &decoded),
                    ("x-amz-trailer", "x-amz-checksum-crc64nvme"),
                ],
                payload: TRAILER,
            };
            let reply = raw::request(server.addr, &head, &body).await.unwrap();
            assert_eq!((reply.status, reply.code().as_str()), (400, code), "{name}");
            reads(&client, name, bytes).await;
        }
    }
    left_as_it_was(&home, server, 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_xml_is_malformed_and_changes_nothing() {
    let home = Home::with_local(&["one"]);
    let server = home.serve().await;
    let client = server.client();
    store(&client, "kept", SMALL_BYTES).await;
    let upload = client
        .create_upload(&key("upload"), &PutMeta::default())
        .await
        .unwrap();
    let content = Content::of_key("upload", SMALL_BYTES);
    let meta = PutMeta::default();
    let part = client
        .upload_part(&key("upload"), &upload, 1, &meta, content.streamed())
        .await;
    let part = part.unwrap();
    let complete = format!("uploadId={upload}");
    let bomb = "<!DOCTYPE a [<!ENTITY b \"c\">]><Delete><Object><Key>&b;</Key></Object></Delete>";
    for body in [
        "",
        "kept",
        "<Delete><Object><Key>kept</Key></Object>",
        "<Delete></Delete>",
        "<Wrong><Object><Key>kept</Key></Object></Wrong>",
        "<CompleteMultipartUpload></CompleteMultipartUpload>",
        "<CompleteMultipartUpload><Part><PartNumber>1</PartNumber></Part>",
        bomb,
    ] {
        for (path, query) in [("/b", "delete="), ("/b/upload", complete.as_str())] {
            let length = body.len().to_string();
            let head = Head {
                method: Method::POST,
                path,
                query,
                headers: &[("content-length", &length)],
                payload: PayloadMode::of(body.as_bytes()),
            };
            let reply = raw::request(server.addr, &head, body.as_bytes())
                .await
                .unwrap();
            assert_eq!(
                (reply.status, reply.code().as_str()),
                (400, "MalformedXML"),
                "{path} {body}"
            );
        }
    }
    reads(&client, "kept", SMALL_BYTES).await;
    is_absent(&client, "upload").await;
    let fact = PartFact {
        number: 1,
        etag: part.etag.unwrap(),
        crc64: part.crc64,
    };
    client
        .complete_upload(&key("upload"), &upload, &[fact])
        .await
        .unwrap();
    reads(&client, "upload", SMALL_BYTES).await;
    // An object that was uploaded in parts is a manifest and its parts.
    left_as_it_was(&home, server, 3).await;
}
