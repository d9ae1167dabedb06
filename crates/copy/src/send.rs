//! The sending side: announces files ahead of the answers, and sends the contents that are wanted.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, TryRecvError};
use std::thread;
use std::time::Duration;

use crate::contents::{Change, Contents};
use crate::digest::{ContentHash, DigestKind};
use crate::holes::Piece;
use crate::name::RelativePath;
use crate::stream::{Reader, Writer};
use crate::walk::{Found, Step, Walk};
use crate::wire::{Digest, Entry, HOLES, Kind, MAX_DATA_BYTES, Message};
use crate::{CopyReport, Error, MAX_PENDING_ENTRIES, Observer, Side, os_error_text};

/// How long to wait for the refusal of a receiver that has closed the connection.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(1);

/// The reason not to finish a file that is shorter than it was.
const SHORTER: &str = "it became shorter while it was read; copy it again";

/// The reason not to copy a file whose size is not that of its contents.
const MADE_BY_KERNEL: &str =
    "it has other contents than its size says, as in /proc and /sys; copy the output of cat";

/// How many answers can arrive before the sender announces more: two for each unsettled entry, one
/// note, and the extensions.
const MAX_ANSWERS: usize = 2 * MAX_PENDING_ENTRIES + 2;

/// A file or directory to send.
#[derive(Debug, Clone)]
pub struct Source {
    /// The path. If it is a link, the link is followed; links in a directory are sent as links.
    pub path: PathBuf,
    /// The name of the source in a [`CopyReport`].
    pub display_name: Vec<u8>,
}

/// Options of sending.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SendOptions {
    /// Whether files of the same size are compared by digest instead of by time.
    pub checksum: bool,
}

/// An announced entry that is not settled.
struct Announced {
    source: u32,
    below: RelativePath,
    kind: AnnouncedKind,
}

enum AnnouncedKind {
    File {
        path: PathBuf,
        /// The announced size.
        size: u64,
        /// How many bytes have been sent.
        sent: u64,
    },
    Link,
    /// It is counted only if it fails.
    Directory,
    /// Leaving a directory: a failure that is only the consequence of its own is not counted.
    Leave,
}

/// A file whose contents the receiver wants.
struct Wanted {
    id: u32,
    /// How many bytes the receiver has.
    offset: u64,
    /// The digest of these bytes.
    digest: Digest,
}

/// Why a file's contents were not sent completely.
enum SendError {
    Connection(Error),
    /// An error of the file; the transfer goes on. Empty if the receiver has reported it.
    File(String),
}

impl From<Error> for SendError {
    fn from(error: Error) -> Self {
        Self::Connection(error)
    }
}

/// Converts an error of the file.
fn file_error(error: io::Error) -> SendError {
    SendError::File(os_error_text(&error))
}

struct Sender<'a, W: Write> {
    sources: &'a [Source],
    options: SendOptions,
    observer: Observer<'a>,
    to: Writer<W>,
    answers: mpsc::Receiver<Result<Message, Error>>,
    next_id: u32,
    unsettled: BTreeMap<u32, Announced>,
    wanted: VecDeque<Wanted>,
    chunk: Vec<u8>,
    /// Whether the receiver knows [`HOLES`].
    sends_holes: bool,
}

/// Sends until every entry is settled, and then drops `to`. Another thread reads `from` to its end,
/// possibly after this function has returned.
///
/// # Errors
///
/// See [`Error`].
pub fn send<R: Read + Send + 'static, W: Write>(
    mut from: Reader<R>,
    to: Writer<W>,
    sources: &[Source],
    options: SendOptions,
    observer: Observer<'_>,
) -> Result<(), Error> {
    // The thread never blocks on a receiver that follows the protocol.
    let (answer, answers) = mpsc::sync_channel(MAX_ANSWERS);
    thread::Builder::new().name("answers".into()).spawn(move || {
        loop {
            let next = match from.read() {
                Ok(None) => return,
                Ok(Some(message)) => Ok(message),
                Err(error) => Err(error),
            };
            let failed = next.is_err();
            if answer.send(next).is_err() || failed {
                return;
            }
        }
    })?;
    let mut sender = Sender {
        sources,
        options,
        observer,
        to,
        answers,
        next_id: 0,
        unsettled: BTreeMap::new(),
        wanted: VecDeque::new(),
        chunk: vec![0; MAX_DATA_BYTES],
        sends_holes: false,
    };
    match sender.run() {
        // A receiver that could not begin has sent the reason before it closed the connection.
        Err(Error::Disconnected(error)) => {
            Err(sender.refusal().unwrap_or(Error::Disconnected(error)))
        }
        outcome => outcome,
    }
}

impl<W: Write> Sender<'_, W> {
    fn run(&mut self) -> Result<(), Error> {
        let mut walk = Walk::new(self.sources);
        let mut listed = false;
        self.to.put(&Message::announcement())?;
        loop {
            self.read_answers()?;
            if !listed && self.unsettled.len() < MAX_PENDING_ENTRIES {
                match walk.next() {
                    Some(step) => self.announce(step)?,
                    None => {
                        listed = true;
                        self.to.put(&Message::Listed)?;
                        self.observer.progress.listed.store(true, Ordering::Relaxed);
                    }
                }
            } else if let Some(wanted) = self.wanted.pop_front() {
                self.send_file(&wanted)?;
            } else if listed && self.unsettled.is_empty() {
                return Ok(self.to.flush()?);
            } else {
                self.to.flush()?;
                let answer = self.answers.recv();
                self.on_answer(answer.unwrap_or_else(|_| Err(disconnected()))?)?;
            }
        }
    }

    /// Handles the answers that have arrived.
    fn read_answers(&mut self) -> Result<(), Error> {
        loop {
            match self.answers.try_recv() {
                Ok(answer) => self.on_answer(answer?)?,
                // The receiver may close its side after the last answer.
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => return Ok(()),
            }
        }
    }

    /// Returns the refusal that a receiver sent before it closed the connection.
    fn refusal(&mut self) -> Option<Error> {
        // More answers than this would violate the protocol.
        for _ in 0..=MAX_ANSWERS {
            match self.answers.recv_timeout(REFUSAL_TIMEOUT) {
                Ok(Ok(Message::Refused { text })) => return Some(Error::Refused(text)),
                Ok(Ok(_)) => {}
                Ok(Err(_)) | Err(_) => break,
            }
        }
        None
    }

    /// Returns the id of the next entry or leave.
    fn take_id(&mut self) -> Result<u32, Error> {
        let id = self.next_id;
        let next = id.checked_add(1);
        self.next_id =
            next.ok_or_else(|| Error::Refused("there are more than 4,294,967,295 files".into()))?;
        Ok(id)
    }

    /// Announces the next step of the walk.
    fn announce(&mut self, step: Step) -> Result<(), Error> {
        let Found { source, below, path, mode, modified, mut kind } = match step {
            Step::Found(found) => found,
            Step::Leave { source, below } => {
                let id = self.take_id()?;
                let kind = AnnouncedKind::Leave;
                self.unsettled.insert(id, Announced { source, below, kind });
                return Ok(self.to.put(&Message::Leave { id })?);
            }
            Step::Remark { source, below, failure, text } => {
                return self.remark(source, below, failure, text);
            }
        };
        if let (Kind::File { size, digest }, true) = (&mut kind, self.options.checksum) {
            let opened = Contents::open(&path, &below);
            let digested = opened.and_then(|file| {
                file.digest_beginning(u64::MAX, DigestKind::Plain, &mut self.chunk)
            });
            match digested {
                // The file may have grown since its size was read.
                Ok((found, length)) => (*digest, *size) = (Some(found.digest()), length),
                Err(error) => return self.remark(source, below, true, os_error_text(&error)),
            }
        }
        let id = self.take_id()?;
        let announced = match &kind {
            Kind::File { size, .. } => {
                Observer::add(&self.observer.progress.announced_bytes, *size);
                AnnouncedKind::File { path, size: *size, sent: 0 }
            }
            Kind::Link { .. } => AnnouncedKind::Link,
            Kind::Directory => AnnouncedKind::Directory,
        };
        self.unsettled.insert(id, Announced { source, below: below.clone(), kind: announced });
        Ok(self.to.put(&Message::Entry(Entry { id, source, below, mode, modified, kind }))?)
    }

    /// Reports something about a file that is not announced, here and to the receiver.
    fn remark(
        &mut self,
        source: u32,
        below: RelativePath,
        failure: bool,
        text: String,
    ) -> Result<(), Error> {
        self.observer.report(
            Side::Source,
            self.display_path(source, &below),
            text.clone(),
            failure,
        );
        Ok(self.to.put(&Message::Remark { source, below, failure, text })?)
    }

    /// Returns the path for a report.
    fn display_path(&self, source: u32, below: &RelativePath) -> Vec<u8> {
        let mut path = self
            .sources
            .get(source as usize)
            .map(|source| source.display_name.clone())
            .unwrap_or_default();
        if !below.as_bytes().is_empty() {
            if !path.ends_with(b"/") {
                path.push(b'/');
            }
            path.extend_from_slice(below.as_bytes());
        }
        path
    }

    fn on_answer(&mut self, answer: Message) -> Result<(), Error> {
        let unknown = Error::Protocol("it answers for an entry that was not announced");
        let progress = self.observer.progress;
        match answer {
            Message::Want { id, offset, digest } => match self.unsettled.get(&id) {
                // The bound holds even if a receiver wants a file twice.
                Some(Announced { kind: AnnouncedKind::File { .. }, .. })
                    if self.wanted.len() < MAX_PENDING_ENTRIES =>
                {
                    self.wanted.push_back(Wanted { id, offset, digest });
                }
                _ => return Err(unknown),
            },
            Message::Done { id, unchanged } => {
                let announced = self.unsettled.remove(&id).ok_or(unknown)?;
                match announced.kind {
                    AnnouncedKind::Directory | AnnouncedKind::Leave => return Ok(()),
                    AnnouncedKind::File { size, .. } if unchanged => {
                        Observer::add(&progress.processed_bytes, size)
                    }
                    AnnouncedKind::File { sent, .. } => {
                        Observer::add(&progress.transferred_bytes, sent)
                    }
                    AnnouncedKind::Link => {}
                }
                Observer::add(if unchanged { &progress.unchanged } else { &progress.copied }, 1);
            }
            Message::Failed { id, text } => {
                let announced = self.unsettled.remove(&id).ok_or(unknown)?;
                if text.is_empty() {
                    let counts = !matches!(announced.kind, AnnouncedKind::Leave);
                    Observer::add(&progress.failed, counts.into());
                } else {
                    let path = self.display_path(announced.source, &announced.below);
                    self.observer.report(Side::Destination, path, text, true);
                }
            }
            Message::Extensions { bits } => self.sends_holes = bits & HOLES != 0,
            Message::Note { id, text } => {
                let announced = self.unsettled.get(&id).ok_or(unknown)?;
                let path = self.display_path(announced.source, &announced.below);
                self.observer.report(Side::Destination, path, text, false);
            }
            Message::Refused { text } => return Err(Error::Refused(text)),
            _ => return Err(Error::Protocol("unexpected message: only a sender sends it")),
        }
        Ok(())
    }

    /// Sends the contents of a file, or the reason why they cannot be read.
    fn send_file(&mut self, wanted: &Wanted) -> Result<(), Error> {
        let id = wanted.id;
        let Some(Announced { kind: AnnouncedKind::File { path, size, .. }, below, .. }) =
            self.unsettled.get(&id)
        else {
            return Err(Error::Protocol("it wants a file that it has given up"));
        };
        let (opened, announced_size) = (Contents::open(path, below), *size);
        let sent = match opened {
            Ok(contents) => self.send_contents(wanted, &contents, announced_size),
            Err(error) => Err(file_error(error)),
        };
        let text = match sent {
            Ok(()) => return Ok(()),
            Err(SendError::Connection(error)) => return Err(error),
            Err(SendError::File(text)) => text,
        };
        // A failure that the receiver has reported already is not reported again.
        let announced = self.unsettled.get(&id);
        let text = if announced.is_some() { text } else { String::new() };
        if let Some(announced) = announced.filter(|_| !text.is_empty()) {
            // Not counted here: the receiver answers with a failure.
            (self.observer.on_report)(CopyReport {
                side: Side::Source,
                path: self.display_path(announced.source, &announced.below),
                text: text.clone(),
                failure: true,
            });
        }
        Ok(self.to.put(&Message::Abort { id, text })?)
    }

    fn send_contents(
        &mut self,
        wanted: &Wanted,
        contents: &Contents,
        announced_size: u64,
    ) -> Result<(), SendError> {
        let id = wanted.id;
        let progress = self.observer.progress;
        let size = contents.size();
        if !contents.has_its_size(&mut self.chunk).map_err(file_error)? {
            return Err(SendError::File(MADE_BY_KERNEL.into()));
        }
        if size > announced_size {
            Observer::add(&progress.announced_bytes, size - announced_size);
        } else {
            Observer::add(&progress.processed_bytes, announced_size - size);
        }
        let (mut hash, mut position) = self.skip_received(wanted, contents).map_err(file_error)?;
        Observer::add(&progress.processed_bytes, position);
        let modified = contents.modified();
        self.put(&Message::Begin { id, offset: position, size, modified })?;
        let mut pieces = contents.pieces(self.sends_holes);
        while position < size {
            let count = match pieces.next(position, size, &mut self.chunk).map_err(file_error)? {
                Piece::Data(count) => {
                    hash.update(&self.chunk[..count]);
                    self.to.put_data(&self.chunk[..count]).map_err(Error::from)?;
                    count as u64
                }
                Piece::Hole(length) => {
                    hash.update_zeros(length);
                    self.put(&Message::Hole { length })?;
                    length
                }
                Piece::End => {
                    let shrunk = contents.has_shrunk().map_err(file_error)?;
                    let text = if shrunk { SHORTER } else { MADE_BY_KERNEL };
                    return Err(SendError::File(text.into()));
                }
            };
            position += count;
            self.on_sent(id, count, size - position)?;
        }
        match contents.change(&hash, &mut self.chunk).map_err(file_error)? {
            Change::None => {}
            Change::Grown => self.remark_growth(id)?,
            Change::Changed => {
                return Err(SendError::File("it changed while it was read; copy it again".into()));
            }
            Change::Shorter => return Err(SendError::File(SHORTER.into())),
        }
        self.put(&Message::Finish { digest: hash.digest() })
    }

    /// Counts bytes that were sent, and reads answers: the receiver may have given the file up.
    fn on_sent(&mut self, id: u32, count: u64, left: u64) -> Result<(), SendError> {
        let progress = self.observer.progress;
        Observer::add(&progress.processed_bytes, count);
        self.read_answers()?;
        let Some(Announced { kind: AnnouncedKind::File { sent, .. }, .. }) =
            self.unsettled.get_mut(&id)
        else {
            Observer::add(&progress.processed_bytes, left);
            return Err(SendError::File(String::new()));
        };
        *sent += count;
        Ok(())
    }

    fn remark_growth(&mut self, id: u32) -> Result<(), Error> {
        let Some(announced) = self.unsettled.get(&id) else { return Ok(()) };
        let (source, below) = (announced.source, announced.below.clone());
        let text = "it grew while it was read; the copy ends where the file ended at first";
        self.remark(source, below, false, text.to_owned())
    }

    /// Reads the bytes that the receiver already has, if they are the beginning of this file.
    /// Returns the state of the digest and the position in the file.
    fn skip_received(
        &mut self,
        wanted: &Wanted,
        contents: &Contents,
    ) -> io::Result<(ContentHash, u64)> {
        let kind = if self.sends_holes { DigestKind::Sparse } else { DigestKind::Plain };
        if wanted.offset > 0 && wanted.offset <= contents.size() {
            let (hash, position) =
                contents.digest_beginning(wanted.offset, kind, &mut self.chunk)?;
            // Otherwise the receiver has the beginning of another file, or of an older version.
            if position == wanted.offset && hash.digest() == wanted.digest {
                return Ok((hash, position));
            }
        }
        Ok((ContentHash::new(kind), 0))
    }

    fn put(&mut self, message: &Message) -> Result<(), SendError> {
        Ok(self.to.put(message).map_err(Error::from)?)
    }
}

fn disconnected() -> Error {
    Error::Disconnected(io::ErrorKind::UnexpectedEof.into())
}
