//! What has been done of a long run, in a file: one line for the code, one for each unit.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

const FILE: &str = "progress";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Ok,
    Failed,
}

impl Outcome {
    fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Failed => "FAILED",
        }
    }
}

/// A unit that was run to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) id: String,
    pub(super) outcome: Outcome,
    pub(super) seconds: u64,
    /// A line in words of the plan.
    pub(super) figures: String,
}

impl Record {
    pub(super) fn is_ok(&self) -> bool {
        self.outcome == Outcome::Ok
    }

    fn parsed(line: &str) -> Option<Self> {
        let mut fields = line.split('\t');
        let record = Self {
            id: fields.next()?.to_owned(),
            outcome: match fields.next()? {
                "ok" => Outcome::Ok,
                _ => Outcome::Failed,
            },
            seconds: fields.next()?.parse().ok()?,
            figures: fields.next()?.to_owned(),
        };
        Some(record)
    }
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            seconds, figures, ..
        } = self;
        write!(f, "{}, {seconds} s, {figures}", self.outcome.name())
    }
}

/// The file, and what it says.
pub(super) struct Progress {
    path: PathBuf,
    code: String,
    records: Vec<Record>,
}

impl Progress {
    /// What was done of this code; what was done of other code is forgotten with the first unit.
    pub(super) fn read(folder: &Path, code: &str) -> Self {
        let path = folder.join(FILE);
        let text = fs::read_to_string(&path).unwrap_or_default();
        let mut lines = text.lines();
        let records = match lines.next() {
            Some(head) if head == code => lines.filter_map(Record::parsed).collect(),
            Some(_) | None => Vec::new(),
        };
        Self {
            path,
            code: code.to_owned(),
            records,
        }
    }

    /// Whether a unit has been done well.
    pub(super) fn has(&self, id: &str) -> bool {
        self.of(id).last().is_some_and(Record::is_ok)
    }

    /// Every time that a unit was run, the last at the end.
    pub(super) fn of(&self, id: &str) -> impl Iterator<Item = &Record> {
        self.records.iter().filter(move |record| record.id == id)
    }

    /// Keeps a record. A run that is killed meanwhile leaves the file as it was, or as it is to be.
    pub(super) fn add(&mut self, record: Record) -> Result<()> {
        self.records.push(record);
        let lines = self.records.iter().map(|record| {
            let Record {
                id,
                outcome,
                seconds,
                figures,
            } = record;
            format!("{id}\t{}\t{seconds}\t{figures}\n", outcome.name())
        });
        let text: String = std::iter::once(format!("{}\n", self.code))
            .chain(lines)
            .collect();
        let fresh = self.path.with_extension("new");
        fs::write(&fresh, text)
            .and_then(|()| fs::rename(&fresh, &self.path))
            .with_context(|| format!("writing {}", self.path.display()))
    }
}

/// Tells texts apart; nobody makes them collide.
pub(super) fn digest(text: &str) -> u64 {
    // FNV-1a: the same on every machine and in every version.
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(id: &str, outcome: Outcome) -> Record {
        Record {
            id: id.to_owned(),
            outcome,
            seconds: 7,
            figures: "12 passed".to_owned(),
        }
    }

    #[test]
    fn a_killed_run_goes_on_with_what_was_not_done() {
        let folder = tempfile::tempdir().unwrap();
        let mut first = Progress::read(folder.path(), "code");
        first.add(record("a", Outcome::Ok)).unwrap();
        first.add(record("b", Outcome::Failed)).unwrap();
        drop(first);
        let mut second = Progress::read(folder.path(), "code");
        assert_eq!(
            ["a", "b", "c"].map(|id| second.has(id)),
            [true, false, false]
        );
        second.add(record("b", Outcome::Ok)).unwrap();
        second.add(record("c", Outcome::Ok)).unwrap();
        drop(second);
        let third = Progress::read(folder.path(), "code");
        assert_eq!(["a", "b", "c"].map(|id| third.has(id)), [true; 3]);
        assert_eq!(third.of("b").count(), 2, "the failure is not forgotten");
        assert_eq!(third.of("a").next(), Some(&record("a", Outcome::Ok)));
    }

    #[test]
    fn what_was_done_of_other_code_does_not_count() {
        let folder = tempfile::tempdir().unwrap();
        let mut before = Progress::read(folder.path(), "code");
        before.add(record("a", Outcome::Ok)).unwrap();
        drop(before);
        let after = Progress::read(folder.path(), "other code");
        assert!(!after.has("a"));
        assert_ne!(digest("a"), digest("b"));
    }
}
