//! Tags of objects.

/// The most tags of one object.
pub const TAGS_MAX: usize = 10;
/// The longest key of a tag, in UTF-16 units.
pub const TAG_KEY_UNITS_MAX: usize = 128;
/// The longest value of a tag, in UTF-16 units.
pub const TAG_VALUE_UNITS_MAX: usize = 256;

/// Keys that begin so belong to Amazon.
const SYSTEM_PREFIX: &str = "aws:";

/// A valid set of tags in the order they were given: at most [`TAGS_MAX`], each key once.
///
/// Source: Amazon S3 user guide, "Categorizing your objects using tags".
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tags(Vec<(String, String)>);

/// Why a set of tags was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TagError {
    /// More than [`TAGS_MAX`].
    #[error("an object has at most {TAGS_MAX} tags")]
    TooMany,
    /// A key is empty, too long, or has a character that tags cannot have.
    #[error("the key of a tag is not valid")]
    Key,
    /// A value is too long, or has a character that tags cannot have.
    #[error("the value of a tag is not valid")]
    Value,
    /// A key begins with `aws:`.
    #[error("keys that begin with aws: are reserved")]
    System,
    /// A key is there twice.
    #[error("a key is given more than once")]
    Twice,
}

impl Tags {
    /// Checks a set.
    pub fn new(pairs: Vec<(String, String)>) -> Result<Self, TagError> {
        if pairs.len() > TAGS_MAX {
            return Err(TagError::TooMany);
        }
        for (place, (key, value)) in pairs.iter().enumerate() {
            if key.is_empty() || !is_text(key, TAG_KEY_UNITS_MAX) {
                return Err(TagError::Key);
            }
            if !is_text(value, TAG_VALUE_UNITS_MAX) {
                return Err(TagError::Value);
            }
            if key.starts_with(SYSTEM_PREFIX) {
                return Err(TagError::System);
            }
            if pairs[..place].iter().any(|(before, _)| before == key) {
                return Err(TagError::Twice);
            }
        }
        Ok(Self(pairs))
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Keys and values.
    pub fn pairs(&self) -> &[(String, String)] {
        &self.0
    }
}

fn is_text(text: &str, units_max: usize) -> bool {
    let fits = |c: char| {
        c.is_alphanumeric()
            || (c.is_whitespace() && !c.is_control())
            || matches!(c, '_' | '.' | ':' | '/' | '=' | '+' | '-' | '@')
    };
    text.encode_utf16().count() <= units_max && text.chars().all(fits)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tags(pairs: &[(&str, &str)]) -> Result<Tags, TagError> {
        let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        Tags::new(pairs.iter().map(owned).collect())
    }

    #[test]
    fn the_limits_of_s3_hold() {
        assert!(tags(&[]).unwrap().is_empty());
        assert_eq!(tags(&[("a", ""), ("ü b", "x_.:/=+-@ 1")]).unwrap().len(), 2);
        let crab = "𝐱".repeat(64);
        assert!(tags(&[(&crab, &"v".repeat(256))]).is_ok());
        assert_eq!(tags(&[(&format!("{crab}y"), "")]), Err(TagError::Key));
        assert_eq!(tags(&[("a", &"v".repeat(257))]), Err(TagError::Value));
        assert_eq!(tags(&[("", "v")]), Err(TagError::Key));
        assert_eq!(tags(&[("a?", "v")]), Err(TagError::Key));
        assert_eq!(tags(&[("a", "b\nc")]), Err(TagError::Value));
        assert_eq!(tags(&[("aws:a", "")]), Err(TagError::System));
        assert_eq!(tags(&[("a", "1"), ("a", "2")]), Err(TagError::Twice));
        let many = |count: usize| (0..count).map(|n| (n.to_string(), String::new())).collect();
        assert!(Tags::new(many(10)).is_ok());
        assert_eq!(Tags::new(many(11)), Err(TagError::TooMany));
    }
}
