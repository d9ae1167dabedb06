//! A picture of a flow in characters: writes above, reads below, each byte of both in the same
//! column.

use unicode_width::UnicodeWidthChar;

use crate::flow::{Carrier, Message, Record, What};
use crate::language::{Language, Text};
use crate::layout::{self, Block, Line, Track};
use crate::print::{OutputFormat, Style, counted};
use crate::wrap::{escape, fit, width, wrap};

/// Lines of blocks that one picture may have; what comes behind them is counted.
const LINES: usize = 3;

/// Messages that the legend names.
const NAMED: usize = 12;

/// Backgrounds that black letters can be read on, as numbers of the 256-colour palette; one for
/// each message in turn.
const COLORS: [u8; 6] = [117, 215, 114, 218, 227, 183];

/// What is no part of any message.
const NOBODY: u8 = 250;

/// The lines of the picture, each no wider than the look allows.
pub(crate) fn draw(record: &Record, language: Language, look: OutputFormat) -> Vec<String> {
    Picture { record, language, look }.draw()
}

struct Picture<'a> {
    record: &'a Record,
    language: Language,
    look: OutputFormat,
}

/// One column of a row.
#[derive(Debug, Clone, Copy)]
struct Cell {
    /// Nothing behind a character that is two columns wide.
    character: Option<char>,
    paint: Paint,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Paint {
    Plain,
    Faint,
    /// On the colour of a message.
    On(u8),
    /// The half column in the colour of a message that a block ends with.
    Edge(u8),
}

const BLANK: Cell = Cell { character: Some(' '), paint: Paint::Plain };

impl Picture<'_> {
    fn draw(&self) -> Vec<String> {
        let tracks: Vec<Track> = [What::Write, What::Segment, What::Read]
            .into_iter()
            .filter_map(|what| layout::track(self.record, what))
            .collect();
        let mut drawn = vec![self.heading()];
        let names = tracks.iter().map(|track| width(self.name(track.what)));
        let margin = 1 + names.chain([width(self.say("byte", "字节"))]).max().unwrap_or(0);
        let segments =
            layout::axis(self.record, &tracks, |track, block| width(&self.size(track, block)));
        let lines = layout::lines(&segments, self.look.width - margin, LINES);
        for line in &lines {
            self.line(&mut drawn, &tracks, line, margin);
        }
        drawn.extend(self.notes(&tracks, &lines, segments.len()));
        drawn.extend(self.legend());
        drawn
    }

    fn say<'w>(&self, english: &'w str, chinese: &'w str) -> &'w str {
        match self.language {
            Language::English => english,
            Language::Chinese => chinese,
        }
    }

    fn name(&self, what: What) -> &'static str {
        match what {
            What::Write if self.is_passed_on() => self.say("came", "到来"),
            What::Read if self.is_passed_on() => self.say("went on", "转发"),
            What::Write => self.say("written", "写入"),
            What::Segment => self.say("segments", "报文段"),
            What::Read => self.say("read", "读出"),
        }
    }

    fn is_passed_on(&self) -> bool {
        self.record.carrier == Carrier::Proxy
    }

    /// So many writes and reads, or what stands for them at a proxy.
    fn count(&self, writes: usize, reads: usize) -> Text {
        if self.is_passed_on() {
            let english = format!("{}, {}", counted(writes, "message"), counted(reads, "piece"));
            return Text::new(english, format!("{writes} 条消息，{reads} 块"));
        }
        let english = format!("{}, {}", counted(writes, "write"), counted(reads, "read"));
        Text::new(english, format!("写 {writes} 次，读 {reads} 次"))
    }

    /// From whom to whom, and how many calls it took.
    fn heading(&self) -> String {
        let of = |what| self.record.steps.iter().filter(move |step| step.what == what);
        let bytes = of(What::Write).map(|step| step.end - step.start).sum::<u64>() as usize;
        let (writes, reads) = (of(What::Write).count(), of(What::Read).count());
        let calls = self.count(writes, reads);
        let words = Text::new(
            format!("{}, {}", counted(bytes, "byte"), calls.get(Language::English)),
            format!("{bytes} 字节，{}", calls.get(Language::Chinese)),
        );
        let counts = words.get(self.language);
        let label = escape(self.record.label.get(self.language).as_bytes());
        let label = fit(&label, self.look.width.saturating_sub(width(counts) + 2));
        format!("{}  {}", Style::Label.on(&label, self.look), Style::Faint.on(counts, self.look))
    }

    /// What stands beside a block: how many bytes, and where the order is not that of the bytes,
    /// which call it was.
    fn size(&self, track: &Track, block: &Block) -> String {
        let number = if track.in_order { String::new() } else { format!("#{}: ", block.number) };
        let again = if block.calls > 1 { format!("×{}", block.calls) } else { String::new() };
        format!("{number}{}{again}", block.end - block.start)
    }

    fn line(&self, drawn: &mut Vec<String>, tracks: &[Track], line: &Line, margin: usize) {
        let mut add = |name: &str, row: &[Cell]| {
            let blank = " ".repeat(margin - width(name));
            drawn.push(format!("{}{blank}{}", Style::Faint.on(name, self.look), self.paint(row)));
        };
        for track in tracks {
            for (index, lane) in track.lanes.iter().enumerate() {
                let sizes = self.sizes(track, lane, line);
                if track.what != What::Read {
                    add("", &sizes);
                }
                let name = if index == 0 { self.name(track.what) } else { "" };
                add(name, &self.blocks(track, index, line));
                if track.what == What::Read {
                    add("", &sizes);
                }
            }
        }
        add(self.say("byte", "字节"), &self.places(line));
    }

    /// A lane's blocks.
    fn blocks(&self, track: &Track, lane: usize, line: &Line) -> Vec<Cell> {
        let mut row = vec![BLANK; line.columns[line.segments.len()]];
        if track.what == What::Read && lane == 0 {
            // What nobody read, on whatever lane.
            for (index, segment) in line.segments.iter().enumerate() {
                let read = track.lanes.iter().flatten().any(|block| segment.is_in(block));
                if segment.start < segment.end && !read {
                    let columns = line.columns[index]..line.columns[index + 1];
                    row[columns].fill(Cell { character: Some('·'), paint: Paint::Faint });
                }
            }
        }
        for block in &track.lanes[lane] {
            let mut own =
                (0..line.segments.len()).filter(|index| line.segments[*index].is_in(block));
            let Some(first) = own.next() else { continue };
            let last = own.next_back().unwrap_or(first);
            self.block(&mut row, line, block, first, last);
        }
        row
    }

    /// One block, from its first to its last segment on this line.
    fn block(&self, row: &mut [Cell], line: &Line, block: &Block, first: usize, last: usize) {
        let (from, to) = (line.columns[first], line.columns[last + 1]);
        let owner = |index: usize| self.owner(line.segments[index].start, block);
        let mut index = first;
        while index <= last {
            // As far as the same message goes.
            let message = owner(index);
            let next = (index..=last).find(|other| owner(*other) != message).unwrap_or(last + 1);
            let columns = line.columns[index]..line.columns[next];
            let (fill, color) = self.fill(message);
            row[columns.clone()].fill(Cell { character: Some(fill), paint: Paint::On(color) });
            if index > first {
                let edge = if self.look.color { '│' } else { '|' };
                row[columns.start].character = Some(edge);
            }
            self.label(row, columns.start + 1, columns.end - 1, message, Paint::On(color));
            index = next;
        }
        let (begins, ends) =
            (line.segments[first].start == block.start, line.segments[last].end == block.end);
        if self.look.color {
            if ends {
                let color = self.fill(owner(last)).1;
                row[to - 1] = Cell { character: Some('▌'), paint: Paint::Edge(color) };
            }
        } else {
            row[from].character = Some(if begins { '[' } else { '…' });
            row[to - 1].character = Some(if ends { ']' } else { '…' });
        }
    }

    /// Whose the byte at this place is; an empty call's is the empty message there.
    fn owner(&self, place: u64, block: &Block) -> Option<usize> {
        let holds = |message: &Message| message.start <= place && place < message.end;
        let is_empty = |message: &Message| message.start == place && message.end == place;
        let messages = &self.record.messages;
        if block.start == block.end {
            messages.iter().position(is_empty)
        } else {
            messages.iter().position(holds)
        }
    }

    /// What a message's blocks are filled with, and on which colour.
    fn fill(&self, message: Option<usize>) -> (char, u8) {
        let letter = message.map_or(' ', letter);
        let color = message.map_or(NOBODY, |index| COLORS[index % COLORS.len()]);
        (if self.look.color { ' ' } else { letter }, color)
    }

    /// A message's letter and, if there is room, what it is called, in the middle of these columns.
    fn label(
        &self,
        row: &mut [Cell],
        from: usize,
        to: usize,
        message: Option<usize>,
        paint: Paint,
    ) {
        let Some(index) = message.filter(|_| to > from) else { return };
        let name = escape(self.record.messages[index].label.get(self.language).as_bytes());
        let long =
            if self.look.color { format!("{} {name}", letter(index)) } else { format!(" {name} ") };
        // At least one letter of the filling must remain on either side of a name in plain text.
        let room = to - from;
        let fits = width(&long) + 2 * usize::from(!self.look.color) <= room;
        let text = if fits && !name.is_empty() { long } else { letter(index).to_string() };
        put(row, from + (room - width(&text)) / 2, &text, paint);
    }

    /// The sizes of a lane's blocks, each in the middle of its block.
    fn sizes(&self, track: &Track, lane: &[Block], line: &Line) -> Vec<Cell> {
        let mut row = vec![BLANK; line.columns[line.segments.len()]];
        for block in lane {
            let mut own =
                (0..line.segments.len()).filter(|index| line.segments[*index].is_in(block));
            let Some(first) = own.next() else { continue };
            let last = own.next_back().unwrap_or(first);
            let (from, to) = (line.columns[first], line.columns[last + 1]);
            let size = self.size(track, block);
            if width(&size) < to - from {
                put(&mut row, from + (to - from - width(&size)) / 2, &size, Paint::Plain);
            }
        }
        row
    }

    /// Where messages begin and the flow ends, counted in bytes.
    fn places(&self, line: &Line) -> Vec<Cell> {
        let end = line.columns[line.segments.len()];
        let mut row = vec![BLANK; end];
        let begins = |place| self.record.messages.iter().any(|message| message.start == place);
        let mut free = 0;
        for (index, segment) in line.segments.iter().enumerate() {
            let (column, text) = (line.columns[index], segment.start.to_string());
            if (index == 0 || begins(segment.start)) && column >= free && column + text.len() <= end
            {
                put(&mut row, column, &text, Paint::Faint);
                free = column + text.len() + 1;
            }
        }
        row
    }

    /// What the picture leaves out or cannot show.
    fn notes(&self, tracks: &[Track], lines: &[Line], segments: usize) -> Vec<String> {
        let mut notes = Vec::new();
        let shown: usize = lines.iter().map(|line| line.segments.len()).sum();
        let end =
            lines.last().and_then(|line| line.segments.last()).map_or(0, |segment| segment.end);
        if shown < segments {
            let behind = |what| -> usize {
                let blocks =
                    tracks.iter().filter(|track| track.what == what).flat_map(|track| &track.lanes);
                let hidden = |block: &&Block| {
                    !lines
                        .iter()
                        .flat_map(|line| &line.segments)
                        .any(|segment| segment.is_in(block))
                };
                blocks.flatten().filter(hidden).map(|block| block.calls).sum()
            };
            let calls = self.count(behind(What::Write), behind(What::Read));
            let english =
                format!("not drawn: {}, from byte {end} on", calls.get(Language::English));
            let chinese = format!("第 {end} 字节以后没有画出：{}", calls.get(Language::Chinese));
            notes.push(Text::new(english, chinese));
        }
        if lines.iter().any(|line| !line.to_scale) {
            notes.push(Text::new("widths are not to scale", "宽度不按比例"));
        }
        let reads: Vec<&Block> = tracks
            .iter()
            .filter(|track| track.what == What::Read)
            .flat_map(|track| &track.lanes)
            .flatten()
            .collect();
        let unread = |segment: &layout::Segment| {
            segment.start < segment.end && !reads.iter().any(|block| segment.is_in(block))
        };
        if !reads.is_empty() && lines.iter().flat_map(|line| &line.segments).any(unread) {
            notes.push(Text::new("·· was never read", "·· 没有被读出"));
        }
        if notes.is_empty() {
            return Vec::new();
        }
        let notes: Vec<&str> = notes.iter().map(|words| words.get(self.language)).collect();
        let text = match self.language {
            Language::English => format!("({})", notes.join("; ")),
            Language::Chinese => format!("（{}）", notes.join("；")),
        };
        wrap(&text, self.look.width).iter().map(|line| Style::Faint.on(line, self.look)).collect()
    }

    /// Which letter and colour is which message.
    fn legend(&self) -> Vec<String> {
        let messages = &self.record.messages;
        let mut lines = vec![(String::new(), 0)];
        let mut add = |painted: &str, columns: usize| {
            let taken = lines.last().map_or(0, |(_, taken)| *taken);
            if taken > 0 && taken + 3 + columns > self.look.width {
                lines.push((String::new(), 0));
            }
            if let Some((line, taken)) = lines.last_mut() {
                let gap = if *taken > 0 { "   " } else { "" };
                line.push_str(gap);
                line.push_str(painted);
                *taken += gap.len() + columns;
            }
        };
        for (index, message) in messages.iter().enumerate().take(NAMED) {
            let color = COLORS[index % COLORS.len()];
            let sign = Cell { character: Some(letter(index)), paint: Paint::On(color) };
            let space = Cell { paint: Paint::On(color), ..BLANK };
            let sign = if self.look.color {
                self.paint(&[space, sign, space])
            } else {
                letter(index).to_string()
            };
            let bytes = (message.end - message.start) as usize;
            let words =
                Text::new(format!(" ({})", counted(bytes, "byte")), format!("（{bytes} 字节）"));
            let name =
                fit(&escape(message.label.get(self.language).as_bytes()), self.look.width / 2);
            let text = format!(" {name}{}", words.get(self.language));
            let columns = width(&text) + if self.look.color { 3 } else { 1 };
            add(&format!("{sign}{text}"), columns);
        }
        if let Some(more) = messages.len().checked_sub(NAMED).filter(|more| *more > 0) {
            let words = Text::new(format!("and {more} more"), format!("另有 {more} 条"));
            let text = words.get(self.language);
            add(text, width(text));
        }
        lines.into_iter().map(|(line, _)| line).filter(|line| !line.is_empty()).collect()
    }

    /// A row as text, with colours where they are understood; blanks at its end are left away.
    fn paint(&self, row: &[Cell]) -> String {
        let is_blank = |cell: &Cell| {
            cell.character == Some(' ') && !matches!(cell.paint, Paint::On(_) if self.look.color)
        };
        let end = row.iter().rposition(|cell| !is_blank(cell)).map_or(0, |last| last + 1);
        let mut text = String::new();
        for run in row[..end].chunk_by(|one, other| one.paint == other.paint) {
            let characters: String = run.iter().filter_map(|cell| cell.character).collect();
            let parameters = match run[0].paint {
                Paint::Plain => None,
                Paint::Faint => Some("2".to_owned()),
                Paint::On(color) => Some(format!("38;5;16;48;5;{color}")),
                Paint::Edge(color) => Some(format!("38;5;{color}")),
            };
            match parameters.filter(|_| self.look.color) {
                Some(parameters) => {
                    text.push_str(&format!("\x1b[{parameters}m{characters}\x1b[0m"))
                }
                None => text.push_str(&characters),
            }
        }
        text
    }
}

/// The letter of a message: A to Z, a to z, and again.
fn letter(message: usize) -> char {
    let letters = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    char::from(letters[message % letters.len()])
}

/// Writes a text into a row; what does not fit is left out.
fn put(row: &mut [Cell], mut column: usize, text: &str, paint: Paint) {
    for character in text.chars() {
        let columns = character.width().unwrap_or(0);
        let Some(cells) = row.get_mut(column..column + columns).filter(|cells| !cells.is_empty())
        else {
            return;
        };
        cells.fill(Cell { character: None, paint });
        cells[0].character = Some(character);
        column += columns;
    }
}

#[cfg(test)]
#[path = "picture_tests.rs"]
mod tests;
