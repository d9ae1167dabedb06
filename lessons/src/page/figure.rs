//! Renders a flow as a figure of a page: blocks on lanes over an axis of bytes, and the data that
//! the script needs to step through it.

use std::fmt::Write;

use serde_json::{Value, json};

use crate::flow::{Carrier, Record, Step, StepKind};
use crate::language::{Language, counted};
use crate::layout::{self, Block, Line, Track};
use crate::page::html::{escape_html, visible};

/// Columns of a line of blocks.
const COLUMNS: usize = 72;

/// The width of a column, in units of the drawing.
const COLUMN_WIDTH: usize = 10;

/// The width of the lanes' names on the left, in units of the drawing.
const MARGIN_WIDTH: usize = 112;

/// Lines of blocks per figure; the calls after them are counted.
const MAX_LINES: usize = 6;

/// Calls that the slider steps through; the calls after them are counted.
const MAX_STEPS: usize = 400;

/// Messages that the legend names.
const MAX_LEGEND_MESSAGES: usize = 24;

/// Colours and patterns of the messages, used in turn.
pub(super) const PAINTS: usize = 8;

/// The heights of a block, of its label above, and of a lane with both, in units of the drawing.
const BLOCK_HEIGHT: usize = 40;
const LABEL_HEIGHT: usize = 20;
const LANE_HEIGHT: usize = BLOCK_HEIGHT + LABEL_HEIGHT + 6;

/// The height of the axis, in units of the drawing.
const AXIS_HEIGHT: usize = 26;

/// Returns the figure's HTML; `number` is that of the figure on its page.
pub(super) fn figure(record: &Record, language: Language, number: usize) -> String {
    Figure { record, language }.html(number)
}

struct Figure<'a> {
    record: &'a Record,
    language: Language,
}

impl Figure<'_> {
    fn html(&self, number: usize) -> String {
        let tracks = layout::tracks(self.record);
        let axis = layout::axis(self.record, &tracks, |track, block| {
            // Digits are narrower than two columns of the drawing.
            track.label(block).chars().count().max(3)
        });
        let lines = layout::lines(&axis, COLUMNS, MAX_LINES);
        let label = escape_html(&visible(self.record.label.get(self.language)));
        let mut html =
            format!("<figure class=\"flow\" id=\"flow-{number}\"><figcaption>{label} <small>");
        let _ = write!(html, "{}</small></figcaption>", self.counts());
        html += &self.legend();
        html += &self.player(number);
        let _ = write!(
            html,
            "<div class=\"strip\" tabindex=\"0\" role=\"region\" aria-label=\"{}\">",
            self.choose("Writes and reads over the bytes of the flow", "按字节排列的写入与读取")
        );
        for line in &lines {
            html += &self.line(&tracks, line);
        }
        html += "</div>";
        html += "<div class=\"detail\" hidden></div>";
        for note in self.notes(&tracks, &lines) {
            let _ = write!(html, "<p class=\"note\">{note}</p>");
        }
        // Without `<` no data can end the element.
        let data = self.data().to_string().replace('<', "\\u003c");
        let _ = writeln!(html, "<script type=\"application/json\">{data}</script></figure>");
        html
    }

    /// Returns the text in the language of the page.
    fn choose<'t>(&self, english: &'t str, chinese: &'t str) -> &'t str {
        match self.language {
            Language::English => english,
            Language::Chinese => chinese,
        }
    }

    fn is_proxy(&self) -> bool {
        self.record.carrier == Carrier::Proxy
    }

    fn steps(&self, kind: StepKind) -> impl Iterator<Item = &Step> {
        self.record.steps.iter().filter(move |step| step.kind == kind)
    }

    fn counts(&self) -> String {
        let bytes: u64 = self.steps(StepKind::Write).map(|step| step.end - step.start).sum();
        let bytes = self.bytes(bytes);
        let (writes, reads) =
            (self.steps(StepKind::Write).count(), self.steps(StepKind::Read).count());
        let (send, recv) = (self.name(StepKind::Write), self.name(StepKind::Read));
        match (self.language, self.is_proxy()) {
            (Language::English, true) => format!(
                "{bytes} · {} arrived · {} forwarded",
                counted(writes, "message"),
                counted(reads, "piece")
            ),
            (Language::Chinese, true) => {
                format!("{bytes} · 到来 {writes} 条消息 · 转发 {reads} 块")
            }
            (Language::English, false) => {
                format!("{bytes} · {send} called {writes}× · {recv} called {reads}×")
            }
            (Language::Chinese, false) => {
                format!("{bytes} · {send} {writes} 次 · {recv} {reads} 次")
            }
        }
    }

    fn legend(&self) -> String {
        let mut html = "<ul class=\"legend\">".to_owned();
        for (index, message) in self.record.messages.iter().take(MAX_LEGEND_MESSAGES).enumerate() {
            let _ = write!(
                html,
                "<li><span class=\"chip m{}\">{}</span> <span>{}</span> <small>{}</small></li>",
                index % PAINTS,
                letter(index),
                escape_html(&visible(message.label.get(self.language))),
                self.bytes(message.end - message.start),
            );
        }
        let more = self.record.messages.len().saturating_sub(MAX_LEGEND_MESSAGES);
        if more > 0 {
            let note = match self.language {
                Language::English => format!("… and {more} more messages"),
                Language::Chinese => format!("…… 另有 {more} 条消息"),
            };
            let _ = write!(html, "<li>{note}</li>");
        }
        html + "</ul>"
    }

    fn bytes(&self, bytes: u64) -> String {
        match self.language {
            Language::English => counted(bytes as usize, "byte"),
            Language::Chinese => format!("{bytes} 字节"),
        }
    }

    /// Returns the buttons, the slider and the three places where bytes can be. They are hidden
    /// unless scripts run.
    fn player(&self, number: usize) -> String {
        let last = self.record.steps.len().min(MAX_STEPS);
        let back = self.choose("Step back", "上一步");
        let forward = self.choose("Step forward", "下一步");
        let play = self.choose("Play", "播放");
        let slide = self.choose("Step through time", "沿时间逐步查看");
        let mut html = format!(
            "<div class=\"player\" hidden><div class=\"controls\">\
             <button type=\"button\" class=\"back\" aria-label=\"{back}\" \
             title=\"{back}\">◀</button>\
             <button type=\"button\" class=\"play\">▶ {play}</button>\
             <button type=\"button\" class=\"forward\" aria-label=\"{forward}\" \
             title=\"{forward}\">▶</button>\
             <input type=\"range\" min=\"0\" max=\"{last}\" step=\"1\" value=\"{last}\" \
             aria-label=\"{slide}\" id=\"slider-{number}\"></div>\
             <output class=\"now\" for=\"slider-{number}\"></output><div class=\"pipe\">"
        );
        for (class, name) in self.places() {
            let _ = write!(
                html,
                "<div class=\"place {class}\"><h3>{name}</h3><div \
                 class=\"chunks\"></div><p></p></div>"
            );
        }
        html + "</div></div>"
    }

    /// Returns the class and the heading of the three places: sent, on the way, read.
    fn places(&self) -> [(&'static str, String); 3] {
        let recv = self.name(StepKind::Read);
        let sent = match self.record.carrier {
            Carrier::Proxy => self.choose("The last message that arrived", "最近到来的消息"),
            _ => self.choose("Sender", "发送方"),
        };
        let kernel = match self.record.carrier {
            Carrier::Stream | Carrier::Pair => self.choose(
                "Sent, not read: in the kernels' buffers",
                "已发送、未读取：在内核缓冲区里",
            ),
            Carrier::Udp => self.choose(
                "Sent, not read: in the kernels' buffers, or lost",
                "已发送、未读取：在内核缓冲区里，或已丢失",
            ),
            Carrier::Proxy => self.choose("Held by the proxy", "攒在代理手里"),
        };
        let got = match (self.language, self.is_proxy()) {
            (Language::English, true) => "The last piece forwarded".to_owned(),
            (Language::Chinese, true) => "最近转发的一块".to_owned(),
            (Language::English, false) => format!("Receiver: the last {recv}"),
            (Language::Chinese, false) => format!("接收方：最近一次 {recv}"),
        };
        [("sent", sent.to_owned()), ("kernel", kernel.to_owned()), ("got", got)]
    }

    fn name(&self, kind: StepKind) -> &'static str {
        match (kind, self.record.carrier) {
            (StepKind::Segment, _) => self.choose("segment", "报文段"),
            (StepKind::Write, Carrier::Proxy) => self.choose("message", "消息"),
            (StepKind::Read, Carrier::Proxy) => self.choose("piece", "块"),
            (StepKind::Write, Carrier::Udp) => "sendto()",
            (StepKind::Read, Carrier::Udp) => "recvfrom()",
            (StepKind::Write, _) => "send()",
            (StepKind::Read, _) => "recv()",
        }
    }

    /// Returns the name of a step with its number, for which `#` is the placeholder.
    fn ordinal(&self, kind: StepKind) -> String {
        let name = self.name(kind);
        match (self.language, kind) {
            (Language::English, _) => format!("{name} no. #"),
            (Language::Chinese, StepKind::Segment) => format!("第 # 个{name}"),
            (Language::Chinese, StepKind::Write) if self.is_proxy() => format!("第 # 条{name}"),
            (Language::Chinese, StepKind::Read) if self.is_proxy() => format!("第 # {name}"),
            (Language::Chinese, _) => format!("第 # 次 {name}"),
        }
    }

    /// Draws one line: the borders of messages, the lanes, and the axis.
    fn line(&self, tracks: &[Track], line: &Line) -> String {
        let (first, last) = match (line.intervals.first(), line.intervals.last()) {
            (Some(first), Some(last)) => (first.start, last.end),
            _ => return String::new(),
        };
        let lanes: usize = tracks.iter().map(|track| track.lanes.len()).sum();
        let width = line.columns.last().copied().unwrap_or(0) * COLUMN_WIDTH;
        let view = MARGIN_WIDTH + COLUMNS * COLUMN_WIDTH + 4;
        let height = lanes * LANE_HEIGHT + AXIS_HEIGHT;
        let mut svg =
            format!("<svg viewBox=\"0 0 {view} {height}\" class=\"lanes\" aria-hidden=\"true\">");
        let x_of_byte = |byte: u64| {
            let index = line.intervals.iter().position(|interval| interval.start >= byte);
            x(line.columns[index.unwrap_or(line.intervals.len())])
        };
        // Lines through all lanes where messages begin: they show which blocks cross a border.
        for message in &self.record.messages {
            if message.start >= first && (message.start < last || message.start == 0) {
                let (at, end) = (x_of_byte(message.start), height - AXIS_HEIGHT + 4);
                let _ = write!(svg, "<path class=\"border\" d=\"M{at} 4V{end}\"/>");
            }
        }
        let mut top = 0;
        for track in tracks {
            let (middle, name) = (top + LABEL_HEIGHT + BLOCK_HEIGHT / 2, self.name(track.kind));
            let _ = write!(svg, "<text class=\"lane\" x=\"0\" y=\"{}\">{name}</text>", middle + 6);
            for lane in &track.lanes {
                for block in lane {
                    self.block(&mut svg, track, block, line, top + LABEL_HEIGHT);
                }
                top += LANE_HEIGHT;
            }
        }
        let (left, right, base) = (MARGIN_WIDTH, MARGIN_WIDTH + width, height - 4);
        let unit = self.choose("byte", "字节");
        let _ = write!(
            svg,
            "<text class=\"axis\" x=\"{left}\" y=\"{base}\">{first}</text>\
             <text class=\"axis\" text-anchor=\"end\" x=\"{right}\" y=\"{base}\">{unit} {last}\
             </text></svg>"
        );
        svg
    }

    /// Draws a block: its messages, its edge, and its label above.
    fn block(&self, svg: &mut String, track: &Track, block: &Block, line: &Line, y: usize) {
        let Some((first, last)) = line.extent(block) else { return };
        let (left, right) = (x(line.columns[first]) + 1, x(line.columns[last + 1]) - 1);
        let step = self.step_of(track.kind, block.number);
        let _ =
            write!(svg, "<g class=\"block\" data-step=\"{step}\" data-calls=\"{}\">", block.calls);
        // Neighbouring intervals of the same message, joined.
        let mut stretches: Vec<(Option<usize>, usize, usize)> = Vec::new();
        for index in first..=last {
            let interval = line.intervals[index];
            let message = self.message_at(interval.start).filter(|_| !interval.is_empty());
            let (from, to) = (x(line.columns[index]), x(line.columns[index + 1]));
            match stretches.last_mut() {
                Some(stretch) if stretch.0 == message => stretch.2 = to,
                _ => stretches.push((message, from, to)),
            }
        }
        for (message, from, to) in stretches {
            let class =
                message.map_or("unowned".to_owned(), |message| format!("p{}", message % PAINTS));
            let (edge, width) = (from.max(left), to.min(right).saturating_sub(from.max(left)));
            let _ = write!(
                svg,
                "<rect class=\"{class}\" x=\"{edge}\" y=\"{y}\" width=\"{width}\" \
                 height=\"{BLOCK_HEIGHT}\"/>"
            );
            if let Some(message) = message {
                let (middle, base) = ((from + to) / 2, y + BLOCK_HEIGHT / 2 + 7);
                let letter = letter(message);
                let _ = write!(
                    svg,
                    "<text class=\"letter\" x=\"{middle}\" y=\"{base}\">{letter}</text>"
                );
            }
        }
        let _ = write!(
            svg,
            "<rect class=\"edge\" x=\"{left}\" y=\"{y}\" width=\"{}\" height=\"{BLOCK_HEIGHT}\" \
             rx=\"3\"/><text class=\"size\" x=\"{}\" y=\"{}\">{}</text></g>",
            right.saturating_sub(left),
            (left + right) / 2,
            y - 6,
            track.label(block),
        );
    }

    /// Returns the number of a step among all steps, given its number among the steps of this kind;
    /// both from 1.
    fn step_of(&self, kind: StepKind, number: usize) -> usize {
        let of_kind = self.record.steps.iter().enumerate().filter(|(_, step)| step.kind == kind);
        of_kind.map(|(index, _)| index + 1).nth(number - 1).unwrap_or(0)
    }

    /// Returns the message that a byte belongs to.
    fn message_at(&self, byte: u64) -> Option<usize> {
        // The last one that begins at or before the byte: empty ones at the same offset come first.
        let after = self.record.messages.partition_point(|message| message.start <= byte);
        let index = after.checked_sub(1)?;
        (byte < self.record.messages[index].end).then_some(index)
    }

    /// Returns notes about what the figure leaves out.
    fn notes(&self, tracks: &[Track], lines: &[Line]) -> Vec<String> {
        let mut notes = Vec::new();
        let drawn =
            lines.last().and_then(|line| line.intervals.last()).map_or(0, |interval| interval.end);
        let blocks = tracks.iter().flat_map(|track| &track.lanes).flatten();
        let hidden = blocks.filter(|block| block.start >= drawn && block.end > drawn);
        let hidden_calls: usize = hidden.map(|block| block.calls).sum();
        if hidden_calls > 0 {
            notes.push(match self.language {
                Language::English => {
                    format!("Drawn up to byte {drawn}; {hidden_calls} later calls are not drawn.")
                }
                Language::Chinese => {
                    format!("只画到第 {drawn} 字节；其后的 {hidden_calls} 次调用没有画出。")
                }
            });
        }
        let steps = self.record.steps.len();
        if steps > MAX_STEPS {
            notes.push(match self.language {
                Language::English => {
                    format!("The slider goes through the first {MAX_STEPS} of {steps} calls.")
                }
                Language::Chinese => format!("共 {steps} 次调用，滑块只走前 {MAX_STEPS} 次。"),
            });
        }
        if lines.iter().any(|line| !line.to_scale) {
            let english = "Not to scale: small blocks are drawn wider than they are.";
            notes.push(self.choose(english, "未按比例绘制：小块画得比实际宽。").to_owned());
        }
        if self.steps(StepKind::Segment).next().is_none() && !self.is_proxy() {
            let english = "Only calls are drawn here, no segments.";
            notes.push(self.choose(english, "这里只画出系统调用，没有画报文段。").to_owned());
        }
        notes
    }

    /// Returns what the script needs: messages, steps, names, and how the flow behaves.
    fn data(&self) -> Value {
        let kinds = [StepKind::Write, StepKind::Segment, StepKind::Read];
        let mut numbers = [0usize; 3];
        let step = |step: &Step| {
            let kind = kinds.iter().position(|kind| *kind == step.kind).unwrap_or_default();
            numbers[kind] += 1;
            let bytes: String = step.bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            let micros = u64::try_from(step.at.as_micros()).unwrap_or(u64::MAX);
            json!([kind, numbers[kind], step.start, step.end, micros, bytes])
        };
        let steps: Vec<Value> = self.record.steps.iter().take(MAX_STEPS).map(step).collect();
        let messages = self.record.messages.iter().enumerate();
        let messages: Vec<Value> = messages
            .map(|(index, message)| {
                json!([letter(index), message.start, message.end, index % PAINTS])
            })
            .collect();
        json!({
            "messages": messages,
            "steps": steps,
            // Whether reads take the bytes in order.
            "stream": matches!(self.record.carrier, Carrier::Stream | Carrier::Proxy),
            "names": kinds.map(|kind| self.name(kind)),
            "nth": kinds.map(|kind| self.ordinal(kind)),
            // Whether a read is a call that returns bytes.
            "returns": !self.is_proxy(),
        })
    }
}

/// Returns the x coordinate at which a column begins, in units of the drawing.
fn x(column: usize) -> usize {
    MARGIN_WIDTH + column * COLUMN_WIDTH
}

/// Returns the name of a message in a figure: A to Z, then A2 and so on.
fn letter(index: usize) -> String {
    let letter = char::from(b'A' + u8::try_from(index % 26).unwrap_or(0));
    match index / 26 {
        0 => letter.to_string(),
        round => format!("{letter}{}", round + 1),
    }
}
