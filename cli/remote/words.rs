//! Parses targets and the words of a command from the command line.

use std::ffi::OsString;
use std::fmt;
use std::str::FromStr;

use clap::builder::OsStringValueParser;
use clap::error::ErrorKind;
use clap::{Arg, ArgAction, ArgMatches, Args, FromArgMatches};
use labsh_client::config::target::{BadTarget, Target, has_range};
use labsh_client::terminal_text::escape;

/// A target and the words of a command. Both are one positional argument of the parser, so that the
/// first word ends the options: a word after the target is never taken for an option of labsh.
#[derive(Debug, Clone)]
pub(crate) struct RemoteCommand {
    /// The target.
    pub target: Targets,
    /// The words of the command: at least one.
    pub words: Vec<OsString>,
}

/// The hosts of a command: a single host, or a set.
#[derive(Debug, Clone)]
pub(crate) enum Targets {
    /// A single host, whose streams are joined directly to the local ones.
    One(Target),
    /// The hosts of an expression, even if that is only one.
    Set(String),
}

impl FromStr for Targets {
    type Err = BadTarget;

    fn from_str(text: &str) -> Result<Self, BadTarget> {
        // A lone bracket belongs to no name; the error of the set explains it best.
        let lone_bracket = text.contains(']') && !text.contains('[');
        let wildcard = text.contains(['*', '?']) && !text.starts_with("unix:");
        let operator = |c: char| ",!&^ \t".contains(c);
        let set = text.starts_with('@')
            || has_range(text)
            || text.contains(operator)
            || lone_bracket
            || wildcard;
        let control = text.contains(|c: char| c.is_control() && c != '\t');
        if set && !text.starts_with('-') && !control {
            return Ok(Self::Set(text.to_owned()));
        }
        text.parse().map(Self::One)
    }
}

impl fmt::Display for Targets {
    /// Writes the targets as the user typed them.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Targets::One(target) => target.fmt(formatter),
            Targets::Set(expression) => formatter.write_str(expression),
        }
    }
}

/// The target and the words of a command to explain; parsed like [`RemoteCommand`].
#[derive(Debug, Clone)]
pub(crate) struct RemoteQuestion(pub RemoteCommand);

/// A target and an optional command; parsed like [`RemoteCommand`].
#[derive(Debug, Clone)]
pub(crate) struct RemoteShell {
    /// The target.
    pub target: Target,
    /// The words of the command; empty for a login shell.
    pub words: Vec<OsString>,
}

/// Defines the positional argument that holds target and command.
fn target_and_command(help: &'static str) -> Arg {
    Arg::new("words")
        .value_names(["TARGET", "COMMAND"])
        .help(help)
        .help_heading("Arguments")
        .value_parser(OsStringValueParser::new())
        .action(ArgAction::Append)
        .num_args(1..)
        .required(true)
        .trailing_var_arg(true)
}

/// Splits the positional argument into target and words.
fn target_and_words<T: FromStr<Err = BadTarget>>(
    matches: &ArgMatches,
) -> Result<(T, Vec<OsString>), clap::Error> {
    let mut words = matches.get_many::<OsString>("words").unwrap_or_default().cloned();
    // Bytes that are not UTF-8 become U+FFFD, which a target rejects.
    let text = words.next().unwrap_or_default().to_string_lossy().into_owned();
    let target = text.parse().map_err(|error| {
        let message = format!("invalid value '{}' for '<TARGET>': {error}", escape(&text));
        clap::Error::raw(ErrorKind::ValueValidation, message)
    })?;
    let mut words: Vec<OsString> = words.collect();
    if words.first().is_some_and(|word| word == "--") {
        words.remove(0);
    }
    Ok((target, words))
}

/// Implements clap's traits by the type's function `of`.
macro_rules! positional {
    ($name:ident, $help:expr) => {
        impl Args for $name {
            fn augment_args(command: clap::Command) -> clap::Command {
                command.arg(target_and_command($help))
            }

            fn augment_args_for_update(command: clap::Command) -> clap::Command {
                Self::augment_args(command)
            }
        }

        impl FromArgMatches for $name {
            fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
                Self::of(matches)
            }

            fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
                *self = Self::of(matches)?;
                Ok(())
            }
        }
    };
}

const HOSTS_AND_COMMAND: &str = "The host (name, name:port, [IPv6]:port or unix:/path) or a set \
    of hosts (lab[01-40,52], @group), and the \
     command: one word for your shell there, or several exact words";

positional!(RemoteCommand, HOSTS_AND_COMMAND);
positional!(RemoteQuestion, HOSTS_AND_COMMAND);
positional!(
    RemoteShell,
    "The host (name, name:port, [IPv6]:port or unix:/path), and a command instead of a login \
     shell: one word \
     for your shell there, or several exact words"
);

impl RemoteCommand {
    fn of(matches: &ArgMatches) -> Result<Self, clap::Error> {
        Self::with_command(matches, "run")
    }

    fn with_command(matches: &ArgMatches, subcommand: &str) -> Result<Self, clap::Error> {
        let (target, words) = target_and_words(matches)?;
        if words.is_empty() {
            let message = match &target {
                Targets::One(target) => format!(
                    "there is no command; write it behind the target: labsh {subcommand} {target} \
                     uname -a; \
                     for a shell: labsh shell {target}"
                ),
                Targets::Set(_) => "there is no command; write it behind the targets".to_owned(),
            };
            return Err(clap::Error::raw(ErrorKind::MissingRequiredArgument, message));
        }
        Ok(Self { target, words })
    }
}

impl RemoteQuestion {
    fn of(matches: &ArgMatches) -> Result<Self, clap::Error> {
        RemoteCommand::with_command(matches, "explain").map(Self)
    }
}

impl RemoteShell {
    fn of(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let (target, words) = target_and_words(matches)?;
        Ok(Self { target, words })
    }
}
