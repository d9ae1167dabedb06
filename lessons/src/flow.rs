//! One direction of a conversation as it really went: every write and every read, and which bytes
//! were whose.

use std::io::{self, Read, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::language::Text;

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

/// What carries a flow.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Carrier {
    /// A stream of bytes, read in order: TCP, or a stream socket of AF_UNIX.
    #[default]
    Stream,
    /// Datagrams between the two ends of a connected pair of AF_UNIX: each is read whole or cut,
    /// none is lost.
    Pair,
    /// UDP datagrams, to and from an address; some may be lost.
    Udp,
    /// A proxy: what is written are the messages that came to it, what is read are the pieces that
    /// it passed on.
    Proxy,
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
    /// The byte behind its last one; equal to `start` where a read met the end or a message was
    /// empty.
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
    pub label: Text,
    /// Its first byte, counted from the beginning of the flow.
    pub start: u64,
    /// The byte behind its last one.
    pub end: u64,
}

/// All that is known of a flow.
#[derive(Debug, Clone, Default)]
pub struct Record {
    /// From whom to whom.
    pub label: Text,
    /// What carries it.
    pub carrier: Carrier,
    /// In the order in which they were written.
    pub messages: Vec<Message>,
    /// In the order in which they happened: a write when its call began, a read when it returned.
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
    pub fn new(label: impl Into<Text>) -> Self {
        Self::over(Carrier::Stream, label)
    }

    /// The same of something else than a stream.
    pub fn over(carrier: Carrier, label: impl Into<Text>) -> Self {
        let record = Record { label: label.into(), carrier, ..Record::default() };
        Self { began: Instant::now(), record: Arc::new(Mutex::new(record)) }
    }

    /// Begins a message: what is written from now on belongs to it.
    pub fn message(&self, label: impl Into<Text>) {
        let mut record = self.lock();
        let start = record.written;
        record.messages.push(Message { label: label.into(), start, end: start });
    }

    /// One call, which returns now, wrote these bytes of the current message.
    pub fn wrote(&self, bytes: &[u8]) {
        self.wrote_since(self.began.elapsed(), bytes);
    }

    /// The same of a call that began earlier: another thread may have read its bytes before it
    /// returned.
    fn wrote_since(&self, at: Duration, bytes: &[u8]) {
        let mut record = self.lock();
        let start = record.written;
        record.written += bytes.len() as u64;
        let end = record.written;
        if let Some(message) = record.messages.last_mut() {
            message.end = end;
        }
        step(&mut record, at, What::Write, start, bytes);
    }

    /// One call read these bytes, which follow those of the call before it: for streams.
    pub fn read(&self, bytes: &[u8]) {
        let mut record = self.lock();
        let start = record.read;
        record.read += bytes.len() as u64;
        step(&mut record, self.began.elapsed(), What::Read, start, bytes);
    }

    /// One call read the beginning of this message: for datagrams, which arrive whole, cut short,
    /// or not at all.
    pub fn received(&self, message: usize, bytes: &[u8]) {
        let mut record = self.lock();
        let start = record.messages.get(message).map_or(0, |message| message.start);
        step(&mut record, self.began.elapsed(), What::Read, start, bytes);
    }

    /// One segment, noticed at this time since the flow began, carried the bytes from `start` to
    /// `end` of what was written.
    pub(crate) fn carried(&self, at: Duration, start: u64, end: u64) {
        let mut record = self.lock();
        let mut bytes: Vec<u8> = Vec::new();
        for write in record.steps.iter().filter(|step| step.what == What::Write) {
            // As long as the copies that were kept follow each other.
            let next = start + bytes.len() as u64;
            if write.start <= next && next < write.end.min(end) {
                let from = (next - write.start) as usize;
                let to = (write.end.min(end) - write.start) as usize;
                bytes.extend(write.bytes.get(from..to.min(write.bytes.len())).unwrap_or_default());
            }
        }
        bytes.truncate(KEPT);
        insert(&mut record, Step { at, what: What::Segment, start, end, bytes });
    }

    /// Bytes written so far, and the time since the flow began.
    pub(crate) fn progress(&self) -> (u64, Duration) {
        (self.lock().written, self.began.elapsed())
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

    fn lock(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn step(record: &mut Record, at: Duration, what: What, start: u64, bytes: &[u8]) {
    let end = start + bytes.len() as u64;
    let bytes = bytes[..bytes.len().min(KEPT)].to_vec();
    insert(record, Step { at, what, start, end, bytes });
}

/// Puts a step behind those that happened before it.
fn insert(record: &mut Record, step: Step) {
    let place = record.steps.partition_point(|before| before.at <= step.at);
    record.steps.insert(place, step);
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
        let began = self.flow.began.elapsed();
        let written = uninterrupted(|| self.inner.write(bytes))?;
        self.flow.wrote_since(began, &bytes[..written]);
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

    /// A socket whose other end has read everything before the write returns.
    struct Quick(Flow);

    impl Write for Quick {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.read(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn no_read_comes_before_its_write() {
        let flow = Flow::new("a → b");
        for text in ["abc", "de"] {
            assert_eq!(
                flow.writer(Quick(flow.clone())).write(text.as_bytes()).unwrap(),
                text.len()
            );
        }
        let steps: Vec<_> =
            flow.record().steps.iter().map(|step| (step.what, step.start, step.end)).collect();
        let (write, read) = (What::Write, What::Read);
        assert_eq!(steps, [(write, 0, 3), (read, 0, 3), (write, 3, 5), (read, 3, 5)]);
    }

    #[test]
    fn a_segment_has_the_bytes_of_the_writes_that_it_carries() {
        let flow = Flow::new("a → b");
        ["abc", "defg", "hi"].iter().for_each(|text| flow.wrote(text.as_bytes()));
        flow.carried(flow.progress().1, 2, 8);
        let step = flow.record().steps.pop().unwrap();
        assert_eq!((step.what, &step.bytes[..]), (What::Segment, &b"cdefgh"[..]));
    }

    #[test]
    fn a_signal_is_no_step() {
        let flow = Flow::new("a → b");
        assert_eq!(flow.reader(Signalled(false)).read(&mut [0; 3]).unwrap(), 3);
        assert_eq!(flow.record().steps.len(), 1);
    }
}
