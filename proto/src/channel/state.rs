//! The state of one channel: its phase, and the windows and queued data of its streams.

use alloc::collections::VecDeque;

use bytes::{Bytes, BytesMut};

use super::Role;
use crate::flow::{ConnectionBudget, ReceiveWindow, SendWindow};
use crate::limits;
use crate::message::{Refuse, Stream};

/// The length from which a piece is queued for its reader without a copy, in bytes.
///
/// A piece keeps the whole buffer alive that it was read into, and a peer can arrange that it is
/// the only piece left in that buffer. So shorter ones are copied together.
const MIN_ZERO_COPY_PIECE: usize = 32 << 10;

/// The number of queued pieces up to which short ones are kept apart so that the order of both
/// outputs is known. Beyond it, they are copied together.
const MAX_ORDERED_PIECES: usize = 1024;

/// A stream that the peer sends.
#[derive(Debug)]
pub(super) struct Inbound {
    pub(super) window: ReceiveWindow,
    /// The number of interactive frames on all other channels when bytes were last consumed.
    pub(super) interactive_elsewhere: u64,
    pub(super) pieces: VecDeque<Piece>,
    pub(super) small: BytesMut,
    /// The value of [`Piece::after`] for `small`.
    small_after: u64,
    /// The value of [`Piece::after`] for the piece that was read last.
    pub(super) read_after: u64,
    pub(super) ended: bool,
    pub(super) stopped: bool,
}

/// Data that waits for its reader.
#[derive(Debug)]
pub(super) struct Piece {
    pub(super) bytes: Bytes,
    /// How many bytes had arrived on the other output of the command before.
    pub(super) after: u64,
}

impl Inbound {
    /// Queues data for the reader, which arrived after so many bytes on the other output.
    pub(super) fn push(&mut self, body: Bytes, after: u64) {
        if body.len() < MIN_ZERO_COPY_PIECE {
            if after != self.small_after && self.pieces.len() < MAX_ORDERED_PIECES {
                self.flush_small();
                self.small_after = after;
            }
            self.small.extend_from_slice(&body);
            return;
        }
        self.flush_small();
        self.pieces.push_back(Piece { bytes: body, after });
    }

    /// Makes the short pieces that were copied together one piece of the queue.
    pub(super) fn flush_small(&mut self) {
        if !self.small.is_empty() {
            let (bytes, after) = (self.small.split().freeze(), self.small_after);
            self.pieces.push_back(Piece { bytes, after });
        }
    }

    /// Discards what is queued, and everything that is still received.
    pub(super) fn stop(&mut self) {
        self.stopped = true;
        self.pieces.clear();
        self.small = BytesMut::new();
    }
}

/// A stream that this end sends.
#[derive(Debug)]
pub(super) struct Outbound {
    pub(super) window: SendWindow,
    pub(super) ended: bool,
    pub(super) stopped: bool,
}

/// A stream in either direction.
#[derive(Debug)]
pub(super) enum Half {
    Inbound(Inbound),
    Outbound(Outbound),
}

/// How far a channel has come (PROTOCOL.md, "Channels").
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Server: receiving the frames of its `open`.
    Assembling(BytesMut),
    /// Server: receiving the frames of an `open` that will be refused.
    Rejecting(Refuse),
    /// Opened: the command has not started yet.
    Opened,
    /// Opened to have its command explained: nothing is started.
    Explaining,
    /// The command is running.
    Started,
    /// The command has ended; its streams may still be open.
    Ended,
    /// Refused, explained or exited: the channel only holds its slot.
    Over,
}

/// One channel.
#[derive(Debug)]
pub(super) struct Channel {
    pub(super) phase: Phase,
    /// The number of interactive frames received on this channel.
    pub(super) interactive_frames: u64,
    /// Whether the last frame received was too long to be interactive.
    pub(super) bulk: bool,
    streams: [Half; 3],
}

impl Channel {
    /// Creates a channel; `interactive_frames` counts those of the whole connection so far.
    pub(super) fn new(
        role: Role,
        phase: Phase,
        budget: &ConnectionBudget,
        interactive_frames: u64,
    ) -> Self {
        let half = |stream| {
            let first_limit = match stream {
                Stream::Stdin => limits::FIRST_STDIN_LIMIT,
                Stream::Stdout | Stream::Stderr => limits::FIRST_OUTPUT_LIMIT,
            };
            if (stream == Stream::Stdin) == (role == Role::Server) {
                Half::Inbound(Inbound {
                    window: ReceiveWindow::new(first_limit, budget.clone()),
                    interactive_elsewhere: interactive_frames,
                    pieces: VecDeque::new(),
                    small: BytesMut::new(),
                    small_after: 0,
                    read_after: 0,
                    ended: false,
                    stopped: false,
                })
            } else {
                Half::Outbound(Outbound {
                    window: SendWindow::new(first_limit),
                    ended: false,
                    stopped: false,
                })
            }
        };
        Self {
            phase,
            interactive_frames: 0,
            bulk: false,
            streams: [half(Stream::Stdin), half(Stream::Stdout), half(Stream::Stderr)],
        }
    }

    /// Sets the output windows of a command with a terminal: small and fixed, as all output in
    /// flight is delivered before the echo of a key. Call it before anything is sent on the
    /// channel.
    pub(super) fn use_terminal_windows(&mut self, budget: &ConnectionBudget) {
        let limit = limits::FIRST_TERMINAL_LIMIT;
        for stream in [Stream::Stdout, Stream::Stderr] {
            match &mut self.streams[stream as usize] {
                Half::Inbound(inbound) => {
                    inbound.window = ReceiveWindow::fixed(limit, budget.clone())
                }
                Half::Outbound(outbound) => outbound.window = SendWindow::new(limit),
            }
        }
    }

    /// Ends a channel whose command was refused or explained, and both its output streams.
    pub(super) fn end_without_output(&mut self) {
        self.phase = Phase::Over;
        for stream in [Stream::Stdout, Stream::Stderr] {
            if let Some(inbound) = self.inbound(stream) {
                inbound.ended = true;
            }
        }
    }

    /// Returns the number of bytes received of an incomplete `open`.
    pub(super) fn assembled(&self) -> usize {
        match &self.phase {
            Phase::Assembling(parts) => parts.len(),
            _ => 0,
        }
    }

    /// Returns the stream if the peer sends it.
    pub(super) fn inbound(&mut self, stream: Stream) -> Option<&mut Inbound> {
        match &mut self.streams[stream as usize] {
            Half::Inbound(inbound) => Some(inbound),
            Half::Outbound(_) => None,
        }
    }

    /// Returns how many bytes were received on the other output of the command.
    pub(super) fn received_on_other(&mut self, stream: Stream) -> u64 {
        self.other_output(stream).map_or(0, |other| other.window.received())
    }

    /// Returns whether all output that arrived before the piece last read from this stream was
    /// passed on to its destination.
    pub(super) fn is_next(&mut self, stream: Stream) -> bool {
        let after = self.inbound(stream).map_or(0, |inbound| inbound.read_after);
        let other = self.other_output(stream);
        other.is_none_or(|other| other.stopped || other.window.consumed() >= after)
    }

    fn other_output(&mut self, stream: Stream) -> Option<&mut Inbound> {
        match stream {
            Stream::Stdin => None,
            Stream::Stdout => self.inbound(Stream::Stderr),
            Stream::Stderr => self.inbound(Stream::Stdout),
        }
    }

    /// Returns whether all received data was passed on to its destination.
    pub(super) fn all_consumed(&self) -> bool {
        self.streams.iter().all(|half| match half {
            Half::Inbound(inbound) => inbound.stopped || inbound.window.all_consumed(),
            Half::Outbound(_) => true,
        })
    }

    /// Returns the stream if this end sends it.
    pub(super) fn outbound(&mut self, stream: Stream) -> Option<&mut Outbound> {
        match &mut self.streams[stream as usize] {
            Half::Outbound(outbound) => Some(outbound),
            Half::Inbound(_) => None,
        }
    }

    /// Returns the number of bytes sent on a stream.
    pub(super) fn sent(&mut self, stream: Stream) -> u64 {
        self.outbound(stream).map_or(0, |outbound| outbound.window.sent())
    }
}
