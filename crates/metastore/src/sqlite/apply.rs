//! Applies batches of jobs to the catalogue.

use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use base::{Clock, Timestamp};
use parking_lot::RwLock;
use rusqlite::{Connection, params};
use tracing::warn;

use crate::Error;
use crate::fault::{Fault, database};
use crate::job::{Answer, Job};
use crate::live::{Effects, Live};
use crate::model::{BackendId, Catalogue};
use crate::settle::{Item, Settler};
use crate::sqlite::batch::{self, Batch, CommitFault, Ended};
use crate::sqlite::checkpoint::{Nudge, is_io, truncate};
use crate::sqlite::condition::{Condition, Target};
use crate::sqlite::connection::leave_files;
use crate::sqlite::lock::LockFile;
use crate::sqlite::overwrite::Tracker;
use crate::sqlite::readers::ReadPool;
use crate::sqlite::{INSTANCE, cleanup, legs, names, objects, parts, uploads, usage};
use crate::values::Cells;
use crate::writer::{BlockingApplier, Health};

/// Applies batches of jobs.
pub(crate) struct MainApplier {
    pub(crate) conn: Connection,
    pub(crate) settler: Settler,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) read_grace: Duration,
    pub(crate) epoch: i64,
    pub(crate) readers: Arc<ReadPool>,
    pub(crate) nudge: Nudge,
    pub(crate) fatal: Arc<dyn Fn(&Error) + Send + Sync>,
    pub(crate) fault: CommitFault,
    pub(crate) condition: Arc<Condition>,
    pub(crate) tracker: Arc<Tracker>,
    /// Held until the last batch is done.
    #[expect(dead_code, reason = "a guard: only its life matters")]
    pub(crate) lock: Arc<LockFile>,
}

/// One job while it is applied.
pub(crate) struct Work<'a> {
    pub(crate) conn: &'a Connection,
    pub(crate) live: &'a Live,
    pub(crate) catalogue: &'a RwLock<Catalogue>,
    pub(crate) now: Timestamp,
    pub(crate) read_grace: Duration,
    pub(crate) epoch: i64,
    /// The last place in the order of commits that was given away.
    pub(crate) seq: &'a Cell<u64>,
    pub(crate) effects: Effects,
}

impl BlockingApplier for MainApplier {
    type Item = Item;

    fn rows(item: &Item) -> usize {
        item.job.rows()
    }

    fn apply(&mut self, items: Vec<Item>) -> Health {
        let drift = match items.iter().any(|item| matches!(*item.job, Job::Audit)) {
            true => self.drift(),
            false => Vec::new(),
        };
        let condition = Arc::clone(&self.condition);
        let _admission = match condition.admit() {
            Ok(admission) => admission,
            Err(amiss) => {
                self.settler
                    .refuse(items, |_| condition.refusal(amiss.clone()));
                return Health::Sound;
            }
        };
        let changes = self.conn.total_changes();
        match self.transact(&items, &drift) {
            Ended::Committed(results) => {
                if self.conn.total_changes() != changes {
                    condition.written(Target::Catalogue);
                }
                self.readers.committed();
                self.settler.answer(items, results);
                self.look_after_log()
            }
            Ended::Failed(error) => {
                condition.failed(Target::Catalogue, &error);
                self.refuse(items, &error);
                Health::Sound
            }
            Ended::Fatal(error) => {
                (self.fatal)(&batch::share(&error, "commit"));
                self.refuse(items, &error);
                Health::Dead
            }
        }
    }

    fn finish(&mut self) {
        self.readers.release();
        if self.condition.check().is_err() {
            return leave_files(&self.conn);
        }
        if let Err(error) = truncate(&self.conn, &self.tracker) {
            warn!(error = %base::report(&error), "WAL checkpoint at stop failed");
        }
        // That was the last look before the connections end.
        if self.condition.check().is_err() {
            leave_files(&self.conn);
        }
    }
}

/// Jobs that are applied together.
struct Applying<'a> {
    applier: &'a MainApplier,
    items: &'a [Item],
    drift: &'a [String],
    now: Timestamp,
    /// The place in the order of commits that was given away before.
    first: Cell<u64>,
    /// The last one that was given away.
    seq: Cell<u64>,
}

impl Batch for Applying<'_> {
    type Job = Item;
    type Answer = (Answer, Effects);

    fn jobs(&self) -> &[Item] {
        self.items
    }

    fn operation(&self, item: &Item) -> &'static str {
        item.job.operation()
    }

    fn begin(&self) -> rusqlite::Result<()> {
        self.first.set(last_seq(&self.applier.conn)?);
        self.seq.set(self.first.get());
        Ok(())
    }

    fn apply(&self, item: &Item) -> std::result::Result<(Answer, Effects), Fault> {
        let mut work = Work {
            conn: &self.applier.conn,
            live: &self.applier.settler.live,
            catalogue: &self.applier.settler.catalogue,
            now: self.now,
            read_grace: self.applier.read_grace,
            epoch: self.applier.epoch,
            seq: &self.seq,
            effects: Effects::default(),
        };
        let answer = match &*item.job {
            Job::Audit => Answer::Drift(self.drift.to_vec()),
            job => work.apply(job)?,
        };
        work.write_counters()?;
        Ok((answer, work.effects))
    }

    fn last(&self) -> rusqlite::Result<()> {
        if self.seq == self.first {
            return Ok(());
        }
        let conn = &self.applier.conn;
        let mut update = conn.prepare_cached("UPDATE catalogue SET seq = ?1")?;
        update.execute([self.seq.get().cast_signed()]).map(|_| ())
    }
}

impl MainApplier {
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
                self.condition.note_corrupt(Target::Catalogue, &error);
                Health::Sound
            }
            Ok(()) => Health::Sound,
        }
    }

    fn transact(&self, items: &[Item], drift: &[String]) -> Ended<(Answer, Effects)> {
        let batch = Applying {
            applier: self,
            items,
            drift,
            now: self.clock.now(),
            first: Cell::default(),
            seq: Cell::default(),
        };
        batch::run(&self.conn, &batch, &self.fault)
    }

    fn refuse(&self, items: Vec<Item>, error: &rusqlite::Error) {
        self.settler
            .refuse(items, |job| batch::share(error, job.operation()));
    }

    /// Differences between the counters in memory and in rows. Asked between two batches, when
    /// both should agree to the byte.
    fn drift(&self) -> Vec<String> {
        let read = || -> std::result::Result<Vec<String>, Fault> {
            let mut statement = self.conn.prepare_cached(
                "SELECT backend_id, sum(used), sum(orphan), sum(reserved_parts) FROM backend_slots
                 GROUP BY backend_id",
            )?;
            let memory = self.settler.live.counters();
            let mut rows = statement.query([])?;
            let mut drift = Vec::new();
            while let Some(row) = rows.next()? {
                let backend = BackendId(row.get(0)?);
                let stored = (row.int(1)?, row.int(2)?, row.int(3)?);
                let counted = memory
                    .get(&backend)
                    .map(|counters| (counters.used, counters.orphan, counters.parts));
                if counted != Some(stored) {
                    drift.push(format!(
                        "backend {}: (used, orphan, parts) are {stored:?} in rows and {counted:?} \
                         in memory",
                        backend.0
                    ));
                }
            }
            Ok(drift)
        };
        read().unwrap_or_else(|fault| vec![fault.named("compare counters").to_string()])
    }
}

fn last_seq(conn: &Connection) -> rusqlite::Result<u64> {
    conn.prepare_cached("SELECT seq FROM catalogue")?
        .query_row([], |row| row.get::<_, i64>(0))
        .map(i64::cast_unsigned)
}

impl Work<'_> {
    fn apply(&mut self, job: &Job) -> std::result::Result<Answer, Fault> {
        let upload = Answer::Upload;
        Ok(match job {
            Job::Recovery(change) => names::change_recovery(self, change)?,
            Job::EnsureBuckets(names) => Answer::Buckets(names::ensure_buckets(self, names)?),
            Job::CreateBucket(name) => Answer::BucketCreation(names::create_bucket(self, name)?),
            Job::RemoveBucket(bucket) => {
                Answer::BucketRemoval(names::remove_bucket(self, *bucket)?)
            }
            Job::EnsureBackends(names) => Answer::Backends(names::ensure_backends(self, names)?),
            Job::SaveCapabilities { backend, found } => {
                names::save_capabilities(self, *backend, found)?
            }
            Job::SetBackendState { backend, state } => names::set_state(self, *backend, *state)?,
            Job::AdvanceMark { backend, past } => {
                Answer::Mark(names::advance_mark(self, *backend, *past)?)
            }
            Job::AddUsage(rows) => usage::add(self, rows)?,
            Job::GiveUp(intents) => cleanup::give_up(self, intents)?,
            // Files have one process.
            Job::LeaseWorker { .. } => Answer::Granted(true),
            Job::Commit { version, intents } => {
                Answer::Verdict(objects::commit(self, version, intents)?)
            }
            Job::Remove(removal) => Answer::Removed(objects::remove(self, removal)?),
            Job::Retag(retag) => Answer::Retagged(objects::retag(self, retag)?),
            Job::MarkCopy { copy, state } => objects::mark_copy(self, *copy, *state)?,
            Job::Adopt { version, places } => {
                Answer::Adopted(objects::adopt(self, version, places)?)
            }
            Job::ClaimCleanup { limit, visible } => {
                Answer::Items(cleanup::claim(self, *limit, *visible)?)
            }
            Job::ReportCleanup(reports) => cleanup::report(self, reports)?,
            Job::HastenCleanup(backend) => Answer::Count(cleanup::hasten(self, *backend)?),
            Job::ReleaseCleanup => Answer::Count(cleanup::release(self)?),
            Job::CreateUpload(new) => upload(uploads::create(self, new)?),
            Job::AddLeg { upload: id, leg } => upload(legs::add(self, *id, leg)?),
            Job::OpenLeg {
                upload: id,
                leg,
                id: backend_id,
            } => upload(legs::open(self, *id, *leg, backend_id)?),
            Job::DropLeg { upload: id, leg } => upload(legs::drop_unused(self, *id, *leg)?),
            Job::ClaimPart {
                claim,
                backend,
                bytes,
            } => upload(parts::claim(self, claim, *backend, *bytes)?),
            Job::CommitPart {
                upload: id,
                attempt,
                part,
            } => upload(parts::commit(self, *id, *attempt, part)?),
            Job::WithdrawPart {
                upload: id,
                attempt,
            } => parts::withdraw(self, *id, *attempt)?,
            Job::Freeze {
                upload: id,
                parts,
                precondition,
            } => Answer::Freeze(uploads::freeze(self, *id, parts, precondition)?),
            Job::CompleteLeg {
                upload: id,
                leg,
                copy,
                size,
            } => upload(legs::complete(self, *id, *leg, copy, *size)?),
            Job::Thaw {
                upload: id,
                missing,
            } => upload(uploads::thaw(self, *id, *missing)?),
            Job::CompleteUpload(completion) => {
                Answer::Verdict(uploads::complete(self, completion)?)
            }
            Job::AbortUpload {
                bucket,
                key,
                upload: id,
            } => upload(uploads::abort(self, *bucket, key, *id)?),
            Job::ForgetPending => Answer::Count(uploads::forget_pending(self)?),
            Job::PurgeParts => Answer::Count(uploads::purge_parts(self)?),
            Job::ForgetUploads(forget) => Answer::Count(uploads::forget(self, *forget)?),
            Job::Audit => Answer::Drift(Vec::new()),
        })
    }

    /// The next place in the order of commits.
    pub(crate) fn next_seq(&self) -> u64 {
        self.seq.set(self.seq.get() + 1);
        self.seq.get()
    }

    /// Moves the counters in rows as the job said. A counter below zero fails its CHECK.
    fn write_counters(&self) -> std::result::Result<(), Fault> {
        for (backend, delta) in &self.effects.deltas {
            let changed = self
                .conn
                .prepare_cached(
                    "UPDATE backend_slots SET used = used + ?3, orphan = orphan + ?4,
                         reserved_parts = reserved_parts + ?5, locations = locations + ?6
                     WHERE backend_id = ?1 AND instance = ?2",
                )?
                .execute(params![
                    backend.0,
                    INSTANCE,
                    delta.used,
                    delta.orphan,
                    delta.parts,
                    delta.locations
                ])?;
            if changed != 1 {
                return Err(Fault::damaged(format!(
                    "backend {} has no counters",
                    backend.0
                )));
            }
        }
        Ok(())
    }
}
