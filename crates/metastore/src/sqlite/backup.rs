//! An online copy of the catalogue.
//!
//! The copy is made under another name, put right there, synced, and only then renamed: whoever sees
//! the file sees a whole one.

use std::fs::File;
use std::path::Path;

use rusqlite::{Connection, params};
use uuid::Uuid;

use crate::fault::{Fault, database};
use crate::sqlite::connection::{Role, connect};
use crate::sqlite::lock::beside;
use crate::sqlite::migrate::{check_reader, sync_directory};
use crate::sqlite::private;
use crate::sqlite::readers::ReadPool;
use crate::{Error, Result};

const RECOVERY: &str = "this catalogue is a backup: objects written since are not in it, and bytes on \
    the backends may be theirs";

/// Copies the catalogue at `source` to a new file.
pub(crate) fn backup(source: &Path, to: &Path, incarnation: Uuid) -> Result<()> {
    if !source.exists() {
        return Err(Error::Missing {
            path: source.into(),
        });
    }
    if to.exists() {
        let source = std::io::Error::from(std::io::ErrorKind::AlreadyExists);
        return Err(Error::File {
            operation: "writing the backup",
            path: to.into(),
            source,
        });
    }
    let partial = beside(to, ".partial");
    let made = make(source, &partial, incarnation).and_then(|()| put_in_place(&partial, to));
    if made.is_err() {
        let _leftover_is_harmless = std::fs::remove_file(&partial);
    }
    made
}

/// Copies the catalogue that these connections have open, wherever its files have gone.
pub(crate) fn save(readers: &ReadPool, to: &Path, incarnation: Uuid) -> Result<()> {
    let partial = beside(to, ".partial");
    let made = prepare(&partial)
        .and_then(|name| {
            readers.borrow(|conn| {
                let copied = copy(conn, name);
                let restricted = conn.pragma_update(None, "query_only", true);
                copied.and_then(|()| restricted.map_err(database("copy the catalogue")))
            })
        })
        .and_then(|()| finish(&partial, incarnation))
        .and_then(|()| put_in_place(&partial, to));
    if made.is_err() {
        let _leftover_is_harmless = std::fs::remove_file(&partial);
    }
    made
}

fn make(source: &Path, partial: &Path, incarnation: Uuid) -> Result<()> {
    let name = prepare(partial)?;
    let conn = connect(source, Role::Reader)?;
    check_reader(&conn, source)?;
    copy(&conn, name)?;
    finish(partial, incarnation)
}

/// Makes an empty file for the copy; its name, as SQLite wants it.
fn prepare(partial: &Path) -> Result<&str> {
    match std::fs::remove_file(partial) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(source) => {
            return Err(Error::File {
                operation: "removing",
                path: partial.into(),
                source,
            });
        }
    }
    let name = partial.to_str().ok_or_else(|| Error::File {
        operation: "naming the backup",
        path: partial.into(),
        source: std::io::ErrorKind::InvalidFilename.into(),
    })?;
    private::create(partial).map_err(|source| Error::File {
        operation: "making the backup",
        path: partial.into(),
        source,
    })?;
    Ok(name)
}

fn copy(conn: &Connection, name: &str) -> Result<()> {
    // `query_only` would forbid VACUUM INTO, which writes to the other file only.
    conn.pragma_update(None, "query_only", false)
        .and_then(|()| conn.execute("VACUUM INTO ?1", [name]))
        .map(drop)
        .map_err(database("copy the catalogue"))
}

fn finish(partial: &Path, incarnation: Uuid) -> Result<()> {
    let copy = connect(partial, Role::Writer)?;
    put_right(&copy, incarnation).map_err(|fault| fault.named("put the backup right"))?;
    copy.close()
        .map_err(|(_, error)| database("close the backup")(error))
}

/// Another incarnation, in recovery state, without intents or claims.
fn put_right(copy: &Connection, incarnation: Uuid) -> std::result::Result<(), Fault> {
    let tx = copy.unchecked_transaction()?;
    tx.execute(
        "UPDATE catalogue SET incarnation = ?1, restored = 1,
             recovery = CASE restored WHEN 1 THEN recovery ELSE ?2 END",
        params![incarnation.into_bytes(), RECOVERY],
    )?;
    tx.execute("DELETE FROM write_intents", [])?;
    tx.execute("UPDATE cleanup_queue SET claim = NULL", [])?;
    tx.commit()?;
    Ok(())
}

fn put_in_place(partial: &Path, to: &Path) -> Result<()> {
    let failed = |operation| {
        let path = to.to_path_buf();
        move |source| Error::File {
            operation,
            path,
            source,
        }
    };
    File::open(partial)
        .and_then(|file| file.sync_all())
        .map_err(failed("syncing the backup"))?;
    std::fs::rename(partial, to).map_err(failed("naming the backup"))?;
    sync_directory(to)
}
