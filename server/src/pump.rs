//! One stream of one command: bytes between its pipe and its channel, and each kind of end.

use std::io;
use std::os::fd::AsFd;

use bytes::{BufMut, Bytes, BytesMut};
use labsh_proto::frame::ChannelId;
use labsh_proto::message::Stream;
use labsh_transport::multiplexer::{Lost, Multiplexer, Room};
use nix::fcntl::{FcntlArg, fcntl};
use tokio::io::{AsyncWriteExt, Interest};
use tokio::net::unix::pipe;
use tokio_util::sync::CancellationToken;

/// The most that is read from a pipe at once, in bytes.
const CHUNK: usize = 128 << 10;

/// A piece shorter than this is copied out, so that it does not hold a whole chunk in memory.
const SMALL: usize = 16 << 10;

/// Carries a command's output until its end, or until its reader has gone. Once `ending` is cancelled, what the pipe
/// can hold is still carried, and that is the end, even if somebody goes on writing.
pub(crate) async fn output(
    multiplexer: &Multiplexer,
    id: ChannelId,
    stream: Stream,
    pipe: pipe::Receiver,
    ending: &CancellationToken,
) {
    let mut buffer = BytesMut::new();
    let mut left = None;
    loop {
        let room = match multiplexer.room(id, stream).await {
            Ok(Room::Bytes(room)) => room.min(CHUNK),
            Ok(Room::NoReader) => return,
            Err(Lost) => return discard(&pipe, ending).await,
        };
        let last = ending.is_cancelled();
        // With nothing left to carry, the read below finds nothing, as at the end.
        let room = if last { room.min(*left.get_or_insert_with(|| capacity(&pipe))) } else { room };
        if !last {
            tokio::select! {
                biased;
                _ = pipe.readable() => {}
                () = multiplexer.no_reader(id, stream) => continue,
                () = ending.cancelled() => {}
            }
        }
        let read =
            if last { read_now(&pipe, &mut buffer, room) } else { read_ready(&pipe, &mut buffer, room) };
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
}

/// The client has gone. What the command writes while it is told to end goes nowhere: were the pipe closed, the first word
/// of a clean-up would kill it.
async fn discard(pipe: &pipe::Receiver, ending: &CancellationToken) {
    let mut scrap = vec![0; SMALL];
    loop {
        tokio::select! {
            _ = pipe.readable() => {}
            () = ending.cancelled() => return,
        }
        match pipe.try_read(&mut scrap) {
            Ok(0) => return,
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => return,
            _ => {}
        }
    }
}

/// The most that a pipe can hold, in bytes.
fn capacity(pipe: &pipe::Receiver) -> usize {
    let size = fcntl(pipe, FcntlArg::F_GETPIPE_SZ).ok();
    size.and_then(|size| size.try_into().ok()).unwrap_or(CHUNK)
}

fn read_ready(pipe: &pipe::Receiver, buffer: &mut BytesMut, most: usize) -> io::Result<usize> {
    buffer.reserve(most);
    pipe.try_read_buf(&mut buffer.limit(most))
}

/// As [`read_ready`], but asks the kernel itself: the runtime may not have heard yet of what was written last.
fn read_now(pipe: &pipe::Receiver, buffer: &mut BytesMut, most: usize) -> io::Result<usize> {
    buffer.resize(most, 0);
    let count = nix::unistd::read(pipe.as_fd(), buffer);
    buffer.truncate(count.unwrap_or(0));
    Ok(count?)
}

/// Carries stdin until its end, or until the command no longer reads. When the client goes before the end, the pipe
/// stays open: to the command, an end-of-file would look like the whole input.
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
