//! `labsh shell`: a terminal on one host.

use std::process::ExitCode;

use crate::cli::options::ShellOptions;
use crate::cli::{outcome, run};

/// Runs a login shell or a command in a terminal, and returns the exit status that `labsh shell
/// --help` documents.
pub fn execute(mut options: ShellOptions) -> anyhow::Result<ExitCode> {
    let program = options.program();
    outcome::check_status_fd(&options.command)?;
    if options.command.no_stdin {
        anyhow::bail!("a terminal reads what is typed; leave out -n, or use `labsh run -n`");
    }
    let interaction = run::interaction(&options.remote.target, options.terminal, false)?;
    let (connection, user) = run::connection(
        &options.remote.target,
        &options.connection,
        options.command.user.as_deref(),
    )?;
    options.command.user = user;
    run::drive(&connection, &program, &options.command, Some(&interaction))
}
