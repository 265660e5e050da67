//! One transaction over several jobs, each in a savepoint of its own.
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

/// Applies the jobs in order. `last` runs before the commit, for what the batch has in common.
pub(crate) fn run<I, A>(
    conn: &Connection,
    jobs: &[I],
    operation: impl Fn(&I) -> &'static str,
    mut apply: impl FnMut(&I) -> std::result::Result<A, Fault>,
    last: impl FnOnce(&Connection) -> rusqlite::Result<()>,
    fault: &CommitFault,
) -> Ended<A> {
    if let Err(error) = step(conn, "BEGIN IMMEDIATE") {
        return Ended::Failed(error);
    }
    let mut results = Vec::with_capacity(jobs.len());
    for job in jobs {
        match one(conn, job, &mut apply) {
            Ok(Ok(answer)) => results.push(Ok(answer)),
            Ok(Err(fault)) => results.push(Err(fault.named(operation(job)))),
            Err(error) => return roll_back(conn, error),
        }
    }
    if let Err(error) = last(conn) {
        return roll_back(conn, error);
    }
    match commit(conn, fault) {
        Ok(()) => Ended::Committed(results),
        Err(error) if unknown(&error) => Ended::Fatal(error),
        Err(error) => roll_back(conn, error),
    }
}

/// The outer error fails the batch, the inner one this job.
fn one<I, A>(
    conn: &Connection,
    job: &I,
    apply: &mut impl FnMut(&I) -> std::result::Result<A, Fault>,
) -> rusqlite::Result<std::result::Result<A, Fault>> {
    step(conn, "SAVEPOINT job")?;
    match apply(job) {
        Ok(answer) => {
            step(conn, "RELEASE job")?;
            Ok(Ok(answer))
        }
        Err(Fault::Sqlite(error)) if !is_about_data(&error) => Err(error),
        Err(fault) => {
            step(conn, "ROLLBACK TO job")?;
            step(conn, "RELEASE job")?;
            Ok(Err(fault))
        }
    }
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

fn roll_back<A>(conn: &Connection, error: rusqlite::Error) -> Ended<A> {
    // SQLite rolls some failures back by itself.
    if !conn.is_autocommit()
        && let Err(second) = step(conn, "ROLLBACK")
    {
        return Ended::Fatal(second);
    }
    Ended::Failed(error)
}

fn step(conn: &Connection, sql: &str) -> rusqlite::Result<()> {
    conn.prepare_cached(sql)?.execute([]).map(|_| ())
}
