//! What may be said of what the catalogue lacks.

use crate::{Engine, Error, Result};

impl Engine {
    /// Whether what the catalogue lacks does not exist.
    ///
    /// # Errors
    /// [`Error::AbsenceUnknown`] as long as the catalogue is new and a backend may belong to another
    /// one: its objects would be answered as absent, and clients that mirror would delete theirs.
    pub fn knows_absence(&self) -> Result<()> {
        let fleet = &self.inner.fleet;
        if !fleet.is_beginning() {
            return Ok(());
        }
        let unseen = fleet.unseen();
        Err(Error::AbsenceUnknown { unseen })
    }

    /// The error of a verb that found nothing: this one, if absence is known.
    pub(crate) fn absent(&self, error: Error) -> Error {
        self.knows_absence().err().unwrap_or(error)
    }
}
