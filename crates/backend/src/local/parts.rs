//! The part files of assembled objects: who reads them, and how they go.

use std::io;
use std::path::Path;
use std::sync::Arc;

use base::report;
use tracing::warn;

use super::store::{LocalStore, PARTS, TRASH};

/// Who reads the parts of an assembled object.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Readers {
    count: usize,
    /// The object was deleted: its parts go with the last reader.
    doomed: bool,
}

impl LocalStore {
    /// Removes the parts of a deleted object now, or leaves them to its last reader.
    pub(super) fn release_parts(&self, upload: &str) {
        {
            let mut readers = self.readers.lock();
            if let Some(readers) = readers.get_mut(upload) {
                readers.doomed = true;
                return;
            }
        }
        self.empty_trash(upload);
    }

    /// Notes a reader of the parts of an assembled object.
    pub(super) fn hold_parts(self: &Arc<Self>, upload: &str) -> PartsHold {
        self.readers
            .lock()
            .entry(upload.to_owned())
            .or_default()
            .count += 1;
        PartsHold {
            store: Arc::clone(self),
            upload: upload.to_owned(),
        }
    }

    /// Removes the parts of a deleted object and then the last trace of it.
    pub(super) fn empty_trash(&self, upload: &str) {
        let removed = self.remove_parts(upload).and_then(|()| {
            self.files
                .remove(&self.absolute(&Path::new(TRASH).join(upload)))
        });
        if let Err(error) = removed {
            warn!(root = %self.root.display(), upload, error = report(&error).to_string(),
                "parts of a deleted object are left to the next start");
        }
    }

    /// Removes all parts of an upload, durably.
    pub(super) fn remove_parts(&self, upload: &str) -> io::Result<()> {
        let parts = Path::new(PARTS);
        let directory = parts.join(upload);
        for name in self.names_in(&directory)? {
            self.files.remove(&self.absolute(&directory.join(name)))?;
        }
        if self.drop_directory(&directory) {
            self.files.sync_dir(&self.absolute(parts))?;
        }
        Ok(())
    }
}

/// Keeps the parts of an assembled object readable while it is being read.
pub(super) struct PartsHold {
    store: Arc<LocalStore>,
    upload: String,
}

impl Drop for PartsHold {
    fn drop(&mut self) {
        let doomed = {
            let mut all = self.store.readers.lock();
            let Some(readers) = all.get_mut(&self.upload) else {
                return;
            };
            readers.count -= 1;
            let last = readers.count == 0;
            let doomed = readers.doomed;
            if last {
                all.remove(&self.upload);
            }
            last && doomed
        };
        if !doomed {
            return;
        }
        let (store, upload) = (Arc::clone(&self.store), std::mem::take(&mut self.upload));
        // Without a runtime the parts wait for the sweep of the next start.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn_blocking(move || store.empty_trash(&upload));
        }
    }
}
