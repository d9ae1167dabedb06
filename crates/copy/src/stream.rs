//! Reads messages from a stream of bytes, and writes them to one.

use std::io::{self, BufRead, BufReader, Read, Write};

use crate::Error;
use crate::wire::{HEADER_BYTES, MAX_BODY_BYTES, MAX_DATA_BYTES, Message, kind};

/// Reads messages from a stream.
#[derive(Debug)]
pub struct Reader<R> {
    from: BufReader<R>,
    body: Vec<u8>,
}

impl<R: Read> Reader<R> {
    /// Returns a reader of a stream.
    pub fn new(from: R) -> Self {
        Self { from: BufReader::with_capacity(MAX_DATA_BYTES, from), body: Vec::new() }
    }

    /// Reads the next message; `None` at the end of the stream.
    ///
    /// # Errors
    ///
    /// [`Error::Disconnected`] for a stream that fails or ends inside a message, and
    /// [`Error::Protocol`].
    pub fn read(&mut self) -> Result<Option<Message>, Error> {
        loop {
            match self.from.fill_buf() {
                Ok([]) => return Ok(None),
                Ok(_) => break,
                // `read_exact` below handles this error itself.
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        let mut header = [0; HEADER_BYTES];
        self.from.read_exact(&mut header).map_err(ended_early)?;
        let [a, b, c, d, kind] = header;
        let length = u32::from_be_bytes([a, b, c, d]) as usize;
        if length > MAX_BODY_BYTES {
            return Err(Error::Protocol("a message is too long"));
        }
        self.body.resize(length, 0);
        self.from.read_exact(&mut self.body).map_err(ended_early)?;
        Message::decode(kind, &self.body).map(Some)
    }

    /// Returns whether the next call has to wait for the stream.
    pub fn is_drained(&self) -> bool {
        self.from.buffer().is_empty()
    }
}

/// Names the end of a stream inside a message, which std describes as a buffer that is not full.
fn ended_early(error: io::Error) -> io::Error {
    match error.kind() {
        kind @ io::ErrorKind::UnexpectedEof => io::Error::new(kind, "unexpected end of file"),
        _ => error,
    }
}

/// Writes messages to a stream, several at once.
#[derive(Debug)]
pub struct Writer<W> {
    to: W,
    buffer: Vec<u8>,
}

impl<W: Write> Writer<W> {
    /// Returns a writer to a stream.
    pub fn new(to: W) -> Self {
        Self { to, buffer: Vec::with_capacity(MAX_DATA_BYTES + HEADER_BYTES) }
    }

    /// Buffers a message; writes the buffer when it is full.
    pub fn put(&mut self, message: &Message) -> io::Result<()> {
        message.encode(&mut self.buffer);
        if self.buffer.len() >= MAX_DATA_BYTES { self.flush() } else { Ok(()) }
    }

    /// Buffers a data message without copying its bytes into a [`Message`].
    pub(crate) fn put_data(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.buffer.extend_from_slice(&(bytes.len() as u32).to_be_bytes());
        self.buffer.push(kind::DATA);
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= MAX_DATA_BYTES { self.flush() } else { Ok(()) }
    }

    /// Writes the buffer.
    pub fn flush(&mut self) -> io::Result<()> {
        self.to.write_all(&self.buffer)?;
        self.buffer.clear();
        self.to.flush()
    }
}
