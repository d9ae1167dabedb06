//! One direction of a conversation as it really went: every write and every read, and which bytes were whose.

use std::io::{self, Read, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::words::Words;

/// What a step did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// One call wrote these bytes.
    Write,
    /// One TCP segment or datagram carried them.
    Segment,
    /// One call read them.
    Read,
}

/// One system call, or one packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Since the flow began.
    pub at: Duration,
    /// What it was.
    pub what: What,
    /// Its first byte, counted from the beginning of the flow.
    pub start: u64,
    /// The byte behind its last one; equal to `start` where a read met the end or a message was empty.
    pub end: u64,
    /// The bytes themselves, of a long one the first [`KEPT`].
    pub bytes: Vec<u8>,
}

/// Of how many bytes of a step a copy is kept.
pub const KEPT: usize = 256;

/// A message of the application: what the sender meant as one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// What it is, in a word or two: `ls -l`, `PING 1`.
    pub label: String,
    /// Its first byte, counted from the beginning of the flow.
    pub start: u64,
    /// The byte behind its last one.
    pub end: u64,
}

/// All that is known of a flow.
#[derive(Debug, Clone, Default)]
pub struct Record {
    /// From whom to whom.
    pub label: Words,
    /// In the order in which they were written.
    pub messages: Vec<Message>,
    /// In the order in which they happened.
    pub steps: Vec<Step>,
    written: u64,
    read: u64,
}

/// A flow that is being recorded; clones record the same one, from any thread.
#[derive(Debug, Clone)]
pub struct Flow {
    began: Instant,
    record: Arc<Mutex<Record>>,
}

impl Flow {
    /// From whom to whom, in a few words.
    pub fn new(label: impl Into<Words>) -> Self {
        let record = Record { label: label.into(), ..Record::default() };
        Self { began: Instant::now(), record: Arc::new(Mutex::new(record)) }
    }

    /// Begins a message: what is written from now on belongs to it.
    pub fn message(&self, label: impl Into<String>) {
        let mut record = self.lock();
        let start = record.written;
        record.messages.push(Message { label: label.into(), start, end: start });
    }

    /// One call wrote these bytes of the current message.
    pub fn wrote(&self, bytes: &[u8]) {
        let mut record = self.lock();
        let start = record.written;
        record.written += bytes.len() as u64;
        let end = record.written;
        if let Some(message) = record.messages.last_mut() {
            message.end = end;
        }
        self.step(&mut record, What::Write, start, bytes);
    }

    /// One call read these bytes, which follow those of the call before it: for streams.
    pub fn read(&self, bytes: &[u8]) {
        let mut record = self.lock();
        let start = record.read;
        record.read += bytes.len() as u64;
        self.step(&mut record, What::Read, start, bytes);
    }

    /// One call read the beginning of this message: for datagrams, which arrive whole, cut short, or not at all.
    pub fn received(&self, message: usize, bytes: &[u8]) {
        let mut record = self.lock();
        let start = record.messages.get(message).map_or(0, |message| message.start);
        self.step(&mut record, What::Read, start, bytes);
    }

    /// A copy of what has been recorded so far.
    pub fn record(&self) -> Record {
        self.lock().clone()
    }

    /// A writer that records every call.
    pub fn writer<W: Write>(&self, inner: W) -> Watched<W> {
        Watched { flow: self.clone(), inner }
    }

    /// A reader that records every call.
    pub fn reader<R: Read>(&self, inner: R) -> Watched<R> {
        Watched { flow: self.clone(), inner }
    }

    fn step(&self, record: &mut Record, what: What, start: u64, bytes: &[u8]) {
        let end = start + bytes.len() as u64;
        let bytes = bytes[..bytes.len().min(KEPT)].to_vec();
        record.steps.push(Step { at: self.began.elapsed(), what, start, end, bytes });
    }

    fn lock(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A socket whose calls are recorded.
#[derive(Debug)]
pub struct Watched<S> {
    flow: Flow,
    /// The socket itself.
    pub inner: S,
}

impl<S: Write> Write for Watched<S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = uninterrupted(|| self.inner.write(bytes))?;
        self.flow.wrote(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl<S: Read> Read for Watched<S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = uninterrupted(|| self.inner.read(buffer))?;
        self.flow.read(&buffer[..read]);
        Ok(read)
    }
}

/// Makes a call again that a signal broke off before it did anything.
///
/// The kernel restarts most calls by itself, but not those on sockets with a timeout (signal(7)).
pub(crate) fn uninterrupted<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Is interrupted, then does what it is asked for.
    struct Signalled(bool);

    impl Read for Signalled {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.0 = !self.0;
            if self.0 { Err(io::ErrorKind::Interrupted.into()) } else { Ok(buffer.len()) }
        }
    }

    #[test]
    fn a_signal_is_no_step() {
        let flow = Flow::new("a → b");
        assert_eq!(flow.reader(Signalled(false)).read(&mut [0; 3]).unwrap(), 3);
        assert_eq!(flow.record().steps.len(), 1);
    }
}
