//! The spawner: a small process that forks and reaps every command for labshd.
//!
//! labshd itself never forks once it serves the network. [`launch`] forks the single-threaded
//! spawner first, while labshd has one thread, little memory and no keys. The spawner then forks
//! each command:
//!
//! ```text
//! labshd                                              spawner
//! client.rs ── orders: spawn, signal, release ──▶ process.rs ── fork ──▶ child.rs ── exec
//!           ◀── replies: descriptors, failure, exit ──
//! ```
//!
//! It guarantees that:
//!
//! - A leader that has exited stays a zombie until labshd drops its [`Process`]. So its process id
//!   and group id cannot be reused while labshd may still send a signal to them.
//! - No command outlives labshd: when the socket closes, for whatever reason, the spawner ends the
//!   commands that still run, and then itself.
//! - The spawner never blocks on one command: the result of exec and the exit arrive as events.
//!
//! It needs Linux 5.9 or later (`pidfd_open`, `close_range`).

mod child;
mod client;
mod command;
mod messages;
mod outgoing;
mod pending_signals;
mod process;
mod session_signals;
mod start_error;
mod start_limit;
mod terminal;
mod turns;
mod waiters;
mod wire;

use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use labsh_proto::message::{Status, Usage};

pub use client::{EncodedRequest, Process, Spawner, SpawnerProcess, launch};
pub use start_limit::{StartLimit, StartPermit};
pub(crate) use terminal::set_window_size;
pub use turns::{Line, Turn, Turns};

/// A command to run. It inherits nothing else, except the umask, resource limits, nice value and
/// OOM score that labshd was started with.
#[derive(Clone, Default)]
pub struct SpawnRequest {
    /// The argument vector. Unless `program` is set, the first word is searched in the `PATH` of
    /// `env`, as execvp(3) does. A file in no format that the kernel knows is run by `/bin/sh`.
    pub argv: Vec<Vec<u8>>,
    /// The path to execute instead of `argv[0]`, without a search. A login shell is `/bin/bash`
    /// with the first word `-bash`.
    pub program: Option<Vec<u8>>,
    /// The complete environment, in order.
    pub env: Vec<(Vec<u8>, Vec<u8>)>,
    /// The working directory. It is entered with the rights of `identity`, as a home directory on
    /// NFS may refuse root.
    pub cwd: Vec<u8>,
    /// Whether to use `/` if `cwd` cannot be entered, as login(1) does for a missing home
    /// directory.
    pub cwd_fallback_root: bool,
    /// The user to become; `None` keeps labshd's own.
    pub identity: Option<Identity>,
    /// Whether to stop short of executing the program. The child then writes a [`DryRunResult`] to
    /// its stdout and exits.
    pub dry_run: bool,
    /// A controlling terminal for all three streams; `None` means three pipes.
    pub terminal: Option<Terminal>,
}

/// The result of a dry run. The child writes the two paths, each followed by a NUL byte.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DryRunResult {
    /// The file that would be executed.
    pub program: Vec<u8>,
    /// The working directory that was entered.
    pub directory: Vec<u8>,
}

impl DryRunResult {
    /// Decodes the output of a dry run; `None` if it is malformed.
    pub fn decode(output: &[u8]) -> Option<Self> {
        let mut fields = output.split(|byte| *byte == 0).map(<[u8]>::to_vec);
        match (fields.next(), fields.next(), fields.next(), fields.next()) {
            (Some(program), Some(directory), Some(rest), None) if rest.is_empty() => {
                Some(Self { program, directory })
            }
            _ => None,
        }
    }

    fn encode(&self) -> Vec<u8> {
        [&*self.program, &[0], &*self.directory, &[0]].concat()
    }
}

/// A requested terminal. The command finds its path in `LABSH_TTY` and `SSH_TTY`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Terminal {
    /// The initial size.
    pub size: WindowSize,
    /// The group whose members may write to the terminal through programs like write(1): `tty`,
    /// where that group exists. Used only together with an identity; otherwise the terminal already
    /// belongs to the right user.
    pub group: Option<u32>,
}

/// The size of a terminal (`TIOCSWINSZ`, ioctl_tty(2)). The kernel only stores it, so every value
/// is valid.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WindowSize {
    /// Width in characters.
    pub columns: u16,
    /// Height in characters.
    pub rows: u16,
    /// Width in pixels.
    pub width: u16,
    /// Height in pixels.
    pub height: u16,
}

/// A user's credentials. labshd looks them up: the spawner never queries the user database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Real, effective and saved user id.
    pub uid: u32,
    /// Real, effective and saved group id.
    pub gid: u32,
    /// All supplementary groups.
    pub groups: Vec<u32>,
}

/// A running command: its program has been executed.
#[derive(Debug)]
pub struct Spawned {
    /// Process id of the leader, which is also the id of its process group and its session.
    pub pid: u32,
    /// labshd's ends of the command's streams.
    pub streams: Streams,
    /// The handle on the command.
    pub process: Process,
}

/// labshd's ends of a command's streams: close-on-exec and non-blocking. The command's own ends
/// block.
#[derive(Debug)]
pub enum Streams {
    /// A pipe for each stream.
    Pipes {
        /// Writes to the command's standard input.
        stdin: OwnedFd,
        /// Reads the command's standard output.
        stdout: OwnedFd,
        /// Reads the command's standard error.
        stderr: OwnedFd,
    },
    /// The master side of the terminal (pty(7)). The spawner holds a duplicate of it, so the
    /// terminal is hung up only once the [`Process`] is dropped as well.
    Terminal(OwnedFd),
}

/// The exit status of a command's leader, and its resource usage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    /// Exit status, as wait(2) reports it.
    pub status: Status,
    /// Usage of the leader and of the descendants that it waited for (getrusage(2), `RUSAGE_BOTH`),
    /// from fork to exit. The kernel counts memory from before exec too, so the spawner's copy is a
    /// lower bound for `peak_memory`: about 0.5 MiB, measured with a program that only exits.
    /// `true` shows 1.1 MiB, its own.
    pub usage: Usage,
}

/// Why a command did not start. No process of it remains.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// The program does not exist: a shell's status 127.
    #[error("{program}: command not found")]
    NotFound {
        /// The requested program.
        program: String,
    },
    /// The program exists but cannot be executed (no permission, a directory, no interpreter): a
    /// shell's status 126.
    #[error("{program}: cannot be executed: {source}")]
    NotExecutable {
        /// The requested program.
        program: String,
        /// The kernel's error.
        source: io::Error,
    },
    /// The working directory cannot be entered.
    #[error("cannot enter the working directory {}: {source}", path.display())]
    Directory {
        /// The requested directory.
        path: PathBuf,
        /// The kernel's error.
        source: io::Error,
    },
    /// Arguments and environment exceed the kernel's limits (execve(2), `E2BIG`).
    #[error(
        "the arguments and environment are too large: one word may have 128 KiB, and all together \
         a quarter of the stack limit; pass long input on stdin"
    )]
    TooLarge,
    /// The process could not change to the user.
    #[error("cannot run commands as that user: {source}; labshd must run as root to change users")]
    Identity {
        /// The kernel's error.
        source: io::Error,
    },
    /// The host has no free process, memory or descriptor.
    #[error("the machine is short of processes, memory or descriptors: {source}")]
    Resources {
        /// The kernel's error.
        source: io::Error,
    },
    /// The spawner has exited, so labshd cannot run any command.
    #[error("the spawner process has exited; labshd must be restarted")]
    Lost,
    /// Any other error.
    #[error("cannot start the command ({stage}): {source}")]
    Other {
        /// The stage that failed.
        stage: &'static str,
        /// The error.
        source: io::Error,
    },
}

/// The spawner has exited, so the exit status of the command is unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the spawner process has exited; the command's exit status is unknown")]
pub struct SpawnerLost;
