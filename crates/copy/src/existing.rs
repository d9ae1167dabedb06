//! Compares what is announced with what the destination has, and creates directories and links.

use std::io;

use nix::fcntl::OFlag;
use nix::sys::stat::{FileStat, SFlag};
use nix::unistd::geteuid;
use sha2::{Digest as _, Sha256};

use crate::confined_dir::DirEntry;
use crate::digest::DigestKind;
use crate::metadata::{self, Made, Metadata, NotSet};
use crate::partial::{self, PartialFile};
use crate::wire::{Digest, Time};

/// The permission bits that the owner of a directory needs to create files in it.
const OWNER_WRITES: u32 = 0o300;

/// What the destination already has of an announced file.
pub(crate) enum Existing {
    /// The same file, and what could not be set on it.
    Unchanged(NotSet),
    /// Another file or none, and perhaps a partial file of an earlier transfer.
    Different(Option<PartialFile>),
}

/// What the sender has announced of a file.
pub(crate) struct AnnouncedFile {
    pub(crate) modified: Time,
    pub(crate) size: u64,
    /// The digest of the contents, if files are compared by digest.
    pub(crate) digest: Option<Digest>,
    /// What an unchanged file gets.
    pub(crate) metadata: Metadata,
}

impl AnnouncedFile {
    /// Compares the file with the destination. A file that is the same gets mode and time.
    pub(crate) fn compare(
        &self,
        entry: &DirEntry,
        may_resume: bool,
        kind: DigestKind,
    ) -> io::Result<Existing> {
        if let Some(found) = entry.stat()? {
            check_replaceable(&found)?;
            if kind_of(&found) == SFlag::S_IFREG && found.st_size as u64 == self.size {
                let same = match self.digest {
                    None => metadata::modified(&found) == self.modified,
                    Some(digest) => has_digest(entry, digest)?,
                };
                if same {
                    return self.update(entry, &found).map(Existing::Unchanged);
                }
            }
        }
        if !may_resume {
            return Ok(Existing::Different(None));
        }
        PartialFile::open_existing(entry, self.size, kind).map(Existing::Different)
    }

    /// Sets the metadata of an unchanged file, if they differ.
    fn update(&self, entry: &DirEntry, found: &FileStat) -> io::Result<NotSet> {
        if self.metadata.are_those_of(found) {
            return Ok(NotSet::default());
        }
        entry.metadata_handle(found)?.set(self.metadata)
    }
}

/// Returns the permissions of an existing file.
pub(crate) fn permissions(entry: &DirEntry) -> io::Result<Option<u16>> {
    let file = entry.stat()?.filter(|found| kind_of(found) == SFlag::S_IFREG);
    Ok(file.map(|found| (found.st_mode & 0o777) as u16))
}

/// A directory that is there for its entries.
pub(crate) struct ReadyDir {
    pub(crate) made: Made,
    /// The mode that the directory had before it was made writable for the transfer.
    pub(crate) mode_before: Option<u32>,
}

/// Creates a directory, unless it exists. One that exists is made writable, if its owner may not
/// create files in it: a copy of a read-only directory could not be updated otherwise.
pub(crate) fn make_directory(entry: &DirEntry) -> io::Result<ReadyDir> {
    let before = |mode_before| Ok(ReadyDir { made: Made::Before, mode_before });
    match entry.stat()? {
        None => match entry.make_directory() {
            // Another copy may have created something since. If that is no directory, the entries
            // in it fail.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => before(None),
            made => made.map(|()| ReadyDir { made: Made::Now, mode_before: None }),
        },
        Some(found) if kind_of(&found) == SFlag::S_IFDIR => before(make_writable(entry, &found)),
        Some(found) if kind_of(&found) == SFlag::S_IFLNK => Err(io::Error::other(
            "a symbolic link is in the place of this directory; links are not followed",
        )),
        Some(_) => Err(io::Error::other("something else is in the place of this directory")),
    }
}

/// Lets the owner of a directory create files in it, if possible. Returns its mode before, if that
/// has changed.
fn make_writable(entry: &DirEntry, found: &FileStat) -> Option<u32> {
    let owner_may = found.st_mode & OWNER_WRITES == OWNER_WRITES;
    if owner_may || found.st_uid != geteuid().as_raw() || entry.is_writable_directory() {
        return None;
    }
    // If it is not possible, as on a read-only file system, unchanged files are still unchanged.
    let directory = entry.metadata_handle(found).ok()?;
    directory.set_mode(found.st_mode & 0o7777 | OWNER_WRITES).ok()?;
    Some(found.st_mode & 0o7777)
}

/// Creates a symbolic link; returns whether it existed with the same target.
pub(crate) fn make_link(
    entry: &DirEntry,
    target: &[u8],
    modified: Option<Time>,
) -> io::Result<bool> {
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
    match entry.open(OFlag::O_RDONLY) {
        Ok(mut file) => Ok(partial::digest_of(&mut file)?.0 == digest),
        // The file's owner may not read it, but can replace it.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(false),
        Err(error) => Err(error),
    }
}
