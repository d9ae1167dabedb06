//! Joins the local stdin, stdout and stderr to a command's streams. Threads do the blocking reads
//! and writes: the descriptors are inherited, and making them non-blocking would affect other
//! processes that share them. Output to a terminal needs no thread.

use std::io::{self, IsTerminal};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use labsh_client::{ChildStderr, ChildStdin, ChildStdout};
use tokio::runtime::Handle;
use tokio::sync::{Notify, oneshot};
use tokio::task::yield_now;
use tokio::time::timeout;

use crate::remote::own_terminal::OwnTerminal;

/// The maximum size of a read from stdin, in bytes.
const MAX_READ: usize = 64 << 10;

/// The maximum size of a write to a terminal, in bytes.
const MAX_TERMINAL_WRITE: usize = 8 << 10;

/// How long one output waits for earlier pieces of the other to be written.
const MAX_TURN_WAIT: Duration = Duration::from_millis(100);

/// An output stream of a command.
pub(crate) trait Output: Send + 'static {
    fn next(&mut self) -> impl Future<Output = io::Result<Option<Bytes>>> + Send;
    fn consumed(&self, bytes: usize);
    fn is_next(&self) -> bool;
}

impl Output for ChildStdout {
    fn next(&mut self) -> impl Future<Output = io::Result<Option<Bytes>>> + Send {
        ChildStdout::next(self)
    }

    fn consumed(&self, bytes: usize) {
        ChildStdout::consumed(self, bytes);
    }

    fn is_next(&self) -> bool {
        ChildStdout::is_next(self)
    }
}

impl Output for ChildStderr {
    fn next(&mut self) -> impl Future<Output = io::Result<Option<Bytes>>> + Send {
        ChildStderr::next(self)
    }

    fn consumed(&self, bytes: usize) {
        ChildStderr::consumed(self, bytes);
    }

    fn is_next(&self) -> bool {
        ChildStderr::is_next(self)
    }
}

/// Counts writes in progress, to tell whether the command or the local reader delays the end.
#[derive(Debug, Default)]
pub(crate) struct Activity {
    /// Writes in write(2), which cannot be cancelled.
    writing: AtomicUsize,
    /// Writes that wait until a terminal accepts more.
    waiting: AtomicUsize,
    pieces: AtomicUsize,
    abandoned: AtomicBool,
    /// Notified after each piece.
    written: Notify,
}

impl Activity {
    fn during<T>(&self, write: impl FnOnce() -> T) -> T {
        // SeqCst orders this with `abandoned`: either this write observes the flag, or the task
        // that sets it observes this write.
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

    /// Resolves once no output was passed on for one interval; output that waits for its local
    /// reader delays that for up to `reader_intervals` in a row.
    pub(crate) async fn quiet(&self, interval: Duration, reader_intervals: u32) {
        let mut stalled = 0;
        loop {
            let before = self.pieces.load(Ordering::Relaxed);
            tokio::time::sleep(interval).await;
            let waits = [&self.writing, &self.waiting]
                .iter()
                .any(|count| count.load(Ordering::Relaxed) > 0);
            stalled = match self.pieces.load(Ordering::Relaxed) == before {
                true if !waits || stalled >= reader_intervals => return,
                true => stalled + 1,
                false => 0,
            };
        }
    }

    /// Stops all writing, so that labsh's last message is the last line on the screen. Waits at
    /// most two seconds for a write to a terminal, and not at all for other writes.
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

/// Keeps the order in which the pieces of both outputs arrived: a tool may end labsh at once
/// because of what it reads from one, and would lose an earlier message on the other.
#[derive(Debug, Default)]
struct Turn {
    /// Whether the other output has stalled, so that it delays this one no longer.
    stalled: bool,
}

impl Turn {
    /// Waits until earlier output is written, at most [`MAX_TURN_WAIT`] for a reader that takes
    /// nothing.
    async fn wait(&mut self, from: &impl Output, activity: &Activity) {
        let earlier = async {
            loop {
                let written = activity.written.notified();
                if from.is_next() {
                    return;
                }
                written.await;
            }
        };
        self.stalled = timeout(MAX_TURN_WAIT, earlier).await.is_err();
    }

    /// Whether the last piece can be written without waiting.
    fn has_come(&mut self, from: &impl Output) -> bool {
        let is_next = from.is_next();
        self.stalled &= !is_next;
        is_next || self.stalled
    }
}

/// Copies an output stream of a command to a local descriptor until its end. An error concerns the
/// local descriptor, and closes the pipe on the host. A lost connection shows as the end; the child
/// reports it.
pub(crate) async fn write_out(
    mut from: impl Output,
    to: impl AsFd + Send + 'static,
    activity: Arc<Activity>,
) -> io::Result<()> {
    // Many commands write to only one of the two streams; the other needs no thread.
    let Ok(Some(first)) = from.next().await else { return Ok(()) };
    if let Some(terminal) = OwnTerminal::to_write(&to) {
        return show(first, from, &terminal, &activity).await;
    }
    let (done, outcome) = oneshot::channel();
    let runtime = Handle::current();
    thread::Builder::new().name("output".into()).spawn(move || {
        let copy = || -> io::Result<()> {
            let (mut next, mut turn) = (Some(first), Turn::default());
            while let Some(bytes) = next {
                if !turn.has_come(&from) {
                    runtime.block_on(turn.wait(&from, &activity));
                }
                activity.during(|| write_all(to.as_fd(), &bytes, &activity))?;
                if activity.is_abandoned() {
                    break;
                }
                from.consumed(bytes.len());
                activity.written.notify_waiters();
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

/// Copies an output stream to a terminal within this task. Cancelled, it stops between two writes.
async fn show(
    first: Bytes,
    mut from: impl Output,
    terminal: &OwnTerminal,
    activity: &Activity,
) -> io::Result<()> {
    let (mut next, mut turn) = (Some(first), Turn::default());
    while let Some(bytes) = next {
        if !turn.has_come(&from) {
            turn.wait(&from, activity).await;
        }
        for piece in bytes.chunks(MAX_TERMINAL_WRITE) {
            let mut rest = piece;
            while !rest.is_empty() {
                let written = activity.during_wait(terminal.write(rest)).await?;
                rest = &rest[written..];
            }
            // A console draws during the write; keys and signals must not wait for all of it.
            yield_now().await;
        }
        from.consumed(bytes.len());
        activity.written.notify_waiters();
        next = from.next().await.unwrap_or(None);
    }
    Ok(())
}

/// Copies local stdin to a command until its end, or until the command stops reading. The thread
/// may block in read(2) until the process ends. The receiver resolves only with an error: the
/// command then sees no end of input, because it has not got all of it.
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
            // Another process that shares the descriptor made it non-blocking.
            Err(nix::errno::Errno::EAGAIN) => wait(to, nix::poll::PollFlags::POLLOUT),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn wait(descriptor: BorrowedFd<'_>, events: nix::poll::PollFlags) {
    let mut descriptors = [nix::poll::PollFd::new(descriptor, events)];
    // The caller tries again, so an interrupted wait needs no handling.
    let _ = nix::poll::poll(&mut descriptors, nix::poll::PollTimeout::NONE);
}
