//! Frames over async I/O: the reading half and the writing half of a connection.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::pin;
use std::task::Poll;

use bytes::BytesMut;
use labsh_proto::error::ProtocolError;
use labsh_proto::frame::{Decoder, Frame};
use labsh_proto::limits::HEADER_LENGTH;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};

use crate::recycle::Recycler;

/// Room for the next read while little comes: what an idle connection costs.
const IDLE_READ: usize = 4 << 10;

/// Room for the next read while much comes.
const BUSY_READ: usize = 256 << 10;

/// What is read and discarded at the end of a connection at most, in bytes.
const DRAIN: usize = 16 << 20;

/// Why no further frame can be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The connection failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The peer broke the protocol.
    #[error(transparent)]
    Protocol(#[from] ProtocolError),
}

/// Reads frames.
#[derive(Debug)]
pub struct FrameReader<R> {
    reader: R,
    decoder: Decoder,
    room: usize,
    received: u64,
    spare: Recycler,
    failed: Option<io::Error>,
    little: bool,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    /// Reads from the start of a connection, or from where another left off with nothing buffered.
    pub fn new(reader: R) -> Self {
        let (decoder, spare) = (Decoder::default(), Recycler::default());
        Self { reader, decoder, room: IDLE_READ, received: 0, spare, failed: None, little: false }
    }

    /// The next frame; `None` where the stream ended between two frames. Cancel safe.
    pub async fn next(&mut self, body_limit: u32) -> Result<Option<Frame>, ReadError> {
        loop {
            if let Some(frame) = self.decoder.next_frame(body_limit)? {
                return Ok(Some(frame));
            }
            if self.fill().await? == 0 {
                self.decoder.finish()?;
                return Ok(None);
            }
        }
    }

    /// Whether [`Self::next`] has its answer by now, and does not wait.
    pub fn has_next(&self) -> bool {
        self.decoder.has_next()
    }

    /// From now on takes little by itself: much comes by [`Self::take_much`] only.
    pub fn take_little(&mut self) {
        self.little = true;
    }

    /// Gives back what room there is beside what waits here: a part of a frame, if that.
    pub fn hold_little(&mut self) {
        let buffer = self.decoder.buffer();
        if buffer.capacity() - buffer.len() > IDLE_READ {
            *buffer = BytesMut::from(&buffer[..]);
        }
        self.spare.forget();
    }

    /// Whether more has probably come than was taken.
    pub fn has_more(&self) -> bool {
        self.room == BUSY_READ
    }

    /// Takes what has come by now, up to 256 KiB, and does not wait for more.
    pub async fn take_much(&mut self) {
        self.spare.make_room(self.decoder.buffer(), BUSY_READ);
        let filled = self.fill_up().await >= BUSY_READ - IDLE_READ;
        self.room = if filled { BUSY_READ } else { IDLE_READ };
    }

    /// Reads all that is there, as far as there is room: frames that came together are handed on
    /// together.
    async fn fill(&mut self) -> io::Result<usize> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        let room = if self.little { IDLE_READ } else { self.room };
        let buffer = self.decoder.buffer();
        if buffer.is_empty() && buffer.capacity() > room {
            // A burst is over: an idle connection keeps no large buffer.
            *buffer = BytesMut::new();
            self.spare.forget();
        }
        if buffer.capacity() - buffer.len() < IDLE_READ {
            if self.little { buffer.reserve(room) } else { self.spare.make_room(buffer, room) }
        }
        let mut sum = self.reader.read_buf(buffer).await?;
        if sum > 0 {
            sum += self.fill_up().await;
        }
        self.received += sum as u64;
        self.room = if sum >= IDLE_READ { BUSY_READ } else { IDLE_READ };
        Ok(sum)
    }

    /// Reads without waiting, as far as there is room; an end shows at the next read.
    async fn fill_up(&mut self) -> usize {
        let buffer = self.decoder.buffer();
        let before = buffer.len();
        while buffer.capacity() - buffer.len() >= IDLE_READ {
            let read =
                poll_fn(|context| Poll::Ready(pin!(self.reader.read_buf(buffer)).poll(context)))
                    .await;
            match read {
                Poll::Ready(Ok(0)) | Poll::Pending => break,
                Poll::Ready(Ok(_)) => {}
                // What came before the failure comes first.
                Poll::Ready(Err(error)) => {
                    self.failed = Some(error);
                    break;
                }
            }
        }
        buffer.len() - before
    }

    /// All bytes that have come so far: any of them is a sign of life, also within a long frame.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// The connection below.
    pub fn get_ref(&self) -> &R {
        &self.reader
    }

    /// The connection below, for writing to it.
    pub fn get_mut(&mut self) -> &mut R {
        &mut self.reader
    }
}

impl<C: AsyncRead + AsyncWrite> FrameReader<C> {
    /// Parts a connection into its halves; what was buffered stays with the reading one.
    pub fn split(self) -> (FrameReader<ReadHalf<C>>, WriteHalf<C>) {
        let (reader, writer) = tokio::io::split(self.reader);
        let FrameReader { decoder, room, received, spare, failed, little, .. } = self;
        (FrameReader { reader, decoder, room, received, spare, failed, little }, writer)
    }
}

/// Sends a last frame so that it arrives: shuts the writing half down, then reads and discards what
/// the peer still sends, to a bound, for the caller closes next, and closing with unread input
/// would reset the connection and destroy the frame.
pub async fn send_last(
    carrier: &mut (impl AsyncRead + AsyncWrite + Unpin),
    frame: &Frame,
) -> io::Result<()> {
    write(carrier, std::slice::from_ref(frame)).await?;
    carrier.shutdown().await?;
    drain(carrier).await
}

/// Reads and discards until the peer closes, at most 16 MiB.
pub async fn drain(reader: &mut (impl AsyncRead + Unpin)) -> io::Result<()> {
    let mut scrap = vec![0; 16 << 10];
    let mut left = DRAIN;
    while left > 0 {
        match reader.read(&mut scrap).await? {
            0 => return Ok(()),
            count => left = left.saturating_sub(count),
        }
    }
    Ok(())
}

/// The bytes of one frame.
pub fn to_bytes(frame: &Frame) -> Vec<u8> {
    [&frame.header().encode()[..], &frame.body].concat()
}

/// Writes frames as few system calls as possible, without copying their bodies, and flushes.
pub async fn write(writer: &mut (impl AsyncWrite + Unpin), frames: &[Frame]) -> io::Result<()> {
    let headers: Vec<[u8; HEADER_LENGTH]> =
        frames.iter().map(|frame| frame.header().encode()).collect();
    let mut slices: Vec<IoSlice<'_>> = headers
        .iter()
        .zip(frames)
        .flat_map(|(header, frame)| [IoSlice::new(header), IoSlice::new(&frame.body)])
        .filter(|slice| !slice.is_empty())
        .collect();
    let mut rest = &mut slices[..];
    while !rest.is_empty() {
        let count = writer.write_vectored(rest).await?;
        if count == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        IoSlice::advance_slices(&mut rest, count);
    }
    writer.flush().await
}
