//! The one place that turns outcomes into HTTP answers: every status code is decided here.

mod admin;
mod unreadable;

use std::borrow::Cow;
use std::sync::Arc;

use base::{ETag, Timestamp};
use bytes::Bytes;
use engine::{BodyError, CatalogueError};
use http::header::{
    ALLOW, CONNECTION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, LAST_MODIFIED,
    RETRY_AFTER,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode};
use s3wire::xml::ErrorDocument;
use s3wire::{Error, ErrorCode};
use tracing::{error, warn};

use super::intake::BodyState;
use super::io::Connection;
use super::reply::{Content, LateEnd, Reply};
use super::subject::Subject;
use super::ticket::Ticket;
use crate::telemetry::metrics;

pub(super) use admin::admin;
pub(super) use unreadable::unreadable;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-amz-request-id");
const HOST_ID: HeaderName = HeaderName::from_static("x-amz-id-2");

/// What a read is told that every copy's monthly usage limit refuses: clients tell it from the 503 of
/// a server that is busy, because it lasts.
const LIMIT_SPENT: u16 = 429;

/// When a client that was told to slow down may come back, in seconds.
const RETRY_AFTER_S: HeaderValue = HeaderValue::from_static("1");

/// How an operation succeeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Success {
    /// All that was asked for.
    Whole,
    /// A part of an object.
    Partial,
    /// Done; there is nothing to say.
    Silent,
    /// Something new is there.
    Created,
    /// Done; the client goes on elsewhere.
    SeeOther,
}

/// A successful answer.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) success: Success,
    pub(super) headers: HeaderMap,
    pub(super) content: Content,
}

impl Answer {
    /// Headers only.
    pub(super) fn empty(headers: HeaderMap) -> Self {
        Self {
            success: Success::Whole,
            headers,
            content: Content::Empty,
        }
    }

    /// Nothing at all.
    pub(super) fn silent() -> Self {
        Self {
            success: Success::Silent,
            headers: HeaderMap::new(),
            content: Content::Empty,
        }
    }

    /// An XML document.
    pub(super) fn xml(document: String) -> Self {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, XML);
        Self {
            success: Success::Whole,
            headers,
            content: Content::Whole(document.into()),
        }
    }
}

const XML: HeaderValue = HeaderValue::from_static("application/xml");

/// A request that was not carried out.
#[derive(Debug)]
pub(super) enum Failure {
    /// The request itself is at fault.
    Wire(Error),
    /// The engine refused or failed.
    Engine(engine::Error),
    /// Too many requests are in flight.
    Busy,
    /// A panic: a bug of the program.
    Defect,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Wire(error)
    }
}

impl From<ErrorCode> for Failure {
    fn from(code: ErrorCode) -> Self {
        Self::Wire(code.into())
    }
}

impl From<engine::Error> for Failure {
    fn from(error: engine::Error) -> Self {
        Self::Engine(error)
    }
}

/// A failure as the client sees it.
#[derive(Debug)]
struct Shown {
    code: ErrorCode,
    /// The code's own, but for one answer.
    status: u16,
    message: Cow<'static, str>,
    /// Of the object that a range does not fit.
    size: Option<u64>,
    /// Of the object that was not modified.
    validators: Option<(ETag, Timestamp)>,
}

impl From<Error> for Shown {
    fn from(error: Error) -> Self {
        Self {
            code: error.code,
            status: error.code.status(),
            message: error.message,
            size: None,
            validators: None,
        }
    }
}

impl From<ErrorCode> for Shown {
    fn from(code: ErrorCode) -> Self {
        Error::from(code).into()
    }
}

fn show(failure: &Failure, body: &BodyState) -> Shown {
    match failure {
        Failure::Wire(error) => error.clone().into(),
        Failure::Busy => ErrorCode::SlowDown.into(),
        Failure::Defect => ErrorCode::InternalError.into(),
        Failure::Engine(error) => show_engine(error, body),
    }
}

fn show_engine(error: &engine::Error, body: &BodyState) -> Shown {
    let with = |code: ErrorCode, message: String| Shown::from(Error::new(code, message));
    match error {
        engine::Error::NoSuchBucket => ErrorCode::NoSuchBucket.into(),
        engine::Error::BucketExists { in_use: true } => ErrorCode::BucketAlreadyOwnedByYou.into(),
        engine::Error::BucketExists { in_use: false } => ErrorCode::BucketAlreadyExists.into(),
        engine::Error::BucketNotEmpty => ErrorCode::BucketNotEmpty.into(),
        engine::Error::BucketOfConfig => with(
            ErrorCode::AccessDenied,
            "This bucket belongs to the configuration and is removed there.".into(),
        ),
        engine::Error::NoSuchKey => ErrorCode::NoSuchKey.into(),
        engine::Error::NoSuchUpload => ErrorCode::NoSuchUpload.into(),
        engine::Error::PreconditionFailed => ErrorCode::PreconditionFailed.into(),
        engine::Error::NotModified {
            etag,
            last_modified,
        } => Shown {
            validators: Some((etag.clone(), *last_modified)),
            ..ErrorCode::NotModified.into()
        },
        engine::Error::InvalidRange { size } => Shown {
            size: Some(*size),
            ..ErrorCode::InvalidRange.into()
        },
        engine::Error::NoSuchPart => ErrorCode::InvalidPartNumber.into(),
        engine::Error::WrongObjectSize { size } => with(
            ErrorCode::InvalidRequest,
            format!("The parts add up to {size} bytes, not to what x-amz-mp-object-size says."),
        ),
        engine::Error::InvalidPart { .. } => ErrorCode::InvalidPart.into(),
        engine::Error::InvalidPartOrder => ErrorCode::InvalidPartOrder.into(),
        engine::Error::PartTooSmall { .. } => ErrorCode::EntityTooSmall.into(),
        engine::Error::TooLarge { .. } => ErrorCode::EntityTooLarge.into(),
        engine::Error::SourceTooLarge => with(
            ErrorCode::InvalidRequest,
            format!(
                "The specified copy source is larger than the maximum allowable size for a copy source: {}",
                engine::COPY_BYTES_MAX
            ),
        ),
        engine::Error::Body(ended) => match (ended, body.reject()) {
            (BodyError::Refused, Some(reject)) => Error::from(reject).into(),
            (BodyError::Refused, None) => ErrorCode::InvalidRequest.into(),
            (BodyError::Short | BodyError::Long, _) => ErrorCode::IncompleteBody.into(),
            (BodyError::Stalled, _) => ErrorCode::RequestTimeout.into(),
        },
        engine::Error::BadDigest {
            digest: "Content-MD5",
        } => ErrorCode::BadDigest.into(),
        engine::Error::BadDigest { digest } => {
            // Amazon S3 names the algorithm, not its header.
            let algorithm = digest.strip_prefix("x-amz-checksum-");
            let named = algorithm.map_or_else(|| (*digest).to_owned(), str::to_ascii_uppercase);
            with(
                ErrorCode::BadDigest,
                format!("The {named} you specified did not match the calculated checksum."),
            )
        }
        engine::Error::PayloadMismatch => ErrorCode::XAmzContentSha256Mismatch.into(),
        engine::Error::BadTrailer => ErrorCode::MalformedTrailer.into(),
        engine::Error::ChecksumMismatch => with(
            ErrorCode::InvalidRequest,
            "The checksum does not fit the one that the upload was created with.".into(),
        ),
        engine::Error::PartWithoutChecksum { algorithm, number } => with(
            ErrorCode::InvalidRequest,
            format!(
                "The upload was created using a {} checksum. The complete request must include the checksum for each part. It was missing for part {number} in the request.",
                algorithm.as_str().to_ascii_lowercase()
            ),
        ),
        engine::Error::NoRoom { .. } => ErrorCode::InsufficientStorage.into(),
        engine::Error::WriteLimited { .. } => with(
            ErrorCode::InsufficientStorage,
            "The monthly usage limits leave no backend for the object.".into(),
        ),
        engine::Error::ReadLimited => Shown {
            status: LIMIT_SPENT,
            ..with(
                ErrorCode::SlowDown,
                "The monthly usage limits of every copy's backend are spent.".into(),
            )
        },
        engine::Error::TooManyUploads => with(
            ErrorCode::SlowDown,
            "The bucket has too many open multipart uploads.".into(),
        ),
        engine::Error::Conflict => ErrorCode::OperationAborted.into(),
        engine::Error::AbsenceUnknown { .. }
        | engine::Error::WriteUnavailable { .. }
        | engine::Error::ReadUnavailable { .. }
        | engine::Error::TimedOut { .. } => ErrorCode::ServiceUnavailable.into(),
        engine::Error::Corrupt => ErrorCode::InternalError.into(),
        engine::Error::Catalogue(error) => show_catalogue(error),
    }
}

fn show_catalogue(error: &CatalogueError) -> Shown {
    match error {
        CatalogueError::NoRoom { .. } | CatalogueError::Full { .. } => {
            ErrorCode::InsufficientStorage
        }
        CatalogueError::IntentGone { .. }
        | CatalogueError::Unavailable { .. }
        | CatalogueError::Database { .. }
        | CatalogueError::Gone { .. }
        | CatalogueError::Broken { .. }
        | CatalogueError::Corrupt { .. }
        | CatalogueError::Closed => ErrorCode::ServiceUnavailable,
        CatalogueError::InUse { .. }
        | CatalogueError::TooNew { .. }
        | CatalogueError::Foreign { .. }
        | CatalogueError::Missing { .. }
        | CatalogueError::Retired { .. }
        | CatalogueError::Occupied { .. }
        | CatalogueError::File { .. }
        | CatalogueError::Damaged { .. } => ErrorCode::InternalError,
    }
    .into()
}

/// Code and message of a failure, where it is one entry among others.
pub(super) fn describe(failure: &Failure, body: &BodyState) -> (&'static str, String) {
    let shown = show(failure, body);
    (shown.code.as_str(), shown.message.into_owned())
}

/// What the log tells of a failure; our own faults come with their causes.
fn account(failure: &Failure, shown: &Shown) -> String {
    let code = shown.code.as_str();
    match failure {
        Failure::Wire(_) | Failure::Busy | Failure::Defect => format!("{code}: {}", shown.message),
        Failure::Engine(error) => format!("{code}: {}", account_engine(error, shown.status)),
    }
}

/// The causes of a failure of the engine; ours are logged.
fn account_engine(error: &engine::Error, status: u16) -> String {
    let report = base::report(error).to_string();
    match status {
        500 => error!(error = report, "request failed"),
        501.. => warn!(error = report, "request failed"),
        _ => {}
    }
    report
}

/// The error in the body of an answer whose status has gone out already.
pub(super) fn late_failure(failure: &Failure, body: &BodyState, subject: Subject) -> LateEnd {
    let shown = show(failure, body);
    let error = account(failure, &shown);
    LateEnd {
        document: document(subject, shown).to_xml(),
        error: Some(error),
    }
}

fn document(subject: Subject, shown: Shown) -> ErrorDocument {
    subject.document(shown.code, shown.message.into_owned(), shown.size)
}

/// The answer to a request that was carried out.
pub(super) fn success(
    answer: Answer,
    ticket: Box<Ticket>,
    connection: Arc<Connection>,
) -> Response<Reply> {
    let status = match answer.success {
        Success::Whole => StatusCode::OK,
        Success::Partial => StatusCode::PARTIAL_CONTENT,
        Success::Silent => StatusCode::NO_CONTENT,
        Success::Created => StatusCode::CREATED,
        Success::SeeOther => StatusCode::SEE_OTHER,
    };
    finish(status, answer.headers, answer.content, ticket, connection)
}

/// The answer to a request that was not carried out.
pub(super) fn failure(
    failure: &Failure,
    mut ticket: Box<Ticket>,
    connection: Arc<Connection>,
) -> Response<Reply> {
    let shown = show(failure, &ticket.body);
    ticket.error = Some(account(failure, &shown).into());
    let status = StatusCode::from_u16(shown.status).expect("every code has a valid status");
    let mut headers = HeaderMap::new();
    if let Some(size) = shown.size {
        let value = HeaderValue::try_from(format!("bytes */{size}"));
        headers.insert(CONTENT_RANGE, value.expect("digits are a header value"));
    }
    if let Some((etag, last_modified)) = &shown.validators {
        put_validators(&mut headers, etag, *last_modified);
    }
    match shown.code {
        ErrorCode::MethodNotAllowed => {
            headers.insert(
                ALLOW,
                HeaderValue::from_static("GET, HEAD, PUT, POST, DELETE"),
            );
        }
        _ if matches!(shown.status, 429 | 503) => {
            headers.insert(RETRY_AFTER, RETRY_AFTER_S);
        }
        _ => {}
    }
    let bare = ticket.method() == Method::HEAD || status == StatusCode::NOT_MODIFIED;
    let content = match bare {
        true => Content::Empty,
        false => {
            headers.insert(CONTENT_TYPE, XML);
            Content::Whole(document(Subject::of(&ticket), shown).to_xml().into())
        }
    };
    finish(status, headers, content, ticket, connection)
}

/// `ETag` and `Last-Modified`.
pub(super) fn put_validators(headers: &mut HeaderMap, etag: &ETag, last_modified: Timestamp) {
    // A tag that no header can carry came from a backend's import; leaving it out is all we can do.
    if let Ok(value) = HeaderValue::try_from(etag.quoted()) {
        headers.insert(ETAG, value);
    }
    let date = HeaderValue::try_from(s3wire::http_date(last_modified));
    headers.insert(LAST_MODIFIED, date.expect("a date is a header value"));
}

fn finish(
    status: StatusCode,
    mut headers: HeaderMap,
    content: Content,
    mut ticket: Box<Ticket>,
    connection: Arc<Connection>,
) -> Response<Reply> {
    ticket.status = status.as_u16();
    headers.insert(REQUEST_ID, ticket.id.to_header());
    headers.insert(HOST_ID, ticket.host_id.to_header());
    if connection.is_unread() {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    let mut response = Response::new(Reply::new(content, Some(ticket), connection));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

/// Pages beside S3: they have no ticket.
#[derive(Debug)]
pub(super) enum Page {
    /// `/health`
    Alive {
        /// What needs an operator: `degraded` for these reasons, `ok` without any.
        reasons: Vec<&'static str>,
    },
    /// `/health/ready` while requests are welcome.
    Ready,
    /// `/health/ready` before and after.
    NotReady,
    /// The metrics.
    Metrics(String),
    /// Another method than GET and HEAD.
    WrongMethod,
    /// No such page.
    Nothing,
}

/// Renders a page.
pub(super) fn page(
    page: Page,
    method: &Method,
    id: HeaderValue,
    connection: Arc<Connection>,
) -> Response<Reply> {
    let json = |status: &str| (format!("{{\"status\":\"{status}\"}}"), "application/json");
    let (status, (body, kind)) = match page {
        Page::Alive { reasons } if reasons.is_empty() => (StatusCode::OK, json("ok")),
        Page::Alive { reasons } => {
            let text = format!(r#"{{"status":"degraded","reasons":{reasons:?}}}"#);
            (StatusCode::OK, (text, "application/json"))
        }
        Page::Ready => (StatusCode::OK, json("ready")),
        Page::NotReady => (StatusCode::SERVICE_UNAVAILABLE, json("not ready")),
        Page::Metrics(text) => (StatusCode::OK, (text, metrics::CONTENT_TYPE)),
        Page::WrongMethod => (
            StatusCode::METHOD_NOT_ALLOWED,
            ("GET and HEAD only\n".into(), "text/plain"),
        ),
        Page::Nothing => (
            StatusCode::NOT_FOUND,
            ("no such page\n".into(), "text/plain"),
        ),
    };
    let length = body.len();
    let content = match method == Method::HEAD {
        true => Content::Empty,
        false => Content::Whole(Bytes::from(body)),
    };
    let mut response = Response::new(Reply::new(content, None, connection));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    headers.insert(REQUEST_ID, id);
    response
}
