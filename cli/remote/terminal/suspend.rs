//! Being stopped and continued by a shell's job control.

use nix::libc;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, killpg, raise, sigaction};
use nix::unistd::getpgrp;

/// The signals' numbers, for whoever waits for them.
pub(crate) const SIGTSTP: i32 = libc::SIGTSTP;
pub(crate) const SIGCONT: i32 = libc::SIGCONT;

/// Sends our whole job the signal of the suspend key, as the terminal would if it were not raw.
pub(crate) fn ask_job() {
    // It has at least us for a member, so it can be reached.
    let _ = killpg(getpgrp(), Signal::SIGTSTP);
}

/// Stops this process as SIGTSTP does where nobody handles it; returns once it was continued, or at
/// once where no shell could continue it (an orphaned process group, which the kernel does not
/// stop).
#[allow(unsafe_code)]
pub(crate) fn stop_here() {
    let default = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
    // SAFETY: the default action runs no code of ours, and what is put back below is the very
    // handler that was in place.
    let Ok(handler) = (unsafe { sigaction(Signal::SIGTSTP, &default) }) else { return };
    // Directed at this thread, so it has taken effect when this returns.
    let _ = raise(Signal::SIGTSTP);
    // SAFETY: as above.
    let _ = unsafe { sigaction(Signal::SIGTSTP, &handler) };
}
