//! Typed access to a checked file, with the defaults of the table.

use std::io::Read as _;
use std::path::PathBuf;
use std::time::Duration;
use std::{fs, io};

use base::{ByteSize, Secret};

use super::check::{CheckReport, KeyPosition, parse_bool};
use super::document::{Node, Value};
use super::duration::parse_duration;
use super::keys::{Group, Key, Preset, Zero, group};
use super::scalar::ListenAddr;

/// The largest file that may hold a secret, in bytes.
const SECRET_FILE_BYTES_MAX: u64 = 64 << 10;

/// A map of the file, or its absence, together with what the table says about it.
#[derive(Debug, Clone)]
pub(super) struct Section<'a> {
    group: &'static Group,
    node: Option<&'a Node>,
    at: KeyPosition,
}

impl<'a> Section<'a> {
    pub(super) fn root(node: &'a Node) -> Self {
        let group = group("").expect("the table has the file itself");
        Self {
            group,
            node: Some(node),
            at: KeyPosition {
                line: 1,
                path: String::new(),
            },
        }
    }

    /// The map below this one.
    pub(super) fn map(&self, name: &str) -> Self {
        let group = group(&self.group.below(name)).expect("the table has the map");
        let entry = self.node.and_then(|node| node.entry(name));
        let line = entry.map_or(self.at.line, |entry| entry.line);
        let at = KeyPosition {
            line,
            path: self.path_of(name),
        };
        Self {
            group,
            node: entry.map(|entry| &entry.node),
            at,
        }
    }

    /// The maps of a list below this one.
    pub(super) fn list(&self, name: &str) -> Vec<Self> {
        let group = group(&format!("{}[]", self.group.below(name))).expect("the table has it");
        let Some(entry) = self.node.and_then(|node| node.entry(name)) else {
            return Vec::new();
        };
        let Value::List(items) = &entry.node.value else {
            return Vec::new();
        };
        let section = |(index, node): (usize, &'a Node)| {
            let path = format!("{}[{index}]", self.path_of(name));
            Self {
                group,
                node: Some(node),
                at: KeyPosition {
                    line: node.line,
                    path,
                },
            }
        };
        items.iter().enumerate().map(section).collect()
    }

    /// Where this map begins.
    pub(super) fn place(&self) -> KeyPosition {
        self.at.clone()
    }

    /// Where a key stands; where it is absent, the place of this map with the key's name.
    pub(super) fn place_of(&self, name: &str) -> KeyPosition {
        let line = self
            .node
            .and_then(|node| node.entry(name))
            .map_or(self.at.line, |entry| entry.line);
        KeyPosition {
            line,
            path: self.path_of(name),
        }
    }

    fn path_of(&self, name: &str) -> String {
        match self.at.path.as_str() {
            "" => name.to_owned(),
            path => format!("{path}.{name}"),
        }
    }

    /// Whether the file says anything but an empty text for the key, right or wrong.
    pub(super) fn has(&self, name: &str) -> bool {
        match self.value_of(name) {
            None | Some(Value::Null) => false,
            Some(Value::Scalar(text)) => !text.is_empty(),
            Some(Value::List(_) | Value::Map(_) | Value::Refused) => true,
        }
    }

    fn value_of(&self, name: &str) -> Option<&'a Value> {
        Some(&self.node?.entry(name)?.node.value)
    }

    /// Whether the key holds a list.
    pub(super) fn is_list(&self, name: &str) -> bool {
        matches!(self.value_of(name), Some(Value::List(_)))
    }

    /// Whether the key holds something that was reported as wrong.
    pub(super) fn is_refused(&self, name: &str) -> bool {
        matches!(self.value_of(name), Some(Value::Refused))
    }

    /// Whether a secret is given, in the file itself or in one that it names.
    pub(super) fn has_secret(&self, name: &str) -> bool {
        self.has(name) || self.has(&format!("{name}_file"))
    }

    fn key(&self, name: &str) -> &'static Key {
        self.group
            .key(name)
            .expect("the table has every key that is read")
    }

    fn written(&self, name: &str) -> Option<&'a str> {
        match self.value_of(name)? {
            Value::Scalar(text) => Some(text),
            Value::Null | Value::List(_) | Value::Map(_) | Value::Refused => None,
        }
    }

    /// The value, or else the default, read by `parse`; `None` where there is neither.
    fn value<T: PartialEq + Default>(
        &self,
        name: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Option<T> {
        let key = self.key(name);
        let preset = || match key.default {
            Preset::Value(text) => {
                Some(parse(text).expect("every default in the table is of its key's type"))
            }
            Preset::Required | Preset::Nothing | Preset::Derived(_) => None,
        };
        match self.written(name).and_then(&parse) {
            Some(value) if key.zero == Zero::Default && value == T::default() => preset(),
            Some(value) => Some(value),
            None => preset(),
        }
    }

    /// A text that is not empty.
    pub(super) fn text(&self, name: &str) -> Option<String> {
        self.value(name, |text| Some(text.to_owned()))
            .filter(|text| !text.is_empty())
    }

    pub(super) fn path(&self, name: &str) -> Option<PathBuf> {
        self.text(name).map(PathBuf::from)
    }

    pub(super) fn flag(&self, name: &str) -> Option<bool> {
        self.value(name, parse_bool)
    }

    pub(super) fn count(&self, name: &str) -> Option<u64> {
        self.value(name, |text| text.parse().ok())
    }

    pub(super) fn size(&self, name: &str) -> Option<ByteSize> {
        self.value(name, |text| text.parse().ok())
    }

    pub(super) fn duration(&self, name: &str) -> Option<Duration> {
        self.value(name, |text| parse_duration(text).ok())
    }

    pub(super) fn fraction(&self, name: &str) -> Option<f64> {
        self.value(name, |text| text.parse().ok())
    }

    /// A list of texts; empty where there is none.
    pub(super) fn words(&self, name: &str) -> Vec<String> {
        let Some(Value::List(items)) = self.value_of(name) else {
            return Vec::new();
        };
        let text = |item: &Node| match &item.value {
            Value::Scalar(text) => Some(text.clone()),
            Value::Null | Value::List(_) | Value::Map(_) | Value::Refused => None,
        };
        items.iter().filter_map(text).collect()
    }

    pub(super) fn listen(&self, name: &str) -> Option<ListenAddr> {
        self.written(name).and_then(|text| text.parse().ok())
    }

    /// A secret from the file itself or from the one that `NAME_file` names.
    pub(super) fn secret(&self, name: &str, report: &mut CheckReport) -> Option<Secret> {
        let file_key = format!("{name}_file");
        let inline = self.text(name);
        let Some(file) = self.written(&file_key).filter(|file| !file.is_empty()) else {
            return inline.map(Secret::new);
        };
        if inline.is_some() {
            report.problem(
                self.place_of(&file_key),
                format!("{name} is given as well"),
                format!("keep {name} or {file_key}, not both"),
            );
            return None;
        }
        match read_secret(file) {
            Ok(text) if !text.is_empty() => Some(Secret::new(text)),
            Ok(_) => {
                let what = format!("the file {file} is empty");
                report.problem(self.place_of(&file_key), what, "write the secret into it");
                None
            }
            Err(error) => {
                let what = format!("the file {file} cannot be read: {error}");
                report.problem(
                    self.place_of(&file_key),
                    what,
                    "correct the name or its mode",
                );
                None
            }
        }
    }
}

/// The contents of a file without the newline that editors leave at its end.
fn read_secret(file: &str) -> io::Result<String> {
    let size = fs::metadata(file)?.len();
    if size > SECRET_FILE_BYTES_MAX {
        return Err(io::Error::other(format!(
            "it is larger than {SECRET_FILE_BYTES_MAX} bytes"
        )));
    }
    // Devices and pipes tell no size.
    let mut text = String::new();
    fs::File::open(file)?
        .take(SECRET_FILE_BYTES_MAX)
        .read_to_string(&mut text)?;
    let text = text.strip_suffix('\n').unwrap_or(&text);
    Ok(text.strip_suffix('\r').unwrap_or(text).to_owned())
}
