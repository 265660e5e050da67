//! Text that must not reach a log.

use std::fmt;

use zeroize::Zeroizing;

/// A password, secret key or token: printed as `***`, wiped from memory when dropped.
///
/// Comparing two takes no constant time: it is for noticing that one was changed, never for checking
/// what a stranger presents.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Wraps the text.
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// The text itself, for the one place that needs it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}
