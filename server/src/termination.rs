//! How labshd ends a command: the causes, and the signals that follow from each.

use std::time::Duration;

use nix::libc::{SIGHUP, SIGKILL, SIGTERM};
use tokio::time::Instant;

use crate::spawner::Process;

/// Time that a command has to end after SIGKILL. One that does not waits in the kernel, for example
/// for a file server that does not respond.
const KILL_TIMEOUT: Duration = Duration::from_secs(5);

/// Why labshd ends a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    ClientGone,
    /// The client stopped reading the terminal's output. With pipes, the command gets SIGPIPE.
    ReaderGone,
    Timeout,
    Stopping,
}

impl Cause {
    /// Returns the value of the log field `cause`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Cause::ClientGone => "client gone",
            Cause::ReaderGone => "reader gone",
            Cause::Timeout => "timeout",
            Cause::Stopping => "labshd stops",
        }
    }

    /// Returns the signals, from the mildest to SIGKILL. A lost client is a hang-up, like a lost
    /// terminal. With a terminal every cause begins with a hang-up: an interactive shell ignores
    /// SIGTERM.
    fn signals(self, terminal: bool) -> &'static [i32] {
        match self {
            Cause::Timeout | Cause::Stopping if !terminal => &[SIGTERM, SIGKILL],
            _ => &[SIGHUP, SIGTERM, SIGKILL],
        }
    }
}

/// The signals that end a command, `grace` apart. The leader stays unreaped until the last one, so
/// that the id of its session is not reused.
pub(crate) struct Termination {
    pub(crate) cause: Cause,
    /// The signals that remain.
    signals: &'static [i32],
    due: Instant,
    grace: Duration,
}

impl Termination {
    /// Creates a termination whose first signal is due now.
    pub(crate) fn new(cause: Cause, terminal: bool, grace: Duration) -> Self {
        Self { cause, signals: cause.signals(terminal), due: Instant::now(), grace }
    }

    /// Returns the time of the next signal, if one remains.
    pub(crate) fn due(&self) -> Option<Instant> {
        (!self.signals.is_empty()).then_some(self.due)
    }

    /// Sends the next signal.
    pub(crate) fn step(&mut self, process: &Process) {
        let Some((signal, rest)) = self.signals.split_first() else { return };
        // A time limit is for all of the command, what it has put in the background included.
        process.end(*signal, self.cause == Cause::Timeout);
        self.signals = rest;
        self.due = Instant::now() + if rest.is_empty() { KILL_TIMEOUT } else { self.grace };
    }

    /// Returns when a leader that still runs is no longer waited for, if no signal remains.
    pub(crate) fn abandonment(&self) -> Option<Instant> {
        self.signals.is_empty().then_some(self.due)
    }

    /// Drops the remaining signals.
    pub(crate) fn finish(&mut self) {
        self.signals = &[];
    }
}
