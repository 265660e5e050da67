//! Errors on one line.

use std::error::Error;
use std::fmt;

/// Prints an error and its chain of causes, joined by `: `, for a log field.
///
/// The messages themselves never repeat their cause, so nothing appears twice.
pub fn report(error: &dyn Error) -> impl fmt::Display + '_ {
    ErrorChain(error)
}

struct ErrorChain<'a>(&'a dyn Error);

impl fmt::Display for ErrorChain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}
