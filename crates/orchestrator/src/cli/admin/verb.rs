//! The verbs of `admin` as the command line parser sees them, made of the table of calls.

use clap::error::ErrorKind;
use clap::{Arg, ArgMatches, Command, FromArgMatches, Subcommand};

use crate::admin::client::AdminCall;
use crate::admin::{AdminEntry, Param, verbs};

/// The call that the arguments ask for.
#[derive(Debug, Clone)]
pub(in crate::cli) struct AdminVerb(pub(super) AdminCall);

impl Subcommand for AdminVerb {
    fn augment_subcommands(command: Command) -> Command {
        command.subcommands(verbs().into_iter().map(|(verb, entries)| {
            // What the first call of a verb does is what the verb is about.
            let about = entries.first().map_or("", |entry| entry.about);
            let params = entries.iter().flat_map(|entry| entry.params);
            params.fold(Command::new(verb).about(about), |command, param| {
                let required = entries.iter().all(|entry| takes(entry, param));
                let arg = Arg::new(param.flag).long(param.flag);
                let arg = arg.value_name(param.value).help(param.about);
                command.arg(arg.required(required))
            })
        }))
    }

    fn augment_subcommands_for_update(command: Command) -> Command {
        Self::augment_subcommands(command)
    }

    fn has_subcommand(name: &str) -> bool {
        verbs().iter().any(|(verb, _)| *verb == name)
    }
}

fn takes(entry: &AdminEntry, param: &Param) -> bool {
    entry.params.iter().any(|taken| taken.flag == param.flag)
}

impl FromArgMatches for AdminVerb {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let unknown = || clap::Error::new(ErrorKind::InvalidSubcommand);
        let (name, given) = matches.subcommand().ok_or_else(unknown)?;
        let found = verbs().into_iter().find(|(verb, _)| *verb == name);
        let (_, entries) = found.ok_or_else(unknown)?;
        let value = |param: &'static Param| {
            let value = given.get_one::<String>(param.flag)?;
            Some((param, value.clone()))
        };
        // Of several calls, the one that takes all that was given.
        let calls = entries.into_iter().filter_map(|entry| {
            let values: Option<Vec<_>> = entry.params.iter().map(value).collect();
            Some(AdminCall {
                entry,
                values: values?,
            })
        });
        let call = calls.max_by_key(|call| call.values.len());
        Ok(Self(call.ok_or_else(unknown)?))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}
