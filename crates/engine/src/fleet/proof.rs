//! What the markers of all backends prove together: whether a catalogue was restored.

use base::BackendName;
use metastore::Store;

use super::Fleet;
use crate::Result;
use crate::marker::{self, Finding};

/// What the markers of backends say of a catalogue that is suspected of having been restored.
///
/// One marker is a word of one provider. A catalogue that was restored is older than the markers of
/// all backends that it had marked, because they advance at every start, every stop and every hour.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Markers {
    /// Backends whose marker is newer than the catalogue.
    pub newer: Vec<BackendName>,
    /// Backends whose marker is the one that the catalogue expects.
    pub expected: Vec<BackendName>,
    /// Backends that were marked before and cannot be asked.
    pub unseen: Vec<BackendName>,
}

impl Markers {
    /// Whether the catalogue was restored as a whole.
    pub(crate) const fn prove_restored(&self) -> bool {
        !self.newer.is_empty() && self.expected.is_empty() && self.unseen.is_empty()
    }
}

impl Fleet {
    /// Looks at the marker of every member. In recovery state no mark advances, so that this says the
    /// same as when the recovery state began, whatever was restarted since.
    pub(crate) async fn markers(&self, store: &Store) -> Result<Markers> {
        let mut markers = Markers::default();
        for member in &self.members {
            let looked = match member.in_service() {
                true => self.look(store, member).await?,
                false => None,
            };
            let (finding, row) = match looked {
                Some(look) => (Some(look.finding), look.row),
                None => (None, self.row(store, member).await?),
            };
            let said = match finding {
                Some(Finding::Newer { .. }) => &mut markers.newer,
                // One that was never marked before says nothing.
                _ if !marker::expected(&row) => continue,
                Some(Finding::Ours) => &mut markers.expected,
                // Somebody else wrote it there.
                Some(Finding::Implausible { .. }) => continue,
                Some(finding) => {
                    if let Some(reason) = finding.out_of_service() {
                        self.retire(member, reason);
                    }
                    &mut markers.unseen
                }
                None => &mut markers.unseen,
            };
            said.push(member.name().clone());
        }
        Ok(markers)
    }
}
