//! A YAML file as a tree that remembers its lines.
//!
//! Every scalar is kept as the text that stands in the file, so that a secret of digits stays what
//! it is and a value from the environment has no type of its own. Anchors, aliases and merge keys
//! are followed; a second document, a repeated key and anything that is not YAML is refused.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::budget::{Budget, BudgetBreach};
use serde_saphyr::options::{DuplicateKeyPolicy, NonFiniteFloatPolicy};
use serde_saphyr::{Location, Options, Spanned};

use super::problem::Problem;

/// The largest file in bytes.
pub(super) const FILE_BYTES_MAX: u64 = 4 << 20;
/// Maps and lists within each other; the deepest key that is known lies six of them deep. The parser
/// takes stack for each.
const NESTING_MAX: usize = 16;

/// A value and the line that it begins in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Node {
    pub(super) line: u64,
    pub(super) value: Value,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    /// Nothing, `null` or `~`.
    Null,
    /// A string, number or boolean, as it is written.
    Scalar(String),
    List(Vec<Node>),
    Map(Vec<MapEntry>),
    /// Something that was reported as wrong and is not looked at again.
    Refused,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct MapEntry {
    pub(super) key: String,
    /// The line of the key.
    pub(super) line: u64,
    pub(super) node: Node,
}

impl Node {
    /// The entry with this key, where this is a map that has it.
    pub(super) fn entry(&self, key: &str) -> Option<&MapEntry> {
        match &self.value {
            Value::Map(entries) => entries.iter().find(|entry| entry.key == key),
            Value::Null | Value::Scalar(_) | Value::List(_) | Value::Refused => None,
        }
    }

    /// What kind of value this is, with its article.
    pub(super) fn shape(&self) -> &'static str {
        match self.value {
            Value::Null | Value::Refused => "nothing",
            Value::Scalar(_) => "a single value",
            Value::List(_) => "a list",
            Value::Map(_) => "a map",
        }
    }
}

/// Reads one YAML document.
pub(super) fn read(text: &str) -> Result<Node, Problem> {
    let mut options = Options::default();
    options.with_snippet = false;
    let mut budget = Budget::default();
    budget.max_depth = NESTING_MAX;
    options.budget = Some(budget);
    options.duplicate_keys = DuplicateKeyPolicy::Error;
    options.non_finite_float_policy = NonFiniteFloatPolicy::AsString;
    let root: Option<Spanned<Raw>> = serde_saphyr::from_str_with_options(text, options)
        .map_err(|error| syntax_problem(&error))?;
    Ok(match root {
        Some(root) => into_node(root, text),
        None => Node {
            line: 1,
            value: Value::Null,
        },
    })
}

fn syntax_problem(error: &serde_saphyr::Error) -> Problem {
    let error = error.without_snippet();
    let location = error.location();
    let what = match error {
        // The parser's own words for these two speak to programmers.
        serde_saphyr::Error::DuplicateMappingKey { key: Some(key), .. } => {
            format!("the key '{key}' stands here twice")
        }
        serde_saphyr::Error::Budget {
            breach: BudgetBreach::Depth { .. },
            ..
        } => format!("more than {NESTING_MAX} maps and lists within each other"),
        serde_saphyr::Error::MultipleDocuments { .. } => "a second document begins".to_owned(),
        other => {
            let mut text = other.to_string();
            if let Some(at) = location {
                // The line stands in front of the message already.
                let (line, column) = (at.line(), at.column());
                text = text.replace(&format!("line {line} column {column}: "), "");
                text = text.replace(&format!(" at line {line}, column {column}"), "");
            }
            text.lines().next().unwrap_or("unreadable").to_owned()
        }
    };
    Problem {
        line: location.map_or(1, |at| at.line()),
        path: String::new(),
        what: format!("not valid YAML: {what}"),
        way_out: "correct the line; the rest of the file was not checked".to_owned(),
    }
}

fn into_node(raw: Spanned<Raw>, text: &str) -> Node {
    let line = raw.defined.line();
    let value = match raw.value {
        Raw::Null => Value::Null,
        Raw::Text(value) => Value::Scalar(value),
        Raw::Typed(printed) => Value::Scalar(written(&raw.defined, text).unwrap_or(printed)),
        Raw::List(items) => Value::List(
            items
                .into_iter()
                .map(|item| into_node(item, text))
                .collect(),
        ),
        Raw::Map(entries) => Value::Map(
            entries
                .into_iter()
                .map(|(key, node)| MapEntry {
                    line: key.defined.line(),
                    key: key.value,
                    node: into_node(node, text),
                })
                .collect(),
        ),
    };
    Node { line, value }
}

/// The number or boolean as it is spelled in the file.
fn written(at: &Location, text: &str) -> Option<String> {
    let start = usize::try_from(at.span().byte_offset()?).ok()?;
    let length = usize::try_from(at.span().byte_len()?).ok()?;
    let spelled = text.get(start..start.checked_add(length)?)?.trim();
    (!spelled.is_empty()).then(|| spelled.to_owned())
}

/// What the parser sees; numbers and booleans have lost their spelling.
enum Raw {
    Null,
    Text(String),
    Typed(String),
    List(Vec<Spanned<Raw>>),
    Map(Vec<(Spanned<String>, Spanned<Raw>)>),
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RawVisitor)
    }
}

struct RawVisitor;

impl<'de> Visitor<'de> for RawVisitor {
    type Value = Raw;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }

    fn visit_none<E>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Raw, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_str<E>(self, text: &str) -> Result<Raw, E> {
        Ok(Raw::Text(text.to_owned()))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Raw, E> {
        Ok(Raw::Typed(value.to_string()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Raw, E> {
        Ok(Raw::Typed(value.to_string()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Raw, E> {
        Ok(Raw::Typed(value.to_string()))
    }

    fn visit_i128<E>(self, value: i128) -> Result<Raw, E> {
        Ok(Raw::Typed(value.to_string()))
    }

    fn visit_u128<E>(self, value: u128) -> Result<Raw, E> {
        Ok(Raw::Typed(value.to_string()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Raw, E> {
        Ok(Raw::Typed(value.to_string()))
    }

    fn visit_bytes<E: serde::de::Error>(self, _: &[u8]) -> Result<Raw, E> {
        Err(E::custom("binary values have no use here"))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Raw, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = list.next_element()? {
            items.push(item);
        }
        Ok(Raw::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Raw, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(Raw::Map(entries))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scalar(text: &str, key: &str) -> (u64, String) {
        let root = read(text).unwrap();
        let entry = root.entry(key).unwrap();
        match &entry.node.value {
            Value::Scalar(value) => (entry.node.line, value.clone()),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn scalars_keep_the_spelling_of_the_file() {
        let text = "a: 007\nb: 1e5\nc: yes\nd: \"0x1F\"\ne: 0x1F\nf: 12345678901234567890123\n";
        assert_eq!(scalar(text, "a"), (1, "007".to_owned()));
        assert_eq!(scalar(text, "b"), (2, "1e5".to_owned()));
        assert_eq!(scalar(text, "c"), (3, "yes".to_owned()));
        assert_eq!(scalar(text, "d"), (4, "0x1F".to_owned()));
        assert_eq!(scalar(text, "e"), (5, "0x1F".to_owned()));
        assert_eq!(scalar(text, "f"), (6, "12345678901234567890123".to_owned()));
        // Characters of several bytes in front do not shift what is cut out.
        assert_eq!(
            scalar("x: äöü # ß\ny: 010 # tail\n", "y"),
            (2, "010".to_owned())
        );
    }

    #[test]
    fn aliases_and_merges_are_followed() {
        let text = "base: &b\n  size: 010\n  name: x\nuse:\n  <<: *b\n  name: y\nagain: *b\n";
        let root = read(text).unwrap();
        let used = &root.entry("use").unwrap().node;
        assert_eq!(
            used.entry("size").unwrap().node.value,
            Value::Scalar("010".to_owned())
        );
        assert_eq!(
            used.entry("name").unwrap().node.value,
            Value::Scalar("y".to_owned())
        );
        let again = &root.entry("again").unwrap().node;
        assert_eq!(
            again.entry("size").unwrap().node.value,
            Value::Scalar("010".to_owned())
        );
    }

    #[test]
    fn an_empty_file_is_nothing_and_null_is_nothing() {
        assert_eq!(read("").unwrap().value, Value::Null);
        assert_eq!(read("# only words\n").unwrap().value, Value::Null);
        for text in ["a:\n", "a: null\n", "a: ~\n"] {
            assert_eq!(
                read(text).unwrap().entry("a").unwrap().node.value,
                Value::Null,
                "{text}"
            );
        }
        let empty = read("a: \"\"\n").unwrap();
        assert_eq!(
            empty.entry("a").unwrap().node.value,
            Value::Scalar(String::new())
        );
    }

    #[test]
    fn what_is_not_one_yaml_document_is_refused_with_its_line() {
        let line = |text: &str| read(text).unwrap_err().line;
        assert_eq!(line("a: 1\nb: [1,\nc: 2\n"), 2);
        assert_eq!(line("a: 1\nb: 2\na: 3\n"), 3);
        assert_eq!(line("a: 1\nb: }\n"), 2);
        assert!(read("a: 1\n---\nb: 2\n").is_err());
    }

    #[test]
    fn a_syntax_error_shows_nothing_of_the_neighbouring_lines() {
        let text = "secret_access_key: hunter2hunter2\nbroken: [1,\nother: topsecret\n";
        let shown = read(text).unwrap_err().to_string();
        assert!(
            !shown.contains("hunter2") && !shown.contains("topsecret"),
            "{shown}"
        );
    }
}
