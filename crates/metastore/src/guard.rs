//! What a request holds while it writes: room, intents, part claims. Each settles itself on drop, in
//! memory and at once, so a future may be dropped at any await.

use std::fmt;
use std::sync::Arc;

use base::{CopyId, UploadId};

use crate::live::{Generation, IntentRow, Live};
use crate::model::BackendId;

/// Bytes of a backend's room that belong to one request; given back on drop.
pub struct Reservation {
    live: Arc<Live>,
    backend: BackendId,
    bytes: u64,
    generation: Generation,
    armed: bool,
}

impl Reservation {
    /// Takes room in memory; `None` where there is not enough.
    pub(crate) fn take(live: &Arc<Live>, backend: BackendId, bytes: u64) -> Option<Self> {
        let generation = live.take(backend, bytes)?;
        Some(Self {
            live: Arc::clone(live),
            backend,
            bytes,
            generation,
            armed: true,
        })
    }

    /// Whether it is still held: this process may have lost all its room in the meantime.
    pub(crate) fn is_held(&self) -> bool {
        self.live.generation() == self.generation
    }

    /// Whose room it is.
    pub fn backend(&self) -> BackendId {
        self.backend
    }

    pub(crate) fn generation(&self) -> Generation {
        self.generation
    }

    /// How many bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The bytes are counted elsewhere from now on.
    pub(crate) fn disarm(mut self) {
        self.armed = false;
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if self.armed {
            self.live
                .give_back(self.backend, self.bytes, self.generation);
        }
    }
}

impl fmt::Debug for Reservation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Reservation({} bytes on {:?})", self.bytes, self.backend)
    }
}

/// A durable intent that this process owns.
///
/// Dropped without a commit it is abandoned: it stays open, and the reaper turns it into a cleanup
/// row, unsettled unless [`Intent::answered`] was called. So a future may be dropped at any time.
pub struct Intent {
    live: Arc<Live>,
    row: IntentRow,
    generation: Generation,
    armed: bool,
}

impl Intent {
    /// The intent must be registered.
    pub(crate) fn new(live: Arc<Live>, row: IntentRow) -> Self {
        Self {
            generation: live.generation(),
            live,
            row,
            armed: true,
        }
    }

    pub(crate) fn generation(&self) -> Generation {
        self.generation
    }

    /// The attempt.
    pub fn copy(&self) -> CopyId {
        self.row.copy
    }

    /// The backend has answered the attempt: nothing more of it can appear. Given up or dropped from now
    /// on, its bytes are deleted once and are then forgotten.
    pub fn answered(&self) {
        self.live.answered(self.row.copy, self.generation);
    }

    /// On which backend.
    pub fn backend(&self) -> BackendId {
        self.row.backend
    }

    pub(crate) fn row(&self) -> &IntentRow {
        &self.row
    }

    /// It was settled.
    pub(crate) fn disarm(mut self) {
        self.armed = false;
    }
}

/// A durable intent on its way to the caller, who may be gone. Dropped without being claimed, nothing was
/// sent under it: nothing can appear.
pub(crate) struct Unclaimed(Option<Intent>);

impl Unclaimed {
    pub(crate) fn new(intent: Intent) -> Self {
        Self(Some(intent))
    }

    /// The caller has it.
    pub(crate) fn claim(mut self) -> Intent {
        self.0.take().expect("an intent is claimed once")
    }
}

impl Drop for Unclaimed {
    fn drop(&mut self) {
        if let Some(intent) = &self.0 {
            intent.answered();
        }
    }
}

impl Drop for Intent {
    fn drop(&mut self) {
        if self.armed {
            self.live.abandon(self.row.copy, self.generation);
        }
    }
}

impl fmt::Debug for Intent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Intent({} on {:?})", self.row.copy, self.row.backend)
    }
}

/// A durable claim on a part number. Dropped without [`Store::commit_part`] its outcome is unknown:
/// its bytes stay reserved until the number is written again or the upload ends.
///
/// [`Store::commit_part`]: crate::Store::commit_part
pub struct PartClaim {
    live: Arc<Live>,
    upload: UploadId,
    attempt: CopyId,
}

impl PartClaim {
    /// From now on the upload cannot be frozen.
    pub(crate) fn new(live: Arc<Live>, upload: UploadId, attempt: CopyId) -> Self {
        live.claim_begins(upload, attempt);
        Self {
            live,
            upload,
            attempt,
        }
    }

    /// The attempt.
    pub fn attempt(&self) -> CopyId {
        self.attempt
    }

    /// The upload whose part it is.
    pub fn upload(&self) -> UploadId {
        self.upload
    }
}

impl Drop for PartClaim {
    fn drop(&mut self) {
        self.live.claim_ends(self.upload, self.attempt);
    }
}

impl fmt::Debug for PartClaim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PartClaim({} of {})", self.attempt, self.upload)
    }
}
