//! Buffers that are reused once all pieces that were split off them are dropped, so that a busy
//! stream does not allocate.

use std::collections::VecDeque;
use std::mem;

use bytes::BytesMut;

/// The most full buffers that are kept until their last piece is dropped.
const MAX_RETIRED: usize = 4;

/// The full buffers of one stream, to be reused.
#[derive(Debug, Default)]
pub struct Recycler {
    /// The oldest first.
    retired: VecDeque<BytesMut>,
    /// Whether the buffer in use was made by [`Self::reserve`].
    made_here: bool,
}

impl Recycler {
    /// Makes space for `additional` bytes after the content of the buffer, if necessary by moving
    /// the content to a retired or a new one.
    pub fn reserve(&mut self, buffer: &mut BytesMut, additional: usize) {
        if buffer.try_reclaim(additional) {
            return;
        }
        let needed = buffer.len() + additional;
        let free = self.retired.iter_mut().position(|full| full.try_reclaim(needed));
        let next = free.and_then(|free| self.retired.remove(free));
        let mut next = next.unwrap_or_else(|| BytesMut::with_capacity(needed));
        next.extend_from_slice(buffer);
        let mut full = mem::replace(buffer, next);
        if mem::replace(&mut self.made_here, true) {
            full.clear();
            self.retired.push_back(full);
        }
        if self.retired.len() > MAX_RETIRED {
            self.retired.pop_front();
        }
    }

    /// Releases all retired buffers, at the end of a burst.
    pub fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: usize = 1 << 10;

    /// Fills the buffer with bytes of one value and splits all of them off.
    fn fill(buffer: &mut BytesMut, value: u8) -> bytes::Bytes {
        buffer.resize(SIZE, value);
        buffer.split().freeze()
    }

    #[test]
    fn a_buffer_is_reused_only_after_its_last_piece_was_dropped() {
        let (mut recycler, mut buffer) = (Recycler::default(), BytesMut::new());
        recycler.reserve(&mut buffer, SIZE);
        let first = fill(&mut buffer, 1);
        let address = first.as_ptr();
        recycler.reserve(&mut buffer, SIZE);
        let second = fill(&mut buffer, 2);
        assert_ne!(second.as_ptr(), address);
        drop(first);
        recycler.reserve(&mut buffer, SIZE);
        let third = fill(&mut buffer, 3);
        assert_eq!(third.as_ptr(), address);
        assert!(second.iter().all(|byte| *byte == 2) && third.iter().all(|byte| *byte == 3));
    }

    #[test]
    fn the_content_of_the_buffer_is_moved_along() {
        let (mut recycler, mut buffer) = (Recycler::default(), BytesMut::from(&b"head"[..]));
        let held = buffer.split_to(2).freeze();
        recycler.reserve(&mut buffer, SIZE);
        assert_eq!((&held[..], &buffer[..]), (&b"he"[..], &b"ad"[..]));
        assert!(buffer.capacity() - buffer.len() >= SIZE);
    }

    #[test]
    fn the_number_of_retired_buffers_is_bounded() {
        let (mut recycler, mut buffer) = (Recycler::default(), BytesMut::new());
        let mut pieces = Vec::new();
        for value in 0..20 {
            recycler.reserve(&mut buffer, SIZE);
            pieces.push(fill(&mut buffer, value));
        }
        assert_eq!(recycler.retired.len(), MAX_RETIRED);
        assert!(
            pieces
                .iter()
                .enumerate()
                .all(|(value, piece)| piece.iter().all(|byte| *byte == value as u8))
        );
        recycler.clear();
        assert!(recycler.retired.is_empty());
    }
}
