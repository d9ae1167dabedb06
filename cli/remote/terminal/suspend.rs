//! Stops and continues labsh as job control of a shell expects it.

use nix::libc;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, killpg, raise, sigaction};
use nix::unistd::getpgrp;

/// The numbers of the signals of job control.
pub(crate) const SIGTSTP: i32 = libc::SIGTSTP;
pub(crate) const SIGCONT: i32 = libc::SIGCONT;

/// Sends SIGTSTP to the process group of labsh, as the suspend key of a cooked terminal does.
pub(crate) fn ask_job() {
    // The group has at least this process as a member, so the call cannot fail.
    let _ = killpg(getpgrp(), Signal::SIGTSTP);
}

/// Stops this process by the default action of SIGTSTP. Returns once it is continued, or at once in
/// an orphaned process group, which the kernel does not stop.
#[allow(unsafe_code)]
pub(crate) fn stop_here() {
    let default = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
    // SAFETY: the default action runs no code of labsh, and the handler restored below is the
    // previous one.
    let Ok(handler) = (unsafe { sigaction(Signal::SIGTSTP, &default) }) else { return };
    // The signal is directed at this thread, so it has taken effect when raise(3) returns.
    let _ = raise(Signal::SIGTSTP);
    // SAFETY: as above.
    let _ = unsafe { sigaction(Signal::SIGTSTP, &handler) };
}
