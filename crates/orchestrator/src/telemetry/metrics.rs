//! The metrics, each named, described and labelled once, in the list at the end of the first half
//! of this file; the registry, the fields and `docs/metrics.md` follow from it.
//!
//! Names and labels are those that existing dashboards and alerts use. Labels take values from
//! closed lists or from the configuration, never from a request: a client cannot grow a family.

use std::borrow::Cow;
use std::fmt::{self, Write as _};
use std::hash::{Hash, Hasher};

use prometheus_client::encoding::{EncodeLabel, EncodeLabelSet, LabelSetEncoder, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// What every name begins with.
const PREFIX: &str = "s3o";

/// The content type of [`Metrics::render`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The value of a label.
pub type LabelValue = Cow<'static, str>;

/// What a metric does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricKind {
    /// It counts up.
    Counter,
    /// It shows a value.
    Gauge,
    /// It counts observations by size.
    Histogram,
}

impl MetricKind {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// One metric.
#[derive(Debug)]
pub struct Spec {
    /// The name as it is exposed, without the prefix.
    pub name: &'static str,
    /// What it does.
    pub kind: MetricKind,
    /// Its labels.
    pub labels: &'static [&'static str],
    /// Upper bounds of a histogram's buckets.
    pub buckets: &'static [f64],
    /// What it tells.
    pub help: &'static str,
}

/// Values for the labels of a family, in the order of its names.
#[derive(Debug, Clone)]
pub struct Labels<const N: usize> {
    names: &'static [&'static str],
    values: [LabelValue; N],
}

/// Within a family the names are the same.
impl<const N: usize> PartialEq for Labels<N> {
    fn eq(&self, other: &Self) -> bool {
        self.values == other.values
    }
}

impl<const N: usize> Eq for Labels<N> {}

impl<const N: usize> Hash for Labels<N> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.values.hash(state);
    }
}

impl<const N: usize> EncodeLabelSet for Labels<N> {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        for (name, value) in self.names.iter().zip(&self.values) {
            (*name, value.as_ref()).encode(encoder.encode_label())?;
        }
        Ok(())
    }
}

/// Counters with `N` labels.
#[derive(Debug)]
pub struct CounterFamily<const N: usize> {
    names: &'static [&'static str],
    family: Family<Labels<N>, Counter>,
}

/// Gauges with `N` labels.
#[derive(Debug)]
pub struct Gauges<const N: usize> {
    names: &'static [&'static str],
    family: Family<Labels<N>, Gauge>,
}

/// Histograms with `N` labels.
#[derive(Debug)]
pub struct Histograms<const N: usize> {
    names: &'static [&'static str],
    family: Family<Labels<N>, Histogram, HistogramBuckets>,
}

#[derive(Debug, Clone)]
struct HistogramBuckets(&'static [f64]);

impl MetricConstructor<Histogram> for HistogramBuckets {
    fn new_metric(&self) -> Histogram {
        Histogram::new(self.0.iter().copied())
    }
}

impl<const N: usize> CounterFamily<N> {
    fn register(registry: &mut Registry, spec: &'static Spec) -> Self {
        let family = Family::<Labels<N>, Counter>::default();
        // The encoder puts the suffix back.
        let name = spec.name.strip_suffix("_total").unwrap_or(spec.name);
        registry.register(name, help(spec), family.clone());
        let counters = Self {
            names: spec.labels,
            family,
        };
        if N == 0 {
            counters.add(std::array::from_fn(|_| Cow::Borrowed("")), 0);
        }
        counters
    }

    /// Counts one.
    pub fn inc(&self, values: [LabelValue; N]) {
        self.add(values, 1);
    }

    /// Counts several.
    pub fn add(&self, values: [LabelValue; N], by: u64) {
        self.family
            .get_or_create(&Labels {
                names: self.names,
                values,
            })
            .inc_by(by);
    }
}

impl<const N: usize> Gauges<N> {
    fn register(registry: &mut Registry, spec: &'static Spec) -> Self {
        let family = Family::<Labels<N>, Gauge>::default();
        registry.register(spec.name, help(spec), family.clone());
        let gauges = Self {
            names: spec.labels,
            family,
        };
        if N == 0 {
            gauges.set(std::array::from_fn(|_| Cow::Borrowed("")), 0);
        }
        gauges
    }

    /// Shows a value.
    pub fn set(&self, values: [LabelValue; N], value: u64) {
        let value = i64::try_from(value).unwrap_or(i64::MAX);
        self.family
            .get_or_create(&Labels {
                names: self.names,
                values,
            })
            .set(value);
    }

    /// Moves the value up until the guard is dropped.
    pub fn hold(&self, values: [LabelValue; N]) -> GaugeGuard {
        let gauge = self.family.get_or_create_owned(&Labels {
            names: self.names,
            values,
        });
        gauge.inc();
        GaugeGuard(gauge)
    }
}

/// One more in a gauge, until it is dropped.
#[derive(Debug)]
pub struct GaugeGuard(Gauge);

impl Drop for GaugeGuard {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl<const N: usize> Histograms<N> {
    fn register(registry: &mut Registry, spec: &'static Spec) -> Self {
        let family = Family::<Labels<N>, Histogram, HistogramBuckets>::new_with_constructor(
            HistogramBuckets(spec.buckets),
        );
        registry.register(spec.name, help(spec), family.clone());
        Self {
            names: spec.labels,
            family,
        }
    }

    /// Counts an observation.
    pub fn observe(&self, values: [LabelValue; N], value: f64) {
        self.family
            .get_or_create(&Labels {
                names: self.names,
                values,
            })
            .observe(value);
    }
}

/// The registry ends every help text with a full stop of its own.
fn help(spec: &Spec) -> &'static str {
    spec.help.trim_end_matches('.')
}

const REQUEST_SECONDS: &[f64] = &[
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
];
const BACKEND_SECONDS: &[f64] = &[
    0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0,
];
/// 1 KiB and up, each four times the one before.
const BODY_BYTES: &[f64] = &[
    1024.0,
    4096.0,
    16384.0,
    65536.0,
    262_144.0,
    1_048_576.0,
    4_194_304.0,
    16_777_216.0,
    67_108_864.0,
    268_435_456.0,
];

/// A macro, because a field, its registration and its row in the documentation must not differ.
macro_rules! metrics {
    ($($field:ident: $family:ident<$count:literal> = $kind:ident $name:literal
        [$($label:literal),*] $($buckets:ident)? $help:literal;)+) => {
        /// All metrics of the program.
        #[derive(Debug)]
        pub struct Metrics {
            registry: Registry,
            $(#[doc = $help] pub $field: $family<$count>,)+
        }

        /// Every metric, in the order of the documentation.
        pub static TABLE: &[Spec] = &[
            $(Spec {
                name: $name,
                kind: MetricKind::$kind,
                labels: &[$($label),*],
                buckets: metrics!(@buckets $($buckets)?),
                help: $help,
            },)+
        ];

        impl Metrics {
            /// Metrics that show nothing yet.
            pub fn new() -> Self {
                let mut registry = Registry::with_prefix(PREFIX);
                let mut specs = TABLE.iter();
                let mut next = || specs.next().expect("the table has a row per field");
                let metrics = Self {
                    $($field: $family::register(&mut registry, next()),)+
                    registry,
                };
                metrics.build_info.set([Cow::Borrowed(env!("CARGO_PKG_VERSION"))], 1);
                metrics
            }
        }
    };
    (@buckets) => { &[] };
    (@buckets $buckets:ident) => { $buckets };
}

metrics! {
    requests: CounterFamily<2> = Counter "requests_total" ["method", "status_code"]
        "HTTP requests.";
    request_duration: Histograms<1> = Histogram "request_duration_seconds" ["method"]
        REQUEST_SECONDS
        "Time from a request's head to the last byte of its answer.";
    request_size: Histograms<1> = Histogram "request_size_bytes" ["method"] BODY_BYTES
        "Bytes of request bodies, without chunk framing.";
    response_size: Histograms<1> = Histogram "response_size_bytes" ["method"] BODY_BYTES
        "Bytes of response bodies.";
    inflight_requests: Gauges<1> = Gauge "inflight_requests" ["method"]
        "Requests that are being worked on, until the last byte of the answer has left.";
    backend_requests: CounterFamily<3> = Counter "backend_requests_total"
        ["operation", "backend", "status"]
        "Calls to backends; status is success or error.";
    backend_duration: Histograms<2> = Histogram "backend_duration_seconds"
        ["operation", "backend"] BACKEND_SECONDS
        "Time until a backend answered.";
    manager_requests: CounterFamily<3> = Counter "manager_requests_total"
        ["operation", "backend", "status"]
        "Object operations; backend is empty where none was involved.";
    manager_duration: Histograms<2> = Histogram "manager_duration_seconds"
        ["operation", "backend"] BACKEND_SECONDS
        "Time that object operations took.";
    quota_bytes_used: Gauges<1> = Gauge "quota_bytes_used" ["backend"]
        "Bytes of live objects on a backend.";
    quota_bytes_limit: Gauges<1> = Gauge "quota_bytes_limit" ["backend"]
        "Quota of a backend in bytes; absent where it is unlimited.";
    quota_bytes_available: Gauges<1> = Gauge "quota_bytes_available" ["backend"]
        "Quota less used, orphan and reserved bytes; absent where the quota is unlimited.";
    quota_orphan_bytes: Gauges<1> = Gauge "quota_orphan_bytes" ["backend"]
        "Bytes on a backend that wait for their deletion.";
    quota_reserved_bytes: Gauges<1> = Gauge "quota_reserved_bytes" ["backend"]
        "Bytes that are reserved for writes and uploads under way.";
    usage_api_requests: Gauges<1> = Gauge "usage_api_requests" ["backend"]
        "Requests to a backend in this calendar month, UTC.";
    usage_egress_bytes: Gauges<1> = Gauge "usage_egress_bytes" ["backend"]
        "Bytes of objects read from a backend in this calendar month, UTC.";
    usage_ingress_bytes: Gauges<1> = Gauge "usage_ingress_bytes" ["backend"]
        "Bytes of objects written to a backend in this calendar month, UTC.";
    usage_limit_rejections: CounterFamily<2> = Counter "usage_limit_rejections_total"
        ["operation", "limit_type"]
        "Operations that monthly usage limits refused; limit_type is read or write.";
    redis_operations: CounterFamily<2> = Counter "redis_operations_total" ["operation", "status"]
        "Exchanges with Redis; operation is pipeline_add or pipeline_load, status success or error.";
    redis_fallback_active: Gauges<0> = Gauge "redis_fallback_active" []
        "1 while Redis is down, so that usage of other instances is known by the catalogue only.";
    backend_in_service: Gauges<1> = Gauge "backend_in_service" ["backend"]
        "1 where a backend is used, 0 where it is not, for example because its marker is foreign.";
    recovery_active: Gauges<0> = Gauge "recovery_active" []
        "1 while nothing may be deleted on backends because the catalogue was restored.";
    admission_rejections: CounterFamily<0> = Counter "admission_rejections_total" []
        "Requests that were refused because too many were in flight.";
    early_rejections: CounterFamily<0> = Counter "early_rejections_total" []
        "Writes that were refused for lack of room before their body was asked for.";
    write_failover: CounterFamily<3> = Counter "write_failover_total"
        ["operation", "failed_backend", "success_backend"]
        "Writes that went to another backend after one had failed.";
    cleanup_queue_enqueued: CounterFamily<1> = Counter "cleanup_queue_enqueued_total" ["reason"]
        "Copies that were queued for deletion, by this instance.";
    cleanup_queue_processed: CounterFamily<1> = Counter "cleanup_queue_processed_total" ["status"]
        "Queued deletions that were tried; status is success, success_absent, retry or exhausted.";
    cleanup_queue_depth: Gauges<0> = Gauge "cleanup_queue_depth" []
        "Deletions that wait.";
    cleanup_dlq_depth: Gauges<0> = Gauge "cleanup_dlq_depth" []
        "Deletions that failed too often and were given up.";
    pending_intents_depth: Gauges<0> = Gauge "pending_intents_depth" []
        "Writes whose outcome is not settled yet.";
    audit_events: CounterFamily<1> = Counter "audit_events_total" ["event"]
        "Lines of the audit trail.";
    auth_streaming_requests: CounterFamily<1> = Counter "auth_streaming_requests_total" ["variant"]
        "Bodies in chunks; variant is signed, signed_trailer or unsigned_trailer.";
    auth_streaming_rejections: CounterFamily<1> = Counter "auth_streaming_rejections_total" ["reason"]
        "Bodies in chunks that were refused.";
    worker_ticks: CounterFamily<2> = Counter "worker_ticks_total" ["service", "result"]
        "Steps of background workers; result is success or error.";
    worker_last_success: Gauges<1> = Gauge "worker_last_success_timestamp_seconds" ["service"]
        "When a step of a worker last succeeded, in seconds since 1970.";
    worker_consecutive_failures: Gauges<1> = Gauge "worker_consecutive_failures" ["service"]
        "Steps of a worker that failed in a row.";
    panics: CounterFamily<1> = Counter "http_panic_recovered_total" ["route"]
        "Requests whose handler panicked; they were answered with 500.";
    build_info: Gauges<1> = Gauge "build_info" ["version"]
        "Always 1; the label tells the version.";
}

impl Metrics {
    /// All metrics in the text format of OpenMetrics, which Prometheus reads.
    pub fn render(&self) -> String {
        let mut page = String::new();
        text::encode(&mut page, &self.registry).expect("a string takes every write");
        page
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

/// The page `docs/metrics.md`.
pub fn reference() -> String {
    let mut page = String::from(
        "# Metrics\n\nGenerated from `crates/orchestrator/src/telemetry/metrics.rs`; \
         `cargo xtask docs` renews it.\n\n| metric | type | labels | meaning |\n|---|---|---|---|\n",
    );
    for spec in TABLE {
        let labels: Vec<String> = spec
            .labels
            .iter()
            .map(|label| format!("`{label}`"))
            .collect();
        let mut help = spec.help.to_owned();
        if !spec.buckets.is_empty() {
            let bounds: Vec<String> = spec.buckets.iter().map(ToString::to_string).collect();
            let _ = write!(help, " Buckets: {}.", bounds.join(", "));
        }
        let _ = writeln!(
            page,
            "| `{PREFIX}_{}` | {} | {} | {help} |",
            spec.name,
            spec.kind.as_str(),
            labels.join(", "),
        );
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_appear_as_dashboards_expect_them() {
        let metrics = Metrics::new();
        metrics.requests.inc(["GET".into(), "200".into()]);
        metrics.request_duration.observe(["GET".into()], 0.02);
        let held = metrics.inflight_requests.hold(["PUT".into()]);
        let page = metrics.render();
        for line in [
            "s3o_requests_total{method=\"GET\",status_code=\"200\"} 1",
            "s3o_request_duration_seconds_bucket{le=\"0.025\",method=\"GET\"} 1",
            "s3o_inflight_requests{method=\"PUT\"} 1",
            "s3o_cleanup_queue_depth{} 0",
            "s3o_admission_rejections_total{} 0",
            concat!(
                "s3o_build_info{version=\"",
                env!("CARGO_PKG_VERSION"),
                "\"} 1"
            ),
        ] {
            assert!(page.lines().any(|found| found == line), "{line}\n{page}");
        }
        assert!(!page.contains("_total_total"));
        drop(held);
        assert!(
            metrics
                .render()
                .contains("s3o_inflight_requests{method=\"PUT\"} 0")
        );
    }

    #[test]
    fn the_reference_names_every_metric_once() {
        let page = reference();
        let mut names: Vec<&str> = TABLE.iter().map(|spec| spec.name).collect();
        for name in &names {
            assert_eq!(page.matches(&format!("`s3o_{name}`")).count(), 1, "{name}");
        }
        for spec in TABLE {
            assert_eq!(
                spec.kind == MetricKind::Counter,
                spec.name.ends_with("_total"),
                "{}",
                spec.name
            );
            assert_eq!(
                spec.kind == MetricKind::Histogram,
                !spec.buckets.is_empty(),
                "{}",
                spec.name
            );
        }
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), TABLE.len());
    }
}
