//! Draws a flow in characters: writes above, reads below, each byte of both in the same column.

use unicode_width::UnicodeWidthChar;

use crate::flow::{Carrier, Message, Record, StepKind};
use crate::format::{OutputFormat, Style};
use crate::language::{Language, Text, counted};
use crate::layout::{self, Block, Interval, Line, Track};
use crate::wrap::{escape, fit, width, wrap};

/// Lines of blocks per picture; the calls after them are counted.
const MAX_LINES: usize = 3;

/// Messages that the legend names.
const MAX_LEGEND_MESSAGES: usize = 12;

/// Background colours of the messages, in turn: entries of the 256-colour palette on which black
/// letters are readable.
const MESSAGE_COLORS: [u8; 6] = [117, 215, 114, 218, 227, 183];

/// The background colour of bytes that belong to no message.
const NO_MESSAGE_COLOR: u8 = 250;

/// Returns the lines of the picture, none wider than the format allows.
pub(crate) fn draw(record: &Record, language: Language, format: OutputFormat) -> Vec<String> {
    Picture { record, language, format }.draw()
}

struct Picture<'a> {
    record: &'a Record,
    language: Language,
    format: OutputFormat,
}

/// One column of a row.
#[derive(Debug, Clone, Copy)]
struct Cell {
    /// `None` in the second column of a wide character.
    character: Option<char>,
    paint: Paint,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Paint {
    Plain,
    Faint,
    /// On the colour of a message.
    On(u8),
    /// The right edge of a block: half a column in the colour of a message.
    Edge(u8),
}

const BLANK: Cell = Cell { character: Some(' '), paint: Paint::Plain };

impl Picture<'_> {
    fn draw(&self) -> Vec<String> {
        let tracks = layout::tracks(self.record);
        let names = tracks.iter().map(|track| width(self.track_name(track.kind)));
        let margin = 1 + names.chain([width(self.byte_name())]).max().unwrap_or(0);
        let axis = layout::axis(self.record, &tracks, |track, block| width(&track.label(block)));
        let lines = layout::lines(&axis, self.format.width - margin, MAX_LINES);
        let mut drawn = vec![self.heading()];
        for line in &lines {
            self.line(&mut drawn, &tracks, line, margin);
        }
        drawn.extend(self.notes(&tracks, &lines, axis.len()));
        drawn.extend(self.legend());
        drawn
    }

    /// Returns the text in the language of the picture.
    fn choose<'t>(&self, english: &'t str, chinese: &'t str) -> &'t str {
        match self.language {
            Language::English => english,
            Language::Chinese => chinese,
        }
    }

    fn track_name(&self, kind: StepKind) -> &'static str {
        match kind {
            StepKind::Write if self.is_proxy() => self.choose("arrived", "到来"),
            StepKind::Read if self.is_proxy() => self.choose("forwarded", "转发"),
            StepKind::Write => self.choose("written", "写入"),
            StepKind::Segment => self.choose("segments", "报文段"),
            StepKind::Read => self.choose("read", "读出"),
        }
    }

    fn byte_name(&self) -> &'static str {
        self.choose("byte", "字节")
    }

    fn is_proxy(&self) -> bool {
        self.record.carrier == Carrier::Proxy
    }

    /// Returns how many writes and reads there were; at a proxy, messages and pieces.
    fn calls(&self, writes: usize, reads: usize) -> String {
        match (self.language, self.is_proxy()) {
            (Language::English, false) => {
                format!("{}, {}", counted(writes, "write"), counted(reads, "read"))
            }
            (Language::English, true) => {
                format!("{}, {}", counted(writes, "message"), counted(reads, "piece"))
            }
            (Language::Chinese, false) => format!("写 {writes} 次，读 {reads} 次"),
            (Language::Chinese, true) => format!("{writes} 条消息，{reads} 块"),
        }
    }

    /// Returns the flow's label, its size and the number of its calls.
    fn heading(&self) -> String {
        let steps = |kind| self.record.steps.iter().filter(move |step| step.kind == kind);
        let bytes = steps(StepKind::Write).map(|step| step.end - step.start).sum::<u64>() as usize;
        let calls = self.calls(steps(StepKind::Write).count(), steps(StepKind::Read).count());
        let counts = match self.language {
            Language::English => format!("{}, {calls}", counted(bytes, "byte")),
            Language::Chinese => format!("{bytes} 字节，{calls}"),
        };
        let label = escape(self.record.label.get(self.language).as_bytes());
        let label = fit(&label, self.format.width.saturating_sub(width(&counts) + 2));
        let (label, counts) =
            (Style::Label.apply(&label, self.format), Style::Faint.apply(&counts, self.format));
        format!("{label}  {counts}")
    }

    /// Adds the rows of one line: lanes with the labels of their blocks, then the axis.
    fn line(&self, drawn: &mut Vec<String>, tracks: &[Track], line: &Line, margin: usize) {
        let mut add = |name: &str, row: &[Cell]| {
            let padding = " ".repeat(margin - width(name));
            let name = Style::Faint.apply(name, self.format);
            drawn.push(format!("{name}{padding}{}", self.render(row)));
        };
        for track in tracks {
            for (index, lane) in track.lanes.iter().enumerate() {
                let labels = block_labels(track, lane, line);
                if track.kind != StepKind::Read {
                    add("", &labels);
                }
                let name = if index == 0 { self.track_name(track.kind) } else { "" };
                add(name, &self.blocks(track, index, line));
                if track.kind == StepKind::Read {
                    add("", &labels);
                }
            }
        }
        add(self.byte_name(), &self.axis(line));
    }

    /// Draws the blocks of a lane; the first lane of reads also shows which bytes were never read.
    fn blocks(&self, track: &Track, lane: usize, line: &Line) -> Vec<Cell> {
        let mut row = vec![BLANK; line.columns[line.intervals.len()]];
        if track.kind == StepKind::Read && lane == 0 {
            for (index, interval) in line.intervals.iter().enumerate() {
                let read = track.lanes.iter().flatten().any(|block| interval.is_in(block));
                if !interval.is_empty() && !read {
                    let columns = line.columns[index]..line.columns[index + 1];
                    row[columns].fill(Cell { character: Some('·'), paint: Paint::Faint });
                }
            }
        }
        for block in &track.lanes[lane] {
            if let Some((first, last)) = line.extent(block) {
                self.block(&mut row, line, block, first, last);
            }
        }
        row
    }

    /// Draws one block, from its first to its last interval on this line.
    fn block(&self, row: &mut [Cell], line: &Line, block: &Block, first: usize, last: usize) {
        let (from, to) = (line.columns[first], line.columns[last + 1]);
        let message_of = |index: usize| self.message_at(line.intervals[index].start, block);
        let mut index = first;
        while index <= last {
            // All neighbouring intervals of the same message at once.
            let message = message_of(index);
            let next =
                (index..=last).find(|other| message_of(*other) != message).unwrap_or(last + 1);
            let columns = line.columns[index]..line.columns[next];
            let (fill, color) = self.fill(message);
            row[columns.clone()].fill(Cell { character: Some(fill), paint: Paint::On(color) });
            if index > first {
                let edge = if self.format.color { '│' } else { '|' };
                row[columns.start].character = Some(edge);
            }
            self.message_label(row, columns.start + 1, columns.end - 1, message, Paint::On(color));
            index = next;
        }
        let begins = line.intervals[first].start == block.start;
        let ends = line.intervals[last].end == block.end;
        if !self.format.color {
            row[from].character = Some(if begins { '[' } else { '…' });
            row[to - 1].character = Some(if ends { ']' } else { '…' });
        } else if ends {
            let color = self.fill(message_of(last)).1;
            row[to - 1] = Cell { character: Some('▌'), paint: Paint::Edge(color) };
        }
    }

    /// Returns the message of the byte at this offset of a block; for an empty block, the empty
    /// message there.
    fn message_at(&self, offset: u64, block: &Block) -> Option<usize> {
        let holds = |message: &Message| message.start <= offset && offset < message.end;
        let is_empty = |message: &Message| message.start == offset && message.end == offset;
        let messages = &self.record.messages;
        if block.start == block.end {
            messages.iter().position(is_empty)
        } else {
            messages.iter().position(holds)
        }
    }

    /// Returns the character and the colour that a message's blocks are filled with.
    fn fill(&self, message: Option<usize>) -> (char, u8) {
        let letter = message.map_or(' ', letter);
        let color = message.map_or(NO_MESSAGE_COLOR, message_color);
        (if self.format.color { ' ' } else { letter }, color)
    }

    /// Centres a message's letter between two columns, with the message's label if it fits.
    fn message_label(
        &self,
        row: &mut [Cell],
        from: usize,
        to: usize,
        message: Option<usize>,
        paint: Paint,
    ) {
        let Some(index) = message.filter(|_| to > from) else { return };
        let label = escape(self.record.messages[index].label.get(self.language).as_bytes());
        let long = if self.format.color {
            format!("{} {label}", letter(index))
        } else {
            format!(" {label} ")
        };
        // In plain text at least one letter of the filling remains on either side.
        let fill = 2 * usize::from(!self.format.color);
        let fits = !label.is_empty() && width(&long) + fill <= to - from;
        let text = if fits { long } else { letter(index).to_string() };
        write_into(row, from + (to - from - width(&text)) / 2, &text, paint);
    }

    /// Draws the axis: the offsets at which the line and the messages begin.
    fn axis(&self, line: &Line) -> Vec<Cell> {
        let end = line.columns[line.intervals.len()];
        let mut row = vec![BLANK; end];
        let begins = |offset| self.record.messages.iter().any(|message| message.start == offset);
        let mut free = 0;
        for (index, interval) in line.intervals.iter().enumerate() {
            let (column, text) = (line.columns[index], interval.start.to_string());
            let fits = column >= free && column + text.len() <= end;
            if (index == 0 || begins(interval.start)) && fits {
                write_into(&mut row, column, &text, Paint::Faint);
                free = column + text.len() + 1;
            }
        }
        row
    }

    /// Returns what the picture leaves out or cannot show, in parentheses.
    fn notes(&self, tracks: &[Track], lines: &[Line], intervals: usize) -> Vec<String> {
        let mut notes = Vec::new();
        let drawn: Vec<&Interval> = lines.iter().flat_map(|line| &line.intervals).collect();
        if drawn.len() < intervals {
            let end = drawn.last().map_or(0, |interval| interval.end);
            let hidden = |kind| -> usize {
                let is_hidden = |block: &&Block| !drawn.iter().any(|one| one.is_in(block));
                blocks_of(tracks, kind).filter(is_hidden).map(|block| block.calls).sum()
            };
            let calls = self.calls(hidden(StepKind::Write), hidden(StepKind::Read));
            notes.push(match self.language {
                Language::English => format!("not drawn: {calls}, from byte {end} on"),
                Language::Chinese => format!("第 {end} 字节以后没有画出：{calls}"),
            });
        }
        if lines.iter().any(|line| !line.to_scale) {
            notes.push(self.choose("widths are not to scale", "宽度不按比例").to_owned());
        }
        let reads: Vec<&Block> = blocks_of(tracks, StepKind::Read).collect();
        let unread = |interval: &&Interval| {
            !interval.is_empty() && !reads.iter().any(|block| interval.is_in(block))
        };
        if !reads.is_empty() && drawn.iter().any(unread) {
            notes.push(self.choose("·· was never read", "·· 没有被读出").to_owned());
        }
        if notes.is_empty() {
            return Vec::new();
        }
        let text = match self.language {
            Language::English => format!("({})", notes.join("; ")),
            Language::Chinese => format!("（{}）", notes.join("；")),
        };
        let lines = wrap(&text, self.format.width);
        lines.iter().map(|line| Style::Faint.apply(line, self.format)).collect()
    }

    /// Returns the letters and colours of the messages with their labels and sizes.
    fn legend(&self) -> Vec<String> {
        let mut legend = Legend { width: self.format.width, lines: Vec::new() };
        let messages = &self.record.messages;
        for (index, message) in messages.iter().enumerate().take(MAX_LEGEND_MESSAGES) {
            let letter =
                Cell { character: Some(letter(index)), paint: Paint::On(message_color(index)) };
            let space = Cell { character: Some(' '), ..letter };
            let (sign, sign_width) = if self.format.color {
                (self.render(&[space, letter, space]), 3)
            } else {
                (self.render(&[letter]), 1)
            };
            let label = escape(message.label.get(self.language).as_bytes());
            let label = fit(&label, self.format.width / 2);
            let bytes = (message.end - message.start) as usize;
            let text = match self.language {
                Language::English => format!(" {label} ({})", counted(bytes, "byte")),
                Language::Chinese => format!(" {label}（{bytes} 字节）"),
            };
            legend.add(&format!("{sign}{text}"), sign_width + width(&text));
        }
        let more = messages.len().saturating_sub(MAX_LEGEND_MESSAGES);
        if more > 0 {
            let text = Text::new(format!("and {more} more"), format!("另有 {more} 条"));
            let text = text.get(self.language);
            legend.add(text, width(text));
        }
        legend.lines.into_iter().map(|(line, _)| line).collect()
    }

    /// Returns a row as text, with colours if the format has them, without blanks at its end.
    fn render(&self, row: &[Cell]) -> String {
        let is_blank = |cell: &Cell| {
            cell.character == Some(' ') && !matches!(cell.paint, Paint::On(_) if self.format.color)
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
            match parameters.filter(|_| self.format.color) {
                Some(parameters) => {
                    text.push_str(&format!("\x1b[{parameters}m{characters}\x1b[0m"))
                }
                None => text.push_str(&characters),
            }
        }
        text
    }
}

/// The entries of a legend, set into lines; each line with its width in columns.
struct Legend {
    width: usize,
    lines: Vec<(String, usize)>,
}

impl Legend {
    fn add(&mut self, entry: &str, columns: usize) {
        const GAP: &str = "   ";
        match self.lines.last_mut() {
            Some((line, used)) if *used + GAP.len() + columns <= self.width => {
                line.push_str(GAP);
                line.push_str(entry);
                *used += GAP.len() + columns;
            }
            _ => self.lines.push((entry.to_owned(), columns)),
        }
    }
}

fn blocks_of(tracks: &[Track], kind: StepKind) -> impl Iterator<Item = &Block> {
    tracks.iter().filter(move |track| track.kind == kind).flat_map(|track| &track.lanes).flatten()
}

/// Draws the labels of a lane's blocks, each centred on its block.
fn block_labels(track: &Track, lane: &[Block], line: &Line) -> Vec<Cell> {
    let mut row = vec![BLANK; line.columns[line.intervals.len()]];
    for block in lane {
        let Some((first, last)) = line.extent(block) else { continue };
        let (from, to) = (line.columns[first], line.columns[last + 1]);
        let label = track.label(block);
        if width(&label) < to - from {
            write_into(&mut row, from + (to - from - width(&label)) / 2, &label, Paint::Plain);
        }
    }
    row
}

/// Returns the letter of a message: A to Z, a to z, and again.
fn letter(message: usize) -> char {
    let letters = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    char::from(letters[message % letters.len()])
}

fn message_color(message: usize) -> u8 {
    MESSAGE_COLORS[message % MESSAGE_COLORS.len()]
}

/// Writes a text into a row; what does not fit is left out.
fn write_into(row: &mut [Cell], mut column: usize, text: &str, paint: Paint) {
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
