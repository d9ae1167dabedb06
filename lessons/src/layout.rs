//! Lays out the steps of a flow: calls become blocks on lanes, bytes become columns.

use crate::flow::{Record, StepKind};

/// What is drawn as one block: one call, or several calls at the same offset that moved no byte.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Block {
    /// The number of the first call on its track, from 1.
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

/// The calls of one kind, on lanes.
#[derive(Debug, Clone)]
pub(crate) struct Track {
    pub(crate) kind: StepKind,
    /// The blocks on a lane do not overlap; reads of the same bytes need several lanes.
    pub(crate) lanes: Vec<Vec<Block>>,
    /// Whether the calls moved the bytes in order. If not, blocks are labelled with their numbers.
    pub(crate) in_order: bool,
}

impl Track {
    /// Returns the label of a block: its size, and its number if the calls are not in order.
    pub(crate) fn label(&self, block: &Block) -> String {
        let number = if self.in_order { String::new() } else { format!("#{}: ", block.number) };
        let repeated = if block.calls > 1 { format!("×{}", block.calls) } else { String::new() };
        format!("{number}{}{repeated}", block.end - block.start)
    }
}

/// Returns the tracks that have calls: writes, segments, reads.
pub(crate) fn tracks(record: &Record) -> Vec<Track> {
    let kinds = [StepKind::Write, StepKind::Segment, StepKind::Read];
    kinds.into_iter().filter_map(|kind| track(record, kind)).collect()
}

/// Returns the calls of one kind, if there are any.
fn track(record: &Record, kind: StepKind) -> Option<Track> {
    let mut track = Track { kind, lanes: Vec::new(), in_order: true };
    let mut furthest = 0;
    for (index, step) in record.steps.iter().filter(|step| step.kind == kind).enumerate() {
        track.in_order &= step.start >= furthest;
        furthest = furthest.max(step.start);
        let block = Block { number: index + 1, calls: 1, start: step.start, end: step.end };
        let repeated = |last: &&mut Block| {
            last.is_empty() && step.start == step.end && last.start == step.start
        };
        match track.lanes.iter_mut().filter_map(|lane| lane.last_mut()).find(repeated) {
            Some(last) => last.calls += 1,
            None => add_to_lane(&mut track.lanes, block, track.in_order),
        }
    }
    (!track.lanes.is_empty()).then_some(track)
}

/// Adds a block to the first lane on which it overlaps no other.
fn add_to_lane(lanes: &mut Vec<Vec<Block>>, block: Block, in_order: bool) {
    let apart = |other: &Block| {
        let same = (other.start, other.end) == (block.start, block.end);
        !same && (other.end <= block.start || block.end <= other.start)
    };
    // If all calls are in order, a block after the last one is after every other one.
    let fits = |lane: &&mut Vec<Block>| {
        if in_order { lane.last().is_none_or(apart) } else { lane.iter().all(apart) }
    };
    match lanes.iter_mut().find(fits) {
        Some(lane) => lane.push(block),
        None => lanes.push(vec![block]),
    }
}

/// The part of the axis between two neighbouring offsets at which a block or a message begins or
/// ends; empty where a call moved no byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Interval {
    pub(crate) start: u64,
    pub(crate) end: u64,
    min_columns: usize,
}

impl Interval {
    fn new(start: u64, end: u64) -> Self {
        Self { start, end, min_columns: MIN_BLOCK_COLUMNS }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.start == self.end
    }

    fn bytes(&self) -> u64 {
        self.end - self.start
    }

    /// Whether all of it belongs to this block.
    pub(crate) fn is_in(&self, block: &Block) -> bool {
        if block.is_empty() {
            self.is_empty() && self.start == block.start
        } else if self.is_empty() {
            block.start < self.start && self.start < block.end
        } else {
            block.start <= self.start && self.end <= block.end
        }
    }
}

/// Columns of the narrowest block: two edges and something between them.
const MIN_BLOCK_COLUMNS: usize = 3;

/// Columns of one byte at most: a few bytes need not fill a wide screen.
const MAX_BYTE_COLUMNS: usize = 8;

/// Returns the axis of a picture, from left to right. `label_width` is the width of a block's
/// label, in columns.
pub(crate) fn axis(
    record: &Record,
    tracks: &[Track],
    label_width: impl Fn(&Track, &Block) -> usize,
) -> Vec<Interval> {
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
    let mut intervals = Vec::new();
    for (index, &cut) in cuts.iter().enumerate() {
        if empty.binary_search(&cut).is_ok() {
            intervals.push(Interval::new(cut, cut));
        }
        if let Some(&next) = cuts.get(index + 1) {
            intervals.push(Interval::new(cut, next));
        }
    }
    for (track, block) in blocks() {
        // The intervals are in order, so those of a block are neighbours.
        let first = intervals.partition_point(|interval| interval.end < block.start);
        let own = intervals[first..].iter_mut().take_while(|interval| interval.start <= block.end);
        let own: Vec<&mut Interval> = own.filter(|interval| interval.is_in(block)).collect();
        let columns: usize = own.iter().map(|interval| interval.min_columns).sum();
        if let Some(last) = own.into_iter().next_back() {
            last.min_columns += (label_width(track, block) + 1).saturating_sub(columns);
        }
    }
    intervals
}

/// One line of a picture.
#[derive(Debug, Clone)]
pub(crate) struct Line {
    pub(crate) intervals: Vec<Interval>,
    /// The column at which each interval begins, and that at which the last one ends.
    pub(crate) columns: Vec<usize>,
    /// Whether all bytes are equally wide.
    pub(crate) to_scale: bool,
}

impl Line {
    /// Returns the indexes of the first and the last interval of a block, if any is on this line.
    pub(crate) fn extent(&self, block: &Block) -> Option<(usize, usize)> {
        let mut own = (0..self.intervals.len()).filter(|index| self.intervals[*index].is_in(block));
        let first = own.next()?;
        Some((first, own.next_back().unwrap_or(first)))
    }
}

/// Breaks the axis into lines of at most `columns` columns; what does not fit into `max_lines` is
/// left out.
pub(crate) fn lines(axis: &[Interval], columns: usize, max_lines: usize) -> Vec<Line> {
    let mut lines = Vec::new();
    let mut rest = axis;
    while !rest.is_empty() && lines.len() < max_lines {
        let mut free = columns;
        let fitting = rest.iter().take_while(|interval| {
            let fits = interval.min_columns <= free;
            free = free.saturating_sub(interval.min_columns);
            fits
        });
        let (now, later) = rest.split_at(fitting.count().max(1));
        lines.push(line(now, columns));
        rest = later;
    }
    lines
}

fn line(intervals: &[Interval], columns: usize) -> Line {
    let min_columns: usize = intervals.iter().map(|interval| interval.min_columns).sum();
    let bytes: usize = intervals.iter().map(|interval| interval.bytes() as usize).sum();
    let columns = columns.min(bytes.saturating_mul(MAX_BYTE_COLUMNS)).max(min_columns);
    let sizes = intervals.iter().map(|interval| interval.bytes() as f64);
    let linear = column_starts(sizes.clone().map(|size| (0, size)), columns);
    let to_scale = intervals
        .iter()
        .zip(linear.windows(2))
        .all(|(interval, pair)| pair[1] - pair[0] >= interval.min_columns);
    if to_scale {
        return Line { intervals: intervals.to_vec(), columns: linear, to_scale };
    }
    // The columns that each interval needs, and the others by the square root of its size: larger
    // ones are wider, but smaller ones keep some room.
    let shares =
        intervals.iter().zip(sizes).map(|(interval, size)| (interval.min_columns, size.sqrt()));
    let columns = column_starts(shares, columns);
    // Without bytes there is no scale.
    Line { intervals: intervals.to_vec(), columns, to_scale: bytes == 0 }
}

/// Returns where the columns of each share begin, and where the last one ends. A share is a number
/// of columns, and a weight by which it gets a part of the remaining columns.
fn column_starts(shares: impl Iterator<Item = (usize, f64)> + Clone, columns: usize) -> Vec<usize> {
    let (fixed, weights) =
        shares.clone().fold((0, 0.0), |sum, share| (sum.0 + share.0, sum.1 + share.1));
    let spare = columns.saturating_sub(fixed) as f64;
    let (mut used, mut weight) = (0, 0.0);
    let mut starts = vec![0];
    for share in shares {
        used += share.0;
        weight += share.1;
        let part = if weights > 0.0 { spare * weight / weights } else { 0.0 };
        starts.push(used + part.round() as usize);
    }
    starts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::Flow;

    #[test]
    fn overlapping_blocks_need_lanes_and_empty_calls_share_a_block() {
        let flow = Flow::new("a → b");
        flow.message("m");
        flow.wrote(b"abcdef");
        flow.received(0, b"abc");
        flow.received(0, b"abcdef");
        let reads = track(&flow.record(), StepKind::Read).unwrap();
        assert_eq!((reads.lanes.len(), reads.in_order), (2, true));
        let flow = Flow::new("a → b");
        flow.wrote(b"abc");
        flow.read(b"abc");
        (0..5).for_each(|_| flow.read(b""));
        let reads = track(&flow.record(), StepKind::Read).unwrap();
        assert_eq!((reads.lanes.len(), reads.lanes[0].len(), reads.lanes[0][1].calls), (1, 2, 5));
        assert!(track(&flow.record(), StepKind::Segment).is_none());
    }

    #[test]
    fn columns_are_to_scale_if_every_label_fits() {
        let flow = Flow::new("a → b");
        flow.wrote(&[0; 10]);
        flow.wrote(&[0; 30]);
        let tracks = [track(&flow.record(), StepKind::Write).unwrap()];
        let intervals = axis(&flow.record(), &tracks, |_, _| 2);
        let drawn = lines(&intervals, 40, 3);
        assert_eq!(
            (drawn.len(), &drawn[0].columns[..], drawn[0].to_scale),
            (1, &[0, 10, 40][..], true)
        );
        // To scale, a header of 4 bytes before a body of 4,000 would be less than a column wide.
        let flow = Flow::new("a → b");
        flow.wrote(&[0; 4]);
        flow.wrote(&[0; 4000]);
        let tracks = [track(&flow.record(), StepKind::Write).unwrap()];
        let drawn = lines(&axis(&flow.record(), &tracks, |_, _| 4), 40, 3);
        assert!(
            !drawn[0].to_scale && drawn[0].columns[1] >= 5 && drawn[0].columns[2] == 40,
            "{drawn:?}"
        );
    }

    #[test]
    fn lines_are_broken_and_their_number_is_bounded() {
        let flow = Flow::new("a → b");
        (0..100).for_each(|_| flow.wrote(b"x"));
        let tracks = [track(&flow.record(), StepKind::Write).unwrap()];
        let drawn = lines(&axis(&flow.record(), &tracks, |_, _| 1), 30, 3);
        assert_eq!(drawn.iter().map(|line| line.intervals.len()).collect::<Vec<_>>(), [10, 10, 10]);
    }
}
