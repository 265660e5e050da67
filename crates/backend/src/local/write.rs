//! From a payload to a durable file, without blocking the async threads or holding much in memory.

use std::path::Path;
use std::sync::Arc;

use base::{Crc64, Crc64Hasher, ObjectHeaders};
use bytes::Bytes;
use futures_util::StreamExt as _;
use tokio::task::spawn_blocking;

use super::failure::LocalError;
use super::record::{BytesAt, Record};
use super::store::{LocalStore, Temporary};
use crate::{Kind, Payload};

/// Bytes that are gathered before a blocking thread writes them. What is smaller is created, written,
/// synced and renamed by one of them in one go.
const BATCH_BYTES: usize = 256 * 1024;

/// Runs work that blocks. The work goes on when the caller's future is dropped.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, LocalError> + Send + 'static,
) -> Result<T, LocalError> {
    match spawn_blocking(work).await {
        Ok(outcome) => outcome,
        Err(failed) => match failed.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_ended) => Err(LocalError::saying(
                Kind::Unavailable,
                "the program is ending",
            )),
        },
    }
}

/// The bytes that arrived, in a temporary file.
struct Arrived {
    file: Option<Temporary>,
    size: u64,
    sum: Crc64Hasher,
}

impl Arrived {
    fn append(&mut self, store: &Arc<LocalStore>, batch: &[Bytes]) -> Result<(), LocalError> {
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(store.temporary()?),
        };
        for chunk in batch {
            file.append(chunk)?;
            self.sum.update(chunk);
            self.size += chunk.len() as u64;
        }
        Ok(())
    }
}

/// Holds [`Arrived`] between two turns of a blocking thread. If the caller's future is dropped there,
/// the file is removed by a blocking thread, since freeing a large one takes its time.
struct PendingArrival(Option<Arrived>);

impl PendingArrival {
    fn take(mut self) -> Arrived {
        self.0.take().expect("taken once, by value")
    }
}

impl Drop for PendingArrival {
    fn drop(&mut self) {
        let Some(arrived) = self.0.take() else { return };
        if arrived.file.is_none() {
            return;
        }
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn_blocking(move || drop(arrived));
        }
    }
}

/// A sealed file without a name yet.
pub(super) struct Sealed {
    pub(super) file: Temporary,
    pub(super) crc64: Crc64,
}

/// Takes a payload whole, then seals it and lets `place` give it a name.
pub(super) async fn receive<T: Send + 'static>(
    store: &Arc<LocalStore>,
    mut payload: Payload,
    headers: ObjectHeaders,
    place: impl FnOnce(Sealed) -> Result<T, LocalError> + Send + 'static,
) -> Result<T, LocalError> {
    let empty = Arrived {
        file: None,
        size: 0,
        sum: Crc64Hasher::new(),
    };
    let mut waiting = PendingArrival(Some(empty));
    let mut taken: u64 = 0;
    let last = loop {
        let (batch, end) = match next_batch(&mut payload, &mut taken).await {
            Ok(next) => next,
            Err(cut) => {
                // The answer waits for this: after it, nothing of the attempt is left.
                let arrived = waiting.take();
                blocking(move || {
                    drop(arrived);
                    Ok(())
                })
                .await?;
                return Err(cut);
            }
        };
        if end {
            break batch;
        }
        let (mut arrived, store) = (waiting.take(), Arc::clone(store));
        let appended = blocking(move || {
            arrived.append(&store, &batch)?;
            Ok(arrived)
        });
        waiting = PendingArrival(Some(appended.await?));
    };
    let (mut arrived, store) = (waiting.take(), Arc::clone(store));
    let declared = payload.crc64;
    blocking(move || {
        arrived.append(&store, &last)?;
        let crc64 = arrived.sum.sum();
        if declared.is_some_and(|declared| declared != crc64) {
            return Err(LocalError::new(Kind::Corrupt));
        }
        let mut file = arrived.file.expect("appending made the file");
        let record = Record {
            size: arrived.size,
            crc64,
            headers,
            place: BytesAt::Here,
        };
        file.seal(&record)?;
        place(Sealed { file, crc64 })
    })
    .await
}

/// Writes a file that is nothing but a record.
pub(super) fn write_record(
    store: &Arc<LocalStore>,
    record: &Record,
    target: &Path,
) -> Result<(), LocalError> {
    let mut file = store.temporary()?;
    file.seal(record)?;
    store.place(file, target)
}

/// Gathers the next batch; true with the last one, whose payload then had its declared length.
async fn next_batch(
    payload: &mut Payload,
    taken: &mut u64,
) -> Result<(Vec<Bytes>, bool), LocalError> {
    let mut batch = Vec::new();
    let mut gathered = 0;
    while gathered < BATCH_BYTES {
        let Some(chunk) = payload.chunks.next().await else {
            return match *taken == payload.length {
                true => Ok((batch, true)),
                false => Err(LocalError::saying(
                    Kind::PayloadCut,
                    "the payload ended early",
                )),
            };
        };
        let chunk = chunk.map_err(|_cut| LocalError::new(Kind::PayloadCut))?;
        *taken += chunk.len() as u64;
        if *taken > payload.length {
            return Err(LocalError::saying(
                Kind::PayloadCut,
                "the payload is too long",
            ));
        }
        gathered += chunk.len();
        batch.push(chunk);
    }
    Ok((batch, false))
}
