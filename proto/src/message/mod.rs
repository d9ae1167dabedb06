//! The bodies of control messages, with the fields of PROTOCOL.md's tables.

mod open;
mod welcome;

use alloc::borrow::ToOwned;
use alloc::string::String;
use core::fmt;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

pub use self::open::{BadCommand, EncodedOpen, Open, Program, Terminal, Until, Variable};
pub use self::welcome::Welcome;
use crate::error::ProtocolError;
use crate::frame::{ChannelId, Frame, Kind, truncate};
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
    /// The identifier of a pair of key and host on the wire.
    Name(16);
    /// The id of one server process; each restart has a new one.
    InstanceId(16);
    /// The id of a command, chosen by the client, so that a retry can be recognised.
    CommandId(16);
}

/// Optional features of the protocol, one bit each; unknown bits are ignored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Features(pub u64);

impl Features {
    /// Commands may have a terminal (`open.terminal`, `resize`).
    pub const TERMINAL: Self = Self(1 << 0);
    /// Commands may outlive their connection (`open.linger`).
    pub const LINGER: Self = Self(1 << 1);
    /// A connection may attach to commands of an earlier one.
    pub const RESUME: Self = Self(1 << 2);
    /// An `open` may ask how its command would run (`explained`).
    pub const EXPLAIN: Self = Self(1 << 3);
    /// `welcome` contains the server's version, if the client has announced this feature.
    pub const VERSION: Self = Self(1 << 4);
    /// The features that this version supports.
    pub const SUPPORTED: Self = Self(Self::TERMINAL.0 | Self::EXPLAIN.0 | Self::VERSION.0);

    /// Returns whether all bits of `other` are set.
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Returns these features with all bits of `other` set or cleared.
    pub fn with(self, other: Self, set: bool) -> Self {
        if set { Self(self.0 | other.0) } else { Self(self.0 & !other.0) }
    }
}

/// `challenge`: the first message of every connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Challenge {
    /// Fresh for each connection.
    pub server_nonce: Nonce,
}

/// `response`: the client's identity and proof.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Response {
    /// The pair of key and host.
    pub name: Name,
    /// Fresh for each connection.
    pub client_nonce: Nonce,
    /// The features of the client.
    pub features: Features,
    /// The client's proof.
    pub proof: Proof,
}

/// The reason of a refusal, for programs. Codes that this version does not know are preserved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefuseCode(pub u16);

macro_rules! refuse_codes {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $text:literal;)*) => {
        impl RefuseCode {
            $($(#[$doc])* pub const $name: Self = Self($code);)*

            /// Returns the code's name for programs, `other` for unknown codes.
            pub fn name(self) -> &'static str {
                match self.0 { $($code => $text,)* _ => "other" }
            }
        }
    };
}

refuse_codes! {
    /// Connection: the proof was wrong or the key is unknown; it is not stated which.
    AUTHENTICATION = 1, "authentication";
    /// Connection or command: the key is known, but not permitted from this source, at this time,
    /// or for its user.
    NOT_PERMITTED = 2, "not-permitted";
    /// Connection: a limit on connections or descriptors is reached.
    BUSY = 3, "busy";
    /// Connection or command: the server is stopping.
    STOPPING = 4, "stopping";
    /// Connection: the peer broke the protocol.
    PROTOCOL = 5, "protocol";
    /// Connection: the deadline for authentication has passed.
    DEADLINE = 6, "deadline";
    /// Command: all slots of this connection are taken.
    TOO_MANY_CHANNELS = 16, "too-many-channels";
    /// Command: longer than a limit, or a command that cannot be executed.
    BAD_COMMAND = 17, "bad-command";
    /// Command: the server's configuration does not allow an environment variable.
    ENVIRONMENT = 18, "environment";
    /// Command: the working directory cannot be entered.
    DIRECTORY = 19, "directory";
    /// Command: no such program.
    NOT_FOUND = 20, "not-found";
    /// Command: the program cannot be executed.
    NOT_EXECUTABLE = 21, "not-executable";
    /// Command: the machine lacks processes, memory or descriptors.
    RESOURCES = 22, "resources";
    /// Command: it needs a feature that is not in effect.
    UNSUPPORTED = 23, "unsupported";
    /// Command: the server failed; its log has details.
    INTERNAL = 24, "internal";
    /// Command: it would run as another user than the client expects.
    USER = 25, "user";
    /// Command: the server's configuration has no such subsystem.
    SUBSYSTEM = 26, "subsystem";
    /// Command: `open.timeout` had passed before it had started.
    TIMED_OUT = 27, "timed-out";
    /// Command: it did not start within a limit of the server.
    NOT_STARTED = 28, "not-started";
}

/// `refuse`: nothing was started.
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
    /// Creates a refusal; texts over [`MAX_TEXT`] bytes are truncated.
    pub fn new(code: RefuseCode, reason: impl AsRef<str>, remedy: impl AsRef<str>) -> Self {
        Self {
            code,
            reason: truncate(reason.as_ref(), MAX_TEXT).to_owned(),
            remedy: truncate(remedy.as_ref(), MAX_TEXT).to_owned(),
        }
    }

    /// Returns the refusal with texts short enough for a frame before authentication.
    pub fn before_authentication(&self) -> Self {
        let short = |text| truncate(text, MAX_TEXT_BEFORE_AUTHENTICATION).to_owned();
        Self { code: self.code, reason: short(&self.reason), remedy: short(&self.remedy) }
    }
}

/// `ping`: a request for a sign of life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ping {
    /// A token that the answer repeats.
    pub token: u64,
}

/// `goodbye`: the sender sends nothing after this frame.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Goodbye {
    /// For people; empty if there is no error.
    pub reason: String,
}

impl Goodbye {
    /// Creates a goodbye; a reason over [`MAX_TEXT`] bytes is truncated.
    pub fn new(reason: impl AsRef<str>) -> Self {
        Self { reason: truncate(reason.as_ref(), MAX_TEXT).to_owned() }
    }
}

/// `started`: the command is running.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Started {
    /// The process id of the command on its host.
    pub pid: u32,
}

/// `resize`: a terminal's size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resize {
    /// Width in characters.
    pub columns: u16,
    /// Height in lines.
    pub rows: u16,
    /// Width in pixels; 0 if unknown.
    pub width: u16,
    /// Height in pixels; 0 if unknown.
    pub height: u16,
}

/// `eof`: the last byte of a stream was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Eof {
    /// The stream that has ended.
    pub stream: Stream,
}

/// `stop`: a stream has no reader any more; the end that sends it closes its end of the pipe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stop {
    /// The stream without a reader.
    pub stream: Stream,
}

/// `credit`: two positions in a stream, in bytes from its start. Neither ever decreases.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credit {
    /// The stream.
    pub stream: Stream,
    /// The position up to which the receiver has passed the bytes on to their destination.
    pub consumed: u64,
    /// The position up to which the sender may send.
    pub limit: u64,
}

/// `signal`: a signal for the process group of the command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signal {
    /// The signal's number on Linux (signal(7)), 1 to 31.
    pub number: u8,
}

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Status {
    /// It exited with this code.
    Exited(u8),
    /// A signal terminated it.
    Signaled {
        /// The signal's number on Linux (signal(7)).
        signal: u8,
        /// Whether it dumped core.
        core_dumped: bool,
    },
}

/// `ended`: the command has ended; other processes may still hold its streams open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// How it ended.
    pub status: Status,
}

/// The resource usage of a command (wait4(2)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Usage {
    /// The time from its start to its end, in microseconds.
    pub wall: u64,
    /// Processor time in user mode, in microseconds.
    pub user: u64,
    /// Processor time in the kernel, in microseconds.
    pub system: u64,
    /// Its largest resident set, in bytes.
    pub peak_memory: u64,
}

/// `exit`: the last message of a command, after the last byte of both output streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// How it ended.
    pub status: Status,
    /// Whether the server ended it because `open.timeout` had passed.
    pub timed_out: bool,
    /// The number of bytes sent on stdout.
    pub stdout: u64,
    /// The number of bytes sent on stderr.
    pub stderr: u64,
    /// Its resource usage.
    pub usage: Usage,
}

/// The body of a control message of one kind.
pub trait Body: Serialize + DeserializeOwned {
    /// The kind of the message.
    const KIND: Kind;

    /// Encodes the body into a frame.
    fn frame(&self, channel: ChannelId) -> Frame {
        // Encoding fails only over 1 MiB, and these bodies are far smaller.
        let body = wire::encode(self).unwrap_or_default();
        Frame::new(Self::KIND, channel, body)
    }

    /// Decodes and checks the body of a frame, which must be of this kind.
    fn from_frame(frame: &Frame) -> Result<Self, ProtocolError> {
        let malformed = |detail| ProtocolError::Malformed { kind: frame.kind, detail };
        if frame.kind != Self::KIND {
            return Err(ProtocolError::Unexpected {
                kind: frame.kind,
                reason: Self::KIND.expected(),
            });
        }
        let body: Self = wire::decode(&frame.body).map_err(malformed)?;
        body.check_values().map_err(|detail| malformed(detail.to_owned()))?;
        Ok(body)
    }

    /// Checks bounds on values that the types do not express.
    fn check_values(&self) -> Result<(), &'static str> {
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
    /// The token of the ping.
    pub token: u64,
}

bodies!(Pong);

impl Body for Refuse {
    const KIND: Kind = Kind::Refuse;

    fn check_values(&self) -> Result<(), &'static str> {
        if self.reason.len().max(self.remedy.len()) > MAX_TEXT {
            Err("a text is longer than 2,048 bytes")
        } else {
            Ok(())
        }
    }
}

impl Body for Goodbye {
    const KIND: Kind = Kind::Goodbye;

    fn check_values(&self) -> Result<(), &'static str> {
        if self.reason.len() > MAX_TEXT { Err("a text is longer than 2,048 bytes") } else { Ok(()) }
    }
}

impl Body for Signal {
    const KIND: Kind = Kind::Signal;

    fn check_values(&self) -> Result<(), &'static str> {
        if (1..=31).contains(&self.number) {
            Ok(())
        } else {
            Err("the signal number is not in 1 to 31")
        }
    }
}
