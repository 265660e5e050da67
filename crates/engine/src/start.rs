//! Start and stop.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base::{BackendName, Clock, Ids, Month, report};
use futures_util::future::join_all;
use metastore::{ConnectOptions, OpenOptions, Server, Store};
use tokio::sync::watch;
use uuid::Uuid;

use crate::buckets::Buckets;
use crate::fleet::{self, BackendCheck, Fleet, ReadBack};
use crate::get::Reads;
use crate::marker;
use crate::marker::CATALOGUE_MISSING;
use crate::multipart::{Completing, Doubts};
use crate::observe::Observer;
use crate::usage::{Book, Entry, Sharing};
use crate::workers::{self, Bells, Workers};
use crate::{CataloguePlace, Engine, Inner, Settings};

/// How long a clean stop waits for the last marks.
const STOP_MARK_MAX: Duration = Duration::from_secs(5);

/// Why the engine cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The catalogue cannot be opened.
    #[error("opening the catalogue")]
    Catalogue(#[from] metastore::Error),
    /// A backend's settings make no backend.
    #[error("backend {name}: {reason}")]
    Backend {
        /// Which.
        name: BackendName,
        /// Why.
        reason: String,
    },
    /// The catalogue knows bytes on backends that the configuration does not name.
    #[error(
        "the configuration lacks {} although the catalogue has rows for it; \
         add it to backends again (a renamed backend keeps its old name in the catalogue)",
        list(.missing)
    )]
    BackendsMissing {
        /// Which, with the number of rows that name it.
        missing: Vec<(BackendName, u64)>,
    },
    /// A catalogue was about to begin on backends that belong to another one.
    #[error(
        "no catalogue is begun: {}, so {}",
        taken_by(.taken),
        CATALOGUE_MISSING
    )]
    BackendsTaken {
        /// Which, with the catalogue that each belongs to.
        taken: Vec<(BackendName, Uuid)>,
    },
    /// A backup is the database's own business.
    #[error(
        "the catalogue {address} is backed up with the tools of PostgreSQL, such as pg_dump; \
         docs/deployment.md says how, and what to do after a restore"
    )]
    BackupByServer {
        /// Where it is.
        address: String,
    },
}

fn list(missing: &[(BackendName, u64)]) -> String {
    let one = |(name, rows): &(BackendName, u64)| format!("backend {name} ({rows} rows)");
    missing.iter().map(one).collect::<Vec<_>>().join(", ")
}

fn taken_by(taken: &[(BackendName, Uuid)]) -> String {
    let one = |(name, owner): &(BackendName, Uuid)| {
        format!("backend {name} belongs to the catalogue {owner}")
    };
    taken.iter().map(one).collect::<Vec<_>>().join(", ")
}

impl Engine {
    /// Opens the catalogue, as its one writing process or as one of its instances, and looks at every
    /// backend.
    ///
    /// A backend that cannot be reached does not prevent the start; it is out of service until it
    /// answers. Of a new catalogue nothing is said to be absent before each has answered once.
    pub async fn start(
        settings: Settings,
        clock: Arc<dyn Clock>,
        ids: Arc<Ids>,
        observer: Arc<dyn Observer>,
    ) -> Result<Self, StartError> {
        let exists = match &settings.catalogue {
            CataloguePlace::File(path) => path.exists(),
            CataloguePlace::Server(_) => true,
        };
        if !exists {
            refuse_taken(&settings, None, &clock, &observer).await?;
        }
        let store = open(
            &settings.catalogue,
            Arc::clone(&clock),
            Arc::clone(&ids),
            settings.read_grace,
        )
        .await?;
        // One that was made and has never marked a backend is as new as one that is missing.
        if exists && let Err(error) = refuse_new(&store, &settings, &clock, &observer).await {
            store.close().await?;
            return Err(error);
        }
        match Self::assemble_from(store.clone(), settings, clock, ids, observer).await {
            Ok(engine) => Ok(engine),
            Err(error) => {
                store.close().await?;
                Err(error)
            }
        }
    }

    async fn assemble_from(
        store: Store,
        settings: Settings,
        clock: Arc<dyn Clock>,
        ids: Arc<Ids>,
        observer: Arc<dyn Observer>,
    ) -> Result<Self, StartError> {
        let missing = missing_backends(&store, &settings).await?;
        if !missing.is_empty() {
            return Err(StartError::BackendsMissing { missing });
        }
        let names: Vec<_> = settings
            .buckets
            .iter()
            .map(|(name, _)| name.clone())
            .collect();
        let mut buckets = store.ensure_buckets(&names).await?;
        buckets.extend(store.client_buckets().await?);
        let names: Vec<_> = settings.backends.iter().map(|b| b.name.clone()).collect();
        let rows = store.ensure_backends(&names).await?;
        for (backend, row) in settings.backends.iter().zip(&rows) {
            store.set_limit(row.id, backend.quota.map(|quota| quota.0));
        }
        let usage = store.usage(Month::of(clock.now())).await?;
        let fleet = Fleet::new(&settings, &rows, &usage, &clock, &observer)
            .map_err(|(name, reason)| StartError::Backend { name, reason })?;
        let workers = Workers::new(workers::all(&settings));
        let entry = |member: &Arc<fleet::Member>| Entry {
            id: member.id,
            name: member.name().clone(),
            usage: Arc::clone(member.usage()),
        };
        let entries = fleet.members().iter().map(entry).collect();
        let sharing = settings.redis.as_ref().map(|redis| {
            let instance = ids.uuid().to_string();
            Sharing::new(instance, redis, Arc::clone(&observer))
        });
        let usage = Book::new(store.clone(), Arc::clone(&clock), entries, sharing);
        let bells = Bells::new(&store, settings.read_grace);
        let engine = Self {
            inner: Arc::new(Inner {
                store,
                fleet,
                buckets: Buckets::new(buckets),
                settings,
                clock,
                ids,
                observer,
                reads: Reads::default(),
                bells,
                completing: Completing::default(),
                doubts: Doubts::default(),
                usage,
                workers,
            }),
        };
        engine.enlist_all().await?;
        Ok(engine)
    }

    /// Looks at all backends at once.
    async fn enlist_all(&self) -> Result<(), StartError> {
        let inner = &self.inner;
        let rows = inner.store.backends().await?;
        let looks = inner.fleet.members().iter().map(|member| async move {
            let read_back = ReadBack::AfterAll;
            let look = inner.fleet.enlist(&inner.store, member, read_back);
            (member, look.await)
        });
        for (member, look) in join_all(looks).await {
            match look {
                Ok(Some(reason)) => inner.store.suspect_restored(reason).await?,
                Ok(None) => {}
                Err(error) => {
                    let error = report(&error);
                    tracing::error!(backend = %member.name(), %error, "backend not looked at");
                }
            }
        }
        let recovery = inner.store.catalogue().recovery;
        if recovery.is_none() {
            let unmarked = |member: &&Arc<fleet::Member>| {
                let row = rows.iter().find(|row| row.id == member.id);
                let fresh = row.is_none_or(|row| !marker::expected(row));
                fresh && member.in_service() && !member.is_memory()
            };
            let fresh = inner.fleet.members().iter().filter(unmarked);
            let looks = fresh.map(|member| async move {
                (
                    member,
                    inner.fleet.confirm_first(&inner.store, member).await,
                )
            });
            for (member, look) in join_all(looks).await {
                if let Err(error) = look {
                    let error = report(&error);
                    tracing::error!(backend = %member.name(), %error, "first marker not read back");
                }
            }
        }
        if let Err(error) = inner.fleet.conclude_beginning(&inner.store).await {
            tracing::error!(error = %report(&error), "beginning of the catalogue not ended");
        }
        if let Some(reason) = recovery {
            tracing::error!(
                %reason,
                "this catalogue was restored: nothing is deleted on backends until \
                 `s3-orchestrator reconcile --recover` has run"
            );
        }
        Ok(())
    }

    /// Runs the background workers until `stop` holds `true`.
    pub async fn run_workers(&self, stop: watch::Receiver<bool>) {
        self.inner.workers.run(self, stop).await;
    }

    /// Runs the workers' steps now, until none has anything to do, at most so many times.
    pub async fn settle(&self, rounds_max: u32) {
        self.inner.workers.settle(self, rounds_max).await;
    }

    /// Marks the backends a last time, writes the last usage and closes the catalogue. No verb may run any more.
    pub async fn stop(&self) -> Result<(), StartError> {
        let inner = &self.inner;
        let calm = inner.store.catalogue().recovery.is_none();
        let marks = inner
            .fleet
            .members()
            .iter()
            .filter(|member| calm && member.in_service());
        let marks = marks.map(|member| async move {
            let mark = inner.fleet.mark(&inner.store, member);
            (member, tokio::time::timeout(STOP_MARK_MAX, mark).await)
        });
        for (member, marked) in join_all(marks).await {
            if !matches!(marked, Ok(Ok(()))) {
                tracing::warn!(backend = %member.name(), "last marker not written");
            }
        }
        // The last marks were requests too.
        if let Err(error) = inner.usage.close().await {
            tracing::warn!(error = %report(&error), "could not flush the last usage");
        }
        let closed = inner.store.close().await;
        self.report_enqueued();
        Ok(closed?)
    }

    /// Sets the recovery state of a catalogue that is known to be restored.
    pub async fn declare_restored(
        catalogue: &CataloguePlace,
        clock: Arc<dyn Clock>,
        ids: Arc<Ids>,
    ) -> Result<(), StartError> {
        if let CataloguePlace::File(path) = catalogue
            && !path.exists()
        {
            let path = path.clone();
            return Err(metastore::Error::Missing { path }.into());
        }
        let store = open(catalogue, clock, ids, Duration::ZERO).await?;
        store
            .enter_recovery("declared by `catalogue restored`".to_owned())
            .await?;
        store.close().await?;
        Ok(())
    }

    /// Copies a catalogue that may be in use to a new file.
    ///
    /// # Errors
    /// [`StartError::BackupByServer`] where it is not in files.
    pub async fn backup_catalogue(
        catalogue: &CataloguePlace,
        to: &Path,
        ids: &Ids,
    ) -> Result<(), StartError> {
        match catalogue {
            CataloguePlace::File(path) => Ok(Store::backup(path, to, ids).await?),
            CataloguePlace::Server(server) => Err(StartError::BackupByServer {
                address: server.address(),
            }),
        }
    }

    /// Looks at every backend of the settings without a catalogue: whether it answers, and what its
    /// probe finds.
    pub async fn check_backends(
        settings: &Settings,
        clock: Arc<dyn Clock>,
        observer: Arc<dyn Observer>,
    ) -> Vec<BackendCheck> {
        fleet::check_all(
            &settings.backends,
            settings.backend_timeout,
            &clock,
            &observer,
        )
        .await
    }
}

/// Opens the catalogue, whatever holds it.
pub(crate) async fn open(
    catalogue: &CataloguePlace,
    clock: Arc<dyn Clock>,
    ids: Arc<Ids>,
    read_grace: Duration,
) -> Result<Store, metastore::Error> {
    match catalogue {
        CataloguePlace::File(path) => {
            Store::open(OpenOptions {
                path: path.clone(),
                clock,
                ids,
                read_grace,
            })
            .await
        }
        CataloguePlace::Server(server) => {
            Store::connect(ConnectOptions {
                server: Server::clone(server),
                clock,
                ids,
                read_grace,
            })
            .await
        }
    }
}

/// Refuses a catalogue that has never used a backend where the backends belong to another one.
async fn refuse_new(
    store: &Store,
    settings: &Settings,
    clock: &Arc<dyn Clock>,
    observer: &Arc<dyn Observer>,
) -> Result<(), StartError> {
    if store.backends().await?.iter().any(|row| row.marked) {
        return Ok(());
    }
    let own = store.catalogue().uuid;
    refuse_taken(settings, Some(own), clock, observer).await
}

/// Refuses to begin a catalogue where a backend belongs to another one: every object there would be
/// unknown to it, and answered with 404. One that cannot be looked at keeps nothing from beginning:
/// until it has told whose it is, nothing is answered with 404 ([`Engine::knows_absence`]).
async fn refuse_taken(
    settings: &Settings,
    own: Option<Uuid>,
    clock: &Arc<dyn Clock>,
    observer: &Arc<dyn Observer>,
) -> Result<(), StartError> {
    let mut taken = fleet::owners(settings, clock, observer).await;
    taken.retain(|(_, owner)| own != Some(*owner));
    if taken.is_empty() {
        return Ok(());
    }
    Err(StartError::BackendsTaken { taken })
}

/// Backends with rows that the configuration does not name.
async fn missing_backends(
    store: &Store,
    settings: &Settings,
) -> Result<Vec<(BackendName, u64)>, StartError> {
    let known = store.backends().await?;
    let configured = |name: &BackendName| settings.backends.iter().any(|b| b.name == *name);
    let missing = known
        .into_iter()
        .filter(|row| row.rows > 0 && !configured(&row.name));
    Ok(missing.map(|row| (row.name, row.rows)).collect())
}
