//! Targets and the words behind them, as the command line has them.

use std::ffi::OsString;
use std::fmt;
use std::str::FromStr;

use clap::builder::OsStringValueParser;
use clap::error::ErrorKind;
use clap::{Arg, ArgAction, ArgMatches, Args, FromArgMatches};
use labsh_client::config::target::{BadTarget, Target};
use labsh_client::terminal_text::escape;

/// A target and the words behind it.
///
/// Both are one positional argument for the parser: that way the first word ends the options, so
/// that nothing behind the target is ever taken for labsh's own.
#[derive(Debug, Clone)]
pub(crate) struct RemoteCommand {
    /// Where.
    pub target: Targets,
    /// What: at least one word.
    pub words: Vec<OsString>,
}

/// One host, or a set of them.
#[derive(Debug, Clone)]
pub(crate) enum Targets {
    /// One, whose streams are joined to ours as they are.
    One(Target),
    /// As many as the expression gives, be it one.
    Set(String),
}

impl FromStr for Targets {
    type Err = BadTarget;

    fn from_str(text: &str) -> Result<Self, BadTarget> {
        let brackets = text.contains('[') && !text.starts_with('[');
        // A bracket that nothing opens belongs to no name: the set's own error says so best.
        let lone_bracket = text.contains(']') && !text.contains('[');
        let wildcard = text.contains(['*', '?']) && !text.starts_with("unix:");
        let set = text.starts_with('@')
            || brackets
            || text.contains([',', '!', '&', '^', ' '])
            || lone_bracket
            || wildcard;
        if set && !text.starts_with('-') && !text.contains(char::is_control) {
            return Ok(Self::Set(text.to_owned()));
        }
        text.parse().map(Self::One)
    }
}

impl fmt::Display for Targets {
    /// As it was written.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Targets::One(target) => target.fmt(formatter),
            Targets::Set(expression) => formatter.write_str(expression),
        }
    }
}

/// What is asked about rather than run; parsed as [`RemoteCommand`].
#[derive(Debug, Clone)]
pub(crate) struct RemoteQuestion(pub RemoteCommand);

/// A target and, if there are any, the words behind it; parsed as [`RemoteCommand`].
#[derive(Debug, Clone)]
pub(crate) struct RemoteShell {
    /// Where.
    pub target: Target,
    /// What, instead of a login shell.
    pub words: Vec<OsString>,
}

/// The one positional argument of all of them.
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

/// Takes them apart again.
fn target_and_words<T: FromStr<Err = BadTarget>>(
    matches: &ArgMatches,
) -> Result<(T, Vec<OsString>), clap::Error> {
    let mut words = matches.get_many::<OsString>("words").unwrap_or_default().cloned();
    // A byte that is no text becomes U+FFFD, which a target refuses.
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

/// What clap asks of a type that is read by its `of`.
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
