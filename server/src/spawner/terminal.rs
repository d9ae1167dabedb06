//! Opens a command's terminal, sets its size, and queries its foreground group.

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::libc;
use nix::pty::{posix_openpt, ptsname_r, unlockpt};
use nix::sys::stat::{Mode, fchmod};
use nix::sys::termios::{InputFlags, SetArg, tcgetattr, tcsetattr};
use nix::unistd::{Gid, Pid, Uid, fchown, getpgrp, tcgetpgrp};

use super::messages::Credentials;
use super::{Terminal, WindowSize};

/// The command's side of a terminal (pty(7)).
pub(super) struct Slave {
    pub(super) fd: OwnedFd,
    /// `LABSH_TTY` and `SSH_TTY` with its path, for the command's environment.
    pub(super) variables: [CString; 2],
}

impl Slave {
    /// Makes it the controlling terminal of the caller's session, with the caller's process group
    /// in the foreground. The caller must lead a session that has no terminal.
    pub(super) fn make_controlling(&self) -> nix::Result<()> {
        // SAFETY: TIOCSCTTY takes a number and touches no memory (ioctl_tty(2)).
        #[allow(unsafe_code)]
        let result = unsafe { libc::ioctl(self.fd.as_raw_fd(), libc::TIOCSCTTY, 0) };
        Errno::result(result).map(drop)
    }
}

/// Opens a terminal and returns its master, non-blocking, and its slave, owned by the user. Both
/// are close-on-exec.
pub(super) fn open_terminal(
    terminal: &Terminal,
    user: Option<&Credentials>,
) -> nix::Result<(OwnedFd, Slave)> {
    // The spawner leads a session without a terminal, and opening one would make it controlling.
    let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let master = posix_openpt(flags | OFlag::O_NONBLOCK)?;
    unlockpt(&master)?;
    let path = ptsname_r(&master)?;
    let fd = open(path.as_str(), flags, Mode::empty())?;
    let variable = |name: &str| CString::new(format!("{name}={path}")).map_err(|_| Errno::EINVAL);
    let variables = [variable("LABSH_TTY")?, variable("SSH_TTY")?];
    if let Some(user) = user {
        change_owner(&fd, user, terminal.group.map(Gid::from_raw))?;
    }
    // Input is UTF-8 nearly everywhere. Without the flag, the kernel's line editing would erase
    // only the last byte of a multi-byte character.
    let mut modes = tcgetattr(&fd)?;
    modes.input_flags |= InputFlags::IUTF8;
    tcsetattr(&fd, SetArg::TCSANOW, &modes)?;
    set_window_size(&fd, terminal.size)?;
    Ok((master.into(), Slave { fd, variables }))
}

/// Gives the terminal to the user, and lets the group write to it, for programs like write(1).
fn change_owner(slave: &OwnedFd, user: &Credentials, group: Option<Gid>) -> nix::Result<()> {
    let mode = match group {
        Some(_) => Mode::S_IRUSR | Mode::S_IWUSR | Mode::S_IWGRP,
        None => Mode::S_IRUSR | Mode::S_IWUSR,
    };
    if Uid::effective().is_root() {
        fchown(slave, Some(user.uid), Some(group.unwrap_or(user.gid)))?;
        fchmod(slave, mode)?;
    }
    Ok(())
}

/// Sets a terminal's size through either of its sides. If the size changes, the kernel sends
/// SIGWINCH to the foreground process group.
///
/// # Errors
///
/// When the descriptor is not a terminal.
pub(crate) fn set_window_size(terminal: impl AsFd, size: WindowSize) -> nix::Result<()> {
    let WindowSize { columns, rows, width, height } = size;
    let size = libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: width, ws_ypixel: height };
    // SAFETY: TIOCSWINSZ reads one struct winsize, which lives for the call, and writes nothing
    // (ioctl_tty(2)).
    #[allow(unsafe_code)]
    let result = unsafe { libc::ioctl(terminal.as_fd().as_raw_fd(), libc::TIOCSWINSZ, &size) };
    Errno::result(result).map(drop)
}

/// Returns the process group in a terminal's foreground, asked through its master (tcgetpgrp(3)).
/// The group may have ended since and its number may be in use again;
/// [`SignalBatch`](super::session_signals::SignalBatch) signals only members of the session.
pub(super) fn foreground(master: &OwnedFd) -> Option<Pid> {
    // Without one the kernel returns 0, which kill(2) would take for the caller's own group.
    tcgetpgrp(master).ok().filter(|group| group.as_raw() > 1 && *group != getpgrp())
}
