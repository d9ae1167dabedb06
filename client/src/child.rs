//! A running command: its streams, signals, and exit status.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use labsh_proto::channel::{Channels, Completeness};
use labsh_proto::explanation::Explained;
use labsh_proto::frame::ChannelId;
use labsh_proto::message::{Resize, Signal, Status, Stream};
use labsh_transport::multiplexer::{ConnectionLost, WriteCapacity};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::watch;

use crate::connection::Connection;
use crate::error::{BadSignal, CommandError};
use crate::exit_status::{ExitStatus, Output};
use crate::progress::Progress;

/// The number of the signal that interrupts a command (signal(7)).
pub const SIGINT: u8 = 2;

/// The number of the signal that asks a command to terminate (signal(7)).
pub const SIGTERM: u8 = 15;

/// What a stream of a command is connected to on this side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stdio {
    /// A pipe to this program.
    Piped,
    /// Nothing: stdin is empty, and output is discarded.
    Null,
}

/// The channel of a command. It closes when the child and all of its streams are dropped.
#[derive(Debug)]
struct Channel {
    connection: Arc<Connection>,
    id: ChannelId,
}

impl Channel {
    fn with<T>(&self, action: impl FnOnce(&mut Channels, ChannelId) -> T) -> T {
        self.connection.multiplexer.with(|channels| action(channels, self.id))
    }

    /// Ends a stream that this side writes.
    fn finish(&self, stream: Stream) {
        self.with(|channels, id| channels.finish(id, stream));
    }

    fn lost(&self) -> io::Error {
        io::Error::new(io::ErrorKind::ConnectionAborted, self.connection.loss())
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        self.connection.close_channel(self.id);
    }
}

/// A command on the host. If it and its streams are dropped before the command ends, the host ends
/// the command.
#[derive(Debug)]
pub struct Child {
    /// Writes to the command's stdin, if that is piped. Dropping it is the command's end of file.
    pub stdin: Option<ChildStdin>,
    /// Reads the command's stdout, if that is piped. Dropping it closes the pipe on the host.
    pub stdout: Option<ChildStdout>,
    /// Reads the command's stderr, if that is piped. Dropping it closes the pipe on the host.
    pub stderr: Option<ChildStderr>,
    channel: Arc<Channel>,
    progress: watch::Receiver<Progress>,
}

impl Child {
    pub(crate) fn new(
        connection: Arc<Connection>,
        id: ChannelId,
        progress: watch::Receiver<Progress>,
        [stdin, stdout, stderr]: [Stdio; 3],
    ) -> Self {
        let channel = Arc::new(Channel { connection, id });
        if stdin == Stdio::Null {
            channel.finish(Stream::Stdin);
        }
        let end = |stream, stdio| match stdio {
            Stdio::Piped => {
                Some(ReadEnd { channel: channel.clone(), stream, rest: Bytes::new(), ended: false })
            }
            Stdio::Null => {
                tokio::spawn(discard(channel.connection.clone(), id, stream));
                None
            }
        };
        Self {
            stdin: (stdin == Stdio::Piped)
                .then(|| ChildStdin { channel: channel.clone(), ends: true }),
            stdout: end(Stream::Stdout, stdout).map(ChildStdout),
            stderr: end(Stream::Stderr, stderr).map(ChildStderr),
            channel,
            progress,
        }
    }

    /// Waits until the command runs and returns its process id on the host, or returns why it does
    /// not run.
    pub async fn started(&self) -> Result<u32, CommandError> {
        match self.wait_for(|progress| !matches!(progress, Progress::Opening)).await? {
            Progress::Started { pid }
            | Progress::Ended { pid, .. }
            | Progress::Exited { pid, .. } => Ok(pid),
            Progress::Refused(refuse) => Err(CommandError::Refused(refuse)),
            Progress::Opening | Progress::Explained(_) => Err(self.channel.connection.loss()),
        }
    }

    /// Returns the answer to a request to explain.
    pub(crate) async fn explained(&self) -> Result<Explained, CommandError> {
        match self.wait_for(|progress| !matches!(progress, Progress::Opening)).await? {
            Progress::Explained(explained) => Ok(*explained),
            Progress::Refused(refuse) => Err(CommandError::Refused(refuse)),
            _ => Err(self.channel.connection.loss()),
        }
    }

    /// Waits until the command itself exits. Other processes may still hold its streams open.
    pub async fn ended(&self) -> Result<Status, CommandError> {
        let has_ended = |progress: &Progress| {
            matches!(
                progress,
                Progress::Ended { .. } | Progress::Exited { .. } | Progress::Refused(_)
            )
        };
        match self.wait_for(has_ended).await? {
            Progress::Ended { status, .. } => Ok(status),
            Progress::Exited { exit, .. } => Ok(exit.status),
            Progress::Refused(refuse) => Err(CommandError::Refused(refuse)),
            Progress::Opening | Progress::Explained(_) | Progress::Started { .. } => {
                Err(self.channel.connection.loss())
            }
        }
    }

    /// Closes stdin, then waits until the command and its output streams end, and checks that the
    /// output is complete.
    ///
    /// If piped output is not read, the command blocks once its window is full, and this never
    /// returns.
    pub async fn wait(&mut self) -> Result<ExitStatus, CommandError> {
        drop(self.stdin.take());
        self.exited().await
    }

    /// Waits as [`Self::wait`] does, but leaves stdin open.
    pub async fn exited(&self) -> Result<ExitStatus, CommandError> {
        let has_exited = |progress: &Progress| {
            matches!(progress, Progress::Exited { .. } | Progress::Refused(_))
        };
        match self.wait_for(has_exited).await? {
            Progress::Exited { exit, completeness: Completeness::Complete, .. } => {
                Ok(ExitStatus(exit))
            }
            Progress::Exited {
                completeness: Completeness::Mismatch { stream, received, sent },
                ..
            } => Err(CommandError::Incomplete { stream, received, sent }),
            Progress::Refused(refuse) => Err(CommandError::Refused(refuse)),
            _ => Err(self.channel.connection.loss()),
        }
    }

    /// Collects the rest of both outputs, then waits as [`Self::wait`] does.
    pub async fn wait_with_output(mut self) -> Result<Output, CommandError> {
        drop(self.stdin.take());
        let (stdout, stderr) = (self.stdout.take(), self.stderr.take());
        let stdout = async { collect(stdout.map(|end| end.0)).await };
        let stderr = async { collect(stderr.map(|end| end.0)).await };
        let (stdout, stderr) = tokio::join!(stdout, stderr);
        let status = self.wait().await?;
        Ok(Output { status, stdout, stderr })
    }

    /// Sends a signal (signal(7), 1 to 31) to the command's process group; SIGHUP, SIGTERM and
    /// SIGKILL go to all its processes. With a terminal, all go to the foreground group.
    ///
    /// # Errors
    ///
    /// Any other number is not sent: the server would end the session with all its commands.
    pub fn signal(&self, number: u8) -> Result<(), BadSignal> {
        if !(1..=31).contains(&number) {
            return Err(BadSignal(number));
        }
        self.channel.with(|channels, id| channels.signal(id, Signal { number }));
        Ok(())
    }

    /// Sends a new size for the command's terminal.
    pub fn resize(&self, size: Resize) {
        self.channel.with(|channels, id| channels.resize(id, size));
    }

    /// Asks the host to answer, whatever the command does; returns the round-trip time.
    pub async fn ping(&self) -> Result<Duration, CommandError> {
        self.channel.connection.ping().await
    }

    /// Whether the host has not answered the request yet.
    pub fn is_opening(&self) -> bool {
        matches!(*self.progress.borrow(), Progress::Opening)
    }

    /// Returns how the command itself ended, once the host has reported it. Other processes may
    /// still hold its streams open.
    pub fn end_status(&self) -> Option<Status> {
        match *self.progress.borrow() {
            Progress::Ended { status, .. } => Some(status),
            Progress::Exited { exit, .. } => Some(exit.status),
            _ => None,
        }
    }

    async fn wait_for(
        &self,
        ready: impl FnMut(&Progress) -> bool,
    ) -> Result<Progress, CommandError> {
        let mut progress = self.progress.clone();
        match progress.wait_for(ready).await {
            Ok(progress) => Ok(progress.clone()),
            Err(_) => Err(self.channel.connection.loss()),
        }
    }
}

/// Reads and discards an output, so that the command does not block on it. The task does not keep
/// the channel open; it ends when the channel closes.
async fn discard(connection: Arc<Connection>, id: ChannelId, stream: Stream) {
    while let Ok(Some(bytes)) = connection.multiplexer.read(id, stream).await {
        connection.multiplexer.with(|channels| channels.consume(id, stream, bytes.len()));
    }
}

async fn collect(end: Option<ReadEnd>) -> Vec<u8> {
    let mut collected = Vec::new();
    let Some(mut end) = end else { return collected };
    // If the connection is lost, `wait` returns the error afterwards.
    while let Ok(Some(bytes)) = end.next().await {
        collected.extend_from_slice(&bytes);
        end.consumed(bytes.len());
    }
    collected
}

/// The receiving end of one output stream.
#[derive(Debug)]
struct ReadEnd {
    channel: Arc<Channel>,
    stream: Stream,
    /// The part of the last piece that `AsyncRead` has not returned yet.
    rest: Bytes,
    ended: bool,
}

impl ReadEnd {
    fn poll_next(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Result<Option<Bytes>, ConnectionLost>> {
        if self.ended {
            return Poll::Ready(Ok(None));
        }
        let Channel { connection, id } = &*self.channel;
        let next = ready!(connection.multiplexer.poll_read(context, *id, self.stream));
        self.ended = matches!(next, Ok(None));
        Poll::Ready(next)
    }

    async fn next(&mut self) -> Result<Option<Bytes>, ConnectionLost> {
        poll_fn(|context| self.poll_next(context)).await
    }

    fn consumed(&self, bytes: usize) {
        self.channel.with(|channels, id| channels.consume(id, self.stream, bytes));
    }

    fn is_next(&self) -> bool {
        self.channel.with(|channels, id| channels.is_next(id, self.stream))
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
                Err(ConnectionLost) => return Poll::Ready(Err(self.channel.lost())),
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
            self.channel.with(|channels, id| channels.stop(id, self.stream));
        }
    }
}

macro_rules! read_end {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug)]
        pub struct $name(ReadEnd);

        impl $name {
            /// Returns the next piece without copying it, or `None` at the end.
            ///
            /// Call [`Self::consumed`] once the piece is processed: only then may the server send
            /// more. Do not call this while `AsyncRead` has returned only a part of a piece.
            pub async fn next(&mut self) -> io::Result<Option<Bytes>> {
                self.0.next().await.map_err(|ConnectionLost| self.0.channel.lost())
            }

            /// Reports that bytes from [`Self::next`] are processed.
            pub fn consumed(&self, bytes: usize) {
                self.0.consumed(bytes);
            }

            /// Whether everything that arrived on the other output before the last piece is
            /// processed.
            pub fn is_next(&self) -> bool {
                self.0.is_next()
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
    /// The stdout of a command.
    ChildStdout
}

read_end! {
    /// The stderr of a command.
    ChildStderr
}

/// The stdin of a command. A write fails with `BrokenPipe` once the command has closed it.
#[derive(Debug)]
pub struct ChildStdin {
    channel: Arc<Channel>,
    /// Whether dropping this sends end of file.
    ends: bool,
}

impl ChildStdin {
    /// Writes bytes without copying them; waits while the command does not read.
    pub async fn send(&mut self, mut bytes: Bytes) -> io::Result<()> {
        while !bytes.is_empty() {
            let capacity = poll_fn(|context| self.poll_capacity(context)).await?;
            let piece = bytes.split_to(bytes.len().min(capacity));
            self.write(piece)?;
        }
        Ok(())
    }

    /// Drops stdin without end of file, for input that is incomplete. On the host it stays open
    /// until the command ends or its [`Child`] is dropped.
    pub fn leave_open(mut self) {
        self.ends = false;
    }

    /// Waits until the command closes its stdin or the connection is lost.
    pub async fn closed(&self) {
        let Channel { connection, id } = &*self.channel;
        connection.multiplexer.no_reader(*id, Stream::Stdin).await;
    }

    /// Waits until the command can be sent at least one byte; returns how many.
    fn poll_capacity(&self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let Channel { connection, id } = &*self.channel;
        let room = ready!(connection.multiplexer.poll_write_capacity(context, *id, Stream::Stdin));
        Poll::Ready(match room {
            Ok(WriteCapacity::Bytes(bytes)) => Ok(bytes),
            Ok(WriteCapacity::NoReader) => Err(io::ErrorKind::BrokenPipe.into()),
            Err(ConnectionLost) => Err(self.channel.lost()),
        })
    }

    fn write(&self, bytes: Bytes) -> io::Result<()> {
        self.channel
            .with(|channels, id| channels.write(id, Stream::Stdin, bytes))
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
        let count = ready!(self.poll_capacity(context))?.min(bytes.len());
        self.write(Bytes::copy_from_slice(&bytes[..count]))?;
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.channel.finish(Stream::Stdin);
        Poll::Ready(Ok(()))
    }
}

impl Drop for ChildStdin {
    fn drop(&mut self) {
        if self.ends {
            self.channel.finish(Stream::Stdin);
        }
    }
}
