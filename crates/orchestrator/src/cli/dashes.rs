//! Flags with one dash: `-config FILE` is `--config FILE`.
//!
//! The program that this one replaces has Go's flag syntax, and unit files are full of it. Only
//! names that some command knows are rewritten, so that `-h` and bundles of short flags stay.

use std::ffi::OsString;

use clap::Command;

/// Doubles the dash of every known long flag, up to a bare `--`.
pub(super) fn double(args: impl IntoIterator<Item = OsString>, command: &Command) -> Vec<OsString> {
    let mut names = vec!["help".to_owned(), "version".to_owned()];
    collect(command, &mut names);
    let mut only_values = false;
    args.into_iter()
        .map(|arg| {
            only_values |= arg == "--";
            match arg.to_str() {
                Some(text) if !only_values && is_long(text, &names) => format!("-{text}").into(),
                _ => arg,
            }
        })
        .collect()
}

fn collect(command: &Command, names: &mut Vec<String>) {
    names.extend(
        command
            .get_arguments()
            .filter_map(|arg| arg.get_long())
            .map(str::to_owned),
    );
    for below in command.get_subcommands() {
        collect(below, names);
    }
}

fn is_long(text: &str, names: &[String]) -> bool {
    let Some(flag) = text.strip_prefix('-').filter(|rest| !rest.starts_with('-')) else {
        return false;
    };
    let name = flag.split_once('=').map_or(flag, |(name, _)| name);
    names.iter().any(|known| known == name)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;
    use crate::cli::args::Cli;

    fn doubled(args: &[&str]) -> Vec<String> {
        double(args.iter().map(OsString::from), &Cli::command())
            .into_iter()
            .map(|arg| arg.into_string().unwrap())
            .collect()
    }

    #[test]
    fn known_long_flags_may_have_one_dash() {
        for (given, expected) in [
            (&["s", "-config", "x"][..], &["s", "--config", "x"][..]),
            (
                &["s", "-config=x", "-mode=all"],
                &["s", "--config=x", "--mode=all"],
            ),
            (
                &["s", "catalogue", "backup", "-to", "f"],
                &["s", "catalogue", "backup", "--to", "f"],
            ),
            (
                &["s", "reconcile", "-recover"],
                &["s", "reconcile", "--recover"],
            ),
            (&["s", "-help"], &["s", "--help"]),
            (&["s", "-version"], &["s", "--version"]),
        ] {
            assert_eq!(doubled(given), expected);
        }
    }

    #[test]
    fn everything_else_stays_as_it_is() {
        for args in [
            &["s", "--config", "x"][..],
            &["s", "-h"],
            &["s", "-V"],
            &["s", "-"],
            &["s", "-hV"],
            &["s", "-confg", "x"],
            &["s", "--", "-config"],
            &["s", "---config"],
            &["s", "config"],
        ] {
            assert_eq!(doubled(args), args);
        }
    }
}
