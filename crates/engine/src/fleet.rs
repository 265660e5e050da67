//! The backends that this process runs with: what each is, whether it is in service, and the mark
//! that says that it is still the one the catalogue means.

mod first;
mod member;
mod proof;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use backend::{Capabilities, LocalBackend, ObjectBackend as _};
use base::{BackendName, Clock, Month, Traffic, report};
use bytes::Bytes;
use futures_util::future::join_all;
use metastore::Store;
use metastore::model::{BackendId, BackendRow, UsageRow};
use uuid::Uuid;

use crate::marker::{self, Finding, Mark};
use crate::observe::Observer;
use crate::placement::{self, Candidate, Refusal};
use crate::usage::{Usage, written};
use crate::{BackendKind, BackendSettings, Error, Result, Routing, Settings, Tried};
use first::Beginning;
pub(crate) use first::ReadBack;
pub(crate) use member::Member;
use member::guard;
pub use proof::Markers;

/// How long a look at a marker may take; what does not answer is looked at again later.
const LOOK_MAX: Duration = Duration::from_secs(10);

/// Bumped when the probe asks other questions, so that every backend is asked again.
const PROBE_VERSION: u32 = 2;

/// Why a backend is not used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OutOfService {
    /// It could not be reached when it was last looked at.
    Unreachable {
        /// What it said.
        reason: String,
    },
    /// It was marked once and carries no marker now: a missing mount, or an emptied bucket.
    MarkerMissing,
    /// It carries the marker of another catalogue or another backend.
    MarkerForeign {
        /// Whose.
        found: String,
    },
}

impl fmt::Display for OutOfService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable { reason } => write!(f, "unreachable: {reason}"),
            Self::MarkerMissing => f.write_str(
                "its marker .s3o/backend is gone (a missing mount, or the wrong bucket); nothing is \
                 written to it until the marker is back",
            ),
            Self::MarkerForeign { found } => write!(
                f,
                "its marker .s3o/backend belongs to {found}; point the backend's name back to its \
                 own storage, or give this one a new name; where two names lead to one bucket or \
                 directory, remove one; where it is the right storage and its marker was damaged, \
                 see \"Foreign marker\" in docs/failure-modes.md",
            ),
        }
    }
}

/// All backends in the order of the configuration.
pub(crate) struct Fleet {
    members: Vec<Arc<Member>>,
    routing: Routing,
    beginning: Beginning,
}

/// What a look at a marker found, and the row that it was compared with.
struct Look {
    finding: Finding,
    row: BackendRow,
}

impl Finding {
    /// Why a backend of which this was found is not used.
    fn out_of_service(self) -> Option<OutOfService> {
        match self {
            Self::Missing => Some(OutOfService::MarkerMissing),
            Self::OtherBackend { found } | Self::Foreign { found } => {
                Some(OutOfService::MarkerForeign { found })
            }
            Self::First | Self::Ours | Self::Implausible { .. } | Self::Newer { .. } => None,
        }
    }
}

/// What a look at a backend found, for `validate --connect`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackendCheck {
    /// Which backend.
    pub name: BackendName,
    /// What its probe found, or why it cannot be used.
    pub outcome: std::result::Result<Capabilities, String>,
}

/// Looks at backends without a catalogue, as `validate --connect` does.
pub(crate) async fn check_all(
    backends: &[BackendSettings],
    backend_timeout: Duration,
    clock: &Arc<dyn Clock>,
    observer: &Arc<dyn Observer>,
) -> Vec<BackendCheck> {
    let mut checks = Vec::with_capacity(backends.len());
    for settings in backends {
        // There is no catalogue to count in.
        let usage = Usage::new(Arc::clone(clock), settings.usage_limits);
        let outcome = match guard(
            settings,
            backend_timeout,
            clock,
            observer,
            (&usage, &Arc::default()),
        ) {
            Err(reason) => Err(reason),
            Ok(backend) => match backend.check().await {
                Err(error) => Err(report(&error).to_string()),
                Ok(()) => backend
                    .probe()
                    .await
                    .map_err(|error| report(&error).to_string()),
            },
        };
        checks.push(BackendCheck {
            name: settings.name.clone(),
            outcome,
        });
    }
    checks
}

/// The catalogues that the markers of these backends name, as far as they can be read.
pub(crate) async fn owners(
    settings: &Settings,
    clock: &Arc<dyn Clock>,
    observer: &Arc<dyn Observer>,
) -> Vec<(BackendName, Uuid)> {
    let looks = settings.backends.iter().map(|backend| async move {
        // A directory that is not there yet has no marker, and asking for it again does not make it.
        if let BackendKind::Local { path, .. } = &backend.kind
            && !path.exists()
        {
            return None;
        }
        // There is no catalogue to count in.
        let usage = Usage::new(Arc::clone(clock), backend.usage_limits);
        let kept = (&usage, &Arc::default());
        let handle = guard(backend, settings.backend_timeout, clock, observer, kept).ok()?;
        let look = tokio::time::timeout(LOOK_MAX, handle.read_marker()).await;
        let owner = Mark::parse(&look.ok()?.ok()??)?.catalogue;
        Some((backend.name.clone(), owner))
    });
    join_all(looks).await.into_iter().flatten().collect()
}

impl Fleet {
    /// Makes the members of the backends of the settings, whose rows these are in the same order, with
    /// the usage of this month; none is in service before [`Self::enlist`] has looked at it.
    pub(crate) fn new(
        settings: &Settings,
        rows: &[BackendRow],
        usage: &[UsageRow],
        clock: &Arc<dyn Clock>,
        observer: &Arc<dyn Observer>,
    ) -> std::result::Result<Self, (BackendName, String)> {
        let month = Month::of(clock.now());
        let mut members = Vec::with_capacity(settings.backends.len());
        for (backend, row) in settings.backends.iter().zip(rows) {
            let named = |reason| (backend.name.clone(), reason);
            let member = Member::new(backend, row, settings.backend_timeout, clock, observer);
            let member = member.map_err(named)?;
            member.usage().load(month, written(usage, row.id));
            // Only the very first use makes a directory: later, one that is gone is a lost mount.
            if let BackendKind::Local { path, .. } = &backend.kind
                && !marker::expected(row)
            {
                let made = LocalBackend::create(path);
                made.map_err(|error| named(format!("making {}: {error}", path.display())))?;
            }
            members.push(Arc::new(member));
        }
        Ok(Self {
            members,
            routing: settings.routing,
            beginning: Beginning::of(rows),
        })
    }

    pub(crate) fn members(&self) -> &[Arc<Member>] {
        &self.members
    }

    pub(crate) fn member(&self, id: BackendId) -> Option<&Arc<Member>> {
        self.members.iter().find(|member| member.id == id)
    }

    /// Whether every member in service answers with the MD5, and proves by an echo of the checksum that
    /// the answer is about these bytes, so that nothing needs the MD5 computed here.
    pub(crate) fn all_tell_md5(&self) -> bool {
        self.members
            .iter()
            .filter(|member| member.in_service())
            .all(|member| {
                let found = member.backend().capabilities();
                let verifies = found.checksum_trailer && found.checksum_header;
                found.md5_etag && verifies && found.echoes_checksum && !member.lacked_echo()
            })
    }

    /// The members that can take `size` bytes with so much traffic now, best first.
    pub(crate) fn choose(
        &self,
        store: &Store,
        size: u64,
        traffic: Traffic,
    ) -> Result<Vec<Arc<Member>>> {
        let candidates: Vec<_> = self
            .members
            .iter()
            .map(|member| Candidate {
                accepts: member.takes_bytes(),
                room: store.room(member.id),
                object_bytes_max: member.object_bytes_max(),
                within_usage: member.usage().fits(traffic),
            })
            .collect();
        match placement::choose(self.routing, &candidates, size) {
            Ok(places) => Ok(places
                .into_iter()
                .map(|place| Arc::clone(&self.members[place]))
                .collect()),
            Err(Refusal::Full) => Err(Error::NoRoom {
                wanted: base::ByteSize(size),
            }),
            Err(Refusal::UsageSpent) => Err(Error::WriteLimited {
                wanted: base::ByteSize(size),
            }),
            Err(Refusal::NoneInService) => Err(Error::WriteUnavailable {
                tried: Tried(self.members.iter().map(|member| member.refusal()).collect()),
            }),
        }
    }

    /// Looks at a member's marker and takes it into service, or out of it. Returns what speaks for a
    /// restored catalogue, where something does.
    ///
    /// Row first, marker second: a crash between the two leaves a mark that is behind the row's,
    /// which is harmless. A mark that is ahead of the row's can only mean that the row is older.
    pub(crate) async fn enlist(
        &self,
        store: &Store,
        member: &Member,
        read_back: ReadBack,
    ) -> Result<Option<String>> {
        let recovering = store.catalogue().recovery.is_some();
        let Some(mut look) = self.look(store, member).await? else {
            return Ok(None);
        };
        let first = look.finding == Finding::First && !recovering;
        if first {
            let marked = self.mark_first(store, member, look.row, read_back).await?;
            let Some(marked) = marked else {
                return Ok(None);
            };
            look = marked;
        }
        let Look { finding, row } = look;
        let suspicion = match &finding {
            Finding::Newer { found } => Some(format!(
                "backend {} was marked by a newer state of this catalogue ({found}); where this \
                 catalogue was not restored, its marker .s3o/backend was forged or copied: \
                 `s3-orchestrator reconcile --recover` compares it with those of the other backends and \
                 writes a new one",
                member.name()
            )),
            Finding::Implausible { found } => {
                tracing::error!(
                    backend = %member.name(), %found,
                    "backend marker is implausible: somebody else wrote it; replacing it"
                );
                None
            }
            Finding::First
            | Finding::Ours
            | Finding::Missing
            | Finding::OtherBackend { .. }
            | Finding::Foreign { .. } => None,
        };
        if let Some(reason) = finding.out_of_service() {
            self.retire(member, reason);
            return Ok(None);
        }
        // A full or read-only disk takes no mark, but it can be read, and deletes make room.
        if !first
            && !recovering
            && suspicion.is_none()
            && let Err(error) = self.mark(store, member).await
        {
            let error = report(&error);
            tracing::warn!(backend = %member.name(), %error, "backend marker not written, its generation stays behind the catalogue's");
        }
        self.learn(store, member, &row).await?;
        if member.service.write().take().is_some() {
            tracing::info!(backend = %member.name(), "backend in service");
        }
        Ok(suspicion)
    }

    /// Reads a member's marker and compares it with the row; a member that does not answer is out of
    /// service.
    async fn look(&self, store: &Store, member: &Member) -> Result<Option<Look>> {
        let look = tokio::time::timeout(LOOK_MAX, member.backend().read_marker());
        let reason = match look.await {
            Ok(Ok(found)) => {
                // Behind the marker: another instance may advance both at any time, the row first.
                let row = self.row(store, member).await?;
                let finding = Mark::judge(found.as_deref(), &store.catalogue(), &row);
                let own = !matches!(finding, Finding::Foreign { .. } | Finding::Missing);
                member.seen.store(own, Ordering::Relaxed);
                return Ok(Some(Look { finding, row }));
            }
            Ok(Err(error)) => report(&error).to_string(),
            Err(_elapsed) => "no answer in time".to_owned(),
        };
        self.retire(member, OutOfService::Unreachable { reason });
        Ok(None)
    }

    /// Advances the mark, but not past the first one while the catalogue begins.
    pub(crate) async fn mark(&self, store: &Store, member: &Member) -> Result<()> {
        if self.is_beginning() {
            return Ok(());
        }
        self.mark_past(store, member, 0).await
    }

    async fn mark_past(&self, store: &Store, member: &Member, past: u64) -> Result<()> {
        let mark = store.advance_mark_past(member.id, past).await?;
        self.write_mark(store, member, mark).await
    }

    async fn write_mark(&self, store: &Store, member: &Member, mark: u64) -> Result<()> {
        let content = self.marker_text(store, member, mark);
        let written = member.backend().write_marker(content).await;
        written.map_err(|error| Error::WriteUnavailable {
            tried: Tried(vec![(member.name().clone(), error)]),
        })
    }

    fn marker_text(&self, store: &Store, member: &Member, mark: u64) -> Bytes {
        let catalogue = store.catalogue();
        let content = Mark {
            catalogue: catalogue.uuid,
            incarnation: catalogue.incarnation,
            backend: member.name().clone(),
            mark,
        };
        content.to_text().into()
    }

    /// Brings the row's mark past the one that the backend carries, and writes it: the end of a
    /// recovery. Whatever incarnation wrote the old mark, this one is the newer from now on.
    pub(crate) async fn outrun(&self, store: &Store, member: &Member) -> Result<()> {
        let found =
            member
                .backend()
                .read_marker()
                .await
                .map_err(|error| Error::ReadUnavailable {
                    tried: Tried(vec![(member.name().clone(), error)]),
                })?;
        let row = self.row(store, member).await?;
        let found = found
            .as_deref()
            .and_then(Mark::parse)
            .filter(|found| found.plausible(&row));
        self.mark_past(store, member, found.map_or(0, |found| found.mark))
            .await
    }

    async fn row(&self, store: &Store, member: &Member) -> Result<BackendRow> {
        let rows = store.backends().await?;
        rows.into_iter()
            .find(|row| row.id == member.id)
            .ok_or_else(|| {
                Error::Catalogue(metastore::Error::Damaged {
                    what: format!("the row of backend {} is gone", member.name()),
                })
            })
    }

    fn retire(&self, member: &Member, reason: OutOfService) {
        let mut service = member.service.write();
        if service.as_ref() != Some(&reason) {
            tracing::error!(backend = %member.name(), %reason, "backend out of service");
            *service = Some(reason);
        }
    }

    /// Adopts what an earlier probe found for the same place, or probes.
    async fn learn(&self, store: &Store, member: &Member, row: &BackendRow) -> Result<()> {
        let identity = member.identity();
        let kept = row
            .capabilities
            .as_deref()
            .and_then(|text| parse_found(text, &identity));
        if let Some(capabilities) = kept {
            member.backend().adopt(capabilities);
            return Ok(());
        }
        match member.backend().probe().await {
            Ok(found) => {
                tracing::info!(backend = %member.name(), ?found, "backend probed");
                store
                    .save_capabilities(member.id, print_found(&found, &identity))
                    .await?;
            }
            Err(error) => {
                let error = report(&error);
                tracing::warn!(backend = %member.name(), %error, "probe failed, using conservative capabilities");
            }
        }
        Ok(())
    }
}

type Flag = (&'static str, fn(&mut Capabilities) -> &mut bool);

const FLAGS: [Flag; 10] = [
    ("md5_etag", |c| &mut c.md5_etag),
    ("checksum_header", |c| &mut c.checksum_header),
    ("checksum_trailer", |c| &mut c.checksum_trailer),
    ("echoes_checksum", |c| &mut c.echoes_checksum),
    ("batch_delete", |c| &mut c.batch_delete),
    ("versioned", |c| &mut c.versioned),
    ("copy", |c| &mut c.copy),
    ("part_copy", |c| &mut c.part_copy),
    ("list_uploads", |c| &mut c.list_uploads),
    ("odd_keys", |c| &mut c.odd_keys),
];

/// `IDENTITY|flag flag …`
fn print_found(found: &Capabilities, identity: &str) -> String {
    let mut found = *found;
    let set: Vec<_> = FLAGS
        .iter()
        .filter(|(_, flag)| *flag(&mut found))
        .map(|(name, _)| *name)
        .collect();
    format!("{identity}|{}", set.join(" "))
}

fn parse_found(text: &str, identity: &str) -> Option<Capabilities> {
    let (kept, flags) = text.rsplit_once('|')?;
    if kept != identity {
        return None;
    }
    let mut found = Capabilities::UNKNOWN;
    for name in flags.split(' ').filter(|name| !name.is_empty()) {
        let (_, flag) = FLAGS.iter().find(|(known, _)| *known == name)?;
        *flag(&mut found) = true;
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_are_kept_for_the_place_they_were_made_at() {
        let found = Capabilities {
            md5_etag: true,
            versioned: true,
            ..Capabilities::UNKNOWN
        };
        let text = print_found(&found, "1 http://x|y bucket");
        assert_eq!(parse_found(&text, "1 http://x|y bucket"), Some(found));
        assert_eq!(parse_found(&text, "1 http://x|y other"), None);
        assert_eq!(parse_found("1 local|unheard_of", "1 local"), None);
    }
}
