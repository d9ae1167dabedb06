//! The fields of messages: numbers in big-endian order, bytes and texts that follow their length.

use crate::Error;
use crate::name::{MAX_PATH_BYTES, Name, Placement, RelativePath};
use crate::wire::{Digest, Time};

/// The longest text, in bytes.
const MAX_TEXT_BYTES: usize = 1024;

pub(crate) fn put_u32(out: &mut Vec<u8>, number: u32) {
    out.extend_from_slice(&number.to_be_bytes());
}

pub(crate) fn put_u64(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(&number.to_be_bytes());
}

pub(crate) fn put_time(out: &mut Vec<u8>, time: Time) {
    out.extend_from_slice(&time.seconds.to_be_bytes());
    put_u32(out, time.nanoseconds);
}

/// Writes at most 65,535 bytes, which exceeds every name and path.
pub(crate) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    let bytes = &bytes[..bytes.len().min(u16::MAX.into())];
    out.extend_from_slice(&(bytes.len() as u16).to_be_bytes());
    out.extend_from_slice(bytes);
}

pub(crate) fn put_text(out: &mut Vec<u8>, text: &str) {
    put_bytes(out, &text.as_bytes()[..text.floor_char_boundary(MAX_TEXT_BYTES)]);
}

/// The fields of a body that have not been read.
pub(crate) struct Fields<'a>(pub(crate) &'a [u8]);

impl<'a> Fields<'a> {
    pub(crate) fn take(&mut self, count: usize) -> Result<&'a [u8], Error> {
        let (taken, rest) =
            self.0.split_at_checked(count).ok_or(Error::Protocol("a message is too short"))?;
        self.0 = rest;
        Ok(taken)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, Error> {
        self.array().map(u8::from_be_bytes)
    }

    pub(crate) fn u16(&mut self) -> Result<u16, Error> {
        self.array().map(u16::from_be_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Error> {
        self.array().map(u32::from_be_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, Error> {
        self.array().map(u64::from_be_bytes)
    }

    pub(crate) fn flag(&mut self) -> Result<bool, Error> {
        match self.array()? {
            [0] => Ok(false),
            [1] => Ok(true),
            _ => Err(Error::Protocol("a flag is neither 0 nor 1")),
        }
    }

    pub(crate) fn digest(&mut self) -> Result<Digest, Error> {
        self.array()
    }

    pub(crate) fn time(&mut self) -> Result<Time, Error> {
        let (seconds, nanoseconds) = (i64::from_be_bytes(self.array()?), self.u32()?);
        if nanoseconds > 999_999_999 {
            return Err(Error::Protocol("a time has more than 999,999,999 nanoseconds"));
        }
        Ok(Time { seconds, nanoseconds })
    }

    pub(crate) fn bytes(&mut self) -> Result<&'a [u8], Error> {
        let length = self.u16()?;
        self.take(length.into())
    }

    /// Reads a path of the operating system, which has no NUL.
    pub(crate) fn path(&mut self) -> Result<Vec<u8>, Error> {
        let bytes = self.bytes()?;
        if bytes.contains(&0) || bytes.len() > MAX_PATH_BYTES {
            Err(Error::Protocol("a path is invalid"))
        } else {
            Ok(bytes.to_vec())
        }
    }

    pub(crate) fn text(&mut self) -> Result<String, Error> {
        let bytes = self.bytes()?;
        if bytes.len() > MAX_TEXT_BYTES {
            return Err(Error::Protocol("a text is too long"));
        }
        Ok(String::from_utf8_lossy(bytes).into_owned())
    }

    pub(crate) fn name(&mut self) -> Result<Name, Error> {
        Name::new(self.bytes()?)
            .map_err(|_| Error::Protocol("a name leads out of the directory, or is invalid"))
    }

    /// Reads a name, or nothing in its place for the contents of a directory.
    pub(crate) fn placement(&mut self) -> Result<Placement, Error> {
        match self.0 {
            [0, 0, rest @ ..] => {
                self.0 = rest;
                Ok(Placement::Contents)
            }
            _ => self.name().map(Placement::Named),
        }
    }

    pub(crate) fn below(&mut self) -> Result<RelativePath, Error> {
        RelativePath::new(self.bytes()?)
            .map_err(|_| Error::Protocol("a path leads out of the directory, or is invalid"))
    }
}
