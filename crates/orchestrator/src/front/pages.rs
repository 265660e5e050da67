//! `/health`, `/health/ready` and the metrics.

use base::BucketName;
use engine::catalogue::Unwritable;
use http::Method;
use tracing::warn;

use super::render::Page;
use super::{Door, Front};
use crate::telemetry::metrics::Metrics;

impl Front {
    /// The page that a request at this door asks for; at the S3 door everything else is S3.
    pub(super) async fn page(&self, door: Door, path: &str, method: &Method) -> Option<Page> {
        let has_metrics = self
            .metrics
            .as_ref()
            .is_some_and(|(at, page)| *at == door && **page == *path);
        if !matches!(path, "/health" | "/health/ready") && !has_metrics {
            return match door {
                Door::S3 => None,
                Door::Pages | Door::Worker => Some(Page::Nothing),
            };
        }
        if !matches!(*method, Method::GET | Method::HEAD) {
            return Some(Page::WrongMethod);
        }
        Some(match path {
            "/health" => Page::Alive {
                reasons: self.degraded().await,
            },
            "/health/ready" if self.is_ready() => Page::Ready,
            "/health/ready" => Page::NotReady,
            _ => Page::Metrics(self.metrics_page().await),
        })
    }

    /// Whether a bucket of this name would hide behind a page of the S3 door.
    pub(super) fn is_page(&self, bucket: &BucketName) -> bool {
        self.metrics.as_ref().is_some_and(|(door, path)| {
            *door == Door::S3 && path.split('/').nth(1) == Some(bucket.as_str())
        })
    }

    /// What needs an operator. Words of a fixed list: the page needs no credentials, so it names neither
    /// files nor backends; the log does.
    async fn degraded(&self) -> Vec<&'static str> {
        let status = match self.engine.status().await {
            Ok(status) => status,
            // An overwritten catalogue is not read either.
            Err(engine::Error::Catalogue(error)) if error.is_broken() => {
                return vec!["catalogue_damaged"];
            }
            Err(_) => return vec!["catalogue_unreachable"],
        };
        let backends = &status.backends;
        let catalogue = status.unwritable.map(|why| match why {
            Unwritable::FilesGone { .. } => "catalogue_files_gone",
            Unwritable::Damaged { .. } => "catalogue_damaged",
            Unwritable::WriteFailed => "catalogue_write_failed",
        });
        let reasons = [
            catalogue,
            (status.catalogue.recovery.is_some()).then_some("catalogue_in_recovery"),
            (backends
                .iter()
                .any(|backend| backend.out_of_service.is_some()))
            .then_some("backend_out_of_service"),
            (backends.iter().any(|backend| backend.refuses_writes))
                .then_some("backend_refuses_writes"),
        ];
        reasons.into_iter().flatten().collect()
    }

    /// The metrics, with those that are only looked up when somebody asks.
    async fn metrics_page(&self) -> String {
        let metrics = &self.telemetry.metrics;
        self.engine.report_enqueued();
        match self.engine.status().await {
            Ok(status) => observe(metrics, &status),
            Err(error) => {
                let error = base::report(&error).to_string();
                warn!(error, "could not read the catalogue's metrics");
            }
        }
        metrics.render()
    }
}

fn observe(metrics: &Metrics, status: &engine::Status) {
    for backend in &status.backends {
        let name = || [backend.name.as_str().to_owned().into()];
        let room = &backend.room;
        metrics.quota_bytes_used.set(name(), room.used);
        metrics.quota_orphan_bytes.set(name(), room.orphan);
        metrics.quota_reserved_bytes.set(name(), room.reserved);
        if let Some(limit) = room.limit {
            metrics.quota_bytes_limit.set(name(), limit);
            metrics.quota_bytes_available.set(name(), room.free());
        }
        let spent = backend.usage.spent;
        metrics.usage_api_requests.set(name(), spent.requests);
        metrics.usage_egress_bytes.set(name(), spent.egress);
        metrics.usage_ingress_bytes.set(name(), spent.ingress);
        let in_service = u64::from(backend.out_of_service.is_none());
        metrics.backend_in_service.set(name(), in_service);
    }
    metrics
        .recovery_active
        .set([], u64::from(status.catalogue.recovery.is_some()));
    metrics.cleanup_queue_depth.set([], status.depth.queued);
    metrics.cleanup_dlq_depth.set([], status.depth.dead);
    metrics.pending_intents_depth.set([], status.depth.intents);
}
