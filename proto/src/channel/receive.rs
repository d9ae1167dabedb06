//! Received frames: the effect of each on its channel, and which violate the protocol.

use alloc::collections::BTreeMap;

use bytes::BytesMut;

use super::state::{Channel, Phase};
use super::{Channels, Completeness, Event, Role};
use crate::error::ProtocolError;
use crate::explanation::Explained;
use crate::frame::{ChannelId, FLAG_EXPLAIN, FLAG_LIMITED, FLAG_MORE, Frame, Kind, Sender};
use crate::limits;
use crate::message::{
    Body, Credit, EncodedOpen, Ended, Eof, Exit, Goodbye, Ping, Pong, Refuse, RefuseCode, Resize,
    Signal, Started, Stop, Stream,
};

/// The body from which a frame counts as bulk data, in bytes; a shorter one is interactive
/// unless it is the rest of a bulk read.
const MIN_BULK_BODY: usize = 4 << 10;

impl Channels {
    /// Applies one frame from the peer. An error ends the connection.
    pub fn receive(&mut self, frame: Frame) -> Result<Event, ProtocolError> {
        let ours = match self.role {
            Role::Client => Sender::Client,
            Role::Server => Sender::Server,
        };
        if frame.kind.sender() == ours {
            return Err(ProtocolError::WrongDirection(frame.kind));
        }
        self.count_interactive(&frame);
        match frame.kind {
            Kind::Challenge | Kind::Response | Kind::Welcome => {
                Err(ProtocolError::Unexpected { kind: frame.kind, reason: "the handshake is over" })
            }
            Kind::Ping => {
                self.pong = Some(Ping::from_frame(&frame)?.token);
                Ok(Event::None)
            }
            Kind::Pong => Ok(Event::Pong(Pong::from_frame(&frame)?.token)),
            Kind::Goodbye => Ok(Event::Goodbye(Goodbye::from_frame(&frame)?)),
            Kind::Refuse if frame.channel == ChannelId::CONNECTION => {
                Ok(Event::ConnectionRefused(Refuse::from_frame(&frame)?))
            }
            Kind::Open => self.receive_open(frame),
            _ if frame.channel > self.highest => {
                Err(ProtocolError::NeverOpened { kind: frame.kind, channel: frame.channel })
            }
            Kind::Stdin => self.receive_data(frame, Stream::Stdin),
            Kind::Stdout => self.receive_data(frame, Stream::Stdout),
            Kind::Stderr => self.receive_data(frame, Stream::Stderr),
            _ => self.receive_control(frame),
        }
    }

    /// Client: returns whether all output that arrived before the piece last read from this stream
    /// was passed on to its destination. Programs write the reason for an end to one output before
    /// they end the other, and readers act on what they have read.
    pub fn is_next(&mut self, id: ChannelId, stream: Stream) -> bool {
        self.channels.get_mut(&id).is_none_or(|channel| channel.is_next(stream))
    }

    /// Server: gives an opened channel the windows of a command with a terminal. Call it before
    /// anything is sent on the channel.
    pub fn use_terminal(&mut self, id: ChannelId) {
        if let Some(channel) = self.channels.get_mut(&id) {
            channel.use_terminal_windows(&self.budget);
        }
    }

    /// Counts short frames: a channel that receives them is interactive, and the latency of its
    /// next answer matters. A short frame after a long one is the rest of a bulk read and does not
    /// count.
    fn count_interactive(&mut self, frame: &Frame) {
        if frame.kind == Kind::Credit {
            return;
        }
        let Some(channel) = self.channels.get_mut(&frame.channel) else { return };
        let short = frame.body.len() < MIN_BULK_BODY;
        if short && !channel.bulk {
            self.interactive_frames += 1;
            channel.interactive_frames += 1;
        }
        channel.bulk = !short;
    }

    fn receive_open(&mut self, frame: Frame) -> Result<Event, ProtocolError> {
        let id = frame.channel;
        if id > self.highest {
            let phase = if self.channels.len() < self.limit as usize {
                Phase::Assembling(BytesMut::new())
            } else if self.channels.len() < 2 * self.limit as usize {
                let reason = alloc::format!(
                    "this connection already holds {} channels, its limit",
                    self.limit
                );
                let remedy = "wait for a command to end, or open another connection";
                Phase::Rejecting(Refuse::new(RefuseCode::TOO_MANY_CHANNELS, reason, remedy))
            } else {
                return Err(ProtocolError::TooManyChannels(self.limit));
            };
            self.highest = id;
            self.interactive_frames += 1;
            let channel = Channel::new(self.role, phase, &self.budget, self.interactive_frames);
            self.channels.insert(id, channel);
        }
        let unfinished: usize = self.channels.values().map(Channel::assembled).sum();
        let reused = ProtocolError::ChannelReused { channel: id, highest: self.highest };
        let Some(channel) = self.channels.get_mut(&id) else { return Err(reused) };
        match &mut channel.phase {
            Phase::Assembling(parts) if parts.len() + frame.body.len() > limits::MAX_COMMAND => {
                let refuse = Refuse::new(
                    RefuseCode::BAD_COMMAND,
                    "the command with its environment is longer than 1 MiB, the limit",
                    "send long data on standard input, or in a file",
                );
                channel.phase = Phase::Rejecting(refuse);
            }
            Phase::Assembling(_)
                if unfinished + frame.body.len() > limits::MAX_UNFINISHED_OPEN_BYTES =>
            {
                let reason = "this connection has more than 8 MiB of unfinished commands";
                let refuse = Refuse::new(
                    RefuseCode::RESOURCES,
                    reason,
                    "send long commands one after the other",
                );
                channel.phase = Phase::Rejecting(refuse);
            }
            Phase::Assembling(parts) => parts.extend_from_slice(&frame.body),
            Phase::Rejecting(_) => {}
            _ => return Err(reused),
        }
        if frame.flags & FLAG_MORE != 0 {
            return Ok(Event::None);
        }
        let explain = frame.flags & FLAG_EXPLAIN != 0;
        let next = if explain { Phase::Explaining } else { Phase::Opened };
        match core::mem::replace(&mut channel.phase, next) {
            Phase::Assembling(parts) => {
                let event = if explain { Event::ExplainRequested } else { Event::Opened };
                Ok(event(id, EncodedOpen(parts.freeze())))
            }
            Phase::Rejecting(refuse) => {
                self.refuse(id, &refuse);
                Ok(Event::None)
            }
            _ => Err(reused),
        }
    }

    fn receive_data(&mut self, frame: Frame, stream: Stream) -> Result<Event, ProtocolError> {
        let Frame { kind, flags, channel: id, body } = frame;
        if body.is_empty() {
            return Err(ProtocolError::Empty(kind));
        }
        let Some(channel) = live(&mut self.channels, id, kind)? else { return Ok(Event::None) };
        check_output_permitted(self.role, channel, kind)?;
        let after = channel.received_on_other(stream);
        let Some(inbound) = channel.inbound(stream) else {
            return Err(ProtocolError::WrongDirection(kind));
        };
        if inbound.ended {
            return Err(ProtocolError::AfterEnd { kind, channel: id, stream });
        }
        let limit = inbound.window.limit();
        inbound.window.receive(body.len() as u64, flags & FLAG_LIMITED != 0).map_err(
            |position| ProtocolError::PastLimit { channel: id, stream, position, limit },
        )?;
        if inbound.stopped {
            return Ok(Event::None);
        }
        inbound.push(body, after);
        Ok(Event::Readable(id, stream))
    }

    fn receive_control(&mut self, frame: Frame) -> Result<Event, ProtocolError> {
        let (kind, id) = (frame.kind, frame.channel);
        if kind == Kind::Close {
            return self.receive_close(&frame);
        }
        let Some(channel) = live(&mut self.channels, id, kind)? else { return Ok(Event::None) };
        match kind {
            Kind::Started => receive_started(channel, &frame),
            Kind::Refuse => receive_refuse(channel, &frame),
            Kind::Explained => receive_explained(channel, &frame),
            Kind::Ended => receive_ended(channel, &frame),
            Kind::Exit => receive_exit(channel, &frame),
            Kind::Eof => receive_eof(self.role, channel, &frame),
            Kind::Stop => receive_stop(channel, &frame),
            Kind::Credit => receive_credit(channel, &frame),
            Kind::Signal => Ok(Event::Signal(id, Signal::from_frame(&frame)?)),
            Kind::Resize => Ok(Event::Resize(id, Resize::from_frame(&frame)?)),
            _ => {
                let reason = "expected a message about a command";
                Err(ProtocolError::Unexpected { kind, reason })
            }
        }
    }

    fn receive_close(&mut self, frame: &Frame) -> Result<Event, ProtocolError> {
        if !frame.body.is_empty() {
            let detail = alloc::format!("trailing bytes: {}", frame.body.len());
            return Err(ProtocolError::Malformed { kind: frame.kind, detail });
        }
        if self.channels.remove(&frame.channel).is_none() {
            return Ok(Event::None);
        }
        self.forget(frame.channel);
        Ok(Event::Closed(frame.channel))
    }
}

/// Returns the channel, or `None` if it is closed or over, so that its frames are discarded.
fn live(
    channels: &mut BTreeMap<ChannelId, Channel>,
    id: ChannelId,
    kind: Kind,
) -> Result<Option<&mut Channel>, ProtocolError> {
    match channels.get_mut(&id) {
        Some(Channel { phase: Phase::Assembling(_) | Phase::Rejecting(_), .. }) => {
            Err(ProtocolError::Unexpected { kind, reason: "expected the rest of `open`" })
        }
        Some(Channel { phase: Phase::Over, .. }) | None => Ok(None),
        Some(channel) => Ok(Some(channel)),
    }
}

/// Rejects output at a client before `started`: a `refuse` may still follow, which says that
/// nothing was started.
fn check_output_permitted(role: Role, channel: &Channel, kind: Kind) -> Result<(), ProtocolError> {
    if role == Role::Client && matches!(channel.phase, Phase::Opened | Phase::Explaining) {
        return Err(ProtocolError::Unexpected { kind, reason: Kind::Started.expected() });
    }
    Ok(())
}

fn receive_started(channel: &mut Channel, frame: &Frame) -> Result<Event, ProtocolError> {
    let started = Started::from_frame(frame)?;
    let reason = match channel.phase {
        Phase::Opened => {
            channel.phase = Phase::Started;
            return Ok(Event::Started(frame.channel, started));
        }
        Phase::Explaining => Kind::Explained.expected(),
        _ => "the command has already started",
    };
    Err(ProtocolError::Unexpected { kind: frame.kind, reason })
}

fn receive_refuse(channel: &mut Channel, frame: &Frame) -> Result<Event, ProtocolError> {
    let refuse = Refuse::from_frame(frame)?;
    if !matches!(channel.phase, Phase::Opened | Phase::Explaining) {
        let reason = "the command has already started";
        return Err(ProtocolError::Unexpected { kind: frame.kind, reason });
    }
    channel.end_without_output();
    Ok(Event::Refused(frame.channel, refuse))
}

fn receive_explained(channel: &mut Channel, frame: &Frame) -> Result<Event, ProtocolError> {
    let explained = Explained::from_frame(frame)?;
    if channel.phase != Phase::Explaining {
        let reason = "no explanation was requested";
        return Err(ProtocolError::Unexpected { kind: frame.kind, reason });
    }
    channel.end_without_output();
    Ok(Event::Explained(frame.channel, explained))
}

fn receive_ended(channel: &mut Channel, frame: &Frame) -> Result<Event, ProtocolError> {
    let Ended { status } = Ended::from_frame(frame)?;
    if channel.phase != Phase::Started {
        let reason = "it is sent once, after `started`";
        return Err(ProtocolError::Unexpected { kind: frame.kind, reason });
    }
    channel.phase = Phase::Ended;
    Ok(Event::Ended(frame.channel, status))
}

fn receive_eof(role: Role, channel: &mut Channel, frame: &Frame) -> Result<Event, ProtocolError> {
    let (kind, id) = (frame.kind, frame.channel);
    let Eof { stream } = Eof::from_frame(frame)?;
    check_output_permitted(role, channel, kind)?;
    let Some(inbound) = channel.inbound(stream) else {
        return Err(ProtocolError::WrongDirection(kind));
    };
    if inbound.ended {
        return Err(ProtocolError::AfterEnd { kind, channel: id, stream });
    }
    inbound.ended = true;
    Ok(Event::Readable(id, stream))
}

fn receive_stop(channel: &mut Channel, frame: &Frame) -> Result<Event, ProtocolError> {
    let Stop { stream } = Stop::from_frame(frame)?;
    let Some(outbound) = channel.outbound(stream) else {
        return Err(ProtocolError::WrongDirection(frame.kind));
    };
    outbound.stopped = true;
    Ok(Event::Writable(frame.channel, stream))
}

fn receive_credit(channel: &mut Channel, frame: &Frame) -> Result<Event, ProtocolError> {
    let Credit { stream, consumed, limit } = Credit::from_frame(frame)?;
    let Some(outbound) = channel.outbound(stream) else {
        return Err(ProtocolError::WrongDirection(frame.kind));
    };
    let id = frame.channel;
    outbound.window.apply_credit(consumed, limit).map_err(|detail| ProtocolError::Credit {
        channel: id,
        stream,
        detail,
    })?;
    Ok(Event::Writable(id, stream))
}

fn receive_exit(channel: &mut Channel, frame: &Frame) -> Result<Event, ProtocolError> {
    let exit = Exit::from_frame(frame)?;
    if matches!(channel.phase, Phase::Opened | Phase::Explaining) {
        return Err(ProtocolError::Unexpected {
            kind: frame.kind,
            reason: Kind::Started.expected(),
        });
    }
    channel.phase = Phase::Over;
    let mut completeness = Completeness::Complete;
    for (stream, sent) in [(Stream::Stdout, exit.stdout), (Stream::Stderr, exit.stderr)] {
        let Some(inbound) = channel.inbound(stream) else { continue };
        inbound.ended = true;
        let received = inbound.window.received();
        if !inbound.stopped && received != sent {
            completeness = Completeness::Mismatch { stream, received, sent };
        }
    }
    Ok(Event::Exited(frame.channel, exit, completeness))
}
