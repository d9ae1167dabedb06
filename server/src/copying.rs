//! The server side of `labsh cp`: the labshd program itself, run as the command's user, which talks
//! to the client on stdin and stdout.

use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::process::ExitCode;
use std::sync::OnceLock;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::SignalFd;

/// The subcommand of labshd that serves it.
pub(crate) const SUBCOMMAND: &str = "copy-serve";

/// The signals that end a transfer. Partial files are removed.
const END_SIGNALS: [Signal; 3] = [Signal::SIGHUP, Signal::SIGTERM, Signal::SIGINT];

/// Returns the argument vector of the subsystem; `None` if the path of this process's program is
/// unknown. The path is looked up once: after an update of the program, /proc would name the
/// deleted file, while the path leads to the new one.
pub(crate) fn words() -> Option<Vec<String>> {
    static PROGRAM: OnceLock<Option<String>> = OnceLock::new();
    let program =
        PROGRAM.get_or_init(|| std::env::current_exe().ok()?.into_os_string().into_string().ok());
    Some(vec![program.clone()?, SUBCOMMAND.to_owned()])
}

/// Returns whether `program` is the one that copies files.
pub(crate) fn is_own_program(program: &str) -> bool {
    words().is_some_and(|words| words.first().is_some_and(|own| own == program))
}

/// Serves a client until it closes stdin. The exit status is 0 if every file was copied.
pub fn serve() -> anyhow::Result<ExitCode> {
    let end_signals: SigSet = END_SIGNALS.into_iter().collect();
    let mut blocked = end_signals;
    // Makes a write beyond RLIMIT_FSIZE an error of that file, instead of the end of the process.
    blocked.add(Signal::SIGXFSZ);
    blocked.thread_block()?;
    let signals = SignalFd::new(&end_signals)?;
    Ok(match labsh_copy::serve(Stdin { signals }, io::stdout())? {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

/// Stdin until a signal arrives, and then an error.
struct Stdin {
    signals: SignalFd,
}

impl Read for Stdin {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let stdin = io::stdin();
        let readable = |descriptor: BorrowedFd<'_>, signals: BorrowedFd<'_>| {
            let mut both = [
                PollFd::new(signals, PollFlags::POLLIN),
                PollFd::new(descriptor, PollFlags::POLLIN),
            ];
            poll(&mut both, PollTimeout::NONE)?;
            Ok::<bool, nix::Error>(both[0].any() != Some(true))
        };
        if !readable(stdin.as_fd(), self.signals.as_fd())? {
            return Err(io::Error::new(io::ErrorKind::ConnectionAborted, "ended by a signal"));
        }
        // Not through std's buffer, whose content poll(2) would not see.
        Ok(nix::unistd::read(stdin.as_fd(), buffer)?)
    }
}
