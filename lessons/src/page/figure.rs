//! A flow as a figure of a page: blocks on lanes over a common axis of bytes, and what the script
//! needs to step through it.

use std::fmt::Write;

use serde_json::{Value, json};

use crate::flow::{Carrier, Message, Record, Step, What};
use crate::language::Language;
use crate::layout::{self, Block, Line, Track};
use crate::page::html::{escape_html, visible};

/// Columns of a line of blocks, and how many units of the drawing each is wide.
const COLUMNS: usize = 72;
const UNIT: usize = 10;

/// Room on the left for the names of the lanes, in units of the drawing.
const MARGIN: usize = 112;

/// Lines of blocks that one figure may have; what comes behind them is counted.
const LINES: usize = 6;

/// Calls that can be stepped through; what comes behind them is counted.
const STEPS: usize = 400;

/// Messages that the legend names.
const NAMED: usize = 24;

/// Colours and patterns of messages; they come again in turn.
pub(super) const PAINTS: usize = 8;

/// Heights, in units of the drawing: a block, what stands above a lane, the distance between lanes.
const BLOCK: usize = 40;
const ABOVE: usize = 20;
const LANE: usize = BLOCK + ABOVE + 6;

/// The figure's HTML; `number` tells the figures of a page apart.
pub(super) fn figure(record: &Record, language: Language, number: usize) -> String {
    Figure { record, language }.html(number)
}

struct Figure<'a> {
    record: &'a Record,
    language: Language,
}

impl Figure<'_> {
    fn html(&self, number: usize) -> String {
        let tracks: Vec<Track> = [What::Write, What::Segment, What::Read]
            .into_iter()
            .filter_map(|what| layout::track(self.record, what))
            .collect();
        let axis = layout::axis(self.record, &tracks, |track, block| {
            // Digits are narrower than two columns of the drawing.
            self.size(track, block).chars().count().max(3)
        });
        let lines = layout::lines(&axis, COLUMNS, LINES);
        let label = escape_html(&visible(self.record.label.get(self.language)));
        let mut html =
            format!("<figure class=\"flow\" id=\"flow-{number}\"><figcaption>{label} <small>");
        let _ = write!(html, "{}</small></figcaption>", self.counts());
        html += &self.legend();
        html += &self.player(number);
        let _ = write!(
            html,
            "<div class=\"strip\" tabindex=\"0\" role=\"region\" aria-label=\"{}\">",
            self.say("Writes and reads over the bytes of the flow", "按字节排列的写入与读取")
        );
        for line in &lines {
            html += &self.line(&tracks, line);
        }
        html += "</div>";
        html += "<div class=\"detail\" hidden></div>";
        for note in self.notes(&tracks, &lines) {
            let _ = write!(html, "<p class=\"note\">{note}</p>");
        }
        // Nothing in it can end the element: there is no `<` left.
        let data = self.data().to_string().replace('<', "\\u003c");
        let _ = writeln!(html, "<script type=\"application/json\">{data}</script></figure>");
        html
    }

    fn say<'w>(&self, english: &'w str, chinese: &'w str) -> &'w str {
        match self.language {
            Language::English => english,
            Language::Chinese => chinese,
        }
    }

    fn steps(&self, what: What) -> impl Iterator<Item = &Step> {
        self.record.steps.iter().filter(move |step| step.what == what)
    }

    fn counts(&self) -> String {
        let bytes: u64 = self.steps(What::Write).map(|step| step.end - step.start).sum();
        let (writes, reads) = (self.steps(What::Write).count(), self.steps(What::Read).count());
        let (send, recv) = (self.name(What::Write), self.name(What::Read));
        match self.language {
            Language::English if self.record.carrier == Carrier::Proxy => {
                format!("{bytes} bytes · {writes} messages came · {reads} pieces went on")
            }
            Language::Chinese if self.record.carrier == Carrier::Proxy => {
                format!("{bytes} 字节 · 到来 {writes} 条消息 · 转发 {reads} 块")
            }
            Language::English => {
                format!("{bytes} bytes · {send} called {writes}× · {recv} called {reads}×")
            }
            Language::Chinese => format!("{bytes} 字节 · {send} {writes} 次 · {recv} {reads} 次"),
        }
    }

    fn legend(&self) -> String {
        let mut html = "<ul class=\"legend\">".to_owned();
        for (index, message) in self.record.messages.iter().take(NAMED).enumerate() {
            let _ = write!(
                html,
                "<li><span class=\"chip m{}\">{}</span> <span>{}</span> <small>{}</small></li>",
                index % PAINTS,
                letter(index),
                escape_html(&visible(message.label.get(self.language))),
                self.bytes(message.end - message.start),
            );
        }
        let more = self.record.messages.len().saturating_sub(NAMED);
        if more > 0 {
            let words = match self.language {
                Language::English => format!("… and {more} more messages"),
                Language::Chinese => format!("…… 另有 {more} 条消息"),
            };
            let _ = write!(html, "<li>{words}</li>");
        }
        html + "</ul>"
    }

    fn bytes(&self, bytes: u64) -> String {
        match self.language {
            Language::English if bytes == 1 => "1 byte".to_owned(),
            Language::English => format!("{bytes} bytes"),
            Language::Chinese => format!("{bytes} 字节"),
        }
    }

    /// Buttons and slider, and the three places where bytes can be. They appear where scripts run.
    fn player(&self, number: usize) -> String {
        let last = self.record.steps.len().min(STEPS);
        let (back, forth) = (self.say("Step back", "上一步"), self.say("Step forward", "下一步"));
        let (play, slide) =
            (self.say("Play", "播放"), self.say("Step through time", "沿时间逐步查看"));
        let recv = self.name(What::Read);
        let waiting = match self.record.carrier {
            Carrier::Stream | Carrier::Pair => self
                .say("Sent, not read: in the kernels' buffers", "已发送、未读取：在内核缓冲区里"),
            Carrier::Udp => self.say(
                "Sent, not read: in the kernels' buffers, or lost",
                "已发送、未读取：在内核缓冲区里，或已丢失",
            ),
            Carrier::Proxy => self.say("Held by the proxy", "攒在代理手里"),
        };
        let (first, last_call) = match self.language {
            Language::English if self.record.carrier == Carrier::Proxy => {
                ("The last message that came", "The last piece that went on".to_owned())
            }
            Language::Chinese if self.record.carrier == Carrier::Proxy => {
                ("最近到来的消息", "最近转发的一块".to_owned())
            }
            Language::English => ("Sender", format!("Receiver: the last {recv}")),
            Language::Chinese => ("发送方", format!("接收方：最近一次 {recv}")),
        };
        let places = [("sent", first), ("kernel", waiting), ("got", &last_call)];
        let mut html = format!(
            "<div class=\"player\" hidden><div class=\"controls\">\
             <button type=\"button\" class=\"back\" aria-label=\"{back}\" \
             title=\"{back}\">◀</button>\
             <button type=\"button\" class=\"play\">▶ {play}</button>\
             <button type=\"button\" class=\"forth\" aria-label=\"{forth}\" \
             title=\"{forth}\">▶</button>\
             <input type=\"range\" min=\"0\" max=\"{last}\" step=\"1\" value=\"{last}\" \
             aria-label=\"{slide}\" \
             id=\"slider-{number}\"></div>\
             <output class=\"now\" for=\"slider-{number}\"></output><div class=\"pipe\">"
        );
        for (class, name) in places {
            let _ = write!(
                html,
                "<div class=\"place {class}\"><h3>{name}</h3><div \
                 class=\"chunks\"></div><p></p></div>"
            );
        }
        html + "</div></div>"
    }

    fn name(&self, what: What) -> &'static str {
        match what {
            What::Write if self.record.carrier == Carrier::Proxy => self.say("message", "消息"),
            What::Read if self.record.carrier == Carrier::Proxy => self.say("piece", "块"),
            What::Write if self.record.carrier == Carrier::Udp => "sendto()",
            What::Write => "send()",
            What::Segment => self.say("segment", "报文段"),
            What::Read if self.record.carrier == Carrier::Udp => "recvfrom()",
            What::Read => "recv()",
        }
    }

    /// Which of its kind a step is; `#` stands for the number.
    fn nth(&self, what: What) -> String {
        let name = self.name(what);
        match (self.language, what) {
            (Language::English, _) => format!("{name} no. #"),
            (Language::Chinese, What::Segment) => format!("第 # 个{name}"),
            (Language::Chinese, What::Write) if self.record.carrier == Carrier::Proxy => {
                format!("第 # 条{name}")
            }
            (Language::Chinese, What::Read) if self.record.carrier == Carrier::Proxy => {
                format!("第 # {name}")
            }
            (Language::Chinese, _) => format!("第 # 次 {name}"),
        }
    }

    /// What stands above a block: which call it was, and how many bytes it moved.
    fn size(&self, track: &Track, block: &Block) -> String {
        let again = if block.calls > 1 { format!("×{}", block.calls) } else { String::new() };
        let number = if track.in_order { String::new() } else { format!("#{}: ", block.number) };
        format!("{number}{}{again}", block.end - block.start)
    }

    fn line(&self, tracks: &[Track], line: &Line) -> String {
        let lanes: usize = tracks.iter().map(|track| track.lanes.len()).sum();
        let width = line.columns.last().copied().unwrap_or(0) * UNIT;
        let (view, height) = (MARGIN + COLUMNS * UNIT + 4, lanes * LANE + 26);
        let mut svg =
            format!("<svg viewBox=\"0 0 {view} {height}\" class=\"lanes\" aria-hidden=\"true\">");
        let x = |column: usize| MARGIN + column * UNIT;
        let place = |at: u64| {
            let index = line.segments.iter().position(|segment| segment.start >= at);
            x(line.columns[index.unwrap_or(line.segments.len())])
        };
        let (first, last) = match (line.segments.first(), line.segments.last()) {
            (Some(first), Some(last)) => (first.start, last.end),
            _ => return String::new(),
        };
        // Where messages begin: lines through all lanes, so that one sees which blocks keep to
        // them.
        for message in &self.record.messages {
            if message.start >= first && (message.start < last || message.start == 0) {
                let at = place(message.start);
                let _ = write!(svg, "<path class=\"border\" d=\"M{at} 4V{}\"/>", height - 22);
            }
        }
        let mut top = 0;
        for track in tracks {
            let _ = write!(
                svg,
                "<text class=\"lane\" x=\"0\" y=\"{}\">{}</text>",
                top + ABOVE + BLOCK / 2 + 6,
                self.name(track.what)
            );
            for lane in &track.lanes {
                for block in lane {
                    self.block(&mut svg, track, block, line, top + ABOVE, &x);
                }
                top += LANE;
            }
        }
        // The axis: where the line begins and ends, in bytes.
        let _ =
            write!(svg, "<text class=\"axis\" x=\"{MARGIN}\" y=\"{}\">{first}</text>", height - 4);
        let _ = write!(
            svg,
            "<text class=\"axis\" text-anchor=\"end\" x=\"{}\" y=\"{}\">{} {last}</text>",
            MARGIN + width,
            height - 4,
            self.say("byte", "字节"),
        );
        svg + "</svg>"
    }

    fn block(
        &self,
        svg: &mut String,
        track: &Track,
        block: &Block,
        line: &Line,
        y: usize,
        x: &impl Fn(usize) -> usize,
    ) {
        let own: Vec<usize> =
            (0..line.segments.len()).filter(|index| line.segments[*index].is_in(block)).collect();
        let (Some(first), Some(last)) = (own.first(), own.last()) else { return };
        let (left, right) = (x(line.columns[*first]) + 1, x(line.columns[*last + 1]) - 1);
        let step = self.step_of(track.what, block.number);
        let _ =
            write!(svg, "<g class=\"block\" data-step=\"{step}\" data-calls=\"{}\">", block.calls);
        // As far as the same message goes, in one piece.
        let mut stretches: Vec<(Option<usize>, usize, usize)> = Vec::new();
        for index in own.iter().copied() {
            let segment = line.segments[index];
            let message = self.message_at(segment.start).filter(|_| segment.start < segment.end);
            let (from, to) = (x(line.columns[index]), x(line.columns[index + 1]));
            match stretches.last_mut() {
                Some(before) if before.0 == message => before.2 = to,
                _ => stretches.push((message, from, to)),
            }
        }
        for (message, from, to) in stretches {
            let class =
                message.map_or("nobody".to_owned(), |message| format!("p{}", message % PAINTS));
            let (edge, width) = (from.max(left), to.min(right).saturating_sub(from.max(left)));
            let _ = write!(
                svg,
                "<rect class=\"{class}\" x=\"{edge}\" y=\"{y}\" width=\"{width}\" \
                 height=\"{BLOCK}\"/>"
            );
            if let Some(message) = message {
                let (middle, base) = ((from + to) / 2, y + BLOCK / 2 + 7);
                let letter = letter(message);
                let _ = write!(
                    svg,
                    "<text class=\"letter\" x=\"{middle}\" y=\"{base}\">{letter}</text>"
                );
            }
        }
        let _ = write!(
            svg,
            "<rect class=\"edge\" x=\"{left}\" y=\"{y}\" width=\"{}\" height=\"{BLOCK}\" rx=\"3\"/>\
             <text class=\"size\" x=\"{}\" y=\"{}\">{}</text></g>",
            right.saturating_sub(left),
            (left + right) / 2,
            y - 6,
            self.size(track, block),
        );
    }

    /// The position among all steps of a call that is the so many-th of its kind, from 1.
    fn step_of(&self, what: What, number: usize) -> usize {
        let of_kind = self.record.steps.iter().enumerate().filter(|(_, step)| step.what == what);
        of_kind.map(|(index, _)| index + 1).nth(number - 1).unwrap_or(0)
    }

    fn message_at(&self, byte: u64) -> Option<usize> {
        // The last that begins here or before: an empty one at the same place has no bytes.
        let behind = self.record.messages.partition_point(|message| message.start <= byte);
        let index = behind.checked_sub(1)?;
        let holds = |message: &Message| byte < message.end;
        self.record.messages.get(index).filter(|message| holds(message)).map(|_| index)
    }

    /// What is not drawn and not known, in sentences.
    fn notes(&self, tracks: &[Track], lines: &[Line]) -> Vec<String> {
        let mut notes = Vec::new();
        let drawn =
            lines.last().and_then(|line| line.segments.last()).map_or(0, |segment| segment.end);
        let behind = |track: &Track| {
            let blocks = track
                .lanes
                .iter()
                .flatten()
                .filter(|block| block.start >= drawn && block.end > drawn);
            blocks.map(|block| block.calls).sum::<usize>()
        };
        let left_out: usize = tracks.iter().map(behind).sum();
        if left_out > 0 {
            notes.push(match self.language {
                Language::English => {
                    format!("Drawn up to byte {drawn}; {left_out} calls behind it are not drawn.")
                }
                Language::Chinese => {
                    format!("只画到第 {drawn} 字节；其后的 {left_out} 次调用没有画出。")
                }
            });
        }
        let steps = self.record.steps.len();
        if steps > STEPS {
            notes.push(match self.language {
                Language::English => {
                    format!("The slider goes through the first {STEPS} of {steps} calls.")
                }
                Language::Chinese => format!("共 {steps} 次调用，滑块只走前 {STEPS} 次。"),
            });
        }
        if lines.iter().any(|line| !line.to_scale) {
            notes.push(
                self.say(
                    "Not to scale: small blocks are drawn wider than they are.",
                    "未按比例绘制：小块画得比实际宽。",
                )
                .to_owned(),
            );
        }
        if self.steps(What::Segment).next().is_none() && self.record.carrier != Carrier::Proxy {
            let only = self.say(
                "Only calls are drawn here, no segments.",
                "这里只画出系统调用，没有画报文段。",
            );
            notes.push(only.to_owned());
        }
        notes
    }

    /// What the script needs: messages, steps, and whether bytes are taken in order.
    fn data(&self) -> Value {
        let mut numbers = [0usize; 3];
        let steps: Vec<Value> = self
            .record
            .steps
            .iter()
            .take(STEPS)
            .map(|step| {
                let kind = match step.what {
                    What::Write => 0,
                    What::Segment => 1,
                    What::Read => 2,
                };
                numbers[kind] += 1;
                let bytes: String = step.bytes.iter().map(|byte| format!("{byte:02x}")).collect();
                let micros = u64::try_from(step.at.as_micros()).unwrap_or(u64::MAX);
                json!([kind, numbers[kind], step.start, step.end, micros, bytes])
            })
            .collect();
        let messages: Vec<Value> = self
            .record
            .messages
            .iter()
            .enumerate()
            .map(|(index, message)| {
                json!([letter(index), message.start, message.end, index % PAINTS])
            })
            .collect();
        let kinds = [What::Write, What::Segment, What::Read];
        let (names, nth) = (kinds.map(|what| self.name(what)), kinds.map(|what| self.nth(what)));
        let returns = self.record.carrier != Carrier::Proxy;
        let stream = matches!(self.record.carrier, Carrier::Stream | Carrier::Proxy);
        json!({
            "messages": messages, "steps": steps, "stream": stream, "names": names, "nth": nth,
                "returns": returns
        })
    }
}

/// What a message is called in the figure: A to Z, then A2 and so on.
fn letter(index: usize) -> String {
    let letter = char::from(b'A' + u8::try_from(index % 26).unwrap_or(0));
    match index / 26 {
        0 => letter.to_string(),
        round => format!("{letter}{}", round + 1),
    }
}
