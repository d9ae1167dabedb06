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

/// The free space for the next read on an idle connection, in bytes, and so its cost in memory.
const IDLE_READ_SIZE: usize = 4 << 10;

/// The free space for the next read on a busy connection, in bytes.
const BUSY_READ_SIZE: usize = 256 << 10;

/// The most that is read and discarded at the end of a connection, in bytes.
const MAX_DRAINED: usize = 16 << 20;

/// Why no more frames can be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The connection failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The peer broke the protocol.
    #[error(transparent)]
    Protocol(#[from] ProtocolError),
}

/// Finds the frames in the bytes of a connection, or of its reading half.
#[derive(Debug)]
pub struct FrameReader<R> {
    reader: R,
    decoder: Decoder,
    /// The free space for the next read, in bytes.
    read_size: usize,
    received: u64,
    recycler: Recycler,
    /// An error that is reported once the data received before it has been returned.
    pending_error: Option<io::Error>,
    /// Whether only [`Self::read_burst`] reads more than [`IDLE_READ_SIZE`].
    small_reads: bool,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    /// Reads from the start of a connection, or from another frame boundary.
    pub fn new(reader: R) -> Self {
        Self {
            reader,
            decoder: Decoder::default(),
            read_size: IDLE_READ_SIZE,
            received: 0,
            recycler: Recycler::default(),
            pending_error: None,
            small_reads: false,
        }
    }

    /// Waits for the next frame; `None` if the stream ended between two frames. Cancel safe.
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

    /// Returns whether a whole frame is buffered, so that [`Self::next`] does not wait.
    pub fn has_next(&self) -> bool {
        self.decoder.has_next()
    }

    /// Makes [`Self::next`] read at most 4 KiB at a time; [`Self::read_burst`] reads more. For many
    /// connections at once, whose buffers would fill the memory.
    pub fn use_small_reads(&mut self) {
        self.small_reads = true;
    }

    /// Releases all memory except for the incomplete frame that is buffered.
    pub fn shrink_buffer(&mut self) {
        let buffer = self.decoder.buffer();
        if buffer.capacity() - buffer.len() > IDLE_READ_SIZE {
            *buffer = BytesMut::from(&buffer[..]);
        }
        self.recycler.clear();
    }

    /// Returns whether the socket probably has more data than the last read took.
    pub fn expects_more(&self) -> bool {
        self.read_size == BUSY_READ_SIZE
    }

    /// Reads what has arrived, up to 256 KiB, without waiting.
    pub async fn read_burst(&mut self) {
        self.recycler.reserve(self.decoder.buffer(), BUSY_READ_SIZE);
        let filled = self.fill_up().await >= BUSY_READ_SIZE - IDLE_READ_SIZE;
        self.read_size = if filled { BUSY_READ_SIZE } else { IDLE_READ_SIZE };
    }

    /// Waits for data and reads all that has arrived, as far as it fits, so that frames that
    /// arrived together are handled together. Returns the number of bytes, 0 at the end of the
    /// stream.
    async fn fill(&mut self) -> io::Result<usize> {
        if let Some(error) = self.pending_error.take() {
            return Err(error);
        }
        let read_size = if self.small_reads { IDLE_READ_SIZE } else { self.read_size };
        let buffer = self.decoder.buffer();
        if buffer.is_empty() && buffer.capacity() > read_size {
            // A burst is over: an idle connection keeps no large buffer.
            *buffer = BytesMut::new();
            self.recycler.clear();
        }
        if buffer.capacity() - buffer.len() < IDLE_READ_SIZE {
            if self.small_reads {
                buffer.reserve(read_size);
            } else {
                self.recycler.reserve(buffer, read_size);
            }
        }
        let mut count = self.reader.read_buf(buffer).await?;
        if count > 0 {
            count += self.fill_up().await;
        }
        self.received += count as u64;
        self.read_size = if count >= IDLE_READ_SIZE { BUSY_READ_SIZE } else { IDLE_READ_SIZE };
        Ok(count)
    }

    /// Reads without waiting, as far as it fits. The next read reports the end of the stream.
    async fn fill_up(&mut self) -> usize {
        let buffer = self.decoder.buffer();
        let before = buffer.len();
        while buffer.capacity() - buffer.len() >= IDLE_READ_SIZE {
            let read =
                poll_fn(|context| Poll::Ready(pin!(self.reader.read_buf(buffer)).poll(context)))
                    .await;
            match read {
                Poll::Ready(Ok(0)) | Poll::Pending => break,
                Poll::Ready(Ok(_)) => {}
                // The data received before the error is returned first.
                Poll::Ready(Err(error)) => {
                    self.pending_error = Some(error);
                    break;
                }
            }
        }
        buffer.len() - before
    }

    /// Returns the number of bytes received so far. Each is a sign of life, even within a long
    /// frame.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// Returns the underlying connection.
    pub fn get_ref(&self) -> &R {
        &self.reader
    }

    /// Returns the underlying connection, for writing to it.
    pub fn get_mut(&mut self) -> &mut R {
        &mut self.reader
    }
}

impl<C: AsyncRead + AsyncWrite> FrameReader<C> {
    /// Splits a connection into its halves. Buffered data stays with the reading half.
    pub fn split(self) -> (FrameReader<ReadHalf<C>>, WriteHalf<C>) {
        let (reader, writer) = tokio::io::split(self.reader);
        let FrameReader {
            decoder, read_size, received, recycler, pending_error, small_reads, ..
        } = self;
        let reader = FrameReader {
            reader,
            decoder,
            read_size,
            received,
            recycler,
            pending_error,
            small_reads,
        };
        (reader, writer)
    }
}

/// Sends the last frame of a connection, so that the caller can close it next: shuts down the
/// writing half, then reads and discards what the peer still sends, at most 16 MiB. Closing a TCP
/// socket with unread input sends a reset (RFC 1122, section 4.2.2.13), which would discard the
/// frame.
pub async fn send_last(
    carrier: &mut (impl AsyncRead + AsyncWrite + Unpin),
    frame: &Frame,
) -> io::Result<()> {
    write(carrier, std::slice::from_ref(frame)).await?;
    carrier.shutdown().await?;
    drain(carrier).await
}

/// Reads and discards data until the peer closes, at most 16 MiB.
pub async fn drain(reader: &mut (impl AsyncRead + Unpin)) -> io::Result<()> {
    let mut buffer = vec![0; 16 << 10];
    let mut left = MAX_DRAINED;
    while left > 0 {
        match reader.read(&mut buffer).await? {
            0 => return Ok(()),
            count => left = left.saturating_sub(count),
        }
    }
    Ok(())
}

/// Returns the bytes of one frame.
pub fn to_bytes(frame: &Frame) -> Vec<u8> {
    [&frame.header().encode()[..], &frame.body].concat()
}

/// Writes frames with as few system calls as possible and without copying their bodies, and
/// flushes.
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
