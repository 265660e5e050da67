//! Answers that are begun before their outcome is known.
//!
//! Clients and proxies give up on connections that stay silent. Work that may take long has a few
//! seconds to fail with a status of its own; from then on the answer is a 200 that is kept alive by
//! blanks, and ends in the result or in an error document.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::time::timeout;

use super::super::intake::BodyState;
use super::super::render::{Answer, Failure, late_failure};
use super::super::reply::{Content, Late, LateEnd};
use super::super::subject::Subject;
use super::super::ticket::Ticket;

/// How long the work may take before the answer is begun without knowing its outcome.
const SILENCE_MAX: Duration = Duration::from_secs(4);

/// Answers with the document that comes out of the work.
pub(super) async fn in_time(
    work: impl Future<Output = Result<String, Failure>> + Send + 'static,
    ticket: &Ticket,
) -> Result<Answer, Failure> {
    let mut work = Box::pin(work);
    if let Ok(outcome) = timeout(SILENCE_MAX, &mut work).await {
        return outcome.map(Answer::xml);
    }
    let subject = Subject::of(ticket);
    let state = Arc::clone(&ticket.body);
    let mut answer = Answer::xml(String::new());
    answer.content = Content::Late(Late::new(Box::pin(finish(work, subject, state))));
    Ok(answer)
}

/// A panic of the work is its outcome: the answer that was begun must end.
async fn finish(
    work: impl Future<Output = Result<String, Failure>>,
    subject: Subject,
    state: Arc<BodyState>,
) -> LateEnd {
    let outcome = AssertUnwindSafe(work).catch_unwind().await;
    match outcome.unwrap_or(Err(Failure::Defect)) {
        Ok(document) => LateEnd {
            document,
            error: None,
        },
        Err(failure) => late_failure(&failure, &state, subject),
    }
}

#[cfg(test)]
mod tests {
    use base::{Ids, ManualClock};
    use http::{HeaderMap, Method};
    use http_body_util::BodyExt as _;
    use s3wire::ErrorCode;
    use tokio::time::sleep;

    use super::super::super::io::Connection;
    use super::super::super::reply::Reply;
    use super::super::super::request_id::RequestId;
    use super::super::super::site::Scheme;
    use super::super::super::ticket::{Purpose, Telemetry};
    use super::*;
    use crate::telemetry::audit::Audit;
    use crate::telemetry::metrics::Metrics;

    fn ticket() -> Box<Ticket> {
        let metrics = Arc::new(Metrics::new());
        let audit = Audit::new(Arc::clone(&metrics));
        let ids = Ids::seeded(Arc::new(ManualClock::at(0)), 1);
        let id = RequestId::of(&HeaderMap::new(), &ids);
        let remote = "127.0.0.1:1".parse().unwrap();
        let telemetry = Telemetry { metrics, audit };
        Ticket::new(telemetry, id, Method::PUT, "/b/k", remote, Purpose::S3)
    }

    async fn after(pause: Duration, outcome: Result<&str, ErrorCode>) -> Result<String, Failure> {
        sleep(pause).await;
        outcome.map(str::to_owned).map_err(Failure::from)
    }

    async fn document(answer: Answer) -> String {
        let reply = Reply::new(
            answer.content,
            None,
            Connection::new(Scheme::Http, Arc::default()),
        );
        let bytes = reply.collect().await.unwrap().to_bytes();
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_known_soon_has_its_own_status_and_what_is_late_ends_a_200() {
        let ticket = ticket();
        let (soon, late) = (SILENCE_MAX / 2, SILENCE_MAX * 10);
        let gone = ErrorCode::NoSuchKey;
        let refused = in_time(after(soon, Err(gone)), &ticket).await;
        assert!(matches!(refused, Err(Failure::Wire(error)) if error.code == gone));
        let done = in_time(after(soon, Ok("<Done/>")), &ticket).await.unwrap();
        assert_eq!(document(done).await, "<Done/>");

        let refused = in_time(after(late, Err(gone)), &ticket).await.unwrap();
        let refused = document(refused).await;
        let (declaration, error) = refused.split_once('\n').unwrap();
        assert!(declaration.starts_with("<?xml "), "{refused}");
        assert!(error.starts_with("   "), "{refused}");
        assert!(error.contains("<Code>NoSuchKey</Code>"), "{refused}");
        let done = in_time(after(late, Ok("<Done/>")), &ticket).await.unwrap();
        assert!(document(done).await.ends_with(" <Done/>"));
        let broken = async move {
            sleep(late).await;
            panic!("as ordered")
        };
        let broken = in_time(broken, &ticket).await.unwrap();
        assert!(
            document(broken)
                .await
                .contains("<Code>InternalError</Code>")
        );
    }
}
