//! Rows as values of the model, whichever database they come from. Each function names the columns
//! that it reads, in their order.

use base::{BackendName, BlobId, UploadId};
use serde_json::Value;

use crate::fault::Fault;
use crate::job::Slot;
use crate::ledger::Counters;
use crate::model::{
    BackendId, BackendRow, BackendState, BackendTotals, Bucket, BucketId, BucketOwner, CleanupItem,
    CleanupKind, CleanupReason, CopyRow, CopyState, InstanceRow, Leg, LegState, LocationRow,
    NewCopy, ObjectPart, ObjectRecord, PartRow, QueuedCleanup, UploadRecord, UploadState,
};
use crate::values::{
    Cells, algorithm, backend_key, blob_id, checksum, copy_id, crc, etag, frozen, headers,
    maybe_etag, object_key, precondition, small, stored_checksum, tags, time, uint, upload_id,
    version_id,
};

// === names ===

/// `bucket_id, name, created, owner`.
pub(crate) fn bucket(row: &(impl Cells + ?Sized)) -> Result<Bucket, Fault> {
    let name = row.text(1)?;
    Ok(Bucket {
        id: BucketId(row.int(0)?),
        name: name
            .parse()
            .map_err(|_| Fault::damaged(format!("the bucket name {name:?}")))?,
        created: time(row, 2)?,
        owner: bucket_owner(&row.text(3)?)?,
    })
}

pub(crate) fn bucket_owner(owner: &str) -> Result<BucketOwner, Fault> {
    match owner {
        "config" => Ok(BucketOwner::Config),
        "catalogue" => Ok(BucketOwner::Catalogue),
        other => Err(Fault::damaged(format!("the bucket owner {other:?}"))),
    }
}

/// `backend_id, name, state, mark, capabilities`, and the number of rows that name it.
pub(crate) fn backend(row: &(impl Cells + ?Sized)) -> Result<BackendRow, Fault> {
    let mark = uint(row, 3)?;
    Ok(BackendRow {
        id: BackendId(row.int(0)?),
        name: backend_name(&row.text(1)?)?,
        state: backend_state(&row.text(2)?)?,
        marked: mark > 0,
        mark,
        capabilities: row.maybe_text(4)?,
        rows: uint(row, 5)?,
    })
}

pub(crate) fn backend_name(name: &str) -> Result<BackendName, Fault> {
    name.parse()
        .map_err(|_| Fault::damaged(format!("the backend name {name:?}")))
}

pub(crate) fn backend_state(state: &str) -> Result<BackendState, Fault> {
    match state {
        "active" => Ok(BackendState::Active),
        "draining" => Ok(BackendState::Draining),
        "drained" => Ok(BackendState::Drained),
        "removed" => Ok(BackendState::Removed),
        other => Err(Fault::damaged(format!("the backend state {other:?}"))),
    }
}

pub(crate) fn backend_state_text(state: BackendState) -> &'static str {
    match state {
        BackendState::Active => "active",
        BackendState::Draining => "draining",
        BackendState::Drained => "drained",
        BackendState::Removed => "removed",
    }
}

/// `backend_id, state, locations`.
pub(crate) fn backend_totals(row: &(impl Cells + ?Sized)) -> Result<BackendTotals, Fault> {
    Ok(BackendTotals {
        id: BackendId(row.int(0)?),
        state: backend_state(&row.text(1)?)?,
        locations: uint(row, 2)?,
    })
}

/// `instance, epoch, heartbeat`; `this` is the number of the instance that asks.
pub(crate) fn instance(
    row: &(impl Cells + ?Sized),
    this: Option<i64>,
) -> Result<InstanceRow, Fault> {
    let id = row.int(0)?;
    Ok(InstanceRow {
        id,
        epoch: uint(row, 1)?,
        heartbeat: time(row, 2)?,
        this: Some(id) == this,
    })
}

/// `backend_id, used, orphan, reserved_parts, room_left`.
pub(crate) fn slot(row: &(impl Cells + ?Sized)) -> Result<Slot, Fault> {
    Ok(Slot {
        backend: BackendId(row.int(0)?),
        counters: Counters {
            used: row.int(1)?,
            orphan: row.int(2)?,
            parts: row.int(3)?,
        },
        leased: uint(row, 4)?,
    })
}

// === objects ===

/// `version_id, seq, size, etag, last_modified, content_type, headers, checksum, parts, tags`, from a
/// column on.
pub(crate) fn object(row: &(impl Cells + ?Sized), from: usize) -> Result<ObjectRecord, Fault> {
    Ok(ObjectRecord {
        version: version_id(row, from)?,
        seq: uint(row, from + 1)?,
        size: uint(row, from + 2)?,
        etag: etag(row, from + 3)?,
        last_modified: time(row, from + 4)?,
        headers: headers(row, from + 5, from + 6)?,
        checksum: stored_checksum(row, from + 7)?,
        parts: match row.maybe_int(from + 8)? {
            None => None,
            Some(_) => Some(small(row, from + 8)?),
        },
        tags: tags(row, from + 9)?,
    })
}

/// `n, size, checksum`.
pub(crate) fn object_part(row: &(impl Cells + ?Sized)) -> Result<ObjectPart, Fault> {
    Ok(ObjectPart {
        number: small(row, 0)?,
        size: uint(row, 1)?,
        checksum: checksum(row, 2)?,
    })
}

/// `copy_id, backend_id, backend_key, backend_version, etag, crc64, stored_bytes, state`.
pub(crate) fn copy(row: &(impl Cells + ?Sized)) -> Result<CopyRow, Fault> {
    Ok(CopyRow {
        copy: copy_id(row, 0)?,
        backend: BackendId(row.int(1)?),
        key: backend_key(row, 2)?,
        version: row.maybe_text(3)?,
        etag: maybe_etag(row, 4)?,
        crc64: crc(row, 5)?,
        stored_bytes: uint(row, 6)?,
        state: copy_state(&row.text(7)?)?,
    })
}

fn copy_state(name: &str) -> Result<CopyState, Fault> {
    CopyState::from_name(name).ok_or_else(|| Fault::damaged(format!("the copy state {name:?}")))
}

/// The columns of [`copy`], then `blob_id, bucket_id, key` of its owner.
pub(crate) fn location(row: &(impl Cells + ?Sized)) -> Result<LocationRow, Fault> {
    Ok(LocationRow {
        copy: copy(row)?,
        blob: blob_id(row, 8)?,
        bucket: BucketId(row.int(9)?),
        object: object_key(row, 10)?,
    })
}

// === uploads ===

/// A leg with the backend's id of it, which outlives its completion.
pub(crate) struct LegRow {
    pub(crate) leg: Leg,
    pub(crate) backend_upload: Option<String>,
}

/// `copy_id, blob_id, backend_id, backend_key, state, backend_upload, size, etag, backend_version,
/// crc64`.
pub(crate) fn leg(row: &(impl Cells + ?Sized)) -> Result<LegRow, Fault> {
    let copy = copy_id(row, 0)?;
    let backend_upload = row.maybe_text(5)?;
    let state = match (row.text(4)?.as_str(), &backend_upload) {
        ("creating", _) => LegState::Creating,
        ("open", Some(upload)) => LegState::Open {
            upload: upload.clone(),
        },
        ("completed", _) => LegState::Completed {
            copy: NewCopy {
                copy,
                etag: maybe_etag(row, 7)?,
                version: row.maybe_text(8)?,
                crc64: crc(row, 9)?,
            },
            size: uint(row, 6)?,
        },
        (other, _) => return Err(Fault::damaged(format!("leg {copy} is {other:?}"))),
    };
    let leg = Leg {
        copy,
        blob: blob_id(row, 1)?,
        backend: BackendId(row.int(2)?),
        key: backend_key(row, 3)?,
        state,
    };
    Ok(LegRow {
        leg,
        backend_upload,
    })
}

/// What the steps of an upload ask first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    Open,
    Completing,
    Completed,
    Aborting,
}

pub(crate) fn stage(state: &str) -> Result<Stage, Fault> {
    match state {
        "open" => Ok(Stage::Open),
        "completing" => Ok(Stage::Completing),
        "completed" => Ok(Stage::Completed),
        "aborting" => Ok(Stage::Aborting),
        other => Err(Fault::damaged(format!("the upload state {other:?}"))),
    }
}

/// `upload_id, bucket_id, key, content_type, headers, checksum, created, state, frozen, precondition,
/// version_id, etag, final_checksum, tags`; the legs have rows of their own.
pub(crate) fn upload(
    row: &(impl Cells + ?Sized),
    legs: impl FnOnce(UploadId) -> Result<Vec<LegRow>, Fault>,
) -> Result<UploadRecord, Fault> {
    let upload = upload_id(row, 0)?;
    let state = match stage(&row.text(7)?)? {
        Stage::Open | Stage::Aborting => UploadState::Open,
        Stage::Completing => UploadState::Completing {
            parts: frozen(row, 8)?,
            precondition: precondition(row, 9)?,
        },
        Stage::Completed => UploadState::Completed {
            version: version_id(row, 10)?,
            etag: etag(row, 11)?,
            checksum: stored_checksum(row, 12)?,
        },
    };
    Ok(UploadRecord {
        upload,
        bucket: BucketId(row.int(1)?),
        key: object_key(row, 2)?,
        headers: headers(row, 3, 4)?,
        tags: tags(row, 13)?,
        checksum: algorithm(row, 5)?,
        created: time(row, 6)?,
        state,
        legs: legs(upload)?.into_iter().map(|row| row.leg).collect(),
    })
}

/// `number, attempt, leg, size, etag, checksum, crc64, backend's etag, backend's crc64,
/// last_modified`.
pub(crate) fn part(row: &(impl Cells + ?Sized)) -> Result<PartRow, Fault> {
    Ok(PartRow {
        number: small(row, 0)?,
        attempt: copy_id(row, 1)?,
        leg: copy_id(row, 2)?,
        size: uint(row, 3)?,
        etag: etag(row, 4)?,
        checksum: checksum(row, 5)?,
        crc64: crc(row, 6)?,
        backend_etag: etag(row, 7)?,
        backend_crc64: crc(row, 8)?,
        last_modified: time(row, 9)?,
    })
}

// === cleanup ===

/// `id, copy_id, blob_id, kind, backend_id, backend_key, backend_version, backend_upload, size, reason,
/// unsettled, first_pass, attempts`.
pub(crate) fn cleanup_item(row: &(impl Cells + ?Sized)) -> Result<CleanupItem, Fault> {
    Ok(CleanupItem {
        id: row.int(0)?,
        copy: copy_id(row, 1)?,
        blob: row.maybe_id(2)?.map(BlobId::from_bytes),
        backend: BackendId(row.int(4)?),
        key: backend_key(row, 5)?,
        kind: match row.text(3)?.as_str() {
            "object" => CleanupKind::Object {
                version: row.maybe_text(6)?,
            },
            "upload" => CleanupKind::Upload {
                upload: row.maybe_text(7)?,
            },
            other => return Err(Fault::damaged(format!("the cleanup kind {other:?}"))),
        },
        bytes: uint(row, 8)?,
        reason: cleanup_reason(&row.text(9)?)?,
        unsettled: row.flag(10)?,
        first_pass_done: row.flag(11)?,
        attempts: small(row, 12)?,
    })
}

fn cleanup_reason(reason: &str) -> Result<CleanupReason, Fault> {
    CleanupReason::ALL
        .into_iter()
        .find(|known| known.as_str() == reason)
        .ok_or_else(|| Fault::damaged(format!("the cleanup reason {reason:?}")))
}

/// `id, name of the backend, backend_key, reason, size, attempts, created, not_before, last_error`.
pub(crate) fn queued(row: &(impl Cells + ?Sized)) -> Result<QueuedCleanup, Fault> {
    Ok(QueuedCleanup {
        id: row.int(0)?,
        backend: backend_name(&row.text(1)?)?,
        key: backend_key(row, 2)?,
        reason: cleanup_reason(&row.text(3)?)?,
        bytes: uint(row, 4)?,
        attempts: small(row, 5)?,
        created: time(row, 6)?,
        not_before: time(row, 7)?,
        last_error: row.maybe_text(8)?,
    })
}

// === lists in JSON ===

/// The rows of a list of lists.
pub(crate) fn lists(value: &Value) -> Result<impl Iterator<Item = &[Value]>, Fault> {
    let wrong = || Fault::damaged(format!("the list {value}"));
    let rows = value.as_array().ok_or_else(wrong)?;
    if !rows.iter().all(Value::is_array) {
        return Err(wrong());
    }
    Ok(rows.iter().filter_map(Value::as_array).map(Vec::as_slice))
}
