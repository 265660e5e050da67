//! What an answer, or its absence, means: [`Kind`] and [`Effect`], decided by pure functions.
//!
//! A write's effect is `None` only where nothing of it can have happened: it never left, its body
//! was cut by ourselves, or the provider refused it with a definite 4xx (or says that it does not
//! know the call). Everything else is unknown, and so is a checksum that differs: the provider had
//! all the bytes then, and some find the difference only after they have stored them.

use std::error::Error as StdError;
use std::io;

use http::StatusCode;
use s3wire::ErrorCode;

use super::http1::ExchangeError;
use super::transport::SendError;
use crate::{Effect, Kind};

/// Whether a call can change anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    Read,
    Write,
}

impl Access {
    /// The effect of a failure that came after the request may have arrived.
    pub(super) const fn unsettled(self) -> Effect {
        match self {
            Self::Read => Effect::None,
            Self::Write => Effect::Unknown,
        }
    }
}

/// An answer with an error status.
pub(super) fn refusal(access: Access, status: StatusCode, code: Option<&str>) -> (Kind, Effect) {
    let kind = code
        .and_then(kind_of_code)
        .unwrap_or_else(|| kind_of_status(status));
    if kind != Kind::Corrupt && is_definite(status) {
        (kind, Effect::None)
    } else {
        (kind, access.unsettled())
    }
}

/// Whether a status says that nothing happened. A list, because a status that S3 does not use (304
/// to a write, the 499 of a proxy whose client went away) comes from somebody in between, who does
/// not know.
fn is_definite(status: StatusCode) -> bool {
    matches!(
        status.as_u16(),
        301 | 307
            | 308
            | 400
            | 401
            | 403
            | 404
            | 405
            | 409
            | 410
            | 411
            | 412
            | 413
            | 415
            | 416
            | 422
            | 429
            | 431
            | 501
    )
}

/// An `<Error>` in the body of a 200: long calls begin their answer before they know the outcome.
pub(super) fn late_refusal(access: Access, code: &str) -> (Kind, Effect) {
    let status = ErrorCode::from_name(code)
        .and_then(|code| StatusCode::from_u16(code.status()).ok())
        .unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    refusal(access, status, Some(code))
}

/// Codes whose meaning differs from their status, or whose status differs between providers.
fn kind_of_code(code: &str) -> Option<Kind> {
    let kind = match code {
        "NoSuchKey" | "NoSuchVersion" => Kind::NotFound,
        "NoSuchUpload" => Kind::NoSuchUpload,
        // Not `NotFound`: a missing bucket says nothing about an object, as a missing mount does.
        "NoSuchBucket" => Kind::Unavailable,
        // Not `InvalidPartOrder`: our lists are in order, so that says nothing about the parts.
        "InvalidPart" => Kind::InvalidPart,
        "PreconditionFailed" => Kind::Precondition,
        "InvalidRange" => Kind::Range,
        "QuotaExceeded"
        | "XMinioStorageFull"
        | "XMinioAdminBucketQuotaExceeded"
        | "InsufficientStorage"
        | "InsufficientStorageSpace"
        | "StorageLimitExceeded"
        | "StorageQuotaExceeded"
        | "storage_cap_exceeded" => Kind::Full,
        "BadDigest"
        | "XAmzContentSHA256Mismatch"
        | "XAmzContentChecksumMismatch"
        | "ChecksumMismatch" => Kind::Corrupt,
        "SlowDown"
        | "SlowDownRead"
        | "SlowDownWrite"
        | "TooManyRequests"
        | "Throttling"
        | "ThrottlingException"
        | "RequestLimitExceeded"
        | "BandwidthLimitExceeded"
        | "ServiceUnavailable"
        | "OperationAborted"
        | "ConditionalRequestConflict" => Kind::Throttled,
        "RequestTimeout" => Kind::TimedOut,
        // The length that we declared was right, so the network cut the body.
        "IncompleteBody" | "InternalError" => Kind::Unavailable,
        "AccessDenied"
        | "AccountProblem"
        | "AllAccessDisabled"
        | "AuthorizationHeaderMalformed"
        | "ExpiredToken"
        | "InvalidAccessKeyId"
        | "InvalidSecurity"
        | "InvalidToken"
        | "RequestExpired"
        | "RequestTimeTooSkewed"
        | "SignatureDoesNotMatch" => Kind::Denied,
        "NotImplemented" | "MethodNotAllowed" => Kind::Unsupported,
        _ => return None,
    };
    Some(kind)
}

fn kind_of_status(status: StatusCode) -> Kind {
    match status.as_u16() {
        401 | 403 => Kind::Denied,
        404 | 410 => Kind::NotFound,
        405 | 501 => Kind::Unsupported,
        408 | 504 => Kind::TimedOut,
        412 => Kind::Precondition,
        416 => Kind::Range,
        409 | 429 | 503 => Kind::Throttled,
        507 => Kind::Full,
        500..=599 => Kind::Unavailable,
        _ => Kind::Rejected,
    }
}

/// A request that got no answer at all.
pub(super) fn silence(access: Access, error: &SendError) -> (Kind, Effect) {
    match error {
        SendError::Connect(error) if is_timeout(error.as_ref()) => (Kind::TimedOut, Effect::None),
        SendError::Connect(_) | SendError::Untaken(_) => (Kind::Unavailable, Effect::None),
        // Fewer bytes than declared: RFC 9112 section 8 makes that an incomplete message, which
        // must not be acted upon.
        SendError::Exchange(ExchangeError::Body(_)) => (Kind::PayloadCut, Effect::None),
        SendError::Exchange(ExchangeError::Lost(_) | ExchangeError::Head(_)) => {
            (Kind::Unavailable, access.unsettled())
        }
    }
}

/// Whether time was up. A boxed error inside `io::Error` hides from `source`, so those are opened.
fn is_timeout(error: &(dyn StdError + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        let io = error.downcast_ref::<io::Error>();
        if io.is_some_and(|error| error.kind() == io::ErrorKind::TimedOut) {
            return true;
        }
        next = match io.and_then(io::Error::get_ref) {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(status: u16, code: Option<&str>) -> (Kind, Effect) {
        refusal(Access::Write, StatusCode::from_u16(status).unwrap(), code)
    }

    #[test]
    fn only_a_definite_refusal_promises_that_nothing_happened() {
        for (status, code, kind, effect) in [
            (400, Some("BadDigest"), Kind::Corrupt, Effect::Unknown),
            (400, Some("SomethingNew"), Kind::Rejected, Effect::None),
            (403, None, Kind::Denied, Effect::None),
            (403, Some("QuotaExceeded"), Kind::Full, Effect::None),
            (404, Some("NoSuchUpload"), Kind::NoSuchUpload, Effect::None),
            (404, Some("NoSuchBucket"), Kind::Unavailable, Effect::None),
            (405, None, Kind::Unsupported, Effect::None),
            (408, None, Kind::TimedOut, Effect::Unknown),
            (429, None, Kind::Throttled, Effect::None),
            (
                500,
                Some("InternalError"),
                Kind::Unavailable,
                Effect::Unknown,
            ),
            (501, Some("NotImplemented"), Kind::Unsupported, Effect::None),
            (503, Some("SlowDown"), Kind::Throttled, Effect::Unknown),
            (507, None, Kind::Full, Effect::Unknown),
            (301, Some("PermanentRedirect"), Kind::Rejected, Effect::None),
            (304, None, Kind::Rejected, Effect::Unknown),
            (307, Some("TemporaryRedirect"), Kind::Rejected, Effect::None),
            (400, Some("InvalidPartOrder"), Kind::Rejected, Effect::None),
            (499, None, Kind::Rejected, Effect::Unknown),
        ] {
            assert_eq!(put(status, code), (kind, effect), "{status} {code:?}");
        }
    }

    #[test]
    fn a_failed_read_changed_nothing() {
        let status = StatusCode::INTERNAL_SERVER_ERROR;
        assert_eq!(
            refusal(Access::Read, status, None),
            (Kind::Unavailable, Effect::None)
        );
    }

    #[test]
    fn an_error_inside_a_success_is_judged_by_its_code() {
        let late = |code| late_refusal(Access::Write, code);
        assert_eq!(late("InvalidPart"), (Kind::InvalidPart, Effect::None));
        assert_eq!(late("NoSuchUpload"), (Kind::NoSuchUpload, Effect::None));
        let raced = late("ConditionalRequestConflict");
        assert_eq!(raced, (Kind::Throttled, Effect::None));
        assert_eq!(late("InternalError"), (Kind::Unavailable, Effect::Unknown));
        assert_eq!(late("NeverHeardOf"), (Kind::Unavailable, Effect::Unknown));
    }
}
