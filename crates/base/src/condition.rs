//! Conditional requests.

use crate::{ETag, Timestamp};

/// The operand of `If-Match` or `If-None-Match`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ETagCondition {
    /// `*`: any current version.
    Any,
    /// One of these tags.
    Tags(Vec<ETag>),
}

impl ETagCondition {
    fn names(&self, etag: &ETag) -> bool {
        match self {
            Self::Any => true,
            Self::Tags(tags) => tags.contains(etag),
        }
    }
}

/// The four conditions of a read or of a copy source.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Conditions {
    /// `If-Match`
    pub if_match: Option<ETagCondition>,
    /// `If-None-Match`
    pub if_none_match: Option<ETagCondition>,
    /// `If-Modified-Since`
    pub if_modified_since: Option<Timestamp>,
    /// `If-Unmodified-Since`
    pub if_unmodified_since: Option<Timestamp>,
}

/// What the conditions are compared with.
#[derive(Debug, Clone, Copy)]
pub struct Validators<'a> {
    /// The current version's entity tag.
    pub etag: &'a ETag,
    /// When the current version was written.
    pub last_modified: Timestamp,
}

/// What the conditions decide for a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadOutcome {
    /// Answer normally.
    Proceed,
    /// 304: the client's copy is current.
    NotModified,
    /// 412.
    Fail,
}

impl Conditions {
    /// Decides a GET or HEAD.
    ///
    /// A true `If-Match` overrides a false `If-Unmodified-Since`, and a false `If-None-Match`
    /// overrides a true `If-Modified-Since`. Source: Amazon S3 API reference, GetObject, and
    /// RFC 9110 section 13.2.2.
    pub fn read(&self, current: Validators<'_>) -> ReadOutcome {
        match (&self.if_match, self.if_unmodified_since) {
            (Some(wanted), _) if !wanted.names(current.etag) => return ReadOutcome::Fail,
            (None, Some(since)) if current.last_modified.seconds() > since.seconds() => {
                return ReadOutcome::Fail;
            }
            _ => {}
        }
        match (&self.if_none_match, self.if_modified_since) {
            (Some(known), _) if known.names(current.etag) => ReadOutcome::NotModified,
            (None, Some(since)) if current.last_modified.seconds() <= since.seconds() => {
                ReadOutcome::NotModified
            }
            _ => ReadOutcome::Proceed,
        }
    }

    /// Decides whether a copy may use its source: every failed condition is 412 there.
    pub fn copy_source(&self, current: Validators<'_>) -> bool {
        self.read(current) == ReadOutcome::Proceed
    }
}

/// What must hold of the key's current version for a write to happen, decided in the commit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Precondition {
    /// The write happens whatever is there.
    #[default]
    None,
    /// `If-None-Match: *`: there is no current version.
    Absent,
    /// `If-Match`: the current version has one of these tags (`*`: there is one).
    Match(ETagCondition),
}

impl Precondition {
    /// Whether the write may happen over a current version with this tag.
    pub fn holds(&self, current: Option<&ETag>) -> bool {
        match (self, current) {
            (Self::None, _) | (Self::Absent, None) => true,
            (Self::Absent, Some(_)) | (Self::Match(_), None) => false,
            (Self::Match(wanted), Some(etag)) => wanted.names(etag),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_have_the_precedence_of_s3() {
        let etag = ETag::new("\"a\"");
        let at = |seconds: i64| Some(Timestamp::from_millis(seconds * 1000));
        let current = Validators {
            etag: &etag,
            last_modified: Timestamp::from_millis(10_500),
        };
        let tags = |tag: &str| Some(ETagCondition::Tags(vec![ETag::new(tag)]));
        let read = |conditions: Conditions| conditions.read(current);

        assert_eq!(read(Conditions::default()), ReadOutcome::Proceed);
        let fails = Conditions {
            if_match: tags("b"),
            ..Conditions::default()
        };
        assert_eq!(read(fails), ReadOutcome::Fail);
        let both = Conditions {
            if_match: tags("a"),
            if_unmodified_since: at(1),
            ..Conditions::default()
        };
        assert_eq!(read(both), ReadOutcome::Proceed);
        let none = Conditions {
            if_none_match: tags("a"),
            if_modified_since: at(1),
            ..Conditions::default()
        };
        assert_eq!(read(none), ReadOutcome::NotModified);
        let other = Conditions {
            if_none_match: tags("b"),
            if_modified_since: at(99),
            ..Conditions::default()
        };
        assert_eq!(read(other), ReadOutcome::Proceed);
        let since = Conditions {
            if_modified_since: at(10),
            ..Conditions::default()
        };
        assert_eq!(read(since), ReadOutcome::NotModified);
        let unmodified = Conditions {
            if_unmodified_since: at(9),
            ..Conditions::default()
        };
        assert_eq!(read(unmodified), ReadOutcome::Fail);
    }
}
