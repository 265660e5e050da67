//! Opening: files, counters, intents of earlier processes, and the tasks that write.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use rusqlite::Connection;
use tokio::time::sleep;

use crate::fault::{Fault, database};
use crate::live::Live;
use crate::model::Catalogue;
use crate::settle::Settler;
use crate::sqlite::apply::MainApplier;
use crate::sqlite::checkpoint::{self, Checkpointer};
use crate::sqlite::condition::{Condition, Target, Watch};
use crate::sqlite::connection::{Role, connect};
use crate::sqlite::intents;
use crate::sqlite::lock::LockFile;
use crate::sqlite::migrate::{self, Opened};
use crate::sqlite::overwrite::Tracker;
use crate::sqlite::private::{resolve, tighten};
use crate::sqlite::readers::ReadPool;
use crate::sqlite::store::{Files, Verifier, Writing};
use crate::store::{OpenOptions, Tuning, blocking};
use crate::writer::{Blocking, Lane};
use crate::{Error, Result};

/// How often, and after which pause, the lock is tried where this very process holds it: a store
/// that was dropped still writes what waits.
const OWN_LOCK_TRIES: u32 = 100;
const OWN_LOCK_PAUSE_MS: u64 = 10;

/// What the blocking part of opening yields.
struct Parts {
    opened: Opened,
    intents: Connection,
    live: Arc<Live>,
    readers: Arc<ReadPool>,
}

pub(crate) async fn writer(mut options: OpenOptions, tuning: Tuning) -> Result<Files> {
    let given = std::mem::take(&mut options.path);
    options.path = resolve(&given);
    let condition = Condition::new(&options.path);
    let lock = Arc::new(lock(&options.path).await?);
    let parts = {
        let options = options.clone();
        let pages_max = tuning.pages_max;
        blocking(move || parts(&options, pages_max)).await?
    };
    let Parts {
        opened,
        intents,
        live,
        readers,
    } = parts;
    let catalogue = Arc::new(RwLock::new(opened.catalogue));
    let fatal = || {
        let on_fatal = Arc::clone(&tuning.on_fatal);
        move |error: Error| on_fatal(&error)
    };
    let panicked = || {
        let on_fatal = Arc::clone(&tuning.on_fatal);
        move || {
            on_fatal(&Error::Damaged {
                what: "a transaction panicked".into(),
            })
        }
    };
    let intents_path = intents::path_of(&options.path);
    let kept = (&lock, &condition, &readers);
    let catalogue_file = (Target::Catalogue, &*options.path);
    let tracker = Tracker::start(catalogue_file, (&opened.conn, "catalogue"), kept)?;
    let intents_file = (Target::Intents, &*intents_path);
    let intent_tracker = Tracker::start(intents_file, (&intents, "write_intents"), kept)?;
    let (checkpoints, nudge) = Checkpointer::start(
        &options.path,
        Some(Arc::clone(&readers)),
        (&lock, &condition, &tracker),
        fatal(),
    )?;
    let (intent_checkpoints, intent_nudge) = Checkpointer::start(
        &intents_path,
        None,
        (&lock, &condition, &intent_tracker),
        fatal(),
    )?;
    let trackers = [Arc::clone(&tracker), Arc::clone(&intent_tracker)];
    let watch = Watch::start(&given, &condition, &readers, (trackers, options.ids))?;
    let main = MainApplier {
        conn: opened.conn,
        settler: Settler {
            live: Arc::clone(&live),
            catalogue: Arc::clone(&catalogue),
        },
        clock: options.clock,
        read_grace: options.read_grace,
        epoch: opened.epoch,
        readers: Arc::clone(&readers),
        nudge,
        fatal: Arc::clone(&tuning.on_fatal),
        fault: tuning.commit_fault.clone(),
        condition: Arc::clone(&condition),
        tracker,
        lock: Arc::clone(&lock),
    };
    let main = Lane::start(Blocking(main), panicked());
    let intents = intents::IntentApplier {
        conn: intents,
        live: Arc::clone(&live),
        nudge: intent_nudge,
        fatal: Arc::clone(&tuning.on_fatal),
        fault: tuning.commit_fault.clone(),
        condition: Arc::clone(&condition),
        tracker: intent_tracker,
        lock: Arc::clone(&lock),
    };
    let intents = Lane::start(Blocking(intents), panicked());
    let checkpointers = [checkpoints, intent_checkpoints];
    let writing = Some(Writing {
        main,
        intents,
        checkpointers,
        watch,
        lock,
    });
    Ok(Files {
        path: options.path,
        live,
        catalogue,
        condition,
        readers,
        verifier: Mutex::default(),
        writing,
    })
}

/// Takes the lock. Another process that holds it is an error at once.
async fn lock(path: &Path) -> Result<LockFile> {
    let mut tries = OWN_LOCK_TRIES;
    loop {
        let wanted = path.to_path_buf();
        match blocking(move || LockFile::take(&wanted)).await {
            Err(Error::InUse { pid: Some(pid), .. }) if pid == std::process::id() && tries > 0 => {
                tries -= 1;
                sleep(Duration::from_millis(OWN_LOCK_PAUSE_MS)).await;
            }
            other => return other,
        }
    }
}

fn parts(options: &OpenOptions, pages_max: Option<u32>) -> Result<Parts> {
    tighten(&options.path);
    let opened = migrate::open(&options.path, &options.ids, options.clock.as_ref())?;
    let live = Arc::new(Live::default());
    let named = |fault: Fault| fault.named("load the catalogue");
    migrate::load_counters(&opened.conn, &live).map_err(named)?;
    let intents = intents::open(&options.path, &opened.catalogue)?;
    let (open, stale) = intents::load(&intents, &opened.conn).map_err(named)?;
    for row in open {
        live.load_intent(row);
    }
    live.put_back_stale(stale);
    for conn in [&opened.conn, &intents] {
        checkpoint::settle(conn).map_err(database("copy the log back"))?;
    }
    if let Some(pages) = pages_max {
        let limit = opened
            .conn
            .pragma_update_and_check(None, "max_page_count", pages, |_| Ok(()));
        limit.map_err(database("limit the catalogue"))?;
    }
    let readers = Arc::new(ReadPool::open(&options.path, true)?);
    Ok(Parts {
        opened,
        intents,
        live,
        readers,
    })
}

pub(crate) async fn reader(path: &Path) -> Result<Files> {
    let path = resolve(path);
    blocking(move || read_only(path)).await
}

/// What another process has in memory, as far as its files tell. The intents are read behind the
/// snapshot of `conn`, so that one which is committed there is not taken for open.
pub(super) fn live_beside(
    path: &Path,
    catalogue: &Catalogue,
    conn: &Connection,
) -> Result<Arc<Live>> {
    let live = Arc::new(Live::default());
    let named = |fault: Fault| fault.named("load the catalogue");
    migrate::load_counters(conn, &live).map_err(named)?;
    if let Some(intents) = intents::open_reader(path, catalogue)? {
        let (open, _settled) = intents::load(&intents, conn).map_err(named)?;
        for row in open {
            live.load_intent(row);
        }
    }
    Ok(live)
}

pub(super) fn verifier(files: &Files) -> Result<Verifier> {
    let intents = match &files.writing {
        Some(_) => Some(connect(&intents::path_of(&files.path), Role::Reader)?),
        None => None,
    };
    Ok(Verifier {
        catalogue: connect(&files.path, Role::Reader)?,
        intents,
    })
}

fn read_only(path: PathBuf) -> Result<Files> {
    if !path.exists() {
        return Err(Error::Missing { path });
    }
    let conn = connect(&path, Role::Reader)?;
    let catalogue = migrate::check_reader(&conn, &path)?;
    let live = live_beside(&path, &catalogue, &conn)?;
    let readers = Arc::new(ReadPool::open(&path, false)?);
    let catalogue = Arc::new(RwLock::new(catalogue));
    let condition = Condition::new(&path);
    Ok(Files {
        condition,
        path,
        live,
        catalogue,
        readers,
        verifier: Mutex::default(),
        writing: None,
    })
}
