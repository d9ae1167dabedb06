//! One command on one host: its words, its streams or its terminal, our signals, its outcome.

pub(crate) mod connection;
pub(crate) mod follow;
pub(crate) mod local_streams;
pub(crate) mod optional_env;
pub(crate) mod outcome;
pub(crate) mod own_terminal;
pub(crate) mod pipes;
pub(crate) mod terminal;
pub(crate) mod words;

use std::io::{self, IsTerminal};
use std::process::ExitCode;

use labsh_client::CommandError;
use labsh_client::ConnectOptions;
use labsh_client::Session;
use labsh_client::config::target::Target;
use labsh_proto::message::Program;

use crate::console::note;
use crate::flags::{CommandOptions, TerminalFlags};
use crate::remote::outcome::Outcome;
use crate::remote::terminal::Interaction;

/// [`run`], on a runtime of its own.
pub(crate) fn drive(
    connection: &ConnectOptions,
    program: &Program,
    options: &CommandOptions,
    interaction: Option<&Interaction>,
) -> anyhow::Result<ExitCode> {
    // One thread drives everything that waits; the streams have threads of their own.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let code = runtime.block_on(run(connection, program, options, interaction));
    // A thread may sit in a read of our stdin for ever.
    runtime.shutdown_background();
    Ok(code)
}

/// How a terminal on this target is joined to ours; it cannot be where stdin is none, unless that
/// is what they want.
pub(crate) fn interaction(
    target: &Target,
    flags: TerminalFlags,
    forced: bool,
) -> anyhow::Result<Interaction> {
    if !flags.force_tty && !forced && !io::stdin().is_terminal() {
        anyhow::bail!(
            "stdin is not a terminal; use `labsh run` without -t, or have a terminal over there \
             all the same: --force-tty"
        );
    }
    Ok(Interaction { escape: flags.escape.unwrap_or_default(), host: Some(target.to_string()) })
}

/// Connects, runs one command, in a terminal of its own where there is an interaction, and tells
/// how it ended.
pub(crate) async fn run(
    connection: &ConnectOptions,
    program: &Program,
    options: &CommandOptions,
    interaction: Option<&Interaction>,
) -> ExitCode {
    let session = match Session::connect_early(connection).await {
        Ok(session) => session,
        Err(error) => {
            return Outcome::Failed(CommandError::Connect(error)).report(options, program, false);
        }
    };
    if options.verbose {
        let key = &connection.key;
        note(&format!(
            "connected to {}, key {}, host id {}",
            connection.address,
            key.key_id(),
            key.host_id()
        ));
    }
    let end = match interaction {
        Some(interaction) => terminal::carry(&session, program, options, interaction).await,
        None => pipes::carry(&session, program, options, 2).await,
    };
    let code = end.outcome.report(options, program, end.stdout_closed);
    session.close().await;
    code
}
