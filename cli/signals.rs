//! The signals by which a person or a program ends labsh, except those that labsh was started to
//! ignore.

use std::io;
use std::ptr;
use std::time::{Duration, Instant};

use nix::libc;
use nix::sys::signal::Signal as Number;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Signals that are sent within this time are one request.
const REPETITION_INTERVAL: Duration = Duration::from_millis(100);

/// A signal that asks labsh to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EndSignal {
    /// SIGHUP: the terminal, or the login session, has gone.
    Hangup,
    /// SIGINT, as Ctrl-C sends it.
    Interrupt,
    /// SIGQUIT, as Ctrl-\ sends it.
    Quit,
    /// SIGTERM.
    Terminate,
}

impl EndSignal {
    /// The number of the signal (signal(7)).
    pub(crate) fn number(self) -> u8 {
        let number = match self {
            EndSignal::Hangup => Number::SIGHUP,
            EndSignal::Interrupt => Number::SIGINT,
            EndSignal::Quit => Number::SIGQUIT,
            EndSignal::Terminate => Number::SIGTERM,
        };
        number as u8
    }

    /// The exit status of a shell's command that the signal ended.
    pub(crate) fn exit_status(self) -> u8 {
        128 + self.number()
    }
}

/// Receives the signals that ask labsh to end; while it exists, they do not end the process.
///
/// Signals that labsh was started to ignore stay ignored: by nohup(1), by the shell of a script
/// that starts labsh in the background, or by a program that must be the only one to end at Ctrl-C.
pub(crate) struct EndSignals {
    hangup: Option<Signal>,
    interrupt: Option<Signal>,
    quit: Option<Signal>,
    terminate: Option<Signal>,
    /// When SIGTERM was received last.
    terminated: Option<Instant>,
}

impl EndSignals {
    /// Starts to receive SIGHUP, SIGINT and SIGTERM, and makes writes beyond RLIMIT_FSIZE fail
    /// instead of end labsh. Needs a runtime.
    pub(crate) fn new() -> io::Result<Self> {
        survive_file_size_limit()?;
        Ok(Self {
            hangup: unless_ignored(SignalKind::hangup())?,
            interrupt: unless_ignored(SignalKind::interrupt())?,
            quit: None,
            terminate: unless_ignored(SignalKind::terminate())?,
            terminated: None,
        })
    }

    /// Also receives SIGQUIT, for a labsh that has to restore a terminal before it ends.
    pub(crate) fn receive_quit(&mut self) -> io::Result<()> {
        self.quit = unless_ignored(SignalKind::quit())?;
        Ok(())
    }

    /// Waits for the next signal. Cancel safe.
    pub(crate) async fn recv(&mut self) -> EndSignal {
        loop {
            tokio::select! {
                () = received(&mut self.hangup) => return EndSignal::Hangup,
                () = received(&mut self.interrupt) => return EndSignal::Interrupt,
                () = received(&mut self.quit) => return EndSignal::Quit,
                () = received(&mut self.terminate) => {
                    let now = Instant::now();
                    if !is_repetition(self.terminated, now) {
                        self.terminated = Some(now);
                        return EndSignal::Terminate;
                    }
                }
            }
        }
    }
}

/// Whether a SIGTERM belongs to the previous one: timeout(1) and others send it to the process and
/// at once to its group as well, which is one request to end.
fn is_repetition(previous: Option<Instant>, now: Instant) -> bool {
    previous.is_some_and(|previous| now.duration_since(previous) < REPETITION_INTERVAL)
}

/// Starts to receive a signal, unless labsh was started to ignore it. Needs a runtime.
pub(crate) fn unless_ignored(kind: SignalKind) -> io::Result<Option<Signal>> {
    Ok(if is_ignored(kind)? { None } else { Some(signal(kind)?) })
}

/// Waits for a signal, for ever if it is not received. Cancel safe.
pub(crate) async fn received(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => drop(signal.recv().await),
        None => std::future::pending().await,
    }
}

#[allow(unsafe_code)]
fn is_ignored(kind: SignalKind) -> io::Result<bool> {
    let mut action = std::mem::MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: the null pointer changes nothing, and the kernel writes at most one sigaction, for
    // which zeros are valid.
    let action = unsafe {
        if libc::sigaction(kind.as_raw_value(), ptr::null(), action.as_mut_ptr()) != 0 {
            return Err(io::Error::last_os_error());
        }
        action.assume_init()
    };
    Ok(action.sa_sigaction == libc::SIG_IGN)
}

/// Lets a write beyond the limit for a file's size (RLIMIT_FSIZE) fail with an error that is
/// reported, instead of ending labsh by SIGXFSZ (setrlimit(2)). Needs a runtime. Processes that
/// labsh starts inherit the original disposition.
fn survive_file_size_limit() -> io::Result<()> {
    signal(SignalKind::from_raw(Number::SIGXFSZ as i32)).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_to_the_process_and_its_group_is_one_request() {
        let first = Instant::now();
        assert!(!is_repetition(None, first));
        assert!(is_repetition(Some(first), first));
        assert!(is_repetition(Some(first), first + Duration::from_millis(1)));
        assert!(!is_repetition(Some(first), first + Duration::from_secs(1)));
    }
}
