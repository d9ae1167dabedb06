//! Where a lesson is given: what it tells and shows is printed at once, and kept for the page.

use std::io;

use crate::flow::{Flow, Record};
use crate::language::Text;
use crate::options::Options;

/// How a lesson ends.
pub type LessonResult = Result<(), LessonError>;

/// Why a lesson could not be given.
#[derive(Debug, thiserror::Error)]
pub enum LessonError {
    /// What was to be seen did not show itself.
    #[error("it did not show: {}", .0.get(crate::language::Language::English))]
    NotShown(Text),
    /// A system call failed that should not have.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// What the teacher asked for cannot be done.
    #[error("{}", .0.get(crate::language::Language::English))]
    BadOption(Text),
}

impl From<nix::errno::Errno> for LessonError {
    fn from(errno: nix::errno::Errno) -> Self {
        Self::Io(errno.into())
    }
}

/// Something that a lesson told or showed.
#[derive(Debug, Clone)]
pub enum Item {
    /// A part of the lesson begins.
    Scene(Text),
    /// An explanation.
    Say(Text),
    /// What to look at in what was just shown.
    Notice(Text),
    /// Something that a program really received or printed.
    Shown {
        /// What it is.
        what: Text,
        /// The bytes, as they were.
        bytes: Vec<u8>,
    },
    /// What the lesson noted while it went on, line by line: a journal, a table, what a call
    /// returned.
    Listed {
        /// What it is.
        what: Text,
        /// The lines.
        lines: Text,
    },
    /// Writes and reads as blocks.
    Picture(Record),
    /// A fact that was checked and held.
    Fact(Text),
}

/// What a lesson speaks to.
pub struct Stage<'a> {
    options: &'a Options,
    tell: &'a mut dyn FnMut(&Item) -> io::Result<()>,
    told: Vec<Item>,
}

impl<'a> Stage<'a> {
    /// A stage whose every item goes to `tell` as soon as it is there.
    pub fn new(options: &'a Options, tell: &'a mut dyn FnMut(&Item) -> io::Result<()>) -> Self {
        Self { options, tell, told: Vec::new() }
    }

    /// What the teacher wants varied.
    pub fn options(&self) -> &'a Options {
        self.options
    }

    /// Begins a part of the lesson.
    pub fn scene(&mut self, text: impl Into<Text>) -> io::Result<()> {
        self.add(Item::Scene(text.into()))
    }

    /// Explains.
    pub fn say(&mut self, text: impl Into<Text>) -> io::Result<()> {
        self.add(Item::Say(text.into()))
    }

    /// Says what to notice.
    pub fn notice(&mut self, text: impl Into<Text>) -> io::Result<()> {
        self.add(Item::Notice(text.into()))
    }

    /// Shows bytes that were really received.
    pub fn show(&mut self, text: impl Into<Text>, bytes: &[u8]) -> io::Result<()> {
        self.add(Item::Shown { what: text.into(), bytes: bytes.to_vec() })
    }

    /// Shows what was noted, line by line.
    pub fn list(&mut self, text: impl Into<Text>, lines: impl Into<Text>) -> io::Result<()> {
        self.add(Item::Listed { what: text.into(), lines: lines.into() })
    }

    /// Draws what a flow has recorded.
    pub fn draw(&mut self, flow: &Flow) -> io::Result<()> {
        self.add(Item::Picture(flow.record()))
    }

    /// States a fact that must hold for the lesson to be true; where it does not, the lesson fails.
    pub fn fact(&mut self, holds: bool, text: impl Into<Text>) -> LessonResult {
        let words = text.into();
        if !holds {
            return Err(LessonError::NotShown(words));
        }
        Ok(self.add(Item::Fact(words))?)
    }

    /// All that was told so far.
    pub fn told(&self) -> &[Item] {
        &self.told
    }

    fn add(&mut self, item: Item) -> io::Result<()> {
        (self.tell)(&item)?;
        self.told.push(item);
        Ok(())
    }
}
