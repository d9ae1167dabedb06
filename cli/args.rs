//! The command line of labsh: its subcommands, and which file carries out each.

use std::ffi::OsString;
use std::io;
use std::os::fd::RawFd;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue};
use clap::parser::ValueSource;
use clap::{ArgMatches, CommandFactory, FromArgMatches, Parser, Subcommand};
use labsh_client::terminal_text::{escape, shell_word};

use crate::agent::{self, AgentAction};
use crate::complete::{self, Program};
use crate::console::{self, READER_GONE, REFUSED, note, print};
use crate::cp;
use crate::cp::options::CopyOptions;
use crate::explain::{self, ExplainOptions};
use crate::hosts::{self, HostsOptions};
use crate::json;
use crate::key::{self, KeyAction};
use crate::last::{self, LastOptions};
use crate::lesson;
use crate::lesson::options::LessonOptions;
use crate::man;
use crate::ping::{self, PingOptions};
use crate::remote::outcome;
use crate::rsh;
use crate::rsh::help::RshOptions;
use crate::run;
use crate::run::options::{self as run_options, RunOptions};
use crate::shell::{self, ShellOptions};
use crate::try_command::{self, TryOptions};
use crate::usage;

const CONFIGURATION: &str = "\
Settings:
  Options win over the environment (LABSH_KEY, LABSH_HOST_ID, LABSH_PORT,
  LABSH_CONNECT_TIMEOUT, LABSH_KEEP), and that over files in
  $XDG_CONFIG_HOME/labsh and then in /etc/labsh: a host's table in
  config.toml, then the smallest set in hosts.toml that has it, then [defaults]
  in config.toml.

First steps:
  labsh try 'echo hello'          nothing to set up
  labsh key new                   make a key
  labsh key enroll --host lab07 | ssh lab07 labshd key add
  labsh run lab07 uname -a";

/// Run commands on lab machines: one key, exact words, complete output
#[derive(Debug, Parser)]
#[command(name = "labsh", bin_name = "labsh", version, after_help = CONFIGURATION,
    max_term_width = 100)]
pub(crate) struct CommandLine {
    /// The subcommand.
    #[command(subcommand)]
    pub(crate) action: Action,
}

/// The subcommands. Only the called one defines its options: defining all of them took a tenth of
/// the time of a short command. The description of a subcommand is therefore both here, for the
/// list, and at its options.
#[derive(Debug, Subcommand)]
#[command(defer = true)]
pub(crate) enum Action {
    /// Run a command on a host
    #[command(override_usage = "labsh run [OPTIONS] <TARGET> [--] <COMMAND>...")]
    #[command(after_help = run_options::after_help())]
    Run(Box<RunOptions>),
    /// Work in a terminal on a host: a login shell, or a command
    #[command(override_usage = "labsh shell [OPTIONS] <TARGET> [[--] <COMMAND>...]")]
    #[command(after_help = shell::after_help())]
    Shell(Box<ShellOptions>),
    /// Run a command behind ssh's command line, for tools that run ssh
    Rsh(RshOptions),
    /// Run a command through a labshd of its own on this machine: nothing to set up
    #[command(after_help = try_command::after_help())]
    Try(Box<TryOptions>),
    /// Copy files and directories to hosts, or from them
    #[command(
        override_usage = "labsh cp [OPTIONS] <FILE>... <TARGET:PATH>\n       labsh cp [OPTIONS] \
            <TARGET:PATH>... <PATH>"
    )]
    #[command(after_help = cp::options::after_help())]
    Cp(Box<CopyOptions>),
    /// Ask a host whether it would run a command, and why not; nothing is started
    #[command(override_usage = "labsh explain [OPTIONS] <TARGET> [--] <COMMAND>...",
        after_help = explain::AFTER_HELP)]
    Explain(ExplainOptions),
    /// Measure how long a host takes to answer
    Ping(PingOptions),
    /// List the hosts and groups that are known
    Hosts(Box<HostsOptions>),
    /// Show the outcome of the last run on many hosts; its hosts are the targets @last,
    /// @last:failed, @last:ok, …
    Last(LastOptions),
    /// Make, show and enrol keys
    #[command(subcommand)]
    Key(KeyAction),
    /// Show or stop the process that keeps connections (--keep)
    #[command(subcommand)]
    Agent(AgentAction),
    /// See the sticky-packet problem (粘包) and its fix on real sockets
    #[command(after_help = lesson::options::AFTER_HELP)]
    Lesson(LessonOptions),
    /// Print completions for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page, or write all of them into a directory
    Man {
        /// The directory: a page for each subcommand
        directory: Option<PathBuf>,
    },
}

/// Carries out the command line of labsh and returns its exit status.
pub(crate) fn main() -> ExitCode {
    if let Some(status) = complete::answer(Program::Labsh, CommandLine::command) {
        return status;
    }
    // `labsh rsh` has ssh's command line, which clap cannot parse.
    if std::env::args_os().nth(1).is_some_and(|word| word == "rsh") {
        return rsh::main(std::env::args_os().skip(2));
    }
    let (line, reports) = match parse(std::env::args_os()) {
        Ok(parsed) => parsed,
        // `--help` and `--version` also end here.
        Err(error) => return usage::report(CommandLine::command(), &error, REFUSED),
    };
    if reports.in_json {
        console::use_json();
    }
    execute(line.action).unwrap_or_else(|error| {
        let error_kind = error.downcast_ref::<io::Error>().map(io::Error::kind);
        if error_kind == Some(io::ErrorKind::BrokenPipe) {
            // The reader, as in `… | head`, has enough; a shell's user expects silence.
            return ExitCode::from(READER_GONE);
        }
        reports.failure(&error);
        ExitCode::from(REFUSED)
    })
}

/// The programs that completions are for.
const PROGRAMS: [&str; 3] = ["labsh", "labsh-rsh", "labshd"];

/// Where the called subcommand reports what it is asked to report to programs.
struct Reports {
    in_json: bool,
    status_fd: Option<RawFd>,
}

impl Reports {
    fn of(matches: &ArgMatches) -> Self {
        if let Some((_, subcommand)) = matches.subcommand() {
            return Self::of(subcommand);
        }
        let is_given = |option| {
            matches.try_contains_id(option).is_ok()
                && matches.value_source(option) == Some(ValueSource::CommandLine)
        };
        Self {
            in_json: is_given(usage::JSON),
            status_fd: matches.try_get_one::<RawFd>(usage::STATUS_FD).ok().flatten().copied(),
        }
    }

    /// Reports why labsh failed before or outside the work on hosts.
    fn failure(&self, error: &anyhow::Error) {
        let event = json::failure(json::error_of(error), REFUSED);
        if let Some(descriptor) = self.status_fd.filter(|number| outcome::is_writable(*number)) {
            outcome::write_status(descriptor, &event.clone().line());
        }
        if self.in_json {
            console::note_json(event);
        } else {
            note(&format!("{error:#}"));
        }
    }
}

fn execute(action: Action) -> anyhow::Result<ExitCode> {
    match action {
        Action::Run(options) => run::execute(*options),
        Action::Shell(options) => shell::execute(*options),
        Action::Rsh(_) => Ok(rsh::main(std::env::args_os().skip(2))),
        Action::Try(options) => try_command::execute(*options),
        Action::Cp(options) => cp::execute(*options),
        Action::Explain(options) => explain::execute(&options),
        Action::Ping(options) => ping::execute(options),
        Action::Hosts(options) => hosts::execute(*options),
        Action::Last(options) => last::execute(&options),
        Action::Key(action) => key::execute(action),
        Action::Agent(action) => agent::execute(action),
        Action::Lesson(options) => lesson::execute(options),
        Action::Completions { shell } => completions(shell),
        Action::Man { directory } => man::execute(CommandLine::command(), directory.as_deref()),
    }
}

/// Parses a command line. An error shows the usage of its subcommand.
fn parse(words: impl IntoIterator<Item = OsString>) -> Result<(CommandLine, Reports), clap::Error> {
    let words: Vec<OsString> = words.into_iter().collect();
    let matches = CommandLine::command()
        .try_get_matches_from(&words)
        .map_err(|error| suggest_run(error, &words[1..]))?;
    let parsed = CommandLine::from_arg_matches(&matches);
    parsed.map(|line| (line, Reports::of(&matches))).map_err(|error| {
        let mut command = CommandLine::command();
        command.build();
        match matches.subcommand_name().and_then(|name| command.find_subcommand_mut(name)) {
            Some(subcommand) => error.format(subcommand),
            None => error.format(&mut command),
        }
    })
}

/// Suggests a subcommand for words that begin with a host, as ssh's do.
fn suggest_run(mut error: clap::Error, words: &[OsString]) -> clap::Error {
    let is_first = |value: &ContextValue| match (value, words.first()) {
        (ContextValue::String(text), Some(word)) => word == &**text,
        _ => false,
    };
    let unknown = error.get(ContextKind::InvalidSubcommand).is_some_and(is_first);
    if unknown && error.get(ContextKind::SuggestedSubcommand).is_none() {
        let subcommand = if words.len() > 1 { "run" } else { "shell" };
        let words = words.iter().map(|word| shell_word(&word.to_string_lossy()).into_owned());
        let line = words.collect::<Vec<_>>().join(" ");
        let tip = format!("did you mean `labsh {subcommand} {}`?", escape(&line));
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip.into()]));
    }
    error
}

fn completions(shell: clap_complete::Shell) -> anyhow::Result<ExitCode> {
    let script = match shell {
        clap_complete::Shell::Bash => complete::script(complete::Shell::Bash, &PROGRAMS),
        clap_complete::Shell::Zsh => complete::script(complete::Shell::Zsh, &PROGRAMS),
        clap_complete::Shell::Fish => complete::script(complete::Shell::Fish, &PROGRAMS),
        // For these, only what the definition of the command line contains is completed.
        shell => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut CommandLine::command(), "labsh", &mut script);
            String::from_utf8(script)?
        }
    };
    print(script.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
#[path = "args_tests.rs"]
mod tests;
