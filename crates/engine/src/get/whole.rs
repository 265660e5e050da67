//! Whether the bytes of a whole blob are those that were written.
//!
//! The catalogue has their CRC-64, so a blob that is read whole is compared with it while it passes.
//! Its last chunk is withheld until the comparison is done: wrong bytes never end cleanly.

use base::{CopyId, Crc64, Crc64Hasher};
use metastore::model::{CopyRow, CopyState};

/// The comparison of one blob that is being read whole.
pub(super) struct WholeCheck {
    expected: Crc64,
    seen: Crc64Hasher,
    used: UsedCopies,
}

/// The copies that the bytes of one blob came from: mostly one, which costs no allocation.
#[derive(Default)]
pub(super) struct UsedCopies {
    first: Option<CopyId>,
    others: Vec<CopyId>,
}

impl UsedCopies {
    fn add(&mut self, copy: CopyId) {
        if self.first.is_none() {
            self.first = Some(copy);
        } else if !self.contains(copy) {
            self.others.push(copy);
        }
    }

    pub(super) fn contains(&self, copy: CopyId) -> bool {
        self.first == Some(copy) || self.others.contains(&copy)
    }

    /// The copy that all bytes came from.
    pub(super) fn only(&self) -> Option<CopyId> {
        self.first.filter(|_| self.others.is_empty())
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = CopyId> {
        self.first.iter().chain(&self.others).copied()
    }
}

impl WholeCheck {
    pub(super) fn new(expected: Crc64) -> Self {
        Self {
            expected,
            seen: Crc64Hasher::new(),
            used: UsedCopies::default(),
        }
    }

    /// Bytes come from this copy from now on.
    pub(super) fn uses(&mut self, copy: CopyId) {
        self.used.add(copy);
    }

    pub(super) fn update(&mut self, bytes: &[u8]) {
        self.seen.update(bytes);
    }

    /// Whether all bytes, which have passed, are the right ones.
    pub(super) fn content(&self) -> Content {
        if self.seen.sum() == self.expected {
            Content::Right
        } else {
            Content::Wrong
        }
    }

    /// The copies that they came from.
    pub(super) fn used(&self) -> &UsedCopies {
        &self.used
    }
}

/// What a comparison found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Content {
    /// The bytes that were written.
    Right,
    /// Other bytes.
    Wrong,
}

/// What a copy is held for after its backend denied having it.
pub(super) const fn denied(before: CopyState) -> CopyState {
    match before {
        CopyState::Good => CopyState::Suspect,
        CopyState::Suspect | CopyState::Missing => CopyState::Missing,
        CopyState::Corrupt => CopyState::Corrupt,
    }
}

/// What the copies are held for after a read that used them brought wrong bytes. It takes a second read to be
/// sure: the first may have been spoilt on its way, or in our own memory. Where several copies were used, it
/// is not known which one was wrong.
pub(super) fn spoilt(used: &[&CopyRow]) -> CopyState {
    match used {
        [only] if only.state != CopyState::Good => CopyState::Corrupt,
        _ => CopyState::Suspect,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_denial_makes_a_copy_suspect_and_a_second_one_missing() {
        assert_eq!(denied(CopyState::Good), CopyState::Suspect);
        assert_eq!(denied(CopyState::Suspect), CopyState::Missing);
        assert_eq!(denied(CopyState::Missing), CopyState::Missing);
        // Bytes that were proven wrong are not forgotten for being away.
        assert_eq!(denied(CopyState::Corrupt), CopyState::Corrupt);
    }
}
