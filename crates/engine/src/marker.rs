//! The marker `.s3o/backend`: how a backend tells whose it is.

use base::BackendName;
use metastore::model::{BackendRow, Catalogue};
use uuid::Uuid;

/// How far a marker can be ahead of its row. Marks advance every hour and at every start, so no
/// restored catalogue is as far behind.
const MARK_LEAP_MAX: u64 = 1 << 32;

/// What it means that a backend belongs to another catalogue than one that begins, and the way out.
pub(crate) const CATALOGUE_MISSING: &str = "the catalogue of these objects is missing here. Put it, or \
     a backup of it, in its place and run `s3-orchestrator reconcile --recover`. To begin anew on these \
     backends all the same, remove the marker `.s3o/backend` from each: what lies there stays, and is \
     unknown to the new catalogue";

/// What the marker says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) catalogue: Uuid,
    pub(crate) incarnation: Uuid,
    pub(crate) backend: BackendName,
    pub(crate) mark: u64,
}

/// What a look at the marker means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Finding {
    /// There is none, and there never was: this is the first use.
    First,
    /// It is ours and not newer than the catalogue.
    Ours,
    /// There is none although there was one.
    Missing,
    /// It is ours, but its mark is beyond what any state of this catalogue can have reached: somebody
    /// wrote it there. It says nothing about the catalogue, and is replaced.
    Implausible {
        /// What it says.
        found: String,
    },
    /// It names another backend of this catalogue: two names lead to one place, or a name was pointed
    /// elsewhere.
    OtherBackend {
        /// Which.
        found: String,
    },
    /// It names another catalogue, or is not one of ours.
    Foreign {
        /// Whose.
        found: String,
    },
    /// It was written by a newer state of this catalogue, or by another incarnation of it: this
    /// catalogue was restored.
    Newer {
        /// What it says.
        found: String,
    },
}

impl Mark {
    pub(crate) fn to_text(&self) -> String {
        format!(
            "s3-orchestrator backend marker 1\ncatalogue {}\nincarnation {}\nbackend {}\nmark {}\n",
            self.catalogue, self.incarnation, self.backend, self.mark
        )
    }

    pub(crate) fn parse(content: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(content).ok()?;
        let mut lines = text.lines();
        if lines.next()? != "s3-orchestrator backend marker 1" {
            return None;
        }
        let mut field = |name: &str| lines.next()?.strip_prefix(name)?.strip_prefix(' ');
        Some(Self {
            catalogue: Uuid::parse_str(field("catalogue")?).ok()?,
            incarnation: Uuid::parse_str(field("incarnation")?).ok()?,
            backend: field("backend")?.parse().ok()?,
            mark: field("mark")?.parse().ok()?,
        })
    }

    /// Whether a state of this catalogue can have written it, however far the row is behind.
    pub(crate) fn plausible(&self, row: &BackendRow) -> bool {
        self.mark <= row.mark.saturating_add(MARK_LEAP_MAX)
    }

    /// Compares what a backend carries with what the catalogue knows.
    pub(crate) fn judge(
        content: Option<&[u8]>,
        catalogue: &Catalogue,
        row: &BackendRow,
    ) -> Finding {
        let Some(content) = content else {
            return match expected(row) {
                true => Finding::Missing,
                false => Finding::First,
            };
        };
        let Some(found) = Self::parse(content) else {
            return Finding::Foreign {
                found: "something that is not ours".to_owned(),
            };
        };
        if found.catalogue != catalogue.uuid {
            return Finding::Foreign {
                found: format!("catalogue {}", found.catalogue),
            };
        }
        if found.backend != row.name {
            return Finding::OtherBackend {
                found: format!("backend {} of this catalogue", found.backend),
            };
        }
        if !found.plausible(row) {
            let found = format!("generation {}", found.mark);
            return Finding::Implausible { found };
        }
        if found.mark > row.mark || found.incarnation != catalogue.incarnation {
            let found = format!(
                "generation {} of incarnation {}",
                found.mark, found.incarnation
            );
            return Finding::Newer { found };
        }
        Finding::Ours
    }
}

/// The mark of the first use.
pub(crate) const FIRST_MARK: u64 = 1;

/// Whether the backend must carry a marker. A process that dies between its first mark's row and the
/// marker itself leaves a row with the first mark and nothing else that names the backend.
pub(crate) const fn expected(row: &BackendRow) -> bool {
    row.mark > FIRST_MARK || row.rows > 0
}

#[cfg(test)]
mod tests {
    use metastore::model::{BackendId, BackendState};

    use super::*;

    #[test]
    fn a_marker_is_judged_by_whose_it_is_and_how_new() {
        let catalogue = Catalogue {
            uuid: Uuid::from_u128(1),
            incarnation: Uuid::from_u128(2),
            recovery: None,
            restored: false,
            label_key: std::sync::Arc::new(base::LabelKey::from_bytes([0; 32])),
        };
        let row = BackendRow {
            id: BackendId(1),
            name: "disk".parse().unwrap(),
            state: BackendState::Active,
            marked: true,
            mark: 5,
            capabilities: None,
            rows: 0,
        };
        let mark = Mark {
            catalogue: catalogue.uuid,
            incarnation: catalogue.incarnation,
            backend: row.name.clone(),
            mark: 5,
        };
        let judge = |mark: &Mark| Mark::judge(Some(mark.to_text().as_bytes()), &catalogue, &row);
        assert_eq!(Mark::parse(mark.to_text().as_bytes()), Some(mark.clone()));
        assert_eq!(judge(&mark), Finding::Ours);
        assert_eq!(
            judge(&Mark {
                mark: 4,
                ..mark.clone()
            }),
            Finding::Ours
        );
        let newer = Mark {
            mark: 6,
            ..mark.clone()
        };
        assert!(matches!(judge(&newer), Finding::Newer { .. }));
        let forged = Mark {
            mark: i64::MAX as u64,
            ..mark.clone()
        };
        assert!(matches!(judge(&forged), Finding::Implausible { .. }));
        let other = Mark {
            incarnation: Uuid::from_u128(9),
            mark: 1,
            ..mark.clone()
        };
        assert!(matches!(judge(&other), Finding::Newer { .. }));
        let foreign = Mark {
            catalogue: Uuid::from_u128(9),
            ..mark.clone()
        };
        assert!(matches!(judge(&foreign), Finding::Foreign { .. }));
        let renamed = Mark {
            backend: "other".parse().unwrap(),
            ..mark
        };
        assert!(matches!(judge(&renamed), Finding::OtherBackend { .. }));
        assert!(matches!(
            Mark::judge(Some(b"?"), &catalogue, &row),
            Finding::Foreign { .. }
        ));
        assert_eq!(Mark::judge(None, &catalogue, &row), Finding::Missing);
        let judge = |mark, rows| {
            Mark::judge(
                None,
                &catalogue,
                &BackendRow {
                    mark,
                    rows,
                    ..row.clone()
                },
            )
        };
        assert_eq!(judge(0, 0), Finding::First);
        assert_eq!(
            judge(1, 0),
            Finding::First,
            "the first mark may not have reached the backend"
        );
        assert_eq!(judge(1, 1), Finding::Missing);
    }
}
