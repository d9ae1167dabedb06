//! Runs one command through pipes: joins the local streams to it and passes on signals.

use labsh_client::{Child, CommandError, Session, Stdio};
use labsh_proto::message::Program;

use crate::console::remark;
use crate::flags::CommandFlags;
use crate::remote::follow::{self, End, LocalUser, follow};
use crate::remote::local_streams::read_in;
use crate::remote::optional_env;
use crate::remote::outcome::{CommandState, Outcome};
use crate::signals::{EndSignal, EndSignals};

/// Runs the command to its end. At the SIGTERM of number `last_termination`, counted from 1, labsh
/// leaves, and the host ends the command.
pub(crate) async fn run(
    session: &Session,
    program: &Program,
    options: &CommandFlags,
    signals: &mut EndSignals,
    last_termination: u32,
) -> End {
    let started = tokio::select! {
        started = start(session, program, options) => started,
        signal = signals.recv() => {
            return Outcome::Left { signal, command: CommandState::Sent }.into();
        }
    };
    let mut child = match started {
        Ok(child) => child,
        Err(error) => return Outcome::Failed(error).into(),
    };
    let mut user =
        PipesUser { signals, interrupts: 0, terminations: 0, last_termination, passed_on: None };
    match child.stdin.take().map(read_in).transpose() {
        Ok(unreadable) => follow(child, unreadable, options.no_wait_eof, &mut user).await,
        Err(error) => Outcome::NotRead { error }.into(),
    }
}

async fn start(
    session: &Session,
    program: &Program,
    options: &CommandFlags,
) -> Result<Child, CommandError> {
    let mut command = follow::command(session, program, options);
    command.stdin(if options.no_stdin { Stdio::Null } else { Stdio::Piped });
    if options.env_where_allowed.is_empty() {
        return command.open().await;
    }
    // Stdin is not read before the host has accepted one of the attempts.
    optional_env::open(&command, options.env_where_allowed.clone()).await
}

/// The local user of a command with pipes. SIGINT and SIGTERM are passed on to the command first,
/// and end labsh where the command does not end by them.
struct PipesUser<'a> {
    signals: &'a mut EndSignals,
    interrupts: u32,
    terminations: u32,
    last_termination: u32,
    passed_on: Option<EndSignal>,
}

impl LocalUser for PipesUser<'_> {
    async fn attend(&mut self, child: &Child) -> Option<Outcome> {
        let signal = self.signals.recv().await;
        let left = Some(Outcome::left(signal, child));
        if child.is_opening() || child.end_status().is_some() {
            // A host that does not answer has started nothing that could be signaled; or the
            // command has ended, and only the wait for its output can be cut short.
            return left;
        }
        match signal {
            EndSignal::Interrupt => {
                self.interrupts += 1;
                match self.interrupts {
                    1 => {}
                    2 => remark(
                        "the command got the signal again; a third one makes labsh leave, and the \
                         host ends it",
                    ),
                    _ => return left,
                }
                let _ = child.signal(signal.number());
            }
            EndSignal::Terminate => {
                self.terminations += 1;
                if self.terminations == 1 {
                    let _ = child.signal(signal.number());
                }
                if self.terminations >= self.last_termination {
                    return left;
                }
            }
            // The host sends the command SIGHUP when its client has gone.
            EndSignal::Hangup | EndSignal::Quit => return left,
        }
        self.passed_on = Some(signal);
        None
    }

    fn passed_on(&self) -> Option<EndSignal> {
        self.passed_on
    }

    fn notify(&self, text: &str) {
        remark(text);
    }
}
