//! What backends were asked for, month by month.

use base::Month;

use super::{Dialect, Store, lookup};
use crate::Result;
use crate::job::{Held, Job, Landing};
use crate::model::UsageRow;
use crate::sqlite::usage;
use crate::writer::Priority;

impl Store {
    /// What the rows say of a month; backends that were not used have none.
    pub async fn usage(&self, month: Month) -> Result<Vec<UsageRow>> {
        lookup!(
            self,
            "read usage",
            |tx| usage::of_month(tx, month),
            |shared| shared.usage(month)
        )
    }

    /// Adds to the rows of the months: all of them or none.
    ///
    /// Whether it happened is told to `counts`, even where this future is dropped meanwhile.
    pub async fn add_usage(&self, rows: Vec<UsageRow>, counts: Box<dyn Landing>) -> Result<()> {
        self.run_with(Job::AddUsage(rows), Held::Counts(counts), Priority::Normal)
            .await
            .0
            .map(drop)
    }
}
