//! What is known of a request while it lasts; its end, however it comes, is recorded once.
//!
//! A ticket travels with the request into the answer's body and from there to the connection, which
//! lets it go when the last byte has left. So the audit line, the metrics and the admission permit
//! also settle where the client hangs up or a future is dropped.

use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use base::{BucketName, ObjectKey};
use http::Method;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use super::intake::BodyState;
use super::request_id::{HostId, RequestId};
use super::site::Site;
use super::subject::Said;
use crate::telemetry::audit::{Audit, CLIENT_GONE, RequestEvent, RequestLine};
use crate::telemetry::metrics::{GaugeGuard, LabelValue, Metrics};

/// Where requests are recorded.
#[derive(Debug, Clone)]
pub struct Telemetry {
    /// The metrics.
    pub metrics: Arc<Metrics>,
    /// The audit trail.
    pub audit: Audit,
}

/// A request that is under way.
pub(super) struct Ticket {
    telemetry: Telemetry,
    started: Instant,
    /// Its id.
    pub(super) id: RequestId,
    method: Method,
    path: Box<str>,
    remote: SocketAddr,
    /// Who answers it.
    pub(super) host_id: HostId,
    /// What its errors repeat.
    pub(super) said: Said,
    /// How its client addresses us.
    pub(super) site: Site,
    /// How it ended, as far as is known.
    pub(super) event: RequestEvent,
    /// The operation, once it was recognised.
    pub(super) operation: Option<&'static str>,
    /// The bucket, once it was recognised.
    pub(super) bucket: Option<BucketName>,
    /// The key, once it was recognised.
    pub(super) key: Option<ObjectKey>,
    /// The status that was answered.
    pub(super) status: u16,
    /// What became of the request's body.
    pub(super) body: Arc<BodyState>,
    /// Bytes of the answer's body that were handed out.
    pub(super) response_size: u64,
    /// Why it failed.
    pub(super) error: Option<Cow<'static, str>>,
    /// Its place among the requests in flight.
    pub(super) permit: Option<OwnedSemaphorePermit>,
    /// Held while a request counts among those for S3; absent where it does not.
    inflight: Option<GaugeGuard>,
}

/// What a request is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// S3: it counts in the metrics of requests.
    S3,
    /// An operator: dashboards of S3 traffic do not want it.
    Admin,
}

impl Ticket {
    /// The ticket of a request whose head has come.
    pub(super) fn new(
        telemetry: Telemetry,
        id: RequestId,
        method: Method,
        path: &str,
        remote: SocketAddr,
        purpose: Purpose,
    ) -> Box<Self> {
        let inflight = match purpose {
            Purpose::S3 => {
                let inflight = &telemetry.metrics.inflight_requests;
                Some(inflight.hold([method_label(&method)]))
            }
            Purpose::Admin => None,
        };
        Box::new(Self {
            telemetry,
            started: Instant::now(),
            id,
            method,
            path: path.into(),
            remote,
            host_id: HostId::default(),
            said: Said::default(),
            site: Site::default(),
            event: RequestEvent::InvalidRequest,
            operation: None,
            bucket: None,
            key: None,
            status: CLIENT_GONE,
            body: Arc::default(),
            response_size: 0,
            error: None,
            permit: None,
            inflight,
        })
    }

    /// The method.
    pub(super) fn method(&self) -> &Method {
        &self.method
    }

    /// The address at the other end of the connection.
    pub(super) fn peer(&self) -> IpAddr {
        self.remote.ip()
    }

    /// The path as it came over the wire.
    pub(super) fn path(&self) -> &str {
        &self.path
    }

    fn count(&self, duration: Duration, request_size: u64) {
        let metrics = &self.telemetry.metrics;
        let method = method_label(&self.method);
        metrics
            .requests
            .inc([method.clone(), status_label(self.status)]);
        metrics
            .request_duration
            .observe([method.clone()], duration.as_secs_f64());
        metrics
            .request_size
            .observe([method.clone()], as_f64(request_size));
        metrics
            .response_size
            .observe([method], as_f64(self.response_size));
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let duration = self.started.elapsed();
        let request_size = self.body.bytes();
        if self.inflight.is_some() {
            self.count(duration, request_size);
        }
        self.telemetry.audit.request(&RequestLine {
            event: self.event,
            request_id: self.id.as_str(),
            operation: self.operation,
            method: self.method.as_str(),
            path: &self.path,
            remote: self.remote,
            bucket: self.bucket.as_ref().map(BucketName::as_str),
            key: self.key.as_ref().map(ObjectKey::as_str),
            status: self.status,
            duration,
            request_size,
            response_size: self.response_size,
            error: self
                .error
                .as_deref()
                .or((self.status == CLIENT_GONE)
                    .then_some("the client went away before the answer")),
        });
    }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticket")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// Methods are a closed list in labels; clients may make up any others.
fn method_label(method: &Method) -> LabelValue {
    Cow::Borrowed(match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::PUT => "PUT",
        Method::POST => "POST",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "OTHER",
    })
}

/// The usual ones need no text of their own.
fn status_label(status: u16) -> LabelValue {
    match status {
        200 => Cow::Borrowed("200"),
        204 => Cow::Borrowed("204"),
        206 => Cow::Borrowed("206"),
        304 => Cow::Borrowed("304"),
        404 => Cow::Borrowed("404"),
        other => Cow::Owned(other.to_string()),
    }
}

/// Sizes beyond 2^53 lose digits that no histogram has.
#[expect(
    clippy::cast_precision_loss,
    reason = "a bucket is wider than the loss"
)]
fn as_f64(bytes: u64) -> f64 {
    bytes as f64
}
