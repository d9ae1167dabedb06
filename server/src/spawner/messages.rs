//! Messages between labshd and its spawner: orders, replies, and failures between fork and exec.
//! `wire.rs` encodes and decodes them.

use std::ffi::CStr;

use nix::errno::Errno;
use nix::unistd::{Gid, Uid};

use super::{Ended, Terminal};

/// A message from labshd to the spawner, about one command.
pub(super) enum SpawnerOrder<'a> {
    /// Start the command. The replies are `Attempted`, and then `Spawned` or `Failed`.
    Spawn(Request<'a>),
    /// Send this signal of the client to the command.
    Signal(i32),
    /// Send this signal and SIGCONT to the processes of the command's session, unless the command
    /// has ended by itself.
    End {
        signal: i32,
        /// Whether that includes the background jobs of a terminal that survived a hang-up.
        everything: bool,
    },
    /// Kill the command if its leader still runs, and reap the leader once it has exited. labshd
    /// sends no further order for this command. If it was being started, the spawner replies once:
    /// `Gone`, if neither `Spawned` nor `Failed` has preceded. Otherwise it sends no further reply.
    Release,
}

/// A message from the spawner to labshd, about one command.
#[derive(Debug, PartialEq)]
pub(super) enum SpawnerReply {
    /// The order to start the command was carried out, so that the spawner can take the next one;
    /// the child may still block before exec. Sent for each such order, even for a command that is
    /// released.
    Attempted,
    /// The program has been executed; this is its process id. labshd's descriptors accompany the
    /// first byte: its ends of stdin, stdout and stderr, or the terminal's master.
    Spawned(u32),
    /// The command did not start. No process of it remains.
    Failed(Failure),
    /// The command was released while it was being started, and no process of it remains.
    Gone,
    /// The leader has exited.
    Ended(Ended),
    /// After an `End`: no process is left that another one would signal. It may precede `Ended`.
    Vacant,
}

/// A [`SpawnRequest`](super::SpawnRequest) as the spawner decodes it. The strings are
/// NUL-terminated in the message, so execve(2) can read them there.
#[derive(Clone)]
pub(super) struct Request<'a> {
    pub(super) argv: Vec<&'a CStr>,
    pub(super) program: Option<&'a CStr>,
    pub(super) env: Vec<&'a CStr>,
    pub(super) cwd: &'a CStr,
    pub(super) cwd_fallback_root: bool,
    pub(super) dry_run: bool,
    pub(super) identity: Option<Credentials>,
    pub(super) terminal: Option<Terminal>,
}

/// An [`Identity`](super::Identity) in the types of the system calls.
#[derive(Clone)]
pub(super) struct Credentials {
    pub(super) uid: Uid,
    pub(super) gid: Gid,
    pub(super) groups: Vec<Gid>,
}

/// A message that violates the format. Both ends are the same program, so it is a bug.
#[derive(Debug, thiserror::Error)]
#[error("malformed message between labshd and its spawner")]
pub(super) struct Malformed;

/// The stage at which starting a command failed, and the kernel's error number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) stage: Stage,
    pub(super) errno: Errno,
}

/// The stages of starting a command, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Stage {
    Pipes,
    Terminal,
    Fork,
    Watch,
    Session,
    Descriptors,
    Signals,
    Limits,
    Identity,
    Directory,
    Interpreter,
    Execute,
}

impl Stage {
    pub(super) const ALL: [Stage; 12] = {
        use Stage::*;
        [
            Pipes,
            Terminal,
            Fork,
            Watch,
            Session,
            Descriptors,
            Signals,
            Limits,
            Identity,
            Directory,
            Interpreter,
            Execute,
        ]
    };

    pub(super) fn failed(self, errno: Errno) -> Failure {
        Failure { stage: self, errno }
    }
}

impl Failure {
    /// Length in bytes; below `PIPE_BUF`, so a write to a pipe is atomic.
    pub(super) const LEN: usize = 5;

    pub(super) fn encode(self) -> [u8; Self::LEN] {
        let [a, b, c, d] = (self.errno as i32).to_be_bytes();
        [self.stage as u8, a, b, c, d]
    }

    pub(super) fn decode(bytes: [u8; Self::LEN]) -> Result<Failure, Malformed> {
        let [stage, errno @ ..] = bytes;
        let stage = *Stage::ALL.get(usize::from(stage)).ok_or(Malformed)?;
        Ok(stage.failed(Errno::from_raw(i32::from_be_bytes(errno))))
    }
}
