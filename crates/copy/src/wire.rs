//! Encodes and decodes the messages of docs/COPY.md, which is normative.
//!
//! A message is a header of five bytes (the length of the body, the kind) and the fields, in
//! big-endian order; a list or text follows its length.

use crate::fields::{Fields, put_bytes, put_text, put_time, put_u32, put_u64};
use crate::name::{Placement, RelativePath};
use crate::{Error, ReceiveOptions};

/// The version of this protocol.
pub const VERSION: u16 = 1;

/// The error for a message of an unknown kind, by which an older peer is recognised.
pub(crate) const UNKNOWN_KIND: &str = "the kind of a message is unknown";

/// The beginning of each side's first message.
pub const MAGIC: &[u8; 10] = b"labsh-copy";

/// The largest body of a data message, in bytes.
pub const MAX_DATA_BYTES: usize = 128 << 10;

/// The largest body of any message, in bytes. Only a request, which has all names, can be that
/// large.
pub const MAX_BODY_BYTES: usize = 1 << 20;

/// The size of the header: the body's length and the kind.
pub(crate) const HEADER_BYTES: usize = 5;

/// The extension with which holes are sent as [`Message::Hole`], and digests of files are computed
/// without them.
pub const HOLES: u32 = 1;

/// The kinds of messages, as in docs/COPY.md.
pub(crate) mod kind {
    pub(crate) const HELLO: u8 = 1;
    pub(crate) const PUT: u8 = 2;
    pub(crate) const GET: u8 = 3;
    pub(crate) const REFUSED: u8 = 4;
    pub(crate) const PUT_WITH: u8 = 5;
    pub(crate) const ENTRY: u8 = 16;
    pub(crate) const LEAVE: u8 = 17;
    pub(crate) const BEGIN: u8 = 18;
    pub(crate) const DATA: u8 = 19;
    pub(crate) const FINISH: u8 = 20;
    pub(crate) const ABORT: u8 = 21;
    pub(crate) const REMARK: u8 = 22;
    pub(crate) const LISTED: u8 = 23;
    pub(crate) const HOLE: u8 = 24;
    pub(crate) const WANT: u8 = 32;
    pub(crate) const DONE: u8 = 33;
    pub(crate) const FAILED: u8 = 34;
    pub(crate) const NOTE: u8 = 35;
    pub(crate) const EXTENSIONS: u8 = 36;
}

/// A digest of contents: SHA-256 (FIPS 180-4).
pub type Digest = [u8; 32];

/// A file system's time: seconds since 1970, and nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Time {
    /// Seconds; negative before 1970.
    pub seconds: i64,
    /// From 0 to 999,999,999.
    pub nanoseconds: u32,
}

/// The kind of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File {
        /// The size in bytes.
        size: u64,
        /// The digest of the contents, if files are compared by digest.
        digest: Option<Digest>,
    },
    /// A directory. Its entries follow, then [`Message::Leave`].
    Directory,
    /// A symbolic link.
    Link {
        /// The target: any bytes but NUL, not empty.
        target: Vec<u8>,
    },
}

/// An announcement of a file, directory or link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The id; ids count up from 0.
    pub id: u32,
    /// The index of the source, among those named in the request, that the entry belongs to.
    pub source: u32,
    /// The path in that source.
    pub below: RelativePath,
    /// The permissions: the lowest nine bits of st_mode (inode(7)).
    pub mode: u16,
    /// The modification time.
    pub modified: Time,
    /// The kind, with what depends on it.
    pub kind: Kind,
}

/// A message of the protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// The first message of each side.
    Hello {
        /// The version of the protocol, [`VERSION`].
        version: u16,
    },
    /// The client requests to send.
    Put {
        /// The destination as the user wrote it, relative to the other side's working directory.
        destination: Vec<u8>,
        /// Where the sources go, in the order of [`Entry::source`].
        names: Vec<Placement>,
        /// What is not set.
        options: ReceiveOptions,
    },
    /// The client requests to receive.
    Get {
        /// Whether entries of files have a digest.
        checksum: bool,
        /// The sources as the user wrote them, in the order of [`Entry::source`].
        paths: Vec<Vec<u8>>,
    },
    /// This side cannot begin. This is its last message.
    Refused {
        /// The reason, and what to do.
        text: String,
    },
    /// Announces a file, directory or link.
    Entry(Entry),
    /// All entries of the current directory have been announced.
    Leave {
        /// An id of its own, in the same sequence as those of entries.
        id: u32,
    },
    /// The contents of a file follow.
    Begin {
        /// The id of the oldest wanted file that has not begun.
        id: u32,
        /// The start of the contents: the offset in [`Message::Want`], or 0.
        offset: u64,
        /// The current size of the whole file.
        size: u64,
        /// The current modification time.
        modified: Time,
    },
    /// Contents: 1 to [`MAX_DATA_BYTES`] bytes.
    Data(Vec<u8>),
    /// Contents that are zero, in place of [`Message::Data`]. Only with [`HOLES`].
    Hole {
        /// How many bytes; not 0.
        length: u64,
    },
    /// The contents are complete.
    Finish {
        /// The digest of the whole file, including the bytes before the offset.
        digest: Digest,
    },
    /// The file cannot be read completely; the contents so far are discarded.
    Abort {
        /// The file that has begun, or else the oldest wanted file.
        id: u32,
        /// The reason; empty if the receiver has reported it.
        text: String,
    },
    /// A remark about a file that is not announced, or that was announced and has changed.
    Remark {
        /// As in [`Entry`].
        source: u32,
        /// As in [`Entry`].
        below: RelativePath,
        /// Whether the file is not copied.
        failure: bool,
        /// The remark.
        text: String,
    },
    /// All entries have been announced.
    Listed,
    /// Requests the contents of a file. Files are sent in the order of these messages.
    Want {
        /// The id of its entry.
        id: u32,
        /// How many bytes the receiver has of an earlier transfer.
        offset: u64,
        /// The digest of these bytes.
        digest: Digest,
    },
    /// The entry was copied or is unchanged.
    Done {
        /// The id of the entry or leave.
        id: u32,
        /// Whether it was unchanged.
        unchanged: bool,
    },
    /// The entry cannot be copied.
    Failed {
        /// The id of the entry or leave.
        id: u32,
        /// The reason; empty if an earlier failure is the cause.
        text: String,
    },
    /// The receiver's first answer to a sender that has announced that it knows this message
    /// ([`Message::announcement`]).
    Extensions {
        /// The extensions that the receiver knows, such as [`HOLES`]; other bits are ignored.
        bits: u32,
    },
    /// A remark about an entry that is not settled. Only for a sender that has announced that it
    /// knows this message.
    Note {
        /// The id of the entry or leave.
        id: u32,
        /// The remark.
        text: String,
    },
}

impl Message {
    /// Returns the message by which a sender announces that it knows [`Message::Extensions`] and
    /// [`Message::Note`]: a remark without text, which an older receiver ignores.
    pub fn announcement() -> Self {
        let (below, text) = (RelativePath::default(), String::new());
        Message::Remark { source: 0, below, failure: false, text }
    }

    /// Appends header and body.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&[0; HEADER_BYTES]);
        out[start + 4] = self.kind();
        self.put_body(out);
        // Only a request can be longer than MAX_BODY_BYTES; the client checks it with `fits`.
        let length = (out.len() - start - HEADER_BYTES) as u32;
        out[start..start + 4].copy_from_slice(&length.to_be_bytes());
    }

    /// Returns whether the body has at most [`MAX_BODY_BYTES`] bytes.
    pub(crate) fn fits(&self) -> bool {
        let mut body = Vec::new();
        self.put_body(&mut body);
        body.len() <= MAX_BODY_BYTES
    }

    fn kind(&self) -> u8 {
        match self {
            Message::Hello { .. } => kind::HELLO,
            Message::Put { names, options, .. } if is_plain(names, *options) => kind::PUT,
            Message::Put { .. } => kind::PUT_WITH,
            Message::Get { .. } => kind::GET,
            Message::Refused { .. } => kind::REFUSED,
            Message::Entry(_) => kind::ENTRY,
            Message::Leave { .. } => kind::LEAVE,
            Message::Begin { .. } => kind::BEGIN,
            Message::Data(_) => kind::DATA,
            Message::Finish { .. } => kind::FINISH,
            Message::Abort { .. } => kind::ABORT,
            Message::Remark { .. } => kind::REMARK,
            Message::Listed => kind::LISTED,
            Message::Want { .. } => kind::WANT,
            Message::Done { .. } => kind::DONE,
            Message::Failed { .. } => kind::FAILED,
            Message::Note { .. } => kind::NOTE,
            Message::Hole { .. } => kind::HOLE,
            Message::Extensions { .. } => kind::EXTENSIONS,
        }
    }

    fn put_body(&self, out: &mut Vec<u8>) {
        match self {
            Message::Hello { version } => {
                out.extend_from_slice(MAGIC);
                out.extend_from_slice(&version.to_be_bytes());
            }
            Message::Put { destination, names, options } => {
                if !is_plain(names, *options) {
                    out.push(u8::from(options.no_times) | u8::from(options.no_permissions) << 1);
                }
                put_bytes(out, destination);
                put_u32(out, names.len() as u32);
                names.iter().for_each(|name| put_bytes(out, name.as_bytes()));
            }
            Message::Get { checksum, paths } => {
                out.push(u8::from(*checksum));
                put_u32(out, paths.len() as u32);
                paths.iter().for_each(|path| put_bytes(out, path));
            }
            Message::Refused { text } => put_text(out, text),
            Message::Entry(entry) => put_entry(out, entry),
            Message::Leave { id } => put_u32(out, *id),
            Message::Begin { id, offset, size, modified } => {
                put_u32(out, *id);
                put_u64(out, *offset);
                put_u64(out, *size);
                put_time(out, *modified);
            }
            Message::Data(bytes) => out.extend_from_slice(bytes),
            Message::Hole { length } => put_u64(out, *length),
            Message::Extensions { bits } => put_u32(out, *bits),
            Message::Finish { digest } => out.extend_from_slice(digest),
            Message::Remark { source, below, failure, text } => {
                put_u32(out, *source);
                put_bytes(out, below.as_bytes());
                out.push(u8::from(*failure));
                put_text(out, text);
            }
            Message::Listed => {}
            Message::Want { id, offset, digest } => {
                put_u32(out, *id);
                put_u64(out, *offset);
                out.extend_from_slice(digest);
            }
            Message::Done { id, unchanged } => {
                put_u32(out, *id);
                out.push(u8::from(*unchanged));
            }
            Message::Abort { id, text }
            | Message::Failed { id, text }
            | Message::Note { id, text } => {
                put_u32(out, *id);
                put_text(out, text);
            }
        }
    }

    /// Decodes a body of this kind, which must have no bytes left over.
    ///
    /// # Errors
    ///
    /// [`Error::Protocol`] for bytes that [`Message::encode`] does not write.
    pub fn decode(kind: u8, body: &[u8]) -> Result<Self, Error> {
        let mut fields = Fields(body);
        let message = match kind {
            kind::HELLO if fields.take(MAGIC.len())? == MAGIC => {
                Message::Hello { version: fields.u16()? }
            }
            kind::PUT => {
                let destination = fields.path()?;
                let count = fields.u32()?;
                let name = |_| fields.name().map(Placement::Named);
                let names = (0..count).map(name).collect::<Result<_, _>>()?;
                Message::Put { destination, names, options: ReceiveOptions::default() }
            }
            kind::PUT_WITH => {
                let options = receive_options(fields.u8()?)?;
                let destination = fields.path()?;
                let names =
                    (0..fields.u32()?).map(|_| fields.placement()).collect::<Result<_, _>>()?;
                Message::Put { destination, names, options }
            }
            kind::GET => {
                let checksum = fields.flag()?;
                let paths = (0..fields.u32()?).map(|_| fields.path()).collect::<Result<_, _>>()?;
                Message::Get { checksum, paths }
            }
            kind::REFUSED => Message::Refused { text: fields.text()? },
            kind::ENTRY => Message::Entry(read_entry(&mut fields)?),
            kind::LEAVE => Message::Leave { id: fields.u32()? },
            kind::BEGIN => Message::Begin {
                id: fields.u32()?,
                offset: fields.u64()?,
                size: fields.u64()?,
                modified: fields.time()?,
            },
            kind::DATA => match fields.take(body.len())? {
                [] => return Err(Error::Protocol("a data message is empty")),
                bytes if bytes.len() > MAX_DATA_BYTES => {
                    return Err(Error::Protocol("a data message is too long"));
                }
                bytes => Message::Data(bytes.to_vec()),
            },
            kind::HOLE => match fields.u64()? {
                0 => return Err(Error::Protocol("a hole is empty")),
                length => Message::Hole { length },
            },
            kind::EXTENSIONS => Message::Extensions { bits: fields.u32()? },
            kind::FINISH => Message::Finish { digest: fields.digest()? },
            kind::ABORT => Message::Abort { id: fields.u32()?, text: fields.text()? },
            kind::REMARK => Message::Remark {
                source: fields.u32()?,
                below: fields.below()?,
                failure: fields.flag()?,
                text: fields.text()?,
            },
            kind::LISTED => Message::Listed,
            kind::WANT => {
                Message::Want { id: fields.u32()?, offset: fields.u64()?, digest: fields.digest()? }
            }
            kind::DONE => Message::Done { id: fields.u32()?, unchanged: fields.flag()? },
            kind::FAILED => Message::Failed { id: fields.u32()?, text: fields.text()? },
            kind::NOTE => Message::Note { id: fields.u32()?, text: fields.text()? },
            kind::HELLO => return Err(Error::Protocol("it does not speak the copy protocol")),
            _ => return Err(Error::Protocol(UNKNOWN_KIND)),
        };
        match fields.0 {
            [] => Ok(message),
            _ => Err(Error::Protocol("a message is longer than its fields")),
        }
    }
}

/// Returns whether a put needs no more than the first form of that message, which every receiver
/// knows.
fn is_plain(names: &[Placement], options: ReceiveOptions) -> bool {
    options == ReceiveOptions::default()
        && names.iter().all(|name| matches!(name, Placement::Named(_)))
}

fn receive_options(bits: u8) -> Result<ReceiveOptions, Error> {
    if bits > 3 {
        return Err(Error::Protocol("an option of a put is unknown"));
    }
    Ok(ReceiveOptions { no_times: bits & 1 != 0, no_permissions: bits & 2 != 0 })
}

fn put_entry(out: &mut Vec<u8>, entry: &Entry) {
    put_u32(out, entry.id);
    put_u32(out, entry.source);
    put_bytes(out, entry.below.as_bytes());
    out.extend_from_slice(&entry.mode.to_be_bytes());
    put_time(out, entry.modified);
    match &entry.kind {
        Kind::File { size, digest } => {
            out.push(u8::from(digest.is_some()));
            put_u64(out, *size);
            out.extend_from_slice(digest.as_ref().map_or(&[], |digest| &digest[..]));
        }
        Kind::Directory => out.push(2),
        Kind::Link { target } => {
            out.push(3);
            put_bytes(out, target);
        }
    }
}

fn read_entry(fields: &mut Fields<'_>) -> Result<Entry, Error> {
    let (id, source, below) = (fields.u32()?, fields.u32()?, fields.below()?);
    let (mode, modified) = (fields.u16()?, fields.time()?);
    if mode > 0o777 {
        return Err(Error::Protocol("a mode holds more than permissions"));
    }
    let kind = match fields.array()? {
        [0] => Kind::File { size: fields.u64()?, digest: None },
        [1] => Kind::File { size: fields.u64()?, digest: Some(fields.digest()?) },
        [2] => Kind::Directory,
        [3] => match fields.path()? {
            target if target.is_empty() => {
                return Err(Error::Protocol("a link has no target"));
            }
            target => Kind::Link { target },
        },
        _ => return Err(Error::Protocol("the kind of an entry is unknown")),
    };
    Ok(Entry { id, source, below, mode, modified, kind })
}
