//! Frames to bytes and back.

use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use bytes::{Bytes, BytesMut};
use labsh_proto::frame::{ChannelId, Decoder, Frame, Kind};
use labsh_proto::limits;
use labsh_transport::framing;
use tokio::io::AsyncWrite;

/// A body as control messages and short output have it, in bytes.
pub const SMALL: usize = 64;

/// The longest body that there is, in bytes.
pub const LARGE: usize = limits::MAX_BODY as usize;

/// A frame of output with so many bytes of body, at most [`LARGE`].
pub fn frame(body: usize) -> Frame {
    Frame::new(Kind::Stdout, ChannelId(1), Bytes::from(vec![b'x'; body]))
}

/// Takes everything, keeps nothing.
struct Nowhere;

impl AsyncWrite for Nowhere {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(slices.iter().map(|slice| slice.len()).sum()))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Writes frames as a connection does, up to the system call.
///
/// # Errors
///
/// None in practice: what is written to takes everything.
pub fn write(frames: &[Frame]) -> io::Result<()> {
    let mut nowhere = Nowhere;
    match pin!(framing::write(&mut nowhere, frames)).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(outcome) => outcome,
        Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
    }
}

/// Finds the frames in bytes that arrive in pieces of so many bytes (at least one), and says how
/// many there were.
///
/// `buffer` is what is read into; it comes back empty, with its room, as a connection's does.
///
/// # Panics
///
/// If these are no frames from one end to the other.
pub fn decode(buffer: &mut BytesMut, bytes: &[u8], piece: usize) -> usize {
    let mut decoder = Decoder::default();
    std::mem::swap(decoder.buffer(), buffer);
    let mut count = 0;
    for piece in bytes.chunks(piece) {
        decoder.buffer().extend_from_slice(piece);
        while decoder.next_frame(limits::MAX_BODY).expect("a frame").is_some() {
            count += 1;
        }
    }
    decoder.finish().expect("nothing left over");
    std::mem::swap(decoder.buffer(), buffer);
    buffer.clear();
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_measured_is_what_is_said() {
        for size in [0, SMALL, LARGE] {
            let frame = frame(size);
            write(std::slice::from_ref(&frame)).unwrap();
            let bytes = framing::to_bytes(&frame).repeat(2);
            for piece in [1, 1000, usize::MAX] {
                assert_eq!(decode(&mut BytesMut::new(), &bytes, piece), 2);
            }
        }
    }
}
