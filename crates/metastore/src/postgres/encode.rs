//! Jobs as the functions in `migrations/postgres/0001_batches.sql` take them, and the locks that each
//! needs.

use std::collections::HashSet;

use base::{
    BackendKey, BlobId, CopyId, Crc64, ETag, ObjectKey, Precondition, Timestamp, UploadId,
    VersionId,
};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::job::Job;
use crate::live::{GivenUp, IntentRow, Live, Outcome};
use crate::model::{
    BackendId, BucketId, CleanupOutcome, CleanupReport, Content, CopyState, Extent, ForgetUploads,
    Ground, NewBlob, NewLeg, NewVersion, PartRow, RecoveryChange,
};
use crate::postgres::work::Work;
use crate::rows::backend_state_text;
use crate::values::{
    algorithm_text, checksum_text, crc_int, frozen_bytes, headers_text, stored_checksum_text,
    tags_text,
};
use crate::writer::BATCH_ROWS_MAX;

/// Ended uploads whose part rows are removed in one transaction.
const UPLOADS_PER_PURGE: u32 = 100;

// === identifiers ===

pub(crate) fn copy_uuid(copy: CopyId) -> Uuid {
    Uuid::from_bytes(copy.to_bytes())
}

pub(crate) fn upload_uuid(upload: UploadId) -> Uuid {
    Uuid::from_bytes(upload.to_bytes())
}

pub(crate) fn blob_uuid(blob: BlobId) -> Uuid {
    Uuid::from_bytes(blob.to_bytes())
}

pub(crate) fn version_uuid(version: VersionId) -> Uuid {
    Uuid::from_bytes(version.to_bytes())
}

fn text(id: Uuid) -> Value {
    Value::String(id.hyphenated().to_string())
}

fn copy_text(copy: CopyId) -> Value {
    text(copy_uuid(copy))
}

fn etag_text(etag: Option<&ETag>) -> Option<&str> {
    etag.map(ETag::as_str)
}

fn crc(crc: Option<Crc64>) -> Option<i64> {
    crc_int(crc)
}

// === jobs ===

/// Jobs of one kind that follow each other, each for another key: the database takes them in one step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Run {
    Commits,
    Removals,
}

/// A batch as JSON: the jobs in their order, runs of them as one.
pub(crate) fn batch<'a>(
    works: impl Iterator<Item = &'a Work>,
    now: Timestamp,
    live: &Live,
) -> Value {
    let (mut jobs, mut run, mut keys) = (Vec::new(), None, HashSet::new());
    for work in works {
        let encoded = work.encode(now, live);
        let Some((kind, key)) = of_run(work) else {
            jobs.extend(run.take().map(as_one));
            jobs.push(encoded);
            continue;
        };
        match &mut run {
            Some((of, together)) if *of == kind && keys.insert(key) => together.push(encoded),
            _ => {
                jobs.extend(run.replace((kind, vec![encoded])).map(as_one));
                keys.clear();
                keys.insert(key);
            }
        }
    }
    jobs.extend(run.map(as_one));
    Value::Array(jobs)
}

fn as_one((kind, jobs): (Run, Vec<Value>)) -> Value {
    match kind {
        Run::Commits => json!({"k": "commits", "jobs": jobs}),
        Run::Removals => json!({"k": "removals", "jobs": jobs}),
    }
}

/// The run that this may be one of, and its key.
fn of_run(work: &Work) -> Option<(Run, (BucketId, &ObjectKey))> {
    let Work::Job(job) = work else {
        return None;
    };
    match &**job {
        Job::Commit { version, intents } if is_plain(version, intents) => {
            Some((Run::Commits, (version.bucket, &version.key)))
        }
        Job::Remove(removal) => Some((Run::Removals, (removal.bucket, &removal.key))),
        _ => None,
    }
}

/// The job as JSON.
pub(crate) fn job(job: &Job, now: Timestamp, live: &Live) -> Value {
    match job {
        Job::Recovery(RecoveryChange::Enter(reason, ground)) => json!({
            "k": "enter_recovery", "reason": reason, "known": *ground == Ground::Restored,
        }),
        Job::Recovery(RecoveryChange::Leave) => json!({"k": "leave_recovery"}),
        Job::EnsureBuckets(names) => {
            let names: Vec<&str> = names.iter().map(|name| name.as_str()).collect();
            json!({"k": "ensure_buckets", "names": names})
        }
        Job::CreateBucket(name) => json!({"k": "create_bucket", "name": name.as_str()}),
        Job::RemoveBucket(bucket) => json!({"k": "remove_bucket", "bucket": bucket.0}),
        Job::EnsureBackends(names) => {
            let names: Vec<&str> = names.iter().map(|name| name.as_str()).collect();
            json!({"k": "ensure_backends", "names": names})
        }
        Job::SaveCapabilities { backend, found } => {
            json!({"k": "save_capabilities", "backend": backend.0, "found": found})
        }
        Job::SetBackendState { backend, state } => {
            json!({"k": "set_state", "backend": backend.0, "state": backend_state_text(*state)})
        }
        Job::AdvanceMark { backend, past } => {
            json!({"k": "advance_mark", "backend": backend.0, "past": past})
        }
        Job::LeaseWorker { name, lasts } => {
            let lasts = i64::try_from(lasts.as_millis()).unwrap_or(i64::MAX / 2);
            json!({"k": "lease_worker", "name": name, "lasts": lasts})
        }
        Job::AddUsage(rows) => {
            let row = |row: &crate::model::UsageRow| {
                let traffic = row.traffic;
                json!([
                    row.backend.0,
                    row.month.to_string(),
                    traffic.requests,
                    traffic.egress,
                    traffic.ingress
                ])
            };
            json!({"k": "add_usage", "rows": rows.iter().map(row).collect::<Vec<_>>()})
        }
        Job::GiveUp(intents) => give_up(intents),
        Job::Commit { version, intents } => {
            let mut job = new_version("commit", version);
            if !intents.is_empty() {
                job.insert("places".into(), intent_places(intents));
            }
            Value::Object(job)
        }
        Job::Remove(removal) => {
            let mut job = keyed("remove", removal.bucket, &removal.key);
            insert_precondition(&mut job, &removal.precondition);
            Value::Object(job)
        }
        Job::Retag(retag) => {
            let mut job = keyed("retag", retag.bucket, &retag.key);
            job.insert("tags".into(), json!(tags_text(&retag.tags)));
            Value::Object(job)
        }
        Job::MarkCopy { copy, state } => {
            let verified = (*state == CopyState::Good).then(|| now.millis());
            json!({"k": "mark_copy", "copy": copy_text(*copy), "state": state.name(), "verified": verified})
        }
        Job::Adopt { version, places } => {
            let mut job = new_version("adopt", version);
            job.insert("places".into(), found_places(version, places));
            // Whatever was asked of the version that is replaced, its bytes are there.
            job.remove("if");
            Value::Object(job)
        }
        Job::ClaimCleanup { limit, visible } => {
            let visible = i64::try_from(visible.as_millis()).unwrap_or(i64::MAX / 2);
            json!({"k": "claim_cleanup", "limit": limit, "visible": visible})
        }
        Job::ReportCleanup(reports) => {
            let reports: Vec<Value> = reports.iter().map(report).collect();
            json!({"k": "report_cleanup", "reports": reports})
        }
        Job::HastenCleanup(backend) => json!({"k": "hasten_cleanup", "backend": backend.0}),
        Job::ReleaseCleanup => json!({"k": "release_cleanup"}),
        Job::CreateUpload(new) => {
            let mut job = keyed("create_upload", new.bucket, &new.key);
            job.extend(object(json!({
                "upload": text(upload_uuid(new.upload)),
                "content_type": new.headers.content_type,
                "headers": headers_text(&new.headers),
                "tags": tags_text(&new.tags),
                "checksum": new.checksum.map(algorithm_text),
                "created": new.created.millis(),
                "open_max": new.open_max,
                "leg": new_leg(&new.leg),
            })));
            Value::Object(job)
        }
        Job::AddLeg { upload, leg } => step("add_leg", *upload, json!({"leg": new_leg(leg)})),
        Job::OpenLeg { upload, leg, id } => step(
            "open_leg",
            *upload,
            json!({"leg": copy_text(*leg), "id": id}),
        ),
        Job::DropLeg { upload, leg } => step("drop_leg", *upload, json!({"leg": copy_text(*leg)})),
        Job::ClaimPart {
            claim,
            backend,
            bytes,
        } => step(
            "claim_part",
            claim.upload,
            json!({
                "number": claim.number, "attempt": copy_text(claim.attempt),
                "leg": copy_text(claim.leg), "backend": backend.0, "bytes": bytes,
            }),
        ),
        Job::CommitPart {
            upload,
            attempt,
            part,
        } => commit_part(*upload, *attempt, part),
        Job::WithdrawPart { upload, attempt } => step(
            "withdraw_part",
            *upload,
            json!({"attempt": copy_text(*attempt)}),
        ),
        Job::Freeze {
            upload,
            parts,
            precondition,
        } => {
            let list: Vec<Value> = parts
                .iter()
                .map(|(number, attempt)| json!([number, copy_text(*attempt)]))
                .collect();
            step(
                "freeze",
                *upload,
                json!({
                    "parts": list,
                    "frozen": hex(&frozen_bytes(parts)),
                    "if": crate::values::precondition_text(precondition),
                    "busy": live.has_claims(*upload),
                }),
            )
        }
        Job::CompleteLeg {
            upload,
            leg,
            copy,
            size,
        } => step(
            "complete_leg",
            *upload,
            json!({
                "leg": copy_text(*leg), "size": size, "etag": etag_text(copy.etag.as_ref()),
                "version": copy.version, "crc": crc(copy.crc64),
            }),
        ),
        Job::Thaw { upload, missing } => {
            step("thaw", *upload, json!({"missing": missing.map(copy_text)}))
        }
        Job::CompleteUpload(completion) => {
            let mut job = new_version("complete_upload", &completion.version);
            job.insert("upload".into(), text(upload_uuid(completion.upload)));
            Value::Object(job)
        }
        Job::AbortUpload {
            bucket,
            key,
            upload,
        } => {
            let mut job = keyed("abort_upload", *bucket, key);
            job.insert("upload".into(), text(upload_uuid(*upload)));
            Value::Object(job)
        }
        Job::ForgetPending => json!({"k": "forget_pending"}),
        Job::PurgeParts => {
            json!({"k": "purge_parts", "rows": BATCH_ROWS_MAX, "uploads": UPLOADS_PER_PURGE})
        }
        Job::ForgetUploads(ForgetUploads {
            before,
            aborts_kept_max,
            max,
        }) => json!({
            "k": "forget_uploads", "before": before.millis(), "aborts": aborts_kept_max, "max": max,
        }),
        Job::Audit => json!({"k": "audit"}),
    }
}

/// A version of one blob, each copy of which lies where an intent with room enough was opened for it.
fn is_plain(version: &NewVersion, intents: &[IntentRow]) -> bool {
    let Content::Written { blobs, extents } = &version.content else {
        return false;
    };
    let [blob] = blobs.as_slice() else {
        return false;
    };
    let is_covered = |copy: &crate::model::NewCopy| {
        let mut of_copy = intents.iter().filter(|intent| intent.copy == copy.copy);
        of_copy.any(|intent| intent.bytes >= blob.size)
    };
    whole(blobs, extents).is_some()
        && version.parts.is_empty()
        && blob.copies.len() == intents.len()
        && blob.copies.iter().all(is_covered)
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        other => unreachable!("{other} is written as an object"),
    }
}

fn keyed(kind: &str, bucket: BucketId, key: &ObjectKey) -> Map<String, Value> {
    object(json!({"k": kind, "bucket": bucket.0, "key": key.as_str()}))
}

fn step(kind: &str, upload: UploadId, rest: Value) -> Value {
    let mut job = object(rest);
    job.insert("k".into(), json!(kind));
    job.insert("upload".into(), text(upload_uuid(upload)));
    Value::Object(job)
}

fn insert_precondition(job: &mut Map<String, Value>, precondition: &Precondition) {
    let condition = crate::values::precondition_text(precondition);
    if let Some(condition) = condition.and_then(|text| serde_json::from_str(&text).ok()) {
        job.insert("if".into(), condition);
    }
}

fn give_up(intents: &[GivenUp]) -> Value {
    let rows: Vec<Value> = intents
        .iter()
        .map(|given_up| {
            let unsettled = given_up.outcome == Outcome::Unknown;
            json!([copy_text(given_up.intent.copy), unsettled])
        })
        .collect();
    json!({"k": "give_up", "rows": rows})
}

fn new_version(kind: &str, version: &NewVersion) -> Map<String, Value> {
    let mut job = keyed(kind, version.bucket, &version.key);
    job.extend(object(json!({
        "version": text(version_uuid(version.version)),
        "size": version.size,
        "etag": version.etag.as_str(),
        "modified": version.last_modified.millis(),
        "content_type": version.headers.content_type,
    })));
    insert_precondition(&mut job, &version.precondition);
    let headers = headers_text(&version.headers);
    let tags = tags_text(&version.tags);
    let checksum = version.checksum.as_ref().map(stored_checksum_text);
    if headers.is_some() || tags.is_some() || checksum.is_some() {
        let meta = json!({"headers": headers, "tags": tags, "checksum": checksum});
        job.insert("meta".into(), meta);
    }
    if let Some(stored) = version.checksum {
        let algorithm = algorithm_text((stored.checksum.algorithm(), stored.kind));
        job.insert("algorithm".into(), json!(algorithm));
    }
    if !version.parts.is_empty() {
        let part = |part: &crate::model::ObjectPart| {
            json!([
                part.number,
                part.size,
                part.checksum.as_ref().map(checksum_text)
            ])
        };
        let parts: Vec<Value> = version.parts.iter().map(part).collect();
        job.insert("part_count".into(), json!(parts.len()));
        job.insert("parts".into(), Value::Array(parts));
    }
    match &version.content {
        Content::Same { current } => {
            job.insert("same".into(), text(version_uuid(*current)));
        }
        Content::Written { blobs, extents } => {
            job.insert("blobs".into(), blobs.iter().map(new_blob).collect());
            match whole(blobs, extents) {
                Some(blob) => job.insert("whole".into(), text(blob_uuid(blob))),
                None => job.insert("extents".into(), extents.iter().map(extent).collect()),
            };
        }
    }
    job
}

/// The one blob that is the whole object, where there is one.
fn whole(blobs: &[NewBlob], extents: &[Extent]) -> Option<BlobId> {
    match (blobs, extents) {
        ([blob], [extent]) if extent.offset == 0 && extent.length == blob.size => Some(blob.blob),
        _ => None,
    }
}

fn new_blob(blob: &NewBlob) -> Value {
    let copy = |copy: &crate::model::NewCopy| {
        json!({
            "copy": copy_text(copy.copy), "etag": etag_text(copy.etag.as_ref()),
            "version": copy.version, "crc": crc(copy.crc64),
        })
    };
    json!({
        "blob": text(blob_uuid(blob.blob)), "size": blob.size, "crc": crc(blob.crc64),
        "copies": blob.copies.iter().map(copy).collect::<Vec<_>>(),
    })
}

fn extent(extent: &Extent) -> Value {
    json!([text(blob_uuid(extent.blob)), extent.offset, extent.length])
}

/// Of intents: their bytes, and with them the room that they hold.
fn intent_places(intents: &[IntentRow]) -> Value {
    let place = |intent: &IntentRow| {
        let place = json!([
            intent.backend.0,
            intent.key.as_str(),
            intent.bytes,
            intent.bytes
        ]);
        (copy_uuid(intent.copy).hyphenated().to_string(), place)
    };
    Value::Object(intents.iter().map(place).collect())
}

/// Of copies that were found: as many bytes as there are, and no room was held for them.
fn found_places(version: &NewVersion, places: &[(CopyId, BackendId, BackendKey)]) -> Value {
    let Content::Written { blobs, .. } = &version.content else {
        return json!({});
    };
    let place = |(copy, backend, key): &(CopyId, BackendId, BackendKey)| {
        let owner = blobs
            .iter()
            .find(|blob| blob.copies.iter().any(|new| new.copy == *copy))?;
        let place = json!([backend.0, key.as_str(), owner.size, 0]);
        Some((copy_uuid(*copy).hyphenated().to_string(), place))
    };
    Value::Object(places.iter().filter_map(place).collect())
}

fn report(report: &CleanupReport) -> Value {
    match &report.outcome {
        CleanupOutcome::Done => json!([report.id, "done"]),
        CleanupOutcome::FirstPassDone { again_at } => {
            json!([report.id, "first_pass", again_at.millis()])
        }
        CleanupOutcome::Retry { again_at, error } => {
            json!([
                report.id,
                "retry",
                again_at.millis(),
                error.as_deref().map(clean)
            ])
        }
        CleanupOutcome::Dead { error } => json!([report.id, "dead", null, clean(error)]),
    }
}

/// PostgreSQL holds every text but one with a NUL, and the words of a backend may have one.
fn clean(words: &str) -> String {
    words.replace('\0', "\u{fffd}")
}

fn new_leg(leg: &NewLeg) -> Value {
    json!([
        copy_text(leg.copy),
        text(blob_uuid(leg.blob)),
        leg.backend.0,
        leg.key.as_str()
    ])
}

fn commit_part(upload: UploadId, attempt: CopyId, part: &PartRow) -> Value {
    step(
        "commit_part",
        upload,
        json!({
            "attempt": copy_text(attempt),
            "number": part.number,
            "leg": copy_text(part.leg),
            "size": part.size,
            "etag": part.etag.as_str(),
            "checksum": part.checksum.as_ref().map(checksum_text),
            "crc": crc(part.crc64),
            "modified": part.last_modified.millis(),
            "backend_etag": part.backend_etag.as_str(),
            "backend_crc": crc(part.backend_crc64),
        }),
    )
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

// === locks ===

/// How a lock is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Hold {
    Shared,
    Exclusive,
}

/// A lock by the number that PostgreSQL knows it by. Two names with one number only wait for each
/// other for nothing.
pub(crate) type Lock = (i64, Hold);

fn named(name: &str, rest: &[u8]) -> i64 {
    let mut bytes = Vec::with_capacity(name.len() + 1 + rest.len());
    bytes.extend_from_slice(name.as_bytes());
    bytes.push(0);
    bytes.extend_from_slice(rest);
    Crc64::of(&bytes).0.cast_signed()
}

fn of_key(bucket: BucketId, key: &ObjectKey) -> i64 {
    let bytes = [&bucket.0.to_be_bytes()[..], key.as_str().as_bytes()].concat();
    named("key", &bytes)
}

fn of_bucket(bucket: BucketId) -> i64 {
    named("bucket", &bucket.0.to_be_bytes())
}

fn of_upload(upload: UploadId) -> i64 {
    named("upload", &upload.to_bytes())
}

/// Held by what adds bytes to a backend; exclusively by what changes whether it accepts them.
pub(crate) fn of_accepting(backend: BackendId) -> i64 {
    named("accepting", &backend.0.to_be_bytes())
}

/// Held while an instance opens intents; exclusively by who buries it.
pub(crate) fn of_instance(instance: i32) -> i64 {
    named("instance", &instance.to_be_bytes())
}

/// Held by who leases room of a backend.
pub(crate) fn of_room(backend: BackendId) -> i64 {
    named("room", &backend.0.to_be_bytes())
}

/// The locks of jobs, sorted and each once, in its stronger form.
pub(crate) fn sorted(mut locks: Vec<Lock>) -> (Vec<i64>, Vec<bool>) {
    locks.sort_unstable_by(|a, b| a.0.cmp(&b.0).then(b.1.cmp(&a.1)));
    locks.dedup_by_key(|lock| lock.0);
    let shared = locks.iter().map(|lock| lock.1 == Hold::Shared).collect();
    (locks.into_iter().map(|lock| lock.0).collect(), shared)
}

/// What a step of an upload locks.
pub(crate) fn upload_locks(upload: UploadId) -> Vec<Lock> {
    vec![
        (named("uploads", b""), Hold::Shared),
        (of_upload(upload), Hold::Exclusive),
    ]
}

/// What a job locks. Everything that two instances may write at the same time is behind one of these,
/// but for single rows that a statement of its own changes.
pub(crate) fn locks(job: &Job) -> Vec<Lock> {
    use Hold::{Exclusive, Shared};
    let upload = |upload: &UploadId| upload_locks(*upload);
    let version = |version: &NewVersion| {
        vec![
            (of_key(version.bucket, &version.key), Exclusive),
            (of_bucket(version.bucket), Shared),
        ]
    };
    match job {
        Job::Recovery(_) => vec![(named("recovery", b""), Exclusive)],
        Job::EnsureBuckets(_) | Job::CreateBucket(_) | Job::EnsureBackends(_) => {
            vec![(named("names", b""), Exclusive)]
        }
        Job::RemoveBucket(bucket) => vec![
            (named("names", b""), Exclusive),
            (of_bucket(*bucket), Exclusive),
        ],
        Job::SetBackendState { backend, .. } => vec![(of_accepting(*backend), Exclusive)],
        Job::SaveCapabilities { backend, .. } | Job::AdvanceMark { backend, .. } => {
            vec![(named("backend", &backend.0.to_be_bytes()), Exclusive)]
        }
        Job::AddUsage(_) => vec![(named("usage", b""), Exclusive)],
        Job::LeaseWorker { name, .. } => vec![(named("worker", name.as_bytes()), Exclusive)],
        Job::Commit { version: new, .. } | Job::Adopt { version: new, .. } => version(new),
        Job::Remove(removal) => vec![(of_key(removal.bucket, &removal.key), Exclusive)],
        Job::Retag(retag) => vec![(of_key(retag.bucket, &retag.key), Exclusive)],
        Job::CreateUpload(new) => vec![
            (of_bucket(new.bucket), Shared),
            (of_accepting(new.leg.backend), Shared),
            (named("uploads", b""), Shared),
        ],
        Job::AddLeg { upload: id, leg } => {
            let mut locks = upload(id);
            locks.push((of_accepting(leg.backend), Shared));
            locks
        }
        Job::ClaimPart { claim, .. } => upload(&claim.upload),
        Job::OpenLeg { upload: id, .. }
        | Job::DropLeg { upload: id, .. }
        | Job::CommitPart { upload: id, .. }
        | Job::WithdrawPart { upload: id, .. }
        | Job::Freeze { upload: id, .. }
        | Job::CompleteLeg { upload: id, .. }
        | Job::Thaw { upload: id, .. }
        | Job::AbortUpload { upload: id, .. } => upload(id),
        Job::CompleteUpload(completion) => {
            let mut locks = upload(&completion.upload);
            locks.extend(version(&completion.version));
            locks
        }
        Job::ForgetPending => vec![(named("uploads", b""), Exclusive)],
        Job::PurgeParts | Job::ForgetUploads(_) => vec![(named("purge", b""), Exclusive)],
        Job::GiveUp(_)
        | Job::MarkCopy { .. }
        | Job::ClaimCleanup { .. }
        | Job::ReportCleanup(_)
        | Job::HastenCleanup(_)
        | Job::ReleaseCleanup
        | Job::Audit => Vec::new(),
    }
}
