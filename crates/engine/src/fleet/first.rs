//! The first use of backends: how one is marked for the first time, and when a new catalogue knows
//! that none of its backends belongs to another one.

use std::sync::atomic::{AtomicBool, Ordering};

use backend::{Kind, ObjectBackend as _};
use base::report;
use metastore::Store;
use metastore::model::BackendRow;
use parking_lot::Mutex;

use super::{Fleet, Look, Member, OutOfService};
use crate::marker::{CATALOGUE_MISSING, FIRST_MARK, Finding};
use crate::{Error, Result, Tried};

/// Whether the catalogue is too new to know what does not exist.
///
/// A new catalogue knows no objects, and a backend that does not answer cannot say that it belongs to
/// another one, whose objects these are. So the catalogue begins until each of its backends has told
/// once that it does not. No row's generation is past the first one before that, which is how a later
/// start knows; one that is past it, of any backend, says for good that the beginning is over.
pub(super) struct Beginning {
    open: AtomicBool,
    /// What the log was told last.
    told: Mutex<String>,
}

impl Beginning {
    pub(super) fn of(rows: &[BackendRow]) -> Self {
        Self {
            open: AtomicBool::new(!is_over(rows)),
            told: Mutex::default(),
        }
    }

    pub(super) fn is_open(&self) -> bool {
        self.open.load(Ordering::Relaxed)
    }

    fn tell(&self, unseen: String) {
        let mut told = self.told.lock();
        if *told == unseen {
            return;
        }
        tracing::error!(
            backends = %unseen,
            "new catalogue has not seen all its backends: absent keys and listings are answered with 503. \
             Mend these backends, or take them out of the configuration. Where one belongs to another \
             catalogue, {CATALOGUE_MISSING}"
        );
        *told = unseen;
    }

    fn close(&self) {
        self.open.store(false, Ordering::Relaxed);
        if !self.told.lock().is_empty() {
            tracing::info!("all backends seen, absent keys and listings are answered again");
        }
    }
}

/// When a first marker is read back: not every provider knows the condition that it is written on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReadBack {
    /// At once: bytes may be placed as soon as the backend is in service.
    Now,
    /// By [`Fleet::confirm_first`], when all members have written theirs and none holds bytes yet.
    AfterAll,
}

const fn is_refused_for_good(kind: Kind) -> bool {
    matches!(kind, Kind::Unsupported | Kind::Rejected | Kind::Denied)
}

fn is_over(rows: &[BackendRow]) -> bool {
    rows.iter().any(|row| row.mark > FIRST_MARK)
}

impl Fleet {
    /// Whether a key that the catalogue lacks may exist all the same. One relaxed load.
    pub(crate) fn is_beginning(&self) -> bool {
        self.beginning.is_open()
    }

    /// The backends that have not told yet that they belong to no other catalogue, with why.
    pub(crate) fn unseen(&self) -> String {
        let unseen = |member: &Member| match member.out_of_service() {
            Some(reason) => format!("backend {} is out of service, {reason}", member.name()),
            None => format!("backend {}", member.name()),
        };
        self.members
            .iter()
            .filter(|member| !member.seen.load(Ordering::Relaxed))
            .map(|member| unseen(member))
            .collect::<Vec<_>>()
            .join(", ")
    }

    /// Ends the beginning of the catalogue where every backend has been seen; until then the log says
    /// which have not.
    pub(crate) async fn conclude_beginning(&self, store: &Store) -> Result<()> {
        if !self.beginning.is_open() {
            return Ok(());
        }
        // Another instance may have ended it; a backend that left the configuration counts too.
        if is_over(&store.backends().await?) {
            self.beginning.close();
            return Ok(());
        }
        let unseen = self.unseen();
        if !unseen.is_empty() {
            self.beginning.tell(unseen);
            return Ok(());
        }
        if store.catalogue().recovery.is_none() {
            for member in self.members.iter().filter(|member| member.in_service()) {
                // The row alone: one that is ahead of its marker is harmless.
                store.advance_mark(member.id).await?;
            }
        }
        self.beginning.close();
        Ok(())
    }

    /// Marks a backend for the first time, on the condition that nobody else has. Whatever else than
    /// success the write is answered, what the marker reads then decides; `None` where there is still
    /// none.
    pub(super) async fn mark_first(
        &self,
        store: &Store,
        member: &Member,
        row: BackendRow,
        read_back: ReadBack,
    ) -> Result<Option<Look>> {
        let written = self.write_first(store, member, &row).await;
        if written.is_ok() && read_back == ReadBack::AfterAll {
            let finding = Finding::Ours;
            return Ok(Some(Look { finding, row }));
        }
        let Some(look) = self.look(store, member).await? else {
            return Ok(None);
        };
        if !matches!(look.finding, Finding::First | Finding::Missing) {
            return Ok(Some(look));
        }
        let reason = match written {
            Ok(()) => UNREAD.to_owned(),
            Err(error) => report(&error).to_string(),
        };
        self.retire(member, OutOfService::Unreachable { reason });
        Ok(None)
    }

    async fn write_first(&self, store: &Store, member: &Member, row: &BackendRow) -> Result<()> {
        let mut generation = row.mark;
        // An earlier first marker that never arrived is written again, not advanced.
        if !row.marked {
            generation = store.advance_mark(member.id).await?;
        }
        let content = self.marker_text(store, member, generation);
        let backend = member.backend();
        let written = match backend.create_marker(content.clone()).await {
            // Who does not know the condition says so in words of its own (Backblaze B2: 400 `Unsupported
            // header`): what is refused for another reason is refused again.
            Err(error) if is_refused_for_good(error.kind) => backend.write_marker(content).await,
            created => created,
        };
        written.map_err(|error| Error::WriteUnavailable {
            tried: Tried(vec![(member.name().clone(), error)]),
        })
    }

    /// Reads the first marker of a member back, after all members have written theirs: where a
    /// provider ignores the condition, two names of one place have both found it unmarked, and the one
    /// whose marker is gone is not to be used.
    pub(crate) async fn confirm_first(&self, store: &Store, member: &Member) -> Result<()> {
        let Some(look) = self.look(store, member).await? else {
            return Ok(());
        };
        let reason = match look.finding {
            Finding::First | Finding::Missing => Some(OutOfService::Unreachable {
                reason: UNREAD.to_owned(),
            }),
            finding => finding.out_of_service(),
        };
        if let Some(reason) = reason {
            self.retire(member, reason);
        }
        Ok(())
    }
}

/// Why a backend is not used that takes a marker and does not have it.
const UNREAD: &str = "its first marker does not read back";
