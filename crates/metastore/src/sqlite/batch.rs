//! One transaction over several jobs.
//!
//! A data error fails its job alone. A full disk, or anything else that says nothing about one job,
//! fails the batch: nothing of it happened. An I/O error at the commit leaves open what is durable:
//! the process has to end, because no answer would be true.

use rusqlite::{Connection, ErrorCode, ffi};

use crate::fault::{Fault, database};
use crate::{Error, Result};

/// The file of the shared memory could not grow; SQLite's extended result code.
///
/// Source: SQLite documentation, "Result and Error Codes", SQLITE_IOERR_SHMSIZE.
const IOERR_SHMSIZE: i32 = 4874;

/// How a batch ended.
pub(crate) enum Ended<A> {
    /// It is durable; one result per job.
    Committed(Vec<Result<A>>),
    /// Nothing of it happened.
    Failed(rusqlite::Error),
    /// Whether it happened is unknown.
    Fatal(rusqlite::Error),
}

/// Jobs that become durable together.
pub(crate) trait Batch {
    /// One of them.
    type Job;
    /// What is answered to one.
    type Answer;

    /// The jobs, in their order.
    fn jobs(&self) -> &[Self::Job];

    /// What a job is called where it fails.
    fn operation(&self, job: &Self::Job) -> &'static str;

    /// The transaction has just begun, perhaps for the second time: forgets what was applied.
    fn begin(&self) -> rusqlite::Result<()>;

    /// Applies one. What it changes is in the database only, so that it can be taken back.
    fn apply(&self, job: &Self::Job) -> std::result::Result<Self::Answer, Fault>;

    /// What the jobs have in common, before the commit.
    fn last(&self) -> rusqlite::Result<()>;
}

/// Breaks commits on purpose, in tests: the extended result code of the next commit.
pub(crate) type CommitFault = Option<std::sync::Arc<dyn Fn() -> Option<i32> + Send + Sync>>;

/// Whether the disk is full.
pub(crate) fn is_full(error: &rusqlite::Error) -> bool {
    match error {
        rusqlite::Error::SqliteFailure(failure, _) => {
            failure.code == ErrorCode::DiskFull || failure.extended_code == IOERR_SHMSIZE
        }
        _ => false,
    }
}

/// Whether the file is not, or not any more, what SQLite wrote.
pub(crate) fn is_corrupt(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)
    )
}

/// Whether the error concerns one job only.
fn is_about_data(error: &rusqlite::Error) -> bool {
    match error {
        rusqlite::Error::SqliteFailure(failure, _) => matches!(
            failure.code,
            ErrorCode::ConstraintViolation | ErrorCode::TooBig | ErrorCode::TypeMismatch
        ),
        _ => true,
    }
}

/// The same words once more: every caller of a failed batch gets them.
fn again(error: &rusqlite::Error) -> rusqlite::Error {
    match error {
        rusqlite::Error::SqliteFailure(failure, words) => {
            rusqlite::Error::SqliteFailure(*failure, words.clone())
        }
        other => rusqlite::Error::SqliteFailure(
            ffi::Error::new(ffi::SQLITE_ERROR),
            Some(other.to_string()),
        ),
    }
}

/// The error of one caller of a failed batch.
pub(crate) fn share(error: &rusqlite::Error, operation: &'static str) -> Error {
    database(operation)(again(error))
}

/// Applies the jobs in order, with [`Batch::last`] before the commit.
///
/// A savepoint per job keeps a copy of every page that the job changes; as most batches have no job
/// that fails, they are first applied without. Where one does fail, all of it is rolled back and
/// applied again, with savepoints, so that it fails alone.
pub(crate) fn run<B: Batch>(conn: &Connection, batch: &B, fault: &CommitFault) -> Ended<B::Answer> {
    let applied = match together(conn, batch) {
        Ok(Some(results)) => Ok(results),
        // Some of it may have happened: what the failed job did before it failed.
        Ok(None) => match roll_back(conn) {
            Ok(()) => apart(conn, batch),
            Err(error) => return Ended::Fatal(error),
        },
        Err(error) => Err(error),
    };
    match applied.and_then(|results| batch.last().map(|()| results)) {
        Ok(results) => match commit(conn, fault) {
            Ok(()) => Ended::Committed(results),
            Err(error) if unknown(&error) => Ended::Fatal(error),
            Err(error) => give_up(conn, error),
        },
        Err(error) => give_up(conn, error),
    }
}

/// Applies jobs without savepoints; `None` where one of them failed.
fn together<B: Batch>(
    conn: &Connection,
    batch: &B,
) -> rusqlite::Result<Option<Vec<Result<B::Answer>>>> {
    begin(conn, batch)?;
    let mut results = Vec::with_capacity(batch.jobs().len());
    for job in batch.jobs() {
        match batch.apply(job) {
            Ok(answer) => results.push(Ok(answer)),
            Err(Fault::Sqlite(error)) if !is_about_data(&error) => return Err(error),
            Err(_) => return Ok(None),
        }
    }
    Ok(Some(results))
}

/// Applies each job in a savepoint of its own.
fn apart<B: Batch>(conn: &Connection, batch: &B) -> rusqlite::Result<Vec<Result<B::Answer>>> {
    begin(conn, batch)?;
    let mut results = Vec::with_capacity(batch.jobs().len());
    for job in batch.jobs() {
        step(conn, "SAVEPOINT job")?;
        match batch.apply(job) {
            Ok(answer) => results.push(Ok(answer)),
            Err(Fault::Sqlite(error)) if !is_about_data(&error) => return Err(error),
            Err(fault) => {
                step(conn, "ROLLBACK TO job")?;
                results.push(Err(fault.named(batch.operation(job))));
            }
        }
        step(conn, "RELEASE job")?;
    }
    Ok(results)
}

fn begin<B: Batch>(conn: &Connection, batch: &B) -> rusqlite::Result<()> {
    step(conn, "BEGIN IMMEDIATE")?;
    batch.begin()
}

fn commit(conn: &Connection, fault: &CommitFault) -> rusqlite::Result<()> {
    match fault.as_ref().and_then(|fault| fault()) {
        Some(code) => Err(rusqlite::Error::SqliteFailure(ffi::Error::new(code), None)),
        None => step(conn, "COMMIT"),
    }
}

/// Whether a failed commit may have happened.
fn unknown(error: &rusqlite::Error) -> bool {
    match error {
        rusqlite::Error::SqliteFailure(failure, _) => {
            failure.code == ErrorCode::SystemIoFailure && !is_full(error)
        }
        _ => false,
    }
}

fn give_up<A>(conn: &Connection, error: rusqlite::Error) -> Ended<A> {
    match roll_back(conn) {
        Ok(()) => Ended::Failed(error),
        Err(second) => Ended::Fatal(second),
    }
}

fn roll_back(conn: &Connection) -> rusqlite::Result<()> {
    // SQLite rolls some failures back by itself.
    match conn.is_autocommit() {
        true => Ok(()),
        false => step(conn, "ROLLBACK"),
    }
}

fn step(conn: &Connection, sql: &str) -> rusqlite::Result<()> {
    conn.prepare_cached(sql)?.execute([]).map(|_| ())
}
