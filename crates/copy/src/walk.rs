//! What there is to send: files and directories in the order in which they are announced, a
//! directory before its contents.

use std::ffi::OsStr;
use std::fs::{self, Metadata, ReadDir};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::name::Below;
use crate::partial::is_partial;
use crate::said;
use crate::send::Source;
use crate::wire::{Kind, Time};

/// The next thing.
pub(crate) enum Step {
    /// Something to announce.
    Found(Found),
    /// The directory that was announced last, and has not been left, holds no more.
    Leave,
    /// Something that cannot be sent, or is not to be.
    Remark { source: u32, below: Below, failure: bool, text: String },
}

/// Something that can be sent.
pub(crate) struct Found {
    pub(crate) source: u32,
    pub(crate) below: Below,
    pub(crate) path: PathBuf,
    pub(crate) mode: u16,
    pub(crate) modified: Time,
    pub(crate) kind: Kind,
}

/// Goes through the sources, one after the other. Holds open the directories that it is in.
pub(crate) struct Walk<'a> {
    sources: std::iter::Enumerate<std::slice::Iter<'a, Source>>,
    inside: Vec<(u32, Below, PathBuf, ReadDir)>,
}

impl<'a> Walk<'a> {
    pub(crate) fn new(sources: &'a [Source]) -> Self {
        Self { sources: sources.iter().enumerate(), inside: Vec::new() }
    }

    /// The next step; nothing at the end.
    pub(crate) fn next(&mut self) -> Option<Step> {
        let Some((source, below, path, entries)) = self.inside.last_mut() else {
            let (index, source) = self.sources.next()?;
            // What was named is meant itself, also by way of a link.
            return Some(self.look(
                index as u32,
                Below::default(),
                source.path.clone(),
                fs::metadata(&source.path),
            ));
        };
        let (source, below) = (*source, below.clone());
        let entry = match entries.next() {
            None => {
                self.inside.pop();
                return Some(Step::Leave);
            }
            Some(Err(error)) => {
                // The rest of the directory is not known.
                let text = format!("it cannot be read to its end: {}", said(&error));
                return Some(Step::Remark { source, below, failure: true, text });
            }
            Some(Ok(entry)) => entry,
        };
        let name = entry.file_name();
        let path = path.join(&name);
        match below.join(name.as_bytes()) {
            Ok(inner) if is_partial(name.as_bytes()) => Some(remark(
                source,
                inner,
                false,
                "left out: the beginning of a file that is being copied here",
            )),
            Ok(inner) => Some(self.look(source, inner, path.clone(), fs::symlink_metadata(&path))),
            Err(bad) => Some(remark(source, below, true, format!("{} in it: {bad}", shown(&name)))),
        }
    }

    fn look(
        &mut self,
        source: u32,
        below: Below,
        path: PathBuf,
        metadata: io::Result<Metadata>,
    ) -> Step {
        let described = metadata.and_then(|metadata| Ok((kind(&path, &metadata)?, metadata)));
        let (kind, metadata) = match described {
            Ok((Ok(kind), metadata)) => (kind, metadata),
            // What was named outright is missed; what was found on the way is only told.
            Ok((Err(what), _)) => {
                let named = below.as_bytes().is_empty();
                return remark(source, below, named, format!("left out: it is {what}"));
            }
            Err(error) => return remark(source, below, true, said(&error)),
        };
        if let Kind::Directory = kind {
            match fs::read_dir(&path) {
                Ok(entries) => self.inside.push((source, below.clone(), path.clone(), entries)),
                Err(error) => return remark(source, below, true, said(&error)),
            }
        }
        let mode = (metadata.mode() & 0o777) as u16;
        Step::Found(Found { source, below, path, mode, modified: modified(&metadata), kind })
    }
}

fn remark(source: u32, below: Below, failure: bool, text: impl Into<String>) -> Step {
    Step::Remark { source, below, failure, text: text.into() }
}

fn shown(name: &OsStr) -> String {
    name.to_string_lossy().chars().take(64).collect()
}

/// What it is, or what it is that is not copied.
fn kind(path: &Path, metadata: &Metadata) -> io::Result<Result<Kind, &'static str>> {
    let kind = metadata.file_type();
    Ok(Ok(if kind.is_file() {
        Kind::File { size: metadata.len(), digest: None }
    } else if kind.is_dir() {
        Kind::Directory
    } else if kind.is_symlink() {
        Kind::Link { target: fs::read_link(path)?.into_os_string().into_encoded_bytes() }
    } else if kind.is_fifo() {
        return Ok(Err("a named pipe"));
    } else if kind.is_socket() {
        return Ok(Err("a socket"));
    } else {
        return Ok(Err("a device"));
    }))
}

/// When something was modified.
pub(crate) fn modified(metadata: &Metadata) -> Time {
    Time { seconds: metadata.mtime(), nanoseconds: metadata.mtime_nsec() as u32 }
}
