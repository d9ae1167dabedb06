//! Buffers that are filled again once nobody holds what was cut from them: a busy stream asks the
//! allocator for nothing.

use std::collections::VecDeque;
use std::mem;

use bytes::BytesMut;

/// As many full buffers wait for their last piece to be dropped; where more are out, a new one is
/// made.
const KEPT: usize = 4;

/// The buffers of one stream that pieces may still be cut from, the oldest first.
#[derive(Debug, Default)]
pub struct Recycler {
    retired: VecDeque<BytesMut>,
    /// Whether the buffer in use came from here.
    lent: bool,
}

impl Recycler {
    /// Makes room for so many more bytes behind what the buffer holds: there, or in another one
    /// that it then is.
    pub fn make_room(&mut self, buffer: &mut BytesMut, room: usize) {
        if buffer.try_reclaim(room) {
            return;
        }
        let needed = buffer.len() + room;
        let free = self.retired.iter_mut().position(|full| full.try_reclaim(needed));
        let next = free.and_then(|free| self.retired.remove(free));
        let mut next = next.unwrap_or_else(|| BytesMut::with_capacity(needed));
        next.extend_from_slice(buffer);
        let mut full = mem::replace(buffer, next);
        if mem::replace(&mut self.lent, true) {
            full.clear();
            self.retired.push_back(full);
        }
        if self.retired.len() > KEPT {
            self.retired.pop_front();
        }
    }

    /// Gives everything back: the burst is over.
    pub fn forget(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: usize = 1 << 10;

    /// Fills the buffer's room with one byte's value and cuts all of it off.
    fn fill(buffer: &mut BytesMut, value: u8) -> bytes::Bytes {
        buffer.resize(SIZE, value);
        buffer.split().freeze()
    }

    #[test]
    fn a_buffer_is_used_again_only_after_its_last_piece_was_dropped() {
        let (mut recycler, mut buffer) = (Recycler::default(), BytesMut::new());
        recycler.make_room(&mut buffer, SIZE);
        let first = fill(&mut buffer, 1);
        let place = first.as_ptr();
        recycler.make_room(&mut buffer, SIZE);
        let second = fill(&mut buffer, 2);
        assert_ne!(second.as_ptr(), place);
        drop(first);
        recycler.make_room(&mut buffer, SIZE);
        let third = fill(&mut buffer, 3);
        assert_eq!(third.as_ptr(), place);
        assert!(second.iter().all(|byte| *byte == 2) && third.iter().all(|byte| *byte == 3));
    }

    #[test]
    fn what_the_buffer_holds_comes_along() {
        let (mut recycler, mut buffer) = (Recycler::default(), BytesMut::from(&b"head"[..]));
        let held = buffer.split_to(2).freeze();
        recycler.make_room(&mut buffer, SIZE);
        assert_eq!((&held[..], &buffer[..]), (&b"he"[..], &b"ad"[..]));
        assert!(buffer.capacity() - buffer.len() >= SIZE);
    }

    #[test]
    fn only_so_many_are_kept() {
        let (mut recycler, mut buffer) = (Recycler::default(), BytesMut::new());
        let mut pieces = Vec::new();
        for value in 0..20 {
            recycler.make_room(&mut buffer, SIZE);
            pieces.push(fill(&mut buffer, value));
        }
        assert_eq!(recycler.retired.len(), KEPT);
        assert!(
            pieces
                .iter()
                .enumerate()
                .all(|(value, piece)| piece.iter().all(|byte| *byte == value as u8))
        );
        recycler.forget();
        assert!(recycler.retired.is_empty());
    }
}
