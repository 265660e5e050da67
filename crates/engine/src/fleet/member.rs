//! One backend with everything that is kept of it: guard, service, usage.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use backend::{
    BodyEnd, Effect, GuardOptions, Guarded, Kind, LocalBackend, MemoryBackend, Meter,
    ObjectBackend, S3Backend,
};
use base::{BackendName, Clock, Traffic, report};
use metastore::model::{BackendId, BackendRow, BackendState};
use parking_lot::RwLock;

use super::{OutOfService, PROBE_VERSION};
use crate::observe::{Event, Observer, Outcome};
use crate::usage::{Charge, Usage};
use crate::{BackendKind, BackendSettings};

/// One backend.
pub(crate) struct Member {
    pub(crate) id: BackendId,
    settings: BackendSettings,
    backend: Guarded,
    observer: Arc<dyn Observer>,
    usage: Arc<Usage>,
    writes: Arc<Writes>,
    /// `None` is in service.
    pub(super) service: RwLock<Option<OutOfService>>,
    /// Whether a reply to a part lacked the checksum that the probe saw in replies.
    lacked_echo: AtomicBool,
    /// Whether its last look told that it belongs to no other catalogue.
    pub(super) seen: AtomicBool,
    accepts: bool,
}

impl Member {
    /// A member that nobody has looked at yet.
    pub(super) fn new(
        settings: &BackendSettings,
        row: &BackendRow,
        backend_timeout: Duration,
        clock: &Arc<dyn Clock>,
        observer: &Arc<dyn Observer>,
    ) -> Result<Self, String> {
        let usage = Usage::new(Arc::clone(clock), settings.usage_limits);
        let writes = Arc::default();
        let backend = guard(
            settings,
            backend_timeout,
            clock,
            observer,
            (&usage, &writes),
        )?;
        let unseen = OutOfService::Unreachable {
            reason: "not looked at yet".to_owned(),
        };
        Ok(Self {
            id: row.id,
            settings: settings.clone(),
            backend,
            observer: Arc::clone(observer),
            usage,
            writes,
            service: RwLock::new(Some(unseen)),
            lacked_echo: AtomicBool::new(false),
            seen: AtomicBool::new(false),
            accepts: row.state == BackendState::Active,
        })
    }

    pub(crate) fn name(&self) -> &BackendName {
        &self.settings.name
    }

    /// The backend for calls that no limit holds back; they are counted all the same.
    pub(crate) fn backend(&self) -> &Guarded {
        &self.backend
    }

    /// The backend for one request that may move so much; `None` where the month's limits do not
    /// allow it. What is not moved in the end is free again when the last of this handle, its calls
    /// and its bodies is gone.
    pub(crate) fn admit(&self, wanted: Traffic) -> Option<Guarded> {
        let charge = self.usage.admit(wanted)?;
        Some(self.backend.metered(Arc::new(Metered {
            observer: Arc::clone(&self.observer),
            writes: Arc::clone(&self.writes),
            count: Count::Admitted(charge),
        })))
    }

    pub(crate) fn usage(&self) -> &Arc<Usage> {
        &self.usage
    }

    /// Why it is not used, where that is so.
    pub(crate) fn out_of_service(&self) -> Option<OutOfService> {
        self.service.read().clone()
    }

    pub(crate) fn in_service(&self) -> bool {
        self.service.read().is_none()
    }

    /// Whether the last write to it was refused for a reason of its own, and none has succeeded since.
    pub(crate) fn refuses_writes(&self) -> bool {
        self.writes.refused.load(Ordering::Relaxed)
    }

    /// Whether some reply lacked the checksum that the probe saw in replies, so that they prove nothing
    /// unless the MD5 is known here.
    pub(crate) fn lacked_echo(&self) -> bool {
        self.lacked_echo.load(Ordering::Relaxed)
    }

    /// Notes a reply without its checksum; whether it is the first.
    pub(crate) fn note_lack_of_echo(&self) -> bool {
        !self.lacked_echo.swap(true, Ordering::Relaxed)
    }

    /// The largest object that it takes, in bytes.
    pub(crate) fn object_bytes_max(&self) -> Option<u64> {
        self.settings.max_object_size.map(|size| size.0)
    }

    /// Whether nothing outside of this process can lead to it.
    pub(crate) fn is_memory(&self) -> bool {
        matches!(self.settings.kind, BackendKind::Memory)
    }

    /// Whether looking at it costs nothing, so that it is looked at often.
    pub(crate) fn is_local(&self) -> bool {
        matches!(self.settings.kind, BackendKind::Local { .. })
    }

    /// Whether new bytes may go to it.
    pub(crate) fn takes_bytes(&self) -> bool {
        self.accepts && self.in_service()
    }

    /// Why new bytes do not go to it, as an error of the backend's.
    pub(crate) fn refusal(&self) -> (BackendName, backend::Error) {
        let words = match self.out_of_service() {
            Some(reason) => format!("out of service, {reason}"),
            None if self.accepts => "in service again".to_owned(),
            None => "draining".to_owned(),
        };
        let name = self.name().clone();
        let error = backend::Error::new(Kind::Unavailable, Effect::None, &name, "choose");
        (name, error.with_message(words))
    }

    /// What the probe's findings hold for: another endpoint or bucket is asked anew.
    pub(super) fn identity(&self) -> String {
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

/// What the last write to a backend told: a disk that is full, or was made read-only, can still be read.
#[derive(Debug, Default)]
pub(super) struct Writes {
    refused: AtomicBool,
}

impl Writes {
    /// Takes an attempt into account.
    fn hear(&self, call: &backend::Call<'_>) {
        if !WRITES.contains(&call.operation) {
            return;
        }
        let refused = match call.outcome {
            backend::CallOutcome::Succeed => false,
            backend::CallOutcome::Fail(kind) if is_refusal(kind) => true,
            // The request's own fault, or nothing that a full or closed storage says.
            backend::CallOutcome::Fail(_) | backend::CallOutcome::Drop => return,
        };
        // Most often it is as before, and the line of memory stays with every core.
        if self.refused.load(Ordering::Relaxed) == refused
            || self.refused.swap(refused, Ordering::Relaxed) == refused
        {
            return;
        }
        let (backend, operation) = (call.backend, call.operation);
        if refused {
            tracing::error!(
                %backend, operation, outcome = ?call.outcome,
                "backend refuses writes, health is degraded until one succeeds"
            );
        } else {
            tracing::info!(%backend, "backend takes writes again");
        }
    }
}

/// Calls that store bytes.
const WRITES: [&str; 6] = [
    "put",
    "copy",
    "upload_part",
    "upload_part_copy",
    "write_marker",
    "create_marker",
];

/// Whether the storage has no space left, or admits no writes: a read-only file system, missing
/// permissions, keys that may only read.
const fn is_refusal(kind: backend::Kind) -> bool {
    matches!(kind, backend::Kind::Full | backend::Kind::Denied)
}

/// Hears of the calls of one backend, or of those of one request to it.
struct Metered {
    observer: Arc<dyn Observer>,
    writes: Arc<Writes>,
    count: Count,
}

/// Where traffic is counted.
enum Count {
    /// As what nobody asked for.
    Unasked(Arc<Usage>),
    /// As what was set aside for one request.
    Admitted(Charge),
}

impl Meter for Metered {
    fn call(&self, call: &backend::Call<'_>) {
        self.writes.hear(call);
        let outcome = match call.outcome {
            backend::CallOutcome::Succeed => Outcome::Success,
            backend::CallOutcome::Fail(_) | backend::CallOutcome::Drop => Outcome::Error,
        };
        self.observer.observe(Event::BackendCall {
            backend: call.backend,
            operation: call.operation,
            outcome,
            took: call.duration,
        });
    }

    fn body(&self, _end: &BodyEnd<'_>) {}

    fn traffic(&self, traffic: Traffic) {
        match &self.count {
            Count::Unasked(usage) => usage.count(traffic),
            Count::Admitted(charge) => charge.count(traffic),
        }
    }
}

fn construct(
    settings: &BackendSettings,
    clock: &Arc<dyn Clock>,
) -> Result<Arc<dyn ObjectBackend>, String> {
    let name = settings.name.clone();
    Ok(match &settings.kind {
        BackendKind::Local { path, shared } => {
            let made = match shared {
                true => LocalBackend::shared(name, path),
                false => LocalBackend::new(name, path),
            };
            Arc::new(made.map_err(|error| report(&error).to_string())?)
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

pub(super) fn guard(
    settings: &BackendSettings,
    backend_timeout: Duration,
    clock: &Arc<dyn Clock>,
    observer: &Arc<dyn Observer>,
    (usage, writes): (&Arc<Usage>, &Arc<Writes>),
) -> Result<Guarded, String> {
    let options = GuardOptions {
        backend_timeout,
        body_idle_timeout: settings.body_idle_timeout,
        concurrency: usize::try_from(settings.calls_max).unwrap_or(usize::MAX),
        ..GuardOptions::DEFAULT
    };
    let meter = Arc::new(Metered {
        observer: Arc::clone(observer),
        writes: Arc::clone(writes),
        count: Count::Unasked(Arc::clone(usage)),
    });
    Ok(Guarded::new(construct(settings, clock)?, options, meter))
}
