//! Messages on their way: taken from a stream of bytes, and put on one.

use std::io::{self, BufRead, BufReader, Read, Write};

use crate::Error;
use crate::wire::{BODY, CHUNK, HEADER, Message};

/// Takes messages from a stream.
#[derive(Debug)]
pub struct Reader<R> {
    from: BufReader<R>,
    body: Vec<u8>,
}

impl<R: Read> Reader<R> {
    /// Over a stream.
    pub fn new(from: R) -> Self {
        Self { from: BufReader::with_capacity(CHUNK, from), body: Vec::new() }
    }

    /// The next message; nothing at the end of the stream.
    ///
    /// # Errors
    ///
    /// [`Error::Link`] for a stream that fails, or ends inside a message, and [`Error::Protocol`].
    pub fn read(&mut self) -> Result<Option<Message>, Error> {
        loop {
            match self.from.fill_buf() {
                Ok([]) => return Ok(None),
                Ok(_) => break,
                // As `read_exact` below has it.
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        let mut header = [0; HEADER];
        self.from.read_exact(&mut header)?;
        let [a, b, c, d, kind] = header;
        let length = u32::from_be_bytes([a, b, c, d]) as usize;
        if length > BODY {
            return Err(Error::Protocol("a message is too long"));
        }
        self.body.resize(length, 0);
        self.from.read_exact(&mut self.body)?;
        Message::decode(kind, &self.body).map(Some)
    }

    /// Whether the next call would have to wait for the stream.
    pub fn is_drained(&self) -> bool {
        self.from.buffer().is_empty()
    }
}

/// Puts messages on a stream, many at once.
#[derive(Debug)]
pub struct Writer<W> {
    to: W,
    waiting: Vec<u8>,
}

impl<W: Write> Writer<W> {
    /// Over a stream.
    pub fn new(to: W) -> Self {
        Self { to, waiting: Vec::with_capacity(CHUNK + HEADER) }
    }

    /// Writes one, sooner or later.
    pub fn put(&mut self, message: &Message) -> io::Result<()> {
        message.encode(&mut self.waiting);
        if self.waiting.len() >= CHUNK { self.flush() } else { Ok(()) }
    }

    /// Writes a piece of a file, likewise.
    pub(crate) fn put_data(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.waiting.extend_from_slice(&(bytes.len() as u32).to_be_bytes());
        self.waiting.push(19);
        self.waiting.extend_from_slice(bytes);
        if self.waiting.len() >= CHUNK { self.flush() } else { Ok(()) }
    }

    /// Writes all that waits.
    pub fn flush(&mut self) -> io::Result<()> {
        self.to.write_all(&self.waiting)?;
        self.waiting.clear();
        self.to.flush()
    }
}
