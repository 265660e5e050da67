//! A failure inside a local backend.

use std::io;

use base::BackendName;

use crate::{Effect, Error, Kind};

/// A failure on its way up, before it knows the name of the backend and of the operation.
#[derive(Debug)]
pub(super) struct LocalError {
    pub(super) kind: Kind,
    pub(super) effect: Effect,
    pub(super) message: Option<&'static str>,
    pub(super) source: Option<io::Error>,
}

impl LocalError {
    /// Nothing happened and nothing will.
    pub(super) fn new(kind: Kind) -> Self {
        Self {
            kind,
            effect: Effect::None,
            message: None,
            source: None,
        }
    }

    pub(super) fn saying(kind: Kind, message: &'static str) -> Self {
        Self {
            message: Some(message),
            ..Self::new(kind)
        }
    }

    /// An I/O error before anything could become visible.
    pub(super) fn harmless(error: io::Error) -> Self {
        Self {
            source: Some(error),
            ..Self::new(Kind::Unavailable)
        }
        .judged()
    }

    /// An I/O error after something may have become visible.
    pub(super) fn unsure(error: io::Error) -> Self {
        Self {
            effect: Effect::Unknown,
            ..Self::harmless(error)
        }
    }

    fn judged(mut self) -> Self {
        use io::ErrorKind as Io;
        self.kind = match self.source.as_ref().map(io::Error::kind) {
            Some(Io::StorageFull | Io::QuotaExceeded) => Kind::Full,
            Some(Io::PermissionDenied | Io::ReadOnlyFilesystem) => Kind::Denied,
            Some(Io::FileTooLarge | Io::InvalidFilename) => Kind::Rejected,
            Some(Io::UnexpectedEof) => Kind::Corrupt,
            // The list is the operating system's and open: all else is storage that fails.
            Some(_) | None => Kind::Unavailable,
        };
        self
    }

    pub(super) fn into_error(self, backend: &BackendName, operation: &'static str) -> Error {
        let mut error = Error::new(self.kind, self.effect, backend, operation);
        error.message = self.message.map(str::to_owned);
        match self.source {
            Some(source) => error.with_source(source),
            None => error,
        }
    }
}
