//! Violations of the protocol by a peer; each ends the connection (PROTOCOL.md, "Errors").

use alloc::string::String;

use crate::kind::{ChannelId, Kind, Sender, Stream};

/// A violation of the protocol by the peer. It is fatal to the connection.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    /// A header announces a longer body than this side accepts in this state.
    #[error("a header announces a body of {length} bytes, over the limit of {limit}")]
    BodyTooLong {
        /// The length in the header, in bytes.
        length: u32,
        /// The limit in force, in bytes.
        limit: u32,
    },
    /// This version has no such kind.
    #[error("unknown message kind 0x{0:02x}")]
    UnknownKind(u8),
    /// A flag is set that the kind does not define.
    #[error("message `{kind}` has undefined flags 0x{flags:02x}")]
    UndefinedFlags {
        /// The kind of the frame.
        kind: Kind,
        /// All its flags.
        flags: u8,
    },
    /// The reserved bytes are not 0; probably a frame boundary was lost.
    #[error("the reserved bytes of a header are 0x{0:04x}, not 0")]
    Reserved(u16),
    /// A message of the connection on a channel, or the reverse.
    #[error("message `{kind}` is not allowed on channel {channel}")]
    WrongChannel {
        /// The kind of the frame.
        kind: Kind,
        /// The channel in its header.
        channel: ChannelId,
    },
    /// A message, or a stream in `eof`, `stop` or `credit`, that only the other end may send.
    #[error("unexpected message `{0}`: {sender}", sender = permitted_sender(*.0))]
    WrongDirection(Kind),
    /// A message that is not permitted in this state.
    #[error("unexpected message `{kind}`: {reason}")]
    Unexpected {
        /// The kind of the frame.
        kind: Kind,
        /// The state, or the message that it permits.
        reason: &'static str,
    },
    /// A body that does not match its kind's format.
    #[error("malformed message `{kind}`: {detail}")]
    Malformed {
        /// The kind of the frame.
        kind: Kind,
        /// How the body differs from the format.
        detail: String,
    },
    /// A data frame with an empty body.
    #[error("message `{0}` without data")]
    Empty(Kind),
    /// An `open` whose channel id is not greater than all before it.
    #[error("cannot open channel {channel}: its id must be greater than {highest}")]
    ChannelReused {
        /// The id in the frame.
        channel: ChannelId,
        /// The highest id so far.
        highest: ChannelId,
    },
    /// A frame for a channel that was never opened.
    #[error("message `{kind}` for channel {channel}, which was never opened")]
    NeverOpened {
        /// The kind of the frame.
        kind: Kind,
        /// The id in the frame.
        channel: ChannelId,
    },
    /// An `open` while twice as many channels are held as `welcome` permits.
    #[error("too many channels: the limit is {0}")]
    TooManyChannels(u32),
    /// Data past the limit of its stream.
    #[error("data on {stream} of channel {channel} up to {position}, past the limit {limit}")]
    PastLimit {
        /// The channel.
        channel: ChannelId,
        /// The stream.
        stream: Stream,
        /// The position after the frame's last byte.
        position: u64,
        /// The limit in force.
        limit: u64,
    },
    /// A credit that decreases, acknowledges data that was not sent, or opens too large a window.
    #[error("invalid credit for {stream} of channel {channel}: {detail}")]
    Credit {
        /// The channel.
        channel: ChannelId,
        /// The stream.
        stream: Stream,
        /// The rule that it breaks.
        detail: &'static str,
    },
    /// Data or an `eof` after the `eof` of its stream.
    #[error("message `{kind}` after the end of {stream} on channel {channel}")]
    AfterEnd {
        /// The kind of the frame.
        kind: Kind,
        /// The channel.
        channel: ChannelId,
        /// The stream.
        stream: Stream,
    },
    /// The connection ended within a frame.
    #[error("the connection ended {got} bytes into a message of {expected} bytes")]
    Truncated {
        /// Bytes received, including the header.
        got: usize,
        /// Bytes announced, including the header; the header's own size if it is incomplete.
        expected: usize,
    },
}

fn permitted_sender(kind: Kind) -> &'static str {
    match kind.sender() {
        Sender::Client => "only a client sends it",
        Sender::Server => "only a server sends it",
        Sender::Either => "only the other end sends it for this stream",
    }
}
