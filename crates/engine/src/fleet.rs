//! The backends that this process runs with: what each is, whether it is in service, and the mark
//! that says that it is still the one the catalogue means.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use backend::{
    BodyEnd, Capabilities, GuardOptions, Guarded, LocalBackend, MemoryBackend, Meter,
    ObjectBackend, S3Backend,
};
use base::{BackendName, Clock, report};
use metastore::Store;
use metastore::model::{BackendId, BackendRow, BackendState};
use parking_lot::RwLock;

use crate::marker::{self, Finding, Mark};
use crate::observe::{Event, Observer, Outcome};
use crate::placement::{self, Candidate, Refusal};
use crate::{BackendKind, BackendSettings, Error, Result, Routing, Tried};

/// How long a look at a marker may take; what does not answer is looked at again later.
const LOOK_MAX: Duration = Duration::from_secs(10);

/// Bumped when the probe asks other questions, so that every backend is asked again.
const PROBE_VERSION: u32 = 1;

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
                 own storage, or give this one a new name",
            ),
        }
    }
}

/// One backend.
pub(crate) struct Member {
    pub(crate) id: BackendId,
    settings: BackendSettings,
    backend: Guarded,
    /// `None` is in service.
    service: RwLock<Option<OutOfService>>,
    accepts: bool,
}

impl Member {
    pub(crate) fn name(&self) -> &BackendName {
        &self.settings.name
    }

    pub(crate) fn backend(&self) -> &Guarded {
        &self.backend
    }

    /// Why it is not used, where that is so.
    pub(crate) fn out_of_service(&self) -> Option<OutOfService> {
        self.service.read().clone()
    }

    pub(crate) fn in_service(&self) -> bool {
        self.service.read().is_none()
    }

    /// The largest object that it takes, in bytes.
    pub(crate) fn object_bytes_max(&self) -> Option<u64> {
        self.settings.max_object_size.map(|size| size.0)
    }

    /// Whether looking at it costs nothing, so that it is looked at often.
    pub(crate) fn is_local(&self) -> bool {
        matches!(self.settings.kind, BackendKind::Local { .. })
    }

    /// Whether new bytes may go to it.
    pub(crate) fn takes_bytes(&self) -> bool {
        self.accepts && self.in_service()
    }

    /// What the probe's findings hold for: another endpoint or bucket is asked anew.
    fn identity(&self) -> String {
        let place = match &self.settings.kind {
            BackendKind::Local { .. } => "local".to_owned(),
            BackendKind::Memory => "memory".to_owned(),
            #[cfg(feature = "testing")]
            BackendKind::Custom(_) => "custom".to_owned(),
            BackendKind::S3(s3) => format!("{} {}", s3.endpoint, s3.bucket),
        };
        format!("{PROBE_VERSION} {place}")
    }
}

/// All backends in the order of the configuration.
pub(crate) struct Fleet {
    members: Vec<Arc<Member>>,
    routing: Routing,
}

/// What a look at a backend found, for `validate --connect`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackendCheck {
    /// Which backend.
    pub name: BackendName,
    /// What its probe found, or why it cannot be used.
    pub outcome: std::result::Result<Capabilities, String>,
}

struct Metered(Arc<dyn Observer>);

impl Meter for Metered {
    fn call(&self, call: &backend::Call<'_>) {
        let outcome = match call.outcome {
            backend::Outcome::Succeed => Outcome::Success,
            backend::Outcome::Fail(_) | backend::Outcome::Drop => Outcome::Error,
        };
        self.0.observe(Event::BackendCall {
            backend: call.backend,
            operation: call.operation,
            outcome,
            took: call.duration,
        });
    }

    fn body(&self, _end: &BodyEnd<'_>) {}
}

fn construct(
    settings: &BackendSettings,
    clock: &Arc<dyn Clock>,
) -> std::result::Result<Arc<dyn ObjectBackend>, String> {
    let name = settings.name.clone();
    Ok(match &settings.kind {
        BackendKind::Local { path } => {
            Arc::new(LocalBackend::new(name, path).map_err(|error| report(&error).to_string())?)
        }
        BackendKind::Memory => Arc::new(MemoryBackend::new(name)),
        BackendKind::S3(s3) => {
            let made = S3Backend::new(name, s3.as_ref().clone(), Arc::clone(clock));
            Arc::new(made.map_err(|error| report(&error).to_string())?)
        }
        #[cfg(feature = "testing")]
        BackendKind::Custom(backend) => Arc::clone(&backend.0),
    })
}

fn guard(
    settings: &BackendSettings,
    backend_timeout: Duration,
    clock: &Arc<dyn Clock>,
    observer: &Arc<dyn Observer>,
) -> std::result::Result<Guarded, String> {
    let options = GuardOptions {
        backend_timeout,
        body_idle_timeout: settings.body_idle_timeout,
        concurrency: usize::try_from(settings.calls_max).unwrap_or(usize::MAX),
        ..GuardOptions::DEFAULT
    };
    let meter = Arc::new(Metered(Arc::clone(observer)));
    Ok(Guarded::new(construct(settings, clock)?, options, meter))
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
        let outcome = match guard(settings, backend_timeout, clock, observer) {
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

impl Fleet {
    /// Makes the members; none is in service before [`Self::enlist`] has looked at it.
    pub(crate) fn new(
        routing: Routing,
        settings: &[BackendSettings],
        rows: &[BackendRow],
        backend_timeout: Duration,
        clock: &Arc<dyn Clock>,
        observer: &Arc<dyn Observer>,
    ) -> std::result::Result<Self, (BackendName, String)> {
        let mut members = Vec::with_capacity(settings.len());
        for (settings, row) in settings.iter().zip(rows) {
            let named = |reason| (settings.name.clone(), reason);
            let backend = guard(settings, backend_timeout, clock, observer).map_err(named)?;
            // Only the very first use makes a directory: later, one that is gone is a lost mount.
            if let BackendKind::Local { path } = &settings.kind
                && !marker::expected(row)
            {
                let made = LocalBackend::create(path);
                made.map_err(|error| named(format!("making {}: {error}", path.display())))?;
            }
            let unseen = OutOfService::Unreachable {
                reason: "not looked at yet".to_owned(),
            };
            members.push(Arc::new(Member {
                id: row.id,
                settings: settings.clone(),
                backend,
                service: RwLock::new(Some(unseen)),
                accepts: row.state == BackendState::Active,
            }));
        }
        Ok(Self { members, routing })
    }

    pub(crate) fn members(&self) -> &[Arc<Member>] {
        &self.members
    }

    pub(crate) fn member(&self, id: BackendId) -> Option<&Arc<Member>> {
        self.members.iter().find(|member| member.id == id)
    }

    /// Whether every member in service answers a PUT with the MD5 and verifies what was sent, so
    /// that nothing needs the MD5 computed here.
    pub(crate) fn all_tell_md5(&self) -> bool {
        self.members
            .iter()
            .filter(|member| member.in_service())
            .all(|member| {
                let found = member.backend.capabilities();
                found.md5_etag && found.checksum_trailer && found.checksum_header
            })
    }

    /// The members that can take `size` bytes now, best first.
    pub(crate) fn choose(&self, store: &Store, size: u64) -> Result<Vec<Arc<Member>>> {
        let candidates: Vec<_> = self
            .members
            .iter()
            .map(|member| Candidate {
                accepts: member.takes_bytes(),
                room: store.room(member.id),
                object_bytes_max: member.object_bytes_max(),
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
            Err(Refusal::NoneInService) => Err(Error::WriteUnavailable {
                tried: Tried::default(),
            }),
        }
    }

    /// Looks at a member's marker and takes it into service, or out of it. Returns what speaks for a
    /// restored catalogue, where something does.
    ///
    /// Row first, marker second: a crash between the two leaves a mark that is behind the row's,
    /// which is harmless. A mark that is ahead of the row's can only mean that the row is older.
    pub(crate) async fn enlist(&self, store: &Store, member: &Member) -> Result<Option<String>> {
        let catalogue = store.catalogue();
        let row = self.row(store, member).await?;
        let look = tokio::time::timeout(LOOK_MAX, member.backend.read_marker());
        let found = match look.await {
            Ok(Ok(found)) => found,
            Err(_elapsed) => {
                let reason = "no answer in time".to_owned();
                self.retire(member, OutOfService::Unreachable { reason });
                return Ok(None);
            }
            Ok(Err(error)) => {
                let reason = report(&error).to_string();
                self.retire(member, OutOfService::Unreachable { reason });
                return Ok(None);
            }
        };
        let finding = Mark::judge(found.as_deref(), &catalogue, &row);
        let first = finding == Finding::First;
        let suspicion = match finding {
            Finding::Missing => {
                self.retire(member, OutOfService::MarkerMissing);
                return Ok(None);
            }
            Finding::Foreign { found } => {
                self.retire(member, OutOfService::MarkerForeign { found });
                return Ok(None);
            }
            Finding::Newer { found } => Some(format!(
                "backend {} was marked by a newer state of this catalogue ({found})",
                member.name()
            )),
            Finding::First | Finding::Ours => None,
        };
        let recovering = suspicion.is_some() || catalogue.recovery.is_some();
        let marked = match (recovering, first && row.marked) {
            (true, _) => Ok(()),
            // An earlier first mark never arrived: it is written again, not advanced.
            (false, true) => self.write_mark(store, member, row.mark).await,
            (false, false) => self.mark(store, member).await,
        };
        match marked {
            Ok(()) => {}
            // Without its first marker a backend cannot be told from another one.
            Err(error) if first => {
                let reason = report(&error).to_string();
                self.retire(member, OutOfService::Unreachable { reason });
                return Ok(None);
            }
            // A full or read-only disk takes no mark, but it can be read, and deletes make room.
            Err(error) => {
                let error = report(&error);
                tracing::warn!(backend = %member.name(), %error, "mark not advanced");
            }
        }
        self.learn(store, member, &row).await?;
        if member.service.write().take().is_some() {
            tracing::info!(backend = %member.name(), "backend in service");
        }
        Ok(suspicion)
    }

    /// Advances the mark: row first, marker second.
    pub(crate) async fn mark(&self, store: &Store, member: &Member) -> Result<()> {
        self.mark_past(store, member, 0).await
    }

    async fn mark_past(&self, store: &Store, member: &Member, past: u64) -> Result<()> {
        let mark = store.advance_mark_past(member.id, past).await?;
        self.write_mark(store, member, mark).await
    }

    async fn write_mark(&self, store: &Store, member: &Member, mark: u64) -> Result<()> {
        let catalogue = store.catalogue();
        let content = Mark {
            catalogue: catalogue.uuid,
            incarnation: catalogue.incarnation,
            backend: member.name().clone(),
            mark,
        };
        let written = member.backend.write_marker(content.to_text().into()).await;
        written.map_err(|error| Error::WriteUnavailable {
            tried: Tried(vec![(member.name().clone(), error)]),
        })
    }

    /// Brings the row's mark past the one that the backend carries, and writes it: the end of a
    /// recovery. Whatever incarnation wrote the old mark, this one is the newer from now on.
    pub(crate) async fn outrun(&self, store: &Store, member: &Member) -> Result<()> {
        let found = member
            .backend
            .read_marker()
            .await
            .map_err(|error| Error::ReadUnavailable {
                tried: Tried(vec![(member.name().clone(), error)]),
            })?;
        let found = found.as_deref().and_then(Mark::parse);
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
            member.backend.adopt(capabilities);
            return Ok(());
        }
        match member.backend.probe().await {
            Ok(found) => {
                tracing::info!(backend = %member.name(), ?found, "backend probed");
                store
                    .save_capabilities(member.id, print_found(&found, &identity))
                    .await?;
            }
            Err(error) => {
                let error = report(&error);
                tracing::warn!(backend = %member.name(), %error, "probe failed, assuming little");
            }
        }
        Ok(())
    }
}

type Flag = (&'static str, fn(&mut Capabilities) -> &mut bool);

const FLAGS: [Flag; 9] = [
    ("md5_etag", |c| &mut c.md5_etag),
    ("checksum_header", |c| &mut c.checksum_header),
    ("checksum_trailer", |c| &mut c.checksum_trailer),
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
