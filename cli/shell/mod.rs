//! `labsh shell`: a terminal on one host.

use std::process::ExitCode;

use clap::Args;
use labsh_proto::message::Program;

use crate::flags::{CommandFlags, ConnectionFlags, EXIT_STATUS, TerminalFlags, form};
use crate::remote;
use crate::remote::connection;
use crate::remote::outcome;
use crate::remote::words::RemoteShell;

const SHELL_FORMS: &str = "\
The terminal:
  Without a command it is a login shell:     labsh shell lab07
  One word is run by your shell there:       labsh shell lab07 'vim notes'
  Several words are run exactly as given:    labsh shell lab07 less /var/log/syslog
  What runs there writes to your terminal directly. TERM, LANG and LC_* go
  along. It ends when its connection is lost.

Escapes, at the start of a line:
  ~.   leave; the host ends what runs in the terminal
  ~^Z  suspend labsh (Ctrl-Z); fg comes back
  ~?   list them
  ~~   type ~ itself";

/// The closing part of `labsh shell --help`.
pub(crate) fn after_help() -> String {
    format!("{SHELL_FORMS}\n\n{EXIT_STATUS}")
}

/// Work in a terminal on a host: a login shell, or a command
#[derive(Debug, Clone, Args)]
#[command(mut_arg("no_stdin", |arg| arg.hide(true)))]
pub(super) struct ShellOptions {
    /// How to reach the host.
    #[command(flatten)]
    pub connection: ConnectionFlags,
    /// How the command runs.
    #[command(flatten)]
    pub command: CommandFlags,
    /// How its terminal is joined to the local one.
    #[command(flatten)]
    pub terminal: TerminalFlags,
    /// Where to run what.
    #[command(flatten)]
    pub remote: RemoteShell,
}

impl ShellOptions {
    /// Returns the command to run.
    pub(super) fn program(&self) -> Program {
        if self.remote.words.is_empty() {
            return Program::LoginShell;
        }
        form(&self.remote.words, self.command.form)
    }
}

/// Runs a login shell or a command in a terminal, and returns the exit status that `labsh shell
/// --help` documents.
pub(super) fn execute(mut options: ShellOptions) -> anyhow::Result<ExitCode> {
    let program = options.program();
    outcome::check_status_fd(&options.command)?;
    if options.command.no_stdin {
        anyhow::bail!("a terminal reads what is typed; leave out -n, or use `labsh run -n`");
    }
    let interaction = remote::interaction(&options.remote.target, options.terminal, false)?;
    let user = options.command.user.as_deref();
    let host = connection::host(&options.remote.target, &options.connection, user)?;
    options.command.user.clone_from(&host.user);
    remote::drive(&host, &program, &options.command, Some(&interaction))
}
