//! What a command is when it is asked for and what became of it: changes with the words labshd and
//! its spawner share.
//!
//! labshd never forks once it serves the network. [`launch`] forks a small single-threaded
//! *spawner* first, before there are threads to lose, memory to copy or keys to leak; every command
//! is then forked by it:
//!
//! ```text
//! labshd                                              spawner
//! client.rs ── requests, signals, releases ──▶ process.rs ── fork ──▶ child.rs ── exec ──▶ command
//!           ◀── descriptors, ends, failures ──
//! ```
//!
//! Three promises hold everything together:
//!
//! - A leader that has ended stays a zombie until labshd lets go of its [`Process`], so neither its
//!   process id nor its group id can come to mean somebody else while a signal may still be sent.
//! - Nothing outlives labshd unnoticed: at the end of the socket, however it came about, the
//!   spawner ends what still runs and then itself.
//! - The spawner never waits for one command: what a child did between fork and exec, and that it
//!   has ended, arrive as events.
//!
//! It needs Linux 5.9 or later (`pidfd_open`, `close_range`).

mod child;
mod client;
mod pending_signals;
mod process;
mod session_signals;
mod terminal;
mod wire;

use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use labsh_proto::message::{Status, Usage};

pub use client::{Process, Spawner, SpawnerProcess, launch};
pub(crate) use terminal::set_window_size;

/// A command to run, complete: nothing is inherited that is not written here, save what labshd
/// itself was started with (umask, resource limits, nice value, OOM score).
#[derive(Clone, Default)]
pub struct SpawnRequest {
    /// The words. Unless `program` is given, the first is searched in the `PATH` of `env` as
    /// execvp(3) does; a file without a format that the kernel knows is given to `/bin/sh`.
    pub argv: Vec<Vec<u8>>,
    /// The path to execute in place of `argv[0]`, never searched: a login shell is `/bin/bash`
    /// called `-bash`.
    pub program: Option<Vec<u8>>,
    /// The whole environment, in order.
    pub env: Vec<(Vec<u8>, Vec<u8>)>,
    /// The working directory, entered with the rights of `identity` (a home on NFS may refuse
    /// root).
    pub cwd: Vec<u8>,
    /// Use `/` where `cwd` cannot be entered, as login(1) does for a missing home directory.
    pub cwd_fallback_root: bool,
    /// Who to become; `None` stays who labshd is.
    pub identity: Option<Identity>,
    /// Go all the way up to the program, but do not execute it: the child writes [`Rehearsed`] to
    /// its stdout and ends.
    pub rehearse: bool,
    /// A terminal for all three streams, which becomes the controlling terminal; `None` means three
    /// pipes.
    pub terminal: Option<Terminal>,
}

/// What a child that only rehearses has found, as the words on its stdout, each ended by a zero
/// byte.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rehearsed {
    /// The file that would have been executed.
    pub program: Vec<u8>,
    /// The working directory that was entered.
    pub directory: Vec<u8>,
}

impl Rehearsed {
    /// Reads what such a child has written; `None` where it is something else.
    pub fn decode(output: &[u8]) -> Option<Self> {
        let mut words = output.split(|byte| *byte == 0).map(<[u8]>::to_vec);
        match (words.next(), words.next(), words.next(), words.next()) {
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

/// A terminal as it is asked for. The command finds its path in `LABSH_TTY`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Terminal {
    /// How large it is before the command looks.
    pub size: WindowSize,
    /// The group through which others may write to it (write(1)): `tty`, where there is such a
    /// group. It counts only together with an identity: who becomes nobody else gets a terminal
    /// that is theirs already.
    pub group: Option<u32>,
}

/// The size of a terminal (`TIOCSWINSZ`, ioctl_tty(2)). Any value is harmless: the kernel only
/// remembers it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WindowSize {
    /// Characters in a line.
    pub columns: u16,
    /// Lines.
    pub rows: u16,
    /// Pixels across.
    pub width: u16,
    /// Pixels down.
    pub height: u16,
}

/// The credentials of a user, looked up beforehand: the spawner never asks the user database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Real, effective and saved user id.
    pub uid: u32,
    /// Real, effective and saved group id.
    pub gid: u32,
    /// Supplementary groups, all of them.
    pub groups: Vec<u32>,
}

/// A command that runs: its program has been executed.
#[derive(Debug)]
pub struct Spawned {
    /// Process id of the leader, which is also the id of its group and of its session.
    pub pid: u32,
    /// What the command's three streams are joined to.
    pub streams: Streams,
    /// The hold on the command.
    pub process: Process,
}

/// labshd's ends of a command's streams: close-on-exec and non-blocking here, blocking at the
/// command's own end.
#[derive(Debug)]
pub enum Streams {
    /// A pipe for each.
    Pipes {
        /// Writes to the command's standard input.
        stdin: OwnedFd,
        /// Reads the command's standard output.
        stdout: OwnedFd,
        /// Reads the command's standard error.
        stderr: OwnedFd,
    },
    /// One terminal for all; this is its master side (pty(7)). The spawner has another descriptor
    /// of it, so it is hung up only once the [`Process`] is dropped as well.
    Terminal(OwnedFd),
}

/// The exit status of a command's leader, and its resource usage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    /// Exit status, as wait(2) reports it.
    pub status: Status,
    /// Usage of the leader and of the descendants that it waited for (getrusage(2),
    /// `RUSAGE_BOTH`), from fork to exit. The kernel counts memory from before exec too, so the
    /// spawner's copy is a lower bound for `peak_memory`: about 0.5 MiB, measured with a program
    /// that only exits. `true` shows 1.1 MiB, its own.
    pub usage: Usage,
}

/// Why a command did not start. Nothing of it remains.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// No such program: a shell's 127.
    #[error("{program}: command not found")]
    NotFound {
        /// The program as it was named.
        program: String,
    },
    /// There is such a file, but it cannot be run (no permission, a directory, no interpreter): a
    /// shell's 126.
    #[error("{program}: cannot be executed: {source}")]
    NotExecutable {
        /// The program as it was named.
        program: String,
        /// The kernel's reason.
        source: io::Error,
    },
    /// The working directory cannot be entered.
    #[error("cannot enter the working directory {}: {source}", path.display())]
    Directory {
        /// The directory as it was named.
        path: PathBuf,
        /// The kernel's reason.
        source: io::Error,
    },
    /// The words and the environment are more than the kernel takes (execve(2), `E2BIG`).
    #[error(
        "the command line and environment are too large: one word may have 128 KiB, and all \
         together \
         a quarter of the stack limit; pass long input on stdin"
    )]
    TooLarge,
    /// The user's credentials could not be taken on.
    #[error("cannot run commands as that user: {source}; labshd must run as root to change users")]
    Identity {
        /// The kernel's reason.
        source: io::Error,
    },
    /// Processes, memory or descriptors have run out, for now.
    #[error("the machine is short of processes, memory or descriptors: {source}")]
    Resources {
        /// The kernel's reason.
        source: io::Error,
    },
    /// The spawner has gone, so labshd cannot run anything any more.
    #[error("the spawner process has gone; labshd has to be restarted")]
    Lost,
    /// Anything else.
    #[error("cannot start the command ({stage}): {source}")]
    Other {
        /// What was being done.
        stage: &'static str,
        /// The reason.
        source: io::Error,
    },
}

/// The spawner has gone, and with it all knowledge of how the command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the spawner process has gone; how the command ended is not known")]
pub struct SpawnerLost;
