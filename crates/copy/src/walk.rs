//! Walks the sources: files and directories in the order in which they are announced, a directory
//! before its entries.

use std::ffi::OsStr;
use std::fs::{self, Metadata, ReadDir};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::contents::modified;
use crate::name::RelativePath;
use crate::os_error_text;
use crate::partial::is_partial;
use crate::send::Source;
use crate::wire::{Kind, Time};

/// A step of the walk.
pub(crate) enum Step {
    /// A file, directory or link to announce.
    Found(Found),
    /// The last directory that was entered and not left has no further entries.
    Leave { source: u32, below: RelativePath },
    /// Something that is not sent.
    Remark { source: u32, below: RelativePath, failure: bool, text: String },
}

/// A file, directory or link that can be sent.
pub(crate) struct Found {
    pub(crate) source: u32,
    pub(crate) below: RelativePath,
    pub(crate) path: PathBuf,
    pub(crate) mode: u16,
    pub(crate) modified: Time,
    pub(crate) kind: Kind,
}

/// Walks the sources one after the other. The directories around the current entry are open.
pub(crate) struct Walk<'a> {
    sources: std::iter::Enumerate<std::slice::Iter<'a, Source>>,
    open_dirs: Vec<OpenDir>,
}

struct OpenDir {
    source: u32,
    below: RelativePath,
    path: PathBuf,
    entries: ReadDir,
}

impl<'a> Walk<'a> {
    pub(crate) fn new(sources: &'a [Source]) -> Self {
        Self { sources: sources.iter().enumerate(), open_dirs: Vec::new() }
    }

    /// Returns the next step; `None` at the end.
    pub(crate) fn next(&mut self) -> Option<Step> {
        let Some(OpenDir { source, below, path, entries }) = self.open_dirs.last_mut() else {
            let (index, source) = self.sources.next()?;
            // A link that the user has named is followed.
            return Some(self.visit(
                index as u32,
                RelativePath::default(),
                source.path.clone(),
                fs::metadata(&source.path),
            ));
        };
        let (source, below) = (*source, below.clone());
        let entry = match entries.next() {
            None => {
                self.open_dirs.pop();
                return Some(Step::Leave { source, below });
            }
            Some(Err(error)) => {
                let text = format!("it cannot be read completely: {}", os_error_text(&error));
                return Some(Step::Remark { source, below, failure: true, text });
            }
            Some(Ok(entry)) => entry,
        };
        let name = entry.file_name();
        let path = path.join(&name);
        match below.join(name.as_bytes()) {
            Ok(inner) if is_partial(name.as_bytes()) => {
                Some(remark(source, inner, false, "skipped: the partial file of another copy"))
            }
            Ok(inner) => Some(self.visit(source, inner, path.clone(), fs::symlink_metadata(&path))),
            Err(bad) => {
                let text = format!("its entry {} is not copied: {bad}", shortened(&name));
                Some(remark(source, below, true, text))
            }
        }
    }

    /// Returns the step for a path, and enters it if it is a directory.
    fn visit(
        &mut self,
        source: u32,
        below: RelativePath,
        path: PathBuf,
        metadata: io::Result<Metadata>,
    ) -> Step {
        let kind_and_metadata =
            metadata.and_then(|metadata| Ok((kind(&path, &metadata)?, metadata)));
        let (kind, metadata) = match kind_and_metadata {
            Ok((Ok(kind), metadata)) => (kind, metadata),
            // It is a failure only if the user has named this file.
            Ok((Err(unsupported), _)) => {
                let named = below.as_bytes().is_empty();
                return remark(source, below, named, format!("skipped: it is {unsupported}"));
            }
            Err(error) => return remark(source, below, true, os_error_text(&error)),
        };
        if let Kind::Directory = kind {
            match fs::read_dir(&path) {
                Ok(entries) => self.open_dirs.push(OpenDir {
                    source,
                    below: below.clone(),
                    path: path.clone(),
                    entries,
                }),
                Err(error) => return remark(source, below, true, os_error_text(&error)),
            }
        }
        let mode = (metadata.mode() & 0o777) as u16;
        Step::Found(Found { source, below, path, mode, modified: modified(&metadata), kind })
    }
}

fn remark(source: u32, below: RelativePath, failure: bool, text: impl Into<String>) -> Step {
    Step::Remark { source, below, failure, text: text.into() }
}

/// Returns the first characters of a name, for a report.
fn shortened(name: &OsStr) -> String {
    name.to_string_lossy().chars().take(64).collect()
}

/// Returns the kind of a file, or the name of a kind that is not copied.
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
