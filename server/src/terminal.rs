//! The master side of a command's terminal: reads its output, types its input, sets its size.

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

/// Upper bound of the output that the kernel holds for a terminal, in bytes: 8 KiB in transit and 4
/// KiB ready to be read, rounded up.
const OUTPUT_CAPACITY: usize = 32 << 10;

/// Limit on one read, in bytes. The kernel returns at most half of it.
const MAX_READ: usize = 8 << 10;

/// The value of a disabled special character (`_POSIX_VDISABLE`).
const DISABLED: u8 = 0;

/// The master side of a terminal.
#[derive(Debug)]
pub(crate) struct Terminal {
    master: AsyncFd<OwnedFd>,
}

impl Terminal {
    /// Registers a master, which must be non-blocking, with the runtime.
    pub(crate) fn new(master: OwnedFd) -> io::Result<Self> {
        // SAFETY: the AsyncFd owns the descriptor, so no other code closes or replaces it.
        #[allow(unsafe_code)]
        let master = unsafe { AsyncFd::register(master) };
        Ok(Self { master: master? })
    }

    /// Types all of these bytes, and waits while the command does not read. Fails once no process
    /// has the terminal open and its buffer is full, as the rest would never be read.
    pub(crate) async fn type_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let mut ready = self.master.writable().await?;
            let closed = ready.ready().is_write_closed();
            match ready.try_io(|master| Ok(unistd::write(master.get_ref(), bytes)?)) {
                Ok(written) => bytes = &bytes[written?..],
                // Full, and the runtime reports it as writable from now on: waiting would spin.
                Err(_would_block) if closed => return Err(Errno::EIO.into()),
                Err(_would_block) => {}
            }
        }
        Ok(())
    }

    /// Returns the bytes to type for an end-of-file: the terminal's character for it, if it edits
    /// lines (termios(3), ICANON and VEOF). At the start of a line one character means end-of-file;
    /// after an unfinished line the first one only ends the line, so a second is added. In other
    /// modes programs interpret the character as they like, so nothing is typed.
    pub(crate) fn end_of_input(&self, last_typed: Option<u8>) -> Vec<u8> {
        // Through the master the kernel returns the modes of the slave.
        let Ok(modes) = tcgetattr(self.master.get_ref()) else { return Vec::new() };
        let eof = modes.control_chars[SpecialCharacterIndices::VEOF as usize];
        if !modes.local_flags.contains(LocalFlags::ICANON) || eof == DISABLED {
            return Vec::new();
        }
        let at_line_start =
            last_typed.is_none_or(|last| last == b'\n' || last == b'\r' || last == eof);
        vec![eof; if at_line_start { 1 } else { 2 }]
    }

    /// Sets the size. The kernel sends SIGWINCH to the foreground process group.
    pub(crate) fn resize(&self, size: Resize) {
        // Fails only if the descriptor is not a terminal.
        let _ = set_window_size(self.master.get_ref(), window_size(size));
    }
}

/// Converts a size to the spawner's type.
pub(crate) fn window_size(size: Resize) -> WindowSize {
    let Resize { columns, rows, width, height } = size;
    WindowSize { columns, rows, width, height }
}

impl Source for &Terminal {
    async fn readable(&self) {
        // The read returns the same error.
        if let Ok(mut ready) = self.master.readable().await {
            ready.retain_ready();
        }
    }

    fn read_ready(&self, buffer: &mut BytesMut, limit: usize) -> io::Result<usize> {
        let read = self
            .master
            .try_io(Interest::READABLE, |master| pump::read(master, buffer, limit.min(MAX_READ)));
        // EIO means that no process has the terminal open: end-of-file.
        match read {
            Err(error) if error.raw_os_error() == Some(Errno::EIO as i32) => Ok(0),
            read => read,
        }
    }

    /// Finds all output that was written before: the kernel flushes data in transit before it
    /// reports an empty buffer.
    fn read_now(&self, buffer: &mut BytesMut, limit: usize) -> io::Result<usize> {
        pump::read(self.master.get_ref(), buffer, limit.min(MAX_READ))
    }

    fn capacity(&self) -> usize {
        OUTPUT_CAPACITY
    }
}

#[cfg(test)]
mod tests {
    use nix::fcntl::{FcntlArg, OFlag, fcntl};
    use nix::pty::openpty;
    use nix::sys::termios::{SetArg, cfmakeraw, tcsetattr};

    use super::*;

    #[tokio::test]
    async fn typing_fails_once_no_process_has_the_terminal_open() {
        let ends = openpty(None, None).expect("a terminal");
        let mut modes = tcgetattr(&ends.slave).expect("its modes");
        cfmakeraw(&mut modes);
        tcsetattr(&ends.slave, SetArg::TCSANOW, &modes).expect("raw");
        fcntl(&ends.master, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).expect("non-blocking");
        let terminal = Terminal::new(ends.master).expect("a runtime");
        // More than the kernel's input buffer holds.
        let (typed, ()) = tokio::join!(terminal.type_all(&[b'x'; 256 << 10]), async move {
            tokio::task::yield_now().await;
            drop(ends.slave);
        });
        assert!(typed.is_err());
    }
}
