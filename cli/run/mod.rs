//! `labsh run`: one command on one host, or on a set of hosts.

mod display;
mod files;
mod gather;
mod json;
mod lines;
mod many;
pub(super) mod options;

use std::process::ExitCode;

use crate::remote;
use crate::remote::connection;
use crate::remote::outcome;
use crate::remote::words::Targets;
use crate::run::options::RunOptions;

/// Runs the command and returns the exit status that `labsh run --help` documents.
pub(super) fn execute(mut options: RunOptions) -> anyhow::Result<ExitCode> {
    let program = options.program();
    outcome::check_status_fd(&options.command)?;
    let terminal = options.terminal;
    let wants_terminal = options.tty > 0 || terminal.force_tty;
    let target = match &options.remote.target {
        Targets::One(target) if !options.many.need_fanout_for_one() => target,
        Targets::One(_) if wants_terminal => anyhow::bail!(
            "a terminal shows one host as it is; leave -t out, or the options that choose hosts or \
             shape their output"
        ),
        Targets::Set(_) if wants_terminal => {
            anyhow::bail!("a terminal is for one host at a time; name one, or leave -t out")
        }
        targets => {
            return many::execute(
                targets,
                &options.connection,
                program,
                &options.command,
                &options.many,
            );
        }
    };
    let interaction = wants_terminal
        .then(|| remote::interaction(target, terminal, options.tty > 1))
        .transpose()?;
    let host = connection::host(target, &options.connection, options.command.user.as_deref())?;
    options.command.user.clone_from(&host.user);
    remote::drive(&host, &program, &options.command, interaction.as_ref())
}
