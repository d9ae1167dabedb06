//! The command line of labshd.

mod key;

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{CommandFactory, Parser, Subcommand};
use labsh_diagnostics::Diagnostics;
use labsh_server::account::{RunsAs, user_exists};
use labsh_server::logs::Escaped;
use labsh_server::reload::SettingsSource;
use labsh_server::{check, copying, daemon, logs, memory, spawner};

use self::key::KeyCommand;
use crate::complete::{self, Program};
use crate::{console, json, usage};

const EXIT_STATUSES: &str = "\
Exit status:
  0  all is well; or labshd was asked to stop, and has stopped
  1  something is wrong or went wrong; standard error says what, and what to do
  2  the command line is wrong";

/// The exit status of a command line that is wrong.
const WRONG_USAGE: u8 = 2;

/// Runs commands that are sent with labsh
#[derive(Debug, Parser)]
#[command(name = "labshd", version, after_help = EXIT_STATUSES)]
struct Cli {
    /// The configuration file; by default /etc/labsh/labshd.toml for root, and
    /// $XDG_CONFIG_HOME/labshd/labshd.toml for other users, neither of which needs to exist
    #[arg(long, global = true, value_name = "FILE", env = "LABSHD_CONFIG")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve until asked to stop; the default
    ///
    /// SIGHUP reads configuration and keys again; a mistake in them changes nothing and is logged.
    /// SIGTERM lets running commands end first.
    Run,
    /// Print what labshd would do, or every mistake in its files
    Check,
    /// Add, list and remove the keys that may enter
    #[command(subcommand)]
    Key(KeyCommand),
    /// Be the far side of labsh cp on stdin and stdout
    #[command(hide = true)]
    CopyServe,
}

/// The exit status of a failure.
const FAILED: u8 = 1;

impl Cli {
    /// Whether the subcommand is asked for JSON.
    fn wants_json(&self) -> bool {
        matches!(&self.command, Some(Command::Key(KeyCommand::List(options))) if options.json)
    }
}

/// Carries out the command line and returns its exit status.
pub(crate) fn main() -> ExitCode {
    if let Some(status) = complete::answer(Program::Labshd, Cli::command) {
        return status;
    }
    console::set_program("labshd");
    let line = match Cli::try_parse() {
        Ok(line) => line,
        Err(error) => return usage::report(Cli::command(), &error, WRONG_USAGE),
    };
    if line.wants_json() {
        console::use_json();
    }
    match execute(line) {
        Ok(code) => code,
        Err(error) if console::uses_json() => {
            console::note_json(json::failure(json::error_of(&error), FAILED));
            ExitCode::from(FAILED)
        }
        Err(error) => {
            complain(&format!("labshd: {error:#}"));
            ExitCode::from(FAILED)
        }
    }
}

fn execute(cli: Cli) -> anyhow::Result<ExitCode> {
    let source = || SettingsSource::new(cli.config);
    match cli.command.unwrap_or(Command::Run) {
        Command::Run => run(source()?),
        Command::Check => match check::run(&source()?, &RunsAs::current(), &user_exists) {
            Ok(text) => print(&text),
            Err(diagnostics) => Ok(report(diagnostics)),
        },
        Command::Key(command) => {
            let (config, diagnostics) = source()?.read_config();
            if !diagnostics.is_empty() {
                return Ok(report(Diagnostics(diagnostics)));
            }
            key::execute(command, &config.keys_dir)
        }
        // The files of labshd do not concern the user that this runs as.
        Command::CopyServe => copying::serve(),
    }
}

fn run(source: SettingsSource) -> anyhow::Result<ExitCode> {
    // Before anything else: commands inherit the state of this process, and the copy must hold no
    // keys.
    let spawner = spawner::launch().context("cannot start the spawner")?;
    memory::use_one_heap();
    // Before the log exists, so that a person who starts labshd sees every mistake on a line of its
    // own.
    let config = match source.load() {
        Ok(settings) => settings.config,
        Err(diagnostics) => return Ok(report(diagnostics)),
    };
    let _log = logs::init(config.log_format, config.log_level)?;
    match daemon::run(source, spawner) {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(error) => {
            tracing::error!(reason = format!("{error:#}"), "labshd ends");
            Ok(ExitCode::FAILURE)
        }
    }
}

fn print(text: &str) -> anyhow::Result<ExitCode> {
    match writeln!(io::stdout(), "{text}") {
        // The reader has enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
        result => result?,
    }
    Ok(ExitCode::SUCCESS)
}

fn report(diagnostics: Diagnostics) -> ExitCode {
    for diagnostic in diagnostics.0 {
        if console::uses_json() {
            console::note_json(json::failure(json::error_of_diagnostic(&diagnostic), FAILED));
        } else {
            complain(&Escaped(diagnostic).to_string());
        }
    }
    ExitCode::from(FAILED)
}

fn complain(text: &str) {
    // A closed stderr cannot be reported anywhere.
    let _ = writeln!(io::stderr(), "{text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split(' '))
    }

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn labshd_alone_serves() {
        assert!(parse("labshd").unwrap().command.is_none());
        assert!(matches!(parse("labshd run --config x").unwrap().command, Some(Command::Run)));
        assert_eq!(parse("labshd check --config x").unwrap().config, Some(PathBuf::from("x")));
    }

    #[test]
    fn a_secret_is_not_taken_from_the_command_line() {
        assert!(parse("labshd key add labsh-host-1").is_err());
        assert!(
            parse("labshd key add --user bob --from 10.0.0.0/8 --from ::1 --expires 2031-12-31")
                .is_ok()
        );
    }

    #[test]
    fn wrong_arguments_say_what_is_right() {
        let error = parse("labshd key add --from lab07").unwrap_err().to_string();
        assert!(error.contains("10.0.0.0/8"), "{error}");
        let error = parse("labshd key add --expires tomorrow").unwrap_err().to_string();
        assert!(error.contains("2031-12-31"), "{error}");
    }
}
