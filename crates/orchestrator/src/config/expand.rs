//! `${NAME}` inside values.
//!
//! `${NAME}` is the variable and must be set, `${NAME:-default}` stands in where it is unset or
//! empty, `$$` is a dollar. A value that comes from the environment is not looked at again, so
//! whatever a secret contains arrives unharmed. A bare `$NAME` stays as it is.

use super::environment::Environment;

/// What came out of one value.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Expanded {
    pub(super) text: String,
    /// Names that stood there bare, as `$NAME`, while a variable of that name exists.
    pub(super) bare: Vec<String>,
}

/// Why a value cannot be expanded.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ExpandError {
    #[error("the environment variable {0} is not set")]
    Unset(String),
    #[error("'${{' without a closing '}}'")]
    Open,
    #[error("'${{{0}}}' does not name a variable")]
    Name(String),
}

impl ExpandError {
    pub(super) fn way_out(&self) -> String {
        match self {
            Self::Unset(name) => format!("set it, or write ${{{name}:-default}}"),
            Self::Open | Self::Name(_) => {
                "write ${NAME} or ${NAME:-default}, and $$ for a dollar".to_owned()
            }
        }
    }
}

/// Expands one value.
pub(super) fn expand(text: &str, env: &dyn Environment) -> Result<Expanded, ExpandError> {
    let mut out = String::with_capacity(text.len());
    let mut bare = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(tail) = rest.strip_prefix('$') {
            out.push('$');
            rest = tail;
        } else if let Some(tail) = rest.strip_prefix('{') {
            let end = tail.find('}').ok_or(ExpandError::Open)?;
            out.push_str(&lookup(&tail[..end], env)?);
            rest = &tail[end + 1..];
        } else {
            out.push('$');
            let name = name_prefix(rest);
            if !name.is_empty() && env.get(name).is_some() {
                bare.push(name.to_owned());
            }
        }
    }
    out.push_str(rest);
    Ok(Expanded { text: out, bare })
}

fn lookup(inner: &str, env: &dyn Environment) -> Result<String, ExpandError> {
    let (name, default) = match inner.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (inner, None),
    };
    if name.is_empty() || name_prefix(name) != name {
        return Err(ExpandError::Name(inner.to_owned()));
    }
    match (env.get(name), default) {
        (Some(value), None) => Ok(value),
        (Some(value), Some(_)) if !value.is_empty() => Ok(value),
        (_, Some(default)) => Ok(default.to_owned()),
        (None, None) => Err(ExpandError::Unset(name.to_owned())),
    }
}

/// The longest beginning that is the name of a variable.
fn name_prefix(text: &str) -> &str {
    let end = text
        .char_indices()
        .find(|(at, c)| !(c.is_ascii_alphabetic() || *c == '_' || *at > 0 && c.is_ascii_digit()))
        .map_or(text.len(), |(at, _)| at);
    &text[..end]
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::{any, proptest};

    use super::*;

    fn env() -> HashMap<String, String> {
        [
            ("HOME", "/root"),
            ("EMPTY", ""),
            ("TRICKY", "a${HOME}$$ $HOME: #\n\"'"),
            ("A_1", "one"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into()
    }

    fn text(input: &str) -> String {
        expand(input, &env()).unwrap().text
    }

    #[test]
    fn braces_name_variables() {
        assert_eq!(text("${HOME}/data"), "/root/data");
        assert_eq!(text("${A_1}${A_1}"), "oneone");
        assert_eq!(text("${EMPTY}"), "");
        assert_eq!(text("${EMPTY:-x}"), "x");
        assert_eq!(text("${NOPE:-x y}"), "x y");
        assert_eq!(text("${NOPE:-}"), "");
        assert_eq!(text("${HOME:-x}"), "/root");
        assert_eq!(text("${NOPE:-a:-b}"), "a:-b");
    }

    #[test]
    fn a_value_from_the_environment_is_not_expanded_again() {
        assert_eq!(text("${TRICKY}"), "a${HOME}$$ $HOME: #\n\"'");
    }

    #[test]
    fn two_dollars_are_one() {
        assert_eq!(text("a$$b"), "a$b");
        assert_eq!(text("$${HOME}"), "${HOME}");
        assert_eq!(text("$$$$"), "$$");
    }

    #[test]
    fn bare_dollars_stay_and_are_reported_where_a_variable_exists() {
        // A bcrypt hash, which the reference implementation used to mangle.
        let hash = "$2a$10$N9qo8uLOickgx2ZMRZoMye";
        assert_eq!(
            expand(hash, &env()),
            Ok(Expanded {
                text: hash.to_owned(),
                bare: vec![]
            })
        );
        assert_eq!(
            expand("$HOME/$NOPE/$", &env()),
            Ok(Expanded {
                text: "$HOME/$NOPE/$".to_owned(),
                bare: vec!["HOME".to_owned()]
            })
        );
    }

    #[test]
    fn what_cannot_be_expanded_is_an_error() {
        let error = |input: &str| expand(input, &env()).unwrap_err();
        assert_eq!(error("${NOPE}"), ExpandError::Unset("NOPE".to_owned()));
        assert_eq!(error("${HOME"), ExpandError::Open);
        assert_eq!(error("${}"), ExpandError::Name(String::new()));
        assert_eq!(error("${1A}"), ExpandError::Name("1A".to_owned()));
        assert_eq!(error("${A B}"), ExpandError::Name("A B".to_owned()));
    }

    proptest! {
        #[test]
        fn a_text_with_doubled_dollars_comes_out_as_it_was(value in any::<String>()) {
            let written = value.replace('$', "$$");
            assert_eq!(text(&written), value);
        }
    }
}
