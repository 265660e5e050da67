//! Checkpoints: the log flows back into the database from here, not inside a commit.
//!
//! Most of the work is a passive checkpoint on a connection of its own, which waits for nobody and
//! makes nobody wait. Under steady writing it never catches up, and the log would grow for ever: so
//! where the log has become long, the writer copies the short rest between two batches, after which
//! its next commit begins the log anew.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use base::report;
use rusqlite::Connection;
use tokio::sync::{mpsc, watch};
use tokio::task::{spawn, spawn_blocking};
use tracing::warn;

use crate::Result;
use crate::fault::database;
use crate::sqlite::condition::Condition;
use crate::sqlite::connection::{Role, connect, leave_files};
use crate::sqlite::lock::LockFile;
use crate::sqlite::overwrite::{Tracker, Turn};
use crate::sqlite::readers::ReadPool;

/// Frames (pages of 4 KiB) that are not copied back yet from which on a checkpoint is due.
const PASSIVE_FRAMES: i64 = 1_000;
/// Frames that come before the next one is due: a reader of long breath may keep the last from
/// copying anything.
const PAUSE_FRAMES: i64 = 250;
/// Length of the log in frames from which on the writer begins it anew.
const RESTART_FRAMES: i64 = 2_000;

/// Looks after each commit whether a checkpoint is due. The checkpointer ends with it.
#[derive(Debug)]
pub(crate) struct Nudge {
    queue: mpsc::Sender<()>,
    /// The log is long, and all but its end is copied.
    restart: Arc<AtomicBool>,
    /// Length of the log when the checkpointer was last called.
    called_at: i64,
    /// Length of the log after the last commit.
    frames: i64,
    /// Who keeps snapshots of the file, if anybody does.
    readers: Option<Arc<ReadPool>>,
    tracker: Arc<Tracker>,
}

impl Nudge {
    /// Called between two transactions of the connection that writes.
    pub(crate) fn after_commit(&mut self, conn: &Connection) -> rusqlite::Result<()> {
        if self.restart.swap(false, Ordering::AcqRel) {
            // As in SQLite: where another checkpoint is under way, this one is not made.
            self.tracker
                .checkpoint(Turn::Yields, || passive(conn, self.readers.as_deref()))?;
            // A snapshot that was taken meanwhile would keep the log from beginning anew; one that is
            // taken from here on, while the whole log is copied, does not use the log.
            release(self.readers.as_deref());
        }
        // NOOP reads the counters of the log and does nothing else.
        let Progress { frames, copied } = run(conn, "PRAGMA wal_checkpoint(NOOP)")?;
        if frames < self.frames {
            // The log began anew, after which nothing tells whether there was a checkpoint before.
            self.tracker.look();
        }
        self.frames = frames;
        let grown = frames < self.called_at || frames - self.called_at >= PAUSE_FRAMES;
        if frames - copied >= PASSIVE_FRAMES && grown {
            self.called_at = frames;
            let _one_waits_already = self.queue.try_send(());
        }
        Ok(())
    }
}

/// A running checkpointer.
#[derive(Debug)]
pub(crate) struct Checkpointer {
    done: watch::Receiver<bool>,
}

impl Checkpointer {
    /// Starts one for a file. A failed checkpoint is fatal: an fsync that failed once must not be
    /// trusted the next time.
    pub(crate) fn start(
        path: &Path,
        readers: Option<Arc<ReadPool>>,
        (lock, condition, tracker): (&Arc<LockFile>, &Arc<Condition>, &Arc<Tracker>),
        fatal: impl Fn(crate::Error) + Send + Sync + 'static,
    ) -> Result<(Self, Nudge)> {
        let (queue, mut nudges) = mpsc::channel(1);
        let (finished, done) = watch::channel(false);
        let restart = Arc::new(AtomicBool::new(false));
        let nudge = Nudge {
            queue,
            restart: Arc::clone(&restart),
            called_at: 0,
            frames: 0,
            readers: readers.clone(),
            tracker: Arc::clone(tracker),
        };
        let mut conn = connect(path, Role::Writer)?;
        let (lock, condition) = (Arc::clone(lock), Arc::clone(condition));
        let tracker = Arc::clone(tracker);
        drop(spawn(async move {
            while nudges.recv().await.is_some() {
                let (readers, tracked) = (readers.clone(), Arc::clone(&tracker));
                let work = spawn_blocking(move || {
                    let run = || passive(&conn, readers.as_deref());
                    let progress = tracked.checkpoint(Turn::Waits, run);
                    (conn, progress)
                });
                let Ok((back, progress)) = work.await else {
                    return;
                };
                conn = back;
                match progress {
                    Ok(Some(progress)) if progress.frames >= RESTART_FRAMES => {
                        restart.store(true, Ordering::Release);
                    }
                    Ok(_) => {}
                    Err(error) if is_io(&error) => {
                        return fatal(database("copy the log back")(error));
                    }
                    Err(error) => {
                        warn!(error = %report(&error), "WAL checkpoint failed");
                        condition.note_corrupt(tracker.target(), &error);
                    }
                }
            }
            if condition.check().is_err() {
                leave_files(&conn);
            }
            drop(conn);
            drop(lock);
            finished.send_replace(true);
        }));
        Ok((Self { done }, nudge))
    }

    /// Resolves when it has ended, which takes that its nudge is gone.
    pub(crate) async fn ended(&self) {
        let mut done = self.done.clone();
        let _ended_either_way = done.wait_for(|done| *done).await;
    }
}

/// Copies the whole log back and cuts it, unless a reader is in the way: the last step of a clean
/// stop.
pub(crate) fn truncate(conn: &Connection, tracker: &Tracker) -> rusqlite::Result<()> {
    conn.busy_timeout(Duration::ZERO)?;
    let run = || run(conn, "PRAGMA wal_checkpoint(TRUNCATE)");
    tracker.checkpoint(Turn::Waits, run).map(drop)
}

/// Copies back what a process before this one left in the log, so that it is known how far the last
/// checkpoint came.
pub(crate) fn settle(conn: &Connection) -> rusqlite::Result<()> {
    run(conn, "PRAGMA wal_checkpoint(PASSIVE)").map(drop)
}

/// Whether an fsync may have failed.
pub(crate) fn is_io(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(rusqlite::ErrorCode::SystemIoFailure)
}

/// Copies what no snapshot is in the way of.
fn passive(conn: &Connection, readers: Option<&ReadPool>) -> rusqlite::Result<Progress> {
    release(readers);
    run(conn, "PRAGMA wal_checkpoint(PASSIVE)")
}

fn release(readers: Option<&ReadPool>) {
    if let Some(readers) = readers {
        readers.release();
    }
}

/// What a checkpoint found and did.
#[derive(Debug)]
pub(crate) struct Progress {
    /// Length of the log.
    frames: i64,
    /// How much of it is in the database.
    copied: i64,
}

fn run(conn: &Connection, sql: &str) -> rusqlite::Result<Progress> {
    let mut statement = conn.prepare_cached(sql)?;
    statement.query_row([], |row| {
        Ok(Progress {
            frames: row.get(1)?,
            copied: row.get(2)?,
        })
    })
}
