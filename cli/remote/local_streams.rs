//! This program's own stdin, stdout and stderr, joined to a command's: blocking threads, because
//! the descriptors are inherited and must never be made non-blocking for those who share them. What
//! is shown on a terminal needs none.

use std::io::{self, IsTerminal};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use labsh_client::{ChildStderr, ChildStdin, ChildStdout};
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::task::yield_now;

use crate::remote::own_terminal::OwnTerminal;

/// The most that is read from stdin at once, in bytes.
const MAX_READ: usize = 64 << 10;

/// The most that is written to a terminal at once, in bytes.
const MAX_TERMINAL_WRITE: usize = 8 << 10;

/// One of the two outputs.
pub(crate) trait Output: Send + 'static {
    fn next(&mut self) -> impl Future<Output = io::Result<Option<Bytes>>> + Send;
    fn consumed(&self, bytes: usize);
}

impl Output for ChildStdout {
    fn next(&mut self) -> impl Future<Output = io::Result<Option<Bytes>>> + Send {
        ChildStdout::next(self)
    }

    fn consumed(&self, bytes: usize) {
        ChildStdout::consumed(self, bytes);
    }
}

impl Output for ChildStderr {
    fn next(&mut self) -> impl Future<Output = io::Result<Option<Bytes>>> + Send {
        ChildStderr::next(self)
    }

    fn consumed(&self, bytes: usize) {
        ChildStderr::consumed(self, bytes);
    }
}

/// What the outputs are at: whether it is the command's side or ours that keeps them from ending.
#[derive(Debug, Default)]
pub(crate) struct Activity {
    /// In write(2), and not to be stopped.
    writing: AtomicUsize,
    /// Waiting for a terminal to take more.
    waiting: AtomicUsize,
    pieces: AtomicUsize,
    abandoned: AtomicBool,
}

impl Activity {
    fn during<T>(&self, write: impl FnOnce() -> T) -> T {
        // In one order with `abandoned`: either this write sees that, or whoever sets that sees
        // this write.
        self.writing.fetch_add(1, Ordering::SeqCst);
        let result = write();
        self.writing.fetch_sub(1, Ordering::SeqCst);
        self.pieces.fetch_add(1, Ordering::Relaxed);
        result
    }

    async fn during_wait<T>(&self, write: impl Future<Output = T>) -> T {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let result = write.await;
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        self.pieces.fetch_add(1, Ordering::Relaxed);
        result
    }

    /// Resolves when for so long nothing has come, and nothing that came has waited for its reader
    /// here.
    pub(crate) async fn quiet(&self, time: Duration) {
        loop {
            let before = self.pieces.load(Ordering::Relaxed);
            tokio::time::sleep(time).await;
            let waits = [&self.writing, &self.waiting]
                .iter()
                .any(|count| count.load(Ordering::Relaxed) > 0);
            if !waits && self.pieces.load(Ordering::Relaxed) == before {
                return;
            }
        }
    }

    /// The user leaves: nothing more is written, so that nothing on the screen follows what labsh
    /// says last. A terminal that takes nothing is waited for two seconds at most, anything else
    /// not at all.
    pub(crate) async fn abandon(&self) {
        self.abandoned.store(true, Ordering::SeqCst);
        for _ in 0..200 {
            if self.writing.load(Ordering::SeqCst) == 0 || !io::stdout().is_terminal() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    fn is_abandoned(&self) -> bool {
        self.abandoned.load(Ordering::SeqCst)
    }
}

/// Copies a command's output to a descriptor of ours until its end. An error is ours, not the
/// command's; it closes the pipe over there. (A lost connection shows as the end; the child knows
/// better.)
pub(crate) async fn write_out(
    mut from: impl Output,
    to: impl AsFd + Send + 'static,
    activity: Arc<Activity>,
) -> io::Result<()> {
    // Many commands say nothing on one of the two: no thread for those.
    let Ok(Some(first)) = from.next().await else { return Ok(()) };
    if let Some(terminal) = OwnTerminal::to_write(&to) {
        return show(first, from, &terminal, &activity).await;
    }
    let (done, outcome) = oneshot::channel();
    let runtime = Handle::current();
    thread::Builder::new().name("output".into()).spawn(move || {
        let copy = || -> io::Result<()> {
            let mut next = Some(first);
            while let Some(bytes) = next {
                activity.during(|| write_all(to.as_fd(), &bytes, &activity))?;
                if activity.is_abandoned() {
                    break;
                }
                from.consumed(bytes.len());
                next = runtime.block_on(from.next()).unwrap_or(None);
            }
            Ok(())
        };
        let result = copy();
        drop(from);
        let _ = done.send(result);
    })?;
    outcome.await.unwrap_or(Ok(()))
}

/// The same where it is a terminal, in this task. It ends between two writes once it is no longer
/// polled.
async fn show(
    first: Bytes,
    mut from: impl Output,
    terminal: &OwnTerminal,
    activity: &Activity,
) -> io::Result<()> {
    let mut next = Some(first);
    while let Some(bytes) = next {
        for piece in bytes.chunks(MAX_TERMINAL_WRITE) {
            let mut rest = piece;
            while !rest.is_empty() {
                let written = activity.during_wait(terminal.write(rest)).await?;
                rest = &rest[written..];
            }
            // A console draws while it is written to, and keys and signals must not wait for all of
            // it.
            yield_now().await;
        }
        from.consumed(bytes.len());
        next = from.next().await.unwrap_or(None);
    }
    Ok(())
}

/// Copies our stdin to a command's until its end, or until the command no longer reads. The thread
/// may stay in read(2) for ever; it ends with the process. Resolves only with an error: then the
/// command must not take what it got for the whole, so it sees no end either.
pub(crate) fn read_in(mut to: ChildStdin) -> io::Result<oneshot::Receiver<io::Error>> {
    let runtime = Handle::current();
    let (fail, failed) = oneshot::channel();
    thread::Builder::new().name("stdin".into()).spawn(move || {
        let stdin = io::stdin();
        let mut buffer = BytesMut::new();
        loop {
            buffer.resize(MAX_READ, 0);
            match nix::unistd::read(stdin.as_fd(), &mut buffer) {
                Ok(0) => return,
                Ok(count) => {
                    if runtime.block_on(to.send(buffer.split_to(count).freeze())).is_err() {
                        return;
                    }
                }
                Err(nix::errno::Errno::EINTR) => {}
                Err(nix::errno::Errno::EAGAIN) => wait(stdin.as_fd(), nix::poll::PollFlags::POLLIN),
                Err(error) => {
                    let _ = fail.send(error.into());
                    return to.leave_open();
                }
            }
        }
    })?;
    Ok(failed)
}

fn write_all(to: BorrowedFd<'_>, mut bytes: &[u8], activity: &Activity) -> io::Result<()> {
    while !bytes.is_empty() && !activity.is_abandoned() {
        match nix::unistd::write(to, bytes) {
            Ok(count) => bytes = &bytes[count..],
            Err(nix::errno::Errno::EINTR) => {}
            // Someone who shares the descriptor made it non-blocking.
            Err(nix::errno::Errno::EAGAIN) => wait(to, nix::poll::PollFlags::POLLOUT),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn wait(descriptor: BorrowedFd<'_>, events: nix::poll::PollFlags) {
    let mut descriptors = [nix::poll::PollFd::new(descriptor, events)];
    // An interrupted wait only means that the caller tries again.
    let _ = nix::poll::poll(&mut descriptors, nix::poll::PollTimeout::NONE);
}
