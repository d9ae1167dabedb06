//! The sending side: announces what there is, ahead of the answers, and sends what is wanted.

use std::collections::{BTreeMap, VecDeque};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, TryRecvError};
use std::thread;
use std::time::Duration;

use nix::fcntl::OFlag;
use sha2::{Digest as _, Sha256};

use crate::name::Below;
use crate::partial::digest_of;
use crate::stream::{Reader, Writer};
use crate::walk::{Found, Step, Walk, modified};
use crate::wire::{CHUNK, Digest, Entry, Kind, Message};
use crate::{Error, Side, WINDOW, Watch, said};

/// How long the last words of a receiver that reads no more are waited for.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Something that was named to be sent, a directory with all that is in it.
#[derive(Debug, Clone)]
pub struct Source {
    /// Where it is; a link there is followed, links below it are sent as links.
    pub path: PathBuf,
    /// What it is called in [`crate::Trouble`].
    pub shown: Vec<u8>,
}

/// How it is sent.
#[derive(Debug, Clone, Copy, Default)]
pub struct SendOptions {
    /// Whether files of the same size and time are compared by their digests as well.
    pub checksum: bool,
}

/// What has been announced and not been settled.
struct Open {
    source: u32,
    below: Below,
    what: What,
}

enum What {
    /// Where it can be read, and its size.
    File(PathBuf, u64),
    Link,
    /// Not counted.
    Directory,
}

struct Sender<'a, W: Write> {
    sources: &'a [Source],
    options: SendOptions,
    watch: Watch<'a>,
    to: Writer<W>,
    answers: mpsc::Receiver<Result<Message, Error>>,
    next: u32,
    open: BTreeMap<u32, Open>,
    wanted: VecDeque<(u32, u64, Digest)>,
    chunk: Vec<u8>,
}

/// Sends until everything is settled, and then lets go of `to`. A thread of its own reads `from` to
/// its end, which may come later.
///
/// # Errors
///
/// See [`Error`].
pub fn send<R: Read + Send + 'static, W: Write>(
    mut from: Reader<R>,
    to: Writer<W>,
    sources: &[Source],
    options: SendOptions,
    watch: Watch<'_>,
) -> Result<(), Error> {
    // Each open entry is answered at most twice, so that an honest receiver never waits for us to
    // look.
    let (answer, answers) = mpsc::sync_channel(2 * WINDOW);
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
    let (open, wanted) = (BTreeMap::new(), VecDeque::new());
    let mut sender = Sender {
        sources,
        options,
        watch,
        to,
        answers,
        next: 0,
        open,
        wanted,
        chunk: vec![0; CHUNK],
    };
    match sender.run() {
        // Whoever could not begin has said why before it closed its ears.
        Err(Error::Link(error)) => Err(sender.refusal().unwrap_or(Error::Link(error))),
        outcome => outcome,
    }
}

impl<W: Write> Sender<'_, W> {
    fn run(&mut self) -> Result<(), Error> {
        let mut walk = Walk::new(self.sources);
        let mut listed = false;
        loop {
            self.look_at_answers()?;
            if !listed && self.open.len() < WINDOW {
                match walk.next() {
                    Some(step) => self.step(step)?,
                    None => {
                        listed = true;
                        self.to.put(&Message::Listed)?;
                        self.watch.progress.listed.store(true, Ordering::Relaxed);
                    }
                }
            } else if let Some((id, offset, digest)) = self.wanted.pop_front() {
                self.file(id, offset, digest)?;
            } else if listed && self.open.is_empty() {
                return Ok(self.to.flush()?);
            } else {
                self.to.flush()?;
                let answer = self.answers.recv();
                self.answer(answer.unwrap_or_else(|_| Err(gone()))?)?;
            }
        }
    }

    fn look_at_answers(&mut self) -> Result<(), Error> {
        loop {
            match self.answers.try_recv() {
                Ok(answer) => self.answer(answer?)?,
                // A receiver that has nothing more to answer may have gone.
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => return Ok(()),
            }
        }
    }

    /// What is still to be heard from a receiver that has gone, if it is why.
    fn refusal(&mut self) -> Option<Error> {
        // An honest one has no more than this to say.
        for _ in 0..=2 * WINDOW {
            match self.answers.recv_timeout(LAST_WORDS) {
                Ok(Ok(Message::Refused { text })) => return Some(Error::Refused(text)),
                Ok(Ok(_)) => {}
                Ok(Err(_)) | Err(_) => break,
            }
        }
        None
    }

    fn number(&mut self) -> Result<u32, Error> {
        let id = self.next;
        let next = id.checked_add(1);
        self.next =
            next.ok_or_else(|| Error::Refused("there are more than 4,294,967,295 files".into()))?;
        Ok(id)
    }

    fn step(&mut self, step: Step) -> Result<(), Error> {
        let Found { source, below, path, mode, modified, mut kind } = match step {
            Step::Found(found) => found,
            Step::Leave => {
                let id = self.number()?;
                // What is said of it names the directory already.
                self.open
                    .insert(id, Open { source: 0, below: Below::default(), what: What::Directory });
                return Ok(self.to.put(&Message::Leave { id })?);
            }
            Step::Remark { source, below, failure, text } => {
                return self.remark(source, below, failure, text);
            }
        };
        if let (Kind::File { size, digest }, true) = (&mut kind, self.options.checksum) {
            match open(&path, &below).and_then(|mut file| digest_of(&mut file)) {
                // It may have grown since.
                Ok((found, length)) => (*digest, *size) = (Some(found), length),
                Err(error) => return self.remark(source, below, true, said(&error)),
            }
        }
        let id = self.number()?;
        let what = match &kind {
            Kind::File { size, .. } => {
                Watch::add(&self.watch.progress.announced, *size);
                What::File(path, *size)
            }
            Kind::Link { .. } => What::Link,
            Kind::Directory => What::Directory,
        };
        self.open.insert(id, Open { source, below: below.clone(), what });
        Ok(self.to.put(&Message::Entry(Entry { id, source, below, mode, modified, kind }))?)
    }

    fn remark(
        &mut self,
        source: u32,
        below: Below,
        failure: bool,
        text: String,
    ) -> Result<(), Error> {
        self.watch.trouble(Side::Source, self.shown(source, &below), text.clone(), failure);
        Ok(self.to.put(&Message::Remark { source, below, failure, text })?)
    }

    fn shown(&self, source: u32, below: &Below) -> Vec<u8> {
        let mut shown = self
            .sources
            .get(source as usize)
            .map(|source| source.shown.clone())
            .unwrap_or_default();
        if !below.as_bytes().is_empty() {
            if !shown.ends_with(b"/") {
                shown.push(b'/');
            }
            shown.extend_from_slice(below.as_bytes());
        }
        shown
    }

    fn answer(&mut self, answer: Message) -> Result<(), Error> {
        let unknown = Error::Protocol("it answers for something that was not announced");
        let progress = self.watch.progress;
        match answer {
            Message::Want { id, offset, digest } => match self.open.get(&id) {
                // Once each, so that no receiver fills the memory.
                Some(Open { what: What::File(..), .. }) if self.wanted.len() < WINDOW => {
                    self.wanted.push_back((id, offset, digest));
                }
                _ => return Err(unknown),
            },
            Message::Done { id, unchanged } => {
                let open = self.open.remove(&id).ok_or(unknown)?;
                match open.what {
                    What::Directory => return Ok(()),
                    What::File(_, size) if unchanged => Watch::add(&progress.moved, size),
                    What::File(..) | What::Link => {}
                }
                Watch::add(if unchanged { &progress.unchanged } else { &progress.copied }, 1);
            }
            Message::Failed { id, text } => {
                let open = self.open.remove(&id).ok_or(unknown)?;
                if text.is_empty() {
                    Watch::add(&progress.failed, 1);
                } else {
                    self.watch.trouble(
                        Side::Destination,
                        self.shown(open.source, &open.below),
                        text,
                        true,
                    );
                }
            }
            Message::Refused { text } => return Err(Error::Refused(text)),
            _ => return Err(Error::Protocol("it says what only a sender says")),
        }
        Ok(())
    }

    /// Sends a file's contents, or says why it cannot.
    fn file(&mut self, id: u32, offset: u64, digest: Digest) -> Result<(), Error> {
        let Some(Open { what: What::File(path, size), below, .. }) = self.open.get(&id) else {
            return Err(Error::Protocol("it wants what it has given up"));
        };
        let (opened, announced) = (open(path, below), *size);
        let sent = match opened {
            Ok(file) => self.contents(id, file, offset, digest, announced)?,
            Err(error) => Err(said(&error)),
        };
        match sent {
            Ok(()) => Ok(()),
            Err(text) => {
                // What the receiver has told is not told again.
                let text = if self.open.contains_key(&id) { text } else { String::new() };
                if let Some(open) = self.open.get(&id).filter(|_| !text.is_empty()) {
                    (self.watch.tell)(crate::Trouble {
                        side: Side::Source,
                        path: self.shown(open.source, &open.below),
                        text: text.clone(),
                        failure: true,
                    });
                }
                Ok(self.to.put(&Message::Abort { id, text })?)
            }
        }
    }

    /// The outer error is the link's, the inner one the file's.
    fn contents(
        &mut self,
        id: u32,
        mut file: File,
        offset: u64,
        digest: Digest,
        announced: u64,
    ) -> Result<Result<(), String>, Error> {
        macro_rules! or_give_up {
            ($result:expr) => {
                match $result {
                    Ok(value) => value,
                    Err(error) => return Ok(Err(said(&error))),
                }
            };
        }
        let before = or_give_up!(file.metadata());
        let size = before.len();
        if size > announced {
            Watch::add(&self.watch.progress.announced, size - announced);
        } else {
            Watch::add(&self.watch.progress.moved, announced - size);
        }
        let mut hash = Sha256::new();
        let mut position = 0;
        if offset > 0 && offset <= size {
            let mut beginning = (&mut file).take(offset);
            while position < offset {
                let read = or_give_up!(read(&mut beginning, &mut self.chunk));
                if read == 0 {
                    break;
                }
                hash.update(&self.chunk[..read]);
                position += read as u64;
            }
            let found: Digest = hash.clone().finalize().into();
            if position != offset || found != digest {
                // Another file's beginning, or that of an earlier state of this one.
                or_give_up!(file.seek(SeekFrom::Start(0)));
                (hash, position) = (Sha256::new(), 0);
            }
        }
        Watch::add(&self.watch.progress.moved, position);
        self.to.put(&Message::Begin { id, offset: position, size, modified: modified(&before) })?;
        while position < size {
            let most = self.chunk.len().min((size - position).try_into().unwrap_or(usize::MAX));
            let read = or_give_up!(read(&mut file, &mut self.chunk[..most]));
            if read == 0 {
                return Ok(Err("it became shorter while it was read; copy it again".into()));
            }
            hash.update(&self.chunk[..read]);
            position += read as u64;
            self.to.put_data(&self.chunk[..read])?;
            Watch::add(&self.watch.progress.moved, read as u64);
            Watch::add(&self.watch.progress.carried, read as u64);
            self.look_at_answers()?;
            if !self.open.contains_key(&id) {
                Watch::add(&self.watch.progress.moved, size - position);
                return Ok(Err(String::new()));
            }
        }
        let after = or_give_up!(file.metadata());
        if after.len() > size {
            if let Some(open) = self.open.get(&id) {
                let (source, below) = (open.source, open.below.clone());
                let text = "it grew while it was read; the copy ends where the file ended at first"
                    .to_owned();
                self.remark(source, below, false, text)?;
            }
        } else if modified(&after) != modified(&before) {
            return Ok(Err("it changed while it was read; copy it again".into()));
        }
        self.to.put(&Message::Finish { digest: hash.finalize().into() })?;
        Ok(Ok(()))
    }
}

/// Opens a file and nothing else: it may have become something else since it was found.
fn open(path: &Path, below: &Below) -> io::Result<File> {
    let mut flags = OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    if !below.as_bytes().is_empty() {
        flags |= OFlag::O_NOFOLLOW;
    }
    let file = OpenOptions::new().read(true).custom_flags(flags.bits()).open(path)?;
    if file.metadata()?.is_file() {
        Ok(file)
    } else {
        Err(io::Error::other("it is no file any more"))
    }
}

fn read(from: &mut impl Read, chunk: &mut [u8]) -> io::Result<usize> {
    loop {
        match from.read(chunk) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            read => return read,
        }
    }
}

fn gone() -> Error {
    Error::Link(io::ErrorKind::UnexpectedEof.into())
}
