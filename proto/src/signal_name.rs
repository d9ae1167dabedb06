//! The names of Linux's signals (signal(7)), as users and shells write them.

use alloc::borrow::Cow;
use alloc::format;

/// The names of the signals from 1.
const STANDARD: [&str; 31] = [
    "SIGHUP",
    "SIGINT",
    "SIGQUIT",
    "SIGILL",
    "SIGTRAP",
    "SIGABRT",
    "SIGBUS",
    "SIGFPE",
    "SIGKILL",
    "SIGUSR1",
    "SIGSEGV",
    "SIGUSR2",
    "SIGPIPE",
    "SIGALRM",
    "SIGTERM",
    "SIGSTKFLT",
    "SIGCHLD",
    "SIGCONT",
    "SIGSTOP",
    "SIGTSTP",
    "SIGTTIN",
    "SIGTTOU",
    "SIGURG",
    "SIGXCPU",
    "SIGXFSZ",
    "SIGVTALRM",
    "SIGPROF",
    "SIGWINCH",
    "SIGIO",
    "SIGPWR",
    "SIGSYS",
];

/// The first and the last real-time signal that the C library leaves to programs. It uses the two
/// below for its threads.
const REAL_TIME: (u8, u8) = (34, 64);

/// Returns the name of a signal. Real-time signals are named from the nearer end, as by a shell's
/// `kill -l`.
pub fn signal_name(number: u8) -> Cow<'static, str> {
    let (first, last) = REAL_TIME;
    match number {
        1..=31 => STANDARD[usize::from(number) - 1].into(),
        32 | 33 => format!("real-time signal {number}").into(),
        _ if number == first => "SIGRTMIN".into(),
        _ if number == last => "SIGRTMAX".into(),
        35..=49 => format!("SIGRTMIN+{}", number - first).into(),
        50..=63 => format!("SIGRTMAX-{}", last - number).into(),
        _ => "unknown".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_signal_has_the_name_that_shells_give_it() {
        for (number, name) in [
            (0, "unknown"),
            (1, "SIGHUP"),
            (9, "SIGKILL"),
            (15, "SIGTERM"),
            (19, "SIGSTOP"),
            (28, "SIGWINCH"),
            (31, "SIGSYS"),
            (33, "real-time signal 33"),
            (34, "SIGRTMIN"),
            (40, "SIGRTMIN+6"),
            (49, "SIGRTMIN+15"),
            (50, "SIGRTMAX-14"),
            (64, "SIGRTMAX"),
            (65, "unknown"),
            (255, "unknown"),
        ] {
            assert_eq!(signal_name(number), name, "{number}");
        }
    }
}
