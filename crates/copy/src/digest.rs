//! Digests of contents, either of all bytes, or in a form for which holes cost nothing.

use sha2::{Digest as _, Sha256};

use crate::wire::{Digest, MAX_DATA_BYTES};

/// The blocks in which [`DigestKind::Sparse`] looks for zeros, in bytes.
const BLOCK_BYTES: usize = 4096;

/// Zeros to compare with, and to digest.
static ZEROS: [u8; MAX_DATA_BYTES] = [0; MAX_DATA_BYTES];

/// What a digest is computed of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DigestKind {
    /// The bytes.
    Plain,
    /// The bytes without blocks of zeros, as docs/COPY.md specifies it: the digest depends on the
    /// contents alone, not on where a file system has holes.
    Sparse,
}

/// The state of a digest.
#[derive(Debug, Clone)]
pub(crate) struct ContentHash {
    kind: DigestKind,
    hash: Sha256,
    /// The beginning of a block that is not complete.
    block: Vec<u8>,
    /// Bytes in blocks of zeros that are not part of the digest yet.
    zeros: u64,
}

impl ContentHash {
    pub(crate) fn new(kind: DigestKind) -> Self {
        Self { kind, hash: Sha256::new(), block: Vec::new(), zeros: 0 }
    }

    pub(crate) fn kind(&self) -> DigestKind {
        self.kind
    }

    /// Appends bytes.
    pub(crate) fn update(&mut self, mut bytes: &[u8]) {
        if self.kind == DigestKind::Plain {
            return self.hash.update(bytes);
        }
        if !self.block.is_empty() {
            let (first, rest) = bytes.split_at(bytes.len().min(BLOCK_BYTES - self.block.len()));
            self.block.extend_from_slice(first);
            bytes = rest;
            self.end_full_block();
        }
        let (blocks, rest) = bytes.as_chunks::<BLOCK_BYTES>();
        blocks.iter().for_each(|block| self.add_block(block));
        self.block.extend_from_slice(rest);
    }

    /// Appends this many zeros.
    pub(crate) fn update_zeros(&mut self, mut count: u64) {
        let blocks = match self.kind {
            DigestKind::Plain => 0,
            DigestKind::Sparse => {
                let missing = (BLOCK_BYTES - self.block.len()) % BLOCK_BYTES;
                let first = count.min(missing as u64);
                self.update(&ZEROS[..first as usize]);
                count -= first;
                count - count % BLOCK_BYTES as u64
            }
        };
        self.zeros += blocks;
        count -= blocks;
        while count > 0 {
            let zeros = count.min(ZEROS.len() as u64) as usize;
            self.update(&ZEROS[..zeros]);
            count -= zeros as u64;
        }
    }

    /// Returns the digest of what was appended.
    pub(crate) fn digest(&self) -> Digest {
        let mut end = self.clone();
        let last = std::mem::take(&mut end.block);
        if !last.is_empty() {
            end.add_block(&last);
        }
        end.add_zeros();
        end.hash.finalize().into()
    }

    fn end_full_block(&mut self) {
        if self.block.len() == BLOCK_BYTES {
            let mut block = std::mem::take(&mut self.block);
            self.add_block(&block);
            block.clear();
            self.block = block;
        }
    }

    fn add_block(&mut self, block: &[u8]) {
        if is_zero(block) {
            self.zeros += block.len() as u64;
        } else {
            self.add_zeros();
            self.hash.update([1]);
            self.hash.update(block);
        }
    }

    fn add_zeros(&mut self) {
        let zeros = std::mem::take(&mut self.zeros);
        if zeros > 0 {
            self.hash.update([0]);
            self.hash.update(zeros.to_be_bytes());
        }
    }
}

/// Returns whether bytes, at most [`MAX_DATA_BYTES`], are all zero.
pub(crate) fn is_zero(bytes: &[u8]) -> bool {
    bytes == &ZEROS[..bytes.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(kind: DigestKind, pieces: &[&[u8]]) -> Digest {
        let mut hash = ContentHash::new(kind);
        pieces.iter().for_each(|piece| hash.update(piece));
        hash.digest()
    }

    #[test]
    fn a_digest_depends_neither_on_the_pieces_nor_on_the_holes() {
        let mut contents = vec![0; 30_000];
        contents[9000..9100].fill(7);
        contents[29_999] = 1;
        for kind in [DigestKind::Plain, DigestKind::Sparse] {
            let whole = digest(kind, &[&contents]);
            for size in [1, 100, 4095, 4096, 4097, 10_000] {
                let pieces: Vec<&[u8]> = contents.chunks(size).collect();
                assert_eq!(digest(kind, &pieces), whole, "{kind:?} {size}");
            }
            for start in [0, 1, 4096, 5000] {
                let mut hash = ContentHash::new(kind);
                hash.update(&contents[..start]);
                hash.update_zeros(9000 - start as u64);
                hash.update(&contents[9000..9100]);
                hash.update_zeros(29_999 - 9100);
                hash.update(&[1]);
                assert_eq!(hash.digest(), whole, "{kind:?} {start}");
            }
        }
    }

    #[test]
    fn other_contents_have_another_digest() {
        let sparse = |pieces: &[&[u8]]| digest(DigestKind::Sparse, pieces);
        let zeros = [0; 8192];
        let all = [
            sparse(&[]),
            sparse(&[&zeros[..1]]),
            sparse(&[&zeros[..4096]]),
            sparse(&[&zeros[..4097]]),
            sparse(&[&zeros]),
            sparse(&[&[1], &zeros[..4095]]),
            sparse(&[&[1], &zeros[..4096]]),
            sparse(&[&zeros[..4096], &[1]]),
            sparse(&[&[0, 0, 0, 0, 0, 0, 0, 16, 0]]),
        ];
        for (index, digest) in all.iter().enumerate() {
            assert!(!all[..index].contains(digest), "{index}");
        }
    }

    #[test]
    fn the_sparse_digest_is_as_specified() {
        let mut hash = ContentHash::new(DigestKind::Sparse);
        hash.update_zeros(8192);
        hash.update(b"end");
        let specified = [&[0_u8][..], &8192_u64.to_be_bytes(), &[1], b"end"].concat();
        assert_eq!(hash.digest(), Digest::from(Sha256::digest(specified)));
        assert_eq!(
            ContentHash::new(DigestKind::Sparse).digest(),
            ContentHash::new(DigestKind::Plain).digest()
        );
    }
}
