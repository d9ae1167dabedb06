//! Reads a file in pieces, and finds the holes in it.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use nix::errno::Errno;
use nix::unistd::{Whence, lseek};

use crate::digest::{ContentHash, DigestKind, is_zero};

/// The next piece of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Piece {
    /// This many bytes were read.
    Data(usize),
    /// This many bytes are zero.
    Hole(u64),
    /// The file ends.
    End,
}

/// Reads a file by positions that only grow.
#[derive(Debug)]
pub(crate) struct PieceReader<'a> {
    file: &'a File,
    /// Where the next hole can begin; [`u64::MAX`] if holes are not looked for.
    data_end: u64,
}

impl<'a> PieceReader<'a> {
    /// Returns a reader from the start of a file, with or without looking for holes.
    pub(crate) fn new(file: &'a File, finds_holes: bool) -> Self {
        Self { file, data_end: if finds_holes { 0 } else { u64::MAX } }
    }

    /// Reads at a position, at most to `end`. Zeros that are no hole in the file system are one
    /// here, too.
    pub(crate) fn next(&mut self, position: u64, end: u64, chunk: &mut [u8]) -> io::Result<Piece> {
        let finds_holes = self.data_end != u64::MAX;
        if position >= self.data_end
            && let Some(hole_end) = self.hole_end(position, end)?
        {
            return Ok(Piece::Hole(hole_end.min(end) - position));
        }
        let left = end.min(self.data_end) - position;
        let max = chunk.len().min(left.try_into().unwrap_or(usize::MAX));
        let count = read_at(self.file, &mut chunk[..max], position)?;
        Ok(match count {
            0 => Piece::End,
            _ if finds_holes && is_zero(&chunk[..count]) => Piece::Hole(count as u64),
            _ => Piece::Data(count),
        })
    }

    /// Returns the end of the hole at a position, if there is one, and remembers where the data
    /// after it end.
    fn hole_end(&mut self, position: u64, end: u64) -> io::Result<Option<u64>> {
        let seek = |from: u64, whence| {
            let from = i64::try_from(from).map_err(|_| Errno::EOVERFLOW)?;
            lseek(self.file, from, whence).map(|found| found as u64)
        };
        match seek(position, Whence::SeekData) {
            Ok(data) => {
                self.data_end = seek(data, Whence::SeekHole).unwrap_or(u64::MAX);
                Ok((data > position).then_some(data))
            }
            // There are no more data, or the file has become shorter, which its size shows.
            Err(Errno::ENXIO) => Ok(Some(end)),
            // The file system does not report holes.
            Err(_) => {
                self.data_end = u64::MAX - 1;
                Ok(None)
            }
        }
    }
}

/// Digests the first `length` bytes of a file, or all if it is shorter. Returns the state and the
/// number of bytes.
pub(crate) fn digest_beginning(
    file: &File,
    length: u64,
    kind: DigestKind,
    chunk: &mut [u8],
) -> io::Result<(ContentHash, u64)> {
    let mut pieces = PieceReader::new(file, kind == DigestKind::Sparse);
    let (mut hash, mut position) = (ContentHash::new(kind), 0);
    while position < length {
        match pieces.next(position, length, chunk)? {
            Piece::Data(count) => {
                hash.update(&chunk[..count]);
                position += count as u64;
            }
            Piece::Hole(count) => {
                hash.update_zeros(count);
                position += count;
            }
            Piece::End => break,
        }
    }
    Ok((hash, position))
}

/// Reads at a position, and retries if a signal interrupts.
fn read_at(file: &File, chunk: &mut [u8], position: u64) -> io::Result<usize> {
    loop {
        match file.read_at(chunk, position) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            read => return read,
        }
    }
}
