//! Messages as bytes: a header of five bytes (length of the body, kind), then the fields,
//! big-endian, each list and text behind its length. docs/COPY.md is the normative text.

use crate::Error;
use crate::name::{Below, Name};

/// The version of this protocol.
pub const VERSION: u16 = 1;

/// What the first message of each side begins with.
pub const MAGIC: &[u8; 10] = b"labsh-copy";

/// The most file contents that one message carries, in bytes.
pub const CHUNK: usize = 128 << 10;

/// The most that the body of another message has, in bytes; what names the files of a transfer may
/// have it all.
pub const BODY: usize = 1 << 20;

/// The longest text for people, in bytes.
const TEXT: usize = 1024;

/// The header: the body's length, and the kind.
pub(crate) const HEADER: usize = 5;

/// A digest of contents: SHA-256 (FIPS 180-4).
pub type Digest = [u8; 32];

/// A time as the file system has it: seconds since 1970, and nanoseconds beyond them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Time {
    /// Whole seconds; negative before 1970.
    pub seconds: i64,
    /// From 0 to 999,999,999.
    pub nanoseconds: u32,
}

/// What something is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File {
        /// In bytes.
        size: u64,
        /// Of its contents, where these are to be compared even if size and time are the same.
        digest: Option<Digest>,
    },
    /// A directory; what is in it follows, then [`Message::Leave`].
    Directory,
    /// A symbolic link.
    Link {
        /// Where it points; any bytes but NUL, not empty.
        target: Vec<u8>,
    },
}

/// Something that is to be on the other side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its number; they count up from 0.
    pub id: u32,
    /// Which of the files and directories that were named at the beginning it belongs to.
    pub source: u32,
    /// Where in that it is.
    pub below: Below,
    /// Permissions: the lowest nine bits of st_mode (inode(7)); no others travel.
    pub mode: u16,
    /// When it was last modified.
    pub modified: Time,
    /// What it is.
    pub kind: Kind,
}

/// All that is ever said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// The first from each side.
    Hello {
        /// [`VERSION`].
        version: u16,
    },
    /// The client will send.
    Put {
        /// Where to, as the user wrote it; relative to where the other side starts.
        destination: Vec<u8>,
        /// The names of what is sent, in the order of [`Entry::source`].
        names: Vec<Name>,
    },
    /// The client wants to receive.
    Get {
        /// Whether each file's digest is to be sent with it.
        checksum: bool,
        /// What, as the user wrote it; their order is that of [`Entry::source`].
        paths: Vec<Vec<u8>>,
    },
    /// This side cannot begin. The last message.
    Refused {
        /// Why, and what to do.
        text: String,
    },
    /// Announces something.
    Entry(Entry),
    /// A directory's contents have all been announced.
    Leave {
        /// A number of its own, in the same row.
        id: u32,
    },
    /// A file's contents follow.
    Begin {
        /// Of the oldest wanted file that has not begun.
        id: u32,
        /// Where they start: what was offered in [`Message::Want`], or 0.
        offset: u64,
        /// The whole file's size, as it is now.
        size: u64,
        /// When it was last modified, as it is now.
        modified: Time,
    },
    /// A piece of it; at most [`CHUNK`] bytes, at least one.
    Data(Vec<u8>),
    /// All of it was sent.
    Finish {
        /// Of the whole file, also of what was there already.
        digest: Digest,
    },
    /// It cannot be read, or not to its end; what has come of it is worth nothing.
    Abort {
        /// The file that has begun, or otherwise the oldest wanted.
        id: u32,
        /// Why; empty where the receiver has said it itself.
        text: String,
    },
    /// Something about what is not announced, or not as it was found.
    Remark {
        /// As in [`Entry`].
        source: u32,
        /// As in [`Entry`].
        below: Below,
        /// Whether it is therefore missing on the other side.
        failure: bool,
        /// What about it.
        text: String,
    },
    /// Everything has been announced.
    Listed,
    /// The contents of a file are wanted. The files are sent in the order of these.
    Want {
        /// Which.
        id: u32,
        /// So many bytes of it are there already, it seems.
        offset: u64,
        /// The digest of these.
        digest: Digest,
    },
    /// Something is now as it should be.
    Done {
        /// Which.
        id: u32,
        /// Whether it had been like that.
        unchanged: bool,
    },
    /// Something is not as it should be, and will not be.
    Failed {
        /// Which.
        id: u32,
        /// Why; empty where it follows from what was said before.
        text: String,
    },
}

impl Message {
    /// Appends header and body.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&[0; HEADER]);
        let kind = self.put_body(out);
        // Only what names the files of a transfer can be longer than BODY, and that is looked at
        // before: `fits`.
        let length = (out.len() - start - HEADER) as u32;
        out[start..start + 4].copy_from_slice(&length.to_be_bytes());
        out[start + 4] = kind;
    }

    /// Whether the other side takes it: its body has at most [`BODY`] bytes.
    pub(crate) fn fits(&self) -> bool {
        let mut body = Vec::new();
        self.put_body(&mut body);
        body.len() <= BODY
    }

    fn put_body(&self, out: &mut Vec<u8>) -> u8 {
        match self {
            Message::Hello { version } => {
                out.extend_from_slice(MAGIC);
                out.extend_from_slice(&version.to_be_bytes());
                1
            }
            Message::Put { destination, names } => {
                put_bytes(out, destination);
                put_u32(out, names.len() as u32);
                names.iter().for_each(|name| put_bytes(out, name.as_bytes()));
                2
            }
            Message::Get { checksum, paths } => {
                out.push(u8::from(*checksum));
                put_u32(out, paths.len() as u32);
                paths.iter().for_each(|path| put_bytes(out, path));
                3
            }
            Message::Refused { text } => {
                put_text(out, text);
                4
            }
            Message::Entry(entry) => {
                put_u32(out, entry.id);
                put_u32(out, entry.source);
                put_bytes(out, entry.below.as_bytes());
                out.extend_from_slice(&entry.mode.to_be_bytes());
                put_time(out, entry.modified);
                match &entry.kind {
                    Kind::File { size, digest } => {
                        out.push(if digest.is_some() { 1 } else { 0 });
                        put_u64(out, *size);
                        out.extend_from_slice(digest.as_ref().map_or(&[], |digest| &digest[..]));
                    }
                    Kind::Directory => out.push(2),
                    Kind::Link { target } => {
                        out.push(3);
                        put_bytes(out, target);
                    }
                }
                16
            }
            Message::Leave { id } => {
                put_u32(out, *id);
                17
            }
            Message::Begin { id, offset, size, modified } => {
                put_u32(out, *id);
                put_u64(out, *offset);
                put_u64(out, *size);
                put_time(out, *modified);
                18
            }
            Message::Data(bytes) => {
                out.extend_from_slice(bytes);
                19
            }
            Message::Finish { digest } => {
                out.extend_from_slice(digest);
                20
            }
            Message::Abort { id, text } => {
                put_u32(out, *id);
                put_text(out, text);
                21
            }
            Message::Remark { source, below, failure, text } => {
                put_u32(out, *source);
                put_bytes(out, below.as_bytes());
                out.push(u8::from(*failure));
                put_text(out, text);
                22
            }
            Message::Listed => 23,
            Message::Want { id, offset, digest } => {
                put_u32(out, *id);
                put_u64(out, *offset);
                out.extend_from_slice(digest);
                32
            }
            Message::Done { id, unchanged } => {
                put_u32(out, *id);
                out.push(u8::from(*unchanged));
                33
            }
            Message::Failed { id, text } => {
                put_u32(out, *id);
                put_text(out, text);
                34
            }
        }
    }

    /// Reads a body of this kind, to its last byte.
    ///
    /// # Errors
    ///
    /// [`Error::Protocol`] for everything that [`Message::encode`] does not write.
    pub fn decode(kind: u8, body: &[u8]) -> Result<Self, Error> {
        let mut fields = Fields(body);
        let message = match kind {
            1 if fields.take(MAGIC.len())? == MAGIC => Message::Hello { version: fields.u16()? },
            2 => {
                let destination = fields.path()?;
                let names = (0..fields.u32()?).map(|_| fields.name()).collect::<Result<_, _>>()?;
                Message::Put { destination, names }
            }
            3 => {
                let checksum = fields.flag()?;
                let paths = (0..fields.u32()?).map(|_| fields.path()).collect::<Result<_, _>>()?;
                Message::Get { checksum, paths }
            }
            4 => Message::Refused { text: fields.text()? },
            16 => Message::Entry(fields.entry()?),
            17 => Message::Leave { id: fields.u32()? },
            18 => Message::Begin {
                id: fields.u32()?,
                offset: fields.u64()?,
                size: fields.u64()?,
                modified: fields.time()?,
            },
            19 => match fields.take(body.len())? {
                [] => return Err(Error::Protocol("a piece of a file is empty")),
                bytes if bytes.len() > CHUNK => {
                    return Err(Error::Protocol("a piece of a file is too long"));
                }
                bytes => Message::Data(bytes.to_vec()),
            },
            20 => Message::Finish { digest: fields.digest()? },
            21 => Message::Abort { id: fields.u32()?, text: fields.text()? },
            22 => Message::Remark {
                source: fields.u32()?,
                below: fields.below()?,
                failure: fields.flag()?,
                text: fields.text()?,
            },
            23 => Message::Listed,
            32 => {
                Message::Want { id: fields.u32()?, offset: fields.u64()?, digest: fields.digest()? }
            }
            33 => Message::Done { id: fields.u32()?, unchanged: fields.flag()? },
            34 => Message::Failed { id: fields.u32()?, text: fields.text()? },
            1 => return Err(Error::Protocol("it does not speak this protocol")),
            _ => return Err(Error::Protocol("a message is of no known kind")),
        };
        match fields.0 {
            [] => Ok(message),
            _ => Err(Error::Protocol("a message is longer than its fields")),
        }
    }
}

fn put_u32(out: &mut Vec<u8>, number: u32) {
    out.extend_from_slice(&number.to_be_bytes());
}

fn put_u64(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(&number.to_be_bytes());
}

fn put_time(out: &mut Vec<u8>, time: Time) {
    out.extend_from_slice(&time.seconds.to_be_bytes());
    put_u32(out, time.nanoseconds);
}

/// At most 65,535 bytes; no path or name has more than 4,096.
fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    let bytes = &bytes[..bytes.len().min(u16::MAX.into())];
    out.extend_from_slice(&(bytes.len() as u16).to_be_bytes());
    out.extend_from_slice(bytes);
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    put_bytes(out, &text.as_bytes()[..text.floor_char_boundary(TEXT)]);
}

/// What has not been read of a body.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], Error> {
        let (taken, rest) =
            self.0.split_at_checked(count).ok_or(Error::Protocol("a message is too short"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    fn u16(&mut self) -> Result<u16, Error> {
        self.array().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Result<u32, Error> {
        self.array().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Result<u64, Error> {
        self.array().map(u64::from_be_bytes)
    }

    fn flag(&mut self) -> Result<bool, Error> {
        match self.array()? {
            [0] => Ok(false),
            [1] => Ok(true),
            _ => Err(Error::Protocol("a flag is neither 0 nor 1")),
        }
    }

    fn digest(&mut self) -> Result<Digest, Error> {
        self.array()
    }

    fn time(&mut self) -> Result<Time, Error> {
        let (seconds, nanoseconds) = (i64::from_be_bytes(self.array()?), self.u32()?);
        if nanoseconds > 999_999_999 {
            return Err(Error::Protocol("a time has more than 999,999,999 nanoseconds"));
        }
        Ok(Time { seconds, nanoseconds })
    }

    fn bytes(&mut self) -> Result<&'a [u8], Error> {
        let length = self.u16()?;
        self.take(length.into())
    }

    /// A path for the operating system: no NUL.
    fn path(&mut self) -> Result<Vec<u8>, Error> {
        let bytes = self.bytes()?;
        if bytes.contains(&0) || bytes.len() > 4095 {
            Err(Error::Protocol("a path is none"))
        } else {
            Ok(bytes.to_vec())
        }
    }

    fn text(&mut self) -> Result<String, Error> {
        let bytes = self.bytes()?;
        if bytes.len() > TEXT {
            return Err(Error::Protocol("a text is too long"));
        }
        Ok(String::from_utf8_lossy(bytes).into_owned())
    }

    fn name(&mut self) -> Result<Name, Error> {
        Name::new(self.bytes()?)
            .map_err(|_| Error::Protocol("a name leads out of the directory, or is none"))
    }

    fn below(&mut self) -> Result<Below, Error> {
        Below::new(self.bytes()?)
            .map_err(|_| Error::Protocol("a path leads out of the directory, or is none"))
    }

    fn entry(&mut self) -> Result<Entry, Error> {
        let (id, source, below) = (self.u32()?, self.u32()?, self.below()?);
        let (mode, modified) = (self.u16()?, self.time()?);
        if mode > 0o777 {
            return Err(Error::Protocol("a mode has more than permissions"));
        }
        let kind = match self.array()? {
            [0] => Kind::File { size: self.u64()?, digest: None },
            [1] => Kind::File { size: self.u64()?, digest: Some(self.digest()?) },
            [2] => Kind::Directory,
            [3] => match self.path()? {
                target if target.is_empty() => {
                    return Err(Error::Protocol("a link points nowhere"));
                }
                target => Kind::Link { target },
            },
            _ => return Err(Error::Protocol("an entry is of no known kind")),
        };
        Ok(Entry { id, source, below, mode, modified, kind })
    }
}
