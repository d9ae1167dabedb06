//! One command through pipes: our three streams joined to its, our signals to it.

use std::io;

use labsh_proto::message::Program;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::child::Child;
use crate::cli::follow::{self, End, Here, follow};
use crate::cli::local_streams::read_in;
use crate::cli::note;
use crate::cli::options::CommandOptions;
use crate::cli::outcome::Outcome;
use crate::command::Stdio;
use crate::session::Session;

const SIGINT: u8 = 2;
const SIGTERM: u8 = 15;

/// Runs the command to its end.
pub(crate) async fn carry(session: &Session, program: &Program, options: &CommandOptions) -> End {
    let mut command = follow::command(session, program, options);
    command.stdin(if options.no_stdin { Stdio::Null } else { Stdio::Piped });
    let mut child = match command.open().await {
        Ok(child) => child,
        Err(error) => return Outcome::Failed(error).into(),
    };
    let mut signals = match Signals::new() {
        Ok(signals) => signals,
        Err(error) => return Outcome::no_signals(&error).into(),
    };
    match child.stdin.take().map(read_in).transpose() {
        Ok(unreadable) => follow(child, unreadable, options.no_wait_eof, &mut signals).await,
        Err(error) => Outcome::NotRead { error }.into(),
    }
}

/// Interrupts and terminations are the command's first, and ours where it does not heed them.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    interrupts: u32,
    terminations: u32,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            interrupts: 0,
            terminations: 0,
        })
    }
}

impl Here for Signals {
    async fn attend(&mut self, child: &Child, only_leftovers: bool) -> Option<Outcome> {
        tokio::select! {
            _ = self.interrupt.recv() => {
                self.interrupts += 1;
                match self.interrupts {
                    // The command has ended already; only the wait for what it left behind can be cut short.
                    _ if only_leftovers => return Some(Outcome::Left { signal: SIGINT }),
                    1 => {}
                    2 => note("the command was told again; once more leaves it to the host, which ends it"),
                    _ => return Some(Outcome::Left { signal: SIGINT }),
                }
                child.signal(SIGINT);
            }
            _ = self.terminate.recv() => {
                self.terminations += 1;
                if self.terminations > 1 {
                    return Some(Outcome::Left { signal: SIGTERM });
                }
                child.signal(SIGTERM);
            }
        }
        None
    }

    fn say(&self, text: &str) {
        note(text);
    }
}
