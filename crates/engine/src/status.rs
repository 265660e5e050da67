//! What an operator sees of a running engine.

use base::BackendName;
use metastore::model::{Catalogue, QueueDepth, Room, Unwritable};

use crate::fleet::{Member, OutOfService};
use crate::workers::WorkerStatus;
use crate::{Engine, Result, UsageStatus};

/// One backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackendStatus {
    /// Its name.
    pub name: BackendName,
    /// How full it is.
    pub room: Room,
    /// Why it is not used, where that is so.
    pub out_of_service: Option<OutOfService>,
    /// Whether its storage refused the last write, by being full, read-only or closed to us.
    pub refuses_writes: bool,
    /// What it was asked for this month.
    pub usage: UsageStatus,
}

/// Everything at a glance.
#[derive(Debug, Clone)]
pub struct Status {
    /// Who the catalogue is, and whether it is in recovery.
    pub catalogue: Catalogue,
    /// Why the catalogue takes no writes, where that is so.
    pub unwritable: Option<Unwritable>,
    /// The backends in the order of the configuration.
    pub backends: Vec<BackendStatus>,
    /// Rows that wait.
    pub depth: QueueDepth,
    /// The workers.
    pub workers: Vec<WorkerStatus>,
}

impl Engine {
    /// Everything at a glance, without calling a backend.
    pub async fn status(&self) -> Result<Status> {
        let inner = &self.inner;
        let members = inner.fleet.members().iter();
        let backends = members.map(|member| self.backend_status(member));
        Ok(Status {
            catalogue: inner.store.catalogue(),
            unwritable: inner.store.unwritable(),
            backends: backends.collect(),
            depth: inner.store.depth().await?,
            workers: inner.workers.status(),
        })
    }

    pub(crate) fn backend_status(&self, member: &Member) -> BackendStatus {
        BackendStatus {
            name: member.name().clone(),
            room: self.inner.store.room(member.id),
            out_of_service: member.out_of_service(),
            refuses_writes: member.refuses_writes(),
            usage: member.usage().status(),
        }
    }
}
