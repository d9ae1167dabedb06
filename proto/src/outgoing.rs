//! The frames that are queued for sending: which one is next, and how much may be queued.
//!
//! Each channel has a queue of its own, and the queues are served in turns (round robin). While
//! several have frames, a turn is 16 KiB of data, so that a flood on one channel does not delay a
//! short answer on another (PROTOCOL.md, "Order and fairness").

use alloc::collections::{BTreeMap, VecDeque};

use bytes::{Bytes, BytesMut};

use crate::frame::{ChannelId, Frame, Kind};
use crate::limits;
use crate::message::Stream;

/// The most data that is queued on one channel, in bytes.
const MAX_CHANNEL_BACKLOG: usize = 256 << 10;

/// The amount of data queued on a connection from which each channel is limited to
/// [`REDUCED_CHANNEL_BACKLOG`], in bytes.
const MAX_CONNECTION_BACKLOG: usize = 1 << 20;

/// The most data that is queued on one channel of a connection with much queued data, in bytes: one
/// turn.
const REDUCED_CHANNEL_BACKLOG: usize = limits::TURN_BODY;

/// The length up to which short writes in a queue are joined into one frame, in bytes: a frame for
/// each byte would cost a header for each.
const MAX_JOINED_WRITE: usize = 4 << 10;

#[derive(Debug)]
enum Item {
    Control(Frame),
    Data { stream: Stream, bytes: Bytes, end: u64 },
}

/// The frames of one channel, in the order in which they leave.
#[derive(Debug, Default)]
struct ChannelQueue {
    items: VecDeque<Item>,
    /// How many items at the front are frames of an `open`, or priority frames inserted after it.
    opening: usize,
    /// Whether a frame was sent: then the peer knows the channel, even if its `open` is incomplete.
    begun: bool,
    data: usize,
}

/// The stream of a data frame that was taken from a queue, and the position after its last byte.
pub(crate) struct DataEnd {
    pub(crate) stream: Stream,
    pub(crate) position: u64,
}

/// The queues of all channels.
#[derive(Debug, Default)]
pub(crate) struct Outgoing {
    queues: BTreeMap<ChannelId, ChannelQueue>,
    turns: VecDeque<ChannelId>,
    data: usize,
}

impl Outgoing {
    /// Returns how many bytes of data may be queued on the channel now.
    pub(crate) fn capacity(&self, channel: ChannelId) -> usize {
        let queued = self.queues.get(&channel).map_or(0, |queue| queue.data);
        let backlog = if self.data < MAX_CONNECTION_BACKLOG {
            MAX_CHANNEL_BACKLOG
        } else {
            REDUCED_CHANNEL_BACKLOG
        };
        backlog.saturating_sub(queued)
    }

    /// Returns whether frames of the channel's `open` are still queued, which nothing may overtake.
    pub(crate) fn is_opening(&self, channel: ChannelId) -> bool {
        self.queues.get(&channel).is_some_and(|queue| queue.opening > 0)
    }

    /// Queues a control frame.
    pub(crate) fn push(&mut self, frame: Frame) {
        let channel = frame.channel;
        let opening = usize::from(frame.kind == Kind::Open);
        let queue = self.queue(channel);
        queue.opening += opening;
        queue.items.push_back(Item::Control(frame));
    }

    /// Queues a priority frame directly after an `open` that is still queued, and after earlier
    /// priority frames.
    pub(crate) fn push_after_open(&mut self, frame: Frame) {
        let queue = self.queue(frame.channel);
        queue.items.insert(queue.opening, Item::Control(frame));
        queue.opening += 1;
    }

    /// Queues data that ends at the position `end` of its stream.
    pub(crate) fn push_data(&mut self, channel: ChannelId, stream: Stream, bytes: Bytes, end: u64) {
        self.data += bytes.len();
        let queue = self.queue(channel);
        queue.data += bytes.len();
        match queue.items.pop_back() {
            Some(Item::Data { stream: last, bytes: queued, .. })
                if last == stream && queued.len() + bytes.len() <= MAX_JOINED_WRITE =>
            {
                let mut joined =
                    queued.try_into_mut().unwrap_or_else(|shared| BytesMut::from(&shared[..]));
                joined.extend_from_slice(&bytes);
                queue.items.push_back(Item::Data { stream, bytes: joined.freeze(), end });
            }
            other => {
                queue.items.extend(other);
                queue.items.push_back(Item::Data { stream, bytes, end });
            }
        }
    }

    /// Discards everything that is queued on a channel. Returns whether that includes its whole
    /// `open`, so that the peer does not know the channel.
    pub(crate) fn discard(&mut self, channel: ChannelId) -> bool {
        let Some(queue) = self.queues.remove(&channel) else { return false };
        self.data -= queue.data;
        self.turns.retain(|turn| *turn != channel);
        queue.opening > 0 && !queue.begun
    }

    /// Takes the next frame, from the queue whose turn it is.
    pub(crate) fn next(&mut self) -> Option<(Frame, Option<DataEnd>)> {
        let channel = self.turns.pop_front()?;
        let compete = !self.turns.is_empty();
        let queue = self.queues.get_mut(&channel)?;
        queue.begun = true;
        let taken = match queue.items.pop_front()? {
            Item::Control(frame) => {
                queue.opening = queue.opening.saturating_sub(1);
                (frame, None)
            }
            Item::Data { stream, mut bytes, end } => {
                let max_body = if compete { limits::TURN_BODY } else { limits::BULK_BODY };
                let body = bytes.split_to(bytes.len().min(max_body));
                let position = end - bytes.len() as u64;
                self.data -= body.len();
                queue.data -= body.len();
                if !bytes.is_empty() {
                    queue.items.push_front(Item::Data { stream, bytes, end });
                }
                (Frame::new(stream.kind(), channel, body), Some(DataEnd { stream, position }))
            }
        };
        if queue.items.is_empty() {
            self.queues.remove(&channel);
        } else {
            self.turns.push_back(channel);
        }
        Some(taken)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.turns.is_empty()
    }

    fn queue(&mut self, channel: ChannelId) -> &mut ChannelQueue {
        self.queues.entry(channel).or_insert_with(|| {
            self.turns.push_back(channel);
            ChannelQueue::default()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLOOD: ChannelId = ChannelId(1);
    const SHORT: ChannelId = ChannelId(2);

    #[test]
    fn a_flood_does_not_delay_a_short_answer() {
        let mut outgoing = Outgoing::default();
        outgoing.push_data(
            FLOOD,
            Stream::Stdout,
            Bytes::from(alloc::vec![0; 256 << 10]),
            256 << 10,
        );
        let (alone, _) = outgoing.next().unwrap();
        assert_eq!(alone.body.len(), limits::BULK_BODY);
        outgoing.push_data(SHORT, Stream::Stdout, Bytes::from_static(b"done"), 4);
        let (first, _) = outgoing.next().unwrap();
        let (second, end) = outgoing.next().unwrap();
        assert_eq!((first.channel, first.body.len()), (FLOOD, limits::TURN_BODY));
        assert_eq!(
            (second.channel, &second.body[..], end.unwrap().position),
            (SHORT, &b"done"[..], 4)
        );
    }

    #[test]
    fn each_frame_has_the_position_after_its_data() {
        let mut outgoing = Outgoing::default();
        outgoing.push_data(FLOOD, Stream::Stdout, Bytes::from(alloc::vec![0; 100_000]), 100_000);
        let (first, end) = outgoing.next().unwrap();
        assert_eq!(end.unwrap().position, first.body.len() as u64);
        let (_, end) = outgoing.next().unwrap();
        assert_eq!(end.unwrap().position, 100_000);
        assert!(outgoing.is_empty());
    }

    #[test]
    fn short_writes_are_joined_into_one_frame() {
        let mut outgoing = Outgoing::default();
        for position in 1..=10_000 {
            outgoing.push_data(FLOOD, Stream::Stdout, Bytes::from_static(b"x"), position);
        }
        assert!(outgoing.queues[&FLOOD].items.len() < 5);
        let (frame, end) = outgoing.next().unwrap();
        assert_eq!(end.unwrap().position, frame.body.len() as u64);
    }

    #[test]
    fn queued_data_is_bounded() {
        let mut outgoing = Outgoing::default();
        for id in 1..=100 {
            let capacity = outgoing.capacity(ChannelId(id));
            outgoing.push_data(
                ChannelId(id),
                Stream::Stdout,
                Bytes::from(alloc::vec![0; capacity]),
                capacity as u64,
            );
        }
        assert!(
            outgoing.data
                <= MAX_CONNECTION_BACKLOG + MAX_CHANNEL_BACKLOG + 100 * REDUCED_CHANNEL_BACKLOG
        );
    }
}
