//! The HTTP front: S3 for clients, and the pages that operators and probes ask for.
//!
//! A request walks one way: [`listener`] reads its head, [`Front::answer`] gives it an id and tells
//! pages and admin calls from S3, `s3` finds out what it wants and who sent it and calls the engine, `render` turns
//! the outcome into an answer. What the front refuses, it refuses before the first byte of a body
//! is read.

mod access;
mod admin;
mod admission;
mod certificate;
mod cores;
mod cors;
pub mod heads;
mod intake;
pub mod io;
pub mod listener;
mod pace;
mod pages;
mod render;
mod reply;
mod request_id;
mod s3;
mod site;
mod subject;
mod ticket;
mod tls;

use std::fmt;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwap;
use engine::Engine;
use futures_util::FutureExt as _;
use http::header::{EXPECT, HOST, ORIGIN};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, Response, Version};
use hyper::body::{Body as _, Incoming};
use s3wire::ErrorCode;
use tracing::{Instrument as _, error, info_span};

use crate::admin::is_admin;
use crate::config::{CorsRuleConfig, ServerConfig};
use crate::telemetry::log::LogControl;
use admission::Pools;
use heads::Heads;
use io::{Connection, Patience};
use pace::PaceRule;
use render::Failure;
use request_id::{HostId, RequestId};
use site::Site;
use subject::Said;
use ticket::{Purpose, Ticket};

pub use access::{Access, NoRandomness};
pub use cores::Cores;
use listener::HeadSize;
pub use listener::{Listener, Stopper};
pub use reply::{Cut, Reply};
pub use ticket::Telemetry;
pub use tls::{Tls, TlsError};

/// Everything that answers requests.
pub struct Front {
    host_id: HostId,
    engine: Engine,
    access: ArcSwap<Access>,
    pools: Pools,
    telemetry: Telemetry,
    patience: Patience,
    heads: Arc<Heads>,
    upload_pace: PaceRule,
    metrics: Option<(Door, Box<str>)>,
    domains: Vec<String>,
    log: Option<LogControl>,
    ready: AtomicBool,
}

/// Which listener a request came through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    /// The one for clients: S3, and pages beside it.
    S3,
    /// The one for operators: pages only.
    Pages,
    /// That of a process that does background work: pages, and the admin API.
    Worker,
}

/// What a front is made of.
#[derive(Debug)]
pub struct FrontParts<'a> {
    /// What does the work.
    pub engine: Engine,
    /// Who may ask for it.
    pub access: Access,
    /// Where requests are recorded.
    pub telemetry: Telemetry,
    /// The limits.
    pub server: &'a ServerConfig,
    /// Where the metrics are, if anywhere.
    pub metrics: Option<(Door, &'a str)>,
    /// The log, for its level; absent where it is not ours.
    pub log: Option<LogControl>,
}

impl Front {
    /// A front that is not ready yet.
    pub fn new(parts: FrontParts<'_>) -> Arc<Self> {
        let server = parts.server;
        Arc::new(Self {
            host_id: HostId::draw(parts.engine.ids()),
            engine: parts.engine,
            access: ArcSwap::from_pointee(parts.access),
            pools: Pools::new(server.admission),
            telemetry: parts.telemetry,
            patience: Patience {
                head: server.read_header_timeout,
                idle: server.idle_timeout,
                write: PaceRule {
                    pause_max: server.write_timeout,
                    min_rate: server.min_rate,
                },
            },
            upload_pace: PaceRule {
                pause_max: server.read_timeout,
                min_rate: server.min_rate,
            },
            heads: Arc::default(),
            metrics: parts.metrics.map(|(door, path)| (door, path.into())),
            domains: server.virtual_host_domains.clone(),
            log: parts.log,
            ready: AtomicBool::new(false),
        })
    }

    /// What `/health/ready` answers from now on.
    pub fn set_ready(&self, ready: bool) {
        self.ready.store(ready, Ordering::Relaxed);
    }

    fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Relaxed)
    }

    /// Other credentials from now on; requests that were let in stay.
    pub fn set_access(&self, access: Access) {
        self.access.store(Arc::new(access));
    }

    fn heads(&self) -> Arc<Heads> {
        Arc::clone(&self.heads)
    }

    pub(crate) fn patience(&self) -> Patience {
        self.patience
    }

    /// Answers a request, whatever happens.
    pub(crate) async fn answer(
        &self,
        door: Door,
        request: Request<Incoming>,
        head: HeadSize,
        remote: SocketAddr,
        connection: Arc<Connection>,
    ) -> Response<Reply> {
        let id = RequestId::of(request.headers(), self.engine.ids());
        let (parts, body) = request.into_parts();
        let named = self.named_bucket(door, &parts);
        let hidden = door == Door::Worker && is_admin(parts.uri.path());
        // Whoever stands in front of us may have taken it for somebody else's: it gets no page.
        let addressed = check_host(&parts).is_ok() && head == HeadSize::Fits;
        if named.is_none()
            && !hidden
            && addressed
            && let Some(page) = self.page(door, parts.uri.path(), &parts.method).await
        {
            if !body.is_end_stream() {
                connection.leave_unread();
            }
            return render::page(page, &parts.method, id.to_header(), connection);
        }
        let admin =
            addressed && door != Door::Pages && named.is_none() && is_admin(parts.uri.path());
        let purpose = match admin {
            true => Purpose::Admin,
            false => Purpose::S3,
        };
        let span = info_span!("request", request_id = id.as_str());
        let telemetry = self.telemetry.clone();
        let mut ticket = Ticket::new(
            telemetry,
            id,
            parts.method.clone(),
            parts.uri.path(),
            remote,
            purpose,
        );
        ticket.site = Site::of(&parts, connection.scheme(), named.as_deref());
        ticket.said = Said::of(&parts);
        ticket.host_id = self.host_id.clone();
        if purpose == Purpose::Admin {
            let answer = self.answer_admin(parts, body, ticket, connection);
            return Box::pin(answer).instrument(span).await;
        }
        async {
            let has_body = !body.is_end_stream();
            // An empty body is never polled, so no `100 Continue` went out, and some clients take
            // the next answer on the connection for it. They get no next answer.
            let owed_continue = !has_body && parts.headers.contains_key(EXPECT);
            let origin = parts.headers.get(ORIGIN).cloned();
            let served = self.serve(&mut ticket, parts, head, named.as_deref(), body);
            let outcome = match AssertUnwindSafe(served).catch_unwind().await {
                Ok(outcome) => outcome,
                Err(_) => {
                    error!("request handler panicked (backtrace on stderr)");
                    self.telemetry
                        .metrics
                        .panics
                        .inc([ticket.operation.unwrap_or("unknown").into()]);
                    Err(Failure::Defect)
                }
            };
            if owed_continue || (has_body && !ticket.body.ended()) {
                connection.leave_unread();
            }
            let shared = origin.and_then(|origin| self.shared(origin, &ticket));
            let mut response = match outcome {
                Ok(answer) => render::success(answer, ticket, connection),
                Err(failure) => render::failure(&failure, ticket, connection),
            };
            if let Some((rules, origin, method)) = shared {
                cors::annotate(&rules, &origin, &method, response.headers_mut());
            }
            response
        }
        .instrument(span)
        .await
    }
}

impl Front {
    /// What a client is told whose bytes are no request; perhaps because they are too many.
    fn unreadable(&self, large: bool) -> String {
        let id = RequestId::of(&HeaderMap::new(), self.engine.ids());
        render::unreadable(large, &id, &self.host_id)
    }

    /// The bucket that the request's host names, where it does.
    fn named_bucket(&self, door: Door, parts: &Parts) -> Option<String> {
        if door != Door::S3 || self.domains.is_empty() {
            return None;
        }
        // The signature covers this header: the authority of an absolute target names nothing.
        let host = parts.headers.get(HOST)?.to_str().ok()?.to_ascii_lowercase();
        s3wire::uri::host_bucket(&host, &self.domains).map(str::to_owned)
    }

    /// What a browser is told besides, where the bucket has rules for web pages and one asks. A
    /// preflight has said everything itself.
    fn shared(
        &self,
        origin: HeaderValue,
        ticket: &Ticket,
    ) -> Option<(Arc<[CorsRuleConfig]>, HeaderValue, Method)> {
        let method = ticket.method();
        let rules = self.access.load().cors(ticket.bucket.as_ref()?)?;
        (*method != Method::OPTIONS).then(|| (rules, origin, method.clone()))
    }
}

/// A request has one Host header: RFC 9112 section 3.2. Checkers of health that speak HTTP/1.0 send none.
fn check_host(parts: &Parts) -> Result<(), s3wire::Error> {
    let mut hosts = parts.headers.get_all(HOST).iter();
    match (hosts.next(), hosts.next()) {
        (Some(_), None) => Ok(()),
        (None, _) if parts.version < Version::HTTP_11 => Ok(()),
        (None, _) | (Some(_), Some(_)) => Err(s3wire::Error::new(
            ErrorCode::InvalidRequest,
            "A request has one Host header.",
        )),
    }
}

impl fmt::Debug for Front {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Front").finish_non_exhaustive()
    }
}
