//! The admin API: what an operator asks of the running server.
//!
//! The token is looked at before anything else: who has none does not learn which calls there are.
//! No call takes a place among the S3 requests, so that an overloaded server can still be asked what
//! is wrong with it. Bodies are read only by calls that take one.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use base::{BucketName, Month, ObjectKey, Timestamp};
use engine::catalogue::BackendState;
use engine::{BackendOverview, LocatedCopy};
use futures_util::{FutureExt as _, StreamExt as _};
use http::Response;
use http::header::EXPECT;
use http::request::Parts;
use hyper::body::{Body as _, Incoming};
use s3wire::Query;
use s3wire::sigv4::PayloadMode;
use serde::Serialize;
use tracing::{error, info};

use super::access::AdminGate;
use super::intake::{Cover, Intake};
use super::io::Connection;
use super::reply::Reply;
use super::ticket::Ticket;
use super::{Front, render};
use crate::admin::{self, AdminEntry, BODY_BYTES_MAX, Endpoint, NoCall, QUEUE_ITEMS_MAX, answers};
use crate::config::LogLevel;
use crate::telemetry::audit::RequestEvent;
use crate::telemetry::log::LogControl;

/// A call that was not carried out.
#[derive(Debug)]
pub(super) enum Refusal {
    /// There is no token.
    Off,
    /// The token is missing or wrong.
    Unauthorized,
    /// There is no such call.
    NoCall(NoCall),
    /// A parameter or the body is missing or wrong; the text says what to do.
    Malformed(String),
    /// The body is larger than it may be.
    TooLarge,
    /// The log is not this program's.
    NoLog,
    /// The engine refused or failed.
    Engine(engine::Error),
    /// A panic: a bug of the program.
    Defect,
}

impl From<engine::Error> for Refusal {
    fn from(error: engine::Error) -> Self {
        Self::Engine(error)
    }
}

impl From<s3wire::Error> for Refusal {
    fn from(error: s3wire::Error) -> Self {
        Self::Malformed(error.message.into_owned())
    }
}

impl Front {
    /// Answers an admin call, whatever happens.
    pub(super) async fn answer_admin(
        &self,
        parts: Parts,
        body: Incoming,
        mut ticket: Box<Ticket>,
        connection: Arc<Connection>,
    ) -> Response<Reply> {
        let has_body = !body.is_end_stream();
        // As for S3: a client that waits for `100 Continue` with an empty body gets no next answer.
        let owed_continue = !has_body && parts.headers.contains_key(EXPECT);
        let served = self.serve_admin(&mut ticket, parts, body);
        let outcome = match AssertUnwindSafe(served).catch_unwind().await {
            Ok(outcome) => outcome,
            Err(_) => {
                error!("admin handler panicked (backtrace on stderr)");
                self.telemetry.metrics.panics.inc(["admin".into()]);
                Err(Refusal::Defect)
            }
        };
        if owed_continue || (has_body && !ticket.body.ended()) {
            connection.leave_unread();
        }
        render::admin(outcome, ticket, connection)
    }

    async fn serve_admin(
        &self,
        ticket: &mut Ticket,
        parts: Parts,
        body: Incoming,
    ) -> Result<String, Refusal> {
        match self.access.load().admin_gate(&parts.headers) {
            AdminGate::Off => {
                ticket.event = RequestEvent::AdminDisabled;
                return Err(Refusal::Off);
            }
            AdminGate::Shut => {
                ticket.event = RequestEvent::AdminAuthFailure;
                return Err(Refusal::Unauthorized);
            }
            AdminGate::Open => ticket.event = RequestEvent::AdminInvalidRequest,
        }
        let entry = admin::find(&parts.method, parts.uri.path()).map_err(Refusal::NoCall)?;
        ticket.event = RequestEvent::Admin(entry.operation);
        ticket.operation = Some(entry.operation);
        if body.size_hint().lower() > BODY_BYTES_MAX as u64 {
            return Err(Refusal::TooLarge);
        }
        let cover = Cover {
            payload: PayloadMode::Unsigned,
            chain: None,
        };
        let body = Intake::new(
            body,
            cover,
            Arc::clone(&ticket.body),
            Arc::clone(&self.telemetry.metrics),
            self.upload_pace,
        );
        self.call(entry, &parts, body, ticket).await
    }

    async fn call(
        &self,
        entry: &AdminEntry,
        parts: &Parts,
        body: Intake,
        ticket: &mut Ticket,
    ) -> Result<String, Refusal> {
        Ok(match entry.endpoint {
            Endpoint::Status => json(&self.admin_status().await),
            Endpoint::ObjectLocations => {
                let query = Query::parse(parts.uri.query().unwrap_or(""))?;
                let (bucket, key) = object_of(&query)?;
                ticket.bucket = Some(bucket.clone());
                ticket.key = Some(key.clone());
                json(&self.object_locations(&bucket, &key).await?)
            }
            Endpoint::Workers => json(&self.admin_workers()),
            Endpoint::CleanupQueue => json(&self.cleanup_queue().await?),
            Endpoint::Instances => json(&self.instances().await?),
            Endpoint::LogLevel => json(&level_of(self.log()?)),
            Endpoint::SetLogLevel => json(&set_level(self.log()?, body).await?),
        })
    }

    async fn admin_status(&self) -> answers::StatusAnswer {
        let period = Month::of(self.engine.clock().now()).to_string();
        let seen = self.engine.overview().await;
        answers::StatusAnswer {
            db_healthy: seen.unread.is_none(),
            db_error: seen.unread.map(|error| base::report(&error).to_string()),
            usage_period: period,
            recovery: seen.catalogue.recovery,
            backends: seen.backends.iter().map(backend).collect(),
        }
    }

    async fn object_locations(
        &self,
        bucket: &BucketName,
        key: &ObjectKey,
    ) -> Result<answers::ObjectLocations, Refusal> {
        let found = self.engine.locate(bucket, key).await?;
        Ok(answers::ObjectLocations {
            key: format!("{bucket}/{key}"),
            version_id: found.object.version.to_string(),
            size_bytes: found.object.size,
            etag: found.object.etag.as_str().to_owned(),
            last_modified: s3wire::iso8601(found.object.last_modified),
            locations: found
                .copies
                .iter()
                .map(|copy| location(key, copy))
                .collect(),
        })
    }

    fn admin_workers(&self) -> answers::WorkersAnswer {
        let workers = self.engine.workers().into_iter();
        let workers = workers.map(|worker| answers::WorkerAnswer {
            name: worker.name.to_owned(),
            last_success: moment(worker.last_success),
            last_failure: moment(worker.last_failure),
            last_error: worker.last_error,
            consecutive_failures: worker.consecutive_failures,
            done: worker.done,
            standby: worker.standby,
        });
        answers::WorkersAnswer {
            workers: workers.collect(),
        }
    }

    async fn cleanup_queue(&self) -> Result<answers::CleanupQueue, Refusal> {
        let page = self.engine.cleanup_page(QUEUE_ITEMS_MAX).await?;
        let items = page
            .items
            .into_iter()
            .map(|item| answers::CleanupAnswerItem {
                id: item.id,
                backend_name: item.backend.to_string(),
                object_key: item.key.to_string(),
                reason: item.reason.as_str().to_owned(),
                attempts: item.attempts,
                size_bytes: item.bytes,
                created_at: s3wire::iso8601(item.created),
                not_before: s3wire::iso8601(item.not_before),
                last_error: item.last_error,
            });
        Ok(answers::CleanupQueue {
            depth: page.depth.queued,
            dead_letters: page.depth.dead,
            items: items.collect(),
        })
    }

    async fn instances(&self) -> Result<answers::Instances, Refusal> {
        let rows = self.engine.instances().await?;
        let instances = rows.into_iter().map(|row| answers::Instance {
            id: row.id,
            epoch: row.epoch,
            heartbeat: s3wire::iso8601(row.heartbeat),
            this: row.this,
        });
        Ok(answers::Instances {
            instances: instances.collect(),
        })
    }

    fn log(&self) -> Result<&LogControl, Refusal> {
        self.log.as_ref().ok_or(Refusal::NoLog)
    }
}

fn json(answer: &impl Serialize) -> String {
    serde_json::to_string(answer).expect("texts, numbers and lists of them are JSON")
}

fn moment(at: Option<Timestamp>) -> Option<String> {
    at.map(s3wire::iso8601)
}

fn backend(seen: &BackendOverview) -> answers::Backend {
    let (status, totals) = (&seen.status, seen.totals.as_ref());
    let room = status.room;
    answers::Backend {
        name: status.name.to_string(),
        healthy: status.out_of_service.is_none(),
        out_of_service: status.out_of_service.as_ref().map(ToString::to_string),
        draining: totals.map(|totals| totals.state == BackendState::Draining),
        bytes_used: room.used,
        bytes_limit: room.limit.unwrap_or(0),
        orphan_bytes: room.orphan,
        reserved_bytes: room.reserved,
        object_count: totals.map(|totals| totals.locations),
        api_requests: status.usage.spent.requests,
        egress_bytes: status.usage.spent.egress,
        ingress_bytes: status.usage.spent.ingress,
    }
}

fn location(key: &ObjectKey, found: &LocatedCopy) -> answers::Location {
    let copy = &found.copy;
    answers::Location {
        object_key: key.to_string(),
        backend_name: found.backend.to_string(),
        backend_key: copy.key.to_string(),
        backend_version: copy.version.clone(),
        copy_id: copy.copy.to_string(),
        blob_id: found.extent.blob.to_string(),
        size_bytes: copy.stored_bytes,
        offset: found.at,
        length: found.extent.length,
        blob_offset: found.extent.offset,
        state: copy.state.name().to_owned(),
    }
}

/// Bucket and key of the parameter `key`.
fn object_of(query: &Query<'_>) -> Result<(BucketName, ObjectKey), Refusal> {
    let malformed = |what: String| Refusal::Malformed(format!("{what}: write ?key=BUCKET/KEY"));
    let text = query.value("key")?.unwrap_or("");
    if text.is_empty() {
        return Err(malformed("the parameter key is missing".into()));
    }
    let (bucket, key) = text
        .split_once('/')
        .ok_or_else(|| malformed(format!("{text:?} is a bucket or a key, but not both")))?;
    let bucket = bucket
        .parse()
        .map_err(|error| malformed(format!("{bucket:?} is no bucket: {error}")))?;
    let key = key
        .parse()
        .map_err(|error| malformed(format!("{key:?} is no key: {error}")))?;
    Ok((bucket, key))
}

fn level_of(log: &LogControl) -> answers::LogLevelAnswer {
    answers::LogLevelAnswer {
        level: log.level().as_str().to_owned(),
    }
}

async fn set_level(log: &LogControl, body: Intake) -> Result<answers::LogLevelAnswer, Refusal> {
    let body = read(body).await?;
    let way_out = r#"write {"level": "debug"}, or info, warn or error"#;
    let wanted: answers::LogLevelAnswer = serde_json::from_slice(&body)
        .map_err(|error| Refusal::Malformed(format!("the body: {error}: {way_out}")))?;
    let level = LogLevel::from_name(&wanted.level).ok_or_else(|| {
        Refusal::Malformed(format!("there is no level {:?}: {way_out}", wanted.level))
    })?;
    log.set_level(level);
    info!(level = level.as_str(), "log level changed");
    Ok(level_of(log))
}

/// A body as a whole.
async fn read(body: Intake) -> Result<Vec<u8>, Refusal> {
    let mut pieces = body.into_reader();
    let mut whole = Vec::new();
    while let Some(piece) = pieces.next().await {
        let piece = piece.map_err(engine::Error::Body)?;
        if whole.len() + piece.len() > BODY_BYTES_MAX {
            return Err(Refusal::TooLarge);
        }
        whole.extend_from_slice(&piece);
    }
    Ok(whole)
}
