//! The channels of one authenticated connection, for both roles: what each frame means and what to
//! send next.
//!
//! Frames go in by [`Channels::receive`] and come out by [`Channels::next_frame`]; in between, the
//! callers read and write streams. Nothing here waits: where something is not possible yet, the
//! answer says so, and an [`Event`] tells when to ask again.

mod receive;
mod state;

use alloc::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use self::state::{Channel, Outbound, Phase};
use crate::explanation::Explained;
use crate::flow::Growth;
use crate::frame::{ChannelId, FLAG_EXPLAIN, FLAG_LIMITED, FLAG_MORE, Frame, Kind};
use crate::limits;
use crate::message::{
    BadCommand, Body, Credit, Ended, Eof, Exit, Goodbye, Open, Ping, Pong, Refuse, Resize, Signal,
    Started, Status, Stop, Stream, Usage,
};
use crate::outgoing::Outgoing;

/// Which end of the connection this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Opens channels and sends stdin.
    Client,
    /// Runs commands and sends their output.
    Server,
}

/// What a frame has changed.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    /// Nothing that a caller must know.
    None,
    /// Server: run this.
    Opened(ChannelId, Open),
    /// Server: say what would become of this, and start nothing.
    Asked(ChannelId, Open),
    /// Client: what would become of it.
    Explained(ChannelId, Explained),
    /// Client: it runs.
    Started(ChannelId, Started),
    /// Client: it was refused, nothing was started.
    Refused(ChannelId, Refuse),
    /// Client: the command itself is over.
    Ended(ChannelId, Status),
    /// Client: everything is over; the totals were compared.
    Exited(ChannelId, Exit, Completeness),
    /// A stream has bytes to read, or its end.
    Readable(ChannelId, Stream),
    /// A stream may be written to again, or its reader has gone.
    Writable(ChannelId, Stream),
    /// Server: a signal for the command.
    Signal(ChannelId, Signal),
    /// Server: the terminal's new size.
    Resize(ChannelId, Resize),
    /// Server: the client has given the slot back; what still runs there has lost its client.
    Closed(ChannelId),
    /// The answer to a ping.
    Pong(u64),
    /// Client: the server ends the connection for this reason.
    ConnectionRefused(Refuse),
    /// The peer sends nothing more.
    Goodbye(Goodbye),
}

/// Whether every byte that the server sent has arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Completeness {
    /// Every one.
    Complete,
    /// Some are missing, or there are too many.
    Mismatch {
        /// Where.
        stream: Stream,
        /// How many arrived.
        received: u64,
        /// How many the server says it sent.
        sent: u64,
    },
}

/// What a reader finds.
#[derive(Debug, PartialEq, Eq)]
pub enum Read {
    /// The next bytes; report them with [`Channels::consume`] once they are handed on for good.
    Bytes(Bytes),
    /// The stream is over.
    End,
    /// Nothing yet: wait for [`Event::Readable`].
    Pending,
    /// The channel was closed before its stream had ended: what is missing will never come.
    Gone,
}

/// Why a stream cannot be written to: its writer can stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoReader {
    /// Its reader has gone, or its end was said.
    Stopped,
    /// The whole channel was closed.
    Gone,
}

/// Why a channel cannot be opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// All slots are taken; one is freed by [`Channels::close`].
    #[error("all {0} channels of the connection are in use")]
    NoSlot(u32),
    /// All 2^32 - 1 ids of this connection were used.
    #[error("this connection has no channel ids left; open another")]
    NoId,
    /// The command cannot be sent.
    #[error(transparent)]
    Command(#[from] BadCommand),
}

/// The last words of a connection.
#[derive(Debug)]
enum Ending {
    /// It goes on.
    None,
    /// They wait until everything else has left.
    Behind(Frame),
    /// They leave next.
    AtOnce(Frame),
    /// They have left.
    Said,
}

/// All channels of a connection.
#[derive(Debug)]
pub struct Channels {
    role: Role,
    channels: BTreeMap<ChannelId, Channel>,
    highest: ChannelId,
    limit: u32,
    growth: Growth,
    near: bool,
    /// How many short frames of any channel said something.
    words: u64,
    outgoing: Outgoing,
    ping: Option<u64>,
    pong: Option<u64>,
    credits: VecDeque<(ChannelId, Stream)>,
    overtaking: VecDeque<Frame>,
    ending: Ending,
}

impl Channels {
    /// The channels of a connection that was just authenticated; `limit` counts those that are not
    /// closed yet.
    pub fn new(role: Role, limit: u32, growth: Growth) -> Self {
        Self {
            role,
            channels: BTreeMap::new(),
            highest: ChannelId::CONNECTION,
            limit,
            growth,
            near: false,
            words: 0,
            outgoing: Outgoing::default(),
            ping: None,
            pong: None,
            credits: VecDeque::new(),
            overtaking: VecDeque::new(),
            ending: Ending::None,
        }
    }

    /// Client: the limit that `welcome` announced.
    pub fn set_limit(&mut self, limit: u32) {
        self.limit = limit;
    }

    /// The round trip is so short that no stream needs a wide window: from now on they stay narrow
    /// beside a channel that says something short, because there somebody may be waiting for the
    /// next answer.
    pub fn set_near(&mut self) {
        self.near = true;
    }

    /// Client: goes on where another client of this connection left off; what still comes for its
    /// channels is discarded.
    pub fn resume_behind(&mut self, highest: ChannelId) {
        self.highest = self.highest.max(highest);
    }

    /// How many slots are taken.
    pub fn len(&self) -> usize {
        self.channels.len()
    }

    /// Whether no slot is taken.
    pub fn is_empty(&self) -> bool {
        self.channels.is_empty()
    }

    // ---- Streams
    // ---------------------------------------------------------------------------------------------

    /// The next bytes of a stream that the peer sends.
    pub fn read(&mut self, id: ChannelId, stream: Stream) -> Read {
        let Some(inbound) = self.channels.get_mut(&id).and_then(|channel| channel.inbound(stream))
        else {
            return Read::Gone;
        };
        if inbound.pieces.is_empty() {
            inbound.settle();
        }
        match inbound.pieces.pop_front() {
            Some(bytes) => Read::Bytes(bytes),
            None if inbound.ended || inbound.stopped => Read::End,
            None => Read::Pending,
        }
    }

    /// Reports bytes as handed on for good, so that the peer may send more.
    pub fn consume(&mut self, id: ChannelId, stream: Stream, bytes: usize) {
        let Some(channel) = self.channels.get_mut(&id) else { return };
        let others = self.words - channel.words;
        let Some(inbound) = channel.inbound(stream) else { return };
        if self.near && core::mem::replace(&mut inbound.others, others) != others {
            inbound.window.share();
        }
        let due = inbound.window.consume(bytes as u64);
        if due && !inbound.ended && !inbound.stopped && !self.credits.contains(&(id, stream)) {
            self.credits.push_back((id, stream));
        }
    }

    /// Whether everything that came on any stream has been handed on for good.
    pub fn all_consumed(&self) -> bool {
        self.channels.values().all(Channel::all_consumed)
    }

    /// Nobody reads this stream any more: the peer is told once, what comes is discarded.
    pub fn stop(&mut self, id: ChannelId, stream: Stream) {
        let Some(channel) = self.channels.get_mut(&id) else { return };
        let over = channel.phase == Phase::Over;
        let Some(inbound) = channel.inbound(stream) else { return };
        let tell = !inbound.ended && !inbound.stopped && !over;
        inbound.discard();
        if tell {
            self.outgoing.push(Stop { stream }.frame(id));
        }
    }

    /// How many bytes may be written to a stream now; 0: wait for [`Event::Writable`] or for a
    /// frame of this channel to leave.
    pub fn room(&mut self, id: ChannelId, stream: Stream) -> Result<usize, NoReader> {
        let backlog = self.outgoing.room(id);
        let outbound = self.writable(id, stream)?;
        Ok(backlog.min(usize::try_from(outbound.window.available()).unwrap_or(usize::MAX)))
    }

    /// Writes to a stream, at most [`Self::room`] bytes; longer ones are a programming error and
    /// are cut.
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

    /// Ends a stream behind what was written to it.
    pub fn finish(&mut self, id: ChannelId, stream: Stream) {
        if let Ok(outbound) = self.writable(id, stream) {
            outbound.ended = true;
            self.outgoing.push(Eof { stream }.frame(id));
        }
    }

    fn writable(&mut self, id: ChannelId, stream: Stream) -> Result<&mut Outbound, NoReader> {
        let channel = self.channels.get_mut(&id).ok_or(NoReader::Gone)?;
        if channel.phase == Phase::Over {
            return Err(NoReader::Stopped);
        }
        let outbound = channel.outbound(stream).ok_or(NoReader::Stopped)?;
        if outbound.stopped || outbound.ended { Err(NoReader::Stopped) } else { Ok(outbound) }
    }

    // ---- What a client says
    // -------------------------------------------------------------------------------------

    /// Opens a channel and queues its `open`.
    pub fn open(&mut self, open: &Open) -> Result<ChannelId, OpenError> {
        self.send_open(open, 0)
    }

    /// Opens a channel and asks what would become of the command; only where [`Features::EXPLAIN`]
    /// is in effect.
    ///
    /// [`Features::EXPLAIN`]: crate::message::Features::EXPLAIN
    pub fn ask(&mut self, open: &Open) -> Result<ChannelId, OpenError> {
        self.send_open(open, FLAG_EXPLAIN)
    }

    fn send_open(&mut self, open: &Open, last_flags: u8) -> Result<ChannelId, OpenError> {
        if self.channels.len() >= self.limit as usize {
            return Err(OpenError::NoSlot(self.limit));
        }
        let id = ChannelId(self.highest.0.checked_add(1).ok_or(OpenError::NoId)?);
        let mut rest = open.encode()?;
        self.highest = id;
        let phase = if last_flags & FLAG_EXPLAIN == 0 { Phase::Opened } else { Phase::Asked };
        self.words += 1;
        let mut channel = Channel::new(self.role, phase, &self.growth, self.words);
        if open.terminal.is_some() {
            channel.give_terminal(&self.growth);
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

    /// Sends a signal to a command; overtakes its data.
    pub fn signal(&mut self, id: ChannelId, signal: Signal) {
        self.overtake(signal.frame(id));
    }

    /// Tells a terminal's new size; overtakes data.
    pub fn resize(&mut self, id: ChannelId, size: Resize) {
        self.overtake(size.frame(id));
    }

    fn overtake(&mut self, frame: Frame) {
        if !self.channels.contains_key(&frame.channel) {
            return;
        }
        if self.outgoing.is_opening(frame.channel) {
            self.outgoing.push_behind_open(frame);
        } else {
            self.overtaking.push_back(frame);
        }
    }

    /// Gives the slot back. A command that still runs there loses its client, and what waits to be
    /// sent to it is dropped: otherwise the `open` of another channel could leave before this
    /// `close`, and find no slot.
    pub fn close(&mut self, id: ChannelId) {
        if self.channels.remove(&id).is_some() && !self.forget(id) {
            self.outgoing.push(Frame::new(Kind::Close, id, Bytes::new()));
        }
    }

    /// Drops what waits to be sent on a channel that is gone; true where the peer never heard of
    /// it.
    fn forget(&mut self, id: ChannelId) -> bool {
        self.credits.retain(|(channel, _)| *channel != id);
        self.outgoing.drop_lane(id)
    }

    // ---- What a server says
    // -------------------------------------------------------------------------------------

    /// The command runs.
    pub fn started(&mut self, id: ChannelId, pid: u32) {
        self.say(id, Phase::Started, |_| Started { pid }.frame(id));
    }

    /// Nothing was started.
    pub fn refuse(&mut self, id: ChannelId, refuse: &Refuse) {
        self.say(id, Phase::Over, |_| refuse.frame(id));
    }

    /// What would become of the command. Nothing was started.
    pub fn explained(&mut self, id: ChannelId, explained: &Explained) {
        self.say(id, Phase::Over, |_| explained.frame(id));
    }

    /// The command itself is over.
    pub fn ended(&mut self, id: ChannelId, status: Status) {
        self.say(id, Phase::Ended, |_| Ended { status }.frame(id));
    }

    /// Everything is over; the byte totals are what was written here.
    pub fn exit(&mut self, id: ChannelId, status: Status, timed_out: bool, usage: Usage) {
        self.say(id, Phase::Over, |channel| {
            let (stdout, stderr) = (channel.sent(Stream::Stdout), channel.sent(Stream::Stderr));
            Exit { status, timed_out, stdout, stderr, usage }.frame(id)
        });
    }

    /// The connection ends for this reason, at once: what waits to be sent never leaves.
    pub fn refuse_connection(&mut self, refuse: &Refuse) {
        self.ending = Ending::AtOnce(refuse.frame(ChannelId::CONNECTION));
    }

    /// The connection ends as intended, once everything that waits has left.
    pub fn goodbye(&mut self, goodbye: &Goodbye) {
        self.ending = Ending::Behind(goodbye.frame(ChannelId::CONNECTION));
    }

    fn say(&mut self, id: ChannelId, phase: Phase, frame: impl FnOnce(&mut Channel) -> Frame) {
        if let Some(channel) = self.channels.get_mut(&id) {
            let frame = frame(channel);
            channel.phase = phase;
            self.outgoing.push(frame);
        }
    }

    // ---- What goes out
    // ---------------------------------------------------------------------------------------------

    /// Asks whether the peer is there.
    pub fn ping(&mut self, token: u64) {
        self.ping = Some(token);
    }

    /// The next frame to send: pong, ping, credits, signals and sizes first, then the channels in
    /// turn.
    pub fn next_frame(&mut self) -> Option<Frame> {
        if matches!(self.ending, Ending::AtOnce(_) | Ending::Said) {
            return self.last_words();
        }
        if let Some(token) = self.pong.take() {
            return Some(Pong { token }.frame(ChannelId::CONNECTION));
        }
        if let Some(token) = self.ping.take() {
            return Some(Ping { token }.frame(ChannelId::CONNECTION));
        }
        while let Some((id, stream)) = self.credits.pop_front() {
            // Announced only now, so that what was consumed in the meantime is in it.
            if let Some(inbound) =
                self.channels.get_mut(&id).and_then(|channel| channel.inbound(stream))
            {
                let (consumed, limit) = inbound.window.announce();
                return Some(Credit { stream, consumed, limit }.frame(id));
            }
        }
        if let Some(frame) = self.overtaking.pop_front() {
            return Some(frame);
        }
        let Some((mut frame, data)) = self.outgoing.next() else { return self.last_words() };
        if let Some(end) = data {
            let channel = self.channels.get_mut(&frame.channel);
            let outbound = channel.and_then(|channel| channel.outbound(end.stream));
            if outbound.is_some_and(|outbound| outbound.window.limit() == end.position) {
                frame.flags = FLAG_LIMITED;
            }
        }
        Some(frame)
    }

    fn last_words(&mut self) -> Option<Frame> {
        match core::mem::replace(&mut self.ending, Ending::Said) {
            Ending::Behind(frame) | Ending::AtOnce(frame) => Some(frame),
            Ending::Said => None,
            Ending::None => {
                self.ending = Ending::None;
                None
            }
        }
    }

    /// Whether [`Self::next_frame`] would find something.
    pub fn has_frame(&self) -> bool {
        match self.ending {
            Ending::None => {}
            Ending::Behind(_) | Ending::AtOnce(_) => return true,
            Ending::Said => return false,
        }
        self.pong.is_some()
            || self.ping.is_some()
            || !self.credits.is_empty()
            || !self.overtaking.is_empty()
            || !self.outgoing.is_empty()
    }
}
