//! Reads the contents of a file that is sent, and detects that it changed meanwhile.

use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::thread;
use std::time::Duration;

use nix::fcntl::OFlag;
use nix::time::{ClockId, clock_gettime};

use crate::digest::{ContentHash, DigestKind};
use crate::holes::{Piece, PieceReader, digest_beginning};
use crate::name::RelativePath;
use crate::wire::Time;

/// The longest interval in which a change of a file can have the same time as the one before it:
/// the kernel's clock for files advances at least a hundred times in a second.
const CLOCK_TICK: Duration = Duration::from_millis(10);

/// How long to wait before the clock is read again.
const CLOCK_RETRY_DELAY: Duration = Duration::from_millis(1);

/// A regular file that is read as it was when it was opened.
#[derive(Debug)]
pub(crate) struct Contents {
    file: File,
    /// The metadata when the file was opened.
    opened: Metadata,
}

/// What happened to a file while it was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    /// What was read is what the file contained.
    None,
    /// It has grown: what was read is its beginning.
    Grown,
    /// What was read may be a mixture of several states.
    Changed,
    /// The file ends before the size that it had.
    Shorter,
}

impl Contents {
    /// Opens a regular file. Since it was found, a file of another kind may have replaced it.
    pub(crate) fn open(path: &Path, below: &RelativePath) -> io::Result<Self> {
        let mut flags = OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
        if !below.as_bytes().is_empty() {
            flags |= OFlag::O_NOFOLLOW;
        }
        let file = OpenOptions::new().read(true).custom_flags(flags.bits()).open(path)?;
        let opened = file.metadata()?;
        if !opened.is_file() {
            return Err(io::Error::other("it is not a regular file any more"));
        }
        wait_for_tick(&opened);
        Ok(Self { file, opened })
    }

    pub(crate) fn size(&self) -> u64 {
        self.opened.len()
    }

    /// Returns whether the file ends after its size, as far as that can be seen: files that the
    /// kernel makes, as in /proc, have the size 0 or another that is not theirs.
    pub(crate) fn has_its_size(&self, chunk: &mut [u8]) -> io::Result<bool> {
        Ok(self.size() > 0
            || self.pieces(false).next(0, 1, chunk)? == Piece::End
            || self.file.metadata()?.len() > 0)
    }

    /// Returns whether the file has become shorter than it was when it was opened.
    pub(crate) fn has_shrunk(&self) -> io::Result<bool> {
        Ok(self.file.metadata()?.len() < self.size())
    }

    pub(crate) fn modified(&self) -> Time {
        modified(&self.opened)
    }

    /// Returns a reader of the file, with or without looking for holes.
    pub(crate) fn pieces(&self, finds_holes: bool) -> PieceReader<'_> {
        PieceReader::new(&self.file, finds_holes)
    }

    /// Digests the first `length` bytes, or all if the file has become shorter. Returns the state
    /// and the number of bytes.
    pub(crate) fn digest_beginning(
        &self,
        length: u64,
        kind: DigestKind,
        chunk: &mut [u8],
    ) -> io::Result<(ContentHash, u64)> {
        digest_beginning(&self.file, length, kind, chunk)
    }

    /// Determines what happened to the file since it was opened. `hash` is that of what was read.
    ///
    /// Size and times prove that nothing has changed, except through a memory mapping. A file that
    /// has grown may have been rewritten as well, and one with another change time (st_ctime in
    /// inode(7)) may only have got another name or other permissions: both are read again. If that
    /// gives the same digest, each byte was the same before and after one point in time, at which
    /// what was read was in the file.
    pub(crate) fn change(&self, hash: &ContentHash, chunk: &mut [u8]) -> io::Result<Change> {
        let now = self.file.metadata()?;
        let changed_at = |metadata: &Metadata| (metadata.ctime(), metadata.ctime_nsec());
        if now.len() < self.size() {
            return Ok(Change::Shorter);
        }
        let grown = now.len() > self.size();
        if !grown {
            if modified(&now) != self.modified() {
                return Ok(Change::Changed);
            }
            if changed_at(&now) == changed_at(&self.opened) {
                return Ok(Change::None);
            }
        }
        let (again, _) = self.digest_beginning(self.size(), hash.kind(), chunk)?;
        Ok(match again.digest() == hash.digest() {
            false => Change::Changed,
            true if grown => Change::Grown,
            true => Change::None,
        })
    }
}

/// Waits until a change of the file would get another time than its last one.
fn wait_for_tick(opened: &Metadata) {
    let last_change = Duration::new(
        opened.ctime().try_into().unwrap_or(0),
        opened.ctime_nsec().try_into().unwrap_or(0),
    );
    loop {
        let now = clock_gettime(ClockId::CLOCK_REALTIME_COARSE).map_or(Duration::MAX, Into::into);
        // With the clock of another host, a file system's times can be in the future.
        if now > last_change || last_change - now > CLOCK_TICK {
            return;
        }
        thread::sleep(CLOCK_RETRY_DELAY);
    }
}

/// Returns the modification time.
pub(crate) fn modified(metadata: &Metadata) -> Time {
    Time { seconds: metadata.mtime(), nanoseconds: metadata.mtime_nsec() as u32 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_directly_after_the_file_was_opened_is_detected() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        let mut chunk = vec![0; 100];
        for _ in 0..50 {
            std::fs::write(&path, "one").unwrap();
            let contents = Contents::open(&path, &RelativePath::default()).unwrap();
            let (hash, _) = contents.digest_beginning(3, DigestKind::Plain, &mut chunk).unwrap();
            assert_eq!(contents.change(&hash, &mut chunk).unwrap(), Change::None);
            std::fs::write(&path, "two").unwrap();
            assert_eq!(contents.change(&hash, &mut chunk).unwrap(), Change::Changed);
        }
    }
}
