//! Multipart uploads: parts are files of their own, and Complete writes only a record that names them.
//!
//! The record of an open upload goes last, whatever ends it: so there is always something that
//! accounts for the part files. An object that names an upload proves that it was completed, even if
//! the upload's own record survived a crash.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base::{BackendKey, Crc64, ObjectHeaders, report};
use tracing::warn;

use super::failure::LocalError;
use super::names;
use super::read::{etag_of, part_path};
use super::record::{BytesAt, PartRef, Record};
use super::store::{LocalStore, PARTS, Root, UPLOADS};
use super::write::{Sealed, write_record};
use crate::{
    Kind, ListedUpload, PartFact, PartListPage, Proof, Stored, StoredPart, UploadListPage,
};

/// The most entries of one page, as S3 has it.
const PAGE_ENTRIES_MAX: usize = 1000;

const UPLOAD_ID_CHARS: usize = 32;

fn no_such_upload() -> LocalError {
    LocalError::new(Kind::NoSuchUpload)
}

/// Where the record of an upload lies; ids that were never given out are not looked for.
fn record_path(upload: &str) -> Result<PathBuf, LocalError> {
    let ours = upload.len() == UPLOAD_ID_CHARS
        && upload
            .bytes()
            .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    ours.then(|| Path::new(UPLOADS).join(upload))
        .ok_or_else(no_such_upload)
}

/// The headers of an open upload.
fn open_upload(
    store: &LocalStore,
    key: &BackendKey,
    upload: &str,
) -> Result<ObjectHeaders, LocalError> {
    store.ready(Root::Keep)?;
    let opened = store
        .open(&record_path(upload)?)?
        .ok_or_else(no_such_upload)?;
    match opened.record.place {
        BytesAt::Upload { key: of } if of == *key => Ok(opened.record.headers),
        BytesAt::Upload { .. } | BytesAt::Here | BytesAt::Parts { .. } => Err(no_such_upload()),
    }
}

/// The object that was assembled from this upload, if it was.
fn assembled(
    store: &LocalStore,
    key: &BackendKey,
    upload: &str,
) -> Result<Option<(Record, Vec<PartRef>)>, LocalError> {
    let Some(opened) = store.open(Path::new(&names::path_of(key.as_str())))? else {
        return Ok(None);
    };
    match &opened.record.place {
        BytesAt::Parts {
            upload: from,
            parts,
        } if from == upload => {
            let parts = parts.clone();
            Ok(Some((opened.record, parts)))
        }
        BytesAt::Parts { .. } | BytesAt::Here | BytesAt::Upload { .. } => Ok(None),
    }
}

pub(super) fn create(
    store: &Arc<LocalStore>,
    key: &BackendKey,
    headers: ObjectHeaders,
) -> Result<String, LocalError> {
    let upload = store.draw();
    let place = BytesAt::Upload { key: key.clone() };
    let record = Record {
        size: 0,
        crc64: Crc64::EMPTY,
        headers,
        place,
    };
    write_record(store, &record, &record_path(&upload)?)?;
    Ok(upload)
}

/// Whether an upload is open, asked before its bytes are taken.
pub(super) fn expect_open(
    store: &LocalStore,
    key: &BackendKey,
    upload: &str,
) -> Result<(), LocalError> {
    open_upload(store, key, upload).map(|_headers| ())
}

/// Gives a part its name. Under the upload's lock: a part that comes late must not replace one that
/// an object already consists of.
pub(super) fn place_part(
    store: &Arc<LocalStore>,
    key: &BackendKey,
    upload: &str,
    number: u32,
    part: Sealed,
) -> Result<Stored, LocalError> {
    let lock = store.upload_lock(upload);
    let _turn = lock.lock();
    open_upload(store, key, upload)?;
    if assembled(store, key, upload)?.is_some() {
        return Err(no_such_upload());
    }
    store.place(part.file, &part_path(upload, number))?;
    Ok(stored(part.crc64))
}

pub(super) fn stored(crc64: Crc64) -> Stored {
    Stored {
        etag: Some(etag_of(crc64)),
        version: None,
        crc64: Some(crc64),
        proof: Proof::Checksum,
    }
}

pub(super) fn complete(
    store: &Arc<LocalStore>,
    key: &BackendKey,
    upload: &str,
    facts: &[PartFact],
) -> Result<Stored, LocalError> {
    let lock = store.upload_lock(upload);
    let _turn = lock.lock();
    store.ready(Root::Keep)?;
    if let Some((record, parts)) = assembled(store, key, upload)? {
        let same = parts.len() == facts.len()
            && parts.iter().zip(facts).all(|(part, fact)| fits(part, fact));
        if !same {
            return Err(no_such_upload());
        }
        close(store, upload, &parts);
        return Ok(stored(record.crc64));
    }
    let headers = open_upload(store, key, upload)?;
    let ascending = facts.windows(2).all(|pair| pair[0].number < pair[1].number);
    if facts.is_empty() || !ascending {
        return Err(LocalError::saying(
            Kind::InvalidPart,
            "parts must be named in ascending order",
        ));
    }
    let mut parts = Vec::with_capacity(facts.len());
    let (mut size, mut crc64) = (0, Crc64::EMPTY);
    for fact in facts {
        let part = held_part(store, upload, fact.number)?
            .filter(|part| fits(part, fact))
            .ok_or_else(|| LocalError::new(Kind::InvalidPart))?;
        size += part.size;
        crc64 = crc64.then(part.crc64, part.size);
        parts.push(part);
    }
    let place = BytesAt::Parts {
        upload: upload.to_owned(),
        parts: parts.clone(),
    };
    let record = Record {
        size,
        crc64,
        headers,
        place,
    };
    write_record(store, &record, &PathBuf::from(names::path_of(key.as_str())))?;
    close(store, upload, &parts);
    Ok(stored(crc64))
}

fn fits(part: &PartRef, fact: &PartFact) -> bool {
    part.number == fact.number
        && etag_of(part.crc64) == fact.etag
        && fact.crc64.is_none_or(|crc64| crc64 == part.crc64)
}

fn held_part(store: &LocalStore, upload: &str, number: u32) -> Result<Option<PartRef>, LocalError> {
    let opened = store.open(&part_path(upload, number))?;
    Ok(opened.map(|part| PartRef {
        number,
        size: part.record.size,
        crc64: part.record.crc64,
    }))
}

/// Ends an upload whose object stands: removes the parts that it does not name, then the record. The
/// object is there whatever happens here; what stays is accounted for by the record, and removed by
/// the next call that names this upload.
fn close(store: &LocalStore, upload: &str, parts: &[PartRef]) {
    if let Err(error) = remove_unnamed(store, upload, parts).and_then(|()| forget(store, upload)) {
        warn!(
            upload,
            error = report(&error).to_string(),
            "could not remove the directory of a completed upload"
        );
    }
}

fn remove_unnamed(store: &LocalStore, upload: &str, parts: &[PartRef]) -> io::Result<()> {
    let directory = Path::new(PARTS).join(upload);
    let named: BTreeSet<String> = parts
        .iter()
        .map(|part| format!("{:05}", part.number))
        .collect();
    let mut changed = false;
    for name in store.names_in(&directory)? {
        if !named.contains(&name) {
            store.files.remove(&store.absolute(&directory.join(name)))?;
            changed = true;
        }
    }
    match changed {
        true => store.files.sync_dir(&store.absolute(&directory)),
        false => Ok(()),
    }
}

/// Removes the record of an upload, durably; also where an earlier attempt had got that far.
fn forget(store: &LocalStore, upload: &str) -> io::Result<()> {
    let uploads = Path::new(UPLOADS);
    match store.files.remove(&store.absolute(&uploads.join(upload))) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    match store.files.sync_dir(&store.absolute(uploads)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        synced => synced,
    }
}

pub(super) fn abort(store: &LocalStore, key: &BackendKey, upload: &str) -> Result<(), LocalError> {
    let lock = store.upload_lock(upload);
    let _turn = lock.lock();
    store.ready(Root::Keep)?;
    record_path(upload)?;
    if let Some((_record, parts)) = assembled(store, key, upload)? {
        close(store, upload, &parts);
        return Err(no_such_upload());
    }
    match open_upload(store, key, upload) {
        Ok(_headers) => {}
        Err(failure) if failure.kind == Kind::NoSuchUpload => {
            if store.open(&record_path(upload)?)?.is_none() {
                forget(store, upload).map_err(LocalError::unsure)?;
            }
            return Err(failure);
        }
        Err(failure) => return Err(failure),
    }
    store.remove_parts(upload).map_err(LocalError::unsure)?;
    forget(store, upload).map_err(LocalError::unsure)
}

pub(super) fn list_parts(
    store: &LocalStore,
    key: &BackendKey,
    upload: &str,
    after: u32,
) -> Result<PartListPage, LocalError> {
    open_upload(store, key, upload)?;
    let names = store
        .names_in(&Path::new(PARTS).join(upload))
        .map_err(LocalError::harmless)?;
    let numbers: BTreeSet<u32> = names
        .iter()
        .filter_map(|name| name.parse().ok())
        .filter(|n| *n > after)
        .collect();
    let mut page = PartListPage::default();
    for number in numbers {
        if page.parts.len() == PAGE_ENTRIES_MAX {
            page.truncated = true;
            break;
        }
        // A part that was there a moment ago is gone only if the upload has just ended.
        let part = held_part(store, upload, number)?.ok_or_else(no_such_upload)?;
        page.parts.push(StoredPart {
            number,
            etag: etag_of(part.crc64),
            size: part.size,
        });
    }
    Ok(page)
}

pub(super) fn list(
    store: &LocalStore,
    prefix: &str,
    after: Option<&ListedUpload>,
) -> Result<UploadListPage, LocalError> {
    store.ready(Root::Keep)?;
    let mut open: BTreeMap<(String, String), ()> = BTreeMap::new();
    let after = after.map(|after| (after.key.clone(), after.upload.clone()));
    let mut truncated = false;
    for upload in store
        .names_in(Path::new(UPLOADS))
        .map_err(LocalError::harmless)?
    {
        let Some(opened) = store.open(&Path::new(UPLOADS).join(&upload))? else {
            continue;
        };
        let BytesAt::Upload { key } = opened.record.place else {
            continue;
        };
        let entry = (key.as_str().to_owned(), upload);
        if !entry.0.starts_with(prefix) || after.as_ref().is_some_and(|after| entry <= *after) {
            continue;
        }
        open.insert(entry, ());
        if open.len() > PAGE_ENTRIES_MAX {
            open.pop_last();
            truncated = true;
        }
    }
    let uploads = open
        .into_keys()
        .map(|(key, upload)| ListedUpload { key, upload })
        .collect();
    Ok(UploadListPage { uploads, truncated })
}
