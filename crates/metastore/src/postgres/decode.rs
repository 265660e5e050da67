//! Verdicts of the functions in `migrations/postgres/0001_batches.sql` as answers, and what they change
//! in memory.

use std::collections::BTreeMap;

use base::VersionId;
use serde_json::Value;

use crate::Error;
use crate::fault::Fault;
use crate::job::{Answer, Job, Slot};
use crate::ledger::Counters;
use crate::live::Effects;
use crate::model::{
    Adopted, BackendId, BackendState, BucketCreation, BucketRemoval, CleanupReason, Content,
    Freeze, NewVersion, Removed, UploadVerdict, Verdict,
};
use crate::postgres::work::Work;
use crate::rows;
use crate::values::{Cells, small};

/// Reads the verdict of one job.
pub(crate) fn answer(work: &Work, verdict: &Value) -> Result<(Answer, Effects), Fault> {
    let word = word(verdict)?;
    match word {
        "damaged" => {
            let what = verdict["what"].as_str().unwrap_or_default();
            return Err(Fault::damaged(what));
        }
        "no_room" if !matches!(work, Work::LeaseRoom { .. }) => {
            return Err(Error::NoRoom {
                wanted: base::ByteSize(0),
            }
            .into());
        }
        _ => {}
    }
    let (mut effects, displaced) = effects(verdict)?;
    effects.enqueued.add(
        match work {
            Work::Job(job) if matches!(**job, Job::Remove(_)) => CleanupReason::ObjectDeleted,
            _ => CleanupReason::OverwriteDisplaced,
        },
        displaced,
    );
    let answer = match work {
        Work::Job(job) => job_answer(job, word, verdict, &mut effects)?,
        Work::Withdraw(copies) => {
            effects.settled.extend(copies);
            Answer::Done
        }
        Work::LeaseRoom { backend, .. } => match word {
            "leased" => {
                let bytes = count(verdict, "bytes")?;
                effects.leased = Some((*backend, bytes.cast_signed()));
                Answer::Leased
            }
            "no_room" => Answer::Short {
                others: count(verdict, "others")?,
            },
            other => return Err(unknown(other)),
        },
        Work::ReturnRoom { .. } | Work::Beat => done(word)?,
        Work::Drive(_) => Answer::Upload(step(word)?),
        Work::Bury { .. } => {
            let given_up = count(verdict, "n")?;
            let reason = CleanupReason::IntentAbandoned;
            effects.enqueued.add(reason, given_up);
            Answer::Count(given_up)
        }
    };
    Ok((answer, effects))
}

fn unknown(word: &str) -> Fault {
    Fault::damaged(format!("the verdict {word:?}"))
}

fn word(verdict: &Value) -> Result<&str, Fault> {
    verdict["v"]
        .as_str()
        .ok_or_else(|| Fault::damaged(format!("the verdict {verdict}")))
}

fn count(verdict: &Value, name: &str) -> Result<u64, Fault> {
    verdict[name]
        .as_u64()
        .ok_or_else(|| Fault::damaged(format!("the verdict {verdict}")))
}

fn list<'a>(verdict: &'a Value, name: &str) -> Result<&'a [Value], Fault> {
    verdict[name]
        .as_array()
        .map(Vec::as_slice)
        .ok_or_else(|| Fault::damaged(format!("the verdict {verdict}")))
}

/// The counters that moved, and how many copies of objects are in the cleanup queue now.
fn effects(verdict: &Value) -> Result<(Effects, u64), Fault> {
    let mut effects = Effects::default();
    let mut displaced = 0;
    let Some(moved) = verdict.get("d").filter(|moved| !moved.is_null()) else {
        return Ok((effects, displaced));
    };
    for row in rows::lists(moved)? {
        let delta = effects.delta(BackendId(row.int(0)?));
        delta.used += row.int(1)?;
        delta.orphan += row.int(2)?;
        delta.parts += row.int(3)?;
        delta.locations += row.int(4)?;
        delta.room += row.int(5)?;
        // Each row tells of one copy, that came or went.
        displaced += u64::from(row.int(4)? < 0);
    }
    Ok((effects, displaced))
}

/// How many legs of an upload are in the cleanup queue now.
fn legs(verdict: &Value) -> u64 {
    verdict["q"].as_u64().unwrap_or_default()
}

fn done(word: &str) -> Result<Answer, Fault> {
    match word {
        "done" => Ok(Answer::Done),
        other => Err(unknown(other)),
    }
}

fn job_answer(
    job: &Job,
    word: &str,
    verdict: &Value,
    effects: &mut Effects,
) -> Result<Answer, Fault> {
    Ok(match job {
        Job::Recovery(change) => {
            effects.recovery = Some(change.clone());
            done(word)?
        }
        Job::EnsureBuckets(_) => Answer::Buckets(
            rows::lists(&verdict["buckets"])?
                .map(rows::bucket)
                .collect::<Result<_, _>>()?,
        ),
        Job::CreateBucket(_) => {
            let bucket = rows::bucket(list(verdict, "bucket")?)?;
            Answer::BucketCreation(match word {
                "created" => BucketCreation::Created(bucket),
                "exists" => BucketCreation::Exists(bucket),
                other => return Err(unknown(other)),
            })
        }
        Job::RemoveBucket(_) => Answer::BucketRemoval(match word {
            "gone" => BucketRemoval::Gone,
            "not_empty" => BucketRemoval::NotEmpty,
            "not_ours" => BucketRemoval::NotOurs,
            "absent" => BucketRemoval::Absent,
            other => return Err(unknown(other)),
        }),
        Job::EnsureBackends(names) => {
            let all = rows::lists(&verdict["backends"])?
                .map(rows::backend)
                .collect::<Result<Vec<_>, _>>()?;
            let named =
                |name: &base::BackendName| all.iter().find(|row| row.name == *name).cloned();
            let found = names
                .iter()
                .map(|name| {
                    named(name).ok_or_else(|| {
                        Fault::damaged("a backend that was just recorded is not there")
                    })
                })
                .collect::<Result<Vec<_>, _>>()?;
            for row in &all {
                let accepting = row.state == BackendState::Active;
                effects.accepting.push((row.id, accepting));
            }
            Answer::Backends(found)
        }
        Job::SaveCapabilities { .. } | Job::MarkCopy { .. } => done(word)?,
        Job::SetBackendState { backend, state } => {
            let accepting = *state == BackendState::Active;
            effects.accepting.push((*backend, accepting));
            done(word)?
        }
        Job::AdvanceMark { .. } => Answer::Mark(count(verdict, "mark")?),
        Job::AddUsage(_) => {
            effects.counted = true;
            Answer::Done
        }
        Job::GiveUp(intents) => {
            effects
                .settled
                .extend(intents.iter().map(|given_up| given_up.intent.copy));
            let given_up = count(verdict, "n")?;
            let reason = CleanupReason::IntentAbandoned;
            effects.enqueued.add(reason, given_up);
            Answer::Count(given_up)
        }
        Job::Commit { version, .. } => {
            let verdict = committed(word, verdict)?;
            if matches!(verdict, Verdict::Committed { .. }) {
                effects.settled.extend(named_copies(version));
            }
            Answer::Verdict(verdict)
        }
        Job::CompleteUpload(_) => {
            let reason = CleanupReason::UploadLeftover;
            effects.enqueued.add(reason, legs(verdict));
            Answer::Verdict(committed(word, verdict)?)
        }
        Job::Adopt { .. } => Answer::Adopted(match (word, verdict["why"].as_str()) {
            ("committed", _) => Adopted::Yes,
            (_, Some("version")) => Adopted::NewerVersion,
            (_, Some("copy")) => Adopted::KnownCopy,
            (_, Some("known_blob")) => Adopted::KnownBlob,
            (_, Some("known_version")) => Adopted::KnownVersion,
            _ => Adopted::Refused,
        }),
        Job::Remove(_) => Answer::Removed(match word {
            "removed" => Removed::Gone {
                version: VersionId::from_bytes(id(&verdict["version"])?),
                size: count(verdict, "size")?,
            },
            "absent" => Removed::Absent,
            "precondition" => Removed::PreconditionFailed,
            other => return Err(unknown(other)),
        }),
        Job::Retag(_) => Answer::Retagged(word == "done"),
        Job::LeaseWorker { .. } => Answer::Granted(word == "granted"),
        Job::ClaimCleanup { .. } => Answer::Items(
            rows::lists(&verdict["items"])?
                .map(rows::cleanup_item)
                .collect::<Result<_, _>>()?,
        ),
        Job::ReportCleanup(_) => done(word)?,
        Job::HastenCleanup(_)
        | Job::ReleaseCleanup
        | Job::ForgetPending
        | Job::PurgeParts
        | Job::ForgetUploads(_) => Answer::Count(count(verdict, "n")?),
        Job::ClaimPart { backend, bytes, .. } => {
            let verdict = step(word)?;
            if verdict == UploadVerdict::Done {
                effects.room = Some((*backend, *bytes));
            }
            Answer::Upload(verdict)
        }
        Job::CreateUpload(_)
        | Job::AddLeg { .. }
        | Job::OpenLeg { .. }
        | Job::CommitPart { .. }
        | Job::CompleteLeg { .. }
        | Job::Thaw { .. } => Answer::Upload(step(word)?),
        Job::DropLeg { .. } | Job::AbortUpload { .. } => {
            let reason = CleanupReason::UploadAborted;
            effects.enqueued.add(reason, legs(verdict));
            Answer::Upload(step(word)?)
        }
        Job::WithdrawPart { .. } => done(word)?,
        Job::Freeze { .. } => Answer::Freeze(match word {
            "frozen" => Freeze::Frozen,
            "busy" => Freeze::Busy,
            "part_changed" => Freeze::PartChanged {
                number: small([verdict["number"].clone()].as_slice(), 0)?,
            },
            "no_upload" => Freeze::NoSuchUpload,
            "not_open" => Freeze::NotOpen,
            other => return Err(unknown(other)),
        }),
        Job::Audit => Answer::Slots(
            rows::lists(&verdict["slots"])?
                .map(rows::slot)
                .collect::<Result<_, _>>()?,
        ),
    })
}

/// Differences between the counters of this instance in rows and in memory.
pub(crate) fn drift(
    slots: &[Slot],
    memory: &BTreeMap<BackendId, Counters>,
    leased: &BTreeMap<BackendId, u64>,
) -> Vec<String> {
    let differs = |slot: &&Slot| {
        let counted = memory.get(&slot.backend);
        counted != Some(&slot.counters) || leased.get(&slot.backend) != Some(&slot.leased)
    };
    slots
        .iter()
        .filter(differs)
        .map(|slot| {
            format!(
                "backend {}: {slot:?} in rows, {:?} and {:?} of leased room in memory",
                slot.backend.0,
                memory.get(&slot.backend),
                leased.get(&slot.backend)
            )
        })
        .collect()
}

fn id(value: &Value) -> Result<[u8; 16], Fault> {
    std::slice::from_ref(value).id(0)
}

fn committed(word: &str, verdict: &Value) -> Result<Verdict, Fault> {
    Ok(match word {
        "committed" => Verdict::Committed {
            seq: count(verdict, "seq")?,
        },
        "precondition" => Verdict::PreconditionFailed,
        "absent" => Verdict::Absent,
        "gone" => Verdict::IntentGone,
        "changed" => Verdict::Changed,
        "no_bucket" => Verdict::NoSuchBucket,
        "overtaken" => Verdict::Overtaken,
        other => return Err(unknown(other)),
    })
}

fn step(word: &str) -> Result<UploadVerdict, Fault> {
    Ok(match word {
        "done" => UploadVerdict::Done,
        "no_upload" => UploadVerdict::NoSuchUpload,
        "superseded" => UploadVerdict::Superseded,
        "too_many" => UploadVerdict::TooMany,
        "no_bucket" => UploadVerdict::NoSuchBucket,
        other => return Err(unknown(other)),
    })
}

fn named_copies(version: &NewVersion) -> impl Iterator<Item = base::CopyId> + '_ {
    let blobs = match &version.content {
        Content::Written { blobs, .. } => blobs.as_slice(),
        Content::Same { .. } => &[],
    };
    blobs
        .iter()
        .flat_map(|blob| blob.copies.iter().map(|copy| copy.copy))
}
