//! The local terminal, opened again: non-blocking for labsh, but not for the processes that share
//! the inherited descriptor.

use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal, Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::OpenOptionsExt;

use nix::errno::Errno;
use nix::libc::{O_NOCTTY, O_NONBLOCK};
use nix::sys::stat::{fstat, major};
use tokio::io::unix::AsyncFd;

/// The major number of devices that open another terminal each time: tty(4), console(4), and the
/// ptmx of pts(4).
const TTYAUX_MAJOR: u64 = 5;

/// A terminal that is read and written in the runtime, so that a key and its echo need no switch
/// between threads.
pub(crate) struct OwnTerminal(AsyncFd<File>);

impl OwnTerminal {
    /// Opens a terminal for reading. Returns none if the descriptor is no terminal or cannot be
    /// opened again; a thread then has to read it.
    pub(crate) fn to_read(given: impl AsFd) -> Option<Self> {
        Self::open(given, OpenOptions::new().read(true))
    }

    /// Opens a terminal for writing. Returns none in the same cases.
    pub(crate) fn to_write(given: impl AsFd) -> Option<Self> {
        Self::open(given, OpenOptions::new().write(true))
    }

    fn open(given: impl AsFd, options: &mut OpenOptions) -> Option<Self> {
        if !given.as_fd().is_terminal() {
            return None;
        }
        let kind = fstat(given.as_fd()).ok()?.st_rdev;
        if major(kind) == TTYAUX_MAJOR {
            return None;
        }
        // The link leads to the terminal itself, even if its name has changed (proc_pid_fd(5)).
        let path = format!("/proc/self/fd/{}", given.as_fd().as_raw_fd());
        let file = options.custom_flags(O_NONBLOCK | O_NOCTTY).open(path).ok()?;
        // SAFETY: the File owns the descriptor, and the AsyncFd owns the File from here on, so it
        // cannot be closed or replaced meanwhile.
        #[allow(unsafe_code)]
        let terminal = unsafe { AsyncFd::register(file) };
        terminal.ok().map(Self)
    }

    /// Waits for input and reads it (read(2)), whatever VMIN and VTIME are; 0 bytes mean that the
    /// terminal has gone. Cancel safe.
    pub(crate) async fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let mut ready = self.0.readable().await?;
            let closed = ready.ready().is_read_closed();
            match ready.try_io(|terminal| terminal.get_ref().read(buffer)) {
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                // With VMIN at 0, read(2) returns 0 when no input is there (termios(3)).
                Ok(Ok(0)) if !closed => ready.clear_ready(),
                Ok(result) => return result,
                // A closed terminal is always readable; waiting for it would spin.
                Err(_would_block) if closed => return Ok(0),
                Err(_would_block) => {}
            }
        }
    }

    /// Waits until the terminal accepts bytes and writes them (write(2)). Cancel safe.
    pub(crate) async fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            let mut ready = self.0.writable().await?;
            let closed = ready.ready().is_write_closed();
            match ready.try_io(|terminal| terminal.get_ref().write(bytes)) {
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(result) => return result,
                Err(_would_block) if closed => return Err(Errno::EIO.into()),
                Err(_would_block) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use nix::fcntl::{FcntlArg, OFlag, fcntl};
    use nix::pty::openpty;
    use nix::sys::termios::{SetArg, SpecialCharacterIndices, cfmakeraw, tcgetattr, tcsetattr};

    use super::*;

    /// Opens a pseudoterminal: its master, and its slave in raw mode.
    fn terminal() -> (File, File) {
        let ends = openpty(None, None).expect("a terminal");
        let mut modes = tcgetattr(&ends.slave).expect("its modes");
        cfmakeraw(&mut modes);
        tcsetattr(&ends.slave, SetArg::TCSANOW, &modes).expect("raw");
        (ends.master.into(), ends.slave.into())
    }

    #[tokio::test]
    async fn typed_bytes_are_read_and_output_is_shown_with_the_given_descriptor_left_blocking() {
        let (mut master, slave) = terminal();
        let keyboard = OwnTerminal::to_read(&slave).expect("a terminal that can be opened");
        let screen = OwnTerminal::to_write(&slave).expect("a terminal that can be opened");
        let mut typed = [0; 16];
        let mut shown = [0; 16];
        for _ in 0..3 {
            let (count, ()) = tokio::join!(keyboard.read(&mut typed), async {
                tokio::task::yield_now().await;
                master.write_all(b"key").expect("room");
            });
            assert_eq!(&typed[..count.expect("a key")], b"key");
            assert_eq!(screen.write(b"echo").await.expect("room"), 4);
            let count = master.read(&mut shown).expect("an echo");
            assert_eq!(&shown[..count], b"echo");
        }
        let flags = OFlag::from_bits_truncate(fcntl(&slave, FcntlArg::F_GETFL).expect("flags"));
        assert!(!flags.contains(OFlag::O_NONBLOCK));
    }

    #[tokio::test]
    async fn a_full_screen_is_waited_for_and_loses_nothing() {
        const SIZE: usize = 1 << 20;
        let (mut master, slave) = terminal();
        let screen = OwnTerminal::to_write(&slave).expect("a terminal that can be opened");
        let pattern: Vec<u8> = (0..SIZE).map(|n| (n % 251) as u8).collect();
        let reading = tokio::task::spawn_blocking(move || {
            let mut shown = vec![0; SIZE];
            master.read_exact(&mut shown).map(|()| shown)
        });
        let mut rest = &pattern[..];
        while !rest.is_empty() {
            rest = &rest[screen.write(rest).await.expect("a terminal")..];
        }
        assert!(reading.await.expect("no panic").expect("all of it") == pattern);
    }

    #[tokio::test]
    async fn a_terminal_that_has_gone_is_an_error_or_an_end() {
        let (master, slave) = terminal();
        let keyboard = OwnTerminal::to_read(&slave).expect("a terminal that can be opened");
        drop(master);
        assert!(matches!(keyboard.read(&mut [0; 16]).await, Ok(0) | Err(_)));
    }

    #[tokio::test]
    async fn a_terminal_that_gives_nothing_at_once_has_not_gone() {
        let (mut master, slave) = terminal();
        let mut modes = tcgetattr(&slave).expect("its modes");
        modes.control_chars[SpecialCharacterIndices::VMIN as usize] = 0;
        tcsetattr(&slave, SetArg::TCSANOW, &modes).expect("set");
        let keyboard = OwnTerminal::to_read(&slave).expect("a terminal that can be opened");
        for _ in 0..3 {
            master.write_all(b"k").expect("room");
            assert_eq!(keyboard.read(&mut [0; 16]).await.expect("a key"), 1);
        }
    }

    #[test]
    fn a_master_is_not_opened_because_another_would_be_made() {
        let (master, _slave) = terminal();
        assert!(OwnTerminal::to_write(&master).is_none());
    }

    #[test]
    fn what_is_no_terminal_is_not_opened() {
        let (reader, _writer) = io::pipe().expect("a pipe");
        assert!(OwnTerminal::to_read(&reader).is_none());
    }
}
