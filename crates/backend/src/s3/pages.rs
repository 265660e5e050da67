//! What is believed of a page of a listing.
//!
//! Providers may answer with a page that is empty and not the last: it is followed to the next one.
//! A page that does not go on behind what was asked for would be asked for again for ever, and hides
//! what lies behind it; it is an error.

use super::S3Backend;
use super::classify::Access;
use crate::{Error, Result};

/// Pages that are followed within one call, where they bring nothing.
pub(super) const EMPTY_PAGES_MAX: u32 = 1000;

impl S3Backend {
    /// Whether each key lies behind the one before it, the first behind `after`.
    pub(super) fn expect_growth<'a>(
        &self,
        operation: &'static str,
        after: Option<&str>,
        keys: impl IntoIterator<Item = &'a str>,
    ) -> Result<()> {
        let mut last = after;
        for key in keys {
            if last.is_some_and(|last| key <= last) {
                return Err(self.stuck(operation));
            }
            last = Some(key);
        }
        Ok(())
    }

    /// The error of a listing that does not go on.
    pub(super) fn stuck(&self, operation: &'static str) -> Error {
        self.client
            .nonsense(Access::Read, operation)
            .with_message("a page of the listing does not go on behind the one before it")
    }

    /// The error of a listing of which one page after the other brings nothing.
    pub(super) fn endless(&self, operation: &'static str) -> Error {
        self.client
            .nonsense(Access::Read, operation)
            .with_message(format!(
                "{EMPTY_PAGES_MAX} pages of the listing brought nothing"
            ))
    }
}
