//! A Complete that a provider refused: what that may cost.
//!
//! The parts were acknowledged, so one odd reply (a redirect, a proxy's page, a code that nobody
//! knows) must not throw them away. They are given up only where the provider says by name that
//! they, or their upload, are gone, and its list of parts agrees. Everything else is an error that
//! may be tried again.

use std::collections::HashMap;

use backend::{Effect, Error as BackendError, Kind, ObjectBackend as _, StoredPart};
use metastore::model::{Leg, NewCopy, PartRow, UploadRecord};

use super::accept;
use crate::fleet::Member;
use crate::{Engine, Error, Result, Tried};

/// The backend's side of an upload, which was not assembled.
#[derive(Clone, Copy)]
pub(super) struct RefusedLeg<'a> {
    pub(super) member: &'a Member,
    pub(super) leg: &'a Leg,
    /// The provider's id of the upload.
    pub(super) upload: &'a str,
    pub(super) parts: &'a [&'a PartRow],
}

impl Engine {
    /// The object of a leg whose Complete failed, where it is there all the same; `None` where its
    /// parts are proven to be gone.
    pub(super) async fn after_refusal(
        &self,
        record: &UploadRecord,
        refused: RefusedLeg<'_>,
        error: BackendError,
    ) -> Result<Option<NewCopy>> {
        let RefusedLeg {
            member, leg, parts, ..
        } = refused;
        let size = parts.iter().map(|part| part.size).sum();
        if let Some(copy) = self.look_at_leg(member, leg, size).await? {
            return Ok(Some(copy));
        }
        let named = matches!(error.kind, Kind::InvalidPart | Kind::NoSuchUpload);
        // Nothing happened, if the provider is right; of a connection that ended nobody knows.
        let answered = error.effect == Effect::None || error.kind == Kind::Throttled;
        let for_good = error.effect == Effect::None && !error.kind.retryable();
        let parts_are = if named || answered && !for_good {
            look_at_parts(refused).await
        } else {
            Parts::Unknown
        };
        if named && parts_are == Parts::Gone {
            return Ok(None);
        }
        // What was refused may be aborted or completed otherwise, and nobody takes it up behind what the
        // client does next. What may yet happen stays frozen.
        if for_good || answered && parts_are == Parts::Held {
            accept(self.inner.store.thaw(record.upload, None).await?)?;
        }
        let tried = Tried(vec![(member.name().clone(), error)]);
        Err(Error::WriteUnavailable { tried })
    }
}

/// What the provider's own list says of the parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Parts {
    /// The upload is open with all of them.
    Held,
    /// It lacks one of them, or the provider does not know the upload.
    Gone,
    /// It could not be read to its end.
    Unknown,
}

async fn look_at_parts(refused: RefusedLeg<'_>) -> Parts {
    let RefusedLeg {
        member,
        leg,
        upload,
        parts,
    } = refused;
    let is_held = |part: &PartRow, listed: &StoredPart| {
        listed.etag == part.backend_etag && listed.size == part.size
    };
    let mut missing: HashMap<u32, &PartRow> =
        parts.iter().map(|part| (part.number, *part)).collect();
    let mut after = 0;
    loop {
        let page = match member.backend().list_parts(&leg.key, upload, after).await {
            Ok(page) => page,
            Err(error) if error.kind == Kind::NoSuchUpload => return Parts::Gone,
            Err(error) => {
                let (backend, error) = (member.name(), base::report(&error));
                tracing::warn!(%backend, key = %leg.key, %error, "could not list the parts of a refused CompleteMultipartUpload");
                return Parts::Unknown;
            }
        };
        let last = page.parts.last().map(|part| part.number);
        for listed in &page.parts {
            if missing
                .get(&listed.number)
                .is_some_and(|part| is_held(part, listed))
            {
                missing.remove(&listed.number);
            }
        }
        match last {
            Some(last) if page.truncated && last > after => after = last,
            // A list without its end says nothing of what it lacks.
            _ if page.truncated => return Parts::Unknown,
            _ => break,
        }
    }
    if missing.is_empty() {
        Parts::Held
    } else {
        Parts::Gone
    }
}
