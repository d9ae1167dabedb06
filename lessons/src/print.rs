//! Prints lessons on a terminal, or as plain text into a file or a pipe.

use std::io::{self, Write};

use crate::format::{OutputFormat, Style};
use crate::language::{Language, Text, counted};
use crate::picture;
use crate::stage::{Item, LessonError, LessonResult};
use crate::wrap::{escape, fit, width, wrap};
use crate::{LESSONS, Lesson};

/// How many lines of received bytes are printed; the others are counted.
const MAX_BYTE_LINES: usize = 10;

/// Columns of running text at most: in wider text the eye loses the next line.
const MAX_TEXT_COLUMNS: usize = 100;

/// What was printed last: it decides whether a blank line follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Previous {
    Heading,
    Paragraph,
    Mark,
    BlankLine,
}

/// Prints the items of lessons as they come.
pub(crate) struct Printer<'a> {
    language: Language,
    format: OutputFormat,
    out: &'a mut dyn Write,
    /// Scenes of this lesson so far.
    scenes: usize,
    previous: Previous,
}

impl<'a> Printer<'a> {
    pub(crate) fn new(language: Language, format: OutputFormat, out: &'a mut dyn Write) -> Self {
        Self { language, format, out, scenes: 0, previous: Previous::Heading }
    }

    /// Prints the title of a lesson that begins.
    pub(crate) fn title(&mut self, lesson: &Lesson) -> io::Result<()> {
        self.scenes = 0;
        self.previous = Previous::Heading;
        let title = format!(" {}  {}", lesson.name, lesson.title(self.language));
        let title = fit(&title, self.format.width);
        let line = if self.format.color {
            let padding = " ".repeat(self.format.width - width(&title));
            Style::Title.apply(&format!("{title}{padding}"), self.format)
        } else {
            format!("{}\n{}", title.trim(), "=".repeat(width(title.trim())))
        };
        writeln!(self.out, "{line}")
    }

    /// Prints one item, after a blank line if it begins something new.
    pub(crate) fn item(&mut self, item: &Item) -> io::Result<()> {
        let apart = match item {
            Item::Scene(_) | Item::Picture(_) => self.previous != Previous::BlankLine,
            Item::Explanation(_) => matches!(self.previous, Previous::Paragraph | Previous::Mark),
            _ => false,
        };
        if apart {
            writeln!(self.out)?;
        }
        self.previous = match item {
            Item::Explanation(_) => Previous::Paragraph,
            Item::Scene(_) => Previous::Heading,
            Item::Picture(_) => Previous::BlankLine,
            Item::Notice(_) | Item::Fact(_) | Item::Bytes { .. } | Item::Lines { .. } => {
                Previous::Mark
            }
        };
        match item {
            Item::Scene(text) => {
                self.scenes += 1;
                self.text(&format!("{}. ", self.scenes), self.get(text), Some(Style::Scene))?;
            }
            Item::Explanation(text) => self.text("", self.get(text), None)?,
            Item::Notice(text) => self.text("▶ ", self.get(text), Some(Style::Notice))?,
            Item::Fact(text) => self.text("✓ ", self.get(text), Some(Style::Good))?,
            Item::Bytes { caption, bytes } => {
                let caption = self.get(caption);
                let caption = match self.language {
                    Language::English => format!("{caption} ({})", counted(bytes.len(), "byte")),
                    Language::Chinese => format!("{caption}（{} 字节）", bytes.len()),
                };
                self.lines(&caption, bytes)?;
            }
            Item::Lines { caption, lines } => {
                self.lines(self.get(caption), self.get(lines).as_bytes())?;
            }
            Item::Picture(record) => {
                for line in picture::draw(record, self.language, self.format) {
                    writeln!(self.out, "{line}")?;
                }
                writeln!(self.out)?;
            }
        }
        self.out.flush()
    }

    /// Prints why a lesson failed, and a blank line after every lesson.
    pub(crate) fn outcome(&mut self, outcome: &LessonResult) -> io::Result<()> {
        if let Err(error) = outcome {
            self.text("✗ ", self.get(&failure(error)), Some(Style::Bad))?;
        }
        writeln!(self.out)?;
        self.out.flush()
    }

    /// Prints how many lessons there were, and which of them failed.
    pub(crate) fn summary(&mut self, count: usize, failed: &[&str]) -> io::Result<()> {
        let style = if failed.is_empty() { Style::Good } else { Style::Bad };
        let text = match self.language {
            Language::English if failed.is_empty() => {
                format!("All {count} lessons showed what they are about.")
            }
            Language::Chinese if failed.is_empty() => format!("{count} 课全部演示成功。"),
            Language::English => {
                format!("{} of {count} lessons failed: {}", failed.len(), failed.join(", "))
            }
            Language::Chinese => {
                format!("{count} 课中有 {} 课没有演示成功：{}", failed.len(), failed.join("、"))
            }
        };
        self.text("", &text, Some(style))?;
        self.out.flush()
    }

    fn get<'t>(&self, text: &'t Text) -> &'t str {
        text.get(self.language)
    }

    /// Prints a paragraph after a mark, with the further lines indented by the mark's width.
    fn text(&mut self, mark: &str, text: &str, style: Option<Style>) -> io::Result<()> {
        let indent = " ".repeat(width(mark));
        let columns = self.format.width.min(MAX_TEXT_COLUMNS) - width(mark);
        for (number, line) in wrap(text, columns).iter().enumerate() {
            let line = format!("{}{line}", if number == 0 { mark } else { &indent });
            let line = style.map_or(line.clone(), |style| style.apply(&line, self.format));
            writeln!(self.out, "{line}")?;
        }
        Ok(())
    }

    /// Prints bytes line by line, each after a bar.
    fn lines(&mut self, caption: &str, bytes: &[u8]) -> io::Result<()> {
        self.text("", caption, None)?;
        let mut lines = bytes.split_inclusive(|byte| *byte == b'\n');
        let bar = Style::Faint.apply("  │ ", self.format);
        for line in lines.by_ref().take(MAX_BYTE_LINES) {
            let line = escape(line.strip_suffix(b"\n").unwrap_or(line));
            writeln!(self.out, "{bar}{}", fit(&line, self.format.width - 4))?;
        }
        let rest: Vec<&[u8]> = lines.collect();
        if !rest.is_empty() {
            let size: usize = rest.iter().map(|line| line.len()).sum();
            let note = match self.language {
                Language::English => {
                    format!("… {} more, {}", counted(rest.len(), "line"), counted(size, "byte"))
                }
                Language::Chinese => format!("…… 另有 {} 行、{size} 字节", rest.len()),
            };
            writeln!(self.out, "{bar}{}", Style::Faint.apply(&note, self.format))?;
        }
        Ok(())
    }
}

/// Why a lesson failed, as students read it.
pub(crate) fn failure(error: &LessonError) -> Text {
    match error {
        LessonError::NotShown(text) => Text::new(
            format!("Expected, but not observed: {}", text.get(Language::English)),
            format!("预期的现象没有出现：{}", text.get(Language::Chinese)),
        ),
        LessonError::Io(error) => {
            Text::new(format!("A system call failed: {error}"), format!("系统调用失败：{error}"))
        }
        LessonError::BadOption(text) => Text::new(
            format!("That cannot be done: {}", text.get(Language::English)),
            format!("做不到：{}", text.get(Language::Chinese)),
        ),
    }
}

/// Prints a line for each lesson.
pub fn list_lessons(
    language: Language,
    format: OutputFormat,
    out: &mut dyn Write,
) -> io::Result<()> {
    let column = LESSONS.iter().map(|lesson| lesson.name.len()).max().unwrap_or(0) + 2;
    for lesson in LESSONS {
        let title = fit(lesson.title(language), format.width.saturating_sub(column));
        let name = Style::Label.apply(lesson.name, format);
        writeln!(out, "{name}{}{title}", " ".repeat(column - lesson.name.len()))?;
    }
    out.flush()
}
