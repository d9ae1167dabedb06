//! One command on one host: its words, its streams or its terminal, signals, and its outcome.

pub(crate) mod connection;
pub(crate) mod follow;
pub(crate) mod local_streams;
pub(crate) mod optional_env;
pub(crate) mod outcome;
pub(crate) mod own_terminal;
pub(crate) mod pipes;
pub(crate) mod record;
pub(crate) mod terminal;
pub(crate) mod words;

use std::io::{self, IsTerminal};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use labsh_client::config::target::Target;
use labsh_client::fanout::Host;
use labsh_client::{CommandError, ConnectOptions, Session};
use labsh_proto::message::Program;
use tokio::time::timeout;

use crate::console::note;
use crate::flags::{CommandFlags, TerminalFlags};
use crate::remote::outcome::{CommandState, Outcome, Run};
use crate::remote::terminal::Interaction;
use crate::signals::EndSignals;

/// How long a session may take to close when the user has left.
const LEAVE_TIMEOUT: Duration = Duration::from_millis(500);

/// Runs one command on a new runtime; see [`run`].
pub(crate) fn drive(
    host: &Host,
    program: &Program,
    options: &CommandFlags,
    interaction: Option<&Interaction>,
) -> anyhow::Result<ExitCode> {
    // One thread suffices: blocking reads and writes have threads of their own.
    let runtime = labsh_transport::runtime::current_thread()?;
    let code = runtime.block_on(run(host, program, options, interaction));
    // A thread may block in a read of stdin until the process ends.
    runtime.shutdown_background();
    Ok(code)
}

/// Returns how the local terminal and the one on the host are joined.
///
/// # Errors
///
/// When stdin is not a terminal, unless the user forces a terminal on the host.
pub(crate) fn interaction(
    target: &Target,
    flags: TerminalFlags,
    forced: bool,
) -> anyhow::Result<Interaction> {
    if !flags.force_tty && !forced && !io::stdin().is_terminal() {
        anyhow::bail!(
            "stdin is not a terminal; use `labsh run` without -t, or --force-tty to get a \
             terminal on the host anyway"
        );
    }
    Ok(Interaction { escape: flags.escape.unwrap_or_default(), host: Some(target.to_string()) })
}

/// Connects, runs one command, in a terminal if there is an interaction, and reports its outcome.
/// Returns the exit status of labsh.
pub(crate) async fn run(
    host: &Host,
    program: &Program,
    options: &CommandFlags,
    interaction: Option<&Interaction>,
) -> ExitCode {
    let run = Run { host, program, options, began: Instant::now() };
    let connection = &host.connection;
    let mut signals = match EndSignals::new() {
        Ok(signals) => signals,
        Err(error) => return Outcome::no_signals(&error).report(&run, false),
    };
    let session = match connect(connection, &mut signals).await {
        Ok(session) => session,
        Err(outcome) => return outcome.report(&run, false),
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
        Some(interaction) => {
            terminal::run(&session, program, options, &mut signals, interaction).await
        }
        None => pipes::run(&session, program, options, &mut signals, 2).await,
    };
    let left = end.outcome.is_left();
    let code = end.outcome.report(&run, end.stdout_closed);
    close(session, left, &mut signals).await;
    code
}

/// Connects, unless the user ends labsh meanwhile.
pub(crate) async fn connect(
    connection: &ConnectOptions,
    signals: &mut EndSignals,
) -> Result<Session, Outcome> {
    tokio::select! {
        connected = Session::connect_early(connection) => {
            connected.map_err(|error| Outcome::Failed(CommandError::Connect(error)))
        }
        signal = signals.recv() => {
            Err(Outcome::Left { signal, command: CommandState::NotSent })
        }
    }
}

/// Closes a session. A host that does not read can delay that, but hardly for a user who has left
/// or ends labsh meanwhile.
pub(crate) async fn close(session: Session, left: bool, signals: &mut EndSignals) {
    let limit = if left { LEAVE_TIMEOUT } else { Duration::MAX };
    tokio::select! {
        _ = timeout(limit, session.close()) => {}
        _ = signals.recv() => {}
    }
}
