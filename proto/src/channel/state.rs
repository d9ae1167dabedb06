//! What is remembered of one channel: its phase, and how far each of its streams has come.

use alloc::collections::VecDeque;

use bytes::{Bytes, BytesMut};

use super::Role;
use crate::flow::{Growth, ReceiveWindow, SendWindow};
use crate::limits;
use crate::message::{Refuse, Stream};

/// Pieces shorter than this are copied together while they wait for their reader: each holds the
/// whole buffer that it was read into, and a peer could make each the only one of its buffer that
/// is kept.
const SMALL_PIECE: usize = 32 << 10;

#[derive(Debug)]
pub(super) struct Inbound {
    pub(super) window: ReceiveWindow,
    /// What the other channels had said when bytes were last handed on.
    pub(super) others: u64,
    pub(super) pieces: VecDeque<Bytes>,
    pub(super) small: BytesMut,
    pub(super) ended: bool,
    pub(super) stopped: bool,
}

impl Inbound {
    pub(super) fn push(&mut self, body: Bytes) {
        if body.len() < SMALL_PIECE {
            self.small.extend_from_slice(&body);
            return;
        }
        self.settle();
        self.pieces.push_back(body);
    }

    pub(super) fn settle(&mut self) {
        if !self.small.is_empty() {
            self.pieces.push_back(self.small.split().freeze());
        }
    }

    pub(super) fn discard(&mut self) {
        self.stopped = true;
        self.pieces.clear();
        self.small = BytesMut::new();
    }
}

#[derive(Debug)]
pub(super) struct Outbound {
    pub(super) window: SendWindow,
    pub(super) ended: bool,
    pub(super) stopped: bool,
}

#[derive(Debug)]
pub(super) enum Half {
    Inbound(Inbound),
    Outbound(Outbound),
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Server: more frames of `open` are to come.
    Assembling(BytesMut),
    /// Server: as before, but it will be refused with this.
    Rejecting(Refuse),
    /// Opened; the client does not know yet what became of it.
    Opened,
    /// Asked about: nothing will be started.
    Asked,
    /// Runs.
    Started,
    /// The command itself is over, its streams are not.
    Ended,
    /// Refused or exited; only the slot is left.
    Over,
}

#[derive(Debug)]
pub(super) struct Channel {
    pub(super) phase: Phase,
    /// How many of the connection's short frames were its own.
    pub(super) words: u64,
    /// Whether the last frame that came was too long for a word.
    pub(super) bulk: bool,
    streams: [Half; 3],
}

impl Channel {
    pub(super) fn new(role: Role, phase: Phase, growth: &Growth, said: u64) -> Self {
        let half = |stream| {
            let first_limit = match stream {
                Stream::Stdin => limits::FIRST_STDIN_LIMIT,
                Stream::Stdout | Stream::Stderr => limits::FIRST_OUTPUT_LIMIT,
            };
            if (stream == Stream::Stdin) == (role == Role::Server) {
                Half::Inbound(Inbound {
                    window: ReceiveWindow::new(first_limit, growth.clone()),
                    others: said,
                    pieces: VecDeque::new(),
                    small: BytesMut::new(),
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
            words: 0,
            bulk: false,
            streams: [half(Stream::Stdin), half(Stream::Stdout), half(Stream::Stderr)],
        }
    }

    /// Its command is given a terminal: what is under way of its output stays little, so that the
    /// answer to a key is never far behind it. Before anything is sent on it.
    pub(super) fn give_terminal(&mut self, growth: &Growth) {
        let limit = limits::FIRST_TERMINAL_LIMIT;
        for stream in [Stream::Stdout, Stream::Stderr] {
            match &mut self.streams[stream as usize] {
                Half::Inbound(inbound) => {
                    inbound.window = ReceiveWindow::fixed(limit, growth.clone())
                }
                Half::Outbound(outbound) => outbound.window = SendWindow::new(limit),
            }
        }
    }

    /// Refused or answered: no output comes.
    pub(super) fn end(&mut self) {
        self.phase = Phase::Over;
        for stream in [Stream::Stdout, Stream::Stderr] {
            self.inbound(stream).into_iter().for_each(|inbound| inbound.ended = true);
        }
    }

    /// Bytes of an `open` that is not complete yet.
    pub(super) fn assembled(&self) -> usize {
        match &self.phase {
            Phase::Assembling(parts) => parts.len(),
            _ => 0,
        }
    }

    pub(super) fn inbound(&mut self, stream: Stream) -> Option<&mut Inbound> {
        match &mut self.streams[stream as usize] {
            Half::Inbound(inbound) => Some(inbound),
            Half::Outbound(_) => None,
        }
    }

    /// Whether nothing that came waits for its reader.
    pub(super) fn all_consumed(&self) -> bool {
        self.streams.iter().all(|half| match half {
            Half::Inbound(inbound) => inbound.stopped || inbound.window.all_consumed(),
            Half::Outbound(_) => true,
        })
    }

    pub(super) fn outbound(&mut self, stream: Stream) -> Option<&mut Outbound> {
        match &mut self.streams[stream as usize] {
            Half::Outbound(outbound) => Some(outbound),
            Half::Inbound(_) => None,
        }
    }

    pub(super) fn sent(&mut self, stream: Stream) -> u64 {
        self.outbound(stream).map_or(0, |outbound| outbound.window.sent())
    }
}
