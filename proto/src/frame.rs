//! The fixed-size header in front of every message, and the decoder that finds messages in a stream
//! of bytes.
//!
//! TCP keeps the order of bytes and nothing else: what was sent in two writes may arrive in one
//! read, and the reverse. The header says how long its message is, so reads may be of any size
//! (PROTOCOL.md, "Frames").

use bytes::{Buf, Bytes, BytesMut};

use crate::error::ProtocolError;
pub use crate::kind::{ChannelId, Kind, Sender};
use crate::limits::HEADER_LENGTH;

/// The flag of `open`: another `open` frame continues this one.
pub const FLAG_MORE: u8 = 0x01;

/// The flag of `open`, on its last frame: say what would become of the command, and start nothing.
pub const FLAG_EXPLAIN: u8 = 0x02;

/// The flag of stdin, stdout and stderr: this frame uses up the credit, so credit is what the
/// sender waits for.
pub const FLAG_LIMITED: u8 = 0x01;

/// A header whose every field has been checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Bytes of body that follow.
    pub length: u32,
    /// What the body is.
    pub kind: Kind,
    /// Defined by kind, otherwise 0.
    pub flags: u8,
    /// The command it belongs to.
    pub channel: ChannelId,
}

impl Header {
    /// The twelve bytes, in network byte order.
    pub fn encode(self) -> [u8; HEADER_LENGTH] {
        let mut bytes = [0; HEADER_LENGTH];
        bytes[0..4].copy_from_slice(&self.length.to_be_bytes());
        bytes[4] = self.kind as u8;
        bytes[5] = self.flags;
        bytes[8..12].copy_from_slice(&self.channel.0.to_be_bytes());
        bytes
    }

    /// Checks twelve bytes against the rules for headers and the limit on bodies in force.
    pub fn decode(bytes: &[u8; HEADER_LENGTH], body_limit: u32) -> Result<Self, ProtocolError> {
        let [l0, l1, l2, l3, kind, flags, r0, r1, c0, c1, c2, c3] = *bytes;
        let reserved = u16::from_be_bytes([r0, r1]);
        if reserved != 0 {
            return Err(ProtocolError::Reserved(reserved));
        }
        let kind = Kind::from_code(kind).ok_or(ProtocolError::UnknownKind(kind))?;
        let length = u32::from_be_bytes([l0, l1, l2, l3]);
        if length > body_limit {
            return Err(ProtocolError::BodyTooLong { length, limit: body_limit });
        }
        if flags & !kind.defined_flags() != 0 {
            return Err(ProtocolError::UndefinedFlags { kind, flags });
        }
        let channel = ChannelId(u32::from_be_bytes([c0, c1, c2, c3]));
        if !kind.fits(channel) {
            return Err(ProtocolError::WrongChannel { kind, channel });
        }
        Ok(Self { length, kind, flags, channel })
    }
}

/// One message: its header's fields and its body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// What the body is.
    pub kind: Kind,
    /// Defined by kind, otherwise 0.
    pub flags: u8,
    /// The command it belongs to.
    pub channel: ChannelId,
    /// The body, at most [`MAX_BODY`](crate::limits::MAX_BODY) bytes.
    pub body: Bytes,
}

impl Frame {
    /// A frame without flags.
    pub fn new(kind: Kind, channel: ChannelId, body: impl Into<Bytes>) -> Self {
        Self { kind, flags: 0, channel, body: body.into() }
    }

    /// The header that goes in front of the body.
    pub fn header(&self) -> Header {
        Header {
            // Bodies are bounded by BODY wherever frames are made.
            length: self.body.len() as u32,
            kind: self.kind,
            flags: self.flags,
            channel: self.channel,
        }
    }
}

/// Finds frames in a stream of bytes that arrives in pieces of any size.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: BytesMut,
}

impl Decoder {
    /// The buffer that received bytes are appended to.
    pub fn buffer(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    /// The next whole frame, or `None` until more bytes have arrived.
    ///
    /// One frame a call, judged by the limit of that call: what a client sends behind its
    /// `response` must not be judged by the limit before authentication. A bad header is reported
    /// as soon as its twelve bytes are there.
    pub fn next_frame(&mut self, body_limit: u32) -> Result<Option<Frame>, ProtocolError> {
        let Some(bytes) = self.buffer.first_chunk::<HEADER_LENGTH>() else { return Ok(None) };
        let header = Header::decode(bytes, body_limit)?;
        let length = header.length as usize;
        if self.buffer.len() < HEADER_LENGTH + length {
            return Ok(None);
        }
        self.buffer.advance(HEADER_LENGTH);
        let body = self.buffer.split_to(length).freeze();
        Ok(Some(Frame { kind: header.kind, flags: header.flags, channel: header.channel, body }))
    }

    /// Whether a whole frame is there, so that [`Self::next_frame`] has an answer.
    pub fn has_next(&self) -> bool {
        let announced =
            self.buffer.first_chunk::<4>().map(|length| u32::from_be_bytes(*length) as usize);
        let body = self.buffer.len().checked_sub(HEADER_LENGTH);
        announced.zip(body).is_some_and(|(length, body)| body >= length)
    }

    /// Called when the stream has ended: an error unless it ended between two messages.
    pub fn finish(&self) -> Result<(), ProtocolError> {
        let got = self.buffer.len();
        if got == 0 {
            return Ok(());
        }
        let announced =
            self.buffer.first_chunk::<4>().map_or(0, |length| u32::from_be_bytes(*length) as usize);
        let expected = if got < HEADER_LENGTH { HEADER_LENGTH } else { HEADER_LENGTH + announced };
        Err(ProtocolError::Truncated { got, expected })
    }
}

/// Cuts a text that is sent to people at so many bytes, on a character boundary.
pub(crate) fn cut(text: &str, limit: usize) -> &str {
    &text[..text.floor_char_boundary(limit)]
}
