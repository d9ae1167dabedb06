//! A running command: its streams, its signals, its end.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use labsh_proto::channel::Completeness;
use labsh_proto::explanation::Explained;
use labsh_proto::frame::ChannelId;
use labsh_proto::message::{Exit, Resize, Signal, Status, Stream, Usage};
use labsh_transport::multiplexer::{Lost, Room};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::watch;

use crate::command::Stdio;
use crate::error::{BadSignal, CommandError};
use crate::session::{Inner, Progress};

/// The slot of a command: given back when the child and all its streams have been dropped.
#[derive(Debug)]
struct Slot {
    session: Arc<Inner>,
    id: ChannelId,
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.session.close(self.id);
    }
}

/// A command on the other machine. Dropping it, with its streams, before it has ended ends the
/// command.
#[derive(Debug)]
pub struct Child {
    /// Writes to the command's stdin, if that is piped. Dropping it is the command's end-of-file.
    pub stdin: Option<ChildStdin>,
    /// Reads the command's stdout, if that is piped. Dropping it closes the pipe over there.
    pub stdout: Option<ChildStdout>,
    /// Reads the command's stderr, if that is piped. Dropping it closes the pipe over there.
    pub stderr: Option<ChildStderr>,
    slot: Arc<Slot>,
    progress: watch::Receiver<Progress>,
}

/// How a command ended, and what it used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExitStatus(Exit);

impl ExitStatus {
    /// Whether it exited with code 0.
    pub fn success(&self) -> bool {
        self.0.status == Status::Exited(0)
    }

    /// The same with another exit code, where it is known here that the command's own says too
    /// much.
    pub fn with_code(mut self, code: u8) -> Self {
        self.0.status = Status::Exited(code);
        self
    }

    /// Its exit code, unless a signal ended it.
    pub fn code(&self) -> Option<u8> {
        match self.0.status {
            Status::Exited(code) => Some(code),
            Status::Signaled { .. } => None,
        }
    }

    /// The signal that ended it, by its number on Linux.
    pub fn signal(&self) -> Option<u8> {
        match self.0.status {
            Status::Exited(_) => None,
            Status::Signaled { signal, .. } => Some(signal),
        }
    }

    /// Whether it left a core file.
    pub fn core_dumped(&self) -> bool {
        matches!(self.0.status, Status::Signaled { core_dumped: true, .. })
    }

    /// Whether the server ended it because its time was up.
    pub fn timed_out(&self) -> bool {
        self.0.timed_out
    }

    /// Time and memory that it used.
    pub fn usage(&self) -> Usage {
        self.0.usage
    }

    /// Bytes that the server sent on stdout and stderr.
    pub fn totals(&self) -> (u64, u64) {
        (self.0.stdout, self.0.stderr)
    }
}

/// A command's end and its whole output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// How it ended.
    pub status: ExitStatus,
    /// All of its stdout.
    pub stdout: Vec<u8>,
    /// All of its stderr.
    pub stderr: Vec<u8>,
}

impl Child {
    pub(crate) fn new(
        session: Arc<Inner>,
        id: ChannelId,
        progress: watch::Receiver<Progress>,
        [stdin, stdout, stderr]: [Stdio; 3],
    ) -> Self {
        let slot = Arc::new(Slot { session, id });
        if stdin == Stdio::Null {
            slot.session.multiplexer.with(|channels| channels.finish(id, Stream::Stdin));
        }
        let end = |stream, stdio| match stdio {
            Stdio::Piped => {
                Some(ReadEnd { slot: slot.clone(), stream, rest: Bytes::new(), ended: false })
            }
            Stdio::Null => {
                tokio::spawn(discard(slot.session.clone(), id, stream));
                None
            }
        };
        Self {
            stdin: (stdin == Stdio::Piped).then(|| ChildStdin { slot: slot.clone(), ends: true }),
            stdout: end(Stream::Stdout, stdout).map(ChildStdout),
            stderr: end(Stream::Stderr, stderr).map(ChildStderr),
            slot,
            progress,
        }
    }

    /// Resolves once the command runs, with its process id over there, or with why it does not.
    pub async fn started(&self) -> Result<u32, CommandError> {
        match self.wait_for(|progress| !matches!(progress, Progress::Opening)).await? {
            Progress::Started { pid }
            | Progress::Ended { pid, .. }
            | Progress::Exited { pid, .. } => Ok(pid),
            Progress::Refused(refuse) => Err(CommandError::Refused(refuse)),
            Progress::Opening | Progress::Explained(_) => Err(self.slot.session.lost()),
        }
    }

    /// Of a channel that asks what would become of a command: the answer.
    pub(crate) async fn explained(&self) -> Result<Explained, CommandError> {
        match self.wait_for(|progress| !matches!(progress, Progress::Opening)).await? {
            Progress::Explained(explained) => Ok(*explained),
            Progress::Refused(refuse) => Err(CommandError::Refused(refuse)),
            _ => Err(self.slot.session.lost()),
        }
    }

    /// Resolves once the command itself has ended, though others may still hold its streams open.
    pub async fn ended(&self) -> Result<Status, CommandError> {
        let over = |progress: &Progress| {
            matches!(
                progress,
                Progress::Ended { .. } | Progress::Exited { .. } | Progress::Refused(_)
            )
        };
        match self.wait_for(over).await? {
            Progress::Ended { status, .. } => Ok(status),
            Progress::Exited { exit, .. } => Ok(exit.status),
            Progress::Refused(refuse) => Err(CommandError::Refused(refuse)),
            Progress::Opening | Progress::Explained(_) | Progress::Started { .. } => {
                Err(self.slot.session.lost())
            }
        }
    }

    /// Resolves once the command and its output streams have ended and all totals were found right.
    ///
    /// Closes stdin first. Whoever takes no output from a piped stream makes a talkative command
    /// wait.
    pub async fn wait(&mut self) -> Result<ExitStatus, CommandError> {
        drop(self.stdin.take());
        self.exited().await
    }

    /// As [`Self::wait`], but leaves stdin as it is.
    pub async fn exited(&self) -> Result<ExitStatus, CommandError> {
        let over = |progress: &Progress| {
            matches!(progress, Progress::Exited { .. } | Progress::Refused(_))
        };
        match self.wait_for(over).await? {
            Progress::Exited { exit, completeness: Completeness::Complete, .. } => {
                Ok(ExitStatus(exit))
            }
            Progress::Exited {
                completeness: Completeness::Mismatch { stream, received, sent },
                ..
            } => Err(CommandError::Incomplete { stream, received, sent }),
            Progress::Refused(refuse) => Err(CommandError::Refused(refuse)),
            _ => Err(self.slot.session.lost()),
        }
    }

    /// Collects what is left of both outputs, then as [`Self::wait`].
    pub async fn wait_with_output(mut self) -> Result<Output, CommandError> {
        drop(self.stdin.take());
        let (stdout, stderr) = (self.stdout.take(), self.stderr.take());
        let stdout = async { collect(stdout.map(|end| end.0)).await };
        let stderr = async { collect(stderr.map(|end| end.0)).await };
        let (stdout, stderr) = tokio::join!(stdout, stderr);
        let status = self.wait().await?;
        Ok(Output { status, stdout, stderr })
    }

    /// Sends a signal (signal(7), 1 to 31) to the command's process group.
    ///
    /// # Errors
    ///
    /// For any other number. It is not sent: the server would end the session, with all its
    /// commands.
    pub fn signal(&self, number: u8) -> Result<(), BadSignal> {
        if !(1..=31).contains(&number) {
            return Err(BadSignal(number));
        }
        let slot = &self.slot;
        slot.session.multiplexer.with(|channels| channels.signal(slot.id, Signal { number }));
        Ok(())
    }

    /// Tells the new size of the terminal that the command was given.
    pub fn resize(&self, size: Resize) {
        let slot = &self.slot;
        slot.session.multiplexer.with(|channels| channels.resize(slot.id, size));
    }

    /// Whether the host has not said yet what became of it.
    pub fn is_opening(&self) -> bool {
        matches!(*self.progress.borrow(), Progress::Opening)
    }

    async fn wait_for(
        &self,
        ready: impl FnMut(&Progress) -> bool,
    ) -> Result<Progress, CommandError> {
        let mut progress = self.progress.clone();
        match progress.wait_for(ready).await {
            Ok(progress) => Ok(progress.clone()),
            Err(_) => Err(self.slot.session.lost()),
        }
    }
}

/// An output that nobody wants is still read, so that its writer does not notice. Holds no slot: it
/// ends with it.
async fn discard(session: Arc<Inner>, id: ChannelId, stream: Stream) {
    while let Ok(Some(bytes)) = session.multiplexer.read(id, stream).await {
        session.multiplexer.with(|channels| channels.consume(id, stream, bytes.len()));
    }
}

async fn collect(end: Option<ReadEnd>) -> Vec<u8> {
    let mut collected = Vec::new();
    let Some(mut end) = end else { return collected };
    // A lost connection shows in `wait`, which follows.
    while let Ok(Some(bytes)) = end.next().await {
        collected.extend_from_slice(&bytes);
        end.consumed(bytes.len());
    }
    collected
}

/// The receiving end of one output stream.
#[derive(Debug)]
struct ReadEnd {
    slot: Arc<Slot>,
    stream: Stream,
    rest: Bytes,
    ended: bool,
}

impl ReadEnd {
    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Lost>> {
        if self.ended {
            return Poll::Ready(Ok(None));
        }
        let next =
            ready!(self.slot.session.multiplexer.poll_read(context, self.slot.id, self.stream));
        self.ended = matches!(next, Ok(None));
        Poll::Ready(next)
    }

    async fn next(&mut self) -> Result<Option<Bytes>, Lost> {
        poll_fn(|context| self.poll_next(context)).await
    }

    fn consumed(&self, bytes: usize) {
        self.slot
            .session
            .multiplexer
            .with(|channels| channels.consume(self.slot.id, self.stream, bytes));
    }

    fn poll_read(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.rest.is_empty() {
            match ready!(self.poll_next(context)) {
                Ok(Some(bytes)) => self.rest = bytes,
                Ok(None) => return Poll::Ready(Ok(())),
                Err(Lost) => return Poll::Ready(Err(lost(&self.slot))),
            }
        }
        let count = self.rest.len().min(buffer.remaining());
        buffer.put_slice(&self.rest[..count]);
        self.rest.advance(count);
        self.consumed(count);
        Poll::Ready(Ok(()))
    }
}

impl Drop for ReadEnd {
    fn drop(&mut self) {
        if !self.ended {
            self.slot.session.multiplexer.with(|channels| channels.stop(self.slot.id, self.stream));
        }
    }
}

fn lost(slot: &Slot) -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, slot.session.lost())
}

macro_rules! read_end {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug)]
        pub struct $name(ReadEnd);

        impl $name {
            /// The next piece, without copying it; `None` at the end. Call [`Self::consumed`] once
            /// it is handed on: the server may send more only then. Not to be mixed with
            /// `AsyncRead` within one piece.
            pub async fn next(&mut self) -> io::Result<Option<Bytes>> {
                self.0.next().await.map_err(|Lost| lost(&self.0.slot))
            }

            /// Reports bytes from [`Self::next`] as handed on for good.
            pub fn consumed(&self, bytes: usize) {
                self.0.consumed(bytes);
            }
        }

        impl AsyncRead for $name {
            fn poll_read(
                mut self: Pin<&mut Self>,
                context: &mut Context<'_>,
                buffer: &mut ReadBuf<'_>,
            ) -> Poll<io::Result<()>> {
                self.0.poll_read(context, buffer)
            }
        }
    };
}

read_end! {
    /// A command's stdout.
    ChildStdout
}

read_end! {
    /// A command's stderr.
    ChildStderr
}

/// A command's stdin. A write fails with `BrokenPipe` once the command has closed it.
#[derive(Debug)]
pub struct ChildStdin {
    slot: Arc<Slot>,
    /// Whether the command sees an end when this is dropped.
    ends: bool,
}

impl ChildStdin {
    /// Writes a piece without copying it, as far as the command takes it.
    pub async fn send(&mut self, mut bytes: Bytes) -> io::Result<()> {
        while !bytes.is_empty() {
            let room = poll_fn(|context| self.poll_room(context)).await?;
            let piece = bytes.split_to(bytes.len().min(room));
            self.write(piece)?;
        }
        Ok(())
    }

    /// Gives it up without an end-of-file: what was sent must not pass for the whole. It stays open
    /// over there until the command ends, or its [`Child`] is dropped.
    pub fn leave_open(mut self) {
        self.ends = false;
    }

    /// Resolves once the command no longer reads its stdin, or the connection has gone.
    pub async fn closed(&self) {
        self.slot.session.multiplexer.no_reader(self.slot.id, Stream::Stdin).await;
    }

    fn poll_room(&self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        Poll::Ready(
            match ready!(self.slot.session.multiplexer.poll_room(
                context,
                self.slot.id,
                Stream::Stdin
            )) {
                Ok(Room::Bytes(room)) => Ok(room),
                Ok(Room::NoReader) => Err(io::ErrorKind::BrokenPipe.into()),
                Err(Lost) => Err(lost(&self.slot)),
            },
        )
    }

    fn write(&self, bytes: Bytes) -> io::Result<()> {
        self.slot
            .session
            .multiplexer
            .with(|channels| channels.write(self.slot.id, Stream::Stdin, bytes))
            .map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

impl AsyncWrite for ChildStdin {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let count = ready!(self.poll_room(context))?.min(bytes.len());
        self.write(Bytes::copy_from_slice(&bytes[..count]))?;
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.slot.session.multiplexer.with(|channels| channels.finish(self.slot.id, Stream::Stdin));
        Poll::Ready(Ok(()))
    }
}

impl Drop for ChildStdin {
    fn drop(&mut self) {
        if self.ends {
            self.slot
                .session
                .multiplexer
                .with(|channels| channels.finish(self.slot.id, Stream::Stdin));
        }
    }
}
