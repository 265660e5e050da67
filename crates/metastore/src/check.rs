//! What is refused before any database sees it, because it would break a promise of the catalogue.

use base::{BlobId, CopyId};

use crate::fault::Fault;
use crate::job::Job;
use crate::live::IntentRow;
use crate::model::{Content, Extent, NewBlob, NewVersion, UsageRow};
use crate::values::int;

/// Whatever of a job can be judged without the rows.
pub(crate) fn job(job: &Job) -> Result<(), Fault> {
    match job {
        Job::Commit {
            version: new,
            intents,
        } => version(new, intents),
        Job::Adopt { version: new, .. } => version(new, &[]),
        Job::CompleteUpload(completion) => match completion.version.content {
            Content::Written { .. } => version(&completion.version, &[]),
            Content::Same { .. } => Err(Fault::damaged(
                "refused to complete an upload without its bytes",
            )),
        },
        Job::AddUsage(rows) => usage(rows),
        _ => Ok(()),
    }
}

/// A version as a whole, with the intents that it names.
fn version(version: &NewVersion, intents: &[IntentRow]) -> Result<(), Fault> {
    let Content::Written { blobs, extents } = &version.content else {
        return Ok(());
    };
    shape(version.size, blobs, extents)?;
    for intent in intents {
        let owner = blobs
            .iter()
            .find(|blob| blob.copies.iter().any(|copy| copy.copy == intent.copy));
        if let Some(owner) = owner {
            blob(intent.copy, intent.blob, owner.blob)?;
        }
    }
    Ok(())
}

/// Counts that rows can hold.
fn usage(rows: &[UsageRow]) -> Result<(), Fault> {
    for row in rows {
        for count in [
            row.traffic.requests,
            row.traffic.egress,
            row.traffic.ingress,
        ] {
            int(count)?;
        }
    }
    Ok(())
}

/// A copy belongs to the blob that its intent was opened for.
pub(crate) fn blob(copy: CopyId, announced: BlobId, named: BlobId) -> Result<(), Fault> {
    match announced == named {
        true => Ok(()),
        false => Err(Fault::damaged(format!(
            "refused copy {copy}: it is of another blob"
        ))),
    }
}

/// Refuses what would break a promise of the catalogue if it were written.
pub(crate) fn shape(size: u64, blobs: &[NewBlob], extents: &[Extent]) -> Result<(), Fault> {
    let refused = |what: &str| Err(Fault::damaged(format!("refused to commit {what}")));
    let mut sum: u64 = 0;
    for extent in extents {
        let Some(blob) = blobs.iter().find(|blob| blob.blob == extent.blob) else {
            return refused("an extent of a blob that is not there");
        };
        match extent.offset.checked_add(extent.length) {
            Some(end) if end <= blob.size => {}
            Some(_) | None => return refused("an extent that ends behind its blob"),
        }
        sum = sum.saturating_add(extent.length);
    }
    if sum != size {
        return refused("extents that do not add up to the object's size");
    }
    for blob in blobs {
        if blob.copies.is_empty() {
            return refused("a blob without a copy");
        }
        if !extents.iter().any(|extent| extent.blob == blob.blob) {
            return refused("a blob that no extent uses");
        }
    }
    Ok(())
}
