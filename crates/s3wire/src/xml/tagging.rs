//! `Tagging`

use base::Tags;

use super::read::read_as;
use super::write::Writer;
use crate::Error;
use crate::headers::tag_error;

/// The largest body of PutObjectTagging: ten tags of four-byte characters, each written as a
/// character reference, fit.
pub const TAGGING_BODY_BYTES_MAX: usize = 64 << 10;

/// Reads a client's set of tags.
pub fn parse_tagging(body: &[u8]) -> Result<Tags, Error> {
    let node = read_as(body, "Tagging", TAGGING_BODY_BYTES_MAX)?;
    node.once(&["TagSet"])?;
    let set = node.must("TagSet")?;
    let pairs = set
        .children("Tag")
        .map(|tag| {
            tag.once(&["Key", "Value"])?;
            Ok((
                tag.required("Key")?.to_owned(),
                tag.required("Value")?.to_owned(),
            ))
        })
        .collect::<Result<Vec<_>, Error>>()?;
    Tags::new(pairs).map_err(tag_error)
}

/// Writes a set of tags.
pub fn print_tagging(tags: &Tags) -> String {
    let mut writer = Writer::new("Tagging");
    writer.open("TagSet");
    for (key, value) in tags.pairs() {
        writer.open("Tag");
        writer.element("Key", key);
        writer.element("Value", value);
        writer.close("Tag");
    }
    writer.close("TagSet");
    writer.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorCode;

    fn code(body: &str) -> ErrorCode {
        parse_tagging(body.as_bytes()).unwrap_err().code
    }

    #[test]
    fn a_set_comes_back_as_it_was_written() {
        let pairs = vec![
            ("a b".into(), "\u{fc}=1".into()),
            ("c".into(), String::new()),
        ];
        for tags in [Tags::default(), Tags::new(pairs).unwrap()] {
            assert_eq!(parse_tagging(print_tagging(&tags).as_bytes()), Ok(tags));
        }
    }

    #[test]
    fn documents_without_a_set_and_sets_that_break_a_rule_are_refused() {
        assert_eq!(code("<Tagging/>"), ErrorCode::MalformedXml);
        assert_eq!(code("<TagSet/>"), ErrorCode::MalformedXml);
        let sets = "<Tagging><TagSet/><TagSet/></Tagging>";
        assert_eq!(code(sets), ErrorCode::MalformedXml);
        let keys = "<Tag><Key>a</Key><Key>b</Key><Value/></Tag>";
        let keys = format!("<Tagging><TagSet>{keys}</TagSet></Tagging>");
        assert_eq!(code(&keys), ErrorCode::MalformedXml);
        let tag = |key: &str, value: &str| format!("<Tag><Key>{key}</Key>{value}</Tag>");
        let set = |tags: &str| format!("<Tagging><TagSet>{tags}</TagSet></Tagging>");
        assert_eq!(code(&set(&tag("a", ""))), ErrorCode::MalformedXml);
        let empty = tag("a", "<Value/>");
        assert!(parse_tagging(set(&empty).as_bytes()).is_ok());
        assert_eq!(code(&set(&empty.repeat(2))), ErrorCode::InvalidTag);
        assert_eq!(code(&set(&tag("", "<Value/>"))), ErrorCode::InvalidTag);
        assert_eq!(code(&set(&empty.repeat(11))), ErrorCode::BadRequest);
    }
}
