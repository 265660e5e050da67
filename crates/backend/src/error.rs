//! What can go wrong at a provider, by what callers do about it.

use std::error::Error as StdError;

use base::BackendName;

/// `Result` with [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// Why a call failed, as the engine needs to know it. The list is closed: every match is exhaustive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// The object is not there.
    NotFound,
    /// The provider does not know the multipart upload.
    NoSuchUpload,
    /// A part that Complete named is missing or differs.
    InvalidPart,
    /// A condition that we sent does not hold.
    Precondition,
    /// The requested range lies outside the object.
    Range,
    /// The provider has no room left: its own quota, or the disk is full.
    Full,
    /// The bytes that arrived do not match the checksum that went with them.
    Corrupt,
    /// The payload ended early or failed: the client's doing, not the provider's.
    PayloadCut,
    /// The credentials were refused. An operator must act.
    Denied,
    /// The provider refused this request for good: sending it again will not help.
    Rejected,
    /// The provider does not offer this call.
    Unsupported,
    /// The provider asks for fewer requests.
    Throttled,
    /// No answer, or no progress, within the limit.
    TimedOut,
    /// The provider cannot be reached, or answers with 5xx, or its storage fails.
    Unavailable,
}

impl Kind {
    /// Whether the failure says something about the provider's health.
    pub const fn trips_breaker(self) -> bool {
        match self {
            Self::TimedOut | Self::Unavailable | Self::Denied => true,
            Self::NotFound
            | Self::NoSuchUpload
            | Self::InvalidPart
            | Self::Precondition
            | Self::Range
            | Self::Full
            | Self::Corrupt
            | Self::PayloadCut
            | Self::Rejected
            | Self::Unsupported
            | Self::Throttled => false,
        }
    }

    /// Whether the same request may succeed a little later.
    pub const fn retryable(self) -> bool {
        match self {
            Self::Throttled | Self::TimedOut | Self::Unavailable => true,
            Self::NotFound
            | Self::NoSuchUpload
            | Self::InvalidPart
            | Self::Precondition
            | Self::Range
            | Self::Full
            | Self::Corrupt
            | Self::PayloadCut
            | Self::Denied
            | Self::Rejected
            | Self::Unsupported => false,
        }
    }
}

/// Whether a failed call may have changed something on the provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Certainly nothing happened, and nothing will.
    None,
    /// It may have happened, or may still happen.
    Unknown,
}

/// A failed call to a provider.
#[derive(Debug, thiserror::Error)]
#[error("{operation} on backend {backend} failed: {kind:?}{}", detail(.message))]
pub struct Error {
    /// What to do about it.
    pub kind: Kind,
    /// Whether it may have happened all the same.
    pub effect: Effect,
    /// Where.
    pub backend: BackendName,
    /// What was attempted, for example `put`.
    pub operation: &'static str,
    /// The provider's own words, where it gave any: code and message.
    pub message: Option<String>,
    /// The cause, where there is one beneath.
    #[source]
    pub source: Option<Box<dyn StdError + Send + Sync>>,
}

fn detail(message: &Option<String>) -> String {
    message
        .as_ref()
        .map_or_else(String::new, |message| format!(" ({message})"))
}

impl Error {
    /// An error without words or cause.
    pub fn new(kind: Kind, effect: Effect, backend: &BackendName, operation: &'static str) -> Self {
        Self {
            kind,
            effect,
            backend: backend.clone(),
            operation,
            message: None,
            source: None,
        }
    }

    /// Adds the provider's own words.
    #[must_use]
    pub fn with_message(mut self, message: impl Into<String>) -> Self {
        self.message = Some(message.into());
        self
    }

    /// Adds the cause.
    #[must_use]
    pub fn with_source(mut self, source: impl StdError + Send + Sync + 'static) -> Self {
        self.source = Some(Box::new(source));
        self
    }
}
