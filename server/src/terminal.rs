//! A command's terminal as labshd holds it: its output, what is typed on it, its size.

use std::io;
use std::os::fd::OwnedFd;

use bytes::BytesMut;
use labsh_proto::message::Resize;
use nix::errno::Errno;
use nix::sys::termios::{LocalFlags, SpecialCharacterIndices, tcgetattr};
use nix::unistd;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::pump::{self, Source};
use crate::spawner::{WindowSize, set_window_size};

/// More than the kernel keeps of a terminal's output, in bytes (8 KiB on the way and 4 KiB to be
/// read, rounded up).
const HOLDS: usize = 32 << 10;

/// The most that is read at once, in bytes; the kernel gives no more than half of it.
const CHUNK: usize = 8 << 10;

/// A character of the terminal that is switched off (`_POSIX_VDISABLE`).
const DISABLED: u8 = 0;

/// The master side.
#[derive(Debug)]
pub(crate) struct Terminal {
    master: AsyncFd<OwnedFd>,
}

impl Terminal {
    /// Watches a master, which must be non-blocking.
    pub(crate) fn new(master: OwnedFd) -> io::Result<Self> {
        // SAFETY: the descriptor is the AsyncFd's own from here on, and nobody else closes or
        // replaces it.
        #[allow(unsafe_code)]
        let master = unsafe { AsyncFd::register(master) };
        Ok(Self { master: master? })
    }

    /// Types all of these bytes; waits where the command does not read. An error once nobody has
    /// the terminal open: what does not fit then is read by nobody.
    pub(crate) async fn type_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let mut ready = self.master.writable().await?;
            let closed = ready.ready().is_write_closed();
            match ready.try_io(|master| Ok(unistd::write(master.get_ref(), bytes)?)) {
                Ok(written) => bytes = &bytes[written?..],
                // Full, and counted as writable for good: to wait would be to spin.
                Err(_would_block) if closed => return Err(Errno::EIO.into()),
                Err(_would_block) => {}
            }
        }
        Ok(())
    }

    /// What tells the command's reader that nothing more will be typed: the terminal's own
    /// character for that, where it edits lines (termios(3), ICANON and VEOF). There the character
    /// ends the line that stands before it, so behind an unfinished one it takes a second to mean
    /// the end. Programs that have the terminal in another mode give the character a meaning of
    /// their own, or none: nothing is typed at them.
    pub(crate) fn end_of_input(&self, last_typed: Option<u8>) -> Vec<u8> {
        // By the master the kernel tells the modes of the slave.
        let Ok(modes) = tcgetattr(self.master.get_ref()) else { return Vec::new() };
        let end = modes.control_chars[SpecialCharacterIndices::VEOF as usize];
        if !modes.local_flags.contains(LocalFlags::ICANON) || end == DISABLED {
            return Vec::new();
        }
        let line_is_over =
            last_typed.is_none_or(|last| last == b'\n' || last == b'\r' || last == end);
        vec![end; if line_is_over { 1 } else { 2 }]
    }

    /// Sets its size; the kernel tells the foreground.
    pub(crate) fn resize(&self, size: Resize) {
        // Fails only for what is no terminal.
        let _ = set_window_size(self.master.get_ref(), window_size(size));
    }
}

/// A size as the spawner takes it.
pub(crate) fn window_size(size: Resize) -> WindowSize {
    let Resize { columns, rows, width, height } = size;
    WindowSize { columns, rows, width, height }
}

impl Source for &Terminal {
    async fn readable(&self) {
        // An error shows at the read.
        if let Ok(mut ready) = self.master.readable().await {
            ready.retain_ready();
        }
    }

    fn read_ready(&self, buffer: &mut BytesMut, most: usize) -> io::Result<usize> {
        let read = self
            .master
            .try_io(Interest::READABLE, |master| pump::read(master, buffer, most.min(CHUNK)));
        // The kernel calls it an error when nobody has the terminal open any more: to us it is the
        // end.
        match read {
            Err(error) if error.raw_os_error() == Some(Errno::EIO as i32) => Ok(0),
            read => read,
        }
    }

    /// Whatever was written before is there: the kernel looks for what is still on its way before
    /// it finds nothing.
    fn read_now(&self, buffer: &mut BytesMut, most: usize) -> io::Result<usize> {
        pump::read(self.master.get_ref(), buffer, most.min(CHUNK))
    }

    fn holds(&self) -> usize {
        HOLDS
    }
}

#[cfg(test)]
mod tests {
    use nix::fcntl::{FcntlArg, OFlag, fcntl};
    use nix::pty::openpty;
    use nix::sys::termios::{SetArg, cfmakeraw, tcsetattr};

    use super::*;

    #[tokio::test]
    async fn what_nobody_can_read_any_more_is_not_waited_for() {
        let ends = openpty(None, None).expect("a terminal");
        let mut modes = tcgetattr(&ends.slave).expect("its modes");
        cfmakeraw(&mut modes);
        tcsetattr(&ends.slave, SetArg::TCSANOW, &modes).expect("raw");
        fcntl(&ends.master, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).expect("non-blocking");
        let terminal = Terminal::new(ends.master).expect("a runtime");
        // More than the kernel keeps of what is typed.
        let (typed, ()) = tokio::join!(terminal.type_all(&[b'x'; 256 << 10]), async move {
            tokio::task::yield_now().await;
            drop(ends.slave);
        });
        assert!(typed.is_err());
    }
}
