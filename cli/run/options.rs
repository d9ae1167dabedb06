//! The options of `labsh run`.

use std::path::PathBuf;

use clap::{ArgAction, Args};
use labsh_proto::message::Program;

use crate::flags::{CommandFlags, ConnectionFlags, EXIT_STATUS, TerminalFlags, form};
use crate::remote::words::RemoteCommand;

const RUN_FORMS: &str = "\
The command:
  One word is run by your shell there:       labsh run lab07 'ps aux | wc -l'
  Several words are run exactly as given:    labsh run lab07 grep -r 'a b' /srv
  --shell and --argv choose one explicitly. Options come before TARGET; whatever
  follows it belongs to the command (a -- right behind TARGET is dropped).";

const MANY_HOSTS: &str = "\
Many hosts:
  lab[01-40,52]  @group  @lab-a!lab07  @last:failed  ^file  'lab*'
  Ctrl-C shows who still runs, a second one interrupts the commands, a third
  leaves. stdin goes to all, unless it is a terminal. labsh last shows it again.";

const MANY_EXIT_STATUS: &str = "\
Exit status for many hosts, the first that fits:
  130    you interrupted it; 143: labsh was terminated; 129: its terminal has gone
  255    a host was unreachable or lost, or the output could not be written
  125    a host refused, or was not begun
  1      a command failed, was ended by a signal, or timed out
  0      all succeeded
  --max-status gives the highest status of any host instead of 255, 125 and 1.";

/// The closing part of `labsh run --help`.
pub(crate) fn after_help() -> String {
    format!("{RUN_FORMS}\n\n{MANY_HOSTS}\n\n{MANY_EXIT_STATUS}\n\n{EXIT_STATUS}")
}

/// Run a command on a host
#[derive(Debug, Clone, Args)]
pub(crate) struct RunOptions {
    /// How to reach the host.
    #[command(flatten)]
    pub connection: ConnectionFlags,
    /// How the command runs.
    #[command(flatten)]
    pub command: CommandFlags,
    /// Give the command a terminal, as `labsh shell` does; twice: even if stdin here is none
    #[arg(short = 't', long, action = ArgAction::Count, conflicts_with = "no_stdin")]
    #[arg(help_heading = "Terminal")]
    pub tty: u8,
    /// How its terminal is joined to the local one.
    #[command(flatten)]
    pub terminal: TerminalFlags,
    /// Options for many hosts.
    #[command(flatten)]
    pub many: ManyOptions,
    /// Where to run what.
    #[command(flatten)]
    pub remote: RemoteCommand,
}

impl RunOptions {
    /// Returns the command to run.
    pub(crate) fn program(&self) -> Program {
        form(&self.remote.words, self.command.form)
    }
}

/// How many hosts run at once, and how their output is shown.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Many hosts")]
pub(crate) struct ManyOptions {
    /// Leave these hosts out: a set like TARGET (repeatable)
    #[arg(short = 'x', long, value_name = "HOSTS")]
    pub exclude: Vec<String>,
    /// Only so many of them, chosen at random
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub pick: Option<u32>,
    /// Show hosts with the same output together, when all are over
    #[arg(long, group = "shape")]
    pub gather: bool,
    /// Show the most common output, and how the others differ from it
    #[arg(long, group = "shape")]
    pub diff: bool,
    /// Show no output, only how it ended
    #[arg(short, long, group = "shape")]
    pub quiet: bool,
    /// Write each host's output to DIR/HOST.stdout and DIR/HOST.stderr, byte for byte, and show
    /// none
    #[arg(long, value_name = "DIR", group = "shape")]
    pub out: Option<PathBuf>,
    /// At most this many hosts at work at once
    #[arg(long, value_name = "N", default_value_t = 512,
        value_parser = clap::value_parser!(u32).range(1..))]
    pub parallel: u32,
    /// At most this many connections being opened at once
    #[arg(long, value_name = "N", default_value_t = 64,
        value_parser = clap::value_parser!(u32).range(1..))]
    pub connecting: u32,
    /// Try a connection this many times more; a command is never started twice
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub retries: u32,
    /// Begin no more hosts once one has failed
    #[arg(long)]
    pub fail_fast: bool,
    /// This many hosts at once, and no more once one has failed
    #[arg(long, value_name = "N", conflicts_with = "parallel",
        value_parser = clap::value_parser!(u32).range(1..))]
    pub rolling: Option<u32>,
    /// Exit with the highest status of any host
    #[arg(long)]
    pub max_status: bool,
    /// Show which hosts would be asked, how each is reached and what would be run; start nothing
    #[arg(long, conflicts_with = "json")]
    pub dry_run: bool,
}

impl ManyOptions {
    /// Whether an option needs the mechanism for many hosts even for a single host. The options
    /// that only pace several hosts have no effect on one.
    pub(crate) fn need_fanout_for_one(&self) -> bool {
        let chosen = !self.exclude.is_empty() || self.pick.is_some();
        let shaped = self.gather || self.diff || self.quiet || self.out.is_some();
        chosen || shaped || self.retries > 0 || self.max_status || self.dry_run
    }
}
