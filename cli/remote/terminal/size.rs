//! The size of the local terminal.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use labsh_proto::message::Resize;
use nix::libc;

nix::ioctl_read_bad!(window_size, libc::TIOCGWINSZ, libc::winsize);

/// Returns the size of the local terminal; without one, LINES and COLUMNS, or 24 lines of 80
/// columns.
pub(crate) fn ours() -> Resize {
    let (stdin, stdout, stderr) = (io::stdin(), io::stdout(), io::stderr());
    let terminals = [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()];
    terminals.into_iter().find_map(of).unwrap_or_else(|| {
        let number = |name, default| {
            let value = std::env::var(name).ok().and_then(|value| value.parse().ok());
            value.filter(|number| *number > 0).unwrap_or(default)
        };
        Resize { columns: number("COLUMNS", 80), rows: number("LINES", 24), width: 0, height: 0 }
    })
}

/// Returns the size of a terminal (ioctl_tty(2)); none for other descriptors.
#[allow(unsafe_code)]
fn of(terminal: BorrowedFd<'_>) -> Option<Resize> {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: TIOCGWINSZ writes one winsize to the pointer, which is valid for the call, as is the
    // borrowed descriptor.
    unsafe { window_size(terminal.as_raw_fd(), &mut size) }.ok()?;
    Some(Resize {
        columns: size.ws_col,
        rows: size.ws_row,
        width: size.ws_xpixel,
        height: size.ws_ypixel,
    })
}

#[cfg(test)]
mod tests {
    use nix::pty::{Winsize, openpty};

    use super::*;

    #[test]
    fn a_terminals_size_is_read_whatever_it_is() {
        for (columns, rows) in [(80, 24), (0, 0), (u16::MAX, u16::MAX)] {
            let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 7, ws_ypixel: 9 };
            let pty = openpty(&size, None).unwrap();
            let expected = Resize { columns, rows, width: 7, height: 9 };
            assert_eq!(of(pty.slave.as_fd()), Some(expected));
        }
        assert_eq!(of(tempfile::tempfile().unwrap().as_fd()), None);
    }
}
