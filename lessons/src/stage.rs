//! The stage of a lesson: prints at once what the lesson shows, and records it for the page.

use std::io;

use crate::flow::{Flow, Record};
use crate::language::{Language, Text};
use crate::options::Options;

/// The outcome of a lesson.
pub type LessonResult = Result<(), LessonError>;

/// Why a lesson failed.
#[derive(Debug, thiserror::Error)]
pub enum LessonError {
    /// A fact did not hold, or the lesson waited for it in vain.
    #[error("expected, but not observed: {}", .0.get(Language::English))]
    NotShown(Text),
    /// A system call failed unexpectedly.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The lesson cannot run with these options.
    #[error("{}", .0.get(Language::English))]
    BadOption(Text),
}

impl LessonError {
    /// Refuses the options of the lesson, with a remedy.
    pub(crate) fn bad_option(text: impl Into<Text>) -> Self {
        Self::BadOption(text.into())
    }
}

impl From<nix::errno::Errno> for LessonError {
    fn from(errno: nix::errno::Errno) -> Self {
        Self::Io(errno.into())
    }
}

/// One thing that a lesson showed.
#[derive(Debug, Clone)]
pub enum Item {
    /// The heading of a scene.
    Scene(Text),
    /// An explanation.
    Explanation(Text),
    /// What to look at in the item before.
    Notice(Text),
    /// Bytes that a program received or printed.
    Bytes {
        /// What they are.
        caption: Text,
        /// The bytes, unchanged.
        bytes: Vec<u8>,
    },
    /// Lines that the lesson wrote: a journal, a table, the results of a call.
    Lines {
        /// What they are.
        caption: Text,
        /// The lines.
        lines: Text,
    },
    /// Writes and reads, to be drawn as blocks.
    Picture(Record),
    /// A fact that was checked and holds.
    Fact(Text),
}

/// What a lesson shows itself on.
pub(crate) struct Stage<'a> {
    options: &'a Options,
    print: &'a mut dyn FnMut(&Item) -> io::Result<()>,
    items: Vec<Item>,
}

impl<'a> Stage<'a> {
    /// Creates a stage that passes every item to `print` as soon as the lesson shows it.
    pub(crate) fn new(
        options: &'a Options,
        print: &'a mut dyn FnMut(&Item) -> io::Result<()>,
    ) -> Self {
        Self { options, print, items: Vec::new() }
    }

    /// The variations that the teacher chose.
    pub(crate) fn options(&self) -> &'a Options {
        self.options
    }

    /// Begins a scene.
    pub(crate) fn scene(&mut self, text: impl Into<Text>) -> LessonResult {
        self.add(Item::Scene(text.into()))
    }

    /// Explains something.
    pub(crate) fn say(&mut self, text: impl Into<Text>) -> LessonResult {
        self.add(Item::Explanation(text.into()))
    }

    /// Points out what to look at.
    pub(crate) fn notice(&mut self, text: impl Into<Text>) -> LessonResult {
        self.add(Item::Notice(text.into()))
    }

    /// Shows bytes that were received or printed.
    pub(crate) fn show(&mut self, caption: impl Into<Text>, bytes: &[u8]) -> LessonResult {
        self.add(Item::Bytes { caption: caption.into(), bytes: bytes.to_vec() })
    }

    /// Shows lines of the lesson's own.
    pub(crate) fn list(
        &mut self,
        caption: impl Into<Text>,
        lines: impl Into<Text>,
    ) -> LessonResult {
        self.add(Item::Lines { caption: caption.into(), lines: lines.into() })
    }

    /// Draws the calls that a flow has recorded so far.
    pub(crate) fn draw(&mut self, flow: &Flow) -> LessonResult {
        self.add(Item::Picture(flow.record()))
    }

    /// States a fact; the lesson fails if it does not hold.
    pub(crate) fn fact(&mut self, holds: bool, text: impl Into<Text>) -> LessonResult {
        let text = text.into();
        if !holds {
            return Err(LessonError::NotShown(text));
        }
        self.add(Item::Fact(text))
    }

    /// Everything that was shown so far.
    pub(crate) fn items(&self) -> &[Item] {
        &self.items
    }

    fn add(&mut self, item: Item) -> LessonResult {
        (self.print)(&item)?;
        self.items.push(item);
        Ok(())
    }
}
