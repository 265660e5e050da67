//! Compares a file with the table of keys.
//!
//! Afterwards every value that is left in the tree has the type that its key asks for; whatever
//! was reported has been taken out, so that nothing is complained about twice.

use std::time::Duration;

use base::{ByteSize, SizeError};

use super::document::{MapEntry, Node, Value};
use super::duration::{DurationError, parse_duration};
use super::environment::Environment;
use super::expand::expand;
use super::keys::{Group, Key, KeyEffect, Off, ValueKind, group, groups, refused_list};
use super::problem::Problem;
use super::scalar::ListenAddr;

/// Names less alike than this are no suggestion.
const LIKENESS_MIN: f64 = 0.8;

/// What was found so far.
#[derive(Debug, Default)]
pub(super) struct CheckReport {
    pub(super) problems: Vec<Problem>,
    pub(super) warnings: Vec<Problem>,
}

/// A place in the file.
#[derive(Debug, Clone)]
pub(super) struct KeyPosition {
    pub(super) line: u64,
    pub(super) path: String,
}

impl CheckReport {
    pub(super) fn problem(
        &mut self,
        at: KeyPosition,
        what: impl Into<String>,
        way_out: impl Into<String>,
    ) {
        self.problems.push(problem(at, what.into(), way_out.into()));
    }

    pub(super) fn warning(
        &mut self,
        at: KeyPosition,
        what: impl Into<String>,
        way_out: impl Into<String>,
    ) {
        self.warnings.push(problem(at, what.into(), way_out.into()));
    }
}

fn problem(at: KeyPosition, what: String, way_out: String) -> Problem {
    Problem {
        line: at.line,
        path: at.path,
        what,
        way_out,
    }
}

/// Expands the environment in all values.
pub(super) fn expand_all(
    node: &mut Node,
    path: &str,
    env: &dyn Environment,
    report: &mut CheckReport,
) {
    let line = node.line;
    let at = || KeyPosition {
        line,
        path: path.to_owned(),
    };
    match &mut node.value {
        Value::Null | Value::Refused => {}
        Value::Scalar(text) => match expand(text, env) {
            Ok(expanded) => {
                for name in expanded.bare {
                    report.warning(
                        at(),
                        format!("${name} is taken literally although such a variable exists"),
                        format!("write ${{{name}}} for its value, or $${name} to be clear"),
                    );
                }
                *text = expanded.text;
            }
            Err(error) => {
                report.problem(at(), error.to_string(), error.way_out());
                node.value = Value::Refused;
            }
        },
        Value::List(items) => {
            for (index, item) in items.iter_mut().enumerate() {
                expand_all(item, &format!("{path}[{index}]"), env, report);
            }
        }
        Value::Map(entries) => {
            for entry in entries {
                let below = join(path, &entry.key);
                expand_all(&mut entry.node, &below, env, report);
            }
        }
    }
}

fn join(path: &str, key: &str) -> String {
    match path {
        "" => key.to_owned(),
        path => format!("{path}.{key}"),
    }
}

/// Checks a map against its group, and everything below it.
pub(super) fn check_map(
    node: &mut Node,
    group: &'static Group,
    at: KeyPosition,
    report: &mut CheckReport,
) {
    let shape = node.shape();
    let entries = match &mut node.value {
        Value::Null | Value::Refused => return,
        Value::Map(entries) => entries,
        Value::Scalar(_) | Value::List(_) => {
            let what = format!("{shape} where a map of keys is expected");
            let example = group.names().into_iter().next().unwrap_or_default();
            report.problem(
                at,
                what,
                format!("indent its keys below it, such as '{example}:'"),
            );
            node.value = Value::Refused;
            return;
        }
    };
    for entry in entries {
        check_entry(entry, group, &at.path, report);
    }
}

fn check_entry(entry: &mut MapEntry, of: &'static Group, path: &str, report: &mut CheckReport) {
    let at = KeyPosition {
        line: entry.line,
        path: join(path, &entry.key),
    };
    if let Some(key) = of.key(&entry.key) {
        return check_value(&mut entry.node, key, at, report);
    }
    if let Some(key) = of.secret_of_file_key(&entry.key) {
        return check_secret_file(&mut entry.node, key, at, report);
    }
    let below = of.below(&entry.key);
    if let Some(child) = group(&below) {
        return check_map(&mut entry.node, child, at, report);
    }
    if let Some(child) = group(&format!("{below}[]")) {
        return check_list(&mut entry.node, &below, child, at, report);
    }
    let (what, way_out) = unknown(&entry.key, of);
    report.problem(at, what, way_out);
    entry.node.value = Value::Refused;
}

fn check_list(
    node: &mut Node,
    list: &str,
    of: &'static Group,
    at: KeyPosition,
    report: &mut CheckReport,
) {
    let shape = node.shape();
    let items = match &mut node.value {
        Value::Null | Value::Refused => return,
        Value::List(items) => items,
        Value::Scalar(_) | Value::Map(_) => {
            let what = format!("{shape} where a list is expected");
            report.problem(at, what, "begin each item with '- '");
            node.value = Value::Refused;
            return;
        }
    };
    if let Some(feature) = refused_list(list)
        && !items.is_empty()
    {
        report.problem(at.clone(), unavailable(feature), "remove the items");
    }
    for (index, item) in items.iter_mut().enumerate() {
        let path = format!("{}[{index}]", at.path);
        check_map(
            item,
            of,
            KeyPosition {
                line: item.line,
                path,
            },
            report,
        );
    }
}

/// What is wrong with a value, and the way out.
type ValueProblem = (String, String);

fn check_value(node: &mut Node, key: &'static Key, at: KeyPosition, report: &mut CheckReport) {
    let shape = node.shape();
    let fault = match (&node.value, key.kind) {
        (Value::Null | Value::Refused, _) => return,
        (Value::List(items), ValueKind::Words) => words_fault(items),
        (Value::Map(_) | Value::Scalar(_), ValueKind::Words) => Some((
            format!("{shape} where a list is expected"),
            "begin each item with '- '".into(),
        )),
        (Value::List(_) | Value::Map(_), _) => {
            let what = format!("{shape} where a single value is expected");
            Some((what, format!("write '{}: value'", key.name)))
        }
        // Go's parser leaves the default where a value is empty.
        (Value::Scalar(text), ValueKind::Text) if text.is_empty() => None,
        (Value::Scalar(text), _) if text.is_empty() => {
            node.value = Value::Null;
            return;
        }
        (Value::Scalar(text), kind) => fault(kind, text),
    };
    if let Some((what, way_out)) = fault {
        report.problem(at, what, way_out);
        node.value = Value::Refused;
        return;
    }
    if let KeyEffect::OffOnly { feature, off } = key.effect
        && !is_off(&node.value, off, key.kind)
    {
        let way_out = format!("set it to {}, or remove it", off.written());
        report.problem(at, unavailable(feature), way_out);
        node.value = Value::Refused;
    }
}

fn check_secret_file(
    node: &mut Node,
    key: &'static Key,
    at: KeyPosition,
    report: &mut CheckReport,
) {
    match &node.value {
        Value::Null | Value::Refused => {}
        Value::Scalar(_) => {
            if let KeyEffect::OffOnly { feature, .. } = key.effect {
                report.problem(at, unavailable(feature), "remove it");
                node.value = Value::Refused;
            }
        }
        Value::List(_) | Value::Map(_) => {
            let what = format!("{} where the name of a file is expected", node.shape());
            report.problem(at, what, "write 'key: value'");
            node.value = Value::Refused;
        }
    }
}

fn unavailable(feature: &str) -> String {
    format!("{feature} is not available in this release")
}

fn words_fault(items: &[Node]) -> Option<ValueProblem> {
    let single = |item: &Node| matches!(item.value, Value::Scalar(_) | Value::Refused);
    match items.iter().all(single) {
        true => None,
        false => Some((
            "an item is not a single value".into(),
            "write '- value'".into(),
        )),
    }
}

fn fault(kind: ValueKind, text: &str) -> Option<ValueProblem> {
    let negative = || text.starts_with('-');
    let (what, way_out) = match kind {
        ValueKind::Text | ValueKind::Secret | ValueKind::Words => return None,
        ValueKind::Path if !text.contains('\0') => return None,
        ValueKind::Path => (
            "a path cannot contain NUL".to_owned(),
            "remove it".to_owned(),
        ),
        ValueKind::Bool if parse_bool(text).is_some() => return None,
        ValueKind::Bool => (
            format!("'{text}' is neither true nor false"),
            "write one of them".into(),
        ),
        ValueKind::Count { max } => match text.parse::<u64>() {
            Ok(count) if count <= max => return None,
            Ok(_) => (format!("{text} is too large"), format!("{max} is the most")),
            Err(_) if negative() => (format!("{text} is negative"), "write 0 or more".into()),
            Err(_) => (
                format!("'{text}' is not a whole number"),
                "write digits only".into(),
            ),
        },
        ValueKind::Size => match text.parse::<ByteSize>() {
            Ok(_) => return None,
            Err(_) if negative() => (format!("{text} is negative"), "write 0 or more".into()),
            Err(SizeError::Malformed) => (
                format!("'{text}' is not a size"),
                "write a number of bytes, or one with KiB, MiB, GiB, TiB or PiB: 20GiB".into(),
            ),
            Err(SizeError::TooLarge) => (
                format!("{text} is too large"),
                "write less than 2^63 bytes".into(),
            ),
        },
        ValueKind::Duration => match parse_duration(text) {
            Ok(_) => return None,
            Err(DurationError::Malformed) => (
                format!("'{text}' is not a duration"),
                "write numbers with units: 30s, 5m, 1h30m or 250ms".into(),
            ),
            Err(DurationError::NoUnit(number)) => (
                format!("the duration {number} has no unit"),
                format!("write {number}s"),
            ),
            Err(DurationError::Negative) => {
                (format!("{text} is negative"), "write 0s or more".into())
            }
            Err(DurationError::TooLong) => (
                format!("{text} is too long"),
                "290 years are the most".into(),
            ),
        },
        ValueKind::Fraction => match text.parse::<f64>() {
            Ok(share) if (0.0..=1.0).contains(&share) => return None,
            _ => (
                format!("'{text}' is not a share"),
                "write a number from 0 to 1".into(),
            ),
        },
        ValueKind::Choice(words) if words.contains(&text) => return None,
        ValueKind::Choice(words) => (
            format!("'{text}' is unknown"),
            format!("write {}", alternatives(words)),
        ),
        ValueKind::Listen => match text.parse::<ListenAddr>() {
            Ok(_) => return None,
            Err(error) => (
                format!("'{text}': {error}"),
                "write host:port, [IPv6]:port or :port".into(),
            ),
        },
    };
    Some((what, way_out))
}

/// `a`, `a or b`, `a, b or c`.
pub(super) fn alternatives(words: &[&str]) -> String {
    match words {
        [] => String::new(),
        [word] => (*word).to_owned(),
        [first @ .., last] => format!("{} or {last}", first.join(", ")),
    }
}

/// The words that YAML has for true and false.
pub(super) fn parse_bool(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" => Some(true),
        "false" | "no" | "off" => Some(false),
        _ => None,
    }
}

fn is_off(value: &Value, off: Off, kind: ValueKind) -> bool {
    let text = match value {
        Value::Null | Value::Refused => return true,
        Value::List(items) => return items.is_empty(),
        Value::Map(_) => return false,
        Value::Scalar(text) => text,
    };
    match off {
        Off::False => parse_bool(text) == Some(false),
        Off::Zero if kind == ValueKind::Size => text.parse() == Ok(ByteSize(0)),
        Off::Zero if kind == ValueKind::Duration => parse_duration(text) == Ok(Duration::ZERO),
        Off::Zero => text.parse() == Ok(0.0),
        Off::One => matches!(text.parse(), Ok(0 | 1)),
        Off::Empty => text.is_empty(),
    }
}

fn unknown(name: &str, of: &'static Group) -> (String, String) {
    let what = "unknown key".to_owned();
    let nearest = of
        .names()
        .into_iter()
        .map(|known| (strsim::jaro_winkler(name, &known), known))
        .filter(|(likeness, _)| *likeness >= LIKENESS_MIN)
        .max_by(|(a, _), (b, _)| a.total_cmp(b));
    // The very same name elsewhere tells more than a similar one here.
    let elsewhere = groups()
        .find(|group| group.path != of.path && group.names().iter().any(|known| known == name));
    match (nearest, elsewhere) {
        (_, Some(group)) if name.len() > 4 => {
            (what, format!("it belongs there: {}", group.below(name)))
        }
        (Some((_, known)), _) => (what, format!("did you mean {known}?")),
        (None, _) => (
            what,
            "remove it; docs/configuration.md lists all keys".to_owned(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::keys::Preset;

    #[test]
    fn every_default_is_a_valid_value_that_switches_nothing_on() {
        for group in groups() {
            for key in group.keys {
                let Preset::Value(text) = key.default else {
                    continue;
                };
                assert_eq!(fault(key.kind, text), None, "{}.{}", group.path, key.name);
                if let KeyEffect::OffOnly { off, .. } = key.effect {
                    let value = Value::Scalar(text.to_owned());
                    assert!(is_off(&value, off, key.kind), "{}.{}", group.path, key.name);
                }
            }
        }
    }

    #[test]
    fn alternatives_read_as_a_sentence() {
        assert_eq!(alternatives(&["a"]), "a");
        assert_eq!(alternatives(&["a", "b", "c"]), "a, b or c");
    }
}
