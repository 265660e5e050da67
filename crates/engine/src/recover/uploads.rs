//! The unfinished uploads of a backend, as a recovery reports them.

use std::collections::HashSet;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;

use backend::{ListedUpload, ObjectBackend as _};
use metastore::model::Known;

use super::{Recovered, beyond, stuck, unseen};
use crate::fleet::Member;
use crate::{Engine, Result};

/// Unfinished uploads of one key; a listing with more does not end.
const UPLOADS_PER_KEY_MAX: usize = 10_000;
/// Unfinished uploads of one backend; a listing with more does not end.
const UPLOADS_PER_BACKEND_MAX: u64 = 1_000_000;

impl Engine {
    /// Names the unfinished uploads of a backend that the catalogue does not know.
    pub(super) async fn report_uploads(
        &self,
        member: &Arc<Member>,
        found: &mut Recovered,
    ) -> Result<()> {
        if !member.backend().capabilities().list_uploads {
            return Ok(());
        }
        let mut after: Option<ListedUpload> = None;
        // Ids have no order: only one that comes again shows that the listing does not go on.
        let mut of_key = HashSet::new();
        let hasher = RandomState::new();
        let mut listed = 0;
        loop {
            let page = member.backend().list_uploads("", after.as_ref()).await;
            let page = page.map_err(|error| unseen(member, error))?;
            if page.truncated && page.uploads.is_empty() {
                return Err(unseen(member, stuck(member, "list_uploads")));
            }
            let mut uploads = page.uploads;
            if !page.truncated {
                // Some providers list them in the order in which they began. Where nothing follows, the order
                // does not matter.
                uploads.sort_by(|one, other| one.key.cmp(&other.key));
            }
            for upload in uploads {
                let last = after.as_ref().map(|last| last.key.as_str());
                if last != Some(upload.key.as_str()) {
                    of_key.clear();
                }
                let goes_on = last <= Some(upload.key.as_str());
                if !goes_on || !of_key.insert(hasher.hash_one(&upload.upload)) {
                    return Err(unseen(member, stuck(member, "list_uploads")));
                }
                listed += 1;
                if of_key.len() > UPLOADS_PER_KEY_MAX || listed > UPLOADS_PER_BACKEND_MAX {
                    let what = "more unfinished uploads than there can be";
                    return Err(unseen(member, beyond(member, "list_uploads", what)));
                }
                if self.inner.store.known_key(member.id, &upload.key).await? == Known::No {
                    found.leave(member.name(), &upload.key, "an unfinished multipart upload");
                }
                after = Some(upload);
            }
            if !page.truncated {
                return Ok(());
            }
        }
    }
}
