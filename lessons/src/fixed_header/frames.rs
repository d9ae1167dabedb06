//! Frames of labsh's protocol over a connection of their own, read in pieces of any size.

use std::io::{self, Write};
use std::net::TcpStream;
use std::thread;

use labsh_proto::frame::{ChannelId, Decoder, Frame, Kind};
use labsh_proto::limits::MAX_BODY;

use crate::sockets::{joined, pair, recv};
use crate::stage::LessonError;

pub(super) fn frame(channel: u32, body: Vec<u8>) -> Frame {
    Frame::new(Kind::Stdout, ChannelId(channel), body)
}

/// Returns the header and the body of a frame.
pub(super) fn encode(frame: &Frame) -> Vec<u8> {
    [&frame.header().encode()[..], &frame.body].concat()
}

/// Sends frames and decodes them at the other end; returns how many reads that took, and the
/// frames.
pub(super) fn send_and_read(
    frames: &[Frame],
    size: usize,
) -> Result<(usize, Vec<Frame>), LessonError> {
    let (client, server) = pair()?;
    thread::scope(|scope| {
        let sending = scope.spawn(move || -> io::Result<()> {
            frames.iter().try_for_each(|frame| (&server).write_all(&encode(frame)))
        }); // The socket is closed here: the other end reads 0.
        let read = read_frames(client, size);
        let sent = joined(sending.join())?;
        let read = read?;
        sent?;
        Ok(read)
    })
}

fn read_frames(socket: TcpStream, size: usize) -> Result<(usize, Vec<Frame>), LessonError> {
    let (mut decoder, mut frames, mut reads) = (Decoder::default(), Vec::new(), 0);
    let mut buffer = vec![0; size];
    loop {
        let count = recv(&socket, &mut buffer)?;
        if count == 0 {
            decoder.finish().map_err(invalid)?; // An end in the middle of a message is an error.
            return Ok((reads, frames));
        }
        reads += 1;
        decoder.buffer().extend_from_slice(&buffer[..count]);
        while let Some(frame) = decoder.next_frame(MAX_BODY).map_err(invalid)? {
            frames.push(frame);
        }
    }
}

pub(super) fn invalid(error: impl std::error::Error + Send + Sync + 'static) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
