//! A simulation of a client, a server and the link between them, which checks its invariants at
//! each step.

use std::collections::{BTreeMap, BTreeSet};

use bytes::{Bytes, BytesMut};
use labsh_proto::channel::{Channels, Completeness, Event, OpenError, Read, Role};
use labsh_proto::flow::{Budget, ConnectionBudget};
use labsh_proto::frame::{ChannelId, Decoder, FLAG_LIMITED, Kind};
use labsh_proto::limits;
use labsh_proto::message::{Body, CommandId, Credit, Open, Program, Status, Stream, Usage};

const STREAMS: [Stream; 3] = [Stream::Stdin, Stream::Stdout, Stream::Stderr];

/// How much data may be in flight in one direction, in bytes.
const LINK_CAPACITY: usize = 200_000;

type Key = (ChannelId, Stream);

/// The streams of one command.
#[derive(Debug, Clone)]
pub(crate) struct Job {
    /// Bytes on stdin, stdout and stderr.
    pub(crate) lengths: [usize; 3],
    /// The number of bytes after which the reader of each stops, if it does.
    pub(crate) stop_after: [Option<usize>; 3],
}

#[derive(Debug, Default, Clone, Copy)]
struct Progress {
    written: usize,
    write_over: bool,
    read: usize,
    consumed: usize,
    read_over: bool,
}

#[derive(Debug)]
struct Running {
    job: Job,
    opened: bool,
    started: bool,
    exit_sent: bool,
    exited: bool,
    closed: bool,
    streams: [Progress; 3],
}

#[derive(Debug)]
struct End {
    channels: Channels,
    decoder: Decoder,
    arriving: BytesMut,
    may_write: BTreeSet<Key>,
    may_read: BTreeSet<Key>,
    /// Computed independently of the code under test: the limits set by the other end.
    allowed: BTreeMap<Key, u64>,
    /// Computed independently of the code under test: the bytes sent.
    sent: BTreeMap<Key, u64>,
}

impl End {
    fn new(role: Role, slots: u32, budget: u64) -> Self {
        Self {
            channels: Channels::new(role, slots, ConnectionBudget::new(Budget::new(budget))),
            decoder: Decoder::default(),
            arriving: BytesMut::new(),
            may_write: BTreeSet::new(),
            may_read: BTreeSet::new(),
            allowed: BTreeMap::new(),
            sent: BTreeMap::new(),
        }
    }
}

/// Both ends, the link, and the commands.
#[derive(Debug)]
pub(crate) struct World {
    client: End,
    server: End,
    running: Vec<Running>,
    pattern: Vec<u8>,
    moves: u64,
}

impl World {
    pub(crate) fn new(jobs: Vec<Job>, slots: u32, budget: u64) -> Self {
        let running = |job| Running {
            job,
            opened: false,
            started: false,
            exit_sent: false,
            exited: false,
            closed: false,
            streams: [Progress::default(); 3],
        };
        Self {
            client: End::new(Role::Client, slots, budget),
            server: End::new(Role::Server, slots, budget),
            running: jobs.into_iter().map(running).collect(),
            // A prime length, so that an offset error of a round number is detected.
            pattern: (0..65_521_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect(),
            moves: 0,
        }
    }

    /// Both ends prefer latency to throughput.
    pub(crate) fn set_low_latency(&mut self) {
        self.client.channels.set_low_latency();
        self.server.channels.set_low_latency();
    }

    /// Takes one action, if it is possible now.
    pub(crate) fn step(
        &mut self,
        action: u8,
        at_server: bool,
        job: usize,
        stream: usize,
        amount: usize,
    ) {
        let job = job % self.running.len();
        match action {
            0 => self.open(),
            1 => self.write(job, STREAMS[stream], amount),
            2 => self.read(job, STREAMS[stream]),
            3 => self.consume(job, STREAMS[stream], amount),
            4 => self.send(at_server),
            5 => self.deliver(at_server, amount),
            _ => self.end_command(job),
        }
    }

    /// Takes all possible actions in turns until every command is over.
    pub(crate) fn run_to_the_end(&mut self) {
        let mut rounds = 0;
        while self.running.iter().any(|running| !running.closed) {
            rounds += 1;
            assert!(rounds < 20_000, "the commands do not end: {:?}", self.running);
            let before = self.moves;
            for action in 0..7 {
                for job in 0..self.running.len() {
                    for stream in 0..3 {
                        self.step(action, stream == 0, job, stream, 150_000);
                    }
                }
            }
            assert!(self.moves > before, "deadlock: {:?}", self.running);
        }
        while !self.client.arriving.is_empty() || self.client.channels.has_frame() {
            self.send(false);
            self.deliver(false, LINK_CAPACITY);
            self.deliver(true, LINK_CAPACITY);
        }
        self.send(false);
        self.deliver(true, usize::MAX);
        assert!(self.client.channels.is_empty());
        assert!(self.server.channels.is_empty());
    }

    fn expected(&self, key: Key, at: usize, length: usize) -> Vec<u8> {
        let mut start =
            (at + key.0.0 as usize * 1_000 + key.1 as usize * 10_000) % self.pattern.len();
        let mut bytes = Vec::with_capacity(length);
        while bytes.len() < length {
            let part = &self.pattern[start..];
            bytes.extend_from_slice(&part[..part.len().min(length - bytes.len())]);
            start = 0;
        }
        bytes
    }

    fn open(&mut self) {
        let Some(next) = self.running.iter().position(|running| !running.opened) else { return };
        let open = Open::new(
            CommandId([next as u8; 16]),
            Program::Argv(vec![b"x".to_vec(), vec![b'y'; 100_000]]),
        );
        match self.client.channels.open(&open) {
            Ok(id) => {
                assert_eq!(id, channel(next));
                self.running[next].opened = true;
                self.client.may_write.insert((id, Stream::Stdin));
                self.moves += 1;
            }
            Err(OpenError::NoSlot(_)) => {}
            Err(error) => panic!("{error}"),
        }
    }

    fn write(&mut self, job: usize, stream: Stream, amount: usize) {
        let key = (channel(job), stream);
        let Progress { written, write_over, .. } = self.running[job].streams[stream as usize];
        let end = if stream == Stream::Stdin { &mut self.client } else { &mut self.server };
        if write_over || !end.may_write.contains(&key) {
            return;
        }
        let left = self.running[job].job.lengths[stream as usize] - written;
        let capacity = end.channels.write_capacity(key.0, stream);
        if left > 0 && capacity == Ok(0) {
            end.may_write.remove(&key);
            return;
        }
        self.moves += 1;
        let Ok(capacity) = capacity else {
            self.running[job].streams[stream as usize].write_over = true;
            return;
        };
        let length = left.min(capacity).min(amount);
        let bytes = Bytes::from(self.expected(key, written, length));
        let end = if stream == Stream::Stdin { &mut self.client } else { &mut self.server };
        end.channels.write(key.0, stream, bytes).expect("the stream has a reader");
        if length == left {
            end.channels.finish(key.0, stream);
        }
        let progress = &mut self.running[job].streams[stream as usize];
        progress.written += length;
        progress.write_over = length == left;
    }

    fn read(&mut self, job: usize, stream: Stream) {
        let key = (channel(job), stream);
        let Progress { read, read_over, .. } = self.running[job].streams[stream as usize];
        let stop_after = self.running[job].job.stop_after[stream as usize];
        let end = if stream == Stream::Stdin { &mut self.server } else { &mut self.client };
        if read_over || !end.may_read.contains(&key) {
            return;
        }
        if stop_after.is_some_and(|stop_after| read >= stop_after) {
            end.channels.stop(key.0, stream);
            self.running[job].streams[stream as usize].read_over = true;
            self.moves += 1;
            return;
        }
        match end.channels.read(key.0, stream) {
            Read::Pending => {
                end.may_read.remove(&key);
                return;
            }
            Read::End | Read::Closed => self.running[job].streams[stream as usize].read_over = true,
            Read::Bytes(bytes) => {
                assert!(
                    bytes == self.expected(key, read, bytes.len()),
                    "bytes of {key:?} at {read}"
                );
                self.running[job].streams[stream as usize].read += bytes.len();
            }
        }
        self.moves += 1;
    }

    fn consume(&mut self, job: usize, stream: Stream, amount: usize) {
        let progress = &mut self.running[job].streams[stream as usize];
        let bytes = amount.min(progress.read - progress.consumed);
        if bytes == 0 {
            return;
        }
        progress.consumed += bytes;
        let end = if stream == Stream::Stdin { &mut self.server } else { &mut self.client };
        end.channels.consume(channel(job), stream, bytes);
        self.moves += 1;
    }

    /// The command ends on the server once it has written everything; the client closes once it has
    /// read everything.
    fn end_command(&mut self, job: usize) {
        let running = &mut self.running[job];
        let [stdin, stdout, stderr] = running.streams;
        let done = stdin.read_over && stdout.write_over && stderr.write_over;
        if running.started && done && !running.exit_sent {
            self.server.channels.exit(channel(job), Status::Exited(0), false, Usage::default());
            running.exit_sent = true;
        } else if running.exited && stdout.read_over && stderr.read_over && !running.closed {
            for stream in [Stream::Stdout, Stream::Stderr] {
                let Progress { written, read, .. } = running.streams[stream as usize];
                let stopped = running.job.stop_after[stream as usize].is_some();
                assert!(
                    stopped || (read == written && written == running.job.lengths[stream as usize])
                );
            }
            self.client.channels.close(channel(job));
            running.closed = true;
        } else {
            return;
        }
        self.moves += 1;
    }

    fn send(&mut self, from_server: bool) {
        let (from, to) = self.ends(from_server);
        if to.arriving.len() > LINK_CAPACITY {
            return;
        }
        let promised = from.channels.has_frame();
        let Some(frame) = from.channels.next_frame() else {
            assert!(!promised);
            return;
        };
        let (id, limited) = (frame.channel, frame.flags == FLAG_LIMITED);
        if let Some(stream) = STREAMS.into_iter().find(|stream| stream.kind() == frame.kind) {
            let key = (id, stream);
            let sent = from.sent.entry(key).or_default();
            *sent += frame.body.len() as u64;
            let allowed = from.allowed.get(&key).copied().unwrap_or(first_limit(stream));
            assert!(*sent <= allowed, "{key:?} at {sent}, past {allowed}");
            assert!(
                limited || *sent < allowed,
                "{key:?} is at its limit {allowed} without the flag LIMITED"
            );
        }
        for stream in STREAMS {
            from.may_write.insert((id, stream));
        }
        to.arriving.extend_from_slice(&frame.header().encode());
        to.arriving.extend_from_slice(&frame.body);
        self.moves += 1;
    }

    fn deliver(&mut self, to_server: bool, amount: usize) {
        let (end, _) = self.ends(to_server);
        let amount = amount.min(end.arriving.len());
        if amount == 0 {
            return;
        }
        let bytes = end.arriving.split_to(amount);
        end.decoder.buffer().extend_from_slice(&bytes);
        self.moves += 1;
        loop {
            let (end, _) = self.ends(to_server);
            let frame = end.decoder.next_frame(limits::MAX_BODY).expect("a valid frame");
            let Some(frame) = frame else { return };
            if frame.kind == Kind::Credit {
                let Credit { stream, consumed, limit } =
                    Credit::from_frame(&frame).expect("a credit");
                end.allowed.insert((frame.channel, stream), limit);
                let reader = &self.running[frame.channel.0 as usize - 1].streams[stream as usize];
                assert!(
                    consumed <= reader.consumed as u64,
                    "the credit claims bytes that were not consumed"
                );
            }
            let (end, _) = self.ends(to_server);
            let event = end.channels.receive(frame).expect("no violation");
            self.handle(to_server, event);
        }
    }

    fn handle(&mut self, at_server: bool, event: Event) {
        let (end, _) = self.ends(at_server);
        match event {
            Event::Opened(id, _) => {
                end.channels.started(id, 1);
                end.may_read.insert((id, Stream::Stdin));
                end.may_write.extend([(id, Stream::Stdout), (id, Stream::Stderr)]);
                self.running[id.0 as usize - 1].started = true;
            }
            Event::Started(id, _) => {
                end.may_read.extend([(id, Stream::Stdout), (id, Stream::Stderr)]);
            }
            Event::Exited(id, _, completeness) => {
                assert_eq!(completeness, Completeness::Complete);
                end.may_read.extend([(id, Stream::Stdout), (id, Stream::Stderr)]);
                self.running[id.0 as usize - 1].exited = true;
            }
            Event::Readable(id, stream) => {
                end.may_read.insert((id, stream));
            }
            Event::Writable(id, stream) => {
                end.may_write.insert((id, stream));
            }
            Event::Closed(_) | Event::None => {}
            other => panic!("unexpected event: {other:?}"),
        }
    }

    fn ends(&mut self, server_first: bool) -> (&mut End, &mut End) {
        if server_first {
            (&mut self.server, &mut self.client)
        } else {
            (&mut self.client, &mut self.server)
        }
    }
}

fn channel(job: usize) -> ChannelId {
    ChannelId(job as u32 + 1)
}

fn first_limit(stream: Stream) -> u64 {
    if stream == Stream::Stdin { limits::FIRST_STDIN_LIMIT } else { limits::FIRST_OUTPUT_LIMIT }
}
