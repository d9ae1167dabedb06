//! The help of `labsh rsh`, also for completions and manual pages, from the tables of options.

use clap::{Arg, ArgAction, ArgMatches, Args, FromArgMatches};

use crate::console;
use crate::rsh::options::{LONG_OPTIONS, SHORT_OPTIONS, Treatment};

/// The first line of the help.
pub(crate) const ABOUT: &str = "Run a command behind ssh's command line, for tools that run ssh";

const NOTES: &str = "\
For tools that run ssh:
  rsync -e 'labsh rsh' …           GIT_SSH_COMMAND='labsh rsh' git …
  The program labsh-rsh is the same, for tools that take only a path.

As with ssh:
  The words are joined with blanks for your shell there. Without any it is a
  login shell, in a terminal if stdin is one. Options may follow HOST. Of two
  values the first counts. SIGTERM leaves at once; the host ends the command.

Settings (-o):
  AddressFamily, ConnectTimeout, EscapeChar, HostKeyAlias (the host id),
  HostName, IdentityFile, LogLevel, Port, RemoteCommand, RequestTTY, SendEnv,
  SessionType, SetEnv, StdinNull and User do what they do with ssh.
  ProxyCommand, ProxyJump, forwardings and BindAddress are refused;
  ForwardAgent and ForwardX11 have no effect, which is said.
  All others are passed over. -F names a configuration of labsh, which then
  counts alone.

Exit status:
  the command's own, or
  128+n  signal n ended the command
  255    labsh or labshd refused or failed, before the command or during it";

/// Describes `labsh rsh` to clap, for help only: clap never parses its command line, because ssh's
/// syntax differs.
#[derive(Debug, Clone)]
pub(crate) struct RshOptions;

impl Args for RshOptions {
    fn augment_args(command: clap::Command) -> clap::Command {
        let shorts = SHORT_OPTIONS.iter().map(|option| {
            let heading = match option.treatment {
                Treatment::Honoured => "Options",
                Treatment::Passed | Treatment::Missed(_) => "Options of ssh that have no effect",
                Treatment::Refused(_) => "Options of ssh that are refused",
            };
            let arg = Arg::new(option.letter).short(option.letter.chars().next());
            described(arg, option.value, option.help).help_heading(heading)
        });
        let longs = LONG_OPTIONS.iter().map(|option| {
            described(Arg::new(option.name).long(option.name), option.value, option.help)
                .help_heading("Options of labsh")
        });
        let words = Arg::new("words")
            .value_names(["HOST", "COMMAND"])
            .help(
                "The host ([USER@]HOST, ssh://[USER@]HOST[:PORT] or a target of labsh) and the \
                command",
            )
            .help_heading("Arguments")
            .action(ArgAction::Append)
            .num_args(1..)
            .required(true)
            .trailing_var_arg(true);
        command
            .override_usage("labsh rsh [OPTIONS] [USER@]HOST [COMMAND...]")
            .disable_help_flag(true)
            .disable_version_flag(true)
            .after_help(NOTES)
            .args(shorts)
            .args(longs)
            .arg(words)
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for RshOptions {
    fn from_arg_matches(_: &ArgMatches) -> Result<Self, clap::Error> {
        Ok(Self)
    }

    fn update_from_arg_matches(&mut self, _: &ArgMatches) -> Result<(), clap::Error> {
        Ok(())
    }
}

fn described(arg: Arg, value: Option<&'static str>, help: &'static str) -> Arg {
    let arg = match value {
        Some(name) => arg.value_name(name).action(ArgAction::Set),
        None => arg.action(ArgAction::SetTrue),
    };
    arg.help(help)
}

/// Prints the help.
pub(crate) fn print() -> anyhow::Result<()> {
    console::print(definition().render_help().to_string().as_bytes())
}

/// Returns the definition of `labsh rsh` as a program.
pub(crate) fn definition() -> clap::Command {
    let command = clap::Command::new("rsh").bin_name("labsh rsh").about(ABOUT).max_term_width(100);
    RshOptions::augment_args(command)
}
