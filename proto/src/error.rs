//! What can be wrong with a peer's bytes; each ends the connection.

use alloc::string::String;

use crate::kind::{ChannelId, Kind, Stream};

/// A violation of the protocol. The connection that carried it cannot go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    /// The header announces more than this side accepts at this point.
    #[error("a header announces {length} bytes of body, the limit here is {limit}")]
    BodyTooLong {
        /// What the header says.
        length: u32,
        /// What would have been accepted.
        limit: u32,
    },
    /// The kind is not one of this version's.
    #[error("unknown kind of message 0x{0:02x}")]
    UnknownKind(u8),
    /// A flag is set that this kind does not define.
    #[error("{kind} carries undefined flags 0x{flags:02x}")]
    UndefinedFlags {
        /// The kind of the frame.
        kind: Kind,
        /// All its flags.
        flags: u8,
    },
    /// The reserved bytes are not 0: very likely a lost boundary.
    #[error("reserved bytes of a header are 0x{0:04x}, not 0")]
    Reserved(u16),
    /// A message of the connection on a channel, or the reverse.
    #[error("{kind} on channel {channel}")]
    WrongChannel {
        /// The kind of the frame.
        kind: Kind,
        /// The channel it named.
        channel: ChannelId,
    },
    /// A message that only the other end may send.
    #[error("{0} came from the end that may not send it")]
    WrongDirection(Kind),
    /// A message that is not due in this state.
    #[error("{kind} is not due now: {expected}")]
    Unexpected {
        /// The kind of the frame.
        kind: Kind,
        /// What would have been in order.
        expected: &'static str,
    },
    /// A body that is not what its kind prescribes.
    #[error("malformed {kind}: {detail}")]
    Malformed {
        /// The kind of the frame.
        kind: Kind,
        /// What is wrong with it.
        detail: String,
    },
    /// Data frames carry at least one byte.
    #[error("empty {0}")]
    Empty(Kind),
    /// Channel ids strictly increase and are never used again.
    #[error("channel {channel} was opened already, the highest so far is {highest}")]
    ChannelReused {
        /// The id in the frame.
        channel: ChannelId,
        /// The highest id so far.
        highest: ChannelId,
    },
    /// A frame for a channel that was never opened.
    #[error("{kind} for channel {channel}, which was never opened")]
    NeverOpened {
        /// The kind of the frame.
        kind: Kind,
        /// The id in the frame.
        channel: ChannelId,
    },
    /// Far more channels than the limit that `welcome` announced.
    #[error("more than {0} channels at once")]
    TooManyChannels(u32),
    /// More data than the limit allowed.
    #[error("data on {stream} of channel {channel} up to {position}, past its limit {limit}")]
    PastLimit {
        /// The channel.
        channel: ChannelId,
        /// The stream.
        stream: Stream,
        /// The position that the data would have reached.
        position: u64,
        /// The limit in force.
        limit: u64,
    },
    /// A credit that goes back, or that claims what was never sent.
    #[error("impossible credit for {stream} of channel {channel}: {detail}")]
    Credit {
        /// The channel.
        channel: ChannelId,
        /// The stream.
        stream: Stream,
        /// Which rule it breaks.
        detail: &'static str,
    },
    /// Data or an end after the stream's end.
    #[error("{kind} after the end of {stream} on channel {channel}")]
    AfterEnd {
        /// The kind of the frame.
        kind: Kind,
        /// The channel.
        channel: ChannelId,
        /// The stream.
        stream: Stream,
    },
    /// The connection ended within a message.
    #[error("the connection ended {got} bytes into a message of {expected}")]
    Truncated {
        /// Bytes that had arrived, header included.
        got: usize,
        /// Bytes that the header announced, header included (or the header's own size).
        expected: usize,
    },
}
