//! A lesson on a terminal, or as plain text in a file or a pipe.

use std::io::{self, IsTerminal, Write};

use crate::class::Given;
use crate::picture;
use crate::stage::{Item, Taught, Trouble};
use crate::words::{Language, Words};
use crate::wrap::{escape, fit, width, wrap};
use crate::{LESSONS, Lesson};

/// What the place looks like where lessons are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Look {
    /// Columns.
    pub width: usize,
    /// Whether colours are understood there (ECMA-48, and 256 of them).
    pub color: bool,
}

/// Where there is no terminal, and `COLUMNS` does not say otherwise.
const WIDTH: u16 = 80;

/// Narrower than that a picture says nothing, wider than that nobody reads text.
const WIDTHS: std::ops::RangeInclusive<u16> = 40..=200;

impl Look {
    /// As wide as the terminal that stdout is; colours if it is one that has them and `NO_COLOR` is
    /// not set.
    pub fn of_stdout() -> Self {
        let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        let columns = || variable("COLUMNS").and_then(|columns| columns.to_str()?.parse().ok());
        let terminal = terminal_size::terminal_size_of(io::stdout()).map(|(width, _)| width.0);
        let width = terminal.filter(|width| *width > 0).or_else(columns).unwrap_or(WIDTH);
        let dumb = variable("TERM").is_none_or(|term| term == "dumb");
        Self {
            width: width.clamp(*WIDTHS.start(), *WIDTHS.end()).into(),
            color: io::stdout().is_terminal() && !dumb && variable("NO_COLOR").is_none(),
        }
    }
}

/// How a piece of text stands out (SGR parameters, ECMA-48 8.3.117).
#[derive(Debug, Clone, Copy)]
pub(crate) enum Style {
    Title,
    Scene,
    Label,
    Notice,
    Good,
    Bad,
    Faint,
}

impl Style {
    /// Nothing that cannot be read on a light background, or on a dark one.
    fn parameters(self) -> &'static str {
        match self {
            Style::Title => "1;7",
            Style::Scene => "1;4",
            Style::Label => "1",
            Style::Notice => "1;35",
            Style::Good => "32",
            Style::Bad => "1;31",
            Style::Faint => "2",
        }
    }

    /// The text in this style; as it is where there are no colours.
    pub(crate) fn on(self, text: &str, look: Look) -> String {
        if look.color && !text.is_empty() {
            format!("\x1b[{}m{text}\x1b[0m", self.parameters())
        } else {
            text.to_owned()
        }
    }
}

/// Of what was received so many lines are shown, and the rest is counted.
const LINES: usize = 10;

/// Text is not set wider than that: the eye would not find the next line.
const TEXT_WIDTH: usize = 100;

/// What kind of line is above.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Before {
    Title,
    Text,
    Mark,
    Blank,
}

/// Prints what a lesson tells, as it tells it.
pub(crate) struct Printer<'a> {
    language: Language,
    look: Look,
    out: &'a mut dyn Write,
    scenes: usize,
    /// What was printed last.
    before: Before,
}

impl<'a> Printer<'a> {
    pub(crate) fn new(language: Language, look: Look, out: &'a mut dyn Write) -> Self {
        Self { language, look, out, scenes: 0, before: Before::Title }
    }

    /// A lesson begins.
    pub(crate) fn title(&mut self, lesson: &Lesson) -> io::Result<()> {
        self.scenes = 0;
        self.before = Before::Title;
        let title =
            fit(&format!(" {}  {}", lesson.name, title(lesson, self.language)), self.look.width);
        let filled = format!("{title}{}", " ".repeat(self.look.width - width(&title)));
        let line = if self.look.color {
            Style::Title.on(&filled, self.look)
        } else {
            format!("{}\n{}", title.trim(), "=".repeat(width(title.trim())))
        };
        writeln!(self.out, "{line}")
    }

    /// Something was told or shown.
    pub(crate) fn item(&mut self, item: &Item) -> io::Result<()> {
        let now = match item {
            Item::Say(_) => Before::Text,
            Item::Scene(_) => Before::Title,
            Item::Picture(_) => Before::Blank,
            Item::Notice(_) | Item::Fact(_) | Item::Shown { .. } | Item::Listed { .. } => {
                Before::Mark
            }
        };
        // Scenes, pictures and paragraphs stand apart.
        let apart = match item {
            Item::Scene(_) | Item::Picture(_) => self.before != Before::Blank,
            Item::Say(_) => matches!(self.before, Before::Text | Before::Mark),
            _ => false,
        };
        if apart {
            writeln!(self.out)?;
        }
        self.before = now;
        match item {
            Item::Scene(words) => {
                self.scenes += 1;
                self.text(&format!("{}. ", self.scenes), self.of(words), Some(Style::Scene))?;
            }
            Item::Say(words) => self.text("", self.of(words), None)?,
            Item::Notice(words) => self.text("▶ ", self.of(words), Some(Style::Notice))?,
            Item::Fact(words) => self.text("✓ ", self.of(words), Some(Style::Good))?,
            Item::Shown { what, bytes } => {
                let size = Words::new(
                    format!("{} ({})", what.of(Language::English), counted(bytes.len(), "byte")),
                    format!("{}（{} 字节）", what.of(Language::Chinese), bytes.len()),
                );
                self.lines(self.of(&size), bytes)?;
            }
            Item::Listed { what, lines } => self.lines(self.of(what), self.of(lines).as_bytes())?,
            Item::Picture(record) => {
                for line in picture::draw(record, self.language, self.look) {
                    writeln!(self.out, "{line}")?;
                }
                writeln!(self.out)?;
            }
        }
        self.out.flush()
    }

    /// A lesson has ended.
    pub(crate) fn outcome(&mut self, outcome: &Taught) -> io::Result<()> {
        if let Err(trouble) = outcome {
            self.text("✗ ", self.of(&self::trouble(trouble)), Some(Style::Bad))?;
        }
        writeln!(self.out)?;
        self.out.flush()
    }

    /// The class is over; of several lessons it is said which did not work.
    pub(crate) fn end(&mut self, all: &[Given]) -> io::Result<()> {
        if all.len() < 2 {
            return Ok(());
        }
        let failed: Vec<&str> = all
            .iter()
            .filter(|given| given.outcome.is_err())
            .map(|given| given.lesson.name)
            .collect();
        let (words, style) = if failed.is_empty() {
            let count = all.len();
            let chinese = format!("{count} 课全部演示成功。");
            (
                Words::new(format!("{count} lessons, and each showed what it is about."), chinese),
                Style::Good,
            )
        } else {
            let english =
                format!("{} of {} lessons failed: {}", failed.len(), all.len(), failed.join(", "));
            let chinese = format!(
                "{} 课中有 {} 课没有演示成功：{}",
                all.len(),
                failed.len(),
                failed.join("、")
            );
            (Words::new(english, chinese), Style::Bad)
        };
        self.text("", self.of(&words), Some(style))?;
        self.out.flush()
    }

    fn of<'w>(&self, words: &'w Words) -> &'w str {
        words.of(self.language)
    }

    /// A paragraph behind a mark that its further lines are indented under.
    fn text(&mut self, mark: &str, text: &str, style: Option<Style>) -> io::Result<()> {
        let indent = " ".repeat(width(mark));
        let columns = self.look.width.min(TEXT_WIDTH) - width(mark);
        for (number, line) in wrap(text, columns).iter().enumerate() {
            let line = format!("{}{line}", if number == 0 { mark } else { &indent });
            writeln!(
                self.out,
                "{}",
                style.map_or(line.clone(), |style| style.on(&line, self.look))
            )?;
        }
        Ok(())
    }

    /// Received bytes or noted lines, line by line behind a bar.
    fn lines(&mut self, what: &str, bytes: &[u8]) -> io::Result<()> {
        self.text("", what, None)?;
        let mut lines = bytes.split_inclusive(|byte| *byte == b'\n');
        let bar = Style::Faint.on("  │ ", self.look);
        for line in lines.by_ref().take(LINES) {
            let line = escape(line.strip_suffix(b"\n").unwrap_or(line));
            writeln!(self.out, "{bar}{}", fit(&line, self.look.width - 4))?;
        }
        let rest: Vec<&[u8]> = lines.collect();
        if !rest.is_empty() {
            let size: usize = rest.iter().map(|line| line.len()).sum();
            let words = Words::new(
                format!("… {} more, {}", counted(rest.len(), "line"), counted(size, "byte")),
                format!("…… 另有 {} 行、{size} 字节", rest.len()),
            );
            writeln!(self.out, "{bar}{}", Style::Faint.on(self.of(&words), self.look))?;
        }
        Ok(())
    }
}

/// Why a lesson could not be given, as it is told to the class.
pub(crate) fn trouble(trouble: &Trouble) -> Words {
    match trouble {
        Trouble::NotShown(words) => Words::new(
            format!("It did not show: {}", words.of(Language::English)),
            format!("没有出现：{}", words.of(Language::Chinese)),
        ),
        Trouble::Io(error) => {
            Words::new(format!("A system call failed: {error}"), format!("系统调用失败：{error}"))
        }
        Trouble::Wish(wish) => Words::new(
            format!("That cannot be done: {}", wish.of(Language::English)),
            format!("做不到：{}", wish.of(Language::Chinese)),
        ),
    }
}

/// `1 byte`, `2 bytes`.
pub(crate) fn counted(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

fn title(lesson: &Lesson, language: Language) -> &'static str {
    match language {
        Language::English => lesson.title.0,
        Language::Chinese => lesson.title.1,
    }
}

/// Prints a line for each lesson.
pub fn list(language: Language, look: Look, out: &mut dyn Write) -> io::Result<()> {
    let column = LESSONS.iter().map(|lesson| lesson.name.len()).max().unwrap_or(0) + 2;
    for lesson in LESSONS {
        let title = fit(title(lesson, language), look.width.saturating_sub(column));
        let name = Style::Label.on(lesson.name, look);
        writeln!(out, "{name}{}{title}", " ".repeat(column - lesson.name.len()))?;
    }
    out.flush()
}
