//! A file on its way: beside its place under a name of its own, and under its final name only when
//! it is whole.

use std::fs::{File, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::thread;
use std::time::{Duration, Instant};

use nix::fcntl::OFlag;
use nix::sys::stat::{SFlag, fstat};
use nix::unistd::geteuid;
use sha2::{Digest as _, Sha256};

use crate::confined_dir::{self, Place};
use crate::wire::{CHUNK, Digest, Time};

/// What the name of a file on its way ends with; it begins with a dot.
const SUFFIX: &[u8] = b".labsh-part";

/// A file that was cut off below this size is not worth keeping, in bytes.
const WORTH_KEEPING: u64 = 1 << 20;

/// How long another copy of the same file is waited for.
const PATIENCE: Duration = Duration::from_secs(1);

/// Whether this is the name of a file on its way: such are not copied themselves.
pub(crate) fn is_partial(name: &[u8]) -> bool {
    name.starts_with(b".") && name.ends_with(SUFFIX)
}

/// Such a file, open and locked. Dropped, it is removed, unless it is worth keeping and
/// [`Partial::keep`] was called.
#[derive(Debug)]
pub(crate) struct Partial {
    place: Place,
    file: File,
    hash: Sha256,
    length: u64,
    /// How long it was when it was opened.
    found: i64,
    /// Whether it is to be there when this is dropped.
    stays: bool,
}

impl Partial {
    /// What is left of an earlier attempt, read through; nothing where there is none, or none to be
    /// trusted.
    pub(crate) fn left_over(of: &Place, longest: u64) -> io::Result<Option<Self>> {
        let place = part_of(of);
        match place.look()? {
            Some(found) if found.st_size > 0 && found.st_size as u64 <= longest => {}
            _ => return Ok(None),
        }
        let Ok(mut partial) = Self::open(place, OFlag::O_RDWR) else { return Ok(None) };
        let mut chunk = vec![0; CHUNK];
        loop {
            match partial.file.read(&mut chunk) {
                Ok(0) => break,
                Ok(read) => {
                    partial.hash.update(&chunk[..read]);
                    partial.length += read as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        // Until more has come, it is what it was.
        partial.stays = true;
        Ok(Some(partial))
    }

    /// A new one.
    pub(crate) fn create(of: &Place) -> io::Result<Self> {
        let place = part_of(of);
        let mut partial = match Self::open(place.clone(), OFlag::O_RDWR | OFlag::O_CREAT) {
            // Something else of that name, which is nobody's file: it makes room.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                place.remove()?;
                Self::open(place, OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_EXCL)?
            }
            opened => opened?,
        };
        // An empty one is left alone: ext4 takes one that was truncated for one that is being
        // replaced, and has its blocks written at once, which more than doubles the time for a
        // small file (auto_da_alloc in ext4(5)).
        if partial.found > 0 {
            partial.start_again()?;
        }
        Ok(partial)
    }

    fn open(place: Place, flags: OFlag) -> io::Result<Self> {
        let other = || io::Error::from(io::ErrorKind::InvalidInput);
        let file = match place.file(flags) {
            // A link.
            Err(error) if error.raw_os_error() == Some(nix::libc::ELOOP) => return Err(other()),
            file => file?,
        };
        let opened = fstat(&file)?;
        let regular = SFlag::from_bits_truncate(opened.st_mode) & SFlag::S_IFMT == SFlag::S_IFREG;
        // Written by somebody else, or known under another name as well: not one of ours.
        if !regular || opened.st_nlink > 1 || opened.st_uid != geteuid().as_raw() {
            return Err(other());
        }
        let busy = || {
            io::Error::new(
                io::ErrorKind::ResourceBusy,
                "another copy is writing this file right now",
            )
        };
        let begun = Instant::now();
        // One that was interrupted a moment ago may still be tidying up.
        while let Err(error) = file.try_lock() {
            match error {
                TryLockError::WouldBlock if begun.elapsed() < PATIENCE => {
                    thread::sleep(PATIENCE / 20)
                }
                TryLockError::WouldBlock => return Err(busy()),
                TryLockError::Error(error) => return Err(error),
            }
        }
        // Between opening and locking, its last writer may have given it its final name.
        match place.look()? {
            Some(found) if (found.st_dev, found.st_ino) == (opened.st_dev, opened.st_ino) => {}
            _ => return Err(busy()),
        }
        Ok(Self {
            place,
            file,
            hash: Sha256::new(),
            length: 0,
            found: opened.st_size,
            stays: false,
        })
    }

    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    /// Of what is there.
    pub(crate) fn digest(&self) -> Digest {
        self.hash.clone().finalize().into()
    }

    /// Empties it.
    pub(crate) fn start_again(&mut self) -> io::Result<()> {
        self.stays = false;
        self.file.set_len(0)?;
        self.file.seek(SeekFrom::Start(0))?;
        (self.hash, self.length) = (Sha256::new(), 0);
        Ok(())
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stays = false;
        // A disk's image is mostly zeros, and as a file of as many blocks it could fill the disk
        // here.
        if bytes.iter().all(|byte| *byte == 0) {
            self.file.set_len(self.length + bytes.len() as u64)?;
            self.file.seek(SeekFrom::End(0))?;
        } else {
            self.file.write_all(bytes)?;
        }
        self.hash.update(bytes);
        self.length += bytes.len() as u64;
        Ok(())
    }

    /// It was cut off, and will perhaps be continued.
    pub(crate) fn keep(&mut self) {
        self.stays = self.length >= WORTH_KEEPING;
    }

    /// It is whole: it gets its rights, its time, and the name that it was meant for.
    pub(crate) fn finish(mut self, to: &Place, mode: u16, modified: Time) -> io::Result<()> {
        confined_dir::dress(&self.file, mode, modified)?;
        self.place.rename(to)?;
        self.stays = true;
        Ok(())
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        if !self.stays {
            // Where it cannot be removed, the next attempt takes it up.
            let _ = self.place.remove();
        }
    }
}

/// `.NAME.labsh-part`, or with a digest in the place of a name that is too long for that.
fn part_of(place: &Place) -> Place {
    let name = place.name_bytes();
    let mut part = b".".to_vec();
    if name.len() + 1 + SUFFIX.len() <= 255 {
        part.extend_from_slice(name);
    } else {
        let digest = Sha256::digest(name);
        digest.iter().for_each(|byte| part.extend_from_slice(format!("{byte:02x}").as_bytes()));
    }
    part.extend_from_slice(SUFFIX);
    place.beside(part)
}

/// The digest of a file's contents from where it stands, and how many bytes these were.
pub(crate) fn digest_of(file: &mut impl Read) -> io::Result<(Digest, u64)> {
    let (mut hash, mut length, mut chunk) = (Sha256::new(), 0, vec![0; CHUNK]);
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
