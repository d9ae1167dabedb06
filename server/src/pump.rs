//! One stream of one command: bytes between its pipe, or its terminal, and its channel, and each
//! kind of end.

use std::io;
use std::os::fd::AsFd;

use bytes::{BufMut, Bytes, BytesMut};
use labsh_proto::frame::ChannelId;
use labsh_proto::message::Stream;
use labsh_transport::multiplexer::{Lost, Multiplexer, Room};
use labsh_transport::recycle::Recycler;
use nix::fcntl::{FcntlArg, fcntl};
use tokio::io::{AsyncWriteExt, Interest};
use tokio::net::unix::pipe;
use tokio::task::coop::consume_budget;
use tokio_util::sync::CancellationToken;

use crate::terminal::Terminal;

/// The most that is read from a pipe at once, in bytes.
const CHUNK: usize = 128 << 10;

/// A piece shorter than this is copied out, so that it does not hold a whole chunk in memory.
const SMALL: usize = 16 << 10;

/// Where a command's output comes from.
pub(crate) trait Source {
    /// Waits until there is something to read, or an end.
    async fn readable(&self);

    /// Appends at most so many bytes to an empty buffer; 0 is the end.
    fn read_ready(&self, buffer: &mut BytesMut, most: usize) -> io::Result<usize>;

    /// The same, but asks the kernel itself: the runtime may not have heard yet of what was written
    /// last.
    fn read_now(&self, buffer: &mut BytesMut, most: usize) -> io::Result<usize>;

    /// The most that can have been written and not be read yet, in bytes.
    fn holds(&self) -> usize;
}

/// How a stream's way to the client has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Carried {
    /// With the stream, or with the whole connection.
    ToTheEnd,
    /// The client reads no more of it.
    Stopped,
}

/// Carries a command's output until its end, or until its reader has gone. Once `ending` is
/// cancelled, what the source can hold is still carried, and that is the end, even if somebody goes
/// on writing.
pub(crate) async fn output(
    multiplexer: &Multiplexer,
    id: ChannelId,
    stream: Stream,
    source: impl Source,
    ending: &CancellationToken,
) -> Carried {
    let (mut buffer, mut spare) = (BytesMut::new(), Recycler::default());
    let mut left = None;
    loop {
        // Nothing below need ever wait, where the command and the client are both quick.
        consume_budget().await;
        let room = match multiplexer.room(id, stream).await {
            Ok(Room::Bytes(room)) => room.min(CHUNK),
            Ok(Room::NoReader) => return Carried::Stopped,
            Err(Lost) => {
                discard(&source, ending).await;
                return Carried::ToTheEnd;
            }
        };
        let last = ending.is_cancelled();
        // With nothing left to carry, the read below finds nothing, as at the end.
        let room = if last { room.min(*left.get_or_insert_with(|| source.holds())) } else { room };
        if !last {
            tokio::select! {
                biased;
                () = source.readable() => {}
                () = multiplexer.no_reader(id, stream) => continue,
                () = ending.cancelled() => {}
            }
        }
        spare.make_room(&mut buffer, room);
        let read = if last {
            source.read_now(&mut buffer, room)
        } else {
            source.read_ready(&mut buffer, room)
        };
        match read {
            Ok(0) => break,
            Ok(count) => {
                left = left.map(|left| left - count);
                let bytes = if count < SMALL {
                    let small = Bytes::copy_from_slice(&buffer);
                    buffer.clear();
                    small
                } else {
                    buffer.split().freeze()
                };
                // Where nobody reads any more, the next look at the room tells why.
                let _ = multiplexer.with(|channels| channels.write(id, stream, bytes));
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && !last => {}
            Err(_) => break,
        }
    }
    multiplexer.with(|channels| channels.finish(id, stream));
    Carried::ToTheEnd
}

/// Nobody reads any more. What the command writes while it is told to end goes nowhere: were its
/// output closed, the first word of a clean-up would kill it.
pub(crate) async fn discard(source: &impl Source, ending: &CancellationToken) {
    let mut scrap = BytesMut::new();
    loop {
        // As above: the same task ends the command.
        consume_budget().await;
        tokio::select! {
            () = source.readable() => {}
            () = ending.cancelled() => return,
        }
        match source.read_ready(&mut scrap, SMALL) {
            Ok(0) => return,
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => return,
            _ => scrap.clear(),
        }
    }
}

impl Source for pipe::Receiver {
    async fn readable(&self) {
        // An error shows at the read.
        let _ = pipe::Receiver::readable(self).await;
    }

    fn read_ready(&self, buffer: &mut BytesMut, most: usize) -> io::Result<usize> {
        buffer.reserve(most);
        self.try_read_buf(&mut buffer.limit(most))
    }

    fn read_now(&self, buffer: &mut BytesMut, most: usize) -> io::Result<usize> {
        read(self, buffer, most)
    }

    fn holds(&self) -> usize {
        let size = fcntl(self, FcntlArg::F_GETPIPE_SZ).ok();
        size.and_then(|size| size.try_into().ok()).unwrap_or(CHUNK)
    }
}

/// Replaces what is in the buffer by what one read(2) of at most so many bytes brings.
pub(crate) fn read(from: impl AsFd, buffer: &mut BytesMut, most: usize) -> io::Result<usize> {
    buffer.resize(most, 0);
    let count = nix::unistd::read(from, buffer);
    buffer.truncate(count.unwrap_or(0));
    Ok(count?)
}

/// Types stdin on a command's terminal until its end, and then what means the end there. When the
/// client goes first, nothing is typed: it would look like somebody's decision.
pub(crate) async fn typing(multiplexer: &Multiplexer, id: ChannelId, terminal: &Terminal) {
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
            Err(Lost) => std::future::pending().await,
        };
        if typed.is_err() {
            return multiplexer.with(|channels| channels.stop(id, Stream::Stdin));
        }
    }
}

/// Carries stdin until its end, or until the command no longer reads. When the client goes before
/// the end, the pipe stays open: to the command, an end-of-file would look like the whole input.
pub(crate) async fn input(multiplexer: &Multiplexer, id: ChannelId, mut pipe: pipe::Sender) {
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
            Err(Lost) => std::future::pending().await,
        }
    }
}
