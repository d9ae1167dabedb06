//! The receiving side: decides what is wanted, writes it, and answers for everything that was
//! announced.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::{FileStat, SFlag};
use sha2::{Digest as _, Sha256};

use crate::confined_dir::{self, Folder, Place};
use crate::name::{Below, Name};
use crate::partial::{self, Partial};
use crate::stream::{Reader, Writer};
use crate::wire::{Digest, Entry, Kind, Message, Time};
use crate::{Error, Side, WINDOW, Watch, said};

/// So many beginnings of files are held open at once; further ones are sent again from their start.
const RESUMED: usize = 16;

/// How deep directories may be in each other: a path of 4,095 bytes has no more steps.
const DEPTH: usize = 2048;

/// Where things go, and under which names.
#[derive(Debug)]
pub struct Destination {
    folder: Folder,
    names: Vec<Name>,
}

impl Destination {
    /// As cp(1) has it: into the directory that is there, or else, for a single thing, under that
    /// name.
    ///
    /// A path that ends in `/`, or that is to take several things, is made a directory if there is
    /// nothing. Links on this path are followed: they are its user's own.
    ///
    /// # Errors
    ///
    /// What stands in the way, with the path.
    pub fn resolve(path: &[u8], names: Vec<Name>) -> Result<Self, Error> {
        let shown = String::from_utf8_lossy(path);
        let refused = |error: io::Error| Error::Refused(format!("{shown}: {}", said(&error)));
        let path = match path {
            b"" => PathBuf::from("."),
            path => PathBuf::from(OsStr::from_bytes(path)),
        };
        let open = |path: &Path| Folder::open(path).map_err(refused);
        if names.is_empty() {
            return Err(Error::Refused("nothing was named that could be copied".into()));
        }
        if path.is_dir() {
            return Ok(Self { folder: open(&path)?, names });
        }
        if names.len() != 1 || shown.ends_with('/') {
            match std::fs::create_dir(&path) {
                // Another copy may have made it this moment.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists && !path.is_dir() => {
                    return Err(Error::Refused(format!("{shown}: it is no directory")));
                }
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(refused(error));
                }
                _ => {}
            }
            return Ok(Self { folder: open(&path)?, names });
        }
        let name = path.file_name().and_then(|name| Name::new(name.as_bytes()).ok());
        let name =
            name.ok_or_else(|| Error::Refused(format!("{shown}: there is no such directory")))?;
        let parent = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        Ok(Self { folder: open(parent)?, names: vec![name] })
    }

    fn path(&self, source: u32, below: &Below) -> Result<Below, Error> {
        let name = self.names.get(source as usize);
        name.map(|name| below.under(name))
            .ok_or(Error::Protocol("it sends something that was not named"))
    }
}

/// A file that was announced and asked for.
struct Wanted {
    id: u32,
    path: Below,
    mode: u16,
    size: u64,
    beginning: Option<Partial>,
}

/// A directory that has been announced, and whether it is there.
struct Entered {
    path: Below,
    mode: u16,
    modified: Time,
    there: bool,
}

/// What is to be done once everything that was wanted before it has come.
enum Waiting {
    File(Wanted),
    Leave(u32, Entered),
}

/// The file whose contents are coming.
struct Coming {
    wanted: Wanted,
    /// Nothing once it could not be written.
    partial: Option<Partial>,
    left: u64,
    modified: Time,
}

struct Receiver<'a, W: Write> {
    destination: Destination,
    answers: Writer<W>,
    watch: Watch<'a>,
    next: u32,
    entered: Vec<Entered>,
    waiting: VecDeque<Waiting>,
    resumed: usize,
    coming: Option<Coming>,
    listed: bool,
}

/// Receives until everything that was announced is there, or has been told why not.
///
/// # Errors
///
/// See [`Error`]. What was whole by then stays; the beginning of a large file stays beside its
/// place, for the next attempt.
pub fn receive<R: Read, W: Write>(
    from: &mut Reader<R>,
    to: Writer<W>,
    destination: Destination,
    watch: Watch<'_>,
) -> Result<(), Error> {
    let mut receiver = Receiver {
        destination,
        answers: to,
        watch,
        next: 0,
        entered: Vec::new(),
        waiting: VecDeque::new(),
        resumed: 0,
        coming: None,
        listed: false,
    };
    let outcome = receiver.run(from);
    if let (Err(Error::Link(_)), Some(Coming { partial: Some(partial), .. })) =
        (&outcome, &mut receiver.coming)
    {
        partial.keep();
    }
    outcome
}

impl<W: Write> Receiver<'_, W> {
    fn run(&mut self, from: &mut Reader<impl Read>) -> Result<(), Error> {
        loop {
            if self.listed && self.waiting.is_empty() && self.coming.is_none() {
                return Ok(self.answers.flush()?);
            }
            if from.is_drained() {
                self.answers.flush()?;
            }
            let ended = || Error::Link(io::ErrorKind::UnexpectedEof.into());
            match from.read()?.ok_or_else(ended)? {
                Message::Entry(entry) => self.entry(entry)?,
                Message::Leave { id } => self.leave(id)?,
                Message::Begin { id, offset, size, modified } => {
                    self.begin(id, offset, size, modified)?
                }
                Message::Data(bytes) => self.data(&bytes)?,
                Message::Finish { digest } => self.finish(digest)?,
                Message::Abort { id, text } => self.abort(id, text)?,
                Message::Remark { source, below, failure, text } => {
                    let path = self.destination.path(source, &below)?;
                    self.watch.trouble(Side::Source, path.as_bytes().to_vec(), text, failure);
                }
                Message::Listed if self.entered.is_empty() => {
                    self.listed = true;
                    self.watch.progress.listed.store(true, std::sync::atomic::Ordering::Relaxed);
                }
                Message::Listed => return Err(Error::Protocol("it ends inside a directory")),
                Message::Refused { text } => return Err(Error::Refused(text)),
                _ => return Err(Error::Protocol("it says what only a receiver says")),
            }
        }
    }

    /// Numbers count up, and nothing comes behind the end.
    fn number(&mut self, id: u32) -> Result<(), Error> {
        if id != self.next || self.listed {
            return Err(Error::Protocol("a number is out of order"));
        }
        if self.waiting.len() >= WINDOW {
            return Err(Error::Protocol("it announces too much at once"));
        }
        self.next = self.next.checked_add(1).ok_or(Error::Protocol("there are too many files"))?;
        Ok(())
    }

    fn entry(&mut self, entry: Entry) -> Result<(), Error> {
        self.number(entry.id)?;
        let path = self.destination.path(entry.source, &entry.below)?;
        if let Kind::File { size, .. } = entry.kind {
            Watch::add(&self.watch.progress.announced, size);
        }
        let missing = self.entered.last().is_some_and(|directory| !directory.there);
        let Entry { id, mode, modified, kind, .. } = entry;
        if let Kind::Directory = kind {
            if self.entered.len() >= DEPTH {
                return Err(Error::Protocol("directories are too deep in each other"));
            }
            let made = if missing { None } else { Some(self.directory(&path)) };
            let there = matches!(made, Some(Ok(_)));
            self.entered.push(Entered { path: path.clone(), mode, modified, there });
            return match made {
                Some(Ok(unchanged)) => Ok(self.answers.put(&Message::Done { id, unchanged })?),
                Some(Err(error)) => self.failed(id, &path, &error),
                None => self.failed_silently(id),
            };
        }
        if missing {
            self.passed(&kind);
            return self.failed_silently(id);
        }
        match kind {
            Kind::Link { target } => match self.link(&path, &target, modified) {
                Ok(unchanged) => self.done(id, unchanged),
                Err(error) => self.failed(id, &path, &error),
            },
            Kind::File { size, digest } => match self.file(&path, mode, modified, size, digest) {
                Ok(None) => {
                    Watch::add(&self.watch.progress.moved, size);
                    self.done(id, true)
                }
                Ok(Some(beginning)) => {
                    let (offset, digest) = match &beginning {
                        Some(partial) => (partial.length(), partial.digest()),
                        None => (0, Sha256::digest([]).into()),
                    };
                    self.resumed += usize::from(beginning.is_some());
                    self.waiting.push_back(Waiting::File(Wanted {
                        id,
                        path,
                        mode,
                        size,
                        beginning,
                    }));
                    Ok(self.answers.put(&Message::Want { id, offset, digest })?)
                }
                Err(error) => {
                    Watch::add(&self.watch.progress.moved, size);
                    self.failed(id, &path, &error)
                }
            },
            Kind::Directory => Ok(()),
        }
    }

    fn passed(&self, kind: &Kind) {
        if let Kind::File { size, .. } = kind {
            Watch::add(&self.watch.progress.moved, *size);
        }
    }

    /// Whether it had been there.
    fn directory(&mut self, path: &Below) -> io::Result<bool> {
        let place = self.destination.folder.place(path)?;
        match place.look()?.as_ref().map(kind_of) {
            None => match place.make_directory() {
                // Another copy may have made it this moment; if it is something else, what goes
                // into it fails.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(true),
                made => made.map(|()| false),
            },
            Some(SFlag::S_IFDIR) => Ok(true),
            Some(SFlag::S_IFLNK) => Err(io::Error::other(
                "a symbolic link stands in the place of this directory; links are not followed",
            )),
            Some(_) => {
                Err(io::Error::other("something else stands in the place of this directory"))
            }
        }
    }

    fn link(&mut self, path: &Below, target: &[u8], modified: Time) -> io::Result<bool> {
        let place = self.destination.folder.place(path)?;
        match place.look()?.as_ref().map(kind_of) {
            Some(SFlag::S_IFLNK) if place.link_target()? == target => return Ok(true),
            Some(SFlag::S_IFDIR) => return Err(a_directory()),
            _ => {}
        }
        // Made under another name and moved, so that the place is never empty; a digest, because
        // nothing else has that name.
        let mut name = b".".to_vec();
        Sha256::digest(path.as_bytes())
            .iter()
            .for_each(|byte| name.extend_from_slice(format!("{byte:02x}").as_bytes()));
        name.extend_from_slice(b".labsh-part");
        let beside = place.beside(name);
        if beside.look()?.is_some() {
            beside.remove()?;
        }
        beside.make_link(target, modified)?;
        beside.rename(&place).inspect_err(|_| {
            // Its own name was not taken, so it is still ours.
            let _ = beside.remove();
        })?;
        Ok(false)
    }

    /// Nothing where the file is there already; otherwise it is wanted, perhaps from where an
    /// earlier attempt was cut off.
    fn file(
        &mut self,
        path: &Below,
        mode: u16,
        modified: Time,
        size: u64,
        digest: Option<Digest>,
    ) -> io::Result<Option<Option<Partial>>> {
        let place = self.destination.folder.place(path)?;
        match place.look()? {
            Some(found) if kind_of(&found) == SFlag::S_IFDIR => return Err(a_directory()),
            Some(found) if kind_of(&found) == SFlag::S_IFREG && found.st_size as u64 == size => {
                match made_the_same(&place, &found, mode, modified, digest) {
                    Ok(true) => return Ok(None),
                    Ok(false) => {}
                    // Its owner may not read it, and need not in order to replace it.
                    Err(error) if error.raw_os_error() == Some(Errno::EACCES as i32) => {}
                    Err(error) => return Err(error),
                }
            }
            _ => {}
        }
        if self.resumed >= RESUMED {
            return Ok(Some(None));
        }
        Partial::left_over(&place, size).map(Some)
    }

    fn leave(&mut self, id: u32) -> Result<(), Error> {
        self.number(id)?;
        let entered = self
            .entered
            .pop()
            .ok_or(Error::Protocol("it leaves a directory that it was not in"))?;
        self.waiting.push_back(Waiting::Leave(id, entered));
        if self.coming.is_none() { self.leave_directories() } else { Ok(()) }
    }

    /// Directories get their times when nothing more is written in them.
    fn leave_directories(&mut self) -> Result<(), Error> {
        loop {
            let (id, entered) = match self.waiting.pop_front() {
                Some(Waiting::Leave(id, entered)) => (id, entered),
                Some(file) => {
                    self.waiting.push_front(file);
                    return Ok(());
                }
                None => return Ok(()),
            };
            if !entered.there {
                self.failed_silently(id)?;
                continue;
            }
            let place = self.destination.folder.place(&entered.path);
            match place.and_then(|place| place.dress_directory(entered.mode, entered.modified)) {
                Ok(()) => self.answers.put(&Message::Done { id, unchanged: true })?,
                Err(error) => self.failed(id, &entered.path, &error)?,
            }
        }
    }

    /// The oldest wanted file, which must be this one.
    fn front(&mut self, id: u32) -> Result<Wanted, Error> {
        match self.waiting.pop_front() {
            Some(Waiting::File(wanted)) if wanted.id == id && self.coming.is_none() => {
                self.resumed -= usize::from(wanted.beginning.is_some());
                Ok(wanted)
            }
            _ => Err(Error::Protocol("a file comes that was not wanted, or not yet")),
        }
    }

    fn begin(&mut self, id: u32, offset: u64, size: u64, modified: Time) -> Result<(), Error> {
        let mut wanted = self.front(id)?;
        let beginning = wanted.beginning.take();
        let offered = beginning.as_ref().map_or(0, Partial::length);
        if (offset != 0 && offset != offered) || offset > size {
            return Err(Error::Protocol("a file begins in the middle"));
        }
        // What it had grown or shrunk by meanwhile.
        if size > wanted.size {
            Watch::add(&self.watch.progress.announced, size - wanted.size);
        } else {
            Watch::add(&self.watch.progress.moved, wanted.size - size);
        }
        Watch::add(&self.watch.progress.moved, offset);
        let opened = match beginning {
            Some(partial) if offset > 0 => Ok(partial),
            beginning => {
                drop(beginning);
                self.destination
                    .folder
                    .place(&wanted.path)
                    .and_then(|place| Partial::create(&place))
            }
        };
        let partial = match opened {
            Ok(partial) => Some(partial),
            Err(error) => {
                self.failed(id, &wanted.path.clone(), &error)?;
                None
            }
        };
        self.coming = Some(Coming { wanted, partial, left: size - offset, modified });
        Ok(())
    }

    fn data(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let coming =
            self.coming.as_mut().ok_or(Error::Protocol("contents come that belong to no file"))?;
        let length = bytes.len() as u64;
        coming.left = coming
            .left
            .checked_sub(length)
            .ok_or(Error::Protocol("more comes than a file was to have"))?;
        Watch::add(&self.watch.progress.moved, length);
        Watch::add(&self.watch.progress.carried, length);
        let Some(partial) = &mut coming.partial else { return Ok(()) };
        if let Err(error) = partial.write(bytes) {
            coming.partial = None;
            let (id, path) = (coming.wanted.id, coming.wanted.path.clone());
            self.failed(id, &path, &error)?;
            // It need not send the rest.
            self.answers.flush()?;
        }
        Ok(())
    }

    fn finish(&mut self, digest: Digest) -> Result<(), Error> {
        let coming = self.coming.take().ok_or(Error::Protocol("a file ends that has not begun"))?;
        if coming.left > 0 {
            return Err(Error::Protocol("less comes than a file was to have"));
        }
        let Coming { wanted: Wanted { id, path, mode, .. }, partial, modified, .. } = coming;
        if let Some(partial) = partial {
            let moved = if partial.digest() == digest {
                self.destination
                    .folder
                    .place(&path)
                    .and_then(|place| partial.finish(&place, mode, modified))
            } else {
                Err(io::Error::other(
                    "what arrived is not what was sent (SHA-256 differs); copy it again",
                ))
            };
            match moved {
                Ok(()) => self.done(id, false)?,
                Err(error) => self.failed(id, &path, &error)?,
            }
        }
        self.leave_directories()
    }

    fn abort(&mut self, id: u32, text: String) -> Result<(), Error> {
        let (wanted, left, told) = match self.coming.take() {
            Some(coming) if coming.wanted.id == id => {
                (coming.wanted, coming.left, coming.partial.is_none())
            }
            Some(_) => return Err(Error::Protocol("a file is given up that has not begun")),
            None => {
                let wanted = self.front(id)?;
                let size = wanted.size;
                (wanted, size, false)
            }
        };
        Watch::add(&self.watch.progress.moved, left);
        if !told {
            self.watch.trouble(Side::Source, wanted.path.as_bytes().to_vec(), text, true);
            self.answers.put(&Message::Failed { id, text: String::new() })?;
        }
        self.leave_directories()
    }

    /// A file or a link is as it should be; directories are not counted.
    fn done(&mut self, id: u32, unchanged: bool) -> Result<(), Error> {
        let progress = self.watch.progress;
        Watch::add(if unchanged { &progress.unchanged } else { &progress.copied }, 1);
        Ok(self.answers.put(&Message::Done { id, unchanged })?)
    }

    fn failed(&mut self, id: u32, path: &Below, error: &io::Error) -> Result<(), Error> {
        // What the system says would be taken for a trouble of the file that is read.
        let text = match error.raw_os_error() {
            Some(_) => format!("its copy cannot be written: {}", said(error)),
            None => said(error),
        };
        self.watch.trouble(Side::Destination, path.as_bytes().to_vec(), text.clone(), true);
        Ok(self.answers.put(&Message::Failed { id, text })?)
    }

    /// It follows from what was said before.
    fn failed_silently(&mut self, id: u32) -> Result<(), Error> {
        Watch::add(&self.watch.progress.failed, 1);
        Ok(self.answers.put(&Message::Failed { id, text: String::new() })?)
    }
}

fn kind_of(stat: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT
}

fn a_directory() -> io::Error {
    io::Error::other("a directory stands in its place")
}

/// Whether a file of the right size is the one that is announced; if so, it has the right time and
/// rights after that.
fn made_the_same(
    place: &Place,
    found: &FileStat,
    mode: u16,
    modified: Time,
    digest: Option<Digest>,
) -> io::Result<bool> {
    let in_time = confined_dir::modified(found) == modified;
    let same = match digest {
        None => in_time,
        Some(digest) => has_digest(place, digest)?,
    };
    if same && !(in_time && found.st_mode & 0o7777 == u32::from(mode)) {
        place.dress_file(found, mode, modified)?;
    }
    Ok(same)
}

fn has_digest(place: &Place, digest: Digest) -> io::Result<bool> {
    Ok(partial::digest_of(&mut place.file(OFlag::O_RDONLY)?)?.0 == digest)
}
