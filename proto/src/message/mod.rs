//! The bodies of control messages, field by field as PROTOCOL.md's tables have them.

mod open;
mod welcome;

use alloc::borrow::ToOwned;
use alloc::string::String;
use core::fmt;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

pub use self::open::{BadCommand, Open, Program, Terminal, Until, Variable};
pub use self::welcome::Welcome;
use crate::error::ProtocolError;
use crate::frame::{ChannelId, Frame, Kind, cut};
pub use crate::kind::Stream;
use crate::limits::{MAX_TEXT, MAX_TEXT_BEFORE_AUTHENTICATION};
use crate::wire;

macro_rules! opaque {
    ($($(#[$doc:meta])* $name:ident($size:literal);)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub struct $name(pub [u8; $size]);

        impl fmt::Debug for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(formatter, "{}({self})", stringify!($name))
            }
        }

        impl fmt::Display for $name {
            /// Lower-case hexadecimal digits.
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(formatter, "{byte:02x}"))
            }
        }
    )*};
}

opaque! {
    /// 32 random bytes, used once.
    Nonce(32);
    /// An HMAC-SHA256 over the transcript of a handshake; compare it only with [`crate::auth`].
    Proof(32);
    /// The pseudonym of a pair of key and host.
    Name(16);
    /// One run of one server; a new one after each restart.
    InstanceId(16);
    /// A command's id, chosen by the client, so that a retry can be recognised.
    CommandId(16);
}

/// Capabilities beyond this version's base, one bit each; unknown bits are ignored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Features(pub u64);

impl Features {
    /// Commands may be given a terminal (`open.terminal`, `resize`).
    pub const TERMINAL: Self = Self(1 << 0);
    /// Commands may outlive their connection (`open.linger`).
    pub const LINGER: Self = Self(1 << 1);
    /// A connection may take up commands of an earlier one.
    pub const RESUME: Self = Self(1 << 2);
    /// An `open` may ask what would become of its command (`explained`).
    pub const EXPLAIN: Self = Self(1 << 3);
    /// `welcome` says which version answers; a server announces it to clients that have.
    pub const VERSION: Self = Self(1 << 4);
    /// What this code can do beyond the base.
    pub const SUPPORTED: Self = Self(Self::TERMINAL.0 | Self::EXPLAIN.0 | Self::VERSION.0);

    /// Whether all of `other`'s bits are set.
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// The same with all of `other`'s bits set, or with none of them.
    pub fn with(self, other: Self, set: bool) -> Self {
        if set { Self(self.0 | other.0) } else { Self(self.0 & !other.0) }
    }
}

/// `challenge`: the first message on every connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Challenge {
    /// Fresh for each connection.
    pub server_nonce: Nonce,
}

/// `response`: who the client is, and the proof.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Response {
    /// Which key and host this is about.
    pub name: Name,
    /// Fresh for each connection.
    pub client_nonce: Nonce,
    /// What the client can do.
    pub features: Features,
    /// Under the client-proof key.
    pub proof: Proof,
}

/// Why something was refused. Codes that this version does not know pass through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefuseCode(pub u16);

macro_rules! refuse_codes {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $text:literal;)*) => {
        impl RefuseCode {
            $($(#[$doc])* pub const $name: Self = Self($code);)*

            /// A word for programs; "other" for codes that this version does not know.
            pub fn name(self) -> &'static str {
                match self.0 { $($code => $text,)* _ => "other" }
            }
        }
    };
}

refuse_codes! {
    /// Connection: the proof was wrong, or the key unknown; which of the two is not said.
    AUTHENTICATION = 1, "authentication";
    /// Connection: the key is known, but not from this source, no longer, or not for this user.
    NOT_PERMITTED = 2, "not-permitted";
    /// Connection: a limit on connections or descriptors is reached.
    BUSY = 3, "busy";
    /// Connection or command: the server is stopping.
    STOPPING = 4, "stopping";
    /// Connection: the peer broke the protocol.
    PROTOCOL = 5, "protocol";
    /// Connection: the deadline for authentication has passed.
    DEADLINE = 6, "deadline";
    /// Command: this connection holds as many channels as it may.
    TOO_MANY_CHANNELS = 16, "too-many-channels";
    /// Command: longer than a limit, or not a command at all.
    BAD_COMMAND = 17, "bad-command";
    /// Command: an environment variable that the configuration does not allow.
    ENVIRONMENT = 18, "environment";
    /// Command: the working directory cannot be entered.
    DIRECTORY = 19, "directory";
    /// Command: no such program.
    NOT_FOUND = 20, "not-found";
    /// Command: the program cannot be executed.
    NOT_EXECUTABLE = 21, "not-executable";
    /// Command: the machine lacks processes, memory or descriptors.
    RESOURCES = 22, "resources";
    /// Command: it needs a feature that this server did not announce.
    UNSUPPORTED = 23, "unsupported";
    /// Command: the server failed; its log says more.
    INTERNAL = 24, "internal";
    /// Command: it expects to run as another user than it would.
    USER = 25, "user";
    /// Command: no such subsystem is configured.
    SUBSYSTEM = 26, "subsystem";
}

/// `refuse`: nothing was started; why, and what to do next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refuse {
    /// For programs.
    pub code: RefuseCode,
    /// For people: what is wrong.
    pub reason: String,
    /// For people: what to do next; may be empty.
    pub remedy: String,
}

impl Refuse {
    /// A refusal; texts over [`MAX_TEXT`] bytes are cut.
    pub fn new(code: RefuseCode, reason: impl AsRef<str>, remedy: impl AsRef<str>) -> Self {
        Self {
            code,
            reason: cut(reason.as_ref(), MAX_TEXT).to_owned(),
            remedy: cut(remedy.as_ref(), MAX_TEXT).to_owned(),
        }
    }

    /// The same, short enough for a client that has not authenticated the server yet.
    pub fn before_authentication(&self) -> Self {
        let short = |text| cut(text, MAX_TEXT_BEFORE_AUTHENTICATION).to_owned();
        Self { code: self.code, reason: short(&self.reason), remedy: short(&self.remedy) }
    }
}

/// `ping` and `pong`: the answer repeats the question's token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ping {
    /// Chosen by the asker.
    pub token: u64,
}

/// `goodbye`: the sender sends nothing after this.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Goodbye {
    /// For people; empty when all is well.
    pub reason: String,
}

impl Goodbye {
    /// A goodbye; a reason over [`MAX_TEXT`] bytes is cut.
    pub fn new(reason: impl AsRef<str>) -> Self {
        Self { reason: cut(reason.as_ref(), MAX_TEXT).to_owned() }
    }
}

/// `started`: the program runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Started {
    /// Its process id on that machine.
    pub pid: u32,
}

/// `resize`: a terminal's size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resize {
    /// Characters in a line.
    pub columns: u16,
    /// Lines.
    pub rows: u16,
    /// Pixels across, 0 where unknown.
    pub width: u16,
    /// Pixels down, 0 where unknown.
    pub height: u16,
}

/// `eof`: the sender of this stream has sent its last byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Eof {
    /// The stream that has ended.
    pub stream: Stream,
}

/// `stop`: the receiver of this stream has gone; its sender closes its end of the pipe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stop {
    /// The stream that nobody reads.
    pub stream: Stream,
}

/// `credit`: two positions in a stream, counted in bytes from its start; neither ever goes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credit {
    /// The stream that the receiver speaks of.
    pub stream: Stream,
    /// Up to here the receiver has handed the bytes on for good.
    pub consumed: u64,
    /// Up to here the sender may send.
    pub limit: u64,
}

/// `signal`: for the command's whole process group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signal {
    /// The signal's number on Linux (signal(7)), 1 to 31.
    pub number: u8,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Status {
    /// It exited with this code.
    Exited(u8),
    /// A signal ended it.
    Signaled {
        /// The signal's number on Linux (signal(7)).
        signal: u8,
        /// Whether it left a core file.
        core_dumped: bool,
    },
}

/// `ended`: the command itself is over; its streams may still be held open by others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// How it ended.
    pub status: Status,
}

/// What a command used, as wait4(2) and the clock know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Usage {
    /// From its start to its end, in microseconds.
    pub wall: u64,
    /// Processor time in user mode, in microseconds.
    pub user: u64,
    /// Processor time in the kernel, in microseconds.
    pub system: u64,
    /// The largest resident set, in bytes.
    pub peak_memory: u64,
}

/// `exit`: the last message of a command, after the last byte of both its streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// How it ended.
    pub status: Status,
    /// Whether the server ended it because its time was up.
    pub timed_out: bool,
    /// All bytes that were sent on stdout.
    pub stdout: u64,
    /// All bytes that were sent on stderr.
    pub stderr: u64,
    /// What it used.
    pub usage: Usage,
}

/// A control body: a type that travels encoded, behind a header of one kind.
pub trait Body: Serialize + DeserializeOwned {
    /// The kind in the header.
    const KIND: Kind;

    /// The frame that carries it.
    fn frame(&self, channel: ChannelId) -> Frame {
        // These bodies are bounded far below the limit, so encoding cannot fail.
        let body = wire::encode(self).unwrap_or_default();
        Frame::new(Self::KIND, channel, body)
    }

    /// Decodes and checks the body of a frame of this kind.
    fn from_frame(frame: &Frame) -> Result<Self, ProtocolError> {
        let malformed = |detail| ProtocolError::Malformed { kind: frame.kind, detail };
        if frame.kind != Self::KIND {
            return Err(ProtocolError::Unexpected {
                kind: frame.kind,
                reason: Self::KIND.expected(),
            });
        }
        let body: Self = wire::decode(&frame.body).map_err(malformed)?;
        body.bounds().map_err(|detail| malformed(detail.to_owned()))?;
        Ok(body)
    }

    /// Bounds on values that the types alone do not express.
    fn bounds(&self) -> Result<(), &'static str> {
        Ok(())
    }
}

macro_rules! bodies {
    ($($name:ident),*) => { $(impl Body for $name { const KIND: Kind = Kind::$name; })* };
}

bodies!(Challenge, Response, Ping, Started, Eof, Stop, Credit, Resize, Ended, Exit);

/// `pong`: the answer to a [`Ping`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pong {
    /// The question's token.
    pub token: u64,
}

bodies!(Pong);

impl Body for Refuse {
    const KIND: Kind = Kind::Refuse;

    fn bounds(&self) -> Result<(), &'static str> {
        if self.reason.len().max(self.remedy.len()) > MAX_TEXT {
            Err("a text is longer than 2,048 bytes")
        } else {
            Ok(())
        }
    }
}

impl Body for Goodbye {
    const KIND: Kind = Kind::Goodbye;

    fn bounds(&self) -> Result<(), &'static str> {
        if self.reason.len() > MAX_TEXT { Err("a text is longer than 2,048 bytes") } else { Ok(()) }
    }
}

impl Body for Signal {
    const KIND: Kind = Kind::Signal;

    fn bounds(&self) -> Result<(), &'static str> {
        if (1..=31).contains(&self.number) {
            Ok(())
        } else {
            Err("the signal number is not in 1 to 31")
        }
    }
}
