//! What waits to be sent: which frame goes next, and how much may wait.
//!
//! One lane a channel, in order within; lanes take turns. While they compete, a turn is 16 KiB, so
//! that a flood on one channel does not delay a short answer on another (PROTOCOL.md, "Order and
//! fairness").

use alloc::collections::{BTreeMap, VecDeque};

use bytes::{Bytes, BytesMut};

use crate::frame::{ChannelId, Frame, Kind};
use crate::limits;
use crate::message::Stream;

/// Data that may wait in one lane, in bytes.
const LANE_BACKLOG: usize = 256 << 10;

/// Data that may wait in all lanes of a connection before each gets only [`SCANT_BACKLOG`], in
/// bytes.
const CONNECTION_BACKLOG: usize = 1 << 20;
const SCANT_BACKLOG: usize = limits::TURN_BODY;

/// Short writes that wait are joined up to this many bytes, so that a byte costs little more than a
/// byte.
const SMALL: usize = 4 << 10;

#[derive(Debug)]
enum Item {
    Control(Frame),
    Data { stream: Stream, bytes: Bytes, end: u64 },
}

#[derive(Debug, Default)]
struct Lane {
    items: VecDeque<Item>,
    /// How many items at the front are an `open` that still waits, or would have overtaken it.
    opening: usize,
    /// Whether a frame has left: with an `open` still waiting, the peer knows of the channel.
    begun: bool,
    data: usize,
}

/// A data frame that was taken out, and the position in its stream behind its last byte.
pub(crate) struct DataEnd {
    pub(crate) stream: Stream,
    pub(crate) position: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Outgoing {
    lanes: BTreeMap<ChannelId, Lane>,
    turns: VecDeque<ChannelId>,
    data: usize,
}

impl Outgoing {
    /// Bytes of data that the channel may add now.
    pub(crate) fn room(&self, channel: ChannelId) -> usize {
        let waiting = self.lanes.get(&channel).map_or(0, |lane| lane.data);
        let backlog = if self.data < CONNECTION_BACKLOG { LANE_BACKLOG } else { SCANT_BACKLOG };
        backlog.saturating_sub(waiting)
    }

    /// Whether the channel's `open` is still on its way, so that nothing may overtake on it.
    pub(crate) fn is_opening(&self, channel: ChannelId) -> bool {
        self.lanes.get(&channel).is_some_and(|lane| lane.opening > 0)
    }

    pub(crate) fn push(&mut self, frame: Frame) {
        let channel = frame.channel;
        let opening = usize::from(frame.kind == Kind::Open);
        let lane = self.lane(channel);
        lane.opening += opening;
        lane.items.push_back(Item::Control(frame));
    }

    /// Queues a frame that overtakes data directly behind an `open` that still waits, and behind
    /// its like.
    pub(crate) fn push_behind_open(&mut self, frame: Frame) {
        let lane = self.lane(frame.channel);
        lane.items.insert(lane.opening, Item::Control(frame));
        lane.opening += 1;
    }

    pub(crate) fn push_data(&mut self, channel: ChannelId, stream: Stream, bytes: Bytes, end: u64) {
        self.data += bytes.len();
        let lane = self.lane(channel);
        lane.data += bytes.len();
        match lane.items.pop_back() {
            Some(Item::Data { stream: last, bytes: waiting, .. })
                if last == stream && waiting.len() + bytes.len() <= SMALL =>
            {
                let mut joined =
                    waiting.try_into_mut().unwrap_or_else(|shared| BytesMut::from(&shared[..]));
                joined.extend_from_slice(&bytes);
                lane.items.push_back(Item::Data { stream, bytes: joined.freeze(), end });
            }
            other => {
                lane.items.extend(other);
                lane.items.push_back(Item::Data { stream, bytes, end });
            }
        }
    }

    /// Forgets what waits on a channel. True where that was its whole `open`: the peer will never
    /// hear of it.
    pub(crate) fn drop_lane(&mut self, channel: ChannelId) -> bool {
        let Some(lane) = self.lanes.remove(&channel) else { return false };
        self.data -= lane.data;
        self.turns.retain(|turn| *turn != channel);
        lane.opening > 0 && !lane.begun
    }

    /// The next frame of whose turn it is.
    pub(crate) fn next(&mut self) -> Option<(Frame, Option<DataEnd>)> {
        let channel = self.turns.pop_front()?;
        let compete = !self.turns.is_empty();
        let lane = self.lanes.get_mut(&channel)?;
        lane.begun = true;
        let taken = match lane.items.pop_front()? {
            Item::Control(frame) => {
                lane.opening = lane.opening.saturating_sub(1);
                (frame, None)
            }
            Item::Data { stream, mut bytes, end } => {
                let most = if compete { limits::TURN_BODY } else { limits::BULK_BODY };
                let body = bytes.split_to(bytes.len().min(most));
                let position = end - bytes.len() as u64;
                self.data -= body.len();
                lane.data -= body.len();
                if !bytes.is_empty() {
                    lane.items.push_front(Item::Data { stream, bytes, end });
                }
                (Frame::new(stream.kind(), channel, body), Some(DataEnd { stream, position }))
            }
        };
        if lane.items.is_empty() {
            self.lanes.remove(&channel);
        } else {
            self.turns.push_back(channel);
        }
        Some(taken)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.turns.is_empty()
    }

    fn lane(&mut self, channel: ChannelId) -> &mut Lane {
        self.lanes.entry(channel).or_insert_with(|| {
            self.turns.push_back(channel);
            Lane::default()
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
    fn positions_follow_the_pieces() {
        let mut outgoing = Outgoing::default();
        outgoing.push_data(FLOOD, Stream::Stdout, Bytes::from(alloc::vec![0; 100_000]), 100_000);
        let (first, end) = outgoing.next().unwrap();
        assert_eq!(end.unwrap().position, first.body.len() as u64);
        let (_, end) = outgoing.next().unwrap();
        assert_eq!(end.unwrap().position, 100_000);
        assert!(outgoing.is_empty());
    }

    #[test]
    fn short_writes_are_joined() {
        let mut outgoing = Outgoing::default();
        for position in 1..=10_000 {
            outgoing.push_data(FLOOD, Stream::Stdout, Bytes::from_static(b"x"), position);
        }
        assert!(outgoing.lanes[&FLOOD].items.len() < 5);
        let (frame, end) = outgoing.next().unwrap();
        assert_eq!(end.unwrap().position, frame.body.len() as u64);
    }

    #[test]
    fn what_may_wait_is_bounded() {
        let mut outgoing = Outgoing::default();
        for id in 1..=100 {
            let room = outgoing.room(ChannelId(id));
            outgoing.push_data(
                ChannelId(id),
                Stream::Stdout,
                Bytes::from(alloc::vec![0; room]),
                room as u64,
            );
        }
        assert!(outgoing.data <= CONNECTION_BACKLOG + LANE_BACKLOG + 100 * SCANT_BACKLOG);
    }
}
