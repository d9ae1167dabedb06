//! Records one direction of a conversation: every write, every read, and the messages that the
//! bytes belong to.

use std::io::{self, Read, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::language::Text;

/// What a step did with its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StepKind {
    /// One call wrote them.
    Write,
    /// One TCP segment carried them.
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
    /// Datagrams of a connected AF_UNIX pair: read whole or truncated, never lost.
    Pair,
    /// UDP datagrams, to and from an address: some may be lost.
    Udp,
    /// A proxy: its writes are the messages that arrived, its reads the pieces that it forwarded.
    Proxy,
}

/// One system call, or one packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The time since the flow began.
    pub at: Duration,
    /// What it did.
    pub kind: StepKind,
    /// The offset of its first byte in the flow.
    pub start: u64,
    /// The offset after its last byte; equal to `start` for an empty message and for a read at the
    /// end of a stream.
    pub end: u64,
    /// Its bytes, at most the first `MAX_STEP_BYTES`.
    pub bytes: Vec<u8>,
}

/// How many bytes of a step are copied into its record.
pub(crate) const MAX_STEP_BYTES: usize = 256;

/// A message of the application: the bytes that its sender means as one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// What it is, in a word or two: `ls -l`, `PING 1`.
    pub label: Text,
    /// The offset of its first byte in the flow.
    pub start: u64,
    /// The offset after its last byte.
    pub end: u64,
}

/// Everything that was recorded of a flow.
#[derive(Debug, Clone, Default)]
pub struct Record {
    /// Its sender and its receiver.
    pub label: Text,
    /// What carries it.
    pub carrier: Carrier,
    /// Its messages, in the order in which they were written.
    pub messages: Vec<Message>,
    /// Its steps in order of time: that of a write is when the call began, that of a read when it
    /// returned.
    pub steps: Vec<Step>,
    written: u64,
    read: u64,
}

/// A flow that is being recorded. Clones record the same flow, from any thread.
#[derive(Debug, Clone)]
pub(crate) struct Flow {
    began: Instant,
    record: Arc<Mutex<Record>>,
}

impl Flow {
    /// Creates a flow over a stream; the label names its sender and its receiver.
    pub(crate) fn new(label: impl Into<Text>) -> Self {
        Self::over(Carrier::Stream, label)
    }

    /// Creates a flow over any carrier.
    pub(crate) fn over(carrier: Carrier, label: impl Into<Text>) -> Self {
        let record = Record { label: label.into(), carrier, ..Record::default() };
        Self { began: Instant::now(), record: Arc::new(Mutex::new(record)) }
    }

    /// Begins a message: what is written from now on belongs to it.
    pub(crate) fn message(&self, label: impl Into<Text>) {
        let mut record = self.lock();
        let start = record.written;
        record.messages.push(Message { label: label.into(), start, end: start });
    }

    /// Records that one call, which returns now, wrote these bytes of the current message.
    pub(crate) fn wrote(&self, bytes: &[u8]) {
        self.wrote_since(self.began.elapsed(), bytes);
    }

    /// Records a write that began at `at`: the peer may have read its bytes before it returned.
    fn wrote_since(&self, at: Duration, bytes: &[u8]) {
        let mut record = self.lock();
        let start = record.written;
        record.written += bytes.len() as u64;
        let end = record.written;
        if let Some(message) = record.messages.last_mut() {
            message.end = end;
        }
        add_call(&mut record, at, StepKind::Write, start, bytes);
    }

    /// Records that one call read these bytes of a stream, which follow those of the call before.
    pub(crate) fn read(&self, bytes: &[u8]) {
        let mut record = self.lock();
        let start = record.read;
        record.read += bytes.len() as u64;
        add_call(&mut record, self.began.elapsed(), StepKind::Read, start, bytes);
    }

    /// Records that one call read a datagram: all of the message with this index, or its beginning.
    pub(crate) fn received(&self, message: usize, bytes: &[u8]) {
        let mut record = self.lock();
        let start = record.messages.get(message).map_or(0, |message| message.start);
        add_call(&mut record, self.began.elapsed(), StepKind::Read, start, bytes);
    }

    /// Records that one segment, observed at `at`, carried the written bytes from `start` to `end`.
    pub(crate) fn carried(&self, at: Duration, start: u64, end: u64) {
        let mut record = self.lock();
        let mut bytes: Vec<u8> = Vec::new();
        for write in record.steps.iter().filter(|step| step.kind == StepKind::Write) {
            // The steps hold only their first bytes: the copy ends at the first gap.
            let next = start + bytes.len() as u64;
            if write.start <= next && next < write.end.min(end) {
                let from = (next - write.start) as usize;
                let to = (write.end.min(end) - write.start) as usize;
                bytes.extend(write.bytes.get(from..to.min(write.bytes.len())).unwrap_or_default());
            }
        }
        bytes.truncate(MAX_STEP_BYTES);
        add_step(&mut record, Step { at, kind: StepKind::Segment, start, end, bytes });
    }

    /// Returns how many bytes were written so far, and the time since the flow began.
    pub(crate) fn progress(&self) -> (u64, Duration) {
        (self.lock().written, self.began.elapsed())
    }

    /// Returns a copy of what was recorded so far.
    pub(crate) fn record(&self) -> Record {
        self.lock().clone()
    }

    /// Returns a writer that records every call.
    pub(crate) fn writer<W: Write>(&self, inner: W) -> Recorded<W> {
        Recorded { flow: self.clone(), inner }
    }

    /// Returns a reader that records every call.
    pub(crate) fn reader<R: Read>(&self, inner: R) -> Recorded<R> {
        Recorded { flow: self.clone(), inner }
    }

    fn lock(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn add_call(record: &mut Record, at: Duration, kind: StepKind, start: u64, bytes: &[u8]) {
    let end = start + bytes.len() as u64;
    let bytes = bytes[..bytes.len().min(MAX_STEP_BYTES)].to_vec();
    add_step(record, Step { at, kind, start, end, bytes });
}

/// Adds a step after those that happened before it.
fn add_step(record: &mut Record, step: Step) {
    let index = record.steps.partition_point(|before| before.at <= step.at);
    record.steps.insert(index, step);
}

/// A socket whose calls are recorded.
#[derive(Debug)]
pub(crate) struct Recorded<S> {
    flow: Flow,
    inner: S,
}

impl<S: Write> Write for Recorded<S> {
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

impl<S: Read> Read for Recorded<S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = uninterrupted(|| self.inner.read(buffer))?;
        self.flow.read(&buffer[..read]);
        Ok(read)
    }
}

/// Repeats a call that a signal interrupted before it did anything.
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

    /// A reader whose every other call is interrupted.
    struct Signalled(bool);

    impl Read for Signalled {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.0 = !self.0;
            if self.0 { Err(io::ErrorKind::Interrupted.into()) } else { Ok(buffer.len()) }
        }
    }

    /// A socket whose peer has read everything before the write returns.
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
    fn a_read_never_precedes_its_write() {
        let flow = Flow::new("a → b");
        for text in ["abc", "de"] {
            assert_eq!(
                flow.writer(Quick(flow.clone())).write(text.as_bytes()).unwrap(),
                text.len()
            );
        }
        let steps: Vec<_> =
            flow.record().steps.iter().map(|step| (step.kind, step.start, step.end)).collect();
        let (write, read) = (StepKind::Write, StepKind::Read);
        assert_eq!(steps, [(write, 0, 3), (read, 0, 3), (write, 3, 5), (read, 3, 5)]);
    }

    #[test]
    fn a_segment_holds_the_bytes_of_its_writes() {
        let flow = Flow::new("a → b");
        ["abc", "defg", "hi"].iter().for_each(|text| flow.wrote(text.as_bytes()));
        flow.carried(flow.progress().1, 2, 8);
        let step = flow.record().steps.pop().unwrap();
        assert_eq!((step.kind, &step.bytes[..]), (StepKind::Segment, &b"cdefgh"[..]));
    }

    #[test]
    fn an_interrupted_call_is_not_recorded() {
        let flow = Flow::new("a → b");
        assert_eq!(flow.reader(Signalled(false)).read(&mut [0; 3]).unwrap(), 3);
        assert_eq!(flow.record().steps.len(), 1);
    }
}
