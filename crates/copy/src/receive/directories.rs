//! The directories of a transfer: created before their entries, and finished after them.

use std::io::{self, Write};

use super::{Pending, Receiver};
use crate::Error;
use crate::existing::{self, ReadyDir};
use crate::metadata::{Made, NotSet};
use crate::name::RelativePath;
use crate::wire::{Message, Time};

/// How deeply directories may be nested: a path of 4,095 bytes has no more components.
const MAX_DEPTH: usize = 2048;

/// A directory whose entries are being announced.
pub(super) struct OpenDir {
    path: RelativePath,
    mode: u16,
    modified: Time,
    /// `None` if the directory does not exist; its entries fail then.
    pub(super) ready: Option<ReadyDir>,
}

impl<W: Write> Receiver<'_, W> {
    pub(super) fn directory_entry(
        &mut self,
        id: u32,
        (source, path): (u32, RelativePath),
        mode: u16,
        modified: Time,
        in_missing: bool,
    ) -> Result<(), Error> {
        if self.open_dirs.len() >= MAX_DEPTH {
            return Err(Error::Protocol("directories are nested too deeply"));
        }
        let ready = if in_missing { None } else { Some(self.ready_directory(source, &path)) };
        let (answer, ready) = match ready {
            Some(Ok(ready)) => (Ok(ready.made == Made::Before), Some(ready)),
            Some(Err(error)) => (Err(Some(error)), None),
            None => (Err(None), None),
        };
        self.open_dirs.push(OpenDir { path: path.clone(), mode, modified, ready });
        match answer {
            Ok(unchanged) => Ok(self.answers.put(&Message::Done { id, unchanged })?),
            Err(Some(error)) => self.fail(id, &path, &error),
            Err(None) => self.fail_silently(id),
        }
    }

    fn ready_directory(&mut self, source: u32, path: &RelativePath) -> io::Result<ReadyDir> {
        if path.as_bytes().is_empty() {
            // The destination itself, which exists already.
            return Ok(ReadyDir { made: self.destination.made, mode_before: None });
        }
        existing::make_directory(&self.destination.entry(source, path)?)
    }

    pub(super) fn on_leave(&mut self, id: u32) -> Result<(), Error> {
        self.check_id(id)?;
        let directory = self
            .open_dirs
            .pop()
            .ok_or(Error::Protocol("it leaves a directory that it did not enter"))?;
        self.pending.push_back(Pending::Leave(id, directory));
        if self.incoming.is_none() { self.finish_directories() } else { Ok(()) }
    }

    /// Sets mode and time of the directories before the next wanted file. Writing a file would
    /// change the time of its directory.
    pub(super) fn finish_directories(&mut self) -> Result<(), Error> {
        while let Some(Pending::Leave(..)) = self.pending.front() {
            let Some(Pending::Leave(id, directory)) = self.pending.pop_front() else { break };
            let Some(ready) = &directory.ready else {
                // Its entry has failed, and only that is counted.
                self.answers.put(&Message::Failed { id, text: String::new() })?;
                continue;
            };
            match self.set_directory_metadata(&directory, ready) {
                Ok(not_set) => {
                    self.remark(id, &directory.path, &not_set)?;
                    self.answers.put(&Message::Done { id, unchanged: true })?;
                }
                Err(error) => self.fail(id, &directory.path, &error)?,
            }
        }
        Ok(())
    }

    fn set_directory_metadata(
        &mut self,
        directory: &OpenDir,
        ready: &ReadyDir,
    ) -> io::Result<NotSet> {
        let mut metadata = self.policy.metadata(directory.mode, directory.modified, ready.made);
        // Only the low bits are set, and the others stay.
        metadata.mode = metadata.mode.or(ready.mode_before.map(|mode| (mode & 0o777) as u16));
        let top = &mut self.destination.directory;
        if !directory.path.as_bytes().is_empty() {
            top.entry(&directory.path)?.directory_metadata_handle()?.set(metadata)
        } else if ready.made == Made::Now {
            top.metadata_handle()?.set(metadata)
        } else {
            Ok(NotSet::default())
        }
    }

    /// Gives directories that were made writable their mode again.
    pub(super) fn restore_modes(&mut self) {
        let waiting = self.pending.iter().filter_map(|pending| match pending {
            Pending::Leave(_, directory) => Some(directory),
            Pending::File(_) => None,
        });
        for OpenDir { path, ready, .. } in waiting.chain(self.open_dirs.iter().rev()) {
            let Some(mode) = ready.as_ref().and_then(|ready| ready.mode_before) else { continue };
            let entry = self.destination.directory.entry(path);
            // If this fails, the next transfer sets the mode.
            let _ = entry.and_then(|entry| entry.directory_metadata_handle()?.set_mode(mode));
        }
    }
}
