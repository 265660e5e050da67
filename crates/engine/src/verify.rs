//! `catalogue verify`: the sums, and that every location exists.

use std::sync::Arc;

use backend::{Kind, ObjectBackend as _};
use base::{BackendKey, BackendName, Clock, Ids, ObjectKey, report};
use futures_util::stream::{self, StreamExt};
use metastore::Store;
use metastore::model::{LocationRow, Verification};

use crate::fleet::Fleet;
use crate::observe::Observer;
use crate::{CataloguePlace, Engine, Settings, StartError, start};

/// Locations looked at together.
const LOCATIONS_PER_PAGE: u32 = 1000;
/// Looks at a time.
const LOOKS_AT_A_TIME: usize = 16;

/// A location that is not what its row says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocationFault {
    /// The object.
    pub object: ObjectKey,
    /// Where its bytes should be.
    pub backend: BackendName,
    /// Under which key.
    pub key: BackendKey,
    /// What is wrong.
    pub what: String,
}

/// What a verification found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// Counters and rows.
    pub sums: Verification,
    /// Locations that were looked at.
    pub locations: u64,
    /// Those that are not what their row says.
    pub faults: Vec<LocationFault>,
}

impl Verified {
    /// Whether everything is as it should be.
    pub fn is_sound(&self) -> bool {
        self.faults.is_empty()
            && self.sums.contradictions.is_empty()
            && self
                .sums
                .backends
                .iter()
                .all(metastore::model::BackendSums::exact)
    }
}

impl Engine {
    /// Verifies a catalogue that may be in use by a running server.
    pub async fn verify_catalogue(
        settings: &Settings,
        clock: Arc<dyn Clock>,
        observer: Arc<dyn Observer>,
    ) -> Result<Verified, StartError> {
        let store = match &settings.catalogue {
            CataloguePlace::File(path) => Store::open_reader(path).await?,
            // One instance more, for as long as this takes.
            place @ CataloguePlace::Server(_) => {
                let ids = Arc::new(Ids::new(Arc::clone(&clock)));
                start::open(place, Arc::clone(&clock), ids, settings.read_grace).await?
            }
        };
        let rows = store.backends().await?;
        let known = settings.backends.iter().filter_map(|backend| {
            let row = rows.iter().find(|row| row.name == backend.name)?;
            Some((backend.clone(), row.clone()))
        });
        let (backends, rows): (Vec<_>, Vec<_>) = known.unzip();
        let known = Settings {
            backends,
            ..settings.clone()
        };
        // What is asked here is not counted: only the process that serves writes usage.
        let fleet = Fleet::new(&known, &rows, &[], &clock, &observer)
            .map_err(|(name, reason)| StartError::Backend { name, reason })?;
        let sums = store.verify().await?;
        let (locations, faults) = look_at_all(&store, &fleet).await?;
        store.close().await?;
        Ok(Verified {
            sums,
            locations,
            faults,
        })
    }
}

/// Looks at every location: how many there are, and which are not what their row says.
pub(crate) async fn look_at_all(
    store: &Store,
    fleet: &Fleet,
) -> Result<(u64, Vec<LocationFault>), metastore::Error> {
    let mut after = None;
    let mut locations = 0;
    let mut faults = Vec::new();
    loop {
        let page = store.locations(after, LOCATIONS_PER_PAGE).await?;
        let Some(last) = page.last() else { break };
        after = Some(last.copy.copy);
        locations += page.len() as u64;
        let found: Vec<_> = stream::iter(page)
            .map(|row| look(fleet, row))
            .buffer_unordered(LOOKS_AT_A_TIME)
            .collect()
            .await;
        faults.extend(found.into_iter().flatten());
    }
    Ok((locations, faults))
}

async fn look(fleet: &Fleet, row: LocationRow) -> Option<LocationFault> {
    let Some(member) = fleet.member(row.copy.backend) else {
        return Some(LocationFault {
            object: row.object,
            backend: "unconfigured".parse().expect("a legal name"),
            key: row.copy.key,
            what: "its backend is not in the configuration".to_owned(),
        });
    };
    let version = row.copy.version.as_deref();
    let what = match member.backend().head(&row.copy.key, version).await {
        Ok(head) if head.size == row.copy.stored_bytes => return None,
        Ok(head) => format!(
            "it has {} bytes instead of {}",
            head.size, row.copy.stored_bytes
        ),
        Err(error) if error.kind == Kind::NotFound => "it is missing".to_owned(),
        Err(error) => report(&error).to_string(),
    };
    Some(LocationFault {
        object: row.object,
        backend: member.name().clone(),
        key: row.copy.key,
        what,
    })
}
