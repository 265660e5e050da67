//! Bodies as they come: decoded, summed, and compared with what belongs to their key.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;

use base::{Checksum, Crc64, Crc64Hasher, ETag, Md5, Md5Hasher};
use bytes::Bytes;
use futures_util::stream::{self, Stream, StreamExt as _};
use http::HeaderMap;
use hyper::body::{Body as _, Incoming};
use parking_lot::Mutex;
use s3wire::chunked::Decoder;
use s3wire::sigv4::{PayloadMode, payload_mode};
use s3wire::{Error, ErrorCode};

use super::KEPT_BYTES_MAX;
use crate::content::Content;
use crate::gate::Gate;

pub(super) fn pieces(mut body: Incoming) -> impl Stream<Item = Result<Bytes, Error>> + Unpin {
    stream::poll_fn(move |cx| {
        Pin::new(&mut body).poll_frame(cx).map(|frame| {
            let frame = frame?.map_err(|_| Error::from(ErrorCode::IncompleteBody));
            Some(frame.map(|frame| frame.into_data().unwrap_or_default()))
        })
    })
}

pub(super) async fn collected(body: Incoming) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    let mut pieces = pieces(body);
    while let Some(piece) = pieces.next().await {
        bytes.extend_from_slice(&piece?);
    }
    Ok(bytes)
}

/// What a body is compared with while it comes, beside its checksum.
pub(super) enum Checked {
    /// Nothing.
    Sums,
    /// What belongs to a key, where it is not kept; a gate holds it.
    Key(String, Option<Arc<Gate>>),
}

/// The MD5 of large bodies that came before, by how they begin and how long they are.
///
/// A provider hashes on machines of its own; this one shares those of whoever is measured. So it hashes
/// nothing twice: a body that begins like a known one and has its checksum is that one.
#[derive(Default)]
pub(super) struct Known(Mutex<HashMap<(Bytes, u64), (Crc64, Md5)>>);

/// Bytes of its beginning that a body is known by.
const BEGINNING_BYTES: usize = 32;

impl Known {
    fn find(&self, piece: &Bytes, length: u64) -> Option<(Crc64, Md5)> {
        let beginning = beginning(piece)?;
        self.0.lock().get(&(beginning, length)).copied()
    }

    fn add(&self, first: &Bytes, length: u64, crc64: Crc64, md5: Md5) {
        if let Some(beginning) = beginning(first) {
            let beginning = Bytes::copy_from_slice(&beginning);
            self.0.lock().insert((beginning, length), (crc64, md5));
        }
    }
}

fn beginning(piece: &Bytes) -> Option<Bytes> {
    (piece.len() >= BEGINNING_BYTES).then(|| piece.slice(..BEGINNING_BYTES))
}

/// A body that came, and is what its sender says it is.
pub(super) struct Arrived {
    pub(super) crc64: Crc64,
    /// The MD5, or something that cannot be taken for one.
    pub(super) etag: ETag,
    pub(super) length: u64,
    /// All of it, where it is small.
    pub(super) kept: Vec<u8>,
}

pub(super) async fn arrive(
    headers: &HeaderMap,
    body: Incoming,
    checked: Checked,
    known: &Known,
) -> Result<Arrived, Error> {
    let mode = payload_mode(headers)?.unwrap_or(PayloadMode::Unsigned);
    let claims = s3wire::headers::body_claims(headers)?;
    let mut decoder = Decoder::for_request(mode, None, &claims)?;
    let length = match claims.decoded_length {
        Some(length) => length,
        None => body
            .size_hint()
            .exact()
            .ok_or(ErrorCode::MissingContentLength)?,
    };
    let (content, mut gate) = match checked {
        Checked::Sums => (None, None),
        Checked::Key(key, gate) => (Some(Content::one_of_few(&key, length)), gate),
    };
    gate = gate.filter(|gate| length > gate.offset);
    let (mut kept, mut crc64, mut offset) = (Vec::new(), Crc64Hasher::new(), 0);
    let mut md5 = Some(Md5Hasher::new());
    let (mut first, mut expected) = (None, None);
    let mut pieces = pieces(body);
    let mut decoded = Vec::new();
    while let Some(piece) = pieces.next().await {
        match &mut decoder {
            None => decoded.push(piece?),
            Some(decoder) => decoder.feed(piece?, &mut decoded)?,
        }
        for piece in decoded.drain(..) {
            if first.is_none() && length > KEPT_BYTES_MAX {
                expected = known.find(&piece, length);
                md5 = md5.filter(|_| expected.is_none());
                first = Some(piece.clone());
            }
            crc64.update(&piece);
            if let Some(md5) = &mut md5 {
                md5.update(&piece);
            }
            match &content {
                Some(_) if length <= KEPT_BYTES_MAX => kept.extend_from_slice(&piece),
                Some(content) if !content.has(offset, &piece) => {
                    return Err(ErrorCode::BadDigest.into());
                }
                Some(_) | None => {}
            }
            offset += piece.len() as u64;
            if let Some(held) = gate.take_if(|gate| offset >= gate.offset) {
                held.pass().await;
            }
        }
    }
    let trailer: Option<Checksum> = decoder.map(Decoder::finish).transpose()?.flatten();
    let crc64 = crc64.sum();
    let declared = trailer.or(claims.checksum);
    if declared.is_some_and(|declared| Crc64::from_checksum(&declared) != Some(crc64)) {
        return Err(ErrorCode::BadDigest.into());
    }
    if offset != length {
        return Err(ErrorCode::IncompleteBody.into());
    }
    let md5 = md5.map(Md5Hasher::finish);
    if let (Some(first), Some(md5)) = (first, md5) {
        known.add(&first, length, crc64, md5);
    }
    let expected = expected.filter(|(expected, _)| *expected == crc64);
    let etag = match md5.or(expected.map(|(_, md5)| md5)) {
        Some(md5) => ETag::of_body(md5),
        None => ETag::new(&format!("sink-{:016x}", crc64.0)),
    };
    Ok(Arrived {
        crc64,
        etag,
        length,
        kept,
    })
}
