//! The far side of `labsh cp`: labshd's own program, run as the command's user, with the client at
//! its stdin and stdout.

use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::process::ExitCode;
use std::sync::OnceLock;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::SignalFd;

pub(crate) use labsh_copy::SUBSYSTEM;

/// The subcommand that does it.
pub(crate) const SUBCOMMAND: &str = "copy-serve";

/// Signals that end a transfer; what has been begun is tidied up.
const ENDING: [Signal; 3] = [Signal::SIGHUP, Signal::SIGTERM, Signal::SIGINT];

/// The program and its words; nothing where this process does not know its own program.
///
/// It is looked up once: after an update the path leads to the new program, and not to the one that
/// is gone.
pub(crate) fn words() -> Option<Vec<String>> {
    static PROGRAM: OnceLock<Option<String>> = OnceLock::new();
    let program =
        PROGRAM.get_or_init(|| std::env::current_exe().ok()?.into_os_string().into_string().ok());
    Some(vec![program.clone()?, SUBCOMMAND.to_owned()])
}

/// Whether that is what copies files.
pub(crate) fn is_own_program(program: &str) -> bool {
    words().is_some_and(|words| words.first().is_some_and(|own| own == program))
}

/// Does a client's bidding until it has gone. The exit status is 0 if every file is as it should
/// be.
pub fn serve() -> anyhow::Result<ExitCode> {
    let ending: SigSet = ENDING.into_iter().collect();
    let mut blocked = ending;
    // A file that grows beyond RLIMIT_FSIZE is an error of that file, and not the end of this
    // process.
    blocked.add(Signal::SIGXFSZ);
    blocked.thread_block()?;
    let signals = SignalFd::new(&ending)?;
    Ok(match labsh_copy::serve(Stdin { signals }, io::stdout())? {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

/// Stdin, until a signal comes.
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
            return Err(io::Error::new(io::ErrorKind::ConnectionAborted, "told to end"));
        }
        // Not by way of std's buffer, of which poll(2) knows nothing.
        Ok(nix::unistd::read(stdin.as_fd(), buffer)?)
    }
}
