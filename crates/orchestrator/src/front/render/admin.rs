//! What an admin call is answered: JSON, and status codes that are plain HTTP.

use std::sync::Arc;

use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};

use super::{account_engine, finish, show_engine};
use crate::admin::{BODY_BYTES_MAX, NoCall, answers};
use crate::front::admin::Refusal;
use crate::front::io::Connection;
use crate::front::reply::{Content, Reply};
use crate::front::ticket::Ticket;

/// The answer to an admin call.
pub(in crate::front) fn admin(
    outcome: Result<String, Refusal>,
    mut ticket: Box<Ticket>,
    connection: Arc<Connection>,
) -> Response<Reply> {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    let (status, body) = match outcome {
        Ok(answer) => (StatusCode::OK, answer),
        Err(refusal) => {
            if let Refusal::NoCall(NoCall::Method { allow }) = &refusal {
                let allow = HeaderValue::try_from(allow.as_str());
                headers.insert(ALLOW, allow.expect("methods are a header value"));
            }
            let (status, error) = show_refusal(&refusal, &ticket);
            ticket.error = Some(error.clone().into());
            let answer = serde_json::to_string(&answers::ErrorAnswer { error });
            (status, answer.expect("a text is JSON"))
        }
    };
    let content = match ticket.method() == Method::HEAD {
        true => Content::Empty,
        false => Content::Whole(body.into()),
    };
    finish(status, headers, content, ticket, connection)
}

/// Status and words for an operator, who may know the causes.
fn show_refusal(refusal: &Refusal, ticket: &Ticket) -> (StatusCode, String) {
    match refusal {
        Refusal::Off => (
            StatusCode::FORBIDDEN,
            "the admin API is off: set ui.admin_token or ui.admin_token_file and send SIGHUP"
                .into(),
        ),
        Refusal::Unauthorized => (
            StatusCode::UNAUTHORIZED,
            "unauthorized: the header X-Admin-Token must hold the server's ui.admin_token".into(),
        ),
        Refusal::NoCall(NoCall::Path) => {
            let what = format!("there is no call {}: docs/admin.md has all", ticket.path());
            (StatusCode::NOT_FOUND, what)
        }
        Refusal::NoCall(NoCall::Method { allow }) => {
            let what = format!("{} takes {allow} only", ticket.path());
            (StatusCode::METHOD_NOT_ALLOWED, what)
        }
        Refusal::Malformed(what) => (StatusCode::BAD_REQUEST, what.clone()),
        Refusal::TooLarge => {
            let what = format!("the body is larger than {} bytes", BODY_BYTES_MAX);
            (StatusCode::PAYLOAD_TOO_LARGE, what)
        }
        Refusal::NoLog => (
            StatusCode::SERVICE_UNAVAILABLE,
            "the log belongs to another part of this process: its level is set there".into(),
        ),
        Refusal::Engine(error) => {
            let failure = show_engine(error, &ticket.body).status;
            let status = StatusCode::from_u16(failure).expect("every code has a valid status");
            (status, account_engine(error, failure))
        }
        Refusal::Defect => (
            StatusCode::INTERNAL_SERVER_ERROR,
            "the handler panicked; the backtrace is on standard error".into(),
        ),
    }
}
