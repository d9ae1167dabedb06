//! The signals by which a person or a program ends labsh: SIGINT and SIGTERM.

use std::io;

use labsh_client::{SIGINT, SIGTERM};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::console::survive_file_size_limit;

/// A signal that asks labsh to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EndSignal {
    /// SIGINT, as Ctrl-C sends it.
    Interrupt,
    /// SIGTERM.
    Terminate,
}

impl EndSignal {
    /// The number of the signal (signal(7)).
    pub(crate) fn number(self) -> u8 {
        match self {
            EndSignal::Interrupt => SIGINT,
            EndSignal::Terminate => SIGTERM,
        }
    }

    /// The exit status of a shell's command that the signal ended.
    pub(crate) fn exit_status(self) -> u8 {
        128 + self.number()
    }
}

/// Receives the signals that ask labsh to end; while it exists, they do not end the process.
pub(crate) struct EndSignals {
    interrupt: Signal,
    terminate: Signal,
}

impl EndSignals {
    /// Starts to receive them, and makes writes beyond RLIMIT_FSIZE fail instead of end labsh.
    /// Needs a runtime.
    pub(crate) fn new() -> io::Result<Self> {
        survive_file_size_limit()?;
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    /// Waits for the next signal. Cancel safe.
    pub(crate) async fn recv(&mut self) -> EndSignal {
        tokio::select! {
            _ = self.interrupt.recv() => EndSignal::Interrupt,
            _ = self.terminate.recv() => EndSignal::Terminate,
        }
    }
}
