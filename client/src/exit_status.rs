//! How a command ended, and what it wrote.

use labsh_proto::message::{Exit, Status, Usage};

/// How a command ended, and the resources that it used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExitStatus(pub(crate) Exit);

impl ExitStatus {
    /// Whether the command exited with code 0.
    pub fn success(&self) -> bool {
        self.0.status == Status::Exited(0)
    }

    /// Returns the same status with another exit code, for a caller that knows of a failure that
    /// the command does not.
    pub fn with_code(mut self, code: u8) -> Self {
        self.0.status = Status::Exited(code);
        self
    }

    /// The status of a command whose output was not followed to its end.
    pub(crate) fn without_output(status: Status, [stdout, stderr]: [u64; 2]) -> Self {
        Self(Exit { status, timed_out: false, stdout, stderr, usage: Usage::default() })
    }

    /// Returns the exit code, unless a signal ended the command.
    pub fn code(&self) -> Option<u8> {
        match self.0.status {
            Status::Exited(code) => Some(code),
            Status::Signaled { .. } => None,
        }
    }

    /// Returns the Linux number of the signal that ended the command, if one did.
    pub fn signal(&self) -> Option<u8> {
        match self.0.status {
            Status::Exited(_) => None,
            Status::Signaled { signal, .. } => Some(signal),
        }
    }

    /// Whether the command dumped core.
    pub fn core_dumped(&self) -> bool {
        matches!(self.0.status, Status::Signaled { core_dumped: true, .. })
    }

    /// Whether the server ended the command at its time limit.
    pub fn timed_out(&self) -> bool {
        self.0.timed_out
    }

    /// Returns the processor time and memory that the command used.
    pub fn usage(&self) -> Usage {
        self.0.usage
    }

    /// Returns the bytes that the server sent on stdout and on stderr; those that arrived, if the
    /// output was not followed to its end.
    pub fn totals(&self) -> (u64, u64) {
        (self.0.stdout, self.0.stderr)
    }
}

/// The exit status and the whole output of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// How the command ended.
    pub status: ExitStatus,
    /// Everything that it wrote to stdout.
    pub stdout: Vec<u8>,
    /// Everything that it wrote to stderr.
    pub stderr: Vec<u8>,
}
