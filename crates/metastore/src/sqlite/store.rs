//! The handle to a catalogue in files.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;

use base::ObjectKey;
use parking_lot::{Mutex, RwLock};
use rusqlite::Connection;
use tokio::sync::oneshot;
use tracing::warn;

use crate::fault::{Fault, database};
use crate::guard::Unclaimed;
use crate::job::{Answer, Held, Job};
use crate::live::Live;
use crate::model::{BucketId, Catalogue, ObjectRecord, ReadPlan, Verification};
use crate::settle::{IntentItem, Item};
use crate::sqlite::checkpoint::Checkpointer;
use crate::sqlite::condition::{Condition, Looker, Watch};
use crate::sqlite::connection::leave_files;
use crate::sqlite::lock::LockFile;
use crate::sqlite::readers::ReadPool;
use crate::sqlite::{open, read, verify};
use crate::store::blocking;
use crate::writer::{Lane, Priority};
use crate::{Error, Intent, Result};

/// What a lookup of one key is called where it fails.
pub(crate) const LOOKUP: &str = "look an object up";

/// The files of a catalogue.
pub(crate) struct Files {
    pub(super) path: PathBuf,
    pub(super) live: Arc<Live>,
    pub(super) catalogue: Arc<RwLock<Catalogue>>,
    pub(super) condition: Arc<Condition>,
    pub(super) readers: Arc<ReadPool>,
    /// Kept between two verifications.
    pub(super) verifier: Mutex<Option<Verifier>>,
    /// Absent where the catalogue was opened for reading only.
    pub(super) writing: Option<Writing>,
}

/// Connections of a verification.
pub(super) struct Verifier {
    pub(super) catalogue: Connection,
    /// Absent where the registry was read from the file in the first place.
    pub(super) intents: Option<Connection>,
}

/// What only the writing process has.
pub(super) struct Writing {
    pub(super) main: Lane<Item>,
    pub(super) intents: Lane<IntentItem>,
    pub(super) checkpointers: [Checkpointer; 2],
    pub(super) watch: Watch,
    pub(super) lock: Arc<LockFile>,
}

impl Files {
    pub(crate) fn path(&self) -> &std::path::Path {
        &self.path
    }

    pub(crate) fn live(&self) -> &Arc<Live> {
        &self.live
    }

    pub(crate) fn catalogue(&self) -> &Arc<RwLock<Catalogue>> {
        &self.catalogue
    }

    /// Whether this is the one process that writes.
    pub(crate) fn is_writing(&self) -> bool {
        self.writing.is_some()
    }

    /// Fails where the files are not what will be found at the next start.
    pub(crate) async fn close(&self) -> Result<()> {
        if let Some(writing) = &self.writing {
            // Whoever removes the files and stops the process at once is too fast for the clock.
            look(&writing.watch, Looker::look).await;
            // The catalogue first: what its last jobs settle leaves the intent file with the second.
            writing.main.close().await;
            // Still before any file goes with the last connection to it.
            look(&writing.watch, Looker::end).await;
            writing.intents.close().await;
            for checkpointer in &writing.checkpointers {
                checkpointer.ended().await;
            }
        }
        let verifier = self.verifier.lock().take();
        let checked = self.condition.check();
        if checked.is_err() {
            self.readers.leave_files();
            if let Some(verifier) = &verifier {
                leave_files(&verifier.catalogue);
                verifier.intents.iter().for_each(leave_files);
            }
        }
        drop(verifier);
        self.readers.close();
        if let Some(writing) = &self.writing {
            writing.lock.release();
        }
        checked
    }

    /// Queues a job with the guards that it settles; those that it did not come back.
    pub(crate) async fn send(
        &self,
        job: Box<Job>,
        held: Held,
        priority: Priority,
    ) -> (Result<Answer>, Held) {
        let Some(writing) = &self.writing else {
            return (Err(Error::Closed), held);
        };
        let (reply, answer) = oneshot::channel();
        if let Err(Item { held, .. }) = writing.main.send(Item { job, held, reply }, priority).await
        {
            if let Held::Intents(intents) = &held {
                self.live.reopen(intents);
            }
            return (Err(Error::Closed), held);
        }
        // A writer that died took the guards with it; they settled themselves.
        answer
            .await
            .unwrap_or_else(|_| (Err(Error::Closed), Held::Nothing))
    }

    /// A job that may as well be forgotten.
    pub(crate) fn offer(&self, job: Box<Job>) {
        if let Some(writing) = &self.writing {
            let (reply, _nobody_waits) = oneshot::channel();
            writing.main.offer(Item {
                job,
                held: Held::Nothing,
                reply,
            });
        }
    }

    pub(crate) async fn open_intent(
        &self,
        item: IntentItem,
        answer: oneshot::Receiver<Result<Unclaimed>>,
    ) -> Result<Intent> {
        let writing = self.writing.as_ref().ok_or(Error::Closed)?;
        writing
            .intents
            .send(item, Priority::Normal)
            .await
            .map_err(|_| Error::Closed)?;
        answer
            .await
            .unwrap_or(Err(Error::Closed))
            .map(Unclaimed::claim)
    }

    /// Whether its files can be written, as far as is known.
    pub(crate) fn condition(&self) -> &Condition {
        &self.condition
    }

    pub(crate) fn read<T>(
        &self,
        operation: &'static str,
        body: impl FnOnce(&Connection) -> std::result::Result<T, Fault>,
    ) -> Result<T> {
        self.explained(self.readers.read(operation, body))
    }

    fn explained<T>(&self, read: Result<T>) -> Result<T> {
        read.map_err(|error| self.condition.explain(error))
    }

    /// The current version of a key.
    pub(crate) fn object(&self, bucket: BucketId, key: &ObjectKey) -> Result<Option<ObjectRecord>> {
        let look = |conn: &Connection| read::object(conn, bucket, key);
        self.explained(self.readers.read(LOOKUP, look))
    }

    /// The current version of a key and where its bytes are, in one snapshot.
    pub(crate) fn plan(&self, bucket: BucketId, key: &ObjectKey) -> Result<Option<ReadPlan>> {
        let look = |conn: &Connection| read::plan(conn, bucket, key);
        match self.explained(self.readers.read(LOOKUP, look))? {
            ControlFlow::Break(plan) => Ok(plan),
            ControlFlow::Continue(()) => {
                let look = |conn: &Connection| read::plan_of_extents(conn, bucket, key);
                self.explained(self.readers.read(LOOKUP, look))
            }
        }
    }

    /// Compares every counter with the rows it counts, in one snapshot. Blocks.
    pub(crate) fn verify(&self) -> Result<Verification> {
        const OPERATION: &str = "verify the catalogue";
        // Connections that are opened now would be opened by name.
        self.condition.check()?;
        // A connection of its own: the walk may take long, and the pool is for short reads.
        let kept = self.verifier.lock().take();
        let mut files = kept.map_or_else(|| open::verifier(self), Ok)?;
        let tx = files.catalogue.transaction().map_err(database(OPERATION))?;
        let live = match &self.writing {
            Some(_) => Arc::clone(&self.live),
            // The server beside us has gone on since we were opened.
            None => open::live_beside(&self.path, &self.catalogue.read(), &tx)?,
        };
        let verified = verify::verify(&tx, &live, files.intents.as_ref());
        drop(tx);
        *self.verifier.lock() = Some(files);
        self.explained(verified.map_err(|fault| fault.named(OPERATION)))
    }
}

/// Blocks for as long as a copy takes, where one has to be made.
async fn look(watch: &Watch, look: fn(&mut Looker)) {
    let looker = watch.looker();
    let looked = blocking(move || {
        look(&mut looker.lock());
        Ok(())
    });
    if let Err(error) = looked.await {
        warn!(error = %base::report(&error), "files not looked at before the end");
    }
}
