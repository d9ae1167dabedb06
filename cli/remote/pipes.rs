//! Runs one command through pipes: joins the local streams to it and passes on signals.

use std::io;

use labsh_client::{Child, CommandError, Session, Stdio};
use labsh_proto::message::Program;

use crate::console::remark;
use crate::flags::CommandFlags;
use crate::remote::follow::{self, End, LocalUser, follow};
use crate::remote::local_streams::read_in;
use crate::remote::optional_env;
use crate::remote::outcome::Outcome;
use crate::signals::{EndSignal, EndSignals};

/// Runs the command to its end. At the SIGTERM of number `last_termination`, counted from 1, labsh
/// leaves, and the host ends the command.
pub(crate) async fn run(
    session: &Session,
    program: &Program,
    options: &CommandFlags,
    last_termination: u32,
) -> End {
    let mut child = match start(session, program, options).await {
        Ok(child) => child,
        Err(error) => return Outcome::Failed(error).into(),
    };
    let mut signals = match Signals::new(last_termination) {
        Ok(signals) => signals,
        Err(error) => return Outcome::no_signals(&error).into(),
    };
    match child.stdin.take().map(read_in).transpose() {
        Ok(unreadable) => follow(child, unreadable, options.no_wait_eof, &mut signals).await,
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

/// What SIGINT and SIGTERM do: each is passed on to the command first, and ends labsh where the
/// command does not end by it.
struct Signals {
    received: EndSignals,
    interrupts: u32,
    terminations: u32,
    last_termination: u32,
}

impl Signals {
    fn new(last_termination: u32) -> io::Result<Self> {
        let received = EndSignals::new()?;
        Ok(Self { received, interrupts: 0, terminations: 0, last_termination })
    }
}

impl LocalUser for Signals {
    async fn attend(&mut self, child: &Child, only_leftovers: bool) -> Option<Outcome> {
        let signal = self.received.recv().await;
        let left = Some(Outcome::Left { signal: signal.number() });
        match signal {
            EndSignal::Interrupt => {
                self.interrupts += 1;
                match self.interrupts {
                    // The command has ended, and only the wait for the processes that it left can
                    // be cut short; or a host that does not answer has not started it.
                    _ if only_leftovers || child.is_opening() => return left,
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
                if self.terminations >= self.last_termination || child.is_opening() {
                    return left;
                }
            }
        }
        None
    }

    fn notify(&self, text: &str) {
        remark(text);
    }
}
