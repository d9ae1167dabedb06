//! The channels of one authenticated connection, for both roles.
//!
//! [`Channels::receive`] applies the peer's frames, and [`Channels::next_frame`] returns those to
//! send; in between, the caller reads and writes streams. Nothing here waits: the result says if an
//! operation is not possible yet, and an [`Event`] says when to try again.

mod receive;
mod state;

use alloc::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use self::state::{Channel, Outbound, Phase, Piece};
use crate::explanation::Explained;
use crate::flow::ConnectionBudget;
use crate::frame::{ChannelId, FLAG_EXPLAIN, FLAG_LIMITED, FLAG_MORE, Frame, Kind};
use crate::limits;
use crate::message::{
    BadCommand, Body, Credit, EncodedOpen, Ended, Eof, Exit, Goodbye, Open, Ping, Pong, Refuse,
    Resize, Signal, Started, Status, Stop, Stream, Usage,
};
use crate::outgoing::Outgoing;

/// The end of the connection that this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Opens channels and sends stdin.
    Client,
    /// Runs commands and sends their output.
    Server,
}

/// The effect of a received frame.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    /// Nothing that the caller must act on.
    None,
    /// Server: the client wants this command to run.
    Opened(ChannelId, EncodedOpen),
    /// Server: the client wants to know how this command would run; start nothing.
    ExplainRequested(ChannelId, EncodedOpen),
    /// Client: how the command would run.
    Explained(ChannelId, Explained),
    /// Client: the command is running.
    Started(ChannelId, Started),
    /// Client: the command was refused; nothing was started.
    Refused(ChannelId, Refuse),
    /// Client: the command has ended; its streams may still be open.
    Ended(ChannelId, Status),
    /// Client: the command and its streams are over, with the result of comparing their lengths.
    Exited(ChannelId, Exit, Completeness),
    /// A stream has data to read, or has ended.
    Readable(ChannelId, Stream),
    /// A stream may be written to again, or has no reader any more.
    Writable(ChannelId, Stream),
    /// Server: a signal for the command.
    Signal(ChannelId, Signal),
    /// Server: the terminal's new size.
    Resize(ChannelId, Resize),
    /// Server: the client has closed the channel; a command that still runs has lost its client.
    Closed(ChannelId),
    /// The answer to a ping.
    Pong(u64),
    /// Client: the server refuses the connection.
    ConnectionRefused(Refuse),
    /// The peer sends nothing after this.
    Goodbye(Goodbye),
}

/// Whether the client received every byte that the server sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Completeness {
    /// Every byte was received.
    Complete,
    /// The numbers of bytes sent and received differ.
    Mismatch {
        /// The stream.
        stream: Stream,
        /// The number of bytes received.
        received: u64,
        /// The number of bytes sent, according to the server.
        sent: u64,
    },
}

/// The result of reading from a stream.
#[derive(Debug, PartialEq, Eq)]
pub enum Read {
    /// The next bytes; call [`Channels::consume`] once they are passed on to their destination.
    Bytes(Bytes),
    /// The end of the stream.
    End,
    /// No data yet: wait for [`Event::Readable`].
    Pending,
    /// The channel was closed before the end of the stream; its remaining data is lost.
    Closed,
}

/// Why a stream cannot be written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoReader {
    /// Its reader has stopped reading, or its end was sent.
    Stopped,
    /// The channel was closed.
    Closed,
}

/// Why a channel cannot be opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// All slots are taken; [`Channels::close`] frees one.
    #[error("all {0} channels of the connection are in use")]
    NoSlot(u32),
    /// All 2^32 − 1 ids of this connection were used.
    #[error("this connection has no channel ids left; open another")]
    NoId,
    /// The command cannot be sent.
    #[error(transparent)]
    Command(#[from] BadCommand),
}

/// The last frame of a connection.
#[derive(Debug)]
enum Closing {
    /// The connection is not closing.
    No,
    /// The frame is sent after everything that is queued.
    AfterQueued(Frame),
    /// The frame is sent next, and what is queued is not sent.
    Now(Frame),
    /// The frame was sent.
    Done,
}

/// All channels of a connection.
#[derive(Debug)]
pub struct Channels {
    role: Role,
    channels: BTreeMap<ChannelId, Channel>,
    highest: ChannelId,
    limit: u32,
    budget: ConnectionBudget,
    /// Whether the round-trip time is so short that streams give up window size for the latency of
    /// interactive channels.
    low_latency: bool,
    /// The number of interactive frames received on all channels.
    interactive_frames: u64,
    outgoing: Outgoing,
    ping: Option<u64>,
    pong: Option<u64>,
    credits: VecDeque<(ChannelId, Stream)>,
    /// Frames that overtake queued data: signals and sizes of terminals.
    priority: VecDeque<Frame>,
    closing: Closing,
}

impl Channels {
    /// Creates the channels of a newly authenticated connection, at most `limit` at the same time.
    pub fn new(role: Role, limit: u32, budget: ConnectionBudget) -> Self {
        Self {
            role,
            channels: BTreeMap::new(),
            highest: ChannelId::CONNECTION,
            limit,
            budget,
            low_latency: false,
            interactive_frames: 0,
            outgoing: Outgoing::default(),
            ping: None,
            pong: None,
            credits: VecDeque::new(),
            priority: VecDeque::new(),
            closing: Closing::No,
        }
    }

    /// Client: sets the number of channels that `welcome` permits.
    pub fn set_limit(&mut self, limit: u32) {
        self.limit = limit;
    }

    /// Prefers latency to throughput from now on: while a channel is interactive, the windows of
    /// all other streams stay small, as data in flight delays its answers (head-of-line blocking).
    /// For connections with a short round-trip time, whose bandwidth-delay product is small.
    pub fn set_low_latency(&mut self) {
        self.low_latency = true;
    }

    /// Client: takes over a connection on which another client has used the ids up to `highest`;
    /// frames for its channels are discarded.
    pub fn resume_after(&mut self, highest: ChannelId) {
        self.highest = self.highest.max(highest);
    }

    /// Returns the number of slots taken.
    pub fn len(&self) -> usize {
        self.channels.len()
    }

    /// Returns whether no slot is taken.
    pub fn is_empty(&self) -> bool {
        self.channels.is_empty()
    }

    // ---- Streams ----

    /// Reads from a stream that the peer sends.
    pub fn read(&mut self, id: ChannelId, stream: Stream) -> Read {
        let Some(inbound) = self.channels.get_mut(&id).and_then(|channel| channel.inbound(stream))
        else {
            return Read::Closed;
        };
        if inbound.pieces.is_empty() {
            inbound.flush_small();
        }
        match inbound.pieces.pop_front() {
            Some(Piece { bytes, after }) => {
                inbound.read_after = after;
                Read::Bytes(bytes)
            }
            None if inbound.ended || inbound.stopped => Read::End,
            None => Read::Pending,
        }
    }

    /// Counts bytes as passed on to their destination, so that the peer may send more.
    pub fn consume(&mut self, id: ChannelId, stream: Stream, bytes: usize) {
        let Some(channel) = self.channels.get_mut(&id) else { return };
        let elsewhere = self.interactive_frames - channel.interactive_frames;
        let Some(inbound) = channel.inbound(stream) else { return };
        if self.low_latency
            && core::mem::replace(&mut inbound.interactive_elsewhere, elsewhere) != elsewhere
        {
            inbound.window.prefer_latency();
        }
        let credit_due = inbound.window.consume(bytes as u64);
        let wanted = !inbound.ended && !inbound.stopped;
        if credit_due && wanted && !self.credits.contains(&(id, stream)) {
            self.credits.push_back((id, stream));
        }
    }

    /// Returns whether all data received on any stream was passed on to its destination.
    pub fn all_consumed(&self) -> bool {
        self.channels.values().all(Channel::all_consumed)
    }

    /// Stops reading a stream: sends one `stop`, and discards the data that still arrives.
    pub fn stop(&mut self, id: ChannelId, stream: Stream) {
        let Some(channel) = self.channels.get_mut(&id) else { return };
        let over = channel.phase == Phase::Over;
        let Some(inbound) = channel.inbound(stream) else { return };
        let needed = !inbound.ended && !inbound.stopped && !over;
        inbound.stop();
        if needed {
            self.outgoing.push(Stop { stream }.frame(id));
        }
    }

    /// Returns how many bytes may be written to a stream now. If 0, wait for [`Event::Writable`] or
    /// until [`Self::next_frame`] has returned a frame of this channel.
    pub fn write_capacity(&mut self, id: ChannelId, stream: Stream) -> Result<usize, NoReader> {
        let capacity = self.outgoing.capacity(id);
        let outbound = self.writable(id, stream)?;
        Ok(capacity.min(usize::try_from(outbound.window.available()).unwrap_or(usize::MAX)))
    }

    /// Writes at most [`Self::write_capacity`] bytes to a stream. Bytes past the peer's limit are a
    /// programming error and are discarded.
    pub fn write(
        &mut self,
        id: ChannelId,
        stream: Stream,
        mut bytes: Bytes,
    ) -> Result<(), NoReader> {
        let outbound = self.writable(id, stream)?;
        bytes.truncate(usize::try_from(outbound.window.available()).unwrap_or(usize::MAX));
        if !bytes.is_empty() {
            let end = outbound.window.advance(bytes.len() as u64);
            self.outgoing.push_data(id, stream, bytes, end);
        }
        Ok(())
    }

    /// Ends a stream after the data that was written to it.
    pub fn finish(&mut self, id: ChannelId, stream: Stream) {
        if let Ok(outbound) = self.writable(id, stream) {
            outbound.ended = true;
            self.outgoing.push(Eof { stream }.frame(id));
        }
    }

    fn writable(&mut self, id: ChannelId, stream: Stream) -> Result<&mut Outbound, NoReader> {
        let channel = self.channels.get_mut(&id).ok_or(NoReader::Closed)?;
        if channel.phase == Phase::Over {
            return Err(NoReader::Stopped);
        }
        let outbound = channel.outbound(stream).ok_or(NoReader::Stopped)?;
        if outbound.stopped || outbound.ended { Err(NoReader::Stopped) } else { Ok(outbound) }
    }

    // ---- Messages of a client ----

    /// Opens a channel and queues its `open`.
    pub fn open(&mut self, open: &Open) -> Result<ChannelId, OpenError> {
        self.send_open(open, 0)
    }

    /// Opens a channel to ask how the command would run, without starting it. Requires
    /// [`Features::EXPLAIN`].
    ///
    /// [`Features::EXPLAIN`]: crate::message::Features::EXPLAIN
    pub fn request_explanation(&mut self, open: &Open) -> Result<ChannelId, OpenError> {
        self.send_open(open, FLAG_EXPLAIN)
    }

    fn send_open(&mut self, open: &Open, last_flags: u8) -> Result<ChannelId, OpenError> {
        if self.channels.len() >= self.limit as usize {
            return Err(OpenError::NoSlot(self.limit));
        }
        let id = ChannelId(self.highest.0.checked_add(1).ok_or(OpenError::NoId)?);
        let mut rest = open.encode()?;
        self.highest = id;
        let phase = if last_flags & FLAG_EXPLAIN == 0 { Phase::Opened } else { Phase::Explaining };
        self.interactive_frames += 1;
        let mut channel = Channel::new(self.role, phase, &self.budget, self.interactive_frames);
        if open.terminal.is_some() {
            channel.use_terminal_windows(&self.budget);
        }
        self.channels.insert(id, channel);
        loop {
            let part = rest.split_to(rest.len().min(limits::BULK_BODY));
            let mut frame = Frame::new(Kind::Open, id, part);
            if rest.is_empty() {
                frame.flags = last_flags;
                self.outgoing.push(frame);
                return Ok(id);
            }
            frame.flags = FLAG_MORE;
            self.outgoing.push(frame);
        }
    }

    /// Sends a signal to a command, ahead of queued data.
    pub fn signal(&mut self, id: ChannelId, signal: Signal) {
        self.push_priority(signal.frame(id));
    }

    /// Sends the new size of a terminal, ahead of queued data.
    pub fn resize(&mut self, id: ChannelId, size: Resize) {
        self.push_priority(size.frame(id));
    }

    /// Queues a frame ahead of all data, but not ahead of the `open` of its channel.
    fn push_priority(&mut self, frame: Frame) {
        if !self.channels.contains_key(&frame.channel) {
            return;
        }
        if self.outgoing.is_opening(frame.channel) {
            self.outgoing.push_after_open(frame);
        } else {
            self.priority.push_back(frame);
        }
    }

    /// Closes a channel and frees its slot. A command that still runs loses its client. Queued
    /// frames of the channel are discarded: otherwise the `open` of another channel could be sent
    /// before this `close`, and find no free slot.
    pub fn close(&mut self, id: ChannelId) {
        if self.channels.remove(&id).is_some() && !self.forget(id) {
            self.outgoing.push(Frame::new(Kind::Close, id, Bytes::new()));
        }
    }

    /// Discards the queued frames of a closed channel. Returns whether the peer does not know the
    /// channel.
    fn forget(&mut self, id: ChannelId) -> bool {
        self.credits.retain(|(channel, _)| *channel != id);
        self.outgoing.discard(id)
    }

    // ---- Messages of a server ----

    /// Sends that the command is running.
    pub fn started(&mut self, id: ChannelId, pid: u32) {
        self.send(id, Phase::Started, |_| Started { pid }.frame(id));
    }

    /// Refuses the command: nothing was started.
    pub fn refuse(&mut self, id: ChannelId, refuse: &Refuse) {
        self.send(id, Phase::Over, |_| refuse.frame(id));
    }

    /// Sends how the command would run: nothing was started.
    pub fn explained(&mut self, id: ChannelId, explained: &Explained) {
        self.send(id, Phase::Over, |_| explained.frame(id));
    }

    /// Sends that the command has ended.
    pub fn ended(&mut self, id: ChannelId, status: Status) {
        self.send(id, Phase::Ended, |_| Ended { status }.frame(id));
    }

    /// Sends that the command and its streams are over, with the number of bytes written to each.
    pub fn exit(&mut self, id: ChannelId, status: Status, timed_out: bool, usage: Usage) {
        self.send(id, Phase::Over, |channel| {
            let (stdout, stderr) = (channel.sent(Stream::Stdout), channel.sent(Stream::Stderr));
            Exit { status, timed_out, stdout, stderr, usage }.frame(id)
        });
    }

    /// Refuses the connection at once: queued frames are not sent.
    pub fn refuse_connection(&mut self, refuse: &Refuse) {
        self.closing = Closing::Now(refuse.frame(ChannelId::CONNECTION));
    }

    /// Ends the connection after all queued frames.
    pub fn goodbye(&mut self, goodbye: &Goodbye) {
        self.closing = Closing::AfterQueued(goodbye.frame(ChannelId::CONNECTION));
    }

    fn send(&mut self, id: ChannelId, phase: Phase, frame: impl FnOnce(&mut Channel) -> Frame) {
        if let Some(channel) = self.channels.get_mut(&id) {
            let frame = frame(channel);
            channel.phase = phase;
            self.outgoing.push(frame);
        }
    }

    // ---- Frames to send ----

    /// Sends a `ping`.
    pub fn ping(&mut self, token: u64) {
        self.ping = Some(token);
    }

    /// Returns the next frame to send: `pong`, `ping`, credits, signals and sizes first, then the
    /// frames of the channels in turns.
    pub fn next_frame(&mut self) -> Option<Frame> {
        if matches!(self.closing, Closing::Now(_) | Closing::Done) {
            return self.closing_frame();
        }
        if let Some(token) = self.pong.take() {
            return Some(Pong { token }.frame(ChannelId::CONNECTION));
        }
        if let Some(token) = self.ping.take() {
            return Some(Ping { token }.frame(ChannelId::CONNECTION));
        }
        while let Some((id, stream)) = self.credits.pop_front() {
            // Computed only now, to include what was consumed since the credit was queued.
            if let Some(inbound) =
                self.channels.get_mut(&id).and_then(|channel| channel.inbound(stream))
            {
                let (consumed, limit) = inbound.window.announce();
                return Some(Credit { stream, consumed, limit }.frame(id));
            }
        }
        if let Some(frame) = self.priority.pop_front() {
            return Some(frame);
        }
        let Some((mut frame, data)) = self.outgoing.next() else { return self.closing_frame() };
        if let Some(end) = data {
            let channel = self.channels.get_mut(&frame.channel);
            let outbound = channel.and_then(|channel| channel.outbound(end.stream));
            if outbound.is_some_and(|outbound| outbound.window.limit() == end.position) {
                frame.flags = FLAG_LIMITED;
            }
        }
        Some(frame)
    }

    fn closing_frame(&mut self) -> Option<Frame> {
        match core::mem::replace(&mut self.closing, Closing::Done) {
            Closing::AfterQueued(frame) | Closing::Now(frame) => Some(frame),
            Closing::Done => None,
            Closing::No => {
                self.closing = Closing::No;
                None
            }
        }
    }

    /// Returns whether [`Self::next_frame`] has a frame.
    pub fn has_frame(&self) -> bool {
        match self.closing {
            Closing::No => {}
            Closing::AfterQueued(_) | Closing::Now(_) => return true,
            Closing::Done => return false,
        }
        self.pong.is_some()
            || self.ping.is_some()
            || !self.credits.is_empty()
            || !self.priority.is_empty()
            || !self.outgoing.is_empty()
    }
}
