//! Copies one stream of one command between its pipe or terminal and its channel, until its end.

use std::io;
use std::os::fd::AsFd;

use bytes::{BufMut, Bytes, BytesMut};
use labsh_proto::frame::ChannelId;
use labsh_proto::message::Stream;
use labsh_transport::multiplexer::{ConnectionLost, Multiplexer, WriteCapacity};
use labsh_transport::recycle::Recycler;
use nix::fcntl::{FcntlArg, fcntl};
use tokio::io::{AsyncWriteExt, Interest};
use tokio::net::unix::pipe;
use tokio::task::coop::consume_budget;
use tokio_util::sync::CancellationToken;

use crate::terminal::Terminal;

/// Limit on one read from a pipe, in bytes.
const MAX_READ: usize = 128 << 10;

/// Limit on output that is copied out of its buffer, in bytes, so that a short piece does not keep
/// a whole buffer in memory.
const MAX_COPIED_LEN: usize = 16 << 10;

/// A pipe or terminal that a command writes its output to.
pub(crate) trait Source {
    /// Waits until data or an end-of-file can be read.
    async fn readable(&self);

    /// Reads at most `limit` bytes into an empty buffer; 0 means end-of-file.
    fn read_ready(&self, buffer: &mut BytesMut, limit: usize) -> io::Result<usize>;

    /// Reads like [`Source::read_ready`], but whether or not the runtime has been notified of the
    /// latest data.
    fn read_now(&self, buffer: &mut BytesMut, limit: usize) -> io::Result<usize>;

    /// Returns how many unread bytes it can hold.
    fn capacity(&self) -> usize;
}

/// Why copying an output ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OutputEnd {
    /// The stream ended, or the connection was lost.
    Finished,
    /// The client stopped reading.
    ReaderStopped,
}

/// Copies a command's output to its channel until its end, or until the client stops reading. Once
/// `ending` is cancelled, it ends after as many bytes as the source can hold, even if processes
/// continue to write.
pub(crate) async fn copy_output(
    multiplexer: &Multiplexer,
    id: ChannelId,
    stream: Stream,
    source: impl Source,
    ending: &CancellationToken,
) -> OutputEnd {
    let (mut buffer, mut spare) = (BytesMut::new(), Recycler::default());
    let mut left = None;
    loop {
        // If both the command and the client are fast, nothing below ever waits.
        consume_budget().await;
        let room = match multiplexer.write_capacity(id, stream).await {
            Ok(WriteCapacity::Bytes(room)) => room.min(MAX_READ),
            Ok(WriteCapacity::NoReader) => return OutputEnd::ReaderStopped,
            Err(ConnectionLost) => {
                discard_output(&source, ending).await;
                return OutputEnd::Finished;
            }
        };
        let last = ending.is_cancelled();
        // Once `left` is 0, the read below returns 0, as at end-of-file.
        let room =
            if last { room.min(*left.get_or_insert_with(|| source.capacity())) } else { room };
        if !last {
            tokio::select! {
                biased;
                () = source.readable() => {}
                () = multiplexer.no_reader(id, stream) => continue,
                () = ending.cancelled() => {}
            }
        }
        spare.reserve(&mut buffer, room);
        let read = if last {
            source.read_now(&mut buffer, room)
        } else {
            source.read_ready(&mut buffer, room)
        };
        match read {
            Ok(0) => break,
            Ok(count) => {
                left = left.map(|left| left - count);
                let bytes = if count < MAX_COPIED_LEN {
                    let small = Bytes::copy_from_slice(&buffer);
                    buffer.clear();
                    small
                } else {
                    buffer.split().freeze()
                };
                // Fails if the client has stopped reading, which the next iteration handles.
                let _ = multiplexer.with(|channels| channels.write(id, stream, bytes));
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && !last => {}
            Err(_) => break,
        }
    }
    multiplexer.with(|channels| channels.finish(id, stream));
    OutputEnd::Finished
}

/// Reads and discards a command's output while the command is being ended. If the output were
/// closed instead, the first message of a signal handler would kill the command.
pub(crate) async fn discard_output(source: &impl Source, ending: &CancellationToken) {
    let mut scrap = BytesMut::new();
    loop {
        // As above; the same task also ends the command.
        consume_budget().await;
        tokio::select! {
            () = source.readable() => {}
            () = ending.cancelled() => return,
        }
        match source.read_ready(&mut scrap, MAX_COPIED_LEN) {
            Ok(0) => return,
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => return,
            _ => scrap.clear(),
        }
    }
}

impl Source for pipe::Receiver {
    async fn readable(&self) {
        // The read returns the same error.
        let _ = pipe::Receiver::readable(self).await;
    }

    fn read_ready(&self, buffer: &mut BytesMut, limit: usize) -> io::Result<usize> {
        buffer.reserve(limit);
        self.try_read_buf(&mut buffer.limit(limit))
    }

    fn read_now(&self, buffer: &mut BytesMut, limit: usize) -> io::Result<usize> {
        read(self, buffer, limit)
    }

    fn capacity(&self) -> usize {
        let size = fcntl(self, FcntlArg::F_GETPIPE_SZ).ok();
        size.and_then(|size| size.try_into().ok()).unwrap_or(MAX_READ)
    }
}

/// Replaces the buffer's content by one read(2) of at most `limit` bytes.
pub(crate) fn read(from: impl AsFd, buffer: &mut BytesMut, limit: usize) -> io::Result<usize> {
    buffer.resize(limit, 0);
    let count = nix::unistd::read(from, buffer);
    buffer.truncate(count.unwrap_or(0));
    Ok(count?)
}

/// Types stdin into a command's terminal until its end, and then the terminal's end-of-file
/// character. If the client goes first, nothing more is typed: to the command it would look like
/// the user's decision.
pub(crate) async fn type_input(multiplexer: &Multiplexer, id: ChannelId, terminal: &Terminal) {
    let mut last_typed = None;
    loop {
        let typed = match multiplexer.read(id, Stream::Stdin).await {
            Ok(Some(bytes)) => {
                last_typed = bytes.last().copied().or(last_typed);
                let typed = terminal.type_all(&bytes).await;
                multiplexer.with(|channels| channels.consume(id, Stream::Stdin, bytes.len()));
                typed
            }
            Ok(None) => return drop(terminal.type_all(&terminal.end_of_input(last_typed)).await),
            Err(ConnectionLost) => std::future::pending().await,
        };
        if typed.is_err() {
            return multiplexer.with(|channels| channels.stop(id, Stream::Stdin));
        }
    }
}

/// Copies stdin to a command's pipe until its end, or until the command stops reading. If the
/// client goes first, the pipe stays open: after an end-of-file the command would take its input
/// for complete.
pub(crate) async fn copy_input(multiplexer: &Multiplexer, id: ChannelId, mut pipe: pipe::Sender) {
    loop {
        let next = tokio::select! {
            biased;
            next = multiplexer.read(id, Stream::Stdin) => next,
            _ = pipe.ready(Interest::ERROR) => {
                multiplexer.with(|channels| channels.stop(id, Stream::Stdin));
                return;
            }
        };
        match next {
            Ok(Some(bytes)) => {
                if pipe.write_all(&bytes).await.is_err() {
                    multiplexer.with(|channels| channels.stop(id, Stream::Stdin));
                    return;
                }
                multiplexer.with(|channels| channels.consume(id, Stream::Stdin, bytes.len()));
            }
            Ok(None) => return,
            Err(ConnectionLost) => std::future::pending().await,
        }
    }
}
