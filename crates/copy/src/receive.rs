//! The receiving side: asks for the files that differ, writes them, and answers every entry.

mod directories;

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::sync::atomic::Ordering;

use sha2::{Digest as _, Sha256};

use self::directories::OpenDir;
use crate::destination::Destination;
use crate::digest::DigestKind;
use crate::existing::{self, AnnouncedFile, Existing};
use crate::metadata::{Made, MetadataPolicy, NotSet};
use crate::name::RelativePath;
use crate::partial::PartialFile;
use crate::stream::{Reader, Writer};
use crate::wire::{Digest, Entry, HOLES, Kind, Message, Time};
use crate::{Error, MAX_PENDING_ENTRIES, Observer, ReceiveOptions, Side, os_error_text};

/// How many partial files of earlier transfers are open at once. Further ones are not resumed.
const MAX_OPEN_PARTIALS: usize = 16;

/// A file that was announced and that the sender was asked for.
struct Wanted {
    id: u32,
    path: RelativePath,
    mode: u16,
    size: u64,
    partial: Option<PartialFile>,
}

/// What waits for the files that were wanted before it.
enum Pending {
    File(Wanted),
    Leave(u32, OpenDir),
}

/// The file whose contents are arriving.
struct Incoming {
    wanted: Wanted,
    /// `None` after a failure to write it.
    partial: Option<PartialFile>,
    bytes_arrived: u64,
    bytes_left: u64,
    modified: Time,
}

struct Receiver<'a, W: Write> {
    destination: Destination,
    answers: Writer<W>,
    observer: Observer<'a>,
    next_id: u32,
    open_dirs: Vec<OpenDir>,
    pending: VecDeque<Pending>,
    open_partials: usize,
    incoming: Option<Incoming>,
    listed: bool,
    policy: MetadataPolicy,
    /// Whether the sender knows notes and [`HOLES`].
    sender_extended: bool,
    /// Whether a remark about metadata that cannot be set was made.
    remarked: bool,
}

/// Receives until every announced entry is settled.
///
/// # Errors
///
/// See [`Error`]. Complete files stay, and the partial file of a large one stays for the next
/// transfer.
pub fn receive<R: Read, W: Write>(
    from: &mut Reader<R>,
    to: Writer<W>,
    destination: Destination,
    options: ReceiveOptions,
    observer: Observer<'_>,
) -> Result<(), Error> {
    let mut receiver = Receiver {
        destination,
        answers: to,
        observer,
        next_id: 0,
        open_dirs: Vec::new(),
        pending: VecDeque::new(),
        open_partials: 0,
        incoming: None,
        listed: false,
        policy: MetadataPolicy::new(options),
        sender_extended: false,
        remarked: false,
    };
    let outcome = receiver.run(from);
    if let (Err(Error::Disconnected(_)), Some(Incoming { partial: Some(partial), .. })) =
        (&outcome, &mut receiver.incoming)
    {
        partial.keep_for_resuming();
    }
    if outcome.is_err() {
        // Removes a partial file that is not resumed, as long as its directory is writable.
        receiver.incoming = None;
        receiver.restore_modes();
    }
    outcome
}

impl<W: Write> Receiver<'_, W> {
    fn run(&mut self, from: &mut Reader<impl Read>) -> Result<(), Error> {
        loop {
            if self.listed && self.pending.is_empty() && self.incoming.is_none() {
                return Ok(self.answers.flush()?);
            }
            if from.is_drained() {
                self.answers.flush()?;
            }
            let ended = || Error::Disconnected(io::ErrorKind::UnexpectedEof.into());
            match from.read()?.ok_or_else(ended)? {
                Message::Entry(entry) => self.on_entry(entry)?,
                Message::Leave { id } => self.on_leave(id)?,
                Message::Begin { id, offset, size, modified } => {
                    self.on_begin(id, offset, size, modified)?
                }
                Message::Data(bytes) => self.on_data(&bytes)?,
                Message::Finish { digest } => self.on_finish(digest)?,
                Message::Abort { id, text } => self.on_abort(id, text)?,
                Message::Hole { length } if self.sender_extended => self.on_hole(length)?,
                Message::Remark { source, below, failure, text } => {
                    let path = self.destination.path(source, &below)?;
                    if text.is_empty() && !failure {
                        // It counts only as the first message.
                        self.sender_extended |= self.next_id == 0;
                        continue;
                    }
                    self.observer.report(Side::Source, path.as_bytes().to_vec(), text, failure);
                }
                Message::Listed if self.open_dirs.is_empty() => {
                    self.listed = true;
                    self.observer.progress.listed.store(true, Ordering::Relaxed);
                }
                Message::Listed => return Err(Error::Protocol("the list ends inside a directory")),
                Message::Refused { text } => return Err(Error::Refused(text)),
                _ => return Err(Error::Protocol("unexpected message: only a receiver sends it")),
            }
        }
    }

    /// Checks the id of an entry or leave.
    fn check_id(&mut self, id: u32) -> Result<(), Error> {
        if id != self.next_id || self.listed {
            return Err(Error::Protocol("an id is out of order"));
        }
        if self.pending.len() >= MAX_PENDING_ENTRIES {
            return Err(Error::Protocol("it announces too many entries at once"));
        }
        if id == 0 && self.sender_extended {
            // Not earlier: a sender that has nothing to announce does not wait for an answer.
            self.answers.put(&Message::Extensions { bits: HOLES })?;
        }
        self.next_id =
            self.next_id.checked_add(1).ok_or(Error::Protocol("there are too many files"))?;
        Ok(())
    }

    fn on_entry(&mut self, entry: Entry) -> Result<(), Error> {
        self.check_id(entry.id)?;
        let path = self.destination.path(entry.source, &entry.below)?;
        let in_missing = self.open_dirs.last().is_some_and(|directory| directory.ready.is_none());
        let Entry { id, source, mode, modified, kind, .. } = entry;
        if path.as_bytes().is_empty() && kind != Kind::Directory {
            return Err(Error::Protocol(
                "it sends no directory where the contents of one were named",
            ));
        }
        match kind {
            Kind::Directory => {
                let place = (source, path);
                self.directory_entry(id, place, mode, modified, in_missing)
            }
            Kind::Link { .. } if in_missing => self.fail_silently(id),
            Kind::Link { target } => {
                let entry = self.destination.entry(source, &path);
                let modified = self.policy.time(modified);
                match entry.and_then(|entry| existing::make_link(&entry, &target, modified)) {
                    Ok(unchanged) => self.done(id, unchanged),
                    Err(error) => self.fail(id, &path, &error),
                }
            }
            Kind::File { size, digest } => {
                Observer::add(&self.observer.progress.announced_bytes, size);
                if in_missing {
                    Observer::add(&self.observer.progress.processed_bytes, size);
                    return self.fail_silently(id);
                }
                let entry = self.destination.entry(source, &path);
                let kind = self.digest_kind();
                let may_resume = self.open_partials < MAX_OPEN_PARTIALS;
                let metadata = self.policy.metadata(mode, modified, Made::Before);
                let file = AnnouncedFile { modified, size, digest, metadata };
                let existing = entry.and_then(|entry| file.compare(&entry, may_resume, kind));
                self.file_entry(Wanted { id, path, mode, size, partial: None }, existing)
            }
        }
    }

    /// Answers the entry of a file.
    fn file_entry(&mut self, wanted: Wanted, existing: io::Result<Existing>) -> Result<(), Error> {
        let (id, size) = (wanted.id, wanted.size);
        match existing {
            Ok(Existing::Unchanged(not_set)) => {
                self.remark(id, &wanted.path, &not_set)?;
                Observer::add(&self.observer.progress.processed_bytes, size);
                self.done(id, true)
            }
            Ok(Existing::Different(partial)) => {
                let (offset, digest) = match &partial {
                    Some(partial) => (partial.length(), partial.digest()),
                    None => (0, Sha256::digest([]).into()),
                };
                self.open_partials += usize::from(partial.is_some());
                self.pending.push_back(Pending::File(Wanted { partial, ..wanted }));
                Ok(self.answers.put(&Message::Want { id, offset, digest })?)
            }
            Err(error) => {
                Observer::add(&self.observer.progress.processed_bytes, size);
                self.fail(id, &wanted.path, &error)
            }
        }
    }

    /// Takes the oldest wanted file, which must have this id.
    fn take_wanted(&mut self, id: u32) -> Result<Wanted, Error> {
        match self.pending.pop_front() {
            Some(Pending::File(wanted)) if wanted.id == id && self.incoming.is_none() => {
                self.open_partials -= usize::from(wanted.partial.is_some());
                Ok(wanted)
            }
            _ => Err(Error::Protocol("a file begins that was not wanted, or not yet")),
        }
    }

    fn on_begin(&mut self, id: u32, offset: u64, size: u64, modified: Time) -> Result<(), Error> {
        let mut wanted = self.take_wanted(id)?;
        let partial = wanted.partial.take();
        let offered = partial.as_ref().map_or(0, PartialFile::length);
        if (offset != 0 && offset != offered) || offset > size {
            return Err(Error::Protocol("a file begins at an offset that was not requested"));
        }
        // The size may have changed since the file was announced.
        let progress = self.observer.progress;
        if size > wanted.size {
            Observer::add(&progress.announced_bytes, size - wanted.size);
        } else {
            Observer::add(&progress.processed_bytes, wanted.size - size);
        }
        Observer::add(&progress.processed_bytes, offset);
        let opened = match partial {
            Some(partial) if offset > 0 => Ok(partial),
            partial => {
                // Closes the old partial file, which holds the lock, before it is opened again.
                drop(partial);
                let entry = self.destination.directory.entry(&wanted.path);
                let kind = self.digest_kind();
                entry.and_then(|entry| PartialFile::create(&entry, kind))
            }
        };
        let partial = match opened {
            Ok(partial) => Some(partial),
            Err(error) => {
                self.fail(id, &wanted.path, &error)?;
                None
            }
        };
        let (bytes_arrived, bytes_left) = (0, size - offset);
        self.incoming = Some(Incoming { wanted, partial, bytes_arrived, bytes_left, modified });
        Ok(())
    }

    /// Returns which digests of files are sent.
    fn digest_kind(&self) -> DigestKind {
        if self.sender_extended { DigestKind::Sparse } else { DigestKind::Plain }
    }

    fn on_data(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.on_contents(bytes.len() as u64, |partial| partial.write(bytes))
    }

    fn on_hole(&mut self, length: u64) -> Result<(), Error> {
        self.on_contents(length, |partial| partial.write_hole(length))
    }

    fn on_contents(
        &mut self,
        length: u64,
        write: impl FnOnce(&mut PartialFile) -> io::Result<()>,
    ) -> Result<(), Error> {
        let incoming =
            self.incoming.as_mut().ok_or(Error::Protocol("data arrives outside of a file"))?;
        incoming.bytes_left = incoming
            .bytes_left
            .checked_sub(length)
            .ok_or(Error::Protocol("more data arrives than the file has"))?;
        incoming.bytes_arrived += length;
        Observer::add(&self.observer.progress.processed_bytes, length);
        let Some(partial) = &mut incoming.partial else { return Ok(()) };
        if let Err(error) = write(partial) {
            incoming.partial = None;
            let (id, path) = (incoming.wanted.id, incoming.wanted.path.clone());
            self.fail(id, &path, &error)?;
            // Flushed now, so that the sender can stop early.
            self.answers.flush()?;
        }
        Ok(())
    }

    fn on_finish(&mut self, digest: Digest) -> Result<(), Error> {
        let incoming =
            self.incoming.take().ok_or(Error::Protocol("a file ends that has not begun"))?;
        if incoming.bytes_left > 0 {
            return Err(Error::Protocol("less data arrives than the file has"));
        }
        let Incoming { wanted, partial, modified, bytes_arrived, .. } = incoming;
        let Wanted { id, path, mode, .. } = wanted;
        if let Some(partial) = partial {
            let finished = if partial.digest() == digest {
                self.finish_file(partial, &path, mode, modified)
            } else {
                Err(io::Error::other(
                    "what arrived is not what was sent (SHA-256 differs); copy it again",
                ))
            };
            match finished {
                Ok(not_set) => {
                    Observer::add(&self.observer.progress.transferred_bytes, bytes_arrived);
                    self.remark(id, &path, &not_set)?;
                    self.done(id, false)?;
                }
                Err(error) => self.fail(id, &path, &error)?,
            }
        }
        self.finish_directories()
    }

    fn finish_file(
        &mut self,
        partial: PartialFile,
        path: &RelativePath,
        mode: u16,
        modified: Time,
    ) -> io::Result<NotSet> {
        let to = self.destination.directory.entry(path)?;
        let replaced = existing::permissions(&to)?;
        partial.finish(&to, self.policy.metadata_of_new_file(mode, modified, replaced))
    }

    fn on_abort(&mut self, id: u32, text: String) -> Result<(), Error> {
        let (wanted, bytes_left, already_failed) = match self.incoming.take() {
            Some(incoming) if incoming.wanted.id == id => {
                (incoming.wanted, incoming.bytes_left, incoming.partial.is_none())
            }
            Some(_) => return Err(Error::Protocol("a file is aborted that has not begun")),
            None => {
                let wanted = self.take_wanted(id)?;
                let size = wanted.size;
                (wanted, size, false)
            }
        };
        Observer::add(&self.observer.progress.processed_bytes, bytes_left);
        if !already_failed {
            self.observer.report(Side::Source, wanted.path.as_bytes().to_vec(), text, true);
            self.answers.put(&Message::Failed { id, text: String::new() })?;
        }
        self.finish_directories()
    }

    /// Answers and counts a file or link that was copied or is unchanged.
    fn done(&mut self, id: u32, unchanged: bool) -> Result<(), Error> {
        let progress = self.observer.progress;
        Observer::add(if unchanged { &progress.unchanged } else { &progress.copied }, 1);
        Ok(self.answers.put(&Message::Done { id, unchanged })?)
    }

    /// Reports metadata that could not be set, once in a transfer: in a directory of another user
    /// there would be as many reports as files.
    fn remark(&mut self, id: u32, path: &RelativePath, not_set: &NotSet) -> Result<(), Error> {
        let Some(text) = not_set.remark().filter(|_| !self.remarked) else { return Ok(()) };
        self.remarked = true;
        self.observer.report(Side::Destination, path.as_bytes().to_vec(), text.clone(), false);
        if self.sender_extended {
            self.answers.put(&Message::Note { id, text })?;
        }
        Ok(())
    }

    /// Answers and reports an entry that cannot be written.
    fn fail(&mut self, id: u32, path: &RelativePath, error: &io::Error) -> Result<(), Error> {
        // Without this, the text of a system error would seem to be about the source.
        let text = match error.raw_os_error() {
            Some(_) => format!("its copy cannot be written: {}", os_error_text(error)),
            None => os_error_text(error),
        };
        self.observer.report(Side::Destination, path.as_bytes().to_vec(), text.clone(), true);
        Ok(self.answers.put(&Message::Failed { id, text })?)
    }

    /// Answers an entry that fails because of an earlier failure, which was reported.
    fn fail_silently(&mut self, id: u32) -> Result<(), Error> {
        Observer::add(&self.observer.progress.failed, 1);
        Ok(self.answers.put(&Message::Failed { id, text: String::new() })?)
    }
}
