//! The intent file: its own database, its own log, its own group commit.
//!
//! It is written before the last byte of a body is released, and never shares an fsync with the
//! catalogue. The catalogue's commit comes first, the row here goes later, with the next batch: so a
//! row that is found at start counts only if its copy has no location, cleanup or dead-letter row.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use base::CopyId;
use rusqlite::{Connection, OptionalExtension, params};
use tracing::warn;

use crate::fault::{Fault, database};
use crate::guard::{Intent, Unclaimed};
use crate::live::{IntentRow, Live};
use crate::model::{BackendId, Catalogue};
use crate::settle::IntentItem;
use crate::sqlite::batch::{self, Batch, CommitFault, Ended};
use crate::sqlite::checkpoint::{Nudge, is_io, truncate};
use crate::sqlite::condition::{Condition, Target};
use crate::sqlite::connection::{Role, connect, leave_files, make_durable};
use crate::sqlite::lock::{LockFile, beside};
use crate::sqlite::overwrite::Tracker;
use crate::sqlite::private;
use crate::values::{backend_key, blob_id, copy_id, int, uint};
use crate::writer::{BlockingApplier, Health};
use crate::{Error, Result};

/// Marks the file: 's3oi'.
const APPLICATION_ID: i64 = 0x7333_6f69;
const SCHEMA: &str = include_str!("../../migrations/sqlite/intents.sql");
const OPERATION: &str = "record an intent";

/// Where the intent file of a catalogue is.
pub(crate) fn path_of(catalogue: &Path) -> PathBuf {
    beside(catalogue, "-intents")
}

/// Opens the intent file of this catalogue; makes it where there is none. One of another incarnation
/// is moved aside: its rows say nothing about what is live here.
pub(crate) fn open(catalogue_path: &Path, catalogue: &Catalogue) -> Result<Connection> {
    let path = path_of(catalogue_path);
    let conn = make(&path)?;
    let failed = database("open the intent file");
    let owner = owner(&conn).map_err(&failed)?;
    let conn = match owner {
        Some(owner) if owner == identity(catalogue) => conn,
        Some((uuid, incarnation)) => {
            drop(conn);
            let aside = beside(&path, &format!(".{}", uuid::Uuid::from_bytes(incarnation)));
            warn!(
                file = %aside.display(), uuid = %uuid::Uuid::from_bytes(uuid),
                "the intents of another incarnation were moved aside"
            );
            move_aside(&path, &aside)?;
            make(&path)?
        }
        None => conn,
    };
    make_durable(&conn).map_err(&failed)?;
    create(&conn, catalogue).map_err(&failed)?;
    Ok(conn)
}

/// Opens the intent file beside a process that writes it; `None` where there is none.
pub(crate) fn open_reader(path: &Path, catalogue: &Catalogue) -> Result<Option<Connection>> {
    let path = path_of(path);
    if !path.exists() {
        return Ok(None);
    }
    let conn = connect(&path, Role::Reader)?;
    let owner = owner(&conn).map_err(database("open the intent file"))?;
    Ok((owner == Some(identity(catalogue))).then_some(conn))
}

fn make(path: &Path) -> Result<Connection> {
    private::create(path).map_err(|source| Error::File {
        operation: "making the intent file",
        path: path.into(),
        source,
    })?;
    connect(path, Role::Writer)
}

type Owner = ([u8; 16], [u8; 16]);

fn identity(catalogue: &Catalogue) -> Owner {
    (
        catalogue.uuid.into_bytes(),
        catalogue.incarnation.into_bytes(),
    )
}

fn owner(conn: &Connection) -> rusqlite::Result<Option<Owner>> {
    let application: i64 = conn.pragma_query_value(None, "application_id", |row| row.get(0))?;
    if application != APPLICATION_ID {
        return Ok(None);
    }
    conn.query_row("SELECT uuid, incarnation FROM intent_file", [], |row| {
        Ok((row.get(0)?, row.get(1)?))
    })
    .optional()
}

fn create(conn: &Connection, catalogue: &Catalogue) -> rusqlite::Result<()> {
    if owner(conn)?.is_some() {
        return Ok(());
    }
    let (uuid, incarnation) = identity(catalogue);
    let tx = conn.unchecked_transaction()?;
    tx.execute_batch(SCHEMA)?;
    tx.execute(
        "INSERT INTO intent_file VALUES (1, ?1, ?2)",
        params![uuid, incarnation],
    )?;
    tx.pragma_update(None, "application_id", APPLICATION_ID)?;
    tx.commit()
}

fn move_aside(path: &Path, aside: &Path) -> Result<()> {
    for suffix in ["-wal", "-shm", ""] {
        let (from, to) = (beside(path, suffix), beside(aside, suffix));
        match std::fs::rename(&from, to) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(source) => {
                return Err(Error::File {
                    operation: "moving aside",
                    path: from,
                    source,
                });
            }
        }
    }
    Ok(())
}

/// The intents that are still open, and the rows that are not any more.
pub(crate) fn load(
    intents: &Connection,
    catalogue: &Connection,
) -> std::result::Result<(Vec<IntentRow>, Vec<CopyId>), Fault> {
    let mut settled = catalogue.prepare(
        "SELECT EXISTS (SELECT 1 FROM object_locations WHERE copy_id = ?1)
             OR EXISTS (SELECT 1 FROM cleanup_queue WHERE copy_id = ?1)
             OR EXISTS (SELECT 1 FROM cleanup_dlq WHERE copy_id = ?1)",
    )?;
    let mut statement = intents
        .prepare("SELECT copy_id, blob_id, backend_id, backend_key, reserved FROM write_intents")?;
    let mut rows = statement.query([])?;
    let (mut open, mut stale) = (Vec::new(), Vec::new());
    while let Some(row) = rows.next()? {
        let copy = copy_id(row, 0)?;
        if settled.query_row([copy.to_bytes()], |row| row.get(0))? {
            stale.push(copy);
            continue;
        }
        open.push(IntentRow {
            copy,
            blob: blob_id(row, 1)?,
            backend: BackendId(row.get(2)?),
            key: backend_key(row, 3)?,
            bytes: uint(row, 4)?,
        });
    }
    Ok((open, stale))
}

/// Applies batches of intents.
pub(crate) struct IntentApplier {
    pub(crate) conn: Connection,
    pub(crate) live: Arc<Live>,
    pub(crate) nudge: Nudge,
    pub(crate) fatal: Arc<dyn Fn(&Error) + Send + Sync>,
    pub(crate) fault: CommitFault,
    pub(crate) condition: Arc<Condition>,
    pub(crate) tracker: Arc<Tracker>,
    /// Held until the last batch is done.
    #[expect(dead_code, reason = "a guard: only its life matters")]
    pub(crate) lock: Arc<LockFile>,
}

impl BlockingApplier for IntentApplier {
    type Item = IntentItem;

    fn rows(_item: &IntentItem) -> usize {
        1
    }

    fn apply(&mut self, items: Vec<IntentItem>) -> Health {
        let condition = Arc::clone(&self.condition);
        let _admission = match condition.admit() {
            Ok(admission) => admission,
            Err(amiss) => {
                refuse(items, || condition.refusal(amiss.clone()));
                return Health::Sound;
            }
        };
        let stale = self.live.take_stale();
        let changes = self.conn.total_changes();
        let batch = Opening {
            conn: &self.conn,
            live: &self.live,
            items: &items,
            stale: &stale,
        };
        match batch::run(&self.conn, &batch, &self.fault) {
            Ended::Committed(results) => {
                if self.conn.total_changes() != changes {
                    condition.written(Target::Intents);
                }
                self.answer(items, results);
                self.look_after_log()
            }
            Ended::Failed(error) => {
                condition.failed(Target::Intents, &error);
                self.live.put_back_stale(stale);
                refuse(items, || batch::share(&error, OPERATION));
                Health::Sound
            }
            Ended::Fatal(error) => {
                (self.fatal)(&batch::share(&error, OPERATION));
                refuse(items, || batch::share(&error, OPERATION));
                Health::Dead
            }
        }
    }

    fn finish(&mut self) {
        if self.condition.check().is_err() {
            return leave_files(&self.conn);
        }
        let stale = self.live.take_stale();
        let end = || -> rusqlite::Result<()> {
            let tx = self.conn.unchecked_transaction()?;
            delete(&tx, &stale)?;
            tx.commit()?;
            truncate(&self.conn, &self.tracker)
        };
        if let Err(error) = end() {
            warn!(error = %base::report(&error), "could not delete resolved intents from their file");
        }
    }
}

/// Intents that are recorded together, and rows that go on that occasion.
struct Opening<'a> {
    conn: &'a Connection,
    live: &'a Live,
    items: &'a [IntentItem],
    stale: &'a [CopyId],
}

impl Batch for Opening<'_> {
    type Job = IntentItem;
    type Answer = ();

    fn jobs(&self) -> &[IntentItem] {
        self.items
    }

    fn operation(&self, _item: &IntentItem) -> &'static str {
        OPERATION
    }

    fn begin(&self) -> rusqlite::Result<()> {
        Ok(())
    }

    fn apply(&self, item: &IntentItem) -> std::result::Result<(), Fault> {
        insert(self.conn, self.live, item)
    }

    fn last(&self) -> rusqlite::Result<()> {
        delete(self.conn, self.stale)
    }
}

impl IntentApplier {
    /// What the last batch did is durable and answered; a failed fsync of the log's copy means that
    /// the next one could not be trusted.
    fn look_after_log(&mut self) -> Health {
        match self.nudge.after_commit(&self.conn) {
            Err(error) if is_io(&error) => {
                (self.fatal)(&database("copy the log back")(error));
                Health::Dead
            }
            Err(error) => {
                warn!(error = %base::report(&error), "WAL checkpoint check failed");
                self.condition.note_corrupt(Target::Intents, &error);
                Health::Sound
            }
            Ok(()) => Health::Sound,
        }
    }

    fn answer(&self, items: Vec<IntentItem>, results: Vec<Result<()>>) {
        let durable = items
            .iter()
            .zip(&results)
            .filter(|(_, result)| result.is_ok());
        let _always = self
            .live
            .intents_opened(durable.map(|(item, _)| (item.row.clone(), item.room.generation())));
        for (item, result) in items.into_iter().zip(results) {
            let answer = match result {
                Ok(()) => {
                    item.room.disarm();
                    let intent = Intent::new(Arc::clone(&self.live), item.row);
                    Ok(Unclaimed::new(intent))
                }
                Err(error) => {
                    // Before the answer: who is refused may look at the room at once.
                    drop(item.room);
                    Err(error)
                }
            };
            // A caller that is gone drops its intent here: abandoned, for the reaper.
            let _caller_gone = item.reply.send(answer);
        }
    }
}

fn refuse(items: Vec<IntentItem>, error: impl Fn() -> Error) {
    for IntentItem { room, reply, .. } in items {
        drop(room);
        let _caller_gone = reply.send(Err(error()));
    }
}

fn insert(conn: &Connection, live: &Live, item: &IntentItem) -> std::result::Result<(), Fault> {
    let IntentRow {
        copy,
        blob,
        backend,
        key,
        bytes,
    } = &item.row;
    if !live.accepts(*backend) {
        return Err(Error::NoRoom {
            wanted: base::ByteSize(*bytes),
        }
        .into());
    }
    conn.prepare_cached("INSERT INTO write_intents VALUES (?1, ?2, ?3, ?4, ?5)")?
        .execute(params![
            copy.to_bytes(),
            blob.to_bytes(),
            backend.0,
            key.as_str(),
            int(*bytes)?
        ])?;
    Ok(())
}

fn delete(conn: &Connection, stale: &[CopyId]) -> rusqlite::Result<()> {
    let mut statement = conn.prepare_cached("DELETE FROM write_intents WHERE copy_id = ?1")?;
    for copy in stale {
        statement.execute([copy.to_bytes()])?;
    }
    Ok(())
}
