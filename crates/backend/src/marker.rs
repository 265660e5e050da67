//! The marker: the one object of ours that every backend holds and that is rewritten.
//!
//! What it says is the engine's business; here it is only read whole and replaced. The helpers are
//! written over the trait, so that every implementation moves the bytes the same way. A marker longer
//! than [`MARKER_BYTES_MAX`] is refused: it is not one of ours.

use base::BackendName;
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;

use crate::{
    BackendKey, DeleteTarget, Effect, Error, Kind, MARKER_BYTES_MAX, ObjectBackend, Payload,
    PutMeta, Result,
};

/// Where the marker lies; no bucket name begins with a dot, so no object of a client can be there.
pub const MARKER_KEY: &str = ".s3o/backend";

pub(crate) fn marker_key() -> BackendKey {
    BackendKey::new(MARKER_KEY).expect("the marker's key is a legal key")
}

/// The marker as a payload, unless it is too long.
pub(crate) fn marker_payload(
    backend: &BackendName,
    operation: &'static str,
    content: Bytes,
) -> Result<Payload> {
    match content.len() <= MARKER_BYTES_MAX {
        true => Ok(Payload::from_bytes(content)),
        false => Err(too_long(backend, operation)),
    }
}

fn too_long(backend: &BackendName, operation: &'static str) -> Error {
    Error::new(Kind::Rejected, Effect::None, backend, operation).with_message(format!(
        "the marker is longer than {MARKER_BYTES_MAX} bytes"
    ))
}

/// Reads the marker with an ordinary get; `None` where there is none.
pub async fn read_marker_of(backend: &dyn ObjectBackend) -> Result<Option<Bytes>> {
    let mut fetched = match backend.get(&marker_key(), None, None).await {
        Ok(fetched) => fetched,
        Err(error) if error.kind == Kind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    if fetched.head.size > MARKER_BYTES_MAX as u64 {
        return Err(too_long(backend.name(), "read_marker"));
    }
    let mut content = BytesMut::new();
    while let Some(chunk) = fetched.body.next().await {
        content.extend_from_slice(&chunk?);
    }
    Ok(Some(content.freeze()))
}

/// Replaces the marker with an ordinary put; on a versioned bucket the older versions go by their
/// ids, a page of them. What is left, by a crash or behind the page, goes with the next write.
pub async fn write_marker_to(backend: &dyn ObjectBackend, content: Bytes) -> Result<()> {
    let payload = marker_payload(backend.name(), "write_marker", content)?;
    let key = marker_key();
    let written = backend.put(&key, &PutMeta::default(), payload).await?;
    if !backend.capabilities().versioned || written.version.is_none() {
        return Ok(());
    }
    let page = backend.versions(&key).await?;
    let older: Vec<DeleteTarget> = page
        .versions
        .into_iter()
        .filter(|version| version.version != written.version)
        .map(|version| DeleteTarget {
            key: key.clone(),
            version: version.version,
        })
        .collect();
    for outcome in backend.delete(&older).await {
        match outcome {
            Ok(()) => {}
            Err(error) if error.kind == Kind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
