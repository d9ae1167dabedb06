//! Partial files: contents are written under a temporary name in the destination directory, and
//! renamed when they are complete.

use std::fs::{File, TryLockError};
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::thread;
use std::time::{Duration, Instant};

use nix::fcntl::OFlag;
use nix::sys::stat::{SFlag, fstat};
use nix::unistd::geteuid;
use sha2::{Digest as _, Sha256};

use crate::confined_dir::DirEntry;
use crate::digest::{ContentHash, DigestKind, is_zero};
use crate::holes::digest_beginning;
use crate::metadata::{Access, Metadata, NotSet};
use crate::wire::{Digest, MAX_DATA_BYTES};

/// The end of a partial file's name, which begins with a dot.
const SUFFIX: &[u8] = b".labsh-part";

/// The smallest partial file that a later transfer can resume, in bytes.
const MIN_RESUMABLE_BYTES: u64 = 1 << 20;

/// How long to wait for another copy of the same file to release its lock.
const LOCK_TIMEOUT: Duration = Duration::from_secs(1);

/// Returns whether this is the name of a partial file. Such files are not copied.
pub(crate) fn is_partial(name: &[u8]) -> bool {
    name.starts_with(b".") && name.ends_with(SUFFIX)
}

/// A partial file, open and locked.
///
/// Dropping it removes the file, except one of an earlier transfer that has not changed, and a
/// large one after [`PartialFile::keep_for_resuming`].
#[derive(Debug)]
pub(crate) struct PartialFile {
    entry: DirEntry,
    file: File,
    hash: ContentHash,
    length: u64,
    /// The size of the file when it was opened.
    initial_size: i64,
    /// Whether dropping this keeps the file.
    keep: bool,
}

impl PartialFile {
    /// Opens and reads the partial file of an earlier transfer. Returns `None` if there is none, if
    /// it is longer than `max_length`, or if it cannot be used.
    pub(crate) fn open_existing(
        of: &DirEntry,
        max_length: u64,
        kind: DigestKind,
    ) -> io::Result<Option<Self>> {
        let entry = partial_entry(of);
        match entry.stat()? {
            Some(found) if found.st_size > 0 && found.st_size as u64 <= max_length => {}
            _ => return Ok(None),
        }
        let Ok(mut partial) = Self::open(entry, OFlag::O_RDWR, kind) else { return Ok(None) };
        let mut chunk = vec![0; MAX_DATA_BYTES];
        let size = partial.initial_size as u64;
        (partial.hash, partial.length) = digest_beginning(&partial.file, size, kind, &mut chunk)?;
        // It has not changed yet.
        partial.keep = true;
        Ok(Some(partial))
    }

    /// Creates the partial file of `of`, or empties an existing one.
    pub(crate) fn create(of: &DirEntry, kind: DigestKind) -> io::Result<Self> {
        let entry = partial_entry(of);
        let mut partial = match Self::open(entry.clone(), OFlag::O_RDWR | OFlag::O_CREAT, kind) {
            // A file of another kind or owner has the name, which is reserved for partial files.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                entry.remove()?;
                Self::open(entry, OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_EXCL, kind)?
            }
            opened => opened?,
        };
        // An empty file is not truncated: ext4 writes the blocks of a truncated file at once,
        // because it could be replacing another file, and that more than doubles the time for a
        // small file (auto_da_alloc in ext4(5)).
        if partial.initial_size > 0 {
            partial.truncate()?;
        }
        Ok(partial)
    }

    /// Opens and locks a file.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::InvalidInput`] for a file that cannot be a partial file of this user, and
    /// [`io::ErrorKind::ResourceBusy`] for one that another copy is writing.
    fn open(entry: DirEntry, flags: OFlag, kind: DigestKind) -> io::Result<Self> {
        let unusable = || io::Error::from(io::ErrorKind::InvalidInput);
        let file = match entry.open(flags) {
            // A symbolic link.
            Err(error) if error.raw_os_error() == Some(nix::libc::ELOOP) => return Err(unusable()),
            file => file?,
        };
        let opened = fstat(&file)?;
        let regular = SFlag::from_bits_truncate(opened.st_mode) & SFlag::S_IFMT == SFlag::S_IFREG;
        // Another user could have written the file, or could reach it by another name.
        if !regular || opened.st_nlink > 1 || opened.st_uid != geteuid().as_raw() {
            return Err(unusable());
        }
        let busy = || {
            io::Error::new(
                io::ErrorKind::ResourceBusy,
                "another copy is writing this file right now",
            )
        };
        let started = Instant::now();
        // A copy that was interrupted just before may still be cleaning up.
        while let Err(error) = file.try_lock() {
            match error {
                TryLockError::WouldBlock if started.elapsed() < LOCK_TIMEOUT => {
                    thread::sleep(LOCK_TIMEOUT / 20)
                }
                TryLockError::WouldBlock => return Err(busy()),
                TryLockError::Error(error) => return Err(error),
            }
        }
        // Between opening and locking, another copy may have renamed the file to its final name.
        match entry.stat()? {
            Some(found) if (found.st_dev, found.st_ino) == (opened.st_dev, opened.st_ino) => {}
            _ => return Err(busy()),
        }
        Ok(Self {
            entry,
            file,
            hash: ContentHash::new(kind),
            length: 0,
            initial_size: opened.st_size,
            keep: false,
        })
    }

    /// Returns how many bytes have been read or written.
    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    /// Returns the digest of these bytes.
    pub(crate) fn digest(&self) -> Digest {
        self.hash.digest()
    }

    /// Empties the file.
    fn truncate(&mut self) -> io::Result<()> {
        self.keep = false;
        self.file.set_len(0)?;
        (self.hash, self.length) = (ContentHash::new(self.hash.kind()), 0);
        Ok(())
    }

    /// Appends bytes.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        // Zeros become a hole: a disk image, which is mostly zeros, could otherwise fill the disk.
        if is_zero(bytes) {
            return self.write_hole(bytes.len() as u64);
        }
        self.keep = false;
        self.file.write_all_at(bytes, self.length)?;
        self.hash.update(bytes);
        self.length += bytes.len() as u64;
        Ok(())
    }

    /// Appends zeros as a hole.
    pub(crate) fn write_hole(&mut self, count: u64) -> io::Result<()> {
        self.keep = false;
        let length = self.length.checked_add(count).ok_or(io::ErrorKind::FileTooLarge)?;
        self.file.set_len(length)?;
        self.hash.update_zeros(count);
        self.length = length;
        Ok(())
    }

    /// Keeps the file for the next transfer, if it is large enough.
    pub(crate) fn keep_for_resuming(&mut self) {
        self.keep = self.length >= MIN_RESUMABLE_BYTES;
    }

    /// Sets the metadata of the complete file, and renames it to its final name.
    pub(crate) fn finish(mut self, to: &DirEntry, metadata: Metadata) -> io::Result<NotSet> {
        let not_set = metadata.set(self.file.as_fd(), Access::Full)?;
        self.entry.rename(to)?;
        self.keep = true;
        Ok(not_set)
    }
}

impl Drop for PartialFile {
    fn drop(&mut self) {
        if !self.keep {
            // If this fails, the next transfer reuses the file.
            let _ = self.entry.remove();
        }
    }
}

/// Returns the partial file of a file: `.NAME.labsh-part`, with a digest instead of a NAME that is
/// too long.
fn partial_entry(of: &DirEntry) -> DirEntry {
    let name = of.name_bytes();
    let mut partial = b".".to_vec();
    if name.len() + 1 + SUFFIX.len() <= 255 {
        partial.extend_from_slice(name);
    } else {
        for byte in Sha256::digest(name) {
            partial.extend_from_slice(format!("{byte:02x}").as_bytes());
        }
    }
    partial.extend_from_slice(SUFFIX);
    of.sibling(partial)
}

/// Returns the digest and the number of the remaining bytes of a file.
pub(crate) fn digest_of(file: &mut impl Read) -> io::Result<(Digest, u64)> {
    let (mut hash, mut length, mut chunk) = (Sha256::new(), 0, vec![0; MAX_DATA_BYTES]);
    loop {
        match file.read(&mut chunk) {
            Ok(0) => return Ok((hash.finalize().into(), length)),
            Ok(read) => {
                hash.update(&chunk[..read]);
                length += read as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
