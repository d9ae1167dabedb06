//! Frames: a header of fixed size and a body, and the decoder that finds them in a stream of bytes.
//!
//! TCP preserves the order of bytes, but not the boundaries of writes: the data of two writes may
//! arrive in one read, and the reverse. The header contains the length of the body, so reads may
//! be of any size (PROTOCOL.md, "Frames").

use bytes::{Buf, Bytes, BytesMut};

use crate::error::ProtocolError;
pub use crate::kind::{ChannelId, Kind, Sender};
use crate::limits::HEADER_LENGTH;

/// Flag of `open`: another `open` frame continues this one.
pub const FLAG_MORE: u8 = 0x01;

/// Flag of the last frame of an `open`: explain how the command would run, and start nothing.
pub const FLAG_EXPLAIN: u8 = 0x02;

/// Flag of data frames: the last byte is at the limit, so that the sender now waits for credit.
pub const FLAG_LIMITED: u8 = 0x01;

/// A header with valid fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// The length of the body, in bytes.
    pub length: u32,
    /// The kind of the message.
    pub kind: Kind,
    /// The flags that the kind defines; all others are 0.
    pub flags: u8,
    /// The channel of the command, or 0.
    pub channel: ChannelId,
}

impl Header {
    /// Encodes the header, in network byte order.
    pub fn encode(self) -> [u8; HEADER_LENGTH] {
        let mut bytes = [0; HEADER_LENGTH];
        bytes[0..4].copy_from_slice(&self.length.to_be_bytes());
        bytes[4] = self.kind as u8;
        bytes[5] = self.flags;
        bytes[8..12].copy_from_slice(&self.channel.0.to_be_bytes());
        bytes
    }

    /// Decodes and checks a header; `body_limit` is the longest body that is permitted now.
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

/// One message: the fields of its header, and its body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// The kind of the message.
    pub kind: Kind,
    /// The flags that the kind defines; all others are 0.
    pub flags: u8,
    /// The channel of the command, or 0.
    pub channel: ChannelId,
    /// The body, at most [`MAX_BODY`](crate::limits::MAX_BODY) bytes.
    pub body: Bytes,
}

impl Frame {
    /// Creates a frame without flags.
    pub fn new(kind: Kind, channel: ChannelId, body: impl Into<Bytes>) -> Self {
        Self { kind, flags: 0, channel, body: body.into() }
    }

    /// Returns the header of this frame.
    pub fn header(&self) -> Header {
        Header {
            // No code makes a frame with a body over MAX_BODY.
            length: self.body.len() as u32,
            kind: self.kind,
            flags: self.flags,
            channel: self.channel,
        }
    }
}

/// Finds the frames in a stream of bytes, which arrives in pieces of any size.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: BytesMut,
}

impl Decoder {
    /// Returns the buffer to append received bytes to.
    pub fn buffer(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    /// Returns the next frame, or `None` if it is not complete yet. An invalid header is an error
    /// as soon as its twelve bytes have arrived.
    ///
    /// The limit applies only to this frame: frames that follow a client's `response` must not be
    /// checked against the limit before authentication.
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

    /// Returns whether the next frame is complete.
    pub fn has_next(&self) -> bool {
        let announced =
            self.buffer.first_chunk::<4>().map(|length| u32::from_be_bytes(*length) as usize);
        let body = self.buffer.len().checked_sub(HEADER_LENGTH);
        announced.zip(body).is_some_and(|(length, body)| body >= length)
    }

    /// Checks that the stream, which has ended, ended between two frames.
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

/// Truncates a text to at most `limit` bytes, at a character boundary.
pub(crate) fn truncate(text: &str, limit: usize) -> &str {
    &text[..text.floor_char_boundary(limit)]
}
