//! A lesson on a terminal, or as plain text in a file or a pipe.

use std::ffi::OsString;
use std::io::{self, IsTerminal, Write};
use std::ops::RangeInclusive;
use std::str::FromStr;

use crate::language::{Language, Text};
use crate::picture;
use crate::runner::LessonReport;
use crate::stage::{Item, LessonError, LessonResult};
use crate::wrap::{escape, fit, width, wrap};
use crate::{LESSONS, Lesson};

/// When output is coloured.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ColorChoice {
    /// On a terminal, unless `NO_COLOR` is set.
    #[default]
    Auto,
    /// Also into a file or a pipe.
    Always,
    /// Plain text.
    Never,
}

impl FromStr for ColorChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "auto" => Ok(Self::Auto),
            "always" => Ok(Self::Always),
            "never" => Ok(Self::Never),
            _ => Err("write auto, always or never".to_owned()),
        }
    }
}

/// The width and the colours of printed output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutputFormat {
    /// Columns per line.
    pub width: usize,
    /// Whether to print colours (ECMA-48, from the palette of 256).
    pub color: bool,
}

/// Columns of output that is not a terminal if `COLUMNS` is not set.
const DEFAULT_COLUMNS: u16 = 80;

/// Bounds of the width: narrower pictures show nothing, wider text is hard to read.
const COLUMN_BOUNDS: RangeInclusive<u16> = 40..=200;

impl OutputFormat {
    /// The format of stdout: as wide as its terminal, else as `COLUMNS` says, else 80 columns.
    pub fn for_stdout(color: ColorChoice) -> Self {
        let columns = || variable("COLUMNS").and_then(|columns| columns.to_str()?.parse().ok());
        let terminal = terminal_size::terminal_size_of(io::stdout()).map(|(width, _)| width.0);
        let width = terminal.filter(|width| *width > 0).or_else(columns).unwrap_or(DEFAULT_COLUMNS);
        let color = match color {
            ColorChoice::Auto => stdout_shows_color(),
            ColorChoice::Always => true,
            ColorChoice::Never => false,
        };
        Self { width: width.clamp(*COLUMN_BOUNDS.start(), *COLUMN_BOUNDS.end()).into(), color }
    }
}

/// Whether stdout is a terminal with colours and `NO_COLOR` is not set.
fn stdout_shows_color() -> bool {
    let dumb = variable("TERM").is_none_or(|term| term == "dumb");
    io::stdout().is_terminal() && !dumb && variable("NO_COLOR").is_none()
}

/// An environment variable that is set and not empty.
fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
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
    pub(crate) fn on(self, text: &str, look: OutputFormat) -> String {
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
    look: OutputFormat,
    out: &'a mut dyn Write,
    scenes: usize,
    /// What was printed last.
    before: Before,
}

impl<'a> Printer<'a> {
    pub(crate) fn new(language: Language, look: OutputFormat, out: &'a mut dyn Write) -> Self {
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
                let size = Text::new(
                    format!("{} ({})", what.get(Language::English), counted(bytes.len(), "byte")),
                    format!("{}（{} 字节）", what.get(Language::Chinese), bytes.len()),
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
    pub(crate) fn outcome(&mut self, outcome: &LessonResult) -> io::Result<()> {
        if let Err(trouble) = outcome {
            self.text("✗ ", self.of(&self::trouble(trouble)), Some(Style::Bad))?;
        }
        writeln!(self.out)?;
        self.out.flush()
    }

    /// The class is over; of several lessons it is said which did not work.
    pub(crate) fn end(&mut self, all: &[LessonReport]) -> io::Result<()> {
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
                Text::new(format!("{count} lessons, and each showed what it is about."), chinese),
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
            (Text::new(english, chinese), Style::Bad)
        };
        self.text("", self.of(&words), Some(style))?;
        self.out.flush()
    }

    fn of<'w>(&self, words: &'w Text) -> &'w str {
        words.get(self.language)
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
            let words = Text::new(
                format!("… {} more, {}", counted(rest.len(), "line"), counted(size, "byte")),
                format!("…… 另有 {} 行、{size} 字节", rest.len()),
            );
            writeln!(self.out, "{bar}{}", Style::Faint.on(self.of(&words), self.look))?;
        }
        Ok(())
    }
}

/// Why a lesson could not be given, as it is told to the class.
pub(crate) fn trouble(trouble: &LessonError) -> Text {
    match trouble {
        LessonError::NotShown(words) => Text::new(
            format!("It did not show: {}", words.get(Language::English)),
            format!("没有出现：{}", words.get(Language::Chinese)),
        ),
        LessonError::Io(error) => {
            Text::new(format!("A system call failed: {error}"), format!("系统调用失败：{error}"))
        }
        LessonError::BadOption(wish) => Text::new(
            format!("That cannot be done: {}", wish.get(Language::English)),
            format!("做不到：{}", wish.get(Language::Chinese)),
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
pub fn list_lessons(language: Language, look: OutputFormat, out: &mut dyn Write) -> io::Result<()> {
    let column = LESSONS.iter().map(|lesson| lesson.name.len()).max().unwrap_or(0) + 2;
    for lesson in LESSONS {
        let title = fit(title(lesson, language), look.width.saturating_sub(column));
        let name = Style::Label.on(lesson.name, look);
        writeln!(out, "{name}{}{title}", " ".repeat(column - lesson.name.len()))?;
    }
    out.flush()
}
