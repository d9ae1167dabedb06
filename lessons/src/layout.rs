//! Where the bytes of a flow are in a picture: calls become blocks on lanes, bytes become columns.

use crate::flow::{Record, What};

/// Calls that are drawn as one block: one, or several at the same place that moved no byte.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Block {
    /// Which call of its kind it was, from 1.
    pub(crate) number: usize,
    pub(crate) calls: usize,
    pub(crate) start: u64,
    pub(crate) end: u64,
}

impl Block {
    fn is_empty(&self) -> bool {
        self.start == self.end
    }
}

/// The calls of one kind. A lane holds blocks that do not overlap; reads of the same bytes need
/// several.
#[derive(Debug, Clone)]
pub(crate) struct Track {
    pub(crate) what: What,
    pub(crate) lanes: Vec<Vec<Block>>,
    /// Whether the calls went through the bytes in order; otherwise each block must say which it
    /// was.
    pub(crate) in_order: bool,
}

/// The calls of one kind, if there were any.
pub(crate) fn track(record: &Record, what: What) -> Option<Track> {
    let mut track = Track { what, lanes: Vec::new(), in_order: true };
    let mut furthest = 0;
    for (index, step) in record.steps.iter().filter(|step| step.what == what).enumerate() {
        track.in_order &= step.start >= furthest;
        furthest = furthest.max(step.start);
        let block = Block { number: index + 1, calls: 1, start: step.start, end: step.end };
        let again = |block: &&mut Block| {
            block.is_empty() && step.start == step.end && block.start == step.start
        };
        match track.lanes.iter_mut().filter_map(|lane| lane.last_mut()).find(again) {
            Some(before) => before.calls += 1,
            None => place(&mut track.lanes, block, track.in_order),
        }
    }
    (!track.lanes.is_empty()).then_some(track)
}

/// On the first lane where it has room.
fn place(lanes: &mut Vec<Vec<Block>>, block: Block, in_order: bool) {
    let apart = |other: &Block| {
        let same = (other.start, other.end) == (block.start, block.end);
        !same && (other.end <= block.start || block.end <= other.start)
    };
    // Where all came in order, what is behind the last is behind all.
    let room = |lane: &&mut Vec<Block>| {
        if in_order { lane.last().is_none_or(apart) } else { lane.iter().all(apart) }
    };
    match lanes.iter_mut().find(room) {
        Some(lane) => lane.push(block),
        None => lanes.push(vec![block]),
    }
}

/// A piece of the axis between two neighbouring places at which something begins or ends; empty
/// where a call moved no byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) start: u64,
    pub(crate) end: u64,
    /// Columns that it needs at least.
    least: usize,
}

impl Segment {
    /// Whether all of it belongs to this block.
    pub(crate) fn is_in(&self, block: &Block) -> bool {
        if block.is_empty() {
            self.start == self.end && self.start == block.start
        } else if self.start == self.end {
            block.start < self.start && self.start < block.end
        } else {
            block.start <= self.start && self.end <= block.end
        }
    }
}

/// The narrowest block: two edges and something between them.
const NARROWEST: usize = 3;

/// Columns of one byte at most: few bytes need not fill a wide wall.
const WIDEST_BYTE: usize = 8;

/// The axis of a picture, left to right. `label` says how wide what stands beside a block is.
pub(crate) fn axis(
    record: &Record,
    tracks: &[Track],
    label: impl Fn(&Track, &Block) -> usize,
) -> Vec<Segment> {
    let blocks = || {
        tracks
            .iter()
            .flat_map(|track| track.lanes.iter().flatten().map(move |block| (track, block)))
    };
    let mut cuts: Vec<u64> = blocks().flat_map(|(_, block)| [block.start, block.end]).collect();
    cuts.extend(record.messages.iter().flat_map(|message| [message.start, message.end]));
    cuts.sort_unstable();
    cuts.dedup();
    let mut empty: Vec<u64> =
        blocks().filter(|(_, block)| block.is_empty()).map(|(_, block)| block.start).collect();
    empty.sort_unstable();
    empty.dedup();
    let segment = |start, end| Segment { start, end, least: NARROWEST };
    let mut segments = Vec::new();
    for (index, &cut) in cuts.iter().enumerate() {
        if empty.binary_search(&cut).is_ok() {
            segments.push(segment(cut, cut));
        }
        if let Some(&next) = cuts.get(index + 1) {
            segments.push(segment(cut, next));
        }
    }
    for (track, block) in blocks() {
        // The segments are in order, so those of a block are neighbours.
        let first = segments.partition_point(|segment| segment.end < block.start);
        let own = segments[first..].iter_mut().take_while(|segment| segment.start <= block.end);
        let own: Vec<&mut Segment> = own.filter(|segment| segment.is_in(block)).collect();
        let room: usize = own.iter().map(|segment| segment.least).sum();
        if let Some(last) = own.into_iter().next_back() {
            last.least += (label(track, block) + 1).saturating_sub(room);
        }
    }
    segments
}

/// One line of the picture: segments, and where their columns begin; one more at the end.
#[derive(Debug, Clone)]
pub(crate) struct Line {
    pub(crate) segments: Vec<Segment>,
    pub(crate) columns: Vec<usize>,
    /// Whether a byte is as wide as any other.
    pub(crate) to_scale: bool,
}

/// As many lines as are allowed; what does not fit into them is left out.
pub(crate) fn lines(segments: &[Segment], columns: usize, most: usize) -> Vec<Line> {
    let mut lines = Vec::new();
    let mut rest = segments;
    while !rest.is_empty() && lines.len() < most {
        let mut room = columns;
        let fitting = rest.iter().take_while(|segment| {
            let fits = segment.least <= room;
            room = room.saturating_sub(segment.least);
            fits
        });
        let (now, later) = rest.split_at(fitting.count().max(1));
        lines.push(line(now, columns));
        rest = later;
    }
    lines
}

fn line(segments: &[Segment], columns: usize) -> Line {
    let least: usize = segments.iter().map(|segment| segment.least).sum();
    let bytes: usize = segments.iter().map(|segment| (segment.end - segment.start) as usize).sum();
    let columns = columns.min(bytes.saturating_mul(WIDEST_BYTE)).max(least);
    let sizes = segments.iter().map(|segment| (segment.end - segment.start) as f64);
    let linear = places(sizes.clone().map(|size| (0, size)), columns);
    let to_scale = segments
        .iter()
        .zip(linear.windows(2))
        .all(|(segment, pair)| pair[1] - pair[0] >= segment.least);
    if to_scale {
        return Line { segments: segments.to_vec(), columns: linear, to_scale };
    }
    // What each needs, and of the rest more for larger ones, but not so much that nothing were left
    // for small ones.
    let roots = segments.iter().zip(sizes).map(|(segment, size)| (segment.least, size.sqrt()));
    // Where there are no bytes there is no scale.
    Line { segments: segments.to_vec(), columns: places(roots, columns), to_scale: bytes == 0 }
}

/// Where columns begin if each has so many for certain and a share of the others by weight.
fn places(shares: impl Iterator<Item = (usize, f64)> + Clone, columns: usize) -> Vec<usize> {
    let (certain, weights) =
        shares.clone().fold((0, 0.0), |sum, share| (sum.0 + share.0, sum.1 + share.1));
    let spare = columns.saturating_sub(certain) as f64;
    let (mut given, mut weight) = (0, 0.0);
    let mut places = vec![0];
    for share in shares {
        given += share.0;
        weight += share.1;
        let part = if weights > 0.0 { spare * weight / weights } else { 0.0 };
        places.push(given + part.round() as usize);
    }
    places
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Flow;

    #[test]
    fn blocks_that_overlap_need_lanes_and_calls_that_moved_nothing_are_counted_together() {
        let flow = Flow::new("a → b");
        flow.message("m");
        flow.wrote(b"abcdef");
        flow.received(0, b"abc");
        flow.received(0, b"abcdef");
        let reads = track(&flow.record(), What::Read).unwrap();
        assert_eq!((reads.lanes.len(), reads.in_order), (2, true));
        let flow = Flow::new("a → b");
        flow.wrote(b"abc");
        flow.read(b"abc");
        (0..5).for_each(|_| flow.read(b""));
        let reads = track(&flow.record(), What::Read).unwrap();
        assert_eq!((reads.lanes.len(), reads.lanes[0].len(), reads.lanes[0][1].calls), (1, 2, 5));
        assert!(track(&flow.record(), What::Segment).is_none());
    }

    #[test]
    fn columns_follow_the_bytes_where_they_can() {
        let flow = Flow::new("a → b");
        flow.wrote(&[0; 10]);
        flow.wrote(&[0; 30]);
        let tracks = [track(&flow.record(), What::Write).unwrap()];
        let segments = axis(&flow.record(), &tracks, |_, _| 2);
        let drawn = lines(&segments, 40, 3);
        assert_eq!(
            (drawn.len(), &drawn[0].columns[..], drawn[0].to_scale),
            (1, &[0, 10, 40][..], true)
        );
        // A header of 4 bytes in front of a body of 4000 would be no column wide.
        let flow = Flow::new("a → b");
        flow.wrote(&[0; 4]);
        flow.wrote(&[0; 4000]);
        let tracks = [track(&flow.record(), What::Write).unwrap()];
        let drawn = lines(&axis(&flow.record(), &tracks, |_, _| 4), 40, 3);
        assert!(
            !drawn[0].to_scale && drawn[0].columns[1] >= 5 && drawn[0].columns[2] == 40,
            "{drawn:?}"
        );
    }

    #[test]
    fn more_than_fits_into_a_line_goes_on_in_the_next_and_then_ends() {
        let flow = Flow::new("a → b");
        (0..100).for_each(|_| flow.wrote(b"x"));
        let tracks = [track(&flow.record(), What::Write).unwrap()];
        let drawn = lines(&axis(&flow.record(), &tracks, |_, _| 1), 30, 3);
        assert_eq!(drawn.iter().map(|line| line.segments.len()).collect::<Vec<_>>(), [10, 10, 10]);
    }
}
