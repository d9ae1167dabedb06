//! Compares what is announced with what the destination has, and creates directories and links.

use std::io;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::{FileStat, SFlag};
use sha2::{Digest as _, Sha256};

use crate::confined_dir::{self, DirEntry, Made};
use crate::partial::{self, PartialFile};
use crate::wire::{Digest, Time};

/// What the destination already has of an announced file.
pub(crate) enum Existing {
    /// The same file.
    Unchanged,
    /// Another file or none, and perhaps a partial file of an earlier transfer.
    Different(Option<PartialFile>),
}

/// What the sender has announced of a file.
pub(crate) struct AnnouncedFile {
    pub(crate) mode: u16,
    pub(crate) modified: Time,
    pub(crate) size: u64,
    /// The digest of the contents, if files are compared by digest.
    pub(crate) digest: Option<Digest>,
}

impl AnnouncedFile {
    /// Compares the file with the destination. A file that is the same gets mode and time.
    pub(crate) fn compare(&self, entry: &DirEntry, may_resume: bool) -> io::Result<Existing> {
        if let Some(found) = entry.stat()? {
            check_replaceable(&found)?;
            if kind_of(&found) == SFlag::S_IFREG && found.st_size as u64 == self.size {
                match self.update_if_same(entry, &found) {
                    Ok(true) => return Ok(Existing::Unchanged),
                    Ok(false) => {}
                    // The file's owner may not read it, but can replace it.
                    Err(error) if error.raw_os_error() == Some(Errno::EACCES as i32) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        if !may_resume {
            return Ok(Existing::Different(None));
        }
        PartialFile::open_existing(entry, self.size).map(Existing::Different)
    }

    /// Returns whether a file of the announced size has the announced contents; if so, sets its
    /// mode and time.
    fn update_if_same(&self, entry: &DirEntry, found: &FileStat) -> io::Result<bool> {
        let same_time = confined_dir::modified(found) == self.modified;
        let same = match self.digest {
            None => same_time,
            Some(digest) => has_digest(entry, digest)?,
        };
        if same && !(same_time && found.st_mode & 0o777 == u32::from(self.mode)) {
            entry.set_file_metadata(found, self.mode, self.modified)?;
        }
        Ok(same)
    }
}

/// Creates a directory, unless it exists.
pub(crate) fn make_directory(entry: &DirEntry) -> io::Result<Made> {
    match entry.stat()?.as_ref().map(kind_of) {
        None => match entry.make_directory() {
            // Another copy may have created something since. If that is no directory, the entries
            // in it fail.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(Made::Before),
            made => made.map(|()| Made::Now),
        },
        Some(SFlag::S_IFDIR) => Ok(Made::Before),
        Some(SFlag::S_IFLNK) => Err(io::Error::other(
            "a symbolic link is in the place of this directory; links are not followed",
        )),
        Some(_) => Err(io::Error::other("something else is in the place of this directory")),
    }
}

/// Creates a symbolic link; returns whether it existed with the same target.
pub(crate) fn make_link(entry: &DirEntry, target: &[u8], modified: Time) -> io::Result<bool> {
    if let Some(found) = entry.stat()? {
        check_replaceable(&found)?;
        if kind_of(&found) == SFlag::S_IFLNK && entry.link_target()? == target {
            return Ok(true);
        }
    }
    // The link is created under another name and renamed, so that the path always exists. The
    // digest makes a name that no other file has.
    let mut name = b".".to_vec();
    for byte in Sha256::digest(entry.name_bytes()) {
        name.extend_from_slice(format!("{byte:02x}").as_bytes());
    }
    name.extend_from_slice(b".labsh-part");
    let temporary = entry.sibling(name);
    if temporary.stat()?.is_some() {
        temporary.remove()?;
    }
    temporary.make_link(target, modified)?;
    temporary.rename(entry).inspect_err(|_| {
        let _ = temporary.remove();
    })?;
    Ok(false)
}

fn kind_of(stat: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT
}

/// Checks that a file or link may take the place of what was found: only of a file or link. Other
/// programs use a device, a named pipe or a socket by its name.
fn check_replaceable(found: &FileStat) -> io::Result<()> {
    let what = match kind_of(found) {
        SFlag::S_IFREG | SFlag::S_IFLNK => return Ok(()),
        SFlag::S_IFDIR => return Err(io::Error::other("a directory is in its place")),
        SFlag::S_IFIFO => "a named pipe",
        SFlag::S_IFSOCK => "a socket",
        _ => "a device",
    };
    Err(io::Error::other(format!(
        "{what} is in its place, which a copy does not replace; choose another name, or remove it \
         first"
    )))
}

fn has_digest(entry: &DirEntry, digest: Digest) -> io::Result<bool> {
    Ok(partial::digest_of(&mut entry.open(OFlag::O_RDONLY)?)?.0 == digest)
}
